"""Which diagnosis a failure gets, and that a hint does what it promises: it is applied, and the contract then holds."""

import copy
import itertools
import json
import math
import typing
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, TypedDict

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from jaxtyping import Complex, Complex64, Float, Float32, Float64, Int32, Int64, UInt8
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from shapecheck import ContractDefinitionError, ContractError, Violation, check, contract
from shapecheck._stand_in import StandIn
from shapecheck.errors import DIAGNOSES, HintKind, MismatchKind
from shapecheck.values import Contiguous, Finite

pytestmark = pytest.mark.violation


class Fields(TypedDict):
    images: Float32[Tensor, "B N N"]
    offsets: Float32[Tensor, "B 2"]


def violations_of(value: Any, annotation: Any, **dims: int) -> tuple[Violation, ...]:
    with pytest.raises(ContractError) as caught:
        check(value, annotation, "x", dims=dims)
    return caught.value.violations


def violation_of(value: Any, annotation: Any, **dims: int) -> Violation:
    (violation,) = violations_of(value, annotation, **dims)
    return violation


def cured(value: Any, code: str) -> Any:
    """The value after a hint was followed, to the letter."""
    names = {"x": copy.copy(value), "torch": torch, "np": np}
    exec(code if " = " in code else f"x = {code}", names)  # noqa: S102  # what the error told the user to write
    return names["x"]


def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(shape, dtype=dtype)


