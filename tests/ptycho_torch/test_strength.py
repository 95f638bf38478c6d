"""What the contracts of the package do not notice is known, and every hole is either closed or left open with a reason."""

from pathlib import Path

import pytest

pytest.importorskip("torch")

from shapecheck.audit import strengths
from shapecheck.cli import main

pytestmark = pytest.mark.violation  # with checking off there are no contracts to measure

OPEN_HOLES = Path(__file__).with_name("open_holes.toml")


def test_no_hole_of_the_package_is_unexplained(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["strength", "ptycho_torch", "--accept", str(OPEN_HOLES), "--at-least", "95"])
    output = capsys.readouterr()
    assert status == 0, output.out[-2000:] + output.err


def test_every_contract_that_speaks_of_tensors_can_be_measured() -> None:
    reasons = {one.name: one.skipped for one in strengths("ptycho_torch") if one.skipped is not None}
    assert {name: reason for name, reason in reasons.items() if "speaks of a tensor" not in reason} == {}
