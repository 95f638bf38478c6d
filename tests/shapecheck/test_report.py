"""The wording: one golden text per diagnosis, the same on every machine."""

import inspect
import json
import pickle
from typing import Any, TypedDict

import numpy as np
import pytest
import torch
from jaxtyping import Complex64, Float32
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from shapecheck import ContractError, contract

pytestmark = pytest.mark.violation


class Fields(TypedDict):
    images: Float32[Tensor, "B N N"]
    positions: Float32[Tensor, "B 2"]


@contract
def shift(img: Float32[Tensor, "n h w"], offset: Float32[Tensor, "n 1 2"]) -> Float32[Tensor, "n 1 h w"]:
    """Stand in for a translation."""
    return img[:, None] + 0 * offset.sum()


@contract
def merge(
    fields: Fields, probe: Complex64[Tensor, "N N"], pair: tuple[int, int] = (0, 0), key: str | None = None
) -> Float32[Tensor, " B"]:
    """Stand in for a merge."""
    del probe, pair, key
    return fields["images"].mean((1, 2))


def make_fields(**changes: Any) -> Any:
    return {"images": torch.zeros(3, 8, 8), "positions": torch.zeros(3, 2), **changes}


PROBE = torch.zeros(8, 8, dtype=torch.complex64)

GOLDEN = {
    "axis-order": (
        lambda: shift(torch.zeros(4, 5, 6), torch.zeros(4, 2, 1)),
        """ContractError [axis-order]: {here}.shift, parameter 'offset'
  expected   Float32[Tensor, "n 1 2"]
  got        f32[4,2,1]
  because    axis 1 is 2, the contract says 1; axis 2 is 1, the contract says 2
  bindings   n=4 (from 'img', axis 0)
  hint       the axes look permuted: offset.permute(0, 2, 1) satisfies the contract""",
    ),
    "axis-size": (
        lambda: shift(torch.zeros(4, 5, 6), torch.zeros(3, 1, 2)),
        """ContractError [axis-size]: {here}.shift, parameter 'offset'
  expected   Float32[Tensor, "n 1 2"]
  got        f32[3,1,2]
  because    axis 0 is 3, the contract says n=4 (from 'img', axis 0)
  bindings   n=4 (from 'img', axis 0)""",
    ),
    "ndim": (
        lambda: shift(torch.zeros(4, 5, 6), torch.zeros(4, 2)),
        """ContractError [ndim]: {here}.shift, parameter 'offset'
  expected   Float32[Tensor, "n 1 2"]
  got        f32[4,2]
  because    it has 2 axes, the contract says 3
  bindings   n=4 (from 'img', axis 0)""",
    ),
    "dtype": (
        lambda: shift(torch.zeros(4, 5, 6), torch.zeros(4, 1, 2, dtype=torch.float64)),
        """ContractError [dtype]: {here}.shift, parameter 'offset'
  expected   Float32[Tensor, "n 1 2"]
  got        f64[4,1,2]
  because    its dtype is float64, the contract says Float32
  bindings   n=4 (from 'img', axis 0)""",
    ),
    "type": (
        lambda: shift(torch.zeros(4, 5, 6), np.zeros((4, 1, 2), np.float32)),
        """ContractError [type]: {here}.shift, parameter 'offset'
  expected   Float32[Tensor, "n 1 2"]
  got        f32[4,1,2] (numpy)
  because    it is a numpy.ndarray, the contract says torch.Tensor
  bindings   n=4 (from 'img', axis 0)""",
    ),
    "missing-key": (
        lambda: merge({"image": torch.zeros(3, 8, 8), "positions": torch.zeros(3, 2)}, PROBE),
        """ContractError [missing-key]: {here}.merge, parameter 'fields'
  expected   Fields
  got        dict of 2
  because    key 'images' is missing (found: 'image'); key 'image' is not in the contract (close: 'images')""",
    ),
    "extra-key": (
        lambda: merge(make_fields(weight=1), PROBE),
        """ContractError [extra-key]: {here}.merge, parameter 'fields'
  expected   Fields
  got        dict of 3
  because    key 'weight' is not in the contract""",
    ),
    "length": (
        lambda: merge(make_fields(), PROBE, (1, 2, 3)),
        """ContractError [length]: {here}.merge, parameter 'pair'
  expected   tuple[int, int]
  got        tuple of 3
  because    it has 3 items, the contract says 2""",
    ),
    "no-alternative": (
        lambda: merge(make_fields(), PROBE, key=7),
        """ContractError [no-alternative]: {here}.merge, parameter 'key'
  expected   str | None
  got        7
  because    7 fits none of str | None""",
    ),
    "two violations": (
        lambda: merge(make_fields(positions=torch.zeros(3), images=torch.zeros(3, 8, 9)), PROBE),
        """ContractError [axis-size]: {here}.merge, parameter "fields['images']" (and 1 more)
  expected   Float32[Tensor, "B N N"]
  got        f32[3,8,9]
  because    axis 2 is 9, the contract says N=8 (from 'probe', axis 0)
  bindings   N=8 (from 'probe', axis 0)
  also [ndim]: parameter "fields['positions']"
  expected   Float32[Tensor, "B 2"]
  got        f32[3]
  because    it has 1 axis, the contract says 2""",
    ),
}


