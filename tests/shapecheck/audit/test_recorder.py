"""Recordings: what crosses boundaries is counted, whoever calls and in whichever process, and nothing is changed by it."""

import asyncio
import dataclasses
import gc
import json
import os
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypedDict, overload

import pytest

torch = pytest.importorskip("torch")

from jaxtyping import Float32
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import shapecheck
from shapecheck import check, contract, mode
from shapecheck._boundaries.boundary import Boundary
from shapecheck._settings import state
from shapecheck.audit import BoundaryRecord, Flow, Recording, record
from shapecheck.data import BatchContract

Image = Float32[Tensor, "h w"]
NAME = __name__


@contract
def transpose(image: Image) -> Float32[Tensor, "w h"]:
    return image.T


@contract
def join(images: list[Image], weights: Float32[Tensor, " n"]) -> Image:
    return sum(weight * image for weight, image in zip(weights, images, strict=True))


@contract
def never(image: Image) -> None: ...


@contract
def rows(image: Image, size: int) -> Iterator[Float32[Tensor, "b w"]]:
    for start in range(0, len(image), size):
        yield image[start : start + size]


@contract
async def later(image: Image) -> AsyncIterator[Float32[Tensor, " w"]]:
    for row in image:
        yield row


@contract
async def awaited(image: Image) -> Image:
    return image


@contract
def apply(image: Image, by: Callable[[Image], Float32[Tensor, " w"]]) -> Float32[Tensor, " w"]:
    return by(image)


@overload
def total(image: Image, axis: int) -> Float32[Tensor, " _"]: ...
@overload
def total(image: Image, axis: None) -> Float32[Tensor, ""]: ...
@contract
def total(image, axis):
    return image.sum() if axis is None else image.sum(axis)


@contract
@dataclasses.dataclass
class Sample:
    image: Image
    label: Float32[Tensor, ""]


class Fields(TypedDict):
    image: Float32[Tensor, "b h w"]
    offsets: Float32[Tensor, "b 1 2"]


BATCHES = BatchContract(tuple[Fields, Float32[Tensor, " b"]], dims={"h": 3})


def zeros(*shape: int) -> Tensor:
    return torch.zeros(shape)


def make_batch(b: int = 4, h: int = 3, w: int = 5) -> tuple[dict[str, Tensor], Tensor]:
    return {"image": zeros(b, h, w), "offsets": zeros(b, 1, 2)}, zeros(b)


def found(recording: Recording, name: str) -> BoundaryRecord:
    return recording.boundaries[f"{NAME}.{name}"]


def numbers(function: Callable[[], object], name: str) -> tuple[int, int, dict[str, dict[str, int]]]:
    """Calls, rejected calls and shapes of one boundary during one call of a function."""
    with record() as recording:
        function()
    known = found(recording, name)
    return known.calls, known.rejected, known.shapes


# --- what is counted ---------------------------------------------------------------------------------------
@pytest.mark.violation
def test_calls_shapes_and_sizes_are_counted() -> None:
    with record() as recording:
        for height, width in ((3, 4), (3, 4), (5, 2)):
            transpose(zeros(height, width))
    known = found(recording, "transpose")
    assert (known.calls, known.rejected, known.accepted) == (3, 0, 3)
    assert known.annotations == {"image": 'Float32[Tensor, "h w"]', "return": 'Float32[Tensor, "w h"]'}
    assert known.shapes == {"image": {"f32[3,4]": 2, "f32[5,2]": 1}, "return": {"f32[4,3]": 2, "f32[2,5]": 1}}
    assert (known.sizes, known.bound) == ({"h": [3, 5], "w": [2, 4]}, {"h": 3, "w": 3})
    assert (known.always_equal, known.told_apart) == ([], [("h", "w")])
    assert known.place.endswith(f"test_recorder.py:{transpose.__wrapped__.__code__.co_firstlineno}")


@pytest.mark.violation
def test_what_was_defined_before_is_found_called_or_not_and_so_is_what_is_defined_meanwhile() -> None:
    with record() as recording:

        @contract
        def local(image: Image) -> None: ...

        local(zeros(3, 4))
    assert found(recording, "never").calls == found(recording, "Sample").calls == 0
    assert found(recording, "never").annotations["image"] == 'Float32[Tensor, "h w"]'
    assert found(recording, "Sample").annotations == {"image": 'Float32[Tensor, "h w"]', "label": 'Float32[Tensor, ""]'}
    assert recording.boundaries[local.__module__ + "." + local.__qualname__].calls == 1
    assert found(recording, "<module> (batch)").calls == 0


