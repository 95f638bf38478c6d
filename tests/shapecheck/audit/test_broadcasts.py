"""The broadcast watch finds what nobody meant, line by line, takes what is written at its word, and changes nothing."""

import contextlib
import itertools
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from jaxtyping import Float32
from torch import Tensor, nn
from torch.nn import functional

import shapecheck
from shapecheck import contract
from shapecheck.audit import Broadcast, allow_broadcasts, watch_broadcasts
from shapecheck.audit._broadcasting.rules import PLACED, broadcast, is_elementwise, judge
from shapecheck.audit._broadcasting.session import watched_session

pytestmark = pytest.mark.filterwarnings("ignore:Using a target size:UserWarning")  # torch's own word on some losses


def zeros(*shape: int) -> Tensor:
    return torch.zeros(shape)


def found_in(run: Callable[[], object]) -> list[Broadcast]:
    with watch_broadcasts() as found:
        run()
    return found


def rules_in(run: Callable[[], object]) -> list[str]:
    return [case.rule for broadcast in found_in(run) for case in broadcast.cases]


# --- the rules, on shapes alone ----------------------------------------------------------------------------
SIZES = (1, 2, 3)
SHAPES = [shape for ndim in range(4) for shape in itertools.product(SIZES, repeat=ndim)]


def test_shapes_are_broadcast_as_torch_does_it() -> None:
    for first, second in itertools.product(SHAPES, repeat=2):
        try:
            expected = tuple(torch.broadcast_shapes(first, second))
        except RuntimeError:
            expected = None
        assert broadcast((first, second)) == expected


def test_enlarged_is_exactly_that_the_result_has_more_elements_than_every_operand() -> None:
    for first, second in itertools.product(SHAPES, repeat=2):
        with contextlib.suppress(RuntimeError):
            result = (zeros(*first) + zeros(*second)).numel()
            judgement = judge((first, second))
            larger = result > max(zeros(*first).numel(), zeros(*second).numel())
            assert larger == (judgement is not None and judgement.rule == "enlarged")


def test_ambiguous_is_exactly_that_the_shorter_operand_also_fits_moved_to_the_left() -> None:
    for short, long in itertools.product(SHAPES, repeat=2):
        judgement = judge((short, long))
        if len(short) >= len(long) or broadcast((short, long)) != long:
            continue  # something else, or nothing, is wrong with it
        moved = [short + (1,) * shift for shift in range(1, len(long) - len(short) + 1)]
        fits = any(broadcast((shape, long)) == long for shape in moved)
        assert (judgement is not None) == (fits and zeros(*short).numel() > 1), (short, long)


def test_an_axis_put_there_on_purpose_only_ever_quietens() -> None:
    for first, second in itertools.product(SHAPES, repeat=2):
        intents = tuple((PLACED,) * len(shape) for shape in (first, second))
        placed = judge((first, second), intents)
        assert placed is None or (placed.rule == "ambiguous" and not (first, second)[placed.operand])


def test_nothing_is_wrong_with_what_has_no_elements() -> None:
    assert judge(((0, 1), (4,))) is None
    assert judge(((0,), (0, 0))) is None
    assert judge(((5, 1), (4,))) is not None


SAME_OR_NOTHING = {"equal"}  # tagged as elementwise by torch, and does not broadcast
BACKWARD = (
    "_backward",
    "special_chebyshev",
    "special_hermite",
    "special_laguerre",
    "special_legendre",
    "special_shifted",
)


def test_every_function_that_torch_calls_pointwise_is_known() -> None:
    unknown = set[str]()
    for schema in torch._C._jit_get_all_schemas():  # noqa: SLF001 - torch has no other list
        namespace, _, name = schema.name.partition("::")
        tensors = sum(str(a.type) in {"Tensor", "Optional[Tensor]"} and not a.is_out for a in schema.arguments)
        packet = getattr(torch.ops.aten, name, None) if namespace == "aten" and tensors > 1 else None
        overload = getattr(packet, schema.overload_name or "default", None)
        is_pointwise = overload is not None and torch.Tag.pointwise in overload.tags
        if is_pointwise and not is_elementwise(name) and name not in SAME_OR_NOTHING:
            unknown.add(name)
    assert {name for name in unknown if not any(part in name for part in BACKWARD)} == set()


