"""The broadcast watch over a session of pytest: what it finds fails the session, unless a baseline has it.

`pytest_plugin` declares the options and imports this only where they are given.
"""

import importlib.util
import pickle
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest

from .watch import Broadcast, Collector

_SENT = "shapecheck_broadcasts"  # the name of what a worker of pytest-xdist sends
_HEADER = (
    "# Broadcasts that are meant, as file::function::line of code. Written by pytest --shapecheck-broadcasts-accept."
)


class BroadcastSession:
    """What happens in a session that is watched.

    Args:
        packages: Whose lines are looked at; all that are not installed if there are none.
        baseline: File of what is meant.
        accept: Whether the baseline is to be written, with what is found.

    Raises:
        pytest.UsageError: There is no baseline to be read.
    """

    def __init__(self, packages: Sequence[str], baseline: Path | None, accept: bool) -> None:
        self._collector = Collector(packages)
        self._baseline = baseline
        self._accept = accept
        self._meant = read_baseline(baseline) if baseline is not None and not accept else set[str]()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Watch a test with its fixtures, and note what it was the first to show."""
        known = len(self._collector.found)
        with self._collector.watching():
            result = yield
        for broadcast in self._collector.found[known:]:
            broadcast.first_seen = item.nodeid
        return result

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Take in what a worker of pytest-xdist found."""
        del error
        self._collector.take_in(pickle.loads(getattr(node, "workeroutput", {}).get(_SENT, pickle.dumps([]))))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Send what was found to the main process, or there let it decide about the session."""
        output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
        if output is not None:
            output[_SENT] = pickle.dumps(self._collector.found)
        elif self._accept and self._baseline is not None:
            write_baseline(self._baseline, self._collector.found)
        elif self._unmeant and session.exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @property
    def _unmeant(self) -> list[Broadcast]:
        found = sorted(self._collector.found, key=lambda broadcast: (broadcast.place.file, broadcast.place.line))
        return [broadcast for broadcast in found if broadcast.signature not in self._meant]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print a report for each line, and what became of the baseline."""
        terminalreporter.section("broadcasts")
        found, unmeant = self._collector.found, self._unmeant
        if self._accept:
            terminalreporter.write_line(f"{_lines(len(found))} written to {self._baseline}")
            return
        for broadcast in unmeant:
            terminalreporter.write_line(f"{broadcast}\n")
        gone = sorted(self._meant - {broadcast.signature for broadcast in found})
        terminalreporter.write_line(
            f"{_lines(len(unmeant))} with a broadcast that may not be meant"
            + (f", {len(found) - len(unmeant)} more in {self._baseline}" if self._baseline is not None else "")
        )
        for signature in gone:
            terminalreporter.write_line(f"  not seen in this run, though {self._baseline} has it: {signature}")


def watched_session(packages: str | None, baseline: str | None, accept: bool) -> BroadcastSession:
    """Return what watches a session as its options say.

    Raises:
        pytest.UsageError: They mean nothing, or torch is missing.
    """
    if packages is None:
        _refuse("Expected --shapecheck-broadcasts beside its baseline, got none: nothing would be watched.")
    if accept and baseline is None:
        _refuse("Expected --shapecheck-broadcasts-baseline=FILE beside --shapecheck-broadcasts-accept, got none.")
    names = tuple(name.strip() for name in packages.split(",") if name.strip())
    for name in names:
        if not _can_be_imported(name):
            cure = "" if name.isidentifier() else "; write the files and folders to be tested before the option"
            _refuse(f"Expected --shapecheck-broadcasts to name packages, got {name!r}{cure}.")
    if importlib.util.find_spec("torch") is None:
        _refuse("--shapecheck-broadcasts needs torch, which is not installed.")
    return BroadcastSession(names, None if baseline is None else Path(baseline), accept)


def _can_be_imported(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # its parent is no package; it is no name
        return False


def _refuse(message: str) -> NoReturn:
    raise pytest.UsageError(message)


def read_baseline(path: Path) -> set[str]:
    """Return the signatures of the lines that are meant.

    Raises:
        pytest.UsageError: The file is not there.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        _refuse(
            f"Expected --shapecheck-broadcasts-baseline={path} to be a file; --shapecheck-broadcasts-accept writes it."
        )
    return {line.strip() for line in lines if line.strip() and not line.startswith("#")}


def write_baseline(path: Path, found: Iterable[Broadcast]) -> None:
    """Write the signatures of lines, one a line, sorted."""
    signatures = sorted({broadcast.signature for broadcast in found})
    path.write_text("\n".join([_HEADER, *signatures, ""]), encoding="utf-8")


def _lines(count: int) -> str:
    return f"{count} line{'s'[: count != 1]}"
