"""Fake tensors and the other values of torch that a call may need."""

from collections.abc import Iterator
from typing import Any, cast

from ..._annotations.spec import TensorSpec
from ..._render import describe_annotation, dtype_name, kind_name
from ..._stand_in import array_class
from .._made_up import UnmakeableError

_DTYPES = ("float32", "complex64", "int64", "bool", "float64", "float16", "bfloat16", "complex128", "int32", "uint8")
_MORE_DTYPES = ("int16", "int8", "uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2")


def no_value(path: str, text: str) -> UnmakeableError:
    """Return the refusal to make a value for something; the text says for what."""
    if text in {"torch.Tensor", "numpy.ndarray"}:
        return UnmakeableError(f"{path}: its annotation says no shape ({text})")
    return UnmakeableError(f"{path}: no value is made up for {text}")


def torch_value(kind: Any) -> Any:
    """Return a device or a dtype."""
    import torch

    return torch.device("cpu") if kind is torch.device else torch.get_default_dtype()


def fake_tensor(spec: TensorSpec, shape: list[int], path: str) -> Any:
    """Make an uninitialised tensor of a shape that its spec allows; whether it is a fake one is up to the mode.

    Raises:
        UnmakeableError: It is no tensor of torch that is wanted.
    """
    import torch

    kind: Any = spec.annotation.array_type
    if kind is array_class("numpy"):
        msg = f"{path}: it takes NumPy arrays, which are never simulated"
        raise UnmakeableError(msg)
    if kind is not Any and not issubclass(kind, torch.Tensor):
        raise no_value(path, kind_name(kind))
    made: Any = torch.empty(shape, dtype=next(_torch_dtypes(spec, path)))
    is_plain = kind is Any or kind is torch.Tensor
    return made if is_plain else cast("Any", kind)(made)


def _torch_dtypes(spec: TensorSpec, path: str) -> Iterator[Any]:
    import torch

    for name in (dtype_name(torch.get_default_dtype()), *_DTYPES, *_MORE_DTYPES):
        if spec.accepts_dtype(name):
            yield getattr(torch, name)
    msg = f"{path}: torch has no dtype for {describe_annotation(spec.annotation)}"
    raise UnmakeableError(msg)