def test_functions_that_are_not_elementwise_are_not_taken_for_such() -> None:
    others = ("matmul", "bmm", "cat", "stack", "einsum", "linear", "conv2d", "gather", "expand", "__getitem__", "sum")
    assert [name for name in (*others, "__matmul__", "_add_relu_") if is_elementwise(name)] == []


# --- what is found -----------------------------------------------------------------------------------------
def in_place() -> None:
    square = zeros(4, 4)
    square += zeros(4)


ENLARGED = {
    "the difference that becomes a table": lambda: zeros(64, 1) - zeros(64),
    "the historical factor, one channel": lambda: zeros(4, 1, 2, 1) * torch.ones(2).reshape(1, 1, 2),
    "a factor of equally many axes": lambda: zeros(4, 1, 2, 1) * torch.ones(2).reshape(1, 1, 1, 2),
    "a view beside a vector of equally many elements": lambda: zeros(7).view(-1, 1) - zeros(7),
    "both shapes as they came": lambda: zeros(5, 1) + zeros(1, 7),
    "a comparison": lambda: zeros(5, 1) < zeros(7),
    "a choice": lambda: torch.where(zeros(5, 1) > 0, zeros(7), 0.0),
    "a mask": lambda: zeros(5, 1).masked_fill(zeros(7) > 0, 1.0),
    "a bound": lambda: torch.clamp(zeros(5, 1), min=zeros(7)),
    "logic": lambda: (zeros(5, 1) > 0) & (zeros(7) > 0),
    "an operator that torch writes in Python": lambda: zeros(5, 1) // zeros(7) ** 2,
    "a reflected operator": lambda: zeros(5, 1).__rsub__(zeros(7)),
    "named arguments": lambda: torch.sub(input=zeros(5, 1), other=zeros(7), alpha=2),
    "three operands": lambda: torch.addcmul(zeros(5, 1), zeros(7), zeros(7)),
    "a loss, by function": lambda: functional.mse_loss(zeros(64, 1), zeros(64)),
    "a loss, by module": lambda: nn.L1Loss()(zeros(64, 1), zeros(64)),
    "a test": lambda: torch.allclose(zeros(64, 1), zeros(64)),
    "an axis that something else has made 1": lambda: (zeros(5, 8) @ zeros(8, 1)) - zeros(5),
    "a network that gives one number each": lambda: nn.Linear(8, 1)(zeros(5, 8)) - zeros(5),
    "a parameter": lambda: nn.Parameter(zeros(5, 1)) * nn.Parameter(zeros(7)),
    "only one of two axes placed": lambda: zeros(5, 1)[:, None] + zeros(3, 7),
    "numbers of other dtypes": lambda: zeros(5, 1).double() * torch.arange(7),
}
AMBIGUOUS = {
    "a square and a vector": lambda: zeros(4, 4) + zeros(4),
    "the historical factor, two channels": lambda: zeros(4, 1, 2, 2) * torch.ones(2).reshape(1, 1, 2),
    "in place": in_place,
    "a mean without keepdim": lambda: zeros(6, 6) - zeros(6, 6).mean(1),
    "pictures as many as channels and rows": lambda: zeros(4, 4, 4) - zeros(4, 4),
    "a batch as large as the features": lambda: zeros(5, 3, 5) + zeros(5),
}


@pytest.mark.parametrize("run", ENLARGED.values(), ids=ENLARGED)
def test_a_result_larger_than_every_operand_is_found(run: Callable[[], object]) -> None:
    assert rules_in(run) == ["enlarged"]


