"""`@contract` on classes, and what becomes of a contract in subclasses; on both engines."""

import abc
import dataclasses
import enum
import functools
import typing
import warnings
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import pytest
import torch
from jaxtyping import Float32
from outcomes import violation_of, zeros
from torch import Tensor, nn

import shapecheck
from shapecheck import ContractDefinitionError, ContractWarning, contract

pytestmark = pytest.mark.violation

Row = Float32[Tensor, " n"]
Rows = Float32[Tensor, "b n"]


@pytest.fixture(autouse=True)
def _engine(engine: str) -> None:
    """Every test here holds for both engines."""


# --- what a name in an annotation means inside a class ------------------------------------------------
def test_a_method_does_not_hide_the_type_of_its_name_from_annotations() -> None:
    class Scaled:
        Rows = Float32[Tensor, "3 n"]

        @contract
        def float(self) -> "Row":
            return zeros(3)

        @property
        def int(self) -> object: ...

        @contract
        def scale(self, by: "float", axis: "int", rows: "Rows") -> "Row":
            return by * rows[axis]

    assert Scaled().scale(2.0, 1, zeros(3, 4)).shape == (4,)
    assert violation_of(lambda: Scaled().scale("2", 1, zeros(3, 4))).parameter == "by"
    assert violation_of(lambda: Scaled().scale(2.0, 1.5, zeros(3, 4))).parameter == "axis"
    assert violation_of(lambda: Scaled().scale(2.0, 1, zeros(4, 4))).parameter == "rows"  # the class's own alias


def test_a_name_that_only_a_method_has_is_no_type() -> None:
    with pytest.raises(ContractDefinitionError, match="annotation of 'by' of"):

        class Scaled:
            def factor(self) -> None: ...

            @contract
            def scale(self, by: "factor", x: "Row") -> None: ...  # pyright: ignore[reportInvalidTypeForm]


# --- a contract on a class is one on its annotated methods -------------------------------------------
def test_every_annotated_method_of_a_class_is_checked() -> None:
    @contract
    class Store:
        def __init__(self, row: Row) -> None:
            self.row = row

        def plain(self, x: Row) -> Row:
            return x

        @classmethod
        def of_class(cls, x: Row) -> Row:
            return x

        @staticmethod
        def of_none(x: Row) -> Row:
            return x

        @property
        def first(self) -> Float32[Tensor, ""]:
            return self.row[0]

        @functools.cached_property
        def rows(self) -> Rows:
            return self.row

        def unannotated(self, x):
            return x

        @typing.no_type_check
        def left_alone(self, x: Row) -> Row:
            return x

    store = Store(zeros(3))
    for method in (Store, store.plain, Store.of_class, Store.of_none):
        method(zeros(3))
        violation_of(lambda method=method: method(zeros(3, 3)))
    assert store.first.shape == ()
    assert violation_of(lambda: store.rows).parameter == "return"
    assert store.unannotated(3) == store.left_alone(3) == 3


