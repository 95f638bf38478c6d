"""The dims bound so far in one call, who bound them, and what a shape would contradict.

A scope is an ordinary local object: nothing is kept per thread, so calls can suspend, nest and run in parallel.
"""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from ..axes import Sizes, describe_sizes
from ..errors import Binding, Mismatch
from .spec import Dim, TensorSpec, symbolic_size

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Scope:
    """Bindings of one call.

    Attributes:
        arguments: The call's arguments by name, for axes such as ``{self.dim}``.
        sizes: Single dims by name.
        shapes: Variadic dims by name: whether bound by a broadcastable tensor, and the sizes.
        origins: Who bound each dim.
        limits: The sizes that dims may have, where the project's registry limits them.
    """

    arguments: Mapping[str, Any]
    sizes: Mapping[str, int] = dataclasses.field(default_factory=dict[str, int])
    shapes: Mapping[str, tuple[bool, Shape]] = dataclasses.field(default_factory=dict[str, tuple[bool, Shape]])
    origins: Mapping[str, Binding] = dataclasses.field(default_factory=dict[str, Binding])
    limits: Mapping[str, Sizes] = dataclasses.field(default_factory=dict[str, Sizes])

    def tie(self, dim: str, size: int | Shape, expression: str) -> "Scope":
        """Bind a dim, single or variadic, to the value of an expression."""
        origins = {**self.origins, dim: Binding(dim, size, expression, axis=None)}
        if isinstance(size, tuple):
            return dataclasses.replace(self, shapes={**self.shapes, dim: (False, size)}, origins=origins)
        return dataclasses.replace(self, sizes={**self.sizes, dim: size}, origins=origins)

    def keeping(self, dims: Collection[str]) -> "Scope":
        """Return a scope in which nothing but some single dims is bound."""
        sizes = {dim: size for dim, size in self.sizes.items() if dim in dims}
        origins = {dim: origin for dim, origin in self.origins.items() if dim in dims}
        return dataclasses.replace(self, sizes=sizes, shapes={}, origins=origins)

    def extend(
        self,
        sizes: Mapping[str, int],
        shapes: Mapping[str, tuple[bool, Shape]],
        spec: TensorSpec,
        shape: Shape,
        path: str,
    ) -> "Scope":
        """Return the scope after a tensor at `path` was accepted and left these sizes and shapes bound."""
        if len(sizes) == len(self.sizes) and shapes == self.shapes:
            return self
        origins = dict(self.origins)
        for axes, dim in align(spec, len(shape)):
            if dim.kind in {"named", "variadic"} and dim.text not in origins and dim.text in {*sizes, *shapes}:
                size = sizes[dim.text] if dim.kind == "named" else shapes[dim.text][1]
                origins[dim.text] = Binding(dim.text, size, path, axes.start)
        return dataclasses.replace(self, sizes=sizes, shapes=shapes, origins=origins)

    def bindings_of(self, spec: TensorSpec) -> tuple[Binding, ...]:
        """Return the bound dims that a spec mentions, in the order of their axes."""
        names = [name for dim in spec.dims for name in ([dim.text] if dim.kind != "symbolic" else sorted(dim.names))]
        return tuple(self.origins[name] for name in dict.fromkeys(names) if name in self.origins)


def align(spec: TensorSpec, ndim: int) -> list[tuple[range, Dim]]:
    """Assign the axes of a tensor with `ndim` axes to the dims of a spec; `ndim` must fit."""
    if spec.variadic is None:
        return [(range(axis, axis + 1), dim) for axis, dim in enumerate(spec.dims)]
    extra = ndim - len(spec.dims)
    aligned: list[tuple[range, Dim]] = []
    for index, dim in enumerate(spec.dims):
        start = index if index <= spec.variadic else index + extra
        stop = start + (extra if index == spec.variadic else 0) + 1
        aligned.append((range(start, stop), dim))
    return aligned


def ndim_fits(spec: TensorSpec, ndim: int) -> bool:
    """Tell whether a tensor with `ndim` axes can be aligned with a spec."""
    return ndim == len(spec.dims) if spec.variadic is None else ndim >= len(spec.dims) - 1


def own_sizes(spec: TensorSpec, shape: Shape, scope: Scope) -> dict[str, int]:
    """Return the sizes of a scope and those that a tensor itself would bind, whatever the order of its axes."""
    sizes = dict(scope.sizes)
    for axes, dim in align(spec, len(shape)) if ndim_fits(spec, len(shape)) else ():
        if dim.kind == "named" and not dim.broadcastable:
            sizes.setdefault(dim.text, shape[axes.start])
    return sizes


def shape_mismatches(spec: TensorSpec, shape: Shape, scope: Scope) -> list[Mismatch]:
    """Compare a shape with a spec, given the dims that other tensors have bound."""
    if not ndim_fits(spec, len(shape)):
        least = "" if spec.variadic is None else "at least "
        return [Mismatch("ndim", str(len(shape)), f"{least}{len(spec.dims) - (spec.variadic is not None)}")]
    sizes = own_sizes(spec, shape, scope)
    mismatches: list[Mismatch] = []
    for axes, dim in align(spec, len(shape)):
        got = shape[axes.start : axes.stop]
        mismatch = _compare_variadic(dim, axes, got, scope) if dim.kind == "variadic" else None
        if dim.kind not in {"variadic", "anonymous"}:
            mismatch = _compare_axis(dim, axes.start, got[0], sizes, scope)
        if mismatch is not None:
            mismatches.append(mismatch)
    return mismatches or limit_mismatches(spec, shape, scope)


def limit_mismatches(spec: TensorSpec, shape: Shape, scope: Scope) -> list[Mismatch]:
    """Compare a shape that a spec can be aligned with to the sizes that the project allows."""
    if scope.limits.keys().isdisjoint(spec.bound):
        return []
    return [
        Mismatch(
            "axis-range", str(shape[axes.start]), f"{dim.text}={describe_sizes(scope.limits[dim.text])}", axes.start
        )
        for axes, dim in align(spec, len(shape))
        if dim.kind == "named" and dim.text in scope.limits and not _is_allowed(dim, shape[axes.start], scope)
    ]


def _is_allowed(dim: Dim, size: int, scope: Scope) -> bool:
    return size in scope.limits[dim.text] or (dim.broadcastable and size == 1)


def _compare_axis(dim: Dim, axis: int, got: int, sizes: dict[str, int], scope: Scope) -> Mismatch | None:
    if dim.broadcastable and got == 1:
        return None
    if dim.kind == "fixed":
        return None if got == dim.size else Mismatch("axis", str(got), str(dim.size), axis)
    if dim.kind == "symbolic":
        expected = symbolic_size(dim, sizes, scope.arguments)
        if expected is None or got == expected:
            return None
        return Mismatch("axis", str(got), f"{dim.text}={expected}", axis)
    expected = sizes.setdefault(dim.text, got)  # a broadcastable dim binds too, unless its size is 1
    if got == expected:
        return None
    return Mismatch("axis", str(got), f"{dim.text}={expected}", axis, scope.origins.get(dim.text))


def _compare_variadic(dim: Dim, axes: range, got: Shape, scope: Scope) -> Mismatch | None:
    """Compare exactly when neither side may broadcast; the rest is left to the reference engine."""
    broadcastable, expected = scope.shapes.get(dim.text, (True, ()))
    if not dim.text or broadcastable or dim.broadcastable or got == expected:
        return None
    return Mismatch("axis", str(got), f"*{dim.text}={expected}", axes.start, scope.origins.get(dim.text))
