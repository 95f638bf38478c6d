"""What is known of each boundary is gathered from the other tools, ordered by what needs attention."""

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from overviews import coverage_of, mutants, recording, rows_of, small_overview, strength_of

from shapecheck.audit import BoundaryRecord, Coverage, Covered, Overview, Recording, overview, record
from shapecheck.audit._accepted import Accepted
from shapecheck.audit._page.overview import assembled, next_steps

SOURCE = """
import torch
from jaxtyping import Float32
from torch import Tensor
from shapecheck import contract

@contract
def lonely(image: Float32[Tensor, "h w"]) -> None: ...

@contract
def tight(image: Float32[Tensor, "h 3"], mask: Float32[Tensor, " h"]) -> None: ...

def forgotten(image: Float32[Tensor, "h w"]) -> None: ...
"""


def findings(known: Overview) -> dict[str, list[tuple[str, str]]]:
    return {entry.name: [(found.kind, found.what) for found in entry.findings] for entry in known.entries}


def test_each_boundary_has_the_findings_of_all_tools() -> None:
    assert findings(small_overview()) == {
        "lab.optics.shift": [
            ("hole", "img: h and w are interchangeable"),
            ("not annotated", "by: nothing is said of it"),
        ],
        "lab.scan.load": [("not exercised", "never called")],
        "lab.optics.Lens.apply": [("blind spot", "img: h and w are interchangeable")],
        "lab.scan.N": [],
        "lab.scan.group": [],
    }


def test_those_with_most_to_be_mended_come_first_then_those_that_accept_most() -> None:
    measured = [strength_of("a.few", "", missed=1), strength_of("a.many", "", missed=5), strength_of("a.none", "")]
    rows = rows_of("a.worst", img="compiled", x="not annotated", y="not annotated")
    known = assembled("a", rows, [*measured, strength_of("a.worst", "")], coverage_of({}, "a"), None)
    assert [entry.name for entry in known.entries] == ["a.worst", "a.many", "a.few", "a.none"]


def test_sums_are_those_of_all_boundaries() -> None:
    known = small_overview()
    assert known.total == (6 + 3) + (5 + 3) + (4 + 3) + (4 + 3)
    assert known.total - known.caught == 2 + 1


def test_without_a_recorded_run_nothing_is_said_of_runs() -> None:
    known = small_overview(recorded=False)
    assert not known.is_recorded
    assert not known.of("not exercised")
    assert not known.of("coincidence")
    assert small_overview().of("not exercised")


def test_a_hole_that_is_left_open_on_purpose_is_no_longer_pressing_and_says_why() -> None:
    reason = Accepted("lab.optics.*", "img: h and w are interchangeable", "test_optics.py tells them apart")
    (first, found), (second, _) = small_overview(accepted=(reason,)).of("left open")
    assert {first.name, second.name} == {"lab.optics.shift", "lab.optics.Lens.apply"}
    assert found.cure == "test_optics.py tells them apart"
    assert not small_overview(accepted=(reason,)).of("hole")
    assert small_overview(accepted=(Accepted("lab.scan.*", "*", "none there"),)).of("hole")


@pytest.mark.parametrize(
    ("outcome", "cure"),
    [
        ("never called", "call it in a test"),
        ("only rejected calls", "call it in a test with what it accepts"),
        ("only while torch traced it", "call it in a test once without torch.compile or torch.export"),
        ("accepted calls", None),
    ],
)
def test_every_way_not_to_be_exercised_has_its_own_cure(outcome, cure) -> None:
    covered = Coverage(("a",), (Covered("a.f", "a.py:3", outcome, 2),), {}, ())
    (entry,) = assembled("a", [], [], covered, recording({"a.f": 2})).entries
    assert [(found.what, found.cure) for found in entry.findings] == ([(outcome, cure)] if cure else [])


