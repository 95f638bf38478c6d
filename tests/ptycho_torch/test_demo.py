"""The demonstration, at its tiny sizes: it runs, writes, beats a flat object and tells the truth about the drift."""

import contextlib
import io
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from ptycho_torch.commands import OVERVIEW_NAME
from ptycho_torch.demo import run_demo
from ptycho_torch.workflow import InferenceResult


class Outcome(NamedTuple):
    folder: Path
    result: InferenceResult
    printed: str


@pytest.fixture(scope="module")
def outcome(tmp_path_factory) -> Outcome:
    folder = tmp_path_factory.mktemp("demo")
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.redirect_stderr(io.StringIO()):
        result = run_demo(folder, fast=True)
    return Outcome(folder, result, printed.getvalue())


def test_the_demonstration_beats_a_flat_object(outcome):
    ours, flat = outcome.result.comparison.reconstruction, outcome.result.comparison.flat
    assert ours.amplitude_mae < 0.7 * flat.amplitude_mae
    assert ours.phase_mae_rad < 0.7 * flat.phase_mae_rad
    assert ours.correlation > flat.correlation


@pytest.mark.parametrize(
    "name",
    ["scan.npz", "model.ptycho", "reconstruction.npz", "metrics.json", "loss.png", "amplitude.png", "phase.png"],
)
def test_the_demonstration_leaves_everything_it_computed(outcome, name):
    assert (outcome.folder / name).stat().st_size > 0


def test_the_overview_is_one_wide_picture(outcome):
    with Image.open(outcome.folder / OVERVIEW_NAME) as picture:
        width, height = picture.size
    assert width > height > 500


def test_the_demonstration_prints_both_errors_beside_those_of_a_flat_object(outcome):
    comparison = outcome.result.comparison
    for row, key in (("amplitude error, mean abs", "amplitude_mae"), ("phase error, mean abs, rad", "phase_mae_rad")):
        line = next(line for line in outcome.printed.splitlines() if row in line)
        printed = [float(number) for number in line.removeprefix(f"  {row}").split()]
        qualities = (comparison.flat, outcome.result.seen.reconstruction, comparison.reconstruction)
        expected = [getattr(quality, key) for quality in qualities]
        assert printed == pytest.approx(expected, rel=1e-3)


def test_the_demonstration_replays_the_drift_with_one_two_and_four_channels(outcome):
    for channels in (1, 2, 4):
        assert f"C = {channels}: the loader emits coords_relative (8, 1, 2, {channels})" in outcome.printed
    assert "no error at all: the merged object is wrong by" in outcome.printed
    assert "RuntimeError: " in outcome.printed


@pytest.mark.violation
def test_the_demonstration_shows_the_error_with_checking_on(outcome):
    assert outcome.printed.count("ContractError [axis-order]") == 3
