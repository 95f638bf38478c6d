"""`dry_run`: a whole training step without data or memory, and what it says of the stages it did not reach."""

import copy
import dataclasses
from typing import Any, TypedDict

import pytest
import torch
from jaxtyping import Float32, Int64
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional

from shapecheck import contract
from shapecheck.audit import DryRun, dry_run
from shapecheck.data import BatchContract

WIDTH, CLASSES = 24, 5

Images = Float32[Tensor, f"B {WIDTH}"]
Labels = Int64[Tensor, " B"]


class Batch(TypedDict):
    images: Images
    labels: Labels


class Classifier(nn.Module):
    """A plain module with a step."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, 7)
        self.out = nn.Linear(7, CLASSES, bias=False)
        self.unused = nn.Parameter(torch.zeros(2, 3))

    def training_step(self, batch: dict[str, Tensor]) -> Tensor:
        scores = self.out(torch.relu(self.hidden(batch["images"])))
        return functional.cross_entropy(scores, batch["labels"])


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters)


def run_ok(*args: Any, **kwargs: Any) -> DryRun:
    found = dry_run(*args, **kwargs)
    assert found.ok, str(found)
    return found


# --- what passes -----------------------------------------------------------------------------------------
def test_a_step_that_is_right_passes_every_stage() -> None:
    found = run_ok(Classifier, Batch, optimizer=adam)
    assert found.stage == ""
    assert found.batch == ("batch['images']: f32[11,24]", "batch['labels']: i64[11]")
    assert found.sizes == {"B": 11}


def test_bytes_are_those_of_the_real_step() -> None:
    found = run_ok(Classifier, Batch, optimizer=adam, sizes={"B": 40})
    numbers = 24 * 7 + 7 + 7 * 5 + 6
    reached = numbers - 6
    assert found.parameters == numbers
    assert found.memory.parameters == 4 * numbers
    assert found.memory.gradients == 4 * reached
    assert found.memory.optimizer == 4 * (2 * reached + 3)  # two moments, and a count for each of three parameters
    # kept: hidden before and after relu may share; the scores' log-softmax, and the loss
    assert 40 * 4 * (7 + 5) <= found.memory.activations <= 40 * 4 * (7 + 7 + 5 + 5) + 100
    assert found.memory.peak >= found.memory.parameters + found.memory.gradients + found.memory.optimizer
    assert "1 parameters of 4: no gradient reaches them" in found.not_run


def test_a_module_that_exists_is_left_as_it_was() -> None:
    module = Classifier()
    before = copy.deepcopy(module.state_dict())
    run_ok(module, Batch, optimizer=adam)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())
    assert type(module.unused) is nn.Parameter


def test_nothing_is_drawn_from_the_random_generator() -> None:
    before = torch.get_rng_state()
    run_ok(Classifier, Batch, optimizer=adam)
    assert torch.equal(before, torch.get_rng_state())


def test_a_step_can_be_any_function_of_a_module_and_a_batch() -> None:
    found = run_ok(lambda: nn.Linear(6, 2), Float32[Tensor, "B 6"], step=lambda module, x: module(x).square().mean())
    assert found.not_run == ("the optimizer step: none was given",)


def test_a_batch_contract_says_what_a_batch_is() -> None:
    spec = BatchContract(Batch, dims={"B": 9}, name="given")
    found = run_ok(Classifier, spec, optimizer=adam)
    assert found.batch[0] == "given['images']: f32[9,24]"


def test_a_loss_may_stand_in_a_dict() -> None:
    def step(module: Any, batch: Any) -> dict[str, Tensor]:
        return {"loss": module.training_step(batch)}

    run_ok(Classifier, Batch, step=step, optimizer=adam)


def test_100_million_parameters_take_no_memory() -> None:
    def build() -> nn.Module:
        return nn.Sequential(*(nn.Linear(2048, 2048) for _ in range(24)))

    def step(module: Any, x: Tensor) -> Tensor:
        assert all(isinstance(parameter, FakeTensor) for parameter in module.parameters())
        return module(x).mean()

    found = run_ok(build, Float32[Tensor, "B 2048"], step=step, optimizer=adam)
    assert found.parameters == 24 * (2048 * 2048 + 2048)
    assert found.memory.peak > 1 << 30  # what a real one would need


# --- what does not ---------------------------------------------------------------------------------------
def test_a_shape_that_torch_refuses_ends_the_forward_stage_at_the_line() -> None:
    found = dry_run(lambda: Classifier(WIDTH + 1), Batch, optimizer=adam)
    assert (found.outcome.verdict, found.stage) == ("shape error", "forward")
    assert "[11, 24]" in found.outcome.reason
    assert found.outcome.line.endswith('scores = self.out(torch.relu(self.hidden(batch["images"])))')
    assert found.not_run == ("the stage 'backward', which comes later", "the stage 'optimizer step', which comes later")


@pytest.mark.violation
def test_a_contract_inside_the_step_ends_it_and_is_told() -> None:
    @contract
    def loss(scores: Float32[Tensor, "B 3"], labels: Labels) -> Float32[Tensor, ""]:
        return functional.cross_entropy(scores, labels)

    class Contracted(Classifier):
        def training_step(self, batch: dict[str, Tensor]) -> Tensor:
            return loss(self.out(torch.relu(self.hidden(batch["images"]))), batch["labels"])

    found = dry_run(Contracted, Batch, optimizer=adam)
    assert (found.outcome.verdict, found.stage) == ("contract violated", "forward")
    assert "axis 1 is 5, the contract says 3" in found.outcome.reason
    assert str(found).startswith("dry run: contract violated in the stage 'forward': ")


class Backward(torch.autograd.Function):
    """Returns a gradient of the wrong shape."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return gradient[:, :2]


