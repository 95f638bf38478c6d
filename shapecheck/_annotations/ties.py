"""Dims whose size follows from the arguments of a call without anybody saying so at the contract."""

import inspect
from collections.abc import Mapping

from ..axes import Axes
from .nodes import Node, PlainNode, tensor_specs
from .spec import expression_names

_MANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def implied_ties(signature: inspect.Signature, nodes: Mapping[str, Node], axes: Axes | None) -> dict[str, str]:
    """Tie each dim that has the name of an ``int`` parameter to it, and those that the project's registry ties.

    Args:
        signature: Whose arguments expressions may use.
        nodes: What the parameters and the result (``return``) must be.
        axes: The registry.

    Returns:
        Expressions by dim.
    """
    specs = tensor_specs(nodes.values())
    dims = {dim.text for spec in specs for dim in spec.dims if dim.kind == "named"}.union(*(s.referred for s in specs))
    ties = {} if axes is None else {dim: expression for dim, expression in axes.ties.items() if dim in dims}
    implied = {
        dim: expression
        for dim, expression in ties.items()
        if expression_names(expression, f"the size of dim {dim!r}") <= signature.parameters.keys()
    }
    for name, parameter in signature.parameters.items():
        node = nodes.get(name)
        if name in dims and parameter.kind not in _MANY and isinstance(node, PlainNode) and node.hint is int:
            implied[name] = name
    return implied
