"""What a failed check says about a value: the bare differences made into facts that name the axis and the confusion."""

import dataclasses
from typing import Any

from .._annotations.nodes import PlainNode, SequenceNode, TensorNode, TupleNode, UnionNode
from .._annotations.scope import Scope, Shape, align, shape_mismatches
from .._annotations.spec import Dim, TensorSpec
from .._render import is_array
from .._stand_in import library_of
from ..errors import Binding, Mismatch, MismatchKind
from .engine import Failure, tensor_alternatives

NUMBERS = (bool, int, float, complex)
_REAL_DTYPES = ("bool", "int32", "int64", "float16", "bfloat16", "float32", "float64")
_COMPLEX_DTYPES = ("complex64", "complex128")

_ID_OF_MISMATCH = {"axis": "axis-size", "repeated-dim": "axis-size", "array-kind": "type"}


def facts_of(failure: Failure) -> tuple[Mismatch, ...]:
    """Return what differs, in terms of what was probably confused."""
    return tuple(_fact(failure, mismatch) for mismatch in failure.mismatches)


def id_of(mismatch: Mismatch) -> str:
    """Return the id of the diagnosis that a fact stands for."""
    if mismatch.kind in {"axis", "repeated-dim"} and mismatch.got == "0":
        return "empty"
    if mismatch.kind == "axis" and _is_tied(mismatch):
        return "tied-dim"
    return _ID_OF_MISMATCH.get(mismatch.kind, mismatch.kind)


def _is_tied(mismatch: Mismatch) -> bool:
    """Tell whether a size comes from the arguments of the call: by a tie, or by an expression in braces."""
    return mismatch.expected.startswith("{") or (mismatch.binding is not None and mismatch.binding.axis is None)


def _fact(failure: Failure, mismatch: Mismatch) -> Mismatch:
    if mismatch.kind in {"array-kind", "type"}:
        return dataclasses.replace(mismatch, kind=_confusion(failure, mismatch.kind))
    node = _node_of(failure, mismatch)
    if node is None:
        return mismatch
    if mismatch.kind == "dtype":
        return dataclasses.replace(mismatch, kind=_dtype_confusion(node.spec, mismatch.got))
    return _shape_fact(failure, mismatch, node.spec)


def _node_of(failure: Failure, mismatch: Mismatch) -> TensorNode | None:
    """Return the annotated tensor that a fact is about: of a union, the alternative that it names."""
    nodes = tensor_alternatives(failure.node)
    if isinstance(failure.node, UnionNode):
        nodes = [node for node in nodes if node.text == mismatch.alternative]
    return nodes[0] if nodes else None


# --- types and dtypes -----------------------------------------------------------------------------
def _confusion(failure: Failure, kind: MismatchKind) -> MismatchKind:
    """Tell which types were confused."""
    value, node = failure.value, failure.node
    if value is None:
        return "none"
    if isinstance(node, TensorNode):
        if library_of(value) != "other" and is_array(value):
            return "library" if library_of(value) != _library_of_spec(node.spec) else kind
        if isinstance(value, NUMBERS):
            return "number-for-tensor"
        return "not-stacked" if is_sequence_of_arrays(value) else kind
    if isinstance(node, PlainNode) and node.hint in NUMBERS and is_array(value):
        return "tensor-for-number"
    return "sequence-type" if wanted_sequence(failure) else kind


def _library_of_spec(spec: TensorSpec) -> str:
    return str(getattr(spec.annotation.array_type, "__module__", "")).partition(".")[0]


def is_sequence_of_arrays(value: Any) -> bool:
    """Tell whether a value is a list or a tuple of at least one array, and of nothing else."""
    return type(value) in {list, tuple} and len(value) > 0 and all(map(is_array, value))


def wanted_sequence(failure: Failure) -> type | None:
    """Return `tuple` where a list is given instead of one, `list` the other way round; None for any other failure."""
    value, node = failure.value, failure.node
    if isinstance(value, list) and (isinstance(node, TupleNode) or getattr(node, "kind", None) is tuple):
        return tuple
    return list if isinstance(value, tuple) and isinstance(node, SequenceNode) and node.kind is list else None


