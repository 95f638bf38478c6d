"""What a dry run tells of a training or an inference: that it fits, what it takes, or what does not fit; and no more."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from ptycho_torch import cli, dry_run, learner
from ptycho_torch.bundle import BundleConfigs, save_bundle
from ptycho_torch.config_factory import create_training_payload
from ptycho_torch.formats.patterns import Patterns
from ptycho_torch.model import PtychoModel, normalise_probe
from ptycho_torch.scan import load_scan, open_scan
from ptycho_torch.simulate import save_simulation, simulate_natural_scan
from ptycho_torch.tiling import scan_tiles
from ptycho_torch.unrolled import UnrolledNetwork

SIZES = {"patch_size": 16, "n_rows": 6, "n_columns": 7, "step": 3.0, "jitter": 1.0}


def write_scan(path: Path, **sizes: float) -> Path:
    save_simulation(simulate_natural_scan(**(SIZES | sizes)), path)
    return path


@pytest.fixture(scope="module")
def scan_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scan(tmp_path_factory.mktemp("scan") / "scan.npz")


def run(scan_path: Path, folder: Path, *more: str) -> int:
    sizes = ["--gridsize", "2", "--n_groups", "12", "--batch_size", "5", "--accelerator", "cpu"]
    paths = ["--train_data_file", str(scan_path), "--output_dir", str(folder)]
    return cli.main(["train", *paths, *sizes, "--dry-run", *more])


def test_a_training_that_fits_is_told_with_its_memory_and_nothing_is_written(scan_path, tmp_path, capsys):
    assert run(scan_path, tmp_path / "new", "--test_data_file", str(scan_path)) == 0
    said = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert said["scan"].startswith(f"{scan_path}: 42 patterns, N=16, P=1")
    assert said["groups"].startswith("12 of C=4, canvas M=")
    assert said["step"].startswith("one of 5 groups on fake tensors: no contract broken, ")
    assert f"at least: patterns {42 * 16 * 16 * 4 / 1024:.3g} KiB, groups " in said["memory"]
    assert "nothing was written" in said["dry"]
    assert not (tmp_path / "new").exists()


def test_patterns_that_stay_in_their_file_take_no_memory(scan_path, tmp_path, capsys):
    assert run(scan_path, tmp_path, "--stream", "always") == 0
    assert "at least: groups " in capsys.readouterr().out


def test_quiet_says_nothing(scan_path, tmp_path, capsys):
    assert run(scan_path, tmp_path, "--quiet") == 0
    assert capsys.readouterr() == ("", "")


def test_no_random_number_is_drawn_and_nothing_is_trained(scan_path, tmp_path):
    before = torch.get_rng_state()
    assert run(scan_path, tmp_path, "--quiet") == 0
    assert torch.equal(torch.get_rng_state(), before)
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - hidden files, too


def test_only_the_first_patterns_are_read(tmp_path, monkeypatch):
    path = write_scan(tmp_path / "scan.npz")
    with np.load(path) as arrays:
        values = dict(arrays)
    values["diffraction"][30:] = np.nan
    np.savez(path, **values)
    monkeypatch.setattr("ptycho_torch.formats.limits.BLOCK_BYTES", 10 * 4 * 16**2)
    monkeypatch.setattr(Patterns, "load", lambda self: pytest.fail("everything was read"))
    assert run(path, tmp_path / "out", "--quiet") == 0
    values["diffraction"][3] = np.nan
    np.savez(path, **values)
    assert run(path, tmp_path / "out", "--quiet") == 2


def test_the_memory_of_a_step_grows_with_the_batch(scan_path, tmp_path):
    def peak(batch_size: int) -> int:
        overrides = {"gridsize": 2, "n_groups": 8, "batch_size": batch_size}
        payload = dry_run.create_training_payload(scan_path, tmp_path, overrides)
        return dry_run._step(payload, 8).memory.peak  # noqa: SLF001 - the number behind the words

    assert peak(4) < peak(100) < 2.2 * peak(4)  # a batch has no more groups than there are: 8


def bad_input(scan_path: Path, tmp_path: Path) -> dict[str, tuple[list[str], str]]:
    other_size = write_scan(tmp_path / "other.npz", patch_size=24, n_rows=4, n_columns=4)
    wide = write_scan(tmp_path / "wide.npz", step=12.0)
    return {
        "no such scan": (["--train_data_file", "absent.npz"], "absent.npz"),
        "more neighbours than positions": (["--neighbor_count", "99"], "neighbor_count"),
        "test scan of another size": (
            ["--test_data_file", str(other_size)],
            "N=16 and P=1 probe modes, as the model was built for, got N=24",
        ),
        "test scan whose groups are too wide": (["--test_data_file", str(wide)], "offsets to be at most"),
        "output folder that is a file": (["--output_dir", str(scan_path)], "output_dir to be a directory"),
    }


def test_what_does_not_fit_is_bad_input_and_named(scan_path, tmp_path, capsys):
    for options, named in bad_input(scan_path, tmp_path).values():
        assert run(scan_path, tmp_path / "out", *options) == 2
        written = capsys.readouterr()
        assert written.out == ""
        assert named in written.err


def test_more_memory_than_there_is_is_refused_with_the_sum(scan_path, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(dry_run, "memory_limit_bytes", lambda: 2**19)
    assert run(scan_path, tmp_path) == 2
    assert "fits this machine's memory, got" in capsys.readouterr().err


@pytest.mark.violation
def test_a_contract_that_a_step_would_break_is_told_before_the_training(scan_path, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(learner, "poisson_loss", lambda predicted, measured, _: (predicted - measured).mean(dim=0))
    assert run(scan_path, tmp_path) == 2
    assert "contract violated in the stage 'forward'" in capsys.readouterr().err


def test_a_step_that_fails_is_told_with_its_place(scan_path, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(learner, "poisson_loss", lambda predicted, measured, _: (predicted + measured[..., 1:]).sum())
    assert run(scan_path, tmp_path) == 2
    assert "shape error in the stage 'forward'" in capsys.readouterr().err


def test_a_step_that_needs_numbers_is_said_to_be_not_tried(scan_path, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(learner, "poisson_loss", lambda predicted, *_: predicted.sum() * predicted.max().item())
    assert run(scan_path, tmp_path) == 0
    said = capsys.readouterr().out
    assert "not tried: " in said
    assert "passed, but for the step" in said


def test_a_dry_run_and_a_resumed_training_exclude_each_other(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["train", "--output_dir", str(tmp_path), "--resume", "--dry-run"])
    assert caught.value.code == 2
    assert "not allowed with" in capsys.readouterr().err


# --- inference ------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def model_folder(scan_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle of a network that has learned nothing."""
    folder = tmp_path_factory.mktemp("model")
    payload = create_training_payload(scan_path, folder, {"gridsize": 2, "n_groups": 4})
    model = PtychoModel(payload.model, normalise_probe(torch.from_numpy(load_scan(scan_path).probe)))
    save_bundle(folder / "model.ptycho", model, BundleConfigs.from_payload(payload))
    return folder


