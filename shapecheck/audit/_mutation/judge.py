"""Asks the engine of the contracts about changed calls: nothing here decides anything.

A change of one tensor is judged against what the other values bind, which is found once; where the order of the
values may matter, or an expression reads what was changed, everything is judged anew.
"""

from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, cast

from ..._annotations.nodes import Node, PlainNode, TensorNode, UnionNode, Visit, tensor_specs
from ..._annotations.refined import RefinedNode
from ..._annotations.scope import Scope
from ..._annotations.spec import BRACES
from ..._annotations.structure import annotation_key
from ..._diagnosis.engine import distinct, solve
from ..._stand_in import StandIn, array_class
from ..._syntax import parse_expression
from ...kinds import Kind
from .._made_up import UnmakeableError
from .leaves import Leaf, leaves_of, viable_alternatives
from .mutants import Change
from .shells import Shell, attributes_of
from .sizes import chains
from .specimen import Specimen, Stage, tied_scopes


class Judge:
    """Tells which changes of one stage of a valid call its contract accepts.

    Args:
        specimen: The call.
        stage: The stage.
        ties: Dims that are bound besides, with their sizes.
        nodes: What the values at some paths must be instead of what the contract says.

    Attributes:
        asked: How many times the engine was asked.
    """

    def __init__(
        self,
        specimen: Specimen,
        stage: Stage,
        ties: Mapping[str, int] | None = None,
        nodes: Mapping[str, Node] | None = None,
    ) -> None:
        self.specimen = specimen
        self.stage = stage
        self.leaves = {leaf.path: leaf for leaf in leaves_of(stage.roots)}
        self.asked = 0
        self._ties = ties or {}
        self._atoms = [(path, value, (nodes or {}).get(path, node)) for path, value, node in _atoms(stage.roots)]
        self._before = self._tied(stage.before)
        self._read = _read_by_expressions(specimen, stage) if stage is specimen.stages[0] else frozenset[int]()
        specs = tensor_specs(node for _, _, node in self._atoms)
        self._in_order = any(spec.needs or any(dim.broadcastable for dim in spec.dims) for spec in specs)
        self._places = {id(value): place for place, (_, value, _) in enumerate(self._atoms)}
        self._others: dict[tuple[int, ...], list[Scope]] = {}
        self._sorts: dict[int, Any] = {}
        self._verdicts: dict[Any, bool] = {}

    def _tied(self, scopes: Sequence[Scope]) -> list[Scope]:
        for dim, size in self._ties.items():
            scopes = [scope.tie(dim, size, "a repair") for scope in scopes]
        return list(scopes)

    def repaired(self, ties: Mapping[str, int], nodes: Mapping[str, Node]) -> "Judge":
        """Return the judge of a contract that says more."""
        return Judge(self.specimen, self.stage, ties, nodes)

    def accepts(self, change: Change) -> bool:
        """Tell whether the contract accepts a changed call."""
        if not all(type(value) is StandIn for value in change.edits.values()):
            visits = [(path, rebuilt(value, change.edits), node) for path, value, node in self.stage.roots]
            return self._solve(visits, self._before_changed(change.edits))
        key = tuple((self._sort(at), value.dtype, value.shape) for at, value in change.edits.items())
        if key not in self._verdicts:
            self._verdicts[key] = self._accepts_tensors(change)
        accepted = self._verdicts[key]
        if accepted and change.family == "swapped":
            one, other = (self.leaves[path] for path in change.targets)
            return not _exclude_each_other(one.kinds, other.kinds) or self._accepts_kinds(one, other)
        return accepted

    def _accepts_tensors(self, change: Change) -> bool:
        places = [self._places.get(at) for at in change.edits]
        if self._in_order or None in places or not self._read.isdisjoint(change.edits):
            visits = [(path, rebuilt(value, change.edits), node) for path, value, node in self._atoms]
            return self._solve(visits, self._before_changed(change.edits))
        known = tuple(cast("list[int]", places))
        visits = [(path, change.edits[id(value)], node) for path, value, node in (self._atoms[at] for at in known)]
        return self._solve(visits, self._bound_by_others(known))

    def _sort(self, at: int) -> Any:
        """Return what tensors of one annotation that meet the same dims have in common: one verdict holds for all."""
        if at not in self._sorts:
            place = self._places.get(at)
            self._sorts[at] = at
            if place is not None and not self._in_order and at not in self._read:
                scopes, node = self._bound_by_others((place,)), self._atoms[place][2]
                if isinstance(node, TensorNode) and len(scopes) == 1:
                    bound = frozenset(scopes[0].sizes.items()), frozenset(scopes[0].shapes.items())
                    self._sorts[at] = (annotation_key(node.spec.annotation), *bound)
        return self._sorts[at]

    def _bound_by_others(self, at: tuple[int, ...]) -> list[Scope]:
        if at not in self._others:
            rest = [atom for index, atom in enumerate(self._atoms) if index not in at]
            found = (wider for scope in self._before for wider in solve(rest, scope, asking=False))
            self._others[at] = distinct(found)
        return self._others[at]

    def _before_changed(self, edits: Mapping[int, Any]) -> list[Scope]:
        """Return what is bound before a changed call is judged; nothing if an expression of the contract raises."""
        if self._read.isdisjoint(edits):
            return self._before
        try:
            arguments = rebuilt(self.specimen.arguments, edits)
            return self._tied(tied_scopes(self.specimen.subject.boundary, arguments))
        except UnmakeableError:
            return []

    def _solve(self, visits: list[Visit], scopes: Sequence[Scope], *, asking: bool = False) -> bool:
        self.asked += 1
        return any(next(solve(visits, scope, asking=asking), None) is not None for scope in scopes)

    def _accepts_kinds(self, one: Leaf, other: Leaf) -> bool:
        """Tell whether two tensors are accepted in each other's place when each was declared what it is."""
        edits = _exchanged(one, other, one.kinds, other.kinds)
        visits = [(path, rebuilt(value, edits), node) for path, value, node in self.stage.roots]
        return self._solve(visits, self._before, asking=True)

    def refuses_if_declared(self, change: Change, kind: Kind, other_kind: Kind) -> bool:
        """Tell whether two tensors are refused in each other's place when they are declared to be of two kinds."""
        one, other = (self.leaves[path] for path in change.targets)
        kinds = {one.path: (kind,), other.path: (other_kind,)}
        if not kinds.keys() <= {path for path, _, _ in self._atoms}:
            return False
        edits = _exchanged(one, other, (kind,), (other_kind,))
        visits = [
            (path, rebuilt(value, edits), RefinedNode(node, [], kinds[path]) if path in kinds else node)
            for path, value, node in self._atoms
        ]
        return not self._solve(visits, self._before, asking=True)


