"""From an annotation to the tree of nodes that checks it.

Building the tree is where annotations are refused: whatever cannot be checked in full is an error here, when the
contract is defined, and never "anything goes".
"""

import collections
import collections.abc
import types
import typing
from collections.abc import Callable
from typing import Any

from .._render import describe_annotation
from ..errors import ContractDefinitionError
from .declared import declared, field_names, is_tensor_annotation, is_typed_dict, mentions_tensor
from .nodes import (
    AttributesNode,
    CollectionNode,
    EnclosingNode,
    MappingNode,
    Node,
    PlainNode,
    SequenceNode,
    TensorNode,
    TupleNode,
    TypedDictNode,
    UnionNode,
    UnpackedNode,
    walk,
)
from .refined import refine
from .resolve import EnclosingClass, alias_value, bases_with_arguments, is_alias, substitute


def annotation_key(hint: Any) -> Any:
    """Return what tells annotations of different meaning apart; jaxtyping makes a new class of each equal one."""
    if is_tensor_annotation(hint):
        return (hint.dtype, hint.array_type, hint.dim_str)
    arguments = typing.get_args(hint)
    return (typing.get_origin(hint), *map(annotation_key, arguments)) if arguments else hint


class Builder:
    """Builds the nodes of one boundary; a record or an alias that refers to itself is built once."""

    def __init__(self) -> None:
        self._known: list[tuple[Any, Node]] = []  # a hint need not be hashable

    def node(self, hint: Any, where: str) -> Node:
        """Return the node of an annotation.

        Args:
            hint: Annotation, resolved.
            where: What carries it, for messages.

        Raises:
            ContractDefinitionError: The annotation is malformed or cannot be checked in full.
        """
        hint = _meant(hint)
        if is_tensor_annotation(hint):
            return TensorNode(hint)
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if origin in {typing.Union, types.UnionType}:
            alternatives = [self.node(alternative, where) for alternative in arguments]
            return UnionNode(describe_annotation(hint), alternatives)
        if is_alias(hint) or is_alias(origin):
            return self._alias(origin or hint, arguments, where)
        if origin is typing.Unpack or getattr(hint, "__unpacked__", False):
            return UnpackedNode(describe_annotation(hint), self.node(_packed(hint), where))
        build = _CONTAINERS.get(origin)
        if build is not None and arguments:
            return build(self, hint, origin, arguments, where)
        if isinstance(hint, type) or isinstance(origin, type):
            return self._class(hint, origin or hint, arguments, where)
        return _plain(hint, where)

    def _find(self, key: Any) -> Node | None:
        return next((node for known, node in self._known if known == key), None)

    def _alias(self, alias: Any, arguments: tuple[Any, ...], where: str) -> Node:
        key = (alias, arguments)
        if found := self._find(key):
            return found
        union = UnionNode(alias.__name__, [])  # what the alias refers to when it refers to itself
        self._known.append((key, union))
        parameters = dict(zip(alias.__type_params__, arguments, strict=False))
        node = self.node(substitute(alias_value(alias), parameters), where)
        union.alternatives.append(node)
        if not any(inner is union for inner in walk([node])):
            return node
        if any(inner is union for inner in _alternatives(node)):
            msg = f"The alias {alias.__name__} ({where}) is one of its own alternatives."
            raise ContractDefinitionError(msg)
        return union

    def _class(self, hint: Any, kind: Any, arguments: tuple[Any, ...], where: str) -> Node:
        """Return the node of a class, generic or not; one without a tensor anywhere inside is left to beartype."""
        if isinstance(kind, EnclosingClass):
            return EnclosingNode(kind, lambda found: Builder().node(found, found.__qualname__))
        if kind.__module__.partition(".")[0] == "jaxtyping":
            raise _jaxtyping_refusal(kind, where)
        if not mentions_tensor(hint):
            return _plain(hint, where)
        if found := self._find((kind, arguments)):
            return found
        node = self._container(kind, arguments, where) or self._record(hint, kind, arguments)
        is_opaque = isinstance(node, AttributesNode) and not node.fields
        if is_opaque and (arguments or hasattr(kind, "__iter__") or hasattr(kind, "__aiter__")):
            raise _uncheckable(hint, where)
        if getattr(kind, "_is_protocol", False) and not getattr(kind, "_is_runtime_protocol", False):
            msg = f"Expected the protocol {kind.__qualname__} ({where}) to be decorated with @typing.runtime_checkable."
            raise ContractDefinitionError(msg)
        # what the bases of a plain class are subscripted with says what its methods return
        return PlainNode(kind, where) if is_opaque else node

    def _container(self, kind: Any, arguments: tuple[Any, ...], where: str) -> Node | None:
        """Return the node of a user's own container class, such as ``class Stack(list[Image])``."""
        for base, filled in bases_with_arguments(kind, arguments):
            for parent in vars(base).get("__orig_bases__", ()):
                build = _CONTAINERS.get(typing.get_origin(parent))
                inside = tuple(substitute(argument, filled) for argument in typing.get_args(parent))
                is_filled = any(map(mentions_tensor, inside))
                if build is not None and build in {_build_sequence, _build_mapping} and is_filled:
                    return build(self, kind, kind, inside, where)
        return None

    def _record(self, hint: Any, kind: Any, arguments: tuple[Any, ...]) -> Node:
        text = describe_annotation(hint)
        node = TypedDictNode(text) if is_typed_dict(kind) else AttributesNode(text, kind)
        self._known.append(((kind, arguments), node))
        fields, found = field_names(kind) or {}, declared(kind, arguments)
        for name in dict.fromkeys([*fields, *found]):
            inner, qualifiers = found[name]
            if is_typed_dict(kind) or name in fields or ("InitVar" not in qualifiers and mentions_tensor(inner)):
                node.fields[name] = self.node(inner, f"{name!r} of {kind.__qualname__}")
            if isinstance(node, TypedDictNode) and _is_required(name, kind, qualifiers):
                node.required.add(name)
        if isinstance(node, TypedDictNode) and _has_extra_items(kind):
            node.extra = self.node(kind.__extra_items__, f"the extra items of {kind.__qualname__}")
        return node


