"""What a session of pytest says of contracts when it ends: which there were, which it asked, what that has shown.

Either counts, which is free after the first call of each contract, or records, which takes the reference engine for
every call. Imports neither torch nor the engine before there is a contract.
"""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from ._observers import when_first_defined
from ._packages.exercise import Exercise
from ._packages.hook import hook_report, install_import_hook

if TYPE_CHECKING:
    from .audit._coincidence import Coincidence
    from .audit._coverage import Coverage
    from .audit._recorder import Recorder
    from .audit._recording import Recording

_KEY = "shapecheck"  # of what a worker of pytest-xdist sends
_MOST_LISTED = 20


class Book(Protocol):
    """What is known of contracts in one process, and in those that have sent theirs."""

    def begin(self) -> None:
        """Begin."""

    def end(self, test_modules: Sequence[str]) -> None:
        """End, and leave out what tests have defined themselves, where that can be told."""

    def sent(self) -> Any:
        """Return it as what can be sent from one process to another."""

    def take_in(self, found: Any) -> None:
        """Add what another process has sent."""

    def conclude(self) -> None:
        """Make up the account, in the main process."""

    def numbers(self) -> dict[str, int]:
        """Return what is counted."""
        ...

    def blocks(self) -> Iterator[tuple[str, list[str]]]:
        """Yield headings, each with the lines below it."""
        ...

    def shortfall(self) -> str | None:
        """Return a sentence if what was asked for is not reached."""


