"""Value contracts: each refuses what it names and accepts its twin, for both libraries and both engines."""

import contextlib
import math
import os
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import numpy as np
import pytest
import torch
from beartype.vale import Is, IsAttr, IsEqual
from jaxtyping import Complex64, Float32, Int64
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from shapecheck import ContractDefinitionError, ContractError, ContractWarning, check, contract, mode
from shapecheck.values import (
    ChannelsLast,
    Contiguous,
    Finite,
    NonNegative,
    OnDevice,
    OwnsMemory,
    Positive,
    RequiresGrad,
)

Image = Float32[Tensor, "h w"]
Array = Float32[np.ndarray, "h w"]
SHAPE = (3, 4)


@pytest.fixture(autouse=True)
def _engine(engine: str) -> None:
    """Every test here holds for both engines."""


def image(value: float = 1.0) -> Tensor:
    return torch.full(SHAPE, value)


def with_one(value: float) -> Tensor:
    spoilt = image()
    spoilt[1, 2] = value
    return spoilt


def reason(value: object, annotation: Any) -> str:
    """Return why a value is refused; nothing if it is not."""
    try:
        check(value, annotation)
    except ContractError as error:
        (violation,) = error.violations
        assert violation.id == "value"
        return violation.mismatches[0].got
    return ""


def reasons(value: object, annotation: Any) -> list[str]:
    """Return everything that is wrong with a value."""
    try:
        check(value, annotation)
    except ContractError as error:
        return [mismatch.got for violation in error.violations for mismatch in violation.mismatches]
    return []


# --- the validators that come along --------------------------------------------------------------------
CASES: dict[str, tuple[Any, Any, Any, str]] = {
    "nan": (Finite, image(), with_one(np.nan), "1 of 12 elements is not finite"),
    "infinity": (Finite, image(), image(-np.inf), "12 of 12 elements are not finite"),
    "zero": (Positive, image(), with_one(0.0), "1 of 12 elements is not positive"),
    "nan-is-not-positive": (Positive, image(), with_one(np.nan), "1 of 12 elements is not positive"),
    "negative": (NonNegative, with_one(0.0), with_one(-1.0), "1 of 12 elements is negative or not a number"),
    "device": (OnDevice("cpu"), image(), torch.empty(SHAPE, device="meta"), ""),
    "strided": (Contiguous, image(), image().T.contiguous().T, "its strides are (1, 3), not those of the shape"),
    "expanded": (OwnsMemory, image().T.contiguous().T, torch.ones(3, 1).expand(SHAPE), "axis 1 are one and the same"),
    "overlapping": (OwnsMemory, image(), torch.ones(9).as_strided(SHAPE, (2, 1)), "along axis 0 overlap others"),
    "without-grad": (RequiresGrad, image().requires_grad_(), image(), "it does not require a gradient"),
}


@pytest.mark.violation
@pytest.mark.parametrize("case", CASES)
def test_a_validator_accepts_what_it_describes_and_refuses_the_rest(case: str) -> None:
    validator, good, bad, why = CASES[case]
    assert reason(good, Annotated[Image, validator]) == ""
    assert why in reason(bad, Annotated[Image, validator])
    if good.is_meta or bad.is_meta or good.requires_grad:
        return
    assert reason(good.numpy(), Annotated[Array, validator]) == ""
    assert why in reason(bad.numpy(), Annotated[Array, validator])  # of the same strides


@pytest.mark.violation
def test_a_device_is_a_type_of_device_or_one_of_them() -> None:
    assert reason(image(), Annotated[Image, OnDevice("cuda")]) == "it is on cpu"
    assert reason(np.ones(SHAPE, np.float32), Annotated[Array, OnDevice("cpu")]) == ""
    assert OnDevice("cuda")(FakeDevice("cuda:1")) is None
    assert OnDevice("cuda:1")(FakeDevice("cuda:1")) is None
    assert OnDevice("cuda:0")(FakeDevice("cuda:1")) == "it is on cuda:1"


