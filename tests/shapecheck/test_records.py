"""Containers and records: every item of every one is looked at, and everything wrong is in one report."""

import copy
import dataclasses
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, NotRequired, Optional, Protocol, Required, TypedDict, runtime_checkable

import pytest
import torch
import typing_extensions
from jaxtyping import Complex64, Float32, Int64
from torch import Tensor, nn

from shapecheck import ContractDefinitionError, ContractError, check, contract

pytestmark = pytest.mark.violation


@pytest.fixture(autouse=True)
def _engine(engine: str) -> None:
    """Every test here holds for both engines."""


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
    assert found == {"batch[0]": "missing-key", "batch[0]['coords_relative']": "dtype", "batch[1]": "real-for-complex"}
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
    assert paths_of(kind(images), annotation) == [f"value[{position}]"]


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
    with pytest.raises(ContractDefinitionError, match=r"No field or method of .*Options has an annotated tensor"):
        contract(Options)


def test_the_methods_of_a_record_without_tensors_are_checked_all_the_same() -> None:
    @contract
    @dataclasses.dataclass
    class Scaling:
        factor: float

        def apply(self, x: Float32[Tensor, " n"], y: Float32[Tensor, " n"]) -> Float32[Tensor, " n"]:
            return self.factor * (x + y)

    @contract(dims={"n": "self.size"})
    class Window(NamedTuple):
        size: int

        def taper(self, x: Float32[Tensor, " n"]) -> Float32[Tensor, " n"]:
            return x

    assert Scaling(2.0).apply(torch.zeros(3), torch.zeros(3)).shape == (3,)
    assert Window(3).taper(torch.zeros(3)).shape == (3,)
    with pytest.raises(ContractError, match="parameter 'y'"):
        Scaling(2.0).apply(torch.zeros(3), torch.zeros(4))
    with pytest.raises(ContractError, match="parameter 'x'"):
        Window(3).taper(torch.zeros(4))
    with pytest.raises(ContractDefinitionError, match="dim 'm' is tied to"):
        contract(dims={"m": "self.factor"})(
            dataclasses.make_dataclass("Other", [("factor", int)], namespace={"apply": vars(Scaling)["apply"]})
        )


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


# --- what a class declares, and when it is looked at ---------------------------------------------------
@contract
@dataclasses.dataclass
class Base:
    image: Float32[Tensor, "h w"]


@contract
@dataclasses.dataclass
class Derived(Base):
    mask: Float32[Tensor, "h w"]
    _: dataclasses.KW_ONLY
    count: Int64[Tensor, ""] | None = None
    derived: Float32[Tensor, " h"] = dataclasses.field(init=False)
    template: dataclasses.InitVar[Float32[Tensor, "h w"] | None] = None
    shared: ClassVar[int] = 3

    def __post_init__(self, template: Tensor | None) -> None:
        self.derived = self.image[:, 0] if template is None else template[0]


def test_fields_of_bases_and_fields_that_are_set_later_are_checked() -> None:
    image, turned = torch.zeros(5, 6), torch.zeros(6, 5)
    made = Derived(image, image, count=torch.tensor(1))
    assert made.derived.shape == (5,)
    wrong = [
        lambda: Derived(image, turned),
        lambda: Derived(torch.zeros(5, 6, 1), image),
        lambda: Derived(image, image, count=torch.zeros(())),
    ]
    for make in wrong:
        with pytest.raises(ContractError):
            make()


def test_what_only_the_constructor_is_given_is_checked_in_the_scope_of_the_fields() -> None:
    square = torch.zeros(6, 6)
    Derived(square, square, template=square)
    with pytest.raises(ContractError, match="parameter 'template'"):
        Derived(square, square, template=torch.zeros(6, 7))
    image = torch.zeros(5, 6)
    with pytest.raises(ContractError, match="parameter 'derived'"):
        Derived(image, image, template=image)


@contract
def count(record: Derived) -> int:
    return len(record.image)


def test_a_record_is_checked_again_however_it_was_changed() -> None:
    image, turned = torch.zeros(5, 6), torch.zeros(6, 5)
    made = Derived(image, image)
    replaced = dataclasses.replace(made, image=image + 1, mask=image)
    copied, loaded = copy.deepcopy(made), pickle.loads(pickle.dumps(made))
    for record in (made, replaced, copied, loaded):
        assert count(record) == 5
        record.mask = turned
        with pytest.raises(ContractError, match=r"'record\.mask'"):
            count(record)
    with pytest.raises(ContractError, match="parameter 'mask'"):
        dataclasses.replace(made, mask=turned)


