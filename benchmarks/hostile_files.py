"""Writers of good files and of spoilt ones, for `hostile_inputs`."""

import os
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from ptycho_torch.bundle import BundleConfigs, save_bundle
from ptycho_torch.config_params import DataConfig, ModelConfig, TrainingConfig
from ptycho_torch.formats import Geometry, read_contents, write_contents
from ptycho_torch.model import PtychoModel
from ptycho_torch.scan import Scan, save_scan

S, N, P, H, W = 5, 8, 2, 20, 23
DETECTOR = "entry_1/instrument_1/detector_1"
DATA, TRANSLATION = f"{DETECTOR}/data", "entry_1/sample_1/geometry_1/translation"
ENERGY = "entry_1/instrument_1/source_1/energy"

Change = Callable[[Any], Any]
Write = Callable[[Path], object]


# --- a good scan, to spoil --------------------------------------------------------------------------------
def good_scan(seed: int = 0) -> Scan:
    rng = np.random.default_rng(seed)
    wave, phase = rng.standard_normal((2, P, N, N)), rng.uniform(-1, 1, (2, H, W))
    return Scan(
        diffraction_amplitude=np.sqrt(rng.poisson(9.0, (S, N, N))).astype(np.float32),
        xcoords=rng.uniform(5, 15, S),
        ycoords=rng.uniform(5, 12, S),
        probe=(wave[0] + 1j * wave[1]).astype(np.complex64),
        object_guess=np.exp(1j * phase[0]).astype(np.complex64),
        geometry=Geometry(1e-10, 2.0, (75e-6, 75e-6)),
    )


def arrays() -> dict[str, Any]:
    scan = good_scan()
    coordinates = {"xcoords": scan.xcoords, "ycoords": scan.ycoords}
    return {"diffraction": scan.diffraction_amplitude, "probeGuess": scan.probe, **coordinates}


def npz(**changes: Any) -> Write:
    """An archive with some arrays changed: by a function, replaced, or left out (None)."""

    def write(path: Path) -> None:
        spoilt = arrays()
        for key, change in changes.items():
            spoilt[key] = change(spoilt[key]) if callable(change) else change
        np.savez(path, **{key: value for key, value in spoilt.items() if value is not None})

    return write


def cxi(change: Callable[[h5py.File], object]) -> Write:
    """A CXI file after a change."""

    def write(path: Path) -> None:
        save_scan(good_scan(), path)
        with h5py.File(path, "r+") as file:
            change(file)

    return write


