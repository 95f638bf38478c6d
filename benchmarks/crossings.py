"""What checks cost where tensors cross: loaders with and without workers, steps of Lightning, the ptychography model.

Each mode runs in a process of its own, in which everything was defined in that mode; the processes take turns, one
block after the other, and medians of the blocks are printed. ``plain`` is the same program without any contract put on
its loaders and without the callback. Processor time is counted where one process does the work, wall time with workers.
"""

import argparse
import contextlib
import logging
import multiprocessing
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypedDict

MODES = {"plain": "off", "off": "off", "on": "on", "strict": "strict"}
B, C, N, N_BATCHES = 16, 4, 32, 30
N_CHECKS = 500
WARM_UP = 5  # batches of a fit that are not counted


# --- in the process of one mode --------------------------------------------------------------------
def serve(column: str, pipe: Connection) -> None:
    """Measure a block of a case whenever asked for one."""
    import lightning.pytorch  # noqa: F401  # sets the levels of its loggers
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        cases = {name: make(column, Path(folder)) for name, make in CASES.items()}
        pipe.send(same_objects() if column == "off" else None)
        while (name := pipe.recv()) is not None:
            pipe.send(cases[name]())


def contracts() -> Any:
    """Return the contract of the batches that `make_loader` makes."""
    from jaxtyping import Float32, Int64
    from torch import Tensor

    from shapecheck.data import BatchContract

    class Batch(TypedDict):
        image: Float32[Tensor, "B C H W"]
        offset: Float32[Tensor, "B C 1 2"]
        label: Int64[Tensor, " B"]

    return BatchContract(Batch, dims={"C": C})


def make_loader(workers: int = 0) -> Any:
    import torch
    from torch.utils.data import DataLoader, Dataset

    class Scans(Dataset[Any]):
        def __init__(self) -> None:
            self.images = torch.rand(B, C, N, N)
            self.offsets = torch.rand(B, C, 1, 2)

        def __len__(self) -> int:
            return B * N_BATCHES

        def __getitem__(self, index: int) -> dict[str, Any]:
            place = index % B
            return {"image": self.images[place], "offset": self.offsets[place], "label": index}

    settings: dict[str, Any] = {"persistent_workers": True, "multiprocessing_context": "fork"} if workers else {}
    return DataLoader(Scans(), batch_size=B, num_workers=workers, **settings)


def loader_case(workers: int) -> Callable[[str, Path], Callable[[], float]]:
    def make(column: str, folder: Path) -> Callable[[], float]:
        del folder
        loader = make_loader(workers)
        loader = loader if column == "plain" else contracts().loader(loader)
        clock = time.perf_counter if workers else time.process_time

        def block() -> float:
            start = clock()
            for _ in loader:
                pass
            return (clock() - start) / N_BATCHES

        return block

    return make


def timer() -> Any:
    """Return a callback that times the steps of a fit."""
    from lightning.pytorch import Callback

    class Timer(Callback):
        start = seconds = 0.0

        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == WARM_UP:
                self.start = time.process_time()

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            self.seconds = (time.process_time() - self.start) / (trainer.num_training_batches - WARM_UP)

    return Timer()


def fit(module: Any, loader: Any, batches: Any, folder: Path) -> float:
    """Return the seconds of a step; the callback checks every batch, which is more than it does by default."""
    from lightning.pytorch import Trainer

    from shapecheck.lightning import ContractCallback

    clock = timer()
    callbacks = [clock] if batches is None else [ContractCallback(batches, every_n=1), clock]
    quiet = {"enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False}
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, logger=False, callbacks=callbacks, default_root_dir=folder, **quiet
    )
    trainer.fit(module, loader)
    return clock.seconds


def small_model_case(column: str, folder: Path) -> Callable[[], float]:
    import torch
    from jaxtyping import Float32
    from lightning.pytorch import LightningModule
    from torch import Tensor

    from shapecheck import contract

    class Small(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Conv2d(C, 8, 3, padding=1)

        @contract
        def forward(self, image: Float32[Tensor, "B C H W"]) -> Float32[Tensor, "B F H W"]:
            return self.layer(image)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self(batch["image"]).square().mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 1e-3)

    batches = None if column == "plain" else contracts()
    loader = make_loader() if batches is None else batches.loader(make_loader())
    return lambda: fit(Small(), loader, batches, folder)


