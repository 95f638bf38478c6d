"""What an adapter did with a tensor whose elements say where they come from."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from .notation import Axis, AxisMap, flat

Kind = Literal[
    "permuted", "reshaped", "flipped", "rolled", "reordered", "copied", "mixed", "shape", "constant", "scaled", "values"
]
_MOST_PERMUTED = 7  # axes whose orders are all tried
_TOLERANCE = 1e-5  # relative; of an adapter that computes in float32


class Fact(NamedTuple):
    """One thing that differs, and the sentence that says so."""

    kind: Kind
    text: str


class Probe(NamedTuple):
    """A map, its sizes, and the coded tensors: element number k of what goes in, counted from 1, holds k."""

    map: AxisMap
    sizes: Mapping[str, int]
    given: Tensor
    expected: Tensor

    def shape(self, axes: Sequence[Axis]) -> list[int]:
        """Return the sizes of axes."""
        return [self.sizes[axis.name] for axis in axes]


def coded(map_: AxisMap, sizes: Mapping[str, int], dtype: torch.dtype) -> Tensor:
    """Return the tensor to be given: 1, 2, 3, ... in memory order; a complex one counts on in its imaginary parts.

    Raises:
        ValueError: The dtype cannot tell so many numbers apart.
    """
    shape = map_.shape(map_.source, sizes)
    count = math.prod(shape)
    if dtype is torch.bool or count * (1 + dtype.is_complex) > _largest_exact(dtype):
        msg = f"Expected a dtype that tells {count} elements apart, got {dtype}: take a wider one, or smaller sizes."
        raise ValueError(msg)
    numbers = torch.arange(1, count + 1).reshape(shape)
    return (
        torch.complex(numbers.double(), (numbers + count).double()).to(dtype) if dtype.is_complex else numbers.to(dtype)
    )


def _largest_exact(dtype: torch.dtype) -> int:
    is_integer = not (dtype.is_floating_point or dtype.is_complex)
    return torch.iinfo(dtype).max if is_integer else int(2 / torch.finfo(dtype).eps)


def facts(probe: Probe, got: Tensor) -> list[Fact]:
    """Return what an adapter's result has to do with the one that is expected; nothing if it is that one."""
    numbers, found = _real_part(probe, got.detach().cpu())
    same_shape = numbers.shape == probe.expected.shape
    expected = _real(probe.expected)
    if same_shape and torch.equal(numbers, expected):
        return found
    if numbers.numel() > 1 and bool((numbers == numbers.flatten()[0]).all()):
        value = numbers.flatten()[0].item()
        return [
            *found,
            Fact("constant", f"every element is {value:g}: nothing of the input is left"),
            *_shape(probe, got),
        ]
    source, scaled = _decoded(probe, numbers)
    found += scaled
    if source is None:
        return [*found, _foreign(probe, numbers), *_shape(probe, got)]
    if same_shape and torch.equal(source, _wanted(probe)):
        return found
    return [*found, *(_moved(probe, source) if same_shape else _misshapen(probe, source))]


# --- values -------------------------------------------------------------------------------------------
def _real(tensor: Tensor) -> Tensor:
    return (tensor.real if tensor.is_complex() else tensor).double()


def _real_part(probe: Probe, got: Tensor) -> tuple[Tensor, list[Fact]]:
    """Return the numbers that say where elements come from, and what became of imaginary parts."""
    real = _real(got)
    if not probe.given.is_complex():
        return real, []
    if not got.is_complex():
        return real, [Fact("values", "the imaginary part is gone")]
    imaginary, count = got.imag.double(), probe.given.numel()
    if torch.equal(imaginary, real + count):
        return real, []
    if torch.equal(imaginary, -real - count):
        return real, [Fact("values", "every element is the complex conjugate")]
    return real, [Fact("values", "real and imaginary parts no longer belong together")]


