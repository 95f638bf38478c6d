"""Results as TIFF pictures of floating-point numbers, for programs that look at pictures."""

from pathlib import Path

import numpy as np
import tifffile

from ptycho_torch.files import new_file
from ptycho_torch.formats.contents import Contents

__all__ = ["write_tiff"]


def write_tiff(path: Path, contents: Contents) -> None:
    """Write amplitude and phase of the object, its weight, and amplitude and phase of each probe mode.

    Pages are float32, phases in radians. Each group of pages of one size is a series with a description in JSON that
    labels them; the object's also says where it lies and how large its pixels are.

    Args:
        path: The file, replaced where it exists; appears complete or not at all.
        contents: With an object.

    Raises:
        ScanError: There is no object.
    """
    obj = contents.required("obj")
    described: dict[str, object] = {"origin_row_column": list(contents.origin_rc)}
    if contents.geometry is not None and contents.probe is not None:
        described["object_pixel_xy_m"] = list(contents.geometry.object_pixel_xy_m(contents.probe.shape[-1]))
    pages = {"amplitude": np.abs(obj), "phase, rad": np.angle(obj)}
    if contents.weight is not None:
        pages["weight, counts"] = contents.weight
    with new_file(path) as unfinished, tifffile.TiffWriter(unfinished) as file:
        _write_series(file, pages, described)
        if contents.probe is not None:
            _write_series(file, _probe_pages(contents.probe), {})


def _probe_pages(probe: np.ndarray) -> dict[str, np.ndarray]:
    pages = {}
    for mode, wave in enumerate(probe):
        pages[f"probe {mode} amplitude, counts**0.5"] = np.abs(wave)
        pages[f"probe {mode} phase, rad"] = np.angle(wave)
    return pages


def _write_series(file: tifffile.TiffWriter, pages: dict[str, np.ndarray], described: dict[str, object]) -> None:
    stack = np.stack(list(pages.values())).astype(np.float32)
    # "minisblack": what a page means is in the label, and no three of them are colours.
    file.write(stack, photometric="minisblack", metadata={"axes": "CYX", "labels": list(pages), **described})
