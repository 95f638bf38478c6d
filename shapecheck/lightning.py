"""Contracts in Lightning: a callback that holds batches to one, and a data module whose loaders are.

Works with `lightning.pytorch` and with `pytorch_lightning`, whichever the program uses; neither is imported before a
callback is made.
"""

import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, cast

from ._batches.ranks import Ranks
from ._settings import mode_at_definition
from ._traceback import install
from .data import BatchContract
from .errors import ContractDefinitionError, ContractError

__all__ = ["ContractCallback", "ContractDataModule"]

_PACKAGES = ("lightning.pytorch", "pytorch_lightning")
_STAGES = ("train", "sanity_check", "validate", "test", "predict")
_HOOKS = {
    "train_dataloader": "train",
    "val_dataloader": "validate",
    "test_dataloader": "test",
    "predict_dataloader": "predict",
}

Contracts = BatchContract | Mapping[str, BatchContract]


class ContractCallback:
    """Holds batches to a contract as the steps of the module receive them: after their transfer to the device.

    Checks the first batches of every epoch of every stage and then every n-th. When a contract of any kind ends a
    distributed run, every rank ends with the message of the rank that broke it.

    Is an instance of Lightning's own `Callback` too; when checking is off it is nothing but that.

    Args:
        contract: One for all stages, or one for each of some: ``train``, ``sanity_check`` (by default that of
            ``validate``), ``validate``, ``test``, ``predict``. Stages without one are not checked.
        first_n: How many batches at the beginning are checked.
        every_n: Afterwards those whose index is divisible by this are; None for no more.

    Raises:
        ContractDefinitionError: There is no such stage, or the numbers mean nothing.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Return an instance that is a `Callback` of the Lightning in use; a bare one when checking is off."""
        del args, kwargs
        bases = _callback_bases()
        kind: Any = bases[0] if mode_at_definition() == "off" else _as_callback(cls, bases)
        return object.__new__(kind)

    def __init__(self, contract: Contracts, *, first_n: int = 2, every_n: int | None = 50) -> None:
        if first_n < 0 or (every_n is not None and every_n < 1):
            msg = f"Expected first_n >= 0 and every_n >= 1 or None, got {first_n} and {every_n}."
            raise ContractDefinitionError(msg)
        self.contract = contract
        self.first_n = first_n
        self.every_n = every_n
        self._by_stage = _by_stage(contract)
        install(ContractError)  # before torch wraps what prints errors, to mark each line with the rank
        self._ranks: Ranks | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        plain = next(base for base in type(self).__mro__ if not getattr(base, "_is_made", False))
        return _rebuilt, (plain, self.contract, self.first_n, self.every_n)

    # --- hooks of Lightning ------------------------------------------------------------------------
    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Open the line between the ranks; all of them call this."""
        del pl_module, stage
        if trainer.world_size > 1 and _is_distributed():
            self._ranks = Ranks(trainer.global_rank, trainer.world_size, trainer.strategy.broadcast)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Close the line between the ranks."""
        del trainer, pl_module, stage
        if self._ranks is not None:
            self._ranks.close()
            self._ranks = None

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Tell the other ranks which contract ends the run, or end with what they told.

        Raises:
            ContractError: Another rank broke a contract, which is why this one failed.
        """
        __tracebackhide__ = True
        ranks = self._ranks
        if ranks is None:
            return
        heard = ranks.heard()
        if heard is None and isinstance(exception, ContractError):
            ranks.tell(exception)
        self.teardown(trainer, pl_module, "")
        if heard is not None and not isinstance(exception, ContractError):
            raise heard from None

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Check a batch that is about to be trained on."""
        __tracebackhide__ = True
        del pl_module
        self._check(trainer, "train", batch, batch_idx, 0)

    def on_validation_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Check a batch that is about to be validated on, or tried out before training."""
        __tracebackhide__ = True
        del pl_module
        stage = "sanity_check" if trainer.sanity_checking else "validate"
        self._check(trainer, stage, batch, batch_idx, dataloader_idx)

    def on_test_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Check a batch that is about to be tested on."""
        __tracebackhide__ = True
        del pl_module
        self._check(trainer, "test", batch, batch_idx, dataloader_idx)

    def on_predict_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Check a batch that something is about to be predicted for."""
        __tracebackhide__ = True
        del pl_module
        self._check(trainer, "predict", batch, batch_idx, dataloader_idx)

    def _check(self, trainer: Any, stage: str, batch: Any, index: int, loader: int) -> None:
        __tracebackhide__ = True
        ranks = self._ranks
        error = None if ranks is None else ranks.heard()
        contract = self._by_stage.get(stage)
        if error is None and contract is not None and self._is_due(index):
            error = contract.find(batch, lambda: _where(trainer, stage, index, loader))
        if error is not None:
            raise error

    def _is_due(self, index: int) -> bool:
        return index < self.first_n or (self.every_n is not None and index % self.every_n == 0)


def _by_stage(contract: Contracts) -> dict[str, BatchContract]:
    if isinstance(contract, BatchContract):
        return dict.fromkeys(_STAGES, contract)
    if unknown := sorted(contract.keys() - set(_STAGES)):
        msg = f"Expected stages to be among {', '.join(_STAGES)}, got {', '.join(unknown)}."
        raise ContractDefinitionError(msg)
    found = dict(contract)
    if "validate" in found:
        found.setdefault("sanity_check", found["validate"])
    return found


def _where(trainer: Any, stage: str, index: int, loader: int) -> str:
    """Return which batch it is, in words."""
    several = f" of dataloader {loader}" if loader else ""
    epoch = f", epoch {trainer.current_epoch}" if stage == "train" else ""
    rank = f", rank {trainer.global_rank} of {trainer.world_size}" if trainer.world_size > 1 else ""
    return f"batch {index}{several} of stage {stage!r}{epoch}, as its step receives it{rank}"


def _is_distributed() -> bool:
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_available() and distributed.is_initialized()


# --- one class for each Lightning ------------------------------------------------------------------
def _callback_bases() -> tuple[type, ...]:
    """Return the `Callback` of every Lightning that the program has imported; else of one that is installed.

    Raises:
        ImportError: None is installed.
    """
    names = [name for name in _PACKAGES if name in sys.modules]
    names = names or [name for name in _PACKAGES if importlib.util.find_spec(name.partition(".")[0])][:1]
    if not names:
        msg = f"Expected one of {' and '.join(_PACKAGES)} to be installed, got none: pip install lightning."
        raise ImportError(msg)
    return tuple(importlib.import_module(name).Callback for name in names)


@functools.cache
def _as_callback(kind: type, bases: tuple[type, ...]) -> type:
    names = {name: getattr(kind, name) for name in ("__module__", "__qualname__", "__doc__")}
    return type(kind.__name__, (kind, *bases), {**names, "_is_made": True})


def _rebuilt(kind: type, contract: Contracts, first_n: int, every_n: int | None) -> Any:
    return kind(contract, first_n=first_n, every_n=every_n)


# --- data modules ----------------------------------------------------------------------------------
class ContractDataModule:
    """A mixin that holds the loaders of a data module (or of a module with loaders of its own) to a batch contract.

    ::

        class Scans(ContractDataModule, LightningDataModule):
            batch_contract = BatchContract(Batch)

    Attributes:
        batch_contract: One for all stages, or one for each of some, as in `ContractCallback`; may be a property.
    """

    batch_contract: ClassVar[Any] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Put the contract on what the class's own ``*_dataloader`` methods return; nothing when checking is off."""
        super().__init_subclass__(**kwargs)
        if mode_at_definition() == "off":
            return
        for hook, stage in _HOOKS.items():
            make = vars(cls).get(hook)
            if make is not None:
                setattr(cls, hook, _holding(make, stage))


