"""How close a reconstructed object comes to a known truth.

A reconstruction is compared only after its gauge is removed: what diffraction does not determine is no error. That is one
complex factor, and, where the probe is not known exactly, a linear phase ramp (the probe takes the opposite one) and a
translation (the probe moves the other way). Nothing else is fitted.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Complex64
from scipy.ndimage import fourier_shift
from skimage.metrics import structural_similarity
from skimage.registration import phase_cross_correlation

from ptycho_torch.contracts import ObjectArray
from shapecheck import contract

__all__ = ["Comparison", "Quality", "compare", "match_scale", "measure_quality", "overlapping", "remove_gauge"]

Cut = Complex64[np.ndarray, "h w"]  # a part of an object; names of its own, as it lies in records with whole objects

_SUBPIXEL = 50  # steps per pixel of the registration
_ROUNDS = 3  # ramp and translation disturb each other's estimate
_PADDING = 4  # finer sampling of the spectrum in which a ramp is a peak
_MARGIN = 8  # pixels around the region that take part in a translation, so that nothing wraps into it
_SMALLEST_WINDOW = 7  # side of the SSIM window; smaller pictures have no SSIM
_FRC_THRESHOLD = 0.5
_FRC_FIRST_RING = 3  # lower rings hold few points
_FRC_SMOOTHING = 3  # rings


@dataclass(frozen=True)
class Quality:
    """Differences between a reconstruction and the truth over one region."""

    amplitude_mae: float  # mean |difference of moduli|, in units of the truth's modulus
    amplitude_psnr_db: float  # over the truth's range of moduli
    amplitude_ssim: float  # structural similarity of the moduli, 1 is perfect
    phase_mae_rad: float  # mean |difference of phases|, wrapped
    phase_psnr_db: float  # over the truth's range of phases
    phase_ssim: float  # structural similarity of the truth's phase and that phase plus the difference
    nrmse: float  # |reconstruction - truth| / |truth|, complex
    correlation: float  # |<reconstruction, truth>| / (|reconstruction| |truth|), 1 is perfect
    frc50: float  # frequency, 1 is Nyquist, at which the Fourier ring correlation falls below 0.5

    def as_dict(self) -> dict[str, float]:
        """Return plain numbers, ready for JSON."""
        return asdict(self)


@contract
@dataclass(frozen=True)
class Comparison:
    """A reconstruction beside the truth on the same pixels, and a flat object judged by the same measure.

    Attributes:
        truth: Cut to the region.
        aligned: The reconstruction there, its gauge removed and brought to the truth's scale and phase.
        origin: (row, col) of index [0, 0] of both in the truth's frame.
        reconstruction: Its quality.
        flat: The quality of an object of ones: what is known without any data.
    """

    truth: Cut
    aligned: Cut
    origin: tuple[int, int]
    reconstruction: Quality
    flat: Quality

    def as_dict(self) -> dict[str, Any]:
        """Return plain numbers, ready for JSON."""
        rows, columns = self.truth.shape
        region = {"row": self.origin[0], "col": self.origin[1], "rows": rows, "cols": columns}
        return {"reconstruction": self.reconstruction.as_dict(), "flat": self.flat.as_dict(), "region": region}


@contract
def compare(
    obj: np.ndarray, origin: tuple[int, int], truth: np.ndarray, region: tuple[int, int, int, int]
) -> Comparison:
    """Judge a reconstruction and a flat object by the truth, within a region.

    Args:
        obj: Reconstruction.
        origin: (row, col) pixel of the truth's frame at which its index [0, 0] lies.
        truth: Reference, whose index [0, 0] is the frame's origin.
        region: (first row, end row, first column, end column) in the truth's frame.

    Raises:
        ValueError: They have no pixel in common there.
    """
    wide = (region[0] - _MARGIN, region[1] + _MARGIN, region[2] - _MARGIN, region[3] + _MARGIN)
    cut, around, corner = overlapping(obj, origin, truth, wide)

    def aligned(candidate: np.ndarray) -> np.ndarray:
        inside, reference, _ = overlapping(remove_gauge(candidate, around), corner, truth, region)
        return match_scale(inside, reference)

    ours, flat = aligned(cut), aligned(np.ones_like(around))
    _, reference, corner = overlapping(cut, corner, truth, region)
    return Comparison(reference, ours, corner, measure_quality(ours, reference), measure_quality(flat, reference))


@contract
def measure_quality(reconstruction: ObjectArray, truth: ObjectArray) -> Quality:
    """Compare two objects on the same pixels after removing one complex factor.

    Args:
        reconstruction: Any scale and global phase; ramp and translation count as errors (see `remove_gauge`).
        truth: The reference.

    Returns:
        Errors of modulus and phase, and similarities of the complex images.
    """
    aligned = match_scale(reconstruction, truth)
    moduli, true_moduli = np.abs(aligned), np.abs(truth)
    phase_error = np.angle(aligned * np.conj(truth))
    true_phase = np.angle(truth * np.conj(np.sum(truth)))
    overlap, energy = np.vdot(reconstruction, truth), float(np.vdot(reconstruction, reconstruction).real)
    best_fit = reconstruction * (overlap / energy if energy else 0.0)
    truth_norm = float(np.linalg.norm(truth)) or 1.0
    return Quality(
        amplitude_mae=float(np.mean(np.abs(moduli - true_moduli))),
        amplitude_psnr_db=_psnr_db(moduli - true_moduli, true_moduli),
        amplitude_ssim=_ssim(true_moduli, moduli),
        phase_mae_rad=float(np.mean(np.abs(phase_error))),
        phase_psnr_db=_psnr_db(phase_error, true_phase),
        phase_ssim=_ssim(true_phase, true_phase + phase_error),
        nrmse=float(np.linalg.norm(best_fit - truth)) / truth_norm,
        correlation=float(np.abs(overlap) / (np.sqrt(energy) * truth_norm)) if energy else 0.0,
        frc50=_ring_cutoff(reconstruction, truth),
    )


@contract
def remove_gauge(reconstruction: ObjectArray, truth: ObjectArray) -> ObjectArray:
    """Return the reconstruction without the phase ramp and the translation that separate it from the truth.

    Translated in Fourier space: what leaves at one border enters at the opposite one.

    Args:
        reconstruction: Any scale and global phase.
        truth: The reference, on the same pixels.
    """
    aligned = reconstruction.astype(np.complex128)
    for _ in range(_ROUNDS):
        aligned = aligned * np.conj(_fitted_ramp(aligned * np.conj(truth)))
        # Raw correlation: whitening would give the noise of empty frequencies the same say as the picture.
        # (None is what its documentation calls for; its default makes tools take the argument for a string.)
        shift, _, _ = phase_cross_correlation(
            truth,
            aligned,
            upsample_factor=_SUBPIXEL,
            normalization=None,  # pyright: ignore[reportArgumentType]
        )
        if not shift.any():
            break
        aligned = np.fft.ifft2(fourier_shift(np.fft.fft2(aligned), shift))
    return aligned.astype(np.complex64)


@contract
def match_scale(reconstruction: ObjectArray, truth: ObjectArray) -> ObjectArray:
    """Return the reconstruction times the global phase and the real scale that bring it closest to the truth.

    Phase and scale are fitted one after the other: a joint complex fit would shrink the amplitude of a reconstruction
    whose phases are noisy, and so count phase errors twice.
    """
    phase = np.angle(np.vdot(reconstruction, truth))
    moduli = np.abs(reconstruction)
    energy = float(np.sum(moduli**2))
    scale = float(np.sum(moduli * np.abs(truth))) / energy if energy else 1.0
    return (reconstruction * (scale * np.exp(1j * phase))).astype(np.complex64)


def overlapping(
    obj: np.ndarray, origin: tuple[int, int], truth: np.ndarray, region: tuple[int, int, int, int]
) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Cut a reconstruction and the truth to the part of a region that both cover.

    Args:
        obj: Reconstruction.
        origin: (row, col) pixel of the truth's frame at which the reconstruction's index [0, 0] lies.
        truth: Reference, whose index [0, 0] is the frame's origin.
        region: (first row, end row, first column, end column) in the truth's frame.

    Returns:
        Both cuts, and the (row, col) of their index [0, 0] in the truth's frame.

    Raises:
        ValueError: Nothing is left.
    """
    top, bottom = max(region[0], origin[0], 0), min(region[1], origin[0] + obj.shape[0], truth.shape[0])
    left, right = max(region[2], origin[1], 0), min(region[3], origin[1] + obj.shape[1], truth.shape[1])
    if top >= bottom or left >= right:
        msg = (
            f"Expected the reconstruction ({obj.shape[0]} x {obj.shape[1]} pixels at {origin}) to overlap the truth "
            f"({truth.shape[0]} x {truth.shape[1]} pixels) within rows {region[0]}:{region[1]} and columns "
            f"{region[2]}:{region[3]}, got no common pixel; check the reconstruction's origin."
        )
        raise ValueError(msg)
    cut = obj[top - origin[0] : bottom - origin[0], left - origin[1] : right - origin[1]]
    return cut, truth[top:bottom, left:right], (top, left)


