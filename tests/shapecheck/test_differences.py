"""Every deliberate difference from plain ``@jaxtyped(typechecker=beartype)``, with what that does today."""

import asyncio
import dataclasses
import gc
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypedDict

import numpy as np
import pytest
from beartype import beartype
from jaxtyping import Float32, jaxtyped

from shapecheck import ContractDefinitionError, ContractError, contract

pytestmark = pytest.mark.violation

Array = np.ndarray
Image = Float32[Array, "h w"]


@pytest.fixture(autouse=True)
def _engine(engine: str) -> None:
    """Every test here holds for both engines."""


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def plain(function: Callable[..., Any]) -> Callable[..., Any]:
    return jaxtyped(typechecker=beartype)(function)


def accepts(function: Callable[..., Any], *args: Any) -> bool:
    """Whether a call is accepted; any error but those of Python itself counts as a rejection."""
    try:
        function(*args)
    except Exception:  # noqa: BLE001  # jaxtyping and beartype have many
        return False
    return True


def assert_differs(function: Callable[..., Any], good: tuple[Any, ...], bad: tuple[Any, ...]) -> None:
    """A bad call is accepted by the plain decorators and rejected here; the good one is accepted by both."""
    assert accepts(plain(function), *good)
    assert any(accepts(plain(function), *bad) for _ in range(200)), "beartype looks at one random item"
    contract(function)(*good)
    with pytest.raises(ContractError):
        contract(function)(*bad)


def test_every_item_of_a_list_is_checked() -> None:
    def use(images: list[Image]) -> None: ...

    assert_differs(use, ([zeros(3, 4)] * 100,), ([*[zeros(3, 4)] * 99, zeros(4, 3)],))


def test_every_value_of_a_dict_is_checked() -> None:
    def use(images: dict[str, Image]) -> None: ...

    assert_differs(use, ({"a": zeros(3, 4), "b": zeros(3, 4)},), ({"a": zeros(3, 4), "b": zeros(4, 3)},))


class Fields(TypedDict):
    image: Image
    weight: Image


def use_fields(fields: Fields) -> None: ...


def test_the_fields_of_a_typeddict_are_checked() -> None:
    assert_differs(
        use_fields, ({"image": zeros(3, 4), "weight": zeros(3, 4)},), ({"image": zeros(3, 4), "weight": zeros(4, 3)},)
    )


def test_keys_that_a_typeddict_does_not_declare_are_violations() -> None:
    good = {"image": zeros(3, 4), "weight": zeros(3, 4)}
    assert_differs(use_fields, (good,), ({**good, "wieght": zeros(3, 4)},))


class Row(NamedTuple):
    image: Image
    weight: Image


def test_the_fields_of_a_namedtuple_are_checked() -> None:
    def use(row: Row) -> None: ...

    assert_differs(use, (Row(zeros(3, 4), zeros(3, 4)),), (Row(zeros(3, 4), zeros(4, 3)),))


@dataclasses.dataclass
class Record:
    image: Image
    weight: Image


def test_the_fields_of_a_dataclass_are_checked_even_after_they_were_changed() -> None:
    def use(record: Record) -> None: ...

    changed = Record(zeros(3, 4), zeros(3, 4))
    changed.weight = zeros(4, 3)
    assert_differs(use, (Record(zeros(3, 4), zeros(3, 4)),), (changed,))


def test_every_item_that_a_generator_yields_is_checked() -> None:
    def rows(x: Image, good: bool) -> Iterator[Float32[Array, " w"]]:
        yield from x if good else x.T

    assert accepts(lambda: list(plain(rows)(zeros(3, 4), False))), "no item is looked at"
    assert [row.shape for row in contract(rows)(zeros(3, 4), True)] == [(4,)] * 3
    with pytest.raises(ContractError):
        list(contract(rows)(zeros(3, 4), False))


def test_an_int_parameter_named_like_a_dim_is_that_dim() -> None:
    def use(n: int, x: Float32[Array, "n w"]) -> None: ...

    assert_differs(use, (3, zeros(3, 4)), (5, zeros(3, 4)))


def assert_accepts_more(function: Callable[..., Any], good: tuple[Any, ...], bad: tuple[Any, ...]) -> None:
    """A good call is rejected by the plain decorators; here it is accepted, and the bad one is not."""
    assert not accepts(plain(function), *good)
    contract(function)(*good)
    with pytest.raises(ContractError):
        contract(function)(*bad)


def test_a_union_of_layouts_keeps_every_consistent_binding() -> None:
    def use(x: Float32[Array, "b c"] | Float32[Array, "c b"], y: Float32[Array, " b"]) -> None: ...

    assert_accepts_more(use, (zeros(3, 4), zeros(4)), (zeros(3, 4), zeros(5)))


def test_an_expression_may_use_a_dim_that_a_later_argument_binds() -> None:
    def use(x: Float32[Array, " n+1"], y: Float32[Array, " n"]) -> None: ...

    assert_accepts_more(use, (zeros(4), zeros(3)), (zeros(3), zeros(3)))


def test_an_int_is_accepted_where_a_float_is_declared() -> None:
    def use(x: Image, scale: float) -> None: ...

    assert_accepts_more(use, (zeros(3, 4), 2), (zeros(3, 4), "2"))


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")  # the one that was rejected
def test_the_result_of_a_coroutine_is_what_it_returns() -> None:
    async def echo(x: Image, good: bool) -> Image:
        return x if good else x.T

    assert not accepts(lambda: asyncio.run(plain(echo)(zeros(3, 4), True)))
    gc.collect()  # the coroutine that was rejected warns here and not in another test
    assert asyncio.run(contract(echo)(zeros(3, 4), True)).shape == (3, 4)
    with pytest.raises(ContractError):
        asyncio.run(contract(echo)(zeros(3, 4), False))


def test_a_division_by_a_dim_of_size_0_is_a_violation_and_no_crash() -> None:
    def use(x: Float32[Array, "a b a//b"]) -> None: ...

    assert not accepts(plain(use), zeros(4, 0, 2))
    with pytest.raises(ContractError, match="divides by a dim of size 0"):
        contract(use)(zeros(4, 0, 2))
    contract(use)(zeros(4, 2, 2))


# --- refused at definition -----------------------------------------------------------------------------
@pytest.mark.parametrize("axis", ["b>0", "b.c", "(n", "n if"], ids=["comparison", "attribute", "open", "keyword"])
def test_a_malformed_axis_is_an_error_at_definition(axis: str) -> None:
    try:
        annotation = Float32[Array, f"m {axis}"]
    except Exception:  # noqa: BLE001  # jaxtyping refuses some itself
        return

    def use(x: annotation) -> None: ...

    plain(use)
    with pytest.raises(ContractDefinitionError):
        contract(use)


def test_an_expression_with_a_dim_that_nothing_can_bind_is_an_error_at_definition() -> None:
    def use(x: Float32[Array, " n+1"]) -> None: ...

    plain(use)
    with pytest.raises(ContractDefinitionError, match="nothing binds n"):
        contract(use)
