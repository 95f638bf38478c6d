"""A pytest plugin that takes one contract away, to see whether the suite notices (``STRIP_CONTRACT`` says which)."""

import importlib
import inspect
import os
from collections.abc import Callable
from typing import Any

from shapecheck import mode


def _without_check(declare: Callable[..., Any]) -> Callable[..., Any]:
    def declare_off(*args: Any, **kwargs: Any) -> Any:
        with mode("off"):
            return declare(*args, **kwargs)

    return declare_off


STRIPPED = {
    "translation": ("ptycho_torch.helper", "Translation", inspect.unwrap),
    "merge": ("ptycho_torch.helper", "reassemble_patches_position_real", inspect.unwrap),
    "batch": ("ptycho_torch.dataloader", "batch_contract", _without_check),
    "nothing": ("ptycho_torch.helper", "Translation", lambda contracted: contracted),
}


def pytest_configure() -> None:
    module_name, name, strip = STRIPPED[os.environ["STRIP_CONTRACT"]]
    module = importlib.import_module(module_name)
    setattr(module, name, strip(getattr(module, name)))  # before any test module imports it
