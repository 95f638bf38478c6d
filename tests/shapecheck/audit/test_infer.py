"""Inference: what is proposed for which calls, what is said to be unknown, and that a proposal holds where it came from."""

import asyncio
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from projects import Project, annotations, notes

from shapecheck import ContractError
from shapecheck.audit import infer

torch = pytest.importorskip("torch")

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git applies the proposal")

Infer = Callable[..., Any]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path, "inferred_optics")


def calls(function: str, *arguments: tuple[Any, ...]) -> Callable[[ModuleType], None]:
    """One run that calls a function with each of the arguments."""

    def use(module: ModuleType) -> None:
        for given in arguments:
            getattr(module, function)(*given)

    return use


def zeros(*shape: int, dtype: Any = None) -> Any:
    return torch.zeros(shape, dtype=dtype)


# --- dims ---------------------------------------------------------------------------------------------
def test_axes_that_agree_in_every_call_are_one_dim_and_others_are_not(project: Project) -> None:
    project.write("def f(x, y):\n    return x @ y\n")
    sizes = [(3, 4, 5), (4, 5, 3), (6, 4, 4)]
    found = project.inferred(calls("f", *[(zeros(a, b), zeros(b, c)) for a, b, c in sizes]))
    assert annotations(found)["f"] == {
        "x": 'Float32[Tensor, "B C"]',
        "y": 'Float32[Tensor, "C n1"]',
        "return": 'Float32[Tensor, "B n1"]',
    }
    assert notes(found, "f") == []


def test_axes_of_one_size_in_all_runs_get_one_name_and_the_report_says_that_nothing_is_known(project: Project) -> None:
    project.write("def f(x): ...\n")
    same, other = calls("f", (zeros(4, 4, 7),), (zeros(4, 4, 9),)), calls("f", (zeros(3, 5, 7),))
    once = project.inferred(same)
    assert annotations(once)["f"]["x"] == 'Float32[Tensor, "N N W"]'
    assert notes(once, "f") == [
        (
            "N (x axis 0, x axis 1) were all 4 in all 2 calls of 1 run: whether they are one dim, several or "
            "the number 4 is not known, run once more with other sizes"
        )
    ]
    twice = project.inferred(same, other)
    assert annotations(twice)["f"]["x"] == 'Float32[Tensor, "B H W"]'
    assert notes(twice, "f") == []


def test_an_axis_that_agreed_at_one_size_only_is_said_to_be_open(project: Project) -> None:
    project.write("def f(x, y=None): ...\n")
    found = project.inferred(calls("f", (zeros(3),), (zeros(5),), (zeros(5), zeros(5))))
    assert annotations(found)["f"] == {
        "x": 'Float32[Tensor, " n"]',
        "y": 'Float32[Tensor, " n"] | None',
        "return": "None",
    }
    assert notes(found, "f") == ["y axis 0 was equal to n at a single size: run it once more with others"]


def test_a_number_is_written_only_where_several_runs_agree_while_other_sizes_change(project: Project) -> None:
    project.write("def f(x): ...\n")
    few, many = calls("f", (zeros(3, 2),), (zeros(5, 2),)), calls("f", (zeros(7, 2),))
    once = project.inferred(few)
    assert annotations(once)["f"]["x"] == 'Float32[Tensor, "B C"]'
    assert notes(once, "f") == [
        "C (x axis 1) was 2 in all 2 calls of 1 run: run once more with another size, or write 2 if that is meant"
    ]
    twice = project.inferred(few, many)
    assert annotations(twice)["f"]["x"] == 'Float32[Tensor, "B 2"]'
    assert notes(twice, "f") == ["2 (x axis 1): did not change in all 3 calls of 2 runs, while other sizes did"]
    stuck = project.inferred(calls("f", (zeros(3, 2),)), calls("f", (zeros(3, 2),)))
    assert annotations(stuck)["f"]["x"] == 'Float32[Tensor, "B C"]', "nothing changed, so that nothing is a constant"


