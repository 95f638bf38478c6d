"""What a contract costs per call, beside asserts written by hand and other checkers.

Columns are measured in turn within one process, in CPU time; the medians of many short blocks are printed. ``net`` is
what is left after subtracting the undecorated call, and the ratios compare net costs. With ``--once`` also what
decorating and importing cost. Checkers that are not installed, or refuse a case, are named with the reason.
"""

import argparse
import importlib
import os
import platform
import statistics
import subprocess
import sys
import time
import timeit
import warnings
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import numpy as np
import torch
from beartype import beartype
from cases import CASES, Case, copied, numpy_two, six, two
from jaxtyping import jaxtyped

from shapecheck import contract, enabled, mode

BLOCK = 200  # calls


# --- the checkers: a decorated function, or the reason why there is none ---------------------------------
def with_provenance(case: Case) -> Callable[..., Any]:
    with mode("strict"):
        return contract(copied(case.function))


def with_jaxtyping(case: Case) -> Callable[..., Any]:
    return jaxtyped(typechecker=beartype)(copied(case.function))


def with_typeguard(case: Case) -> Callable[..., Any]:
    typeguard = importlib.import_module("typeguard")
    return jaxtyped(typechecker=typeguard.typechecked)(copied(case.function))


def with_dltype(case: Case) -> Callable[..., Any]:
    """Its own annotations; the same checks where it has them."""
    dltype = importlib.import_module("dltype")
    kinds = {"Float": "FloatTensor", "Float32": "Float32Tensor", "Int64": "Int64Tensor"}
    annotations = {}
    for name, hint in plain_hints(case).items():
        kind = kinds.get(hint.dtype.__name__)
        if kind is None:
            refuse(f"has no {hint.dtype.__name__}")
        annotations[name] = Annotated[hint.array_type, getattr(dltype, kind)[hint.dim_str]]
    return dltype.dltyped()(copied(case.function, annotations))


def with_tensor_shape_guard(case: Case) -> Callable[..., Any]:
    """Shapes and (exact) dtypes; also compares devices."""
    library = "numpy" if case.name.startswith("(e)") else "pytorch"
    validate = importlib.import_module(f"tensorguard.{library}.decorator").validate
    shapes, dtypes = shapes_of(case)
    returns = shapes.pop("return", None)
    dtypes.pop("return", None)
    return validate(**shapes, dtypes=dtypes, returns=returns)(copied(case.function, {}))


def with_eincheck(case: Case) -> Callable[..., Any]:
    """Shapes only: it knows no dtypes."""
    check_func = importlib.import_module("eincheck").check_func
    shapes, _ = shapes_of(case)
    returns = shapes.pop("return", "")
    return check_func(f"{', '.join(shapes.values())} -> {returns}")(copied(case.function, {}))


def with_bearshape(case: Case) -> Callable[..., Any]:
    root = importlib.import_module("bearshape")
    library = importlib.import_module(f"bearshape.{'numpy' if case.name.startswith('(e)') else 'torch'}")
    kinds = {"Float": "Float", "Float32": "F32", "Int64": "I64", "Complex64": "C64"}
    dims: dict[str, Any] = {}
    annotations = {}
    for name, hint in plain_hints(case).items():
        axes = [
            int(axis) if axis.isdigit() else dims.setdefault(axis, root.Dimension(axis))
            for axis in hint.dim_str.split()
        ]
        annotations[name] = getattr(library, kinds[hint.dtype.__name__])[tuple(axes)]
    return beartype(copied(case.function, annotations))


def shapes_of(case: Case) -> tuple[dict[str, str], dict[str, str]]:
    hints = plain_hints(case)
    exact = {"Float": str(case.call[0].dtype).rpartition(".")[2]}
    dtypes = {name: exact.get(hint.dtype.__name__, hint.dtype.__name__.lower()) for name, hint in hints.items()}
    return {name: hint.dim_str for name, hint in hints.items()}, dtypes


def plain_hints(case: Case) -> dict[str, Any]:
    hints = case.function.__annotations__
    if any("{" in getattr(hint, "dim_str", "{") for hint in hints.values()):
        refuse("has no TypedDict or {self.dim}")
    return hints


def refuse(reason: str) -> NoReturn:
    raise NotImplementedError(reason)


COLUMNS: dict[str, Callable[[Case], Callable[..., Any]]] = {
    "undecorated": lambda case: copied(case.function),
    "asserts by hand": lambda case: case.asserts,
    "shapecheck": lambda case: contract(copied(case.function)),
    "shapecheck, strict": with_provenance,
    "jaxtyping+beartype": with_jaxtyping,
    "jaxtyping+typeguard": with_typeguard,
    "dltype": with_dltype,
    "tensor-shape-guard": with_tensor_shape_guard,
    "eincheck": with_eincheck,
    "bearshape": with_bearshape,
}


