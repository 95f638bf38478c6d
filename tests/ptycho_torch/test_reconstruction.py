"""The shipped path of inference: from the patterns of a whole scan to an object in the units of its probe."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from naive_optics import amplitude_of, moved_probe
from torch import nn

import shapecheck
from ptycho_torch.config_params import ModelConfig
from ptycho_torch.exposures import Exposures
from ptycho_torch.model import PtychoModel, normalise_probe
from ptycho_torch.reassembly import Placement
from ptycho_torch.reconstruction import flat_placement, reconstruct
from ptycho_torch.scan import Scan
from ptycho_torch.simulate import diffraction_intensity, gaussian_probe, natural_object, raster_positions, simulate_scan

N = 32


def make_scan(P: int = 1, nphotons: float = 1e6) -> Scan:
    """Enough positions, at fractions of a pixel, on an object that is not square."""
    xcoords, ycoords = raster_positions(11, 6, 3.3, 1.0, N, seed=2)
    obj = natural_object((84, 61), seed=4)
    return simulate_scan(obj, gaussian_probe(N, n_modes=P), xcoords, ycoords, nphotons=nphotons, seed=0)


def without_noise(scan: Scan) -> Scan:
    intensity = diffraction_intensity(scan.object_truth, scan.probe, scan.xcoords, scan.ycoords)
    return replace(scan, diffraction_amplitude=np.sqrt(intensity).astype(np.float32))


def make_model(scan: Scan, gridsize: int = 2, *, trained: bool = False) -> PtychoModel:
    config = ModelConfig(gridsize=gridsize, C=gridsize**2, N=N, P=len(scan.probe), max_neighbor_distance=9.0)
    torch.manual_seed(0)
    model = PtychoModel(config, normalise_probe(torch.from_numpy(scan.probe)))
    for stage in model.network.stages if trained else ():
        nn.init.normal_(stage.out.weight, std=0.03)
    return model.eval()


class Oracle(nn.Module):
    """A network that sees the true patch of every pattern, and nothing else of the object."""

    def __init__(self, scan: Scan) -> None:
        super().__init__()
        corners = zip(np.floor(scan.ycoords).astype(int), np.floor(scan.xcoords).astype(int), strict=True)
        half = N // 2
        cut = [scan.object_truth[y - half : y + N - half, x - half : x + N - half] for y, x in corners]
        # Where a model works, a probe of the energy of the patterns makes patterns of that energy.
        unit = np.sqrt(
            (np.abs(scan.probe) ** 2).sum() / (scan.diffraction_amplitude.astype(np.float64) ** 2).sum() * len(cut)
        )
        self.patches = torch.from_numpy((np.stack(cut) * unit).astype(np.complex64))

    def forward(self, exposures: Exposures) -> torch.Tensor:
        self.energy = exposures.measured.square().sum(dim=(1, 2)).mean().item()
        sums, counts = torch.zeros(exposures.canvases, dtype=torch.complex64), torch.zeros(exposures.canvases)
        exposures.add(sums, self.patches)
        exposures.add(counts, torch.ones_like(exposures.measured))
        return sums / counts.clamp_min(1)


def oracle_of(scan: Scan, gridsize: int) -> PtychoModel:
    model = make_model(scan, gridsize)
    model.network = Oracle(scan)
    return model


def truth_beside(placement: Placement, scan: Scan) -> tuple[np.ndarray, np.ndarray]:
    """Reconstruction and truth, by the anchor alone, where the probes' centres went."""
    top, left = placement.anchor
    rows = slice(int(scan.ycoords.min()), int(scan.ycoords.max()) + 1)
    columns = slice(int(scan.xcoords.min()), int(scan.xcoords.max()) + 1)
    whole = np.zeros((200, 200), np.complex64)
    obj = placement.obj.numpy()
    whole[top : top + obj.shape[0], left : left + obj.shape[1]] = obj
    return whole[rows, columns], scan.object_truth[rows, columns]


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    return float(abs(np.vdot(first, second)) / (np.linalg.norm(first) * np.linalg.norm(second)))


# --- perfect patches -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("P", [1, 2])
@pytest.mark.parametrize("gridsize", [1, 2])
def test_perfect_patches_through_the_shipped_path_reproduce_the_object(gridsize, P):
    scan = make_scan(P)
    placement = reconstruct(oracle_of(scan, gridsize), scan)
    assert placement.obj.shape[0] != placement.obj.shape[1]
    obj, truth = truth_beside(placement, scan)
    assert correlation(obj, truth) >= 0.99
    np.testing.assert_allclose(obj, truth, atol=1e-4)  # in the units of the probe, too


@pytest.mark.parametrize("flipped", ["xcoords", "ycoords"])
def test_perfect_patches_at_mirrored_positions_do_not(flipped):
    """Shows that the test above can fail."""
    scan = make_scan()
    at = getattr(scan, flipped)
    mirrored = replace(scan, **{flipped: at.min() + at.max() - at})
    placement = reconstruct(oracle_of(scan, 2), mirrored)
    assert correlation(*truth_beside(placement, scan)) < 0.95


