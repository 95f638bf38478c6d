"""What an inference leaves behind: the object, as a file and as a result, and how it compares with the truth."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from ptycho_torch.contracts import ObjectArray, ScanProbe
from ptycho_torch.files import written_atomically
from ptycho_torch.quality import Comparison, compare
from ptycho_torch.reassembly import Placement
from ptycho_torch.refinement import Refinement
from ptycho_torch.scan import Scan, ScanOnDisk
from shapecheck import contract

__all__ = ["METRICS_NAME", "RECONSTRUCTION_NAME", "InferenceResult", "write_inference"]

WeightArray = Float32[np.ndarray, "H W"]

RECONSTRUCTION_NAME = "reconstruction.npz"
METRICS_NAME = "metrics.json"


@contract
@dataclass(frozen=True)
class InferenceResult:
    """A reconstructed object, as written to the output folder.

    Attributes:
        obj: In the units of the file's probe: |FFT(probe * obj)| are the measured amplitudes.
        weight: Light that the estimate of each pixel rests on, counts.
        origin: Object pixel (row, col) of index [0, 0], in the frame of the file's coordinates.
        probe: As it was after refinement, where it was refined.
        misfit: Sum of |predicted - measured| amplitudes over the sum of the measured ones; needs no truth.
        misfits: The same during each epoch of refinement.
        bad_pixels: How many pixels of the detector were left out.
        reconstruction_path: The NPZ file.
        comparison: With the truth, where the file holds one.
        seen: The same of the object before it was refined: of what the model saw, or of a flat object. None where
            tiles were refined one by one.
        metrics_path: The comparison in numbers, where there is one.
    """

    obj: ObjectArray
    weight: WeightArray
    origin: tuple[int, int]
    probe: ScanProbe
    misfit: float
    misfits: tuple[float, ...]
    bad_pixels: int
    reconstruction_path: Path
    comparison: Comparison | None = None
    seen: Comparison | None = None
    metrics_path: Path | None = None


def write_inference(
    start: Placement | None, refined: Refinement, scan: Scan | ScanOnDisk, misfit: float, output_dir: Path
) -> InferenceResult:
    """Write an object, and how it compares with the true one where the scan holds that.

    Args:
        start: Before refinement, where it was kept.
        refined: After it.
        scan: What it was reconstructed from.
        misfit: Of the refined object.
        output_dir: Created where it does not exist.
    """
    placement, probe = refined.placement, refined.probe.numpy()
    obj, weight = placement.obj.numpy(), placement.weight.numpy()
    comparison = _compared(obj, placement.anchor, scan)
    reconstruction = {"object": obj, "weight": weight, "origin": np.array(placement.anchor, np.int64), "probe": probe}
    return InferenceResult(
        obj=obj,
        weight=weight,
        origin=placement.anchor,
        probe=probe,
        misfit=misfit,
        misfits=tuple(refined.misfits),
        bad_pixels=0 if scan.bad_pixels is None else int(scan.bad_pixels.sum()),
        reconstruction_path=_write_reconstruction(output_dir / RECONSTRUCTION_NAME, reconstruction),
        comparison=comparison,
        seen=None if start is None else _compared(start.obj.numpy(), start.anchor, scan),
        metrics_path=None if comparison is None else _write_metrics(output_dir / METRICS_NAME, comparison, misfit),
    )


def _compared(obj: np.ndarray, origin: tuple[int, int], scan: Scan | ScanOnDisk) -> Comparison | None:
    """Compare within the box of the patch centres, where the object is well lit; None where no truth is known."""
    if scan.object_truth is None:
        return None
    top, bottom = int(np.floor(scan.ycoords.min())), int(np.ceil(scan.ycoords.max()))
    left, right = int(np.floor(scan.xcoords.min())), int(np.ceil(scan.xcoords.max()))
    return compare(obj, origin, scan.object_truth, (top, bottom, left, right))


def _write_reconstruction(path: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    with written_atomically(path) as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)
    return path


def _write_metrics(path: Path, comparison: Comparison, misfit: float) -> Path:
    values = comparison.as_dict() | {"misfit": misfit}
    with written_atomically(path) as stream:
        stream.write(json.dumps(values, indent=2).encode() + b"\n")
    return path