def _meant(hint: Any) -> Any:
    """Return what a `NewType` or a type variable stands for."""
    while True:
        if isinstance(hint, typing.NewType):
            hint = hint.__supertype__
        elif isinstance(hint, typing.TypeVar) and (hint.__bound__ is not None or hint.__constraints__):
            hint = hint.__bound__ if hint.__bound__ is not None else typing.Union[hint.__constraints__]  # noqa: UP007  # of a tuple
        elif isinstance(hint, (typing.ParamSpecArgs, typing.ParamSpecKwargs)):
            return object
        else:
            return hint


def _packed(hint: Any) -> Any:
    """Return what is unpacked by ``*tuple[...]`` or ``Unpack[...]``."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    return arguments[0] if origin is typing.Unpack else origin[arguments]


def _alternatives(node: Node) -> "list[Node]":
    """Return a node and, of a union, its alternatives at every depth."""
    found, pending = list[Node](), [node]
    while pending:
        current = pending.pop()
        if not any(current is known for known in found):
            found.append(current)
            pending += current.alternatives if isinstance(current, UnionNode) else []
    return found


def _is_required(name: str, kind: Any, qualifiers: frozenset[str]) -> bool:
    """Tell whether a key must be there; what a class says of itself is wrong where its annotations are strings."""
    return "NotRequired" not in qualifiers and ("Required" in qualifiers or name in kind.__required_keys__)


def _has_extra_items(kind: Any) -> bool:
    extra = getattr(kind, "__extra_items__", None)  # of typing_extensions
    return extra is not None and type(extra).__name__ != "NoExtraItemsType"


def _plain(hint: Any, where: str) -> Node:
    """Return the node of a hint that is beartype's business."""
    if isinstance(hint, (str, typing.ForwardRef)):
        msg = f"The annotation {hint!r} ({where}) is a name that was not resolved. Give the class itself."
        raise ContractDefinitionError(msg)
    if mentions_tensor(hint):
        raise _uncheckable(hint, where)
    return PlainNode(hint, where)


def _uncheckable(hint: Any, where: str) -> ContractDefinitionError:
    lazy = typing.get_origin(hint) in _LAZY
    cure = " What makes its items on demand is consumed by looking at it: take a list or a Sequence." if lazy else ""
    return ContractDefinitionError(
        f"The tensors inside {describe_annotation(hint)} ({where}) cannot be checked in full.{cure}"
    )


def _jaxtyping_refusal(kind: Any, where: str) -> ContractDefinitionError:
    if kind.__name__.startswith("PyTree"):
        reason = "does not say how it is nested. Write that, such as dict[str, tuple[...]] or a TypedDict"
    else:
        reason = f'says nothing about a shape that can be checked. Write {kind.__name__}[Tensor, "..."] for any shape'
    return ContractDefinitionError(f"{kind.__name__} ({where}) {reason}.")


def _build_tuple(builder: Builder, hint: Any, origin: Any, arguments: tuple[Any, ...], where: str) -> Node:
    text = describe_annotation(hint)
    if len(arguments) == 2 and arguments[1] is Ellipsis:  # tuple[X, ...]
        return SequenceNode(text, origin, builder.node(arguments[0], where))
    return TupleNode(text, [builder.node(argument, where) for argument in arguments])


def _build_sequence(builder: Builder, hint: Any, origin: Any, arguments: tuple[Any, ...], where: str) -> Node:
    return SequenceNode(describe_annotation(hint), origin, builder.node(arguments[0], where))


def _build_collection(builder: Builder, hint: Any, origin: Any, arguments: tuple[Any, ...], where: str) -> Node:
    del origin
    return CollectionNode(describe_annotation(hint), builder.node(arguments[0], where))


def _build_mapping(builder: Builder, hint: Any, origin: Any, arguments: tuple[Any, ...], where: str) -> Node:
    key, value = (builder.node(argument, where) for argument in arguments)
    return MappingNode(describe_annotation(hint), origin, key, value)


def _build_annotated(builder: Builder, hint: Any, origin: Any, arguments: tuple[Any, ...], where: str) -> Node:
    del origin, arguments
    return refine(builder.node(hint.__origin__, where), hint.__metadata__, where)


_Build = Callable[[Builder, Any, Any, tuple[Any, ...], str], Node]

_CONTAINERS: dict[Any, _Build] = {
    tuple: _build_tuple,
    **dict.fromkeys((list, set, frozenset, collections.deque, collections.UserList), _build_sequence),
    **dict.fromkeys((collections.abc.Sequence, collections.abc.MutableSequence), _build_sequence),
    **dict.fromkeys((collections.abc.Set, collections.abc.MutableSet), _build_sequence),
    **dict.fromkeys(
        (collections.abc.Iterable, collections.abc.Collection, collections.abc.ValuesView), _build_collection
    ),
    **dict.fromkeys((dict, collections.OrderedDict, collections.defaultdict), _build_mapping),
    **dict.fromkeys((collections.ChainMap, collections.UserDict, types.MappingProxyType), _build_mapping),
    **dict.fromkeys((collections.abc.Mapping, collections.abc.MutableMapping), _build_mapping),
    typing.Annotated: _build_annotated,
}
_LAZY = {
    collections.abc.Iterator,
    collections.abc.Generator,
    collections.abc.AsyncIterable,
    collections.abc.AsyncIterator,
    collections.abc.AsyncGenerator,
}
