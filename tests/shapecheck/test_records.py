"""Containers and records: every item of every one is looked at, and everything wrong is in one report."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NotRequired, Optional, TypedDict

import pytest
import torch
from jaxtyping import Complex64, Float32, Int64
from torch import Tensor

from shapecheck import ContractDefinitionError, ContractError, check, contract

pytestmark = pytest.mark.violation

Image = Float32[Tensor, "h w"]


class Fields(TypedDict):
    images: Float32[Tensor, "B C N N"]
    coords_relative: Float32[Tensor, "B C 1 2"]
    weight: NotRequired[Float32[Tensor, " B"]]


Batch = tuple[Fields, Complex64[Tensor, "B C P N N"]]


class Placed(NamedTuple):
    image: Float32[Tensor, "h w"]
    mask: Float32[Tensor, "h w"]


@dataclasses.dataclass
class Scan:
    diffraction: Float32[Tensor, "S N N"]
    xcoords: Float32[Tensor, " S"]
    name: str = "scan"


def make_fields(B: int = 3, C: int = 4, N: int = 16) -> dict[str, Any]:
    return {"images": torch.zeros(B, C, N, N), "coords_relative": torch.zeros(B, C, 1, 2)}


def make_batch(B: int = 3, C: int = 4, P: int = 2, N: int = 16) -> Any:
    return make_fields(B, C, N), torch.zeros(B, C, P, N, N, dtype=torch.complex64)


def paths_of(value: object, annotation: object, **options: Any) -> list[str]:
    """Check a value and return the paths of what is wrong with it."""
    try:
        assert check(value, annotation, **options) is value
    except ContractError as error:
        return [violation.parameter for violation in error.violations]
    return []


@pytest.mark.parametrize("sizes", [{}, {"B": 1}, {"C": 1}, {"C": 2}, {"B": 4}, {"N": 4}, {"P": 1}], ids=str)
def test_a_batch_that_keeps_its_contract_passes(sizes: dict[str, int]) -> None:
    assert paths_of(make_batch(**sizes), Batch, name="batch") == []


@pytest.mark.parametrize("C", [1, 2, 4])
def test_channel_last_coordinates_are_found_in_a_batch(C: int) -> None:
    fields, probe = make_batch(C=C)
    fields["coords_relative"] = fields["coords_relative"].permute(0, 2, 3, 1)
    assert paths_of((fields, probe), Batch, name="batch", dims={"C": C}) == ["batch[0]['coords_relative']"]


def test_one_report_holds_everything_that_is_wrong_with_a_batch() -> None:
    fields, probe = make_batch()
    fields = {"image": fields["images"], "coords_relative": fields["coords_relative"].double()}
    with pytest.raises(ContractError) as caught:
        check((fields, probe.real), Batch, "batch")
    found = {violation.parameter: violation.id for violation in caught.value.violations}
    assert found == {"batch[0]": "missing-key", "batch[0]['coords_relative']": "dtype", "batch[1]": "dtype"}
    kinds = [mismatch.kind for mismatch in caught.value.violations[0].mismatches]
    assert kinds == ["missing-key", "extra-key"]


def test_a_field_that_is_not_required_may_be_missing_but_not_wrong() -> None:
    assert paths_of({**make_fields(), "weight": torch.zeros(3)}, Fields) == []
    assert paths_of({**make_fields(), "weight": torch.zeros(4)}, Fields) == ["value['weight']"]


def test_dims_of_a_batch_are_tied_to_a_configuration() -> None:
    assert paths_of(make_batch(C=1), Batch, dims={"C": 1}) == []
    wrong = ["value[0]['images']", "value[0]['coords_relative']", "value[1]"]
    assert paths_of(make_batch(C=1), Batch, dims={"C": 4}) == wrong


@pytest.mark.parametrize("annotation", [list[Image], Sequence[Image], tuple[Image, ...]], ids=str)
@pytest.mark.parametrize("position", [0, 17, 63])
def test_one_wrong_item_of_many_is_always_found(annotation: Any, position: int) -> None:
    kind = tuple if annotation == tuple[Image, ...] else list
    images = [torch.zeros(5, 6) for _ in range(64)]
    assert paths_of(kind(images), annotation) == []
    images[position] = torch.zeros(6, 5)
    wrong = f"value[{position}]" if position else [f"value[{index}]" for index in range(1, 64)]
    assert paths_of(kind(images), annotation) == ([wrong] if position else wrong)


def test_every_value_and_key_of_a_mapping_is_checked() -> None:
    good = {name: torch.zeros(5, 6) for name in "abc"}
    for annotation in (dict[str, Image], Mapping[str, Image]):
        assert paths_of(good, annotation) == []
        assert paths_of({**good, "c": torch.zeros(5, 7)}, annotation) == ["value['c']"]
        assert paths_of({**good, 3: torch.zeros(5, 6)}, annotation) == ["key 3 of value"]


def test_the_length_of_a_fixed_tuple_is_checked() -> None:
    assert paths_of((torch.zeros(5, 6), 1), tuple[Image, int]) == []
    assert paths_of((torch.zeros(5, 6),), tuple[Image, int]) == ["value"]
    assert paths_of([torch.zeros(5, 6), 1], tuple[Image, int]) == ["value"]


def test_optional_and_union_accept_any_alternative_and_nothing_else() -> None:
    assert paths_of(None, Optional[Image]) == []  # noqa: UP045  # the older spelling must work as well
    assert paths_of(torch.zeros(5, 6), Image | None) == []
    assert paths_of(torch.zeros(5), Image | None) == ["value"]
    assert paths_of("text", Image | None) == ["value"]
    assert paths_of([torch.zeros(5, 6), None], list[Image | None]) == []


def test_containers_nest() -> None:
    annotation = dict[str, list[tuple[Image, Int64[Tensor, " n"] | None]]]
    good = {"a": [(torch.zeros(5, 6), None), (torch.zeros(5, 6), torch.zeros(3, dtype=torch.int64))]}
    assert paths_of(good, annotation) == []
    good["a"].append((torch.zeros(5, 6), torch.zeros(4, dtype=torch.int64)))
    assert paths_of(good, annotation) == ["value['a'][2][1]"]


# --- record classes --------------------------------------------------------------------------------
def test_a_dataclass_is_checked_when_it_is_built() -> None:
    Checked = contract(dataclasses.dataclass(type("Checked", (), {"__annotations__": Scan.__annotations__})))
    Checked(torch.zeros(7, 8, 8), torch.zeros(7), "ok")
    with pytest.raises(ContractError) as caught:
        Checked(torch.zeros(7, 8, 8), torch.zeros(6), "short")
    assert caught.value.violations[0].parameter == "xcoords"
    with pytest.raises(ContractError, match="parameter 'name'"):
        Checked(torch.zeros(7, 8, 8), torch.zeros(7), 3)


def test_a_frozen_dataclass_with_slots_is_checked_and_stays_frozen() -> None:
    @contract
    @dataclasses.dataclass(frozen=True, slots=True)
    class Frozen:
        image: Float32[Tensor, "h w"]

    frozen = Frozen(torch.zeros(5, 6))
    with pytest.raises(dataclasses.FrozenInstanceError):
        frozen.image = torch.zeros(5)
    with pytest.raises(ContractError, match="parameter 'image'"):
        dataclasses.replace(frozen, image=torch.zeros(5))


def test_a_record_changed_after_construction_is_stopped_at_the_next_boundary() -> None:
    @contract
    def count(scan: Scan) -> int:
        return len(scan.xcoords)

    scan = Scan(torch.zeros(7, 8, 8), torch.zeros(7))
    assert count(scan) == 7
    scan.xcoords = torch.zeros(9)
    with pytest.raises(ContractError, match=r"parameter 'scan\.xcoords'"):
        count(scan)


def test_a_subclass_of_a_record_is_checked_like_the_record() -> None:
    class Child(Scan):
        pass

    assert paths_of(Child(torch.zeros(7, 8, 8), torch.zeros(7)), Scan) == []
    assert paths_of(Child(torch.zeros(7, 8, 8), torch.zeros(6)), Child) == ["value.xcoords"]


def test_a_named_tuple_is_checked_when_built_and_when_it_crosses() -> None:
    @contract
    class Checked(NamedTuple):
        image: Float32[Tensor, "h w"]
        mask: Float32[Tensor, "h w"]

    assert Checked(torch.zeros(5, 6), torch.zeros(5, 6)).image.shape == (5, 6)
    with pytest.raises(ContractError, match="parameter 'mask'"):
        Checked(torch.zeros(5, 6), torch.zeros(6, 5))
    assert paths_of(Placed(torch.zeros(5, 6), torch.zeros(5, 6)), Placed) == []
    assert paths_of(Placed(torch.zeros(5, 6), torch.zeros(6, 5)), Placed) == ["value.mask"]


def test_records_share_dims_with_the_other_arguments() -> None:
    @contract
    def crop(placed: Placed, image: Float32[Tensor, "h w"]) -> Placed:
        return Placed(image, placed.mask)

    placed = Placed(torch.zeros(5, 6), torch.zeros(5, 6))
    assert crop(placed, torch.zeros(5, 6)).image.shape == (5, 6)
    with pytest.raises(ContractError, match="parameter 'image'"):
        crop(placed, torch.zeros(5, 7))


def test_a_record_without_tensors_is_a_plain_class() -> None:
    @dataclasses.dataclass
    class Options:
        rate: float

    assert paths_of(Options("not looked into"), Options) == []
    assert paths_of(3, Options) == ["value"]
    with pytest.raises(ContractDefinitionError, match=r"No field of .*Options is an annotated tensor"):
        contract(Options)


def test_a_record_that_refers_to_itself_is_checked_at_every_level() -> None:
    assert paths_of(Node(torch.zeros(3), Node(torch.zeros(3), None)), Node) == []
    assert paths_of(Node(torch.zeros(3), Node(torch.zeros(4), None)), Node) == ["value.next.x"]


@dataclasses.dataclass
class Node:
    x: Float32[Tensor, " n"]
    next: "Node | None"


def test_contract_under_dataclass_is_refused() -> None:
    with pytest.raises(ContractDefinitionError, match="Put @contract above @dataclass"):

        @dataclasses.dataclass
        @contract
        class Wrong:
            image: Float32[Tensor, "h w"]
