"""The registry of dims: names, sizes and ties, in code or in pyproject.toml; and parameters named like a dim."""

import itertools
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from beartype import beartype
from jaxtyping import Float32, jaxtyped
from torch import Tensor, nn

from shapecheck import Axes, ContractDefinitionError, ContractError, check, contract
from shapecheck.axes import Dim, _registered, axes_of, describe_sizes

AXES = Axes(B="groups in a batch", C="patches in a group", batch="images in a batch")
SIZED = Axes(
    B="any number",
    C=Dim("patches in a group, gridsize**2", size={1, 4, 9}),
    P=range(1, 4),
    N=Dim("patch side", size=range(8, 65, 8)),
    M=24,
)


@pytest.fixture(autouse=True)
def _engine(engine: str) -> None:
    """Every test here holds for both engines."""


# --- names -----------------------------------------------------------------------------------------------
def test_a_registry_is_a_mapping_of_descriptions() -> None:
    assert AXES["C"] == "patches in a group"
    assert list(AXES) == ["B", "C", "batch"]
    assert len(AXES) == 3
    assert SIZED["C"] == "patches in a group, gridsize**2"
    assert SIZED["M"] == ""


@pytest.mark.violation
@pytest.mark.parametrize(
    ("shape", "cure"),
    [("B bacth", "did you mean 'batch'"), ("b C", "did you mean 'B'"), ("q//2 q", "known: B, C, batch")],
)
def test_an_unknown_dim_is_refused_with_close_matches(shape: str, cure: str) -> None:
    def function(x: Float32[Tensor, shape]) -> None:
        del x

    with pytest.raises(ContractDefinitionError) as caught:
        contract(axes=AXES)(function)
    assert cure in str(caught.value)


@pytest.mark.violation
def test_known_dims_numbers_and_expressions_of_known_dims_are_accepted() -> None:
    @contract(axes=AXES)
    def function(x: Float32[Tensor, "B C 2*C _ 1"], *, width: int = 3) -> Float32[Tensor, "B {width}"]:
        return x[:, 0, 0, 0].expand(-1, width)

    assert function(torch.zeros(3, 4, 8, 5, 1)).shape == (3, 3)


@pytest.mark.violation
def test_a_registered_package_is_held_to_its_names(request: pytest.FixtureRequest) -> None:
    registry = Axes(n="counted").register(__name__)
    request.addfinalizer(lambda: _registered.pop(__name__))
    assert axes_of(f"{__name__}.inner") is registry
    assert axes_of(__name__.rpartition(".")[0] + ".other") is not registry
    check(torch.zeros(3), Float32[Tensor, " n"])
    with pytest.raises(ContractDefinitionError, match="Unknown dim 'q'"):
        check(torch.zeros(3), Float32[Tensor, " q"])


# --- sizes -----------------------------------------------------------------------------------------------
def build(B: int, C: int, P: int, N: int, M: int = 24) -> tuple[Tensor, ...]:
    return torch.zeros(B, C, P, N, N), torch.zeros(B, M, M), torch.zeros(P)


@pytest.mark.violation
@pytest.mark.parametrize(
    ("sizes", "axis", "expected"),
    [
        ({"C": 2}, 1, "C=1, 4 or 9"),
        ({"P": 4}, 2, "P=1 to 3"),
        ({"N": 12}, 3, "N=8 to 64 in steps of 8"),
        ({"N": 72}, 3, "N=8 to 64 in steps of 8"),
        ({"M": 25}, 1, "M=24"),
    ],
    ids=str,
)
def test_a_size_that_the_registry_does_not_allow_is_a_violation_of_its_own(
    sizes: dict[str, int], axis: int, expected: str
) -> None:
    @contract(axes=SIZED)
    def use(
        probe: Float32[Tensor, "B C P N N"], canvas: Float32[Tensor, "B M M"], weights: Float32[Tensor, " P"]
    ) -> Float32[Tensor, " B"]:
        del canvas, weights
        return probe.sum((1, 2, 3, 4))

    good = {"B": 3, "C": 4, "P": 2, "N": 16}
    assert use(*build(**good)).shape == (3,)
    assert use(*build(**good | {"C": 1, "P": 1, "N": 8})).shape == (3,)
    with pytest.raises(ContractError) as caught:
        use(*build(**good | sizes))
    violation = caught.value.violations[0]
    assert violation.id == "axis-range"
    assert (violation.mismatches[0].axis, violation.mismatches[0].expected) == (axis, expected)
    (changed,) = sizes.values()
    assert f"axis {axis} is {changed}, the registry of dims says {expected}" in str(caught.value)


