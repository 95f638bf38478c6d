"""A training that is interrupted, at any moment, and resumed ends like one that was not."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ptycho_torch import cli, learner, workflow
from ptycho_torch.config_factory import TrainingPayload, create_training_payload
from ptycho_torch.dataloader import PtychoDataContainerTorch
from ptycho_torch.grouping import group_positions
from ptycho_torch.losses import poisson_loss
from ptycho_torch.resuming import WholeCheckpoints, record_of
from ptycho_torch.runs import ResumeError, RunRecord, checkpoint_folder, newest_first, read_losses
from ptycho_torch.scan import load_scan, open_scan, save_scan
from ptycho_torch.simulate import simulate_natural_scan
from ptycho_torch.workflow import TrainResult, train

EPOCHS, BATCHES = 3, 2
OVERRIDES = {"gridsize": 2, "n_groups": 8, "batch_size": 5, "max_epochs": EPOCHS, "accelerator": "cpu"}
Interrupt = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture(scope="module")
def scan_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scan") / "scan.npz"
    save_scan(simulate_natural_scan(patch_size=16, n_rows=6, n_columns=7, step=3.0, jitter=1.0, seed=2), path)
    return path


@pytest.fixture(scope="module", autouse=True)
def _randomness_in_every_step() -> Iterator[None]:
    """Draw random numbers while training, as a network with dropout would: a resumed run must draw the same."""

    def noisy(predicted: torch.Tensor, measured: torch.Tensor, bad: torch.Tensor | None) -> torch.Tensor:
        return poisson_loss(predicted * (1 + 0.01 * torch.rand_like(predicted)), measured, bad)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learner, "poisson_loss", noisy)
        yield


def payload_for(scan_path: Path, output_dir: Path, **overrides: object) -> TrainingPayload:
    return create_training_payload(scan_path, output_dir, OVERRIDES | overrides)


@pytest.fixture(scope="module")
def uninterrupted(scan_path: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    return train(
        payload_for(scan_path, tmp_path_factory.mktemp("whole")), test_data_file=scan_path, preview=True, quiet=True
    )


def call_number(number: int, function: Callable[..., object], *, before: Callable[[], object]) -> Callable[..., object]:
    """Stand in for a function that does something else before one of its calls."""
    calls = 0

    def counted(*arguments: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls == number:
            before()
        return function(*arguments, **options)

    return counted


def interrupt() -> None:
    raise KeyboardInterrupt


def in_step(number: int) -> Interrupt:
    def arrange(patch: pytest.MonkeyPatch) -> None:
        step = call_number(number, learner.PtychoLearner._loss, before=interrupt)  # noqa: SLF001 - any moment will do
        patch.setattr(learner.PtychoLearner, "_loss", step)

    return arrange


def before_call(owner: object, name: str, number: int) -> Interrupt:
    def arrange(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(owner, name, call_number(number, getattr(owner, name), before=interrupt))

    return arrange


def half_written(patch: pytest.MonkeyPatch) -> None:
    """Interrupt the writing of the best checkpoint of the second epoch, after some bytes."""
    written = []
    save = torch.save

    def torn(checkpoint: object, stream: object, *more: object) -> None:
        written.append(stream)
        if len(written) == 3:
            stream.write(b"half")
            interrupt()
        save(checkpoint, stream, *more)

    patch.setattr("ptycho_torch.resuming.torch.save", torn)


STEPS = 2 * BATCHES  # of training and of validation, in an epoch
MOMENTS = {
    "in the middle of an epoch": in_step(STEPS + 2),
    "while validating": in_step(STEPS + BATCHES + 1),
    "before the checkpoint of an epoch": before_call(WholeCheckpoints, "save_checkpoint", 3),
    "between the best checkpoint and the last": before_call(WholeCheckpoints, "save_checkpoint", 2),
    "while a checkpoint is written": half_written,
    "before the losses of an epoch are written": before_call(learner.CSVLogger, "save", 4),
    "before the bundle": before_call(workflow, "save_bundle", 1),
}


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_a_run_resumed_after_any_interrupt_is_bit_for_bit_the_uninterrupted_one(
    scan_path, tmp_path, uninterrupted, moment
):
    payload = payload_for(scan_path, tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        moment(patch)
        with pytest.raises(KeyboardInterrupt):
            train(payload, test_data_file=scan_path, quiet=True)
    assert not (tmp_path / workflow.BUNDLE_NAME).exists()
    resumed = train(payload, test_data_file=scan_path, resume=True, quiet=True)
    assert resumed.model_path.read_bytes() == uninterrupted.model_path.read_bytes()
    assert resumed.losses == uninterrupted.losses
    assert read_losses(resumed.metrics_csv) == resumed.losses
    assert [folder.name for folder in newest_first(tmp_path)] == ["version_0"]
    last, expected = (torch.load(run.last_checkpoint, weights_only=True) for run in (resumed, uninterrupted))
    assert all(last[part] == expected[part] for part in ("lr_schedulers", "epoch", "global_step"))
    states = (checkpoint["optimizer_states"][0]["state"] for checkpoint in (last, expected))
    torch.testing.assert_close(*states, rtol=0, atol=0)


def test_runs_of_another_seed_are_told_apart_by_that_comparison(scan_path, tmp_path, uninterrupted):
    other = train(payload_for(scan_path, tmp_path, seed=1), test_data_file=scan_path, quiet=True)
    assert other.model_path.read_bytes() != uninterrupted.model_path.read_bytes()
    assert other.losses != uninterrupted.losses


@pytest.fixture(scope="module")
def _stopped(scan_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as patch:
        MOMENTS["in the middle of an epoch"](patch)
        with pytest.raises(KeyboardInterrupt):
            train(payload_for(scan_path, folder), test_data_file=scan_path, quiet=True)
    return folder


@pytest.fixture
def stopped(_stopped: Path, tmp_path: Path) -> Path:
    """The folder of a run that was interrupted in its second epoch, moved elsewhere."""
    return shutil.copytree(_stopped, tmp_path / "moved")


def test_a_folder_that_was_moved_can_be_resumed(scan_path, stopped, uninterrupted):
    resumed = train(payload_for(scan_path, stopped), test_data_file=scan_path, resume=True, quiet=True)
    assert resumed.model_path.read_bytes() == uninterrupted.model_path.read_bytes()
    assert resumed.best_checkpoint.is_relative_to(stopped)
    assert resumed.last_checkpoint.is_relative_to(stopped)


def test_a_finished_run_that_is_resumed_trains_no_more_and_writes_its_bundle_again(scan_path, tmp_path, uninterrupted):
    shutil.copytree(uninterrupted.model_path.parent, tmp_path / "copy")
    (tmp_path / "copy" / workflow.BUNDLE_NAME).unlink()
    payload = payload_for(scan_path, tmp_path / "copy")
    with pytest.MonkeyPatch.context() as patch:
        in_step(1)(patch)
        resumed = train(payload, test_data_file=scan_path, resume=True, quiet=True)
    assert resumed.model_path.read_bytes() == uninterrupted.model_path.read_bytes()
    assert resumed.losses == uninterrupted.losses


def test_a_run_that_stopped_early_stays_stopped_when_it_is_resumed(scan_path, tmp_path, monkeypatch):
    monkeypatch.setattr(learner, "poisson_loss", lambda predicted, *_: predicted.sum() * 0 + 1)  # never improves
    payload = payload_for(scan_path, tmp_path, early_stopping_patience=1)
    stopped = train(payload, quiet=True)
    assert len(stopped.losses["train_loss"]) == 2
    again = train(payload, resume=True, quiet=True)
    assert again.losses == stopped.losses


# --- what cannot be resumed ---------------------------------------------------------------------------------
def test_without_a_checkpoint_there_is_nothing_to_resume(scan_path, tmp_path):
    payload = payload_for(scan_path, tmp_path)
    with pytest.raises(ResumeError, match=r"got no training\. Leave --resume out to begin"):
        train(payload, resume=True, quiet=True)
    with pytest.MonkeyPatch.context() as patch:
        in_step(2)(patch)
        with pytest.raises(KeyboardInterrupt):
            train(payload, quiet=True)
    with pytest.raises(ResumeError, match="ended in their first epoch"):
        train(payload, resume=True, quiet=True)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"batch_size": 6}, "batch_size=5, as the run was begun, got batch_size=6"),
        ({"max_epochs": 9}, "max_epochs=3, as the run was begun, got max_epochs=9"),
        ({"loss": "mae"}, "loss=poisson, as the run was begun, got loss=mae"),
        ({"neighbor_count": 7}, "neighbor_count=6, as the run was begun, got neighbor_count=7"),
    ],
)
def test_another_configuration_is_refused_by_name(scan_path, stopped, overrides, expected):
    with pytest.raises(ResumeError, match=expected):
        train(payload_for(scan_path, stopped, **overrides), test_data_file=scan_path, resume=True, quiet=True)


def test_where_it_computes_may_be_another_place(scan_path, stopped, uninterrupted):
    payload = payload_for(scan_path, stopped, num_workers=1)
    resumed = train(payload, test_data_file=scan_path, resume=True, quiet=True)
    assert resumed.losses == uninterrupted.losses


def changed(path: Path, change: str) -> Path:
    scan = load_scan(path)
    amplitude, x, probe = scan.diffraction_amplitude.copy(), scan.xcoords.copy(), scan.probe.copy()
    if change == "patterns mirrored":
        amplitude = amplitude[:, :, ::-1].copy()
    elif change == "some patterns brighter":
        amplitude[::5] *= 1.5
    elif change == "some positions moved":
        x[::5] += 0.25
    else:
        probe *= 2
    target = path.with_name(f"{change}.npz")
    save_scan(replace(scan, diffraction_amplitude=amplitude, xcoords=x, probe=probe, object_truth=None), target)
    return target


@pytest.mark.parametrize(
    "change", ["patterns mirrored", "some patterns brighter", "some positions moved", "probe of another scale"]
)
def test_another_scan_is_refused(scan_path, stopped, change):
    other = changed(scan_path, change)
    with pytest.raises(ResumeError, match="Expected train_data_file to hold what the run was begun with"):
        train(payload_for(other, stopped), test_data_file=scan_path, resume=True, quiet=True)
    with pytest.raises(ResumeError, match="Expected test_data_file to hold what the run was begun with"):
        train(payload_for(scan_path, stopped), test_data_file=other, resume=True, quiet=True)


def test_which_pixels_are_bad_is_part_of_what_a_run_was_begun_with(scan_path, tmp_path):
    payload, scan = payload_for(scan_path, tmp_path), open_scan(scan_path)
    groups = group_positions(scan.xcoords, scan.ycoords, 2, 6, 5, 3)
    container = PtychoDataContainerTorch.from_groups(load_scan(scan_path), groups)
    one, other = torch.eye(16, dtype=torch.bool), torch.eye(16, dtype=torch.bool).flip(0)
    fingerprints = [
        record_of(payload, scan, replace(container, bad_pixels=bad)).fingerprints["train"]
        for bad in (None, one, other, None, one, other)
    ]
    assert len(set(fingerprints)) == 3
    assert fingerprints[:3] == fingerprints[3:]


def test_a_run_that_was_validated_goes_on_with_validation_only(scan_path, stopped):
    with pytest.raises(ResumeError, match="something else in no file"):
        train(payload_for(scan_path, stopped), resume=True, quiet=True)


def test_a_damaged_checkpoint_is_named_and_what_is_left_of_an_unfinished_one_ignored(scan_path, stopped):
    payload = payload_for(scan_path, stopped)
    (folder,) = newest_first(stopped)
    last = checkpoint_folder(folder) / "last.ckpt"
    last.with_name(".last.ckpt.0123").write_bytes(b"half")  # of a process that was killed
    whole = last.read_bytes()
    last.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"last\.ckpt to be a whole checkpoint"):
        train(payload, test_data_file=scan_path, resume=True, quiet=True)
    last.write_bytes(whole)
    assert train(payload, test_data_file=scan_path, resume=True, quiet=True).model_path.exists()


class Harmful:
    """Something that leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.trace,))


