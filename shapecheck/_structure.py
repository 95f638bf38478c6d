"""An annotation as a tree of what to visit: tensors and plain values at the leaves, containers and records between.

Building the tree is where annotations are refused: whatever cannot be checked in full is an error here, when the
contract is defined, and never "anything goes".
"""

import abc
import collections.abc
import dataclasses
import difflib
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ._reference import check_plain, require_supported
from ._render import describe, describe_annotation
from ._spec import TensorSpec, parse_annotation
from .errors import ContractDefinitionError, Mismatch

Visit = tuple[str, Any, "Node"]  # path, value, what the value must be


class Node(abc.ABC):
    """What a value must be.

    Attributes:
        text: The annotation as its author would write it.
    """

    text: str

    @abc.abstractmethod
    def accepts_kind(self, value: object) -> bool:
        """Tell whether a value is of the kind that the node is about, whatever it holds."""

    def visit(self, value: Any, path: str) -> tuple[list[Mismatch], list[Visit]]:
        """Compare a value itself with the node, and list the values inside it that remain to be checked."""
        del path
        if self.accepts_kind(value):
            return [], []
        return [Mismatch("type", describe(value), self.text)], []

    def children(self) -> "Iterator[Node]":
        """Iterate over the nodes directly below."""
        return iter(())


class TensorNode(Node):
    """One annotated tensor or array."""

    def __init__(self, annotation: Any) -> None:
        self.text = describe_annotation(annotation)
        self.spec = parse_annotation(annotation)

    def accepts_kind(self, value: object) -> bool:
        return self.spec.accepts_array(value)


class PlainNode(Node):
    """A type hint without tensors inside: beartype's business."""

    def __init__(self, hint: Any, where: str) -> None:
        require_supported(hint, where)
        self.text = describe_annotation(hint)
        self.hint = hint

    def accepts_kind(self, value: object) -> bool:
        return check_plain(self.hint, value)


class UnionNode(Node):
    """Several alternatives; every one that is consistent with the rest of the call is kept."""

    def __init__(self, text: str, alternatives: list[Node]) -> None:
        self.text = text
        self.alternatives = alternatives

    def accepts_kind(self, value: object) -> bool:
        return any(alternative.accepts_kind(value) for alternative in self.alternatives)

    def children(self) -> Iterator[Node]:
        return iter(self.alternatives)


class SequenceNode(Node):
    """A list, a tuple of any length or another sequence: every item is checked."""

    def __init__(self, text: str, kind: type, item: Node) -> None:
        self.text = text
        self.kind = kind
        self.item = item

    def accepts_kind(self, value: object) -> bool:
        return isinstance(value, self.kind) and not isinstance(value, (str, bytes))

    def visit(self, value: Any, path: str) -> tuple[list[Mismatch], list[Visit]]:
        mismatches, _ = super().visit(value, path)
        if mismatches:
            return mismatches, []
        return [], [(f"{path}[{index}]", item, self.item) for index, item in enumerate(value)]

    def children(self) -> Iterator[Node]:
        yield self.item


class TupleNode(Node):
    """A tuple of fixed length."""

    def __init__(self, text: str, items: list[Node]) -> None:
        self.text = text
        self.items = items

    def accepts_kind(self, value: object) -> bool:
        return isinstance(value, tuple)

    def visit(self, value: Any, path: str) -> tuple[list[Mismatch], list[Visit]]:
        mismatches, _ = super().visit(value, path)
        if mismatches:
            return mismatches, []
        if len(value) != len(self.items):
            mismatches.append(Mismatch("length", str(len(value)), str(len(self.items))))
        pairs = zip(value, self.items, strict=False)
        return mismatches, [(f"{path}[{index}]", item, node) for index, (item, node) in enumerate(pairs)]

    def children(self) -> Iterator[Node]:
        return iter(self.items)


class MappingNode(Node):
    """A mapping with free keys: every key and every value is checked."""

    def __init__(self, text: str, kind: type, key: Node, value: Node) -> None:
        self.text = text
        self.kind = kind
        self.key = key
        self.value = value

    def accepts_kind(self, value: object) -> bool:
        return isinstance(value, self.kind)

    def visit(self, value: Any, path: str) -> tuple[list[Mismatch], list[Visit]]:
        mismatches, _ = super().visit(value, path)
        if mismatches:
            return mismatches, []
        keys: list[Visit] = [(f"key {key!r} of {path}", key, self.key) for key in value]
        return [], keys + [(f"{path}[{key!r}]", item, self.value) for key, item in value.items()]

    def children(self) -> Iterator[Node]:
        yield from (self.key, self.value)


