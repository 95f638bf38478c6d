"""The long waves of an object from the first moments of its patterns: differential phase contrast, integrated.

Iterative engines find fine detail at once and slopes of the phase over many patches last. The energy of a pattern
tells how much its patch lets through, and its centroid how steep the phase is there; what a pattern says of both beyond
what an object predicts is put right here, for the whole object at once.
"""

import math

import torch
from torch import Tensor

from ptycho_torch.contracts import FlatAmplitude, FlatCentroids, FlatEnergies, ObjectMap, ObjectSlopes
from shapecheck import contract

__all__ = ["integrate_slopes", "moments"]


@contract
def moments(amplitude: FlatAmplitude) -> tuple[FlatEnergies, FlatCentroids]:
    """Return the energy of each pattern and its centroid.

    The centroid is the mean slope of the phase of the exit wave, weighted by its intensity.

    Args:
        amplitude: sqrt(counts), zero frequency at index [N//2, N//2].

    Returns:
        Counts, and radians per object pixel; 0 for a pattern without light.

    Source:
        Dekkers & de Lang, Optik 41 (1974) 452; as a centroid: Lazic, Bosch & Lazar, Ultramicroscopy 160 (2016) 265.
    """
    side = amplitude.shape[-1]
    frequencies = 2 * math.pi * (torch.arange(side, device=amplitude.device) - side // 2) / side
    intensity = amplitude.square()
    energies = intensity.sum(dim=(-2, -1))
    lit = energies.clamp_min(torch.finfo(energies.dtype).tiny)
    x, y = (intensity.sum(dim=dim) @ frequencies / lit for dim in (-2, -1))
    return energies, torch.stack((x, y), dim=-1)


@contract
def integrate_slopes(slopes: ObjectSlopes) -> ObjectMap:
    """Return the surface whose slopes are closest to those given, with mean 0.

    Args:
        slopes: Change per pixel along the columns (x), then along the rows (y).

    Source:
        Frankot & Chellappa, IEEE PAMI 10 (1988) 439; mirrored at the edges: Bon, Monneret & Wattellier, Appl. Opt. 51
        (2012) 5698.
    """
    height, width = slopes.shape[-2:]
    along_x, along_y = (torch.fft.fft2(_mirrored(slope, dim)) for slope, dim in zip(slopes, (-1, -2), strict=True))
    x = 2j * math.pi * torch.fft.fftfreq(2 * width, device=slopes.device).unsqueeze(0)
    y = 2j * math.pi * torch.fft.fftfreq(2 * height, device=slopes.device).unsqueeze(-1)
    curvature = x.square() + y.square()
    curvature[0, 0] = 1  # the mean, which slopes do not tell
    surface = torch.fft.ifft2((x * along_x + y * along_y) / curvature).real[:height, :width]
    return surface - surface.mean()


def _mirrored(slope: Tensor, dim: int) -> Tensor:
    """Extend a slope along `dim` as that of a surface mirrored at its edges: the sign changes with the direction."""
    other = -3 - dim
    extended = torch.cat((slope, -slope.flip(dim)), dim=dim)
    return torch.cat((extended, extended.flip(other)), dim=other)
