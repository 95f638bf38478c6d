"""The authority: jaxtyping decides about tensors, beartype about everything else.

The only module that touches jaxtyping's binding storage, which is a stack per thread. A frame is pushed, used and
popped within one check of one tensor, so that nothing is ever left on it, whatever suspends or raises.
"""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# jaxtyping's storage and beartype's configuration are not fully annotated.

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf
from beartype.door import is_bearable
from beartype.roar import BeartypeException
from beartype.vale._core._valecore import BeartypeValidator
from jaxtyping import AnnotationError
from jaxtyping._storage import pop_shape_memo, push_shape_memo

from .._render import is_array, without_addresses
from ..errors import ContractDefinitionError
from .scope import Scope, limit_mismatches, own_sizes
from .spec import TensorSpec

# An int is accepted where a float is declared, as every static checker does (PEP 484's numeric tower).
_CONF = BeartypeConf(is_pep484_tower=True)


def check_tensor(spec: TensorSpec, value: Any, scope: Scope, path: str) -> Scope | str:
    """Return the scope after accepting a tensor, or jaxtyping's reason for rejecting it.

    Raises:
        ContractDefinitionError: An expression in the annotation cannot be evaluated.
    """
    if not spec.needs <= scope.sizes.keys():
        return f"nothing binds {', '.join(sorted(spec.needs - scope.sizes.keys()))}"
    sizes, shapes, _, _ = push_shape_memo(dict(scope.arguments))
    try:
        sizes.update(own_sizes(spec, tuple(value.shape), scope) if spec.referred and is_array(value) else scope.sizes)
        shapes.update(scope.shapes)
        reason: str = spec.annotation.__instancecheck_str__(value)
    except ZeroDivisionError:
        return "an axis divides by a dim of size 0"
    except (AnnotationError, AttributeError, NameError, TypeError) as error:
        msg = f'The shape "{spec.annotation.dim_str}" of {path!r} cannot be evaluated: {error}'
        raise ContractDefinitionError(msg) from None
    finally:
        pop_shape_memo()
    if not reason and limit_mismatches(spec, tuple(value.shape), scope):
        return "a size is not one that the registry of dims allows"
    return reason or scope.extend(sizes, shapes, spec, tuple(value.shape), path)


def check_plain(hint: Any, value: object) -> bool:
    """Tell whether a value that is no tensor satisfies a type hint."""
    return is_bearable(value, hint, conf=_CONF)


def as_beartype_validator(item: object) -> Callable[[Any], str | None] | None:
    """Return one of beartype's validators, such as ``Is[...]``, as a function that says what is wrong, if it is one."""
    if not isinstance(item, BeartypeValidator):
        return None
    is_valid: Callable[[Any], bool] = item.is_valid
    return lambda value: None if is_valid(value) else "the validator refuses it"


def require_supported(hint: Any, where: str) -> None:
    """Refuse a type hint that beartype cannot check.

    Raises:
        ContractDefinitionError: beartype's reason.
    """
    try:
        is_bearable(None, hint, conf=_CONF)
    except BeartypeException as error:
        reason = without_addresses(str(error).splitlines()[0])
        msg = f"The annotation of {where} cannot be checked: {reason}"
        raise ContractDefinitionError(msg) from None