@pytest.mark.violation
def test_one_size_out_of_its_range_is_no_reason_to_propose_another_order_of_axes() -> None:
    axes = Axes(B=Dim("batch", size=range(1, 65)), C="channels", N=Dim("side", size=range(100, 200)))

    @contract(axes=axes)
    def use(x: Float32[Tensor, "B C"]) -> None:
        del x

    @contract(axes=axes)
    def use_sides(x: Float32[Tensor, "B N"]) -> None:
        del x

    use(torch.zeros(64, 3))
    use_sides(torch.zeros(64, 100))
    with pytest.raises(ContractError) as caught:
        use(torch.zeros(70, 3))  # (3, 70) would fit, and is not likelier for that
    assert caught.value.violations[0].id == "axis-range"
    assert caught.value.violations[0].hint is None
    with pytest.raises(ContractError) as caught:
        use_sides(torch.zeros(100, 5))  # two sizes that do not fit are another matter
    assert caught.value.violations[0].id == "axis-order"


@pytest.mark.violation
def test_a_size_is_held_even_where_nothing_else_mentions_the_dim() -> None:
    @contract(axes=SIZED)
    def use(x: Float32[Tensor, "... C"]) -> None:
        del x

    use(torch.zeros(5, 7, 9))
    with pytest.raises(ContractError, match="registry"):
        use(torch.zeros(5, 7, 8))


@pytest.mark.violation
def test_a_broadcastable_axis_of_size_1_is_no_violation_of_a_size() -> None:
    @contract(axes=SIZED)
    def use(x: Float32[Tensor, "B M"], y: Float32[Tensor, " B #M"]) -> None:
        del x, y

    use(torch.zeros(3, 24), torch.zeros(3, 1))
    use(torch.zeros(3, 24), torch.zeros(3, 24))
    with pytest.raises(ContractError):
        use(torch.zeros(3, 25), torch.zeros(3, 1))


@pytest.mark.violation
def test_a_disagreement_is_reported_before_a_size() -> None:
    @contract(axes=SIZED)
    def use(x: Float32[Tensor, "B C"], y: Float32[Tensor, "B C"]) -> None:
        del x, y

    with pytest.raises(ContractError) as caught:
        use(torch.zeros(3, 4), torch.zeros(3, 5))
    assert [violation.id for violation in caught.value.violations] == ["axis-size"]


@pytest.mark.violation
def test_sizes_are_held_while_a_graph_is_traced() -> None:
    @contract(axes=SIZED)
    def use(x: Float32[Tensor, "B C N"]) -> Float32[Tensor, "B N"]:
        return x.mean(1)

    compiled = torch.compile(use, backend="eager", fullgraph=True)
    assert compiled(torch.zeros(3, 4, 16)).shape == (3, 16)
    assert compiled(torch.zeros(5, 9, 8)).shape == (5, 8)
    with pytest.raises(ContractError, match="registry"):
        compiled(torch.zeros(3, 5, 16))
    with pytest.raises(ContractError, match="registry"):
        compiled(torch.zeros(3, 4, 20))


@pytest.mark.parametrize(
    ("sizes", "text"),
    [(range(1, 17), "1 to 16"), (range(8, 65, 8), "8 to 64 in steps of 8"), (range(3, 4), "3"), (frozenset({7}), "7")],
)
def test_sizes_are_told_in_words(sizes: Any, text: str) -> None:
    assert describe_sizes(sizes) == text


@pytest.mark.parametrize("size", [-1, True, "64", 2.0, range(0), frozenset(), range(-3, 3), frozenset({4, "9"})])
def test_a_size_that_no_axis_can_have_is_refused(size: Any) -> None:
    Axes(N=Dim(size=64))
    with pytest.raises(ContractDefinitionError, match="dim 'N'"):
        Axes(N=Dim(size=size))


def test_a_dim_that_is_no_description_is_refused() -> None:
    with pytest.raises(ContractDefinitionError, match="a description, a size, a range or a Dim, got None"):
        Axes(N=None)  # type: ignore[arg-type]


