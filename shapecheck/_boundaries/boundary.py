"""One boundary: its annotations as nodes, the dims it ties, and what happens to the values that cross it.

The surface (`_contract`, `_records`) decides *when* values cross; this decides what is then checked and how a
violation is raised. A compiled check goes in front of `Boundary.enter` and `Boundary.leave`.
"""

import itertools
import warnings
from collections import deque
from collections.abc import Iterable, Mapping
from types import CodeType
from typing import Any, NamedTuple

from .._annotations.nodes import Node, TensorNode, UnionNode, Visit, tensor_specs
from .._annotations.refined import declare_kinds, has_kinds
from .._annotations.scope import Scope
from .._annotations.spec import TensorSpec, expression_names
from .._diagnosis.diagnose import Place, diagnose
from .._diagnosis.engine import distinct, failures, misfits, solve
from .._diagnosis.report import NOTE, bound_dims_note, render
from .._location import caller_frame, location_of_frame
from .._provenance import remember
from .._render import did_you_mean
from .._settings import Mode
from ..axes import Axes, Sizes
from ..errors import ContractDefinitionError, ContractError, ContractWarning, Violation

_warned = set[tuple[str, str, int]]()  # boundary and call site of every warning given


class Verdict(NamedTuple):
    """What a check found: the consistent ways to bind the dims, and the error to be raised, if any.

    Without a way to bind them, nothing that crosses later is judged.
    The error is returned and not raised, so that the caller's frame is the last one in its traceback.
    """

    scopes: list[Scope]
    error: ContractError | None


class _Judgement(NamedTuple):
    """The consistent ways to bind the dims, or one in which something is wrong, and what that is."""

    scopes: list[Scope]
    violations: tuple[Violation, ...] | None


