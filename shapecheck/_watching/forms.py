"""What a value looks like from outside: library, dtype and shape of arrays, kinds of containers and plain values.

A form holds no tensor and reads no element; it can be compared, counted and written to a file.
"""

import dataclasses
import sys
from collections.abc import Iterable, Mapping
from typing import Any, cast

from .._render import dtype_name

_PLAIN = (bool, int, float, complex, str, bytes)  # the first that fits: a bool is an int as well
_MOST_POSITIONS = 8
_ARRAYS = {"Tensor": ("torch", "Tensor"), "ndarray": ("numpy", "ndarray")}


class UnreadableError(Exception):
    """A value has no definite form, as a tensor with symbolic sizes."""


@dataclasses.dataclass(frozen=True)
class ArrayForm:
    """An array.

    Attributes:
        kind: ``Tensor`` or ``ndarray``.
        dtype: Name, the same for all libraries.
        shape: Sizes.
    """

    kind: str
    dtype: str
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class PlainForm:
    """Anything that holds no array.

    Attributes:
        kind: Name of a builtin class, ``None``, or ``object`` for what nothing is known of.
        value: The value of an int that is a parameter.
    """

    kind: str
    value: int | None = None


@dataclasses.dataclass(frozen=True)
class SequenceForm:
    """A list or tuple.

    Attributes:
        kind: ``list`` or ``tuple``.
        items: The forms of the items by position, or the distinct ones among them.
        is_positional: Whether they are by position.
    """

    kind: str
    items: tuple["Form", ...]
    is_positional: bool


@dataclasses.dataclass(frozen=True)
class MappingForm:
    """A dict.

    Attributes:
        keys: Kinds of the keys, sorted.
        items: The distinct forms among the values.
    """

    keys: tuple[str, ...]
    items: tuple["Form", ...]


Form = ArrayForm | PlainForm | SequenceForm | MappingForm


def form_of(value: Any, *, with_value: bool = True) -> Form:
    """Return the form of a value.

    Args:
        value: Anything.
        with_value: Whether to keep the value of an int.

    Raises:
        UnreadableError: A size is not a number.
    """
    if value is None:
        return PlainForm("None")
    plain = next((kind for kind in _PLAIN if isinstance(value, kind)), None)
    if plain is not None:
        return PlainForm(plain.__name__, cast("int", value) if plain is int and with_value else None)
    return _array_form(value) or _container_form(value)


def _array_form(value: Any) -> ArrayForm | None:
    kind = _array_kind(value)
    return None if kind is None else ArrayForm(kind, dtype_name(value.dtype), _shape(value))


def _array_kind(value: Any) -> str | None:
    """Return which kind of array a value is; libraries that nobody has imported are not."""
    for kind, (module, name) in _ARRAYS.items():
        library = sys.modules.get(module)
        if library is not None and isinstance(value, getattr(library, name)):
            return kind
    return None


def _shape(value: Any) -> tuple[int, ...]:
    try:
        shape = tuple(value.shape)
    except RuntimeError:  # of a nested tensor, whose sizes are several
        raise UnreadableError from None
    if any(type(size) is not int for size in shape):
        raise UnreadableError
    return shape


def _container_form(value: Any) -> Form:
    if isinstance(value, tuple) and not hasattr(cast("Any", value), "_fields"):  # a NamedTuple is a class of its own
        items = cast("tuple[Any, ...]", value)
        is_short = len(items) <= _MOST_POSITIONS
        return SequenceForm("tuple", tuple(map(_item, items)) if is_short else _distinct(items), is_short)
    if isinstance(value, list):
        return SequenceForm("list", _distinct(cast("list[Any]", value)), is_positional=False)
    if isinstance(value, dict):
        named = cast("Mapping[Any, Any]", value)
        return MappingForm(tuple(sorted({kind_of(_item(key)) for key in named})), _distinct(named.values()))
    return PlainForm("object")


def _item(value: Any) -> Form:
    return form_of(value, with_value=False)


def _distinct(values: Iterable[Any]) -> tuple[Form, ...]:
    return tuple(dict.fromkeys(map(_item, values)))


def kind_of(form: Form) -> str:
    """Return the kind of a plain value, ``object`` for anything else."""
    return form.kind if isinstance(form, PlainForm) else "object"


def without_values(form: Form) -> Form:
    """Return the form of an int whose value is of no interest, any other as it is."""
    return PlainForm(form.kind) if isinstance(form, PlainForm) else form


# --- as JSON ------------------------------------------------------------------------------------------
def encoded(form: Form) -> list[Any]:
    """Return a form as lists, strings and numbers."""
    if isinstance(form, ArrayForm):
        return ["array", form.kind, form.dtype, list(form.shape)]
    if isinstance(form, PlainForm):
        return ["plain", form.kind, form.value]
    items = [encoded(item) for item in form.items]
    if isinstance(form, SequenceForm):
        return ["sequence", form.kind, items, form.is_positional]
    return ["mapping", list(form.keys), items]


def decoded(data: list[Any]) -> Form:
    """Return the form that `encoded` was given."""
    tag, first, *rest = data
    if tag == "array":
        return ArrayForm(first, rest[0], tuple(rest[1]))
    if tag == "plain":
        return PlainForm(first, rest[0])
    items = tuple(decoded(item) for item in rest[0])
    return SequenceForm(first, items, rest[1]) if tag == "sequence" else MappingForm(tuple(first), items)
