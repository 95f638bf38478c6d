"""What the broadcast watch costs: training steps watched and not, one beside the other, and the median of each."""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from shapecheck.audit import watch_broadcasts

Step = Callable[[], None]


def step_of(network: nn.Module, inputs: torch.Tensor) -> Step:
    optimiser = torch.optim.Adam(network.parameters())

    def step() -> None:
        optimiser.zero_grad()
        outputs = network(inputs)
        functional.mse_loss(outputs, torch.zeros_like(outputs)).backward()
        optimiser.step()

    return step


def steps() -> dict[str, Step]:
    convolutions = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 3, 3, padding=1)
    )
    transformer = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2)
    return {
        "perceptron, 8 x 16": step_of(
            nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1)), torch.randn(8, 16)
        ),
        "convolutions, 8 x 3 x 32 x 32": step_of(convolutions, torch.randn(8, 3, 32, 32)),
        "transformer, 8 x 20 x 32": step_of(transformer, torch.randn(8, 20, 32)),
        "own layers, 8 x 20 x 32": step_of(nn.Sequential(*(OwnNorm(32) for _ in range(10))), torch.randn(8, 20, 32)),
    }


class OwnNorm(nn.Module):
    """The worst case: nothing but small elementwise operations, one line of Python each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))
        self.shift = nn.Parameter(torch.zeros(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        deviation = (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return centred / deviation * self.scale[None, None] + self.shift[None, None]


def seconds(step: Step) -> float:
    start = time.thread_time()  # of one thread: what else the machine does is not counted
    step()
    return time.thread_time() - start


def ratio_of(step: Step, pairs: int) -> tuple[float, float]:
    """Return how many times as long a watched step takes, and the milliseconds of one that is not."""
    plain, watched = list[float](), list[float]()
    with watch_broadcasts() as found:
        step()
    for _ in range(pairs):
        plain.append(seconds(step))
        with watch_broadcasts():
            watched.append(seconds(step))
    if found:
        raise SystemExit("\n".join(map(str, found)))
    return statistics.median(watched) / statistics.median(plain), 1e3 * statistics.median(plain)


def main() -> None:
    parser = argparse.ArgumentParser(description="What the broadcast watch costs.")
    parser.add_argument("--pairs", type=int, default=100, help="steps of each kind")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'training step':<32} {'watched / not':>14} {'not, ms':>9}")
    for name, step in steps().items():
        ratio, milliseconds = ratio_of(step, options.pairs)
        print(f"{name:<32} {ratio:14.2f} {milliseconds:9.2f}")


if __name__ == "__main__":
    main()
