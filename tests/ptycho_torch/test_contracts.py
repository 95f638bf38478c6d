"""Mistakes that keep every tensor's size or nearly so, each stopped at the first boundary it crosses."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import Float32
from torch import Tensor

from ptycho_torch.config_params import ConfigError, ModelConfig
from ptycho_torch.contracts import AXES, AxisOrder, Diffraction, Frame, GroupAmplitude, ProbeScale
from ptycho_torch.dataloader import PtychoDataContainerTorch, PtychoGroupDataset, batch_contract, group_scan
from ptycho_torch.exposures import group_exposures, locate, scan_exposures, scan_frame
from ptycho_torch.grouping import group_positions, largest_neighbor_distance
from ptycho_torch.helper import Translation, diffract, extract_channels_from_region, reassemble_patches_position_real
from ptycho_torch.losses import mae_loss
from ptycho_torch.model import PtychoModel, normalise_probe
from ptycho_torch.reassembly import place_patches, probe_placement_weights
from ptycho_torch.scan import Scan, ScanError, load_scan, save_scan
from ptycho_torch.simulate import diffraction_intensity
from shapecheck import ContractDefinitionError, ContractError, contract

pytestmark = pytest.mark.violation

S, N, P, H, W = 23, 16, 2, 43, 51


def make_scan(seed: int = 0) -> Scan:
    rng = np.random.default_rng(seed)
    parts, obj = rng.standard_normal((2, P, N, N)), rng.standard_normal((2, H, W))
    return Scan(
        diffraction_amplitude=rng.uniform(0.1, 5, (S, N, N)).astype(np.float32),
        xcoords=rng.uniform(9, W - 10, S),
        ycoords=rng.uniform(9, H - 10, S),
        probe=(parts[0] + 1j * parts[1]).astype(np.complex64),
        object_truth=(obj[0] + 1j * obj[1]).astype(np.complex64),
    )


def make_container(gridsize: int = 2, n_groups: int = 7) -> PtychoDataContainerTorch:
    scan = make_scan()
    groups = group_positions(scan.xcoords, scan.ycoords, gridsize, 6, n_groups, 3)
    return PtychoDataContainerTorch.from_groups(scan, groups)


def make_batch(container: PtychoDataContainerTorch, dataset: type[PtychoGroupDataset] = PtychoGroupDataset) -> Any:
    config = SimpleNamespace(C=container.images.shape[1], N=N)
    return batch_contract(config).check(dataset(container).__getitems__(range(3)))


def make_model_config(distance: float = 4.0) -> ModelConfig:
    return ModelConfig(gridsize=2, C=4, N=N, P=P, max_neighbor_distance=distance)


def refusal(call: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[str, str]:
    """Return the id and the parameter of the first violation of a call."""
    with pytest.raises(ContractError) as caught:
        call(*args, **kwargs)
    violation = caught.value.violations[0]
    return violation.id, violation.parameter


# --- dims ------------------------------------------------------------------------------------------------
def test_a_misspelt_dim_is_refused_where_the_contract_is_defined() -> None:
    def use(shape: str) -> Callable[..., Any]:
        def merge(patches: Float32[Tensor, shape]) -> None:
            del patches

        merge.__module__ = "ptycho_torch.a_new_module"
        return contract(merge)

    use("B C N N")(torch.zeros(3, 4, N, N))
    with pytest.raises(ContractDefinitionError, match=r"Unknown dim 'b' .* did you mean 'B'"):
        use("b C N N")
    with pytest.raises(ContractDefinitionError, match="Unknown dim 'channels'"):
        use("B channels N N")


@pytest.mark.parametrize("gridsize", [1, 2])
def test_a_probe_with_modes_and_channels_swapped_is_refused_by_the_batch(gridsize: int) -> None:
    class Swapped(PtychoGroupDataset):
        def probe(self, n_groups: int) -> Tensor:
            return super().probe(n_groups).transpose(1, 2)

    container = make_container(gridsize)
    make_batch(container)
    assert refusal(make_batch, container, Swapped) == ("axis-order", "batch[1]")


def test_channels_that_are_not_the_square_of_gridsize_are_refused_wherever_both_are_known() -> None:
    @contract(axes=AXES)
    def load(images: GroupAmplitude, gridsize: int) -> None:
        del images, gridsize

    images = make_container().images
    load(images, 2)
    assert refusal(load, images, 1) == ("tied-dim", "images")
    with pytest.raises(ConfigError, match=r"C to be gridsize\*\*2 = 4, got C=3"):
        ModelConfig(gridsize=2, C=3, N=N, P=P, max_neighbor_distance=4.0)


def test_a_batch_of_other_channels_than_the_configuration_says_is_refused() -> None:
    batch = make_batch(make_container())
    assert batch_contract(SimpleNamespace(C=4, N=N)).check(batch) is batch
    assert refusal(batch_contract(SimpleNamespace(C=9, N=N)).check, batch)[0] == "tied-dim"


# --- amplitude or intensity -----------------------------------------------------------------------------
def test_an_intensity_given_as_amplitude_is_refused() -> None:
    amplitude = make_batch(make_container())[0]["images"]
    intensity = Diffraction.INTENSITY.declare(amplitude.square())
    mae_loss(amplitude, amplitude)
    assert refusal(mae_loss, amplitude, intensity) == ("kind", "measured")
    mae_loss(amplitude, intensity.sqrt())


def test_an_intensity_cannot_become_an_exposure() -> None:
    (fields, probe, _), scan = make_batch(make_container()), make_scan()
    amplitude, rest = fields["images"], (fields["coords_relative"], probe, 61)
    group_exposures(amplitude, *rest)
    assert refusal(group_exposures, Diffraction.INTENSITY.declare(amplitude.square()), *rest) == ("kind", "images")
    starts, fractions = locate(scan.xcoords, scan.ycoords, N, (0, 0), (H, W))
    patterns, rest = (
        torch.from_numpy(scan.diffraction_amplitude),
        (torch.from_numpy(scan.probe), starts, fractions, (H, W)),
    )
    scan_exposures(patterns, *rest)
    assert refusal(scan_exposures, Diffraction.INTENSITY.declare(patterns.square()), *rest) == ("kind", "measured")


def test_an_intensity_cannot_become_the_patterns_of_a_scan_or_of_a_container() -> None:
    scan, container = make_scan(), make_container()
    counts = Diffraction.INTENSITY.declare(scan.diffraction_amplitude**2)
    assert refusal(replace, scan, diffraction_amplitude=counts) == ("kind", "diffraction_amplitude")
    replace(scan, diffraction_amplitude=np.sqrt(counts))
    images = Diffraction.INTENSITY.declare(container.images.square())
    assert refusal(replace, container, images=images) == ("kind", "images")
    replace(container, images=images.sqrt())


def test_simulated_intensities_are_declared_as_such() -> None:
    scan = make_scan()
    intensity = diffraction_intensity(scan.object_truth, scan.probe, scan.xcoords, scan.ycoords)
    assert {found for found, _ in [refusal(replace, scan, diffraction_amplitude=intensity)]} == {"dtype"}
    waves = torch.ones(3, 4, P, N, N, dtype=torch.complex64)
    assert mae_loss(diffract(waves), diffract(waves)) == 0


def test_patterns_that_are_no_amplitudes_are_refused() -> None:
    scan = make_scan()
    for value in (-1.0, np.nan):
        spoilt = scan.diffraction_amplitude.copy()
        spoilt[3, 2, 1] = value
        assert refusal(replace, scan, diffraction_amplitude=spoilt) == ("value", "diffraction_amplitude")
    replace(scan, diffraction_amplitude=scan.diffraction_amplitude * 0)


# --- positions ------------------------------------------------------------------------------------------
def test_absolute_positions_given_as_offsets_are_refused_by_every_helper() -> None:
    container = make_container()
    offsets, positions = container.coords_relative, container.positions
    patches = torch.ones(7, 4, N, N, dtype=torch.complex64)
    region = torch.ones(7, 1, 61, 61, dtype=torch.complex64)
    images = patches.flatten(0, 1)
    reassemble_patches_position_real(patches, offsets, 61)
    assert refusal(reassemble_patches_position_real, patches, positions, 61) == ("kind", "offsets")
    extract_channels_from_region(region, offsets, N)
    assert refusal(extract_channels_from_region, region, positions, N) == ("kind", "offsets")
    probe = PtychoGroupDataset(container).probe(7)
    group_exposures(container.images, offsets, probe, 61)
    assert refusal(group_exposures, container.images, positions, probe, 61) == ("kind", "offsets")
    Translation(images, offsets.flatten(0, 1))
    assert refusal(Translation, images, positions.flatten(0, 1)) == ("kind", "offset")


def test_offsets_given_as_absolute_positions_are_refused() -> None:
    container = make_container()
    patches = torch.ones(28, N, N, dtype=torch.complex64)
    weights = probe_placement_weights(container.probe)
    place_patches(patches, container.positions.flatten(0, 1), weights)
    assert refusal(place_patches, patches, container.coords_relative.flatten(0, 1), weights) == ("kind", "positions")


@pytest.mark.parametrize("gridsize", [1, 2])
def test_absolute_positions_in_a_batch_are_refused_even_if_nobody_declared_them(gridsize: int) -> None:
    class Absolute(PtychoGroupDataset):
        def coords_relative(self, chosen: Tensor) -> Tensor:
            return self.container.positions[chosen]  # a copy, which has no kind

    container = make_container(gridsize)
    make_batch(container)
    assert refusal(make_batch, container, Absolute) == ("value", "batch[0]['coords_relative']")


def test_positions_in_place_of_offsets_cannot_enter_a_container() -> None:
    container = make_container()
    assert refusal(replace, container, coords_relative=container.positions) == ("kind", "coords_relative")
    replace(container, coords_relative=container.coords_relative)


# --- (x, y) or (row, column) ----------------------------------------------------------------------------
def test_rows_given_as_columns_are_refused_wherever_coordinates_go() -> None:
    scan = make_scan()
    x, y = scan.xcoords, scan.ycoords
    for function, rest in (
        (group_positions, (2, 6, 7, 3)),
        (largest_neighbor_distance, (2, 6)),
        (scan_frame, (N,)),
        (locate, (N, (0, 0), (H, W))),
    ):
        function(x, y, *rest)
        assert refusal(function, y, x, *rest) == ("kind", "xcoords")
    assert refusal(replace, scan, xcoords=y, ycoords=x) == ("kind", "xcoords")
    diffraction_intensity(scan.object_truth, scan.probe, x, y)
    assert refusal(diffraction_intensity, scan.object_truth, scan.probe, y, x) == ("kind", "xcoords")


def test_offsets_in_row_column_order_are_refused() -> None:
    container = make_container()
    patches = torch.ones(7, 4, N, N, dtype=torch.complex64)
    flipped = AxisOrder.ROW_COLUMN.declare(container.coords_relative.flip(-1))
    reassemble_patches_position_real(patches, container.coords_relative, 61)
    assert refusal(reassemble_patches_position_real, patches, flipped, 61) == ("kind", "offsets")
    reassemble_patches_position_real(patches, flipped.flip(-1), 61)


# --- normalised or physical probes ------------------------------------------------------------------------
def test_the_probe_of_a_file_is_not_taken_for_a_normalised_one_nor_the_other_way_round() -> None:
    container = make_container()
    config, normalised = make_model_config(), normalise_probe(container.probe)
    PtychoModel(config, normalised)
    assert refusal(PtychoModel, config, container.probe) == ("kind", "probe")
    assert refusal(replace, container, probe=normalised) == ("kind", "probe")
    replace(container, probe=container.probe.clone())


# --- files ----------------------------------------------------------------------------------------------
def test_a_float64_file_is_refused_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "scan.npz"
    save_scan(make_scan(), path)
    load_scan(path)
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **arrays | {"diffraction": arrays["diffraction"].astype(np.float64)})
    with pytest.raises(ScanError, match=r"Expected float32 .*got float64"):
        load_scan(path)
    scan = make_scan()
    wider = scan.diffraction_amplitude.astype(np.float64)
    assert refusal(replace, scan, diffraction_amplitude=wider) == ("dtype", "diffraction_amplitude")


# --- what is not stopped ----------------------------------------------------------------------------------
def test_the_ordinary_path_declares_kinds_and_contradicts_none() -> None:
    container = make_container()
    assert group_scan(make_scan(), group_positions(*coordinates(), 2, 6, S, 3)).X.shape == (S, N, N, 4)
    batch = make_batch(container)
    model = PtychoModel(make_model_config(40.0), normalise_probe(container.probe))
    fields, probe, scaling = batch
    predicted, _, _ = model(fields["images"], fields["coords_relative"], probe, fields["rms_scaling_constant"], scaling)
    assert mae_loss(predicted, fields["rms_scaling_constant"] * fields["images"]).isfinite()
    assert refusal(Translation, predicted.flatten(0, 1), Frame.ABSOLUTE.declare(torch.zeros(12, 1, 2)))[0] == "kind"
    assert ProbeScale.PHYSICAL.declare(predicted) is predicted


def coordinates() -> tuple[np.ndarray, np.ndarray]:
    scan = make_scan()
    return scan.xcoords, scan.ycoords


def test_every_dim_of_the_package_has_a_description() -> None:
    assert all(AXES.values())
