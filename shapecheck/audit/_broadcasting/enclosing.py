"""Under which contract a line runs, and which dims that call has bound: read off the frames of our own."""

from collections.abc import Mapping
from types import FrameType
from typing import NamedTuple

from ..._annotations.deferred import argument_visits
from ..._boundaries.boundary import Verdict
from ..._boundaries.call import Entered
from ..._boundaries.function import FunctionContract

_COMPILED = "<contract "  # the file of a compiled contract


class Enclosing(NamedTuple):
    """The innermost contract that a line runs under.

    Attributes:
        name: Qualified name of the function with the contract.
        dims: The dims that its arguments have bound.
    """

    name: str
    dims: Mapping[str, int]


def enclosing_contract(frame: FrameType | None) -> Enclosing | None:
    """Return the innermost contract whose call is not over yet, as seen from a frame; None if there is none."""
    while frame is not None:
        if frame.f_code.co_filename.startswith(_COMPILED):
            contract: FunctionContract = frame.f_globals["_sc_note"].__self__
            return Enclosing(contract.boundary.place.name, _dims(_entered_again(contract, frame)))
        if isinstance(entered := frame.f_locals.get("entered"), Entered):  # of the code that asks the reference engine
            function = frame.f_locals["function"]
            return Enclosing(f"{function.__module__}.{function.__qualname__}", _dims(entered.before.verdict))
        frame = frame.f_back
    return None


def _entered_again(contract: FunctionContract, frame: FrameType) -> Verdict:
    """Judge the arguments that a compiled contract still holds: it binds no dim that is used only once."""
    arguments = {name: frame.f_locals[name] for name in contract.signature.parameters}
    visits = argument_visits(contract.signature, contract.boundary.nodes, arguments)
    return contract.boundary.reenter(arguments, visits, {})


def _dims(verdict: Verdict) -> Mapping[str, int]:
    return dict(verdict.scopes[0].sizes) if verdict.scopes else {}
