"""`torch.compile` and contracts: no graph breaks, nothing left in the graph, and violations that reach the user."""

import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypedDict

import pytest
import torch
from jaxtyping import Complex64, Float, Float32, Int64
from torch import Tensor, nn

import shapecheck
from shapecheck import ContractError, check, contract


class Counter:
    """A backend that runs graphs as they are and counts them and their operations."""

    def __init__(self) -> None:
        self.frames = 0
        self.ops: list[int] = []

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        del inputs
        self.frames += 1
        self.ops.append(sum(node.op.startswith("call_") for node in graph.graph.nodes))
        return graph.forward


@pytest.fixture(autouse=True)
def _fresh_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SHAPECHECK_ENGINE", "compiled")
    torch._dynamo.reset()  # noqa: SLF001  # its documented name
    yield
    torch._dynamo.reset()  # noqa: SLF001


def count(function: Callable[..., Any], *calls: tuple[Any, ...], **options: Any) -> tuple[list[Any], Counter]:
    """Compile a function without graph breaks and call it; return the results and what was compiled."""
    torch._dynamo.reset()  # noqa: SLF001
    counter = Counter()
    compiled = torch.compile(function, backend=counter, fullgraph=True, **options)
    return [compiled(*call) for call in calls], counter


def assert_compiles_like(checked: Callable[..., Any], plain: Callable[..., Any], *calls: tuple[Any, ...]) -> Counter:
    """Both compile to the same number of graphs with the same number of operations, and give the same results."""
    results, counter = count(checked, *calls)
    expected, plain_counter = count(plain, *calls)
    torch.testing.assert_close(results, expected)
    assert (counter.frames, counter.ops) == (plain_counter.frames, plain_counter.ops)
    return counter


