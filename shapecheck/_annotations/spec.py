"""A jaxtyping annotation, parsed once: dtype names and dims, with every malformed axis refused.

jaxtyping reads most typing mistakes (``b>0``, ``b.c``, ``(n``, ``n // 2``) as symbolic axes that it evaluates later,
or never. Here they are errors when the contract is defined.
"""

import ast
import dataclasses
import functools
import keyword
import re
import unicodedata
from collections.abc import Mapping
from typing import Any, Literal, cast

from .._syntax import parse_expression
from ..errors import ContractDefinitionError

DimKind = Literal["fixed", "named", "symbolic", "anonymous", "variadic"]

_ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Div, ast.Mod, ast.Pow, ast.USub, ast.UAdd)
_FUNCTIONS = {"abs", "int", "max", "min", "round"}
_LOOK_ALIKES = str.maketrans("АВЕІЈКМНОРСЅТХУаеоірсухјѕΑΒΕΖΗΙΚΜΝΟΡΤΥΧο", "ABEIJKMHOPCSTXYaeoipcyxjsABEZHIKMNOPTYXo")  # noqa: RUF001  # Cyrillic, Greek
_CURES = (  # what is written where a malformed axis has this, and what was probably meant
    (r",", "separate axes by spaces, not by commas."),
    (r":", "write c=3 for an axis of size 3 that is called c."),
    (r"[<>!]|==", "an axis has one size; a range of sizes belongs in the registry of dims (Axes)."),
    (r"[A-Za-z_]\.", "arguments go in braces: {self.dim}."),
    (r"^[^(]*\)|\([^)]*$|[\[\]]", "brackets do not group axes (write b*c for two that were merged)."),
    (r"^[-+*/%]+$", "spaces separate axes: write n//2, not n // 2."),
    (r"", "it is no name, no number and no integer arithmetic on dims (abs, int, max, min and round may be used)."),
)
BRACES = re.compile(r"\{([^{}]*)\}")


@dataclasses.dataclass(frozen=True)
class Dim:
    """One axis of a spec, or the run of axes that a variadic dim stands for.

    Attributes:
        kind: How the axis is matched.
        text: The axis as written, without markers: a name, a number, an expression, or nothing.
        size: Size of a fixed axis.
        broadcastable: Whether size 1 is accepted in place of the dim's size (``#``).
        names: Dims that a symbolic axis refers to.
        arguments: Call arguments that a symbolic axis refers to (inside braces).
    """

    kind: DimKind
    text: str
    size: int = -1
    broadcastable: bool = False
    names: frozenset[str] = frozenset()
    arguments: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """What one annotated tensor must be.

    Attributes:
        annotation: The jaxtyping class, which holds the array type and the accepted dtypes.
        dims: Its axes.
        variadic: Index of the variadic dim in `dims`, or None.
    """

    annotation: Any
    dims: tuple[Dim, ...]
    variadic: int | None

    @functools.cached_property
    def bound(self) -> frozenset[str]:
        """Names that a tensor of this spec can bind."""
        return frozenset(dim.text for dim in self.dims if dim.kind in {"named", "variadic"} and dim.text)

    @functools.cached_property
    def referred(self) -> frozenset[str]:
        """Names that symbolic axes refer to."""
        return frozenset[str]().union(*(dim.names for dim in self.dims))

    @functools.cached_property
    def needs(self) -> frozenset[str]:
        """Names that symbolic axes refer to and that another value must bind."""
        return self.referred - {dim.text for dim in self.dims if dim.kind == "named" and not dim.broadcastable}

    @functools.cached_property
    def arguments(self) -> frozenset[str]:
        """Call arguments that symbolic axes refer to."""
        return frozenset[str]().union(*(dim.arguments for dim in self.dims))

    def accepts_array(self, value: object) -> bool:
        """Tell whether a value is an array of the annotated library and type."""
        array_type = self.annotation.array_type
        if array_type is Any:
            return hasattr(value, "shape") and hasattr(value, "dtype")
        return isinstance(value, array_type)

    def accepts_dtype(self, name: str) -> bool:
        """Tell whether a dtype of this name belongs to the annotated family."""
        dtypes: Any = self.annotation.dtypes
        if not isinstance(dtypes, tuple):  # jaxtyping's marker for "any dtype"
            return True
        known = cast("tuple[str | re.Pattern[str], ...]", dtypes)
        return any(name == dtype if isinstance(dtype, str) else bool(dtype.match(name)) for dtype in known)


@functools.lru_cache(maxsize=1024)  # contracts that use the same annotation share its spec
def parse_annotation(annotation: Any) -> TensorSpec:
    """Parse a jaxtyping annotation.

    Raises:
        ContractDefinitionError: An axis is malformed.
    """
    text: str = annotation.dim_str
    dims = tuple(_parse_axis(axis, text) for axis in text.split())
    variadic = [index for index, dim in enumerate(dims) if dim.kind == "variadic"]
    return TensorSpec(annotation, dims, variadic[0] if variadic else None)


