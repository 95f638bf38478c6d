"""Ptychography one pattern at a time, in NumPy and double precision: what the torch code is compared with."""

import numpy as np
import torch


def random_waves(*shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.complex64, generator=generator)


def to_far_field(modes: np.ndarray) -> np.ndarray:
    return np.fft.fftshift(np.fft.fft2(modes, norm="ortho"), axes=(-2, -1))


def from_far_field(modes: np.ndarray) -> np.ndarray:
    return np.fft.ifft2(np.fft.ifftshift(modes, axes=(-2, -1)), norm="ortho")


def amplitude_of(exit_waves: np.ndarray) -> np.ndarray:
    """Modes (P, N, N) to the square root of their added intensities."""
    return np.sqrt((np.abs(to_far_field(exit_waves.astype(np.complex128))) ** 2).sum(axis=0))


def moved_probe(probe: np.ndarray, x: float, y: float) -> np.ndarray:
    """Move modes (P, N, N) by (x, y) pixels: by the series that passes through all pixels, summed term by term."""
    side = probe.shape[-1]
    orders = np.arange(side) - side // 2  # of an even side, the highest one is that of fftfreq: negative

    def kernel(by: float) -> np.ndarray:
        steps = np.arange(side)[:, None] - np.arange(side)[None, :] - by
        return np.exp(2j * np.pi * steps[..., None] * orders / side).mean(axis=-1)

    return kernel(y) @ probe.astype(np.complex128) @ kernel(x).T


def asked_change(exit_waves: np.ndarray, measured: np.ndarray, dark: float = 0.0) -> tuple[np.ndarray, float]:
    """What to add to modes (P, N, N) that they have the measured amplitudes, and how far these were off.

    Args:
        exit_waves: Modes.
        measured: Amplitudes (N, N).
        dark: Added to the predicted intensity.
    """
    far = to_far_field(exit_waves.astype(np.complex128))
    predicted = np.sqrt((np.abs(far) ** 2).sum(axis=0) + dark)
    return from_far_field(far * measured / predicted) - exit_waves, float(np.abs(predicted - measured).sum())


def windows_of(starts: np.ndarray, shape: tuple[int, int], side: int) -> list[tuple[int, slice, slice]]:
    """The canvas, rows and columns of patches that are given by their first pixel, counted through all canvases."""
    height, width = shape
    found = []
    for start in starts.tolist():
        canvas, pixel = divmod(start, height * width)
        row, column = divmod(pixel, width)
        found.append((canvas, slice(row, row + side), slice(column, column + side)))
    return found


def smooth_object(rows: int, columns: int, seed: int = 1) -> np.ndarray:
    """An object that is nowhere dark."""
    spectrum = np.fft.fft2(np.random.default_rng(seed).standard_normal((2, rows, columns)))
    frequencies = np.fft.fftfreq(rows)[:, None], np.fft.fftfreq(columns)
    smooth = np.fft.ifft2(spectrum * np.exp(-((frequencies[0] / 0.1) ** 2 + (frequencies[1] / 0.1) ** 2)))
    first, second = smooth.real / np.abs(smooth.real).max(axis=(1, 2), keepdims=True)
    return ((0.8 + 0.15 * first) * np.exp(0.6j * second)).astype(np.complex64)


def beam(P: int, N: int, energy: float, width: float = 1 / 8) -> np.ndarray:
    """A beam out of focus, in modes (P, N, N) that do not agree in phase, so that waves that are added would show.

    Args:
        P: Number of modes.
        N: Side.
        energy: Of all modes together.
        width: Standard deviation, of the side.
    """
    phases = 2 * np.pi * np.random.default_rng(0).random(P)
    y, x = np.mgrid[:N, :N] - N // 2
    main = np.exp(-(x**2 + y**2) / (2 * (width * N) ** 2) + 0.05j * (x**2 + 0.8 * y**2))
    modes = np.stack([main * np.exp(1j * phases[p]) * (x / N) ** p for p in range(P)])
    return (modes * np.sqrt(energy / (np.abs(modes) ** 2).sum())).astype(np.complex64)
