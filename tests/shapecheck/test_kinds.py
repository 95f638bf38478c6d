"""Kinds: what a producer declared follows the memory, and nothing else is ever refused."""

import enum
import gc
import pickle
import subprocess
import sys
from typing import Annotated, Any, TypedDict

import numpy as np
import pytest
import torch
from jaxtyping import Float32
from torch import Tensor
from torch.utils.data import DataLoader

from shapecheck import ContractDefinitionError, ContractError, check, contract, mode
from shapecheck.kinds import Kind, _declarations


class Diffraction(Kind):
    AMPLITUDE = "square root of counts"
    INTENSITY = "counts"


class Frame(Kind):
    ABSOLUTE = enum.auto()
    RELATIVE = enum.auto()


Amplitude = Annotated[Float32[Tensor, "B C N N"], Diffraction.AMPLITUDE]
Intensity = Annotated[Float32[Tensor, "B C N N"], Diffraction.INTENSITY]
Positions = Annotated[Float32[Tensor, "B C 1 2"], Frame.ABSOLUTE]
Offsets = Annotated[Float32[Tensor, "B C 1 2"], Frame.RELATIVE]
AnyImages = Float32[Tensor, "B C N N"]

B, C, N = 3, 4, 16


@pytest.fixture(autouse=True)
def _engine(engine: str) -> None:
    """Every test here holds for both engines."""


def images(B: int = B, C: int = C, N: int = N) -> Tensor:
    return torch.rand(B, C, N, N)


def measure(counts: Tensor) -> Tensor:
    """A producer of intensities."""

    @contract
    def measured(counts: AnyImages) -> Intensity:
        return counts * 2

    return measured(counts)


def model(x: Tensor) -> Tensor:
    """A consumer of amplitudes."""

    @contract
    def predict(x: Amplitude) -> Amplitude:
        return x + 1

    return predict(x)


def accepts_as(annotation: Any, value: Any) -> bool:
    try:
        check(value, annotation)
    except ContractError as error:
        if [violation.id for violation in error.violations] != ["kind"]:
            raise
        return False
    return True


# --- what is refused, and its twin -----------------------------------------------------------------------
@pytest.mark.violation
@pytest.mark.parametrize("sizes", [{}, {"C": 1}, {"C": 2, "N": 2}, {"B": 4}], ids=str)
def test_an_intensity_is_refused_where_an_amplitude_is_required(sizes: dict[str, int]) -> None:
    intensity = measure(images(**sizes))
    with pytest.raises(ContractError) as caught:
        model(intensity)
    (violation,) = caught.value.violations
    assert (violation.id, violation.parameter) == ("kind", "x")
    assert model(intensity.sqrt()).shape == intensity.shape


@pytest.mark.violation
def test_the_text_names_both_kinds_and_who_declared_the_first() -> None:
    @contract
    def load() -> Intensity:
        return images()

    @contract
    def predict(x: Amplitude) -> None:
        del x

    with pytest.raises(ContractError) as caught:
        predict(load())
    name = f"{__name__}.test_the_text_names_both_kinds_and_who_declared_the_first.<locals>"
    because = f"it was declared Diffraction.INTENSITY by the result of {name}.load, not Diffraction.AMPLITUDE"
    assert str(caught.value).splitlines()[:4] == [
        f"ContractError [kind]: {name}.predict, parameter 'x': {because}",
        '  expected   Annotated[Float32[Tensor, "B C N N"], Diffraction.AMPLITUDE]',
        "  got        f32[3,4,16,16]",
        f"  because    {because}",
    ]


@pytest.mark.violation
def test_an_accepted_argument_is_declared_too() -> None:
    x = images()
    model(x)
    assert not accepts_as(Intensity, x)
    assert accepts_as(Amplitude, x)


@pytest.mark.violation
def test_tensors_that_nobody_declared_pass_everywhere() -> None:
    x = images()
    assert accepts_as(AnyImages, x)
    assert model(x).shape == x.shape
    with mode("strict"):
        assert model(images()).shape == x.shape


@pytest.mark.violation
def test_kinds_of_different_families_do_not_exclude_each_other() -> None:
    x = torch.zeros(B, C, 1, 2)
    check(x, Positions)
    check(x, Annotated[Float32[Tensor, "B C 1 2"], Diffraction.AMPLITUDE])
    assert accepts_as(Positions, x)
    assert not accepts_as(Offsets, x)
    assert not accepts_as(Annotated[Float32[Tensor, "B C 1 2"], Diffraction.INTENSITY, Frame.ABSOLUTE], x)


