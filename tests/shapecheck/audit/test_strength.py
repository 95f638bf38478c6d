"""What contracts are worth: known numbers, holes that their repair really closes, and nothing that is run for it."""

import dataclasses
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any, overload

import pytest

torch = pytest.importorskip("torch")

import contract_cases as cases
from jaxtyping import Float32
from torch import Tensor, nn

from shapecheck import Axes, ContractDefinitionError, ContractError, contract
from shapecheck._annotations.nodes import tensor_specs
from shapecheck._boundaries.inheritance import contract_within
from shapecheck.audit import Strength, strength
from shapecheck.audit._mutation.specimen import Specimen, specimen_of, subject_of_function
from shapecheck.axes import Dim
from shapecheck.data import BatchContract

pytestmark = pytest.mark.violation  # with checking off there are no contracts to measure


def measured(function: Callable[..., Any], **options: Any) -> Strength:
    return strength(contract(**options)(function))


def specimen(function: Callable[..., Any], **options: Any) -> Specimen:
    return specimen_of(subject_of_function(contract_within(contract(**options)(function))))


def holes(found: Strength) -> dict[str, str]:
    return {hole.what: hole.repair for hole in found.holes}


# --- known numbers --------------------------------------------------------------------------------------
KNOWN = {
    cases.literals: (22, 23),
    cases.lone: (0, 5),
    cases.pair: (6, 6),
    cases.attention: (69, 69),
    cases.one_literal: (18, 23),
    cases.lone_run: (0, 23),
    cases.ones: (18, 18),  # the other 5 orders leave every element where it is
    cases.six_axes: (15, 15 + 5 + 1),  # six axes swapped in pairs and rotated; c, d, e and f stand for each other
}


@pytest.mark.parametrize(("function", "count"), KNOWN.items(), ids=lambda item: getattr(item, "__name__", ""))
def test_permutations_that_are_noticed_are_those_that_reasoning_finds(
    function: Callable[..., Any], count: tuple[int, int]
) -> None:
    assert measured(function).families["permuted"] == count


def test_a_mutant_that_is_counted_as_caught_is_none_of_a_hole() -> None:
    found = measured(cases.five_axes)
    inside = [mutant for hole in found.holes for mutant in hole.mutants]
    assert sorted(map(str, inside)) == sorted(str(mutant) for mutant in found.mutants if not mutant.caught)
    assert found.caught + len(inside) == found.total == sum(total for _, total in found.families.values())


def test_every_family_is_tried_where_it_makes_sense() -> None:
    batch = strength(contract(cases.typed))
    families = {family: total for family, (_, total) in batch.families.items()}
    assert families == {
        "permuted": 23 + 23 + 18,
        "dropped": 3 * 4,
        "added": 3 * 5,
        "merged": 3 * 3,
        "resized": 4 + 4 + 4,
        "dtype": 3 * 3,
        "complex": 3,
        "swapped": 3,
        "keys": 7,  # each of three keys missing and misspelt, and one more
    }
    assert measured(cases.tuples).families["length"] == (4, 4)


def test_the_engine_is_asked_once_for_each_mutant_that_differs_from_all_others() -> None:
    attention, square = measured(cases.attention), measured(cases.square)
    # k and v have one annotation and meet the same dims: 43 changes of one tensor, and the swap with q, are alike
    assert (attention.asked, attention.total) == (131 - 43 - 1, 131)
    # of "b n n" two pairs of orders look alike, and so do two ways to drop an axis
    assert (square.asked, square.total) == (31 - 3, 31)


def test_sizes_differ_from_each_other_and_from_every_number_in_an_annotation() -> None:
    for function in cases.FUNCTIONS:
        made = specimen(function, dims=cases.TIES.get(function))
        named = [size for size in made.sizes.values() if isinstance(size, int)]
        runs = [size for sizes in made.sizes.values() if isinstance(sizes, tuple) for size in sizes]
        specs = tensor_specs(node for stage in made.stages for _, _, node in stage.roots)
        numbers = {dim.size for spec in specs for dim in spec.dims if dim.kind == "fixed"}
        assert len({*named, *runs, *numbers}) == len([*named, *runs]) + len(numbers), function.__name__