@pytest.mark.parametrize("run", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_an_axis_that_could_be_another_one_is_found(run: Callable[[], object]) -> None:
    assert rules_in(run) == ["ambiguous"]


def test_nothing_but_the_size_makes_the_historical_factor_right() -> None:
    factor = torch.ones(2).reshape(1, 1, 2)
    assert rules_in(lambda: zeros(4, 3, 1, 2) * factor) == []
    assert rules_in(lambda: zeros(4, 1, 2, 1) * factor) == ["enlarged"]
    assert rules_in(lambda: zeros(4, 1, 2, 2) * factor) == ["ambiguous"]


# --- what is quiet ------------------------------------------------------------------------------------------
def distances(points: Tensor) -> Tensor:
    squares = points.square().sum(1, keepdim=True)
    return squares + squares.T - 2 * points @ points.T


def overlaps(boxes: Tensor, others: Tensor) -> Tensor:
    corner = torch.max(boxes[:, None, :2], others[:, :2])
    opposite = torch.min(boxes[:, None, 2:], others[:, 2:])
    return (opposite - corner).clamp(min=0).prod(2)


def with_unsqueeze_in_place() -> Tensor:
    column = zeros(5)
    column.unsqueeze_(1)
    return column * zeros(7)


QUIET = {
    "numbers": lambda: 2 - zeros(4, 4) * 3 + 1.5,
    "tensors without axes": lambda: zeros(4, 4) * torch.tensor(2.0) + zeros(4, 4).max(),
    "one element": lambda: zeros(4, 4) + zeros(1) + zeros(1, 1),
    "a bias per channel": lambda: zeros(4, 4, 4, 4) + zeros(1, 4, 1, 1),
    "an axis of size 1 beside a larger tensor": lambda: zeros(5, 7) - zeros(5, 1),
    "a mean with keepdim": lambda: zeros(6, 6) - zeros(6, 6).mean(-1, keepdim=True),
    "an outer product by None": lambda: zeros(5)[:, None] * zeros(7)[None, :],
    "an outer product by one None": lambda: zeros(5)[:, None] - zeros(7),
    "unsqueeze": lambda: zeros(5).unsqueeze(-1) - zeros(7).unsqueeze(0),
    "unsqueeze, as a function with names": lambda: torch.unsqueeze(input=zeros(5), dim=1) - zeros(7),
    "unsqueeze in place": with_unsqueeze_in_place,
    "two views of equally many axes": lambda: torch.arange(7).view(1, -1) < zeros(5).reshape(-1, 1),
    "a view beside a vector of another size": lambda: zeros(5).view(-1, 1) - zeros(7),
    "a start for each window": lambda: zeros(5).view(-1, 1, 1) + zeros(3, 4),
    "two sums with keepdim": lambda: zeros(5, 7).sum(1, keepdim=True) + zeros(5, 7).sum(0, True),
    "a maximum with keepdim, which is a pair": lambda: zeros(5, 7).max(1, keepdim=True)[0] + zeros(7),
    "a placed axis after a cast and arithmetic": lambda: (zeros(5)[:, None].double() * 2).exp() - zeros(7),
    "a placed axis after arithmetic with another tensor": lambda: (zeros(5)[:, None] + zeros(5, 1)) - zeros(7),
    "a placed axis, transposed": lambda: zeros(5)[:, None].T + zeros(5)[:, None],
    "a placed axis, permuted": lambda: zeros(5, 3)[:, None].permute(1, 2, 0) + zeros(7)[:, None, None],
    "a placed axis, further indexed": lambda: zeros(5, 3)[:, None][..., 0] + zeros(7),
    "a placed axis behind an ellipsis": lambda: zeros(2, 5)[..., None] * zeros(7),
    "a placed axis beside a tensor as an index": lambda: zeros(5, 3)[torch.arange(4)][:, None] - zeros(6, 3),
    "None together with a tensor as an index": lambda: zeros(5, 3)[torch.arange(4), None] - zeros(6, 3),
    "expand": lambda: zeros(5, 1).expand(5, 7) + zeros(7).expand(5, 7),
    "pairwise distances": lambda: distances(zeros(6, 3)),
    "overlaps of boxes": lambda: overlaps(zeros(6, 4), zeros(5, 4)),
    "a scale whose place is written": lambda: zeros(4, 4, 4) * zeros(4)[:, None, None],
    "what is no elementwise operation": lambda: torch.cat([zeros(4, 4) @ zeros(4, 1), zeros(4, 4)], 1),
    "nothing to compute with": lambda: zeros(0, 1) + zeros(7),
    "nested": lambda: torch.nested.nested_tensor([zeros(2), zeros(3)], layout=torch.jagged) * 2,
    "sparse": lambda: torch.eye(4).to_sparse() + torch.eye(4).to_sparse(),
}


@pytest.mark.parametrize("run", QUIET.values(), ids=QUIET)
def test_what_is_written_is_taken_at_its_word(run: Callable[[], object]) -> None:
    assert found_in(run) == []


def test_what_was_placed_is_forgotten_by_what_changes_the_shape() -> None:
    placed = zeros(5)[:, None]
    assert rules_in(lambda: placed.squeeze(1)[:, None] - zeros(7)) == []
    assert rules_in(lambda: placed @ zeros(1, 1) - zeros(7)) == ["enlarged"]
    assert rules_in(lambda: torch.cat([placed, placed])[:5] - zeros(7)) == ["enlarged"]


def test_what_was_placed_is_known_only_of_that_tensor() -> None:
    def run() -> None:
        for _ in range(50):  # so that addresses are used again
            assert zeros(5)[:, None].shape == (5, 1)
            _ = zeros(5, 1) - zeros(7)

    (broadcast,) = found_in(run)
    assert broadcast.count == 50


# --- ordinary networks ---------------------------------------------------------------------------------------
class OwnNorm(nn.Module):
    """Normalises over the channels of pictures, as in ConvNeXt."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        deviation = (centred.pow(2).mean(1, keepdim=True) + 1e-6).sqrt()
        return centred / deviation * self.scale[:, None, None] + self.shift[:, None, None]


class Residual(nn.Module):
    """Two convolutions, a gate for each channel, and a way around."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.GroupNorm(1, out), nn.GELU())
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(out, out), nn.Sigmoid())
        self.around = nn.Conv2d(channels, out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.second(self.first(x))
        return functional.relu(inner * self.gate(inner).view(len(x), -1, 1, 1) + self.around(x))


def rotated(x: Tensor) -> Tensor:
    """Rotary positions."""
    frequencies = 1 / 100 ** (torch.arange(0, x.shape[-1], 2) / x.shape[-1])
    angles = torch.arange(x.shape[-2])[:, None] * frequencies[None]
    even, odd = x[..., ::2], x[..., 1::2]
    turned = even * angles.cos() - odd * angles.sin(), even * angles.sin() + odd * angles.cos()
    return torch.stack(turned, -1).flatten(-2)


class Attention(nn.Module):
    """Attention written by hand, causal and padded, with relative biases."""

    def __init__(self, width: int, heads: int, length: int) -> None:
        super().__init__()
        self.heads = heads
        self.inward, self.outward = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.register_buffer("causal", torch.ones(length, length).tril().view(1, 1, length, length))
        self.positions = nn.Parameter(torch.zeros(1, length, width))
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        B, L, width = x.shape
        x = (x + self.positions) * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.scale
        q, k, v = (part.view(B, L, self.heads, -1).transpose(1, 2) for part in self.inward(x).chunk(3, -1))
        scores = rotated(q) @ rotated(k).transpose(-2, -1) / width**0.5
        scores = scores.masked_fill((self.causal == 0) | padding[:, None, None, :], -1e9)
        return self.outward((scores.softmax(-1) @ v).transpose(1, 2).reshape(B, L, width))


def pictures(B: int, C: int, H: int, W: int) -> nn.Module:
    layers = [
        nn.Conv2d(C, 6, 3, padding=1),
        OwnNorm(6),
        Residual(6, 8, 2),
        nn.Dropout2d(0.1),
        nn.LayerNorm((H // 2, W // 2)),
    ]
    return nn.Sequential(*layers, nn.InstanceNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))


@pytest.mark.parametrize("sizes", [(3, 4, 16, 12), (4, 4, 8, 8), (6, 1, 8, 6), (2, 2, 8, 8)], ids=str)
def test_convolutional_networks_are_quiet_also_where_sizes_coincide(sizes: tuple[int, int, int, int]) -> None:
    network = pictures(*sizes)
    loss = functional.cross_entropy(network(torch.randn(sizes)), torch.zeros(sizes[0], dtype=torch.long))
    assert found_in(lambda: network(torch.randn(sizes)).logsumexp(1).sum().backward()) == []
    assert found_in(loss.backward) == []


@pytest.mark.parametrize("sizes", [(3, 7, 12, 2), (2, 5, 8, 4), (1, 4, 8, 2)], ids=str)
def test_attention_and_recurrent_networks_are_quiet(sizes: tuple[int, int, int, int]) -> None:
    B, L, width, heads = sizes
    padding = torch.arange(L) >= torch.full((B,), L - 1)[:, None]
    x = torch.randn(B, L, width)
    transformer = nn.Transformer(width, heads, 1, 1, 16, batch_first=True, dropout=0.0)
    mask = nn.Transformer.generate_square_subsequent_mask(L)

    def run() -> None:
        Attention(width, heads, L)(x, padding).sum().backward()
        transformer(x, x, tgt_mask=mask, src_key_padding_mask=padding, tgt_is_causal=True).sum().backward()
        nn.MultiheadAttention(width, heads, batch_first=True)(x, x, x, key_padding_mask=padding)
        functional.scaled_dot_product_attention(x, x, x, attn_mask=mask)
        nn.LSTM(width, 4, 2, bidirectional=True)(x)[0].sum().backward()
        nn.GRU(width, 4)(x), nn.RNN(width, 4)(x), nn.LSTMCell(width, 4)(x[0]), nn.Bilinear(width, width, 3)(x, x)
        nn.utils.parametrizations.weight_norm(nn.Linear(width, 3))(x)

    assert found_in(run) == []


ADAMS = ["Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adafactor"]


@pytest.mark.parametrize("name", ["SGD", "Adagrad", "Adadelta", "RMSprop", "ASGD", "Rprop", "LBFGS", *ADAMS])
def test_optimisers_are_quiet(name: str) -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.PReLU(4), nn.Linear(4, 1))

    def loss() -> Tensor:
        network.zero_grad()
        value = network(torch.randn(4, 4)).square().mean()
        value.backward()
        return value

    def run() -> None:
        for options in ({}, {"foreach": True}):
            with contextlib.suppress(TypeError):  # LBFGS has no such option
                optimiser = getattr(torch.optim, name)(network.parameters(), **options)
                for _ in range(2):
                    optimiser.step(loss)
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)

    assert found_in(run) == []


