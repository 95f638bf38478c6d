"""The IPython magic: after ``%load_ext shapecheck``, cells whose annotated functions are under contract by themselves."""

import ast
import os
from typing import Any, get_args

from .._settings import Mode, mode_at_definition
from .hook import hook_report, install_import_hook

_MODES = get_args(Mode)
_USAGE = "Usage: %shapecheck [off | on | strict | warn] [package ...], or %shapecheck report"


class _CellTransformer:
    """Puts contracts on the annotated functions of each cell that is run."""

    def visit(self, tree: ast.Module) -> ast.Module:
        """Rewrite the tree of a cell."""
        from .rewrite import rewrite_cell

        return tree if mode_at_definition() == "off" else rewrite_cell(tree)


def load_ipython_extension(shell: Any) -> None:
    """Add the magic ``%shapecheck`` to a shell."""
    transformer = _CellTransformer()

    def shapecheck(line: str) -> None:
        words = line.split()
        if words == ["report"]:
            print(hook_report())  # what a magic answers
            return
        wanted = words.pop(0) if words and words[0] in _MODES else None
        if wanted is None and not words:
            print(f"{_USAGE}\nCells: {'under contract' if transformer in shell.ast_transformers else 'as they are'}")
            return
        if wanted is not None:
            os.environ["SHAPECHECK"] = wanted
        if words:
            install_import_hook(*words)
        if transformer not in shell.ast_transformers:
            shell.ast_transformers.append(transformer)

    shell.register_magic_function(shapecheck, "line", "shapecheck")
