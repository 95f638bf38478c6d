"""`@contract` on callables and modules: what is accepted, what is refused, and what is left alone."""

import asyncio
import dataclasses
import functools
import inspect
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from jaxtyping import Complex64, Float, Float32, Int64
from outcomes import violation_of
from torch import Tensor, nn

from shapecheck import ContractDefinitionError, ContractError, contract

pytestmark = pytest.mark.violation

Images = Float32[Tensor, "B C h w"]


@contract
def weigh(images: Images, weights: Float32[Tensor, "B C"], scale: float = 1.0) -> Float32[Tensor, "B h w"]:
    """Sum the channels of images, weighted."""
    return scale * torch.einsum("bchw,bc->bhw", images, weights)


def make_images(B: int = 3, C: int = 4, h: int = 5, w: int = 6) -> Tensor:
    return torch.zeros(B, C, h, w)


def test_a_call_that_keeps_the_contract_returns_what_the_function_returns() -> None:
    images, weights = torch.rand(3, 4, 5, 6), torch.rand(3, 4)
    expected = sum(images[:, channel] * weights[:, channel, None, None] for channel in range(4))
    torch.testing.assert_close(weigh(images, weights), expected)


@pytest.mark.parametrize("shape", [(3, 5), (4, 4), (3, 4, 1), (4, 3)])
def test_a_dim_has_one_size_in_all_parameters(shape: tuple[int, ...]) -> None:
    violation = violation_of(lambda: weigh(make_images(), torch.zeros(shape)))
    assert violation.parameter == "weights"
    assert {binding.dim: binding.size for binding in violation.bindings} == {"B": 3, "C": 4}


def test_dims_are_forgotten_between_calls() -> None:
    assert weigh(make_images(B=3), torch.zeros(3, 4)).shape == (3, 5, 6)
    assert weigh(make_images(B=2), torch.zeros(2, 4)).shape == (2, 5, 6)


def test_keyword_arguments_are_checked_like_positional_ones() -> None:
    assert weigh(weights=torch.zeros(3, 4), images=make_images()).shape == (3, 5, 6)
    assert violation_of(lambda: weigh(weights=torch.zeros(3, 5), images=make_images())).parameter == "weights"


def test_the_result_is_checked_in_the_scope_of_the_arguments() -> None:
    @contract
    def transpose(image: Float32[Tensor, "h w"], *, right: bool) -> Float32[Tensor, "w h"]:
        return image.T if right else image

    assert transpose(torch.zeros(5, 6), right=True).shape == (6, 5)
    violation = violation_of(lambda: transpose(torch.zeros(5, 6), right=False))
    assert violation.parameter == "return"
    assert violation.id == "axis-order"


def test_dtypes_are_exact_or_a_family_as_annotated() -> None:
    @contract
    def mix(exact: Float32[Tensor, " n"], family: Float[Tensor, " n"]) -> None:
        del exact, family

    mix(torch.zeros(3), torch.zeros(3, dtype=torch.float64))
    assert violation_of(lambda: mix(torch.zeros(3, dtype=torch.float64), torch.zeros(3))).id == "dtype"
    assert violation_of(lambda: mix(torch.zeros(3), torch.zeros(3, dtype=torch.int64))).id == "dtype"


def test_numpy_arrays_are_checked_and_not_taken_for_tensors() -> None:
    @contract
    def count(scan: Float32[np.ndarray, "S N N"], members: Int64[np.ndarray, "G C"]) -> int:
        return len(scan) + len(members)

    members = np.zeros((2, 4), dtype=np.int64)
    assert count(np.zeros((7, 8, 8), np.float32), members) == 9
    assert violation_of(lambda: count(np.zeros((7, 8, 9), np.float32), members)).id == "axis-size"
    assert violation_of(lambda: count(torch.zeros(7, 8, 8), members)).id == "library"


def test_parameters_without_tensors_are_beartypes() -> None:
    assert violation_of(lambda: weigh(make_images(), torch.zeros(3, 4), scale="2")).parameter == "scale"
    weigh(make_images(), torch.zeros(3, 4), scale=2)  # an int is a float to every static checker


