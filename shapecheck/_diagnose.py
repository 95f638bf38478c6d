"""From a failed value to a `Violation`: which diagnosis it is, and which cures were found to work.

A hint is a change that was applied to the failing value (as a view, so nothing is copied) and after which the whole
contract held.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from ._engine import Failure, solve, tensor_mismatches
from ._render import describe
from ._scope import Scope, shape_mismatches
from ._structure import TensorNode, Visit
from .errors import Hint, Location, Mismatch, Violation

_MOST_AXES = 6  # 720 permutations; beyond that no axis order is searched
_MOST_HINTS = 4

_ID_OF_MISMATCH = {
    "axis": "axis-size",
    "ndim": "ndim",
    "dtype": "dtype",
    "array-kind": "type",
    "type": "type",
    "length": "length",
    "missing-key": "missing-key",
    "extra-key": "extra-key",
    "no-alternative": "no-alternative",
    "unbound": "unbound",
    "reference": "reference",
}


@dataclasses.dataclass(frozen=True)
class Place:
    """What a diagnosis says about the place where a contract stands."""

    name: str
    defined: Location | None


def diagnose(
    place: Place, failed: Iterable[Failure], visits: Sequence[Visit], scope: Scope, called: Location
) -> tuple[Violation, ...]:
    """Describe failed values, with the cures that were verified against the whole contract.

    Args:
        place: Where the contract stands.
        failed: The values that break it.
        visits: All values of the call and what they must be.
        scope: Bindings the call started from.
        called: Where the boundary was called.
    """
    failed = list(failed)

    def cures(failure: Failure, value: Any) -> bool:
        if len(failed) > 1:  # the other failures stay: the value must fit what the accepted values bind
            return isinstance(failure.node, TensorNode) and not tensor_mismatches(
                failure.node.spec, value, failure.scope
            )
        return next(solve(visits, scope, {failure.path: value}), None) is not None

    return tuple(_violation(place, failure, cures, called) for failure in failed)


def _violation(place: Place, failure: Failure, cures: Callable[[Failure, Any], bool], called: Location) -> Violation:
    hint = next(filter(None, (diagnosis(failure, cures) for diagnosis in _HINTS)), None)
    return Violation(
        id=_ID_OF_HINT[hint.kind] if hint else _id_of(failure.mismatches),
        boundary=place.name,
        parameter=failure.path,
        expected=failure.node.text,
        got=describe(failure.value),
        mismatches=failure.mismatches,
        bindings=failure.scope.bindings_of(failure.node.spec) if isinstance(failure.node, TensorNode) else (),
        hint=hint,
        defined=place.defined,
        called=called,
    )


def _id_of(mismatches: Sequence[Mismatch]) -> str:
    return _ID_OF_MISMATCH[mismatches[0].kind]


# --- hints: Failure -> Hint | None, in the order in which they are tried --------------------------
def _axes_permuted(failure: Failure, cures: Callable[[Failure, Any], bool]) -> Hint | None:
    """Find the axis orders that satisfy the contract, if the sizes are right and only their order is not."""
    node = failure.node
    if not isinstance(node, TensorNode) or any(mismatch.kind != "axis" for mismatch in failure.mismatches):
        return None
    shape = tuple(failure.value.shape)
    permuted = {order: tuple(shape[axis] for axis in order) for order in _orders(shape)}
    fitting = [order for order, sizes in permuted.items() if not shape_mismatches(node.spec, sizes, failure.scope)]
    name = failure.path.replace("return", "result", 1) if failure.path.startswith("return") else failure.path
    code: list[str] = []
    for order in fitting[:_MOST_HINTS]:
        transpose = getattr(failure.value, "permute", None) or failure.value.transpose
        if cures(failure, transpose(*order)):
            code.append(f"{name}.{transpose.__name__}({', '.join(map(str, order))})")
    return Hint("permute", tuple(code)) if code else None


def _orders(shape: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield the axis orders of a shape, one of each set that lays the same elements out in the same order.

    Axes of size 1 can stand anywhere without moving an element; of such equivalent orders that one is kept which
    moves a last axis forward, as in channel-last data, before any other.
    """
    if not 2 <= len(shape) <= _MOST_AXES:
        return
    identity = tuple(range(len(shape)))
    orders = sorted(itertools.permutations(identity), key=lambda order: (not _moves_last_forward(order), order))
    seen: set[tuple[tuple[int, ...], tuple[int, ...]]] = set()
    for order in orders:
        layout = (tuple(shape[axis] for axis in order), tuple(axis for axis in order if shape[axis] != 1))
        if order != identity and layout not in seen:
            seen.add(layout)
            yield order


def _moves_last_forward(order: Sequence[int]) -> bool:
    last = len(order) - 1
    return (
        order[-1] != last and [axis for axis in order if axis != last] == list(range(last)) and order.index(last) == 1
    )


_HINTS: tuple[Callable[[Failure, Callable[[Failure, Any], bool]], Hint | None], ...] = (_axes_permuted,)
_ID_OF_HINT = {"permute": "axis-order"}
