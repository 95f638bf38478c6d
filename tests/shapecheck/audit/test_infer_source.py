"""How a proposal changes source: nothing but annotations and imports, laid out as formatters would."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from projects import Project, notes

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git applies the proposal")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path, "inferred_source")


def use_f(module: Any) -> None:
    module.f(torch.zeros(3, 4))


def changed(project: Project, source: str) -> str:
    """What becomes of a source whose function `f` is called with an array."""
    path = project.write(source)
    project.applied(project.inferred(use_f))
    return path.read_bytes().decode()


X = 'x: Float32[Tensor, "B C"]'
IMPORTS = "from jaxtyping import Float32\nfrom torch import Tensor\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("def f(x): pass\n", f"{IMPORTS}\ndef f({X}) -> None: pass\n"),
        ("def f(x):\n    pass", f"{IMPORTS}\ndef f({X}) -> None:\n    pass"),
        ("def f( x,) : pass # why\n", f"{IMPORTS}\ndef f( {X},) -> None : pass # why\n"),
        (
            "def f(x, é='é', *, n  =  -1): pass\n",
            f"{IMPORTS}\ndef f({X}, é: str = 'é', *, n: int = -1) -> None: pass\n",
        ),
        ("def f(x, /, y=()): pass\n", f"{IMPORTS}\ndef f({X}, /, y: tuple[()] = ()) -> None: pass\n"),
        ("def f(\n    x,  # what\n    # why\n    n=\\\n    1\n): pass\n", None),
        ('"""Doc."""\n\n\ndef f(x):\n    pass\n', f'"""Doc."""\n\n{IMPORTS}\n\ndef f({X}) -> None:\n    pass\n'),
    ],
)
def test_only_annotations_and_imports_are_added(project: Project, before: str, after: str | None) -> None:
    if after is None:
        after = f"{IMPORTS}\ndef f(\n    {X},  # what\n    # why\n    n: int = \\\n    1\n) -> None: pass\n"
    assert changed(project, before) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("import torch\n", "import torch\nfrom jaxtyping import Float32\n"),
        ("from torch import Tensor as T\n", "from jaxtyping import Float32\nfrom torch import Tensor as T\n"),
        ("import math\n\nimport torch\n", "import math\n\nimport torch\nfrom jaxtyping import Float32\n"),
        ("import math\n", "import math\n\nfrom jaxtyping import Float32\nfrom torch import Tensor\n"),
        ("from torch import nn\n", "from jaxtyping import Float32\nfrom torch import Tensor, nn\n"),
        (
            "from jaxtyping import Bool, Int\nfrom torch import nn, Tensor\n",
            "from jaxtyping import Bool, Float32, Int\nfrom torch import nn, Tensor\n",
        ),
        ("import jaxtyping\nimport torch as t\n", "import jaxtyping\nimport torch as t\n"),
        (
            "import torch\n\nfrom . import other\n",
            "import torch\nfrom jaxtyping import Float32\n\nfrom . import other\n",
        ),
        ("from . import other\n", "from jaxtyping import Float32\nfrom torch import Tensor\n\nfrom . import other\n"),
        (
            "import torch\n\nfrom inferred_source import other\n",
            "import torch\nfrom jaxtyping import Float32\n\nfrom inferred_source import other\n",
        ),
        ("import torch\nFloat32 = 1\n", "import jaxtyping\nimport torch\nFloat32 = 1\n"),
        (
            "from __future__ import annotations\nimport torch\n",
            "from __future__ import annotations\nimport torch\nfrom jaxtyping import Float32\n",
        ),
    ],
)
def test_imports_are_those_that_are_missing_where_they_belong(project: Project, before: str, after: str) -> None:
    project.write("", "inferred_source/other.py")
    path = project.write(f"{before}def f(x): ...\n", "inferred_source/__init__.py")
    project.applied(project.inferred(use_f))
    found, _, function = path.read_text().partition("def f")
    assert found == after
    array = {"as T": "T", "as t": "t.Tensor", "import torch\n": "torch.Tensor"}
    name = next((name for mark, name in array.items() if mark in before), "Tensor")
    prefix = "jaxtyping." if "import jaxtyping" in after else ""
    assert function == f'(x: {prefix}Float32[{name}, "B C"]) -> None: ...\n'


@pytest.mark.parametrize(
    ("before", "lines"),
    [
        ("def f(x, first_of_many=1, second_of_many=2.0): ...", [
            "def f(",
            '    x: Float32[Tensor, "B C"], first_of_many: int = 1, second_of_many: float = 2.0',
            ") -> None: ...",
        ]),
        ("def f(x, first_of_many_parameters=1, second_of_many=2.0):  # noqa: X1\n    pass", [
            "def f(  # noqa: X1",
            '    x: Float32[Tensor, "B C"],',
            "    first_of_many_parameters: int = 1,",
            "    second_of_many: float = 2.0,",
            ") -> None:",
            "    pass",
        ]),
        ("def f(\n    x, first_of_many_parameters=1,\n    *, second_of_many=2.0,\n):\n    pass", [
            "def f(",
            '    x: Float32[Tensor, "B C"], first_of_many_parameters: int = 1,',
            "    *, second_of_many: float = 2.0,",
            ") -> None:",
            "    pass",
        ]),
    ],
    ids=["together", "one by one", "short enough"],
)  # fmt: skip
def test_signatures_that_become_too_long_are_broken_as_formatters_do(
    project: Project, before: str, lines: list[str]
) -> None:
    project.write("[tool.black]\nline-length = 88\n", "pyproject.toml")
    assert changed(project, before).split("\n\n", 1)[1].splitlines() == lines


def test_the_line_length_is_that_of_the_project(project: Project) -> None:
    project.write("line-length = 120\n", "ruff.toml")
    text = changed(project, "def f(x, first_of_many=1, second_of_many=2.0): ...")
    assert text.splitlines()[-1].endswith("second_of_many: float = 2.0) -> None: ...")


def test_a_formatter_finds_nothing_to_change(project: Project) -> None:
    pytest.importorskip("ruff")
    source = '"""Doc."""\n\nimport math\n\nimport torch\n\n\ndef f(x, first_of_many=1, second_of_many_ones=math.pi):  # noqa: N802\n'
    path = project.write(source + "    return torch.cat([x, x], 1), [x, x], {1: x}\n")
    project.applied(project.inferred(use_f))
    for options in (["format", "--check"], ["check", "--select=I,E,F", "--ignore=F722"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *options, path], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout


def test_line_ends_and_encodings_are_kept(project: Project) -> None:
    text = changed(project, "def f(x):\r\n    return 'é'\r\n")
    assert text.replace("\r\n", "\n") == f"{IMPORTS}\ndef f({X}) -> str:\n    return 'é'\n"
    assert text.count("def f") == 1
    assert ") -> str:\r\n" in text


def test_the_getter_and_the_setter_of_one_name_are_told_apart(project: Project) -> None:
    project.write(
        "class A:\n    @property\n    def p(self): return 1\n    @p.setter\n    def p(self, value): pass\n"
        "def f(x): A().p = x; A().p\n"
    )
    found = project.inferred(use_f)
    assert [(proposal.function.name, proposal.line) for proposal in found.proposals] == [("A.p", 5), ("f", 6)]
    assert notes(found, "A.p") == [
        "B (value axis 0) was 3 in the only call: run once more with another size, or write 3 if that is meant",
        "C (value axis 1) was 4 in the only call: run once more with another size, or write 4 if that is meant",
    ]