def infer(model_folder: Path, scan_path: Path, folder: Path, *more: str) -> int:
    paths = ["--model_path", str(model_folder), "--test_data", str(scan_path), "--output_dir", str(folder)]
    return cli.main(["infer", *paths, "--dry-run", *more])


def test_an_inference_that_fits_is_told_with_its_memory_and_nothing_is_written(
    model_folder, scan_path, tmp_path, capsys
):
    assert infer(model_folder, scan_path, tmp_path / "new") == 0
    said = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    scan = load_scan(scan_path)
    rows, columns = (
        int(np.floor(coords.max()) - np.floor(coords.min())) + 16 for coords in (scan.ycoords, scan.xcoords)
    )
    assert said["scan"] == f"{scan_path}: 42 patterns, N=16, P=1; the first patterns read"
    assert said["object"] == f"{rows} x {columns} pixels, in 1 tile of up to 42 patterns"
    assert said["network"] == "tried on fake tensors: no contract broken"
    assert f"patterns {42 * 16 * 16 * 4 / 1024:.3g} KiB, tiles " in said["memory"]
    assert f"object {rows * columns * 12 / 1024:.3g} KiB" in said["memory"]
    assert "nothing was written" in said["dry"]
    assert not (tmp_path / "new").exists()


def test_tiles_and_devices_are_those_of_the_inference(model_folder, tmp_path, capsys):
    path = write_scan(tmp_path / "large.npz", n_rows=30, n_columns=40)

    def tiles(*more: str) -> tuple[str, str]:
        assert infer(model_folder, path, tmp_path / "new", "--tile_mib", "2", *more) == 0
        said = capsys.readouterr().out
        return re.search(r"in (\d+) tiles", said)[1], re.search(r"tiles ([\d.]+) (\w+),", said)

    (count, alone), (same, two) = tiles(), tiles("--devices", "2")
    assert int(count) == int(same) == len(scan_tiles(open_scan(path), 2 * 2**20)) > 1
    assert (alone[2], two[2]) == ("MiB", "MiB")
    assert float(two[1]) == pytest.approx(2 * float(alone[1]), rel=0.01)
    assert float(alone[1]) <= 2


def test_what_an_inference_would_refuse_is_bad_input_and_named(model_folder, scan_path, tmp_path, monkeypatch, capsys):
    for options, named in (
        (["--model_path", "absent.ptycho"], "absent.ptycho"),
        (["--test_data", "absent.npz"], "absent.npz"),
        (["--refine", "-1"], "refine_epochs to be at least 0"),
        (["--refine", "0", "--refine_probe"], "at least 1 where the probe is to be refined"),
        (["--output_dir", str(scan_path)], "output_dir to be a directory"),
    ):
        assert infer(model_folder, scan_path, tmp_path / "out", *options) == 2
        assert named in capsys.readouterr().err
    monkeypatch.setattr(dry_run, "memory_limit_bytes", lambda: 2**17)
    assert infer(model_folder, scan_path, tmp_path / "out") == 2
    assert "an inference that fits this machine's memory, got" in capsys.readouterr().err


@pytest.mark.violation
def test_a_contract_that_the_network_would_break_is_told(model_folder, scan_path, tmp_path, monkeypatch, capsys):
    assert infer(model_folder, scan_path, tmp_path) == 0
    monkeypatch.setattr(UnrolledNetwork, "forward", lambda self, exposures: torch.ones(1, 3, 4, dtype=torch.complex64))
    assert infer(model_folder, scan_path, tmp_path) == 2
    assert "ContractError [tied-dim]: ptycho_torch.model.PtychoModel.reconstruct" in capsys.readouterr().err
