"""The model as Lightning trains it: steps, optimiser, trainer.

Owns everything that knows of Lightning but its data loaders, and keeps Lightning's chatter off the terminal. The true
object, where a scan has one, never comes here.
"""

import csv
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch.utils.data import DataLoader

from ptycho_torch.config_params import ModelConfig, TrainingConfig
from ptycho_torch.contracts import Batch, Scalar
from ptycho_torch.dataloader import batch_contract
from ptycho_torch.losses import mae_loss, poisson_loss
from ptycho_torch.model import PtychoModel
from shapecheck import contract
from shapecheck.data import BatchContract
from shapecheck.lightning import ContractCallback

__all__ = ["TRAIN_LOSS", "VALIDATION_LOSS", "PtychoLearner", "Records", "fit", "quiet_lightning", "read_losses"]

TRAIN_LOSS, VALIDATION_LOSS = "train_loss", "val_loss"

_WARM_UP_FRACTION = 0.15
_WEIGHT_DECAY = 1e-3
_GRADIENT_NORM = 1.0  # a pattern with a near-zero wave can have a huge gradient
_CHATTER = ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
_EXPECTED_WARNINGS = (
    # Batches are cut from one tensor in memory, which workers would only slow down.
    ".*does not have many workers",
    # The user's choice of accelerator, in the configuration.
    "GPU available but not used",
    # A scan of a few groups makes few batches.
    "The number of training batches .* is smaller than the logging interval",
    # Validation data are optional.
    "You defined a `validation_step` but have no `val_dataloader`",
    # Lightning's own use of torch.
    "`isinstance\\(treespec, LeafSpec\\)` is deprecated",
)


class Records(NamedTuple):
    """The files that a run left behind."""

    metrics_csv: Path  # losses per epoch
    best_checkpoint: Path
    last_checkpoint: Path


class PtychoLearner(LightningModule):
    """Trains a model on nothing but the difference between predicted and measured amplitudes.

    Args:
        model: Trained in place.
        config: Loss and learning rate.
    """

    def __init__(self, model: PtychoModel, config: TrainingConfig) -> None:
        super().__init__()
        self.model = model
        self.training_config = config

    @property
    def config(self) -> ModelConfig:
        """The sizes that batches are held to."""
        return self.model.config

    def batch_contracts(self) -> dict[str, BatchContract]:
        """Return what batches must be when a step receives them, by stage."""
        steps = {"train": type(self).training_step, "validate": type(self).validation_step}
        return {stage: batch_contract(self.config, step=step) for stage, step in steps.items()}

    @contract(dims={"C": "self.config.C", "N": "self.config.N", "P": "self.config.P"})
    def training_step(self, batch: Batch, batch_idx: int) -> Scalar:
        """Return the loss of one batch."""
        return self._logged(TRAIN_LOSS, batch)

    @contract(dims={"C": "self.config.C", "N": "self.config.N", "P": "self.config.P"})
    def validation_step(self, batch: Batch, batch_idx: int) -> Scalar:
        """Return the loss of one batch that is not trained on."""
        return self._logged(VALIDATION_LOSS, batch)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return AdamW with one cycle of the learning rate: up for a short while, then down to nothing."""
        rate = self.training_config.learning_rate
        optimizer = torch.optim.AdamW(self.parameters(), lr=rate, weight_decay=_WEIGHT_DECAY)
        steps = int(self.trainer.estimated_stepping_batches)
        # One step in all leaves no room for a cycle.
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, max(steps, 2), pct_start=_WARM_UP_FRACTION)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}

    def _logged(self, name: str, batch: Batch) -> torch.Tensor:
        loss = self._loss(batch)
        groups = len(batch[0]["images"])
        self.log(name, loss.detach(), on_step=False, on_epoch=True, prog_bar=True, batch_size=groups)
        return loss

    def _loss(self, batch: Batch) -> torch.Tensor:
        fields, probe, scaling = batch
        rms, physics = fields["rms_scaling_constant"], fields["physics_scaling_constant"]
        predicted, _, _ = self.model(fields["images"], fields["coords_relative"], probe, rms, scaling)
        measured = rms * fields["images"]
        if self.training_config.loss == "mae":
            return mae_loss(predicted, measured)
        return poisson_loss(physics * predicted, physics * measured)


def fit(
    learner: PtychoLearner,
    train_loader: DataLoader,
    validation_loader: DataLoader | None,
    output_dir: Path,
    *,
    monitor: str,
    quiet: bool,
) -> Records:
    """Train until the epochs are over or nothing improves, with logs and checkpoints in a new folder each time.

    Args:
        learner: Trained in place; left at the last epoch, not at the best.
        train_loader: Batches to learn from.
        validation_loader: Batches to judge by.
        output_dir: Gets a folder `logs/version_<n>`.
        monitor: The loss that is to fall.
        quiet: No progress bar.
    """
    config = learner.training_config
    logger = CSVLogger(output_dir, name="logs")
    folder = Path(logger.log_dir)
    checkpoints = ModelCheckpoint(folder / "checkpoints", "best", monitor=monitor, save_last=True)
    callbacks: list[Callback] = [
        ContractCallback(learner.batch_contracts()),
        checkpoints,
        EarlyStopping(monitor, patience=config.early_stopping_patience, check_finite=True, verbose=False),
    ]
    trainer = Trainer(
        accelerator=config.accelerator,
        devices=config.devices,
        max_epochs=config.max_epochs,
        logger=logger,
        callbacks=callbacks if quiet else [*callbacks, _progress_bar()],
        gradient_clip_val=_GRADIENT_NORM,
        num_sanity_val_steps=0,  # metrics of a sanity run would count as an epoch in the log
        enable_model_summary=False,
        enable_progress_bar=not quiet,
    )
    trainer.fit(learner, train_loader, validation_loader)
    return Records(folder / "metrics.csv", Path(checkpoints.best_model_path), Path(checkpoints.last_model_path))


def _progress_bar() -> TQDMProgressBar:
    """Return a bar that is redrawn on a terminal and only written once per epoch to a file or a pipe."""
    return TQDMProgressBar(refresh_rate=1 if sys.stdout.isatty() else sys.maxsize)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's tips and the warnings that do not apply here off the terminal; anything else passes."""
    loggers = [logging.getLogger(name) for name in _CHATTER]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for expected in _EXPECTED_WARNINGS:
                warnings.filterwarnings("ignore", expected)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def read_losses(metrics_csv: Path) -> Mapping[str, tuple[float, ...]]:
    """Return the losses that a run logged, by name, one value per epoch, first epoch first."""
    with metrics_csv.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    series = {name: tuple(float(row[name]) for row in rows if row.get(name)) for name in (TRAIN_LOSS, VALIDATION_LOSS)}
    return {name: values for name, values in series.items() if values}
