"""Batches, items, collate functions and loaders: what is let through, what is stopped, and what the message says."""

import copy
import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypedDict

import numpy as np
import pytest
import torch
from jaxtyping import Float32, Int64
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    StackDataset,
    Subset,
    default_collate,
    get_worker_info,
)

import shapecheck
from shapecheck import ContractDefinitionError, ContractError, ContractWarning, contract
from shapecheck.data import BatchContract

H, W, N_ITEMS = 5, 6, 7


class Item(TypedDict):
    image: Float32[Tensor, "C H W"]
    offset: Float32[Tensor, "C 1 2"]


class Batch(TypedDict):
    image: Float32[Tensor, "B C H W"]
    offset: Float32[Tensor, "B C 1 2"]


def make_item(channels: int = 4, *, drifted: bool = False) -> dict[str, Tensor]:
    offset = torch.arange(2.0 * channels).reshape(channels, 1, 2)
    return {"image": torch.zeros(channels, H, W), "offset": offset.permute(1, 2, 0) if drifted else offset}


def make_batch(n_items: int = 3, channels: int = 4, *, drifted: bool = False) -> dict[str, Tensor]:
    return default_collate([make_item(channels, drifted=drifted) for _ in range(n_items)])


class Scans(Dataset[Any]):
    """Items of which some, or all, have channel-last offsets."""

    def __init__(self, drifted: range = range(0), channels: int = 4) -> None:
        self.drifted = drifted
        self.channels = channels

    def __len__(self) -> int:
        return N_ITEMS

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < N_ITEMS:
            raise IndexError(index)
        return make_item(self.channels, drifted=index in self.drifted)


class ScansAtOnce(Scans):
    """Hands out lists of items, as HuggingFace datasets do."""

    def __getitems__(self, indices: list[int]) -> list[dict[str, Tensor]]:
        return [self[index] for index in indices]


class Stream(IterableDataset[Any]):
    """Hands out its part of the items in each worker."""

    def __init__(self, drifted: range = range(0)) -> None:
        self.drifted = drifted
        self.start, self.step = 0, 1

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for index in range(self.start, N_ITEMS, self.step):
            yield make_item(drifted=index in self.drifted)


def shard(worker: int) -> None:
    """Split a stream between the workers, in the way that torch documents."""
    info = get_worker_info()
    info.dataset.start, info.dataset.step = worker, info.num_workers


ALL = range(N_ITEMS)


def batches(*, item: Any = None, dims: dict[str, int] | None = None) -> BatchContract:
    return BatchContract(Batch, item=item, dims=dims or {"C": 4})


def caught(call: Callable[[], Any]) -> str:
    with pytest.raises(ContractError) as error:
        call()
    return str(error.value)


def drain(loader: Any) -> None:
    """Iterate to the end, and stop the workers at an error; torch takes five seconds for each if nobody does."""
    iterator = iter(loader)
    try:
        for _ in iterator:
            pass
    finally:
        getattr(iterator, "_shutdown_workers", int)()


def checked_line(text: str) -> str:
    return next(line for line in text.splitlines() if line.startswith("  checked ")).removeprefix("  checked    ")


def sizes(loader: Any) -> list[int]:
    return [len(batch["image"]) for batch in loader]


