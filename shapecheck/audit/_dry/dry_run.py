"""One training step on fake tensors: forward, loss, backward and optimiser, before the first hour on an accelerator.

The model is made of fakes, so that its size does not matter. What only Lightning's loops do is not run, and said.
"""

import copy
import dataclasses
import importlib
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from ..._annotations.nodes import Node, tensor_specs, tensors
from ..._annotations.structure import Builder
from ..._boundaries.function import FunctionContract
from ..._boundaries.inheritance import contract_within
from ..._render import describe
from ...axes import Axes, axes_of
from .._made_up import UnmakeableError, fixed_sizes
from .calls import make_call, tie
from .fake_run import Outcome, faking, outcome_of
from .fakes import Maker
from .live_memory import describe_bytes, live_memory, nbytes
from .sizes import RunSizes

_STAGES = ("build", "batch", "forward", "backward", "optimizer step")
_STEPS = 1000  # of a whole training, for schedules that ask
_NOT_OURS = "data loading, callbacks, logging, gradient clipping and the learning-rate schedule"

Build = Callable[[], Any]
Step = Callable[[Any, Any], Any]


@dataclasses.dataclass(frozen=True)
class StepMemory:
    """Bytes that a step would need on its device, without what kernels need for themselves.

    Attributes:
        parameters: Parameters and buffers.
        gradients: After the backward pass.
        optimizer: State of the optimisers after their first step.
        activations: What the forward pass keeps for the backward pass, the batch left out.
        peak: The most that was alive at one time.
    """

    parameters: int = 0
    gradients: int = 0
    optimizer: int = 0
    activations: int = 0
    peak: int = 0


