"""What the decorators of a rewritten module do when it is executed: put a contract on what can have one, list the rest."""

import functools
import inspect
import sys
import threading
import types
import typing
import warnings
from collections.abc import Callable, Generator
from typing import Any

from .._annotations.declared import mentions_tensor
from .._annotations.resolve import resolve_hints
from .._boundaries.contract import contract
from .._boundaries.records import guard_record, is_record
from ..axes import axes_of
from ..errors import ContractDefinitionError, ContractWarning
from .listing import Listed, Outcome, listing

_SCRIPT = ("torch.jit", "torch._jit_internal")
_NOTHING = "no tensor is annotated"


class Applied:
    """The decorators of one module, which finds them under the name ``__shapecheck__``.

    Args:
        module: Name of the module.
        unannotated: Qualified names and lines of the functions that have no annotation at all.
        is_cell: Whether it is one of many parts of the module, as the cells of a notebook are.
    """

    def __init__(self, module: str, unannotated: tuple[tuple[str, int], ...], is_cell: bool) -> None:
        self._module = module
        self._local = threading.local()
        self._deferred: list[_Deferred] = []
        self._waiting: list[type] = []
        self._plain = set[types.CodeType]()
        self._left: dict[str, str] = {}  # classes whose methods are left alone, and why
        if not is_cell:
            listing.forget(module)
        for name, line in unannotated:
            self.note(name, line, "nothing to check", "it has no annotations")

    def note(self, name: str, line: int, outcome: Outcome, reason: str = "") -> None:
        """List what became of something in the module."""
        listing.add(Listed(self._module, name, line, outcome, reason))

    # --- decorators ------------------------------------------------------------------------------
    @property
    def _stack(self) -> list[Any]:
        """The decorators that were evaluated and not applied yet, in this thread."""
        stack: list[Any] | None = getattr(self._local, "stack", None)
        if stack is None:
            stack = self._local.stack = []
        return stack

    def seen(self, decorator: Any) -> Any:
        """Remember a decorator that is about to be applied, and return it."""
        self._stack.append(decorator)
        return decorator

    def function(self, count: int) -> Callable[[Any], Any]:
        """Return what decorates a function to which `count` other decorators are applied afterwards."""
        return functools.partial(self._decorate, self._taken(count))

    def _taken(self, count: int) -> list[Any]:
        """Take the decorators that were evaluated last."""
        stack = self._stack
        decorators = stack[len(stack) - count :]
        del stack[len(stack) - count :]
        return decorators

    def _decorate(self, decorators: list[Any], function: types.FunctionType) -> Any:
        code = function.__code__
        if code in self._plain:  # the body of a function is executed often
            return function
        classes = [name for name in self._left if function.__qualname__.startswith(f"{name}.")]
        reason = self._left[classes[0]] if classes else _left_alone(decorators)
        if reason is not None:
            return self._leave(function, "left alone", reason)
        hints = _resolved(function)
        if function.__annotations__.keys() > hints.keys() and not inspect.isasyncgenfunction(function):
            return self._defer(function)
        return self.define(function, hints)

    def _leave(self, function: types.FunctionType, outcome: Outcome, reason: str) -> Any:
        self._plain.add(function.__code__)
        self.note(function.__qualname__, function.__code__.co_firstlineno, outcome, reason)
        return function

    def define(self, function: types.FunctionType, hints: dict[str, Any]) -> Any:
        """Return the function under contract; the function itself if it cannot have one.

        Args:
            function: The function.
            hints: Those of its annotations that can be resolved.
        """
        if function.__annotations__.keys() == hints.keys() and not any(map(mentions_tensor, hints.values())):
            return self._leave(function, "nothing to check", _NOTHING)
        line = function.__code__.co_firstlineno
        try:
            checked = contract(function)
        except ContractDefinitionError as error:
            self.note(function.__qualname__, line, "refused", str(error))
            return function
        if checked is function:
            return self._leave(function, "left alone", "checking was off when it was defined")
        self.note(function.__qualname__, line, "contracted")
        return checked

    def _defer(self, function: types.FunctionType) -> Any:
        """Return a function that gets its contract as soon as the names in its annotations exist."""
        deferred = _Deferred(self, function)
        if "<locals>" not in function.__qualname__:
            self._deferred.append(deferred)
        return deferred.stand_in()

    # --- classes ---------------------------------------------------------------------------------
    def body(self, count: int, name: str) -> Callable[[Any], Any]:
        """Look at the decorators of a class before its body is executed; return a decorator that does nothing."""
        reason = _left_alone(self._taken(count))
        if reason is not None:
            self._left[name] = reason
        return _itself

    def record(self, kind: Any) -> Any:
        """Put a contract on a class, after everything else was applied to it, if it is a record."""
        if not isinstance(kind, type) or kind.__qualname__ in self._left or not is_record(kind):
            return kind
        is_complete = inspect.get_annotations(kind).keys() == _resolved(kind).keys()
        if not is_complete and "<locals>" not in kind.__qualname__:
            self._waiting.append(kind)
        else:
            self._define_record(kind)
        return kind

    def _define_record(self, kind: type) -> None:
        """Put a contract on the fields of a record, which stays the same class."""
        line = _line_of(kind)
        try:
            has_tensors = mentions_tensor(kind) and guard_record(kind, {}, axes_of(kind.__module__))
        except ContractDefinitionError as error:
            self.note(kind.__qualname__, line, "refused", str(error))
            return
        outcome: Outcome = "contracted" if has_tensors else "nothing to check"
        self.note(kind.__qualname__, line, outcome, "" if has_tensors else _NOTHING)

    # --- the end of the module -------------------------------------------------------------------
    def finish(self) -> None:
        """Define what had to wait for names, and warn of what is not checked."""
        for kind in self._waiting:
            self._define_record(kind)
        for deferred in self._deferred:
            deferred.settle()
        waiting = {deferred.place for deferred in self._deferred if not deferred.is_settled}
        refused = [
            listed
            for listed in listing
            if listed.module == self._module and listed.outcome == "refused" and listed.name not in waiting
        ]
        if refused:
            first = min(refused, key=lambda listed: listed.line)
            text = (
                f"{len(refused)} of the functions and classes of {self._module} that are annotated with tensors are not "
                f"checked (shapecheck.hook_report() lists them), the first being {first.name}: {first.reason}"
            )
            self.warn(text, first.line)

    def warn(self, text: str, line: int) -> None:
        """Warn at a line of the module."""
        file = getattr(sys.modules.get(self._module), "__file__", None)
        warnings.warn_explicit(text, ContractWarning, file or f"<{self._module}>", line)


