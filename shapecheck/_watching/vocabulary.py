"""The words a package has for its axes: dims that it writes itself, and the registry that governs it."""

import inspect
import re
import types
import typing
from typing import Any, cast

from ..axes import axes_of
from ..errors import ContractDefinitionError
from .calls import Run


def read_vocabulary(module: types.ModuleType, run: Run) -> None:
    """Add to a run what a module writes at parameters, what its aliases say, and which dims it may use."""
    for name, value in list(vars(module).items()):
        if isinstance(value, type) and value.__module__ == module.__name__:
            for member in list(vars(value).values()):
                _read_function(member, module.__name__, run)
        elif not _read_function(value, module.__name__, run):
            _learn(run, _snake_case(name), _dims_in(value))
    _read_registry(module.__name__, run)


def _read_function(value: Any, module: str, run: Run) -> bool:
    """Read the annotations of a function; tell whether it was one."""
    held: Any = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
    function: Any = inspect.unwrap(held)
    if not isinstance(function, types.FunctionType):
        return False
    if function.__module__ == module:
        written = {name: _dims_in(hint) for name, hint in function.__annotations__.items()}
        for name, dims in written.items():
            _learn(run, name, dims)
        if any(written.values()):
            run.annotated[f"{module}.{function.__qualname__}"] = {name: dims for name, dims in written.items() if dims}
    return True


def _learn(run: Run, name: str, dims: list[str]) -> None:
    if dims and name != "return":
        run.names[name] = sorted({*run.names.get(name, []), *dims})


def _dims_in(hint: Any) -> list[str]:
    """Return the dims of the jaxtyping annotations in a hint; none of what hides them, such as a container."""
    if isinstance(hint, type) and hasattr(hint, "dim_str") and hasattr(hint, "array_type"):
        return [cast("Any", hint).dim_str]
    if typing.get_origin(hint) in {typing.Annotated, typing.Union, types.UnionType}:
        return sorted({dims for argument in typing.get_args(hint) for dims in _dims_in(argument)})
    return []


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _read_registry(module: str, run: Run) -> None:
    try:
        axes = axes_of(module)
    except ContractDefinitionError:  # whoever defines a contract is told of it
        return
    if axes is not None:
        run.registries[module] = {name: {**_limits(axes.sizes.get(name)), "tied": axes.ties.get(name)} for name in axes}


def _limits(sizes: range | frozenset[int] | None) -> dict[str, list[int] | None]:
    """Return the sizes that a dim may have, or start, stop and step of a range of them."""
    if isinstance(sizes, range):
        return {"sizes": None, "range": [sizes.start, sizes.stop, sizes.step]}
    return {"sizes": None if sizes is None else sorted(sizes), "range": None}
