"""File formats: what a file of any format holds, in our units and our frame, and the way back.

A format is recognised by the content of the file, and written by the suffix of its name. Owns which modules read and
write which format; the formats are theirs.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from ptycho_torch.formats.archive import NpzArchive, open_npz
from ptycho_torch.formats.contents import Contents, completed, paired
from ptycho_torch.formats.cxi import Cxi, cxi_contents
from ptycho_torch.formats.cxi_writer import write_cxi
from ptycho_torch.formats.errors import ScanError, refuse
from ptycho_torch.formats.geometry import Geometry
from ptycho_torch.formats.hdf5 import Hdf5File, open_hdf5
from ptycho_torch.formats.npz import DIFFRACTION_KEYS, scan_contents, write_scan
from ptycho_torch.formats.patterns import Patterns
from ptycho_torch.formats.ptychodus import (
    DIFFRACTION_KEY,
    PRODUCT_KEY,
    diffraction_contents,
    product_contents,
    write_product,
)
from ptycho_torch.formats.results import RESULT_KEYS, result_contents, write_hdf5_result, write_npz_result
from ptycho_torch.formats.tiff import write_tiff

__all__ = [
    "SUFFIXES",
    "Contents",
    "Geometry",
    "Patterns",
    "ScanError",
    "completed",
    "paired",
    "read_contents",
    "writable_suffix",
    "write_contents",
]

SUFFIXES = (".npz", ".cxi", ".h5", ".hdf5", ".tif", ".tiff")
_ZIP, _HDF5 = b"PK", b"\x89HDF\r\n\x1a\n"


def read_contents(path: Path) -> Contents:
    """Read everything but the patterns, which stay in the file.

    Raises:
        ScanError: The file is of no known format, damaged, or not what its format says.
    """
    if not path.is_file():
        what = "a directory" if path.is_dir() else "no such file"
        refuse(path, "an NPZ or HDF5 file", what)
    with path.open("rb") as stream:
        start = stream.read(len(_HDF5))
    if start.startswith(_ZIP):
        with open_npz(path) as archive:
            return _npz_contents(archive)
    if start != _HDF5:
        refuse(path, "an NPZ file (a zip archive) or an HDF5 file", f"a file that starts with {start[:4]!r}")
    with open_hdf5(path) as file:
        return _hdf5_contents(file)


def writable_suffix(path: Path, *, as_product: bool = False) -> str:
    """Return the suffix of a file that is to be written, in small letters.

    Raises:
        ScanError: No format has it.
    """
    known = (".npz", ".h5", ".hdf5") if as_product else SUFFIXES
    if path.suffix.lower() not in known:
        refuse(path, f"a name that ends in one of {', '.join(known)}", f"'{path.suffix}'")
    return path.suffix.lower()


def write_contents(
    path: Path,
    contents: Contents,
    *,
    as_product: bool = False,
    tick: Callable[[int], object] = lambda n: None,
    extra: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write a scan or a result to a file, which appears complete or not at all.

    ``.npz`` is a scan where there are patterns, otherwise a result; ``.cxi`` is a scan; ``.h5``, ``.hdf5``, ``.tif``
    and ``.tiff`` are results.

    Args:
        path: The file, replaced where it exists.
        contents: What there is.
        as_product: Write a product of ptychodus instead, ``.h5``, ``.hdf5`` or ``.npz``.
        tick: Told how many patterns were read, each time.
        extra: Further arrays of an NPZ scan, by key.

    Raises:
        ScanError: The suffix is not known, or something that the format needs is missing.
    """
    suffix = writable_suffix(path, as_product=as_product)
    if as_product:
        write_product(path, contents)
    elif suffix == ".cxi":
        write_cxi(path, contents, tick)
    elif suffix != ".npz":
        (write_tiff if suffix.startswith(".tif") else write_hdf5_result)(path, contents)
    elif contents.patterns is None:
        write_npz_result(path, contents)
    else:
        write_scan(path, contents, tick, extra)


def _npz_contents(archive: NpzArchive) -> Contents:
    if PRODUCT_KEY in archive.keys:
        return product_contents(archive)
    if set(RESULT_KEYS) <= set(archive.keys) and not set(DIFFRACTION_KEYS) & set(archive.keys):
        return result_contents(archive, "key")
    return scan_contents(archive)


def _hdf5_contents(file: Hdf5File) -> Contents:
    keys = file.keys
    if Cxi.ENTRY.strip("/") in keys:
        return cxi_contents(file)
    if PRODUCT_KEY in keys:
        return product_contents(file)
    if DIFFRACTION_KEY in keys:
        return diffraction_contents(file)
    if not set(RESULT_KEYS) <= set(keys):
        got = f"only {', '.join(keys) or 'nothing'} at its top"
        refuse(file.path, f"{Cxi.ENTRY} (CXI), {PRODUCT_KEY} or {DIFFRACTION_KEY} (ptychodus), or a result", got)
    return result_contents(file, "dataset")
