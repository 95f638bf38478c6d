"""What the commands do: the work of `workflow`, its results as pictures, and a summary for the person who waits.

Owns the names of the pictures and the wording of the summaries. Arguments and exit codes are `cli`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ptycho_torch import workflow
from ptycho_torch.config_factory import TrainingPayload, create_training_payload
from ptycho_torch.figures import save_amplitude, save_loss_curve, save_phase
from ptycho_torch.helper import padded_size
from ptycho_torch.quality import Comparison
from ptycho_torch.scan import Scan
from ptycho_torch.simulate import save_simulation, simulate_natural_scan
from ptycho_torch.workflow import InferenceResult, TrainResult

__all__ = [
    "AMPLITUDE_NAME",
    "LOSS_NAME",
    "PHASE_NAME",
    "infer",
    "quality_table",
    "reconstruct",
    "simulate",
    "train",
]

AMPLITUDE_NAME = "amplitude.png"
PHASE_NAME = "phase.png"
LOSS_NAME = "loss.png"
LOSS_LABELS = {"poisson": "loss, nats per detector pixel", "mae": "loss, mean |amplitude error|, normalised"}

_QUALITY_ROWS = (
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
    train_data_file: Path,
    test_data_file: Path | None,
    output_dir: Path,
    overrides: Mapping[str, Any],
    *,
    quiet: bool = False,
) -> TrainResult:
    """Train a model and draw its loss curve.

    Args:
        train_data_file: The scan to train on.
        test_data_file: A scan to validate on.
        output_dir: Where everything goes.
        overrides: Configuration values that the user set.
        quiet: Print nothing, no progress bar.
    """
    say = _speaker(quiet)
    payload = create_training_payload(train_data_file, output_dir, overrides)
    _say_payload(payload, say)
    result = workflow.train(payload, test_data_file=test_data_file, quiet=quiet)
    picture = save_loss_curve(output_dir / LOSS_NAME, result.losses, LOSS_LABELS[payload.training.loss])
    for name, values in result.losses.items():
        say(f"{name:<11} {values[0]:.5g} -> {values[-1]:.5g} in {len(values)} epochs")
    say(f"written     {result.model_path}, {picture}")
    return result


def infer(
    model_path: Path,
    test_data: Path,
    output_dir: Path,
    *,
    refine_epochs: int = workflow.REFINE_EPOCHS,
    refine_probe: bool = False,
    quiet: bool = False,
) -> InferenceResult:
    """Reconstruct the object of a scan and draw its amplitude and phase.

    Args:
        model_path: A bundle, or the folder that a training wrote it to.
        test_data: The scan.
        output_dir: Where everything goes.
        refine_epochs: Epochs of the iterative engine, from what the model saw.
        refine_probe: Refine the probe as well.
        quiet: Print nothing.
    """
    say = _speaker(quiet)
    if model_path.is_dir():
        model_path = model_path / workflow.BUNDLE_NAME
    say(f"model       {model_path}")
    say(f"scan        {test_data}")
    say(f"working     predicting every patch, then refining the whole object for {refine_epochs} epochs")
    result = workflow.infer(
        model_path, test_data, output_dir, refine_epochs=refine_epochs, refine_probe=refine_probe, quiet=quiet
    )
    _present(result, output_dir, say)
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
    _present(result, output_dir, say)
    return result


def _present(result: InferenceResult, output_dir: Path, say: Any) -> None:
    """Draw a reconstruction and say how good it is and where it went."""
    pictures = (
        save_amplitude(output_dir / AMPLITUDE_NAME, result.obj, result.origin, result.weight),
        save_phase(output_dir / PHASE_NAME, result.obj, result.origin, result.weight),
    )
    _say_reconstruction(result, say)
    if result.comparison is not None:
        say(quality_table(result.comparison))
    written = (result.reconstruction_path, *pictures, result.metrics_path)
    say(f"written     {', '.join(str(path) for path in written if path is not None)}")


def quality_table(comparison: Comparison) -> str:
    """Return the quality of a reconstruction beside that of a flat object, one measure a line."""
    rows = [f"{'against the truth':<29}{'reconstruction':>15}{'flat object':>13}"]
    for label, key in _QUALITY_ROWS:
        ours, flat = getattr(comparison.reconstruction, key), getattr(comparison.flat, key)
        rows.append(f"  {label:<27}{ours:>15.4g}{flat:>13.4g}")
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


def _say_reconstruction(result: InferenceResult, say: Any) -> None:
    rows, columns = result.obj.shape
    say(f"object      {rows} x {columns} pixels, index [0, 0] at (row, col) = {result.origin}")
    if result.misfits:
        say(f"refined     {len(result.misfits)} epochs, misfit {result.misfits[0]:.4f} in the first")
    say(f"misfit      {result.misfit:.4f} = sum |predicted - measured| / sum measured amplitude")
