"""Scans in tiles: every position once, phases that agree, no seam, and nothing that depends on who did the work."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ptycho_torch import workflow
from ptycho_torch.bundle import BundleConfigs, save_bundle
from ptycho_torch.config_factory import create_training_payload
from ptycho_torch.exposures import Exposures, scan_frame
from ptycho_torch.formats.npz import NpzPatterns
from ptycho_torch.model import PtychoModel, normalise_probe
from ptycho_torch.reassembly import Placement
from ptycho_torch.reconstruction import reconstruct
from ptycho_torch.refinement import refine, scan_misfit
from ptycho_torch.scan import Scan, ScanError, ScanOnDisk, open_scan, save_scan
from ptycho_torch.simulate import simulate_natural_scan
from ptycho_torch.tiling import (
    cut_tiles,
    reconstruct_tiles,
    scan_tiles,
    tiled_misfit,
)
from ptycho_torch.workflow import infer

N, HALO, MOST = 16, 8.0, 80
TILE_BYTES = MOST * N * N * 46  # of one mode


@pytest.fixture(scope="module")
def scan() -> Scan:
    return simulate_natural_scan(patch_size=N, n_rows=14, n_columns=10, step=4.0, jitter=0.7, nphotons=1e5, seed=3)


@pytest.fixture(scope="module")
def scan_file(scan: Scan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiling") / "scan.npz"
    arrays = {"diffraction": scan.diffraction_amplitude, "xcoords": scan.xcoords, "ycoords": scan.ycoords}
    np.savez(path, **arrays, probeGuess=scan.probe[0])  # not compressed: any pattern can be read by itself
    return path


@pytest.fixture(scope="module")
def on_disk(scan_file: Path) -> ScanOnDisk:
    return open_scan(scan_file)


@pytest.fixture(scope="module")
def bundle(scan_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learned nothing yet: plain steps of an iterative engine."""
    folder = tmp_path_factory.mktemp("model")
    payload = create_training_payload(scan_file, folder, {"n_groups": 1})
    model = PtychoModel(payload.model, normalise_probe(torch.from_numpy(open_scan(scan_file).probe)))
    return save_bundle(folder / "model.ptycho", model, BundleConfigs.from_payload(payload))


@pytest.fixture(scope="module")
def model(scan: Scan, bundle: Path) -> PtychoModel:
    return workflow.load_bundle(bundle).model


# --- cutting ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [80, 100, 139, 140])
def test_every_position_is_owned_once_and_used_by_whoever_is_near(scan, most):
    tiles = cut_tiles(scan.xcoords, scan.ycoords, HALO, most)
    assert sorted(np.concatenate([tile.owned for tile in tiles])) == list(range(scan.n_positions))
    assert (len(tiles) == 1) == (most >= scan.n_positions)
    for tile in tiles:
        assert len(tile.used) <= most
        for index in range(scan.n_positions):
            x, y = scan.xcoords[index], scan.ycoords[index]
            beyond = max(tile.left - x, x - tile.right, tile.top - y, y - tile.bottom)
            assert (index in tile.used) == (beyond < HALO or beyond == -HALO)
            if index in tile.owned:
                assert beyond <= 0


def test_tiles_are_cut_across_the_longer_side_of_what_they_own(scan):
    first, second = cut_tiles(scan.xcoords, scan.ycoords, HALO, 100)  # 14 rows, 10 columns
    assert first.bottom == second.top == np.median(scan.ycoords)
    assert (first.left, first.right, first.top, second.bottom) == (-math.inf, math.inf, -math.inf, math.inf)


def test_tiles_that_cannot_hold_even_their_halo_are_refused(scan, on_disk):
    with pytest.raises(
        ValueError, match=r"positions around one of its own, \d+ within 8 pixels, got room for 9\. Allow"
    ):
        cut_tiles(scan.xcoords, scan.ycoords, HALO, 9)
    with pytest.raises(ValueError, match="got room for 0"):
        scan_tiles(on_disk, 1000)
    assert [len(tile.used) <= MOST for tile in scan_tiles(on_disk, TILE_BYTES)] == [True] * 4


def test_positions_that_coincide_cannot_be_cut_apart():
    x, y = np.full(12, 20.0), np.full(12, 20.0)
    assert len(cut_tiles(x, y, HALO, 12)) == 1
    with pytest.raises(ValueError, match="12 within 8 pixels, got room for 11"):
        cut_tiles(x, y, HALO, 11)


# --- objects ---------------------------------------------------------------------------------------