# --- holes and repairs ------------------------------------------------------------------------------------
def test_the_hole_of_interchangeable_axes_is_named_with_its_smallest_repair() -> None:
    assert holes(measured(cases.literals)) == {
        "x: B and C are interchangeable": "bind C in another argument, or make it literal"
    }
    assert holes(measured(cases.lone)) == {
        "x: n, h and w are interchangeable": "bind h and w in another argument, or make them literal"
    }


def repaired_by_argument(x: Float32[Tensor, "B C 1 2"], y: Float32[Tensor, " C"]) -> None: ...
def repaired_by_number(x: Float32[Tensor, "B 4 1 2"]) -> None: ...
def repaired_by_arguments(x: Float32[Tensor, "n h w"], h: Float32[Tensor, " h"], w: Float32[Tensor, " w"]) -> None: ...
def repaired_dtype(a: Float32[Tensor, "n k"], b: Float32[Tensor, "k m"]) -> Float32[Tensor, "n m"]: ...
def repaired_run(x: Float32[Tensor, "_ h w"]) -> Float32[Tensor, "_ w"]: ...
def repaired_kinds(
    a: Annotated[Float32[Tensor, "n 2"], cases.Frame.ABSOLUTE],
    b: Annotated[Float32[Tensor, "n 2"], cases.Frame.RELATIVE],
) -> Float32[Tensor, " n"]: ...
def repaired_items(x: tuple[Float32[Tensor, "h w"], Float32[Tensor, "h w"]]) -> None: ...
def repaired_rounding(x: Float32[Tensor, "c h"], y: Float32[Tensor, "c h//2"], z: Float32[Tensor, " h"]) -> None: ...


REPAIRED = {
    repaired_by_argument: (cases.literals, "x: B and C are"),
    repaired_by_number: (cases.literals, "x: B and C are"),
    repaired_by_arguments: (cases.lone, "x: n, h and w are"),
    repaired_dtype: (cases.matmul, "a, b, return: float64 and float16 may"),
    repaired_run: (cases.dots, "x, return: the number of axes may differ"),
    repaired_kinds: (cases.same_twice, "a and b are interchangeable"),
    repaired_items: (cases.lone_items, "x: nothing is checked when it is empty"),
    repaired_rounding: (cases.half_given, "x: h is not held to one size"),
}


@pytest.mark.parametrize(("repaired", "known"), REPAIRED.items(), ids=lambda item: getattr(item, "__name__", ""))
def test_a_contract_that_is_repaired_as_proposed_has_the_hole_no_more(
    repaired: Callable[..., Any], known: tuple[Callable[..., Any], str]
) -> None:
    function, text = known
    (hole,) = [hole for hole in measured(function).holes if hole.what.startswith(text)]
    assert hole.is_verified
    assert hole.mutants
    predicates = {other.predicate for other in measured(repaired).holes}
    assert hole.predicate not in predicates


def test_two_axes_of_one_name_are_a_hole_that_no_shape_closes() -> None:
    (hole,) = measured(cases.square).holes
    assert hole.what == "x: the axes n and n are interchangeable"
    assert not hole.is_verified
    assert "assert_axis_map" in hole.repair
    assert [mutant.change for mutant in hole.mutants] == ["axes (0, 2, 1)"]


def test_a_repair_that_was_tried_in_vain_is_not_proposed() -> None:
    (order, ndim) = measured(cases.either_ndim).holes
    assert (order.what, order.repair) == ("x: h and w are interchangeable", "make w literal")
    assert ndim.what == "x: the number of axes may differ"
    assert not ndim.is_verified
    assert ndim.repair.startswith("no change")


def test_kinds_that_exclude_each_other_tell_equal_annotations_apart_and_others_do_not() -> None:
    assert measured(cases.kinds).families["swapped"] == (1, 1)
    assert measured(cases.optional_kind).families["swapped"] == (1, 1)
    assert measured(cases.other_kinds).families["swapped"] == (0, 1)
    assert measured(cases.same_twice).families["swapped"] == (0, 1)