class FakeDevice:
    """Stands for a tensor on a device that this machine need not have."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)


@pytest.mark.violation
def test_channels_last_is_torchs_memory_format_for_images_and_volumes() -> None:
    images = torch.zeros(2, 3, 5, 4)
    annotation = Annotated[Float32[Tensor, "b c h w"], ChannelsLast]
    assert reason(images.contiguous(memory_format=torch.channels_last), annotation) == ""
    assert "not those of the channels-last format" in reason(images, annotation)
    volume = torch.zeros(2, 3, 5, 4, 6).contiguous(memory_format=torch.channels_last_3d)
    assert reason(volume, Annotated[Float32[Tensor, "b c d h w"], ChannelsLast]) == ""
    assert "only tensors of 4 or 5 axes" in reason(image(), Annotated[Image, ChannelsLast])
    assert "only torch tensors" in reason(np.ones(SHAPE, np.float32), Annotated[Array, ChannelsLast])


@pytest.mark.violation
def test_complex_numbers_have_no_sign_and_whole_numbers_are_finite() -> None:
    waves = torch.ones(3, dtype=torch.complex64)
    assert reason(waves, Annotated[Complex64[Tensor, " n"], Finite]) == ""
    assert "neither positive nor negative" in reason(waves, Annotated[Complex64[Tensor, " n"], Positive])
    assert reason(torch.arange(3), Annotated[Int64[Tensor, " n"], Finite, NonNegative]) == ""
    assert (
        reason(torch.arange(3), Annotated[Int64[Tensor, " n"], Finite, Positive]) == "1 of 3 elements is not positive"
    )


DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e5m2, torch.int64, torch.bool]
SPECIALS = [0.0, -0.0, 1.0, -1.0, 1e-4, 6e4, np.inf, -np.inf, np.nan]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_elements_are_judged_as_one_by_one_whatever_their_dtype(dtype: torch.dtype) -> None:
    rules = {Finite: math.isfinite, Positive: lambda number: number > 0, NonNegative: lambda number: number >= 0}
    samples = [[], *([one] for one in SPECIALS), *([1.0, one, 2.0] for one in SPECIALS), SPECIALS]
    for sample in samples:
        if dtype is torch.int64 and not all(map(math.isfinite, sample)):
            continue
        value = torch.tensor(sample, dtype=torch.float32).to(dtype)
        numbers = [float(number) for number in value.to(torch.float64)]
        for validator, rule in rules.items():
            expected = all(map(rule, numbers))
            if dtype is not torch.float8_e5m2 or validator is Finite:  # which torch does not compare
                assert (validator(value) is None) is expected, (validator, sample)
            if dtype not in {torch.bfloat16, torch.float8_e5m2}:  # which NumPy does not have
                assert (validator(value.numpy()) is None) is expected, (validator, sample)


@pytest.mark.violation
def test_validators_together_judge_as_each_alone() -> None:
    for special in SPECIALS:
        value = with_one(special)
        finite, sign = math.isfinite(special), special >= 0
        whys = ["1 of 12 elements is not finite"] * (not finite) + ["1 of 12 elements is negative or not a number"] * (
            not sign
        )
        for one, annotation in ((value, Image), (value.numpy(), Array)):
            assert reasons(one, Annotated[annotation, Finite, NonNegative]) == whys
            assert reasons(one, Annotated[annotation, NonNegative, Finite]) == whys[::-1]


@pytest.mark.violation
def test_validators_of_elements_look_once_together_and_count_what_they_refuse() -> None:
    with Operations() as made:
        check(image(), Annotated[Image, Finite, Positive, NonNegative])
    assert made.names.count("aten.aminmax.default") == 1
    assert made.names.count("aten.sum.default") == 0
    with Operations() as made, contextlib.suppress(ContractError):
        check(with_one(np.nan), Annotated[Image, Finite, NonNegative])
    assert made.names.count("aten.sum.default") >= 2


class Operations(TorchDispatchMode):
    """Notes every operation that is done."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def test_looking_at_elements_takes_no_memory() -> None:
    array = np.ones((300, 400), np.float32)
    tracemalloc.start()
    try:
        assert [validator(array) for validator in (Finite, Positive, NonNegative)] == [None] * 3
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < array.nbytes / 100


