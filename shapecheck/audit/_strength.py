"""How much a contract is worth: what it notices of the mistakes that could be made in a call, and what it does not.

From the annotations alone a valid call is made up, with sizes that all differ; it is changed in one place at a time, and
the engine that judges real calls is asked whether it would refuse the changed one. No body is run, no memory is used.
"""

import dataclasses
import sys
from collections.abc import Iterator
from typing import Any, cast

from .._annotations.structure import Builder
from .._boundaries.boundary import Boundary
from .._boundaries.descriptors import functions_in
from .._boundaries.inheritance import contract_within
from .._boundaries.overloads import OverloadedContract
from .._boundaries.records import boundary_of, constructions, is_record
from .._diagnosis.diagnose import Place
from .._render import describe
from ..axes import axes_of
from ..errors import ContractDefinitionError
from ._made_up import UnmakeableError
from ._mutation.holes import Finding, Hole, Mutant, findings_of, holes_of, mutant_of
from ._mutation.judge import Judge
from ._mutation.mutants import changes_of, open_sizes
from ._mutation.specimen import Subject, specimen_of, subject_of_function, subject_of_value
from ._package import members_of, modules_of

__all__ = ["Hole", "Mutant", "Strength", "strength", "strengths"]


@dataclasses.dataclass(frozen=True)
class Strength:
    """What one contract notices.

    Attributes:
        name: Qualified name of the function, record or batch.
        place: Where it is defined, as ``file.py:12``.
        mutants: Every change that was tried.
        holes: Why some of them are not noticed.
        skipped: Why nothing could be measured; None if something was.
        open: Dims of the arguments that may have any size, because nothing else of the call has it; another size there
            is another valid call, and was not tried.
        asked: How many times the engine was asked.
    """

    name: str
    place: str
    mutants: tuple[Mutant, ...] = ()
    holes: tuple[Hole, ...] = ()
    skipped: str | None = None
    open: tuple[str, ...] = ()
    asked: int = 0

    @property
    def caught(self) -> int:
        """How many mutants the contract refuses."""
        return sum(mutant.caught for mutant in self.mutants)

    @property
    def total(self) -> int:
        """How many mutants were tried."""
        return len(self.mutants)

    @property
    def families(self) -> dict[str, tuple[int, int]]:
        """For each family how many of its mutants are caught, and how many there are."""
        counts: dict[str, tuple[int, int]] = {}
        for mutant in self.mutants:
            caught, total = counts.get(mutant.family, (0, 0))
            counts[mutant.family] = caught + mutant.caught, total + 1
        return counts

    def __str__(self) -> str:
        """Return a report of a few lines."""
        if self.skipped is not None:
            return f"{self.name} ({self.place}): not measured: {self.skipped}"
        lines = [f"{self.name} ({self.place}): {self.caught} of {self.total} mutants caught"]
        counts = [f"{family} {caught}/{total}" for family, (caught, total) in self.families.items()]
        lines.append(f"  caught     {', '.join(counts)}")
        for hole in self.holes:
            lines += [f"  hole       {hole.what}", f"             {hole.repair}"]
        if self.open:
            lines.append(f"  any size   {', '.join(self.open)}")
        return "\n".join(lines)


def strength(target: Any) -> Strength:
    """Measure what a contract notices of the mistakes that could be made in a call.

    Each mutant is a valid call with one change: axes in another order, one axis dropped, added or merged with its
    neighbour, two tensors in each other's place, another size where something fixes it, another dtype, a key or
    attribute missing, too many or misspelt, other numbers of items. Changes of the result are among them.

    Validators are not asked: mutants have no values. Kinds are, as if every tensor was declared what its annotation says.

    Args:
        target: A function, method or class under contract, a record, or a `shapecheck.data.BatchContract`; of an
            `nn.Module` class, its ``forward`` is measured.

    Raises:
        ContractDefinitionError: It has no contract.
    """
    subject = subject_of(target)
    place = subject.boundary.place
    if subject.obstacle is not None:
        return Strength(place.name, str(place.defined or "?"), skipped=subject.obstacle)
    return _measured(subject)


def strengths(package: str) -> list[Strength]:
    """Measure every contract of a package.

    Args:
        package: Name of a package or module; its submodules are imported, except ``__main__``.

    Returns:
        One entry for each function, method and record under contract and each batch contract of a module, in the order
        of the source.
    """
    return [strength(target) for target in contracted(package)]


def contracted(package: str) -> Iterator[Any]:
    """Yield everything under contract in a package."""
    for member in members_of(package):
        if member.contract is not None or (member.is_record and member.value in constructions):
            yield member.value
    for module in modules_of(package):
        yield from (value for value in vars(module).values() if _is_batch_contract(value))


def _measured(subject: Subject) -> Strength:
    name, place = subject.boundary.place.name, str(subject.boundary.place.defined or "?")
    try:
        specimen = specimen_of(subject)
    except UnmakeableError as error:
        return Strength(name, place, skipped=f"no valid call could be made up: {error}")
    mutants, findings, asked = list[Mutant](), list[Finding](), 0
    for stage in specimen.stages:
        judge = Judge(specimen, stage)
        judged = [(change, not judge.accepts(change)) for change in changes_of(specimen, stage)]
        asked += judge.asked
        mutants += [mutant_of(change, caught) for change, caught in judged]
        findings += findings_of(judge, [change for change, caught in judged if not caught])
    holes = tuple(holes_of(findings))
    return Strength(name, place, tuple(mutants), holes, open=tuple(open_sizes(specimen)), asked=asked)


# --- what can be measured ---------------------------------------------------------------------------------
def subject_of(target: Any) -> Subject:
    """Return something under contract as what is to be measured.

    Raises:
        ContractDefinitionError: It has no contract.
    """
    if _is_batch_contract(target):
        return _of_batch(target)
    if isinstance(target, type) and is_record(target):
        return _of_record(target)
    member = vars(target).get("forward") if isinstance(target, type) else target
    contract = next(filter(None, map(contract_within, functions_in(member))), None)
    if contract is None:
        msg = f"Expected a function, a record or a batch under contract, got {describe(target)}: put @contract on it."
        raise ContractDefinitionError(msg)
    subject = subject_of_function(contract)
    if isinstance(contract, OverloadedContract):
        return dataclasses.replace(subject, obstacle="its overloads are alternatives of one another")
    return subject


def _of_record(kind: type) -> Subject:
    """Return a record class: what is noticed wherever a record crosses a contract, and when one is built."""
    known = constructions.get(kind)
    if known is not None:
        return subject_of_value(boundary_of(kind, known.ties, known.axes), known.ties, {}, {"self": ""})
    nodes = {"self": Builder().node(kind, kind.__qualname__)}
    return subject_of_value(boundary_of(kind, {}, axes_of(kind.__module__), nodes), {}, {}, {"self": ""})


def _of_batch(batch: Any) -> Subject:
    nodes = {batch.name: Builder().node(batch.annotation, batch.name)}
    ties = {dim: f"dims[{dim!r}]" for dim in batch.dims}
    boundary = Boundary(Place(batch.boundary, batch.defined), nodes, ties, axes_of(batch.module), ["dims", *nodes])
    return subject_of_value(boundary, ties, batch.dims, {})


def _is_batch_contract(value: Any) -> bool:
    """Tell whether a value is a batch contract, whose module is not imported for that."""
    data = sys.modules.get("shapecheck.data")
    return data is not None and isinstance(value, cast("Any", data).BatchContract)
