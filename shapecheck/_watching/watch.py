"""Watches how the functions of packages are called, while it is on: an import hook that changes bodies, not functions.

Imports neither torch nor the engine, so that a program under watch is the program that it is without.
"""

import ast
import contextlib
import dataclasses
import importlib.abc
import importlib.machinery
import multiprocessing.util
import os
import sys
import threading
import types
import uuid
from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

from .._settings import is_tracing
from .._syntax import parse_module
from .calls import Call, Function, Run, save_runs
from .forms import Form, PlainForm, UnreadableError, form_of, without_values
from .instrument import instrument
from .vocabulary import read_vocabulary

FOLDER = "SHAPECHECK_WATCH"
PACKAGES = "SHAPECHECK_WATCH_PACKAGES"

_MOST_VALUES = 256  # distinct calls of one function after which the values of ints are no longer told apart
_MOST_CALLS = 4096  # and after which nothing new is kept

Entered = tuple[int, tuple[Form, ...]]


@dataclasses.dataclass
class _Watched:
    """A function that tells of its calls.

    Attributes:
        function: Which one.
        parameters: Their names.
        calls: What it told.
        dropped: How many calls were too many to be kept.
        is_open: Whether anybody listens.
    """

    function: Function
    parameters: list[str]
    calls: Counter[Call] = dataclasses.field(default_factory=Counter[Call])
    dropped: int = 0
    is_open: bool = True


class Watch:
    """What the functions that are watched tell of their calls, in this process."""

    def __init__(self) -> None:
        self._functions: list[_Watched] = []
        self._modules: list[str] = []
        self._lock = threading.Lock()
        self._folder: Path | None = None
        self._hook = WatchHook(())

    # --- what is told ----------------------------------------------------------------------------
    def enter(self, number: int, values: tuple[Any, ...]) -> Entered | None:
        """Take note of the arguments of a call.

        Args:
            number: Which function is called.
            values: Its parameters, in the order in which they are written.

        Returns:
            What `leave` wants; None if the call is not to be kept.
        """
        if is_tracing() or not self._functions[number].is_open:
            return None
        try:
            return number, tuple(map(form_of, values))
        except UnreadableError:
            return None

    def leave(self, entered: Entered | None, value: Any) -> Any:
        """Keep a call that is about to return or to yield `value`, and return the value."""
        if entered is None or is_tracing():
            return value
        with contextlib.suppress(UnreadableError):
            self._keep(entered, form_of(value, with_value=False))
        return value

    def end(self, entered: Entered | None) -> None:
        """Keep a call of a generator whose items come from another one, and are not seen."""
        if entered is not None and not is_tracing():
            self._keep(entered, PlainForm("object"))

    def _keep(self, entered: Entered, result: Form) -> None:
        number, forms = entered
        watched = self._functions[number]
        calls = watched.calls
        if len(calls) >= _MOST_VALUES:
            forms = tuple(map(without_values, forms))
        call = Call(tuple(zip(watched.parameters, forms, strict=True)), result)
        with self._lock:
            if call in calls or len(calls) < _MOST_CALLS:
                calls[call] += 1
            else:
                watched.dropped += 1

    # --- what is watched -------------------------------------------------------------------------
    def instrumented(self, tree: ast.Module, module: str, path: str) -> ast.Module:
        """Change the tree of a module, so that its functions tell of their calls."""
        self._modules.append(module)

        def register(name: str, occurrence: int, parameters: list[str]) -> int:
            function = Function(str(Path(path).resolve()), module, name, occurrence)
            self._functions.append(_Watched(function, parameters))
            return len(self._functions) - 1

        return instrument(tree, register, __name__)

    @property
    def mark(self) -> tuple[int, int]:
        """How many functions and modules are watched by now."""
        return len(self._functions), len(self._modules)

    def run(self, since: tuple[int, int] = (0, 0), packages: Sequence[str] = ()) -> Run:
        """Return what was seen.

        Args:
            since: The `mark` before the first function and module to tell of.
            packages: What to tell of, with everything below; all, if none is named.
        """
        run = Run()
        for watched in self._functions[since[0] :]:
            if not packages or _is_within(watched.function.module, packages):
                run.dropped += watched.dropped
                run.calls.setdefault(watched.function, Counter()).update(watched.calls)
        for name in dict.fromkeys(self._modules[since[1] :]):
            module = sys.modules.get(name)
            if module is not None and (not packages or _is_within(name, packages)):
                read_vocabulary(module, run)
        return run

    def close(self, since: tuple[int, int]) -> None:
        """Listen no longer to the functions that are watched since a `mark`."""
        for watched in self._functions[since[0] :]:
            watched.is_open = False

    # --- a whole process -------------------------------------------------------------------------
    def begin(self, folder: Path, packages: Iterable[str]) -> None:
        """Watch packages until the process ends, and then write what was seen to a file in a folder of its own.

        Processes that are forked from this one by `multiprocessing` do the same.
        """
        if self._folder is not None:
            return
        self._folder = folder
        self._hook = WatchHook(packages)
        sys.meta_path.insert(0, self._hook)
        self._save_at_the_end()
        multiprocessing.util.register_after_fork(self, Watch._forked)

    def _save_at_the_end(self) -> None:
        multiprocessing.util.Finalize(None, self.save, exitpriority=0)  # runs at exit, also of a forked process

    def _forked(self) -> None:
        self._forget()
        self._save_at_the_end()

    def save(self) -> None:
        """Write what was seen to a file of its own."""
        if self._folder is not None and self._folder.is_dir():
            run = self.run()
            run.skipped = self._hook.skipped
            save_runs([run], self._folder / f"{os.getpid()}-{uuid.uuid4().hex}.json")
            self._forget()

    def _forget(self) -> None:
        for watched in self._functions:
            watched.calls.clear()
            watched.dropped = 0


