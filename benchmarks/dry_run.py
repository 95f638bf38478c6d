"""What trying a training step without data takes: seconds and memory of this process, beside what the step would need."""

import argparse
import resource
import time
from typing import Any

import torch
from jaxtyping import Float32
from torch import Tensor, nn

from shapecheck.audit import dry_run

WIDTH = 2048


def build(layers: int) -> nn.Module:
    """Return a network of layers with 4.2 million parameters each, as many activations, and a residual stream."""
    return nn.Sequential(
        *(nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.GELU()) for _ in range(layers))
    )


def loss(module: Any, batch: Tensor) -> Tensor:
    return module(batch).square().mean()


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux


def main() -> None:
    parser = argparse.ArgumentParser(description="What a dry run takes.")
    parser.add_argument("--layers", type=int, default=24, help="of 4.2 million parameters each")
    parser.add_argument("--batch", type=int, default=4096)
    options = parser.parse_args()
    annotation = Float32[Tensor, f"B {WIDTH}"]
    dry_run(lambda: build(1), annotation, step=loss, optimizer=torch.optim.AdamW)  # what torch imports on the way
    before, begin = peak_mib(), time.perf_counter()
    found = dry_run(
        lambda: build(options.layers), annotation, step=loss, optimizer=torch.optim.AdamW, sizes={"B": options.batch}
    )
    seconds, grown = time.perf_counter() - begin, peak_mib() - before
    print(found)
    print(f"\nthis process: {seconds:.1f} s, {grown:.0f} MiB more than before (largest resident size)")


if __name__ == "__main__":
    main()
