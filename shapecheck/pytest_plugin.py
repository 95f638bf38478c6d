"""The pytest plugin: modes and import hook by option, a marker, sizes that differ, and a summary of the contracts.

Loaded in every session of an environment that has the package: imports neither torch nor the engine, and does nothing
unless it is asked to.
"""

import os
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest

from ._session import Counted, Recorded, Session
from ._settings import Mode, enabled, mode
from .errors import ContractError

_MODES = get_args(Mode)
_PLUGIN = "shapecheck-session"


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
    group.addoption(
        "--shapecheck-report",
        metavar="FILE",
        help="record which contracts the tests exercise and with which sizes, and write that to FILE; every call is "
        "then judged by the reference engine, which takes longer",
    )
    group.addoption(
        "--shapecheck-coverage-of",
        metavar="NAMES",
        default="",
        help="comma-separated packages to report on, in full; by default those of --shapecheck-packages, "
        "or else everything that the tests do not define themselves",
    )
    group.addoption(
        "--shapecheck-coverage-at-least",
        metavar="PERCENT",
        type=float,
        help="fail unless so many of the contracts are exercised",
    )
    group.addoption(
        "--shapecheck-broadcasts",
        metavar="NAMES",
        nargs="?",
        const="",
        help="fail where a line of code broadcasts as nobody may have meant; =NAMES: in these packages only",
    )
    group.addoption("--shapecheck-broadcasts-baseline", metavar="FILE", help="lines whose broadcasts are meant")
    group.addoption(
        "--shapecheck-broadcasts-accept", action="store_true", help="write the baseline with what is found now"
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
    _watch_broadcasts(config)


def _watch_broadcasts(config: pytest.Config) -> None:
    """Begin the broadcast watch, if it is wanted."""
    option = config.option
    given = (option.shapecheck_broadcasts, option.shapecheck_broadcasts_baseline, option.shapecheck_broadcasts_accept)
    if given != (None, None, False):
        from .audit._broadcasting.session import watched_session  # after the mode is set, and only if it is wanted

        config.pluginmanager.register(watched_session(*given))


def _begin(config: pytest.Config, options: Any) -> None:
    wanted: Mode | None = options.shapecheck
    packages = _names(options.shapecheck_packages)
    records = wanted == "strict" or _wants_report(options)
    if (wanted is None and not packages and not records) or config.pluginmanager.has_plugin(_PLUGIN):
        return
    if wanted is not None:
        os.environ["SHAPECHECK"] = wanted
    if wanted not in {None, "off"} and not enabled():
        msg = f"--shapecheck={wanted} has no effect while the environment variable JAXTYPING_DISABLE switches checking off."
        raise pytest.UsageError(msg)
    if _wants_report(options) and not enabled():
        msg = "Expected contracts to report on, but checking is off: leave out --shapecheck-report, or switch it on."
        raise pytest.UsageError(msg)
    session = Session(packages, _recorded(options) if records else Counted(packages))
    config.pluginmanager.register(session, _PLUGIN)
    try:
        session.begin()
    except ModuleNotFoundError as error:
        msg = f"--shapecheck-packages: {error}"
        raise pytest.UsageError(msg) from None


def _names(given: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in given.split(",") if name.strip())


def _wants_report(options: Any) -> bool:
    return bool(
        options.shapecheck_report or options.shapecheck_coverage_of or options.shapecheck_coverage_at_least is not None
    )


def _recorded(options: Any) -> Recorded:
    is_worker = "PYTEST_XDIST_WORKER" in os.environ
    is_divided = not is_worker and any(getattr(options, name, None) for name in ("numprocesses", "tx"))
    return Recorded(
        _names(options.shapecheck_coverage_of) or _names(options.shapecheck_packages),
        Path(options.shapecheck_report).absolute() if options.shapecheck_report else None,
        options.shapecheck_coverage_at_least,
        is_divided=is_divided,
    )


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
