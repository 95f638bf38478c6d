"""The contract of one function: what its annotations mean, and the verdict on what goes in and what comes out.

Decides nothing about *when* values cross; `_guard` and `_generators` wrap functions in code that asks here.
"""

import functools
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from .._annotations.deferred import (
    GeneratorNode,
    argument_visits,
    callable_node,
    generator_node,
    held_callable,
    is_generator_function,
    require_immediate,
)
from .._annotations.nodes import Node, Visit, tensor_specs
from .._annotations.resolve import resolve_hints
from .._annotations.scope import Scope
from .._annotations.spec import expression_names
from .._annotations.structure import Builder
from .._annotations.ties import implied_ties
from .._compiler.tracing import TracedContractError, run_while_tracing
from .._diagnosis.diagnose import Place
from .._diagnosis.engine import solve
from .._location import location_of
from .._render import describe
from .._settings import Mode, engine, mode_at_call, mode_at_definition
from ..axes import Axes, axes_of
from ..errors import ContractDefinitionError, ContractError
from .boundary import Boundary, Verdict
from .call import UNJUDGED, Before, Call, Entered, Left
from .provers import Known, Proof, Proofs, compile_calls, compile_entry, compile_item, proves

_RESULT = "the result"  # path of a callable that is the result
CONSTRUCTORS = {"__init__", "__new__"}


class Terms(NamedTuple):
    """What a contract says besides the annotations of its function.

    Attributes:
        ties: Expressions that dims are tied to.
        axes: The dims that may be used; by default those registered for the module.
        hints: What the parameters must be that the function itself leaves without annotation.
        shared: Whether the ties are meant for several functions, so that one of them need not use every one.
        inherited: Whether the contract is that of a function that this one overrides.
        owner: The record that the function stands in, whose fields are known already.
    """

    ties: Mapping[str, str] = {}
    axes: Axes | None = None
    hints: Mapping[str, Any] = {}
    shared: bool = False
    inherited: bool = False
    owner: type | None = None


