"""The pytest plugin, in sessions of its own: options, marker, sizes, summary, JUnit, several processes, annotations."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from importlib.util import find_spec
from pathlib import Path

import pytest

import shapecheck
from shapecheck.pytest_plugin import Sizes

PACKAGE = """
import numpy as np
from jaxtyping import Float32
def used(x: Float32[np.ndarray, "n 2"]): return x
def unused(x: Float32[np.ndarray, "n 2"]): return x
def strange(x: Float32[np.ndarray, "n>1"]): return x
def unannotated(x): return x
"""
TESTS = """
import numpy as np, package
def test_good(): package.used(np.zeros((3, 2), np.float32))
def test_bad(): package.used(np.zeros((3, 5), np.float32))
"""
ON, OFF = "--shapecheck=on", "--shapecheck=off"
PACKAGES = "--shapecheck-packages=package"


@pytest.fixture
def session(tmp_path: Path):
    """Runs pytest with the plugin in a process of its own; returns its exit code and what it wrote."""
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text(PACKAGE)

    def run(tests: str, *options: str, **environment: str) -> tuple[int, str]:
        (tmp_path / "test_it.py").write_text(tests)
        known = {"SHAPECHECK", "JAXTYPING_DISABLE", "GITHUB_ACTIONS", "PYTEST_ADDOPTS"}
        variables = {name: value for name, value in os.environ.items() if name not in known}
        path = os.pathsep.join([str(tmp_path), str(Path(shapecheck.__file__).parents[1])])
        plugin = [
            "-p",
            "shapecheck.pytest_plugin",
            *(["-p", "xdist"] if "-n2" in options else []),
            "-p",
            "no:cacheprovider",
            "--strict-markers",
            "--rootdir",
            tmp_path,
        ]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *plugin, *options, "test_it.py"],
            cwd=tmp_path,
            env={**variables, "PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    return run


# --- options -----------------------------------------------------------------------------------------------
def test_packages_are_under_contract_as_they_are_imported_and_the_summary_names_what_nothing_asked(session):
    code, text = session(TESTS, PACKAGES, ON)
    assert code == pytest.ExitCode.TESTS_FAILED
    assert "ContractError [axis-size]: package.used, parameter 'x'" in text
    assert "1 failed, 1 passed" in text
    assert "2 contracts defined, 1 exercised, 1 never exercised, 1 refused by the import hook" in text
    assert "  never exercised: package.unused" in text
    assert "  refused: package.strange (line 6): refused: Malformed axis 'n>1'" in text
    assert "unannotated" not in text


@pytest.mark.parametrize("options", [(PACKAGES, OFF), (ON,), ()], ids=["off", "no packages", "no options"])
def test_without_mode_or_packages_nothing_is_checked(session, options):
    code, text = session(TESTS, *options)
    assert code == pytest.ExitCode.OK, text
    assert "refused: " not in text


def test_without_options_nothing_is_said_and_nothing_imported(session):
    tests = "import sys\ndef test_it(): assert not {'torch', 'numpy', 'jaxtyping', 'beartype'} & set(sys.modules)"
    code, text = session(tests)
    assert code == pytest.ExitCode.OK, text
    assert "contracts defined" not in text


def test_the_mode_is_set_before_packages_are_imported_and_outranks_the_environment(session):
    tests = "import shapecheck, os\nAT_IMPORT = shapecheck.enabled()\ndef test_it(): assert {} is AT_IMPORT"
    assert session(tests.format("True"), ON, SHAPECHECK="off")[0] == pytest.ExitCode.OK
    assert session(tests.format("False"), OFF, SHAPECHECK="on")[0] == pytest.ExitCode.OK


def test_warn_goes_on_with_a_warning(session):
    code, text = session(TESTS, PACKAGES, "--shapecheck=warn")
    assert code == pytest.ExitCode.OK
    assert "ContractWarning: ContractError [axis-size]: package.used" in text


@pytest.mark.parametrize(
    ("options", "environment", "message"),
    [
        (("--shapecheck=loud",), {}, "invalid choice: 'loud'"),
        (
            ("--shapecheck-packages=pakage", ON),
            {},
            "--shapecheck-packages: Expected 'pakage' to be a package or module",
        ),
        (
            (ON,),
            {"JAXTYPING_DISABLE": "1"},
            "--shapecheck=on has no effect while the environment variable JAXTYPING_DI",
        ),
    ],
    ids=["mode", "package", "JAXTYPING_DISABLE"],
)
def test_options_that_mean_nothing_are_errors(session, options, environment, message):
    code, text = session(TESTS, *options, **environment)
    assert code == pytest.ExitCode.USAGE_ERROR
    assert message in text


# --- marker and fixture --------------------------------------------------------------------------------
MARKED = """
import numpy as np, package, pytest
WRONG = np.zeros((3, 5), np.float32)
@pytest.mark.shapecheck("off")
def test_off(): package.used(WRONG)
def test_on(): package.used(WRONG)
@pytest.mark.shapecheck("strict")
class TestStrict:
    def test_strict(self): package.used(WRONG)
