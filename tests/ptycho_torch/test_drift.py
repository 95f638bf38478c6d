"""The replayed bug: what the demonstration says is what happens."""

import dataclasses

import numpy as np
import pytest
from jaxtyping import Float32
from torch import Tensor
from torch.utils.data import DataLoader

from ptycho_torch.contracts import BatchFields
from ptycho_torch.dataloader import PtychoGroupDataset, as_it_is
from ptycho_torch.drift import ChannelLastDataset, Replay, _merge, _stage, describe, replay
from ptycho_torch.scan import Scan
from ptycho_torch.simulate import simulate_natural_scan
from shapecheck import ContractError, mode
from shapecheck.data import BatchContract


@pytest.fixture(scope="module")
def scan() -> Scan:
    return simulate_natural_scan(patch_size=16, n_rows=6, n_columns=7, step=3.0, jitter=1.0)


@pytest.mark.violation
@pytest.mark.parametrize("channels", [1, 2, 4])
def test_with_checking_on_the_loader_is_stopped_and_the_field_is_named(scan, channels):
    outcome = replay(scan, channels)
    assert outcome.offsets_shape == (8, 1, 2, channels)
    assert outcome.refusal.startswith("ContractError [axis-order]")
    assert "batch[0]['coords_relative']" in outcome.refusal.splitlines()[0]
    assert "permute(0, 3, 1, 2)" in outcome.refusal


class LegacyFields(BatchFields):
    """What the loader was believed to hand out when its contract was written after the file."""

    coords_relative: Float32[Tensor, "B 1 2 C"]


def load(dataset, stage, fields):
    """The first batch of a loader whose contract has these fields."""
    loader = DataLoader(dataset(stage.container), batch_size=8, collate_fn=as_it_is)
    return next(iter(BatchContract(tuple[fields, Tensor, Tensor]).loader(loader)))


@pytest.mark.violation
@pytest.mark.parametrize("channels", [1, 2, 4])
def test_in_strict_mode_the_physics_names_the_loader_that_the_offsets_came_from(scan, channels):
    stage = _stage(scan, channels, seed=0)
    with mode("strict"):
        batch = load(ChannelLastDataset, stage, LegacyFields)
        with pytest.raises(ContractError, match="axis-order") as caught:
            _merge(batch, stage)
    (violation,) = caught.value.violations
    assert violation.boundary == "ptycho_torch.helper.reassemble_patches_position_real"
    assert violation.parameter == "offsets"
    assert violation.came_from.parameter == "batch[0]['coords_relative']"
    assert violation.came_from.got == f"f32[8,1,2,{channels}]"
    assert "offsets.permute(0, 3, 1, 2)" in violation.hint.code


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_in_strict_mode_the_physics_takes_what_the_right_loader_hands_out(scan, channels):
    stage = _stage(scan, channels, seed=0)
    with mode("strict"):
        assert _merge(load(PtychoGroupDataset, stage, BatchFields), stage).shape[0] == 8


@pytest.mark.parametrize("channels", [1, 4])
def test_with_checking_off_it_dies_inside_the_physics(scan, channels):
    outcome = replay(scan, channels)
    assert outcome.crash.startswith("RuntimeError: ")
    assert "reassemble_patches_position_real -> " in outcome.crash
    assert outcome.crash.endswith("_moved")
    assert outcome.merge_error is None


def test_with_checking_off_two_channels_merge_wrongly_in_silence(scan):
    outcome = replay(scan, 2)
    assert outcome.crash is None
    assert outcome.merge_error > 0.05


def test_the_merge_error_is_that_of_the_drift_and_not_of_the_replay(scan, monkeypatch):
    monkeypatch.setattr(
        "ptycho_torch.drift.ChannelLastDataset.coords_relative",
        lambda self, chosen: self.container.coords_relative[chosen],
    )
    assert replay(scan, 2).merge_error == 0


def test_the_right_merge_of_the_replay_shows_the_true_object(scan):
    from ptycho_torch.drift import _loader  # with `_merge` and `_stage` what the figure rests on

    stage = _stage(scan, 2, seed=0)
    batch = next(iter(_loader(PtychoGroupDataset(stage.container))))
    merged = _merge(batch, stage).numpy()
    column, row = np.rint(stage.container.coords_center[0, 0, 0].numpy()).astype(int)
    truth = scan.object_truth[row - 2 : row + 3, column - 2 : column + 3]
    middle = stage.canvas_size // 2
    ours = merged[0, middle - 2 : middle + 3, middle - 2 : middle + 3]
    overlap = np.abs(np.vdot(ours, truth)) / (np.linalg.norm(ours) * np.linalg.norm(truth))
    assert overlap > 0.98


def test_description_of_a_process_without_checks_says_so():
    text = describe(Replay(4, (8, 1, 2, 4), None, "RuntimeError: sizes\nraised 3 calls after the loader: a -> b", None))
    assert "SHAPECHECK=off in this process" in text
    assert "RuntimeError: sizes" in text


def test_description_of_a_silent_merge_gives_its_size():
    assert "wrong by 25.0% of its norm" in describe(Replay(2, (8, 1, 2, 2), "ContractError", None, 0.25))


def test_a_scan_that_does_not_know_its_object_cannot_be_replayed(scan):
    with pytest.raises(ValueError, match="without object_truth"):
        replay(dataclasses.replace(scan, object_truth=None), 2)