@pytest.mark.violation
def test_a_rejected_call_declares_nothing() -> None:
    @contract
    def use(x: Amplitude, offsets: Offsets) -> None:
        del x, offsets

    x, positions = images(), torch.zeros(B, C, 1, 2)
    check(positions, Positions)
    with pytest.raises(ContractError):
        use(x, positions)
    with pytest.raises(ContractError):
        use(x, torch.zeros(B, C, 1, 3))
    assert accepts_as(Intensity, x)


# --- what keeps a kind and what does not --------------------------------------------------------------------
KEPT = {
    "itself": lambda x: x,
    "permute": lambda x: x.permute(1, 0, 3, 2),
    "unsqueeze": lambda x: x.unsqueeze(2),
    "flatten": lambda x: x.flatten(0, 1),
    "detach": lambda x: x.detach(),
    "to-the-same": lambda x: x.to(torch.float32),
    "contiguous": lambda x: x.contiguous(),
}
LOST = {
    "square": lambda x: x.square(),
    "clone": lambda x: x.clone(),
    "slice": lambda x: x[:1],
    "column": lambda x: x[:, :, :, :4],
    "indexing": lambda x: x[torch.arange(3)],
    "through-numpy": lambda x: torch.from_numpy(x.numpy().copy()),
    "in-place": lambda x: x.sqrt_(),
}
SomeAmplitude = Annotated[Float32[Tensor, "..."], Diffraction.AMPLITUDE]


@pytest.mark.violation
@pytest.mark.parametrize("change", KEPT)
def test_views_of_the_same_elements_keep_the_kind(change: str) -> None:
    assert not accepts_as(SomeAmplitude, KEPT[change](measure(images())))


@pytest.mark.violation
@pytest.mark.parametrize("change", LOST)
def test_what_is_computed_copied_sliced_or_written_to_is_unknown(change: str) -> None:
    assert accepts_as(SomeAmplitude, LOST[change](measure(images())))


@pytest.mark.violation
def test_numpy_arrays_have_kinds_until_they_are_copied() -> None:
    counts = np.ones((3, 16, 16), np.float32)
    check(counts, Annotated[Float32[np.ndarray, "S N N"], Diffraction.INTENSITY])
    amplitude = Annotated[Float32[np.ndarray, "..."], Diffraction.AMPLITUDE]
    assert not accepts_as(amplitude, counts)
    assert not accepts_as(amplitude, counts.transpose(0, 2, 1))
    assert not accepts_as(amplitude, counts[:, None])
    assert accepts_as(amplitude, np.sqrt(counts))
    assert accepts_as(amplitude, counts[1:])


@pytest.mark.violation
def test_new_memory_at_an_old_address_is_unknown() -> None:
    for _ in range(50):
        x = images(N=2)
        check(x, Intensity)
        address = x.data_ptr()
        del x
        fresh = images(N=2)
        assert accepts_as(Amplitude, fresh)
        if fresh.data_ptr() == address:
            return
    pytest.skip("the allocator never gave the same memory twice")


@pytest.mark.violation
def test_a_declaration_goes_with_the_memory_and_keeps_nothing_alive() -> None:
    gc.collect()
    before = len(_declarations)
    kept = [measure(images()) for _ in range(5)]
    assert len(_declarations) == before + 5
    kept.clear()
    gc.collect()
    assert len(_declarations) == before


@pytest.mark.violation
def test_declare_overrules_what_was_said_of_the_memory() -> None:
    counts = np.full((3, 16, 16), 4, np.float32)
    check(counts, Annotated[Float32[np.ndarray, "S N N"], Diffraction.INTENSITY])
    np.sqrt(counts, out=counts)  # NumPy does not count what is written
    assert Diffraction.AMPLITUDE.declare(counts) is counts
    assert accepts_as(Annotated[Float32[np.ndarray, "S N N"], Diffraction.AMPLITUDE], counts)
    with pytest.raises(ContractError, match=r"by a declaration in .*\.test_declare_overrules"):
        check(counts, Annotated[Float32[np.ndarray, "S N N"], Diffraction.INTENSITY])


# --- the ordinary path ------------------------------------------------------------------------------------
class Fields(TypedDict):
    images: Amplitude
    offsets: Offsets


class Groups(torch.utils.data.Dataset[Any]):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"images": torch.rand(C, N, N), "offsets": torch.zeros(C, 1, 2)}


@pytest.mark.violation
@pytest.mark.parametrize("workers", [0, 1])
def test_kinds_survive_from_the_dataloader_through_the_model_to_a_helper(workers: int) -> None:
    @contract
    def merge(offsets: Positions) -> None:
        del offsets

    @contract
    def step(batch: Fields) -> None:
        merge(batch["offsets"].unsqueeze(1).squeeze(1))

    for batch in DataLoader(Groups(), batch_size=2, num_workers=workers):
        with pytest.raises(ContractError, match=r"declared Frame.RELATIVE by \"batch\['offsets'\]\" of .*\.step"):
            step(batch)