@pytest.mark.violation
def test_a_rejected_call_is_a_call_whose_shapes_are_not_those_of_the_contract() -> None:
    def calls() -> None:
        transpose(zeros(3, 4))
        with pytest.raises(TypeError):
            transpose(zeros(3, 4, 5))

    calls_of, rejected, shapes = numbers(calls, "transpose")
    assert (calls_of, rejected, shapes["image"]) == (2, 1, {"f32[3,4]": 1})


@pytest.mark.violation
@pytest.mark.parametrize(
    ("call", "name", "shapes"),
    [
        (
            lambda: join([zeros(3, 4), zeros(3, 4)], zeros(2)),
            "join",
            {"images[...]": {"f32[3,4]": 2}, "weights": {"f32[2]": 1}, "return": {"f32[3,4]": 1}},
        ),
        (
            lambda: list(rows(zeros(5, 4), 2)),
            "rows",
            {"image": {"f32[5,4]": 1}, "yield": {"f32[2,4]": 2, "f32[1,4]": 1}},
        ),
        (lambda: asyncio.run(drain()), "later", {"image": {"f32[3,4]": 1}, "yield": {"f32[4]": 3}}),
        (lambda: asyncio.run(awaited(zeros(3, 4))), "awaited", {"image": {"f32[3,4]": 1}, "return": {"f32[3,4]": 1}}),
        (lambda: total(zeros(3, 4), 0), "total", {"image": {"f32[3,4]": 1}, "return": {"f32[4]": 1}}),
        (lambda: Sample(zeros(3, 4), zeros()), "Sample", {"image": {"f32[3,4]": 1}, "label": {"f32[]": 1}}),
        (
            lambda: BATCHES.check(make_batch()),
            "<module> (batch)",
            {
                "batch[0]['image']": {"f32[4,3,5]": 1},
                "batch[0]['offsets']": {"f32[4,1,2]": 1},
                "batch[1]": {"f32[4]": 1},
            },
        ),
        (lambda: check(zeros(3, 4), Image), "<lambda> (value)", {"value": {"f32[3,4]": 1}}),
    ],
    ids=["list", "generator", "async generator", "coroutine", "overload", "record", "batch", "check"],
)
def test_every_kind_of_boundary_is_recorded_by_either_engine(
    call: Callable[[], object], name: str, shapes: dict[str, dict[str, int]]
) -> None:
    assert numbers(call, name) == (1, 0, shapes)


async def drain() -> None:
    async for _ in later(zeros(3, 4)):
        pass


@pytest.mark.violation
def test_contracts_of_either_engine_and_every_mode_are_recorded(engine: str) -> None:
    del engine
    for wanted in ("on", "strict", "warn"):
        with mode(wanted):

            @contract
            def local(image: Image) -> Image:
                return image

        with record() as recording:
            local(zeros(3, 4))
        (known,) = [one for one in recording.boundaries.values() if one.name.endswith("local") and one.calls]
        assert known.shapes == {"image": {"f32[3,4]": 1}, "return": {"f32[3,4]": 1}}


@pytest.mark.violation
@pytest.mark.parametrize(
    ("name", "image", "expected"),
    [
        ("off", zeros(3, 4), (0, 0, {})),
        ("off", zeros(3), (0, 0, {})),
        ("warn", zeros(3, 4), (1, 0, {"image": {"f32[3,4]": 1}})),
        ("warn", zeros(3), (1, 1, {})),
    ],
    ids=["off, good", "off, bad", "warn, good", "warn, bad"],
)
@pytest.mark.filterwarnings("ignore::shapecheck.ContractWarning")
def test_what_is_called_with_checks_off_is_not_recorded_and_what_is_only_warned_of_is_rejected(
    name: Any, image: Tensor, expected: tuple[int, int, dict[str, dict[str, int]]]
) -> None:
    with mode(name):
        assert numbers(lambda: never(image), "never") == expected


