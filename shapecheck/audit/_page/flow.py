"""A layered drawing of a directed graph: where its nodes, edges and labels go. Numbers only.

The steps are those of Sugiyama, Tagawa and Toda (1981): turn edges round until there is no cycle, put nodes on layers,
order each layer so that few edges cross, then choose coordinates. A label is a cell of a row of its own between two
layers, as a node would be, so that labels never overlap. The same graph always gives the same drawing.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from statistics import fmean
from typing import TypeVar

T = TypeVar("T")
Edge = tuple[str, str]
Size = tuple[float, float]
Point = tuple[float, float]
Cell = str | tuple[str, str, int]  # a node, or the place where an edge crosses a row

_GAP = 24.0  # between neighbours of a row, pixels
_BEND_GAP = 12.0  # likewise, where one of them is a line
_ROW_GAP = 22.0  # between rows
_SWEEPS = 12
_STRAIGHT = 4.0  # how much more a line that passes a row pulls than a node does


@dataclasses.dataclass(frozen=True)
class Box:
    """Where a node or a label is drawn, pixels from the upper left corner.

    Attributes:
        x: Left side.
        y: Upper side.
        width: Towards the right.
        height: Downwards.
    """

    x: float
    y: float
    width: float
    height: float

    def moved(self, x: float, y: float) -> "Box":
        """Return it further to the right and further down."""
        return Box(self.x + x, self.y + y, self.width, self.height)


@dataclasses.dataclass(frozen=True)
class Line:
    """How an edge runs, from above to below.

    Attributes:
        points: Where it begins, what it passes through, where it ends.
        label: Where its label is.
        upwards: Whether the edge runs from below to above, because it closes a cycle.
    """

    points: tuple[Point, ...]
    label: Box
    upwards: bool

    def moved(self, x: float, y: float) -> "Line":
        """Return it further to the right and further down."""
        points = tuple((left + x, top + y) for left, top in self.points)
        return Line(points, self.label.moved(x, y), self.upwards)


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A graph with coordinates.

    Attributes:
        width: Of everything, pixels.
        height: Of everything, pixels.
        boxes: The nodes.
        lines: The edges.
    """

    width: float
    height: float
    boxes: dict[str, Box]
    lines: dict[Edge, Line]


def layered(nodes: Mapping[str, Size], edges: Mapping[Edge, Size], calls: Mapping[Edge, int], limit: float) -> Drawing:
    """Draw a graph from above to below.

    Args:
        nodes: Width and height of each node, pixels.
        edges: Width and height of the label of each edge, which joins two different nodes.
        calls: How heavy each edge is; of the edges of a cycle the lightest is drawn upwards.
        limit: Width at which a layer is full, pixels; what is wider by itself has a layer of its own.
    """
    drawings = list[Drawing]()
    for members in _components(nodes, edges):
        own = {edge: size for edge, size in edges.items() if edge[0] in members}
        drawings.append(_component({name: nodes[name] for name in nodes if name in members}, own, calls, limit))
    return _packed(drawings, max([limit, *(drawing.width for drawing in drawings)]))


def _component(
    nodes: Mapping[str, Size], edges: Mapping[Edge, Size], calls: Mapping[Edge, int], limit: float
) -> Drawing:
    order = _order(nodes, edges, calls)
    places = {node: place for place, node in enumerate(order)}
    ways = {(one, two): (one, two) if places[one] < places[two] else (two, one) for one, two in edges}
    layers = _layers(order, list(ways.values()), _needed(nodes, edges, ways), limit)
    paths = {edge: _path(edge, way, layers) for edge, way in ways.items()}
    labels = {path[-2]: edges[edge] for edge, path in paths.items() if edges[edge][0]}
    rows = _rows(order, paths.values(), layers)
    return _drawn(_ordered(rows, paths.values()), paths, {**nodes, **labels}, ways)


# --- parts that nothing joins -------------------------------------------------------------------------------
def _components(nodes: Iterable[str], edges: Iterable[Edge]) -> list[set[str]]:
    """Return the sets of nodes that edges join, the largest first."""
    joined = {node: {node} for node in nodes}
    for source, target in edges:
        if joined[source] is not joined[target]:
            joined[source] |= joined[target]
            joined.update(dict.fromkeys(joined[target], joined[source]))
    different = {id(members): members for members in joined.values()}.values()
    return sorted(different, key=lambda members: (-len(members), min(members)))


def _packed(drawings: Iterable[Drawing], limit: float) -> Drawing:
    """Put drawings side by side, and below what is full."""
    packed, x, y, bottom = Drawing(0.0, 0.0, {}, {}), 0.0, 0.0, 0.0
    for drawing in drawings:
        if x and x + drawing.width > limit:
            x, y = 0.0, bottom + 2 * _ROW_GAP
        packed.boxes.update({name: box.moved(x, y) for name, box in drawing.boxes.items()})
        packed.lines.update({edge: line.moved(x, y) for edge, line in drawing.lines.items()})
        bottom = max(bottom, y + drawing.height)
        packed = dataclasses.replace(packed, width=max(packed.width, x + drawing.width), height=bottom)
        x += drawing.width + 2 * _GAP
    return packed


