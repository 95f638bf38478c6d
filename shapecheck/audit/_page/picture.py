"""How tensors flow between boundaries, as pictures: which boxes and arrows there are, and what is written on them."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

from .._recording import Flow
from .flow import Box, Drawing, Edge, Line, Point, layered
from .overview import Overview, counted

_FEW = 30  # boundaries that one picture can show
_WIDTH = 740.0  # pixels; a layer that needs more is broken
_CHARACTER, _LINE, _PADDING = 7.25, 16.0, 10.0  # of the page's monospaced 12 px, pixels
_LONGEST = 30  # characters of a line
_MINOR = 0.1  # of the most that flows into a box from one other: what is less has no label
_TIMES = "\N{MULTIPLICATION SIGN}"
_HEAD = 7.0  # length of an arrow's head, pixels


@dataclasses.dataclass(frozen=True)
class Node:
    """A box.

    Attributes:
        name: Boundary or group of them.
        lines: What is written in it.
        box: Where.
        kind: ``boundary`` of the package, ``group`` of boundaries, or ``foreign``: a boundary of another package.
        needs: Whether there is something that can be mended.
    """

    name: str
    lines: tuple[str, ...]
    box: Box
    kind: str
    needs: bool


@dataclasses.dataclass(frozen=True)
class Arrow:
    """An arrow with its label.

    Attributes:
        ends: Numbers of the nodes that it joins.
        path: Data of an SVG path.
        head: Points of an SVG polygon.
        lines: The label.
        label: Where that is.
        title: Everything that flows, in full.
        upwards: Whether it closes a cycle.
    """

    ends: tuple[int, int]
    path: str
    head: str
    lines: tuple[str, ...]
    label: Box
    title: str
    upwards: bool


@dataclasses.dataclass(frozen=True)
class Picture:
    """One picture.

    Attributes:
        title: What it shows.
        group: Module or package whose boundaries it shows; empty for the only picture, and for that of all groups.
        width: Pixels.
        height: Pixels.
        nodes: The boxes.
        arrows: The arrows.
    """

    title: str
    group: str
    width: float
    height: float
    nodes: tuple[Node, ...]
    arrows: tuple[Arrow, ...]


def pictures(known: Overview) -> list[Picture]:
    """Draw the flows of a package: all boundaries together; where they are many, the modules, then each module."""
    names = dict.fromkeys(name for flow in known.flows for name in (flow.source, flow.target))
    if len(names) <= _FEW:
        return [_picture(known, known.flows, "All recorded flows", "", str)] if names else []
    group = _grouping(known, names)
    every = _picture(known, known.flows, "Flows between modules", "", group)
    found = [every]
    mine = {entry.name for entry in known.entries}
    for own in sorted({group(name) for name in names if name in mine}):
        flows = [flow for flow in known.flows if group(flow.source) == own or group(flow.target) == own]
        inner: Callable[[str], str] = lambda name, own=own: name if group(name) == own else group(name)  # of its turn
        found.append(_picture(known, flows, f"Flows in {own}", own, inner))
    return found


def _grouping(known: Overview, names: Iterable[str]) -> Callable[[str], str]:
    """Cut the names of modules so short that few remain, and no shorter."""
    modules = {entry.name: entry.module for entry in known.entries}
    parts = {name: modules.get(name, name.rpartition(".")[0] or name).split(".") for name in names}
    deepest = max(map(len, parts.values()))
    depths = [depth for depth in range(deepest, 0, -1) if len({tuple(part[:depth]) for part in parts.values()}) <= _FEW]
    depth = depths[0] if depths else 1
    return lambda name: ".".join(parts[name][:depth])


def _picture(known: Overview, flows: Sequence[Flow], title: str, group: str, merged: Callable[[str], str]) -> Picture:
    between: dict[Edge, list[Flow]] = {}
    for flow in flows:
        between.setdefault((merged(flow.source), merged(flow.target)), []).append(flow)
    within = {source: own for (source, target), own in between.items() if source == target}
    edges = {edge: own for edge, own in between.items() if edge[0] != edge[1]}
    texts = {name: _node_lines(known, name, within.get(name, [])) for edge in between for name in edge}
    calls = {edge: sum(flow.calls for flow in own) for edge, own in edges.items()}
    most = {target: max(calls[edge] for edge in edges if edge[1] == target) for _, target in edges}
    labels = {edge: _label(own) if calls[edge] >= _MINOR * most[edge[1]] else () for edge, own in edges.items()}
    drawing = layered(
        {name: _size(lines, _PADDING) for name, lines in texts.items()},
        {edge: _size(lines, 3.0) for edge, lines in labels.items()},
        calls,
        _WIDTH,
    )
    nodes = _nodes(known, texts, drawing)
    return Picture(title, group, drawing.width, drawing.height, nodes, _arrows(edges, labels, drawing))


def _nodes(known: Overview, texts: Mapping[str, tuple[str, ...]], drawing: Drawing) -> tuple[Node, ...]:
    entries = {entry.name: entry for entry in known.entries}
    drawn = list[Node]()
    for name, box in drawing.boxes.items():
        is_group = any(own.startswith(f"{name}.") for own in entries) and name not in entries
        kind = "boundary" if name in entries else "group" if is_group else "foreign"
        drawn.append(Node(name, texts[name], box, kind, name in entries and bool(entries[name].pressing)))
    return tuple(drawn)


def _node_lines(known: Overview, name: str, own: Sequence[Flow]) -> tuple[str, ...]:
    """Return the name in its module, where that is and how often it was called, and what flows back to it."""
    entry = next((entry for entry in known.entries if entry.name == name), None)
    lines = [name.removeprefix(f"{known.package}.") if entry is None else entry.title]
    if entry is not None:
        calls = [counted(entry.record.calls, "call")] if entry.record else []
        lines.append(" · ".join([entry.module.removeprefix(f"{known.package}."), *calls]))
    if own:
        lines.append(f"to itself {_TIMES}{_total(own)}")
    return tuple(map(_cut, lines))


def _label(flows: Sequence[Flow]) -> tuple[str, ...]:
    """Return what is written on an arrow: the tensor that came most often and its shape, and how much else there is."""
    of: dict[tuple[str, str], list[Flow]] = {}
    for flow in sorted(flows, key=lambda flow: (-flow.calls, flow.parameter, flow.shape)):
        of.setdefault((flow.target, flow.parameter), []).append(flow)
    (_, parameter), own = min(of.items(), key=lambda item: (-sum(flow.calls for flow in item[1]), item[0]))
    first = f"{_cut(parameter, 14)} {_cut(own[0].shape.removesuffix(' (numpy)'))} {_TIMES}{_total(own)}"
    others = {"shape": len(own) - 1, "tensor": len(of) - 1}
    rest = ", ".join(counted(number, word) for word, number in others.items() if number)
    return (first, f"+ {rest}") if rest else (first,)


def _total(flows: Iterable[Flow]) -> str:
    return f"{sum(flow.calls for flow in flows):,}"


def _cut(text: str, longest: int = _LONGEST) -> str:
    """Leave out the middle of what is too long: names differ at their ends."""
    return text if len(text) <= longest else f"{text[: longest // 2 - 1]}…{text[-(longest // 2) :]}"


def _size(lines: Sequence[str], padding: float) -> tuple[float, float]:
    if not lines:
        return 0.0, 0.0
    return max(map(len, lines)) * _CHARACTER + 2 * padding, len(lines) * _LINE + padding


# --- arrows -----------------------------------------------------------------------------------------------
def _arrows(
    edges: Mapping[Edge, Sequence[Flow]], labels: Mapping[Edge, tuple[str, ...]], drawing: Drawing
) -> tuple[Arrow, ...]:
    numbers = {name: number for number, name in enumerate(drawing.boxes)}
    return tuple(
        Arrow(
            (numbers[edge[0]], numbers[edge[1]]),
            _curve(line),
            _head(line),
            labels[edge],
            line.label,
            "\n".join(
                f"{flow.source} → {flow.target}, {flow.parameter} {flow.shape} {_TIMES}{flow.calls:,}"
                for flow in edges[edge]
            ),
            line.upwards,
        )
        for edge, line in drawing.lines.items()
    )


def _curve(line: Line) -> str:
    """Return a line that leaves and enters every row upright."""
    (x, y), *_ = line.points
    pieces = [f"M{_number(x)} {_number(y)}"]
    for (left, upper), (right, lower) in pairwise(line.points):
        middle = _number((upper + lower) / 2)
        pieces.append(f"C{_number(left)} {middle} {_number(right)} {middle} {_number(right)} {_number(lower)}")
    return "".join(pieces)


def _head(line: Line) -> str:
    (x, y), back = (line.points[0], _HEAD) if line.upwards else (line.points[-1], -_HEAD)
    corners: list[Point] = [(x, y), (x - _HEAD / 2, y + back), (x + _HEAD / 2, y + back)]
    return " ".join(f"{_number(x)},{_number(y)}" for x, y in corners)


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
