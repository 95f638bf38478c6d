"""What every scan must hold, whatever the format: the checks of positions, probe and object."""

import numpy as np

from ptycho_torch.contracts import MAX_MODES, BadPixels
from ptycho_torch.formats.entry import Entry
from shapecheck import contract

__all__ = ["bad_pixels", "bad_pixels_note", "object_array", "one_per_position", "probe_array"]


def one_per_position(entry: Entry, n_patterns: int | None) -> np.ndarray:
    """Read one coordinate of every position.

    Args:
        entry: Any real dtype.
        n_patterns: How many there must be, where the file holds patterns.
    """
    if len(entry.shape) != 1:
        entry.fail("one axis, (positions,)", str(entry))
    if n_patterns is not None and entry.size != n_patterns:
        entry.fail(f"{n_patterns} positions, one for each pattern", f"{entry.size} positions")
    if not entry.size:
        entry.fail("at least one position", str(entry))
    return entry.finite_array(np.float64)


def probe_array(entry: Entry, side: int | None) -> np.ndarray:
    """Read a probe, with its mode axis.

    Args:
        entry: Any complex dtype.
        side: That of the patterns, where the file holds patterns.
    """
    if len(entry.shape) not in (2, 3):
        entry.fail("axes (N, N) or (modes, N, N)", str(entry))
    rows, columns = entry.shape[-2:]
    if side is not None and (rows, columns) != (side, side):
        entry.fail(f"sides {side} x {side}, as the patterns have", str(entry))
    if rows != columns:
        entry.fail("a square probe", str(entry))
    if len(entry.shape) == 3 and entry.shape[0] > MAX_MODES:
        entry.fail(f"at most {MAX_MODES} modes", str(entry))
    probe = entry.finite_array(np.complex64)
    if not probe.any():
        entry.fail("a probe with energy", f"only zeros or no mode, {entry}")
    return probe.reshape(-1, rows, columns)


@contract
def bad_pixels(entry: Entry, side: int, harmless: int = 0) -> BadPixels | None:
    """Read a mask of the detector; None where every pixel is good.

    Args:
        entry: Not 0 where a pixel is bad.
        side: That of the patterns.
        harmless: Bits that do not make a pixel bad.
    """
    if entry.shape != (side, side) or entry.dtype.kind not in "biu":
        entry.fail(f"whole numbers or booleans {(side, side)}, one mask for all patterns", str(entry))
    bad = (entry.array().astype(np.int64) & ~harmless) != 0
    if bad.all():
        entry.fail("a good pixel", f"{bad.size} bad ones of {bad.size}")
    return bad if bad.any() else None


@contract
def bad_pixels_note(bad: BadPixels | None) -> tuple[str, ...]:
    """Return what a person should know of bad pixels; nothing where there are none."""
    if bad is None:
        return ()
    n_bad = np.count_nonzero(bad)
    return (f"{n_bad} bad pixels take the median of the good ones around them; reconstruction leaves them out",)


def object_array(entry: Entry) -> np.ndarray:
    """Read an object of one layer."""
    if len(entry.shape) != 2 or not entry.size:
        entry.fail("two axes, (rows, columns), none empty", str(entry))
    return entry.finite_array(np.complex64)
