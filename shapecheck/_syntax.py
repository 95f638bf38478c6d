"""Python text as a tree, also while other threads parse.

CPython before 3.13 counts how deep it is in a tree for all threads at once: where another thread, or a finalizer, parses
at the same moment, it takes a sound tree for a mismatch (https://github.com/python/cpython/issues/106905). The text is
then parsed again.
"""

import ast
from collections.abc import Callable
from typing import TypeVar

_MOST_ATTEMPTS = 100

_Tree = TypeVar("_Tree", bound=ast.AST)


def parse_expression(text: str) -> ast.Expression:
    """Parse one expression.

    Raises:
        SyntaxError: The text is none.
    """
    return _parsed(lambda: ast.parse(text, mode="eval"))


def parse_module(source: str | bytes, path: str) -> ast.Module:
    """Parse the source of a module, script or notebook cell.

    Raises:
        SyntaxError: The source is not Python.
    """
    return _parsed(lambda: ast.parse(source, path))


def _parsed(parse: Callable[[], _Tree]) -> _Tree:
    for _ in range(_MOST_ATTEMPTS):
        try:
            return parse()
        except SystemError:
            continue
    return parse()
