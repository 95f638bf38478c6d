"""The demonstration: a scan simulated, learned from, reconstructed and judged; then the bug that started it all.

Every step goes through the same functions as the commands; what is written and printed was computed in this run.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptycho_torch.commands import OVERVIEW_NAME, infer, simulate, train
from ptycho_torch.drift import CHANNELS, describe, replay
from ptycho_torch.scan import Scan
from ptycho_torch.workflow import InferenceResult
from shapecheck import enabled

__all__ = ["DemoSizes", "run_demo"]

SCAN_NAME = "scan.npz"


@dataclass(frozen=True)
class DemoSizes:
    """How much is simulated and learned."""

    patch_size: int  # N, pixels
    raster: int  # positions along each side
    n_groups: int
    batch_size: int
    max_epochs: int


FULL = DemoSizes(patch_size=64, raster=24, n_groups=96, batch_size=3, max_epochs=6)
FAST = DemoSizes(patch_size=32, raster=8, n_groups=8, batch_size=4, max_epochs=2)


def run_demo(output_dir: Path, *, fast: bool = False, seed: int = 0, quiet: bool = False) -> InferenceResult:
    """Run everything, from the simulated scan to the replay of the drift.

    The model learns from the very scan that it then reconstructs, as in any self-supervised reconstruction: it sees the
    diffraction patterns, never the object.

    Args:
        output_dir: Where everything goes.
        fast: Tiny sizes, for tests.
        seed: Of simulation and training.
        quiet: Print nothing.
    """
    started = time.perf_counter()
    sizes = FAST if fast else FULL

    def headline(text: str) -> None:
        if not quiet:
            print(f"\n== {text} ({time.perf_counter() - started:.0f} s)", flush=True)

    headline(f"1  Simulate a scan; contracts are {'checked' if enabled() else 'OFF'}")
    scan_path = output_dir / SCAN_NAME
    scan = simulate(scan_path, _simulation(sizes, seed), quiet=quiet)
    headline("2  Train on the diffraction patterns alone")
    trained = train(scan_path, None, output_dir, _overrides(sizes, seed), quiet=quiet)
    headline("3  Load the bundle, reconstruct, compare with the truth")
    result = infer(trained.model_path, scan_path, output_dir, quiet=quiet)
    headline(f"4  Overview: {output_dir / OVERVIEW_NAME}")
    headline("5  Replay the drift: offsets leave the loader channel last")
    if not quiet:
        print(_replayed(scan, seed), flush=True)
    headline("done")
    return result


def _simulation(sizes: DemoSizes, seed: int) -> dict[str, Any]:
    return {"patch_size": sizes.patch_size, "n_rows": sizes.raster, "n_columns": sizes.raster, "seed": seed}


def _overrides(sizes: DemoSizes, seed: int) -> dict[str, Any]:
    return {
        "n_groups": sizes.n_groups,
        "batch_size": sizes.batch_size,
        "max_epochs": sizes.max_epochs,
        "accelerator": "cpu",  # the same on every machine
        "seed": seed,
    }


def _replayed(scan: Scan, seed: int) -> str:
    return "\n\n".join(describe(replay(scan, channels, seed)) for channels in CHANNELS)
