"""`verify`: what it runs, what it finds, and what it says of everything that it could not run."""

import itertools
import json
import math
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shapecheck.audit import Verification, Verified, verify
from shapecheck.audit._dry.sizes import SERIES
from shapecheck.audit._dry.verify import Terms
from shapecheck.cli import main

PREAMBLE = """
import dataclasses, enum, time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict
import numpy as np
import torch
from jaxtyping import Complex64, Float, Float32, Int64
from torch import Tensor, nn
from shapecheck import Axes, Dim, contract

Images = Float32[Tensor, "B C h w"]
"""
_numbers = itertools.count()

Package = Callable[..., str]


@pytest.fixture(autouse=True)
def _checking_is_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """What these tests define has contracts, also where nothing else has."""
    monkeypatch.setenv("SHAPECHECK", "on")
    monkeypatch.delenv("JAXTYPING_DISABLE", raising=False)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """Makes a module of some source that can be imported, under a name that no other has."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(source: str) -> str:
        name = f"verified_{next(_numbers)}"
        (tmp_path / f"{name}.py").write_text(PREAMBLE + textwrap.dedent(source))
        return name

    return make


def the_only(found: Verification) -> Verified:
    (function,) = found.functions
    return function


def verified(package: Package, source: str, **terms: Any) -> Verified:
    return the_only(verify(package(source), terms=Terms(**terms)))


# --- passed --------------------------------------------------------------------------------------------
def test_a_good_function_passes_with_dims_of_different_prime_sizes(package: Package) -> None:
    function = verified(
        package,
        """
        @contract
        def scaled(images: Images, by: Float32[Tensor, "B C"]) -> Images:
            return images * by[:, :, None, None]
        """,
    )
    assert function.verdict == "passed"
    assert function.sizes.keys() == {"B", "C", "h", "w"}
    assert len(set(function.sizes.values())) == 4
    assert all(size > 10 and all(size % factor for factor in range(2, size)) for size in function.sizes.values())
    assert function.call == "images=f32[11,13,17,19], by=f32[11,13]"


def test_a_function_that_passed_was_called(package: Package) -> None:
    name = package(
        """
        seen = []

        @contract
        def note(x: Float32[Tensor, "a b"] | Complex64[Tensor, "a b"], y: Float32[Tensor, " a"] | None = None) -> None:
            seen.append((str(x.dtype), y is None, tuple(x.shape)))
        """
    )
    assert the_only(verify(name)).verdict == "passed"
    assert __import__(name).seen == [("torch.float32", False, (11, 13)), ("torch.complex64", True, (11, 13))]


PASSING = {
    "symbolic": "def f(x: Float32[Tensor, 'a'], y: Float32[Tensor, '2*a+1 a//2']) -> Float32[Tensor, '2*a+1 a//2']: return y * 2",
    "variadic": "def f(x: Float32[Tensor, '*b 3'], y: Float32[Tensor, '*b 3']) -> Float32[Tensor, '*b']: return (x * y).sum(-1)",
    "broadcast": "def f(x: Float32[Tensor, 'a b'], y: Float32[Tensor, '#a b']) -> Float32[Tensor, 'a b']: return x + y",
    "ellipsis": "def f(x: Float32[Tensor, '... 3']) -> Float32[Tensor, '...']: return x.sum(-1)",
    "list": "def f(xs: list[Float32[Tensor, 'n 3']]) -> Float32[Tensor, 'n 3']: return sum(xs)",
    "dict": "def f(xs: dict[str, Float32[Tensor, ' n']]) -> Float32[Tensor, ' n']: return sum(xs.values())",
    "tuple": "def f(xs: tuple[Float32[Tensor, ' n'], Int64[Tensor, ' m']]) -> Int64[Tensor, ' m']: return xs[1]",
    "starred": "def f(*xs: Float32[Tensor, ' n']) -> Float32[Tensor, 'k n']: return torch.stack(xs)",
    "keyword": "def f(*, x: Float32[Tensor, ' n'], mode: Literal['sum', 'mean']) -> Float32[Tensor, '']: return getattr(x, mode)()",
    "default text": "def f(x: Float32[Tensor, ' n'], norm: str = 'ortho') -> Complex64[Tensor, ' n']: return torch.fft.fft(x, norm=norm)",
    "scalar": "def f(x: Float32[Tensor, ''], k: float) -> Float32[Tensor, '']: return x * k",
    "index": "def f(x: Float32[Tensor, 'n m'], i: Int64[Tensor, ' k']) -> Float32[Tensor, 'k m']: return x[i]",
    "size": "def f(n: int) -> Float32[Tensor, 'n 3']: return torch.zeros(n, 3)",
    "parameter": "def f(x: Float32[nn.Parameter, ' n']) -> Float32[Tensor, ' n']: return x * 1",
    "device": "def f(x: Float32[Tensor, ' n'], to: torch.device, as_: torch.dtype) -> Float32[Tensor, ' n']: return x.to(to, as_)",
}


@pytest.mark.parametrize("source", PASSING.values(), ids=PASSING)
def test_values_are_made_for_every_kind_of_annotation(package: Package, source: str) -> None:
    function = verified(package, f"@contract\n{source}")
    assert (function.verdict, function.reason) == ("passed", "")


RECORDS = """
class Pair(NamedTuple):
    first: Float32[Tensor, " n"]
    second: Float32[Tensor, "n m"]

