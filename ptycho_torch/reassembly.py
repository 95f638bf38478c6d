"""From patches at scan positions to the whole object.

Owns the placement of patches on one canvas of any shape, and the alignment of their global phases before it.
The small canvases of groups are `helper`; predicting patches is `workflow`.

Positions are absolute patch centres (x, y) = (column, row) in object pixels: patch index N//2 lies there. The
anchor of a canvas is the object pixel (row, col) of its index [0, 0]: object pixel = canvas index + anchor.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ptycho_torch.contracts import (
    FlatPatches,
    FlatPositions,
    ObjectImage,
    ObjectWeight,
    PlacementWeights,
    ProbeModes,
)
from shapecheck import contract

__all__ = ["Placement", "place_patches", "probe_placement_weights", "synchronise_phases"]

# A pixel whose summed weight is below this fraction of the largest was never seen.
_WEIGHT_FLOOR_FRACTION = 1e-6
# Pixels spread at a time: a few tens of MB of temporaries, however many patches there are.
_CHUNK_PIXELS = 2**20


@contract
class Placement(NamedTuple):
    """The object that patches add up to."""

    obj: ObjectImage  # weighted mean of the patches, in their unit; 0 where nothing was placed
    weight: ObjectWeight  # sum of the weights on each pixel
    anchor: tuple[int, int]  # object pixel (row, col) of canvas index [0, 0]
    dropped: int  # patches left out because they reach beyond the canvas


class _Frame(NamedTuple):
    """The object pixels a canvas covers."""

    top: int
    left: int
    height: int
    width: int


class _Spot(NamedTuple):
    """Where patches go on a canvas: the pixel of patch index [0, 0], rounded down, and what rounding took off."""

    row: Tensor
    column: Tensor
    fraction_y: Tensor
    fraction_x: Tensor


@contract
def place_patches(
    patches: FlatPatches,
    positions: FlatPositions,
    weights: PlacementWeights,
    *,
    shape: tuple[int, int] | None = None,
    anchor: tuple[int, int] | None = None,
    allow_dropped: bool = False,
) -> Placement:
    """Average patches into the object they are parts of.

    Each weighted patch is spread at its sub-pixel position by the adjoint of bilinear interpolation, and so are
    the weights; the object is the quotient of the two sums. A constant thus stays that constant, to the very rim
    of the patches. Memory is that of the canvas and one chunk of patches. On one device and thread count the
    result repeats bit for bit, except on CUDA, where sums are taken in any order unless
    `torch.use_deterministic_algorithms` is on.

    Args:
        patches: Complex patches, any unit.
        positions: Patch centres (x, y), object pixels, absolute.
        weights: Trust in each patch pixel, the same for all patches (`probe_placement_weights`); not negative.
        shape: Rows and columns of the canvas; by default what the patches cover.
        anchor: Object pixel (row, col) of canvas index [0, 0]; by default that of the bounding box, or (0, 0), the
            frame of the positions, where a shape is given.
        allow_dropped: Leave out patches that reach beyond the canvas, and count them, instead of refusing.

    Returns:
        The object, its weights, the anchor and the number of patches left out.

    Raises:
        ValueError: A patch reaches beyond the canvas, a position is not finite, or the weights are no weights.

    Source:
        Sci. Rep. 13 (2023) 22789, reassembly by overlap averaging; here with sub-pixel positions.
    """
    _check_weights(weights)
    centres = _finite_centres(positions)
    patch_size = patches.shape[-1]
    frame = _choose_frame(centres, patch_size, shape, anchor)
    inside = _lies_inside(centres, patch_size, frame)
    dropped = int((~inside).sum())
    if dropped:
        if not allow_dropped:
            _refuse_outside(centres, inside, patch_size, frame)
        patches, centres = patches[inside], centres[inside]
    wave, weight = _sums(patches, _locate(centres, patch_size, frame), weights, frame)
    return Placement(_weighted_mean(wave, weight), weight, (frame.top, frame.left), dropped)


@contract
def probe_placement_weights(probe: ProbeModes) -> PlacementWeights:
    """Trust a patch where it was lit: the intensity of the probe, summed over its modes.

    Args:
        probe: Incoherent modes, any unit.

    Returns:
        The square of the probe's unit.
    """
    return (probe.real.square() + probe.imag.square()).sum(dim=0)


@contract
def synchronise_phases(
    patches: FlatPatches, positions: FlatPositions, weights: PlacementWeights, *, iterations: int = 10
) -> FlatPatches:
    """Turn each patch by one global phase so that it agrees with its neighbours.

    A diffraction pattern does not know the global phase of its patch; patches with phases of their own average
    to nothing. Minimises the weighted squared difference between the turned patches and their average:

    1. *Growth*: from the centre of the scan outwards, nearest patch first, each patch takes the phase that fits
       the average of those before it. Patches that are consistent but for their phases are aligned by this alone.
       (Iterating from unaligned patches instead can end in phase vortices and needs many sweeps to cross a scan.)
    2. *Sweeps*: average all patches, then turn each to fit the average; every sweep lowers the difference.

    Patches that already agree stay as they are, and so does the mean phase. A patch that overlaps no other keeps
    its phase.

    Args:
        patches: Complex patches, any unit.
        positions: Patch centres (x, y), object pixels, absolute.
        weights: Trust in each patch pixel, as for `place_patches`.
        iterations: Number of sweeps.

    Returns:
        The patches, each times one number of modulus 1.

    Raises:
        ValueError: The number of sweeps is negative, a position is not finite, or the weights are no weights.

    Source:
        Alternating projections for phase synchronisation (Boumal, SIAM J. Optim. 26 (2016) 2355, the generalised
        power method), with the object canvas in place of the matrix of pairwise overlaps.
    """
    if iterations < 0:
        msg = f"Expected iterations to be at least 0, got {iterations}."
        raise ValueError(msg)
    _check_weights(weights)
    turns = _fit_turns(patches, _finite_centres(positions), weights, iterations)
    return patches * turns[:, None, None]


def _check_weights(weights: Tensor) -> None:
    smallest, largest = weights.aminmax()
    if not (smallest >= 0 and largest > 0 and torch.isfinite(largest)):
        msg = (
            "Expected weights to be finite, not negative and somewhere positive, "
            f"got values from {smallest.item():g} to {largest.item():g}."
        )
        raise ValueError(msg)


def _finite_centres(positions: Tensor) -> Tensor:
    """Centres (n, 2), or an error that names the first patch whose position is not a number."""
    centres = positions[:, 0]
    lost = (~torch.isfinite(centres)).any(dim=1)
    if lost.any():
        msg = f"Expected positions to be finite, got NaN or infinity for patch {int(lost.int().argmax())}."
        raise ValueError(msg)
    return centres


def _choose_frame(
    centres: Tensor, patch_size: int, shape: tuple[int, int] | None, anchor: tuple[int, int] | None
) -> _Frame:
    if shape is not None:
        if min(shape) < 1:
            msg = f"Expected shape to be (rows, columns), each at least 1, got {shape}."
            raise ValueError(msg)
        return _Frame(*(anchor or (0, 0)), *shape)
    if not len(centres):
        msg = "Expected at least one patch to take the shape of the canvas from, got 0; give shape."
        raise ValueError(msg)
    left, top = (math.floor(c) - patch_size // 2 for c in centres.amin(dim=0).tolist())
    right, bottom = (math.ceil(c) - patch_size // 2 + patch_size for c in centres.amax(dim=0).tolist())
    top, left = anchor or (top, left)
    return _Frame(top, left, max(bottom - top, 1), max(right - left, 1))


def _lies_inside(centres: Tensor, patch_size: int, frame: _Frame) -> Tensor:
    """Which patches touch no pixel beyond the canvas; at a whole-pixel position the patch's own pixels suffice."""
    start = centres.new_tensor([frame.left, frame.top]) + patch_size // 2
    room = centres.new_tensor([frame.width, frame.height]) - patch_size
    return ((centres.floor() >= start[None]) & (centres.ceil() <= (start + room)[None])).all(dim=1)


