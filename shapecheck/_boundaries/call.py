"""One call of a function with a contract: what it was made with, what is known of it, and what comes of it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from .._settings import Mode
from ..errors import ContractError
from .boundary import Verdict

Call = tuple[tuple[Any, ...], dict[str, Any]]  # positional and named arguments

UNJUDGED = Verdict([], None)


class Before:
    """What the arguments of a call bind.

    Args:
        verdict: The verdict on the arguments; None if they were proved good.
        sizes: The dims that they bind, if they were proved good.
        recall: Gives the verdict when it is needed after all.

    Attributes:
        is_over: Whether the call has returned or raised.
    """

    def __init__(
        self,
        verdict: Verdict | None,
        sizes: Mapping[str, Any] | None = None,
        recall: Callable[[], Verdict] = lambda: UNJUDGED,
    ) -> None:
        self._verdict = verdict
        self._recall = recall
        self.sizes = sizes
        self.is_over = False

    @property
    def verdict(self) -> Verdict:
        """The verdict on the arguments."""
        if self._verdict is None:
            self._verdict = self._recall()
        return self._verdict

    @property
    def error(self) -> ContractError | None:
        """The error of the arguments, if there is one."""
        return None if self._verdict is None else self._verdict.error


class Entered(NamedTuple):
    """A call whose arguments were judged, or proved good.

    Attributes:
        before: What the arguments bind, or the error.
        call: What to call the function with: callables among the arguments are held to their annotations.
        alternatives: What judges the result, for each overload that accepts the arguments, and what they bind there.
    """

    before: Before
    call: Call
    alternatives: Sequence[tuple[Callable[[Verdict, Any, Mode], Verdict], Verdict]] = ()


class Left(NamedTuple):
    """The result of a call, held to its annotation if it is a callable, and the error, if there is one."""

    result: Any
    error: ContractError | None
