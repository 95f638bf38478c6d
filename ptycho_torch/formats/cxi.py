"""The names and conventions of CXI, the HDF5 layout of the Coherent X-ray Imaging Data Bank (1.6), and its reader.

Patterns are counts, lengths metres, energies joules, and translations are of the sample. Probe and object stand where
ptychodus has them. What CXI has no place for is in ``/entry_1/ptycho_torch``.
"""

from typing import NamedTuple, NoReturn

import numpy as np

from ptycho_torch.contracts import SampleTranslation, ScanX, ScanY
from ptycho_torch.formats.checks import bad_pixels, bad_pixels_note, object_array, probe_array
from ptycho_torch.formats.contents import Contents
from ptycho_torch.formats.entry import Entry
from ptycho_torch.formats.geometry import (
    Geometry,
    along_detector,
    centred_offset,
    probe_translation,
    to_object_pixels,
    unturned_basis,
    wavelength_m,
)
from ptycho_torch.formats.hdf5 import Hdf5Counts, Hdf5File
from ptycho_torch.formats.layers import single_layer, single_probe
from shapecheck import contract

__all__ = ["NAMES", "Cxi", "cxi_contents"]


class Cxi:
    """Where things stand."""

    VERSION = 160
    INVALID = 1  # the bit of the mask for a pixel that holds nothing
    ENTRY = "/entry_1"
    SOURCE = f"{ENTRY}/instrument_1/source_1"
    ENERGY, WAVELENGTH = f"{SOURCE}/energy", f"{SOURCE}/wavelength"
    ILLUMINATION = f"{SOURCE}/illumination"
    DETECTOR = f"{ENTRY}/instrument_1/detector_1"
    DATA, MASK, DARK = f"{DETECTOR}/data", f"{DETECTOR}/mask", f"{DETECTOR}/data_dark"
    DISTANCE, CORNER, BASIS = f"{DETECTOR}/distance", f"{DETECTOR}/corner_position", f"{DETECTOR}/basis_vectors"
    X_PIXEL, Y_PIXEL = f"{DETECTOR}/x_pixel_size", f"{DETECTOR}/y_pixel_size"
    TRANSLATION = f"{ENTRY}/sample_1/geometry_1/translation"
    LINKED_DATA, LINKED_TRANSLATION = f"{ENTRY}/data_1/data", f"{ENTRY}/data_1/translation"
    PROBE, OBJECT = f"{ENTRY}/image_1/data", f"{ENTRY}/image_2/data"
    PTYCHODUS = f"{ENTRY}/ptychodus"
    OBJECT_PIXEL = (f"{PTYCHODUS}/object_pixel_width_m", f"{PTYCHODUS}/object_pixel_height_m")
    PROBE_PIXEL = (f"{PTYCHODUS}/probe_pixel_width_m", f"{PTYCHODUS}/probe_pixel_height_m")
    OBJECT_CENTER = (f"{PTYCHODUS}/object_center_x_m", f"{PTYCHODUS}/object_center_y_m")
    OURS = f"{ENTRY}/ptycho_torch"
    FRAME, TRUTH, WEIGHT = f"{OURS}/frame_origin_xy_m", f"{OURS}/object_truth", f"{OURS}/object_weight"


NAMES = {
    "patterns": Cxi.DATA,
    "xcoords": Cxi.TRANSLATION,
    "ycoords": Cxi.TRANSLATION,
    "probe": Cxi.PROBE,
    "obj": Cxi.OBJECT,
    "geometry": Cxi.DISTANCE,
}
_GOOD_BITS = 0x1000  # "has signal above the background", the one bit of the mask that is no fault
_ENERGY_RANGE_J = (1e-18, 1e-12)  # 6 eV to 6 MeV: what is beyond is in another unit
_RIGHT_ANGLE = 1e-3  # cosine that still counts as one
_BEAM_TOLERANCE = 1.0  # pixels: writers disagree about what the corner of a pixel is
_FARTHEST = 2**31  # object pixels
_PIXEL_TOLERANCE = 0.01  # of two ways to know the object pixel


