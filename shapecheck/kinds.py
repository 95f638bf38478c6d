"""Meanings that sizes cannot carry: tensors of one shape and different content, told apart by who made them.

A producer declares what a tensor is, simply by the annotation under which its contract accepted or returned it; from
then on a contract that requires another meaning of the same family refuses the same memory. Nothing is asked of
tensors that nobody declared.
"""

import enum
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from ._location import caller_frame, name_of_frame
from ._provenance import MemoryNotes, Place, memory_of
from ._settings import is_tracing, mode_at_definition
from .errors import ContractDefinitionError

T = TypeVar("T")


class _Declaration(NamedTuple):
    """What some memory was declared to hold.

    Attributes:
        kinds: By family: the kind, and who said so.
        version: What torch counts up when the memory is written to; None where nobody counts.
    """

    kinds: Mapping[type["Kind"], tuple["Kind", str]]
    version: int | None


class Kind(enum.Enum):
    """A family of meanings that exclude one another; subclass it and name them.

    Example::

        class Diffraction(Kind):
            AMPLITUDE = "square root of counts"
            INTENSITY = "counts"

        Amplitude = Annotated[Float32[Tensor, "B C N N"], Diffraction.AMPLITUDE]

    A contract with this annotation refuses a tensor that was declared to be `Diffraction.INTENSITY`, and declares those
    that it accepts, and those that it returns, to be amplitudes. The value of a member describes it.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if aliases := sorted(cls.__members__.keys() - {kind.name for kind in cls}):
            msg = f"Expected the kinds of {cls.__name__} to have descriptions of their own, got {', '.join(aliases)} twice."
            raise ContractDefinitionError(msg)

    def declare(self, array: T) -> T:
        """Say what an array holds from here on, whatever was said of its memory before.

        Only needed where no contract can tell, as after a NumPy array was changed in place.

        Returns:
            `array` itself.
        """
        if not is_tracing() and mode_at_definition() != "off":
            source = f"a declaration in {name_of_frame(caller_frame())}"
            place, version = memory_of(array), _version(array)
            kinds = {**_known(place, version), type(self): (self, source)}
            _declarations.put_at(place, _Declaration(kinds, version))
        return array


_declarations = MemoryNotes[_Declaration]()


def conflict(array: Any, kinds: tuple[Kind, ...]) -> tuple[Kind, str, Kind] | None:
    """Return what an array was declared to be, by whom, and which of `kinds` that contradicts; None if nothing does."""
    known = _known(memory_of(array), _version(array))
    for kind in kinds:
        declared, source = known.get(type(kind), (kind, ""))
        if declared is not kind:
            return declared, source, kind
    return None


def declare(wanted: Sequence[tuple[tuple[Kind, ...], str]], *arrays: Any) -> bool:
    """Declare arrays what a contract accepts them for; nothing if one of them was declared something else.

    Args:
        wanted: For each array its kinds, of different families, and who says so, for errors.
        *arrays: The arrays.

    Returns:
        Whether nothing contradicts.
    """
    new: list[tuple[Place | None, _Declaration]] = []
    for array, (kinds, source) in zip(arrays, wanted, strict=True):
        place, version = memory_of(array), _version(array)
        known = _known(place, version)
        missing: dict[type[Kind], tuple[Kind, str]] = {}
        for kind in kinds:
            if (declared := known.get(type(kind))) is None:
                missing[type(kind)] = (kind, source)
            elif declared[0] is not kind:
                return False
        if missing:
            new.append((place, _Declaration({**known, **missing}, version)))
    for place, declaration in new:
        _declarations.put_at(place, declaration)
    return True


def _known(place: Place | None, version: int | None) -> Mapping[type[Kind], tuple[Kind, str]]:
    """Return what is known of an array; nothing if it was written to since."""
    declaration = _declarations.get_at(place)
    if declaration is None or declaration.version != version:
        return {}
    return declaration.kinds


def _version(array: Any) -> int | None:
    try:
        return array._version  # noqa: SLF001  # torch's own name for it in its documentation of autograd
    except (AttributeError, RuntimeError):  # NumPy arrays, and torch tensors made in inference mode
        return None
