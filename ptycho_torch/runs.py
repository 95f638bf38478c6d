"""What a training leaves in its folder besides the bundle, and what it was told: to go on from, and to report.

Owns the layout of ``logs/version_<n>``: `run.json` is written before the first epoch, checkpoints and losses by
Lightning while it trains. Needs neither torch nor Lightning, so that it is read at once.
"""

import csv
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, Self, cast

from ptycho_torch.files import written_atomically

__all__ = [
    "LOGS",
    "LOSSES",
    "METRICS_CSV",
    "PREVIEW_NAME",
    "TRAIN_LOSS",
    "VALIDATION_LOSS",
    "ReconstructionRecord",
    "RecordError",
    "ResumeError",
    "RunRecord",
    "check_same",
    "checkpoint_folder",
    "checkpoints_of",
    "interrupted_run",
    "new_run",
    "newest_first",
    "now",
    "read_losses",
    "versions",
]

LOGS = "logs"
METRICS_CSV = "metrics.csv"
PREVIEW_NAME = "preview.png"
TRAIN_LOSS, VALIDATION_LOSS = "train_loss", "val_loss"
LOSSES = (TRAIN_LOSS, VALIDATION_LOSS)

_RUN = "version_"  # as Lightning would have it
_DISTRIBUTIONS = ("shapecheck-torch", "torch", "lightning", "numpy")
_PLACE = {"accelerator", "num_workers"}  # where the same thing is computed


class RecordError(ValueError):
    """A record that is missing or unknown."""


class ResumeError(ValueError):
    """A training that cannot be resumed."""


