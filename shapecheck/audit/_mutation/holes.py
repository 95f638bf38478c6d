"""What a contract does not notice, in one sentence for each reason, and the smallest change that closes it.

A repair is built and judged like the contract itself: it is said only if all that the hole lets through is then caught.
Where no change of an annotation could do that, the hole says so.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jaxtyping

from ..._annotations.nodes import MappingNode, Node, TensorNode, TupleNode, TypedDictNode, UnionNode
from ..._annotations.scope import Scope, align
from ..._annotations.spec import Dim, TensorSpec
from ..._diagnosis.engine import solve
from ...kinds import Kind
from .judge import Judge
from .leaves import Leaf, containers_of
from .mutants import Change, Family

_ONLY_CONTENT = "no contract on shapes tells them apart: test the content, as with assert_axis_map"
_EACH_OTHER = "are interchangeable"
_UNKNOWN = "no change of one annotation was found that closes it"


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One change of a valid call, judged.

    Attributes:
        family: Of which kind it is.
        target: Path of what was changed; of two values that were swapped, both.
        change: What was changed.
        caught: Whether the contract refuses it.
    """

    family: Family
    target: str
    change: str
    caught: bool


@dataclasses.dataclass(frozen=True)
class Hole:
    """Something that a contract does not notice.

    Attributes:
        targets: Paths of the values that it is about.
        what: What is not noticed, in words.
        repair: What closes it.
        mutants: The changes that go unnoticed for this reason.
        is_verified: Whether the repair was built, and catches all of them; otherwise it is advice.
    """

    targets: tuple[str, ...]
    what: str
    repair: str
    mutants: tuple[Mutant, ...]
    is_verified: bool = True

    @property
    def predicate(self) -> str:
        """What is not noticed, without the targets: alike for holes of one sort."""
        return self.what.removeprefix(f"{', '.join(self.targets)}: ").removeprefix(f"{_listed(self.targets)} ")

    def __str__(self) -> str:
        """Return the hole and its repair in one line."""
        return f"{self.what}: {self.repair}"


@dataclasses.dataclass(frozen=True)
class Finding:
    """A hole of one value, or of values that stand for each other; the same of several values is one hole."""

    targets: tuple[str, ...]
    predicate: str
    repair: str
    changes: tuple[Change, ...]
    is_verified: bool = True

    @property
    def sort(self) -> tuple[Any, ...]:
        """What findings that are one hole have in common."""
        return (self.predicate, self.repair, self.is_verified, self.targets if self.predicate == _EACH_OTHER else ())


def mutant_of(change: Change, caught: bool) -> Mutant:
    """Return a judged change as data."""
    return Mutant(change.family, ", ".join(change.targets), change.text, caught)


def findings_of(judge: Judge, survivors: Sequence[Change]) -> list[Finding]:
    """Return why some changes are not noticed, each with a repair that was tried."""
    found: list[Finding] = []
    for (reason, targets), group in _grouped(survivors):
        found += _EXPLAIN[reason](judge, targets, group)
    return found


def holes_of(findings: Iterable[Finding]) -> list[Hole]:
    """Return findings as data: those that say the same of several values are one hole."""
    groups: dict[Any, list[Finding]] = {}
    for finding in findings:
        groups.setdefault(finding.sort, []).append(finding)
    return [_hole(same) for same in groups.values()]


def _grouped(survivors: Iterable[Change]) -> list[tuple[tuple[str, tuple[str, ...]], list[Change]]]:
    groups: dict[tuple[str, tuple[str, ...]], list[Change]] = {}
    for change in survivors:
        reason = _REASONS[change.family]
        groups.setdefault((reason, () if reason == "swapped" else change.targets), []).append(change)
    return list(groups.items())


_REASONS: dict[Family, str] = {
    "permuted": "order",
    "dropped": "ndim",
    "added": "ndim",
    "merged": "ndim",
    "resized": "size",
    "dtype": "dtype",
    "complex": "dtype",
    "swapped": "swapped",
    "length": "length",
    "keys": "keys",
}


def _hole(findings: Sequence[Finding]) -> Hole:
    first = findings[0]
    targets = tuple(dict.fromkeys(target for finding in findings for target in finding.targets))
    subject = f"{_listed(targets)} " if first.predicate == _EACH_OTHER else f"{', '.join(targets)}: "
    mutants = tuple(mutant_of(change, caught=False) for finding in findings for change in finding.changes)
    return Hole(targets, f"{subject}{first.predicate}", first.repair, mutants, first.is_verified)


