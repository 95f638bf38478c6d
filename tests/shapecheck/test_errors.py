"""The error as an object: what it keeps when it is copied, pickled, sent between processes and raised again."""

import copy
import multiprocessing
import pickle
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest
import torch
from jaxtyping import Float32
from torch import Tensor
from torch._utils import ExceptionWrapper
from torch.multiprocessing.spawn import ProcessRaisedException, start_processes
from torch.utils.data import DataLoader, Dataset, IterableDataset

from shapecheck import ContractError, contract
from shapecheck._compiler.tracing import TracedContractError

pytestmark = pytest.mark.violation


@contract
def shift(img: Float32[Tensor, "n h w"], offset: Float32[Tensor, "n 1 2"]) -> Float32[Tensor, "n h w"]:
    """Stand in for a translation."""
    del offset
    return img


def shift_wrongly() -> None:
    shift(torch.zeros(4, 5, 6), torch.zeros(4, 2, 1))


FIRST_LINE = (
    f"ContractError [axis-order]: {__name__}.shift, parameter 'offset': "
    'f32[4,2,1] for Float32[Tensor, "n 1 2"], offset.permute(0, 2, 1) fits'
)


def raised_by(call: Callable[[], Any]) -> ContractError:
    with pytest.raises(ContractError) as caught:
        call()
    return caught.value


def traced_error() -> ContractError:
    """Raise an error while a graph is traced: dynamo appends to its text and hangs objects of its own on it."""
    compiled = torch.compile(lambda img, offset: shift(img * 2, offset), fullgraph=True, backend="eager")
    return raised_by(lambda: compiled(torch.zeros(4, 5, 6), torch.zeros(4, 2, 1)))


