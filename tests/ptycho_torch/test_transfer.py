"""What was learned on one scan, used on another one."""

from pathlib import Path

import pytest
import torch

from ptycho_torch.bundle import BundleError, load_bundle
from ptycho_torch.config_factory import create_training_payload
from ptycho_torch.runs import RunRecord, newest_first
from ptycho_torch.scan import load_scan
from ptycho_torch.simulate import save_simulation, simulate_natural_scan
from ptycho_torch.workflow import infer, train

FIRST = {"gridsize": 2, "n_groups": 8, "batch_size": 4, "max_epochs": 1, "accelerator": "cpu", "seed": 1}


@pytest.fixture(scope="module")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("first")
    save_simulation(simulate_natural_scan(patch_size=16, n_rows=5, n_columns=4, seed=1), folder / "scan.npz")
    return train(create_training_payload(folder / "scan.npz", folder / "run", FIRST), quiet=True).model_path


@pytest.fixture(scope="module")
def other_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scan of another size, with more modes, of another object."""
    path = tmp_path_factory.mktemp("other") / "scan.npz"
    save_simulation(simulate_natural_scan(patch_size=24, n_rows=4, n_columns=5, n_modes=2, seed=2), path)
    return path


def test_a_model_reconstructs_scans_of_any_size_and_number_of_modes(bundle_path, other_path, tmp_path):
    assert (load_bundle(bundle_path).configs.data.N, load_scan(other_path).N) == (16, 24)
    result = infer(bundle_path, other_path, tmp_path, refine_epochs=0, quiet=True)
    assert result.comparison.reconstruction.correlation > 0.9
    assert result.comparison.reconstruction.nrmse < result.comparison.flat.nrmse


@pytest.mark.parametrize("start", [True, False])
def test_a_training_begins_with_the_weights_that_it_is_given(bundle_path, other_path, tmp_path, start):
    known = load_bundle(bundle_path).model.network.state_dict()
    settings = FIRST | {"gridsize": 3, "n_groups": 3, "learning_rate": 1e-9}  # nothing to speak of is learned
    payload = create_training_payload(other_path, tmp_path, settings)
    trained = train(payload, start_from=bundle_path if start else None, quiet=True)
    tuned = load_bundle(trained.model_path).model.network.state_dict()
    record = RunRecord.read(next(newest_first(tmp_path)))
    assert record.start_from == (str(bundle_path) if start else None)
    close = [torch.allclose(tuned[name], known[name], atol=1e-6) for name in known]
    assert all(close) == start


def test_a_start_that_is_no_bundle_is_refused_before_anything_is_written(other_path, tmp_path):
    payload = create_training_payload(other_path, tmp_path / "run", FIRST)
    with pytest.raises(BundleError):
        train(payload, start_from=other_path, quiet=True)
    assert not (tmp_path / "run").exists()
