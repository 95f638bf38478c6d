"""Elementwise operations whose broadcast nobody meant: one report for each line of code, and a scope to allow it.

A broadcast satisfies every signature: ``(64, 1) - (64,)`` is a 64x64 where a difference of 64 was meant. Torch only; what
NumPy broadcasts, other threads and processes, and compiled regions are not seen.
"""

import contextlib
import dataclasses
import linecache
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from types import FrameType
from typing import Any

from ..._location import location_of_frame
from ..._render import describe
from ..._settings import is_tracing
from ..._traceback import package_of
from ...errors import Location
from .enclosing import Enclosing, enclosing_contract
from .rules import Judgement, Rule, broadcast

_MOST_CASES = 3  # of one line that are told
_BETWEEN = (  # the user's line and the function of torch that it calls
    *("torch.overrides", "torch._tensor", "torch.functional", "torch.nn.functional", "torch.utils._device"),
    *("torch.nn.modules.loss", "torch.nn.modules.module", "shapecheck.audit._broadcasting.function_mode"),
)
_GENERATED = "<eval_with_key>"  # the file of what torch.fx generates

_CURES: dict[Rule, str] = {
    "enlarged": "give the operands the same axes; if every pair is meant, write the axis: [:, None], unsqueeze, keepdim=True",
    "ambiguous": "write the missing axes: [None, :] or [:, None]; if it is a coincidence, call it with sizes that differ",
}

_allowed: ContextVar[bool] = ContextVar("shapecheck_broadcasts_allowed", default=False)


@dataclasses.dataclass(frozen=True)
class BroadcastCase:
    """What a line did with tensors of certain shapes.

    Attributes:
        rule: ``enlarged``: the result has more elements than every operand; ``ambiguous``: an operand with fewer axes
            was aligned to the right, and fits further to the left as well.
        operation: Name of the function of torch, such as ``mul``.
        operands: Dtype and shape of each.
        result: Shape that they are broadcast to.
        reason: Which axis of which operand.
    """

    rule: Rule
    operation: str
    operands: tuple[str, ...]
    result: tuple[int, ...]
    reason: str

    def __str__(self) -> str:
        """Return it as the rest of a sentence."""
        verdict = "larger than every operand" if self.rule == "enlarged" else "and could have been aligned otherwise"
        return f"{self.operation} of {' and '.join(self.operands)} gives {_sizes(self.result)}, {verdict}"


@dataclasses.dataclass
class Broadcast:
    """What was found on one line of code.

    Attributes:
        place: File and line.
        function: Qualified name of the function that the line is in.
        line: Its text; empty where there is no source.
        cases: How often it did what; the first one is that of `enclosing`.
        enclosing: The innermost contract that it ran under, and its dims.
        first_seen: In which test, where pytest ran it.
    """

    place: Location
    function: str
    line: str
    cases: dict[BroadcastCase, int]
    enclosing: Enclosing | None
    first_seen: str = ""

    def add(self, cases: Mapping[BroadcastCase, int]) -> None:
        """Count what the line did again."""
        for case, count in cases.items():
            self.cases[case] = self.cases.get(case, 0) + count

    @property
    def count(self) -> int:
        """How often the line did any of it."""
        return sum(self.cases.values())

    @property
    def signature(self) -> str:
        """What stands for it in a baseline: file, function and text, so that other lines may come and go."""
        return f"{self.place.file}::{self.function}::{self.line}"

    def __str__(self) -> str:
        """Return the report."""
        first, *others = self.cases
        rows = [("line", self.line)] if self.line else []
        rows.append(("because", first.reason))
        if self.enclosing is not None and self.enclosing.dims:
            dims = ", ".join(f"{dim}={size}" for dim, size in self.enclosing.dims.items())
            rows.append(("dims", f"{dims} (bound by the call of {self.enclosing.name})"))
        rows += [("also", f"[{case.rule}] {case}: {case.reason}") for case in others[: _MOST_CASES - 1]]
        if len(others) >= _MOST_CASES:
            rows.append(("also", f"{len(others) - _MOST_CASES + 1} more combinations of shapes"))
        test = f", first in {self.first_seen}" if self.first_seen else ""
        rows.append(("seen", f"{'once' if self.count == 1 else f'{self.count} times'}{test}"))
        rules: dict[Rule, None] = dict.fromkeys(case.rule for case in self.cases)
        rows += [("cure", _CURES[rule]) for rule in rules]
        header = f"broadcast [{first.rule}]: {self.place}, in {self.function}: {first}"
        return "\n".join([header, *(f"  {name:<10} {text}" for name, text in rows)])


