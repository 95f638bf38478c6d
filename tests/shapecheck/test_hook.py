"""The import hook: what it puts under contract, what it leaves alone and lists, and that it leaves no trace."""

import asyncio
import importlib
import inspect
import itertools
import os
import py_compile
import subprocess
import sys
import textwrap
import types
import typing
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import shapecheck
from shapecheck import ContractError, ContractWarning, hook_report, install_import_hook

HEADER = """
import abc, asyncio, dataclasses, functools, typing
import torch
from jaxtyping import Float32
from torch import Tensor
Row = Float32[Tensor, "n 2"]
"""
LIGHT = 'import numpy as np\nfrom jaxtyping import Float32\nRow = Float32[np.ndarray, "n 2"]\n'  # for other processes
GOOD, BAD = torch.zeros(3, 2), torch.zeros(2, 3)
_serial = itertools.count()

Write = Callable[..., str]


@pytest.fixture(params=["compiled", "reference"])
def _engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHAPECHECK_ENGINE", request.param)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a package, whose modules are forgotten afterwards; returns its name."""
    monkeypatch.syspath_prepend(tmp_path)
    names: list[str] = []

    def write_package(source: str, header: str = HEADER, **modules: str) -> str:
        name = f"hooked{next(_serial)}"
        names.append(name)
        (tmp_path / name).mkdir()
        for module, text in {"__init__": header + textwrap.dedent(source), **modules}.items():
            (tmp_path / name / f"{module}.py").write_text(textwrap.dedent(text))
        importlib.invalidate_caches()
        return name

    yield write_package
    for module in [module for module in sys.modules if module.partition(".")[0] in names]:
        del sys.modules[module]


def hooked(name: str) -> types.ModuleType:
    with install_import_hook(name):
        return importlib.import_module(name)


def listed(module: str, name: str) -> tuple[str, str]:
    """Outcome and reason."""
    (found,) = [item for item in hook_report() if (item.module, item.name) == (module, name)]
    return found.outcome, found.reason


