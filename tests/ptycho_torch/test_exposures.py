"""Patterns on canvases: where each lies, how its probe is moved, what it asks for, each against a loop in NumPy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from naive_optics import amplitude_of, asked_change, moved_probe, random_waves, to_far_field, windows_of

from ptycho_torch.contracts import Diffraction
from ptycho_torch.exposures import (
    CanvasSizes,
    Exposures,
    exit_wave_changes,
    group_exposures,
    light_of,
    locate,
    scan_exposures,
    scan_frame,
    shift_probe,
    single_exposures,
)
from ptycho_torch.simulate import diffraction_intensity, gaussian_probe
from shapecheck import ContractError

SIZES = {
    "all-different": CanvasSizes(3, 17, 23),
    "one-canvas": CanvasSizes(1, 23, 17),
    "square": CanvasSizes(2, 16, 16),
    "as-many-as-pixels": CanvasSizes(9, 9, 12),
    "no-room": CanvasSizes(2, 8, 9),
}


def make_exposures(canvases: CanvasSizes = SIZES["all-different"], each: int = 5, P: int = 2, N: int = 8) -> Exposures:
    """Patterns at random places, `each` on a canvas."""
    rng = np.random.default_rng(0)
    count, rows, columns = canvases
    n = count * each
    corners = [rng.integers(0, room + 1, n) for room in (rows - N, columns - N)]
    starts = np.repeat(np.arange(count), each) * rows * columns + corners[0] * columns + corners[1]
    return Exposures(
        measured=torch.from_numpy(rng.uniform(0.1, 3, (n, N, N)).astype(np.float32)),
        probes=random_waves(n, P, N, N, seed=1),
        slopes=torch.from_numpy(rng.uniform(-0.3, 0.3, (n, 2)).astype(np.float32)),
        starts=torch.from_numpy(starts),
        canvases=canvases,
    )


def windows(exposures: Exposures) -> list[tuple[int, slice, slice]]:
    return windows_of(exposures.starts.numpy(), exposures.canvases[1:], exposures.measured.shape[-1])


def inner(first: torch.Tensor, second: torch.Tensor) -> complex:
    return complex(np.vdot(first.numpy().astype(np.complex128), second.numpy().astype(np.complex128)))


# --- cutting and adding ----------------------------------------------------------------------------------
@pytest.mark.parametrize("canvases", SIZES.values(), ids=SIZES.keys())
@pytest.mark.parametrize("N", [7, 8])
def test_a_patch_is_cut_out_of_its_canvas_where_a_loop_cuts_it(canvases, N):
    exposures, objects = make_exposures(canvases, N=N), random_waves(*canvases, seed=3)
    expected = [objects[canvas, rows, columns] for canvas, rows, columns in windows(exposures)]
    assert torch.equal(exposures.cut(objects), torch.stack(expected))


@pytest.mark.parametrize("canvases", SIZES.values(), ids=SIZES.keys())
@pytest.mark.parametrize("kind", ["waves", "light"])
def test_patches_are_added_to_what_canvases_hold_as_a_loop_adds_them(canvases, kind):
    exposures, objects = make_exposures(canvases), random_waves(*canvases, seed=3)
    patches = random_waves(len(exposures), 8, 8, seed=4)
    if kind == "light":
        objects, patches = objects.abs(), patches.abs()
    expected = objects.numpy().copy()
    for (canvas, rows, columns), patch in zip(windows(exposures), patches.numpy(), strict=True):
        expected[canvas, rows, columns] += patch
    exposures.add(objects, patches)
    np.testing.assert_allclose(objects, expected, atol=1e-5)


@pytest.mark.parametrize("canvases", SIZES.values(), ids=SIZES.keys())
def test_adding_is_the_adjoint_of_cutting_and_is_its_gradient(canvases):
    exposures, objects = make_exposures(canvases), random_waves(*canvases, seed=3).requires_grad_()
    patches, sums = random_waves(len(exposures), 8, 8, seed=4), torch.zeros(canvases, dtype=torch.complex64)
    exposures.add(sums, patches)
    cut = exposures.cut(objects)
    assert inner(cut.detach(), patches) == pytest.approx(inner(objects.detach(), sums), rel=1e-4)
    (gradient,) = torch.autograd.grad(cut, objects, patches)
    torch.testing.assert_close(gradient, sums)


@pytest.mark.parametrize(("size", "sizes"), [(4, [4, 4, 4, 3]), (7, [7, 7, 1]), (15, [15]), (100, [15]), (1, [1] * 15)])
def test_batches_hold_every_exposure_once_and_in_turn(size, sizes):
    exposures, objects = make_exposures(), random_waves(*SIZES["all-different"], seed=3)
    batches = [exposures.batch(start, size) for start in range(0, len(exposures), size)]
    assert [len(few) for few in batches] == sizes
    assert torch.equal(torch.cat([few.cut(objects) for few in batches]), exposures.cut(objects))
    for name in ("measured", "probes", "slopes", "starts"):
        assert torch.equal(torch.cat([getattr(few, name) for few in batches]), getattr(exposures, name))


def test_chosen_exposures_keep_their_places_and_belong_together():
    exposures, objects = make_exposures(), random_waves(*SIZES["all-different"], seed=3)
    chosen = torch.tensor([11, 0, 7])
    few = exposures.choose(chosen)
    assert few.canvases == exposures.canvases
    assert torch.equal(few.cut(objects), exposures.cut(objects)[chosen])
    for name in ("measured", "probes", "slopes", "starts"):
        assert torch.equal(getattr(few, name), getattr(exposures, name)[chosen])


def test_exposures_are_moved_to_a_device_whole_or_left_where_they_are():
    exposures = make_exposures()
    away, here = exposures.to(torch.device("meta")), exposures.to(None)
    assert {away.measured.device.type, away.probes.device.type, away.slopes.device.type, away.starts.device.type} == {
        "meta"
    }
    assert away.canvases == exposures.canvases
    assert away.bad is here.bad is None
    assert here.measured.data_ptr() == exposures.measured.data_ptr()


def test_bad_pixels_are_those_of_every_part():
    bad = torch.eye(8, dtype=torch.bool)
    exposures = replace(make_exposures(), bad=bad)
    for part in (exposures.choose(torch.tensor([11, 0, 7])), exposures.batch(12, 4), exposures.to(None)):
        assert torch.equal(part.bad, bad)
    assert exposures.to(torch.device("meta")).bad.is_meta


@pytest.mark.violation
@pytest.mark.parametrize("sizes", [(3, 23, 17), (2, 17, 23), (3, 17, 22), (1, 17, 23)])
def test_canvases_of_other_sizes_than_the_exposures_lie_on_are_refused(sizes):
    exposures = make_exposures()
    patches = exposures.cut(random_waves(3, 17, 23, seed=3))
    exposures.add(torch.zeros(3, 17, 23, dtype=torch.complex64), patches)
    with pytest.raises(ContractError, match=r"(?s)canvases.*self\.canvases\."):
        exposures.cut(random_waves(*sizes, seed=3))
    with pytest.raises(ContractError, match=r"(?s)sums.*self\.canvases\."):
        exposures.add(torch.zeros(sizes, dtype=torch.complex64), patches)


@pytest.mark.violation
def test_exposures_whose_parts_do_not_fit_together_are_refused():
    exposures = make_exposures()
    replace(exposures, measured=exposures.measured.clone(), bad=torch.eye(8, dtype=torch.bool))
    intensities = Diffraction.INTENSITY.declare(exposures.measured.square())
    for part in (
        {"measured": intensities},
        {"measured": exposures.measured[:, :7, :7]},
        {"probes": exposures.probes[:, 0]},
        {"probes": exposures.probes[:-1]},
        {"slopes": exposures.slopes.T},
        {"starts": exposures.starts.float()},
        {"starts": exposures.starts[1:]},
        {"bad": torch.eye(7, dtype=torch.bool)},
    ):
        with pytest.raises(ContractError, match=next(iter(part))):
            replace(exposures, **part)


# --- groups --------------------------------------------------------------------------------------------
def make_groups(B: int, C: int, P: int, N: int, room: float, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Patterns, offsets of mean 0, at most `room`, and probes, of which no two are alike."""
    rng = np.random.default_rng(seed)
    offsets = rng.uniform(-1, 1, (B, C, 1, 2))
    offsets -= offsets.mean(axis=1, keepdims=True)
    offsets *= room / max(np.abs(offsets).max(), 1e-9)
    images = torch.from_numpy(rng.uniform(0.1, 3, (B, C, N, N)).astype(np.float32))
    return images, torch.from_numpy(offsets.astype(np.float32)), random_waves(B, C, P, N, N, seed=seed)