class _Frame(NamedTuple):
    """How positions become coordinates.

    Attributes:
        pixel_xy_m: Of the object.
        shift_xy: Added to positions in object pixels; None where the file does not say where the object begins.
        origin_rc: Coordinates of the object's index [0, 0].
    """

    pixel_xy_m: tuple[float, float]
    shift_xy: tuple[float, float] | None
    origin_rc: tuple[int, int]


def cxi_contents(file: Hdf5File) -> Contents:
    """Read a CXI file.

    Raises:
        ScanError: Something in it is not as CXI says; what is missing is no error yet.
    """
    patterns, notes = _patterns(file)
    probe, probe_notes = _probe(file, None if patterns is None else patterns.side)
    side = patterns.side if patterns is not None else None if probe is None else probe.shape[-1]
    obj = object_array(single_layer(file.entry(Cxi.OBJECT))) if _names_images(file) and Cxi.OBJECT in file else None
    geometry = None if side is None else _geometry(file, side)
    xcoords = ycoords = None
    origin_rc = (0, 0)
    translation = _translation(file, None if patterns is None else len(patterns))
    if translation is not None and side is not None:
        frame = _frame(file, geometry, side, obj)
        xcoords, ycoords = _coordinates(translation, _basis(file), frame, side)
        origin_rc = frame.origin_rc
    return Contents(
        path=file.path,
        patterns=patterns,
        xcoords=xcoords,
        ycoords=ycoords,
        probe=probe,
        obj=obj,
        origin_rc=origin_rc,
        weight=file.entry(Cxi.WEIGHT).finite_array(np.float32) if Cxi.WEIGHT in file else None,
        truth=object_array(file.entry(Cxi.TRUTH)) if Cxi.TRUTH in file else None,
        geometry=geometry,
        kind="dataset",
        names=NAMES,
        present=tuple(f"{Cxi.ENTRY}/{name}" for name in file.names(Cxi.ENTRY)),
        notes=notes + probe_notes,
    )


# --- patterns and probe ------------------------------------------------------------------------------
def _patterns(file: Hdf5File) -> tuple[Hdf5Counts | None, tuple[str, ...]]:
    name = next((name for name in (Cxi.DATA, Cxi.LINKED_DATA) if name in file), None)
    if name is None:
        return None, ()
    notes = ()
    if Cxi.DARK in file:
        notes = (f"{Cxi.DARK}, a background, is not subtracted",)
    side = Hdf5Counts(file, name).side
    bad = bad_pixels(file.entry(Cxi.MASK), side, _GOOD_BITS) if Cxi.MASK in file else None
    patterns = Hdf5Counts(file, name, bad)
    _check_beam(file, patterns.side)
    return patterns, notes + bad_pixels_note(bad)


