"""The groups of an epoch in batches, and each process's share of every batch.

The order of the groups and the batches they form do not depend on how many processes share them, so neither does what
is learned: a batch is split over the processes, and each share counts as much as there is in it.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch.utils.data import BatchSampler, DataLoader, Sampler

__all__ = ["EpochOrder", "Share", "SharedBatches", "share_of"]


class Share(NamedTuple):
    """How much of a batch this process has."""

    counted: int  # its groups times the processes, so that the mean over these is a whole number; may be 0
    weight: float  # of a mean over the share, in the mean of such means over the processes


class EpochOrder(Sampler[int]):
    """The order in which an epoch uses groups; that of any epoch is known without those before it.

    Args:
        n_groups: How many there are.
        shuffle: Whether each epoch has an order of its own; by default that of the groups.
        seed: Of the orders.
    """

    def __init__(self, n_groups: int, *, shuffle: bool = False, seed: int = 0) -> None:
        self._n_groups, self._shuffle, self._seed, self._epoch = n_groups, shuffle, seed, 0

    def __len__(self) -> int:
        return self._n_groups

    def __iter__(self) -> Iterator[int]:
        if not self._shuffle:
            return iter(range(self._n_groups))
        order = np.random.default_rng((self._seed, self._epoch)).permutation(self._n_groups)
        return iter(order.tolist())

    def set_epoch(self, epoch: int) -> None:
        """Take the order of another epoch; Lightning calls this before each."""
        self._epoch = epoch


class SharedBatches(BatchSampler):
    """One process's share of every batch.

    A batch that does not divide evenly gives the first processes one group more. Where there are fewer groups than
    processes the rest repeat one, with weight 0: all must take the same steps.

    Args:
        order: Of the groups of an epoch.
        batch_size: Groups in a whole batch; the last of an epoch may have fewer.
        rank: Number of this process.
        n_ranks: How many processes there are.
    """

    def __init__(self, order: EpochOrder, batch_size: int, rank: int = 0, n_ranks: int = 1) -> None:
        super().__init__(order, batch_size, drop_last=False)
        self._n_groups = len(order)
        self._rank, self._n_ranks = rank, n_ranks

    def __iter__(self) -> Iterator[list[int]]:
        for batch in super().__iter__():
            start = sum(_share_sizes(len(batch), self._n_ranks)[: self._rank])
            yield batch[start : start + _share_sizes(len(batch), self._n_ranks)[self._rank]] or batch[:1]

    def share(self, batch_idx: int) -> Share:
        """Return how much of the batch of this index in the epoch is this process's."""
        whole = min(self.batch_size, self._n_groups - batch_idx * self.batch_size)
        counted = _share_sizes(whole, self._n_ranks)[self._rank] * self._n_ranks
        return Share(counted, counted / whole)


def share_of(loader: DataLoader | None, batch_idx: int) -> Share | None:
    """Return how much of a batch of a loader is this process's; None where its batches are not shared."""
    sampler = None if loader is None else loader.batch_sampler
    return sampler.share(batch_idx) if isinstance(sampler, SharedBatches) else None


def _share_sizes(n_groups: int, n_ranks: int) -> list[int]:
    each, more = divmod(n_groups, n_ranks)
    return [each + (rank < more) for rank in range(n_ranks)]
