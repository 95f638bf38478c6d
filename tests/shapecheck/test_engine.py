"""Which bindings satisfy a contract: unions, symbolic dims, argument order, and whom to blame."""

import itertools
from typing import Any

import pytest
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from shapecheck import ContractError, check, contract

pytestmark = pytest.mark.violation

EitherOrder = Float32[Tensor, "b c"] | Float32[Tensor, "c b"]


@pytest.fixture(autouse=True)
def _engine(engine: str) -> None:
    """Every test here holds for both engines."""


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_the_verdict_on_a_union_does_not_depend_on_the_order_of_the_arguments(order: tuple[int, ...]) -> None:
    hints = [EitherOrder, Float32[Tensor, " b"], Float32[Tensor, " c"]]
    good = [torch.zeros(4, 3), torch.zeros(3), torch.zeros(4)]
    bad = [torch.zeros(4, 3), torch.zeros(3), torch.zeros(5)]
    annotation = tuple[tuple(hints[index] for index in order)]
    check(tuple(good[index] for index in order), annotation)
    with pytest.raises(ContractError):
        check(tuple(bad[index] for index in order), annotation)


def test_every_binding_that_the_arguments_allow_is_kept_for_the_result() -> None:
    @contract
    def rows(x: EitherOrder, *, count: int) -> Float32[Tensor, " b"]:
        del x
        return torch.zeros(count)

    for count in (3, 4):
        assert len(rows(torch.zeros(3, 4), count=count)) == count
    with pytest.raises(ContractError):
        rows(torch.zeros(3, 4), count=5)


def test_symbolic_dims_may_be_used_before_they_are_bound() -> None:
    @contract
    def pool(half: Float32[Tensor, "n//2 m+1"], m: Float32[Tensor, " m"], full: Float32[Tensor, " n"]) -> None:
        del half, m, full

    pool(torch.zeros(3, 5), torch.zeros(4), torch.zeros(6))
    with pytest.raises(ContractError) as caught:
        pool(torch.zeros(3, 5), torch.zeros(4), torch.zeros(8))
    assert caught.value.violations[0].parameter == "half"


def test_an_optional_argument_that_leaves_a_dim_unbound_is_a_violation() -> None:
    @contract
    def pad(x: Float32[Tensor, " n+1"], like: Float32[Tensor, " n"] | None) -> None:
        del x, like

    pad(torch.zeros(4), torch.zeros(3))
    with pytest.raises(ContractError, match="nothing in this call binds n"):
        pad(torch.zeros(4), None)


def test_one_culprit_is_blamed_when_all_others_agree() -> None:
    @contract
    def stack(a: Float32[Tensor, "h w"], b: Float32[Tensor, "h w"], c: Float32[Tensor, "h w"]) -> None:
        del a, b, c

    good, bad = torch.zeros(5, 6), torch.zeros(7, 6)
    stack(good, good, good)
    for name in "abc":
        arguments: dict[str, Any] = {"a": good, "b": good, "c": good, name: bad}
        with pytest.raises(ContractError) as caught:
            stack(**arguments)
        assert [violation.parameter for violation in caught.value.violations] == [name]
        assert {binding.size for binding in caught.value.violations[0].bindings} == {5, 6}


def test_broadcastable_dims_accept_one_or_the_bound_size() -> None:
    annotation = tuple[
        Float32[Tensor, " b #n"], Float32[Tensor, " n"], Int64[Tensor, "*#shape"], Int64[Tensor, "*#shape"]
    ]

    def make(n: int, shape: tuple[int, ...]) -> tuple[Tensor, ...]:
        return torch.zeros(3, n), torch.zeros(4), torch.zeros(2, 5).long(), torch.zeros(shape).long()

    for n, shape in [(1, (1, 5)), (4, (2, 1)), (4, (5,))]:
        check(make(n, shape), annotation)
    for n, shape in [(3, (1, 5)), (4, (3, 5))]:
        with pytest.raises(ContractError):
            check(make(n, shape), annotation)


@pytest.mark.parametrize("position", [0, 1, 40, 79])
def test_one_culprit_among_many_is_blamed_wherever_it_stands(position: int) -> None:
    values = [torch.zeros(5, 6) for _ in range(80)]
    check(values, list[Float32[Tensor, "h w"]])
    values[position] = torch.zeros(5, 7)
    with pytest.raises(ContractError) as caught:
        check(values, list[Float32[Tensor, "h w"]], "x")
    (violation,) = caught.value.violations
    assert violation.parameter == f"x[{position}]"
    assert {binding.size for binding in violation.bindings} == {5, 6}


def test_two_that_disagree_alike_are_both_reported() -> None:
    annotation = tuple[Float32[Tensor, "h w"], Float32[Tensor, "h w"], Float32[Tensor, " w"], Float32[Tensor, " w"]]
    with pytest.raises(ContractError) as caught:
        check((torch.zeros(5, 6), torch.zeros(5, 6), torch.zeros(7), torch.zeros(7)), annotation, "x")
    assert [violation.parameter for violation in caught.value.violations] == ["x[2]", "x[3]"]


def test_a_union_may_refer_to_dims_that_later_arguments_bind() -> None:
    annotation = tuple[Float32[Tensor, " n+1"] | Float32[Tensor, " m+1"], Float32[Tensor, " n"], Float32[Tensor, " m"]]
    for size in (4, 6):
        check((torch.zeros(size), torch.zeros(3), torch.zeros(5)), annotation)
    with pytest.raises(ContractError) as caught:
        check((torch.zeros(5), torch.zeros(3), torch.zeros(5)), annotation, "x")
    assert caught.value.violations[0].parameter == "x[0]"


def test_ways_that_bind_alike_are_one() -> None:
    """Sixty square tensors have 2 ** 60 ways to be read."""
    check([torch.zeros(4, 4)] * 60, list[EitherOrder])
    with pytest.raises(ContractError):
        check([*[torch.zeros(4, 4)] * 60, torch.zeros(3, 4)], list[EitherOrder])
