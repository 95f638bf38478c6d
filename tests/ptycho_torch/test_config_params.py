"""Configurations: frozen, valid by construction, and plain JSON on the way to a bundle and back."""

import json
import pickle
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import numpy as np
import pytest

from ptycho_torch.config_params import (
    ConfigError,
    DataConfig,
    ModelConfig,
    TrainingConfig,
    closest,
    refuse_unknown,
)

DATA = DataConfig(gridsize=2, C=4, N=16, n_groups=7, neighbor_count=6, max_neighbor_distance=9.5, nphotons=1e5, seed=3)
MODEL = ModelConfig(gridsize=2, C=4, N=16, P=3, max_neighbor_distance=9.5)
TRAINING = TrainingConfig(gridsize=2, C=4, learning_rate=5e-4, loss="mae")
ALL = [DATA, MODEL, TRAINING]


@pytest.mark.parametrize("config", ALL, ids=lambda config: type(config).__name__)
def test_a_configuration_survives_json(config: Any) -> None:
    assert type(config).from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("config", ALL, ids=lambda config: type(config).__name__)
def test_every_missing_key_is_refused_by_name(config: Any) -> None:
    for declared in fields(config):
        values = config.to_dict()
        del values[declared.name]
        with pytest.raises(ConfigError, match=f"hold '{declared.name}'") as caught:
            type(config).from_dict(values)
        assert caught.value.key == declared.name


@pytest.mark.parametrize("config", ALL, ids=lambda config: type(config).__name__)
def test_every_value_of_the_wrong_type_is_refused_by_name(config: Any) -> None:
    for declared in fields(config):
        for wrong in (None, True, [1], {"a": 1}):
            with pytest.raises(ConfigError, match=f"Expected {declared.name} to be"):
                type(config).from_dict(config.to_dict() | {declared.name: wrong})


@pytest.mark.parametrize("config", ALL, ids=lambda config: type(config).__name__)
def test_c_that_is_not_gridsize_squared_is_refused(config: Any) -> None:
    with pytest.raises(ConfigError, match=r"C to be gridsize\*\*2 = 4, got C=1 with gridsize=2") as caught:
        replace(config, C=1)
    assert caught.value.key == "C"


def test_an_unknown_key_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError, match=r"got 'neighbour_count'\. Did you mean 'neighbor_count'") as caught:
        DataConfig.from_dict(DATA.to_dict() | {"neighbour_count": 6})
    assert caught.value.key == "neighbour_count"


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        DATA.C = 9  # type: ignore[misc]


OUT_OF_RANGE = [
    (DATA, "N", 1, "at least 2"),
    (DATA, "n_groups", 0, "at least 1"),
    (DATA, "neighbor_count", 3, "at least C"),
    (DATA, "max_neighbor_distance", -0.1, "at least 0"),
    (DATA, "max_neighbor_distance", float("nan"), "a finite number"),
    (DATA, "nphotons", 0.0, "greater than 0"),
    (DATA, "nphotons", float("inf"), "a finite number"),
    (DATA, "seed", -1, "at least 0"),
    (DATA, "gridsize", 0, "at least 1"),
    (MODEL, "P", 0, "at least 1"),
    (MODEL, "N", 16.0, "an integer"),
    (TRAINING, "batch_size", 0, "at least 1"),
    (TRAINING, "max_epochs", 2.5, "an integer"),
    (TRAINING, "learning_rate", 0, "greater than 0"),
    (TRAINING, "learning_rate", "1e-3", "a finite number"),
    (TRAINING, "loss", "Poisson", "one of 'poisson', 'mae'"),
    (TRAINING, "accelerator", "gpus", "one of 'auto', 'cpu'"),
    (TRAINING, "num_workers", -1, "at least 0"),
    (TRAINING, "devices", 0, "at least 1"),
    (TRAINING, "early_stopping_patience", 0, "at least 1"),
]


@pytest.mark.parametrize(("config", "key", "value", "said"), OUT_OF_RANGE, ids=lambda value: str(value)[:24])
def test_a_value_out_of_range_is_refused_by_name(config: Any, key: str, value: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=f"Expected {key} to be {said}") as caught:
        replace(config, **{key: value})
    assert caught.value.key == key


@pytest.mark.parametrize(
    ("config", "key", "value"),
    [(DATA, "neighbor_count", 4), (DATA, "max_neighbor_distance", 0), (DATA, "seed", 0), (TRAINING, "num_workers", 0)],
)
def test_the_limit_itself_is_accepted(config: Any, key: str, value: Any) -> None:
    assert getattr(replace(config, **{key: value}), key) == value


def test_numbers_of_other_libraries_become_plain_ones() -> None:
    config = replace(DATA, N=np.int64(16), nphotons=np.float64(1e5), max_neighbor_distance=9)
    assert [type(config.N), type(config.nphotons), type(config.max_neighbor_distance)] == [int, float, float]
    json.dumps(config.to_dict())


def test_the_nearest_word_is_offered_only_when_it_is_near() -> None:
    assert closest("batchsize", ["batch_size", "seed"]) == " Did you mean 'batch_size'?"
    assert closest("zzz", ["batch_size", "seed"]) == ""


def test_known_keys_are_not_refused() -> None:
    refuse_unknown(["seed"], ["batch_size", "seed"], "nobody")


def test_a_configuration_error_survives_being_sent_between_processes() -> None:
    copy = pickle.loads(pickle.dumps(ConfigError("Expected a, got b.", "seed")))
    assert (str(copy), copy.key) == ("Expected a, got b.", "seed")
