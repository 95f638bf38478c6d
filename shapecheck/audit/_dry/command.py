"""What the command ``shapecheck verify`` does between its arguments and its exit status."""

import importlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from ..._packages.hook import install_import_hook
from ..._settings import enabled
from ...errors import ContractDefinitionError
from .verified import Verification
from .verify import Terms, verify

_BAR = 24  # characters


def verify_package(
    package: str,
    *,
    only: Sequence[str],
    skip: Sequence[str],
    sizes: Mapping[str, int],
    factories: Sequence[str],
    limit_s: float,
    hook: bool,
    json_file: str | None,
) -> int:
    """Verify a package and print what was found.

    Args:
        package: Name of a package or module that can be imported from here.
        only: Functions to run.
        skip: Functions not to run.
        sizes: Sizes of dims.
        factories: Each as ``module:function``.
        limit_s: Seconds for one run.
        hook: Put contracts on the annotated functions of the package first.
        json_file: Where to write everything as JSON.

    Returns:
        0 if nothing was found, 1 if a contract or a shape was, 2 if it could not begin.
    """
    if not enabled():
        return _refuse("checking is off (SHAPECHECK=off or JAXTYPING_DISABLE=1), so that no function has a contract.")
    if not sys.flags.safe_path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        if hook:
            install_import_hook(package)
        terms = Terms(sizes, [_imported(name) for name in factories], limit_s)
        found = verify(package, only=only, skip=skip, terms=terms, progress=progress_on(sys.stderr))
    except (ImportError, ValueError, ContractDefinitionError) as error:
        return _refuse(str(error))
    sys.stdout.write(f"{found}\n")
    if json_file is not None:
        _write(found, Path(json_file))
    return 1 if found.findings else 0


def _refuse(text: str) -> int:
    sys.stderr.write(f"shapecheck verify: {text}\n")
    return 2


def _imported(name: str) -> Callable[..., Any]:
    module, separator, function = name.partition(":")
    factory = getattr(importlib.import_module(module), function, None) if separator else None
    if not callable(factory):
        msg = f"Expected --with to name something to call as MODULE:FACTORY, got {name!r}."
        raise ValueError(msg)  # noqa: TRY004  # of an option, not of a call
    return factory


def progress_on(stream: TextIO) -> Callable[[int, int, str], None] | None:
    """Return what shows how far it is, on a terminal; None elsewhere."""
    if not stream.isatty():
        return None

    def show(done: int, total: int, name: str) -> None:
        filled = _BAR * done // max(total, 1)
        bar = f"[{'#' * filled}{'.' * (_BAR - filled)}] {done}/{total}"
        line = f"{bar} {name}"[:79] if done < total else ""
        stream.write(f"\r\x1b[K{line}")
        stream.flush()

    return show


def _write(found: Verification, file: Path) -> None:
    document = {"format": "shapecheck verify", "version": 1, **found.to_dict()}
    file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
