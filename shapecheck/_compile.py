"""A contract as straight-line Python: one function per contract, which accepts what it can prove good.

The generated function has the signature of the function it guards, reads ``shape`` and ``dtype`` of each tensor once
and compares integers. Whatever it cannot prove good goes, unchanged, to the reference engine: it never rejects.
It holds nothing but what `torch.compile` can trace, so that only shape guards are left in a compiled graph.
"""

import ast
import collections
import collections.abc
import contextlib
import functools
import inspect
import itertools
import linecache
import sys
import typing
import weakref
from collections.abc import Callable, Generator, Mapping
from typing import Any

from ._reference import check_plain
from ._settings import state
from ._spec import BRACES, Dim, TensorSpec
from ._structure import (
    AttributesNode,
    MappingNode,
    Node,
    PlainNode,
    SequenceNode,
    TensorNode,
    TupleNode,
    TypedDictNode,
    UnionNode,
    tensor_specs,
)

_serial = itertools.count()
_NUMERIC_TOWER: tuple[tuple[type, tuple[type, ...]], ...] = ((float, (float, int)), (complex, (complex, float, int)))
_USUAL_DTYPES = ("float32", "complex64", "int64", "bool")
_CALLABLE: Any = collections.abc.Callable

Slow = Callable[..., Any]


class _NotCompilableError(Exception):
    """Only the reference engine can judge the contract."""


def compile_function(
    function: Callable[..., Any],
    signature: inspect.Signature,
    nodes: Mapping[str, Node],
    ties: Mapping[str, str],
    slow: Slow,
    leave: Slow,
) -> Callable[..., Any] | None:
    """Return a function that checks a call as fast as asserts would; None when the contract cannot be compiled.

    Args:
        function: What to call.
        signature: Its signature.
        nodes: What its parameters and its result (``return``) must be.
        ties: Expressions that dims are tied to.
        slow: Called with the arguments, instead of `function`, when they could not be proved good.
        leave: Called with the result, the arguments by name and the dims that they bound, when the result could not
            be proved good.
    """
    try:
        source, constants = _Emitter(function, signature, nodes, ties).emit()
    except _NotCompilableError:
        return None
    number = next(_serial)
    namespace: dict[str, Any] = {  # without __name__, because dynamo looks globals up in the module that it names
        **constants,
        "_sc_function": function,
        "_sc_slow": slow,
        "_sc_leave": leave,
        "_sc_state": state,
    }
    filename = f"<contract {function.__module__}.{function.__qualname__} #{number}>"
    linecache.cache[filename] = (len(source), None, typing.cast("list[str]", _Lines(source)), filename)
    exec(compile(source, filename, "exec"), namespace)  # noqa: S102  # written above, from annotations
    checked: Any = functools.wraps(function)(namespace["_sc_checked"])
    checked.__contract_source__ = source
    weakref.finalize(checked, linecache.cache.pop, filename, None)
    return checked


class _Lines(collections.abc.Sequence[str]):
    """The lines of a source, split when a traceback is printed: a list of them would hold more than all the rest."""

    __slots__ = ("_source",)

    def __init__(self, source: str) -> None:
        self._source = source

    def __len__(self) -> int:
        return self._source.count("\n")

    @typing.overload
    def __getitem__(self, index: int) -> str: ...
    @typing.overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        return self._source.splitlines(keepends=True)[index]