def test_pairs_that_stand_for_each_other_are_one_hole_only_if_they_are_connected() -> None:
    def four(
        a: Float32[Tensor, " n"], b: Float32[Tensor, " n"], c: Float32[Tensor, " k 2"], d: Float32[Tensor, " k 2"]
    ) -> None: ...

    assert list(holes(measured(four))) == ["a and b are interchangeable", "c and d are interchangeable"]


def test_a_size_that_nothing_else_has_is_open_and_no_mutant() -> None:
    found = measured(cases.pair)
    assert found.open == ("n",)
    changes = [mutant.change for mutant in found.mutants if mutant.family == "resized"]
    assert sorted(change[:10] for change in changes) == ["axis 0 (h)", "axis 1 (h)", "axis 1 (w)", "axis 2 (w)"]


def test_a_dtype_that_stands_there_as_an_alternative_is_no_mutant() -> None:
    found = measured(cases.either_dtype)
    casts = [mutant.change for mutant in found.mutants if mutant.target == "x" and "not float32" in mutant.change]
    assert casts == ["float64, not float32", "float16, not float32", "int64, not float32"]
    assert all(mutant.caught for mutant in found.mutants if mutant.target == "x" and "float32" in mutant.change)


# --- what can be measured ---------------------------------------------------------------------------------
class Trap:
    """Nothing of a user's is constructed or run."""

    def __init__(self, *args: Any) -> None:
        raise AssertionError

    config = property(lambda self: pytest.fail("a property was asked"))


@contract
@dataclasses.dataclass
class Trapped:
    x: Float32[Tensor, "n k"]
    y: Float32[Tensor, " k"]
    trap: Trap

    def __post_init__(self) -> None:
        raise AssertionError


@contract
class Scaled(nn.Module):
    gain: Float32[Tensor, " c"]

    def __init__(self, config: Any) -> None:
        raise AssertionError

    def forward(self, x: Float32[Tensor, "b c h"]) -> Float32[Tensor, "b c"]:
        raise AssertionError

    @property
    def bias(self) -> Float32[Tensor, " c"]:
        raise AssertionError


def test_nothing_is_run_or_constructed() -> None:
    cases.BODY.was_reached = False

    @contract
    def takes(record: Trapped, trap: Trap, w: Float32[Tensor, " n"]) -> Trapped:
        raise AssertionError

    assert strength(takes).skipped is None
    assert strength(Trapped).families["permuted"] == (1, 1)
    assert strength(Scaled).name.endswith("Scaled.forward")
    assert strength(Scaled.bias).total
    for function in cases.FUNCTIONS:
        measured(function, dims=cases.TIES.get(function))
    assert not cases.BODY.was_reached


def test_what_a_module_declares_binds_dims_in_its_methods() -> None:
    found = strength(Scaled)
    assert [mutant.target for mutant in found.mutants if mutant.family == "keys"] == ["self"]
    assert holes(found) == {"x: b and h are interchangeable": "bind h in another argument, or make it literal"}


@pytest.mark.parametrize(
    ("expression", "limit"),
    [
        ("self.config.C", None),
        ("self.config.gridsize**2", {1, 4, 9}),
        ("self.weights.shape[0]", None),
        ("size + 1", None),
        ("size", range(8, 1025, 8)),
    ],
)
def test_dims_are_tied_without_an_instance(expression: str, limit: Any) -> None:
    class Method:
        def call(self, x: Float32[Tensor, "B C"], size: int = 3) -> Float32[Tensor, " C"]: ...

    axes = Axes(B="items", C=Dim("channels", size=limit))
    found = measured(Method.call, dims={"C": expression}, axes=axes)
    assert found.skipped is None
    assert found.families["permuted"] == (1, 1)
    assert found.families["resized"] == (2, 2)


def test_a_tie_that_only_a_real_object_can_answer_is_a_reason_to_skip() -> None:
    class Method:
        def call(self, x: Float32[Tensor, "B C"]) -> None: ...

    skipped = measured(Method.call, dims={"C": "self.size(0)"}).skipped
    assert skipped is not None
    assert skipped.startswith("no valid call could be made up: what a dim is tied to cannot be evaluated")


