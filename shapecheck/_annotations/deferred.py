"""Annotations of what crosses a boundary after the call itself: by calling an argument, or by iterating over a result.

``Callable[[A], B]`` and Protocols with ``__call__`` say what a function is called with and what it returns;
``Generator[Y, S, R]`` and its kin what a generator yields, is sent and returns.
"""

import collections.abc
import contextlib
import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .._render import describe_annotation
from ..errors import ContractDefinitionError, Mismatch
from .declared import mentions_tensor
from .nodes import Node, PlainNode, UnionNode, UnpackedNode, Visit, tensor_specs
from .resolve import resolve_hints
from .spec import TensorSpec
from .structure import Builder

_CALLABLE: Any = collections.abc.Callable
_GENERATORS: dict[Any, bool] = {  # whether it is iterated over with `async for`
    collections.abc.Generator: False,
    collections.abc.Iterator: False,
    collections.abc.Iterable: False,
    collections.abc.AsyncGenerator: True,
    collections.abc.AsyncIterator: True,
    collections.abc.AsyncIterable: True,
}


ARGUMENTS = "arguments"  # path of the arguments of a call of the guarded function itself


def argument_visits(
    signature: inspect.Signature, nodes: Mapping[str, Node], arguments: Mapping[str, Any]
) -> list[Visit]:
    """Return the arguments of a call with what each must be; those of a starred parameter one by one."""
    visits: list[Visit] = []
    for name, value in arguments.items():
        if (node := nodes.get(name)) is None:
            continue
        kind = signature.parameters[name].kind
        if isinstance(node, UnpackedNode):
            visits.append((name, value, node.whole))
        elif kind is inspect.Parameter.VAR_POSITIONAL:
            visits += [(f"{name}[{index}]", item, node) for index, item in enumerate(value)]
        elif kind is inspect.Parameter.VAR_KEYWORD:
            visits += [(f"{name}[{key!r}]", item, node) for key, item in value.items()]
        else:
            visits.append((name, value, node))
    return visits


# --- callables -------------------------------------------------------------------------------------
class CallNode(Node):
    """The arguments of one call, as the pair of positional and named ones: they must fit a signature.

    Args:
        text: The annotation that the signature comes from.
        signature: Parameters.
        nodes: What the parameters must be.
    """

    def __init__(self, text: str, signature: inspect.Signature, nodes: Mapping[str, Node]) -> None:
        self.text = text
        self._signature = signature
        self._nodes = nodes

    def accepts_kind(self, value: object) -> bool:
        return isinstance(value, tuple)

    def visit(self, value: Any, path: str) -> tuple[list[Mismatch], list[Visit]]:
        args, kwargs = value
        try:
            arguments = self._signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            return [Mismatch("reference", str(error), self.text)], []
        visits = argument_visits(self._signature, self._nodes, arguments)
        return [], [(_path_of_argument(name, path), item, node) for name, item, node in visits]

    def children(self) -> Iterator[Node]:
        return iter(self._nodes.values())

    def positional(self) -> tuple[list[str] | None, Mapping[str, Node]]:
        """Return the names of the parameters and what they must be, if calls can be made by position only."""
        kinds = {parameter.kind for parameter in self._signature.parameters.values()}
        names = list(self._signature.parameters) if kinds <= {inspect.Parameter.POSITIONAL_ONLY} else None
        return names, self._nodes


def _path_of_argument(name: str, of: str) -> str:
    """Return how an argument is called; one that has no name, by its position."""
    if of == ARGUMENTS:
        return name
    return f"argument {name.removeprefix('_') if name[1:].isdigit() else name} of {of}"


class CallableNode(Node):
    """Something that can be called: what it is called with, and what it returns, is checked when that happens.

    Attributes:
        call: The arguments.
        result: What it returns; None if that is not annotated.
    """

    def __init__(self, text: str, call: CallNode, result: Node | None) -> None:
        self.text = text
        self.call = call
        self.result = result

    def accepts_kind(self, value: object) -> bool:
        return callable(value)

    def children(self) -> Iterator[Node]:
        yield self.call
        if self.result is not None:
            yield self.result

    def parts(self) -> Iterator[Node]:
        """Iterate over what the arguments and the result must be."""
        yield from self.call.children()
        if self.result is not None:
            yield self.result

    @functools.cached_property
    def borrowed(self) -> frozenset[str]:
        """The dims that it refers to and cannot bind itself: those of the call that it is given to."""
        given, everything = tensor_specs(self.call.children()), tensor_specs(self.parts())
        return (_referred(given) - _bound(given)) | (_referred(everything) - _bound(everything))


def _referred(specs: list[TensorSpec]) -> frozenset[str]:
    return frozenset[str]().union(*(spec.referred for spec in specs))


def _bound(specs: list[TensorSpec]) -> frozenset[str]:
    return frozenset[str]().union(*(spec.bound for spec in specs))


def callable_node(hint: Any, builder: Builder, where: str) -> Node | None:
    """Return the node of a callable with annotated tensors, optional or not; None for any other annotation.

    Raises:
        ContractDefinitionError: It is one of several alternatives, so that it is not clear what a value is.
    """
    if typing.get_origin(hint) not in {typing.Union, types.UnionType}:
        return _bare_callable(hint, builder, where)
    alternatives = {item: _bare_callable(item, builder, where) for item in typing.get_args(hint)}
    callables = [node for node in alternatives.values() if node is not None]
    if not callables:
        return None
    if len(callables) > 1 or any(node is None and item is not type(None) for item, node in alternatives.items()):
        msg = (
            f"{describe_annotation(hint)} ({where}) cannot be checked in full: a callable has no alternative but None."
        )
        raise ContractDefinitionError(msg)
    return UnionNode(describe_annotation(hint), [*callables, PlainNode(None, where)])


