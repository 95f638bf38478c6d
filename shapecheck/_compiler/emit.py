"""Writes the source of a compiled contract: which statements prove a call good, in which order.

Values live in local variables, dims in locals named ``_sc_d_<dim>``, objects of the contract in constants ``_sc_k<n>``.
Everything else that a source refers to is in the namespace that `_compile` gives it.
"""

import contextlib
import inspect
from collections.abc import Callable, Generator, Mapping
from typing import Any

from .._annotations.nodes import Node, tensor_specs
from .._annotations.spec import Dim, TensorSpec
from ..axes import Sizes
from .value_writer import ValueWriter
from .writer import NotCompilableError


class Emitter(ValueWriter):
    """Writes the source of one contract, in one of two variants.

    Anything that could stop a proof ends in a return to the reference engine, so that what follows may rely on what
    stands before.

    Args:
        function: What the contract is on.
        signature: Its signature.
        nodes: What its parameters and its result (``return``) must be.
        ties: Expressions that dims are tied to.
        limits: Sizes that dims may have.
        symbolic: Write the variant for sizes that a tracer may not know yet: each comparison is a call that may leave
            the size to be checked when the graph runs.
        records: Report accepted values to ``_sc_crossed``.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        signature: inspect.Signature,
        nodes: Mapping[str, Node],
        ties: Mapping[str, str],
        limits: Mapping[str, Sizes],
        *,
        symbolic: bool = False,
        records: bool = False,
    ) -> None:
        source = f"{function.__module__}.{function.__qualname__}"
        super().__init__(signature, source, nodes, limits, symbolic=symbolic)
        self._nodes = nodes
        self._ties = ties
        self._records = records and not symbolic
        self._is_async = inspect.iscoroutinefunction(function)
        of_torch = self._specs_of_torch()
        self._can_be_traced = not symbolic and bool(of_torch)
        self._has_variant = self._can_be_traced and any(  # a tracer would stumble: over sizes, or over records
            self._records or self._is_compared(dim) for spec in of_torch for dim in spec.dims
        )

    def _specs_of_torch(self) -> list[TensorSpec]:
        specs = [] if self._is_async else tensor_specs(self._nodes.values())
        return [spec for spec in specs if spec.annotation.array_type.__module__.partition(".")[0] == "torch"]

    def _is_compared(self, dim: Dim) -> bool:
        if dim.kind in {"named", "variadic"}:
            return dim.text in self._ties or dim.text in self._limits or self._uses[dim.text] > 1
        return dim.kind != "anonymous"

    def emit(self) -> tuple[str, dict[str, Any]]:
        """Return the source and the constants that it refers to."""
        parameters, call = self._parameters()
        self._emit_entry(parameters, call)
        returns = self._nodes.get("return")
        if self._symbolic:
            self._emit_traced_rest(call, returns)
        else:
            self._emit_call(call, returns is not None)
            if returns is not None:
                self._emit_exit(returns)
        self._end()
        return "\n".join(self._lines) + "\n", self._constants

    def _emit_entry(self, parameters: str, call: str) -> None:
        """Write the checks of what goes in."""
        awaiting = "await " if self._is_async else ""
        name = "_sc_traced" if self._symbolic else "_sc_checked"
        self._begin(f"{'async ' if self._is_async else ''}def {name}({parameters}):")
        if self._has_variant:
            self._line("if _sc_is_traced():")
            self._line(f"    return _sc_traced({call})")
        self._on_doubt = f"return {awaiting}_sc_slow({call})"
        with self._undecided(f"_sc_traced({call})"):
            self._emit_blocks(call)
            for dim, expression in self._ties.items():
                self._line(f"_sc_d_{dim} = {self._evaluated(expression)}")
                self._require(f"type(_sc_d_{dim}) is int", *self._limit_conditions(dim))
                self._bound.add(dim)
            self._visit_all([(self._nodes[name], name) for name in self._signature.parameters if name in self._nodes])
        if self._records:
            self._line(f"_sc_crossed({self._named()}, None)")

    def _emit_blocks(self, call: str) -> None:
        """Turn to the reference engine where a block asks for it; while a graph is traced, only one that changes modes."""
        self._line("if _sc_state.blocks:")
        if self._symbolic:
            self._line("    _sc_seen()")
            self._require("not _sc_state.modes")
            return
        if self._can_be_traced and not self._has_variant:
            self._line("    if not _sc_state.modes and _sc_is_traced():")
            self._line(f"        return _sc_traced({call})")
        self._line(f"    {self._on_doubt}")

    @contextlib.contextmanager
    def _undecided(self, call: str) -> Generator[None]:
        """Turn to the variant for symbolic sizes where torch cannot compare them yet; costs nothing elsewhere."""
        if not self._has_variant:
            yield
            return
        with self._attempt("_sc_undecided()", f"return {call}"):
            yield

    def _emit_call(self, call: str, has_exit: bool) -> None:
        """Write the call of the function; an error of its body is told the dims."""
        statement = (
            f"{'_sc_result =' if has_exit else 'return'} {'await ' if self._is_async else ''}_sc_function({call})"
        )
        if not self._bound | self._uncertain:
            self._line(statement)
            return
        self._line("try:")
        self._line(f"    {statement}")
        self._line("except _sc_noted as _sc_error:")
        self._line(f"    _sc_note(_sc_error, {self._named()}, {self._sizes()})")
        self._line("    raise")

    def _emit_exit(self, returns: Node) -> None:
        """Write the checks of what comes out."""
        self._on_doubt = f"return _sc_leave(_sc_result, {self._named()}, {self._sizes()})"
        with self._undecided(f"_sc_traced_result({', '.join(self._result_parameters())})"):
            self._visit_all([(returns, "_sc_result")])
        if self._records:
            self._line(f"_sc_crossed({self._named()}, _sc_result)")
        self._line("return _sc_result")

    def _emit_traced_rest(self, call: str, returns: Node | None) -> None:
        if returns is None:
            self._line(f"return _sc_function({call})")
            return
        others = self._result_parameters()[1:]
        self._line(f"return _sc_traced_result({', '.join([f'_sc_function({call})', *others])})")
        self._end()
        self._begin(f"def _sc_traced_result({', '.join(self._result_parameters())}):")
        self._emit_exit(returns)

    def _result_parameters(self) -> list[str]:
        dims = sorted(self._bound | self._uncertain)
        return ["_sc_result", *self._signature.parameters, *(f"_sc_d_{dim}" for dim in dims)]

    def _named(self) -> str:
        return f"{{{', '.join(f'{name!r}: {name}' for name in self._signature.parameters)}}}"

    def _sizes(self) -> str:
        perhaps = self._uncertain - self._bound
        sizes = f"{{{', '.join(f'{dim!r}: _sc_d_{dim}' for dim in sorted(self._bound | perhaps))}}}"
        return f"{{_sc_d: _sc_n for _sc_d, _sc_n in {sizes}.items() if _sc_n is not None}}" if perhaps else sizes

    def _parameters(self) -> tuple[str, str]:
        """Return the parameter list, defaults included, and the argument list that passes all of them on."""
        parameters: list[str] = []
        call: list[str] = []
        previous = inspect.Parameter.POSITIONAL_ONLY
        for name, parameter in self._signature.parameters.items():
            if name.startswith("_sc_"):
                raise NotCompilableError
            kind = parameter.kind
            if previous is inspect.Parameter.POSITIONAL_ONLY is not kind and parameters:
                parameters.append("/")
            if kind is inspect.Parameter.KEYWORD_ONLY and "*" not in "".join(parameters):
                parameters.append("*")
            stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}.get(kind, "")
            default = "" if parameter.default is parameter.empty else f"={self._constant(parameter.default)}"
            parameters.append(f"{stars}{name}{default}")
            keyword = f"{name}=" if kind is inspect.Parameter.KEYWORD_ONLY else stars
            call.append(f"{keyword}{name}")
            previous = kind
        if parameters and previous is inspect.Parameter.POSITIONAL_ONLY:
            parameters.append("/")
        return ", ".join(parameters), ", ".join(call)
