"""One HTML page of everything that an output folder knows: training, reconstruction, or both.

The page is one file: its style and pictures are inside, it runs nothing, loads nothing, and its policy lets nothing else
in. What is on it was written by the commands; nothing is computed anew.
"""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator
from PIL import Image

from ptycho_torch.commands import AMPLITUDE_NAME, LOSS_LABELS, OVERVIEW_NAME, PHASE_NAME, QUALITY_ROWS
from ptycho_torch.files import written_atomically
from ptycho_torch.formats.limits import readable_size
from ptycho_torch.runs import (
    METRICS_CSV,
    PREVIEW_NAME,
    ReconstructionRecord,
    RecordError,
    RunRecord,
    checkpoints_of,
    newest_first,
    now,
    read_losses,
)
from ptycho_torch.workflow import BUNDLE_NAME, METRICS_NAME

__all__ = ["REPORT_NAME", "Found", "gather", "page", "write_report"]

REPORT_NAME = "report.html"
_TEMPLATES = Path(__file__).with_name("templates")
_CAPTIONS = {
    OVERVIEW_NAME: "The reconstruction, the light it rests on, and the misfit",
    AMPLITUDE_NAME: "Amplitude",
    PHASE_NAME: "Phase",
    PREVIEW_NAME: "What the model made of the middle of the scan when it was last looked at",
}
_WIDTH, _HEIGHT, _LEFT = 640, 300, 78  # of a curve, pixels
_TOP, _BOTTOM, _RIGHT = 14, 34, 16  # likewise, of its margins


class Picture(NamedTuple):
    """A picture that is part of the page."""

    caption: str
    source: str
    width: int
    height: int


class Tick(NamedTuple):
    """A number on an axis, and where it stands."""

    at: float
    text: str


class Series(NamedTuple):
    """One line of a curve."""

    name: str
    number: int
    points: Sequence[tuple[float, float]]


class Curve(NamedTuple):
    """Values per epoch, ready to be drawn."""

    title: str
    summary: str
    series: Sequence[Series]
    rows: Sequence[Tick]
    columns: Sequence[Tick]
    width: int = _WIDTH
    height: int = _HEIGHT
    left: int = _LEFT


@dataclass
class Found:
    """What an output folder knows, in the words of the page.

    Attributes:
        name: Of the folder.
        lead: The sentences above everything.
        numbers: The most important ones, with what they are.
        pictures: The first is the one that tells most.
        curves: Losses and misfits.
        quality: Measure, reconstruction, flat object.
        settings: Key, value, source, and what it would be otherwise.
        tables: Title, id, and rows of name and value.
    """

    name: str
    lead: str = ""
    numbers: list[tuple[str, str]] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    quality: list[tuple[str, str, str]] = field(default_factory=list)
    settings: list[tuple[str, str, str, str]] = field(default_factory=list)
    tables: list[tuple[str, str, list[tuple[str, str]]]] = field(default_factory=list)


def write_report(output_dir: Path, output: Path | None = None) -> Path:
    """Write the page of an output folder.

    Args:
        output_dir: Of `train`, `infer`, `reconstruct` or `demo`.
        output: The file; `report.html` in the folder by default.

    Returns:
        The file.

    Raises:
        RecordError: The folder knows nothing, or something in it is damaged.
    """
    output = output or output_dir / REPORT_NAME
    written = page(gather(output_dir), now())
    with written_atomically(output) as stream:
        stream.write(written.encode())
    return output


