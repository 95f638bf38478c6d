"""From a contract to `torch.export`: dynamic shapes, and a guard that travels with the exported program."""

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

import pytest
import torch
from jaxtyping import Float32, Int64
from torch import Tensor, nn
from torch.export import Dim, export

from shapecheck import Axes, ContractError, contract, mode
from shapecheck import Dim as AxisDim
from shapecheck.audit import GuardedProgram, dynamic_shapes, guarded, load_guarded

STRICT = pytest.mark.parametrize("strict", [True, False], ids=["strict", "non-strict"])


@pytest.fixture(autouse=True)
def _checking_is_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """What these tests define has contracts, also where nothing else has."""
    monkeypatch.setenv("SHAPECHECK", "on")
    monkeypatch.delenv("JAXTYPING_DISABLE", raising=False)


def named(dims: Any) -> Any:
    """Return dynamic shapes with names in place of torch's dims."""
    if isinstance(dims, dict):
        return {key: named(item) for key, item in dims.items()}
    if isinstance(dims, (list, tuple)):
        return [named(item) for item in dims]
    return "auto" if dims is Dim.AUTO else getattr(dims, "__name__", dims)


def shapes_of(forward: Any, *args: Any, sizes: Any = None, **kwargs: Any) -> Any:
    return named(dynamic_shapes(contract(forward), args, kwargs, sizes=sizes))


# --- which axes stay open ----------------------------------------------------------------------------------
def test_named_dims_stay_open_and_numbers_do_not() -> None:
    def forward(x: Float32[Tensor, "batch 3 h"], y: Float32[Tensor, " batch"], n: int = 2) -> None: ...

    assert shapes_of(forward, torch.rand(4, 3, 5), torch.rand(4)) == {"x": {0: "batch", 2: "h"}, "y": {0: "batch"}}
    given = shapes_of(forward, torch.rand(4, 3, 5), torch.rand(4), 7)
    assert given["n"] is None


def test_a_name_stands_for_one_dim_wherever_it_stands() -> None:
    @contract
    def forward(x: Float32[Tensor, "batch h"], y: Float32[Tensor, " batch"]) -> None: ...

    dims = dynamic_shapes(forward, (torch.rand(4, 5), torch.rand(4)))
    assert dims["x"][0] is dims["y"][0]
    assert dims["x"][0] is not dims["x"][1]


AXES = {
    "line": ("batch", "2*batch+1", (4,), (9,), {"x": {0: "batch"}, "y": {0: "2*batch + 1"}}),
    "half": ("batch", "batch//2", (4,), (2,), {"x": {0: "auto"}, "y": {0: "auto"}}),
    "product": ("batch width", "batch*width", (4, 3), (12,), {"x": {0: "auto", 1: "auto"}, "y": {0: "auto"}}),
    "square": ("batch", "batch**2", (4,), (16,), {"x": {0: "auto"}, "y": {0: "auto"}}),
    "anonymous": ("batch _", "batch", (4, 5), (4,), {"x": {0: "batch", 1: "auto"}, "y": {0: "batch"}}),
    "ellipsis": ("batch ...", "batch", (4, 5, 6), (4,), {"x": {0: "batch", 1: "auto", 2: "auto"}, "y": {0: "batch"}}),
    "run": ("*run 3", "*run", (4, 5, 3), (4, 5), {"x": {0: "run_0", 1: "run_1"}, "y": {0: "run_0", 1: "run_1"}}),
    "broadcast": ("batch width", "batch #width", (4, 5), (4, 1), {"x": {0: "batch", 1: "width"}, "y": {0: "batch"}}),
    "not broadcast": ("width", "#width", (5,), (5,), {"x": {0: "width"}, "y": {0: "width"}}),
}


@pytest.mark.parametrize(("x", "y", "x_shape", "y_shape", "expected"), AXES.values(), ids=AXES)
def test_every_kind_of_axis_is_what_export_can_make_of_it(
    x: str, y: str, x_shape: Any, y_shape: Any, expected: Any
) -> None:
    def forward(x: Float32[Tensor, x], y: Float32[Tensor, y]) -> None: ...

    assert shapes_of(forward, torch.rand(x_shape), torch.rand(y_shape)) == expected


class Fields(TypedDict):
    images: Float32[Tensor, "batch h"]
    labels: NotRequired[Int64[Tensor, " batch"]]


class Pair(NamedTuple):
    first: Float32[Tensor, " batch"]
    second: Float32[Tensor, " other"]