class _Emitter:
    """Writes the source of one contract.

    Values live in local variables, dims in locals named ``_sc_d_<dim>``. Anything that could stop a proof ends in a
    return to the reference engine, so that what follows may rely on what stands before.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        signature: inspect.Signature,
        nodes: Mapping[str, Node],
        ties: Mapping[str, str],
    ) -> None:
        self._signature = signature
        self._nodes = nodes
        self._ties = ties
        self._is_async = inspect.iscoroutinefunction(function)
        self._lines: list[str] = []
        self._depth = 1
        self._constants: dict[str, Any] = {}
        self._bound = set[str]()
        self._shapes = dict[tuple[Dim, ...], str]()  # locals that hold the shape of a tensor with these dims
        self._uncertain = set[str]()  # bound in a block that may not run
        self._uses = _count_uses(signature, nodes)
        self._locals = itertools.count()
        self._on_doubt = ""

    def emit(self) -> tuple[str, dict[str, Any]]:
        """Return the source and the constants that it refers to."""
        parameters, call = self._parameters()
        awaiting = "await " if self._is_async else ""
        self._on_doubt = f"return {awaiting}_sc_slow({call})"
        self._require("not _sc_state.blocks")
        for dim, expression in self._ties.items():
            self._line(f"_sc_d_{dim} = {expression}")
            self._require(f"type(_sc_d_{dim}) is int")
            self._bound.add(dim)
        self._visit_all([(self._nodes[name], name) for name in self._signature.parameters if name in self._nodes])
        returns = self._nodes.get("return")
        if returns is None:
            self._line(f"return {awaiting}_sc_function({call})")
        else:
            self._line(f"_sc_result = {awaiting}_sc_function({call})")
            named = ", ".join(f"{name!r}: {name}" for name in self._signature.parameters)
            sizes = ", ".join(f"{dim!r}: _sc_d_{dim}" for dim in sorted(self._bound))
            self._on_doubt = f"return _sc_leave(_sc_result, {{{named}}}, {{{sizes}}})"
            self._visit_all([(returns, "_sc_result")])
            self._line("return _sc_result")
        definition = "async def" if self._is_async else "def"
        header = f"{definition} _sc_checked({parameters}):\n    __tracebackhide__ = True\n"
        return header + "\n".join(self._lines) + "\n", self._constants

    def _parameters(self) -> tuple[str, str]:
        """Return the parameter list, defaults included, and the argument list that passes all of them on."""
        parameters: list[str] = []
        call: list[str] = []
        previous = inspect.Parameter.POSITIONAL_ONLY
        for name, parameter in self._signature.parameters.items():
            if name.startswith("_sc_"):
                raise _NotCompilableError
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

    # --- writing -----------------------------------------------------------------------------
    def _line(self, text: str) -> None:
        self._lines.append("    " * self._depth + text)

    def _require(self, *conditions: str) -> None:
        if conditions:
            self._line(f"if not ({' and '.join(conditions)}):")
            self._line(f"    {self._on_doubt}")

    def _constant(self, value: object) -> str:
        for name, known in self._constants.items():
            if known is value:
                return name
        name = f"_sc_k{len(self._constants)}"
        self._constants[name] = value
        return name

    def _local(self) -> str:
        return f"_sc_v{next(self._locals)}"

    def _assign(self, expression: str) -> str:
        name = self._local()
        self._line(f"{name} = {expression}")
        return name

    @contextlib.contextmanager
    def _block(self, header: str) -> Generator[None]:
        """Indent what is written under a header; dims bound there are bound for nobody else."""
        self._line(header)
        before, shapes = set(self._bound), dict(self._shapes)
        self._depth += 1
        start = len(self._lines)
        yield
        if len(self._lines) == start:
            self._line("pass")
        self._depth -= 1
        self._uncertain |= self._bound - before
        self._bound, self._shapes = before, shapes

    # --- values ------------------------------------------------------------------------------
    def _visit_all(self, values: list[tuple[Node, str]]) -> None:
        """Write the checks of some values, those that bind dims before those that only refer to them."""
        pending, waiting, blocks = (list(values), list[tuple[TensorNode, str]](), list[tuple[Node, str]]())
        while pending or waiting:
            if not pending:
                pending.append(self._take_ready(waiting))
            node, value = pending.pop(0)
            if isinstance(node, TensorNode) and not self._is_ready(node.spec):
                waiting.append((node, value))
            elif isinstance(node, TensorNode):
                self._tensor(node.spec, value, _accepted_dtypes([node.spec]))
            elif isinstance(node, (UnionNode, SequenceNode, MappingNode)) or self._is_starred(value):
                blocks.append((node, value))
            else:
                pending[:0] = self._structure(node, value)
        for node, value in blocks:
            self._block_node(node, value)

    def _is_starred(self, value: str) -> bool:
        parameter = self._signature.parameters.get(value)
        return parameter is not None and parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}

    def _take_ready(self, waiting: list[tuple[TensorNode, str]]) -> tuple[Node, str]:
        for index, (node, _) in enumerate(waiting):
            if self._is_ready(node.spec):
                return waiting.pop(index)
        raise _NotCompilableError

    def _is_ready(self, spec: TensorSpec) -> bool:
        """Tell whether every dim that the spec cannot bind itself is bound."""
        if (spec.bound | spec.referred) & self._uncertain - self._bound:
            raise _NotCompilableError
        broadcast = {dim.text for dim in spec.dims if dim.broadcastable and dim.kind == "named"}
        return spec.needs | broadcast <= self._bound

    def _structure(self, node: Node, value: str) -> list[tuple[Node, str]]:
        """Write the check of a record or plain value itself; return what is inside it."""
        if isinstance(node, PlainNode):
            condition = self._plain_condition(node.hint, value)
            self._require(*([condition] if condition else []))
            return []
        if isinstance(node, TupleNode):
            self._require(f"isinstance({value}, tuple)", f"len({value}) == {len(node.items)}")
            return [(item, self._assign(f"{value}[{index}]")) for index, item in enumerate(node.items)]
        if isinstance(node, TypedDictNode) and node.required == node.fields.keys():
            self._require(f"type({value}) is dict", f"len({value}) == {len(node.fields)}")
            with self._doubting("KeyError"):
                return [(field, self._assign(f"{value}[{key!r}]")) for key, field in node.fields.items()]
        if isinstance(node, AttributesNode):
            self._require(f"isinstance({value}, {self._constant(node.kind)})")
            return [(field, self._assign(f"{value}.{name}")) for name, field in node.fields.items()]
        raise _NotCompilableError

    def _block_node(self, node: Node, value: str) -> None:
        if self._is_starred(value):
            items = (
                value
                if self._signature.parameters[value].kind is inspect.Parameter.VAR_POSITIONAL
                else f"{value}.values()"
            )
            self._items(node, items)
        elif isinstance(node, SequenceNode):
            self._require(f"isinstance({value}, {self._constant(node.kind)})", f"type({value}) is not str")
            self._items(node.item, value)
        elif isinstance(node, MappingNode):
            self._require(f"isinstance({value}, {self._constant(node.kind)})")
            self._items(node.key, value)
            self._items(node.value, f"{value}.values()")
        elif isinstance(node, UnionNode):
            self._union(node, value)
        else:
            raise _NotCompilableError

    def _items(self, node: Node, items: str) -> None:
        """Write a loop over items; the first one binds the dims that nothing else has bound."""
        names = {name for spec in tensor_specs([node]) for name in spec.bound if self._uses[name] > 1}
        if not names <= self._bound:
            self._require(f"{items}")  # an empty container would leave a dim unbound
            self._visit_all([(node, self._assign(f"next(iter({items}))"))])
        if not names <= self._bound:
            raise _NotCompilableError
        item = self._local()
        with self._block(f"for {item} in {items}:"):
            self._visit_all([(node, item)])

    def _union(self, node: UnionNode, value: str) -> None:
        alternatives = [item for item in node.alternatives if not _is_none(item)]
        if len(alternatives) < len(node.alternatives):
            with self._block(f"if {value} is not None:"):
                self._visit_all(
                    [(UnionNode(node.text, alternatives) if len(alternatives) > 1 else alternatives[0], value)]
                )
            return
        specs = [item.spec for item in alternatives if isinstance(item, TensorNode)]
        if len(specs) == len(alternatives) and len({(spec.dims, spec.annotation.array_type) for spec in specs}) == 1:
            if not self._is_ready(specs[0]):
                raise _NotCompilableError
            self._tensor(specs[0], value, _accepted_dtypes(specs))
        elif all(isinstance(item, PlainNode) for item in alternatives):
            conditions = [self._plain_condition(typing.cast("PlainNode", item).hint, value) for item in alternatives]
            self._require(*([f"({' or '.join(conditions)})"] if all(conditions) else []))
        else:
            raise _NotCompilableError

    def _plain_condition(self, hint: Any, value: str) -> str:
        """Return an expression that is true only if beartype accepts the value; nothing if it accepts all."""
        if hint is Any or hint is object:
            return ""
        if _is_none_hint(hint):
            return f"{value} is None"
        tower = next((kinds for kind, kinds in _NUMERIC_TOWER if hint is kind), None)
        if tower is not None:
            return f"isinstance({value}, {self._constant(tower)})"
        if isinstance(hint, type) and typing.get_origin(hint) is None and not _has_own_rules(hint):
            return f"isinstance({value}, {self._constant(hint)})"
        arguments = typing.get_args(hint)
        if typing.get_origin(hint) is typing.Literal and all(type(argument) is str for argument in arguments):
            return f"({value}.__class__ is str and {value} in {self._constant(frozenset(arguments))})"
        if typing.get_origin(hint) is _CALLABLE:
            return f"callable({value})"
        return f"{self._constant(functools.partial(check_plain, hint))}({value})"

    # --- tensors -----------------------------------------------------------------------------
    def _tensor(self, spec: TensorSpec, value: str, dtypes: frozenset[Any] | None) -> None:
        kind = spec.annotation.array_type
        if not isinstance(kind, type):
            raise _NotCompilableError
        name = self._constant(kind)
        conditions = [f"({value}.__class__ is {name} or isinstance({value}, {name}))"]
        if dtypes is not None:
            conditions.append(self._dtype_condition(value, dtypes))
        if spec.variadic is not None:
            shape = self._local()
            self._require(*conditions, f"len({shape} := {value}.shape) >= {len(spec.dims) - 1}")
            self._variadic_axes(spec, spec.variadic, shape)
        elif spec.dims in self._shapes:
            self._require(*conditions, f"{value}.shape == {self._shapes[spec.dims]}")
        elif self._is_known(spec):
            sizes = "".join(f"{self._size(dim)}, " for dim in spec.dims)
            self._require(*conditions, f"{value}.shape == ({sizes})")
        else:
            self._require(*conditions)
            self._axes(spec.dims, f"{value}.shape")

    def _dtype_condition(self, value: str, dtypes: frozenset[Any]) -> str:
        """Return an expression that is true for some dtypes, at once for the one that is met most."""
        usual = min(dtypes, key=lambda dtype: (str(dtype).rpartition(".")[2] not in _USUAL_DTYPES, str(dtype)))
        if len(dtypes) == 1:
            return f"{value}.dtype is {self._constant(usual)}"
        dtype = self._local()
        return f"(({dtype} := {value}.dtype) is {self._constant(usual)} or {dtype} in {self._constant(dtypes)})"

    def _is_known(self, spec: TensorSpec) -> bool:
        """Tell whether every axis has one size that is known before the tensor is looked at."""
        if any(dim.broadcastable or dim.kind == "anonymous" for dim in spec.dims):
            return False
        named = {dim.text for dim in spec.dims if dim.kind == "named"}
        return named <= self._bound and not any(dim.arguments for dim in spec.dims)

    def _axes(self, dims: tuple[Dim, ...], shape: str) -> None:
        """Unpack a shape into the dims it binds, then compare the rest."""
        targets: list[str] = []
        compared: list[tuple[Dim, str]] = []
        for dim in dims:
            if dim.kind == "anonymous" or (dim.kind == "named" and self._is_free(dim)):
                targets.append("_")
            elif dim.kind == "named" and not dim.broadcastable and dim.text not in self._bound:
                self._bound.add(dim.text)
                targets.append(f"_sc_d_{dim.text}")
            else:
                targets.append(self._local())
                compared.append((dim, targets[-1]))
        whole = self._local()
        with self._doubting("ValueError"):  # too few or too many axes
            self._line(f"[{', '.join(targets)}] = {whole} = {shape}")
        self._require(*(self._axis_condition(dim, size) for dim, size in compared))
        if not any(dim.broadcastable or dim.arguments or dim.kind == "anonymous" for dim in dims):
            self._shapes[dims] = whole

    @contextlib.contextmanager
    def _doubting(self, error: str) -> Generator[None]:
        """Leave the call to the reference engine when what is written inside raises an error."""
        self._line("try:")
        self._depth += 1
        yield
        self._depth -= 1
        self._line(f"except {error}:")
        self._line(f"    {self._on_doubt}")

    def _axis(self, dim: Dim, size: str) -> None:
        """Bind the dim of one axis, or compare the axis with it."""
        if dim.kind == "named" and not dim.broadcastable and dim.text not in self._bound:
            self._bound.add(dim.text)
            self._line(f"_sc_d_{dim.text} = {size}")
        else:
            self._require(self._axis_condition(dim, size))

    def _is_free(self, dim: Dim) -> bool:
        """Tell whether a dim is named once in the whole contract, so that nothing can contradict it."""
        return self._uses[dim.text] == 1 and dim.text not in self._bound

    def _axis_condition(self, dim: Dim, size: str) -> str:
        same = f"{size} == {self._size(dim)}"
        return f"({size} == 1 or {same})" if dim.broadcastable else same

    def _size(self, dim: Dim) -> str:
        """Return an expression for the size that a dim must have."""
        if dim.kind == "fixed":
            return str(dim.size)
        if dim.kind == "named":
            return f"_sc_d_{dim.text}"
        text = BRACES.sub(lambda match: self._argument(match[1]), dim.text)
        tree = ast.parse(text, mode="eval")
        for node in ast.walk(tree):
            if _may_raise(node):
                raise _NotCompilableError
            if isinstance(node, ast.Name) and node.id in dim.names:
                node.id = f"_sc_d_{node.id}"
        return f"({ast.unparse(tree)})"

    def _argument(self, expression: str) -> str:
        """Evaluate an expression in braces; a size that is no plain number is the reference engine's business."""
        size = self._assign(expression)
        self._require(f"type({size}) is int", f"{size} >= 0")
        return size

    def _variadic_axes(self, spec: TensorSpec, index: int, shape: str) -> None:
        after = len(spec.dims) - index - 1
        dim = spec.dims[index]
        fixed = [
            *enumerate(spec.dims[:index]),
            *((position - after, dim) for position, dim in enumerate(spec.dims[index + 1 :])),
        ]
        for position, axis in sorted(fixed, key=lambda item: item[1].kind != "named" or item[1].broadcastable):
            if axis.kind != "anonymous" and not (axis.kind == "named" and self._is_free(axis)):
                self._axis(axis, f"{shape}[{position}]")
        if dim.text and self._uses[dim.text] > 1:
            if dim.broadcastable:
                raise _NotCompilableError
            run = f"{shape}[{index}:{f'-{after}' if after else ''}]"
            if dim.text in self._bound:
                self._require(f"_sc_d_{dim.text} == {run}")
            else:
                self._line(f"_sc_d_{dim.text} = {run}")
                self._bound.add(dim.text)


