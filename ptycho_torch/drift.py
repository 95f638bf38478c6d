"""The historical bug, replayed: a loader that hands out offsets in the layout of the file.

Legacy containers hold `coords_relative` channel last, (B, 1, 2, C); everything in the package expects (B, C, 1, 2). The
number of elements is the same, so nothing but a contract notices where it happens. `replay` runs the same wrong loader
into the same merge, with checking on and off, and reports what really occurred.
"""

import traceback
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch.utils.data import DataLoader

from ptycho_torch.contracts import Batch
from ptycho_torch.dataloader import PtychoDataContainerTorch, PtychoGroupDataset, as_it_is, batch_contract
from ptycho_torch.grouping import group_positions
from ptycho_torch.helper import padded_size, probe_weights, reassemble_patches_position_real
from ptycho_torch.scan import Scan
from shapecheck import ContractError, enabled, mode

__all__ = ["ChannelLastDataset", "Replay", "describe", "drifted_loader", "replay"]

CHANNELS = (1, 2, 4)
GROUPS = 8
_GRIDSIZE = 2  # gives four members, of which fewer are used where fewer are wanted
_PACKAGE = "ptycho_torch"


class ChannelLastDataset(PtychoGroupDataset):
    """The dataset as it was before the fix: offsets leave it as they stand in the file."""

    def coords_relative(self, chosen: torch.Tensor) -> torch.Tensor:
        """Return the offsets of the chosen groups, channel last."""
        return super().coords_relative(chosen).permute(0, 2, 3, 1).contiguous()


@dataclass(frozen=True)
class Geometry:
    """The dims that a batch is held to."""

    C: int
    N: int  # pixels


@dataclass(frozen=True)
class Replay:
    """What became of one drifted batch.

    Attributes:
        channels: C.
        offsets_shape: Of the drifted offsets.
        refusal: The error with checking on; None where checking is off in this process.
        crash: With checking off: what was raised, and through which functions; None where nothing was.
        merge_error: With checking off and no crash: |wrong merge - right merge| / |right merge|, over the canvas.
    """

    channels: int
    offsets_shape: tuple[int, ...]
    refusal: str | None
    crash: str | None
    merge_error: float | None


def replay(scan: Scan, channels: int, seed: int = 0) -> Replay:
    """Send one drifted batch on its way twice: with checking on and with checking off.

    Args:
        scan: Simulated, so that true patches can be merged and any error is that of the drift alone.
        channels: C; 1, 2 or 4.
        seed: Of the groups.

    Raises:
        ValueError: The scan does not know its object.
    """
    stage = _stage(scan, channels, seed)
    loader = drifted_loader(stage.container)
    refusal = _refusal(loader) if enabled() else None
    with mode("off"):
        wrong_batch, right_batch = next(iter(loader)), next(iter(_loader(PtychoGroupDataset(stage.container))))
        offsets_shape = tuple(wrong_batch[0]["coords_relative"].shape)
        try:
            wrong = _merge(wrong_batch, stage)
        except RuntimeError as error:
            return Replay(channels, offsets_shape, refusal, _told(error), None)
        right = _merge(right_batch, stage)
    return Replay(channels, offsets_shape, refusal, None, float((wrong - right).norm() / right.norm()))


def drifted_loader(container: PtychoDataContainerTorch) -> DataLoader:
    """Return the shipped loader over the historical dataset: one batch of all groups, contract in place."""
    return _loader(ChannelLastDataset(container))


def describe(outcome: Replay) -> str:
    """Return what happened as text, for a person."""
    lines = [f"C = {outcome.channels}: the loader emits coords_relative {outcome.offsets_shape}", "  checking on:"]
    refusal = outcome.refusal or "not shown: SHAPECHECK=off in this process"
    lines += [f"    {line}" for line in refusal.splitlines()]
    lines.append("  checking off:")
    if outcome.crash is not None:
        lines += [f"    {line}" for line in outcome.crash.splitlines()]
    else:
        lines.append(f"    no error at all: the merged object is wrong by {outcome.merge_error:.1%} of its norm")
    return "\n".join(lines)


class _Stage(NamedTuple):
    """What the bug is played on."""

    container: PtychoDataContainerTorch
    patches: torch.Tensor  # true ones
    canvas_size: int  # pixels


def _stage(scan: Scan, channels: int, seed: int) -> _Stage:
    """Group a scan with any number of channels up to four."""
    neighbors = min(_GRIDSIZE**2 + 2, scan.n_positions)
    groups = group_positions(scan.xcoords, scan.ycoords, _GRIDSIZE, neighbors, GROUPS, seed)
    whole = PtychoDataContainerTorch.from_groups(scan, groups)
    if whole.patches_truth is None:
        msg = "Expected a simulated scan, which knows its object, got one without object_truth."
        raise ValueError(msg)
    offsets = whole.coords_relative[:, :channels]
    shift = offsets.mean(dim=1, keepdim=True)  # fewer members have another mean
    container = replace(
        whole,
        images=whole.images[:, :channels].contiguous(),
        coords_relative=offsets - shift,
        coords_center=whole.coords_center - shift,
        nn_indices=whole.nn_indices[:, :channels].contiguous(),
        patches_truth=None,
    )
    # Twice the distance: fewer members can lie farther from their own mean than four do from theirs.
    canvas_size = padded_size(scan.N, _GRIDSIZE, 2 * groups.max_neighbor_distance)
    return _Stage(container, whole.patches_truth[:, :channels].contiguous(), canvas_size)


def _loader(dataset: PtychoGroupDataset) -> DataLoader:
    geometry = Geometry(C=dataset.container.nn_indices.shape[1], N=dataset.container.probe.shape[-1])
    return batch_contract(geometry).loader(DataLoader(dataset, batch_size=len(dataset), collate_fn=as_it_is))


def _refusal(loader: DataLoader) -> str | None:
    try:
        next(iter(loader))
    except ContractError as error:
        return str(error)
    return "no error: the contract did not notice"


def _merge(batch: Batch, stage: _Stage) -> torch.Tensor:
    fields, probe, _ = batch
    merged, _ = reassemble_patches_position_real(
        stage.patches, fields["coords_relative"], stage.canvas_size, probe_weights(probe)
    )
    return merged


def _told(error: RuntimeError) -> str:
    """Return an error as its first line and the functions of this package that it came up through."""
    frames = traceback.extract_tb(error.__traceback__)
    passed = [frame.name for frame in frames if f"/{_PACKAGE}/" in frame.filename.replace("\\", "/")]
    reached = passed[passed.index(_merge.__name__) + 1 :]
    return (
        f"{type(error).__name__}: {str(error).splitlines()[0]}\n"
        f"raised {len(reached)} calls after the loader: {' -> '.join(reached)}"
    )