@dataclasses.dataclass(frozen=True)
class Held:
    pair: Pair
    rate: float
    weight: Float32[Tensor, " m"] | None = None

class Keyed(TypedDict):
    held: Held
    more: Float32[Tensor, " m"]

@contract
def f(keyed: Keyed, other: Float32[Tensor, "m n"]) -> Float32[Tensor, " n"]:
    held = keyed["held"]
    return held.pair.first + keyed["more"] @ other * held.rate
"""


def test_records_of_every_kind_share_the_dims_of_a_call(package: Package) -> None:
    function = verified(package, RECORDS)
    assert (function.verdict, function.sizes) == ("passed", {"n": 11, "m": 13})


METHODS = {
    "module": "def forward(self, x: Float32[Tensor, 'B {self.width}']) -> Float32[Tensor, 'B 3']: return self.layer(x)",
    "static": "@staticmethod\n    def of(x: Float32[Tensor, ' n']) -> Float32[Tensor, ' n']: return x * 2",
    "class": "@classmethod\n    def of(cls, x: Float32[Tensor, ' n']) -> Float32[Tensor, '3 n']: return torch.stack([x] * cls.count)",
    "property": "@property\n    def weight(self) -> Float32[Tensor, '3 w']: return self.layer.weight",
}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_methods_are_called_on_an_instance_that_is_made(package: Package, method: str) -> None:
    function = verified(
        package,
        f"""
@contract
class Model(nn.Module):
    count = 3

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.layer = nn.Linear(width, 3)

    {method}
        """,
    )
    assert (function.verdict, function.reason) == ("passed", "")


TIED = """
AXES = Axes(B="groups", C=Dim("patches", tied="side**2"), N=Dim("pixels", size={{8, 64}})).register(__name__)

@dataclasses.dataclass(frozen=True)
class Config:
    side: int
    C: int
    N: int

    def __post_init__(self) -> None:
        if self.side**2 != self.C:
            raise ValueError(f"{{self.side}} and {{self.C}}")

