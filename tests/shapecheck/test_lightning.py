"""Contracts in Lightning: the callback, the data module, the steps of a module, several ranks."""

import contextlib
import copy
import importlib
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypedDict

import pytest

pytest.importorskip("lightning")

import torch
from jaxtyping import Float32
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.data import _update_dataloader
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler

import shapecheck
from shapecheck import ContractDefinitionError, ContractError, contract
from shapecheck._batches.ranks import Ranks
from shapecheck.data import BatchContract
from shapecheck.lightning import ContractCallback, ContractDataModule

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")

H, W, N_ITEMS = 5, 6, 10


class Batch(TypedDict):
    image: Float32[Tensor, "B C H W"]
    offset: Float32[Tensor, "B C 1 2"]


class Scans(Dataset[Any]):
    def __init__(self, drifted: range = range(0)) -> None:
        self.drifted = drifted

    def __len__(self) -> int:
        return N_ITEMS

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        offset = torch.zeros(4, 1, 2)
        drifts = index in self.drifted
        return {"image": torch.zeros(4, H, W), "offset": offset.permute(1, 2, 0) if drifts else offset}


ALL = range(N_ITEMS)
LAST_BATCH = range(8, N_ITEMS)


def make_loader(drifted: range = range(0)) -> DataLoader[Any]:
    return DataLoader(Scans(drifted), batch_size=2)


def declared() -> BatchContract:
    return BatchContract(Batch, dims={"C": 4})


def caught(call: Callable[[], Any]) -> str:
    with pytest.raises(ContractError) as error:
        call()
    return str(error.value)


def checked_line(text: str) -> str:
    return next(line for line in text.splitlines() if line.startswith("  checked ")).removeprefix("  checked    ")


@pytest.fixture(params=["lightning.pytorch", "pytorch_lightning"])
def pl(request: pytest.FixtureRequest) -> Any:
    """Each of the names that Lightning can be imported by."""
    if importlib.util.find_spec(request.param.partition(".")[0]) is None:
        pytest.skip(f"{request.param} is not installed")
    return importlib.import_module(request.param)


def make_module(pl: Any) -> Any:
    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(W, 1)

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return self.linear(batch["image"]).sum()

        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None: ...

        def test_step(self, batch: Any, batch_idx: int) -> None: ...

        def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
            return batch["image"]

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    return Module()


def make_trainer(pl: Any, *callbacks: Any, **settings: Any) -> Any:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    options = {"accelerator": "cpu", "max_epochs": 1, "enable_model_summary": False, **quiet, **settings}
    return pl.Trainer(callbacks=list(callbacks), **options)


# --- the callback ------------------------------------------------------------------------------------
STAGES: dict[str, Callable[[Any, Any, Any, Any], Any]] = {
    "train": lambda trainer, module, loader, _: trainer.fit(module, loader),
    "sanity_check": lambda trainer, module, loader, good: trainer.fit(module, good, loader),
    "validate": lambda trainer, module, loader, _: trainer.validate(module, loader, verbose=False),
    "test": lambda trainer, module, loader, _: trainer.test(module, loader, verbose=False),
    "predict": lambda trainer, module, loader, _: trainer.predict(module, loader),
}


@pytest.mark.parametrize("stage", STAGES)
def test_good_batches_pass_every_stage(pl: Any, stage: str) -> None:
    trainer = make_trainer(pl, ContractCallback(declared()))
    STAGES[stage](trainer, make_module(pl), make_loader(), make_loader())
    assert trainer.state.finished


@pytest.mark.violation
@pytest.mark.parametrize("stage", STAGES)
def test_a_drifted_batch_is_stopped_in_every_stage(pl: Any, stage: str) -> None:
    trainer = make_trainer(pl, ContractCallback(declared()))
    text = caught(lambda: STAGES[stage](trainer, make_module(pl), make_loader(ALL), make_loader()))
    assert "parameter \"batch['offset']\"" in text.splitlines()[0]
    assert checked_line(text).startswith(f"batch 0 of stage {stage!r}")


@pytest.mark.violation
def test_the_loader_and_the_callback_say_the_same_in_their_first_line() -> None:
    pl = importlib.import_module("lightning.pytorch")
    batches = declared()
    trainer = make_trainer(pl, ContractCallback(batches))
    by_the_callback = caught(lambda: trainer.fit(make_module(pl), make_loader(ALL)))
    by_the_loader = caught(lambda: list(batches.loader(make_loader(ALL))))
    assert by_the_callback.splitlines()[0] == by_the_loader.splitlines()[0]


