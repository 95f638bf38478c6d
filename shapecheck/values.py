"""Value contracts: what an annotation can ask of an array beyond its shape and dtype.

They are written behind the annotation, ``Annotated[Float32[Tensor, "B 1 1 1"], Finite, Positive]``. Besides those
defined here, any function of the value that returns None, or what is wrong in a few words, is one, and so are
beartype's validators (``Is[...]``, ``IsAttr[...]``). Torch tensors and NumPy arrays are understood alike.

Reading the elements of a tensor waits for its device: `Finite`, `Positive` and `NonNegative` do so once together, and
once more each to count what they refuse; the others never.
"""

import dataclasses
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

from ._stand_in import StandIn

__all__ = [
    "ChannelsLast",
    "Contiguous",
    "Finite",
    "NonNegative",
    "OnDevice",
    "OwnsMemory",
    "Positive",
    "RequiresGrad",
    "Validator",
]

Validator = Callable[[Any], str | None]


@dataclasses.dataclass(frozen=True, repr=False)
class _Named:
    """A validator that is shown by its name."""

    name: str
    find: Validator

    def __call__(self, value: Any) -> str | None:
        return self.find(value)

    def __repr__(self) -> str:
        return self.name


@dataclasses.dataclass(frozen=True, repr=False)
class Bounded(_Named):
    """A validator that finds nothing where every element is within bounds; where not, it counts."""

    least: float
    most: float

    def __call__(self, value: Any) -> str | None:
        return None if is_within(value, [self]) else self.find(value)


@dataclasses.dataclass(frozen=True)
class OnDevice:
    """The value lies on a device; NumPy arrays lie on ``cpu``.

    Attributes:
        device: A type of device (``cuda``: any of them) or one device (``cuda:1``).
    """

    device: str

    def __call__(self, value: Any) -> str | None:
        """Return where the value is, if that is elsewhere."""
        found = str(getattr(value, "device", "cpu"))
        if found == self.device or found.partition(":")[0] == self.device:
            return None
        return f"it is on {found}"

    def __repr__(self) -> str:
        return f"OnDevice({self.device!r})"


def can_be_read(value: Any) -> bool:
    """Tell whether validators can look at a value.

    They cannot at what stands for a tensor while a graph is traced, captured or transformed or a cure is tried, and at
    tensors without data (meta and fake ones).
    """
    if type(value) is StandIn:
        return False
    torch: Any = sys.modules.get("torch")
    if torch is None or not isinstance(value, torch.Tensor):
        return True
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    if value.is_meta or isinstance(value, torch._subclasses.FakeTensor):  # noqa: SLF001
        return False
    if torch._C._functorch.is_functorch_wrapped_tensor(value):  # noqa: SLF001
        return False
    return not (value.is_cuda and torch.cuda.is_current_stream_capturing())


# --- elements -------------------------------------------------------------------------------------------
def _library(value: Any) -> Any:
    """Return the module whose functions apply to an array."""
    return sys.modules[type(value).__module__.partition(".")[0] if not hasattr(value, "untyped_storage") else "torch"]


def _count(fails: Any, what: str) -> str | None:
    """Return how many elements fail; waits for the device."""
    failed = int(fails.sum())
    if not failed:
        return None
    total = fails.numel() if hasattr(fails, "numel") else fails.size
    return f"{failed} of {total} elements {'is' if failed == 1 else 'are'} {what}"


def is_within(value: Any, validators: Sequence[Bounded]) -> bool:
    """Tell whether every element surely is within the bounds of all validators; waits for the device.

    A quick look that copies nothing. It can tell of real floating-point numbers only, and not where one is NaN.
    """
    least, most = max(one.least for one in validators), min(one.most for one in validators)
    if hasattr(value, "untyped_storage"):
        torch = _library(value)
        is_ordered = value.is_floating_point() and value.itemsize > 1  # torch cannot compare numbers of 8 bits
        if not is_ordered or value.layout is not torch.strided or not value.numel():
            return False
        low, high = torch.stack(value.detach().aminmax()).tolist()
        return least <= low and high <= most
    if value.dtype.kind != "f" or not value.size:
        return False
    with _library(value).errstate(invalid="ignore"):
        low = float(value.min())  # as is every bound: NumPy would round a bound to the type of a scalar
        return least <= low and (most == math.inf or float(value.max()) <= most)


def _not_finite(value: Any) -> str | None:
    return _count(~_library(value).isfinite(value), "not finite")


def _has_no_order(value: Any) -> str | None:
    return "complex numbers are neither positive nor negative" if "complex" in str(value.dtype) else None


def _not_positive(value: Any) -> str | None:
    return _has_no_order(value) or _count(~(value > 0), "not positive")


def _negative(value: Any) -> str | None:
    return _has_no_order(value) or _count(~(value >= 0), "negative or not a number")


# --- memory ---------------------------------------------------------------------------------------------
def _strides(value: Any) -> tuple[int, ...]:
    """Return the distances between neighbours along each axis, in elements."""
    if hasattr(value, "untyped_storage"):
        return tuple(value.stride())
    return tuple(stride // value.itemsize for stride in value.strides)


def _shares_memory(value: Any) -> str | None:
    """Find elements that lie in the same place: axes, nearest first, must step over all that the nearer ones reach."""
    axes = sorted((abs(stride), axis) for axis, stride in enumerate(_strides(value)) if value.shape[axis] > 1)
    reach = 0
    for stride, axis in axes:
        if stride == 0:
            return (
                f"the {value.shape[axis]} elements along axis {axis} are one and the same in memory (it was expanded)"
            )
        if stride <= reach:
            return f"elements along axis {axis} overlap others in memory"
        reach += stride * (value.shape[axis] - 1)
    return None


def _not_contiguous(value: Any) -> str | None:
    contiguous = value.is_contiguous() if hasattr(value, "is_contiguous") else value.flags.c_contiguous
    return None if contiguous else f"its strides are {_strides(value)}, not those of the shape in row-major order"


def _not_channels_last(value: Any) -> str | None:
    """Compare with torch's formats for images (B, C, H, W) and volumes (B, C, D, H, W)."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not isinstance(value, torch.Tensor):
        return "only torch tensors have a channels-last format"
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    if value.ndim not in formats:
        return f"only tensors of 4 or 5 axes have a channels-last format, it has {value.ndim}"
    if value.is_contiguous(memory_format=formats[value.ndim]):
        return None
    return f"its strides are {_strides(value)}, not those of the channels-last format"


def _without_grad(value: Any) -> str | None:
    return None if getattr(value, "requires_grad", False) else "it does not require a gradient"


Finite = Bounded("Finite", _not_finite, -sys.float_info.max, sys.float_info.max)
Positive = Bounded("Positive", _not_positive, math.ulp(0.0), math.inf)
NonNegative = Bounded("NonNegative", _negative, 0.0, math.inf)
Contiguous = _Named("Contiguous", _not_contiguous)
ChannelsLast = _Named("ChannelsLast", _not_channels_last)
OwnsMemory = _Named("OwnsMemory", _shares_memory)
RequiresGrad = _Named("RequiresGrad", _without_grad)
