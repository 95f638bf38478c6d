"""What stands behind an annotation in ``Annotated``: validators, kinds, documentation; anything else is refused."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from .._render import dtype_name
from .._settings import is_tracing
from ..errors import ContractDefinitionError, Mismatch
from ..kinds import Kind, conflict, declare
from ..values import Bounded, can_be_read, is_within
from .nodes import Node, PlainNode, TensorNode, UnionNode, Visit, tensor_specs, walk
from .reference import as_beartype_validator
from .scope import Scope, ndim_fits, shape_mismatches

_NOISE = re.compile(r" at 0x[0-9a-f]+|\bbeartype\.vale\.")

_Named = tuple[str, Callable[[Any], object]]  # a validator, and how it is written


class RefinedNode(Node):
    """An annotation with more to ask: validators to run and kinds to require.

    Attributes:
        inner: What the annotation itself says.
        asked: What is asked of a value that `inner` has accepted.
    """

    def __init__(self, inner: Node, validators: list[_Named], kinds: tuple[Kind, ...]) -> None:
        self.inner = inner
        self.validators = validators
        self.kinds = kinds
        self._bounded = [validator for _, validator in validators if isinstance(validator, Bounded)]
        self._others = [(name, validator) for name, validator in validators if not isinstance(validator, Bounded)]
        self._all = [(name, one.find if isinstance(one, Bounded) else one) for name, one in validators]
        self.text = f"Annotated[{', '.join([inner.text, *(name for name, _ in validators), *map(str, kinds)])}]"
        self.asked = Asked(self)

    def accepts_kind(self, value: object) -> bool:
        return self.inner.accepts_kind(value)

    def visit(self, value: Any, path: str) -> tuple[list[Mismatch], list[Visit]]:
        return [], [(path, value, self.inner)]

    def children(self) -> Iterator[Node]:
        yield self.inner

    def is_valid(self, value: Any) -> bool:
        """Tell whether the validators find nothing, or cannot look."""
        return value is None or not self._invalid(value)

    def mismatches(self, value: Any) -> list[Mismatch]:
        """Return what the validators and kinds have against a value; nothing is asked of None."""
        return [] if value is None else [*self._invalid(value), *self._confused(value)]

    def _invalid(self, value: Any) -> list[Mismatch]:
        if not can_be_read(value):
            return []
        asked = self._others if self._bounded and is_within(value, self._bounded) else self._all
        found = ((name, _reason(name, validator, value)) for name, validator in asked)
        return [Mismatch("value", reason, name) for name, reason in found if reason is not None]

    def _confused(self, value: Any) -> list[Mismatch]:
        confused = conflict(value, self.kinds) if self.kinds else None
        if confused is None:
            return []
        declared, source, required = confused
        return [Mismatch("kind", f"{declared} by {source}", str(required))]


class Asked(Node):
    """What validators and kinds say of a value, to be visited when its own annotation has accepted it.

    Attributes:
        needs: The dims that must be bound before the annotation can be judged.
    """

    def __init__(self, refined: RefinedNode) -> None:
        self.text = refined.text
        self.needs = frozenset[str]().union(*(spec.needs for spec in tensor_specs([refined.inner])))
        self._refined = refined

    def accepts_kind(self, value: object) -> bool:
        return self._refined.accepts_kind(value)

    def visit(self, value: Any, path: str) -> tuple[list[Mismatch], list[Visit]]:
        return self._refined.mismatches(value), []


def refine(inner: Node, metadata: Sequence[Any], where: str) -> Node:
    """Return a node that also enforces what an ``Annotated`` says besides the type.

    Args:
        inner: Node of the type.
        metadata: What stands behind it.
        where: What carries the annotation, for messages.

    Raises:
        ContractDefinitionError: Something would not be checked.
    """
    has_tensors = _is_array_node(inner) or bool(tensor_specs([inner]))
    validators: list[_Named] = []
    kinds: list[Kind] = []
    for item in metadata:
        if isinstance(item, Kind):
            kinds.append(item)
        elif (validator := _as_validator(item)) is not None:
            validators.append((_name(item), validator))
        elif has_tensors and not _is_documentation(item):
            _refuse(item, where)
    _require_sense(inner, kinds, where)
    return RefinedNode(inner, validators, tuple(kinds)) if validators or kinds else inner


def _as_validator(item: Any) -> Callable[[Any], object] | None:
    return as_beartype_validator(item) or (item if callable(item) and not isinstance(item, type) else None)


def _name(item: Any) -> str:
    """Return a validator as it would be written, the same text in every process."""
    return _NOISE.sub("", getattr(item, "__name__", None) or repr(item))


def _is_documentation(item: Any) -> bool:
    return isinstance(item, str) or type(item).__name__ == "Doc"


def _refuse(item: Any, where: str) -> None:
    cure = f"write {item.__name__}(...)" if isinstance(item, type) else "remove it or write a function of the value"
    msg = f"{_name(item)} in the annotation of {where} is no validator, kind or text and would not be checked: {cure}."
    raise ContractDefinitionError(msg)


def _require_sense(inner: Node, kinds: list[Kind], where: str) -> None:
    if kinds and not _is_array_node(inner):
        msg = f"{kinds[0]} in the annotation of {where} says what a tensor means, but {inner.text} is no tensor."
        raise ContractDefinitionError(msg)
    families = [type(kind) for kind in kinds]
    if len(set(families)) < len(families):
        msg = f"{' and '.join(map(str, kinds))} in the annotation of {where} exclude each other."
        raise ContractDefinitionError(msg)


def _is_array_node(node: Node) -> bool:
    if isinstance(node, UnionNode):
        return all(map(_is_array_node, node.alternatives))
    if isinstance(node, RefinedNode):
        return _is_array_node(node.inner)
    return isinstance(node, TensorNode) or (isinstance(node, PlainNode) and hasattr(node.hint, "shape"))


def _fits_alone(node: Node, value: Any) -> bool:
    """Tell whether a value looks right by itself, whatever the other values bind."""
    if isinstance(node, UnionNode):
        return any(_fits_alone(alternative, value) for alternative in node.alternatives)
    if isinstance(node, RefinedNode):
        return _fits_alone(node.inner, value)
    if not isinstance(node, TensorNode):
        return node.accepts_kind(value)
    spec = node.spec
    if not spec.accepts_array(value) or not spec.accepts_dtype(dtype_name(value.dtype)):
        return False
    shape = tuple(value.shape)
    return ndim_fits(spec, len(shape)) if spec.arguments else not shape_mismatches(spec, shape, Scope({}))


def _reason(name: str, validator: Callable[[Any], object], value: Any) -> str | None:
    reason = validator(value)
    if reason is None or isinstance(reason, str):
        return reason
    msg = f"Expected the validator {name} to return None or what is wrong, got {reason!r}."
    raise ContractDefinitionError(msg)


# --- for compiled contracts -------------------------------------------------------------------------------
def values_gate(node: RefinedNode) -> Callable[[Any], bool]:
    """Return a function that tells whether validators find nothing; nobody asks them while a graph is traced."""
    return lambda value: is_tracing() or node.is_valid(value)


def kinds_gate(wanted: Sequence[tuple[tuple[Kind, ...], str]], boundary: str) -> Callable[..., bool]:
    """Return a function of arrays that declares their kinds, or tells that this contradicts what is known.

    Args:
        wanted: Kinds and path of each array.
        boundary: Name of the boundary, for errors.
    """
    sources = [(kinds, source_of(path, boundary)) for kinds, path in wanted]
    return lambda *arrays: is_tracing() or declare(sources, *arrays)


# --- what an accepted call declares -----------------------------------------------------------------------
def has_kinds(roots: Iterable[Node]) -> bool:
    """Tell whether a kind is declared anywhere in some trees."""
    return any(isinstance(node, RefinedNode) and bool(node.kinds) for node in walk(roots))


def declare_kinds(visits: Iterable[Visit], boundary: str) -> None:
    """Declare the kinds of accepted values; where several alternatives of a union fit, nothing is known.

    Args:
        visits: The values and what they were accepted for.
        boundary: Name of the boundary, for errors.
    """
    pending = list(visits)
    while pending:
        path, value, node = pending.pop()
        if isinstance(node, UnionNode):
            fitting = [one for one in node.alternatives if _may_be(one, value)]
            pending += [(path, value, one) for one in fitting if len(fitting) == 1]
        elif isinstance(node, RefinedNode):
            declare([(node.kinds, source_of(path, boundary))], value)
            pending.append((path, value, node.inner))
        else:
            pending += node.visit(value, path)[1]


def _may_be(node: Node, value: Any) -> bool:
    contradicted = isinstance(node, RefinedNode) and conflict(value, node.kinds) is not None
    return not contradicted and _fits_alone(node, value)


def source_of(path: str, boundary: str) -> str:
    """Return who declares a value at a path, for errors."""
    return f"the result of {boundary}" if path == "return" else f"{path!r} of {boundary}"
