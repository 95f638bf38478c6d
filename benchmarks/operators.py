"""How fast the operators of `ptycho_torch.helper` are, beside the same operators made of `grid_sample`.

Both are measured in turn, a few calls of one and a few of the other, within one process and one thread, in CPU time,
contracts on; medians are printed, and their ratio is what carries over to other machines. Forward is measured as at
inference, without a graph, and then with the backward pass from a given gradient. Printed too: the memory that a call
allocates in all, how far the two results differ (float32 rounds the grid's coordinates), and whether two calls of ours
give the same bits.
"""

import argparse
import dataclasses
import platform
import statistics
import time
from collections.abc import Callable

import grid_sampling
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from ptycho_torch import helper

IN_A_ROW = 5  # calls of one before the other: neither finds the caches as the other left them, but for the first


@dataclasses.dataclass(frozen=True)
class Sizes:
    groups: int = 16
    gridsize: int = 2
    patch_size: int = 64
    modes: int = 1
    distance: float = 12.0  # px, largest step between neighbours


Operator = Callable[[], Tensor]
Pair = tuple[Operator, Operator]  # made of grid_sample, and ours


def make_operators(sizes: Sizes) -> dict[str, Pair]:
    generator = torch.Generator().manual_seed(0)
    groups, channels, side = sizes.groups, sizes.gridsize**2, sizes.patch_size
    canvas = helper.padded_size(side, sizes.gridsize, sizes.distance)
    patches = torch.randn(groups, channels, side, side, dtype=torch.complex64, generator=generator).requires_grad_()
    probe = torch.randn(groups, channels, sizes.modes, side, side, dtype=torch.complex64, generator=generator)
    region = torch.randn(groups, 1, canvas, canvas, dtype=torch.complex64, generator=generator).requires_grad_()
    offsets = (torch.rand(groups, channels, 1, 2, generator=generator) - 0.5) * max(canvas - side, 1)
    offsets = offsets.clamp(-(canvas - side) / 2, (canvas - side) / 2)
    weights = helper.probe_weights(probe)

    def grid_forward() -> Tensor:
        merged = grid_sampling.merge(patches, offsets, canvas, weights)
        return grid_sampling.diffract(grid_sampling.extract(merged.unsqueeze(1), offsets, side).unsqueeze(2) * probe)

    def forward() -> Tensor:
        merged, _ = helper.reassemble_patches_position_real(patches, offsets, canvas, weights)
        cut = helper.extract_channels_from_region(merged.unsqueeze(1), offsets, side)
        return helper.diffract(helper.illuminate(cut, probe))

    flat, moves = patches.flatten(0, 1), (torch.rand(groups * channels, 1, 2, generator=generator) - 0.5) * 12
    return {
        "Translation": (lambda: grid_sampling.translation(flat, moves), lambda: helper.Translation(flat, moves)),
        "merge": (
            lambda: grid_sampling.merge(patches, offsets, canvas, weights),
            lambda: helper.reassemble_patches_position_real(patches, offsets, canvas, weights)[0],
        ),
        "extract": (
            lambda: grid_sampling.extract(region, offsets, side),
            lambda: helper.extract_channels_from_region(region, offsets, side),
        ),
        "physics forward": (grid_forward, forward),
    }


def without_graph(operator: Operator) -> Operator:
    return torch.no_grad()(operator)


def with_backward(operator: Operator) -> Operator:
    gradient = torch.ones_like(operator().detach())

    def run() -> Tensor:
        result = operator()
        result.backward(gradient)
        return result.detach()

    return run


def medians(pair: Pair, seconds: float) -> list[float]:
    times: list[list[float]] = [[], []]
    end = time.process_time() + seconds
    while time.process_time() < end or len(times[0]) < 5 * IN_A_ROW:
        for operator, column in zip(pair, times, strict=True):
            for _ in range(IN_A_ROW):
                start = time.process_time()
                operator()
                column.append(time.process_time() - start)
    return [statistics.median(column) * 1e3 for column in times]


def megabytes(operator: Operator) -> float:
    """Return what one call allocates in all."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        operator()
    return sum(max(event.self_cpu_memory_usage, 0) for event in record.key_averages()) / 2**20


def line(name: str, pair: Pair, grid: float, ours: float) -> str:
    expected, found, again = pair[0](), pair[1](), pair[1]()
    difference = (expected.view(found.shape) - found).abs().max().item()
    memory = [megabytes(operator) for operator in pair]
    return (
        f"  {name:<16} {grid:9.2f} {ours:9.2f} {grid / ours:9.1f} {memory[0]:9.1f} {memory[1]:9.1f} {difference:10.0e}"
        f" {'same' if torch.equal(found, again) else 'DIFFER':>7}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="How fast the operators are.")
    for field in dataclasses.fields(Sizes):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    parser.add_argument("--seconds", type=float, default=4.0, help="of CPU, for each line")
    options = vars(parser.parse_args())
    seconds = options.pop("seconds")
    torch.set_num_threads(1)
    operators = make_operators(Sizes(**options))
    print(f"Python {platform.python_version()}, torch {torch.__version__}, one thread; {options}")
    forms = {
        title: {name: (form(grid), form(ours)) for name, (grid, ours) in operators.items()}
        for title, form in (("forward", without_graph), ("forward and backward", with_backward))
    }
    # All times before any memory, so that what a profiler leaves behind cannot count.
    times = {title: {name: medians(pair, seconds) for name, pair in pairs.items()} for title, pairs in forms.items()}
    for title, pairs in forms.items():
        print(
            f"\n{title}\n  {'':<16} {'grid ms':>9} {'ours ms':>9} {'x faster':>9} {'grid MB':>9} {'ours MB':>9}", end=""
        )
        print(f" {'differ by':>10} {'bits':>7}")
        for name, pair in pairs.items():
            print(line(name, pair, *times[title][name]))


if __name__ == "__main__":
    main()