LOSSES = [
    nn.MSELoss,
    nn.L1Loss,
    nn.SmoothL1Loss,
    nn.HuberLoss,
    nn.BCEWithLogitsLoss,
    nn.PoissonNLLLoss,
    nn.SoftMarginLoss,
]


def test_losses_of_equal_shapes_distributions_and_transforms_of_functions_are_quiet() -> None:
    x = torch.rand(6, 4)

    def run() -> None:
        for loss in LOSSES:
            loss()(x, x)
        nn.GaussianNLLLoss()(x, x, torch.ones(6, 1)), nn.KLDivLoss(reduction="batchmean")(x, x)
        torch.distributions.Normal(x, 1.0).log_prob(x), torch.distributions.Normal(x[0], 1.0).log_prob(x)
        torch.func.vmap(torch.sub, in_dims=(0, None))(x, x[0])
        torch.func.jacrev(lambda row: row * row)(x[0])
        torch.utils.checkpoint.checkpoint(lambda y: y * 2, x.requires_grad_(), use_reentrant=False).sum().backward()

    assert found_in(run) == []


# --- what is reported ------------------------------------------------------------------------------------------
def scale(offset: Tensor, size: Tensor) -> Tensor:
    factor = 2 / (size - 1)
    return offset * factor.reshape(1, 1, 2)


