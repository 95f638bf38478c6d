"""Patterns and where on an object they were taken: what the network and the iterative engine both work on.

A position is split in two. Its whole pixels say which part of a canvas was lit: patches are cut out and added as they
are. What is left, a fraction of a pixel, moves the probe instead, by Fourier's theorem. The object itself is never
interpolated, so nothing of it is blurred.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from ptycho_torch._waves import added_modes, squared_modulus
from ptycho_torch.contracts import (
    Amplitude,
    BadPixelMask,
    Canvases,
    CanvasLight,
    FlatAmplitude,
    FlatCentroids,
    FlatExitWaves,
    FlatFractions,
    FlatIndices,
    FlatLight,
    FlatMisfits,
    FlatPatches,
    FlatStarts,
    Offsets,
    ProbeBatch,
    ProbeModes,
    ScanX,
    ScanY,
)
from ptycho_torch.helper import check_offsets_fit, diffract
from ptycho_torch.moments import moments
from shapecheck import contract

__all__ = [
    "CANVAS_DIMS",
    "CanvasSizes",
    "Exposures",
    "exit_wave_changes",
    "group_exposures",
    "light_of",
    "locate",
    "scan_exposures",
    "scan_frame",
    "shift_probe",
    "shift_ramps",
    "single_exposures",
]

_Exposures = TypeVar("_Exposures", bound="Exposures")
# Dims of canvases that are given together with exposures: on canvases of other sizes their pixels lie elsewhere.
CANVAS_DIMS = {"B": "exposures.canvases.number", "H": "exposures.canvases.rows", "W": "exposures.canvases.columns"}
_OWN_CANVAS_DIMS = {dim: size.replace("exposures", "self") for dim, size in CANVAS_DIMS.items()}
_OF_EACH = ("measured", "probes", "slopes", "starts")  # what is given for each exposure
_DARK = 1e-3  # of the root mean square amplitude of a pattern: a far-field wave below it has no phase to speak of


class CanvasSizes(NamedTuple):
    """How many canvases there are, and how large each of them is, pixels."""

    number: int
    rows: int
    columns: int


@contract
@dataclass(frozen=True)
class Exposures:
    """Patterns, the probe of each, and where on one or more canvases each was taken.

    Attributes:
        measured: sqrt(counts), or normalised like the probes; zero frequency at ``[N//2, N//2]``.
        probes: Incoherent modes, moved by the fraction of a pixel that is missing to the position of each pattern.
        slopes: How steep the phase of each probe is by itself: the centroid of its pattern without an object.
        starts: The first pixel of each patch, counted through all canvases, row by row.
        canvases: Patterns come canvas after canvas, and as many on each.
        bad: Pixels of the detector at which nothing was measured.
    """

    measured: FlatAmplitude
    probes: FlatExitWaves
    slopes: FlatCentroids
    starts: FlatStarts
    canvases: CanvasSizes
    bad: BadPixelMask | None = None

    def __len__(self) -> int:
        return len(self.starts)

    def to(self, device: torch.device | None) -> Self:
        """Return the exposures on a device; None for where they are."""
        moved = _changed(self, lambda part: part.to(device))
        return moved if self.bad is None else replace(moved, bad=self.bad.to(device))

    def choose(self, chosen: FlatIndices) -> Self:
        """Return some of the exposures, on the same canvases."""
        return _changed(self, lambda part: part[chosen])

    def batch(self, start: int, size: int) -> Self:
        """Return up to `size` exposures that stand in a row, on the same canvases."""
        return _changed(self, lambda part: part[start : start + size])

    @contract(dims=_OWN_CANVAS_DIMS)
    def cut(self, canvases: Canvases) -> FlatPatches:
        """Cut the patch of every exposure out of its canvas."""
        return canvases.flatten()[_pixels_of(self)]

    @contract(dims=_OWN_CANVAS_DIMS)
    def add(self, sums: Canvases | CanvasLight, patches: FlatPatches | FlatLight) -> None:
        """Add a patch of every exposure to its canvas, in place."""
        sums.view(-1).index_add_(0, _pixels_of(self).flatten(), patches.flatten())


def _pixels_of(exposures: Exposures) -> Tensor:
    """Return the index of every pixel of every patch: (n, N, N)."""
    # Made once, as every stage asks for them; dynamo does not trace the lock of a `cached_property`.
    known = exposures.__dict__.get("_known_pixels")
    if known is None:
        side = torch.arange(exposures.measured.shape[-1], device=exposures.starts.device)
        window = side[:, None] * exposures.canvases.columns + side[None, :]
        known = exposures.starts.view(-1, 1, 1) + window
        object.__setattr__(exposures, "_known_pixels", known)
    return known


def _changed(exposures: _Exposures, change: Callable[[Tensor], Tensor]) -> _Exposures:
    return replace(exposures, **{name: change(getattr(exposures, name)) for name in _OF_EACH})


@contract
def group_exposures(
    images: Amplitude, offsets: Offsets, probe: ProbeBatch, canvas_size: int, bad: BadPixelMask | None = None
) -> Exposures:
    """Return the patterns of groups, each group on a canvas of its own.

    Args:
        images: In the unit of the probe.
        offsets: Pixels, (x, y), the sense of `coords_relative`; 0 puts index N//2 of a patch on index M//2.
        probe: Incoherent modes of each pattern.
        canvas_size: Side of the canvases, from `padded_size`.
        bad: Pixels of the detector at which nothing was measured.

    Raises:
        ValueError: An offset would make a patch reach beyond its canvas.
    """
    groups, _, side = images.shape[:3]
    check_offsets_fit(offsets, side, canvas_size)
    room = canvas_size - side
    # Rounding must not take a patch at the very border beyond it; what that moves is a rounding error itself.
    corners = (canvas_size // 2 - side // 2 - offsets.squeeze(2)).clamp(0, room)  # (B, C, 2)
    whole = corners.floor()
    canvas = torch.arange(groups, device=offsets.device).view(-1, 1) * canvas_size**2
    starts = canvas + (whole[..., 1] * canvas_size + whole[..., 0]).long()
    flat_probe = probe.flatten(0, 1)
    return Exposures(
        measured=images.flatten(0, 1),
        probes=shift_probe(flat_probe, (corners - whole).flatten(0, 1)),
        slopes=_own_slopes(flat_probe),
        starts=starts.flatten(),
        canvases=CanvasSizes(groups, canvas_size, canvas_size),
        bad=bad,
    )


@contract
def single_exposures(measured: FlatAmplitude, probe: ProbeModes) -> Exposures:
    """Return patterns each of which is alone on a canvas of its own size.

    Args:
        measured: In the unit of the probe.
        probe: Incoherent modes, the same for all patterns.
    """
    count, side = measured.shape[:2]
    return Exposures(
        measured=measured,
        probes=probe.expand(count, *probe.shape),
        slopes=_own_slopes(probe.unsqueeze(0)).expand(count, 2),
        starts=torch.arange(count, device=measured.device) * side**2,
        canvases=CanvasSizes(count, side, side),
    )


@contract
def scan_exposures(
    measured: FlatAmplitude,
    probe: ProbeModes,
    starts: FlatStarts,
    fractions: FlatFractions,
    shape: tuple[int, int],
    bad: BadPixelMask | None = None,
) -> Exposures:
    """Return patterns of a scan on one canvas.

    Args:
        measured: In the unit of the probe.
        probe: Incoherent modes, the same for all patterns.
        starts: From `locate`, as are the next.
        fractions: Of a pixel.
        shape: Rows and columns of the canvas.
        bad: Pixels of the detector at which nothing was measured.
    """
    return Exposures(
        measured=measured,
        probes=shift_probe(probe, fractions),
        slopes=_own_slopes(probe.unsqueeze(0)).expand(len(starts), 2),
        starts=starts,
        canvases=CanvasSizes(1, *shape),
        bad=bad,
    )


@contract
def scan_frame(xcoords: ScanX, ycoords: ScanY, patch_size: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the anchor (row, col) and the shape of the smallest canvas that holds every patch of a scan."""
    tops, lefts = (np.floor(coordinates).astype(np.int64) - patch_size // 2 for coordinates in (ycoords, xcoords))
    anchor = (int(tops.min()), int(lefts.min()))
    return anchor, (int(tops.max()) - anchor[0] + patch_size, int(lefts.max()) - anchor[1] + patch_size)


@contract
def locate(
    xcoords: ScanX, ycoords: ScanY, patch_size: int, anchor: tuple[int, int], shape: tuple[int, int]
) -> tuple[FlatStarts, FlatFractions]:
    """Split positions into whole pixels of a canvas and what is left of them.

    Args:
        xcoords: Column of each patch centre, object pixels.
        ycoords: Row of each patch centre, object pixels.
        patch_size: N, pixels.
        anchor: Object pixel (row, col) of the canvas's index [0, 0].
        shape: Rows and columns of the canvas.

    Returns:
        The first pixel of each patch, counted row by row, and how much farther the probe stood, pixels.

    Raises:
        ValueError: A patch reaches beyond the canvas.
    """
    rows, columns = np.floor(ycoords), np.floor(xcoords)
    firsts = [
        (whole - patch_size // 2 - origin).astype(np.int64)
        for whole, origin in zip((rows, columns), anchor, strict=True)
    ]
    for first, extent, name in zip(firsts, shape, ("rows", "columns"), strict=True):
        if first.min() < 0 or first.max() + patch_size > extent:
            msg = (
                f"Expected every patch to lie on the canvas of {extent} {name}, got patches on {name} "
                f"{first.min()} to {first.max() + patch_size - 1}. Place the object without a shape of its own."
            )
            raise ValueError(msg)
    fractions = np.stack((xcoords - columns, ycoords - rows), axis=-1).astype(np.float32)
    return torch.from_numpy(firsts[0] * shape[1] + firsts[1]), torch.from_numpy(fractions)


@contract
def shift_probe(probe: ProbeModes | FlatExitWaves, fractions: FlatFractions) -> FlatExitWaves:
    """Move a probe by a part of a pixel, once for each position.

    Args:
        probe: Incoherent modes, the same for all positions or those of each; any unit.
        fractions: How far to move it, pixels.

    Returns:
        The probe at each position, in its unit.
    """
    return torch.fft.ifft2(torch.fft.fft2(probe) * shift_ramps(fractions, probe.shape[-1]))


def shift_ramps(fractions: Tensor, side: int) -> Tensor:
    """Return what moves images by (x, y) pixels, a factor for their Fourier transforms: (n, 1, N, N)."""
    frequencies = torch.fft.fftfreq(side, device=fractions.device)
    columns, rows = (torch.exp(-2j * math.pi * fractions[:, axis, None] * frequencies) for axis in (0, 1))
    return (rows.unsqueeze(-1) * columns.unsqueeze(-2)).unsqueeze(1)


@contract
def exit_wave_changes(
    exit_waves: FlatExitWaves, measured: FlatAmplitude, bad: BadPixelMask | None = None
) -> tuple[FlatExitWaves, FlatMisfits]:
    """Tell how exit waves must change to have the measured amplitudes, and how far off these were.

    All modes of a pattern share one ratio of amplitudes, as they add in intensity.

    Args:
        exit_waves: Probe times object, counts**0.5 or normalised.
        measured: In the same unit, zero frequency at index [N//2, N//2].
        bad: Pixels at which nothing was measured: there waves stay as they are.

    Returns:
        What to add to the waves, and the sum of |predicted - measured| over the pixels of each pattern.
    """
    if bad is not None:
        measured, bad = measured.masked_fill(bad, 0), torch.fft.ifftshift(bad)
    measured = torch.fft.ifftshift(measured, dim=(-2, -1)).unsqueeze(1)
    dark = (_DARK**2 * measured.square().mean(dim=(-2, -1), keepdim=True)).clamp_min(torch.finfo(measured.dtype).tiny)
    far = torch.fft.fft2(exit_waves, norm="ortho")
    predicted = (light_of(far).unsqueeze(1) + dark).sqrt()
    if bad is not None:
        measured = torch.where(bad, predicted, measured)
    change = torch.fft.ifft2(far * (measured / predicted - 1), norm="ortho")
    return change, (predicted - measured).abs().sum(dim=(-3, -2, -1))


@contract
def light_of(waves: FlatExitWaves) -> FlatLight:
    """Return the intensity of waves, in their unit squared: their modes added."""
    return added_modes(squared_modulus(waves), 1)


def _own_slopes(probe: Tensor) -> Tensor:
    """Return the centroid of the pattern of each probe without an object; moving a probe does not change it."""
    return moments(diffract(probe.unsqueeze(1)).squeeze(1))[1]
