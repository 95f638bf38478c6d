"""What the sizes in the calls of a function leave open, in words."""

from collections.abc import Iterable, Iterator

from .dims import Dim, Slot, Unification
from .names import Naming
from .seen import Seen


class Remarks:
    """Says what is not known of a function.

    Args:
        unification: Its dims.
        naming: How they are written.
        calls: How many calls there were.
        runs: In how many runs.
    """

    def __init__(self, unification: Unification, naming: Naming, calls: int, runs: int) -> None:
        self._all = unification
        self._naming = naming
        self._runs = runs
        self._calls = f"in all {counted(calls, 'call')} of {counted(runs, 'run')}" if calls > 1 else "in the only call"

    def of_all(self, arrays: Iterable[Seen]) -> list[str]:
        """Return the remarks.

        Args:
            arrays: What was seen at the parameters, and of the result.
        """
        related = [dim for dim, _ in self._naming.related]
        open_dims = [
            dim for dim in self._all.dims if dim not in (*self._naming.literals, *related) and not dim.is_variadic
        ]
        seen = list(arrays)
        found = [
            *self._of_numbers(),
            *self._of_relations(),
            *self._of_names(),
            *_of_dtypes(seen),
            *self._of_dicts(seen),
        ]
        return [*(remark for dim in open_dims for remark in self._of_dim(dim)), *found]

    def _of_dim(self, dim: Dim) -> Iterator[str]:
        if len(dim.distinct) == 1:
            yield self._of_one_size(dim, *dim.distinct)
            return
        for slot in dim.loose:
            yield f"{self._at(slot)} was equal to {dim.text} at a single size: run it once more with others"
        for slot, other in dim.rivals:
            if slot not in dim.loose and other.text != dim.text:
                yield f"{self._at(slot)} was equal to {other.text} as well as to {dim.text}: run it where they differ"

    def _of_one_size(self, dim: Dim, size: int) -> str:
        if len(dim.slots) > 1:
            return (
                f"{dim.text} ({self._places(dim)}) were all {size} {self._calls}: whether they are one dim, several or "
                f"the number {size} is not known, run once more with other sizes"
            )
        literal = "" if self._runs > 1 else f", or write {size} if that is meant"
        return f"{dim.text} ({self._places(dim)}) was {size} {self._calls}: run once more with another size{literal}"

    def _of_numbers(self) -> Iterator[str]:
        if self._naming.literals:
            yield f"{self._listed(self._naming.literals)}: did not change {self._calls}, while other sizes did"

    def _of_relations(self) -> Iterator[str]:
        for dim, found in self._naming.related:
            others = " and ".join(map(str, found[1:]))
            if others:
                yield f"{self._places(dim)}: {dim.text} held {self._calls}, and so did {others}: run it where they differ"
            elif not found[0].is_argument:
                yield f"{self._places(dim)}: {dim.text} held {self._calls}"

    def _of_names(self) -> Iterator[str]:
        if self._naming.chosen:
            yield f"{self._listed(self._naming.chosen)}: so called because the registry allows it and it was free"
        if self._naming.nameless:
            yield f"{self._listed(self._naming.nameless)}: the registry has no name left"

    def _of_dicts(self, arrays: Iterable[Seen]) -> Iterator[str]:
        for seen in arrays:
            layout = None if seen.items is None else self._all.layouts.get(seen.items.path)
            if "dict" in seen.containers and layout is not None and (layout.is_variadic or None in layout.axes):
                yield f"{seen.path}: its keys have shapes of their own, which a TypedDict would say one by one"

    def _listed(self, dims: Iterable[Dim]) -> str:
        return ", ".join(f"{dim.text} ({self._places(dim)})" for dim in dims)

    def _places(self, dim: Dim) -> str:
        return ", ".join(map(self._at, dim.slots))

    def _at(self, slot: Slot) -> str:
        path, axis = slot
        layout = self._all.layouts[path]
        return f"{path} axis {axis if layout.is_variadic else axis + len(layout.axes)}"


def _of_dtypes(arrays: Iterable[Seen]) -> Iterator[str]:
    several = [seen.path for seen in arrays if sum(map(len, seen.dtypes.values())) > 1]
    if len(several) > 1:
        yield f"{', '.join(several)} had several dtypes: that they go together is not said"


def counted(number: int, noun: str) -> str:
    """Return a number and a noun: ``1 call``, ``2 calls``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
