"""Patterns that stay in their file: the same batches as from memory, and no more read than a batch needs."""

import multiprocessing
import pickle
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from ptycho_torch.contracts import Diffraction
from ptycho_torch.dataloader import (
    PtychoDataContainerTorch,
    PtychoGroupDataset,
    as_it_is,
    batch_contract,
    stream_groups,
)
from ptycho_torch.formats import Geometry
from ptycho_torch.formats.hdf5 import Hdf5Counts
from ptycho_torch.formats.npz import NpzPatterns
from ptycho_torch.grouping import Groups, group_positions
from ptycho_torch.losses import mae_loss
from ptycho_torch.scan import Scan, ScanError, ScanOnDisk, load_scan, open_scan, save_scan
from ptycho_torch.streaming import StreamedGroups
from shapecheck import ContractError

S, N, P, G = 29, 16, 2, 11


@pytest.fixture(scope="module")
def scan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    parts = rng.standard_normal((2, P, N, N))
    scan = Scan(
        diffraction_amplitude=np.sqrt(rng.poisson(9.0, (S, N, N))).astype(np.float32),
        xcoords=rng.uniform(8, 40, S),
        ycoords=rng.uniform(8, 33, S),
        probe=(parts[0] + 1j * parts[1]).astype(np.complex64),
        geometry=Geometry(1e-10, 2.0, (75e-6, 75e-6)),
    )
    path = tmp_path_factory.mktemp("streaming") / "scan.cxi"
    save_scan(scan, path)
    return path


@pytest.fixture(scope="module")
def uncompressed(scan_file: Path) -> Path:
    scan = load_scan(scan_file)
    path = scan_file.with_name("stored.npz")
    arrays = {"diffraction": scan.diffraction_amplitude, "xcoords": scan.xcoords, "ycoords": scan.ycoords}
    np.savez(path, **arrays, probeGuess=scan.probe)
    return path


def groups_of(scan: Scan | ScanOnDisk, gridsize: int = 2, n_groups: int = G) -> Groups:
    return group_positions(scan.xcoords, scan.ycoords, gridsize, max(gridsize**2, 6), n_groups, 3)


def streamed(path: Path, gridsize: int = 2, **options: Any) -> StreamedGroups:
    scan = open_scan(path)
    return stream_groups(scan, groups_of(scan, gridsize), **options)


def in_memory(path: Path, gridsize: int = 2, **options: Any) -> PtychoDataContainerTorch:
    scan = load_scan(path)
    return PtychoDataContainerTorch.from_groups(scan, groups_of(scan, gridsize), **options)


def loader(groups: Any, channels: int = 4, **options: Any) -> DataLoader:
    contract = batch_contract(SimpleNamespace(C=channels, N=N))
    return contract.loader(DataLoader(PtychoGroupDataset(groups), batch_size=4, collate_fn=as_it_is, **options))


def assert_same_batches(first: DataLoader, second: DataLoader) -> None:
    batches = list(zip(first, second, strict=True))
    assert [len(fields["images"]) for (fields, _, _), _ in batches] == [4, 4, 3]
    for (fields, probe, scaling), (others, other_probe, other_scaling) in batches:
        assert fields.keys() == others.keys()
        for name in fields:
            torch.testing.assert_close(fields[name], others[name], rtol=1e-7, atol=0)
        assert torch.equal(fields["images"], others["images"])
        assert torch.equal(probe, other_probe)
        assert torch.equal(scaling, other_scaling)