def test_every_item_of_star_arguments_is_checked() -> None:
    @contract
    def stack(*images: Float32[Tensor, "h w"], **named: Float32[Tensor, "h w"]) -> Float32[Tensor, "n h w"]:
        return torch.stack([*images, *named.values()])

    assert stack(*[torch.zeros(5, 6)] * 3, last=torch.zeros(5, 6)).shape == (4, 5, 6)
    assert violation_of(lambda: stack(torch.zeros(5, 6), torch.zeros(5, 7))).parameter == "images[1]"
    assert violation_of(lambda: stack(torch.zeros(5, 6), last=torch.zeros(6, 6))).parameter == "named['last']"


def test_a_default_value_is_checked_with_the_other_arguments_when_it_is_used() -> None:
    @contract
    def shift(image: Float32[Tensor, "h n"], by: Float32[Tensor, " n"] = torch.zeros(2)) -> None:  # noqa: B008
        del image, by

    shift(torch.zeros(5, 6), torch.zeros(6))
    shift(torch.zeros(5, 2))
    assert violation_of(lambda: shift(torch.zeros(5, 6))).parameter == "by"


def test_a_call_that_python_refuses_is_refused_by_python() -> None:
    with pytest.raises(TypeError, match=r"missing 1 required positional argument: 'weights'") as caught:
        weigh(make_images())
    assert not isinstance(caught.value, ContractError)


def test_an_exception_in_the_body_passes_through_and_leaves_nothing_behind() -> None:
    @contract
    def fail(image: Float32[Tensor, "h w"]) -> Float32[Tensor, "h w"]:
        raise RuntimeError(tuple(image.shape))

    for shape in [(5, 6), (7, 8)]:
        with pytest.raises(RuntimeError, match=str(shape[0])):
            fail(torch.zeros(shape))


