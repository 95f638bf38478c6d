"""What the pictures of flows show: which boxes, which arrows, and what is written on them."""

import dataclasses

import pytest

pytest.importorskip("torch")

from overviews import coverage_of, large_overview, recording, small_overview

from shapecheck.audit import Flow, Overview
from shapecheck.audit._page.overview import assembled
from shapecheck.audit._page.picture import Picture
from shapecheck.audit._page.picture import pictures as pictures_of

TIMES = "\N{MULTIPLICATION SIGN}"


def pictures(known: Overview) -> list[Picture]:
    """The pictures, with a letter that is easier to type in place of the sign."""
    return [
        dataclasses.replace(
            picture,
            nodes=tuple(dataclasses.replace(node, lines=plain(node.lines)) for node in picture.nodes),
            arrows=tuple(
                dataclasses.replace(arrow, lines=plain(arrow.lines), title=arrow.title.replace(TIMES, "x"))
                for arrow in picture.arrows
            ),
        )
        for picture in pictures_of(known)
    ]


def plain(lines: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(line.replace(TIMES, "x") for line in lines)


def arrows(picture: Picture) -> dict[tuple[str, str], tuple[str, ...]]:
    names = [node.name for node in picture.nodes]
    return {(names[arrow.ends[0]], names[arrow.ends[1]]): arrow.lines for arrow in picture.arrows}


def overview_of(*flows: Flow) -> Overview:
    calls = {name: 1 for flow in flows for name in (flow.source, flow.target) if name.startswith("a.")}
    return assembled("a", [], [], coverage_of(calls, "a"), recording(calls, flows))


def test_an_arrow_shows_what_flowed_most_often_and_its_title_everything() -> None:
    (picture,) = pictures(small_overview())
    assert arrows(picture)["lab.scan.group", "lab.optics.shift"] == ("img f32[3,5,7] x11", "+ 1 shape")
    assert arrows(picture)["lab.optics.shift", "lab.optics.Lens.apply"] == ("img f32[3,5,7] x7",)
    title = next(arrow.title for arrow in picture.arrows if arrow.lines[-1] == "+ 1 shape")
    assert title.splitlines() == [
        "lab.scan.group → lab.optics.shift, img f32[3,5,7] x9",
        "lab.scan.group → lab.optics.shift, img f32[1,5,7] x2",
    ]


def test_other_tensors_of_the_same_arrow_are_counted() -> None:
    (picture,) = pictures(overview_of(*(Flow("a.f", "a.g", parameter, "f32[3]", 4) for parameter in ("x", "y", "z"))))
    assert arrows(picture) == {("a.f", "a.g"): ("x f32[3] x4", "+ 2 tensors")}


def test_an_arrow_that_carries_little_has_no_label_but_a_title() -> None:
    (picture,) = pictures(overview_of(Flow("a.f", "a.g", "x", "f32[3]", 1000), Flow("a.h", "a.g", "x", "f32[3]", 3)))
    assert arrows(picture) == {("a.f", "a.g"): ("x f32[3] x1,000",), ("a.h", "a.g"): ()}
    assert all(arrow.title for arrow in picture.arrows)


def test_what_flows_back_into_its_own_boundary_is_written_in_the_box() -> None:
    (picture,) = pictures(overview_of(Flow("a.f", "a.f", "x", "f32[3]", 7)))
    assert picture.arrows == ()
    assert picture.nodes[0].lines[-1] == "to itself x7"


def test_boxes_tell_boundaries_of_the_package_from_others_and_those_with_findings() -> None:
    (picture,) = pictures(overview_of(Flow("other.f", "a.g", "x", "f32[3]", 1)))
    assert {node.name: node.kind for node in picture.nodes} == {"other.f": "foreign", "a.g": "boundary"}
    (picture,) = pictures(small_overview())
    assert {node.name for node in picture.nodes if node.needs} == {"lab.optics.shift"}


def test_the_arrow_that_closes_a_cycle_is_marked() -> None:
    (picture,) = pictures(small_overview())
    names = [node.name for node in picture.nodes]
    assert [(names[one], names[other]) for arrow in picture.arrows if arrow.upwards for one, other in [arrow.ends]] == [
        ("lab.optics.Lens.apply", "lab.scan.group")
    ]


def test_without_flows_there_is_no_picture() -> None:
    assert pictures(small_overview(recorded=False)) == []


def test_many_boundaries_are_shown_module_by_module() -> None:
    whole, *parts = pictures(large_overview(modules=8, functions=25))
    assert {node.name for node in whole.nodes} == {f"big.m{number}" for number in range(8)}
    assert {node.kind for node in whole.nodes} == {"group"}
    assert [part.group for part in parts] == [f"big.m{number}" for number in range(8)]
    shown = [node.name for part in parts for node in part.nodes if node.kind == "boundary"]
    assert sorted(shown) == sorted(f"big.m{module}.f{number}" for module in range(8) for number in range(25))
    assert {node.name for node in parts[3].nodes if node.kind == "group"} == {"big.m2", "big.m4"}


def test_thirty_boundaries_are_one_picture_and_one_more_are_several() -> None:
    assert len(pictures(large_overview(modules=1, functions=30))) == 1
    assert len(pictures(large_overview(modules=1, functions=31))) == 2


def test_names_that_are_too_long_lose_their_middle() -> None:
    long = f"a.begin{'x' * 40}_end"
    (picture,) = pictures(overview_of(Flow("a.f", long, "x", "f32[3]", 1)))
    (line,) = [node.lines[0] for node in picture.nodes if node.name == long]
    assert len(line) <= 30
    assert line.startswith("beginx")
    assert line.endswith("x_end")
