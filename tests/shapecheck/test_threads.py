"""Nothing is kept between calls: threads, recursion, re-entrancy and exceptions cannot mix or leak dims."""

import asyncio
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from jaxtyping import Float32
from torch import Tensor

import shapecheck
from shapecheck import ContractError, contract
from shapecheck._settings import state

pytestmark = pytest.mark.violation

THREADS = 8
CALLS = 400  # of each thread


@pytest.fixture(autouse=True)
def _engine(engine: str) -> None:
    """Every test here holds for both engines."""


def outer(x: Float32[Tensor, "a b"], y: Float32[Tensor, "b c"]) -> Float32[Tensor, "a c"]:
    return x @ y


def make_matmul() -> Callable[..., Any]:
    return contract(outer)


def in_threads(work: Callable[[int], None]) -> None:
    """Run `work` in many threads that switch often, and raise what any of them raised."""
    barrier, interval = threading.Barrier(THREADS), sys.getswitchinterval()

    def start(thread: int) -> None:
        barrier.wait()
        work(thread)

    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            for future in [pool.submit(start, thread) for thread in range(THREADS)]:
                future.result(timeout=60)
    finally:
        sys.setswitchinterval(interval)


def test_threads_with_different_sizes_do_not_disturb_each_other() -> None:
    matmul = make_matmul()

    def work(thread: int) -> None:
        for call in range(CALLS):
            a, b, c = 1 + thread, 1 + (thread + call) % 5, 1 + call % 3
            assert matmul(torch.zeros(a, b), torch.zeros(b, c)).shape == (a, c)
            if call % 16 == 0:
                with pytest.raises(ContractError, match=f"axis 0 is {b + 1}, the contract says b={b}"):
                    matmul(torch.zeros(a, b), torch.zeros(b + 1, c))

    in_threads(work)


