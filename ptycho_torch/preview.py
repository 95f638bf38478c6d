"""What the model makes of the middle of the scan, as a picture that is drawn anew while it trains.

Owns when it is drawn and what it may cost. The picture itself is `figures`, the object `reconstruction`.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from ptycho_torch.figures import draw_preview, save_picture
from ptycho_torch.model import PtychoModel
from ptycho_torch.reconstruction import reconstruct
from ptycho_torch.runs import PREVIEW_NAME
from ptycho_torch.scan import Scan, ScanOnDisk

__all__ = ["Preview", "middle_of"]

_PATTERNS = 256  # a picture of some hundred pixels; a small part of most epochs
_SHARE = 0.05  # of the time of the training, at most, but for the first picture and the last


class Preview(Callback):
    """Draws `preview.png` in the folder of the logs, and in TensorBoard, after epochs and at the end.

    Pictures are left out where they would cost more than a twentieth of the time so far; the first and the last are
    drawn in any case.

    Args:
        scan: Its middle is shown, see `middle_of`.
        clock: Seconds, from anywhere.
    """

    def __init__(self, scan: Scan, clock: Callable[[], float] = time.perf_counter) -> None:
        self._scan, self._clock = scan, clock
        self._began = self._spent = 0.0
        self._drawn: int | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count the time."""
        self._began, self._spent = self._clock(), 0.0

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw, if there is time for it."""
        if self._spent <= _SHARE * (self._clock() - self._began):
            self._draw(trainer, pl_module, trainer.current_epoch)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the last epoch, unless that was done."""
        if self._drawn != trainer.current_epoch - 1:
            self._draw(trainer, pl_module, trainer.current_epoch - 1)

    def _draw(self, trainer: Trainer, pl_module: LightningModule, epoch: int) -> None:
        started = self._clock()
        model = cast("PtychoModel", pl_module.model)
        was_training = model.training
        seen = reconstruct(model.eval(), self._scan, pl_module.device)
        model.train(was_training)
        caption = f"epoch {epoch + 1}: amplitude and phase in the middle of the scan"
        picture = draw_preview(seen.obj.cpu().numpy(), seen.weight.cpu().numpy(), caption)
        # The trainer's own `log_dir` asks the other processes, which draw nothing and would never answer.
        save_picture(Path(str(trainer.loggers[0].log_dir)) / PREVIEW_NAME, picture)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("preview", picture, epoch + 1, dataformats="HWC")
        self._drawn = epoch
        self._spent += self._clock() - started


def middle_of(scan: ScanOnDisk, n_patterns: int = _PATTERNS) -> Scan:
    """Read the patterns around the middle of a scan, without its truth.

    Args:
        scan: Of which these patterns alone are kept in memory.
        n_patterns: How many, at most.

    Raises:
        ScanError: A pattern is not usable.
    """
    x, y = scan.xcoords, scan.ycoords
    distance = np.maximum(np.abs(x - np.median(x)), np.abs(y - np.median(y)))
    chosen = np.sort(np.argsort(distance, kind="stable")[:n_patterns])
    return Scan(_read(scan, chosen), x[chosen], y[chosen], scan.probe, path=scan.path, bad_pixels=scan.patterns.bad)


def _read(scan: ScanOnDisk, chosen: np.ndarray) -> np.ndarray:
    if scan.patterns.random_access:
        return scan.patterns.read(chosen)
    parts = [
        block[chosen[(chosen >= start) & (chosen < start + len(block))] - start]
        for start, block in scan.patterns.blocks()
    ]
    return np.concatenate(parts)
