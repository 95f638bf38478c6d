"""The laws of the operators on sizes drawn at random: groups, channels, modes, patches and canvases, even and odd."""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ptycho_torch import helper

few = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**31)
channels = st.sampled_from([1, 2, 4, 9])


def make_complex(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    return torch.from_numpy((rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64))


def inner(a: torch.Tensor | np.ndarray, b: torch.Tensor | np.ndarray) -> complex:
    return complex(np.vdot(np.asarray(a, dtype=np.complex128), np.asarray(b, dtype=np.complex128)))


@dataclass(frozen=True)
class Sizes:
    B: int
    C: int
    P: int
    N: int
    M: int

    @property
    def room(self) -> int:
        return (self.M - self.N) // 2

    def offsets(self, rng: np.random.Generator, whole: bool = False) -> torch.Tensor:
        drawn = rng.uniform(-self.room, self.room, (self.B, self.C, 1, 2))
        return torch.from_numpy((np.round(drawn) if whole else drawn).astype(np.float32))

    def patches(self, rng: np.random.Generator) -> torch.Tensor:
        return make_complex(rng, self.B, self.C, self.N, self.N)

    def probe(self, rng: np.random.Generator) -> torch.Tensor:
        return make_complex(rng, self.B, self.C, self.P, self.N, self.N)


@st.composite
def sizes(draw: st.DrawFn, smallest: int = 1, multiple_of: int = 1) -> Sizes:
    N = multiple_of * draw(st.integers(smallest, 14 // multiple_of))
    M = N + draw(st.integers(0, 9))
    return Sizes(draw(st.integers(1, 4)), draw(channels), draw(st.integers(1, 3)), N, M)


def chain(patches: torch.Tensor, offsets: torch.Tensor, probe: torch.Tensor, M: int) -> torch.Tensor:
    canvas, _ = helper.reassemble_patches_position_real(patches, offsets, M, helper.probe_weights(probe))
    again = helper.extract_channels_from_region(canvas.unsqueeze(1), offsets, patches.shape[-1])
    return helper.diffract(helper.illuminate(again, probe))


# --- translation ---------------------------------------------------------------------------------------


@st.composite
def moves(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """An image's height and width, and a whole offset that leaves a part of it in sight."""
    h, w = draw(st.integers(1, 15)), draw(st.integers(1, 15))
    return h, w, draw(st.integers(1 - w, w - 1)), draw(st.integers(1 - h, h - 1))


@few
@given(seed=seeds, move=moves())
def test_a_whole_offset_copies_what_stays_in_sight_and_leaves_zeros(seed: int, move: tuple[int, ...]) -> None:
    h, w, dx, dy = move
    image = make_complex(np.random.default_rng(seed), 1, h, w)
    padded = np.zeros((3 * h, 3 * w), dtype=np.complex64)
    padded[h + dy : 2 * h + dy, w + dx : 2 * w + dx] = image[0].numpy()

    moved = helper.Translation(image, torch.tensor([[[float(dx), float(dy)]]]))

    assert np.array_equal(moved[0, 0].numpy(), padded[h : 2 * h, w : 2 * w])


@few
@given(seed=seeds, first=moves(), second=st.tuples(st.integers(-3, 3), st.integers(-3, 3)))
def test_two_whole_offsets_are_their_sum_and_a_step_back_undoes_one(
    seed: int, first: tuple[int, ...], second: tuple[int, int]
) -> None:
    h, w, dx, dy = first
    margin = 3 + max(abs(dx), abs(dy))  # so that nothing leaves the image
    image = torch.nn.functional.pad(make_complex(np.random.default_rng(seed), 2, h, w), (margin,) * 4)
    one, two = torch.tensor([dx, dy]).float().expand(2, 1, 2), torch.tensor(second).float().expand(2, 1, 2)

    moved = helper.Translation(image, one)[:, 0]

    assert torch.equal(helper.Translation(moved, two), helper.Translation(image, one + two))
    assert torch.equal(helper.Translation(moved, -one)[:, 0], image)
    assert torch.isclose(moved.norm(), image.norm())


@few
@given(
    seed=seeds, h=st.integers(1, 12), w=st.integers(1, 12), dx=st.floats(-4, 4, width=32), dy=st.floats(-4, 4, width=32)
)
def test_interpolation_never_adds_energy_and_keeps_the_sum_of_what_stays_inside(
    seed: int, h: int, w: int, dx: float, dy: float
) -> None:
    image = torch.nn.functional.pad(make_complex(np.random.default_rng(seed), 1, h, w), (5, 5, 5, 5))

    moved = helper.Translation(image, torch.tensor([[[dx, dy]]]))

    assert moved.norm() <= image.norm() * (1 + 1e-5)
    assert abs(complex(moved.sum()) - complex(image.sum())) < 1e-4 * max(1.0, float(image.abs().sum()))


@few
@given(h=st.integers(2, 12), w=st.integers(2, 12), along=st.sampled_from(["x", "y"]))
def test_half_a_pixel_is_half_and_half_along_either_axis(h: int, w: int, along: str) -> None:
    image = torch.zeros(1, h, w)
    image[0, 0, 0] = 1.0
    expected = torch.zeros(h, w)
    expected[0, 0] = expected[(0, 1) if along == "x" else (1, 0)] = 0.5

    moved = helper.Translation(image, torch.tensor([[[0.5, 0.0] if along == "x" else [0.0, 0.5]]]))

    assert torch.equal(moved[0, 0], expected)


# --- merge and extraction ----------------------------------------------------------------------------------


def ramp(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Linear, so that interpolation reproduces it; symmetric under nothing."""
    return 1.0 + 0.03 * columns - 0.05 * rows + 1j * (0.5 - 0.02 * columns + 0.04 * rows)


def ramp_patches(x: np.ndarray, y: np.ndarray, size: int) -> np.ndarray:
    steps = np.arange(size) - size // 2
    return ramp(y[..., None, None] + steps[:, None], x[..., None, None] + steps[None, :])


@few
@given(seed=seeds, size=sizes(smallest=5))
def test_patches_cut_from_a_ramp_merge_to_it_on_the_support(seed: int, size: Sizes) -> None:
    rng = np.random.default_rng(seed)
    centre, offsets = rng.uniform(20, 40, (size.B, 1, 2)), size.offsets(rng)
    positions = centre - offsets.numpy()[:, :, 0]
    window = np.sin(np.pi * np.arange(size.N) / (size.N - 1)) ** 2  # like a probe: nothing at the rim
    weights = torch.from_numpy(np.outer(window, window).astype(np.float32)).expand(size.B, size.C, -1, -1)
    patches = torch.from_numpy(ramp_patches(positions[..., 0], positions[..., 1], size.N).astype(np.complex64))

    merged, mask = helper.reassemble_patches_position_real(patches, offsets, size.M, weights.contiguous())

    truth = ramp_patches(centre[:, 0, 0], centre[:, 0, 1], size.M)
    assert mask.any()
    assert np.abs(merged.numpy() - truth)[mask.numpy()].max() < 2e-3
    assert not merged[~mask].any()


@few
@given(seed=seeds, size=sizes(), value=st.complex_numbers(min_magnitude=0.1, max_magnitude=10))
def test_a_constant_merges_to_that_constant(seed: int, size: Sizes, value: complex) -> None:
    rng = np.random.default_rng(seed)
    patches = torch.full((size.B, size.C, size.N, size.N), value, dtype=torch.complex64)

    merged, mask = helper.reassemble_patches_position_real(
        patches, size.offsets(rng, whole=True), size.M, torch.from_numpy(rng.uniform(0.1, 1, patches.shape)).float()
    )

    assert mask.flatten(1).sum(dim=1).min() >= size.N**2
    assert (merged[mask] - value).abs().max() < 1e-5 * abs(value)


@few
@given(seed=seeds, size=sizes())
def test_patches_of_one_object_are_extracted_again_from_their_merge(seed: int, size: Sizes) -> None:
    rng = np.random.default_rng(seed)
    obj, offsets = make_complex(rng, size.B, size.M, size.M).numpy(), size.offsets(rng, whole=True)
    corner = size.M // 2 - size.N // 2 - offsets.numpy()[:, :, 0].astype(int)  # (x, y)
    patches = np.stack(
        [[o[y : y + size.N, x : x + size.N] for x, y in group] for o, group in zip(obj, corner, strict=True)]
    )

    merged, mask = helper.reassemble_patches_position_real(
        torch.from_numpy(patches), offsets, size.M, torch.ones(patches.shape)
    )
    again = helper.extract_channels_from_region(merged.unsqueeze(1), offsets, size.N)

    assert np.abs(merged.numpy() - obj)[mask.numpy()].max() < 1e-5 * np.abs(obj).max()
    assert np.abs(again.numpy() - patches).max() < 1e-5 * np.abs(patches).max()


@few
@given(seed=seeds, size=sizes())
def test_the_merge_is_linear_in_the_patches_and_blind_to_their_order(seed: int, size: Sizes) -> None:
    rng = np.random.default_rng(seed)
    first, second, offsets = size.patches(rng), size.patches(rng), size.offsets(rng)
    weights, factor = helper.probe_weights(size.probe(rng)), complex(rng.standard_normal(), rng.standard_normal())
    order = torch.from_numpy(rng.permutation(size.C))

    def merge(patches: torch.Tensor) -> torch.Tensor:
        return helper.reassemble_patches_position_real(patches, offsets, size.M, weights)[0]

    reordered = helper.reassemble_patches_position_real(first[:, order], offsets[:, order], size.M, weights[:, order])[
        0
    ]
    scale = 1e-4 * (1 + abs(factor)) * max(float(first.abs().max()), float(second.abs().max()))

    assert (merge(first + factor * second) - merge(first) - factor * merge(second)).abs().max() < scale
    assert (reordered - merge(first)).abs().max() < scale


# --- waves ----------------------------------------------------------------------------------------------------


def reading_matrix(offset: float, size: int, canvas_size: int) -> np.ndarray:
    """Along one axis: patch pixel from canvas pixels, by the hat function of bilinear interpolation."""
    place = canvas_size // 2 - size // 2 + np.arange(size)[:, None] - offset
    return np.maximum(0, 1 - np.abs(place - np.arange(canvas_size)))


@few
@given(seed=seeds, size=sizes())
def test_cutting_and_lighting_has_the_adjoint_of_dense_matrices_with_complex_probes(seed: int, size: Sizes) -> None:
    rng = np.random.default_rng(seed)
    canvas, probe, offsets = make_complex(rng, size.B, 1, size.M, size.M), size.probe(rng), size.offsets(rng)
    waves = size.probe(rng)

    lit = helper.illuminate(helper.extract_channels_from_region(canvas, offsets, size.N), probe)

    back = np.zeros((size.B, 1, size.M, size.M), dtype=np.complex128)
    for b, c, p in np.ndindex(size.B, size.C, size.P):
        columns, rows = (reading_matrix(float(o), size.N, size.M) for o in offsets[b, c, 0])
        back[b, 0] += rows.T @ (np.conj(probe[b, c, p].numpy()) * waves[b, c, p].numpy()) @ columns
    assert abs(inner(lit, waves) - inner(canvas, back)) < 1e-5 * float(lit.norm()) * float(waves.norm())


@few
@given(seed=seeds, size=sizes())
def test_amplitudes_have_the_energy_of_the_waves_and_modes_add_in_intensity(seed: int, size: Sizes) -> None:
    waves = size.probe(np.random.default_rng(seed))

    intensity = helper.diffract(waves).double().square()

    alone = sum(helper.diffract(waves[:, :, p : p + 1].contiguous()).double().square() for p in range(size.P))
    energy = waves.to(torch.complex128).abs().square().sum(dim=(2, 3, 4))
    assert torch.allclose(intensity, alone, rtol=1e-4, atol=1e-5)
    assert torch.allclose(intensity.sum(dim=(2, 3)), energy, rtol=1e-5)


# The last numbers of an array whose length is no multiple of a vector's, torch multiplies (complex) one by one, without
# fused multiply-add; so results are the same bits for the sides in use, and within rounding for odd ones.
@few
@given(seed=seeds, size=sizes(multiple_of=4))
def test_no_group_knows_of_another_whatever_the_batch(seed: int, size: Sizes) -> None:
    rng = np.random.default_rng(seed)
    patches, offsets, probe = size.patches(rng), size.offsets(rng), size.probe(rng)
    order = torch.from_numpy(rng.permutation(size.B))

    whole = chain(patches, offsets, probe, size.M)

    assert torch.equal(whole, chain(patches, offsets, probe, size.M))
    assert torch.equal(whole[order], chain(patches[order], offsets[order], probe[order], size.M))
    for b in range(size.B):
        part = slice(b, b + 1)
        assert torch.equal(whole[part], chain(patches[part], offsets[part], probe[part], size.M))


@few
@given(patch_size=st.integers(1, 300), gridsize=st.integers(1, 5), distance=st.floats(0, 100))
@example(patch_size=1, gridsize=2, distance=5e-324)
def test_the_canvas_has_room_for_every_step_and_the_patch_stays_centred(
    patch_size: int, gridsize: int, distance: float
) -> None:
    canvas = helper.padded_size(patch_size, gridsize, distance)

    assert (canvas - patch_size) % 2 == 0
    assert canvas - patch_size >= (gridsize - 1) * distance
    assert canvas - patch_size <= (gridsize - 1) * 2 * math.ceil(Fraction(distance) / 2)
