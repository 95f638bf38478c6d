"""The tensor physics of the package: shift, merge, extract, illuminate, diffract.

Owns pure functions between a group's object patches and its diffraction amplitudes. It reads no file, holds no
state and knows no configuration; placing patches on the whole object is `reassembly`.

Sign conventions, once for all functions. Offsets are (x, y) = (column, row) in object pixels and follow the
data set's `coords_relative`, that is minus the position relative to the group's centre. `Translation` moves content
by +offset, hence the merge translates by -offset (a patch taken right of the centre goes right), and the
extraction by +offset.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional

from ptycho_torch.contracts import (
    Amplitude,
    Canvas,
    CanvasMask,
    ExitWaves,
    FlatOffsets,
    ImageStack,
    Offsets,
    Patches,
    PatchWeights,
    ProbeBatch,
    Region,
    ShiftedStack,
)
from shapecheck import contract

__all__ = [
    "Translation",
    "check_offsets_fit",
    "diffract",
    "extract_channels_from_region",
    "illuminate",
    "padded_size",
    "probe_weights",
    "reassemble_patches_position_real",
]

_CENTRAL_DENOMINATOR_OFFSET = 1e-3
_CENTRAL_MASK_FLOOR = 1e-6
_GIVEN_MASK_FRACTION = 1e-6
_GIVEN_DENOMINATOR_FLOOR = 1e-12
# Positions near 1000 px carry float32 rounding of this order; an offset must not fail for that.
_OFFSET_SLACK = 1e-4


@contract
def Translation(img: ImageStack, offset: FlatOffsets, jitter_amt: float = 0.0) -> ShiftedStack:  # noqa: N802 (mandated)
    """Move the content of each image by a sub-pixel offset; zeros enter at the border.

    Positive offsets move content towards larger columns (x) and rows (y). Bilinear: fractional shifts blur,
    whole shifts are exact. The operator with `-offset` is its adjoint.

    Args:
        img: Real or complex images, any unit.
        offset: Pixels, (x, y), one per image.
        jitter_amt: Standard deviation, in pixels, of Gaussian noise added to every offset (augmentation); drawn
            from torch's default generator.

    Returns:
        The shifted images, same unit and dtype, with a channel axis of size 1.

    Source:
        PtychoPINN, Sci. Rep. 13 (2023) 22789: same sign and interpolation.
    """
    if jitter_amt != 0.0:
        offset = offset + jitter_amt * torch.randn_like(offset)
    (moved,) = _moved([img], offset, start=(0, 0), size=img.shape[1:])
    return moved.unsqueeze(1)


def _moved(images: Sequence[Tensor], offsets: Tensor, start: Sequence[int], size: Sequence[int]) -> list[Tensor]:
    """Windows of stacks (n, h, w) of images, their content moved by the same offsets.

    Not `grid_sample`, which does the same from coordinates normalised to -1..1: float32 leaves 1e-5 px of them at
    a side of 200, which the merge divides by weights near 0. Here whole shifts are exact, nothing is computed
    outside the window, and the two interpolations are all the arithmetic there is.

    Args:
        images: Stacks of the same sides.
        offsets: Pixels, (x, y), one for each image of a stack.
        start: First row and column of the window.
        size: Its height and width.
    """
    sides = images[0].shape[1:]
    # Moved by more than this an image is empty; without a limit the indices could overflow.
    # Filled on the device: a tensor made from a Python list would be copied there and wait for it.
    limits = [abs(first) + length + side + 1.0 for first, length, side in zip(start, size, sides, strict=True)]
    limit = torch.cat([offsets.new_full((1,), limit) for limit in reversed(limits)]).reshape(1, 1, 2)
    shift = offsets.clamp(-limit, limit).view(len(images[0]), 2, 1)
    whole = shift.floor()
    x, y = (shift - whole).unsqueeze(3).unbind(dim=1)  # fractions, (n, 1, 1)
    index = _window_index(whole.long(), start, size, sides)
    return [_mixed(_window(stack, index), x, y) for stack in images]


def _window_index(whole: Tensor, start: Sequence[int], size: Sequence[int], sides: Sequence[int]) -> Tensor:
    """The flat index, in framed images, of windows moved by whole pixels, with the row and column before them."""
    last_row, last_column = (side + 1 for side in sides)
    rows = torch.arange(start[0], start[0] + size[0] + 1, device=whole.device) - whole[:, 1]
    columns = torch.arange(start[1], start[1] + size[1] + 1, device=whole.device) - whole[:, 0]
    return rows.clamp(0, last_row).unsqueeze(2) * (last_column + 1) + columns.clamp(0, last_column).unsqueeze(1)


def _window(images: Tensor, index: Tensor) -> Tensor:
    framed = functional.pad(images, (1, 1, 1, 1))  # whatever lies outside is read from the frame of zeros
    return framed.flatten(1).gather(1, index.flatten(1)).view(index.shape)


def _mixed(window: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Interpolate bilinearly between each pixel and those before it; complex images as pairs of reals."""
    if window.is_complex():
        pairs = torch.view_as_real(window)
        return torch.view_as_complex(_mixed(pairs, x.unsqueeze(3), y.unsqueeze(3)).contiguous())
    mixed_rows = torch.lerp(window[:, 1:], window[:, :-1], y)
    return torch.lerp(mixed_rows[:, :, 1:], mixed_rows[:, :, :-1], x)


