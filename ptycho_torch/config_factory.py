"""User input and a scan file to validated configurations. The precedence table lives here.

For every key the first that applies wins:

1. the user's override, refused by name where it contradicts the file, ``gridsize`` or the grouping;
2. what the file says: ``N``, ``P``, ``nphotons`` (its mean counts per pattern);
3. what follows: ``C = gridsize**2``, ``max_neighbor_distance`` from the positions of the scan, ``neighbor_count``
   = ``C + 2`` (1 for ``gridsize`` 1), at most the positions there are;
4. the default declared in `config_params`; ``gridsize`` is 6, or what a scan of fewer than 36 patterns has room for.

``n_groups`` has no default: how much of a scan is used is the user's to say.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ptycho_torch.config_params import (
    ConfigError,
    DataConfig,
    ModelConfig,
    TrainingConfig,
    refuse_unknown,
    validated,
)
from ptycho_torch.grouping import largest_neighbor_distance
from ptycho_torch.helper import padded_size
from ptycho_torch.scan import ScanOnDisk, open_scan, pattern_energies

__all__ = [
    "Setting",
    "TrainingPayload",
    "create_training_payload",
    "expect_folder",
    "override_keys",
]

DEFAULT_GRIDSIZE = 6  # fewer patterns tell too little of an object to learn from; many more fill the memory
EXTRA_NEIGHBORS = 2  # beyond C: enough choice for varied groups, few enough to keep the canvas small
_Config = TypeVar("_Config", DataConfig, ModelConfig, TrainingConfig)
_CONFIGS = (DataConfig, ModelConfig, TrainingConfig)


class Setting(NamedTuple):
    """How the value of one key came about.

    Attributes:
        default: What would be used had the user said nothing; None where the user must say.
        used: What is used.
        source: "override", "file", "derived" or "default".
    """

    default: Any
    used: Any
    source: str


@dataclass(frozen=True)
class TrainingPayload:
    """Everything a training run is told, and why.

    Attributes:
        data: How the scan is cut into groups.
        model: Architecture and the physics it is tied to.
        training: Optimisation and the machine it runs on.
        train_data_file: The scan file.
        output_dir: Where the run writes; not created here.
        audit: How the value of every key came about.
    """

    data: DataConfig
    model: ModelConfig
    training: TrainingConfig
    train_data_file: Path
    output_dir: Path
    audit: Mapping[str, Setting]


def override_keys() -> frozenset[str]:
    """Return every key that an override may name."""
    return frozenset(declared.name for config in _CONFIGS for declared in fields(config))


def create_training_payload(
    train_data_file: Path | str, output_dir: Path | str, overrides: Mapping[str, Any], *, sampled: bool = False
) -> TrainingPayload:
    """Combine user input, file and defaults into configurations that agree with each other.

    Args:
        train_data_file: NPZ scan, read for what it determines.
        output_dir: Where the run will write.
        overrides: By key, see `override_keys`; ``n_groups`` is mandatory.
        sampled: Take the mean counts of the first patterns for those of all, and read no more of them.

    Raises:
        ConfigError: An override is missing, unknown, mistyped, out of range or contradicting; names its key.
        ScanError: The file is not a usable scan.
    """
    refuse_unknown(overrides, override_keys(), "the training payload")
    if "n_groups" not in overrides:
        msg = "Expected overrides to say n_groups, the number of groups to draw from the scan, got none."
        raise ConfigError(msg, "n_groups")
    output_dir = Path(output_dir)
    expect_folder(output_dir)
    scan = open_scan(train_data_file)
    energies = pattern_energies(next(scan.patterns.blocks())[1]) if sampled else scan.energies()
    given = {key: _plain(key, value) for key, value in overrides.items()}
    audit = _settle(scan, float(energies.mean()), given)
    used = {key: setting.used for key, setting in audit.items()}
    return TrainingPayload(
        data=_filled(DataConfig, used),
        model=_filled(ModelConfig, used),
        training=_filled(TrainingConfig, used),
        train_data_file=Path(train_data_file),
        output_dir=output_dir,
        audit=audit,
    )


def _filled(config: type[_Config], used: Mapping[str, Any]) -> _Config:
    return config(**{declared.name: used[declared.name] for declared in fields(config)})


def _declarations() -> dict[str, Any]:
    return {declared.name: declared for config in _CONFIGS for declared in fields(config)}


def _plain(key: str, value: Any) -> Any:
    """Check type and range of one override before anything is derived from it."""
    declared = _declarations()[key]
    return validated(key, declared.type, declared.metadata, value)


def _settle(scan: ScanOnDisk, mean_counts: float, overrides: Mapping[str, Any]) -> dict[str, Setting]:
    """Decide every key, in the order in which one depends on another."""
    settings = {"n_groups": Setting(None, overrides["n_groups"], "override")}

    def settle(key: str, default: Any, source: str) -> Any:
        given = key in overrides
        settings[key] = Setting(default, overrides[key] if given else default, "override" if given else source)
        return settings[key].used

    gridsize = settle("gridsize", min(DEFAULT_GRIDSIZE, math.isqrt(len(scan.patterns))), "default")
    channels = _agreeing(settle("C", gridsize**2, "derived"), "C", gridsize**2, f"gridsize={gridsize}")
    side = scan.patterns.side
    patch_size = _agreeing(settle("N", side, "file"), "N", side, f"the file {scan.path}")
    _agreeing(settle("P", len(scan.probe), "file"), "P", len(scan.probe), f"the file {scan.path}")
    settle("nphotons", mean_counts, "file")
    neighbor_count = settle("neighbor_count", _default_neighbor_count(channels, len(scan.patterns)), "derived")
    needed = largest_neighbor_distance(scan.xcoords, scan.ycoords, gridsize, neighbor_count)
    distance = settle("max_neighbor_distance", needed, "derived")
    _check_canvas(patch_size, gridsize, distance, needed)
    for key, declared in _declarations().items():
        if key not in settings:
            settle(key, declared.default, "default")
    _check_shares(settings["batch_size"].used, settings["devices"].used)
    return settings


def expect_folder(output_dir: Path) -> None:
    """Refuse an output folder that is a file; it need not exist.

    Raises:
        ConfigError: It is one.
    """
    if output_dir.exists() and not output_dir.is_dir():
        msg = f"Expected output_dir to be a directory, got the file {output_dir}."
        raise ConfigError(msg, "output_dir")


def _agreeing(value: int, key: str, expected: int, reason: str) -> int:
    if value != expected:
        msg = f"Expected {key} to be {expected}, as {reason} says, got {value}. Leave {key} out or correct the other."
        raise ConfigError(msg, key)
    return value


def _default_neighbor_count(channels: int, n_positions: int) -> int:
    return 1 if channels == 1 else max(channels, min(channels + EXTRA_NEIGHBORS, n_positions))


def _check_shares(batch_size: int, devices: int) -> None:
    if batch_size < devices:
        msg = f"Expected batch_size to be at least {devices}, one group for each of the devices, got {batch_size}."
        raise ConfigError(msg, "batch_size")


def _check_canvas(patch_size: int, gridsize: int, distance: float, needed: float) -> None:
    """Refuse a distance whose canvas could not hold the groups of this scan."""
    canvas, needed_canvas = (padded_size(patch_size, gridsize, value) for value in (distance, needed))
    if canvas < needed_canvas:
        msg = (
            f"Expected max_neighbor_distance to be at least {needed:.3f} pixels, which the groups of this scan need "
            f"(canvas {needed_canvas}), got {distance:g} (canvas {canvas}). Leave it out to have it derived."
        )
        raise ConfigError(msg, "max_neighbor_distance")
