"""Images moved by sub-pixel offsets, and the sums that put them back: the linear algebra under `helper`.

Owns three operators on plain stacks of real or complex images, with their derivatives; it knows no groups, probes or
contracts.

* `moved` reads a window of each image, its content moved: translation and extraction.
* `spread` and `stacked` are its adjoint in two steps, the second an `index_add_` of rows: merging.

Not `grid_sample`, which interpolates at coordinates normalised to -1..1: float32 leaves 1e-5 px of them at a side of
200, which the merge divides by weights near 0, and a complex image takes two passes. Here whole shifts are exact: a
window is one block of a framed copy of its image, found by one index, and all arithmetic is the two interpolations.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd import Function

__all__ = ["Window", "has_values", "moved", "spread", "stacked"]


class Window(NamedTuple):
    """What is read of an image while its content moves under it."""

    start: tuple[int, int]  # row and column of the image, at offset 0
    size: tuple[int, int]  # rows and columns
    reach: tuple[int, int]  # pixels along rows and columns; offsets are smaller, or what is read is not defined


def moved(images: Tensor, offsets: Tensor, window: Window) -> Tensor:
    """Read a window of each image, its content moved by +offset; zeros lie outside the images.

    Args:
        images: Stack (m, h, w), real or complex.
        offsets: Pixels, (x, y), (n, 2); n is a multiple of m, and each image is read n/m times in a row.
        window: What to read.

    Returns:
        Stack (n, rows, columns) of the window's size.
    """
    if not images.is_complex():
        return _applied(images, offsets, window, 1)
    return _as_complex(_applied(_as_pairs(images), offsets, window, 2))


def spread(
    stacks: Sequence[Tensor], offsets: Tensor, corner: tuple[int, int], width: int, reach: int
) -> tuple[list[Tensor], Tensor]:
    """Move images to their columns on a canvas and, along the rows, by the fraction of a pixel.

    Args:
        stacks: Each (n, h, w), real or complex, moved alike.
        offsets: Pixels, (x, y), (n, 2).
        corner: Row and column of the canvas where index [0, 0] lies at offset 0.
        width: Columns of the canvas.
        reach: Pixels along the columns; offsets are smaller.

    Returns:
        Stacks (n, h + 1, width), and the row of the canvas on which each image begins, (n,).
    """
    top = offsets[:, 1:].detach().floor()
    moves = torch.cat((offsets[:, :1], offsets[:, 1:] - top), dim=1)
    window = Window((0, -corner[1]), (stacks[0].shape[1] + 1, width), (1, reach))
    rows: list[Tensor] = []
    for images in stacks:
        rows.append(moved(images, moves, window))  # a comprehension would be a frame in tracebacks of some Pythons
    return rows, top.flatten().long() + corner[0]


def stacked(stacks: Sequence[Tensor], top: Tensor, canvases: int, height: int) -> list[Tensor]:
    """Add images up on their canvases; rows beyond a canvas are left out.

    Args:
        stacks: Each (n, h, width), real or complex, added up alike.
        top: The row of the canvas on which each image begins, (n,).
        canvases: How many, m; n is a multiple of it, and each canvas takes n/m images in a row.
        height: Rows of a canvas.

    Returns:
        Stacks (m, height, width).
    """
    framed = height + 2  # what lies beyond is added to a row before and one after, which nobody sees
    steps = torch.arange(1, stacks[0].shape[1] + 1, device=top.device)
    first = torch.arange(0, canvases * framed, framed, device=top.device)
    index = (
        first[:, None, None] + (top.view(canvases, -1)[:, :, None] + steps[None, None]).clamp(0, framed - 1)
    ).flatten()

    def added(rows: Tensor) -> Tensor:
        if rows.is_complex():
            return _as_complex(added(_as_pairs(rows)))
        sums = rows.new_zeros(canvases * framed, rows.shape[2]).index_add_(0, index, rows.flatten(0, 1))
        return sums.view(canvases, framed, -1).narrow(1, 1, height)

    return [added(rows) for rows in stacks]


def has_values(tensor: Tensor) -> bool:
    """Tell whether there are numbers to look at: not while compiling or exporting, nor in meta and fake tensors."""
    return not (torch.compiler.is_compiling() or tensor.is_meta or isinstance(tensor, FakeTensor))


def _as_pairs(images: Tensor) -> Tensor:
    return torch.view_as_real(images.resolve_conj()).flatten(2)


def _as_complex(pairs: Tensor) -> Tensor:
    return torch.view_as_complex(pairs.view(*pairs.shape[:2], -1, 2))


# --- real images, of one or (for complex ones) two numbers a pixel: `step` -------------------------------


def _applied(images: Tensor, offsets: Tensor, window: Window, step: int) -> Tensor:
    """`_moved`, with derivatives where they may be asked for: a Function takes longer than a small stack does."""
    if not torch.compiler.is_compiling():
        tracked = torch.is_grad_enabled() and (images.requires_grad or offsets.requires_grad)
        if tracked or is_functorch_wrapped_tensor(images) or is_functorch_wrapped_tensor(offsets):
            return _Moved.apply(images, offsets, window, step)
    return _moved(images, offsets, window, step)


def _moved(images: Tensor, offsets: Tensor, window: Window, step: int) -> Tensor:
    rows, width = window.size[0], window.size[1] * step
    whole = offsets.floor()
    x, y = offsets.sub(whole).view(offsets.shape[0], 2, 1, 1).unbind(1)
    # One name for all: what is no longer needed is freed at once, and its memory used again while the caches hold it.
    if torch.compiler.is_compiling():
        seen = _gathered(images, whole.long(), window, step)
    else:
        seen = _blocks(images, whole.long(), _margins(images, offsets, window, step), window, step)
    seen = torch.lerp(seen.narrow(1, 1, rows), seen.narrow(1, 0, rows), y)
    return torch.lerp(seen.narrow(2, step, width), seen.narrow(2, 0, width), x)


def _blocks(images: Tensor, whole: Tensor, margin: tuple[int, int], window: Window, step: int) -> Tensor:
    """Copy what the windows show at whole shifts, with the row and the column before, which interpolation mixes in."""
    framed, block, pitch = _framed(images, margin, step)
    first = (margin[0] + window.start[0] - 1) * pitch + (margin[1] + window.start[1] - 1) * step
    (m, *_), (n, *_) = images.shape, whole.shape
    index = torch.arange(first, first + m * block, block, device=whole.device)
    if n > m:
        index = index.repeat_interleave(n // m)
    column, row = whole.unbind(1)
    index = index.sub(column, alpha=step).sub(row, alpha=pitch)
    rows, width = window.size[0] + 1, (window.size[1] + 1) * step
    places = framed.shape[0] - (rows - 1) * pitch - width + 1
    index = index.clamp(0, places - 1)
    return framed.as_strided((places, rows, width), (1, pitch, 1)).index_select(0, index)  # of every block there is


def _gathered(images: Tensor, whole: Tensor, window: Window, step: int) -> Tensor:
    """The same pixel by pixel: what a compiler can take the derivative of, and fuses so that no index is written down."""
    m, h, w = images.shape[0], images.shape[1], images.shape[2] // step
    column, row = whole.view(m, -1, 2).unbind(2)  # (m, n/m)
    places = [
        torch.arange(-1, size, device=whole.device) + start - shift.unsqueeze(2)
        for start, size, shift in zip(window.start, window.size, (row, column), strict=True)
    ]
    rows, columns = places[0].unsqueeze(3), places[1].unsqueeze(2)
    image = torch.arange(m, device=whole.device).view(m, 1, 1, 1)
    pixels = images.view(m, h, w, step)[image, rows.clamp(0, h - 1), columns.clamp(0, w - 1)]
    inside = (rows >= 0) & (rows < h) & (columns >= 0) & (columns < w)
    return torch.where(inside.unsqueeze(4), pixels, 0.0).flatten(0, 1).flatten(2)  # (n, rows, columns * step)


def _margins(images: Tensor, offsets: Tensor, window: Window, step: int) -> tuple[int, int]:
    """Count the rows and columns of zeros that keep neighbours out of each other's windows."""
    sides = (images.shape[1], images.shape[2] // step)
    largest = math.inf
    if offsets.is_cpu and offsets.shape[0] and has_values(offsets):  # most are far smaller than they may be
        largest = offsets.abs().max().item()
    rows, columns = (
        max(0, far - start, start + far + size - side)
        for reach, start, size, side in zip(window.reach, window.start, window.size, sides, strict=True)
        for far in (int(largest) + 1 if largest < reach else reach,)
    )
    return rows, columns


def _framed(images: Tensor, margin: tuple[int, int], step: int) -> tuple[Tensor, int, int]:
    """Copy images one after the other, zeros before, between and after their rows and themselves.

    Returns:
        The copies, flat, and how far apart in them images and rows are.
    """
    m, height, width = images.shape
    pitch = width + margin[1] * step
    block = (height + margin[0]) * pitch
    before = margin[0] * pitch + margin[1] * step
    framed = images.new_zeros(m * block + before)
    framed.as_strided((m, height, width), (block, pitch, 1), before).copy_(images)
    return framed, block, pitch


class _Moved(Function):
    """`_moved` with derivatives; those of its own steps would take memory for every block there is."""

    @staticmethod
    def forward(images: Tensor, offsets: Tensor, window: Window, step: int) -> Tensor:
        return _moved(images, offsets, window, step)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        images, offsets, ctx.window, ctx.step = inputs
        ctx.save_for_backward(images, offsets)
        ctx.save_for_forward(images, offsets)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (grad,) = grad_outputs
        images, offsets = ctx.saved_tensors
        to_images = to_offsets = None
        if ctx.needs_input_grad[0]:
            to_images = _put_back(grad, offsets, images.shape, ctx.window, ctx.step)
        if ctx.needs_input_grad[1]:
            slopes = _slopes(images, offsets, ctx.window, ctx.step)
            to_offsets = torch.stack([(grad * slope).sum(dim=(1, 2)) for slope in slopes], dim=1)
        return to_images, to_offsets, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
        images, offsets = (
            (value.expand(info.batch_size, *value.shape) if dim is None else value.movedim(dim, 0)).flatten(0, 1)
            for value, dim in zip(args[:2], in_dims[:2], strict=True)
        )
        return _applied(images, offsets, *args[2:]).unflatten(0, (info.batch_size, -1)), 0

    @staticmethod
    def jvp(ctx: Any, *grad_inputs: Tensor | None) -> Tensor:
        images, offsets = ctx.saved_tensors
        images_tangent, offsets_tangent = grad_inputs[:2]
        changes: list[Tensor] = []
        if images_tangent is not None:
            changes.append(_applied(images_tangent, offsets, ctx.window, ctx.step))
        if offsets_tangent is not None:
            slopes = _slopes(images, offsets, ctx.window, ctx.step)
            tangents = offsets_tangent.view(-1, 2, 1, 1).unbind(1)
            changes += [slope * tangent for slope, tangent in zip(slopes, tangents, strict=True)]
        return torch.stack(changes).sum(dim=0)


def _put_back(grad: Tensor, offsets: Tensor, shape: torch.Size, window: Window, step: int) -> Tensor:
    """The adjoint of `_moved` in the images."""
    m, height, width = shape
    start_row, start_column = window.start
    if offsets.shape[0] == m:  # the adjoint of moving is moving back
        back = Window((-start_row, -start_column), (height, width // step), window.reach)
        return _applied(grad, -offsets, back, step)
    waves = grad if step == 1 else _as_complex(grad)
    (rows,), top = spread([waves], -offsets, window.start, width // step, window.reach[1])
    (canvases,) = stacked([rows], top, m, height)
    return canvases if step == 1 else _as_pairs(canvases)


def _slopes(images: Tensor, offsets: Tensor, window: Window, step: int) -> tuple[Tensor, Tensor]:
    """The derivatives of `_moved` in x and in y."""
    whole = offsets.detach().floor()
    x, y = (offsets - whole).view(-1, 2, 1, 1).unbind(1)
    (row, column), (rows, columns) = window.start, window.size
    around = _applied(images, whole, Window((row - 1, column - 1), (rows + 1, columns + 1), window.reach), step)
    between_rows = torch.lerp(around[:, 1:], around[:, :-1], y)
    between_columns = torch.lerp(around[:, :, step:], around[:, :, :-step], x)
    return between_rows[:, :, :-step] - between_rows[:, :, step:], between_columns[:, :-1] - between_columns[:, 1:]
