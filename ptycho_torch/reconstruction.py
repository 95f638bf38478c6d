"""A trained model and a whole scan to an object.

Owns the shipped path of inference: predict, align phases, place; then, with a model that can, refine what was placed
against the patterns as long as it comes to explain them better. It never sees a truth and touches no file.
"""

from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ptycho_torch.config_params import DataConfig, InferenceConfig
from ptycho_torch.contracts import Amplitude, GroupScale, Patches
from ptycho_torch.dataloader import PtychoDataContainerTorch, cut_patches
from ptycho_torch.grouping import Groups, all_groups
from ptycho_torch.helper import diffract, illuminate
from ptycho_torch.reassembly import Placement, place_patches, probe_placement_weights, synchronise_phases
from ptycho_torch.scan import Scan

__all__ = ["PatchPredictor", "PatchRefiner", "data_misfit", "reconstruct", "whole_scan_container"]

_MOST_REFINEMENTS = 11
_CHUNK = 32  # groups at a time: bounds the memory, changes no result


@runtime_checkable
class PatchPredictor(Protocol):
    """Anything that sees a patch in a pattern."""

    def forward_predict(self, images: Amplitude, input_scale: GroupScale) -> Patches:
        """Estimate the patch of each pattern; its global phase is free."""
        ...


@runtime_checkable
class PatchRefiner(Protocol):
    """A predictor that can also improve patches cut out of a common object."""

    def refine(self, images: Amplitude, patches: Patches, input_scale: GroupScale) -> Patches:
        """Improve the patch of each pattern, keeping its global phase."""
        ...


def whole_scan_container(scan: Scan, config: DataConfig) -> PtychoDataContainerTorch:
    """Group a scan so that every position is in at least one group, and few are in many."""
    groups = all_groups(scan.xcoords, scan.ycoords, config.gridsize, config.neighbor_count, config.seed)
    return PtychoDataContainerTorch.from_groups(scan, _covering(groups), with_truth=False)


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

    With a model that can refine, the object is cut into patches again, these are improved against their patterns
    and placed anew: what was learned with groups on a small canvas, here on the canvas of the whole scan. That goes
    on as long as the patterns are explained better, which needs no truth to tell.

    Args:
        model: Patches in any one scale; a global phase of its own for each is allowed.
        container: Every group is used, in this order.
        config: Groups per batch; changes no result beyond rounding.
        synchronise: Align the global phases of the patches before the first placement.
        quiet: No progress bar.

    Returns:
        The object in the units of the container's probe, its weights, and where it lies.
    """
    patches = _predicted(model, container, config.batch_size)
    best = _placed(patches, container, synchronise=synchronise)
    if not isinstance(model, PatchRefiner):
        return best
    misfit = data_misfit(best, container)
    with tqdm(total=_MOST_REFINEMENTS, desc="Refining", unit="pass", disable=quiet) as bar:
        for _ in range(_MOST_REFINEMENTS):
            bar.set_postfix(misfit=f"{misfit:.4f}")
            refined = _placed(_refined(model, best, container, config.batch_size), container, synchronise=False)
            refined_misfit = data_misfit(refined, container)
            bar.update()
            if not refined_misfit < misfit:
                break
            best, misfit = refined, refined_misfit
    return best


@torch.no_grad()
def data_misfit(placement: Placement, container: PtychoDataContainerTorch) -> float:
    """Return sum |predicted - measured| / sum measured, over the amplitudes of every group.

    Args:
        placement: An object in the units of the container's probe.
        container: The patterns.
    """
    difference, total = 0.0, 0.0
    for images, patches in zip(container.images.split(_CHUNK), _cut(placement, container).split(_CHUNK), strict=True):
        probe = container.probe.expand(*images.shape[:2], *container.probe.shape)
        predicted = diffract(illuminate(patches, probe))
        difference += float((predicted - images).abs().sum(dtype=torch.float64))
        total += float(images.sum(dtype=torch.float64))
    return difference / total


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


def _predicted(model: PatchPredictor, container: PtychoDataContainerTorch, batch_size: int) -> Tensor:
    parts = [model.forward_predict(images, _scale(images, container)) for images in container.images.split(batch_size)]
    return torch.cat(parts)


def _refined(model: PatchRefiner, placement: Placement, container: PtychoDataContainerTorch, batch_size: int) -> Tensor:
    # The model works on objects of modulus about 1, the placement is in the units of the probe.
    patches = _cut(placement, container) / _object_scale(container)
    batches = zip(container.images.split(batch_size), patches.split(batch_size), strict=True)
    return torch.cat([model.refine(images, part, _scale(images, container)) for images, part in batches])


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


def _cut(placement: Placement, container: PtychoDataContainerTorch) -> Tensor:
    """Cut the object at every position; where it was never lit it is taken as flat, as the model's start is."""
    background = torch.full_like(placement.obj, _object_scale(container))
    obj = torch.where(placement.obj == 0, background, placement.obj).numpy()
    positions = container.positions.flatten(0, 1)[:, 0].numpy().astype(np.float64)
    row, column = placement.anchor
    patches = cut_patches(obj, positions[:, 0] - column, positions[:, 1] - row, container.images.shape[-1])
    return torch.from_numpy(patches).unflatten(0, container.images.shape[:2])
