"""How good a reconstruction is after so many epochs, and what it costs: network, engine, and another package beside them.

CPU time of one thread, without reading the file. Quality against the truth of a simulated scan, or against the
reference picture of a measured one. Without --model a model is trained on the scan first, and that is timed, too.
pty-chi is run beside where it is installed (`pip install ptychi`): LSQML, Poisson noise, batches of 32, known probe.

    python benchmarks/reconstruction.py [--scan SCAN.npz] [--model BUNDLE] [--epochs 0 4 20] [--ptychi 20 60]
                                        [--picture PNG]
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TypeVar

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image

from ptycho_torch.bundle import load_bundle
from ptycho_torch.config_factory import create_training_payload
from ptycho_torch.model import PtychoModel
from ptycho_torch.quality import compare
from ptycho_torch.reassembly import Placement
from ptycho_torch.reconstruction import flat_placement, reconstruct
from ptycho_torch.refinement import refine, scan_misfit
from ptycho_torch.scan import Scan, load_scan
from ptycho_torch.simulate import save_simulation, simulate_natural_scan
from ptycho_torch.workflow import train

RECIPE = {"n_groups": 192, "batch_size": 3, "max_epochs": 8, "accelerator": "cpu"}
REPEATS = 5
RIM_PX = 2
_Result = TypeVar("_Result")
_shown: dict[str, np.ndarray] = {}  # by label, in the order of the rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--scan", type=Path, help="with a truth or a reference; by default one is simulated, 1,024 patterns of 64 x 64"
    )
    parser.add_argument("--model", type=Path, help="bundle to start from; by default one is trained")
    parser.add_argument("--epochs", type=int, nargs="+", default=[0, 4, 20, 40], help="of the engine of ptycho_torch")
    parser.add_argument("--ptychi", type=int, nargs="*", default=[20, 60], metavar="N", help="epochs of LSQML")
    parser.add_argument("--picture", type=Path, help="PNG of the reference and the last row of every start")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = options.scan or Path(folder) / "scan.npz"
        if options.scan is None:
            save_simulation(simulate_natural_scan(seed=1), path)
        scan = load_scan(path)
        if scan.object_truth is None and scan.object_guess is None:
            parser.error(f"Expected --scan to hold a true or a reference object, got none in {path}.")
        print(f"{scan.n_positions} patterns of {scan.N} x {scan.N} pixels")
        model, trained_s = timed(lambda: trained_model(path, Path(folder)) if options.model is None else None)
        if model is None:
            model = load_bundle(options.model).model
        else:
            print(f"a model was trained on it: {trained_s:.0f} CPU s, {RECIPE}")
    print("| start | epochs | CPU s | patterns/s | amplitude PSNR / SSIM | phase PSNR / SSIM | NRMSE | FRC 0.5 | R |")
    print("|---|---|---|---|---|---|---|---|---|")
    report("flat object", scan, lambda: flat_placement(scan), [count for count in options.epochs if count])
    report("network", scan, lambda: reconstruct(model, scan), options.epochs)
    if options.ptychi and find_spec("ptychi") is not None:
        report_ptychi(scan, options.ptychi)
    if options.picture is not None:
        draw(options.picture)


def trained_model(path: Path, folder: Path) -> PtychoModel:
    return load_bundle(train(create_training_payload(path, folder / "run", RECIPE), quiet=True).model_path).model


def report(start: str, scan: Scan, begin: Callable[[], Placement], epochs: Sequence[int]) -> None:
    placement, _ = timed(begin)
    spent_s = median(timed(begin)[1] for _ in range(REPEATS))
    for count in epochs:
        refined, more_s = timed(lambda count=count: refine(placement, scan, count)) if count else (None, 0.0)
        print_row(start, count, spent_s + more_s, placement if refined is None else refined.placement, scan)


def report_ptychi(scan: Scan, epochs: Sequence[int]) -> None:
    from ptychi import api
    from ptychi.api.task import PtychographyTask

    flat = flat_placement(scan)
    rim = (slice(RIM_PX, -RIM_PX),) * 2  # room for its interpolation
    options = api.LSQMLOptions()
    engine = options.reconstructor_options
    engine.default_device, engine.noise_model, engine.batch_size = api.Devices.CPU, "poisson", 32
    engine.rescale_probe_intensity_in_first_epoch = False
    engine.num_epochs, options.probe_options.optimizable = max(epochs), False
    top, left = flat.anchor
    options.object_options.determine_position_origin_coords_by = api.ObjectPosOriginCoordsMethods.SPECIFIED
    options.object_options.position_origin_coords = np.array([0.0, 0.0])
    task = PtychographyTask(
        options,
        diffraction_data=scan.diffraction_amplitude**2,
        object_data=torch.nn.functional.pad(torch.full_like(flat.obj, flat.obj.abs().max()), (RIM_PX,) * 4).unsqueeze(
            0
        ),
        probe_data=scan.probe[None] / scan.N,  # its Fourier transform is not unitary
        # patches lie around index N/2 - 1/2 of themselves there
        probe_position_x_px=(scan.xcoords - left + RIM_PX - 0.5).astype(np.float32),
        probe_position_y_px=(scan.ycoords - top + RIM_PX - 0.5).astype(np.float32),
    )
    done, spent_s = 0, 0.0
    for count in epochs:
        _, more_s = timed(lambda more=count - done: task.run(more))
        done, spent_s = count, spent_s + more_s
        obj = torch.from_numpy(np.asarray(task.get_data_to_cpu("object", as_numpy=True)[0][rim], np.complex64))
        # Its frame may differ from ours by a fraction of a pixel, to which R is not blind.
        print_row("pty-chi LSQML", count, spent_s, flat._replace(obj=obj), scan, with_misfit=False)


def timed(work: Callable[[], _Result]) -> tuple[_Result, float]:
    started = time.process_time()
    return work(), time.process_time() - started


def print_row(
    start: str, epochs: int, spent_s: float, placement: Placement, scan: Scan, *, with_misfit: bool = True
) -> None:
    top, left = (int(np.floor(coordinates.min())) for coordinates in (scan.ycoords, scan.xcoords))
    bottom, right = (int(np.ceil(coordinates.max())) for coordinates in (scan.ycoords, scan.xcoords))
    reference = scan.object_guess if scan.object_truth is None else scan.object_truth
    found = compare(placement.obj.numpy(), placement.anchor, reference, (top, bottom, left, right))
    q = found.reconstruction
    _shown["reference"], _shown[f"{start}, {epochs} epochs" if epochs else start] = found.truth, found.aligned
    misfit = f"{scan_misfit(placement, scan, torch.from_numpy(scan.probe)):.3f}" if with_misfit else "-"
    print(
        f"| {start} | {epochs} | {spent_s:.2f} | {scan.n_positions / spent_s:,.0f} "
        f"| {q.amplitude_psnr_db:.1f} / {q.amplitude_ssim:.2f} | {q.phase_psnr_db:.1f} / {q.phase_ssim:.2f} "
        f"| {q.nrmse:.3f} | {q.frc50:.2f} | {misfit} |",
        flush=True,
    )


def draw(path: Path) -> None:
    latest = {label.partition(",")[0]: label for label in _shown if not label.startswith("network")}
    labels = [label for label in _shown if label in latest.values() or label.startswith("network")]
    figure, axes = plt.subplots(2, len(labels), figsize=(2.6 * len(labels), 5.4), layout="constrained", squeeze=False)
    reference = _shown["reference"]
    for column, label in enumerate(labels):
        for row, part in enumerate((np.abs, np.angle)):
            low, high = np.quantile(part(reference), (0.01, 0.99))
            axes[row, column].imshow(part(_shown[label]), vmin=low, vmax=high, cmap=("gray", "viridis")[row])
            axes[row, column].set_axis_off()
        axes[0, column].set_title(label, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=70)
    Image.open(path).quantize(64).save(path, optimize=True)  # small enough to be kept with the documentation


if __name__ == "__main__":
    main()
