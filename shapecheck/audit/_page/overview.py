"""What is known of every boundary of a package, in one place: contract, strength, calls, and what is to be done.

Gathers what the other tools of the laboratory find out, and finds out nothing itself.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

from .._accepted import Accepted
from .._coincidence import Coincidence, coincidences
from .._coverage import Coverage, Covered, Outcome, coverage
from .._enforcement import Enforcement, enforcement
from .._recording import BoundaryRecord, Flow, Recording
from .._strength import Strength, strengths

FindingKind = Literal["hole", "not exercised", "coincidence", "not annotated", "blind spot", "left open"]

_VARY = "call it with sizes that differ (in pytest the fixture shapecheck_sizes has them), or give the dims one name"
_EXERCISES: dict[Outcome, str] = {
    "never called": "call it in a test",
    "only rejected calls": "call it in a test with what it accepts",
    "only while torch traced it": "call it in a test once without torch.compile or torch.export",
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a boundary, or that nobody knows of it.

    Attributes:
        kind: ``hole``: wrong calls of one sort are accepted, and a change of the contract was tried that closes it;
            ``not exercised``: no recorded run has shown an accepted call; ``coincidence``: dims that no run has told
            apart; ``not annotated``: a parameter that nothing is said of; ``blind spot``: a hole that no change of the
            contract was found to close; ``left open``: a hole that somebody has left open on purpose.
        what: What was found.
        cure: What to do about it; of what is left open, why.
        passing: The wrong calls that are accepted, as ``img: axes (0, 2, 1)``; of holes only.
    """

    kind: FindingKind
    what: str
    cure: str
    passing: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Entry:
    """Everything that is known of one boundary.

    Attributes:
        name: Qualified name.
        place: File and line of its definition; empty where it is not known.
        annotations: Of each parameter or field and of the result (``return``), as written; empty where there is none.
        strength: What its contract notices; None where that was not measured.
        record: What the recorded runs have seen of it; None without a run that knows it.
        skipped: Why something could not be measured or recorded; empty where all could.
        findings: What needs attention, the most urgent first; blind spots last.
    """

    name: str
    place: str
    annotations: dict[str, str]
    strength: Strength | None
    record: BoundaryRecord | None
    skipped: str
    findings: tuple[Finding, ...]

    @property
    def module(self) -> str:
        """Name of the module that it is defined in; where its place does not tell, its name without the last part."""
        path = self.place.partition(".py")[0].removesuffix("/__init__").replace("/", ".")
        return path if path and self.name.startswith(f"{path}.") else self.name.rpartition(".")[0]

    @property
    def pressing(self) -> list[Finding]:
        """The findings that can be mended here and now."""
        return [finding for finding in self.findings if finding.kind not in {"blind spot", "left open"}]

    @property
    def title(self) -> str:
        """Its name inside its module."""
        return self.name.removeprefix(f"{self.module}.")

    def of(self, kind: FindingKind) -> list[Finding]:
        """Return the findings of one kind."""
        return [finding for finding in self.findings if finding.kind == kind]


@dataclasses.dataclass(frozen=True)
class Overview:
    """Everything that is known of the boundaries of a package.

    Attributes:
        package: Name of the package or module.
        entries: Its boundaries, those with most findings first.
        unchecked: Parameters that are tensors as their annotation says, and whose shape nobody checks.
        refused: What was to have a contract and has none, and why.
        flows: From which boundary to which tensors went, in the recorded runs.
        is_recorded: Whether there was a recorded run.
    """

    package: str
    entries: tuple[Entry, ...]
    unchecked: tuple[str, ...]
    refused: dict[str, str]
    flows: tuple[Flow, ...]
    is_recorded: bool

    @property
    def caught(self) -> int:
        """How many wrong calls all contracts together notice."""
        return sum(entry.strength.caught for entry in self.entries if entry.strength)

    @property
    def total(self) -> int:
        """Of how many wrong calls."""
        return sum(entry.strength.total for entry in self.entries if entry.strength)

    def of(self, kind: FindingKind) -> list[tuple[Entry, Finding]]:
        """Return the findings of one kind, each with its boundary."""
        return [(entry, finding) for entry in self.entries for finding in entry.of(kind)]

    def as_json(self) -> dict[str, Any]:
        """Return it as what JSON can hold."""
        return {"format": "shapecheck overview", "version": 1, **dataclasses.asdict(self)}


def overview(package: str, recording: Recording | None = None, accepted: Sequence[Accepted] = ()) -> Overview:
    """Gather what is known of the boundaries of a package; none of its functions is called.

    Args:
        package: Name of a package or module, which is imported with everything below it.
        recording: What was recorded of runs; several are merged first (`Recording.merged`).
        accepted: Holes that are left open on purpose.

    Raises:
        ImportError: There is no such package, or a module of it cannot be imported.
    """
    measured, rows = strengths(package), enforcement(package)
    covered = coverage(Recording() if recording is None else recording, package)
    return assembled(package, rows, measured, covered, recording, accepted)


def assembled(
    package: str,
    rows: Iterable[Enforcement],
    measured: Iterable[Strength],
    covered: Coverage,
    recording: Recording | None,
    accepted: Sequence[Accepted] = (),
) -> Overview:
    """Put together what the other tools have found of a package.

    Args:
        package: Its name.
        rows: How each parameter is enforced.
        measured: The strength of its contracts.
        covered: Which of its contracts a run has asked.
        recording: What was recorded; None, if nothing was.
        accepted: Holes that are left open on purpose.
    """
    facts = _Facts(rows, measured, covered, recording, accepted)
    entries = tuple(sorted(map(facts.entry, facts.names()), key=_attention))
    names = {entry.name for entry in entries}
    flows = tuple(flow for flow in (recording.flows if recording else []) if {flow.source, flow.target} & names)
    return Overview(package, entries, covered.unchecked, covered.refused, flows, is_recorded=recording is not None)


