"""Diffraction patterns that stay in their file until they are read, a few at a time.

Owns what makes stored numbers amplitudes, and every complaint about their values. A `Patterns` can be sent to other
processes, which open the file for themselves when they first read from it.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple, NoReturn

import numpy as np

from ptycho_torch.contracts import BadPixels, PatternAmplitude, PatternIndices, ScanAmplitude
from ptycho_torch.formats.entry import Entry
from ptycho_torch.formats.limits import block_length
from shapecheck import contract

__all__ = ["ArrayPatterns", "Patterns", "refuse_counts"]

_REACH = 2  # a bad pixel takes the median of the good ones in the 5 x 5 around it, further only where none is good


class _Fill(NamedTuple):
    """A bad pixel, and the good ones whose median it takes."""

    row: int
    column: int
    rows: np.ndarray
    columns: np.ndarray


class Patterns(ABC):
    """The patterns of a scan, in their file.

    Args:
        entry: What the file declares.
        bad: Detector pixels that hold nothing; filled with the median counts of the good ones around them.

    Attributes:
        entry: For errors.
        bad: None where every pixel is good.
        holds_counts: Whether the file holds counts and not their square roots.
        random_access: Whether any pattern can be read without reading those before it.

    Raises:
        ScanError: The file declares no stack of square patterns.
    """

    holds_counts: ClassVar[bool]
    random_access: bool = True

    def __init__(self, entry: Entry, bad: BadPixels | None = None) -> None:
        _expect_stack(entry)
        self.entry, self.bad = entry, bad
        self._fills = () if bad is None else tuple(_fills(entry, bad))

    def __len__(self) -> int:
        return self.entry.shape[0]

    def __getstate__(self) -> dict[str, Any]:
        # How the entry would be fetched belongs to a file that is open in this process.
        return self.__dict__ | {"entry": replace(self.entry, fetch=_fetch_nothing)}

    @property
    def side(self) -> int:
        """N, pixels."""
        return self.entry.shape[-1]

    @abstractmethod
    def stored(self, start: int, stop: int) -> np.ndarray:
        """Read consecutive patterns as they stand in the file."""

    def stored_blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Read everything once, in order, as it stands in the file."""
        step = block_length(self.side)
        for start in range(0, len(self), step):
            yield start, self.stored(start, min(start + step, len(self)))

    def expect_random_access(self) -> None:
        """Refuse a file in which patterns can only be read one after the other.

        Raises:
            ScanError: It is one; tells what to convert it to.
        """
        if not self.random_access:
            fix = f"Convert it first: ptycho-torch convert {self.entry.path.name} {self.entry.path.stem}.cxi."
            self.entry.fail("a file whose patterns can be read in any order", "a compressed NPZ archive", fix)

    @contract
    def read(self, indices: PatternIndices) -> PatternAmplitude:
        """Read some patterns, in the order asked for; each run of neighbours in the file is read at once.

        Raises:
            ScanError: The file is damaged, holds what is no amplitude, or can only be read from its start.
        """
        self.expect_random_access()
        wanted, places = np.unique(indices, return_inverse=True)
        runs = np.split(wanted, np.flatnonzero(np.diff(wanted) > 1) + 1)
        parts = [self._amplitude(int(run[0]), self.stored(int(run[0]), int(run[-1]) + 1)) for run in runs]
        return np.concatenate(parts)[places]

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Read everything once, a block at a time; what only the whole can show is judged at the end.

        Yields:
            The index of the first pattern of a block, and its amplitudes.

        Raises:
            ScanError: The file is damaged, holds what is no amplitude, or nothing but zeros.
        """
        largest, whole = 0.0, not self.holds_counts
        for start, stored in self.stored_blocks():
            amplitude = self._amplitude(start, stored)
            largest = max(largest, float(amplitude.max()))
            whole = whole and np.array_equal(amplitude, np.rint(amplitude))
            yield start, amplitude
        if not largest:
            self.entry.fail("measured amplitudes", "only zeros")
        # sqrt(counts) is whole only where every count is a square: beyond 0 and 1 no measured scan does that.
        # Counts that were scaled or background-corrected are not whole: nothing in such a file gives them away.
        if whole and largest > 1:
            refuse_counts(self.entry)

    @contract
    def load(self) -> PatternAmplitude:
        """Read everything into memory.

        Raises:
            ScanError: It does not fit, the file is damaged, holds what is no amplitude, or nothing but zeros.
        """
        self.entry.expect_fits(4 * self.entry.size)
        amplitude = np.empty(self.entry.shape, np.float32)
        for start, block in self.blocks():
            amplitude[start : start + len(block)] = block
        return amplitude

    def held(self) -> "ArrayPatterns":
        """Return the same patterns in memory, judged once and for all.

        Raises:
            ScanError: As for `load`.
        """
        return ArrayPatterns(self.entry, self.load(), self.bad)

    def _amplitude(self, start: int, stored: np.ndarray) -> np.ndarray:
        values = stored if stored.dtype == np.float32 else stored.astype(np.float64)
        if self._fills:
            values = values.copy()
        for fill in self._fills:
            good = values[:, fill.rows, fill.columns]
            counts = np.median(good if self.holds_counts else np.square(good), axis=1)
            values[:, fill.row, fill.column] = counts if self.holds_counts else np.sqrt(counts)
        self._expect_values(start, values)
        return np.ascontiguousarray(np.sqrt(values) if self.holds_counts else values, np.float32)

    def _expect_values(self, start: int, values: np.ndarray) -> None:
        where = "" if len(values) == len(self) else f", in patterns {start} to {start + len(values) - 1}"
        bad = values.size - np.count_nonzero(np.isfinite(values))
        if bad:
            self.entry.fail("finite values", f"{bad} NaN or infinite of {values.size}{where}")
        negative = np.count_nonzero(values < 0)
        if negative:
            name = "counts" if self.holds_counts else "amplitudes"
            self.entry.fail(f"{name} >= 0", f"{negative} negative values{where}")


class ArrayPatterns(Patterns):
    """Amplitudes that are in memory already.

    Args:
        entry: Where they came from.
        amplitude: All of them, bad pixels filled.
        bad: Detector pixels that hold nothing.
    """

    holds_counts = False

    @contract
    def __init__(self, entry: Entry, amplitude: ScanAmplitude, bad: BadPixels | None = None) -> None:
        super().__init__(entry)
        self._all, self.bad = amplitude, bad

    def stored(self, start: int, stop: int) -> np.ndarray:
        """Return consecutive patterns."""
        return self._all[start:stop]

    @contract
    def read(self, indices: PatternIndices) -> PatternAmplitude:
        """Copy some patterns, in the order asked for."""
        return self._all[indices]

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Hand out everything once; its contract has judged the values."""
        yield from self.stored_blocks()


