"""From files to files: loaders, training, bundle, inference, and what none of it may depend on."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import shapecheck
from ptycho_torch import workflow
from ptycho_torch.bundle import load_bundle
from ptycho_torch.config_factory import TrainingPayload, create_training_payload
from ptycho_torch.contracts import Batch
from ptycho_torch.dataloader import PtychoDataContainerTorch, PtychoGroupDataset
from ptycho_torch.grouping import group_positions
from ptycho_torch.reconstruction import reconstruct
from ptycho_torch.scan import load_scan, save_scan
from ptycho_torch.simulate import simulate_natural_scan
from ptycho_torch.workflow import _build_lightning_dataloaders, infer, train

SIZES = {"patch_size": 32, "n_rows": 9, "n_columns": 7, "step": 3.5, "jitter": 1.0, "nphotons": 1e5}


def write_scan(path: Path, seed: int = 3, **sizes: float) -> Path:
    save_scan(simulate_natural_scan(**(SIZES | sizes), seed=seed), path)
    return path


def make_payload(scan_path: Path, output_dir: Path, gridsize: int = 2, **overrides: object) -> TrainingPayload:
    settings = {"gridsize": gridsize, "n_groups": 20, "batch_size": 6, "max_epochs": 2, "accelerator": "cpu"}
    return create_training_payload(scan_path, output_dir, settings | overrides)


def make_container(payload: TrainingPayload) -> PtychoDataContainerTorch:
    scan, data = load_scan(payload.train_data_file), payload.data
    groups = group_positions(scan.xcoords, scan.ycoords, data.gridsize, data.neighbor_count, data.n_groups, data.seed)
    return PtychoDataContainerTorch.from_groups(scan, groups, with_truth=False)


@pytest.fixture(scope="module")
def scan_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scan(tmp_path_factory.mktemp("scan") / "scan.npz")


# --- loaders ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("gridsize", [1, 2])
def test_batches_hold_one_offset_for_every_patch_of_every_group(scan_path, tmp_path, gridsize):
    payload = make_payload(scan_path, tmp_path, gridsize)
    container = make_container(payload)
    train_loader, validation_loader = _build_lightning_dataloaders(container, container, payload)
    sizes = []
    for batch in (*train_loader, *validation_loader):
        groups = batch[0]["images"].shape[0]
        sizes.append(groups)
        assert batch[0]["coords_relative"].shape == (groups, gridsize**2, 1, 2)
        assert batch[0]["coords_relative"].numel() == groups * gridsize**2 * 2
        assert batch[0]["images"].shape == (groups, gridsize**2, 32, 32)
        assert batch[1].shape == (groups, gridsize**2, 1, 32, 32)
        assert batch[2].shape == (groups, 1, 1, 1)
    assert sizes == [6, 6, 6, 2] * 2  # the last batch is partial


def test_training_batches_are_shuffled_by_the_seed_alone_and_validation_not_at_all(scan_path, tmp_path):
    def order(seed: int, which: int) -> list[int]:
        payload = make_payload(scan_path, tmp_path, seed=seed)
        loader = _build_lightning_dataloaders(container, container, payload)[which]
        return [int(group[0]) for batch in loader for group in batch[0]["nn_indices"]]

    container = make_container(make_payload(scan_path, tmp_path))
    torch.manual_seed(1)
    first = order(0, 0)
    torch.manual_seed(2)
    assert order(0, 0) == first
    assert order(1, 0) != first
    assert order(0, 1) == container.nn_indices[:, 0].tolist() == order(1, 1)


def test_without_test_data_there_is_no_validation_loader(scan_path, tmp_path):
    payload = make_payload(scan_path, tmp_path)
    assert _build_lightning_dataloaders(make_container(payload), None, payload)[1] is None


class ChannelLast(PtychoGroupDataset):
    """The historical bug: offsets leave the loader in the layout of the file, (B, 1, 2, C)."""

    def coords_relative(self, chosen: torch.Tensor) -> torch.Tensor:
        return super().coords_relative(chosen).permute(0, 2, 3, 1).contiguous()


@pytest.mark.violation
@pytest.mark.parametrize("gridsize", [1, 2])
def test_a_channel_last_loader_is_stopped_where_the_batch_leaves_it(scan_path, tmp_path, monkeypatch, gridsize):
    payload = make_payload(scan_path, tmp_path, gridsize)
    container = make_container(payload)
    assert len(next(iter(_build_lightning_dataloaders(container, None, payload)[0]))) == 3
    monkeypatch.setattr(workflow, "PtychoGroupDataset", ChannelLast)
    loader, _ = _build_lightning_dataloaders(container, None, payload)
    with pytest.raises(shapecheck.ContractError) as caught:
        next(iter(loader))
    assert "batch[0]['coords_relative']" in str(caught.value).splitlines()[0]


@pytest.mark.violation
@pytest.mark.parametrize("C", [1, 2, 4])
def test_channel_last_offsets_violate_the_contract_of_a_batch_for_any_number_of_channels(C):
    B, N = 3, 16
    fields = {
        "images": torch.rand(B, C, N, N),
        "coords_relative": torch.zeros(B, C, 1, 2),
        "rms_scaling_constant": torch.ones(B, 1, 1, 1),
        "physics_scaling_constant": torch.ones(B, 1, 1, 1),
        "nn_indices": torch.zeros(B, C, dtype=torch.int64),
        "experiment_id": torch.zeros(B, dtype=torch.int64),
    }
    batch = (fields, torch.zeros(B, C, 2, N, N, dtype=torch.complex64), torch.ones(B, 1, 1, 1))
    assert shapecheck.check(batch, Batch, name="batch", dims={"C": C, "N": N}) is batch
    fields["coords_relative"] = fields["coords_relative"].permute(0, 2, 3, 1)
    with pytest.raises(shapecheck.ContractError, match=r"batch\[0\]\['coords_relative'\]"):
        shapecheck.check(batch, Batch, name="batch", dims={"C": C, "N": N})


# --- training and inference, file to file ----------------------------------------------------------


@pytest.fixture(scope="module", params=[1, 2], ids=["gridsize1", "gridsize2"])
def run(request, scan_path, tmp_path_factory):
    """A training run and an inference on the same scan."""
    output_dir = tmp_path_factory.mktemp(f"run{request.param}")
    payload = make_payload(scan_path, output_dir, request.param, n_groups=60 // request.param**2 + 5, batch_size=4)
    trained = train(payload, quiet=True)
    return payload, trained, infer(trained.model_path, scan_path, output_dir, refine_epochs=0)


def test_refinement_explains_the_patterns_better_and_is_written(run, scan_path, tmp_path):
    _, trained, seen = run
    refined = infer(trained.model_path, scan_path, tmp_path, refine_epochs=12, refine_probe=True, quiet=True)
    assert seen.misfits == ()
    assert len(refined.misfits) == 12
    assert refined.misfit < 0.7 * seen.misfit
    assert refined.seen.reconstruction.nrmse == seen.comparison.reconstruction.nrmse
    assert refined.comparison.reconstruction.nrmse < 0.7 * seen.comparison.reconstruction.nrmse
    with np.load(refined.reconstruction_path, allow_pickle=False) as written, np.load(scan_path) as scan:
        np.testing.assert_array_equal(written["object"], refined.obj)
        np.testing.assert_array_equal(written["probe"], refined.probe)
        assert not np.array_equal(refined.probe[0], scan["probeGuess"])
        np.testing.assert_array_equal(seen.probe[0], scan["probeGuess"])


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"refine_epochs": -1}, "refine_epochs to be at least 0, got -1"),
        ({"refine_epochs": 0, "refine_probe": True}, "refine_epochs to be at least 1 where the probe"),
        ({"devices": 0}, "devices to be at least 1, got 0"),
    ],
)
def test_a_request_that_no_scan_could_have_is_refused_before_any_file_is_opened(tmp_path, wanted, expected):
    with pytest.raises(ValueError, match=f"Expected {expected}"):
        infer(tmp_path / "none.ptycho", tmp_path / "none.npz", tmp_path / "out", **wanted)
    assert not (tmp_path / "out").exists()


def test_run_pytorch_train_save_load_infer(run, scan_path, tmp_path):
    payload, trained, inferred = run
    loaded = load_bundle(trained.model_path)
    assert isinstance(loaded.model, nn.Module)
    assert loaded.configs.data == payload.data
    best = torch.load(trained.best_checkpoint, weights_only=True)["state_dict"]
    for name, tensor in loaded.model.state_dict().items():
        assert torch.equal(tensor, best[f"model.{name}"]), name
    before = type(loaded.model)(payload.model, loaded.model.probe)
    before.load_state_dict({name.removeprefix("model."): tensor for name, tensor in best.items()})
    scan = load_scan(scan_path)
    outputs = [reconstruct(model.eval(), scan).obj for model in (before, loaded.model)]
    assert torch.equal(*outputs)

    again = infer(trained.model_path, scan_path, tmp_path, refine_epochs=0)
    np.testing.assert_array_equal(again.obj, inferred.obj)
    ours, flat = inferred.comparison.reconstruction, inferred.comparison.flat
    assert ours.amplitude_mae < 0.8 * flat.amplitude_mae
    assert ours.phase_mae_rad < 0.8 * flat.phase_mae_rad
    assert ours.nrmse < 0.8 * flat.nrmse
    assert ours.correlation > flat.correlation


def test_training_lowers_the_loss_and_logs_it(run):
    _, trained, _ = run
    losses = trained.losses["train_loss"]
    assert len(losses) == 2
    assert losses[-1] < losses[0]
    assert "val_loss" not in trained.losses
    assert trained.metrics_csv.is_file()
    assert trained.best_checkpoint.is_file()
    assert trained.last_checkpoint.is_file()


def test_inference_writes_object_weight_origin_probe_and_metrics(run):
    _, _, inferred = run
    with np.load(inferred.reconstruction_path) as written:
        assert sorted(written.files) == ["object", "origin", "probe", "weight"]
        assert written["object"].dtype == np.complex64
        assert written["weight"].dtype == np.float32
        assert written["origin"].dtype == np.int64
        np.testing.assert_array_equal(written["object"], inferred.obj)
        np.testing.assert_array_equal(written["weight"], inferred.weight)
        assert tuple(written["origin"]) == inferred.origin
    assert inferred.obj.shape == inferred.weight.shape
    assert inferred.obj.shape[0] != inferred.obj.shape[1]
    metrics = json.loads(inferred.metrics_path.read_text())
    assert metrics["reconstruction"] == inferred.comparison.reconstruction.as_dict()
    assert metrics["flat"]["correlation"] < metrics["reconstruction"]["correlation"]
    assert metrics["misfit"] == inferred.misfit


def test_the_written_object_is_where_its_origin_says(run, scan_path, tmp_path, shared):
    sys.path.insert(0, str(shared))
    try:
        import metrics
    finally:
        sys.path.remove(str(shared))
    _, trained, _ = run
    inferred = infer(trained.model_path, scan_path, tmp_path, quiet=True)
    scan = load_scan(scan_path)
    placed = metrics.embed_like(inferred.obj, inferred.origin, scan.object_truth.shape)
    found = metrics.evaluate(placed, scan.object_truth, metrics.scan_region(scan.ycoords, scan.xcoords))
    assert max(map(abs, found["shift"])) < 0.3


def test_inference_does_not_depend_on_how_many_patterns_are_worked_on_at_a_time(run, scan_path, monkeypatch):
    _, trained, _ = run
    model, scan, results = load_bundle(trained.model_path).model, load_scan(scan_path), []
    for size in (7, 500):
        monkeypatch.setattr("ptycho_torch.unrolled._CHUNK", size)
        results.append(reconstruct(model, scan))
    # Sums are taken in another order.
    torch.testing.assert_close(results[1].obj, results[0].obj, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("loss", ["poisson", "mae"])
def test_a_test_scan_is_validated_on_and_decides_which_epoch_is_best(scan_path, tmp_path, loss):
    other = write_scan(tmp_path / "other.npz", seed=8)
    payload = make_payload(scan_path, tmp_path, n_groups=6, loss=loss)
    trained = train(payload, test_data_file=other, quiet=True)
    assert {name: len(values) for name, values in trained.losses.items()} == {"train_loss": 2, "val_loss": 2}
    best = torch.load(trained.best_checkpoint, weights_only=True)
    assert best["epoch"] == int(np.argmin(trained.losses["val_loss"]))


def test_training_never_sees_the_truth(scan_path, tmp_path):
    blind = tmp_path / "blind.npz"
    save_scan(replace(load_scan(scan_path), object_truth=None), blind)
    results = []
    for path in (scan_path, blind):
        output_dir = tmp_path / path.stem
        trained = train(make_payload(path, output_dir, n_groups=5, max_epochs=1), quiet=True)
        results.append(load_bundle(trained.model_path).model.state_dict())
    assert all(torch.equal(tensor, results[1][name]) for name, tensor in results[0].items())
    inferred = infer(tmp_path / "blind" / workflow.BUNDLE_NAME, blind, tmp_path / "blind")
    assert inferred.comparison is None
    assert inferred.metrics_path is None
    assert not (tmp_path / "blind" / workflow.METRICS_NAME).exists()


def test_a_quiet_run_prints_nothing(scan_path, tmp_path, capfd):
    train(make_payload(scan_path, tmp_path, n_groups=5, max_epochs=1), quiet=True)
    assert capfd.readouterr() == ("", "")


def test_a_run_that_is_not_quiet_shows_its_progress_and_no_advice(scan_path, tmp_path, capfd):
    train(make_payload(scan_path, tmp_path, n_groups=5, max_epochs=1))
    out, err = capfd.readouterr()
    assert "Epoch 0" in out + err
    assert "Tip" not in out + err
    assert "litlogger" not in out + err


def test_workers_deliver_the_same_batches(scan_path, tmp_path):
    payload = make_payload(scan_path, tmp_path)
    container = make_container(payload)
    parallel = replace(payload, training=replace(payload.training, num_workers=1))
    loaders = [_build_lightning_dataloaders(container, None, config)[0] for config in (payload, parallel)]
    for here, there in zip(*loaders, strict=True):
        assert torch.equal(here[0]["images"], there[0]["images"])


@pytest.mark.parametrize("sizes", [{"patch_size": 24}, {"n_modes": 2}], ids=["N", "P"])
def test_scans_of_other_sizes_than_those_of_the_training_are_reconstructed(run, tmp_path, sizes):
    _, trained, _ = run
    other = write_scan(tmp_path / "other.npz", **sizes)
    inferred = infer(trained.model_path, other, tmp_path, refine_epochs=0, quiet=True)
    assert inferred.comparison.reconstruction.nrmse < 0.8 * inferred.comparison.flat.nrmse


@pytest.mark.parametrize("sizes", [{"patch_size": 24}, {"n_modes": 2}], ids=["N", "P"])
def test_scans_of_other_sizes_are_refused_as_test_scans(run, scan_path, tmp_path, sizes):
    payload, _, _ = run
    other = write_scan(tmp_path / "other.npz", **sizes)
    with pytest.raises(ValueError, match=r"N=32 and P=1 probe modes.*got N=(24|32) and P=(1|2)"):
        train(replace(payload, output_dir=tmp_path), test_data_file=other, quiet=True)


def test_a_test_scan_whose_groups_do_not_fit_the_canvas_is_refused_before_training(scan_path, tmp_path):
    wide = write_scan(tmp_path / "wide.npz", step=9.0)
    with pytest.raises(ValueError, match="offsets to be at most"):
        train(make_payload(scan_path, tmp_path), test_data_file=wide, quiet=True)
    assert not (tmp_path / workflow.BUNDLE_NAME).exists()


def test_a_loss_that_is_no_number_is_an_error_and_no_bundle(scan_path, tmp_path, monkeypatch):
    monkeypatch.setattr("ptycho_torch.learner.poisson_loss", lambda predicted, *_: (predicted * np.nan).mean())
    with pytest.raises(RuntimeError, match="finite loss"):
        train(make_payload(scan_path, tmp_path, n_groups=5), quiet=True)
    assert not (tmp_path / workflow.BUNDLE_NAME).exists()


_FINGERPRINT = """
import hashlib, sys, torch
from pathlib import Path
torch.set_num_threads(1)
from ptycho_torch.config_factory import create_training_payload
from ptycho_torch.workflow import infer, train
scan, output_dir = Path(sys.argv[1]), Path(sys.argv[2])
overrides = {"gridsize": 2, "n_groups": 5, "batch_size": 3, "max_epochs": 1, "accelerator": "cpu"}
trained = train(create_training_payload(scan, output_dir, overrides), quiet=True)
obj = infer(trained.model_path, scan, output_dir).obj
print(hashlib.sha256(trained.model_path.read_bytes()).hexdigest(), hashlib.sha256(obj.tobytes()).hexdigest())
"""


def test_results_with_checks_on_and_off_are_equal_bit_for_bit(scan_path, tmp_path):
    repository = Path(__file__).resolve().parents[2]
    running = []
    for setting in ("on", "off"):
        environment = os.environ | {"SHAPECHECK": setting, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", _FINGERPRINT, str(scan_path), str(tmp_path / setting)]
        running.append(subprocess.Popen(command, cwd=repository, env=environment, stdout=subprocess.PIPE, text=True))
    fingerprints = [process.communicate(timeout=300)[0].split() for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert len(fingerprints[0]) == 2
    assert all(len(digest) == hashlib.sha256().digest_size * 2 for digest in fingerprints[0])
    assert fingerprints[0] == fingerprints[1]