"""


def test_the_marker_changes_the_mode_of_one_test(session):
    code, text = session(MARKED, PACKAGES, ON, "-rA")
    assert code == pytest.ExitCode.TESTS_FAILED
    assert "PASSED test_it.py::test_off" in text
    assert "FAILED test_it.py::test_on" in text
    assert "FAILED test_it.py::TestStrict::test_strict" in text


@pytest.mark.parametrize("argument", ['"loud"', "", '"on", "off"', 'mode="on"'])
def test_a_marker_that_means_nothing_is_an_error(session, argument):
    code, text = session(MARKED.replace('"off"', argument), ON)
    assert code != pytest.ExitCode.OK
    assert "expected the marker shapecheck to have one of off, on, strict, warn, got" in text


def test_sizes_are_different_primes_and_neither_1_nor_2_and_the_same_every_time():
    sizes = Sizes()
    assert (sizes.B, sizes["C"], sizes.B, sizes("B N 1 2 C")) == (3, 5, 3, (3, 7, 1, 2, 5))
    assert dict(sizes) == {"B": 3, "C": 5, "N": 7}
    found = [sizes[f"dim{index}"] for index in range(50)]
    assert len({*found, 3, 5, 7}) == 53
    assert all(size % factor for size in found for factor in range(2, size))
    assert [Sizes()("B C N") for _ in range(2)] == [(3, 5, 7)] * 2


def test_the_fixture_begins_anew_in_every_test(session):
    tests = "def test_one(shapecheck_sizes): assert shapecheck_sizes.B == 3\n"
    assert session(tests + tests.replace("one", "two").replace("B", "C"))[0] == pytest.ExitCode.OK


# --- reports ------------------------------------------------------------------------------------------------
def test_the_junit_file_has_numbers_for_the_session_and_violations_for_the_tests(session, tmp_path):
    session(TESTS, PACKAGES, ON, "--junitxml=report.xml")
    tree = ET.parse(tmp_path / "report.xml")
    found = {(item.get("name"), item.get("value")) for item in tree.iter("property")}
    assert found >= {
        ("shapecheck_defined", "2"),
        ("shapecheck_exercised", "1"),
        ("shapecheck_never_exercised", "1"),
        ("shapecheck_refused", "1"),
        ("shapecheck", "axis-size: package.used, x"),
    }


def test_on_github_a_violation_is_shown_beside_the_line_of_the_test(session):
    _, text = session(TESTS, PACKAGES, ON, GITHUB_ACTIONS="true")
    (line,) = [line for line in text.splitlines() if line.startswith("::error")]
    assert line.startswith(
        "::error file=test_it.py,line=4,title=ContractError [axis-size]%3A package.used%2C parameter"
    )
    assert "%0A  got        f32[3,5] (numpy)%0A" in line
    assert "::error" not in session(TESTS, PACKAGES, ON)[1]


@pytest.mark.skipif(find_spec("xdist") is None, reason="pytest-xdist is not installed")
def test_several_processes_are_counted_together(session):
    tests = TESTS + "def test_other(): package.unused(np.zeros((3, 2), np.float32))\n"
    code, text = session(tests, PACKAGES, ON, "-n2", GITHUB_ACTIONS="true")
    assert code == pytest.ExitCode.TESTS_FAILED
    assert "2 contracts defined, 2 exercised, 0 never exercised, 1 refused by the import hook" in text
    assert text.count("::error file=test_it.py,line=4") == 1


# --- what is counted ----------------------------------------------------------------------------------------
KINDS = """
import asyncio, json, numpy as np
from typing import Iterator
from jaxtyping import Float32
from shapecheck import contract
Row = Float32[np.ndarray, "n 2"]
GOOD = np.zeros((3, 2), np.float32)
@contract
def compiled(x: Row): return x
@contract
async def coroutine(x: Row): return x
@contract
def generator(x: Row) -> Iterator[Row]: yield x
@contract
def union(x: Row | Float32[np.ndarray, "2 n n"]): return x
@contract
class Klass:
    def method(self, x: Row): return x
    @property
    def prop(self) -> Row: return GOOD