def test_nothing_in_a_checkpoint_is_executed(scan_path, stopped, tmp_path):
    (folder,) = newest_first(stopped)
    trace = tmp_path / "trace"
    torch.save({"global_step": Harmful(trace)}, checkpoint_folder(folder) / "last.ckpt")
    with pytest.raises(ValueError, match=r"last\.ckpt to be a whole checkpoint"):
        train(payload_for(scan_path, stopped), test_data_file=scan_path, resume=True, quiet=True)
    assert not trace.exists()
    torch.load(checkpoint_folder(folder) / "last.ckpt", weights_only=False)
    assert trace.exists()


def test_what_a_run_was_told_is_in_its_folder_before_the_first_epoch(scan_path, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        in_step(1)(patch)
        with pytest.raises(KeyboardInterrupt):
            train(payload_for(scan_path, tmp_path), quiet=True)
    record = RunRecord.read(next(newest_first(tmp_path)))
    assert record.overrides == OVERRIDES
    assert record.train_data_file == str(scan_path)
    assert record.scan["patterns"] == 42
    assert record.settings["C"] == {"default": 4, "used": 4, "source": "derived"}


# --- from the command line ----------------------------------------------------------------------------------
def run_train(scan_path: Path, folder: Path, *more: str) -> int:
    options = [str(part) for key, value in OVERRIDES.items() for part in (f"--{key}", value)]
    files = ["--train_data_file", str(scan_path), "--test_data_file", str(scan_path), "--output_dir", str(folder)]
    return cli.main(["train", *files, *options, "--quiet", *more])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_ends_a_training_with_one_line_that_says_how_to_go_on(
    scan_path, tmp_path, capsys, uninterrupted, number
):
    before = signal.getsignal(number)
    step = learner.PtychoLearner._loss  # noqa: SLF001 - any moment will do
    with pytest.MonkeyPatch.context() as patch:
        told = call_number(STEPS + 2, step, before=lambda: os.kill(os.getpid(), number))
        patch.setattr(learner.PtychoLearner, "_loss", told)
        assert run_train(scan_path, tmp_path / "a b") == 130
    assert signal.getsignal(number) is before
    error = capsys.readouterr().err
    folder = tmp_path / "a b"
    assert error == f"ptycho-torch: interrupted; go on with: ptycho-torch train --resume --output_dir '{folder}'\n"
    assert cli.main(["train", "--resume", "--output_dir", str(folder), "--quiet"]) == 0
    assert (folder / "model.ptycho").read_bytes() == uninterrupted.model_path.read_bytes()
    assert (folder / "loss.png").exists()
    assert capsys.readouterr().err == ""


def test_an_interrupt_in_the_first_epoch_says_to_begin_again(scan_path, tmp_path, capsys, monkeypatch):
    in_step(2)(monkeypatch)
    assert run_train(scan_path, tmp_path) == 130
    assert "no epoch was over yet" in capsys.readouterr().err


def test_options_that_differ_from_the_run_are_bad_input(scan_path, stopped, tmp_path, capsys):
    assert cli.main(["train", "--resume", "--output_dir", str(stopped), "--batch_size", "7", "--quiet"]) == 2
    assert "batch_size=5, as the run was begun, got batch_size=7" in capsys.readouterr().err
    assert run_train(scan_path, stopped, "--resume") == 0
    assert cli.main(["train", "--resume", "--output_dir", str(tmp_path / "none"), "--quiet"]) == 2
    assert "no training" in capsys.readouterr().err