@dataclasses.dataclass(frozen=True)
class DryRun:
    """How a training step on fake tensors went.

    Attributes:
        outcome: How it ended, and why.
        stage: The stage that did not end well; nothing if all did.
        batch: What it was given, tensor by tensor.
        sizes: The sizes of the dims of the batch.
        parameters: How many numbers are trained.
        memory: What the stages that ended well need.
        not_run: What was not tried, in words.
    """

    outcome: Outcome
    stage: str
    batch: tuple[str, ...]
    sizes: dict[str, int]
    parameters: int
    memory: StepMemory
    not_run: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether every stage was run and ended well."""
        return self.outcome.verdict == "passed"

    def __str__(self) -> str:
        head = "passed" if self.ok else f"{self.outcome.verdict} in the stage {self.stage!r}: {self.outcome.reason}"
        lines = [f"dry run: {head}"]
        lines += [f"  stopped at   {self.outcome.line}"] if self.outcome.line else []
        lines += [f"  {'batch' if not index else '':<12} {text}" for index, text in enumerate(self.batch)]
        if self.memory.parameters:
            lines += [f"  model        {self.parameters:,} trained numbers", f"  memory       {_told(self.memory)}"]
        return "\n".join([*lines, *(f"  not run      {text}" for text in self.not_run)])


def dry_run(
    build: Any,
    batch: Any = None,
    *,
    step: str | Step = "training_step",
    optimizer: Callable[[Any], Any] | None = None,
    sizes: Mapping[str, int] | None = None,
) -> DryRun:
    """Run one training step on fake tensors: no data, no accelerator, no memory.

    Args:
        build: Returns the module when it is called; its parameters are then never allocated. Or a module that exists,
            of which a fake copy is made.
        batch: What a batch is: an annotation such as a TypedDict, or a `BatchContract`; by default what the contract
            of the step says.
        step: The method that takes a batch and returns the loss, or a function of the module and a batch.
        optimizer: Makes an optimiser of parameters; by default that of ``configure_optimizers``, if there is one.
        sizes: Sizes of dims of the batch; others are chosen, pairwise distinct, unless the contract ties them.

    Returns:
        How it went; nothing that happens inside is raised.
    """
    run = _StepRun(build, batch, step, optimizer, sizes or {})
    outcome, stage = run.all_stages()
    after = _STAGES[_STAGES.index(stage) + 1 :] if stage else ()
    not_run = [*(f"the stage {name!r}, which comes later" for name in after), *run.not_run]
    trained = sum(one.numel() for one in run.trained())
    return DryRun(outcome, stage, run.batch_text, run.sizes, trained, run.memory, tuple(not_run))


class _StepRun:
    """The state of one run, stage by stage."""

    def __init__(
        self,
        build: Any,
        batch: Any,
        step: str | Step,
        optimizer: Callable[[Any], Any] | None,
        sizes: Mapping[str, int],
    ) -> None:
        self._build, self._spec, self._step, self._optimizer, self._pinned = build, batch, step, optimizer, sizes
        self.module: Any = None
        self.memory = StepMemory()
        self.batch_text: tuple[str, ...] = ()
        self.sizes: dict[str, int] = {}
        self.not_run: list[str] = []
        self._arguments: tuple[Any, ...] = ()
        self._loss: Any = None

    def trained(self) -> list[Any]:
        """Return the parameters that are trained."""
        parameters = () if self.module is None else self.module.parameters()
        return [parameter for parameter in parameters if parameter.requires_grad]

    def all_stages(self) -> tuple[Outcome, str]:
        """Run every stage; return how that ended, and the stage that did not end well."""
        stages: dict[str, Callable[[], None]] = dict(
            zip(_STAGES, (self._make, self._make_batch, self._forward, self._backward, self._optimize), strict=True)
        )
        with faking() as fake_mode, _quiet_lightning():
            self._fake_mode = fake_mode
            with live_memory() as self._live:
                for name, stage in stages.items():
                    try:
                        stage()
                    except UnmakeableError as reason:
                        return Outcome("not run", str(reason)), name
                    except Exception as error:  # noqa: BLE001  # whatever the user's model raises is the result
                        return outcome_of(error, self._package()), name
        return Outcome("passed"), ""

    def _package(self) -> str:
        """Return the top-level package whose lines are the user's."""
        found: list[Any] = [self._step, type(self.module), self._build]
        roots = [str(getattr(one, "__module__", "")).partition(".")[0] for one in found]
        return next((root for root in roots if root not in {"", "builtins", "torch"}), "torch")

    # --- stages -----------------------------------------------------------------------------------
    def _make(self) -> None:
        import torch

        build: Any = self._build
        built = _fake_copy(build, self._fake_mode) if isinstance(build, torch.nn.Module) else self._build()
        if not isinstance(built, torch.nn.Module):
            msg = f"an nn.Module was expected from the function that builds it, and it returned {describe(built)}"
            raise UnmakeableError(msg)
        self.module = module = cast("Any", built)
        if _lightning(module) is not None:
            _attach_trainer(module)
            module.configure_model()
            self.not_run.append(_NOT_OURS)
        held: list[Any] = [*module.parameters(), *module.buffers()]
        self._live.see(held)
        self.memory = dataclasses.replace(self.memory, parameters=nbytes(held))

    def _make_batch(self) -> None:
        contract = (
            None if callable(self._step) else contract_within(getattr(cast("Any", type(self.module)), self._step, None))
        )
        if self._spec is None and contract is None:
            msg = f"{self._step!r} has no contract that says what a batch is: give one"
            raise UnmakeableError(msg)
        nodes, dims = _nodes_of(self._spec, contract)
        kind = cast("type[Any]", type(self.module))
        axes = axes_of(kind.__module__) or Axes()
        sizes = RunSizes("primes", {**dims, **self._pinned}, axes.sizes, fixed_sizes(tensor_specs(nodes.values())))
        maker = Maker(sizes, {self._package()}, {kind: self.module}, axes=axes)
        if contract is not None:
            maker.arguments[next(iter(contract.signature.parameters))] = self.module
            tie(contract, maker)
        if self._spec is not None or contract is None:
            ((name, node),) = nodes.items()
            self._arguments = (maker.value(node, name),)
        else:
            self._arguments = make_call(contract, maker, kind).args[1:]
        self.sizes = dict(sizes.single)
        self._note_batch(nodes)

    def _note_batch(self, nodes: Mapping[str, Node]) -> None:
        visits = [(name, value, nodes[name]) for name, value in zip(nodes, self._arguments, strict=False)]
        found = [(path, tensor) for path, tensor, _ in tensors(visits)]
        self.batch_text = tuple(f"{path}: {describe(tensor)}" for path, tensor in found)
        self._live.see([tensor for _, tensor in found])
        self._before = self._live.bytes

    def _forward(self) -> None:
        self.module.train()
        if callable(self._step):
            result = self._step(self.module, self._arguments[0])
        else:
            step = getattr(self.module, self._step)
            result = step(*self._arguments, **_indices(step, len(self._arguments)))
        self._loss = cast("Any", result)["loss"] if isinstance(result, Mapping) else result
        kept = max(self._live.bytes - self._before, 0)
        self.memory = dataclasses.replace(self.memory, activations=kept, peak=self._live.peak)

    def _backward(self) -> None:
        import torch

        if not getattr(self.module, "automatic_optimization", True):
            msg = "the module optimises by itself (automatic_optimization=False), within Lightning's loop only"
            raise UnmakeableError(msg)
        if not isinstance(self._loss, torch.Tensor):
            msg = f"the step returned {describe(self._loss)} and no loss"
            raise UnmakeableError(msg)
        cast("Any", self._loss).backward()
        gradients = [parameter.grad for parameter in self.trained() if parameter.grad is not None]
        without = len(self.trained()) - len(gradients)
        if without:
            self.not_run.append(f"{without} parameters of {len(self.trained())}: no gradient reaches them")
        self.memory = dataclasses.replace(self.memory, gradients=nbytes(gradients), peak=self._live.peak)

    def _optimize(self) -> None:
        if self._optimizer is not None:
            optimizers = [self._optimizer(self.module.parameters())]
        elif hasattr(self.module, "configure_optimizers"):
            optimizers = list(_optimizers_in(self.module.configure_optimizers()))
        else:
            self.not_run.append("the optimizer step: none was given")
            return
        for one in optimizers:
            one.step()
        state = [value for one in optimizers for held in one.state.values() for value in held.values()]
        tensors_of = [value for value in state if hasattr(value, "untyped_storage")]
        self.memory = dataclasses.replace(self.memory, optimizer=nbytes(tensors_of), peak=self._live.peak)