class Knows:
    """Recognises its patterns, and hands out the true object there, each time with a phase of its own."""

    def __init__(self, scan: Scan) -> None:
        self.scan = scan
        self.asked = 0

    def reconstruct(self, exposures: Exposures) -> torch.Tensor:
        self.asked += 1
        flat = self.scan.diffraction_amplitude.reshape(self.scan.n_positions, -1)
        seen = exposures.measured[:1].flatten(1).numpy()
        first = int(np.argmax((flat @ seen.T)[:, 0] / np.linalg.norm(flat, axis=1)))
        corner = [int(values[first]) - N // 2 for values in (self.scan.ycoords, self.scan.xcoords)]
        _, rows, columns = exposures.canvases
        start = int(exposures.starts[0])
        top, left = corner[0] - start // columns, corner[1] - start % columns
        truth = self.scan.object_truth[top : top + rows, left : left + columns]
        return torch.from_numpy(truth * np.exp(2j * self.asked)).to(torch.complex64)[None]


def test_tiles_of_the_true_object_add_up_to_it_but_for_one_phase(scan, on_disk, tmp_path):
    tiles = scan_tiles(on_disk, TILE_BYTES)
    knows = Knows(scan)
    placed, probe, misfits = reconstruct_tiles(knows, on_disk, tiles, tmp_path)
    np.testing.assert_array_equal(probe.numpy(), on_disk.probe)
    assert misfits == []
    assert knows.asked == len(tiles) == 4
    anchor, shape = scan_frame(scan.xcoords, scan.ycoords, N)
    assert (placed.anchor, tuple(placed.obj.shape)) == (anchor, shape)
    truth = scan.object_truth[anchor[0] : anchor[0] + shape[0], anchor[1] : anchor[1] + shape[1]]
    lit = placed.weight.numpy() > 1e-3 * placed.weight.numpy().max()
    ratio = placed.obj.numpy()[lit] / truth[lit]
    assert np.abs(ratio / ratio.mean() - 1).max() < 1e-5
    assert list(tmp_path.iterdir()) == []


def difference(one: Placement, other: Placement) -> float:
    """Return how different two objects are where light fell, but for a phase."""
    lit = one.weight.numpy() > 1e-2 * one.weight.numpy().max()
    ours, theirs = one.obj.numpy()[lit], other.obj.numpy()[lit]
    product = np.vdot(theirs, ours)
    return float(np.linalg.norm(ours - theirs * product / abs(product)) / np.linalg.norm(ours))


def test_tiles_are_scaled_lit_and_placed_like_the_whole(scan, on_disk, model, tmp_path):
    whole = reconstruct(model, scan)
    tiles = scan_tiles(on_disk, TILE_BYTES)
    tiled = reconstruct_tiles(model, on_disk, tiles, tmp_path).placement
    assert tiled.anchor == whole.anchor
    torch.testing.assert_close(tiled.weight, whole.weight, rtol=1e-5, atol=1e-5 * float(whole.weight.max()))
    assert difference(whole, tiled) < 0.15
    unscaled = whole._replace(obj=whole.obj * 1.3)
    assert difference(whole, unscaled) > 0.2
    probe = torch.from_numpy(scan.probe)
    assert scan_misfit(tiled, scan, probe) < 1.1 * scan_misfit(whole, scan, probe)


def test_the_misfit_of_tiles_is_that_of_the_whole(scan, on_disk, model):
    seen, tiles = reconstruct(model, scan), scan_tiles(on_disk, TILE_BYTES)
    expected = scan_misfit(seen, scan, torch.from_numpy(scan.probe))
    assert tiled_misfit(seen, on_disk, tiles) == pytest.approx(expected, rel=1e-5)


def test_the_misfit_of_tiles_leaves_bad_pixels_out_as_that_of_the_whole_does(scan, model, tmp_path):
    bad = np.zeros((N, N), bool)
    bad[N // 2, N // 2 - 1 : N // 2 + 2] = True
    arrays = {"diffraction": scan.diffraction_amplitude, "xcoords": scan.xcoords, "ycoords": scan.ycoords}
    np.savez(tmp_path / "scan.npz", **arrays, probeGuess=scan.probe[0], bad_pixels=bad)
    on_disk = open_scan(tmp_path / "scan.npz")
    whole, tiles, probe = on_disk.load(), scan_tiles(on_disk, TILE_BYTES), torch.from_numpy(scan.probe)
    seen = reconstruct(model, whole)
    misfit = tiled_misfit(seen, on_disk, tiles)
    assert misfit == pytest.approx(scan_misfit(seen, whole, probe), rel=1e-5)
    assert misfit != pytest.approx(scan_misfit(seen, replace(whole, bad_pixels=None), probe), rel=1e-2)
    (tile,) = scan_tiles(on_disk)
    one = reconstruct_tiles(model, on_disk, [tile], tmp_path, refine_epochs=2)
    assert one.misfits == pytest.approx(refine(seen, whole, 2).misfits, rel=1e-4)


def test_one_tile_is_the_object_of_the_whole(scan, on_disk, model, tmp_path):
    (tile,) = scan_tiles(on_disk)
    assert len(tile.used) == scan.n_positions
    one, whole = reconstruct_tiles(model, on_disk, [tile], tmp_path).placement, reconstruct(model, scan)
    seen = whole.weight > 1e-6 * whole.weight.max()
    torch.testing.assert_close(one.obj[seen], whole.obj[seen], rtol=1e-6, atol=0)
    assert torch.equal(one.weight, whole.weight)


def test_one_tile_is_refined_like_the_whole(scan, on_disk, model, tmp_path):
    (tile,) = scan_tiles(on_disk)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as tiles are; sums depend on it
    try:
        one = reconstruct_tiles(model, on_disk, [tile], tmp_path, refine_epochs=2)
        whole = refine(reconstruct(model, scan), scan, 2)
    finally:
        torch.set_num_threads(threads)
    seen = whole.placement.weight > 1e-6 * whole.placement.weight.max()
    torch.testing.assert_close(one.placement.obj[seen], whole.placement.obj[seen], rtol=1e-4, atol=1e-5)
    assert one.misfits == pytest.approx(whole.misfits, rel=1e-5)


def test_tiles_refined_one_by_one_explain_the_patterns_like_the_whole(scan, on_disk, model, tmp_path):
    tiles, probe = scan_tiles(on_disk, TILE_BYTES), torch.from_numpy(scan.probe)
    whole = refine(reconstruct(model, scan), scan, 10)
    seen = reconstruct_tiles(model, on_disk, tiles, tmp_path).placement
    tiled = reconstruct_tiles(model, on_disk, tiles, tmp_path, refine_epochs=10)
    misfit = tiled_misfit(tiled.placement, on_disk, tiles)
    assert misfit < 0.75 * tiled_misfit(seen, on_disk, tiles)
    assert misfit < 1.2 * scan_misfit(whole.placement, scan, probe)
    assert len(tiled.misfits) == 10
    assert tiled.misfits[-1] < tiled.misfits[0]
    assert torch.equal(tiled.placement.weight, seen.weight)


@pytest.mark.parametrize("refine_epochs", [0, 2])
def test_a_tile_without_a_count_is_no_obstacle(scan, model, tmp_path, refine_epochs):
    dark = scan.ycoords > np.median(scan.ycoords) - HALO - 1
    patterns = np.where(dark[:, None, None], 0, scan.diffraction_amplitude).astype(np.float32)
    np.savez(
        tmp_path / "scan.npz",
        diffraction=patterns,
        xcoords=scan.xcoords,
        ycoords=scan.ycoords,
        probeGuess=scan.probe[0],
    )
    on_disk = open_scan(tmp_path / "scan.npz")
    tiles = scan_tiles(on_disk, TILE_BYTES)
    assert any(dark[tile.used].all() for tile in tiles)
    made = reconstruct_tiles(model, on_disk, tiles, tmp_path, refine_epochs=refine_epochs)
    assert bool(made.placement.obj.isfinite().all())
    assert np.isfinite(made.misfits).all()
    part = Scan(patterns, scan.xcoords, scan.ycoords, scan.probe)
    expected = scan_misfit(made.placement, part, torch.from_numpy(scan.probe))
    assert tiled_misfit(made.placement, on_disk, tiles) == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_two_processes_make_the_object_of_one_bit_for_bit(on_disk, model, tmp_path):
    tiles = scan_tiles(on_disk, TILE_BYTES)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        made = [
            reconstruct_tiles(model, on_disk, tiles, tmp_path, refine_epochs=2, processes=count) for count in (1, 2)
        ]
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(made[0].placement.obj, made[1].placement.obj)
    assert torch.equal(made[0].placement.weight, made[1].placement.weight)
    assert made[0].misfits == made[1].misfits


def test_no_more_patterns_are_read_at_a_time_than_a_tile_may_use(on_disk, model, tmp_path, monkeypatch):
    reads, real = [], NpzPatterns.read
    monkeypatch.setattr(NpzPatterns, "load", None)
    monkeypatch.setattr(NpzPatterns, "read", lambda self, indices: (reads.append(len(indices)), real(self, indices))[1])
    tiles = scan_tiles(on_disk, TILE_BYTES)
    reconstruct_tiles(model, on_disk, tiles, tmp_path, refine_epochs=1)
    assert max(reads) <= MOST
    assert sum(reads) == sum(len(tile.used) + len(tile.owned) for tile in tiles)


def test_an_error_in_a_tile_leaves_nothing_behind(on_disk, tmp_path):
    class Fails:
        def reconstruct(self, exposures: Exposures) -> torch.Tensor:
            msg = "no"
            raise RuntimeError(msg)

    with pytest.raises(RuntimeError, match="no"):
        reconstruct_tiles(Fails(), on_disk, scan_tiles(on_disk, TILE_BYTES), tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- from file to file -----------------------------------------------------------------------------


def test_a_scan_that_fits_one_tile_is_reconstructed_at_once(scan, scan_file, bundle, model, tmp_path, monkeypatch):
    monkeypatch.setattr(workflow, "reconstruct_tiles", None)
    inferred = infer(bundle, scan_file, tmp_path, refine_epochs=0, quiet=True)
    whole = reconstruct(model, scan)
    np.testing.assert_array_equal(inferred.obj, whole.obj.numpy())


def test_a_scan_in_tiles_is_refined_where_it_fits_in_memory(scan_file, bundle, tmp_path):
    tiled = {"tile_bytes": TILE_BYTES, "quiet": True}
    seen = infer(bundle, scan_file, tmp_path, refine_epochs=0, **tiled)
    refined = infer(bundle, scan_file, tmp_path, refine_epochs=3, **tiled)
    assert refined.misfit < 0.9 * seen.misfit
    assert len(refined.misfits) == 3


def test_a_scan_larger_than_memory_is_reconstructed_without_ever_being_in_memory(
    scan_file, bundle, tmp_path, monkeypatch
):
    expected = infer(bundle, scan_file, tmp_path / "held", refine_epochs=0, tile_bytes=TILE_BYTES, quiet=True)
    monkeypatch.setattr("ptycho_torch.streaming.memory_limit_bytes", lambda: 140 * N * N * 4 - 1)
    monkeypatch.setattr(NpzPatterns, "load", None)
    streamed = infer(bundle, scan_file, tmp_path / "file", refine_epochs=0, tile_bytes=TILE_BYTES, quiet=True)
    np.testing.assert_array_equal(streamed.obj, expected.obj)
    assert streamed.misfit == pytest.approx(expected.misfit, rel=1e-5)
    assert [path.name for path in (tmp_path / "file").iterdir()] == [workflow.RECONSTRUCTION_NAME]
    with np.load(streamed.reconstruction_path) as written:
        np.testing.assert_array_equal(written["object"], expected.obj)


def test_a_scan_larger_than_memory_is_refined_tile_by_tile(scan_file, bundle, tmp_path, monkeypatch):
    monkeypatch.setattr("ptycho_torch.streaming.memory_limit_bytes", lambda: 140 * N * N * 4 - 1)
    monkeypatch.setattr(NpzPatterns, "load", None)
    tiled = {"tile_bytes": TILE_BYTES, "quiet": True}
    seen = infer(bundle, scan_file, tmp_path, refine_epochs=0, **tiled)
    refined = infer(bundle, scan_file, tmp_path, refine_epochs=3, **tiled)
    assert refined.misfit < 0.9 * seen.misfit
    assert len(refined.misfits) == 3


@pytest.mark.parametrize("larger", [True, False])
def test_the_probe_is_refined_only_where_the_scan_fits_in_memory(scan_file, bundle, tmp_path, monkeypatch, larger):
    wanted = {"refine_epochs": 1, "refine_probe": True, "quiet": True}
    if larger:
        monkeypatch.setattr("ptycho_torch.streaming.memory_limit_bytes", lambda: 1000)
        with pytest.raises(ValueError, match=r"refine_probe to be False for .*scan\.npz, which is larger than memory"):
            infer(bundle, scan_file, tmp_path / "run", **wanted)
        assert not (tmp_path / "run").exists()
    else:
        made = infer(bundle, scan_file, tmp_path / "run", **wanted)
        assert not np.array_equal(made.probe, open_scan(scan_file).probe)


def test_a_compressed_scan_larger_than_memory_is_refused_before_the_work_begins(scan, bundle, tmp_path, monkeypatch):
    save_scan(replace(scan, object_truth=None), tmp_path / "packed.npz")
    monkeypatch.setattr("ptycho_torch.streaming.memory_limit_bytes", lambda: 1000)
    with pytest.raises(ScanError, match=r"whose patterns can be read in any order, got a compressed NPZ archive"):
        infer(bundle, tmp_path / "packed.npz", tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_compressed_scan_is_tiled_like_any_other(scan, on_disk, model, tmp_path):
    save_scan(replace(scan, object_truth=None), tmp_path / "packed.npz")
    packed = open_scan(tmp_path / "packed.npz")
    assert not packed.patterns.random_access
    tiles = scan_tiles(on_disk, TILE_BYTES)
    placed = [reconstruct_tiles(model, each, tiles, tmp_path).placement for each in (on_disk, packed)]
    assert torch.equal(placed[0].obj, placed[1].obj)
