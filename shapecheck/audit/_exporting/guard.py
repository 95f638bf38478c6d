"""An exported program behind the contract of what it was exported from, with which it is saved and loaded."""

import importlib
import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..._annotations.deferred import argument_visits
from ..._annotations.scope import align
from ..._annotations.structure import Builder
from ..._boundaries.boundary import Boundary
from ..._compiler.compile import compile_acceptor
from ..._diagnosis.diagnose import Place
from ..._settings import Mode, engine, mode_at_call, mode_at_definition
from ...axes import Axes, Dim, Sizes
from ...errors import ContractError, Location
from .saved_hints import loaded, saved
from .shapes import Example, example_of, leaves_of

_ENTRY = "shapecheck.json"  # of the archive that torch.export.save writes
_FORMAT, _VERSION = "shapecheck guard", 1


class GuardedProgram:
    """An exported program that is called like the module it was exported from, and refuses what that would refuse.

    Shapes and dtypes are checked, with the sizes that the export has fixed. Validators and kinds are not: they cannot be
    saved. Results are what the graph computes and are not checked again.

    Attributes:
        program: The `torch.export.ExportedProgram`.
        document: The contract as it is saved.
    """

    def __init__(self, program: Any, document: Mapping[str, Any]) -> None:
        self.program = program
        self.document = document
        self._call = program.module()
        self._mode: Mode = mode_at_definition()
        self._signature = inspect.Signature([_parameter(one) for one in document["parameters"]])
        hints = {one["name"]: loaded(one["annotation"]) for one in document["parameters"] if one["annotation"]}
        nodes = {name: Builder().node(hint, f"{name!r} of {document['name']}") for name, hint in hints.items()}
        place = Place(document["name"], Location(*document["defined"]) if document["defined"] else None)
        limits = {dim: Dim(size=_sizes(bounds)) for dim, bounds in document["allowed"].items()}
        others = {dim: "" for dim in document["dims"] if dim not in limits}
        ties = {dim: str(size) for dim, size in document["fixed"].items()}
        self._boundary = Boundary(place, nodes, ties, Axes(**limits, **others), self._signature.parameters)
        starred = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
        is_plain = all(one.kind not in starred for one in self._signature.parameters.values())
        can_compile = is_plain and engine() == "compiled"
        self._accepts = compile_acceptor(nodes, nodes, ties, self._boundary.limits) if can_compile else None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program.

        Raises:
            ContractError: The arguments break the contract.
        """
        __tracebackhide__ = True
        error = self._judged(args, kwargs)
        if error is not None:
            raise error from None
        return self._call(*args, **kwargs)

    def _judged(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ContractError | None:
        mode = mode_at_call(self._mode)
        if self._mode == "off" or mode == "off":
            return None
        nodes, arguments = self._boundary.nodes, self._signature.bind(*args, **kwargs).arguments
        is_whole = self._accepts is not None and nodes.keys() <= arguments.keys()
        if self._accepts is not None and is_whole and self._accepts(*(arguments[name] for name in nodes)):
            return None
        return self._boundary.enter(arguments, argument_visits(self._signature, nodes, arguments), mode).error

    def save(self, file: str | Path) -> None:
        """Write the program and its contract as one archive, which `torch.export.load` reads as well."""
        _export().save(self.program, file, extra_files={_ENTRY: json.dumps(self.document)})


def guarded(program: Any, target: Any) -> GuardedProgram:
    """Put an exported program behind the contract of what it was exported from.

    Args:
        program: What `torch.export.export` returned, with the call that it was exported with still in it.
        target: The module, or the function with the same parameters, that has the contract.

    Raises:
        ContractError: The call that it was exported with breaks the contract.
        ContractDefinitionError: An annotation cannot be saved.
        ValueError: There is no contract, or the program has forgotten its call.
    """
    if program.example_inputs is None:
        msg = "Expected an exported program with example_inputs, got one without: export it in this process."
        raise ValueError(msg)
    args, kwargs = program.example_inputs
    example = example_of(target, tuple(args), dict(kwargs))
    return GuardedProgram(program, _document(program, example, target))


def load_guarded(file: str | Path) -> GuardedProgram:
    """Read what `GuardedProgram.save` wrote.

    Raises:
        ValueError: The archive has no contract that this version can read.
    """
    entries = {_ENTRY: ""}
    program = _export().load(file, extra_files=entries)
    document: dict[str, Any] = json.loads(entries[_ENTRY] or "{}")
    if (document.get("format"), document.get("version")) != (_FORMAT, _VERSION):
        msg = f"Expected {file} to hold a contract ({_FORMAT} {_VERSION}), got none: write it with GuardedProgram.save."
        raise ValueError(msg)
    return GuardedProgram(program, document)


def _export() -> Any:
    return importlib.import_module("torch.export")


# --- what is saved -----------------------------------------------------------------------------------
def _document(program: Any, example: Example, target: Any) -> dict[str, Any]:
    contract = example.contract
    place = contract.boundary.place
    parameters = list(contract.signature.parameters.values())[0 if inspect.isfunction(target) else 1 :]
    arguments = example.scope.arguments
    hints = {name: hint for name, hint in contract.hints.items() if name != "return"}
    fixed, allowed = _exported_sizes(program, example)
    dims = sorted({*example.scope.sizes, *example.scope.shapes})
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "name": place.name,
        "defined": None if place.defined is None else [place.defined.file, place.defined.line],
        "parameters": [
            {
                "name": one.name,
                "kind": one.kind.name,
                "optional": one.default is not one.empty,
                "annotation": saved(hints[one.name], arguments) if one.name in hints else None,
            }
            for one in parameters
        ],
        "dims": dims,
        "fixed": fixed,
        "allowed": allowed,
    }


def _exported_sizes(program: Any, example: Example) -> tuple[dict[str, int], dict[str, dict[str, list[int]]]]:
    """Return the dims that the program has one size for, and the sizes of those that it limits."""
    shapes = dict(_placeholders(program))
    fixed: dict[str, int] = {}
    allowed = {dim: _saved_sizes(sizes) for dim, sizes in example.contract.boundary.limits.items() if len(sizes) > 1}
    for _, tensor, node in leaves_of(example.visits, example.scope):
        sizes = shapes.get(id(tensor), ())
        for axes, dim in align(node.spec, len(sizes)) if sizes else ():
            if dim.kind != "named" or (dim.broadcastable and sizes[axes.start] == 1):
                continue
            if isinstance(sizes[axes.start], int):
                fixed[dim.text] = sizes[axes.start]
            elif (bounds := _bounds(program, sizes[axes.start])) is not None and dim.text not in allowed:
                allowed[dim.text] = _saved_sizes(bounds)
    used = {*example.scope.sizes} - fixed.keys()
    return fixed, {dim: sizes for dim, sizes in allowed.items() if dim in used}


def _placeholders(program: Any) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Yield the id of every tensor that the program was exported with, and the shape that its input has in the graph."""
    leaves = importlib.import_module("torch.utils._pytree").tree_leaves(program.example_inputs)
    names = program.graph_signature.user_inputs
    inputs = {node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"}
    for name, leaf in zip(names, leaves, strict=True):
        if isinstance(name, str) and hasattr(leaf, "shape"):
            yield id(leaf), tuple(inputs[name].shape)


def _bounds(program: Any, size: Any) -> range | None:
    """Return the sizes that a program accepts for an open axis; None if there is no largest one."""
    found = program.range_constraints.get(size.node.expr)
    if found is None or not getattr(found.upper, "is_Integer", False):
        return None
    return range(int(found.lower), int(found.upper) + 1)


def _saved_sizes(sizes: Sizes) -> dict[str, list[int]]:
    return {"range": [sizes.start, sizes.stop, sizes.step]} if isinstance(sizes, range) else {"among": sorted(sizes)}


def _sizes(document: Mapping[str, list[int]]) -> Sizes:
    return range(*document["range"]) if "range" in document else frozenset(document["among"])


def _parameter(document: Mapping[str, Any]) -> inspect.Parameter:
    default = ... if document["optional"] else inspect.Parameter.empty
    return inspect.Parameter(document["name"], getattr(inspect.Parameter, document["kind"]), default=default)
