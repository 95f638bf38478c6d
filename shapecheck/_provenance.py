"""Where a tensor last crossed a boundary, known by the memory it lies in.

Views share the memory of their source, so what is noted of a tensor is found again from a view of it, as long as
nothing was copied. Notes are weak: they go with the memory and keep no tensor alive.
"""

import operator
import weakref
from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from ._render import describe_array
from .errors import Origin

T = TypeVar("T")

_Span = tuple[int, int, int]  # where the first element is, how far it is to the last, and how many there are
Place = tuple[Any, _Span]  # what lives as long as the memory of an array, and where in it the array lies


class _Notes(Generic[T]):
    """What was noted of one piece of memory, by span, the newest last."""

    __slots__ = ("by_span", "owner")

    def __init__(self, owner: "weakref.ref[Any]") -> None:
        self.owner = owner
        self.by_span: dict[_Span, T] = {}


class MemoryNotes(Generic[T]):
    """Notes on arrays that end with the memory of the array.

    Arrays are torch tensors, known by their storage, and NumPy arrays, known by the array that owns the memory.
    Nothing is noted of values that have no memory of their own (sparse and nested tensors) or whose
    size is symbolic.
    """

    def __init__(self) -> None:
        self._notes: dict[int, _Notes[T]] = {}

    def __len__(self) -> int:
        """Return how many pieces of memory have notes."""
        return len(self._notes)

    def put(self, array: Any, note: T) -> None:
        """Note something of the elements of an array; replaces what was noted of the same elements."""
        self.put_at(memory_of(array), note)

    def put_at(self, place: Place | None, note: T) -> None:
        """Note something of the elements of an array whose place is known already."""
        if place is None:
            return
        owner, span = place
        notes = self._notes.get(id(owner))
        if notes is None:
            notes = self._notes[id(owner)] = _Notes(self._weakly(owner))
        notes.by_span.pop(span, None)  # so that the newest note stands last
        notes.by_span[span] = note

    def get(self, array: Any) -> T | None:
        """Return what was noted of exactly these elements, in whatever order of axes."""
        return self.get_at(memory_of(array))

    def get_at(self, place: Place | None) -> T | None:
        """Return what was noted of the elements of an array whose place is known already."""
        if place is None or (notes := self._notes.get(id(place[0]))) is None:
            return None
        return notes.by_span.get(place[1])

    def nearest(self, array: Any) -> T | None:
        """Return what was noted of exactly these elements, else the last note on any of the same memory."""
        place = memory_of(array)
        if place is None or (notes := self._notes.get(id(place[0]))) is None:
            return None
        return notes.by_span.get(place[1], next(reversed(notes.by_span.values())))

    def _weakly(self, owner: Any) -> "weakref.ref[Any]":
        notes, key = self._notes, id(owner)
        return weakref.ref(owner, lambda _: notes.pop(key, None))


def memory_of(array: Any) -> Place | None:
    """Return the object that lives as long as the memory of an array, and the span of the array in it."""
    if (storage := getattr(array, "untyped_storage", None)) is not None:
        if array.is_nested or type(count := array.numel()) is not int:  # a symbolic size is not hashable
            return None
        try:
            extent = count - 1 if array.is_contiguous() else _extent(array.shape, array.stride())
            return storage(), (array.storage_offset(), extent, count)
        except (NotImplementedError, RuntimeError):  # sparse and wrapper tensors
            return None
    if hasattr(array, "__array_interface__"):
        owner = array
        while type(getattr(owner, "base", None)) is type(array):
            owner = owner.base
        address: int = array.__array_interface__["data"][0]
        return owner, (address, _extent(array.shape, array.strides), array.size)
    return None


def _extent(shape: Sequence[int], strides: Sequence[int]) -> int:
    return sum(map(operator.mul, shape, strides)) - sum(strides)


# --- where tensors were accepted ----------------------------------------------------------------------
class _Sighting(NamedTuple):
    """An accepted array as it was; it is described only when somebody asks."""

    boundary: str
    parameter: str
    kind: type
    dtype: Any
    shape: tuple[int, ...]
    device: Any


_sightings = MemoryNotes[_Sighting]()


def remember(array: Any, boundary: str, parameter: str) -> None:
    """Note that a boundary accepted an array."""
    device = getattr(array, "device", "cpu")
    _sightings.put(array, _Sighting(boundary, parameter, type(array), array.dtype, tuple(array.shape), device))


def came_from(value: Any) -> Origin | None:
    """Return where the memory of a value was accepted last, if it is an array and that was noted."""
    sighting = _sightings.nearest(value)
    if sighting is None:
        return None
    got = describe_array(sighting.kind, sighting.dtype, sighting.shape, sighting.device)
    if _sightings.get(value) is None:
        return Origin(sighting.boundary, sighting.parameter, got, "part")
    same = (sighting.dtype, sighting.shape) == (value.dtype, tuple(value.shape))
    return Origin(sighting.boundary, sighting.parameter, got, "same" if same else "view")