@pytest.mark.parametrize("gridsize", [1, 2, 3])
@pytest.mark.parametrize("name", ["scan_file", "uncompressed"])
def test_streamed_batches_are_those_from_memory(name: str, gridsize: int, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(name)
    options = {"nphotons": 123.0, "experiment_id": 5}
    whole, stream = in_memory(path, gridsize, **options), streamed(path, gridsize, **options)
    assert stream.rms_scaling_constant == pytest.approx(whole.rms_scaling_constant, rel=1e-12)
    assert stream.physics_scaling_constant == pytest.approx(whole.physics_scaling_constant, rel=1e-12)
    assert_same_batches(loader(whole, gridsize**2), loader(stream, gridsize**2))


def test_batches_say_which_pixels_are_bad(uncompressed: Path, tmp_path: Path) -> None:
    bad = np.zeros((N, N), bool)
    bad[2:4] = bad[9, 5] = True
    path = tmp_path / "masked.npz"
    np.savez(path, **np.load(uncompressed), bad_pixels=bad)
    whole, stream = loader(in_memory(path)), loader(streamed(path))
    assert_same_batches(whole, stream)
    assert all(np.array_equal(fields["bad_pixels"], bad) for fields, _, _ in stream)
    assert all("bad_pixels" not in fields for fields, _, _ in loader(streamed(uncompressed)))


@pytest.mark.parametrize(("method", "workers"), [("fork", 2), ("spawn", 1)])
def test_each_worker_opens_the_file_for_itself(
    scan_file: Path, method: str, workers: int, importable_tests: None
) -> None:
    stream = streamed(scan_file)
    stream.images_of(torch.tensor([0]))  # the file is open here, too, when the workers start
    options = {"num_workers": workers, "multiprocessing_context": multiprocessing.get_context(method)}
    assert_same_batches(loader(in_memory(scan_file)), loader(stream, **options))


def test_shuffled_groups_are_streamed_in_the_order_asked_for(scan_file: Path) -> None:
    orders = [{"shuffle": True, "generator": torch.Generator().manual_seed(7)} for _ in range(2)]
    assert_same_batches(loader(in_memory(scan_file), **orders[0]), loader(streamed(scan_file), **orders[1]))


def count_reads(monkeypatch: pytest.MonkeyPatch, kind: type) -> list[tuple[int, int]]:
    reads: list[tuple[int, int]] = []
    real = kind.stored

    def stored(self: Any, start: int, stop: int) -> np.ndarray:
        reads.append((start, stop))
        return real(self, start, stop)

    monkeypatch.setattr(kind, "stored", stored)
    return reads


def test_a_batch_reads_each_of_its_patterns_once_and_no_other(scan_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = streamed(scan_file)
    reads = count_reads(monkeypatch, Hdf5Counts)
    chosen = torch.tensor([7, 2, 7])
    stream.images_of(chosen)
    read = [index for start, stop in reads for index in range(start, stop)]
    assert sorted(read) == sorted(set(stream.nn_indices[chosen].flatten().tolist()))


def test_the_pass_that_scales_reads_every_pattern_once_in_blocks_of_bounded_size(
    scan_file: Path, uncompressed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ptycho_torch.formats.limits.BLOCK_BYTES", 5 * N * N * 4)
    reads = count_reads(monkeypatch, Hdf5Counts)
    streamed(scan_file)
    assert reads == [(start, min(start + 5, S)) for start in range(0, S, 5)]
    blocks = [block.nbytes for _, block in open_scan(uncompressed).patterns.stored_blocks()]
    assert (max(blocks), sum(blocks)) == (5 * N * N * 4, S * N * N * 4)


def test_nothing_is_read_of_the_patterns_when_a_scan_is_opened(
    scan_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = count_reads(monkeypatch, Hdf5Counts)
    scan = open_scan(scan_file)
    assert (len(scan.patterns), scan.patterns.side, reads) == (S, N, [])
    scan.load()
    assert sum(stop - start for start, stop in reads) == S


def test_no_pattern_is_sent_to_a_worker(scan_file: Path) -> None:
    def sent(gridsize: int) -> int:
        groups = streamed(scan_file, gridsize)
        groups.images_of(torch.tensor([0]))
        return len(pickle.dumps(PtychoGroupDataset(replace(groups, probe=groups.probe[:, :1, :1].clone()))))

    assert sent(1) < S * N * N * 4 / 5
    assert len(pickle.dumps(PtychoGroupDataset(in_memory(scan_file)))) > G * 4 * N * N * 4


def test_a_compressed_archive_cannot_be_streamed_and_the_error_says_what_can(scan_file: Path, tmp_path: Path) -> None:
    save_scan(load_scan(scan_file), tmp_path / "scan.npz")
    scan = open_scan(tmp_path / "scan.npz")
    with pytest.raises(ScanError, match=r"compressed NPZ archive. Convert it first: ptycho-torch convert scan.npz sc"):
        stream_groups(scan, groups_of(scan))
    assert np.array_equal(scan.load().diffraction_amplitude, load_scan(scan_file).diffraction_amplitude)


def test_groups_of_another_scan_are_refused(scan_file: Path) -> None:
    scan = open_scan(scan_file)
    groups = groups_of(scan)
    wrong = replace(groups, nn_indices=groups.nn_indices + S)
    with pytest.raises(ValueError, match=f"positions of this scan, 0 to {S - 1}"):
        stream_groups(scan, wrong)


@pytest.mark.parametrize("spoilt", [np.nan, -0.5], ids=["NaN", "negative"])
def test_a_pattern_that_is_no_amplitude_is_refused_when_the_scan_is_first_read(
    uncompressed: Path, tmp_path: Path, spoilt: float
) -> None:
    arrays = dict(np.load(uncompressed))
    arrays["diffraction"][17, 3, 2] = spoilt
    np.savez(tmp_path / "scan.npz", **arrays)
    scan = open_scan(tmp_path / "scan.npz")  # which does not look at the patterns
    with pytest.raises(ScanError, match=r"key 'diffraction': Expected (finite values|amplitudes >= 0)"):
        stream_groups(scan, groups_of(scan))


def test_a_file_that_ends_while_it_is_streamed_is_refused_by_name(uncompressed: Path, tmp_path: Path) -> None:
    path = tmp_path / "scan.npz"
    path.write_bytes(uncompressed.read_bytes())
    stream = streamed(path)
    assert isinstance(stream.patterns, NpzPatterns)
    path.write_bytes(uncompressed.read_bytes()[:900])
    with pytest.raises(ScanError, match=r"scan\.npz, key 'diffraction': Expected a readable array, got .* ends early"):
        stream.images_of(torch.arange(G))


@pytest.mark.violation
def test_streamed_images_are_amplitudes_by_contract(scan_file: Path) -> None:
    images = streamed(scan_file).images_of(torch.tensor([1, 2]))
    assert mae_loss(images, images) == 0
    with pytest.raises(ContractError, match="kind"):
        mae_loss(images, Diffraction.INTENSITY.declare(images.square()))
