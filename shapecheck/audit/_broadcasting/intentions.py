"""Which axes of size 1 were put into a tensor on purpose, just before it is used.

On purpose are `None` in an index, `unsqueeze`, and `keepdim=True`; a shape asked for by `reshape` or `view` counts less.
Such an axis stays on purpose through whatever keeps the shape (casts, arithmetic, in-place operations) and through
transpositions; everything else forgets it. Notes are weak: they keep no tensor alive.
"""

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeGuard, cast

import torch
from torch import Tensor, nn

from .rules import ASKED, PLACED, UNPLACED

Role = Literal["indexes", "unsqueezes", "reshapes", "transposes", "reduces", "other"]

_Intent = tuple[int, ...]
_NAMES: dict[Role, str] = {
    "indexes": "__getitem__",
    "unsqueezes": "unsqueeze unsqueeze_",
    "reshapes": "reshape reshape_as view view_as unflatten",
    "transposes": "T mT H mH t adjoint transpose permute swapaxes swapdims movedim moveaxis",
    "reduces": "sum nansum mean nanmean prod any all std var std_mean var_mean median nanmedian mode quantile nanquantile "
    "max min amax amin aminmax argmax argmin logsumexp norm vector_norm linalg_vector_norm count_nonzero",
}
_ROLES: dict[str, Role] = {name: role for role, names in _NAMES.items() for name in names.split()}
_PLAIN = frozenset[type]({Tensor, nn.Parameter})
_MOST_KNOWN = 1000  # tensors, before those that have ended are forgotten
_PLACING = frozenset[Role]({"indexes", "unsqueezes", "reshapes", "reduces"})


def role_of(name: str) -> Role:
    """Return what a function of torch does to axes of size 1."""
    return _ROLES.get(name, "other")


def is_plain(value: object) -> TypeGuard[Tensor]:
    """Tell whether a value is a tensor whose sizes are numbers: to compare others would decide what they are."""
    if type(value) in _PLAIN:  # sizes of subclasses may be symbolic
        return not cast("Tensor", value).is_nested
    return isinstance(value, Tensor) and not value.is_nested and all(type(size) is int for size in value.shape)


class Intentions:
    """What is known of the tensors that live."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Tensor], torch.Size, _Intent]] = {}
        self._most = _MOST_KNOWN

    def of(self, tensor: Tensor) -> _Intent:
        """Return for each axis of a tensor how sure it is that an axis of size 1 is meant."""
        known = self._known.get(id(tensor))
        # Another tensor may have been there before, and an in-place operation may have changed this one since.
        if known is None or known[0]() is not tensor or known[1] != tensor.shape:
            return (UNPLACED,) * tensor.ndim
        return known[2]

    def note(self, tensor: Tensor, intent: _Intent) -> None:
        """Note the axes of a tensor; what was noted before is forgotten."""
        if any(intent):
            self._known[id(tensor)] = weakref.ref(tensor), tensor.shape, intent
            if len(self._known) > self._most:  # now and then: a callback for each tensor that ends would cost more
                self._known = {key: known for key, known in self._known.items() if known[0]() is not None}
                self._most = 2 * len(self._known) + _MOST_KNOWN
        else:
            self._known.pop(id(tensor), None)

    # --- what functions of torch do to them ---------------------------------------------------------
    def follow(
        self, function: Callable[..., Any], role: Role, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any
    ) -> None:
        """Note what a function of one tensor has made of it."""
        source = args[0] if args else kwargs.get("input")
        if (role not in _PLACING and id(source) not in self._known) or not is_plain(source):
            return
        if role == "other" and is_plain(result) and source.shape == result.shape:
            self.note(result, self.of(source))
            return
        for made in cast("tuple[Any, ...]", result) if isinstance(result, tuple) else (result,):
            if is_plain(made) and 1 in made.shape:
                self.note(made, self._followed(function, role, source, made, args[1:], kwargs))

    def follow_elementwise(self, tensors: Sequence[Tensor], result: Any) -> None:
        """Note of a result what is known of its operands."""
        if self._known.keys().isdisjoint(map(id, tensors)) or not is_plain(result) or 1 not in result.shape:
            return
        intents = [intent for tensor in tensors if len(intent := self.of(tensor)) <= result.ndim]
        aligned = [(UNPLACED,) * (result.ndim - len(intent)) + intent for intent in intents]
        axes = zip(result.shape, *aligned, strict=True)
        self.note(result, tuple([max(known, default=UNPLACED) if size == 1 else UNPLACED for size, *known in axes]))

    def _followed(
        self,
        function: Callable[..., Any],
        role: Role,
        source: Tensor,
        made: Tensor,
        options: Sequence[Any],
        named: Mapping[str, Any],
    ) -> _Intent:
        """Return what is known of the axes of what a function has made of one tensor."""
        intent = self.of(source)
        if role == "indexes":
            return _indexed(intent, options[0], made.shape)
        if role == "unsqueezes":
            axis: int = (options[0] if options else named["dim"]) % made.ndim
            before = intent if source is not made else (UNPLACED,) * (made.ndim - 1)
            return (*before[:axis], PLACED, *before[axis:])
        if role == "reshapes":
            return tuple(ASKED if size == 1 else UNPLACED for size in made.shape)
        if role == "transposes":
            return _transposed(intent, function, options, named)
        if source.ndim != made.ndim or role == "other":
            return (UNPLACED,) * made.ndim
        axes = zip(source.shape, made.shape, intent, strict=True)  # with `keepdim`
        return tuple([PLACED if size != 1 == now else known for size, now, known in axes])


def _transposed(
    intent: _Intent, function: Callable[..., Any], options: Sequence[Any], named: Mapping[str, Any]
) -> _Intent:
    """Move what is known of the axes as a transposition moves the axes: done once more, to sizes that tell."""
    marked = torch.empty(*range(1, len(intent) + 1), device="meta")
    moved: torch.Size = function(
        marked, *options, **{key: value for key, value in named.items() if key != "input"}
    ).shape
    return tuple(intent[size - 1] for size in moved)


def _indexed(intent: _Intent, index: Any, shape: Sequence[int]) -> _Intent:
    """Return what is known of the axes of ``tensor[index]``."""
    items = cast("tuple[Any, ...]", index) if isinstance(index, tuple) else (index,)
    if not all(item is None or item is Ellipsis or type(item) is int or isinstance(item, slice) for item in items):
        has_none = any(item is None for item in items)  # and tensors, which put axes where only torch knows
        return tuple(PLACED if has_none and size == 1 else UNPLACED for size in shape)
    indexed = sum(item is not None and item is not Ellipsis for item in items)
    cut = items.index(Ellipsis) if Ellipsis in items else len(items)
    source, kept = iter(intent), list[int]()
    for item in (*items[:cut], *[Ellipsis] * (len(intent) - indexed), *items[cut + 1 :]):
        known = PLACED if item is None else next(source)
        if type(item) is not int:
            kept.append(known)
    return tuple(known if size == 1 else UNPLACED for known, size in zip(kept, shape, strict=True))
