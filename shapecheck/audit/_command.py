"""What the commands have in common: where they find packages, how they refuse, and how they write for machines."""

import contextlib
import functools
import json
import sys
from collections.abc import Callable, Generator, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, ParamSpec

from .._packages.hook import install_import_hook
from .._settings import enabled
from ..errors import ContractDefinitionError
from ._recording import Recording, runs_of

FOUND, REFUSED = 1, 2  # exit statuses

_Parameters = ParamSpec("_Parameters")


def command(name: str) -> Callable[[Callable[_Parameters, int]], Callable[_Parameters, int]]:
    """Return a decorator for what a command does: what it cannot begin or write is said in one line, with status 2.

    Args:
        name: Name of the command.
    """

    def decorate(function: Callable[_Parameters, int]) -> Callable[_Parameters, int]:
        @functools.wraps(function)
        def run(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> int:
            try:
                return function(*args, **kwargs)
            except (ImportError, OSError, ValueError, ContractDefinitionError) as error:
                sys.stderr.write(f"shapecheck {name}: {error}\n")
                return REFUSED

        return run

    return decorate


@contextlib.contextmanager
def under_contract(*packages: str, hook: bool) -> Generator[None]:
    """Let packages be imported with their contracts, those in the current folder too unless Python was told not to.

    Args:
        *packages: Names of packages or modules.
        hook: Put contracts on their annotated functions first.

    Raises:
        ValueError: Checking is off.
        ModuleNotFoundError: There is no such package to hook.
    """
    if not enabled():
        msg = "checking is off (SHAPECHECK=off or JAXTYPING_DISABLE=1), so that no function has a contract."
        raise ValueError(msg)
    here = [] if sys.flags.safe_path else [str(Path.cwd())]
    sys.path[:0] = here
    try:
        with install_import_hook(*packages) if hook else contextlib.nullcontext():
            yield
    finally:
        for folder in here:
            with contextlib.suppress(ValueError):  # what was imported may have changed the path
                sys.path.remove(folder)


def added_up(files: Iterable[str]) -> Recording:
    """Read recordings and add them up; say so where one holds what several runs have left beside each other.

    Args:
        files: As `Recording.load` reads them.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A file is no recording.
    """
    recordings: list[Recording] = []
    for file in files:
        recordings.append(Recording.load(file))
        began = runs_of(Path(file))
        if len(began) > 1:
            first = datetime.fromtimestamp(began[0] / 1e9).strftime("%Y-%m-%d %H:%M")
            text = f"{file} holds {len(began)} runs, the first of {first}: delete {file}.* to begin anew."
            sys.stderr.write(f"shapecheck: {text}\n")
    return Recording.merged(recordings)


def write_json(data: Any, file: str | None) -> None:
    """Write data to a file; without one there is nothing to do."""
    if file is not None:
        Path(file).write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