@contract(dims={"M": "canvas_size"})
def reassemble_patches_position_real(
    patches: Patches, offsets: Offsets, canvas_size: int, weights: PatchWeights | None = None
) -> tuple[Canvas, CanvasMask]:
    """Merge the patches of each group on a common canvas: the weighted mean of the translated patches.

    Each patch, its index N//2 on canvas index M//2, is translated by -offset, and so are its weights w;
    merged = sum_c(w * patch) / (sum_c w), with one of two regularisations:

    * `weights=None`: w is 1 on the central N/2 square (from index N//4) and 0 outside. The denominator is
      sum w + 1e-3, so covered pixels come out low by 1e-3 / sum w. The mask is sum w > 1e-6.
    * weights given (`probe_weights`): the denominator is sum w clamped at 1e-12, and the mask is above 1e-6 of that
      group's largest sum w, whatever the unit of w. A patch's outermost pixel ring, translated by a fraction of
      a pixel, is mixed with the zeros outside the patch; give weights that vanish there, as a probe's do.

    Args:
        patches: Complex object patches, in any unit.
        offsets: Pixels, (x, y), the sense of `coords_relative`.
        canvas_size: Side of the canvas, from `padded_size`.
        weights: Not negative; any unit.

    Returns:
        The canvas, zero outside the mask, in the unit of the patches; and the mask of covered pixels.

    Raises:
        ValueError: An offset would push a patch over the border of the canvas.

    Source:
        PtychoPINN, Sci. Rep. 13 (2023) 22789, the constraint that overlapping patches agree.
    """
    check_offsets_fit(offsets, patches.shape[-1], canvas_size)
    if weights is None:
        total_wave, total_weight = _weighted_sums(patches, offsets, canvas_size, _central_weights(patches))
        mask = total_weight > _CENTRAL_MASK_FLOOR
        denominator = total_weight + _CENTRAL_DENOMINATOR_OFFSET
    else:
        total_wave, total_weight = _weighted_sums(patches, offsets, canvas_size, weights)
        mask = total_weight > _GIVEN_MASK_FRACTION * total_weight.amax(dim=(-2, -1), keepdim=True)
        denominator = total_weight.clamp_min(_GIVEN_DENOMINATOR_FLOOR)
    return torch.where(mask, total_wave * denominator.reciprocal(), 0.0), mask


def _central_weights(patches: Tensor) -> Tensor:
    """1 on the central half of each side: where a patch is well lit and free of border effects."""
    start, side = patches.shape[-1] // 4, patches.shape[-1] // 2
    weights = torch.zeros_like(patches.real)
    weights[..., start : start + side, start : start + side] = 1.0
    return weights


