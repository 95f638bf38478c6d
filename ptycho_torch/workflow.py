"""Training and inference from files to files.

Owns the order in which things happen: scan, groups, loaders, training, bundle; bundle, scan, patches, object. The parts
are elsewhere. Pictures are made by those who call this, from the results it returns.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import lightning.pytorch as lightning
import numpy as np
import torch
from jaxtyping import Float32
from torch.utils.data import DataLoader

from ptycho_torch.bundle import BundleConfigs, load_bundle, save_bundle
from ptycho_torch.config_factory import TrainingPayload
from ptycho_torch.config_params import DataConfig
from ptycho_torch.contracts import ObjectArray, ScanProbe
from ptycho_torch.dataloader import PtychoDataContainerTorch, PtychoGroupDataset, as_it_is, batch_contract
from ptycho_torch.files import written_atomically
from ptycho_torch.grouping import group_positions
from ptycho_torch.helper import check_offsets_fit, padded_size
from ptycho_torch.learner import (
    TRAIN_LOSS,
    VALIDATION_LOSS,
    PtychoLearner,
    Records,
    fit,
    quiet_lightning,
    read_losses,
)
from ptycho_torch.model import PtychoModel, calibrate
from ptycho_torch.quality import Comparison, compare
from ptycho_torch.reassembly import Placement
from ptycho_torch.reconstruction import (
    flat_placement,
    reconstruct,
    single_patch_container,
    whole_scan_container,
)
from ptycho_torch.refinement import Refinement, refine, scan_misfit
from ptycho_torch.scan import Scan, load_scan
from shapecheck import contract

__all__ = [
    "BUNDLE_NAME",
    "METRICS_NAME",
    "RECONSTRUCTION_NAME",
    "REFINE_EPOCHS",
    "InferenceResult",
    "TrainResult",
    "infer",
    "iterate",
    "reconstruct",
    "train",
]

WeightArray = Float32[np.ndarray, "H W"]

BUNDLE_NAME = "model.ptycho"
RECONSTRUCTION_NAME = "reconstruction.npz"
METRICS_NAME = "metrics.json"
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


@contract
@dataclass(frozen=True)
class InferenceResult:
    """A reconstructed object, as written to the output folder.

    Attributes:
        obj: In the units of the file's probe: |FFT(probe * obj)| are the measured amplitudes.
        weight: Light that the estimate of each pixel rests on, counts.
        origin: Object pixel (row, col) of index [0, 0], in the frame of the file's coordinates.
        probe: As it was after refinement, where it was refined.
        misfit: Sum of |predicted - measured| amplitudes over the sum of the measured ones; needs no truth.
        misfits: The same during each epoch of refinement.
        reconstruction_path: The NPZ file.
        comparison: With the truth, where the file holds one.
        seen: The same of the object before it was refined: of what the model saw, or of a flat object.
        metrics_path: The comparison in numbers, where there is one.
    """

    obj: ObjectArray
    weight: WeightArray
    origin: tuple[int, int]
    probe: ScanProbe
    misfit: float
    misfits: tuple[float, ...]
    reconstruction_path: Path
    comparison: Comparison | None = None
    seen: Comparison | None = None
    metrics_path: Path | None = None


def train(payload: TrainingPayload, *, test_data_file: Path | str | None = None, quiet: bool = False) -> TrainResult:
    """Train a model on the scan of a payload and write it as a bundle to the payload's output folder.

    Args:
        payload: From `create_training_payload`.
        test_data_file: A scan to validate on; by default the training loss decides which epoch is best.
        quiet: No progress bar.

    Raises:
        ScanError: A file is not a usable scan.
        ValueError: The test scan does not fit the model.
        RuntimeError: The loss stopped being a number.
    """
    train_container = _grouped(load_scan(payload.train_data_file), payload.data, experiment_id=0)
    test_container = None
    if test_data_file is not None:
        test_container = _test_container(load_scan(test_data_file), payload)
    return _train_with_lightning(train_container, test_container, payload, quiet=quiet)


def infer(
    model_path: Path | str,
    test_data: Path | str,
    output_dir: Path | str,
    *,
    refine_epochs: int = REFINE_EPOCHS,
    refine_probe: bool = False,
    quiet: bool = False,
) -> InferenceResult:
    """Reconstruct the object of a scan with a trained model, and write it.

    Writes `reconstruction.npz` with `object`, `weight`, `origin` and `probe`, and `metrics.json` where the scan holds
    the true object, which nothing but that comparison ever sees.

    Args:
        model_path: A bundle.
        test_data: The scan.
        output_dir: Created where it does not exist.
        refine_epochs: How often each pattern is used to refine what the model saw (`refinement.refine`); 0 leaves that.
        refine_probe: Refine the probe as well.
        quiet: No progress bar.

    Raises:
        BundleError: The bundle is not usable.
        ScanError: The file is not a usable scan.
        ValueError: The scan does not fit the model, or `refine_epochs` is negative, or 0 where the probe is to be refined.
    """
    _check_refinement(refine_epochs, refine_probe)
    bundle, scan, output_dir = load_bundle(model_path), load_scan(test_data), Path(output_dir)
    _check_sizes(scan, bundle.configs.data.N, bundle.configs.model.P)
    container = whole_scan_container(scan, bundle.configs.data)
    seen = reconstruct(bundle.model, container, bundle.configs.inference, quiet=quiet)
    refined = refine(seen, scan, refine_epochs, refine_probe=refine_probe, quiet=quiet)
    return _written_reconstruction(seen, refined, scan, output_dir)


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
    start = flat_placement(single_patch_container(scan))
    refined = refine(start, scan, epochs, refine_probe=refine_probe, quiet=quiet)
    return _written_reconstruction(start, refined, scan, Path(output_dir))


def _written_reconstruction(start: Placement, refined: Refinement, scan: Scan, output_dir: Path) -> InferenceResult:
    placement, probe = refined.placement, refined.probe.numpy()
    obj, weight = placement.obj.numpy(), placement.weight.numpy()
    comparison = _compared(obj, placement.anchor, scan)
    misfit = scan_misfit(placement, scan, refined.probe)
    reconstruction = {"object": obj, "weight": weight, "origin": np.array(placement.anchor, np.int64), "probe": probe}
    return InferenceResult(
        obj=obj,
        weight=weight,
        origin=placement.anchor,
        probe=probe,
        misfit=misfit,
        misfits=tuple(refined.misfits),
        reconstruction_path=_write_reconstruction(output_dir / RECONSTRUCTION_NAME, reconstruction),
        comparison=comparison,
        seen=_compared(start.obj.numpy(), start.anchor, scan),
        metrics_path=None if comparison is None else _write_metrics(output_dir / METRICS_NAME, comparison, misfit),
    )


def _build_lightning_dataloaders(
    train_container: PtychoDataContainerTorch,
    test_container: PtychoDataContainerTorch | None,
    config: TrainingPayload,
) -> tuple[DataLoader, DataLoader | None]:
    """Return loaders whose every batch is held to the contract, with `C` and `N` tied to the configuration."""
    validation = None if test_container is None else _loader(test_container, config, shuffle=False)
    return _loader(train_container, config, shuffle=True), validation


def _loader(container: PtychoDataContainerTorch, config: TrainingPayload, *, shuffle: bool) -> DataLoader:
    workers = config.training.num_workers
    loader = DataLoader(
        PtychoGroupDataset(container),
        batch_size=config.training.batch_size,
        shuffle=shuffle,
        generator=torch.Generator().manual_seed(config.training.seed),
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=as_it_is,
    )
    step = PtychoLearner.training_step if shuffle else PtychoLearner.validation_step
    return batch_contract(config.data, step=step).loader(loader)


def _train_with_lightning(
    train_container: PtychoDataContainerTorch,
    test_container: PtychoDataContainerTorch | None,
    payload: TrainingPayload,
    *,
    quiet: bool = False,
) -> TrainResult:
    """Fit a new model and write the best epoch as a bundle."""
    with quiet_lightning():
        lightning.seed_everything(payload.training.seed, workers=True, verbose=False)
        train_loader, validation_loader = _build_lightning_dataloaders(train_container, test_container, payload)
        calibration = calibrate(train_container.images, train_container.rms_scaling_constant, train_container.probe)
        learner = PtychoLearner(PtychoModel(payload.model, calibration), payload.training)
        monitor = TRAIN_LOSS if validation_loader is None else VALIDATION_LOSS
        records = fit(learner, train_loader, validation_loader, payload.output_dir, monitor=monitor, quiet=quiet)
    return _written(learner, records, payload)


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


def _grouped(scan: Scan, config: DataConfig, *, experiment_id: int) -> PtychoDataContainerTorch:
    """Group a scan for training or validation, without its truth: no loss may ever see it."""
    seed = config.seed + experiment_id
    groups = group_positions(scan.xcoords, scan.ycoords, config.gridsize, config.neighbor_count, config.n_groups, seed)
    return PtychoDataContainerTorch.from_groups(
        scan, groups, nphotons=config.nphotons, with_truth=False, experiment_id=experiment_id
    )


def _test_container(scan: Scan, payload: TrainingPayload) -> PtychoDataContainerTorch:
    _check_sizes(scan, payload.data.N, payload.model.P)
    container = _grouped(scan, payload.data, experiment_id=1)
    canvas = padded_size(payload.data.N, payload.data.gridsize, payload.data.max_neighbor_distance)
    check_offsets_fit(container.coords_relative, payload.data.N, canvas)
    return container


def _check_sizes(scan: Scan, patch_size: int, n_modes: int) -> None:
    if (scan.N, len(scan.probe)) != (patch_size, n_modes):
        msg = (
            f"Expected {scan.path} to hold patterns of side N={patch_size} and P={n_modes} probe modes, as the model "
            f"was built for, got N={scan.N} and P={len(scan.probe)}."
        )
        raise ValueError(msg)


def _compared(obj: np.ndarray, origin: tuple[int, int], scan: Scan) -> Comparison | None:
    """Compare within the box of the patch centres, where the object is well lit; None where no truth is known."""
    if scan.object_truth is None:
        return None
    top, bottom = int(np.floor(scan.ycoords.min())), int(np.ceil(scan.ycoords.max()))
    left, right = int(np.floor(scan.xcoords.min())), int(np.ceil(scan.xcoords.max()))
    return compare(obj, origin, scan.object_truth, (top, bottom, left, right))


def _check_refinement(epochs: int, refine_probe: bool) -> None:
    if epochs < 0 or (refine_probe and not epochs):
        least = "at least 1 where the probe is to be refined" if refine_probe else "at least 0"
        msg = f"Expected refine_epochs to be {least}, got {epochs}."
        raise ValueError(msg)


def _write_reconstruction(path: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    with written_atomically(path) as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)
    return path


def _write_metrics(path: Path, comparison: Comparison, misfit: float) -> Path:
    values = comparison.as_dict() | {"misfit": misfit}
    with written_atomically(path) as stream:
        stream.write(json.dumps(values, indent=2).encode() + b"\n")
    return path