def refuse_counts(entry: Entry) -> NoReturn:
    """Refuse counts where amplitudes must be, and tell the conversion.

    Raises:
        ScanError: Always.
    """
    fix = f"If they are counts, convert: np.sqrt({entry.name}).astype(np.float32)."
    entry.fail("float32 amplitude, sqrt(counts)", f"only whole numbers, as counts are, {entry}", fix)


def _fetch_nothing() -> NoReturn:
    msg = "Expected patterns to be read with `read` or `blocks`, got a request for the whole array."
    raise RuntimeError(msg)


def _expect_stack(entry: Entry) -> None:
    if len(entry.shape) != 3:
        entry.fail("three axes, (positions, N, N)", str(entry))
    if not entry.size:
        entry.fail("at least one pattern", str(entry))
    first, rows, columns = entry.shape
    if rows != columns:
        fix = f"If the positions come last: np.moveaxis({entry.name}, -1, 0)." if first == rows else ""
        entry.fail("square patterns, (positions, N, N)", str(entry), fix)


def _fills(entry: Entry, bad: np.ndarray) -> Iterator[_Fill]:
    if bad.all():
        entry.fail("a good pixel", f"{bad.size} bad ones of {bad.size}")
    for row, column in np.argwhere(bad):
        rows = columns = np.empty(0, np.int64)
        for reach in range(_REACH, max(bad.shape)):
            top, left = max(row - reach, 0), max(column - reach, 0)
            rows, columns = np.nonzero(~bad[top : row + reach + 1, left : column + reach + 1])
            if rows.size:
                rows, columns = rows + top, columns + left
                break
        yield _Fill(int(row), int(column), rows, columns)
