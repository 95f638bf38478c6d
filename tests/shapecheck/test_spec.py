"""Shape strings: what jaxtyping lets through in silence is refused when the contract is defined."""

import pytest
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from shapecheck import ContractDefinitionError, ContractError, check, contract

pytestmark = pytest.mark.violation


@pytest.mark.parametrize(
    "axis", ["b>0", "b.c", "(n", "n // 2", "c:3", "b==3", "f(n)", "?n", "*", "n+1.5", "-3", "[n]", "n if n else 1"]
)
def test_a_malformed_axis_is_refused_at_definition(axis: str) -> None:
    def function(x: Float[Tensor, f"n {axis}"]) -> None:
        del x

    with pytest.raises(ContractDefinitionError, match="Malformed axis"):
        contract(function)


@pytest.mark.parametrize(
    ("text", "fitting", "wrong"),
    [
        ("n 3", (5, 3), (5, 4)),
        ("n n", (5, 5), (5, 4)),
        ("n _", (5, 9), (5,)),
        ("n _ignored", (5, 9), (5,)),
        ("...", (5, 3, 2), None),
        ("... 3", (5, 4, 3), (3, 4)),
        ("*batch n n", (2, 4, 4), (2, 4, 5)),
        ("n #n", (5, 1), (5, 4)),
        ("rows=4 cols=5", (4, 5), (5, 4)),
        ("n n+1", (5, 6), (5, 5)),
        ("n//2 n", (3, 6), (3, 5)),
        ("n min(n,3)", (5, 3), (2, 3)),
        ("n 2*(n-1)", (3, 4), (3, 5)),
        ("", (), (1,)),
    ],
)
def test_every_kind_of_axis_accepts_and_rejects(text: str, fitting: tuple[int, ...], wrong: tuple[int, ...]) -> None:
    annotation = Float32[Tensor, text]
    check(torch.zeros(fitting), annotation)
    if wrong is not None:
        with pytest.raises(ContractError):
            check(torch.zeros(wrong), annotation)


def test_a_dim_that_nothing_binds_is_refused_at_definition() -> None:
    with pytest.raises(ContractDefinitionError, match='nothing binds m, which the shape "m//2" refers to'):
        check(torch.zeros(3), Float32[Tensor, "m//2"])


def test_an_argument_cannot_refer_to_what_only_the_result_binds() -> None:
    def function(x: Float32[Tensor, " n+1"]) -> Float32[Tensor, " n"]:
        return x[1:]

    with pytest.raises(ContractDefinitionError, match=r'nothing binds n, which the shape "n\+1" refers to'):
        contract(function)

    @contract
    def right(x: Float32[Tensor, " n"]) -> Float32[Tensor, " n+1"]:
        return torch.cat([x, x[:1]])

    assert len(right(torch.zeros(3))) == 4


def test_a_name_is_one_axis_or_a_run_of_axes_and_not_both() -> None:
    with pytest.raises(ContractDefinitionError, match="n stands for one axis and for a run of axes"):
        check(torch.zeros(3, 3), Float32[Tensor, "*n n"])
    check(torch.zeros(3, 3), Float32[Tensor, "*m n"])


def test_an_argument_that_does_not_exist_is_refused_at_definition() -> None:
    def function(x: Float32[Tensor, " {size}"], length: int) -> None:
        del x, length

    with pytest.raises(ContractDefinitionError, match=r'size in the shape "\{size\}" is not an argument'):
        contract(function)

    @contract
    def right(x: Float32[Tensor, " {length}"], length: int) -> None:
        del x, length

    right(torch.zeros(3), 3)
    with pytest.raises(ContractError, match=r"axis 0 is 3, the contract says \{length\}=4"):
        right(torch.zeros(3), 4)


def test_a_dtype_without_a_shape_is_refused() -> None:
    with pytest.raises(ContractDefinitionError, match=r"Float32 \(value\) says nothing about a shape"):
        check(torch.zeros(3), Float32)
