"""What must hold for any data: the laws of the operators, none of which uses the code as its own reference."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ptycho_torch import helper

few = settings(max_examples=30, deadline=None)
seeds = st.integers(0, 2**31)
shifts = st.floats(-3.0, 3.0, width=32)


def make_complex(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    return torch.from_numpy((rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64))


def inner(a: torch.Tensor, b: torch.Tensor) -> complex:
    return complex(np.vdot(a.numpy().astype(np.complex128), b.numpy().astype(np.complex128)))


def norms(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(a) * torch.linalg.vector_norm(b))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(np.vdot(a, b)) / np.linalg.norm(a) / np.linalg.norm(b))


# --- Translation ---------------------------------------------------------------------------------


@few
@given(dx=st.integers(-4, 4), dy=st.integers(-3, 3), row=st.integers(4, 7), column=st.integers(5, 11))
def test_a_point_moves_by_exactly_a_whole_offset(dx: int, dy: int, row: int, column: int) -> None:
    image = torch.zeros(1, 11, 17)
    image[0, row, column] = 1.0
    expected = torch.zeros(1, 1, 11, 17)
    expected[0, 0, row + dy, column + dx] = 1.0

    moved = helper.Translation(image, torch.tensor([[[float(dx), float(dy)]]]))

    assert torch.equal(moved, expected)


@few
@given(dx=shifts, dy=shifts)
def test_a_point_is_shared_out_in_the_bilinear_proportions(dx: float, dy: float) -> None:
    image = torch.zeros(1, 13, 15)
    image[0, 6, 7] = 1.0
    rows, columns = np.mgrid[:13, :15]
    expected = np.maximum(0, 1 - np.abs(rows - 6 - dy)) * np.maximum(0, 1 - np.abs(columns - 7 - dx))

    moved = helper.Translation(image, torch.tensor([[[dx, dy]]]))

    assert np.abs(moved[0, 0].numpy() - expected).max() < 1e-5


def test_half_a_pixel_is_half_and_half() -> None:
    image = torch.zeros(1, 5, 6)
    image[0, 2, 3] = 1.0

    moved = helper.Translation(image, torch.tensor([[[0.5, 0.0]]]))[0, 0]

    assert moved[2].tolist() == pytest.approx([0, 0, 0, 0.5, 0.5, 0], abs=1e-6)


@few
@given(seed=seeds, dx=st.integers(-3, 3), dy=st.integers(-3, 3))
def test_a_whole_shift_rolls_the_inside_and_back_is_the_identity(seed: int, dx: int, dy: int) -> None:
    images = make_complex(np.random.default_rng(seed), 2, 12, 14)
    offset = torch.tensor([float(dx), float(dy)]).expand(2, 1, 2)
    inside = (slice(None), slice(3, -3), slice(3, -3))

    moved = helper.Translation(images, offset)[:, 0]
    back = helper.Translation(moved, -offset)[:, 0]

    assert torch.equal(moved[inside], torch.roll(images, (dy, dx), (1, 2))[inside])
    assert torch.equal(back[inside], images[inside])


@few
@given(seed=seeds, dx=st.integers(1, 6), dy=st.integers(1, 6))
def test_zeros_enter_at_the_border(seed: int, dx: int, dy: int) -> None:
    images = make_complex(np.random.default_rng(seed), 1, 6, 8)

    moved = helper.Translation(images, torch.tensor([[[float(dx), -float(dy)]]]))[0, 0]

    assert not moved[:, :dx].any()
    assert not moved[6 - dy :].any()


@few
@given(seed=seeds, dx=shifts, dy=shifts)
def test_translation_is_linear_and_minus_the_offset_is_its_adjoint(seed: int, dx: float, dy: float) -> None:
    rng = np.random.default_rng(seed)
    x, y = make_complex(rng, 3, 9, 12), make_complex(rng, 3, 9, 12)
    factor = complex(rng.standard_normal(), rng.standard_normal())
    offset = torch.tensor([dx, dy]).expand(3, 1, 2)

    moved_x, moved_y = helper.Translation(x, offset)[:, 0], helper.Translation(y, offset)[:, 0]

    assert torch.allclose(helper.Translation(x + factor * y, offset)[:, 0], moved_x + factor * moved_y, atol=1e-4)
    assert abs(inner(moved_x, y) - inner(x, helper.Translation(y, -offset)[:, 0])) < 1e-5 * norms(x, y)


# --- merge and extraction against an object that the code has not made --------------------------------

# Two groups of four positions (x, y); H and W of the object differ, and so do its slopes.
POSITIONS = torch.tensor(
    [
        [[20.3, 15.1], [24.9, 15.8], [19.6, 19.2], [25.2, 20.5]],
        [[41.0, 22.7], [45.4, 21.9], [40.2, 26.1], [46.1, 27.3]],
    ]
).unsqueeze(2)
N, M = 16, 24
H, W = 44, 70


def ramp_object(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """An object linear in both coordinates, which bilinear interpolation reproduces; symmetric under nothing."""
    return 1.0 + 0.03 * columns - 0.05 * rows + 1j * (0.5 - 0.02 * columns + 0.04 * rows)


def relative_offsets(positions: torch.Tensor) -> torch.Tensor:
    return -(positions - positions.mean(dim=1, keepdim=True))


def ramp_patches(positions: torch.Tensor, size: int = N) -> torch.Tensor:
    """Patches cut at sub-pixel positions from the formula of the object."""
    steps = np.arange(size) - size // 2
    x, y = positions.double().numpy()[..., 0, 0], positions.double().numpy()[..., 0, 1]
    patches = ramp_object(y[..., None, None] + steps[:, None], x[..., None, None] + steps[None, :])
    return torch.from_numpy(patches.astype(np.complex64))


def hann_weights(B: int, C: int, size: int = N) -> torch.Tensor:
    """Weights like a probe's: they vanish at the rim."""
    window = torch.hann_window(size, periodic=False)
    return torch.outer(window, window).expand(B, C, size, size).contiguous()


