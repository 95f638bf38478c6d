"""Generators and asynchronous generators: what they yield, are sent and return; on both engines."""

import asyncio
import contextlib
import gc
import inspect
import itertools
import warnings
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable, Iterator
from typing import Any, TypedDict

import pytest
import torch
from jaxtyping import Float32
from outcomes import violation_of, zeros
from torch import Tensor

import shapecheck
from shapecheck import ContractDefinitionError, ContractWarning, contract

pytestmark = pytest.mark.violation

Row = Float32[Tensor, " n"]
Rows = Float32[Tensor, "b n"]


@pytest.fixture(autouse=True)
def _engine(engine: str) -> None:
    """Every test here holds for both engines."""


# --- what is yielded ---------------------------------------------------------------------------------
def cut(x: Rows, sizes: list[int]) -> Iterator[Float32[Tensor, "m n"]]:
    """Cut rows into pieces of these sizes; a negative size swaps the axes."""
    for size in sizes:
        yield x[:size] if size > 0 else x[:-size].T


def test_every_item_is_checked_with_the_dims_of_the_arguments() -> None:
    checked = contract(cut)
    assert [len(item) for item in checked(zeros(3, 4), [3, 3, 1])] == [3, 3, 1], "a last partial batch is no violation"
    items = checked(zeros(3, 4), [3, 2, -3])
    next(items), next(items)
    violation = violation_of(lambda: next(items))
    assert violation.parameter == "yield[2]"
    assert {binding.dim: binding.size for binding in violation.bindings} == {"n": 4}


def test_the_arguments_are_judged_when_the_generator_is_started() -> None:
    items = contract(cut)(zeros(3), [1])
    assert violation_of(lambda: next(items)).parameter == "x"
    assert list(items) == []


@pytest.mark.parametrize("annotation", [Iterator[Row], Iterable[Row], Generator[Row, None, None]], ids=str)
def test_every_spelling_of_a_generator_is_checked(annotation: Any) -> None:
    def rows(x: Float32[Tensor, "h w"], good: bool):
        yield from x if good else [x]

    rows.__annotations__["return"] = annotation
    assert len(list(contract(rows)(zeros(3, 4), True))) == 3
    assert violation_of(lambda: list(contract(rows)(zeros(3, 4), False))).parameter == "yield[0]"


class Batch(TypedDict):
    images: Float32[Tensor, "b n"]
    labels: Float32[Tensor, " b"]


def test_records_that_are_yielded_are_checked_in_full() -> None:
    @contract
    def batches(sizes: list[int], off: int) -> Iterator[Batch]:
        for size in sizes:
            yield {"images": zeros(size, 4), "labels": zeros(size + off)}

    assert len(list(batches([3, 3, 2], 0))) == 3
    assert violation_of(lambda: list(batches([3], 1))).parameter == "yield[0]['labels']"


def test_a_generator_of_plain_values_is_checked_by_beartype() -> None:
    @contract
    def count(x: Row, step: float) -> Iterator[int]:
        yield from (index * step for index in range(len(x)))

    assert list(count(zeros(3), 2)) == [0, 2, 4]
    assert violation_of(lambda: list(count(zeros(3), 0.5))).got == "0.0"


def test_a_generator_may_leave_its_items_without_annotation() -> None:
    @contract
    def rows(x: Rows):
        yield from x

    assert len(list(rows(zeros(3, 4)))) == 3
    assert violation_of(lambda: list(rows(zeros(3)))).parameter == "x"


def result_of_a_function(x: Rows) -> Float32[Tensor, " n"]:
    yield from x


async def awaited(x: Rows) -> Iterator[Row]:
    for row in x:
        yield row


@pytest.mark.parametrize("function", [result_of_a_function, awaited])
def test_an_annotation_that_is_not_that_of_a_generator_is_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(ContractDefinitionError, match=r"a generator, to be annotated as (Async)?Iterator\[\.\.\.\]"):
        contract(function)


# --- what is sent and returned -----------------------------------------------------------------------
def average(x: Rows, good: bool = True) -> Generator[Float32[Tensor, " k"], Float32[Tensor, " k"], Row]:
    """Hand out the first columns, take weights for them, and return a row at the end."""
    weights = yield x[0, :3]
    assert weights is None or weights.shape == (3,)
    weights = yield x[0, :2]
    return x[0] if good else x[0, 1:]


def test_an_answer_shares_the_dims_of_the_item_it_answers() -> None:
    items = contract(average)(zeros(3, 4))
    assert len(next(items)) == 3
    assert len(items.send(zeros(3))) == 2
    violation = violation_of(lambda: items.send(zeros(3)))
    assert violation.parameter == "sent[1]"
    assert violation.bindings[0].source == "yield[1]"


