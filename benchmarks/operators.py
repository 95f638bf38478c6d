"""How fast the operators of `ptycho_torch.helper` are, beside the same operators made of `grid_sample`.

Both columns are measured in turn within one process and one thread, in CPU time; medians are printed, and the ratio
is what carries over to other machines. The baseline translates whole canvases with a sampling grid, real and imaginary
parts one after the other, as public implementations of PtychoPINN do; both compute the same to float32 rounding of
the grid's coordinates, which is printed too. Forward and backward are measured, with the memory that a call allocates.
"""

import argparse
import dataclasses
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from ptycho_torch import helper
from shapecheck import mode


# --- the baseline ---------------------------------------------------------------------------------
def grid_translation(images: Tensor, offsets: Tensor) -> Tensor:
    n, h, w = images.shape
    rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    x = (columns - offsets[:, 0, 0].view(n, 1, 1)) * 2 / (w - 1) - 1
    y = (rows - offsets[:, 0, 1].view(n, 1, 1)) * 2 / (h - 1) - 1
    grid = torch.stack((x, y), dim=-1)

    def sample(part: Tensor) -> Tensor:
        return functional.grid_sample(part.unsqueeze(1), grid, mode="bilinear", align_corners=True)

    if images.is_complex():
        return torch.complex(sample(images.real.contiguous()), sample(images.imag.contiguous()))
    return sample(images)


def grid_merge(patches: Tensor, offsets: Tensor, canvas_size: int, weights: Tensor) -> Tensor:
    shape = (*patches.shape[:2], canvas_size, canvas_size)
    before = canvas_size // 2 - patches.shape[-1] // 2
    after = canvas_size - patches.shape[-1] - before
    waves, weights = (
        grid_translation(functional.pad(t, (before, after) * 2).flatten(0, 1), -offsets.flatten(0, 1)).view(shape)
        for t in (patches, weights)
    )
    total = weights.sum(dim=1)
    mask = total > 1e-6 * total.amax(dim=(-2, -1), keepdim=True)
    return torch.where(mask, (weights * waves).sum(dim=1) / total.clamp_min(1e-12), 0.0)


def grid_extract(region: Tensor, offsets: Tensor, patch_size: int) -> Tensor:
    copies = region.expand(-1, offsets.shape[1], -1, -1)
    moved = grid_translation(copies.flatten(0, 1), offsets.flatten(0, 1)).view(copies.shape)
    start = region.shape[-1] // 2 - patch_size // 2
    return moved[..., start : start + patch_size, start : start + patch_size].contiguous()


def grid_diffract(waves: Tensor) -> Tensor:
    far = torch.fft.fftshift(torch.fft.fft2(waves, norm="ortho"), dim=(-2, -1))
    return far.abs().square().sum(dim=2).sqrt()


# --- what is measured -----------------------------------------------------------------------------
@dataclasses.dataclass(frozen=True)
class Sizes:
    groups: int = 16
    gridsize: int = 2
    patch_size: int = 64
    modes: int = 1
    distance: float = 12.0  # px, largest step between neighbours


Pair = tuple[Callable[[], Tensor], Callable[[], Tensor]]


def make_operators(sizes: Sizes) -> dict[str, Pair]:
    generator = torch.Generator().manual_seed(0)
    groups, channels, side = sizes.groups, sizes.gridsize**2, sizes.patch_size
    canvas = helper.padded_size(side, sizes.gridsize, sizes.distance)
    patches = torch.randn(groups, channels, side, side, dtype=torch.complex64, generator=generator).requires_grad_()
    probe = torch.randn(groups, channels, sizes.modes, side, side, dtype=torch.complex64, generator=generator)
    region = torch.randn(groups, 1, canvas, canvas, dtype=torch.complex64, generator=generator).requires_grad_()
    offsets = (torch.rand(groups, channels, 1, 2, generator=generator) - 0.5) * (canvas - side)
    weights = helper.probe_weights(probe)

    def grid_forward() -> Tensor:
        merged = grid_merge(patches, offsets, canvas, weights)
        return grid_diffract(grid_extract(merged.unsqueeze(1), offsets, side).unsqueeze(2) * probe)

    def forward() -> Tensor:
        merged, _ = helper.reassemble_patches_position_real(patches, offsets, canvas, weights)
        cut = helper.extract_channels_from_region(merged.unsqueeze(1), offsets, side)
        return helper.diffract(helper.illuminate(cut, probe))

    flat, each = patches.flatten(0, 1), offsets.flatten(0, 1)
    return {
        "Translation": (lambda: grid_translation(flat, each), lambda: helper.Translation(flat, each)),
        "merge": (
            lambda: grid_merge(patches, offsets, canvas, weights),
            lambda: helper.reassemble_patches_position_real(patches, offsets, canvas, weights)[0],
        ),
        "extract": (
            lambda: grid_extract(region, offsets, side),
            lambda: helper.extract_channels_from_region(region, offsets, side),
        ),
        "physics forward": (grid_forward, forward),
    }


def backward(operator: Callable[[], Tensor]) -> Callable[[], Tensor]:
    def run() -> Tensor:
        result = operator()
        result.abs().sum().backward()
        return result

    return run


def medians(pair: Pair, seconds: float) -> list[float]:
    times: list[list[float]] = [[], []]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 5:
        for operator, column in zip(pair, times, strict=True):
            start = time.process_time()
            operator()
            column.append(time.process_time() - start)
    return [statistics.median(column) * 1e3 for column in times]


def megabytes(operator: Callable[[], Tensor]) -> float:
    """Return what one call allocates in all."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        operator()
    return sum(max(event.self_cpu_memory_usage, 0) for event in record.key_averages()) / 2**20


def report(title: str, operators: dict[str, Pair], seconds: float) -> None:
    print(
        f"\n{title}\n  {'':<16} {'grid ms':>9} {'ours ms':>9} {'x faster':>9} {'grid MB':>9} {'ours MB':>9} {'differ by':>10}"
    )
    for name, pair in operators.items():
        grid, ours = medians(pair, seconds)
        results = [operator().detach() for operator in pair]
        difference = (results[0].view(results[1].shape) - results[1]).abs().max().item()
        memory = [megabytes(operator) for operator in pair]
        print(
            f"  {name:<16} {grid:9.2f} {ours:9.2f} {grid / ours:9.1f} {memory[0]:9.1f} {memory[1]:9.1f} {difference:10.0e}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="How fast the operators are.")
    for field in dataclasses.fields(Sizes):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    parser.add_argument("--seconds", type=float, default=4.0, help="for each operator")
    options = vars(parser.parse_args())
    seconds = options.pop("seconds")
    torch.set_num_threads(1)
    operators = make_operators(Sizes(**options))
    print(f"Python {platform.python_version()}, torch {torch.__version__}, one thread; {options}")
    with mode("off"):
        report("forward", operators, seconds)
        report(
            "forward and backward", {name: (backward(a), backward(b)) for name, (a, b) in operators.items()}, seconds
        )


if __name__ == "__main__":
    main()
