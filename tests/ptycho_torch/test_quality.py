"""The quality measure against objects whose difference is known by construction."""

import json
import sys

import numpy as np
import pytest
from scipy.ndimage import fourier_shift, gaussian_filter

import shapecheck
from ptycho_torch.quality import compare, match_scale, measure_quality, overlapping, remove_gauge


def make_object(H: int = 40, W: int = 56, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return ((0.4 + 0.6 * rng.random((H, W))) * np.exp(1j * rng.uniform(-1, 1, (H, W)))).astype(np.complex64)


def make_smooth_object(H: int = 96, W: int = 120, seed: int = 0) -> np.ndarray:
    """A periodic picture that can be moved by a fraction of a pixel."""
    rng = np.random.default_rng(seed)
    first, second = (gaussian_filter(rng.standard_normal((H, W)), 2.5, mode="wrap") for _ in range(2))
    return ((0.7 + 0.3 * np.tanh(8 * first)) * np.exp(4j * second)).astype(np.complex64)


def make_ramp(shape: tuple[int, int], slopes: tuple[float, float]) -> np.ndarray:
    """exp(i (a row + b column)), radians per pixel."""
    return np.exp(1j * (slopes[0] * np.arange(shape[0])[:, None] + slopes[1] * np.arange(shape[1])))


def test_a_complex_factor_is_no_error():
    truth = make_object()
    quality = measure_quality((truth * 3 * np.exp(2j)).astype(np.complex64), truth)
    assert quality.amplitude_mae < 1e-6
    assert quality.phase_mae_rad < 1e-6
    assert quality.correlation == pytest.approx(1)


def test_a_known_phase_error_is_measured_as_such_and_leaves_the_amplitude_alone():
    truth = np.ones((40, 56), np.complex64)
    turned = truth.copy()
    turned[:, ::2] *= np.exp(0.2j)
    turned[:, 1::2] *= np.exp(-0.2j)
    quality = measure_quality(turned, truth)
    assert quality.phase_mae_rad == pytest.approx(0.2, rel=1e-4)
    assert quality.amplitude_mae < 1e-6


def test_a_known_amplitude_error_is_measured_as_such_and_leaves_the_phase_alone():
    truth = make_object()
    changed = truth.copy()
    changed[:20] *= 1.1
    quality = measure_quality(changed, truth)
    scale = np.sum(np.abs(changed) * np.abs(truth)) / np.sum(np.abs(changed) ** 2)
    expected = np.mean(np.abs(scale * np.abs(changed) - np.abs(truth)))
    assert quality.amplitude_mae == pytest.approx(expected, rel=1e-5)
    assert quality.phase_mae_rad < 1e-6


def test_phase_errors_are_wrapped():
    truth = np.ones((40, 56), np.complex64)
    turned = truth * np.exp(1j * np.where(np.arange(56) < 28, 3.1, -3.1)).astype(np.complex64)
    assert measure_quality(turned.astype(np.complex64), truth).phase_mae_rad < 0.05


def test_psnr_relates_the_error_to_the_range_of_the_truth():
    truth = np.ones((40, 56), np.complex64)
    truth[:20] = 0.5
    changed = truth + np.where(np.arange(56) % 2, 0.05, -0.05).astype(np.complex64)
    quality = measure_quality(changed.astype(np.complex64), truth)
    assert quality.amplitude_psnr_db == pytest.approx(10 * np.log10(0.5**2 / 0.05**2), abs=0.2)


def test_a_flat_object_correlates_less_than_the_truth_itself():
    truth = make_object()
    flat = measure_quality(np.ones_like(truth), truth)
    assert flat.correlation < measure_quality(truth, truth).correlation
    assert flat.phase_mae_rad == pytest.approx(0.5, abs=0.03)  # the mean of |u| for u uniform in -1..1


def test_a_reconstruction_of_zeros_is_bad_but_no_crash():
    truth = make_object()
    quality = measure_quality(np.zeros_like(truth), truth)
    assert quality.correlation == 0
    assert np.isfinite(match_scale(np.zeros_like(truth), truth)).all()


def test_overlapping_cuts_both_objects_to_the_same_pixels_of_the_truth_frame():
    truth = make_object(H=40, W=56)
    obj = np.pad(truth[5:30, 7:50], 2)
    cut, reference, origin = overlapping(obj, (3, 5), truth, (10, 20, 15, 45))
    assert origin == (10, 15)
    np.testing.assert_array_equal(cut, truth[10:20, 15:45])
    np.testing.assert_array_equal(reference, truth[10:20, 15:45])


def test_overlapping_stops_at_the_edge_of_what_both_cover():
    truth = make_object(H=40, W=56)
    cut, reference, origin = overlapping(truth[4:], (4, 0), truth, (-5, 100, -5, 100))
    assert origin == (4, 0)
    assert cut.shape == reference.shape == (36, 56)


def test_overlapping_without_a_common_pixel_is_an_error_that_names_both_places():
    truth = make_object(H=40, W=56)
    with pytest.raises(ValueError, match=r"40 x 56 pixels at \(100, 0\).*no common pixel"):
        overlapping(truth, (100, 0), truth, (0, 40, 0, 56))


@pytest.mark.violation
def test_quality_refuses_objects_on_different_pixels():
    with pytest.raises(shapecheck.ContractError, match="truth"):
        measure_quality(make_object(H=40), make_object(H=41))


@pytest.mark.parametrize("slopes", [(0.0, 0.0), (0.031, -0.017), (-0.2, 0.11)])
def test_a_phase_ramp_is_no_error(slopes):
    truth = make_smooth_object()
    tilted = (2 * np.exp(1j) * truth * make_ramp(truth.shape, slopes)).astype(np.complex64)
    assert measure_quality(remove_gauge(tilted, truth), truth).phase_mae_rad < 0.02
    if any(slopes):
        assert measure_quality(tilted, truth).phase_mae_rad > 0.3


@pytest.mark.parametrize("shift", [(0.0, 0.0), (3.0, -5.0), (1.4, 2.6)])
def test_a_translation_is_no_error(shift):
    truth = make_smooth_object()
    moved = np.fft.ifft2(fourier_shift(np.fft.fft2(truth), shift)).astype(np.complex64)
    moved = (moved * make_ramp(truth.shape, (0.02, 0.01))).astype(np.complex64)
    assert measure_quality(remove_gauge(moved, truth), truth).nrmse < 0.02
    if any(shift):
        assert measure_quality(moved, truth).nrmse > 0.1


def test_removing_the_gauge_removes_no_error_that_is_not_gauge():
    truth = make_smooth_object()
    rows = np.linspace(-1, 1, truth.shape[0])[:, None]
    bowl = (truth * np.exp(1j * rows**2)).astype(np.complex64)  # quadratic: neither factor, ramp nor shift
    after = measure_quality(remove_gauge(bowl, truth), truth).phase_mae_rad
    assert after == pytest.approx(measure_quality(bowl, truth).phase_mae_rad, rel=0.05)
    assert after > 0.2


def test_similarity_is_one_for_the_truth_and_low_for_another_picture():
    truth, other = make_smooth_object(seed=0), make_smooth_object(seed=1)
    same, different = measure_quality(truth, truth), measure_quality(other, truth)
    assert same.amplitude_ssim == pytest.approx(1)
    assert same.phase_ssim == pytest.approx(1)
    assert same.frc50 == 1
    assert different.amplitude_ssim < 0.7
    assert different.frc50 < 0.1


def test_resolution_falls_to_where_a_low_pass_cuts():
    truth = make_object(H=96, W=96)
    frequency = np.hypot(np.fft.fftfreq(96)[:, None], np.fft.fftfreq(96))
    blurred = np.fft.ifft2(np.fft.fft2(truth) * (frequency < 0.15)).astype(np.complex64)
    assert measure_quality(blurred, truth).frc50 == pytest.approx(0.3, abs=0.05)


def test_the_measure_agrees_with_the_neutral_one(shared):
    sys.path.insert(0, str(shared))
    try:
        import metrics
    finally:
        sys.path.remove(str(shared))
    truth = make_smooth_object()
    noise = 0.03 * np.random.default_rng(5).standard_normal((2, *truth.shape))
    moved = np.fft.ifft2(fourier_shift(np.fft.fft2(truth + noise[0] + 1j * noise[1]), (2.3, -1.6)))
    # Tilted last: a ramp that does not fit the border an integer number of times would ring when moved.
    wrong = (1.7 * np.exp(0.9j) * moved * make_ramp(truth.shape, (0.03, -0.02))).astype(np.complex64)
    region = (12, 84, 14, 106)
    ours, neutral = compare(wrong, (0, 0), truth, region).reconstruction, metrics.evaluate(wrong, truth, region)
    assert ours.amplitude_psnr_db == pytest.approx(neutral["amp_psnr"], abs=0.5)
    assert ours.phase_psnr_db == pytest.approx(neutral["phase_psnr"], abs=0.5)
    assert ours.amplitude_ssim == pytest.approx(neutral["amp_ssim"], abs=0.02)
    assert ours.phase_ssim == pytest.approx(neutral["phase_ssim"], abs=0.02)
    assert ours.amplitude_mae == pytest.approx(neutral["amp_mae"], rel=0.05)
    assert ours.phase_mae_rad == pytest.approx(neutral["phase_mae"], rel=0.1)
    assert ours.nrmse == pytest.approx(neutral["nrmse"], rel=0.05)
    assert ours.frc50 == pytest.approx(neutral["frc50"], abs=0.05)


def test_a_comparison_shows_both_objects_on_the_truths_pixels_and_judges_a_flat_one_alike():
    truth = make_smooth_object()
    found = compare((2j * truth[4:90]).astype(np.complex64), (4, 0), truth, (10, 80, 15, 100))
    assert found.origin == (10, 15)
    assert found.truth.shape == found.aligned.shape == (70, 85)
    np.testing.assert_allclose(found.aligned, found.truth, atol=1e-3)
    assert found.reconstruction.phase_mae_rad < 1e-3 < found.flat.phase_mae_rad
    values = json.loads(json.dumps(found.as_dict()))
    assert values["region"] == {"row": 10, "col": 15, "rows": 70, "cols": 85}
    assert values["flat"]["correlation"] < values["reconstruction"]["correlation"]