def _holding(make: Callable[..., Any], stage: str) -> Callable[..., Any]:
    @functools.wraps(make)
    def held(self: Any) -> Any:
        contracts: Contracts | None = self.batch_contract
        if contracts is None:
            msg = f"Expected {type(self).__qualname__}.batch_contract to be a BatchContract, got None."
            raise ContractDefinitionError(msg)
        contract = _by_stage(contracts).get(stage)
        loaders = make(self)
        return loaders if contract is None else _hold_all(contract, loaders)

    return held


def _hold_all(contract: BatchContract, loaders: Any) -> Any:
    """Put a contract on a loader, or on each of several, in whatever way Lightning takes them."""
    if isinstance(loaders, Mapping):
        held = {key: _hold_all(contract, loader) for key, loader in cast("Mapping[Any, Any]", loaders).items()}
        return held if type(cast("object", loaders)) is dict else type(loaders)(held)  # pyright: ignore
    if isinstance(loaders, (list, tuple)):
        return type(loaders)(_hold_all(contract, loader) for loader in cast("Iterable[Any]", loaders))  # pyright: ignore
    if hasattr(loaders, "flattened"):  # Lightning's CombinedLoader
        loaders.flattened = [_hold_all(contract, loader) for loader in loaders.flattened]
        return loaders
    return contract.loader(loaders)
