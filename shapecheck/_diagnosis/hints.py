"""What might cure a failed check: changes of the value, each with the Python that makes it. None of them is verified.

A changed tensor is a stand-in of the right class, dtype and shape (`_stand_in`). Conversions that lose something
nobody can want to lose unasked (an imaginary part, fractions, signs) are never proposed, nor is a change that would
put elements into other places than the axes say (``reshape``, ``view``).
"""

import ast
import dataclasses
import functools
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

from .._annotations.nodes import PlainNode
from .._annotations.scope import Scope, Shape, ndim_fits, shape_mismatches
from .._annotations.spec import TensorSpec
from .._render import dtype_name, is_array
from .._stand_in import Library, StandIn, array_class, class_after_change, is_numpy_scalar, library_of
from .._syntax import parse_expression
from ..errors import HintKind
from ..values import can_be_read
from .axis_order import are_channels_last, fitting_orders, known_sizes
from .engine import Failure, tensor_alternatives
from .facts import NUMBERS, is_sequence_of_arrays, wanted_sequence

_MOST_ALTERNATIVES = 4
_MODULES: dict[Library, str] = {"torch": "torch", "numpy": "np"}  # as everybody calls them
_RANKS = {"bool": 0, "uint": 1, "int": 2, "bfloat": 3, "float": 3, "complex": 4}  # nothing is lost on the way up
_USUAL_DTYPES = ("bool", "int64", "float32", "complex64", "float64", "complex128")
_COMPLEX_OF = {"float64": "complex128"}  # all others go with complex64
_NAMELESS = re.compile(r"^(return\b|yield\[\d+\])")


class Change(NamedTuple):
    """A changed value and the Python that makes it.

    Attributes:
        code: Expression, or assignment.
        value: The value, or a stand-in for it.
        view: Function that makes the value itself without copying an element, where there is one.
    """

    code: str
    value: Any
    view: Callable[[Any], Any] | None = None


class Proposal(NamedTuple):
    """Changes of one kind, each of which may be a cure."""

    kind: HintKind
    changes: list[Change]


@dataclasses.dataclass(frozen=True)
class _Draft:
    """An array of the declared class and dtype, as a stand-in: what is left to change is its shape.

    Attributes:
        value: The stand-in.
        code: Python that makes it, but for the dtype.
        kind: What was changed to get there; None if nothing was.
        cast: Conversion of the dtype, which comes last.
    """

    value: StandIn
    code: str
    kind: HintKind | None = None
    cast: str = ""


def proposals(failure: Failure) -> Iterator[Proposal]:
    """Yield what may cure a failure, the likeliest first."""
    name = _expression(failure.path)
    if name is None:
        return
    for node in tensor_alternatives(failure.node)[:_MOST_ALTERNATIVES]:
        draft = _as_array(failure.value, node.spec, name)
        cast_draft = draft and _cast(draft, node.spec)
        if cast_draft is not None:
            yield from _array_proposals(cast_draft, node.spec, failure.scope)
        elif draft is not None:
            yield from _real_part(draft, node.spec)
    for propose in (_as_number, _as_sequence, _with_key_renamed):
        yield from propose(failure, name)


def _expression(path: str) -> str | None:
    """Return Python for the value at a path; None when there is none, as for the key of a dict."""
    code = _NAMELESS.sub(lambda root: "result" if root[0] == "return" else "item", path)
    try:
        parse_expression(code)
    except SyntaxError:
        return None
    return code


# --- class and dtype ------------------------------------------------------------------------------
def _as_array(value: Any, spec: TensorSpec, name: str) -> _Draft | None:
    """Return a value as an array of the declared class."""
    if spec.accepts_array(value):
        if library_of(value) == "other":  # what its methods do, and take, is not known
            return None
        return _Draft(StandIn(class_after_change(value), value.dtype, value.shape), name)
    for library, module in _MODULES.items():
        kind = array_class(library)
        if kind is None or not spec.accepts_array(StandIn(kind, "", ())):
            continue
        if is_array(value) and library_of(value) != "other":
            return _from_numpy(value, name, kind) if library == "torch" else _to_numpy(value, name, kind)
        if isinstance(value, NUMBERS):
            return _from_number(value, spec, name, kind, module)
        if is_sequence_of_arrays(value):
            return _stacked(value, name, kind, module)
    return None


def _from_numpy(value: Any, name: str, kind: type) -> _Draft | None:
    dtype = dtype_name(value.dtype)
    if not value.dtype.isnative or not hasattr(sys.modules["torch"], dtype):
        return None
    copy = ".copy()" if any(stride < 0 for stride in value.strides) else ""
    code = f"torch.tensor({name})" if is_numpy_scalar(value) else f"torch.from_numpy({name}{copy})"
    return _Draft(StandIn(kind, dtype, value.shape), code, "from-numpy")