def test_an_attribute_that_was_never_set_is_a_violation_and_no_crash() -> None:
    made = Derived(torch.zeros(5, 6), torch.zeros(5, 6))
    assert count(made) == 5
    del made.derived
    with pytest.raises(ContractError) as caught:
        count(made)
    assert [violation.id for violation in caught.value.violations] == ["missing-attribute"]
    assert "attribute 'derived' is not set" in str(caught.value)


def test_records_that_refer_to_each_other_are_checked_whichever_comes_first() -> None:
    image = torch.zeros(5, 6)
    assert paths_of(First(Second(None), image), First) == []
    assert paths_of(First(Second(First(None, image[0])), image), First) == ["value.second.first.image"]


@dataclasses.dataclass
class First:
    second: "Second | None"
    image: Image


@dataclasses.dataclass
class Second:
    first: First | None


def test_inherited_and_read_only_keys_of_a_typeddict_are_checked() -> None:
    class Wide(Fields, total=False):
        extra: typing_extensions.ReadOnly[Float32[Tensor, " B"]]
        name: Required[str]

    good = {**make_fields(), "name": "a"}
    assert paths_of(good, Wide) == []
    assert paths_of({**good, "extra": torch.zeros(3)}, Wide) == []
    assert paths_of({**good, "extra": torch.zeros(4)}, Wide) == ["value['extra']"]
    assert paths_of(make_fields(), Wide) == ["value"]


def test_a_typeddict_of_typing_extensions_may_have_items_of_other_names() -> None:
    class Open(typing_extensions.TypedDict, extra_items=Image):
        name: str

    assert paths_of({"name": "a", "first": torch.zeros(5, 6), "second": torch.zeros(5, 6)}, Open) == []
    assert paths_of({"name": "a", "first": torch.zeros(5, 6), "second": torch.zeros(6, 5)}, Open) == ["value['second']"]
    assert paths_of({"name": "a", "first": "b"}, Open) == ["value['first']"]

    class Closed(typing_extensions.TypedDict):
        image: Image

    assert paths_of({"image": torch.zeros(5, 6)}, Closed) == []
    assert paths_of({"image": torch.zeros(5, 6), "imgae": torch.zeros(5, 6)}, Closed) == ["value"]


def test_optional_keys_of_a_typeddict_are_held_to_what_other_values_bind() -> None:
    @contract
    def use(fields: Fields, like: Float32[Tensor, " B"]) -> None:
        del fields, like

    use(make_fields(), torch.zeros(3))
    use({**make_fields(), "weight": torch.zeros(3)}, torch.zeros(3))
    for extra in ({"weight": torch.zeros(4)}, {"wieght": torch.zeros(3)}, {"weight": None}):
        with pytest.raises(ContractError):
            use({**make_fields(), **extra}, torch.zeros(3))


# --- records of other libraries ------------------------------------------------------------------------
def assert_record(kind: Any, make: Callable[..., Any]) -> None:
    """A record class of two images is checked when built, when it crosses, and after a change."""
    image, turned = torch.zeros(5, 6), torch.zeros(6, 5)
    record = make(kind, image, image)
    assert paths_of(record, kind) == []
    assert paths_of([record, make(kind, image, image)], list[kind]) == []
    record.mask = turned
    assert paths_of(record, kind) == ["value.mask"]
    assert paths_of(3, kind) == ["value"]
    checked = contract(kind)
    make(checked, image, image)
    with pytest.raises(ContractError, match="parameter 'mask'"):
        make(checked, image, turned)


def test_attrs_classes_are_records() -> None:
    attrs = pytest.importorskip("attrs", reason="the dependency group `integrations` has it")

    @attrs.define
    class Sample:
        image: Image
        mask: "Image"
        name: str = "a"

    assert_record(Sample, lambda kind, image, mask: kind(image, mask))
    with pytest.raises(ContractError, match="parameter 'name'"):
        Sample(torch.zeros(5, 6), torch.zeros(5, 6), 3)


