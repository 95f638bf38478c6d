"""What the commands do: the work of `workflow`, its results as pictures, and a summary for the person who waits.

Owns the names of the pictures and the wording of the summaries. Arguments and exit codes are `cli`.
"""

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from ptycho_torch import workflow
from ptycho_torch.config_factory import TrainingPayload, create_training_payload
from ptycho_torch.config_params import STREAM
from ptycho_torch.figures import Known, save_amplitude, save_loss_curve, save_overview, save_phase
from ptycho_torch.helper import padded_size
from ptycho_torch.quality import Comparison
from ptycho_torch.ranks import is_first
from ptycho_torch.runs import (
    PREVIEW_NAME,
    ReconstructionRecord,
    RunRecord,
    checkpoints_of,
    interrupted_run,
    new_run,
    now,
    versions,
)
from ptycho_torch.scan import Scan
from ptycho_torch.simulate import save_simulation, simulate_natural_scan
from ptycho_torch.tiling import TILE_BYTES
from ptycho_torch.workflow import InferenceResult, TrainResult

__all__ = [
    "AMPLITUDE_NAME",
    "LOSS_LABELS",
    "LOSS_NAME",
    "OVERVIEW_NAME",
    "PHASE_NAME",
    "QUALITY_ROWS",
    "infer",
    "quality_table",
    "reconstruct",
    "simulate",
    "train",
]

AMPLITUDE_NAME = "amplitude.png"
PHASE_NAME = "phase.png"
OVERVIEW_NAME = "overview.png"
LOSS_NAME = "loss.png"
LOSS_LABELS = {"poisson": "loss, nats per detector pixel", "mae": "loss, mean |amplitude error|, normalised"}

QUALITY_ROWS = (
    ("amplitude error, mean abs", "amplitude_mae"),
    ("phase error, mean abs, rad", "phase_mae_rad"),
    ("amplitude PSNR, dB", "amplitude_psnr_db"),
    ("phase PSNR, dB", "phase_psnr_db"),
    ("amplitude SSIM", "amplitude_ssim"),
    ("phase SSIM", "phase_ssim"),
    ("correlation", "correlation"),
    ("resolution FRC 0.5, Nyquist", "frc50"),
)


def simulate(output: Path, settings: Mapping[str, Any], *, quiet: bool = False) -> Scan:
    """Simulate a scan of a natural picture and write it.

    Args:
        output: The NPZ file.
        settings: Arguments of `simulate_natural_scan`.
        quiet: Print nothing.
    """
    say = _speaker(quiet)
    scan = simulate_natural_scan(**settings)
    output.parent.mkdir(parents=True, exist_ok=True)
    save_simulation(scan, output)
    say(f"scan        {scan.n_positions} patterns of {scan.N} x {scan.N} pixels, {scan.mean_counts:.3g} counts each")
    if scan.object_truth is not None:
        say("object      {} x {} pixels".format(*scan.object_truth.shape))
    say(f"written     {output}")
    return scan


def train(
    train_data_file: Path | None,
    test_data_file: Path | None,
    output_dir: Path,
    overrides: Mapping[str, Any],
    *,
    start_from: Path | None = None,
    stream: STREAM = "auto",
    resume: bool = False,
    quiet: bool = False,
) -> TrainResult:
    """Train a model and draw its loss curve.

    Args:
        train_data_file: The scan to train on; may be left out where a training is resumed.
        test_data_file: A scan to validate on.
        output_dir: Where everything goes.
        overrides: Configuration values that the user set.
        start_from: A bundle to begin with, or the folder that a training wrote it to.
        stream: Whether patterns stay in their file.
        resume: Go on with what was interrupted in this folder, as it was begun.
        quiet: Print nothing, no progress bar.

    Raises:
        KeyboardInterrupt: The training was interrupted; says how to go on.
    """
    say = _speaker(quiet or not is_first())
    folder = interrupted_run(output_dir) if resume else new_run(output_dir)
    if resume:
        begun = RunRecord.read(folder)
        overrides = begun.overrides | dict(overrides)
        train_data_file = train_data_file or Path(begun.train_data_file)
        test_data_file = test_data_file or (Path(begun.test_data_file) if begun.test_data_file else None)
    with _saying_how_to_go_on(folder, output_dir):
        payload = create_training_payload(cast("Path", train_data_file), output_dir, overrides)
        _say_payload(payload, say)
        _say_folder(folder, resume, say)
        result = workflow.train(
            payload,
            test_data_file=test_data_file,
            start_from=None if start_from is None else workflow.bundle_in(start_from),
            stream=stream,
            resume=resume,
            preview=True,
            quiet=quiet,
        )
        picture = output_dir / LOSS_NAME
        if is_first():
            save_loss_curve(picture, result.losses, LOSS_LABELS[payload.training.loss])
    for name, values in result.losses.items():
        say(f"{name:<11} {values[0]:.5g} -> {values[-1]:.5g} in {len(values)} epochs")
    say(f"written     {result.model_path}, {picture}")
    return result


