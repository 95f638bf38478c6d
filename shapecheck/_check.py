"""One value against one annotation: what `check` does when checking is on. Compiled once per annotation."""

import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

from ._boundary import Boundary
from ._compile import compile_function
from ._diagnose import Place
from ._location import caller_frame, location_of_frame, name_of_frame
from ._settings import Mode, engine, mode_at_definition
from ._structure import Builder, annotation_key
from ._tracing import TracedContractError, run_while_tracing
from .axes import axes_of
from .errors import ContractError

_SIGNATURE = inspect.Signature(
    [inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in ("value", "dims")]
)

_MOST_CHECKERS = 1024  # annotations made up at run time, one after the other, must not fill the memory
_checkers: dict[Any, "_Checker"] = {}


class _Checker:
    """What one annotation means in one module; the place and the name differ from call to call."""

    def __init__(self, annotation: Any, dims: frozenset[str], module: str) -> None:
        self.node = Builder().node(annotation, "value")
        self.ties = {dim: f"dims[{dim!r}]" for dim in sorted(dims)}
        self.axes = axes_of(module)
        self.boundary("value", Place("check", None))  # refuses what can mean nothing
        compiled = engine() == "compiled"
        self.accepts = self._compile() if compiled else None

    def boundary(self, name: str, place: Place) -> Boundary:
        """Return the boundary that judges a value of this name."""
        return Boundary(place, {name: self.node}, self.ties, self.axes, ["dims"])

    def _compile(self) -> Callable[..., bool] | None:
        return compile_function(_yes, _SIGNATURE, {"value": self.node}, self.ties, slow=_no, leave=_no)


def _yes(value: Any, dims: Any) -> bool:
    del value, dims
    return True


def _no(*values: Any) -> bool:
    del values
    return False


def check_value(value: Any, annotation: Any, name: str, sizes: Mapping[str, int], mode: Mode) -> ContractError | None:
    """Compare one value with an annotation; return the error to be raised, if any.

    Raises:
        ContractDefinitionError: The annotation is malformed or cannot be checked in full.
    """
    checker = _checker(annotation, frozenset(sizes), sys._getframe(2).f_globals.get("__name__", ""))  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    if checker.accepts is not None and checker.accepts(value, sizes):
        return None
    frame = caller_frame()
    boundary = checker.boundary(name, Place(name_of_frame(frame), location_of_frame(frame)))
    return boundary.enter({"dims": sizes}, [(name, value, checker.node)], mode).error


def _checker(annotation: Any, dims: frozenset[str], module: str) -> _Checker:
    key = (annotation_key(annotation), dims, module)
    try:
        checker = _checkers.get(key)
    except TypeError:  # unhashable, as an Annotated with a list inside is
        return _Checker(annotation, dims, module)
    if checker is None:
        if len(_checkers) >= _MOST_CHECKERS:
            _checkers.clear()
        checker = _checkers[key] = _Checker(annotation, dims, module)
    return checker


def _check_traced(value: Any, annotation: Any, name: str, sizes: Mapping[str, int] | None) -> None:
    mode = mode_at_definition()
    if mode == "off":
        return
    error = check_value(value, annotation, name, sizes or {}, mode)
    if error is not None:
        raise TracedContractError(str(error), error.violations)


check_while_tracing = run_while_tracing(_check_traced)
