"""What `strength` says of a mutant is what a call with real tensors ends in: the two can never disagree."""

import dataclasses
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple

import pytest

pytest.importorskip("torch")

import contract_cases as cases
import torch
from contract_cases import BODY, FUNCTIONS, TIES
from jaxtyping import Float32
from realised import Realiser, call_with
from torch import Tensor, nn

from shapecheck import ContractError, contract
from shapecheck._boundaries.inheritance import contract_within
from shapecheck.audit._mutation.judge import Judge, rebuilt
from shapecheck.audit._mutation.leaves import leaves_of
from shapecheck.audit._mutation.mutants import changes_of
from shapecheck.audit._mutation.shells import attributes_of
from shapecheck.audit._mutation.specimen import Specimen, Stage, specimen_of, subject_of_function
from shapecheck.audit._strength import subject_of
from shapecheck.data import BatchContract

pytestmark = pytest.mark.violation


@pytest.fixture
def _only_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of calls are refused here: leave out what is said about it, which comes after the verdict."""
    monkeypatch.setattr("shapecheck._boundaries.boundary.diagnose", lambda *_: ())
    monkeypatch.setattr("shapecheck._boundaries.boundary.render", lambda _: "refused")


def is_refused(function: Callable[..., Any], arguments: dict[str, Any], result: Any, *, entering: bool) -> bool:
    """Really call a function; tell whether its contract refuses the arguments or, if not `entering`, the result."""
    BODY.was_reached, BODY.result = False, result
    try:
        call_with(function, arguments)
    except ContractError:
        return BODY.was_reached is not entering
    except (AttributeError, IndexError):  # an expression of the contract, before anything is judged
        return not BODY.was_reached
    return False


def verdicts(function: Callable[..., Any], specimen: Specimen, stage: Stage) -> Iterator[tuple[Any, bool, bool]]:
    """Yield each change with what the judge says of it, and what a real call with it ends in."""
    judge = Judge(specimen, stage)
    stages = {known.name: known for known in specimen.stages}
    kinds = {id(leaf.value): leaf.kinds for known in specimen.stages for leaf in leaves_of(known.roots)}
    result = stages["return"].roots[0][1] if "return" in stages else None
    for change in changes_of(specimen, stage):
        real = Realiser(kinds)
        arguments = {name: real.value(rebuilt(value, change.edits)) for name, value in specimen.arguments.items()}
        returned = real.value(rebuilt(result, change.edits))
        refused = is_refused(function, arguments, returned, entering=stage.name == "arguments")
        yield change, not judge.accepts(change), refused


@pytest.mark.usefixtures("engine", "_only_verdicts")
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_every_verdict_on_a_mutant_is_that_of_a_real_call(function: Callable[..., Any]) -> None:
    checked = contract(dims=TIES.get(function))(function)
    specimen = specimen_of(subject_of_function(contract_within(checked)))
    real = Realiser({})
    result = specimen.stages[-1].roots[0][1] if specimen.stages[-1].name == "return" else None
    BODY.result = real.value(result)
    call_with(checked, {name: real.value(value) for name, value in specimen.arguments.items()})
    judged = [item for stage in specimen.stages for item in verdicts(checked, specimen, stage)]
    assert judged
    assert [(change, caught) for change, caught, refused in judged if caught is not refused] == []


def agreed(target: Any, stage: Stage, specimen: Specimen, really: Callable[[dict[int, Any]], object]) -> set[str]:
    """Compare the verdict on every change of a stage with what really happens; return the families that occur."""
    judge, seen = Judge(specimen, stage), set[str]()
    really({})
    for change in changes_of(specimen, stage):
        try:
            really(change.edits)
            refused = False
        except ContractError:
            refused = True
        assert judge.accepts(change) is not refused, (target, change)
        seen.add(change.family)
    return seen


def new_dataclass() -> type:
    @dataclasses.dataclass
    class Record:
        x: Float32[Tensor, "n k"]
        y: Float32[Tensor, " k"]
        z: Float32[Tensor, "n k"]
        inner: cases.Sample

    return Record


def new_named_tuple() -> type:
    class Pair(NamedTuple):
        x: Float32[Tensor, "n k"]
        y: Float32[Tensor, " k"]

    return Pair


@pytest.mark.usefixtures("engine", "_only_verdicts")
@pytest.mark.parametrize("define", [new_dataclass, new_named_tuple])
def test_every_verdict_on_a_record_is_that_of_its_construction(define: Callable[[], type]) -> None:
    kind: Any = contract(define())
    specimen = specimen_of(subject_of(kind))
    stage = specimen.stages[0]

    def construct(edits: dict[int, Any]) -> None:
        shell = rebuilt(stage.roots[0][1], edits)
        kind(**{name: Realiser({}).value(value) for name, value in attributes_of(shell).items()})

    assert {"permuted", "dtype", "resized", "swapped"} <= agreed(kind, stage, specimen, construct)


@pytest.mark.usefixtures("engine", "_only_verdicts")
@pytest.mark.parametrize("dims", [{}, {"C": 4}, {"C": 4, "N": 6, "B": 2}])
def test_every_verdict_on_a_batch_is_that_of_its_contract(dims: dict[str, int]) -> None:
    batch = BatchContract(tuple[cases.Fields, Float32[Tensor, "B 1"]], dims=dims)
    specimen = specimen_of(subject_of(batch))
    stage = specimen.stages[0]

    def cross(edits: dict[int, Any]) -> None:
        batch.check(Realiser({}).value(rebuilt(stage.roots[0][1], edits)))

    assert {"keys", "length", "permuted"} <= agreed(batch, stage, specimen, cross)


@pytest.mark.usefixtures("engine", "_only_verdicts")
def test_every_verdict_on_a_method_of_a_module_is_that_of_a_real_call() -> None:
    @contract(dims={"d": "self.config.d"})
    class Module(nn.Module):
        gain: Float32[Tensor, " c"]
        weight: Float32[nn.Parameter, "o c"]

        def forward(self, x: Float32[Tensor, "b c d"]) -> Float32[Tensor, "b o"]:
            return cases.BODY()

    checked = Module.forward
    specimen = specimen_of(subject_of_function(contract_within(checked)))
    assert [stage.name for stage in specimen.stages] == ["arguments", "return"]
    judged = [item for stage in specimen.stages for item in verdicts(checked, specimen, stage)]
    assert {"keys", "permuted", "swapped"} <= {change.family for change, _, _ in judged}
    assert [(change, caught) for change, caught, refused in judged if caught is not refused] == []


@pytest.mark.usefixtures("engine", "_only_verdicts")
def test_every_verdict_on_a_generator_is_that_of_its_first_item() -> None:
    @contract
    def stream(x: Float32[Tensor, "n d"]) -> Generator[Float32[Tensor, "b d"], None, Float32[Tensor, " d"]]:
        yield given["yield[0]"]
        return given["return"]

    given: dict[str, Any] = {}
    specimen = specimen_of(subject_of_function(contract_within(stream)))
    assert [stage.name for stage in specimen.stages] == ["arguments", "yield[0]", "return"]
    for stage in specimen.stages:

        def run(edits: dict[int, Any], stage: Stage = stage) -> None:
            for known in specimen.stages:
                changed = rebuilt(known.roots[0][1], edits if known is stage else {})
                given[known.name] = Realiser({}).value(changed)
            items = stream(given["arguments"])
            if stage.name == "arguments":
                given["yield[0]"] = torch.zeros(2, given["arguments"].shape[-1])
                next(items)
            else:
                list(items)

        agreed(stream, stage, specimen, run)


@pytest.mark.usefixtures("engine", "_only_verdicts")
def test_every_verdict_on_a_callable_is_that_of_calling_it() -> None:
    @contract
    def apply(
        x: Float32[Tensor, "h w"], by: Callable[[Float32[Tensor, "h w"], Float32[Tensor, " k"]], Float32[Tensor, "w k"]]
    ) -> None:
        by(*given["call of by"])

    given: dict[str, Any] = {}
    specimen = specimen_of(subject_of_function(contract_within(apply)))
    assert [stage.name for stage in specimen.stages] == ["arguments", "call of by", "result of by"]
    for stage in specimen.stages[1:]:

        def run(edits: dict[int, Any], stage: Stage = stage) -> None:
            for known in specimen.stages:
                changed = [rebuilt(value, edits if known is stage else {}) for _, value, _ in known.roots]
                given[known.name] = [Realiser({}).value(value) for value in changed]
            apply(given["arguments"][0], lambda *_: given["result of by"][0])

        assert "permuted" in agreed(apply, stage, specimen, run)


def test_the_comparison_would_notice_a_judge_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = contract(cases.pair)
    specimen = specimen_of(subject_of_function(contract_within(checked)))
    monkeypatch.setattr(Judge, "accepts", lambda self, change: change.family == "permuted")
    judged = list(verdicts(checked, specimen, specimen.stages[0]))
    wrong = {change.family for change, caught, refused in judged if caught is not refused}
    assert wrong == {"permuted"}