class TypedDictNode(Node):
    """A dict with declared keys: missing and undeclared keys are mismatches."""

    def __init__(self, kind: Any) -> None:
        self.text = kind.__qualname__
        self.fields: dict[str, Node] = {}
        self.required: frozenset[str] = kind.__required_keys__

    def accepts_kind(self, value: object) -> bool:
        return isinstance(value, Mapping)

    def visit(self, value: Any, path: str) -> tuple[list[Mismatch], list[Visit]]:
        mismatches, _ = super().visit(value, path)
        if mismatches:
            return mismatches, []
        missing = [key for key in self.fields if key in self.required and key not in value]
        extra = sorted((key for key in value if key not in self.fields), key=repr)
        mismatches += [Mismatch("missing-key", _close(key, extra), repr(key)) for key in missing]
        mismatches += [Mismatch("extra-key", repr(key), _close(key, list(self.fields))) for key in extra]
        return mismatches, [(f"{path}[{key!r}]", value[key], node) for key, node in self.fields.items() if key in value]

    def children(self) -> Iterator[Node]:
        return iter(self.fields.values())


def _close(key: object, candidates: list[Any]) -> str:
    """Return the candidate most like `key`, quoted, or nothing."""
    names = [name for name in candidates if isinstance(name, str)]
    return "".join(map(repr, difflib.get_close_matches(str(key), names, n=1)))


class AttributesNode(Node):
    """A dataclass or NamedTuple: every annotated field is checked, also after construction."""

    def __init__(self, kind: type) -> None:
        self.text = kind.__qualname__
        self.fields: dict[str, Node] = {}
        self.kind = kind

    def accepts_kind(self, value: object) -> bool:
        return isinstance(value, self.kind)

    def visit(self, value: Any, path: str) -> tuple[list[Mismatch], list[Visit]]:
        mismatches, _ = super().visit(value, path)
        if mismatches:
            return mismatches, []
        prefix = f"{path}." if path else ""
        return [], [(f"{prefix}{name}", getattr(value, name), node) for name, node in self.fields.items()]

    def children(self) -> Iterator[Node]:
        return iter(self.fields.values())


def tensor_specs(roots: Iterable[Node]) -> list[TensorSpec]:
    """Return the spec of every tensor in some trees; a record that refers to itself is entered once."""
    specs: list[TensorSpec] = []
    pending, seen = list(roots), set[int]()
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, TensorNode):
            specs.append(node.spec)
        pending.extend(node.children())
    return specs


# --- from annotations to nodes -------------------------------------------------------------------
def is_tensor_annotation(hint: Any) -> bool:
    """Tell whether a hint is a jaxtyping array annotation such as ``Float32[Tensor, "b c"]``."""
    return isinstance(hint, type) and hasattr(hint, "dim_str") and hasattr(hint, "index_variadic")


def annotation_key(hint: Any) -> Any:
    """Return what tells annotations of different meaning apart; jaxtyping makes a new class of each equal one."""
    if is_tensor_annotation(hint):
        return (hint.dtype, hint.array_type, hint.dim_str)
    arguments = typing.get_args(hint)
    return (typing.get_origin(hint), *map(annotation_key, arguments)) if arguments else hint


def is_typed_dict(hint: Any) -> bool:
    """Tell whether a class is a TypedDict."""
    return isinstance(hint, type) and typing.is_typeddict(hint)


def is_named_tuple(hint: Any) -> bool:
    """Tell whether a class is a NamedTuple."""
    return isinstance(hint, type) and tuple in hint.__mro__ and hasattr(hint, "_fields")