def test_perfect_patches_in_another_order_than_the_patterns_do_not():
    scan = make_scan()
    model = oracle_of(scan, 2)
    model.network.patches = model.network.patches.roll(1, dims=0)
    assert correlation(*truth_beside(reconstruct(model, scan), scan)) < 0.97


# --- the network ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("P", [1, 2])
def test_the_true_object_is_a_fixed_point_of_the_steps_of_an_untrained_network(P, monkeypatch):
    scan = without_noise(make_scan(P))
    (truth,) = reconstruct(oracle_of(scan, 1), scan).obj.unsqueeze(0)
    beyond = truth == 0
    unit = np.sqrt((np.abs(scan.probe) ** 2).sum() / scan.mean_counts)
    start = torch.where(beyond, 1.0, truth * float(unit)).unsqueeze(0)
    monkeypatch.setattr("ptycho_torch.unrolled._long_waves", lambda *_: start)
    obj, expected = truth_beside(reconstruct(make_model(scan), scan), scan)
    np.testing.assert_allclose(obj, expected, atol=1e-3)


def test_an_untrained_network_comes_nearer_to_the_object_than_a_flat_one():
    scan = make_scan()
    found, flat = (
        truth_beside(placement, scan) for placement in (reconstruct(make_model(scan), scan), flat_placement(scan))
    )
    assert correlation(*flat) < 0.93
    assert correlation(*found) > 0.97


def test_the_probe_of_the_scan_is_used_and_not_that_of_the_training():
    scan = make_scan()
    usual = reconstruct(make_model(scan), scan)
    other = make_model(replace(scan, probe=scan.probe[:, ::-1].copy()))
    assert not torch.equal(other.probe, make_model(scan).probe)
    assert torch.equal(reconstruct(other, scan).obj, usual.obj)


@pytest.mark.parametrize("gridsize", [1, 3])
def test_the_size_of_the_groups_that_a_model_was_trained_on_does_not_matter(gridsize):
    scan = make_scan()
    usual = reconstruct(make_model(scan, 2, trained=True), scan)
    assert torch.equal(reconstruct(make_model(scan, gridsize, trained=True), scan).obj, usual.obj)


