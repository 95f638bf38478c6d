"""How much memory a contract holds: everything that stays allocated after defining many, divided by their number."""

import argparse
import gc
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import torch  # noqa: F401  # so that its import is not counted
from cases import CASES, copied

from shapecheck import contract, enabled


def bytes_held(make: Callable[[Any], Any], functions: list[Any]) -> float:
    """Return the bytes that stay allocated for each result of `make`."""
    kept = []
    gc.collect()
    tracemalloc.start()
    for function in functions:
        kept.append(make(function))
    gc.collect()
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return held / len(kept)


def main() -> None:
    parser = argparse.ArgumentParser(description="How much memory a contract holds.")
    parser.add_argument("--number", type=int, default=200, help="contracts of each kind")
    options = parser.parse_args()
    if not enabled():
        sys.exit("Checking is off: there is nothing to measure.")
    print(f"{'':<26} {'all, KB':>9} {'compiled part, KB':>19}")
    for case in CASES:
        contract(copied(case.function))  # what is shared between contracts is paid once
        functions = [copied(case.function) for _ in range(options.number)]
        total = bytes_held(contract, functions)
        print(f"{case.name:<26} {total / 1024:9.1f} {compiled_part(contract(functions[0])) / 1024:19.1f}")


def compiled_part(checked: Any) -> int:
    """Return the bytes of the generated function, its code, names and the source that tracebacks show."""
    source = checked.__contract_source__
    namespace = checked.__globals__
    objects = [checked, checked.__code__, checked.__code__.co_code, checked.__dict__, namespace, source]
    return sum(map(sys.getsizeof, [*objects, *checked.__code__.co_varnames, *checked.__code__.co_consts]))


if __name__ == "__main__":
    main()
