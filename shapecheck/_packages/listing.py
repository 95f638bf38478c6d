"""What an import hook did with every function, class and module that it met: data, and the text that lists it.

Nothing that was not contracted is left out: that is what makes a hook something to rely on.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterator
from typing import Literal

Outcome = Literal["contracted", "refused", "left alone", "nothing to check"]


@dataclasses.dataclass(frozen=True)
class Listed:
    """One function, class or module of a hooked package.

    Attributes:
        module: Name of the module.
        name: Qualified name inside the module; empty for the module as a whole.
        line: Line of its definition; 0 for a module.
        outcome: What became of it: ``refused`` is what has tensors in its annotations, or may have, and is not checked.
        reason: Why it is not contracted; empty if it is.
    """

    module: str
    name: str
    line: int
    outcome: Outcome
    reason: str = ""

    def __str__(self) -> str:
        name = f"{self.module}.{self.name}" if self.name else self.module
        place = f" (line {self.line})" if self.line else ""
        return f"{name}{place}: {self.outcome}{f': {self.reason}' if self.reason else ''}"


class HookReport(tuple[Listed, ...]):
    """Everything that import hooks have met so far in this process, ordered by module and line."""

    __slots__ = ()

    def of(self, outcome: Outcome) -> list[Listed]:
        """Return what had one outcome."""
        return [listed for listed in self if listed.outcome == outcome]

    def reasons(self, outcome: Outcome) -> dict[str, int]:
        """Return how often each reason was given for an outcome, the most frequent first."""
        return dict(Counter(listed.reason for listed in self.of(outcome)).most_common())

    def summary(self) -> str:
        """Return one line of numbers."""
        counts = Counter(listed.outcome for listed in self)
        parts = [f"{counts['contracted']} contracted", f"{counts['refused']} refused"]
        parts += [f"{counts['left alone']} left alone", f"{counts['nothing to check']} with nothing to check"]
        return ", ".join(parts)

    def __str__(self) -> str:
        rest = [str(listed) for listed in self if listed.outcome in {"refused", "left alone"}]
        return "\n".join([self.summary(), *rest])


class Listing:
    """What was met, by place: what is executed again, as the body of a function is, is listed once."""

    def __init__(self) -> None:
        self._listed: dict[tuple[str, str, int], Listed] = {}

    def add(self, listed: Listed) -> None:
        """List something, in place of what was listed before for the same place."""
        self._listed[listed.module, listed.name, listed.line] = listed

    def forget(self, module: str) -> None:
        """Drop what was listed of a module, which is about to be executed again."""
        for key in [key for key in self._listed if key[0] == module]:
            del self._listed[key]

    def __iter__(self) -> Iterator[Listed]:
        return iter(self._listed.values())

    def report(self) -> HookReport:
        """Return what was met so far."""
        return HookReport(sorted(self, key=lambda listed: (listed.module, listed.line, listed.name)))


listing = Listing()