def _to_numpy(value: Any, name: str, kind: type) -> _Draft | None:
    dtype = dtype_name(value.dtype)
    if is_numpy_scalar(value):
        return _Draft(StandIn(kind, dtype, ()), f"np.array({name})", "to-numpy")
    if library_of(value) != "torch" or not can_be_read(value) or str(value.layout) != "torch.strided":
        return None
    if not hasattr(sys.modules["numpy"], dtype):
        return None
    plain = value.device.type == "cpu" and not value.requires_grad
    resolved = ".resolve_conj()" if value.is_conj() else ".resolve_neg()" if value.is_neg() else ""
    code = f"{name}{'' if plain else '.detach().cpu()'}{resolved}.numpy()"
    return _Draft(StandIn(kind, dtype, value.shape), code, "to-numpy")


def _stacked(items: Sequence[Any], name: str, kind: type, module: str) -> _Draft | None:
    first = items[0]
    if not all(isinstance(item, kind) and item.dtype == first.dtype and item.shape == first.shape for item in items):
        return None
    return _Draft(StandIn(kind, first.dtype, (len(items), *first.shape)), f"{module}.stack({name})", "stack")


def _from_number(value: Any, spec: TensorSpec, name: str, kind: type, module: str) -> _Draft | None:
    number = next(number for number in NUMBERS if isinstance(value, number))
    default = {bool: "bool", int: "int64", float: "float64", complex: "complex128"}[number]
    function, library = ("array", sys.modules["numpy"]) if module == "np" else ("tensor", sys.modules["torch"])
    if module == "torch" and number in {float, complex}:
        usual = dtype_name(library.get_default_dtype())
        default = usual if number is float else _COMPLEX_OF.get(usual, "complex64")
    dtype = _target_dtype(default, spec, library)
    if dtype is None:
        return None
    argument = "" if dtype == default else f", dtype={module}.{dtype}"
    return _Draft(StandIn(kind, dtype, ()), f"{module}.{function}({name}{argument})", "tensor")


def _cast(draft: _Draft, spec: TensorSpec) -> _Draft | None:
    """Return an array with an accepted dtype; None when that would lose something."""
    dtype = dtype_name(draft.value.dtype)
    if spec.accepts_dtype(dtype):
        return draft
    library = library_of(draft.value)
    target = None if library == "other" else _target_dtype(dtype, spec, sys.modules[library])
    if target is None:
        return None
    cast_code = f".to(torch.{target})" if library == "torch" else f".astype(np.{target})"
    value = StandIn(draft.value.__class__, target, draft.value.shape)
    return dataclasses.replace(draft, value=value, cast=cast_code, kind=draft.kind or "cast")


def _target_dtype(dtype: str, spec: TensorSpec, library: Any) -> str | None:
    """Return the dtype that an array can be converted to without losing more than precision."""
    declared: Any = spec.annotation.dtypes
    exact = (
        [name for name in cast("Sequence[Any]", declared) if isinstance(name, str)]
        if isinstance(declared, tuple)
        else []
    )
    candidates = [dtype, _COMPLEX_OF.get(dtype, dtype), *_USUAL_DTYPES, *exact]
    fitting = (name for name in candidates if spec.accepts_dtype(name) and hasattr(library, name))
    return next((name for name in fitting if _rank(name) >= _rank(dtype)), None)


def _rank(dtype: str) -> int:
    return _RANKS.get(re.split(r"\d", dtype)[0], len(_RANKS))


def _real_part(draft: _Draft, spec: TensorSpec) -> Iterator[Proposal]:
    """Propose to decide what a complex tensor should be as a real one; only its user can."""
    precise = dtype_name(draft.value.dtype) == "complex128"
    dtypes = [name for name in ("float64", "float32")[:: 1 if precise else -1] if spec.accepts_dtype(name)]
    if dtype_name(draft.value.dtype).startswith("complex") and dtypes:
        yield Proposal("complex-to-real", [Change("", StandIn(draft.value.__class__, dtypes[0], draft.value.shape))])


# --- shape ----------------------------------------------------------------------------------------
class _Step(NamedTuple):
    """A change of shape: Python with a place for the tensor, and the shape after it."""

    template: str
    shape: Shape


_Steps = tuple[HintKind, list[_Step]]


def _array_proposals(draft: _Draft, spec: TensorSpec, scope: Scope) -> Iterator[Proposal]:
    """Propose an array as it is after its class and dtype were changed, and then with its axes changed too."""
    value = draft.value
    if draft.kind is not None:
        yield Proposal(draft.kind, [Change(draft.code + draft.cast, value)])
    if draft.kind == "tensor":  # a number has no axes that could be wrong
        return
    for find in (_permuted, _unsqueezed, _unflattened, _squeezed, _flattened):
        kind, steps = find(spec, value.shape, scope, library_of(value) == "torch")
        if steps:
            yield Proposal(kind, [_change(draft, step) for step in steps])


def _change(draft: _Draft, step: _Step) -> Change:
    value = StandIn(draft.value.__class__, draft.value.dtype, step.shape)
    code = step.template.format(draft.code) + draft.cast
    return Change(code, value, functools.partial(_viewed, step.template) if draft.kind is None else None)


def _viewed(template: str, array: Any) -> Any:
    return eval(template.format("array"), {"array": array, "np": sys.modules.get("numpy")})  # written in this module