def _refuse_outside(centres: Tensor, inside: Tensor, patch_size: int, frame: _Frame) -> None:
    first = int((~inside).int().argmax())
    x, y = centres[first].tolist()
    msg = (
        f"Expected every patch to lie on the canvas (rows {frame.top} to {frame.top + frame.height - 1}, columns "
        f"{frame.left} to {frame.left + frame.width - 1}), got {int((~inside).sum())} of {len(inside)} beyond it, the "
        f"first patch {first} of side {patch_size} at (x, y) = ({x:g}, {y:g}). Give a larger shape or another anchor, "
        "or allow_dropped=True to leave such patches out."
    )
    raise ValueError(msg)


def _locate(centres: Tensor, patch_size: int, frame: _Frame) -> _Spot:
    whole = centres.floor()
    fraction = centres - whole
    pixel = whole.long() - patch_size // 2
    return _Spot(pixel[:, 1] - frame.top, pixel[:, 0] - frame.left, fraction[:, 1], fraction[:, 0])


def _sums(patches: Tensor, spots: _Spot, weights: Tensor, frame: _Frame) -> tuple[Tensor, Tensor]:
    """Sums over the patches, on the canvas, of weight * patch and of weight."""
    # One row and column more than asked: the second half of a patch at a whole-pixel position, all zeros, goes there.
    wave = patches.new_zeros((frame.height + 1) * (frame.width + 1))
    weight = weights.new_zeros(wave.shape)
    for part, spot in _chunks(spots, patches.shape[-1]):
        index = _pixel_index(spot, patches.shape[-1], frame)
        wave.index_add_(0, index, _spread(weights[None] * patches[part], spot).flatten())
        weight.index_add_(0, index, _spread(weights.expand(patches[part].shape), spot).flatten())
    canvas = (frame.height + 1, frame.width + 1)
    return wave.view(canvas)[:-1, :-1], weight.view(canvas)[:-1, :-1]


