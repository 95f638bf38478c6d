"""A contract as straight-line Python: one function per contract, which accepts what it can prove good.

The generated function has the signature of the function it guards, reads ``shape`` and ``dtype`` of each tensor once
and compares integers. Whatever it cannot prove good goes, unchanged, to the reference engine: it never rejects.

While torch traces, sizes can be symbols, and what they are may show only when the graph runs. For that the contract
has a second variant, written when a tracer first asks for it, which leaves such comparisons to the graph.
"""

import collections.abc
import functools
import inspect
import itertools
import linecache
import sys
import types
import typing
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from .._annotations.nodes import Node
from .._observers import traces
from .._settings import state
from ..axes import Sizes
from .emit import Emitter
from .tracing import size_comparisons, undecided
from .writer import NotCompilableError

NOTED = (RuntimeError, ValueError, IndexError)  # what torch and NumPy raise about shapes
_serial = itertools.count()


def _nothing(*values: Any) -> None:
    del values


class Exits(NamedTuple):
    """Where a compiled contract turns to.

    Attributes:
        slow: Called with the arguments, instead of the function, when they could not be proved good.
        leave: Called with the result, the arguments by name and the dims that they bound, when the result could not
            be proved good.
        note: Called with an error of the body, the arguments by name and the dims that they bound.
        crossed: Called with the arguments by name and what they were accepted for: None, or the result.
    """

    slow: Callable[..., Any]
    leave: Callable[..., Any]
    note: Callable[..., None] = _nothing
    crossed: Callable[..., None] | None = None


def compile_function(
    function: Callable[..., Any],
    signature: inspect.Signature,
    nodes: Mapping[str, Node],
    ties: Mapping[str, str],
    limits: Mapping[str, Sizes],
    exits: Exits,
) -> Callable[..., Any] | None:
    """Return a function that checks a call as fast as asserts would; None when the contract cannot be compiled.

    Args:
        function: What to call.
        signature: Its signature.
        nodes: What its parameters and its result (``return``) must be.
        ties: Expressions that dims are tied to.
        limits: Sizes that dims may have.
        exits: Where to turn to with what could not be proved good.
    """
    try:
        source, constants = Emitter(function, signature, nodes, ties, limits, records=exits.crossed is not None).emit()
    except NotCompilableError:
        return None
    filename = f"<contract {function.__module__}.{function.__qualname__} #{next(_serial)}>"
    namespace: dict[str, Any] = {  # without __name__, because dynamo looks globals up in the module that it names
        "_sc_function": function,
        "_sc_slow": exits.slow,
        "_sc_leave": exits.leave,
        "_sc_note": exits.note,
        "_sc_noted": NOTED,
        "_sc_crossed": exits.crossed,
        "_sc_state": state,
        **constants,
    }
    if "_sc_traced" in source:
        variant = functools.partial(Emitter, function, signature, nodes, ties, limits, symbolic=True)
        namespace["_sc_seen"] = _teller(f"{function.__module__}.{function.__qualname__}")
        namespace |= _later(namespace, filename.replace(">", ", traced>"), variant)
    checked: Any = functools.wraps(function)(_define(source, filename, namespace)["_sc_checked"])
    checked.__contract_source__ = source
    return checked


def compile_acceptor(
    nodes: Mapping[str, Node],
    names: Iterable[str],
    ties: Mapping[str, str],
    limits: Mapping[str, Sizes],
    crossed: Callable[..., None] | None = None,
    name: tuple[str, str] | None = None,
) -> Callable[..., bool] | None:
    """Return a function of some values that is true when they can be proved good; None when it cannot be compiled.

    Args:
        nodes: What the values must be.
        names: Its parameters, in order.
        ties: Expressions over the parameters that dims are tied to.
        limits: Sizes that dims may have.
        crossed: Called with the values by name, and None, when they were proved good.
        name: Module and name of who declares the kinds of the values, as errors say it.
    """
    yes = _yes
    if name is not None:
        yes = types.FunctionType(_yes.__code__, {}, name[1])
        yes.__module__, yes.__qualname__ = name
    signature = inspect.Signature([inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in names])
    return compile_function(yes, signature, nodes, ties, limits, Exits(_no, _no, crossed=crossed))


def _yes(*values: Any) -> bool:
    del values
    return True


def _no(*values: Any) -> bool:
    del values
    return False


def _define(source: str, filename: str, namespace: dict[str, Any]) -> dict[str, Any]:
    """Execute a source in a namespace; tracebacks and debuggers can show its lines as long as it lives."""
    linecache.cache[filename] = (len(source), None, typing.cast("list[str]", _Lines(source)), filename)
    exec(compile(source, filename, "exec"), namespace)  # noqa: S102  # written by `_emit`, from annotations
    functions = [value for value in namespace.values() if getattr(value, "__globals__", None) is namespace]
    weakref.finalize(functions[0], linecache.cache.pop, filename, None)
    return namespace


# --- the variant for symbolic sizes ---------------------------------------------------------------
def _later(namespace: Mapping[str, Any], filename: str, emitter: Callable[[], Emitter]) -> dict[str, Any]:
    """Return functions that stand for those of the variant, which is written when one of them is called first."""
    stubs: dict[str, Any] = {"__builtins__": __builtins__}  # dynamo looks there

    def write() -> None:
        if "_sc_variant" in stubs:
            return
        source, constants = emitter().emit()
        variant = _define(source, filename, {**namespace, **constants, **size_comparisons()})
        stubs["_sc_variant"] = variant["_sc_traced"]
        stubs["_sc_variant_result"] = variant.get("_sc_traced_result")

    write._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]  # noqa: SLF001
    stubs["_sc_write"] = write
    return {
        "_sc_is_traced": sys.modules["torch"].compiler.is_dynamo_compiling,
        "_sc_undecided": undecided,
        "_sc_traced": types.FunctionType(_traced.__code__, stubs),
        "_sc_traced_result": types.FunctionType(_traced_result.__code__, stubs),
    }


def _teller(name: str) -> Callable[[], None]:
    """Return a function that tells, while a graph is traced, that a contract is part of it."""

    def tell() -> None:
        for observe in traces:
            observe(name)

    tell._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]  # noqa: SLF001  # called for real
    return tell


def _traced(*args: Any, **kwargs: Any) -> Any:
    __tracebackhide__ = True
    _sc_write()  # type: ignore[name-defined]  # noqa: F821
    return _sc_variant(*args, **kwargs)  # type: ignore[name-defined]  # noqa: F821


def _traced_result(*values: Any) -> Any:
    __tracebackhide__ = True
    _sc_write()  # type: ignore[name-defined]  # noqa: F821
    return _sc_variant_result(*values)  # type: ignore[name-defined]  # noqa: F821


class _Lines(collections.abc.Sequence[str]):
    """The lines of a source, split when a traceback is printed: a list of them would hold more than all the rest."""

    __slots__ = ("_source",)

    def __init__(self, source: str) -> None:
        self._source = source

    def __len__(self) -> int:
        return self._source.count("\n")

    @typing.overload
    def __getitem__(self, index: int) -> str: ...
    @typing.overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        return self._source.splitlines(keepends=True)[index]
