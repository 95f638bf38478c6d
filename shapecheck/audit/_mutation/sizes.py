"""Sizes for the dims of one call: all different, and none a number that stands in an annotation.

Primes, so that two axes merged into one have the size of no other axis.
"""

import ast
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..._annotations.spec import BRACES, Dim, TensorSpec, symbolic_size
from ..._syntax import parse_expression
from ...axes import Sizes
from .._made_up import PRIMES, UnmakeableError, fixed_sizes
from .shells import Shell

_MULTIPLES = (1, 2, 6, 12, 4, 8, 16)  # of the primes, one attempt each: expressions may want even sizes, or large ones
_PARTS = (2, 3, 4, 5, 6, 8)  # what a size is computed from, by attempt
_RUN = 2  # axes of a variadic dim with a name
_MOST_AXES = 8  # of a tensor whose shape an expression reads

ATTEMPTS = len(_MULTIPLES)


class SizeTable:
    """The size of every dim of a call, found when it is first asked for.

    Args:
        specs: All tensors of the call.
        given: Sizes that are known; of a variadic dim, a tuple.
        limits: Sizes that dims may have.
        attempt: Number of the attempt; each hands out other sizes.

    Attributes:
        dims: Sizes by dim; those of a variadic dim as a tuple.
        arguments: What expressions may use.
    """

    def __init__(
        self, specs: Iterable[TensorSpec], given: Mapping[str, Any], limits: Mapping[str, Sizes], attempt: int
    ) -> None:
        self.dims: dict[str, Any] = dict(given)
        self.arguments: dict[str, Any] = {}
        self._used = {1, *fixed_sizes(specs), *(size for size in given.values() if type(size) is int)}
        self._limits = limits
        self._attempt = attempt
        multiple = _MULTIPLES[attempt % ATTEMPTS]
        numbers = itertools.chain(PRIMES, itertools.count(PRIMES[-1] + 2, 2))
        self._numbers = (number * multiple for number in numbers)

    def fresh(self, limits: Sizes | None = None) -> int:
        """Return a size that nothing else has; of limited ones that are all in use, the first."""
        candidates = self._numbers if limits is None else (size for size in sorted(limits) if size > 0)
        size = next((size for size in candidates if size not in self._used), None)
        if size is None:
            size = min(limits or (1,))
        self._used.add(size)
        return size

    def of(self, name: str) -> int:
        """Return the size of a dim."""
        if name not in self.dims:
            self.dims[name] = self.fresh(self._limits.get(name))
        return self.dims[name]

    def part(self) -> int:
        """Return a number from which a size may be computed."""
        return _PARTS[self._attempt % len(_PARTS)]

    def shape(self, spec: TensorSpec) -> tuple[int, ...]:
        """Return the sizes of a tensor.

        Raises:
            UnmakeableError: An expression gives no size.
        """
        return tuple(size for dim in spec.dims for size in self._axes(dim))

    def _axes(self, dim: Dim) -> tuple[int, ...]:
        if dim.kind == "fixed":
            return (dim.size,)
        if dim.kind == "symbolic":
            return (self._symbolic(dim),)
        if dim.kind == "named":
            return (self.of(dim.text),)
        if dim.kind == "anonymous" or not dim.text:  # one axis stands for any number of them
            return (self.fresh(),)
        if dim.text not in self.dims:
            self.dims[dim.text] = tuple(self.fresh() for _ in range(_RUN))
        return self.dims[dim.text]

    def _symbolic(self, dim: Dim) -> int:
        for name in sorted(dim.names):
            self.of(name)
        for expression in _braces(dim):
            self.prepare(expression)
        try:
            size = symbolic_size(dim, self.dims, self.arguments)
        except Exception as error:  # noqa: BLE001  # the author's expression, on stand-ins, can raise anything
            msg = f"the size {dim.text} cannot be evaluated without a real call: {error}"
            raise UnmakeableError(msg) from None
        if type(size) is not int or size < 1:
            msg = f"the size {dim.text} is {size} for {', '.join(f'{name}={self.dims[name]}' for name in sorted(dim.names))}"
            raise UnmakeableError(msg)
        return size

    # --- expressions over arguments -------------------------------------------------------------
    def prepare(self, expression: str, dim: str | None = None) -> None:
        """Give the arguments what an expression asks them for, where they do not have it.

        Args:
            expression: Python.
            dim: The dim whose size it is.
        """
        tree = parse_expression(expression).body
        for steps, is_indexed, is_all in chains(tree):
            size = self.part() if not is_all else self.fresh() if dim is None else self.of(dim)
            self._answer(steps, (size,) * _MOST_AXES if is_indexed else size)

    def _answer(self, steps: Sequence[str], answer: Any) -> None:
        """Make a chain such as ``self.config.C`` lead to something, if it leads nowhere."""
        holder = self.arguments
        for step in steps[:-1]:
            found = holder.setdefault(step, Shell(object, {}))
            if type(found) is not Shell:
                return
            holder = vars(found)
        holder.setdefault(steps[-1], answer)


def _braces(dim: Dim) -> list[str]:
    return BRACES.findall(dim.text)


def chains(tree: ast.expr) -> Iterator[tuple[list[str], bool, bool]]:
    """Yield what an expression reads: the names to follow, whether an item of it is taken, and whether that is all."""
    pending: list[tuple[ast.AST, bool]] = [(tree, False)]
    while pending:
        node, is_indexed = pending.pop()
        steps = _steps(node)
        if steps:
            yield steps, is_indexed, node is tree or (isinstance(tree, ast.Subscript) and node is tree.value)
        elif isinstance(node, ast.Subscript):
            pending.append((node.value, True))
        elif isinstance(node, ast.Call):
            pending += [(argument, False) for argument in node.args]
        else:
            pending += [(child, False) for child in ast.iter_child_nodes(node)]


def _steps(node: ast.AST) -> list[str]:
    """Return ``["self", "config", "C"]`` for ``self.config.C``; nothing for what is no such chain."""
    steps: list[str] = []
    while isinstance(node, ast.Attribute):
        steps.insert(0, node.attr)
        node = node.value
    return [node.id, *steps] if isinstance(node, ast.Name) else []
