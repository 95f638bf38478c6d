"""What makes a training resumable: whole checkpoints, and what they must remember.

Lightning's own checkpoints hold weights, optimiser, schedule and epoch. Here is what it leaves open, so that a run that
was interrupted at any moment and resumed ends like one that was not. The order of the groups in an epoch is `sharing`,
where a run's files lie is `runs`.
"""

import hashlib
import struct
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from ptycho_torch.config_factory import TrainingPayload
from ptycho_torch.dataloader import PtychoDataContainerTorch
from ptycho_torch.files import written_atomically
from ptycho_torch.runs import LOSSES, RunRecord, checkpoints_of, now, versions
from ptycho_torch.scan import ScanOnDisk
from ptycho_torch.sharing import EpochOrder
from ptycho_torch.streaming import StreamedGroups

__all__ = [
    "LAST_CHECKPOINT",
    "Checkpoints",
    "LossHistory",
    "Patience",
    "WholeCheckpoints",
    "announce_epoch",
    "newest_checkpoint",
    "record_of",
]

LAST_CHECKPOINT = "last"  # of every epoch, without its suffix

_Container = PtychoDataContainerTorch | StreamedGroups
_SAMPLES = 3  # groups whose patterns are looked at; the energy of all is in the scaling constants


class WholeCheckpoints(TorchCheckpointIO):
    """Writes checkpoints that are found whole, or as they were before, whenever the writing is interrupted."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint beside its place, then move it there."""
        del storage_options
        with written_atomically(Path(path)) as stream:
            torch.save(checkpoint, stream)


class Checkpoints(ModelCheckpoint):
    """The best epoch, or the last, in a folder that may have been moved since it was written."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what a checkpoint remembers of the others, wherever they are now."""
        super().load_state_dict(_moved(state_dict, str(state_dict["dirpath"]), str(self.dirpath)))


def _moved(value: Any, old: str, new: str) -> Any:
    """Replace one folder by another in every path, also where paths are keys."""
    if isinstance(value, dict):
        return {_moved(key, old, new): _moved(held, old, new) for key, held in value.items()}
    return new + value[len(old) :] if isinstance(value, str) and value.startswith(old) else value


class Patience(EarlyStopping):
    """Stops when nothing improves; a run that was stopped so stays stopped when it is resumed."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Train no epoch that an uninterrupted run would not have trained."""
        trainer.should_stop = self.stopping_reason != EarlyStoppingReason.NOT_STOPPED


class LossHistory(Callback):
    """Keeps the losses of every epoch in the checkpoints, and restores the table of a run that goes on.

    Lightning begins the table of losses anew, and writes an epoch's row only after its checkpoint: whoever is
    interrupted in between would lose it.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what a checkpoint holds."""
        self.rows = list(state_dict["rows"])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the rows of the epochs that a resumed run has behind it."""
        tables = [logger for logger in trainer.loggers if isinstance(logger, CSVLogger)]
        for table in tables if self.rows else ():
            for row in self.rows:
                table.log_metrics({name: value for name, value in row.items() if name != "step"}, int(row["step"]))
            table.save()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the losses before the checkpoint of this epoch is written."""
        losses = {name: float(trainer.callback_metrics[name]) for name in LOSSES if name in trainer.callback_metrics}
        self.rows.append({"epoch": trainer.current_epoch, "step": trainer.global_step - 1, **losses})


def newest_checkpoint(folder: Path) -> Path:
    """Return the checkpoint of a run that has come furthest: the last, but for an interrupt before it was replaced.

    Raises:
        ValueError: A checkpoint is damaged.
    """
    return max(checkpoints_of(folder), key=lambda path: (_read(path, "global_step"), path.stem == LAST_CHECKPOINT))


def announce_epoch(loader: DataLoader, checkpoint: Path) -> None:
    """Tell a loader at which epoch a run goes on: Lightning does so only when workers have begun to fetch."""
    order = getattr(loader.batch_sampler, "sampler", None)
    if isinstance(order, EpochOrder):
        order.set_epoch(_read(checkpoint, "epoch") + 1)


def _read(path: Path, name: str) -> int:
    try:
        return int(torch.load(path, map_location="cpu", weights_only=True, mmap=True)[name])
    except (RuntimeError, OSError, KeyError, UnpicklingError) as damage:
        msg = f"Expected {path} to be a whole checkpoint, got an error: {damage}. Remove it to go on from another."
        raise ValueError(msg) from damage


def record_of(
    payload: TrainingPayload,
    scan: ScanOnDisk,
    train_container: _Container,
    test_data_file: Path | str | None = None,
    test_container: _Container | None = None,
    start_from: Path | str | None = None,
) -> RunRecord:
    """Return what a run is told, for the file that it leaves.

    Args:
        payload: The configuration, with what each value rests on.
        scan: Of which facts are noted for people.
        train_container: What is learned from.
        test_data_file: Where what is validated on comes from.
        test_container: What is validated on.
        start_from: The bundle whose weights to begin with.
    """
    containers = {"train": train_container} | ({} if test_container is None else {"test": test_container})
    width, height = (float(np.ptp(coords)) for coords in (scan.xcoords, scan.ycoords))
    return RunRecord(
        train_data_file=str(payload.train_data_file.resolve()),
        test_data_file=None if test_data_file is None else str(Path(test_data_file).resolve()),
        start_from=None if start_from is None else str(Path(start_from).resolve()),
        settings={key: how._asdict() for key, how in payload.audit.items()},
        fingerprints={stage: _fingerprint(container) for stage, container in containers.items()},
        scan={
            "patterns": len(scan.patterns),
            "detector side N, pixels": scan.probe.shape[-1],
            "probe modes P": len(scan.probe),
            "bad pixels of the detector": 0 if scan.bad_pixels is None else int(scan.bad_pixels.sum()),
            "mean counts per pattern": payload.data.nphotons,
            "positions span, pixels (x, y)": [round(width, 1), round(height, 1)],
            "true object known": "yes" if scan.object_truth is not None else "no",
        },
        versions=versions(),
        started=now(),
    )


def _fingerprint(container: _Container) -> str:
    """Tell one data set from another, without reading patterns that may be larger than memory."""
    digest = hashlib.sha256()
    scales = (container.rms_scaling_constant, container.physics_scaling_constant, container.probe_scaling)
    digest.update(struct.pack("<3d", *scales))
    sample = torch.linspace(0, len(container) - 1, _SAMPLES).long()
    for tensor in (container.coords_relative, container.nn_indices, container.probe, container.images_of(sample)):
        digest.update(tensor.contiguous().numpy().tobytes())
    if container.bad_pixels is not None:
        digest.update(container.bad_pixels.numpy().tobytes())
    return digest.hexdigest()
