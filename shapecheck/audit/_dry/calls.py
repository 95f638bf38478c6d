"""A valid call of a contracted function, made up from its contract: what is passed, in which order it is chosen."""

import dataclasses
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

from ..._annotations.nodes import Node, PlainNode, UnionNode, UnpackedNode, tensor_specs, walk
from ..._annotations.spec import expression_names
from ..._boundaries.function import FunctionContract
from ..._render import describe
from .._made_up import UnmakeableError
from .._package import Member
from .fakes import Maker, is_path

_STARRED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_MOST_VARIANTS = 4


@dataclasses.dataclass(frozen=True)
class Call:
    """A call of a function.

    Attributes:
        args: Positional arguments.
        kwargs: Named arguments.
        text: It in short, with shapes for tensors.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    text: str


def variants_of(contract: FunctionContract) -> int:
    """Return in how many ways a function is worth calling, so that every alternative of its unions is met once."""
    entering = [node for name, node in contract.boundary.nodes.items() if name != "return"]
    unions = [node for node in walk(entering) if isinstance(node, UnionNode) and tensor_specs([node])]
    return min(max((len(union.alternatives) for union in unions), default=1), _MOST_VARIANTS)


def owner_of(member: Member) -> type | None:
    """Return the class that a method stands in; None for a function."""
    owner: Any = sys.modules[member.value.__module__]
    for name in member.value.__qualname__.split(".")[:-1]:
        owner = getattr(owner, name)
    return owner if isinstance(owner, type) else None


def make_call(contract: FunctionContract, maker: Maker, owner: type | None) -> Call:
    """Make up a call that a contract accepts.

    Args:
        contract: That of the function.
        maker: Makes the values.
        owner: The class that a method stands in.

    Raises:
        UnmakeableError: A value cannot be made, or the contract refuses what was made.
    """
    parameters = contract.signature.parameters
    nodes = {name: node for name, node in contract.boundary.nodes.items() if name in parameters}
    if owner is not None and parameters:
        first = next(iter(parameters))
        maker.arguments[first] = _first(contract, maker, owner)
    remaining = [name for name in parameters if name not in maker.arguments]
    with_tensors = {name for name in remaining if name in nodes and tensor_specs([nodes[name]])}
    for name in [name for name in remaining if name not in with_tensors]:
        _choose(name, contract, maker, nodes.get(name))
    tie(contract, maker)
    for name in [name for name in remaining if name in with_tensors]:
        _choose(name, contract, maker, nodes[name])
    call = _assembled(contract.signature, maker.arguments)
    error = contract.enter(call.args, call.kwargs).before.error
    if error is not None:
        violation = error.violations[0]
        msg = f"no valid call was found: {violation.parameter} should be {violation.expected}, and {violation.got} was tried"
        raise UnmakeableError(msg)
    return call


def _first(contract: FunctionContract, maker: Maker, owner: type) -> Any:
    """Return what a method is called on."""
    name = contract.function.__name__
    if name == "__new__" or isinstance(inspect.getattr_static(owner, name, None), classmethod):
        return owner
    new: Any = owner.__new__
    return new(owner) if name == "__init__" else maker.instance(owner, "self")


def _choose(name: str, contract: FunctionContract, maker: Maker, node: Node | None) -> None:
    """Make one argument, unless it has a default that will do."""
    parameter = contract.signature.parameters[name]
    tied = [dim for dim, expression in contract.ties.items() if expression == name]
    if parameter.kind in _STARRED:
        maker.arguments[name] = _starred(parameter, maker, node)
    elif tied and (parameter.default is parameter.empty or maker.sizes.is_pinned(tied[0])):
        maker.arguments[name] = maker.sizes.of(tied[0])
    elif parameter.default is not parameter.empty and not (node is not None and tensor_specs([node])):
        _require_harmless(parameter, node)
        maker.arguments[name] = parameter.default
    elif node is None:
        msg = f"{name}: it is not annotated and has no default"
        raise UnmakeableError(msg)
    else:
        maker.arguments[name] = maker.value(node, name)


def _starred(parameter: inspect.Parameter, maker: Maker, node: Node | None) -> Any:
    if isinstance(node, UnpackedNode):
        return maker.value(node, parameter.name)
    if parameter.kind is parameter.VAR_KEYWORD or node is None:
        return {} if parameter.kind is parameter.VAR_KEYWORD else ()
    return tuple(maker.value(node, f"{parameter.name}[{index}]") for index in range(2))


def _require_harmless(parameter: inspect.Parameter, node: Node | None) -> None:
    is_file = isinstance(node, PlainNode) and node.hint is not str and is_path(node.hint)
    if is_file and parameter.default is not None:
        msg = f"{parameter.name}: it names a file ({parameter.default!r})"
        raise UnmakeableError(msg)


def tie(contract: FunctionContract, maker: Maker) -> None:
    """Give tied dims the sizes that the arguments so far say.

    Raises:
        UnmakeableError: They say none.
    """
    for dim, expression in contract.ties.items():
        if maker.sizes.is_pinned(dim) or not expression_names(expression, dim) <= maker.arguments.keys():
            continue  # a size that is given and wrong is for the contract to refuse
        try:
            size = eval(expression, dict(maker.arguments))  # the author's own decorator
        except Exception as error:
            msg = f"{dim} is tied to {expression}, which cannot be evaluated: {error}"
            raise UnmakeableError(msg) from error
        if isinstance(size, tuple):
            maker.sizes.runs[dim] = size
        else:
            maker.sizes.tie(dim, size, expression)


def _assembled(signature: inspect.Signature, arguments: Mapping[str, Any]) -> Call:
    bound = inspect.BoundArguments(signature, {})  # pyright: ignore[reportArgumentType]
    bound.arguments.update({name: arguments[name] for name in signature.parameters})
    text = ", ".join(f"{name}={describe(arguments[name])}" for name in signature.parameters if name != "self")
    return Call(bound.args, bound.kwargs, text)


def finish(result: Any) -> None:
    """Let what a function returned do its work: a few items of a generator, the body of a coroutine.

    Raises:
        UnmakeableError: A coroutine waits for something.
    """
    if inspect.isgenerator(result):
        _iterate(result.__next__, result.close)
    elif inspect.iscoroutine(result):
        _run(result)
    elif inspect.isasyncgen(result):
        _iterate(lambda: _run(result.__anext__()), lambda: _run(result.aclose()))
    elif hasattr(result, "gen") and hasattr(result, "__enter__"):  # of contextlib.contextmanager
        with result:
            pass


def _iterate(advance: Callable[[], Any], close: Callable[[], Any]) -> None:
    try:
        for _ in range(3):
            advance()
    except (StopIteration, StopAsyncIteration):
        return
    close()


def _run(awaitable: Any) -> Any:
    """Run a coroutine that never waits to its end."""
    steps = awaitable.__await__()
    try:
        next(steps)
    except StopIteration as end:
        return end.value
    steps.close()
    msg = "it waits for something outside of it"
    raise UnmakeableError(msg)
