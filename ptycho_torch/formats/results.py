"""Results of a reconstruction: the same arrays under the same names in NPZ and HDF5.

``object``, ``weight`` and ``origin`` (row, column), and where they are known ``probe``, ``xcoords``, ``ycoords`` and
the geometry, whose names scans share.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ptycho_torch.files import new_file
from ptycho_torch.formats.archive import write_npz
from ptycho_torch.formats.checks import object_array, one_per_position, probe_array
from ptycho_torch.formats.contents import Contents
from ptycho_torch.formats.entry import Entry, Source
from ptycho_torch.formats.geometry import Geometry

__all__ = [
    "GEOMETRY_KEYS",
    "RESULT_KEYS",
    "geometry_arrays",
    "geometry_or_none",
    "result_contents",
    "write_hdf5_result",
    "write_npz_result",
]

RESULT_KEYS = ("object", "origin")  # what tells a result from everything else
GEOMETRY_KEYS = ("wavelength_m", "distance_m", "detector_pixel_xy_m")
_NAMES = {"patterns": "diffraction", "xcoords": "xcoords", "ycoords": "ycoords", "probe": "probe", "obj": "object"}
_MEANING = {
    "object": "complex transmission, in the scale of the probe",
    "weight": "counts that the estimate of each pixel rests on",
    "origin": "coordinates (row, column) of index [0, 0] of the object, object pixels",
    "probe": "counts**0.5, (modes, N, N)",
    "xcoords": "column of each patch centre, object pixels",
    "ycoords": "row of each patch centre, object pixels",
    "wavelength_m": "m",
    "distance_m": "sample to detector, m",
    "detector_pixel_xy_m": "m, order (x, y)",
}


def result_contents(source: Source, kind: str) -> Contents:
    """Read a result.

    Args:
        source: An open NPZ or HDF5 file.
        kind: What the format calls its entries.

    Raises:
        ScanError: An array is not what the layout says.
    """

    def read(key: str, reader: Callable[..., np.ndarray], *more: Any) -> Any:
        return reader(source.entry(key), *more) if key in source.keys else None

    return Contents(
        path=source.path,
        obj=read("object", object_array),
        origin_rc=_whole_pair(source.entry("origin")),
        weight=read("weight", _weight_array),
        probe=read("probe", probe_array, None),
        xcoords=read("xcoords", one_per_position, None),
        ycoords=read("ycoords", one_per_position, None),
        geometry=geometry_or_none(source),
        kind=kind,
        names=_NAMES | {"geometry": GEOMETRY_KEYS[0]},
        present=source.keys,
    )


def result_arrays(contents: Contents) -> dict[str, np.ndarray]:
    """Return what is known, by name.

    Raises:
        ScanError: There is no object.
    """
    known = {
        "object": contents.required("obj"),
        "weight": contents.weight,
        "origin": np.array(contents.origin_rc, np.int64),
        "probe": contents.probe,
        "xcoords": contents.xcoords,
        "ycoords": contents.ycoords,
        **geometry_arrays(contents.geometry),
    }
    return {key: array for key, array in known.items() if array is not None}


def write_npz_result(path: Path, contents: Contents) -> None:
    """Write a result to an archive, which appears complete or not at all."""
    write_npz(path, result_arrays(contents))


def write_hdf5_result(path: Path, contents: Contents) -> None:
    """Write a result to an HDF5 file, which appears complete or not at all; each dataset says what it means."""
    arrays = result_arrays(contents)
    with new_file(path) as unfinished, h5py.File(unfinished, "w") as file:
        for key, array in arrays.items():
            file.create_dataset(key, data=array).attrs["meaning"] = _MEANING[key]


def geometry_arrays(geometry: Geometry | None) -> Mapping[str, np.ndarray]:
    """Return a geometry as arrays, by name; none if it is not known."""
    if geometry is None:
        return {}
    return {key: np.array(getattr(geometry, key), np.float64) for key in GEOMETRY_KEYS}


def geometry_or_none(source: Source) -> Geometry | None:
    """Read a geometry; None where a part of it is missing.

    Raises:
        ScanError: A length is no positive number.
    """
    if not set(GEOMETRY_KEYS) <= set(source.keys):
        return None
    lengths = [_lengths(source.entry(key), size) for key, size in zip(GEOMETRY_KEYS, (1, 1, 2), strict=True)]
    (wavelength,), (distance,), (pixel_x, pixel_y) = lengths
    return Geometry(wavelength, distance, (pixel_x, pixel_y))


def _lengths(entry: Entry, size: int) -> list[float]:
    if entry.size != size or entry.dtype.kind not in "iuf":
        entry.fail(f"{size} length{'s' * (size > 1)} in metres", str(entry))
    lengths = entry.finite_array().ravel().tolist()
    if min(lengths) <= 0:
        entry.fail("lengths > 0", f"{min(lengths)}")
    return lengths


def _whole_pair(entry: Entry) -> tuple[int, int]:
    if entry.shape != (2,) or entry.dtype.kind not in "iu":
        entry.fail("two whole numbers, (row, column)", str(entry))
    row, column = entry.array().tolist()
    return row, column


def _weight_array(entry: Entry) -> np.ndarray:
    if len(entry.shape) != 2 or entry.dtype.kind != "f":
        entry.fail("one real number for each pixel of the object", str(entry))
    return entry.finite_array(np.float32)
