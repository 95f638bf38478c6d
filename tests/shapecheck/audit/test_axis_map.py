"""Coded data tell where an adapter puts axes, also where sizes coincide, and the message says what it did instead."""

import copy
import dataclasses
import itertools
import pickle
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from jaxtyping import Float32
from torch import Tensor

from shapecheck import contract
from shapecheck.audit import AxisFault, AxisMap, AxisMapError, assert_axis_map

OFFSETS = "B 1 2 C -> B C 1 2"


def faults_of(adapter: Callable[[Any], Any], maps: Any, **options: Any) -> tuple[AxisFault, ...]:
    with pytest.raises(AxisMapError) as caught:
        assert_axis_map(adapter, maps, **options)
    return caught.value.faults


def fault_of(adapter: Callable[[Any], Any], maps: Any, **options: Any) -> AxisFault:
    (fault,) = faults_of(adapter, maps, **options)
    return fault


def right(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)


# --- the historical map, also where sizes coincide --------------------------------------------------------
SIZES = [{}, {"C": 1}, {"C": 2}, {"B": 4, "C": 4}, {"B": 2, "C": 2}]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.int64, torch.complex64], ids=str)
def test_the_right_permute_passes_at_all_sizes_and_dtypes(sizes: dict[str, int], dtype: Any) -> None:
    assert_axis_map(right, OFFSETS, sizes=sizes, dtype=dtype)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_of_all_permutes_exactly_those_pass_that_put_every_element_in_its_place(sizes: dict[str, int]) -> None:
    B, C = ({"B": 3, "C": 5} | sizes).values()
    given = torch.arange(B * 2 * C).reshape(B, 1, 2, C)
    wanted = torch.stack([torch.stack([given[b, :, :, c] for c in range(C)]) for b in range(B)])
    for order in itertools.permutations(range(4)):
        if torch.equal(given.permute(order), wanted):
            assert_axis_map(lambda x, order=order: x.permute(order), OFFSETS, sizes=sizes)
        else:
            fault = fault_of(lambda x, order=order: x.permute(order), OFFSETS, sizes=sizes)
            assert fault.kinds[0] == "permuted", (order, fault)


@pytest.mark.parametrize("sizes", [{}, {"C": 2}, {"B": 4, "C": 4}], ids=str)
def test_a_permute_of_the_right_shape_and_the_wrong_axes_is_caught(sizes: dict[str, int]) -> None:
    maps = "C H W -> H W C"
    same = {"C": 4, "H": 4, "W": 4}
    assert_axis_map(lambda x: x.permute(1, 2, 0), maps, sizes=same)
    fault = fault_of(lambda x: x.permute(2, 1, 0), maps, sizes=same)
    assert fault.kinds == ("permuted",)
    assert fault.reasons == ("H lies where W belongs", "W lies where H belongs")
    assert fault.expected == fault.got == "f64[4,4,4]"
    assert fault_of(lambda x: x.reshape(x.shape[0], -1, 1, 2), OFFSETS, sizes=sizes).kinds[-1] == "reshaped"


# --- what was done instead -----------------------------------------------------------------------------------
def rolled(x: Tensor) -> Tensor:
    return right(x).roll(1, 0)


