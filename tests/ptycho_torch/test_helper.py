"""Each operator against a naive loop, its contract against what it must refuse, and its errors."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ptycho_torch import helper
from shapecheck import ContractError

SIZES = {"B": 3, "C": 4, "P": 2, "N": 16}  # pairwise different
COINCIDENCES = [
    pytest.param({"B": 1, "C": 1, "P": 1, "N": 8}, id="all-ones"),
    pytest.param({"B": 4, "C": 4, "P": 2, "N": 9}, id="B-is-C"),
    pytest.param({"B": 3, "C": 2, "P": 2, "N": 8}, id="C-is-two"),
    pytest.param({"B": 2, "C": 4, "P": 3, "N": 4}, id="C-is-N"),
    pytest.param(SIZES, id="all-different"),
]
CANVAS = 23


def make_complex(*shape: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy((rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64))


def make_offsets(B: int, C: int, largest: float, seed: int = 1) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(-largest, largest, (B, C, 1, 2)).astype(np.float32))


def make_group(B: int, C: int, P: int, N: int) -> dict[str, torch.Tensor]:
    return {
        "patches": make_complex(B, C, N, N),
        "offsets": make_offsets(B, C, (CANVAS - N) // 2),
        "probe": make_complex(B, C, P, N, N, seed=2),
        "region": make_complex(B, 1, CANVAS, CANVAS, seed=3),
    }


def scatter_shifted(image: np.ndarray, dx: float, dy: float) -> np.ndarray:
    """Content moved by (+dx, +dy): every pixel dealt out to the four pixels around its new place."""
    h, w = image.shape
    out = np.zeros((h, w), dtype=np.complex128)
    for row in range(h):
        for column in range(w):
            y, x = row + dy, column + dx
            for r in (math.floor(y), math.floor(y) + 1):
                for c in (math.floor(x), math.floor(x) + 1):
                    if 0 <= r < h and 0 <= c < w:
                        out[r, c] += (1 - abs(y - r)) * (1 - abs(x - c)) * image[row, column]
    return out


def close_to(result: torch.Tensor, expected: np.ndarray, tolerance: float = 2e-5) -> bool:
    found = result.detach().numpy()
    assert found.shape == expected.shape
    return bool(np.abs(found - expected).max() <= tolerance * np.abs(expected).max())


# --- Translation ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("h", "w"), [(12, 17), (9, 9), (1, 6), (6, 1), (1, 1), (2, 5)])
@pytest.mark.parametrize("is_complex", [False, True], ids=["real", "complex"])
def test_translation_agrees_with_a_loop_over_pixels(h: int, w: int, is_complex: bool) -> None:
    images = make_complex(5, h, w) if is_complex else make_complex(5, h, w).real.clone()
    offsets = torch.tensor([[0.0, 0.0], [2.0, -1.0], [0.3, 0.8], [-1.6, 0.25], [0.0, 3.5]]).unsqueeze(1)

    moved = helper.Translation(images, offsets)

    expected = [scatter_shifted(i, *o) for i, o in zip(images.numpy(), offsets[:, 0].tolist(), strict=True)]
    assert moved.dtype == images.dtype
    assert close_to(moved[:, 0], np.stack(expected), 1e-6)


def test_translation_moves_content_towards_larger_x_and_y() -> None:
    image = torch.zeros(1, 5, 7)
    image[0, 1, 2] = 1.0

    moved = helper.Translation(image, torch.tensor([[[3.0, 2.0]]]))

    assert torch.nonzero(moved[0, 0] > 0.5).tolist() == [[3, 5]]


def test_translation_accepts_a_conjugate_view_and_strided_offsets() -> None:
    images = make_complex(3, 6, 8)
    offsets = make_offsets(3, 1, 2.0)[:, 0].expand(3, 1, 2)
    columns_first = offsets.permute(2, 1, 0).contiguous().permute(2, 1, 0)

    assert torch.equal(
        helper.Translation(images.conj(), columns_first), helper.Translation(images.conj().resolve_conj(), offsets)
    )


def test_translation_passes_gradients_to_image_and_offset() -> None:
    slope = 0.7  # an image that rises by 0.7 per column falls by 0.7 per pixel moved to the right
    image = (slope * torch.arange(9.0)).expand(1, 8, 9).clone().requires_grad_()
    offset = torch.tensor([[[0.25, 0.0]]], requires_grad=True)

    helper.Translation(image, offset)[0, 0, 4, 4].backward()

    assert offset.grad[0, 0].tolist() == pytest.approx([-slope, 0.0], abs=1e-5)
    assert image.grad.sum().item() == pytest.approx(1.0, abs=1e-5)
    assert image.grad[0, 4, 3].item() == pytest.approx(0.25, abs=1e-5)


def test_translation_without_jitter_leaves_the_random_generator_alone() -> None:
    state = torch.get_rng_state()

    helper.Translation(make_complex(2, 5, 5), make_offsets(2, 1, 1.0)[:, 0], 0.0)

    assert torch.equal(torch.get_rng_state(), state)


def test_translation_jitter_moves_by_gaussian_noise_of_that_many_pixels() -> None:
    torch.manual_seed(0)
    ramp = torch.arange(21.0).expand(4000, 3, 21)  # its middle pixel tells how far it was moved
    offsets = torch.tensor([2.0, 0.0]).expand(4000, 1, 2)

    moved_by = 10.0 - helper.Translation(ramp, offsets, 0.05)[:, 0, 1, 10]

    assert moved_by.mean().item() == pytest.approx(2.0, abs=0.01)
    assert moved_by.std().item() == pytest.approx(0.05, rel=0.1)


def test_operators_pass_through_meta_and_fake_tensors() -> None:
    group = make_group(**SIZES)
    meta = {name: value.to("meta") for name, value in group.items()}
    with FakeTensorMode() as mode:
        fake = {name: mode.from_tensor(value) for name, value in group.items()}
        fake_canvas, fake_mask = helper.reassemble_patches_position_real(fake["patches"], fake["offsets"], CANVAS)

    canvas, mask = helper.reassemble_patches_position_real(meta["patches"], meta["offsets"], CANVAS)
    patches = helper.extract_channels_from_region(canvas.unsqueeze(1), meta["offsets"], SIZES["N"])
    amplitude = helper.diffract(helper.illuminate(patches, meta["probe"]))

    assert fake_canvas.shape == canvas.shape == (3, CANVAS, CANVAS)
    assert fake_mask.dtype == mask.dtype == torch.bool
    assert amplitude.shape == (3, 4, 16, 16)


# --- merge and extraction --------------------------------------------------------------------------
# Tolerances are wider here: at the rim the sums are divided by weights near 0.


def naive_merge_sums(
    patches: np.ndarray, offsets: np.ndarray, M: int, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    B, C, N, _ = patches.shape
    wave, weight = np.zeros((B, M, M), dtype=np.complex128), np.zeros((B, M, M))
    corner = M // 2 - N // 2
    for b in range(B):
        for c in range(C):
            big_patch, big_weight = np.zeros((M, M), dtype=np.complex128), np.zeros((M, M))
            big_patch[corner : corner + N, corner : corner + N] = patches[b, c]
            big_weight[corner : corner + N, corner : corner + N] = weights[b, c]
            x, y = (-float(v) for v in offsets[b, c, 0])
            moved_weight = scatter_shifted(big_weight, x, y).real
            wave[b] += moved_weight * scatter_shifted(big_patch, x, y)
            weight[b] += moved_weight
    return wave, weight


@pytest.mark.parametrize("sizes", COINCIDENCES)
def test_merge_with_default_weights_agrees_with_a_loop(sizes: dict[str, int]) -> None:
    group, N = make_group(**sizes), sizes["N"]
    weights = np.zeros(group["patches"].shape)
    weights[..., N // 4 : N // 4 + N // 2, N // 4 : N // 4 + N // 2] = 1.0
    wave, weight = naive_merge_sums(group["patches"].numpy(), group["offsets"].numpy(), CANVAS, weights)

    merged, mask = helper.reassemble_patches_position_real(group["patches"], group["offsets"], CANVAS)

    sure = np.abs(weight - 1e-6) > 1e-5
    assert np.array_equal(mask.numpy()[sure], (weight > 1e-6)[sure])
    assert close_to(merged, wave / (weight + 1e-3), 1e-4)
    assert not merged[~mask].any()


@pytest.mark.parametrize("sizes", COINCIDENCES)
def test_merge_with_probe_weights_agrees_with_a_loop(sizes: dict[str, int]) -> None:
    group = make_group(**sizes)
    weights = (np.abs(group["probe"].numpy()) ** 2).sum(axis=2)
    wave, weight = naive_merge_sums(group["patches"].numpy(), group["offsets"].numpy(), CANVAS, weights)
    well_lit = weight > 1e-3 * weight.max(axis=(1, 2), keepdims=True)

    merged, mask = helper.reassemble_patches_position_real(
        group["patches"], group["offsets"], CANVAS, helper.probe_weights(group["probe"])
    )

    expected = np.where(well_lit, wave / np.maximum(weight, 1e-12), 0)
    assert close_to(torch.where(torch.from_numpy(well_lit), merged, 0.0), expected, 1e-4)
    assert mask.numpy()[well_lit].all()
    assert not mask.numpy()[weight == 0].any()
    assert not merged[~mask].any()


def test_merge_mask_is_relative_to_each_group_so_the_unit_of_the_weights_does_not_matter() -> None:
    group = make_group(**SIZES)
    weights = helper.probe_weights(group["probe"])
    scales = torch.tensor([1e-6, 1.0, 1e6]).reshape(3, 1, 1, 1)

    merged, mask = helper.reassemble_patches_position_real(group["patches"], group["offsets"], CANVAS, weights)
    scaled, scaled_mask = helper.reassemble_patches_position_real(
        group["patches"], group["offsets"], CANVAS, weights * scales
    )

    assert (mask == scaled_mask).float().mean() > 0.999
    assert torch.allclose(merged[mask & scaled_mask], scaled[mask & scaled_mask], rtol=1e-3, atol=1e-4)


def test_merge_of_unlit_patches_is_zero_everywhere() -> None:
    group = make_group(**SIZES)

    merged, mask = helper.reassemble_patches_position_real(
        group["patches"], group["offsets"], CANVAS, torch.zeros(3, 4, 16, 16)
    )

    assert not mask.any()
    assert not merged.any()


@pytest.mark.parametrize("sizes", COINCIDENCES)
def test_extraction_agrees_with_a_loop(sizes: dict[str, int]) -> None:
    group, N = make_group(**sizes), sizes["N"]
    corner = CANVAS // 2 - N // 2
    expected = np.stack(
        [
            [
                scatter_shifted(region[0], *(float(v) for v in offset[0]))[corner : corner + N, corner : corner + N]
                for offset in offsets
            ]
            for region, offsets in zip(group["region"].numpy(), group["offsets"].numpy(), strict=True)
        ]
    )

    patches = helper.extract_channels_from_region(group["region"], group["offsets"], N)

    assert close_to(patches, expected)
    assert patches.is_contiguous()


@pytest.mark.parametrize(("N", "M"), [(4, 8), (4, 9), (5, 8), (5, 9), (5, 5)])
def test_patch_index_half_n_lies_on_canvas_index_half_m_for_even_and_odd_sides(N: int, M: int) -> None:
    patches = torch.zeros(1, 1, N, N, dtype=torch.complex64)
    patches[0, 0, N // 2, N // 2] = 1.0

    merged, _ = helper.reassemble_patches_position_real(patches, torch.zeros(1, 1, 1, 2), M, torch.ones(1, 1, N, N))
    extracted = helper.extract_channels_from_region(merged.unsqueeze(1), torch.zeros(1, 1, 1, 2), N)

    assert torch.nonzero(merged[0]).tolist() == [[M // 2, M // 2]]
    assert torch.equal(extracted, patches)


def test_merge_and_extraction_pass_gradients() -> None:
    group = make_group(**SIZES)
    patches, offsets = group["patches"].requires_grad_(), group["offsets"].requires_grad_()

    canvas, _ = helper.reassemble_patches_position_real(patches, offsets, CANVAS)
    helper.extract_channels_from_region(canvas.unsqueeze(1), offsets, SIZES["N"]).abs().square().sum().backward()

    for gradient in (patches.grad, offsets.grad):
        assert torch.isfinite(torch.view_as_real(gradient) if gradient.is_complex() else gradient).all()
        assert gradient.abs().sum() > 0


# --- sizes and offsets -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gridsize", "distance", "expected"),
    [(1, 7.0, 16), (2, 0.0, 16), (2, 0.1, 18), (2, 2.0, 18), (2, 2.1, 20), (2, 9.0, 26), (3, 3.0, 24)],
)
def test_padded_size_rounds_the_distance_up_to_even(gridsize: int, distance: float, expected: int) -> None:
    size = helper.padded_size(16, gridsize, distance)

    assert size == expected
    assert type(size) is int


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((0, 2, 3.0), "patch_size"),
        ((16, 0, 3.0), "gridsize"),
        ((16, 2, -1.0), "max_neighbor_distance"),
        ((16, 2, math.nan), "max_neighbor_distance"),
        ((16, 2, math.inf), "max_neighbor_distance"),
    ],
)
def test_padded_size_refuses_what_is_no_size_and_names_it(arguments: tuple[int, int, float], named: str) -> None:
    with pytest.raises(ValueError, match=f"Expected {named} to be"):
        helper.padded_size(*arguments)


@pytest.mark.parametrize("largest", [3.0, -3.0, 3.0 + 5e-5])
def test_offsets_that_fill_the_room_are_accepted(largest: float) -> None:
    helper.check_offsets_fit(torch.tensor([[[[largest, 0.0]]]]), 16, 22)


@pytest.mark.parametrize("largest", [3.001, -3.5, math.nan, math.inf])
def test_offsets_beyond_the_room_are_refused_with_both_numbers(largest: float) -> None:
    with pytest.raises(ValueError, match=rf"at most 3 pixels, \(M-N\)/2 .* M=22 and N=16, got {abs(largest):g}"):
        helper.check_offsets_fit(torch.tensor([[[[0.5, largest]]]]), 16, 22)


def test_a_canvas_smaller_than_a_patch_is_refused() -> None:
    with pytest.raises(ValueError, match="Expected canvas_size to be at least patch_size=16, got 15"):
        helper.check_offsets_fit(torch.zeros(1, 1, 1, 2), 16, 15)


def test_merge_and_extraction_refuse_to_clip() -> None:
    offsets = torch.full((1, 4, 1, 2), 2.5)

    with pytest.raises(ValueError, match="at most 2 pixels"):
        helper.reassemble_patches_position_real(make_complex(1, 4, 16, 16), offsets, 20)
    with pytest.raises(ValueError, match="at most 2 pixels"):
        helper.extract_channels_from_region(make_complex(1, 1, 20, 20), offsets, 16)


# --- illumination and diffraction --------------------------------------------------------------------


@pytest.mark.parametrize("sizes", COINCIDENCES)
def test_exit_wave_is_probe_times_patch_for_every_mode(sizes: dict[str, int]) -> None:
    group = make_group(**sizes)
    patches, probe = group["patches"].numpy(), group["probe"].numpy()
    expected = np.stack([patches * probe[:, :, p] for p in range(sizes["P"])], axis=2)

    assert close_to(helper.illuminate(group["patches"], group["probe"]), expected, 1e-6)


@pytest.mark.parametrize("sizes", COINCIDENCES)
def test_diffraction_agrees_with_a_written_out_fourier_sum(sizes: dict[str, int]) -> None:
    N = sizes["N"]
    waves = make_group(**sizes)["probe"]
    k, x = np.meshgrid(np.arange(N) - N // 2, np.arange(N), indexing="ij")
    kernel = np.exp(-2j * np.pi * k * x / N) / math.sqrt(N)
    intensity = (np.abs(kernel @ waves.numpy() @ kernel.T) ** 2).sum(axis=2)

    assert close_to(helper.diffract(waves), np.sqrt(intensity), 1e-6)


def test_gradient_of_a_dark_detector_is_zero_not_nan() -> None:
    waves = torch.zeros(1, 1, 2, 8, 8, dtype=torch.complex64, requires_grad=True)

    helper.diffract(waves).sum().backward()

    assert not waves.grad.any()


@pytest.mark.parametrize("size", [1e-18, 1e-22, 1e-30])
def test_gradient_stays_finite_for_almost_dark_pixels(size: float) -> None:
    waves = (size * make_complex(1, 1, 1, 8, 8)).requires_grad_()

    helper.diffract(waves).sum().backward()

    assert torch.isfinite(torch.view_as_real(waves.grad)).all()
    assert waves.grad.abs().max() < 10


def test_probe_weights_sum_the_intensity_of_the_modes() -> None:
    probe = make_complex(3, 4, 2, 5, 5)
    first, second = probe[:, :, 0].numpy(), probe[:, :, 1].numpy()

    assert close_to(helper.probe_weights(probe), np.abs(first) ** 2 + np.abs(second) ** 2, 1e-6)


# --- contracts -------------------------------------------------------------------------------------


def merge_call() -> dict[str, object]:
    group = make_group(**SIZES)
    return {
        "patches": group["patches"],
        "offsets": group["offsets"],
        "canvas_size": CANVAS,
        "weights": helper.probe_weights(group["probe"]),
    }


def good_call(function: str) -> dict[str, object]:
    group = make_group(**SIZES)
    return {
        "Translation": {"img": make_complex(3, 7, 9), "offset": torch.zeros(3, 1, 2)},
        "reassemble_patches_position_real": merge_call(),
        "extract_channels_from_region": {
            "region": group["region"],
            "offsets": group["offsets"],
            "patch_size": SIZES["N"],
        },
        "illuminate": {"patches": group["patches"], "probe": group["probe"]},
        "diffract": {"exit_waves": group["probe"]},
        "probe_weights": {"probe": group["probe"]},
        "padded_size": {"patch_size": 16, "gridsize": 2, "max_neighbor_distance": 3.0},
        "check_offsets_fit": {"offsets": group["offsets"], "patch_size": 16, "canvas_size": CANVAS},
    }[function]


REJECTED = [
    pytest.param("Translation", "img", lambda img: img.to(torch.complex128), id="Translation-img-complex128"),
    pytest.param("Translation", "img", lambda img: img.unsqueeze(1), id="Translation-img-channel-axis"),
    pytest.param("Translation", "offset", lambda offset: offset.permute(0, 2, 1), id="Translation-offset-channel-last"),
    pytest.param("Translation", "offset", lambda offset: offset.double(), id="Translation-offset-float64"),
    pytest.param("Translation", "offset", lambda offset: offset[:2], id="Translation-offset-too-few"),
    pytest.param(
        "reassemble_patches_position_real",
        "patches",
        lambda patches: patches.abs(),
        id="reassemble_patches_position_real-patches-real",
    ),
    pytest.param(
        "reassemble_patches_position_real",
        "patches",
        lambda patches: patches[..., :-1],
        id="reassemble_patches_position_real-patches-not-square",
    ),
    pytest.param(
        "reassemble_patches_position_real",
        "offsets",
        lambda offsets: offsets.permute(0, 2, 3, 1),
        id="reassemble_patches_position_real-offsets-channel-last",
    ),
    pytest.param(
        "reassemble_patches_position_real",
        "offsets",
        lambda offsets: offsets[:, :1],
        id="reassemble_patches_position_real-offsets-one-channel",
    ),
    pytest.param(
        "reassemble_patches_position_real",
        "canvas_size",
        float,
        id="reassemble_patches_position_real-canvas_size-float",
    ),
    pytest.param(
        "reassemble_patches_position_real",
        "weights",
        lambda weights: weights[:, :1],
        id="reassemble_patches_position_real-weights-one-channel",
    ),
    pytest.param(
        "extract_channels_from_region",
        "region",
        lambda region: region[:, 0],
        id="extract_channels_from_region-region-no-channel-axis",
    ),
    pytest.param(
        "extract_channels_from_region",
        "region",
        lambda region: region.real,
        id="extract_channels_from_region-region-real",
    ),
    pytest.param(
        "extract_channels_from_region",
        "offsets",
        lambda offsets: offsets.permute(0, 2, 3, 1),
        id="extract_channels_from_region-offsets-channel-last",
    ),
    pytest.param(
        "extract_channels_from_region",
        "offsets",
        lambda offsets: offsets[:1],
        id="extract_channels_from_region-offsets-too-few",
    ),
    pytest.param("illuminate", "patches", lambda patches: patches.unsqueeze(2), id="illuminate-patches-mode-axis"),
    pytest.param("illuminate", "probe", lambda probe: probe[:, :1], id="illuminate-probe-one-channel"),
    pytest.param("illuminate", "probe", lambda probe: probe[:, :, 0], id="illuminate-probe-no-mode-axis"),
    pytest.param("diffract", "exit_waves", lambda waves: waves.real, id="diffract-exit_waves-real"),
    pytest.param("diffract", "exit_waves", lambda waves: waves[:, 0], id="diffract-exit_waves-no-channel-axis"),
    pytest.param("probe_weights", "probe", lambda probe: probe[0], id="probe_weights-probe-no-batch-axis"),
    pytest.param("padded_size", "gridsize", float, id="padded_size-gridsize-float"),
    pytest.param(
        "check_offsets_fit", "offsets", lambda offsets: offsets.squeeze(2), id="check_offsets_fit-offsets-flat"
    ),
]


@pytest.mark.parametrize("function", sorted({row.values[0] for row in REJECTED}))
def test_contract_accepts_a_correct_call(function: str) -> None:
    getattr(helper, function)(**good_call(function))


@pytest.mark.violation
@pytest.mark.parametrize(("function", "parameter", "spoil"), REJECTED)
def test_contract_refuses_and_names_the_parameter(function: str, parameter: str, spoil) -> None:
    call = good_call(function)
    call[parameter] = spoil(call[parameter])

    with pytest.raises(ContractError) as caught:
        getattr(helper, function)(**call)

    assert caught.value.violations[0].boundary == f"ptycho_torch.helper.{function}"
    assert parameter in {violation.parameter for violation in caught.value.violations}


def test_weights_may_be_left_out() -> None:
    call = merge_call()
    call["weights"] = None

    helper.reassemble_patches_position_real(**call)


# --- with checking off -------------------------------------------------------------------------------

CHANNEL_LAST_REPLAY = """
import torch
from ptycho_torch import helper

