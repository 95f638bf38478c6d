"""How a module spells what annotations need, by the imports that it has; and the imports that are missing."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from ..._syntax import parse_module
from .diff import Edit

ARRAYS = {"Tensor": ("torch", "Tensor"), "ndarray": ("numpy", "ndarray")}

_Section = Literal["standard library", "third party", "own"]
_Statement = ast.Import | ast.ImportFrom


class Imports:
    """The imports of a module.

    Args:
        tree: The module.
        limit: The longest line that may be written.
        root: The folder in which its package lies; what else lies there is imported last.
    """

    def __init__(self, tree: ast.Module, limit: int, root: Path) -> None:
        self._tree = tree
        self._root = root
        self.limit = limit
        self._statements = [node for node in tree.body if isinstance(node, _Statement)]
        self._bound = {local: full for node in self._statements for local, full in _bindings(node)}
        self._defined = {name for node in tree.body for name in _definitions(node)}
        self._missing: dict[str, set[str]] = {}  # names by module; the empty name for the module itself

    def array_kind(self, node: ast.expr) -> str | None:
        """Return which kind of array an annotation names: ``Tensor``, ``ndarray``, or None if it is something else."""
        full = self._resolved(node)
        return next((kind for kind, (module, name) in ARRAYS.items() if full == f"{module}.{name}"), None)

    def last_name(self, node: ast.expr) -> str:
        """Return the last part of the name of something, such as ``Sequence``."""
        return ast.unparse(node).rpartition(".")[2]

    def _resolved(self, node: ast.expr) -> str | None:
        """Return what a dotted name stands for."""
        if isinstance(node, ast.Name):
            return self._bound.get(node.id)
        if isinstance(node, ast.Attribute):
            owner = self._resolved(node.value)
            return None if owner is None else f"{owner}.{node.attr}"
        return None

    def spell(self, module: str, name: str) -> str:
        """Return how this module writes a name of another, and remember to import it if it does not yet."""
        for local, full in self._bound.items():
            if full == f"{module}.{name}":
                return local
        if module == "numpy" and module not in self._bound.values():
            self._missing.setdefault("numpy as np", set()).add("")
            return f"np.{name}"
        owner = next((local for local, full in self._bound.items() if full == module), None)
        if owner is not None:
            return f"{owner}.{name}"
        is_taken = name in self._bound or name in self._defined
        self._missing.setdefault(module, set()).add("" if is_taken else name)
        return f"{module}.{name}" if is_taken else name

    # --- what is missing -------------------------------------------------------------------------
    def edits(self) -> list[Edit]:
        """Return what adds the missing imports."""
        found: list[Edit] = []
        new: list[str] = []
        for module, names in self._missing.items():
            existing = self._import_from(module)
            new += [f"import {module}"] if "" in names else []
            if existing is not None:
                found.append(self._extended(existing, names - {""}))
            elif names - {""}:
                new.append("\n".join(_from(module, names - {""}, self.limit)))
        for section in ("standard library", "third party"):
            texts = [text for text in new if self._section_of(_parsed(text)) == section]
            found += self._added(section, sorted(texts, key=lambda text: _sort_key(_parsed(text))))
        return found

    def _import_from(self, module: str) -> ast.ImportFrom | None:
        return next(
            (
                node
                for node in self._statements
                if isinstance(node, ast.ImportFrom) and node.module == module and not node.level
                if all(alias.asname is None and alias.name != "*" for alias in node.names)
            ),
            None,
        )

    def _extended(self, node: ast.ImportFrom, names: set[str]) -> Edit:
        known = {alias.name for alias in node.names}
        lines = _from(node.module or "", known | names, self.limit)
        return Edit((node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0), "\n".join(lines))

    def _added(self, section: _Section, texts: list[str]) -> list[Edit]:
        """Put new imports where a sorter of imports would."""
        same = [node for node in self._statements if self._section_of(node) == section]
        if not same:
            return [self._new_section(section, "\n".join(texts))] if texts else []
        places: dict[int, str] = {}
        for text in texts:
            key = _sort_key(_parsed(text))
            behind = (same[-1].end_lineno or 0) + 1
            line = next((node.lineno for node in same if _sort_key(node) > key), behind)
            places[line] = places.get(line, "") + f"{text}\n"
        return [Edit((line, 0), (line, 0), text) for line, text in places.items()]

    def _new_section(self, section: _Section, text: str) -> Edit:
        """Begin a section that the module does not have yet, with blank lines around it."""
        standard = [node for node in self._statements if self._section_of(node) == "standard library"]
        own = [node for node in self._statements if not _is_future(node)]
        start = [node for node in self._tree.body if _is_future(node)]
        if ast.get_docstring(self._tree, clean=False) is not None:
            start.insert(0, self._tree.body[0])
        line, text = 1, f"{text}\n\n"
        if section == "third party" and standard:
            line, text = (standard[-1].end_lineno or 0) + 1, f"\n{text[:-1]}"
        elif own:
            line = own[0].lineno
        elif start:
            line, text = (start[-1].end_lineno or 0) + 1, f"\n{text[:-1]}"
        return Edit((line, 0), (line, 0), text)

    def _section_of(self, node: _Statement) -> _Section:
        module = _module_of(node)
        top = module.partition(".")[0]
        if not top or top == "__future__" or (self._root / top).is_dir() or (self._root / f"{top}.py").is_file():
            return "own"
        return "standard library" if top in sys.stdlib_module_names else "third party"


def _is_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def _bindings(node: _Statement) -> Iterator[tuple[str, str]]:
    """Yield the names that an import binds, and what each stands for."""
    if isinstance(node, ast.ImportFrom):
        yield from (
            (alias.asname or alias.name, f"{'.' * node.level}{node.module}.{alias.name}") for alias in node.names
        )
        return
    for alias in node.names:
        top = alias.name.partition(".")[0]
        yield (alias.asname, alias.name) if alias.asname else (top, top)


def _definitions(node: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement of a module binds by other means."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif not isinstance(node, _Statement):
        stored = (inner for inner in ast.walk(node) if isinstance(inner, ast.Name))
        yield from (inner.id for inner in stored if isinstance(inner.ctx, ast.Store))


def _parsed(text: str) -> _Statement:
    (node,) = parse_module(text, "<import>").body
    assert isinstance(node, _Statement)
    return node


def _module_of(node: _Statement) -> str:
    return node.names[0].name if isinstance(node, ast.Import) else f"{'.' * node.level}{node.module or ''}"


def _sort_key(node: _Statement) -> tuple[bool, str]:
    return isinstance(node, ast.ImportFrom), _module_of(node).lower()


def _from(module: str, names: set[str], limit: int) -> list[str]:
    """Return the lines of an import, sorted as isort and ruff do: constants, classes, the rest."""
    ordered = sorted(names, key=lambda name: (not (name.isupper() and len(name) > 1), not name[0].isupper(), name))
    line = f"from {module} import {', '.join(ordered)}"
    if len(line) <= limit:
        return [line]
    return [f"from {module} import (", *(f"    {name}," for name in ordered), ")"]
