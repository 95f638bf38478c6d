"""Object, probe and positions to a scan: the forward model in NumPy, and natural things to feed it.

Independent of the torch physics in `helper`: double precision, and the fractional part of a position shifts the
probe in Fourier space instead of interpolating the object.
"""

from pathlib import Path

import numpy as np
from skimage import color, data, transform

from ptycho_torch.contracts import ObjectArray, ProbeArray, ScanIntensity, ScanX, ScanY
from ptycho_torch.scan import Scan, patch_starts, save_scan
from shapecheck import contract

__all__ = [
    "diffraction_intensity",
    "enclosing_shape",
    "gaussian_probe",
    "natural_object",
    "raster_positions",
    "save_simulation",
    "simulate_natural_scan",
    "simulate_scan",
]

AMPLITUDE_RANGE = (0.4, 1.0)
PHASE_RANGE_RAD = (-1.0, 1.0)
PASS_BAND = 0.9  # of Nyquist
MARGIN = 4  # pixels around the outermost patches
_CHUNK = 64  # positions at a time: bounds the memory, changes no result


@contract
def diffraction_intensity(obj: ObjectArray, probe: ProbeArray, xcoords: ScanX, ycoords: ScanY) -> ScanIntensity:
    """Return the expected counts at every position, zero frequency at ``[N//2, N//2]``.

    ``sum_p |fftshift(fft2(probe_p * patch, norm="ortho"))|**2``. Index ``N//2`` of a patch sits at the whole
    part of the position; the probe is shifted by the rest, which wraps around (probes vanish at their border).

    Args:
        obj: Transmission.
        probe: Incoherent modes, counts**0.5.
        xcoords: Column of each patch centre, object pixels.
        ycoords: Row of each patch centre, object pixels.

    Raises:
        ValueError: A patch leaves the object; names the position.
    """
    patch_size = probe.shape[-1]
    top, row_part = patch_starts(ycoords, patch_size, obj.shape[0], "ycoords")
    left, column_part = patch_starts(xcoords, patch_size, obj.shape[1], "xcoords")
    windows = np.lib.stride_tricks.sliding_window_view(obj, (patch_size, patch_size))
    spectrum = np.fft.fft2(probe.astype(np.complex128))
    intensity = np.empty((len(xcoords), patch_size, patch_size))
    for start in range(0, len(xcoords), _CHUNK):
        part = slice(start, start + _CHUNK)
        moved = _shifted(spectrum, row_part[part], column_part[part])
        waves = np.fft.fft2(moved * windows[top[part], left[part]][:, None], norm="ortho")
        intensity[part] = np.fft.fftshift((np.abs(waves) ** 2).sum(axis=1), axes=(-2, -1))
    return intensity


@contract
def simulate_scan(
    obj: ObjectArray,
    probe: ProbeArray,
    xcoords: ScanX,
    ycoords: ScanY,
    nphotons: float,
    seed: int,
) -> Scan:
    """Take a scan: expected counts, Poisson noise, square root.

    Args:
        obj: Transmission, kept as the truth.
        probe: Incoherent modes in any scale; the scan's probe is scaled to counts**0.5.
        xcoords: Column of each patch centre, object pixels.
        ycoords: Row of each patch centre, object pixels.
        nphotons: Expected counts per pattern, averaged over the scan.
        seed: Of the generator that draws the noise.

    Raises:
        ValueError: A patch leaves the object, or there is no light.
    """
    intensity = diffraction_intensity(obj, probe, xcoords, ycoords)
    energy = float(intensity.sum(axis=(1, 2)).mean())
    if energy <= 0 or nphotons <= 0:
        msg = f"Expected light on the detector, got mean energy {energy:g} before scaling and nphotons={nphotons:g}."
        raise ValueError(msg)
    gain = nphotons / energy
    counts = np.random.default_rng(seed).poisson(intensity * gain)
    return Scan(
        diffraction_amplitude=np.sqrt(counts).astype(np.float32),
        xcoords=xcoords,
        ycoords=ycoords,
        probe=(probe * np.sqrt(gain)).astype(np.complex64),
        object_truth=obj,
    )


def save_simulation(scan: Scan, path: Path | str) -> None:
    """Write a simulated scan, whose probe is known exactly and is written as the truth too."""
    save_scan(scan, path, extra={"probeTruth": scan.probe[0] if len(scan.probe) == 1 else scan.probe})


def simulate_natural_scan(
    *,
    patch_size: int = 64,
    n_rows: int = 32,
    n_columns: int = 32,
    step: float = 6.0,
    jitter: float = 3.0,
    n_modes: int = 1,
    nphotons: float = 5e5,
    seed: int = 0,
) -> Scan:
    """Simulate a scan of a natural picture.

    Args:
        patch_size: Patch and detector side, pixels.
        n_rows: Rows of the raster.
        n_columns: Columns of the raster.
        step: Pixels between raster points.
        jitter: Largest random displacement of a point along each axis, pixels.
        n_modes: Incoherent probe modes.
        nphotons: Expected counts per pattern.
        seed: Of object, positions and noise.
    """
    object_seed, position_seed, noise_seed = (int(s) for s in np.random.SeedSequence(seed).generate_state(3))
    xcoords, ycoords = raster_positions(n_rows, n_columns, step, jitter, patch_size, position_seed)
    obj = natural_object(enclosing_shape(xcoords, ycoords, patch_size), object_seed)
    probe = gaussian_probe(patch_size, n_modes=n_modes)
    return simulate_scan(obj, probe, xcoords, ycoords, nphotons, noise_seed)