@pytest.fixture(params=["compiled", "reference"])
def both_engines(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHAPECHECK_ENGINE", request.param)
    if shapecheck.enabled():
        from shapecheck._boundaries.check import _checkers

        _checkers.clear()


# --- a batch ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.usefixtures("both_engines")
def test_a_batch_in_order_is_returned_as_it_is(channels: int) -> None:
    batch = make_batch(channels=channels)
    assert batches(dims={"C": channels}).check(batch) is batch


@pytest.mark.violation
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.usefixtures("both_engines")
def test_a_batch_with_drifted_axes_is_stopped_and_its_path_named(channels: int) -> None:
    bad = make_batch(channels=channels, drifted=True)
    text = caught(lambda: batches(dims={"C": channels}).check(bad))
    assert "parameter \"batch['offset']\"" in text.splitlines()[0]


@pytest.mark.violation
def test_everything_that_is_wrong_with_a_batch_is_in_one_report() -> None:
    bad = {"imagse": torch.zeros(3, 4, H, W), "offset": torch.zeros(3, 1, 2, 4), "extra": 1}
    text = caught(lambda: batches().check(bad))
    for named in ("'image'", "'imagse'", "'extra'", "batch['offset']"):
        assert named in text


@pytest.mark.violation
def test_a_size_that_is_given_is_held_to_even_when_the_batch_agrees_with_itself() -> None:
    text = caught(lambda: batches().check(make_batch(channels=1)))
    assert "C=4 (tied to dims['C'])" in text
    assert batches(dims={"C": 1}).check(make_batch(channels=1))


@pytest.mark.violation
def test_a_step_that_takes_the_batches_is_named_as_the_boundary() -> None:
    class Learner:
        @contract
        def training_step(self, batch: Batch) -> None: ...

    declared = BatchContract(Batch, step=Learner.training_step)
    bad = make_batch(drifted=True)
    at_the_step = caught(lambda: Learner().training_step(bad)).splitlines()[0]
    assert caught(lambda: declared.check(bad)).splitlines()[0] == at_the_step
    loader = declared.loader(DataLoader(Scans(ALL), batch_size=3))
    assert caught(lambda: drain(loader)).splitlines()[0] == at_the_step
    assert "Learner.training_step, parameter" in at_the_step


@pytest.mark.violation
def test_the_record_or_the_place_of_the_declaration_is_the_boundary_where_there_is_no_step() -> None:
    text = caught(lambda: batches().check(make_batch(drifted=True)))
    assert f"{__name__}.Batch, parameter" in text.splitlines()[0]
    assert "test_data.py" in text
    here = test_the_record_or_the_place_of_the_declaration_is_the_boundary_where_there_is_no_step.__name__
    text = caught(lambda: BatchContract(Float32[Tensor, "B C 1 2"]).check(torch.zeros(3, 1, 2, 4)))
    assert f"{__name__}.{here}" in text.splitlines()[0]


# --- lists for tuples --------------------------------------------------------------------------------
Pair = tuple[Float32[Tensor, "B C H W"], tuple[Float32[Tensor, "B C 1 2"], Int64[Tensor, " B"]]]


class Nested(TypedDict):
    pair: list[Pair]
    other: int


def as_collated(item: Any) -> list[Any]:
    return default_collate([item] * 3)


def test_lists_are_accepted_for_tuples_because_torch_makes_them() -> None:
    batch = as_collated((torch.zeros(4, H, W), (torch.zeros(4, 1, 2), 1)))
    assert [type(batch), type(batch[1])] == [list, list]
    assert BatchContract(Pair).check(batch) is batch
    nested = {"pair": [batch, batch], "other": 1}
    assert BatchContract(Nested).check(nested) is nested
    assert BatchContract(Pair | None).check(batch) is batch


@pytest.mark.violation
def test_lists_with_wrong_tensors_or_lengths_are_stopped_all_the_same() -> None:
    good = as_collated((torch.zeros(4, H, W), (torch.zeros(4, 1, 2), 1)))
    BatchContract(Pair).check(good)
    drifted = as_collated((torch.zeros(4, H, W), (torch.zeros(1, 2, 4), 1)))
    assert "batch[1][0]" in caught(lambda: BatchContract(Pair).check(drifted)).splitlines()[0]
    assert "it has 3 items, the contract says 2" in caught(lambda: BatchContract(Pair).check([*good, 1]))
    assert "it has 1 items, the contract says 2" in caught(lambda: BatchContract(Pair).check(good[:1]))


@pytest.mark.violation
def test_the_contract_of_a_function_still_tells_lists_from_tuples() -> None:
    @contract
    def step(batch: Pair) -> None: ...

    batch = as_collated((torch.zeros(4, H, W), (torch.zeros(4, 1, 2), 1)))
    step((batch[0], tuple(batch[1])))
    caught(lambda: step(batch))


# --- batches of every kind ---------------------------------------------------------------------------
class Named(NamedTuple):
    image: Float32[Tensor, "B C H W"]
    label: Int64[Tensor, " B"]


class Arrays(TypedDict):
    image: Float32[np.ndarray, "B H W"]


KINDS: dict[str, tuple[Any, Any, Any]] = {
    "tensor": (Float32[Tensor, "B C 1 2"], torch.zeros(3, 4, 1, 2), torch.zeros(3, 1, 2, 4)),
    "array": (Arrays, {"image": np.zeros((3, H, W), np.float32)}, {"image": np.zeros((3, H, W))}),
    "named tuple": (
        Named,
        Named(torch.zeros(3, 4, H, W), torch.zeros(3, dtype=torch.int64)),
        Named(torch.zeros(3, 4, H, W), torch.zeros(4, dtype=torch.int64)),
    ),
    "nested": (
        dict[str, list[Float32[Tensor, "B C"]]],
        {"a": [torch.zeros(3, 4)] * 2, "b": [torch.zeros(3, 4)]},
        {"a": [torch.zeros(3, 4)] * 2, "b": [torch.zeros(4, 3)]},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_batches_of_every_kind_are_let_through(kind: str) -> None:
    annotation, good, _ = KINDS[kind]
    assert BatchContract(annotation).check(good) is good


@pytest.mark.violation
@pytest.mark.parametrize("kind", KINDS)
def test_batches_of_every_kind_are_stopped(kind: str) -> None:
    annotation, _, bad = KINDS[kind]
    assert "batch" in caught(lambda: BatchContract(annotation).check(bad)).splitlines()[0]


# --- loaders -----------------------------------------------------------------------------------------
LOADERS: dict[str, Callable[[Dataset[Any]], DataLoader[Any]]] = {
    "plain": lambda dataset: DataLoader(dataset, batch_size=3),
    "two workers": lambda dataset: DataLoader(dataset, batch_size=3, num_workers=2),
    "persistent workers": lambda dataset: DataLoader(dataset, batch_size=3, num_workers=1, persistent_workers=True),
    "batch sampler": lambda dataset: DataLoader(
        dataset, batch_sampler=BatchSampler(SequentialSampler(dataset), 3, False)
    ),
    "sampler": lambda dataset: DataLoader(dataset, batch_size=3, sampler=list(range(N_ITEMS))),
    "batches from a dataset": lambda dataset: DataLoader(Subset(dataset, range(N_ITEMS)), batch_size=3),
    "shuffled": lambda dataset: DataLoader(dataset, batch_size=3, sampler=RandomSampler(dataset)),
}


@pytest.mark.parametrize("make", LOADERS.values(), ids=LOADERS)
def test_a_loader_hands_out_the_same_batches_also_the_last_one_of_one_item(make: Callable[..., Any]) -> None:
    loader = make(Scans())
    assert batches(item=Item).loader(loader) is loader
    assert [sizes(loader), sizes(loader)] == [[3, 3, 1], [3, 3, 1]]


@pytest.mark.violation
@pytest.mark.parametrize("make", LOADERS.values(), ids=LOADERS)
def test_a_loader_stops_a_drifted_batch(make: Callable[..., Any]) -> None:
    text = caught(lambda: drain(batches().loader(make(Scans(ALL)))))
    assert "parameter \"batch['offset']\"" in text.splitlines()[0]
    assert "permute(0, 3, 1, 2)" in text
    assert checked_line(text).startswith("a batch of the loader, made of items ")


@pytest.mark.violation
def test_the_error_names_the_items_of_the_batch_and_the_worker() -> None:
    assert checked_line(caught(lambda: drain(batches().loader(DataLoader(Scans(ALL), batch_size=3))))) == (
        "a batch of the loader, made of items 0 to 2"
    )
    late = DataLoader(Scans(range(6, 7)), batch_size=3, num_workers=2)
    text = caught(lambda: drain(batches().loader(late)))
    assert checked_line(text) == "a batch of the loader, made of item 6, in worker 0 of 2"
    assert text.splitlines()[-1] == "  raised in  DataLoader worker process 0"
    chosen = DataLoader(Scans(ALL), batch_sampler=[[5, 1, 2]])
    assert checked_line(caught(lambda: drain(batches().loader(chosen)))).endswith("made of items 5, 1 and 2")
    many = DataLoader(Scans(ALL), batch_sampler=[[index % 7 for index in range(0, 40, 2)]])
    assert checked_line(caught(lambda: drain(batches().loader(many)))).endswith("items 0, 2, 4, 6, 1, 3, 5 and 13 more")


@pytest.mark.violation
def test_with_an_annotation_for_items_the_wrong_item_is_named() -> None:
    text = caught(lambda: drain(batches(item=Item).loader(DataLoader(Scans(range(1, 7)), batch_size=4))))
    assert "parameter \"item['offset']\"" in text.splitlines()[0]
    assert checked_line(text) == "item 1 of the dataset, after the collate function raised RuntimeError"
    in_worker = DataLoader(Scans(range(3, 6)), batch_size=3, num_workers=2)
    text = caught(lambda: drain(batches(item=Item).loader(in_worker)))
    assert checked_line(text) == "item 3 of the dataset, in worker 1 of 2"


@pytest.mark.violation
def test_items_that_are_right_one_by_one_and_disagree_are_reported_together() -> None:
    class Growing(Scans):
        def __getitem__(self, index: int) -> dict[str, Tensor]:
            return make_item(2 + index)

    declared = BatchContract(Batch, item=Item)
    text = caught(lambda: drain(declared.loader(DataLoader(Growing(), batch_size=2))))
    assert "items[1]['image']" in text
    assert checked_line(text) == "items 0 to 1, after the collate function raised RuntimeError"


def test_an_error_of_the_collate_function_itself_is_not_hidden() -> None:
    def broken(items: list[Any]) -> Any:
        raise KeyError(len(items))

    loader = batches(item=Item).loader(DataLoader(Scans(), batch_size=3, collate_fn=broken))
    with pytest.raises(KeyError):
        list(loader)


@pytest.mark.violation
def test_a_loader_without_batching_is_checked_item_by_item() -> None:
    declared = BatchContract(Item, item=Item, dims={"C": 4})
    assert len(list(declared.loader(DataLoader(Scans(), batch_size=None)))) == N_ITEMS
    text = caught(lambda: drain(declared.loader(DataLoader(Scans(range(5, 6)), batch_size=None))))
    assert checked_line(text) == "item 5 of the dataset"
    text = caught(lambda: drain(BatchContract(Item).loader(DataLoader(Scans(range(5, 6)), batch_size=None))))
    assert checked_line(text) == "a batch of the loader, made of item 5"


@pytest.mark.usefixtures("importable_tests")
@pytest.mark.slow
def test_workers_started_by_spawn_hand_out_the_same_batches() -> None:
    loader = DataLoader(Scans(), batch_size=3, num_workers=1, multiprocessing_context="spawn")
    assert sizes(batches(item=Item).loader(loader)) == [3, 3, 1]


@pytest.mark.usefixtures("importable_tests")
@pytest.mark.slow
@pytest.mark.violation
def test_workers_started_by_spawn_check_too() -> None:
    loader = DataLoader(Scans(ALL), batch_size=3, num_workers=1, multiprocessing_context="spawn")
    text = caught(lambda: drain(batches(item=Item).loader(loader)))
    assert "parameter \"item['offset']\"" in text.splitlines()[0]
    assert checked_line(text) == "item 0 of the dataset, in worker 0 of 1"


@pytest.mark.violation
def test_a_loader_that_is_made_anew_from_the_attributes_of_another_is_checked_too() -> None:
    first = batches().loader(DataLoader(Scans(ALL), batch_size=3))
    second = DataLoader(first.dataset, batch_size=2, collate_fn=first.collate_fn)
    assert checked_line(caught(lambda: drain(second))).endswith("items 0 to 1")


@pytest.mark.violation
def test_a_contract_on_a_loader_twice_is_checked_once_and_two_contracts_both() -> None:
    declared = batches()
    loader = declared.loader(DataLoader(Scans(), batch_size=3))
    collate = loader.collate_fn
    assert declared.loader(loader).collate_fn is collate
    batches(dims={"C": 3}).loader(loader)
    assert "C=3" in caught(lambda: drain(loader))


@pytest.mark.violation
def test_a_loader_whose_workers_run_already_is_refused() -> None:
    loader = DataLoader(Scans(), batch_size=3, num_workers=1, persistent_workers=True)
    assert sizes(loader) == [3, 3, 1]
    with pytest.raises(ValueError, match="workers were not started yet"):
        batches().loader(loader)


def test_attributes_of_the_collate_function_are_still_found() -> None:
    class Padding:
        pad = 7

        def __call__(self, items: list[Any]) -> Any:
            return default_collate(items)

    collate = batches().collate(Padding())
    assert collate.pad == 7
    assert not hasattr(collate, "fill")
    assert sizes([collate([make_item()] * 2)]) == [2]


@pytest.mark.violation
def test_a_collate_function_by_itself_is_checked() -> None:
    collate = batches(item=Item).collate(default_collate)
    assert sizes([collate([make_item()] * 2)]) == [2]
    text = caught(lambda: collate([make_item(), make_item(drifted=True)]))
    assert checked_line(text) == "item 1 of the batch, after the collate function raised RuntimeError"
    text = caught(lambda: batches().collate(default_collate)([make_item(drifted=True)] * 2))
    assert checked_line(text) == "what the collate function made, made of 2 items"


# --- other iterables ---------------------------------------------------------------------------------
def test_any_iterable_of_batches_can_be_checked() -> None:
    several = [make_batch(3), make_batch(1)]
    loader = batches().loader(several)
    assert [len(loader), sizes(loader), sizes(loader)] == [2, [3, 1], [3, 1]]
    assert sizes(batches().loader(iter(several))) == [3, 1]
    assert sizes(batches().loader(batch for batch in several)) == [3, 1]


@pytest.mark.violation
def test_an_iterable_with_a_wrong_batch_is_stopped_there() -> None:
    several = [make_batch(3), make_batch(3, drifted=True)]
    assert checked_line(caught(lambda: drain(batches().loader(several)))) == "batch 1 of the loader"
    assert checked_line(caught(lambda: drain(batches().loader(iter(several))))) == "batch 1 of the loader"


@pytest.mark.violation
def test_the_batches_of_a_sampler_are_checked_like_any_others() -> None:
    indices = BatchContract(list[int], name="indices")
    sampler = indices.loader(BatchSampler(SequentialSampler(range(N_ITEMS)), 3, drop_last=False))
    assert sizes(DataLoader(Scans(), batch_sampler=sampler)) == [3, 3, 1]
    assert [len(sampler), sampler.batch_size] == [3, 3]
    wrong = indices.loader([[0, 1], [torch.tensor(2)]])
    assert "indices" in caught(lambda: drain(DataLoader(Scans(), batch_sampler=wrong))).splitlines()[0]


# --- datasets ----------------------------------------------------------------------------------------
def test_a_checked_dataset_behaves_like_the_dataset() -> None:
    dataset = batches(item=Item).dataset(Scans())
    assert [len(dataset), dataset.channels, len(list(dataset))] == [N_ITEMS, 4, N_ITEMS]
    dataset.channels = 4
    assert torch.equal(dataset[2]["offset"], Scans()[2]["offset"])
    assert isinstance(dataset, Dataset)
    assert sizes(DataLoader(dataset, batch_size=3)) == [3, 3, 1]
    assert sizes(DataLoader(batches(item=Item).dataset(ScansAtOnce()), batch_size=3)) == [3, 3, 1]
    with pytest.raises(AttributeError):
        _ = dataset.missing


COMPOSED: dict[str, Callable[[Any], Any]] = {
    "map": lambda dataset: dataset,
    "subset": lambda dataset: Subset(dataset, range(N_ITEMS)),
    "concatenated": lambda dataset: ConcatDataset([dataset, dataset]),
    "stacked": lambda dataset: StackDataset(first=dataset, second=dataset),
}


@pytest.mark.violation
@pytest.mark.parametrize("kind", [Scans, ScansAtOnce])
@pytest.mark.parametrize("compose", COMPOSED.values(), ids=COMPOSED)
def test_a_wrong_item_is_stopped_where_it_leaves_the_dataset(kind: type[Scans], compose: Callable[..., Any]) -> None:
    good = compose(batches(item=Item).dataset(kind()))
    assert len(list(DataLoader(good, batch_size=3)))
    bad = compose(batches(item=Item).dataset(kind(range(4, 5))))
    text = caught(lambda: drain(DataLoader(bad, batch_size=3)))
    assert "parameter \"item['offset']\"" in text.splitlines()[0]
    assert checked_line(text) == "item 4 of the dataset"


@pytest.mark.violation
def test_what_a_dataset_makes_of_several_indices_at_once_is_held_to_the_batch() -> None:
    class Table(Dataset[Any]):
        """Whole batches, as a table of tensors hands them out."""

        def __init__(self, drifted: bool) -> None:
            self.drifted = drifted

        def __len__(self) -> int:
            return N_ITEMS

        def __getitem__(self, index: Any) -> Any:
            return make_batch(len(range(N_ITEMS)[index] if isinstance(index, slice) else index), drifted=self.drifted)

        __getitems__ = __getitem__

    def as_it_is(batch: Any) -> Any:
        return batch

    declared = batches(item=Item)
    assert sizes(DataLoader(declared.dataset(Table(False)), batch_size=3, collate_fn=as_it_is)) == [3, 3, 1]
    bad = declared.dataset(Table(True))
    text = caught(lambda: drain(DataLoader(bad, batch_size=3, collate_fn=as_it_is)))
    assert checked_line(text) == "what the dataset made of items 0 to 2"
    assert checked_line(caught(lambda: bad[1:3])) == "what the dataset made of items slice(1, 3, None)"
    whole = declared.loader(DataLoader(Table(True), batch_size=3, collate_fn=as_it_is))
    assert checked_line(caught(lambda: drain(whole))) == "a batch of the loader, made of items 0 to 2"


def test_a_stream_is_split_between_workers_by_who_sets_its_attributes() -> None:
    stream = batches(item=Item).dataset(Stream())
    assert isinstance(stream, IterableDataset)
    loader = batches().loader(DataLoader(stream, batch_size=3, num_workers=2, worker_init_fn=shard))
    assert sum(sizes(loader)) == N_ITEMS


@pytest.mark.violation
def test_a_wrong_item_of_a_stream_is_stopped_and_counted() -> None:
    text = caught(lambda: drain(DataLoader(batches(item=Item).dataset(Stream(range(5, 6))), batch_size=3)))
    assert checked_line(text) == "item 5 of the stream"
    stream = batches(item=Item).dataset(Stream(range(5, 6)))
    loader = DataLoader(stream, batch_size=3, num_workers=2, worker_init_fn=shard)
    assert checked_line(caught(lambda: drain(loader))) == "item 2 of the stream, in worker 1 of 2"
    text = caught(lambda: drain(batches().loader(DataLoader(Stream(ALL), batch_size=3))))
    assert checked_line(text) == "a batch of the loader, made of 3 items"


# --- modes -------------------------------------------------------------------------------------------
def test_when_checking_is_off_every_wrapper_returns_what_it_was_given() -> None:
    with shapecheck.mode("off"):
        declared = batches(item=Item)
    loader, plain = DataLoader(Scans(ALL), batch_size=3), [make_batch(drifted=True)]
    collate = loader.collate_fn
    for block in ("on", "strict", "warn"):
        with shapecheck.mode(block):
            assert declared.loader(loader) is loader
            assert declared.loader(plain) is plain
            assert declared.collate(collate) is collate is loader.collate_fn
            assert declared.dataset(loader.dataset) is loader.dataset
            assert declared.check(plain[0]) is plain[0]


def test_what_is_wrapped_in_a_block_that_is_off_stays_as_it_is() -> None:
    declared, loader = batches(item=Item), DataLoader(Scans(ALL), batch_size=3)
    collate = loader.collate_fn
    with shapecheck.mode("off"):
        assert declared.loader(loader).collate_fn is collate
        assert declared.dataset(loader.dataset) is loader.dataset
    assert sizes(loader) == [3, 3, 1]


@pytest.mark.violation
def test_a_block_switches_a_checked_loader_off_and_on_again() -> None:
    loader = batches().loader(DataLoader(Scans(ALL), batch_size=3))
    with shapecheck.mode("off"):
        assert sizes(loader) == [3, 3, 1]
    caught(lambda: drain(loader))


@pytest.mark.violation
def test_warn_hands_the_wrong_batch_on_and_says_once_which_it_was() -> None:
    loader = batches().loader(DataLoader(Scans(ALL), batch_size=3))
    with shapecheck.mode("warn"), warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        assert sizes(loader) == [3, 3, 1]
    assert [warning.category for warning in given] == [ContractWarning]
    assert checked_line(str(given[0].message)) == "a batch of the loader, made of items 0 to 2"


@pytest.mark.violation
def test_strict_remembers_the_batch_that_a_function_then_rejects() -> None:
    @contract
    def shift(offset: Float32[Tensor, "B 1 2 C"]) -> None: ...

    with shapecheck.mode("strict"):
        batch = next(iter(batches().loader(DataLoader(Scans(), batch_size=3))))
        text = caught(lambda: shift(batch["offset"]))
    assert f"came from  {__name__}.Batch" in text


# --- definition, copies, other processes -------------------------------------------------------------
@pytest.mark.violation
def test_a_contract_that_can_mean_nothing_is_refused_where_it_is_declared() -> None:
    batches(item=Item)
    with pytest.raises(ContractDefinitionError, match="dim 'Q'"):
        batches(dims={"Q": 3})
    with pytest.raises(ContractDefinitionError):
        BatchContract(Float32[Tensor, "B>0"])
    with pytest.raises(ContractDefinitionError):
        BatchContract(Batch, item=list["Unknown"])  # noqa: F821
    with pytest.raises(ContractDefinitionError, match="annotation for items"):
        batches().dataset(Scans())


def test_a_dim_that_only_batches_have_is_not_asked_of_items() -> None:
    declared = BatchContract(Batch, item=Item, dims={"B": 3, "C": 4})
    assert len(list(declared.dataset(Scans()))) == N_ITEMS


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda whole: pickle.loads(pickle.dumps(whole))])
def test_a_copy_checks_what_the_original_checks(duplicate: Callable[[Any], Any]) -> None:
    declared = batches(item=Item)
    loader = duplicate(declared.loader(DataLoader(declared.dataset(Scans()), batch_size=3)))
    assert sizes(loader) == [3, 3, 1]
    if shapecheck.enabled():
        loader.dataset.drifted = ALL
        assert "item 0 of the dataset" in caught(lambda: drain(loader))


SCRIPT = """
import torch
from jaxtyping import Float32
from torch.utils.data import DataLoader
from shapecheck.data import BatchContract

class Data:
    def __len__(self): return 4
    def __getitem__(self, index): return torch.zeros(1, 2, 3)

batches = BatchContract(Float32[torch.Tensor, "B C 1 2"], dims={"C": 3})
for batch in batches.loader(DataLoader(Data(), batch_size=2, num_workers=WORKERS)):
    print(batch.shape)
"""


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=variables)