def test_containers_are_mirrored_as_export_knows_them() -> None:
    def forward(
        fields: Fields,
        pair: Pair,
        stack: list[Float32[Tensor, "batch h"]],
        either: Float32[Tensor, " h"] | tuple[Float32[Tensor, " batch"], int],
        *more: Float32[Tensor, " batch"],
        plain: Tensor,
        **named: Float32[Tensor, " h"],
    ) -> None: ...

    x, y = torch.rand(4, 5), torch.rand(4)
    args = ({"images": x}, Pair(y, torch.rand(6)), [x, x], (y, 3), y, y)
    found = dynamic_shapes(contract(forward), args, {"plain": y, "last": torch.rand(5)})
    assert type(found["pair"]) is Pair
    assert type(found["more"]) is tuple
    assert named(found) == {
        "fields": {"images": {0: "batch", 1: "h"}},
        "pair": [{0: "batch"}, {0: "other"}],
        "stack": [{0: "batch", 1: "h"}, {0: "batch", 1: "h"}],
        "either": [{0: "batch"}, None],
        "more": [{0: "batch"}, {0: "batch"}],
        "plain": None,
        "named": {"last": {0: "h"}},
    }


def test_limits_of_the_registry_are_those_of_the_export() -> None:
    axes = Axes(batch=range(1, 65), width=AxisDim("columns", size={8, 16}), side=AxisDim("pixels", size=5))

    @contract(axes=axes)
    def forward(x: Float32[Tensor, "batch width side"]) -> None: ...

    dims = dynamic_shapes(forward, (torch.rand(4, 8, 5),))["x"]
    assert [(dims[axis].min, dims[axis].max) for axis in (0, 1)] == [(1, 64), (8, 16)]
    assert dims.keys() == {0, 1}  # a dim that has one size is fixed
    narrower = dynamic_shapes(forward, (torch.rand(4, 8, 5),), sizes={"batch": range(2, 9), "width": 8})["x"]
    assert (narrower[0].max, narrower.keys()) == (8, {0})


@pytest.mark.parametrize("size", [0, 1])
def test_a_size_that_export_takes_for_a_constant_is_refused_with_the_cure(size: int) -> None:
    def forward(x: Float32[Tensor, "batch 3"]) -> None: ...

    with pytest.raises(
        ValueError, match=rf"Expected dim batch .* at least 2 .*, got {size}: .* or sizes=\{{'batch': {size}\}}"
    ):
        shapes_of(forward, torch.rand(size, 3))
    assert shapes_of(forward, torch.rand(size, 3), sizes={"batch": size}) == {"x": {}}
    assert shapes_of(forward, torch.rand(2, 3)) == {"x": {0: "batch"}}


def test_a_call_that_breaks_the_contract_is_refused_as_everywhere() -> None:
    def forward(x: Float32[Tensor, "batch 3"]) -> None: ...

    with pytest.raises(ContractError, match="axis 1 is 4, the contract says 3"):
        shapes_of(forward, torch.rand(2, 4))


@pytest.mark.parametrize("sizes", [{"batch": 3}, {"batch": range(5, 9)}, {"bacth": 2}], ids=["size", "range", "name"])
def test_sizes_that_the_call_does_not_have_are_refused(sizes: Any) -> None:
    def forward(x: Float32[Tensor, "batch 3"]) -> None: ...

    with pytest.raises(ValueError, match="Expected the call to have ba"):
        shapes_of(forward, torch.rand(2, 3), sizes=sizes)


def test_what_has_no_contract_is_refused_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"got torch\.Linear\. Put @contract on it"):
        dynamic_shapes(nn.Linear(2, 3), (torch.rand(2, 2),))
    monkeypatch.setenv("SHAPECHECK", "off")
    with pytest.raises(ValueError, match="Checking is off: export with SHAPECHECK=on"):
        dynamic_shapes(nn.Linear(2, 3), (torch.rand(2, 2),))


# --- torch takes them ----------------------------------------------------------------------------------------
class Batch(TypedDict):
    images: Float32[Tensor, "N {self.channels} h w"]
    weights: Float32[Tensor, "N {self.channels}"]


Stack = list[Float32[Tensor, "2*N"]]  # noqa: F821  # no forward reference, but a shape
Mask = Float32[Tensor, "N #h w"]