for C in (1, 2, 4):
    patches = torch.ones(4, C, 16, 16, dtype=torch.complex64)
    try:
        merged, _ = helper.reassemble_patches_position_real(patches, torch.ones(4, 1, 2, C), 20)
    except RuntimeError as error:
        print(C, error)
    else:
        print(C, "ran", tuple(merged.shape))
"""


def run_in_mode(mode: str, code: str) -> str:
    repository = Path(__file__).parents[2]
    environment = {**os.environ, "SHAPECHECK": mode, "PYTHONPATH": str(repository)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    return done.stdout


def test_without_checks_channel_last_offsets_die_in_a_view_or_merge_in_silence() -> None:
    one, two, four = run_in_mode("off", CHANNEL_LAST_REPLAY).splitlines()

    assert one == "1 shape '[8, 2, 1, 1]' is invalid for input of size 8"
    assert two == "2 ran (4, 20, 20)"
    assert four == "4 shape '[8, 2, 1, 1]' is invalid for input of size 32"


@pytest.mark.violation
@pytest.mark.parametrize("C", [1, 2, 4])
def test_with_checks_channel_last_offsets_are_refused_at_the_door(C: int) -> None:
    with pytest.raises(ContractError, match="offsets"):
        helper.reassemble_patches_position_real(make_complex(4, C, 16, 16), torch.ones(4, 1, 2, C), 20)


CHAIN = """
import hashlib
import torch
from ptycho_torch import helper

torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
patches, probe = (torch.randn(s, generator=generator, dtype=torch.complex64) for s in ((3, 4, 16, 16), (3, 4, 2, 16, 16)))
offsets = 4 * torch.rand(3, 4, 1, 2, generator=generator) - 2
canvas, _ = helper.reassemble_patches_position_real(patches, offsets, 20, helper.probe_weights(probe))
again = helper.extract_channels_from_region(canvas.unsqueeze(1), offsets, 16)
amplitude = helper.diffract(helper.illuminate(again, probe))
print(hashlib.sha256(amplitude.numpy().tobytes()).hexdigest())
"""


def test_results_are_the_same_bits_with_checks_on_and_off() -> None:
    checked, unchecked = run_in_mode("on", CHAIN), run_in_mode("off", CHAIN)

    assert len(checked.strip()) == 64
    assert checked == unchecked