def test_all_annotated_methods_of_a_module_are_checked_and_not_only_forward() -> None:
    @contract(dims={"i": "self.inputs", "o": "self.outputs"})
    class Linear(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.inputs, self.outputs = inputs, outputs
            self.linear = nn.Linear(inputs, outputs)

        def forward(self, x: Float32[Tensor, "b i"]) -> Float32[Tensor, "b o"]:
            return self.finish(self.linear(x))

        def finish(self, y: Float32[Tensor, "b o"]) -> Float32[Tensor, "b o"]:
            return y

    linear = Linear(4, 5)
    assert linear(zeros(3, 4)).shape == (3, 5)
    assert violation_of(lambda: linear(zeros(3, 5))).mismatches[0].binding.source == "self.inputs"
    assert violation_of(lambda: linear.finish(zeros(3, 4))).parameter == "y"
    assert violation_of(lambda: Linear("4", 5)).parameter == "inputs"


def test_a_class_may_name_itself_in_its_methods() -> None:
    @contract
    class Vector:
        def __init__(self, data: Row) -> None:
            self.data = data

        def plus(self, other: "Vector") -> typing.Self:
            return Vector(self.data + other.data)

    vector = Vector(zeros(3))
    assert vector.plus(vector).data.shape == (3,)
    assert violation_of(lambda: vector.plus(3)).parameter == "other"


def test_tensors_that_a_module_declares_are_checked_with_its_methods() -> None:
    @contract
    class Linear(nn.Module):
        weight: Float32[nn.Parameter, "o i"]

        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(zeros(outputs, inputs))

        def forward(self, x: Float32[Tensor, "b i"]) -> Float32[Tensor, "b o"]:
            return x @ self.weight.T

    linear = Linear(4, 5)
    assert linear(zeros(3, 4)).shape == (3, 5)
    assert violation_of(lambda: linear(zeros(3, 5))).mismatches[0].binding.source == "self.weight"
    linear.weight = nn.Parameter(zeros(5))
    assert violation_of(lambda: linear(zeros(3, 4))).parameter == "self.weight"


def test_the_methods_of_a_record_are_checked_besides_its_fields() -> None:
    @contract
    @dataclasses.dataclass(slots=True)
    class Scan:
        rows: Rows

        def select(self, index: Float32[Tensor, " k"]) -> Float32[Tensor, "k n"]:
            return self.rows[: len(index)]

    @contract
    class Pair(NamedTuple):
        row: Row

        def scaled(self, by: float) -> Row:
            return by * self.row

    scan = Scan(zeros(3, 4))
    assert scan.select(zeros(2)).shape == (2, 4)
    violation_of(lambda: scan.select(zeros(2, 1)))
    violation_of(lambda: Scan(zeros(3)))
    assert Pair(zeros(3)).scaled(2.0).shape == (3,)
    violation_of(lambda: Pair(zeros(3)).scaled("2"))


def test_functions_that_a_class_only_refers_to_are_left_alone() -> None:
    @contract
    class Layer(nn.Module):
        activation = staticmethod(torch.nn.functional.relu)

        def forward(self, x: Row) -> Row:
            return self.activation(x)

    assert Layer.activation is torch.nn.functional.relu
    assert Layer()(zeros(3)).shape == (3,)


class NothingAnnotated:
    def method(self, x):
        return x


class OnlyAttributes:
    row: Row

    def method(self, x: Row) -> None: ...


class SilentModule(nn.Module):
    def helper(self, x):
        return x


class UnannotatedForward(nn.Module):
    def forward(self, x):
        return x

    def helper(self, x: Row) -> Row:
        return x


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (NothingAnnotated, "None of its methods is annotated. Put @contract above @dataclass, or on the methods"),
        (OnlyAttributes, "Its attributes are annotated. Put @contract above @dataclass, or on the methods"),
        (SilentModule, "Expected SilentModule to define forward, or another annotated method"),
        (UnannotatedForward, "UnannotatedForward.forward has no annotations: there is nothing to check"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_class_whose_contract_would_check_nothing_or_not_what_it_seems_to_is_refused(
    kind: type, message: str
) -> None:
    with pytest.raises(ContractDefinitionError) as caught:
        contract(kind)
    assert message in str(caught.value)


def test_a_tie_that_no_method_can_use_is_refused() -> None:
    def make(dim: str) -> type:
        @contract(dims={dim: "self.width"})
        class Layer:
            width = 3

            def apply(self, x: Row) -> Row:
                return x

            @staticmethod
            def helper(m: Float32[Tensor, " m"]) -> None: ...

        return Layer

    layer = make("n")()
    assert layer.apply(zeros(3)).shape == (3,)
    violation_of(lambda: layer.apply(zeros(4)))
    for dim in ("m", "k"):
        with pytest.raises(ContractDefinitionError, match="but no method uses it that has the arguments for it"):
            make(dim)


# --- subclasses --------------------------------------------------------------------------------------
class Base:
    @contract
    def keep(self, x: Row, count: int = 0) -> Row:
        return x[count:]

    @contract
    @property
    def row(self) -> Row:
        return zeros(3)

    @classmethod
    @contract
    def make(cls, x: Row) -> Row:
        return x

    @contract
    def rows(self, x: Rows) -> typing.Iterator[Row]:
        yield from x


def test_an_override_without_annotations_keeps_the_contract() -> None:
    class Child(Base):
        def keep(self, x, count=0):
            return x[count:]

        @property
        def row(self):
            return zeros(3, 3)

        @classmethod
        def make(cls, x):
            return x

        def rows(self, x):
            yield x

    child = Child()
    assert child.keep(zeros(3)).shape == Child.make(zeros(3)).shape == (3,)
    assert violation_of(lambda: child.keep(zeros(3), 1)).boundary.endswith("Child.keep")
    assert violation_of(lambda: child.keep(zeros(3), "1")).parameter == "count"
    assert violation_of(lambda: Child.make(zeros(3, 3))).parameter == "x"
    assert violation_of(lambda: child.row).parameter == "return"
    assert violation_of(lambda: next(child.rows(zeros(3, 4)))).parameter == "yield[0]"


def test_an_override_with_annotations_is_held_to_its_own_and_for_the_rest_to_those_it_overrides() -> None:
    class Child(Base):
        def keep(self, x: Float32[Tensor, "n _"], count=0):
            return x[count:, 0]

    child = Child()
    assert child.keep(zeros(3, 2)).shape == (3,)
    assert violation_of(lambda: child.keep(zeros(3))).parameter == "x"
    assert violation_of(lambda: child.keep(zeros(3, 2), 1.0)).parameter == "count"
    assert violation_of(lambda: child.keep(zeros(3, 2), 1)).parameter == "return"


def test_the_contract_is_kept_over_generations_and_may_be_replaced() -> None:
    class Child(Base):
        pass

    class Grandchild(Child):
        def keep(self, x, count=0):
            return x

    class GreatGrandchild(Grandchild):
        @contract
        def keep(self, x: Rows, count: int = 0) -> Rows:
            return x

    assert Grandchild().keep(zeros(3)).shape == (3,)
    violation_of(lambda: Grandchild().keep(zeros(3, 3)))
    assert GreatGrandchild().keep(zeros(3, 3)).shape == (3, 3)
    violation_of(lambda: GreatGrandchild().keep(zeros(3)))


def test_a_contract_that_an_override_cannot_keep_is_said_to_be_lost() -> None:
    with pytest.warns(
        ContractWarning, match=r"Child.keep overrides Base.keep, but it has no parameter count, x"
    ) as told:

        class Child(Base):
            def keep(self, *args):
                return args

    assert told[0].filename == __file__
    with pytest.warns(ContractWarning, match=r"Other.keep overrides Base.keep, but it cannot have its contract"):

        class Other(Base):
            keep = None

    assert Child().keep(1) == (1,)
    assert Other.keep is None


def test_a_contract_that_a_mixin_hides_is_said_to_be_lost() -> None:
    class Mixin:
        def keep(self, x):
            return x

    with pytest.warns(ContractWarning, match=r"Mixin.keep overrides Base.keep"):

        class Child(Mixin, Base):
            pass

    assert Child().keep(3) == 3


def test_nothing_is_said_of_an_override_that_is_marked() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        class Child(Base):
            @typing.no_type_check
            def keep(self, anything):
                return anything

        class Unrelated(Base):
            def other(self, x):
                return x

    assert Child().keep(3) == Unrelated().other(3) == 3


def test_a_subclass_of_a_module_keeps_the_contract_and_the_ties_of_its_forward() -> None:
    @contract(dims={"n": "self.width"})
    class Layer(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.width = width

        def forward(self, x: Rows) -> Rows:
            return x

    class Wider(Layer):
        def __init__(self) -> None:
            super().__init__(4)

        def forward(self, x):
            return super().forward(x)

    @contract(dims={"n": "self.width + 1"})
    class Shifted(Layer):
        def forward(self, x: Rows) -> Rows:
            return x

    assert Wider()(zeros(3, 4)).shape == (3, 4)
    violation_of(lambda: Wider()(zeros(3, 5)))
    assert Shifted(4)(zeros(3, 5)).shape == (3, 5)
    violation_of(lambda: Shifted(4)(zeros(3, 4)))


def test_a_class_that_is_made_anew_still_hands_its_contracts_on() -> None:
    @dataclasses.dataclass(slots=True)
    class Slotted:
        scale: float

        @contract
        def scaled(self, x: Row) -> Row:
            return self.scale * x

    class Child(Slotted):
        def scaled(self, x):
            return x

    assert Child(1.0).scaled(zeros(3)).shape == (3,)
    violation_of(lambda: Child(1.0).scaled(zeros(3, 3)))


def test_init_subclass_of_the_user_is_called_as_before() -> None:
    seen = []

    class Registry:
        def __init_subclass__(cls, *, name: str, **arguments: Any) -> None:
            super().__init_subclass__(**arguments)
            seen.append((cls.__name__, name))

        @contract
        def keep(self, x: Row) -> Row:
            return x

    class Child(Registry, name="child"):
        def keep(self, x):
            return x

    assert seen == [("Child", "child")]
    violation_of(lambda: Child().keep(zeros(3, 3)))
    with pytest.raises(TypeError, match="name"):
        type("Nameless", (Registry,), {})


def test_nothing_is_left_in_a_class_but_a_hook_for_its_subclasses() -> None:
    class Plain:
        def keep(self, x: Row) -> Row:
            return x

    class Checked:
        @contract
        def keep(self, x: Row) -> Row:
            return x

    assert vars(Checked).keys() - vars(Plain).keys() == {"__init_subclass__"}


def test_what_was_derived_while_checking_is_off_has_no_contract() -> None:
    with shapecheck.mode("off"):

        class Child(Base):
            def keep(self, x, count=0):
                return x

    assert Child().keep(3) == 3


# --- interfaces --------------------------------------------------------------------------------------
def test_the_contract_of_an_abstract_method_holds_for_implementations() -> None:
    class Above(abc.ABC):
        @contract
        @abc.abstractmethod
        def keep(self, x: Row) -> Row: ...

    class Below(abc.ABC):
        @abc.abstractmethod
        @contract
        def keep(self, x: Row) -> Row: ...

    for interface in (Above, Below):
        with pytest.raises(TypeError, match="abstract"):
            interface()

        class Implementation(interface):
            def keep(self, x):
                return x

        assert Implementation().keep(zeros(3)).shape == (3,)
        violation_of(lambda kind=Implementation: kind().keep(zeros(3, 3)))


def test_the_contract_of_a_protocol_holds_for_classes_that_name_it() -> None:
    @typing.runtime_checkable
    class Keeper(Protocol):
        @contract
        def keep(self, x: Row) -> Row: ...

    class Explicit(Keeper):
        def keep(self, x):
            return x

    class Structural:
        def keep(self, x):
            return x

    assert isinstance(Structural(), Keeper)
    assert Explicit().keep(zeros(3)).shape == (3,)
    violation_of(lambda: Explicit().keep(zeros(3, 3)))
    assert Structural().keep(3) == 3, "nobody sees that it is meant"


T = TypeVar("T")


def test_generic_classes_and_enums_can_have_contracts() -> None:
    class Box(Generic[T]):
        @contract
        def keep(self, x: Row, item: T) -> Row:
            return x

    class Axis(enum.Enum):
        ROWS = 0

        @contract
        def flip(self, x: Rows) -> Rows:
            return x.flip(self.value)

    class IntBox(Box[int]):
        def keep(self, x, item):
            return x

    assert list(Axis) == [Axis.ROWS]
    assert IntBox().keep(zeros(3), 3).shape == (3,)
    assert Axis.ROWS.flip(zeros(3, 4)).shape == (3, 4)
    violation_of(lambda: IntBox().keep(zeros(3, 3), 3))
    violation_of(lambda: Axis.ROWS.flip(zeros(3)))
