"""The command line: exit codes, one-line errors, and what each command writes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ptycho_torch import cli, commands
from ptycho_torch.formats import read_contents
from ptycho_torch.scan import load_scan
from ptycho_torch.simulate import save_simulation, simulate_natural_scan

SIZES = ["--patch_size", "16", "--n_rows", "6", "--n_columns", "7", "--step", "3", "--jitter", "1"]


@pytest.fixture(scope="module")
def scan_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("scan") / "scan.npz"
    save_simulation(simulate_natural_scan(patch_size=16, n_rows=6, n_columns=7, step=3.0, jitter=1.0), path)
    return path


@pytest.fixture(scope="module")
def trained(scan_file, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    assert run_train(scan_file, folder, "--test_data_file", str(scan_file)) == 0
    return folder


def run_train(scan_file: Path, folder: Path, *more: str) -> int:
    sizes = ["--gridsize", "2", "--n_groups", "12", "--batch_size", "5", "--max_epochs", "1", "--accelerator", "cpu"]
    paths = ["--train_data_file", str(scan_file), "--output_dir", str(folder)]
    return cli.main(["train", *paths, *sizes, "--quiet", *more])


def test_simulate_writes_a_scan_of_the_sizes_asked_for(tmp_path, capsys):
    path = tmp_path / "new" / "scan.npz"
    assert cli.main(["simulate", "--output", str(path), *SIZES, "--n_modes", "2", "--nphotons", "1e4"]) == 0
    scan = load_scan(path)
    assert scan.diffraction_amplitude.shape == (42, 16, 16)
    assert scan.probe.shape == (2, 16, 16)
    assert scan.mean_counts == pytest.approx(1e4, rel=0.05)
    assert "42 patterns of 16 x 16 pixels" in capsys.readouterr().out


def test_train_writes_bundle_log_and_loss_curve(trained):
    assert (trained / "model.ptycho").stat().st_size > 0
    assert (trained / "loss.png").read_bytes().startswith(b"\x89PNG")
    written = {path.name for path in trained.glob("logs/version_0/*")}
    assert {"checkpoints", "metrics.csv", "preview.png", "run.json"} <= written


@pytest.mark.parametrize("name", ["", "model.ptycho"], ids=["folder", "bundle"])
def test_infer_writes_what_the_documentation_promises(trained, scan_file, tmp_path, capsys, name):
    paths = ["--model_path", str(trained / name), "--test_data", str(scan_file), "--output_dir", str(tmp_path)]
    assert cli.main(["infer", *paths]) == 0
    with np.load(tmp_path / "reconstruction.npz") as written:
        obj, weight, origin = written["object"], written["weight"], written["origin"]
    assert (obj.dtype, weight.dtype) == (np.complex64, np.float32)
    assert obj.shape == weight.shape
    assert origin.shape == (2,)
    assert np.issubdtype(origin.dtype, np.integer)
    for picture in (commands.AMPLITUDE_NAME, commands.PHASE_NAME, commands.OVERVIEW_NAME):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert {"reconstruction", "flat"} <= metrics.keys()
    told = json.loads((tmp_path / "reconstruction.json").read_text())
    assert told["misfit"] == metrics["misfit"]
    assert told["settings"] == {"refine": 20, "refine_probe": False}
    assert len(told["misfits"]) == 20
    assert "flat object" in capsys.readouterr().out


def test_infer_without_a_truth_writes_no_metrics(trained, scan_file, tmp_path):
    with np.load(scan_file) as arrays:
        kept = {key: arrays[key] for key in arrays if not key.endswith("Truth")}
    np.savez(tmp_path / "untold.npz", **kept)
    paths = ["--test_data", str(tmp_path / "untold.npz"), "--output_dir", str(tmp_path / "out")]
    assert cli.main(["infer", "--model_path", str(trained), *paths, "--quiet"]) == 0
    assert (tmp_path / "out" / "reconstruction.npz").exists()
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_bad_pixels_are_told_where_there_are_some(trained, scan_file, tmp_path, capsys):
    with np.load(scan_file) as arrays:
        np.savez(tmp_path / "masked.npz", **arrays, bad_pixels=np.eye(16, dtype=bool))
    for path, told in ((tmp_path / "masked.npz", 16), (scan_file, 0)):
        paths = ["--test_data", str(path), "--output_dir", str(tmp_path)]
        assert cli.main(["infer", "--model_path", str(trained), *paths, "--refine", "2"]) == 0
        assert ("bad pixels  16, left out" in capsys.readouterr().out) == bool(told)
        assert json.loads((tmp_path / "reconstruction.json").read_text())["bad_pixels"] == told
        assert cli.main(["infer", "--model_path", str(trained), *paths, "--dry-run"]) == 0
        assert ("P=1, 16 bad pixels left out;" in capsys.readouterr().out) == bool(told)
    assert run_train(tmp_path / "masked.npz", tmp_path) == 0
    run = json.loads((tmp_path / "logs" / "version_0" / "run.json").read_text())
    assert run["scan"]["bad pixels of the detector"] == 16


def test_quiet_prints_nothing(trained, scan_file, tmp_path, capfd):
    paths = ["--model_path", str(trained), "--test_data", str(scan_file), "--output_dir", str(tmp_path)]
    assert cli.main(["infer", *paths, "--quiet"]) == 0
    assert cli.main(["simulate", "--output", str(tmp_path / "scan.npz"), *SIZES, "--quiet"]) == 0
    assert run_train(scan_file, tmp_path) == 0
    assert capfd.readouterr() == ("", "")


# --- convert ------------------------------------------------------------------------------------------------
LENGTHS = ["--energy_ev", "8800", "--distance_m", "1.9", "--detector_pixel_m", "75e-6"]


def convert(*arguments: object) -> int:
    return cli.main(["convert", *map(str, arguments)])


def test_a_converted_scan_trains_and_is_reconstructed_like_the_original(trained, scan_file, tmp_path):
    assert convert(scan_file, tmp_path / "scan.cxi", *LENGTHS, "--quiet") == 0
    assert run_train(tmp_path / "scan.cxi", tmp_path / "trained") == 0
    for path, name in ((scan_file, "npz"), (tmp_path / "scan.cxi", "cxi")):
        paths = ["--test_data", str(path), "--output_dir", str(tmp_path / name)]
        assert cli.main(["infer", "--model_path", str(trained), *paths, "--quiet"]) == 0
    first, second = (np.load(tmp_path / name / "reconstruction.npz") for name in ("npz", "cxi"))
    assert first["origin"].tolist() == second["origin"].tolist()
    np.testing.assert_allclose(second["object"], first["object"], atol=1e-3 * np.abs(first["object"]).max())


def test_convert_says_what_it_found_and_where_it_went(scan_file, tmp_path, capsys):
    assert convert(scan_file, tmp_path / "scan.cxi", *LENGTHS) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "patterns    42 of 16 x 16 pixels"
    assert said[1] == "positions   42"
    assert said[-2:] == ["note        not read: probeTruth", f"written     {tmp_path / 'scan.cxi'}"]
    assert convert(tmp_path / "scan.cxi", tmp_path / "again.npz", "--quiet") == 0
    assert capsys.readouterr() == ("", "")
    np.testing.assert_array_equal(
        load_scan(tmp_path / "again.npz").diffraction_amplitude, load_scan(scan_file).diffraction_amplitude
    )


def test_a_reconstruction_becomes_a_product_with_the_scan_that_it_was_made_of(trained, scan_file, tmp_path):
    assert convert(scan_file, tmp_path / "scan.cxi", *LENGTHS, "--quiet") == 0
    paths = ["--test_data", str(tmp_path / "scan.cxi"), "--output_dir", str(tmp_path / "out")]
    assert cli.main(["infer", "--model_path", str(trained), *paths, "--quiet"]) == 0
    result, product = tmp_path / "out" / "reconstruction.npz", tmp_path / "product.h5"
    assert convert(result, product, "--with", tmp_path / "scan.cxi", "--ptychodus", "--quiet") == 0
    read, scan = read_contents(product), load_scan(scan_file)
    np.testing.assert_array_equal(read.obj, np.load(result)["object"])
    row, column = np.load(result)["origin"]
    np.testing.assert_allclose(read.xcoords, scan.xcoords - column, atol=1e-9)
    np.testing.assert_allclose(read.ycoords, scan.ycoords - row, atol=1e-9)
    for target in ("object.tif", "object.h5"):
        assert convert(result, tmp_path / target, "--quiet") == 0


BAD_CONVERSIONS = {
    "no such suffix": (["scan.png"], "ends in one of .npz, .cxi"),
    "no product of that suffix": (["scan.cxi", "--ptychodus"], "ends in one of .npz, .h5"),
    "no geometry": (["scan.cxi"], "--energy_ev, --distance_m and --detector_pixel_m"),
    "part of a geometry": (["scan.cxi", "--energy_ev", "8800"], "together, got --energy_ev"),
    "energy of nothing": (["scan.cxi", *LENGTHS, "--energy_ev", "0"], "energy_ev to be positive"),
    "nothing to complete it": (["scan.cxi", *LENGTHS, "--with", "absent.h5"], "absent.h5"),
}


@pytest.mark.parametrize(("arguments", "named"), BAD_CONVERSIONS.values(), ids=BAD_CONVERSIONS)
def test_a_conversion_that_is_impossible_is_one_line_and_writes_nothing(
    scan_file, tmp_path, capsys, monkeypatch, arguments, named
):
    monkeypatch.chdir(tmp_path)
    assert convert(scan_file, *arguments, "--quiet") == 2
    error = capsys.readouterr().err
    assert error.startswith("ptycho-torch: error: ")
    assert error.count("\n") == 1
    assert named in error
    assert not list(tmp_path.iterdir())


def test_lengths_that_a_file_knows_cannot_be_given_again_nor_a_file_replace_itself(scan_file, tmp_path, capsys):
    assert convert(scan_file, tmp_path / "scan.cxi", *LENGTHS, "--quiet") == 0
    before = (tmp_path / "scan.cxi").read_bytes()
    assert convert(tmp_path / "scan.cxi", tmp_path / "scan.npz", *LENGTHS, "--quiet") == 2
    assert "only where no file knows it" in capsys.readouterr().err
    assert convert(tmp_path / "scan.cxi", tmp_path / "scan.cxi", "--quiet") == 2
    assert "another file than IN" in capsys.readouterr().err
    assert (tmp_path / "scan.cxi").read_bytes() == before


@pytest.mark.parametrize(
    ("stage", "whole"),
    [
        ("numpy.savez_compressed", set()),
        ("matplotlib.figure.Figure.savefig", {"metrics.json", "reconstruction.npz"}),
    ],
)
def test_an_interrupted_infer_leaves_whole_files_only(trained, scan_file, tmp_path, monkeypatch, stage, whole):
    def write_half(*arguments, **_):
        for stream in arguments:
            if hasattr(stream, "write"):
                stream.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, write_half)
    paths = ["--model_path", str(trained), "--test_data", str(scan_file), "--output_dir", str(tmp_path / "out")]
    assert cli.main(["infer", *paths, "--quiet"]) == 130
    assert {path.name for path in (tmp_path / "out").iterdir()} == whole
    for name in whole:
        assert not (tmp_path / "out" / name).read_bytes().endswith(b"half")


BAD_INPUT = {
    "scan that is not there": (["--train_data_file", "absent.npz"], "absent.npz"),
    "more neighbours than positions": (["--neighbor_count", "999"], "neighbor_count"),
    "fewer neighbours than members": (["--neighbor_count", "3"], "neighbor_count"),
    "no epoch": (["--max_epochs", "0"], "max_epochs"),
}


@pytest.mark.parametrize(("options", "named"), BAD_INPUT.values(), ids=BAD_INPUT)
def test_bad_input_is_one_line_that_names_it_and_exit_code_2(scan_file, tmp_path, capsys, options, named):
    assert run_train(scan_file, tmp_path, *options) == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.startswith("ptycho-torch: error: ")
    assert written.err.count("\n") == 1
    assert named in written.err


def test_a_file_that_is_no_bundle_is_bad_input(scan_file, tmp_path, capsys):
    paths = ["--model_path", str(scan_file), "--test_data", str(scan_file), "--output_dir", str(tmp_path)]
    assert cli.main(["infer", *paths]) == 2
    assert str(scan_file) in capsys.readouterr().err


def test_a_model_serves_for_scans_of_another_size_and_as_the_start_of_a_training_on_them(trained, tmp_path):
    other = tmp_path / "other.npz"
    save_simulation(simulate_natural_scan(patch_size=24, n_rows=4, n_columns=4, n_modes=2), other)
    paths = ["--model_path", str(trained), "--test_data", str(other), "--output_dir", str(tmp_path / "out")]
    assert cli.main(["infer", "--quiet", "--refine", "1", *paths]) == 0
    assert run_train(other, tmp_path / "tuned", "--start_from", str(trained), "--quiet") == 0
    assert (tmp_path / "tuned" / "model.ptycho").is_file()


@pytest.mark.violation
def test_a_broken_contract_prints_its_report_and_exits_with_1(scan_file, tmp_path, capsys, monkeypatch):
    from ptycho_torch.drift import ChannelLastDataset

    monkeypatch.setattr("ptycho_torch.workflow.PtychoGroupDataset", ChannelLastDataset)
    assert run_train(scan_file, tmp_path) == 1
    error = capsys.readouterr().err
    assert error.startswith("ContractError [axis-order]")
    assert "batch[0]['coords_relative']" in error.splitlines()[0]
    assert "Traceback" not in error


def test_failed_work_exits_with_1_and_an_interrupt_with_130(monkeypatch, capsys):
    for raised, code in ((RuntimeError("no memory"), 1), (KeyboardInterrupt(), 130)):
        monkeypatch.setattr(commands, "infer", lambda *_, raised=raised, **__: (_ for _ in ()).throw(raised))
        assert cli.main(["infer", "--model_path", "m", "--test_data", "t", "--output_dir", "o"]) == code
        assert capsys.readouterr().err.startswith("ptycho-torch: ")


USAGE = {
    "no command": [],
    "unknown command": ["reconstruct"],
    "unknown option": ["infer", "--model", "m"],
    "missing option": ["train", "--train_data_file", "t", "--output_dir", "o"],
    "unknown loss": ["train", "--loss", "l2"],
}


@pytest.mark.parametrize("arguments", USAGE.values(), ids=USAGE)
def test_bad_usage_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "usage: ptycho-torch" in capsys.readouterr().err


def test_every_documented_option_of_train_and_infer_exists():
    train = "train_data_file test_data_file output_dir gridsize neighbor_count n_groups batch_size max_epochs"
    train += " learning_rate loss accelerator devices num_workers seed quiet resume dry-run"
    commands_of_parser = cli.build_parser()._subparsers._group_actions[0].choices  # noqa: SLF001 - argparse has no other way
    for name, options in {"train": train, "infer": "model_path test_data output_dir quiet"}.items():
        known = commands_of_parser[name]._option_string_actions  # noqa: SLF001 - likewise
        assert {f"--{option}" for option in options.split()} <= known.keys()


def test_every_override_of_the_command_line_is_a_key_of_the_configuration():
    from ptycho_torch.config_factory import override_keys

    assert set(cli._OVERRIDES) <= override_keys()  # noqa: SLF001 - the table is what this test is about


def test_help_answers_without_importing_torch():
    code = "import sys\nfrom ptycho_torch.cli import main\ntry:\n    main(['train', '--help'])\nfinally:\n    print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert "--neighbor_count" in done.stdout


def test_the_module_runs_as_the_command_does():
    done = subprocess.run([sys.executable, "-m", "ptycho_torch", "--help"], capture_output=True, text=True, check=True)
    assert "{simulate,train,infer,reconstruct,convert,report,demo}" in done.stdout
