"""Where a boundary is defined and where it was called, the same text on every machine."""

import inspect
import sys
from collections.abc import Callable
from pathlib import PurePath
from types import CodeType, FrameType
from typing import Any

from .errors import Location

_OWN = "shapecheck."
_FRAMEWORKS = (  # never what a user would call a call site
    *("asyncio.", "concurrent.", "contextlib.", "multiprocessing.", "threading."),
    *("lightning.", "lightning_fabric.", "pytorch_lightning.", "torch."),
)


def _stable_path(filename: str, module: str) -> str:
    """Cut `filename` down to the part that its module name implies (``a/b.py`` for module ``a.b``)."""
    path = PurePath(filename)
    depth = len(module.split("."))
    return "/".join(path.parts[-depth - (path.name == "__init__.py") :])


def location_of(target: Callable[..., Any] | type) -> Location | None:
    """Return where a function or class is defined, or None when there is no source."""
    code: CodeType | None = getattr(inspect.unwrap(target), "__code__", None)
    if code is not None:
        return Location(_stable_path(code.co_filename, target.__module__), code.co_firstlineno)
    try:
        filename, (_, line) = inspect.getfile(target), inspect.getsourcelines(target)
    except (OSError, TypeError):
        return None
    return Location(_stable_path(filename, target.__module__), line)


def caller_frame() -> FrameType:
    """Return the innermost frame that is neither ours nor a framework's; where there is none, the innermost not ours."""
    frame = sys._getframe(1)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # inspect.stack reads source files
    while frame.f_back is not None and _is_of(frame, (_OWN,)):
        frame = frame.f_back
    nearest: FrameType | None = frame
    while nearest is not None and (_is_of(nearest, (_OWN, *_FRAMEWORKS)) or _is_bootstrap(nearest)):
        nearest = nearest.f_back
    return nearest or frame


def _is_of(frame: FrameType, packages: tuple[str, ...]) -> bool:
    return f"{frame.f_globals.get('__name__', 'shapecheck')}.".startswith(packages)  # generated code has no name


def _is_bootstrap(frame: FrameType) -> bool:
    """Tell whether a frame is the command that started a worker process."""
    return frame.f_code.co_filename == "<string>" and frame.f_back is None


def location_of_frame(frame: FrameType) -> Location:
    """Return the line that `frame` is executing."""
    return Location(_stable_path(frame.f_code.co_filename, frame.f_globals.get("__name__", "")), frame.f_lineno)


def name_of_frame(frame: FrameType) -> str:
    """Return the qualified name of the function that `frame` is executing."""
    return f"{frame.f_globals.get('__name__', '?')}.{frame.f_code.co_qualname}"
