"""What a specification means, whether shapes fit it and why not, and what has changed between two of them."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch
from jaxtyping import Shaped
from torch import Tensor

from shapecheck import ContractDefinitionError, ContractError, check
from shapecheck.audit import explain, explain_change
from shapecheck.cli import main

SOURCE = """
from jaxtyping import Float32
from torch import Tensor, nn
from shapecheck import contract

@contract
def old(image: Float32[Tensor, "B C H W"], n: int = 3) -> Float32[Tensor, "B H W"]: ...

@contract
def new(image: Float32[Tensor, "B H W C"], n: int = 3) -> Float32[Tensor, "B H W"]: ...

def bare(image: Float32[Tensor, "B H W C"]): ...

@contract
class Net(nn.Module):
    def forward(self, image: Float32[Tensor, "B C H W"]) -> Float32[Tensor, "B C"]: ...
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "explained_module.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "explained_module"
    sys.modules.pop("explained_module", None)


# --- in words -------------------------------------------------------------------------------------------
def test_every_sort_of_axis_is_said_in_words() -> None:
    *meanings, example, _ = str(explain("x: *batch h _ 3, y: *batch h//2 #h, z: ... 2*h, w: *#r #1")).splitlines()
    assert meanings == [
        "x: *batch h _ 3",
        "  *batch  any number of axes, also none, the same as those of *batch elsewhere in the call",
        "  h       any size, the same wherever h stands in one call",
        "  _       any size, compared with nothing",
        "  3       exactly 3",
        "y: *batch h//2 #h",
        "  *batch  any number of axes, also none, the same as those of *batch elsewhere in the call",
        "  h//2    the size that h//2 gives, from h",
        "  #h      1, or any size, the same wherever h stands in one call",
        "z: ... 2*h",
        "  ...  any number of axes of any sizes, also none",
        "  2*h  the size that 2*h gives, from h",
        "w: *#r #1",
        "  *#r  any number of axes, also none, that broadcast with those of *r elsewhere in the call",
        "  #1   1, or exactly 1",
    ]
    assert example.startswith("fits, for example: ")


def test_the_example_that_is_given_fits() -> None:
    example = str(explain("x: n d, y: n d//2 *r")).splitlines()[-2].removeprefix("fits, for example: ").split()
    shapes = [tuple(map(int, shape.split(","))) for shape in example]
    assert explain("x: n d, y: n d//2 *r", *shapes).fits


def test_a_specification_is_told_how_many_wrong_orders_it_notices() -> None:
    assert str(explain("B C 1 2")).splitlines()[-1] == "notices 22 of 23 wrong orders of axes, when all sizes differ"
    assert str(explain("n h w")).splitlines()[-1].startswith("notices 0 of 5 ")
    assert str(explain("")).splitlines() == ['""', "  no axes: one number", "fits, for example: ()"]


# --- shapes ---------------------------------------------------------------------------------------------
def test_shapes_that_fit_are_shown_axis_by_axis() -> None:
    explanation = explain("B C 1 2", (4, 3, 1, 2))
    assert explanation.fits
    assert str(explanation).splitlines() == [
        'x: 4,3,1,2 fits "B C 1 2"',
        "  axis  dim  expected  got",
        "  0     B    any       4",
        "  1     C    any       3",
        "  2     1    1         1",
        "  3     2    2         2",
    ]


def test_shapes_that_do_not_fit_say_which_axes_are_wrong_and_which_orders_fit() -> None:
    explanation = explain("B C 1 2", (4, 1, 2, 1))
    assert not explanation.fits
    assert str(explanation).splitlines() == [
        'x: 4,1,2,1 does not fit "B C 1 2"',
        "  axis  dim  expected  got",
        "  0     B    any       4",
        "  1     C    any       1",
        "  2     1    1         2    wrong",
        "  3     2    2         1    wrong",
        "  because    axis 2 is 2, the contract says 1; axis 3 is 1, the contract says 2",
        (
            "  hint       the axes look permuted, 2 orders satisfy the contract: "
            "x.permute(0, 3, 1, 2), x.permute(1, 0, 3, 2)"
        ),
    ]


@pytest.mark.violation  # `check` has nothing to say when it is off
def test_what_is_said_of_shapes_is_what_a_contract_says(subtests: pytest.Subtests) -> None:
    for spec, shape in {"B C 1 2": (4, 1, 2, 1), "b 3 h w": (2, 5, 6, 3), "n n": (3, 4), "h w": (2, 3, 4)}.items():
        with subtests.test(spec):
            with pytest.raises(ContractError) as caught:
                check(torch.empty(shape, device="meta"), Shaped[Tensor, spec], "x")
            said = [line for line in str(caught.value).splitlines() if line.split()[0] in {"because", "hint"}]
            assert said
            assert str(explain(spec, shape)).splitlines()[-len(said) :] == said


def test_tensors_of_one_call_share_their_dims() -> None:
    assert explain("img: B C H W, mask: B H W", (4, 3, 8, 9), (4, 8, 9)).fits
    explanation = explain("img: B C H W, mask: B H W", (4, 3, 8, 9), (4, 9, 8))
    assert not explanation.fits
    lines = str(explanation).splitlines()
    assert lines[0] == 'img: 4,3,8,9 fits "B C H W"'
    assert "  1     H    8         9    wrong" in lines
    assert lines[-1] == "  hint       the axes look permuted: mask.permute(0, 2, 1) satisfies the contract"


