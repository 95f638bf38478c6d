"""From groups to batches: one change of layout, scaling in float64, and a contract where batches enter."""

import pickle
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset

from ptycho_torch.dataloader import (
    GroupedData,
    PtychoDataContainerTorch,
    PtychoGroupDataset,
    as_it_is,
    batch_contract,
    channels_last_to_torch,
    cut_patches,
    group_scan,
)
from ptycho_torch.grouping import group_positions
from ptycho_torch.scan import Scan
from shapecheck import ContractError

S, N, P, H, W = 19, 16, 2, 40, 47


def make_scan(seed: int = 0, positions: int = S, modes: int = P) -> Scan:
    rng = np.random.default_rng(seed)
    parts = rng.standard_normal((2, modes, N, N))
    obj = rng.standard_normal((2, H, W))
    return Scan(
        diffraction_amplitude=rng.uniform(0.1, 5, (positions, N, N)).astype(np.float32),
        xcoords=rng.uniform(8, W - 9, positions),
        ycoords=rng.uniform(8, H - 9, positions),
        probe=(parts[0] + 1j * parts[1]).astype(np.complex64),
        object_truth=(obj[0] + 1j * obj[1]).astype(np.complex64),
    )


def make_container(gridsize: int = 2, n_groups: int = 7, **options: Any) -> PtychoDataContainerTorch:
    scan = make_scan()
    groups = group_positions(scan.xcoords, scan.ycoords, gridsize, max(gridsize**2, 6), n_groups, 3)
    return PtychoDataContainerTorch.from_groups(scan, groups, **options)


def with_channels(channels: int) -> PtychoDataContainerTorch:
    """A container with any number of channels, also those that are no square."""
    container = make_container(3)
    offsets = container.coords_relative[:, :channels]
    return replace(
        container,
        images=container.images[:, :channels],
        coords_relative=offsets - offsets.mean(dim=1, keepdim=True),
        nn_indices=container.nn_indices[:, :channels],
        patches_truth=None,
    )


def config(channels: int, patch_size: int = N) -> SimpleNamespace:
    return SimpleNamespace(C=channels, N=patch_size)


def collate(*sizes: int) -> Any:
    return batch_contract(config(*sizes)).collate(as_it_is)


def load(container: PtychoDataContainerTorch, batch_size: int, **options: Any) -> DataLoader:
    return DataLoader(
        PtychoGroupDataset(container), batch_size=batch_size, collate_fn=collate(container.images.shape[1]), **options
    )


# --- the change of layout ------------------------------------------------------------------------


def coded(shape: tuple[int, ...]) -> np.ndarray:
    """Every element tells its own index: 1000 g + 100 i + 10 j + k."""
    return sum(np.arange(side).reshape([-1 if a == axis else 1 for a in range(4)]) * 10 ** (3 - axis)
               for axis, side in enumerate(shape)).astype(np.float32)  # fmt: skip


def misplaced(adapter: Any, shape: tuple[int, ...]) -> int:
    """Count the elements that the axis map (g, i, j, c) -> (g, c, i, j) puts elsewhere."""
    source = coded(shape)
    result = adapter(source)
    wrong = 0
    for g, i, j, c in np.ndindex(shape):
        wrong += result[g, c, i, j].item() != source[g, i, j, c]
    return wrong


LAYOUTS = [(3, 5, 5, 4), (2, 4, 4, 4), (3, 1, 2, 4), (4, 1, 2, 2), (1, 5, 5, 1), (3, 1, 2, 1)]


@pytest.mark.parametrize("shape", LAYOUTS, ids=str)
def test_every_element_goes_where_the_axis_map_says(shape: tuple[int, ...]) -> None:
    assert misplaced(channels_last_to_torch, shape) == 0


@pytest.mark.parametrize("shape", LAYOUTS[:4], ids=str)
def test_a_reshape_in_its_place_would_be_noticed(shape: tuple[int, ...]) -> None:
    def reshaped(array: np.ndarray) -> torch.Tensor:
        g, i, j, c = array.shape
        return torch.from_numpy(array).reshape(g, c, i, j)

    assert misplaced(reshaped, shape) > 0


@pytest.mark.parametrize("shape", LAYOUTS, ids=str)
def test_the_result_is_contiguous(shape: tuple[int, ...]) -> None:
    assert channels_last_to_torch(coded(shape)).is_contiguous()