@pytest.mark.parametrize(
    ("body", "result"),
    [
        ("torch.cat([x, x], 1)", "B 2*C"),
        ("x[:, ::2]", "B n1"),
        ("x[:, : x.shape[1] // 2]", "B C//2"),
        ("torch.nn.functional.pad(x, (1, 0))", "B C+1"),
        ("x[:, 1:]", "B C-1"),
        ("x.flatten()", "B*C"),
        ("x.new_zeros(x.shape[0] + x.shape[1])", "B+C"),
        ("x.new_zeros(k)", "{k}"),
        ("x.new_zeros(2 * k, x.shape[0])", "2*{k} B"),
    ],
)
def test_simple_relations_of_results_are_found(project: Project, body: str, result: str) -> None:
    project.write(f"import torch\n\n\ndef f(x, k):\n    return {body}\n")
    sizes = [(3, 8, 2), (5, 6, 11), (2, 13, 7), (4, 17, 9)]
    found = project.inferred(calls("f", *[(zeros(b, c), k) for b, c, k in sizes]))
    text = f" {result}" if result.isidentifier() else result
    assert annotations(found)["f"]["return"] == f'Float32[torch.Tensor, "{text}"]'


def test_a_relation_needs_three_sizes(project: Project) -> None:
    project.write("import torch\n\n\ndef f(x):\n    return torch.cat([x, x])\n")
    found = project.inferred(calls("f", (zeros(3),), (zeros(5),)))
    assert annotations(found)["f"]["return"] == 'Float32[torch.Tensor, " n1"]'


def test_relations_that_held_together_are_both_named(project: Project) -> None:
    project.write("def f(x, k):\n    return x.new_zeros(k)\n")
    found = project.inferred(calls("f", *[(zeros(n), 2 * n) for n in (3, 5, 7)]))
    assert annotations(found)["f"]["return"] == 'Float32[Tensor, "{k}"]'
    assert notes(found, "f") == [
        "return axis 0: {k} held in all 3 calls of 1 run, and so did 2*n: run it where they differ"
    ]


def test_leading_axes_that_come_and_go_are_variadic(project: Project) -> None:
    project.write("def f(x, w):\n    return x * w\n")
    shapes = [(5,), (3, 7), (2, 3, 4)]
    found = project.inferred(calls("f", *[(zeros(*shape), zeros(shape[-1])) for shape in shapes]))
    assert annotations(found)["f"] == {
        "x": 'Float32[Tensor, "*batch n"]',
        "w": 'Float32[Tensor, " n"]',
        "return": 'Float32[Tensor, "*batch n"]',
    }


def test_items_of_one_call_that_differ_have_no_name(project: Project) -> None:
    project.write("def f(xs): ...\n")
    found = project.inferred(calls("f", ([zeros(3, 5), zeros(4, 5)],), ([zeros(3, 7)],)))
    assert annotations(found)["f"]["xs"] == 'list[Float32[Tensor, "_ C"]]'


def test_a_dict_of_unlike_arrays_is_said_to_want_a_typed_dict(project: Project) -> None:
    project.write("def f(batch): ...\n")
    batches = [({"images": zeros(b, 8, 8), "offsets": zeros(b, 2)},) for b in (3, 5)]
    found = project.inferred(calls("f", *batches))
    assert annotations(found)["f"]["batch"] == 'dict[str, Float32[Tensor, "B ..."]]'
    assert notes(found, "f") == ["batch: its keys have shapes of their own, which a TypedDict would say one by one"]
    unlike = project.inferred(calls("f", ({"a": zeros(3, 8, 8), "b": zeros(4, 2)},)))
    assert annotations(unlike)["f"]["batch"] == 'dict[str, Float32[Tensor, "... _ _"]]'
    alike = project.inferred(calls("f", ({"a": zeros(3, 8), "b": zeros(3, 8)},)))
    assert not any("TypedDict" in note for note in notes(alike, "f"))