# --- validators of others --------------------------------------------------------------------------------
def in_rising_order(value: Tensor) -> str | None:
    return None if bool((value.diff() > 0).all()) else "its elements do not rise"


@pytest.mark.violation
@pytest.mark.parametrize(
    ("validator", "shown"),
    [
        (in_rising_order, "in_rising_order"),
        (Is[lambda value: bool((value.diff() > 0).all())], "Is["),
        (IsAttr["ndim", IsEqual[1]] & Is[lambda value: value[0] < value[-1]], "IsEqual[1]"),
    ],
    ids=["function", "beartype", "beartype-combined"],
)
def test_functions_and_beartypes_validators_are_enforced(validator: Any, shown: str) -> None:
    annotation = Annotated[Float32[Tensor, " n"], validator]
    rising = torch.arange(4.0)
    assert reason(rising, annotation) == ""
    assert reason(rising.flip(0), annotation) != ""
    with pytest.raises(ContractError) as caught:
        check(rising.flip(0), annotation)
    (violation,) = caught.value.violations
    assert shown in violation.expected
    assert " at 0x" not in str(caught.value)


@pytest.mark.violation
def test_validators_of_values_that_are_no_tensors_are_enforced_too() -> None:
    even = Is[lambda value: value % 2 == 0]

    @contract
    def use(x: Image, count: Annotated[int, even]) -> None:
        del x, count

    use(image(), 2)
    with pytest.raises(ContractError, match=r"\[value\]: .*parameter 'count'"):
        use(image(), 3)
    with pytest.raises(ContractError, match=r"\[type\]: .*parameter 'count'"):
        use(image(), "3")


@pytest.mark.violation
def test_a_validator_that_answers_neither_none_nor_a_reason_is_a_mistake_of_its_author() -> None:
    with pytest.raises(
        ContractDefinitionError, match="Expected the validator <lambda> to return None or what is wrong"
    ):
        check(image(), Annotated[Image, lambda value: value.sum() > 0])


@pytest.mark.violation
def test_an_error_inside_a_validator_reaches_its_author() -> None:
    with pytest.raises(ZeroDivisionError):
        check(image(), Annotated[Image, lambda value: f"{value.sum() / 0}" if 1 / 0 else None])


# --- when a validator is asked -------------------------------------------------------------------------
@pytest.fixture
def asked() -> list[tuple[int, ...]]:
    """Shapes that the validator `noting(asked)` was given."""
    return []


def noting(asked: list[tuple[int, ...]]) -> Callable[[Tensor], str | None]:
    def has_no_negative(value: Tensor) -> str | None:
        asked.append(tuple(value.shape))
        return "it has a negative element" if bool((value < 0).any()) else None

    return has_no_negative


@pytest.mark.violation
@pytest.mark.parametrize("bad", [(3, 5), (4, 4), (3,)], ids=str)
def test_a_validator_judges_only_what_its_annotation_accepts(
    asked: list[tuple[int, ...]], bad: tuple[int, ...]
) -> None:
    @contract
    def use(x: Image, y: Annotated[Image, noting(asked)], z: Annotated[Float32[Tensor, " h+1"], noting(asked)]) -> None:
        del x, y, z

    use(image(), image(), torch.ones(4))
    asked.clear()
    with pytest.raises(ContractError) as caught:
        use(image(), -torch.ones(bad), -torch.ones(4))
    found = {(violation.parameter, violation.id == "value") for violation in caught.value.violations}
    assert found == {("y", False), ("z", True)}
    assert set(asked) == {(4,)}