def test_what_cannot_be_measured_says_why() -> None:
    def plain(n: int) -> str: ...

    @overload
    def either(x: Float32[Tensor, " n"]) -> Float32[Tensor, ""]: ...
    @overload
    def either(x: Float32[Tensor, "n k"]) -> Float32[Tensor, " k"]: ...
    def either(x: Any) -> Any: ...

    def impossible(x: Float32[Tensor, "n n-n"]) -> None: ...

    assert measured(plain).skipped == "no annotation in it speaks of a tensor"
    assert "overloads" in str(measured(either).skipped)
    assert "n-n is 0" in str(measured(impossible).skipped)
    for skipped in (measured(plain), measured(impossible)):
        assert (skipped.total, skipped.holes) == (0, ())
        assert ": not measured: " in str(skipped)


def test_what_has_no_contract_is_refused_with_what_to_do() -> None:
    class Plain:
        def forward(self, x: Float32[Tensor, " n"]) -> None: ...

    for target in (cases.lone, Plain, 3):
        with pytest.raises(ContractDefinitionError, match=r"put @contract on it\.$"):
            strength(target)


def test_generators_and_callables_are_measured_stage_by_stage() -> None:
    @contract
    def stream(x: Float32[Tensor, "n d"]) -> Iterator[Float32[Tensor, "b d"]]:
        yield x

    @contract
    async def later(x: Float32[Tensor, "n d"]) -> AsyncIterator[Float32[Tensor, "b d"]]:
        yield x

    @contract
    def apply(x: Float32[Tensor, "h w"], by: Callable[[Float32[Tensor, "h w"]], Float32[Tensor, " w"]]) -> None: ...

    for generator in (stream, later):
        targets = {mutant.target for mutant in strength(generator).mutants}
        assert targets == {"x", "yield[0]"}
        assert list(holes(strength(generator))) == ["x: n and d are interchangeable"]
    permuted = [mutant for mutant in strength(apply).mutants if mutant.family == "permuted"]
    assert [(mutant.target, mutant.caught) for mutant in permuted] == [("x", False), ("argument 0 of by", True)]
    assert {mutant.target for mutant in strength(apply).mutants} == {"x", "argument 0 of by", "result of by"}


def test_sizes_that_a_batch_contract_fixes_close_its_holes() -> None:
    free, fixed = BatchContract(cases.Fields), BatchContract(cases.Fields, dims={"C": 4, "N": 6})
    assert strength(free).families["permuted"] == strength(fixed).families["permuted"] == (22 + 23, 46)
    lone = BatchContract(Float32[Tensor, "B C 1 2"], dims={"C": 4})
    assert strength(lone).families["permuted"] == (23, 23)
    assert strength(lone).holes == ()


def record_with(**options: Any) -> type:
    @contract(**options)
    @dataclasses.dataclass
    class Image:
        pixels: Float32[Tensor, "h w"]
        width: int = 5

    return Image


@pytest.mark.parametrize(
    "options",
    [{"dims": {"w": "self.width"}}, {"axes": Axes(h="rows", w=Dim("columns", 6))}],
    ids=["tie", "registry"],
)
def test_what_fixes_a_dim_of_a_record_when_it_is_built_closes_its_holes(options: dict[str, Any]) -> None:
    loose, held = strength(record_with()), strength(record_with(**options))
    assert (loose.families["permuted"], held.families["permuted"]) == ((0, 1), (1, 1))
    assert holes(loose) == {"pixels: h and w are interchangeable": "bind w in another argument, or make it literal"}
    assert held.holes == ()
    with pytest.raises(ContractError):  # what is counted as caught is refused
        record_with(**options)(torch.zeros(5, 7))


def test_a_tie_to_the_tensor_itself_fixes_nothing() -> None:
    assert "pixels: w is not held to one size" in holes(strength(record_with(dims={"w": "self.pixels.shape[1]"})))


def test_what_only_the_constructor_takes_is_measured_where_it_is_checked() -> None:
    @dataclasses.dataclass
    class Scaled:
        pixels: Float32[Tensor, "h w"]
        row: dataclasses.InitVar[Float32[Tensor, " w"]]

    assert not any("row" in mutant.target for mutant in strength(Scaled).mutants)
    assert any("row" in mutant.target for mutant in strength(contract(Scaled)).mutants)
