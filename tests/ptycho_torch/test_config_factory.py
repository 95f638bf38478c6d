"""The training payload: what the user says, what the file says, what follows, and who wins."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptycho_torch.config_factory import TrainingPayload, create_training_payload, override_keys
from ptycho_torch.config_params import ConfigError
from ptycho_torch.grouping import group_positions
from ptycho_torch.helper import padded_size
from ptycho_torch.scan import Scan, ScanError, save_scan

S, N, P = 21, 12, 2


def write_scan(path: Path, n_positions: int = S) -> Path:
    rng = np.random.default_rng(0)
    scan = Scan(
        diffraction_amplitude=rng.uniform(0.1, 4, (n_positions, N, N)).astype(np.float32),
        xcoords=rng.uniform(10, 40, n_positions),
        ycoords=rng.uniform(10, 30, n_positions),
        probe=(rng.standard_normal((P, N, N)) + 0j).astype(np.complex64),
    )
    save_scan(scan, path)
    return path


@pytest.fixture
def scan_file(tmp_path: Path) -> Path:
    return write_scan(tmp_path / "scan.npz")


def payload(scan_file: Path, **overrides: Any) -> TrainingPayload:
    return create_training_payload(scan_file, scan_file.parent / "out", {"n_groups": 9} | overrides)


def test_what_the_file_says_is_read_from_it(scan_file: Path) -> None:
    made = payload(scan_file)
    amplitude = np.load(scan_file)["diffraction"].astype(np.float64)
    assert made.data.N == made.model.N == N
    assert made.model.P == P
    assert made.data.nphotons == pytest.approx(np.mean([np.sum(pattern**2) for pattern in amplitude]))
    assert [made.audit[key].source for key in ("N", "P", "nphotons")] == ["file"] * 3


@pytest.mark.parametrize(("n_positions", "gridsize"), [(1, 1), (3, 1), (4, 2), (21, 4), (35, 5), (36, 6), (70, 6)])
def test_gridsize_defaults_to_6_or_to_what_a_small_scan_has_room_for(
    tmp_path: Path, n_positions: int, gridsize: int
) -> None:
    made = payload(write_scan(tmp_path / "scan.npz", n_positions))
    assert (made.data.gridsize, made.data.C) == (gridsize, gridsize**2)
    assert made.audit["gridsize"] == (gridsize, gridsize, "default")
    assert made.data.C <= made.data.neighbor_count <= n_positions
    chosen = payload(tmp_path / "scan.npz", gridsize=1)
    assert chosen.audit["gridsize"] == (gridsize, 1, "override")


@pytest.mark.parametrize("gridsize", [1, 2, 3])
def test_c_is_gridsize_squared_in_every_configuration(scan_file: Path, gridsize: int) -> None:
    made = payload(scan_file, gridsize=gridsize)
    for config in (made.data, made.model, made.training):
        assert (config.gridsize, config.C) == (gridsize, gridsize**2)
    assert made.audit["C"] == (gridsize**2, gridsize**2, "derived")


@pytest.mark.parametrize(("gridsize", "expected"), [(1, 1), (2, 6), (3, 11)])
def test_neighbor_count_defaults_to_two_more_than_needed(scan_file: Path, gridsize: int, expected: int) -> None:
    assert payload(scan_file, gridsize=gridsize).data.neighbor_count == expected


def test_neighbor_count_defaults_to_no_more_than_there_are_positions(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    probe = np.ones((1, N, N), np.complex64)
    amplitude = rng.uniform(0.1, 4, (5, N, N)).astype(np.float32)
    save_scan(Scan(amplitude, rng.uniform(10, 20, 5), rng.uniform(10, 20, 5), probe), tmp_path / "five.npz")
    assert payload(tmp_path / "five.npz").data.neighbor_count == 5


def test_neighbor_count_is_honoured(scan_file: Path) -> None:
    made = payload(scan_file, gridsize=2, neighbor_count=13)
    assert made.data.neighbor_count == 13
    assert made.audit["neighbor_count"] == (6, 13, "override")
    assert made.data.max_neighbor_distance > payload(scan_file, gridsize=2).data.max_neighbor_distance


@pytest.mark.parametrize("gridsize", [1, 2, 3])
def test_the_derived_canvas_holds_the_groups_of_any_seed(scan_file: Path, gridsize: int) -> None:
    made = payload(scan_file, gridsize=gridsize)
    assert made.data.max_neighbor_distance == made.model.max_neighbor_distance
    room = (padded_size(N, gridsize, made.data.max_neighbor_distance) - N) / 2
    stored = np.load(scan_file)
    for seed in range(10):
        groups = group_positions(stored["xcoords"], stored["ycoords"], gridsize, made.data.neighbor_count, 40, seed)
        assert np.abs(groups.coords_relative).max() <= room


def test_a_larger_canvas_may_be_asked_for(scan_file: Path) -> None:
    assert payload(scan_file, max_neighbor_distance=100.0).model.max_neighbor_distance == 100.0


def test_overrides_reach_their_configuration(scan_file: Path) -> None:
    made = payload(scan_file, batch_size=5, learning_rate=0.5, loss="mae", seed=8, nphotons=77, n_groups=3)
    assert (made.training.batch_size, made.training.learning_rate, made.training.loss) == (5, 0.5, "mae")
    assert made.data.seed == made.training.seed == 8
    assert (made.data.nphotons, made.data.n_groups) == (77.0, 3)


def test_the_audit_tells_default_used_and_source_of_every_key(scan_file: Path) -> None:
    made = payload(scan_file, batch_size=5)
    assert set(made.audit) == override_keys()
    assert made.audit["batch_size"] == (16, 5, "override")
    assert made.audit["max_epochs"] == (20, 20, "default")
    assert made.audit["n_groups"] == (None, 9, "override")
    for config in (made.data, made.model, made.training):
        for key, value in config.to_dict().items():
            assert made.audit[key].used == value


def test_saying_what_follows_anyway_is_accepted(scan_file: Path) -> None:
    assert payload(scan_file, C=16, N=N, P=P, gridsize=4).data == payload(scan_file).data


def test_paths_may_be_strings_and_nothing_is_written(scan_file: Path) -> None:
    made = create_training_payload(str(scan_file), str(scan_file.parent / "out"), {"n_groups": 2})
    assert (made.train_data_file, made.output_dir) == (scan_file, scan_file.parent / "out")
    assert not made.output_dir.exists()


REFUSED = {
    "C against gridsize": ({"gridsize": 2, "C": 1}, "C", "as gridsize=2 says, got 1"),
    "C against the default gridsize": ({"C": 9}, "C", "as gridsize=4 says, got 9"),
    "N against the file": ({"N": 64}, "N", "to be 12, as the file .*scan.npz says, got 64"),
    "P against the file": ({"P": 1}, "P", "to be 2, as the file .*scan.npz says, got 1"),
    "K below C": ({"gridsize": 2, "neighbor_count": 3}, "neighbor_count", "at least C = gridsize\\*\\*2 = 4, got 3"),
    "K above S": ({"neighbor_count": 22}, "neighbor_count", "at most the 21 positions of the scan, got 22"),
    "small canvas": ({"max_neighbor_distance": 1.0}, "max_neighbor_distance", "which the groups of this scan need"),
    "unknown": ({"neighbour_count": 7}, "neighbour_count", "Did you mean 'neighbor_count'"),
    "unknown and far": ({"xyzzy": 7}, "xyzzy", "Known: C, N, P, accelerator"),
    "a number as text": ({"batch_size": "16"}, "batch_size", "an integer, got '16'"),
    "a truth as number": ({"seed": True}, "seed", "an integer, got True"),
    "a fraction": ({"gridsize": 2.0}, "gridsize", "an integer, got 2.0"),
    "zero groups": ({"n_groups": 0}, "n_groups", "at least 1, got 0"),
    "no groups": ({"n_groups": None}, "n_groups", "an integer, got None"),
    "no light": ({"nphotons": 0}, "nphotons", "greater than 0"),
    "another loss": ({"loss": "mse"}, "loss", "one of 'poisson', 'mae', got 'mse'"),
}


@pytest.mark.parametrize(("overrides", "key", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_contradicts_or_makes_no_sense_is_refused_by_name(
    scan_file: Path, overrides: dict[str, Any], key: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        payload(scan_file, **overrides)
    assert caught.value.key == key
    assert key in str(caught.value)


def test_n_groups_is_mandatory(scan_file: Path) -> None:
    with pytest.raises(ConfigError, match="n_groups") as caught:
        create_training_payload(scan_file, scan_file.parent / "out", {"gridsize": 2})
    assert caught.value.key == "n_groups"


def test_an_output_directory_that_is_a_file_is_refused(scan_file: Path) -> None:
    with pytest.raises(ConfigError, match="output_dir to be a directory"):
        create_training_payload(scan_file, scan_file, {"n_groups": 2})


def test_a_scan_with_fewer_positions_than_a_group_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    amplitude = rng.uniform(0.1, 4, (3, N, N)).astype(np.float32)
    few = Scan(amplitude, rng.uniform(9, 20, 3), rng.uniform(9, 20, 3), np.ones((1, N, N), np.complex64))
    save_scan(few, tmp_path / "few.npz")
    with pytest.raises(ConfigError, match="at most the 3 positions of the scan, got 4"):
        payload(tmp_path / "few.npz", gridsize=2)
    assert payload(tmp_path / "few.npz", gridsize=1).data.C == 1


def test_a_bad_scan_is_refused_as_such(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="no such file"):
        payload(tmp_path / "none.npz")
