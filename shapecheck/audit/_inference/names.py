"""How the dims of a function are called: as the package calls them where the sizes allow it, else by convention.

In this order: what stands in the function already; a number, where several runs agreed; what the package writes for a
parameter or quantity of the same name; ``B C H W``, and ``N`` for squares; for results what followed from other sizes.
A package that has a registry of dims is given no other names.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..._annotations.spec import expression_names
from .dims import Base, Dim, Layout, Relation, Unification, is_result, relations

_STACK = {1: ("n",), 2: ("B", "C"), 3: ("B", "H", "W"), 4: ("B", "C", "H", "W"), 5: ("B", "C", "D", "H", "W")}
_SQUARES = ("N", "M", "K")
_FRONTS = ("batch", "batch2", "batch3", "batch4")


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """What is known of a function besides the shapes.

    Attributes:
        parameters: Names of the parameters, which are no names of dims.
        written: Dims that stand at parameters of the function already.
        words: What the package writes at parameters, and for quantities, by name.
        registry: The dims that may be used, if not all.
        values: The values of parameters that are ints, in each call.
        is_repeated: Whether there were several runs; without that a size that never changed is no literal.
    """

    parameters: frozenset[str]
    written: Mapping[str, Sequence[str]]
    words: Mapping[str, Sequence[str]]
    registry: Mapping[str, Any] | None
    values: Mapping[str, Mapping[int, int]]
    is_repeated: bool


class Naming:
    """Writes the text of every dim of a function.

    Attributes:
        literals: Dims that became numbers.
        related: Dims that became expressions, and what else they could have been.
        chosen: Dims whose name was taken from the registry only because it was free.
        nameless: Dims that got no name because the registry has none left.

    Args:
        unification: The dims.
        surroundings: What else is known.
    """

    def __init__(self, unification: Unification, surroundings: Surroundings) -> None:
        self._all = unification
        self._known = surroundings
        self._used = {word for texts in surroundings.written.values() for text in texts for word in _names_in(text)}
        self.literals: list[Dim] = []
        self.related: list[tuple[Dim, list[Relation]]] = []
        self.chosen: list[Dim] = []
        self.nameless: list[Dim] = []
        self._write()

    def _write(self) -> None:
        for path, texts in self._known.written.items():
            self._adopt(path, texts, is_written=True)
        if self._known.is_repeated:
            self._write_literals()
        for path in self._all.layouts:
            self._adopt(path, self._words_for(path), is_written=False)
        results = [dim for dim in self._all.dims if dim.is_only_in_result and not dim.is_variadic]
        for dim in self._all.dims:
            if dim not in results:
                self._invent(dim)
        self._relate([dim for dim in results if not dim.text])
        for dim in results:
            self._invent(dim)

    # --- words of the package --------------------------------------------------------------------
    def _adopt(self, path: str, texts: Iterable[str], *, is_written: bool) -> None:
        """Take over the only one of the texts that fits what was seen at a path, if there is one."""
        fitting = [pairs for text in texts if (pairs := self._fitting(text, path, is_written=is_written))]
        if len(fitting) == 1:
            for word, dim in fitting[0]:
                dim.text = dim.text or word
                self._used.add(word)

    def _fitting(self, text: str, path: str, *, is_written: bool) -> list[tuple[str, Dim]]:
        layout = self._all.layouts.get(path)
        pairs = [] if layout is None else _paired(text, layout)
        return pairs if is_written or all(self._may_have(dim, word) for word, dim in pairs) else []

    def _words_for(self, path: str) -> set[str]:
        """Return what the package writes for a name; failing that, for names that it is a part of, as probe of probe_batch."""
        words = self._known.words
        if path in words:
            return set(words[path])
        akin = (name for name in words if name.startswith(f"{path}_") or name.endswith(f"_{path}"))
        return {text for name in akin for text in words[name]}

    def _may_have(self, dim: Dim, name: str) -> bool:
        """Tell whether a dim has a name, or could be given it."""
        return dim.text == name if dim.text else self._is_free(name) and self._is_allowed(dim, name)

    def _is_free(self, name: str) -> bool:
        return name not in self._used and name not in self._known.parameters

    def _is_allowed(self, dim: Dim, name: str) -> bool:
        """Tell whether the registry lets a dim have a name."""
        if self._known.registry is None:
            return True
        if name not in self._known.registry:
            return False
        known = self._known.registry[name]
        if known["tied"] is not None and expression_names(known["tied"], "a tie") <= self._known.parameters:
            return False
        allowed = known["sizes"] if known["range"] is None else range(*known["range"])
        return allowed is None or dim.is_variadic or all(size in allowed for size in dim.distinct)

    # --- numbers and expressions -----------------------------------------------------------------
    def _write_literals(self) -> None:
        """Make numbers of dims that never changed, while others did."""
        for dim in self._all.dims:
            others = [len(other.distinct) for other in self._all.dims if other is not dim]
            if not dim.text and not dim.is_variadic and len(dim.distinct) == 1 and max(others, default=0) > 1:
                (size,) = dim.distinct
                dim.text = str(size)
                self.literals.append(dim)

    def _relate(self, results: Iterable[Dim]) -> None:
        """Make expressions of dims of the result that followed from others."""
        known = [dim for dim in self._all.dims if _can_be_referred_to(dim)]
        bases = [Base(dim, "", dim.sizes) for dim in known]
        bases += [Base(None, name, sizes) for name, sizes in self._known.values.items()]
        for dim in results:
            found = relations(dim, bases)
            if found:
                dim.text = str(found[0])
                self.related.append((dim, found))

    # --- conventions -----------------------------------------------------------------------------
    def _invent(self, dim: Dim) -> None:
        """Give a dim the first name that is free and allowed."""
        if dim.text:
            return
        usual = _usual(dim, self._all.layouts)
        registry = self._known.registry
        others = (f"n{number}" for number in itertools.count(1)) if registry is None else iter(registry)
        names = (name for name in itertools.chain(usual, others) if self._is_free(name) and self._is_allowed(dim, name))
        dim.text = next(names, "_")
        self._used.add(dim.text)
        if dim.text == "_":
            self.nameless.append(dim)
        elif registry is not None and dim.text not in usual:
            self.chosen.append(dim)


def _names_in(text: str) -> Iterator[str]:
    return (word.lstrip("*#") for word in text.split() if word.lstrip("*#").isidentifier())


def _paired(text: str, layout: Layout) -> list[tuple[str, Dim]]:
    """Return which word of a text would stand for which dim; nothing if they do not fit together."""
    words = text.split()
    if layout.is_variadic or len(words) != len(layout.axes) or any(word.startswith(("*", "...")) for word in words):
        return []
    pairs = [(word, dim) for word, dim in zip(words, layout.axes, strict=True) if dim is not None and word != "_"]
    if any(word.isdigit() and dim.distinct != {int(word)} for word, dim in pairs):
        return []
    named = [(word, dim) for word, dim in pairs if word.isidentifier()]
    is_one_to_one = len(set(named)) == len({word for word, _ in named}) == len({dim for _, dim in named})
    return named if is_one_to_one else []


def _can_be_referred_to(dim: Dim) -> bool:
    """Tell whether an expression can have a dim in it: it must be bound before, by an argument."""
    return dim.text.isidentifier() and dim.text != "_" and not dim.is_variadic and not is_result(dim.slots[0][0])


def _usual(dim: Dim, layouts: Mapping[str, Layout]) -> tuple[str, ...]:
    """Return the usual names of a dim, by where it is."""
    path, axis = dim.slots[0]
    axes = layouts[path].axes
    if dim.is_variadic:
        return _FRONTS
    if layouts[path].is_led:
        return ("B",)
    if sum(other is dim for other in axes) > 1:
        return _SQUARES
    return (_STACK[len(axes)][axis],) if len(axes) in _STACK else ()
