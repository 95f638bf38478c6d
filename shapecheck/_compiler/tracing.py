"""Calls that cannot be proved good while `torch.compile` or `torch.export` traces them.

Dynamo cannot trace the reference engine, and what it cannot trace it either breaks the graph for or wraps in errors
of its own. A function marked as constant it calls for real, with the example tensors, while it traces: so the
reference engine judges there and then, and its error reaches the user as it is. Before that every size is turned
into a constant of the graph, so that a verdict is never reused for other sizes.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any, cast

from ..errors import ContractError, Violation

Template = tuple[Any, ...]


class TracedContractError(ContractError, AssertionError):
    """A `ContractError` raised while a graph was traced; as an `AssertionError` it passes dynamo unwrapped."""

    def __init__(self, text: str = "", violations: tuple[Violation, ...] = ()) -> None:
        ContractError.__init__(self, text, violations)


def run_while_tracing(function: Callable[..., None]) -> Callable[..., None]:
    """Make a function that takes any nested values one that dynamo calls for real and does not look into."""

    def native(template: Template, *leaves: Any) -> None:
        __tracebackhide__ = True
        function(*_rebuilt(template, leaves))

    native._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]  # noqa: SLF001

    def traced(*values: Any) -> None:
        __tracebackhide__ = True
        leaves: list[Any] = []
        template = _template(values, leaves)
        _settle([leaf for leaf in leaves if not _depends_on_data(leaf)])
        native(template, *leaves)
        _settle(leaves)  # torch refuses what only the data decide: the verdict held for the example alone

    return traced


def _template(value: Any, leaves: list[Any]) -> Template:
    """Take a nested value apart into constants and leaves. Traced by dynamo."""
    kind = cast("type[Any]", type(value))
    if kind is dict:
        return ("dict", *[(key, _template(item, leaves)) for key, item in value.items()])
    if kind is list:
        return ("list", *[_template(item, leaves) for item in value])
    if kind is tuple:
        return ("tuple", *[_template(item, leaves) for item in value])
    leaves.append(value)
    return ("leaf", len(leaves) - 1)


def _settle(leaves: Sequence[Any]) -> None:
    """Make symbolic sizes constants of this graph. Traced by dynamo."""
    for leaf in leaves:
        if hasattr(leaf, "shape"):
            for size in leaf.shape:
                hash(size)  # int() does not always


def _depends_on_data(leaf: Any) -> bool:
    """Tell whether a size of a tensor is one that only the data decide. Traced by dynamo."""
    import torch
    from torch.fx.experimental.symbolic_shapes import has_free_unbacked_symbols

    return isinstance(leaf, torch.Tensor) and has_free_unbacked_symbols(leaf)


def _rebuilt(template: Template, leaves: Sequence[Any]) -> Any:
    kind, *items = template
    if kind == "leaf":
        return leaves[items[0]]
    if kind == "dict":
        return {key: _rebuilt(item, leaves) for key, item in items}
    values = [_rebuilt(item, leaves) for item in items]
    return values if kind == "list" else tuple(values)


# --- sizes that are known only when the graph runs ------------------------------------------------
def undecided() -> type[Exception] | tuple[()]:
    """Return the error that torch raises for a comparison it cannot make while it traces, if it can be raised."""
    symbolic_shapes = sys.modules.get("torch.fx.experimental.symbolic_shapes")
    return () if symbolic_shapes is None else symbolic_shapes.GuardOnDataDependentSymNode


def size_comparisons() -> dict[str, Callable[..., bool]]:
    """Return comparisons for sizes that may depend on data: what torch cannot tell yet, the graph checks when it runs."""
    from torch import _check as check_when_run  # pyright: ignore[reportPrivateUsage, reportUnknownVariableType]
    from torch.fx.experimental.symbolic_shapes import guard_or_false, guard_or_true

    def holds(condition: Any) -> bool:
        if guard_or_false(condition):
            return True
        if not guard_or_true(condition):
            return False
        check_when_run(condition)
        return True

    def same(size: Any, expected: Any) -> bool:
        return holds(size == expected)

    def same_run(sizes: Sequence[Any], expected: Sequence[Any]) -> bool:
        return len(sizes) == len(expected) and all(same(*pair) for pair in zip(sizes, expected, strict=True))

    return {"_sc_known": guard_or_false, "_sc_holds": holds, "_sc_same": same, "_sc_same_run": same_run}