@pytest.mark.violation
def test_items_of_lists_and_optional_arguments_are_declared() -> None:
    @contract
    def use(many: list[Amplitude], one: Amplitude | None = None, *more: Amplitude) -> None:
        del many, one, more

    x = [images() for _ in range(4)]
    use(x[:2], x[2], x[3])
    assert [accepts_as(Intensity, item) for item in x] == [False] * 4
    use([images()], None)
    intensity = measure(images())
    for arguments in (([images(), intensity],), ([images()], intensity), ([images()], None, intensity)):
        with pytest.raises(ContractError):
            use(*arguments)


@pytest.mark.violation
def test_a_union_of_kinds_takes_either_and_declares_the_one_that_is_known() -> None:
    @contract
    def use(x: Amplitude | Intensity) -> None:
        del x

    unknown, intensity = images(), measure(images())
    use(unknown)
    use(intensity)
    assert accepts_as(Amplitude, unknown)
    assert not accepts_as(Amplitude, intensity)
    with pytest.raises(ContractError):
        check(intensity, Amplitude | Annotated[Float32[Tensor, "B C N M"], Diffraction.AMPLITUDE])


@pytest.mark.violation
def test_a_union_of_dtypes_has_one_kind() -> None:
    stack = Annotated[Float32[Tensor, "n h w"] | Float32[np.ndarray, "n h w"], Diffraction.AMPLITUDE]

    @contract
    def use(x: stack) -> None:
        del x

    for x in (torch.zeros(3, 4, 5), np.zeros((3, 4, 5), np.float32)):
        use(x)
        assert not accepts_as(Annotated[Float32[type(x), "n h w"], Diffraction.INTENSITY], x)


def test_kinds_leave_nothing_in_a_compiled_graph() -> None:
    @contract
    def use(x: Amplitude) -> Intensity:
        return x.square()

    compiled = torch.compile(use, backend="eager", fullgraph=True)
    x = images()
    assert torch.equal(compiled(x), x.square())
    assert torch.vmap(torch.compile(lambda row: row * 2, backend="eager"))(x).shape == x.shape


def test_tensors_without_memory_of_their_own_are_unknown() -> None:
    @contract
    def total(x: Annotated[Float32[Tensor, " n"], Diffraction.AMPLITUDE]) -> Float32[Tensor, ""]:
        return x.sum()

    assert torch.vmap(total)(torch.ones(3, 4)).shape == (3,)
    assert torch.func.grad(total)(torch.ones(4)).shape == (4,)
    assert total(torch.empty(4, device="meta")).is_meta
    with torch.inference_mode():
        assert total(torch.ones(4)) == 4


# --- definitions ------------------------------------------------------------------------------------------
@pytest.mark.violation
def test_contradictory_kinds_and_kinds_of_no_tensor_are_refused() -> None:
    with pytest.raises(ContractDefinitionError, match=r"Diffraction\.AMPLITUDE and Diffraction\.INTENSITY .* exclude"):
        check(images(), Annotated[Amplitude, Diffraction.INTENSITY])
    with pytest.raises(ContractDefinitionError, match=r"Frame\.RELATIVE .* says what a tensor means, but int is no"):
        check(3, Annotated[int, Frame.RELATIVE])
    with pytest.raises(ContractDefinitionError, match="is no validator, kind or text"):
        check(images(), Annotated[AnyImages, Diffraction])
    check(images(), Annotated[Tensor, Diffraction.AMPLITUDE])


def test_two_kinds_of_one_description_would_be_one_and_are_refused() -> None:
    with pytest.raises(ContractDefinitionError, match="descriptions of their own, got INTENSITY twice"):

        class _Mixed(Kind):
            AMPLITUDE = "light"
            INTENSITY = "light"


def test_a_kind_is_an_enum_member_that_survives_pickling() -> None:
    assert pickle.loads(pickle.dumps(Diffraction.AMPLITUDE)) is Diffraction.AMPLITUDE
    assert [kind.name for kind in Frame] == ["ABSOLUTE", "RELATIVE"]
    assert Diffraction.INTENSITY.value == "counts"


def test_nothing_is_noted_when_checking_is_off() -> None:
    gc.collect()
    before = len(_declarations)
    with mode("off"):
        x = Diffraction.INTENSITY.declare(images())
        check(x, Amplitude)
    assert len(_declarations) == before


def test_kinds_can_be_declared_without_importing_torch() -> None:
    code = (
        "import sys; from shapecheck.kinds import Kind; K = Kind('K', {'A': 'a'}); "
        "K.A.declare(object()); sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
