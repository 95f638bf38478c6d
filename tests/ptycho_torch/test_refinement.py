"""The iterative engine: its step against a naive loop, and what it makes of objects that are known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from naive_optics import amplitude_of, asked_change, moved_probe, random_waves

from ptycho_torch.reassembly import Placement, place_patches, probe_placement_weights
from ptycho_torch.refinement import Refinement, refine, scan_misfit
from ptycho_torch.scan import Scan, load_scan, save_scan
from ptycho_torch.simulate import gaussian_probe, natural_object, raster_positions, simulate_scan


def make_scan(n_modes: int = 1, nphotons: float = 1e7, side: int = 32) -> Scan:
    xcoords, ycoords = raster_positions(11, 6, 3.3, 1.0, side, seed=2)
    obj = natural_object((29 + side + 23, 29 + side), seed=4)
    return simulate_scan(obj, gaussian_probe(side, n_modes=n_modes), xcoords, ycoords, nphotons=nphotons, seed=0)


def flat_placement(scan: Scan) -> Placement:
    patches = torch.ones(scan.n_positions, scan.N, scan.N, dtype=torch.complex64)
    positions = np.stack((scan.xcoords, scan.ycoords), axis=-1).astype(np.float32)
    return place_patches(
        patches, torch.from_numpy(positions).unsqueeze(1), probe_placement_weights(torch.from_numpy(scan.probe))
    )


def error(placement: Placement, scan: Scan) -> float:
    """Distance to the truth where the centres of the probes went, up to one complex factor."""
    top, left = placement.anchor
    rows = slice(int(scan.ycoords.min()), int(scan.ycoords.max()) + 1)
    columns = slice(int(scan.xcoords.min()), int(scan.xcoords.max()) + 1)
    truth = scan.object_truth[rows, columns]
    ours = placement.obj.numpy()[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    ours = ours * (np.vdot(ours, truth) / np.vdot(ours, ours))
    return float(np.linalg.norm(ours - truth) / np.linalg.norm(truth))


def test_the_first_step_is_that_of_regularised_pie_in_a_naive_loop(monkeypatch):
    """One epoch whose only step takes all patterns: the sum of what each asks for, over the light it had."""
    scan = make_scan(side=16)
    few = slice(0, 9)
    scan = replace(
        scan,
        diffraction_amplitude=scan.diffraction_amplitude[few],
        xcoords=np.floor(scan.xcoords[few]),
        ycoords=np.floor(scan.ycoords[few]),
        probe=10
        * random_waves(1, 16, 16, seed=5).numpy(),  # nowhere dark in the far field, where a phase would be rounding
    )
    start = flat_placement(scan)
    change, light = np.zeros(start.obj.shape, np.complex128), np.zeros(start.obj.shape)
    for amplitude, x, y in zip(scan.diffraction_amplitude, scan.xcoords, scan.ycoords, strict=True):
        row, column = int(y) - 8 - start.anchor[0], int(x) - 8 - start.anchor[1]
        window = slice(row, row + 16), slice(column, column + 16)
        asked, _ = asked_change(scan.probe, amplitude, dark=1e-6 * (amplitude**2).mean())
        change[window] += scan.probe[0].conj() * asked[0]
        light[window] += np.abs(scan.probe[0]) ** 2
    brightest = (np.abs(scan.probe[0]) ** 2).max()
    step = 0.5 * 0.01  # a single epoch is also the last: its step has fallen to a hundredth
    expected = 1 + step * change / (light + 0.1 * brightest)
    monkeypatch.setattr("ptycho_torch.refinement._STEPS_PER_EPOCH", 1)
    monkeypatch.setattr("ptycho_torch.refinement._MOST_SETTLINGS", 0)
    refined = refine(start, scan, 1)
    seen = start.obj.numpy() != 0
    np.testing.assert_allclose(refined.placement.obj.numpy()[seen], expected[seen], atol=1e-5)


@pytest.mark.parametrize("n_modes", [1, 2])
def test_the_misfit_of_an_object_is_that_of_a_loop_over_the_patterns(n_modes):
    scan = make_scan(n_modes, side=16)
    start = flat_placement(scan)
    placement = start._replace(obj=random_waves(*start.obj.shape, seed=3))
    off = 0.0
    for amplitude, x, y in zip(scan.diffraction_amplitude, scan.xcoords, scan.ycoords, strict=True):
        row, column = int(np.floor(y)) - 8 - start.anchor[0], int(np.floor(x)) - 8 - start.anchor[1]
        patch = placement.obj.numpy()[row : row + 16, column : column + 16]
        off += np.abs(amplitude_of(patch * moved_probe(scan.probe, x % 1, y % 1)) - amplitude).sum()
    expected = off / scan.diffraction_amplitude.sum(dtype=np.float64)
    assert scan_misfit(placement, scan, torch.from_numpy(scan.probe)) == pytest.approx(expected, rel=1e-4)


def with_bad(scan: Scan, bad: np.ndarray, stands_there: float) -> Scan:
    amplitude = np.where(bad, np.float32(stands_there), scan.diffraction_amplitude)
    return replace(scan, diffraction_amplitude=amplitude, bad_pixels=bad)


def beamstop(side: int) -> np.ndarray:
    """Hides the middle of the detector, where most of the light falls, and a gap beside it."""
    bad = np.zeros((side, side), bool)
    bad[side // 2 - 1 : side // 2 + 2, side // 2 - 1 : side // 2 + 2] = True
    bad[:, side // 2 + 4 : side // 2 + 6] = True
    return bad


def test_the_misfit_leaves_bad_pixels_out(scan_of_waves):
    scan, placement, probe = scan_of_waves
    bad = beamstop(scan.N)
    off = measured = 0.0
    for amplitude, x, y in zip(scan.diffraction_amplitude, scan.xcoords, scan.ycoords, strict=True):
        row, column = int(np.floor(y)) - 8 - placement.anchor[0], int(np.floor(x)) - 8 - placement.anchor[1]
        patch = placement.obj.numpy()[row : row + 16, column : column + 16]
        predicted = amplitude_of(patch * moved_probe(scan.probe, x % 1, y % 1))
        off += np.abs(predicted - amplitude)[~bad].sum()
        measured += amplitude[~bad].sum(dtype=np.float64)
    assert scan_misfit(placement, with_bad(scan, bad, 7.0), probe) == pytest.approx(off / measured, rel=1e-4)
    assert scan_misfit(placement, scan, probe) != pytest.approx(off / measured, rel=1e-2)


@pytest.mark.parametrize("refine_probe", [False, True])
def test_what_stands_at_bad_pixels_changes_nothing(refine_probe):
    scan = make_scan(2, side=16)
    start = flat_placement(scan)

    def refined(stands_there: float, *, are_bad: bool = True) -> Refinement:
        changed = with_bad(scan, beamstop(scan.N), stands_there)
        changed = changed if are_bad else replace(changed, bad_pixels=None)
        return refine(start, changed, 3, refine_probe=refine_probe)

    one, other, believed = refined(0.0), refined(9.0), refined(9.0, are_bad=False)
    assert torch.equal(one.placement.obj, other.placement.obj)
    assert torch.equal(one.probe, other.probe)
    assert one.misfits == other.misfits
    assert not torch.allclose(one.placement.obj, believed.placement.obj, atol=1e-2)


def test_the_object_is_found_behind_a_beamstop_and_a_gap(tmp_path):
    scan = make_scan()
    save_scan(with_bad(scan, beamstop(scan.N), 0.0), tmp_path / "scan.npz")
    stopped = load_scan(tmp_path / "scan.npz")
    left_out, believed = (
        refine(flat_placement(scan), seen, 60).placement for seen in (stopped, replace(stopped, bad_pixels=None))
    )
    assert error(left_out, scan) < 0.12  # as where all of them are good
    assert error(believed, scan) > 3 * error(left_out, scan)


@pytest.fixture(scope="module")
def scan_of_waves() -> tuple[Scan, Placement, torch.Tensor]:
    scan = make_scan(2, side=16)
    start = flat_placement(scan)
    return scan, start._replace(obj=random_waves(*start.obj.shape, seed=3)), torch.from_numpy(scan.probe)


@pytest.fixture(scope="module")
def from_flat() -> tuple[Scan, Refinement]:
    scan = make_scan()
    return scan, refine(flat_placement(scan), scan, 60)


def test_from_a_flat_object_the_true_one_is_found(from_flat):
    scan, refined = from_flat
    assert error(flat_placement(scan), scan) > 0.4  # shows that the next line can fail
    assert error(refined.placement, scan) < 0.12
    assert refined.misfits[-1] < 0.1 * refined.misfits[0]


def test_the_long_waves_of_an_object_are_settled_before_the_first_epoch(monkeypatch):
    scan = make_scan()
    settled = refine(flat_placement(scan), scan, 3)
    monkeypatch.setattr("ptycho_torch.refinement._MOST_SETTLINGS", 0)
    as_it_was = refine(flat_placement(scan), scan, 3)
    assert settled.misfits[0] < 0.8 * as_it_was.misfits[0]
    assert error(settled.placement, scan) < 0.75 * error(as_it_was.placement, scan)


@pytest.mark.parametrize("told", ["of-the-patterns", "wrong"])
def test_the_long_waves_of_a_true_object_are_left_alone_whatever_moments_tell(told, monkeypatch):
    scan = make_scan()
    if told == "wrong":
        ramp = torch.arange(500) * 0.3
        monkeypatch.setattr(
            "ptycho_torch.refinement.integrate_slopes", lambda slopes: slopes[0] + ramp[: slopes.shape[2]]
        )
    start = flat_placement(scan)
    top, left = start.anchor
    obj = torch.ones_like(start.obj)
    truth = torch.from_numpy(scan.object_truth)[top:, left:][: obj.shape[0], : obj.shape[1]]
    obj[: truth.shape[0], : truth.shape[1]] = truth
    refined = refine(start._replace(obj=obj), scan, 1)
    assert error(start._replace(obj=obj), scan) == 0
    assert error(refined.placement, scan) < 0.01


def test_a_better_start_needs_fewer_epochs(from_flat):
    scan, _ = from_flat
    halfway = refine(flat_placement(scan), scan, 20).placement
    again, cold = refine(halfway, scan, 10), refine(flat_placement(scan), scan, 10)
    assert error(again.placement, scan) < error(halfway, scan) < error(cold.placement, scan)


def test_the_same_seed_gives_the_same_object_and_another_one_does_not():
    scan = make_scan(side=16)
    start = flat_placement(scan)
    first, second, other = (refine(start, scan, 2, seed=seed).placement.obj for seed in (3, 3, 4))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_no_epochs_change_nothing():
    scan = make_scan(side=16)
    start = flat_placement(scan)
    refined = refine(start, scan, 0)
    assert torch.equal(refined.placement.obj, start.obj)
    assert refined.misfits == []
    assert np.array_equal(refined.probe, scan.probe)


def test_what_was_never_lit_stays_empty(monkeypatch):
    monkeypatch.setattr("ptycho_torch.refinement._MOST_SETTLINGS", 0)  # long waves know the canvas
    scan = make_scan(side=16)
    start = flat_placement(scan)
    wide = start._replace(
        obj=torch.nn.functional.pad(start.obj, (5, 2, 3, 4)),
        weight=torch.nn.functional.pad(start.weight, (5, 2, 3, 4)),
        anchor=(start.anchor[0] - 3, start.anchor[1] - 5),
    )
    refined, beside = (refine(placement, scan, 3).placement for placement in (wide, start))
    assert torch.equal(refined.obj[3:-4, 5:-2], beside.obj)
    assert not refined.obj[:3].any()


def test_several_modes_explain_their_patterns():
    scan = make_scan(n_modes=2)
    refined = refine(flat_placement(scan), scan, 25)
    assert refined.misfits[-1] < 0.3 * refined.misfits[0]
    assert error(refined.placement, scan) < 0.6 * error(flat_placement(scan), scan)


def test_a_probe_out_of_focus_is_corrected_where_that_is_asked_for():
    scan = make_scan()
    radius = np.hypot(*np.mgrid[-16:16, -16:16])
    wrong = replace(scan, probe=(scan.probe * np.exp(0.01j * radius**2)).astype(np.complex64))  # out of focus
    before = wrong.probe.copy()
    kept, refined = (refine(flat_placement(wrong), wrong, 40, refine_probe=probe) for probe in (False, True))
    assert np.array_equal(kept.probe, before)
    assert np.array_equal(wrong.probe, before)  # a scan is nobody's working memory
    assert refined.misfits[-1] < 0.1 * kept.misfits[-1]


def test_steps_that_are_too_large_are_halved_until_they_are_not(monkeypatch):
    scan = make_scan()
    monkeypatch.setattr("ptycho_torch.refinement._STEP", 3.0)
    monkeypatch.setattr("ptycho_torch.refinement._WORSE", float("inf"))
    wild = refine(flat_placement(scan), scan, 20)
    monkeypatch.setattr("ptycho_torch.refinement._WORSE", 1.05)
    calmed = refine(flat_placement(scan), scan, 20)
    assert calmed.misfits[-1] < 0.5 * wild.misfits[-1]


def test_a_canvas_that_does_not_hold_every_patch_is_refused():
    scan = make_scan(side=16)
    start = flat_placement(scan)
    refine(start, scan, 1)
    cut = start._replace(obj=start.obj[:-2], weight=start.weight[:-2])
    with pytest.raises(ValueError, match=r"Expected every patch to lie on the canvas of .* rows, got patches on rows"):
        refine(cut, scan, 1)


def test_a_negative_number_of_epochs_is_refused():
    scan = make_scan(side=16)
    with pytest.raises(ValueError, match="Expected epochs to be at least 0, got -1"):
        refine(flat_placement(scan), scan, -1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_object_is_the_same():
    scan = make_scan()
    start = flat_placement(scan)
    on_gpu = refine(start._replace(obj=start.obj.cuda(), weight=start.weight.cuda()), scan, 10)
    on_cpu = refine(start, scan, 10)
    assert on_gpu.placement.obj.is_cuda
    torch.testing.assert_close(on_gpu.placement.obj.cpu(), on_cpu.placement.obj, atol=1e-3, rtol=1e-3)
