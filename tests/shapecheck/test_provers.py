"""What crosses apart from the call is proved good without the reference engine, and never rejected by a proof."""

from collections.abc import Callable, Iterator

import pytest
import torch
from jaxtyping import Float32
from outcomes import zeros
from torch import Tensor

from shapecheck import ContractError, contract
from shapecheck._diagnosis import engine as engine_module

pytestmark = pytest.mark.violation

Row = Float32[Tensor, " n"]
Rows = Float32[Tensor, "b n"]


def cut(x: Rows, sizes: list[int], wide: bool = False) -> Iterator[Float32[Tensor, "m n"]]:
    for size in sizes:
        yield x[:size] if not wide else torch.cat([x[:size]] * 2, 1)


def each(x: Rows, f: Callable[[Float32[Tensor, "m n"]], Row] | None, steps: tuple[int, ...] = (1, 2)) -> Rows:
    return torch.stack([f(x[:step]) for step in steps]) if f else x


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of all tensors that the reference engine judges."""
    judge, paths = engine_module.check_tensor, []

    def judge_and_note(spec, value, scope, path):
        paths.append(path)
        return judge(spec, value, scope, path)

    monkeypatch.setattr("shapecheck._diagnosis.engine.check_tensor", judge_and_note)
    return paths


def test_good_items_of_a_generator_do_not_reach_the_reference_engine(asked: list[str]) -> None:
    checked = contract(cut)
    asked.clear()
    assert [len(item) for item in checked(zeros(3, 4), [3, 2])] == [3, 2]
    assert asked == []


def test_good_calls_of_a_callable_argument_do_not_reach_the_reference_engine(asked: list[str]) -> None:
    checked = contract(each)
    asked.clear()
    assert checked(zeros(2, 4), lambda x: x.sum(0)).shape == (2, 4)
    assert checked(zeros(2, 4), None).shape == (2, 4)
    assert asked == []


def test_good_calls_of_a_callable_that_is_kept_do_not_reach_the_reference_engine(asked: list[str]) -> None:
    kept: list[Callable[[Tensor], Tensor]] = []

    @contract
    def keep(x: Rows, f: Callable[[Float32[Tensor, "m n"]], Row]) -> None:
        kept.append(f)

    keep(zeros(2, 4), lambda x: x[0])
    asked.clear()
    assert kept[0](zeros(3, 5)).shape == (5,)
    assert asked == []
    with pytest.raises(ContractError, match="argument 0 of f"):
        kept[0](zeros(3))


def test_the_reference_engine_can_be_made_to_judge_everything(
    asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHAPECHECK_ENGINE", "reference")
    list(contract(cut)(zeros(3, 4), [3]))
    assert asked == ["x", "yield[0]"]


def test_what_is_wrong_is_judged_with_the_dims_that_were_proved() -> None:
    with pytest.raises(ContractError) as caught:
        list(contract(cut)(zeros(3, 4), [3], wide=True))
    assert {binding.dim: binding.source for binding in caught.value.violations[0].bindings} == {"n": "x"}
    with pytest.raises(ContractError) as caught:
        contract(each)(zeros(3, 4), lambda x: x[:, 0])
    assert caught.value.violations[0].parameter == "result of f"


def test_a_body_that_resizes_its_argument_is_judged_by_the_sizes_that_went_in() -> None:
    @contract
    def shrink(x: Rows, good: bool) -> Iterator[Row]:
        width = x.shape[1]
        x.resize_(1, 1)
        yield zeros(width if good else 1)

    assert len(next(shrink(zeros(3, 4), True))) == 4
    with pytest.raises(ContractError, match="n=4"):
        next(shrink(zeros(3, 4), False))


def test_arguments_that_do_not_fit_the_signature_are_refused_by_python() -> None:
    with pytest.raises(TypeError, match=r"cut\(\) missing 1 required positional argument: 'sizes'"):
        next(contract(cut)(zeros(3, 4)))
    with pytest.raises(TypeError, match=r"each\(\) got an unexpected keyword argument 'g'"):
        contract(each)(zeros(3, 4), g=3)


def test_dims_that_no_proof_can_use_are_judged_by_the_reference_engine() -> None:
    @contract
    def spread(x: Float32[Tensor, "*s n"], y: Float32[Tensor, " k"] | None) -> Iterator[Float32[Tensor, "*s k"]]:
        yield x if y is None else x[..., : len(y)]

    assert next(spread(zeros(2, 3, 4), zeros(2))).shape == (2, 3, 2)
    assert next(spread(zeros(2, 3, 4), None)).shape == (2, 3, 4)
    with pytest.raises(ContractError):
        next(spread(zeros(2, 3, 4), zeros(6)))