def _decoded(probe: Probe, numbers: Tensor) -> tuple[Tensor | None, list[Fact]]:
    """Return for each element which element of the input it is, scaled and shifted or not; None if it is none."""
    count = probe.given.numel()
    for factor, shift in _scalings(numbers, _real(probe.expected), count):
        source = (numbers - shift) / factor
        nearest = source.round()
        is_one = (nearest >= 1) & (nearest <= count) & ((source - nearest).abs() <= _TOLERANCE * count)
        if bool(is_one.all()):
            plain = factor == 1 and shift == 0
            return nearest.long() - 1, [] if plain else [Fact("scaled", _scaling(factor, shift))]
    return None, []


def _scalings(numbers: Tensor, expected: Tensor, count: int) -> Iterator[tuple[float, float]]:
    """Yield factors and shifts that values may have been changed by, the simplest first."""
    yield 1.0, 0.0
    if not bool(numbers.isfinite().all()) or numbers.numel() < 2:
        return
    if numbers.shape == expected.shape:  # as if the axes were right
        flat_numbers, flat_expected = numbers.flatten(), expected.flatten()
        factor = float((flat_numbers[-1] - flat_numbers[0]) / (flat_expected[-1] - flat_expected[0]))
        shift = float(flat_numbers[0] - factor * flat_expected[0])
        if factor and torch.allclose(numbers, factor * expected + shift, rtol=_TOLERANCE):
            yield factor, shift if abs(shift) > _TOLERANCE * abs(factor) else 0.0
    low, high = float(numbers.min()), float(numbers.max())
    if count > 1 and len(set(_as_list(numbers.flatten()))) == count:
        factor = (high - low) / (count - 1)
        for candidate, shift in ((factor, low - factor), (-factor, high + factor)):
            if abs(shift) <= _TOLERANCE * (abs(low) + abs(high)):
                yield candidate, 0.0
        yield factor, low - factor


def _scaling(factor: float, shift: float) -> str:
    changes = [f"multiplied by {factor:.6g}"] if factor != 1 else []
    changes += [f"shifted by {shift:.6g}"] if shift else []
    return f"the values are {' and '.join(changes)}"


def _foreign(probe: Probe, numbers: Tensor) -> Fact:
    count = probe.given.numel()
    is_one = (numbers >= 1) & (numbers <= count) & (numbers == numbers.round())
    foreign = int((~is_one).sum())
    zeros = int((numbers == 0).sum())
    what = "are zero" if zeros == foreign else "are none of the input's"
    return Fact("values", f"{foreign} of {numbers.numel()} elements {what}")


# --- places -------------------------------------------------------------------------------------------
def _shape(probe: Probe, got: Tensor) -> list[Fact]:
    if got.shape == probe.expected.shape:
        return []
    return [Fact("shape", f"the shape is {_sizes(got.shape)}, not {_sizes(probe.expected.shape)}")]


def _misshapen(probe: Probe, source: Tensor) -> list[Fact]:
    """Tell what was done when the shape is wrong too: `permute` in another order, or the axes are merged in another way."""
    wrong = _shape(probe, source)
    if source.numel() != probe.given.numel():
        return wrong
    in_order = torch.equal(source.flatten(), _wanted(probe).flatten())
    if in_order and source.ndim != probe.expected.ndim:
        return [Fact("shape", f"the elements are in the right order, in the shape {_sizes(source.shape)}")]
    for order in _orders(probe.given.ndim):
        permuted = _positions(probe).permute(order)
        if permuted.shape == source.shape and torch.equal(permuted, source):
            did = f"did permute({', '.join(map(str, order))})"
            did = "left the axes as they came" if list(order) == sorted(order) else did
            return [Fact("permuted", f"the adapter {did}"), *wrong]
    return [*(_reshaped(probe, source) or [_mixed(probe, source)]), *wrong]