def _psnr_db(error: np.ndarray, reference: np.ndarray) -> float:
    mean_square = float(np.mean(np.square(error, dtype=np.float64)))
    return float(10 * np.log10(_span(reference) ** 2 / mean_square)) if mean_square else float("inf")


def _ssim(reference: np.ndarray, image: np.ndarray) -> float:
    if min(reference.shape) < _SMALLEST_WINDOW:
        return float("nan")
    similarity: Any = structural_similarity(reference, image, data_range=_span(reference))
    return float(similarity)


def _span(reference: np.ndarray) -> float:
    return float(reference.max() - reference.min()) or 1.0


def _fitted_ramp(difference: np.ndarray) -> np.ndarray:
    """Return exp(i (a row + b column)) that follows the phase of `difference`: the peak of its spectrum.

    Found on a refined grid, then to a fraction of a step by a parabola through the peak and its neighbours.
    """
    shape = [_PADDING * side for side in difference.shape]
    spectrum = np.abs(np.fft.fft2(difference, shape))
    peak = np.unravel_index(np.argmax(spectrum), spectrum.shape)
    wave = np.ones(())
    for axis, (index, side) in enumerate(zip(peak, shape, strict=True)):
        line = np.roll(np.take(spectrum, peak[1 - axis], axis=1 - axis), 1 - index)[:3]
        curvature = line[0] - 2 * line[1] + line[2]
        fraction = 0.5 * (line[0] - line[2]) / curvature if curvature else 0.0
        steps = np.arange(difference.shape[axis]).reshape((-1, 1) if axis == 0 else (1, -1))
        wave = wave * np.exp(2j * np.pi * (index + fraction) / side * steps)
    return wave