@pytest.mark.violation
@pytest.mark.filterwarnings("ignore::shapecheck.ContractWarning")
@pytest.mark.parametrize(("shape", "rejected"), [((3, 4), 0), (None, 1)], ids=["good", "bad"])
def test_a_call_whose_expressions_stumble_is_rejected_where_it_is_only_warned_of(shape: Any, rejected: int) -> None:
    with mode("warn"):

        @contract
        def local(like: tuple[int, int], image: Float32[Tensor, "{like[0]} w"]) -> Float32[Tensor, "{like[0]} w"]:
            del like
            return image

        with record() as recording:
            local(shape, zeros(3, 4))
    (known,) = [one for one in recording.boundaries.values() if one.name.endswith("local") and one.calls]
    assert (known.calls, known.rejected) == (1, rejected)


@pytest.mark.violation
def test_what_callables_are_given_and_return_is_recorded_too() -> None:
    shapes = numbers(lambda: apply(zeros(3, 4), lambda image: image.sum(0)), "apply")[2]
    assert shapes["result of by"] == {"f32[4]": 1}
    assert shapes["argument 0 of by"] == {"f32[3,4]": 1}


@pytest.mark.violation
def test_a_ragged_axis_has_no_size_to_be_recorded() -> None:
    ragged = torch.nested.nested_tensor([zeros(3, 5), zeros(4, 5)], layout=torch.jagged)

    @contract
    def local(values: Float32[Tensor, "b n d"]) -> None: ...

    with record() as recording:
        local(ragged)
    known = recording.boundaries[f"{local.__module__}.{local.__qualname__}"]
    assert (known.calls, known.sizes, known.told_apart) == (1, {"b": [2], "d": [5]}, [("b", "d")])
    Recording.from_json(json.loads(json.dumps(recording.as_json())))


@pytest.mark.violation
def test_tensors_without_data_are_no_calls_and_it_is_said_so() -> None:
    from torch._subclasses import FakeTensorMode

    with record() as recording:
        transpose(torch.zeros(3, 4, device="meta"))
        with FakeTensorMode():
            never(torch.zeros(3, 4))
    assert found(recording, "transpose").calls == found(recording, "never").calls == 0
    assert "tensors without data" in recording.skipped[f"{NAME}.transpose"]
    assert "tensors without data" in recording.skipped[f"{NAME}.never"]


@pytest.mark.violation
def test_what_torch_compiles_works_and_is_said_not_to_be_seen() -> None:
    with record() as recording:
        compiled = torch.compile(transpose, backend="eager", fullgraph=True)
        assert [compiled(zeros(3, width)).shape for width in (4, 5)] == [(4, 3), (5, 3)]
    torch.compiler.reset()
    assert found(recording, "transpose").calls == 0
    assert "torch traced it" in recording.skipped[f"{NAME}.transpose"]


@contract
def brighter(image: Float32[Tensor, "b h w"]):
    return image + 1


@pytest.mark.violation
@pytest.mark.parametrize("function", [transpose, brighter], ids=["dims compared", "no dims compared"])
def test_a_graph_is_traced_as_if_nobody_recorded(function: Callable[[Tensor], Tensor]) -> None:
    from torch._dynamo.testing import CompileCounter

    def frames() -> int:
        torch.compiler.reset()
        counter = CompileCounter()
        compiled = torch.compile(function, backend=counter, fullgraph=True)
        for size in (3, 5, 7, 9):
            compiled(zeros(size, 4) if function is transpose else zeros(size, 4, 6))
        return counter.frame_count

    alone = frames()
    with record() as recording:
        assert frames() == alone
    torch.compiler.reset()
    assert "torch traced it" in recording.skipped[f"{NAME}.{function.__name__}"]


# --- nothing is changed by it -------------------------------------------------------------------------------
@pytest.mark.violation
def test_the_contracted_function_stays_what_it_is_and_no_call_pays_afterwards() -> None:
    before = dict(transpose.__globals__) if "_sc_slow" in transpose.__globals__ else {}
    methods = Boundary.enter, Boundary.leave
    with record():
        assert (Boundary.enter, Boundary.leave) != methods
        assert dict(transpose.__globals__) == before or not before
    assert (Boundary.enter, Boundary.leave, state.blocks) == (*methods, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Boundary, "enter", lambda *_: pytest.fail("the reference engine was asked"))
        if before:  # the compiled engine
            transpose(zeros(3, 4))


@pytest.mark.violation
@pytest.mark.parametrize(
    "call",
    [lambda: transpose(zeros(3)), lambda: Sample(zeros(3), zeros()), lambda: BATCHES.check(make_batch(h=4))],
    ids=["function", "record", "batch"],
)
def test_a_wrong_call_ends_in_the_same_error(call: Callable[[], object]) -> None:
    with pytest.raises(shapecheck.ContractError) as plain:
        call()
    with record(), pytest.raises(shapecheck.ContractError) as recorded:
        call()
    assert str(recorded.value) == str(plain.value)


