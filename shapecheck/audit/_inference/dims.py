"""Which axes of the arrays of a function had the same size in every call, and what else held of their sizes.

Sizes alone decide. Two axes are one dim where they agreed in every call that had both; what rests on a single size is
said, not hidden.
"""

import dataclasses
import functools
import itertools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from .seen import Shape, Shapes

RESULT = "return"
_FEWEST_CALLS = 3  # distinct sizes in which a relation must have held to be believed


def _divided(by: int, size: int) -> int:
    return size // by


_CANDIDATES: list[tuple[str, Callable[[int], int]]] = [  # of relations to one other size
    ("{0}", lambda known: known),
    *((f"{{0}}+{step}", functools.partial(operator.add, step)) for step in range(1, 9)),
    *((f"{{0}}-{step}", functools.partial(operator.add, -step)) for step in range(1, 9)),
    *((f"{factor}*{{0}}", functools.partial(operator.mul, factor)) for factor in range(2, 9)),
    *((f"{{0}}//{factor}", functools.partial(_divided, factor)) for factor in range(2, 9)),
]

Slot = tuple[str, int]  # a path, and an axis counted from the end


@dataclasses.dataclass(eq=False)
class Dim:
    """Axes that agreed in every call.

    Attributes:
        slots: Where they are, in the order of the parameters.
        sizes: The size in each call; for a variadic dim the sizes.
        is_variadic: Whether it is a run of leading axes.
        loose: The slots that agree with the others by no more than a single size.
        rivals: Other dims that a slot could have been as well.
        text: How it is written.
    """

    slots: list[Slot]
    sizes: dict[int, Any]
    is_variadic: bool = False
    loose: list[Slot] = dataclasses.field(default_factory=list[Slot])
    rivals: list[tuple[Slot, "Dim"]] = dataclasses.field(default_factory=list[tuple[Slot, "Dim"]])
    text: str = ""

    @property
    def distinct(self) -> set[Any]:
        """The different sizes that it had."""
        return set(self.sizes.values())

    @property
    def is_only_in_result(self) -> bool:
        """Whether no argument has it."""
        return all(is_result(path) for path, _ in self.slots)


Axis = Dim | None  # None where the items of one call differed


def is_result(path: str) -> bool:
    """Tell whether a path is inside the result."""
    return path == RESULT or path.startswith(f"{RESULT}[")


@dataclasses.dataclass
class Layout:
    """The axes of the arrays at one path.

    Attributes:
        axes: Those that every array has.
        is_variadic: Whether there were more in front of them in some calls.
        front: The dim that stands for these; None where the items of one call differed.
        is_led: Whether only the first axis agreed, and the others are behind it.
    """

    axes: list[Axis]
    is_variadic: bool = False
    front: Axis = None
    is_led: bool = False

    def __str__(self) -> str:
        """Return the axes as they stand in an annotation."""
        texts = [dim.text if dim is not None else "_" for dim in self.axes]
        if self.is_led:
            texts.append("...")
        elif self.is_variadic:
            texts.insert(0, "..." if self.front is None else f"*{self.front.text}")
        return " ".join(texts)