def test_a_wrong_gradient_ends_the_backward_stage() -> None:
    found = dry_run(
        lambda: nn.Linear(6, 4), Float32[Tensor, "B 6"], step=lambda module, x: Backward.apply(module(x)).sum()
    )
    assert (found.outcome.verdict, found.stage) == ("shape error", "backward")
    assert found.memory.parameters == 4 * (6 * 4 + 4)


def test_an_optimiser_that_cannot_be_made_ends_the_last_stage() -> None:
    def make(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=-1.0)

    found = dry_run(Classifier, Batch, optimizer=make)
    assert (found.outcome.verdict, found.stage) == ("error in the body", "optimizer step")


REFUSED = {
    "values": (lambda module, batch: batch["images"].sum().item(), "forward", "needs real values: a tensor becomes"),
    "no loss": (lambda module, batch: None, "backward", "the step returned None and no loss"),
}


@pytest.mark.parametrize(("step", "stage", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_fakes_cannot_know_is_not_passed(step: Any, stage: str, reason: str) -> None:
    found = dry_run(Classifier, Batch, step=step)
    assert (found.outcome.verdict, found.stage, found.ok) == ("not run", stage, False)
    assert found.outcome.reason.startswith(reason)


def test_a_step_without_a_contract_needs_to_be_told_what_a_batch_is() -> None:
    found = dry_run(Classifier)
    assert (found.outcome.verdict, found.stage) == ("not run", "batch")
    assert found.outcome.reason == "'training_step' has no contract that says what a batch is: give one"


def test_what_is_built_must_be_a_module() -> None:
    found = dry_run(lambda: 3, Batch)
    assert (found.outcome.verdict, found.stage, found.parameters) == ("not run", "build", 0)


# --- Lightning -------------------------------------------------------------------------------------------
@dataclasses.dataclass
class Config:
    width: int = WIDTH


def make_lightning(manual: bool = False) -> Any:
    lightning = pytest.importorskip("lightning.pytorch")

    class Module(lightning.LightningModule):
        def __init__(self, config: Config) -> None:
            super().__init__()
            self.config, self.net = config, Classifier(config.width)
            self.automatic_optimization = not manual

        @contract(dims={"W": "self.config.width"})
        def training_step(self, batch: tuple[Float32[Tensor, "B W"], Labels], batch_idx: int) -> Float32[Tensor, ""]:
            images, labels = batch
            loss = self.net.training_step({"images": images, "labels": labels})
            self.log("loss", loss, prog_bar=True)
            return loss

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
            steps = int(self.trainer.estimated_stepping_batches)
            return [optimizer], [torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, steps)]

    return Module(Config())


@pytest.mark.violation  # the contract of the step says what a batch is
def test_a_lightning_module_runs_on_what_its_own_contract_asks_for() -> None:
    found = run_ok(make_lightning)
    assert found.batch == ("batch[0]: f32[11,24]", "batch[1]: i64[11]")
    assert found.memory.optimizer == found.memory.gradients  # momentum
    assert found.not_run[0].startswith("data loading, callbacks, logging")


@pytest.mark.violation
def test_a_batch_contract_that_contradicts_the_step_is_told() -> None:
    spec = BatchContract(tuple[Float32[Tensor, "B W"], Labels], dims={"W": WIDTH})
    assert dry_run(make_lightning, spec).ok
    found = dry_run(make_lightning, BatchContract(tuple[Float32[Tensor, "B W"], Labels], dims={"W": 8}))
    assert (found.outcome.verdict, found.stage) == ("contract violated", "forward")
    assert "axis 1 is 8, the contract says W=24" in found.outcome.reason


@pytest.mark.violation
def test_a_module_that_optimises_by_itself_is_not_run_to_the_end() -> None:
    found = dry_run(lambda: make_lightning(manual=True))
    assert (found.outcome.verdict, found.stage) == ("not run", "backward")


@pytest.mark.violation
def test_the_ptychography_learner_runs_on_its_own_batches() -> None:
    pytest.importorskip("lightning.pytorch")
    from ptycho_torch.config_params import ModelConfig, TrainingConfig
    from ptycho_torch.dataloader import batch_contract
    from ptycho_torch.learner import PtychoLearner
    from ptycho_torch.model import PtychoModel

    config = ModelConfig(gridsize=2, C=4, N=16, P=3, max_neighbor_distance=4.0)

    def build() -> PtychoLearner:
        probe = torch.zeros(3, 16, 16, dtype=torch.complex64)
        return PtychoLearner(PtychoModel(config, probe), TrainingConfig(gridsize=2, C=4))

    found = run_ok(build, sizes={"B": 2})
    assert "batch[0]['images']: f32[2,4,16,16]" in found.batch
    other = ModelConfig(gridsize=1, C=1, N=16, P=3, max_neighbor_distance=4.0)
    wrong = dry_run(build, batch_contract(other))
    assert wrong.outcome.verdict == "contract violated"
    assert "axis 1 is 1, the contract says C=4" in wrong.outcome.reason
