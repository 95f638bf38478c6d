"""Runs code on torch's fake tensors, and tells what ended it: a broken contract, a shape, or what fakes cannot know."""

import contextlib
import dataclasses
import dis
import importlib
import io
import linecache
import logging
import os
import re
import signal
import threading
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Literal

from ..._location import location_of_frame
from ..._settings import mode
from ...errors import ContractError
from .._made_up import UnmakeableError
from .side_effects import SideEffectError, without_side_effects

Verdict = Literal["passed", "contract violated", "shape error", "refused its arguments", "error in the body", "not run"]

_FAKE = "torch._subclasses.fake_tensor"
_OWN = ("<contract ", f"{Path(__file__).parents[2]}{os.sep}")
_DATA = {  # what torch says when a fake has no answer, and why it is asked
    "_local_scalar_dense": "a tensor becomes a Python number (.item(), float(), or an if)",
    "nonzero": "nonzero, or a mask as an index",
    "aten.equal": "tensors are compared as a whole",
    "allclose": "tensors are compared as a whole",
    "numpy() is not supported": "a tensor becomes a NumPy array",
    "FakeTensor.__format__": "a tensor is printed",
    "data pointer": "code outside of torch reads a tensor",
}
_SHAPES = re.compile(r"shape|size|dim|channel|[234]D input", re.IGNORECASE)  # what torch says when a shape is wrong
_DEVICES = re.compile(r"\b(CUDA|MPS|XPU|NVIDIA|HIP)\b", re.IGNORECASE)
_MOST_WORDS = 240  # characters of a reason


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run on fake tensors ended.

    Attributes:
        verdict: ``refused its arguments`` is an error that the code itself raises, which may be right to do so.
        reason: The error in short; nothing for ``passed``.
        line: The line of the user's code where it stopped, with its text.
    """

    verdict: Verdict
    reason: str = ""
    line: str = ""


class TooLongError(BaseException):  # nothing in between shall take it for an error of its own
    """The time for one run is over."""


def outcome_of_run(run: Callable[[], object], package: str, limit_s: float) -> Outcome:
    """Run something on fake tensors, without touching files, network or processes.

    Args:
        run: Makes what it needs and does what is to be tried; everything inside is fake.
        package: The lines of this top-level package are the user's.
        limit_s: Seconds after which it is ended, in the main thread and where the system has timers.
    """
    with faking(), without_side_effects() as refused:
        try:
            with _time_limit(limit_s):
                run()
        except UnmakeableError as reason:
            return Outcome("not run", str(reason))
        except (Exception, TooLongError) as error:  # noqa: BLE001  # whatever it raises is the result
            return Outcome("not run", f"it {refused[0]}") if refused else outcome_of(error, package, limit_s)
    return Outcome("not run", f"it {refused[0]}") if refused else Outcome("passed")


@contextlib.contextmanager
def faking() -> Generator[Any]:
    """Make every new tensor a fake one, with contracts on, and let nothing be printed or warned of.

    Yields:
        The `FakeTensorMode`.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    fork_rng: Any = importlib.import_module("torch.random").fork_rng

    logger = logging.getLogger(_FAKE)  # it writes whole tracebacks of errors that are reported anyway
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with (
            fork_rng(devices=[]),
            mode("on"),
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            FakeTensorMode(allow_non_fake_inputs=True) as fake_mode,
        ):
            warnings.simplefilter("ignore")
            yield fake_mode
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _time_limit(limit_s: float) -> Generator[None]:
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooLongError

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


# --- what an error says -----------------------------------------------------------------------------
def outcome_of(error: BaseException, package: str, limit_s: float = 0) -> Outcome:
    """Tell what an error of a run on fake tensors means.

    Args:
        error: What was raised.
        package: The lines of this top-level package are the user's.
        limit_s: The time that was given.
    """
    line = _line(error, package)
    if isinstance(error, ContractError):
        return Outcome("contract violated", _broken(error), line)
    if isinstance(error, TooLongError):
        return Outcome("not run", f"it took longer than {limit_s:g} s", line)
    if isinstance(error, (NotImplementedError, FileNotFoundError, SideEffectError)):
        return Outcome("not run", _short(error), line)
    if isinstance(error, (RuntimeError, AssertionError)) and _DEVICES.search(str(error)):
        return Outcome("not run", f"needs a device that is not here: {_short(error)}", line)
    if (asked := _asked_for_values(error)) is not None:
        return Outcome("not run", f"needs real values: {asked}", line)
    return Outcome(_verdict(error), _short(error), line)


def _broken(error: ContractError) -> str:
    """Say in one line what is wrong with the first value that is."""
    if not error.violations:
        return str(error).splitlines()[0]
    first = error.violations[0]
    what = "its result" if first.parameter == "return" else repr(first.parameter)
    facts = "; ".join(
        f"axis {wrong.axis} is {wrong.got}, the contract says {wrong.expected}"
        for wrong in first.mismatches
        if wrong.axis is not None and wrong.alternative is None
    )
    return f"{first.boundary}, {what}: expected {first.expected}, got {first.got}{f' ({facts})' if facts else ''}"


def _short(error: BaseException) -> str:
    text = re.sub(r"\s+", " ", str(error)).strip()
    text = text if len(text) <= _MOST_WORDS else f"{text[:_MOST_WORDS]}..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _chain(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)


def _asked_for_values(error: BaseException) -> str | None:
    """Return what was asked of fakes that only real tensors know, if that is why it failed."""
    for found in _chain(error):
        text = str(found)
        if type(found).__module__ == _FAKE or type(found).__name__ == "GuardOnDataDependentSymNode":
            operation = next(iter(text.split()), type(found).__name__)
            return next((why for sign, why in _DATA.items() if sign in text), f"{operation} has no answer without data")
        if isinstance(found, (RuntimeError, TypeError)):
            why = next((why for sign, why in _DATA.items() if " " in sign and sign in text), None)
            if why is None and "FakeTensor.__format__" in text:
                why = _DATA["FakeTensor.__format__"]
            if why is not None:
                return why
    return None


def _verdict(error: BaseException) -> Verdict:
    last = _last(error.__traceback__)
    if last is None:
        return "error in the body"
    is_of_torch = f"{last.tb_frame.f_globals.get('__name__', '')}.".startswith("torch.")
    if not is_of_torch and dis.opname[last.tb_frame.f_code.co_code[last.tb_lasti]] == "RAISE_VARARGS":
        return "refused its arguments"
    is_of_torch = is_of_torch or isinstance(error, RuntimeError) or "dimension" in str(error)  # of a call into C
    is_about_shapes = isinstance(error, (RuntimeError, IndexError)) or _SHAPES.search(str(error)) is not None
    is_shape = is_of_torch and is_about_shapes and not isinstance(error, RecursionError)
    return "shape error" if is_shape else "error in the body"


def _last(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace


def _line(error: BaseException, package: str) -> str:
    """Return the innermost line of the user's package in a traceback, with its text."""
    found = ""
    for frame, number in traceback.walk_tb(error.__traceback__):
        module: str = frame.f_globals.get("__name__", "")
        if module.partition(".")[0] == package and not frame.f_code.co_filename.startswith(_OWN):
            source = linecache.getline(frame.f_code.co_filename, number).strip()
            found = f"{location_of_frame(frame).file}:{number}: {source}".removesuffix(": ")
    return found