WRONG: dict[str, tuple[Callable[[Tensor], Any], tuple[str, ...], str]] = {
    "nothing": (lambda x: x, ("permuted", "shape"), "the adapter left the axes as they came"),
    "another permute": (lambda x: x.permute(0, 2, 1, 3), ("permuted", "shape"), "the adapter did permute(0, 2, 1, 3)"),
    "reshape": (
        lambda x: x.reshape(3, 5, 1, 2),
        ("reshaped",),
        "reshape or view in place of permute: the elements follow one another in the order B 2 C, not B C 2",
    ),
    "a reshape of another permute": (
        lambda x: x.permute(3, 0, 1, 2).reshape(3, 5, 1, 2),
        ("reshaped",),
        "the elements follow one another in the order C B 2, not B C 2",
    ),
    "flip": (lambda x: right(x).flip(-1), ("flipped",), "the axis of size 2 is flipped"),
    "x and y swapped": (lambda x: right(x)[..., [1, 0]], ("flipped",), "the axis of size 2 is flipped"),
    "roll": (rolled, ("rolled",), "B is rolled by 1, the last 1 to the front"),
    "other order": (lambda x: right(x)[[0, 2, 1]], ("reordered",), "along B there are numbers 0, 2, 1"),
    "one channel": (
        lambda x: right(x[..., 3:4].expand_as(x)),
        ("copied",),
        "all of C is a copy of number 3 of it",
    ),
    "two of three": (lambda x: right(x)[[0, 1, 1]], ("reordered",), "along B there are numbers 0, 1, 1"),
    "zeros": (lambda x: torch.zeros(3, 5, 1, 2), ("constant",), "every element is 0: nothing of the input is left"),
    "scaled": (lambda x: right(x) / 2, ("scaled",), "the values are multiplied by 0.5"),
    "negated": (lambda x: -right(x), ("scaled",), "the values are multiplied by -1"),
    "shifted": (lambda x: right(x) + 3, ("scaled",), "the values are shifted by 3"),
    "scaled in single precision": (
        lambda x: right(x).float() / 3,
        ("scaled",),
        "the values are multiplied by 0.333333",
    ),
    "scaled and reshaped": (
        lambda x: 7 * x.reshape(3, 5, 1, 2),
        ("scaled", "reshaped"),
        "the values are multiplied by 7",
    ),
    "negated and flipped": (lambda x: -right(x).flip(0), ("scaled", "flipped"), "the values are multiplied by -1"),
    "part of it zero": (lambda x: right(x) * torch.tensor([1, 0]), ("values",), "15 of 30 elements are zero"),
    "other numbers": (lambda x: right(x).sqrt(), ("values",), "25 of 30 elements are none of the input's"),
    "no numbers": (lambda x: right(x) / 0, ("constant",), "every element is inf: nothing of the input is left"),
    "an axis too few": (
        lambda x: right(x).squeeze(2),
        ("shape",),
        "the elements are in the right order, in the shape [3,5,2]",
    ),
    "a part": (lambda x: right(x)[:2], ("shape",), "the shape is [2,5,1,2], not [3,5,1,2]"),
    "nothing left": (lambda x: right(x)[:0], ("shape",), "the shape is [0,5,1,2], not [3,5,1,2]"),
    "padded": (
        lambda x: torch.nn.functional.pad(right(x), (0, 1)),
        ("values", "shape"),
        "15 of 45 elements are zero",
    ),
    "shuffled": (
        lambda x: x.flatten()[torch.arange(30).roll(1)].reshape(3, 5, 1, 2),
        ("mixed",),
        "the axes are mixed: element [0, 0, 0, 0] is that of B=2, 1 along the axis of size 2, C=4, not that of B=0, 0 along "
        + "the axis of size 2, C=0",
    ),
    "no tensor": (lambda x: [1, 2], ("type",), "it is list of 2, no tensor or array"),
    "none": (lambda x: None, ("type",), "it is None, no tensor or array"),
}


@pytest.mark.parametrize(("adapter", "kinds", "reason"), WRONG.values(), ids=WRONG)
def test_the_message_says_what_was_done(adapter: Callable[[Tensor], Any], kinds: tuple[str, ...], reason: str) -> None:
    fault = fault_of(adapter, OFFSETS)
    assert (fault.kinds, fault.reasons[0]) == (kinds, reason)
    assert not fault.cure or "x.permute(0, 3, 1, 2)" in fault.cure


COMPLEX: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "conjugated": (lambda x: right(x).conj(), "every element is the complex conjugate"),
    "real": (lambda x: right(x).real, "the imaginary part is gone"),
    "torn apart": (
        lambda x: torch.complex(right(x).real, right(x).imag.flip(0)),
        "real and imaginary parts no longer belong together",
    ),
}