@contextlib.contextmanager
def allow_broadcasts() -> Generator[None]:
    """Say of a block, or as a decorator of a function, that what it broadcasts is meant, in this thread or task only."""
    if is_tracing():  # nobody watches, and dynamo knows no context variables
        yield
        return
    token = _allowed.set(True)
    try:
        yield
    finally:
        _allowed.reset(token)


@contextlib.contextmanager
def watch_broadcasts(*packages: str) -> Generator[list[Broadcast]]:
    """Collect the broadcasts that nobody meant, for the calls of a block in this thread.

    Calls cost a few microseconds more each; results are the same. Needs torch.

    Args:
        packages: Whose lines are looked at, wherever they are installed; by default all that are not in an installed package.

    Returns:
        For the block, the list that it fills: one entry for each line of code, in the order of finding.
    """
    collector = Collector(packages)
    with collector.watching():
        yield collector.found


class Collector:
    """Keeps what is found, by line.

    Args:
        packages: Whose lines are looked at.
    """

    def __init__(self, packages: Sequence[str]) -> None:
        self.found: list[Broadcast] = []
        self._packages = packages
        self._by_line: dict[tuple[Location, str], Broadcast] = {}
        self._mode: AbstractContextManager[object] | None = None

    def watching(self) -> AbstractContextManager[object]:
        """Return what is to be entered for as long as calls are to be looked at; it can be entered again."""
        if self._mode is None:
            from .function_mode import BroadcastMode  # it needs torch

            self._mode = BroadcastMode(self.report)
        return self._mode

    def report(self, operation: str, judgement: Judgement, operands: Sequence[Any], frame: FrameType) -> None:
        """Take in one operation, if the line that does it is of interest and nobody has allowed it."""
        caller = _caller(frame)
        if caller is None or _allowed.get() or not self._is_of_interest(caller):
            return
        place, function = location_of_frame(caller), caller.f_code.co_qualname
        if (place, function) not in self._by_line:
            line = linecache.getline(caller.f_code.co_filename, caller.f_lineno, caller.f_globals).strip()
            self._add(Broadcast(place, function, line, {}, enclosing_contract(caller)))
        self._by_line[place, function].add({_case(operation, judgement, operands): 1})

    def take_in(self, found: Iterable[Broadcast]) -> None:
        """Add what another process has found."""
        for other in found:
            known = self._by_line.get((other.place, other.function))
            if known is None:
                self._add(other)
            else:
                known.add(other.cases)

    def _add(self, found: Broadcast) -> None:
        self._by_line[found.place, found.function] = found
        self.found.append(found)

    def _is_of_interest(self, frame: FrameType) -> bool:
        module: str = frame.f_globals.get("__name__", "")
        if self._packages:
            return f"{module}.".startswith(tuple(f"{package}." for package in self._packages))
        return package_of(frame.f_code.co_filename, module) is None


def _caller(frame: FrameType | None) -> FrameType | None:
    """Return the frame of the line that called a function of torch; None for what torch calls itself."""
    while frame is not None and frame.f_globals.get("__name__") in _BETWEEN:
        frame = frame.f_back
    if frame is None or frame.f_code.co_filename.startswith(_GENERATED):
        return None
    return None if f"{frame.f_globals.get('__name__')}.".startswith("torch.") else frame


def _case(operation: str, judgement: Judgement, operands: Sequence[Any]) -> BroadcastCase:
    shapes = tuple(tuple(operand.shape) for operand in operands)
    result = broadcast(shapes) or ()
    blamed, shape, axis = describe(operands[judgement.operand]), shapes[judgement.operand], judgement.axis
    if judgement.rule == "enlarged":
        size = result[axis - len(shape)]
        reason = f"axis {axis} of {blamed} is stretched from 1 to {size}, and was not put there for that"
    else:
        aligned, other = (_axes(first, len(shape)) for first in (len(result) - len(shape), axis))
        reason = f"{blamed} is aligned with {aligned} of {_sizes(result)}, and fits {other} as well"
    return BroadcastCase(judgement.rule, operation.strip("_"), tuple(map(describe, operands)), result, reason)


def _sizes(shape: Sequence[int]) -> str:
    return f"[{','.join(map(str, shape))}]"


def _axes(first: int, count: int) -> str:
    axes = ", ".join(map(str, range(first, first + count)))
    return f"axis {axes}" if count == 1 else f"axes {axes}"