def test_it():
    before = compiled.__globals__.get("_sc_function")
    for _ in range(2):
        compiled(GOOD), asyncio.run(coroutine(GOOD)), list(generator(GOOD)), union(GOOD), Klass().method(GOOD), Klass().prop
    inner = compiled.__globals__.get("_sc_function")
    assert inner is (compiled.__wrapped__ if inner else None)
"""


@pytest.mark.parametrize("engine", ["compiled", "reference"])
def test_every_kind_of_function_is_counted_whichever_engine_judges(session, engine):
    code, text = session(KINDS, ON, SHAPECHECK_ENGINE=engine)
    assert code == pytest.ExitCode.OK, text
    assert "6 contracts defined, 6 exercised, 0 never exercised" in text
    idle = KINDS.replace("range(2)", "range(0)").replace("assert inner", "assert before is inner or inner")
    assert "6 contracts defined, 0 exercised, 6 never exercised" in session(idle, ON, SHAPECHECK_ENGINE=engine)[1]


def test_a_rejected_call_counts_too(session):
    _, text = session(KINDS.replace("(3, 2)", "(3, 5)"), ON)
    assert "6 contracts defined, 1 exercised, 5 never exercised" in text


# --- recorded sessions --------------------------------------------------------------------------------------
OPTICS = """
import numpy as np
from jaxtyping import Float32
from shapecheck import contract
@contract
def scale(x: Float32[np.ndarray, "n d"], y: Float32[np.ndarray, " d"]): return x * y
@contract
def idle(x: Float32[np.ndarray, " n"]): ...
def bare(x: Float32[np.ndarray, " n"]): ...
"""
SCALING = """
import multiprocessing, numpy as np, optics, pytest
from jaxtyping import Float32
from shapecheck import contract
@contract
def own(x: Float32[np.ndarray, " n"]): ...
def scale(n, d): optics.scale(np.zeros((n, d), np.float32), np.zeros(d, np.float32))
def test_equal(): scale(3, 3), own(np.zeros(2, np.float32))
def test_equal_too():
    scale(5, 5)
    with pytest.raises(TypeError): optics.scale(np.zeros((3, 4), np.float32), np.zeros(5, np.float32))
"""
APART = "def test_apart(): scale(3, 4)\n"
FORKED = """
def test_forked():
    worker = multiprocessing.get_context("fork").Process(target=scale, args=(3, 4))
    worker.start(), worker.join()
    assert worker.exitcode == 0