def _malformed(axis: str, spec: str, reason: str | None = None) -> ContractDefinitionError:
    cure = reason or next(cure for pattern, cure in _CURES if re.search(pattern, BRACES.sub("", axis)))
    return ContractDefinitionError(f'Malformed axis {axis!r} in the shape "{spec}": {cure}')


def _parse_axis(axis: str, spec: str) -> Dim:
    """Parse one space-separated axis; the two variadics and doubled markers are jaxtyping's to refuse."""
    if axis == "...":
        return Dim("variadic", "")
    markers, body = _split_markers(axis)
    if "?" in markers:
        raise _malformed(axis, spec, "'?' means something only inside PyTree annotations, which are not checked.")
    if "_" in markers:
        return Dim("variadic" if "*" in markers else "anonymous", "")
    if not body:
        raise _malformed(axis, spec, f"{axis!r} must be followed by a name or a size.")
    _require_legible(axis, body, spec)
    broadcastable = "#" in markers
    if "*" in markers:
        return Dim("variadic", body, broadcastable=broadcastable)
    if keyword.iskeyword(body):
        raise _malformed(axis, spec, "it is a Python keyword (spaces separate axes).")
    if body.isidentifier():
        return Dim("named", body, broadcastable=broadcastable)
    if body.lstrip("+-").isdigit():
        if int(body) < 0:
            raise _malformed(axis, spec, "a size cannot be negative.")
        return Dim("fixed", body, size=int(body), broadcastable=broadcastable)
    names, arguments = _names_of_expression(axis, body, spec)
    return Dim("symbolic", body, broadcastable=broadcastable, names=names, arguments=arguments)


def _require_legible(axis: str, body: str, spec: str) -> None:
    """Refuse letters that look like others, or that Python takes for others: two dims would be told apart by nobody."""
    normal = unicodedata.normalize("NFKC", body)
    latin = normal.translate(_LOOK_ALIKES)
    meant = latin if latin.isascii() else normal
    if meant != body:
        raise _malformed(
            axis, spec, f"it looks like {meant!r} but has other letters ({ascii(body)[1:-1]}). Type it anew."
        )


def _split_markers(axis: str) -> tuple[str, str]:
    """Split ``#``, ``*``, ``_``, ``?`` and the documentation prefix ``name=`` from an axis, as jaxtyping does."""
    end = 0
    markers = ""
    while end < len(axis):
        if axis[end] in "#*_?":
            markers += axis[end]
            end += 1
        elif axis[end:].count("=") == 1:
            end = axis.index("=", end) + 1
        else:
            break
    return markers, axis[end:]


def _names_of_expression(axis: str, body: str, spec: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return the dims and the call arguments that a symbolic axis refers to."""
    arguments = [_parsed_axis(part, axis, spec) for part in BRACES.findall(body)]
    tree = _parsed_axis(BRACES.sub("1", body), axis, spec)
    functions = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for node in ast.walk(tree):
        if node not in functions and not _is_arithmetic(node):
            raise _malformed(axis, spec)
    return _free_names(tree), frozenset[str]().union(*map(_free_names, arguments))


def _parsed_axis(text: str, axis: str, spec: str) -> ast.Expression:
    try:
        return parse_expression(text)
    except SyntaxError:
        raise _malformed(axis, spec) from None


def _is_arithmetic(node: ast.AST) -> bool:
    """Tell whether a node, and not what is inside it, is integer arithmetic on dims."""
    if isinstance(node, ast.Name):
        return node.id not in _FUNCTIONS
    if isinstance(node, ast.Constant):
        return type(node.value) is int
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS
    return isinstance(node, (ast.Expression, ast.BinOp, ast.UnaryOp, ast.Load, *_ARITHMETIC))


def _free_names(tree: ast.AST) -> frozenset[str]:
    return frozenset(node.id for node in ast.walk(tree) if isinstance(node, ast.Name)) - _FUNCTIONS


def expression_names(text: str, purpose: str) -> frozenset[str]:
    """Return the names used by the Python expression `text`, such as a size that a dim is tied to.

    Raises:
        ContractDefinitionError: The text is not an expression.
    """
    try:
        return _free_names(parse_expression(text))
    except SyntaxError:
        msg = f"Expected {purpose} to be a Python expression, got {text!r}."
        raise ContractDefinitionError(msg) from None


def symbolic_size(dim: Dim, sizes: Mapping[str, int], arguments: Mapping[str, Any]) -> int | None:
    """Evaluate a symbolic axis; None when it refers to a dim that nothing has bound, or divides by one of size 0."""
    if not dim.names <= sizes.keys():
        return None
    text = BRACES.sub(lambda match: str(eval(match[1], dict(arguments))), dim.text)
    try:
        return eval(text, dict(sizes))  # the author's own annotation, restricted to arithmetic above
    except ZeroDivisionError:
        return None
