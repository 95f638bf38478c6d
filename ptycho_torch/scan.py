"""Scan files: the only place that reads or writes them.

Owns the NPZ layout and every complaint about a bad file. Nothing is repaired, cast or invented on the way in:
what is not what the layout says is an error that names file, key, expected and found, and tells the conversion.
"""

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from ptycho_torch.config_params import closest
from ptycho_torch.contracts import ObjectArray, ScanAmplitude, ScanProbe, ScanX, ScanY
from ptycho_torch.files import written_atomically
from shapecheck import check, contract

__all__ = [
    "DIFFRACTION_KEYS",
    "Scan",
    "ScanError",
    "load_scan",
    "patch_starts",
    "save_scan",
]

DIFFRACTION_KEYS = ("diffraction", "diff3d")  # in order of preference
_DAMAGED = (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


class ScanError(ValueError):
    """A scan file that cannot be used.

    Attributes:
        path: The file.
        key: The array at fault, empty where the file itself is.
    """

    def __init__(self, message: str, path: Path | None = None, key: str = "") -> None:
        super().__init__(message)
        self.path = path
        self.key = key


@contract
@dataclass(frozen=True)
class Scan:
    """One scan, as it stands in a file.

    Attributes:
        diffraction_amplitude: sqrt(counts), zero frequency at index ``[N//2, N//2]``.
        xcoords: Column of each patch centre, object pixels.
        ycoords: Row of each patch centre, object pixels.
        probe: Incoherent modes, always with a mode axis, centred at ``[N//2, N//2]``, counts**0.5.
        object_guess: A starting object or a reference reconstruction, where the file has one.
        object_truth: The true object in the frame of the coordinates, simulated scans only.
        path: Where it was read from.
    """

    diffraction_amplitude: ScanAmplitude
    xcoords: ScanX
    ycoords: ScanY
    probe: ScanProbe
    object_guess: np.ndarray | None = None
    object_truth: ObjectArray | None = None
    path: Path | None = None

    def __post_init__(self) -> None:
        # Not part of the record's own contract: a guess and a truth share the frame, not the extent.
        check(self.object_guess, ObjectArray | None, name="object_guess")

    @property
    def N(self) -> int:  # noqa: N802 - the field's symbol
        """Patch and detector side, pixels."""
        return self.diffraction_amplitude.shape[-1]

    @property
    def n_positions(self) -> int:
        """Number of scan positions."""
        return self.diffraction_amplitude.shape[0]

    @property
    def mean_counts(self) -> float:
        """Mean counts per pattern."""
        amplitude = self.diffraction_amplitude
        return float(np.einsum("snm,snm->s", amplitude, amplitude, dtype=np.float64).mean())


def load_scan(path: Path | str) -> Scan:
    """Read a scan from an NPZ file.

    Keys: ``diffraction`` (or ``diff3d``; the first wins where both are there), ``xcoords``, ``ycoords``,
    ``probeGuess`` (with or without a mode axis), optional ``objectGuess`` and ``objectTruth``. Others are ignored.
    No pickled object is ever loaded.

    Raises:
        ScanError: The file or one of its arrays is not what the layout says.
    """
    with _opened(Path(path)) as file:
        diffraction = file.diffraction()
        n_positions, patch_size = diffraction.shape[:2]
        return Scan(
            diffraction_amplitude=diffraction,
            xcoords=file.coordinates("xcoords", n_positions),
            ycoords=file.coordinates("ycoords", n_positions),
            probe=file.probe(patch_size),
            object_guess=file.object_or_none("objectGuess"),
            object_truth=file.object_or_none("objectTruth"),
            path=file.path,
        )


def save_scan(scan: Scan, path: Path | str, extra: Mapping[str, np.ndarray] | None = None) -> None:
    """Write a scan to an NPZ file that `load_scan` reads back unchanged.

    The file appears complete or not at all.

    Args:
        scan: What to write; a single probe mode is written without its mode axis, as most readers expect.
        path: The file, replaced where it exists.
        extra: Further arrays for other readers, by key.
    """
    probe = scan.probe[0] if len(scan.probe) == 1 else scan.probe
    arrays = {"diffraction": scan.diffraction_amplitude, "xcoords": scan.xcoords, "ycoords": scan.ycoords}
    arrays |= {"probeGuess": probe, "objectGuess": scan.object_guess, "objectTruth": scan.object_truth}
    extra = dict(extra or {})
    for key in sorted(extra.keys() & arrays.keys()):
        msg = f"Expected extra arrays under keys of their own, got '{key}', which belongs to the scan."
        raise ValueError(msg)
    present = {key: array for key, array in (arrays | extra).items() if array is not None}
    path = Path(path)
    with written_atomically(path) as stream:
        np.savez_compressed(stream, allow_pickle=False, **present)


def patch_starts(coordinates: np.ndarray, patch_size: int, side: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Split where patches start in the object, along one axis, into whole pixels and the rest.

    Index ``patch_size // 2`` of a patch sits at its coordinate.

    Args:
        coordinates: Patch centres, object pixels.
        patch_size: Pixels.
        side: Of the object along this axis, pixels.
        name: What to call the coordinates in an error.

    Raises:
        ValueError: A patch leaves the object.
    """
    start = coordinates - patch_size // 2
    outside = np.flatnonzero((start < 0) | (start + patch_size > side))
    if outside.size:
        first = outside[0]
        msg = (
            f"Expected every patch of {patch_size} pixels to lie inside the object of {side}, "
            f"got {name}[{first}] = {coordinates[first]:.3f} ({outside.size} such positions)."
        )
        raise ValueError(msg)
    whole = np.floor(start)
    return whole.astype(np.int64), start - whole


class _ScanFile:
    """An open archive and the checks of its arrays, each of which names file and key."""

    def __init__(self, path: Path, archive: np.lib.npyio.NpzFile) -> None:
        self.path = path
        self._archive = archive

    def diffraction(self) -> np.ndarray:
        """Return the measured amplitudes, refusing what looks like counts."""
        key = next((key for key in DIFFRACTION_KEYS if key in self._archive.files), DIFFRACTION_KEYS[0])
        amplitude = self._array(key)
        self._refuse_counts(key, amplitude)
        self._expect_dtype(key, amplitude, np.float32, "amplitude, sqrt(counts)")
        self._expect_patterns(key, amplitude)
        self._expect_finite(key, amplitude)
        if amplitude.min() < 0:
            self._fail(key, "amplitudes >= 0", f"{np.count_nonzero(amplitude < 0)} negative values")
        if not amplitude.any():
            self._fail(key, "measured amplitudes", "only zeros")
        return amplitude

    def coordinates(self, key: str, n_positions: int) -> np.ndarray:
        """Return one coordinate of every pattern."""
        coordinates = self._array(key)
        self._expect_dtype(key, coordinates, np.float64, "object pixels")
        if coordinates.ndim != 1:
            self._fail(key, "one axis, (positions,)", _kind(coordinates))
        if len(coordinates) != n_positions:
            self._fail(key, f"{n_positions} positions, one for each pattern", f"{len(coordinates)} positions")
        self._expect_finite(key, coordinates)
        return coordinates

    def probe(self, patch_size: int) -> np.ndarray:
        """Return the probe with its mode axis."""
        key = "probeGuess"
        probe = self._array(key)
        self._expect_dtype(key, probe, np.complex64, "wave, counts**0.5")
        if probe.ndim not in (2, 3):
            self._fail(key, "axes (N, N) or (modes, N, N)", _kind(probe))
        if probe.shape[-2:] != (patch_size, patch_size):
            self._fail(key, f"sides {patch_size} x {patch_size}, as the patterns have", _kind(probe))
        self._expect_finite(key, probe)
        if not probe.any():
            self._fail(key, "a probe with energy", f"only zeros or no mode, {_kind(probe)}")
        return probe.reshape(-1, patch_size, patch_size)

    def object_or_none(self, key: str) -> np.ndarray | None:
        """Return an optional object."""
        if key not in self._archive.files:
            return None
        obj = self._array(key)
        self._expect_dtype(key, obj, np.complex64, "transmission")
        if obj.ndim != 2 or obj.size == 0:
            self._fail(key, "two axes, (rows, columns), none empty", _kind(obj))
        self._expect_finite(key, obj)
        return obj

    def _array(self, key: str) -> np.ndarray:
        present = self._archive.files
        if key not in present:
            hint = closest(key, present)
            self._fail(key, "to be in the file", f"only {', '.join(sorted(present)) or 'nothing'}", hint.strip())
        try:
            array = self._archive[key]
        except _DAMAGED as damage:
            msg = f"{self.path}, key '{key}': Expected a readable numeric array, got an error: {damage}."
            raise ScanError(msg, self.path, key) from damage
        if not isinstance(array, np.ndarray):
            self._fail(key, "an array in NPY format", "other bytes")
        return np.ascontiguousarray(array)

    def _refuse_counts(self, key: str, amplitude: np.ndarray) -> None:
        # sqrt(counts) is whole only where every count is a square: beyond 0 and 1 no measured scan does that.
        # Counts that were scaled or background-corrected are not whole: nothing in such a file gives them away.
        if amplitude.dtype.kind in "iu" or _is_whole(amplitude):
            fix = f"If they are counts, convert: np.sqrt({key}).astype(np.float32)."
            got = f"only whole numbers, as counts are, {_kind(amplitude)}"
            self._fail(key, "float32 amplitude, sqrt(counts)", got, fix)

    def _expect_dtype(self, key: str, array: np.ndarray, dtype: type, meaning: str) -> None:
        wanted = np.dtype(dtype)
        if array.dtype == wanted:
            return
        drops_phase = array.dtype.kind == "c" and wanted.kind != "c"
        numeric = array.dtype.kind in "biuf"
        fix = f"Convert: {key}.astype(np.{wanted.name})." if numeric or array.dtype.kind == wanted.kind else ""
        if drops_phase:
            fix = f"If the modulus is meant, convert: np.abs({key}).astype(np.{wanted.name})."
        self._fail(key, f"{wanted.name} ({meaning})", _kind(array), fix)

    def _expect_patterns(self, key: str, amplitude: np.ndarray) -> None:
        if amplitude.ndim != 3:
            self._fail(key, "three axes, (positions, N, N)", _kind(amplitude))
        if amplitude.size == 0:
            self._fail(key, "at least one pattern", _kind(amplitude))
        first, rows, columns = amplitude.shape
        if rows != columns:
            fix = f"If the positions come last: np.moveaxis({key}, -1, 0)." if first == rows else ""
            self._fail(key, "square patterns, (positions, N, N)", _kind(amplitude), fix)

    def _expect_finite(self, key: str, array: np.ndarray) -> None:
        bad = array.size - np.count_nonzero(np.isfinite(array))
        if bad:
            self._fail(key, "finite values", f"{bad} NaN or infinite of {array.size}")

    def _fail(self, key: str, expected: str, got: str, fix: str = "") -> NoReturn:
        msg = f"{self.path}, key '{key}': Expected {expected}, got {got}. {fix}".rstrip()
        raise ScanError(msg, self.path, key)


@contextmanager
def _opened(path: Path) -> Iterator[_ScanFile]:
    """Open an archive; what is wrong with the file itself, not with an array, is said here."""
    if not path.is_file():
        what = "a directory" if path.is_dir() else "no such file"
        msg = f"{path}: Expected an NPZ scan file, got {what}."
        raise ScanError(msg, path)
    with path.open("rb") as stream:  # opened here: np.load leaks the handle of a damaged archive
        start = stream.read(4)
        stream.seek(0)
        if not start.startswith(b"PK"):
            msg = f"{path}: Expected an NPZ file (a zip archive), got a file that starts with {start!r}."
            raise ScanError(msg, path)
        try:
            archive = np.load(stream, allow_pickle=False)
        except _DAMAGED as damage:
            msg = f"{path}: Expected a complete zip archive, got a truncated or damaged one ({damage}). Copy it again."
            raise ScanError(msg, path) from damage
        with archive:
            yield _ScanFile(path, archive)


def _is_whole(array: np.ndarray) -> bool:
    if array.dtype.kind != "f" or not array.size:
        return False
    largest = array.max()
    return bool(np.isfinite(largest) and largest > 1 and np.array_equal(array, np.rint(array)))


def _kind(array: np.ndarray) -> str:
    return f"{array.dtype.name} {array.shape}"
