"""Windows of moved images: against a loop, their adjoints and derivatives, and what they cost in memory."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from ptycho_torch import helper
from ptycho_torch._shift import Window, has_values, moved, reach_of, spread, stacked
from shapecheck import mode

few = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**31)
# What torch itself uses for derivatives in forward mode, it has deprecated.
forward_mode = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


def make_images(rng: np.random.Generator, *shape: int, dtype: torch.dtype = torch.complex64) -> torch.Tensor:
    values = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    return torch.from_numpy(values if dtype.is_complex else values.real.copy()).to(dtype)


def make_offsets(rng: np.random.Generator, n: int, largest: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.from_numpy(rng.uniform(-largest, largest, (n, 2))).to(dtype)


def read_by_hand(image: np.ndarray, offset: list[float], window: Window) -> np.ndarray:
    """Every pixel of the window from the four pixels around its place, zeros outside."""
    out = np.zeros(window.size, dtype=np.complex128)
    for i, j in np.ndindex(*window.size):
        y, x = window.start[0] + i - offset[1], window.start[1] + j - offset[0]
        for r in (math.floor(y), math.floor(y) + 1):
            for c in (math.floor(x), math.floor(x) + 1):
                if 0 <= r < image.shape[0] and 0 <= c < image.shape[1]:
                    out[i, j] += (1 - abs(y - r)) * (1 - abs(x - c)) * image[r, c]
    return out


windows = st.builds(
    Window,
    start=st.tuples(st.integers(-5, 5), st.integers(-5, 5)),
    size=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    reach=st.just((9, 9)),
)


@few
@given(
    seed=seeds, window=windows, h=st.integers(1, 7), w=st.integers(1, 7), m=st.integers(1, 3), copies=st.integers(1, 3)
)
def test_windows_agree_with_a_loop_over_pixels(seed: int, window: Window, h: int, w: int, m: int, copies: int) -> None:
    rng = np.random.default_rng(seed)
    images, offsets = make_images(rng, m, h, w), make_offsets(rng, m * copies, 8.9)
    expected = [read_by_hand(images[k // copies].numpy(), offsets[k].tolist(), window) for k in range(m * copies)]

    assert np.abs(moved(images, offsets, window).numpy() - np.stack(expected)).max() < 1e-5
    assert np.abs(moved(images.real, offsets, window).numpy() - np.stack(expected).real).max() < 1e-5


@few
@given(seed=seeds, h=st.integers(1, 6), M=st.integers(7, 12), m=st.integers(1, 3), copies=st.integers(1, 3))
def test_spreading_and_stacking_is_the_adjoint_of_reading(seed: int, h: int, M: int, m: int, copies: int) -> None:
    rng = np.random.default_rng(seed)
    corner, n = (int(rng.integers(0, M - h + 1)), int(rng.integers(0, M - h + 1))), m * copies
    canvases, patches, offsets = make_images(rng, m, M, M), make_images(rng, n, h, h), make_offsets(rng, n, 3.0)

    read = moved(canvases, offsets, Window(corner, (h, h), (4, 4)))
    rows, top = spread([patches], -offsets, corner, M, 4)
    (put,) = stacked(rows, top, m, M)

    left, right = np.vdot(read.numpy(), patches.numpy()), np.vdot(canvases.numpy(), put.numpy())
    assert abs(left - right) < 1e-5 * np.linalg.norm(canvases) * np.linalg.norm(patches)


# --- derivatives -------------------------------------------------------------------------------------
# Offsets are kept from whole pixels, where a bilinear value has a kink.


def off_the_kinks(rng: np.random.Generator, n: int, largest: int) -> torch.Tensor:
    whole, fraction = rng.integers(-largest, largest, (n, 2)), rng.uniform(0.1, 0.9, (n, 2))
    return torch.from_numpy(whole + fraction).requires_grad_()


READS = [
    pytest.param(3, (3, 2), Window((0, 0), (3, 2), (5, 5)), id="translated"),
    pytest.param(1, (6, 6), Window((2, 2), (2, 2), (5, 5)), id="cut-three-times"),
]


@forward_mode
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=["real", "complex"])
@pytest.mark.parametrize(("m", "sides", "window"), READS)
def test_derivatives_of_reading_are_those_of_finite_differences(
    dtype: torch.dtype, m: int, sides: tuple[int, int], window: Window
) -> None:
    rng = np.random.default_rng(0)
    inputs = (make_images(rng, m, *sides, dtype=dtype).requires_grad_(), off_the_kinks(rng, 3, 2))

    def read(images: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        return moved(images, offsets, window)

    assert torch.autograd.gradcheck(read, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(read, inputs)


def make_double_group() -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(1)
    double = torch.complex128
    return {
        "patches": make_images(rng, 1, 2, 3, 3, dtype=double).requires_grad_(),
        "offsets": off_the_kinks(rng, 2, 1).detach().reshape(1, 2, 1, 2).requires_grad_(),
        "weights": (make_images(rng, 1, 2, 3, 3, dtype=torch.float64).abs() + 0.5).requires_grad_(),
        "region": make_images(rng, 1, 1, 7, 7, dtype=double).requires_grad_(),
        "waves": make_images(rng, 1, 2, 2, 3, 3, dtype=double).requires_grad_(),
    }


OPERATORS: list[tuple[str, Callable[..., torch.Tensor], list[str]]] = [
    (
        "Translation",
        lambda patches, offsets: helper.Translation(patches.flatten(0, 1), offsets.flatten(0, 1)),
        ["patches", "offsets"],
    ),
    (
        "merge",
        lambda *given: helper.reassemble_patches_position_real(*given[:2], 7, given[2])[0],
        ["patches", "offsets", "weights"],
    ),
    (
        "merge-of-centres",
        lambda *given: helper.reassemble_patches_position_real(*given, 7)[0],
        ["patches", "offsets"],
    ),
    ("extract", lambda *given: helper.extract_channels_from_region(*given, 3), ["region", "offsets"]),
    ("diffract", helper.diffract, ["waves"]),
]


@forward_mode
@pytest.mark.parametrize(("operator", "names"), [row[1:] for row in OPERATORS], ids=[row[0] for row in OPERATORS])
def test_derivatives_of_every_operator_are_those_of_finite_differences(
    operator: Callable[..., torch.Tensor], names: list[str]
) -> None:
    group = make_double_group()
    with mode("off"):  # contracts ask for single precision
        assert torch.autograd.gradcheck(operator, [group[name] for name in names], check_forward_ad=True)


def test_derivatives_are_the_same_bits_each_time_and_the_value_that_without_them() -> None:
    rng = np.random.default_rng(2)
    images, offsets = make_images(rng, 4, 9, 7).requires_grad_(), make_offsets(rng, 4, 3.0).requires_grad_()
    window = Window((0, 0), (9, 7), (9, 9))

    def differentiated() -> tuple[torch.Tensor, ...]:
        value = moved(images, offsets, window)
        return (value.detach(), *torch.autograd.grad(value.abs().sum(), (images, offsets)))

    with torch.no_grad():
        plain = moved(images, offsets, window)
    first, second = differentiated(), differentiated()

    assert torch.equal(first[0], plain)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


# --- transforms of functions ----------------------------------------------------------------------------


def translate(images: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    return helper.Translation(images, offsets.unsqueeze(1))[:, 0]


def energy(images: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    return translate(images, offsets).abs().square().sum()


@pytest.mark.parametrize("tracked", [True, False], ids=["grad", "no_grad"])
@pytest.mark.parametrize("in_dims", [(0, 0), (None, 0), (1, None)], ids=str)
def test_a_mapped_translation_is_that_of_each(in_dims: tuple[int | None, int | None], tracked: bool) -> None:
    rng = np.random.default_rng(3)
    images, offsets = make_images(rng, 3, 3, 5, 6), torch.stack([make_offsets(rng, 3, 2.0) for _ in range(3)])
    given = [value if dim is not None else value[0] for value, dim in zip((images, offsets), in_dims, strict=True)]

    with torch.set_grad_enabled(tracked):
        mapped = torch.vmap(translate, in_dims)(*given)

    for k in range(3):
        one = [value if dim is None else value.select(dim, k) for value, dim in zip(given, in_dims, strict=True)]
        assert torch.equal(mapped[k], translate(*one))


@forward_mode
def test_forward_and_reverse_mode_agree_and_compose() -> None:
    rng = np.random.default_rng(4)
    images, offsets = make_images(rng, 3, 5, 6), make_offsets(rng, 3, 2.0)

    def moduli(moves: torch.Tensor) -> torch.Tensor:
        return translate(images, moves).abs()

    hessian = torch.func.hessian(lambda moves: energy(images, moves))(offsets)
    twice = torch.autograd.functional.hessian(lambda moves: energy(images, moves), offsets)

    assert torch.allclose(torch.func.jacfwd(moduli)(offsets), torch.func.jacrev(moduli)(offsets), atol=1e-5)
    assert torch.allclose(hessian, twice, atol=1e-4)
    assert hessian.abs().max() > 1


def test_mapped_gradients_are_those_of_each() -> None:
    rng = np.random.default_rng(5)
    images, offsets = make_images(rng, 3, 2, 5, 6), torch.stack([make_offsets(rng, 2, 2.0) for _ in range(3)])
    gradient = torch.func.grad(energy, argnums=1)

    mapped = torch.vmap(gradient)(images, offsets)

    assert torch.allclose(
        mapped, torch.stack([gradient(i, o) for i, o in zip(images, offsets, strict=True)]), atol=1e-4
    )


@pytest.mark.slow
def test_compiled_operators_have_the_values_and_derivatives_of_eager_ones() -> None:
    rng = np.random.default_rng(6)
    patches, offsets = make_images(rng, 3, 4, 8, 8).requires_grad_(), make_offsets(rng, 12, 2.0).view(3, 4, 1, 2)
    offsets.requires_grad_()

    def shared(patches: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        canvas, _ = helper.reassemble_patches_position_real(patches, offsets, 12)
        again = helper.extract_channels_from_region(canvas.unsqueeze(1), offsets, 8)
        return helper.Translation(again.flatten(0, 1), offsets.flatten(0, 1)).abs().square().sum()

    compiled = torch.compile(shared, fullgraph=True, backend="aot_eager")
    found, expected = compiled(patches, offsets), shared(patches, offsets)

    assert torch.allclose(found, expected)
    for ours, theirs in zip(*(torch.autograd.grad(f, (patches, offsets)) for f in (found, expected)), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4)


# --- what must not leak -----------------------------------------------------------------------------------


@pytest.mark.parametrize("far", [7.0, -8.0, 1e9, -1e30, math.inf])
def test_what_is_moved_out_of_sight_leaves_zeros_and_its_neighbours_alone(far: float) -> None:
    rng = np.random.default_rng(7)
    images, offsets = make_images(rng, 3, 6, 5), make_offsets(rng, 3, 2.0).unsqueeze(1)
    expected = helper.Translation(images, offsets)

    offsets[1, 0, 0] = far
    found = helper.Translation(images, offsets)

    assert not found[1].any()
    assert torch.equal(found[[0, 2]], expected[[0, 2]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=["real", "complex"])
@pytest.mark.parametrize("spoil", ["an image", "an offset"])
def test_a_nan_stays_with_its_own_image(spoil: str, dtype: torch.dtype) -> None:
    rng = np.random.default_rng(8)
    images, offsets = make_images(rng, 3, 6, 5, dtype=dtype), make_offsets(rng, 3, 9.0).unsqueeze(1)
    expected = helper.Translation(images, offsets)

    if spoil == "an image":
        images[1] = math.nan
        offsets[1] = 0.5
    else:
        offsets[1, 0, 0] = math.nan
    found = helper.Translation(images, offsets)

    assert found[1].isnan().any()
    assert torch.equal(found[[0, 2]], expected[[0, 2]])


def test_an_image_is_moved_alike_alone_and_among_others_that_go_farther() -> None:
    rng = np.random.default_rng(9)
    images, offsets = make_images(rng, 5, 6, 7), make_offsets(rng, 5, 1.0).unsqueeze(1)
    offsets[3] = 6.25

    together = helper.Translation(images, offsets)

    for k in range(5):
        assert torch.equal(helper.Translation(images[k : k + 1], offsets[k : k + 1]), together[k : k + 1])


def test_no_image_is_an_ordinary_input() -> None:
    assert helper.Translation(torch.zeros(0, 5, 6), torch.zeros(0, 1, 2)).shape == (0, 1, 5, 6)


def test_meta_tensors_have_no_values_to_look_at() -> None:
    assert has_values(torch.zeros(2))
    assert not has_values(torch.zeros(2, device="meta"))


# --- looks at offsets, each of which a device would have to be waited for -------------------------------------
@pytest.mark.parametrize(
    ("offsets", "reach"),
    [([0.0, 0.0], 1), ([2.5, -0.5], 3), ([1.0, -3.0], 4), ([8.9, 0.0], 9), ([9.0, 0.0], 9), ([math.nan, 1.0], 9)],
    ids=str,
)
def test_all_offsets_are_smaller_than_their_reach(offsets: list[float], reach: int) -> None:
    assert reach_of(torch.tensor([offsets, [0.0, 0.0]]), most=9) == reach


def test_offsets_that_cannot_be_looked_at_reach_as_far_as_they_may() -> None:
    near = torch.ones(3, 2)
    assert reach_of(near, most=9) == 2
    assert reach_of(near.to("meta"), most=9) == reach_of(near[:0], most=9) == 9
    assert torch.func.vmap(lambda offset: offset + reach_of(offset, most=9))(near)[0, 0] == 10


class Looks(TorchDispatchMode):
    """How often a number was taken out of a tensor."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket.__name__ == "_local_scalar_dense"
        return func(*args, **(kwargs or {}))


