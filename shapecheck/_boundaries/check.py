"""One value against one annotation: what `check` and batch contracts do when checking is on.

Compiled once per annotation.
"""

import sys
from collections.abc import Mapping
from typing import Any

from .._annotations.structure import Builder, annotation_key
from .._compiler.compile import compile_acceptor
from .._compiler.tracing import TracedContractError, run_while_tracing
from .._diagnosis.diagnose import Place
from .._location import caller_frame, location_of_frame, name_of_frame
from .._settings import Mode, engine, mode_at_definition
from ..axes import axes_of
from ..errors import ContractError
from .boundary import Boundary, note_crossing

_MOST_CHECKERS = 1024  # annotations made up at run time, one after the other, must not fill the memory
_checkers: dict[Any, "Checker"] = {}


class Checker:
    """What one annotation means in one module; the place and the name differ from call to call.

    Args:
        annotation: What values must be.
        dims: Dims whose sizes are given with each value.
        module: Name of the module whose registry of dims counts.

    Raises:
        ContractDefinitionError: The annotation is malformed or cannot be checked in full.
    """

    def __init__(self, annotation: Any, dims: frozenset[str], module: str) -> None:
        self.node = Builder().node(annotation, "value")
        self.ties = {dim: f"dims[{dim!r}]" for dim in sorted(dims)}
        self.axes = axes_of(module)
        self._limits = self._boundary("value", Place("check", None)).limits  # refuses what can mean nothing
        self._accepts = (
            compile_acceptor({"value": self.node}, ["value", "dims"], self.ties, self._limits, name=(module, "check"))
            if engine() == "compiled"
            else None
        )

    def proves(self, value: Any, sizes: Mapping[str, int]) -> bool:
        """Tell whether the compiled check accepts a value; False says nothing."""
        return self._accepts is not None and self._accepts(value, sizes)

    def judge(self, value: Any, name: str, sizes: Mapping[str, int], place: Place, mode: Mode) -> ContractError | None:
        """Return the error to be raised for a value that was not proved good, if any.

        Args:
            value: What to compare with the annotation.
            name: What it is called in the error.
            sizes: Sizes of the dims that are given.
            place: The boundary that it crosses.
            mode: Mode of this call.
        """
        return self._boundary(name, place).enter({"dims": sizes}, [(name, value, self.node)], mode).error

    def _boundary(self, name: str, place: Place) -> Boundary:
        return Boundary(place, {name: self.node}, self.ties, self.axes, ["dims"])


def check_value(value: Any, annotation: Any, name: str, sizes: Mapping[str, int], mode: Mode) -> ContractError | None:
    """Compare one value with an annotation; return the error to be raised, if any.

    Raises:
        ContractDefinitionError: The annotation is malformed or cannot be checked in full.
    """
    module = sys._getframe(2).f_globals.get("__name__", "")  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    checker = checker_of(annotation, frozenset(sizes), module)
    if checker.proves(value, sizes):
        if mode == "strict":
            note_crossing(name_of_frame(caller_frame()), [(name, value, checker.node)])
        return None
    frame = caller_frame()
    place = Place(name_of_frame(frame), location_of_frame(frame))
    return checker.judge(value, name, sizes, place, mode)


def checker_of(annotation: Any, dims: frozenset[str], module: str) -> Checker:
    """Return the checker of an annotation, made once.

    Raises:
        ContractDefinitionError: The annotation is malformed or cannot be checked in full.
    """
    key = (annotation_key(annotation), dims, module)
    try:
        checker = _checkers.get(key)
    except TypeError:  # unhashable, as an Annotated with a list inside is
        return Checker(annotation, dims, module)
    if checker is None:
        if len(_checkers) >= _MOST_CHECKERS:
            _checkers.clear()
        checker = _checkers[key] = Checker(annotation, dims, module)
    return checker


def _check_traced(value: Any, annotation: Any, name: str, sizes: Mapping[str, int] | None) -> None:
    mode = mode_at_definition()
    if mode == "off":
        return
    error = check_value(value, annotation, name, sizes or {}, mode)
    if error is not None:
        raise TracedContractError(str(error), error.violations)


check_while_tracing = run_while_tracing(_check_traced)
