"""Files that are broken, mistaken or malicious, and what each of them is refused with.

Makes every one of them, reads it as the commands do, and writes the messages into the tables of ``docs/formats.md``.
Sizes that depend on the machine are those of one with 32 MiB of memory.
"""

import pickle
import re
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import h5py
import numpy as np
from hostile_files import (
    DATA,
    DETECTOR,
    ENERGY,
    TRANSLATION,
    N,
    S,
    Trap,
    W,
    Write,
    bomb,
    bundle,
    circle,
    content,
    cxi,
    declared,
    drop,
    external_link,
    external_storage,
    group_for_data,
    half_empty,
    in_directory,
    member,
    npy,
    npz,
    product,
    put,
    raw,
    twice,
    unknown_filter,
    virtual,
    with_value,
)

from ptycho_torch.bundle import BundleError, load_bundle
from ptycho_torch.formats import ScanError, completed, paired, read_contents
from ptycho_torch.scan import load_scan, scan_of

PAGE = Path(__file__).parents[1] / "docs/formats.md"
TABLE = re.compile(r"(<!-- (?!end)(\w+) -->\n).*?(?=<!-- end -->)", re.DOTALL)
MEMORY_BYTES = 2**24  # half of what the machine is taken to have

SMALL = npy("(5, 8, 8)", bytes(1280))
ARCHIVES: dict[str, Write] = {
    "text": raw(b"diffraction,x,y\n1,2,3\n"),
    "empty file": raw(b""),
    "cut off": content(npz(), lambda archive: archive[: len(archive) // 2]),
    "one byte changed": content(npz(), lambda archive: archive[:1200] + b"\xff" + archive[1201:]),
    "pickled object": npz(xcoords=np.array([Trap()], dtype=object)),
    "pickle in place of an array": member("xcoords", pickle.dumps(Trap())),
    "4 PiB declared, nothing there": member("diffraction", npy(f"({2**44}, 8, 8)")),
    "brackets nested 4,000 deep": member("diffraction", npy("(" * 4000)),
    "negative size": member("diffraction", npy("(-5, -8, 8)", bytes(1280))),
    "bomb: 64 MiB of zeros in 64 KiB": bomb,
    "more declared than deflation can do": content(
        member("diffraction", SMALL, zipfile.ZIP_DEFLATED), in_directory(24, 2**31 - 1)
    ),
    "less declared than there is": content(
        member("diffraction", SMALL + bytes(2**20), zipfile.ZIP_DEFLATED), in_directory(24, len(SMALL))
    ),
    "a key twice": twice,
    "encrypted": content(member("diffraction", SMALL), in_directory(8, 1, 2)),
    "compressed with bzip2": member("diffraction", SMALL, zipfile.ZIP_BZIP2),
}

SCANS: dict[str, Write] = {
    "counts for amplitudes": npz(diffraction=lambda a: np.rint(a**2).astype(np.uint16)),
    "float64": npz(diffraction=lambda a: a.astype(np.float64)),
    "NaN": npz(diffraction=with_value(np.nan)),
    "infinity": npz(probeGuess=with_value(np.inf)),
    "negative": npz(diffraction=with_value(-0.5)),
    "only zeros": npz(diffraction=np.zeros_like),
    "no pattern": npz(diffraction=lambda a: a[:0]),
    "oblong patterns": npz(diffraction=lambda a: a[:, 1:]),
    "too few positions": npz(xcoords=lambda a: a[1:]),
    "position outside the object": npz(objectGuess=np.ones((12, W), np.complex64)),
    "positions in nanometres": npz(xcoords=lambda a: a * 1e4, ycoords=lambda a: a * 1e4),
    "probe of another size": npz(probeGuess=lambda a: a[:, 1:, 1:]),
    "65 probe modes": npz(probeGuess=lambda a: np.repeat(a[:1], 65, axis=0)),
    "no probe": npz(probeGuess=None),
    "every pixel bad": npz(bad_pixels=np.ones((N, N), bool)),
    "bad pixels of another size": npz(bad_pixels=np.eye(N + 1, dtype=bool)),
    "bad pixels with fractions": npz(bad_pixels=np.eye(N)),
}

HDF5: dict[str, Write] = {
    "only the signature": raw(b"\x89HDF\r\n\x1a\n" + bytes(100)),
    "cut off": content(cxi(lambda file: None), lambda file: file[: len(file) // 2]),
    "nothing of a known layout": lambda path: h5py.File(path, "w").close(),
    "link to another file": cxi(external_link),
    "virtual dataset": cxi(virtual),
    "data in another file": cxi(external_storage),
    "links in a circle": cxi(circle),
    "group for a dataset": cxi(group_for_data),
    "text for numbers": cxi(put(DATA, ["a", "b"])),
    "declared, never written": cxi(declared((S, N, N), (1, N, N), written=False)),
    "4 PiB declared, one pattern written": cxi(declared((2**44, N, N), (1, N, N), written=True)),
    "64 MiB declared, one pattern written": cxi(half_empty),
    "chunks of 64 MiB": cxi(declared((2**18, N, N), (2**18, N, N), written=True)),
    "unknown compression": cxi(unknown_filter),
    "NaN": cxi(put(DATA, lambda a: with_value(np.nan)(a.astype(np.float32)))),
    "negative counts": cxi(put(DATA, lambda a: with_value(-1)(a.astype(np.int32)))),
    "complex counts": cxi(put(DATA, lambda a: a.astype(np.complex64))),
    "raster of patterns": cxi(put(DATA, lambda a: a[None])),
    "oblong patterns": cxi(put(DATA, lambda a: a[:, 1:])),
    "every pixel masked": cxi(put(f"{DETECTOR}/mask", np.ones((N, N), np.uint32))),
    "mask of another size": cxi(put(f"{DETECTOR}/mask", np.eye(N + 1, dtype=np.uint32))),
    "beam elsewhere": cxi(put(f"{DETECTOR}/corner_position", lambda a: a * [1, 0.2, 1])),
    "detector not across the beam": cxi(put(f"{DETECTOR}/basis_vectors", lambda a: a + np.eye(3, 2, -2) * 1e-5)),
    "energy in electronvolts": cxi(
        lambda file: (drop("entry_1/instrument_1/source_1/wavelength")(file), put(ENERGY, 12400.0)(file))
    ),
    "distance 0": cxi(put(f"{DETECTOR}/distance", 0.0)),
    "no wavelength": cxi(drop(ENERGY, "entry_1/instrument_1/source_1/wavelength", "entry_1/ptychodus")),
    "two sizes of the object pixel": cxi(put("entry_1/ptychodus/object_pixel_width_m", lambda a: a * 1.1)),
    "too few positions": cxi(put(TRANSLATION, lambda a: a[1:])),
    "positions of one number": cxi(put(TRANSLATION, lambda a: a[:, 0])),
    "NaN position": cxi(put(TRANSLATION, with_value(np.nan))),
    "position outside the object": cxi(put(TRANSLATION, lambda a: a * [1, 2, 1])),
    "no positions": cxi(drop(TRANSLATION)),
    "no probe": cxi(drop("entry_1/image_1", "entry_1/instrument_1/source_1/illumination")),
    "real probe": cxi(put("entry_1/image_1/data", lambda a: a.real)),
    "probe that changes": cxi(put("entry_1/image_1/data", lambda a: np.repeat(a, 3, axis=0))),
    "object of two layers": cxi(put("entry_1/image_2/data", lambda a: np.repeat(a, 2, axis=0))),
}

PRODUCTS: dict[str, Write] = {
    "near field": product(lambda file: file.attrs.modify("far_field", False)),
    "no pixel size": product(lambda file: file["object"].attrs.__delitem__("pixel_width_m")),
    "pixel of size 0": product(lambda file: file["object"].attrs.modify("pixel_height_m", 0.0)),
    "text for a length": product(lambda file: file["object"].attrs.__setitem__("center_x_m", "far")),
    "no object": product(drop("object")),
    "a position twice": product(put("probe_position_indexes", lambda a: a * 0)),
}


BUNDLES: dict[str, Write] = {
    "a pickle": raw(pickle.dumps(Trap())),
    "what torch.save writes": bundle(lambda members: {"model/data.pkl": pickle.dumps(Trap())}),
    "cut off": content(bundle(dict), lambda archive: archive[: len(archive) // 2]),
    "path out of the archive": bundle(lambda members: members | {"../../.bashrc": b"echo"}),
    "pickled weights": bundle(lambda members: {"weights.pt": b"", "config.json": members["config.json"]}),
    "compressed, as a bomb is": bundle(dict, zipfile.ZIP_DEFLATED),
    "configuration of 2 MiB": bundle(lambda members: members | {"config.json": b" " * 2**21}),
    "brackets nested 200,000 deep": bundle(lambda members: members | {"config.json": b"[" * 200_000}),
    "a bit of the weights changed": bundle(
        lambda members: members | {"weights.safetensors": members["weights.safetensors"][:-1] + b"\xff"}
    ),
    "another configuration": bundle(
        lambda members: members | {"config.json": members["config.json"].replace(b'"seed": 0', b'"seed": 1')}
    ),
}


def load_with_patterns(path: Path) -> None:
    """Read a product together with the patterns that belong to it."""
    patterns = path.with_name("diffraction.h5")
    with h5py.File(patterns, "w") as file:
        file["patterns"], file["indexes"] = np.ones((S, N, N), np.uint16), np.arange(S)
    scan_of(paired(completed(read_contents(patterns), read_contents(path)))).load()


TABLES: dict[str, tuple[str, Callable[[Path], object], dict[str, Write]]] = {
    "archives": ("scan.npz", load_scan, ARCHIVES),
    "scans": ("scan.npz", load_scan, SCANS),
    "hdf5": ("scan.cxi", load_scan, HDF5),
    "products": ("product.h5", load_with_patterns, PRODUCTS),
    "bundles": ("model.ptycho", load_bundle, BUNDLES),
}


def message(table: str, title: str, folder: Path) -> str:
    """Return what an input is refused with, when it lies in a folder whose name is not told."""
    name, read, inputs = TABLES[table]
    path = folder / name
    inputs[title](path)
    modules = [f"ptycho_torch.formats.{name}.memory_limit_bytes" for name in ("entry", "hdf5")]
    with mock.patch(modules[0], return_value=MEMORY_BYTES), mock.patch(modules[1], return_value=MEMORY_BYTES):
        try:
            read(path)
        except (ScanError, BundleError) as error:
            told = str(error).replace(f"{folder}/", "")
            # The words of a library depend on its version.
            return told if error.__cause__ is None else told.replace(str(error.__cause__), "...")
    return "accepted"


def table_text(table: str) -> str:
    """Return a table in Markdown."""
    rows = ["| input | message |", "|---|---|"]
    for title in TABLES[table][2]:
        with tempfile.TemporaryDirectory() as folder:
            cell = message(table, title, Path(folder)).replace("|", "\\|").replace("\n", " ")
            rows.append(f"| {title} | {cell} |")
    return "\n".join(rows)


def refreshed(page: str) -> str:
    """Return a page whose tables say what is printed now."""
    return TABLE.sub(lambda found: f"{found[1]}\n{table_text(found[2])}\n\n", page)


if __name__ == "__main__":
    PAGE.write_text(refreshed(PAGE.read_text()))
