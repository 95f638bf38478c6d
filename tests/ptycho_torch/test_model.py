"""The model: shapes at its boundary, physics against NumPy, and what it must not depend on."""

import numpy as np
import pytest
import torch
from naive_optics import amplitude_of, beam, moved_probe, random_waves, smooth_object
from torch import nn

from ptycho_torch.config_params import ModelConfig
from ptycho_torch.exposures import group_exposures, single_exposures
from ptycho_torch.model import PtychoModel, normalise_probe
from shapecheck import ContractError

DISTANCE = 4.0  # largest step within a group, pixels
ROWS, COLUMNS = 48, 56


def make_group(B: int = 3, gridsize: int = 2, P: int = 2, N: int = 16, seed: int = 0, *, whole: bool = True) -> dict:
    """Groups at positions on one object, with the arguments of `forward`; patterns from NumPy."""
    rng, C = np.random.default_rng(seed), gridsize**2
    obj, probe = smooth_object(ROWS, COLUMNS), beam(P, N, energy=900.0)
    centre = np.stack([rng.integers(14, 40, B), rng.integers(14, 32, B)], axis=1)  # (x, y)
    grid = np.stack(np.meshgrid(np.arange(gridsize), np.arange(gridsize)), axis=-1).reshape(C, 2)
    steps = 2.0 * grid - (gridsize - 1)
    if not whole:
        steps = steps + rng.uniform(-0.5, 0.5, (B, C, 2))
        steps -= steps.mean(axis=-2, keepdims=True)
    positions = centre[:, None] + steps  # (B, C, 2), the mean is the centre
    images = np.stack([[pattern(obj, probe, x, y) for x, y in group] for group in positions]).astype(np.float32)
    energy = (images.astype(np.float64) ** 2).sum(axis=(-2, -1)).mean()
    return {
        "images": torch.from_numpy(images),
        "coords_relative": torch.from_numpy((centre[:, None] - positions)[:, :, None].astype(np.float32)),
        "probe": torch.from_numpy(probe).expand(B, C, P, N, N),
        "input_scale": torch.full((B, 1, 1, 1), float(np.sqrt((N / 2) ** 2 / energy))),
        "output_scale": torch.full((B, 1, 1, 1), N / 2 / 30),
        "centre": centre,
    }