def _resolved(target: Any) -> dict[str, Any]:
    """Return the annotations of a function or class that can be resolved by now."""
    return resolve_hints(target, inspect.get_annotations(target), _always)


def _itself(target: Any) -> Any:
    return target


def _always(name: str, hint: Any) -> bool:
    del name, hint
    return True


# --- what is left alone -----------------------------------------------------------------------------
def _left_alone(decorators: list[Any]) -> str | None:
    """Return why a function gets no contract of ours, given what is applied to it; None if it does."""
    for decorator in decorators:
        module = getattr(decorator, "__module__", None) or ""
        if decorator is typing.no_type_check:
            return "typing.no_type_check says so"
        if decorator is typing.overload:
            return "an overload is an alternative of the function that follows it, and checked there"
        if _is_contract(decorator):
            return "@contract is on it, or on its class"
        if module in _SCRIPT or module.startswith("torch.jit."):
            return f"torch.jit compiles its source ({decorator.__name__}): nothing is checked inside"
    return None


def _is_contract(decorator: Any) -> bool:
    """Tell whether a decorator is `contract`, with or without arguments."""
    function = decorator.func if isinstance(decorator, functools.partial) else decorator
    return getattr(function, "__module__", "") == contract.__module__


def _line_of(kind: type) -> int:
    try:
        return inspect.getsourcelines(kind)[1]
    except (OSError, TypeError):
        return 0


# --- functions whose annotations name what does not exist yet ---------------------------------------
class _Deferred:
    """A function that waits for the names in its annotations; what stands for it calls whatever it has become."""

    def __init__(self, applied: Applied, function: types.FunctionType) -> None:
        self._applied = applied
        self._function = function
        self.is_settled = False
        self.call: Callable[..., Any] = self._first

    @property
    def place(self) -> str:
        """Qualified name of the function."""
        return self._function.__qualname__

    def stand_in(self) -> Any:
        """Return a function of the same kind that does the same."""

        async def waits(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            return await self.call(*args, **kwargs)

        def yields(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            __tracebackhide__ = True
            iterated: Generator[Any, Any, Any] = self.call(*args, **kwargs)
            return (yield from iterated)

        def returns(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            return self.call(*args, **kwargs)

        is_generator = inspect.isgeneratorfunction(self._function)
        plain: Callable[..., Any] = yields if is_generator else returns
        return functools.wraps(self._function)(waits if inspect.iscoroutinefunction(self._function) else plain)

    def settle(self) -> None:
        """Define the contract, if the names exist by now."""
        hints = _resolved(self._function)
        checked = self._applied.define(self._function, hints)
        if self._function.__annotations__.keys() == hints.keys():
            self.is_settled = True
            self.call = checked

    def _first(self, *args: Any, **kwargs: Any) -> Any:
        """Settle it at the first call for good, and say so if it stays unchecked."""
        __tracebackhide__ = True
        self.settle()
        if not self.is_settled:
            self.is_settled = True
            self.call = self._function
            found = [listed for listed in listing if listed.name == self.place and listed.outcome == "refused"]
            reason = found[-1].reason if found else ""
            self._applied.warn(f"{self.place} is not checked: {reason}", self._function.__code__.co_firstlineno)
        return self.call(*args, **kwargs)
