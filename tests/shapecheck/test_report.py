"""The wording: one golden text per diagnosis, the same on every machine and for both engines."""

import re
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

import numpy as np
import pytest
import torch
from jaxtyping import Complex64, Float32, Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from shapecheck import Axes, ContractError, check, contract
from shapecheck.errors import DIAGNOSES
from shapecheck.values import Finite

pytestmark = pytest.mark.violation


class Fields(TypedDict):
    images: Float32[Tensor, "B N N"]
    positions: Float32[Tensor, "B 2"]


def shift(img: Float32[Tensor, "n h w"], offset: Float32[Tensor, "n 1 2"]) -> Float32[Tensor, "n 1 h w"]:
    """Stand in for a translation."""
    return img[:, None] + 0 * offset.sum()


def merge(
    fields: Fields, probe: Complex64[Tensor, "N N"], pair: tuple[int, int] = (0, 0), key: str | None = None
) -> Float32[Tensor, " B"]:
    """Stand in for a merge."""
    del probe, pair, key
    return fields["images"].mean((1, 2))


def group(
    images: Float32[Tensor, "B C h w"],
    masks: Float32[Tensor, "B C h w"] | Float32[Tensor, "B h w"] | None = None,
    scale: float = 1.0,
    half: Float32[Tensor, "B h//2"] | None = None,
) -> None:
    """Stand in for a merge of groups."""
    del images, masks, scale, half


def tied(images: Float32[Tensor, "B C h w"], config: Any) -> None:
    del images, config


def braced(images: Float32[Tensor, "B {config.channels}"], config: Any) -> None:
    del images, config


def sized(axes: Float32[Tensor, "8 C"]) -> None:
    del axes


def sample(images: Float32[Tensor, "B 8 8"]) -> None:
    del images


def check_number(x: Float32[Tensor, ""]) -> None:
    del x


def halve(half: Float32[Tensor, " n//2"], full: Float32[Tensor, " n"] | None) -> None:
    del half, full


def spread(x: Float32[Tensor, "*#s"], y: Float32[Tensor, "*#s"]) -> None:
    del x, y


def offsets(x: Float32[Tensor, "B C 1 2"], like: Float32[Tensor, "B C"]) -> None:
    del x, like


def free(x: Float32[Tensor, "1 a b c d"]) -> None:
    del x


def square(x: Float32[Tensor, "N N"]) -> None:
    del x


def counted(images: Float32[Tensor, "B C h w"], index: Float32[Tensor, " B"]) -> None:
    del images, index


def divide(x: Float32[Tensor, "a b a//b"]) -> None:
    del x


def flat(x: Float32[Tensor, " n"], length: Float32[Tensor, "n 2"]) -> None:
    del x, length


def count(members: Int64[Tensor, "G C"]) -> None:
    del members


def numpy_only(scan: Float32[np.ndarray, "S N"]) -> None:
    del scan


def join(images: list[Float32[Tensor, "h w"]]) -> None:
    del images


def transpose(x: Float32[Tensor, "h w"]) -> Float32[Tensor, "w h"]:
    return x


def weigh(weight: Annotated[Float32[Tensor, "o i"], Finite]) -> None:
    del weight


def fields(**changes: Any) -> Any:
    return {"images": torch.zeros(3, 8, 8), "positions": torch.zeros(3, 2), **changes}


def renamed(**names: str) -> Any:
    return {names.get(key, key): value for key, value in fields().items()}


class Config:
    channels = 4


PROBE = torch.zeros(8, 8, dtype=torch.complex64)
IMG = torch.zeros(4, 5, 6)
STACK = torch.zeros(3, 4, 5, 6)
OPTIONS: dict[Callable[..., Any], dict[str, Any]] = {
    tied: {"dims": {"C": "config.channels"}},
    sized: {"axes": Axes(B="items in a batch", C=range(1, 17))},
}

