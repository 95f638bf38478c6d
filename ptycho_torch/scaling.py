"""The constants that scale patterns and probes: to what the network takes, and back to counts.

With ``A`` the measured amplitudes of patterns of side N, ``rms * A`` has the mean energy ``(N/2)**2``, and
``physics * rms * A`` that of the photons asked for. All are computed in float64.
"""

import math

import numpy as np

from ptycho_torch.contracts import GroupedAmplitudeLast, ScanProbe
from shapecheck import contract

__all__ = ["probe_scaling", "scales_of", "scaling_constants"]


@contract
def scaling_constants(images: GroupedAmplitudeLast, nphotons: float | None = None) -> tuple[float, float]:
    """Return ``(rms, physics)`` of a data set, in float64.

    Args:
        images: sqrt(counts), the patterns of every group.
        nphotons: Mean counts per pattern to aim at; the data's own mean by default.

    Raises:
        ValueError: The patterns are all zero.
    """
    energies = np.einsum("gnmc,gnmc->gc", images, images, dtype=np.float64)
    return scales_of(float(energies.mean()), images.shape[1], nphotons)


@contract
def probe_scaling(probe: ScanProbe) -> float:
    """Return ``(N/2) / sqrt(sum |probe|**2)`` over all modes, in float64.

    Raises:
        ValueError: The probe is all zero.
    """
    energy = float(np.sum(np.abs(probe.astype(np.complex128)) ** 2))
    if energy <= 0:
        msg = "Expected a probe with energy, got only zeros."
        raise ValueError(msg)
    return probe.shape[-1] / 2 / math.sqrt(energy)


def scales_of(energy: float, side: int, nphotons: float | None = None) -> tuple[float, float]:
    """Return ``(rms, physics)`` of patterns of a mean energy.

    Args:
        energy: Mean counts per pattern.
        side: Of the patterns, pixels.
        nphotons: As of `scaling_constants`.

    Raises:
        ValueError: There is no energy.
    """
    if energy <= 0:
        msg = "Expected diffraction amplitudes with energy, got only zeros."
        raise ValueError(msg)
    rms = math.sqrt((side / 2) ** 2 / energy)
    return rms, math.sqrt((energy if nphotons is None else nphotons) / (rms**2 * energy))
