"""Axis maps as text, such as ``"B 1 2 C -> B C 1 2"`` or ``"B (C n) -> B C n"``, in the notation that einops made known."""

import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from ..._render import did_you_mean

_TOKEN = re.compile(r"[()]|[^\W\d]\w*|\d+|\S")


@dataclasses.dataclass(frozen=True)
class Axis:
    """An axis that is neither merged with another one nor of size 1.

    Attributes:
        name: As written: a dim, or a number.
        nth: Which of several that are written alike; the first of one side is the first of the other.
        of: How many are written alike.
    """

    name: str
    nth: int = 0
    of: int = 1

    def __str__(self) -> str:
        """Return what errors call it."""
        name = f"the axis of size {self.name}" if self.name.isdigit() else self.name
        return name if self.of == 1 else f"{name} (number {self.nth + 1} of {self.of})"


Group = tuple[Axis, ...]  # the axes that are merged into one; none for an axis of size 1


@dataclasses.dataclass(frozen=True)
class AxisMap:
    """Which axes a tensor has, and where an adapter is to put them.

    Attributes:
        text: Names or numbers of axes on both sides of ``->``. Those in parentheses are merged into one; axes of size 1 come
            and go. A name that stands several times on one side does so on the other, in the same order.
        dtype: Of the tensor that is given to the adapter; that of the call by default.
    """

    text: str
    dtype: Any = None

    @property
    def source(self) -> tuple[Group, ...]:
        """The axes of the tensor that goes in."""
        return _parse(self.text)[0]

    @property
    def target(self) -> tuple[Group, ...]:
        """The axes of the tensor that is to come out."""
        return _parse(self.text)[1]

    def shape(self, side: Iterable[Group], sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Return the shape of one side."""
        return tuple(math.prod(sizes[axis.name] for axis in group) for group in side)

    def applied(self, tensor: Any, sizes: Mapping[str, int]) -> Any:
        """Return what is to come out for a tensor."""
        axes, wanted = flat(self.source), flat(self.target)
        split = tensor.reshape([sizes[axis.name] for axis in axes])
        return split.permute([axes.index(axis) for axis in wanted]).reshape(self.shape(self.target, sizes))

    def code(self, name: str) -> str:
        """Return Python that does what the map says to a tensor of that name; sizes of split axes are named."""
        source, target = _with_units(self.source), _with_units(self.target)
        steps = itertools.chain(_split(self.source), _reordered(source, target), _merged(source, self.target))
        return name + "".join(f".{step}" for step in steps)


def flat(side: Iterable[Group]) -> list[Axis]:
    """Return the axes of one side, not merged."""
    return list(itertools.chain(*side))


# --- reading -----------------------------------------------------------------------------------------
@functools.lru_cache(maxsize=256)
def _parse(text: str) -> tuple[tuple[Group, ...], tuple[Group, ...]]:
    sides = text.split("->")
    if len(sides) != 2:
        _refuse(text, f"has {len(sides) - 1} arrows '->'")
    source, target = (_groups(text, side) for side in sides)
    before, after = set(flat(source)), set(flat(target))
    if lonely := sorted({axis.name for axis in before ^ after}):
        close = did_you_mean(lonely[0], {axis.name for axis in before | after} - {lonely[0]})
        _refuse(text, f"does not have {', '.join(lonely)} equally often on both sides{f': {close}' if close else ''}")
    return source, target


def _groups(text: str, side: str) -> tuple[Group, ...]:
    groups, merged = list[list[str]](), False
    for token in _TOKEN.findall(side):
        if token in "()":
            if merged == (token == "("):
                _refuse(text, "has parentheses that do not match, or one in another")
            merged = not merged
            if merged:
                groups.append([])
        elif not token.isidentifier() and not (token.isdigit() and int(token) > 0):
            _refuse(text, f"has {token!r}, which is neither a name nor a size")
        elif merged:
            groups[-1].append(token)
        else:
            groups.append([token])
    if merged:
        _refuse(text, "has parentheses that do not match, or one in another")
    return _numbered(groups)


def _numbered(groups: Sequence[Sequence[str]]) -> tuple[Group, ...]:
    """Tell axes apart that are written alike, and leave out those of size 1, which are nowhere in memory."""
    written = [name for group in groups for name in group]
    seen = dict.fromkeys(written, 0)
    numbered = list[Group]()
    for group in groups:
        axes = list[Axis]()
        for name in group:
            if not (name.isdigit() and int(name) == 1):
                axes.append(Axis(name, seen[name], written.count(name)))
            seen[name] += 1
        numbered.append(tuple(axes))
    return tuple(numbered)


def _refuse(text: str, reason: str) -> NoReturn:
    msg = f'Expected an axis map such as "B H W C -> B C H W" or "B (C n) -> B C n", got {text!r}: it {reason}.'
    raise ValueError(msg)


# --- the cure -----------------------------------------------------------------------------------------
def _split(source: Sequence[Group]) -> Iterable[str]:
    """Yield the steps that split merged axes, the last first, so that positions stay."""
    for position, group in reversed(list(enumerate(source))):
        if len(group) > 1:
            yield f"unflatten({position}, ({', '.join(axis.name for axis in group)}))"


def _reordered(source: Sequence[Axis], target: Sequence[Axis]) -> Iterable[str]:
    """Yield the steps that drop axes of size 1 that are too many, and put the others in order."""
    for position in reversed(range(len(source))):
        if source[position] not in target:
            yield f"squeeze({position})"
    kept = [axis for axis in source if axis in target]
    wanted = [axis for axis in target if axis in kept]
    if kept != wanted:
        yield f"permute({', '.join(str(kept.index(axis)) for axis in wanted)})"


def _merged(source: Sequence[Axis], target: Sequence[Group]) -> Iterable[str]:
    """Yield the steps that merge axes and add those of size 1 that are missing."""
    units = 0
    for position, group in enumerate(target):
        if len(group) > 1:
            yield f"flatten({position}, {position + len(group) - 1})"
        elif not group:
            if _unit(units) not in source:
                yield f"unsqueeze({position})"
            units += 1


def _with_units(side: Sequence[Group]) -> list[Axis]:
    """Return the axes of one side, not merged, with those of size 1: the first here is the first there."""
    axes = list[Axis]()
    for group in side:
        axes += group or [_unit(sum(axis.name == "1" for axis in axes))]
    return axes


def _unit(nth: int) -> Axis:
    return Axis("1", nth)
