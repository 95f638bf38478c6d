"""What Python prints for a `ContractError` that nobody catches: the user's own frames, then the error.

Hooks are installed with the first error that is made, never at import and never when checking is off. They handle
contract errors only; every other error goes to the hook that was there before. Where that one is not Python's own (an
error collector, a debugger), it keeps its job and merely does not see our frames. pytest needs no hook, for our frames
set ``__tracebackhide__``; IPython, which never hides the last frame, asks the error itself.

Knows nothing of the rest of the package, because `errors` imports it.
"""

import importlib
import importlib.util
import inspect
import itertools
import linecache
import os
import sys
import sysconfig
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from types import TracebackType
from typing import Any, NamedTuple, TextIO

_OWN = ("<contract ", os.path.join(os.path.dirname(__file__), ""))  # noqa: PTH118, PTH120  # pathlib drops the slash
_VARIABLE = "SHAPECHECK_TRACEBACK"
_HEADER = "Traceback (most recent call last):"
_MOST_LINES = 12  # of a report with its frames; a longer report still gets its last frame and a line for the others
_LEAST_ROOM = 3
_PACKAGE_FOLDERS = ("site-packages", "dist-packages")
_STANDARD_LIBRARY = tuple(os.path.normcase(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))

_installed = threading.Lock()  # held for ever by whoever installed the hooks


def install(kind: type[BaseException]) -> None:
    """Let uncaught errors of one kind be printed by this module, in every thread, if that is not so yet.

    Whoever replaces the hooks afterwards has the last word: they are installed only once.
    """
    if _installed.acquire(blocking=False):
        _install_for_program(kind)
        _install_for_threads(kind)


