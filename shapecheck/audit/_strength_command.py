"""The command ``shapecheck strength``: what a package's contracts are worth, as a table."""

import dataclasses
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .._render import did_you_mean
from ._accepted import Accepted, idle, load_accepted, unexplained
from ._command import FOUND, command, under_contract, write_json
from ._mutation.holes import Hole
from ._strength import Strength, strengths


@command("strength")
def measure_package(
    package: str,
    *,
    function: str | None = None,
    at_least: float | None = None,
    accept: str | None = None,
    json_file: str | None = None,
    hook: bool = False,
) -> int:
    """Measure the contracts of a package and print what they are worth.

    Args:
        package: Name of a package or module.
        function: The only contract to measure, by its qualified name or the end of it.
        at_least: Percent of all mutants that must be caught.
        accept: File that names the holes that are left open; no other may be there then.
        json_file: File to write everything to.
        hook: Whether to put contracts on what is annotated first.

    Returns:
        The exit status.
    """
    accepted = None if accept is None else load_accepted(Path(accept))
    measured = _measured(package, function, hook=hook)
    write_json([as_data(one) for one in measured], json_file)
    if function is not None:
        sys.stdout.write("".join(f"{one}\n" for one in measured))
    else:
        sys.stdout.write("".join(f"{line}\n" for line in _report(measured, accepted)))
    complaints = [*_below(measured, at_least), *_complaints(measured, accepted, whole=function is None)]
    sys.stdout.write("".join(f"{line}\n" for line in complaints))
    return FOUND if complaints else 0


def _measured(package: str, function: str | None, *, hook: bool) -> list[Strength]:
    with under_contract(package, hook=hook):
        measured = strengths(package)
    if function is None:
        cure = "put @contract on its functions" + ("" if hook else ", or try --hook")
        msg = f"{package} has no contracts: {cure}."
    else:
        names = [one.name for one in measured]
        measured = [one for one in measured if f".{one.name}".endswith(f".{function}")]
        close = did_you_mean(function, {name.rpartition(".")[2] for name in names})
        msg = f"Expected a contract of {package}, got {function!r}: {close or 'it has none of that name.'}"
    if not measured:
        raise ValueError(msg)
    return measured


def as_data(one: Strength) -> dict[str, Any]:
    """Return a measurement as JSON can hold it."""
    return {**dataclasses.asdict(one), "caught": one.caught, "total": one.total, "families": one.families}


# --- the report ---------------------------------------------------------------------------------------
def _report(measured: Sequence[Strength], accepted: Sequence[Accepted] | None) -> Iterator[str]:
    done = sorted((one for one in measured if one.skipped is None), key=lambda one: (_share(one), one.name))
    skipped = [one for one in measured if one.skipped is not None]
    yield " caught        mutants  holes  contract"
    for one in done:
        yield f"{_percent(one.caught, one.total):>7}  {one.caught:>5} of {one.total:>5}  {len(one.holes):>5}  {one.name}"
    yield from _holes(
        [(one, hole) for one in done for hole in one.holes] if accepted is None else unexplained(done, accepted)
    )
    if skipped:
        yield from _skipped(skipped)
    yield f"\n{_families(done)}"
    yield _total(done, skipped, accepted)


def _holes(holes: Sequence[tuple[Strength, Hole]]) -> Iterator[str]:
    """Yield the holes, those of one sort together, the most frequent first."""
    sorts: dict[tuple[str, str], list[tuple[Strength, Hole]]] = {}
    for one, hole in holes:
        sorts.setdefault((hole.predicate, hole.repair), []).append((one, hole))
    for (predicate, repair), alike in sorted(sorts.items(), key=lambda item: -len(item[1])):
        many = f"  ({len(alike)} times)" if len(alike) > 1 else ""
        yield f"\nhole: {'these ' if predicate.startswith('are ') else ''}{predicate}{many}"
        yield f"  {'repair' if alike[0][1].is_verified else 'advice'}: {repair}"
        yield from (f"  {one.name}: {', '.join(hole.targets)}" for one, hole in alike)


def _skipped(skipped: Iterable[Strength]) -> Iterator[str]:
    reasons: dict[str | None, list[str]] = {}
    for one in skipped:
        reasons.setdefault(one.skipped, []).append(one.name)
    for reason, concerned in reasons.items():
        yield f"\nnot measured: {reason}"
        yield from (f"  {name}" for name in concerned)


def _families(done: Iterable[Strength]) -> str:
    counts: dict[str, tuple[int, int]] = {}
    for one in done:
        for family, (caught, total) in one.families.items():
            before = counts.get(family, (0, 0))
            counts[family] = before[0] + caught, before[1] + total
    return ", ".join(f"{family} {_percent(*count)} of {count[1]:,}" for family, count in counts.items())


def _total(done: Sequence[Strength], skipped: Sequence[Strength], accepted: Sequence[Accepted] | None) -> str:
    caught, total = sum(one.caught for one in done), sum(one.total for one in done)
    count = sum(len(one.holes) for one in done)
    explained = "" if accepted is None else f", {count - len(unexplained(done, accepted))} of them left open on purpose"
    unmeasured = f"; {_count(len(skipped), 'contract')} not measured" if skipped else ""
    share = f"{_percent(caught, total)} of {total:,} mutants caught by {_count(len(done), 'contract')}"
    return f"{share}; {_count(count, 'hole')}{explained}{unmeasured}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _share(one: Strength) -> float:
    return one.caught / one.total if one.total else 1.0


def _percent(caught: int, total: int) -> str:
    """Return a share in percent, rounded down: only all is 100 %."""
    return f"{math.floor(1000 * caught / total) / 10:.1f} %" if total else "-"


# --- what is not good enough ------------------------------------------------------------------------------
def _below(measured: Iterable[Strength], at_least: float | None) -> Iterator[str]:
    counted = [(one.caught, one.total) for one in measured]
    caught, total = sum(count[0] for count in counted), sum(count[1] for count in counted)
    if at_least is not None and 100 * caught < at_least * total:
        yield f"Expected at least {at_least:g} % of the mutants to be caught, got {_percent(caught, total)}."


def _complaints(measured: Sequence[Strength], accepted: Sequence[Accepted] | None, *, whole: bool) -> Iterator[str]:
    if accepted is None:
        return
    for one, hole in unexplained(measured, accepted):
        yield f"Unexplained hole of {one.name}: {hole.what}. Close it ({hole.repair}) or accept it with a reason."
    for entry in idle(measured, accepted) if whole else ():
        yield f"Nothing is left open by contract = {entry.contract!r}, hole = {entry.hole!r}: remove that entry."
