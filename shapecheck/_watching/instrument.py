"""Functions that tell how they are called, by what is put into their bodies.

    def f(x, n=2):                      def f(x, n=2):
        return x * n                        __shapecheck_call__ = __shapecheck_watch__.enter(7, (x, n))
                                            return __shapecheck_watch__.leave(__shapecheck_call__, x * n)

Bodies and not wrappers: functions keep their identity, signature, decorators, frames and lines, and a generator stays one.
"""

import ast
from collections import Counter
from collections.abc import Callable, Iterator
from typing import cast

from .._syntax import parse_module

RUNTIME = "__shapecheck_watch__"
_CALL = "__shapecheck_call__"
_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")
_OTHER_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
_COMPILERS = {"jit", "njit", "vectorize", "guvectorize"}  # of torch, numba, triton: they read source or bytecode

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
_Named = tuple[str, FunctionNode]


def functions_of(tree: ast.Module) -> Iterator[tuple[str, int, FunctionNode]]:
    """Yield the functions and methods of a module with qualified name and occurrence; none that is inside a function."""
    met = Counter[str]()
    for name, node in _functions(tree, ""):
        yield name, met[name], node
        met[name] += 1


def _functions(node: ast.AST, scope: str) -> Iterator[_Named]:
    for statement in (statement for block in _BLOCKS for statement in getattr(node, block, ())):
        if isinstance(statement, FunctionNode):
            yield scope + statement.name, statement
        else:
            inner = f"{scope}{statement.name}." if isinstance(statement, ast.ClassDef) else scope
            yield from _functions(statement, inner)


def parameters_of(node: FunctionNode) -> list[ast.arg]:
    """Return the parameters of a function, in the order in which they are written."""
    arguments = node.args
    last = [arguments.kwarg] if arguments.kwarg else []
    star = [arguments.vararg] if arguments.vararg else []
    return [*arguments.posonlyargs, *arguments.args, *star, *arguments.kwonlyargs, *last]


def left_alone(node: FunctionNode) -> str | None:
    """Return why a function cannot be watched; None if it can."""
    decorators = [ast.unparse(decorator).partition("(")[0].split(".") for decorator in node.decorator_list]
    if any(not _COMPILERS.isdisjoint(names) for names in decorators):
        return "something else compiles it"
    if any(names[-1] in {"overload", "no_type_check"} for names in decorators):
        return "a decorator says that its annotations are no promise"
    if any(isinstance(inner, ast.Name) and inner.id == "locals" for inner in ast.walk(node)):
        return "it uses locals()"
    return None


def is_generator(node: FunctionNode) -> bool:
    """Tell whether a function is a generator, synchronous or not."""
    return any(isinstance(inner, ast.Yield | ast.YieldFrom) for inner in own_nodes(node))


def own_nodes(node: FunctionNode) -> Iterator[ast.AST]:
    """Yield what stands in the body of a function, without the bodies of functions and classes inside."""
    waiting: list[ast.AST] = list(node.body)
    while waiting:
        inner = waiting.pop()
        yield inner
        if not isinstance(inner, _OTHER_SCOPES):
            waiting += ast.iter_child_nodes(inner)


def instrument(tree: ast.Module, register: Callable[[str, int, list[str]], int], runtime: str) -> ast.Module:
    """Put into every function of a module what tells of its calls.

    Args:
        tree: The module, which is changed.
        register: Given the qualified name, occurrence and parameters of a function, returns its number.
        runtime: Name of the module whose ``watch`` is told.
    """
    for name, occurrence, node in list(functions_of(tree)):
        if left_alone(node) is None:
            names = [parameter.arg for parameter in parameters_of(node)]
            _instrument(node, register(name, occurrence, names), names)
    tree.body[_start(tree) : _start(tree)] = parse_module(f"from {runtime} import watch as {RUNTIME}", "<watch>").body
    return ast.fix_missing_locations(tree)


def _start(tree: ast.Module) -> int:
    """Return the index behind the docstring and the imports from ``__future__``, which must stay first."""
    futures = [isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body]
    behind = [index + 1 for index, is_future in enumerate(futures) if is_future]
    return max(behind, default=int(ast.get_docstring(tree, clean=False) is not None))


def _instrument(node: FunctionNode, number: int, names: list[str]) -> None:
    given = ast.Tuple([ast.Name(name, ast.Load()) for name in names], ast.Load())
    enter = ast.Assign([ast.Name(_CALL, ast.Store())], _told("enter", ast.Constant(number), given))
    change = _Items() if is_generator(node) else _Returns()
    body = [change.changed(statement) for statement in node.body]
    last = _at_the_end(node)
    if last is not None:
        body.append(ast.copy_location(ast.Expr(last), node.body[-1]))
    start = int(ast.get_docstring(node, clean=False) is not None)
    body.insert(start, ast.copy_location(enter, node.body[0]))
    node.body = body


def _at_the_end(node: FunctionNode) -> ast.Call | None:
    """Return what tells that a body has come to its end, where nothing else would."""
    if is_generator(node):
        has_own_items = any(isinstance(inner, ast.Yield) for inner in own_nodes(node))
        return None if has_own_items else _told("end", ast.Name(_CALL, ast.Load()))
    return None if isinstance(node.body[-1], ast.Return | ast.Raise) else _leave(ast.Constant(None))


def _told(method: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(ast.Attribute(ast.Name(RUNTIME, ast.Load()), method, ast.Load()), [*arguments], [])


def _leave(value: ast.expr) -> ast.Call:
    return _told("leave", ast.Name(_CALL, ast.Load()), value)


class _OwnBody(ast.NodeTransformer):
    """Changes a body, and no function or class inside it."""

    def changed(self, statement: ast.stmt) -> ast.stmt:
        """Change a statement of the body."""
        return cast("ast.stmt", self.visit(statement))

    def visit(self, node: ast.AST) -> ast.AST:
        """Change a node."""
        return node if isinstance(node, _OTHER_SCOPES) else super().visit(node)


class _Returns(_OwnBody):
    def visit_Return(self, node: ast.Return) -> ast.AST:  # the name that `ast` looks for
        """Tell of what is returned."""
        return ast.copy_location(ast.Return(_leave(node.value or ast.Constant(None))), node)


class _Items(_OwnBody):
    def visit_Yield(self, node: ast.Yield) -> ast.AST:  # likewise
        """Tell of an item."""
        self.generic_visit(node)
        return ast.copy_location(ast.Yield(_leave(node.value or ast.Constant(None))), node)
