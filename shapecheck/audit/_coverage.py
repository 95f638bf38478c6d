"""Which contracts of a package a run has asked, which it never has, and what has none."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

from .._boundaries.records import constructions
from .._location import location_of
from ._crossings import TRACED
from ._enforcement import Enforcement, enforcement
from ._package import members_of
from ._recording import BoundaryRecord, Recording
from ._refused import refused

Outcome = Literal["accepted calls", "only rejected calls", "only while torch traced it", "never called"]


@dataclasses.dataclass(frozen=True)
class Covered:
    """What a run has asked one contract.

    Attributes:
        name: Name of the boundary.
        place: Where it is defined.
        outcome: How it was asked, if it was.
        calls: How often.
    """

    name: str
    place: str
    outcome: Outcome
    calls: int

    def __str__(self) -> str:
        """Return one line of a report."""
        return f"{self.outcome}: {self.name}{f' ({self.place})' if self.place else ''}"


@dataclasses.dataclass(frozen=True)
class Coverage:
    """What a run has asked all contracts, or those of some packages.

    Attributes:
        packages: Names of the packages; none, if it is about everything that was recorded.
        contracts: Every contract, ordered by name.
        refused: What was to have a contract and has none, and why.
        unchecked: The public functions and records of the packages that have tensors whose shape nobody checks, and
            which; nothing is known of them where no package was named.
        unchecked_inside: How many private functions have such tensors.
    """

    packages: tuple[str, ...]
    contracts: tuple[Covered, ...]
    refused: dict[str, str]
    unchecked: tuple[str, ...]
    unchecked_inside: int = 0

    def of(self, outcome: Outcome) -> list[Covered]:
        """Return the contracts with one outcome."""
        return [covered for covered in self.contracts if covered.outcome == outcome]

    @property
    def exercised(self) -> int:
        """How many contracts were asked at all."""
        return len(self.contracts) - len(self.of("never called"))

    @property
    def percent(self) -> float:
        """How many of a hundred contracts were asked; 100 where there are none."""
        return 100 * self.exercised / len(self.contracts) if self.contracts else 100.0

    def summary(self) -> str:
        """Return one line of numbers."""
        defined, exercised = len(self.contracts), self.exercised
        return (
            f"{defined} contract{'s' * (defined != 1)} defined, {exercised} exercised, "
            f"{defined - exercised} never exercised ({percentage(self.percent)})"
        )

    def findings(self) -> list[str]:
        """Return a line for everything that is not as it should be, the most important first."""
        asked: tuple[Outcome, ...] = ("never called", "only rejected calls", "only while torch traced it")
        lines = [str(covered) for outcome in asked for covered in self.of(outcome)]
        lines += [f"no contract: {name}: {reason}" for name, reason in sorted(self.refused.items())]
        lines += [f"shape not checked: {tensors}" for tensors in self.unchecked]
        inside = self.unchecked_inside
        whose = (
            "private function, for which its callers answer"
            if inside == 1
            else "private functions, for which their callers answer"
        )
        return [*lines, f"shape not checked: {inside} {whose}"] if inside else lines

    def __str__(self) -> str:
        """Return the report."""
        return "\n".join([self.summary(), *(f"  {line}" for line in self.findings())])

    def as_json(self) -> dict[str, Any]:
        """Return it as what JSON can hold."""
        return {**dataclasses.asdict(self), "exercised": self.exercised, "percent": self.percent}


def percentage(percent: float) -> str:
    """Return a percentage in whole numbers, rounded down, so that only all is 100."""
    return f"{int(percent)} %"


def coverage(recording: Recording, *packages: str) -> Coverage:
    """Tell which contracts a run has asked.

    Args:
        recording: What the run has shown.
        *packages: Names of packages or modules to report on, which are imported: contracts in modules that the run
            never imported count as never called. Without any, the report is about everything that was recorded.

    Raises:
        ImportError: A module of a package cannot be imported.
    """
    known = {record.name: record for record in recording.boundaries.values() if _is_within(record.name, packages)}
    for name, place in (defined for package in packages for defined in _contracts_of(package)):
        known.setdefault(name, BoundaryRecord(name, place))
    reasons = {**(refused(*packages) if packages else {}), **recording.skipped}
    missing = {
        name: reason
        for name, reason in reasons.items()
        if name not in recording.boundaries and _is_within(name, packages)
    }
    contracts = tuple(_covered(known[name], recording.skipped.get(name)) for name in sorted(known))
    public, private = _unchecked(packages)
    return Coverage(packages, contracts, missing, tuple(public), len(private))


def _is_within(name: str, packages: Iterable[str]) -> bool:
    return not packages or any(
        name == package or name.startswith((f"{package}.", f"{package} (")) for package in packages
    )


def _covered(record: BoundaryRecord, skipped: str | None) -> Covered:
    outcome: Outcome = "accepted calls"
    if not record.accepted:
        outcome = "only rejected calls" if record.calls else "never called"
        if skipped == TRACED:
            outcome = "only while torch traced it"
    return Covered(record.name, record.place, outcome, record.calls)


def _contracts_of(package: str) -> Iterator[tuple[str, str]]:
    """Yield name and place of the contracts that a package defines."""
    for member in members_of(package):
        if member.contract is not None:
            place: Any = member.contract.boundary.place
            yield place.name, str(place.defined or "")
        elif member.is_record and member.value in constructions:
            yield member.name, str(location_of(member.value) or "")


def _unchecked(packages: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the tensors whose shape nobody checks, a line for each public and for each private function."""
    tensors: dict[tuple[str, str], list[str]] = {}
    for entry in (entry for package in packages for entry in enforcement(package)):
        if (reason := _reason(entry)) is not None:
            tensors.setdefault((entry.function, reason), []).append(entry.parameter)
    lines: tuple[list[str], list[str]] = [], []
    for (function, reason), parameters in tensors.items():
        is_private = any(part.startswith("_") and not part.endswith("__") for part in function.split("."))
        lines[is_private].append(f"{function}: {', '.join(parameters)} ({reason})")
    return lines


def _reason(entry: Enforcement) -> str | None:
    """Return why nobody checks the shape of a parameter, if it is a tensor as its annotation says."""
    if entry.how == "tensor without contract":
        return "the function has no contract"
    if entry.how in {"beartype", "no contract"} and entry.annotation in {"Tensor", "ndarray"}:
        return f"{entry.annotation} says nothing of the axes"
    return None


def shortfall(covered: Coverage, at_least: float) -> str | None:
    """Return a sentence if fewer contracts were asked than should be, in percent."""
    if covered.percent >= at_least:
        return None
    return f"Expected at least {at_least:g} % of the contracts to be exercised, got {percentage(covered.percent)}."
