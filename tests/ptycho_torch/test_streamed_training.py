"""Training on patterns that stay in their file: the same result, and only as much in memory as a batch needs."""

import gc
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ptycho_torch.bundle import load_bundle
from ptycho_torch.config_factory import TrainingPayload, create_training_payload
from ptycho_torch.formats.npz import NpzPatterns
from ptycho_torch.scan import Scan, ScanError, open_scan, save_scan
from ptycho_torch.simulate import simulate_natural_scan
from ptycho_torch.streaming import is_streamed
from ptycho_torch.workflow import train

N = 16
BLOCK_BYTES = 50 * N * N * 4


def uncompressed(scan: Scan, path: Path) -> Path:
    """Write a scan so that any of its patterns can be read by itself."""
    arrays = {"diffraction": scan.diffraction_amplitude, "xcoords": scan.xcoords, "ycoords": scan.ycoords}
    np.savez(path, **arrays, probeGuess=scan.probe)
    return path


@pytest.fixture(scope="module")
def scan() -> Scan:
    return simulate_natural_scan(patch_size=N, n_rows=8, n_columns=7, step=2.5, jitter=0.5, nphotons=1e5, seed=3)


@pytest.fixture(scope="module")
def scan_file(scan: Scan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return uncompressed(scan, tmp_path_factory.mktemp("scan") / "scan.npz")


@pytest.fixture(scope="module")
def large_file(scan: Scan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Patterns a hundred times, next to each other, so that they are most of what there is."""
    times = 100
    xcoords = np.concatenate([scan.xcoords + 20 * time for time in range(times)])
    patterns = np.tile(scan.diffraction_amplitude, (times, 1, 1))
    large = Scan(patterns, xcoords, np.tile(scan.ycoords, times), scan.probe)
    return uncompressed(large, tmp_path_factory.mktemp("large") / "scan.npz")


def payload_of(path: Path, output_dir: Path, **settings: Any) -> TrainingPayload:
    defaults = {"gridsize": 2, "n_groups": 11, "batch_size": 4, "max_epochs": 2, "accelerator": "cpu"}
    return create_training_payload(path, output_dir, defaults | settings)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_what_is_learned_does_not_depend_on_where_the_patterns_are(scan_file, tmp_path, workers):
    learned = []
    for stream in ("never", "always"):
        payload = payload_of(scan_file, tmp_path / stream, num_workers=workers)
        trained = train(payload, test_data_file=scan_file, stream=stream, quiet=True)
        learned.append((trained.losses, load_bundle(trained.model_path).model.state_dict()))
    (losses, weights), (streamed_losses, streamed_weights) = learned
    assert losses.keys() == {"train_loss", "val_loss"}
    assert streamed_losses == losses
    assert all(torch.equal(streamed_weights[name], weights[name]) for name in weights)


def most_allocated(work: Callable[[], object]) -> int:
    """Return the most bytes of Python and NumPy that were held at a time."""
    gc.collect()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_streamed_training_holds_a_small_part_of_the_patterns(scan_file, large_file, tmp_path, monkeypatch):
    monkeypatch.setattr("ptycho_torch.formats.limits.BLOCK_BYTES", BLOCK_BYTES)
    train(payload_of(scan_file, tmp_path, max_epochs=1), stream="always", quiet=True)  # what is allocated only once
    patterns = open_scan(large_file).patterns
    n_bytes = len(patterns) * N * N * 4

    def work(stream: str) -> Callable[[], object]:
        return lambda: train(payload_of(large_file, tmp_path, max_epochs=1), stream=stream, quiet=True)

    held = {stream: most_allocated(work(stream)) for stream in ("never", "always")}
    assert held["always"] < 0.5 * n_bytes < n_bytes < held["never"] < 1.5 * n_bytes  # not once more for the groups


def test_a_streamed_training_reads_blocks_of_bounded_size_and_then_what_its_batches_hold(
    large_file, tmp_path, monkeypatch
):
    monkeypatch.setattr("ptycho_torch.formats.limits.BLOCK_BYTES", BLOCK_BYTES)
    reads, real = [], NpzPatterns.stored

    def stored(self: NpzPatterns, start: int, stop: int) -> np.ndarray:
        reads.append(stop - start)
        return real(self, start, stop)

    monkeypatch.setattr(NpzPatterns, "stored", stored)
    monkeypatch.setattr(NpzPatterns, "load", None)
    payload = payload_of(large_file, tmp_path, max_epochs=3)
    train(payload, stream="always", quiet=True)
    members = payload.data.n_groups * payload.data.C
    assert sum(reads) <= 4 * members  # in three epochs; before them, a sample that tells the run from others
    assert 4 * members < len(open_scan(large_file).patterns)
    assert max(reads) <= payload.training.batch_size * payload.data.C


def test_patterns_are_streamed_where_they_would_fill_more_than_half_of_the_memory(scan, scan_file, monkeypatch):
    patterns, needed = open_scan(scan_file).patterns, scan.diffraction_amplitude.nbytes

    def streamed(limit: int, choice: str = "auto") -> bool:
        monkeypatch.setattr("ptycho_torch.streaming.memory_limit_bytes", lambda: limit)
        return is_streamed(patterns, choice)

    assert [streamed(needed), streamed(needed - 1)] == [False, True]
    assert [streamed(needed - 1, "never"), streamed(needed, "always")] == [False, True]
    for name, value in {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 6, "LOCAL_WORLD_SIZE": 3}.items():
        monkeypatch.setenv(name, str(value))
    assert [streamed(3 * needed), streamed(3 * needed - 1)] == [False, True]  # each process holds its own


def test_a_scan_that_must_be_streamed_and_cannot_be_is_refused_before_training(scan, tmp_path):
    save_scan(scan, tmp_path / "packed.npz")  # compressed
    payload = payload_of(tmp_path / "packed.npz", tmp_path / "run")
    with pytest.raises(ScanError, match=r"a compressed NPZ archive\. Convert it first"):
        train(payload, stream="always", quiet=True)
    assert not (tmp_path / "run").exists()
    train(replace(payload, training=replace(payload.training, max_epochs=1)), quiet=True)