def test_next_sends_nothing_to_be_checked() -> None:
    items = contract(average)(zeros(3, 4))
    assert [len(item) for item in items] == [3, 2]


@pytest.mark.parametrize("good", [True, False])
def test_what_a_generator_returns_is_checked_with_the_dims_of_the_arguments(good: bool) -> None:
    def outer() -> Iterator[Any]:
        result.append((yield from contract(average)(zeros(3, 4), good)))

    result: list[Tensor] = []
    if good:
        assert len(list(outer())) == 2
        assert result[0].shape == (4,)
    else:
        assert violation_of(lambda: list(outer())).parameter == "return"
        assert not result


# --- a generator stays one ---------------------------------------------------------------------------
def log_of(items: Any, log: list[Any], steps: list[Any]) -> list[Any]:
    """Drive a generator and note what comes back."""
    for kind, value in steps:
        try:
            log.append((kind, getattr(items, kind)(*value)))
        except BaseException as error:  # noqa: BLE001
            log.append((kind, repr(error), repr(error.__cause__)))
    return log


def stubborn(log: list[Any]) -> Generator[int, int | None, str]:
    for index in itertools.count():
        try:
            log.append((yield index))
        except KeyError as error:
            log.append(repr(error))
            yield -1
        except ValueError:
            return "done"
        finally:
            log.append(f"finally {index}")


DRIVES: dict[str, list[Any]] = {
    "send and throw": [
        ("__next__", ()),
        ("send", (5,)),
        ("throw", (KeyError("a"),)),
        ("__next__", ()),
        ("throw", (IndexError("b"),)),
        ("__next__", ()),
    ],
    "return": [("__next__", ()), ("throw", (ValueError(),)), ("__next__", ())],
    "close": [("__next__", ()), ("close", ()), ("__next__", ())],
    "close unstarted": [("close", ()), ("__next__", ())],
    "throw unstarted": [("throw", (KeyError("c"),)), ("__next__", ())],
    "stop": [("__next__", ()), ("throw", (StopIteration(),))],
    "send unstarted": [("send", (3,))],
}


@pytest.mark.parametrize("steps", DRIVES.values(), ids=DRIVES)
def test_send_throw_and_close_reach_the_generator_as_without_a_contract(steps: list[Any]) -> None:
    plain, checked = [], []
    assert log_of(stubborn(plain), plain, steps) == log_of(contract(stubborn)(checked), checked, steps)


def test_a_violation_closes_the_generator() -> None:
    closed = []

    @contract
    def rows(x: Rows) -> Iterator[Row]:
        try:
            yield x
        finally:
            closed.append(True)

    violation_of(lambda: next(rows(zeros(3, 4))))
    assert closed == [True]


def test_a_generator_that_is_thrown_away_is_closed() -> None:
    closed = []

    @contract
    def rows(x: Rows) -> Iterator[Row]:
        try:
            yield from x
        finally:
            closed.append(True)

    next(rows(zeros(3, 4)))
    gc.collect()
    assert closed == [True]


def test_introspection_of_a_generator_stays_right() -> None:
    checked = contract(cut)
    assert inspect.isgeneratorfunction(checked)
    items = checked(zeros(3, 4), [1])
    assert inspect.isgenerator(items)
    assert inspect.getgeneratorstate(items) == inspect.GEN_CREATED
    next(items)
    assert inspect.getgeneratorstate(items) == inspect.GEN_SUSPENDED


def test_a_suspended_generator_holds_no_item() -> None:
    @contract
    def make(x: Row) -> Iterator[Row]:
        for _ in range(2):
            yield torch.zeros_like(x)

    items = make(zeros(3))
    item = next(items)
    reference = weakref.ref(item)
    del item
    assert reference() is None


# --- scopes ------------------------------------------------------------------------------------------
def test_suspended_generators_do_not_mix_their_dims() -> None:
    checked = contract(cut)
    runs = [checked(zeros(3, width), [2, 1, -2]) for width in (4, 5, 6)]
    for width, items in zip((4, 5, 6), runs, strict=True):
        assert next(items).shape == (2, width)
    for width, items in zip((6, 5, 4), reversed(runs), strict=True):
        assert next(items).shape == (1, width)
    for items in runs:
        violation_of(lambda items=items: next(items))