def ramp_canvas(positions: torch.Tensor, canvas_size: int = M) -> np.ndarray:
    """The object around the centre of each group, cut by the formula."""
    return ramp_patches(positions.mean(dim=1, keepdim=True), canvas_size).numpy()[:, 0]


def test_merge_of_patches_cut_from_a_ramp_is_that_ramp_on_the_support() -> None:
    merged, mask = helper.reassemble_patches_position_real(
        ramp_patches(POSITIONS), relative_offsets(POSITIONS), M, hann_weights(2, 4)
    )

    error = np.abs(merged.numpy() - ramp_canvas(POSITIONS))
    assert mask.float().mean() > 0.5
    assert error[mask.numpy()].max() < 1e-4


def test_merge_of_the_ramp_with_default_weights_is_low_by_a_thousandth_at_most_where_one_patch_is_whole() -> None:
    offsets = relative_offsets(POSITIONS)
    merged, mask = helper.reassemble_patches_position_real(ramp_patches(POSITIONS), offsets, M)
    steps = np.abs(np.arange(M) - M // 2 + 0.5)
    middle = np.maximum(steps[:, None], steps[None, :]) < 1.5  # the common support of these groups' central squares

    truth = ramp_canvas(POSITIONS)[:, middle]

    assert mask.numpy()[:, middle].all()
    assert (np.abs(merged.numpy()[:, middle] - truth) < 1.1e-3 * np.abs(truth)).all()


@pytest.mark.parametrize("flipped", ["sign", "axes"])
def test_the_ramp_tells_a_flipped_sign_and_swapped_axes(flipped: str) -> None:
    offsets = relative_offsets(POSITIONS)
    wrong = -offsets if flipped == "sign" else offsets.flip(-1)

    merged, mask = helper.reassemble_patches_position_real(ramp_patches(POSITIONS), wrong, M, hann_weights(2, 4))

    assert np.abs(merged.numpy() - ramp_canvas(POSITIONS))[mask.numpy()].max() > 0.05


def test_extraction_from_a_ramp_gives_the_patches_at_their_positions() -> None:
    canvas = torch.from_numpy(ramp_canvas(POSITIONS)).unsqueeze(1)

    patches = helper.extract_channels_from_region(canvas, relative_offsets(POSITIONS), N)

    assert torch.allclose(patches, ramp_patches(POSITIONS), atol=1e-4)


def cut_at_whole_positions(obj: np.ndarray, positions: torch.Tensor) -> torch.Tensor:
    corners = positions.int().tolist()
    return torch.from_numpy(
        np.stack(
            [
                [obj[y - N // 2 : y - N // 2 + N, x - N // 2 : x - N // 2 + N] for ((x, y),) in group]
                for group in corners
            ]
        )
    )


def test_whole_pixel_patches_of_a_random_object_merge_to_it_and_are_extracted_again() -> None:
    obj = make_complex(np.random.default_rng(5), H, W).numpy()
    positions = torch.tensor([[[18.0, 14.0], [24.0, 16.0], [16.0, 20.0], [22.0, 22.0]]]).unsqueeze(2)
    offsets = relative_offsets(positions)
    patches = cut_at_whole_positions(obj, positions)

    merged, mask = helper.reassemble_patches_position_real(patches, offsets, M, torch.ones(1, 4, N, N))
    extracted = helper.extract_channels_from_region(merged.unsqueeze(1), offsets, N)

    truth = obj[18 - M // 2 : 18 + M // 2, 20 - M // 2 : 20 + M // 2]
    assert torch.allclose(merged[mask], torch.from_numpy(truth)[mask[0]], atol=1e-4)
    assert torch.allclose(extracted, patches, atol=1e-4)


@few
@given(seed=seeds, scale=st.floats(0.01, 100.0), C=st.sampled_from([1, 2, 4, 9]))
def test_a_constant_object_merges_to_that_constant(seed: int, scale: float, C: int) -> None:
    rng = np.random.default_rng(seed)
    value = complex(scale * np.exp(1j * rng.uniform(-np.pi, np.pi)))
    offsets = torch.from_numpy(rng.uniform(-4, 4, (2, C, 1, 2)).astype(np.float32))
    patches = torch.full((2, C, N, N), value, dtype=torch.complex64)

    merged, mask = helper.reassemble_patches_position_real(patches, offsets, M, hann_weights(2, C))
    default, default_mask = helper.reassemble_patches_position_real(patches, offsets, M)

    assert (merged[mask] - value).abs().max() < 1e-4 * scale
    # sum w / (sum w + 1e-3): low by a thousandth under one whole patch, never above the constant, 0 phase error
    share = default[default_mask] / value
    assert share.real.max() < 1 + 1e-5
    assert share.imag.abs().max() < 1e-4
    assert (share.real > 1 / 1.0015).float().mean() > 0.5


@few
@given(seed=seeds)
def test_the_merge_is_linear_in_the_patches(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = make_complex(rng, 2, 4, N, N), make_complex(rng, 2, 4, N, N)
    offsets, factor = relative_offsets(POSITIONS), complex(rng.standard_normal(), rng.standard_normal())

    together, _ = helper.reassemble_patches_position_real(first + factor * second, offsets, M)
    apart = [helper.reassemble_patches_position_real(p, offsets, M)[0] for p in (first, second)]

    assert torch.allclose(together, apart[0] + factor * apart[1], atol=1e-4)


def test_permuting_channels_leaves_the_merge_and_permutes_the_extraction() -> None:
    patches, offsets, order = ramp_patches(POSITIONS), relative_offsets(POSITIONS), [2, 0, 3, 1]
    weights = hann_weights(2, 4) * torch.tensor([1.0, 2.0, 3.0, 4.0]).reshape(1, 4, 1, 1)
    region = make_complex(np.random.default_rng(1), 2, 1, M, M)

    merged, mask = helper.reassemble_patches_position_real(patches, offsets, M, weights)
    permuted, permuted_mask = helper.reassemble_patches_position_real(
        patches[:, order], offsets[:, order], M, weights[:, order]
    )

    assert torch.allclose(merged, permuted, atol=1e-5)
    assert torch.equal(mask, permuted_mask)
    assert torch.equal(
        helper.extract_channels_from_region(region, offsets[:, order], N),
        helper.extract_channels_from_region(region, offsets, N)[:, order],
    )


@pytest.mark.parametrize("B", [1, 2, 5])
def test_groups_do_not_know_of_each_other(B: int) -> None:
    rng = np.random.default_rng(3)
    patches, probe = make_complex(rng, B, 4, N, N), make_complex(rng, B, 4, 2, N, N)
    offsets = torch.from_numpy(rng.uniform(-4, 4, (B, 4, 1, 2)).astype(np.float32))

    def amplitudes(part: torch.Tensor) -> torch.Tensor:
        weights = helper.probe_weights(probe[part])
        canvas, _ = helper.reassemble_patches_position_real(patches[part], offsets[part], M, weights)
        again = helper.extract_channels_from_region(canvas.unsqueeze(1), offsets[part], N)
        return helper.diffract(helper.illuminate(again, probe[part]))

    whole, reverse = amplitudes(torch.arange(B)), torch.arange(B).flip(0)

    assert torch.equal(amplitudes(reverse), whole[reverse])
    for b in range(B):
        assert torch.equal(amplitudes(torch.tensor([b])), whole[b : b + 1])


# --- waves -----------------------------------------------------------------------------------------


@few
@given(seed=seeds, P=st.integers(1, 3))
def test_illumination_is_adjoint_to_the_conjugate_probe_summed_over_modes(seed: int, P: int) -> None:
    rng = np.random.default_rng(seed)
    probe, patches = make_complex(rng, 2, 4, P, 9, 9), make_complex(rng, 2, 4, 9, 9)
    waves = make_complex(rng, 2, 4, P, 9, 9)
    back = torch.from_numpy((probe.numpy().conj() * waves.numpy()).sum(axis=2))

    assert abs(inner(helper.illuminate(patches, probe), waves) - inner(patches, back)) < 1e-5 * norms(probe, waves)


def dense_forward(probe: np.ndarray, offset: np.ndarray, size: int, canvas_size: int) -> np.ndarray:
    """The matrix canvas -> far-field waves of one mode: hat-function interpolation, probe, Fourier sum."""
    start = canvas_size // 2 - size // 2
    reads = [start + np.arange(size)[:, None] - d - np.arange(canvas_size)[None, :] for d in (offset[1], offset[0])]
    rows, columns = (np.maximum(0, 1 - np.abs(r)) for r in reads)
    k, x = np.meshgrid(np.arange(size) - size // 2, np.arange(size), indexing="ij")
    fourier = np.exp(-2j * np.pi * k * x / size) / math.sqrt(size)
    return np.kron(fourier, fourier) @ np.diag(probe.ravel()) @ np.kron(rows, columns)


@settings(max_examples=8, deadline=None)
@given(seed=seeds)
def test_gradient_of_the_energy_is_the_adjoint_of_a_dense_forward_matrix_with_complex_probes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size, canvas_size, C, P = 5, 9, 2, 2
    canvas = make_complex(rng, 1, 1, canvas_size, canvas_size).requires_grad_()
    probe = make_complex(rng, 1, C, P, size, size)
    offsets = torch.from_numpy(rng.uniform(-2, 2, (1, C, 1, 2)).astype(np.float32))

    patches = helper.extract_channels_from_region(canvas, offsets, size)
    amplitude = helper.diffract(helper.illuminate(patches, probe))
    (0.5 * amplitude.square().sum()).backward()

    x = canvas.detach().numpy().ravel()
    expected = np.zeros_like(x, dtype=np.complex128)
    for c in range(C):
        intensity = np.zeros(size * size)
        for p in range(P):
            A = dense_forward(probe[0, c, p].numpy(), offsets[0, c, 0].numpy(), size, canvas_size)
            intensity += np.abs(A @ x) ** 2
            expected += A.conj().T @ (A @ x)
        assert np.abs(amplitude[0, c].detach().numpy().ravel() - np.sqrt(intensity)).max() < 1e-4
    assert np.abs(canvas.grad.numpy().ravel() - expected).max() < 2e-5 * np.abs(expected).max()


@few
@given(seed=seeds, P=st.integers(1, 4), size=st.sampled_from([1, 2, 7, 16]), scale=st.floats(1e-3, 1e3))
def test_the_energy_of_the_amplitude_is_that_of_the_exit_waves(seed: int, P: int, size: int, scale: float) -> None:
    waves = scale * make_complex(np.random.default_rng(seed), 2, 3, P, size, size)

    amplitude = helper.diffract(waves)

    energy = (np.abs(waves.numpy().astype(np.complex128)) ** 2).sum(axis=(2, 3, 4))
    assert amplitude.double().square().sum(dim=(2, 3)).numpy() == pytest.approx(energy, rel=1e-5)


@few
@given(seed=seeds)
def test_two_modes_add_in_intensity_not_as_waves(seed: int) -> None:
    waves = make_complex(np.random.default_rng(seed), 2, 4, 2, 8, 8)

    both = helper.diffract(waves)

    first, second = helper.diffract(waves[:, :, :1].clone()), helper.diffract(waves[:, :, 1:].clone())
    coherent = helper.diffract(waves.sum(dim=2, keepdim=True))
    assert torch.allclose(both.square(), first.square() + second.square(), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(both, coherent, atol=0.1)


@pytest.mark.parametrize(("kx", "ky"), [(0, 0), (3, 0), (0, -2), (-4, 1)])
@pytest.mark.parametrize("size", [8, 9])
def test_a_plane_wave_lights_one_detector_pixel_counted_from_the_centre(kx: int, ky: int, size: int) -> None:
    rows, columns = np.mgrid[:size, :size]
    wave = np.exp(2j * np.pi * (kx * columns + ky * rows) / size).astype(np.complex64)

    amplitude = helper.diffract(torch.from_numpy(wave).reshape(1, 1, 1, size, size))[0, 0]

    assert amplitude[size // 2 + ky, size // 2 + kx].item() == pytest.approx(size, rel=1e-5)
    assert amplitude.square().sum().item() == pytest.approx(size**2, rel=1e-5)


@few
@given(seed=seeds, dx=st.integers(-5, 5), dy=st.integers(-5, 5), phase=st.floats(-3.0, 3.0))
def test_amplitude_ignores_a_cyclic_shift_and_a_global_phase(seed: int, dx: int, dy: int, phase: float) -> None:
    waves = make_complex(np.random.default_rng(seed), 1, 2, 2, 8, 8)
    moved = torch.roll(waves, (dy, dx), (-2, -1)) * complex(np.exp(1j * phase))

    assert torch.allclose(helper.diffract(moved), helper.diffract(waves), atol=2e-5)


def wavy_object(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    modulus = 1 + 0.3 * np.sin(rows / 3) * np.cos(columns / 4)
    return modulus * np.exp(1j * np.sin(columns / 5 + rows / 7))


def test_sub_pixel_patches_of_a_wavy_object_merge_to_it_but_for_interpolation() -> None:
    steps, canvas_steps = np.arange(N) - N // 2, np.arange(M) - M // 2
    x, y = (POSITIONS.double().numpy()[..., 0, axis][..., None, None] for axis in (0, 1))
    patches = wavy_object(y + steps[:, None], x + steps[None, :]).astype(np.complex64)
    centre_x, centre_y = x.mean(axis=1), y.mean(axis=1)
    truth = wavy_object(centre_y + canvas_steps[:, None], centre_x + canvas_steps[None, :])

    merged, mask = helper.reassemble_patches_position_real(
        torch.from_numpy(patches), relative_offsets(POSITIONS), M, hann_weights(2, 4)
    )

    for found, expected, seen in zip(merged.numpy(), truth, mask.numpy(), strict=True):
        assert correlation(found[seen], expected[seen]) > 0.999
