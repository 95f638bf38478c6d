"""Which contracts are defined in a run, and which of them were ever asked: for reports, and only while one is wanted.

Each contract is given a trap, which springs with its first call, says so, and is gone: no later call pays for it, and
without a report there is none. What torch compiles keeps it, and does not look at it again. A recording
(`shapecheck.audit`) knows more, and costs every call.
"""

import functools
from collections.abc import Callable
from typing import Any, cast

from .._observers import definitions
from .._settings import is_tracing


class Exercise:
    """Keeps book of contracts by their qualified names, from `watch` on."""

    def __init__(self) -> None:
        self.defined = set[str]()
        self.exercised = set[str]()

    def watch(self) -> None:
        """Begin with the next definition."""
        definitions.append(self._defined)

    def stop(self) -> None:
        """End."""
        definitions.remove(self._defined)

    def _defined(self, checked: Any, contract: Any) -> None:
        boundary = contract.boundary
        name: str = boundary.place.name
        self.defined.add(name)
        if name in self.exercised:
            return
        compiled: dict[str, Any] = getattr(checked, "__globals__", {})
        places = [
            (boundary.__dict__, "enter", functools.partial(_enter, boundary)),
            *_held(contract.__dict__, "_prove_entry"),  # of a contract that is compiled in part
            *_held(compiled, "_sc_function"),  # what a contract that is compiled as a whole calls when all is well
            *_held(compiled, "_sc_traced"),  # and what it turns to while torch traces it
        ]
        for place in places:
            _Trap(*place).set(lambda: self.exercised.add(name))


def _enter(boundary: Any, *args: Any) -> Any:
    return cast("Any", type(boundary)).enter(boundary, *args)  # which a recording replaces


def _held(namespace: dict[str, Any], name: str) -> list[tuple[dict[str, Any], str, Callable[..., Any]]]:
    return [(namespace, name, namespace[name])] if namespace.get(name) is not None else []


class _Trap:
    """Stands for a function in a namespace until it is called once.

    Args:
        namespace: Where the function is looked up at every call.
        name: Under which name.
        function: The function.
    """

    def __init__(self, namespace: dict[str, Any], name: str, function: Callable[..., Any]) -> None:
        self._namespace = namespace
        self._name = name
        self._function = function

    def set(self, spring: Callable[[], None]) -> None:
        """Call `spring` at the first call."""
        function, namespace, name = self._function, self._namespace, self._name
        before = namespace.get(name)

        def sprung(traced: bool) -> None:
            spring()
            if traced:  # dynamo would miss what it has just traced
                return
            if before is None:  # a method, which is found in the class
                namespace.pop(name, None)
            else:
                namespace[name] = before

        sprung._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]  # noqa: SLF001  # called for real while tracing

        def first(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            sprung(is_tracing())
            return function(*args, **kwargs)

        namespace[name] = first