@pytest.mark.violation
def test_a_dim_with_a_size_cannot_stand_for_a_run_of_axes() -> None:
    def use(x: Float32[Tensor, "*M"]) -> None:
        del x

    contract(axes=Axes(M="free"))(use)
    with pytest.raises(ContractDefinitionError, match="M stands for one axis and for a run of axes"):
        contract(axes=SIZED)(use)


# --- ties ------------------------------------------------------------------------------------------------
class Config:
    def __init__(self, gridsize: int) -> None:
        self.gridsize = gridsize


TIED = Axes(B="groups", C=Dim("patches in a group", tied="config.gridsize ** 2"), N="side")


@pytest.mark.violation
def test_a_registry_ties_a_dim_in_every_contract_with_these_arguments() -> None:
    @contract(axes=TIED)
    def use(x: Float32[Tensor, "B C N"], config: Config) -> None:
        del x, config

    @contract(axes=TIED)
    def use_without(x: Float32[Tensor, "B C N"]) -> None:
        del x

    use(torch.zeros(3, 4, 16), Config(2))
    use_without(torch.zeros(3, 5, 16))
    with pytest.raises(ContractError, match=r"the contract says C=9 \(tied to config\.gridsize \*\* 2\)"):
        use(torch.zeros(3, 4, 16), Config(3))


@pytest.mark.violation
def test_what_a_contract_says_itself_overrules_the_registry() -> None:
    @contract(axes=TIED, dims={"C": "config.gridsize"})
    def use(x: Float32[Tensor, "B C N"], config: Config) -> None:
        del x, config

    use(torch.zeros(3, 2, 16), Config(2))
    with pytest.raises(ContractError):
        use(torch.zeros(3, 4, 16), Config(2))


# --- parameters named like a dim -------------------------------------------------------------------------
def plain(function: Callable[..., Any]) -> Callable[..., Any]:
    return jaxtyped(typechecker=beartype)(function)


@pytest.mark.violation
def test_an_int_parameter_named_like_a_dim_binds_it() -> None:
    def repeat(n: int, x: Float32[np.ndarray, "n 2"]) -> Float32[np.ndarray, "n 2"]:
        return x[:n]

    array = np.zeros((3, 2), np.float32)
    plain(repeat)(4, array)  # jaxtyping sees two different things
    contract(repeat)(3, array)
    with pytest.raises(ContractError) as caught:
        contract(repeat)(4, array)
    assert "axis 0 is 3, the contract says n=4 (tied to n)" in str(caught.value)


@pytest.mark.violation
def test_an_int_parameter_binds_the_dim_of_a_result_and_of_an_expression() -> None:
    @contract
    def make(n: int, *, m: int = 2, wrong: bool = False) -> Float32[Tensor, "n m+1"]:
        return torch.zeros(n, m + 1 + wrong)

    assert make(3).shape == (3, 3)
    assert make(3, m=4).shape == (3, 5)
    with pytest.raises(ContractError, match=r"m\+1=3"):
        make(3, wrong=True)


@pytest.mark.violation
def test_an_int_parameter_of_a_method_binds_too() -> None:
    @contract
    class Cut(nn.Module):
        def forward(self, x: Float32[Tensor, "h w"], w: int) -> Float32[Tensor, "h w"]:
            return x

    assert Cut()(torch.zeros(3, 4), 4).shape == (3, 4)
    with pytest.raises(ContractError):
        Cut()(torch.zeros(3, 4), 5)


@pytest.mark.violation
def test_a_value_that_is_no_int_is_reported_as_such() -> None:
    @contract
    def use(n: int, x: Float32[Tensor, "n 2"]) -> None:
        del n, x

    use(3, torch.zeros(3, 2))
    with pytest.raises(ContractError) as caught:
        use("3", torch.zeros(3, 2))
    assert ("n", "type") in {(violation.parameter, violation.id) for violation in caught.value.violations}


@pytest.mark.violation
def test_only_plain_int_parameters_bind() -> None:
    @contract
    def use(n: int | None, k: float, x: Float32[Tensor, "n k w"], *w: int) -> None:
        del n, k, x, w

    use(None, 1.0, torch.zeros(3, 2, 5), 4)
    use(7, 1.0, torch.zeros(3, 2, 5), 4)