def _attention(entry: Entry) -> tuple[int, int, str]:
    """Most findings that can be mended first, then most wrong calls that are accepted."""
    missed = entry.strength.total - entry.strength.caught if entry.strength else 0
    return -len(entry.pressing), -missed, entry.name


class _Facts:
    """What the other tools have found, by the names of the boundaries."""

    def __init__(
        self,
        rows: Iterable[Enforcement],
        measured: Iterable[Strength],
        covered: Coverage,
        recording: Recording | None,
        accepted: Sequence[Accepted],
    ) -> None:
        self._rows: dict[str, list[Enforcement]] = {}
        for row in rows:
            self._rows.setdefault(row.function, []).append(row)
        self._strengths = {strength.name: strength for strength in measured}
        self._covered = {one.name: one for one in covered.contracts}
        self._recording = recording
        self._accepted = accepted
        self._coincidences: dict[str, list[Coincidence]] = {}
        for one in coincidences(recording) if recording else []:
            self._coincidences.setdefault(one.boundary, []).append(one)

    def names(self) -> dict[str, None]:
        """Return the names of all boundaries."""
        return dict.fromkeys([*self._covered, *self._strengths])

    def entry(self, name: str) -> Entry:
        """Return everything that is known of one boundary."""
        rows, strength, covered = self._rows.get(name, []), self._strengths.get(name), self._covered.get(name)
        record = self._recording.boundaries.get(name) if self._recording else None
        skips = [strength.skipped if strength else None, self._recording.skipped.get(name) if self._recording else None]
        return Entry(
            name,
            next((known.place for known in (strength, covered) if known and known.place.strip("?")), ""),
            {row.parameter: row.annotation for row in rows} or (dict(record.annotations) if record else {}),
            strength,
            record,
            "; ".join(dict.fromkeys(skip for skip in skips if skip)),
            tuple(
                sorted([*_holes(strength, self._accepted), *self._of_runs(name, covered), *_silent(rows)], key=_urgency)
            ),
        )

    def _of_runs(self, name: str, covered: Covered | None) -> list[Finding]:
        if self._recording is None:
            return []
        found = [Finding("coincidence", str(one), _VARY) for one in self._coincidences.get(name, [])]
        if covered is not None and covered.outcome in _EXERCISES:
            found.insert(0, Finding("not exercised", covered.outcome, _EXERCISES[covered.outcome]))
        return found


def _holes(strength: Strength | None, accepted: Sequence[Accepted]) -> list[Finding]:
    if strength is None:
        return []
    found = list[Finding]()
    for hole in strength.holes:
        kind: FindingKind = "hole" if hole.is_verified else "blind spot"
        cure = hole.repair
        if reasons := [one.reason for one in accepted if one.covers(strength.name, hole)]:
            kind, cure = "left open", reasons[0]
        passing = tuple(f"{mutant.target}: {mutant.change}" for mutant in hole.mutants)
        found.append(Finding(kind, hole.what, cure, passing))
    return found


def _urgency(finding: Finding) -> int:
    return get_args(FindingKind).index(finding.kind)


def _silent(rows: Iterable[Enforcement]) -> list[Finding]:
    return [
        Finding("not annotated", f"{row.parameter}: nothing is said of it", "annotate it")
        for row in rows
        if row.how == "not annotated"
    ]


# --- what to do next -----------------------------------------------------------------------------------------
@dataclasses.dataclass(frozen=True)
class Step:
    """One thing to do next.

    Attributes:
        text: What to do, and where to begin.
        names: Boundaries that it concerns, those to begin with first.
        cures: The different ways to do it, and how often each is needed, the most frequent first.
    """

    text: str
    names: tuple[str, ...] = ()
    cures: tuple[tuple[str, int], ...] = ()


def next_steps(known: Overview) -> list[Step]:
    """Return what to do next, the most urgent first."""
    texts: Mapping[FindingKind, str] = {
        "hole": "Close {n} hole{s}: wrong calls that {b} accept{t}, each with a repair that was tried.",
        "not exercised": "Call {b} in a test: no recorded run has shown an accepted call of {them}.",
        "coincidence": "Vary the sizes in the tests of {b}: {n} set{s} of dims never differed, "
        "so that nothing is known of their order.",
        "not annotated": "Annotate {n} parameter{s} of {b}, of which nothing is said.",
        "blind spot": "Test the content of what crosses {b}: {n} blind spot{s} that no annotation was found to close.",
    }
    return [_step(text, known.of(kind)) for kind, text in texts.items() if known.of(kind)]


def _step(text: str, found: Sequence[tuple[Entry, Finding]]) -> Step:
    names = tuple(dict.fromkeys(entry.name for entry, _ in found))
    plural = "s" if len(found) > 1 else ""
    them = "them" if len(names) > 1 else "it"
    verb = "" if len(names) > 1 else "s"
    boundaries = counted(len(names), "boundary", "boundaries")
    cures = Counter(finding.cure for _, finding in found).most_common()
    words = text.format(n=f"{len(found):,}", s=plural, b=boundaries, them=them, t=verb)
    return Step(words, names, tuple(cures) if len(cures) > 1 else ())


def counted(number: int, one: str, several: str = "") -> str:
    """Return a number with what it counts, as in ``3 holes``."""
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"
