"""Scans to CXI files that h5py, cdtools and ptychodus understand."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from ptycho_torch.files import new_file
from ptycho_torch.formats.contents import Contents
from ptycho_torch.formats.cxi import Cxi
from ptycho_torch.formats.geometry import (
    Geometry,
    centred_offset,
    photon_energy_j,
    sample_translation,
    unturned_basis,
)
from ptycho_torch.formats.patterns import Patterns

__all__ = ["write_cxi"]

_MOST_COUNTS = 2**32 - 1


def write_cxi(path: Path, contents: Contents, tick: Callable[[int], object]) -> None:
    """Write a scan, which appears complete or not at all.

    Whole counts are written as such; amplitudes that are no square roots of counts are squared. Both are read back as
    the same amplitudes. The patterns are read twice, and never all of them at once.

    Args:
        path: The file, replaced where it exists.
        contents: With patterns, positions and geometry.
        tick: Told how many patterns were read, each time.

    Raises:
        ScanError: Something is missing.
    """
    patterns: Patterns = contents.required("patterns")
    geometry: Geometry = contents.required("geometry")
    contents.required("xcoords")
    dtype = np.uint32 if _holds_counts(patterns, tick) else np.float32
    with new_file(path) as unfinished, h5py.File(unfinished, "w") as file:
        file["cxi_version"], file["number_of_entries"] = Cxi.VERSION, 1
        file[f"{Cxi.ENTRY}/program_name"] = "ptycho-torch"
        _write_geometry(file, geometry, patterns.side)
        _write_positions(file, contents, geometry, patterns.side)
        _write_waves(file, contents, geometry, patterns.side)
        _write_patterns(file, patterns, dtype, tick)


def _holds_counts(patterns: Patterns, tick: Callable[[int], object]) -> bool:
    """Tell whether every amplitude of a good pixel is the square root of whole counts, to the last bit."""
    whole, good = True, slice(None) if patterns.bad is None else ~patterns.bad
    for _, amplitude in patterns.blocks():
        if whole:
            measured = amplitude[:, good]
            counts = np.rint(np.square(measured, dtype=np.float64))
            whole = bool(counts.max() <= _MOST_COUNTS and np.array_equal(np.sqrt(counts).astype(np.float32), measured))
        tick(len(amplitude))
    return whole


def _write_patterns(file: h5py.File, patterns: Patterns, dtype: type, tick: Callable[[int], object]) -> None:
    data = file.create_dataset(
        Cxi.DATA,
        shape=patterns.entry.shape,
        dtype=dtype,
        chunks=(1, patterns.side, patterns.side),  # any pattern can be read without its neighbours
        compression="gzip",
        compression_opts=1,
        shuffle=True,
    )
    data.attrs["axes"] = "translation:y:x"
    for start, amplitude in patterns.blocks():
        if dtype is np.uint32:
            block = np.rint(np.square(amplitude, dtype=np.float64)).astype(np.uint32)
        else:
            block = np.square(amplitude)  # in float32, where the square root of a square is exact
        data[start : start + len(block)] = block
        tick(len(block))
    file[Cxi.LINKED_DATA] = h5py.SoftLink(Cxi.DATA)
    if patterns.bad is not None:
        file[Cxi.MASK] = np.where(patterns.bad, np.uint32(Cxi.INVALID), np.uint32(0))


def _write_geometry(file: h5py.File, geometry: Geometry, side: int) -> None:
    pixel_x, pixel_y = geometry.detector_pixel_xy_m
    # The outer corner of the first pixel, where the middle of pixel [N//2, N//2] lies on the beam.
    corner = ((side // 2 + 0.5) * pixel_x, (side // 2 + 0.5) * pixel_y, geometry.distance_m)
    lengths = {
        Cxi.WAVELENGTH: geometry.wavelength_m,
        Cxi.DISTANCE: geometry.distance_m,
        Cxi.X_PIXEL: pixel_x,
        Cxi.Y_PIXEL: pixel_y,
        Cxi.BASIS: unturned_basis(geometry.detector_pixel_xy_m).T,
        Cxi.CORNER: np.array(corner),
    }
    for name, value in lengths.items():
        _write(file, name, value, "m")
    _write(file, Cxi.ENERGY, photon_energy_j(geometry.wavelength_m), "J")


def _write_positions(file: h5py.File, contents: Contents, geometry: Geometry, side: int) -> None:
    pixel = geometry.object_pixel_xy_m(side)
    x, y = contents.required("xcoords"), contents.required("ycoords")
    _write(file, Cxi.TRANSLATION, sample_translation(x, y, pixel), "m")
    for name in (Cxi.LINKED_TRANSLATION, f"{Cxi.DETECTOR}/translation"):
        file[name] = h5py.SoftLink(Cxi.TRANSLATION)
    _write(file, Cxi.FRAME, np.zeros(2), "m")
    for name, size in zip(Cxi.OBJECT_PIXEL + Cxi.PROBE_PIXEL, pixel + pixel, strict=True):
        _write(file, name, size, "m")


def _write_waves(file: h5py.File, contents: Contents, geometry: Geometry, side: int) -> None:
    if contents.probe is not None:
        file.create_dataset(Cxi.PROBE, data=contents.probe[None]).attrs["axes"] = "coherent:incoherent:y:x"
        file[Cxi.ILLUMINATION] = h5py.SoftLink(Cxi.PROBE)
    if contents.obj is not None:
        file.create_dataset(Cxi.OBJECT, data=contents.obj[None]).attrs["axes"] = "layer:y:x"
        pixel = geometry.object_pixel_xy_m(side)
        sides, origin_xy = contents.obj.shape[::-1], contents.origin_rc[::-1]
        for name, length, origin, size in zip(Cxi.OBJECT_CENTER, sides, origin_xy, pixel, strict=True):
            _write(file, name, (centred_offset(length, side) + origin) * size, "m")
    for name, array in ((Cxi.WEIGHT, contents.weight), (Cxi.TRUTH, contents.truth)):
        if array is not None:
            file[name] = array


def _write(file: h5py.File, name: str, value: float | np.ndarray, units: str) -> None:
    file[name] = value
    file[name].attrs["units"] = units
