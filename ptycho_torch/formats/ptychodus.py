"""The files of ptychodus: products (probe, object and positions), and the patterns that belong to them.

The layout is that of ptychodus 1.7, whose HDF5 products have lengths of an array as its attributes, and whose NPZ
products have them as keys of their own. Lengths are metres. Positions are of the probe on the sample: x along the
columns, y along the rows, and the middle of the object lies at its centre.
"""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy import constants

from ptycho_torch.contracts import MetresX, MetresY
from ptycho_torch.files import new_file
from ptycho_torch.formats.archive import NpzArchive, write_npz
from ptycho_torch.formats.checks import bad_pixels, bad_pixels_note, object_array, one_per_position, probe_array
from ptycho_torch.formats.contents import Contents
from ptycho_torch.formats.errors import refuse
from ptycho_torch.formats.geometry import (
    Geometry,
    centred_offset,
    photon_energy_j,
    to_object_pixels,
    wavelength_m,
)
from ptycho_torch.formats.hdf5 import Hdf5Counts, Hdf5File
from ptycho_torch.formats.layers import single_layer, single_probe
from shapecheck import contract

__all__ = ["DIFFRACTION_KEY", "PRODUCT_KEY", "diffraction_contents", "product_contents", "write_product"]

DIFFRACTION_KEY, PRODUCT_KEY = "patterns", "probe_position_x_m"  # what tells the files from others
_NAMES = {
    "patterns": DIFFRACTION_KEY,
    "xcoords": PRODUCT_KEY,
    "ycoords": "probe_position_y_m",
    "probe": "probe",
    "obj": "object",
    "geometry": "detector_object_distance_m",
}
_ENERGIES = ("photon_energy_eV", "probe_energy_eV")  # what it is called, and what it was called before
_POSITION_NUMBERS, _PATTERN_NUMBERS = "probe_position_indexes", "indexes"
_BAD_PIXELS = "bad_pixels"
_METADATA = ("exposure_time_s", "mass_attenuation_m2_per_kg", "tomography_angle_deg", "focus_object_distance_m")


def product_contents(file: NpzArchive | Hdf5File) -> Contents:
    """Read a product; coordinates are in the frame of its object.

    Raises:
        ScanError: Something in it is missing, or not as ptychodus says.
    """
    kind = "key" if isinstance(file, NpzArchive) else "dataset"
    if _number_or_none(file, "/", "far_field") == 0:
        refuse(file.path, "a far-field experiment", "one in the near field", kind="attribute", key="far_field")
    obj = object_array(single_layer(file.entry("object")))
    probe = probe_array(single_probe(file.entry("probe")), None)
    pixel = _number(file, "object", "pixel_width_m"), _number(file, "object", "pixel_height_m")
    center = _number(file, "object", "center_x_m"), _number(file, "object", "center_y_m")
    xcoords, ycoords = to_object_pixels(*_positions(file), pixel)
    side = probe.shape[-1]
    shift_x, shift_y = (
        centred_offset(length, side) - middle / size
        for length, middle, size in zip(obj.shape[::-1], center, pixel, strict=True)
    )
    return Contents(
        path=file.path,
        xcoords=xcoords + shift_x,
        ycoords=ycoords + shift_y,
        probe=probe,
        obj=obj,
        geometry=_geometry(file, pixel, side),
        position_numbers=_numbers(file, _POSITION_NUMBERS),
        kind=kind,
        names=_NAMES,
        present=file.keys,
    )


def diffraction_contents(file: Hdf5File) -> Contents:
    """Read the patterns that belong to a product.

    Raises:
        ScanError: Something in it is not as ptychodus says.
    """
    side = Hdf5Counts(file, DIFFRACTION_KEY).side
    bad = bad_pixels(file.entry(_BAD_PIXELS), side) if _BAD_PIXELS in file else None
    patterns = Hdf5Counts(file, DIFFRACTION_KEY, bad)
    return Contents(
        path=file.path,
        patterns=patterns,
        pattern_numbers=_numbers(file, _PATTERN_NUMBERS),
        kind="dataset",
        names=_NAMES,
        present=file.keys,
        notes=bad_pixels_note(bad),
    )


