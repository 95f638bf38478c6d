"""What importing the package does and does not do."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import shapecheck
from shapecheck import audit

PROBE = "import sys; {}; print('torch' in sys.modules)"


def run(code: str, *flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, *flags, "-c", code], capture_output=True, text=True, check=False, env=variables
    )


def test_importing_shapecheck_does_not_import_torch() -> None:
    assert run(PROBE.format("import shapecheck")).stdout == "False\n"


def test_importing_the_laboratory_imports_no_tool() -> None:
    code = "import sys, shapecheck.audit; print(sorted(name for name in sys.modules if name.startswith({})))"
    assert run(code.format("'shapecheck.audit.'")).stdout == "[]\n"
    assert run(code.format("('torch', 'numpy', 'jaxtyping', 'beartype')")).stdout == "[]\n"


def test_every_name_of_the_laboratory_is_had_from_its_module() -> None:
    pytest.importorskip("torch")
    assert {*audit.__all__} == {*audit._MODULES} <= {*dir(audit)}  # noqa: SLF001
    for name in audit.__all__:
        assert getattr(audit, name).__name__ == name
    assert vars(audit)["strength"] is audit.strength  # found without asking again
    with pytest.raises(AttributeError, match=r"module 'shapecheck\.audit' has no attribute 'strenght'"):
        audit.strenght  # noqa: B018


def test_the_probe_for_torch_can_fail() -> None:
    assert run(PROBE.format("import torch")).stdout == "True\n"


def test_the_public_names_are_those_documented() -> None:
    assert set(shapecheck.__all__) >= {"contract", "check", "ContractError", "Violation", "mode", "enabled", "Axes"}
    assert all(getattr(shapecheck, name).__module__.startswith("shapecheck") for name in shapecheck.__all__)


@pytest.fixture
def copy_of_package(tmp_path: Path) -> Path:
    shutil.copytree(
        Path(shapecheck.__file__).parent, tmp_path / "shapecheck", ignore=shutil.ignore_patterns("__pycache__")
    )
    return tmp_path


def test_files_of_the_other_shapecheck_distribution_are_detected(copy_of_package: Path) -> None:
    copied = run("import shapecheck; print(shapecheck.__file__)", "-P", PYTHONPATH=str(copy_of_package))
    assert copied.stdout.startswith(str(copy_of_package))
    (copy_of_package / "shapecheck" / "_main.py").touch()  # a module that only the 2021 distribution has
    result = run("import shapecheck", "-P", PYTHONPATH=str(copy_of_package))
    assert "pip uninstall shapecheck" in result.stderr