with mode("on"):  # also where nothing else is checked

    @contract(axes=Axes(N=range(1, 65), h="rows", w="columns"))
    class Model(nn.Module):
        """Has everything that an export can be asked for; N and S are names that sympy has plans for."""

        def __init__(self, channels: int = 4) -> None:
            super().__init__()
            self.channels = channels
            self.mix = nn.Conv2d(channels, channels, 3, padding=1)

        def forward(
            self, batch: Batch, stack: Stack, *, mask: Mask | None = None
        ) -> Float32[Tensor, "N {self.channels} h w"]:
            mixed = self.mix(batch["images"]) * batch["weights"][:, :, None, None] + stack[0].mean()
            return mixed if mask is None else mixed * mask[:, None]


def make_call(N: int = 3, C: int = 4, h: int = 5, w: int = 6) -> tuple[tuple[Any, ...], dict[str, Any]]:
    batch = {"images": torch.rand(N, C, h, w), "weights": torch.rand(N, C)}
    return (batch, [torch.rand(2 * N)]), {"mask": torch.rand(N, 1, w)}


def make_program(model: nn.Module, *, strict: bool = False, **sizes: Any) -> torch.export.ExportedProgram:
    args, kwargs = make_call()
    shapes = dynamic_shapes(model, args, kwargs, sizes=sizes)
    return export(model, args, kwargs, dynamic_shapes=shapes, strict=strict)


@STRICT
def test_a_module_is_exported_with_every_named_dim_open(strict: bool) -> None:
    model = Model().eval()
    program = make_program(model, strict=strict)
    for N, h, w in ((2, 7, 8), (64, 3, 3), (5, 6, 5)):
        args, kwargs = make_call(N, h=h, w=w)
        torch.testing.assert_close(program.module()(*args, **kwargs), model(*args, **kwargs))


@STRICT
@pytest.mark.parametrize("case", ["line", "half", "product"])
def test_relations_between_dims_survive_the_export(case: str, strict: bool) -> None:
    x, y, x_shape, y_shape, _ = AXES[case]

    @contract
    class Related(nn.Module):
        def forward(self, x: Float32[Tensor, x], y: Float32[Tensor, y]) -> Float32[Tensor, ""]:
            return x.sum() + y.sum()

    args = (torch.rand(x_shape), torch.rand(y_shape))
    program = export(Related(), args, dynamic_shapes=dynamic_shapes(Related(), args), strict=strict)
    larger = {"line": ((6,), (13,)), "half": ((8,), (4,)), "product": ((5, 7), (35,))}[case]
    good = tuple(map(torch.rand, larger))
    torch.testing.assert_close(program.module()(*good), Related()(*good))


@dataclasses.dataclass
class Held:
    values: Float32[Tensor, "batch h"]
    weight: Float32[Tensor, " h"]


def test_records_are_exported_in_the_structure_that_torch_flattens_them_to() -> None:
    torch.export.register_dataclass(Held, serialized_type_name="test_export_bridge.Held")

    @contract
    class Weighted(nn.Module):
        def forward(self, held: Held, pair: Pair) -> Float32[Tensor, " batch"]:
            return held.values @ held.weight + pair.first * pair.second.sum()

    def call(batch: int, h: int, other: int) -> tuple[Held, Pair]:
        return Held(torch.rand(batch, h), torch.rand(h)), Pair(torch.rand(batch), torch.rand(other))

    args = call(4, 5, 6)
    program = export(Weighted(), args, dynamic_shapes=dynamic_shapes(Weighted(), args))
    other = call(7, 8, 9)
    torch.testing.assert_close(program.module()(*other), Weighted()(*other))
    with pytest.raises(ContractError, match="the contract says h=8"):
        guarded(program, Weighted())(Held(torch.rand(7, 8), torch.rand(9)), other[1])


# --- the guard -------------------------------------------------------------------------------------------------
def round_trip(program: Any, model: Any, folder: Path) -> GuardedProgram:
    guarded(program, model).save(folder / "model.pt2")
    return load_guarded(folder / "model.pt2")


@pytest.fixture(params=["in process", "saved and loaded"], scope="module")
def artifact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> GuardedProgram:
    model = Model().eval()
    program = make_program(model)
    with mode("on"):
        is_saved = request.param == "saved and loaded"
        return round_trip(program, model, tmp_path_factory.mktemp("saved")) if is_saved else guarded(program, model)


def test_a_guarded_program_computes_what_the_program_does(artifact: GuardedProgram) -> None:
    args, kwargs = make_call(7, h=8, w=9)
    torch.testing.assert_close(artifact(*args, **kwargs), artifact.program.module()(*args, **kwargs))
    assert artifact(*args, **kwargs).shape == (7, 4, 8, 9)


