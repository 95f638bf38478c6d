"""Moments of patterns against exit waves whose slopes are known, and the surface that slopes belong to."""

import numpy as np
import pytest
import torch

from ptycho_torch.moments import integrate_slopes, moments
from shapecheck import ContractError


def pattern(exit_wave: np.ndarray) -> torch.Tensor:
    far = np.fft.fftshift(np.fft.fft2(exit_wave, norm="ortho"))
    return torch.from_numpy(np.abs(far).astype(np.float32)).unsqueeze(0)


def gaussian(side: int, width: float) -> np.ndarray:
    rows, columns = np.mgrid[:side, :side] - side // 2
    return np.exp(-(rows**2 + columns**2) / (2 * width**2))


@pytest.mark.parametrize("side", [32, 33])
def test_a_slope_of_the_phase_is_the_centroid_of_the_pattern(side):
    rows, columns = np.mgrid[:side, :side]
    exit_wave = gaussian(side, side / 8) * np.exp(1j * (0.3 * columns - 0.2 * rows))
    energies, centroids = moments(pattern(exit_wave))
    np.testing.assert_allclose(energies, [(np.abs(exit_wave) ** 2).sum()], rtol=1e-5)
    np.testing.assert_allclose(centroids, [[0.3, -0.2]], atol=1e-5)


def test_each_pattern_has_moments_of_its_own():
    slopes = [(0.0, 0.0), (0.4, 0.1), (-0.1, 0.2)]
    rows, columns = np.mgrid[:32, :32]
    waves = [gaussian(32, 4.0) * np.exp(1j * (x * columns + y * rows)) for x, y in slopes]
    _, centroids = moments(torch.cat([pattern(wave) for wave in waves]))
    np.testing.assert_allclose(centroids, slopes, atol=1e-5)


def test_a_pattern_without_light_has_its_centroid_in_the_middle():
    energies, centroids = moments(torch.zeros(1, 9, 9))
    assert energies.tolist() == [0]
    assert centroids.tolist() == [[0, 0]]


def smooth_surface(height: int, width: int) -> np.ndarray:
    """Flat across its edges, so that differences of neighbours and derivatives are close."""
    rows, columns = np.mgrid[:height, :width]
    surface = np.cos(np.pi * (rows + 0.5) / height) + 0.5 * np.cos(2 * np.pi * (columns + 0.5) / width)
    return surface - surface.mean()


@pytest.mark.parametrize(("height", "width"), [(48, 31), (31, 48), (40, 40)])
def test_a_surface_is_found_from_its_slopes(height, width):
    surface = smooth_surface(height, width)
    slopes = np.stack((np.gradient(surface, axis=1), np.gradient(surface, axis=0))).astype(np.float32)
    found = integrate_slopes(torch.from_numpy(slopes))
    np.testing.assert_allclose(found, surface, atol=0.02)


def test_slopes_in_the_wrong_order_give_another_surface():
    """Shows that the test above can fail."""
    surface = smooth_surface(48, 31)
    slopes = np.stack((np.gradient(surface, axis=0), np.gradient(surface, axis=1))).astype(np.float32)
    assert np.abs(integrate_slopes(torch.from_numpy(slopes)).numpy() - surface).max() > 0.5


def test_a_tilt_is_found_to_its_edges():
    slopes = torch.zeros(2, 20, 30)
    slopes[0] = 0.1
    columns = torch.arange(30) * 0.1
    torch.testing.assert_close(integrate_slopes(slopes), (columns - columns.mean()).expand(20, 30), atol=0.06, rtol=0)


@pytest.mark.violation
def test_slopes_with_their_axis_last_are_refused():
    integrate_slopes(torch.zeros(2, 5, 7))
    with pytest.raises(ContractError, match="slopes"):
        integrate_slopes(torch.zeros(5, 7, 2))