# --- dtypes, containers, plain values -----------------------------------------------------------------
@pytest.mark.parametrize(
    ("values", "annotation"),
    [
        ([zeros(3), zeros(5, dtype=torch.complex64)], 'Float32[Tensor, " n"] | Complex64[Tensor, " n"]'),
        ([zeros(3), zeros(5, dtype=torch.float64)], 'Float[Tensor, " n"]'),
        ([zeros(3, dtype=torch.bfloat16)], 'BFloat16[Tensor, " n"]'),
        ([zeros(3, dtype=torch.int64), zeros(3, dtype=torch.int32)], 'Int[Tensor, " n"]'),
        ([zeros(3, dtype=torch.uint8), zeros(3, dtype=torch.bool)], 'UInt8[Tensor, " n"] | Bool[Tensor, " n"]'),
        ([zeros()], 'Float32[Tensor, ""]'),
        ([zeros(3), None], 'Float32[Tensor, " n"] | None'),
        ([np.zeros(3)], 'Float64[np.ndarray, " n"]'),
        ([np.zeros(3), zeros(4)], 'Float32[Tensor, " n"] | Float64[np.ndarray, " n"]'),
        ([np.array(["a"])], 'Shaped[np.ndarray, " n"]'),
        ([zeros(3), 2.0, 1], 'Float32[Tensor, " n"] | float'),
        ([(zeros(3), 2)], 'tuple[Float32[Tensor, " n"], int]'),
        ([(zeros(3),), (zeros(3), zeros(3))], 'tuple[Float32[Tensor, " n"], ...]'),
        ([[zeros(3)], (zeros(3),)], 'Sequence[Float32[Tensor, " n"]]'),
        ([{"x": zeros(3), "y": zeros(3)}], 'dict[str, Float32[Tensor, " n"]]'),
        ([[(zeros(3), object())]], 'list[tuple[Float32[Tensor, " n"], Any]]'),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@needs_git
def test_what_was_seen_is_written_and_holds_under_contract(
    project: Project, values: list[Any], annotation: str
) -> None:
    project.write("def f(x): ...\n")
    use = calls("f", *[(value,) for value in values])
    found = project.inferred(use)
    assert annotations(found)["f"]["x"] == annotation
    project.applied(found)
    project.used_under_contract(use)


@pytest.mark.violation
@needs_git
def test_what_was_not_seen_is_refused_after_the_proposal_was_applied(project: Project) -> None:
    project.write("def f(x, y): ...\n")
    use = calls("f", (zeros(3, 4), zeros(4, 2)), (zeros(5, 3), zeros(3, 7)))
    project.applied(project.inferred(use))
    project.used_under_contract(use)
    with pytest.raises(ContractError, match=r"parameter 'y': .*, y\.permute\(1, 0\) fits"):
        project.used_under_contract(calls("f", (zeros(3, 4), zeros(2, 4))))


def test_what_no_array_goes_through_is_left_alone(project: Project) -> None:
    project.write("def f(x, n):\n    return n\ndef g(): ...\n")
    found = project.inferred(calls("f", (1, 2), ("a", None)))
    assert (found.proposals, found.patch, found.never_called) == ([], "", ["inferred_optics.g"])


def test_what_shapes_do_not_tell_is_left_alone_and_named(project: Project) -> None:
    project.write(
        "A = 1.0\n\n\ndef f(x, config, nothing, eps=A):\n    if config is None:\n        return\n    return x\n"
    )
    found = project.inferred(calls("f", (zeros(3), object(), None)))
    assert annotations(found)["f"].keys() == {"x", "return"}
    assert notes(found, "f")[:4] == [
        "config: an object of a class, left alone",
        "nothing: nothing but None was seen",
        "eps: an object of a class, left alone",
        "return: the source can return None, which no call did",
    ]


def test_calls_that_end_in_an_error_are_no_example(project: Project) -> None:
    project.write("def f(x):\n    if x.ndim != 1:\n        raise ValueError\n    return x\n")

    def use(module: Any) -> None:
        module.f(zeros(3))
        with pytest.raises(ValueError, match=r"^$"):
            module.f(zeros(3, 4))

    assert annotations(project.inferred(use))["f"]["x"] == 'Float32[Tensor, " n"]'


# --- words of the package -----------------------------------------------------------------------------
def test_annotations_that_are_there_are_kept_and_their_dims_are_used(project: Project) -> None:
    project.write(
        "from jaxtyping import Float32\nfrom torch import Tensor\n\n\n"
        'def f(images: Float32[Tensor, "groups side side"], offsets: Tensor, n: int): ...\n'
        "def g(images): ...\n"
    )

    def use(module: Any) -> None:
        for b, n in ((3, 4), (5, 6)):
            module.f(zeros(b, n, n), zeros(b, 2), n)
            module.g(zeros(b, n, n))

    found = project.inferred(use, use)
    assert annotations(found) == {
        "f": {"offsets": 'Float32[Tensor, "groups 2"]', "return": "None"},
        "g": {"images": 'Float32[Tensor, "groups side side"]', "return": "None"},
    }


REGISTRY = """
from jaxtyping import Float32
from torch import Tensor
from shapecheck import Axes
from shapecheck.axes import Dim
Axes(S=Dim("scans", size=range(1, 9)), N="side", B=Dim(tied="gridsize"), X="x").register(__name__)
ProbeStack = Float32[Tensor, "S N N"]
def f(probe, other): ...
def g(x, gridsize): ...
def h(a, b): ...
"""


@needs_git
def test_a_package_with_a_registry_is_given_no_other_dims(project: Project) -> None:
    project.name = "inferred_registry"  # a registry stays for the name, and is for no other test
    project.write(REGISTRY)

    def use(module: Any) -> None:
        for s, n in ((3, 4), (5, 6)):
            module.f(zeros(s, n, n), zeros(s, 40 + n))
            module.g(zeros(s, n), n)
            module.h(zeros(s, 2), zeros(n, 41 + n, s + n, n + 1))

    found = project.inferred(use, use)
    texts = annotations(found)
    assert texts["f"] == {"probe": 'Float32[Tensor, "S N N"]', "other": 'Float32[Tensor, "S B"]', "return": "None"}
    assert texts["g"]["x"] == 'Float32[Tensor, "S N"]', "B is tied to gridsize, which it was not"
    assert texts["h"] == {"a": 'Float32[Tensor, "B 2"]', "b": 'Float32[Tensor, "S N X _"]', "return": "None"}
    assert notes(found, "h")[1:] == [
        "S (b axis 0), N (b axis 1), X (b axis 2): so called because the registry allows it and it was free",
        "_ (b axis 3): the registry has no name left",
    ]
    project.applied(found)
    project.used_under_contract(use)


def test_no_dim_is_called_like_a_parameter(project: Project) -> None:
    project.write("def f(B, n, N): ...\n")
    found = project.inferred(calls("f", (zeros(3, 4), zeros(5), zeros(7, 7))))
    assert annotations(found)["f"] == {
        "B": 'Float32[Tensor, "n1 C"]',
        "n": 'Float32[Tensor, " n2"]',
        "N": 'Float32[Tensor, "M M"]',
        "return": "None",
    }


# --- functions of every kind --------------------------------------------------------------------------
KINDS = """
import contextlib
import torch
from collections.abc import Iterator
from typing import Optional
from torch import Tensor, nn

class Net(nn.Module):
    def __init__(self, d, scale):
        super().__init__()
        self.scale = scale
        self.lin = nn.Linear(d, 2 * d)
    def forward(self, x: Tensor, mask: Optional[torch.Tensor] = None) -> Tensor: return self.lin(x)
    @staticmethod
    def still(x, /, *, keep=1):
        yield x[:keep]
    @classmethod
    def made(cls, *xs, **named): return cls(len(xs[0]), xs[0]), named["y"]
    @property
    def size(self): return self.scale
    @size.setter
    def size(self, value): self.scale = value
    @contextlib.contextmanager
    def scaled(self, x): yield x * self.scale

async def later(x): return x.sum()
async def more(x):
    yield x
    yield x
def kept(xs: list[Tensor], pair: tuple[Tensor, int], y: "Tensor", z: Tensor = None) -> Iterator[Tensor]:
    yield from xs
def pieces(x) -> Iterator[Tensor]:
    for item in x: yield item
def outer(x):
    def inner(y): return y
    return inner(x)
"""


def use_kinds(module: Any) -> None:
    async def wait(x: Any) -> None:
        await module.later(x)
        assert [item.shape async for item in module.more(x)] == [x.shape, x.shape]

    for b, d in ((3, 4), (5, 6), (2, 9)):
        net, y = module.Net.made(zeros(d), zeros(d), y=zeros(b, d))
        assert list(net(y).shape) == [b, 2 * d]
        net(y, zeros(b, d))
        assert len(next(net.still(zeros(15, d), keep=d))) == d
        net.size = net.size + 1
        with net.scaled(y):
            pass
        asyncio.run(wait(y))
        list(module.kept([y], (y, 1), y))
        list(module.kept([y], (y, 1), y, y))
        list(module.pieces(y))
        module.outer(y)


@needs_git
def test_functions_of_every_kind_are_annotated_and_hold_under_contract(project: Project) -> None:
    project.write(KINDS)
    found = project.inferred(use_kinds, use_kinds)
    assert annotations(found) == {
        "Net.__init__": {"d": "int", "scale": 'Float32[Tensor, " n"]', "return": "None"},
        "Net.forward": {
            "x": 'Float32[Tensor, "B C"]',
            "mask": 'Float32[Tensor, "B C"]',
            "return": 'Float32[Tensor, "B 2*C"]',
        },
        "Net.still": {
            "x": 'Float32[Tensor, "15 C"]',
            "keep": "int",
            "return": 'Iterator[Float32[Tensor, "C C"]]',
        },
        "Net.made": {
            "xs": 'Float32[Tensor, " n"]',
            "named": 'Float32[Tensor, "B n"]',
            "return": 'tuple[Any, Float32[Tensor, "B n"]]',
        },
        "Net.size": {"value": 'Float32[Tensor, " n"]', "return": "None"},
        "Net.scaled": {"x": 'Float32[Tensor, "B C"]', "return": 'Iterator[Float32[Tensor, "B C"]]'},
        "later": {"x": 'Float32[Tensor, "B C"]', "return": 'Float32[Tensor, ""]'},
        "more": {"x": 'Float32[Tensor, "B C"]', "return": 'AsyncIterator[Float32[Tensor, "B C"]]'},
        "kept": {
            "xs": 'Float32[Tensor, "B C"]',
            "pair": 'Float32[Tensor, "B C"]',
            "z": 'Float32[Tensor, "B C"] | None',
        },
        "pieces": {"x": 'Float32[Tensor, "B C"]', "return": 'Float32[Tensor, " C"]'},
        "outer": {"x": 'Float32[Tensor, "B C"]', "return": 'Float32[Tensor, "B C"]'},
    }
    project.applied(found)
    project.used_under_contract(use_kinds)


def test_what_is_compiled_by_others_is_left_alone_and_torch_compile_is_not_disturbed(project: Project) -> None:
    project.write(
        "import torch\n\n\n@torch.jit.ignore\ndef f(x):\n    return x\n\n\ndef g(x):\n    return x + 1\n"
        "def h(x):\n    return [locals(), x][1]\n"
    )

    def use(module: Any) -> None:
        module.f(zeros(3))
        module.h(zeros(3))
        compiled = torch.compile(module.g, backend="eager", fullgraph=True)
        assert torch.equal(compiled(zeros(3)), torch.ones(3))
        module.g(zeros(3, 4))

    found = project.inferred(use)
    assert annotations(found) == {"g": {"x": 'Float32[torch.Tensor, "B C"]', "return": 'Float32[torch.Tensor, "B C"]'}}


# --- the package that carries contracts ---------------------------------------------------------------
def test_a_file_that_has_changed_since_is_not_edited(project: Project) -> None:
    path = project.write("def f(x):\n    return x\ndef g(x):\n    return x\n")

    def use(module: Any) -> None:
        module.f(zeros(3))
        module.g(zeros(3))
        path.write_text("\n\n\ndef f(y):\n    return y\ndef g(x):\n    return x\n")

    found = project.inferred(use)
    assert found.skipped == {"inferred_optics.f": "the source has changed since it was recorded"}
    assert annotations(found).keys() == {"g"}
    assert "def f" not in found.patch.replace(" def f", "")


def test_a_file_that_is_no_recording_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "some.json"
    file.write_text('{"format": "other"}')
    with pytest.raises(ValueError, match="to be a recording that shapecheck infer has written"):
        infer(file)


def test_git_takes_the_proposal_with_its_comments(project: Project) -> None:
    project.write("def f(x): ...\n")
    found = project.inferred(calls("f", (zeros(3),)))
    assert str(found).startswith("# 1 function of 1 gets annotations, from 1 call in 1 run.\n# An annotation is")
    done = subprocess.run(["git", "apply", "--check", "-"], input=str(found).encode(), cwd=project.folder, check=False)
    assert done.returncode == 0
