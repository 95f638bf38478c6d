"""What became of the functions of a package that were run on fake tensors: data, and the text that tells it."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from .fake_run import Verdict

FINDINGS: tuple[Verdict, ...] = ("contract violated", "shape error")
ORDER: tuple[Verdict, ...] = (
    *FINDINGS,
    "error in the body",
    "refused its arguments",
    "not run",
    "passed",
)  # worst first

_MEANINGS: dict[Verdict, str] = {
    "contract violated": "a result, or a call inside, breaks a contract",
    "shape error": "torch refuses shapes that the contract allows",
    "error in the body": "it may come from the sizes and numbers that were made up",
    "refused its arguments": "the function itself raises; it may be right",
    "not run": "nothing is known of these",
    "passed": "no violation and no error, at the sizes that were tried",
}


@dataclasses.dataclass(frozen=True)
class Verified:
    """What became of one function.

    Attributes:
        name: Qualified name.
        place: Where it is defined, as ``file.py:12``.
        verdict: The worst of its runs.
        reason: The error, or why it was not run, in short.
        line: The line of the package where it stopped, with its text.
        call: What it was called with.
        sizes: The sizes of its dims in that call.
        note: What other runs of it have shown.
    """

    name: str
    place: str
    verdict: Verdict
    reason: str
    line: str
    call: str
    sizes: dict[str, int]
    note: str = ""

    @property
    def cause(self) -> tuple[str, str]:
        """What functions that ended for one reason have in common: the reason without its parameter, and the line."""
        what, _, why = self.reason.partition(": ")
        is_parameter = self.verdict == "not run" and why and " " not in what and not what.endswith("Error")
        return (why if is_parameter else self.reason), self.line


@dataclasses.dataclass(frozen=True)
class Verification:
    """What became of the functions of a package.

    Attributes:
        package: Its name.
        functions: Those whose contract has tensors.
        others: How many have a contract without tensors, and were left alone.
        open: How many have no contract at all.
    """

    package: str
    functions: tuple[Verified, ...]
    others: int
    open: int

    def of(self, *verdicts: Verdict) -> list[Verified]:
        """Return the functions with one of some verdicts."""
        return [function for function in self.functions if function.verdict in verdicts]

    @property
    def findings(self) -> list[Verified]:
        """The functions that break a contract, or whose body cannot take a shape that their contract allows."""
        return self.of(*FINDINGS)

    def __str__(self) -> str:
        lines = [self.summary()]
        for verdict in ORDER:
            if found := self.of(verdict):
                told = _told(found) if verdict != "passed" else map(_told_passed, found)
                lines += ["", f"{verdict} ({len(found)}): {_MEANINGS[verdict]}", *told]
        return "\n".join(lines)

    def summary(self) -> str:
        """Return the numbers in two lines."""
        counts = ", ".join(f"{len(found)} {verdict}" for verdict in reversed(ORDER) if (found := self.of(verdict)))
        total = f"{self.package}: {len(self.functions)} functions with tensors in their contract, on fake tensors"
        rest = f"Left out: {self.others} whose contract has no tensors, {self.open} without a contract."
        return f"{total}: {counts or 'nothing to run'}.\n{rest}"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain dictionaries, lists and strings, ready for JSON."""
        return dataclasses.asdict(self)


def _told(functions: Sequence[Verified]) -> Iterator[str]:
    """Tell functions that ended for the same reason together, those with company first."""
    groups = [list(group) for _, group in itertools.groupby(sorted(functions, key=_cause), key=_cause)]
    for group in sorted(groups, key=len, reverse=True):
        yield from _told_together(group) if len(group) > 1 else _told_alone(group[0])


def _cause(function: Verified) -> tuple[str, str]:
    return function.cause


def _told_together(group: Sequence[Verified]) -> Iterator[str]:
    reason, line = group[0].cause
    yield f"  {len(group)} times: {reason}"
    if line:
        yield f"      stopped at   {line}"
    yield from (f"      {function.name}" for function in group)


def _told_passed(function: Verified) -> str:
    note = f"\n      note         {function.note}" if function.note else ""
    return f"  {function.name}({function.call}){note}"


def _told_alone(function: Verified) -> Iterator[str]:
    yield f"  {function.name} ({function.place})"
    told = {
        "": function.reason,
        "called with": "" if function.verdict == "not run" else function.call,
        "stopped at": function.line,
        "note": function.note,
    }
    yield from (f"      {label:<12} {text}".replace(" " * 13, "", not label) for label, text in told.items() if text)