def pattern(obj: np.ndarray, probe: np.ndarray, x: float, y: float) -> np.ndarray:
    """Amplitudes of the patch whose index N//2 is at (x, y); what is left of a pixel moves the probe."""
    N, row, column = probe.shape[-1], int(np.floor(y)), int(np.floor(x))
    patch = obj[row - N // 2 :, column - N // 2 :][:N, :N]
    return amplitude_of(patch * moved_probe(probe, x - column, y - row))


def make_model(batch: dict, *, trained: bool = False) -> PtychoModel:
    (_, C, P, N, _), gridsize = batch["probe"].shape, int(batch["probe"].shape[1] ** 0.5)
    config = ModelConfig(gridsize=gridsize, C=C, N=N, P=P, max_neighbor_distance=DISTANCE)
    torch.manual_seed(0)
    model = PtychoModel(config, normalise_probe(batch["probe"][0, 0]))
    for stage in model.network.stages if trained else ():  # which have nothing to say before they have learned
        nn.init.normal_(stage.out.weight, std=0.03)
    return model.eval()


def arguments(batch: dict) -> list[torch.Tensor]:
    return [batch[key] for key in ("images", "coords_relative", "probe", "input_scale", "output_scale")]


class Knowing(nn.Module):
    """A network that knows the objects on its canvases."""

    def __init__(self, objects: torch.Tensor) -> None:
        super().__init__()
        self.objects = objects

    def forward(self, exposures):
        assert exposures.canvases == self.objects.shape
        return self.objects


def canvases_of(batch: dict, size: int) -> torch.Tensor:
    """The true object around each group, index size//2 at its centre."""
    obj = torch.from_numpy(smooth_object(ROWS, COLUMNS))
    return torch.stack([obj[y - size // 2 :, x - size // 2 :][:size, :size] for x, y in batch["centre"]])


# --- what comes out -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("gridsize", [1, 2, 3])
@pytest.mark.parametrize(("B", "P", "N"), [(3, 2, 16), (1, 1, 16), (4, 1, 16), (2, 1, 20), (2, 3, 13)], ids=str)
def test_model_returns_amplitudes_moduli_and_phases_of_every_patch(gridsize, B, P, N):
    batch = make_group(B, gridsize, P, N)
    predicted, modulus, phase = make_model(batch, trained=True)(*arguments(batch))
    for tensor in (predicted, modulus, phase):
        assert tensor.shape == (B, gridsize**2, N, N)
        assert tensor.dtype == torch.float32
        assert torch.isfinite(tensor).all()
    assert (modulus >= 0).all()
    assert (phase.abs() <= torch.pi).all()


@pytest.mark.parametrize("whole", [True, False], ids=["whole-pixels", "between-pixels"])
@pytest.mark.parametrize(("gridsize", "P", "N"), [(1, 1, 16), (1, 2, 13), (2, 1, 13), (2, 2, 16), (3, 2, 16)], ids=str)
def test_predicted_amplitudes_are_those_of_the_canvases_that_were_reconstructed(gridsize, P, N, whole):
    batch = make_group(B=3, gridsize=gridsize, P=P, N=N, whole=whole)
    model = make_model(batch)
    objects = random_waves(3, model.canvas_size, model.canvas_size, seed=5)
    model.network = Knowing(objects)
    predicted, _, _ = model(*arguments(batch))
    probe = batch["probe"][0, 0].numpy() * (N / 2 / 30)
    for group, channel in np.ndindex(3, gridsize**2):
        x, y = model.canvas_size // 2 - batch["coords_relative"][group, channel, 0].double().numpy()
        expected = pattern(objects[group].numpy(), probe, x, y)
        np.testing.assert_allclose(predicted[group, channel], expected, atol=1e-4 * expected.max())


@pytest.mark.parametrize("whole", [True, False], ids=["whole-pixels", "between-pixels"])
@pytest.mark.parametrize("gridsize", [1, 2, 3])
def test_patches_are_those_of_the_canvases_between_whose_pixels_is_interpolated(gridsize, whole):
    batch = make_group(gridsize=gridsize, whole=whole)
    model = make_model(batch)
    size = model.canvas_size
    objects = canvases_of(batch, size)
    model.network = Knowing(objects)
    _, modulus, phase = model(*arguments(batch))
    for group, channel in np.ndindex(3, gridsize**2):
        x, y = size // 2 - 8 - batch["coords_relative"][group, channel, 0].double().numpy()
        rows, columns = y + np.arange(16), x + np.arange(16)
        expected = bilinear(objects[group].numpy(), rows, columns)
        patch = torch.polar(modulus, phase)[group, channel].numpy()
        np.testing.assert_allclose(patch, expected, atol=1e-4)


def bilinear(obj: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Each pixel weighted by how near it is to where it is read."""
    near = [np.maximum(0, 1 - np.abs(at[:, None] - np.arange(len(obj))[None, :])) for at in (rows, columns)]
    return near[0] @ obj @ near[1].T


@pytest.mark.parametrize("whole", [True, False], ids=["whole-pixels", "between-pixels"])
@pytest.mark.parametrize("gridsize", [1, 2, 3])
def test_the_true_object_predicts_the_measured_amplitudes_whatever_its_global_phase(gridsize, whole):
    batch = make_group(gridsize=gridsize, whole=whole)
    model = make_model(batch)
    turns = torch.polar(torch.ones(3, 1, 1), torch.tensor([0.0, 2.0, -1.3]).view(3, 1, 1))
    model.network = Knowing(canvases_of(batch, model.canvas_size) * turns)
    predicted, _, _ = model(*arguments(batch))
    measured = batch["images"] * batch["output_scale"]
    torch.testing.assert_close(predicted, measured, atol=1e-4 * measured.max().item(), rtol=0)
    if gridsize > 1:  # the line above can fail
        batch["coords_relative"] = -batch["coords_relative"]
        mirrored, _, _ = model(*arguments(batch))
        assert (mirrored - measured).abs().max() > 1e-2 * measured.max()


@pytest.mark.parametrize("gridsize", [1, 2])
def test_patterns_of_an_empty_field_leave_the_object_flat_and_predict_themselves(gridsize):
    batch = make_group(gridsize=gridsize)
    probe = batch["probe"][0, 0].numpy()
    empty = torch.from_numpy(amplitude_of(probe).astype(np.float32))
    batch["images"], batch["input_scale"] = empty.expand(3, gridsize**2, 16, 16), batch["output_scale"]
    predicted, modulus, phase = make_model(batch)(*arguments(batch))
    torch.testing.assert_close(modulus, torch.ones_like(modulus), atol=5e-3, rtol=0)
    torch.testing.assert_close(phase, torch.zeros_like(phase), atol=5e-3, rtol=0)
    measured = batch["images"] * batch["input_scale"]
    torch.testing.assert_close(predicted, measured, atol=5e-3 * measured.max().item(), rtol=0)


def test_an_untrained_model_explains_most_of_the_patterns():
    batch = make_group(gridsize=3)
    predicted, _, _ = make_model(batch)(*arguments(batch))
    measured = batch["images"] * batch["input_scale"]
    flat = amplitude_of(batch["probe"][0, 0].numpy()) * (8 / 30)
    assert (predicted - measured).abs().mean() < 0.2 * np.abs(flat - measured.numpy()).mean()


# --- what it does not depend on -------------------------------------------------------------------------------
def same(got: tuple[torch.Tensor, ...], expected: tuple[torch.Tensor, ...], where: object = slice(None)) -> None:
    """Amplitudes, and patches where there is a phase to compare, but for the order in which sums were taken."""
    for one, other in ((got[0], expected[0]), (torch.polar(*got[1:]), torch.polar(*expected[1:]))):
        torch.testing.assert_close(one, other[where], atol=2e-4 * float(other.detach().abs().max()), rtol=1e-3)


@pytest.mark.parametrize("gridsize", [1, 2])
def test_permuting_groups_permutes_the_results(gridsize):
    batch = make_group(gridsize=gridsize, whole=False)
    model, order = make_model(batch, trained=True), torch.tensor([2, 0, 1])
    moved = [value[order] for value in arguments(batch)]
    same(model(*moved), model(*arguments(batch)), order)


def test_permuting_the_patches_of_a_group_permutes_the_results():
    batch = make_group(whole=False)
    model, order = make_model(batch, trained=True), torch.tensor([3, 1, 0, 2])
    images, offsets, probe, *scales = arguments(batch)
    moved = model(images[:, order], offsets[:, order], probe[:, order], *scales)
    same(moved, model(*arguments(batch)), (slice(None), order))


@pytest.mark.parametrize("gridsize", [1, 2, 3])
def test_results_do_not_depend_on_the_batch_size(gridsize):
    batch = make_group(gridsize=gridsize, whole=False)
    model = make_model(batch, trained=True)
    together = model(*arguments(batch))
    for index in range(3):
        chosen = slice(index, index + 1)
        same(model(*(value[chosen] for value in arguments(batch))), together, chosen)


def test_units_that_the_scales_undo_do_not_matter():
    batch = make_group(whole=False)
    model = make_model(batch, trained=True)
    images, offsets, probe, input_scale, output_scale = arguments(batch)
    other = model(7 * images, offsets, 0.03 * probe, input_scale / 7, output_scale / 0.03)
    same(other, model(*arguments(batch)))


def test_patches_of_single_patterns_are_those_of_groups_of_one():
    batch = make_group(gridsize=1)
    model = make_model(batch, trained=True)
    _, modulus, phase = model(*arguments(batch))
    patches = model.forward_predict(batch["images"], batch["input_scale"])
    torch.testing.assert_close(patches, torch.polar(modulus, phase), atol=2e-4, rtol=1e-3)


def test_a_pattern_is_predicted_from_alone_whatever_its_group():
    batch = make_group(gridsize=2)
    model = make_model(batch, trained=True)
    patches = model.forward_predict(batch["images"], batch["input_scale"])
    assert patches.shape == (3, 4, 16, 16)
    changed = batch["images"].clone()
    changed[1, 2] += 1
    again = model.forward_predict(changed, batch["input_scale"])
    different = (again - patches).abs().amax(dim=(2, 3)) > 1e-3
    assert different.nonzero().tolist() == [[1, 2]]


def test_what_stands_at_bad_pixels_changes_nothing():
    batch = make_group(gridsize=2, whole=False)
    model, (images, *others) = make_model(batch, trained=True), arguments(batch)
    bad = torch.zeros(16, 16, dtype=torch.bool)
    bad[7:9, 5:10] = True
    spoilt = images.masked_fill(bad, 2 * images.max())
    for one, other in zip(model(images, *others, bad), model(spoilt, *others, bad), strict=True):
        assert torch.equal(one, other)
    assert not torch.allclose(model(images, *others)[0], model(spoilt, *others)[0], rtol=0.01)


def test_what_is_learned_serves_for_groups_of_any_size_and_for_any_probe():
    small, large = make_group(gridsize=2, P=2, N=16), make_group(B=2, gridsize=3, P=1, N=20)
    learned, other = make_model(small, trained=True), make_model(large)
    other.network.load_state_dict(learned.network.state_dict())
    images, offsets, probe, input_scale, output_scale = arguments(small)
    normalised = probe * output_scale.unsqueeze(-1)
    exposures = group_exposures(images * input_scale, offsets, normalised, learned.canvas_size)
    assert torch.equal(other.reconstruct(exposures), learned.reconstruct(exposures))
    before, after = make_model(large)(*arguments(large)), other(*arguments(large))
    assert all(torch.isfinite(tensor).all() for tensor in after)
    assert not torch.equal(before[0], after[0])


def test_only_the_probe_of_a_model_depends_on_its_sizes():
    small, large = (make_model(make_group(**sizes)).state_dict() for sizes in ({}, {"gridsize": 3, "P": 1, "N": 20}))
    assert small.keys() == large.keys()
    assert {name for name in small if small[name].shape != large[name].shape} == {"probe"}


# --- learning ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("gridsize", [1, 3])
def test_every_parameter_learns_from_the_predicted_amplitudes(gridsize):
    batch = make_group(gridsize=gridsize, whole=False)
    model = make_model(batch, trained=True)
    predicted, _, _ = model(*arguments(batch))
    (predicted - batch["images"] * batch["input_scale"]).abs().mean().backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("dark", ["detector-pixels", "one-pattern", "one-group"])
def test_without_light_results_and_gradients_are_finite(dark):
    batch = make_group(whole=False)
    model = make_model(batch, trained=True)
    batch["images"][
        {"detector-pixels": (..., slice(5), slice(None)), "one-pattern": (0, 2), "one-group": (1,)}[dark]
    ] = 0
    results = model(*arguments(batch))
    assert all(torch.isfinite(tensor).all() for tensor in results)
    (results[0] - batch["images"] * batch["input_scale"]).abs().mean().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


# --- the probe -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("scale", [1e-4, 1.0, 3e3])
@pytest.mark.parametrize(("P", "N"), [(1, 16), (2, 13)])
def test_a_normalised_probe_has_the_energy_of_normalised_patterns_whatever_its_unit(scale, P, N):
    wave = random_waves(P, N, N, seed=0)
    probe = normalise_probe(scale * wave)
    assert probe.abs().square().sum().item() == pytest.approx((N / 2) ** 2, rel=1e-5)
    np.testing.assert_allclose(probe / probe[0, 0, 0], wave / wave[0, 0, 0], rtol=1e-4)


def test_a_probe_without_light_is_refused():
    with pytest.raises(ValueError, match="Expected a probe with energy, got only zeros"):
        normalise_probe(torch.zeros(2, 16, 16, dtype=torch.complex64))
    assert normalise_probe(torch.ones(2, 16, 16, dtype=torch.complex64)).abs().max() > 0


def test_a_model_keeps_a_probe_of_its_own():
    batch = make_group()
    probe = normalise_probe(batch["probe"][0, 0])
    model = PtychoModel(make_model(batch).config, probe)
    probe.zero_()
    assert model.probe.abs().square().sum().item() == pytest.approx(64, rel=1e-5)
    assert "probe" in model.state_dict()


# --- what is refused --------------------------------------------------------------------------------------------
@pytest.mark.violation
@pytest.mark.parametrize(("given", "built_for"), [(1, 2), (2, 1), (2, 3)])
def test_model_refuses_groups_of_another_gridsize_naming_the_config(given, built_for):
    batch, other = make_group(gridsize=given), make_group(gridsize=built_for)
    model = make_model(other)
    assert model(*arguments(other))[0].shape[1] == built_for**2
    with pytest.raises(ContractError, match=r"self\.config\.C"):
        model(*arguments(batch))
    with pytest.raises(ContractError, match=r"self\.config\.C"):
        model.forward_predict(batch["images"], batch["input_scale"])


@pytest.mark.violation
@pytest.mark.parametrize("gridsize", [1, 2])
def test_model_refuses_channel_last_offsets(gridsize):
    batch = make_group(gridsize=gridsize)
    model = make_model(batch)
    model(*arguments(batch))
    batch["coords_relative"] = batch["coords_relative"].permute(0, 2, 3, 1)
    with pytest.raises(ContractError, match="coords_relative"):
        model(*arguments(batch))


@pytest.mark.violation
def test_model_refuses_another_number_of_probe_modes_and_modes_that_stand_where_channels_do():
    batch = make_group(P=2)
    model = make_model(batch)
    model(*arguments(batch))
    with pytest.raises(ContractError, match="probe"):
        model(*arguments(make_group(P=1)))
    batch["probe"] = batch["probe"].transpose(1, 2)
    with pytest.raises(ContractError, match="probe"):
        model(*arguments(batch))


@pytest.mark.violation
def test_model_refuses_patterns_of_another_side():
    batch = make_group(N=16)
    model = make_model(batch)
    model(*arguments(batch))
    with pytest.raises(ContractError, match=r"self\.config\.N"):
        model(*arguments(make_group(N=20)))


def test_model_refuses_groups_that_reach_beyond_its_canvas():
    batch = make_group()
    model = make_model(batch)
    model(*arguments(batch))
    with pytest.raises(ValueError, match="offsets to be at most 2 pixels"):
        model(batch["images"], 3 * batch["coords_relative"], *arguments(batch)[2:])


@pytest.mark.violation
def test_a_network_that_gives_canvases_of_other_sizes_is_refused():
    batch = make_group(gridsize=1)
    model = make_model(batch)
    exposures = single_exposures((batch["images"] * batch["input_scale"]).flatten(0, 1), model.probe)
    assert model.reconstruct(exposures).shape == (3, 16, 16)
    model.network = nn.Identity()
    model.network.forward = lambda _: torch.ones(3, 16, 17, dtype=torch.complex64)
    with pytest.raises(ContractError, match=r"(?s)return.*exposures\.canvases\.columns"):
        model.reconstruct(exposures)
