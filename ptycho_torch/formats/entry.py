"""One array of a file before it is read: what it declares, and the checks that its declaration allows.

Sizes and dtypes are judged by what the file declares, so that nothing is allocated for an array that is refused.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol

import numpy as np

from ptycho_torch.formats.errors import refuse
from ptycho_torch.formats.limits import memory_limit_bytes, readable_size

__all__ = ["Entry", "Source"]


@dataclass(frozen=True)
class Entry:
    """An array of a file.

    Attributes:
        path: The file.
        kind: What the format calls its entries.
        name: Of the entry.
        shape: As declared.
        dtype: As declared.
        fetch: Reads it.
    """

    path: Path
    kind: str
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    fetch: Callable[[], np.ndarray]

    def __str__(self) -> str:
        swapped = "" if self.dtype.isnative else "byte-swapped "
        return f"{swapped}{self.dtype.name} {self.shape}"

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def fail(self, expected: str, got: str, fix: str = "", cause: BaseException | None = None) -> NoReturn:
        """Refuse the entry.

        Raises:
            ScanError: Always.
        """
        refuse(self.path, expected, got, fix, kind=self.kind, key=self.name, cause=cause)

    def expect_dtype(self, dtype: type, meaning: str) -> None:
        """Refuse any other dtype, and tell the conversion where there is a safe one."""
        wanted = np.dtype(dtype)
        if self.dtype == wanted:
            return
        drops_phase = self.dtype.kind == "c" and wanted.kind != "c"
        numeric = self.dtype.kind in "biuf"
        fix = f"Convert: {self.name}.astype(np.{wanted.name})." if numeric or self.dtype.kind == wanted.kind else ""
        if drops_phase:
            fix = f"If the modulus is meant, convert: np.abs({self.name}).astype(np.{wanted.name})."
        self.fail(f"{wanted.name} ({meaning})", str(self), fix)

    def expect_kind(self, kinds: str, meaning: str) -> None:
        """Refuse numbers that are not of one of NumPy's one-letter kinds."""
        if self.dtype.kind not in kinds:
            self.fail(meaning, str(self))

    def expect_fits(self, n_bytes: int | None = None) -> None:
        """Refuse what this machine could not hold.

        Args:
            n_bytes: What it takes in memory, where that is not what it takes in the file.
        """
        needed, limit = self.size * self.dtype.itemsize if n_bytes is None else n_bytes, memory_limit_bytes()
        if needed > limit:
            fix = "Use a machine with more memory, or leave the patterns in the file (docs/formats.md#larger-than-memory)."
            self.fail(f"at most {readable_size(limit)}, half of this machine's memory", readable_size(needed), fix)

    def array(self) -> np.ndarray:
        """Read it.

        Raises:
            ScanError: It is too large, or damaged.
        """
        self.expect_fits()
        return np.ascontiguousarray(self.fetch())

    def finite_array(self, dtype: type | None = None) -> np.ndarray:
        """Read it, refusing what is no number.

        Args:
            dtype: To convert to; what that cannot hold counts as infinite.

        Raises:
            ScanError: It is too large, damaged, or holds NaN or infinities.
        """
        with np.errstate(over="ignore"):
            array = self.array().astype(self.dtype if dtype is None else dtype, copy=False)
        bad = array.size - np.count_nonzero(np.isfinite(array))
        if bad:
            self.fail("finite values", f"{bad} NaN or infinite of {array.size}")
        return array


class Source(Protocol):
    """An open file of arrays."""

    @property
    def path(self) -> Path:
        """The file."""
        ...

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of its arrays."""
        ...

    def entry(self, key: str) -> Entry:
        """Return what an array declares; a `ScanError` where there is none of that name."""
        ...
