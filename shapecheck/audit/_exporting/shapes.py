"""``dynamic_shapes`` for `torch.export` from a contract: which sizes stay open, which are equal, which are fixed.

A named dim is one `torch.export.Dim` wherever it stands, with the sizes that the registry allows. ONNX is out of scope.
"""

import ast
import importlib
import inspect
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from ..._annotations.deferred import argument_visits
from ..._annotations.nodes import (
    AttributesNode,
    CollectionNode,
    MappingNode,
    Node,
    SequenceNode,
    TensorNode,
    TupleNode,
    TypedDictNode,
    UnionNode,
    Visit,
)
from ..._annotations.refined import RefinedNode
from ..._annotations.scope import Scope, align
from ..._annotations.spec import Dim, TensorSpec, symbolic_size
from ..._boundaries.function import FunctionContract
from ..._boundaries.inheritance import contract_within
from ..._diagnosis.engine import solve
from ..._render import describe
from ..._settings import enabled
from ..._syntax import parse_expression
from ...axes import Sizes

_POLYNOMIAL = (
    ast.Expression,
    ast.BinOp,
    ast.UnaryOp,
    ast.Add,
    ast.Sub,
    ast.Mult,
    ast.USub,
    ast.Constant,
    ast.Name,
    ast.Load,
)
_TRIED = range(4)  # values that tell a line from a parabola


def dynamic_shapes(
    target: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    sizes: Mapping[str, int | range] | None = None,
) -> dict[str, Any]:
    """Return what `torch.export.export` wants as ``dynamic_shapes``, from the contract of what is exported.

    Axes of a dim that is tied to an attribute or a number are fixed, and so are numbers; a named dim is a
    `torch.export.Dim`, as large as the registry says; ``2*C`` is derived from ``C``. What is no line in one dim, such as
    ``h//2``, and the dims in it are left to `torch.export` (``Dim.AUTO``), and so are ``_`` and ``...``.

    Args:
        target: The module with a contract on its ``forward``, or a function with the same parameters.
        args: The call that is exported.
        kwargs: Likewise.
        sizes: Of some dims the one size that is exported, or the range of sizes; in place of the registry's.

    Raises:
        ContractError: The call breaks the contract.
        ValueError: There is no contract, or a dim that should stay open has size 0 or 1 in the call: `torch.export`
            takes these for constants, because they change what broadcasting means.
    """
    example = example_of(target, tuple(args), dict(kwargs or {}))
    plan = _Plan(example, sizes or {})
    shapes: dict[str, Any] = {}
    for name, value in example.given.items():
        node = example.contract.boundary.nodes.get(name)
        kind = example.contract.signature.parameters[name].kind
        if node is None:
            shapes[name] = _open(value)
        elif kind is inspect.Parameter.VAR_POSITIONAL:
            shapes[name] = tuple(plan.of(item, node) for item in value)
        elif kind is inspect.Parameter.VAR_KEYWORD:
            shapes[name] = {key: plan.of(item, node) for key, item in value.items()}
        else:
            shapes[name] = plan.of(value, node)
    return shapes


class Example(NamedTuple):
    """A call that keeps a contract.

    Attributes:
        contract: The contract.
        given: What was given, by parameter, without ``self``.
        visits: The same as the contract sees it.
        scope: The dims that it binds.
    """

    contract: FunctionContract
    given: dict[str, Any]
    visits: list[Visit]
    scope: Scope


