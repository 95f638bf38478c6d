"""What the contracts of ptycho_torch cost in its own work: a training step, and an inference from file to file.

The package is imported anew for each mode, several times, all in one process; everything of such a copy is defined in
its mode. Where something happens to lie in memory makes a copy faster or slower by some percent as long as it lives,
which is more than contracts do: therefore several copies, and as many again without contracts, whose ratio to the first
would be 1 if nothing but contracts mattered. All take turns, one short block after the other in an order that is
drawn anew for each round, in processor time. Printed are medians of what a round of a mode's copies takes, the median of
the ratios within a round, between which values the true median of the ratios lies with 95 % confidence, whatever the
distribution of the noise, and the ratio of the fastest rounds. ``calls`` is how often a contract was entered in one
block, and ``checks`` what part of it was spent in contracts, in what they call and in the profiler that told so.

    python benchmarks/pipeline.py [--rounds 30] [--copies 3] [--side 64] [--batch_size 4]
"""

import argparse
import cProfile
import gc
import math
import os
import pstats
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

MODES = ("off", "off again", "on", "strict")
WARM_UP, PROFILED = 3, 5  # blocks that are not counted, and those of the profiler
VALIDATORS = {"centred"}  # conditions on values, which are contracts' too

Block = Callable[[], object]


# --- the work ----------------------------------------------------------------------------------------
def defined(mode: str, model: Path, scan: Path, folder: Path, batch_size: int) -> dict[str, Block]:
    """Return the blocks of a new copy of the package, every contract of which was defined in a mode."""
    set_mode(mode)
    for name in [name for name in sys.modules if name.partition(".")[0] == "ptycho_torch"]:
        del sys.modules[name]
    blocks = {"training step": training(model, scan, folder, batch_size), "inference": inference(model, scan, folder)}
    for block in blocks.values():
        for _ in range(WARM_UP):
            block()
    return blocks


def set_mode(mode: str) -> None:
    os.environ["SHAPECHECK"] = mode.split()[0]


def training(model: Path, scan: Path, folder: Path, batch_size: int) -> Callable[[], object]:
    """A batch from the loader, the loss, its gradients and the change of the weights; Lightning left out."""
    from ptycho_torch.bundle import load_bundle
    from ptycho_torch.config_factory import create_training_payload
    from ptycho_torch.dataloader import stream_groups
    from ptycho_torch.grouping import group_positions
    from ptycho_torch.learner import PtychoLearner
    from ptycho_torch.scan import open_scan
    from ptycho_torch.workflow import _build_lightning_dataloaders

    payload = create_training_payload(scan, folder, settings(batch_size, batch_size))
    read, data = open_scan(scan), payload.data
    held = replace(read, patterns=read.patterns.held())
    groups = group_positions(read.xcoords, read.ycoords, data.gridsize, data.neighbor_count, data.n_groups, data.seed)
    container = stream_groups(held, groups)
    loader, _ = _build_lightning_dataloaders(container, None, payload)
    learner = PtychoLearner(load_bundle(model).model.train(), payload.training)
    optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-6)

    def block() -> None:
        (batch,) = loader
        optimizer.zero_grad()
        learner.training_step(batch, 0).backward()
        optimizer.step()

    return block


def inference(model: Path, scan: Path, folder: Path) -> Callable[[], object]:
    """From a bundle and a scan to the file of an object, without refinement."""
    from ptycho_torch.workflow import infer

    return lambda: infer(model, scan, folder, refine_epochs=0, quiet=True)


def contract_calls(block: Callable[[], object]) -> int:
    """Count the calls of compiled contracts, in a block that is not timed."""
    calls = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event == "call" and frame.f_code.co_filename.startswith("<contract ")

    sys.setprofile(count)
    try:
        block()
    finally:
        sys.setprofile(None)
    return calls


def spent_in_contracts(block: Callable[[], object]) -> float:
    """Return the time in contracts and in what they check by, as a part of that of a block without the profiler."""
    import shapecheck

    ours, shares = str(Path(shapecheck.__file__).parent), []
    for _ in range(PROFILED):
        start = time.perf_counter()
        block()
        whole = time.perf_counter() - start
        profile = cProfile.Profile()  # its own clock is the one that disturbs least
        profile.runcall(block)
        entries = pstats.Stats(profile).stats.items()  # pyright: ignore[reportAttributeAccessIssue]
        own = sum(
            total if name in VALIDATORS else inside
            for (file, _, name), (_, _, inside, total, _) in entries
            if file.startswith(("<contract ", ours)) or name in VALIDATORS
        )
        shares.append(own / whole)
    return statistics.median(shares)