@pytest.mark.violation
def test_the_mode_of_a_call_stays_what_it_is() -> None:
    with record(), mode("off"):
        assert shapecheck.enabled() is False
        transpose(zeros(3, 4))
    with record():
        assert shapecheck.enabled() is True


@pytest.mark.violation
def test_a_recording_inside_another_gets_its_part_and_the_other_everything() -> None:
    with record() as outer:
        transpose(zeros(3, 4))
        with record() as inner:
            transpose(zeros(3, 5))
        transpose(zeros(3, 4))
    assert found(inner, "transpose").shapes["image"] == {"f32[3,5]": 1}
    assert found(outer, "transpose").shapes["image"] == {"f32[3,4]": 2, "f32[3,5]": 1}


@pytest.mark.violation
def test_an_error_ends_the_recording_which_is_kept() -> None:
    recorded: list[Recording] = []

    def fail() -> None:
        with record() as recording:
            recorded.append(recording)
            transpose(zeros(3, 4))
            torch.zeros(2) + torch.zeros(3)

    with pytest.raises(RuntimeError, match="must match"):
        fail()
    (recording,) = recorded
    assert found(recording, "transpose").calls == 1
    assert state.blocks == 0


@pytest.mark.violation
def test_all_threads_are_recorded() -> None:
    def work() -> None:
        for _ in range(25):
            transpose(zeros(3, 4))

    threads = [threading.Thread(target=work) for _ in range(4)]
    with record() as recording:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found(recording, "transpose").calls == 100


@pytest.mark.violation
def test_a_recording_keeps_no_tensor_alive() -> None:
    with record():
        result = transpose(zeros(3, 4))
        dead = weakref.ref(result)
        del result
        gc.collect()
        assert dead() is None


# --- where tensors come from --------------------------------------------------------------------------------
@pytest.mark.violation
def test_a_result_that_goes_into_another_boundary_is_a_flow_also_through_views() -> None:
    with record() as recording:
        turned = transpose(zeros(3, 4))
        never(turned)
        never(turned[1:])
        never(turned + 1)  # memory of its own
    assert recording.flows == [
        Flow(f"{NAME}.transpose", f"{NAME}.never", "image", "f32[3,3]", 1),
        Flow(f"{NAME}.transpose", f"{NAME}.never", "image", "f32[4,3]", 1),
    ]


@pytest.mark.violation
def test_a_result_that_is_passed_on_is_one_of_both() -> None:
    @contract
    def outer(image: Image) -> Float32[Tensor, "w h"]:
        return transpose(image + 1)

    with record() as recording:
        never(outer(zeros(3, 4)))
    name = f"{outer.__module__}.{outer.__qualname__}"
    assert recording.flows == [
        Flow(name, f"{NAME}.never", "image", "f32[4,3]", 1),
        Flow(f"{NAME}.transpose", name, "return", "f32[4,3]", 1),
    ]


@pytest.mark.violation
def test_records_and_batches_hand_on_what_they_are_given() -> None:
    with record() as recording:
        sample = Sample(transpose(zeros(3, 4)), zeros())
        never(sample.image)
        fields, _ = BATCHES.check(make_batch())
        never(fields["image"][0])
    found_flows = {(flow.source, flow.target, flow.parameter) for flow in recording.flows}
    assert found_flows == {
        (f"{NAME}.transpose", f"{NAME}.Sample", "image"),
        (f"{NAME}.Sample", f"{NAME}.never", "image"),
        (f"{NAME}.<module> (batch)", f"{NAME}.never", "image"),
    }


# --- processes ----------------------------------------------------------------------------------------------
class Images(Dataset[Tensor]):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Tensor:
        return transpose(zeros(3, 4 + index))


@pytest.mark.violation
def test_forked_workers_are_recorded() -> None:
    with record() as outer, record() as recording:
        transpose(zeros(1, 2))
        assert len(list(DataLoader(Images(), batch_size=None, num_workers=2, multiprocessing_context="fork"))) == 6
    for one in (recording, outer):
        assert found(one, "transpose").shapes["image"] == {"f32[1,2]": 1, **{f"f32[3,{4 + i}]": 1 for i in range(6)}}
    assert "SHAPECHECK_RECORD" not in os.environ
