"""Packages that a test writes, runs under watch, and changes as is proposed."""

import contextlib
import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from shapecheck import hook_report, install_import_hook
from shapecheck._watching.calls import Run
from shapecheck.audit import Inference, infer, watch_calls

Use = Callable[[Any], object]


class Project:
    """A module or package in a folder of its own, imported anew each time."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name

    def write(self, source: str, file: str | None = None) -> Path:
        path = self.folder / (file or f"{self.name}.py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.encode())
        return path

    @contextlib.contextmanager
    def importable(self) -> Iterator[None]:
        """Let it be imported; forget it afterwards."""
        sys.path.insert(0, str(self.folder))
        importlib.invalidate_caches()
        try:
            yield
        finally:
            sys.path.remove(str(self.folder))
            for name in [name for name in sys.modules if f"{name}.".startswith(f"{self.name}.")]:
                del sys.modules[name]

    def watched(self, use: Use, module: str | None = None) -> Run:
        """What is seen while it is used."""
        with self.importable(), watch_calls(self.name) as run:
            use(importlib.import_module(module or self.name))
        return run

    def inferred(self, *uses: Use, module: str | None = None) -> Inference:
        """What is proposed after one run for each of the uses."""
        return infer(*[self.watched(use, module) for use in uses])

    def applied(self, inference: Inference) -> None:
        """Change the source as git does, with all comments of the proposal in the patch."""
        subprocess.run(["git", "apply", "-"], input=str(inference).encode(), cwd=self.folder, check=True)

    def used_under_contract(self, *uses: Use, module: str | None = None) -> None:
        """Use it with everything that is annotated under contract, and nothing refused."""
        for use in uses:
            with self.importable(), install_import_hook(self.name):
                use(importlib.import_module(module or self.name))
        assert hook_report(self.name).of("refused") == []


def annotations(inference: Inference) -> dict[str, dict[str, str]]:
    """What is proposed, by function and parameter."""
    return {proposal.function.name: proposal.annotations for proposal in inference.proposals}


def notes(inference: Inference, function: str) -> list[str]:
    (proposal,) = [proposal for proposal in inference.proposals if proposal.function.name == function]
    return proposal.notes
