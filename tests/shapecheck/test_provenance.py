"""What is noted of memory: found again from views, never from other memory, and gone with it; what errors say of it."""

import gc
import json
from collections.abc import Callable

import numpy as np
import pytest
from jaxtyping import Float32

from shapecheck import ContractError, check, contract, mode
from shapecheck._provenance import MemoryNotes

torch = pytest.importorskip("torch")


@pytest.fixture(params=[torch.zeros, np.zeros], ids=["torch", "numpy"])
def make(request: pytest.FixtureRequest) -> Callable:
    return request.param


def test_views_of_the_same_elements_find_the_note(make: Callable) -> None:
    notes, array = MemoryNotes[str](), make((4, 1, 2, 3))
    notes.put(array, "amplitude")
    for view in (array, array[None], array.reshape(4, 6), array.reshape(24), array.swapaxes(2, 3), array[:]):
        assert notes.get(view) == "amplitude"
        assert notes.nearest(view) == "amplitude"


def test_other_elements_of_the_memory_are_not_taken_for_the_noted_ones(make: Callable) -> None:
    notes, array = MemoryNotes[str](), make((6, 2))
    notes.put(array[:3], "first half")
    for view in (array, array[3:], array[:, 0], array[:, 1], array[:2]):
        assert notes.get(view) is None
        assert notes.nearest(view) == "first half"


def test_copies_and_other_memory_have_no_notes(make: Callable) -> None:
    notes, array = MemoryNotes[str](), make((3, 2))
    notes.put(array, "amplitude")
    for other in (array + 0, make((3, 2))):
        assert notes.get(other) is None
        assert notes.nearest(other) is None


def test_the_last_note_counts(make: Callable) -> None:
    notes, array = MemoryNotes[str](), make((3, 2))
    for note in ("first", "second"):
        notes.put(array, note)
    notes.put(array[1:], "rows")
    assert (notes.get(array), notes.get(array[1:]), notes.nearest(array[0])) == ("second", "rows", "rows")


def test_a_note_keeps_no_memory_alive_and_goes_with_it(make: Callable) -> None:
    notes, array = MemoryNotes[str](), make((3, 2))
    notes.put(array, "amplitude")
    view = array[1:]
    notes.put(view, "rows")
    del array
    gc.collect()
    assert len(notes) == 1
    del view
    gc.collect()
    assert len(notes) == 0


def test_values_without_memory_of_their_own_are_passed_over() -> None:
    notes = MemoryNotes[str]()
    nested = torch.nested.nested_tensor([torch.zeros(2, 3), torch.zeros(4, 3)], layout=torch.jagged)
    for value in (torch.eye(3).to_sparse(), nested, 3, None, [torch.zeros(2)]):
        notes.put(value, "unseen")
        assert notes.get(value) is None
        assert notes.nearest(value) is None
    assert len(notes) == 0


def test_meta_and_fake_tensors_have_notes_too() -> None:
    from torch._subclasses import FakeTensorMode

    notes = MemoryNotes[str]()
    with FakeTensorMode():
        for array in (torch.zeros(3, 2), torch.zeros(3, 2, device="meta")):
            notes.put(array, "amplitude")
            assert notes.get(array.T) == "amplitude"


# --- what an error says of it -------------------------------------------------------------------------
@pytest.fixture(params=["compiled", "reference"])
def strict(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHAPECHECK", "strict")
    monkeypatch.setenv("SHAPECHECK_ENGINE", request.param)


def make_pair() -> tuple[Callable, Callable]:
    @contract
    def load(groups: int) -> dict[str, Float32[torch.Tensor, "B 1 2 C"]]:
        return {"offsets": torch.zeros(groups, 1, 2, 4)}

    @contract
    def use(offsets: Float32[torch.Tensor, "B C 1 2"]) -> Float32[torch.Tensor, "B C 1 2"]:
        return offsets

    return load, use


@pytest.mark.violation
@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda offsets: offsets, "return['offsets'] f32[3,1,2,4]\n"),
        (lambda offsets: offsets.reshape(3, 2, 1, 4), "return['offsets'] f32[3,1,2,4], the same elements\n"),
        (lambda offsets: offsets[1:], "return['offsets'] f32[3,1,2,4], which shares its memory\n"),
    ],
    ids=["same", "view", "part"],
)
def test_in_strict_mode_an_error_names_the_boundary_that_a_tensor_came_from(change: Callable, line: str) -> None:
    load, use = make_pair()
    offsets = load(3)["offsets"]
    with pytest.raises(ContractError) as caught:
        use(change(offsets))
    producer = "test_provenance.make_pair.<locals>.load"
    assert f"  came from  tests.shapecheck.{producer} -> {line}" in str(caught.value)
    assert json.loads(json.dumps(caught.value.violations[0].to_dict()))["came_from"]["boundary"].endswith(producer)


@pytest.mark.violation
@pytest.mark.usefixtures("strict")
def test_of_a_copy_nothing_is_said() -> None:
    load, use = make_pair()
    with pytest.raises(ContractError) as caught:
        use(load(3)["offsets"].clone())
    assert caught.value.violations[0].came_from is None
    assert "came from" not in str(caught.value)


@pytest.mark.violation
@pytest.mark.usefixtures("strict")
def test_the_last_boundary_that_accepted_a_tensor_is_named_be_it_as_an_argument_or_by_check() -> None:
    load, use = make_pair()
    offsets = load(3)["offsets"]
    check(offsets, Float32[torch.Tensor, "B 1 2 C"], "batch")
    with pytest.raises(ContractError, match=r"-> batch f32\[3,1,2,4\]"):
        use(offsets)
    good = offsets.permute(0, 3, 1, 2)
    assert use(good) is good
    with pytest.raises(ContractError, match=r"came from .*use -> return f32\[3,4,1,2\]"):
        use(good[..., 0])


@pytest.mark.violation
def test_outside_strict_mode_nothing_is_noted() -> None:
    load, use = make_pair()
    with pytest.raises(ContractError) as caught:
        use(load(3)["offsets"])
    assert caught.value.violations[0].came_from is None


@pytest.mark.violation
def test_a_strict_block_notes_what_crosses_boundaries_defined_before() -> None:
    load, use = make_pair()
    with mode("strict"), pytest.raises(ContractError, match="came from"):
        use(load(3)["offsets"])


def test_strict_contracts_leave_nothing_in_a_compiled_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHAPECHECK", "strict")

    @contract
    def double(x: Float32[torch.Tensor, "b c"]) -> Float32[torch.Tensor, "c b"]:
        return 2 * x.T

    assert torch.compile(double, fullgraph=True, backend="eager")(torch.ones(3, 4)).shape == (4, 3)