def _may_raise(node: ast.AST) -> bool:
    """Tell whether an operation divides by, or raises to, something that is not a number other than 0."""
    if not isinstance(node, ast.BinOp) or not isinstance(node.op, (ast.Div, ast.FloorDiv, ast.Mod, ast.Pow)):
        return False
    return not (isinstance(node.right, ast.Constant) and bool(node.right.value))


# --- facts about annotations ---------------------------------------------------------------------
def _count_uses(signature: inspect.Signature, nodes: Mapping[str, Node]) -> "collections.Counter[str]":
    """Count how often each dim is named in a contract; what may stand for several tensors counts twice."""
    uses = collections.Counter[str]()

    def count(node: Node, times: int, inside: tuple[Node, ...]) -> None:
        if node in inside:
            raise _NotCompilableError  # a record that refers to itself
        if isinstance(node, TensorNode):
            names = [name for dim in node.spec.dims for name in (dim.names or [dim.text])]
            uses.update(names * times)
        for child in node.children():
            count(child, 2 if isinstance(node, (SequenceNode, MappingNode)) else times, (*inside, node))

    dims = [dim for spec in tensor_specs(nodes.values()) for dim in spec.dims]
    if {dim.text for dim in dims if dim.kind == "variadic" and dim.text} & {
        name for dim in dims if dim.kind != "variadic" for name in (dim.names or [dim.text])
    }:
        raise _NotCompilableError  # one name for an axis and for a run of axes
    for name, node in nodes.items():
        parameter = signature.parameters.get(name)
        starred = parameter is not None and parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}
        count(node, 2 if starred else 1, ())
    return uses