def test_complex_patches_are_converted_too() -> None:
    patches = (coded((3, 5, 5, 4)) * (1 + 2j)).astype(np.complex64)
    np.testing.assert_array_equal(channels_last_to_torch(patches).numpy(), np.moveaxis(patches, -1, 1))


@pytest.mark.violation
@pytest.mark.parametrize("shape", [(3, 4, 5, 5), (3, 4, 1, 2), (3, 5, 4)], ids=str)
def test_an_array_that_is_in_torch_layout_already_is_a_violation(shape: tuple[int, ...]) -> None:
    with pytest.raises(ContractError, match="array"):
        channels_last_to_torch(np.zeros(shape, np.float32))


@pytest.mark.violation
def test_a_float64_array_is_a_violation() -> None:
    with pytest.raises(ContractError, match="array"):
        channels_last_to_torch(np.zeros((3, 5, 5, 4)))


# --- the container -------------------------------------------------------------------------------


@pytest.mark.parametrize("gridsize", [1, 2, 3])
def test_the_container_holds_the_patterns_of_each_member(gridsize: int) -> None:
    scan, container = make_scan(), make_container(gridsize)
    assert container.images.shape == (7, gridsize**2, N, N)
    for g, members in enumerate(container.nn_indices.tolist()):
        for c, member in enumerate(members):
            np.testing.assert_array_equal(container.images[g, c].numpy(), scan.diffraction_amplitude[member])


@pytest.mark.parametrize("gridsize", [1, 2, 3])
def test_center_minus_offset_is_the_position_of_each_member(gridsize: int) -> None:
    scan, container = make_scan(), make_container(gridsize)
    assert container.coords_relative.shape == (7, gridsize**2, 1, 2)
    assert container.coords_center.shape == (7, 1, 1, 2)
    for g, members in enumerate(container.nn_indices.tolist()):
        for c, member in enumerate(members):
            expected = [scan.xcoords[member], scan.ycoords[member]]
            np.testing.assert_allclose(container.positions[g, c, 0].numpy(), expected, atol=1e-5)


def test_every_tensor_of_the_container_has_its_exact_dtype() -> None:
    container = make_container()
    assert container.images.dtype == container.coords_relative.dtype == container.coords_center.dtype == torch.float32
    assert container.probe.dtype == torch.complex64
    assert container.patches_truth is not None
    assert container.patches_truth.dtype == torch.complex64
    assert container.nn_indices.dtype == torch.int64


def test_the_probe_is_that_of_the_file() -> None:
    np.testing.assert_array_equal(make_container().probe.numpy(), make_scan().probe)


def test_without_a_truth_there_are_no_true_patches() -> None:
    scan = replace(make_scan(), object_truth=None)
    groups = group_positions(scan.xcoords, scan.ycoords, 2, 6, scan.n_positions, 0)
    assert PtychoDataContainerTorch.from_groups(scan, groups).patches_truth is None
    assert make_container(with_truth=False).patches_truth is None


def test_a_legacy_data_set_is_converted_as_one_made_from_groups() -> None:
    scan = make_scan()
    groups = group_positions(scan.xcoords, scan.ycoords, 2, 6, scan.n_positions, 0)
    legacy = group_scan(scan, groups)
    rebuilt = GroupedData(*(np.ascontiguousarray(getattr(legacy, name)) for name in GroupedData.__annotations__))
    one = PtychoDataContainerTorch.from_groups(scan, groups)
    other = PtychoDataContainerTorch.from_channels_last(rebuilt, scan.probe)
    assert torch.equal(one.images, other.images)
    assert torch.equal(one.coords_relative, other.coords_relative)
    assert torch.equal(one.patches_truth, other.patches_truth)
    assert one.rms_scaling_constant == pytest.approx(other.rms_scaling_constant, rel=1e-12)


def test_offsets_that_are_not_relative_to_their_mean_are_refused() -> None:
    scan = make_scan()
    groups = group_positions(scan.xcoords, scan.ycoords, 2, 6, scan.n_positions, 0)
    shifted = replace(groups, coords_relative=groups.coords_relative + np.float32(0.01))
    with pytest.raises(ValueError, match=r"average to 0 over each group, got a mean of up to 0\.01"):
        PtychoDataContainerTorch.from_groups(scan, shifted)


def test_groups_of_another_scan_are_refused() -> None:
    scan = make_scan()
    groups = group_positions(scan.xcoords, scan.ycoords, 2, 6, scan.n_positions, 0)
    with pytest.raises(ValueError, match="nn_indices to be positions of this scan, 0 to 10, got 0 to 18"):
        PtychoDataContainerTorch.from_groups(make_scan(positions=11), groups)