BROKEN = {
    "permuted": ("images", lambda x: x.permute(0, 2, 3, 1), "batch['images'].permute(0, 3, 1, 2) fits"),
    "channels": ("images", lambda x: x[:, :3], "axis 1 is 3, the contract says 4"),
    "dtype": ("weights", lambda x: x.double(), 'expected   Float32[Tensor, "N 4"]'),
    "batch": ("weights", lambda x: x[:1], "the contract says N=3"),
}


@pytest.mark.parametrize(("key", "change", "text"), BROKEN.values(), ids=BROKEN)
def test_a_guarded_program_refuses_in_the_words_of_the_contract(
    artifact: GuardedProgram, key: str, change: Any, text: str
) -> None:
    args, kwargs = make_call()
    args[0][key] = change(args[0][key])
    with pytest.raises(ContractError) as caught:
        artifact(*args, **kwargs)
    assert text in str(caught.value)
    assert caught.value.violations[0].boundary.endswith("test_export_bridge.Model.forward")
    defined = caught.value.violations[0].defined
    assert defined is not None
    assert defined.file.endswith("test_export_bridge.py")


def test_a_size_out_of_the_range_of_the_export_is_refused(artifact: GuardedProgram) -> None:
    args, kwargs = make_call(65)
    with pytest.raises(ContractError, match="the registry of dims says N=1 to 64"):
        artifact(*args, **kwargs)
    args, kwargs = make_call(64)
    assert artifact(*args, **kwargs).shape[0] == 64


def test_a_dim_that_was_exported_with_one_size_has_that_size_in_the_guard(tmp_path: Path) -> None:
    model = Model().eval()
    artifact = round_trip(make_program(model, w=6), model, tmp_path)
    good, bad = make_call(4, h=7, w=6), make_call(4, h=7, w=8)
    assert artifact(*good[0], **good[1]).shape == (4, 4, 7, 6)
    with pytest.raises(ContractError, match="axis 3 is 8, the contract says w=6"):
        artifact(*bad[0], **bad[1])


def test_the_guard_is_as_off_as_every_contract(artifact: GuardedProgram) -> None:
    args, kwargs = make_call()
    args[0]["weights"] = args[0]["weights"].double()
    with mode("off"):
        assert artifact(*args, **kwargs).dtype == torch.float64  # torch itself would not have said anything


def test_an_argument_may_be_left_out_where_the_export_did() -> None:
    model = Model().eval()
    args, _ = make_call()
    program = export(model, args, dynamic_shapes=dynamic_shapes(model, args))
    artifact = guarded(program, model)
    assert artifact(*make_call(5)[0]).shape == (5, 4, 5, 6)
    with pytest.raises(TypeError, match="missing a required argument: 'stack'"):
        artifact(args[0])


def test_an_archive_is_still_one_of_torch_and_one_without_a_contract_is_refused(tmp_path: Path) -> None:
    model = Model().eval()
    program = make_program(model)
    guarded(program, model).save(tmp_path / "guarded.pt2")
    args, kwargs = make_call()
    plain = torch.export.load(tmp_path / "guarded.pt2")
    torch.testing.assert_close(plain.module()(*args, **kwargs), model(*args, **kwargs))
    torch.export.save(program, tmp_path / "plain.pt2")
    with pytest.raises(ValueError, match=r"Expected .*plain\.pt2 to hold a contract .*, got none"):
        load_guarded(tmp_path / "plain.pt2")


def test_what_is_saved_is_plain_and_says_what_it_is() -> None:
    model = Model().eval()
    document = guarded(make_program(model), model).document
    assert json.loads(json.dumps(document)) == document
    assert (document["format"], document["version"]) == ("shapecheck guard", 1)
    assert document["allowed"] == {"N": {"range": [1, 65, 1]}}
    assert [one["name"] for one in document["parameters"]] == ["batch", "stack", "mask"]


def test_a_function_with_a_contract_can_say_it_for_a_module_without() -> None:
    @contract
    def forward(x: Float32[Tensor, "batch 3"]) -> Float32[Tensor, " batch"]:
        return x.sum(1)

    class Plain(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sum(1)

    args = (torch.rand(4, 3),)
    artifact = guarded(export(Plain(), args, dynamic_shapes=dynamic_shapes(forward, args)), forward)
    assert artifact(torch.rand(9, 3)).shape == (9,)
    with pytest.raises(ContractError, match="axis 1 is 2, the contract says 3"):
        artifact(torch.rand(9, 2))
