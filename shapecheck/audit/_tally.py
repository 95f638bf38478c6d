"""What is noted of one boundary with every call: numbers of calls, shapes, sizes of dims, and which of these were equal."""

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping

from .._annotations.nodes import AttributesNode, Node, tensor_specs
from .._annotations.scope import Scope
from .._annotations.spec import TensorSpec
from ..axes import Sizes
from ._recording import OTHER_SHAPES, BoundaryRecord, Pair, most_frequent

_MOST_SHAPES = 256  # that are told apart while recording; sizes that differ with every call must not fill the memory
_MOST_SIZES = 32
_MOST_SEEN = 1024


class Tally:
    """Keeps book of one boundary.

    Args:
        name: Its name in the recording.
        place: Where it is defined.
    """

    def __init__(self, name: str, place: str) -> None:
        self.calls = 0
        self.rejected = 0
        self._name = name
        self._place = place
        self._annotations: dict[str, str] = {}
        self._shapes: dict[str, Counter[str]] = {}
        self._sizes: dict[str, set[int]] = {}
        self._bound = Counter[str]()
        self._seen = set[tuple[object, ...]]()  # that say nothing new
        self._equal = set[Pair]()
        self._apart = set[Pair]()

    def declare(self, nodes: Mapping[str, Node]) -> None:
        """Note what values must be, if that is not known yet."""
        for name, node in nodes.items():
            if name == "self" and isinstance(node, AttributesNode):  # a record, whose fields are its parameters
                self.declare(node.fields)
            else:
                self._annotations.setdefault(name, node.text)

    def saw_shape(self, parameter: str, shape: str) -> None:
        """Note the shape of an accepted tensor."""
        shapes = self._shapes.setdefault(parameter, Counter())
        shapes[shape if shape in shapes or len(shapes) < _MOST_SHAPES else OTHER_SHAPES] += 1

    def saw_dims(self, before: Iterable[str], scopes: Iterable[Scope], nodes: Collection[Node]) -> None:
        """Note the dims of a call.

        Args:
            before: Those that were noted of this call before.
            scopes: The ways to bind them.
            nodes: What the values must be.
        """
        known = set(before)
        for scope in scopes:
            sizes = {dim: size for dim, size in scope.sizes.items() if type(size) is int}  # a ragged one is a symbol
            self._bound.update(dim for dim in sizes if dim not in known)  # in order, whatever the hash seed
            known |= sizes.keys()
            if (seen := (*sizes.items(), *(node.text for node in nodes))) not in self._seen:
                self._saw_sizes(sizes, scope, nodes)
                if len(self._seen) < _MOST_SEEN:
                    self._seen.add(seen)

    def _saw_sizes(self, sizes: Mapping[str, int], scope: Scope, nodes: Iterable[Node]) -> None:
        for dim, size in sizes.items():
            found = self._sizes.setdefault(dim, set())
            if len(found) < _MOST_SIZES:
                found.add(size)
        for pair, is_equal in itertools.chain(_dims(scope, sizes), _literals(scope, sizes, tensor_specs(nodes))):
            (self._equal if is_equal else self._apart).add(pair)

    def record(self) -> BoundaryRecord:
        """Return what is known."""
        return BoundaryRecord(
            self._name,
            self._place,
            self.calls,
            self.rejected,
            dict(self._annotations),
            {parameter: most_frequent(shapes) for parameter, shapes in self._shapes.items()},
            {dim: sorted(sizes) for dim, sizes in self._sizes.items()},
            dict(self._bound),
            sorted(self._equal - self._apart),
            sorted(self._apart),
        )


def _dims(scope: Scope, sizes: Mapping[str, int]) -> Iterator[tuple[Pair, bool]]:
    """Yield the pairs of dims that may differ, and whether they do not."""
    for first, second in itertools.combinations(sorted(sizes), 2):
        tie = _tie(first, scope)
        is_meant = tie is not None and tie == _tie(second, scope)
        if not is_meant and not (_has_one_size(first, scope.limits) and _has_one_size(second, scope.limits)):
            yield (first, second), sizes[first] == sizes[second]


def _literals(scope: Scope, sizes: Mapping[str, int], specs: Iterable[TensorSpec]) -> Iterator[tuple[Pair, bool]]:
    """Yield the dims that may differ from a number in the same tensor, and whether they do not."""
    pairs = {
        (dim.text, literal.text)
        for spec in specs
        for dim in spec.dims
        for literal in spec.dims
        if dim.kind == "named" and literal.kind == "fixed" and dim.text in sizes
    }
    for dim, literal in pairs:
        if _tie(dim, scope) != literal and not _has_one_size(dim, scope.limits):
            yield (dim, literal), sizes[dim] == int(literal)


def _tie(dim: str, scope: Scope) -> str | None:
    """Return the expression that a dim is tied to, if it is."""
    origin = scope.origins.get(dim)
    return origin.source if origin is not None and origin.axis is None else None


def _has_one_size(dim: str, limits: Mapping[str, Sizes]) -> bool:
    return dim in limits and len(limits[dim]) == 1
