"""How every parameter of a package is enforced, so that nothing is left to chance unseen.

Looks at what is defined and calls nothing. Imports the package.
"""

import dataclasses
import importlib
import inspect
import pkgutil
import typing
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Literal, TypeVar

from ._declared import declared, is_tensor_annotation, mentions_tensor
from ._descriptors import functions_in
from ._inheritance import contract_within
from ._nodes import Node, PlainNode, tensor_specs
from ._records import constructions, is_record
from ._render import describe_annotation
from ._resolve import alias_value, is_alias

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
    return [entry for module in _modules(package) for entry in _of_members(module, module.__name__)]


def _modules(package: str) -> Iterator[ModuleType]:
    root = importlib.import_module(package)
    yield root
    for found in pkgutil.walk_packages(getattr(root, "__path__", []), f"{package}."):
        if not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


def _of_members(holder: Any, module: str) -> Iterator[Enforcement]:
    members: dict[str, Any] = {**vars(holder)}
    for name, member in members.items():
        if isinstance(member, type):
            if member.__module__ == module and name == member.__name__:
                yield from _of_class(member)
            continue
        for function in functions_in(member):
            code = getattr(inspect.unwrap(function), "__code__", None)
            if code is not None and function.__module__ == module and code.co_filename != "<string>":  # generated
                is_method = isinstance(holder, type) and not isinstance(member, staticmethod)
                yield from _of_function(function, is_method)


def _of_class(kind: Any) -> Iterator[Enforcement]:
    """Yield the fields of a record, then what is defined in the class; the constructor of a record is generated."""
    if is_record(kind):
        known, name = constructions.get(kind), f"{kind.__module__}.{kind.__qualname__}"
        for field, (hint, _) in declared(kind).items():
            how: How = "where it crosses" if mentions_tensor(hint) else "no contract"
            if known is not None:
                how = _how(known.fields.get(field), "compiled" if known.is_compiled else "reference")
            yield Enforcement(name, field, describe_annotation(hint), how)
    yield from _of_members(kind, kind.__module__)


def _of_function(function: Any, is_method: bool) -> Iterator[Enforcement]:
    contract = contract_within(function)
    signature = inspect.signature(inspect.unwrap(function))
    hints: dict[str, Any] = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    hints = {name: hint for index, (name, hint) in enumerate(hints.items()) if index or not is_method}
    if signature.return_annotation is not inspect.Signature.empty:
        hints["return"] = signature.return_annotation
    engine: How = "compiled" if hasattr(function, "__contract_source__") else "reference"
    for name, hint in hints.items():
        annotation = "" if hint is inspect.Parameter.empty else describe_annotation(hint)
        how = _uncontracted(hint) if contract is None else _how(contract.boundary.nodes.get(name), engine)
        yield Enforcement(f"{function.__module__}.{function.__qualname__}", name, annotation, how)


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
