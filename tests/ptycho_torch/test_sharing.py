"""Batches that do not depend on how many processes share them."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from ptycho_torch.sharing import EpochOrder, Share, SharedBatches, share_of

SIZES = [(1, 1), (2, 3), (5, 2), (12, 4), (13, 4), (13, 5), (14, 5)]  # groups, batch size
RANKS = [1, 2, 3, 4]


def batches_of(n_groups: int, batch_size: int, rank: int = 0, n_ranks: int = 1, **options: int) -> SharedBatches:
    return SharedBatches(EpochOrder(n_groups, **options), batch_size, rank, n_ranks)


@pytest.mark.parametrize("n_ranks", RANKS)
@pytest.mark.parametrize(("n_groups", "batch_size"), SIZES)
def test_the_shares_of_a_batch_put_together_are_the_batch_of_one_process(n_groups, batch_size, n_ranks):
    alone = list(batches_of(n_groups, batch_size, shuffle=True, seed=7))
    shared = [batches_of(n_groups, batch_size, rank, n_ranks, shuffle=True, seed=7) for rank in range(n_ranks)]
    shares = [list(batches) for batches in shared]
    assert [len(batches) for batches in shared] == [len(alone)] * n_ranks
    assert sorted(group for batch in alone for group in batch) == list(range(n_groups))
    for index, batch in enumerate(alone):
        counts = [batches.share(index).counted // n_ranks for batches in shared]
        together = [own[index][:count] for own, count in zip(shares, counts, strict=True)]
        assert [group for share in together for group in share] == batch
        assert max(counts) - min(counts) <= 1
        assert all(own[index] for own in shares)  # nobody has nothing to do: all take the same steps


@pytest.mark.parametrize("n_ranks", RANKS)
@pytest.mark.parametrize(("n_groups", "batch_size"), SIZES)
def test_weighted_means_over_the_shares_average_to_the_mean_over_the_batch(n_groups, batch_size, n_ranks):
    losses = np.random.default_rng(0).uniform(1, 2, n_groups)
    for index, batch in enumerate(batches_of(n_groups, batch_size)):
        means = []
        for rank in range(n_ranks):
            shared = batches_of(n_groups, batch_size, rank, n_ranks)
            means.append(shared.share(index).weight * losses[list(shared)[index]].mean())
        assert np.mean(means) == pytest.approx(losses[batch].mean(), rel=1e-14)


def test_alone_a_process_has_all_of_every_batch():
    batches = batches_of(13, 4)
    assert [batches.share(index) for index in range(4)] == [Share(4, 1.0), Share(4, 1.0), Share(4, 1.0), Share(1, 1.0)]


def test_the_order_of_an_epoch_depends_on_seed_and_epoch_alone():
    def order(seed: int, epoch: int) -> list[int]:
        torch.manual_seed(epoch)
        order = EpochOrder(50, shuffle=True, seed=seed)
        order.set_epoch(epoch)
        assert list(order) == list(order)
        return list(order)

    orders = [order(seed, epoch) for seed in range(3) for epoch in range(3)]
    assert len({tuple(each) for each in orders}) == 9
    assert all(sorted(each) == list(range(50)) for each in orders)
    later = EpochOrder(50, shuffle=True, seed=1)
    for epoch in (0, 2, 1):  # whatever came before
        later.set_epoch(epoch)
        assert list(later) == orders[3 + epoch]


def test_without_shuffling_every_epoch_has_the_order_of_the_groups():
    order = EpochOrder(5)
    order.set_epoch(3)
    assert list(order) == [0, 1, 2, 3, 4]


def test_a_loader_tells_the_share_of_its_batches_and_one_whose_batches_are_not_shared_tells_none():
    shared = DataLoader(torch.arange(13), batch_sampler=batches_of(13, 4, 1, 2))
    assert [share_of(shared, index) for index in (0, 3)] == [Share(4, 1.0), Share(0, 0.0)]
    assert share_of(DataLoader(torch.arange(13), batch_size=4), 0) is None
    assert share_of(None, 0) is None
