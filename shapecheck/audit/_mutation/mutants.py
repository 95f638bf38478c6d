"""Changes of a valid call, one at a time: what a programmer might get wrong, and a contract should notice.

What an annotation leaves open in so many words is not changed: the size of a dim that nothing else has, an axis of
size 1 that is moved past others of size 1, a dtype that stands there as another alternative.
"""

import dataclasses
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, cast

from ..._annotations.declared import is_named_tuple
from ..._annotations.nodes import (
    AttributesNode,
    CollectionNode,
    MappingNode,
    Node,
    SequenceNode,
    TupleNode,
    TypedDictNode,
)
from ..._annotations.scope import align
from ..._annotations.spec import Dim, TensorSpec
from ..._stand_in import StandIn
from .leaves import Leaf, containers_of, leaves_of
from .shells import Shell, attributes_of
from .specimen import Specimen, Stage

Family = Literal["permuted", "dropped", "added", "merged", "swapped", "resized", "dtype", "complex", "length", "keys"]

_ALL_ORDERS = 5  # axes of which every order is tried
_MOST_PAIRS = 30  # of values that are swapped
_CASTS = {  # by the first letters of a dtype: what it may be taken for
    "float": ("float64", "float32", "float16", "int64"),
    "bfloat": ("float32", "int64"),
    "complex": ("complex128", "complex64"),
    "int": ("int32", "int64", "float32", "bool"),
    "uint": ("int64", "float32"),
    "bool": ("uint8", "int64", "float32"),
}
_OTHER_NUMBERS = {"float": "complex64", "bfloat": "complex64", "complex": "float32"}  # real and complex


@dataclasses.dataclass(frozen=True)
class Change:
    """A change of a valid call, not judged yet.

    Attributes:
        family: Of which kind it is.
        targets: Paths of what is changed.
        text: What is changed.
        edits: What stands in place of which values, by their ids.
        axes: For a permutation, which axis comes to stand at each place.
    """

    family: Family
    targets: tuple[str, ...]
    text: str
    edits: Mapping[int, Any]
    axes: tuple[int, ...] = ()


def changes_of(specimen: Specimen, stage: Stage) -> Iterator[Change]:
    """Yield every change of one stage of a valid call."""
    leaves = leaves_of(stage.roots)
    fixed = _Fixed(specimen, stage, leaves)
    for leaf in leaves:
        yield from _permuted(leaf)
        yield from _reshaped(leaf)
        yield from _resized(leaf, fixed)
        yield from _cast(leaf)
    yield from _swapped(leaves)
    for visit in containers_of(stage.roots):
        yield from _structural(*visit)


# --- axes -----------------------------------------------------------------------------------------------
def _with_shape(leaf: Leaf, shape: Sequence[int]) -> dict[int, Any]:
    value = leaf.value
    return {id(value): StandIn(value.__class__, value.dtype, shape)}


def _permuted(leaf: Leaf) -> Iterator[Change]:
    shape = leaf.value.shape
    for axes in _orders(len(shape)):
        moved = [axis for axis in axes if shape[axis] != 1]
        permuted = tuple(shape[axis] for axis in axes)
        if permuted != shape or moved != sorted(moved):  # otherwise every element stays where it is
            text = f"axes {axes}".replace(",)", ")")
            yield Change("permuted", (leaf.path,), text, _with_shape(leaf, permuted), axes)


def _orders(ndim: int) -> Iterator[tuple[int, ...]]:
    """Yield orders of axes: all but the one that is there, of many axes those that swap two, or rotate all."""
    axes = tuple(range(ndim))
    if ndim <= _ALL_ORDERS:
        yield from itertools.islice(itertools.permutations(axes), 1, None)
        return
    for first, second in itertools.combinations(axes, 2):
        order = list(axes)
        order[first], order[second] = second, first
        yield tuple(order)
    for start in range(1, ndim):
        yield axes[start:] + axes[:start]


def _reshaped(leaf: Leaf) -> Iterator[Change]:
    """Yield the tensor with an axis less, an axis of size 1 more, and two neighbours made one."""
    shape = leaf.value.shape
    for axis in range(len(shape)):
        rest = shape[:axis] + shape[axis + 1 :]
        yield Change("dropped", (leaf.path,), f"axis {axis}", _with_shape(leaf, rest))
    for axis in range(len(shape) + 1):
        wider = (*shape[:axis], 1, *shape[axis:])
        yield Change("added", (leaf.path,), f"an axis of size 1 at {axis}", _with_shape(leaf, wider))
    for axis in range(len(shape) - 1):
        merged = (*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :])
        yield Change("merged", (leaf.path,), f"axes {axis} and {axis + 1}", _with_shape(leaf, merged))


class _Fixed:
    """Which axes have a size that something else of the call fixes, so that another size is a mistake."""

    def __init__(self, specimen: Specimen, stage: Stage, leaves: Sequence[Leaf]) -> None:
        dims = [dim for leaf in leaves for dim in leaf.node.spec.dims]
        self._counts = Counter(dim.text for dim in dims if dim.kind in {"named", "variadic"})
        self.referred = frozenset[str]().union(*(dim.names for dim in dims))
        self._bound = {name for scope in stage.before for name in (*scope.sizes, *scope.shapes)}
        self.limits = specimen.subject.boundary.limits
        shapes = [leaf.value.shape for leaf in leaves]
        self.used = {size for shape in shapes for size in shape}

    def is_fixed(self, dim: Dim) -> bool:
        """Tell whether another size would contradict something."""
        if dim.kind in {"fixed", "symbolic"}:
            return True
        is_shared = self._counts[dim.text] > 1 or dim.text in self._bound or dim.text in self.referred
        return bool(dim.text) and (is_shared or dim.text in self.limits)

    def other_sizes(self, dim: Dim, size: int) -> Iterator[int]:
        """Yield sizes that nothing has: the next larger one, and where expressions may round, the next smaller one."""
        above = itertools.count(size + 1)
        if self._counts[dim.text] <= 1 and dim.text in self.limits and dim.text not in self._bound | self.referred:
            above = (other for other in above if other not in self.limits[dim.text])
        yield next(other for other in above if other not in self.used)
        if dim.text in self.referred and size > 2:
            yield size - 1


