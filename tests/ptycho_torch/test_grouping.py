"""Groups of neighbouring positions: who is in them, which way offsets point, and what a canvas must hold."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from ptycho_torch.config_params import ConfigError
from ptycho_torch.grouping import Groups, group_positions, largest_neighbor_distance
from ptycho_torch.helper import padded_size
from shapecheck import ContractError


def make_positions(n: int = 23, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 40, n), rng.uniform(100, 130, n)


def naive_nearest(x: np.ndarray, y: np.ndarray, seed_position: int, count: int) -> set[int]:
    distances = [((x[i] - x[seed_position]) ** 2 + (y[i] - y[seed_position]) ** 2, i) for i in range(len(x))]
    return {i for _, i in sorted(distances)[:count]}


@pytest.mark.parametrize(("gridsize", "neighbor_count"), [(1, 1), (2, 4), (2, 7), (3, 9), (3, 12)])
def test_members_are_distinct_and_among_the_nearest_of_their_seed(gridsize: int, neighbor_count: int) -> None:
    x, y = make_positions()
    groups = group_positions(x, y, gridsize, neighbor_count, 17, 5)
    assert groups.nn_indices.shape == (17, gridsize**2)
    for members in groups.nn_indices:
        assert len(set(members)) == gridsize**2
        assert set(members) <= naive_nearest(x, y, members[0], neighbor_count)


@pytest.mark.parametrize("gridsize", [1, 2, 3])
def test_offsets_are_minus_position_minus_mean_in_the_order_x_y(gridsize: int) -> None:
    x, y = make_positions()
    groups = group_positions(x, y, gridsize, 10, 6, 1)
    for g, members in enumerate(groups.nn_indices):
        for c, member in enumerate(members):
            assert groups.coords_relative[g, 0, 0, c] == pytest.approx(-(x[member] - x[members].mean()), abs=1e-5)
            assert groups.coords_relative[g, 0, 1, c] == pytest.approx(-(y[member] - y[members].mean()), abs=1e-5)
        assert groups.coords_offsets[g, 0, 0, 0] == pytest.approx(x[members].mean())
        assert groups.coords_offsets[g, 0, 1, 0] == pytest.approx(y[members].mean())
    assert (groups.coords_relative.dtype, groups.coords_offsets.dtype) == (np.float32, np.float64)
    np.testing.assert_allclose(groups.coords_relative.mean(axis=-1), 0, atol=1e-6)


def test_members_are_spread_over_all_the_nearest() -> None:
    x, y = make_positions()
    groups = group_positions(x, y, 2, 6, 23 * 40, 3)
    for seed_position in range(23):
        mine = groups.nn_indices[groups.nn_indices[:, 0] == seed_position]
        assert set(mine.ravel()) == naive_nearest(x, y, seed_position, 6)


@pytest.mark.parametrize("n_groups", [1, 9, 23])
def test_seeds_do_not_repeat_while_there_are_enough_positions(n_groups: int) -> None:
    groups = group_positions(*make_positions(), 2, 6, n_groups, 0)
    assert len(set(groups.nn_indices[:, 0])) == n_groups


def test_with_more_groups_than_positions_each_is_a_seed_before_any_is_twice() -> None:
    groups = group_positions(*make_positions(), 2, 8, 23 + 5, 0)
    assert sorted(groups.nn_indices[:23, 0]) == list(range(23))
    assert len(set(groups.nn_indices[23:, 0])) == 5


def test_repeated_seeds_draw_their_members_anew() -> None:
    groups = group_positions(*make_positions(), 2, 10, 23 * 4, 0)
    distinct = {tuple(sorted(members)) for members in groups.nn_indices.tolist()}
    assert len(distinct) > 23 * 3


def test_with_one_channel_the_groups_are_the_positions() -> None:
    x, y = make_positions()
    groups = group_positions(x, y, 1, 5, 23, 0)
    assert sorted(groups.nn_indices[:, 0]) == list(range(23))
    assert not groups.coords_relative.any()
    np.testing.assert_array_equal(groups.coords_offsets[:, 0, 0, 0], x[groups.nn_indices[:, 0]])
    np.testing.assert_array_equal(groups.coords_offsets[:, 0, 1, 0], y[groups.nn_indices[:, 0]])
    assert groups.max_neighbor_distance == 0


def test_the_same_seed_gives_the_same_groups_and_another_gives_others() -> None:
    positions = make_positions()
    first, again, other = (group_positions(*positions, 2, 7, 12, seed) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first.nn_indices, again.nn_indices)
    assert not np.array_equal(first.nn_indices, other.nn_indices)


def test_the_global_generator_is_neither_read_nor_moved() -> None:
    np.random.seed(1)
    before = np.random.get_state()[1].tolist()
    first = group_positions(*make_positions(), 2, 7, 12, 4)
    assert np.random.get_state()[1].tolist() == before
    np.random.seed(2)
    np.testing.assert_array_equal(first.nn_indices, group_positions(*make_positions(), 2, 7, 12, 4).nn_indices)


def test_positions_that_coincide_still_give_distinct_members_around_the_seed() -> None:
    x, y = np.repeat([1.0, 2.0, 9.0], 6), np.repeat([3.0, 4.0, 1.0], 6)
    for groups in (group_positions(x, y, 2, 4, 18, 0), group_positions(x, y, 2, 5, 40, 0)):
        assert all(len(set(members)) == 4 for members in groups.nn_indices.tolist())
        assert set(groups.nn_indices[:, 0].tolist()) == set(range(18))


def test_a_group_may_take_every_position_there_is() -> None:
    groups = group_positions(*make_positions(4), 2, 4, 3, 0)
    assert all(sorted(members) == [0, 1, 2, 3] for members in groups.nn_indices.tolist())


@pytest.mark.parametrize("gridsize", [1, 2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_the_derived_distance_gives_a_canvas_that_holds_every_offset(gridsize: int, seed: int) -> None:
    groups = group_positions(*make_positions(seed=seed), gridsize, 11, 30, seed)
    canvas = padded_size(16, gridsize, groups.max_neighbor_distance)
    assert np.abs(groups.coords_relative).max() <= (canvas - 16) / 2


@pytest.mark.parametrize(("gridsize", "step"), [(2, 6.0), (2, 7.0), (3, 6.0), (3, 5.0)])
def test_on_an_exact_raster_the_derived_canvas_holds_and_is_the_smallest(gridsize: int, step: float) -> None:
    column, row = np.meshgrid(np.arange(gridsize) * step, np.arange(gridsize) * step)
    x, y = column.ravel(), row.ravel()
    groups = group_positions(x, y, gridsize, gridsize**2, 1, 0)
    largest = (gridsize - 1) * step / 2
    assert np.abs(groups.coords_relative).max() == largest
    canvas = padded_size(16, gridsize, groups.max_neighbor_distance)
    assert largest <= (canvas - 16) / 2
    smaller = canvas - 2 * (gridsize - 1)
    assert smaller < 16 or largest > (smaller - 16) / 2


@pytest.mark.parametrize(("gridsize", "neighbor_count"), [(1, 3), (2, 4), (2, 6), (3, 9), (3, 10)])
def test_the_largest_distance_is_that_of_the_worst_group_that_can_be_drawn(gridsize: int, neighbor_count: int) -> None:
    x, y = make_positions(11)
    worst = 0.0
    for seed_position in range(11):
        others = naive_nearest(x, y, seed_position, neighbor_count) - {seed_position}
        for chosen in combinations(others, gridsize**2 - 1):
            members = [seed_position, *chosen]
            worst = max(worst, *np.abs(x[members] - x[members].mean()), *np.abs(y[members] - y[members].mean()))
    expected = 0.0 if gridsize == 1 else 2 * worst / (gridsize - 1)
    assert largest_neighbor_distance(x, y, gridsize, neighbor_count) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("gridsize", [1, 2, 3])
def test_no_drawn_group_needs_more_than_the_largest_distance(gridsize: int) -> None:
    x, y = make_positions()
    bound = largest_neighbor_distance(x, y, gridsize, 10)
    for seed in range(10):
        assert group_positions(x, y, gridsize, 10, 60, seed).max_neighbor_distance <= bound


REFUSED = {
    "K < C": ({"gridsize": 2, "neighbor_count": 3}, "neighbor_count", "at least C = gridsize\\*\\*2 = 4, got 3"),
    "K > S": ({"gridsize": 2, "neighbor_count": 24}, "neighbor_count", "at most the 23 positions of the scan, got 24"),
    "no group": ({"n_groups": 0}, "n_groups", "at least 1, got 0"),
    "no grid": ({"gridsize": 0}, "gridsize", "at least 1, got 0"),
}


@pytest.mark.parametrize(("changed", "key", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_grouped_is_refused_by_key(changed: dict[str, int], key: str, said: str) -> None:
    x, y = make_positions()
    settings = {"gridsize": 2, "neighbor_count": 6, "n_groups": 5, "seed": 0} | changed
    with pytest.raises(ConfigError, match=f"Expected {key} to be {said}") as caught:
        group_positions(x, y, **settings)
    assert caught.value.key == key


def test_the_limits_themselves_are_accepted() -> None:
    x, y = make_positions()
    assert len(group_positions(x, y, 2, 4, 1, 0).nn_indices) == 1
    assert len(group_positions(x, y, 2, 23, 1, 0).nn_indices) == 1


def test_no_distance_holds_groups_of_too_few_neighbours() -> None:
    with pytest.raises(ConfigError, match="neighbor_count"):
        largest_neighbor_distance(*make_positions(), 2, 3)
    assert largest_neighbor_distance(*make_positions(), 2, 4) > 0


@pytest.mark.violation
def test_coordinates_of_different_length_are_a_violation() -> None:
    x, y = make_positions()
    with pytest.raises(ContractError, match="ycoords"):
        group_positions(x, y[1:], 2, 6, 5, 0)


@pytest.mark.violation
def test_groups_in_another_layout_are_a_violation() -> None:
    good = group_positions(*make_positions(), 2, 6, 5, 0)
    with pytest.raises(ContractError, match="coords_relative"):
        Groups(good.nn_indices, np.moveaxis(good.coords_relative, -1, 1), good.coords_offsets, 1.0)


@pytest.mark.parametrize(("case", "gridsize"), [("g1_K4", 1), ("g2_K4", 2), ("g2_K6", 2)])
def test_offsets_agree_with_the_recorded_reference(shared: Path, case: str, gridsize: int) -> None:
    vectors = np.load(shared / "reference" / "grouping.npz")
    recorded = {
        name: vectors[f"rawdata_{case}__{name}"] for name in ("coords_relative", "coords_offsets", "nn_indices")
    }
    tolerance = 2e-5 * max(np.abs(recorded["coords_relative"]).max(), 1)
    for g, members in enumerate(recorded["nn_indices"]):
        x, y = vectors["rawdata__x"][members], vectors["rawdata__y"][members]
        mine = group_positions(x, y, gridsize, gridsize**2, 1, 0)
        expected = recorded["coords_relative"][g][..., mine.nn_indices[0]]
        np.testing.assert_allclose(mine.coords_relative[0], expected, atol=tolerance)
        np.testing.assert_allclose(mine.coords_offsets[0], recorded["coords_offsets"][g])