# id, and what is special: function, arguments, text
GOLDEN: dict[str, tuple[Callable[..., Any], tuple[Any, ...], str]] = {
    "axis-order": (
        shift,
        (IMG, torch.zeros(4, 2, 1)),
        """ContractError [axis-order]: {here}.shift, parameter 'offset': f32[4,2,1] for Float32[Tensor, "n 1 2"], offset.permute(0, 2, 1) fits
  expected   Float32[Tensor, "n 1 2"]
  got        f32[4,2,1]
  because    axis 1 is 2, the contract says 1; axis 2 is 1, the contract says 2
  bindings   n=4 (from 'img', axis 0)
  hint       the axes look permuted: offset.permute(0, 2, 1) satisfies the contract""",
    ),
    "axis-order, several": (
        offsets,
        (torch.zeros(3, 1, 2, 2), torch.zeros(3, 2)),
        """ContractError [axis-order]: {here}.offsets, parameter 'x': x.permute(0, 3, 1, 2) or x.permute(0, 2, 1, 3) fits
  expected   Float32[Tensor, "B C 1 2"]
  got        f32[3,1,2,2]
  because    axis 1 is 1, the contract says C=2 (from 'like', axis 1); axis 2 is 2, the contract says 1
  bindings   B=3 (from 'like', axis 0), C=2 (from 'like', axis 1)
  hint       the axes look permuted, 2 orders satisfy the contract: x.permute(0, 3, 1, 2), x.permute(0, 2, 1, 3)""",
    ),
    "axis-order, more than four": (
        free,
        (torch.zeros(2, 3, 4, 5, 1),),
        """ContractError [axis-order]: {here}.free, parameter 'x': x.permute(4, 0, 1, 2, 3) fits, among others
  expected   Float32[Tensor, "1 a b c d"]
  got        f32[2,3,4,5,1]
  because    axis 0 is 2, the contract says 1
  hint       the axes look permuted, more than 4 orders satisfy the contract, among them x.permute(4, 0, 1, 2, 3), x.permute(4, 0, 1, 3, 2), x.permute(4, 0, 2, 1, 3), x.permute(4, 0, 2, 3, 1)""",
    ),
    "axis-order, channel-last": (
        tied,
        (torch.zeros(3, 5, 6, 4), Config),
        """ContractError [axis-order]: {here}.tied, parameter 'images': images.permute(0, 3, 1, 2) fits, among others
  expected   Float32[Tensor, "B C h w"]
  got        f32[3,5,6,4]
  because    axis 1 is 5, the contract says C=4 (tied to config.channels)
  bindings   C=4 (tied to config.channels)
  hint       the axes look permuted, more than 4 orders satisfy the contract, among them images.permute(0, 3, 1, 2), images.permute(0, 3, 2, 1), images.permute(1, 3, 0, 2), images.permute(1, 3, 2, 0)""",
    ),
    "axis-order, of one alternative": (
        group,
        (STACK, torch.zeros(3, 5, 6, 4)),
        """ContractError [axis-order]: {here}.group, parameter 'masks': masks.permute(0, 3, 1, 2) fits
  expected   Float32[Tensor, "B C h w"] | Float32[Tensor, "B h w"] | None
  got        f32[3,5,6,4]
  because    as Float32[Tensor, "B C h w"]: axis 1 is 5, the contract says C=4 (from 'images', axis 1), axis 2 is 6, the contract says h=5 (from 'images', axis 2), axis 3 is 4, the contract says w=6 (from 'images', axis 3); as Float32[Tensor, "B h w"]: it has 4 axes, not 3: without axis 3 it would fit
  hint       the axes look channels-last: masks.permute(0, 3, 1, 2) satisfies the contract""",
    ),
    "axis-order, dtype too": (
        shift,
        (IMG, torch.zeros(4, 2, 1, dtype=torch.float64)),
        """ContractError [axis-order]: {here}.shift, parameter 'offset': offset.permute(0, 2, 1).to(torch.float32) fits
  expected   Float32[Tensor, "n 1 2"]
  got        f64[4,2,1]
  because    its dtype is float64, the contract says Float32; axis 1 is 2, the contract says 1; axis 2 is 1, the contract says 2
  bindings   n=4 (from 'img', axis 0)
  hint       the axes look permuted: offset.permute(0, 2, 1).to(torch.float32) satisfies the contract""",
    ),
    "axis-order, of the result": (
        transpose,
        (torch.zeros(3, 4),),
        """ContractError [axis-order]: {here}.transpose, return value: f32[3,4] for Float32[Tensor, "w h"], result.permute(1, 0) fits
  expected   Float32[Tensor, "w h"]
  got        f32[3,4]
  because    axis 0 is 3, the contract says w=4 (from 'x', axis 1); axis 1 is 4, the contract says h=3 (from 'x', axis 0)
  bindings   w=4 (from 'x', axis 1), h=3 (from 'x', axis 0)
  hint       the axes look permuted: result.permute(1, 0) satisfies the contract""",
    ),
    "axis-size": (
        shift,
        (IMG, torch.zeros(3, 1, 2)),
        """ContractError [axis-size]: {here}.shift, parameter 'offset': axis 0 is 3, the contract says n=4 (from 'img', axis 0)
  expected   Float32[Tensor, "n 1 2"]
  got        f32[3,1,2]
  because    axis 0 is 3, the contract says n=4 (from 'img', axis 0)
  bindings   n=4 (from 'img', axis 0)""",
    ),
    "axis-size, fixed": (
        shift,
        (IMG, torch.zeros(4, 1, 3)),
        """ContractError [axis-size]: {here}.shift, parameter 'offset': axis 2 is 3, the contract says 2
  expected   Float32[Tensor, "n 1 2"]
  got        f32[4,1,3]
  because    axis 2 is 3, the contract says 2
  bindings   n=4 (from 'img', axis 0)""",
    ),
    "axis-size, symbolic": (
        group,
        (STACK, None, 1.0, torch.zeros(3, 3)),
        """ContractError [axis-size]: {here}.group, parameter 'half': axis 1 is 3, the contract says h//2=2
  expected   Float32[Tensor, "B h//2"]
  got        f32[3,3]
  because    axis 1 is 3, the contract says h//2=2
  bindings   B=3 (from 'images', axis 0), h=5 (from 'images', axis 2)""",
    ),
    "axis-size, two axes of one dim": (
        square,
        (torch.zeros(8, 9),),
        """ContractError [axis-size]: {here}.square, parameter 'x': axis 1 is 9, axis 0 is 8, the contract says N for both
  expected   Float32[Tensor, "N N"]
  got        f32[8,9]
  because    axis 1 is 9, axis 0 is 8, the contract says N for both""",
    ),
    "tied-dim": (
        tied,
        (torch.zeros(3, 1, 5, 6), Config),
        """ContractError [tied-dim]: {here}.tied, parameter 'images': axis 1 is 1, the contract says C=4 (tied to config.channels)
  expected   Float32[Tensor, "B C h w"]
  got        f32[3,1,5,6]
  because    axis 1 is 1, the contract says C=4 (tied to config.channels)
  bindings   C=4 (tied to config.channels)""",
    ),
    "tied-dim, in braces": (
        braced,
        (torch.zeros(3, 1), Config),
        """ContractError [tied-dim]: {here}.braced, parameter 'images': axis 1 is 1, the contract says {config.channels}=4
  expected   Float32[Tensor, "B {config.channels}"]
  got        f32[3,1]
  because    axis 1 is 1, the contract says {config.channels}=4""",
    ),
    "axis-range": (
        sized,
        (torch.zeros(8, 17),),
        """ContractError [axis-range]: {here}.sized, parameter 'axes': axis 1 is 17, the registry of dims says C=1 to 16
  expected   Float32[Tensor, "8 C"]
  got        f32[8,17]
  because    axis 1 is 17, the registry of dims says C=1 to 16""",
    ),
    "empty": (
        shift,
        (IMG, torch.zeros(0, 1, 2)),
        """ContractError [empty]: {here}.shift, parameter 'offset': axis 0 is empty (size 0), the contract says n=4 (from 'img', axis 0)
  expected   Float32[Tensor, "n 1 2"]
  got        f32[0,1,2]
  because    axis 0 is empty (size 0), the contract says n=4 (from 'img', axis 0)
  bindings   n=4 (from 'img', axis 0)""",
    ),
    "merged-axes": (
        group,
        (STACK, torch.zeros(12, 5, 6)),
        """ContractError [merged-axes]: {here}.group, parameter 'masks': masks.unflatten(0, (3, 4)) fits
  expected   Float32[Tensor, "B C h w"] | Float32[Tensor, "B h w"] | None
  got        f32[12,5,6]
  because    as Float32[Tensor, "B C h w"]: it has 3 axes, the contract says 4; as Float32[Tensor, "B h w"]: axis 0 is 12, the contract says B=3 (from 'images', axis 0)
  hint       two axes look merged into one: masks.unflatten(0, (3, 4)) satisfies the contract""",
    ),
    "split-axes": (
        flat,
        (torch.zeros(12), torch.zeros(3, 4, 2)),
        """ContractError [split-axes]: {here}.flat, parameter 'length': f32[3,4,2] for Float32[Tensor, "n 2"], length.flatten(0, 1) fits
  expected   Float32[Tensor, "n 2"]
  got        f32[3,4,2]
  because    it has 3 axes, the contract says 2
  bindings   n=12 (from 'x', axis 0)
  hint       one axis looks split in two: length.flatten(0, 1) satisfies the contract""",
    ),
    "missing-batch": (
        sample,
        (torch.zeros(8, 8),),
        """ContractError [missing-batch]: {here}.sample, parameter 'images': f32[8,8] for Float32[Tensor, "B 8 8"], images.unsqueeze(0) fits
  expected   Float32[Tensor, "B 8 8"]
  got        f32[8,8]
  because    it has 2 axes, the contract says 3
  hint       one sample is given where a batch is expected: images.unsqueeze(0) satisfies the contract""",
    ),
    "missing-batch, counted by others": (
        counted,
        (STACK[0], torch.zeros(3)),
        """ContractError [missing-batch]: {here}.counted, parameter 'images': it has 3 axes, not 4: axis 0, B=3 (from 'index', axis 0), is missing; it fits one sample
  expected   Float32[Tensor, "B C h w"]
  got        f32[4,5,6]
  because    it has 3 axes, not 4: axis 0, B=3 (from 'index', axis 0), is missing; it fits one sample
  bindings   B=3 (from 'index', axis 0)""",
    ),
    "missing-axis": (
        shift,
        (IMG, torch.zeros(4, 2)),
        """ContractError [missing-axis]: {here}.shift, parameter 'offset': f32[4,2] for Float32[Tensor, "n 1 2"], offset.unsqueeze(1) fits
  expected   Float32[Tensor, "n 1 2"]
  got        f32[4,2]
  because    it has 2 axes, not 3: axis 1 is missing
  bindings   n=4 (from 'img', axis 0)
  hint       an axis of size 1 is missing: offset.unsqueeze(1) satisfies the contract""",
    ),
    "missing-axis, several places": (
        transpose,
        (torch.zeros(5),),
        """ContractError [missing-axis]: {here}.transpose, parameter 'x': f32[5] for Float32[Tensor, "h w"], x.unsqueeze(0) or x.unsqueeze(1) fits
  expected   Float32[Tensor, "h w"]
  got        f32[5]
  because    it has 1 axis, the contract says 2
  hint       an axis of size 1 is missing, 2 places satisfy the contract: x.unsqueeze(0), x.unsqueeze(1)""",
    ),
    "extra-axis": (
        shift,
        (IMG, torch.zeros(4, 1, 1, 2)),
        """ContractError [extra-axis]: {here}.shift, parameter 'offset': f32[4,1,1,2] for Float32[Tensor, "n 1 2"], offset.squeeze(1) fits
  expected   Float32[Tensor, "n 1 2"]
  got        f32[4,1,1,2]
  because    it has 4 axes, not 3: without axis 1 it would fit
  bindings   n=4 (from 'img', axis 0)
  hint       an axis of size 1 is one too many: offset.squeeze(1) satisfies the contract""",
    ),
    "extra-axis, of a size": (
        shift,
        (IMG, torch.zeros(4, 3, 1, 2)),
        """ContractError [extra-axis]: {here}.shift, parameter 'offset': it has 4 axes, not 3: without axis 1 it would fit
  expected   Float32[Tensor, "n 1 2"]
  got        f32[4,3,1,2]
  because    it has 4 axes, not 3: without axis 1 it would fit
  bindings   n=4 (from 'img', axis 0)""",
    ),
    "ndim": (
        shift,
        (IMG, torch.zeros(4)),
        """ContractError [ndim]: {here}.shift, parameter 'offset': it has 1 axis, the contract says 3
  expected   Float32[Tensor, "n 1 2"]
  got        f32[4]
  because    it has 1 axis, the contract says 3
  bindings   n=4 (from 'img', axis 0)""",
    ),
    "dtype": (
        shift,
        (IMG, torch.zeros(4, 1, 2, dtype=torch.float64)),
        """ContractError [dtype]: {here}.shift, parameter 'offset': f64[4,1,2] for Float32[Tensor, "n 1 2"], offset.to(torch.float32) fits
  expected   Float32[Tensor, "n 1 2"]
  got        f64[4,1,2]
  because    its dtype is float64, the contract says Float32
  bindings   n=4 (from 'img', axis 0)
  hint       only the dtype differs: offset.to(torch.float32) satisfies the contract""",
    ),
    "dtype, no way": (
        count,
        (torch.zeros(3, 4),),
        """ContractError [dtype]: {here}.count, parameter 'members': its dtype is float32, the contract says Int64
  expected   Int64[Tensor, "G C"]
  got        f32[3,4]
  because    its dtype is float32, the contract says Int64""",
    ),
    "complex-for-real": (
        shift,
        (IMG.to(torch.complex64), torch.zeros(4, 1, 2)),
        """ContractError [complex-for-real]: {here}.shift, parameter 'img': it is complex (complex64), the contract says Float32, which is real
  expected   Float32[Tensor, "n h w"]
  got        c64[4,5,6]
  because    it is complex (complex64), the contract says Float32, which is real
  bindings   n=4 (from 'offset', axis 0)
  hint       say which real quantity is meant, none stands for another: the real part (.real), the imaginary part (.imag), the magnitude (.abs()) or the phase (.angle())""",
    ),
    "real-for-complex": (
        merge,
        (fields(), PROBE.real),
        """ContractError [real-for-complex]: {here}.merge, parameter 'probe': f32[8,8] for Complex64[Tensor, "N N"], probe.to(torch.complex64) fits
  expected   Complex64[Tensor, "N N"]
  got        f32[8,8]
  because    it is real (float32), the contract says Complex64
  bindings   N=8 (from "fields['images']", axis 1)
  hint       only the dtype differs: probe.to(torch.complex64) satisfies the contract""",
    ),
    "library": (
        shift,
        (IMG, np.zeros((4, 1, 2), np.float32)),
        """ContractError [library]: {here}.shift, parameter 'offset': f32[4,1,2] (numpy) for Float32[Tensor, "n 1 2"], torch.from_numpy(offset) fits
  expected   Float32[Tensor, "n 1 2"]
  got        f32[4,1,2] (numpy)
  because    it is a numpy.ndarray, the contract says torch.Tensor
  bindings   n=4 (from 'img', axis 0)
  hint       only the library differs: torch.from_numpy(offset) satisfies the contract""",
    ),
    "library, the other way": (
        numpy_only,
        (torch.zeros(3, 4),),
        """ContractError [library]: {here}.numpy_only, parameter 'scan': f32[3,4] for Float32[ndarray, "S N"], scan.numpy() fits
  expected   Float32[ndarray, "S N"]
  got        f32[3,4]
  because    it is a torch.Tensor, the contract says numpy.ndarray
  hint       only the library differs: scan.numpy() satisfies the contract""",
    ),
    "not-stacked": (
        shift,
        ([IMG[0]] * 4, torch.zeros(4, 1, 2)),
        """ContractError [not-stacked]: {here}.shift, parameter 'img': list of 4 for Float32[Tensor, "n h w"], torch.stack(img) fits
  expected   Float32[Tensor, "n h w"]
  got        list of 4
  because    it is a list of tensors, the contract says one torch.Tensor
  bindings   n=4 (from 'offset', axis 0)
  hint       its items fit together: torch.stack(img) satisfies the contract""",
    ),
    "number-for-tensor": (
        check_number,
        (0.5,),
        """ContractError [number-for-tensor]: {here}.check_number, parameter 'x': 0.5 for Float32[Tensor, ""], torch.tensor(x) fits
  expected   Float32[Tensor, ""]
  got        0.5
  because    it is a Python float, the contract says torch.Tensor
  hint       the number fits as a tensor without axes: torch.tensor(x) satisfies the contract""",
    ),
    "tensor-for-number": (
        group,
        (STACK, None, torch.tensor(0.5)),
        """ContractError [tensor-for-number]: {here}.group, parameter 'scale': f32[] for float, scale.item() fits
  expected   float
  got        f32[]
  because    it is f32[], the contract says float
  hint       the tensor has one element: scale.item() satisfies the contract""",
    ),
    "none": (
        shift,
        (IMG, None),
        """ContractError [none]: {here}.shift, parameter 'offset': it is None, the contract says torch.Tensor
  expected   Float32[Tensor, "n 1 2"]
  got        None
  because    it is None, the contract says torch.Tensor
  bindings   n=4 (from 'img', axis 0)""",
    ),
    "type": (
        shift,
        (IMG, "left"),
        """ContractError [type]: {here}.shift, parameter 'offset': it is a str, the contract says torch.Tensor
  expected   Float32[Tensor, "n 1 2"]
  got        'left'
  because    it is a str, the contract says torch.Tensor
  bindings   n=4 (from 'img', axis 0)""",
    ),
    "sequence-type": (
        merge,
        (fields(), PROBE, [1, 2]),
        """ContractError [sequence-type]: {here}.merge, parameter 'pair': list of 2 for tuple[int, int], tuple(pair) fits
  expected   tuple[int, int]
  got        list of 2
  because    it is a list of 2, the contract says tuple[int, int]
  hint       only the container differs: tuple(pair) satisfies the contract""",
    ),
    "length": (
        merge,
        (fields(), PROBE, (1, 2, 3)),
        """ContractError [length]: {here}.merge, parameter 'pair': it has 3 items, the contract says 2
  expected   tuple[int, int]
  got        tuple of 3
  because    it has 3 items, the contract says 2""",
    ),
    "misspelt-key": (
        merge,
        (renamed(images="image"), PROBE),
        """ContractError [misspelt-key]: {here}.merge, parameter 'fields': dict of 2 for Fields, fields['images'] = fields.pop('image') fits
  expected   Fields
  got        dict of 2
  because    key 'images' is missing (found: 'image'); key 'image' is not in the contract (close: 'images')
  hint       a key looks misspelt: fields['images'] = fields.pop('image') satisfies the contract""",
    ),
    "missing-key": (
        merge,
        (renamed(images="pictures"), PROBE),
        """ContractError [missing-key]: {here}.merge, parameter 'fields': key 'images' is missing
  expected   Fields
  got        dict of 2
  because    key 'images' is missing; key 'pictures' is not in the contract""",
    ),
    "extra-key": (
        merge,
        (fields(weight=1), PROBE),
        """ContractError [extra-key]: {here}.merge, parameter 'fields': key 'weight' is not in the contract
  expected   Fields
  got        dict of 3
  because    key 'weight' is not in the contract""",
    ),
    "no-alternative": (
        merge,
        (fields(), PROBE, (0, 0), 7),
        """ContractError [no-alternative]: {here}.merge, parameter 'key': 7 fits none of str | None
  expected   str | None
  got        7
  because    7 fits none of str | None""",
    ),
    "no-alternative, of tensors": (
        group,
        (STACK, torch.zeros(3, 4, 5, 7)),
        """ContractError [no-alternative]: {here}.group, parameter 'masks': f32[3,4,5,7] fits none of Float32[Tensor, "B C h w"] | Float32[Tensor, "B h w"] | None
  expected   Float32[Tensor, "B C h w"] | Float32[Tensor, "B h w"] | None
  got        f32[3,4,5,7]
  because    as Float32[Tensor, "B C h w"]: axis 3 is 7, the contract says w=6 (from 'images', axis 3); as Float32[Tensor, "B h w"]: it has 4 axes, the contract says 3""",
    ),
    "unbound": (
        halve,
        (torch.zeros(3), None),
        """ContractError [unbound]: {here}.halve, parameter 'half': nothing in this call binds n
  expected   Float32[Tensor, "n//2"]
  got        f32[3]
  because    nothing in this call binds n""",
    ),
    "value": (
        weigh,
        (torch.full((2, 3), torch.nan),),
        """ContractError [value]: {here}.weigh, parameter 'weight': 6 of 6 elements are not finite, the contract says Finite
  expected   Annotated[Float32[Tensor, "o i"], Finite]
  got        f32[2,3]
  because    6 of 6 elements are not finite, the contract says Finite""",
    ),
    "axis-size, of a run of axes": (
        spread,
        (torch.zeros(3, 4), torch.zeros(3, 5)),
        """ContractError [axis-size]: {here}.spread, parameter 'y': axis 0 is (3, 5), the contract says what broadcasts with *s=(3, 4) (from 'x', axis 0)
  expected   Float32[Tensor, "*#s"]
  got        f32[3,5]
  because    axis 0 is (3, 5), the contract says what broadcasts with *s=(3, 4) (from 'x', axis 0)
  bindings   s=3x4 (from 'x', axis 0)""",
    ),
    "reference": (
        divide,
        (torch.zeros(4, 0, 4),),
        """ContractError [reference]: {here}.divide, parameter 'x': an axis divides by a dim of size 0
  expected   Float32[Tensor, "a b a//b"]
  got        f32[4,0,4]
  because    an axis divides by a dim of size 0""",
    ),
    "axis-size, and another": (
        merge,
        (fields(images=torch.zeros(3, 8, 9), positions=torch.zeros(3)), PROBE),
        """ContractError [axis-size]: {here}.merge, parameter "fields['images']" (and 1 more): axis 2 is 9, the contract says N=8 (from 'probe', axis 0)
  expected   Float32[Tensor, "B N N"]
  got        f32[3,8,9]
  because    axis 2 is 9, the contract says N=8 (from 'probe', axis 0)
  bindings   N=8 (from 'probe', axis 0)
  also [missing-axis]: parameter "fields['positions']"
  expected   Float32[Tensor, "B 2"]
  got        f32[3]
  because    it has 1 axis, not 2: axis 1 is missing""",
    ),
    "axis-order, and many others": (
        join,
        ([torch.zeros(5, 6), *[torch.zeros(6, 5)] * 500, *[torch.zeros(5, 6)] * 600],),
        """ContractError [axis-order]: {here}.join, parameter 'images[1]' (and 499 more): images[1].permute(1, 0) fits
  expected   Float32[Tensor, "h w"]
  got        f32[6,5]
  because    axis 0 is 6, the contract says h=5 (from 'images[0]', axis 0); axis 1 is 5, the contract says w=6 (from 'images[0]', axis 1)
  bindings   h=5 (from 'images[0]', axis 0), w=6 (from 'images[0]', axis 1)
  hint       the axes look permuted: images[1].permute(1, 0) satisfies the contract
  also [axis-order]: parameter 'images[2]'
  expected   Float32[Tensor, "h w"]
  got        f32[6,5]
  because    axis 0 is 6, the contract says h=5 (from 'images[0]', axis 0); axis 1 is 5, the contract says w=6 (from 'images[0]', axis 1)
  bindings   h=5 (from 'images[0]', axis 0), w=6 (from 'images[0]', axis 1)
  hint       the axes look permuted: images[2].permute(1, 0) satisfies the contract
  also [axis-order]: parameter 'images[3]'
  expected   Float32[Tensor, "h w"]
  got        f32[6,5]
  because    axis 0 is 6, the contract says h=5 (from 'images[0]', axis 0); axis 1 is 5, the contract says w=6 (from 'images[0]', axis 1)
  bindings   h=5 (from 'images[0]', axis 0), w=6 (from 'images[0]', axis 1)
  hint       the axes look permuted: images[3].permute(1, 0) satisfies the contract
  also       497 more: images[4], images[5], images[6], images[7], images[8], images[9], images[10], images[11], ...""",
    ),
}


