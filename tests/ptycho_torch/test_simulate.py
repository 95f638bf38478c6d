"""The forward model against sums written out, its noise against statistics, its pictures against their promises."""

import cmath
from pathlib import Path

import numpy as np
import pytest

from ptycho_torch.scan import load_scan
from ptycho_torch.simulate import (
    diffraction_intensity,
    enclosing_shape,
    gaussian_probe,
    natural_object,
    raster_positions,
    save_simulation,
    simulate_natural_scan,
    simulate_scan,
)
from shapecheck import ContractError

N, P, H, W = 6, 2, 13, 17


def make_object(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.uniform(0.4, 1, (H, W)) * np.exp(1j * rng.uniform(-1, 1, (H, W)))).astype(np.complex64)


def make_probe(seed: int = 1, modes: int = P) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((modes, N, N)) + 1j * rng.standard_normal((modes, N, N))).astype(np.complex64)


def naive_amplitudes(wave: np.ndarray) -> np.ndarray:
    """The centred, unitary Fourier transform, as the double sum it is."""
    side = len(wave)
    result = np.zeros((side, side), complex)
    for u, v in np.ndindex(side, side):
        for i, j in np.ndindex(side, side):
            angle = -2 * np.pi * ((u - side // 2) * i + (v - side // 2) * j) / side
            result[u, v] += wave[i, j] * cmath.exp(1j * angle)
    return result / side


def naive_shift(probe: np.ndarray, rows: float, columns: float) -> np.ndarray:
    """Trigonometric interpolation between the pixels of a periodic probe, from its Fourier sum."""
    side = len(probe)
    frequencies = [k if k < side / 2 else k - side for k in range(side)]
    result = np.zeros((side, side), complex)
    for a in frequencies:
        for b in frequencies:
            coefficient = sum(
                probe[i, j] * cmath.exp(-2j * np.pi * (a * i + b * j) / side) for i, j in np.ndindex(side, side)
            )
            for i, j in np.ndindex(side, side):
                phase = 2j * np.pi * (a * (i - rows) + b * (j - columns)) / side
                result[i, j] += coefficient * cmath.exp(phase) / side**2
    return result


def test_intensity_equals_the_sums_written_out_at_whole_and_fractional_positions() -> None:
    obj, probe = make_object(), make_probe()
    x, y = np.array([4.0, 9.25, 13.5]), np.array([3.0, 7.75, 9.0])
    intensity = diffraction_intensity(obj, probe, x, y)
    for s in range(3):
        top, left = int(y[s]) - N // 2, int(x[s]) - N // 2
        expected = np.zeros((N, N))
        for mode in probe:
            wave = naive_shift(mode, y[s] % 1, x[s] % 1) * obj[top : top + N, left : left + N]
            expected += np.abs(naive_amplitudes(wave)) ** 2
        np.testing.assert_allclose(intensity[s], expected, rtol=1e-5, atol=1e-6 * expected.max())


def test_modes_add_in_intensity() -> None:
    obj, probe = make_object(), make_probe()
    x, y = np.array([4.5, 9.0]), np.array([3.0, 7.25])
    both = diffraction_intensity(obj, probe, x, y)
    single = [diffraction_intensity(obj, probe[p : p + 1], x, y) for p in range(P)]
    np.testing.assert_allclose(both, single[0] + single[1], rtol=1e-12)
    coherent = diffraction_intensity(obj, probe.sum(axis=0, keepdims=True), x, y)
    assert np.abs(both - coherent).max() > 0.1 * both.max()


def test_the_energy_on_the_detector_is_that_of_the_exit_waves() -> None:
    obj, probe = make_object(), make_probe()
    exit_waves = probe * obj[1 : 1 + N, 2 : 2 + N]
    intensity = diffraction_intensity(obj, probe, np.array([5.0]), np.array([4.0]))
    assert intensity.sum() == pytest.approx(float(np.sum(np.abs(exit_waves) ** 2)), rel=1e-6)


def test_x_is_the_column_and_y_the_row() -> None:
    obj = np.zeros((H, W), np.complex64)
    obj[9, 4] = 1  # one transparent pixel lights the detector evenly, with the probe's value there
    probe = make_probe(modes=1)
    intensity = diffraction_intensity(obj, probe, np.array([4.0]), np.array([9.0]))
    np.testing.assert_allclose(intensity[0], np.abs(probe[0, N // 2, N // 2]) ** 2 / N**2, rtol=1e-5)
    aside = diffraction_intensity(obj, probe, np.array([5.0]), np.array([9.0]))
    np.testing.assert_allclose(aside[0], np.abs(probe[0, N // 2, N // 2 - 1]) ** 2 / N**2, rtol=1e-5)


def test_a_flat_object_shows_the_probe_s_spectrum_with_zero_frequency_in_the_middle() -> None:
    flat, even = np.ones((H, W), np.complex64), np.ones((1, N, N), np.complex64)
    intensity = diffraction_intensity(flat, even, np.array([5.0]), np.array([6.0]))[0]
    assert intensity[N // 2, N // 2] == pytest.approx(N**2)
    assert intensity.sum() == pytest.approx(N**2)


def test_many_positions_give_the_same_as_each_alone() -> None:
    obj, probe = make_object(), make_probe()
    rng = np.random.default_rng(2)
    x, y = rng.uniform(3, W - 4, 150), rng.uniform(3, H - 4, 150)
    together = diffraction_intensity(obj, probe, x, y)
    for s in (0, 63, 64, 149):
        np.testing.assert_array_equal(together[s], diffraction_intensity(obj, probe, x[s : s + 1], y[s : s + 1])[0])


def test_a_patch_beyond_the_object_is_refused() -> None:
    with pytest.raises(ValueError, match=r"xcoords\[1\] = 14\.100"):
        diffraction_intensity(make_object(), make_probe(), np.array([5.0, 14.1]), np.array([5.0, 5.0]))


@pytest.mark.violation
def test_a_probe_without_a_mode_axis_is_a_violation() -> None:
    with pytest.raises(ContractError, match="probe"):
        diffraction_intensity(make_object(), make_probe()[0], np.array([5.0]), np.array([5.0]))


def test_the_photons_asked_for_arrive_and_the_probe_is_in_their_unit() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.uniform(3, W - 4, 200), rng.uniform(3, H - 4, 200)
    scan = simulate_scan(make_object(), make_probe(), x, y, 5e4, 0)
    assert scan.mean_counts == pytest.approx(5e4, rel=1e-3)
    expected = diffraction_intensity(make_object(), scan.probe, x, y)
    assert expected.sum(axis=(1, 2)).mean() == pytest.approx(5e4, rel=1e-5)


def test_the_noise_is_that_of_counted_photons() -> None:
    x, y = np.full(4000, 6.25), np.full(4000, 5.0)
    scan = simulate_scan(make_object(), make_probe(), x, y, 200.0, 0)
    counts = scan.diffraction_amplitude.astype(np.float64) ** 2
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-4)
    expected = diffraction_intensity(make_object(), scan.probe, x[:1], y[:1])[0]
    np.testing.assert_allclose(counts.mean(axis=0), expected, atol=5 * np.sqrt(expected.max() / 4000))
    np.testing.assert_allclose(counts.var(axis=0) / expected, 1, atol=0.15)


def test_the_same_seed_gives_the_same_noise_and_another_other() -> None:
    arguments = (make_object(), make_probe(), np.array([6.0]), np.array([6.0]), 1e4)
    first, again, other = (simulate_scan(*arguments, seed).diffraction_amplitude for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(("probe", "nphotons"), [(make_probe() * 0, 1e4), (make_probe(), 0.0)], ids=["dark", "none"])
def test_a_scan_without_light_is_refused(probe: np.ndarray, nphotons: float) -> None:
    with pytest.raises(ValueError, match="Expected light on the detector"):
        simulate_scan(make_object(), probe, np.array([6.0]), np.array([6.0]), nphotons, 0)


@pytest.mark.parametrize("shape", [(40, 57), (57, 40), (600, 530)], ids=str)
def test_a_natural_object_keeps_its_shape_and_ranges(shape: tuple[int, int]) -> None:
    obj = natural_object(shape, 0)
    assert (obj.shape, obj.dtype) == (shape, np.complex64)
    assert (np.abs(obj).min(), np.abs(obj).max()) == pytest.approx((0.4, 1.0), abs=1e-5)
    assert (np.angle(obj).min(), np.angle(obj).max()) == pytest.approx((-1.0, 1.0), abs=1e-5)


def test_amplitude_and_phase_of_a_natural_object_hold_nothing_beyond_the_pass_band() -> None:
    obj = natural_object((48, 64), 0)
    radius = np.hypot(np.fft.fftfreq(48)[:, None], np.fft.fftfreq(64)[None]) / 0.5
    for part in (np.abs(obj), np.angle(obj)):
        spectrum = np.abs(np.fft.fft2(part))
        assert spectrum[radius >= 1].max() < 1e-5 * spectrum.max()
        assert spectrum[(radius > 0.8) & (radius < 0.9)].max() > 1e-4 * spectrum.max()


def test_a_natural_object_is_drawn_by_its_seed() -> None:
    first, again, other = (natural_object((40, 57), seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).mean() > 0.05


def test_a_gaussian_probe_is_centred_has_unit_energy_and_is_defocused() -> None:
    probe = gaussian_probe(32)
    assert (probe.shape, probe.dtype) == ((1, 32, 32), np.complex64)
    assert np.sum(np.abs(probe) ** 2) == pytest.approx(1, rel=1e-5)
    assert np.unravel_index(np.abs(probe[0]).argmax(), (32, 32)) == (16, 16)
    curvature = [np.diff(np.angle(line), 2)[0] for line in (probe[0, 15:18, 16], probe[0, 16, 15:18])]
    assert curvature == pytest.approx([0.035 * 1.1, 0.035 * 0.9], rel=1e-3)


def test_probe_modes_are_orthogonal_and_each_has_half_the_energy_of_the_one_before() -> None:
    modes = gaussian_probe(64, n_modes=3).reshape(3, -1).astype(np.complex128)
    gram = modes @ modes.conj().T
    np.testing.assert_allclose(np.diag(gram).real, [4 / 7, 2 / 7, 1 / 7], rtol=1e-5)
    assert np.abs(gram - np.diag(np.diag(gram))).max() < 1e-5


def test_a_raster_without_jitter_is_a_raster_row_by_row() -> None:
    x, y = raster_positions(3, 4, 2.5, 0.0, N, 0)
    np.testing.assert_allclose(x - x[0], np.tile([0, 2.5, 5, 7.5], 3))
    np.testing.assert_allclose(y - y[0], np.repeat([0, 2.5, 5], 4))


def test_a_raster_stays_within_its_jitter_and_its_object() -> None:
    straight = raster_positions(5, 7, 6.0, 0.0, N, 0)
    x, y = raster_positions(5, 7, 6.0, 2.0, N, 1)
    for moved, fixed in ((x, straight[0]), (y, straight[1])):
        deviation = moved - fixed - 2.0
        assert 1.5 < np.abs(deviation).max() <= 2.0
    rows, columns = enclosing_shape(x, y, N)
    assert (x.min() - N // 2, y.min() - N // 2) > (0, 0)
    assert x.max() - N // 2 + N < columns
    assert y.max() - N // 2 + N < rows
    assert rows < columns


@pytest.mark.parametrize("wrong", [{"n_rows": 0}, {"step": 0.0}, {"jitter": -1.0}])
def test_a_raster_that_is_none_is_refused(wrong: dict[str, float]) -> None:
    settings = {"n_rows": 3, "n_columns": 4, "step": 2.0, "jitter": 1.0, "patch_size": N, "seed": 0} | wrong
    with pytest.raises(ValueError, match="Expected a raster of at least 1 x 1 points"):
        raster_positions(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("n_modes", [1, 2])
def test_a_simulation_is_written_with_every_key_and_read_back(tmp_path: Path, n_modes: int) -> None:
    scan = simulate_natural_scan(patch_size=16, n_rows=3, n_columns=5, n_modes=n_modes, nphotons=1e4, seed=7)
    save_simulation(scan, tmp_path / "scan.npz")
    stored = np.load(tmp_path / "scan.npz")
    assert set(stored.files) == {"diffraction", "xcoords", "ycoords", "probeGuess", "objectTruth", "probeTruth"}
    np.testing.assert_array_equal(stored["probeTruth"], stored["probeGuess"])
    assert stored["probeGuess"].shape == ((16, 16) if n_modes == 1 else (2, 16, 16))
    read = load_scan(tmp_path / "scan.npz")
    np.testing.assert_array_equal(read.diffraction_amplitude, scan.diffraction_amplitude)
    np.testing.assert_array_equal(read.probe, scan.probe)


def test_a_natural_scan_is_drawn_by_its_seed() -> None:
    first, again, other = (
        simulate_natural_scan(patch_size=16, n_rows=2, n_columns=3, nphotons=1e4, seed=seed) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first.diffraction_amplitude, again.diffraction_amplitude)
    assert not np.array_equal(first.xcoords, other.xcoords)


def test_the_truth_of_the_shared_simulation_explains_it_up_to_photon_noise(shared: Path) -> None:
    scan = load_scan(shared / "data" / "sim_natural_64.npz")
    assert scan.object_truth is not None
    model = np.sqrt(diffraction_intensity(scan.object_truth, scan.probe, scan.xcoords, scan.ycoords))
    measured = scan.diffraction_amplitude.astype(np.float64)
    assert np.abs(model - measured).sum() / measured.sum() == pytest.approx(0.1137, abs=1e-4)
