"""Decorators for every function and class of a module, put into its syntax tree.

Each decorator that is there already is passed through `seen`, and ours comes last, so that it is applied first, to the
function itself, and knows what will be applied after it; on a class ``body`` does, before the body is executed::

    @staticmethod                  @__shapecheck__.seen(staticmethod)
    def f(x: Image): ...           @__shapecheck__.function(1)
                                   def f(x: Image): ...

Lines stay where they are. Without an annotation there is nothing to decorate, and the place is only listed.
"""

import ast

from .._syntax import parse_module

RUNTIME = "__shapecheck__"

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")


def rewrite(tree: ast.Module) -> ast.Module:
    """Put the decorators into the tree of a module."""
    _rewrite(tree, is_cell=False)
    tree.body += parse_module(f"{RUNTIME}.finish()", "<finish>").body
    return tree


def rewrite_cell(tree: ast.Module) -> ast.Module:
    """Put the decorators into the tree of a notebook cell; its last expression, which is shown, stays the last."""
    _rewrite(tree, is_cell=True)
    return tree


def _rewrite(tree: ast.Module, *, is_cell: bool) -> None:
    rewriter = _Rewriter()
    rewriter.visit_blocks(tree)
    begin = (
        f"from shapecheck._packages.applied import Applied as {RUNTIME}\n"
        f"{RUNTIME} = {RUNTIME}(__name__, {tuple(rewriter.unannotated)!r}, {is_cell})"
    )
    start = _first_statement(tree)
    tree.body[start:start] = parse_module(begin, "<begin>").body


def _first_statement(tree: ast.Module) -> int:
    """Return the index behind the docstring and the imports from ``__future__``, which must stay first."""
    index = int(ast.get_docstring(tree, clean=False) is not None)
    while index < len(tree.body):
        statement = tree.body[index]
        if not isinstance(statement, ast.ImportFrom) or statement.module != "__future__":
            break
        index += 1
    return index


class _Rewriter:
    """Goes through statements, the only place of functions and classes; expressions are most of a tree."""

    def __init__(self) -> None:
        self.unannotated: list[tuple[str, int]] = []
        self._scope: list[str] = []

    def visit_blocks(self, node: ast.AST) -> None:
        """Rewrite what stands in the blocks of a statement or module."""
        for block in _BLOCKS:
            for statement in getattr(node, block, ()):
                if isinstance(statement, _Function):
                    self._function(statement)
                elif isinstance(statement, ast.ClassDef):
                    self._class(statement)
                else:
                    self.visit_blocks(statement)

    def _class(self, node: ast.ClassDef) -> None:
        self._inside(node, [node.name])
        if node.decorator_list:
            body = _call("body", node, len(node.decorator_list), ".".join([*self._scope, node.name]))
            node.decorator_list = [*_seen(node), body]
        if node.decorator_list or node.bases or node.keywords:  # nothing else can be a record
            node.decorator_list.insert(0, _placed(_method("record"), node))

    def _function(self, node: _Function) -> None:
        self._inside(node, [node.name, "<locals>"])
        if _is_annotated(node):
            node.decorator_list = [*_seen(node), _call("function", node, len(node.decorator_list))]
        else:
            self.unannotated.append((".".join([*self._scope, node.name]), _first_line(node)))

    def _inside(self, node: ast.AST, names: list[str]) -> None:
        self._scope += names
        self.visit_blocks(node)
        del self._scope[-len(names) :]


def _is_annotated(node: _Function) -> bool:
    arguments = node.args
    everything = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    return node.returns is not None or any(item is not None and item.annotation is not None for item in everything)


def _first_line(node: _Function) -> int:
    """Return the line that a code object gives for a function: that of its first decorator."""
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def _method(name: str) -> ast.expr:
    return ast.Attribute(ast.Name(RUNTIME, ast.Load()), name, ast.Load())


def _call(method: str, node: ast.stmt, *arguments: int | str) -> ast.expr:
    return _placed(ast.Call(_method(method), [ast.Constant(argument) for argument in arguments], []), node)


def _seen(node: _Function | ast.ClassDef) -> list[ast.expr]:
    return [_placed(ast.Call(_method("seen"), [decorator], []), decorator) for decorator in node.decorator_list]


def _placed(expression: ast.expr, place: ast.stmt | ast.expr) -> ast.expr:
    """Give an expression the line that a code object takes for the first line of what is decorated."""
    expression.lineno = expression.end_lineno = place.lineno
    expression.col_offset = expression.end_col_offset = place.col_offset
    return ast.fix_missing_locations(expression)