@pytest.fixture(autouse=True)
def _engine(engine: str) -> None:
    """Every test here holds for both engines."""


def error_of(name: str) -> ContractError:
    function, arguments, _ = GOLDEN[name]
    checked = contract(**OPTIONS.get(function, {}))(function)
    with pytest.raises(ContractError) as caught:
        checked(*arguments)
    return caught.value


@pytest.mark.parametrize("name", list(GOLDEN))
def test_the_text_of_each_diagnosis(name: str) -> None:
    function, _, golden = GOLDEN[name]
    text, _, places = str(error_of(name)).rpartition("\n")
    assert text == golden.replace("{here}", __name__)
    here, first = "tests/shapecheck/test_report.py", function.__code__.co_firstlineno
    called = error_of.__code__.co_firstlineno + 4
    assert places == f"  defined    {here}:{first}     called {here}:{called}"


@pytest.mark.parametrize("name", list(GOLDEN))
def test_the_id_of_a_violation_is_the_name_of_its_diagnosis(name: str) -> None:
    violations = error_of(name).violations
    assert violations[0].id == name.partition(",")[0]
    assert violations[0].id in DIAGNOSES


def test_every_id_has_a_golden_text() -> None:
    elsewhere = {"kind", "missing-attribute"}  # what needs a producer, and what only modules and plain classes have
    assert {name.partition(",")[0] for name in GOLDEN} | elsewhere == DIAGNOSES.keys()


