"""Objects that hold functions, such as properties and partials, as the functions inside them.

Knows nothing of contracts: takes such an object apart, and puts one like it together from other functions.
"""

import contextlib
import copy
import functools
import inspect
import types
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping
from typing import Any

_ACCESSORS = {"fget": "getter", "fset": "setter", "fdel": "deleter"}
_PARTIALS: Any = (functools.partial, functools.partialmethod)
_BOUND: Any = (staticmethod, classmethod, types.MethodType)
_CACHED = type(functools.cache(len))
_CACHED_PROPERTY: Any = functools.cached_property


def _generator() -> Generator[Any]:
    yield from ()


async def _async_generator() -> AsyncGenerator[Any]:
    for nothing in ():
        yield nothing


_MANAGERS: dict[types.CodeType, Any] = {  # what these decorators return is known by its code
    contextlib.contextmanager(_generator).__code__: contextlib.contextmanager,
    contextlib.asynccontextmanager(_async_generator).__code__: contextlib.asynccontextmanager,
}


def parts(target: Any) -> dict[str, Any]:
    """Return what an object calls, by the attribute it is found under; nothing if it holds no function."""
    if isinstance(target, _BOUND):
        return {"__func__": target.__func__}
    if isinstance(target, property):
        return {name: part for name in _ACCESSORS if (part := getattr(target, name)) is not None}
    if isinstance(target, (_CACHED_PROPERTY, *_PARTIALS)):
        return {"func": target.func}
    if _manager(target) is not None:
        return {"__wrapped__": target.__wrapped__}
    return {}


def rebuild(target: Any, replaced: Mapping[str, Any]) -> Any:
    """Return an object like `target` that calls other functions in place of some of its parts."""
    if isinstance(target, types.MethodType):
        return types.MethodType(replaced["__func__"], target.__self__)
    if isinstance(target, _BOUND):
        return type(target)(replaced["__func__"])
    if isinstance(target, property):
        for name, part in replaced.items():
            target = getattr(target, _ACCESSORS[name])(part)
        return target
    if isinstance(target, _PARTIALS):
        return type(target)(replaced["func"], *target.args, **target.keywords)
    if isinstance(target, _CACHED_PROPERTY):
        changed = copy.copy(target)
        changed.func = replaced["func"]
        return changed
    return _manager(target)(replaced["__wrapped__"])


def _manager(target: Any) -> Any:
    """Return the decorator of `contextlib` that made a function, if one did."""
    return _MANAGERS.get(target.__code__) if inspect.isfunction(target) and hasattr(target, "__wrapped__") else None


def is_callable_like_a_function(target: Any) -> bool:
    """Tell whether something is a function, or one with a cache in front of it."""
    return inspect.isfunction(target) or isinstance(target, _CACHED)


def functions_in(target: Any) -> Iterator[Any]:
    """Yield the functions that an object is made of; `target` itself if it is one."""
    inner = parts(target)
    for part in inner.values():
        yield from functions_in(part)
    if not inner and is_callable_like_a_function(target):
        yield target