# --- pyproject.toml --------------------------------------------------------------------------------------
_serial = itertools.count()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Import a new package with a contract over a shape, below a pyproject.toml."""

    def run(toml: str, shape: str) -> None:
        name = f"a_package_{next(_serial)}"
        folder = tmp_path / name / "src" / name
        folder.mkdir(parents=True)
        (tmp_path / name / "pyproject.toml").write_text(textwrap.dedent(toml))
        (folder / "__init__.py").touch()
        (folder / "module.py").write_text(
            "from jaxtyping import Float32\nfrom torch import Tensor\nfrom shapecheck import contract\n"
            f"@contract\ndef use(x: Float32[Tensor, {shape!r}], gridsize: int) -> None: ...\n"
        )
        monkeypatch.syspath_prepend(str(folder.parent))
        module = __import__(f"{name}.module").module
        module.use(torch.zeros(3, 4, 16), 2)

    return run


TOML = """
    [tool.shapecheck.axes]
    B = "groups in a batch"
    C = { description = "patches in a group", tied = "gridsize**2", size = [1, 4, 9] }
    N = { description = "side", min = 8, max = 64, step = 8 }
    M = 24
"""


@pytest.mark.violation
def test_the_registry_may_stand_in_pyproject_toml(project: Callable[[str, str], None]) -> None:
    project(TOML, "B C N")
    with pytest.raises(ContractDefinitionError, match=r"Unknown dim 'b' .* did you mean 'B'"):
        project(TOML, "b C N")
    with pytest.raises(ContractError, match="the registry of dims says M=24"):
        project(TOML, "B C M")
    with pytest.raises(ContractError, match=r"C=4 \(tied to gridsize\*\*2\)"):
        project(TOML, "C B N")


@pytest.mark.violation
def test_a_pyproject_toml_without_a_registry_asks_nothing(project: Callable[[str, str], None]) -> None:
    project("[tool.other]\nx = 1", "any name here")


@pytest.mark.violation
@pytest.mark.parametrize(
    ("toml", "reason"),
    [
        ("[tool.shapecheck.axes\n", "to be a readable TOML file"),
        ("[tool.shapecheck]\naxes = 3", "a table of dims, got 3"),
        ("[tool.shapecheck.axes]\nN = { sise = 3 }", "to be among description, size, min, max, step, tied, got sise"),
        ("[tool.shapecheck.axes]\nN = { size = '3' }", "to be int or list, got '3'"),
        ("[tool.shapecheck.axes]\nN = { min = 3 }", "either a size, or max"),
        ("[tool.shapecheck.axes]\nN = { size = 3, max = 4 }", "either a size, or max"),
        ("[tool.shapecheck.axes]\nN = -3", "a number, a range or a set of numbers >= 0, got -3"),
        ("[tool.shapecheck.axes]\nN = { min = 5, max = 4 }", "got range(5, 5)"),
        ("[tool.shapecheck.axes]\nN = 1.5", "a description, a size, a range or a Dim, got 1.5"),
    ],
)
def test_a_registry_that_makes_no_sense_is_refused_and_its_file_named(
    project: Callable[[str, str], None], toml: str, reason: str
) -> None:
    with pytest.raises(ContractDefinitionError) as caught:
        project(toml, "B C N")
    assert reason in str(caught.value)
    assert "pyproject.toml" in str(caught.value)


def test_no_project_file_is_read_when_checking_is_off_or_for_what_is_installed(tmp_path: Path) -> None:
    installed = tmp_path / "site-packages"
    for folder in (tmp_path, installed):
        folder.mkdir(exist_ok=True)
        (folder / "module.py").write_text(
            "from jaxtyping import Float32\nimport numpy as np\nfrom shapecheck import contract\n"
            "@contract\ndef use(x: Float32[np.ndarray, 'n']) -> None: ...\n"
        )
    (tmp_path / "pyproject.toml").write_text("[tool.shapecheck.axes")

    def runs(folder: Path, mode: str) -> bool:
        command = [sys.executable, "-c", "import module"]
        environment = {"PYTHONPATH": f"{folder}:{':'.join(sys.path)}", "SHAPECHECK": mode}
        return subprocess.run(command, env=environment, check=False, capture_output=True).returncode == 0

    assert runs(tmp_path, "off")
    assert not runs(tmp_path, "on")
    assert runs(installed, "on")
