"""The historical bug, stopped by each of the places that hold batches to their one contract."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

import shapecheck
from ptycho_torch import workflow
from ptycho_torch.config_factory import TrainingPayload, create_training_payload
from ptycho_torch.dataloader import PtychoDataContainerTorch, PtychoGroupDataset
from ptycho_torch.grouping import group_positions
from ptycho_torch.learner import PtychoLearner
from ptycho_torch.model import PtychoModel, normalise_probe
from ptycho_torch.scan import load_scan, save_scan
from ptycho_torch.simulate import simulate_natural_scan
from ptycho_torch.workflow import _build_lightning_dataloaders
from shapecheck.lightning import ContractCallback

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")


class ChannelLast(PtychoGroupDataset):
    """Offsets leave the loader in the layout of the file, (B, 1, 2, C)."""

    def coords_relative(self, chosen: torch.Tensor) -> torch.Tensor:
        return super().coords_relative(chosen).permute(0, 2, 3, 1)


@pytest.fixture(scope="module", params=[1, 2], ids=["gridsize1", "gridsize2"])
def prepared(request: Any, tmp_path_factory: Any) -> tuple[TrainingPayload, PtychoDataContainerTorch]:
    folder: Path = tmp_path_factory.mktemp("run")
    sizes = {"patch_size": 32, "n_rows": 9, "n_columns": 7, "step": 3.5, "jitter": 1.0}
    save_scan(simulate_natural_scan(**sizes, nphotons=1e5, seed=3), folder / "scan.npz")
    settings = {"gridsize": request.param, "n_groups": 9, "batch_size": 3, "max_epochs": 1, "accelerator": "cpu"}
    payload = create_training_payload(folder / "scan.npz", folder, settings)
    scan, data = load_scan(payload.train_data_file), payload.data
    groups = group_positions(scan.xcoords, scan.ycoords, data.gridsize, data.neighbor_count, data.n_groups, data.seed)
    return payload, PtychoDataContainerTorch.from_groups(scan, groups, with_truth=False)


@pytest.fixture
def learner(prepared: tuple[TrainingPayload, PtychoDataContainerTorch]) -> PtychoLearner:
    payload, container = prepared
    return PtychoLearner(PtychoModel(payload.model, normalise_probe(container.probe)), payload.training)


def make_loader(prepared: tuple[TrainingPayload, PtychoDataContainerTorch]) -> DataLoader:
    payload, container = prepared
    return _build_lightning_dataloaders(container, None, payload)[0]


def fit(learner: PtychoLearner, loader: DataLoader, *callbacks: Any) -> int:
    """Train for an epoch and return the number of steps."""
    quiet = {"enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False}
    trainer = Trainer(accelerator="cpu", max_epochs=1, logger=False, callbacks=list(callbacks), **quiet)
    trainer.fit(learner, loader)
    return trainer.global_step


def refusal(call: Callable[[], Any]) -> str:
    with pytest.raises(shapecheck.ContractError) as caught:
        call()
    return str(caught.value)


def test_right_batches_pass_the_loader_the_callback_and_the_step(prepared: Any, learner: PtychoLearner) -> None:
    loader = make_loader(prepared)
    assert fit(learner, loader, ContractCallback(learner.batch_contracts())) == len(loader) > 1


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
def test_what_stands_at_bad_pixels_costs_a_step_nothing(prepared: Any, learner: PtychoLearner) -> None:
    _, container = prepared
    bad = torch.zeros(container.images.shape[2:], dtype=torch.bool)
    bad[14:18, 15:20] = True
    spoilt = container.images.masked_fill(bad, 7.0)
    batches = {
        (images is spoilt, mask is bad): PtychoGroupDataset(replace(container, images=images, bad_pixels=mask))[3]
        for images in (container.images, spoilt)
        for mask in (None, bad)
    }
    losses = {which: learner.training_step(batch, 0).item() for which, batch in batches.items()}
    assert losses[False, True] == losses[True, True]
    assert abs(losses[False, False] - losses[True, False]) > 0.1


@pytest.mark.violation
def test_loader_callback_and_step_each_stop_channel_last_offsets_alone_with_the_same_first_line(
    prepared: Any, learner: PtychoLearner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow, "PtychoGroupDataset", ChannelLast)
    with shapecheck.mode("off"):
        unchecked = make_loader(prepared)
    texts = {
        "loader": refusal(lambda: list(make_loader(prepared))),
        "callback": refusal(lambda: fit(learner, unchecked, ContractCallback(learner.batch_contracts()))),
        "step": refusal(lambda: fit(learner, unchecked)),
    }
    (first_line,) = {text.splitlines()[0] for text in texts.values()}
    assert first_line.startswith("ContractError [axis-order]: ptycho_torch.learner.PtychoLearner.training_step, ")
    assert "parameter \"batch[0]['coords_relative']\"" in first_line
    assert "a batch of the loader, made of items" in texts["loader"]
    assert "batch 0 of stage 'train'" in texts["callback"]


@pytest.mark.violation
def test_a_validation_batch_is_reported_for_the_step_that_validates(
    prepared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    payload, container = prepared
    assert len(list(_build_lightning_dataloaders(container, container, payload)[1])) == 3
    monkeypatch.setattr(workflow, "PtychoGroupDataset", ChannelLast)
    text = refusal(lambda: list(_build_lightning_dataloaders(container, container, payload)[1]))
    assert "PtychoLearner.validation_step, parameter" in text.splitlines()[0]