def _check_beam(file: Hdf5File, side: int) -> None:
    """Refuse patterns whose zero frequency is elsewhere than at [N//2, N//2], where the file says so."""
    if Cxi.CORNER not in file or _detector_pixel(file) is None:
        return
    corner, basis = _vectors(file.entry(Cxi.CORNER), (3,)), _basis(file)
    row, column = (float(-corner @ step / (step @ step)) - 0.5 for step in basis)
    if max(abs(row - side // 2), abs(column - side // 2)) > _BEAM_TOLERANCE:
        got = f"it at ({row:.1f}, {column:.1f})"
        fix = f"Cut the patterns around the beam, or correct {Cxi.CORNER}."
        file.fail(Cxi.DATA, f"the beam at (row, column) = ({side // 2}, {side // 2})", got, fix)


def _names_images(file: Hdf5File) -> bool:
    """Whether a program wrote the file that has the probe in image_1 and the object in image_2; CXI leaves it open."""
    return Cxi.PTYCHODUS in file or Cxi.OURS in file


def _probe(file: Hdf5File, side: int | None) -> tuple[np.ndarray | None, tuple[str, ...]]:
    if _names_images(file) and Cxi.PROBE in file:
        return probe_array(single_probe(file.entry(Cxi.PROBE)), side), ()
    if Cxi.ILLUMINATION in file:
        return probe_array(single_probe(file.entry(Cxi.ILLUMINATION)), side), ()
    if Cxi.PROBE in file:
        return None, (f"{Cxi.PROBE} is not read: CXI does not say whether it is a probe or an object",)
    return None, ()


# --- lengths ------------------------------------------------------------------------------------------
def _geometry(file: Hdf5File, side: int) -> Geometry | None:
    wavelength, distance, pixel = _wavelength(file), _distance(file), _detector_pixel(file)
    if wavelength is None or distance is None:
        return None
    if pixel is not None:
        return Geometry(wavelength, distance, pixel)
    object_pixel = _stated_object_pixel(file)
    return None if object_pixel is None else Geometry.from_object_pixel(wavelength, distance, object_pixel, side)


def _wavelength(file: Hdf5File) -> float | None:
    if Cxi.WAVELENGTH in file:
        return _length(file, Cxi.WAVELENGTH)
    if Cxi.ENERGY not in file:
        return None
    energy = file.number(Cxi.ENERGY)
    if not _ENERGY_RANGE_J[0] < energy < _ENERGY_RANGE_J[1]:
        fix = "CXI has energies in joules: 1 eV is 1.602176634e-19 J."
        file.fail(Cxi.ENERGY, "a photon energy in joules", f"{energy:g}", fix)
    return wavelength_m(energy)


def _distance(file: Hdf5File) -> float | None:
    if Cxi.DISTANCE in file:
        return _length(file, Cxi.DISTANCE)
    if Cxi.CORNER not in file:
        return None
    normal = np.cross(*_basis(file))
    return float(abs(_vectors(file.entry(Cxi.CORNER), (3,)) @ normal) / np.linalg.norm(normal))


def _detector_pixel(file: Hdf5File) -> tuple[float, float] | None:
    if Cxi.BASIS in file:
        rows, columns = np.linalg.norm(_basis(file), axis=1)
        return float(columns), float(rows)
    return _pixel_sizes(file)


def _pixel_sizes(file: Hdf5File) -> tuple[float, float] | None:
    sizes = [_length(file, name) for name in (Cxi.X_PIXEL, Cxi.Y_PIXEL) if name in file]
    return (sizes[0], sizes[-1]) if sizes else None  # one of them stands for both


def _stated_object_pixel(file: Hdf5File) -> tuple[float, float] | None:
    if not all(name in file for name in Cxi.OBJECT_PIXEL):
        return None
    width, height = (_length(file, name) for name in Cxi.OBJECT_PIXEL)
    return width, height


def _length(file: Hdf5File, name: str) -> float:
    value = file.number(name)
    if value <= 0:
        file.fail(name, "a length > 0, in metres", f"{value:g}")
    return value


def _basis(file: Hdf5File) -> np.ndarray:
    """Return the steps to the next row and the next column; a detector that is not turned where the file says nothing.

    Raises:
        ScanError: The detector is not a rectangle across the beam.
    """
    if Cxi.BASIS not in file:
        return unturned_basis(_pixel_sizes(file) or (1.0, 1.0))
    entry = file.entry(Cxi.BASIS)
    # As rows of (2, 3), or as columns of (3, 2); files of both kinds are about.
    basis = _vectors(entry, (2, 3)) if entry.shape == (2, 3) else _vectors(entry, (3, 2)).T
    lengths = np.linalg.norm(basis, axis=1)
    if not lengths.all():
        entry.fail("two steps of a length", "one of length 0")
    unit = basis / lengths[:, None]
    if abs(unit[0] @ unit[1]) > _RIGHT_ANGLE or np.abs(unit[:, 2]).max() > _RIGHT_ANGLE:
        entry.fail("rows and columns at right angles, across the beam", f"{np.round(unit, 3).tolist()}")
    return np.ascontiguousarray(basis)


def _vectors(entry: Entry, shape: tuple[int, ...]) -> np.ndarray:
    if entry.shape != shape or entry.dtype.kind not in "iuf":
        entry.fail(f"real numbers {shape}", str(entry))
    return entry.finite_array(np.float64)


# --- positions ----------------------------------------------------------------------------------------
@contract
def _translation(file: Hdf5File, n_patterns: int | None) -> SampleTranslation | None:
    name = next((name for name in (Cxi.TRANSLATION, Cxi.LINKED_TRANSLATION) if name in file), None)
    if name is None:
        return None
    entry = file.entry(name)
    if len(entry.shape) != 2 or entry.shape[1] not in (2, 3) or entry.dtype.kind not in "iuf":
        entry.fail("real numbers (positions, 3), order (x, y, z)", str(entry))
    if n_patterns is not None and entry.shape[0] != n_patterns:
        entry.fail(f"{n_patterns} positions, one for each pattern", f"{entry.shape[0]} positions")
    if not entry.size:
        entry.fail("at least one position", str(entry))
    translation = np.zeros((entry.shape[0], 3))
    translation[:, : entry.shape[1]] = entry.finite_array(np.float64)
    return translation


@contract
def _coordinates(translation: SampleTranslation, basis: np.ndarray, frame: _Frame, side: int) -> tuple[ScanX, ScanY]:
    x, y = to_object_pixels(*along_detector(probe_translation(translation), basis), frame.pixel_xy_m)
    if frame.shift_xy is None:  # the object may begin anywhere: let it begin with the outermost patches
        return x - x.min() + side // 2, y - y.min() + side // 2
    return x + frame.shift_xy[0], y + frame.shift_xy[1]


def _frame(file: Hdf5File, geometry: Geometry | None, side: int, obj: np.ndarray | None) -> _Frame:
    pixel = _object_pixel(file, geometry, side)
    middle = _middle(file, obj, side, pixel)
    if Cxi.FRAME not in file:
        return _Frame(pixel, middle, (0, 0))
    x, y = (float(-origin) for origin in _vectors(file.entry(Cxi.FRAME), (2,)) / pixel)
    if middle is None:
        return _Frame(pixel, (x, y), (0, 0))
    row, column = y - middle[1], x - middle[0]
    if not max(abs(row), abs(column)) < _FARTHEST:
        file.fail(
            Cxi.OBJECT_CENTER[0], "an object near its positions", f"one {max(abs(row), abs(column)):.3g} pixels away"
        )
    return _Frame(pixel, (x, y), (round(row), round(column)))


def _middle(
    file: Hdf5File, obj: np.ndarray | None, side: int, pixel_xy_m: tuple[float, float]
) -> tuple[float, float] | None:
    """Return what is added to positions in object pixels to have them in the frame of the object, where it is known."""
    if obj is None or not all(name in file for name in Cxi.OBJECT_CENTER):
        return None
    centers = (file.number(name) for name in Cxi.OBJECT_CENTER)
    x, y = (
        centred_offset(length, side) - center / pixel
        for length, center, pixel in zip(obj.shape[::-1], centers, pixel_xy_m, strict=True)
    )
    return x, y


def _object_pixel(file: Hdf5File, geometry: Geometry | None, side: int) -> tuple[float, float]:
    """Return the size of an object pixel, as stated or from the geometry, which must not contradict each other."""
    stated = _stated_object_pixel(file)
    if geometry is None:
        return stated or _refuse_without_lengths(file)
    computed = geometry.object_pixel_xy_m(side)
    if stated is None:
        return computed
    if not np.allclose(stated, computed, rtol=_PIXEL_TOLERANCE, atol=0):
        got = f"{stated[0]:.4g} m stated, {computed[0]:.4g} m from wavelength, distance and detector pixel"
        file.fail(Cxi.OBJECT_PIXEL[0], "one size of the object pixel", got)
    return stated


def _refuse_without_lengths(file: Hdf5File) -> NoReturn:
    parts = {Cxi.WAVELENGTH: _wavelength(file), Cxi.DISTANCE: _distance(file), Cxi.X_PIXEL: _detector_pixel(file)}
    lacking = next(name for name, value in parts.items() if value is None)
    fix = "Without wavelength, distance and detector pixel, metres cannot be converted to object pixels."
    file.fail(lacking, "to be in the file", "translations in metres and no such length", fix)
