"""Walks values and annotations together: which bindings satisfy a contract, or everything that breaks it.

The walk is ours, so that every item of every container is seen; the verdict on each tensor is jaxtyping's and on each
plain value beartype's (`_reference`). A compiled fast path belongs in front of `solve`: it may accept, only the walk
rejects.
"""

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ._reference import check_tensor
from ._render import describe, dtype_name, kind_name
from ._scope import Scope, shape_mismatches
from ._spec import TensorSpec
from ._structure import Node, TensorNode, UnionNode, Visit
from .errors import Mismatch

_MOST_SUSPECTS = 32  # the search for a single culprit checks every other value once per suspect


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
    """A state of the search: what is left to visit, and the bindings so far."""

    pending: deque[Visit]
    deferred: deque[Visit]
    scope: Scope


def solve(visits: Iterable[Visit], scope: Scope, replaced: Mapping[str, Any] | None = None) -> Iterator[Scope]:
    """Yield every consistent way to bind the dims of `visits`; nothing when there is none.

    More than one way exists only where a union has several alternatives that fit. Tensors whose symbolic axes refer
    to dims not bound yet wait until the others are done, so that the order of the arguments does not matter.

    Args:
        visits: Values and what they must be.
        scope: Bindings to start from.
        replaced: Values to be taken instead of those found at these paths.
    """
    branches = [_Branch(deque(visits), deque(), scope)]
    while branches:
        branch = branches.pop()
        while branch.pending or branch.deferred:
            if not _step(branch, branches, replaced or {}):
                break
        else:
            yield branch.scope


def _step(branch: _Branch, branches: list[_Branch], replaced: Mapping[str, Any]) -> bool:
    """Check one value of a branch; False when the branch is dead."""
    path, value, node = _take(branch)
    value = replaced.get(path, value)
    if isinstance(node, UnionNode):
        _fork(branch, branches, path, value, node)
        return False
    if isinstance(node, TensorNode):
        verdict = check_tensor(node.spec, value, branch.scope, path)
        if isinstance(verdict, Scope):
            branch.scope = verdict
        return isinstance(verdict, Scope)
    mismatches, children = node.visit(value, path)
    branch.pending.extendleft(reversed(children))
    return not mismatches


def _take(branch: _Branch) -> Visit:
    """Take the next value whose symbolic axes can be evaluated; any, when there is none."""
    while branch.pending:
        visit = branch.pending.popleft()
        if _is_ready(visit, branch.scope):
            return visit
        branch.deferred.append(visit)
    for index, visit in enumerate(branch.deferred):
        if _is_ready(visit, branch.scope):
            del branch.deferred[index]
            return visit
    return branch.deferred.popleft()


def _is_ready(visit: Visit, scope: Scope) -> bool:
    node = visit[2]
    return not isinstance(node, TensorNode) or node.spec.needs <= scope.sizes.keys()


def _fork(branch: _Branch, branches: list[_Branch], path: str, value: Any, node: UnionNode) -> None:
    for alternative in reversed(node.alternatives):
        if alternative.accepts_kind(value):
            pending = deque([(path, value, alternative), *branch.pending])
            branches.append(_Branch(pending, deque(branch.deferred), branch.scope))


# --- everything that is wrong ---------------------------------------------------------------------
def failures(visits: Iterable[Visit], scope: Scope) -> list[Failure]:
    """Return every value that breaks its annotation, after `solve` found no way to bind the dims.

    A value that fails binds nothing: each failure is judged by what the *other* values say.
    """
    leaves, broken = _expand(visits, scope)
    failed = {leaf[0]: leaf for leaf in _greedy_failures(leaves, scope)}
    failed = _fewest_culprits(leaves, failed, scope)
    agreed = next(solve([leaf for leaf in leaves if leaf[0] not in failed], scope), scope)
    return broken + [_failure(leaf, agreed) for leaf in failed.values()]


def _expand(visits: Iterable[Visit], scope: Scope) -> tuple[list[Visit], list[Failure]]:
    """Split a call into tensors and undecided unions, and the failures of everything else."""
    leaves: list[Visit] = []
    broken: list[Failure] = []
    pending = deque(visits)
    while pending:
        path, value, node = pending.popleft()
        viable = [node]
        if isinstance(node, UnionNode):
            viable = [alternative for alternative in node.alternatives if alternative.accepts_kind(value)]
        if not viable:
            broken.append(Failure(path, value, node, (Mismatch("no-alternative", describe(value), node.text),), scope))
        elif len(viable) > 1 or isinstance(viable[0], TensorNode):
            leaves.append((path, value, node if len(viable) > 1 else viable[0]))
        elif viable[0] is not node:
            pending.appendleft((path, value, viable[0]))
        else:
            mismatches, children = node.visit(value, path)
            pending.extendleft(reversed(children))
            if mismatches:
                broken.append(Failure(path, value, node, tuple(mismatches), scope))
    return leaves, broken


def _greedy_failures(leaves: list[Visit], scope: Scope) -> list[Visit]:
    """Accept the leaves one by one, in order, and return those that contradict the accepted ones."""
    scopes = [scope]
    failed: list[Visit] = []
    for leaf in sorted(leaves, key=_refers_to_others):
        extended = [wider for narrow in scopes for wider in solve([leaf], narrow)]
        if extended:
            scopes = distinct(extended)
        else:
            failed.append(leaf)
    return failed


def _refers_to_others(leaf: Visit) -> bool:
    node = leaf[2]
    return isinstance(node, TensorNode) and bool(node.spec.needs)


def distinct(scopes: Iterable[Scope]) -> list[Scope]:
    """Drop scopes that bind the same dims to the same sizes."""
    kept: list[Scope] = []
    for scope in scopes:
        if not any(scope.sizes == other.sizes and scope.shapes == other.shapes for other in kept):
            kept.append(scope)
    return kept


def _fewest_culprits(leaves: list[Visit], failed: dict[str, Visit], scope: Scope) -> dict[str, Visit]:
    """Blame one value instead of several when everything else agrees without it."""
    if len(failed) < 2 or len(leaves) > _MOST_SUSPECTS:
        return failed
    for suspect in leaves:
        others = [leaf for leaf in leaves if leaf[0] != suspect[0]]
        if next(solve(others, scope), None) is not None:
            return {suspect[0]: suspect}
    return failed


def _failure(leaf: Visit, agreed: Scope) -> Failure:
    path, value, node = leaf
    if not isinstance(node, TensorNode):
        return Failure(path, value, node, (Mismatch("no-alternative", describe(value), node.text),), agreed)
    mismatches = tensor_mismatches(node.spec, value, agreed)
    if not mismatches:
        reason = check_tensor(node.spec, value, agreed, path)
        mismatches = [Mismatch("reference", str(reason), node.text)]
    return Failure(path, value, node, tuple(mismatches), agreed)


def tensor_mismatches(spec: TensorSpec, value: Any, scope: Scope) -> list[Mismatch]:
    """Compare a value with a tensor spec, given the dims that other values bind."""
    if not spec.accepts_array(value):
        return [Mismatch("array-kind", kind_name(type(value)), kind_name(spec.annotation.array_type))]
    unbound = [Mismatch("unbound", "", name) for name in sorted(spec.needs - scope.sizes.keys())]
    dtype = dtype_name(value.dtype)
    if not spec.accepts_dtype(dtype):
        unbound.insert(0, Mismatch("dtype", dtype, spec.annotation.dtype.__name__))
    return unbound + shape_mismatches(spec, tuple(value.shape), scope)