# --- layers ----------------------------------------------------------------------------------------------
def _order(nodes: Iterable[str], edges: Iterable[Edge], calls: Mapping[Edge, int]) -> list[str]:
    """Return the nodes in the order of the flow, as if the lightest edge of each cycle were not there."""
    before: dict[str, set[str]] = {node: set() for node in nodes}
    for source, target in sorted(edges):
        before[target].add(source)
    while True:
        try:
            return list(TopologicalSorter({node: sorted(sources) for node, sources in before.items()}).static_order())
        except CycleError as error:
            cycle: list[str] = error.args[1]  # each flows into the next
            source, target = min(itertools.pairwise(cycle), key=lambda edge: (calls[edge], edge))
            before[target].remove(source)


def _needed(nodes: Mapping[str, Size], edges: Mapping[Edge, Size], ways: Mapping[Edge, Edge]) -> dict[str, float]:
    """Return the room that each node takes on its layer: its own, or that of the labels above it."""
    labels = dict.fromkeys(nodes, 0.0)
    for edge, (_, lower) in ways.items():
        labels[lower] += edges[edge][0] + (_GAP if edges[edge][0] else _BEND_GAP)
    return {node: max(width + _GAP, labels[node]) for node, (width, _) in nodes.items()}


def _layers(order: Sequence[str], ways: Sequence[Edge], widths: Mapping[str, float], limit: float) -> dict[str, int]:
    """Put every node below all that flows into it, at most so many on a layer as there is room for."""
    layers, used = dict[str, int](), dict[int, float]()
    above, below = _neighbours(ways)
    for node in order:
        layer = max((layers[source] + 1 for source in above.get(node, [])), default=0)
        while used.get(layer) and used[layer] + widths[node] > limit:
            layer += 1
        layers[node] = layer
        used[layer] = used.get(layer, 0.0) + widths[node]
    for node in [node for node in order if node not in above]:  # what nothing flows into stands where it is needed
        layer = min((layers[target] - 1 for target in below.get(node, [])), default=0)
        if layer > layers[node] and used.get(layer, 0.0) + widths[node] <= limit:
            used[layers[node]] -= widths[node]
            layers[node] = layer
            used[layer] = used.get(layer, 0.0) + widths[node]
    return layers


def _path(edge: Edge, way: Edge, layers: Mapping[str, int]) -> list[Cell]:
    """Return what an edge passes from above to below; layers are the even rows, and its label is just above its end."""
    (upper, lower), (source, target) = way, edge
    return [upper, *((source, target, row) for row in range(2 * layers[upper] + 1, 2 * layers[lower])), lower]


def _rows(order: Sequence[str], paths: Iterable[list[Cell]], layers: Mapping[str, int]) -> list[list[Cell]]:
    rows: list[list[Cell]] = [[] for _ in range(2 * max(layers.values(), default=0) + 1)]
    for node in order:
        rows[2 * layers[node]].append(node)
    for path in paths:
        for cell in path[1:-1]:
            rows[int(cell[2])].append(cell)
    return rows


# --- order within a row -------------------------------------------------------------------------------------
def _ordered(rows: list[list[Cell]], paths: Iterable[list[Cell]]) -> list[list[Cell]]:
    """Sort the rows by where their neighbours stand, to and fro, and keep the order with the fewest crossings."""
    above, below = _neighbours(piece for path in paths for piece in itertools.pairwise(path))
    best, fewest = rows, _crossings(rows, below)
    for sweep in range(_SWEEPS):
        rows = _swept(rows, below if sweep % 2 else above, backwards=bool(sweep % 2))
        if (crossings := _crossings(rows, below)) < fewest:
            best, fewest = rows, crossings
    return best


def _neighbours(pieces: Iterable[tuple[T, T]]) -> tuple[dict[T, list[T]], dict[T, list[T]]]:
    above, below = dict[T, list[T]](), dict[T, list[T]]()
    for upper, lower in pieces:
        above.setdefault(lower, []).append(upper)
        below.setdefault(upper, []).append(lower)
    return above, below


def _swept(rows: list[list[Cell]], neighbours: Mapping[Cell, list[Cell]], backwards: bool) -> list[list[Cell]]:
    ordered = list[list[Cell]]()
    places = dict[Cell, float]()
    for row in reversed(rows) if backwards else rows:
        centred = {cell: index for index, cell in enumerate(row)}
        wanted: Callable[[Cell], float] = lambda cell, own=centred: (  # needs the row of its turn
            fmean(places[other] for other in neighbours[cell]) if cell in neighbours else own[cell]
        )
        ordered.append(sorted(row, key=wanted))
        places.update({cell: index for index, cell in enumerate(ordered[-1])})
    return ordered[::-1] if backwards else ordered


def _crossings(rows: list[list[Cell]], below: Mapping[Cell, list[Cell]]) -> int:
    total = 0
    for upper, lower in itertools.pairwise(rows):
        places = {cell: index for index, cell in enumerate(lower)}
        ends = [place for cell in upper for place in sorted(places[other] for other in below.get(cell, []))]
        total += sum(left > right for left, right in itertools.combinations(ends, 2))
    return total