def test_one_report_for_each_line_with_its_text_its_function_and_how_often() -> None:
    def run() -> None:
        for C in (1, 2, 1, 4):
            with contextlib.suppress(RuntimeError):  # four channels do not fit at all
                scale(zeros(4, 1, 2, C), torch.ones(2))
        _ = zeros(4, 4) + zeros(4)

    scaled, added = found_in(run)
    assert scaled.line == "return offset * factor.reshape(1, 1, 2)"
    assert (scaled.function, scaled.count, scaled.enclosing) == ("scale", 3, None)
    assert scaled.place.file.endswith("test_broadcasts.py")
    assert scaled.place.line == scale.__code__.co_firstlineno + 2
    assert added.line == "_ = zeros(4, 4) + zeros(4)"
    assert [(case.rule, case.operation, case.operands, case.result) for case in scaled.cases] == [
        ("enlarged", "mul", ("f32[4,1,2,1]", "f32[1,1,2]"), (4, 1, 2, 2)),
        ("ambiguous", "mul", ("f32[4,1,2,2]", "f32[1,1,2]"), (4, 1, 2, 2)),
    ]


GOLDEN = """\
broadcast [enlarged]: {file}:{line}, in scale: mul of f32[4,1,2,1] and f32[1,1,2] gives [4,1,2,2], larger than every operand
  line       return offset * factor.reshape(1, 1, 2)
  because    axis 3 of f32[4,1,2,1] is stretched from 1 to 2, and was not put there for that
  also       [ambiguous] mul of f32[4,1,2,2] and f32[1,1,2] gives [4,1,2,2], and could have been aligned otherwise: f32[1,1,2] is aligned with axes 1, 2, 3 of [4,1,2,2], and fits axes 0, 1, 2 as well
  also       [enlarged] mul of f32[5,1,2,1] and f32[1,1,2] gives [5,1,2,2], larger than every operand: axis 3 of f32[5,1,2,1] is stretched from 1 to 2, and was not put there for that
  also       2 more combinations of shapes
  seen       5 times
  cure       give the operands the same axes; if every pair is meant, write the axis: [:, None], unsqueeze, keepdim=True
  cure       write the missing axes: [None, :] or [:, None]; if it is a coincidence, call it with sizes that differ"""


