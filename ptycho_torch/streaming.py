"""Groups whose patterns stay in their file until a batch needs them: scans larger than memory."""

from dataclasses import dataclass

import torch
from jaxtyping import Int64

from ptycho_torch.contracts import Amplitude, GroupMembers, GroupOffsets, PhysicalProbe
from ptycho_torch.formats import Patterns
from shapecheck import contract

__all__ = ["StreamedGroups"]


@contract
@dataclass(frozen=True)
class StreamedGroups:
    """A grouped data set whose patterns stay in their file, with the constants of `PtychoDataContainerTorch`.

    What is in memory grows with the number of groups and not with the size of a pattern. Workers get a copy of it, and
    open the file for themselves.

    Attributes:
        patterns: sqrt(counts), read as they are needed.
        coords_relative: Pixels, order (x, y), ``-(position - mean of the group)``.
        nn_indices: Scan position of each member.
        probe: Incoherent modes as in the file, counts**0.5.
        rms_scaling_constant: One value for the data set, computed in float64.
        physics_scaling_constant: One value for the data set, computed in float64.
        probe_scaling: One value for the data set, computed in float64.
        experiment_id: Tells this data set from others in the same batch.
    """

    patterns: Patterns
    coords_relative: GroupOffsets
    nn_indices: GroupMembers
    probe: PhysicalProbe
    rms_scaling_constant: float
    physics_scaling_constant: float
    probe_scaling: float
    experiment_id: int = 0

    def __len__(self) -> int:
        return len(self.nn_indices)

    @contract
    def images_of(self, chosen: Int64[torch.Tensor, " B"]) -> Amplitude:
        """Read the measured amplitudes of the chosen groups; a pattern that several of them share only once.

        Raises:
            ScanError: The file has become unreadable.
        """
        members = self.nn_indices[chosen]
        images = self.patterns.read(members.flatten().numpy())
        return torch.from_numpy(images).unflatten(0, tuple(members.shape))