def _install_for_program(kind: type[BaseException]) -> None:
    previous = sys.excepthook

    def hook(of: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not isinstance(error, kind) or _is_wanted_in_full(error):
            previous(of, error, trace)
        elif (prefix := _prefix_of(previous)) is not None:
            _write([prefix + line for line in describe(error, trace)])
        else:
            pruned = _without_own(trace)
            previous(of, error.with_traceback(pruned), pruned)

    sys.excepthook = hook


def _prefix_of(hook: Any) -> str | None:
    """Return what a hook puts before the lines that it prints; None for one that may do more than print."""
    if hook is sys.__excepthook__:
        return ""
    names: Mapping[str, Any] = inspect.getclosurevars(hook).nonlocals if inspect.isfunction(hook) else {}
    if names.get("old_hook") is sys.__excepthook__ and "excepthook_prefix" in names:
        return f"{names['excepthook_prefix']}: "  # that of torch.distributed says which rank it is
    return None


def _install_for_threads(kind: type[BaseException]) -> None:
    previous = threading.excepthook

    def hook(failed: threading.ExceptHookArgs) -> None:
        error, trace, thread = failed.exc_value, failed.exc_traceback, failed.thread
        if not isinstance(error, kind) or _is_wanted_in_full(error):
            previous(failed)
        elif previous is threading.__excepthook__:
            name = thread.name if thread is not None else threading.get_ident()
            _write([f"Exception in thread {name}:", *describe(error, trace)])
        else:
            pruned = _without_own(trace)
            error = error.with_traceback(pruned)
            previous(threading.ExceptHookArgs((failed.exc_type, error, pruned, thread)))

    threading.excepthook = hook


def _is_wanted_in_full(error: BaseException) -> bool:
    """Tell whether everything is to be shown; then also what was being handled, which our errors suppress."""
    extent = os.environ.get(_VARIABLE, "short")
    if extent == "short":
        return False
    if extent != "full":  # a hook cannot refuse; this hides nothing
        _write([f"Expected the environment variable {_VARIABLE} to be one of short, full, got {extent!r}."])
    error.__suppress_context__ = False
    return True


def describe(error: BaseException, trace: TracebackType | None) -> list[str]:
    """Return the lines that are printed for an error: its context, the frames for which there is room, its text."""
    text = [*str(error).splitlines(), *getattr(error, "__notes__", ())]
    context = _told_context(error)
    room = max(_MOST_LINES - len(text) - len(context) - 1, _LEAST_ROOM)
    return [*context, *_told_frames(_frames(error, trace), room), *text]


def describe_in_notebook(error: BaseException) -> list[str]:
    """Return the lines that IPython prints for an error, without its own frames."""
    if _is_wanted_in_full(error):
        return "".join(traceback.format_exception(error)).splitlines()
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith("IPython."):
        trace = trace.tb_next
    return describe(error, trace)


def _told_context(error: BaseException) -> list[str]:
    """Name the error that the user's code was handling; neither ours nor a framework's own is of interest."""
    context = error.__context__
    while context is not None and context.__traceback__ is not None:
        code = context.__traceback__.tb_frame.f_code  # the function that caught it
        if not code.co_filename.startswith(_OWN) and package_of(code.co_filename, "") is None:
            return [f"While handling {traceback.format_exception_only(context)[-1].strip()}"]
        context = context.__context__
    return []


# --- which frames ---------------------------------------------------------------------------------
class _Frame(NamedTuple):
    """A line of a traceback; `package` is the installed one that it belongs to, None for the user's own code."""

    file: str
    line: int
    name: str
    package: str | None


def _frames(error: BaseException, trace: TracebackType | None) -> list[_Frame]:
    """Return the frames that are not ours, outermost first, up to the user's last one."""
    violations: Sequence[Any] = getattr(error, "violations", ())
    home = violations[0].boundary.partition(".")[0] if violations else ""
    frames = [_frame(entry, home) for entry in _entries(trace)]
    traced: Sequence[traceback.FrameSummary] = getattr(error, "real_stack", ())  # the code that dynamo was tracing
    for place in traced:
        if not place.filename.startswith(_OWN):
            frames.append(_Frame(place.filename, place.lineno or 0, place.name, package_of(place.filename, "")))
    while frames and frames[-1].package and not all(frame.package for frame in frames):
        frames.pop()
    return frames


def _entries(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        if not trace.tb_frame.f_code.co_filename.startswith(_OWN):
            yield trace
        trace = trace.tb_next


def _without_own(trace: TracebackType | None) -> TracebackType | None:
    pruned = None
    for entry in reversed(list(_entries(trace))):
        pruned = TracebackType(pruned, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return pruned


def _frame(entry: TracebackType, home: str) -> _Frame:
    """Describe an entry; the package whose contract is broken is the user's wherever it is installed."""
    code, module = entry.tb_frame.f_code, entry.tb_frame.f_globals.get("__name__", "")
    package = None if module.partition(".")[0] == home else package_of(code.co_filename, module)
    return _Frame(code.co_filename, entry.tb_lineno, code.co_name, package)


def package_of(file: str, module: str) -> str | None:
    """Return the name of the installed package that a file belongs to; None for the user's own code."""
    root, folders = module.partition(".")[0], PurePath(file).parts
    for folder, inside in itertools.pairwise(folders):
        if folder in _PACKAGE_FOLDERS:
            return root or inside
    if file.startswith("<frozen ") or os.path.normcase(file).startswith(_STANDARD_LIBRARY):
        return root or "python"
    return None


# --- what is told of them -------------------------------------------------------------------------
def _told_frames(frames: Sequence[_Frame], room: int) -> list[str]:
    """Tell as much of the frames as there is room for; of the last one everything."""
    if not frames:
        return []
    last = _told(frames[-1], with_source=True)
    layouts = _layouts(frames[:-1], room)
    return [_HEADER, *next(lines for lines in layouts if len(lines) + len(last) <= room), *last]


def _layouts(frames: Sequence[_Frame], room: int) -> Iterator[list[str]]:
    """Yield ways to tell frames, the most detailed first; the last one is a single line."""
    yield _folded(frames, with_source=True)
    cuts = [index for index, frame in enumerate(frames) if index > 1 and frame.package is None]
    for hidden in (0, *cuts[-room:], len(frames)):
        yield _fold(frames[:hidden]) + _folded(frames[hidden:], with_source=False)


def _folded(frames: Sequence[_Frame], *, with_source: bool) -> list[str]:
    """Tell the user's frames one by one, and consecutive frames of installed packages by their number."""
    lines: list[str] = []
    start = 0
    for index, frame in enumerate(frames):
        if frame.package is None:
            lines += _fold(frames[start:index]) + _told(frame, with_source=with_source)
            start = index + 1
    return lines + _fold(frames[start:])


def _fold(frames: Sequence[_Frame]) -> list[str]:
    if not frames:
        return []
    owners = sorted({frame.package or PurePath(frame.file).name for frame in frames})
    *others, final = owners
    named = f"{', '.join(others)} and {final}" if others else final
    return [f"  ... {len(frames)} frame{'s'[: len(frames) > 1]} of {named} ({_VARIABLE}=full shows all)"]


def _told(frame: _Frame, *, with_source: bool) -> list[str]:
    source = linecache.getline(frame.file, frame.line).strip() if with_source else ""
    return [f'  File "{frame.file}", line {frame.line}, in {frame.name}', *([f"    {source}"] if source else [])]


# --- how it is printed ----------------------------------------------------------------------------
def _write(lines: Sequence[str]) -> None:
    stream = sys.stderr
    if stream is None:  # pyright: ignore[reportUnnecessaryComparison]  # so it is without a console
        return
    if stream.isatty() and not os.environ.get("NO_COLOR") and importlib.util.find_spec("rich"):
        _write_styled(lines, stream)
    else:
        stream.write("".join(f"{line}\n" for line in lines))
        stream.flush()


def _write_styled(lines: Sequence[str], stream: TextIO) -> None:
    """Print the same words in colour. Rich is never required."""
    console: Any = importlib.import_module("rich.console").Console(file=stream, soft_wrap=True)
    text: Any = importlib.import_module("rich.text").Text
    for line in lines:
        console.print(text(line, style=_style(line)), highlight=False)


def _style(line: str) -> str:
    if "ContractError [" in line:
        return "bold red"
    if "  hint " in line:
        return "green"
    return "dim" if "  ... " in line or _HEADER in line else ""
