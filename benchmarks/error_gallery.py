"""Runs every program of ``docs/errors.md`` and writes what it really prints below it.

The page is its own source: prose and programs are written there by hand, everything between ``text`` fences by this
script. Blocks marked ``python`` run one after the other in this process and share their names; what they raise counts
as printed. Blocks marked ``py`` are whole programs, each run as a user would, in a folder and a process of its own;
one that begins with ``# torchrun`` runs once for each of two ranks.
"""

import contextlib
import io
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import shapecheck

ROOT = Path(shapecheck.__file__).parents[1]
PAGE = Path(__file__).parents[1] / "docs/errors.md"
BLOCK = re.compile(r"^```(python|py)\n(.*?)^```\n(?:\n```text\n.*?^```\n)?", re.DOTALL | re.MULTILINE)
AT_ONCE = 2  # programs; most of their time goes into imports
TIMEOUT = 300  # seconds, of a program
RANKS = 2


def refreshed(text: str) -> str:
    """Return a page with what its blocks print now."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        programs = iter([pool.submit(run_program, code) for kind, code in BLOCK.findall(text) if kind == "py"])
        names: dict[str, Any] = {"__name__": "__main__"}

        def block(found: re.Match[str]) -> str:
            kind, code = found.groups()
            printed = next(programs).result() if kind == "py" else run_here(code, names)
            return f"```{kind}\n{code}```\n" + (f"\n```text\n{printed}```\n" if printed else "")

        return BLOCK.sub(block, text)


def run_here(code: str, names: dict[str, Any]) -> str:
    """Run a block as a file ``example.py`` would."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        try:
            exec(compile(code, "example.py", "exec"), names)  # noqa: S102  # the page is our own
        except (shapecheck.ContractError, shapecheck.ContractDefinitionError) as error:
            kind = "" if isinstance(error, shapecheck.ContractError) else f"{type(error).__name__}: "
            print(f"{kind}{error}")
    return printed.getvalue()


def run_program(code: str) -> str:
    """Run a block as ``example.py``, and return what it prints and what Python prints for it."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "example.py").write_text(code)
        ranks = ranks_of(code)
        running = [
            subprocess.Popen(
                [sys.executable, "example.py"],
                cwd=folder,
                env=environment(rank),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank in ranks
        ]
        printed = "".join(program.communicate(timeout=TIMEOUT)[0] for program in running)
    return re.sub(r"[^\s\"]*\bexample\.py", "example.py", printed)


def ranks_of(code: str) -> list[dict[str, str]]:
    """Return what torchrun would add to the environment of each process; nothing for an ordinary program."""
    if not code.startswith("# torchrun"):
        return [{}]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        common = {"WORLD_SIZE": f"{RANKS}", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{free.getsockname()[1]}"}
    return [{**common, "RANK": f"{rank}", "LOCAL_RANK": f"{rank}"} for rank in range(RANKS)]


def environment(additions: dict[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SHAPECHECK", "PYTEST"))}
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **additions}


def outputs(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield the kind, the code and the output of every block of a page."""
    for found in BLOCK.finditer(text):
        kind, code = found.groups()
        yield kind, code, found[0].partition("```text\n")[2].removesuffix("```\n")


if __name__ == "__main__":
    if not shapecheck.enabled():
        sys.exit("Checking is off: there is nothing to show.")
    PAGE.write_text(refreshed(PAGE.read_text()))
