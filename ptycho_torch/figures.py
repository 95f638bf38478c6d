"""Pictures of objects and losses, written as PNG files.

Owns how things look: colour maps, limits, axes in object pixels. It computes no quality figures and opens no window:
figures are built without ``pyplot``, so no global state or display is involved.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import PIL.Image
import PIL.ImageDraw
from jaxtyping import Complex64, Float32, Float64, UInt8
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
WEIGHT_MAP = "magma"

# Pixels that hardly any probe light reached carry no information; they must not set the colour limits.
WELL_LIT = 0.05
UNLIT = 0.01  # of the brightest pixel: darker ones are left blank
DOTS_PER_INCH = 150
OVERVIEW_DOTS_PER_INCH = 100  # of many panels
PREVIEW_SIDE = 384  # pixels of a panel, about
CAPTION_HEIGHT = 20  # pixels

Image = Float32[np.ndarray, "H W"] | Float64[np.ndarray, "H W"]
Weight = Float32[np.ndarray, "H W"]
AreaArray = Complex64[np.ndarray, "h w"]
Picture = UInt8[np.ndarray, "h w 3"]  # red, green, blue
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
def draw_preview(obj: ObjectArray, weight: Weight, caption: str) -> Picture:
    """Return amplitude and phase of what is lit of an object beside each other, below a caption.

    Drawn pixel by pixel, without axes: it takes milliseconds where a figure takes a second.

    Args:
        obj: Complex object.
        weight: Light per pixel; unlit pixels are left blank and badly lit ones do not set the limits.
        caption: One line.
    """
    looks = ((np.abs(obj), AMPLITUDE_MAP), (centred_phase(obj, weight), PHASE_MAP))
    box = _lit_box(weight)
    panels = [_coloured(image, weight, colours)[box] for image, colours in looks]
    enlarged = max(1, PREVIEW_SIDE // max(panels[0].shape))
    pixels = np.concatenate(panels, axis=1).repeat(enlarged, axis=0).repeat(enlarged, axis=1)
    picture = PIL.Image.new("RGB", (pixels.shape[1], pixels.shape[0] + CAPTION_HEIGHT), "white")
    picture.paste(PIL.Image.fromarray(pixels), (0, CAPTION_HEIGHT))
    PIL.ImageDraw.Draw(picture).text((4, 4), caption, fill="black")
    return np.asarray(picture)


@contract
def save_picture(path: Path, picture: Picture) -> Path:
    """Write a picture that was drawn pixel by pixel as PNG.

    Returns:
        ``path``.
    """
    with written_atomically(path) as stream:
        PIL.Image.fromarray(picture).save(stream, format="png")
    return path


@contract
class Known(NamedTuple):
    """A reconstruction beside the truth, on the pixels that both have.

    Attributes:
        truth: True object, cut to the area shown.
        aligned: Reconstruction, brought to the truth's scale and global phase.
        origin: (row, col) object pixel of index [0, 0] of both.
    """

    truth: AreaArray
    aligned: AreaArray
    origin: tuple[int, int]


@contract
def save_overview(
    path: Path,
    obj: ObjectArray,
    origin: tuple[int, int],
    weight: Weight,
    misfits: Sequence[float] = (),
    known: Known | None = None,
    title: str = "",
) -> Path:
    """Write everything about a reconstruction on one picture.

    Amplitude above phase, where the truth is known beside it and the difference; then the light that the estimate of
    each pixel rests on, above the misfit per epoch.

    Args:
        path: Where the PNG goes.
        obj: Complex object.
        origin: (row, col) object pixel of index [0, 0].
        weight: Light per pixel, counts.
        misfits: One value per epoch of refinement.
        known: The comparison with the truth, where there is one.
        title: One line above everything.

    Returns:
        ``path``.
    """
    columns = 1 if known is None else 3
    figure = Figure(figsize=(5 * columns + 5.5, 8))
    # By hand: to find the best layout of so many panels takes matplotlib longer than to draw them.
    spacing = {
        "left": 0.09 / columns,
        "right": 1 - 0.06 / columns,
        "bottom": 0.07,
        "top": 0.92,
        "wspace": 0.32,
        "hspace": 0.25,
    }
    cells = figure.subplots(2, columns + 1, gridspec_kw=spacing)
    if known is None:
        _draw_object(cells[:, 0], obj, origin, weight)
    else:
        _draw_known(cells[:, :3], known)
    _draw_image(cells[0, -1], weight, origin, "counts", WEIGHT_MAP, robust_limits(weight), "light per pixel")
    _draw_misfits(cells[1, -1], misfits)
    figure.suptitle(title)
    return _write(figure, path, OVERVIEW_DOTS_PER_INCH)


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
    shown = image if weight is None else np.where(_is_lit(weight), image, np.nan)
    _draw_image(figure.subplots(), shown, origin, label, colours, robust_limits(image, weight))
    return _write(figure, path)


def _draw_image(
    axes: Axes, image: Image, origin: tuple[int, int], label: str, colours: str, limits: Limits, title: str = ""
) -> None:
    extent = pixel_extent(image.shape, origin)
    drawn = axes.imshow(image, cmap=colours, vmin=limits[0], vmax=limits[1], extent=extent, interpolation="nearest")
    axes.figure.colorbar(drawn, ax=axes, label=label, shrink=0.85)
    axes.set(xlabel=PIXELS_X, ylabel=PIXELS_Y, title=title)


def _coloured(image: np.ndarray, weight: np.ndarray, colours: str) -> np.ndarray:
    low, high = robust_limits(image, weight)
    shown = matplotlib.colormaps[colours]((image - low) / max(high - low, 1e-12), bytes=True)[..., :3]
    return np.where(_is_lit(weight)[..., None], shown, np.uint8(255))


def _is_lit(weight: np.ndarray) -> np.ndarray:
    return weight > UNLIT * weight.max()


def _lit_box(weight: np.ndarray) -> tuple[slice, slice]:
    """Return the smallest box around what is lit; everything where nothing is."""
    edges = [np.flatnonzero(_is_lit(weight).any(axis=1 - axis)) for axis in (0, 1)]
    rows, columns = (slice(int(edge[0]), int(edge[-1]) + 1) if edge.size else slice(None) for edge in edges)
    return rows, columns


def _draw_object(cells: Sequence[Axes], obj: np.ndarray, origin: tuple[int, int], weight: np.ndarray) -> None:
    looks = (("amplitude", AMPLITUDE_MAP, np.abs(obj)), ("phase, rad", PHASE_MAP, centred_phase(obj, weight)))
    for axes, (label, colours, image) in zip(cells, looks, strict=True):
        shown = np.where(_is_lit(weight), image, np.nan)
        _draw_image(axes, shown, origin, label, colours, robust_limits(image, weight), label.partition(",")[0])


def _draw_known(cells: np.ndarray, known: Known) -> None:
    truth, aligned, origin = known
    amplitudes = (np.abs(truth), np.abs(aligned), np.abs(aligned) - np.abs(truth))
    phases = (centred_phase(truth), centred_phase(aligned), np.angle(aligned * np.conj(truth)))
    _draw_triple(cells[0], amplitudes, origin, "amplitude", AMPLITUDE_MAP)
    _draw_triple(cells[1], phases, origin, "phase, rad", PHASE_MAP)


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


def _draw_misfits(axes: Axes, misfits: Sequence[float]) -> None:
    if misfits:
        _draw_losses(axes, {"misfit": misfits}, "sum |predicted - measured| / sum measured", "misfit while refining")
    else:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "not refined", ha="center", va="center")


def _draw_losses(axes: Axes, losses: Mapping[str, Sequence[float]], ylabel: str, title: str = "loss") -> None:
    for name, values in losses.items():
        axes.plot(range(1, len(values) + 1), values, marker=".", label=name)
    axes.set(xlabel="epoch", ylabel=ylabel, title=title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=True, alpha=0.3)
    if losses:
        axes.legend()


def _write(figure: Figure, path: Path, dots_per_inch: int = DOTS_PER_INCH) -> Path:
    with written_atomically(path) as stream:
        figure.savefig(stream, dpi=dots_per_inch, format=path.suffix.removeprefix(".") or "png")
    return path
