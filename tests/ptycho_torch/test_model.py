"""The model: shapes at its boundary, physics against NumPy, and what it must not depend on."""

import numpy as np
import pytest
import torch

import shapecheck
from ptycho_torch.config_params import ModelConfig
from ptycho_torch.model import Calibration, PtychoModel, calibrate

DISTANCE = 4.0  # largest step within a group, pixels


def make_probe(P: int = 2, N: int = 16, seed: int = 0) -> np.ndarray:
    """Modes that do not overlap in phase, so that adding waves instead of intensities would show."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:N, :N] - N // 2
    beam = np.exp(-(x**2 + y**2) / (2 * (N / 8) ** 2) + 0.05j * (x**2 + 0.8 * y**2))
    modes = [beam * np.exp(2j * np.pi * rng.random()) * (x / N) ** p for p in range(P)]
    return (30 * np.stack(modes)).astype(np.complex64)


def make_object(H: int = 48, W: int = 56, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    spectrum = np.fft.fft2(rng.standard_normal((2, H, W)))
    smooth = np.fft.ifft2(
        spectrum * np.exp(-((np.fft.fftfreq(H)[:, None] / 0.1) ** 2 + (np.fft.fftfreq(W) / 0.1) ** 2))
    )
    first, second = smooth.real / np.abs(smooth.real).max(axis=(1, 2), keepdims=True)
    return ((0.8 + 0.15 * first) * np.exp(0.6j * second)).astype(np.complex64)


def diffraction(patches: np.ndarray, probe: np.ndarray) -> np.ndarray:
    """Amplitudes of patches (..., N, N), the modes added in intensity."""
    waves = np.fft.fftshift(np.fft.fft2(patches[..., None, :, :] * probe, norm="ortho"), axes=(-2, -1))
    return np.sqrt((np.abs(waves) ** 2).sum(axis=-3)).astype(np.float32)


def make_group(B: int = 3, gridsize: int = 2, P: int = 2, N: int = 16, seed: int = 0) -> dict:
    """Groups at whole-pixel positions of one object, with the arguments of `forward`."""
    rng = np.random.default_rng(seed)
    C = gridsize**2
    obj, probe = make_object(), make_probe(P, N)
    centre = np.stack([rng.integers(14, 40, B), rng.integers(14, 32, B)], axis=1)  # (x, y)
    steps = np.array([(-1, -1), (1, -1), (-1, 1), (1, 1)] if C == 4 else [(0, 0)])
    positions = centre[:, None] + steps  # (B, C, 2), the mean is the centre
    patches = np.stack([[obj[y - N // 2 :, x - N // 2 :][:N, :N] for x, y in group] for group in positions])
    images = diffraction(patches, probe)
    energy = (images.astype(np.float64) ** 2).sum(axis=(-2, -1)).mean()
    return {
        "images": torch.from_numpy(images),
        "coords_relative": torch.from_numpy((centre[:, None] - positions)[:, :, None].astype(np.float32)),
        "probe": torch.from_numpy(probe).expand(B, C, P, N, N),
        "input_scale": torch.full((B, 1, 1, 1), float(np.sqrt((N / 2) ** 2 / energy))),
        "output_scale": torch.full((B, 1, 1, 1), float(N / 2 / np.sqrt((np.abs(probe) ** 2).sum()))),
        "patches": torch.from_numpy(patches),
    }


def make_model(batch: dict, gridsize: int = 2, *, trained: bool = False, kind: type[PtychoModel] = PtychoModel):
    N, P = batch["images"].shape[-1], batch["probe"].shape[2]
    config = ModelConfig(gridsize=gridsize, C=gridsize**2, N=N, P=P, max_neighbor_distance=DISTANCE)
    torch.manual_seed(0)
    calibration = calibrate(batch["images"], float(batch["input_scale"].flatten()[0]), batch["probe"][0, 0])
    model = kind(config, calibration)
    if trained:  # decoders start at zero: give them something to say
        for decoder in (model.network.decode_amplitude, model.network.decode_phase):
            torch.nn.init.normal_(decoder.out.weight, std=0.05)
    return model.eval()


def arguments(batch: dict) -> list[torch.Tensor]:
    return [batch[key] for key in ("images", "coords_relative", "probe", "input_scale", "output_scale")]


class Oracle(PtychoModel):
    """Knows the patches, up to a global phase of its own for each."""

    def forward_predict(self, images, input_scale):
        return self.oracle

    def refine(self, images, patches, input_scale):
        return patches


@pytest.mark.parametrize("gridsize", [1, 2])
@pytest.mark.parametrize(("B", "P", "N"), [(3, 2, 16), (1, 1, 16), (4, 1, 16), (2, 1, 20), (2, 3, 13)])
def test_model_returns_amplitudes_moduli_and_phases_of_every_patch(gridsize, B, P, N):
    batch = make_group(B, gridsize, P, N)
    predicted, amplitude, phase = make_model(batch, gridsize, trained=True)(*arguments(batch))
    for tensor in (predicted, amplitude, phase):
        assert tensor.shape == (B, gridsize**2, N, N)
        assert tensor.dtype == torch.float32
        assert torch.isfinite(tensor).all()
    assert (amplitude > 0).all()
    assert (phase.abs() <= torch.pi).all()


@pytest.mark.parametrize("P", [1, 2])
def test_an_untrained_model_takes_the_steps_of_pie_and_corrects_nothing(P):
    batch = make_group(P=P)
    model = make_model(batch)
    images = batch["images"].numpy() * batch["input_scale"].numpy()
    probe = batch["probe"][0, 0].numpy().astype(np.complex128)
    probe = probe * (8 / np.sqrt((np.abs(probe) ** 2).sum()))
    brightest = (np.abs(probe) ** 2).sum(axis=0).max()
    expected = np.ones(images.shape, complex)
    for group, channel in np.ndindex(*images.shape[:2]):
        for _ in range(3):
            waves = probe * expected[group, channel]
            far = np.fft.fftshift(np.fft.fft2(waves, norm="ortho"), axes=(-2, -1))
            far *= images[group, channel] / np.sqrt((np.abs(far) ** 2).sum(axis=0))
            change = np.fft.ifft2(np.fft.ifftshift(far, axes=(-2, -1)), norm="ortho") - waves
            expected[group, channel] += (probe.conj() * change).sum(axis=0) / brightest
    with torch.no_grad():
        got = model.forward_predict(batch["images"], batch["input_scale"]).numpy()
    np.testing.assert_allclose(got, expected, atol=2e-3)


@pytest.mark.parametrize("gridsize", [1, 2])
def test_patterns_of_an_empty_field_leave_the_object_flat_and_predict_themselves(gridsize):
    batch = make_group(gridsize=gridsize)
    probe = batch["probe"][0, 0].numpy()
    empty = diffraction(np.ones((*batch["images"].shape,), np.complex64), probe)
    batch["images"], batch["input_scale"] = torch.from_numpy(empty), batch["output_scale"]
    predicted, amplitude, phase = make_model(batch, gridsize)(*arguments(batch))
    torch.testing.assert_close(amplitude, torch.ones_like(amplitude), atol=1e-3, rtol=0)
    torch.testing.assert_close(phase, torch.zeros_like(phase), atol=1e-3, rtol=0)
    measured = batch["images"] * batch["input_scale"]
    torch.testing.assert_close(predicted, measured, atol=1e-3 * measured.max().item(), rtol=0)


@pytest.mark.parametrize("gridsize", [1, 2])
def test_true_patches_predict_the_measured_amplitudes_whatever_their_global_phases(gridsize):
    batch = make_group(gridsize=gridsize)
    model = make_model(batch, gridsize, kind=Oracle)
    generator = torch.Generator().manual_seed(0)
    angles = 2 * torch.pi * torch.rand(3, gridsize**2, 1, 1, generator=generator)
    turns = torch.polar(torch.ones_like(angles), angles)
    model.oracle = batch["patches"] * turns
    predicted, _, _ = model(*arguments(batch))
    measured = batch["images"] * batch["output_scale"]
    # Where no probe of the group reaches, the model takes the object as flat.
    torch.testing.assert_close(predicted, measured, atol=5e-3 * measured.max().item(), rtol=0)


def test_true_patches_at_mirrored_offsets_do_not_predict_the_measured_amplitudes():
    batch = make_group()
    model = make_model(batch, kind=Oracle)
    model.oracle = batch["patches"]
    batch["coords_relative"] = -batch["coords_relative"]
    predicted, _, _ = model(*arguments(batch))
    measured = batch["images"] * batch["output_scale"]
    assert (predicted - measured).abs().max() > 1e-2 * measured.max()


def test_permuting_groups_permutes_the_results():
    batch = make_group()
    model = make_model(batch, trained=True)
    order = torch.tensor([2, 0, 1])
    moved = {key: value[order] for key, value in batch.items()}
    for got, expected in zip(model(*arguments(moved)), model(*arguments(batch)), strict=True):
        torch.testing.assert_close(got, expected[order], atol=1e-5, rtol=1e-4)


def test_permuting_the_patches_of_a_group_permutes_the_results():
    batch = make_group()
    model = make_model(batch, trained=True)
    order = torch.tensor([3, 1, 0, 2])
    channelled = ("images", "coords_relative", "probe")
    moved = {key: value[:, order] if key in channelled else value for key, value in batch.items()}
    for got, expected in zip(model(*arguments(moved)), model(*arguments(batch)), strict=True):
        torch.testing.assert_close(got, expected[:, order], atol=1e-5, rtol=1e-4)


def test_results_do_not_depend_on_the_batch_size():
    batch = make_group()
    model = make_model(batch, trained=True)
    together = model(*arguments(batch))
    for index in range(3):
        alone = model(*(value[index : index + 1] for value in arguments(batch)))
        for got, expected in zip(alone, together, strict=True):
            # Convolutions sum in another order for another batch size.
            torch.testing.assert_close(got, expected[index : index + 1], atol=1e-5, rtol=1e-4)


def test_corrections_are_confined_to_where_the_probe_fell():
    batch = make_group(gridsize=1, P=1)
    before, after = make_model(batch, 1), make_model(batch, 1, trained=True)
    with torch.no_grad():
        change = (
            after.forward_predict(batch["images"], batch["input_scale"])
            - before.forward_predict(batch["images"], batch["input_scale"])
        ).abs()
    light = batch["probe"][0, 0].abs().square().sum(dim=0)
    unlit = light < 1e-6 * light.max()
    assert unlit.any()
    assert change[..., unlit].max() < 1e-2 * change.max()


def test_every_parameter_learns_from_the_predicted_amplitudes():
    batch = make_group()
    model = make_model(batch, trained=True)
    predicted, _, _ = model(*arguments(batch))
    (predicted - batch["images"] * batch["input_scale"]).abs().mean().backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def test_calibration_holds_the_statistics_of_each_detector_pixel_and_the_normalised_probe():
    batch = make_group()
    scale = float(batch["input_scale"].flatten()[0])
    calibration = calibrate(batch["images"], scale, batch["probe"][0, 0])
    patterns = (batch["images"].numpy() * scale).reshape(-1, 16, 16)
    np.testing.assert_allclose(calibration.input_mean, patterns.mean(axis=0), rtol=1e-5)
    std = patterns.std(axis=0)
    np.testing.assert_allclose(calibration.input_std, np.maximum(std, 0.01 * std.mean()), rtol=1e-4)
    assert calibration.probe.abs().square().sum().item() == pytest.approx(8**2, rel=1e-5)


def test_a_detector_that_never_varies_still_gives_finite_results():
    batch = make_group()
    batch["images"] = batch["images"][:1, :1].expand(3, 4, 16, 16).contiguous()
    for tensor in make_model(batch, trained=True)(*arguments(batch)):
        assert torch.isfinite(tensor).all()


@pytest.mark.parametrize("dark", ["images", "probe"])
def test_calibration_refuses_data_without_light(dark):
    batch = make_group()
    batch[dark] = torch.zeros_like(batch[dark])
    with pytest.raises(ValueError, match="with energy, got only zeros"):
        calibrate(batch["images"], 1.0, batch["probe"][0, 0])


def test_a_blank_calibration_has_the_shapes_of_a_measured_one():
    batch = make_group()
    model = make_model(batch)
    blank = PtychoModel(model.config, Calibration.blank(model.config)).state_dict()
    assert {name: (t.shape, t.dtype) for name, t in blank.items()} == {
        name: (t.shape, t.dtype) for name, t in model.state_dict().items()
    }


@pytest.mark.violation
@pytest.mark.parametrize(("given", "built_for"), [(1, 2), (2, 1)])
def test_model_refuses_groups_of_another_gridsize_naming_the_config(given, built_for):
    batch, other = make_group(gridsize=given, N=16), make_group(gridsize=built_for, N=16)
    model = make_model(other, built_for)
    assert model(*arguments(other))[0].shape[1] == built_for**2
    with pytest.raises(shapecheck.ContractError, match=r"self\.config\.C"):
        model(*arguments(batch))
    with pytest.raises(shapecheck.ContractError, match=r"self\.config\.C"):
        model.forward_predict(batch["images"], batch["input_scale"])


@pytest.mark.violation
def test_model_refuses_channel_last_offsets():
    batch = make_group()
    model = make_model(batch)
    batch["coords_relative"] = batch["coords_relative"].permute(0, 2, 3, 1)
    with pytest.raises(shapecheck.ContractError, match="coords_relative"):
        model(*arguments(batch))


@pytest.mark.violation
def test_model_refuses_another_number_of_probe_modes():
    model = make_model(make_group(P=2))
    with pytest.raises(shapecheck.ContractError, match="probe"):
        model(*arguments(make_group(P=1)))
