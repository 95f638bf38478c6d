"""What every test may use: where the shared scans lie, and which tests cannot run here."""

import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import shapecheck

REPOSITORY = Path(__file__).resolve().parents[1]

if find_spec("torch") is not None:  # the environments `numpy` do without
    import torch
else:
    torch = None

SHARED = REPOSITORY.parent / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reasons = {}
    if not shapecheck.enabled():
        reasons["violation"] = "checking is off, so no contract can fail"
    if torch is None or not torch.cuda.is_available():
        reasons["gpu"] = "no CUDA device"
    for item in items:
        for marker, reason in reasons.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small tensors are slower on several threads, and sums must not depend on how many there are."""
    if torch is not None:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the repository that holds scans, reference vectors and the quality measure."""
    if not SHARED.is_dir():
        pytest.skip(f"no shared folder beside the repository ({SHARED})")
    return SHARED


@pytest.fixture
def importable_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a spawned process import what is defined in a test; installed packages still come first."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(REPOSITORY)])


@pytest.fixture(params=["compiled", "reference"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each of the engines by which contracts that a test defines are checked."""
    monkeypatch.setenv("SHAPECHECK_ENGINE", request.param)
    if shapecheck.enabled():
        monkeypatch.setattr("shapecheck._boundaries.check._checkers", {})  # which remember the engine
    return request.param


@pytest.fixture(scope="module")  # not longer: while it is open, no other event loop can run in this process
def browser() -> Iterator[Any]:
    """Open a headless Chromium; what needs it is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()
