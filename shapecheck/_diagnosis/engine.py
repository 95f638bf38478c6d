"""Walks values and annotations together: which bindings satisfy a contract, or everything that breaks it.

The walk is ours, so that every item of every container is seen; the verdict on each tensor is jaxtyping's and on each
plain value beartype's (`_reference`). A compiled fast path belongs in front of `solve`: it may accept, only the walk
rejects.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from .._annotations.nodes import Node, PlainNode, TensorNode, UnionNode, Visit
from .._annotations.reference import check_tensor
from .._annotations.refined import Asked, RefinedNode
from .._annotations.scope import Scope, shape_mismatches
from .._annotations.spec import TensorSpec
from .._render import describe, dtype_name, kind_name
from .._stand_in import library_of
from ..errors import Binding, Mismatch

_MOST_ALTERNATIVES = 4  # of a union, whose reasons are given one by one

_Stack: TypeAlias = "tuple[Visit, _Stack] | None"  # what is left to visit; branches share their tails


@dataclasses.dataclass(frozen=True)
class Failure:
    """A value that breaks its annotation, before diagnosis.

    Attributes:
        path: Path to the value.
        value: The value itself.
        node: What it must be.
        mismatches: What differs, given what the other values bind.
        scope: What the other values bind.
    """

    path: str
    value: Any
    node: Node
    mismatches: tuple[Mismatch, ...]
    scope: Scope


@dataclasses.dataclass
class _Branch:
    """A state of the search: what is left to visit, what waits for dims, and the bindings so far."""

    pending: _Stack
    deferred: _Stack
    scope: Scope
    stuck: int = 0  # how often all that is left was deferred and nothing became ready

    def take(self) -> Visit:
        """Take the next value whose symbolic axes can be evaluated; any, when there is none."""
        while True:
            while self.pending is not None:
                visit, self.pending = self.pending
                # an alternative of a union may bind what others wait for, so unions come before tensors
                if _is_ready(visit[2], self.scope) or self.stuck > (0 if isinstance(visit[2], UnionNode) else 1):
                    self.stuck = 0
                    return visit
                self.deferred = (visit, self.deferred)
            self.stuck = 0 if self._again() else self.stuck + 1

    def _again(self) -> bool:
        """Put what was deferred back in its order; tell whether a first value is ready now."""
        ready = False
        while self.deferred is not None:
            visit, self.deferred = self.deferred
            ready = ready or _is_ready(visit[2], self.scope)
            self.pending = (visit, self.pending)
        return ready


def _stacked(visits: Iterable[Visit], below: _Stack = None) -> _Stack:
    for visit in reversed(list(visits)):
        below = (visit, below)
    return below


def solve(visits: Iterable[Visit], scope: Scope, *, asking: bool = True) -> Iterator[Scope]:
    """Yield every consistent way to bind the dims of `visits`; nothing when there is none.

    More than one way exists only where a union has several alternatives that fit. Tensors whose symbolic axes refer
    to dims not bound yet wait until the others are done, so that the order of the arguments does not matter.
    Branches that meet again with the same dims are one: the cost grows with the bindings and not with the unions.

    Args:
        visits: Values and what they must be.
        scope: Bindings to start from.
        asking: Whether validators and kinds are asked, too.
    """
    search = _Search([_Branch(_stacked(visits), None, scope)], asking)
    while search.branches:
        branch = search.branches.pop()
        while _is_first(branch, search.meetings):
            if branch.pending is None and branch.deferred is None:
                yield branch.scope
                break
            if not _step(branch, search):
                break


@dataclasses.dataclass
class _Meeting:
    """Where the branches of a union meet again, and the bindings with which some already came by."""

    stacks: tuple[_Stack, _Stack]  # held, so that their ids stay theirs
    scopes: list[Scope] = dataclasses.field(default_factory=list[Scope])


@dataclasses.dataclass
class _Search:
    """All branches of a search, and what is known to every one of them."""

    branches: list[_Branch]
    asking: bool
    meetings: dict[tuple[int, int], _Meeting] = dataclasses.field(default_factory=dict[tuple[int, int], _Meeting])
    answers: dict[tuple[str, int], bool] = dataclasses.field(default_factory=dict[tuple[str, int], bool])

    def is_content(self, path: str, value: Any, node: Asked) -> bool:
        """Tell whether validators and kinds have nothing against a value; each is asked once, whatever the branches."""
        if not self.asking:
            return True
        key = (path, id(node))
        if key not in self.answers:
            self.answers[key] = not node.visit(value, path)[0]
        return self.answers[key]


def _is_first(branch: _Branch, meetings: Mapping[tuple[int, int], _Meeting]) -> bool:
    """Tell whether no other branch was here before with the same bindings."""
    meeting = meetings.get((id(branch.pending), id(branch.deferred))) if meetings else None
    if meeting is None:
        return True
    if any(_bind_alike(branch.scope, other) for other in meeting.scopes):
        return False
    meeting.scopes.append(branch.scope)
    return True


def _step(branch: _Branch, search: _Search) -> bool:
    """Check one value of a branch; False when the branch is dead."""
    path, value, node = branch.take()
    if isinstance(node, UnionNode):
        tail = branch.pending, branch.deferred
        search.meetings.setdefault((id(tail[0]), id(tail[1])), _Meeting(tail))
        search.branches += [
            _Branch(((path, value, alternative), tail[0]), tail[1], branch.scope)
            for alternative in reversed(node.alternatives)
            if alternative.accepts_kind(value)
        ]
        return False
    if isinstance(node, TensorNode):
        verdict = check_tensor(node.spec, value, branch.scope, path)
        if isinstance(verdict, Scope):
            branch.scope = verdict
        return isinstance(verdict, Scope)
    if isinstance(node, Asked):
        return search.is_content(path, value, node)
    mismatches, children = node.visit(value, path)
    if isinstance(node, RefinedNode):
        children.append((path, value, node.asked))
    branch.pending = _stacked(children, branch.pending)
    return not mismatches


def _is_ready(node: Node, scope: Scope) -> bool:
    if isinstance(node, UnionNode):
        return all(_is_ready(alternative, scope) for alternative in node.alternatives)
    if isinstance(node, Asked):  # later than what it is about
        return node.needs <= scope.sizes.keys()
    return not isinstance(node, TensorNode) or node.spec.needs <= scope.sizes.keys()


def distinct(scopes: Iterable[Scope]) -> list[Scope]:
    """Drop scopes that bind the same dims to the same sizes."""
    kept: list[Scope] = []
    for scope in scopes:
        if not any(_bind_alike(scope, other) for other in kept):
            kept.append(scope)
    return kept


def _bind_alike(scope: Scope, other: Scope) -> bool:
    return scope.sizes == other.sizes and scope.shapes == other.shapes


# --- everything that is wrong ---------------------------------------------------------------------
@dataclasses.dataclass(frozen=True)
class Findings:
    """What is wrong with a call, and what is not.

    Attributes:
        failures: The values that break their annotations, in parameter order.
        leaves: All tensors, and unions of which more than one alternative is possible.
        scope: Bindings the call started from.
        refined: By path, what asks more of a value than a shape and a dtype can answer.
    """

    failures: list[Failure]
    leaves: list[Visit]
    scope: Scope
    refined: Mapping[str, RefinedNode]

    def leaves_with(self, failure: Failure, value: Any) -> list[Visit]:
        """Return the leaves with another value in place of one that fails."""
        leaves = [(path, value if path == failure.path else other, node) for path, other, node in self.leaves]
        is_leaf = any(path == failure.path for path, _, _ in leaves)
        return leaves if is_leaf else [*leaves, (failure.path, value, failure.node)]


def failures(visits: Iterable[Visit], scope: Scope) -> Findings:
    """Return every value that breaks its annotation, after `solve` found no way to bind the dims.

    A value that fails binds nothing: each failure is judged by what the *other* values say. The values are checked a
    fixed number of times, which does not grow with how many there are or fail.
    """
    parts = _expand(visits)
    failed, scopes = _accept_in_turn(parts.leaves, scope)
    failed = _fewest_culprits(parts.leaves, failed, scopes, scope)
    agreed = next(solve([leaf for leaf in parts.leaves if leaf[0] not in failed], scope), scope)
    found = [_failure(leaf, agreed) for leaf in failed.values()]
    found += [Failure(path, value, node, mismatches, agreed) for (path, value, node), mismatches in parts.broken]
    found += _displeasing(parts.refined, agreed)
    found.sort(key=lambda failure: parts.positions[failure.path])
    return Findings(found, parts.leaves, scope, {path: node for path, _, node in parts.refined if node.validators})


def misfits(visits: Iterable[Visit]) -> list[Visit]:
    """Return the values that break their annotations whatever the dims are: they are not even of the right kind."""
    return [visit for visit in visits if _is_misfit(visit)]


def _is_misfit(visit: Visit) -> bool:
    parts = _expand([visit])
    return bool(parts.broken) or any(not node.accepts_kind(value) for _, value, node in parts.leaves)


def blaming(findings: Findings, path: str) -> Findings | None:
    """Return what is wrong if one accepted value is, and no other; None if the others do not agree without it."""
    leaf = next((leaf for leaf in findings.leaves if leaf[0] == path), None)
    agreed = next(solve([leaf for leaf in findings.leaves if leaf[0] != path], findings.scope), None)
    if leaf is None or agreed is None:
        return None
    return dataclasses.replace(findings, failures=[_failure(leaf, agreed)])


@dataclasses.dataclass(frozen=True)
class _Parts:
    """A call taken apart: tensors and undecided unions, what is wrong with everything else, and where all stood."""

    leaves: list[Visit] = dataclasses.field(default_factory=list[Visit])
    broken: list[tuple[Visit, tuple[Mismatch, ...]]] = dataclasses.field(
        default_factory=list[tuple[Visit, tuple[Mismatch, ...]]]
    )
    refined: list[tuple[str, Any, RefinedNode]] = dataclasses.field(default_factory=list[tuple[str, Any, RefinedNode]])
    positions: dict[str, int] = dataclasses.field(default_factory=dict[str, int])


def _expand(visits: Iterable[Visit]) -> _Parts:
    parts = _Parts()
    pending = _stacked(visits)
    while pending is not None:
        (path, value, declared), pending = pending
        parts.positions.setdefault(path, len(parts.positions))
        node = _decided(declared, value)
        if isinstance(node, TensorNode) or (isinstance(node, UnionNode) and node.accepts_kind(value)):
            parts.leaves.append((path, value, node))
            continue
        mismatches, children = [Mismatch("no-alternative", describe(value), node.text)], list[Visit]()
        if not isinstance(node, UnionNode):
            mismatches, children = node.visit(value, path)
        pending = _stacked(children, pending)
        if isinstance(node, RefinedNode):
            parts.refined.append((path, value, node))
        if mismatches:
            parts.broken.append(((path, value, node), tuple(mismatches)))
    return parts


def _displeasing(refined: Iterable[tuple[str, Any, RefinedNode]], agreed: Scope) -> Iterator[Failure]:
    """Yield the values that validators or kinds refuse, of those that their annotation accepts as it stands."""
    for path, value, node in refined:
        if next(solve([(path, value, node.inner)], agreed), None) is None:
            continue
        mismatches, _ = node.asked.visit(value, path)
        if mismatches:
            yield Failure(path, value, node, tuple(mismatches), agreed)


def _decided(node: Node, value: object) -> Node:
    """Return the alternative that a union comes down to: the only one of the value's kind, or holding tensors."""
    while isinstance(node, UnionNode):
        viable = [alternative for alternative in node.alternatives if alternative.accepts_kind(value)]
        if not viable:
            viable = [alternative for alternative in node.alternatives if not isinstance(alternative, PlainNode)]
        if len(viable) != 1:
            return node
        node = viable[0]
    return node