def _moved(probe: Probe, source: Tensor) -> list[Fact]:
    """Tell what was done when the shape is right and the elements are not where they belong."""
    target = flat(probe.map.target)
    split = source.reshape(probe.shape(target))
    coordinates = _coordinates(probe, split)
    found = list[Fact]()
    for axis, values in coordinates.items():
        if probe.sizes[axis.name] == 1:
            continue
        along = [position for position in range(split.ndim) if bool((values.diff(dim=position) != 0).any())]
        if len(along) > 1:
            return _reshaped(probe, source) or [_mixed(probe, source)]
        if not along:
            found.append(Fact("copied", f"all of {axis} is a copy of number {int(values.flatten()[0])} of it"))
            continue
        order = _as_list(values.movedim(along[0], -1).reshape(-1, values.shape[along[0]])[0])
        if target[along[0]] != axis:
            found.append(Fact("permuted", f"{axis} lies where {target[along[0]]} belongs"))
        found += _disorder(axis, order, probe.sizes[axis.name])
    if any(fact.kind == "permuted" for fact in found) and torch.equal(source.flatten(), _positions(probe).flatten()):
        found.append(Fact("reshaped", "reshape or view in place of permute does the same at these sizes"))
    return found


def _disorder(axis: Axis, order: Sequence[int], size: int) -> list[Fact]:
    """Tell what is wrong with the order along an axis."""
    straight = list(range(size))
    if order == straight:
        return []
    if order == straight[::-1]:
        return [Fact("flipped", f"{axis} is flipped")]
    if len(order) == size:
        steps = (-order[0]) % size
        if order == [(place - steps) % size for place in straight]:
            return [Fact("rolled", f"{axis} is rolled by {steps}, the last {steps} to the front")]
    return [Fact("reordered", f"along {axis} there are numbers {', '.join(map(str, order))}")]


def _reshaped(probe: Probe, source: Tensor) -> list[Fact]:
    """Tell whether the elements follow one another as they do in the input, or in one that was permuted."""
    axes = flat(probe.map.source)
    numbered = _positions(probe).reshape(probe.shape(axes))
    for order in _orders(len(axes)):
        if torch.equal(numbered.permute(order).flatten(), source.flatten()):
            followed, wanted = (
                " ".join(axis.name for axis in places)
                for places in ([axes[place] for place in order], flat(probe.map.target))
            )
            how = "reshape or view in place of permute: " if list(order) == sorted(order) else ""
            return [Fact("reshaped", f"{how}the elements follow one another in the order {followed}, not {wanted}")]
    return []


def _mixed(probe: Probe, source: Tensor) -> Fact:
    """Name the first element that is not where it belongs."""
    wanted = _wanted(probe)
    if wanted.shape != source.shape:
        return Fact("mixed", "the axes are mixed in a way that no permutation and no reshape explains")
    place = _as_list((wanted != source).nonzero()[0])
    has, needs = (_named(probe, int(numbers[tuple(place)])) for numbers in (source, wanted))
    return Fact("mixed", f"the axes are mixed: element {place} is that of {has}, not that of {needs}")


def _named(probe: Probe, position: int) -> str:
    coordinates = _coordinates(probe, torch.tensor(position))
    return ", ".join(
        f"{int(value)} along {axis}" if axis.name.isdigit() else f"{axis}={int(value)}"
        for axis, value in coordinates.items()
    )


def _coordinates(probe: Probe, source: Tensor) -> dict[Axis, Tensor]:
    """Return where elements of the input lie along each of its axes."""
    axes = flat(probe.map.source)
    if not axes:
        return {}
    return dict(zip(axes, torch.unravel_index(source, probe.shape(axes)), strict=True))


def _wanted(probe: Probe) -> Tensor:
    """Return for each place of the result the position of the element that belongs there."""
    return _real(probe.expected).long() - 1


def _positions(probe: Probe) -> Tensor:
    return torch.arange(probe.given.numel()).reshape(probe.given.shape)


def _orders(ndim: int) -> Iterator[tuple[int, ...]]:
    """Yield all orders of axes, beginning with their own; of very many axes only that one."""
    return itertools.islice(itertools.permutations(range(ndim)), None if ndim <= _MOST_PERMUTED else 1)


def _as_list(numbers: Any) -> list[Any]:
    return numbers.tolist()


def _sizes(shape: Sequence[Any]) -> str:
    return f"[{','.join(map(str, shape))}]"
