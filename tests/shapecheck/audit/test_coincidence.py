"""Which dims a run never told apart: compared with what the calls of each case say by themselves."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float32
from torch import Tensor

from shapecheck import Axes, check, contract
from shapecheck.audit import BoundaryRecord, Coincidence, Recording, coincidences, record
from shapecheck.axes import Dim

Shapes = Mapping[str, tuple[int, ...]]


@contract
def attend(q: Float32[Tensor, "B T D"], k: Float32[Tensor, "B S D"]) -> Float32[Tensor, "B T S"]:
    return q @ k.mT


@contract
def place(offsets: Float32[Tensor, "B C 1 2"], weights: Float32[Tensor, " n"] | None = None) -> None: ...


def said(call: Callable[[], object]) -> list[str]:
    """What is said of one function after some calls."""
    with record() as recording:
        call()
    return [str(found) for found in coincidences(recording)]


def zeros(*shape: int) -> Tensor:
    return torch.zeros(shape)


def attention(B: int, T: int, S: int, D: int) -> Tensor:
    return attend(zeros(B, T, D), zeros(B, S, D))


# --- what is said -------------------------------------------------------------------------------------------
@pytest.mark.violation
@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ([(2, 3, 4, 5)], []),
        ([(4, 3, 3, 5)], ["S and T were both 3 in the only call"]),
        ([(4, 3, 3, 5), (2, 3, 3, 5)], ["S and T were both 3 in both calls"]),
        ([(4, 3, 3, 5), (2, 7, 7, 5), (2, 7, 7, 5)], ["S and T had the same size (3 and 7) in all 3 calls"]),
        ([(4, 3, 3, 5), (4, 3, 7, 5)], []),
        ([(3, 3, 3, 5)], ["B, S and T were all 3 in the only call"]),
        ([(3, 3, 3, 3), (3, 3, 3, 5), (4, 3, 3, 5)], ["S and T were both 3 in all 3 calls"]),
        ([(4, 3, 3, 4)], ["B and D were both 4 in the only call", "S and T were both 3 in the only call"]),
        ([], []),
    ],
    ids=["none", "once", "twice", "sizes", "apart once", "three", "three, then two", "two pairs", "never called"],
)
def test_dims_that_had_equal_sizes_in_every_call_are_named(calls: list[Any], expected: list[str]) -> None:
    assert said(lambda: [attention(*sizes) for sizes in calls]) == expected


@pytest.mark.violation
@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([(3, 4, 1, 2)], []),
        ([(3, 2, 1, 2), (4, 2, 1, 2)], ["C was 2, as the axis beside it always is, in both calls"]),
        ([(3, 2, 1, 2), (4, 5, 1, 2)], []),
        (
            [(1, 2, 1, 2)],
            [f"{dim} was {size}, as the axis beside it always is, in the only call" for dim, size in ("B1", "C2")],
        ),
    ],
    ids=["none", "C=2", "C=2 once", "B=1 and C=2"],
)
def test_a_dim_that_always_was_a_literal_of_its_tensor_is_named(shapes: list[Any], expected: list[str]) -> None:
    assert said(lambda: [place(zeros(*shape)) for shape in shapes]) == expected


@pytest.mark.violation
def test_a_literal_of_another_tensor_does_not_matter_and_dims_of_another_do() -> None:
    assert said(lambda: place(zeros(3, 4, 1, 2), zeros(2))) == []
    assert said(lambda: place(zeros(3, 4, 1, 2), zeros(4))) == ["C and n were both 4 in the only call"]


@pytest.mark.violation
def test_dims_that_were_not_always_there_are_not_said_to_be_equal_in_all_calls() -> None:
    def calls() -> None:
        place(zeros(3, 4, 1, 2), zeros(4))
        place(zeros(3, 5, 1, 2))

    assert said(calls) == ["C and n were both 4 in every call that had both"]


@pytest.mark.violation
def test_calls_that_break_the_contract_say_nothing() -> None:
    def calls() -> None:
        attention(4, 3, 3, 5)
        with pytest.raises(TypeError):
            attend(zeros(4, 3, 5), zeros(4, 7, 6))

    assert said(calls) == ["S and T were both 3 in the only call"]


# --- dims that are equal on purpose ---------------------------------------------------------------------------
@pytest.mark.violation
def test_dims_tied_to_the_same_expression_are_meant_to_be_equal_and_others_are_not() -> None:
    @contract(dims={"h": "size", "w": "size"})
    def square(image: Float32[Tensor, "b h w"], size: int) -> None: ...

    @contract(dims={"h": "size", "w": "width"})
    def oblong(image: Float32[Tensor, "b h w"], size: int, width: int) -> None: ...

    assert said(lambda: square(zeros(3, 4, 4), 4)) == []
    assert said(lambda: square(zeros(4, 4, 4), 4)) == [
        "b and h were both 4 in the only call",
        "b and w were both 4 in the only call",
    ]
    assert said(lambda: oblong(zeros(3, 4, 4), 4, 4)) == ["h and w were both 4 in the only call"]


@pytest.mark.violation
def test_dims_of_one_size_in_the_registry_cannot_differ_and_others_can() -> None:
    axes = Axes(x=Dim(size=4), y=Dim(size=4), z=Dim(size=range(1, 9)), b="any")

    @contract(axes=axes)
    def fixed(image: Float32[Tensor, "b x y"], other: Float32[Tensor, "z 4"] | None = None) -> None: ...

    assert said(lambda: fixed(zeros(3, 4, 4))) == []
    assert said(lambda: fixed(zeros(4, 4, 4))) == [
        "b and x were both 4 in the only call",
        "b and y were both 4 in the only call",
    ]
    assert "z was 4, as the axis beside it always is, in the only call" in said(
        lambda: fixed(zeros(3, 4, 4), zeros(4, 4))
    )


@pytest.mark.violation
def test_a_dim_tied_to_the_number_beside_it_cannot_differ_from_it() -> None:
    @contract(dims={"c": "2"})
    def pairs(points: Float32[Tensor, "n c 2"]) -> None: ...

    assert said(lambda: pairs(zeros(3, 2, 2))) == []


@pytest.mark.violation
def test_sizes_that_check_is_given_are_ties_that_may_differ() -> None:
    image = Float32[Tensor, "h w"]
    assert said(lambda: check(zeros(4, 4), image, dims={"h": 4, "w": 4})) == ["h and w were both 4 in the only call"]


# --- in general -----------------------------------------------------------------------------------------------
SIZES = st.tuples(*[st.sampled_from([2, 3, 5])] * 4)


@pytest.mark.violation
@settings(max_examples=40, deadline=None, database=None)
@given(st.lists(SIZES, min_size=1, max_size=4))
def test_a_pair_is_named_when_and_only_when_no_call_tells_it_apart(calls: list[tuple[int, int, int, int]]) -> None:
    with record() as recording:
        for sizes in calls:
            attention(*sizes)
    named = {pair for one in coincidences(recording) for pair in itertools.combinations(one.dims, 2)}
    columns = dict(zip("BTSD", zip(*calls, strict=True), strict=True))
    expected = {(a, b) for a, b in itertools.combinations(sorted(columns), 2) if columns[a] == columns[b]}
    assert named == expected


@pytest.mark.violation
def test_halves_of_a_run_say_together_what_the_whole_says() -> None:
    calls = [(4, 3, 3, 5), (3, 3, 3, 3), (2, 7, 7, 2), (4, 6, 6, 4)]
    with record() as whole:
        for sizes in calls:
            attention(*sizes)
    halves = []
    for half in (calls[:2], calls[2:]):
        with record() as recording:
            for sizes in half:
                attention(*sizes)
        halves.append(recording)
    assert coincidences(Recording.merged(halves)) == coincidences(whole) != []


def test_a_line_of_a_list_names_the_boundary_and_where_it_is() -> None:
    known = BoundaryRecord(
        "a.f", "a.py:1", 3, 1, sizes={"n": [4], "m": [4]}, bound={"n": 2, "m": 2}, always_equal=[("m", "n")]
    )
    (found,) = coincidences(Recording({"a.f": known}))
    assert found == Coincidence("a.f", "a.py:1", ("m", "n"), (4,), 2, is_in_all=True)
    assert found.line() == "a.f (a.py:1): m and n were both 4 in both calls"