@contract
def natural_object(shape: tuple[int, int], seed: int) -> ObjectArray:
    """Make an object of two pictures that scikit-image ships: a cameraman's amplitude, an astronaut's phase.

    Both are cropped at random, resized to fit, and low-passed to 90 % of Nyquist, so that they can be
    shifted by fractions of a pixel.

    Args:
        shape: Rows and columns, pixels.
        seed: Of the crops.
    """
    generator = np.random.default_rng(seed)
    amplitude = _natural_picture(data.camera() / 255.0, shape, AMPLITUDE_RANGE, generator)
    phase = _natural_picture(color.rgb2gray(data.astronaut()), shape, PHASE_RANGE_RAD, generator)
    return (amplitude * np.exp(1j * phase)).astype(np.complex64)


@contract
def gaussian_probe(
    N: int,
    sigma: float | None = None,
    curvature: float = 0.0175,
    astigmatism: float = 0.2,
    n_modes: int = 1,
) -> ProbeArray:
    """Make a defocused Gaussian beam, centred at ``[N//2, N//2]``, of unit total energy.

    Further modes are the orthogonal Hermite-Gauss functions along x, each with half the energy of the one before.

    Args:
        N: Side, pixels.
        sigma: Standard deviation of the modulus, pixels; ``9/64`` of the side by default.
        curvature: Quadratic phase, radians per square pixel.
        astigmatism: Relative difference of the curvature along y and x.
        n_modes: Incoherent modes.
    """
    sigma = 9 / 64 * N if sigma is None else sigma
    y, x = np.meshgrid(np.arange(N) - N // 2, np.arange(N) - N // 2, indexing="ij")
    phase = curvature * ((1 + astigmatism / 2) * y**2 + (1 - astigmatism / 2) * x**2)
    beam = np.exp(-(x**2 + y**2) / (2 * sigma**2) + 1j * phase)
    modes = np.stack([np.polynomial.hermite.hermval(x / sigma, np.eye(n_modes)[p]) * beam for p in range(n_modes)])
    energy = np.sum(np.abs(modes) ** 2, axis=(1, 2), keepdims=True)
    share = 0.5 ** np.arange(n_modes)
    return (modes * np.sqrt((share / share.sum())[:, None, None] / energy)).astype(np.complex64)


def raster_positions(
    n_rows: int, n_columns: int, step: float, jitter: float, patch_size: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return ``(xcoords, ycoords)`` of a raster with random displacements, row by row.

    Args:
        n_rows: Rows of the raster.
        n_columns: Columns of the raster.
        step: Pixels between raster points.
        jitter: Largest displacement along each axis, pixels.
        patch_size: The frame starts so that patches of this side lie inside, with a margin.
        seed: Of the displacements.
    """
    if min(n_rows, n_columns) < 1 or step <= 0 or jitter < 0:
        msg = (
            "Expected a raster of at least 1 x 1 points with step > 0 and jitter >= 0, "
            f"got {n_rows} x {n_columns}, step={step:g}, jitter={jitter:g}."
        )
        raise ValueError(msg)
    rows, columns = np.meshgrid(np.arange(n_rows), np.arange(n_columns), indexing="ij")
    displacement = np.random.default_rng(seed).uniform(-jitter, jitter, (2, rows.size))
    first = patch_size // 2 + MARGIN + jitter
    return first + step * columns.ravel() + displacement[0], first + step * rows.ravel() + displacement[1]


def enclosing_shape(xcoords: np.ndarray, ycoords: np.ndarray, patch_size: int) -> tuple[int, int]:
    """Return the (rows, columns) of an object that holds every patch with a margin, its frame starting at 0."""
    reach = patch_size - patch_size // 2 + MARGIN
    return int(np.ceil(ycoords.max())) + reach, int(np.ceil(xcoords.max())) + reach


def _shifted(spectrum: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Move content by +(rows, columns) pixels, one result for each pair."""
    frequency = np.fft.fftfreq(spectrum.shape[-1])
    along_rows = np.exp(-2j * np.pi * rows[:, None] * frequency)[:, None, :, None]
    along_columns = np.exp(-2j * np.pi * columns[:, None] * frequency)[:, None, None, :]
    return np.fft.ifft2(spectrum * along_rows * along_columns)


def _natural_picture(
    picture: np.ndarray, shape: tuple[int, int], span: tuple[float, float], generator: np.random.Generator
) -> np.ndarray:
    """Crop a picture to the aspect of `shape`, bring it to that size and range, and low-pass it."""
    largest = min(picture.shape[0] / shape[0], picture.shape[1] / shape[1])
    crop = [max(1, round(side * largest * generator.uniform(0.8, 1.0))) for side in shape]
    row, column = (int(generator.integers(0, have - want + 1)) for have, want in zip(picture.shape, crop, strict=True))
    cut = picture[row : row + crop[0], column : column + crop[1]]
    smooth = _low_passed(np.asarray(transform.resize(cut, shape, order=3, anti_aliasing=True)))
    low, high = smooth.min(), smooth.max()
    return span[0] + (span[1] - span[0]) * (smooth - low) / (high - low)


def _low_passed(picture: np.ndarray) -> np.ndarray:
    """Remove what lies beyond the pass band, with a soft edge."""
    rows, columns = (np.fft.fftfreq(side) / 0.5 for side in picture.shape)
    radius = np.hypot(rows[:, None], columns[None, :])
    keep = np.clip((1 - radius) / (1 - PASS_BAND), 0, 1)
    return np.fft.ifft2(np.fft.fft2(picture) * keep).real
