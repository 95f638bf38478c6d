"""Contracts on data: the items of a dataset, what a collate function makes of them, what a loader hands out.

One `BatchContract` is declared and used by the loader, by the Lightning callback (`shapecheck.lightning`) and by hand.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from torch.utils.data import DataLoader, IterableDataset

from ._batches.loading import CheckedCollate, CheckedDataset, CheckedLoader, CheckedStream, Where, checked_batches
from ._location import caller_frame, location_of, location_of_frame, name_of_frame
from ._settings import Mode, mode_at_call, mode_at_definition
from .errors import ContractDefinitionError, ContractError, Location

if TYPE_CHECKING:
    from ._batches.batch import Part

__all__ = ["BatchContract"]

T = TypeVar("T")

_WITHOUT_RECORDS = {"builtins", "jaxtyping"}
_Role = Literal["batch", "item", "items"]
_Place = tuple[str, Location | None, str]


class BatchContract:
    """What every batch must be, declared once for all places that batches cross.

    Lists are accepted where a tuple of fixed length is declared, which they are not in a function's contract: torch's
    default collate function and its pinning of memory hand out lists for tuples.

    Attributes:
        annotation: What a batch must be.
        item: What an item of the dataset must be, if that is declared.
        dims: Sizes that some dims must have.
        name: What a batch is called in errors.
        boundary: What errors name as the boundary.
        defined: Where that is.
        module: Name of the module whose registry of dims counts.
        is_off: Whether checking was off where it was declared: it never holds anything to anything then.

    Args:
        annotation: Any annotation that `contract` understands, such as a TypedDict of tensors.
        item: The same for one item, as the dataset hands it out.
        dims: Sizes that some dims must have.
        name: What a batch is called in errors.
        step: A function that takes the batches, such as ``Learner.training_step``: errors then name it as the
            boundary, and not the place where the contract is declared, so that they read alike wherever it is broken.

    Raises:
        ContractDefinitionError: An annotation is malformed or cannot be checked in full, or does not use a dim.
    """

    def __init__(
        self,
        annotation: Any,
        *,
        item: Any = None,
        dims: Mapping[str, int] | None = None,
        name: str = "batch",
        step: Callable[..., Any] | None = None,
    ) -> None:
        self.annotation, self.item, self.dims, self.name = annotation, item, dict(dims or {}), name
        self.boundary, self.defined, self.module = _place_here(annotation) if step is None else _place_of(step)
        self._mode: Mode = mode_at_definition()
        self.is_off = self._mode == "off"
        self._parts: dict[_Role, Part] = {}
        if not self.is_off:
            self._part("batch")
            if item is not None:
                self._part("item")

    def __getstate__(self) -> dict[str, Any]:
        """Return what crosses to a worker that is started by spawn; what is compiled is compiled there again."""
        return {**self.__dict__, "_parts": {}}

    def check(self, batch: T) -> T:
        """Hold a batch to the contract and return it.

        Raises:
            ContractError: The batch breaks the contract; everything that is wrong with it is in one report.
        """
        __tracebackhide__ = True
        error = self.find(batch)
        if error is not None:
            raise error
        return batch

    def find(self, batch: Any, where: Where | None = None) -> ContractError | None:
        """Return what is wrong with a batch, for those who have something to do before they raise it.

        Args:
            batch: Any value.
            where: Called for a wrong batch; tells which one it is, for the report.
        """
        return self._find("batch", batch, where)

    def find_item(self, item: Any, where: Where | None = None) -> ContractError | None:
        """Return what is wrong with an item of the dataset, as `find` does."""
        return self._find("item", item, where)

    def find_items(self, items: list[Any], where: Where | None = None) -> ContractError | None:
        """Return what is wrong with items that are to be collated: each by itself, or that they disagree."""
        return self._find("items", items, where)

    def _find(self, role: _Role, value: Any, where: Where | None) -> ContractError | None:
        mode = mode_at_call(self._mode)
        if self.is_off or mode == "off":
            return None
        error = (self._parts.get(role) or self._part(role)).find(value, mode)
        if error is None:
            return None
        from ._batches.batch import located, warn_once

        error = error if where is None else located(error, where())
        return error if mode != "warn" else warn_once(error)

    def _part(self, role: _Role) -> "Part":
        from ._batches.batch import Part  # the engine is not imported when checking is off

        annotation = {"batch": self.annotation, "item": self.item, "items": list[self.item]}[role]
        name = self.name if role == "batch" else role
        boundary = self.boundary if role == "batch" else _record_name(self.item) or self.boundary
        self._parts[role] = Part(
            annotation, name, self.dims, boundary, self.defined, self.module, items=role != "batch"
        )
        return self._parts[role]

    def _leaves_alone(self) -> bool:
        return self.is_off or mode_at_definition() == "off"

    # --- what batches cross ------------------------------------------------------------------------
    def dataset(self, dataset: T) -> T:
        """Return a dataset that hands out the same items and holds each to `item`; works for streams as well.

        What is handed out for several indices at once and is no list of items is held to `annotation`.

        Args:
            dataset: Any dataset, or a sequence that serves as one.

        Returns:
            The same object when checking is off; otherwise a stand-in whose attributes are those of `dataset`.

        Raises:
            ContractDefinitionError: No annotation for items was given.
        """
        if self._leaves_alone():
            return dataset
        if self.item is None:
            msg = (
                f"Expected a batch contract with an annotation for items, got BatchContract({self.name!r}) without. "
                "Add item=..., for a dataset that hands out whole batches the annotation of the batch."
            )
            raise ContractDefinitionError(msg)
        stand_in = CheckedStream if isinstance(dataset, IterableDataset) else CheckedDataset
        return cast("T", stand_in(self, dataset))

    def collate(self, collate_fn: Callable[..., Any]) -> Callable[..., Any]:
        """Return a collate function that holds what it returns to the contract.

        Where that is wrong, or cannot be made, the items are held to `item`, and the first wrong one is reported.
        """
        return (
            collate_fn if self._leaves_alone() else CheckedCollate(self, collate_fn, "what the collate function made")
        )

    def loader(self, loader: T) -> T:
        """Hold every batch of a loader to the contract.

        The check of a `DataLoader` is part of its collate function: it runs in the workers, where there are any, while
        the model computes, and it stays when Lightning or accelerate make a new loader from the attributes of this one.
        Whatever else can be iterated over is checked by who iterates.

        Args:
            loader: A `DataLoader`, or any other iterable of batches, such as a batch sampler.

        Returns:
            The same `DataLoader`; for anything else that can be iterated over a stand-in, unless checking is off.

        Raises:
            ValueError: The workers of the loader were started already, with the collate function as it was.
        """
        if self._leaves_alone():
            return loader
        if isinstance(loader, Iterator):
            return cast("T", checked_batches(self, cast("Iterator[Any]", loader)))
        if not isinstance(loader, DataLoader):
            return cast("T", CheckedLoader(self, loader))
        self._hold(cast("Any", loader))
        return cast("T", loader)

    def _hold(self, loader: Any) -> None:
        collate = loader.collate_fn
        if isinstance(collate, CheckedCollate) and collate.contract is self:
            return
        if getattr(loader, "_iterator", None) is not None:
            msg = "Expected a loader whose workers were not started yet. Put the contract on it before its first batch."
            raise ValueError(msg)
        loader.collate_fn = CheckedCollate(self, collate, "a batch of the loader")


def _place_here(annotation: Any) -> _Place:
    """Return where a contract is declared, by the name of its record where it is one."""
    frame = caller_frame()
    boundary = _record_name(annotation) or name_of_frame(frame)
    return boundary, location_of_frame(frame), frame.f_globals.get("__name__", "")


def _record_name(annotation: Any) -> str | None:
    if not isinstance(annotation, type) or annotation.__module__.partition(".")[0] in _WITHOUT_RECORDS:
        return None
    return f"{annotation.__module__}.{annotation.__qualname__}"


def _place_of(step: Callable[..., Any]) -> _Place:
    function = inspect.unwrap(step)
    return f"{function.__module__}.{function.__qualname__}", location_of(function), function.__module__