def _chunks(spots: _Spot, patch_size: int) -> Iterator[tuple[slice, _Spot]]:
    step = max(1, _CHUNK_PIXELS // (patch_size + 1) ** 2)
    for start in range(0, len(spots.row), step):
        part = slice(start, start + step)
        yield part, _Spot(*(values[part] for values in spots))


def _pixel_index(spot: _Spot, patch_size: int, frame: _Frame) -> Tensor:
    """Flat canvas index of every pixel of every spread patch."""
    steps = torch.arange(patch_size + 1, device=spot.row.device)
    rows = (spot.row[:, None] + steps)[:, :, None]
    columns = (spot.column[:, None] + steps)[:, None, :]
    return (rows * (frame.width + 1) + columns).flatten()


def _spread(images: Tensor, spot: _Spot) -> Tensor:
    """The adjoint of bilinear interpolation: each pixel shared out over four, (k, N, N) -> (k, N+1, N+1)."""
    fy, fx = spot.fraction_y[:, None, None], spot.fraction_x[:, None, None]
    tall = functional.pad(images * (1 - fy), (0, 0, 0, 1)) + functional.pad(images * fy, (0, 0, 1, 0))
    return functional.pad(tall * (1 - fx), (0, 1)) + functional.pad(tall * fx, (1, 0))


def _weighted_mean(wave: Tensor, weight: Tensor) -> Tensor:
    seen = weight > _WEIGHT_FLOOR_FRACTION * weight.max()
    return torch.where(seen, wave / torch.where(seen, weight, 1.0), 0.0)


@torch.no_grad()
def _fit_turns(patches: Tensor, centres: Tensor, weights: Tensor, iterations: int) -> Tensor:
    """One number of modulus 1 per patch; the weighted mean phase of all is left as it was."""
    frame = _choose_frame(centres, patches.shape[-1], None, None)
    spots = _locate(centres, patches.shape[-1], frame)
    turns = _grow(patches, spots, weights, frame, _growth_order(centres))
    for _ in range(iterations):
        turns = _sweep(patches, turns, spots, weights, frame)
    energy = (weights * (patches.real.square() + patches.imag.square())).sum(dim=(-2, -1))
    return turns * _unit((energy * turns).sum().conj())


def _unit(values: Tensor) -> Tensor:
    """Each number over its modulus; 1 for zero, whose angle means nothing (and is pi for -0.0)."""
    return torch.where(values == 0, 1.0, values.sgn())


def _growth_order(centres: Tensor) -> list[int]:
    """All patches, from the middle of the scan outwards, each next to one before it (Prim's spanning tree)."""
    xy = centres.cpu()
    current = int((xy - xy.mean(dim=0, keepdim=True)).square().sum(dim=1).argmin())
    gap = torch.full((len(xy),), math.inf)  # squared distance to the nearest patch in the order
    taken = torch.zeros(len(xy), dtype=torch.bool)
    order = []
    for _ in range(len(xy)):
        order.append(current)
        taken[current] = True
        gap = torch.minimum(gap, (xy - xy[current][None]).square().sum(dim=1))
        current = int(gap.masked_fill(taken, math.inf).argmin())
    return order


def _grow(patches: Tensor, spots: _Spot, weights: Tensor, frame: _Frame, order: list[int]) -> Tensor:
    """Turn patch after patch to fit the average of those before it."""
    wave = patches.new_zeros(frame.height + 1, frame.width + 1)
    weight = weights.new_zeros(wave.shape)
    turns = patches.new_ones(len(patches))
    smallest = _WEIGHT_FLOOR_FRACTION * weights.max()
    side = patches.shape[-1] + 1
    rows, columns = spots.row.tolist(), spots.column.tolist()
    for k in order:
        spot = _Spot(*(values[k : k + 1] for values in spots))
        own_wave = _spread(weights * patches[k : k + 1], spot)[0]
        own_weight = _spread(weights.unsqueeze(0), spot)[0]
        window = (slice(rows[k], rows[k] + side), slice(columns[k], columns[k] + side))
        # Dividing by both weights trusts a pixel only where the new patch and the average both know it.
        together = (weight[window] + own_weight).clamp_min(smallest)
        turns[k] = _unit((own_wave.conj() * wave[window] / together).sum())
        wave[window] += turns[k] * own_wave
        weight[window] += own_weight
    return turns


def _sweep(patches: Tensor, turns: Tensor, spots: _Spot, weights: Tensor, frame: _Frame) -> Tensor:
    """Turn every patch to fit the average of all."""
    obj = _weighted_mean(*_sums(patches * turns[:, None, None], spots, weights, frame))
    seen = functional.pad(obj, (0, 1, 0, 1)).flatten()  # the spare row and column of _sums
    overlaps = []
    for part, spot in _chunks(spots, patches.shape[-1]):
        own_wave = _spread(weights[None] * patches[part], spot).flatten(1)
        around = seen[_pixel_index(spot, patches.shape[-1], frame)].view(own_wave.shape)
        overlaps.append((own_wave.conj() * around).sum(dim=1))
    return _unit(torch.cat(overlaps))
