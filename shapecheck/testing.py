"""Hypothesis strategies from annotations: tensors, valid calls of a contracted function, and calls just beside them.

Only this module needs Hypothesis, and only when a strategy is made.
"""

import dataclasses
import functools
import inspect
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from ._annotations.nodes import (
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
    tensor_specs,
)
from ._annotations.reference import check_plain
from ._annotations.refined import RefinedNode
from ._annotations.resolve import resolve_hints
from ._annotations.spec import Dim, TensorSpec, symbolic_size
from ._annotations.structure import Builder
from ._settings import mode
from ._stand_in import array_class

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn, SearchStrategy

_LARGEST = 6  # size of a dim
_MOST_ITEMS = 3  # of a container, and axes of a variadic dim
_DTYPES = (
    *("float32", "float64", "float16", "bfloat16", "complex64", "complex128"),
    *("int64", "int32", "int16", "int8", "uint8", "bool"),
)

Sizes = Mapping[str, "int | tuple[int, ...]"]


class Call(NamedTuple):
    """Arguments of one call: ``function(*call.args, **call.kwargs)``."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def tensors(annotation: Any, sizes: Sizes | None = None) -> "SearchStrategy[Any]":
    """Return a strategy of values that satisfy an annotation, such as ``Float32[Tensor, "B C 1 2"]``.

    Args:
        annotation: Any annotation that `contract` understands and values can be made for.
        sizes: Sizes of some dims; of a variadic dim, a tuple. The others are drawn.
    """
    from hypothesis import strategies

    node = Builder().node(annotation, "the annotation")

    @strategies.composite
    def draw_value(draw: "DrawFn") -> Any:
        return _realised(_Plan(draw, sizes or {}).value(node))

    return draw_value()


def calls(function: Callable[..., Any], sizes: Sizes | None = None) -> "SearchStrategy[Call]":
    """Return a strategy of calls that the contract of a function accepts.

    Args:
        function: A function with annotations, under contract or not.
        sizes: Sizes of some dims, for example of those that the contract ties; the others are drawn.
    """
    from hypothesis import strategies

    signature, nodes = _signature(function)

    @strategies.composite
    def draw_call(draw: "DrawFn") -> Call:
        return _call(signature, _arguments(_Plan(draw, sizes or {}), signature, nodes))

    return draw_call()


def invalid_calls(function: Callable[..., Any], sizes: Sizes | None = None) -> "SearchStrategy[Call]":
    """Return a strategy of calls beside valid ones, each of which the contract must reject.

    One tensor of a valid call has an axis more or less, a dtype of another family, another size where the annotation
    has a number, or another size of a dim that a second axis of the call has, too.

    Args:
        function: A function with annotations, under contract or not.
        sizes: Sizes of some dims; the others are drawn.

    Raises:
        ValueError: The contract has no such neighbours: it rejects nothing that could be made.
    """
    from hypothesis import assume, strategies

    signature, nodes = _signature(function)
    if not tensor_specs(nodes.values()):
        msg = f"Expected a function with annotated tensors, got {function.__qualname__}: no call of it is beside a valid one."
        raise ValueError(msg)

    @strategies.composite
    def draw_call(draw: "DrawFn") -> Call:
        plan = _Plan(draw, sizes or {})
        arguments = _arguments(plan, signature, nodes)
        spoilt = [change for leaf in plan.leaves for change in _spoilt(leaf, plan.leaves)]
        assume(spoilt)
        leaf, shape, dtype = draw(strategies.sampled_from(spoilt))
        leaf.shape, leaf.dtype = shape, dtype
        return _call(signature, arguments)

    return draw_call()


def _signature(function: Callable[..., Any]) -> tuple[inspect.Signature, dict[str, Node]]:
    inner: Any = inspect.unwrap(function)
    hints = resolve_hints(inner, inner.__annotations__)
    builder = Builder()
    nodes = {name: builder.node(hint, f"{name!r} of {inner.__qualname__}") for name, hint in hints.items()}
    nodes.pop("return", None)
    return inspect.signature(function), nodes


def _arguments(plan: "_Plan", signature: inspect.Signature, nodes: Mapping[str, Node]) -> dict[str, Any]:
    """Plan every argument that is annotated or must be given; plain ones first, because axes may refer to them."""
    order = sorted(signature.parameters, key=lambda name: name in nodes and bool(tensor_specs([nodes[name]])))
    for name in order:
        parameter = signature.parameters[name]
        if name in nodes:
            count = plan.count() if parameter.kind is parameter.VAR_POSITIONAL else None
            value = plan.value(nodes[name]) if count is None else tuple(plan.value(nodes[name]) for _ in range(count))
            plan.arguments[name] = {} if parameter.kind is parameter.VAR_KEYWORD else value
        elif parameter.default is parameter.empty and parameter.kind not in {
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        }:
            msg = f"Expected {name!r} to be annotated, or to have a default: no value can be made for it."
            raise ValueError(msg)
    return plan.arguments


def _call(signature: inspect.Signature, arguments: Mapping[str, Any]) -> Call:
    bound = inspect.BoundArguments(signature, {})  # pyright: ignore[reportArgumentType]
    bound.arguments.update({name: _realised(arguments[name]) for name in signature.parameters if name in arguments})
    return Call(bound.args, bound.kwargs)


# --- plans: values whose tensors do not exist yet ---------------------------------------------------
@dataclasses.dataclass(eq=False)
class _Leaf:
    """A tensor to be made."""

    spec: TensorSpec
    shape: tuple[int, ...]
    dtype: str
    seed: int
    is_certain: bool  # no alternative of a union could accept it when it is spoilt


class _Record(NamedTuple):
    kind: Any
    fields: dict[str, Any]


class _Plan:
    """Draws values for nodes, with one set of dims."""

    def __init__(self, draw: "DrawFn", sizes: Sizes) -> None:
        from hypothesis import strategies

        self._draw = draw
        self._strategies = strategies
        self._sizes: dict[str, Any] = dict(sizes)
        self._unions = 0
        self.arguments: dict[str, Any] = {}
        self.leaves: list[_Leaf] = []

    def count(self) -> int:
        """Draw the length of a container."""
        return self._draw(self._strategies.integers(1, _MOST_ITEMS))

    def value(self, node: Node) -> Any:
        """Plan a value."""
        if isinstance(node, TensorNode):
            return self._tensor(node.spec)
        for kind, plan in _PLANS.items():
            if isinstance(node, kind):
                return plan(self, node)
        msg = f"Expected an annotation that values can be made for, got {node.text}."
        raise ValueError(msg)

    def _tensor(self, spec: TensorSpec) -> _Leaf:
        from hypothesis import assume

        shape = [size for dim in spec.dims for size in self._axes(dim)]
        assume(all(size >= 0 for size in shape))
        dtype = self._draw(self._strategies.sampled_from(_dtypes(spec, accepted=True)))
        seed = self._draw(self._strategies.integers(0, 2**16))
        leaf = _Leaf(spec, tuple(shape), dtype, seed, is_certain=self._unions == 0)
        self.leaves.append(leaf)
        return leaf

    def _axes(self, dim: Dim) -> Sequence[int]:
        if dim.kind == "fixed":
            return [dim.size]
        if dim.kind == "symbolic":
            return [self._symbolic(dim)]
        if dim.kind == "variadic":
            axes = tuple(self._size() for _ in range(self.count() - 1))
            return self._sizes.setdefault(dim.text, axes) if dim.text else axes
        return [self._size() if dim.kind == "anonymous" else self._sizes.setdefault(dim.text, self._size())]

    def _size(self) -> int:
        return self._draw(self._strategies.integers(1, _LARGEST))

    def _symbolic(self, dim: Dim) -> int:
        from hypothesis import assume

        for name in sorted(dim.names):
            self._sizes.setdefault(name, self._size())
        size = symbolic_size(dim, self._sizes, self.arguments)
        assume(size is not None)
        return int(size or 0)

    # --- what holds tensors --------------------------------------------------------------------
    def plain(self, node: PlainNode) -> Any:
        """Draw a value that beartype accepts; a whole number may be the size of an axis, and is one."""
        hint = node.hint
        if hint is int:
            return self._size()
        strategy = self._strategies.none() if hint is None else self._strategies.from_type(hint)
        return self._draw(strategy.filter(functools.partial(check_plain, hint)))

    def union(self, node: UnionNode) -> Any:
        """Plan one of the alternatives."""
        self._unions += len(tensor_specs([node])) > 1
        value = self.value(self._draw(self._strategies.sampled_from(node.alternatives)))
        self._unions -= len(tensor_specs([node])) > 1
        return value

    def refined(self, node: RefinedNode) -> Any:
        """Plan a value without its validators; only what they accept is used."""
        from hypothesis import assume

        value = self.value(node.inner)
        assume(node.is_valid(_realised(value)))
        return value

    def sequence(self, node: SequenceNode) -> Any:
        """Plan a list, a tuple or a set."""
        return _Record(_constructor(node.kind), {"": [self.value(node.item) for _ in range(self.count())]})

    def collection(self, node: CollectionNode) -> Any:
        """Plan a list."""
        return [self.value(node.item) for _ in range(self.count())]

    def tuple(self, node: TupleNode) -> Any:
        """Plan a tuple."""
        return tuple(self.value(item) for item in node.items)

    def mapping(self, node: MappingNode) -> Any:
        """Plan a dict."""
        keys = dict.fromkeys(self.value(node.key) for _ in range(self.count()))
        return {key: self.value(node.value) for key in keys}

    def typed_dict(self, node: TypedDictNode) -> Any:
        """Plan a dict with every declared key."""
        return {key: self.value(inner) for key, inner in node.fields.items()}

    def attributes(self, node: AttributesNode) -> Any:
        """Plan an instance of a record class."""
        return _Record(node.kind, {name: self.value(inner) for name, inner in node.fields.items()})


_PLANS: dict[Any, Callable[[_Plan, Any], Any]] = {
    PlainNode: _Plan.plain,
    UnionNode: _Plan.union,
    RefinedNode: _Plan.refined,
    SequenceNode: _Plan.sequence,
    CollectionNode: _Plan.collection,
    TupleNode: _Plan.tuple,
    MappingNode: _Plan.mapping,
    TypedDictNode: _Plan.typed_dict,
    AttributesNode: _Plan.attributes,
}


def _constructor(kind: type) -> Callable[[list[Any]], Any]:
    return list if inspect.isabstract(kind) else kind


def _dtypes(spec: TensorSpec, *, accepted: bool) -> list[str]:
    """Return the dtypes that a spec accepts, or those that it does not, of the library of its arrays."""
    numpy = array_class("numpy")
    known = [name for name in _DTYPES if name != "bfloat16" or spec.annotation.array_type is not numpy]
    return [name for name in known if spec.accepts_dtype(name) is accepted]


# --- calls that must be rejected ------------------------------------------------------------------
def _spoilt(leaf: _Leaf, leaves: Sequence[_Leaf]) -> Iterator[tuple[_Leaf, tuple[int, ...], str]]:
    """Yield shapes and dtypes of a tensor that its contract cannot accept."""
    if not leaf.is_certain:
        return
    spec, shape = leaf.spec, leaf.shape
    for dtype in _dtypes(spec, accepted=False)[:3]:
        yield leaf, shape, dtype
    if spec.variadic is not None:
        return
    yield leaf, (*shape, 3), leaf.dtype
    if shape:
        yield leaf, shape[:-1], leaf.dtype
    for axis, dim in enumerate(spec.dims):
        is_bound_twice = dim.kind == "named" and _occurrences(dim.text, leaves) > 1
        if not dim.broadcastable and (dim.kind == "fixed" or is_bound_twice):
            yield leaf, (*shape[:axis], shape[axis] + 1, *shape[axis + 1 :]), leaf.dtype


def _occurrences(name: str, leaves: Sequence[_Leaf]) -> int:
    """Return how many axes of a call must have the size of a dim, whatever else happens."""
    dims = [dim for leaf in leaves if leaf.is_certain for dim in leaf.spec.dims]
    return sum(dim.kind == "named" and dim.text == name and not dim.broadcastable for dim in dims)


# --- from plans to values -------------------------------------------------------------------------
def _realised(plan: Any) -> Any:
    """Return a planned value with its tensors made; records that would refuse it are made without asking."""
    if isinstance(plan, _Leaf):
        return _tensor(plan)
    if isinstance(plan, _Record):
        fields = {name: _realised(value) for name, value in plan.fields.items()}
        with mode("off"):
            return plan.kind(fields[""]) if "" in fields else plan.kind(**fields)
    if type(plan) is dict:
        return {key: _realised(value) for key, value in cast("dict[Any, Any]", plan).items()}
    if type(plan) is list:
        return [_realised(value) for value in cast("list[Any]", plan)]
    return tuple(map(_realised, cast("tuple[Any, ...]", plan))) if type(plan) is tuple else plan


def _tensor(leaf: _Leaf) -> Any:
    """Make an array of small numbers, the same for the same plan."""
    count = functools.reduce(operator.mul, leaf.shape, 1)
    numbers = [(leaf.seed * 31 + index * 7) % 11 for index in range(count)]
    if leaf.spec.annotation.array_type is array_class("numpy"):
        import numpy as np

        return np.array(numbers, getattr(np, leaf.dtype.replace("bool", "bool_"))).reshape(leaf.shape)
    import torch

    made = torch.tensor(numbers, dtype=getattr(torch, leaf.dtype)).reshape(leaf.shape)
    kind: Any = leaf.spec.annotation.array_type
    return made if kind is torch.Tensor else kind(made)
