"""What was seen of a parameter or result in all calls together: which arrays, in which containers, besides which values."""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable

from ..._watching.forms import ArrayForm, Form, MappingForm, PlainForm, SequenceForm, kind_of

Shape = tuple[int, ...]
Shapes = dict[str, list[tuple[int, Shape]]]  # by path: the number of the call, and the shape that it had there


@dataclasses.dataclass
class Seen:
    """Everything that was seen at one path.

    Attributes:
        path: Name of the parameter, or ``return``, with ``[0]`` for a position and ``[*]`` for any item.
        dtypes: Of the arrays, by kind.
        positions: What stands at the positions of tuples that always had the same length.
        items: What stands in other lists, tuples and dicts.
        containers: Kinds of the latter.
        keys: Kinds of the keys of dicts.
        plain: Kinds of everything that holds no arrays.
    """

    path: str
    dtypes: dict[str, set[str]] = dataclasses.field(default_factory=lambda: defaultdict[str, set[str]](set))
    positions: list["Seen"] | None = None
    items: "Seen | None" = None
    containers: set[str] = dataclasses.field(default_factory=set[str])
    keys: set[str] = dataclasses.field(default_factory=set[str])
    plain: set[str] = dataclasses.field(default_factory=set[str])

    @property
    def below(self) -> list["Seen"]:
        """What is inside the containers."""
        return [*(self.positions or []), *([self.items] if self.items else [])]

    @property
    def has_arrays(self) -> bool:
        """Whether there is an array here or inside."""
        return bool(self.dtypes) or any(inner.has_arrays for inner in self.below)

    @property
    def is_optional(self) -> bool:
        """Whether None was seen among other things."""
        return "None" in self.plain

    @property
    def is_nothing(self) -> bool:
        """Whether nothing but None was seen."""
        return self.plain == {"None"} and not self.dtypes and not self.below


def seen(path: str, forms: Iterable[tuple[int, Form]], shapes: Shapes) -> Seen:
    """Put together what was seen at a path.

    Args:
        path: The path.
        forms: Numbers of calls, and what each had there; an item of a list may be one of several of the same call.
        shapes: Takes in the shapes of the arrays.
    """
    merged, listed = Seen(path), list(forms)
    positional: list[tuple[int, SequenceForm]] = []
    inside: list[tuple[int, Form]] = []
    for call, form in listed:
        if isinstance(form, ArrayForm):
            merged.dtypes[form.kind].add(form.dtype)
            shapes.setdefault(path, []).append((call, form.shape))
        elif isinstance(form, PlainForm):
            merged.plain.add(kind_of(form))
        elif isinstance(form, SequenceForm) and form.is_positional:
            positional.append((call, form))
        else:
            merged.containers.add(form.kind if isinstance(form, SequenceForm) else "dict")
            merged.keys.update(form.keys if isinstance(form, MappingForm) else ())
            inside += [(call, item) for item in form.items]
    if positional and not merged.containers and len({len(form.items) for _, form in positional}) == 1:
        merged.positions = _by_position(path, positional, shapes)
    elif positional:
        merged.containers.add("tuple")
        inside += [(call, item) for call, form in positional for item in form.items]
    if merged.containers:
        merged.items = seen(f"{path}[*]", inside, shapes)
    return merged


def _by_position(path: str, forms: list[tuple[int, SequenceForm]], shapes: Shapes) -> list[Seen]:
    length = len(forms[0][1].items)
    return [
        seen(f"{path}[{index}]", [(call, form.items[index]) for call, form in forms], shapes) for index in range(length)
    ]
