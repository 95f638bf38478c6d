"""From violations to text: the only file that holds the wording of a `ContractError`.

The same violations always give the same text: no addresses, no tensor values.
"""

from collections.abc import Sequence

from .errors import Binding, Hint, Location, Mismatch, Violation

_LABEL = 10


def render(violations: Sequence[Violation]) -> str:
    """Return the text of an error; its first line is complete on its own."""
    first, others = violations[0], violations[1:]
    more = f" (and {len(others)} more)" if others else ""
    lines = [f"ContractError [{first.id}]: {first.boundary}, {_subject(first)}{more}", *_block(first)]
    for violation in others:
        lines += [f"  also [{violation.id}]: {_subject(violation)}", *_block(violation)]
    lines.append(_places(first))
    return "\n".join(lines)


def _subject(violation: Violation) -> str:
    path = violation.parameter
    if path.startswith("return"):
        return "return value" if path == "return" else f"return value, at {path!r}"
    return f'parameter "{path}"' if "'" in path else f"parameter '{path}'"


def _block(violation: Violation) -> list[str]:
    lines = [
        _line("expected", violation.expected),
        _line("got", violation.got),
        _line("because", "; ".join(map(_because, violation.mismatches))),
    ]
    if violation.bindings:
        lines.append(_line("bindings", ", ".join(map(_binding, violation.bindings))))
    if violation.hint:
        lines.append(_line("hint", _hint(violation.hint)))
    return lines


def _line(label: str, text: str) -> str:
    return f"  {label:<{_LABEL}} {text}"


def _because(mismatch: Mismatch) -> str:
    got, expected = mismatch.got, mismatch.expected
    if mismatch.kind == "axis":
        origin = f" ({_origin(mismatch.binding)})" if mismatch.binding else ""
        return f"axis {mismatch.axis} is {got}, the contract says {expected}{origin}"
    close = f" (close: {expected})" if mismatch.kind == "extra-key" and expected else ""
    found = f" (found: {got})" if mismatch.kind == "missing-key" and got else ""
    return {
        "ndim": f"it has {got} {'axis' if got == '1' else 'axes'}, the contract says {expected}",
        "dtype": f"its dtype is {got}, the contract says {expected}",
        "array-kind": f"it is a {got}, the contract says {expected}",
        "type": f"it is {got}, the contract says {expected}",
        "length": f"it has {got} items, the contract says {expected}",
        "missing-key": f"key {expected} is missing{found}",
        "extra-key": f"key {got} is not in the contract{close}",
        "no-alternative": f"{got} fits none of {expected}",
        "unbound": f"nothing in this call binds {expected}",
        "reference": got,
    }[mismatch.kind]


def _binding(binding: Binding) -> str:
    size = "x".join(map(str, binding.size)) if isinstance(binding.size, tuple) else binding.size
    return f"{binding.dim}={size} ({_origin(binding)})"


def _origin(binding: Binding) -> str:
    if binding.axis is None:
        return f"tied to {binding.source}"
    return f"from {_quoted(binding.source)}, axis {binding.axis}"


def _quoted(path: str) -> str:
    return f'"{path}"' if "'" in path else f"'{path}'"


def _hint(hint: Hint) -> str:
    if len(hint.code) == 1:
        return f"the axes look permuted: {hint.code[0]} satisfies the contract"
    return f"the axes look permuted, {len(hint.code)} orders satisfy the contract: {', '.join(hint.code)}"


def _places(violation: Violation) -> str:
    """Return where the contract is defined and where it was called; a `check` is defined where it is called."""
    defined, called = violation.defined, violation.called
    if defined is None or defined == called:
        return _line("called", _place(called))
    return _line("defined", f"{_place(defined)}     called {_place(called)}")


def _place(place: Location) -> str:
    return f"{place.file}:{place.line}"
