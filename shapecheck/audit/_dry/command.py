"""What the command ``shapecheck verify`` does between its arguments and its exit status."""

import contextlib
import importlib
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from .._command import FOUND, command, under_contract, write_json
from .verify import Terms, verify


@command("verify")
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
    with under_contract(package, hook=hook), _progress() as progress:
        terms = Terms(sizes, [_imported(name) for name in factories], limit_s)
        found = verify(package, only=only, skip=skip, terms=terms, progress=progress)
    sys.stdout.write(f"{found}\n")
    write_json({"format": "shapecheck verify", "version": 1, **found.to_dict()}, json_file)
    return FOUND if found.findings else 0


def _imported(name: str) -> Callable[..., Any]:
    module, separator, function = name.partition(":")
    factory = getattr(importlib.import_module(module), function, None) if separator else None
    if not callable(factory):
        msg = f"Expected --with to name something to call as MODULE:FACTORY, got {name!r}."
        raise ValueError(msg)  # noqa: TRY004  # of an option, not of a call
    return factory


@contextlib.contextmanager
def _progress() -> Generator[Callable[[int, int, str], None] | None]:
    """Draw a bar while functions run, where stderr is a terminal and tqdm is installed, and take it away again.

    Yields:
        What tells the bar how many functions are done, of how many, and which is next; None where there is no bar.
    """
    if not sys.stderr.isatty() or find_spec("tqdm") is None:
        yield None
        return
    from tqdm import tqdm

    with tqdm(desc="Verifying", unit=" functions", leave=False) as bar:

        def show(done: int, total: int, name: str) -> None:
            bar.n, bar.total = done, total
            bar.set_postfix_str(name)

        yield show
