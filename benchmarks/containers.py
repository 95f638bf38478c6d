"""What checking every item of a container costs, beside the same loop of asserts written by hand.

Measured as in `call_cost`: columns in turn within one process, CPU time, medians. The ratios compare net costs, which
are what is left after subtracting the undecorated call.
"""

import argparse
import platform
import sys
from collections.abc import Callable, Iterator
from typing import Any, NotRequired, TypedDict

import numpy as np
import torch
from call_cost import COLUMNS, accepts, measure
from cases import Case
from jaxtyping import Complex64, Float32
from torch import Tensor

from shapecheck import enabled

SHOWN = ("undecorated", "asserts by hand", "shapecheck", "jaxtyping+beartype")
ATTEMPTS = 300  # some checkers look at one random item


# --- a list --------------------------------------------------------------------------------------------
def items(images: list[Float32[Tensor, "h w"]]) -> None:
    return None


def items_asserts(images):
    assert isinstance(images, list)
    shape = images[0].shape
    assert len(shape) == 2
    for image in images:
        assert isinstance(image, Tensor)
        assert image.dtype is torch.float32
        assert image.shape == shape


def items_written_out(images):
    """The same without the trick of comparing shapes as a whole."""
    assert isinstance(images, list)
    h, w = images[0].shape
    for image in images:
        assert isinstance(image, Tensor)
        assert image.dtype is torch.float32
        assert image.ndim == 2
        assert image.shape[0] == h
        assert image.shape[1] == w


# --- a dict ----------------------------------------------------------------------------------------------
def values(images: dict[str, Float32[Tensor, "h w"]]) -> None:
    return None


def values_asserts(images):
    assert isinstance(images, dict)
    for key in images:
        assert isinstance(key, str)
    shape = next(iter(images.values())).shape
    assert len(shape) == 2
    for image in images.values():
        assert isinstance(image, Tensor)
        assert image.dtype is torch.float32
        assert image.shape == shape


# --- a list of samples -----------------------------------------------------------------------------------
class Sample(TypedDict):
    image: Float32[Tensor, "c h w"]
    offset: Float32[Tensor, "c 2"]
    weight: NotRequired[Float32[Tensor, " c"]]


def samples(batch: list[Sample]) -> None:
    return None


def samples_asserts(batch):
    assert isinstance(batch, list)
    image_shape = batch[0]["image"].shape
    c, _, _ = image_shape
    for sample in batch:
        assert isinstance(sample, dict)
        has_weight = "weight" in sample
        assert len(sample) == 2 + has_weight
        image, offset = sample["image"], sample["offset"]
        assert isinstance(image, Tensor)
        assert image.dtype is torch.float32
        assert image.shape == image_shape
        assert isinstance(offset, Tensor)
        assert offset.dtype is torch.float32
        assert offset.shape == (c, 2)
        if has_weight:
            weight = sample["weight"]
            assert isinstance(weight, Tensor)
            assert weight.dtype is torch.float32
            assert weight.shape == (c,)


# --- a nested batch ----------------------------------------------------------------------------------------
class Fields(TypedDict):
    images: Float32[Tensor, "B C N N"]
    coords: Float32[Tensor, "B C 1 2"]


def nested(batch: tuple[Fields, list[Complex64[Tensor, "B C P N N"]], dict[str, Float32[Tensor, " B"]]]) -> None:
    return None