@pytest.mark.violation
def test_a_probe_of_another_size_is_a_violation() -> None:
    scan = make_scan()
    grouped = group_scan(scan, group_positions(scan.xcoords, scan.ycoords, 2, 6, scan.n_positions, 0))
    with pytest.raises(ContractError, match="probe"):
        PtychoDataContainerTorch.from_channels_last(grouped, scan.probe[:, 1:, 1:].copy())


# --- true patches --------------------------------------------------------------------------------


def bilinear(obj: np.ndarray, row: float, column: float) -> complex:
    """One value of an object between its pixels, from the definition: a product of two hat functions."""
    total = 0j
    for i in range(int(row) - 1, int(row) + 3):
        for j in range(int(column) - 1, int(column) + 3):
            if 0 <= i < obj.shape[0] and 0 <= j < obj.shape[1]:
                total += obj[i, j] * max(0.0, 1 - abs(row - i)) * max(0.0, 1 - abs(column - j))
    return total


@pytest.mark.parametrize("patch_size", [6, 7])
def test_true_patches_equal_the_object_at_their_positions(patch_size: int) -> None:
    rng = np.random.default_rng(0)
    obj = (rng.standard_normal((17, 13)) + 1j * rng.standard_normal((17, 13))).astype(np.complex64)
    x, y = np.array([5.0, 6.25, 3.5]), np.array([3.0, 8.75, 12.5])
    patches = cut_patches(obj, x, y, patch_size)
    for s in range(3):
        for i, j in np.ndindex(patch_size, patch_size):
            expected = bilinear(obj, y[s] - patch_size // 2 + i, x[s] - patch_size // 2 + j)
            assert patches[s, i, j] == pytest.approx(expected, abs=1e-6)


def test_at_whole_positions_true_patches_are_pixels_of_the_object_up_to_its_edge() -> None:
    obj = (np.arange(20 * 9) + 1j).reshape(20, 9).astype(np.complex64)
    patches = cut_patches(obj, np.array([2.0, 7.0]), np.array([18.0, 2.0]), 4)
    np.testing.assert_array_equal(patches[0], obj[16:20, 0:4])
    np.testing.assert_array_equal(patches[1], obj[0:4, 5:9])


def test_true_patches_of_the_container_belong_to_their_members() -> None:
    scan, container = make_scan(), make_container()
    assert container.patches_truth is not None
    for g, c in np.ndindex(7, 4):
        member = container.nn_indices[g, c]
        expected = bilinear(scan.object_truth, scan.ycoords[member] + 2, scan.xcoords[member] - 3)
        assert container.patches_truth[g, c, N // 2 + 2, N // 2 - 3].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("x", "y", "name"), [(1.9, 8.0, "xcoords"), (8.0, 18.1, "ycoords")])
def test_a_patch_beyond_the_object_is_refused_not_clipped(x: float, y: float, name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}\[0\]"):
        cut_patches(np.ones((20, 19), np.complex64), np.array([x]), np.array([y]), 4)


# --- batches -------------------------------------------------------------------------------------


@pytest.mark.parametrize("gridsize", [1, 2])
@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_every_batch_has_the_shape_of_the_contract_also_the_last(gridsize: int, batch_size: int) -> None:
    channels, left = gridsize**2, 7
    for fields, probe, scaling in load(make_container(gridsize), batch_size):
        b = min(batch_size, left)
        left -= b
        assert fields["images"].shape == (b, channels, N, N)
        assert fields["coords_relative"].shape == (b, channels, 1, 2)
        assert fields["coords_relative"].numel() == b * gridsize**2 * 2
        assert fields["rms_scaling_constant"].shape == fields["physics_scaling_constant"].shape == (b, 1, 1, 1)
        assert fields["nn_indices"].shape == (b, channels)
        assert fields["experiment_id"].shape == (b,)
        assert probe.shape == (b, channels, P, N, N)
        assert scaling.shape == (b, 1, 1, 1)
    assert left == 0


def test_a_batch_carries_what_the_container_holds() -> None:
    container = make_container(experiment_id=5)
    fields, probe, scaling = next(iter(load(container, 7)))
    assert torch.equal(fields["images"], container.images)
    assert torch.equal(fields["coords_relative"], container.coords_relative)
    assert torch.equal(fields["nn_indices"], container.nn_indices)
    assert fields["rms_scaling_constant"].unique().item() == pytest.approx(container.rms_scaling_constant)
    assert fields["physics_scaling_constant"].unique().item() == pytest.approx(container.physics_scaling_constant)
    assert scaling.unique().item() == pytest.approx(container.probe_scaling)
    assert fields["experiment_id"].tolist() == [5] * 7
    assert torch.equal(probe[6, 3], container.probe)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_what_is_loaded_does_not_depend_on_the_batch_size(batch_size: int) -> None:
    container = make_container()
    batches = list(load(container, batch_size))
    assert torch.equal(torch.cat([fields["images"] for fields, _, _ in batches]), container.images)


def test_a_subset_and_a_shuffled_order_give_the_chosen_groups() -> None:
    container = make_container()
    subset = Subset(PtychoGroupDataset(container), [5, 1, 2])
    fields, _, _ = next(iter(DataLoader(subset, batch_size=3, collate_fn=collate(4))))
    assert torch.equal(fields["images"], container.images[[5, 1, 2]])


def test_one_item_is_a_batch_of_one() -> None:
    container = make_container()
    fields, _, _ = PtychoGroupDataset(container)[4]
    assert torch.equal(fields["images"], container.images[4:5])


def test_workers_started_by_spawn_deliver_the_same_batches() -> None:
    container = make_container()
    here = list(load(container, 3))
    there = list(load(container, 3, num_workers=1, multiprocessing_context="spawn"))
    for (fields, probe, scaling), (other, other_probe, other_scaling) in zip(here, there, strict=True):
        assert all(torch.equal(fields[name], other[name]) for name in fields)
        assert torch.equal(probe, other_probe)
        assert torch.equal(scaling, other_scaling)


def test_dataset_and_collate_function_can_be_pickled() -> None:
    dataset, function = pickle.loads(pickle.dumps((PtychoGroupDataset(make_container()), collate(4))))
    fields, _, _ = function(dataset.__getitems__([0, 2]))
    assert torch.equal(fields["images"], make_container().images[[0, 2]])


class ChannelLastDataset(PtychoGroupDataset):
    """The historical bug: offsets leave the loader as they stood in the legacy container."""

    def coords_relative(self, chosen: torch.Tensor) -> torch.Tensor:
        return super().coords_relative(chosen).permute(0, 2, 3, 1)


@pytest.mark.violation
@pytest.mark.parametrize("channels", [1, 2, 4])
def test_a_channel_last_loader_is_stopped_where_the_batch_enters(channels: int) -> None:
    container = with_channels(channels)
    loader = DataLoader(ChannelLastDataset(container), batch_size=3, collate_fn=collate(channels))
    with pytest.raises(ContractError) as caught:
        next(iter(loader))
    assert "batch[0]['coords_relative']" in str(caught.value).splitlines()[0]
    assert f"f32[3,1,2,{channels}]" in str(caught.value)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_the_same_loader_with_offsets_in_order_is_let_through(channels: int) -> None:
    loader = DataLoader(
        PtychoGroupDataset(with_channels(channels)),
        batch_size=3,
        collate_fn=collate(channels),
    )
    assert [len(scaling) for _, _, scaling in loader] == [3, 3, 1]


@pytest.mark.violation
def test_a_loader_that_is_consistently_of_one_channel_is_stopped_when_four_are_configured() -> None:
    loader = DataLoader(PtychoGroupDataset(make_container(1)), batch_size=3, collate_fn=collate(4))
    with pytest.raises(ContractError, match=r"batch\[0\]\['images'\]") as caught:
        next(iter(loader))
    assert "C=4" in str(caught.value)


@pytest.mark.violation
def test_patches_of_another_size_than_configured_are_stopped() -> None:
    loader = DataLoader(PtychoGroupDataset(make_container()), batch_size=3, collate_fn=collate(4, 32))
    with pytest.raises(ContractError, match="N=32"):
        next(iter(loader))


@pytest.mark.violation
def test_a_violation_in_a_worker_reaches_the_caller_with_its_path() -> None:
    loader = DataLoader(
        PtychoGroupDataset(make_container(1)),
        batch_size=3,
        collate_fn=collate(4),
        num_workers=1,
        multiprocessing_context="spawn",
    )
    with pytest.raises(ContractError, match=r"batch\[0\]\['images'\]"):
        next(iter(loader))
