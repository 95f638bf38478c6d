"""From violations to text: the only file that holds the wording of a `ContractError`.

The same violations always give the same text: no addresses, no tensor values.
"""

import re
from collections.abc import Iterable, Sequence

from ..errors import Binding, Hint, HintKind, Mismatch, Origin, Violation

_LABEL = 10
_LONG_FIRST_LINE = 160  # characters: what comes beyond is left out, unless nothing would be said
_MOST_SHOWN = 3  # violations that are described; the paths of a few more are named
_MOST_NAMED = 8

_ROOTS = {"return": "return value", "yield": "yielded value"}


def render(violations: Sequence[Violation]) -> str:
    """Return the text of an error; its first line is complete on its own."""
    first, others = violations[0], violations[1:]
    lines = [_headline(first, len(others)), *_block(first)]
    for violation in others[: _MOST_SHOWN - 1]:
        lines += [f"  also [{violation.id}]: {_subject(violation)}", *_block(violation)]
    lines += _rest(others[_MOST_SHOWN - 1 :])
    lines.append(_places(first))
    return "\n".join(lines)


def _headline(violation: Violation, others: int) -> str:
    """Return what is wrong and, as far as there is room, what cures it or else the first fact."""
    more = f" (and {others:,} more)" if others else ""
    line = f"ContractError [{violation.id}]: {violation.boundary}, {_subject(violation)}{more}"
    summaries = [f"{line}: {text}" for text in _summaries(violation)]
    fitting = (full for full in summaries if len(full) <= _LONG_FIRST_LINE)
    return next(fitting, min(summaries, key=len)) if len(line) <= _LONG_FIRST_LINE else line


def _summaries(violation: Violation) -> list[str]:
    """Return what the first line may say of a violation, the fullest first."""
    fact, hint = _because(violation.mismatches[0]), violation.hint
    if hint is None or not hint.code:
        return [fact]
    several = "" if hint.complete else ", among others"
    cure = f"{' or '.join(hint.code)} fits{several}"
    one = cure if len(hint.code) == 1 else f"{hint.code[0]} fits, among others"
    short = one.replace(f"{violation.parameter}.", ".")  # the parameter stands just before
    return [f"{violation.got} for {violation.expected}, {cure}", cure, one, short]


def _rest(violations: Sequence[Violation]) -> list[str]:
    """Return a line for the violations that are not described."""
    if not violations:
        return []
    names = ", ".join(violation.parameter for violation in violations[:_MOST_NAMED])
    more = ", ..." if len(violations) > _MOST_NAMED else ""
    return [_line("also", f"{len(violations):,} more: {names}{more}")]


def _subject(violation: Violation) -> str:
    path = violation.parameter
    root = re.match(r"\w*", path)
    kind = _ROOTS.get(root[0]) if root else None
    if kind is None:
        return f"parameter {_quoted(path)}"
    return kind if root and root[0] == path else f"{kind}, at {path!r}"


def _block(violation: Violation) -> list[str]:
    lines = [
        _line("expected", violation.expected),
        _line("got", violation.got),
        _line("because", _reasons(violation)),
    ]
    if violation.bindings:
        lines.append(_line("bindings", ", ".join(map(_binding, violation.bindings))))
    if violation.hint:
        lines.append(_line("hint", _hint(violation.hint)))
    if violation.came_from:
        lines.append(_line("came from", _crossing(violation.came_from)))
    return lines


def _crossing(origin: Origin) -> str:
    relation = {"same": "", "view": ", the same elements", "part": ", which shares its memory"}[origin.relation]
    return f"{origin.boundary} -> {origin.parameter} {origin.got}{relation}"


def _line(label: str, text: str) -> str:
    return f"  {label:<{_LABEL}} {text}"


def _reasons(violation: Violation) -> str:
    """Return all facts; those about the alternatives of a union, if there are any, say why none fits."""
    by_alternative: dict[str | None, list[str]] = {}
    for mismatch in violation.mismatches:
        by_alternative.setdefault(mismatch.alternative, []).append(_because(mismatch))
    whole = [] if len(by_alternative) > 1 else by_alternative[None]
    return "; ".join(whole + [f"as {text}: {', '.join(facts)}" for text, facts in by_alternative.items() if text])


def _because(mismatch: Mismatch) -> str:
    return _axis_fact(mismatch) or _fact(mismatch)


def _axis_fact(mismatch: Mismatch) -> str | None:
    """Say which axis differs, with both sizes and where the expected one comes from."""
    got, expected, axis, binding = mismatch.got, mismatch.expected, mismatch.axis, mismatch.binding
    count = f"it has {_axes(got)}, not {expected}"
    if mismatch.kind == "axis":
        size = "empty (size 0)" if got == "0" else got
        return f"axis {axis} is {size}, the contract says {expected}{f' ({_origin(binding)})' if binding else ''}"
    if mismatch.kind == "repeated-dim" and binding:
        return f"axis {axis} is {got}, axis {binding.axis} is {binding.size}, the contract says {binding.dim} for both"
    if mismatch.kind in {"missing-axis", "missing-batch"}:
        name = f", {_binding(binding)}," if binding else ""
        sample = "; it fits one sample" if mismatch.kind == "missing-batch" else ""
        return f"{count}: axis {axis}{name} is missing{sample}"
    if mismatch.kind == "extra-axis":
        return f"{count}: without axis {axis} it would fit"
    return None


