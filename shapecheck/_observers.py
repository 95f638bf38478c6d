"""Who is told of every contract that is defined: nobody, unless a tool that reports on contracts is active.

Imports nothing of the package, so that such a tool can be there before the engine is. A process that is to be
recorded is told so by its environment, and the recorder is imported when there is something to record.
"""

import functools
import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

RECORD = "SHAPECHECK_RECORD"  # the environment variable that names the file to record to

definitions: list[Callable[[Any, Any], None]] = []  # called with the function under contract, and the contract
traces: list[Callable[[str], None]] = []  # called with the name of a contract that becomes part of a graph


def when_first_defined(start: Callable[[], None]) -> None:
    """Call something as soon as there may be contracts: now if the engine is there, else with the first of them."""
    if f"{__package__}._boundaries.inheritance" in sys.modules:
        start()
        return
    once = functools.cache(start)
    definitions.append(lambda checked, contract: once())


@functools.cache
def _record_process() -> None:
    importlib.import_module(f"{__package__}.audit._recorder").record_process()  # the laboratory stands above


if os.environ.get(RECORD):
    definitions.append(lambda checked, contract: _record_process())
