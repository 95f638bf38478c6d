"""The registry of dim names."""

import pytest
import torch
from jaxtyping import Float32
from torch import Tensor

from shapecheck import Axes, ContractDefinitionError, check, contract
from shapecheck.axes import axes_of

AXES = Axes(B="groups in a batch", C="patches in a group", batch="images in a batch")


def test_a_registry_is_a_mapping_of_descriptions() -> None:
    assert AXES["C"] == "patches in a group"
    assert list(AXES) == ["B", "C", "batch"]
    assert len(AXES) == 3


@pytest.mark.violation
@pytest.mark.parametrize(
    ("shape", "cure"),
    [("B bacth", "did you mean 'batch'"), ("b C", "did you mean 'B'"), ("q//2 q", "known: B, C, batch")],
)
def test_an_unknown_dim_is_refused_with_close_matches(shape: str, cure: str) -> None:
    def function(x: Float32[Tensor, shape]) -> None:
        del x

    with pytest.raises(ContractDefinitionError) as caught:
        contract(axes=AXES)(function)
    assert cure in str(caught.value)


@pytest.mark.violation
def test_known_dims_numbers_and_expressions_of_known_dims_are_accepted() -> None:
    @contract(axes=AXES)
    def function(x: Float32[Tensor, "B C 2*C _ 1"], *, width: int = 3) -> Float32[Tensor, "B {width}"]:
        return x[:, 0, 0, 0].expand(-1, width)

    assert function(torch.zeros(3, 4, 8, 5, 1)).shape == (3, 3)


@pytest.mark.violation
def test_a_registered_package_is_held_to_its_names() -> None:
    registry = Axes(n="counted").register(__name__)
    assert axes_of(f"{__name__}.inner") is registry
    assert axes_of(__name__.rpartition(".")[0] + ".other") is not registry
    check(torch.zeros(3), Float32[Tensor, " n"])
    with pytest.raises(ContractDefinitionError, match="Unknown dim 'm'"):
        check(torch.zeros(3), Float32[Tensor, " m"])