@pytest.mark.parametrize("name", list(GOLDEN))
def test_the_first_line_is_complete_and_short(name: str) -> None:
    error = error_of(name)
    first, *others = str(error).splitlines()
    head = first.replace(__name__, "my_package.my_module")
    assert re.match(r"ContractError \[[a-z-]+\]: my_package\.my_module\.\w+, (parameter|return value)", head)
    assert len(first) <= 180
    assert ": " in head.partition(", ")[2], "the fact or the cure"
    assert len(others) < 22


def test_the_same_failure_has_the_same_text() -> None:
    assert len({str(error_of("axis-order")) for _ in range(3)}) == 1


def test_a_first_line_that_would_be_too_long_leaves_out_what_the_others_say() -> None:
    name = "x" * 120
    with pytest.raises(ContractError) as caught:
        check(torch.zeros(4, 2, 1), Float32[Tensor, "n 1 2"], name)
    first = str(caught.value).splitlines()[0]
    assert first.endswith(f"parameter '{name}'")
    assert caught.value.violations[0].hint is not None


def test_a_parameter_whose_name_begins_like_a_result_is_a_parameter() -> None:
    with pytest.raises(ContractError, match="parameter 'returned'"):
        check(torch.zeros(3), Float32[Tensor, "h w"], "returned")