@pytest.mark.violation
def test_a_validator_of_a_list_is_not_asked_when_an_item_is_wrong() -> None:
    def is_short(items: list[Tensor]) -> str | None:
        return None if len(items) < 3 else "it is long"

    @contract
    def use(x: Image, items: Annotated[list[Image], is_short]) -> None:
        del x, items

    use(image(), [image()] * 2)
    for items, ids in (([image()] * 3, ["value"]), ([image(), image().T, image()], ["axis-order"])):
        with pytest.raises(ContractError) as caught:
            use(image(), items)
        assert [violation.id for violation in caught.value.violations] == ids


@pytest.mark.violation
def test_a_validator_is_asked_once_in_a_good_call_and_not_again_when_the_body_raises(
    asked: list[tuple[int, ...]],
) -> None:
    either = Image | Float32[Tensor, "w h"]

    @contract
    def use(x: either, y: Annotated[Image, noting(asked)], fail: bool) -> list[Image] | tuple[Image, ...]:
        if fail:
            raise IndexError
        return [x, y]

    square = torch.ones(4, 4)
    use(square, square, False)
    assert asked == [(4, 4)]
    with pytest.raises(IndexError) as caught:
        use(square, square, True)
    (note,) = caught.value.__notes__
    assert "h=4" in note
    assert asked == [(4, 4)] * 2


# --- what stands behind an annotation --------------------------------------------------------------------
@pytest.mark.violation
@pytest.mark.parametrize(
    "metadata", ["in counts", object(), OnDevice, 3, {"gt": 0}], ids=lambda item: type(item).__name__
)
def test_text_is_documentation_and_anything_else_that_would_not_be_checked_is_refused(metadata: object) -> None:
    annotation = Annotated[Image, metadata]
    if isinstance(metadata, str):
        check(image(), annotation)
        return
    with pytest.raises(ContractDefinitionError, match="is no validator, kind or text and would not be checked"):
        check(image(), annotation)


@pytest.mark.violation
def test_metadata_of_other_libraries_on_plain_values_is_their_business() -> None:
    @contract
    def use(x: Image, count: Annotated[int, {"help": "how many"}]) -> None:
        del x, count

    use(image(), 2)
    with pytest.raises(ContractError, match=r"\[type\]"):
        use(image(), "2")


# --- where values are asked ------------------------------------------------------------------------------
Bright = Annotated[Image, Finite, Positive]


@pytest.mark.violation
def test_values_are_enforced_in_arguments_results_records_and_containers() -> None:
    @contract
    def use(x: Bright, others: list[Bright], *more: Bright, last: Bright | None = None) -> tuple[Bright, Image]:
        del others, more, last
        return x - 1 + float(x.sum() != 13), x

    dark = image(-1.0)
    use(image(), [image(), image()], image(), last=image())
    use(image(), [], last=None)
    cases = [((dark, [image()]), "x"), ((image(), [image(), dark]), "others[1]"), ((image(), [], dark), "more[0]")]
    for arguments, path in cases:
        with pytest.raises(ContractError) as caught:
            use(*arguments)
        assert [violation.parameter for violation in caught.value.violations] == [path]
    with pytest.raises(ContractError, match="parameter 'last'"):
        use(image(), [], last=dark)
    thirteen = image()
    thirteen[0, 0] = 2.0
    with pytest.raises(ContractError, match=r"\[value\]: .*return value, at 'return\[0\]'"):
        use(thirteen, [])


@pytest.mark.violation
def test_a_validator_is_asked_only_of_a_value_whose_own_annotation_accepts_it() -> None:
    asked: list[tuple[int, ...]] = []

    def remembers(value: Tensor) -> None:
        assert value.dtype == torch.float32
        asked.append(tuple(value.shape))

    @contract
    def use(x: Annotated[Image, remembers], y: Float32[Tensor, " h"]) -> None:
        del x, y

    use(image(), torch.zeros(3))
    assert asked == [(3, 4)]
    for bad in (torch.zeros(3), torch.zeros(SHAPE).long(), np.zeros(SHAPE, np.float32), None):
        with pytest.raises(ContractError):
            use(bad, torch.zeros(3))
    assert all(len(shape) == 2 for shape in asked)  # the cure of a wrong shape may have been tried