def put(name: str, value: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        if name in file:
            old = file[name][()]
            del file[name]
            file[name] = value(old) if callable(value) else value
        else:
            file[name] = value

    return change


def drop(*names: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        for name in names:
            del file[name]

    return change


def product(change: Callable[[h5py.File], object]) -> Write:
    """A product of ptychodus after a change."""

    def write(path: Path) -> None:
        save_scan(good_scan(), path.with_suffix(".cxi"))
        write_contents(path, read_contents(path.with_suffix(".cxi")), as_product=True)
        path.with_suffix(".cxi").unlink()
        with h5py.File(path, "r+") as file:
            change(file)

    return write


def with_value(value: complex) -> Change:
    def change(array: np.ndarray) -> np.ndarray:
        array = array.astype(np.result_type(array.dtype, type(value))) if array.dtype.kind in "iu" else array.copy()
        array.flat[3] = value
        return array

    return change


def content(write: Write, change: Callable[[bytes], bytes]) -> Write:
    """What another file holds, changed byte by byte."""

    def write_changed(path: Path) -> None:
        write(path)
        path.write_bytes(change(path.read_bytes()))

    return write_changed


def member(key: str, payload: bytes, method: int = zipfile.ZIP_STORED) -> Write:
    """An archive one of whose arrays is replaced by bytes."""

    def write(path: Path) -> None:
        npz(**{key: None})(path)
        with zipfile.ZipFile(path, "a", method) as archive:
            archive.writestr(f"{key}.npy", payload)

    return write


def npy(shape: str, data: bytes = b"", dtype: str = "<f4") -> bytes:
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


def in_directory(offset: int, value: int, width: int = 4) -> Callable[[bytes], bytes]:
    """Change a number in the archive's line for its last member."""

    def change(archive: bytes) -> bytes:
        at = archive.rindex(b"PK\x01\x02") + offset
        return archive[:at] + value.to_bytes(width, "little") + archive[at + width :]

    return change


class Trap:
    """Executes something when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("sprung",)


# --- HDF5 tricks ----------------------------------------------------------------------------------------
def external_link(file: h5py.File) -> None:
    del file[DATA]
    file[DATA] = h5py.ExternalLink("/etc/secrets.h5", "/data")


def virtual(file: h5py.File) -> None:
    del file[DATA]
    layout = h5py.VirtualLayout((S, N, N), np.uint32)
    layout[:] = h5py.VirtualSource("/etc/secrets.h5", "data", (S, N, N))
    file.create_virtual_dataset(DATA, layout)


def external_storage(file: h5py.File) -> None:
    del file[DATA]
    file.create_dataset(DATA, (S, N, N), np.uint32, external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def circle(file: h5py.File) -> None:
    del file[DATA]
    file[DATA] = h5py.SoftLink(f"/{DATA}")


def declared(shape: tuple[int, ...], chunks: tuple[int, ...], *, written: bool) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[DATA]
        data = file.create_dataset(DATA, shape, np.uint32, chunks=chunks, compression="gzip")
        if written:
            data[0, 0, 0] = 1

    return change


def unknown_filter(file: h5py.File) -> None:
    del file[DATA]
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((1, N, N))
    plan.set_filter(32099, h5py.h5z.FLAG_OPTIONAL)
    space = h5py.h5s.create_simple((S, N, N))
    h5py.h5d.create(file[DETECTOR].id, b"data", h5py.h5t.NATIVE_UINT32, space, plan)
    file[DATA].id.write_direct_chunk((0, 0, 0), bytes(4 * N * N))


def group_for_data(file: h5py.File) -> None:
    del file[DATA]
    file.create_group(DATA)


def raw(payload: bytes) -> Write:
    return lambda path: path.write_bytes(payload)


def twice(path: Path) -> None:
    npz()(path)
    with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings(action="ignore"):
        archive.writestr("xcoords.npy", npy("(5,)", bytes(40), "<f8"))


def bomb(path: Path) -> None:
    many = 2**18
    zeros = np.broadcast_to(np.float32(0), (many, N, N))
    np.savez_compressed(path, **arrays() | {"diffraction": zeros, "xcoords": np.zeros(many), "ycoords": np.zeros(many)})


def half_empty(file: h5py.File) -> None:
    """Much declared, little of it written."""
    declared((2**18, N, N), (1, N, N), written=True)(file)
    put(TRANSLATION, lambda a: np.zeros((2**18, 3)))(file)
    del file["entry_1/image_2"]


def bundle(change: Callable[[dict[str, bytes]], Mapping[str, bytes]], method: int = zipfile.ZIP_STORED) -> Write:
    """A bundle with other members."""

    def write(path: Path) -> None:
        configs = small_configs()
        model = PtychoModel(configs.model, torch.zeros(1, 16, 16, dtype=torch.complex64))
        save_bundle(path, model, configs)
        with zipfile.ZipFile(path) as archive:
            members = change({name: archive.read(name) for name in archive.namelist()})
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, payload in members.items():
                archive.writestr(name, payload)

    return write


def small_configs() -> BundleConfigs:
    sizes = {"gridsize": 1, "C": 1}
    return BundleConfigs(
        DataConfig(**sizes, N=16, n_groups=5, neighbor_count=1, max_neighbor_distance=0.0, nphotons=1e4, seed=0),
        ModelConfig(**sizes, N=16, P=1, max_neighbor_distance=0.0),
        TrainingConfig(**sizes),
    )