def resolve_hints(target: Any, hints: Mapping[str, Any], scope: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Evaluate annotations that are strings, one by one, so that the one that fails can be named.

    Args:
        target: What carries the annotations; its module's names are in reach.
        hints: The annotations.
        scope: Further names in reach, such as the locals of the function that defines `target`.

    Raises:
        ContractDefinitionError: A name cannot be resolved.
    """
    names = {**vars(sys.modules.get(target.__module__, types)), **getattr(target, "__globals__", {})}
    resolved: dict[str, Any] = {}
    for name, hint in hints.items():
        holder = types.SimpleNamespace(__annotations__={name: hint})
        try:
            resolved.update(typing.get_type_hints(holder, names, dict(scope or {}), include_extras=True))
        except (NameError, SyntaxError, AttributeError, TypeError) as error:
            where = "the return value" if name == "return" else f"{name!r}"
            msg = f"The annotation {hint!r} of {where} of {target.__qualname__} cannot be resolved: {error}."
            raise ContractDefinitionError(msg) from None
    return resolved


class Builder:
    """Builds the nodes of one boundary; a record that refers to itself is built once.

    Args:
        scope: Names in reach of annotations that are strings.
    """

    def __init__(self, scope: Mapping[str, Any] | None = None) -> None:
        self._scope = scope
        self._records: dict[type, Node] = {}

    def node(self, hint: Any, where: str) -> Node:
        """Return the node of an annotation.

        Args:
            hint: Annotation, resolved.
            where: What carries it, for messages.

        Raises:
            ContractDefinitionError: The annotation is malformed or cannot be checked in full.
        """
        if is_tensor_annotation(hint):
            return TensorNode(hint)
        if typing.get_origin(hint) in {typing.Union, types.UnionType}:
            alternatives = [self.node(alternative, where) for alternative in typing.get_args(hint)]
            return UnionNode(describe_annotation(hint), alternatives)
        if isinstance(hint, type) and typing.get_origin(hint) is None:
            return self._class_node(hint, where)
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        build = _CONTAINERS.get(origin)
        if build is not None and arguments:
            return build(self, hint, origin, arguments, where)
        if any(_mentions_tensor(argument) for argument in arguments):
            msg = f"The tensors inside {describe_annotation(hint)} ({where}) cannot be checked in full."
            raise ContractDefinitionError(msg)
        return PlainNode(hint, where)

    def _class_node(self, kind: Any, where: str) -> Node:
        if kind.__module__.partition(".")[0] == "jaxtyping":
            msg = f"{kind.__name__} ({where}) says nothing about a shape that can be checked."
            raise ContractDefinitionError(msg)
        if kind in self._records:
            return self._records[kind]
        if is_typed_dict(kind):
            return self._record(TypedDictNode(kind), kind, kind.__annotations__)
        if hasattr(kind, "__dataclass_fields__"):
            hints = {field.name: field.type for field in dataclasses.fields(kind)}
            return self._record(AttributesNode(kind), kind, hints)
        if is_named_tuple(kind):
            return self._record(AttributesNode(kind), kind, kind.__annotations__)
        return PlainNode(kind, where)

    def _record(self, node: TypedDictNode | AttributesNode, kind: type, hints: Mapping[str, Any]) -> Node:
        """Build a record; one without a tensor anywhere inside is left to beartype as a whole."""
        self._records[kind] = node
        for name, hint in resolve_hints(kind, hints, self._scope).items():
            node.fields[name] = self.node(_bare(hint), f"{name!r} of {kind.__qualname__}")
        if not tensor_specs([node]):
            self._records[kind] = PlainNode(kind, kind.__qualname__)
        return self._records[kind]


def _bare(hint: Any) -> Any:
    """Strip ``Required`` and ``NotRequired``, which say something about the record and not about the value."""
    stripped = typing.get_origin(hint) in {typing.Required, typing.NotRequired}
    return typing.get_args(hint)[0] if stripped else hint


def _mentions_tensor(hint: Any) -> bool:
    if isinstance(hint, list):
        return any(_mentions_tensor(item) for item in typing.cast("list[Any]", hint))
    return is_tensor_annotation(hint) or any(_mentions_tensor(argument) for argument in typing.get_args(hint))


def _build_tuple(builder: Builder, hint: Any, origin: Any, arguments: tuple[Any, ...], where: str) -> Node:
    text = describe_annotation(hint)
    if len(arguments) == 2 and arguments[1] is Ellipsis:  # tuple[X, ...]
        return SequenceNode(text, origin, builder.node(arguments[0], where))
    return TupleNode(text, [builder.node(argument, where) for argument in arguments])


def _build_sequence(builder: Builder, hint: Any, origin: Any, arguments: tuple[Any, ...], where: str) -> Node:
    return SequenceNode(describe_annotation(hint), origin, builder.node(arguments[0], where))


def _build_mapping(builder: Builder, hint: Any, origin: Any, arguments: tuple[Any, ...], where: str) -> Node:
    key, value = (builder.node(argument, where) for argument in arguments)
    return MappingNode(describe_annotation(hint), origin, key, value)


def _build_annotated(builder: Builder, hint: Any, origin: Any, arguments: tuple[Any, ...], where: str) -> Node:
    del origin
    if _mentions_tensor(arguments[0]):
        msg = f"{describe_annotation(arguments[0])} ({where}) carries metadata that would not be checked."
        raise ContractDefinitionError(msg)
    return PlainNode(hint, where)


_CONTAINERS: dict[Any, Callable[[Builder, Any, Any, tuple[Any, ...], str], Node]] = {
    tuple: _build_tuple,
    list: _build_sequence,
    collections.abc.Sequence: _build_sequence,
    dict: _build_mapping,
    collections.abc.Mapping: _build_mapping,
    collections.abc.MutableMapping: _build_mapping,
    typing.Annotated: _build_annotated,
}
