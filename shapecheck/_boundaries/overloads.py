"""Functions with overloads: each overload is one alternative, and a call must keep one of them.

The overload that a result is judged by is one that accepted the arguments; which dims it bound is kept per overload.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .._annotations.deferred import ARGUMENTS, CallNode
from .._annotations.scope import Scope
from .._diagnosis.engine import solve
from .._settings import Mode, mode_at_call
from .boundary import Verdict
from .call import Before, Entered, Left
from .function import FunctionContract, Terms

_GOOD = (False, 0)


class OverloadedContract(FunctionContract):
    """The contract of a function with overloads, besides what the function itself is annotated with.

    Args:
        function: The implementation.
        terms: What is not in annotations; ties hold in those overloads that use the dim.
        overloads: What `typing.overload` has kept.
    """

    def __init__(self, function: Callable[..., Any], terms: Terms, overloads: Sequence[Callable[..., Any]]) -> None:
        shared = terms._replace(shared=True)
        super().__init__(function, shared)
        self._overloads = [_Overload(overload, shared) for overload in overloads]

    def enter(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Entered:
        """Judge the arguments by what the function itself says, then by its overloads."""
        entered = super().enter(args, kwargs)
        if entered.before.error is not None or not entered.before.verdict.scopes:
            return entered
        call, known = (args, kwargs), entered.before.verdict.scopes[0].arguments
        accepting = [overload for overload in self._overloads if overload.may_accept(call)]
        judged = [(overload.give, overload.accept(call, known, "on")) for overload in accepting]
        alternatives = [(give, verdict) for give, verdict in judged if verdict.error is None]
        if alternatives:
            return entered._replace(alternatives=alternatives)
        closest = min(self._overloads, key=lambda overload: _violations(overload.accept(call, known, "on")))
        return entered._replace(before=Before(closest.accept(call, known, mode_at_call(self.mode))))

    def leave(self, entered: Entered, result: Any) -> Left:
        """Judge the result by what the function itself says, then by the overloads that accepted the arguments."""
        left = super().leave(entered, result)
        mode = mode_at_call(self.mode)
        if left.error is not None or not entered.alternatives or mode == "off":
            return left
        far = [_violations(give(before, result, "on")) for give, before in entered.alternatives]
        if _GOOD in far:
            return left
        give, before = entered.alternatives[far.index(min(far))]
        return Left(result, give(before, result, mode).error)


class _Overload(FunctionContract):
    """One alternative: judges calls as the overload describes them, whose defaults are those of the implementation."""

    def __init__(self, function: Callable[..., Any], terms: Terms) -> None:
        super().__init__(function, terms)
        nodes = {name: node for name, node in self.boundary.nodes.items() if name != "return"}
        self._call = CallNode(f"{function.__name__}{inspect.signature(function)}", self.signature, nodes)

    def may_accept(self, call: Any) -> bool:
        """Tell at little cost when a call cannot be meant; a dim that is tied needs the whole contract."""
        return bool(self.ties) or next(solve([(ARGUMENTS, call, self._call)], Scope({})), None) is not None

    def accept(self, call: Any, known: Mapping[str, Any], mode: Mode) -> Verdict:
        """Judge the arguments of a call; expressions may also use those that the implementation knows."""
        return self.boundary.enter(known, [(ARGUMENTS, call, self._call)], mode)

    def give(self, before: Verdict, result: Any, mode: Mode) -> Verdict:
        """Judge the result of a call that this overload accepted."""
        return self.boundary.leave(before, self._return_visits(result), mode)


def _violations(verdict: Verdict) -> tuple[bool, int]:
    """Return how far a verdict is from good: a call with other parameters is farther away than any wrong value."""
    violations = () if verdict.error is None else verdict.error.violations
    return any(violation.parameter == ARGUMENTS for violation in violations), len(violations)