def _weighted_sums(patches: Tensor, offsets: Tensor, canvas_size: int, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over a group's patches, each translated by -offset on its canvas, of weight * patch and of weight."""
    start, shape = -_patch_start(patches.shape[-1], canvas_size), (*patches.shape[:2], canvas_size, canvas_size)
    stacks = [patches.flatten(0, 1), weights.flatten(0, 1)]
    moved = _moved(stacks, -offsets.flatten(0, 1), start=(start, start), size=shape[2:])
    waves, weights = (stack.view(shape) for stack in moved)
    return (waves * weights).sum(dim=1), weights.sum(dim=1)


def _patch_start(patch_size: int, canvas_size: int) -> int:
    """The canvas index of patch index 0 at offset 0, so that index N//2 lies on M//2 for even and odd sides."""
    return canvas_size // 2 - patch_size // 2


@contract(dims={"N": "patch_size"})
def extract_channels_from_region(region: Region, offsets: Offsets, patch_size: int) -> Patches:
    """Cut each group's patches out of its canvas: translate the canvas by +offset and take the centre.

    Patch index N//2 reads the canvas at M//2 - offset, where the merge had put it. The operator is the adjoint of
    the unweighted, un-normalised merge.

    Args:
        region: The canvas of each group.
        offsets: Pixels, (x, y), the sense of `coords_relative`.
        patch_size: Side of a patch, pixels.

    Returns:
        Patches in the unit of the canvas.

    Raises:
        ValueError: An offset would make a patch read beyond the canvas.

    Source:
        PtychoPINN, Sci. Rep. 13 (2023) 22789.
    """
    canvas_size = region.shape[-1]
    check_offsets_fit(offsets, patch_size, canvas_size)
    copies = region.expand(-1, offsets.shape[1], -1, -1).flatten(0, 1)
    start, shape = _patch_start(patch_size, canvas_size), (*offsets.shape[:2], patch_size, patch_size)
    (moved,) = _moved([copies], offsets.flatten(0, 1), start=(start, start), size=shape[2:])
    return moved.view(shape)


@contract
def illuminate(patches: Patches, probe: ProbeBatch) -> ExitWaves:
    """Multiply each object patch by every mode of its probe (thin-object approximation).

    Args:
        patches: Complex transmission of the object, unitless.
        probe: Incoherent modes; any unit, counts**0.5 in a file.

    Returns:
        One exit wave per mode, in the probe's unit.

    Source:
        Thibault et al., Ultramicroscopy 109 (2009) 338, eq. 1.
    """
    return patches.unsqueeze(2) * probe


@contract
def diffract(exit_waves: ExitWaves) -> Amplitude:
    """Propagate exit waves to the far field; the modes add in intensity, never as waves.

    Zero frequency lies at index [N//2, N//2]. The transform is unitary: the sum of amplitude**2 is the energy of
    the exit waves. At zero amplitude, where the modulus has no derivative, the gradient is 0.

    Args:
        exit_waves: Probe times object, one wave per incoherent mode; counts**0.5 or normalised.

    Returns:
        Amplitude (not intensity), in the unit of the exit waves.

    Source:
        Fraunhofer diffraction; incoherent modes: Thibault & Menzel, Nature 494 (2013) 68, eq. 1.
    """
    intensity = _squared_modulus(torch.fft.fft2(exit_waves, norm="ortho")).sum(dim=2)
    return torch.fft.fftshift(_safe_sqrt(intensity), dim=(-2, -1))


def _squared_modulus(waves: Tensor) -> Tensor:
    # abs().square() would take a root only to undo it.
    return waves.real.square() + waves.imag.square()


def _safe_sqrt(intensity: Tensor) -> Tensor:
    """The root, with gradient 0 at 0: an unguarded root gives 0 * inf = NaN there.

    Adding a small constant instead would bias the dark pixels, which are most of a detector.
    """
    lit = intensity > 0
    return torch.where(lit, torch.where(lit, intensity, 1.0).sqrt(), 0.0)


@contract
def probe_weights(probe: ProbeBatch) -> PatchWeights:
    """Merge weights that trust a patch where it was lit: the intensity of the probe, summed over its modes.

    Args:
        probe: Incoherent modes, any unit.

    Returns:
        The square of the probe's unit.
    """
    return _squared_modulus(probe).sum(dim=2)


@contract
def padded_size(patch_size: int, gridsize: int, max_neighbor_distance: float) -> int:
    """The side M of the canvas that holds a group: N + (gridsize - 1) * distance, the distance rounded up to even.

    Even, so that the patch stays centred (index N//2 on M//2) and both sides have the same room.

    Args:
        patch_size: N, pixels.
        gridsize: Patches along one side of a group.
        max_neighbor_distance: Pixels; the largest step between neighbours of a group.

    Returns:
        M, pixels.

    Raises:
        ValueError: An argument is not a size or a distance.
    """
    _require(patch_size >= 1, "patch_size", "at least 1", patch_size)
    _require(gridsize >= 1, "gridsize", "at least 1", gridsize)
    finite = math.isfinite(max_neighbor_distance) and max_neighbor_distance >= 0
    _require(finite, "max_neighbor_distance", "finite and not negative", max_neighbor_distance)
    return patch_size + (gridsize - 1) * 2 * math.ceil(max_neighbor_distance / 2)


def _require(holds: bool, name: str, expected: str, got: float) -> None:
    if not holds:
        msg = f"Expected {name} to be {expected}, got {got}."
        raise ValueError(msg)


@contract
def check_offsets_fit(offsets: Offsets, patch_size: int, canvas_size: int) -> None:
    """Refuse offsets that push a patch over the border of its canvas, where it would be clipped in silence.

    The room is (M-N)/2 on each side, rounded down where M-N is odd. Does nothing where tensors have no values to
    look at (while compiling or exporting, on meta and fake tensors).

    Args:
        offsets: Pixels, (x, y).
        patch_size: N, pixels.
        canvas_size: M, pixels.

    Raises:
        ValueError: Names the largest offset and the room.
    """
    _require(canvas_size >= patch_size, "canvas_size", f"at least patch_size={patch_size}", canvas_size)
    if torch.compiler.is_compiling() or offsets.is_meta or isinstance(offsets, FakeTensor):
        return
    room = (canvas_size - patch_size) // 2
    largest = offsets.detach().abs().max().item()
    if not largest <= room + _OFFSET_SLACK:  # negated, so that NaN is refused too
        msg = (
            f"Expected offsets to be at most {room} pixels, (M-N)/2 rounded down with M={canvas_size} and "
            f"N={patch_size}, got {largest:g}. A larger max_neighbor_distance gives a larger canvas (padded_size)."
        )
        raise ValueError(msg)