class _Record:
    """Plain JSON values in a file of a fixed name."""

    NAME: ClassVar[str]

    def write(self, folder: Path) -> Path:
        """Write the file to a folder, and return its path."""
        path = folder / self.NAME
        with written_atomically(path) as stream:
            stream.write(json.dumps(asdict(cast("Any", self)), indent=2).encode() + b"\n")
        return path

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the file from a folder.

        Raises:
            RecordError: It is missing, or not what `write` writes.
        """
        path = folder / cls.NAME
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            msg = f"Expected {path} to say what was asked for, got an error: {error}."
            raise RecordError(msg) from error
        if not isinstance(values, dict) or values.keys() != {declared.name for declared in fields(cast("Any", cls))}:
            msg = f"Expected {path} to be what this version writes, got something else. Make it anew."
            raise RecordError(msg)
        return cls(**values)


@dataclass(frozen=True)
class RunRecord(_Record):
    """What a training was told, and on what it ran.

    Attributes:
        train_data_file: Absolute path of the scan.
        test_data_file: Absolute path of the scan to validate on, if there is one.
        start_from: Absolute path of the bundle whose weights it began with, if there is one.
        settings: How the value of every key of the configuration came about: "default", "used" and "source".
        fingerprints: Of what is learned from ("train") and validated on ("test").
        scan: Facts of the scan, for people.
        versions: Of Python and of the packages that compute.
        started: When, in UTC.
    """

    NAME = "run.json"

    train_data_file: str
    test_data_file: str | None
    start_from: str | None
    settings: Mapping[str, Mapping[str, Any]]
    fingerprints: Mapping[str, str]
    scan: Mapping[str, Any]
    versions: Mapping[str, str]
    started: str

    @property
    def overrides(self) -> dict[str, Any]:
        """What the user said."""
        return {key: how["used"] for key, how in self.settings.items() if how["source"] == "override"}


@dataclass(frozen=True)
class ReconstructionRecord(_Record):
    """What a reconstruction was told, and how well it explains the patterns.

    Attributes:
        test_data: Absolute path of the scan.
        model_path: Absolute path of the bundle, where there was one.
        settings: What the user could have said otherwise, by name.
        rows: Of the object, pixels.
        columns: Of the object, pixels.
        origin: Object pixel (row, col) of index [0, 0].
        misfit: Sum of |predicted - measured| amplitudes over the sum of the measured ones.
        misfits: The same during each epoch of refinement.
        bad_pixels: How many pixels of the detector were left out.
        versions: Of Python and of the packages that compute.
        finished: When, in UTC.
    """

    NAME = "reconstruction.json"

    test_data: str
    model_path: str | None
    settings: Mapping[str, Any]
    rows: int
    columns: int
    origin: Sequence[int]
    misfit: float
    misfits: Sequence[float]
    bad_pixels: int
    versions: Mapping[str, str]
    finished: str


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that compute; an empty one runs from its source."""
    found = {"python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = ""
    return found


def now() -> str:
    """Return the time, in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def newest_first(output_dir: Path) -> Iterator[Path]:
    """Yield the folders of the runs of an output folder."""
    numbered = {
        int(folder.name.removeprefix(_RUN)): folder
        for folder in (output_dir / LOGS).glob(f"{_RUN}*")
        if folder.name.removeprefix(_RUN).isdecimal()
    }
    for number in sorted(numbered, reverse=True):
        yield numbered[number]


def new_run(output_dir: Path) -> Path:
    """Return the folder that the next run of an output folder has for itself; not created here."""
    newest = next(newest_first(output_dir), None)
    number = 0 if newest is None else int(newest.name.removeprefix(_RUN)) + 1
    return output_dir / LOGS / f"{_RUN}{number}"


def checkpoint_folder(folder: Path) -> Path:
    """Return where the checkpoints of a run are."""
    return folder / "checkpoints"


def checkpoints_of(folder: Path) -> list[Path]:
    """Return the checkpoints of a run, each of them whole: they are written under another name."""
    return sorted(checkpoint_folder(folder).glob("*.ckpt"))


def interrupted_run(output_dir: Path) -> Path:
    """Return the folder of the newest run that finished an epoch.

    Raises:
        ResumeError: There is none.
    """
    runs = list(newest_first(output_dir))
    for folder in runs:
        if checkpoints_of(folder):
            return folder
    got = "only runs that were ended in their first epoch" if runs else "no training"
    msg = f"Expected {output_dir} to hold a checkpoint to resume from, got {got}. Leave --resume out to begin."
    raise ResumeError(msg)


def check_same(was: RunRecord, wanted: RunRecord) -> None:
    """Refuse to go on with another configuration or other data.

    Args:
        was: Of the run that is to go on.
        wanted: Of what was asked for now. Where it computes may differ; what it began with need not be said again.

    Raises:
        ResumeError: Names what differs.
    """
    for key, how in wanted.settings.items():
        before = was.settings.get(key, {"used": "nothing", "source": "default"})
        follows = {how["source"], before["source"]} <= {"derived", "file"}  # from the scan, or from other keys
        if how["used"] != before["used"] and key not in _PLACE and not follows:
            _refuse(f"{key}={before['used']}, as the run was begun", f"{key}={how['used']}")
    if wanted.start_from not in {None, was.start_from}:
        _refuse(f"start_from={was.start_from}, as the run was begun", f"start_from={wanted.start_from}")
    for stage in ("train", "test"):
        if was.fingerprints.get(stage) != wanted.fingerprints.get(stage):
            before, after = (getattr(record, f"{stage}_data_file") or "no file" for record in (was, wanted))
            _refuse(
                f"{stage}_data_file to hold what the run was begun with, from {before}", f"something else in {after}"
            )


def _refuse(expected: str, got: str) -> None:
    msg = f"Expected {expected}, got {got}. Leave it out to go on as before, or leave --resume out to begin anew."
    raise ResumeError(msg)


def read_losses(metrics_csv: Path) -> Mapping[str, tuple[float, ...]]:
    """Return the losses that a run logged, by name, one value per epoch, first epoch first."""
    with metrics_csv.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    series = {name: tuple(float(row[name]) for row in rows if row.get(name)) for name in LOSSES}
    return {name: values for name, values in series.items() if values}