def page(found: Found, written: str) -> str:
    """Return the page.

    Args:
        found: What is on it.
        written: When, for the foot of the page.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    style = (_TEMPLATES / "report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    inline = {"text": Markup(style), "hash": f"sha256-{digest}"}
    return environment.get_template("report.html.j2").render(found=found, written=written, style=inline).lstrip()


def gather(output_dir: Path) -> Found:
    """Collect what the newest training and the reconstruction of a folder left.

    Raises:
        RecordError: The folder knows nothing, or something in it is damaged.
    """
    run = next(newest_first(output_dir), None)
    has_reconstruction = (output_dir / ReconstructionRecord.NAME).exists()
    if run is None and not has_reconstruction:
        msg = f"Expected {output_dir} to be the output_dir of train, infer or reconstruct, got no trace of one."
        raise RecordError(msg)
    found = Found(output_dir.resolve().name)
    found.pictures.extend(_pictures(output_dir, run))
    sentences = [] if run is None else [_add_training(found, output_dir, run)]
    if has_reconstruction:
        sentences.append(_add_reconstruction(found, output_dir))
    found.lead = " ".join(sentences)
    found.tables.append(("Files", "files", _files(output_dir)))
    return found


def _add_training(found: Found, output_dir: Path, run: Path) -> str:
    """Add what a training left, and return it in a sentence."""
    losses = read_losses(run / METRICS_CSV) if (run / METRICS_CSV).exists() else {}
    epochs = max(map(len, losses.values()), default=0)
    record = RunRecord.read(run)
    settings = record.settings
    label = LOSS_LABELS[str(settings["loss"]["used"])]
    found.numbers.append((f"epochs of {settings['max_epochs']['used']} at most", str(epochs)))
    found.numbers.extend((f"{name}, last epoch", _number(values[-1])) for name, values in losses.items())
    found.curves.extend(_curves(label, losses))
    found.settings.extend(_setting(key, how) for key, how in settings.items())
    scan = [("file", record.train_data_file), *((name, _text(value)) for name, value in record.scan.items())]
    found.tables.append(("Scan that was trained on", "scan", scan))
    told = [
        ("validated on", record.test_data_file or "nothing"),
        ("began with the weights of", record.start_from or "nothing"),
        ("begun", record.started),
        *((name, text or "from its source") for name, text in record.versions.items()),
    ]
    found.tables.append(("Training: when, and with what", "training", told))
    return f"Trained on {Path(record.train_data_file).name}: {_state(output_dir, run, epochs)}"


def _state(output_dir: Path, run: Path, epochs: int) -> str:
    bundle, checkpoints = output_dir / BUNDLE_NAME, checkpoints_of(run)
    newest = max((path.stat().st_mtime_ns for path in checkpoints), default=0)
    if checkpoints and bundle.exists() and bundle.stat().st_mtime_ns >= newest:
        return f"finished after {epochs} epochs."
    return f"{epochs} epochs are over and no bundle is written yet: still running, or interrupted (--resume goes on)."


def _add_reconstruction(found: Found, output_dir: Path) -> str:
    """Add what a reconstruction left, and return it in a sentence."""
    record = ReconstructionRecord.read(output_dir)
    found.numbers.append(("misfit of the reconstruction", _number(record.misfit)))
    found.numbers.append(("object, pixels", f"{record.rows} x {record.columns}"))
    found.numbers.append(("bad pixels of the detector, left out", str(record.bad_pixels)))
    found.curves.extend(_curves("misfit while refining", {"misfit": record.misfits} if record.misfits else {}))
    if (output_dir / METRICS_NAME).exists():
        found.quality.extend(_quality(output_dir / METRICS_NAME))
    told = [
        ("scan", record.test_data),
        ("model", record.model_path or "none"),
        *((name, _text(value)) for name, value in record.settings.items()),
        ("object pixel (row, col) of index [0, 0]", _text(record.origin)),
        ("finished", record.finished),
        *((name, text or "from its source") for name, text in record.versions.items()),
    ]
    found.tables.append(("Reconstruction: of what, when, and with what", "reconstruction", told))
    how = "with a model" if record.model_path else "without a model"
    return f"Reconstructed {Path(record.test_data).name} {how}: misfit {record.misfit:.4f}."


def _quality(path: Path) -> Iterator[tuple[str, str, str]]:
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        ours, flat = metrics["reconstruction"], metrics["flat"]
        for label, key in QUALITY_ROWS:
            yield label, _number(ours[key]), _number(flat[key])
    except (ValueError, KeyError, TypeError) as error:
        msg = f"Expected {path} to be what infer writes, got an error: {error!r}. Reconstruct again."
        raise RecordError(msg) from error


def _setting(key: str, how: Mapping[str, Any]) -> tuple[str, str, str, str]:
    used, default = _text(how["used"]), "" if how["default"] is None else _text(how["default"])
    return key, used, str(how["source"]), default if default != used else ""


def _pictures(output_dir: Path, run: Path | None) -> Iterator[Picture]:
    folders = {PREVIEW_NAME: run}
    for name, caption in _CAPTIONS.items():
        path = (folders.get(name) or output_dir) / name
        if path.exists():
            content = path.read_bytes()
            with Image.open(path) as picture:
                width, height = picture.size
            yield Picture(caption, f"data:image/png;base64,{base64.b64encode(content).decode()}", width, height)


def _files(output_dir: Path) -> list[tuple[str, str]]:
    files = (path for path in sorted(output_dir.rglob("*")) if path.is_file() and path.name != REPORT_NAME)
    return [(str(path.relative_to(output_dir)), readable_size(path.stat().st_size)) for path in files]


def _number(value: float) -> str:
    return f"{value:.4g}"


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return ", ".join(map(_text, value)) if isinstance(value, list) else str(value)


# --- curves --------------------------------------------------------------------------------------------
def _curves(title: str, values: Mapping[str, Sequence[float]]) -> list[Curve]:
    """Return a curve, or none where there is nothing to draw."""
    if not values:
        return []
    everything = [value for series in values.values() for value in series]
    epochs = max(map(len, values.values()))
    rows = _ticks(min(everything), max(everything), 5)
    columns = [epoch for epoch in _ticks(1, epochs, 8, integer=True) if 1 <= epoch <= epochs]
    low, high = min(rows), max(rows)

    def across(epoch: float) -> float:
        return round(_LEFT + (_WIDTH - _LEFT - _RIGHT) * (epoch - 1) / max(epochs - 1, 1), 1)

    def down(value: float) -> float:
        return round(_TOP + (_HEIGHT - _TOP - _BOTTOM) * (high - value) / (high - low), 1)

    series = [
        Series(name, number, [(across(index + 1), down(value)) for index, value in enumerate(line)])
        for number, (name, line) in enumerate(values.items())
    ]
    ends = "; ".join(f"{name} from {line[0]:.4g} to {line[-1]:.4g}" for name, line in values.items())
    return [
        Curve(
            title=f"{title}, against the epoch",
            summary=f"{title}, {epochs} epochs: {ends}",
            series=series,
            rows=[Tick(down(value), f"{value:.5g}") for value in rows],
            columns=[Tick(across(epoch), f"{epoch:.0f}") for epoch in columns],
        )
    ]


def _ticks(low: float, high: float, at_most: int, *, integer: bool = False) -> list[float]:
    """Return round numbers that enclose a range."""
    room = 0.0 if high > low else max(abs(high), 1.0) / 10
    return [float(value) for value in MaxNLocator(at_most, integer=integer).tick_values(low - room, high + room)]
