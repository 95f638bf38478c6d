"""The part of a compiled contract that is about values: what is inside them, in which order it is looked at."""

import collections
import collections.abc
import functools
import inspect
import itertools
import typing
from collections.abc import Mapping
from typing import Any

from .._annotations.declared import is_typed_dict
from .._annotations.nodes import (
    AttributesNode,
    CollectionNode,
    MappingNode,
    Node,
    PlainNode,
    SequenceNode,
    TensorNode,
    TupleNode,
    TypedDictNode,
    UnionNode,
    UnpackedNode,
    tensor_specs,
)
from .._annotations.reference import check_plain
from .._annotations.refined import RefinedNode, kinds_gate, values_gate
from ..axes import Sizes
from .tensor_writer import TensorWriter, accepted_dtypes, never_both
from .writer import NotCompilableError

_NUMERIC_TOWER: tuple[tuple[type, tuple[type, ...]], ...] = ((float, (float, int)), (complex, (complex, float, int)))
_USUAL_COLLECTIONS = frozenset({list, tuple, set, frozenset, dict, collections.deque})  # others are looked at closely
_CALLABLE: Any = collections.abc.Callable


class _IfPresent(Node):
    """What stands under a key that need not be there; the value that goes with it is a flag."""

    def __init__(self, inner: Node, expression: str) -> None:
        self.text = inner.text
        self.inner = inner
        self.expression = expression

    def accepts_kind(self, value: object) -> bool:
        return self.inner.accepts_kind(value)


_BLOCKS = (UnionNode, SequenceNode, CollectionNode, MappingNode, _IfPresent)  # what is written with its own indentation


