"""What the contracts of ptycho_torch cost in its own work, counted in instructions of the processor.

The blocks are those of `pipeline.py`: a training step, and an inference from file to file. Their times vary by more
than contracts take; what the processor is told to do does not. Each block runs in a process of its own for each mode,
under valgrind's callgrind, which counts. Off is counted twice: by how much the two differ is how far the rest can be
trusted. Not seen are caches and waiting for memory.

    python benchmarks/instructions.py [--side 64] [--batch_size 2] [--jobs 2]

Takes half an hour, and valgrind, which Linux distributions have. (`torch.utils.benchmark.Timer` calls it, too, but
counts through every import, which takes far longer.)
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import pipeline
import torch

MODES = ("off", "off again", "on", "strict")
CASES = ("training step", "inference")
WARM_UP = 2  # blocks that are not counted


def run_counted(case: str, model: Path, scan: Path, folder: Path, batch_size: int) -> None:
    """Run one block of a case with valgrind's counting switched on, after some without."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if case == "training step":
        block = pipeline.training(model, scan, folder, batch_size)
    else:
        block = pipeline.inference(model, scan, folder)
    for _ in range(WARM_UP):
        block()
    switch("on")
    block()
    switch("off")


def switch(to: str) -> None:
    subprocess.run(["callgrind_control", "-i", to, str(os.getpid())], check=True, capture_output=True)


def instructions(case: str, mode: str, model: Path, scan: Path, folder: Path, batch_size: int) -> int:
    """Count the instructions of one block of a case in a mode, in a process of its own."""
    folder.mkdir()
    counted = folder / "callgrind.out"
    subprocess.run(
        [
            *("valgrind", "--quiet", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={counted}"),
            *(sys.executable, __file__, "--counted", case, model, scan, folder, "--batch_size", str(batch_size)),
        ],
        env={**os.environ, "SHAPECHECK": mode.split()[0], "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"},
        check=True,
    )
    return int(re.findall(r"^totals: (\d+)$", counted.read_text(), re.MULTILINE)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=64, help="N, pixels (default: %(default)s)")
    parser.add_argument("--batch_size", type=int, default=2, help="groups of 36 patterns (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time (default: %(default)s)")
    parser.add_argument("--counted", nargs=4, help=argparse.SUPPRESS)  # what a process under valgrind is started with
    options = parser.parse_args()
    if options.counted:
        case, *files = options.counted
        run_counted(case, *map(Path, files), options.batch_size)
        return
    if shutil.which("valgrind") is None:
        parser.error("valgrind is not installed")
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(options.jobs) as pool:
        files = pipeline.prepare(options.side, Path(name))
        wanted = list(product(CASES, MODES))
        found = pool.map(
            lambda one: instructions(*one, *files, Path(name) / " ".join(one), options.batch_size),
            wanted,
        )
        show(dict(zip(wanted, found, strict=True)))


def show(counts: dict[tuple[str, str], int]) -> None:
    print("| case | off, million instructions | off again / off | on / off | strict / off |")
    print("|---|---|---|---|---|")
    for case in CASES:
        off = counts[case, "off"]
        ratios = " | ".join(f"{counts[case, mode] / off:.4f}" for mode in MODES[1:])
        print(f"| {case} | {off / 1e6:,.0f} | {ratios} |")


if __name__ == "__main__":
    main()