def test_the_report_says_what_happened_where_and_what_to_do() -> None:
    (broadcast,) = found_in(
        lambda: [scale(zeros(B, 1, 2, C), torch.ones(2)) for B, C in ((4, 1), (4, 2), (5, 1), (6, 1), (7, 1))]
    )
    assert str(broadcast) == GOLDEN.format(file=broadcast.place.file, line=broadcast.place.line)


@pytest.mark.violation  # without contracts nothing binds dims
def test_the_dims_of_the_contract_around_it_are_told(engine: str) -> None:
    @contract
    def spread(offset: Float32[Tensor, "B 1 2 C"], size: Float32[Tensor, " 2"]) -> Float32[Tensor, "..."]:
        offset = offset[None]
        return scale(offset[0], size)

    (broadcast,) = found_in(lambda: spread(zeros(4, 1, 2, 1), torch.ones(2)))
    assert broadcast.enclosing is not None
    assert broadcast.enclosing.dims == {"B": 4, "C": 1}
    assert "dims       B=4, C=1 (bound by the call of " in str(broadcast)
    assert str(broadcast).count("spread)") == 1
    (outside,) = found_in(lambda: scale(zeros(4, 1, 2, 1), torch.ones(2)))
    assert outside.enclosing is None


def test_results_are_those_of_a_run_that_nobody_watches() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(5, 1, generator=generator), torch.randn(7, generator=generator)
    with watch_broadcasts():
        watched = torch.hypot(x - y, y).sum(0)
    assert torch.equal(watched, torch.hypot(x - y, y).sum(0))


def test_an_error_of_torch_reaches_the_caller_and_ends_the_watch() -> None:
    with pytest.raises(RuntimeError, match="must match"), watch_broadcasts() as found:
        _ = zeros(3) + zeros(4)
    _ = zeros(64, 1) - zeros(64)
    assert found == []


def test_a_broadcast_survives_being_sent_to_another_process() -> None:
    (broadcast,) = found_in(lambda: zeros(64, 1) - zeros(64))
    assert pickle.loads(pickle.dumps(broadcast)) == broadcast


# --- where it looks ---------------------------------------------------------------------------------------------
def test_only_the_lines_of_named_packages_are_looked_at() -> None:
    for packages, expected in (((__name__,), 1), (("optics", __name__.split(".")[0]), 1), (("optics",), 0)):
        with watch_broadcasts(*packages) as found:
            _ = zeros(64, 1) - zeros(64)
        assert len(found) == expected


def test_installed_packages_are_left_out_unless_they_are_named() -> None:
    code = compile("result = a - b", "/venv/lib/python3.11/site-packages/optics/waves.py", "exec")
    for packages, expected in (((), 0), (("optics",), 1), (("opt",), 0)):
        with watch_broadcasts(*packages) as found:
            exec(code, {"__name__": "optics.waves", "a": zeros(64, 1), "b": zeros(64)})  # noqa: S102
        assert [broadcast.place.file for broadcast in found] == ["optics/waves.py"] * expected


