"""What stands between a dataset and who uses its batches: the stand-ins in which a batch contract is checked.

The places are those of torch: items leave a dataset, a collate function makes a batch of them, a loader hands it out.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, Protocol, cast

from torch.utils.data import Dataset, IterableDataset, get_worker_info

from ..errors import ContractError

_FETCH = "torch.utils.data._utils.fetch"  # the module in which a loader asks for items
_MOST_INDICES = 8

Where = Callable[[], str]  # tells which batch or item it is, for a wrong one


class Finder(Protocol):
    """The part of a batch contract that is needed here; what it finds, it returns to be raised."""

    item: Any

    def find(self, batch: Any, where: Where | None = None) -> ContractError | None:
        """Return what is wrong with a batch."""
        ...

    def find_item(self, item: Any, where: Where | None = None) -> ContractError | None:
        """Return what is wrong with an item."""
        ...

    def find_items(self, items: list[Any], where: Where | None = None) -> ContractError | None:
        """Return what is wrong with items taken together."""
        ...


# --- collate functions -----------------------------------------------------------------------------
class CheckedCollate:
    """A collate function whose batches are checked; the items are looked at only when something is wrong."""

    def __init__(self, contract: Finder, collate: Callable[..., Any], what: str) -> None:
        self.contract = contract
        self._collate = collate
        self._what = what

    def __call__(self, samples: Any) -> Any:
        __tracebackhide__ = True
        try:
            batch = self._collate(samples)
        except Exception as failure:
            error = self._wrong_item(samples, failure)
            if error is None:
                raise
            raise error from None
        wrong = self.contract.find(batch, lambda: self._where(samples))
        if wrong is not None:
            raise self._wrong_item(samples, None) or wrong
        return batch

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._collate, name)

    def _where(self, samples: Any) -> str:
        batched, index = _fetched()
        if not batched or isinstance(samples, list):
            named = f", made of {_items_named([index for index, _ in self._items(samples)])}"
        else:  # the dataset made the batch
            named = f", made of {_items_named(list(index))}"
        return f"{self._what}{named}{_in_worker()}"

    def _items(self, samples: Any) -> list[tuple[Any, Any]]:
        """Return what is being collated, each item with its index; without one where nobody knows it."""
        batched, index = _fetched()
        if batched is False:
            return [(index, samples)]
        if not isinstance(samples, list):
            return []
        items = cast("list[Any]", samples)
        return list(zip([None] * len(items) if batched is None else index, items, strict=False))

    def _wrong_item(self, samples: Any, failure: Exception | None) -> ContractError | None:
        """Return what is wrong with the first wrong item, or with all of them taken together, if anything."""
        if self.contract.item is None or isinstance(failure, ContractError):
            return None
        after = "" if failure is None else f", after the collate function raised {type(failure).__name__}"
        items = self._items(samples)
        for position, (index, sample) in enumerate(items):
            which = f"item {position} of the batch" if index is None else f"item {index} of the dataset"
            error = self.contract.find_item(sample, lambda which=which: f"{which}{_in_worker()}{after}")
            if error is not None:
                return error
        if failure is None or len(items) < 2:
            return None
        named = _items_named([index for index, _ in items])
        return self.contract.find_items([sample for _, sample in items], lambda: f"{named}{_in_worker()}{after}")


def _fetched() -> tuple[bool | None, Any]:
    """Return whether a loader is fetching several items at this moment, and their indices, which it tells nobody.

    Returns:
        None and None where no loader is.
    """
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    while frame is not None and frame.f_globals.get("__name__") != _FETCH:
        frame = frame.f_back
    if frame is None:
        return None, None
    return frame.f_locals["self"].auto_collation, frame.f_locals["possibly_batched_index"]


def _items_named(indices: Sequence[Any]) -> str:
    """Return ``items 3 to 5``, ``items 3, 7 and 9``, ``item 3`` or, where nobody knows their indices, their number."""
    known = [str(index) for index in indices if index is not None]
    if not known:
        return f"{len(indices)} item{'s'[: len(indices) != 1]}"
    if len(known) == 1:
        return f"item {known[0]}"
    first = indices[0]
    if isinstance(first, int) and list(indices) == list(range(first, first + len(indices))):
        return f"items {known[0]} to {known[-1]}"
    if len(known) > _MOST_INDICES:
        known[_MOST_INDICES - 1 :] = [f"{len(known) - _MOST_INDICES + 1} more"]
    return f"items {', '.join(known[:-1])} and {known[-1]}"


def _in_worker() -> str:
    worker = get_worker_info()
    return "" if worker is None else f", in worker {worker.id} of {worker.num_workers}"


# --- stand-ins -------------------------------------------------------------------------------------
class _StandIn:
    """Has the attributes of what it stands for, also those that others set on it."""

    _contract: Finder
    _real: Any

    def __init__(self, contract: Finder, real: Any) -> None:
        self.__dict__.update(_contract=contract, _real=real)

    def __len__(self) -> int:
        return len(self._real)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what Python looks for before there is anything to delegate to
            raise AttributeError(name)
        return getattr(self._real, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._real, name, value)


class CheckedDataset(_StandIn, Dataset[Any]):
    """A dataset whose items are checked, by index or several at once."""

    def __getitem__(self, index: Any) -> Any:
        __tracebackhide__ = True
        return self._checked(self._real[index], index)

    @property
    def __getitems__(self) -> Callable[[Any], Any] | None:
        """The way to get several items at once, which loaders look for and not every dataset has."""
        return self._several if callable(getattr(self._real, "__getitems__", None)) else None

    def _several(self, indices: Any) -> Any:
        __tracebackhide__ = True
        items = self._real.__getitems__(indices)
        if not isinstance(items, list):
            return self._checked(items, indices)
        several = cast("list[Any]", items)
        return [self._checked(item, index) for item, index in zip(several, indices, strict=True)]

    def _checked(self, value: Any, index: Any) -> Any:
        __tracebackhide__ = True
        if isinstance(index, (slice, Sequence)) and not isinstance(index, str):
            named = f"items {index}" if isinstance(index, slice) else _items_named(cast("Sequence[Any]", index))
            error = self._contract.find(value, lambda: f"what the dataset made of {named}{_in_worker()}")
        else:
            error = self._contract.find_item(value, lambda: f"item {index} of the dataset{_in_worker()}")
        if error is not None:
            raise error
        return value


class CheckedStream(_StandIn, IterableDataset[Any]):
    """An iterable dataset whose items are checked; each worker counts its own."""

    def __iter__(self) -> Iterator[Any]:
        __tracebackhide__ = True
        for position, item in enumerate(self._real):
            error = self._contract.find_item(
                item, lambda position=position: f"item {position} of the stream{_in_worker()}"
            )
            if error is not None:
                raise error
            yield item


class CheckedLoader(_StandIn):
    """Anything whose batches are checked by who iterates."""

    def __iter__(self) -> Iterator[Any]:
        return checked_batches(self._contract, iter(self._real))


def checked_batches(contract: Finder, batches: Iterator[Any]) -> Iterator[Any]:
    """Yield batches that were checked."""
    __tracebackhide__ = True
    for position, batch in enumerate(batches):
        error = contract.find(batch, lambda position=position: f"batch {position} of the loader")
        if error is not None:
            raise error
        yield batch
