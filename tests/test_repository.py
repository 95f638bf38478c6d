"""The repository keeps its promises: the commands it documents, and a suite that notices a missing contract."""

import os
import re
import subprocess
import sys
import tomllib
from configparser import ConfigParser
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
INSTALL = "python -m pip install tox"
DEMO = "python -m tox run -e demo"
TESTS = "python -m tox run -e py311"


def read(name: str) -> str:
    return (REPOSITORY / name).read_text()


def tox_environments() -> ConfigParser:
    parser = ConfigParser(interpolation=None)
    parser.read_string(read("tox.ini"))
    return parser


# --- the commands that are documented ------------------------------------------------------------------


def test_the_readme_has_one_command_for_the_demonstration_and_one_for_the_tests():
    commands = [line for line in read("README.md").splitlines() if line.startswith("python ")]
    assert commands == [f"{INSTALL} && {DEMO}", f"{INSTALL} && {TESTS}"]


def test_continuous_integration_runs_the_test_command_of_the_readme_and_the_other_checks():
    lines = read(".ci/run").splitlines()
    assert lines.index(INSTALL) < lines.index(TESTS)
    assert "set -euo pipefail" in lines
    others = next(line for line in lines if line.startswith("python -m tox run -e off"))
    assert set(others.rpartition(" ")[2].split(",")) == {"off", "py311-numpy", "lint", "typing", "docs"}


def test_continuous_integration_can_be_executed():
    assert os.access(REPOSITORY / ".ci/run", os.X_OK)


def test_every_environment_that_is_named_anywhere_exists():
    named = set(re.findall(r"tox run -e ([\w,]+)", read("README.md") + read(".ci/run")))
    environments = {name for names in named for name in names.split(",")} - {"py311"}
    assert environments <= {section.removeprefix("testenv:") for section in tox_environments().sections()}


def test_the_environment_off_runs_the_same_suite_with_checking_off():
    sections = tox_environments()
    assert "commands" not in sections["testenv:off"]
    assert "SHAPECHECK = off" in sections["testenv:off"]["set_env"]
    assert "SHAPECHECK = on" in sections["testenv"]["set_env"]


def test_the_framework_alone_needs_only_torch_jaxtyping_and_beartype():
    project = tomllib.loads(read("pyproject.toml"))["project"]
    assert [re.match(r"\w+", requirement)[0] for requirement in project["dependencies"]] == [
        "torch",
        "jaxtyping",
        "beartype",
    ]


def test_every_requirement_has_a_tested_version():
    settings = tomllib.loads(read("pyproject.toml"))
    groups = [settings["project"]["dependencies"], *settings["dependency-groups"].values()]
    groups += settings["project"]["optional-dependencies"].values()
    required = {re.match(r"[\w-]+", entry)[0] for group in groups for entry in group if isinstance(entry, str)}
    pinned = {line.partition("==")[0] for line in read("constraints.txt").splitlines() if not line.startswith("#")}
    assert required - {"shapecheck-torch", "tox"} <= pinned


# --- a suite that notices a missing contract --------------------------------------------------------------


def run_without(contract: str, tests: list[str]) -> subprocess.CompletedProcess[str]:
    """Run tests of violations in a fresh interpreter in which one contract is gone."""
    environment = {**os.environ, "STRIP_CONTRACT": contract, "PYTHONPATH": str(REPOSITORY / "tests/plugins")}
    options = ["-p", "strip_contract", "-p", "no:cacheprovider", "-q", "-m", "violation"]
    command = [sys.executable, "-m", "pytest", *options, *tests]
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)


HELPER, DATALOADER = "tests/ptycho_torch/test_helper.py", "tests/ptycho_torch/test_dataloader.py"


@pytest.mark.violation
@pytest.mark.slow
@pytest.mark.parametrize(
    ("contract", "tests"),
    [("translation", HELPER), ("merge", HELPER), ("batch", DATALOADER)],
    ids=lambda value: Path(value).stem,
)
def test_the_suite_fails_when_a_contract_is_removed(contract, tests):
    done = run_without(contract, [tests])
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
    failures = re.findall(r"^E +(Failed: DID NOT RAISE|[\w.]+Error: )", done.stdout, re.MULTILINE)
    assert failures  # nothing was refused, or not before torch stumbled over it
    assert not [failure for failure in failures if "ContractError" in failure]


@pytest.mark.violation
@pytest.mark.slow
def test_the_same_tests_pass_when_no_contract_is_removed():
    done = run_without("nothing", [HELPER, DATALOADER])
    assert done.returncode == pytest.ExitCode.OK, done.stdout
