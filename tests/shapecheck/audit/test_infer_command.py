"""The command `infer`: what is run, what is recorded of it, where the proposal goes."""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import shapecheck
from shapecheck._watching.calls import load_runs
from shapecheck.audit._inference.command import infer_from_command, watched

PYTHON = sys.executable

PACKAGE = """
def rows(x):
    return x[:, 0]


def unused(x): ...
"""
SCRIPT = """
import sys
import numpy as np
from infer_here.rows import rows


def own(x):
    return rows(x)


if __name__ == "__main__":
    print("printed", sys.argv[1:], sys.modules["__main__"].own is own)
    for size in map(int, sys.argv[1]):
        own(np.zeros((size, size + 1)))
    print({"torch", "jaxtyping", "beartype"} & sys.modules.keys())
    sys.exit(int(sys.argv[2]))
"""
TESTS = """
import numpy as np
import pytest
from infer_here.rows import rows


@pytest.mark.parametrize("size", [3, 5])
def test_rows(size):
    assert rows(np.zeros((size, size + 1))).shape == (size,)
"""
FORKS = """
import multiprocessing
import numpy as np
from infer_here.rows import rows

if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(1) as pool:
        pool.map(rows, [np.zeros((3, 4)), np.zeros((5, 6))])
        pool.close()
        pool.join()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "infer_here").mkdir()
    (tmp_path / "infer_here" / "__init__.py").touch()
    files = {"infer_here/rows.py": PACKAGE, "script.py": SCRIPT, "test_rows.py": TESTS, "forks.py": FORKS}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "infer_here" / "__main__.py").write_text(SCRIPT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(shapecheck.__file__).parents[1]), str(tmp_path)]))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    for name in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS", "PYTHONSAFEPATH"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def infer(*command: str, packages: str = "infer_here", record: str | None = None, output: str | None = None) -> int:
    return infer_from_command(command, [packages] if packages else [], record, [], output)


ROWS = '+def rows(x: Float64[np.ndarray, "B C"]) -> Float64[np.ndarray, " B"]:\n'
OWN = '+def own(x: Float64[np.ndarray, "B C"]) -> Float64[np.ndarray, " B"]:\n'


@pytest.mark.parametrize(
    "start",
    [["script.py"], ["-W", "ignore", "-Xutf8", "script.py"], ["-m", "infer_here"]],
    ids=["script", "options", "-m"],
)
def test_a_program_runs_as_ever_and_its_functions_are_proposed(
    folder: Path, capfd: pytest.CaptureFixture[str], start: list[str]
) -> None:
    assert infer(PYTHON, *start, "35", "0") == 0
    out, err = capfd.readouterr()
    assert err == "printed ['35', '0'] True\nset()\n", "nothing of ours is imported that the program would miss"
    assert ROWS in out
    assert OWN in out
    assert out.startswith("# 2 functions of 3 get annotations, from 4 calls in 1 run.\n")
    assert "# Never called: infer_here.rows.unused.\n" in out
    if shutil.which("git"):
        done = subprocess.run(["git", "apply", "-"], input=out.encode(), cwd=folder, check=False)
        assert done.returncode == 0


def test_a_program_given_as_text_runs(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = "import numpy, sys; from infer_here.rows import rows; rows(numpy.zeros((3, 4))); print(sys.argv)"
    assert infer(PYTHON, "-c", text, "a") == 0
    out, err = capfd.readouterr()
    assert err == "['-c', 'a']\n"
    assert ROWS in out


@pytest.mark.parametrize("start", [[PYTHON, "-m", "pytest"], [str(Path(PYTHON).parent / "pytest"), "-n2"]])
def test_pytest_is_watched_also_in_the_workers_of_xdist(
    folder: Path, capfd: pytest.CaptureFixture[str], start: list[str]
) -> None:
    if importlib.util.find_spec("xdist") is None:
        pytest.skip("pytest-xdist is not installed")
    installed = folder / "shapecheck_torch-0.dist-info"  # where it is, pytest wants to rewrite the asserts of plugins
    installed.mkdir()
    (installed / "METADATA").write_text("Name: shapecheck-torch\nVersion: 0\n")
    (installed / "RECORD").write_text("shapecheck/__init__.py,,\n")
    (installed / "entry_points.txt").write_text("[pytest11]\nshapecheck.pytest_plugin = shapecheck.pytest_plugin\n")
    quiet = ["-q", "-W", "error"]
    assert infer(*start, *quiet, "-p", "no:cacheprovider", "test_rows.py") == 0
    out, err = capfd.readouterr()
    assert "2 passed" in err
    assert ROWS in out
    assert "from 2 calls in 1 run" in out


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is forked here")
def test_processes_that_are_forked_are_watched(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert infer(PYTHON, "forks.py") == 0
    assert "from 2 calls in 1 run" in capfd.readouterr().out


def test_runs_add_up_in_a_file_and_are_proposed_from_together(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert infer(PYTHON, "script.py", "3", "0", record="calls.json") == 0
    assert infer(PYTHON, "script.py", "57", "0", record="calls.json") == 0
    out, err = capfd.readouterr()
    assert out == ""
    assert "shapecheck infer: 2 calls of 3 functions seen; 1 run in calls.json.\n" in err
    assert "shapecheck infer: 4 calls of 3 functions seen; 2 runs in calls.json.\n" in err
    assert [run.count for run in load_runs(Path("calls.json"))] == [2, 4]
    assert infer_from_command([], [], None, ["calls.json"], "rows.patch") == 0
    assert capfd.readouterr().out == (
        "2 functions of 3 get annotations, from 6 calls in 2 runs.\nRead rows.patch, then: git apply rows.patch\n"
    )
    assert ROWS in Path("rows.patch").read_text()


def test_a_program_that_fails_shows_what_it_did_until_then(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert infer(PYTHON, "script.py", "35", "3") == 1
    out, err = capfd.readouterr()
    assert "shapecheck infer: The command ended with status 3; what was seen until then is used.\n" in err
    assert ROWS in out


Ask = Callable[[], int]


@pytest.mark.parametrize(
    ("ask", "status", "message"),
    [
        (lambda: infer(PYTHON, "-c", "pass"), 1, "Expected the command to run a module of infer_here, got none"),
        (lambda: infer("true", packages=""), 1, "Expected the command to run a script or a module that is named"),
        (lambda: infer("no-such-command"), 2, "No such file or directory: 'no-such-command'"),
        (lambda: infer(), 2, "Expected a command behind --, such as python script.py"),
        (lambda: infer(record="x.json"), 2, "Expected a command behind --, "),
        (lambda: infer_from_command([], [], None, ["none.json"], None), 2, "No such file or directory: 'none.json'"),
        (lambda: infer_from_command([], [], None, ["script.py"], None), 2, "Expected script.py to be a recording"),
    ],
    ids=["other module", "no Python", "no command", "nothing", "nothing to record", "no file", "no recording"],
)
def test_what_makes_no_sense_is_refused_in_words(
    folder: Path, capfd: pytest.CaptureFixture[str], ask: Ask, status: int, message: str
) -> None:
    assert ask() == status
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("shapecheck infer: ")
    assert message in err


@pytest.mark.parametrize(
    ("command", "ours"),
    [
        ("python a.py -m b", "python -m shapecheck._watching.program a.py -m b"),
        ("/usr/bin/python3.11 -u -X dev -m a", "/usr/bin/python3.11 -u -X dev -m shapecheck._watching.program -m a"),
        ("python -c x", "python -m shapecheck._watching.program -c x"),
        ("python -i", "python -i"),
        ("python -", "python -"),
        ("pytest -k a", "pytest -k a"),
        ("make test", "make test"),
    ],
)
def test_our_module_goes_between_python_and_what_it_runs(command: str, ours: str) -> None:
    assert watched(command.split()) == ours.split()


def test_the_command_line_takes_what_stands_behind_two_dashes(folder: Path) -> None:
    done = subprocess.run(
        [PYTHON, "-m", "shapecheck", "infer", "--packages", "infer_here", "--", PYTHON, "script.py", "35", "0"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert ROWS in done.stdout
    assert done.stderr == "printed ['35', '0'] True\nset()\n"
