"""The constants that scale patterns and probes, against sums in Python and recorded vectors."""

from pathlib import Path

import numpy as np
import pytest

from ptycho_torch.scaling import probe_scaling, scaling_constants

N = 16


def naive_mean_energy(images: np.ndarray) -> float:
    total, count = 0.0, 0
    for g in range(images.shape[0]):
        for c in range(images.shape[3]):
            total += sum(float(value) ** 2 for value in images[g, :, :, c].ravel())
            count += 1
    return total / count


def test_rms_brings_the_mean_energy_to_a_quarter_of_the_pixels() -> None:
    images = np.random.default_rng(0).uniform(0, 300, (3, N, N, 4)).astype(np.float32)
    rms, physics = scaling_constants(images)
    assert rms**2 * naive_mean_energy(images) == pytest.approx((N / 2) ** 2, rel=1e-12)
    assert rms * physics == pytest.approx(1, rel=1e-12)


def test_physics_brings_the_mean_energy_to_the_photons_asked_for() -> None:
    images = np.random.default_rng(0).uniform(0, 300, (3, N, N, 4)).astype(np.float32)
    rms, physics = scaling_constants(images, nphotons=1234.0)
    assert (physics * rms) ** 2 * naive_mean_energy(images) == pytest.approx(1234, rel=1e-12)


def test_scaling_is_computed_in_double_precision() -> None:
    images = np.full((1, 64, 64, 4), 1e-3, np.float32)
    images[0, 0, 0, 0] = 3e4
    energy = naive_mean_energy(images)
    assert scaling_constants(images)[0] == pytest.approx(32 / np.sqrt(energy), rel=1e-12)


def test_the_scale_of_patterns_agrees_with_the_recorded_reference(shared: Path) -> None:
    vectors = np.load(shared / "reference" / "scaling_probe.npz")
    rms, physics = scaling_constants(vectors["derive_nhwc__X"], nphotons=1e9)
    assert rms * physics == pytest.approx(float(vectors["derive_nhwc__scale"]), rel=1e-5)


def test_dark_patterns_cannot_be_scaled() -> None:
    with pytest.raises(ValueError, match="diffraction amplitudes with energy"):
        scaling_constants(np.zeros((2, N, N, 4), np.float32))


def test_the_probe_scale_counts_every_mode() -> None:
    parts = np.random.default_rng(0).standard_normal((2, 3, N, N))
    probe = (parts[0] + 1j * parts[1]).astype(np.complex64)
    energy = sum(abs(complex(value)) ** 2 for value in probe.ravel())
    assert probe_scaling(probe) == pytest.approx(N / 2 / np.sqrt(energy), rel=1e-9)


def test_a_dark_probe_cannot_be_scaled() -> None:
    with pytest.raises(ValueError, match="probe with energy"):
        probe_scaling(np.zeros((1, N, N), np.complex64))