MAKERS = {"plain": lambda: raised_by(shift_wrongly), "traced": traced_error}
COPIES: dict[str, Callable[[ContractError], ContractError]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{
        f"pickle, protocol {protocol}": lambda error, protocol=protocol: pickle.loads(pickle.dumps(error, protocol))
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    },
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_copy_has_the_type_the_text_the_violations_and_the_notes(make: Callable[[], ContractError]) -> None:
    error = make()
    error.add_note("seen in epoch 3")
    for name, duplicate in COPIES.items():
        twin = duplicate(error)
        assert type(twin) is type(error), name
        assert (str(twin), twin.violations) == (str(error), error.violations), name
        assert twin.__notes__ == ["seen in epoch 3"], name


def test_a_copy_of_an_error_without_notes_has_none() -> None:
    assert not hasattr(pickle.loads(pickle.dumps(raised_by(shift_wrongly))), "__notes__")


def test_the_text_of_a_traced_error_is_ours_alone() -> None:
    error = traced_error()
    assert "from user code" in error.args[0]  # what dynamo appends
    assert str(error).splitlines()[0] == FIRST_LINE
    assert str(error).splitlines()[-1].startswith("  defined ")
    assert isinstance(error, TracedContractError)


def test_an_error_is_a_type_error_with_the_text_it_was_given() -> None:
    assert issubclass(ContractError, TypeError)
    assert (str(ContractError("text")), ContractError("text").args) == ("text", ("text",))
    assert str(ContractError()) == ""


# --- raised again, from text, by the workers of torch ---------------------------------------------
def reraised(error: BaseException, where: str) -> ContractError:
    """Do what torch does with an error of a worker: keep its traceback as text, then build it anew."""
    try:
        raise error
    except type(error):
        wrapper = ExceptionWrapper(where=where)
    return raised_by(wrapper.reraise)


def test_a_reraised_error_begins_with_our_own_text_and_names_the_worker() -> None:
    error = raised_by(shift_wrongly)
    twin = reraised(error, "in DataLoader worker process 0")
    assert type(twin) is ContractError
    assert str(twin) == f"{error}\n  raised in  DataLoader worker process 0"
    assert twin.violations == ()


def test_a_traced_error_keeps_its_type_too() -> None:
    twin = reraised(traced_error(), "in DataLoader worker process 0")
    assert type(twin) is TracedContractError
    assert str(twin).splitlines()[0] == FIRST_LINE


def test_every_place_that_an_error_was_raised_in_is_named() -> None:
    error = raised_by(shift_wrongly)
    inner = reraised(error, "in DataLoader worker process 2")
    outer = reraised(inner, "in replica 1 on device 1")
    lines = str(outer).splitlines()
    assert lines[0] == FIRST_LINE
    assert lines[-2:] == ["  raised in  DataLoader worker process 2", "  raised in  replica 1 on device 1"]
    assert len(lines) == len(str(error).splitlines()) + 2
    assert str(reraised(outer, "in pin memory thread for device 0")).count("raised in") == 3


def test_notes_cross_with_the_text() -> None:
    error = raised_by(shift_wrongly)
    error.add_note("seen in epoch 3")
    assert str(reraised(error, "in DataLoader worker process 0")).splitlines()[-2] == "seen in epoch 3"


def test_what_the_worker_was_handling_does_not_come_first() -> None:
    def work() -> None:
        try:
            shift_wrongly()
        except ContractError:
            shift(torch.zeros(4, 5, 6), torch.zeros(3, 1, 2))

    twin = reraised(raised_by(work), "in DataLoader worker process 0")
    assert str(twin).startswith(f"ContractError [axis-size]: {__name__}.shift, parameter 'offset'")


def test_a_text_that_is_not_torchs_is_left_alone() -> None:
    for text in ("Caught a cold.", "Caught ContractError in X.\nOriginal something else", f"x\n{FIRST_LINE}"):
        assert str(ContractError(text)) == text


class Broken(Dataset[Tensor]):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Tensor:
        shift_wrongly()
        return torch.zeros(index)


class BrokenStream(IterableDataset[Tensor]):
    def __iter__(self) -> Any:
        yield torch.zeros(2)
        shift_wrongly()


@pytest.mark.usefixtures("importable_tests")
@pytest.mark.parametrize(
    ("dataset", "start"),
    [(Broken(), "fork"), (BrokenStream(), "fork"), pytest.param(Broken(), "spawn", marks=pytest.mark.slow)],
    ids=["map, fork", "iterable, fork", "map, spawn"],
)
def test_a_dataloader_worker_hands_the_error_over(dataset: Any, start: str) -> None:
    loader = DataLoader(dataset, num_workers=1, batch_size=None, multiprocessing_context=start)
    error = raised_by(lambda: list(loader))
    lines = str(error).splitlines()
    assert type(error) is ContractError
    assert lines[0] == FIRST_LINE
    assert lines[-1] == "  raised in  DataLoader worker process 0"
    assert "offset.permute(0, 2, 1) satisfies the contract" in str(error)
    assert len(traceback.format_exception(error)) <= 25
    assert len("".join(traceback.format_exception(error)).splitlines()) <= 25


# --- raised again, from a pickle, by Python's own pools --------------------------------------------
def test_a_process_pool_hands_the_error_over_with_its_violations() -> None:
    here = raised_by(shift_wrongly)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        there = raised_by(pool.submit(shift_wrongly).result)
    assert type(there) is ContractError
    assert (str(there), there.violations) == (str(here), here.violations)


def test_a_pool_of_multiprocessing_hands_the_error_over_with_its_violations() -> None:
    here = raised_by(shift_wrongly)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        there = raised_by(lambda: pool.apply(shift_wrongly))
    assert (str(there), there.violations) == (str(here), here.violations)


def test_the_processes_of_torch_tell_the_whole_report(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ProcessRaisedException) as caught:
        start_processes(fail_in_process, nprocs=2, start_method="fork")
    text = str(caught.value)
    report = text[text.index("ContractError [") :]
    assert report.splitlines()[0] == FIRST_LINE
    assert report.splitlines() == str(raised_by(lambda: fail_in_process(0))).splitlines()
    assert len(text.splitlines()) <= 25
    assert capfd.readouterr().err == ""


def fail_in_process(rank: int) -> None:
    del rank
    shift_wrongly()
