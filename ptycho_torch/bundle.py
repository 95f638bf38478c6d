"""A trained model as one file: weights, configurations and the contracts they were made under.

Owns the format and every complaint about a bad file. A bundle is a zip archive of two stored (never compressed)
members: ``weights.safetensors`` and ``config.json``, which also holds the checksums. Both formats hold data only:
nothing in a bundle is ever executed, and no member is ever written to disk, whatever its name. A model is handed out
only when every byte has been accounted for.
"""

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn, Self

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ptycho_torch.config_factory import TrainingPayload
from ptycho_torch.config_params import ConfigError, DataConfig, ModelConfig, TrainingConfig
from ptycho_torch.files import written_atomically
from ptycho_torch.model import PtychoModel

__all__ = [
    "CONTRACT_VERSION",
    "FORMAT",
    "Bundle",
    "BundleConfigs",
    "BundleError",
    "load_bundle",
    "save_bundle",
]

FORMAT = "ptycho-torch bundle 1"
# Raised whenever the tensors or configurations that cross the model's boundary change their meaning: a bundle made
# under other contracts would load, run and be wrong.
CONTRACT_VERSION = 2

_WEIGHTS, _CONFIG = "weights.safetensors", "config.json"
_DISTRIBUTION = "shapecheck-torch"
_CONFIG_LIMIT_BYTES = 2**20
_WEIGHTS_LIMIT_BYTES = 2**32
_DAMAGED = (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError, ValueError)
_SHAPED_BY = ("C", "N", "P", "gridsize", "max_neighbor_distance")


class BundleError(ValueError):
    """A file that is not a complete, untouched bundle of this version.

    Attributes:
        path: The file.
    """

    def __init__(self, message: str, path: Path | None = None) -> None:
        super().__init__(message)
        self.path = path


@dataclass(frozen=True)
class BundleConfigs:
    """Everything a training run was told, as far as a trained model needs it.

    Attributes:
        data: How the scan was cut into groups.
        model: Architecture and the physics it is tied to.
        training: How the weights came about.

    Raises:
        ConfigError: Two of them disagree on a size.
    """

    data: DataConfig
    model: ModelConfig
    training: TrainingConfig

    def __post_init__(self) -> None:
        for part in (self.data, self.training):
            for key in _SHAPED_BY:
                mine, models = getattr(part, key, None), getattr(self.model, key)
                if mine is not None and mine != models:
                    msg = f"Expected {key} of {type(part).__name__} to be that of ModelConfig, {models}, got {mine}."
                    raise ConfigError(msg, key)

    @classmethod
    def from_payload(cls, payload: TrainingPayload) -> Self:
        """Take the configurations of a training run."""
        return cls(payload.data, payload.model, payload.training)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return plain JSON values."""
        return {part.name: getattr(self, part.name).to_dict() for part in fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Mapping[str, Any]]) -> Self:
        """Rebuild the configurations, strictly.

        Raises:
            ConfigError: A key is missing, unknown, mistyped, out of range or contradicts another.
        """
        return cls(
            DataConfig.from_dict(values["data"]),
            ModelConfig.from_dict(values["model"]),
            TrainingConfig.from_dict(values["training"]),
        )


@dataclass(frozen=True)
class Bundle:
    """What a bundle file holds.

    Attributes:
        model: In evaluation mode, on the CPU.
        configs: What it was trained under.
        package_version: Of the package that wrote the file; information only.
    """

    model: PtychoModel
    configs: BundleConfigs
    package_version: str


def save_bundle(path: Path | str, model: PtychoModel, configs: BundleConfigs) -> Path:
    """Write a model and its configurations to one file, which appears complete or not at all.

    Args:
        path: The file, replaced where it exists.
        model: Its parameters and buffers are written as they are, wherever they live.
        configs: Must hold the configuration the model was built with.

    Returns:
        ``path``.

    Raises:
        BundleError: The model was built with another configuration.
    """
    path = Path(path)
    if model.config != configs.model:
        _fail(path, f"a model built with the given ModelConfig, {configs.model}", f"one built with {model.config}")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    members = {_WEIGHTS: safetensors.torch.save(tensors)}
    members[_CONFIG] = json.dumps(_header(configs, members[_WEIGHTS]), indent=2, sort_keys=True).encode()
    with written_atomically(path) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            # A fixed date: the same model is the same bytes.
            archive.writestr(zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0)), content)
    return path


def load_bundle(path: Path | str) -> Bundle:
    """Read a model and its configurations back, bit for bit.

    Raises:
        BundleError: The file is missing, damaged, altered, of another version or not a bundle; says what is wrong.
    """
    path = Path(path)
    members = _read_members(path)
    header = _parse(path, members[_CONFIG])
    configs = _checked_header(path, header, members[_WEIGHTS])
    model = _filled(path, configs.model, _tensors(path, members[_WEIGHTS]))
    return Bundle(model, configs, header["package_version"])


def _header(configs: BundleConfigs, weights: bytes) -> dict[str, Any]:
    statements = {
        "format": FORMAT,
        "contract_version": CONTRACT_VERSION,
        "package_version": _package_version(),
        "configs": configs.to_dict(),
    }
    return statements | {"sha256": {"statements": _digest(_canonical(statements)), "weights": _digest(weights)}}


def _package_version() -> str:
    try:
        return metadata.version(_DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "not installed"  # run from a source tree


def _canonical(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, sort_keys=True).encode()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read_members(path: Path) -> dict[str, bytes]:
    if not path.is_file():
        _fail(path, "a bundle file", "a directory" if path.is_dir() else "no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            _check_directory(path, archive.infolist())
            return {name: archive.read(name) for name in (_WEIGHTS, _CONFIG)}
    except BundleError:
        raise
    except _DAMAGED as damage:
        _fail(path, "a complete zip archive", f"a truncated or damaged one ({damage}). Copy or train it again", damage)


def _check_directory(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    """Refuse by the archive's table of contents alone, before any content is read."""
    names = sorted(entry.filename for entry in entries)
    if names != sorted((_WEIGHTS, _CONFIG)):
        _fail(path, f"exactly the members {_CONFIG} and {_WEIGHTS}", ", ".join(map(repr, names)) or "none")
    limits = {_CONFIG: _CONFIG_LIMIT_BYTES, _WEIGHTS: _WEIGHTS_LIMIT_BYTES}
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            _fail(path, f"{entry.filename} to be stored uncompressed", "a compressed member")
        if entry.file_size > limits[entry.filename]:
            _fail(path, f"{entry.filename} of at most {limits[entry.filename]} bytes", f"{entry.file_size}")


