"""Annotations as JSON and back: what an exported program's guard needs to know, where its source is not installed.

Shapes and dtypes are kept, and how tensors are nested. Validators and kinds are functions and classes, which stay behind.
"""

import collections.abc
import importlib
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, cast

from ..._annotations.declared import is_named_tuple, is_tensor_annotation, is_typed_dict, mentions_tensor
from ..._annotations.nodes import TypedDictNode
from ..._annotations.resolve import alias_value, is_alias
from ..._annotations.spec import BRACES
from ..._annotations.structure import Builder
from ..._render import describe_annotation
from ..._stand_in import array_class
from ...errors import ContractDefinitionError

Json = dict[str, Any]


def saved(hint: Any, arguments: Mapping[str, Any]) -> Json:
    """Return an annotation as plain dictionaries, lists and strings.

    Args:
        hint: Annotation, resolved.
        arguments: What stands in braces in shapes refers to these; numbers take its place.

    Raises:
        ContractDefinitionError: It cannot be saved.
    """
    if is_alias(hint):
        return saved(alias_value(hint), arguments)
    if is_tensor_annotation(hint):
        return _saved_tensor(hint, arguments)
    if not mentions_tensor(hint):
        return {"is": "anything"}
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return saved(inside[0], arguments)
    items = [saved(item, arguments) for item in inside if item is not Ellipsis]
    if origin in {typing.Union, types.UnionType}:
        return {"is": "union", "of": items}
    if origin is tuple:
        return {"is": "run" if Ellipsis in inside else "tuple", "of": items}
    name = next((name for name, kind in _CONTAINERS.items() if kind is origin), None)
    if name is not None:
        return {"is": name, "of": items}
    if is_typed_dict(hint):
        return _saved_typed_dict(hint, arguments)
    if isinstance(hint, type) and (is_named_tuple(hint) or hasattr(hint, "__dataclass_fields__")):
        return {"is": "class", "module": hint.__module__, "name": hint.__qualname__}
    msg = f"Expected annotations of tensors, dicts, lists, tuples and records, got {describe_annotation(hint)}."
    raise ContractDefinitionError(msg)


def _saved_tensor(hint: Any, arguments: Mapping[str, Any]) -> Json:
    name: str = hint.dtype.__name__
    if hint.array_type is not array_class("torch") or getattr(_jaxtyping(), name, None) is not hint.dtype:
        msg = f"Expected a torch.Tensor of one of jaxtyping's dtypes, got {describe_annotation(hint)}."
        raise ContractDefinitionError(msg)
    shape = BRACES.sub(lambda match: str(eval(match[1], dict(arguments))), hint.dim_str)  # the author's own annotation
    return {"is": "tensor", "dtype": name, "shape": shape}


def _saved_typed_dict(hint: Any, arguments: Mapping[str, Any]) -> Json:
    node = cast("TypedDictNode", Builder().node(hint, hint.__qualname__))
    hints = typing.get_type_hints(hint, include_extras=False)
    fields = {key: saved(_without_qualifier(hints[key]), arguments) for key in node.fields}
    return {"is": "typed dict", "name": hint.__qualname__, "fields": fields, "required": sorted(node.required)}


def _without_qualifier(hint: Any) -> Any:
    name = getattr(typing.get_origin(hint), "_name", "")
    return typing.get_args(hint)[0] if name in {"Required", "NotRequired", "ReadOnly"} else hint


def loaded(document: Json) -> Any:
    """Return the annotation that was saved.

    Raises:
        ValueError: It is none.
    """
    read = _READERS.get(document.get("is", ""))
    if read is None:
        msg = f"Expected a saved annotation, got {document!r}."
        raise ValueError(msg)
    return read(document)


def _loaded_tensor(document: Json) -> Any:
    import torch

    return getattr(_jaxtyping(), document["dtype"])[torch.Tensor, document["shape"]]


def _loaded_typed_dict(document: Json) -> Any:
    fields: Any = {
        key: loaded(item) if key in document["required"] else typing.NotRequired[loaded(item)]
        for key, item in document["fields"].items()
    }
    return typing.TypedDict(document["name"], fields)  # pyright: ignore


def _loaded_class(document: Json) -> Any:
    found: Any = importlib.import_module(document["module"])
    for name in document["name"].split("."):
        found = getattr(found, name)
    return found


def _jaxtyping() -> Any:
    return importlib.import_module("jaxtyping")


_CONTAINERS: dict[str, Any] = {
    "list": list,
    "dict": dict,
    "sequence": collections.abc.Sequence,
    "mapping": collections.abc.Mapping,
}
_READERS: dict[str, Callable[[Json], Any]] = {
    "anything": lambda document: object,
    "tensor": _loaded_tensor,
    "typed dict": _loaded_typed_dict,
    "class": _loaded_class,
    "union": lambda document: typing.Union[tuple(map(loaded, document["of"]))],  # noqa: UP007  # of a tuple
    "tuple": lambda document: tuple[tuple(map(loaded, document["of"]))],
    "run": lambda document: tuple[loaded(document["of"][0]), ...],
    **{
        name: lambda document, kind=kind: kind[tuple(map(loaded, document["of"]))] for name, kind in _CONTAINERS.items()
    },
}