@pytest.mark.parametrize(("adapter", "reason"), COMPLEX.values(), ids=COMPLEX)
def test_what_happens_to_imaginary_parts_is_seen(adapter: Callable[[Tensor], Tensor], reason: str) -> None:
    assert fault_of(adapter, OFFSETS, dtype=torch.complex64).reasons == (reason,)
    permuted_too = fault_of(
        lambda x: adapter(x).permute(1, 0, 2, 3), OFFSETS, dtype=torch.complex64, sizes={"B": 5, "C": 5}
    )
    assert permuted_too.kinds == ("values", "permuted")


GOLDEN = """\
AxisMapError [permuted]: swapped: "B 1 2 C -> B C 1 2": C lies where B belongs
  expected   f32[4,4,1,2]
  got        f32[4,4,1,2]
  because    B lies where C belongs; C lies where B belongs
  hint       x.permute(0, 3, 1, 2) does what the map says"""


def swapped(x: Tensor) -> Tensor:
    return x.permute(3, 0, 1, 2)


def test_the_error_reads_as_those_of_contracts_do() -> None:
    with pytest.raises(AxisMapError) as caught:
        assert_axis_map(swapped, OFFSETS, sizes={"B": 4, "C": 4}, dtype=torch.float32)
    expected = GOLDEN.replace(": C lies where B belongs", ": B lies where C belongs", 1)
    assert str(caught.value) == expected
    assert isinstance(caught.value, AssertionError)
    for again in (pickle.loads(pickle.dumps(caught.value)), copy.copy(caught.value)):
        assert (str(again), again.faults) == (str(caught.value), caught.value.faults)


# --- the notation --------------------------------------------------------------------------------------------------
MAPS = [
    "B H W C -> B C H W",
    "B (C n) -> B C n",
    "B C n -> B (C n)",
    "B C n -> B (n C)",
    "(B C) N M -> B C M N",
    "B C (H p) (W q) -> B (H W) (p q C)",
    "B C -> B 1 C",
    "B 1 C 1 -> C B",
    "B (C 1) -> C B",
    "B -> B",
    "B -> 1 (B 1)",
    "B 3 H -> 3 H B",
]


@pytest.mark.parametrize("text", MAPS)
def test_a_map_means_what_einops_says_it_does(text: str) -> None:
    einops = pytest.importorskip("einops")
    names = {name: size for name, size in zip("BCHWnpqNM", (2, 3, 4, 5, 6, 7, 8, 9, 10), strict=True) if name in text}
    pattern = text.replace("3", "T")  # einops takes names only
    lengths = names | ({"T": 3} if "T" in pattern else {})
    assert_axis_map(lambda x: einops.rearrange(x, pattern, **lengths), text, sizes=names)
    wrong = fault_of(lambda x: einops.rearrange(x, pattern, **lengths).flip(-1), text, sizes=names)
    assert wrong.got == wrong.expected


@pytest.mark.parametrize("text", [*MAPS, OFFSETS, "B N N -> N N B", "B 2 2 C -> C 2 B 2 1", "1 1 B -> B 1"])
def test_the_cure_does_what_the_map_says(text: str) -> None:
    names = {name: size for name, size in zip("BCHWnpqNM", (2, 3, 4, 5, 6, 7, 8, 9, 10), strict=True) if name in text}
    code = AxisMap(text).code("x")
    assert_axis_map(lambda x: eval(code, {"x": x, **names}), text, sizes=names)
    assert "reshape" not in code


def test_of_axes_that_are_written_alike_the_first_is_the_first() -> None:
    assert_axis_map(lambda x: x, "B N N -> B N N")
    fault = fault_of(lambda x: x.mT, "B N N -> B N N")
    assert fault.reasons[0] == "N (number 1 of 2) lies where N (number 2 of 2) belongs"
    assert fault.cure == "the map leaves the axes as they are"