def _parse(path: Path, content: bytes) -> dict[str, Any]:
    def refuse_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) != len(pairs):
            _fail(path, f"each key of {_CONFIG} once", "a repeated key")
        return values

    try:
        return json.loads(content, object_pairs_hook=refuse_repeated)
    except BundleError:
        raise
    except (ValueError, RecursionError) as damage:
        _fail(path, f"{_CONFIG} to be JSON", f"an error: {damage}", damage)


def _checked_header(path: Path, header: Any, weights: bytes) -> BundleConfigs:
    parts = [part.name for part in fields(BundleConfigs)]
    _check_keys(path, header, ["format", "contract_version", "package_version", "configs", "sha256"], "the top level")
    for key, expected in (("format", FORMAT), ("contract_version", CONTRACT_VERSION)):
        if header[key] != expected or type(header[key]) is not type(expected):
            _fail(path, f"{key} {expected!r}", f"{header[key]!r}. Train again, or use the package that wrote it")
    if not isinstance(header["package_version"], str):
        _fail(path, "package_version to be a string", repr(header["package_version"]))
    _check_keys(path, header["configs"], parts, "'configs'")
    _check_keys(path, header["sha256"], ["statements", "weights"], "'sha256'")
    statements = {key: value for key, value in header.items() if key != "sha256"}
    for name, key, content in ((_CONFIG, "statements", _canonical(statements)), (_WEIGHTS, "weights", weights)):
        if header["sha256"][key] != _digest(content):
            _fail(path, f"{name} with the recorded checksum", "altered content. Copy or train it again")
    try:
        return BundleConfigs.from_dict(header["configs"])
    except (ConfigError, TypeError, AttributeError) as fault:
        _fail(path, "valid configurations", f"an error: {fault}", fault)


def _check_keys(path: Path, values: Any, expected: list[str], where: str) -> None:
    if not isinstance(values, dict) or sorted(values) != sorted(expected):
        got = ", ".join(sorted(values)) if isinstance(values, dict) else type(values).__name__
        _fail(path, f"{where} of {_CONFIG} to hold exactly {', '.join(sorted(expected))}", got or "nothing")


def _tensors(path: Path, content: bytes) -> dict[str, Tensor]:
    try:
        # Copies: what safetensors hands out may share one unaligned buffer.
        return {name: tensor.clone() for name, tensor in safetensors.torch.load(content).items()}
    except (SafetensorError, ValueError, KeyError) as damage:
        _fail(path, f"{_WEIGHTS} to hold tensors", f"an error: {damage}", damage)


def _filled(path: Path, config: ModelConfig, tensors: dict[str, Tensor]) -> PtychoModel:
    """Compare every tensor with what the configuration calls for, before memory of that size is ever taken."""
    with torch.device("meta"):
        model = PtychoModel(config, torch.zeros(config.P, config.N, config.N, dtype=torch.complex64))
    wanted = model.state_dict()
    missing, extra = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    if missing or extra:
        _fail(path, "exactly the model's tensors", f"missing: {missing or 'none'}; extra: {extra or 'none'}")
    for name, tensor in wanted.items():
        if _kind(tensors[name]) != _kind(tensor):
            _fail(path, f"tensor '{name}' to be {_kind(tensor)}", _kind(tensors[name]))
    model.load_state_dict(tensors, strict=True, assign=True)
    return model.eval()


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _fail(path: Path, expected: str, got: str, cause: BaseException | None = None) -> NoReturn:
    msg = f"{path}: Expected {expected}, got {got}."
    raise BundleError(msg, path) from cause
