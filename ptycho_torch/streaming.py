"""Groups that name their patterns: each is held once, or stays in its file until a batch needs it."""

from dataclasses import dataclass

import torch
from jaxtyping import Int64

from ptycho_torch.config_params import STREAM
from ptycho_torch.contracts import Amplitude, BadPixelMask, GroupMembers, GroupOffsets, PhysicalProbe
from ptycho_torch.formats import Patterns
from ptycho_torch.formats.limits import memory_limit_bytes
from ptycho_torch.ranks import Ranks, ranks
from shapecheck import contract

__all__ = ["StreamedGroups", "is_streamed"]


@contract
@dataclass(frozen=True)
class StreamedGroups:
    """A grouped data set that takes patterns from a scan as they are needed, with `PtychoDataContainerTorch`'s constants.

    However many groups share a pattern, it is not copied for them. Where the patterns stay in their file, what is in
    memory does not grow with their size at all; workers get a copy of it, and open the file for themselves.

    Attributes:
        patterns: sqrt(counts) of the whole scan, in its file or in memory.
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

    @property
    @contract
    def bad_pixels(self) -> BadPixelMask | None:
        """Pixels of the detector at which nothing was measured."""
        return None if self.patterns.bad is None else torch.from_numpy(self.patterns.bad)

    @contract
    def images_of(self, chosen: Int64[torch.Tensor, " B"]) -> Amplitude:
        """Read the measured amplitudes of the chosen groups; a pattern that several of them share only once.

        Raises:
            ScanError: The file has become unreadable.
        """
        members = self.nn_indices[chosen]
        images = self.patterns.read(members.flatten().numpy())
        return torch.from_numpy(images).unflatten(0, tuple(members.shape))


def is_streamed(patterns: Patterns, choice: STREAM) -> bool:
    """Return whether patterns stay in their file until a batch needs them.

    By itself, this is so where they would fill more than half of this machine's memory, in all the processes that work
    together on it.

    Args:
        patterns: Of the scan.
        choice: "auto" for the rule, or the user's own answer, "always" or "never".
    """
    if choice != "auto":
        return choice == "always"
    n_bytes = 4 * len(patterns) * patterns.side**2
    return n_bytes * (ranks() or Ranks()).n_local > memory_limit_bytes()
