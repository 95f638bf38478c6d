"""The command `infer`: a program of Python or pytest, run as it is, except that the calls of packages are recorded."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..._watching.calls import Run, load_runs, save_runs
from ..._watching.watch import FOLDER, PACKAGES
from .._command import FOUND, command
from .infer import Inference, infer
from .remarks import counted

_MODULE = "shapecheck._watching.program"
_PYTHON = re.compile(r"python[\d.]*(\.exe)?|pypy[\d.]*(\.exe)?")
_WITH_VALUE = {"-W", "-X", "--check-hash-based-pycs"}


def record_command(program: Sequence[str], packages: Sequence[str]) -> tuple[Run, int]:
    """Run a command and record the calls of packages in it.

    Python is started with a module of ours in front of the script, and pytest, wherever in the command it is started,
    with a plugin. What the command prints goes to stderr.

    Args:
        program: The command and its arguments.
        packages: Names of packages or modules; a script is watched besides.

    Returns:
        What was seen in all its processes, and its exit status.

    Raises:
        OSError: The command cannot be started.
    """
    with tempfile.TemporaryDirectory(prefix="shapecheck-") as folder:
        plugins = ",".join(filter(None, [os.environ.get("PYTEST_PLUGINS"), _MODULE]))
        environment = {**os.environ, FOLDER: folder, PACKAGES: ",".join(packages), "PYTEST_PLUGINS": plugins}
        done = subprocess.run(watched(program), env=environment, stdout=sys.__stderr__, check=False)
        run = Run()
        for file in sorted(Path(folder).glob("*.json")):
            for part in load_runs(file):
                run.add(part)
        return run, done.returncode


def watched(program: Sequence[str]) -> list[str]:
    """Return a command with our module between Python and what it runs; any other as it is."""
    if not _PYTHON.fullmatch(Path(program[0]).name):
        return [*program]
    place = 1
    while place < len(program) and program[place].startswith("-") and program[place] not in {"-m", "-c", "-"}:
        place += 2 if program[place] in _WITH_VALUE else 1
    reads_stdin = place >= len(program) or program[place] == "-"
    return [*program] if reads_stdin else [*program[:place], "-m", _MODULE, *program[place:]]


@command("infer")
def infer_from_command(
    program: Sequence[str], packages: Sequence[str], record: str | None, recordings: Sequence[str], output: str | None
) -> int:
    """Run a command, if there is one, and propose annotations, or keep what was seen for later.

    Args:
        program: The command and its arguments.
        packages: What to watch.
        record: File to add what was seen to, in place of a proposal.
        recordings: Files with what was seen before.
        output: File for the proposal, which is printed otherwise.

    Returns:
        The exit status: 1 if the command failed or showed nothing, 2 if what was asked for makes no sense.
    """
    if not program and not recordings:
        msg = "Expected a command behind --, such as python script.py, or --from and recordings, got neither."
        raise ValueError(msg)
    if record and not program:
        msg = "Expected a command behind --, whose calls --record keeps, got none."
        raise ValueError(msg)
    runs = [run for file in recordings for run in load_runs(Path(file))]
    kept = load_runs(Path(record)) if record and Path(record).exists() else []
    status = 0
    if program:
        run, status = record_command(program, packages)
        runs.append(run)
        if not run.calls:
            _say(_nothing(packages))
            return FOUND
        if status:
            _say(f"The command ended with status {status}; what was seen until then is used.")
    if record:
        save_runs([*kept, *runs], Path(record))
        _say(f"{_seen(runs)}; {counted(len(kept) + len(runs), 'run')} in {record}.")
    else:
        _write(infer(*runs), output)
    return min(status, 1)


def _seen(runs: Sequence[Run]) -> str:
    calls, functions = sum(run.count for run in runs), {function for run in runs for function in run.calls}
    return f"{counted(calls, 'call')} of {counted(len(functions), 'function')} seen"


def _nothing(packages: Sequence[str]) -> str:
    which = f"a module of {', '.join(packages)}" if packages else "a script or a module that is named"
    return (
        f"Expected the command to run {which}, got none: name the packages with --packages, "
        "and start Python or pytest in the command itself (python script.py, python -m module, pytest tests)."
    )


def _write(inference: Inference, output: str | None) -> None:
    if output is None:
        sys.stdout.write(str(inference))
        return
    Path(output).write_text(str(inference), encoding="utf-8")
    sys.stdout.write(f"{inference.summary}\nRead {output}, then: git apply {output}\n")


def _say(text: str) -> None:
    sys.stderr.write(f"shapecheck infer: {text}\n")
