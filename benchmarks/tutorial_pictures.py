"""The pictures of docs/tutorial.md, made by the commands that it shows: `python benchmarks/tutorial_pictures.py`.

Takes about a minute on one core. Pictures are scaled down, so that all of them together stay below 300 KB.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from ptycho_torch import cli
from ptycho_torch.preview import Preview
from ptycho_torch.runs import PREVIEW_NAME, newest_first
from ptycho_torch.scan import Scan, load_scan

IMAGES = Path(__file__).parents[1] / "docs" / "images"
SIMULATE = "simulate --output scan.npz --n_rows 20 --n_columns 20 --quiet"
TRAIN = "train --train_data_file scan.npz --output_dir run --n_groups 16 --batch_size 4 --max_epochs 5 --accelerator cpu --quiet"
INFER = "infer --model_path run --test_data scan.npz --output_dir run --quiet"
LIMIT_BYTES = 300_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output_dir", type=Path, default=IMAGES)
    output_dir = parser.parse_args().output_dir
    output_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        run(SIMULATE, work)
        draw_scan(load_scan(work / "scan.npz"), work / "scan.png")
        keep_first_preview(work / "first.png")
        run(TRAIN, work)
        run(INFER, work)
        (log,) = newest_first(work / "run")
        stack([work / "first.png", log / PREVIEW_NAME], work / "previews.png")
        for name, width, path in (
            ("scan", 760, work / "scan.png"),
            ("preview", 440, work / "previews.png"),
            ("overview", 900, work / "run" / "overview.png"),
        ):
            shrink(path, width, output_dir / f"tutorial-{name}.png")
    written = sorted(output_dir.glob("tutorial-*.png"))
    total = sum(path.stat().st_size for path in written)
    for path in written:
        print(f"{path.name:<24} {path.stat().st_size / 1000:7.1f} kB")
    if total > LIMIT_BYTES:
        msg = f"Expected at most {LIMIT_BYTES / 1000:.0f} kB of pictures, got {total / 1000:.0f} kB."
        raise SystemExit(msg)


def run(command: str, work: Path) -> None:
    words = [str(work / word) if word in {"scan.npz", "run"} else word for word in command.split()]
    if status := cli.main(words):
        raise SystemExit(status)


def draw_scan(scan: Scan, path: Path) -> None:
    figure = Figure(figsize=(10, 3), layout="constrained")
    places, probe, *patterns = figure.subplots(1, 4)
    places.plot(scan.xcoords, scan.ycoords, ".", markersize=3)
    places.set(title="positions", xlabel="x, object pixels", ylabel="y, object pixels", aspect="equal")
    places.invert_yaxis()
    probe.imshow(np.abs(scan.probe[0]), cmap="magma")
    probe.set(title="|probe|")
    for axes, index in zip(patterns, (0, scan.n_positions // 2), strict=True):
        axes.imshow(np.log1p(scan.diffraction_amplitude[index] ** 2), cmap="viridis")
        axes.set(title=f"log counts, pattern {index}")
    figure.savefig(path, dpi=120)


def keep_first_preview(path: Path) -> None:
    """Copy the first picture that a training draws before the next takes its place."""
    draw = Preview._draw  # noqa: SLF001 - nobody but this script wants more than the newest

    def drawn(self: Preview, trainer, *more) -> None:
        draw(self, trainer, *more)
        if not path.exists():
            shutil.copy(Path(trainer.log_dir) / PREVIEW_NAME, path)

    Preview._draw = drawn  # noqa: SLF001 - likewise


def stack(paths: list[Path], target: Path) -> None:
    pictures = [Image.open(path).convert("RGB") for path in paths]
    whole = Image.new("RGB", (pictures[0].width, sum(picture.height for picture in pictures)), "white")
    for picture, top in zip(pictures, np.cumsum([0, *(one.height for one in pictures)]), strict=False):
        whole.paste(picture, (0, int(top)))
    whole.save(target)


def shrink(path: Path, width: int, target: Path) -> None:
    with Image.open(path) as picture:
        height = round(picture.height * width / picture.width)
        small = picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    small.quantize(128, dither=Image.Dither.NONE).save(target, optimize=True)


if __name__ == "__main__":
    main()