class Session:
    """What happens in a session that asked for it, by an option.

    Args:
        packages: Packages to hook.
        book: What is known of contracts.
    """

    def __init__(self, packages: tuple[str, ...], book: Book) -> None:
        self._packages = packages
        self._book = book
        self._hook: Any = None
        self._annotations: list[str] = []

    def begin(self) -> None:
        """Watch contracts, and hook the packages."""
        self._book.begin()
        if self._packages:
            self._hook = install_import_hook(*self._packages)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what is to be shown in the source, wherever the test ran."""
        if hasattr(report, "shapecheck"):
            self._annotations.append(report.shapecheck)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Take in what a worker of pytest-xdist found."""
        del error
        found = getattr(node, "workeroutput", {}).get(_KEY)
        if found is not None:
            self._book.take_in(found)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Hand what is known to the main process, or there to the JUnit file, and fail if it is not enough."""
        self._book.end([*_test_modules(session)])
        output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)  # of a worker of pytest-xdist
        if output is not None:
            output[_KEY] = self._book.sent()
            return
        self._book.conclude()
        junit = session.config.pluginmanager.get_plugin("junitxml")
        file = None if junit is None else session.config.stash.get(junit.xml_key, None)
        for name, number in self._book.numbers().items():
            if file is not None:
                file.add_global_property(f"shapecheck_{name}", str(number))
        if self._book.shortfall() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
        """Say how many contracts there were, and name those that nothing asked."""
        terminalreporter.section("contracts")
        for heading, lines in self._book.blocks():
            terminalreporter.write_line(heading)
            shown = lines if config.get_verbosity() > 0 else lines[:_MOST_LISTED]
            for line in shown:
                terminalreporter.write_line(f"  {line}")
            if len(shown) < len(lines):
                terminalreporter.write_line(f"  ... and {len(lines) - len(shown)} more (-v shows all)")
        if shortfall := self._book.shortfall():
            terminalreporter.write_line(shortfall, red=True)
        if os.environ.get("GITHUB_ACTIONS") == "true":
            for annotation in self._annotations:
                terminalreporter.write_line(annotation)

    def pytest_unconfigure(self) -> None:
        """Leave no trace."""
        self._book.end([])
        if self._hook is not None:
            self._hook.uninstall()


def _test_modules(session: pytest.Session) -> Iterator[str]:
    """Yield the names of the modules that hold tests and fixtures."""
    for plugin in session.config.pluginmanager.get_plugins():
        if str(name := getattr(plugin, "__name__", "")).rpartition(".")[2] == "conftest":
            yield name
    yield from {getattr(item.module, "__name__", "") for item in session.items if isinstance(item, pytest.Function)}


def _is_within(name: str, packages: Iterable[str]) -> bool:
    return any(name.startswith((f"{package}.", f"{package} (")) for package in packages)


# --- counting -------------------------------------------------------------------------------------------
@dataclasses.dataclass
class _Counts:
    """What one process, or all of them together, know about contracts."""

    defined: set[str] = dataclasses.field(default_factory=set[str])
    exercised: set[str] = dataclasses.field(default_factory=set[str])
    refused: set[str] = dataclasses.field(default_factory=set[str])

    def merge(self, found: Mapping[str, list[str]]) -> None:
        """Add what another process found."""
        for name, values in found.items():
            getattr(self, name).update(values)


class Counted:
    """Which contracts were ever asked.

    Args:
        packages: Packages whose contracts are listed; all, if there are none.
    """

    def __init__(self, packages: tuple[str, ...]) -> None:
        self._packages = packages
        self._exercise: Exercise | None = None
        self._counts = _Counts()

    def begin(self) -> None:
        self._exercise = Exercise()
        self._exercise.watch()

    def end(self, test_modules: Sequence[str]) -> None:
        del test_modules
        if self._exercise is not None:
            self._exercise.stop()
            self._counts.defined |= self._exercise.defined
            self._counts.exercised |= self._exercise.exercised
            self._counts.refused.update(map(str, hook_report().of("refused")))
            self._exercise = None

    def sent(self) -> dict[str, list[str]]:
        return {name: sorted(values) for name, values in vars(self._counts).items()}

    def take_in(self, found: Any) -> None:
        self._counts.merge(found)

    def conclude(self) -> None: ...

    def numbers(self) -> dict[str, int]:
        counts, mine = self._counts, self._mine()
        return {
            "defined": len(mine),
            "exercised": len(mine & counts.exercised),
            "never_exercised": len(mine - counts.exercised),
            "refused": len(counts.refused),
        }

    def _mine(self) -> set[str]:
        return {name for name in self._counts.defined if not self._packages or _is_within(name, self._packages)}

    def blocks(self) -> Iterator[tuple[str, list[str]]]:
        numbers = self.numbers()
        yield (
            f"{numbers['defined']} contracts defined, {numbers['exercised']} exercised, "
            f"{numbers['never_exercised']} never exercised"
            + (f", {numbers['refused']} refused by the import hook" if self._packages else ""),
            [
                *(f"never exercised: {name}" for name in sorted(self._mine() - self._counts.exercised)),
                *(f"refused: {text}" for text in sorted(self._counts.refused)),
            ],
        )

    def shortfall(self) -> str | None:
        return None


# --- recording ------------------------------------------------------------------------------------------
class Recorded:
    """Which contracts were asked, with which sizes, and which dims were never told apart.

    Args:
        packages: Packages to report on; everything but what tests define themselves, if there are none.
        file: Where to write the recording.
        at_least: How many of a hundred contracts must be exercised.
        is_divided: Whether other processes run the tests.
    """

    def __init__(
        self, packages: tuple[str, ...], file: Path | None, at_least: float | None, *, is_divided: bool
    ) -> None:
        self._packages = packages
        self._file = file
        self._at_least = at_least
        self._is_divided = is_divided
        self._recorder: Recorder | None = None
        self._recordings: list[Recording] = []
        self._covered: Coverage | None = None
        self._alike: list[Coincidence] = []
        self._failure: str | None = None

    def begin(self) -> None:
        if not self._is_divided:
            when_first_defined(self._start)

    def _start(self) -> None:
        from .audit._recorder import Recorder  # now there is a contract, and so the engine

        self._recorder = Recorder()
        self._recorder.start()

    def end(self, test_modules: Sequence[str]) -> None:
        recorder, self._recorder = self._recorder, None
        if recorder is None:
            return
        recording = recorder.stop()
        if not self._packages:
            known = {*recording.boundaries, *recording.skipped}
            recording = recording.without(name for name in known if _is_within(name, test_modules))
        self._recordings.append(recording)

    def sent(self) -> Any:
        return self._recordings[0].as_json() if self._recordings else None

    def take_in(self, found: Any) -> None:
        from .audit._recording import Recording

        self._recordings.append(Recording.from_json(found))

    def conclude(self) -> None:
        if not self._recordings and not self._packages and self._file is None:
            return  # there was no contract, and nobody insists
        from .audit._coincidence import coincidences
        from .audit._coverage import coverage
        from .audit._recording import Recording

        whole = Recording.merged(self._recordings)
        if self._file is not None:
            whole.save(self._file)
        try:
            self._covered = coverage(whole, *self._packages)
        except ImportError as error:
            self._covered = coverage(whole)
            self._failure = f"Contracts of {', '.join(self._packages)} cannot all be listed: {error}."
        mine = {covered.name for covered in self._covered.contracts}
        self._alike = [found for found in coincidences(whole) if found.boundary in mine]

    def numbers(self) -> dict[str, int]:
        covered = self._covered
        if covered is None:
            return {"defined": 0, "exercised": 0, "never_exercised": 0, "refused": 0, "coincidences": 0}
        return {
            "defined": len(covered.contracts),
            "exercised": covered.exercised,
            "never_exercised": len(covered.contracts) - covered.exercised,
            "refused": len(covered.refused),
            "coincidences": len(self._alike),
        }

    def blocks(self) -> Iterator[tuple[str, list[str]]]:
        if self._covered is None:
            yield "0 contracts defined, 0 exercised, 0 never exercised", []
            return
        yield self._covered.summary(), self._covered.findings()
        if self._alike:
            from .audit._coincidence import heading

            yield heading(self._alike), [found.line() for found in self._alike]
        if self._file is not None:
            yield f"recorded in {self._file}: shapecheck report PACKAGE --recording {self._file}", []

    def shortfall(self) -> str | None:
        if self._failure is not None or self._at_least is None:
            return self._failure
        from .audit._coverage import shortfall

        return None if self._covered is None else shortfall(self._covered, self._at_least)
