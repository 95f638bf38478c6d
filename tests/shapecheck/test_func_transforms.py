"""Tensors that are not plain eager tensors: transforms, tracing, fake, symbolic, meta, nested, subclasses, Parameters."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from jaxtyping import Complex64, Float, Float32
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from shapecheck import ContractError, contract

pytestmark = [
    # forward-mode AD uses what torch itself has deprecated
    pytest.mark.filterwarnings("ignore:`torch.jit.*` is deprecated:DeprecationWarning"),
    # while tracing, sizes are tensors, and the tracer says that comparing them is not recorded: as it should be
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state:UserWarning"),
]


def loss(weights: Float32[Tensor, "m n"], x: Float32[Tensor, " n"]) -> Float32[Tensor, ""]:
    return (weights @ x).square().sum()


def scale(x: Float32[Tensor, "b n"], by: Float32[Tensor, " n"]) -> Float32[Tensor, "b n"]:
    return x * by


@pytest.fixture(autouse=True)
def _engine(engine: str) -> None:
    """Every test here holds for both engines."""


violation = pytest.mark.violation


# --- torch.func ------------------------------------------------------------------------------------
def test_under_vmap_the_contract_sees_one_element_of_the_mapped_axis() -> None:
    checked, weights, batch = contract(loss), torch.rand(4, 3), torch.rand(5, 3)
    torch.testing.assert_close(
        torch.func.vmap(checked, in_dims=(None, 0))(weights, batch), (batch @ weights.T).square().sum(1)
    )


@violation
def test_a_violation_under_vmap_is_one_of_the_mapped_tensor() -> None:
    with pytest.raises(ContractError, match=r"axis 0 is 2, the contract says n=3"):
        torch.func.vmap(contract(loss), in_dims=(None, 0))(torch.rand(4, 3), torch.rand(5, 2))


def test_grad_and_jvp_see_through_a_contract() -> None:
    checked, weights, x = contract(loss), torch.rand(4, 3), torch.rand(3)
    torch.testing.assert_close(torch.func.grad(checked)(weights, x), torch.func.grad(loss)(weights, x))
    primals, tangents = (weights, x), (torch.rand(4, 3), torch.rand(3))
    torch.testing.assert_close(torch.func.jvp(checked, primals, tangents), torch.func.jvp(loss, primals, tangents))
    per_sample = torch.func.vmap(torch.func.grad(checked), in_dims=(None, 0))(weights, torch.rand(5, 3))
    assert per_sample.shape == (5, 4, 3)


@violation
def test_a_violation_under_grad_and_jvp_is_raised() -> None:
    checked, weights, x = contract(loss), torch.rand(4, 3), torch.rand(2)
    for call in (
        lambda: torch.func.grad(checked)(weights, x),
        lambda: torch.func.jvp(checked, (weights, x), (weights, x)),
    ):
        with pytest.raises(ContractError, match="parameter 'x'"):
            call()


def make_linear() -> nn.Module:
    @contract
    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.rand(4, 3))

        def forward(self, x: Float32[Tensor, "b n"]) -> Float32[Tensor, "b m"]:
            return contract(apply)(self.weight, x)

    return Linear()


def apply(weight: Float32[Tensor, "m n"], x: Float32[Tensor, "b n"]) -> Float32[Tensor, "b m"]:
    return x @ weight.T


def test_functional_call_and_ensembles_keep_the_contract() -> None:
    model, x = make_linear(), torch.rand(5, 3)
    other = {"weight": torch.rand(4, 3)}
    torch.testing.assert_close(torch.func.functional_call(model, other, (x,)), x @ other["weight"].T)
    stacked = {"weight": torch.rand(2, 4, 3)}
    results = torch.func.vmap(lambda weights: torch.func.functional_call(model, weights, (x,)))(stacked)
    assert results.shape == (2, 5, 4)


@violation
def test_functional_call_with_parameters_of_another_shape_is_a_violation() -> None:
    with pytest.raises(ContractError, match="apply"):
        torch.func.functional_call(make_linear(), {"weight": torch.rand(4, 2)}, (torch.rand(5, 3),))


# --- torch.jit.trace ---------------------------------------------------------------------------------
def test_a_traced_function_is_checked_with_the_example_and_carries_no_checks() -> None:
    checked = contract(scale)
    traced = torch.jit.trace(checked, (torch.rand(5, 3), torch.rand(3)))
    assert [node.kind() for node in traced.graph.nodes()] == ["aten::mul"]
    x, by = torch.rand(7, 4), torch.rand(4)
    torch.testing.assert_close(traced(x, by), x * by)


@violation
def test_a_violation_while_tracing_is_raised() -> None:
    with pytest.raises(ContractError, match="parameter 'by'"):
        torch.jit.trace(contract(scale), (torch.rand(5, 3), torch.rand(2)))


# --- tensors without data ------------------------------------------------------------------------------
def test_meta_tensors_are_checked_like_others() -> None:
    result = contract(scale)(torch.rand(5, 3, device="meta"), torch.rand(3, device="meta"))
    assert result.shape == (5, 3)


@violation
def test_a_violation_on_meta_tensors_is_raised_and_named() -> None:
    with pytest.raises(ContractError, match=r"f32\[2\] meta"):
        contract(scale)(torch.rand(5, 3, device="meta"), torch.rand(2, device="meta"))


def make_fakes(*shapes: tuple[int, ...], symbolic: bool) -> tuple[FakeTensorMode, list[Tensor]]:
    mode = FakeTensorMode(shape_env=ShapeEnv() if symbolic else None)
    return mode, [mode.from_tensor(torch.rand(shape), static_shapes=not symbolic) for shape in shapes]


@pytest.mark.parametrize("symbolic", [False, True])
def test_fake_tensors_are_checked_like_others(symbolic: bool) -> None:
    mode, (x, by) = make_fakes((5, 3), (3,), symbolic=symbolic)
    with mode:
        assert tuple(contract(scale)(x, by).shape) == (5, 3)


@violation
@pytest.mark.parametrize("symbolic", [False, True])
def test_a_violation_on_fake_tensors_is_raised(symbolic: bool) -> None:
    mode, (x, by) = make_fakes((5, 3), (2,), symbolic=symbolic)
    with mode, pytest.raises(ContractError, match="parameter 'by'"):
        contract(scale)(x, by)


def test_an_int_parameter_may_be_a_symbolic_size() -> None:
    @contract
    def crop(x: Float32[Tensor, "b n"], size: torch.SymInt | int) -> Float32[Tensor, "b m"]:
        return x[:, :size]

    mode, (x,) = make_fakes((5, 3), symbolic=True)
    with mode:
        assert crop(x, x.shape[1]).shape[0] == 5
    assert crop(torch.rand(5, 3), 2).shape == (5, 2)


# --- tensors of other classes ----------------------------------------------------------------------------
def test_parameters_and_buffers_are_tensors() -> None:
    x = torch.rand(5, 3)
    for by in (nn.Parameter(torch.rand(3)), nn.Buffer(torch.rand(3))):
        torch.testing.assert_close(contract(scale)(x, by), x * by)


@violation
def test_an_annotation_may_ask_for_a_parameter() -> None:
    @contract
    def decay(weight: Float32[nn.Parameter, " n"]) -> Float32[Tensor, " n"]:
        return weight * 0.5

    assert decay(nn.Parameter(torch.rand(3))).shape == (3,)
    with pytest.raises(ContractError, match="Parameter"):
        decay(torch.rand(3))


class Tagged(Tensor):
    """A subclass without rules of its own."""


class Wrapped(Tensor):
    """A wrapper subclass: operations go through ``__torch_dispatch__``."""

    @staticmethod
    def __new__(cls, inner: Tensor) -> "Wrapped":  # noqa: PYI034  # what it makes is exactly that
        return Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)  # noqa: SLF001  # documented name

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        del types
        return func(*(arg.inner if isinstance(arg, Wrapped) else arg for arg in args), **(kwargs or {}))


def test_subclasses_are_tensors() -> None:
    x, by = torch.rand(5, 3), torch.rand(3)
    assert isinstance(contract(scale)(x.as_subclass(Tagged), by), Tagged)
    torch.testing.assert_close(contract(scale)(Wrapped(x), by), x * by)


@violation
@pytest.mark.parametrize(
    "make", [lambda x: x.as_subclass(Tagged), Wrapped, nn.Parameter], ids=["subclass", "wrapper", "parameter"]
)
def test_violations_of_subclasses_are_raised(make: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(ContractError, match="parameter 'by'"):
        contract(scale)(torch.rand(5, 3), make(torch.rand(2)))


class Duck:
    """Looks like a tensor, and is none."""

    dtype, shape, ndim = torch.float32, torch.Size((3,)), 1


@violation
def test_what_only_looks_like_a_tensor_is_a_violation() -> None:
    with pytest.raises(ContractError, match="contract says torch"):
        contract(scale)(torch.rand(5, 3), Duck())


# --- nested, sparse and lazy layouts -------------------------------------------------------------------
def make_jagged(width: int = 3) -> Tensor:
    return torch.nested.nested_tensor([torch.rand(2, width), torch.rand(5, width)], layout=torch.jagged)


def pool(x: Float32[Tensor, "b ragged n"], by: Float32[Tensor, " n"]) -> Float32[Tensor, "b ragged n"]:
    return x * by


def test_the_ragged_axis_of_a_jagged_tensor_is_a_dim_like_any_other() -> None:
    jagged = make_jagged()
    result = contract(pool)(jagged, torch.ones(3))
    assert [tuple(row.shape) for row in result.unbind()] == [(2, 3), (5, 3)]


@violation
def test_a_regular_axis_of_a_jagged_tensor_is_compared() -> None:
    with pytest.raises(ContractError, match="parameter 'by'"):
        contract(pool)(make_jagged(), torch.ones(4))


@violation
def test_two_jagged_tensors_agree_only_if_their_offsets_are_the_same_object() -> None:
    @contract
    def add(x: Float32[Tensor, "b ragged n"], y: Float32[Tensor, "b ragged n"]) -> Float32[Tensor, "b ragged n"]:
        return x + y

    jagged = make_jagged()
    assert add(jagged, jagged * 2).shape == jagged.shape
    with pytest.raises(ContractError):
        add(jagged, make_jagged())


def test_sparse_and_conjugate_tensors_have_the_shape_they_show() -> None:
    @contract
    def keep(x: Float[Tensor, "b n"] | Complex64[Tensor, "b n"]) -> Float[Tensor, "b n"] | Complex64[Tensor, "b n"]:
        return x

    dense = torch.eye(3)
    for x in (dense.to_sparse(), dense.to_sparse_csr(), dense.to(torch.complex64).conj()):
        assert keep(x) is x
