"""Signatures as text, ``img: B C H W, mask: B H W``, and those of functions, as what their tensors must be."""

import dataclasses
import functools
import importlib
import re
from collections.abc import Mapping
from typing import Any

from jaxtyping import Shaped
from torch import Tensor

from ..._annotations.nodes import Node, TensorNode, tensor_specs
from ..._boundaries.boundary import Boundary
from ..._boundaries.descriptors import functions_in
from ..._boundaries.inheritance import contract_within
from ..._diagnosis.diagnose import Place
from ...errors import ContractDefinitionError
from .._mutation.specimen import Subject, subject_of_function, subject_of_value

_FUNCTION = re.compile(r"[\w.]+:[\w.]+")
_ALONE = "x"  # what a tensor is called that has no name


@dataclasses.dataclass(frozen=True)
class Signature:
    """What some values must be.

    Attributes:
        texts: How each is written, by name; the result is called ``return``.
        nodes: What each must be.
        subject: The same as something to be measured.
    """

    texts: Mapping[str, str]
    nodes: Mapping[str, Node]
    subject: Subject

    @property
    def boundary(self) -> Boundary:
        """Who judges."""
        return self.subject.boundary


def read_signature(text: str, dims: Mapping[str, int] | None = None) -> Signature:
    """Read ``B C H W``, ``img: B C H W, mask: B H W -> B H W``, or ``module:function``.

    Args:
        text: Dims of one tensor, of several with names, or where a function under contract is found.
        dims: Sizes that some dims must have; not for functions.

    Raises:
        ContractDefinitionError: It makes no sense.
        ImportError: The module cannot be imported.
    """
    if _FUNCTION.fullmatch(text.strip()):
        return _of_function(*text.strip().split(":"))
    texts = _split(text)
    nodes: dict[str, Node] = {name: _tensor(spec) for name, spec in texts.items()}
    sizes = dict(dims or {})
    ties = {dim: f"dims[{dim!r}]" for dim in sizes}
    boundary = Boundary(Place("the call", None), nodes, ties, None, ["dims"])
    return Signature(texts, nodes, subject_of_value(boundary, ties, sizes, {}))


def _split(text: str) -> dict[str, str]:
    given, arrow, result = text.partition("->")
    parts = [part.strip() for part in given.split(",")]
    named = [part.partition(":") for part in parts]
    if len(parts) == 1 and not named[0][1]:
        texts = {_ALONE: parts[0]}
    elif all(name.strip().isidentifier() and colon for name, colon, _ in named):
        texts = {name.strip(): " ".join(dims.split()) for name, _, dims in named}
    else:
        msg = f"Expected the dims of one tensor, or 'name: dims' for each of several with commas between, got {text!r}."
        raise ContractDefinitionError(msg)
    if len(texts) < len(parts):
        msg = f"Expected every tensor to have a name of its own, got {text!r}."
        raise ContractDefinitionError(msg)
    return {**texts, "return": result.strip()} if arrow else texts


def _tensor(dims: str) -> TensorNode:
    try:
        return TensorNode(Shaped[Tensor, dims])
    except ValueError as error:  # jaxtyping's own, such as two variadic dims
        msg = f'Malformed shape "{dims}": {error}'
        raise ContractDefinitionError(msg) from None


def _of_function(module: str, name: str) -> Signature:
    found: Any = importlib.import_module(module)
    try:
        found = functools.reduce(getattr, name.split("."), found)
    except AttributeError:
        msg = f"Expected {module} to have {name}, got a module without."
        raise ContractDefinitionError(msg) from None
    member = vars(found).get("forward") if isinstance(found, type) else found
    contract = next(filter(None, map(contract_within, functions_in(member))), None)
    if contract is None:
        msg = f"Expected {module}:{name} to be a function under contract: put @contract on it."
        raise ContractDefinitionError(msg)
    nodes = {name: node for name, node in contract.boundary.nodes.items() if tensor_specs([node])}
    return Signature({name: node.text for name, node in nodes.items()}, nodes, subject_of_function(contract))
