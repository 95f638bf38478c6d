"""Writing files so that nothing half-written is ever found under their names."""

import os
import signal
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import BinaryIO

__all__ = ["interrupted_by_termination", "new_file", "written_atomically"]


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Hand out another name to write to; the file takes its own only when the block ends without an error.

    For libraries that open files themselves. The name is in the same folder, and gone after an error.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield unfinished
        with unfinished.open("rb") as stream:
            os.fsync(stream.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def written_atomically(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes its name only when the block ends without an error."""
    with new_file(path) as unfinished, unfinished.open("xb") as stream:
        yield stream


@contextmanager
def interrupted_by_termination() -> Iterator[None]:
    """Treat a request to terminate, as batch systems send, like an interrupt from the keyboard.

    Python's own way is to end at once, without removing what is half-written. Signals can only be handled in the main
    thread; elsewhere nothing changes.

    Raises:
        KeyboardInterrupt: In the block, when the process is asked to terminate.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