@pytest.mark.violation
@pytest.mark.parametrize("workers", [0, 1])
def test_what_the_user_sees_begins_with_our_first_line(workers: int) -> None:
    done = run(SCRIPT.replace("WORKERS", str(workers)))
    lines = done.stderr.splitlines()
    report = [line for line in lines if line.startswith("ContractError [axis-order]: ")]
    assert len(report) == 1
    assert "parameter 'batch'" in report[0]
    assert any("made of items 0 to 1" in line for line in lines)
    assert len(lines) <= 25


def test_when_checking_is_off_nothing_of_the_engine_is_imported() -> None:
    probe = "\nimport sys; print(sorted({'beartype', 'shapecheck._batches.batch', 'shapecheck._boundaries.check'} & set(sys.modules)))"
    code = SCRIPT.replace("WORKERS", "0")
    done = run(code + probe, SHAPECHECK="off")
    assert done.stdout.splitlines() == ["torch.Size([2, 1, 2, 3])"] * 2 + ["[]"]
    right = code.replace("torch.zeros(1, 2, 3)", "torch.zeros(3, 1, 2)")
    assert "shapecheck._batches.batch" in run(right + probe, SHAPECHECK="on").stdout


def test_importing_shapecheck_does_not_import_its_adapters() -> None:
    done = run("import sys, shapecheck; print({'shapecheck.data', 'shapecheck.lightning', 'torch'} & set(sys.modules))")
    assert done.stdout == "set()\n"