def _accept_in_turn(leaves: list[Visit], scope: Scope) -> tuple[dict[str, Visit], list[Scope]]:
    """Accept the leaves one by one, in order; return those that contradict the accepted ones, and what these bind."""
    scopes = [scope]
    failed: dict[str, Visit] = {}
    for leaf in sorted(leaves, key=_refers_to_others):
        extended = [wider for narrow in scopes for wider in solve([leaf], narrow)]
        if extended:
            scopes = distinct(extended)
        else:
            failed[leaf[0]] = leaf
    return failed, scopes


def _refers_to_others(leaf: Visit) -> bool:
    return any(node.spec.needs for node in tensor_alternatives(leaf[2]))


def tensor_alternatives(node: Node) -> list[TensorNode]:
    """Return the tensors that a node can stand for: itself, or those among the alternatives of a union."""
    alternatives = node.alternatives if isinstance(node, UnionNode) else [node]
    return [alternative for alternative in alternatives if isinstance(alternative, TensorNode)]


def _fewest_culprits(
    leaves: list[Visit], failed: dict[str, Visit], scopes: list[Scope], scope: Scope
) -> dict[str, Visit]:
    """Blame one accepted value instead of several others when everything else agrees without it.

    It must have bound a dim of each of the others, which leaves few suspects, however many values there are.
    """
    if len(failed) < 2:
        return failed
    first, *others = (_sources(leaf, scopes) for leaf in failed.values())
    suspects = first.intersection(*others)
    for suspect in leaves:
        if suspect[0] in suspects:
            rest = [leaf for leaf in leaves if leaf[0] != suspect[0]]
            if next(solve(rest, scope), None) is not None:
                return {suspect[0]: suspect}
    return failed


