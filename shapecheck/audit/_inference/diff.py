"""Changes of source as a unified diff, with everything that is not changed left as it is."""

import dataclasses
import difflib
import functools
import io
import tokenize
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_USUAL_LIMIT = 88


@dataclasses.dataclass(frozen=True)
class Edit:
    """A piece of source to be replaced. Lines count from 1, columns are bytes from 0, as in `ast`.

    Attributes:
        start: Line and column where it starts.
        end: Line and column behind it.
        text: What stands there instead.
    """

    start: tuple[int, int]
    end: tuple[int, int]
    text: str


def read_source(path: Path) -> str:
    """Return the text of a Python file, line ends and all.

    Raises:
        OSError: It cannot be read.
        SyntaxError: Its encoding is unknown.
    """
    with path.open("rb") as file:
        encoding, _ = tokenize.detect_encoding(file.readline)
    return path.read_bytes().decode(encoding)


def edited(source: str, edits: Iterable[Edit]) -> str:
    """Return source with edits made, none of which overlap; those of one place in their order."""
    text = source.encode()
    newline = b"\r\n" if b"\r\n" in text else b"\n"
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    ordered = sorted(edits, key=lambda edit: (edit.start, edit.end))
    while ordered:  # from the last to the first, so that the places of the others stay
        edit = ordered.pop()
        first, last = (starts[line - 1] + column for line, column in (edit.start, edit.end))
        text = text[:first] + edit.text.encode().replace(b"\n", newline) + text[last:]
    return text.decode()


def unified(path: str, old: str, new: str) -> str:
    """Return the difference as ``git apply`` and ``patch -p1`` take it; nothing where there is none.

    Args:
        path: Of the file, from where the diff is to be applied.
        old: Its text.
        new: The text it gets.
    """
    lines = difflib.unified_diff(_lines(old), _lines(new), f"a/{path}", f"b/{path}")
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def _lines(text: str) -> list[str]:
    return io.StringIO(text, newline="\n").readlines()  # split at nothing but "\n"


@functools.cache
def line_limit(folder: Path) -> int:
    """Return the longest line that the formatter of a project allows, the project being the nearest above a folder."""
    for parent in (folder, *folder.parents):
        for name in ("ruff.toml", ".ruff.toml", "pyproject.toml"):
            if (parent / name).is_file():
                return _limit_in(parent / name)
    return _USUAL_LIMIT


def _limit_in(file: Path) -> int:
    try:
        tables: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return _USUAL_LIMIT
    tools = [tables, *(tables.get("tool", {}).get(tool, {}) for tool in ("ruff", "black"))]
    return next((table["line-length"] for table in tools if "line-length" in table), _USUAL_LIMIT)