def test_coincidences_of_a_run_are_findings() -> None:
    record_of = BoundaryRecord(
        "a.f", calls=3, sizes={"B": [4], "C": [4]}, bound={"B": 3, "C": 3}, always_equal=[("B", "C")]
    )
    (entry,) = assembled("a", [], [], coverage_of({"a.f": 3}, "a"), Recording({"a.f": record_of})).entries
    assert [found.what for found in entry.findings] == ["B and C were both 4 in all 3 calls"]


def test_only_flows_that_touch_the_package_are_kept() -> None:
    known = small_overview()
    assert {flow.source for flow in known.flows} == {"lab.scan.group", "lab.optics.shift", "lab.optics.Lens.apply"}
    foreign = assembled("lab", [], [], coverage_of({"other.f": 1}, "other"), recording({"other.f": 1}, known.flows))
    assert foreign.flows == ()


def test_names_are_divided_where_the_module_ends() -> None:
    parts = {entry.name: (entry.module, entry.title) for entry in small_overview().entries}
    assert parts["lab.optics.Lens.apply"] == ("lab.optics", "Lens.apply")
    assert parts["lab.scan.load"] == ("lab.scan", "load")
    unplaced = assembled("lab", [], [strength_of("lab.K.f", "?")], coverage_of({}, "lab"), None).entries[0]
    assert (unplaced.module, unplaced.title) == ("lab.K", "f")
    package = assembled("lab", [], [strength_of("lab.K.f", "lab/__init__.py:3")], coverage_of({}, "lab"), None).entries[
        0
    ]
    assert (package.module, package.title) == ("lab", "K.f")


def test_what_could_not_be_measured_says_why() -> None:
    known = small_overview()
    assert {entry.name: entry.skipped for entry in known.entries if entry.skipped} == {
        "lab.scan.N": "no annotation in it speaks of a tensor"
    }


def test_the_next_steps_name_boundaries_and_what_is_needed_most_often() -> None:
    steps = next_steps(small_overview())
    assert [step.text.split()[0] for step in steps] == ["Close", "Call", "Annotate", "Test"]
    assert steps[0].names == ("lab.optics.shift",)
    assert steps[0].cures == ()
    two = [strength_of(f"a.f{number}", "", missed=1) for number in range(3)]
    hole = two[0].holes[0].__class__(("x",), "x: too wide", "write Float32", mutants("dtype", "x", 0, 1), True)
    wide = two[0].__class__("a.g", "", hole.mutants, (hole,))
    known = assembled("a", [], [*two, wide], coverage_of({}, "a"), None)
    assert next_steps(known)[0].cures == (("bind w in another argument", 3), ("write Float32", 1))


def test_its_data_can_be_written_as_json_and_hold_everything() -> None:
    known = small_overview()
    data = json.loads(json.dumps(known.as_json()))
    assert (data["format"], data["version"], data["package"]) == ("shapecheck overview", 1, "lab")
    assert [entry["name"] for entry in data["entries"]] == [entry.name for entry in known.entries]
    assert data["entries"][0]["strength"]["mutants"][0]["family"] == "permuted"
    assert len(data["flows"]) == 4


@pytest.mark.violation
def test_a_package_is_looked_at_with_a_run_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    (tmp_path / "looked_at.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    with record() as run:
        import looked_at

        looked_at.lonely(torch.zeros(5, 5))
    known = overview("looked_at", run)
    lonely = next(entry for entry in known.entries if entry.title == "lonely")
    tight = next(entry for entry in known.entries if entry.title == "tight")
    assert {found.kind for found in lonely.findings} == {"hole", "coincidence"}
    assert [found.what for found in tight.of("not exercised")] == ["never called"]
    assert lonely.record is not None
    assert lonely.record.shapes["image"] == {"f32[5,5]": 1}
    assert lonely.annotations == {"image": 'Float32[Tensor, "h w"]', "return": "None"}
    assert known.entries[0] is lonely
    assert ["forgotten" in line for line in known.unchecked] == [True]