def _axes(count: str) -> str:
    return f"{count} {'axis' if count == '1' else 'axes'}"


def _fact(mismatch: Mismatch) -> str:
    got, expected = mismatch.got, mismatch.expected
    close = f" (close: {expected})" if mismatch.kind == "extra-key" and expected else ""
    found = f" (found: {got})" if mismatch.kind == "missing-key" and got else ""
    return {
        "ndim": f"it has {_axes(got)}, the contract says {expected}",
        "dtype": f"its dtype is {got}, the contract says {expected}",
        "complex-for-real": f"it is complex ({got}), the contract says {expected}, which is real",
        "real-for-complex": f"it is real ({got}), the contract says {expected}",
        "not-stacked": f"it is a {got} of tensors, the contract says one {expected}",
        "number-for-tensor": f"it is a Python {got}, the contract says {expected}",
        "sequence-type": f"it is a {got}, the contract says {expected}",
        "length": f"it has {got} items, the contract says {expected}",
        "missing-key": f"key {expected} is missing{found}",
        "missing-attribute": f"attribute {expected} is not set",
        "extra-key": f"key {got} is not in the contract{close}",
        "no-alternative": f"{got} fits none of {expected}",
        "unbound": f"nothing in this call binds {expected}",
        "reference": got,
        "axis-range": f"axis {mismatch.axis} is {got}, the registry of dims says {expected}",
        "value": f"{got}, the contract says {expected}",
        "kind": f"it was declared {got}, not {expected}",
        "none": f"it is None, the contract says {expected}",
        "array-kind": f"it is a {got}, the contract says {expected}",
        "library": f"it is a {got}, the contract says {expected}",
    }.get(mismatch.kind, f"it is {got}, the contract says {expected}")


def _binding(binding: Binding) -> str:
    size = "x".join(map(str, binding.size)) if isinstance(binding.size, tuple) else binding.size
    return f"{binding.dim}={size} ({_origin(binding)})"


def _origin(binding: Binding) -> str:
    if binding.axis is None:
        return f"tied to {binding.source}"
    return f"from {_quoted(binding.source)}, axis {binding.axis}"


def _quoted(path: str) -> str:
    return f'"{path}"' if "'" in path else f"'{path}'"


_WHAT_CURES: dict[HintKind, tuple[str, str]] = {  # what seems to have happened, and what several cures are
    "permute": ("the axes look permuted", "orders"),
    "channels-last": ("the axes look channels-last", "orders"),
    "batch": ("one sample is given where a batch is expected", "ways"),
    "unsqueeze": ("an axis of size 1 is missing", "places"),
    "squeeze": ("an axis of size 1 is one too many", "ways"),
    "unflatten": ("two axes look merged into one", "ways"),
    "flatten": ("one axis looks split in two", "ways"),
    "cast": ("only the dtype differs", "ways"),
    "from-numpy": ("only the library differs", "ways"),
    "to-numpy": ("only the library differs", "ways"),
    "stack": ("its items fit together", "ways"),
    "tensor": ("the number fits as a tensor without axes", "ways"),
    "item": ("the tensor has one element", "ways"),
    "sequence": ("only the container differs", "ways"),
    "rename-key": ("a key looks misspelt", "ways"),
}
_REAL_PARTS = (
    "say which real quantity is meant, none stands for another: the real part (.real), the imaginary part (.imag), "
    "the magnitude (.abs()) or the phase (.angle())"
)


def _hint(hint: Hint) -> str:
    if hint.kind == "complex-to-real":
        return _REAL_PARTS
    what, several = _WHAT_CURES[hint.kind]
    if len(hint.code) == 1:
        return f"{what}: {hint.code[0]} satisfies the contract"
    codes = ", ".join(hint.code)
    if not hint.complete:
        return f"{what}, more than {len(hint.code)} {several} satisfy the contract, among them {codes}"
    return f"{what}, {len(hint.code)} {several} satisfy the contract: {codes}"


def _places(violation: Violation) -> str:
    """Return where the contract is defined and where it was called; a `check` is defined where it is called."""
    defined, called = violation.defined, violation.called
    if defined is None or defined == called:
        return _line("called", str(called))
    return _line("defined", f"{defined}     called {called}")


# --- notes on errors of a checked body ------------------------------------------------------------
NOTE = "In the contract of "


def bound_dims_note(boundary: str, bindings: Iterable[Binding]) -> str:
    """Return what a contract knew when the body that it guards raised."""
    return f"{NOTE}{boundary}: {', '.join(map(_binding, bindings))}"
