"""Patches put where they belong: against naive loops, known objects, and phases that were scrambled on purpose."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ptycho_torch import reassembly
from ptycho_torch.reassembly import place_patches, probe_placement_weights, synchronise_phases
from shapecheck import ContractError

H, W, N = 61, 78, 16
few = settings(max_examples=20, deadline=None)


def complex_noise(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def wavy_object(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """A formula, so that patches can be cut at sub-pixel positions without interpolation; no symmetry."""
    modulus = 1 + 0.3 * np.sin(rows / 3) * np.cos(columns / 4)
    return modulus * np.exp(1j * (np.sin(columns / 5 + rows / 7) + 0.02 * columns))


def cut(positions: np.ndarray, size: int = N) -> torch.Tensor:
    """Patches of the wavy object, index N//2 at the position."""
    steps = np.arange(size) - size // 2
    x, y = positions[:, 0, None, None], positions[:, 1, None, None]
    return torch.from_numpy(wavy_object(y + steps[:, None], x + steps[None, :]).astype(np.complex64))


def as_positions(positions: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(positions.astype(np.float32)).unsqueeze(1)


def scan_positions(step: float = 5.0, jitter: float = 1.5, seed: int = 0) -> np.ndarray:
    """A jittered raster (x, y) whose patches lie inside H x W."""
    x, y = np.meshgrid(np.arange(11.0, W - 11, step), np.arange(11.0, H - 11, step))
    raster = np.stack([x.ravel(), y.ravel()], axis=1)
    jittered = raster + np.random.default_rng(seed).uniform(-jitter, jitter, raster.shape)
    return jittered.astype(np.float32).astype(np.float64)


def gaussian_weights(sigma: float = 3.0, size: int = N) -> torch.Tensor:
    steps = torch.arange(size) - size // 2
    line = torch.exp(-(steps**2) / (2 * sigma**2))
    return torch.outer(line, line)


def correlation(placement: reassembly.Placement, seen_above: float = 1e-3) -> float:
    """With the object at the anchor, where it was seen; blind to one global factor."""
    top, left = placement.anchor
    height, width = placement.obj.shape
    rows, columns = np.mgrid[top : top + height, left : left + width]
    seen = (placement.weight > seen_above * placement.weight.max()).numpy()
    found, truth = placement.obj.numpy()[seen], wavy_object(rows, columns)[seen]
    return float(np.abs(np.vdot(found, truth)) / np.linalg.norm(found) / np.linalg.norm(truth))


def naive_place(
    patches: np.ndarray, positions: np.ndarray, weights: np.ndarray, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Every patch pixel dealt out to the four pixels around it."""
    wave, weight = np.zeros(shape, dtype=np.complex128), np.zeros(shape)
    size = weights.shape[0]
    for patch, (px, py) in zip(patches, positions, strict=True):
        for i, j in np.ndindex(size, size):
            y, x = py - size // 2 + i, px - size // 2 + j
            for r in (math.floor(y), math.floor(y) + 1):
                for c in (math.floor(x), math.floor(x) + 1):
                    share = (1 - abs(y - r)) * (1 - abs(x - c)) * weights[i, j]
                    if share > 0:
                        wave[r, c] += share * patch[i, j]
                        weight[r, c] += share
    return wave, weight


# --- placement ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [5, 6, 1])
def test_placement_agrees_with_a_loop_over_pixels(size: int) -> None:
    rng = np.random.default_rng(0)
    positions = rng.uniform(4, 11, (7, 2)).astype(np.float32).astype(np.float64)
    positions[0] = [8.0, 5.0]
    patches, weights = complex_noise(rng, 7, size, size).astype(np.complex64), rng.uniform(0.1, 1, (size, size))
    wave, weight = naive_place(patches, positions, weights, (17, 19))

    placement = place_patches(
        torch.from_numpy(patches), as_positions(positions), torch.from_numpy(weights).float(), shape=(17, 19)
    )

    assert np.abs(placement.weight.numpy() - weight).max() < 1e-5
    assert np.abs((placement.obj * placement.weight).numpy() - wave).max() < 1e-5
    assert placement.anchor == (0, 0)
    assert placement.dropped == 0


@few
@given(seed=st.integers(0, 2**31), scale=st.floats(0.01, 100.0), n=st.integers(1, 12))
def test_a_constant_is_placed_as_that_constant_to_the_very_rim(seed: int, scale: float, n: int) -> None:
    rng = np.random.default_rng(seed)
    value = complex(scale * np.exp(1j * rng.uniform(-np.pi, np.pi)))
    patches = torch.full((n, N, N), value, dtype=torch.complex64)

    obj, weight, _, _ = place_patches(patches, as_positions(rng.uniform(-20, 20, (n, 2))), torch.ones(N, N))

    seen = weight > 1e-6 * weight.max()
    assert (obj[seen] - value).abs().max() < 1e-5 * scale
    assert not obj[~seen].any()


def test_the_bounding_box_is_anchored_at_the_first_touched_pixel() -> None:
    positions = np.array([[20.25, -3.0], [24.0, 6.5]])  # columns 12..28 and 16..31, rows -11..4 and -2..14

    placement = place_patches(cut(positions), as_positions(positions), torch.ones(N, N))

    assert placement.anchor == (-11, 12)
    assert placement.obj.shape == (14 + 11 + 1, 31 - 12 + 1)
    assert correlation(placement) > 0.999


@pytest.mark.parametrize("anchor", [None, (-5, -3), (0, 0)])
def test_shape_and_anchor_choose_the_canvas(anchor: tuple[int, int] | None) -> None:
    positions = scan_positions()
    placement = place_patches(cut(positions), as_positions(positions), torch.ones(N, N), shape=(70, 90), anchor=anchor)

    assert placement.obj.shape == placement.weight.shape == (70, 90)
    assert placement.anchor == (anchor or (0, 0))
    assert correlation(placement) > 0.999


def test_an_anchor_alone_keeps_the_far_corner_of_the_bounding_box() -> None:
    positions = np.array([[20.0, 30.0]])

    placement = place_patches(cut(positions), as_positions(positions), torch.ones(N, N), anchor=(0, 0))

    assert placement.obj.shape == (30 + N // 2, 20 + N // 2)
    assert correlation(placement) > 0.9999


def test_patches_of_one_channel_reproduce_a_non_square_object() -> None:
    positions = scan_positions()

    placement = place_patches(cut(positions), as_positions(positions), gaussian_weights(), shape=(H, W))

    assert correlation(placement) > 0.999


@pytest.mark.parametrize("gridsize", [2, 3])
def test_grouped_patches_reproduce_a_non_square_object(gridsize: int) -> None:
    positions, rng, C = scan_positions(), np.random.default_rng(1), gridsize**2
    groups = np.stack([rng.choice(len(positions), C, replace=False) for _ in range(40)])
    centres = positions[groups].mean(axis=1, keepdims=True)
    offsets = -(positions[groups] - centres)  # the sense of coords_relative
    patches = torch.stack([cut(positions[group]) for group in groups])

    placement = place_patches(
        patches.flatten(0, 1), as_positions((centres - offsets).reshape(-1, 2)), gaussian_weights()
    )

    assert correlation(placement) > 0.999


@pytest.mark.parametrize("mistake", ["mirrored", "axes swapped", "half a patch"])
def test_the_object_tells_wrong_positions(mistake: str) -> None:
    positions = scan_positions()
    wrong = {
        "mirrored": 2 * positions.mean(axis=0) - positions,
        "axes swapped": positions[:, ::-1].copy(),
        "half a patch": positions + N // 2,
    }[mistake]

    assert correlation(place_patches(cut(positions), as_positions(wrong), gaussian_weights())) < 0.95


def test_whole_positions_touch_no_pixel_beyond_the_patches() -> None:
    patches = cut(np.array([[8.0, 8.0]]))

    placement = place_patches(patches, torch.full((1, 1, 2), 8.0), torch.ones(N, N), shape=(N, N))

    assert torch.equal(placement.obj, patches[0])
    assert torch.equal(placement.weight, torch.ones(N, N))


@pytest.mark.parametrize("position", [(7.9, 8.0), (8.1, 8.0), (8.0, 7.0), (8.0, 8.5)])
def test_a_patch_beyond_the_canvas_is_an_error_that_names_it(position: tuple[float, float]) -> None:
    positions = torch.tensor([[8.0, 8.0], position]).unsqueeze(1)

    with pytest.raises(ValueError, match=r"got 1 of 2 beyond it, the first patch 1 of side 16 at \(x, y\) = "):
        place_patches(cut(np.zeros((2, 2))), positions, torch.ones(N, N), shape=(N, N))


def test_patches_beyond_the_canvas_are_left_out_and_counted_if_asked() -> None:
    positions = scan_positions()
    placement = place_patches(
        cut(positions), as_positions(positions), torch.ones(N, N), shape=(H, 50), allow_dropped=True
    )

    fits = np.ceil(positions[:, 0]) + N - N // 2 <= 50
    alone = place_patches(cut(positions[fits]), as_positions(positions[fits]), torch.ones(N, N), shape=(H, 50))
    assert placement.dropped == int((~fits).sum()) > 0
    assert torch.equal(placement.obj, alone.obj)


def test_all_patches_left_out_leave_an_empty_object() -> None:
    placement = place_patches(
        cut(np.zeros((2, 2))), torch.full((2, 1, 2), 500.0), torch.ones(N, N), shape=(20, 30), allow_dropped=True
    )

    assert placement.dropped == 2
    assert not placement.obj.any()
    assert not placement.weight.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": torch.full((2, 1, 2), math.nan)}, "positions to be finite, got NaN or infinity for patch 0"),
        (
            {"weights": torch.zeros(N, N)},
            "weights to be finite, not negative and somewhere positive, got values from 0",
        ),
        ({"weights": -torch.ones(N, N)}, "got values from -1 to -1"),
        ({"weights": torch.full((N, N), math.inf)}, "got values from inf to inf"),
        ({"shape": (0, 5)}, r"shape to be \(rows, columns\), each at least 1"),
        (
            {"patches": torch.zeros(0, N, N, dtype=torch.complex64), "positions": torch.zeros(0, 1, 2)},
            "at least one patch",
        ),
    ],
    ids=["nan-position", "zero-weights", "negative-weights", "infinite-weights", "empty-shape", "no-patch"],
)
def test_placement_refuses_what_it_cannot_place(change: dict[str, object], message: str) -> None:
    call = {"patches": cut(np.zeros((2, 2))), "positions": torch.zeros(2, 1, 2), "weights": torch.ones(N, N)}
    place_patches(**call)

    with pytest.raises(ValueError, match=message):
        place_patches(**(call | change))


@pytest.mark.parametrize("pixels_at_a_time", [1, 700])
def test_placement_in_chunks_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch, pixels_at_a_time: int) -> None:
    positions = scan_positions()
    call = (cut(positions), as_positions(positions), gaussian_weights())
    whole, turned = place_patches(*call), synchronise_phases(*call, iterations=2)

    monkeypatch.setattr(reassembly, "_CHUNK_PIXELS", pixels_at_a_time)

    assert torch.equal(place_patches(*call).obj, whole.obj)
    assert torch.equal(place_patches(*call).weight, whole.weight)
    assert torch.allclose(synchronise_phases(*call, iterations=2), turned, atol=1e-5)


def test_the_order_of_patches_does_not_matter() -> None:
    positions = scan_positions()
    order = np.random.default_rng(2).permutation(len(positions))

    first = place_patches(cut(positions), as_positions(positions), gaussian_weights())
    second = place_patches(cut(positions[order]), as_positions(positions[order]), gaussian_weights())

    assert torch.allclose(first.obj, second.obj, atol=1e-5)
    assert first.anchor == second.anchor


@few
@given(seed=st.integers(0, 2**31), dx=st.integers(-30, 30), dy=st.integers(-30, 30))
def test_moving_every_position_moves_the_anchor_and_nothing_else(seed: int, dx: int, dy: int) -> None:
    rng = np.random.default_rng(seed)
    positions = np.round(rng.uniform(-10, 10, (4, 2)) * 8) / 8  # exact in float32, moved or not
    patches = cut(positions)

    here = place_patches(patches, as_positions(positions), gaussian_weights())
    there = place_patches(patches, as_positions(positions + np.array([dx, dy])), gaussian_weights())

    assert torch.equal(here.obj, there.obj)
    assert there.anchor == (here.anchor[0] + dy, here.anchor[1] + dx)


@few
@given(seed=st.integers(0, 2**31))
def test_the_unnormalised_sum_is_the_adjoint_of_interpolation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    positions = rng.uniform(10, 14, (3, 2)).astype(np.float32).astype(np.float64)
    patches, canvas = complex_noise(rng, 3, N, N), complex_noise(rng, 25, 27)
    placement = place_patches(
        torch.from_numpy(patches.astype(np.complex64)), as_positions(positions), torch.ones(N, N), shape=(25, 27)
    )
    steps = np.arange(N) - N // 2

    read = 0.0
    for patch, (x, y) in zip(patches, positions, strict=True):
        rows = np.maximum(0, 1 - np.abs((y + steps)[:, None] - np.arange(25)))
        columns = np.maximum(0, 1 - np.abs((x + steps)[:, None] - np.arange(27)))
        read += np.vdot(patch, rows @ canvas @ columns.T)

    placed = np.vdot((placement.obj * placement.weight).numpy(), canvas)
    assert abs(placed - read) < 1e-5 * np.linalg.norm(patches) * np.linalg.norm(canvas)


@few
@given(seed=st.integers(0, 2**31), size=st.integers(1, 12), n=st.integers(1, 5), others=st.integers(1, 5))
def test_sums_of_two_sets_of_patches_add_up_and_are_linear(seed: int, size: int, n: int, others: int) -> None:
    rng = np.random.default_rng(seed)
    positions = rng.uniform(12, 20, (n + others, 2))
    patches = torch.from_numpy(complex_noise(rng, n + others, size, size).astype(np.complex64))
    weights, factor = torch.from_numpy(rng.uniform(0.1, 1, (size, size))).float(), complex(*rng.standard_normal(2))

    def sums(part: slice, times: complex = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
        obj, weight, _, _ = place_patches(times * patches[part], as_positions(positions[part]), weights, shape=(29, 33))
        return obj * weight, weight

    (whole, total), (first, some), (second, rest) = sums(slice(None)), sums(slice(n)), sums(slice(n, None))
    assert torch.allclose(whole, first + second, atol=1e-4)
    assert torch.allclose(total, some + rest, atol=1e-5)
    assert torch.allclose(sums(slice(None), factor)[0], factor * whole, atol=1e-4)


@few
@given(seed=st.integers(0, 2**31), size=st.integers(1, 12), n=st.integers(2, 5))
def test_a_patch_changes_only_the_pixels_under_it(seed: int, size: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    positions = rng.uniform(12, 40, (n, 2)).astype(np.float32)
    patches = torch.from_numpy(complex_noise(rng, n, size, size).astype(np.complex64))
    left, top = np.floor(positions[0]).astype(int) - size // 2
    under = np.zeros((50, 53), dtype=bool)
    under[top : top + size + 1, left : left + size + 1] = True

    before = place_patches(patches, as_positions(positions), torch.ones(size, size), shape=under.shape).obj
    patches[0] += 1.0
    after = place_patches(patches, as_positions(positions), torch.ones(size, size), shape=under.shape).obj

    assert torch.equal(before[~under], after[~under])
    assert not torch.equal(before[under], after[under])


def test_gradients_reach_the_patches() -> None:
    positions = scan_positions()
    patches = cut(positions).requires_grad_()

    place_patches(patches, as_positions(positions), gaussian_weights()).obj.abs().square().sum().backward()

    assert torch.isfinite(torch.view_as_real(patches.grad)).all()
    assert patches.grad.abs().sum() > 0


def test_thousands_of_patches_are_placed_in_chunks() -> None:
    rng = np.random.default_rng(0)
    positions = rng.uniform(20, 180, (3000, 2)).astype(np.float32).astype(np.float64)

    placement = place_patches(cut(positions, 24), as_positions(positions), gaussian_weights(4.0, 24))

    assert len(positions) * 25**2 > reassembly._CHUNK_PIXELS  # noqa: SLF001 (or the test would show nothing)
    assert correlation(placement) > 0.999


def test_probe_placement_weights_sum_the_intensity_of_the_modes() -> None:
    probe = complex_noise(np.random.default_rng(0), 2, 5, 5).astype(np.complex64)

    weights = probe_placement_weights(torch.from_numpy(probe))

    assert np.abs(weights.numpy() - (np.abs(probe[0]) ** 2 + np.abs(probe[1]) ** 2)).max() < 1e-5


# --- phases ----------------------------------------------------------------------------------------


def scrambled(positions: np.ndarray, seed: int = 3) -> tuple[torch.Tensor, np.ndarray]:
    phases = np.random.default_rng(seed).uniform(-np.pi, np.pi, len(positions))
    turns = torch.from_numpy(np.exp(1j * phases).astype(np.complex64))
    return cut(positions) * turns[:, None, None], phases


@pytest.mark.parametrize("iterations", [0, 10])
@pytest.mark.parametrize("seed", [3, 4])
def test_random_global_phases_are_removed(iterations: int, seed: int) -> None:
    positions = scan_positions(step=4.0)
    patches, _ = scrambled(positions, seed)
    place = as_positions(positions)
    assert correlation(place_patches(patches, place, gaussian_weights())) < 0.5

    aligned = synchronise_phases(patches, place, gaussian_weights(), iterations=iterations)

    assert correlation(place_patches(aligned, place, gaussian_weights())) > 0.999


def test_only_one_number_of_modulus_one_is_applied_to_each_patch() -> None:
    positions = scan_positions()
    patches, phases = scrambled(positions)

    ratio = synchronise_phases(patches, as_positions(positions), gaussian_weights()) / patches

    assert torch.allclose(ratio, ratio[:, :1, :1].expand_as(ratio), atol=1e-4)
    assert torch.allclose(ratio.abs(), torch.ones(ratio.shape), atol=1e-4)
    left = np.angle(ratio[:, 0, 0].numpy() * np.exp(1j * phases))
    assert np.abs(np.exp(1j * (left - left[0])) - 1).max() < 0.08


def test_the_mean_phase_is_left_as_it_was() -> None:
    positions, weights = scan_positions(), gaussian_weights()
    patches, _ = scrambled(positions)

    aligned = synchronise_phases(patches, as_positions(positions), weights)

    total = complex((weights * aligned * patches.conj()).sum())
    assert np.angle(total) == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize("global_phase", [0.0, 2.5])
def test_consistent_patches_stay_as_they_are(global_phase: float) -> None:
    obj = complex_noise(np.random.default_rng(0), H, W) + 2
    corners = np.round(scan_positions()).astype(int) - N // 2
    patches = np.stack([obj[y : y + N, x : x + N] for x, y in corners]) * np.exp(1j * global_phase)
    patches = torch.from_numpy(patches.astype(np.complex64))

    aligned = synchronise_phases(patches, as_positions(corners + N / 2), gaussian_weights())

    assert torch.allclose(aligned, patches, atol=1e-4)


def test_consistent_sub_pixel_patches_change_by_no_more_than_interpolation_blurs() -> None:
    positions = scan_positions()
    place, weights = as_positions(positions), gaussian_weights()

    aligned = synchronise_phases(cut(positions), place, weights)

    assert (aligned / cut(positions)).angle().abs().max() < 0.05
    assert correlation(place_patches(aligned, place, weights)) > 0.999


def test_sweeps_lower_the_disagreement_of_noisy_patches() -> None:
    positions = scan_positions(step=4.0)
    patches, _ = scrambled(positions)
    noise = torch.from_numpy(complex_noise(np.random.default_rng(5), *patches.shape).astype(np.complex64))
    patches = patches + noise
    place, weights = as_positions(positions), gaussian_weights()

    def coherence(iterations: int) -> float:
        placement = place_patches(synchronise_phases(patches, place, weights, iterations=iterations), place, weights)
        return float((placement.weight * placement.obj.abs().square()).sum())

    levels = [coherence(iterations) for iterations in (0, 1, 3, 10)]

    assert levels == sorted(levels)
    attainable = correlation(place_patches(cut(positions) + noise, place, weights))
    assert correlation(place_patches(synchronise_phases(patches, place, weights), place, weights)) > 0.98 * attainable


def test_weights_decide_whom_a_patch_agrees_with() -> None:
    """Two patches that agree in the middle and have opposite phases outside it."""
    positions = np.array([[30.0, 30.0], [30.0, 31.0]])
    patches = cut(positions)
    middle = gaussian_weights(1.0) > 0.1
    patches[1] = torch.where(middle, patches[1], -patches[1])

    by_middle = synchronise_phases(patches, as_positions(positions), gaussian_weights(1.0))
    by_rest = synchronise_phases(patches, as_positions(positions), 1.0 - gaussian_weights(2.0) + 0.01)

    def relative_phase(aligned: torch.Tensor) -> float:
        turns = (aligned / patches)[:, 8, 8]
        return float((turns[1] * turns[0].conj()).angle())

    assert abs(relative_phase(by_middle)) < 0.3
    assert abs(relative_phase(by_rest)) > math.pi - 0.3


def test_patches_that_overlap_nothing_keep_their_phase_and_clusters_align_inside() -> None:
    positions = np.array([[20.0, 20.0], [22.0, 21.0], [400.0, 20.0], [20.0, 300.0], [21.0, 302.0]])
    patches, phases = scrambled(positions)

    turns = (synchronise_phases(patches, as_positions(positions), gaussian_weights()) / patches)[:, 8, 8].numpy()

    left = np.angle(turns * np.exp(1j * phases))
    assert left[0] == pytest.approx(left[1], abs=0.01)
    assert left[3] == pytest.approx(left[4], abs=0.01)


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_patches_are_ordinary_inputs(n: int) -> None:
    positions = np.array([[20.0, 20.0], [23.5, 21.0]])[:n]

    aligned = synchronise_phases(cut(positions), as_positions(positions), gaussian_weights())

    assert torch.allclose(aligned, cut(positions), atol=0.02)


def test_dark_patches_stay_dark_and_finite() -> None:
    positions = scan_positions()

    aligned = synchronise_phases(torch.zeros_like(cut(positions)), as_positions(positions), gaussian_weights())

    assert not aligned.any()


def test_synchronisation_is_deterministic_and_leaves_its_input_alone() -> None:
    positions = scan_positions()
    patches, _ = scrambled(positions)
    before = patches.clone()

    first = synchronise_phases(patches, as_positions(positions), gaussian_weights())
    second = synchronise_phases(patches, as_positions(positions), gaussian_weights())

    assert torch.equal(first, second)
    assert torch.equal(patches, before)


def test_synchronisation_refuses_a_negative_number_of_sweeps() -> None:
    positions = scan_positions()

    with pytest.raises(ValueError, match="Expected iterations to be at least 0, got -1"):
        synchronise_phases(cut(positions), as_positions(positions), gaussian_weights(), iterations=-1)


# --- contracts -------------------------------------------------------------------------------------

REJECTED = [
    pytest.param("patches", lambda patches: patches.abs(), id="real-patches"),
    pytest.param("patches", lambda patches: patches[..., 1:], id="patches-not-square"),
    pytest.param("positions", lambda positions: positions[:, 0], id="flat-positions"),
    pytest.param("positions", lambda positions: positions.double(), id="float64-positions"),
    pytest.param("positions", lambda positions: positions.permute(0, 2, 1), id="channel-last-positions"),
    pytest.param("positions", lambda positions: positions[1:], id="too-few-positions"),
    pytest.param("weights", lambda weights: weights[1:, 1:], id="small-weights"),
    pytest.param("weights", lambda weights: weights.unsqueeze(0), id="weights-per-patch"),
]


@pytest.mark.violation
@pytest.mark.parametrize("function", [place_patches, synchronise_phases], ids=["place", "synchronise"])
@pytest.mark.parametrize(("parameter", "spoil"), REJECTED)
def test_contract_accepts_a_correct_call_and_refuses_a_spoilt_one(function, parameter: str, spoil) -> None:
    positions = scan_positions()[:7]
    call = {"patches": cut(positions), "positions": as_positions(positions), "weights": gaussian_weights()}
    function(**call)
    call[parameter] = spoil(call[parameter])

    with pytest.raises(ContractError) as caught:
        function(**call)

    assert caught.value.violations[0].boundary == f"ptycho_torch.reassembly.{function.__name__}"
    assert parameter in {violation.parameter for violation in caught.value.violations}


@pytest.mark.violation
def test_a_placement_of_unequal_sizes_cannot_be_built() -> None:
    obj = torch.zeros(4, 5, dtype=torch.complex64)
    reassembly.Placement(obj, torch.zeros(4, 5), (0, 0), 0)

    with pytest.raises(ContractError):
        reassembly.Placement(obj, torch.zeros(5, 4), (0, 0), 0)


@pytest.mark.violation
def test_probe_weights_refuse_a_probe_without_modes() -> None:
    with pytest.raises(ContractError):
        probe_placement_weights(torch.zeros(5, 5, dtype=torch.complex64))
