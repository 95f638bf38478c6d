"""Where the parts of a signature stand in the source, and how it is broken into lines when it has become too long."""

import dataclasses
import itertools
import re
import tokenize
from collections.abc import Sequence

from .diff import Edit

_PRAGMA = re.compile(r"\s*#\s*(noqa|type:|pyright:|pylint:|pragma).*")  # which formatters do not count
_RESULT = re.compile(r"(\s*\) -> [\w.]+\[)(.*)(\]:.*)")
_OPEN, _CLOSED = {"(", "[", "{"}, {")", "]", "}"}


@dataclasses.dataclass
class Signature:
    """A signature, from ``def`` to the end of the line with the colon behind it.

    Attributes:
        first: Line of ``def``.
        last: Line of the colon.
        arrow: Line, and column in bytes, where an annotation of the result goes.
        head: The text up to the bracket that opens the parameters.
        items: The parameters, as they are written.
        has_last_comma: Whether a comma stands behind the last of them, which keeps each on a line of its own.
        tail: The text from the bracket that closes them.
        has_comments: Whether there are comments before the colon.
    """

    first: int
    last: int
    arrow: tuple[int, int]
    head: str
    items: list[str]
    has_last_comma: bool
    tail: str
    has_comments: bool


def signature_at(lines: Sequence[str], line: int) -> Signature:
    """Read the signature that begins at a line.

    Args:
        lines: The lines of the file, with their ends.
        line: That of ``def``, counted from 1.
    """
    marks: list[tuple[int, int]] = []  # the opening bracket, the commas behind parameters, the closing bracket
    depth, has_comments, closed = 0, False, False
    colon = (line, 0)
    for token in tokenize.generate_tokens(iter(lines[line - 1 :]).__next__):
        place = token.start[0] + line - 1, token.start[1]
        has_comments |= token.type == tokenize.COMMENT
        if token.string == ":" and not depth and closed:
            colon = place
            break
        depth -= token.string in _CLOSED
        opens, closes = token.string == "(" and not marks, token.string == ")" and not depth
        if not closed and (opens or (marks and (closes or (token.string == "," and depth == 1)))):
            if not opens or not depth:
                marks.append(place)
            closed = bool(marks) and closes
        depth += token.string in _OPEN
    return _signature(lines, line, colon, marks, has_comments)


def _signature(
    lines: Sequence[str], first: int, colon: tuple[int, int], marks: list[tuple[int, int]], has_comments: bool
) -> Signature:
    pieces = [_between(lines, (row, column + 1), end).strip() for (row, column), end in itertools.pairwise(marks)]
    has_last_comma = len(pieces) > 1 and not pieces[-1]
    row, column = marks[-1]
    return Signature(
        first=first,
        last=colon[0],
        arrow=(row, len(lines[row - 1][: column + 1].encode())),
        head=_between(lines, (first, 0), (marks[0][0], marks[0][1] + 1)),
        items=[piece for piece in pieces if piece],
        has_last_comma=has_last_comma,
        tail=_between(lines, marks[-1], (colon[0], len(lines[colon[0] - 1].rstrip()))),
        has_comments=has_comments,
    )


def _between(lines: Sequence[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    (first, left), (last, right) = start, end
    if first == last:
        return lines[first - 1][left:right]
    return "".join([lines[first - 1][left:], *lines[first : last - 1], lines[last - 1][:right]])


def laid_out(lines: Sequence[str], line: int, limit: int) -> Edit | None:
    """Break a signature that is too long into lines, as ruff and black do; None if it fits, or cannot be broken.

    Args:
        lines: The lines of the file, with their ends.
        line: That of ``def``, counted from 1.
        limit: The longest line that is allowed.
    """
    signature = signature_at(lines, line)
    written = lines[signature.first - 1 : signature.last]
    pieces = [signature.head, *signature.items, signature.tail]
    if all(_width(text) <= limit for text in written) or signature.has_comments or any("\n" in text for text in pieces):
        return None
    end = len(written[-1].rstrip().encode())
    return Edit((signature.first, 0), (signature.last, end), "\n".join(_broken(signature, limit)))


def _broken(signature: Signature, limit: int) -> list[str]:
    margin = re.match(r"\s*", signature.head)
    indent = margin[0] if margin else ""
    pragma = _PRAGMA.search(signature.tail)
    head = signature.head + (f"  {pragma[0].strip()}" if pragma else "")  # it is about the name
    tail = _broken_result(indent + (signature.tail[: pragma.start()] if pragma else signature.tail), indent, limit)
    return [head, *_listed(signature.items, indent, limit, one_by_one=signature.has_last_comma), *tail]


def _broken_result(line: str, indent: str, limit: int) -> list[str]:
    """Break the line with the annotation of the result, where it is too long and one pair of brackets is all of it."""
    parts = _RESULT.fullmatch(line)
    items = [] if parts is None or len(line) <= limit else _split(parts[2])
    return [parts[1], *_listed(items, indent, limit), indent + parts[3]] if parts and items else [line]


def _split(text: str) -> list[str]:
    """Return what stands between the commas outside of brackets; nothing if a bracket closes that was not opened."""
    items, depth = [""], 0
    for character in text:
        depth += (character in _OPEN) - (character in _CLOSED)
        if depth < 0:
            return []
        if character == "," and not depth:
            items.append("")
        else:
            items[-1] += character
    return [item.strip() for item in items]


def _listed(items: Sequence[str], indent: str, limit: int, *, one_by_one: bool = False) -> list[str]:
    """Return what stands in brackets, on one line if it fits."""
    together = f"{indent}    {', '.join(items)}"
    if len(together) <= limit and not one_by_one:
        return [together]
    return [f"{indent}    {item}," for item in items]


def _width(line: str) -> int:
    return len(_PRAGMA.sub("", line.rstrip()))
