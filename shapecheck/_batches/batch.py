"""One annotation of a batch contract, and how its violations are reported. Imported only when checking is on."""

import warnings
from collections.abc import Mapping
from typing import Any, cast

from .._annotations.nodes import MappingNode, Node, SequenceNode, TupleNode, TypedDictNode, UnionNode, tensor_specs
from .._annotations.structure import Builder
from .._boundaries.boundary import note_crossing
from .._boundaries.check import checker_of
from .._diagnosis.diagnose import Place
from .._location import caller_frame
from .._settings import Mode
from ..errors import ContractError, ContractWarning, Location

_warned = set[tuple[str, str, int]]()  # boundary and call site of every warning given


class Part:
    """What batches, or the items that they are made of, must be.

    Args:
        annotation: Their annotation.
        name: What one is called in errors.
        sizes: Sizes that some dims must have; for `items`, those that it does not name are left out.
        boundary: Qualified name of the boundary.
        defined: Where it is declared.
        module: The module whose registry of dims counts.
        items: Whether this is about items.

    Raises:
        ContractDefinitionError: The annotation is malformed or cannot be checked in full.
    """

    def __init__(
        self,
        annotation: Any,
        name: str,
        sizes: Mapping[str, int],
        boundary: str,
        defined: Location | None,
        module: str,
        *,
        items: bool = False,
    ) -> None:
        used = _dims_of(annotation, name) if items else sizes.keys()
        self._sizes = {dim: size for dim, size in sizes.items() if dim in used}
        self._checker = checker_of(annotation, frozenset(self._sizes), module)
        self._place = Place(boundary, defined)
        self._name = name

    def find(self, value: Any, mode: Mode) -> ContractError | None:
        """Return what is wrong with a batch or item, if anything; in mode ``warn`` as well."""
        declared = value
        if not self._checker.proves(value, self._sizes):
            declared = _with_tuples(value, self._checker.node)
            if declared is value or not self._checker.proves(declared, self._sizes):
                strictly: Mode = "on" if mode == "warn" else mode  # the warning is given when the place is known
                return self._checker.judge(declared, self._name, self._sizes, self._place, strictly)
        if mode == "strict":
            note_crossing(self._place.name, [(self._name, declared, self._checker.node)])
        return None


def located(error: ContractError, where: str) -> ContractError:
    """Return an error that also says which batch or item it is about."""
    return type(error)(f"{error}\n  checked    {where}", error.violations)


def warn_once(error: ContractError) -> None:
    """Give an error as a warning, once per boundary and call site."""
    frame = caller_frame()
    site = (error.violations[0].boundary, frame.f_code.co_filename, frame.f_lineno)
    if site not in _warned:
        _warned.add(site)
        warnings.warn_explicit(str(error), ContractWarning, *site[1:])


def _dims_of(annotation: Any, name: str) -> frozenset[str]:
    specs = tensor_specs([Builder().node(annotation, name)])
    return frozenset[str]().union(*(spec.bound | spec.referred for spec in specs))


# --- lists for tuples ------------------------------------------------------------------------------
def _with_tuples(value: Any, node: Node) -> Any:
    """Return a value with tuples for the lists that stand where a tuple of fixed length is declared.

    Torch's own collate function and its pinning of memory make lists of tuples, which nobody can prevent. Anything
    else is left as it is; so is the whole value, if it holds no such list.
    """
    kind = cast("type[Any]", type(value))
    if isinstance(node, TupleNode) and kind in {list, tuple}:
        nodes = [*node.items, *[None] * (len(value) - len(node.items))]
        items = [
            item if inner is None else _with_tuples(item, inner) for item, inner in zip(value, nodes, strict=False)
        ]
        return value if kind is tuple and _same(items, value) else tuple(items)
    if isinstance(node, SequenceNode) and kind in {list, tuple}:
        items = [_with_tuples(item, node.item) for item in value]
        return value if _same(items, value) else cast("Any", kind(items))
    if isinstance(node, (TypedDictNode, MappingNode)) and kind is dict:
        return _dict_with_tuples(value, node)
    if isinstance(node, UnionNode):
        candidates = ((alternative, _with_tuples(value, alternative)) for alternative in node.alternatives)
        return next((changed for alternative, changed in candidates if alternative.accepts_kind(changed)), value)
    return value


def _dict_with_tuples(value: dict[Any, Any], node: TypedDictNode | MappingNode) -> dict[Any, Any]:
    inner = node.fields if isinstance(node, TypedDictNode) else dict.fromkeys(value, node.value)
    changed = {key: _with_tuples(item, inner[key]) if key in inner else item for key, item in value.items()}
    return value if _same(changed.values(), value.values()) else changed


def _same(items: Any, others: Any) -> bool:
    return all(item is other for item, other in zip(items, others, strict=True))