@pytest.mark.violation
@pytest.mark.parametrize(
    ("settings", "is_seen"),
    [({}, False), ({"every_n": 2}, True), ({"every_n": None}, False), ({"first_n": 5, "every_n": None}, True)],
    ids=str,
)
def test_the_first_batches_are_checked_and_then_every_nth(settings: dict[str, Any], is_seen: bool) -> None:
    pl = importlib.import_module("lightning.pytorch")
    trainer = make_trainer(pl, ContractCallback(declared(), **settings))
    loader = make_loader(LAST_BATCH)  # the batch of index 4
    with pytest.raises(ContractError) if is_seen else contextlib.nullcontext():
        trainer.validate(make_module(pl), loader, verbose=False)


@pytest.mark.violation
def test_each_stage_can_have_its_own_contract_or_none() -> None:
    pl = importlib.import_module("lightning.pytorch")
    callback = ContractCallback({"validate": declared()})
    trainer = make_trainer(pl, callback, num_sanity_val_steps=0)
    assert "stage 'validate'" in caught(lambda: trainer.fit(make_module(pl), make_loader(ALL), make_loader(ALL)))
    trainer = make_trainer(pl, ContractCallback({"validate": declared()}))
    assert "stage 'sanity_check'" in caught(lambda: trainer.fit(make_module(pl), make_loader(ALL), make_loader(ALL)))
    trainer = make_trainer(pl, ContractCallback({"test": declared()}))
    trainer.fit(make_module(pl), make_loader(ALL), make_loader(ALL))


@pytest.mark.violation
def test_which_of_several_loaders_it_was_is_said() -> None:
    pl = importlib.import_module("lightning.pytorch")
    trainer = make_trainer(pl, ContractCallback(declared()))
    loaders = [make_loader(), make_loader(ALL)]
    text = caught(lambda: trainer.validate(make_module(pl), loaders, verbose=False))
    assert checked_line(text) == "batch 0 of dataloader 1 of stage 'validate', as its step receives it"


@pytest.mark.violation
def test_what_the_transfer_to_the_device_returns_is_checked() -> None:
    pl = importlib.import_module("lightning.pytorch")
    module = make_module(pl)

    def transfer(batch: Any, device: Any, dataloader_idx: int) -> Any:
        return {**batch, "offset": batch["offset"].permute(0, 2, 3, 1)}

    batches = declared()
    loader = batches.loader(make_loader())
    make_trainer(pl, ContractCallback(batches)).validate(module, loader, verbose=False)
    module.transfer_batch_to_device = transfer
    text = caught(lambda: make_trainer(pl, ContractCallback(batches)).validate(module, loader, verbose=False))
    assert "permute(0, 3, 1, 2)" in text.splitlines()[0] + text
    assert checked_line(text) == "batch 0 of stage 'validate', as its step receives it"


@pytest.mark.violation
def test_a_callback_that_can_mean_nothing_is_refused() -> None:
    ContractCallback(declared(), first_n=0, every_n=1)
    with pytest.raises(ContractDefinitionError, match="train, sanity_check, validate, test, predict, got training"):
        ContractCallback({"training": declared()})
    for settings in ({"every_n": 0}, {"first_n": -1}):
        with pytest.raises(ContractDefinitionError, match="every_n >= 1"):
            ContractCallback(declared(), **settings)


def test_the_callback_is_one_of_lightnings_own_and_can_be_copied(pl: Any) -> None:
    callback = ContractCallback(declared(), first_n=3, every_n=None)
    assert callback in make_trainer(pl, callback).callbacks
    if shapecheck.enabled():
        assert isinstance(callback, ContractCallback)
        assert isinstance(callback, pl.Callback)
        for twin in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
            assert [type(twin), twin.first_n, twin.every_n] == [type(callback), 3, None]


def test_when_checking_is_off_the_callback_is_nothing_but_lightnings() -> None:
    pl = importlib.import_module("lightning.pytorch")
    with shapecheck.mode("off"):
        callback = ContractCallback(declared())
    assert not isinstance(callback, ContractCallback)
    assert type(callback) in (pl.Callback, getattr(sys.modules.get("pytorch_lightning"), "Callback", None))
    make_trainer(pl, callback).validate(make_module(pl), make_loader(ALL), verbose=False)


def test_a_subclass_of_the_callback_keeps_what_it_adds() -> None:
    class Counting(ContractCallback):
        seen = 0

        def on_train_batch_start(self, *args: Any) -> None:
            type(self).seen += 1
            super().on_train_batch_start(*args)

    if not shapecheck.enabled():
        return
    pl = importlib.import_module("lightning.pytorch")
    callback = Counting(declared())
    make_trainer(pl, callback).fit(make_module(pl), make_loader())
    assert type(callback).seen == 5


