"""Contracts of many sorts, without decorators: each is put under one when a test asks for it, by the engine under test.

Every body does what the test wants of it, and notes that it was reached.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, TypedDict, Unpack

import numpy as np
from jaxtyping import Bool, Complex64, Float, Float32, Inexact, Int, Int64, Num, Shaped, UInt8
from torch import Tensor, nn

from shapecheck.kinds import Kind


class Body:
    """Stands in every body."""

    def __init__(self) -> None:
        self.was_reached = False
        self.result: Any = None

    def __call__(self) -> Any:
        self.was_reached = True
        return self.result


BODY = Body()


class Frame(Kind):
    ABSOLUTE = "from the origin"
    RELATIVE = "from the mean"


class Unit(Kind):
    PIXELS = "pixels"


class Fields(TypedDict):
    images: Float32[Tensor, "B C N N"]
    offsets: Float32[Tensor, "B C 1 2"]
    epoch: int


class LooseFields(TypedDict):
    x: Float32[Tensor, "b d"]
    y: NotRequired[Float32[Tensor, "b e"]]


class Point(NamedTuple):
    x: Float32[Tensor, " n"]
    y: Float32[Tensor, " n"]


@dataclasses.dataclass
class Sample:
    image: Float32[Tensor, "h w"]
    mask: Bool[Tensor, "h w"]
    label: int


@dataclasses.dataclass
class Nested:
    sample: Sample
    weights: dict[str, Float32[Tensor, "h k"]]


def lone(x: Float32[Tensor, "n h w"]):
    return BODY()


def pair(x: Float32[Tensor, "n h w"], y: Float32[Tensor, "h w"]):
    return BODY()


def literals(x: Float32[Tensor, "B C 1 2"]):
    return BODY()


def one_literal(x: Float32[Tensor, "b 3 h w"]):
    return BODY()


def ones(x: Float32[Tensor, "B 1 1 1"]):
    return BODY()


def vector(x: Float32[Tensor, " n"]) -> Float32[Tensor, " n"]:
    return BODY()


def scalar(x: Float32[Tensor, ""]) -> Float32[Tensor, ""]:
    return BODY()


def square(x: Complex64[Tensor, "b n n"]) -> Float32[Tensor, "b n"]:
    return BODY()


def attention(q: Float32[Tensor, "B H T D"], k: Float32[Tensor, "B H S D"], v: Float32[Tensor, "B H S D"]):
    return BODY()


def matmul(a: Float[Tensor, "n k"], b: Float[Tensor, "k m"]) -> Float[Tensor, "n m"]:
    return BODY()


def same_twice(a: Float32[Tensor, "n 2"], b: Float32[Tensor, "n 2"]) -> Float32[Tensor, " n"]:
    return BODY()


def kinds(a: Annotated[Float32[Tensor, "n 2"], Frame.ABSOLUTE], b: Annotated[Float32[Tensor, "n 2"], Frame.RELATIVE]):
    return BODY()


def other_kinds(
    a: Annotated[Float32[Tensor, "n 2"], Frame.ABSOLUTE], b: Annotated[Float32[Tensor, "n 2"], Unit.PIXELS]
):
    return BODY()


def optional_kind(
    a: Annotated[Float32[Tensor, "n 2"], Frame.ABSOLUTE],
    b: Annotated[Float32[Tensor, "n 2"], Frame.RELATIVE] | None = None,
):
    return BODY()


def half(x: Float32[Tensor, "c h w"]) -> Float32[Tensor, "c h//2 w//2"]:
    return BODY()


def half_given(x: Float32[Tensor, "c h"], y: Float32[Tensor, "c h//2"]):
    return BODY()


def needs_first(x: Float32[Tensor, "n+1 d"], y: Float32[Tensor, "n d"]):
    return BODY()


def product(x: Float32[Tensor, "b c d"], y: Float32[Tensor, "b c*d"]):
    return BODY()


def smaller(x: Float32[Tensor, "b n-8"], y: Float32[Tensor, "b n"]):
    return BODY()


def by_number(n: int, x: Float32[Tensor, "d {n}"]):
    return BODY()


def by_two_numbers(n: int, m: int, x: Float32[Tensor, "{n} {m}"]) -> Float32[Tensor, "{m} {n}"]:
    return BODY()


def by_shape(x: Float32[Tensor, "n d"], y: Float32[Tensor, "{x.shape[0]} d"]):
    return BODY()


def implied(n: int, row: Float32[Tensor, " d"]) -> Float32[Tensor, "n d"]:
    return BODY()


def anonymous(x: Float32[Tensor, "_ h"], y: Float32[Tensor, "h _"]):
    return BODY()


def dots(x: Float32[Tensor, "... h w"]) -> Float32[Tensor, "... w"]:
    return BODY()


def run(x: Float32[Tensor, "*batch d"], y: Float32[Tensor, "*batch e"]) -> Float32[Tensor, "*batch d e"]:
    return BODY()


def lone_run(x: Float32[Tensor, "*batch m n"]):
    return BODY()


def broadcast(x: Float32[Tensor, "#b d"], y: Float32[Tensor, "#b d"]) -> Float32[Tensor, "b d"]:
    return BODY()


def broadcast_run(x: Float32[Tensor, "*#s d"], y: Float32[Tensor, "*#s d"]):
    return BODY()


def layouts(x: Float32[Tensor, "b c"] | Float32[Tensor, "c b"], y: Float32[Tensor, "b 2"]):
    return BODY()


def either_dtype(
    x: Float32[Tensor, "n h w"] | Complex64[Tensor, "n h w"], y: Float32[Tensor, "n 2"]
) -> Float32[Tensor, "n h"] | Complex64[Tensor, "n h"]:
    return BODY()


def either_ndim(x: Float32[Tensor, "h w"] | Float32[Tensor, "n h w"]):
    return BODY()


def tensor_or_number(x: Float32[Tensor, "h w"] | int, y: Float32[Tensor, " h"]):
    return BODY()


def optional(x: Float32[Tensor, "n d"], y: Float32[Tensor, " n"] | None = None) -> Float32[Tensor, " d"] | None:
    return BODY()


def families(a: Num[Tensor, " n"], b: Inexact[Tensor, " n"], c: Int[Tensor, " n"], d: Shaped[Tensor, " n"]):
    return BODY()


def exact(a: Int64[Tensor, "n k"], b: UInt8[Tensor, "n k"], c: Bool[Tensor, "n k"]):
    return BODY()


def numpy(a: Float32[np.ndarray, "n k"], b: Complex64[np.ndarray, "k n"]) -> Float[np.ndarray, " n"]:
    return BODY()


def parameter(a: Float32[nn.Parameter, "o i"], b: Float32[Tensor, " i"]):
    return BODY()


def items(x: list[Float32[Tensor, "n d"]], y: Float32[Tensor, " d"]):
    return BODY()


def lone_items(x: Sequence[Float32[Tensor, "h w"]]):
    return BODY()


def any_items(x: Iterable[Float32[Tensor, "h w"]]) -> Float32[Tensor, "n h w"]:
    return BODY()


def many(*x: Float32[Tensor, "n d"], **more: Float32[Tensor, "d e"]):
    return BODY()


def tuples(x: tuple[Float32[Tensor, "a b"], Float32[Tensor, "b c"]]) -> tuple[Float32[Tensor, "a c"], int]:
    return BODY()


def fixed_tuple(x: tuple[Float32[Tensor, "a b"], ...]):
    return BODY()


def mapping(x: Mapping[str, Float32[Tensor, "n d"]], y: dict[int, Float32[Tensor, " n"]]):
    return BODY()


def typed(batch: Fields, scale: Float32[Tensor, "B 1 1 1"]):
    return BODY()


def typed_loosely(batch: LooseFields) -> LooseFields:
    return BODY()


def unpacked(**options: Unpack[LooseFields]):
    return BODY()


def record(sample: Sample, w: Float32[Tensor, " w"]):
    return BODY()


def nested_record(x: Nested | None, y: list[Sample]):
    return BODY()


def named(p: Point, q: Point) -> Point:
    return BODY()


def inner_union(x: tuple[Float32[Tensor, "a b"], int] | dict[str, Float32[Tensor, "b a"]], y: Float32[Tensor, " a"]):
    return BODY()


def with_plain(
    x: Float32[Tensor, "n d"], how: Literal["sum", "mean"], rate: float, by: str = "n"
) -> Float32[Tensor, " d"]:
    return BODY()


def five_axes(x: Complex64[Tensor, "B C P N N"], y: Float32[Tensor, "B C N N"]):
    return BODY()


def six_axes(x: Float32[Tensor, "a b c d e f"], y: Float32[Tensor, "a b"]):
    return BODY()


def tied(x: Float32[Tensor, "B C N"], gridsize: int):
    return BODY()


def tied_to_configuration(x: Float32[Tensor, "B C N N"], config: SimpleNamespace):
    return BODY()


def tied_to_shape(x: Float32[Tensor, "B k"], y: Float32[Tensor, "B d"]):
    return BODY()


TIES: dict[Callable[..., Any], dict[str, str]] = {
    tied: {"C": "gridsize**2"},
    tied_to_configuration: {"C": "config.C", "N": "config.sizes[1]"},
    tied_to_shape: {"d": "x.shape[1] + 1"},
}

FUNCTIONS: list[Callable[..., Any]] = [
    value
    for value in list(globals().values())
    if getattr(value, "__module__", "") == __name__ and type(value) is type(lone)
]