FIRST_LINES = {function: inspect.unwrap(function).__code__.co_firstlineno for function in (shift, merge)}


@pytest.mark.parametrize("name", list(GOLDEN))
def test_the_text_of_each_diagnosis(name: str) -> None:
    call, golden = GOLDEN[name]
    with pytest.raises(ContractError) as caught:
        call()
    text, _, places = str(caught.value).rpartition("\n")
    assert text == golden.replace("{here}", __name__)
    here, function = "tests/shapecheck/test_report.py", shift if ".shift," in text else merge
    called = call.__code__.co_firstlineno
    assert places == f"  defined    {here}:{FIRST_LINES[function]}     called {here}:{called}"


def test_the_id_of_a_violation_is_the_name_of_its_diagnosis() -> None:
    for name in GOLDEN.keys() - {"two violations"}:
        with pytest.raises(ContractError) as caught:
            GOLDEN[name][0]()
        assert [violation.id for violation in caught.value.violations] == [name]


def test_the_same_failure_has_the_same_text() -> None:
    texts = set()
    for _ in range(3):
        with pytest.raises(ContractError) as caught:
            GOLDEN["axis-order"][0]()
        texts.add(str(caught.value))
    assert len(texts) == 1


def test_several_axis_orders_are_all_named() -> None:
    @contract
    def f(x: Float32[Tensor, "B C 1 2"], like: Float32[Tensor, "B C"]) -> None:
        del x, like

    f(torch.zeros(3, 2, 1, 2), torch.zeros(3, 2))
    with pytest.raises(ContractError) as caught:
        f(torch.zeros(3, 1, 2, 2), torch.zeros(3, 2))
    assert caught.value.violations[0].hint.code == ("x.permute(0, 3, 1, 2)", "x.permute(0, 2, 1, 3)")


def test_a_permutation_that_would_break_another_parameter_is_not_suggested() -> None:
    @contract
    def f(x: Float32[Tensor, "h w"], y: Float32[Tensor, "w h"], z: Float32[Tensor, " h"]) -> None:
        del x, y, z

    f(torch.zeros(3, 4), torch.zeros(4, 3), torch.zeros(3))
    with pytest.raises(ContractError) as caught:
        f(torch.zeros(3, 4), torch.zeros(4, 3), torch.zeros(5))
    assert caught.value.violations[0].hint is None


def test_meta_tensors_are_described_without_touching_their_values() -> None:
    with pytest.raises(ContractError, match=r"f32\[4,2,1\] meta"):
        shift(torch.zeros(4, 5, 6, device="meta"), torch.zeros(4, 2, 1, device="meta"))


# --- the error as an object ------------------------------------------------------------------------
def make_error() -> ContractError:
    with pytest.raises(ContractError) as caught:
        GOLDEN["axis-order"][0]()
    return caught.value


def test_an_error_survives_pickling_with_its_data() -> None:
    error = make_error()
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is ContractError
    assert (str(copy), copy.violations) == (str(error), error.violations)


def test_an_error_can_be_built_from_its_text_alone() -> None:
    assert str(ContractError("text")) == "text"
    assert ContractError("text").violations == ()
    assert issubclass(ContractError, TypeError)


def test_a_violation_is_data_that_json_can_hold() -> None:
    (violation,) = make_error().violations
    data = json.loads(json.dumps(violation.to_dict()))
    assert data["id"] == "axis-order"
    assert data["bindings"] == [{"dim": "n", "size": 4, "source": "img", "axis": 0}]


class BrokenDataset(Dataset[Tensor]):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Tensor:
        return shift(torch.zeros(4, 5, 6), torch.zeros(4, 2, 1))


def test_the_text_survives_a_dataloader_worker() -> None:
    with pytest.raises(ContractError) as caught:
        next(iter(DataLoader(BrokenDataset(), num_workers=1)))
    assert "offset.permute(0, 2, 1) satisfies the contract" in str(caught.value)
