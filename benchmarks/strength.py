"""What it costs to measure a contract: milliseconds for each contract of a package, and beside it what the engine takes.

Everything is measured in one process, in CPU time, in turn; medians of repeated runs are printed. How often the engine is
asked does not depend on the machine.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float32
from torch import Tensor

from shapecheck import contract, enabled
from shapecheck._annotations.nodes import TensorNode
from shapecheck._annotations.scope import Scope
from shapecheck._diagnosis.engine import solve
from shapecheck._stand_in import StandIn
from shapecheck.audit import strength
from shapecheck.audit._strength import contracted

_QUESTIONS = 200


@contract
def attention(
    q: Float32[Tensor, "B H T D"], k: Float32[Tensor, "B H S D"], v: Float32[Tensor, "B H S D"]
) -> Float32[Tensor, "B H T D"]:
    return torch.softmax(q @ k.mT, -1) @ v


def milliseconds(run: Callable[[], object]) -> float:
    start = time.process_time_ns()
    run()
    return (time.process_time_ns() - start) / 1e6


def ask() -> None:
    """Ask the engine about one tensor, again and again."""
    node = TensorNode(Float32[Tensor, "B H S D"])
    value, scope = StandIn(Tensor, "float32", (3, 5, 7, 11)), Scope({})
    for _ in range(_QUESTIONS):
        next(solve([("k", value, node)], scope))


def measure(targets: list[Any], repeats: int) -> tuple[float, float, list[float]]:
    """Return the milliseconds of a question, of the known contract and of each of the others."""
    questions, known = list[float](), list[float]()
    each: list[list[float]] = [[] for _ in targets]
    for _ in range(repeats):
        questions.append(milliseconds(ask) / _QUESTIONS)
        known.append(milliseconds(lambda: strength(attention)))
        for times, target in zip(each, targets, strict=True):
            times.append(milliseconds(lambda target=target: strength(target)))
    return statistics.median(questions), statistics.median(known), list(map(statistics.median, each))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", nargs="?", default="ptycho_torch", help="whose contracts are measured")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    if not enabled():
        parser.error("checking is off, so there is nothing to measure")
    torch.set_num_threads(1)
    print(f"Python {platform.python_version()}, torch {torch.__version__}, {platform.machine()}\n")
    targets = [target for target in contracted(options.package) if strength(target).skipped is None]
    question, known, each = measure(targets, options.repeats)
    print("| | ms | mutants | questions | ms / (questions x one question) |\n|---|---|---|---|---|")
    for name, cost, target in [
        ("attention: 3 tensors and a result", known, attention),
        *sorted(zip(["largest"] * len(each), each, targets, strict=True), key=lambda row: row[1])[-1:],
    ]:
        found = strength(target)
        print(
            f"| {name} ({found.name}) | {cost:.2f} | {found.total} | {found.asked} | {cost / found.asked / question:.2f} |"
        )
    print(f"\none question about one tensor: {question * 1e3:.1f} us")
    print(
        f"{options.package}, {len(targets)} contracts: median {statistics.median(each):.2f} ms, sum {sum(each):.0f} ms"
    )


if __name__ == "__main__":
    main()
