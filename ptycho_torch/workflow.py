"""Training and inference from files to files.

Owns the order in which things happen: scan, groups, loaders, training, bundle; bundle, scan, patches, object. The parts
are elsewhere. Pictures of results are made by those who call this, from what it returns.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import lightning.pytorch as lightning
import numpy as np
import torch
from lightning.pytorch import Callback
from torch.utils.data import DataLoader

from ptycho_torch.bundle import BundleConfigs, load_bundle, save_bundle
from ptycho_torch.config_factory import TrainingPayload
from ptycho_torch.config_params import STREAM, DataConfig
from ptycho_torch.dataloader import (
    PtychoDataContainerTorch,
    PtychoGroupDataset,
    as_it_is,
    batch_contract,
    stream_groups,
)
from ptycho_torch.grouping import Groups, group_positions
from ptycho_torch.helper import check_offsets_fit, padded_size
from ptycho_torch.inferred import METRICS_NAME, RECONSTRUCTION_NAME, InferenceResult, write_inference
from ptycho_torch.learner import PtychoLearner, Records, fit, loggers, quiet_lightning
from ptycho_torch.model import PtychoModel, normalise_probe
from ptycho_torch.preview import Preview, middle_of
from ptycho_torch.ranks import Ranks, as_the_first_says, is_first, ranks, run_on_ranks
from ptycho_torch.reconstruction import flat_placement, reconstruct
from ptycho_torch.refinement import refine, scan_misfit
from ptycho_torch.resuming import newest_checkpoint, record_of
from ptycho_torch.runs import (
    TRAIN_LOSS,
    VALIDATION_LOSS,
    RunRecord,
    check_same,
    interrupted_run,
    new_run,
    read_losses,
)
from ptycho_torch.scan import ScanOnDisk, load_scan, open_scan
from ptycho_torch.sharing import EpochOrder, SharedBatches
from ptycho_torch.streaming import StreamedGroups, is_streamed
from ptycho_torch.tiling import TILE_BYTES, Tile, reconstruct_tiles, scan_tiles, tiled_misfit

__all__ = [
    "BUNDLE_NAME",
    "METRICS_NAME",
    "RECONSTRUCTION_NAME",
    "REFINE_EPOCHS",
    "InferenceResult",
    "TrainResult",
    "bundle_in",
    "check_request",
    "check_sizes",
    "draw_groups",
    "infer",
    "iterate",
    "plan_inference",
    "train",
]

GroupContainer = PtychoDataContainerTorch | StreamedGroups

BUNDLE_NAME = "model.ptycho"
REFINE_EPOCHS = 20  # by default: most of what there is, in a small part of the time of a training


@dataclass(frozen=True)
class TrainResult:
    """What a training run left behind.

    Attributes:
        model_path: The bundle.
        metrics_csv: Losses per epoch, as logged.
        losses: The same by name ("train_loss", and "val_loss" with test data), first epoch first. For the Poisson
            loss in nats per detector pixel, for the mean absolute error in normalised amplitude.
        best_checkpoint: The epoch whose weights the bundle holds.
        last_checkpoint: The last epoch, from which Lightning can go on.
    """

    model_path: Path
    metrics_csv: Path
    losses: Mapping[str, tuple[float, ...]]
    best_checkpoint: Path
    last_checkpoint: Path


def train(
    payload: TrainingPayload,
    *,
    test_data_file: Path | str | None = None,
    start_from: Path | str | None = None,
    stream: STREAM = "auto",
    resume: bool = False,
    preview: bool = False,
    quiet: bool = False,
) -> TrainResult:
    """Train a model on the scan of a payload and write it as a bundle to the payload's output folder.

    With several devices, one process is started for each, and each batch is shared among them (`sharing`): what is
    learned differs by rounding alone.

    Args:
        payload: From `create_training_payload`.
        test_data_file: A scan to validate on; by default the training loss decides which epoch is best.
        start_from: A bundle whose weights to begin with, of any N, P and gridsize; by default nothing is known.
        stream: Whether patterns stay in their file until a batch needs them (`streaming.is_streamed`); the same is
            learned either way.
        resume: Go on from the last checkpoint in the output folder, as if the run had never been interrupted.
        preview: Draw what the model makes of the middle of the scan, again and again (`preview.Preview`).
        quiet: No progress bar.

    Raises:
        ScanError: A file is not a usable scan.
        BundleError: The bundle to start from is not usable.
        ValueError: The test scan does not fit the model.
        ResumeError: There is nothing to resume, or it was told something else than the payload.
        RuntimeError: The loss stopped being a number.
    """
    own = ranks()
    if own is None and payload.training.devices > 1:
        options = {"test_data_file": test_data_file, "start_from": start_from, "stream": stream, "resume": resume}
        return run_on_ranks(payload.training.devices, train, payload, preview=preview, quiet=quiet, **options)
    known = None if start_from is None else load_bundle(start_from).model
    scan = open_scan(payload.train_data_file)
    train_container = _grouped(scan, payload.data, stream, experiment_id=0)
    test_container = None
    if test_data_file is not None:
        test_container = _test_container(open_scan(test_data_file), payload, stream)
    record = record_of(payload, scan, train_container, test_data_file, test_container, start_from)
    folder, checkpoint = _begun(payload.output_dir, record, resume)
    return _train_with_lightning(
        train_container,
        test_container,
        payload,
        known=known,
        folder=folder,
        resume_from=checkpoint,
        callbacks=(Preview(middle_of(scan)),) if preview and is_first() else (),
        quiet=quiet or not is_first(),
    )


def _begun(output_dir: Path, record: RunRecord, resume: bool) -> tuple[Path, Path | None]:
    """Return the folder of a run, and the checkpoint that it goes on from."""
    if resume:
        folder = interrupted_run(output_dir)
        check_same(RunRecord.read(folder), record)
        return folder, newest_checkpoint(folder)
    folder = new_run(output_dir)
    if is_first():
        record.write(folder)
    return folder, None


def infer(
    model_path: Path | str,
    test_data: Path | str,
    output_dir: Path | str,
    *,
    refine_epochs: int = REFINE_EPOCHS,
    refine_probe: bool = False,
    devices: int = 1,
    tile_bytes: int = TILE_BYTES,
    quiet: bool = False,
) -> InferenceResult:
    """Reconstruct the object of a scan with a trained model, and write it.

    A scan that is too large to be reconstructed at once is cut into tiles (`tiling`). Of one that is larger than memory
    nothing else is ever in memory: its tiles are refined one by one.

    Writes `reconstruction.npz` with `object`, `weight`, `origin` and `probe`, and `metrics.json` where the scan holds
    the true object, which nothing but that comparison ever sees.

    Args:
        model_path: A bundle.
        test_data: The scan, of any N and P: what a network has learned does not depend on them.
        output_dir: Created where it does not exist.
        refine_epochs: How often each pattern is used to refine what the model saw (`refinement.refine`); 0 leaves that.
        refine_probe: Refine the probe as well.
        devices: How many processes share the tiles; the result is the same.
        tile_bytes: What the reconstruction of a tile may take in each of them.
        quiet: No progress bar.

    Raises:
        BundleError: The bundle is not usable.
        ScanError: The file is not a usable scan.
        ValueError: `refine_epochs` is negative, or 0 where the probe is to be refined; the probe is to be refined where
            the scan is larger than memory; `devices` is not positive.
    """
    check_request(refine_epochs, refine_probe=refine_probe, devices=devices)
    bundle, scan, output_dir = load_bundle(model_path), open_scan(test_data), Path(output_dir)
    tiles = plan_inference(scan, tile_bytes, refine_probe=refine_probe)
    machine = {"processes": devices, "quiet": quiet}
    if is_streamed(scan.patterns, "auto"):
        made = reconstruct_tiles(bundle.model, scan, tiles, output_dir, refine_epochs=refine_epochs, **machine)
        start = None if refine_epochs else made.placement
        return write_inference(start, made, scan, tiled_misfit(made.placement, scan, tiles), output_dir)
    held = scan.load()
    if len(tiles) == 1:
        seen = reconstruct(bundle.model, held)
    else:
        seen = reconstruct_tiles(bundle.model, scan, tiles, output_dir, **machine).placement
    refined = refine(seen, held, refine_epochs, refine_probe=refine_probe, quiet=quiet)
    return write_inference(seen, refined, held, scan_misfit(refined.placement, held, refined.probe), output_dir)


def bundle_in(path: Path) -> Path:
    """Return the bundle that a training wrote to a folder; a path that is no folder is that of a bundle."""
    return path / BUNDLE_NAME if path.is_dir() else path


def check_request(refine_epochs: int, *, refine_probe: bool, devices: int) -> None:
    """Refuse an inference that no scan could have.

    Raises:
        ValueError: Epochs are negative, or 0 where the probe is to be refined; there is not one process.
    """
    if refine_epochs < 0 or (refine_probe and not refine_epochs):
        least = "at least 1 where the probe is to be refined" if refine_probe else "at least 0"
        msg = f"Expected refine_epochs to be {least}, got {refine_epochs}."
        raise ValueError(msg)
    if devices < 1:
        msg = f"Expected devices to be at least 1, got {devices}."
        raise ValueError(msg)


def plan_inference(scan: ScanOnDisk, tile_bytes: int, *, refine_probe: bool) -> list[Tile]:
    """Return the tiles in which `infer` reconstructs a scan: one, where all of it fits.

    Args:
        scan: What to reconstruct.
        tile_bytes: As of `infer`.
        refine_probe: Likewise.

    Raises:
        ScanError: The scan is larger than memory, and its patterns cannot be read in any order.
        ValueError: The scan is larger than memory, and its probe is to be refined.
    """
    if is_streamed(scan.patterns, "auto"):
        scan.patterns.expect_random_access()
        if refine_probe:
            msg = (
                f"Expected refine_probe to be False for {scan.path}, which is larger than memory: its tiles are "
                "refined one by one, and would each make a probe of their own."
            )
            raise ValueError(msg)
    return scan_tiles(scan, tile_bytes)


def iterate(
    test_data: Path | str, output_dir: Path | str, epochs: int, *, refine_probe: bool = False, quiet: bool = False
) -> InferenceResult:
    """Reconstruct the object of a scan without a model, by the iterative engine from a flat object, and write it.

    Args:
        test_data: The scan.
        output_dir: Created where it does not exist; the same is written as by `infer`.
        epochs: How often each pattern is used (`refinement.refine`).
        refine_probe: Refine the probe as well.
        quiet: No progress bar.

    Raises:
        ScanError: The file is not a usable scan.
        ValueError: `epochs` is less than 1.
    """
    if epochs < 1:
        msg = f"Expected epochs to be at least 1, got {epochs}."
        raise ValueError(msg)
    scan = load_scan(test_data)
    start = flat_placement(scan)
    refined = refine(start, scan, epochs, refine_probe=refine_probe, quiet=quiet)
    misfit = scan_misfit(refined.placement, scan, refined.probe)
    return write_inference(start, refined, scan, misfit, Path(output_dir))


def _build_lightning_dataloaders(
    train_container: GroupContainer,
    test_container: GroupContainer | None,
    config: TrainingPayload,
) -> tuple[DataLoader, DataLoader | None]:
    """Return loaders whose every batch is held to the contract, with `C` and `N` tied to the configuration."""
    validation = None if test_container is None else _loader(test_container, config, shuffle=False)
    return _loader(train_container, config, shuffle=True), validation


def _loader(container: GroupContainer, config: TrainingPayload, *, shuffle: bool) -> DataLoader:
    workers, own = config.training.num_workers, ranks() or Ranks()
    order = EpochOrder(len(container), shuffle=shuffle, seed=config.training.seed)
    loader = DataLoader(
        PtychoGroupDataset(container),
        batch_sampler=SharedBatches(order, config.training.batch_size, own.rank, own.n_ranks),
        generator=torch.Generator().manual_seed(config.training.seed),
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=as_it_is,
    )
    step = PtychoLearner.training_step if shuffle else PtychoLearner.validation_step
    return batch_contract(config.data, step=step).loader(loader)


def _train_with_lightning(
    train_container: GroupContainer,
    test_container: GroupContainer | None,
    payload: TrainingPayload,
    *,
    known: PtychoModel | None = None,
    folder: Path | None = None,
    resume_from: Path | None = None,
    callbacks: Sequence[Callback] = (),
    quiet: bool = False,
) -> TrainResult:
    """Fit a new model, with the weights of a known one or of a checkpoint, and write the best epoch as a bundle."""
    with quiet_lightning():
        lightning.seed_everything(payload.training.seed, workers=True, verbose=False)
        train_loader, validation_loader = _build_lightning_dataloaders(train_container, test_container, payload)
        model = PtychoModel(payload.model, normalise_probe(train_container.probe))
        if known is not None:
            model.network.load_state_dict(known.network.state_dict())
        learner = PtychoLearner(model, payload.training)
        monitor = TRAIN_LOSS if validation_loader is None else VALIDATION_LOSS
        records = fit(
            learner,
            train_loader,
            validation_loader,
            loggers(folder or new_run(payload.output_dir)),
            monitor=monitor,
            quiet=quiet,
            resume_from=resume_from,
            callbacks=callbacks,
        )
    return as_the_first_says(lambda: _written(learner, records, payload))


def _written(learner: PtychoLearner, records: Records, payload: TrainingPayload) -> TrainResult:
    losses = read_losses(records.metrics_csv)
    if not np.isfinite([value for values in losses.values() for value in values]).all():
        msg = f"Expected a finite loss in every epoch, got {losses}. A smaller learning_rate may help."
        raise RuntimeError(msg)
    best = torch.load(records.best_checkpoint, map_location="cpu", weights_only=True)
    learner.load_state_dict(best["state_dict"])
    return TrainResult(
        model_path=save_bundle(payload.output_dir / BUNDLE_NAME, learner.model, BundleConfigs.from_payload(payload)),
        metrics_csv=records.metrics_csv,
        losses=losses,
        best_checkpoint=records.best_checkpoint,
        last_checkpoint=records.last_checkpoint,
    )


def _grouped(scan: ScanOnDisk, config: DataConfig, stream: STREAM, *, experiment_id: int) -> StreamedGroups:
    """Group a scan for training or validation, without its truth: no loss may ever see it."""
    groups = draw_groups(scan, config, experiment_id)
    if not is_streamed(scan.patterns, stream):
        scan = replace(scan, patterns=scan.patterns.held())
    return stream_groups(scan, groups, nphotons=config.nphotons, experiment_id=experiment_id)


def draw_groups(scan: ScanOnDisk, config: DataConfig, experiment_id: int) -> Groups:
    """Draw the groups of a training (experiment 0) or of its validation (experiment 1)."""
    seed = config.seed + experiment_id
    return group_positions(scan.xcoords, scan.ycoords, config.gridsize, config.neighbor_count, config.n_groups, seed)


def _test_container(scan: ScanOnDisk, payload: TrainingPayload, stream: STREAM) -> StreamedGroups:
    check_sizes(scan, payload)
    container = _grouped(scan, payload.data, stream, experiment_id=1)
    canvas = padded_size(payload.data.N, payload.data.gridsize, payload.data.max_neighbor_distance)
    check_offsets_fit(container.coords_relative, payload.data.N, canvas)
    return container


def check_sizes(scan: ScanOnDisk, payload: TrainingPayload) -> None:
    """Refuse a scan of other patterns or modes than a training is for.

    Raises:
        ValueError: Names both.
    """
    patch_size, n_modes = payload.data.N, payload.model.P
    if (scan.patterns.side, len(scan.probe)) != (patch_size, n_modes):
        msg = (
            f"Expected {scan.path} to hold patterns of side N={patch_size} and P={n_modes} probe modes, as the model "
            f"was built for, got N={scan.patterns.side} and P={len(scan.probe)}."
        )
        raise ValueError(msg)