def _sources(leaf: Visit, scopes: list[Scope]) -> set[str]:
    """Return the paths of the values that bound the dims which a leaf mentions."""
    specs = [node.spec for node in tensor_alternatives(leaf[2])]
    bindings: Iterable[Binding] = (binding for scope in scopes for spec in specs for binding in scope.bindings_of(spec))
    return {binding.source for binding in bindings if binding.axis is not None}


def _failure(leaf: Visit, agreed: Scope) -> Failure:
    path, value, node = leaf
    if isinstance(node, TensorNode):
        return Failure(path, value, node, tuple(_reasons(node, value, agreed, path)), agreed)
    mismatches = [Mismatch("no-alternative", describe(value), node.text)]
    viable = [alternative for alternative in tensor_alternatives(node) if alternative.accepts_kind(value)]
    for alternative in viable[:_MOST_ALTERNATIVES]:
        reasons = _reasons(alternative, value, agreed, path)
        mismatches += [dataclasses.replace(reason, alternative=alternative.text) for reason in reasons]
    return Failure(path, value, node, tuple(mismatches), agreed)


def _reasons(node: TensorNode, value: Any, scope: Scope, path: str) -> list[Mismatch]:
    """Return what differs; the reference engine's own words where we find no difference."""
    mismatches = tensor_mismatches(node.spec, value, scope)
    return mismatches or [Mismatch("reference", str(check_tensor(node.spec, value, scope, path)), node.text)]


def tensor_mismatches(spec: TensorSpec, value: Any, scope: Scope) -> list[Mismatch]:
    """Compare a value with a tensor spec, given the dims that other values bind."""
    mismatches: list[Mismatch] = []
    if not spec.accepts_array(value):
        mismatches.append(Mismatch("array-kind", kind_name(type(value)), kind_name(spec.annotation.array_type)))
        if library_of(value) == "other":
            return mismatches
    dtype = dtype_name(value.dtype)
    if not spec.accepts_dtype(dtype):
        mismatches.append(Mismatch("dtype", dtype, spec.annotation.dtype.__name__))
    mismatches += [Mismatch("unbound", "", name) for name in sorted(spec.needs - scope.sizes.keys())]
    return mismatches + shape_mismatches(spec, tuple(value.shape), scope)
