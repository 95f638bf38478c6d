"""Groups to batches: the container of a data set, the dataset over it and the contract of a batch.

Owns the one change of layout (channel-last to torch). What scales patterns and probes is `scaling`; who shuffles, splits
and feeds batches to devices is `workflow`; who reads files is `scan`, and `streaming` where they are larger than memory.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import torch
from jaxtyping import Complex64
from torch.utils.data import Dataset

from ptycho_torch.contracts import (
    MEAN_OFFSET_TOLERANCE,
    BadPixelMask,
    BadPixels,
    Batch,
    BatchFields,
    GroupAmplitude,
    GroupCenters,
    GroupedAmplitudeLast,
    GroupedCentersLast,
    GroupedIndices,
    GroupedLast,
    GroupedOffsetsLast,
    GroupedPatchesLast,
    GroupMembers,
    GroupOffsets,
    GroupPatches,
    GroupPositions,
    GroupTensor,
    ObjectArray,
    PhysicalProbe,
    ScanProbe,
    ScanX,
    ScanY,
)
from ptycho_torch.grouping import Groups
from ptycho_torch.scaling import probe_scaling, scales_of, scaling_constants
from ptycho_torch.scan import Scan, ScanOnDisk, patch_starts
from ptycho_torch.streaming import StreamedGroups
from shapecheck import contract
from shapecheck.data import BatchContract

__all__ = [
    "GroupGeometry",
    "GroupedData",
    "PtychoDataContainerTorch",
    "PtychoGroupDataset",
    "ScanPatches",
    "as_it_is",
    "batch_contract",
    "channels_last_to_torch",
    "cut_patches",
    "group_scan",
    "stream_groups",
]

ScanPatches = Complex64[np.ndarray, "S N N"]  # object patches, the scan position at index N//2


@contract
@dataclass(frozen=True)
class GroupedData:
    """A grouped data set in the legacy layout, channel last.

    Attributes:
        X: sqrt(counts), zero frequency at ``[N//2, N//2]``.
        coords_relative: Pixels, order (x, y), ``-(position - mean of the group)``.
        coords_offsets: Pixels, order (x, y), mean position of the group.
        nn_indices: Scan position of each member.
        Y: True object patches, where the truth is known.
    """

    X: GroupedAmplitudeLast
    coords_relative: GroupedOffsetsLast
    coords_offsets: GroupedCentersLast
    nn_indices: GroupedIndices
    Y: GroupedPatchesLast | None = None


@contract
@dataclass(frozen=True)
class PtychoDataContainerTorch:
    """A grouped data set in torch layout, with the constants that scale it.

    With ``A`` the measured amplitudes of the groups:

    * ``rms_scaling_constant * A`` has the mean energy ``(N/2)**2`` per pattern;
    * ``physics_scaling_constant * rms_scaling_constant * A`` has the mean energy ``nphotons``, so it is ``A`` itself
      where ``nphotons`` is the data's own mean;
    * ``probe_scaling`` brings amplitudes predicted with the file's probe and an object of modulus 1 to the scale of
      the first. An object in that scale is multiplied by ``probe_scaling / rms_scaling_constant`` to be in the file's.

    Attributes:
        images: sqrt(counts), as measured.
        coords_relative: Pixels, order (x, y), ``-(position - mean of the group)``.
        coords_center: Pixels, order (x, y), mean position of the group.
        nn_indices: Scan position of each member.
        probe: Incoherent modes as in the file, counts**0.5.
        rms_scaling_constant: One value for the data set, computed in float64.
        physics_scaling_constant: One value for the data set, computed in float64.
        probe_scaling: One value for the data set, computed in float64.
        patches_truth: True object patches, where the truth is known.
        experiment_id: Tells this data set from others in the same batch.
        bad_pixels: Of the detector, at which nothing was measured.
    """

    images: GroupAmplitude
    coords_relative: GroupOffsets
    coords_center: GroupCenters
    nn_indices: GroupMembers
    probe: PhysicalProbe
    rms_scaling_constant: float
    physics_scaling_constant: float
    probe_scaling: float
    patches_truth: GroupPatches | None = None
    experiment_id: int = 0
    bad_pixels: BadPixelMask | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    @contract
    def positions(self) -> GroupPositions:
        """Absolute patch centres, pixels, order (x, y)."""
        return self.coords_center - self.coords_relative

    def images_of(self, chosen: torch.Tensor) -> torch.Tensor:
        """Return the measured amplitudes of the chosen groups."""
        return self.images[chosen]

    @classmethod
    def from_groups(
        cls,
        scan: Scan,
        groups: Groups,
        *,
        nphotons: float | None = None,
        with_truth: bool = True,
        experiment_id: int = 0,
    ) -> Self:
        """Gather the patterns of every group of a scan.

        Args:
            scan: The scan that the groups were drawn from.
            groups: Channel last, as `grouping` returns them.
            nphotons: Mean counts per pattern that the physics scale aims at; the groups' own mean by default.
            with_truth: Also cut the true patches, where the scan knows its object.
            experiment_id: Tells this data set from others in the same batch.

        Raises:
            ValueError: The groups do not belong to the scan, or a true patch leaves the object.
        """
        grouped = group_scan(scan, groups, with_truth=with_truth)
        return cls.from_channels_last(
            grouped, scan.probe, nphotons=nphotons, experiment_id=experiment_id, bad_pixels=scan.bad_pixels
        )

    @classmethod
    def from_channels_last(
        cls,
        grouped: GroupedData,
        probe: ScanProbe,
        *,
        nphotons: float | None = None,
        experiment_id: int = 0,
        bad_pixels: BadPixels | None = None,
    ) -> Self:
        """Convert a legacy data set; the only place where the layout changes.

        Raises:
            ValueError: The offsets of a group do not average to 0, or there is nothing to scale by.
        """
        _check_mean_offset(grouped.coords_relative)
        rms, physics = scaling_constants(grouped.X, nphotons)
        centers = grouped.coords_offsets.astype(np.float32)
        return cls(
            images=channels_last_to_torch(grouped.X),
            coords_relative=channels_last_to_torch(grouped.coords_relative),
            coords_center=channels_last_to_torch(centers),
            nn_indices=torch.from_numpy(grouped.nn_indices),
            probe=torch.from_numpy(probe),
            rms_scaling_constant=rms,
            physics_scaling_constant=physics,
            probe_scaling=probe_scaling(probe),
            patches_truth=None if grouped.Y is None else channels_last_to_torch(grouped.Y),
            experiment_id=experiment_id,
            bad_pixels=None if bad_pixels is None else torch.from_numpy(bad_pixels),
        )


def stream_groups(
    scan: ScanOnDisk, groups: Groups, *, nphotons: float | None = None, experiment_id: int = 0
) -> StreamedGroups:
    """Group a scan whose patterns stay in their file; each is read once here, for the scaling constants.

    Args:
        scan: The scan that the groups were drawn from.
        groups: Channel last, as `grouping` returns them.
        nphotons: Mean counts per pattern that the physics scale aims at; the groups' own mean by default.
        experiment_id: Tells this data set from others in the same batch.

    Raises:
        ScanError: A pattern is not usable, or patterns can only be read one after the other.
        ValueError: The groups do not belong to the scan.
    """
    _check_members(groups.nn_indices, len(scan.patterns))
    scan.patterns.expect_random_access()
    rms, physics = scales_of(float(scan.energies()[groups.nn_indices].mean()), scan.patterns.side, nphotons)
    return StreamedGroups(
        patterns=scan.patterns,
        coords_relative=channels_last_to_torch(groups.coords_relative),
        nn_indices=torch.from_numpy(groups.nn_indices),
        probe=torch.from_numpy(scan.probe),
        rms_scaling_constant=rms,
        physics_scaling_constant=physics,
        probe_scaling=probe_scaling(scan.probe),
        experiment_id=experiment_id,
    )


@contract
def channels_last_to_torch(array: GroupedLast) -> GroupTensor:
    """Move the channel axis from last to second and make the memory contiguous.

    A permutation, never a reshape: that would give the same shape and scrambled content.
    """
    return torch.from_numpy(array).permute(0, 3, 1, 2).contiguous()


@contract
def group_scan(scan: Scan, groups: Groups, *, with_truth: bool = True) -> GroupedData:
    """Gather the patterns (and true patches) of every group in the legacy layout.

    Raises:
        ValueError: The groups do not belong to the scan, or a true patch leaves the object.
    """
    members, truth = groups.nn_indices, None
    _check_members(members, scan.n_positions)
    if with_truth and scan.object_truth is not None:
        patches = cut_patches(scan.object_truth, scan.xcoords, scan.ycoords, scan.N)
        truth = np.moveaxis(patches[members], 1, -1)
    return GroupedData(
        X=np.moveaxis(scan.diffraction_amplitude[members], 1, -1),
        coords_relative=groups.coords_relative,
        coords_offsets=groups.coords_offsets,
        nn_indices=members,
        Y=truth,
    )


@contract(dims={"N": "patch_size"})
def cut_patches(obj: ObjectArray, xcoords: ScanX, ycoords: ScanY, patch_size: int) -> ScanPatches:
    """Cut the object under the probe at every position.

    Index ``patch_size // 2`` of a patch sits at the position. Between pixels the object is interpolated bilinearly, as
    in `helper.Translation`: exact at whole positions, slightly blurred between them, never beyond the values around.

    Raises:
        ValueError: A patch leaves the object; names the position.
    """
    row, row_part = patch_starts(ycoords, patch_size, obj.shape[0], "ycoords")
    column, column_part = patch_starts(xcoords, patch_size, obj.shape[1], "xcoords")
    steps = np.arange(patch_size)
    rows = (row[:, None] + steps)[:, :, None]
    columns = (column[:, None] + steps)[:, None, :]
    below = np.minimum(rows + 1, obj.shape[0] - 1)  # reached past the edge only with weight 0
    right = np.minimum(columns + 1, obj.shape[1] - 1)
    down, across = row_part[:, None, None], column_part[:, None, None]
    upper = (1 - across) * obj[rows, columns] + across * obj[rows, right]
    lower = (1 - across) * obj[below, columns] + across * obj[below, right]
    return ((1 - down) * upper + down * lower).astype(np.complex64)


def _check_members(members: np.ndarray, n_positions: int) -> None:
    if members.min() < 0 or members.max() >= n_positions:
        got = f"{members.min()} to {members.max()}"
        msg = f"Expected nn_indices to be positions of this scan, 0 to {n_positions - 1}, got {got}."
        raise ValueError(msg)


def _check_mean_offset(offsets: np.ndarray) -> None:
    """Refuse offsets that are not relative to the mean of their group."""
    mean = float(np.abs(offsets.mean(axis=-1, dtype=np.float64)).max())
    if mean > MEAN_OFFSET_TOLERANCE * max(1.0, float(np.abs(offsets).max())):
        got = f"a mean of up to {mean:.3g} pixels. It is -(position - mean position of the group)"
        msg = f"Expected coords_relative to average to 0 over each group, got {got}."
        raise ValueError(msg)


class PtychoGroupDataset(Dataset[Batch]):
    """The groups of a container, in memory or streamed, handed out in whole batches.

    An item is a batch already: indexing once is much cheaper than stacking samples. Every field has its own method,
    so that a loader with another layout (the historical channel-last one, say) overrides one.
    """

    def __init__(self, container: PtychoDataContainerTorch | StreamedGroups) -> None:
        self.container = container

    def __len__(self) -> int:
        return len(self.container)

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Assemble the groups of these indices, in this order. The loader checks them (`batch_contract`)."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        container = self.container
        fields: BatchFields = {
            "images": self.images(chosen),
            "coords_relative": self.coords_relative(chosen),
            "rms_scaling_constant": _per_group(container.rms_scaling_constant, chosen),
            "physics_scaling_constant": _per_group(container.physics_scaling_constant, chosen),
            "nn_indices": container.nn_indices[chosen],
            "experiment_id": torch.full((len(chosen),), container.experiment_id, dtype=torch.int64),
        }
        if container.bad_pixels is not None:
            fields["bad_pixels"] = container.bad_pixels
        return fields, self.probe(len(chosen)), _per_group(container.probe_scaling, chosen)

    def images(self, chosen: torch.Tensor) -> torch.Tensor:
        """Return the measured amplitudes of the chosen groups."""
        return self.container.images_of(chosen)

    def coords_relative(self, chosen: torch.Tensor) -> torch.Tensor:
        """Return the offsets of the chosen groups."""
        return self.container.coords_relative[chosen]

    def probe(self, n_groups: int) -> torch.Tensor:
        """Return the probe for every patch: a view, nothing is copied."""
        probe = self.container.probe
        return probe.expand(n_groups, self.container.nn_indices.shape[1], *probe.shape)


def _per_group(value: float, chosen: torch.Tensor) -> torch.Tensor:
    return torch.full((len(chosen), 1, 1, 1), value, dtype=torch.float32)


class GroupGeometry(Protocol):
    """The part of a configuration that ties the dims of a batch."""

    @property
    def C(self) -> int: ...  # noqa: D102, N802 - the field's symbol

    @property
    def N(self) -> int: ...  # noqa: D102, N802 - the field's symbol


def batch_contract(config: GroupGeometry, *, step: Callable[..., Any] | None = None) -> BatchContract:
    """Return the contract of every batch, for the loaders that make them and the callback that watches them arrive.

    ``C`` and ``N`` are tied to the configuration: a loader that is consistently wrong is stopped as well.

    Args:
        config: What the model was built for.
        step: The step that takes the batches, for errors to name.
    """
    return BatchContract(Batch, dims={"C": config.C, "N": config.N}, step=step)


def as_it_is(batch: Any) -> Any:
    """Collate nothing: `PtychoGroupDataset` hands out whole batches."""
    return batch
