"""How good a reconstruction is after so many epochs, and what it costs: the engine from a flat object or from a model.

CPU time of one thread, without reading the file. Quality against the truth of a simulated scan.

    python benchmarks/reconstruction.py [--scan SCAN.npz] [--model BUNDLE] [--epochs 4 20 40]
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from ptycho_torch.bundle import load_bundle
from ptycho_torch.quality import compare
from ptycho_torch.reassembly import Placement
from ptycho_torch.reconstruction import flat_placement, reconstruct, single_patch_container, whole_scan_container
from ptycho_torch.refinement import refine
from ptycho_torch.scan import Scan, load_scan
from ptycho_torch.simulate import simulate_natural_scan

_Result = TypeVar("_Result")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--scan", type=Path, help="with a truth; by default one is simulated, 1,024 patterns of 64 x 64"
    )
    parser.add_argument("--model", type=Path, help="bundle to start from as well")
    parser.add_argument("--epochs", type=int, nargs="+", default=[4, 8, 20, 40])
    options = parser.parse_args()
    torch.set_num_threads(1)
    scan = simulate_natural_scan(seed=1) if options.scan is None else load_scan(options.scan)
    if scan.object_truth is None:
        parser.error(f"Expected --scan to hold the true object, got none in {options.scan}.")
    print(f"{scan.n_positions} patterns of {scan.N} x {scan.N} pixels")
    print("| start | epochs | CPU s | patterns/s | amplitude PSNR / SSIM | phase PSNR / SSIM | NRMSE | FRC 0.5 |")
    print("|---|---|---|---|---|---|---|---|")
    report("flat", scan, *timed(lambda: flat_placement(single_patch_container(scan))), options.epochs)
    if options.model is not None:
        bundle = load_bundle(options.model)
        container = whole_scan_container(scan, bundle.configs.data)
        seen = timed(lambda: reconstruct(bundle.model, container, bundle.configs.inference))
        report("model", scan, *seen, options.epochs)


def report(start: str, scan: Scan, placement: Placement, spent_s: float, epochs: list[int]) -> None:
    print_row(start, 0, spent_s, placement, scan)
    for count in epochs:
        refined, more_s = timed(lambda count=count: refine(placement, scan, count))
        print_row(start, count, spent_s + more_s, refined.placement, scan)


def timed(work: Callable[[], _Result]) -> tuple[_Result, float]:
    started = time.process_time()
    return work(), time.process_time() - started


def print_row(start: str, epochs: int, spent_s: float, placement: Placement, scan: Scan) -> None:
    top, left = (int(np.floor(coordinates.min())) for coordinates in (scan.ycoords, scan.xcoords))
    bottom, right = (int(np.ceil(coordinates.max())) for coordinates in (scan.ycoords, scan.xcoords))
    found = compare(placement.obj.numpy(), placement.anchor, scan.object_truth, (top, bottom, left, right))
    q = found.reconstruction
    print(
        f"| {start} | {epochs} | {spent_s:.1f} | {scan.n_positions / spent_s:,.0f} "
        f"| {q.amplitude_psnr_db:.1f} / {q.amplitude_ssim:.2f} | {q.phase_psnr_db:.1f} / {q.phase_ssim:.2f} "
        f"| {q.nrmse:.3f} | {q.frc50:.2f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
