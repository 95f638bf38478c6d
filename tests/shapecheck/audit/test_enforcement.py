"""Every parameter of both packages is accounted for: no annotation that accepts anything got there by accident."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from shapecheck.audit import Enforcement, enforcement

pytest.importorskip("torch")

pytestmark = pytest.mark.violation  # with checking off there are no contracts to look at

SOURCE = """
import dataclasses
from typing import Any, TypedDict, TypeVar
from jaxtyping import Float32
from torch import Tensor
from shapecheck import contract

T = TypeVar("T")
Image = Float32[Tensor, "h w"]

@contract
def checked(x: Image, y: "list[Image]", name: str, rest: Any, other: T, silent=None) -> Image:
    return x

@contract
def by_reference(x: Float32[Tensor, "*#s"], y: Float32[Tensor, "*#s"]) -> None: ...

def forgotten(x: Image, n: int) -> None: ...

@contract
@dataclasses.dataclass
class Record:
    x: Image
    n: int

@dataclasses.dataclass
class Loose:
    x: Image

    @contract
    def use(self, x: Image) -> Any: ...

class Fields(TypedDict):
    x: Image
"""


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], str]:
    path: Path = tmp_path_factory.mktemp("audited") / "audited_module.py"
    path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
        found = enforcement(path.stem)
    finally:
        del sys.modules[path.stem]
    return {(row.function.removeprefix("audited_module."), row.parameter): row.how for row in found}


def test_every_parameter_is_reported_with_how_it_is_enforced(audited: dict[tuple[str, str], str]) -> None:
    assert audited == {
        ("checked", "x"): "compiled",
        ("checked", "y"): "compiled",
        ("checked", "name"): "beartype",
        ("checked", "rest"): "anything",
        ("checked", "other"): "anything",
        ("checked", "silent"): "not annotated",
        ("checked", "return"): "compiled",
        ("by_reference", "x"): "reference",
        ("by_reference", "y"): "reference",
        ("by_reference", "return"): "beartype",
        ("forgotten", "x"): "tensor without contract",
        ("forgotten", "n"): "no contract",
        ("forgotten", "return"): "no contract",
        ("Record", "x"): "compiled",
        ("Record", "n"): "beartype",
        ("Loose", "x"): "where it crosses",
        ("Loose.use", "x"): "compiled",
        ("Loose.use", "return"): "anything",
        ("Fields", "x"): "where it crosses",
    }


def test_an_entry_of_the_report_is_one_line() -> None:
    row = Enforcement("package.function", "x", "", "not annotated")
    assert str(row) == "package.function, x: -: not annotated"


# What says something of a tensor, or accepts anything, and has no contract of its own: for each the reason.
EXPLAINED = {
    "ptycho_torch.dataloader.PtychoGroupDataset.__getitem__": "the loader checks what the data set gives, once a batch",
    "ptycho_torch.dataloader.PtychoGroupDataset.__getitems__": "likewise",
    "ptycho_torch.drift._merge": "is given batches that are wrong on purpose",
    "ptycho_torch.figures._draw_image": "private, and called by functions with a contract",
    "ptycho_torch.figures._save_single": "likewise",
    "ptycho_torch.formats.contents.Contents.required": "a field by name, which the record has checked",
    "ptycho_torch.formats.patterns.Patterns.__init__": "abstract: what derives from it has the contract",
    "ptycho_torch.learner.PtychoLearner._logged": "private, and called by steps with a contract",
    "ptycho_torch.learner.PtychoLearner._loss": "likewise",
    "ptycho_torch.reconstruction.ObjectPredictor.reconstruct": "a protocol: what implements it has the contract",
}
OPEN = {"anything", "not annotated", "tensor without contract"}


@pytest.mark.parametrize("package", ["ptycho_torch", "shapecheck"])
def test_nothing_is_open_by_accident(package: str) -> None:
    pytest.importorskip("lightning", reason="the pipeline needs it")
    rows = enforcement(package)
    assert len(rows) > 100
    unexplained = [str(row) for row in rows if row.how in OPEN and row.function not in EXPLAINED]
    assert unexplained == []


def test_every_explanation_is_about_something() -> None:
    pytest.importorskip("lightning", reason="the pipeline needs it")
    assert EXPLAINED.keys() <= {row.function for row in enforcement("ptycho_torch") if row.how in OPEN}