def test_sizes_that_are_not_given_are_all_different_and_none_that_is_written() -> None:
    seen = list[tuple[int, ...]]()

    def look(x: Tensor) -> Tensor:
        seen.append(tuple(x.shape))
        return x

    assert_axis_map(look, "B 3 C 5 H -> B 3 C 5 H", sizes={"C": 7})
    assert seen == [(11, 3, 7, 5, 13)]


BAD = {
    "B C": "it has 0 arrows '->'",
    "B -> C -> B": "it has 2 arrows",
    "B C -> B": "it does not have C equally often on both sides",
    "batch C -> bacth C": "did you mean 'batch'?",
    "B C -> B C C": "it does not have C equally often",
    "B (C -> B C": "it has parentheses that do not match",
    "B C) -> B C": "it has parentheses that do not match",
    "B ((C) n) -> B C n": "or one in another",
    "B ... -> ... B": "it has '.', which is neither a name nor a size",
    "B 0 -> 0 B": "it has '0', which is neither a name nor a size",
    "B 2 -> B 3": "it does not have 2, 3 equally often",
}


@pytest.mark.parametrize(("text", "reason"), BAD.items())
def test_a_map_that_means_nothing_is_an_error_that_says_why(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=r"^Expected an axis map such as") as caught:
        assert_axis_map(lambda x: x, text)
    assert reason in str(caught.value)


MISUSES: dict[str, tuple[Any, dict[str, Any], str]] = {
    "a size of nothing": (
        "B C -> C B",
        {"sizes": {"c": 2}},
        "Expected sizes of B, C, got one of 'c': did you mean 'C'?",
    ),
    "no size": ("B C -> C B", {"sizes": {"C": 0}}, "Expected the size of 'C' to be a positive int, got 0."),
    "a narrow dtype": (
        "B C H -> B C H",
        {"dtype": torch.int8, "sizes": {"B": 50}},
        "tells 750 elements apart, got torch.int8",
    ),
    "a dtype of two values": ("B -> B", {"dtype": torch.bool}, "tells 3 elements apart, got torch.bool"),
    "too much": (
        "B C -> C B",
        {"sizes": {"B": 10**5, "C": 10**5}},
        "a map of at most 16777216 elements, got 10000000000",
    ),
    "no map": ({"x": 3}, {}, "Expected axis maps, in dicts, tuples or lists, got 3."),
    "no such dim": ("B C -> C B", {"samples": "N"}, "Expected every map to have 'N' on its left side"),
    "a merged dim": ("(B C) -> B C", {"samples": "B"}, "not merged, to be taken apart by, got '(B C) -> B C'."),
}


@pytest.mark.parametrize(("maps", "options", "message"), MISUSES.values(), ids=MISUSES)
def test_what_cannot_be_tried_is_an_error_with_the_cure(maps: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"^Expected ") as caught:
        assert_axis_map(lambda x: x, maps, **options)
    assert message in str(caught.value)


# --- records and collate functions ------------------------------------------------------------------------------------
RECORD = {"images": "B H W C -> B C H W", "offsets": AxisMap(OFFSETS, dtype=torch.float32)}


@dataclasses.dataclass
class Fields:
    images: Tensor
    offsets: Tensor


def test_a_record_is_tried_as_a_whole_with_dims_that_are_shared() -> None:
    def adapt(record: dict[str, Tensor]) -> Fields:
        assert record["images"].shape[0] == record["offsets"].shape[0]
        assert record["images"].shape[3] == record["offsets"].shape[3]
        assert (record["images"].dtype, record["offsets"].dtype) == (torch.float64, torch.float32)
        return Fields(right(record["images"]), right(record["offsets"]))

    assert_axis_map(adapt, RECORD)
    wrong = faults_of(lambda record: {"images": right(record["images"]).mT.flip(0)}, RECORD)
    assert [(fault.path, fault.kinds) for fault in wrong] == [
        ("['images']", ("mixed", "shape")),
        ("['offsets']", ("missing",)),
    ]


