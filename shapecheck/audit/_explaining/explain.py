"""What a shape specification means, whether shapes fit it axis by axis, and what has changed between two of them.

Whether something fits, and what would cure it, is the verdict and the diagnosis that a contract gives.
"""

import dataclasses
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence

import torch

from ..._annotations.nodes import Node, TensorNode
from ..._annotations.scope import Scope, align, ndim_fits
from ..._annotations.spec import Dim, TensorSpec
from ..._diagnosis.axis_order import known_sizes
from ..._diagnosis.engine import solve
from ...errors import ContractDefinitionError, ContractError, Violation
from .._made_up import UnmakeableError
from .._mutation.judge import Judge
from .._mutation.mutants import changes_of
from .._mutation.specimen import specimen_of
from .signatures import Signature, read_signature

_KEPT = ("because", "bindings", "hint")  # of an error's lines: the rest says where code is


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What there is to say.

    Attributes:
        text: Lines for people.
        fits: Whether the shapes fit, or what fitted one signature also fits the other; True where nothing was compared.
    """

    text: str
    fits: bool = True

    def __str__(self) -> str:
        """Return the text."""
        return self.text


# --- in words -------------------------------------------------------------------------------------------
def explain(spec: str, *shapes: Sequence[int], dims: Mapping[str, int] | None = None) -> Explanation:
    """Say what a specification means or, where shapes are given, whether they fit it, axis by axis.

    Args:
        spec: The dims of one tensor, ``B C 1 2``, or of several with names, ``img: B C H W, mask: B H W``.
        *shapes: Sizes of each tensor, in that order.
        dims: Sizes that some dims must have.

    Raises:
        ContractDefinitionError: The specification makes no sense, or there are more or fewer shapes than tensors.
    """
    signature = read_signature(spec, dims)
    if not shapes:
        return Explanation("\n".join(_in_words(signature)))
    return _compared(signature, shapes)


def _in_words(signature: Signature) -> Iterator[str]:
    for name, node in signature.nodes.items():
        yield f"{name}: {signature.texts[name]}" if len(signature.nodes) > 1 else f'"{signature.texts[name]}"'
        if isinstance(node, TensorNode):
            yield from _table([[_written(dim), _meaning(dim)] for dim in node.spec.dims])
            yield from [] if node.spec.dims else ["  no axes: one number"]
    yield from _worth(signature)


def _written(dim: Dim) -> str:
    if dim.kind == "anonymous":
        return "_"
    if dim.kind == "variadic" and not dim.text:
        return "..."
    return f"{'*' * (dim.kind == 'variadic')}{'#' * dim.broadcastable}{dim.text}"


def _meaning(dim: Dim) -> str:
    """Return what a dim stands for."""
    if dim.kind == "variadic" and not dim.text:
        return "any number of axes of any sizes, also none"
    if dim.kind == "variadic":
        same = "that broadcast with" if dim.broadcastable else "the same as"
        return f"any number of axes, also none, {same} those of *{dim.text} elsewhere in the call"
    one = "1, or " if dim.broadcastable else ""
    if dim.kind == "fixed":
        return f"{one}exactly {dim.size}"
    if dim.kind == "anonymous":
        return "any size, compared with nothing"
    if dim.kind == "named":
        return f"{one}any size, the same wherever {dim.text} stands in one call"
    sources = [*sorted(dim.names), *(f"the argument {name}" for name in sorted(dim.arguments))]
    return f"{one}the size that {dim.text} gives, from {' and '.join(sources)}"


def _worth(signature: Signature) -> Iterator[str]:
    """Yield a call that fits, and how many wrong orders of axes would be noticed."""
    try:
        specimen = specimen_of(signature.subject)
    except UnmakeableError as error:
        yield f"no example: {error}"
        return
    stage = specimen.stages[0]
    shapes = [",".join(map(str, value.shape)) or "()" for _, value, _ in stage.roots]
    yield f"fits, for example: {' '.join(shapes)}"
    judge = Judge(specimen, stage)
    orders = [change for change in changes_of(specimen, stage) if change.family == "permuted"]
    caught = sum(not judge.accepts(change) for change in orders)
    if orders:
        yield f"notices {caught} of {len(orders)} wrong orders of axes, when all sizes differ"


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield rows with their columns aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)] if rows else []
    for row in rows:
        yield f"  {'  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))}".rstrip()


# --- shapes ---------------------------------------------------------------------------------------------
def _compared(signature: Signature, shapes: Sequence[Sequence[int]]) -> Explanation:
    if len(shapes) != len(signature.nodes):
        msg = f"Expected a shape for each of {', '.join(signature.nodes)}, got {len(shapes)}."
        raise ContractDefinitionError(msg)
    tensors = [(name, node) for name, node in signature.nodes.items() if isinstance(node, TensorNode)]
    values = [
        torch.empty(tuple(shape), device="meta") for shape in shapes
    ]  # a diagnosis knows what can be done to them
    visits = [(name, value, node) for (name, node), value in zip(tensors, values, strict=True)]
    scope = signature.boundary.enter({"dims": dict(signature.subject.given)}, [], "on").scopes[0]
    error = signature.boundary.enter({"dims": dict(signature.subject.given)}, visits, "on").error
    lines: list[str] = []
    for name, value, node in visits:
        rest = [visit for visit in visits if visit[0] != name]
        others = next(solve(rest, scope, asking=False), scope)
        violation = _violation_of(name, error)
        verdict = "fits" if violation is None else "does not fit"
        lines.append(f'{name}: {",".join(map(str, value.shape)) or "()"} {verdict} "{signature.texts[name]}"')
        lines += _axes(node.spec, tuple(value.shape), others, violation)
    return Explanation("\n".join([*lines, *_reasons(error)]), fits=error is None)


def _violation_of(name: str, error: ContractError | None) -> Violation | None:
    violations = () if error is None else error.violations
    return next((violation for violation in violations if violation.parameter == name), None)


def _axes(spec: TensorSpec, shape: tuple[int, ...], others: Scope, violation: Violation | None) -> Iterator[str]:
    """Yield a row for each axis: its dim, the size that is known for it, the size it has, and whether that is wrong."""
    if not ndim_fits(spec, len(shape)):
        return
    wrong = {mismatch.axis for mismatch in violation.mismatches} if violation else set[int | None]()
    known = known_sizes(spec, len(shape), others)
    rows = [["axis", "dim", "expected", "got", ""]]
    for axes, dim in align(spec, len(shape)):
        for axis in axes:
            expected = "any" if known[axis] is None else str(known[axis])
            rows.append([str(axis), _written(dim), expected, str(shape[axis]), "wrong" if axis in wrong else ""])
    yield from _table(rows)


def _reasons(error: ContractError | None) -> list[str]:
    """Return what the error says besides the place."""
    lines = [] if error is None else str(error).splitlines()[1:]
    return [line for line in lines if line.split(maxsplit=1)[0] in _KEPT]


# --- differences ----------------------------------------------------------------------------------------
def explain_change(old: str, new: str) -> Explanation:
    """Say what has changed between two signatures, and whether calls that fit the old one still fit.

    Args:
        old: ``img: B C H W, mask: B H W``, or ``module:function``.
        new: The same.

    Raises:
        ContractDefinitionError: One of them makes no sense.
        ImportError: A module cannot be imported.
    """
    before, after = read_signature(old), read_signature(new)
    lines = [line for name in {**before.texts, **after.texts} for line in _changed(name, before, after)]
    kept = _refusal(before, after)
    back = _refusal(after, before)
    lines.append(
        f"calls that fit the old one {'fit the new one' if kept is None else f'are refused by the new one: {kept}'}"
    )
    lines.append(
        f"calls that fit the new one {'fit the old one' if back is None else f'are refused by the old one: {back}'}"
    )
    return Explanation("\n".join(lines), fits=kept is None)


def _changed(name: str, before: Signature, after: Signature) -> Iterator[str]:
    if name not in after.texts:
        yield f"- {name}: {before.texts[name]}"
    elif name not in before.texts:
        yield f"+ {name}: {after.texts[name]}"
    elif before.texts[name] == after.texts[name]:
        yield f"  {name}: {before.texts[name]}"
    else:
        yield f"- {name}: {before.texts[name]}"
        yield f"+ {name}: {after.texts[name]}"
        yield from (f"    {line}" for line in _axis_changes(name, before.nodes[name], after.nodes[name]))


def _axis_changes(name: str, old: Node, new: Node) -> Iterator[str]:
    """Yield what became of the axes: another order, or axes that are gone, new or another dim."""
    if not isinstance(old, TensorNode) or not isinstance(new, TensorNode):
        return
    before, after = [_written(dim) for dim in old.spec.dims], [_written(dim) for dim in new.spec.dims]
    if len({*before}) == len(before) and sorted(before) == sorted(after) and before != after:
        order = ", ".join(str(before.index(dim)) for dim in after)
        yield f"the same axes in another order: {name}.permute({order})"
        return
    for kind, start, stop, first, last in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        gone, made = " ".join(before[start:stop]), " ".join(after[first:last])
        if kind == "replace":
            yield f"axis {start}: {made} in place of {gone}"
        elif kind != "equal":
            yield f"axis {start}: {gone} is gone" if gone else f"axis {first}: {made} is new"


def _refusal(signature: Signature, other: Signature) -> str | None:
    """Return why a call that fits one signature does not fit the other; None if it does."""
    if missing := [name for name in other.nodes if name not in signature.nodes]:
        return f"{', '.join(missing)} is missing"
    try:
        specimen = specimen_of(signature.subject)
    except UnmakeableError as error:
        return str(error)
    values = {root[0]: root[1] for stage in specimen.stages for root in stage.roots}
    visits = [(name, values[name], node) for name, node in other.nodes.items()]
    error = other.boundary.enter(specimen.arguments, visits, "on").error
    if error is None:
        return None
    return re.sub(r"^ContractError (\[[\w-]+\]): .*?, (parameter|return)", r"\1 \2", str(error).splitlines()[0])
