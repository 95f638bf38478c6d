"""Puts contracts on functions, methods and classes. Imported with the first boundary that is defined, never when off."""

import functools
import inspect
import typing
import warnings
import weakref
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from .._annotations.declared import mentions_tensor
from .._annotations.deferred import is_generator_function
from .._annotations.nodes import tensor_specs
from .._location import caller_frame
from .._render import describe
from .._settings import mode_at_definition
from ..axes import Axes, axes_of
from ..errors import ContractDefinitionError, ContractWarning
from . import records
from .descriptors import functions_in, is_callable_like_a_function, parts, rebuild
from .function import CONSTRUCTORS, FunctionContract, Terms
from .inheritance import (
    contract_of,
    contract_within,
    has_contract,
    overridden,
    remember,
    watch_class_body,
    watch_subclasses,
)
from .overloads import OverloadedContract
from .wrappers import wrapped

_guarded_classes: "weakref.WeakSet[type]" = weakref.WeakSet()


def guard(target: Any, ties: Mapping[str, str], axes: Axes | None) -> Any:
    """Put a contract on whatever can be called, or on a class.

    Raises:
        ContractDefinitionError: The contract cannot mean anything.
    """
    terms = Terms(ties, axes)
    if isinstance(target, type):
        return _guard_class(target, terms)
    guarded = _guard_member(target, terms)
    watch_class_body(_keep_contracts)
    return guarded


def _guard_member(target: Any, terms: Terms) -> Any:
    """Put a contract on a function, or on the functions that a descriptor or partial is made of."""
    inner = parts(target)
    if not inner:
        return _guard_function(target, terms)
    if len(inner) > 1:  # the accessors of a property: one may have a contract already, another no annotations
        inner = {name: part for name, part in inner.items() if any(map(_is_open, functions_in(part)))}
    if not inner:
        _refuse("No accessor of the property is annotated, or all have a contract already: there is nothing to check.")
    return rebuild(target, {name: _guard_member(part, terms) for name, part in inner.items()})


def _refuse(message: str) -> NoReturn:
    raise ContractDefinitionError(message)


# --- functions -----------------------------------------------------------------------------------
def _guard_function(function: Any, terms: Terms) -> Callable[..., Any]:
    _require_function(function)
    if (known := contract_of(function)) is not None:
        if not known.terms.inherited:
            _refuse(f"{function.__qualname__} has a contract already: remove one @contract.")
        function = known.function
        terms = terms._replace(hints={**known.terms.hints, **terms.hints}, ties={**known.terms.ties, **terms.ties})
    overloads = typing.get_overloads(function)
    contract = OverloadedContract(function, terms, overloads) if overloads else FunctionContract(function, terms)
    if not contract.hints and not overloads:
        cure = " Write a def, or set its __annotations__ before." if function.__name__ == "<lambda>" else ""
        _refuse(f"{function.__qualname__} has no annotations: there is nothing to check.{cure}")
    checked = wrapped(contract)
    for name in set(dir(function)) - set(dir(checked)):  # what a cache offers
        if not name.startswith("_"):
            setattr(checked, name, getattr(function, name))
    remember(checked, contract)
    return checked


def _require_function(target: Any) -> None:
    """Refuse what is no function, or not the one whose annotations would be read, and say what to do instead."""
    if isinstance(target, functools.singledispatchmethod) or (
        hasattr(target, "dispatch") and hasattr(target, "registry")
    ):
        _refuse("A dispatching function has several implementations: put @contract on each, below @register.")
    if not is_callable_like_a_function(target):
        cure = _cure(target) if callable(target) else ""
        _refuse(f"Expected a function, a method or a class, got {describe(target)}.{cure}")
    name, inner = target.__qualname__, inspect.unwrap(target)
    if hasattr(target, "_torchdynamo_orig_callable"):
        _refuse(f"{name} is compiled: put @contract below @torch.compile.")
    if (target.__module__, name) == ("typing", "_overload_dummy"):
        _refuse("An overload is never called: put @contract on the implementation, of which it is an alternative.")
    if any(kind(inner) and not kind(target) for kind in (inspect.iscoroutinefunction, is_generator_function)):
        _refuse(f"A decorator changes what a call of {name} gives: put @contract below it, on the function itself.")


def _cure(target: Any) -> str:
    if isinstance(target, type):
        return " Put @contract on the class."
    if inspect.isroutine(target) or type(target).__module__.partition(".")[0] in {"builtins", "numpy", "torch"}:
        return " Put @contract on an annotated function that calls it."
    return " Put @contract on its class, or on its __call__."


# --- classes -------------------------------------------------------------------------------------
def _guard_class(kind: Any, terms: Terms) -> type:
    """Put contracts on the fields of a record and on every annotated method that a class defines itself."""
    if kind in _guarded_classes:
        _refuse(f"{kind.__qualname__} has a contract already: remove one @contract.")
    is_record = records.is_record(kind)
    axes = terms.axes if terms.axes is not None else axes_of(kind.__module__)
    has_fields = is_record and records.guard_record(kind, terms.ties, axes)
    contracts = _guard_methods(kind, terms, is_record)
    if is_record and not has_fields and not any(map(_has_tensors, contracts)):
        _refuse(f"No field or method of {kind.__qualname__} has an annotated tensor: there is nothing to check.")
    if not has_fields and (not is_record or terms.ties):
        _require_meaning(kind, terms, contracts)
    if contracts:
        watch_subclasses(kind, _keep_contracts)
    _guarded_classes.add(kind)
    return kind


