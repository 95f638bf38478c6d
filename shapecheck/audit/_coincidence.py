"""Dims that had equal sizes in every recorded call, so that the run says nothing about their order."""

import dataclasses
from collections.abc import Iterable, Sequence

from ._recording import BoundaryRecord, Recording


@dataclasses.dataclass(frozen=True, order=True)
class Coincidence:
    """Dims of one boundary that a run has never told apart.

    Attributes:
        boundary: Name of the boundary.
        place: Where it is defined.
        dims: Two dims or more, or a dim and the number that stands beside it in a tensor.
        sizes: The sizes that they had, 32 at most.
        calls: How many calls the boundary has accepted.
        is_in_all: Whether each of these calls had all the dims.
    """

    boundary: str
    place: str
    dims: tuple[str, ...]
    sizes: tuple[int, ...]
    calls: int
    is_in_all: bool

    def __str__(self) -> str:
        """Return one sentence."""
        names, when = _listed(self.dims), self._when()
        if self.dims[-1].isdigit():
            return f"{self.dims[0]} was {self.dims[1]}, as the axis beside it always is, {when}"
        if len(self.sizes) == 1:
            return f"{names} were {'both' if len(self.dims) == 2 else 'all'} {self.sizes[0]} {when}"
        return f"{names} had the same size ({_listed(map(str, self.sizes))}) {when}"

    def line(self) -> str:
        """Return the same for a list of several boundaries."""
        return f"{self.boundary}{f' ({self.place})' if self.place else ''}: {self}"

    def _when(self) -> str:
        if not self.is_in_all:
            return "in every call that had both" if len(self.dims) == 2 else "in every call that had them"
        return {1: "in the only call", 2: "in both calls"}.get(self.calls, f"in all {self.calls} calls")


def coincidences(recording: Recording) -> list[Coincidence]:
    """Return which dims a run has not told apart, boundary by boundary.

    Left out are dims that are equal on purpose: tied to the same expression, or of one size that the registry of the
    project gives them; and calls that broke their contract.

    Args:
        recording: What the run has shown.
    """
    return sorted(
        Coincidence(
            record.name,
            record.place,
            dims,
            _common_sizes(record, dims),
            record.accepted,
            all(record.bound.get(dim) == record.accepted for dim in dims if not dim.isdigit()),
        )
        for record in recording.boundaries.values()
        for dims in _groups(record)
    )


def heading(found: Sequence[Coincidence]) -> str:
    """Return what coincidences mean, and what to do."""
    return (
        f"{len(found)} coincidence{'s' * (len(found) != 1)} of dims, about whose order nothing is known: call with sizes "
        "that differ (the fixture shapecheck_sizes has them), or tie dims that always agree to one expression"
    )


def _common_sizes(record: BoundaryRecord, dims: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(sorted(set[int].intersection(*(set(record.sizes.get(dim, ())) for dim in dims if not dim.isdigit()))))


def _groups(record: BoundaryRecord) -> list[tuple[str, ...]]:
    """Return the dims that were never told apart, as many as possible together."""
    equal = set(record.always_equal)
    groups: list[tuple[str, ...]] = []
    for first, second in sorted(equal, key=lambda pair: (pair[1].isdigit(), pair)):
        if second.isdigit():
            groups.append((first, second))
            continue
        if any(first in group and second in group for group in groups):
            continue
        others = sorted({dim for pair in equal for dim in pair if not dim.isdigit()} - {first, second})
        group = [first, second]
        for dim in others:
            if all(tuple(sorted((dim, member))) in equal for member in group):
                group.append(dim)
        groups.append(tuple(sorted(group)))
    return groups


def _listed(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
