"""The historical bug, caught by the import hook alone: an annotated function is enough, nobody decorated anything."""

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import shapecheck
from ptycho_torch.dataloader import PtychoGroupDataset
from ptycho_torch.drift import _loader, _stage, drifted_loader, replay  # the parts that the replay rests on
from ptycho_torch.scan import Scan
from ptycho_torch.simulate import simulate_natural_scan

STEP = """
from ptycho_torch.contracts import Batch
def training_step(batch: Batch) -> None: ...
"""


@pytest.fixture(scope="module")
def scan() -> Scan:
    return simulate_natural_scan(patch_size=16, n_rows=6, n_columns=7, step=3.0, jitter=1.0)


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], ModuleType]]:
    """Imports a module of somebody else's that takes batches."""
    (tmp_path / "somebody_else.py").write_text(STEP)
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda: importlib.import_module("somebody_else")
    del sys.modules["somebody_else"]


def batches(scan: Scan, channels: int) -> tuple[Any, Any]:
    """The drifted batch and the right one, of loaders that check nothing."""
    container = _stage(scan, channels, seed=0).container
    with shapecheck.mode("off"):
        return next(iter(drifted_loader(container))), next(iter(_loader(PtychoGroupDataset(container))))


def first_line(text: str) -> str:
    """The first line without the boundary, and without the path where there is room to repeat it."""
    known = r"somebody_else\.training_step|ptycho_torch\.dataloader\.batch_contract"
    return re.sub(known, "BOUNDARY", text.splitlines()[0]).replace(": batch[0]['coords_relative'].", ": .")


@pytest.mark.violation
@pytest.mark.parametrize("channels", [1, 2, 4])
def test_the_import_hook_alone_says_in_its_first_line_what_the_loader_would_have_said(scan, trainer, channels):
    with shapecheck.install_import_hook("somebody_else"):
        module = trainer()
    drifted, right = batches(scan, channels)
    module.training_step(right)
    with pytest.raises(shapecheck.ContractError) as caught:
        module.training_step(drifted)
    assert {first_line(str(caught.value)), first_line(replay(scan, channels).refusal)} == {
        "ContractError [axis-order]: BOUNDARY, parameter \"batch[0]['coords_relative']\": .permute(0, 3, 1, 2) fits"
    }


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_without_the_hook_the_same_function_takes_the_drifted_batch(scan, trainer, channels):
    drifted, _ = batches(scan, channels)
    trainer().training_step(drifted)
