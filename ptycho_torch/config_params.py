"""Frozen configurations: plain data with units in the field names, validated on construction.

Defaults and bounds live here, next to the field they belong to; how user input, file and derived values are
combined is `config_factory`. Every configuration converts to and from plain JSON values, strictly: a bundle
with a missing, unknown or mistyped key is refused by name.
"""

import difflib
import math
import numbers
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal, Self, get_args, get_origin

__all__ = [
    "ACCELERATOR",
    "STREAM",
    "ConfigError",
    "DataConfig",
    "ModelConfig",
    "TrainingConfig",
    "closest",
    "refuse_unknown",
    "validated",
]

ACCELERATOR = Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"]
STREAM = Literal["auto", "always", "never"]


class ConfigError(ValueError):
    """A configuration value that is missing, unknown, mistyped, out of range or contradicting.

    Attributes:
        key: The key at fault.
    """

    def __init__(self, message: str, key: str = "") -> None:
        super().__init__(message)
        self.key = key


def closest(word: str, known: Iterable[str]) -> str:
    """Return " Did you mean ...?" for the nearest known word, or nothing when none is near."""
    near = difflib.get_close_matches(word, sorted(known), n=1)
    return f" Did you mean '{near[0]}'?" if near else ""


def refuse_unknown(given: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raise for the first key (in sorted order) that nobody reads.

    Raises:
        ConfigError: Names the key, the nearest known one and all that are known.
    """
    allowed = sorted(known)
    for key in sorted(map(str, given)):
        if key not in allowed:
            msg = f"Expected keys that {where} knows, got '{key}'.{closest(key, allowed)} Known: {', '.join(allowed)}."
            raise ConfigError(msg, key)


def _bounded(*, at_least: float | None = None, above: float | None = None, default: Any = MISSING) -> Any:
    """Declare a field together with the range its value must lie in."""
    return field(default=default, metadata={"at_least": at_least, "above": above})


def _describe(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(repr(choice) for choice in get_args(kind))
    return {int: "an integer", float: "a finite number", str: "a string"}[kind]


def _coerced(kind: Any, value: Any) -> Any:
    """Return `value` as plain `kind`, or None where it is not one (a bool is no number, a string neither)."""
    if get_origin(kind) is Literal:
        return value if isinstance(value, str) and value in get_args(kind) else None
    if kind is str:
        return value if isinstance(value, str) else None
    number = numbers.Integral if kind is int else numbers.Real
    is_number = issubclass(type(value), number) and not isinstance(value, bool)
    return kind(value) if is_number and math.isfinite(value) else None


def validated(key: str, kind: Any, bounds: Mapping[str, float | None], value: Any) -> Any:
    """Return `value` as the declared plain type.

    Raises:
        ConfigError: The value has another type, is not finite or lies out of its range.
    """
    plain = _coerced(kind, value)
    if plain is None:
        msg = f"Expected {key} to be {_describe(kind)}, got {value!r} ({type(value).__name__})."
        raise ConfigError(msg, key)
    at_least, above = bounds.get("at_least"), bounds.get("above")
    if at_least is not None and plain < at_least:
        msg = f"Expected {key} to be at least {at_least}, got {plain}."
        raise ConfigError(msg, key)
    if above is not None and plain <= above:
        msg = f"Expected {key} to be greater than {above}, got {plain}."
        raise ConfigError(msg, key)
    return plain


@dataclass(frozen=True)
class _Grouped:
    """What every configuration knows about a group, so that no two can disagree in silence."""

    gridsize: int = _bounded(at_least=1)
    C: int = _bounded(at_least=1)  # patches in a group, gridsize**2

    def __post_init__(self) -> None:
        for declared in fields(self):
            plain = validated(declared.name, declared.type, declared.metadata, getattr(self, declared.name))
            object.__setattr__(self, declared.name, plain)
        if self.gridsize**2 != self.C:
            msg = f"Expected C to be gridsize**2 = {self.gridsize**2}, got C={self.C} with gridsize={self.gridsize}."
            raise ConfigError(msg, "C")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {declared.name: getattr(self, declared.name) for declared in fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Rebuild a configuration, strictly: the keys must be exactly those that `to_dict` writes.

        Raises:
            ConfigError: A key is missing, unknown, mistyped, out of range or contradicts another.
        """
        known = [declared.name for declared in fields(cls)]
        refuse_unknown(values, known, cls.__name__)
        for key in known:
            if key not in values:
                msg = f"Expected {cls.__name__} to hold '{key}', got only {', '.join(sorted(values)) or 'nothing'}."
                raise ConfigError(msg, key)
        return cls(**values)


@dataclass(frozen=True)
class DataConfig(_Grouped):
    """How a scan is cut into groups."""

    N: int = _bounded(at_least=2)  # patch and detector side, pixels
    n_groups: int = _bounded(at_least=1)
    neighbor_count: int = _bounded(at_least=1)  # K nearest positions, the seed included, K >= C
    max_neighbor_distance: float = _bounded(at_least=0)  # pixels; fixes the canvas of a group
    nphotons: float = _bounded(above=0)  # mean counts per pattern
    seed: int = _bounded(at_least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.neighbor_count < self.C:
            msg = (
                f"Expected neighbor_count to be at least C = gridsize**2 = {self.C}, got {self.neighbor_count}. "
                "The C members of a group are drawn from the neighbor_count nearest positions."
            )
            raise ConfigError(msg, "neighbor_count")


@dataclass(frozen=True)
class ModelConfig(_Grouped):
    """Architecture and the physics it is tied to."""

    N: int = _bounded(at_least=2)  # patch and detector side, pixels
    P: int = _bounded(at_least=1)  # incoherent probe modes
    max_neighbor_distance: float = _bounded(at_least=0)  # pixels; fixes the canvas of a group


@dataclass(frozen=True)
class TrainingConfig(_Grouped):
    """Optimisation and the machine it runs on."""

    batch_size: int = _bounded(at_least=1, default=16)
    max_epochs: int = _bounded(at_least=1, default=20)
    learning_rate: float = _bounded(above=0, default=2e-3)
    loss: Literal["poisson", "mae"] = "poisson"
    early_stopping_patience: int = _bounded(at_least=1, default=20)  # epochs without improvement
    accelerator: ACCELERATOR = "auto"
    devices: int = _bounded(at_least=1, default=1)
    num_workers: int = _bounded(at_least=0, default=0)
    seed: int = _bounded(at_least=0, default=0)