class Model(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    @contract(dims={{"C": "self.config.C", "N": "self.config.N"}})
    def forward(self, x: Float32[Tensor, "B C N"]) -> Float32[Tensor, "B {result}"]:
        return x.sum({axis})
"""


def test_sizes_follow_the_registry_its_ties_and_the_ties_of_the_contract(package: Package) -> None:
    function = verified(package, TIED.format(result="C", axis=2))
    assert (function.verdict, function.reason) == ("passed", "")
    assert function.sizes == {"C": 4, "N": 8, "B": 11}


def test_a_wrong_result_behind_ties_is_found_all_the_same(package: Package) -> None:
    function = verified(package, TIED.format(result="C", axis=1))
    assert function.verdict == "contract violated"
    assert (
        'its result: expected Float32[Tensor, "B C"], got f32[11,8] (axis 1 is 8, the contract says C=4)'
        in function.reason
    )


def test_sizes_that_are_given_are_used(package: Package) -> None:
    source = "@contract\ndef f(x: Float32[Tensor, 'B C'], C: int) -> Float32[Tensor, ' B']: return x.sum(1)"
    function = verified(package, source, sizes={"C": 2, "B": 5})
    assert (function.verdict, function.call) == ("passed", "x=f32[5,2], C=2")


@pytest.mark.parametrize(
    "source",
    [
        "def f(x: Float32[Tensor, ' n']) -> Iterator[Float32[Tensor, '']]:\n    yield x.{of}",
        "async def f(x: Float32[Tensor, ' n']) -> Float32[Tensor, '']:\n    return x.{of}",
        "@contextmanager\ndef f(x: Float32[Tensor, ' n']) -> Iterator[Float32[Tensor, '']]:\n    yield x.{of}",
    ],
    ids=["generator", "coroutine", "context manager"],
)
def test_bodies_that_run_later_are_run(package: Package, source: str) -> None:
    assert verified(package, "@contract\n" + source.format(of="sum()")).verdict == "passed"
    assert verified(package, "@contract\n" + source.format(of="neg()")).verdict == "contract violated"


# --- found -----------------------------------------------------------------------------------------------
def test_a_wrong_result_is_found_and_named(package: Package) -> None:
    source = "@contract\ndef f(x: Float32[Tensor, 'a b']) -> Float32[Tensor, 'b a']: return x{}"
    assert verified(package, source.format(".T")).verdict == "passed"
    wrong = verified(package, source.format(""))
    assert wrong.verdict == "contract violated"
    assert wrong.reason.endswith(
        'f, its result: expected Float32[Tensor, "b a"], got f32[11,13] '
        "(axis 0 is 11, the contract says b=13; axis 1 is 13, the contract says a=11)"
    )


def test_a_wrong_call_inside_is_found_at_its_line(package: Package) -> None:
    name = package(
        """
        @contract
        def inner(x: Float32[Tensor, "B 3"]) -> Float32[Tensor, " B"]:
            return x.sum(1)

        @contract
        def outer(x: Float32[Tensor, "B C"]) -> Float32[Tensor, " B"]:
            return inner(x)
        """
    )
    inner, outer = verify(name).functions
    assert inner.verdict == "passed"
    assert outer.verdict == "contract violated"
    assert "inner, 'x': expected" in outer.reason
    assert outer.line.endswith(": return inner(x)")


def test_a_shape_that_torch_refuses_is_found_at_its_line(package: Package) -> None:
    source = "@contract\ndef f(x: Float32[Tensor, 'n m']) -> Float32[Tensor, 'n n']:\n    return x @ x{}"
    assert verified(package, source.format(".T")).verdict == "passed"
    wrong = verified(package, source.format(""))
    assert wrong.verdict == "shape error"
    assert wrong.line.endswith(": return x @ x")
    assert wrong.call == "x=f32[11,13]"


def test_sizes_that_a_body_cannot_take_are_told_from_bodies_that_take_none(package: Package) -> None:
    wrong = verified(
        package,
        "@contract\ndef f(x: Float32[Tensor, 'n m']) -> Float32[Tensor, 'k 2 m']: return x.unflatten(0, (-1, 2))",
    )
    assert wrong.verdict == "shape error"
    assert wrong.note == "it takes x=f32[32,64]: the contract allows sizes that the body cannot take"


def test_a_function_that_refuses_some_sizes_has_passed_with_others(package: Package) -> None:
    function = verified(
        package,
        """
        @contract
        def crop(x: Float32[Tensor, " n"], y: Float32[Tensor, " m"]) -> Float32[Tensor, " m"]:
            if len(y) > len(x):
                raise ValueError("too long")
            return x[: len(y)]
        """,
    )
    assert function.verdict == "passed"
    assert function.call == "x=f32[53], y=f32[47]"
    assert function.note == "refused its arguments with x=f32[11], y=f32[13]: ValueError: too long"


ENDINGS = {
    "refused its arguments": "raise ValueError('no')",
    "error in the body": "return {}['key']",
    "shape error": "return x.view(-1, 2, 3)",
    "contract violated": "return x.double()",
}


@pytest.mark.parametrize(("verdict", "body"), ENDINGS.items(), ids=ENDINGS)
def test_verdicts_tell_whose_error_it_is(package: Package, verdict: str, body: str) -> None:
    function = verified(package, f"@contract\ndef f(x: Float32[Tensor, ' n']) -> Float32[Tensor, ' n']:\n    {body}")
    assert function.verdict == verdict


def test_a_shape_error_with_numbers_that_were_made_up_is_no_finding(package: Package) -> None:
    source = "@contract\ndef f(x: Float32[Tensor, 'n m'], axis: int) -> Float32[Tensor, 'n m']:\n    return x.{}"
    assert verified(package, source.format("cumsum(axis % 2)")).verdict == "passed"
    function = verified(package, source.format("cumsum(axis + 2)"))
    assert function.verdict == "error in the body"
    assert "(the numbers axis were made up)" in function.reason


# --- not run ---------------------------------------------------------------------------------------------
NOT_RUN = {
    "item": (
        "x: Float32[Tensor, ' n']",
        "return x.sum().item()",
        "needs real values: a tensor becomes a Python number",
    ),
    "if": (
        "x: Float32[Tensor, ' n']",
        "return 1 if x.any() else 2",
        "needs real values: a tensor becomes a Python number",
    ),
    "mask": ("x: Float32[Tensor, ' n']", "return x[x > 0]", "needs real values: nonzero, or a mask"),
    "numpy": ("x: Float32[Tensor, ' n']", "return np.sqrt(x)", "needs real values: a tensor becomes a NumPy array"),
    "handled": (
        "x: Float32[Tensor, ' n']",
        "\n    try:\n        x.item()\n    except RuntimeError:\n        raise ValueError('no') from None",
        "",
    ),
    "array": ("x: Float32[np.ndarray, ' n']", "pass", "x: it takes NumPy arrays, which are never simulated"),
    "open": ("x: Float32[Tensor, ' n'], y", "pass", "y: it is not annotated and has no default"),
    "any": ("x: Float32[Tensor, ' n'], y: Any", "pass", "y: its annotation accepts anything"),
    "shapeless": ("x: Float32[Tensor, ' n'], y: Tensor", "pass", "y: its annotation says no shape (torch.Tensor)"),
    "path": ("x: Float32[Tensor, ' n'], to: Path", "pass", "to: it takes text or a file (Path)"),
    "text": ("x: Float32[Tensor, ' n'], to: str", "pass", "to: it takes text or a file (str)"),
    "default": ("x: Float32[Tensor, ' n'], to: Path = Path('a')", "pass", "to: it names a file"),
    "function": ("x: Float32[Tensor, ' n'], y: Callable[[int], int]", "pass", "y: no value is made up for"),
    "foreign": ("x: Float32[Tensor, ' n'], y: nn.Linear", "pass", "y: no value is made up for torch.Linear"),
    "abstract": ("x: Float32[Tensor, ' n']", "raise NotImplementedError", "NotImplementedError"),
    "endless": ("x: Float32[Tensor, ' n']", "\n    while True: time.sleep(0.01)", "it took longer than 0.2 s"),
    "device": (
        "x: Float32[Tensor, ' n']",
        "raise RuntimeError('no CUDA driver')",
        "needs a device that is not here: RuntimeError: no CUDA driver",
    ),
    "reads": ("x: Float32[Tensor, ' n']", "open('no such file')", "FileNotFoundError"),
    "network": (
        "x: Float32[Tensor, ' n']",
        "__import__('socket').create_connection(('127.0.0.1', 9))",
        "it uses the network",
    ),
    "program": ("x: Float32[Tensor, ' n']", "__import__('subprocess').run(['true'])", "it starts a program"),
}


@pytest.mark.parametrize(("parameters", "body", "reason"), NOT_RUN.values(), ids=NOT_RUN)
def test_what_cannot_be_run_is_said_and_never_passed(package: Package, parameters: str, body: str, reason: str) -> None:
    function = verified(package, f"@contract\ndef f({parameters}): {body}", limit_s=0.2)
    assert function.verdict != "passed"
    if reason:
        assert function.verdict == "not run"
        assert function.reason.startswith(reason)


def test_files_are_not_written_even_by_code_that_would_not_mind(package: Package, tmp_path: Path) -> None:
    target = tmp_path / "written"
    source = f"""
        @contract
        def f(x: Float32[Tensor, " n"]) -> None:
            try:
                open({str(target)!r}, "w").write("no")
            except OSError:
                pass
        """
    function = verified(package, source)
    assert function.verdict == "not run"
    assert function.reason == f"it writes {str(target)!r}"
    assert not target.exists()
    target.write_text("allowed again")


def test_a_coroutine_that_waits_is_not_run(package: Package) -> None:
    function = verified(
        package,
        """
        @contract
        async def f(x: Float32[Tensor, " n"]) -> Float32[Tensor, " n"]:
            import asyncio
            await asyncio.sleep(0)
            return x
        """,
    )
    assert (function.verdict, function.reason) == ("not run", "it waits for something outside of it")


UNMADE = """
class Open:
    def __init__(self, {parameters}) -> None:
        {body}

    @contract
    def f(self, x: Float32[Tensor, " n"]) -> Float32[Tensor, " n"]:
        return x * 1
"""
CONSTRUCTORS = {
    "made": ("width: int, rate: float = 0.1", "pass", ""),
    "refuses": ("width: int", "raise ValueError('width')", "self: Open cannot be constructed: ValueError: width"),
    "anything": ("*layers", "pass", "self: nothing says what Open(*layers) takes"),
    "open": ("width", "pass", "self: 'width' of the constructor of Open is not annotated"),
    "text": ("width: str", "pass", "self.width: it takes text or a file (str)"),
}


@pytest.mark.parametrize(("parameters", "body", "reason"), CONSTRUCTORS.values(), ids=CONSTRUCTORS)
def test_a_method_without_an_instance_is_not_run(package: Package, parameters: str, body: str, reason: str) -> None:
    function = verified(package, UNMADE.format(parameters=parameters, body=body))
    assert function.verdict == ("not run" if reason else "passed")
    assert function.reason.startswith(reason)


def test_an_instance_that_is_given_is_used_with_the_sizes_of_the_call(package: Package) -> None:
    name = package(
        """
        class Open:
            def __init__(self, *widths):
                self.width, = widths

            @contract(dims={"n": "self.width"})
            def f(self, x: Float32[Tensor, "k n"]) -> Float32[Tensor, " n"]:
                return x.sum(0)

        def make(n): return Open(n)
        """
    )
    assert the_only(verify(name)).verdict == "not run"
    function = the_only(verify(name, terms=Terms(factories=[__import__(name).make])))
    assert (function.verdict, function.call) == ("passed", "x=f32[13,11]")


def test_a_contract_that_refuses_every_call_that_was_made_up_is_not_run(package: Package) -> None:
    source = "@contract(dims={'n': 'x.shape[0] + 1'})\ndef f(x: Float32[Tensor, ' n']) -> None: pass"
    function = verified(package, source)
    assert function.verdict == "not run"
    assert function.reason.startswith("no valid call was found: x should be")


# --- the whole package, and how it is told ---------------------------------------------------------------
SEVERAL = """
@contract
def good(x: Float32[Tensor, " n"]) -> Float32[Tensor, " n"]: return x * 1
@contract
def wrong(x: Float32[Tensor, " n"]) -> Float32[Tensor, "n n"]: return x
@contract
def reader(x: Float32[Tensor, " n"]) -> float: return float(x.sum())
@contract
def writer(x: Float32[Tensor, " n"], path: Path) -> None: pass
@contract
def saver(x: Float32[Tensor, " n"], file: Path) -> None: pass
@contract
def plain(n: int) -> int: return n
def without(x: Float32[Tensor, " n"]): return x
"""


def test_everything_is_counted_and_functions_with_one_reason_are_told_together(package: Package) -> None:
    name = package(SEVERAL)
    found = verify(name)
    assert [function.name for function in found.findings] == [f"{name}.wrong"]
    text = str(found).replace(name, "m")
    assert text.startswith(
        "m: 5 functions with tensors in their contract, on fake tensors: 1 passed, 3 not run, 1 contract violated.\n"
        "Left out: 1 whose contract has no tensors, 1 without a contract.\n\n"
        "contract violated (1): a result, or a call inside, breaks a contract\n"
    )
    together = (
        "  2 times: it takes text or a file (Path), which nothing says how to choose\n      m.writer\n      m.saver\n"
    )
    assert together in text
    assert "\n  m.good(x=f32[11])" in text
    assert json.loads(json.dumps(found.to_dict()))["functions"][1]["verdict"] == "contract violated"


def test_functions_are_chosen_by_name_and_unknown_names_are_refused(package: Package) -> None:
    name = package(SEVERAL)
    assert the_only(verify(name, only=["good"])).name == f"{name}.good"
    assert len(verify(name, skip=["wrong", "reader"]).functions) == 3
    with pytest.raises(ValueError, match="got 'goo', which none is called"):
        verify(name, only=["goo"])


def test_progress_is_told_before_each_function_and_at_the_end(package: Package) -> None:
    told: list[tuple[int, int]] = []
    verify(package(SEVERAL), progress=lambda done, total, name: told.append((done, total)))
    assert told == [(index, 5) for index in range(6)]


def test_the_command_says_what_it_found_by_its_exit_status(
    package: Package, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    name, file = package(SEVERAL), tmp_path / "found.json"
    assert main(["verify", name, "--json", str(file)]) == 1
    assert capsys.readouterr().out.startswith(f"{name}: 5 functions")
    assert json.loads(file.read_text())["format"] == "shapecheck verify"
    assert main(["verify", name, "--skip", "wrong", "--sizes", "n=7"]) == 0
    assert f"{name}.good(x=f32[7])" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["no_such_package"], "No module named 'no_such_package'"),
        (["json", "--with", "json"], "Expected --with to name something to call as MODULE:FACTORY, got 'json'"),
        (["json", "--only", "f"], "Expected a function of json with tensors in its contract"),
    ],
    ids=["package", "factory", "name"],
)
def test_a_command_that_cannot_begin_says_why(
    capsys: pytest.CaptureFixture[str], arguments: list[str], text: str
) -> None:
    assert main(["verify", *arguments]) == 2
    assert text in capsys.readouterr().err


def test_sizes_that_are_none_are_refused_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["verify", "json", "--sizes", "C=two"])
    assert "expected sizes of dims such as C=2,N=64, got 'C=two'" in capsys.readouterr().err


def test_annotations_without_contracts_are_verified_through_the_import_hook(
    package: Package, capsys: pytest.CaptureFixture[str]
) -> None:
    source = "def f(x: Float32[Tensor, 'a b']) -> Float32[Tensor, 'b a']: return x"
    assert main(["verify", package(source)]) == 0
    assert "nothing to run" in capsys.readouterr().out
    assert main(["verify", package(source), "--hook"]) == 1
    assert "1 contract violated" in capsys.readouterr().out


def test_sizes_of_every_series_are_different() -> None:
    for sizes in SERIES.values():
        assert len(set(sizes)) == len(sizes) > 20
    primes = SERIES["primes"]
    assert all(math.gcd(one, other) == 1 for one, other in itertools.combinations(primes, 2))


@pytest.mark.slow
@pytest.mark.violation  # the package has contracts only where checking is on
def test_the_ptychography_package_has_no_finding_and_its_steps_pass() -> None:
    found = verify("ptycho_torch")
    assert found.findings == []
    assert found.of("error in the body") == []
    refused = {function.name for function in found.of("refused its arguments")}
    # No canvas of a size that was made up holds patches of a size that was made up.
    assert refused == {"ptycho_torch.exposures.group_exposures"}
    passed = {function.name.removeprefix("ptycho_torch.") for function in found.of("passed")}
    assert passed >= {
        "helper.Translation",
        "helper.reassemble_patches_position_real",
        "model.PtychoModel.forward",
        "learner.PtychoLearner.training_step",
        "losses.poisson_loss",
    }
    assert all(function.reason for function in found.of("not run"))
