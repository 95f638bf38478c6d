"""What stands for the values of a call that are no tensors: nothing of the user's is constructed or run for it."""

import collections.abc
import enum
import types
import typing
from typing import Any, cast

from ..._annotations.reference import check_plain
from ..._render import describe_annotation
from .._made_up import UnmakeableError

_CALLABLE: Any = collections.abc.Callable
_SAMPLES: dict[Any, Any] = {
    bool: True,
    int: 3,
    float: 1.5,
    complex: 1j,
    str: "text",
    bytes: b"",
    type(None): None,
    None: None,
    Any: None,
    object: None,
}
_EMPTY: dict[Any, Any] = {
    **dict.fromkeys((collections.abc.Mapping, collections.abc.MutableMapping), dict),
    **dict.fromkeys((collections.abc.Set, collections.abc.MutableSet), set),
    **dict.fromkeys((collections.abc.Sequence, collections.abc.MutableSequence, collections.abc.Iterable), list),
    **dict.fromkeys((collections.abc.Collection, collections.abc.Container), list),
}


class Shell:
    """Something that is taken for an object of a class and has nothing but some attributes.

    `isinstance` asks an object for its class.

    Args:
        kind: Class to be taken for.
        attributes: What it has.
    """

    def __init__(self, kind: type, attributes: dict[str, Any]) -> None:
        self.__dict__.update(attributes)
        self.__dict__["__class__"] = kind

    @property
    def __class__(self) -> type:  # pyright: ignore[reportIncompatibleMethodOverride, reportIncompatibleVariableOverride]
        return self.__dict__["__class__"]


def attributes_of(shell: Shell) -> dict[str, Any]:
    """Return what a shell has."""
    return {name: value for name, value in vars(shell).items() if name != "__class__"}


def plain_value(hint: Any) -> Any:
    """Return a value that satisfies a hint without tensors inside.

    Raises:
        UnmakeableError: None is known.
    """
    for value in _candidates(hint):
        if check_plain(hint, value):
            return value
    msg = f"no value is known for {describe_annotation(hint)}"
    raise UnmakeableError(msg)


def _candidates(hint: Any) -> "list[Any]":
    """Return values of which one may satisfy a hint."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in {typing.Union, types.UnionType}:
        return [value for argument in arguments for value in _candidates(argument)]
    if origin is typing.Literal:
        return list(arguments)
    if origin is typing.Annotated:
        return _candidates(arguments[0])
    if origin is tuple:
        items = [_candidates(argument) for argument in arguments if argument is not Ellipsis]
        return [tuple(item[0] for item in items) if all(items) and Ellipsis not in arguments else ()]
    return _of_class(origin or hint)


def _of_class(kind: Any) -> "list[Any]":
    """Return what may stand for an instance of a class, generic or not."""
    if kind in _SAMPLES:
        return [_SAMPLES[kind]]
    if kind in _EMPTY:
        return [_EMPTY[kind]()]
    if kind is _CALLABLE:
        return [plain_value]
    if not isinstance(kind, type):
        return [None]
    if issubclass(kind, enum.Enum):
        return [*kind][:1]
    if kind in {list, tuple, dict, set, frozenset, collections.deque}:
        return [cast("Any", kind)()]
    return [Shell(cast("type[Any]", kind), {})]
