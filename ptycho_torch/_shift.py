"""Images moved by sub-pixel offsets, and the sums that put them back: the linear algebra under `helper`.

Owns three operators on plain stacks of real or complex images, with their derivatives; it knows no groups, probes or
contracts.

* `moved` reads a window of each image, its content moved: translation and extraction.
* `spread` and `stacked` are its adjoint in two steps, the second an `index_add_` of rows: merging.

Not `grid_sample`, which interpolates at coordinates normalised to -1..1: float32 leaves 1e-5 px of them at a side of
200, which the merge divides by weights near 0, and a complex image takes two passes. Here whole shifts are exact: a
window is one block of a framed copy of its image, found by one index, and all arithmetic is the two interpolations.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd import Function

__all__ = ["Window", "has_values", "moved", "reach_of", "spread", "stacked"]


class Window(NamedTuple):
    """What is read of an image while its content moves under it."""

    start: tuple[int, int]  # row and column of the image, at offset 0
    size: tuple[int, int]  # rows and columns
    reach: tuple[int, int]  # pixels along rows and columns; offsets are smaller, or what is read is not defined


class _Frame(NamedTuple):
    """How images lie one after the other, zeros before, between and after their rows and themselves; all in pixels."""

    n_images: int
    rows: int  # of zeros between images
    columns: int  # of zeros between rows
    pitch: int  # from a row to the next
    block: int  # from an image to the next

    @property
    def n_pixels(self) -> int:
        return self.n_images * self.block + self.rows * self.pitch + self.columns


def moved(images: Tensor, offsets: Tensor, window: Window) -> Tensor:
    """Read a window of each image, its content moved by +offset; zeros lie outside the images.

    Args:
        images: Stack (m, h, w), real or complex.
        offsets: Pixels, (x, y), (n, 2); n is a multiple of m, and each image is read n/m times in a row.
        window: What to read.

    Returns:
        Stack (n, rows, columns) of the window's size.
    """
    return _moved_alike([images], offsets, window)[0]


def reach_of(offsets: Tensor, most: int) -> int:
    """Return a whole number of pixels that all offsets are smaller than, which costs a look at them.

    Args:
        offsets: Pixels.
        most: What they are smaller than in any case; returned where they cannot be looked at, or not cheaply.
    """
    if not (offsets.is_cpu and offsets.numel() and has_values(offsets)) or is_functorch_wrapped_tensor(offsets):
        return most
    largest = offsets.detach().abs().max().item()
    return int(largest) + 1 if largest < most else most  # so for NaN


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
    return _moved_alike(stacks, moves, window), top.flatten().long() + corner[0]


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


def _moved_alike(stacks: Sequence[Tensor], offsets: Tensor, window: Window) -> list[Tensor]:
    """Move stacks of the same sides by the same offsets; where they begin is then reckoned once."""
    steps = [1 + images.is_complex() for images in stacks]
    parts = [_as_pairs(images) if images.is_complex() else images for images in stacks]
    if not torch.compiler.is_compiling() and any(_may_be_differentiated(part, offsets) for part in parts):
        results = [_applied(part, offsets, window, step) for part, step in zip(parts, steps, strict=True)]
    else:
        results = _moved(parts, steps, offsets, window)
    return [_as_complex(result) if step == 2 else result for result, step in zip(results, steps, strict=True)]


def _as_pairs(images: Tensor) -> Tensor:
    return torch.view_as_real(images.resolve_conj()).flatten(2)


def _as_complex(pairs: Tensor) -> Tensor:
    return torch.view_as_complex(pairs.view(*pairs.shape[:2], -1, 2))


# --- real images, of one or (for complex ones) two numbers a pixel: `step` -------------------------------


def _applied(images: Tensor, offsets: Tensor, window: Window, step: int) -> Tensor:
    """Move one stack, with derivatives where they may be asked for."""
    if not torch.compiler.is_compiling() and _may_be_differentiated(images, offsets):
        return _Moved.apply(images, offsets, window, step)
    return _moved([images], [step], offsets, window)[0]


def _may_be_differentiated(images: Tensor, offsets: Tensor) -> bool:
    """Tell whether derivatives may be asked for; a Function takes longer than a small stack does."""
    tracked = torch.is_grad_enabled() and (images.requires_grad or offsets.requires_grad)
    return tracked or is_functorch_wrapped_tensor(images) or is_functorch_wrapped_tensor(offsets)


def _moved(stacks: Sequence[Tensor], steps: Sequence[int], offsets: Tensor, window: Window) -> list[Tensor]:
    whole = offsets.floor()
    x, y = offsets.sub(whole).view(offsets.shape[0], 2, 1, 1).unbind(1)
    frame = None if torch.compiler.is_compiling() else _frame(stacks[0], window, steps[0])
    where = whole.long() if frame is None else _places(whole.long(), frame, window)
    results: list[Tensor] = []
    for images, step in zip(stacks, steps, strict=True):
        rows, width = window.size[0], window.size[1] * step
        # One name for all: what is no longer needed is freed at once, and its memory used while the caches hold it.
        seen = _gathered(images, where, window, step) if frame is None else _blocks(images, where, frame, window, step)
        seen = torch.lerp(seen.narrow(1, 1, rows), seen.narrow(1, 0, rows), y)
        results.append(torch.lerp(seen.narrow(2, step, width), seen.narrow(2, 0, width), x))
    return results


def _frame(images: Tensor, window: Window, step: int) -> _Frame:
    """Return a frame whose zeros keep neighbours out of each other's windows."""
    n_images, height, width = images.shape[0], images.shape[1], images.shape[2] // step
    rows, columns = (
        max(0, far - start, start + far + size - side)
        for far, start, size, side in zip(window.reach, window.start, window.size, (height, width), strict=True)
    )
    pitch = width + columns
    return _Frame(n_images, rows, columns, pitch, (height + rows) * pitch)


def _places(whole: Tensor, frame: _Frame, window: Window) -> Tensor:
    """Return where in framed images the windows begin, one row and one column early, in pixels."""
    first = (frame.rows + window.start[0] - 1) * frame.pitch + frame.columns + window.start[1] - 1
    index = torch.arange(first, first + frame.n_images * frame.block, frame.block, device=whole.device)
    if len(whole) > frame.n_images:
        index = index.repeat_interleave(len(whole) // frame.n_images)
    column, row = whole.unbind(1)
    last = frame.n_pixels - window.size[0] * frame.pitch - window.size[1] - 1
    return index.sub(column).sub(row, alpha=frame.pitch).clamp(0, last)


def _blocks(images: Tensor, index: Tensor, frame: _Frame, window: Window, step: int) -> Tensor:
    """Copy what the windows show at whole shifts, with the row and the column before, which interpolation mixes in."""
    framed = images.new_zeros(frame.n_pixels * step)
    inner = (frame.rows * frame.pitch + frame.columns) * step
    framed.as_strided(images.shape, (frame.block * step, frame.pitch * step, 1), inner).copy_(images)
    rows, width = window.size[0] + 1, (window.size[1] + 1) * step
    places = framed.shape[0] - (rows - 1) * frame.pitch * step - width + 1
    blocks = framed.as_strided((places, rows, width), (1, frame.pitch * step, 1))  # every one there is
    return blocks.index_select(0, index if step == 1 else index * step)


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


class _Moved(Function):
    """`_moved` with derivatives; those of its own steps would take memory for every block there is."""

    @staticmethod
    def forward(images: Tensor, offsets: Tensor, window: Window, step: int) -> Tensor:
        return _moved([images], [step], offsets, window)[0]

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
