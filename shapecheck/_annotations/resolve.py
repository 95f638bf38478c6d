"""What a hint means: strings evaluated where they were written, aliases followed, type variables filled in.

Knows nothing of tensors. A name that cannot be resolved is an error that names the hint, never "anything goes".
"""

import builtins
import dataclasses
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ..errors import ContractDefinitionError

_SELF: Any = typing.Self
_QUALIFIERS = {"ClassVar", "Final", "NotRequired", "ReadOnly", "Required"}
_CURE = (
    "Names in annotations must exist when the contract is defined: "
    "import them outside `if TYPE_CHECKING:`, and define local ones above it."
)


class EnclosingClass(type):
    """Stands for a class whose body is being executed: its methods already name it, but it does not exist yet.

    A value is an instance if its class, or a base of it, has the name of the class that is meant. Being a class
    itself, the stand-in can be used in any hint, such as ``list[Node] | None``.
    """

    def found_in(cls, kind: type) -> type | None:
        """Return the class that is meant, if it is `kind` or one of its bases."""
        meant = (cls.__module__, cls.__qualname__)
        return next((base for base in kind.__mro__ if (base.__module__, base.__qualname__) == meant), None)

    def __instancecheck__(cls, instance: Any) -> bool:
        """Tell whether a value is an instance of the class that is meant."""
        return cls.found_in(instance.__class__) is not None

    def __subclasscheck__(cls, subclass: type) -> bool:
        """Tell whether a class is the one that is meant, or derived from it."""
        return cls.found_in(subclass) is not None


def resolve_hints(
    target: Any,
    hints: Mapping[str, Any],
    may_skip: Callable[[str, Any], bool] | None = None,
    owner: type | None = None,
) -> dict[str, Any]:
    """Evaluate annotations that are strings, one by one, so that the one that fails can be named.

    In reach are the names of the module of `target`, those of the functions and classes that are being executed
    around it, and those of the classes that it stands in.

    Args:
        target: What carries the annotations.
        hints: The annotations.
        may_skip: Tells which annotation is left out, given its name and itself, when it cannot be resolved.
        owner: The class that `target` stands in, where it exists already; by default something stands for it.

    Raises:
        ContractDefinitionError: A name cannot be resolved.
    """
    classes = {target.__name__: target} if isinstance(target, type) or is_alias(target) else _enclosing_classes(target)
    if owner is not None and classes:
        classes[list(classes)[-1]] = owner
    own: dict[Any, Any] = {_SELF: list(classes.values())[-1]} if classes else {}
    evaluate = _evaluator(target, classes) if any(map(_has_strings, hints.values())) else _evaluated
    resolved: dict[str, Any] = {}
    for name, hint in hints.items():
        try:
            resolved[name] = substitute(evaluate(hint), own)
        except Exception as error:  # noqa: BLE001  # evaluating a string can raise anything
            if may_skip is None or not may_skip(name, hint):
                raise _unresolvable(target, name, hint, error) from None
    return resolved


def _has_strings(hint: Any) -> bool:
    if isinstance(hint, list):  # the parameters of a Callable
        return any(map(_has_strings, typing.cast("list[Any]", hint)))
    return isinstance(hint, (str, typing.ForwardRef)) or any(map(_has_strings, typing.get_args(hint)))


def _evaluated(hint: Any) -> Any:
    return types.NoneType if hint is None else hint


def _evaluator(target: Any, classes: Mapping[str, Any]) -> Callable[[Any], Any]:
    """Return a function that evaluates the strings in a hint of `target`."""
    names = {**vars(sys.modules.get(target.__module__, types)), **getattr(target, "__globals__", {})}
    local = {**_enclosing_names(target), **_by_name(getattr(target, "__type_params__", ())), **classes}

    def evaluate(hint: Any) -> Any:
        holder = type("Holder", (), {"__annotations__": {"hint": hint}})
        return typing.get_type_hints(holder, names, local, include_extras=True)["hint"]

    return evaluate


def _unresolvable(target: Any, name: str, hint: Any, error: Exception) -> ContractDefinitionError:
    where = "the return value" if name == "return" else f"{name!r}"
    of = f"{where} of {getattr(target, '__qualname__', target.__name__)}"
    cure = f" {_CURE}" if isinstance(error, NameError) else ""
    return ContractDefinitionError(
        f"The annotation {hint!r} of {of} cannot be resolved: {str(error).rstrip('.')}.{cure}"
    )


def _enclosing_classes(target: Any) -> dict[str, type]:
    """Return a stand-in for each class that a function stands in, the innermost one last."""
    if not inspect.isfunction(target):
        return {}
    *outer, _ = target.__qualname__.split(".")
    inner = outer[len(outer) - outer[::-1].index("<locals>") :] if "<locals>" in outer else outer
    found: dict[str, type] = {}
    for name in inner:
        qualname = ".".join(outer[: len(outer) - len(inner) + len(found) + 1])
        found[name] = EnclosingClass(name, (), {"__module__": target.__module__, "__qualname__": qualname})
    return found