def _dtype_confusion(spec: TensorSpec, dtype: str) -> MismatchKind:
    if dtype.startswith("complex"):
        return "dtype" if any(map(spec.accepts_dtype, _COMPLEX_DTYPES)) else "complex-for-real"
    takes_real = any(map(spec.accepts_dtype, _REAL_DTYPES)) or not any(map(spec.accepts_dtype, _COMPLEX_DTYPES))
    return "dtype" if takes_real or dtype not in _REAL_DTYPES else "real-for-complex"


# --- axes -----------------------------------------------------------------------------------------
def _shape_fact(failure: Failure, mismatch: Mismatch, spec: TensorSpec) -> Mismatch:
    if mismatch.kind == "ndim":
        return _ndim_fact(mismatch, spec, tuple(failure.value.shape), failure.scope)
    if mismatch.kind == "reference":
        return _broadcast_fact(mismatch, spec, tuple(failure.value.shape), failure.scope)
    if mismatch.kind == "axis" and mismatch.binding is None and mismatch.axis is not None:
        return _repeated(mismatch, mismatch.axis, spec, tuple(failure.value.shape), failure.path)
    return mismatch


def _ndim_fact(mismatch: Mismatch, spec: TensorSpec, shape: Shape, scope: Scope) -> Mismatch:
    """Name the axis that is missing or one too many, if the others fit without it and it can be only one."""
    if spec.variadic is not None or abs(len(shape) - len(spec.dims)) != 1:
        return mismatch
    if len(shape) > len(spec.dims):
        axes = _axes_too_many(spec, shape, scope)
        return dataclasses.replace(mismatch, kind="extra-axis", axis=axes[0]) if len(axes) == 1 else mismatch
    axes = [axis for axis in range(len(spec.dims)) if not shape_mismatches(_without(spec, axis), shape, scope)]
    if len(axes) != 1:
        return mismatch
    dim = spec.dims[axes[0]]
    kind = "missing-batch" if axes[0] == 0 and dim.kind == "named" else "missing-axis"
    return dataclasses.replace(mismatch, kind=kind, axis=axes[0], binding=_missing(dim, scope))


def _axes_too_many(spec: TensorSpec, shape: Shape, scope: Scope) -> list[int]:
    """Return the axes without which a shape fits: those of size 1, if any; one of each that leave the same shape."""
    rests = {shape[:axis] + shape[axis + 1 :]: axis for axis in reversed(range(len(shape)))}
    axes = sorted(axis for rest, axis in rests.items() if not shape_mismatches(spec, rest, scope))
    return [axis for axis in axes if shape[axis] == 1] or axes


def _without(spec: TensorSpec, axis: int) -> TensorSpec:
    return dataclasses.replace(spec, dims=spec.dims[:axis] + spec.dims[axis + 1 :])


def _missing(dim: Dim, scope: Scope) -> Binding | None:
    return scope.origins.get(dim.text) if dim.kind == "named" else None


def _broadcast_fact(mismatch: Mismatch, spec: TensorSpec, shape: Shape, scope: Scope) -> Mismatch:
    """Name the run of axes that does not broadcast with what others have bound."""
    for axes, dim in align(spec, len(shape)):
        if dim.kind == "variadic" and dim.text in scope.shapes:
            expected = f"what broadcasts with *{dim.text}={tuple(scope.shapes[dim.text][1])}"
            got = str(shape[axes.start : axes.stop])
            return Mismatch("axis", got, expected, axes.start, scope.origins.get(dim.text), mismatch.alternative)
    return mismatch


def _repeated(mismatch: Mismatch, axis: int, spec: TensorSpec, shape: Shape, path: str) -> Mismatch:
    """Name the axis of the same tensor that an axis contradicts, where both stand for one dim."""
    aligned = [(axes.start, dim) for axes, dim in align(spec, len(shape)) if dim.kind == "named"]
    name = next((dim.text for start, dim in aligned if start == axis), None)
    others = [start for start, dim in aligned if dim.text == name and shape[start] != shape[axis]]
    if not others:
        return mismatch
    return dataclasses.replace(
        mismatch, kind="repeated-dim", binding=Binding(str(name), shape[others[0]], path, others[0])
    )
