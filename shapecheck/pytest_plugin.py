"""The pytest plugin: modes and import hook by option, a marker, sizes that differ, and a summary of the contracts.

Loaded in every session of an environment that has the package: imports neither torch nor the engine, and does nothing
unless it is asked to.
"""

import dataclasses
import os
from collections.abc import Generator, Iterator, Mapping
from typing import Any, get_args

import pytest

from ._packages.exercise import Exercise
from ._packages.hook import hook_report, install_import_hook
from ._settings import Mode, enabled, mode
from .errors import ContractError

_MODES = get_args(Mode)
_PLUGIN = "shapecheck-session"
_MOST_LISTED = 20


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    group = parser.getgroup("shapecheck", "contracts for tensors")
    group.addoption(
        "--shapecheck",
        metavar="MODE",
        choices=_MODES,
        help="off, on, strict or warn: the mode of all contracts, whatever the environment variable SHAPECHECK says",
    )
    group.addoption(
        "--shapecheck-packages",
        metavar="NAMES",
        default="",
        help="comma-separated packages whose annotated functions are put under contract as they are imported",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Set the mode and install the hook before anything is imported."""
    _begin(early_config, early_config.known_args_namespace)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker; begin here when the plugin was loaded too late to begin before."""
    config.addinivalue_line(
        "markers", "shapecheck(mode): run the body of the test with contracts off, on, strict or warn"
    )
    _begin(config, config.option)


def _begin(config: pytest.Config, options: Any) -> None:
    wanted: Mode | None = options.shapecheck
    given: str = options.shapecheck_packages
    packages = tuple(name.strip() for name in given.split(",") if name.strip())
    if (wanted is None and not packages) or config.pluginmanager.has_plugin(_PLUGIN):
        return
    if wanted is not None:
        os.environ["SHAPECHECK"] = wanted
    if wanted not in {None, "off"} and not enabled():
        msg = f"--shapecheck={wanted} has no effect while the environment variable JAXTYPING_DISABLE switches checking off."
        raise pytest.UsageError(msg)
    session = _Session(packages)
    config.pluginmanager.register(session, _PLUGIN)
    try:
        session.begin()
    except ModuleNotFoundError as error:
        msg = f"--shapecheck-packages: {error}"
        raise pytest.UsageError(msg) from None


# --- the marker --------------------------------------------------------------------------------------
def _marked_mode(item: pytest.Item) -> Any:
    marker = item.get_closest_marker("shapecheck")
    return None if marker is None else (marker.args[0] if len(marker.args) == 1 and not marker.kwargs else marker.args)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse markers that say nothing."""
    for item in items:
        wanted = _marked_mode(item)
        if wanted is not None and wanted not in _MODES:
            msg = f"{item.nodeid}: expected the marker shapecheck to have one of {', '.join(_MODES)}, got {wanted!r}."
            raise pytest.UsageError(msg)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Run the body of a marked test in its mode."""
    wanted = _marked_mode(item)
    if wanted is None:
        return (yield)
    with mode(wanted):
        return (yield)


# --- sizes --------------------------------------------------------------------------------------------
class Sizes(Mapping[str, int]):
    """A size for every dim that is asked for, no two the same: the odd primes, in the order of asking.

    Primes, so that no size is a product of others; none of them 1, which broadcasts, or 2, which is the size of
    coordinates. The same test always gets the same sizes.
    """

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}
        self._primes = _odd_primes()

    def __getitem__(self, dim: str) -> int:
        """Return the size of a dim."""
        if dim not in self._sizes:
            self._sizes[dim] = next(self._primes)
        return self._sizes[dim]

    def __getattr__(self, dim: str) -> int:
        """Return the size of a dim."""
        if dim.startswith("__"):
            raise AttributeError(dim)
        return self[dim]

    def __call__(self, dims: str) -> tuple[int, ...]:
        """Return a shape, given as in an annotation: names and numbers separated by spaces."""
        return tuple(int(dim) if dim.isdigit() else self[dim] for dim in dims.split())

    def __iter__(self) -> Iterator[str]:
        """Iterate over the dims that were asked for."""
        return iter(self._sizes)

    def __len__(self) -> int:
        """Return how many dims were asked for."""
        return len(self._sizes)


def _odd_primes() -> Iterator[int]:
    found: list[int] = []
    candidate = 3
    while True:
        if all(candidate % prime for prime in found):
            found.append(candidate)
            yield candidate
        candidate += 2


@pytest.fixture
def shapecheck_sizes() -> Sizes:
    """Pairwise different sizes for dims: ``sizes.B``, ``sizes["B"]``, ``sizes("B C 1 2")``."""
    return Sizes()


