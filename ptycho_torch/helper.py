"""The tensor physics of the package: shift, merge, extract, illuminate, diffract.

Owns pure functions between a group's object patches and its diffraction amplitudes. It reads no file, holds no
state and knows no configuration; placing patches on the whole object is `reassembly`.

Sign conventions, once for all functions. Offsets are (x, y) = (column, row) in object pixels and follow the
data set's `coords_relative`, that is minus the position relative to the group's centre. `Translation` moves content
by +offset, hence the merge translates by -offset (a patch taken right of the centre goes right), and the
extraction by +offset.
"""

import math

import torch
from torch import Tensor

from ptycho_torch._shift import Window, has_values, moved, reach_of, spread, stacked
from ptycho_torch._waves import added_modes, squared_modulus
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
    far = max(img.shape[1:]) + 1  # moved by this much an image is empty
    moves = offset.squeeze(1).clamp(-far, far)
    reach = reach_of(moves, far + 1)  # most are far smaller than they may be
    return moved(img, moves, Window((0, 0), (img.shape[1], img.shape[2]), (reach, reach))).unsqueeze(1)


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
        total_wave, total_weight = _central_sums(patches, offsets, canvas_size)
        mask = total_weight > _CENTRAL_MASK_FLOOR
        denominator = total_weight + _CENTRAL_DENOMINATOR_OFFSET
    else:
        corner = _patch_start(patches.shape[-1], canvas_size)
        total_wave, total_weight = _weighted_sums(patches, offsets, canvas_size, weights, corner)
        mask = total_weight > _GIVEN_MASK_FRACTION * total_weight.amax(dim=(-2, -1), keepdim=True)
        denominator = total_weight.clamp_min(_GIVEN_DENOMINATOR_FLOOR)
    return total_wave * torch.where(mask, denominator.reciprocal(), 0.0), mask


def _central_sums(patches: Tensor, offsets: Tensor, canvas_size: int) -> tuple[Tensor, Tensor]:
    """Sums for weights of 1 on the central half of each side, where a patch is well lit, and of 0 outside."""
    size = patches.shape[-1]
    start, end = size // 4, size // 4 + size // 2
    weights = patches.real.new_zeros(size, size)
    weights[start:end, start:end] = 1.0
    seen = slice(max(start - 1, 0), end + 1)  # with the ring that interpolation mixes in
    centres = patches[..., seen, seen]
    corner = _patch_start(size, canvas_size) + seen.start
    return _weighted_sums(centres, offsets, canvas_size, weights[seen, seen].expand(centres.shape), corner)


def _weighted_sums(
    patches: Tensor, offsets: Tensor, canvas_size: int, weights: Tensor, corner: int
) -> tuple[Tensor, Tensor]:
    """Sums over a group's patches, each translated by -offset on its canvas, of weight * patch and of weight.

    Args:
        patches: Of any side.
        offsets: As of the merge.
        canvas_size: Side of the canvas.
        weights: One for each pixel.
        corner: The canvas index of patch index 0 at offset 0.
    """
    stacks = (patches.flatten(0, 1), weights.flatten(0, 1))
    (waves, shares), top = spread(stacks, -offsets.flatten(0, 2), (corner, corner), canvas_size, corner + 1)
    wave, weight = stacked((waves * shares, shares), top, offsets.shape[0], canvas_size)
    return wave, weight


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
    corner = _patch_start(patch_size, canvas_size)
    reach = (canvas_size - patch_size) // 2 + 1
    window = Window((corner, corner), (patch_size, patch_size), (reach, reach))
    return moved(region.squeeze(1), offsets.flatten(0, 2), window).unflatten(0, offsets.shape[:2])


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
    intensity = squared_modulus(torch.fft.fft2(exit_waves, norm="ortho"))
    return torch.fft.fftshift(_safe_sqrt(added_modes(intensity, 2)), dim=(-2, -1))


def _safe_sqrt(intensity: Tensor) -> Tensor:
    """The root, with gradient 0 at 0: an unguarded root gives 0 * inf = NaN there.

    Adding a small constant instead would bias the dark pixels, which are most of a detector.
    """
    if not torch.is_grad_enabled():
        return intensity.sqrt()
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
    return added_modes(squared_modulus(probe), 2)


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
    step = math.ceil(max_neighbor_distance)  # of the whole: half of the smallest float is none
    return patch_size + (gridsize - 1) * (step + step % 2)


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
    if not has_values(offsets):
        return
    room = (canvas_size - patch_size) // 2
    largest = offsets.detach().abs().max().item()
    if not largest <= room + _OFFSET_SLACK:  # negated, so that NaN is refused too
        msg = (
            f"Expected offsets to be at most {room} pixels, (M-N)/2 rounded down with M={canvas_size} and "
            f"N={patch_size}, got {largest:g}. A larger max_neighbor_distance gives a larger canvas (padded_size)."
        )
        raise ValueError(msg)