def test_a_generator_may_be_consumed_inside_another_call() -> None:
    rows = contract(cut)

    @contract
    def longest(x: Rows) -> Float32[Tensor, "m n"]:
        return max(rows(x.T, [1, 2]), key=len).T[:, :2].T.new_zeros(2, x.shape[1])

    assert longest(zeros(3, 4)).shape == (2, 4)


def test_a_body_may_fail_and_says_which_dims_were_bound() -> None:
    @contract
    def fail(x: Rows) -> Iterator[Row]:
        yield x[0]
        raise RuntimeError(len(x))

    with pytest.raises(RuntimeError, match="3") as caught:
        list(fail(zeros(3, 4)))
    assert any("b=3" in note and "n=4" in note for note in caught.value.__notes__)


# --- modes -------------------------------------------------------------------------------------------
def test_a_block_switches_generators_off_and_warn_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shapecheck._boundaries.boundary._warned", set())
    checked = contract(cut)
    with shapecheck.mode("off"):
        assert len(list(checked(zeros(3, 4), [-3]))) == 1
    with shapecheck.mode("warn"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert [tuple(item.shape) for item in checked(zeros(3, 4), [3, -3, -2])] == [(3, 4), (4, 3), (4, 2)]
    assert [warning.category for warning in caught] == [ContractWarning]
    assert caught[0].filename == __file__


# --- asynchronous ------------------------------------------------------------------------------------
async def cut_async(x: Rows, sizes: list[int]) -> AsyncIterator[Float32[Tensor, "m n"]]:
    for size in sizes:
        await asyncio.sleep(0)
        yield x[:size] if size > 0 else x[:-size].T


async def collect(items: AsyncIterator[Tensor]) -> list[tuple[int, ...]]:
    return [tuple(item.shape) async for item in items]


def test_every_item_of_an_asynchronous_generator_is_checked() -> None:
    checked = contract(cut_async)
    assert inspect.isasyncgenfunction(checked)
    assert asyncio.run(collect(checked(zeros(3, 4), [3, 1]))) == [(3, 4), (1, 4)]
    assert violation_of(lambda: asyncio.run(collect(checked(zeros(3, 4), [3, -3])))).parameter == "yield[1]"
    assert violation_of(lambda: asyncio.run(collect(checked(zeros(3), [3])))).parameter == "x"


def test_tasks_that_iterate_side_by_side_do_not_mix_their_dims() -> None:
    checked = contract(cut_async)

    async def many() -> list[Any]:
        return await asyncio.gather(*(collect(checked(zeros(5, width), [2, 1, 3])) for width in range(1, 20)))

    assert asyncio.run(many()) == [[(2, width), (1, width), (3, width)] for width in range(1, 20)]


def test_answers_to_an_asynchronous_generator_are_checked() -> None:
    @contract
    async def echo(x: Row) -> AsyncGenerator[Float32[Tensor, " k"], Float32[Tensor, " k"]]:
        answer = yield x[:2]
        yield answer[:1]

    async def drive(size: int) -> Tensor:
        items = echo(zeros(3))
        await anext(items)
        answer = await items.asend(zeros(size))
        await items.aclose()
        return answer

    assert asyncio.run(drive(2)).shape == (1,)
    assert violation_of(lambda: asyncio.run(drive(3))).parameter == "sent[0]"


def test_an_asynchronous_generator_is_closed_and_thrown_into_as_without_a_contract() -> None:
    async def stubborn_async(log: list[Any]) -> AsyncIterator[int]:
        for index in itertools.count():
            try:
                yield index
            except KeyError as error:
                log.append(repr(error))
            finally:
                log.append(f"finally {index}")

    async def drive(function: Callable[..., Any]) -> list[Any]:
        log: list[Any] = []
        items = function(log)
        log.append(await anext(items))
        log.append(await items.athrow(KeyError("a")))
        with contextlib.suppress(IndexError):
            await items.athrow(IndexError("b"))
        items = function(log)
        log.append(await anext(items))
        await items.aclose()
        return log

    assert asyncio.run(drive(contract(stubborn_async))) == asyncio.run(drive(stubborn_async))


# --- while a graph is traced -------------------------------------------------------------------------
def test_torch_compile_traces_checked_generators() -> None:
    @contract
    def rows(x: Rows, good: bool = True) -> Iterator[Row]:
        yield from x if good else x.T

    def total(x: Tensor, good: bool) -> Tensor:
        return sum(rows(x, good))

    compiled = torch.compile(total, fullgraph=True, backend="eager")
    assert compiled(torch.ones(3, 4), True).tolist() == [3.0] * 4
    assert violation_of(lambda: compiled(torch.ones(3, 4), False)).parameter == "yield[0]"
    torch.compiler.reset()
