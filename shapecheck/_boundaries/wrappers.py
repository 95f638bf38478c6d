"""Functions under their contract: the code that runs in place of a function, one kind for each kind of function."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from .._compiler.compile import NOTED, Exits, compile_function
from .._settings import engine, is_tracing
from .function import FunctionContract
from .generators import wrap_async_generator, wrap_generator
from .overloads import OverloadedContract


def wrapped(contract: FunctionContract) -> Callable[..., Any]:
    """Return the function under its contract, compiled if it can be."""
    function = contract.function
    if inspect.isgeneratorfunction(function):
        return wrap_generator(contract)
    if inspect.isasyncgenfunction(function):
        return wrap_async_generator(contract)
    judged = _wrap_coroutine(contract) if inspect.iscoroutinefunction(function) else _wrap(contract)
    can_compile = engine() == "compiled" and not isinstance(contract, OverloadedContract)
    return (_compile(contract, judged) if can_compile else None) or judged


def _compile(contract: FunctionContract, judged: Callable[..., Any]) -> Callable[..., Any] | None:
    """Return a function that proves calls good by itself and leaves the others to `judged`, if there can be one."""
    judge_traced, judge = contract.judge_traced, contract.doubt

    def doubt(result: Any, arguments: dict[str, Any], sizes: dict[str, Any]) -> Any:
        __tracebackhide__ = True
        if is_tracing():
            judge_traced(arguments, result, True)
            return result
        error = judge(result, arguments, sizes)
        if error is not None:
            raise error from None
        return result

    exits = Exits(judged, doubt, contract.note_compiled, contract.crossed if contract.mode == "strict" else None)
    return compile_function(
        contract.function, contract.signature, contract.boundary.nodes, contract.ties, contract.boundary.limits, exits
    )


def _wrap(contract: FunctionContract) -> Callable[..., Any]:
    """Return the function checked by the reference engine."""
    function, enter, leave, note = contract.function, contract.enter, contract.leave, contract.note
    enter_traced, leave_traced = contract.enter_traced, contract.leave_traced

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        if is_tracing():
            call, (held_args, held_kwargs) = enter_traced(args, kwargs)
            return leave_traced(call, function(*held_args, **held_kwargs))
        entered = enter(args, kwargs)
        if entered.before.error is not None:
            raise entered.before.error from None
        try:
            result = function(*entered.call[0], **entered.call[1])
        except NOTED as error:
            note(error, entered.before)
            raise
        finally:
            entered.before.is_over = True
        left = leave(entered, result)
        if left.error is not None:
            raise left.error from None
        return left.result

    return checked


def _wrap_coroutine(contract: FunctionContract) -> Callable[..., Any]:
    """Return the coroutine function checked by the reference engine; tasks cannot mix, the scope is a local."""
    function, enter, leave, note = contract.function, contract.enter, contract.leave, contract.note

    @functools.wraps(function)
    async def checked(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        entered = enter(args, kwargs)
        if entered.before.error is not None:
            raise entered.before.error from None
        try:
            result = await function(*entered.call[0], **entered.call[1])
        except NOTED as error:
            note(error, entered.before)
            raise
        finally:
            entered.before.is_over = True
        left = leave(entered, result)
        if left.error is not None:
            raise left.error from None
        return left.result

    return checked
