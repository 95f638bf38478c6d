"""The switch: what off leaves behind (nothing), and how modes change for a block. Subprocesses where it matters."""

import dataclasses
import os
import subprocess
import sys
import textwrap
import warnings
from typing import Any, cast

import pytest
import torch
from jaxtyping import Float32
from torch import Tensor

import shapecheck
from shapecheck import ContractError, ContractWarning, check, contract

KINDS = """
    import dataclasses, typing, torch
    from jaxtyping import Float32
    from torch import Tensor
    from shapecheck import contract, check, enabled
    def function(x: Float32[Tensor, "n 2"]) -> None: pass
    async def coroutine(x: Float32[Tensor, "n 2"]) -> None: pass
    class Module(torch.nn.Module):
        def forward(self, x: Float32[Tensor, "n 2"]): return x
    @dataclasses.dataclass
    class Data:
        x: Float32[Tensor, "n 2"]
    class Pair(typing.NamedTuple):
        x: Float32[Tensor, "n 2"]
    class Fields(typing.TypedDict):
        x: Float32[Tensor, "n 2"]
    class Methods:
        @staticmethod
        def static(x: Float32[Tensor, "n 2"]) -> None: pass
    wrong = torch.zeros(3)
"""


def run(code: str, *flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if name not in {"SHAPECHECK", "JAXTYPING_DISABLE"}}
    return subprocess.run(
        [sys.executable, *flags, "-c", textwrap.dedent(code)],
        env={**variables, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


OFF = (
    KINDS
    + """
    forward, init, new, static = Module.forward, Data.__init__, Pair.__new__, vars(Methods)["static"]
    same = [contract(kind) is kind for kind in (function, coroutine, Module, Data, Pair, Fields, static)]
    same += [contract(dims={"n": "nonsense"})(function) is function]
    same += [Module.forward is forward, Data.__init__ is init, Pair.__new__ is new, check(wrong, int) is wrong]
    print(len(same), all(same), enabled())
"""
)


@pytest.mark.parametrize("environment", [{"SHAPECHECK": "off"}, {"JAXTYPING_DISABLE": "1"}], ids=str)
def test_off_returns_the_same_object_for_every_kind_of_boundary(environment: dict[str, str]) -> None:
    assert run(OFF, **environment).stdout == "12 True False\n"


def test_the_probe_for_off_can_fail() -> None:
    assert run(OFF.replace('"nonsense"', '"len(x)"'), SHAPECHECK="on").stdout == ""


def test_off_imports_neither_beartype_nor_the_engine() -> None:
    code = """
        import sys
        from shapecheck import contract
        @contract
        def f(x: int) -> int: return x
        print(sorted(name for name in sys.modules if name in ("beartype", "jaxtyping", "torch", "shapecheck._diagnosis.engine")))
    """
    assert run(code, SHAPECHECK="off").stdout == "[]\n"
    assert "beartype" in run(code, SHAPECHECK="on").stdout


REJECT = (
    KINDS
    + """
    import asyncio
    good = torch.zeros(3, 2)
    contract(Methods.static)(good), contract(function)(good), contract(Module)()(good), contract(Data)(good)
    caught = 0
    for call in (
        lambda: contract(function)(wrong),
        lambda: asyncio.run(contract(coroutine)(wrong)),
        lambda: Module()(wrong),
        lambda: Data(wrong),
        lambda: contract(Pair)(wrong),
        lambda: check({"x": wrong}, contract(Fields)),
        lambda: contract(Methods.static)(wrong),
        lambda: check([good, wrong], list[Float32[Tensor, "n 2"]]),
        lambda: check("text", int),
    ):
        try:
            call()
        except TypeError:
            caught += 1
    print(caught)
"""
)


@pytest.mark.parametrize("setting", ["on", "strict"])
@pytest.mark.parametrize("flags", [(), ("-O",)], ids=["plain", "-O"])
def test_on_and_strict_check_every_kind_of_boundary_also_under_optimisation(
    setting: str, flags: tuple[str, ...]
) -> None:
    result = run(REJECT, *flags, SHAPECHECK=setting)
    assert result.stdout == "9\n", result.stderr


def test_an_unknown_mode_is_an_error_that_lists_the_four() -> None:
    result = run("import shapecheck; shapecheck.enabled()", SHAPECHECK="of")
    assert "Expected the environment variable SHAPECHECK to be one of off, on, strict, warn, got 'of'." in result.stderr
    block = shapecheck.mode("loud")
    with pytest.raises(ValueError, match="Expected the mode to be one of off, on, strict, warn, got 'loud'"), block:
        pass


# --- blocks --------------------------------------------------------------------------------------
def identity(x: Float32[Tensor, "n 2"]) -> Float32[Tensor, "n 2"]:
    return x


WRONG = torch.zeros(3)


@pytest.mark.violation
def test_a_block_switches_decorated_boundaries_off_and_on_again() -> None:
    checked = contract(identity)
    with shapecheck.mode("off"):
        assert not shapecheck.enabled()
        assert checked(WRONG) is WRONG
        assert check(WRONG, int) is WRONG
    with pytest.raises(ContractError):
        checked(WRONG)


def test_what_was_defined_off_stays_off() -> None:
    with shapecheck.mode("off"):
        untouched = contract(identity)
    assert untouched is identity
    with shapecheck.mode("strict"):
        assert untouched(WRONG) is WRONG


def test_a_block_can_switch_definitions_on() -> None:
    with shapecheck.mode("on"):
        checked = contract(identity)
    assert checked(torch.zeros(3, 2)).shape == (3, 2)
    with shapecheck.mode("on"), pytest.raises(ContractError):
        checked(WRONG)


@pytest.mark.violation
def test_warn_goes_on_with_the_wrong_tensor_and_warns_once_per_call_site() -> None:
    checked = contract(identity)
    with shapecheck.mode("warn"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        results = [checked(WRONG) for _ in range(3)]
        checked(WRONG)
        checked(torch.zeros(3, 2))
    assert all(result is WRONG for result in results)
    assert [warning.category for warning in caught] == [ContractWarning, ContractWarning]
    assert str(caught[0].message).startswith("ContractError [missing-axis]")
    assert caught[0].filename == __file__


@pytest.mark.violation
@pytest.mark.parametrize("wrong", [WRONG, "no tensor"], ids=["axes", "type"])
def test_a_warning_that_is_made_an_error_is_raised_every_time(wrong: Any) -> None:
    checked, right = contract(identity), torch.zeros(3, 2)
    with shapecheck.mode("warn"), warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            with pytest.raises(ContractWarning):
                checked(wrong)
        assert checked(right) is right


@dataclasses.dataclass
class Config:
    width: int


def as_configured(x: Float32[Tensor, "n {config.width}"], config: Config) -> Float32[Tensor, "n {config.width}"]:
    return x


@pytest.mark.violation
def test_warn_goes_on_where_a_wrong_argument_leaves_no_expression_to_be_evaluated() -> None:
    checked, right = contract(as_configured), torch.zeros(3, 2)
    with shapecheck.mode("warn"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert checked(right, cast("Config", "no configuration")) is right
    assert [warning.category for warning in caught] == [ContractWarning]
    assert "parameter 'config'" in str(caught[0].message)
    with shapecheck.mode("warn"), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert checked(right, Config(2)) is right
