"""The shipped path of inference: true patches come out as the true object."""

import numpy as np
import pytest
import torch

from ptycho_torch.config_params import DataConfig, InferenceConfig
from ptycho_torch.dataloader import PtychoDataContainerTorch
from ptycho_torch.grouping import all_groups
from ptycho_torch.reassembly import Placement
from ptycho_torch.reconstruction import reconstruct, whole_scan_container
from ptycho_torch.scan import Scan
from ptycho_torch.simulate import gaussian_probe, natural_object, raster_positions, simulate_scan


def make_config(gridsize: int, batch_size: int = 7) -> InferenceConfig:
    return InferenceConfig(gridsize=gridsize, C=gridsize**2, batch_size=batch_size)


class Oracle:
    """Sees the true patches, in the order of the container, each with a global phase of its own."""

    def __init__(self, patches: torch.Tensor, *, free_phases: bool = False) -> None:
        self.left = patches
        if free_phases:
            angles = torch.rand(patches.shape[:2], generator=torch.Generator().manual_seed(0))
            self.left = patches * torch.polar(torch.ones_like(angles), 6.28 * angles)[..., None, None]

    def forward_predict(self, images: torch.Tensor, input_scale: torch.Tensor) -> torch.Tensor:
        patches, self.left = self.left[: len(images)], self.left[len(images) :]
        return patches


def make_true_scan() -> Scan:
    """Enough positions, at fractions of a pixel, for an object that is not square."""
    xcoords, ycoords = raster_positions(11, 6, 3.3, 1.0, 32, seed=2)
    obj = natural_object((84, 61), seed=4)
    return simulate_scan(obj, gaussian_probe(32), xcoords, ycoords, nphotons=1e6, seed=0)


def make_true_container(scan: Scan, gridsize: int) -> PtychoDataContainerTorch:
    groups = all_groups(scan.xcoords, scan.ycoords, gridsize, gridsize**2 + 2, seed=0)
    return PtychoDataContainerTorch.from_groups(scan, groups)


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


@pytest.mark.parametrize("gridsize", [1, 2])
@pytest.mark.parametrize("synchronise", [True, False])
def test_perfect_patches_through_the_shipped_path_reproduce_the_object(gridsize, synchronise):
    scan = make_true_scan()
    container = make_true_container(scan, gridsize)
    config = make_config(gridsize)
    oracle = Oracle(container.patches_truth, free_phases=synchronise)
    placement = reconstruct(oracle, container, config, synchronise=synchronise)
    assert placement.obj.shape[0] != placement.obj.shape[1]
    assert correlation(*truth_beside(placement, scan)) >= 0.99


def test_patches_with_phases_of_their_own_do_not_add_up_to_the_object_unless_synchronised():
    """Shows that the test above can fail."""
    scan = make_true_scan()
    container = make_true_container(scan, 2)
    oracle = Oracle(container.patches_truth, free_phases=True)
    placement = reconstruct(oracle, container, make_config(2), synchronise=False)
    assert correlation(*truth_beside(placement, scan)) < 0.95


def test_the_reconstruction_is_in_the_units_of_the_probe():
    scan = make_true_scan()
    container = make_true_container(scan, 1)
    # A model works on objects scaled so that rms * A has the energy of the normalised probe.
    normalised = container.patches_truth * (container.rms_scaling_constant / container.probe_scaling)
    placement = reconstruct(Oracle(normalised), container, make_config(1))
    obj, truth = truth_beside(placement, scan)
    assert np.abs(obj).mean() == pytest.approx(np.abs(truth).mean(), rel=3e-2)  # interpolation blurs


@pytest.mark.parametrize("gridsize", [1, 2, 3])
def test_every_position_of_a_scan_takes_part_in_few_groups(gridsize):
    scan, C = make_true_scan(), gridsize**2
    data = DataConfig(gridsize, C, N=32, n_groups=1, neighbor_count=C + 2, max_neighbor_distance=9, nphotons=1, seed=0)
    container = whole_scan_container(scan, data)
    assert set(container.nn_indices.flatten().tolist()) == set(range(scan.n_positions))
    assert container.nn_indices.numel() <= 2 * scan.n_positions
    assert container.patches_truth is None  # no inference may see it
    for group, members in enumerate(container.nn_indices):
        for channel, position in enumerate(members):
            at = container.positions[group, channel, 0].numpy()
            np.testing.assert_allclose(at, [scan.xcoords[position], scan.ycoords[position]], atol=1e-4)
            np.testing.assert_array_equal(container.images[group, channel], scan.diffraction_amplitude[position])