# --- contracts of the module itself ------------------------------------------------------------------
def make_contracted(pl: Any) -> Any:
    class Contracted(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(W, 1)

        @contract
        def forward(self, image: Float32[Tensor, "B C H W"]) -> Float32[Tensor, "B C H 1"]:
            return self.linear(image)

        @contract
        def training_step(self, batch: Batch, batch_idx: int) -> Float32[Tensor, ""]:
            return self(batch["image"]).sum()

        @contract
        def validation_step(self, batch: Batch, batch_idx: int) -> None:
            self(batch["image"][0] if self.trainer.state.fn == "validate" else batch["image"])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    return Contracted()


def test_steps_and_forward_may_carry_contracts_of_their_own(pl: Any) -> None:
    trainer = make_trainer(pl)
    trainer.fit(make_contracted(pl), make_loader(), make_loader())
    assert trainer.state.finished


@pytest.mark.violation
def test_the_contracts_of_steps_and_forward_stop_what_is_wrong(pl: Any) -> None:
    text = caught(lambda: make_trainer(pl).fit(make_contracted(pl), make_loader(ALL)))
    assert "Contracted.training_step, parameter \"batch['offset']\"" in text.splitlines()[0]
    text = caught(lambda: make_trainer(pl).validate(make_contracted(pl), make_loader(), verbose=False))
    assert "Contracted.forward, parameter 'image'" in text.splitlines()[0]


# --- loaders that Lightning makes anew, data modules --------------------------------------------------
@pytest.mark.violation
def test_the_contract_stays_when_lightning_puts_another_sampler_into_a_loader() -> None:
    first = declared().loader(make_loader(ALL))
    sampler = DistributedSampler(first.dataset, num_replicas=2, rank=1, shuffle=False)
    second = _update_dataloader(first, sampler)
    assert second is not first
    text = caught(lambda: list(second))
    assert checked_line(text) == "a batch of the loader, made of items 1 and 3"


def make_data_module(pl: Any, drifted: range, **attributes: Any) -> Any:
    class Data(ContractDataModule, pl.LightningDataModule):
        batch_contract = declared()

        def train_dataloader(self) -> Any:
            return make_loader(drifted)

        def val_dataloader(self) -> Any:
            return [make_loader(), make_loader(drifted)]

        def test_dataloader(self) -> Any:
            return CombinedLoader({"first": make_loader(), "second": make_loader(drifted)}, "sequential")

        def predict_dataloader(self) -> Any:
            return {"only": make_loader(drifted)}

    for name, value in attributes.items():
        setattr(Data, name, value)
    return Data()


@pytest.mark.parametrize("stage", ["fit", "validate", "test", "predict"])
def test_a_data_module_with_a_contract_hands_out_good_batches(pl: Any, stage: str) -> None:
    trainer = make_trainer(pl)
    module = make_module(pl)
    module.test_step = lambda *_: None
    getattr(trainer, stage)(module, datamodule=make_data_module(pl, range(0)))
    assert trainer.state.finished


@pytest.mark.violation
@pytest.mark.parametrize("stage", ["fit", "validate", "test", "predict"])
def test_a_data_module_with_a_contract_stops_drifted_batches(pl: Any, stage: str) -> None:
    module = make_module(pl)
    module.test_step = lambda *_: None
    text = caught(lambda: getattr(make_trainer(pl), stage)(module, datamodule=make_data_module(pl, ALL)))
    assert "parameter \"batch['offset']\"" in text.splitlines()[0]
    assert checked_line(text) == "a batch of the loader, made of items 0 to 1"


@pytest.mark.violation
def test_a_data_module_can_have_a_contract_for_each_stage_and_must_have_one() -> None:
    pl = importlib.import_module("lightning.pytorch")
    only_test = make_data_module(pl, ALL, batch_contract={"test": declared()})
    make_trainer(pl).fit(make_module(pl), datamodule=only_test)
    with pytest.raises(ContractDefinitionError, match=r"Data\.batch_contract"):
        make_data_module(pl, ALL, batch_contract=None).train_dataloader()


@pytest.mark.violation
def test_a_loader_made_in_a_hook_keeps_the_contract_when_lightning_makes_it_anew() -> None:
    pl = importlib.import_module("lightning.pytorch")
    from lightning.fabric.utilities.data import _replace_dunder_methods

    with _replace_dunder_methods(DataLoader, "dataset"):
        loader = make_data_module(pl, ALL).train_dataloader()
    again = _update_dataloader(loader, DistributedSampler(loader.dataset, num_replicas=2, rank=0, shuffle=False))
    assert checked_line(caught(lambda: list(again))) == "a batch of the loader, made of items 0 and 2"


def test_when_checking_is_off_a_data_module_is_left_alone() -> None:
    pl = importlib.import_module("lightning.pytorch")

    def train_dataloader(self: Any) -> Any:
        return make_loader(ALL)

    with shapecheck.mode("off"):
        kind = type("Data", (ContractDataModule, pl.LightningDataModule), {"train_dataloader": train_dataloader})
    assert vars(kind)["train_dataloader"] is train_dataloader


# --- several ranks -----------------------------------------------------------------------------------
@contextlib.contextmanager
def ranks(world_size: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Ranks]]:
    """Several ranks in one process, which exchange what they would between processes."""
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    port: list[Any] = []

    def broadcast(value: Any) -> Any:
        port.append(value)
        return port[0]

    several = [Ranks(rank, world_size, broadcast) for rank in range(world_size)]
    try:
        yield several
    finally:
        for rank in reversed(several):
            rank.close()