def _accepted_dtypes(specs: list[TensorSpec]) -> frozenset[Any] | None:
    """Return the dtype objects that some specs accept; None when they accept all."""
    library = specs[0].annotation.array_type.__module__.partition(".")[0]
    accepted = frozenset[Any]()
    for spec in specs:
        key = (library, spec.annotation.dtypes)
        if key not in _families:
            names = _dtype_names(library)
            _families[key] = frozenset(dtype for dtype, name in names.items() if spec.accepts_dtype(name))
        accepted = accepted | _families[key] if accepted else _families[key]
    return accepted if len(accepted) < len(_dtype_names(library)) else None


_families: dict[tuple[str, Any], frozenset[Any]] = {}  # shared by all contracts


@functools.cache
def _dtype_names(library: str) -> dict[Any, str]:
    """Return every dtype of a library with its name."""
    module = sys.modules[library]
    if library == "torch":
        dtypes = {value for value in vars(module).values() if isinstance(value, module.dtype)}
    elif library == "numpy":
        dtypes = {module.dtype(code) for code in module.typecodes["All"]}
    else:
        raise _NotCompilableError
    return {dtype: str(dtype).rpartition(".")[2] for dtype in dtypes}


def _has_own_rules(kind: Any) -> bool:
    """Tell whether values need not be instances of a class to satisfy it as a hint."""
    return getattr(kind, "_is_protocol", False) or typing.is_typeddict(kind)


def _is_none(node: Node) -> bool:
    return isinstance(node, PlainNode) and _is_none_hint(node.hint)


def _is_none_hint(hint: Any) -> bool:
    return hint is None or hint is type(None)
