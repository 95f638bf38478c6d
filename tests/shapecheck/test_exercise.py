"""Which contracts were ever asked: counted with the first call of each, and free from then on."""

from collections.abc import Iterator

import pytest
import torch
from jaxtyping import Float32
from torch import Tensor

from shapecheck import ContractError, contract
from shapecheck._packages.exercise import Exercise

pytestmark = pytest.mark.violation

GOOD, BAD = torch.zeros(3, 2), torch.zeros(3, 5)


@pytest.fixture
def exercise() -> Iterator[Exercise]:
    watching = Exercise()
    watching.watch()
    yield watching
    watching.stop()


def double(x: Float32[Tensor, "n 2"]) -> Float32[Tensor, "n 2"]:
    return 2 * x


NAME = f"{__name__}.double"


@pytest.mark.parametrize("value", [GOOD, BAD], ids=["good", "bad"])
def test_the_first_call_counts_and_leaves_the_contract_as_it_would_be_without(
    exercise: Exercise, value: Tensor
) -> None:
    checked = contract(double)
    assert (exercise.defined, exercise.exercised) == ({NAME}, set())
    assert checked.__globals__["_sc_function"] is not double
    for _ in range(2):
        try:
            checked(value)
        except ContractError:
            assert value is BAD
    assert exercise.exercised == {NAME}
    checked(GOOD)
    assert checked.__globals__["_sc_function"] is double


def test_a_contract_that_is_defined_again_is_not_watched_again(exercise: Exercise) -> None:
    contract(double)(GOOD)
    assert contract(double).__globals__["_sc_function"] is double
    assert exercise.exercised == {NAME}


def test_what_is_defined_before_or_after_is_not_counted(exercise: Exercise) -> None:
    exercise.stop()
    contract(double)(GOOD)
    exercise.watch()
    assert exercise.defined == set()


@pytest.mark.slow
def test_a_call_that_is_compiled_counts_without_a_break_in_the_graph(exercise: Exercise) -> None:
    checked = contract(double)
    compiled = torch.compile(checked, fullgraph=True, backend="eager")
    assert compiled(GOOD).shape == (3, 2)
    assert exercise.exercised == {NAME}
    assert compiled(GOOD).shape == (3, 2)
    torch.compiler.reset()
