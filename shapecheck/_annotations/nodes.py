"""What a value must be, as a tree: tensors and plain values at the leaves, containers and records between.

A node compares a value itself and lists what is inside it; the walk is `_engine`'s, the verdict on leaves
`_reference`'s. Trees are built by `_structure`.
"""

import abc
import collections
import collections.abc
import difflib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, cast

from .._render import describe, describe_annotation, kind_name
from ..errors import Mismatch
from .reference import check_plain, require_supported
from .resolve import EnclosingClass
from .spec import TensorSpec, parse_annotation

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
    """A list, a tuple of any length, another sequence, or a set: every item is checked."""

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
        return [], [(inner, item, self.item) for inner, item in _items(value, path)]

    def children(self) -> Iterator[Node]:
        yield self.item


def _items(value: Collection[Any], path: str) -> list[tuple[str, Any]]:
    """Return the items with their paths; those of a set have no order and are numbered by their description."""
    if isinstance(value, collections.abc.Set):
        return [(f"{path}{{{index}}}", item) for index, item in enumerate(sorted(value, key=describe))]
    return [(f"{path}[{index}]", item) for index, item in enumerate(value)]


class CollectionNode(Node):
    """An iterable: every item is checked, of those that can be looked at without changing them.

    What makes its items on demand is refused: looking at an iterator consumes it, and looking at a DataLoader starts
    its workers and draws random numbers.
    """

    def __init__(self, text: str, item: Node) -> None:
        self.text = text
        self.item = item

    def accepts_kind(self, value: object) -> bool:
        is_scalar = getattr(value, "ndim", 1) == 0  # an array is a collection of its rows, unless it has none
        return isinstance(value, Collection) and not isinstance(value, (str, bytes)) and not is_scalar

    def visit(self, value: Any, path: str) -> tuple[list[Mismatch], list[Visit]]:
        if self.accepts_kind(value):
            return [], [(inner, item, self.item) for inner, item in _items(value, path)]
        if isinstance(value, Collection) or not isinstance(value, Iterable):
            return super().visit(value, path)
        got = f"a {kind_name(cast('Any', value).__class__)}, whose items do not exist until they are asked for"
        return [Mismatch("type", got, f"{self.text} that can be looked at, such as a list")], []

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
        keys: list[Visit] = [(f"key {key!r} of {path}", key, self.key) for key in value.keys()]  # noqa: SIM118  # a TensorDict iterates over a batch
        return [], keys + [(f"{path}[{key!r}]", item, self.value) for key, item in value.items()]

    def children(self) -> Iterator[Node]:
        yield from (self.key, self.value)


