"""The part of a compiled contract that is about single tensors: dtypes, axes, and the sizes that dims must have."""

import ast
import collections
import functools
import sys
from collections.abc import Mapping
from typing import Any

from .._annotations.spec import BRACES, Dim, TensorSpec
from .._syntax import parse_expression
from ..axes import Sizes
from .writer import NotCompilableError, Writer

_USUAL_DTYPES = ("float32", "complex64", "int64", "bool")


class TensorWriter(Writer):
    """Writes the checks of tensors.

    Args:
        uses: How often each dim is named in the contract.
        limits: Sizes that dims may have.
        symbolic: Write for sizes that may be symbols.
    """

    def __init__(self, uses: "collections.Counter[str]", limits: Mapping[str, Sizes], *, symbolic: bool) -> None:
        super().__init__()
        self._uses = uses
        self._limits = limits
        self._symbolic = symbolic

    def _is_ready(self, spec: TensorSpec) -> bool:
        """Tell whether every dim that the spec cannot bind itself is bound."""
        own = {dim.text for dim in spec.dims if _binds(dim)}
        if ((spec.bound | spec.referred) - own) & self._uncertain - self._bound:
            raise NotCompilableError
        broadcast = {dim.text for dim in spec.dims if dim.broadcastable and dim.kind == "named"}
        return spec.needs | broadcast <= self._bound

    def _tensor(self, spec: TensorSpec, value: str, dtypes: frozenset[Any] | None) -> None:
        conditions = self._kind_conditions(spec, value, dtypes)
        if spec.variadic is not None:
            shape = self._local()
            self._require(*conditions, f"len({shape} := {value}.shape) >= {len(spec.dims) - 1}")
            self._variadic_axes(spec, spec.variadic, shape)
        elif spec.dims in self._shapes and not self._symbolic:
            self._require(*conditions, f"{value}.shape == {self._shapes[spec.dims]}")
        elif self._is_known(spec) and not self._symbolic:
            sizes = "".join(f"{self._size(dim)}, " for dim in spec.dims)
            self._require(*conditions, f"{value}.shape == ({sizes})")
        else:
            self._require(*conditions)
            self._axes(spec.dims, f"{value}.shape")

    def _kind_conditions(self, spec: TensorSpec, value: str, dtypes: frozenset[Any] | None) -> list[str]:
        """Return what a value must satisfy before its shape is read."""
        kind = spec.annotation.array_type
        if not isinstance(kind, type):
            raise NotCompilableError
        name = self._constant(kind)
        conditions = [f"({value}.__class__ is {name} or isinstance({value}, {name}))"]
        if dtypes is not None:
            conditions.append(self._dtype_condition(value, dtypes))
        return conditions

    def _dtype_condition(self, value: str, dtypes: frozenset[Any]) -> str:
        """Return an expression that is true for some dtypes, at once for the one that is met most."""
        usual = min(dtypes, key=lambda dtype: (str(dtype).rpartition(".")[2] not in _USUAL_DTYPES, str(dtype)))
        if len(dtypes) == 1:
            return f"{value}.dtype is {self._constant(usual)}"
        dtype = self._local()
        return f"(({dtype} := {value}.dtype) is {self._constant(usual)} or {dtype} in {self._constant(dtypes)})"

    def _is_known(self, spec: TensorSpec) -> bool:
        """Tell whether every axis has one size that is known before the tensor is looked at."""
        if any(dim.broadcastable or dim.kind == "anonymous" for dim in spec.dims):
            return False
        named = {dim.text for dim in spec.dims if dim.kind == "named"}
        return named <= self._bound and not any(dim.arguments for dim in spec.dims)

    def _axes(self, dims: tuple[Dim, ...], shape: str) -> None:
        """Unpack a shape into the dims it binds, then compare the rest."""
        targets: list[str] = []
        compared: list[tuple[Dim, str]] = []
        for dim in dims:
            if dim.kind == "anonymous" or (dim.kind == "named" and self._is_free(dim)):
                targets.append("_")
            elif _binds(dim) and dim.text not in self._bound | self._uncertain:
                self._bound.add(dim.text)
                targets.append(f"_sc_d_{dim.text}")
            else:
                targets.append(self._local())
                compared.append((dim, targets[-1]))
        whole = self._local()
        with self._doubting("ValueError"):  # too few or too many axes
            self._line(f"[{', '.join(targets)}] = {whole} = {shape}")
        limits = [
            condition
            for dim in dims
            if f"_sc_d_{dim.text}" in targets
            for condition in self._limit_conditions(dim.text)
        ]
        for dim, size in compared:
            if dim.text in self._uncertain - self._bound:
                self._bind_unless_bound(dim.text, size)
        self._require(*(self._axis_condition(dim, size) for dim, size in compared), *limits)
        if not any(dim.broadcastable or dim.arguments or dim.kind == "anonymous" for dim in dims):
            self._shapes[dims] = whole

    def _axis(self, dim: Dim, size: str) -> None:
        """Bind the dim of one axis, or compare the axis with it."""
        if not _binds(dim) or dim.text in self._bound:
            self._require(self._axis_condition(dim, size))
        elif dim.text in self._uncertain:
            self._bind_unless_bound(dim.text, size)
            self._require(self._axis_condition(dim, size))
        else:
            self._bound.add(dim.text)
            self._line(f"_sc_d_{dim.text} = {size}")
            self._require(*self._limit_conditions(dim.text))

    def _bind_unless_bound(self, dim: str, size: str) -> None:
        """Bind a dim to the size of an axis where the block that binds it did not run."""
        with self._indented(f"if _sc_d_{dim} is None:"):
            self._line(f"_sc_d_{dim} = {size}")
            self._require(*self._limit_conditions(dim))
        self._bound.add(dim)

    def _is_free(self, dim: Dim) -> bool:
        """Tell whether a dim is named once in the whole contract, so that nothing can contradict it."""
        return self._uses[dim.text] == 1 and dim.text not in self._bound and dim.text not in self._limits

    def _axis_condition(self, dim: Dim, size: str) -> str:
        expected = self._size(dim)
        if self._symbolic:
            same = f"_sc_same({size}, {expected})"
            return f"(_sc_known({size} == 1) or {same})" if dim.broadcastable else same
        return f"({size} == 1 or {size} == {expected})" if dim.broadcastable else f"{size} == {expected}"

    def _limit_conditions(self, dim: str) -> list[str]:
        """Return expressions that are true only if a bound dim has a size that the project allows."""
        sizes, size = self._limits.get(dim), f"_sc_d_{dim}"
        if sizes is None:
            return []
        if isinstance(sizes, range):
            bounds = [f"{size} >= {sizes[0]}", f"{size} <= {sizes[-1]}"]
            steps = [f"({size} - {sizes[0]}) % {sizes.step} == 0"] if sizes.step > 1 else []
            return [f"_sc_holds({bound})" for bound in bounds + steps] if self._symbolic else bounds + steps
        same = [f"_sc_known({size} == {one})" if self._symbolic else f"{size} == {one}" for one in sorted(sizes)]
        return [f"({' or '.join(same)})"]

    def _size(self, dim: Dim) -> str:
        """Return an expression for the size that a dim must have."""
        if dim.kind == "fixed":
            return str(dim.size)
        if dim.kind == "named":
            return f"_sc_d_{dim.text}"
        text = BRACES.sub(lambda match: self._argument(match[1]), dim.text)
        tree = parse_expression(text)
        for node in ast.walk(tree):
            if _may_raise(node):
                raise NotCompilableError
            if isinstance(node, ast.Name) and node.id in dim.names:
                node.id = f"_sc_d_{node.id}"
        return f"({ast.unparse(tree)})"

    def _argument(self, expression: str) -> str:
        """Evaluate an expression in braces; a size that is no plain number is the reference engine's business."""
        size = self._evaluated(expression)
        self._require(f"type({size}) is int", f"{size} >= 0")
        return size

    def _evaluated(self, expression: str) -> str:
        """Evaluate an expression of the contract's author; one that raises is the reference engine's business."""
        if expression.isidentifier():
            return expression
        with self._doubting("Exception"):
            return self._assign(expression)

    def _variadic_axes(self, spec: TensorSpec, index: int, shape: str) -> None:
        after = len(spec.dims) - index - 1
        dim = spec.dims[index]
        fixed = [
            *enumerate(spec.dims[:index]),
            *((position - after, dim) for position, dim in enumerate(spec.dims[index + 1 :])),
        ]
        for position, axis in sorted(fixed, key=lambda item: item[1].kind != "named" or item[1].broadcastable):
            if axis.kind != "anonymous" and not (axis.kind == "named" and self._is_free(axis)):
                self._axis(axis, f"{shape}[{position}]")
        if dim.text and self._uses[dim.text] > 1:
            if dim.broadcastable:
                raise NotCompilableError
            run = f"{shape}[{index}:{f'-{after}' if after else ''}]"
            if dim.text in self._bound:
                self._require(
                    f"_sc_same_run(_sc_d_{dim.text}, {run})" if self._symbolic else f"_sc_d_{dim.text} == {run}"
                )
            else:
                self._line(f"_sc_d_{dim.text} = {run}")
                self._bound.add(dim.text)