def _enclosing_names(target: Any) -> dict[str, Any]:
    """Return the names of the module, functions and class bodies around `target` that are being executed.

    A method is no type: where it has the name of one, an annotation means the type, as it does for type checkers.
    """
    qualname: str = getattr(target, "__qualname__", "")
    frame: types.FrameType | None = sys._getframe(1)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    scopes: list[dict[str, Any]] = []
    while frame is not None:
        code, is_same = frame.f_code, frame.f_globals.get("__name__") == target.__module__
        if is_same and (code.co_name == "<module>" or qualname.startswith(f"{code.co_qualname}.")):
            scopes.append({**_by_name(frame.f_locals.get("__type_params__", ())), **frame.f_locals})
        frame = frame.f_back
    module = {**vars(builtins), **vars(sys.modules.get(target.__module__, types))}
    found: dict[str, Any] = {}
    for scope in reversed(scopes):
        outer = found.keys() | module.keys() if "__qualname__" in scope else ()  # only a class body has that
        found |= {name: value for name, value in scope.items() if not (name in outer and _is_method(value))}
    return found


def _is_method(member: Any) -> bool:
    return inspect.isroutine(member) or isinstance(member, property)


def _by_name(parameters: Iterable[Any]) -> dict[str, Any]:
    """Return the type variables that stand in brackets behind the name of a class or function (Python 3.12)."""
    return {parameter.__name__: parameter for parameter in parameters}


def strip_qualifiers(hint: Any) -> tuple[Any, frozenset[str]]:
    """Split ``Required``, ``Final``, ``ClassVar`` and the like, which say nothing about the value, from a hint.

    Returns:
        The hint without them, None where nothing else stands, and their names.
    """
    found = set[str]()
    while True:
        origin = typing.get_origin(hint)
        name = getattr(origin or hint, "_name", None)  # typing and typing_extensions have special forms of their own
        if isinstance(hint, dataclasses.InitVar):
            found.add("InitVar")
            hint = typing.cast("Any", hint).type
        elif name in _QUALIFIERS and not isinstance(origin or hint, type):
            found.add(name)
            hint = typing.get_args(hint)[0] if origin is not None else None
        else:
            return hint, frozenset(found)


def is_alias(hint: Any) -> bool:
    """Tell whether a hint was made by a ``type`` statement, or by `typing_extensions.TypeAliasType`."""
    return hasattr(hint, "__value__") and hasattr(hint, "__type_params__") and not isinstance(hint, type)


def alias_value(alias: Any) -> Any:
    """Return what an alias stands for.

    Raises:
        ContractDefinitionError: A name in it cannot be resolved.
    """
    try:
        value = alias.__value__
    except NameError as error:  # a ``type`` statement is evaluated when it is asked
        msg = f"The alias {alias.__name__} cannot be resolved: {error}. {_CURE}"
        raise ContractDefinitionError(msg) from None
    return resolve_hints(alias, {"value": value})["value"]


def substitute(hint: Any, replacements: Mapping[Any, Any]) -> Any:
    """Replace type variables, or ``Self``, anywhere in a hint."""
    if isinstance(hint, list):  # the parameters of a Callable
        return [substitute(item, replacements) for item in typing.cast("list[Any]", hint)]
    if isinstance(hint, typing.TypeVar) or hint is _SELF:
        return replacements.get(hint, hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is None or origin is typing.Literal:
        return hint
    if origin is typing.Annotated:
        return typing.Annotated[substitute(arguments[0], replacements), *arguments[1:]]
    replaced = tuple(substitute(argument, replacements) for argument in arguments)
    if all(new is old for new, old in zip(replaced, arguments, strict=True)):
        return hint
    if origin in {typing.Union, types.UnionType}:
        return typing.Union[replaced]  # noqa: UP007  # of a tuple
    return origin[replaced if len(replaced) != 1 else replaced[0]]


def bases_with_arguments(kind: type, arguments: tuple[Any, ...]) -> Iterator[tuple[type, dict[Any, Any]]]:
    """Yield a class and its bases, each with what its own type variables stand for, the class itself last.

    Args:
        kind: A class.
        arguments: What it is subscripted with.
    """
    filled: dict[Any, dict[Any, Any]] = {kind: dict(zip(getattr(kind, "__parameters__", ()), arguments, strict=False))}
    erased: dict[Any, Any] = {}  # a TypedDict has no bases, but the annotations of those it was made from
    pending = [*kind.__mro__]
    while pending:
        base = pending.pop(0)
        for parent in vars(base).get("__orig_bases__", ()):
            origin = typing.get_origin(parent) or parent
            given = [substitute(argument, filled.get(base, {})) for argument in typing.get_args(parent)]
            filled.setdefault(origin, dict(zip(getattr(origin, "__parameters__", ()), given, strict=False)))
            if isinstance(origin, type) and origin not in kind.__mro__:
                pending.append(origin)
                erased |= filled[origin]
    filled[kind] = {**erased, **filled[kind]}
    for base in reversed(kind.__mro__):
        yield base, filled.get(base, {})
