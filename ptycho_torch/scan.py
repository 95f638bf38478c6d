"""Scans: what a file of any format must hold to be one, and the complaints about those that do not.

Nothing is repaired or invented on the way in: what is not what the layout says is an error that names file, entry,
expected and found, and tells the conversion. The layouts are `formats`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ptycho_torch.contracts import (
    BadPixels,
    ObjectArray,
    PatternAmplitude,
    PatternEnergies,
    ScanAmplitude,
    ScanProbe,
    ScanX,
    ScanY,
)
from ptycho_torch.formats import Contents, Geometry, Patterns, ScanError, read_contents, write_contents
from ptycho_torch.formats.entry import Entry
from ptycho_torch.formats.errors import refuse
from ptycho_torch.formats.patterns import ArrayPatterns
from shapecheck import check, contract

__all__ = [
    "Scan",
    "ScanError",
    "ScanOnDisk",
    "load_scan",
    "open_scan",
    "patch_starts",
    "pattern_energies",
    "save_scan",
    "scan_of",
]

_LARGEST_CANVAS = 2**31  # object pixels: more than any scan of today, less than a mistaken unit makes of one


@contract
@dataclass(frozen=True)
class Scan:
    """One scan, in memory.

    Attributes:
        diffraction_amplitude: sqrt(counts), zero frequency at index ``[N//2, N//2]``.
        xcoords: Column of each patch centre, object pixels.
        ycoords: Row of each patch centre, object pixels.
        probe: Incoherent modes, always with a mode axis, centred at ``[N//2, N//2]``, counts**0.5.
        object_guess: A starting object or a reference reconstruction, where the file has one.
        object_truth: The true object in the frame of the coordinates, simulated scans only.
        path: Where it was read from.
        geometry: What metres are in object pixels, where the file knows.
        bad_pixels: Of the detector; the amplitudes there are made up, and reconstruction leaves them out.
    """

    diffraction_amplitude: ScanAmplitude
    xcoords: ScanX
    ycoords: ScanY
    probe: ScanProbe
    object_guess: np.ndarray | None = None
    object_truth: np.ndarray | None = None
    path: Path | None = None
    geometry: Geometry | None = None
    bad_pixels: BadPixels | None = None

    def __post_init__(self) -> None:
        _check_objects(self)

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
        return float(pattern_energies(self.diffraction_amplitude).mean())

    @property
    def total_amplitude(self) -> float:
        """Sum of the amplitudes of all patterns, bad pixels left out, counts**0.5: what a misfit is relative to."""
        good = True if self.bad_pixels is None else ~self.bad_pixels
        return float(np.sum(self.diffraction_amplitude, dtype=np.float64, where=good))


@contract
@dataclass(frozen=True)
class ScanOnDisk:
    """One scan whose patterns stay in their file.

    Attributes:
        patterns: Read as they are needed; can be sent to other processes.
        xcoords: Column of each patch centre, object pixels.
        ycoords: Row of each patch centre, object pixels.
        probe: Incoherent modes, always with a mode axis, centred at ``[N//2, N//2]``, counts**0.5.
        object_guess: A starting object or a reference reconstruction, where the file has one.
        object_truth: The true object in the frame of the coordinates, simulated scans only.
        path: Where it was read from.
        geometry: What metres are in object pixels, where the file knows.
    """

    patterns: Patterns
    xcoords: ScanX
    ycoords: ScanY
    probe: ScanProbe
    object_guess: np.ndarray | None = None
    object_truth: np.ndarray | None = None
    path: Path | None = None
    geometry: Geometry | None = None

    def __post_init__(self) -> None:
        _check_objects(self)

    @property
    @contract
    def bad_pixels(self) -> BadPixels | None:
        """Pixels of the detector whose amplitudes are made up."""
        return self.patterns.bad

    @contract
    def energies(self) -> PatternEnergies:
        """Read every pattern once, and return the counts of each.

        Raises:
            ScanError: A pattern's values are no amplitudes.
        """
        return np.concatenate([pattern_energies(block) for _, block in self.patterns.blocks()])

    def load(self) -> Scan:
        """Read the patterns into memory.

        Raises:
            ScanError: They do not fit, or their values are no amplitudes.
        """
        fields = {key: value for key, value in self.__dict__.items() if key != "patterns"}
        return Scan(diffraction_amplitude=self.patterns.load(), bad_pixels=self.bad_pixels, **fields)


def load_scan(path: Path | str) -> Scan:
    """Read a scan from an NPZ or CXI file into memory.

    Raises:
        ScanError: The file or one of its arrays is not what the layout says.
    """
    return open_scan(path).load()


def open_scan(path: Path | str) -> ScanOnDisk:
    """Read a scan from an NPZ or CXI file, all but the patterns, of which only the declaration is looked at.

    Raises:
        ScanError: The file or one of its arrays is not what the layout says.
    """
    return scan_of(read_contents(Path(path)))


def scan_of(contents: Contents) -> ScanOnDisk:
    """Make a scan of what a file holds, or several files together.

    Raises:
        ScanError: Something is missing, or does not fit the rest.
    """
    patterns, probe = contents.required("patterns"), contents.required("probe")
    xcoords, ycoords = contents.in_frame_of_object()
    if len(xcoords) != len(patterns):
        refuse(contents.path, f"{len(patterns)} positions, one for each pattern", f"{len(xcoords)} positions")
    if probe.shape[-1] != patterns.side:
        refuse(contents.path, f"a probe of side {patterns.side}, as the patterns have", f"one of {probe.shape[-1]}")
    scan = ScanOnDisk(patterns, xcoords, ycoords, probe, contents.obj, contents.truth, contents.path, contents.geometry)
    _check_positions(scan, contents)
    return scan


def save_scan(scan: Scan, path: Path | str, extra: Mapping[str, np.ndarray] | None = None) -> None:
    """Write a scan to an NPZ or CXI file, by the suffix, that `load_scan` reads back unchanged.

    The file appears complete or not at all.

    Args:
        scan: What to write; CXI needs its geometry.
        path: The file, replaced where it exists.
        extra: Further arrays for other readers of an NPZ file, by key.

    Raises:
        ScanError: The suffix is not known, or the format needs a geometry and there is none.
    """
    write_contents(Path(path), _contents_of(scan), extra=extra)


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


@contract
def pattern_energies(amplitude: PatternAmplitude) -> PatternEnergies:
    """Return the counts of each pattern."""
    return np.einsum("snm,snm->s", amplitude, amplitude, dtype=np.float64)


def _check_objects(scan: Scan | ScanOnDisk) -> None:
    # Not part of the records' own contracts: objects share the frame, not the extent, with each other and with those
    # that a function makes of a scan.
    for name in ("object_guess", "object_truth"):
        check(getattr(scan, name), ObjectArray | None, name=name)


def _contents_of(scan: Scan) -> Contents:
    path, amplitude = scan.path or Path("scan"), scan.diffraction_amplitude
    entry = Entry(path, "key", "diffraction", amplitude.shape, amplitude.dtype, lambda: amplitude)
    return Contents(
        path=path,
        patterns=ArrayPatterns(entry, amplitude, scan.bad_pixels),
        xcoords=scan.xcoords,
        ycoords=scan.ycoords,
        probe=scan.probe,
        obj=scan.object_guess,
        truth=scan.object_truth,
        geometry=scan.geometry,
        names={"geometry": "geometry"},
        present=("diffraction_amplitude", "xcoords", "ycoords", "probe"),
    )


def _check_positions(scan: ScanOnDisk, contents: Contents) -> None:
    """Refuse patches outside an object that the file holds, and an object that no memory would."""
    side = scan.patterns.side
    extents = [float(values.max() - values.min()) + side for values in (scan.ycoords, scan.xcoords)]
    if not extents[0] * extents[1] <= _LARGEST_CANVAS:  # nor where it is no number
        got = f"{extents[0]:.4g} x {extents[1]:.4g} pixels, rows x columns"
        fix = "NPZ has positions in object pixels, CXI in metres."
        key = contents.names["xcoords"]
        refuse(contents.path, "positions that belong to one object", got, fix, kind=contents.kind, key=key)
    for obj in (scan.object_guess, scan.object_truth):
        if obj is None:
            continue
        try:
            patch_starts(scan.ycoords, side, obj.shape[0], "ycoords")
            patch_starts(scan.xcoords, side, obj.shape[1], "xcoords")
        except ValueError as outside:
            msg = f"{contents.path}: {outside}"
            raise ScanError(msg, contents.path) from None
