"""The tensors of a valid call, and what holds them."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ..._annotations.nodes import Node, PlainNode, TensorNode, UnionNode, Visit, tensor_specs, tensors
from ..._annotations.refined import RefinedNode
from ..._annotations.scope import Scope, ndim_fits, shape_mismatches
from ..._annotations.spec import TensorSpec
from ..._stand_in import StandIn
from ...kinds import Kind


class Leaf(NamedTuple):
    """A tensor of a valid call.

    Attributes:
        path: Path to it.
        value: The stand-in.
        node: What it was made for.
        specs: All that it may be there.
        kinds: What it is declared to be.
    """

    path: str
    value: StandIn
    node: TensorNode
    specs: list[TensorSpec]
    kinds: tuple[Kind, ...]


def leaves_of(roots: Sequence[Visit]) -> list[Leaf]:
    """Return the tensors in some values."""
    kinds = {path: refined.kinds for path, refined in _refined(roots)}
    nodes: dict[str, list[TensorNode]] = {}
    values: dict[str, StandIn] = {}
    for path, value, node in tensors(roots):
        if isinstance(node, TensorNode):
            nodes.setdefault(path, []).insert(0, node)  # alternatives come last first
            values[path] = value
    return [
        Leaf(path, value, _made_for(value, nodes[path]), [node.spec for node in nodes[path]], kinds.get(path, ()))
        for path, value in values.items()
    ]


def _made_for(value: StandIn, nodes: Sequence[TensorNode]) -> TensorNode:
    """Return the first alternative that accepts a tensor, whatever the others bind."""
    dtype, shape = str(value.dtype), value.shape
    fitting = [node for node in nodes if node.spec.accepts_dtype(dtype) and ndim_fits(node.spec, len(shape))]
    return next(node for node in fitting if _may_have(node.spec, shape) or node is fitting[-1])


def _may_have(spec: TensorSpec, shape: tuple[int, ...]) -> bool:
    return bool(spec.needs or spec.arguments) or not shape_mismatches(spec, shape, Scope({}))


def viable_alternatives(node: UnionNode, value: Any) -> list[Node]:
    """Return the alternatives that are of the kind of a value."""
    return [alternative for alternative in node.alternatives if alternative.accepts_kind(value)]


def _refined(roots: Sequence[Visit]) -> Iterator[tuple[str, RefinedNode]]:
    """Yield what is asked of tensors beyond their annotation; of a union, by its first alternative of the kind."""
    for path, _, node in _inner(roots):
        if isinstance(node, RefinedNode):
            yield path, node


def containers_of(roots: Sequence[Visit]) -> Iterator[Visit]:
    """Yield what holds annotated tensors."""
    return (visit for visit in _inner(roots) if tensor_specs([visit[2]]) and not isinstance(visit[2], RefinedNode))


def _inner(roots: Sequence[Visit]) -> Iterator[Visit]:
    """Yield everything inside values that is neither a tensor nor plain; of a union, its first alternative of the kind."""
    pending = list(roots)
    while pending:
        path, value, node = pending.pop(0)
        if isinstance(node, UnionNode):
            pending += [(path, value, one) for one in viable_alternatives(node, value)[:1]]
        elif not isinstance(node, (TensorNode, PlainNode)):
            yield path, value, node
            pending += node.visit(value, path)[1]