def run(code: str, folder: Path, *flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if name not in {"SHAPECHECK", "JAXTYPING_DISABLE"}}
    path = os.pathsep.join([str(folder), str(Path(shapecheck.__file__).parents[1])])
    return subprocess.run(
        [sys.executable, *flags, "-c", textwrap.dedent(code)],
        env={**variables, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


# --- what is put under contract ----------------------------------------------------------------------
KINDS = {
    "function": "def call(x: Row): return x",
    "result": "def call(x) -> Row: return x",
    "lambda inside": "def call(x: Row): return (lambda y: y)(x)",
    "nested function": "def call(x):\n    def inner(y: Row): return y\n    return inner(x)",
    "method": "class A:\n    def f(self, x: Row): return x\ncall = A().f",
    "static method": "class A:\n    @staticmethod\n    def f(x: Row): return x\ncall = A.f",
    "class method": "class A:\n    @classmethod\n    def f(cls, x: Row): return x\ncall = A.f",
    "constructor": "class A:\n    def __init__(self, x: Row): self.x = x\ncall = A",
    "property": "class A:\n    @property\n    def f(self) -> Row: return self.x\ndef call(x):\n    a = A()\n    a.x = x\n    return a.f",
    "cached property": "class A:\n    @functools.cached_property\n    def f(self) -> Row: return self.x\n"
    "def call(x):\n    a = A()\n    a.x = x\n    return a.f",
    "abstract method": "class A(abc.ABC):\n    @abc.abstractmethod\n    def f(self, x: Row): return x\n"
    "class B(A):\n    def f(self, x): return super().f(x)\ncall = B().f",
    "module": "class A(torch.nn.Module):\n    def forward(self, x: Row): return x\ncall = A()",
    "coroutine": "async def f(x: Row): return x\ndef call(x): return asyncio.run(f(x))",
    "generator": "def f(x) -> typing.Iterator[Row]: yield x\ndef call(x): return list(f(x))",
    "decorated function": "@functools.lru_cache\ndef call(x: Row): return x",
    "dataclass": "@dataclasses.dataclass\nclass call:\n    x: Row",
    "named tuple": "class call(typing.NamedTuple):\n    x: Row",
    "overloads": "@typing.overload\ndef call(x: Row) -> Row: ...\n@typing.overload\ndef call(x: int) -> int: ...\n"
    "def call(x: Row | int) -> Row | int: return x",
    "forward reference": "def call(x: 'Later'): return x\nLater = Row",
    "forward reference, coroutine": "async def f(x: 'Later'): return x\ndef call(x): return asyncio.run(f(x))\nLater = Row",
    "forward reference, generator": "def f(x: 'Later'): yield x\ndef call(x): return list(f(x))\nLater = Row",
    "forward reference, record": "@dataclasses.dataclass\nclass call:\n    x: 'Later'\nLater = Row",
    "own class": "class A:\n    def f(self, other: 'A | None', x: Row): return x\ndef call(x): return A().f(A(), x)",
    "jaxtyped, too": "from beartype import beartype\nfrom jaxtyping import jaxtyped\n"
    "@jaxtyped(typechecker=beartype)\ndef call(x: Row): return x",
}


@pytest.mark.violation
@pytest.mark.usefixtures("_engine")
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_annotated_function_and_record_is_put_under_contract(kind: str, write: Write) -> None:
    module = hooked(write(KINDS[kind]))
    module.call(GOOD)
    with pytest.raises((ContractError, TypeError)) as caught:
        module.call(BAD)
    assert kind == "jaxtyped, too" or isinstance(caught.value, ContractError)


@pytest.mark.parametrize("kind", KINDS)
def test_without_the_hook_the_same_source_checks_nothing(kind: str, write: Write) -> None:
    module = importlib.import_module(write(KINDS[kind]))
    if kind != "jaxtyped, too":
        module.call(BAD)


@pytest.mark.violation
def test_whatever_is_seen_of_a_function_from_outside_stays_as_it_was(write: Write) -> None:
    source = '''
    """The docstring."""
    from __future__ import annotations
    from jaxtyping import Float32
    from torch import Tensor
    def first(x: Float32[Tensor, "n 2"], *, y: int = 1) -> None:
        """Text."""
    async def second(x: Float32[Tensor, "n 2"]) -> None: ...
    '''
    names = [write(source, header=""), write(source, header="")]
    plain, checked = importlib.import_module(names[0]), hooked(names[1])
    assert checked.__doc__ == plain.__doc__ == "The docstring."
    for name in ("first", "second"):
        function, original = getattr(checked, name), getattr(plain, name)
        assert inspect.signature(function) == inspect.signature(original)
        assert function.__doc__ == original.__doc__
        assert inspect.iscoroutinefunction(function) == inspect.iscoroutinefunction(original)
        assert inspect.unwrap(function).__code__.co_firstlineno == original.__code__.co_firstlineno
        assert inspect.getsource(function) == inspect.getsource(original)


@pytest.mark.violation
def test_submodules_and_namespace_packages_and_reloaded_modules_are_hooked(write: Write, tmp_path: Path) -> None:
    name = write("", sub=HEADER + "def call(x: Row): return x")
    (tmp_path / name / "__init__.py").unlink()
    with install_import_hook(name):
        sub = importlib.import_module(f"{name}.sub")
        with pytest.raises(ContractError):
            sub.call(BAD)
        (tmp_path / name / "sub.py").write_text(HEADER + "def call(x): return x\ndef other(x: Row): return x")
        sub = importlib.reload(sub)
    sub.call(BAD)
    with pytest.raises(ContractError):
        sub.other(BAD)
    assert listed(f"{name}.sub", "call") == ("nothing to check", "it has no annotations")


@pytest.mark.violation
def test_modules_that_import_each_other_wait_for_names(write: Write) -> None:
    name = write(
        "from . import a",
        a="from . import b\nfrom jaxtyping import Float32\nfrom torch import Tensor\n"
        "def call(x: 'Float32[Tensor, \"n 2\"]', y: 'b.B | None' = None): return x\nclass A: ...",
        b="from . import a\nfrom jaxtyping import Float32\nfrom torch import Tensor\n"
        "class B: ...\ndef call(x: 'Float32[Tensor, \"n 2\"]', y: 'a.A | None' = None): return x",
    )
    module = hooked(name)
    for sub in (module.a, module.b):
        sub.call(GOOD)
        with pytest.raises(ContractError):
            sub.call(BAD)


# --- what is left alone, and listed --------------------------------------------------------------------
SKIPPED = {
    "no annotations": ("def call(x): return x", "nothing to check", "it has no annotations"),
    "no tensor": ("def call(x: object): return x", "nothing to check", "no tensor is annotated"),
    "no_type_check": (
        "@typing.no_type_check\ndef call(x: Row): return x",
        "left alone",
        "typing.no_type_check says so",
    ),
    "TorchScript": (
        "@torch.jit.ignore\ndef call(x: Row): return x",
        "left alone",
        "torch.jit compiles its source (ignore): nothing is checked inside",
    ),
    "no record": ("class Row2(typing.NamedTuple):\n    y: int\ndef call(x): return Row2(1)", "nothing to check", ""),
}


@pytest.mark.violation
@pytest.mark.parametrize("kind", SKIPPED)
def test_what_gets_no_contract_is_listed_with_the_reason(kind: str, write: Write) -> None:
    source, outcome, reason = SKIPPED[kind]
    name = write(source)
    hooked(name).call(BAD)
    assert listed(name, "call") == (outcome, reason or "it has no annotations")


@pytest.mark.violation
def test_a_class_under_no_type_check_is_left_alone(write: Write) -> None:
    name = write(
        "@typing.no_type_check\nclass A:\n    def f(self, x: Row): return x\n"
        "    @staticmethod\n    def g(x: Row): return x\nclass B:\n    def f(self, x: Row): return x"
    )
    module = hooked(name)
    module.A().f(BAD)
    module.A.g(BAD)
    assert listed(name, "A.f") == ("left alone", "typing.no_type_check says so")
    with pytest.raises(ContractError):
        module.B().f(BAD)


@pytest.mark.violation
def test_a_function_with_a_contract_of_its_own_keeps_it(write: Write) -> None:
    name = write(
        "from shapecheck import contract\n@contract(dims={'n': 'k'})\ndef call(x: Row, k: int): return x\n"
        "@contract\ndef plain(x: Row): return x"
    )
    module = hooked(name)
    module.call(GOOD, 3)
    with pytest.raises(ContractError, match="tied to k"):
        module.call(GOOD, 4)
    assert listed(name, "call") == listed(name, "plain") == ("left alone", "@contract is on it, or on its class")


@pytest.mark.violation
def test_the_methods_of_a_class_with_a_contract_of_its_own_keep_its_terms(write: Write) -> None:
    name = write(
        """
        from shapecheck import contract
        @contract(dims={"n": "self.size"})
        class Layer(torch.nn.Module):
            size = 3
            def forward(self, x: Row): return x
        @contract
        @dataclasses.dataclass
        class Sample:
            x: Row
        """
    )
    module = hooked(name)
    module.Layer()(GOOD)
    with pytest.raises(ContractError, match=r"tied to self\.size"):
        module.Layer()(torch.zeros(4, 2))
    with pytest.raises(ContractError):
        module.Sample(BAD)
    assert listed(name, "Layer.forward") == ("left alone", "@contract is on it, or on its class")


@pytest.mark.violation
def test_scripted_functions_are_left_to_torch_jit(write: Write) -> None:
    name = write(
        """
        @torch.jit.ignore
        def ignored(x: Row) -> Row: return x
        def helper(x: Tensor) -> Tensor: return torch.relu(x)
        def later(x: Tensor): return helper(x)
        """
    )
    module = hooked(name)
    assert listed(name, "ignored")[0] == "left alone"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        assert torch.jit.script(module.later)(GOOD).shape == (3, 2)


@pytest.mark.violation
def test_an_annotation_that_makes_no_sense_is_listed_and_warned_of_and_the_rest_is_checked(write: Write) -> None:
    name = write('def call(x: Float32[Tensor, "b>0 2"]): return x\ndef other(x: Row): return x')
    with pytest.warns(
        ContractWarning, match=rf"1 of the functions .* of {name} .* the first being call: Malformed axis"
    ):
        module = hooked(name)
    module.call(BAD)
    outcome, reason = listed(name, "call")
    assert outcome == "refused"
    assert reason.startswith("Malformed axis 'b>0'")
    with pytest.raises(ContractError):
        module.other(BAD)


@pytest.mark.violation
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_name_that_never_exists_is_listed_and_warned_of_at_the_first_call(kind: str, write: Write) -> None:
    name = write(f"if typing.TYPE_CHECKING:\n    from nowhere import Image\n{kind} call(x: 'Image', y: Row): return x")
    module = hooked(name)
    assert listed(name, "call")[0] == "refused"
    assert "'Image' of 'x' of call cannot be resolved" in listed(name, "call")[1].replace("annotation ", "")

    def called() -> Any:
        return asyncio.run(module.call(1, GOOD)) if "async" in kind else module.call(1, GOOD)

    with pytest.warns(ContractWarning, match="call is not checked: The annotation 'Image'"):
        assert called() == 1
    assert called() == 1


@pytest.mark.violation
def test_a_compiled_only_module_is_listed_and_warned_of(write: Write, tmp_path: Path) -> None:
    name = write("", sub="def call(x): return x")
    source = tmp_path / name / "sub.py"
    py_compile.compile(str(source), cfile=str(tmp_path / name / "sub.pyc"))
    source.unlink()
    with install_import_hook(name), pytest.warns(ContractWarning, match="is not checked: it has no Python source"):
        importlib.import_module(f"{name}.sub").call(BAD)
    assert listed(f"{name}.sub", "")[0] == "refused"


@pytest.mark.violation
def test_what_was_imported_before_is_listed_and_warned_of(write: Write) -> None:
    name = write("def call(x: Row): return x", sub="")
    importlib.import_module(f"{name}.sub")
    with pytest.warns(ContractWarning, match=rf"2 modules were imported before .* the first being {name}:") as caught:
        hook = install_import_hook(name)
    hook.uninstall()
    assert caught[0].filename == __file__
    assert listed(f"{name}.sub", "") == ("refused", "it was imported before the hook was installed")


@pytest.mark.violation
@pytest.mark.parametrize("missing", ["no_such_package", "{}.no_such_module", "{}.sub.below", "", "{}."])
def test_a_name_that_matches_nothing_is_an_error(missing: str, write: Write) -> None:
    name = write("", sub="")
    with pytest.raises(ModuleNotFoundError, match="to be a package or module that can be imported"):
        install_import_hook(missing.format(name))
    install_import_hook(f"{name}.sub").uninstall()
    assert name not in sys.modules


@pytest.mark.violation
def test_no_name_at_all_is_an_error() -> None:
    with pytest.raises(ValueError, match="Expected the names of packages, got none"):
        install_import_hook()


@pytest.mark.violation
def test_the_report_counts_and_lists(write: Write) -> None:
    name = write("def one(x: Row): return x\ndef two(x): return x\n@typing.no_type_check\ndef three(x: Row): return x")
    hooked(name)
    mine = hook_report(name)
    assert len(hook_report()) >= len(mine) > len(hook_report(f"{name}.sub")) == 0
    assert mine.summary() == "1 contracted, 0 refused, 1 left alone, 1 with nothing to check"
    assert str(mine).splitlines()[1] == f"{name}.three (line 9): left alone: typing.no_type_check says so"
    assert mine.reasons("nothing to check") == {"it has no annotations": 1}
    assert [item.name for item in mine.of("contracted")] == ["one"]


# --- no trace -----------------------------------------------------------------------------------------------
def test_off_installs_nothing_and_imports_nothing(write: Write, tmp_path: Path) -> None:
    name = write("def call(x: Row): return x", LIGHT)
    code = f"""
        import sys, shapecheck
        before = list(sys.meta_path)
        shapecheck.install_import_hook("{name}", "no_such_package")
        print(sys.meta_path == before, "shapecheck._packages.rewrite" in sys.modules, "shapecheck._diagnosis.engine" in sys.modules)
        import {name}
        print(hasattr({name}, "__shapecheck__"), hasattr({name}.call, "__wrapped__"), len(shapecheck.hook_report()))
    """
    for switch in ({"SHAPECHECK": "off"}, {"JAXTYPING_DISABLE": "1"}):
        assert run(code, tmp_path, **switch).stdout == "True False False\nFalse False 0\n"


def test_a_removed_hook_does_nothing_more(write: Write) -> None:
    name = write("def call(x: Row): return x")
    install_import_hook(name).uninstall()
    importlib.import_module(name).call(BAD)


def test_bytecode_with_contracts_and_without_is_never_mixed_up(write: Write, tmp_path: Path) -> None:
    name = write("def call(x: Row): return x", LIGHT)
    plain = f"import numpy as np, {name}; {name}.call(np.zeros((2, 3), np.float32))"
    with_hook = f"import shapecheck; shapecheck.install_import_hook('{name}'); {plain}"
    cache = tmp_path / name / "__pycache__"
    assert "ContractError" in run(with_hook, tmp_path).stderr
    assert not cache.exists()
    assert run(plain, tmp_path).returncode == 0
    assert cache.exists()
    assert "ContractError" in run(with_hook, tmp_path).stderr
    assert run(plain, tmp_path).returncode == 0


@pytest.mark.violation
def test_two_hooks_on_one_package_put_one_contract_on_it(write: Write) -> None:
    name = write("def call(x: Row): return x")
    with install_import_hook(name), install_import_hook(name):
        module = importlib.import_module(name)
    assert inspect.unwrap(module.call) is module.call.__wrapped__
    with pytest.raises(ContractError):
        module.call(BAD)


# --- beside others ----------------------------------------------------------------------------------------
def test_beartype_claw_on_another_package_does_not_interfere(write: Write, tmp_path: Path) -> None:
    name, other = write("def call(x: Row): return x", LIGHT), write("def call(x: int): return x")
    code = f"""
        import numpy as np, shapecheck
        from beartype.claw import beartype_package
        from beartype.roar import BeartypeCallHintViolation
        beartype_package("{other}")
        shapecheck.install_import_hook("{name}")
        import {name}, {other}
        for module in ({name}, {other}):
            try:
                module.call(np.zeros((2, 3), np.float32))
            except (shapecheck.ContractError, BeartypeCallHintViolation) as error:
                print(type(error).__name__)
    """
    done = run(code, tmp_path)
    assert done.stdout.split() == ["ContractError", "BeartypeCallHintParamViolation"], done.stderr


def test_a_package_that_beartype_claw_compiles_is_listed_and_warned_of(write: Write, tmp_path: Path) -> None:
    name = write("def call(x: Row): return x", LIGHT)
    code = f"""
        import numpy as np, shapecheck
        from beartype.claw import beartype_package
        beartype_package("{name}")
        shapecheck.install_import_hook("{name}")
        import {name}
        print(shapecheck.hook_report())
    """
    done = run(code, tmp_path)
    assert "another import hook compiles it (BeartypeSourceFileLoader)" in done.stdout, done.stderr
    assert f"The module {name} is not checked" in done.stderr


def test_types_are_those_that_are_documented() -> None:
    assert typing.get_type_hints(install_import_hook)["packages"] is str
