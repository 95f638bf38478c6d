"""The model as Lightning trains it: steps, optimiser, trainer, loggers.

Keeps Lightning's chatter off the terminal, and makes an interrupt what it is without Lightning. What of it makes a
training resumable is `resuming`. The true object, where a scan has one, never comes here.
"""

import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch.utils.data import DataLoader

from ptycho_torch.config_params import ConfigError, ModelConfig, TrainingConfig
from ptycho_torch.contracts import Batch, Scalar
from ptycho_torch.dataloader import batch_contract
from ptycho_torch.losses import mae_loss, poisson_loss
from ptycho_torch.model import PtychoModel
from ptycho_torch.ranks import part_at_exit, ranks
from ptycho_torch.resuming import LAST_CHECKPOINT, Checkpoints, LossHistory, Patience, WholeCheckpoints, announce_epoch
from ptycho_torch.runs import METRICS_CSV, TRAIN_LOSS, VALIDATION_LOSS, checkpoint_folder
from ptycho_torch.sharing import Share, share_of
from shapecheck import contract
from shapecheck.data import BatchContract
from shapecheck.lightning import ContractCallback

__all__ = ["PtychoLearner", "Records", "fit", "loggers", "quiet_lightning"]

_WARM_UP_FRACTION = 0.15
_WEIGHT_DECAY = 1e-3
_GRADIENT_NORM = 1.0  # a pattern with a near-zero wave can have a huge gradient
_CHATTER = ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
_EXPECTED_WARNINGS = (
    # Batches are cut from one tensor in memory, which workers would only slow down.
    ".*does not have many workers",
    # The user's choice of accelerator, in the configuration.
    "GPU available but not used",
    # A resumed run goes on in its own folder, and `LossHistory` restores its table.
    "Experiment logs directory .* exists and is not empty",
    # Written by ourselves in this folder, and whole.
    "Checkpoint directory .* exists and is not empty",
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
        """Return the loss of one batch; where several processes share it, what makes their mean that of the batch."""
        return self._logged(TRAIN_LOSS, batch, batch_idx)

    @contract(dims={"C": "self.config.C", "N": "self.config.N", "P": "self.config.P"})
    def validation_step(self, batch: Batch, batch_idx: int) -> Scalar:
        """Return the loss of one batch that is not trained on; see `training_step`."""
        return self._logged(VALIDATION_LOSS, batch, batch_idx)

    def on_train_epoch_start(self) -> None:
        """Let what is random in an epoch depend on seed and epoch alone: a resumed run is then an uninterrupted one."""
        torch.manual_seed(self.training_config.seed + self.current_epoch)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return AdamW with one cycle of the learning rate: up for a short while, then down to nothing."""
        rate = self.training_config.learning_rate
        optimizer = torch.optim.AdamW(self.parameters(), lr=rate, weight_decay=_WEIGHT_DECAY)
        steps = int(self.trainer.estimated_stepping_batches)
        # One step in all leaves no room for a cycle.
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, max(steps, 2), pct_start=_WARM_UP_FRACTION)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}

    def _logged(self, name: str, batch: Batch, batch_idx: int) -> torch.Tensor:
        loss, share = self._loss(batch), self._share(name, batch_idx)
        count, weight = (len(batch[0]["images"]), 1.0) if share is None else share
        self.log(name, loss.detach(), on_step=False, on_epoch=True, prog_bar=True, batch_size=count, sync_dist=True)
        return loss * weight

    def _share(self, name: str, batch_idx: int) -> Share | None:
        if self._trainer is None:  # a step by itself
            return None
        return share_of(
            self.trainer.train_dataloader if name == TRAIN_LOSS else self.trainer.val_dataloaders, batch_idx
        )

    def _loss(self, batch: Batch) -> torch.Tensor:
        fields, probe, scaling = batch
        rms, physics = fields["rms_scaling_constant"], fields["physics_scaling_constant"]
        bad = fields.get("bad_pixels")
        predicted, _, _ = self.model(fields["images"], fields["coords_relative"], probe, rms, scaling, bad)
        measured = rms * fields["images"]
        if self.training_config.loss == "mae":
            return mae_loss(predicted, measured, bad)
        return poisson_loss(physics * predicted, physics * measured, bad)


def loggers(folder: Path) -> list[Logger]:
    """Return what losses are logged to: a table, and TensorBoard where that package is installed.

    Args:
        folder: Of the run, in `logs`.
    """
    place = {"save_dir": folder.parent.parent, "name": folder.parent.name, "version": folder.name}
    table = CSVLogger(**place)
    return [table] if find_spec("tensorboard") is None else [table, TensorBoardLogger(**place)]


def fit(
    learner: PtychoLearner,
    train_loader: DataLoader,
    validation_loader: DataLoader | None,
    logs: Sequence[Logger],
    *,
    monitor: str,
    quiet: bool,
    resume_from: Path | None = None,
    callbacks: Sequence[Callback] = (),
) -> Records:
    """Train until the epochs are over or nothing improves, with logs and checkpoints in the folder of the logs.

    Args:
        learner: Trained in place; left at the last epoch, not at the best.
        train_loader: Batches to learn from.
        validation_loader: Batches to judge by.
        logs: From `loggers`.
        monitor: The loss that is to fall.
        quiet: No progress bar.
        resume_from: A checkpoint of the same run.
        callbacks: More of them; they see an epoch before its checkpoint is written.

    Raises:
        KeyboardInterrupt: The run was interrupted; its checkpoints are whole.
    """
    config = learner.training_config
    folder = Path(str(logs[0].log_dir))
    best = Checkpoints(checkpoint_folder(folder), "best", monitor=monitor)
    # One of its own: what `save_last` writes is as old as the best.
    last = Checkpoints(checkpoint_folder(folder), LAST_CHECKPOINT, enable_version_counter=False)
    watchers = [
        ContractCallback(learner.batch_contracts()),
        LossHistory(),
        *callbacks,
        best,
        last,
        Patience(monitor, patience=config.early_stopping_patience, check_finite=True, verbose=False),
    ]
    trainer = _trainer(
        config,
        max_epochs=config.max_epochs,
        logger=list(logs),
        callbacks=watchers if quiet else [*watchers, _progress_bar()],
        gradient_clip_val=_GRADIENT_NORM,
        num_sanity_val_steps=0,  # metrics of a sanity run would count as an epoch in the log
        enable_model_summary=False,
        enable_progress_bar=not quiet,
    )
    if resume_from is not None:
        announce_epoch(train_loader, resume_from)
    part_at_exit()
    with _interrupts(trainer):
        trainer.fit(learner, train_loader, validation_loader, ckpt_path=resume_from, weights_only=True)
    return Records(folder / METRICS_CSV, Path(best.best_model_path), Path(last.best_model_path))


def _trainer(config: TrainingConfig, **settings: Any) -> Trainer:
    """Return a trainer on the devices that the configuration names.

    Raises:
        ConfigError: This machine has no such devices.
    """
    try:
        return Trainer(**_processes(config), accelerator=config.accelerator, **settings)
    except (MisconfigurationException, ModuleNotFoundError) as error:  # the latter where a TPU needs a package
        wanted = f"accelerator={config.accelerator!r} with devices={config.devices}"
        msg = f"Expected accelerator and devices to be what this machine has, got {wanted}: {error}"
        raise ConfigError(msg, "accelerator") from error


@contextmanager
def _interrupts(trainer: Trainer) -> Iterator[None]:
    """Let an interrupt be one: Lightning ends the process instead."""
    try:
        yield
    except SystemExit:
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise


def _processes(config: TrainingConfig) -> dict[str, Any]:
    """Return who trains together, for a trainer; who has which part of a batch is the loader's to say."""
    own = ranks()
    if own is None:
        return {"devices": config.devices, "plugins": [WholeCheckpoints()], "use_distributed_sampler": False}
    return {
        "devices": own.n_local,
        "num_nodes": own.n_ranks // own.n_local,
        "strategy": "ddp",
        "plugins": [TorchElasticEnvironment(), WholeCheckpoints()],
        "use_distributed_sampler": False,
    }


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