"""
REPORT = "--shapecheck-report=run.json"


@pytest.fixture
def optics(session, tmp_path):
    """Runs pytest beside a module with contracts."""
    (tmp_path / "optics.py").write_text(OPTICS)
    return session


def test_a_strict_session_ends_with_what_was_never_called_and_never_told_apart_and_fails_if_that_is_too_much(optics):
    code, text = optics(SCALING, "--shapecheck=strict", "--shapecheck-coverage-at-least=51")
    assert code == pytest.ExitCode.TESTS_FAILED, text
    assert "2 passed" in text
    assert "2 contracts defined, 1 exercised, 1 never exercised (50 %)" in text
    assert "  never called: optics.idle (optics.py:7)" in text
    assert "1 coincidence of dims, about whose order nothing is known: call with sizes that differ" in text
    assert "  optics.scale (optics.py:5): d and n had the same size (3 and 5) in both calls" in text
    assert "Expected at least 51 % of the contracts to be exercised, got 50 %." in text
    assert "test_it.own" not in text


def test_dims_that_a_forked_worker_tells_apart_are_not_named(optics):
    code, text = optics(SCALING + FORKED, "--shapecheck-coverage-at-least=50")
    assert code == pytest.ExitCode.OK, text
    assert "coincidence" not in text


def test_a_report_on_a_package_is_about_all_of_it(optics, tmp_path):
    (tmp_path / "other.py").write_text(OPTICS)
    code, text = optics(SCALING, "--shapecheck-coverage-of=optics,other")
    assert code == pytest.ExitCode.OK, text
    assert "4 contracts defined, 1 exercised, 3 never exercised (25 %)" in text
    assert "never called: other.scale (other.py:5)" in text
    assert "shape not checked: other.bare: x (the function has no contract)" in text


def test_a_package_that_cannot_be_imported_fails_the_session(optics):
    code, text = optics(SCALING, "--shapecheck-coverage-of=optics,nowhere")
    assert code == pytest.ExitCode.TESTS_FAILED
    assert "Contracts of optics, nowhere cannot all be listed: No module named 'nowhere'." in text


@pytest.mark.skipif(find_spec("xdist") is None, reason="pytest-xdist is not installed")
def test_the_recording_is_kept_where_it_is_asked_for_the_same_for_one_process_and_several(optics, tmp_path):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    code, text = optics(SCALING + APART, REPORT, TMPDIR=str(temporary))
    assert code == pytest.ExitCode.OK, text
    assert f"recorded in {tmp_path / 'run.json'}" in text
    alone = (tmp_path / "run.json").read_text()
    boundaries = json.loads(alone)["boundaries"]
    assert {name: (known["calls"], known["rejected"]) for name, known in boundaries.items()} == {
        "optics.idle": (0, 0),
        "optics.scale": (4, 1),
    }
    code, text = optics(SCALING + APART, REPORT, "-n2", "--junitxml=report.xml", TMPDIR=str(temporary))
    assert code == pytest.ExitCode.OK, text
    assert (tmp_path / "run.json").read_text() == alone
    assert not [path.name for path in temporary.iterdir() if path.name.startswith("shapecheck")]
    found = {item.get("name"): item.get("value") for item in ET.parse(tmp_path / "report.xml").iter("property")}
    assert found == {
        "shapecheck_defined": "2",
        "shapecheck_exercised": "1",
        "shapecheck_never_exercised": "1",
        "shapecheck_refused": "0",
        "shapecheck_coincidences": "0",
    }


def test_what_the_hook_refused_is_listed_in_a_recorded_session_too(session):
    _, text = session(TESTS, PACKAGES, REPORT)
    assert "2 contracts defined, 1 exercised, 1 never exercised (50 %)" in text
    assert "  no contract: package.strange: Malformed axis 'n>1'" in text


def test_a_session_without_contracts_has_nothing_to_report_and_imports_nothing_for_it(session):
    tests = "import sys\ndef test_it(): assert not {'torch', 'numpy', 'jaxtyping', 'beartype'} & set(sys.modules)"
    code, text = session(tests, REPORT)
    assert code == pytest.ExitCode.OK, text
    assert "0 contracts defined, 0 exercised, 0 never exercised" in text


def test_a_report_with_checks_off_is_an_error(session):
    code, text = session(TESTS, REPORT, OFF)
    assert code == pytest.ExitCode.USAGE_ERROR
    assert "Expected contracts to report on, but checking is off" in text


def test_the_plugin_is_declared_under_the_name_of_its_module():
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"shapecheck.pytest_plugin": "shapecheck.pytest_plugin"}
    assert json.dumps(sorted(project["entry-points"])) == '["pytest11"]'
