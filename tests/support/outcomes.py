"""What calls of contracted functions end in; for the tests of every kind of boundary."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from shapecheck import ContractError, Violation


def zeros(*shape: int) -> Tensor:
    return torch.zeros(shape)


def violation_of(call: Callable[[], object]) -> Violation:
    """The only violation that a call is refused for."""
    with pytest.raises(ContractError) as caught:
        call()
    (violation,) = caught.value.violations
    return violation
