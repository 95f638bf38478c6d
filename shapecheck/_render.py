"""Values and annotations as short text. Never reads the contents of a tensor: safe on meta, fake and device tensors."""

import difflib
import re
import types
import typing
from collections.abc import Iterable
from typing import Any, cast

_SHORT_DTYPE = {"float": "f", "bfloat": "bf", "complex": "c", "int": "i", "uint": "u"}
_SHOWN_VALUE_TYPES = (bool, int, float, str, types.NoneType)
_COUNTED_TYPES: tuple[type, ...] = (list, tuple, dict, set, frozenset)
_LONGEST_VALUE = 40
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def is_array(value: object) -> bool:
    """Tell whether a value has a shape and a dtype, as tensors of every library do."""
    return getattr(value, "shape", None) is not None and hasattr(value, "dtype") and not isinstance(value, type)


def dtype_name(dtype: object) -> str:
    """Return the library-independent name of a dtype: ``float32`` for ``torch.float32`` and ``np.float32`` alike."""
    return str(dtype).rsplit(".", 1)[-1]


def describe(value: Any) -> str:
    """Describe a value: ``f32[4,1,2]`` for a tensor, the type (and a short plain value) for anything else."""
    if is_array(value):
        return _describe_array(value)
    if isinstance(value, _SHOWN_VALUE_TYPES):
        text = repr(value)
        return text if len(text) <= _LONGEST_VALUE else type(value).__name__
    if isinstance(value, _COUNTED_TYPES):
        return f"{type(value).__name__} of {len(value)}"
    return kind_name(type(value))


def without_addresses(text: str) -> str:
    """Return text, such as a ``repr``, without what differs from run to run."""
    return _ADDRESS.sub("", text)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the known names that a misspelt one is close to as a question, or nothing."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    close += [other for other in names if other.lower() == name.lower() and other not in close]
    return f"did you mean {' or '.join(map(repr, close))}?" if close else ""


def kind_name(kind: Any) -> str:
    """Return the name of a class as users write it: ``int``, ``torch.Tensor``, ``numpy.ndarray``."""
    if not isinstance(kind, type) or kind.__module__ == "builtins":
        return getattr(kind, "__qualname__", str(kind))
    return f"{kind.__module__.partition('.')[0]}.{kind.__qualname__}"


def _describe_array(value: Any) -> str:
    return describe_array(cast("type[Any]", type(value)), value.dtype, value.shape, getattr(value, "device", "cpu"))


def describe_array(kind: type[Any], dtype: object, shape: Iterable[Any], device: object) -> str:
    """Describe an array by its class, dtype, sizes and, for one of torch that is not on the CPU, its device."""
    name = dtype_name(dtype)
    family = re.fullmatch(r"([a-z]+?)(\d+)", name)
    if family and family[1] in _SHORT_DTYPE:
        name = _SHORT_DTYPE[family[1]] + family[2]
    text = f"{name}[{','.join(map(str, shape))}]"
    library = kind.__module__.partition(".")[0]
    if library != "torch":
        return f"{text} ({library})"
    return text if str(device) == "cpu" else f"{text} {device}"


def describe_annotation(annotation: Any) -> str:
    """Return an annotation as its author would write it: ``Float32[Tensor, "n 1 2"]``."""
    if hasattr(annotation, "dim_str"):
        array = getattr(annotation.array_type, "__name__", str(annotation.array_type))
        return f'{annotation.dtype.__name__}[{array}, "{annotation.dim_str}"]'
    if annotation is None or annotation is types.NoneType:
        return "None"
    if annotation is Ellipsis:
        return "..."
    if isinstance(annotation, list):  # the parameters of a Callable
        return f"[{', '.join(map(describe_annotation, cast('list[Any]', annotation)))}]"
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in {typing.Union, types.UnionType}:
        return " | ".join(describe_annotation(argument) for argument in arguments)
    if isinstance(origin, type) and arguments:
        return f"{origin.__name__}[{', '.join(describe_annotation(argument) for argument in arguments)}]"
    return (
        annotation.__qualname__
        if isinstance(annotation, type)
        else without_addresses(str(annotation).replace("typing.", ""))
    )
