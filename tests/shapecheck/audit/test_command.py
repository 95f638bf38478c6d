"""What the commands on packages have in common, run as users run them."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import shapecheck
from shapecheck.audit import Recording
from shapecheck.cli import main

pytest.importorskip("torch")  # `verify` and `report` need it

SOURCE = """
from jaxtyping import Float32
from {library} import {array}
from shapecheck import contract

@contract
def flipped(x: Float32[{array}, "h w"]) -> Float32[{array}, "w h"]:
    return x.T

def bare(x: Float32[{array}, "h w"]) -> Float32[{array}, "w h"]:
    return x.T
"""
MODULES = {
    "tensors_here": SOURCE.format(library="torch", array="Tensor"),
    "arrays_here": SOURCE.format(library="numpy", array="ndarray"),  # which is faster to import
}
SCRIPT = "from shapecheck.cli import main\nraise SystemExit(main())\n"  # what an installer makes of the entry point

COMMANDS = {
    "verify": ["verify", "tensors_here"],
    "report": ["report", "arrays_here"],
    "coverage": ["coverage", "run.json", "--package", "arrays_here"],
    "strength": ["strength", "arrays_here"],
}
SAYS = {
    "verify": "tensors_here.flipped(x=f32[11,13])",
    "report": "arrays_here: 1 boundary",
    "coverage": "1 contract defined, 0 exercised",
    "strength": "arrays_here.flipped",
}

Start = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a package and a recording in it, and the command elsewhere."""
    for name in ("here", "bin"):
        (tmp_path / name).mkdir()
    (tmp_path / "bin" / "shapecheck").write_text(SCRIPT)
    for name, source in MODULES.items():
        (tmp_path / "here" / f"{name}.py").write_text(source)
    Recording().save(tmp_path / "here" / "run.json")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def start(folder: Path) -> Start:
    """Start the command in a process of its own."""
    known = {"SHAPECHECK", "JAXTYPING_DISABLE", "PYTHONSAFEPATH"}
    variables = {name: value for name, value in os.environ.items() if name not in known}

    def run(arguments: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        environment = {**variables, "PYTHONPATH": str(Path(shapecheck.__file__).parents[1]), **options.pop("env", {})}
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        command = [sys.executable, str(folder.parent / "bin" / "shapecheck"), *arguments]
        return subprocess.run(command, cwd=folder, env=environment, text=True, check=False, **streams)

    return run


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_finds_a_package_in_the_current_folder(start: Start, command: str) -> None:
    done = start(COMMANDS[command])
    assert done.stderr == ""
    assert SAYS[command] in done.stdout
    assert done.returncode == 0


def test_no_command_looks_into_the_current_folder_where_python_was_told_not_to(start: Start) -> None:
    done = start(COMMANDS["strength"], env={"PYTHONSAFEPATH": "1"})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "shapecheck strength: No module named 'arrays_here'\n"


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.usefixtures("folder")
def test_with_checking_off_every_command_says_that_there_are_no_contracts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("SHAPECHECK", "off")
    assert main(COMMANDS[command]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"shapecheck {command}: checking is off (SHAPECHECK=off or JAXTYPING_DISABLE=1)")
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_that_cannot_be_written_is_said_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("SHAPECHECK", "on")
    before = [*sys.path]
    assert main([*COMMANDS[command], "--hook", "--json", "no/folder/found.json"]) == 2
    assert capsys.readouterr().err == (
        f"shapecheck {command}: [Errno 2] No such file or directory: 'no/folder/found.json'\n"
    )
    assert sys.path == before
    for name in MODULES:
        sys.modules.pop(name, None)


def test_what_was_recorded_is_read_with_checking_off(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHAPECHECK", "off")
    assert main(["coverage", str(folder / "run.json")]) == 0
    assert capsys.readouterr().out.startswith("0 contracts defined")


@pytest.fixture
def terminal() -> Iterator[tuple[int, Callable[[], str]]]:
    """The end of a terminal to write to, and what tells what was written."""
    pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))  # one without columns shows no bar
    os.set_blocking(ours, False)

    def written() -> str:
        try:
            return os.read(ours, 2**16).decode()
        except BlockingIOError:
            return ""

    yield theirs, written
    os.close(ours)
    os.close(theirs)


Terminal = tuple[int, Callable[[], str]]


def test_a_bar_is_drawn_on_a_terminal_and_taken_away_at_the_end(start: Start, terminal: Terminal) -> None:
    pytest.importorskip("tqdm")
    done = start(COMMANDS["verify"], stderr=terminal[0])
    drawn = terminal[1]()
    assert (done.returncode, SAYS["verify"] in done.stdout) == (0, True)
    assert "Verifying:" in drawn
    assert "0/1" in drawn
    assert "1/1" in drawn
    assert drawn.endswith(" \r")


def test_without_tqdm_there_is_no_bar(start: Start, folder: Path, terminal: Terminal) -> None:
    (folder.parent / "bin" / "shapecheck").write_text(f"import sys\nsys.modules['tqdm'] = None\n{SCRIPT}")
    done = start(COMMANDS["verify"], stderr=terminal[0])
    assert (done.returncode, SAYS["verify"] in done.stdout) == (0, True)
    assert terminal[1]() == ""
