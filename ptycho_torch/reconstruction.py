"""A trained model and a whole scan to an object.

Owns the path from patterns to an object: predict, align phases, place. What comes after is `refinement`. It never sees
a truth and touches no file.
"""

from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ptycho_torch.config_params import DataConfig, InferenceConfig
from ptycho_torch.contracts import Amplitude, GroupScale, Patches
from ptycho_torch.dataloader import PtychoDataContainerTorch
from ptycho_torch.grouping import Groups, all_groups
from ptycho_torch.reassembly import Placement, place_patches, probe_placement_weights, synchronise_phases
from ptycho_torch.scan import Scan

__all__ = [
    "PatchPredictor",
    "flat_placement",
    "reconstruct",
    "single_patch_container",
    "whole_scan_container",
]


class PatchPredictor(Protocol):
    """Anything that sees a patch in a pattern."""

    def forward_predict(self, images: Amplitude, input_scale: GroupScale) -> Patches:
        """Estimate the patch of each pattern; its global phase is free."""
        ...


def whole_scan_container(scan: Scan, config: DataConfig) -> PtychoDataContainerTorch:
    """Group a scan so that every position is in at least one group, and few are in many."""
    groups = all_groups(scan.xcoords, scan.ycoords, config.gridsize, config.neighbor_count, config.seed)
    return PtychoDataContainerTorch.from_groups(scan, _covering(groups), with_truth=False)


def single_patch_container(scan: Scan) -> PtychoDataContainerTorch:
    """Make every position a group of its own."""
    groups = all_groups(scan.xcoords, scan.ycoords, gridsize=1, neighbor_count=1, seed=0)
    return PtychoDataContainerTorch.from_groups(scan, groups, with_truth=False)


def flat_placement(container: PtychoDataContainerTorch) -> Placement:
    """Return an object that is the same everywhere on the canvas of the whole scan, for want of a better one."""
    return _placed(torch.ones_like(container.images, dtype=torch.complex64), container, synchronise=False)


@torch.no_grad()
def reconstruct(
    model: PatchPredictor,
    container: PtychoDataContainerTorch,
    config: InferenceConfig,
    *,
    synchronise: bool = True,
    quiet: bool = True,
) -> Placement:
    """Predict the patch of every pattern and put them together.

    Args:
        model: Patches in any one scale; a global phase of its own for each is allowed.
        container: Every group is used, in this order.
        config: Groups per batch; changes no result beyond rounding.
        synchronise: Align the global phases of the patches before the first placement.
        quiet: No progress bar.

    Returns:
        The object in the units of the container's probe, its weights, and where it lies.
    """
    batches = container.images.split(config.batch_size)
    with tqdm(batches, desc="Predicting", unit="batch", disable=quiet) as bar:
        patches = [model.forward_predict(images, _scale(images, container)) for images in bar]
    return _placed(torch.cat(patches), container, synchronise=synchronise)


def _covering(groups: Groups) -> Groups:
    """Choose groups that reach every position: greedily, those first that add most."""
    members = groups.nn_indices
    reached = np.zeros(members.max() + 1, bool)
    chosen = []
    for wanted in range(members.shape[1], 0, -1):
        for index, positions in enumerate(members):
            if np.count_nonzero(~reached[positions]) == wanted:
                chosen.append(index)
                reached[positions] = True
    return replace(
        groups,
        nn_indices=members[chosen],
        coords_relative=groups.coords_relative[chosen],
        coords_offsets=groups.coords_offsets[chosen],
    )


def _scale(images: Tensor, container: PtychoDataContainerTorch) -> Tensor:
    return images.new_full((len(images), 1, 1, 1), container.rms_scaling_constant)


def _object_scale(container: PtychoDataContainerTorch) -> float:
    """What brings an object of the normalised scale, in which models work, to that of the container's probe."""
    return container.probe_scaling / container.rms_scaling_constant


def _placed(patches: Tensor, container: PtychoDataContainerTorch, *, synchronise: bool) -> Placement:
    flat, positions = patches.flatten(0, 1), container.positions.flatten(0, 1)
    weights = probe_placement_weights(container.probe)
    if synchronise:
        flat = synchronise_phases(flat, positions, weights)
    return place_patches(flat * _object_scale(container), positions, weights)