@pytest.mark.parametrize(("N", "M"), [(16, 22), (16, 23), (13, 18), (13, 19)], ids=str)
@pytest.mark.parametrize(("B", "C", "P"), [(3, 4, 2), (4, 4, 1), (1, 9, 1), (2, 2, 2), (3, 1, 2)], ids=str)
def test_patches_of_groups_lie_where_each_is_put_by_itself(B, C, P, N, M):
    images, offsets, probe = make_groups(B, C, P, N, room=(M - N) // 2)
    exposures = group_exposures(images, offsets, probe, M)
    assert exposures.canvases == (B, M, M)
    places = windows(exposures)
    for n, (group, channel) in enumerate(np.ndindex(B, C)):
        # Index N//2 of the patch, and of the probe with it, at M//2 - offset.
        x, y = M // 2 - offsets[group, channel, 0].double().numpy()
        canvas, rows, columns = places[n]
        assert (canvas, rows.start, columns.start) == (group, np.floor(y) - N // 2, np.floor(x) - N // 2)
        expected = moved_probe(probe[group, channel].numpy(), x - np.floor(x), y - np.floor(y))
        np.testing.assert_allclose(exposures.probes[n], expected, atol=2e-5)
        assert torch.equal(exposures.measured[n], images[group, channel])


def test_a_patch_at_the_very_border_stays_on_its_canvas_in_spite_of_rounding():
    images, offsets, probe = make_groups(1, 2, 1, 16, room=3)
    for offset, corner in ((3.00005, 0), (3.0, 0), (-3.0, 6), (-3.00005, 6)):
        offsets[0, 0], offsets[0, 1] = offset, -offset
        exposures = group_exposures(images, offsets, probe, 22)
        assert exposures.starts.tolist() == [corner * 23, (6 - corner) * 23]
        torch.testing.assert_close(exposures.probes, probe.flatten(0, 1), atol=1e-3, rtol=0)


def test_groups_that_reach_beyond_their_canvas_are_refused():
    images, offsets, probe = make_groups(3, 4, 2, 16, room=3)
    assert len(group_exposures(images, offsets, probe, 22)) == 12
    with pytest.raises(ValueError, match="offsets to be at most 2 pixels"):
        group_exposures(images, offsets, probe, 21)


@pytest.mark.violation
def test_groups_with_channel_last_offsets_or_swapped_modes_are_refused():
    images, offsets, probe = make_groups(3, 4, 2, 16, room=3)
    group_exposures(images, offsets, probe, 22)
    with pytest.raises(ContractError, match="offsets"):
        group_exposures(images, offsets.permute(0, 2, 3, 1), probe, 22)
    with pytest.raises(ContractError, match="probe"):
        group_exposures(images, offsets, probe.transpose(1, 2), 22)


@pytest.mark.parametrize(("n", "P", "N"), [(3, 2, 16), (1, 1, 13), (16, 1, 16)])
def test_single_patterns_fill_canvases_of_their_own(n, P, N):
    measured, probe = random_waves(n, N, N, seed=0).abs(), random_waves(P, N, N, seed=1)
    exposures = single_exposures(measured, probe)
    objects = random_waves(n, N, N, seed=2)
    assert torch.equal(exposures.cut(objects), objects)
    assert torch.equal(exposures.measured, measured)
    assert all(torch.equal(each, probe) for each in exposures.probes)


# --- scans -----------------------------------------------------------------------------------------------
def coordinates(n: int = 11, seed: int = 0, left: float = -3.7, top: float = 40.2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return left + rng.uniform(0, 19, n), top + rng.uniform(0, 9, n)


@pytest.mark.parametrize("N", [7, 8])
@pytest.mark.parametrize("n", [1, 11])
def test_the_frame_of_a_scan_is_the_smallest_that_holds_every_patch(N, n):
    xcoords, ycoords = coordinates(n)
    (top, left), (height, width) = scan_frame(xcoords, ycoords, N)
    rows = {int(np.floor(y)) - N // 2 + i for y in ycoords for i in range(N)}
    columns = {int(np.floor(x)) - N // 2 + i for x in xcoords for i in range(N)}
    assert (top, top + height - 1) == (min(rows), max(rows))
    assert (left, left + width - 1) == (min(columns), max(columns))


@pytest.mark.parametrize("N", [7, 8])
@pytest.mark.parametrize("room", [0, 3])
def test_a_position_is_split_into_a_pixel_and_the_rest(N, room):
    xcoords, ycoords = coordinates()
    xcoords[2], ycoords[3] = 5.0, 44.0  # whole ones
    (top, left), (height, width) = scan_frame(xcoords, ycoords, N)
    anchor, shape = (top - room, left - 2 * room), (height + 2 * room, width + 3 * room)
    starts, fractions = locate(xcoords, ycoords, N, anchor, shape)
    for n, (_, rows, columns) in enumerate(windows_of(starts.numpy(), shape, N)):
        at = np.array([columns.start + left - 2 * room, rows.start + top - room]) + N // 2
        np.testing.assert_allclose(at + fractions[n].numpy(), [xcoords[n], ycoords[n]], atol=1e-5)
    assert (fractions >= 0).all()
    assert (fractions <= 1).all()
    assert fractions[2, 0] == fractions[3, 1] == 0


@pytest.mark.parametrize(
    ("less", "said"),
    [
        ((0, 0, 1, 0), "canvas of 14 rows, got patches on rows 0 to 14"),
        ((0, 0, 0, 1), "canvas of 25 columns, got patches on columns 0 to 25"),
        ((1, 0, 0, 0), "canvas of 15 rows, got patches on rows -1 to 13"),
        ((0, 2, 0, 0), "canvas of 26 columns, got patches on columns -2 to 23"),
    ],
    ids=["below", "right", "above", "left"],
)
def test_a_patch_beyond_the_canvas_of_a_scan_is_refused(less, said):
    xcoords, ycoords = coordinates()
    (top, left), (height, width) = scan_frame(xcoords, ycoords, 8)
    assert len(locate(xcoords, ycoords, 8, (top, left), (height, width))[0]) == 11
    with pytest.raises(ValueError, match=said):
        locate(xcoords, ycoords, 8, (top + less[0], left + less[1]), (height - less[2], width - less[3]))


@pytest.mark.parametrize(("P", "N"), [(1, 16), (2, 15)])
def test_the_exposures_of_a_scan_predict_the_patterns_that_a_simulation_expects(P, N):
    """Object, probe and positions to patterns, in a loop over exposures, and by an implementation of its own."""
    rng = np.random.default_rng(0)
    xcoords, ycoords = rng.uniform(20, 40, 7), rng.uniform(12, 20, 7)
    obj = random_waves(31, 53, seed=0).numpy()
    probe = gaussian_probe(N, sigma=N / 8, n_modes=P)
    measured = np.sqrt(diffraction_intensity(obj, probe, xcoords, ycoords)).astype(np.float32)
    starts, fractions = locate(xcoords, ycoords, N, (0, 0), obj.shape)
    exposures = scan_exposures(torch.from_numpy(measured), torch.from_numpy(probe), starts, fractions, obj.shape)
    assert exposures.canvases == (1, 31, 53)
    patches = exposures.cut(torch.from_numpy(obj).unsqueeze(0)).numpy()
    for patch, moved, expected in zip(patches, exposures.probes.numpy(), measured, strict=True):
        np.testing.assert_allclose(amplitude_of(patch * moved), expected, atol=1e-5)


@pytest.mark.parametrize("slopes", [(0.0, 0.0), (0.3, -0.2)], ids=["level", "tilted"])
def test_every_exposure_knows_the_slope_of_its_probe(slopes):
    rows, columns = np.mgrid[:32, :32]
    wave = gaussian_probe(32, curvature=0.0) * np.exp(1j * (slopes[0] * columns + slopes[1] * rows))
    probe = torch.from_numpy(wave.astype(np.complex64))
    images, offsets, _ = make_groups(3, 4, 1, 32, room=3.0)
    starts, fractions = locate(*coordinates(), 32, *scan_frame(*coordinates(), 32))
    shape = scan_frame(*coordinates(), 32)[1]
    for exposures in (
        group_exposures(images, offsets, probe.expand(3, 4, 1, 32, 32), 38),
        single_exposures(images.flatten(0, 1), probe),
        scan_exposures(images.flatten(0, 1)[:11], probe, starts, fractions, shape),
    ):
        np.testing.assert_allclose(exposures.slopes, [slopes] * len(exposures), atol=1e-4)


# --- moving probes ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("N", [8, 9])
def test_a_probe_that_is_moved_by_whole_pixels_is_rolled(N):
    probe = random_waves(2, N, N, seed=0)
    moved = shift_probe(probe, torch.tensor([[0.0, 0.0], [1.0, 0.0], [-2.0, 3.0]]))
    assert moved.shape == (3, 2, N, N)
    for image, (x, y) in zip(moved, [(0, 0), (1, 0), (-2, 3)], strict=True):
        np.testing.assert_allclose(image, np.roll(probe.numpy(), (y, x), axis=(1, 2)), atol=2e-6)


@pytest.mark.parametrize("N", [8, 9])
@pytest.mark.parametrize("P", [1, 2])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_probe_is_moved_by_a_part_of_a_pixel_as_its_fourier_series_is(N, P, n):
    fractions = np.random.default_rng(0).uniform(0, 1, (n, 2)).astype(np.float32)
    same, own = random_waves(P, N, N, seed=0), random_waves(n, P, N, N, seed=1)
    for probe, probes in ((same, same.expand(n, P, N, N)), (own, own)):
        moved = shift_probe(probe, torch.from_numpy(fractions))
        for image, each, (x, y) in zip(moved, probes.numpy(), fractions, strict=True):
            np.testing.assert_allclose(image, moved_probe(each, x, y), atol=1e-5)


def test_moves_add_up():
    probe = torch.from_numpy(gaussian_probe(32))
    half = torch.tensor([[0.5, 0.25]])
    moved = probe
    for _ in range(4):
        moved = shift_probe(moved, half)[0]
    np.testing.assert_allclose(moved, np.roll(probe.numpy(), (1, 2), axis=(1, 2)), atol=2e-6)


# --- what patterns ask of exit waves ------------------------------------------------------------------------
@pytest.mark.parametrize("P", [1, 2])
@pytest.mark.parametrize(("n", "N"), [(3, 16), (1, 15), (2, 8)])
def test_changes_of_exit_waves_and_misfits_equal_those_of_a_loop(P, n, N):
    exit_waves, measured = random_waves(n, P, N, N, seed=1), random_waves(n, N, N, seed=2).abs()
    changes, misfits = exit_wave_changes(exit_waves, measured)
    expected = [asked_change(*pair) for pair in zip(exit_waves.numpy(), measured.numpy(), strict=True)]
    np.testing.assert_allclose(changes, [change for change, _ in expected], atol=1e-4)
    np.testing.assert_allclose(misfits, [off for _, off in expected], rtol=1e-5)


@pytest.mark.parametrize("N", [15, 16])
def test_changed_exit_waves_have_the_measured_amplitudes_and_ask_for_nothing_more(N):
    exit_waves, measured = random_waves(3, 2, N, N, seed=1), random_waves(3, N, N, seed=2).abs()
    changed = exit_waves + exit_wave_changes(exit_waves, measured)[0]
    for waves, expected in zip(changed.numpy(), measured.numpy(), strict=True):
        np.testing.assert_allclose(amplitude_of(waves), expected, atol=1e-4)
    changes, misfits = exit_wave_changes(changed, measured)
    assert changes.abs().max() < 1e-4
    assert (misfits < 1e-4 * measured.sum(dim=(1, 2))).all()


def test_all_modes_of_a_pattern_are_changed_in_one_ratio():
    exit_waves, measured = random_waves(2, 3, 16, 16, seed=1), random_waves(2, 16, 16, seed=2).abs()
    far = to_far_field(exit_waves.numpy())
    ratios = to_far_field((exit_waves + exit_wave_changes(exit_waves, measured)[0]).numpy()) / far
    np.testing.assert_allclose(ratios, np.broadcast_to(ratios[:, :1].real, ratios.shape), rtol=2e-3, atol=2e-3)


def test_a_pattern_without_light_takes_all_of_its_exit_wave_away():
    exit_waves = random_waves(2, 2, 8, 8, seed=1)
    changes, misfits = exit_wave_changes(exit_waves, torch.zeros(2, 8, 8))
    torch.testing.assert_close(changes, -exit_waves)
    np.testing.assert_allclose(misfits, [amplitude_of(waves).sum() for waves in exit_waves.numpy()], rtol=1e-5)


@pytest.mark.parametrize("N", [15, 16])
def test_at_bad_pixels_far_fields_stay_as_they_are_whatever_stands_there(N):
    exit_waves, measured = random_waves(3, 2, N, N, seed=1), random_waves(3, N, N, seed=2).abs()
    bad = torch.zeros(N, N, dtype=torch.bool)
    bad[4:7, 2:9], bad[0, 0] = True, True  # nothing that is the same when it is shifted, turned or mirrored
    changes, misfits = exit_wave_changes(exit_waves, measured, bad)
    for waves, expected, change, misfit in zip(exit_waves.numpy(), measured.numpy(), changes, misfits, strict=True):
        believed = np.where(bad, amplitude_of(waves), expected)
        asked, off = asked_change(waves, believed)
        np.testing.assert_allclose(change, asked, atol=1e-4)
        assert float(misfit) == pytest.approx(off, rel=1e-5)
    again = exit_wave_changes(exit_waves, measured.masked_fill(bad, 1e3), bad)
    assert torch.equal(changes, again[0])
    assert torch.equal(misfits, again[1])
    assert not torch.allclose(changes, exit_wave_changes(exit_waves, measured)[0], atol=1e-3)


@pytest.mark.violation
@pytest.mark.parametrize("bad", [torch.zeros(15, 15, dtype=torch.bool), torch.zeros(16, 16)], ids=["size", "dtype"])
def test_bad_pixels_of_another_detector_or_kind_are_refused(bad):
    exit_waves, measured = random_waves(3, 2, 16, 16, seed=1), torch.ones(3, 16, 16)
    exit_wave_changes(exit_waves, measured, torch.zeros(16, 16, dtype=torch.bool))
    with pytest.raises(ContractError, match="'bad'"):
        exit_wave_changes(exit_waves, measured, bad)


@pytest.mark.parametrize("brightness", [1e-18, 1.0, 1e6])
@pytest.mark.parametrize("dark", ["waves", "pixels", "pattern", "everything"])
def test_where_there_is_no_light_changes_and_their_gradients_are_finite(dark, brightness):
    exit_waves, measured = brightness * random_waves(3, 2, 8, 8, seed=1), brightness * torch.ones(3, 8, 8)
    if dark in {"waves", "everything"}:
        exit_waves = torch.zeros_like(exit_waves)
    if dark in {"pattern", "everything"}:
        measured[1] = 0
    if dark == "pixels":
        measured[:, :3] = 0
    exit_waves.requires_grad_()
    changes, misfits = exit_wave_changes(exit_waves, measured)
    (torch.view_as_real(changes).sum() + misfits.sum()).backward()
    for values in (changes.detach(), exit_waves.grad):
        assert torch.isfinite(torch.view_as_real(values)).all()
    assert torch.isfinite(misfits).all()


@pytest.mark.violation
def test_exit_waves_without_an_axis_for_modes_are_refused():
    exit_waves, measured = random_waves(3, 2, 16, 16, seed=1), torch.ones(3, 16, 16)
    exit_wave_changes(exit_waves, measured)
    with pytest.raises(ContractError, match="exit_waves"):
        exit_wave_changes(exit_waves[:, 0], measured)


@pytest.mark.parametrize("P", [1, 2, 3])
@pytest.mark.parametrize("n", [1, 3])
def test_the_light_of_modes_adds_up(P, n):
    waves = random_waves(n, P, 8, 8, seed=0)
    np.testing.assert_allclose(light_of(waves), (np.abs(waves.numpy()) ** 2).sum(axis=1), rtol=1e-5)