# --- measuring it ------------------------------------------------------------------------------------
def settings(n_groups: int, batch_size: int) -> dict[str, Any]:
    return {"n_groups": n_groups, "batch_size": batch_size, "max_epochs": 1, "accelerator": "cpu"}


def prepare(side: int, folder: Path) -> tuple[Path, Path]:
    """Write a scan that knows no truth, so that nothing is compared with it, and a model that has hardly learned."""
    from ptycho_torch.config_factory import create_training_payload
    from ptycho_torch.scan import save_scan
    from ptycho_torch.simulate import simulate_natural_scan
    from ptycho_torch.workflow import train

    scan = simulate_natural_scan(patch_size=side, n_rows=16, n_columns=15, step=side * 3 / 32, jitter=side / 32, seed=3)
    save_scan(replace(scan, object_truth=None), folder / "scan.npz")
    payload = create_training_payload(folder / "scan.npz", folder / "model", settings(4, 4))
    return train(payload, quiet=True).model_path, folder / "scan.npz"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30, help="blocks of every case and copy (default: %(default)s)")
    parser.add_argument("--copies", type=int, default=3, help="of the package in every mode (default: %(default)s)")
    parser.add_argument("--side", type=int, default=64, help="N, pixels (default: %(default)s)")
    parser.add_argument("--batch_size", type=int, default=4, help="groups of 36 patterns (default: %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        files = prepare(options.side, Path(name))
        copies = {
            (mode, number): defined(mode, *files, Path(name) / f"{mode} {number}", options.batch_size)
            for number in range(options.copies)
            for mode in MODES
        }
        set_mode("on")
        told = {case: (contract_calls(block), spent_in_contracts(block)) for case, block in copies["on", 0].items()}
        seconds = measure(copies, options.rounds)
    print(
        f"N = {options.side}, batches of {options.batch_size} groups, {options.rounds} rounds of {options.copies} copies\n"
    )
    show(seconds, told)


def measure(copies: dict[tuple[str, int], dict[str, Block]], rounds: int) -> dict[tuple[str, str], list[float]]:
    """Return what the copies of a mode took in each round, by case and mode."""
    cases, order = list(next(iter(copies.values()))), list(copies)
    seconds = {(case, mode): [0.0] * rounds for case in cases for mode in MODES}
    shuffle = random.Random(0).shuffle
    for turn in range(rounds):
        for case in cases:
            shuffle(order)
            for mode, number in order:
                set_mode(mode)  # which `shapecheck.check` asks at every call
                gc.collect()
                start = time.process_time()
                copies[mode, number][case]()
                seconds[case, mode][turn] += time.process_time() - start
    return seconds


def show(seconds: dict[tuple[str, str], list[float]], told: dict[str, tuple[int, float]]) -> None:
    print("| case | off, ms | on, ms | off again / off | on / off | strict / off | calls | checks |")
    print("|---|---|---|---|---|---|---|---|")
    for case, (calls, checks) in told.items():
        times = " | ".join(f"{statistics.median(seconds[case, mode]) * 1e3:.0f}" for mode in ("off", "on"))
        ratios = " | ".join(ratio(seconds[case, mode], seconds[case, "off"]) for mode in MODES[1:])
        print(f"| {case} | {times} | {ratios} | {calls} | {checks:.2%} |")


def ratio(times: list[float], others: list[float]) -> str:
    """Return the median ratio with its interval of confidence, from the order of the ratios alone, and the fastest's."""
    ratios = sorted(time / other for time, other in zip(times, others, strict=True))
    n = len(ratios)
    reach = 0
    while reach < n // 2 and sum(math.comb(n, k) for k in range(reach + 1)) / 2**n <= 0.025:
        reach += 1
    low, high = (ratios[reach - 1], ratios[n - reach]) if reach else (ratios[0], ratios[-1])
    return f"{statistics.median(ratios):.3f} ({low:.3f} to {high:.3f}; fastest {min(times) / min(others):.3f})"


if __name__ == "__main__":
    main()