def _nodes_of(spec: Any, contract: FunctionContract | None) -> tuple[dict[str, Node], Mapping[str, int]]:
    """Return what a batch must be, by name, and the sizes that are known of its dims."""
    if spec is None and contract is not None:
        nodes = {name: node for name, node in contract.boundary.nodes.items() if name != "return"}
        return {name: node for name, node in nodes.items() if tensor_specs([node]) and name != "self"}, {}
    from ...data import BatchContract

    if isinstance(spec, BatchContract):
        return {spec.name: Builder().node(spec.annotation, spec.name)}, spec.dims
    return {"batch": Builder().node(spec, "batch")}, {}


def _indices(step: Callable[..., Any], given: int) -> dict[str, int]:
    """Return the indices that Lightning gives a step besides the batch, if it asks for them."""
    names = list(inspect.signature(step).parameters)[given:]
    return {name: 0 for name in names if name in {"batch_idx", "dataloader_idx"}}


def _optimizers_in(configured: Any) -> Iterator[Any]:
    """Yield the optimisers in whatever ``configure_optimizers`` returns."""
    import torch

    if isinstance(configured, torch.optim.Optimizer):
        yield configured
    elif isinstance(configured, Mapping):
        for value in cast("Mapping[Any, Any]", configured).values():
            yield from _optimizers_in(value)
    elif isinstance(configured, (list, tuple)):
        for value in cast("list[Any]", configured):
            yield from _optimizers_in(value)


def _told(memory: StepMemory) -> str:
    parts = {field.name: getattr(memory, field.name) for field in dataclasses.fields(memory)}
    return ", ".join(f"{name} {describe_bytes(count)}" for name, count in parts.items() if count)


def _fake_copy(module: Any, fake_mode: Any) -> Any:
    """Return a copy of a module whose tensors are fakes; the module itself stays as it is."""
    from torch._subclasses.fake_tensor import FakeCopyMode

    with FakeCopyMode(fake_mode):
        return copy.deepcopy(module)


# --- Lightning -----------------------------------------------------------------------------------------
def _lightning(module: Any) -> Any:
    """Return the Lightning that a module is of; None for a plain one."""
    names = [base.__module__ for base in type(module).__mro__ if base.__name__ == "LightningModule"]
    root = names[0].partition(".core")[0] if names else None
    return None if root is None else importlib.import_module(root)


def _attach_trainer(module: Any) -> None:
    """Give a module a trainer to ask for the number of steps; a barebones one, which logs nothing."""
    if module._trainer is None:  # noqa: SLF001  # asking for `trainer` raises
        module.trainer = _lightning(module).Trainer(
            accelerator="cpu", barebones=True, max_steps=_STEPS, max_epochs=-1, enable_model_summary=False
        )


class _quiet_lightning:  # noqa: N801  # used like a function
    """Keeps Lightning's loggers quiet for a block."""

    def __enter__(self) -> None:
        names = ("lightning.pytorch", "pytorch_lightning", "lightning.fabric")
        self._levels = [(logger, logger.level) for logger in map(logging.getLogger, names)]
        for logger, _ in self._levels:
            logger.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        for logger, level in self._levels:
            logger.setLevel(level)
