"""Contracts on records: dataclasses and NamedTuples are checked when built, TypedDicts wherever they cross a contract."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from ._boundary import Boundary
from ._diagnose import Place
from ._location import caller_frame, location_of
from ._settings import mode_at_call, mode_at_definition
from ._structure import AttributesNode, Builder, is_named_tuple, is_typed_dict, tensor_specs
from .axes import Axes
from .errors import ContractDefinitionError


def is_record(target: Any) -> bool:
    """Tell whether a class is a dataclass, a NamedTuple or a TypedDict."""
    is_dataclass = isinstance(target, type) and "__dataclass_fields__" in vars(target)
    return is_dataclass or is_named_tuple(target) or is_typed_dict(target)


def guard_record(kind: Any, ties: Mapping[str, str], axes: Axes | None) -> Any:
    """Put a contract on a record class and return the class.

    Raises:
        ContractDefinitionError: No field holds an annotated tensor, or an annotation makes no sense.
    """
    node = Builder(caller_frame().f_locals).node(kind, kind.__qualname__)
    if not tensor_specs([node]):
        msg = f"No field of {kind.__qualname__} is an annotated tensor: there is nothing to check."
        raise ContractDefinitionError(msg)
    place = Place(f"{kind.__module__}.{kind.__qualname__}", location_of(kind))
    boundary = Boundary(place, {"self": node}, ties, axes, ["self"])
    if isinstance(node, AttributesNode):
        _check_construction(kind, "__init__" if dataclasses.is_dataclass(kind) else "__new__", boundary, node)
    return kind


def _check_construction(kind: Any, constructor: str, boundary: Boundary, node: AttributesNode) -> None:
    """Check the fields of every instance right after its constructor ran."""
    construct, defined = getattr(kind, constructor), mode_at_definition()

    @functools.wraps(construct)
    def checked(first: Any, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        result = construct(first, *args, **kwargs)
        record = first if constructor == "__init__" else result
        mode = mode_at_call(defined)
        if mode != "off" and type(record) is kind:  # a subclass may still be half built; it has its own contract
            verdict = boundary.enter({"self": record}, [("", record, node)], mode)
            if verdict.error is not None:
                raise verdict.error
        return result

    setattr(kind, constructor, checked)