class Boundary:
    """A place with a contract.

    Args:
        place: Name and definition site.
        nodes: What each named value must be; ``return`` is the result.
        ties: Expression over the arguments for each dim that is tied to one.
        axes: Registry of the project's dims.
        arguments: Names that expressions may use.

    Raises:
        ContractDefinitionError: A dim is unknown, never bound, or tied to something that is not there.
    """

    def __init__(
        self,
        place: Place,
        nodes: Mapping[str, Node],
        ties: Mapping[str, str],
        axes: Axes | None,
        arguments: Iterable[str],
    ) -> None:
        self.place = place
        self.nodes = dict(nodes)
        self._has_kinds = has_kinds(nodes.values())
        self.limits: Mapping[str, Sizes] = {} if axes is None else axes.sizes
        self._ties: dict[str, tuple[str, CodeType]] = {}
        self._require_meaning(ties, axes, frozenset(arguments))
        for dim, expression in ties.items():
            self._ties[dim] = (expression, compile(expression, f"<size of {dim}>", "eval"))

    def _require_meaning(self, ties: Mapping[str, str], axes: Axes | None, arguments: frozenset[str]) -> None:
        entering = tensor_specs(node for name, node in self.nodes.items() if name != "return")
        everything = tensor_specs(self.nodes.values())
        if axes is not None:
            for dim in sorted(_bound(everything).union(*(spec.referred for spec in everything))):
                axes.require(dim, self.place.name)
        for specs in (entering, everything):  # the result may refer to what entered, not the other way round
            self._require_bound(specs, ties, arguments)
        self._require_one_kind(everything)
        self._require_ties(ties, _bound(everything).union(*(spec.referred for spec in everything)), arguments)

    def _require_bound(self, specs: list[TensorSpec], ties: Mapping[str, str], arguments: frozenset[str]) -> None:
        for spec in specs:
            shape = f'the shape "{spec.annotation.dim_str}"'
            if unbound := sorted(spec.referred - _bound(specs) - ties.keys()):
                close = did_you_mean(unbound[0], _bound(specs))
                self._refuse(f"nothing binds {', '.join(unbound)}, which {shape} refers to", close)
            if foreign := sorted(spec.arguments - arguments):
                self._refuse(f"{', '.join(foreign)} in {shape} is not an argument")

    def _require_one_kind(self, specs: list[TensorSpec]) -> None:
        """Refuse a name that stands for one axis in one place and for a run of axes in another."""
        dims = [dim for spec in specs for dim in spec.dims]
        runs = {dim.text for dim in dims if dim.kind == "variadic" and dim.text}
        single = {name for dim in dims if dim.kind != "variadic" for name in dim.names or [dim.text]}
        single |= self.limits.keys()
        if both := sorted(runs & single):
            self._refuse(f"{', '.join(both)} stands for one axis and for a run of axes")

    def _require_ties(self, ties: Mapping[str, str], named: frozenset[str], arguments: frozenset[str]) -> None:
        for dim, expression in ties.items():
            if dim not in named:
                close = did_you_mean(dim, named)
                self._refuse(f"dim {dim!r} is tied to {expression!r} but no annotation uses it", close)
            if foreign := sorted(expression_names(expression, f"the size of dim {dim!r}") - arguments):
                names = ", ".join(foreign)
                self._refuse(f"{names} in {expression!r}, to which dim {dim!r} is tied, is not an argument")

    def _refuse(self, reason: str, cure: str = "") -> None:
        msg = f"The contract of {self.place.name} cannot be checked: {reason}{f': {cure}' if cure else '.'}"
        raise ContractDefinitionError(msg)

    def enter(self, arguments: Mapping[str, Any], visits: Iterable[Visit], mode: Mode) -> Verdict:
        """Check the values that go in.

        Args:
            arguments: The call's arguments by name, for expressions.
            visits: Values and what they must be.
            mode: Mode of this call.
        """
        visits = list(visits)
        try:
            judgement = self._judged(visits, [self._tied(arguments)])
        except Exception:
            # An expression stumbled over an argument of another kind, or is wrong itself.
            misfitting = misfits(visits)
            if not misfitting:
                raise
            judgement = self._refused(misfitting, Scope(arguments, limits=self.limits))
            judgement = judgement._replace(scopes=[])  # expressions of what comes out would stumble as well
        return self._concluded(visits, judgement, mode)

    def _tied(self, arguments: Mapping[str, Any]) -> Scope:
        scope = Scope(arguments, limits=self.limits)
        for dim, (expression, code) in self._ties.items():
            scope = scope.tie(dim, eval(code, dict(arguments)), expression)  # the author's own decorator
        return scope

    def reenter(self, arguments: Mapping[str, Any], visits: Iterable[Visit], sizes: Mapping[str, Any]) -> Verdict:
        """Recover who bound the dims of a call that was accepted before its body ran; validators are not asked again.

        The body may have changed its arguments. Then they can no longer tell, and the sizes that were found before
        stand for themselves.
        """
        scope = self._tied(arguments)
        for before in solve(visits, scope, asking=False):
            if {**before.sizes, **{dim: run for dim, (_, run) in before.shapes.items()}}.items() >= sizes.items():
                return Verdict([before], None)
        for dim, size in sizes.items():
            scope = scope.tie(dim, size, "the arguments as they were")
        return Verdict([scope], None)

    def note(self, error: BaseException, entered: Verdict) -> None:
        """Add the dims that a call had bound to an error of its body; the innermost contract speaks."""
        if entered.scopes and not any(note.startswith(NOTE) for note in getattr(error, "__notes__", ())):
            error.add_note(bound_dims_note(self.place.name, entered.scopes[0].origins.values()))

    def crossed(self, visits: Iterable[Visit]) -> None:
        """Remember of every accepted tensor that it was here."""
        note_crossing(self.place.name, visits)

    def leave(self, entered: Verdict, visits: Iterable[Visit], mode: Mode) -> Verdict:
        """Check the values that come out, with the dims that those going in have bound."""
        visits = list(visits)
        return self._concluded(visits, self._judged(visits, entered.scopes), mode)

    def _judged(self, visits: list[Visit], scopes: list[Scope]) -> _Judgement:
        consistent = distinct(wider for narrow in scopes for wider in solve(visits, narrow))
        return _Judgement(consistent, None) if consistent else self._refused(visits, scopes[0])

    def _refused(self, visits: list[Visit], scope: Scope) -> _Judgement:
        return _Judgement([scope], diagnose(self.place, failures(visits, scope), location_of_frame(caller_frame())))

    def _concluded(self, visits: list[Visit], judgement: _Judgement, mode: Mode) -> Verdict:
        """Take note of values that are accepted; of others make an error, or in mode ``warn`` warn."""
        scopes, violations = judgement
        if violations is not None:
            return Verdict(scopes, self._complaint(violations, mode))
        if self._has_kinds:
            declare_kinds(visits, self.place.name)
        if mode == "strict":
            self.crossed(visits)
        return Verdict(scopes, None)

    def _complaint(self, violations: tuple[Violation, ...], mode: Mode) -> ContractError | None:
        """Say what is wrong as an error, or in mode ``warn`` as a warning, once per call site."""
        text = render(violations)
        if mode != "warn":
            return ContractError(text, violations)
        frame = caller_frame()
        site = (self.place.name, frame.f_code.co_filename, frame.f_lineno)
        if site not in _warned:
            warnings.warn_explicit(text, ContractWarning, *site[1:])
            _warned.add(site)  # not where a filter has made it an error
        return None


def note_crossing(boundary: str, visits: Iterable[Visit]) -> None:
    """Remember of every tensor in some values that a boundary accepted it."""
    pending = deque(visits)
    while pending:
        path, value, node = pending.popleft()
        if isinstance(node, TensorNode):
            remember(value, boundary, path)
        elif isinstance(node, UnionNode):
            viable = (alternative for alternative in node.alternatives if alternative.accepts_kind(value))
            pending.extend((path, value, alternative) for alternative in itertools.islice(viable, 1))
        else:
            pending.extend(node.visit(value, path)[1])


def _bound(specs: Iterable[TensorSpec]) -> frozenset[str]:
    return frozenset[str]().union(*(spec.bound for spec in specs))