def test_pydantic_models_are_records() -> None:
    pydantic = pytest.importorskip("pydantic", reason="the dependency group `integrations` has it")

    class Sample(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
        image: Image
        mask: Image
        rate: int = 3

    assert_record(Sample, lambda kind, image, mask: kind(image=image, mask=mask))
    image = torch.zeros(5, 6)
    made = Sample(image=image, mask=image).model_copy(update={"mask": torch.zeros(6, 5)})
    assert paths_of(made, Sample) == ["value.mask"]


def test_tensorclasses_are_records() -> None:
    tensordict = pytest.importorskip("tensordict", reason="the dependency group `integrations` has it")

    @tensordict.tensorclass
    class Sample:
        image: Image
        mask: Image

    assert_record(Sample, lambda kind, image, mask: kind(image=image, mask=mask, batch_size=[]))


# --- modules and other classes ---------------------------------------------------------------------------
class Scale(nn.Module):
    weight: Float32[nn.Parameter, " n"]
    offset: Float32[Tensor, " n"]
    note: "Unresolvable"  # noqa: F821  # most classes do not mean their annotations to be evaluated

    def __init__(self, n: int = 4, m: int = 4) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n))
        self.register_buffer("offset", torch.zeros(m))

    def forward(self, x: Float32[Tensor, "b n"]) -> Float32[Tensor, "b n"]:
        return x * self.weight + self.offset


def test_parameters_and_buffers_declared_by_annotation_are_checked_where_a_module_crosses() -> None:
    assert paths_of(Scale(), Scale) == []
    assert paths_of(Scale(4, 5), Scale) == ["value.offset"]
    assert paths_of([Scale(), Scale(3, 3)], list[Scale]) == ["value[1].weight", "value[1].offset"]
    plain = Scale()
    plain.weight = None
    assert paths_of(plain, Scale) == ["value.weight"]


def test_parameters_and_buffers_are_checked_when_a_module_is_called() -> None:
    class Checked(Scale):
        def forward(self, x: Float32[Tensor, "b n"]) -> Float32[Tensor, "b n"]:
            return x * self.weight + self.offset[: len(self.weight)]

    contract(Checked)
    assert Checked()(torch.zeros(3, 4)).shape == (3, 4)
    for module in (Checked(4, 5), Checked(5, 5)):
        with pytest.raises(ContractError):
            module(torch.zeros(3, 4))


class Holder:
    """No record: only what it says of tensors is a promise."""

    image: Image
    scale: float = "no number"  # pyright: ignore

    def __init__(self, image: Tensor) -> None:
        self.image = image


def test_tensors_among_the_attributes_of_any_class_are_checked() -> None:
    assert paths_of(Holder(torch.zeros(5, 6)), Holder) == []
    assert paths_of(Holder(torch.zeros(5)), Holder) == ["value.image"]
    assert paths_of({"a": [Holder(torch.zeros(5))]}, dict[str, list[Holder]]) == ["value['a'][0].image"]


def test_a_shape_that_cannot_be_resolved_is_refused_in_any_class() -> None:
    class Wrong:
        image: "Flaot32[Tensor, 'h w']"  # noqa: F821

    with pytest.raises(ContractDefinitionError, match=r"of 'image' of .*Wrong cannot be resolved: name 'Flaot32'"):
        check(Wrong(), Wrong)


@runtime_checkable
class HasImage(Protocol):
    image: Image


def test_the_tensors_of_a_protocol_are_checked() -> None:
    assert paths_of(Holder(torch.zeros(5, 6)), HasImage) == []
    assert paths_of(Holder(torch.zeros(5)), HasImage) == ["value.image"]
    assert paths_of(3, HasImage) == ["value"]


def test_a_protocol_that_cannot_be_checked_is_refused() -> None:
    class Unchecked(Protocol):
        image: Image

    with pytest.raises(ContractDefinitionError, match="runtime_checkable"):
        check(Holder(torch.zeros(5, 6)), Unchecked)


# --- decorator order -------------------------------------------------------------------------------------
def test_contract_twice_on_a_record_is_refused() -> None:
    once = contract(dataclasses.make_dataclass("Once", [("image", Image)]))
    once(torch.zeros(5, 6))
    with pytest.raises(ContractDefinitionError, match="has a contract already"):
        contract(once)


def test_contract_under_attrs_is_refused() -> None:
    attrs = pytest.importorskip("attrs", reason="the dependency group `integrations` has it")
    with pytest.raises(ContractDefinitionError, match="Put @contract above"):

        @attrs.define
        @contract
        class Wrong:
            image: Image


def test_building_a_record_is_traced() -> None:
    @contract
    @dataclasses.dataclass
    class Base:
        image: Float32[Tensor, "h w"]

    def make(image: Tensor) -> Tensor:
        return Base(image * 2).image + 1

    compiled = torch.compile(make, fullgraph=True, backend="eager")
    assert torch.equal(compiled(torch.ones(5, 6)), torch.full((5, 6), 3.0))
    with pytest.raises(ContractError, match="parameter 'image'"):
        compiled(torch.ones(5))