def array(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.zeros(shape, dtype)


IMAGES, OFFSETS = zeros(3, 8, 8), zeros(3, 2)

# annotation, value, dims, id, what is to be written
CURABLE: dict[str, tuple[Any, Any, dict[str, int], str, tuple[str, ...]]] = {
    "axis order": (Float32[Tensor, "B C 1 2"], zeros(3, 1, 2, 4), {"C": 4}, "axis-order", ("x.permute(0, 3, 1, 2)",)),
    "axis order, NumPy": (Float32[np.ndarray, "n 1 2"], array(4, 2, 1), {}, "axis-order", ("x.transpose(0, 2, 1)",)),
    "two axis orders": (
        *(Float32[Tensor, "B C 1 2"], zeros(3, 1, 2, 2), {"C": 2}, "axis-order"),
        ("x.permute(0, 3, 1, 2)", "x.permute(0, 2, 1, 3)"),
    ),
    "channel-last": (Float32[Tensor, "B C H W"], zeros(3, 5, 6, 4), {"B": 3, "C": 4, "H": 5}, "axis-order", ("x.permute(0, 3, 1, 2)",)),
    "channel-last, square": (
        *(Float32[Tensor, "B C N N"], zeros(3, 8, 8, 4), {"C": 4}, "axis-order"),
        ("x.permute(0, 3, 1, 2)", "x.permute(0, 3, 2, 1)"),
    ),
    "channel-last, without a batch": (
        *(Float32[Tensor, "3 H W"], zeros(5, 6, 3), {"H": 5}, "axis-order"),
        ("x.permute(2, 0, 1)",),
    ),
    "twelve axes": (
        *(Float32[Tensor, "7 1 1 1 1 1 1 1 1 1 1 3"], zeros(1, 1, 1, 1, 1, 3, 1, 1, 1, 1, 1, 7), {}, "axis-order"),
        ("x.permute(11, 0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 5)",),
    ),
    "axis order beside a run of axes": (Float32[Tensor, "*B 3 8"], zeros(2, 8, 3), {}, "axis-order", ("x.permute(0, 2, 1)",)),
    "missing axis": (Float32[Tensor, "n 1 2"], zeros(4, 2), {}, "missing-axis", ("x.unsqueeze(1)",)),
    "missing axis, NumPy": (Float32[np.ndarray, "n 1 2"], array(4, 2), {}, "missing-axis", ("np.expand_dims(x, 1)",)),
    "missing axis, several places": (
        *(Float32[Tensor, "B C 16 16"], zeros(3, 16, 16), {}, "missing-axis"),
        ("x.unsqueeze(0)", "x.unsqueeze(1)"),
    ),
    "one sample": (Float32[Tensor, "B C N N"], zeros(4, 16, 16), {"C": 4}, "missing-batch", ("x.unsqueeze(0)",)),
    "extra axis": (Float32[Tensor, "n 2"], zeros(4, 1, 2), {"n": 4}, "extra-axis", ("x.squeeze(1)",)),
    "extra axis beside an equal one": (Float32[Tensor, "n 1 2"], zeros(4, 1, 1, 2), {}, "extra-axis", ("x.squeeze(1)",)),
    "merged axes": (Float32[Tensor, "B C h w"], zeros(12, 5, 6), {"C": 4}, "merged-axes", ("x.unflatten(0, (3, 4))",)),
    "split axes": (Float32[Tensor, "n h w"], zeros(3, 4, 5, 6), {"n": 12}, "split-axes", ("x.flatten(0, 1)",)),
    "exact dtype": (Float32[Tensor, " n"], zeros(3, dtype=torch.float64), {}, "dtype", ("x.to(torch.float32)",)),
    "dtype, wider": (Int64[Tensor, " n"], zeros(3, dtype=torch.int32), {}, "dtype", ("x.to(torch.int64)",)),
    "dtype, narrower": (Int32[Tensor, " n"], zeros(3, dtype=torch.int64), {}, "dtype", ("x.to(torch.int32)",)),
    "dtype family": (Float[Tensor, " n"], zeros(3, dtype=torch.int64), {}, "dtype", ("x.to(torch.float32)",)),
    "dtype, NumPy": (Float32[np.ndarray, " n"], array(3, dtype=np.float64), {}, "dtype", ("x.astype(np.float32)",)),
    "real for complex": (Complex64[Tensor, " n"], zeros(3), {}, "real-for-complex", ("x.to(torch.complex64)",)),
    "real for any complex": (
        *(Complex[Tensor, " n"], zeros(3, dtype=torch.float64), {}, "real-for-complex"),
        ("x.to(torch.complex128)",),
    ),
    "dtype and axis order": (
        *(Float32[Tensor, "n 1 2"], zeros(4, 2, 1, dtype=torch.float64), {}, "axis-order"),
        ("x.permute(0, 2, 1).to(torch.float32)",),
    ),
    "NumPy for a tensor": (Float32[Tensor, "n 2"], array(3, 2), {}, "library", ("torch.from_numpy(x)",)),
    "NumPy, backwards": (Float32[Tensor, "n 2"], array(3, 2)[::-1], {}, "library", ("torch.from_numpy(x.copy())",)),
    "NumPy of another dtype": (
        *(Float32[Tensor, "n 2"], array(3, 2, dtype=np.float64), {}, "library"),
        ("torch.from_numpy(x).to(torch.float32)",),
    ),
    "NumPy in another order": (
        *(Float32[Tensor, "n 1 2"], array(3, 2, 1), {}, "axis-order"),
        ("torch.from_numpy(x).permute(0, 2, 1)",),
    ),
    "a NumPy number for a tensor": (Float32[Tensor, ""], np.float32(2), {}, "library", ("torch.tensor(x)",)),
    "a tensor for NumPy": (Float32[np.ndarray, "n 2"], zeros(3, 2), {}, "library", ("x.numpy()",)),
    "a tensor with gradient for NumPy": (
        *(Float32[np.ndarray, " n"], zeros(3).requires_grad_(), {}, "library"),
        ("x.detach().cpu().numpy()",),
    ),
    "a conjugated tensor for NumPy": (
        *(Complex64[np.ndarray, " n"], zeros(3, dtype=torch.complex64).conj(), {}, "library"),
        ("x.resolve_conj().numpy()",),
    ),
    "a list of tensors": (Float32[Tensor, "4 n 2"], [zeros(3, 2)] * 4, {}, "not-stacked", ("torch.stack(x)",)),
    "a list of arrays": (Float32[np.ndarray, "4 n"], [array(3)] * 4, {}, "not-stacked", ("np.stack(x)",)),
    "a list for a tuple": (tuple[Float32[Tensor, " n"], int], [zeros(3), 1], {}, "sequence-type", ("tuple(x)",)),
    "a list for a tuple of any length": (tuple[Float32[Tensor, " n"], ...], [zeros(3)], {}, "sequence-type", ("tuple(x)",)),
    "a tuple for a list": (list[Float32[Tensor, " n"]], (zeros(3),), {}, "sequence-type", ("list(x)",)),
    "a number": (Float32[Tensor, ""], 2.5, {}, "number-for-tensor", ("torch.tensor(x)",)),
    "a number, more precise": (
        *(Float64[Tensor, ""], 2, {}, "number-for-tensor"),
        ("torch.tensor(x, dtype=torch.float64)",),
    ),
    "a number for NumPy": (Int64[np.ndarray, ""], 2, {}, "number-for-tensor", ("np.array(x)",)),
    "a tensor for a number": (float, zeros(), {}, "tensor-for-number", ("x.item()",)),
    "a NumPy number for a number": (int, np.int64(3), {}, "tensor-for-number", ("x.item()",)),
    "a misspelt key": (Fields, {"image": IMAGES, "offsets": OFFSETS}, {}, "misspelt-key", ("x['images'] = x.pop('image')",)),
    "an optional tensor": (Float32[Tensor, "n 1 2"] | None, zeros(4, 2, 1), {}, "axis-order", ("x.permute(0, 2, 1)",)),
    "an optional tensor, NumPy given": (Float32[Tensor, " n"] | None, array(3), {}, "library", ("torch.from_numpy(x)",)),
    "a union": (
        *(Float32[Tensor, "n 2"] | Float32[Tensor, "n 3"], zeros(2, 5), {}, "axis-order"),
        ("x.permute(1, 0)",),
    ),
    "a parameter": (Float32[Tensor, "o i"], nn.Parameter(zeros(3, 5)), {"i": 3}, "axis-order", ("x.permute(1, 0)",)),
}  # fmt: skip


@pytest.mark.parametrize(("annotation", "value", "dims", "identifier", "code"), CURABLE.values(), ids=CURABLE)
def test_a_failure_is_diagnosed_and_what_the_hint_says_cures_it(
    annotation: Any, value: Any, dims: dict[str, int], identifier: str, code: tuple[str, ...]
) -> None:
    violation = violation_of(value, annotation, **dims)
    assert violation.id == identifier
    assert violation.hint is not None
    assert violation.hint.code == code
    assert violation.hint.complete
    for text in code:
        check(cured(value, text), annotation, dims=dims)


# annotation, value, dims, id: like a row above, but nothing that may be suggested would do
INCURABLE: dict[str, tuple[Any, Any, dict[str, int], str]] = {
    "no axis order has these sizes": (Float32[Tensor, "B C 1 2"], zeros(3, 1, 3, 4), {"C": 4}, "tied-dim"),
    "twelve axes of any size": (Float32[Tensor, "a b c d e f g h i j k 9"], zeros(*range(2, 9), 1, 1, 1, 1, 2), {}, "axis-size"),
    "the missing axis has a size": (Float32[Tensor, "n 3 2"], zeros(4, 2), {}, "missing-axis"),
    "one sample of a batch that others have counted": (Float32[Tensor, "B C N N"], zeros(4, 16, 16), {"B": 3, "C": 4}, "missing-batch"),
    "the extra axis has a size": (Float32[Tensor, "n 2"], zeros(4, 3, 2), {"n": 4}, "extra-axis"),
    "two axes too many": (Float32[Tensor, " n"], zeros(4, 1, 1), {}, "ndim"),
    "it may be any axis": (Float32[Tensor, "n h"], zeros(4, 5, 6), {}, "ndim"),
    "the sizes do not divide": (Float32[Tensor, "B C h w"], zeros(13, 5, 6), {"C": 4, "B": 3}, "ndim"),
    "nobody knows the factors": (Float32[Tensor, "B C 5 6"], zeros(7, 30), {}, "ndim"),
    "the product differs": (Float32[Tensor, "n h w"], zeros(3, 4, 5, 6), {"n": 13}, "ndim"),
    "NumPy has no unflatten": (Float32[np.ndarray, "B C h w"], array(12, 5, 6), {"C": 4, "B": 3}, "ndim"),
    "a size": (Float32[Tensor, "n 2"], zeros(3, 4), {}, "axis-size"),
    "two axes of one dim": (Float32[Tensor, "B N N"], zeros(3, 8, 9), {}, "axis-size"),
    "a size of the configuration": (Float32[Tensor, "B C"], zeros(3, 1), {"C": 4}, "tied-dim"),
    "no element": (Float32[Tensor, "n 2"], zeros(0, 2), {"n": 3}, "empty"),
    "fractions would be lost": (Int64[Tensor, " n"], zeros(3), {}, "dtype"),
    "signs would be lost": (UInt8[Tensor, " n"], zeros(3, dtype=torch.int64), {}, "dtype"),
    "an array of objects": (Float32[np.ndarray, " n"], np.array([None, None]), {}, "dtype"),
    "a dtype that torch does not have": (Float32[Tensor, " n"], np.zeros(3, np.longdouble), {}, "library"),
    "bytes in another order": (Float32[Tensor, " n"], np.zeros(3, ">f4"), {}, "library"),
    "a dtype that NumPy does not have": (Float[np.ndarray, " n"], zeros(3, dtype=torch.bfloat16), {}, "library"),
    "a tensor without data for NumPy": (Float32[np.ndarray, " n"], torch.zeros(3, device="meta"), {}, "library"),
    "tensors of different sizes": (Float32[Tensor, "2 n"], [zeros(3), zeros(4)], {}, "not-stacked"),
    "too many tensors": (Float32[Tensor, "4 n"], [zeros(3)] * 5, {}, "not-stacked"),
    "a list of what no tuple may hold": (tuple[Float32[Tensor, " n"], int], [zeros(3), "a"], {}, "sequence-type"),
    "a number for a vector": (Float32[Tensor, " n"], 2.5, {}, "number-for-tensor"),
    "a complex number": (Float32[Tensor, ""], 2j, {}, "number-for-tensor"),
    "a vector for a number": (float, zeros(3), {}, "tensor-for-number"),
    "a fraction for an int": (int, zeros(), {}, "tensor-for-number"),
    "nothing": (Float32[Tensor, " n"], None, {}, "none"),
    "something else": (Float32[Tensor, " n"], "a", {}, "type"),
    "a tensor for a parameter": (Float32[nn.Parameter, "o i"], zeros(3, 5), {}, "type"),
    "a parameter of another dtype": (Float32[nn.Parameter, " n"], nn.Parameter(zeros(3, dtype=torch.float64)), {}, "dtype"),
    "a key with a wrong value": (Fields, {"image": IMAGES[..., :3], "offsets": OFFSETS}, {}, "missing-key"),
    "a key that is not alike": (Fields, {"pictures": IMAGES, "offsets": OFFSETS}, {}, "missing-key"),
    "two misspelt keys": (Fields, {"image": IMAGES, "offset": OFFSETS}, {}, "missing-key"),
    "a key too many": (Fields, {"images": IMAGES, "offsets": OFFSETS, "offset": OFFSETS}, {}, "extra-key"),
    "a key of a dict": (dict[int, Float32[Tensor, " n"]], {"a": zeros(3)}, {}, "type"),
    "no alternative": (Float32[Tensor, "n 2"] | Float32[Tensor, "n 3"], zeros(4, 5), {}, "no-alternative"),
}  # fmt: skip


@pytest.mark.parametrize(("annotation", "value", "dims", "identifier"), INCURABLE.values(), ids=INCURABLE)
def test_a_failure_that_nothing_cures_gets_no_hint(
    annotation: Any, value: Any, dims: dict[str, int], identifier: str
) -> None:
    violation = violation_of(value, annotation, **dims)
    assert violation.id == identifier
    assert violation.hint is None


def test_no_way_from_complex_to_real_is_recommended_before_others() -> None:
    violation = violation_of(zeros(3, dtype=torch.complex64), Float32[Tensor, " n"])
    assert violation.id == "complex-for-real"
    assert violation.hint is not None
    assert violation.hint.code == ()
    assert violation_of(zeros(3, dtype=torch.complex64), Float32[Tensor, "3 n"]).hint is None


def test_more_cures_than_anybody_reads_are_cut_and_it_is_said() -> None:
    violation = violation_of(zeros(2, 3, 4, 5, 1), Float32[Tensor, "1 a b c d"])
    assert violation.hint is not None
    assert len(violation.hint.code) == 4
    assert not violation.hint.complete


def test_a_hint_satisfies_the_whole_contract_and_not_only_its_parameter() -> None:
    @contract
    def f(x: Float32[Tensor, "h w"], y: Float32[Tensor, "w h"], z: Float32[Tensor, " h"]) -> None:
        del x, y, z

    f(zeros(3, 4), zeros(4, 3), zeros(3))
    with pytest.raises(ContractError) as caught:
        f(zeros(3, 4), zeros(4, 3), zeros(5))
    assert [violation.hint for violation in caught.value.violations] == [None]


def test_a_hint_beside_other_failures_fits_what_the_accepted_values_bind() -> None:
    annotation = tuple[Float32[Tensor, "a b"], Float32[Tensor, "a b"], Float32[Tensor, "a b"]]
    first, second = violations_of((zeros(3, 4), zeros(4, 3), zeros(4, 5)), annotation)
    assert (first.parameter, first.hint and first.hint.code) == ("x[1]", ("x[1].permute(1, 0)",))
    assert (second.parameter, second.hint) == ("x[2]", None)


def test_a_hint_for_the_result_says_result() -> None:
    @contract
    def transpose(x: Float32[Tensor, "h w"]) -> Float32[Tensor, "w h"]:
        return x

    with pytest.raises(ContractError) as caught:
        transpose(zeros(3, 4))
    (violation,) = caught.value.violations
    assert (violation.parameter, violation.hint and violation.hint.code) == ("return", ("result.permute(1, 0)",))


def test_a_hint_for_what_a_generator_yields_says_item() -> None:
    @contract
    def rows(x: Float32[Tensor, "h w"]) -> Iterator[Float32[Tensor, "w 1"]]:
        yield x.T[:, :1]
        yield x[:1]

    items = rows(zeros(3, 4))
    next(items)
    with pytest.raises(ContractError, match="yielded value, at 'yield") as caught:
        next(items)
    (violation,) = caught.value.violations
    assert (violation.parameter, violation.hint and violation.hint.code) == ("yield[1]", ("item.permute(1, 0)",))


def test_there_is_no_python_for_a_value_whose_name_is_none() -> None:
    with pytest.raises(ContractError) as caught:
        check(zeros(4, 2, 1), Float32[Tensor, "n 1 2"], "the offsets")
    assert caught.value.violations[0].hint is None


def test_validators_judge_a_hint_too() -> None:
    good = zeros(4, 2, 3)
    assert violation_of(good, Annotated[Float32[Tensor, "n 3 2"], Finite]).id == "axis-order"
    assert violation_of(good, Annotated[Float32[Tensor, "n 3 2"], Contiguous]).hint is None
    assert violation_of(good.double(), Annotated[Float32[Tensor, "n 2 3"], Finite]).hint is None, "it must be computed"


# --- facts ------------------------------------------------------------------------------------------
def test_an_axis_that_is_missing_is_named_with_the_dim_that_others_bind() -> None:
    annotation = tuple[Float32[Tensor, "B C"], Float32[Tensor, "B C N N"]]
    (fact,) = violations_of((zeros(3, 4), zeros(4, 16, 16)), annotation)[0].mismatches
    assert (fact.kind, fact.axis, fact.got, fact.expected) == ("missing-batch", 0, "3", "4")
    assert fact.binding is not None
    assert (fact.binding.dim, fact.binding.size, fact.binding.source) == ("B", 3, "x[0]")


def test_two_axes_of_one_dim_are_both_named_and_nobody_else_is_blamed() -> None:
    violation = violation_of(zeros(3, 8, 9), Float32[Tensor, "B N N"])
    (fact,) = violation.mismatches
    assert (fact.axis, fact.got, fact.binding and fact.binding.axis, fact.binding and fact.binding.size) == (
        2,
        "9",
        1,
        8,
    )
    assert violation.bindings == ()


def test_each_alternative_of_a_union_says_why_it_does_not_fit() -> None:
    violation = violation_of(zeros(3, 4), Float32[Tensor, "b c"] | Float32[Tensor, "c b"], b=5)
    assert [fact.alternative for fact in violation.mismatches] == [
        None,
        'Float32[Tensor, "b c"]',
        'Float32[Tensor, "c b"]',
    ]


def test_the_violations_stand_in_the_order_of_the_parameters() -> None:
    value = {"images": zeros(3, 8, 9), "offsets": array(3, 2)}
    annotation = tuple[int, Fields, int]
    parameters = [violation.parameter for violation in violations_of(("a", value, "b"), annotation)]
    assert parameters == ["x[0]", "x[1]['images']", "x[1]['offsets']", "x[2]"]


def test_something_that_only_looks_like_an_array_is_described_by_its_type() -> None:
    class Lazy:
        dtype, shape = "float32", None

    violation = violation_of(Lazy(), Float32[Tensor, " n"])
    assert (violation.id, [fact.kind for fact in violation.mismatches]) == ("type", ["array-kind"])


def test_every_id_is_described() -> None:
    kinds = set(typing.get_args(MismatchKind))
    used = {identifier for *_, identifier in INCURABLE.values()} | {row[3] for row in CURABLE.values()}
    not_ids = {"axis", "repeated-dim", "array-kind"}  # which have ids that say more
    assert kinds - not_ids <= DIAGNOSES.keys()
    assert used <= DIAGNOSES.keys()


def test_every_kind_of_hint_is_given_by_some_row() -> None:
    given = {violation_of(value, annotation, **dims).hint.kind for annotation, value, dims, *_ in CURABLE.values()}  # pyright: ignore[reportOptionalMemberAccess]
    assert given | {"complex-to-real"} == set(typing.get_args(HintKind))


# --- laws -------------------------------------------------------------------------------------------
@hypothesis.given(
    st.lists(st.sampled_from(["a", "b", "c", "1", "2", "a*b", "_"]), min_size=1, max_size=4),
    st.lists(st.sampled_from([1, 2, 3, 6]), min_size=1, max_size=5),
    st.dictionaries(st.sampled_from("abc"), st.sampled_from([1, 2, 3]), max_size=3),
    st.sampled_from([torch.float32, torch.float64, torch.int64]),
)
@hypothesis.settings(deadline=None, max_examples=150)
def test_whatever_is_suggested_satisfies_the_contract(
    axes: list[str], shape: list[int], dims: dict[str, int], dtype: torch.dtype
) -> None:
    dims = {"a": 2, **dims, "b": 3} if "a*b" in axes else dims
    axes = [*axes, *(dim for dim in dims if dim not in axes)]
    annotation = Float32[Tensor, " ".join(axes)]
    value = torch.zeros(shape, dtype=dtype)
    try:
        check(value, annotation, "x", dims=dims)
    except ContractError as error:
        (violation,) = error.violations
        for code in violation.hint.code if violation.hint else ():
            check(cured(value, code), annotation, dims=dims)


@hypothesis.given(st.permutations(["3", "b", "1", "c"]), st.permutations([3, 4, 1, 5]), st.sampled_from([4, 5]))
@hypothesis.settings(deadline=None, max_examples=100)
def test_all_orders_that_fit_are_found(axes: list[str], shape: list[int], b: int) -> None:
    """Compare with all 24 orders, tried one by one; axes of size 1 move no element, wherever they stand."""
    expected = [{"3": 3, "b": b, "1": 1}.get(axis) for axis in axes]
    wanted = {
        tuple(axis for axis in order if shape[axis] != 1)
        for order in itertools.permutations(range(4))
        if all(size in {None, shape[axis]} for size, axis in zip(expected, order, strict=True))
    }
    value = torch.arange(math.prod(shape)).reshape(shape).float()
    try:
        check(value, Float32[Tensor, " ".join(axes)], "x", dims={"b": b})
    except ContractError as error:
        hint = error.violations[0].hint
        codes = hint.code if hint else ()
        found = [tuple(axis for axis in map(int, code[10:-1].split(",")) if shape[axis] != 1) for code in codes]
        assert set(found) == wanted
        assert len(found) == len(wanted)
    else:
        assert tuple(axis for axis in range(4) if shape[axis] != 1) in wanted


class Lazy:
    """An array of a library that nobody here knows: its methods may mean anything."""

    dtype = "float32"

    def __init__(self, *shape: int) -> None:
        self.shape = shape


def test_no_code_is_proposed_for_arrays_of_unknown_libraries() -> None:
    hint = Float32[Lazy, "b c 7"]
    check(Lazy(3, 4, 7), hint)
    for shape in ((7, 3, 4), (4, 7), (3, 4, 1, 7)):
        assert violation_of(Lazy(*shape), hint).hint is None
        assert violation_of(torch.zeros(shape), Float32[Tensor, "b c 7"]).hint is not None


# --- who is to blame ----------------------------------------------------------------------------------
Images, Support = Float32[Tensor, "B C H W"], Float32[Tensor, "H W"]


def test_the_value_that_bound_dims_in_the_wrong_order_is_blamed_instead_of_the_one_that_contradicts_it() -> None:
    hint = tuple[Images, Support]
    check((zeros(3, 4, 5, 6), zeros(5, 6)), hint, dims={"B": 3})
    violation = violation_of((zeros(3, 5, 6, 4), zeros(5, 6)), hint, B=3)
    assert (violation.id, violation.parameter) == ("axis-order", "x[0]")
    assert violation.hint is not None
    assert violation.hint.code == ("x[0].permute(0, 3, 1, 2)",)
    assert {binding.dim: binding.source for binding in violation.bindings} == {
        "B": "dims['B']",
        "H": "x[1]",
        "W": "x[1]",
    }


@pytest.mark.parametrize(
    ("values", "annotation", "blamed", "identifier"),
    [
        ((zeros(3, 5, 6, 4), zeros(7, 8)), tuple[Images, Support], "x[1]", "axis-size"),  # no order cures it
        ((zeros(3, 4, 5, 6), zeros(6, 5)), tuple[Images, Support], "x[1]", "axis-order"),  # has a cure itself
        ((zeros(3, 5), zeros(5)), tuple[Float32[Tensor, "n d"], Float32[Tensor, " n"]], "x[1]", "axis-size"),
        (
            (zeros(5, 6, 4), zeros(5, 6, 4), zeros(5, 6)),
            tuple[Float32[Tensor, "c h w"], Float32[Tensor, "c h w"], Float32[Tensor, "h w"]],
            "x[2]",
            "axis-size",
        ),
    ],
    ids=["no order fits", "cured itself", "one size proves nothing", "a twin agrees"],
)
def test_a_value_that_was_accepted_is_blamed_only_if_permuting_it_alone_cures_the_call(
    values: Any, annotation: Any, blamed: str, identifier: str
) -> None:
    violation = violation_of(values, annotation)
    assert (violation.parameter, violation.id) == (blamed, identifier)


def test_looking_for_another_culprit_is_bounded(counted: Callable[[], int]) -> None:
    values = [zeros(3, 5, 6, 4), zeros(5, 6), *[zeros(1)] * 500]
    annotation = tuple[Images, Support, *[Float32[Tensor, "..."]] * 500]
    assert violation_of(tuple(values), annotation).parameter == "x[0]"
    assert counted() <= 20 * len(values)


# --- what a diagnosis may cost and touch --------------------------------------------------------------
@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How often the reference engine has judged a tensor, and our own comparison a shape."""
    from shapecheck._diagnosis import axis_order, engine

    count = itertools.count()

    def counting(function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any) -> Any:
            next(count)
            return function(*args)

        return counted

    monkeypatch.setattr(engine, "check_tensor", counting(engine.check_tensor))
    monkeypatch.setattr(axis_order, "shape_mismatches", counting(axis_order.shape_mismatches))
    return lambda: next(count)


MANY = 2_000
GOOD, BAD = zeros(3, 4), zeros(4, 3)


WRONG = {"first": [0], "one": [1000], "last": [1999], "all but one": [*range(1, 2000)], "half": [*range(1000, 2000)]}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_each_tensor_of_a_long_list_is_judged_a_few_times(counted: Callable[[], int], wrong: list[int]) -> None:
    values = [BAD if index in wrong else GOOD for index in range(MANY)]
    violations = violations_of(values, list[Float32[Tensor, "a b"]])
    blamed = wrong if len(wrong) < MANY - 1 else [0]  # all others agree without the first
    assert [violation.parameter for violation in violations] == [f"x[{index}]" for index in blamed]
    assert counted() <= 9 * MANY


def test_a_list_of_ten_thousand_wrong_tensors_is_reported_in_a_few_lines(counted: Callable[[], int]) -> None:
    with pytest.raises(ContractError) as caught:
        check([BAD] * 10_000, list[Float32[Tensor, "3 4"]], "x")
    violations = caught.value.violations
    assert len(violations) == 10_000
    assert [violation.id for violation in violations[:16]] == ["axis-order"] * 16
    assert violations[-1].hint is None
    assert len(str(caught.value).splitlines()) < 25
    assert len(str(caught.value)) < 3_000
    assert counted() <= 4 * 10_000


@pytest.mark.parametrize("last", [GOOD, zeros(3, 4, 1)], ids=["accepted", "refused"])
def test_many_unions_are_not_tried_in_every_combination(counted: Callable[[], int], last: Tensor) -> None:
    annotation = list[Float32[Tensor, "b c"] | Float32[Tensor, "c b"]]
    values = [*[zeros(4, 4)] * 200, last[:3, :3] if last is GOOD else last]
    if last is GOOD:
        values[-1] = zeros(4, 4)
        check(values, annotation)
    else:
        assert violation_of(values, annotation).parameter == "x[200]"
    assert counted() <= 20 * 200


@pytest.mark.parametrize("ndim", [6, 12])
def test_the_search_for_an_axis_order_is_bounded(counted: Callable[[], int], ndim: int) -> None:
    names = " ".join("abcdefghijkl"[: ndim - 1])
    violation = violation_of(zeros(*[1] * (ndim - 4), 2, 3, 4, 7), Float32[Tensor, f"7 {names}"])
    assert violation.id == "axis-order"
    assert violation_of(zeros(*[2] * ndim), Float32[Tensor, f"{names} a+b"]).hint is None
    assert counted() <= 2_500


class Watched(Tensor):
    """A tensor that remembers which operations touched it."""

    touched: typing.ClassVar[list[str]] = []

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        cls.touched.append(func.__name__)
        return super().__torch_function__(func, types, args, kwargs or {})


READ_ONLY = {
    *("__get__", "__len__", "dim", "is_contiguous", "numel", "size"),
    *("storage_offset", "stride", "type", "untyped_storage"),
}


@pytest.mark.parametrize(
    "code", ["axis order", "dtype and axis order", "merged axes", "a list of tensors", "real for complex"]
)
def test_no_operation_runs_on_the_failing_tensor(code: str) -> None:
    annotation, value, dims, *_ = CURABLE[code]
    watched = [item.as_subclass(Watched) for item in value] if isinstance(value, list) else value.as_subclass(Watched)
    Watched.touched.clear()
    assert violation_of(watched, annotation, **dims).hint is not None
    assert set(Watched.touched) <= READ_ONLY


@pytest.mark.parametrize("device", ["meta", "fake"])
@pytest.mark.parametrize(
    "code", ["axis order", "dtype and axis order", "merged axes", "missing axis", "real for complex"]
)
def test_tensors_without_data_are_diagnosed_alike(code: str, device: str) -> None:
    annotation, value, dims, identifier, codes = CURABLE[code]
    empty = value.to("meta") if device == "meta" else FakeTensorMode().from_tensor(value)
    violation = violation_of(empty, annotation, **dims)
    assert (violation.id, violation.hint and violation.hint.code) == (identifier, codes)


def test_symbolic_sizes_become_plain_data() -> None:
    mode = FakeTensorMode(shape_env=ShapeEnv())
    first, second = (mode.from_tensor(torch.zeros(size, 2), static_shapes=False) for size in (5, 3))
    with mode, pytest.raises(ContractError) as caught:
        check((first, second), tuple[Float32[Tensor, "n d"], Float32[Tensor, "n d"]], "x")
    (violation,) = caught.value.violations
    assert json.loads(json.dumps(violation.to_dict()))["parameter"] == "x[1]"


@pytest.mark.parametrize("name", CURABLE)
def test_every_violation_is_data_that_json_can_hold(name: str) -> None:
    annotation, value, dims, identifier, _ = CURABLE[name]
    assert json.loads(json.dumps(violation_of(value, annotation, **dims).to_dict()))["id"] == identifier


# --- misspelt dims, refused where the contract is defined ----------------------------------------------
def test_a_misspelt_dim_is_refused_with_the_one_that_was_meant() -> None:
    def crop(x: Float32[Tensor, "batch h"], y: Float32[Tensor, "bacth//2 h"]) -> None: ...

    with pytest.raises(
        ContractDefinitionError, match=r"nothing binds bacth, which .* refers to: did you mean \'batch\'\?"
    ):
        contract(crop)
    with pytest.raises(ContractDefinitionError, match=r"no annotation uses it: did you mean 'batch'\?"):
        check(zeros(3, 4), Float32[Tensor, "batch h"], dims={"Batch": 3})
    with pytest.raises(ContractDefinitionError, match=r"refers to\."):
        check(zeros(3), Float32[Tensor, " zz//2"])


def test_a_cure_is_tried_where_a_tensor_may_also_be_an_iterable_of_rows() -> None:
    rows = Iterable[Float32[Tensor, " n"]] | Float32[Tensor, "b c d"]
    annotation = tuple[Float32[Tensor, " n"], rows]
    check((torch.zeros(4), torch.zeros(3, 4)), annotation)
    check((torch.zeros(4), [torch.zeros(4)] * 3), annotation)
    hint = violation_of((torch.zeros(4), torch.zeros(4, 3)), annotation).hint
    assert hint is not None
    assert hint.code[0] == "x[1].unsqueeze(0)"


def test_a_stand_in_has_rows_like_a_tensor() -> None:
    stand_in = StandIn(Tensor, torch.float32, (4, 3))
    assert (stand_in.ndim, len(stand_in)) == (2, 4)
    assert [(row.shape, row.dtype) for row in stand_in] == [((3,), torch.float32)]
    assert list(StandIn(Tensor, torch.float32, (0, 3))) == []
