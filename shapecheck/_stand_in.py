"""What a tensor would be after a change, without computing it: its class, dtype and shape.

A cure is tried on stand-ins: nothing is allocated, no value is read and no device waited for, so that a cure for a
tensor of 10 GB, or for a meta or fake tensor, is found like any other.
"""

import sys
from collections.abc import Iterator, Sequence
from typing import Any, Literal, cast

Library = Literal["torch", "numpy", "other"]
_LIBRARIES: tuple[Library, ...] = ("torch", "numpy")


class StandIn:
    """Something that reference checks take for a tensor.

    `isinstance` asks an object for its class, and jaxtyping takes a dtype that is a name as it is. Whoever reads
    values must ask first: ``type(value) is StandIn``.

    Args:
        kind: Class to be taken for.
        dtype: Dtype, or its name.
        shape: Sizes.
    """

    __slots__ = ("_kind", "dtype", "shape")

    def __init__(self, kind: type, dtype: Any, shape: Sequence[int]) -> None:
        self._kind = kind
        self.dtype = dtype
        self.shape = tuple(shape)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> "Iterator[StandIn]":
        """Iterate over the rows, as where an iterable of tensors is declared; they are all alike: one stands for all."""
        if self.shape[0]:
            yield StandIn(self._kind, self.dtype, self.shape[1:])

    @property
    def __class__(self) -> type:  # pyright: ignore[reportIncompatibleMethodOverride, reportIncompatibleVariableOverride]
        return self._kind


def array_class(library: Library) -> type | None:
    """Return the usual array class of a library; None when it was never imported, so that no value can be of it."""
    module = sys.modules.get(library) if library in _LIBRARIES else None
    name = "Tensor" if library == "torch" else "ndarray"
    return getattr(module, name, None)


def library_of(value: object) -> Library:
    """Tell whose array a value is."""
    for library in _LIBRARIES:
        kind = array_class(library)
        if kind is not None and isinstance(value, kind):
            return library
    return "numpy" if is_numpy_scalar(value) else "other"


def is_numpy_scalar(value: object) -> bool:
    """Tell whether a value is one of NumPy's numbers, which have a shape and a dtype but are no arrays."""
    return "numpy" in sys.modules and isinstance(value, sys.modules["numpy"].generic)


def class_after_change(value: Any) -> type:
    """Return the class of what an operation on an array gives: a plain tensor for an `nn.Parameter`, which says so."""
    kind = cast("type[Any]", type(value))
    tensor = array_class("torch")
    if tensor is None or not issubclass(kind, tensor):
        return kind
    plain = getattr(kind, "__torch_function__", None) is sys.modules["torch"]._C._disabled_torch_function_impl  # noqa: SLF001
    return tensor if plain else kind
