"""Puts contracts on functions, methods and modules. Imported with the first boundary that is defined, never when off."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, cast

from . import _records
from ._boundary import Boundary, Verdict
from ._compile import compile_function
from ._diagnose import Place
from ._location import caller_frame, location_of
from ._settings import Mode, engine, is_tracing, mode_at_call, mode_at_definition
from ._structure import Builder, Node, Visit, resolve_hints
from ._tracing import TracedContractError, run_while_tracing
from .axes import Axes, axes_of
from .errors import ContractDefinitionError, ContractError


def guard(target: Any, ties: Mapping[str, str], axes: Axes | None) -> Any:
    """Put a contract on a function, a method or a class.

    Raises:
        ContractDefinitionError: The contract cannot mean anything.
    """
    if type(target) in {staticmethod, classmethod}:
        return type(target)(guard(target.__func__, ties, axes))
    if not inspect.isfunction(target) and not isinstance(target, type):
        msg = f"Expected a function, a method or a class, got {target!r}."
        raise ContractDefinitionError(msg)
    registry = axes if axes is not None else axes_of(target.__module__)
    if _records.is_record(target):
        return _records.guard_record(target, ties, registry)
    if isinstance(target, type):
        return _guard_module(target, ties, registry)
    return _guard_function(target, ties, registry)


def _guard_module(target: type, ties: Mapping[str, str], axes: Axes | None) -> type:
    """Put the contract of an `nn.Module` on its ``forward``."""
    if not any(f"{base.__module__}.{base.__name__}" == "torch.nn.modules.module.Module" for base in target.__mro__):
        msg = (
            f"Expected {target.__qualname__} to be an nn.Module, a dataclass, a NamedTuple or a TypedDict. "
            "Put @contract above @dataclass, or on the methods of any other class."
        )
        raise ContractDefinitionError(msg)
    forward = vars(target).get("forward")
    if not inspect.isfunction(forward):
        msg = f"Expected {target.__qualname__} to define forward."
        raise ContractDefinitionError(msg)
    target.forward = _guard_function(forward, ties, axes)  # pyright: ignore[reportAttributeAccessIssue]
    return target


def _guard_function(function: Callable[..., Any], ties: Mapping[str, str], axes: Axes | None) -> Callable[..., Any]:
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        msg = f"{function.__qualname__} is a generator; what a generator yields cannot be checked."
        raise ContractDefinitionError(msg)
    guard = _FunctionGuard(function, ties, axes)
    judged = guard.wrap_coroutine() if inspect.iscoroutinefunction(function) else guard.wrap()
    compiled = guard.compile(judged) if engine() == "compiled" else None
    return compiled or judged


class _FunctionGuard:
    """The contract of one function."""

    def __init__(self, function: Callable[..., Any], ties: Mapping[str, str], axes: Axes | None) -> None:
        hints = resolve_hints(function, function.__annotations__, caller_frame().f_locals)
        if not hints:
            msg = f"{function.__qualname__} has no annotations: there is nothing to check."
            raise ContractDefinitionError(msg)
        builder = Builder(caller_frame().f_locals)
        nodes = {name: builder.node(hint, f"{name!r} of {function.__qualname__}") for name, hint in hints.items()}
        place = Place(f"{function.__module__}.{function.__qualname__}", location_of(function))
        self._function = function
        self._ties = ties
        self._signature = inspect.signature(function)
        self._mode: Mode = mode_at_definition()
        self._boundary = Boundary(place, nodes, ties, axes, self._signature.parameters)
        self._judge_traced = run_while_tracing(self._judge)

    def compile(self, judged: Callable[..., Any]) -> Callable[..., Any] | None:
        """Return a function that proves calls good by itself and leaves the others to `judged`, if there can be one."""
        judge_traced, leave = self._judge_traced, self._leave_compiled

        def doubt(result: Any, arguments: dict[str, Any], sizes: dict[str, Any]) -> Any:
            __tracebackhide__ = True
            if is_tracing():
                judge_traced(arguments, result, True)
                return result
            error = leave(result, arguments, sizes)
            if error is not None:
                raise error
            return result

        return compile_function(self._function, self._signature, self._boundary.nodes, self._ties, judged, doubt)

    def wrap(self) -> Callable[..., Any]:
        """Return the function checked by the reference engine."""
        function, enter, leave, judge_traced = self._function, self._enter, self._leave, self._judge_traced

        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            if is_tracing():
                judge_traced((args, kwargs), None, False)
                result = function(*args, **kwargs)
                judge_traced((args, kwargs), result, True)
                return result
            entered = enter(args, kwargs)
            if entered.error is not None:
                raise entered.error
            result = function(*args, **kwargs)
            error = leave(entered, result)
            if error is not None:
                raise error
            return result

        return checked

    def wrap_coroutine(self) -> Callable[..., Any]:
        """Return the coroutine function checked by the reference engine; tasks cannot mix, the scope is a local."""
        function, enter, leave = self._function, self._enter, self._leave

        @functools.wraps(function)
        async def checked(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            entered = enter(args, kwargs)
            if entered.error is not None:
                raise entered.error
            result = await function(*args, **kwargs)
            error = leave(entered, result)
            if error is not None:
                raise error
            return result

        return checked

    def _enter(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Verdict:
        """Judge the arguments of a call; one that Python itself is about to refuse is left to Python."""
        mode = mode_at_call(self._mode)
        arguments = None if mode == "off" else _bind(self._signature, args, kwargs)
        if arguments is None:
            return Verdict([], None)
        visits = _argument_visits(self._signature, self._boundary.nodes, arguments)
        return self._boundary.enter(arguments, visits, mode)

    def _leave(self, entered: Verdict, result: Any) -> ContractError | None:
        """Judge the result of a call whose arguments were judged; nothing if they were not."""
        mode = mode_at_call(self._mode)
        if not entered.scopes or mode == "off":
            return None
        return self._boundary.leave(entered, _return_visits(self._boundary.nodes, result), mode).error

    def _leave_compiled(self, result: Any, arguments: dict[str, Any], sizes: dict[str, Any]) -> ContractError | None:
        """Judge a result that the compiled contract could not prove good."""
        visits = _argument_visits(self._signature, self._boundary.nodes, arguments)
        return self._leave(self._boundary.reenter(arguments, visits, sizes), result)

    def _judge(self, call: Any, result: Any, returned: bool) -> None:
        """Judge a call, or its result, while it is being traced.

        Raises:
            TracedContractError: The contract is broken.
        """
        boundary, signature, mode = self._boundary, self._signature, mode_at_call(self._mode)
        arguments = cast("dict[str, Any] | None", call if type(call) is dict else _bind(signature, *call))
        if mode == "off" or arguments is None:
            return
        verdict = boundary.enter(arguments, _argument_visits(signature, boundary.nodes, arguments), mode)
        if returned:
            verdict = boundary.leave(verdict, _return_visits(boundary.nodes, result), mode)
        if verdict.error is not None:
            raise TracedContractError(str(verdict.error), verdict.error.violations)


def _bind(signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any] | None:
    """Return the arguments by name, defaults included; None for a call that Python itself is about to refuse."""
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError:
        return None
    bound.apply_defaults()
    return bound.arguments


def _argument_visits(signature: inspect.Signature, nodes: Mapping[str, Node], arguments: dict[str, Any]) -> list[Visit]:
    visits: list[Visit] = []
    for name, value in arguments.items():
        if name not in nodes:
            continue
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            visits += [(f"{name}[{index}]", item, nodes[name]) for index, item in enumerate(value)]
        elif kind is inspect.Parameter.VAR_KEYWORD:
            visits += [(f"{name}[{key!r}]", item, nodes[name]) for key, item in value.items()]
        else:
            visits.append((name, value, nodes[name]))
    return visits


def _return_visits(nodes: Mapping[str, Node], result: Any) -> list[Visit]:
    return [("return", result, nodes["return"])] if "return" in nodes else []
