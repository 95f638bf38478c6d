"""Holes that are left open on purpose: a file that names them, each with the reason."""

import dataclasses
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from ._mutation.holes import Hole
from ._strength import Strength

_KEYS = {"contract", "hole", "reason"}


@dataclasses.dataclass(frozen=True)
class Accepted:
    """Holes that somebody has looked at and left open.

    Attributes:
        contract: Qualified name; ``*`` stands for anything.
        hole: What is not noticed, as the report says it; ``*`` stands for anything.
        reason: Why it is left open.
    """

    contract: str
    hole: str
    reason: str

    def covers(self, contract: str, hole: Hole) -> bool:
        """Tell whether a hole of a contract is one of these."""
        return _matches(self.contract, contract) and _matches(self.hole, hole.what)


def _matches(pattern: str, text: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text) is not None


def load_accepted(path: Path) -> list[Accepted]:
    """Read the holes that are left open from a TOML file.

    There is a table for each of them::

        [[accepted]]
        contract = "my_package.*"
        hole = "*: the axes N and N are interchangeable"
        reason = "patches are square; test_operators.py tells rows from columns"

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no such file.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        msg = f"Expected {path} to be a TOML file, got: {error}."
        raise ValueError(msg) from None
    tables = content.get("accepted", [])
    if content.keys() - {"accepted"} or not isinstance(tables, list):
        msg = f"Expected {path} to hold tables [[accepted]] and nothing else, got {', '.join(content)}."
        raise ValueError(msg)
    return [_accepted(table, path) for table in cast("list[Any]", tables)]


def _accepted(table: Any, path: Path) -> Accepted:
    entry = cast("dict[str, Any]", table) if isinstance(table, dict) else {}
    is_complete = entry.keys() == _KEYS and all(isinstance(text, str) and text.strip() for text in entry.values())
    if not is_complete:
        msg = f"Expected each [[accepted]] in {path} to have texts for {', '.join(sorted(_KEYS))}, got {table!r}."
        raise ValueError(msg)
    return Accepted(**entry)


def unexplained(measured: Iterable[Strength], accepted: Iterable[Accepted]) -> list[tuple[Strength, Hole]]:
    """Return the holes that nobody has left open on purpose."""
    known = list(accepted)
    holes = ((one, hole) for one in measured for hole in one.holes)
    return [(one, hole) for one, hole in holes if not any(entry.covers(one.name, hole) for entry in known)]


def idle(measured: Iterable[Strength], accepted: Iterable[Accepted]) -> list[Accepted]:
    """Return the entries that cover no hole any more."""
    holes = [(one.name, hole) for one in measured for hole in one.holes]
    return [entry for entry in accepted if not any(entry.covers(name, hole) for name, hole in holes)]