# --- coordinates --------------------------------------------------------------------------------------------
def _drawn(
    rows: list[list[Cell]], paths: Mapping[Edge, list[Cell]], sizes: Mapping[Cell, Size], ways: Mapping[Edge, Edge]
) -> Drawing:
    centres = _centres(rows, paths.values(), sizes)
    boxes, bottom = dict[Cell, Box](), 0.0
    for row in rows:
        height = max((sizes.get(cell, (0.0, 0.0))[1] for cell in row), default=0.0)
        for cell in row:
            width, own = sizes.get(cell, (0.0, height))
            boxes[cell] = Box(centres[cell] - width / 2, bottom + (height - own) / 2, width, own)
        bottom += height + _ROW_GAP
    lines = {
        edge: Line(_points(boxes, path), boxes[path[-2]], upwards=ways[edge] != edge) for edge, path in paths.items()
    }
    nodes = {cell: box for cell, box in boxes.items() if isinstance(cell, str)}
    width = max((box.x + box.width for box in boxes.values()), default=0.0)
    return Drawing(width, max(bottom - _ROW_GAP, 0.0), nodes, lines)


def _points(boxes: Mapping[Cell, Box], path: Sequence[Cell]) -> tuple[Point, ...]:
    """Return where a line leaves its first cell, enters and leaves each further one, and enters the last."""
    sides = [
        (boxes[cell].x + boxes[cell].width / 2, boxes[cell].y, boxes[cell].y + boxes[cell].height) for cell in path
    ]
    (first, _, begin), (last, end, _) = sides[0], sides[-1]
    inner = [point for x, top, bottom in sides[1:-1] for point in ((x, top), (x, bottom))]
    return ((first, begin), *inner, (last, end))


def _centres(rows: list[list[Cell]], paths: Iterable[list[Cell]], sizes: Mapping[Cell, Size]) -> dict[Cell, float]:
    """Put every cell as near to the middle of its neighbours as the order of its row allows."""
    above, below = _neighbours(piece for path in paths for piece in itertools.pairwise(path))
    gaps = [[_distance(sizes, *pair) for pair in itertools.pairwise(row)] for row in rows]
    centres = dict[Cell, float]()
    for row, apart in zip(rows, gaps, strict=True):
        centres.update(zip(row, spread([0.0] * len(row), apart, [1.0] * len(row)), strict=True))
    for sweep in range(_SWEEPS):
        sides = [above, below, {cell: above.get(cell, []) + below.get(cell, []) for cell in centres}]
        neighbours = sides[2 if sweep >= _SWEEPS - 2 else sweep % 2]
        turn = list(zip(rows, gaps, strict=True))
        for row, apart in turn[::-1] if sweep % 2 else turn:
            pulls = [_pulls(cell, neighbours.get(cell) or [cell], sizes) for cell in row]
            wanted = [fmean((centres[other] for other in own), own.values()) for own in pulls]
            centres.update(zip(row, spread(wanted, apart, [sum(own.values()) for own in pulls]), strict=True))
    left = min((centres[cell] - sizes.get(cell, (0.0, 0.0))[0] / 2 for cell in centres), default=0.0)
    return {cell: centre - left for cell, centre in centres.items()}


def _pulls(cell: Cell, neighbours: Iterable[Cell], sizes: Mapping[Cell, Size]) -> dict[Cell, float]:
    """Return how strongly each neighbour pulls at a cell: lines that pass several rows are to be straight."""
    return {other: _STRAIGHT ** ((cell not in sizes) + (other not in sizes)) for other in neighbours}


def _distance(sizes: Mapping[Cell, Size], left: Cell, right: Cell) -> float:
    """Return how far apart the centres of two neighbours must be."""
    gap = _GAP if left in sizes and right in sizes else _BEND_GAP
    return (sizes.get(left, (0.0, 0.0))[0] + sizes.get(right, (0.0, 0.0))[0]) / 2 + gap


def spread(wanted: Sequence[float], apart: Sequence[float], weights: Sequence[float]) -> list[float]:
    """Return the places nearest to those that are wanted (least squares) that keep their order and their distances.

    With the distances taken away, this is isotonic regression, solved by pooling adjacent violators.

    Args:
        wanted: Places, in order.
        apart: Least distance of each from the next; one fewer.
        weights: How much the square of each deviation counts.
    """
    offsets = [0.0, *itertools.accumulate(apart)]
    pools = list[tuple[float, float, int]]()  # place, weight and number of those that share one place
    for place, offset, weight in zip(wanted, offsets, weights, strict=False):
        pools.append((place - offset, weight, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (right, heavy, count), (left, other, others) = pools.pop(), pools.pop()
            pools.append(((right * heavy + left * other) / (heavy + other), heavy + other, count + others))
    level = [place for place, _, count in pools for _ in range(count)]
    return [place + offset for place, offset in zip(level, offsets, strict=False)]