def _listed(words: Sequence[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


# --- the order of axes ----------------------------------------------------------------------------------
def _order(judge: Judge, targets: tuple[str, ...], changes: list[Change]) -> Iterator[Finding]:
    leaf = judge.leaves[targets[0]]
    shape = leaf.value.shape
    blind = [change for change in changes if _shape_in(change) == shape]
    seen = [change for change in changes if _shape_in(change) != shape]
    names = _names(leaf)
    for group in _moved(blind, lambda one, other: shape[one] == shape[other]):
        inside = tuple(change for change in blind if any(change.axes[axis] != axis for axis in group))
        predicate = f"the axes {_listed([names[axis] for axis in group])} are interchangeable"
        yield Finding(targets, predicate, _ONLY_CONTENT, inside, is_verified=False)
    groups = _moved(seen, lambda one, other: shape[one] != shape[other])
    if seen:
        texts = [f"{_listed([names[axis] for axis in group])} are interchangeable" for group in groups]
        repair, is_verified = _binding(judge, leaf, [axis for group in groups for axis in group], seen)
        yield Finding(targets, ", and ".join(texts), repair, tuple(seen), is_verified)


def _shape_in(change: Change) -> tuple[int, ...]:
    return next(iter(change.edits.values())).shape


def _moved(changes: Sequence[Change], counts: Callable[[int, int], bool]) -> list[list[int]]:
    """Return the sets of axes that change places among themselves."""
    groups: list[set[int]] = []
    for change in changes:
        for pair in ({place, axis} for place, axis in enumerate(change.axes) if place != axis and counts(place, axis)):
            touching = [group for group in groups if group & pair]
            groups = [group for group in groups if not group & pair] + [pair.union(*touching)]
    return sorted(sorted(group) for group in groups)


def _dims(leaf: Leaf) -> list[Dim]:
    return [dim for axes, dim in align(leaf.node.spec, len(leaf.value.shape)) for _ in axes]


def _names(leaf: Leaf) -> list[str]:
    """Return how each axis is called; one of several that a dim stands for, or that has no name, by its number."""
    return [
        dim.text if dim.kind not in {"anonymous", "variadic"} else f"axis {axis} ({_marked(dim)})"
        for axis, dim in enumerate(_dims(leaf))
    ]


def _marked(dim: Dim) -> str:
    return "_" if dim.kind == "anonymous" else f"*{dim.text}" if dim.text else "..."


# --- binding and numbers ---------------------------------------------------------------------------------
def _binding(judge: Judge, leaf: Leaf, axes: Sequence[int], changes: Sequence[Change]) -> tuple[str, bool]:
    """Return the smallest set of axes of which it is enough to fix the size, in words, and whether one was found."""
    for count in range(1, len(axes) + 1):
        for chosen in itertools.combinations(sorted(axes, reverse=True), count):
            ways = [way for way in ("name", "number") if _closes(judge, leaf, dict.fromkeys(chosen, way), changes)]
            if ways:
                return _fixing(leaf, sorted(chosen), ways), True
    return _UNKNOWN, False


def _fixing(leaf: Leaf, axes: Sequence[int], ways: Sequence[str]) -> str:
    names, dims = _listed([_names(leaf)[axis] for axis in axes]), _dims(leaf)
    bind = "bind" if all(dims[axis].kind == "named" for axis in axes) else "name and bind"
    them = "it" if len(axes) == 1 else "them"
    texts = {"name": f"{bind} {names} in another argument", "number": f"make {names} literal"}
    if len(ways) == len(texts):
        return f"{texts['name']}, or make {them} literal"
    return texts[ways[0]]


def _closes(judge: Judge, leaf: Leaf, fixed: Mapping[int, str], changes: Iterable[Change]) -> bool:
    """Tell whether a contract that fixes the size of some axes catches all changes, and still accepts the valid call."""
    ties: dict[str, int] = {}
    specs = [_with_fixed(spec, leaf, fixed, ties) for spec in leaf.specs]
    return _catches(judge.repaired(ties, {leaf.path: _node_of(specs)}), changes)


def _catches(judge: Judge, changes: Iterable[Change]) -> bool:
    valid = Change("permuted", (), "", {})
    return judge.accepts(valid) and not any(judge.accepts(change) for change in changes)


def _with_fixed(spec: TensorSpec, leaf: Leaf, fixed: Mapping[int, str], ties: dict[str, int]) -> TensorNode:
    """Return a tensor with numbers, or names that something else binds, in place of what stands for some axes."""
    shape, words = leaf.value.shape, list[str]()
    for (axes, dim), word in zip(align(spec, len(shape)), spec.annotation.dim_str.split(), strict=True):
        if fixed.keys().isdisjoint(axes):
            words.append(word)
            continue
        for axis in axes:
            name = dim.text if dim.kind == "named" else f"axis{axis}"
            how = fixed.get(axis)
            words.append({"number": str(shape[axis]), "name": name, None: "_"}[how])
            if how == "name":
                ties[name] = shape[axis]
    return _tensor(spec, " ".join(words))


def _tensor(spec: TensorSpec, dims: str, dtype: Any = None) -> TensorNode:
    annotation = spec.annotation
    return TensorNode((dtype or annotation.dtype)[annotation.array_type, dims])


def _node_of(nodes: Sequence[TensorNode]) -> Node:
    return nodes[0] if len(nodes) == 1 else UnionNode("", list(nodes))


# --- everything else ---------------------------------------------------------------------------------------
def _size(judge: Judge, targets: tuple[str, ...], changes: list[Change]) -> Iterator[Finding]:
    leaf = judge.leaves[targets[0]]
    for axis in sorted({change.axes[0] for change in changes}):
        concerned = tuple(change for change in changes if change.axes[0] == axis)
        repair, is_verified = _binding(judge, leaf, [axis], concerned)
        yield Finding(targets, f"{_names(leaf)[axis]} is not held to one size", repair, concerned, is_verified)


def _ndim(judge: Judge, targets: tuple[str, ...], changes: list[Change]) -> Iterator[Finding]:
    leaf = judge.leaves[targets[0]]
    spec, shape = leaf.node.spec, leaf.value.shape
    marked = "" if spec.variadic is None else _marked(spec.dims[spec.variadic])
    repair, is_verified = _UNKNOWN, False
    if marked:
        words = [
            word
            for (axes, dim), text in zip(align(spec, len(shape)), spec.annotation.dim_str.split(), strict=True)
            for word in (["_"] * len(axes) if dim.kind == "variadic" else [text])
        ]
        is_verified = _catches(judge.repaired({}, {leaf.path: _tensor(spec, " ".join(words))}), changes)
        repair = f"write out the axes that {marked} stands for" if is_verified else _UNKNOWN
    yield Finding(targets, "the number of axes may differ", repair, tuple(changes), is_verified)


def _dtype(judge: Judge, targets: tuple[str, ...], changes: list[Change]) -> Iterator[Finding]:
    leaf = judge.leaves[targets[0]]
    mine = str(leaf.value.dtype)
    others = list(dict.fromkeys(change.text.partition(",")[0] for change in changes))
    exact = next(
        (
            kind
            for name in dir(jaxtyping)
            if name.lower() == mine and hasattr(kind := getattr(jaxtyping, name), "dtypes")
        ),
        None,
    )
    nodes = [] if exact is None else [_tensor(spec, spec.annotation.dim_str, exact) for spec in leaf.specs]
    is_verified = bool(nodes) and _catches(judge.repaired({}, {leaf.path: _node_of(nodes)}), changes)
    repair = f"write {exact.__name__} if nothing else is meant" if exact is not None and is_verified else _UNKNOWN
    yield Finding(targets, f"{_listed(others)} may stand for {mine}", repair, tuple(changes), is_verified)


class _Which(Kind):
    """Two meanings that exclude each other."""

    ONE = "the first of two values"
    OTHER = "the second"


def _swapped(judge: Judge, targets: tuple[str, ...], changes: list[Change]) -> Iterator[Finding]:
    """Yield the sets of values of which each may stand for each other."""
    del targets
    groups: list[set[str]] = []
    for change in changes:
        pair = set(change.targets)
        groups = [group for group in groups if not group & pair] + [
            pair.union(*(group for group in groups if group & pair))
        ]
    for group in groups:
        inside = tuple(change for change in changes if group.issuperset(change.targets))
        paths = tuple(path for path in judge.leaves if path in group)
        is_verified = all(judge.refuses_if_declared(change, _Which.ONE, _Which.OTHER) for change in inside)
        repair = "declare of what kind each is (shapecheck.Kind)" if is_verified else _UNKNOWN
        yield Finding(paths, _EACH_OTHER, repair, inside, is_verified)


def _length(judge: Judge, targets: tuple[str, ...], changes: list[Change]) -> Iterator[Finding]:
    """Yield that a container of any length may be empty, with what has a length of its own instead."""
    path, value, node = next(visit for visit in containers_of(judge.stage.roots) if visit[0] == targets[0])
    fixed, name = _of_fixed_length(value, node)
    empty = next(iter(changes[0].edits.values()))
    made = value if isinstance(fixed, TypedDictNode) else tuple(value)
    accepts = any(next(solve([(path, made, fixed)], scope, asking=False), None) for scope in judge.stage.before)
    refuses = next(solve([(path, empty if made is value else (), fixed)], Scope({}), asking=False), None) is None
    repair = f"write {name} where its length is known"
    yield Finding(targets, "nothing is checked when it is empty", repair, tuple(changes), accepts and refuses)


def _of_fixed_length(value: Any, node: Any) -> tuple[Node, str]:
    if not isinstance(node, MappingNode):
        return TupleNode("", [node.item] * len(value)), "a tuple with an annotation for each item"
    fixed = TypedDictNode("")
    fixed.fields, fixed.required = dict.fromkeys(value, node.value), set(value)
    return fixed, "a TypedDict"


def _keys(judge: Judge, targets: tuple[str, ...], changes: list[Change]) -> Iterator[Finding]:
    del judge
    for change in changes:
        yield Finding(targets, f"{change.text} it passes", _UNKNOWN, (change,), is_verified=False)


_Explain = Callable[[Judge, tuple[str, ...], list[Change]], Iterator[Finding]]

_EXPLAIN: dict[str, _Explain] = {
    "order": _order,
    "ndim": _ndim,
    "size": _size,
    "dtype": _dtype,
    "swapped": _swapped,
    "length": _length,
    "keys": _keys,
}