def _resized(leaf: Leaf, fixed: _Fixed) -> Iterator[Change]:
    shape = leaf.value.shape
    for axes, dim in align(leaf.node.spec, len(shape)):
        for axis in axes if fixed.is_fixed(dim) else ():
            for size in fixed.other_sizes(dim, shape[axis]):
                changed = (*shape[:axis], size, *shape[axis + 1 :])
                text = f"axis {axis} ({dim.text}) is {size}, not {shape[axis]}"
                yield Change("resized", (leaf.path,), text, _with_shape(leaf, changed), (axis,))


def open_sizes(specimen: Specimen) -> list[str]:
    """Return the dims of the arguments whose size is left open, because nothing else of the call has it."""
    stage = specimen.stages[0]
    leaves = leaves_of(stage.roots)
    fixed = _Fixed(specimen, stage, leaves)
    dims = [dim for leaf in leaves for dim in leaf.node.spec.dims if not fixed.is_fixed(dim)]
    return list(dict.fromkeys(_written(dim) for dim in dims))


def _written(dim: Dim) -> str:
    if dim.kind == "anonymous":
        return "_"
    return (f"*{dim.text}" if dim.text else "...") if dim.kind == "variadic" else dim.text


# --- dtypes -----------------------------------------------------------------------------------------------
def _cast(leaf: Leaf) -> Iterator[Change]:
    value, dtype = leaf.value, str(leaf.value.dtype)
    letters = re.match(r"[a-z]+", dtype)
    family = letters[0] if letters else ""
    named = {name for spec in leaf.specs for name in _exact_dtypes(spec)}
    for other in (*_CASTS.get(family, ()), _OTHER_NUMBERS.get(family)):
        if other is not None and other != dtype and other not in named:
            edits = {id(value): StandIn(value.__class__, other, value.shape)}
            name: Family = "complex" if other == _OTHER_NUMBERS.get(family) else "dtype"
            yield Change(name, (leaf.path,), f"{other}, not {dtype}", edits)


def _exact_dtypes(spec: TensorSpec) -> Sequence[str]:
    """Return the dtype that an annotation names, if it names one and no family of them."""
    dtypes: Any = spec.annotation.dtypes
    return (
        cast("Sequence[str]", dtypes) if isinstance(dtypes, tuple) and len(cast("Sequence[Any]", dtypes)) == 1 else ()
    )


# --- several values ---------------------------------------------------------------------------------------
def _swapped(leaves: Sequence[Leaf]) -> Iterator[Change]:
    """Yield two tensors of one class and dtype in each other's place, but for items of one sequence."""
    pairs = (
        (one, other)
        for one, other in itertools.combinations(leaves, 2)
        if one.node is not other.node and _alike(one.value) == _alike(other.value)
    )
    for one, other in itertools.islice(pairs, _MOST_PAIRS):
        edits = {id(one.value): other.value, id(other.value): one.value}
        yield Change("swapped", (one.path, other.path), "each in place of the other", edits)


def _alike(value: StandIn) -> tuple[Any, Any]:
    return value.__class__, value.dtype


def _structural(path: str, value: Any, node: Node) -> Iterator[Change]:
    if isinstance(node, TypedDictNode):
        yield from _keys(path, value, node)
    elif isinstance(node, TupleNode):
        yield Change("length", (path,), f"{len(value) - 1} items, not {len(value)}", {id(value): value[:-1]})
        yield Change("length", (path,), f"{len(value) + 1} items, not {len(value)}", {id(value): (*value, value[-1])})
    elif isinstance(node, AttributesNode):
        yield from _attributes(path, value, node)
    elif isinstance(node, (SequenceNode, MappingNode, CollectionNode)):
        yield Change("length", (path,), "no items", {id(value): type(value)()})


def _keys(path: str, value: dict[str, Any], node: TypedDictNode) -> Iterator[Change]:
    """Yield a dict without each of the keys that must be there, and with one that is misspelt, or one too many."""
    for key in sorted(node.required):
        rest = {other: item for other, item in value.items() if other != key}
        yield Change("keys", (path,), f"without {key!r}", {id(value): rest})
        if node.extra is None:
            renamed = {f"{other}_" if other == key else other: item for other, item in value.items()}
            yield Change("keys", (path,), f"{key!r} misspelt", {id(value): renamed})
    if node.extra is None:
        yield Change("keys", (path,), "one key more", {id(value): {**value, "one_more": None}})


def _attributes(path: str, value: Shell, node: AttributesNode) -> Iterator[Change]:
    """Yield an object without each of its attributes; one that is just being built, or has others behind it, has all."""
    kind = cast("type[Any]", node.kind)
    for name in node.fields if path and not is_named_tuple(kind) else ():
        if not hasattr(kind, name):
            rest = {other: item for other, item in attributes_of(value).items() if other != name}
            yield Change("keys", (path,), f"without the attribute {name!r}", {id(value): Shell(kind, rest)})
