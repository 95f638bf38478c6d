"""Scan positions to groups of neighbours. Owns the choice of members and the sign of offsets.

Coordinates come as two vectors and leave in the legacy channel-last layout; `dataloader` converts them, once.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from ptycho_torch.config_params import ConfigError
from ptycho_torch.contracts import GroupedCentersLast, GroupedIndices, GroupedOffsetsLast, ScanX, ScanY
from shapecheck import contract

__all__ = [
    "Groups",
    "group_positions",
    "largest_neighbor_distance",
]


@contract
@dataclass(frozen=True)
class Groups:
    """Groups of neighbouring scan positions, channel last.

    Attributes:
        nn_indices: Scan position of each member; channel 0 is the seed of the group.
        coords_relative: Pixels, order (x, y), ``-(position - mean of the group)``; the mean over a group is 0.
        coords_offsets: Pixels, order (x, y), mean position of the group.
        max_neighbor_distance: Pixels. The smallest value for which the canvas of a group,
            ``N + (gridsize - 1) * even_ceil(max_neighbor_distance)``, holds every one of these groups.
    """

    nn_indices: GroupedIndices
    coords_relative: GroupedOffsetsLast
    coords_offsets: GroupedCentersLast
    max_neighbor_distance: float


@contract
def group_positions(
    xcoords: ScanX,
    ycoords: ScanY,
    gridsize: int,
    neighbor_count: int,
    n_groups: int,
    seed: int,
) -> Groups:
    """Draw groups of ``gridsize**2`` neighbouring positions.

    Each group is a seed position and distinct members drawn, uniformly and without regard to order, from the
    seed's ``neighbor_count`` nearest positions. The seed counts as its own nearest neighbour. Seeds are drawn
    without replacement; where more groups than positions are asked for, every position is a seed once before any is
    twice, and each time its members are drawn anew (with ``gridsize`` 1 there is nothing to draw: positions repeat).

    Args:
        xcoords: Column of each patch centre, object pixels.
        ycoords: Row of each patch centre, object pixels.
        gridsize: Side of the square whose area is the number of members.
        neighbor_count: K, at least ``gridsize**2`` and at most the number of positions.
        n_groups: Groups to draw, at least 1.
        seed: Of the generator used here; the global one is neither read nor moved.

    Raises:
        ConfigError: Names the argument that cannot be honoured.
    """
    _check_arguments(gridsize, neighbor_count, len(xcoords))
    if n_groups < 1:
        msg = f"Expected n_groups to be at least 1, got {n_groups}."
        raise ConfigError(msg, "n_groups")
    generator = np.random.default_rng(seed)
    rounds = -(-n_groups // len(xcoords))
    seeds = np.concatenate([generator.permutation(len(xcoords)) for _ in range(rounds)])[:n_groups]
    candidates = _nearest(xcoords, ycoords, neighbor_count)[seeds]
    members = _drawn(candidates, gridsize**2, generator).astype(np.int64)
    return _describe(members, xcoords, ycoords, gridsize)


@contract
def largest_neighbor_distance(xcoords: ScanX, ycoords: ScanY, gridsize: int, neighbor_count: int) -> float:
    """Return the ``max_neighbor_distance`` that holds every group these settings could ever draw.

    `Groups.max_neighbor_distance` covers the groups at hand. This bound does not depend on seed or number of
    groups, so that a canvas sized by it also serves the groups drawn for validation.

    Raises:
        ConfigError: Names the argument that cannot be honoured.
    """
    _check_arguments(gridsize, neighbor_count, len(xcoords))
    neighbors = _nearest(xcoords, ycoords, neighbor_count)
    axes = (xcoords, -xcoords, ycoords, -ycoords)
    offset = max(_largest_excess(axis[neighbors], gridsize**2) for axis in axes)
    return _distance_holding(offset, gridsize)


def _check_arguments(gridsize: int, neighbor_count: int, n_positions: int) -> None:
    if gridsize < 1:
        msg = f"Expected gridsize to be at least 1, got {gridsize}."
        raise ConfigError(msg, "gridsize")
    if neighbor_count < gridsize**2:
        msg = f"Expected neighbor_count to be at least C = gridsize**2 = {gridsize**2}, got {neighbor_count}."
        raise ConfigError(msg, "neighbor_count")
    if neighbor_count > n_positions:
        msg = f"Expected neighbor_count to be at most the {n_positions} positions of the scan, got {neighbor_count}."
        raise ConfigError(msg, "neighbor_count")


def _nearest(xcoords: np.ndarray, ycoords: np.ndarray, neighbor_count: int) -> np.ndarray:
    """Return the nearest positions of each position, itself in column 0."""
    points = np.stack([xcoords, ycoords], axis=1)
    _, found = KDTree(points).query(points, k=neighbor_count)
    found = np.reshape(found, (len(points), neighbor_count))  # the tree drops the axis of a single neighbour
    itself = np.arange(len(points))[:, None]
    # Where positions coincide the tree may list a twin before the position itself, or leave itself out.
    others_first = np.argsort(found == itself, axis=1, kind="stable")
    others = np.take_along_axis(found, others_first, axis=1)[:, : neighbor_count - 1]
    return np.concatenate([itself, others], axis=1)


def _drawn(candidates: np.ndarray, channels: int, generator: np.random.Generator) -> np.ndarray:
    """Draw members of each group from its candidates, of which the first is always drawn, first."""
    lots = generator.random(candidates.shape)
    lots[:, 0] = -1
    return np.take_along_axis(candidates, np.argsort(lots, axis=1)[:, :channels], axis=1)


def _describe(members: np.ndarray, xcoords: np.ndarray, ycoords: np.ndarray, gridsize: int) -> Groups:
    positions = np.stack([xcoords[members], ycoords[members]], axis=1)[:, None]  # (G, 1, 2, C)
    centers = positions.mean(axis=-1, keepdims=True)
    relative = (centers - positions).astype(np.float32)
    return Groups(
        nn_indices=members,
        coords_relative=relative,
        coords_offsets=centers,
        max_neighbor_distance=_distance_holding(float(np.abs(relative).max()), gridsize),
    )


def _distance_holding(largest_offset: float, gridsize: int) -> float:
    """Invert the canvas rule: the room on each side is ``(gridsize - 1) * even_ceil(distance) / 2``."""
    return 0.0 if gridsize == 1 else 2 * largest_offset / (gridsize - 1)


def _largest_excess(coordinates: np.ndarray, channels: int) -> float:
    """Return the largest ``member - mean of its group`` over all groups, for one axis, seed in column 0."""
    if channels == 1:
        return 0.0
    seed, others = coordinates[:, 0], np.sort(coordinates[:, 1:], axis=1)
    lowest = others[:, : channels - 1].sum(axis=1)
    seed_farthest = seed - (seed + lowest) / channels
    rest = others[:, : channels - 2].sum(axis=1)
    member_farthest = others[:, -1] - (seed + others[:, -1] + rest) / channels
    # Offsets are stored as float32: rounding is monotone, so the rounded bound bounds the rounded offsets.
    return float(np.float32(max(seed_farthest.max(), member_farthest.max())))