@contextmanager
def _saying_how_to_go_on(folder: Path, output_dir: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        if checkpoints_of(folder):
            how = f"go on with: ptycho-torch train --resume --output_dir {shlex.quote(str(output_dir))}"
        else:
            how = "no epoch was over yet, so there is nothing to resume: begin again with the same command"
        raise KeyboardInterrupt(how) from None


def infer(
    model_path: Path,
    test_data: Path,
    output_dir: Path,
    *,
    refine_epochs: int = workflow.REFINE_EPOCHS,
    refine_probe: bool = False,
    devices: int = 1,
    tile_bytes: int = TILE_BYTES,
    quiet: bool = False,
) -> InferenceResult:
    """Reconstruct the object of a scan and draw its amplitude and phase.

    Args:
        model_path: A bundle, or the folder that a training wrote it to.
        test_data: The scan.
        output_dir: Where everything goes.
        refine_epochs: Epochs of the iterative engine, from what the model saw.
        refine_probe: Refine the probe as well.
        devices: How many processes share the tiles of a large scan.
        tile_bytes: What a tile may take.
        quiet: Print nothing.
    """
    say = _speaker(quiet)
    model_path = workflow.bundle_in(model_path)
    say(f"model       {model_path}")
    say(f"scan        {test_data}")
    say(f"working     predicting the object, then refining it for {refine_epochs} epochs")
    how = {"refine_epochs": refine_epochs, "refine_probe": refine_probe, "devices": devices, "tile_bytes": tile_bytes}
    result = workflow.infer(model_path, test_data, output_dir, **how, quiet=quiet)
    settings = {"refine": refine_epochs, "refine_probe": refine_probe}
    _present(result, _record(result, test_data, model_path, settings), output_dir, say)
    return result


def reconstruct(
    test_data: Path, output_dir: Path, *, epochs: int, refine_probe: bool = False, quiet: bool = False
) -> InferenceResult:
    """Reconstruct the object of a scan without a model and draw its amplitude and phase.

    Args:
        test_data: The scan.
        output_dir: Where everything goes.
        epochs: How often the iterative engine uses each pattern.
        refine_probe: Refine the probe as well.
        quiet: Print nothing.
    """
    say = _speaker(quiet)
    say(f"scan        {test_data}")
    result = workflow.iterate(test_data, output_dir, epochs, refine_probe=refine_probe, quiet=quiet)
    settings = {"epochs": epochs, "refine_probe": refine_probe}
    _present(result, _record(result, test_data, None, settings), output_dir, say)
    return result


def _record(
    result: InferenceResult, test_data: Path, model_path: Path | None, settings: Mapping[str, Any]
) -> ReconstructionRecord:
    return ReconstructionRecord(
        test_data=str(test_data.resolve()),
        model_path=None if model_path is None else str(model_path.resolve()),
        settings=settings,
        rows=result.obj.shape[0],
        columns=result.obj.shape[1],
        origin=list(result.origin),
        misfit=result.misfit,
        misfits=list(result.misfits),
        bad_pixels=result.bad_pixels,
        versions=versions(),
        finished=now(),
    )


def _present(result: InferenceResult, record: ReconstructionRecord, output_dir: Path, say: Any) -> None:
    """Draw a reconstruction and say how good it is and where it went."""
    pictures = (
        _draw_overview(result, output_dir / OVERVIEW_NAME),
        save_amplitude(output_dir / AMPLITUDE_NAME, result.obj, result.origin, result.weight),
        save_phase(output_dir / PHASE_NAME, result.obj, result.origin, result.weight),
    )
    _say_reconstruction(result, say)
    if result.comparison is not None:
        say(quality_table(result.comparison, result.seen if result.misfits else None))
    written = (result.reconstruction_path, *pictures, result.metrics_path, record.write(output_dir))
    say(f"written     {', '.join(str(path) for path in written if path is not None)}")


def _draw_overview(result: InferenceResult, path: Path) -> Path:
    title, known = f"misfit {result.misfit:.4f}", None
    if result.comparison is not None:
        ours, flat = result.comparison.reconstruction, result.comparison.flat
        known = Known(result.comparison.truth, result.comparison.aligned, result.comparison.origin)
        title += (
            f", amplitude error {ours.amplitude_mae:.3f} (flat object {flat.amplitude_mae:.3f}), "
            f"phase error {ours.phase_mae_rad:.3f} rad (flat object {flat.phase_mae_rad:.3f} rad)"
        )
    return save_overview(path, result.obj, result.origin, result.weight, result.misfits, known, title)


def quality_table(comparison: Comparison, before: Comparison | None = None) -> str:
    """Return the quality of a reconstruction, before it was refined, and of a flat object, one measure a line."""
    columns = {"flat object": comparison.flat, "reconstruction": comparison.reconstruction}
    if before is not None:
        columns = {
            "flat object": comparison.flat,
            "unrefined": before.reconstruction,
            "refined": comparison.reconstruction,
        }
    rows = [f"{'against the truth':<29}" + "".join(f"{name:>16}" for name in columns)]
    for label, key in QUALITY_ROWS:
        rows.append(f"  {label:<27}" + "".join(f"{getattr(quality, key):>16.4g}" for quality in columns.values()))
    return "\n".join(rows)


def _speaker(quiet: bool) -> Any:
    # Flushed, so that the lines appear before the long work that they announce, also in a pipe.
    return (lambda text: None) if quiet else (lambda text: print(text, flush=True))


def _say_payload(payload: TrainingPayload, say: Any) -> None:
    data, training = payload.data, payload.training
    canvas = padded_size(data.N, data.gridsize, data.max_neighbor_distance)
    say(
        f"scan        {payload.train_data_file}: N={data.N}, P={payload.model.P}, {data.nphotons:.3g} counts per pattern"
    )
    say(
        f"groups      {data.n_groups} of C={data.C} (gridsize {data.gridsize}) drawn from the {data.neighbor_count} nearest, "
        f"canvas M={canvas}"
    )
    say(
        f"training    at most {training.max_epochs} epochs, batches of {training.batch_size}, {training.loss} loss, "
        f"on {training.accelerator}"
    )


def _say_folder(folder: Path, resume: bool, say: Any) -> None:
    say(
        f"{'resuming' if resume else 'log':<11} {folder}: losses, checkpoints, {PREVIEW_NAME} (redrawn while it trains)"
    )
    if find_spec("tensorboard") is not None:
        say(f"            tensorboard --logdir {shlex.quote(str(folder.parent))}")


def _say_reconstruction(result: InferenceResult, say: Any) -> None:
    rows, columns = result.obj.shape
    say(f"object      {rows} x {columns} pixels, index [0, 0] at (row, col) = {result.origin}")
    if result.misfits:
        say(f"refined     {len(result.misfits)} epochs, misfit {result.misfits[0]:.4f} in the first")
    if result.bad_pixels:
        say(f"bad pixels  {result.bad_pixels}, left out")
    say(f"misfit      {result.misfit:.4f} = sum |predicted - measured| / sum measured amplitude")