def _ring_cutoff(image: np.ndarray, reference: np.ndarray) -> float:
    """Return the first frequency at which the smoothed Fourier ring correlation is below the threshold, 1 if none.

    Source:
        van Heel & Schatz, J. Struct. Biol. 151 (2005) 250.
    """
    side = min(image.shape) // 2 * 2
    waves = [np.fft.fftshift(np.fft.fft2(_apodised(picture, side))) for picture in (image, reference)]
    axis = np.arange(side) - side // 2
    ring = np.rint(np.hypot(axis[:, None], axis)).astype(int).ravel()

    def per_ring(values: np.ndarray) -> np.ndarray:
        return np.bincount(ring, values.ravel())[: side // 2 + 1]

    powers = [per_ring(np.abs(wave) ** 2) for wave in waves]
    correlation = per_ring((waves[0] * np.conj(waves[1])).real) / np.maximum(np.sqrt(powers[0] * powers[1]), 1e-30)
    kernel = np.ones(_FRC_SMOOTHING)
    smooth = np.convolve(correlation, kernel, "same") / np.convolve(np.ones_like(correlation), kernel, "same")
    below = np.flatnonzero(smooth[_FRC_FIRST_RING:] < _FRC_THRESHOLD)
    return float((below[0] + _FRC_FIRST_RING) / (side / 2)) if below.size else 1.0


def _apodised(picture: np.ndarray, side: int) -> np.ndarray:
    """Return the central square without its mean, fading to 0 at the border: edges are no resolution."""
    top, left = ((have - side) // 2 for have in picture.shape)
    square = picture[top : top + side, left : left + side]
    fade = np.sin(np.clip(np.minimum(np.arange(side), np.arange(side)[::-1]) / (side / 8), 0, 1) * np.pi / 2) ** 2
    return (square - square.mean()) * np.outer(fade, fade)
