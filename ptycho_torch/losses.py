"""How far predicted diffraction amplitudes are from measured ones.

Owns the two losses and nothing about training. Both are means over every good pixel in the batch, so that a loss does
not depend on batch size, pattern side or how many pixels of a detector are bad.
"""

import torch

from ptycho_torch.contracts import Amplitude, BadPixelMask, Scalar
from shapecheck import contract

__all__ = ["mae_loss", "poisson_loss"]

# Counts. A rate of 0 where light was measured is impossible (an infinite loss); a hundredth of a count, far below any
# background, keeps such a pixel finite and its gradient moderate.
_DARK_RATE = 1e-2


@contract
def poisson_loss(predicted: Amplitude, measured: Amplitude, bad: BadPixelMask | None = None) -> Scalar:
    """Return the mean negative log-likelihood of the measured counts under the predicted rates.

    ``rate - target * log(rate) + log(target!)`` with ``rate = predicted**2`` and ``target = measured**2``; counts
    are compared, so both amplitudes must be in physical units. A hundredth of a count is added to the rate.

    Args:
        predicted: Amplitude, counts**0.5.
        measured: Amplitude, counts**0.5.
        bad: Pixels at which nothing was measured.

    Returns:
        Nats per detector pixel.

    Source:
        Thibault & Guizar-Sicairos, New J. Phys. 14 (2012) 063004, maximum likelihood in diffractive imaging.
    """
    rate = predicted.square() + _DARK_RATE
    target = measured.square()
    return _mean(rate - target * rate.log() + torch.lgamma(target + 1), bad)


@contract
def mae_loss(predicted: Amplitude, measured: Amplitude, bad: BadPixelMask | None = None) -> Scalar:
    """Return the mean absolute difference of amplitudes.

    Args:
        predicted: Amplitude, normalised or in counts**0.5.
        measured: Amplitude, in the same unit.
        bad: Pixels at which nothing was measured.

    Returns:
        The unit of the arguments.
    """
    return _mean((predicted - measured).abs(), bad)


def _mean(values: torch.Tensor, bad: torch.Tensor | None) -> torch.Tensor:
    if bad is None:
        return values.mean()
    return values.masked_fill(bad, 0).mean() / bad.logical_not().float().mean()