class ValueWriter(TensorWriter):
    """Writes the checks of whatever a contract speaks of.

    Args:
        signature: Of the function that is guarded; its starred parameters stand for several values.
        source: Name of the boundary.
        nodes: What its parameters and its result must be.
        limits: Sizes that dims may have.
        symbolic: Write for sizes that may be symbols.
    """

    def __init__(
        self,
        signature: inspect.Signature,
        source: str,
        nodes: Mapping[str, Node],
        limits: Mapping[str, Sizes],
        *,
        symbolic: bool,
    ) -> None:
        super().__init__(_count_uses(signature, nodes), limits, symbolic=symbolic)
        self._signature = signature
        self._source = source

    def _visit_all(self, values: list[tuple[Node, str]]) -> None:
        """Write the checks of some values, those that bind dims before those that only refer to them."""
        pending, waiting, blocks = (list(values), list[tuple[TensorNode, str]](), list[tuple[Node, str]]())
        refined: list[tuple[RefinedNode, str]] = []
        while pending or waiting:
            if not pending:
                pending.append(self._take_ready(waiting))
            node, value = pending.pop(0)
            if isinstance(node, TensorNode) and not self._is_ready(node.spec):
                waiting.append((node, value))
            elif isinstance(node, TensorNode):
                self._tensor(node.spec, value, accepted_dtypes([node.spec]))
            elif isinstance(node, _BLOCKS) or (self._is_starred(value) and not isinstance(node, UnpackedNode)):
                blocks.append((node, value))
            elif isinstance(node, RefinedNode):
                refined.append((node, value))
                pending.insert(0, (node.inner, value))
            else:
                pending[:0] = self._structure(node, value)
        for node, value in blocks:
            self._block_node(node, value)
        if not self._symbolic:
            self._refinements(refined)

    def _refinements(self, refined: list[tuple[RefinedNode, str]]) -> None:
        """Write what is asked of values whose shape is right; what their kinds are is declared for all at once."""
        for node, value in refined:
            if node.validators:
                self._require(f"{self._constant(values_gate(node))}({value})")
        kinds = [(node.kinds, value) for node, value in refined if node.kinds]
        if kinds:
            gate = kinds_gate([(wanted, self._path(value)) for wanted, value in kinds], self._source)
            self._require(f"{self._constant(gate)}({', '.join(value for _, value in kinds)})")

    def _is_starred(self, value: str) -> bool:
        parameter = self._signature.parameters.get(value)
        return parameter is not None and parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}

    def _take_ready(self, waiting: list[tuple[TensorNode, str]]) -> tuple[Node, str]:
        for index, (node, _) in enumerate(waiting):
            if self._is_ready(node.spec):
                return waiting.pop(index)
        raise NotCompilableError

    def _structure(self, node: Node, value: str) -> list[tuple[Node, str]]:
        """Write the check of a record or plain value itself; return what is inside it."""
        if isinstance(node, PlainNode):
            condition = self._plain_condition(node.hint, value)
            self._require(*([condition] if condition else []))
            return []
        if isinstance(node, TupleNode):
            self._require(f"isinstance({value}, tuple)", f"len({value}) == {len(node.items)}")
            return [(item, self._assign(f"{value}[{index}]")) for index, item in enumerate(node.items)]
        if isinstance(node, UnpackedNode):
            return [(node.whole, self._assign(value))]  # another name: that of the parameter stands for many values
        if isinstance(node, TypedDictNode) and node.extra is None:
            return self._typed_dict(node, value)
        if isinstance(node, AttributesNode):
            self._require(f"isinstance({value}, {self._constant(node.kind)})")
            with self._doubting("AttributeError"):
                return [(field, self._assign(f"{value}.{name}")) for name, field in node.fields.items()]
        raise NotCompilableError

    def _typed_dict(self, node: TypedDictNode, value: str) -> list[tuple[Node, str]]:
        """Write the check of the keys; no other key can be there if the number of those that are is right."""
        self._require(f"type({value}) is dict")
        required = [key for key in node.fields if key in node.required]
        optional = {key: self._assign(f"{key!r} in {value}") for key in node.fields if key not in node.required}
        self._require(f"len({value}) == {' + '.join([str(len(required)), *optional.values()])}")
        inside: list[tuple[Node, str]] = [
            (_IfPresent(node.fields[key], f"{value}[{key!r}]"), flag) for key, flag in optional.items()
        ]
        if required:
            with self._doubting("KeyError"):
                inside += [(node.fields[key], self._assign(f"{value}[{key!r}]")) for key in required]
        return inside

    def _block_node(self, node: Node, value: str) -> None:
        if self._is_starred(value):
            items = (
                value
                if self._signature.parameters[value].kind is inspect.Parameter.VAR_POSITIONAL
                else f"{value}.values()"
            )
            self._items(node, items)
        elif isinstance(node, SequenceNode):
            self._require(f"isinstance({value}, {self._constant(node.kind)})", f"type({value}) is not str")
            self._items(node.item, value)
        elif isinstance(node, CollectionNode):
            self._require(f"type({value}) in {self._constant(_USUAL_COLLECTIONS)}")
            self._items(node.item, value)
        elif isinstance(node, _IfPresent):
            with self._block(f"if {value}:"):
                self._visit_all([(node.inner, self._assign(node.expression))])
        elif isinstance(node, MappingNode):
            self._require(f"isinstance({value}, {self._constant(node.kind)})")
            self._items(node.key, value)
            self._items(node.value, f"{value}.values()")
        elif isinstance(node, UnionNode):
            self._union(node, value)
        else:
            raise NotCompilableError

    def _items(self, node: Node, items: str) -> None:
        """Write a loop over items; the first one binds the dims that nothing else has bound."""
        names = {name for spec in tensor_specs([node]) for name in spec.bound if self._uses[name] > 1} - self._bound
        if isinstance(node, UnionNode):
            self._may_be_bound(names)
        elif names:
            self._require(f"{items}")  # an empty container would leave a dim unbound
            bare = node.inner if isinstance(node, RefinedNode) else node  # the loop asks the rest
            self._visit_all([(bare, self._assign(f"next(iter({items}))"))])
        if not names <= self._bound | self._uncertain:
            raise NotCompilableError
        item = self._local()
        self._assigned[item] = f"{items.removesuffix('.values()')}[...]"
        with self._block(f"for {item} in {items}:"):
            self._visit_all([(node, item)])

    def _union(self, node: UnionNode, value: str) -> None:
        alternatives = [item for item in node.alternatives if not _is_none(item)]
        if len(alternatives) < len(node.alternatives):
            with self._block(f"if {value} is not None:"):
                self._visit_all(
                    [(UnionNode(node.text, alternatives) if len(alternatives) > 1 else alternatives[0], value)]
                )
            return
        specs = [item.spec for item in alternatives if isinstance(item, TensorNode)]
        if len(specs) == len(alternatives) and len({(spec.dims, spec.annotation.array_type) for spec in specs}) == 1:
            if not self._is_ready(specs[0]):
                raise NotCompilableError
            self._tensor(specs[0], value, accepted_dtypes(specs))
        elif all(isinstance(item, PlainNode) for item in alternatives):
            conditions = [self._plain_condition(typing.cast("PlainNode", item).hint, value) for item in alternatives]
            self._require(*([f"({' or '.join(conditions)})"] if all(conditions) else []))
        else:
            self._branches(alternatives, value)

    def _branches(self, alternatives: list[Node], value: str) -> None:
        """Write one branch for each alternative, of which no value can fit two whatever the dims are."""
        others = [item for item in alternatives if isinstance(item, PlainNode)]
        branches = [item for item in alternatives if not isinstance(item, PlainNode)]
        tensors = [item.spec for item in branches if isinstance(item, TensorNode)]
        kinds = [_exact_kind(item) for item in branches if not isinstance(item, TensorNode)]
        exclusive = all(itertools.starmap(never_both, itertools.combinations(tensors, 2)))
        if not exclusive or None in kinds or len(set(kinds)) < len(kinds) or any(map(_may_be_array, others)):
            raise NotCompilableError
        uncertain, perhaps, ends = set(self._uncertain), set[str](), list[set[str]]()
        for index, node in enumerate(branches):
            self._uncertain = set(uncertain)  # what another branch binds is not bound here
            with self._block(f"{'el' * bool(index)}if {self._branch_condition(node, value)}:"):
                self._visit_all([(node, value)])
                ends.append(set(self._bound))
            perhaps |= self._uncertain
        with self._block("else:"):
            plain = [self._plain_condition(item.hint, value) for item in others]
            self._require(f"({' or '.join(plain)})" if plain else "False")
        everywhere = {dim for end in ends for dim in end if not others and all(dim in other for other in ends)}
        self._bound |= everywhere
        self._uncertain, self._unset = uncertain, self._unset - (everywhere - uncertain)
        self._may_be_bound(perhaps - everywhere)

    def _branch_condition(self, node: Node, value: str) -> str:
        if not isinstance(node, TensorNode):
            return f"type({value}) is {self._constant(_exact_kind(node))}"
        if not self._is_ready(node.spec):
            raise NotCompilableError
        conditions = self._kind_conditions(node.spec, value, accepted_dtypes([node.spec]))
        if node.spec.variadic is None:
            conditions.append(f"len({value}.shape) == {len(node.spec.dims)}")
        return " and ".join(conditions)

    def _plain_condition(self, hint: Any, value: str) -> str:
        """Return an expression that is true only if beartype accepts the value; nothing if it accepts all."""
        if hint is Any or hint is object:
            return ""
        if _is_none_hint(hint):
            return f"{value} is None"
        tower = next((kinds for kind, kinds in _NUMERIC_TOWER if hint is kind), None)
        if tower is not None:
            return f"isinstance({value}, {self._constant(tower)})"
        if isinstance(hint, type) and typing.get_origin(hint) is None and not _has_own_rules(hint):
            return f"isinstance({value}, {self._constant(hint)})"
        arguments = typing.get_args(hint)
        if typing.get_origin(hint) is typing.Literal and all(type(argument) is str for argument in arguments):
            return f"({value}.__class__ is str and {value} in {self._constant(frozenset(arguments))})"
        if typing.get_origin(hint) is _CALLABLE:
            return f"callable({value})"
        return f"{self._constant(functools.partial(check_plain, hint))}({value})"