def held_callable(node: Node | None) -> CallableNode | None:
    """Return the callable that a node made by `callable_node` is about."""
    alternatives = node.alternatives if isinstance(node, UnionNode) else [node]
    return next((item for item in alternatives if isinstance(item, CallableNode)), None)


def _bare_callable(hint: Any, builder: Builder, where: str) -> CallableNode | None:
    if isinstance(hint, type) and getattr(hint, "_is_protocol", False) and _has_call(hint):
        signature, hints = _call_of_protocol(hint)
    elif typing.get_origin(hint) is _CALLABLE and typing.get_args(hint):
        signature, hints = _call_of_callable(hint)
    else:
        return None
    try:
        nodes = {name: builder.node(item, f"{name!r} of {where}") for name, item in hints.items()}
    except ContractDefinitionError:
        return None  # for the builder to refuse if tensors are inside, and for beartype otherwise
    if not tensor_specs(nodes.values()):
        return None
    text, result = describe_annotation(hint), nodes.pop("return", None)
    return CallableNode(text, CallNode(text, signature, nodes), result)


def _has_call(kind: type) -> bool:
    return any(inspect.isfunction(vars(base).get("__call__")) for base in kind.__mro__)


def _call_of_callable(hint: Any) -> tuple[inspect.Signature, dict[str, Any]]:
    """Return the signature of a ``Callable``; its parameters have numbers for names."""
    given, result = typing.get_args(hint)
    if not isinstance(given, list):  # Callable[..., B], or a ParamSpec
        kinds = {"args": inspect.Parameter.VAR_POSITIONAL, "kwargs": inspect.Parameter.VAR_KEYWORD}
        return inspect.Signature([inspect.Parameter(name, kind) for name, kind in kinds.items()]), {"return": result}
    names = {f"_{index}": item for index, item in enumerate(typing.cast("list[Any]", given))}
    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in names]
    return inspect.Signature(parameters), {**names, "return": result}


def _call_of_protocol(hint: Any) -> tuple[inspect.Signature, dict[str, Any]]:
    """Return the signature of the ``__call__`` of a Protocol, without ``self``."""
    function = hint.__call__
    signature = inspect.signature(function)
    _, *parameters = signature.parameters.values()
    return signature.replace(parameters=parameters), resolve_hints(function, function.__annotations__)


# --- generators ------------------------------------------------------------------------------------
class GeneratorNode(Node):
    """What a generator yields, is sent and returns; None for what is not annotated."""

    def __init__(self, text: str, yields: Node, sends: Node | None, returns: Node | None) -> None:
        self.text = text
        self.yields = yields
        self.sends = sends
        self.returns = returns

    def accepts_kind(self, value: object) -> bool:
        return isinstance(value, collections.abc.Iterator)

    def children(self) -> Iterator[Node]:
        return filter(None, (self.yields, self.sends, self.returns))


_CURES: dict[Any, str] = {
    collections.abc.Iterator: "make it a generator function",
    collections.abc.Generator: "make it a generator function",
    collections.abc.AsyncIterator: "make it an asynchronous generator function",
    collections.abc.AsyncGenerator: "make it an asynchronous generator function",
    collections.abc.Awaitable: "write async def",
    collections.abc.Coroutine: "write async def",
    contextlib.AbstractContextManager: "put @contract below @contextmanager",
    contextlib.AbstractAsyncContextManager: "put @contract below @asynccontextmanager",
}


def require_immediate(hint: Any, where: str) -> None:
    """Refuse a result with tensors that are there only later, in an object that is not ours to replace.

    Raises:
        ContractDefinitionError: With what to do instead.
    """
    cure = _CURES.get(typing.get_origin(hint))
    if cure is not None and mentions_tensor(hint):
        msg = f"The tensors inside {describe_annotation(hint)} ({where}) cannot be checked in full: {cure}."
        raise ContractDefinitionError(msg)


def is_generator_function(function: Any) -> bool:
    """Tell whether calling a function makes a generator, of either kind."""
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


def generator_node(hint: Any, function: Callable[..., Any], builder: Builder, where: str) -> Node:
    """Return the node of what a generator function is annotated to return.

    Raises:
        ContractDefinitionError: The annotation is not that of a generator of this kind.
    """
    origin, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    is_async = inspect.isasyncgenfunction(function)
    if hint is Any or hint is object:
        return PlainNode(hint, where)
    if _GENERATORS.get(origin) is not is_async:
        usual = "AsyncIterator[...] or AsyncGenerator[...]" if is_async else "Iterator[...] or Generator[...]"
        msg = f"Expected {where}, a generator, to be annotated as {usual}, got {describe_annotation(hint)}."
        raise ContractDefinitionError(msg)
    if not arguments:
        return PlainNode(hint, where)
    nodes = [builder.node(item, where) for item in arguments]
    if origin in {collections.abc.Generator, collections.abc.AsyncGenerator}:
        nodes += [builder.node(None, where)] * (3 - is_async - len(nodes))  # PEP 696
    sends, returns = [*nodes[1:], None, None][:2]
    return GeneratorNode(describe_annotation(hint), nodes[0], sends, returns)
