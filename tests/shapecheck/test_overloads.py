"""Functions with overloads: a call must keep one of them; on both engines."""

import asyncio
from collections.abc import Callable
from typing import Any, overload

import pytest
from jaxtyping import Float32
from outcomes import violation_of, zeros
from torch import Tensor

import shapecheck
from shapecheck import ContractDefinitionError, contract

pytestmark = pytest.mark.violation

Row = Float32[Tensor, " n"]
Rows = Float32[Tensor, "b n"]


@pytest.fixture(params=["compiled", "reference"])
def matched(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setenv("SHAPECHECK_ENGINE", request.param)
    return contract(match)


@overload
def match(x: Rows, y: Row) -> Float32[Tensor, " b"]: ...
@overload
def match(x: Row, y: Row, *, scale: float = ...) -> Float32[Tensor, ""]: ...
@overload
def match(x: Row) -> Row: ...
def match(x: Tensor, y: Any = None, *, scale: float = 1.0, wrong: Any = None) -> Tensor:
    if wrong is not None:
        return wrong
    return x if y is None else scale * x @ y


def test_a_call_that_keeps_one_overload_is_accepted(matched: Callable[..., Any]) -> None:
    assert matched(zeros(3, 4), zeros(4)).shape == (3,)
    assert matched(zeros(4), y=zeros(4), scale=2.0).shape == ()
    assert matched(zeros(4)).shape == (4,)


def test_a_call_that_keeps_none_is_told_about_the_closest(matched: Callable[..., Any]) -> None:
    violation = violation_of(lambda: matched(zeros(3, 4), zeros(3)))
    assert violation.parameter in {"x", "y"}
    violation = violation_of(lambda: matched(zeros(4), zeros(4), scale="2"))
    assert violation.parameter == "scale"
    assert violation_of(lambda: matched(zeros(3, 4))).parameter == "x"


def test_the_implementation_is_checked_as_well(matched: Callable[..., Any]) -> None:
    assert violation_of(lambda: matched("text")).expected == "Tensor"


def test_the_result_is_judged_by_the_overload_that_took_the_arguments() -> None:
    @overload
    def pick(x: Rows, result: Any) -> Row: ...
    @overload
    def pick(x: Row, result: Any) -> Float32[Tensor, ""]: ...
    @contract
    def pick(x, result):
        return result

    assert pick(zeros(3, 4), zeros(4)).shape == (4,)
    assert pick(zeros(4), zeros()).shape == ()
    assert violation_of(lambda: pick(zeros(3, 4), zeros(3))).parameter == "return"
    assert violation_of(lambda: pick(zeros(4), zeros(4))).parameter == "return"


def test_overloads_of_methods_and_coroutines_are_alternatives_too() -> None:
    class Store:
        @overload
        def get(self, key: int) -> Row: ...
        @overload
        def get(self, key: str) -> Rows: ...
        @contract
        def get(self, key):
            return zeros(3) if key == 0 else zeros(3, 4)

    assert Store().get(0).shape == (3,)
    assert Store().get("a").shape == (3, 4)
    assert violation_of(lambda: Store().get(1)).parameter == "return"

    @overload
    async def echo(x: Row) -> Row: ...
    @overload
    async def echo(x: int) -> int: ...
    @contract
    async def echo(x):
        return x

    assert asyncio.run(echo(3)) == 3
    assert violation_of(lambda: asyncio.run(echo(zeros(3, 3)))).parameter == "x"


def test_ties_hold_in_the_overloads_that_use_the_dim() -> None:
    @overload
    def take(x: Row, count: int) -> Float32[Tensor, " m"]: ...
    @overload
    def take(x: Row, count: None) -> Row: ...
    @contract(dims={"m": "count"})
    def take(x, count):
        return x[:2] if count else x

    assert take(zeros(3), 2).shape == (2,)
    assert take(zeros(3), None).shape == (3,)
    assert violation_of(lambda: take(zeros(3), 1)).parameter == "return"


def test_an_overload_that_makes_no_sense_is_refused() -> None:
    @overload
    def scale(x: Float32[Tensor, " n+1"]) -> Row: ...
    @overload
    def scale(x: int) -> int: ...
    def scale(x):
        return x

    with pytest.raises(ContractDefinitionError, match="nothing binds n"):
        contract(scale)


def test_modes_work_as_for_any_function(matched: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shapecheck._boundaries.boundary._warned", set())
    with shapecheck.mode("off"):
        assert matched(zeros(3, 4)).shape == (3, 4)
    with shapecheck.mode("warn"), pytest.warns(shapecheck.ContractWarning):
        assert matched(zeros(1, 2, 3)).shape == (1, 2, 3)
