"""Contracts on records: checked when they are built, and again wherever they cross a contract.

TypedDicts are plain dicts, which nobody builds: they are checked where they cross a contract, and refused here if an
annotation makes no sense.
"""

import copy
import functools
import inspect
import weakref
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .._annotations.declared import declared, is_named_tuple, is_typed_dict
from .._annotations.nodes import AttributesNode, Node, Visit, tensor_specs
from .._annotations.structure import Builder
from .._compiler.compile import compile_acceptor
from .._compiler.tracing import TracedContractError, run_while_tracing
from .._diagnosis.diagnose import Place
from .._location import location_of
from .._settings import engine, is_tracing, mode_at_call, mode_at_definition
from ..axes import Axes
from ..errors import ContractError
from .boundary import Boundary

_MARKS = ("__dataclass_fields__", "__attrs_attrs__", "__pydantic_fields__")  # on the class itself, and not on a base


constructions: "weakref.WeakKeyDictionary[type, Construction]" = weakref.WeakKeyDictionary()


class Construction(NamedTuple):
    """The contract of a record class.

    Attributes:
        fields: What each field must be.
        is_compiled: Whether new records are checked by a compiled contract.
        ties: Expressions that dims are tied to when a record is built.
        axes: Registry of the project's dims.
    """

    fields: Mapping[str, Node]
    is_compiled: bool
    ties: Mapping[str, str]
    axes: Axes | None


def is_record(target: Any) -> bool:
    """Tell whether a class is a record: a dataclass, NamedTuple or TypedDict, or a class of attrs or pydantic."""
    is_class = isinstance(target, type) and any(mark in vars(target) for mark in _MARKS)
    return is_class or is_named_tuple(target) or is_typed_dict(target)


def guard_record(kind: Any, ties: Mapping[str, str], axes: Axes | None) -> bool:
    """Put a contract on the fields of a record class; tell whether one holds an annotated tensor.

    Raises:
        ContractDefinitionError: An annotation makes no sense.
    """
    nodes = _nodes_of(kind)
    if not tensor_specs(nodes.values()):
        return False
    boundary = boundary_of(kind, ties, axes, nodes)
    node = nodes["self"]
    if isinstance(node, AttributesNode) or len(nodes) > 1:
        is_compiled = _check_construction(kind, "__new__" if is_named_tuple(kind) else "__init__", boundary, ties)
        constructions[kind] = Construction(getattr(node, "fields", {}), is_compiled, ties, axes)
    return True


def boundary_of(
    kind: Any, ties: Mapping[str, str], axes: Axes | None, nodes: Mapping[str, Node] | None = None
) -> Boundary:
    """Return what judges the records of a class when they are built.

    Args:
        kind: The class.
        ties: Expressions that dims are tied to.
        axes: Registry of the project's dims.
        nodes: What the record and its constructor's other arguments must be, if that is known.

    Raises:
        ContractDefinitionError: An annotation makes no sense.
    """
    nodes = _nodes_of(kind) if nodes is None else nodes
    place = Place(f"{kind.__module__}.{kind.__qualname__}", location_of(kind))
    return Boundary(place, nodes, ties, axes, nodes)


def _nodes_of(kind: Any) -> dict[str, Node]:
    return {"self": Builder().node(kind, kind.__qualname__), **_only_given(kind)}


def _only_given(kind: Any) -> dict[str, Node]:
    """Return what the constructor of a dataclass takes without keeping it."""
    return {
        name: Builder().node(item.hint, f"{name!r} of {kind.__qualname__}")
        for name, item in declared(kind).items()
        if "InitVar" in item.qualifiers
    }


def _check_construction(kind: Any, constructor: str, boundary: Boundary, ties: Mapping[str, str]) -> bool:
    """Check the fields of every instance right after its constructor ran; tell whether that is compiled."""
    construct = getattr(kind, constructor)
    judge, judge_traced, accepts = _judges(boundary, ties)
    node = boundary.nodes["self"]
    fields = list(node.fields) if isinstance(node, AttributesNode) and constructor == "__init__" else []
    given = _taker(construct, [name for name in boundary.nodes if name != "self"])

    @functools.wraps(construct)
    def checked(first: Any, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        result = construct(first, *args, **kwargs)
        record = first if constructor == "__init__" else result
        if type(record) is not kind:  # a subclass may still be half built; it has its own contract
            return result
        arguments = {"self": record} if given is None else {"self": record, **given(first, *args, **kwargs)}
        if accepts(*arguments.values()):
            return result
        if is_tracing():  # what was assigned is known to the tracer, and not yet to the record
            judge_traced({name: getattr(record, name) for name in fields}, arguments)
        elif (error := judge(arguments)) is not None:
            raise error from None
        return result

    setattr(kind, constructor, checked)
    return accepts is not _never


def _taker(construct: Callable[..., Any], names: list[str]) -> Callable[..., dict[str, Any]] | None:
    """Return a function that picks some arguments out of those of a constructor; None if there is nothing to pick."""
    if not names:
        return None
    signature = inspect.signature(construct)

    def take(*args: Any, **kwargs: Any) -> dict[str, Any]:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return {name: bound.arguments[name] for name in names}

    return take


_Judge = Callable[[dict[str, Any]], ContractError | None]


def _judges(
    boundary: Boundary, ties: Mapping[str, str]
) -> tuple[_Judge, Callable[[dict[str, Any], dict[str, Any]], None], Callable[..., bool]]:
    """Return what judges a new record and what its constructor was given, by name, and what may accept it before.

    They are functions and no methods: dynamo cannot trace a constructor that holds those.
    """
    defined = mode_at_definition()

    def visits(arguments: Mapping[str, Any]) -> list[Visit]:
        paths = {"self": ""}  # the fields have the names that the constructor has for them
        return [(paths.get(name, name), value, boundary.nodes[name]) for name, value in arguments.items()]

    def judge(arguments: dict[str, Any]) -> ContractError | None:
        mode = mode_at_call(defined)
        return None if mode == "off" else boundary.enter(arguments, visits(arguments), mode).error

    def judge_traced(fields: dict[str, Any], arguments: dict[str, Any]) -> None:
        record = copy.copy(arguments["self"])
        for name, value in fields.items():
            object.__setattr__(record, name, value)
        if (error := judge({**arguments, "self": record})) is not None:
            raise TracedContractError(str(error), error.violations)

    def crossed(arguments: dict[str, Any], result: None) -> None:
        del result
        boundary.crossed(visits(arguments))

    accepts = None
    if engine() == "compiled":
        accepts = compile_acceptor(
            boundary.nodes, boundary.nodes, ties, boundary.limits, crossed if defined == "strict" else None
        )
    return judge, run_while_tracing(judge_traced), accepts or _never


def _never(*values: Any) -> bool:
    del values
    return False
