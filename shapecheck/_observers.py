"""Who is told of every contract that is defined: nobody, unless a tool that reports on contracts is active.

Imports nothing, so that such a tool can be there before the engine is.
"""

from collections.abc import Callable
from typing import Any

definitions: list[Callable[[Any, Any], None]] = []  # called with the function under contract, and the contract
