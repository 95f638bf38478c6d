"""The lines of a compiled contract: indentation, local variables, constants, and which dims are bound where."""

import contextlib
import itertools
import re
from collections.abc import Generator
from typing import Any

from .._annotations.spec import Dim


class NotCompilableError(Exception):
    """Only the reference engine can judge the contract."""


class Writer:
    """Writes statements; knows in which of them a dim is bound."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._depth = 1
        self._constants: dict[str, Any] = {}
        self._bound: set[str] = set()
        self._shapes = dict[tuple[Dim, ...], str]()  # locals that hold the shape of a tensor with these dims
        self._uncertain: set[str] = set()  # bound in a block that may not run; None if it did not
        self._unset: set[str] = set()  # those among them that the function that is being written must set to None
        self._start = 0  # where in the lines that function does so
        self._locals = itertools.count()
        self._assigned = dict[str, str]()  # expressions that locals stand for
        self._on_doubt = ""

    def _line(self, text: str) -> None:
        self._lines.append("    " * self._depth + text)

    def _require(self, *conditions: str) -> None:
        if conditions:
            self._line(f"if not ({' and '.join(conditions)}):")
            self._line(f"    {self._on_doubt}")

    def _constant(self, value: object) -> str:
        for name, known in self._constants.items():
            if known is value:
                return name
        name = f"_sc_k{len(self._constants)}"
        self._constants[name] = value
        return name

    def _local(self) -> str:
        return f"_sc_v{next(self._locals)}"

    def _assign(self, expression: str) -> str:
        name = self._local()
        self._assigned[name] = expression
        self._line(f"{name} = {expression}")
        return name

    def _path(self, value: str) -> str:
        """Return the path of the value that a local stands for, as far as it is the same in every call."""
        if value == "_sc_result":
            return "return"
        root, *rest = re.split(r"(?<=\w)(?=\W)", self._assigned.get(value, value), maxsplit=1)
        return self._path(root) + "".join(rest) if root != value else value

    @contextlib.contextmanager
    def _indented(self, header: str) -> Generator[None]:
        self._line(header)
        self._depth += 1
        start = len(self._lines)
        yield
        if len(self._lines) == start:
            self._line("pass")
        self._depth -= 1

    @contextlib.contextmanager
    def _block(self, header: str) -> Generator[None]:
        """Indent what is written under a header; whether dims that are bound there are bound nobody else knows."""
        before, shapes = set(self._bound), dict(self._shapes)
        with self._indented(header):
            yield
        self._may_be_bound(self._bound - before)
        self._bound, self._shapes = before, shapes

    def _may_be_bound(self, dims: set[str]) -> None:
        self._unset |= dims - self._uncertain
        self._uncertain |= dims

    def _begin(self, header: str) -> None:
        """Begin a function."""
        self._depth = 0
        self._line(header)
        self._depth = 1
        self._line("__tracebackhide__ = True")
        self._start, self._unset = len(self._lines), set()

    def _end(self) -> None:
        """End a function: what is bound in blocks must be there when they did not run."""
        self._lines[self._start : self._start] = [f"    _sc_d_{dim} = None" for dim in sorted(self._unset)]

    @contextlib.contextmanager
    def _attempt(self, error: str, otherwise: str) -> Generator[None]:
        with self._indented("try:"):
            yield
        self._line(f"except {error}:")
        self._line(f"    {otherwise}")

    @contextlib.contextmanager
    def _doubting(self, error: str) -> Generator[None]:
        """Leave the call to the reference engine when what is written inside raises an error."""
        with self._attempt(error, self._on_doubt):
            yield
