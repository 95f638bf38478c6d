"""What was seen, written as annotations in the words of a module."""

import ast
from collections.abc import Iterator, Mapping, Sequence

from .diff import Edit
from .dims import RESULT, Layout
from .imports import ARRAYS, Imports
from .seen import Seen

_EXACT = {
    "bool": "Bool",
    "float16": "Float16",
    "bfloat16": "BFloat16",
    "float32": "Float32",
    "float64": "Float64",
    "complex64": "Complex64",
    "complex128": "Complex128",
    **{f"{sign}int{bits}": f"{'U' if sign else ''}Int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
_FAMILIES = {"Float": "float", "Complex": "complex", "Int": "int", "UInt": "uint", "Bool": "bool"}
_NUMBERS = ("complex", "float", "int", "bool")  # each takes those behind it
_SEQUENCES = {"list", "tuple"}
_OF_ITEMS = {"list", "List", "Sequence", "Iterable", "Collection", "MutableSequence"}
_OF_GENERATORS = {"Iterator", "AsyncIterator", "Iterable", "AsyncIterable", "Generator", "AsyncGenerator"}
_OF_VALUES = {"dict", "Dict", "Mapping", "MutableMapping", "OrderedDict", "defaultdict"}


def dtype_names(dtypes: set[str]) -> list[str]:
    """Return the jaxtyping classes for dtypes: exact ones where a family has one dtype, else the family."""
    members = {
        family: sorted(dtype for dtype in dtypes if dtype in _EXACT and _family(dtype) == family)
        for family in _FAMILIES
    }
    names = [_EXACT[found[0]] if len(found) == 1 else family for family, found in members.items() if found]
    return names if dtypes <= _EXACT.keys() else ["Shaped"]


def _family(dtype: str) -> str:
    letters = dtype.rstrip("0123456789").removeprefix("b" if dtype == "bfloat16" else "")
    return next(family for family, name in _FAMILIES.items() if name == letters)


class Writer:
    """Writes annotations for one module.

    Args:
        imports: How the module spells what they need.
        layouts: The dims of the arrays at each path.
    """

    def __init__(self, imports: Imports, layouts: Mapping[str, Layout]) -> None:
        self._imports = imports
        self._layouts = layouts

    # --- from nothing ----------------------------------------------------------------------------
    def annotation(self, seen: Seen) -> str | None:
        """Return an annotation for everything that was seen; None if nothing can be said."""
        if "object" in seen.plain:
            return None
        members = [*self._arrays(seen, seen.dtypes), *self._containers(seen), *_plain(seen.plain - {"None"})]
        return " | ".join([*members, *(["None"] if seen.is_optional else [])]) if members else None

    def iterator(self, item: str, *, is_async: bool) -> str:
        """Return the annotation of a generator."""
        return f"{self._imports.spell('collections.abc', 'AsyncIterator' if is_async else 'Iterator')}[{item}]"

    def _arrays(self, seen: Seen, kinds: Mapping[str, set[str]]) -> Iterator[str]:
        """Yield the members of a union that stand for arrays."""
        for kind in sorted(kinds):
            array = self._imports.spell(*ARRAYS[kind])
            for name in dtype_names(kinds[kind]):
                yield f"{self._imports.spell('jaxtyping', name)}[{array}, {self._dims(seen.path)}]"

    def _dims(self, path: str) -> str:
        text = str(self._layouts[path])
        return (
            f'" {text}"' if text.isidentifier() else f'"{text}"'
        )  # a lone word would be taken for a forward reference

    def _containers(self, seen: Seen) -> Iterator[str]:
        if seen.positions is not None:
            yield f"tuple[{', '.join(map(self._inside, seen.positions)) or '()'}]"
        if seen.items is None:
            return
        item = self._inside(seen.items)
        sequences = seen.containers & _SEQUENCES
        if len(sequences) > 1:
            yield f"{self._imports.spell('collections.abc', 'Sequence')}[{item}]"
        elif sequences:
            yield f"tuple[{item}, ...]" if sequences == {"tuple"} else f"list[{item}]"
        if "dict" in seen.containers:
            yield f"dict[{' | '.join(_plain(seen.keys)) or self._any()}, {item}]"

    def _inside(self, seen: Seen) -> str:
        return "None" if seen.is_nothing else self.annotation(seen) or self._any()

    def _any(self) -> str:
        return self._imports.spell("typing", "Any")

    # --- from what stands there ------------------------------------------------------------------
    def refined(self, node: ast.expr, seen: Seen, *, is_member: bool = False) -> list[Edit]:
        """Return what puts dtype and dims into the plain arrays of an annotation, and leaves all else as it is.

        Args:
            node: The annotation, or a part of it.
            seen: What was seen there.
            is_member: Whether it is a member of a union, which may have others for the rest of what was seen.
        """
        kind = self._imports.array_kind(node)
        if kind is None:
            is_union = isinstance(node, ast.BinOp) or self._is_generic(node, {"Optional", "Union"})
            parts = self._parts(node, seen)
            return [edit for inner, what in parts for edit in self.refined(inner, what, is_member=is_union)]
        others = seen.plain - {"None"} or seen.dtypes.keys() - {kind} or seen.below
        if kind not in seen.dtypes or (others and not is_member):
            return []  # it was not what its annotation says
        members = list(self._arrays(seen, {kind: seen.dtypes[kind]}))
        return [_replaced(node, " | ".join([*members, *(["None"] if seen.is_optional and not is_member else [])]))]

    def _is_generic(self, node: ast.expr, names: set[str]) -> bool:
        return isinstance(node, ast.Subscript) and self._imports.last_name(node.value) in names

    def _parts(self, node: ast.expr, seen: Seen) -> Iterator[tuple[ast.expr, Seen]]:
        """Yield the parts of an annotation, each with what was seen there."""
        if isinstance(node, ast.BinOp):
            yield from ((node.left, seen), (node.right, seen))
        if not isinstance(node, ast.Subscript):
            return
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        name = self._imports.last_name(node.value)
        if name in {"Optional", "Union"}:
            yield from ((part, seen) for part in inner)
        elif name in {"tuple", "Tuple"}:
            yield from _in_tuple(inner, seen)
        elif name in _OF_ITEMS and seen.items is not None:
            yield inner[0], seen.items
        elif name in _OF_VALUES and seen.items is not None:
            yield inner[-1], seen.items
        elif name in _OF_GENERATORS and seen.path == RESULT:
            yield inner[0], seen  # what a generator gave is what was seen of its result


def _in_tuple(inner: Sequence[ast.expr], seen: Seen) -> Iterator[tuple[ast.expr, Seen]]:
    is_open = isinstance(inner[-1], ast.Constant)
    if is_open and seen.items is not None:
        yield inner[0], seen.items
    elif seen.positions is not None and len(seen.positions) == len(inner) and not is_open:
        yield from zip(inner, seen.positions, strict=True)


def _replaced(node: ast.expr, text: str) -> Edit:
    return Edit((node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0), text)


def _plain(kinds: set[str]) -> list[str]:
    """Return annotations for values that hold no array, with one for all numbers."""
    number = next((kind for kind in _NUMBERS if kind in kinds), None)
    rest = sorted(kinds.difference(_NUMBERS))
    return [*([number] if number else []), *(kind for kind in rest if kind != "object")]