def test_the_mode_of_one_thread_is_not_that_of_another() -> None:
    matmul = contract(wrong_result)

    def work(thread: int) -> None:
        for _ in range(CALLS // 10):
            if thread % 2:
                with shapecheck.mode("off"):
                    matmul(torch.zeros(2, 3))
            else:
                with pytest.raises(ContractError):
                    matmul(torch.zeros(2, 3))

    in_threads(work)
    assert state.blocks == 0


def wrong_result(x: Float32[Tensor, "a b"]) -> Float32[Tensor, "b a"]:
    return x


# --- recursion -----------------------------------------------------------------------------------
def depth_reached(function: Callable[[Callable[..., Any], Tensor], Tensor], decorate: Callable[[Any], Any]) -> int:
    """How often a function can call itself before Python stops it."""
    deepest = 0

    def descend(x: Float32[Tensor, "a b"]) -> Float32[Tensor, "a b"]:
        nonlocal deepest
        deepest += 1
        return function(decorated, x)

    decorated = decorate(descend)
    with pytest.raises(RecursionError):
        decorated(torch.zeros(2, 3))
    return deepest


def test_a_contract_costs_one_frame_of_recursion() -> None:
    def again(function: Callable[..., Any], x: Tensor) -> Tensor:
        return function(x)

    plain = depth_reached(again, lambda function: function)
    checked = depth_reached(again, contract)
    frames_of_a_plain_call, most_others = 2, 60  # `again` and `descend`; what the reference engine needs at the end
    assert checked >= plain * frames_of_a_plain_call // (frames_of_a_plain_call + 1) - most_others


def test_a_deep_recursion_with_sizes_that_change_is_checked_at_every_level() -> None:
    @contract
    def peel(x: Float32[Tensor, "a b"], most: int) -> Float32[Tensor, "c b"]:
        return peel(x[1:], most) if len(x) > most else x

    assert peel(torch.zeros(150, 2), 3).shape == (3, 2)


def test_after_a_recursion_error_contracts_work_as_before() -> None:
    @contract
    def forever(x: Float32[Tensor, "a b"]) -> Float32[Tensor, "a b"]:
        return forever(x)

    for _ in range(3):
        with pytest.raises(RecursionError):
            forever(torch.zeros(2, 3))
    matmul = make_matmul()
    assert matmul(torch.zeros(2, 3), torch.zeros(3, 4)).shape == (2, 4)
    with pytest.raises(ContractError):
        matmul(torch.zeros(2, 3), torch.zeros(4, 4))


# --- re-entrancy and exceptions --------------------------------------------------------------------
def test_a_contract_may_call_itself_with_other_sizes_before_its_result_is_checked() -> None:
    @contract
    def halves(x: Float32[Tensor, " n"], depth: int) -> Float32[Tensor, " n"]:
        if depth == 0:
            return x
        left, right = x[: len(x) // 2], x[len(x) // 2 :]
        return torch.cat([halves(left, depth - 1), halves(right, depth - 1)])

    assert halves(torch.arange(16.0), 4).tolist() == list(range(16))


def test_an_exception_in_the_body_passes_through_unchanged() -> None:
    error = ValueError("from the body")

    @contract
    def fail(x: Float32[Tensor, "a b"], y: Float32[Tensor, "b c"]) -> Float32[Tensor, "a c"]:
        raise error

    for sizes in ((2, 3, 4), (5, 6, 7)):
        a, b, c = sizes
        with pytest.raises(ValueError, match="from the body") as caught:
            fail(torch.zeros(a, b), torch.zeros(b, c))
        assert caught.value is error
        assert error.__cause__ is None
        assert error.__context__ is None


@pytest.mark.parametrize("kind", [ValueError, KeyError], ids=lambda kind: kind.__name__)
def test_an_exception_that_the_checks_themselves_use_is_not_swallowed_in_the_body(kind: type[Exception]) -> None:
    calls = []

    @contract
    def fail(x: Float32[Tensor, "a b"]) -> Float32[Tensor, "a b"]:
        calls.append(x)
        raise kind

    with pytest.raises(kind):
        fail(torch.zeros(2, 3))
    assert len(calls) == 1, "the body ran once"


def test_the_body_runs_once_whatever_the_verdict_on_its_result() -> None:
    calls = []

    @contract
    def record(x: Float32[Tensor, "a b"]) -> Float32[Tensor, "b a"]:
        calls.append(x)
        return x

    with pytest.raises(ContractError):
        record(torch.zeros(2, 3))
    assert len(calls) == 1


def test_an_exception_from_a_property_of_an_argument_passes_through() -> None:
    class Broken:
        @property
        def size(self) -> int:
            raise LookupError

    @contract
    def use(config: Broken, x: Float32[Tensor, "b {config.size}"]) -> None:
        del config, x

    with pytest.raises(LookupError):
        use(Broken(), torch.zeros(2, 3))


def test_a_body_that_resizes_its_argument_is_judged_by_the_sizes_that_went_in() -> None:
    @contract
    def shrink(x: Float32[Tensor, "a b"], good: bool) -> Float32[Tensor, "a b"]:
        shape = tuple(x.shape)
        x.resize_(1, 1)
        return torch.zeros(shape) if good else x

    assert shrink(torch.zeros(2, 3), good=True).shape == (2, 3)
    with pytest.raises(ContractError):
        shrink(torch.zeros(2, 3), good=False)


def test_tasks_of_one_thread_do_not_share_dims() -> None:
    @contract
    async def wait(x: Float32[Tensor, "a b"]) -> Float32[Tensor, "b a"]:
        await asyncio.sleep(0)
        return x.T

    async def many() -> list[Tensor]:
        return await asyncio.gather(*(wait(torch.zeros(1 + index % 5, 2 + index % 3)) for index in range(60)))

    assert [tuple(x.shape) for x in asyncio.run(many())] == [(2 + index % 3, 1 + index % 5) for index in range(60)]
