"""Keeps code that is only tried from touching the world: files, sockets and processes, by Python's audit events."""

import contextlib
import os
import sys
from collections.abc import Generator
from contextvars import ContextVar
from typing import Any

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_EVENTS = {
    **dict.fromkeys(("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink"), "changes files"),
    **dict.fromkeys(("os.truncate", "os.chmod", "os.chown", "os.utime"), "changes files"),
    **dict.fromkeys(("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto"), "uses the network"),
    **dict.fromkeys(("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"), "starts a program"),
    **dict.fromkeys(("os.fork", "os.forkpty", "os.kill", "os.putenv", "os.unsetenv"), "changes processes"),
}

_blocked: ContextVar[list[str] | None] = ContextVar("shapecheck_blocked", default=None)
_installed: list[bool] = []  # an audit hook cannot be taken away again; outside of a block it does nothing


class SideEffectError(OSError):
    """Code that is only tried was about to touch the world."""


@contextlib.contextmanager
def without_side_effects() -> Generator[list[str]]:
    """Refuse, in this thread, to write files, to connect and to start programs; reading is allowed.

    What writes files without Python's knowledge is not seen.

    Yields:
        What was refused so far, in words; code may swallow the error that it gets.
    """
    if not _installed:
        sys.addaudithook(_refuse)
        _installed.append(True)
    refused: list[str] = []
    writes_bytecode = sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # of modules that are imported on the way
    token = _blocked.set(refused)
    try:
        yield refused
    finally:
        _blocked.reset(token)
        sys.dont_write_bytecode = writes_bytecode


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    refused = _blocked.get()
    if refused is None:
        return
    effect = _EVENTS.get(event)
    if event == "open" and _writes(*arguments):
        effect = f"writes {arguments[0]!r}"
    if effect is not None:
        refused.append(effect)
        msg = f"it {effect}, which is refused while it is only tried"
        raise SideEffectError(msg)


def _writes(path: object, mode: str | None, flags: int) -> bool:
    if path == os.devnull:
        return False
    return bool(set("wax+").intersection(mode)) if mode is not None else bool(flags & _WRITING)
