"""Sizes of dims for calls that are really made: pairwise distinct, and large enough for the bodies they reach."""

from collections.abc import Iterable, Mapping

from ...axes import Sizes as AllowedSizes
from .._made_up import PRIMES, UnmakeableError

_PRIMES = PRIMES[3:]
SERIES = {  # ways to choose sizes, in the order they are tried; a body may want one size to be larger than another
    "primes": _PRIMES,
    "falling primes": _PRIMES[11::-1] + _PRIMES[12:],
    "multiples of 32": tuple(range(32, 32 * 27, 32)),
}
_RUN = 2  # axes that a variadic dim stands for


class RunSizes:
    """Sizes of dims, handed out by name: pairwise distinct, within what the project allows, as pinned by the user.

    Attributes:
        series: Name of the way they are chosen.
        single: The sizes that are known, by dim.
        runs: The same for dims that stand for several axes.

    Args:
        series: A key of `SERIES`.
        pinned: Sizes that are given.
        allowed: Sizes that dims may have, where they are limited.
        taken: Sizes that no free dim should have, such as those that stand in the annotations as numbers.
    """

    def __init__(
        self, series: str, pinned: Mapping[str, int], allowed: Mapping[str, AllowedSizes], taken: Iterable[int] = ()
    ) -> None:
        self.series = series
        self.single = dict(pinned)
        self.runs: dict[str, tuple[int, ...]] = {}
        self._pinned = pinned
        self._allowed = allowed
        self._taken = {*taken, *pinned.values()}

    def is_pinned(self, dim: str) -> bool:
        """Tell whether the size of a dim is given."""
        return dim in self._pinned

    def of(self, dim: str) -> int:
        """Return the size of a dim, choosing one the first time."""
        if dim not in self.single:
            self.single[dim] = self.fresh(self._allowed.get(dim))
        return self.single[dim]

    def run_of(self, dim: str) -> tuple[int, ...]:
        """Return the sizes that a variadic dim stands for; a nameless one has others each time."""
        if not dim:
            return tuple(self.fresh() for _ in range(_RUN))
        if dim not in self.runs:
            self.runs[dim] = tuple(self.fresh() for _ in range(_RUN))
        return self.runs[dim]

    def fresh(self, allowed: AllowedSizes | None = None) -> int:
        """Return a size that nothing has yet; where none is left that is allowed, the largest that is."""
        candidates = SERIES[self.series]
        if allowed is not None:
            small = (size for size in sorted(allowed)[: len(candidates)] if size > 1)
            candidates = [*(size for size in candidates if size in allowed), *small]
        free = next((size for size in candidates if size not in self._taken), None)
        size = free if free is not None else max(allowed or candidates)
        self._taken.add(size)
        return size

    def tie(self, dim: str, size: object, expression: str) -> None:
        """Give a dim the size that an expression has in this call.

        Raises:
            UnmakeableError: It is no size, or the dim is pinned to another.
        """
        if not isinstance(size, int) or size < 0:
            msg = f"{dim} is tied to {expression}, which is {size!r} here and no size"
            raise UnmakeableError(msg)
        if self._pinned.get(dim, size) != size:
            msg = f"{dim} is pinned to {self._pinned[dim]}, and {expression} says {size}"
            raise UnmakeableError(msg)
        self.single[dim] = size
        self._taken.add(size)