class FunctionContract:
    """The contract of one function.

    Args:
        function: A function, or something that is called and described like one.
        terms: What is not in its annotations.

    Raises:
        ContractDefinitionError: Nothing is annotated, or what is annotated cannot mean anything.
    """

    def __init__(self, function: Callable[..., Any], terms: Terms) -> None:
        self.function = function
        self.terms = terms
        annotations = getattr(function, "__annotations__", {})
        self.hints = {**terms.hints, **resolve_hints(function, annotations, owner=terms.owner)}
        self.signature = inspect.signature(function)
        self.mode: Mode = mode_at_definition()
        axes = terms.axes if terms.axes is not None else axes_of(function.__module__)
        nodes = _nodes(function, self.signature, self.hints)
        self.ties = _meant(terms.ties, function, self.signature, nodes) if terms.shared else terms.ties
        self.ties = {**implied_ties(self.signature, nodes, axes), **self.ties}
        place = Place(f"{function.__module__}.{function.__qualname__}", location_of(function))
        self.boundary = Boundary(place, nodes, self.ties, axes, self.signature.parameters)
        self._held = {
            _RESULT if name == "return" else name: held
            for name, node in nodes.items()
            if (held := held_callable(node)) is not None
        }
        self.judge_traced = run_while_tracing(self._judge_traced)
        self._judge_held_traced = run_while_tracing(self._judge_held) if self._held else self._judge_held
        self._require_good_defaults()
        self._compile_proofs()

    def _compile_proofs(self) -> None:
        """Compile what stands in front of the reference engine where the contract as a whole cannot be compiled."""
        self._prove_entry: Callable[..., Known | None] | None = None
        self._prove_result: Proof | None = None
        self._proofs: dict[str, Proofs] = {}
        self._proofs_alone: dict[str, Proofs] = {}
        self.prove_item: Proof | None = None
        later, returns = [*self._later()], self.boundary.nodes.get("return")
        if self.mode == "strict" or engine() != "compiled" or later in ([], [returns]):
            return
        self._prove_entry = compile_entry(self.boundary, self.signature, self.ties, later)
        for name, node in self._held.items():
            self._proofs[name] = compile_calls(self.boundary, self.ties, node)
        if isinstance(returns, GeneratorNode):
            self.prove_item = compile_item(self.boundary, self.ties, returns.yields)
        elif returns is not None and _RESULT not in self._held:
            self._prove_result = compile_item(self.boundary, self.ties, returns)

    def _later(self) -> Iterator[Node]:
        """Yield what crosses after the arguments, the result included."""
        for node in self._held.values():
            yield from node.parts()
        returns = self.boundary.nodes.get("return")
        if isinstance(returns, GeneratorNode):
            yield from returns.children()
        elif returns is not None and _RESULT not in self._held:
            yield returns

    def _require_good_defaults(self) -> None:
        """Refuse a default that no call could make good; ``...`` stands for a default that is written elsewhere."""
        for name, parameter in self.signature.parameters.items():
            node = self.boundary.nodes.get(name)
            if node is None or parameter.default is parameter.empty or parameter.default is Ellipsis:
                continue
            if any(spec.needs or spec.arguments for spec in tensor_specs([node])):
                continue
            if next(solve([(name, parameter.default, node)], Scope({}, limits=self.boundary.limits)), None) is None:
                optional = f": annotate it as {node.text} | None" if parameter.default is None else ""
                whose = f"the default of {name!r} of {self.function.__qualname__}"
                msg = f"Expected {whose} to be {node.text}, got {describe(parameter.default)}{optional}."
                raise ContractDefinitionError(msg)

    # --- verdicts ----------------------------------------------------------------------------
    def enter(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Entered:
        """Judge the arguments of a call; one that Python itself is about to refuse is left to Python."""
        if (before := self._proved(args, kwargs)) is not None:
            return self._let_in(before, args, kwargs)
        mode = mode_at_call(self.mode)
        arguments = None if mode == "off" else self._bind(args, kwargs)
        if arguments is None:
            return Entered(Before(UNJUDGED), (args, kwargs))
        return self._let_in(Before(self.boundary.enter(arguments, self._visits(arguments), mode)), args, kwargs)

    def _let_in(self, before: Before, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Entered:
        if not self._held or before.error is not None:
            return Entered(before, (args, kwargs))
        return Entered(before, self._held_call(args, kwargs, functools.partial(self._hold, before)))

    def _proved(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Before | None:
        """Return what the arguments bind if they can be proved good."""
        try:
            known = self._prove_entry(*args, **kwargs) if self._prove_entry is not None else None
        except TypeError:  # they do not fit the signature
            return None
        return None if known is None else Before(None, known.sizes, functools.partial(self._reenter, *known))

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any] | None:
        """Return the arguments by name, defaults included; None for a call that Python itself is about to refuse."""
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError:
            if hasattr(self.function, "__wrapped__"):
                raise  # what it is called with need not be what its signature, that of the function inside, says
            return None
        bound.apply_defaults()
        return bound.arguments

    def _visits(self, arguments: Mapping[str, Any]) -> list[Visit]:
        return argument_visits(self.signature, self.boundary.nodes, arguments)

    def _return_visits(self, result: Any) -> list[Visit]:
        node = self.boundary.nodes.get("return")
        return [] if node is None else [("return", result, node)]

    def judge(self, before: Verdict, visits: list[Visit]) -> Verdict:
        """Judge values that cross after a call was let in, with the dims bound `before`."""
        mode = mode_at_call(self.mode)
        if not before.scopes or mode == "off":
            return Verdict(before.scopes, None)
        return self.boundary.leave(before, visits, mode)

    def leave(self, entered: Entered, result: Any) -> Left:
        """Judge the result of a call whose arguments were judged; nothing if they were not."""
        before, visits = entered.before, self._return_visits(result)
        if not visits or proves(self._prove_result, before.sizes, result):
            return Left(result, None)
        verdict = self.judge(before.verdict, visits)
        if _RESULT in self._held and verdict.error is None:
            return Left(self._hold(before, _RESULT, result), None)
        return Left(result, verdict.error)

    def note(self, error: BaseException, before: Before) -> None:
        """Tell an error of the body which dims the contract had bound."""
        if not isinstance(error, RecursionError):  # there is no room left to say anything
            self.boundary.note(error, before.verdict)

    # --- what the compiled contract turns to -------------------------------------------------
    def doubt(self, result: Any, arguments: dict[str, Any], sizes: dict[str, Any]) -> ContractError | None:
        """Judge a result that the compiled contract could not prove good."""
        return self.judge(self._reenter(arguments, sizes), self._return_visits(result)).error

    def note_compiled(self, error: BaseException, arguments: dict[str, Any], sizes: dict[str, Any]) -> None:
        """Tell an error of the body which dims the compiled contract had bound."""
        if not isinstance(error, RecursionError):  # likewise
            self.boundary.note(error, self._reenter(arguments, sizes))

    def crossed(self, arguments: dict[str, Any], result: Any) -> None:
        """Remember where values were accepted: the arguments, or the result if there is one."""
        self.boundary.crossed(self._visits(arguments) if result is None else self._return_visits(result))

    def _reenter(self, arguments: dict[str, Any], sizes: dict[str, Any]) -> Verdict:
        return self.boundary.reenter(arguments, self._visits(arguments), sizes)

    # --- while a graph is traced --------------------------------------------------------------
    def _judge_traced(self, call: Any, result: Any, returned: bool) -> None:
        """Judge a call, or its result, while it is being traced.

        Raises:
            TracedContractError: The contract is broken.
        """
        __tracebackhide__ = True
        entered = self.enter(*self._call_of(call))
        error = entered.before.error
        if returned and error is None:
            error = self.leave(entered, result).error
        if error is not None:
            raise TracedContractError(str(error), error.violations) from None

    def _call_of(self, call: Any) -> Call:
        """Return a call as it was made; the compiled contract knows it by the names of the parameters."""
        if type(call) is not dict:
            return call
        bound = inspect.BoundArguments(self.signature, typing.cast("Any", call))
        return bound.args, bound.kwargs

    # --- callables among the arguments --------------------------------------------------------
    def enter_traced(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Call, Call]:
        """Judge the arguments of a call while it is traced.

        Returns:
            The call as it can be judged again, and what to call the function with.
        """
        call = held = (args, kwargs)
        if self._held:  # dynamo cannot hand over closures: what stands for them is called nowhere
            call = self._held_call(args, kwargs, lambda _, called: _uncalled if callable(called) else called)
            held = self._held_call(args, kwargs, functools.partial(self._hold_traced, call))
        self.judge_traced(call, None, False)
        return call, held

    def leave_traced(self, call: Call, result: Any) -> Any:
        """Judge the result of a call while it is traced, and return it."""
        if _RESULT not in self._held:
            self.judge_traced(call, result, True)
            return result
        self.judge_traced(call, _uncalled if callable(result) else result, True)
        return self._hold_traced(call, _RESULT, result)

    def _held_call(self, args: tuple[Any, ...], kwargs: dict[str, Any], hold: Callable[[str, Any], Any]) -> Call:
        """Return the arguments of a call with the callables among them held to their annotations."""
        positional, named = list(args), dict(kwargs)
        for index, (name, parameter) in enumerate(self.signature.parameters.items()):
            if name not in self._held:
                continue
            if index < len(positional) and parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
                positional[index] = hold(name, positional[index])
            elif name in named:
                named[name] = hold(name, named[name])
            elif callable(parameter.default) and parameter.default is not parameter.empty:
                named[name] = hold(name, parameter.default)
        return tuple(positional), named

    def _hold(self, before: Before, name: str, called: Any) -> Any:
        """Return a function that does the same and whose calls are judged with the dims bound `before`.

        One that was given to a call and outlives it is then judged by itself; one that a call made is a closure.
        """
        node = self._held[name]
        if not callable(called) or mode_at_call(self.mode) == "off":
            return called
        during = before, self._proofs.get(name, (None, None))

        @functools.wraps(called, updated=())
        def held(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            is_kept = before.is_over and name != _RESULT
            known, (prove_call, prove_result) = self._alone(before, name) if is_kept else during
            visits: list[Visit] = [(name, (args, kwargs), node.call)]
            given = None
            if kwargs or not proves(prove_call, known.sizes, *args):
                given = self.judge(known.verdict, visits)
                if given.error is not None:
                    raise given.error from None
            result = called(*args, **kwargs)
            if node.result is None or (not kwargs and proves(prove_result, known.sizes, result, *args)):
                return result
            given = given or self.judge(known.verdict, visits)
            left = self.judge(given, [(f"result of {name}", result, node.result)])
            if left.error is not None:
                raise left.error from None
            return result

        return held

    def _alone(self, before: Before, name: str) -> tuple[Before, Proofs]:
        """Return what judges a callable after the call that it was given to: the dims that it cannot bind itself."""
        node = self._held[name]
        if name in self._proofs and name not in self._proofs_alone:
            self._proofs_alone[name] = compile_calls(self.boundary, self.ties, node, alone=True)

        def recall() -> Verdict:
            return Verdict([scope.keeping(node.borrowed) for scope in before.verdict.scopes], None)

        return Before(None, before.sizes, recall), self._proofs_alone.get(name, (None, None))

    def _hold_traced(self, call: Call, name: str, called: Any) -> Any:
        judge = self._judge_held_traced
        if not callable(called):
            return called

        def held(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            judge(call, name, (args, kwargs), None, False)
            result = called(*args, **kwargs)
            judge(call, name, (args, kwargs), result, True)
            return result

        return held

    def _judge_held(self, call: Call, name: str, inner: Call, result: Any, returned: bool) -> None:
        """Judge the call of a callable argument, or its result, while it is being traced."""
        __tracebackhide__ = True
        node = self._held[name]
        verdict = self.judge(self.enter(*call).before.verdict, [(name, inner, node.call)])
        if returned and verdict.error is None and node.result is not None:
            verdict = self.judge(verdict, [(f"result of {name}", result, node.result)])
        if verdict.error is not None:
            raise TracedContractError(str(verdict.error), verdict.error.violations) from None


def _uncalled() -> None:
    """Stand for a callable argument where only the other arguments matter."""


def _nodes(function: Callable[..., Any], signature: inspect.Signature, hints: Mapping[str, Any]) -> dict[str, Node]:
    builder = Builder()
    nodes: dict[str, Node] = {}
    for name, hint in hints.items():
        where = f"{name!r} of {function.__qualname__}"
        if name == "return" and is_generator_function(function):
            nodes[name] = generator_node(hint, function, builder, where)
        else:
            parameter = signature.parameters.get(name)
            is_starred = parameter is not None and parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}
            held = None if is_starred else callable_node(hint, builder, where)
            if name == "return":
                require_immediate(hint, where)
            nodes[name] = held or builder.node(hint, where)
    return nodes


def _meant(
    ties: Mapping[str, str], function: Callable[..., Any], signature: inspect.Signature, nodes: Mapping[str, Node]
) -> dict[str, str]:
    """Return those ties, meant for all methods of a class, that mean something in one of them.

    A constructor has nothing yet that an expression over ``self`` could refer to.
    """
    used = frozenset[str]().union(*(spec.bound | spec.referred for spec in tensor_specs(nodes.values())))
    known = [*signature.parameters][1:] if function.__name__ in CONSTRUCTORS else signature.parameters
    return {
        dim: expression
        for dim, expression in ties.items()
        if dim in used and expression_names(expression, f"the size of dim {dim!r}") <= set(known)
    }
