"""Phases that agree: what fits together is found, and what contradicts itself is shared by what it says."""

import numpy as np
import pytest

from ptycho_torch.phases import phases_that_agree


def told(phases: np.ndarray, ends: list[tuple[int, int]], weights: list[float]) -> np.ndarray:
    """What the overlaps of tiles tell that are all the same object, each turned by its own phase."""
    return np.array(
        [weight * np.exp(1j * (phases[b] - phases[a])) for (a, b), weight in zip(ends, weights, strict=True)]
    )


LINKS = [(0, 1), (1, 2), (0, 3), (3, 4), (1, 4), (2, 4)]


def test_phases_that_fit_together_are_found(rng):
    phases = rng.uniform(-np.pi, np.pi, 5)
    turns = phases_that_agree(told(phases, LINKS, [3.0, 0.1, 2.0, 1.0, 5.0, 0.7]), np.array(LINKS), 5)
    np.testing.assert_allclose(turns * np.exp(1j * phases), np.exp(1j * phases[0]), atol=1e-6)
    assert turns[0] == 1


def test_tiles_that_never_meet_keep_their_phases(rng):
    phases, links = rng.uniform(-np.pi, np.pi, 5), [(1, 3), (2, 4)]
    turns = phases_that_agree(told(phases, links, [1.0, 1.0]), np.array(links), 5)
    assert turns[0] == turns[1] == turns[2] == 1
    np.testing.assert_allclose(np.angle(turns[3] * np.exp(1j * (phases[3] - phases[1]))), 0, atol=1e-6)
    alone = phases_that_agree(np.zeros(0, complex), np.zeros((0, 2), np.int64), 3)
    assert alone.tolist() == [1, 1, 1]


def test_links_that_contradict_each_other_share_the_difference_by_what_they_say():
    products = np.exp(1j * np.array([0.0, 0.0, 0.3])) * [1.0, 1.0, 0.5]  # around a ring: 0.3 radians too many
    turns = phases_that_agree(products, np.array([(0, 1), (1, 2), (0, 2)]), 3)
    angles = np.angle(turns)

    def cost(second: float, third: float) -> float:
        return second**2 + (third - second) ** 2 + 0.5 * (third + 0.3) ** 2

    around = [cost(angles[1] + a, angles[2] + b) for a in (-1e-3, 0, 1e-3) for b in (-1e-3, 0, 1e-3)]
    assert min(around) == around[4]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