class TypedDictNode(Node):
    """A dict with declared keys: missing and undeclared keys are mismatches.

    Attributes:
        fields: What stands under each key.
        required: Keys that must be there.
        extra: What stands under any other key; None where there can be none.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.fields: dict[str, Node] = {}
        self.required = set[str]()
        self.extra: Node | None = None

    def accepts_kind(self, value: object) -> bool:
        return isinstance(value, Mapping)

    def visit(self, value: Any, path: str) -> tuple[list[Mismatch], list[Visit]]:
        mismatches, _ = super().visit(value, path)
        if mismatches:
            return mismatches, []
        keys = list(value.keys())
        nodes = {key: self.fields.get(key, self.extra) for key in keys}
        missing = [key for key in self.fields if key in self.required and key not in nodes]
        extra = sorted((key for key, node in nodes.items() if node is None), key=repr)
        mismatches += [Mismatch("missing-key", _close(key, extra), repr(key)) for key in missing]
        mismatches += [Mismatch("extra-key", repr(key), _close(key, list(self.fields))) for key in extra]
        order = [key for key in self.fields if key in nodes] + [key for key in keys if key not in self.fields]
        return mismatches, [(f"{path}[{key!r}]", value[key], node) for key in order if (node := nodes[key])]

    def children(self) -> Iterator[Node]:
        yield from self.fields.values()
        if self.extra is not None:
            yield self.extra


def _close(key: object, candidates: list[Any]) -> str:
    """Return the candidate most like `key`, quoted, or nothing."""
    names = [name for name in candidates if isinstance(name, str)]
    return "".join(map(repr, difflib.get_close_matches(str(key), names, n=1)))


class AttributesNode(Node):
    """An object with annotated attributes: every one is checked, also after construction.

    Dataclasses, NamedTuples, attrs and pydantic classes, tensorclasses; of any other class, such as an `nn.Module`,
    the attributes that hold tensors.
    """

    def __init__(self, text: str, kind: type) -> None:
        self.text = text
        self.fields: dict[str, Node] = {}
        self.kind = kind

    def accepts_kind(self, value: object) -> bool:
        return isinstance(value, self.kind)

    def visit(self, value: Any, path: str) -> tuple[list[Mismatch], list[Visit]]:
        mismatches, _ = super().visit(value, path)
        if mismatches:
            return mismatches, []
        prefix = f"{path}." if path else ""
        found = {name: getattr(value, name, _UNSET) for name in self.fields}
        mismatches = [Mismatch("missing-attribute", "", repr(name)) for name, item in found.items() if item is _UNSET]
        present = [name for name, item in found.items() if item is not _UNSET]
        return mismatches, [(f"{prefix}{name}", found[name], self.fields[name]) for name in present]

    def children(self) -> Iterator[Node]:
        return iter(self.fields.values())


_UNSET = object()


class EnclosingNode(Node):
    """An instance of the class in whose body the contract stands; what the class declares is known at the first call."""

    def __init__(self, stand_in: EnclosingClass, build: Callable[[type], Node]) -> None:
        self.text = stand_in.__qualname__
        self._stand_in = stand_in
        self._build = build
        self._node: Node | None = None

    def accepts_kind(self, value: object) -> bool:
        return isinstance(value, self._stand_in)

    def visit(self, value: Any, path: str) -> tuple[list[Mismatch], list[Visit]]:
        kind = self._stand_in.found_in(value.__class__)
        if kind is None:
            return super().visit(value, path)
        self._node = self._node or self._build(kind)
        return [], [(path, value, self._node)]


class UnpackedNode(Node):
    """``**kwargs: Unpack[Fields]`` or ``*args: *tuple[...]``: one annotation for all that a starred parameter takes."""

    def __init__(self, text: str, whole: Node) -> None:
        self.text = text
        self.whole = whole

    def accepts_kind(self, value: object) -> bool:
        return self.whole.accepts_kind(value)

    def visit(self, value: Any, path: str) -> tuple[list[Mismatch], list[Visit]]:
        return self.whole.visit(value, path)

    def children(self) -> Iterator[Node]:
        yield self.whole


def walk(roots: Iterable[Node]) -> Iterator[Node]:
    """Yield every node of some trees; one that refers to itself is entered once."""
    pending, seen = list(roots), set[int]()
    while pending:
        node = pending.pop()
        if id(node) not in seen:
            seen.add(id(node))
            yield node
            pending.extend(node.children())


def tensor_specs(roots: Iterable[Node]) -> list[TensorSpec]:
    """Return the spec of every tensor in some trees."""
    return [node.spec for node in walk(roots) if isinstance(node, TensorNode)]


def tensors(visits: Iterable[Visit]) -> Iterator[Visit]:
    """Yield every tensor in some values, with what it must be; of a union, for each alternative of its kind."""
    pending = collections.deque(visits)
    while pending:
        path, value, node = pending.popleft()
        if isinstance(node, TensorNode):
            if node.accepts_kind(value):
                yield path, value, node
        elif isinstance(node, UnionNode):
            pending.extendleft((path, value, item) for item in node.alternatives if item.accepts_kind(value))
        else:
            pending.extendleft(reversed(node.visit(value, path)[1]))