def begin_from_environment() -> None:
    """Watch what the environment asks for, if it does."""
    folder = os.environ.get(FOLDER)
    if folder is not None:
        watch.begin(Path(folder), [name for name in os.environ.get(PACKAGES, "").split(",") if name])


@contextlib.contextmanager
def watch_calls(*packages: str) -> Generator[Run]:
    """Watch how the functions of some packages are called, for those of their modules that are imported in the block.

    Args:
        *packages: Names of packages or modules; everything below them is included.

    Returns:
        What was seen, which is complete when the block has ended.
    """
    hook = WatchHook(packages)
    sys.meta_path.insert(0, hook)
    run, mark = Run(), watch.mark
    try:
        yield run
    finally:
        sys.meta_path.remove(hook)
        watch.close(mark)
        run.add(watch.run(mark, packages))
        run.skipped = hook.skipped


# --- the hook -----------------------------------------------------------------------------------------
class WatchHook(importlib.abc.MetaPathFinder):
    """Finds modules as others do, and loads those of some packages so that their functions tell of their calls.

    Attributes:
        skipped: Modules that cannot be watched, and why.

    Args:
        packages: Names of packages or modules; everything below them is included.
    """

    def __init__(self, packages: Iterable[str]) -> None:
        self._packages = tuple(packages)
        early = [name for name in sorted(sys.modules) if _is_within(name, self._packages)]
        self.skipped = dict.fromkeys(early, "it was imported before the watch began")

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find a module by means of the other finders, and choose the loader."""
        if not _is_within(fullname, self._packages):
            return None
        others = (finder for finder in sys.meta_path if not isinstance(finder, WatchHook))
        spec = next((spec for finder in others if (spec := finder.find_spec(fullname, path, target))), None)
        if spec is not None:
            spec.loader = self._watched(fullname, spec.loader)
        return spec

    def _watched(self, fullname: str, loader: Any) -> Any:
        """Return a loader of ours in place of Python's own; any other as it is."""
        if type(loader) is importlib.machinery.SourceFileLoader:
            return _Loader(fullname, loader.path)
        if loader is not None and not isinstance(loader, importlib.machinery.NamespaceLoader):
            self.skipped[fullname] = f"it is loaded by {type(loader).__qualname__}, not from Python source alone"
        return loader


def _is_within(module: str, packages: Iterable[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads a module from its source, changed; bytecode is neither read nor written, so that none is mixed up."""

    def path_stats(self, path: str) -> Any:
        """Say that no bytecode can be up to date."""
        msg = f"No bytecode of {path} is under watch."
        raise OSError(msg)

    def source_to_code(self, data: Any, path: Any, *arguments: Any, **named: Any) -> types.CodeType:
        """Compile the changed source."""
        tree = watch.instrumented(parse_module(data, path), self.name, path)
        return super().source_to_code(tree, path, *arguments, **named)  # pyright: ignore[reportArgumentType]


watch = Watch()