def write_product(path: Path, contents: Contents) -> None:
    """Write a product, HDF5 or NPZ by the suffix, which appears complete or not at all.

    Raises:
        ScanError: Something is missing.
    """
    probe, obj, geometry = (contents.required(name) for name in ("probe", "obj", "geometry"))
    x, y = _centred_positions(contents)
    arrays = {
        _POSITION_NUMBERS: np.arange(len(x)),
        PRODUCT_KEY: x,
        _NAMES["ycoords"]: y,
        "probe": probe[None],
        "object": obj[None],
        "object_layer_spacing_m": np.empty(0),
        "loss_epochs": np.empty(0, np.int64),
        "loss_values": np.empty(0),
    }
    metadata = _metadata(path, geometry, probe)
    width, height = geometry.object_pixel_xy_m(probe.shape[-1])
    attributes = {
        "probe": {"pixel_width_m": width, "pixel_height_m": height},
        "object": {"pixel_width_m": width, "pixel_height_m": height, "center_x_m": 0.0, "center_y_m": 0.0},
    }
    write = _write_npz if path.suffix == ".npz" else _write_hdf5
    write(path, arrays, metadata, attributes)


def _write_npz(path: Path, arrays: Any, metadata: Any, attributes: Any) -> None:
    prefixed = {f"{key}_{name}": value for key, of in attributes.items() for name, value in of.items()}
    single = {key: np.asarray(value) for key, value in (metadata | prefixed).items()}
    write_npz(path, single | arrays)


def _write_hdf5(path: Path, arrays: Any, metadata: Any, attributes: Any) -> None:
    with new_file(path) as unfinished, h5py.File(unfinished, "w") as file:
        file.attrs.update(metadata)
        for key, array in arrays.items():
            file.create_dataset(key, data=array).attrs.update(attributes.get(key, {}))


def _metadata(path: Path, geometry: Geometry, probe: np.ndarray) -> dict[str, Any]:
    energy_ev = photon_energy_j(geometry.wavelength_m) / constants.e
    return {
        "name": path.stem,
        "comments": "written by ptycho-torch",
        _NAMES["geometry"]: geometry.distance_m,
        _ENERGIES[0]: energy_ev,
        "probe_photon_count": float(np.sum(np.abs(probe.astype(np.complex128)) ** 2)),
        "far_field": True,
        "tilt_angle_deg": 0.0,
        **dict.fromkeys(_METADATA, 0.0),
    }


@contract
def _centred_positions(contents: Contents) -> tuple[MetresX, MetresY]:
    """Return positions in metres, from the middle of the object."""
    obj, side = contents.required("obj"), contents.required("probe").shape[-1]
    metres = []
    coordinates = (contents.required("xcoords"), contents.required("ycoords"))
    pixels = contents.required("geometry").object_pixel_xy_m(side)
    for values, origin, length, pixel in zip(
        coordinates, contents.origin_rc[::-1], obj.shape[::-1], pixels, strict=True
    ):
        metres.append((values - origin - centred_offset(length, side)) * pixel)
    return metres[0], metres[1]


@contract
def _positions(file: NpzArchive | Hdf5File) -> tuple[MetresX, MetresY]:
    entries = file.entry(_NAMES["xcoords"]), file.entry(_NAMES["ycoords"])
    for entry in entries:
        entry.expect_kind("iuf", "real numbers, in metres")
    x = one_per_position(entries[0], None)
    return x, one_per_position(entries[1], len(x))


def _geometry(file: NpzArchive | Hdf5File, pixel: tuple[float, float], side: int) -> Geometry | None:
    """Return the geometry; None where energy or distance are 0, by which ptychodus says that they are not known."""
    energy_ev = next((energy for name in _ENERGIES if (energy := _number_or_none(file, "/", name))), 0.0)
    distance = _number_or_none(file, "/", _NAMES["geometry"]) or 0.0
    if energy_ev <= 0 or distance <= 0:
        return None
    return Geometry.from_object_pixel(wavelength_m(energy_ev * constants.e), distance, pixel, side)


def _numbers(file: NpzArchive | Hdf5File, key: str) -> np.ndarray:
    entry = file.entry(key)
    if len(entry.shape) != 1 or entry.dtype.kind not in "iu":
        entry.fail("whole numbers, one for each position", str(entry))
    return entry.array()


def _number(file: NpzArchive | Hdf5File, holder: str, name: str) -> float:
    value = _number_or_none(file, holder, name)
    if value is None or (name.startswith("pixel") and value <= 0):
        got = "none" if value is None else f"{value:g}"
        refuse(file.path, "a length in metres", got, kind="attribute", key=f"{holder} {name}")
    return value


def _number_or_none(file: NpzArchive | Hdf5File, holder: str, name: str) -> float | None:
    if isinstance(file, Hdf5File):
        return file.attribute(holder, name)
    key = name if holder == "/" else f"{holder}_{name}"
    if key not in file.keys:
        return None
    entry = file.entry(key)
    if entry.size != 1 or entry.dtype.kind not in "biuf":
        entry.fail("one real number", str(entry))
    return float(entry.finite_array(np.float64).reshape(()))
