"""`torch.export` of contracted code: it exports, and the batch stays symbolic."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from jaxtyping import Bool, Float32
from torch import Tensor, nn
from torch.export import Dim

from shapecheck import ContractError, contract

STRICT = pytest.mark.parametrize("strict", [True, False], ids=["strict", "non-strict"])


@pytest.fixture(autouse=True)
def _fresh_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SHAPECHECK_ENGINE", "compiled")
    yield
    torch._dynamo.reset()  # noqa: SLF001  # its documented name


def make_model(decorate: Callable[[Any], Any] = contract) -> nn.Module:
    torch.manual_seed(0)

    @decorate
    def gain(x: Float32[Tensor, "B c h w"], by: Float32[Tensor, "B c 1 1"]) -> Float32[Tensor, "B c h w"]:
        return x * by

    @decorate
    class Model(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.channels = channels
            self.mix = nn.Conv2d(channels, channels, 3, padding=1)

        def forward(
            self, images: Float32[Tensor, "B {self.channels} h w"], weights: Float32[Tensor, "B {self.channels}"]
        ) -> tuple[Float32[Tensor, "B {self.channels} h w"], Float32[Tensor, " B"]]:
            mixed = gain(self.mix(images), weights[:, :, None, None])
            return mixed, mixed.mean((1, 2, 3))

    return Model(4).eval()


def make_call(B: int = 3) -> tuple[Tensor, Tensor]:
    return torch.rand(B, 4, 5, 6), torch.rand(B, 4)


def operations(program: torch.export.ExportedProgram) -> list[str]:
    return [str(node.target) for node in program.graph.nodes if node.op == "call_function"]


@STRICT
def test_an_exported_contract_is_the_graph_of_the_plain_function(strict: bool) -> None:
    checked, plain = (
        torch.export.export(make_model(decorate), make_call(), strict=strict)
        for decorate in (contract, lambda target: target)
    )
    assert operations(checked) == operations(plain)
    torch.testing.assert_close(
        checked.module()(*make_call()), plain.module()(*make_call()), equal_nan=True, rtol=9, atol=9
    )


@STRICT
def test_a_dynamic_batch_stays_symbolic(strict: bool) -> None:
    model, batch = make_model(), Dim("batch", min=2, max=64)
    program = torch.export.export(
        model, make_call(), dynamic_shapes={"images": {0: batch}, "weights": {0: batch}}, strict=strict
    )
    for B in (2, 3, 7):
        call = make_call(B)
        torch.testing.assert_close(program.module()(*call), model(*call))
    placeholders = [node for node in program.graph.nodes if node.op == "placeholder" and node.name == "images"]
    size, *rest = placeholders[0].meta["val"].shape
    assert isinstance(size, torch.SymInt)
    assert rest == [4, 5, 6]


@STRICT
def test_automatic_dims_are_exported_without_new_specialisation(strict: bool) -> None:
    model, auto = make_model(), Dim.AUTO
    program = torch.export.export(
        model,
        make_call(),
        dynamic_shapes={"images": {0: auto, 2: auto, 3: auto}, "weights": {0: auto}},
        strict=strict,
    )
    call = (torch.rand(7, 4, 9, 8), torch.rand(7, 4))
    torch.testing.assert_close(program.module()(*call), model(*call))


@pytest.mark.violation
@STRICT
def test_a_violation_while_exporting_has_its_whole_text(strict: bool) -> None:
    images, weights = make_call()
    with pytest.raises(ContractError, match=r"parameter 'weights'[\s\S]*axis 0 is 2, the contract says B=3"):
        torch.export.export(make_model(), (images, weights[:2]), strict=strict)


@STRICT
def test_a_contract_that_ties_the_batch_to_a_number_makes_it_that_number(strict: bool) -> None:
    @contract
    class Fixed(nn.Module):
        def forward(self, x: Float32[Tensor, "3 n"]) -> Float32[Tensor, "3 n"]:
            return x + 1

    program = torch.export.export(Fixed(), (torch.rand(3, 5),), dynamic_shapes={"x": {1: Dim.AUTO}}, strict=strict)
    assert program.module()(torch.rand(3, 7)).shape == (3, 7)


class Selected(nn.Module):
    """Has a size that depends on data: an unbacked SymInt."""

    def __init__(self, decorate: Callable[[Any], Any]) -> None:
        super().__init__()
        self.scale = decorate(scale)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        chosen = x[keep.nonzero()[:, 0]]
        return self.scale(chosen, x)


def scale(chosen: Float32[Tensor, "k n"], everything: Float32[Tensor, "m n"]) -> Float32[Tensor, "k n"]:
    return chosen * everything.mean(0)


@STRICT
def test_a_size_that_depends_on_data_is_exported_when_nothing_has_to_be_known_about_it(strict: bool) -> None:
    call = (torch.rand(5, 3), torch.tensor([True, False, True, True, False]))
    program = torch.export.export(Selected(contract), call, strict=strict)
    other = (call[0], torch.tensor([True, False, False, False, False]))
    torch.testing.assert_close(program.module()(*other), Selected(lambda target: target)(*other))


@contract
def paired(first: Float32[Tensor, "k n"], second: Float32[Tensor, "k n"]) -> Float32[Tensor, "k n"]:
    return first + second


@contract
def paired_runs(first: Float32[Tensor, "*k n"], second: Float32[Tensor, "*k #n"]) -> Float32[Tensor, "*k n"]:
    return first + second


@contract
def doubled(first: Float32[Tensor, "k n"], second: Float32[Tensor, "k n"]) -> Float32[Tensor, "2*k n"]:
    return torch.cat([first, second])


class Pair(nn.Module):
    """Compares two unbacked SymInts."""

    def __init__(self, combine: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.combine = combine

    def forward(self, x: Tensor, keep: Tensor, take: Tensor) -> Tensor:
        return self.combine(x[keep.nonzero()[:, 0]], x[take.nonzero()[:, 0]])


class Split(nn.Module):
    """Returns what has unbacked sizes that its own contract compares."""

    @contract
    def forward(
        self, x: Float32[Tensor, "m n"], keep: Bool[Tensor, " m"], take: Bool[Tensor, " m"]
    ) -> tuple[Float32[Tensor, "k n"], Float32[Tensor, "k n"]]:
        return x[keep.nonzero()[:, 0]], x[take.nonzero()[:, 0]]


def make_choice(*keep: bool) -> Tensor:
    return torch.tensor(keep)


UNBACKED = pytest.mark.parametrize(
    "make_model",
    [lambda: Pair(paired), lambda: Pair(paired_runs), lambda: Pair(doubled), Split],
    ids=["names", "runs", "expression", "result"],
)


@pytest.mark.violation
@STRICT
@UNBACKED
def test_sizes_that_depend_on_data_are_compared_when_the_graph_runs(make_model: Callable, strict: bool) -> None:
    x, keep, take = torch.rand(3, 2), make_choice(True, False, True), make_choice(False, True, True)
    program = torch.export.export(make_model(), (x, keep, take), strict=strict)
    for result, expected in zip(program.module()(x, take, keep), make_model()(x, take, keep), strict=True):
        torch.testing.assert_close(result, expected)
    with pytest.raises(RuntimeError, match=r"Eq\(u"):
        program.module()(x, take, make_choice(True, True, True))


@pytest.mark.violation
@UNBACKED
@torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True)  # noqa: SLF001
def test_a_compiled_graph_compares_sizes_that_depend_on_data_when_it_runs(make_model: Callable) -> None:
    x, keep, take = torch.rand(3, 2), make_choice(True, False, True), make_choice(False, True, True)
    compiled = torch.compile(make_model(), fullgraph=True, backend="eager")
    for result, expected in zip(compiled(x, keep, take), make_model()(x, keep, take), strict=True):
        torch.testing.assert_close(result, expected)
    with pytest.raises(RuntimeError, match=r"Eq\(u"):
        compiled(x, take, make_choice(True, True, True))


@pytest.mark.violation
def test_a_wrong_size_beside_one_that_depends_on_data_is_a_violation() -> None:
    class Narrow(nn.Module):
        def forward(self, x: Tensor, keep: Tensor) -> Tensor:
            chosen = keep.nonzero()[:, 0]
            return paired(x[chosen], x[:, :1][chosen])

    call = (torch.rand(3, 2), make_choice(True, False, True))
    with pytest.raises(ContractError, match="axis 1 is 1, the contract says n=2"):
        torch.export.export(Narrow(), call, strict=True)
    with pytest.raises(torch.fx.experimental.symbolic_shapes.GuardOnDataDependentSymNode):
        torch.export.export(Narrow(), call, strict=False)  # there the report itself needs to know the size
