"""Hand-made findings about packages that do not exist, for the tests of the page that shows them."""

import dataclasses
import itertools

from shapecheck.audit import (
    BoundaryRecord,
    Coverage,
    Covered,
    Enforcement,
    Flow,
    Hole,
    Mutant,
    Overview,
    Recording,
    Strength,
)
from shapecheck.audit._accepted import Accepted
from shapecheck.audit._page.overview import assembled

HOSTILE = "a.<script>alert('1')</script>\"'&{{7*7}}"
IMAGE = 'Float32[Tensor, "n h w"]'


def mutants(family: str, target: str, caught: int, missed: int) -> tuple[Mutant, ...]:
    return tuple(Mutant(family, target, f"change {number}", number < caught) for number in range(caught + missed))


def strength_of(name: str, place: str, caught: int = 4, missed: int = 0, *, verified: bool = True) -> Strength:
    """The strength of a contract with one argument, and with one hole if it misses anything."""
    permuted, dropped = mutants("permuted", "img", caught, missed), mutants("dropped", "img", 3, 0)
    survivors = tuple(mutant for mutant in permuted if not mutant.caught)
    hole = Hole(("img",), "img: h and w are interchangeable", "bind w in another argument", survivors, verified)
    return Strength(name, place, (*permuted, *dropped), (hole,) if survivors else ())


def recording(calls: dict[str, int], flows: tuple[Flow, ...] = ()) -> Recording:
    records = {
        name: BoundaryRecord(
            name,
            calls=number,
            annotations={"img": IMAGE},
            shapes={"img": {"f32[3,5,7]": number}} if number else {},
            sizes={"n": [3], "h": [5], "w": [7]} if number else {},
            bound={"n": number, "h": number, "w": number} if number else {},
        )
        for name, number in calls.items()
    }
    return Recording(records, list(flows))


def coverage_of(calls: dict[str, int], package: str, unchecked: tuple[str, ...] = ()) -> Coverage:
    contracts = (
        Covered(name, "", "accepted calls" if number else "never called", number) for name, number in calls.items()
    )
    return Coverage((package,), tuple(contracts), {}, unchecked)


def rows_of(name: str, **hows: str) -> list[Enforcement]:
    return [
        Enforcement(name, parameter, IMAGE if how != "not annotated" else "", how) for parameter, how in hows.items()
    ]


def small_overview(*, recorded: bool = True, accepted: tuple[Accepted, ...] = ()) -> Overview:
    """Five boundaries: one with a hole, one with a blind spot, one never called, one without findings, one skipped."""
    calls = {
        "lab.optics.shift": 12,
        "lab.optics.Lens.apply": 7,
        "lab.scan.load": 0,
        "lab.scan.group": 3,
        "lab.scan.N": 1,
    }
    measured = [
        strength_of("lab.optics.shift", "lab/optics.py:11", missed=2),
        strength_of("lab.optics.Lens.apply", "lab/optics.py:47", missed=1, verified=False),
        strength_of("lab.scan.load", "lab/scan.py:5"),
        strength_of("lab.scan.group", "lab/scan.py:30"),
        Strength("lab.scan.N", "lab/scan.py:60", skipped="no annotation in it speaks of a tensor"),
    ]
    rows = [row for one in measured for row in rows_of(one.name, img="compiled")] + rows_of(
        "lab.optics.shift", by="not annotated"
    )
    flows = (
        Flow("lab.scan.group", "lab.optics.shift", "img", "f32[3,5,7]", 9),
        Flow("lab.scan.group", "lab.optics.shift", "img", "f32[1,5,7]", 2),
        Flow("lab.optics.shift", "lab.optics.Lens.apply", "img", "f32[3,5,7]", 7),
        Flow("lab.optics.Lens.apply", "lab.scan.group", "img", "f32[3,5,7]", 1),
    )
    covered = coverage_of(calls, "lab", ("lab.scan.raw, x: Tensor, which says nothing of its axes",))
    return assembled("lab", rows, measured, covered, recording(calls, flows) if recorded else None, accepted)


def large_overview(modules: int, functions: int) -> Overview:
    """As many boundaries as there are functions in so many modules, each of which flows into the next."""
    names = [f"big.m{module}.f{number}" for module in range(modules) for number in range(functions)]
    measured = [
        strength_of(name, f"{name.rpartition('.')[0].replace('.', '/')}.py:{index + 1}")
        for index, name in enumerate(names)
    ]
    flows = tuple(Flow(source, target, "img", "f32[3,5,7]", 2) for source, target in itertools.pairwise(names))
    calls = dict.fromkeys(names, 2)
    return assembled("big", [], measured, coverage_of(calls, "big"), recording(calls, flows))


def hostile_overview() -> Overview:
    strength = strength_of(HOSTILE, f"{HOSTILE}.py:1", missed=1)
    hole = Hole((HOSTILE,), HOSTILE, HOSTILE, tuple(m for m in strength.mutants if not m.caught), is_verified=True)
    strength = Strength(HOSTILE, strength.place, strength.mutants, (hole,))
    rows = [dataclasses.replace(row, parameter=HOSTILE, annotation=HOSTILE) for row in rows_of(HOSTILE, img="compiled")]
    flow = Flow(HOSTILE, f"{HOSTILE}2", HOSTILE, HOSTILE, 3)
    covered = coverage_of({HOSTILE: 1, f"{HOSTILE}2": 0}, "a", (HOSTILE,))
    known = assembled(HOSTILE, rows, [strength], covered, recording({HOSTILE: 1}, (flow,)))
    return dataclasses.replace(known, refused={HOSTILE: HOSTILE})


OVERVIEWS = {
    "small": small_overview,
    "not-recorded": lambda: small_overview(recorded=False),
    "large": lambda: large_overview(modules=8, functions=25),
    "empty": lambda: assembled("nothing", [], [], coverage_of({}, "nothing"), None),
    "hostile": hostile_overview,
}
