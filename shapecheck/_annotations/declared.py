"""What a class declares: the fields of records of every kind, and the tensors among the attributes of other classes.

attrs, pydantic and tensorclass are known by what they leave on a class; none of them is ever imported.
"""

import dataclasses
import inspect
import re
import sys
import types
import typing
from collections.abc import Iterator
from typing import Any, NamedTuple

from .resolve import alias_value, bases_with_arguments, is_alias, resolve_hints, strip_qualifiers, substitute

_WITHOUT_TENSORS = sys.stdlib_module_names | {"beartype", "jaxtyping", "numpy", "torch"}  # none in their annotations
_SHAPE_STRING = re.compile(r"\[[^\]]*['\"]")  # Float32[Tensor, "h w"], as text


class Declared(NamedTuple):
    """One annotation in the body of a class.

    Attributes:
        hint: What the value must be.
        qualifiers: Names of what stood around it, such as ``NotRequired`` or ``ClassVar``.
    """

    hint: Any
    qualifiers: frozenset[str]


def is_tensor_annotation(hint: Any) -> bool:
    """Tell whether a hint is a jaxtyping array annotation such as ``Float32[Tensor, "b c"]``."""
    return isinstance(hint, type) and hasattr(hint, "dim_str") and hasattr(hint, "index_variadic")


def is_typed_dict(hint: Any) -> bool:
    """Tell whether a class is a TypedDict, that of typing or that of typing_extensions."""
    return hasattr(hint, "__required_keys__") and isinstance(hint, type) and dict in hint.__mro__


def is_named_tuple(hint: Any) -> bool:
    """Tell whether a class is a NamedTuple."""
    return isinstance(hint, type) and tuple in hint.__mro__ and hasattr(hint, "_fields")


def field_names(kind: Any) -> dict[str, Any] | None:
    """Return the fields of a record class that is no TypedDict, each with its type where the class keeps one.

    Returns:
        None for a class that is no record.
    """
    if is_named_tuple(kind):
        return dict.fromkeys(kind._fields, Any)
    if "__attrs_attrs__" in kind.__dict__ or hasattr(kind, "__attrs_attrs__"):
        return {field.name: field.type for field in kind.__attrs_attrs__}
    if hasattr(kind, "__pydantic_fields__"):
        return {name: field.annotation for name, field in kind.__pydantic_fields__.items()}
    if hasattr(kind, "__dataclass_fields__"):
        return {field.name: field.type for field in dataclasses.fields(kind)}
    return None


def declared(kind: Any, arguments: tuple[Any, ...] = (), *, lenient: bool = False) -> dict[str, Declared]:
    """Return every annotation in the body of a class and of its bases, resolved where it was written.

    Args:
        kind: A class.
        arguments: What it is subscripted with, if it is generic.
        lenient: Leave out what cannot be resolved, of any class, unless it looks like a tensor.

    Raises:
        ContractDefinitionError: A field of a record cannot be resolved, or anything that looks like a tensor. Most
            other annotations in class bodies are not meant to be evaluated.
    """
    found: dict[str, Declared] = {}
    fields = field_names(kind) or {}

    def may_skip(name: str, hint: Any) -> bool:
        is_field = name in fields or is_typed_dict(kind)
        return (lenient or not is_field) and not (isinstance(hint, str) and _SHAPE_STRING.search(hint))

    for base, filled in bases_with_arguments(kind, arguments):
        foreign = base.__module__.partition(".")[0] in _WITHOUT_TENSORS
        hints = {} if foreign else dict(inspect.get_annotations(base))
        if base is kind:
            hints = {**{name: hint for name, hint in fields.items() if name not in found}, **hints}
        for name, hint in resolve_hints(base, hints, may_skip).items() if hints else ():
            bare, qualifiers = strip_qualifiers(hint)
            found[name] = Declared(substitute(bare, filled), qualifiers)
    return found


def mentions_tensor(hint: Any) -> bool:
    """Tell whether a value that satisfies a hint has annotated tensors inside it, however deep."""
    pending, seen = [hint], dict[int, Any]()
    while pending:
        current = pending.pop()
        if is_tensor_annotation(current):
            return True
        if id(current) not in seen:
            seen[id(current)] = current  # keeps it, and with it its id
            pending.extend(_inside(current))
    return False


def _inside(hint: Any) -> Iterator[Any]:
    """Yield the hints that another one is made of."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, list):  # the parameters of a Callable
        yield from typing.cast("list[Any]", hint)
    elif isinstance(hint, typing.TypeVar):
        yield from (hint.__bound__, *hint.__constraints__)
    elif is_alias(hint):
        yield alias_value(hint)
    elif isinstance(hint, typing.NewType):
        yield hint.__supertype__
    elif isinstance(origin, type) and arguments and origin is not types.UnionType:
        yield from arguments
        yield from (item.hint for item in declared(origin, arguments, lenient=True).values())
    elif arguments and origin is not typing.Literal:
        yield from arguments[:1] if origin is typing.Annotated else arguments
    elif isinstance(hint, type):
        yield from (item.hint for item in declared(hint, lenient=True).values())
        yield getattr(hint, "__extra_items__", None)  # of a TypedDict
        yield from (parent for base in hint.__mro__ for parent in vars(base).get("__orig_bases__", ()))