# --- the plain function of each pair is what the contract was put on ---------------------------------
def blend(x: Float[Tensor, "b c 1 2"], y: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    return y + x.sum(-1, keepdim=True)


def attend(
    q: Float32[Tensor, "b n d"], k: Float32[Tensor, "b m d"], v: Float32[Tensor, "b m e"]
) -> Float32[Tensor, "b n e"]:
    return (q @ k.mT).softmax(-1) @ v


def pool(x: Float32[Tensor, "*batch h w"], half: bool = True) -> Float32[Tensor, "*batch h//2 w"]:
    return x[..., ::2, :][..., : x.shape[-2] // 2, :] if half else x


def stack(*images: Float32[Tensor, "h w"], bias: Float32[Tensor, " w"] | None = None) -> Float32[Tensor, "n h w"]:
    stacked = torch.stack(images)
    return stacked if bias is None else stacked + bias


def means(images: list[Float32[Tensor, "h w"]], named: dict[str, Float32[Tensor, "h w"]]) -> Float32[Tensor, "h w"]:
    return sum(images) + sum(named.values())


def weigh(
    x: Float32[Tensor, "n k"] | None, y: Float32[Tensor, "k m"] | None, z: list[Float32[Tensor, "n k"] | None]
) -> Float32[Tensor, "n m"]:
    first = next(item for item in (x, *z) if item is not None)
    return first.cos() if y is None else first @ y


class Fields(TypedDict):
    images: Float32[Tensor, "B C N N"]
    offsets: Float32[Tensor, "B C 1 2"]
    index: Int64[Tensor, "B C"]


def embed(batch: tuple[Fields, Float32[Tensor, "B 1 1 1"]]) -> Float32[Tensor, "B N N"]:
    fields, scale = batch
    return ((fields["images"] + fields["offsets"].sum(-1, keepdim=True)) * scale).sum(1) + fields["index"].sum()


def either(x: Float32[Tensor, "n h w"] | Complex64[Tensor, "n h w"]) -> Float32[Tensor, "n h w"]:
    return x.real.square()


def two_layouts(x: Float32[Tensor, "b c"] | Float32[Tensor, "c b"], y: Float32[Tensor, " b"]) -> Float32[Tensor, " b"]:
    return x.sum() + y  # both may fit: no fast path, the reference engine judges while the graph is traced


def make_fields(B: int = 3, C: int = 4, N: int = 8) -> tuple[Fields, Tensor]:
    fields = Fields(images=torch.rand(B, C, N, N), offsets=torch.rand(B, C, 1, 2), index=torch.arange(B * C).view(B, C))
    return fields, torch.rand(B, 1, 1, 1)


CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "two tensors": (blend, (torch.rand(3, 4, 1, 2), torch.rand(3, 4, 5, 6))),
    "attention": (attend, (torch.rand(3, 5, 7), torch.rand(3, 4, 7), torch.rand(3, 4, 6))),
    "variadic and symbolic": (pool, (torch.rand(2, 3, 7, 5),)),
    "star arguments": (stack, (torch.rand(5, 6), torch.rand(5, 6))),
    "list and dict": (means, ([torch.rand(5, 6), torch.rand(5, 6)], {"a": torch.rand(5, 6)})),
    "dims that either of two may bind": (weigh, (None, torch.rand(4, 6), [None, torch.rand(3, 4)])),
    "dims that nothing else binds": (weigh, (torch.rand(3, 4), None, [])),
    "batch of records": (embed, (make_fields(),)),
    "union of dtypes": (either, (torch.rand(3, 5, 6),)),
}


@pytest.mark.parametrize(("function", "call"), CASES.values(), ids=CASES)
def test_a_contract_leaves_nothing_in_the_graph(function: Callable[..., Any], call: tuple[Any, ...]) -> None:
    counter = assert_compiles_like(contract(function), function, call)
    assert counter.frames == 1


def test_what_has_no_fast_path_is_judged_while_the_graph_is_traced() -> None:
    call = (torch.rand(3, 4), torch.rand(3))
    checked = contract(two_layouts)
    assert not hasattr(checked, "__contract_source__")
    assert_compiles_like(checked, two_layouts, call)


def make_pair(make: Callable[[Callable[[Any], Any]], Any]) -> tuple[Any, Any]:
    """Define the same thing with and without contracts; `make` takes the decorator."""
    return make(contract), make(lambda target: target)


def nested(decorate: Callable[[Any], Any]) -> Callable[..., Any]:
    @decorate
    def inner(x: Float32[Tensor, "b n"], gain: float) -> Float32[Tensor, "b n"]:
        return x * gain

    @decorate
    def middle(x: Float32[Tensor, "b n"]) -> Float32[Tensor, "n b"]:
        return inner(x, gain=2.0).T + inner(x.T.contiguous(), 3.0)

    @decorate
    def outer(x: Float32[Tensor, "b n"]) -> Float32[Tensor, "n n"]:
        return middle(x) @ inner(x, 0.5)

    return outer


def test_nested_contracts_are_one_graph() -> None:
    assert assert_compiles_like(*make_pair(nested), (torch.rand(3, 4),)).frames == 1


def scaler(decorate: Callable[[Any], Any]) -> Any:
    class Scaler:
        dim = 5

        @decorate
        def plain(self, x: Float32[Tensor, "b {self.dim}"]) -> Float32[Tensor, "b {self.dim}"]:
            return x + self.dim

        @classmethod
        @decorate
        def of_class(cls, x: Float32[Tensor, " n"]) -> Float32[Tensor, " n"]:
            return x * cls.dim

        @staticmethod
        @decorate
        def of_none(x: Float32[Tensor, " n"], *, by: float = 2.0) -> Float32[Tensor, " n"]:
            return x * by

    return Scaler()


@pytest.mark.parametrize(("name", "shape"), [("plain", (3, 5)), ("of_class", (3,)), ("of_none", (3,))])
def test_methods_compile(name: str, shape: tuple[int, ...]) -> None:
    checked, plain = make_pair(scaler)
    assert_compiles_like(getattr(checked, name), getattr(plain, name), (torch.rand(shape),))


def network(decorate: Callable[[Any], Any]) -> nn.Module:
    torch.manual_seed(0)

    @decorate
    class Block(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.width = width
            self.norm = nn.LayerNorm(width)
            self.mix = nn.Linear(width, width)

        def forward(self, x: Float32[Tensor, "b n {self.width}"]) -> Float32[Tensor, "b n {self.width}"]:
            return x + torch.relu(self.mix(self.norm(x)))

    @decorate
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([Block(6) for _ in range(4)])

        def forward(self, x: Float32[Tensor, "b n d"]) -> Float32[Tensor, "b d"]:
            for block in self.blocks:
                x = block(x)
            return x.mean(1)

    return Network()


def test_a_network_of_four_blocks_is_one_graph() -> None:
    checked, plain = make_pair(network)
    assert assert_compiles_like(checked, plain, (torch.rand(3, 5, 6),)).frames == 1


def test_gradients_flow_through_a_compiled_contract() -> None:
    x, y = torch.rand(3, 4, 1, 2, requires_grad=True), torch.rand(3, 4, 5, 6)
    (result,), _ = count(contract(blend), (x, y))
    result.sum().backward()
    torch.testing.assert_close(x.grad, torch.full_like(x, 5.0 * 6.0))


# --- sizes that change ---------------------------------------------------------------------------
@pytest.mark.parametrize("dynamic", [None, True], ids=["automatic", "dynamic=True"])
@pytest.mark.parametrize("name", ["two tensors", "variadic and symbolic", "attention", "batch of records"])
def test_a_dynamic_batch_costs_no_extra_compilation(name: str, dynamic: bool | None) -> None:
    function, call = CASES[name]

    def resized(value: Any, B: int) -> Any:
        if isinstance(value, Tensor):
            return value[:1].expand(B, *value.shape[1:]).clone()
        if isinstance(value, dict):
            return {key: resized(item, B) for key, item in value.items()}
        return type(value)(resized(item, B) for item in value)

    calls = [resized(call, B) for B in (3, 5, 7, 11)]
    _, checked = count(contract(function), *calls, dynamic=dynamic)
    _, plain = count(function, *calls, dynamic=dynamic)
    assert (checked.frames, checked.ops) == (plain.frames, plain.ops)
    assert checked.frames <= 2


@pytest.mark.violation  # without contracts the 32 functions share one code object, and its limit
def test_thirty_two_contracts_stay_below_the_recompile_limit() -> None:
    layers = []
    for number in range(32):

        def layer(x: Float32[Tensor, "b n"], number: int = number) -> Float32[Tensor, "b n"]:
            return x + number

        layers.append(contract(layer))
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):  # noqa: SLF001
        for number, layer in enumerate(layers):
            counter = Counter()
            result = torch.compile(layer, backend=counter, fullgraph=True)(torch.zeros(3, 4))
            assert result.unique().tolist() == [number]
            assert counter.frames == 1


# --- violations ----------------------------------------------------------------------------------
violation = pytest.mark.violation
BAD: dict[str, tuple[Callable[..., Any], tuple[Any, ...], str]] = {
    "axis order": (blend, (torch.rand(3, 1, 2, 4), torch.rand(3, 4, 5, 6)), "axis-order"),
    "dtype": (blend, (torch.rand(3, 4, 1, 2).long(), torch.rand(3, 4, 5, 6)), "dtype"),
    "result": (pool, (torch.rand(2, 7, 5), False), "axis-size"),
    "inside a record": (embed, (make_fields(),), "missing-axis"),
    "no fast path": (two_layouts, (torch.rand(3, 4), torch.rand(5)), "axis-size"),
}
BAD["inside a record"][1][0][0]["index"] = torch.zeros(3).long()


def text_of(function: Callable[..., Any], call: tuple[Any, ...]) -> str:
    """The error's text, without the line that says where the call stands."""
    with pytest.raises(ContractError) as caught:
        function(*call)
    assert caught.value.violations
    return str(caught.value).partition("     called")[0]


@violation
@pytest.mark.parametrize("fullgraph", [True, False])
@pytest.mark.parametrize(("function", "call", "identifier"), BAD.values(), ids=BAD)
def test_a_violation_reaches_the_user_with_its_whole_text(
    function: Callable[..., Any], call: tuple[Any, ...], identifier: str, fullgraph: bool
) -> None:
    checked = contract(function)
    compiled = torch.compile(checked, backend="eager", fullgraph=fullgraph)
    text = text_of(checked, call)
    assert text.startswith(f"ContractError [{identifier}]")
    assert text_of(compiled, call) == text


@violation
@pytest.mark.parametrize("fullgraph", [True, False])
def test_a_violation_after_good_calls_is_found_and_good_calls_go_on(fullgraph: bool) -> None:
    checked = contract(blend)
    compiled = torch.compile(checked, backend="eager", fullgraph=fullgraph)
    for B in (3, 5, 7):
        x, y = torch.rand(B, 4, 1, 2), torch.rand(B, 4, 5, 6)
        torch.testing.assert_close(compiled(x, y), blend(x, y))
        assert text_of(compiled, (x, y[:2])) == text_of(checked, (x, y[:2]))
        torch.testing.assert_close(compiled(x, y), blend(x, y))


@violation
def test_a_violation_inside_nested_modules_is_found() -> None:
    compiled = torch.compile(network(contract), backend="eager", fullgraph=True)
    compiled(torch.rand(3, 5, 6))
    text = text_of(compiled, (torch.rand(3, 5, 7),))
    assert "Block.forward, parameter 'x'" in text
    assert "{self.width}=6" in text


@violation
def test_checks_inside_a_compiled_function_are_traced_or_judged() -> None:
    annotation = Float32[Tensor, "b 2"]

    def double(x: Tensor) -> Tensor:
        return check(x, annotation, "x", dims={"b": 3}) * 2

    compiled = torch.compile(double, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(torch.ones(3, 2)), torch.full((3, 2), 2.0))
    assert "parameter 'x'" in text_of(compiled, (torch.ones(3, 3),))


@violation
def test_the_reference_engine_compiles_too_with_sizes_made_constant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHAPECHECK_ENGINE", "reference")
    checked = contract(blend)
    calls = [(torch.rand(B, 4, 1, 2), torch.rand(B, 4, 5, 6)) for B in (3, 5)]
    results, counter = count(checked, *calls)
    torch.testing.assert_close(results, [blend(*call) for call in calls])
    assert counter.frames == len(calls)
    assert text_of(torch.compile(checked, backend="eager", fullgraph=True), (calls[0][0], calls[1][1]))


@violation
def test_a_mode_block_is_seen_by_a_compiled_function() -> None:
    compiled = torch.compile(contract(blend), backend="eager", fullgraph=True)
    bad = (torch.rand(3, 4, 1, 1), torch.rand(3, 4, 5, 6))
    with pytest.raises(ContractError):
        compiled(*bad)
    with shapecheck.mode("off"):
        assert compiled(*bad).shape == (3, 4, 5, 6)
    with pytest.raises(ContractError):
        compiled(*bad)


@violation
@pytest.mark.slow
def test_inductor_compiles_contracts_and_reports_violations() -> None:
    checked = contract(blend)
    compiled = torch.compile(checked, fullgraph=True)
    x, y = torch.rand(3, 4, 1, 2), torch.rand(3, 4, 5, 6)
    torch.testing.assert_close(compiled(x, y), blend(x, y))
    assert text_of(compiled, (x[..., :1], y)) == text_of(checked, (x[..., :1], y))


# --- the physics of ptycho_torch -----------------------------------------------------------------
@pytest.fixture(scope="module")
def ptychography(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], SimpleNamespace]]:
    """Imports the physics and the model in a mode, as a package of its own: guards look modules up by their names."""
    source, folder = Path(find_spec("ptycho_torch").origin).parent, tmp_path_factory.mktemp("copies")

    @functools.cache
    def load(mode: str) -> SimpleNamespace:
        copy = f"ptychography_{mode}"
        for path in source.rglob("*.py"):
            target = folder / copy / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(path.read_text().replace("ptycho_torch", copy))
        with shapecheck.mode(mode):
            modules = [importlib.import_module(f"{copy}.{name}") for name in ("helper", "model", "config_params")]
        return SimpleNamespace(**{name: value for module in modules for name, value in vars(module).items()})

    sys.path.insert(0, str(folder))
    yield load
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.startswith("ptychography_")]:
        del sys.modules[name]


