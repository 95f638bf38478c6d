"""Pictures of objects and losses, written as PNG files.

Owns how things look: colour maps, limits, axes in object pixels. It computes no quality figures and opens no window:
figures are built without ``pyplot``, so no global state or display is involved.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ptycho_torch.contracts import ObjectArray
from ptycho_torch.files import written_atomically
from shapecheck import contract

PIXELS_X = "x, object pixels"
PIXELS_Y = "y, object pixels"
AMPLITUDE_MAP = "gray"
PHASE_MAP = "cividis"
DIFFERENCE_MAP = "RdBu_r"

# Pixels that hardly any probe light reached carry no information; they must not set the colour limits.
WELL_LIT = 0.05
DOTS_PER_INCH = 150

Image = Float32[np.ndarray, "H W"] | Float64[np.ndarray, "H W"]
Weight = Float32[np.ndarray, "H W"]
Limits = tuple[float, float]


@contract
def save_amplitude(path: Path, obj: ObjectArray, origin: tuple[int, int], weight: Weight | None = None) -> Path:
    """Write the modulus of an object as a picture with a colour bar.

    Args:
        path: Where the PNG goes.
        obj: Complex object.
        origin: (row, col) object pixel of index [0, 0].
        weight: Light per pixel; unlit pixels are left blank and badly lit ones do not set the limits.

    Returns:
        ``path``.
    """
    return _save_single(path, np.abs(obj), origin, weight, "amplitude", AMPLITUDE_MAP)


@contract
def save_phase(path: Path, obj: ObjectArray, origin: tuple[int, int], weight: Weight | None = None) -> Path:
    """Write the phase of an object as a picture with a colour bar, in radians about its mean phase.

    Args:
        path: Where the PNG goes.
        obj: Complex object, defined up to one global phase, which is removed.
        origin: (row, col) object pixel of index [0, 0].
        weight: Light per pixel; unlit pixels are left blank and badly lit ones do not set the limits.

    Returns:
        ``path``.
    """
    return _save_single(path, centred_phase(obj, weight), origin, weight, "phase, rad", PHASE_MAP)


def save_loss_curve(path: Path, losses: Mapping[str, Sequence[float]], ylabel: str = "loss") -> Path:
    """Write one curve per named series of losses against the epoch.

    Args:
        path: Where the PNG goes.
        losses: Name (for example ``train``) to one value per epoch, first epoch first.
        ylabel: What the values are.

    Returns:
        ``path``.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    _draw_losses(figure.subplots(), losses, ylabel)
    return _write(figure, path)


@contract
def save_overview(
    path: Path,
    truth: ObjectArray,
    reconstruction: ObjectArray,
    origin: tuple[int, int],
    losses: Mapping[str, Sequence[float]],
    ylabel: str = "loss",
    title: str = "",
) -> Path:
    """Write truth, reconstruction and their difference, amplitude above phase, beside the loss curve.

    Args:
        path: Where the PNG goes.
        truth: True object, cut to the area shown.
        reconstruction: Reconstructed object on the same pixels, already brought to the truth's scale and global phase.
        origin: (row, col) object pixel of index [0, 0].
        losses: Name to one value per epoch.
        ylabel: What the losses are.
        title: One line above everything.

    Returns:
        ``path``.
    """
    figure = Figure(figsize=(16, 8), layout="constrained")
    grid = figure.add_gridspec(2, 4, width_ratios=(1, 1, 1, 1.1))
    cells = [[figure.add_subplot(grid[row, column]) for column in range(3)] for row in range(2)]
    error = reconstruction * np.conj(truth)
    amplitudes = (np.abs(truth), np.abs(reconstruction), np.abs(reconstruction) - np.abs(truth))
    phases = (centred_phase(truth), centred_phase(reconstruction), np.angle(error))
    _draw_triple(cells[0], amplitudes, origin, "amplitude", AMPLITUDE_MAP)
    _draw_triple(cells[1], phases, origin, "phase, rad", PHASE_MAP)
    _draw_losses(figure.add_subplot(grid[:, 3]), losses, ylabel)
    figure.suptitle(title)
    return _write(figure, path)


def centred_phase(obj: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """Return the phase about the (light-weighted) mean phase, in radians within -pi..pi.

    A phase has no zero of its own; centring it keeps the wrap at +-pi out of objects that span less than 2 pi.
    """
    mean_wave = np.sum(obj if weight is None else obj * weight)
    return np.angle(obj * np.exp(-1j * np.angle(mean_wave)))


def pixel_extent(shape: tuple[int, int], origin: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return (left, right, bottom, top) such that whole numbers on the axes are pixel centres."""
    (rows, columns), (row, column) = shape, origin
    return (column - 0.5, column + columns - 0.5, row + rows - 0.5, row - 0.5)


def robust_limits(image: np.ndarray, weight: np.ndarray | None = None) -> Limits:
    """Return the 0.5 and 99.5 percentiles of the well-lit pixels; single bright pixels must not hide the object."""
    lit = image if weight is None else image[weight > WELL_LIT * weight.max()]
    values = lit if lit.size else image
    low, high = np.percentile(values, (0.5, 99.5))
    return (float(low), float(high))


def _save_single(
    path: Path, image: Image, origin: tuple[int, int], weight: Weight | None, label: str, colours: str
) -> Path:
    figure = Figure(figsize=(7, 6), layout="constrained")
    shown = image if weight is None else np.where(weight > 0, image, np.nan)
    _draw_image(figure.subplots(), shown, origin, label, colours, robust_limits(image, weight))
    return _write(figure, path)


def _draw_image(
    axes: Axes, image: Image, origin: tuple[int, int], label: str, colours: str, limits: Limits, title: str = ""
) -> None:
    extent = pixel_extent(image.shape, origin)
    drawn = axes.imshow(image, cmap=colours, vmin=limits[0], vmax=limits[1], extent=extent, interpolation="nearest")
    axes.figure.colorbar(drawn, ax=axes, label=label, shrink=0.85)
    axes.set(xlabel=PIXELS_X, ylabel=PIXELS_Y, title=title)


def _draw_triple(
    cells: Sequence[Axes],
    images: tuple[np.ndarray, np.ndarray, np.ndarray],
    origin: tuple[int, int],
    label: str,
    colours: str,
) -> None:
    truth, reconstruction, difference = images
    limits = robust_limits(truth)
    _draw_image(cells[0], truth, origin, label, colours, limits, "truth")
    _draw_image(cells[1], reconstruction, origin, label, colours, limits, "reconstruction")
    span = max(float(np.percentile(np.abs(difference), 99.5)), 1e-6)
    _draw_image(cells[2], difference, origin, label, DIFFERENCE_MAP, (-span, span), "reconstruction - truth")


def _draw_losses(axes: Axes, losses: Mapping[str, Sequence[float]], ylabel: str) -> None:
    for name, values in losses.items():
        axes.plot(range(1, len(values) + 1), values, marker=".", label=name)
    axes.set(xlabel="epoch", ylabel=ylabel, title="loss")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=True, alpha=0.3)
    if losses:
        axes.legend()


def _write(figure: Figure, path: Path) -> Path:
    with written_atomically(path) as stream:
        figure.savefig(stream, dpi=DOTS_PER_INCH, format=path.suffix.removeprefix(".") or "png")
    return path
