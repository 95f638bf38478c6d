"""Strategies from annotations: what they make satisfies the contract, and what lies beside it breaks it, on both engines."""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, TypedDict

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from jaxtyping import Bool, Complex64, Float, Float32, Int, Int64
from torch import Tensor

from shapecheck import ContractError, check, contract
from shapecheck.testing import calls, invalid_calls, tensors
from shapecheck.values import Finite

few = settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))


class Fields(TypedDict):
    images: Float32[Tensor, "B C N N"]
    offsets: Float32[Tensor, "B C 1 2"]


class Pair(NamedTuple):
    left: Int64[np.ndarray, " n"]
    right: Int64[np.ndarray, " n"]


@dataclasses.dataclass
class Sample:
    image: Float32[Tensor, "h w"]
    label: Int64[Tensor, ""]


def two(x: Float32[Tensor, "n d"], weights: Float32[Tensor, " n"]) -> None: ...
def fixed(x: Float[Tensor, "3 h w"]) -> None: ...
def square(x: Complex64[Tensor, "n n"]) -> None: ...
def numpy(x: Int[np.ndarray, "a b"], y: Bool[np.ndarray, "b a"]) -> None: ...
def several(xs: list[Float32[Tensor, "n 2"]], pair: tuple[Float32[Tensor, " n"], int]) -> None: ...
def batch(fields: Fields, probe: Complex64[Tensor, "B C P N N"]) -> None: ...
def named(pair: Pair, other: Int64[np.ndarray, " n"]) -> None: ...
def optional(x: Float32[Tensor, " n"], y: Float32[Tensor, " n"] | None = None, *, flag: bool = True) -> None: ...
def symbolic(half: Float32[Tensor, "n+1 {count}"], full: Float32[Tensor, " n"], count: int) -> None: ...
def variadic(x: Float32[Tensor, "*batch n"], y: Float32[Tensor, "*batch n"], scale: Float32[Tensor, ""]) -> None: ...
def starred(*xs: Float32[Tensor, "n 2"], by: Float32[Tensor, " n"]) -> None: ...
def mapping(values: dict[str, Float32[Tensor, "n 2"]], n: Float32[Tensor, " n"]) -> None: ...
def refined(x: Annotated[Float32[Tensor, "n 2"], Finite], y: Float32[Tensor, " n"]) -> None: ...
def sample(sample: Sample, mask: Bool[Tensor, "h w"]) -> None: ...


FUNCTIONS = [
    *(two, fixed, square, numpy, several, batch, named, optional),
    *(symbolic, variadic, starred, mapping, refined, sample),
]


@pytest.fixture(params=["compiled", "reference"])
def _engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHAPECHECK_ENGINE", request.param)


@pytest.mark.usefixtures("_engine")
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_calls_are_accepted(function: Callable[..., Any]) -> None:
    checked = contract(function)

    @few
    @given(calls(checked))
    def run(call: Any) -> None:
        checked(*call.args, **call.kwargs)

    run()


@pytest.mark.violation
@pytest.mark.usefixtures("_engine")
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_invalid_calls_are_rejected(function: Callable[..., Any]) -> None:
    checked = contract(function)

    @few
    @given(invalid_calls(checked))
    def run(call: Any) -> None:
        with pytest.raises(ContractError):
            checked(*call.args, **call.kwargs)

    run()


def test_tensors_have_the_shape_and_dtype_of_their_annotation() -> None:
    shapes = set()

    @few
    @given(tensors(Float32[Tensor, "B C 1 2"]))
    def run(value: Tensor) -> None:
        assert value.dtype is torch.float32
        assert value.shape[2:] == (1, 2)
        assert value.isfinite().all()
        shapes.add(value.shape)

    run()
    assert len(shapes) > 5


def test_sizes_can_be_given() -> None:
    @few
    @given(tensors(Float32[Tensor, "*batch C n"], sizes={"C": 4, "batch": (3, 5)}))
    def run(value: Tensor) -> None:
        assert value.shape[:3] == (3, 5, 4)

    run()


def test_a_family_of_dtypes_is_drawn_from() -> None:
    found = set()

    @few
    @given(tensors(Float[Tensor, " n"]))
    def run(value: Tensor) -> None:
        found.add(value.dtype)

    run()
    assert found <= {torch.float16, torch.bfloat16, torch.float32, torch.float64}
    assert len(found) > 1


def test_containers_and_records_are_made_whole() -> None:
    @few
    @given(tensors(tuple[Fields, Sample, Pair]))
    def run(value: Any) -> None:
        fields, sample, pair = value
        assert fields["images"].shape[:2] == fields["offsets"].shape[:2]
        assert isinstance(sample, Sample)
        assert pair.left.shape == pair.right.shape
        check(value, tuple[Fields, Sample, Pair])

    run()


def test_methods_are_called_without_their_object() -> None:
    class Layer:
        @contract
        def forward(self, x: Float32[Tensor, "n 2"]) -> Float32[Tensor, "n 2"]:
            return x

    layer = Layer()

    @few
    @given(calls(layer.forward))
    def run(call: Any) -> None:
        assert layer.forward(*call.args, **call.kwargs).shape[1] == 2

    run()


@pytest.mark.violation
def test_dims_that_are_tied_are_given_as_sizes() -> None:
    @contract(dims={"C": "channels"})
    def tied(x: Float32[Tensor, "B C"], channels: int) -> None: ...

    @few
    @given(calls(tied, sizes={"C": 4}))
    def run(call: Any) -> None:
        tied(call.args[0], 4)
        with pytest.raises(ContractError):
            tied(call.args[0], 5)

    run()


@pytest.mark.violation
def test_an_invalid_record_can_be_made_although_its_own_contract_refuses_it() -> None:
    @contract
    @dataclasses.dataclass
    class Guarded:
        x: Float32[Tensor, "n 2"]

    def use(value: Guarded) -> None: ...

    checked = contract(use)

    @few
    @given(invalid_calls(use))
    def run(call: Any) -> None:
        with pytest.raises(ContractError):
            checked(*call.args, **call.kwargs)

    run()


def nothing(n: int) -> None: ...
def unannotated(x: Float32[Tensor, " n"], y) -> None: ...


def test_what_cannot_be_made_is_an_error_that_says_so() -> None:
    with pytest.raises(ValueError, match="Expected a function with annotated tensors, got nothing"):
        invalid_calls(nothing)

    @few
    @given(calls(unannotated))
    def run(call: Any) -> None:
        raise AssertionError

    with pytest.raises(ValueError, match="Expected 'y' to be annotated, or to have a default"):
        run()
