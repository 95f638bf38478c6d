"""A pytest plugin that takes one contract away, to see whether the suite notices (``STRIP_CONTRACT`` says which)."""

import importlib
import inspect
import os
from collections.abc import Callable
from typing import Any


def _without_check(_: Any) -> Callable[..., Any]:
    return lambda value, *_, **__: value


STRIPPED = {
    "translation": ("ptycho_torch.helper", "Translation", inspect.unwrap),
    "merge": ("ptycho_torch.helper", "reassemble_patches_position_real", inspect.unwrap),
    "batch": ("ptycho_torch.dataloader", "check", _without_check),
    "nothing": ("ptycho_torch.helper", "Translation", lambda contracted: contracted),
}


def pytest_configure() -> None:
    module_name, name, strip = STRIPPED[os.environ["STRIP_CONTRACT"]]
    module = importlib.import_module(module_name)
    setattr(module, name, strip(getattr(module, name)))  # before any test module imports it