def test_everything_that_is_wrong_with_a_record_is_in_one_report() -> None:
    with pytest.raises(AxisMapError) as caught:
        assert_axis_map(lambda record: record, RECORD)
    lines = str(caught.value).splitlines()
    name = "test_everything_that_is_wrong_with_a_record_is_in_one_report.<locals>.<lambda>"
    assert lines[0].startswith(f"AxisMapError [permuted, shape]: {name}, result['images']: \"B H W C -> B C H W\": ")
    assert lines[4] == "  hint       x['images'].permute(0, 3, 1, 2) does what the map says"
    assert lines[5].startswith("  also [permuted, shape]: result['offsets']: \"B 1 2 C -> B C 1 2\": ")


def test_a_record_may_be_made_as_its_class_wants() -> None:
    def adapt(fields: Fields) -> Fields:
        return Fields(right(fields.images), right(fields.offsets))

    def make(fields: dict[str, Tensor]) -> Fields:
        return Fields(**fields)

    assert_axis_map(adapt, RECORD, make=make)
    assert (
        fault_of(lambda fields: adapt(Fields(fields.images.flip(0), fields.offsets)), RECORD, make=make).path
        == "['images']"
    )


def test_a_collate_function_is_given_a_list_of_samples() -> None:
    maps = {"image": "B H W -> B 1 H W", "pair": ("B C -> B C", "B C -> C B")}

    def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
        assert [sample["image"].ndim for sample in samples] == [2] * len(samples)
        assert isinstance(samples[0]["pair"], tuple)
        first, second = zip(*(sample["pair"] for sample in samples), strict=True)
        images = torch.stack([sample["image"] for sample in samples]).unsqueeze(1)
        return {"image": images, "pair": [torch.stack(first), torch.stack(second, 1)], "more": 0}

    assert_axis_map(collate, maps, samples="B")
    assert_axis_map(torch.utils.data.default_collate, "B C -> B C", samples="B")
    assert fault_of(torch.utils.data.default_collate, maps["pair"], samples="B").path == "[1]"
    backwards = fault_of(lambda samples: collate(samples[::-1]) | {"pair": collate(samples)["pair"]}, maps, samples="B")
    assert (backwards.path, backwards.reasons) == ("['image']", ("B is flipped",))
    assert fault_of(
        lambda samples: torch.stack(samples, 1), "B C -> B C", samples="B", sizes={"B": 4, "C": 4}
    ).kinds == ("permuted",)


def test_numpy_adapters_are_tried_too() -> None:
    assert_axis_map(lambda x: x.transpose(0, 3, 1, 2), OFFSETS, make=Tensor.numpy)
    assert fault_of(lambda x: x.transpose(0, 3, 1, 2)[::-1], OFFSETS, make=Tensor.numpy).kinds == ("flipped",)


def test_an_adapter_may_write_to_what_it_is_given() -> None:
    def adapt(x: Tensor) -> Tensor:
        moved = right(x).clone()
        x.zero_()
        return moved

    assert_axis_map(adapt, OFFSETS)
    assert fault_of(lambda x: right(x.zero_()), OFFSETS).kinds == ("constant",)


def test_an_adapter_under_contract_is_called_through_it() -> None:
    @contract
    def adapt(x: Float32[Tensor, "B 1 2 C"]) -> Float32[Tensor, "B C 1 2"]:
        return right(x)

    assert_axis_map(adapt, OFFSETS, dtype=torch.float32)
    assert_axis_map(adapt, AxisMap(OFFSETS, torch.float32), sizes={"B": 2, "C": 2})


def test_an_error_of_the_adapter_reaches_the_caller_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        assert_axis_map(lambda x: 1 / 0, OFFSETS)
