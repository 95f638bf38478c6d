"""Functions with contracts, and the asserts that one would write by hand for the same checks."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypedDict

import numpy as np
import torch
from jaxtyping import Complex64, Float, Float32, Int64
from torch import Tensor


# --- (a) two tensors and a result -----------------------------------------------------------------
def two(x: Float[Tensor, "b c 1 2"], y: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    return y


def two_asserts(x, y):
    assert isinstance(x, Tensor)
    assert x.dtype.is_floating_point
    b, c, one, pair = x.shape
    assert one == 1
    assert pair == 2
    assert isinstance(y, Tensor)
    assert y.dtype.is_floating_point
    b_y, c_y, h, w = y.shape
    assert b_y == b
    assert c_y == c
    result = y
    assert isinstance(result, Tensor)
    assert result.dtype.is_floating_point
    assert result.shape == (b, c, h, w)
    return result


# --- (b) six tensors, eight dims and a result ------------------------------------------------------
def six(
    patches: Complex64[Tensor, "b c n n"],
    offsets: Float32[Tensor, "b c 1 2"],
    probe: Complex64[Tensor, "p n n"],
    weights: Float32[Tensor, "b c h w"],
    index: Int64[Tensor, "b k"],
    table: Float32[Tensor, "k m d"],
) -> Float32[Tensor, "b c h w"]:
    return weights


def six_asserts(patches, offsets, probe, weights, index, table):
    assert isinstance(patches, Tensor)
    assert patches.dtype is torch.complex64
    b, c, n, n_2 = patches.shape
    assert n_2 == n
    assert isinstance(offsets, Tensor)
    assert offsets.dtype is torch.float32
    assert offsets.shape == (b, c, 1, 2)
    assert isinstance(probe, Tensor)
    assert probe.dtype is torch.complex64
    _, n_1, n_2 = probe.shape
    assert n_1 == n
    assert n_2 == n
    assert isinstance(weights, Tensor)
    assert weights.dtype is torch.float32
    b_w, c_w, h, w = weights.shape
    assert b_w == b
    assert c_w == c
    assert isinstance(index, Tensor)
    assert index.dtype is torch.int64
    b_i, k = index.shape
    assert b_i == b
    assert isinstance(table, Tensor)
    assert table.dtype is torch.float32
    k_t, _, _ = table.shape
    assert k_t == k
    result = weights
    assert isinstance(result, Tensor)
    assert result.dtype is torch.float32
    assert result.shape == (b, c, h, w)
    return result


# --- (c) a batch of five tensors -------------------------------------------------------------------
class Batch(TypedDict):
    images: Float32[Tensor, "B C N N"]
    coords: Float32[Tensor, "B C 1 2"]
    probe: Complex64[Tensor, "B C P N N"]
    scale: Float32[Tensor, "B 1 1 1"]
    index: Int64[Tensor, "B C"]


def batch(fields: Batch) -> None:
    return None


def batch_asserts(fields):
    assert isinstance(fields, dict)
    assert len(fields) == 5
    images, coords, probe = fields["images"], fields["coords"], fields["probe"]
    scale, index = fields["scale"], fields["index"]
    assert isinstance(images, Tensor)
    assert images.dtype is torch.float32
    B, C, N, N_2 = images.shape
    assert N_2 == N
    assert isinstance(coords, Tensor)
    assert coords.dtype is torch.float32
    assert coords.shape == (B, C, 1, 2)
    assert isinstance(probe, Tensor)
    assert probe.dtype is torch.complex64
    B_p, C_p, _, N_1, N_2 = probe.shape
    assert B_p == B
    assert C_p == C
    assert N_1 == N
    assert N_2 == N
    assert isinstance(scale, Tensor)
    assert scale.dtype is torch.float32
    assert scale.shape == (B, 1, 1, 1)
    assert isinstance(index, Tensor)
    assert index.dtype is torch.int64
    assert index.shape == (B, C)


# --- (d) a method with {self.dim} and an expression --------------------------------------------------
class Layer:
    dim = 6

    def method(self, x: Float[Tensor, "b {self.dim}"]) -> Float[Tensor, "b 2*{self.dim}"]:
        return wide


def method_asserts(self, x):
    assert isinstance(x, Tensor)
    assert x.dtype.is_floating_point
    b, d = x.shape
    assert d == self.dim
    result = wide
    assert isinstance(result, Tensor)
    assert result.dtype.is_floating_point
    assert result.shape == (b, 2 * self.dim)
    return result


# --- (e) NumPy ------------------------------------------------------------------------------------------
def numpy_two(x: Float[np.ndarray, "b c 1 2"], y: Float[np.ndarray, "b c h w"]) -> Float[np.ndarray, "b c h w"]:
    return y


def numpy_asserts(x, y):
    assert isinstance(x, np.ndarray)
    assert x.dtype.kind == "f"
    b, c, one, pair = x.shape
    assert one == 1
    assert pair == 2
    assert isinstance(y, np.ndarray)
    assert y.dtype.kind == "f"
    b_y, c_y, h, w = y.shape
    assert b_y == b
    assert c_y == c
    result = y
    assert isinstance(result, np.ndarray)
    assert result.dtype.kind == "f"
    assert result.shape == (b, c, h, w)
    return result


def complex_of(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.complex64)


wide = torch.zeros(3, 12)
layer = Layer()
pair = (torch.zeros(3, 4, 1, 2), torch.zeros(3, 4, 5, 6))
many = (
    complex_of(3, 4, 8, 8),
    torch.zeros(3, 4, 1, 2),
    complex_of(2, 8, 8),
    torch.zeros(3, 4, 5, 6),
    torch.zeros(3, 7).long(),
    torch.zeros(7, 9, 10),
)
fields: Batch = {
    "images": torch.zeros(3, 4, 8, 8),
    "coords": torch.zeros(3, 4, 1, 2),
    "probe": complex_of(3, 4, 2, 8, 8),
    "scale": torch.zeros(3, 1, 1, 1),
    "index": torch.zeros(3, 4).long(),
}
arrays = (np.zeros((3, 4, 1, 2)), np.zeros((3, 4, 5, 6)))


@dataclasses.dataclass(frozen=True)
class Case:
    """One signature with a good call, a bad call, and the same checks as asserts."""

    name: str
    function: Callable[..., Any]
    asserts: Callable[..., Any]
    call: tuple[Any, ...]
    bad: tuple[Any, ...]


CASES = (
    Case("(a) 2 tensors", two, two_asserts, pair, (pair[0], pair[1][:2])),
    Case("(b) 6 tensors, 8 dims", six, six_asserts, many, (*many[:5], many[5][:2])),
    Case("(c) batch of 5 tensors", batch, batch_asserts, (fields,), ({**fields, "index": fields["index"].T},)),
    Case("(d) method, {self.dim}", Layer.method, method_asserts, (layer, wide[:, :6]), (layer, wide)),
    Case("(e) 2 NumPy arrays", numpy_two, numpy_asserts, arrays, (arrays[0], arrays[1][:2])),
)


def copied(function: Callable[..., Any], annotations: dict[str, Any] | None = None) -> Callable[..., Any]:
    """A function of its own for each decorator, since some of them change what they decorate."""
    copy = type(function)(function.__code__, function.__globals__, function.__name__)
    copy.__annotations__ = dict(function.__annotations__) if annotations is None else annotations
    copy.__qualname__ = function.__qualname__
    copy.__module__ = function.__module__
    return copy