def test_watches_nest_and_default_devices_do_not_hide_the_line() -> None:
    with watch_broadcasts() as outer, watch_broadcasts() as inner, torch.device("cpu"):
        _ = zeros(64, 1) - zeros(64)
    assert [broadcast.line for broadcast in outer] == [broadcast.line for broadcast in inner]
    assert outer[0].line == "_ = zeros(64, 1) - zeros(64)"


def test_allowed_blocks_and_functions_are_quiet_and_what_follows_is_not() -> None:
    @allow_broadcasts()
    def table(x: Tensor, y: Tensor) -> Tensor:
        return x - y

    def run() -> None:
        with allow_broadcasts():
            _ = zeros(64, 1) - zeros(64)
            with allow_broadcasts():
                pass
            _ = zeros(64, 1) - zeros(64)
        table(zeros(64, 1), zeros(64))
        with contextlib.suppress(RuntimeError):
            table(zeros(3), zeros(4))
        _ = zeros(64, 1) + zeros(64)

    assert [broadcast.line for broadcast in found_in(run)] == ["_ = zeros(64, 1) + zeros(64)"]


def test_other_threads_are_not_watched() -> None:
    def run() -> None:
        thread = threading.Thread(target=lambda: zeros(64, 1) - zeros(64))
        thread.start()
        thread.join()

    assert found_in(run) == []


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_regions_are_skipped_without_a_break_in_the_graph(backend: str) -> None:
    def function(x: Tensor, y: Tensor) -> Tensor:
        with allow_broadcasts():
            return (x - y).unflatten(0, (2, -1)).sum() + (2 - x * y).mean()

    torch._dynamo.reset()  # noqa: SLF001
    counters = torch._dynamo.utils.counters  # noqa: SLF001
    counters.clear()
    compiled = torch.compile(function, fullgraph=True, backend=backend, dynamic=True)
    plain = compiled(zeros(64, 1), zeros(64))
    with watch_broadcasts() as found:
        watched = [compiled(zeros(n, 1), zeros(n)) for n in (64, 66, 68)]
    assert found == []
    assert torch.equal(plain, watched[0])
    assert (dict(counters["graph_break"]), counters["stats"]["unique_graphs"]) == ({}, 2)  # one with, one without