def build(case: Case) -> tuple[dict[str, Callable[..., Any]], dict[str, str]]:
    """Return what can be measured and, for the rest, why not. What accepts the bad call is marked."""
    functions, reasons = {}, {}
    for name, make in COLUMNS.items():
        try:
            function = make(case)
            function(*case.call)
        except Exception as error:  # noqa: BLE001  # any reason at all is reported
            reasons[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"[:110]
            continue
        functions[name] = function
        if name != "undecorated" and accepts(function, case.bad):
            reasons[name] = "accepts the bad call (its time is shown all the same)"
    return functions, reasons


def accepts(function: Callable[..., Any], call: tuple[Any, ...]) -> bool:
    try:
        function(*call)
    except Exception:  # noqa: BLE001  # each checker has an error of its own
        return False
    return True


def measure(case: Case, functions: dict[str, Callable[..., Any]], seconds: float) -> dict[str, float]:
    """Return the median CPU nanoseconds of a call of each function, measured in turn."""
    call = f"f({', '.join(f'a{index}' for index in range(len(case.call)))})"
    arguments = {f"a{index}": value for index, value in enumerate(case.call)}
    timers = {
        name: timeit.Timer(call, globals={"f": function, **arguments}, timer=time.process_time_ns)
        for name, function in functions.items()
    }
    blocks = {name: max(1, BLOCK // (20 if name not in FAST else 1)) for name in timers}
    times: dict[str, list[float]] = {name: [] for name in timers}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["undecorated"]) < 20:
        for name, timer in timers.items():
            times[name].append(timer.timeit(blocks[name]) / blocks[name])
    return {name: statistics.median(values) for name, values in times.items()}


FAST = {"undecorated", "asserts by hand", "shapecheck", "shapecheck, strict"}


def report(case: Case, seconds: float) -> None:
    functions, reasons = build(case)
    medians = measure(case, functions, seconds)
    net = {name: median - medians["undecorated"] for name, median in medians.items()}
    print(f"\n{case.name}\n  {'':<20} {'ns':>9} {'net ns':>9} {'x asserts':>10} {'x shapecheck':>13}")
    for name, median in medians.items():
        by_hand, ours = net[name] / net["asserts by hand"], net[name] / net["shapecheck"]
        ratios = f"{by_hand:10.2f} {ours:13.1f}" if name != "undecorated" else ""
        print(f"  {name:<20} {median:9.0f} {net[name]:9.0f} {ratios}")
    for name, reason in reasons.items():
        print(f"  {name}: {reason}")


# --- once: decorating and importing ------------------------------------------------------------------
IMPORTS = (
    "import jaxtyping, beartype",
    "import jaxtyping, beartype, beartype.door",
    "import shapecheck",
    "import shapecheck, jaxtyping, beartype",
    "import shapecheck, shapecheck._boundaries.guard  # first use",
)


def decoration_seconds(decorate: Callable[[Any], Any], number: int = 200) -> float:
    functions = [copied((two, six, numpy_two)[index % 3]) for index in range(number)]
    start = time.process_time()
    for function in functions:
        decorate(function)
    return time.process_time() - start


def import_seconds(statement: str) -> float:
    """The CPU time of an import in a new interpreter."""
    program = f"import time; s = time.process_time(); {statement}\nprint(time.process_time() - s)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return float(
        subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True).stdout
    )


def report_once() -> None:
    print("\ndecorating 200 functions of (a), (b) and (e), CPU ms (least of 5, in turn)")
    decorators = {"shapecheck": contract, "jaxtyping+beartype": jaxtyped(typechecker=beartype)}
    times: dict[str, list[float]] = {name: [] for name in decorators}
    for _ in range(5):
        for name, decorate in decorators.items():
            times[name].append(decoration_seconds(decorate))
    for name, values in times.items():
        print(f"  {name:<32} {min(values) * 1e3:8.1f}")
    print("\nimporting in a new interpreter, CPU ms (least of 15, in turn)")
    imports: dict[str, list[float]] = {statement: [] for statement in IMPORTS}
    for _ in range(15):
        for statement, values in imports.items():
            values.append(import_seconds(statement))
    for statement, values in imports.items():
        print(f"  {statement:<52} {min(values) * 1e3:8.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description="What a contract costs per call.")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each case")
    parser.add_argument("--case", default="", help="only the cases whose name contains this")
    parser.add_argument("--once", action="store_true", help="also decorating and importing")
    options = parser.parse_args()
    if not enabled():
        sys.exit("Checking is off: there is nothing to measure.")
    warnings.simplefilter("ignore")  # typeguard says that it checks nothing
    torch.set_num_threads(1)
    print(f"Python {platform.python_version()}, torch {torch.__version__}, NumPy {np.__version__}; CPU time, medians")
    for case in CASES:
        if options.case in case.name:
            report(case, options.seconds)
    if options.once:
        report_once()


if __name__ == "__main__":
    main()