class Unification:
    """The dims of a function.

    Attributes:
        dims: All of them, in the order in which they appear.
        layouts: The axes of the arrays at each path.

    Args:
        shapes: What was seen.
    """

    def __init__(self, shapes: Shapes) -> None:
        self.dims: list[Dim] = []
        self.layouts = {path: self._layout(path, found) for path, found in shapes.items()}

    def _layout(self, path: str, found: Sequence[tuple[int, Shape]]) -> Layout:
        fewest = min(len(shape) for _, shape in found)
        is_variadic = any(len(shape) > fewest for _, shape in found)
        sizes = [_agreed((call, shape[axis]) for call, shape in found) for axis in range(-fewest, 0)]
        fronts = _agreed((call, shape[: len(shape) - fewest]) for call, shape in found)
        if is_variadic and fewest and fronts is None and not any(sizes):
            first = _agreed((call, shape[0]) for call, shape in found)
            if first is not None:  # as in the arrays of a batch
                return Layout([self._placed((path, 0), first)], is_variadic, is_led=True)
        front = self._placed((path, -fewest - 1), fronts) if is_variadic else None
        axes: list[Axis] = []
        for axis, known in zip(range(-fewest, 0), sizes, strict=True):
            axes.append(self._placed((path, axis), known, axes))
        if front is not None:
            front.is_variadic = True
        return Layout(axes, is_variadic, front)

    def _placed(self, slot: Slot, sizes: dict[int, Any] | None, beside: Sequence[Axis] = ()) -> Axis:
        """Return the dim of an axis: the first that agrees with it, where possible one that the array does not have yet."""
        if sizes is None:
            return None
        agreeing = sorted((dim for dim in self.dims if _agree(dim, sizes)), key=lambda dim: dim in beside)
        if not agreeing:
            self.dims.append(Dim([slot], sizes))
            return self.dims[-1]
        dim, *others = agreeing
        if len({sizes[call] for call in sizes.keys() & dim.sizes.keys()}) == 1:
            dim.loose.append(slot)
        dim.rivals += [(slot, other) for other in others]
        dim.slots.append(slot)
        dim.sizes |= sizes
        return dim


def _agreed(found: Iterator[tuple[int, Any]]) -> dict[int, Any] | None:
    """Return the size in each call; None where a call had several."""
    sizes: dict[int, Any] = {}
    for call, size in found:
        if sizes.setdefault(call, size) != size:
            return None
    return sizes


def _agree(dim: Dim, sizes: Mapping[int, Any]) -> bool:
    common = dim.sizes.keys() & sizes.keys()
    return bool(common) and all(dim.sizes[call] == sizes[call] for call in common)


# --- relations ----------------------------------------------------------------------------------------
@dataclasses.dataclass(frozen=True)
class Base:
    """What the size of a result may depend on: a dim of the arguments, or an argument that is an int.

    Attributes:
        dim: The dim, if it is one.
        argument: The name of the argument, if it is one.
        sizes: Its size, or value, in each call.
    """

    dim: Dim | None
    argument: str
    sizes: Mapping[int, int]

    def __str__(self) -> str:
        """Return it as it is written in an annotation."""
        return f"{{{self.argument}}}" if self.dim is None else self.dim.text


@dataclasses.dataclass(frozen=True)
class Relation:
    """How the size of a result followed from others in every call.

    Attributes:
        template: The expression.
        bases: What stands in it.
    """

    template: str
    bases: tuple[Base, ...]

    @property
    def is_argument(self) -> bool:
        """Whether the size is simply that of an argument."""
        return self.template == "{0}"

    def __str__(self) -> str:
        """Return it as it is written in an annotation."""
        return self.template.format(*self.bases)


def relations(dim: Dim, bases: Sequence[Base]) -> list[Relation]:
    """Return the simple relations that held in all calls that had a dim, at three sizes at least; the simplest first.

    Args:
        dim: A dim of the result.
        bases: What it may depend on.
    """
    known = [base for base in bases if dim.sizes.keys() <= base.sizes.keys() and _varies(dim, base)]
    found = [relation for base in known for relation in _of_one(dim, base)]
    found.sort(key=lambda relation: len(relation.template))
    return found or [relation for pair in itertools.combinations(known, 2) for relation in _of_two(dim, pair)]


def _varies(dim: Dim, base: Base) -> bool:
    return len({base.sizes[call] for call in dim.sizes}) > 1


def _of_one(dim: Dim, base: Base) -> Iterator[Relation]:
    pairs = {(size, base.sizes[call]) for call, size in dim.sizes.items()}
    if len(pairs) < _FEWEST_CALLS:
        return
    for template, value in _CANDIDATES:
        if all(size == value(known) for size, known in pairs):
            yield Relation(template, (base,))


def _of_two(dim: Dim, pair: tuple[Base, Base]) -> Iterator[Relation]:
    first, second = pair
    triples = {(size, first.sizes[call], second.sizes[call]) for call, size in dim.sizes.items()}
    if len(triples) >= _FEWEST_CALLS:
        if all(size == one * other for size, one, other in triples):
            yield Relation("{0}*{1}", pair)
        if all(size == one + other for size, one, other in triples):
            yield Relation("{0}+{1}", pair)
