"""The IPython magic, in a shell of its own."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import shapecheck

pytestmark = pytest.mark.skipif(find_spec("IPython") is None, reason="IPython is not installed")

SHELL = """
import sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell()
for cell in sys.stdin.read().split("---\\n"):
    result = shell.run_cell(cell, store_history=True)
    if result.error_in_exec is not None:
        print("ERROR", str(result.error_in_exec).splitlines()[0])
    elif result.result is not None:
        print("RESULT", result.result)
"""
IMPORTS = "import numpy as np\nfrom jaxtyping import Float32\nWRONG = np.zeros((3, 5), np.float32)\n"
CELL = 'def f(x: Float32[np.ndarray, "n 2"]): return x\nf(WRONG).shape\n'


def run(tmp_path: Path, *cells: str, **environment: str) -> list[str]:
    (tmp_path / "package.py").write_text(IMPORTS + CELL.splitlines()[0])
    variables = {name: value for name, value in os.environ.items() if name not in {"SHAPECHECK", "JAXTYPING_DISABLE"}}
    path = os.pathsep.join([str(tmp_path), str(Path(shapecheck.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", SHELL],
        input="---\n".join(cells),
        env={**variables, "PYTHONPATH": path, "IPYTHONDIR": str(tmp_path), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return [line for line in done.stdout.splitlines() if not line.startswith(("Out[", "\x1b"))]


def test_cells_are_under_contract_after_the_magic_and_not_before(tmp_path):
    lines = run(tmp_path, "%load_ext shapecheck", IMPORTS, CELL, "%shapecheck on", CELL, "%shapecheck off", CELL)
    found = [line for line in lines if line.startswith(("ERROR", "RESULT"))]
    assert found[0] == found[2] == "RESULT (3, 5)"
    assert found[1].startswith("ERROR ContractError [axis-size]: __main__.f, parameter 'x'")
    assert len(found) == 3


def test_the_last_expression_of_a_cell_is_still_shown(tmp_path):
    lines = run(tmp_path, "%load_ext shapecheck", "%shapecheck strict", IMPORTS, CELL.replace("WRONG", "WRONG[:, :2]"))
    assert lines[-1] == "RESULT (3, 2)"


def test_packages_can_be_named(tmp_path):
    lines = run(tmp_path, "%load_ext shapecheck\n%shapecheck on package", "import package\npackage.f(package.WRONG)")
    assert lines[-1].startswith("ERROR ContractError [axis-size]: package.f")


def test_the_report_and_the_usage_are_printed(tmp_path):
    cell = CELL.splitlines()[0].replace("n 2", "n>1")
    text = "\n".join(
        run(tmp_path, "%load_ext shapecheck", "%shapecheck", IMPORTS, "%shapecheck on", cell, "%shapecheck report")
    )
    assert "Usage: %shapecheck [off | on | strict | warn] [package ...], or %shapecheck report" in text
    assert "Cells: as they are" in text
    assert "0 contracted, 1 refused" in text
    assert "__main__.f (line 1): refused: Malformed axis 'n>1'" in text
