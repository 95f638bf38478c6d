"""`check`: compiled once per annotation, whatever its name, place and mode."""

import gc
import linecache
from typing import Annotated, Any

import pytest
import torch
from jaxtyping import Float32
from torch import Tensor

from shapecheck import ContractDefinitionError, ContractError, check
from shapecheck._boundaries.check import _MOST_CHECKERS, _checkers

pytestmark = pytest.mark.violation


def test_equal_annotations_share_one_compiled_check() -> None:
    check(torch.zeros(3, 7), Float32[Tensor, "B 7"])
    before = len(_checkers)
    for size in (3, 4, 5):
        check(torch.zeros(size, 7), Float32[Tensor, "B 7"], name=f"batch_{size}")
    assert len(_checkers) == before


@pytest.mark.parametrize(
    "other", [Float32[Tensor, "B 8"], list[Float32[Tensor, "B 7"]], Float32[torch.nn.Parameter, "B 7"]], ids=str
)
def test_annotations_that_differ_do_not_share_a_check(other: Any) -> None:
    check(torch.zeros(3, 7), Float32[Tensor, "B 7"])
    with pytest.raises(ContractError):
        check(torch.zeros(3, 7), other)


def test_annotations_made_up_at_run_time_do_not_fill_the_memory() -> None:
    for size in range(1, 40):
        check(torch.zeros(size), Float32[Tensor, f"{size}"])
    _checkers.update(dict.fromkeys(range(_MOST_CHECKERS)))
    check(torch.zeros(40), Float32[Tensor, "40"])
    gc.collect()
    assert len(_checkers) == 1
    assert sum(f"{__name__}.check #" in name for name in linecache.cache) == 1


def test_an_annotation_that_cannot_be_hashed_is_checked_as_well() -> None:
    check(3, Annotated[int, ["metadata"]])
    with pytest.raises(ContractError):
        check("3", Annotated[int, ["metadata"]])


def test_sizes_are_those_of_this_call() -> None:
    for size in (3, 4):
        check(torch.zeros(size), Float32[Tensor, " B"], dims={"B": size})
        with pytest.raises(ContractError, match="the contract says B="):
            check(torch.zeros(size + 1), Float32[Tensor, " B"], dims={"B": size})
    with pytest.raises(ContractDefinitionError, match=r"dim 'C' is tied to .* but no annotation uses it"):
        check(torch.zeros(3), Float32[Tensor, " B"], dims={"C": 3})
