"""From failed values to violations: the facts, the diagnosis they amount to, and the cures that were found to work.

A cure was applied to the failing value, or to a stand-in that carries its class, dtype and shape, and after it the
whole contract held.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from .._annotations.nodes import TensorNode
from .._annotations.scope import Scope
from .._provenance import came_from
from .._render import describe, without_addresses
from ..errors import Binding, Hint, HintKind, Location, Mismatch, Violation
from .engine import Failure, Findings, blaming, solve
from .facts import facts_of, id_of
from .hints import Change, Proposal, proposals

_MOST_HINTS = 4
_MOST_SEARCHED = 16  # violations of one call for which a cure is looked for

_ID_OF_HINT: dict[HintKind, str] = {
    "permute": "axis-order",
    "channels-last": "axis-order",
    "batch": "missing-batch",
    "unsqueeze": "missing-axis",
    "squeeze": "extra-axis",
    "unflatten": "merged-axes",
    "flatten": "split-axes",
    "rename-key": "misspelt-key",
}  # what only a cure that works can tell; otherwise the first fact decides
_BARE_FACTS: tuple[HintKind, ...] = (
    "unflatten",
    "flatten",
)  # it is neither true that one axis is missing nor the opposite


@dataclasses.dataclass(frozen=True)
class Place:
    """What a diagnosis says about the place where a contract stands."""

    name: str
    defined: Location | None


def diagnose(place: Place, findings: Findings, called: Location) -> tuple[Violation, ...]:
    """Describe failed values, with the cures that were verified against the whole contract.

    Args:
        place: Where the contract stands.
        findings: The values that break it, and the others.
        called: Where the boundary was called.
    """
    searched = findings.failures[:_MOST_SEARCHED]
    hints = [_hint(failure, findings) for failure in searched]
    if hints == [None] and (permuted := _permuted_instead(findings)) is not None:
        findings, hints = permuted
    hints += [None] * (len(findings.failures) - len(searched))
    return tuple(
        _violation(place, failure, hint, called) for failure, hint in zip(findings.failures, hints, strict=True)
    )


def _violation(place: Place, failure: Failure, hint: Hint | None, called: Location) -> Violation:
    facts = failure.mismatches if hint and hint.kind in _BARE_FACTS else facts_of(failure)
    facts = tuple(map(_plain, facts))
    return Violation(
        id=_ID_OF_HINT.get(hint.kind, id_of(facts[0])) if hint else id_of(facts[0]),
        boundary=place.name,
        parameter=without_addresses(failure.path),
        expected=failure.node.text,
        got=describe(failure.value),
        mismatches=facts,
        bindings=tuple(map(_plain_binding, _bindings(failure))),
        hint=hint,
        defined=place.defined,
        called=called,
        came_from=came_from(failure.value),
    )


def _bindings(failure: Failure) -> Sequence[Binding]:
    return failure.scope.bindings_of(failure.node.spec) if isinstance(failure.node, TensorNode) else ()


# --- hints ------------------------------------------------------------------------------------------
def _hint(failure: Failure, findings: Findings) -> Hint | None:
    """Return the first kind of change of which at least one satisfies the whole contract."""
    likely = (proposal for proposal in proposals(failure) if not _rests_on_one_range(failure, proposal))
    hints = (_verified(failure, proposal, findings) for proposal in likely)
    return next(filter(None, hints), None)


def _rests_on_one_range(failure: Failure, proposal: Proposal) -> bool:
    """Tell whether another order of axes is proposed only because one size is too large: the size may well be wrong."""
    is_order = _ID_OF_HINT.get(proposal.kind) == "axis-order"
    return is_order and len(failure.mismatches) == 1 and id_of(failure.mismatches[0]) == "axis-range"


def _permuted_instead(findings: Findings) -> tuple[Findings, list[Hint | None]] | None:
    """Return the blame of the value whose dims the only failed one contradicts, if permuting it cures the call.

    The first tensor binds the dims, and one whose axes are permuted binds the wrong sizes. At least two must be
    contradicted: a single size is found among those of a tensor by chance.
    """
    (failure,) = findings.failures
    bindings = [mismatch.binding for mismatch in failure.mismatches]
    sources = {None if binding is None or binding.axis is None else binding.source for binding in bindings}
    source = sources.pop() if len(sources) == 1 and len(bindings) > 1 else None
    other = None if source is None or source == failure.path else blaming(findings, source)
    hint = None if other is None else _hint(other.failures[0], other)
    if other is None or hint is None or _ID_OF_HINT.get(hint.kind) != "axis-order":
        return None
    return other, [hint]


def _verified(failure: Failure, proposal: Proposal, findings: Findings) -> Hint | None:
    code: list[str] = []
    for change in proposal.changes:
        if _cures(failure, change, findings):
            code.append(change.code)
        if len(code) > _MOST_HINTS:
            break
    if not code:
        return None
    return Hint(proposal.kind, tuple(filter(None, code[:_MOST_HINTS])), complete=len(code) <= _MOST_HINTS)


def _cures(failure: Failure, change: Change, findings: Findings) -> bool:
    """Tell whether the whole contract holds with a changed value in place of one that fails.

    Where more than one value fails the others stay: it must then fit what the accepted values bind.
    """
    if not _holds([(failure.path, change.value, failure.node)], failure.scope) or not _is_valid(
        failure, change, findings
    ):
        return False
    if len(findings.failures) > 1:
        return True
    return _holds(findings.leaves_with(failure, change.value), findings.scope)


def _is_valid(failure: Failure, change: Change, findings: Findings) -> bool:
    """Tell whether a changed value passes its validators; they cannot look at one that would have to be computed."""
    refined = findings.refined.get(failure.path)
    return refined is None or (change.view is not None and refined.is_valid(change.view(failure.value)))


def _holds(visits: Sequence[Any], scope: Scope) -> bool:
    return next(solve(visits, scope), None) is not None


# --- symbolic sizes, as they occur while a graph is traced, are no data -----------------------------
def _plain(mismatch: Mismatch) -> Mismatch:
    if mismatch.binding is None:
        return mismatch
    return dataclasses.replace(mismatch, binding=_plain_binding(mismatch.binding))


def _plain_binding(binding: Binding) -> Binding:
    size = binding.size
    plain = tuple(map(_plain_size, size)) if isinstance(size, tuple) else _plain_size(size)
    return dataclasses.replace(binding, size=plain)


def _plain_size(size: Any) -> int | str:
    """Return a size as an int, or the name of one that is not known yet."""
    return size if type(size) is int else str(size)