def _binds(dim: Dim) -> bool:
    """Tell whether an axis gives its dim a size where nothing has before."""
    return dim.kind == "named" and not dim.broadcastable


def _may_raise(node: ast.AST) -> bool:
    """Tell whether an operation divides by, or raises to, something that is not a number other than 0."""
    if not isinstance(node, ast.BinOp) or not isinstance(node.op, (ast.Div, ast.FloorDiv, ast.Mod, ast.Pow)):
        return False
    return not (isinstance(node.right, ast.Constant) and bool(node.right.value))


def accepted_dtypes(specs: list[TensorSpec]) -> frozenset[Any] | None:
    """Return the dtype objects that some specs accept; None when they accept all."""
    library = specs[0].annotation.array_type.__module__.partition(".")[0]
    accepted = frozenset[Any]()
    for spec in specs:
        key = (library, spec.annotation.dtypes)
        if key not in _families:
            names = _dtype_names(library)
            _families[key] = frozenset(dtype for dtype, name in names.items() if spec.accepts_dtype(name))
        accepted = accepted | _families[key] if accepted else _families[key]
    return accepted if len(accepted) < len(_dtype_names(library)) else None


_families: dict[tuple[str, Any], frozenset[Any]] = {}  # shared by all contracts


@functools.cache
def _dtype_names(library: str) -> dict[Any, str]:
    """Return every dtype of a library with its name."""
    module = sys.modules[library]
    if library == "torch":
        dtypes = {value for value in vars(module).values() if isinstance(value, module.dtype)}
    elif library == "numpy":
        dtypes = {module.dtype(code) for code in module.typecodes["All"]}
    else:
        raise NotCompilableError
    return {dtype: str(dtype).rpartition(".")[2] for dtype in dtypes}


def never_both(one: TensorSpec, other: TensorSpec) -> bool:
    """Tell whether no array fits two specs, whatever sizes their dims have."""
    libraries = {spec.annotation.array_type.__module__.partition(".")[0] for spec in (one, other)}
    dtypes = [accepted_dtypes([spec]) for spec in (one, other)]
    return (
        libraries == {"torch", "numpy"}
        or (one.variadic is None is other.variadic and len(one.dims) != len(other.dims))
        or (dtypes[0] is not None and dtypes[1] is not None and not dtypes[0] & dtypes[1])
    )
