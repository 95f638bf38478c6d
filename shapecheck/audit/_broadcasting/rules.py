"""When the shapes of an elementwise operation say that nobody meant its broadcast. Shapes go in, never tensors."""

import functools
import math
from typing import Literal, NamedTuple

Rule = Literal["enlarged", "ambiguous"]
Shapes = tuple[tuple[int, ...], ...]

UNPLACED, ASKED, PLACED = range(3)  # how an axis of size 1 came about, in the order of how sure it is that it is meant

# By name, without the underscores of operators and in-place variants. Many are operators, methods and functions at once.
_ARITHMETIC = (
    "add sub subtract mul multiply div divide true_divide floordiv floor_divide truediv remainder mod fmod pow"
)
_REFLECTED = "rsub rdiv rtruediv rfloordiv rmod rpow rlshift rrshift rand ror rxor radd rmul"
_IN_PLACE = "iadd isub imul idiv itruediv ifloordiv imod ipow iand ior ixor ilshift irshift"
_COMPARISONS = "eq ne lt le gt ge not_equal less less_equal greater greater_equal isclose allclose"
_EXTREMA = "maximum minimum max min fmax fmin clamp clip clamp_min clamp_max"
_LOGIC = "and or xor logical_and logical_or logical_xor bitwise_and bitwise_or bitwise_xor lshift rshift"
_BITS = "bitwise_left_shift bitwise_right_shift ldexp copysign nextafter heaviside"
_CHOICES = "where masked_fill lerp addcmul addcdiv"
_SPECIAL = "atan2 arctan2 hypot logaddexp logaddexp2 float_power xlogy xlog1py zeta igamma igammac gcd lcm"
_LONG_NAMES = "special_xlogy special_xlog1py special_zeta special_gammainc special_gammaincc complex polar"
# Compared element by element before they are summed up: the result does not show what was broadcast.
_LOSSES = "mse_loss l1_loss smooth_l1_loss huber_loss kl_div poisson_nll_loss cosine_similarity pairwise_distance"

_GROUPS = (_ARITHMETIC, _COMPARISONS, _EXTREMA, _LOGIC, _BITS, _CHOICES, _SPECIAL, _LONG_NAMES, _LOSSES)
_ELEMENTWISE = frozenset(name for group in _GROUPS for name in group.split())
_OPERATORS = frozenset(f"__{name}__" for group in (_REFLECTED, _IN_PLACE) for name in group.split())


def is_elementwise(name: str) -> bool:
    """Tell whether a function of torch combines its tensors element by element: ``add``, ``add_``, ``__radd__``."""
    return name.strip("_") in _ELEMENTWISE or name in _OPERATORS or name == "rsub"


class Judgement(NamedTuple):
    """What is wrong with a broadcast.

    Attributes:
        rule: Which rule it breaks.
        operand: The position of the operand that is to blame.
        axis: Its axis that was stretched; or the axis of the result from which on it fits as well.
    """

    rule: Rule
    operand: int
    axis: int


@functools.lru_cache(maxsize=4096)  # a program does the same again and again
def judge(shapes: Shapes, intents: Shapes | None = None) -> Judgement | None:
    """Tell what is wrong with an elementwise operation, if something is.

    Args:
        shapes: Those of its tensors.
        intents: For each, how sure it is of each axis that one of size 1 is meant to be there; without them, none is:
            what is right then is right anyhow.
    """
    result = broadcast(shapes)
    if result is None or 0 in result:  # the function does something else with some of them; there is nothing
        return None
    if math.prod(result) > max(map(math.prod, shapes)):
        return _stretched(shapes, intents or _unplaced(shapes), result)
    return _ambiguous(shapes, intents or _unplaced(shapes), result)


def _unplaced(shapes: Shapes) -> Shapes:
    return tuple((UNPLACED,) * len(shape) for shape in shapes)


def broadcast(shapes: Shapes) -> tuple[int, ...] | None:
    """Return the shape that shapes are broadcast to, None if they cannot be."""
    result = [1] * max(map(len, shapes))
    for shape in shapes:
        for axis in range(-len(shape), 0):
            if shape[axis] not in (1, result[axis]):
                if result[axis] != 1:
                    return None
                result[axis] = shape[axis]
    return tuple(result)


def _stretched(shapes: Shapes, intents: Shapes, result: tuple[int, ...]) -> Judgement | None:
    """Blame the first axis of size 1 that was stretched and that nobody put there to be stretched.

    That a shape was asked for by ``reshape`` counts, but not where operands have equally many elements and one gets axes
    in silence: ``predicted.view(-1, 1) - target`` is as often a mistake as an outer product.
    """
    distinct = set(shapes)
    in_silence = any(len(shape) < len(result) for shape in shapes)
    needed = PLACED if in_silence and len(set(map(math.prod, distinct))) < len(distinct) else ASKED
    for index, (shape, intent) in enumerate(zip(shapes, intents, strict=True)):
        for axis in range(-1, -len(shape) - 1, -1):
            if shape[axis] == 1 != result[axis] and intent[axis] < needed:
                return Judgement("enlarged", index, len(shape) + axis)
    return None


def _ambiguous(shapes: Shapes, intents: Shapes, result: tuple[int, ...]) -> Judgement | None:
    """Blame an operand with fewer axes that was aligned to the right and fits further to the left as well.

    An axis put there on purpose, as in ``scale[:, None, None]``, says where the others belong.
    """
    for index, (shape, intent) in enumerate(zip(shapes, intents, strict=True)):
        if math.prod(shape) == 1 or PLACED in intent:
            continue
        for start in range(len(result) - len(shape) - 1, -1, -1):
            beside = result[start : start + len(shape)]
            if all(size in (1, other) for size, other in zip(shape, beside, strict=True)):
                return Judgement("ambiguous", index, start)
    return None
