"""How every parameter of a package is enforced, so that nothing is left to chance unseen.

Looks at what is defined and calls nothing. Imports the package.
"""

import dataclasses
import inspect
import typing
from collections.abc import Iterator
from typing import Any, Literal, TypeVar

from .._annotations.declared import declared, is_tensor_annotation, mentions_tensor
from .._annotations.nodes import Node, PlainNode, tensor_specs
from .._annotations.resolve import alias_value, is_alias
from .._boundaries.records import constructions
from .._render import describe_annotation
from ._package import Member, members_of

How = Literal[
    "compiled",
    "reference",
    "beartype",
    "where it crosses",
    "anything",
    "not annotated",
    "no contract",
    "tensor without contract",
]


@dataclasses.dataclass(frozen=True)
class Enforcement:
    """What is made of one parameter, or of the result (``return``), of one function, or of one field of a record.

    Attributes:
        function: Qualified name of the function or record.
        parameter: Name.
        annotation: As it would be written; empty where there is none.
        how: ``compiled`` or ``reference``: the engine that checks the tensors inside; ``beartype``: checked, no tensors
            inside; ``where it crosses``: a field of a record without a contract of its own, checked wherever the record
            crosses one; ``anything``: the annotation accepts every value; ``not annotated``: the rest of the function has a
            contract; ``no contract``: annotated, and nobody checks it; ``tensor without contract``: the same, though
            the annotation says something of a tensor.
    """

    function: str
    parameter: str
    annotation: str
    how: How

    def __str__(self) -> str:
        """Return one line of a report."""
        return f"{self.function}, {self.parameter}: {self.annotation or '-'}: {self.how}"


def enforcement(package: str) -> list[Enforcement]:
    """Tell how each parameter and result of every function of a package is enforced.

    Args:
        package: Name of a package or module; its submodules are imported, except ``__main__``.

    Returns:
        One entry for each parameter of the functions and methods that are defined there, in the order of the source;
        ``self`` and ``cls``, and results that are not annotated, are left out.
    """
    return [entry for member in members_of(package) for entry in _of_member(member)]


def _of_member(member: Member) -> Iterator[Enforcement]:
    return _of_record(member) if member.is_record else _of_function(member)


def _of_record(member: Member) -> Iterator[Enforcement]:
    known = constructions.get(member.value)
    for field, (hint, _) in declared(member.value).items():
        how: How = "where it crosses" if mentions_tensor(hint) else "no contract"
        if known is not None:
            how = _how(known.fields.get(field), "compiled" if known.is_compiled else "reference")
        yield Enforcement(member.name, field, describe_annotation(hint), how)


def _of_function(member: Member) -> Iterator[Enforcement]:
    signature = inspect.signature(inspect.unwrap(member.value))
    hints: dict[str, Any] = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    hints = {name: hint for index, (name, hint) in enumerate(hints.items()) if index or not member.has_owner}
    if signature.return_annotation is not inspect.Signature.empty:
        hints["return"] = signature.return_annotation
    engine: How = "compiled" if hasattr(member.value, "__contract_source__") else "reference"
    for name, hint in hints.items():
        annotation = "" if hint is inspect.Parameter.empty else describe_annotation(hint)
        contract = member.contract
        how = _uncontracted(hint) if contract is None else _how(contract.boundary.nodes.get(name), engine)
        yield Enforcement(member.name, name, annotation, how)


def _uncontracted(hint: Any) -> How:
    return "tensor without contract" if _names_tensor(hint) else "no contract"


def _names_tensor(hint: Any) -> bool:
    """Tell whether a hint itself says something of a tensor; a record says so of its fields, wherever it crosses."""
    hint = alias_value(hint) if is_alias(hint) else hint
    return is_tensor_annotation(hint) or any(map(_names_tensor, typing.get_args(hint)))


def _how(node: Node | None, engine: How) -> How:
    if node is None:
        return "not annotated"
    if tensor_specs([node]):
        return engine
    is_open = isinstance(node, PlainNode) and (node.hint in (Any, object) or isinstance(node.hint, TypeVar))
    return "anything" if is_open else "beartype"