def test_exported_and_traced_modules_are_skipped_with_their_sizes_left_open() -> None:
    class Table(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x - y

    sizes = ({0: torch.export.Dim("n")}, {0: torch.export.Dim("m")})
    with watch_broadcasts() as found:
        for strict in (True, False):
            exported = torch.export.export(Table(), (zeros(6, 1), zeros(7)), dynamic_shapes=sizes, strict=strict)
            assert exported.module()(zeros(3, 1), zeros(4)).shape == (3, 4)
        fake = torch.fx.experimental.proxy_tensor.make_fx(lambda x, y: (x - y).sum(), tracing_mode="symbolic")
        fake(zeros(6, 1), zeros(7))
    assert [broadcast for broadcast in found if broadcast.function != "Table.forward"] == []
    assert found_in(lambda: Table()(zeros(6, 1), zeros(7)))[0].function.endswith("Table.forward")


def test_what_was_placed_before_the_watch_began_is_not_known() -> None:
    placed = zeros(5)[:, None]
    assert rules_in(lambda: placed - zeros(7)) == ["enlarged"]


# --- the plugin ---------------------------------------------------------------------------------------------------
PACKAGE = """
def difference(x, y):
    return x - y


def added(x, y):
    return x + y
"""
TESTS = """
import torch, optics
def test_good(): optics.difference(torch.zeros(64), torch.zeros(64))
def test_bad(): optics.difference(torch.zeros(64, 1), torch.zeros(64))
def test_again(): optics.difference(torch.zeros(63, 1), torch.zeros(63))
def test_added(): optics.added(torch.zeros(4, 4), torch.zeros(4))
def test_mine(): torch.zeros(4, 4) + torch.zeros(4)
"""
WATCH = "--shapecheck-broadcasts"
BASELINE = "--shapecheck-broadcasts-baseline=meant.txt"
FOUND = "broadcast [enlarged]: optics.py:3, in difference: sub of f32[64,1] and f32[64] gives [64,64]"


@pytest.fixture
def session(tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Runs pytest with the plugin in a process of its own; returns its exit code and what it wrote."""
    (tmp_path / "optics.py").write_text(PACKAGE)
    (tmp_path / "test_optics.py").write_text(TESTS)
    path = os.pathsep.join([str(tmp_path), str(Path(shapecheck.__file__).parents[1])])
    variables = {name: value for name, value in os.environ.items() if name not in {"PYTEST_ADDOPTS", "GITHUB_ACTIONS"}}

    def run(*options: str) -> tuple[int, str]:
        plugins = [
            "-p",
            "shapecheck.pytest_plugin",
            "-p",
            "no:cacheprovider",
            *(["-p", "xdist"] if "-n2" in options else []),
        ]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *plugins, "--rootdir", tmp_path, "test_optics.py", *options],
            cwd=tmp_path,
            env={**variables, "PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_a_session_fails_for_lines_that_nobody_meant_and_names_the_test_that_showed_each(session) -> None:
    code, text = session(WATCH)
    assert code == pytest.ExitCode.TESTS_FAILED
    assert "5 passed" in text
    assert FOUND in text
    assert "seen       2 times, first in test_optics.py::test_bad" in text
    assert "in test_mine: add of f32[4,4] and f32[4]" in text
    assert "3 lines with a broadcast that may not be meant" in text


def test_a_baseline_holds_what_is_meant_whatever_its_line_numbers_are(session, tmp_path) -> None:
    code, text = session(f"{WATCH}=optics", BASELINE, "--shapecheck-broadcasts-accept")
    assert (code, "2 lines written to meant.txt" in text) == (pytest.ExitCode.OK, True), text
    assert (tmp_path / "meant.txt").read_text().splitlines()[1:] == [
        "optics.py::added::return x + y",
        "optics.py::difference::return x - y",
    ]
    (tmp_path / "optics.py").write_text(f"# moved\n\n{PACKAGE.replace('x + y', 'y + x')}")
    code, text = session(f"{WATCH}=optics", BASELINE)
    assert code == pytest.ExitCode.TESTS_FAILED
    assert "1 line with a broadcast that may not be meant, 1 more in meant.txt" in text
    assert "in added" in text
    assert "in difference" not in text
    assert "not seen in this run, though meant.txt has it: optics.py::added::return x + y" in text


def test_a_session_in_which_all_is_meant_passes(session, tmp_path) -> None:
    (tmp_path / "meant.txt").write_text(
        "# why\noptics.py::added::return x + y\n\noptics.py::difference::return x - y\n"
    )
    code, text = session(f"{WATCH}=optics", BASELINE)
    assert (code, "0 lines with a broadcast that may not be meant, 2 more in meant.txt" in text) == (0, True), text


@pytest.mark.skipif(find_spec("xdist") is None, reason="pytest-xdist is not installed")
def test_what_several_processes_find_is_put_together(session) -> None:
    code, text = session(f"{WATCH}=optics", "-n2", "--dist=each")
    assert code == pytest.ExitCode.TESTS_FAILED
    assert "seen       4 times, first in test_optics.py::test_bad" in text
    assert text.count("broadcast [") == 2


def test_a_file_that_the_option_swallows_is_an_error_that_says_so(session) -> None:
    code, text = session(WATCH, "test_optics.py")
    assert code == pytest.ExitCode.USAGE_ERROR
    assert "got 'test_optics.py'; write the files and folders to be tested before the option." in text


@pytest.mark.parametrize(
    ("packages", "baseline", "accept", "message"),
    [
        ("optiks", None, False, "Expected --shapecheck-broadcasts to name packages, got 'optiks'."),
        (None, "meant.txt", False, "Expected --shapecheck-broadcasts beside its baseline"),
        ("", "absent/meant.txt", False, "Expected --shapecheck-broadcasts-baseline=absent/meant.txt to be a file"),
        ("", None, True, "Expected --shapecheck-broadcasts-baseline=FILE"),
    ],
    ids=["no package", "no watch", "no baseline", "nothing to write to"],
)
def test_options_of_the_watch_that_mean_nothing_are_errors(packages, baseline, accept, message) -> None:
    with pytest.raises(pytest.UsageError) as caught:
        watched_session(packages, baseline, accept)
    assert str(caught.value).startswith(message)