def test_the_order_of_the_patterns_does_not_matter():
    scan = make_scan()
    order = np.random.default_rng(0).permutation(scan.n_positions)
    shuffled = replace(
        scan,
        diffraction_amplitude=scan.diffraction_amplitude[order],
        xcoords=scan.xcoords[order],
        ycoords=scan.ycoords[order],
    )
    usual, other = (reconstruct(make_model(scan, trained=True), one) for one in (scan, shuffled))
    torch.testing.assert_close(other.obj, usual.obj, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(other.weight, usual.weight)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_scan_of_few_patterns_is_a_scan(n):
    scan = make_scan()
    few = replace(
        scan,
        diffraction_amplitude=scan.diffraction_amplitude[:n],
        xcoords=scan.xcoords[:n],
        ycoords=scan.ycoords[:n],
    )
    placement = reconstruct(make_model(few, trained=True), few)
    assert placement.obj.shape == placement.weight.shape
    assert torch.isfinite(torch.view_as_real(placement.obj)).all()
    assert placement.obj.abs().max() > 0


# --- what a placement says --------------------------------------------------------------------------------------
@pytest.mark.parametrize("P", [1, 2])
def test_the_weight_is_the_light_that_fell_on_a_pixel_in_counts(P):
    scan = make_scan(P)
    placement = reconstruct(make_model(scan), scan)
    expected = np.zeros(placement.weight.shape)
    for x, y in zip(scan.xcoords, scan.ycoords, strict=True):
        row, column = int(np.floor(y)) - N // 2 - placement.anchor[0], int(np.floor(x)) - N // 2 - placement.anchor[1]
        light = (np.abs(moved_probe(scan.probe, x % 1, y % 1)) ** 2).sum(axis=0)
        expected[row : row + N, column : column + N] += light
    np.testing.assert_allclose(placement.weight, expected, rtol=1e-4, atol=1e-4 * expected.max())
    assert placement.dropped == 0


@pytest.mark.parametrize(
    "make", [flat_placement, lambda scan: reconstruct(make_model(scan), scan)], ids=["flat", "seen"]
)
def test_the_object_is_0_where_no_light_fell_and_nowhere_else(make):
    scan = make_scan()
    dark = replace(scan, probe=np.where(np.abs(scan.probe) > 0.05 * np.abs(scan.probe).max(), scan.probe, 0))
    corner = replace(  # one pattern far away: most of the canvas is dark
        dark,
        xcoords=np.append(np.floor(dark.xcoords[:-1]), 150.0),
        ycoords=np.append(np.floor(dark.ycoords[:-1]), 140.0),
    )
    placement = make(corner)
    lit = placement.weight > 1e-6 * placement.weight.max()
    assert 0.05 < lit.float().mean() < 0.5
    assert (placement.obj[lit] != 0).all()
    assert (placement.obj[~lit] == 0).all()


def test_positions_that_all_move_by_whole_pixels_move_the_anchor_alone():
    scan = make_scan()
    moved = replace(scan, xcoords=scan.xcoords + 1024.0, ycoords=scan.ycoords - 96.0, object_truth=None)
    # Coordinates are binary fractions here, so that no fraction of a pixel is rounded differently.
    near, far = (
        replace(one, xcoords=np.round(one.xcoords * 64) / 64, ycoords=np.round(one.ycoords * 64) / 64)
        for one in (replace(scan, object_truth=None), moved)
    )
    here, there = (reconstruct(make_model(one), one) for one in (near, far))
    assert here.anchor == (int(np.floor(near.ycoords.min())) - 16, int(np.floor(near.xcoords.min())) - 16)
    assert there.anchor == (here.anchor[0] - 96, here.anchor[1] + 1024)
    assert torch.equal(there.obj, here.obj)
    assert torch.equal(there.weight, here.weight)


@pytest.mark.parametrize("scale", [1 / 64, 32.0])  # without rounding
def test_an_object_is_in_the_units_of_its_probe(scale):
    scan = make_scan()
    usual = reconstruct(make_model(scan), scan)
    other = reconstruct(make_model(scan), replace(scan, probe=(scale * scan.probe).astype(np.complex64)))
    torch.testing.assert_close(other.obj, usual.obj / scale, atol=1e-5 / scale, rtol=1e-5)
    torch.testing.assert_close(other.weight, usual.weight * scale**2, atol=0, rtol=1e-5)
    predicted, measured = predictions(usual, scan), scan.diffraction_amplitude
    assert np.abs(predicted).sum() == pytest.approx(measured.sum(), rel=0.05)


@pytest.mark.parametrize("share", [0.2, 7.0])
def test_the_counts_of_a_larger_scan_change_the_scale_that_a_model_works_on_and_not_the_units(share):
    scan = make_scan()
    model = oracle_of(scan, 1)
    model.network.patches /= share**0.5  # patterns are, and with them the object
    placement = reconstruct(model, scan, mean_counts=share * scan.mean_counts)
    obj, truth = truth_beside(placement, scan)
    np.testing.assert_allclose(obj, truth, atol=1e-4)
    assert model.network.energy == pytest.approx((N / 2) ** 2 / share, rel=1e-5)
    assert torch.equal(placement.weight, flat_placement(scan).weight)


def predictions(placement: Placement, scan: Scan) -> np.ndarray:
    found = []
    for x, y in zip(scan.xcoords, scan.ycoords, strict=True):
        row, column = int(np.floor(y)) - N // 2 - placement.anchor[0], int(np.floor(x)) - N // 2 - placement.anchor[1]
        patch = placement.obj.numpy()[row : row + N, column : column + N]
        found.append(amplitude_of(patch * moved_probe(scan.probe, x % 1, y % 1)))
    return np.stack(found)


def test_a_flat_object_lets_as_much_light_through_as_the_true_one():
    scan = make_scan()
    placement = flat_placement(scan)
    values = np.unique(placement.obj.numpy())
    assert values[0] == 0
    np.testing.assert_allclose(values[1:], values[-1], rtol=1e-6)
    assert values[-1].imag == 0
    flat = replace(scan, object_truth=None)
    assert (predictions(placement, flat) ** 2).sum() == pytest.approx((scan.diffraction_amplitude**2).sum(), rel=1e-3)
    beside = reconstruct(make_model(scan), scan)
    assert (placement.obj.shape, placement.anchor) == (beside.obj.shape, beside.anchor)
    assert torch.equal(placement.weight, beside.weight)


# --- where and how it runs ---------------------------------------------------------------------------------------
def test_results_with_checks_on_and_off_are_equal_bit_for_bit():
    scan = make_scan()
    checked = reconstruct(make_model(scan, trained=True), scan)
    with shapecheck.mode("off"):
        unchecked = reconstruct(make_model(scan, trained=True), scan)
    for one, other in zip(checked[:2], unchecked[:2], strict=True):
        assert torch.equal(one, other)


def test_without_a_device_everything_stays_in_the_memory_of_the_processor():
    scan = make_scan()
    here, there = (reconstruct(make_model(scan), scan, device) for device in (None, torch.device("cpu")))
    assert here.obj.device.type == here.weight.device.type == "cpu"
    assert torch.equal(here.obj, there.obj)


def test_nothing_of_a_reconstruction_waits_for_a_gradient():
    scan = make_scan()
    placement = reconstruct(make_model(scan), scan)
    assert not placement.obj.requires_grad
    assert not placement.weight.requires_grad


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_object_is_the_same():
    scan = make_scan()
    here, there = make_model(scan, trained=True), make_model(scan, trained=True).cuda()
    on_gpu = reconstruct(there, scan, torch.device("cuda"))
    assert on_gpu.obj.is_cuda
    torch.testing.assert_close(on_gpu.obj.cpu(), reconstruct(here, scan).obj, atol=1e-3, rtol=1e-3)
