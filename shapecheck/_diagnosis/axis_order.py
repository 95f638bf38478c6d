"""Which orders of a tensor's axes satisfy a spec: a search whose cost is bounded, whatever the number of axes."""

from collections.abc import Sequence

from .._annotations.scope import Scope, Shape, align, ndim_fits, shape_mismatches
from .._annotations.spec import Dim, TensorSpec, symbolic_size

Order = tuple[int, ...]

_MOST_STEPS = 1_000  # five axes in any order need 325
_MOST_ORDERS = 24  # more than anybody would read


def fitting_orders(spec: TensorSpec, shape: Shape, scope: Scope) -> list[Order]:
    """Return the axis orders that satisfy a spec, one of each set that lays the same elements out in the same order.

    Axes of size 1 can stand anywhere without moving an element; of such equivalent orders that one is kept which
    moves the last axis to position 1, as in channel-last data, or else the first.

    Args:
        spec: What the axes must be.
        shape: Sizes, in the wrong order.
        scope: Dims that other values bind.
    """
    if not ndim_fits(spec, len(shape)):
        return []
    sizes = known_sizes(spec, len(shape), scope)
    if any(size is not None and size not in shape for size in sizes):
        return []
    found: list[Order] = []
    begun: list[Order] = [()]
    for _ in range(_MOST_STEPS):
        if not begun or len(found) == _MOST_ORDERS:
            break
        order = begun.pop()
        if len(order) < len(shape):
            begun += [(*order, axis) for axis in reversed(_next_axes(order, shape, sizes[len(order)]))]
        elif not shape_mismatches(spec, tuple(shape[axis] for axis in order), scope):
            found.append(_preferred(order, shape))
    return sorted(found, key=lambda order: (order != _last_forward(len(shape)), order))


def known_sizes(spec: TensorSpec, ndim: int, scope: Scope) -> list[int | None]:
    """Return the size that each of `ndim` axes must have, as far as it does not depend on the tensor itself."""
    sizes: list[int | None] = []
    for axes, dim in align(spec, ndim):
        if dim.kind == "variadic":
            broadcastable, run = scope.shapes.get(dim.text, (True, ()))
            known = len(run) == len(axes) and not broadcastable and not dim.broadcastable
            sizes += run if known else [None] * len(axes)
        else:
            sizes.append(_known_size(dim, scope))
    return sizes


def _known_size(dim: Dim, scope: Scope) -> int | None:
    if dim.broadcastable:
        return None
    if dim.kind == "fixed":
        return dim.size
    return symbolic_size(dim, scope.sizes, scope.arguments) if dim.kind == "symbolic" else scope.sizes.get(dim.text)


def _next_axes(order: Order, shape: Shape, size: int | None) -> list[int]:
    """Return the axes that may stand next; of several that have size 1 only the first."""
    axes: list[int] = []
    for axis in range(len(shape)):
        if axis in order or (size is not None and shape[axis] != size):
            continue
        if shape[axis] != 1 or all(shape[other] != 1 for other in axes):
            axes.append(axis)
    return axes


def _preferred(order: Order, shape: Shape) -> Order:
    forward = _last_forward(len(shape))
    return forward if _layout(forward, shape) == _layout(order, shape) else order


def _layout(order: Sequence[int], shape: Shape) -> tuple[list[int], list[int]]:
    """Return what tells apart orders that move elements: sizes, and where each axis that has any went."""
    return [shape[axis] for axis in order], [axis for axis in order if shape[axis] != 1]


def _last_forward(ndim: int) -> Order:
    """Return the order that moves the last axis to position 1: from channel-last to channel-first."""
    return (0, ndim - 1, *range(1, ndim - 1)) if ndim > 1 else (0,) * ndim


def are_channels_last(orders: Sequence[Order], spec: TensorSpec) -> bool:
    """Tell whether orders bring the last axis before at least two axes of any size, as between image layouts."""
    if not orders or len(orders[0]) < 3 or spec.variadic is not None:
        return False
    ndim = len(orders[0])
    channel = int(ndim > 3)  # its position, behind that of a batch
    images_kept = tuple(axis for axis in orders[0] if axis != ndim - 1) == tuple(range(ndim - 1))
    moved = all(order[: channel + 1] == (*range(channel), ndim - 1) for order in orders)
    return moved and images_kept and all(dim.kind != "fixed" for dim in spec.dims[channel + 1 :])