def nested_asserts(batch):
    assert isinstance(batch, tuple)
    fields, probes, scales = batch
    assert isinstance(fields, dict)
    assert len(fields) == 2
    images, coords = fields["images"], fields["coords"]
    assert isinstance(images, Tensor)
    assert images.dtype is torch.float32
    B, C, N, N_2 = images.shape
    assert N_2 == N
    assert isinstance(coords, Tensor)
    assert coords.dtype is torch.float32
    assert coords.shape == (B, C, 1, 2)
    assert isinstance(probes, list)
    shape = probes[0].shape
    B_p, C_p, _, N_1, N_2 = shape
    assert B_p == B
    assert C_p == C
    assert N_1 == N
    assert N_2 == N
    for probe in probes:
        assert isinstance(probe, Tensor)
        assert probe.dtype is torch.complex64
        assert probe.shape == shape
    assert isinstance(scales, dict)
    for name, scale in scales.items():
        assert isinstance(name, str)
        assert isinstance(scale, Tensor)
        assert scale.dtype is torch.float32
        assert scale.shape == (B,)


def images_of(number: int) -> list[Tensor]:
    return [torch.zeros(5, 6) for _ in range(number)]


def sample_of(turned: bool = False) -> Any:
    sample = {"image": torch.zeros(3, 5, 6), "offset": torch.zeros(3, 2), "weight": torch.zeros(3)}
    return {**sample, "image": torch.zeros(3, 6, 5)} if turned else sample


def batch_of(turned: bool = False) -> Any:
    probes = [torch.zeros(3, 4, 2, 8, 8, dtype=torch.complex64) for _ in range(8)]
    if turned:
        probes[5] = probes[5].transpose(0, 1)
    fields = {"images": torch.zeros(3, 4, 8, 8), "coords": torch.zeros(3, 4, 1, 2)}
    return fields, probes, {name: torch.zeros(3) for name in "abcd"}


def cases() -> Iterator[Case]:
    """A good call and one with a single wrong tensor, for each container."""
    for number in (64, 1000):
        good = images_of(number)
        bad = [*good[: number // 2], torch.zeros(6, 5), *good[number // 2 + 1 :]]
        for asserts, name in ((items_asserts, "list"), (items_written_out, "list, axis by axis")):
            yield Case(f"{name} of {number:,}", items, asserts, (good,), (bad,))
        named = {f"k{index}": image for index, image in enumerate(good)}
        yield Case(f"dict of {number:,}", values, values_asserts, (named,), ({**named, "k9": torch.zeros(6, 5)},))
    good_samples = [sample_of() for _ in range(64)]
    bad_samples = [*good_samples[:32], sample_of(turned=True), *good_samples[33:]]
    yield Case("64 TypedDicts of 3", samples, samples_asserts, (good_samples,), (bad_samples,))
    yield Case("nested batch of 14", nested, nested_asserts, (batch_of(),), (batch_of(turned=True),))


def misses(function: Callable[..., Any], case: Case) -> int:
    """How often a call with one wrong tensor is accepted."""
    return sum(accepts(function, case.bad) for _ in range(ATTEMPTS))


def report(case: Case, seconds: float) -> None:
    functions = {name: COLUMNS[name](case) for name in SHOWN}
    medians = measure(case, functions, seconds)
    net = {name: median - medians["undecorated"] for name, median in medians.items()}
    print(f"\n{case.name}\n  {'':<20} {'ns':>10} {'net ns':>10} {'x asserts':>10}  one wrong tensor is missed")
    for name, function in functions.items():
        ratio = f"{net[name] / net['asserts by hand']:10.2f}" if name != "undecorated" else " " * 10
        missed = f"{misses(function, case)} of {ATTEMPTS}"
        print(f"  {name:<20} {medians[name]:10.0f} {net[name]:10.0f} {ratio}  {missed}")


def main() -> None:
    parser = argparse.ArgumentParser(description="What checking every item of a container costs.")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each case")
    parser.add_argument("--case", default="", help="only the cases whose name contains this")
    options = parser.parse_args()
    if not enabled():
        sys.exit("Checking is off: there is nothing to measure.")
    torch.set_num_threads(1)
    print(f"Python {platform.python_version()}, torch {torch.__version__}, NumPy {np.__version__}; CPU time, medians")
    for case in cases():
        if options.case in case.name:
            report(case, options.seconds)


if __name__ == "__main__":
    main()