def test_calls_nest_with_dims_of_their_own() -> None:
    @contract
    def halve(x: Float32[Tensor, " n"]) -> Float32[Tensor, " m"]:
        return halve(x[: len(x) // 2]) if len(x) > 1 else x

    assert halve(torch.zeros(8)).shape == (1,)


@contract
class Layer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Float32[Tensor, "B {self.width}"]) -> Float32[Tensor, "B 2*{self.width}"]:
        return torch.cat([x, x], dim=1)


def test_a_module_class_has_the_contract_of_its_forward() -> None:
    layer = Layer(5)
    assert layer(torch.zeros(3, 5)).shape == (3, 10)
    violation = violation_of(lambda: layer(torch.zeros(3, 4)))
    assert violation.mismatches[0].expected == "{self.width}=5"
    assert violation.called.file.endswith("test_contract.py"), "the frames of nn.Module are no call site"


def test_methods_of_every_kind_are_checked() -> None:
    class Scaler:
        @contract
        def plain(self, x: Float32[Tensor, " n"]) -> Float32[Tensor, " n"]:
            return x

        @contract
        @classmethod
        def of_class(cls, x: Float32[Tensor, " n"]) -> Float32[Tensor, " n"]:
            return x

        @staticmethod
        @contract
        def of_none(x: Float32[Tensor, " n"]) -> Float32[Tensor, " n"]:
            return x

    for method in (Scaler().plain, Scaler.of_class, Scaler.of_none, Scaler().of_none):
        assert method(torch.zeros(3)).shape == (3,)
        assert violation_of(functools.partial(method, torch.zeros(3, 1))).id == "extra-axis"


def test_coroutines_are_checked_and_do_not_share_dims() -> None:
    @contract
    async def echo(x: Float32[Tensor, " n"], *, keep: bool = True) -> Float32[Tensor, " n"]:
        await asyncio.sleep(0)
        return x if keep else x[1:]

    async def both() -> list[Tensor]:
        return await asyncio.gather(*(echo(torch.zeros(size)) for size in (3, 4, 5)))

    assert inspect.iscoroutinefunction(echo)
    assert [len(x) for x in asyncio.run(both())] == [3, 4, 5]
    assert violation_of(lambda: asyncio.run(echo(torch.zeros(3), keep=False))).parameter == "return"


# --- dims tied to a configuration ----------------------------------------------------------------
@contract(dims={"C": "config.gridsize ** 2", "N": "config.N"})
def group(config: SimpleNamespace, patches: Complex64[Tensor, "B C N N"]) -> Complex64[Tensor, "B N N"]:
    """Average the patches of a group."""
    del config
    return patches.mean(1)


def test_a_tied_dim_must_have_the_configured_size_even_if_all_tensors_agree() -> None:
    config = SimpleNamespace(gridsize=2, N=16)
    assert group(config, torch.zeros(3, 4, 16, 16, dtype=torch.complex64)).shape == (3, 16, 16)
    violation = violation_of(lambda: group(config, torch.zeros(3, 1, 16, 16, dtype=torch.complex64)))
    assert violation.mismatches[0].expected == "C=4"
    assert violation.mismatches[0].binding.source == "config.gridsize ** 2"


@dataclasses.dataclass
class Config:
    N: int


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("is_tied", [True, False], ids=["tied", "in braces"])
@pytest.mark.parametrize("expression", ["config.N", "config.sides[0]"])
def test_an_argument_of_another_kind_is_blamed_and_not_the_expression_that_uses_it(
    is_tied: bool, expression: str
) -> None:
    axis = "N" if is_tied else f"{{{expression}}}"

    @contract(dims={"N": expression} if is_tied else {})
    def use(x: Float32[Tensor, f"B {axis}"], config: Config) -> None:
        del x, config

    for wrong in (None, "16", torch.zeros(3)):
        violation = violation_of(lambda wrong=wrong: use(torch.zeros(2, 16), wrong))
        assert (violation.parameter, violation.expected) == ("config", "Config")
    if expression == "config.N":
        use(torch.zeros(2, 16), Config(16))
        assert violation_of(lambda: use(torch.zeros(2, 15), Config(16))).parameter == "x"
    else:  # the argument is right: what is left is a mistake of the contract's author
        with pytest.raises((AttributeError, TypeError) if is_tied else ContractDefinitionError):
            use(torch.zeros(2, 16), Config(16))


@pytest.mark.parametrize(
    ("ties", "message"),
    [
        ({"D": "config.N"}, "'D' is tied to 'config.N' but no annotation uses it"),
        ({"C": "settings.C"}, "settings in 'settings.C', to which dim 'C' is tied, is not an argument"),
        ({"C": "config.."}, "Expected the size of dim 'C' to be a Python expression, got 'config..'"),
    ],
    ids=["unused dim", "unknown name", "no expression"],
)
def test_a_tie_that_cannot_hold_is_refused_at_definition(ties: dict[str, str], message: str) -> None:
    def function(config: SimpleNamespace, x: Float32[Tensor, " C"]) -> None:
        del config, x

    with pytest.raises(ContractDefinitionError) as caught:
        contract(dims=ties)(function)
    assert message in str(caught.value)
    contract(dims={"C": "config.C"})(function)(SimpleNamespace(C=3), torch.zeros(3))


# --- what cannot mean anything is refused where it is defined --------------------------------------
def test_annotations_that_are_strings_are_resolved_with_local_names() -> None:
    Local = Float32[Tensor, "h w"]

    @contract
    def f(x: "Local") -> "Local":  # noqa: F821  # ruff does not see that strings use local names
        return x

    assert f(torch.zeros(5, 6)).shape == (5, 6)
    assert violation_of(lambda: f(torch.zeros(5))).id == "missing-axis"
    del Local


def unannotated(x):
    return x


def unresolvable(x: "Missing") -> None:  # noqa: F821
    del x


class Undecorated:
    x: Float32[Tensor, " n"]


class Silent(nn.Module):
    pass


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (unannotated, "unannotated has no annotations: there is nothing to check"),
        (unresolvable, "The annotation 'Missing' of 'x' of unresolvable cannot be resolved: name 'Missing'"),
        (Undecorated, "Put @contract above @dataclass, or on the methods"),
        (Silent, "Expected Silent to define forward"),
        (3, "Expected a function, a method or a class, got 3"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_target_without_a_checkable_contract_is_refused(target: object, message: str) -> None:
    with pytest.raises(ContractDefinitionError) as caught:
        contract(target)
    assert message in str(caught.value)


# --- what users may rely on ----------------------------------------------------------------------
def test_introspection_stays_right() -> None:
    assert weigh.__name__ == "weigh"
    assert weigh.__doc__ == "Sum the channels of images, weighted."
    assert list(inspect.signature(weigh).parameters) == ["images", "weights", "scale"]
    assert pickle.loads(pickle.dumps(weigh)) is weigh


def test_the_callers_frame_is_the_last_one_that_pytest_shows() -> None:
    with pytest.raises(ContractError) as caught:
        weigh(make_images(), torch.zeros(3, 5))
    shown = [entry for entry in caught.traceback if "__tracebackhide__" not in entry.frame.f_locals]
    assert [entry.name for entry in shown] == ["test_the_callers_frame_is_the_last_one_that_pytest_shows"]
    assert len(caught.traceback) <= 3