def test_sizes_may_be_given() -> None:
    assert not explain("B C 1 2", (4, 3, 1, 2), dims={"C": 4}).fits
    assert "C=4 (tied to dims['C'])" in str(explain("B C 1 2", (4, 3, 1, 2), dims={"C": 4}))
    assert explain("B C 1 2", (4, 3, 1, 2), dims={"C": 3}).fits


def test_another_number_of_axes_is_explained_without_a_table() -> None:
    assert str(explain("B C 1 2", (4, 3, 2), dims={"C": 3})).splitlines() == [
        'x: 4,3,2 does not fit "B C 1 2"',
        "  because    it has 3 axes, not 4: axis 2 is missing",
        "  bindings   C=3 (tied to dims['C'])",
        "  hint       an axis of size 1 is missing: x.unsqueeze(2) satisfies the contract",
    ]


def test_shapes_of_any_size_need_no_memory() -> None:
    assert explain("n k", (10**9, 10**6)).fits


@pytest.mark.parametrize("spec", ["n // 2", "*a *b", "a: b, a: c", "a: b, c", "b>0", "x: n, y: 2*m"])
def test_what_makes_no_sense_is_refused_with_the_reason(spec: str) -> None:
    with pytest.raises(ContractDefinitionError, match=r"Malformed|Expected|nothing binds m"):
        explain(spec)


def test_more_or_fewer_shapes_than_tensors_are_refused() -> None:
    with pytest.raises(ContractDefinitionError, match="Expected a shape for each of a, b, got 1"):
        explain("a: n, b: n", (3,))


# --- differences ----------------------------------------------------------------------------------------
def test_axes_in_another_order_are_said_to_be_that() -> None:
    explanation = explain_change("img: B C H W, mask: B H W", "img: B H W C, mask: B H W")
    assert not explanation.fits
    assert str(explanation).splitlines()[:4] == [
        "- img: B C H W",
        "+ img: B H W C",
        "    the same axes in another order: img.permute(0, 2, 3, 1)",
        "  mask: B H W",
    ]
    assert torch.empty(3, 5, 7, 11, device="meta").permute(0, 2, 3, 1).shape == (3, 7, 11, 5)
    assert str(explanation).splitlines()[4].startswith("calls that fit the old one are refused by the new one: ")


def test_another_name_for_a_dim_changes_nothing_for_callers() -> None:
    explanation = explain_change("img: B C", "img: n C")
    assert explanation.fits
    assert str(explanation).splitlines() == [
        "- img: B C",
        "+ img: n C",
        "    axis 0: n in place of B",
        "calls that fit the old one fit the new one",
        "calls that fit the new one fit the old one",
    ]


@pytest.mark.parametrize(
    ("old", "new", "forth", "back"),
    [
        ("x: n d", "x: n d", True, True),
        ("x: n d", "x: n 3", False, True),
        ("x: n 3", "x: n d", True, False),
        ("x: n, y: n", "x: n, y: m", True, False),
        ("x: n, y: n", "x: n", True, False),
        ("x: n", "x: n, y: n", False, True),
        ("x: n d", "x: n d 1", False, False),
        ("x: n d", "x: ... d", True, True),  # of dots, the example has one axis
        ("x: n -> n", "x: n -> n 1", False, False),
    ],
)
def test_a_change_says_which_calls_still_fit(old: str, new: str, forth: bool, back: bool) -> None:
    explanation = explain_change(old, new)
    assert explanation.fits is forth
    assert str(explanation).endswith("calls that fit the new one fit the old one") is back


def test_axes_that_are_gone_or_new_are_named() -> None:
    assert "    axis 1: C is gone" in str(explain_change("x: B C H", "x: B H")).splitlines()
    assert "    axis 1: C is new" in str(explain_change("x: B H", "x: B C H")).splitlines()
    assert "- y: n" in str(explain_change("x: n, y: n", "x: n")).splitlines()
    assert "+ y: n" in str(explain_change("x: n", "x: n, y: n")).splitlines()


@pytest.mark.violation
def test_functions_under_contract_are_compared_by_name(module: str) -> None:
    explanation = explain_change(f"{module}:old", f"{module}:new")
    assert not explanation.fits
    assert str(explanation).splitlines()[:3] == [
        '- image: Float32[Tensor, "B C H W"]',
        '+ image: Float32[Tensor, "B H W C"]',
        "    the same axes in another order: image.permute(0, 2, 3, 1)",
    ]
    assert explain_change(f"{module}:old", f"{module}:old").fits
    assert "+ return: " in str(explain_change("image: B C H W", f"{module}:Net"))


@pytest.mark.parametrize("name", ["bare", "missing"])
def test_a_function_that_has_no_contract_is_refused(module: str, name: str) -> None:
    with pytest.raises(ContractDefinitionError, match="Expected"):
        explain_change(f"{module}:{name}", f"{module}:{name}")


# --- the command ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["B C 1 2"], 0),
        (["B C 1 2", "4,3,1,2"], 0),
        (["B C 1 2", "(4, 1, 2, 1)"], 1),
        (["B C 1 2", "4,3,1,2", "--dims", "C=4"], 1),
        (["--diff", "x: n d", "x: n 3"], 1),
        (["--diff", "x: n 3", "x: n d"], 0),
        (["--diff", "x: n 3"], 2),
        (["--diff", "no_such_module:f", "x: n"], 2),
        (["B C 1 2", "4,x"], 2),
        (["n // 2"], 2),
    ],
)
def test_the_exit_status_tells_whether_it_fits(
    arguments: list[str], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", *arguments]) == status
    output = capsys.readouterr()
    assert bool(output.err) is (status == 2)
    assert bool(output.out) is (status != 2)
    assert not output.err or output.err.startswith("shapecheck explain: ")
