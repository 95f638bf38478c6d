"""What a violation costs, from the call to the error in hand: each diagnosis, and the largest cases.

Everything is measured in one process, in CPU time; medians of repeated runs are printed. A diagnosis runs once per
failed call and never on a good one. Beside each cost stands how often the reference engine judged a tensor, which does
not depend on the machine.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Complex64, Float32
from torch import Tensor

from shapecheck import ContractError, check, contract, enabled


@contract
def shift(img: Float32[Tensor, "n h w"], offset: Float32[Tensor, "n 1 2"]) -> None: ...


@contract(dims={"C": "4"})
def six(
    patches: Complex64[Tensor, "B C N N"],
    offsets: Float32[Tensor, "B C 1 2"],
    probe: Complex64[Tensor, "P N N"],
    weights: Float32[Tensor, "B C h w"],
    scale: Float32[Tensor, "B 1 1 1"],
    maps: Float32[Tensor, "B C h w"] | None = None,
) -> None: ...


def six_arguments(**changes: Any) -> dict[str, Any]:
    return {
        "patches": torch.zeros(3, 4, 16, 16, dtype=torch.complex64),
        "offsets": torch.zeros(3, 4, 1, 2),
        "probe": torch.zeros(2, 16, 16, dtype=torch.complex64),
        "weights": torch.zeros(3, 4, 5, 6),
        "scale": torch.zeros(3, 1, 1, 1),
        **changes,
    }


def shifted(offset: Any) -> Callable[[], None]:
    img = torch.zeros(4, 5, 6)
    return lambda: shift(img, offset)


def sixth(**changes: Any) -> Callable[[], None]:
    arguments = six_arguments(**changes)
    return lambda: six(**arguments)


def checked(value: Any, annotation: Any) -> Callable[[], None]:
    return lambda: check(value, annotation)


CASES = {
    "axis order, 2 tensors": shifted(torch.zeros(4, 2, 1)),
    "axis order, 5 tensors": sixth(offsets=torch.zeros(3, 1, 2, 4)),
    "channel-last, 6 tensors": sixth(maps=torch.zeros(3, 5, 6, 4)),
    "axis size": shifted(torch.zeros(3, 1, 2)),
    "tied dim, 3 of 5 tensors": sixth(
        **{name: six_arguments()[name][:, :1] for name in ("patches", "offsets", "weights")}
    ),
    "missing axis": shifted(torch.zeros(4, 2)),
    "extra axis": shifted(torch.zeros(4, 1, 1, 2)),
    "merged axes": sixth(maps=torch.zeros(12, 5, 6)),
    "dtype": shifted(torch.zeros(4, 1, 2, dtype=torch.float64)),
    "dtype and axis order": shifted(torch.zeros(4, 2, 1, dtype=torch.float64)),
    "complex for real": shifted(torch.zeros(4, 1, 2, dtype=torch.complex64)),
    "NumPy for a tensor": shifted(np.zeros((4, 1, 2), np.float32)),
    "a list for a tensor": shifted([torch.zeros(1, 2)] * 4),
    "None": shifted(None),
}
GOOD, BAD = torch.zeros(3, 4), torch.zeros(4, 3)
PAIR = list[Float32[Tensor, "a b"]]
LAYOUTS = list[Float32[Tensor, "b c"] | Float32[Tensor, "c b"]]
LARGE = {
    "10,000 tensors, the last is wrong": checked([*[GOOD] * 9_999, BAD], PAIR),
    "10,000 tensors, the first is wrong": checked([BAD, *[GOOD] * 9_999], PAIR),
    "10,000 tensors, half are wrong": checked([GOOD, BAD] * 5_000, PAIR),
    "10,000 tensors, all are wrong": checked([BAD] * 10_000, list[Float32[Tensor, "3 4"]]),
    "10,000 unions, the last is wrong": checked([*[torch.zeros(4, 4)] * 9_999, BAD], LAYOUTS),
    "rank 12, one order fits": checked(
        torch.zeros(*range(2, 14), device="meta"), Float32[Tensor, "13 2 3 4 5 6 7 8 9 10 11 12"]
    ),
    "rank 12, many orders fit": checked(torch.zeros(*[1] * 8, 2, 3, 4, 7), Float32[Tensor, "7 b c d e f g h i j k l"]),
    "rank 12, no order fits": checked(torch.zeros(*[2] * 12), Float32[Tensor, "a b c d e f g h i j k a+b"]),
}


def fail(call: Callable[[], None]) -> None:
    try:
        call()
    except ContractError:
        return
    msg = "Expected a violation, got none."
    raise AssertionError(msg)


def judgements(call: Callable[[], None]) -> int:
    """Count the tensors that the reference engine judges in one failed call."""
    from shapecheck._diagnosis import engine

    count, check_tensor = 0, engine.check_tensor

    def counting(*args: Any) -> Any:
        nonlocal count
        count += 1
        return check_tensor(*args)

    engine.check_tensor = counting
    try:
        fail(call)
    finally:
        engine.check_tensor = check_tensor
    return count


def milliseconds(call: Callable[[], None], repeats: int) -> float:
    times: list[float] = []
    for _ in range(repeats):
        start = time.process_time_ns()
        fail(call)
        times.append((time.process_time_ns() - start) / 1e6)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=200, help="failed calls per diagnosis; large cases take 3")
    repeats = parser.parse_args().repeats
    if not enabled():
        parser.error("checking is off, so there is nothing to measure")
    torch.set_num_threads(1)
    print(f"Python {platform.python_version()}, torch {torch.__version__}, {platform.machine()}\n")
    print("| | ms | judgements |\n|---|---|---|")
    for cases, count in ((CASES, repeats), (LARGE, 3)):
        for name, call in cases.items():
            milliseconds(call, 1)
            print(f"| {name} | {milliseconds(call, count):.2f} | {judgements(call):,} |", flush=True)


if __name__ == "__main__":
    main()
