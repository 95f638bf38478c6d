"""Pictures: what they show is checked on the drawn data, and files on being real PNGs of a sane size."""

import numpy as np
import pytest
from PIL import Image

import shapecheck
from ptycho_torch import figures

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def make_object(H: int = 40, W: int = 56, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return ((0.4 + 0.6 * rng.random((H, W))) * np.exp(1j * rng.uniform(-1, 1, (H, W)))).astype(np.complex64)


def is_png(path) -> bool:
    return path.read_bytes().startswith(PNG_SIGNATURE)


def read_gray(path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L"))


@pytest.mark.parametrize("save", [figures.save_amplitude, figures.save_phase], ids=["amplitude", "phase"])
def test_single_pictures_are_written_into_folders_that_do_not_exist_yet(tmp_path, save):
    path = save(tmp_path / "new" / "picture.png", make_object(), (12, -3))
    assert is_png(path)


def test_unlit_pixels_are_left_blank(tmp_path):
    obj = make_object()
    weight = np.ones(obj.shape, np.float32)
    weight[:, :28] = 0
    half = read_gray(figures.save_amplitude(tmp_path / "half.png", obj, (0, 0), weight))
    full = read_gray(figures.save_amplitude(tmp_path / "full.png", obj, (0, 0)))
    rows, left = slice(300, 600), slice(250, 400)
    assert np.all(half[rows, left] == 255)
    assert full[rows, left].std() > 10


def test_axes_carry_object_pixels_with_whole_numbers_at_pixel_centres():
    left, right, bottom, top = figures.pixel_extent((40, 56), (12, -3))
    assert (left, right) == (-3.5, 52.5)
    assert (top, bottom) == (11.5, 51.5)


def test_centred_phase_does_not_depend_on_the_global_phase_of_the_object():
    obj = make_object()
    turned = (obj * np.exp(2.5j)).astype(np.complex64)
    np.testing.assert_allclose(figures.centred_phase(turned), figures.centred_phase(obj), atol=1e-5)
    assert np.abs(figures.centred_phase(turned)).max() < 1.5


def test_limits_ignore_badly_lit_and_single_bright_pixels():
    image = np.linspace(0, 1, 10_000).reshape(100, 100)
    image[0, 0] = 1e6
    assert figures.robust_limits(image)[1] == pytest.approx(0.995, abs=2e-3)
    weight = np.ones(image.shape, np.float32)
    weight[50:] = 0.01
    assert figures.robust_limits(image, weight)[1] == pytest.approx(0.4975, abs=2e-3)


def test_limits_of_an_image_without_any_light_are_those_of_all_pixels():
    image = np.linspace(0, 1, 100).reshape(10, 10)
    assert figures.robust_limits(image, np.zeros(image.shape, np.float32)) == figures.robust_limits(image)


@pytest.mark.parametrize("losses", [{"train": [3.0, 2.0], "val": [4.0, 3.0]}, {"train": [1.0]}, {}], ids=len)
def test_loss_curve_is_written_for_any_number_of_series(tmp_path, losses):
    assert is_png(figures.save_loss_curve(tmp_path / "loss.png", losses))


def make_known(H: int = 20, W: int = 31) -> figures.Known:
    return figures.Known(make_object(H, W), make_object(H, W, seed=1), (15, 2))


@pytest.mark.parametrize("misfits", [(), (0.3,), (0.3, 0.2, 0.1)], ids=len)
@pytest.mark.parametrize("known", [None, make_known()], ids=["unknown", "known"])
def test_overview_is_written_with_and_without_a_truth(tmp_path, known, misfits):
    obj = make_object()
    weight = np.ones(obj.shape, np.float32)
    path = figures.save_overview(tmp_path / "overview.png", obj, (3, 4), weight, misfits, known, "title")
    height, width = read_gray(path).shape
    assert is_png(path)
    assert width > height * (1 if known is None else 2)


def test_overview_shows_the_light_and_the_misfits(tmp_path, monkeypatch):
    drawn = {}
    write = figures._write  # noqa: SLF001 - what was drawn is looked at before it becomes pixels
    monkeypatch.setattr(figures, "_write", lambda figure, *rest: drawn.update(figure=figure) or write(figure, *rest))
    obj = make_object()
    weight = np.random.default_rng(3).random(obj.shape, np.float32)
    figures.save_overview(tmp_path / "overview.png", obj, (3, 4), weight, (0.3, 0.2), make_known())
    panels = {axes.get_title(): axes for axes in drawn["figure"].axes if axes.get_title()}
    np.testing.assert_array_equal(panels["light per pixel"].images[0].get_array(), weight)
    assert panels["misfit while refining"].lines[0].get_ydata().tolist() == [0.3, 0.2]
    assert panels["reconstruction - truth"].images[0].get_array().shape == (20, 31)


@pytest.mark.violation
def test_overview_refuses_what_is_on_other_pixels(tmp_path):
    obj = make_object()
    weight = np.ones(obj.shape, np.float32)
    with pytest.raises(shapecheck.ContractError, match="aligned"):
        figures.Known(make_object(), make_object(H=41), (0, 0))
    with pytest.raises(shapecheck.ContractError, match="weight"):
        figures.save_overview(tmp_path / "overview.png", obj, (0, 0), weight[1:])


def test_a_preview_shows_amplitude_and_phase_pixel_by_pixel():
    obj = np.ones((30, 50), np.complex64)
    obj[:, 25:] *= np.float32(0.5)
    obj[15:] *= np.exp(1j).astype(np.complex64)
    weight = np.ones(obj.shape, np.float32)
    weight[:2] = 0
    weight[2, :7] = 0  # the corner of a box that is lit elsewhere
    picture = figures.draw_preview(obj, weight, "caption")
    times = figures.PREVIEW_SIDE // 50
    caption, panels = picture[: figures.CAPTION_HEIGHT], picture[figures.CAPTION_HEIGHT :: times, ::times]
    assert panels.shape == (28, 100, 3)  # what is not lit at all is cut off
    assert caption.min() < 100
    amplitude, phase = panels[:, :50].astype(int), panels[:, 50:].astype(int)
    assert (amplitude[:, :25] == 255).all()  # the brightest gray
    assert (amplitude[:, 25:] == 0).all()
    assert (phase[0, :7] == 255).all()
    assert len({tuple(pixel) for pixel in phase[1:13].reshape(-1, 3)}) == 1
    assert (phase[12, 0] != phase[13, 0]).any()


def test_a_preview_of_an_object_without_light_is_blank():
    picture = figures.draw_preview(np.ones((4, 6), np.complex64), np.zeros((4, 6), np.float32), "")
    assert (picture == 255).all()


def test_a_preview_of_an_object_that_is_the_same_everywhere_is_drawn(tmp_path):
    obj = np.ones((3, 5), np.complex64)
    picture = figures.draw_preview(obj, np.ones(obj.shape, np.float32), "")
    path = figures.save_picture(tmp_path / "new" / "picture.png", picture)
    with Image.open(path) as written:
        np.testing.assert_array_equal(np.asarray(written), picture)
