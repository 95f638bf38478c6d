"""Calls that cannot be proved good while `torch.compile` or `torch.export` traces them.

Dynamo cannot trace the reference engine, and what it cannot trace it either breaks the graph for or wraps in errors
of its own. A function marked as constant it calls for real, with the example tensors, while it traces: so the
reference engine judges there and then, and its error reaches the user as it is. Before that every size is turned
into a constant of the graph, so that a verdict is never reused for other sizes.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

from .errors import ContractError, Violation

Template = tuple[Any, ...]


class TracedContractError(ContractError, AssertionError):
    """A `ContractError` raised while a graph was traced; as an `AssertionError` it passes dynamo unwrapped."""

    def __init__(self, text: str = "", violations: tuple[Violation, ...] = ()) -> None:
        ContractError.__init__(self, text, violations)


def run_while_tracing(function: Callable[..., None]) -> Callable[..., None]:
    """Make a function that takes any nested values one that dynamo calls for real and does not look into."""

    def native(template: Template, *leaves: Any) -> None:
        function(*_rebuilt(template, leaves))

    native._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]  # noqa: SLF001

    def traced(*values: Any) -> None:
        leaves: list[Any] = []
        template = _template(values, leaves)
        native(template, *leaves)

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
    if hasattr(value, "shape"):
        for size in value.shape:
            int(size)  # makes a symbolic size a constant of this graph
    leaves.append(value)
    return ("leaf", len(leaves) - 1)


def _rebuilt(template: Template, leaves: Sequence[Any]) -> Any:
    kind, *items = template
    if kind == "leaf":
        return leaves[items[0]]
    if kind == "dict":
        return {key: _rebuilt(item, leaves) for key, item in items}
    values = [_rebuilt(item, leaves) for item in items]
    return values if kind == "list" else tuple(values)
