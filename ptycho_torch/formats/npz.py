"""Our NPZ layout of scans."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ptycho_torch.contracts import BadPixels
from ptycho_torch.formats.archive import NpzArchive, Stream, open_npz, read_exactly, write_npz
from ptycho_torch.formats.checks import bad_pixels, bad_pixels_note, object_array, one_per_position, probe_array
from ptycho_torch.formats.contents import Contents
from ptycho_torch.formats.entry import Entry
from ptycho_torch.formats.limits import block_length
from ptycho_torch.formats.patterns import Patterns, refuse_counts
from ptycho_torch.formats.results import GEOMETRY_KEYS, geometry_arrays, geometry_or_none
from shapecheck import contract

__all__ = ["DIFFRACTION_KEYS", "NpzPatterns", "scan_contents", "write_scan"]

DIFFRACTION_KEYS = ("diffraction", "diff3d")  # in order of preference
_NAMES = {
    "patterns": DIFFRACTION_KEYS[0],
    "xcoords": "xcoords",
    "ycoords": "ycoords",
    "probe": "probeGuess",
    "obj": "objectGuess",
    "geometry": "wavelength_m",
}
_BAD_PIXELS = "bad_pixels"
_READ = {*DIFFRACTION_KEYS, *_NAMES.values(), _BAD_PIXELS, "objectTruth", *GEOMETRY_KEYS}


class NpzPatterns(Patterns):
    """Amplitudes in an archive.

    Args:
        archive: Open while this is made; it is opened again for every reading.
        key: Of the array.
        bad: Detector pixels that hold nothing.
    """

    holds_counts = False

    @contract
    def __init__(self, archive: NpzArchive, key: str, bad: BadPixels | None = None) -> None:
        super().__init__(archive.entry(key), bad)
        self._fortran = archive.layout(key).fortran
        self._start = None if self._fortran else archive.data_at(key)
        self.random_access = self._start is not None

    def stored(self, start: int, stop: int) -> np.ndarray:
        """Read consecutive patterns of an uncompressed array; the archive's checksum is of the whole and unchecked."""
        patterns = np.empty((stop - start, self.side, self.side), np.float32)
        with self.entry.path.open("rb") as file:
            file.seek((self._start or 0) + start * patterns[0].nbytes)
            try:
                read_exactly(file, patterns)
            except EOFError as damage:
                self.entry.fail("a readable array", f"an error: {damage}", cause=damage)
        return patterns

    def stored_blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Read everything once, as a stream of which nothing is kept, and compare it with its checksum."""
        step = block_length(self.side)
        with open_npz(self.entry.path) as archive:
            if self._fortran:  # the first axis varies fastest: no pattern is complete before the end
                whole = archive.entry(self.entry.name).array()
                yield from ((start, whole[start : start + step]) for start in range(0, len(self), step))
                return
            with archive.data(self.entry.name) as stream:
                for start in range(0, len(self), step):
                    block = np.empty((min(step, len(self) - start), self.side, self.side), np.float32)
                    read_exactly(stream, block)
                    yield start, block


def scan_contents(archive: NpzArchive) -> Contents:
    """Read a scan; keys that are not of the layout are ignored.

    Raises:
        ScanError: An array is not what the layout says; one that is missing is no error yet.
    """
    others = sorted(set(archive.keys) - _READ)
    patterns = _patterns(archive)
    notes = bad_pixels_note(None if patterns is None else patterns.bad)
    n_patterns, side = (None, None) if patterns is None else (len(patterns), patterns.side)

    def read(key: str, dtype: type, meaning: str, reader: Callable[..., np.ndarray], *more: Any) -> Any:
        if key not in archive.keys:
            return None
        entry = archive.entry(key)
        entry.expect_dtype(dtype, meaning)
        return reader(entry, *more)

    return Contents(
        path=archive.path,
        patterns=patterns,
        xcoords=read("xcoords", np.float64, "object pixels", one_per_position, n_patterns),
        ycoords=read("ycoords", np.float64, "object pixels", one_per_position, n_patterns),
        probe=read("probeGuess", np.complex64, "wave, counts**0.5", probe_array, side),
        obj=read("objectGuess", np.complex64, "transmission", object_array),
        truth=read("objectTruth", np.complex64, "transmission", object_array),
        geometry=geometry_or_none(archive),
        names=_NAMES,
        present=archive.keys,
        notes=(*notes, f"not read: {', '.join(others)}") if others else notes,
    )


def write_scan(
    path: Path, contents: Contents, tick: Callable[[int], object], extra: Mapping[str, np.ndarray] | None = None
) -> None:
    """Write a scan; a single probe mode without its mode axis, as most readers expect.

    Args:
        path: The file, replaced where it exists.
        contents: With patterns, positions and probe.
        tick: Told how many patterns were written.
        extra: Further arrays for other readers, by key.

    Raises:
        ScanError: Something is missing, or object and truth are in different frames.
        ValueError: An extra array takes the place of one of the scan.
    """
    patterns, probe = contents.required("patterns"), contents.required("probe")
    xcoords, ycoords = contents.in_frame_of_object()
    arrays: dict[str, Any] = {
        "diffraction": Stream(patterns.entry.shape, np.dtype(np.float32), _counted(patterns, tick)),
        _BAD_PIXELS: patterns.bad,
        "xcoords": xcoords,
        "ycoords": ycoords,
        "probeGuess": probe[0] if len(probe) == 1 else probe,
        "objectGuess": contents.obj,
        "objectTruth": contents.truth,
        **geometry_arrays(contents.geometry),
    }
    extra = dict(extra or {})
    for key in sorted(extra.keys() & arrays.keys()):
        msg = f"Expected extra arrays under keys of their own, got '{key}', which belongs to the scan."
        raise ValueError(msg)
    write_npz(path, {key: array for key, array in (arrays | extra).items() if array is not None})


def _patterns(archive: NpzArchive) -> NpzPatterns | None:
    key = next((key for key in DIFFRACTION_KEYS if key in archive.keys), None)
    if key is None:
        return None
    entry = archive.entry(key)
    if entry.dtype.kind in "iu" or (entry.dtype == np.float64 and _is_whole(entry)):
        refuse_counts(entry)
    entry.expect_dtype(np.float32, "amplitude, sqrt(counts)")
    side = NpzPatterns(archive, key).side
    bad = bad_pixels(archive.entry(_BAD_PIXELS), side) if _BAD_PIXELS in archive.keys else None
    return NpzPatterns(archive, key, bad)


def _is_whole(entry: Entry) -> bool:
    array = entry.array()
    return bool(array.size and np.isfinite(array).all() and array.max() > 1 and np.array_equal(array, np.rint(array)))


def _counted(patterns: Patterns, tick: Callable[[int], object]) -> Iterator[np.ndarray]:
    for _, block in patterns.blocks():
        yield block
        tick(len(block))
