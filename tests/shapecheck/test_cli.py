"""The command line: ``python -m shapecheck run``."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import shapecheck

SCRIPT = """
import sys
import numpy as np
from jaxtyping import Float32
from package import used
def own(x: Float32[np.ndarray, "n 2"]): return x
def strange(x: Float32[np.ndarray, "n>1"]): return x
if __name__ == "__main__":
    print(sys.argv[1:], sys.modules["__main__"].own is own)
    globals()[sys.argv[1]](np.zeros(tuple(map(int, sys.argv[2])), np.float32))
"""
PACKAGE = """
import numpy as np
from jaxtyping import Float32
def used(x: Float32[np.ndarray, "n 2"]): return x
"""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "script.py").write_text(SCRIPT)
    (tmp_path / "scripts" / "package").mkdir()
    (tmp_path / "scripts" / "package" / "__init__.py").write_text(PACKAGE)
    (tmp_path / "scripts" / "package" / "__main__.py").write_text(SCRIPT.replace("from package", "from ."))

    def run_command(*arguments: str, folder: str = ".", **environment: str) -> subprocess.CompletedProcess[str]:
        known = {"SHAPECHECK", "JAXTYPING_DISABLE", "PYTHONSAFEPATH"}
        variables = {name: value for name, value in os.environ.items() if name not in known}
        return subprocess.run(
            [sys.executable, "-m", "shapecheck", *arguments],
            cwd=tmp_path / folder,
            env={**variables, "PYTHONPATH": str(Path(shapecheck.__file__).parents[1]), **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    return run_command


def test_a_script_runs_with_its_arguments_and_its_own_functions_under_contract(run: Run) -> None:
    good = run("run", "scripts/script.py", "own", "32")
    assert (good.returncode, good.stdout) == (0, "['own', '32'] True\n")
    assert "shapecheck: 1 contracted, 1 refused, 0 left alone, 0 with nothing to check" in good.stderr
    assert "shapecheck: --report lists what is not under contract" in good.stderr
    bad = run("run", "scripts/script.py", "own", "35")
    assert bad.returncode == 1
    assert "ContractError [axis-size]: __main__.own, parameter 'x'" in bad.stderr
    assert 'File "scripts/script.py", line 10' in bad.stderr


def test_packages_are_under_contract_only_when_they_are_named(run: Run) -> None:
    assert run("run", "scripts/script.py", "used", "35").returncode == 0
    bad = run("run", "--packages", "package", "scripts/script.py", "used", "35")
    assert "ContractError [axis-size]: package.used, parameter 'x'" in bad.stderr
    assert run("run", "--packages=package", "scripts/script.py", "used", "32").returncode == 0


def test_a_module_runs_as_python_m_would_run_it(run: Run) -> None:
    assert run("run", "-m", "package", "used", "32", folder="scripts").stdout == "['used', '32'] True\n"
    bad = run("run", "-m", "package", "own", "35", folder="scripts")
    assert "ContractError [axis-size]: __main__.own" in bad.stderr
    assert "ContractError" in run("run", "-m", "package", "used", "35", folder="scripts").stderr


def test_off_runs_the_script_as_it_is(run: Run) -> None:
    for done in (
        run("run", "--mode", "off", "scripts/script.py", "own", "35"),
        run("run", "scripts/script.py", "own", "35", SHAPECHECK="off"),
    ):
        assert (done.returncode, done.stderr) == (0, "")


def test_the_report_lists_what_is_not_under_contract(run: Run) -> None:
    done = run("run", "--report", "scripts/script.py", "own", "32")
    assert "  __main__.strange (line 7): refused: Malformed axis 'n>1'" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "none.py"], "No such file or directory: 'none.py'"),
        (["run", "--packages", "none", "scripts/script.py"], "Expected 'none' to be a package or module"),
        (["run", "-m", "none"], "Expected 'none' to be a package or module"),
        (["run", "--mode", "loud", "scripts/script.py"], "invalid choice: 'loud'"),
        ([], "the following arguments are required: COMMAND"),
    ],
    ids=["script", "package", "module", "mode", "nothing"],
)
def test_what_makes_no_sense_is_an_error_with_exit_code_2(run: Run, arguments: list[str], message: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_help_names_every_option(run: Run) -> None:
    text = run("run", "--help").stdout
    assert all(option in text for option in ("--packages", "--mode", "--report", "-m", "SCRIPT"))