def _count_uses(signature: inspect.Signature, nodes: Mapping[str, Node]) -> "collections.Counter[str]":
    """Count how often each dim is named in a contract; what may stand for several tensors counts twice."""
    uses = collections.Counter[str]()

    def count(node: Node, times: int, inside: tuple[Node, ...]) -> None:
        if node in inside:
            raise NotCompilableError  # a record that refers to itself
        if isinstance(node, TensorNode):
            names = [name for dim in node.spec.dims for name in (dim.names or [dim.text])]
            uses.update(names * times)
        for child in node.children():
            count(child, 2 if isinstance(node, (SequenceNode, CollectionNode, MappingNode)) else times, (*inside, node))

    dims = [dim for spec in tensor_specs(nodes.values()) for dim in spec.dims]
    if {dim.text for dim in dims if dim.kind == "variadic" and dim.text} & {
        name for dim in dims if dim.kind != "variadic" for name in (dim.names or [dim.text])
    }:
        raise NotCompilableError  # one name for an axis and for a run of axes
    for name, node in nodes.items():
        parameter = signature.parameters.get(name)
        starred = parameter is not None and parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}
        count(node, 2 if starred else 1, ())
    return uses


def _has_own_rules(kind: Any) -> bool:
    """Tell whether values need not be instances of a class to satisfy it as a hint."""
    return getattr(kind, "_is_protocol", False) or is_typed_dict(kind)


def _exact_kind(node: Node) -> type | None:
    """Return the built-in class that most values of a container have; None if there is none."""
    kind = (
        tuple
        if isinstance(node, TupleNode)
        else dict
        if isinstance(node, TypedDictNode)
        else getattr(node, "kind", None)
    )
    return kind if kind in {list, tuple, dict, set, frozenset} else None


def _may_be_array(node: PlainNode) -> bool:
    """Tell whether an array may satisfy a hint that says nothing of arrays."""
    if typing.get_origin(node.hint) is typing.Literal:
        return False
    return not any(node.hint is kind for kind in (bool, int, float, complex, str, bytes))


def _is_none(node: Node) -> bool:
    return isinstance(node, PlainNode) and _is_none_hint(node.hint)


def _is_none_hint(hint: Any) -> bool:
    return hint is None or hint is type(None)