# --- failed tests ---------------------------------------------------------------------------------------
@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: "pytest.CallInfo[None]") -> Generator[None, Any, Any]:
    """Note in the report of a test which contracts it broke; JUnit files have it as properties."""
    excinfo = call.excinfo
    if excinfo is not None and isinstance(excinfo.value, ContractError):
        item.user_properties += [
            ("shapecheck", f"{violation.id}: {violation.boundary}, {violation.parameter}")
            for violation in excinfo.value.violations
        ]
    report = yield
    if excinfo is not None and isinstance(excinfo.value, ContractError) and report.failed:
        shown = [entry for entry in excinfo.traceback if not entry.ishidden(excinfo)] or list(excinfo.traceback)
        path = shown[-1].path
        if isinstance(path, os.PathLike) and item.config.rootpath in path.parents:
            path = path.relative_to(item.config.rootpath)
        report.shapecheck = _annotation(str(path), shown[-1].lineno + 1, str(excinfo.value))
    return report


def _annotation(path: str, line: int, text: str) -> str:
    """Return a command that makes GitHub show an error beside a line of source."""
    title, _, rest = text.partition("\n")
    return f"::error file={_escaped(path, ',:')},line={line},title={_escaped(title, ',:')}::{_escaped(rest or title)}"


def _escaped(text: str, special: str = "") -> str:
    for character in f"%\r\n{special}":
        text = text.replace(character, f"%{ord(character):02X}")
    return text


# --- the session ----------------------------------------------------------------------------------------
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

    def as_lists(self) -> dict[str, list[str]]:
        """Return it as what can be sent from one process to another."""
        return {name: sorted(values) for name, values in vars(self).items()}


class _Session:
    """What happens in a session that asked for it, by an option."""

    def __init__(self, packages: tuple[str, ...]) -> None:
        self._packages = packages
        self._exercise = Exercise()
        self._hook: Any = None
        self._counts = _Counts()
        self._annotations: list[str] = []

    def begin(self) -> None:
        """Watch definitions, and hook the packages."""
        self._exercise.watch()
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
        self._counts.merge(getattr(node, "workeroutput", {}).get("shapecheck", {}))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Count, and hand the numbers to the main process and to the JUnit file."""
        self._counts.merge({"defined": sorted(self._exercise.defined), "exercised": sorted(self._exercise.exercised)})
        self._counts.refused.update(map(str, hook_report().of("refused")))
        output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)  # of a worker of pytest-xdist
        if output is not None:
            output["shapecheck"] = self._counts.as_lists()
            return
        junit = session.config.pluginmanager.get_plugin("junitxml")
        file = None if junit is None else session.config.stash.get(junit.xml_key, None)
        for name, number in self._numbers().items():
            if file is not None:
                file.add_global_property(f"shapecheck_{name}", str(number))

    def _numbers(self) -> dict[str, int]:
        counts = self._counts
        mine = {name for name in counts.defined if self._is_of_interest(name)}
        return {
            "defined": len(mine),
            "exercised": len(mine & counts.exercised),
            "never_exercised": len(mine - counts.exercised),
            "refused": len(counts.refused),
        }

    def _is_of_interest(self, name: str) -> bool:
        """Tell whether a contract is listed: those of the packages that were named, if any were."""
        return not self._packages or name.startswith(tuple(f"{package}." for package in self._packages))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
        """Say how many contracts there were, and name those that nothing asked."""
        numbers = self._numbers()
        terminalreporter.section("contracts")
        terminalreporter.write_line(
            f"{numbers['defined']} contracts defined, {numbers['exercised']} exercised, "
            f"{numbers['never_exercised']} never exercised"
            + (f", {numbers['refused']} refused by the import hook" if self._packages else "")
        )
        idle = sorted(filter(self._is_of_interest, self._counts.defined - self._counts.exercised))
        for title, names in (("never exercised", idle), ("refused", sorted(self._counts.refused))):
            shown = names if config.get_verbosity() > 0 else names[:_MOST_LISTED]
            for name in shown:
                terminalreporter.write_line(f"  {title}: {name}")
            if len(shown) < len(names):
                terminalreporter.write_line(f"  ... and {len(names) - len(shown)} more (-v shows all)")
        if os.environ.get("GITHUB_ACTIONS") == "true":
            for annotation in self._annotations:
                terminalreporter.write_line(annotation)

    def pytest_unconfigure(self) -> None:
        """Leave no trace."""
        self._exercise.stop()
        if self._hook is not None:
            self._hook.uninstall()
