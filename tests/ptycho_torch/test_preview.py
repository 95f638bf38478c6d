"""The picture that is drawn while training: what it shows, when it is drawn, and that it changes nothing."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ptycho_torch import preview, workflow
from ptycho_torch.config_factory import TrainingPayload, create_training_payload
from ptycho_torch.preview import Preview, middle_of
from ptycho_torch.runs import PREVIEW_NAME
from ptycho_torch.scan import load_scan, open_scan, save_scan
from ptycho_torch.simulate import simulate_natural_scan
from ptycho_torch.workflow import train


@pytest.fixture(scope="module")
def scan_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scan") / "scan.npz"
    save_scan(simulate_natural_scan(patch_size=16, n_rows=6, n_columns=7, step=3.0, jitter=1.0), path)
    return path


def payload_for(scan_path: Path, output_dir: Path, **overrides: object) -> TrainingPayload:
    settings = {"gridsize": 2, "n_groups": 5, "batch_size": 4, "max_epochs": 4, "accelerator": "cpu"}
    return create_training_payload(scan_path, output_dir, settings | overrides)


def test_the_middle_of_a_scan_is_the_patterns_nearest_to_it_without_their_truth(scan_path):
    scan = load_scan(scan_path)
    middle = middle_of(open_scan(scan_path), n_patterns=9)
    x, y = np.median(scan.xcoords), np.median(scan.ycoords)
    far = sorted(range(42), key=lambda index: max(abs(scan.xcoords[index] - x), abs(scan.ycoords[index] - y)))
    nearest = sorted(far[:9])
    np.testing.assert_array_equal(middle.xcoords, scan.xcoords[nearest])
    np.testing.assert_array_equal(middle.ycoords, scan.ycoords[nearest])
    np.testing.assert_array_equal(middle.diffraction_amplitude, scan.diffraction_amplitude[nearest])
    assert scan.object_truth is not None
    assert middle.object_truth is None


def test_a_scan_smaller_than_the_picture_is_shown_whole(scan_path):
    assert middle_of(open_scan(scan_path)).n_positions == 42


def test_patterns_are_the_same_where_they_can_be_read_in_any_order(scan_path, tmp_path):
    with np.load(scan_path) as arrays:
        np.savez(tmp_path / "stored.npz", **arrays)
    stored, packed = (open_scan(path) for path in (tmp_path / "stored.npz", scan_path))
    assert (stored.patterns.random_access, packed.patterns.random_access) == (True, False)
    first, second = (middle_of(scan, n_patterns=7) for scan in (stored, packed))
    np.testing.assert_array_equal(first.diffraction_amplitude, second.diffraction_amplitude)


def test_training_with_previews_is_bit_for_bit_training_without(scan_path, tmp_path):
    bundles = [
        train(payload_for(scan_path, tmp_path / name, max_epochs=2), preview=drawn, quiet=True).model_path
        for name, drawn in (("with", True), ("without", False))
    ]
    assert bundles[0].read_bytes() == bundles[1].read_bytes()
    picture = tmp_path / "with" / "logs" / "version_0" / PREVIEW_NAME
    with Image.open(picture) as drawn:
        pixels = np.asarray(drawn)
    assert pixels.shape[1] > pixels.shape[0] > 200
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50  # an object, and no empty frame
    assert not list((tmp_path / "without").rglob(PREVIEW_NAME))


@pytest.fixture
def drawn_epochs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The captions of the pictures that are drawn."""
    captions = []
    draw = preview.draw_preview

    def noted(obj: np.ndarray, weight: np.ndarray, caption: str) -> np.ndarray:
        captions.append(caption.partition(":")[0])
        return draw(obj, weight, caption)

    monkeypatch.setattr(preview, "draw_preview", noted)
    return captions


@pytest.mark.parametrize(
    ("tick", "expected"),
    [(1.0, ["epoch 1", "epoch 4"]), (0.0, ["epoch 1", "epoch 2", "epoch 3", "epoch 4"])],
    ids=["a picture costs too much", "it costs nothing"],
)
def test_only_the_first_and_the_last_picture_are_drawn_where_others_would_cost_too_much(
    scan_path, tmp_path, monkeypatch, drawn_epochs, tick, expected
):
    clock = itertools.count(step=tick)
    monkeypatch.setattr(workflow, "Preview", lambda scan: Preview(scan, lambda: next(clock)))
    train(payload_for(scan_path, tmp_path), preview=True, quiet=True)
    assert drawn_epochs == expected


def test_nothing_is_drawn_unless_it_is_asked_for(scan_path, tmp_path, drawn_epochs):
    train(payload_for(scan_path, tmp_path, max_epochs=1), quiet=True)
    assert drawn_epochs == []


def test_losses_and_pictures_are_in_tensorboard_where_that_is_installed(scan_path, tmp_path):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    trained = train(payload_for(scan_path, tmp_path, max_epochs=2), preview=True, quiet=True)
    events = accumulators.EventAccumulator(str(trained.metrics_csv.parent))
    events.Reload()
    logged = [event.value for event in events.Scalars("train_loss")]
    assert logged == pytest.approx(trained.losses["train_loss"])
    (*_, picture) = events.Images("preview")
    assert picture.step == 2
    assert picture.encoded_image_string.startswith(b"\x89PNG")


def test_without_tensorboard_nothing_is_written_for_it(scan_path, tmp_path, monkeypatch):
    monkeypatch.setattr("ptycho_torch.learner.find_spec", lambda name: None)
    trained = train(payload_for(scan_path, tmp_path, max_epochs=1), preview=True, quiet=True)
    names = {path.name for path in trained.metrics_csv.parent.iterdir()}
    assert names == {"checkpoints", "metrics.csv", "preview.png", "run.json"}