def ptychography_case(column: str, folder: Path) -> Callable[[], float]:
    from ptycho_torch.config_factory import create_training_payload
    from ptycho_torch.dataloader import PtychoDataContainerTorch, batch_contract
    from ptycho_torch.grouping import group_positions
    from ptycho_torch.learner import PtychoLearner
    from ptycho_torch.model import PtychoModel, normalise_probe
    from ptycho_torch.scan import load_scan, save_scan
    from ptycho_torch.simulate import simulate_natural_scan
    from ptycho_torch.workflow import _build_lightning_dataloaders

    path = folder / "scan.npz"
    sizes = {"patch_size": 32, "n_rows": 12, "n_columns": 12, "step": 3.5, "jitter": 1.0}
    save_scan(simulate_natural_scan(**sizes, nphotons=1e5, seed=3), path)
    settings = {"gridsize": 2, "n_groups": 64, "batch_size": 4, "max_epochs": 1, "accelerator": "cpu"}
    payload = create_training_payload(path, folder / "run", settings)
    scan, data = load_scan(path), payload.data
    groups = group_positions(scan.xcoords, scan.ycoords, 2, data.neighbor_count, data.n_groups, data.seed)
    container = PtychoDataContainerTorch.from_groups(scan, groups, with_truth=False)
    probe = normalise_probe(container.probe)
    batches = None if column == "plain" else batch_contract(payload.data)

    def block() -> float:
        loader, _ = _build_lightning_dataloaders(container, None, payload)
        return fit(PtychoLearner(PtychoModel(payload.model, probe), payload.training), loader, batches, folder)

    return block


def same_objects() -> bool:
    """Tell whether, with checking off, everything is the object that was given."""
    from torch.utils.data import default_collate

    batches, loader = contracts(), make_loader()
    collate, dataset = loader.collate_fn, loader.dataset
    kept = [batches.loader(loader) is loader, loader.collate_fn is collate, batches.dataset(dataset) is dataset]
    return all([*kept, batches.collate(default_collate) is default_collate])


def check_case(column: str, folder: Path) -> Callable[[], float]:
    """The check of one batch by itself, which is what the other cases have more of when checking is on."""
    del folder
    batches, batch = contracts(), next(iter(make_loader()))
    check = (lambda batch: batch) if column == "plain" else batches.check

    def block() -> float:
        start = time.process_time()
        for _ in range(N_CHECKS):
            check(batch)
        return (time.process_time() - start) / N_CHECKS

    return block


CASES: dict[str, Callable[[str, Path], Callable[[], float]]] = {
    "the check alone": check_case,
    "a batch of a loader, 0 workers": loader_case(0),
    "a batch of a loader, 2 workers": loader_case(2),
    "a Lightning step, small model": small_model_case,
    "a Lightning step, ptychography": ptychography_case,
}


# --- in the process that asks ----------------------------------------------------------------------
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="blocks of every case and mode (default: %(default)s)")
    rounds = parser.parse_args().rounds
    spawn = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    for column, mode in MODES.items():
        os.environ["SHAPECHECK"] = mode
        pipes[column], end = spawn.Pipe()
        spawn.Process(target=serve, args=(column, end)).start()
        end.close()  # so that a process that fails is noticed
    try:
        ready = {column: pipe.recv() for column, pipe in pipes.items()}
        seconds = measure(pipes, rounds)
    finally:
        for pipe in pipes.values():
            with contextlib.suppress(BrokenPipeError):  # of a process that failed and said why
                pipe.send(None)
    show(seconds, off_is_same=ready["off"])


def measure(pipes: dict[str, Connection], rounds: int) -> dict[tuple[str, str], list[float]]:
    seconds: dict[tuple[str, str], list[float]] = {(case, column): [] for case in CASES for column in MODES}
    for _ in range(rounds):
        for case in CASES:
            for column, pipe in pipes.items():
                pipe.send(case)
                seconds[case, column].append(pipe.recv())
    return seconds


def show(seconds: dict[tuple[str, str], list[float]], *, off_is_same: bool) -> None:
    print(f"| us | {' | '.join(MODES)} | off/plain | on/off | strict/off |")
    print(f"|---|{'---|' * (len(MODES) + 3)}")
    for case in CASES:
        median = {column: statistics.median(seconds[case, column]) for column in MODES}
        ratios = [
            statistics.median(high / low for high, low in zip(seconds[case, one], seconds[case, other], strict=True))
            for one, other in (("off", "plain"), ("on", "off"), ("strict", "off"))
        ]
        columns = [f"{median[column] * 1e6:.1f}" for column in MODES] + [f"{ratio:.3f}" for ratio in ratios]
        print(f"| {case} | {' | '.join(columns)} |")
    print(f"\nOff, every wrapper returned the object it was given: {off_is_same}.")


if __name__ == "__main__":
    main()
