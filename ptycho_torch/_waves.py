"""Waves as intensities: the arithmetic under `helper`, on tensors of any shape.

Knows no groups or contracts.
"""

import torch
from torch import Tensor

__all__ = ["added_modes", "squared_modulus"]


def squared_modulus(waves: Tensor) -> Tensor:
    """Return the intensity of waves, in their unit squared."""
    # abs().square() would take a root only to undo it.
    squares = torch.view_as_real(waves.resolve_conj()).square()
    return squares[..., 0] + squares[..., 1]


def added_modes(values: Tensor, dim: int) -> Tensor:
    """Sum over an axis of modes, without a copy where there is only one."""
    return values.squeeze(dim) if values.shape[dim] == 1 else values.sum(dim=dim)