def _has_tensors(contract: FunctionContract) -> bool:
    return bool(tensor_specs(contract.boundary.nodes.values()))


def _guard_methods(kind: type, terms: Terms, is_record: bool) -> list[FunctionContract]:
    """Put contracts on the annotated methods of a class; return those and the ones that were there."""
    fields = not is_record and mentions_tensor(kind)
    for name, member in list(vars(kind).items()):
        is_forward = name == "forward" and _is_module(kind)
        if (is_record and name in CONSTRUCTORS) or not (is_forward or _is_open_method(kind, member)):
            continue
        takes_self = fields and name not in CONSTRUCTORS and not isinstance(member, (staticmethod, classmethod))
        hints = dict.fromkeys(_first_parameter(member), kind) if takes_self else {}
        if not (is_forward and has_contract(member) and not _is_open_method(kind, member)):
            setattr(
                kind,
                name,
                _guard_member(member, terms._replace(shared=True, hints=hints, owner=kind if is_record else None)),
            )
    functions = [function for member in vars(kind).values() for function in functions_in(member)]
    return [contract for function in functions if (contract := contract_within(function)) is not None]


def _is_module(kind: type) -> bool:
    return any(f"{base.__module__}.{base.__name__}" == "torch.nn.modules.module.Module" for base in kind.__mro__)


def _is_open_method(kind: type, member: Any) -> bool:
    """Tell whether a member is defined in a class itself, and annotated, and can be put under a contract."""
    where = (kind.__module__, f"{kind.__qualname__}.")
    return any(
        _is_open(function) and (function.__module__, function.__qualname__[: len(where[1])]) == where
        for function in functions_in(member)
    )


def _is_open(function: Any) -> bool:
    """Tell whether a function is annotated, has no contract of its own yet, and nobody asked to leave it alone."""
    known = contract_within(function)
    is_free = known is None or (known.terms.inherited and contract_of(function) is known)
    return is_free and bool(function.__annotations__) and not getattr(function, "__no_type_check__", False)


def _first_parameter(member: Any) -> list[str]:
    return [name for function in functions_in(member) for name in list(inspect.signature(function).parameters)[:1]]


def _require_meaning(kind: type, terms: Terms, contracts: list[FunctionContract]) -> None:
    """Refuse a contract on a class that checks nothing, or not what it seems to."""
    if not contracts and _is_module(kind):
        _refuse(f"Expected {kind.__qualname__} to define forward, or another annotated method.")
    if not contracts or (mentions_tensor(kind) and "__init__" not in vars(kind) and not _is_module(kind)):
        reason = "Its attributes are annotated" if contracts else "None of its methods is annotated"
        _refuse(
            f"Expected {kind.__qualname__} to be an nn.Module, a dataclass, a NamedTuple or a TypedDict, or to have "
            f"annotated methods. {reason}. Put @contract above @dataclass, or on the methods."
        )
    used = {dim for contract in contracts for dim in contract.ties}
    for dim in terms.ties.keys() - used:
        _refuse(
            f"The contract of {kind.__qualname__} cannot be checked: dim {dim!r} is tied to {terms.ties[dim]!r} "
            "but no method uses it that has the arguments for it."
        )


# --- subclasses ----------------------------------------------------------------------------------
def _keep_contracts(kind: type) -> None:
    """Put the methods of a new class that override others with a contract under that contract, or say it is lost."""
    if mode_at_definition() == "off":
        return
    for name, nearest, base in overridden(kind):
        override, contracted = vars(nearest)[name], vars(base)[name]
        if any(getattr(function, "__no_type_check__", False) for function in functions_in(override)):
            continue
        kept = _kept(override, contracted) if nearest is kind else None
        if kept is not None:
            setattr(kind, name, kept)
        else:
            _warn_lost(f"{nearest.__qualname__}.{name}", f"{base.__qualname__}.{name}", "it cannot have its contract")


def _kept(override: Any, contracted: Any) -> Any:
    """Return an overriding member under the contract of the one that it overrides; None if that cannot be."""
    inner, known = parts(override), parts(contracted)
    if inner and inner.keys() & known.keys():
        kept = {role: _kept(inner[role], known[role]) for role in inner.keys() & known.keys()}
        return None if None in kept.values() else rebuild(override, kept)
    contract = contract_within(contracted)
    if contract is None:
        return override  # an accessor without annotations
    if inner or known or not is_callable_like_a_function(override):
        return None
    lost = contract.hints.keys() - inspect.signature(override).parameters.keys() - {"return"}
    if lost:
        names = ", ".join(sorted(lost))
        _warn_lost(override.__qualname__, contract.function.__qualname__, f"it has no parameter {names}")
        if not override.__annotations__:
            return override
    hints = {} if lost else contract.hints
    return _guard_function(
        override, Terms(contract.terms.ties, contract.terms.axes, hints, shared=True, inherited=True)
    )


def _warn_lost(override: str, contracted: str, reason: str) -> None:
    frame = caller_frame()
    text = (
        f"{override} overrides {contracted}, but {reason}: the contract is lost. "
        "Annotate the override, or mark it with typing.no_type_check if that is meant."
    )
    warnings.warn_explicit(text, ContractWarning, frame.f_code.co_filename, frame.f_lineno)
