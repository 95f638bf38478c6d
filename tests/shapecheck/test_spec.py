"""Shape strings: what jaxtyping lets through in silence is refused when the contract is defined."""

from typing import Any

import pytest
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from shapecheck import ContractDefinitionError, ContractError, check, contract

pytestmark = pytest.mark.violation


MALFORMED = {
    "b>0": "an axis has one size",
    "b==3": "an axis has one size",
    "b.c": "arguments go in braces",
    "n.shape[0]": "arguments go in braces",
    "(n": "brackets do not group axes",
    "b)": "brackets do not group axes",
    "[n]": "brackets do not group axes",
    "n // 2": "spaces separate axes",
    "c:3": "write c=3",
    "n=": "must be followed by a name or a size",
    "*": "must be followed by a name or a size",
    "n if n else 1": "Python keyword",
    "None": "Python keyword",
    "?n": "PyTree",
    "-3": "cannot be negative",
    "f(n)": "no integer arithmetic",
    "n+1.5": "no integer arithmetic",
    "3.0": "no integer arithmetic",
    "min+1": "no integer arithmetic",
    "a=b=3": "no integer arithmetic",
    "{n": "no integer arithmetic",
    "n+{}": "no integer arithmetic",
    "n−1": "no integer arithmetic",  # noqa: RUF001  # a minus sign that is none
    "n\u200b": "no integer arithmetic",
    "В": "looks like 'B'",  # noqa: RUF001  # Cyrillic
    "Вatch": "looks like 'Batch'",  # noqa: RUF001
    "ｎ": "looks like 'n'",  # noqa: RUF001  # a wide letter
    "2²": "looks like '22'",
}


@pytest.mark.parametrize("axis", MALFORMED, ids=ascii)
def test_a_malformed_axis_is_refused_at_definition_with_the_cure(axis: str) -> None:
    def function(x: Float[Tensor, f"n {axis}"]) -> None:
        del x

    with pytest.raises(ContractDefinitionError, match="Malformed axis") as caught:
        contract(function)
    assert MALFORMED[axis] in str(caught.value)


@pytest.mark.parametrize("axis", ["b", "min", "c=3", "λ", "n//2", "max(n,3)", "{x.ndim}", "_", "*rest", "None_", "b2"])
def test_a_well_formed_axis_is_not_refused(axis: str) -> None:
    def function(x: Float[Tensor, f"n {axis}"]) -> None:
        del x

    contract(function)


@pytest.mark.parametrize("shape", ["*a *b", "... *b", "a, b", "##b", "b#"])
def test_what_jaxtyping_refuses_itself_is_refused_in_a_string_as_well(shape: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # jaxtyping's own
        Float[Tensor, shape]

    def function(x: Any) -> None:
        del x

    function.__annotations__["x"] = f"Float[Tensor, {shape!r}]"
    with pytest.raises(ContractDefinitionError, match=r"of 'x' of .*function cannot be resolved"):
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