def test_offsets_are_looked_at_once() -> None:
    rng = np.random.default_rng(4)
    offsets, patches = make_offsets(rng, 6, 3.0).view(2, 3, 1, 2), make_images(rng, 2, 3, 8, 8)
    for call in (
        lambda: helper.Translation(patches.flatten(0, 1), offsets.flatten(0, 1)),
        lambda: helper.reassemble_patches_position_real(patches, offsets, 14),
        lambda: helper.extract_channels_from_region(make_images(rng, 2, 1, 14, 14), offsets, 8),
    ):
        with Looks() as looks:
            call()
        assert looks.count == 1


# --- memory -------------------------------------------------------------------------------------------------


class Allocations(TorchDispatchMode):
    """The bytes of every tensor that an operation of torch brings forth."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        in_place = func.overloadpacket.__name__.endswith("_")
        if isinstance(result, torch.Tensor) and not func.is_view and not in_place:
            size = result.untyped_storage().nbytes()
            self.largest = max(self.largest, size)
            self.total += size
        return result


def bytes_of(call: Callable[[], object]) -> Allocations:
    with Allocations() as seen:
        call()
    return seen


B, C, N, M = 2, 3, 8, 48
CANVAS_PER_PATCH = B * C * M * M * 8  # bytes, complex


def memory_case() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(10)
    offsets = make_offsets(rng, B * C, 19.0).view(B, C, 1, 2)
    return make_images(rng, B, C, N, N), offsets, make_images(rng, B, C, N, N, dtype=torch.float32).abs()


@pytest.mark.parametrize("tracked", [False, True], ids=["forward", "with-gradients"])
def test_merging_and_extracting_make_no_canvas_for_every_patch(tracked: bool) -> None:
    patches, offsets, weights = memory_case()
    patches.requires_grad_(tracked)

    def both() -> None:
        canvas, _ = helper.reassemble_patches_position_real(patches, offsets, M, weights)
        again = helper.extract_channels_from_region(canvas.unsqueeze(1), offsets, N)
        if tracked:
            again.backward(torch.ones_like(again))

    assert bytes_of(both).largest < CANVAS_PER_PATCH / 2


def test_a_canvas_for_every_patch_would_be_seen() -> None:
    patches, offsets, _ = memory_case()
    room = (M - N) // 2
    canvases = torch.nn.functional.pad(patches, (room, room, room, room)).flatten(0, 1)

    assert bytes_of(lambda: helper.Translation(canvases, -offsets.flatten(0, 1))).largest >= CANVAS_PER_PATCH


def test_translation_allocates_little_more_than_its_copies_of_the_images() -> None:
    rng = np.random.default_rng(11)
    images, offsets = make_images(rng, 16, 64, 64), make_offsets(rng, 16, 6.0).unsqueeze(1)

    seen = bytes_of(lambda: helper.Translation(images, offsets))

    # A framed copy, the windows, and one result for each direction; no index or grid of an image's size.
    assert seen.total < 4.5 * images.nbytes