def example_of(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Example:
    """Judge a call that is to be exported.

    Raises:
        ContractError: The call breaks the contract.
        ValueError: There is no contract.
    """
    is_function = inspect.isfunction(target)
    contract = contract_within(target if is_function else getattr(cast("Any", type(target)), "forward", None))
    if contract is None:
        cure = "Put @contract on it." if enabled() else "Checking is off: export with SHAPECHECK=on."
        msg = f"Expected a module or function with a contract, got {describe(target)}. {cure}"
        raise ValueError(msg)
    call = args if is_function else (target, *args)
    bound = contract.signature.bind(*call, **kwargs)
    given = dict(list(bound.arguments.items())[0 if is_function else 1 :])
    bound.apply_defaults()
    visits = argument_visits(contract.signature, contract.boundary.nodes, bound.arguments)
    verdict = contract.boundary.enter(bound.arguments, visits, "on")
    if verdict.error is not None:
        raise verdict.error from None
    return Example(contract, given, visits, verdict.scopes[0])


def _open(value: Any) -> Any:
    """Return the structure of a value with nothing said of its tensors: they keep the shapes of the call."""
    from torch.utils._pytree import tree_map

    return tree_map(_nothing, value)


def _nothing(leaf: object) -> None:
    del leaf


class _Plan:
    """Chooses what every axis is, the same for the same dim."""

    def __init__(self, example: Example, sizes: Mapping[str, int | range]) -> None:
        self._scope = example.scope
        self._limits: dict[str, Sizes] = {**example.contract.boundary.limits}
        self._limits |= {dim: frozenset({size}) if isinstance(size, int) else size for dim, size in sizes.items()}
        self._fixed = {dim for dim in example.contract.ties if dim in self._scope.sizes}
        self._fixed |= {dim for dim, allowed in self._limits.items() if len(allowed) == 1}
        self._dims: dict[str, Any] = {}
        specs = [node.spec for _, _, node in leaves_of(example.visits, example.scope)]
        lines = {axis: _line(axis) for spec in specs for axis in spec.dims if axis.kind == "symbolic"}
        self._auto = {name for axis, line in lines.items() if line is None for name in axis.names}
        self._require_sense(sizes)

    def _require_sense(self, sizes: Mapping[str, int | range]) -> None:
        for dim in sizes:
            allowed, size = self._limits[dim], self._scope.sizes.get(dim)
            if size is None or size not in allowed:
                got = "a call without such a dim" if size is None else f"{dim}={size}"
                msg = f"Expected the call to have {dim} as sizes says ({sizes[dim]}), got {got}."
                raise ValueError(msg)

    def of(self, value: Any, node: Node) -> Any:
        """Return the shapes of a value, in the structure that `torch.export` knows it by."""
        if isinstance(node, TensorNode):
            return self._axes(node.spec, tuple(value.shape))
        if isinstance(node, RefinedNode):
            return self.of(value, node.inner)
        if isinstance(node, UnionNode):
            return self.of(value, _alternative(node, value, self._scope))
        if isinstance(node, TypedDictNode):
            return {key: self._field(item, node.fields.get(key, node.extra)) for key, item in value.items()}
        if isinstance(node, MappingNode):
            return {key: self.of(item, node.value) for key, item in value.items()}
        if isinstance(node, (SequenceNode, CollectionNode)):
            return cast("Any", type(value))(self.of(item, node.item) for item in value)
        if isinstance(node, TupleNode):
            return tuple(self.of(item, one) for item, one in zip(value, node.items, strict=True))
        return self._record(value, node) if isinstance(node, AttributesNode) else _open(value)

    def _field(self, value: Any, node: Node | None) -> Any:
        return _open(value) if node is None else self.of(value, node)

    def _record(self, value: Any, node: AttributesNode) -> Any:
        """Return the shapes of a NamedTuple as one, and of a dataclass as the list that torch flattens it to."""
        fields = {name: getattr(value, name) for name in node.fields}
        if isinstance(value, tuple):
            shapes = [self.of(item, node.fields[name]) for name, item in fields.items()]
            return cast("Any", tuple).__new__(
                cast("Any", value).__class__, shapes
            )  # a contract of its own would refuse them
        return [self.of(item, node.fields[name]) for name, item in fields.items() if item is not None]

    def _axes(self, spec: TensorSpec, shape: tuple[int, ...]) -> dict[int, Any]:
        found: dict[int, Any] = {}
        for axes, dim in align(spec, len(shape)):
            for index, axis in enumerate(axes):
                size = self._size(dim, index, shape[axis])
                if size is not None:
                    found[axis] = size
        return found

    def _size(self, dim: Dim, index: int, size: int) -> Any:
        """Return what stands for one axis; None where it is fixed."""
        from torch.export import Dim as ExportDim

        if dim.kind == "fixed" or (dim.broadcastable and size == 1):
            return None
        if dim.kind == "anonymous" or (dim.kind == "variadic" and (not dim.text or dim.broadcastable)):
            return cast("Any", ExportDim).AUTO
        if dim.kind == "variadic":
            return self._named(f"{dim.text}_{index}", size)
        if dim.kind == "named":
            return self._named(dim.text, size)
        if dim.names <= self._fixed:
            return None
        line = _line(dim)
        if line is None or dim.names & self._auto:
            return cast("Any", ExportDim).AUTO
        (name,), (factor, offset) = dim.names, line
        root = self._named(name, self._scope.sizes[name])
        return root * factor + offset if offset else root * factor

    def _named(self, name: str, size: int) -> Any:
        from torch.export import Dim as ExportDim

        if name in self._fixed:
            return None
        if name in self._auto:
            return cast("Any", ExportDim).AUTO
        if size < 2:
            msg = (
                f"Expected dim {name} to have a size of at least 2 in the call that is exported, got {size}: torch.export "
                f"takes 0 and 1 for constants. Give a larger example, or sizes={{{name!r}: {size}}} to export only that."
            )
            raise ValueError(msg)
        if name not in self._dims:
            allowed = self._limits.get(name)
            bounds = {} if allowed is None else {"min": min(allowed), "max": max(allowed)}
            self._dims[name] = cast("Any", ExportDim)(_name_for_sympy(name), **bounds)
        return self._dims[name]


def leaves_of(visits: Sequence[Visit], scope: Scope) -> list[tuple[str, Any, TensorNode]]:
    """Return the tensors of a call with what each was accepted for."""
    found: list[tuple[str, Any, TensorNode]] = []
    for path, value, node in visits:
        if isinstance(node, TensorNode):
            found.append((path, value, node))
        elif isinstance(node, UnionNode):
            found += leaves_of([(path, value, _alternative(node, value, scope))], scope)
        else:
            found += leaves_of(node.visit(value, path)[1], scope)
    return found


def _alternative(node: UnionNode, value: Any, scope: Scope) -> Node:
    """Return the alternative of a union that a value was accepted for."""
    return next(one for one in node.alternatives if next(solve([("", value, one)], scope), None) is not None)


def _line(dim: Dim) -> tuple[int, int] | None:
    """Return factor and offset of an axis that is a line in one dim, with a factor above 0; None for another."""
    if len(dim.names) != 1 or dim.arguments:
        return None
    if not all(isinstance(part, _POLYNOMIAL) for part in ast.walk(parse_expression(dim.text))):
        return None
    (name,) = dim.names
    values = [symbolic_size(dim, {name: value}, {}) or 0 for value in _TRIED]
    steps = {later - earlier for earlier, later in itertools.pairwise(values)}
    return (steps.pop(), values[0]) if len(steps) == 1 and values[1] > values[0] else None


def _name_for_sympy(name: str) -> str:
    """Return a name that sympy, which torch computes with, does not take for something of its own, as it does N or S."""
    return f"{name}_" if hasattr(importlib.import_module("sympy"), name) else name