@pytest.mark.violation
def test_everything_that_is_wrong_with_the_values_is_in_one_report() -> None:
    @contract
    def use(x: Bright, y: Bright) -> None:
        del x, y

    with pytest.raises(ContractError) as caught:
        use(with_one(np.nan), image(-1.0))
    assert [len(violation.mismatches) for violation in caught.value.violations] == [2, 1]


@pytest.mark.violation
def test_none_is_not_asked_where_the_type_allows_it() -> None:
    @contract
    def use(x: Annotated[Image | None, Finite]) -> None:
        del x

    use(None)
    use(image())
    with pytest.raises(ContractError, match="not finite"):
        use(image(np.nan))


@pytest.mark.violation
def test_the_text_says_what_is_wrong_and_no_value() -> None:
    with pytest.raises(ContractError) as caught:
        check(with_one(-123.0), Annotated[Image, Finite, NonNegative], name="counts")
    because = "1 of 12 elements is negative or not a number, the contract says NonNegative"
    name = f"{__name__}.test_the_text_says_what_is_wrong_and_no_value"
    assert str(caught.value).splitlines()[:4] == [
        f"ContractError [value]: {name}, parameter 'counts': {because}",
        '  expected   Annotated[Float32[Tensor, "h w"], Finite, NonNegative]',
        "  got        f32[3,4]",
        f"  because    {because}",
    ]


# --- modes, tracing and tensors without data ---------------------------------------------------------------
def test_values_are_not_asked_when_checking_is_off() -> None:
    with mode("off"):

        @contract
        def use(x: Bright) -> None:
            del x

        use(image(np.nan))
        assert check(image(-1.0), Bright) is not None


@pytest.mark.violation
def test_mode_warn_warns_of_a_value_and_goes_on() -> None:
    def places() -> tuple[Callable[[], Tensor], ...]:  # each warns once
        return (
            lambda: check(image(np.nan), Annotated[Image, Finite]),
            lambda: check(image(np.nan), Annotated[Image, Finite]),
        )

    with mode("warn"), pytest.warns(ContractWarning, match="not finite"):
        assert places()[os.environ["SHAPECHECK_ENGINE"] == "compiled"]().isnan().all()


@contextlib.contextmanager
def fakes() -> Iterator[Callable[[], Tensor]]:
    with FakeTensorMode():
        yield lambda: torch.zeros(SHAPE)


@contract
def half(x: Bright) -> Bright:
    return x / 2


def test_tensors_without_data_are_not_asked() -> None:
    @contract
    def local(x: Bright) -> Bright:
        return x / 2

    assert local(torch.empty(SHAPE, device="meta")).is_meta
    with fakes() as make:
        assert local(make()).shape == SHAPE


def test_values_are_not_asked_while_a_graph_is_traced() -> None:
    @contract
    def local(x: Bright, others: list[Bright]) -> Bright:
        return x - others[0]

    compiled = torch.compile(local, backend="eager", fullgraph=True)
    assert compiled(image(), [image()]).sum() == 0
    exported = torch.export.export(Halving(), (image(),))
    assert exported.module()(image(-2.0)).sum() == -12


@pytest.mark.violation
def test_shapes_are_checked_where_values_cannot_be() -> None:
    @contract
    def local(x: Bright, y: Bright) -> Bright:
        return x + y

    with pytest.raises(ContractError, match="axis 1 is 5"):
        local(torch.empty(SHAPE, device="meta"), torch.empty(3, 5, device="meta"))
    with pytest.raises(ContractError, match="axis 1 is 5"):
        torch.compile(local, backend="eager", fullgraph=True)(image(), torch.ones(3, 5))


class Halving(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return half(x)


def test_values_are_not_asked_inside_transforms() -> None:
    @contract
    def total(x: Annotated[Float32[Tensor, " n"], Positive]) -> Float32[Tensor, ""]:
        return x.sum()

    rows = -torch.ones(SHAPE)
    assert torch.equal(torch.vmap(total)(rows), rows.sum(1))
    assert torch.equal(torch.func.grad(total)(rows[0]), torch.ones(4))
