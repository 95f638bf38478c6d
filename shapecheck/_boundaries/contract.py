"""`contract` and `check`: the surface. Decides whether anything is to be done; the doing is imported only then."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, overload

from .._settings import is_tracing, mode_at_definition
from ..axes import Axes

T = TypeVar("T")


@overload
def contract(target: T, /) -> T: ...
@overload
def contract(*, dims: Mapping[str, str] | None = None, axes: Axes | None = None) -> Callable[[T], T]: ...
def contract(target: Any = None, /, *, dims: Mapping[str, str] | None = None, axes: Axes | None = None) -> Any:
    """Hold a function or class to its annotations at every call.

    Tensors are compared with their jaxtyping annotations, one set of dims being shared by all parameters, everything
    inside them, and the result; every other annotation is enforced by beartype. What can be decorated:

    - functions, methods, properties, partials, context managers, ``async`` functions, generators of both kinds and
      functions with overloads;
    - classes: every annotated method, kept by subclasses that override it; of dataclasses and NamedTuples also the
      fields, when constructed and wherever they cross a contract; of `torch.nn.Module`s also declared tensors;
    - TypedDicts: refused here if an annotation makes no sense, checked wherever they cross a contract.

    Args:
        target: What to decorate.
        dims: Size of some dims as Python expressions over the call's own arguments, for example
            ``{"C": "self.config.gridsize ** 2"}``.
        axes: The dim names that may be used; by default those registered for the package (`Axes.register`).

    Returns:
        The same object when checking is off; otherwise the same class, or a function with the same signature.

    Raises:
        ContractDefinitionError: An annotation is malformed, cannot be resolved or cannot be checked in full, or there
            is nothing to check.
    """
    if target is None:
        return functools.partial(_apply, ties=dims or {}, axes=axes)
    return _apply(target, {}, None)


def check(value: T, annotation: Any, name: str = "value", *, dims: Mapping[str, int] | None = None) -> T:
    """Compare one value, however nested, with an annotation.

    Args:
        value: Any value.
        annotation: Any annotation that `contract` understands, such as a TypedDict of tensors.
        name: What the value is called in the error.
        dims: Sizes that some dims must have.

    Returns:
        `value` itself.

    Raises:
        ContractError: The value breaks the annotation; everything that is wrong with it is in one report.
        ContractDefinitionError: The annotation is malformed or cannot be checked in full.
    """
    __tracebackhide__ = True
    if is_tracing():
        from .check import check_while_tracing  # likewise

        check_while_tracing(value, annotation, name, dims)
        return value
    mode = mode_at_definition()
    if mode != "off":
        from .check import check_value  # the engine and beartype are never imported when checking is off

        error = check_value(value, annotation, name, dims or {}, mode)
        if error is not None:
            raise error
    return value


def _apply(target: Any, ties: Mapping[str, str], axes: Axes | None) -> Any:
    if mode_at_definition() == "off":
        return target
    from .guard import guard  # likewise

    return guard(target, ties, axes)
