"""Where boxes, arrows and labels of the flow picture are put."""

import itertools
import random
from collections.abc import Iterator

import pytest

pytest.importorskip("torch")

from shapecheck.audit._page.flow import Box, Drawing, layered, spread

NODE, LABEL, LIMIT = (150.0, 40.0), (170.0, 20.0), 700.0


def drawn(edges: list[tuple[str, str]], calls: dict[tuple[str, str], int] | None = None) -> Drawing:
    nodes = {name: NODE for edge in edges for name in edge}
    return layered(nodes, dict.fromkeys(edges, LABEL), calls or dict.fromkeys(edges, 1), LIMIT)


def random_graph(seed: int) -> list[tuple[str, str]]:
    chance = random.Random(seed)
    names = [f"n{number}" for number in range(chance.randint(2, 24))]
    pairs = sorted(itertools.permutations(names, 2))
    return chance.sample(pairs, min(len(pairs), chance.randint(1, 2 * len(names))))


def overlaps(one: Box, other: Box) -> bool:
    across = one.x < other.x + other.width - 1e-6 and other.x < one.x + one.width - 1e-6
    return across and one.y < other.y + other.height - 1e-6 and other.y < one.y + one.height - 1e-6


def all_boxes(drawing: Drawing) -> Iterator[Box]:
    yield from drawing.boxes.values()
    yield from (line.label for line in drawing.lines.values())


@pytest.mark.parametrize("seed", range(25))
def test_no_two_boxes_or_labels_overlap_and_all_are_inside(seed: int) -> None:
    drawing = drawn(random_graph(seed))
    for one, other in itertools.combinations(all_boxes(drawing), 2):
        assert not overlaps(one, other)
    for box in all_boxes(drawing):
        assert box.x >= -1e-6
        assert box.y >= -1e-6
        assert box.x + box.width <= drawing.width + 1e-6
        assert box.y + box.height <= drawing.height + 1e-6


def test_the_test_of_overlaps_can_fail() -> None:
    assert overlaps(Box(0, 0, 10, 10), Box(9, 9, 10, 10))
    assert not overlaps(Box(0, 0, 10, 10), Box(10, 0, 10, 10))


@pytest.mark.parametrize("seed", range(25))
def test_every_edge_runs_from_the_bottom_of_one_of_its_ends_to_the_top_of_the_other(seed: int) -> None:
    edges = random_graph(seed)
    drawing = drawn(edges)
    assert set(drawing.lines) == set(edges)
    for (source, target), line in drawing.lines.items():
        upper, lower = (target, source) if line.upwards else (source, target)
        above, below = drawing.boxes[upper], drawing.boxes[lower]
        assert line.points[0] == pytest.approx((above.x + NODE[0] / 2, above.y + NODE[1]))
        assert line.points[-1] == pytest.approx((below.x + NODE[0] / 2, below.y))
        assert [y for _, y in line.points] == sorted(y for _, y in line.points)


@pytest.mark.parametrize("seed", range(25))
def test_no_line_passes_through_a_node(seed: int) -> None:
    drawing = drawn(random_graph(seed))
    for line in drawing.lines.values():
        for (x, y), (other, below) in itertools.pairwise(line.points[1:-1]):
            if x == other:  # upright: within a row
                inside = [
                    box
                    for box in drawing.boxes.values()
                    if box.x < x < box.x + box.width and y < box.y + box.height and box.y < below
                ]
                assert not inside


def test_edges_run_downwards_but_for_the_lightest_of_a_cycle() -> None:
    cycle = [("a", "b"), ("b", "c"), ("c", "a")]
    drawing = drawn(cycle, {("a", "b"): 9, ("b", "c"): 1, ("c", "a"): 5})
    assert {edge for edge, line in drawing.lines.items() if line.upwards} == {("b", "c")}
    assert not any(line.upwards for line in drawn(cycle[:2]).lines.values())


def test_two_opposite_edges_are_both_drawn() -> None:
    drawing = drawn([("a", "b"), ("b", "a")], {("a", "b"): 2, ("b", "a"): 1})
    assert [drawing.lines[edge].upwards for edge in (("a", "b"), ("b", "a"))] == [False, True]


def test_a_layer_that_is_full_is_broken() -> None:
    drawing = drawn(
        [(f"s{number}", f"t{number}") for number in range(12)] + [(f"s{number}", "end") for number in range(12)]
    )
    sources = [drawing.boxes[f"s{number}"] for number in range(12)]
    for y in {box.y for box in sources}:
        assert sum(box.width for box in sources if box.y == y) <= LIMIT
    assert len({box.y for box in sources}) > 1


def test_parts_that_nothing_joins_stand_side_by_side_or_below() -> None:
    drawing = drawn([("a", "b"), ("c", "d")])
    assert drawing.boxes["a"].y == drawing.boxes["c"].y
    assert drawing.width < 3 * NODE[0]
    many = drawn([(f"a{number}", f"b{number}") for number in range(9)])
    assert many.width <= LIMIT
    assert len({many.boxes[f"a{number}"].y for number in range(9)}) == 3


def test_a_chain_is_straight() -> None:
    drawing = drawn([("a", "b"), ("b", "c"), ("c", "d")])
    assert len({x for line in drawing.lines.values() for x, _ in line.points}) == 1


def test_a_crossing_that_can_be_avoided_is_avoided() -> None:
    drawing = drawn([("a", "y"), ("b", "x"), ("top", "a"), ("top", "b")])
    left = [name for name in ("a", "b") if drawing.boxes[name].x < drawing.boxes["a" if name == "b" else "b"].x]
    under = {"a": "y", "b": "x"}[left[0]]
    assert drawing.boxes[under].x < drawing.boxes[{"x": "y", "y": "x"}[under]].x


def test_nodes_without_edges_and_nothing_at_all_can_be_drawn() -> None:
    assert layered({"a": NODE}, {}, {}, LIMIT).boxes == {"a": Box(0.0, 0.0, *NODE)}
    assert layered({}, {}, {}, LIMIT) == Drawing(0.0, 0.0, {}, {})


def test_places_are_the_nearest_that_keep_order_and_distance() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    chance = random.Random(5)
    for count in (1, 2, 7, 30):
        wanted = [chance.uniform(0, 50) for _ in range(count)]
        apart = [chance.uniform(1, 5) for _ in range(count - 1)]
        weights = [chance.uniform(0.5, 4) for _ in range(count)]
        offsets = [0.0, *itertools.accumulate(apart)]
        moved = [place - offset for place, offset in zip(wanted, offsets, strict=True)]
        reference = optimize.isotonic_regression(moved, weights=weights).x
        assert spread(wanted, apart, weights) == pytest.approx(list(reference + offsets))


def test_places_that_are_far_enough_apart_are_kept() -> None:
    assert spread([0.0, 10.0, 30.0], [5.0, 5.0], [1.0, 1.0, 1.0]) == [0.0, 10.0, 30.0]
    assert spread([3.0, 3.0], [4.0], [1.0, 1.0]) == [1.0, 5.0]