def _atoms(roots: Sequence[Visit]) -> list[Visit]:
    """Take values apart down to tensors, and unions whose alternatives hold tensors."""
    found: list[Visit] = []
    pending = deque(roots)
    while pending:
        path, value, node = pending.popleft()
        while isinstance(node, UnionNode) and len(viable := viable_alternatives(node, value)) == 1:
            node = viable[0]
        if isinstance(node, (TensorNode, UnionNode)):
            if tensor_specs([node]):
                found.append((path, value, node))
        elif not isinstance(node, PlainNode):
            pending.extendleft(reversed(node.visit(value, path)[1]))
    return found


def _read_by_expressions(specimen: Specimen, stage: Stage) -> frozenset[int]:
    """Return the ids of the values that expressions of the contract read on their way to a size."""
    specs = tensor_specs(node for _, _, node in stage.roots)
    braces = [part for spec in specs for dim in spec.dims for part in BRACES.findall(dim.text)]
    found = set[int]()
    for expression in (*specimen.subject.ties.values(), *braces):
        for steps, *_ in chains(parse_expression(expression).body):
            found.update(_on_the_way(specimen.arguments, steps))
    return frozenset(found)


def _on_the_way(arguments: Mapping[str, Any], steps: Sequence[str]) -> Iterator[int]:
    """Yield the ids of what a chain of names passes; of a container that it ends at, also those of what is inside."""
    inside: Mapping[str, Any] = arguments
    for step in steps:
        value = inside.get(step)
        yield id(value)
        if type(value) is not Shell:
            yield from map(id, _contents(value))
            return
        inside = attributes_of(value)


def _contents(value: Any) -> Iterator[Any]:
    """Yield everything inside containers."""
    if type(value) is StandIn or isinstance(value, (str, bytes)) or not isinstance(value, Collection):
        return
    items: Any = cast("Any", value)
    for item in items.values() if isinstance(value, Mapping) else items:
        yield item
        yield from _contents(item)


def rebuilt(value: Any, edits: Mapping[int, Any]) -> Any:
    """Return a value with others in place of some values inside it; itself, if it holds none of them."""
    if id(value) in edits:
        return edits[id(value)]
    if type(value) is StandIn:
        return value
    if type(value) is Shell:
        inner = attributes_of(value)
        changed: dict[str, Any] = {name: rebuilt(item, edits) for name, item in inner.items()}
        return value if _same(inner, changed) else Shell(value.__class__, changed)
    if isinstance(value, Mapping):
        known = cast("Mapping[Any, Any]", value)
        entries = {key: rebuilt(item, edits) for key, item in known.items()}
        return known if _same(known, entries) else cast("Any", type(known))(entries)
    if isinstance(value, Collection) and not isinstance(value, (str, bytes)):
        items = cast("Collection[Any]", value)
        changed_items = [rebuilt(item, edits) for item in items]
        same = all(item is other for item, other in zip(items, changed_items, strict=True))
        return items if same else cast("Any", type(items))(changed_items)
    return value


def _same(one: Mapping[Any, Any], other: Mapping[Any, Any]) -> bool:
    return all(other[key] is item for key, item in one.items())


# --- kinds --------------------------------------------------------------------------------------------
def _exclude_each_other(kinds: Sequence[Kind], others: Sequence[Kind]) -> bool:
    return any(type(kind) is type(other) and kind is not other for kind in kinds for other in others)


def _exchanged(one: Leaf, other: Leaf, kinds: Sequence[Kind], others: Sequence[Kind]) -> dict[int, Any]:
    """Return two tensors in each other's place, each declared to be what it was made for."""
    return {id(one.value): _declared(other.value, others), id(other.value): _declared(one.value, kinds)}


def _declared(value: StandIn, kinds: Sequence[Kind]) -> Any:
    """Return an array without data that is declared to be what it was made for."""
    kind: Any = value.__class__
    torch = array_class("torch")
    if torch is not None and issubclass(kind, torch):
        import torch as library

        array = library.empty(value.shape, dtype=getattr(library, str(value.dtype)), device="meta")
        array = array if kind is torch else kind(array)
    else:
        import numpy as np

        array = np.broadcast_to(np.zeros((), str(value.dtype)), value.shape)
    for one in kinds:
        one.declare(array)
    return array