def make_physics(p: SimpleNamespace) -> Callable[..., Any]:
    def physics(patches: Tensor, offsets: Tensor, probe: Tensor) -> Tensor:
        canvas, _ = p.reassemble_patches_position_real(patches, offsets, 24, p.probe_weights(probe))
        shared = p.extract_channels_from_region(canvas.unsqueeze(1), offsets, 16)
        return p.diffract(p.illuminate(shared, probe))

    return physics


def make_group(B: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(B)
    patches, probe = (torch.randn(B, 4, *n, 16, 16, dtype=torch.complex64, generator=generator) for n in ((), (2,)))
    return patches, torch.randint(-3, 4, (B, 4, 1, 2), generator=generator).float(), probe


def test_the_physics_of_ptychography_compiles_as_if_it_had_no_contracts(
    ptychography: Callable[[str], SimpleNamespace],
) -> None:
    checked, plain = (make_physics(ptychography(name)) for name in ("on", "off"))
    counter = assert_compiles_like(checked, plain, *(make_group(B) for B in (3, 5, 7)))
    assert counter.frames <= 2


def test_the_ptychography_model_compiles_as_if_it_had_no_contracts(
    ptychography: Callable[[str], SimpleNamespace],
) -> None:
    def make(p: SimpleNamespace) -> nn.Module:
        torch.manual_seed(0)
        config = p.ModelConfig(N=16, P=2, gridsize=2, C=4, max_neighbor_distance=4.0)
        probe = torch.ones(2, 16, 16, dtype=torch.complex64)
        model = p.PtychoModel(config, p.normalise_probe(probe)).eval()
        model.network.stages = model.network.stages[:2]  # the others are no different
        return model

    scale = torch.ones(3, 1, 1, 1)
    _, offsets, probe = make_group(3)
    call = (torch.rand(3, 4, 16, 16), offsets, probe, scale, scale)
    checked, plain = (make(ptychography(name)) for name in ("on", "off"))
    assert assert_compiles_like(checked, plain, call).frames == 1