def _permuted(spec: TensorSpec, shape: Shape, scope: Scope, torch: bool) -> _Steps:
    orders = fitting_orders(spec, shape, scope)
    kind = "channels-last" if are_channels_last(orders, spec) else "permute"
    method = "permute" if torch else "transpose"
    return kind, [
        _Step(f"{{}}.{method}({', '.join(map(str, order))})", tuple(shape[axis] for axis in order)) for order in orders
    ]


def _unsqueezed(spec: TensorSpec, shape: Shape, scope: Scope, torch: bool) -> _Steps:
    steps: dict[int, _Step] = {}
    for axis in () if ndim_fits(spec, len(shape)) else range(len(shape) + 1):
        wider = (*shape[:axis], 1, *shape[axis:])
        seen = any(step.shape == wider for step in steps.values())  # beside another axis of size 1
        if not seen and not shape_mismatches(spec, wider, scope):
            steps[axis] = _Step(f"{{}}.unsqueeze({axis})" if torch else f"np.expand_dims({{}}, {axis})", wider)
    is_batch = list(steps) == [0] and spec.dims[0].kind == "named"
    return "batch" if is_batch else "unsqueeze", list(steps.values())


def _squeezed(spec: TensorSpec, shape: Shape, scope: Scope, torch: bool) -> _Steps:
    del torch
    steps: list[_Step] = []
    for axis in () if ndim_fits(spec, len(shape)) else range(len(shape)):
        rest = shape[:axis] + shape[axis + 1 :]
        seen = any(step.shape == rest for step in steps)
        if shape[axis] == 1 and not seen and not shape_mismatches(spec, rest, scope):
            steps.append(_Step(f"{{}}.squeeze({axis})", rest))
    return "squeeze", steps


def _unflattened(spec: TensorSpec, shape: Shape, scope: Scope, torch: bool) -> _Steps:
    """Split an axis in two of which the contract knows at least one."""
    if not torch or spec.variadic is not None or len(spec.dims) != len(shape) + 1:
        return "unflatten", []
    known = known_sizes(spec, len(spec.dims), scope)
    steps: list[_Step] = []
    for axis, size in enumerate(shape):
        parts = _factors(size, known[axis], known[axis + 1])
        split = (*shape[:axis], *(parts or ()), *shape[axis + 1 :])
        if parts and not shape_mismatches(spec, split, scope):
            steps.append(_Step(f"{{}}.unflatten({axis}, ({parts[0]}, {parts[1]}))", split))
    return "unflatten", steps


def _factors(size: int, first: int | None, second: int | None) -> tuple[int, int] | None:
    """Return two sizes greater than 1, at least one of them known, whose product is `size`."""
    known = first or second
    if not known or size % known:
        return None
    parts = (known, size // known) if first else (size // known, known)
    return parts if min(parts) > 1 and (not first or not second or parts[1] == second) else None


def _flattened(spec: TensorSpec, shape: Shape, scope: Scope, torch: bool) -> _Steps:
    """Merge two axes into one whose size the contract knows."""
    if not torch or spec.variadic is not None or len(spec.dims) != len(shape) - 1:
        return "flatten", []
    known = known_sizes(spec, len(spec.dims), scope)
    steps: list[_Step] = []
    for axis in range(len(shape) - 1):
        merged = shape[axis] * shape[axis + 1]
        rest = (*shape[:axis], merged, *shape[axis + 2 :])
        if min(shape[axis : axis + 2]) > 1 and known[axis] == merged and not shape_mismatches(spec, rest, scope):
            steps.append(_Step(f"{{}}.flatten({axis}, {axis + 1})", rest))
    return "flatten", steps


# --- other values ---------------------------------------------------------------------------------
def _as_number(failure: Failure, name: str) -> Iterator[Proposal]:
    value, node = failure.value, failure.node
    if isinstance(node, PlainNode) and is_array(value) and tuple(value.shape) == ():
        number = (False, 0, 0, 0.0, 0j, None)[_rank(dtype_name(value.dtype))]
        if number is not None:
            yield Proposal("item", [Change(f"{name}.item()", number)])


def _as_sequence(failure: Failure, name: str) -> Iterator[Proposal]:
    wanted = wanted_sequence(failure)
    if wanted is not None:
        yield Proposal("sequence", [Change(f"{wanted.__name__}({name})", wanted(failure.value))])


def _with_key_renamed(failure: Failure, name: str) -> Iterator[Proposal]:
    """Propose to rename the one key that is not declared, if one is missing and looks like it."""
    missing = [mismatch for mismatch in failure.mismatches if mismatch.kind == "missing-key"]
    extra = [mismatch for mismatch in failure.mismatches if mismatch.kind == "extra-key"]
    if len(missing) != 1 or len(extra) != 1 or missing[0].got != extra[0].got:
        return
    new, old = missing[0].expected, extra[0].got
    renamed = {
        (ast.literal_eval(parse_expression(new)) if repr(key) == old else key): item
        for key, item in failure.value.items()
    }
    yield Proposal("rename-key", [Change(f"{name}[{new}] = {name}.pop({old})", renamed)])