def test_no_address_stands_in_a_text() -> None:
    annotation = dict[object, Float32[Tensor, " n"]]
    with pytest.raises(ContractError) as caught:
        check({object(): torch.zeros(3, 2)}, annotation)
    assert caught.value.violations[0].parameter == "value[<object object>]"
    assert "0x" not in str(caught.value)


class BrokenDataset(Dataset[Tensor]):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Tensor:
        return contract(shift)(torch.zeros(4, 5, 6), torch.zeros(4, 2, 1))


def test_the_text_survives_a_dataloader_worker() -> None:
    with pytest.raises(ContractError) as caught:
        next(iter(DataLoader(BrokenDataset(), num_workers=1)))
    assert "offset.permute(0, 2, 1) satisfies the contract" in str(caught.value)


def test_a_torch_error_in_a_checked_body_gets_a_note_with_the_dims() -> None:
    @contract
    def product(x: Float32[Tensor, "a b"], y: Float32[Tensor, "c d"]) -> Float32[Tensor, "a d"]:
        return x @ y

    assert product(torch.zeros(3, 4), torch.zeros(4, 5)).shape == (3, 5)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied") as caught:
        product(torch.zeros(3, 4), torch.zeros(2, 5))
    (note,) = caught.value.__notes__
    assert "a=3 (from 'x', axis 0), b=4 (from 'x', axis 1), c=2 (from 'y', axis 0), d=5 (from 'y', axis 1)" in note
