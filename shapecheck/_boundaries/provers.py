"""Proofs in front of the reference engine for what crosses a boundary apart from the call: items and callbacks.

The arguments of a call are proved good by a compiled contract that hands out the dims which it has bound; what crosses
later is compared with those. As everywhere, a proof may accept, and only the reference engine rejects.
"""

import collections.abc
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from .._annotations.deferred import CallableNode, held_callable
from .._annotations.nodes import Node, PlainNode, TupleNode, UnionNode, tensor_specs
from .._compiler.compile import Exits, compile_acceptor, compile_function
from .boundary import Boundary

Proof = Callable[..., bool]  # of the dims that are known, then of values
Proofs = tuple[Proof | None, Proof | None]  # of the arguments of a callable; of its result followed by its arguments


class Known(NamedTuple):
    """A call whose arguments were proved good: the arguments by name, and the dims that they bind."""

    arguments: dict[str, Any]
    sizes: dict[str, Any]


def compile_entry(
    boundary: Boundary, signature: inspect.Signature, ties: Mapping[str, str], later: Iterable[Node]
) -> Callable[..., Known | None] | None:
    """Return a function that proves arguments good, and returns nothing where it cannot; None if there can be none.

    Args:
        boundary: What the arguments must be.
        signature: Parameters.
        ties: Expressions that dims are tied to.
        later: What crosses later, and may refer to the dims of the arguments.
    """
    never = TupleNode("", [PlainNode(None, "")] * 2 + list(later))  # what makes the contract hand out its dims
    nodes = {name: _immediate(node) for name, node in boundary.nodes.items() if name != "return"}
    exits = Exits(slow=_nothing, leave=_known)
    return compile_function(_nothing, signature, {**nodes, "return": never}, ties, boundary.limits, exits)


def _nothing(*args: Any, **kwargs: Any) -> None:
    """Stand for a function that is called only later, and for what is done about arguments that are not good."""


def _known(result: None, arguments: dict[str, Any], sizes: dict[str, Any]) -> Known:
    del result
    return Known(arguments, sizes)


def _immediate(node: Node) -> Node:
    """Return what can be said of a value at once: of a callable, only that it is one."""
    if held_callable(node) is None:
        return node
    called = PlainNode(collections.abc.Callable, "")
    return UnionNode(node.text, [called, PlainNode(None, "")]) if isinstance(node, UnionNode) else called


def compile_item(boundary: Boundary, ties: Mapping[str, str], node: Node) -> Proof | None:
    """Return a proof of single values that cross later."""
    return _compile(boundary, ties, {"item": node}, ["item"])


def compile_calls(boundary: Boundary, ties: Mapping[str, str], node: CallableNode, *, alone: bool = False) -> Proofs:
    """Return the proofs of a callable.

    Args:
        boundary: Where it was given.
        ties: Expressions that dims are tied to there.
        node: What it must be.
        alone: Whether only those dims are known that it cannot bind itself.
    """
    names, nodes = node.call.positional()
    if names is None:
        return None, None
    own = frozenset[str]().union(*(spec.bound for spec in tensor_specs(node.parts()))) - node.borrowed
    own = own if alone else frozenset[str]()
    call = _compile(boundary, ties, nodes, names, own)
    if call is None or node.result is None:
        return call, None
    return call, _compile(boundary, ties, {**nodes, "result_": node.result}, ["result_", *names], own)


def _compile(
    boundary: Boundary,
    ties: Mapping[str, str],
    nodes: Mapping[str, Node],
    names: list[str],
    own: frozenset[str] = frozenset(),
) -> Proof | None:
    specs = tensor_specs(nodes.values())
    if any(spec.arguments for spec in specs):
        return None
    nodes_in = [node for name, node in boundary.nodes.items() if name != "return" and held_callable(node) is None]
    outer = frozenset(ties).union(*(spec.bound for spec in tensor_specs(nodes_in)))
    used = frozenset[str]().union(*(spec.bound | spec.referred for spec in specs))
    known = {dim: f"known_.get({dim!r})" for dim in sorted((outer & used) - own)}
    return compile_acceptor(nodes, ["known_", *names], known, boundary.limits)


def proves(proof: Proof | None, known: Mapping[str, Any] | None, *values: Any) -> bool:
    """Tell whether values are proved good; they need not even be as many as they should."""
    if proof is None or known is None:
        return False
    try:
        return proof(known, *values)
    except TypeError:
        return False
