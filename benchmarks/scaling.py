"""What a pattern costs on one machine, from which larger scans can be reckoned: time, memory, arithmetic, traffic.

A scan of a natural picture, 64 x 64 patterns at steps of 6 pixels, uncompressed in a file. The model has learned
nothing, which changes no cost. One thread in each process; times are the smallest of several, as other programs can
only make them larger. The time of several processes includes that of starting them.

    python benchmarks/scaling.py [--rows 48] [--repeat 5]
"""

import argparse
import multiprocessing
import os
import resource
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from ptycho_torch.config_factory import TrainingPayload, create_training_payload
from ptycho_torch.dataloader import stream_groups
from ptycho_torch.grouping import group_positions
from ptycho_torch.model import PtychoModel, normalise_probe
from ptycho_torch.quality import compare
from ptycho_torch.reassembly import Placement
from ptycho_torch.reconstruction import reconstruct
from ptycho_torch.refinement import Refinement, refine, scan_misfit
from ptycho_torch.scan import Scan, ScanOnDisk, open_scan
from ptycho_torch.simulate import simulate_natural_scan
from ptycho_torch.tiling import reconstruct_tiles, scan_tiles

TILE_MIB = 200
BATCHES, BATCH_SIZE = 4, 4
REFINE_EPOCHS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=48, help="of the raster, with four columns less")
    parser.add_argument("--repeat", type=int, default=5, help="of what is timed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "scan.npz"
        scan = simulate_natural_scan(n_rows=options.rows, n_columns=options.rows - 4, seed=5)
        arrays = {"diffraction": scan.diffraction_amplitude, "xcoords": scan.xcoords, "ycoords": scan.ycoords}
        np.savez(path, **arrays, probeGuess=scan.probe[0])
        payload = create_training_payload(
            path, Path(name), {"n_groups": BATCHES * BATCH_SIZE, "batch_size": BATCH_SIZE, "accelerator": "cpu"}
        )
        model = PtychoModel(payload.model, normalise_probe(torch.from_numpy(scan.probe)))
        print(f"{scan.n_positions} patterns of {scan.N} x {scan.N} pixels, {machine()}\n")
        inference(model, scan, path, Path(name), options.repeat)
        refinement(model, scan, path, Path(name))
        memory_and_arithmetic(model, scan)
        training(model, payload, options.repeat)


def machine() -> str:
    return f"{os.cpu_count()} cores, torch {torch.__version__}"


def fastest(work: Callable[[], object], repeat: int, clock: Callable[[], float] = time.process_time) -> float:
    times = []
    for _ in range(repeat):
        start = clock()
        work()
        times.append(clock() - start)
    return min(times)


# --- inference -------------------------------------------------------------------------------------
def inference(model: PtychoModel, scan: Scan, path: Path, folder: Path, repeat: int) -> None:
    on_disk = open_scan(path)
    tiles = scan_tiles(on_disk, TILE_MIB * 2**20)
    used = sum(len(tile.used) for tile in tiles)
    print(
        f"Inference; tiles of {TILE_MIB} MiB: {len(tiles)}, which use {used / scan.n_positions:.2f} of the patterns\n"
    )
    print("| | processor s | wall s | patterns per second of a core | misfit |\n|---|---|---|---|---|")
    report("at once", scan, lambda: reconstruct(model, scan), repeat)
    for processes in (1, 2):
        how = f"in tiles, {processes} process{'es' * (processes > 1)}"
        report(how, scan, lambda n=processes: in_tiles(model, on_disk, folder, processes=n).placement, repeat)


def report(name: str, scan: Scan, work: Callable[[], Placement], repeat: int) -> None:
    placed = work()
    cpu, wall = fastest(work, repeat, spent), fastest(work, repeat, time.perf_counter)
    misfit = scan_misfit(placed, scan, torch.from_numpy(scan.probe))
    print(f"| {name} | {cpu:.2f} | {wall:.2f} | {scan.n_positions / cpu:,.0f} | {misfit:.4f} |", flush=True)


def spent() -> float:
    """Return the processor time of this process and of those that it started and that have ended."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def in_tiles(model: PtychoModel, on_disk: ScanOnDisk, folder: Path, **how: Any) -> Refinement:
    return reconstruct_tiles(model, on_disk, scan_tiles(on_disk, TILE_MIB * 2**20), folder, **how)


def refinement(model: PtychoModel, scan: Scan, path: Path, folder: Path) -> None:
    print(f"\nRefinement, {REFINE_EPOCHS} epochs\n")
    print("| | processor s | misfit | amplitude PSNR, dB | phase PSNR, dB |\n|---|---|---|---|---|")
    hows = {
        "of the whole": lambda: refine(reconstruct(model, scan), scan, REFINE_EPOCHS),
        "tile by tile": lambda: in_tiles(model, open_scan(path), folder, refine_epochs=REFINE_EPOCHS),
    }
    for name, work in hows.items():
        start = time.process_time()
        placed = work().placement
        cpu = time.process_time() - start
        misfit = scan_misfit(placed, scan, torch.from_numpy(scan.probe))
        centres = (scan.ycoords.min(), scan.ycoords.max(), scan.xcoords.min(), scan.xcoords.max())
        found = compare(placed.obj.numpy(), placed.anchor, scan.object_truth, tuple(map(round, centres))).reconstruction
        print(
            f"| {name} | {cpu:.1f} | {misfit:.4f} | {found.amplitude_psnr_db:.1f} | {found.phase_psnr_db:.1f} |",
            flush=True,
        )


# --- memory and arithmetic -------------------------------------------------------------------------
def memory_and_arithmetic(model: PtychoModel, scan: Scan) -> None:
    counter = FlopCounterMode(display=False)
    with counter:
        placed = reconstruct(model, scan)
    pixels = placed.obj.numel()
    pipe, end = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=peak, args=(model, scan, end))
    process.start()
    held = pipe.recv()
    process.join()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"\nConvolutions: {counter.get_total_flops() / pixels / 1e3:.1f} kFLOP per pixel of the object, ", end="")
    print(
        f"{counter.get_total_flops() / scan.n_positions / 1e6:.2f} MFLOP per pattern at {pixels / scan.n_positions:.0f} pixels"
    )
    print(f"Memory while it is reconstructed at once: {held / scan.n_positions / 1e3:.0f} kB per pattern, ", end="")
    print(f"{held / scan.diffraction_amplitude.size:.0f} bytes per pixel of the patterns")
    print(f"Gradients: {parameters:,} numbers, {4 * parameters / 1e3:.0f} kB\n", flush=True)


def peak(model: PtychoModel, scan: Scan, pipe: Any) -> None:
    torch.set_num_threads(1)
    few = Scan(scan.diffraction_amplitude[:50], scan.xcoords[:50], scan.ycoords[:50], scan.probe)
    reconstruct(model, few)  # what is allocated only once
    before, seen, done = resident(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            seen[0] = max(seen[0], resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    reconstruct(model, scan)
    done.set()
    watcher.join()
    pipe.send(seen[0] - before)


def resident() -> int:
    """Return the bytes of this process that are in memory; Linux only."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


# --- training --------------------------------------------------------------------------------------
def training(model: PtychoModel, payload: TrainingPayload, repeat: int) -> None:
    from ptycho_torch.learner import PtychoLearner  # not above: what starts a process imports what stands there
    from ptycho_torch.workflow import _build_lightning_dataloaders

    on_disk, data = open_scan(payload.train_data_file), payload.data
    groups = group_positions(
        on_disk.xcoords, on_disk.ycoords, data.gridsize, data.neighbor_count, data.n_groups, data.seed
    )
    learner = PtychoLearner(model, payload.training)
    print(f"Training, batches of {BATCH_SIZE} groups of {data.C} patterns\n")
    print("| patterns | ms per batch, read | ms per batch, read and learned from | patterns per second of a core |")
    print("|---|---|---|---|")
    places = {"in memory": replace(on_disk, patterns=on_disk.patterns.held()), "in their file": on_disk}
    for name, scan in places.items():
        loader, _ = _build_lightning_dataloaders(stream_groups(scan, groups), None, payload)
        read = fastest(lambda loader=loader: list(loader), repeat) / BATCHES
        step = fastest(lambda loader=loader: learn(learner, loader), repeat) / BATCHES
        rate = BATCH_SIZE * data.C / step
        print(f"| {name} | {read * 1e3:.1f} | {step * 1e3:.0f} | {rate:,.0f} |", flush=True)


def learn(learner: Any, loader: Any) -> None:
    for index, batch in enumerate(loader):
        learner.zero_grad()
        learner.training_step(batch, index).backward()


if __name__ == "__main__":
    main()
