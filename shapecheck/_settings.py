"""Modes: the environment switch, parsed strictly, and the block that changes it."""

import contextlib
import os
import sys
import threading
from collections.abc import Generator
from contextvars import ContextVar
from typing import Literal, cast, get_args

Mode = Literal["off", "on", "strict", "warn"]

_ENGINES = ("compiled", "reference")
_MODES: tuple[str, ...] = get_args(Mode)


class _State:
    """What compiled contracts look at.

    Attributes:
        blocks: How many `mode` and `doubt` blocks are active in any thread or task.
        modes: How many of them are `mode` blocks: what counts while a graph is traced.
    """

    __slots__ = ("blocks", "modes")  # the fastest kind of attribute

    def __init__(self) -> None:
        self.blocks = 0
        self.modes = 0

    def __reduce__(self) -> str:
        return "state"  # one per process, also for functions that cloudpickle copies


state = _State()
_lock = threading.Lock()
_block_mode: ContextVar[Mode | None] = ContextVar("shapecheck_mode", default=None)


def engine() -> str:
    """Return the engine that contracts defined now are checked by: ``compiled`` or, for every call, ``reference``."""
    name = os.environ.get("SHAPECHECK_ENGINE", "compiled")
    if name not in _ENGINES:
        msg = f"Expected the environment variable SHAPECHECK_ENGINE to be one of {', '.join(_ENGINES)}, got {name!r}."
        raise ValueError(msg)
    return name


def _parse_mode(text: str, origin: str) -> Mode:
    if text not in _MODES:
        msg = f"Expected {origin} to be one of {', '.join(_MODES)}, got {text!r}."
        raise ValueError(msg)
    return cast("Mode", text)


def _environment_mode() -> Mode:
    if os.environ.get("JAXTYPING_DISABLE", "0").lower() in {"1", "true"}:
        return "off"
    return _parse_mode(os.environ.get("SHAPECHECK", "on"), "the environment variable SHAPECHECK")


def mode_at_definition() -> Mode:
    """Return the mode that a boundary defined here and now gets."""
    return _block_mode.get() or _environment_mode()


def mode_at_call(defined: Mode) -> Mode:
    """Return the mode of a call of a boundary that was defined in mode `defined`."""
    return _block_mode.get() or defined


def is_tracing() -> bool:
    """Tell whether dynamo is tracing the caller; torch is looked for, never imported."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.compiler.is_dynamo_compiling()


def enabled() -> bool:
    """Tell whether a boundary defined here and now would be checked."""
    return mode_at_definition() != "off"


@contextlib.contextmanager
def mode(name: Mode) -> Generator[None]:
    """Change the mode of every boundary for a block of code, in this thread or task only.

    A boundary that was *defined* while checking was off is the undecorated object and stays off. DataLoader workers
    started by ``spawn`` and other threads begin with the mode of the environment.

    Args:
        name: ``off``, ``on``, ``strict`` or ``warn``.

    Raises:
        ValueError: `name` is none of the four.
    """
    token = _block_mode.set(_parse_mode(name, "the mode"))
    _count_block(1, 1)
    try:
        yield
    finally:
        _count_block(-1, -1)
        _block_mode.reset(token)


@contextlib.contextmanager
def doubt() -> Generator[None]:
    """Let the reference engine judge every call of a block, in all threads; modes and graphs that are traced stay as they are."""
    _count_block(1, 0)
    try:
        yield
    finally:
        _count_block(-1, 0)


def _count_block(blocks: int, modes: int) -> None:
    with _lock:
        state.blocks += blocks
        state.modes += modes
