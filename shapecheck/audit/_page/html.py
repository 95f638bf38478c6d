"""One HTML page of everything that is known of a package's contracts: an `Overview`, made readable.

The page is one file: its style, script and pictures are inside, it loads nothing, and its policy lets nothing else run.
The same overview always gives the same bytes.
"""

import base64
import dataclasses
import functools
import hashlib
import re
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .overview import Overview, Step, next_steps
from .picture import pictures

_FOLDER = Path(__file__).with_name("templates")
_MOST_NAMED = 8  # boundaries or cures named in one step
_RECORD = (
    "Record a run to see which contracts are exercised, and with which shapes: set SHAPECHECK_RECORD=run.json while it "
    "runs, then add --recording run.json here."
)
_KINDS = (
    ("hole", "with holes"),
    ("blind-spot", "with blind spots"),
    ("left-open", "with holes left open on purpose"),
    ("not-exercised", "not exercised"),
    ("coincidence", "with coincidences"),
    ("not-annotated", "with parameters not annotated"),
    ("skipped", "not measured"),
)


def page(known: Overview, written: str = "") -> str:
    """Return everything that is known of a package's contracts as an HTML page that needs nothing else.

    Args:
        known: What is known.
        written: When the page is written, if it is to say so.
    """
    anchors = _anchors("boundary", (entry.name for entry in known.entries))
    drawn = pictures(known)
    arrivals, departures = _passages(known)
    return _template().render(
        known=known,
        anchors=anchors,
        group_anchors=_anchors("flow", (one.group for one in drawn if one.group)),
        arrivals=arrivals,
        departures=departures,
        kinds=_KINDS,
        most_named=_MOST_NAMED,
        numbers=_numbers(known),
        pictures=drawn,
        script=_inline("page.js"),
        skipped=[(entry.name, entry.skipped) for entry in known.entries if entry.skipped],
        steps=_steps(known),
        style=_inline("page.css"),
        titles={entry.name: entry.title for entry in known.entries},
        verdict=_verdict(known),
        version=_version(),
        written=written,
    )


@functools.cache
def _template() -> Any:
    import jinja2  # comes with torch, and is needed for nothing but this page

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("page.html.j2")


@dataclasses.dataclass(frozen=True)
class _Inline:
    """Text of our own that stands in the page as it is, and the hash by which the page's policy knows it."""

    text: Any
    hash: str


def _inline(name: str) -> _Inline:
    from markupsafe import Markup  # of jinja2

    text = (_FOLDER / name).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return _Inline(Markup(text), f"sha256-{digest}")  # our own file


def _anchors(prefix: str, names: Iterable[str]) -> dict[str, str]:
    """Return an id for each name: made of the name, and of a number where that is not enough to tell two apart."""
    anchors = dict[str, str]()
    for name in names:
        base = f"{prefix}-{re.sub(r'[^A-Za-z0-9_.]+', '-', name).strip('-')}"
        taken = set(anchors.values())
        candidates = (base if number == 1 else f"{base}-{number}" for number in range(1, len(taken) + 2))
        anchors[name] = next(candidate for candidate in candidates if candidate not in taken)
    return anchors


@dataclasses.dataclass(frozen=True)
class _Passage:
    """What went between a boundary and another, through one parameter: the shapes with their numbers."""

    parameter: str
    other: str
    calls: int
    shapes: dict[str, int]


def _passages(known: Overview) -> tuple[dict[str, list[_Passage]], dict[str, list[_Passage]]]:
    """Return what came to each boundary and what went from it, the most frequent first."""
    shapes: dict[tuple[str, str, str], dict[str, int]] = {}
    for flow in sorted(known.flows, key=lambda flow: (-flow.calls, flow.shape)):
        shapes.setdefault((flow.source, flow.target, flow.parameter), {})[flow.shape] = flow.calls
    arrivals, departures = dict[str, list[_Passage]](), dict[str, list[_Passage]]()
    for (source, target, parameter), seen in sorted(shapes.items(), key=lambda item: (-sum(item[1].values()), item[0])):
        calls = sum(seen.values())
        arrivals.setdefault(target, []).append(_Passage(parameter, source, calls, seen))
        departures.setdefault(source, []).append(_Passage(parameter, target, calls, seen))
    return arrivals, departures


def _version() -> str:
    try:
        return version("shapecheck-torch")
    except PackageNotFoundError:  # run from its source
        return ""


# --- the summary ----------------------------------------------------------------------------------------
@dataclasses.dataclass(frozen=True)
class _Number:
    label: str
    value: str
    state: str = ""


def _numbers(known: Overview) -> list[_Number]:
    numbers = [_Number("boundaries under contract", f"{len(known.entries):,}", "" if known.entries else "bad")]
    if known.total:
        label = f"of wrong calls caught ({known.caught:,} of {known.total:,})"
        numbers.append(_Number(label, f"{_percent(known.caught, known.total)} %"))
        numbers.append(_problems("holes that an annotation closes", len(known.of("hole")), "bad"))
        numbers.append(_problems("blind spots that none closes", len(known.of("blind spot"))))
    if known.is_recorded and known.entries:
        exercised = len(known.entries) - len(known.of("not exercised"))
        state = "good" if exercised == len(known.entries) else "warn"
        numbers.append(_Number("exercised by the recorded runs", f"{exercised:,}/{len(known.entries):,}", state))
        numbers.append(_problems("coincidences: dims that never differed", len(known.of("coincidence"))))
    open_ends = len(known.unchecked) + len(known.of("not annotated"))
    return [*numbers, _problems("parameters whose shape nobody checks", open_ends)]


def _problems(label: str, number: int, state: str = "warn") -> _Number:
    return _Number(label, f"{number:,}", state if number else "good")


def _percent(part: int, whole: int) -> str:
    """Return a share of a hundred that is 100 only when nothing is missing."""
    return "100" if part == whole else f"{min(100 * part / whole, 99.9):.1f}"


def _verdict(known: Overview) -> str:
    if not known.entries:
        return "No boundary of this package is under contract, so that nothing is checked."
    leaky = {entry.name for kind in ("hole", "blind spot") for entry, _ in known.of(kind)}
    idle = len(known.of("not exercised"))
    parts = [f"{len(leaky)} of {len(known.entries)} contracts accept some wrong calls"] if leaky else []
    parts += [f"{idle} {'was' if idle == 1 else 'were'} not exercised by the recorded runs"] if idle else []
    return f"{' and '.join(parts)}." if parts else _praise(known)


def _praise(known: Overview) -> str:
    if not known.total:
        return "Nothing could be measured of these contracts: see “Not measured”."
    but = ", but for what is left open on purpose" if known.of("left open") else ""
    end = "every contract was exercised" if known.is_recorded else "no run was recorded that shows which are exercised"
    return f"No contract accepts any of the wrong calls that were tried{but}; {end}."


def _steps(known: Overview) -> list[Step]:
    steps = next_steps(known)
    if not known.entries:
        return [*steps, Step("Decorate functions with @contract, or hook the whole package: shapecheck report --hook.")]
    if not known.is_recorded:
        steps.append(Step(_RECORD))
    return steps or [Step("Nothing." if known.total else "Nothing that could be told: see “Not measured”.")]
