"""Which functions have a contract, and what happens to it when a subclass overrides one of them.

A class whose body holds a contract tells when it is derived from, by `__init_subclass__`: nothing is asked when a
method is called. What is put on a class or an instance later, by assignment, is not seen.
"""

import functools
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from .._location import caller_frame
from .._observers import definitions
from .descriptors import functions_in, is_callable_like_a_function
from .function import CONSTRUCTORS, FunctionContract

_WATCH = "__shapecheck_watch__"

_contracts: "weakref.WeakKeyDictionary[Any, FunctionContract]" = weakref.WeakKeyDictionary()


def remember(checked: Any, contract: FunctionContract) -> None:
    """Remember the contract of a function that was put under one."""
    _contracts[checked] = contract
    for observe in definitions:
        observe(checked, contract)


def known_contracts() -> list[FunctionContract]:
    """Return the contracts of all functions that there are."""
    return list(_contracts.values())


def contract_of(function: Any) -> FunctionContract | None:
    """Return the contract that a function was put under, if it was."""
    return _contracts.get(function)


def contract_within(function: Any) -> FunctionContract | None:
    """Return the contract of a function, or of one that it wraps."""
    while is_callable_like_a_function(function):
        if (contract := _contracts.get(function)) is not None:
            return contract
        function = getattr(function, "__wrapped__", None)
    return None


def has_contract(member: Any) -> bool:
    """Tell whether anything that a member of a class calls is under a contract."""
    return any(contract_within(function) is not None for function in functions_in(member))


def overridden(kind: type) -> Iterator[tuple[str, type, type]]:
    """Yield the methods with a contract that a class hides behind others without one.

    Constructors are left out: each class has its own.

    Returns:
        For each its name, the class that hides it, and the one that has the contract.
    """
    seen = set(CONSTRUCTORS)
    for base in kind.__mro__[1:]:
        for name in [name for name, member in vars(base).items() if name not in seen and has_contract(member)]:
            seen.add(name)
            nearest = next(candidate for candidate in kind.__mro__ if name in vars(candidate))
            is_new = nearest is kind or not issubclass(nearest, base)  # otherwise it was said of `nearest` before
            if is_new and not has_contract(vars(nearest)[name]):
                yield name, nearest, base


# --- being told -----------------------------------------------------------------------------------
class _Hook(classmethod):  # pyright: ignore[reportMissingTypeArgument]
    """An ``__init_subclass__`` that was put there by `watch_subclasses`."""


def watch_subclasses(kind: type, tell: Callable[[type], None]) -> None:
    """Call `tell` with every class that is derived from `kind` from now on."""
    if any(isinstance(vars(base).get("__init_subclass__"), _Hook) for base in kind.__mro__):
        return
    original = vars(kind).get("__init_subclass__")

    def init_subclass(derived: type, **arguments: Any) -> None:
        if original is not None:
            original.__get__(None, derived)(**arguments)
        else:  # the class that has the hook now: `dataclass(slots=True)` makes another one of `kind`
            owner = next(base for base in derived.__mro__ if vars(base).get("__init_subclass__") is hook)
            super(owner, derived).__init_subclass__(**arguments)
        tell(derived)

    hook = _Hook(functools.wraps(kind.__init_subclass__)(init_subclass))
    kind.__init_subclass__ = hook  # pyright: ignore[reportAttributeAccessIssue]


class _Watch:
    """Waits in the body of a class for the class to be made, and goes."""

    def __init__(self, tell: Callable[[type], None]) -> None:
        self._tell = tell

    def __set_name__(self, owner: type, name: str) -> None:
        delattr(owner, name)
        watch_subclasses(owner, self._tell)

    def __get__(self, instance: object, owner: type | None = None) -> "_Watch":
        return self  # a descriptor is no member of an Enum


def watch_class_body(tell: Callable[[type], None]) -> None:
    """Call `tell` with every subclass of the class whose body is being executed, if one is."""
    frame = caller_frame()
    names = frame.f_locals
    if names is not frame.f_globals and "__qualname__" in names and "__module__" in names:
        names[_WATCH] = _Watch(tell)