ERROR = ContractError("ContractError [axis-order]: module.step, parameter 'batch'\n  got  f32[3,1,2,4]")


@pytest.mark.parametrize("teller", [0, 1, 2])
def test_every_rank_hears_the_message_of_the_one_that_tells(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], teller: int
) -> None:
    with ranks(3, monkeypatch) as several:
        several[teller].tell(ERROR)  # returns when all have heard
        assert several[teller].heard() is None
        others = [rank for rank in several if rank.rank != teller]
        for rank in others:
            heard = rank.heard()
            assert heard is not None
            assert str(heard) == f"{ERROR}\n  raised in  rank {teller} of 3"
    printed = capfd.readouterr().err.splitlines()
    assert sorted(printed[::2]) == [f"[rank {rank.rank}] {str(ERROR).splitlines()[0]}" for rank in others]


def test_nobody_hears_anything_while_all_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    with ranks(2, monkeypatch) as several:
        assert [rank.heard() for rank in several] == [None, None]
    assert not any("shapecheck-ranks" in thread.name for thread in threading.enumerate())


def test_a_rank_that_tells_waits_only_so_long_for_one_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shapecheck._batches.ranks._PATIENCE_S", 0.5)
    with ranks(2, monkeypatch) as several:
        several[1].close()
        several[0].tell(ERROR)
        assert several[1].heard() is None


def test_the_first_of_two_messages_is_the_one_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with ranks(3, monkeypatch) as several:
        several[1].tell(ERROR)
        several[2].tell(ContractError("another"))
        assert several[2].heard() is None
        assert str(several[0].heard()).endswith("rank 1 of 3")


SCRIPT = """
import os, sys
import torch
from jaxtyping import Float32
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader, Dataset
from shapecheck.data import BatchContract
from shapecheck.lightning import ContractCallback

class Scans(Dataset):
    asked = 0
    def __len__(self): return 24
    def __getitem__(self, index):
        self.asked += 1
        drifts = os.environ.get("LOCAL_RANK", "0") == sys.argv[1] and self.asked > 4
        return torch.zeros(1, 2, 4) if drifts else torch.zeros(4, 1, 2)

class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(1, 1)
    def training_step(self, batch, batch_idx):
        return self.linear(batch.sum().reshape(1, 1)).sum()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

batches = BatchContract(Float32[torch.Tensor, "B C 1 2"], dims={"C": 4})
trainer = Trainer(
    accelerator="cpu", devices=2, strategy="ddp", max_epochs=1, logger=False, enable_checkpointing=False,
    enable_progress_bar=False, enable_model_summary=False, callbacks=[ContractCallback(batches, first_n=0, every_n=2)],
)
trainer.fit(Module(), DataLoader(Scans(), batch_size=2))
print("finished")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "rank", ["none", pytest.param("0", marks=pytest.mark.violation), pytest.param("1", marks=pytest.mark.violation)]
)
def test_two_processes_end_together_with_the_message_of_the_rank_that_broke_the_contract(
    tmp_path: Any, rank: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", str(script), rank]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=240)
    if rank == "none":
        assert (done.returncode, done.stdout.count("finished")) == (0, 2), done.stderr
        return
    assert done.returncode != 0
    assert "finished" not in done.stdout
    for each in "01":
        said = [line for line in done.stderr.splitlines() if line.startswith((f"[rank{each}]", f"[rank {each}]"))]
        assert any("ContractError [axis-order]: __main__.<module>, parameter 'batch'" in line for line in said)
        assert any(f"rank {rank} of 2" in line for line in said), done.stderr
        assert "Connection closed" not in said[-1]
        assert len(said) <= 25, done.stderr
