"""Our own formats: what is written is read back as it was, in every format that can hold it, and in one frame."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile

from ptycho_torch.contracts import Length, Moved
from ptycho_torch.formats import Geometry, ScanError, completed, read_contents, write_contents
from ptycho_torch.formats.contents import Contents
from ptycho_torch.formats.geometry import (
    along_detector,
    centred_offset,
    photon_energy_j,
    probe_translation,
    sample_translation,
    to_object_pixels,
    unturned_basis,
    wavelength_m,
)
from ptycho_torch.scan import Scan, load_scan, open_scan, save_scan
from shapecheck import ContractError

S, N, P, H, W = 7, 16, 2, 40, 53
GEOMETRY = Geometry(1.24e-10, 2.1, (75e-6, 60e-6))
DETECTOR = "entry_1/instrument_1/detector_1"


def make_scan(*, modes: int = P, counts: bool = True, side: int = N, seed: int = 0, **changes: Any) -> Scan:
    rng = np.random.default_rng(seed)
    wave, phase = rng.standard_normal((2, modes, side, side)), rng.uniform(-1, 1, (2, H, W))
    amplitude = np.sqrt(rng.poisson(9.0, (S, side, side))) if counts else rng.uniform(0, 5, (S, side, side))
    scan = Scan(
        diffraction_amplitude=amplitude.astype(np.float32),
        xcoords=rng.uniform(side, W - side, S),
        ycoords=rng.uniform(side, H - side, S),
        probe=(wave[0] + 1j * wave[1]).astype(np.complex64),
        object_guess=np.exp(1j * phase[0]).astype(np.complex64),
        object_truth=np.exp(1j * phase[1][:-1]).astype(np.complex64),
        geometry=GEOMETRY,
    )
    return replace(scan, **changes)


def assert_same_scan(read: Scan, scan: Scan, *, atol: float = 1e-9) -> None:
    for name in ("diffraction_amplitude", "probe", "object_guess", "object_truth"):
        np.testing.assert_array_equal(getattr(read, name), getattr(scan, name), err_msg=name)
    np.testing.assert_allclose(read.xcoords, scan.xcoords, rtol=0, atol=atol)
    np.testing.assert_allclose(read.ycoords, scan.ycoords, rtol=0, atol=atol)
    assert read.geometry == scan.geometry


# --- there and back -------------------------------------------------------------------------------------
@pytest.mark.parametrize("counts", [True, False], ids=["counts", "any amplitudes"])
@pytest.mark.parametrize(("modes", "side"), [(1, 16), (P, 16), (P, 15)])
@pytest.mark.parametrize("name", ["scan.cxi", "scan.npz"])
def test_a_scan_is_read_back_as_it_was_to_the_last_bit_of_its_amplitudes(
    tmp_path: Path, name: str, modes: int, side: int, counts: bool
) -> None:
    scan = make_scan(modes=modes, side=side, counts=counts)
    save_scan(scan, tmp_path / name)
    assert_same_scan(load_scan(tmp_path / name), scan)


def test_counts_are_written_as_counts_and_other_intensities_as_floats(tmp_path: Path) -> None:
    for counts, dtype in ((True, np.uint32), (False, np.float32)):
        save_scan(make_scan(counts=counts), tmp_path / "scan.cxi")
        with h5py.File(tmp_path / "scan.cxi") as file:
            assert file[f"{DETECTOR}/data"].dtype == dtype
            assert file[f"{DETECTOR}/data"].chunks == (1, N, N)


def test_the_square_root_of_a_square_is_the_number_itself_in_float32() -> None:
    """What lets amplitudes that are no roots of counts be stored as intensities."""
    rng = np.random.default_rng(0)
    amplitude = np.exp(rng.uniform(-20, 20, 10**6)).astype(np.float32)
    np.testing.assert_array_equal(np.sqrt(np.square(amplitude)), amplitude)


@pytest.mark.parametrize("change", [{"object_guess": None}, {"object_truth": None}], ids=["no guess", "no truth"])
def test_optional_objects_are_optional(tmp_path: Path, change: dict[str, None]) -> None:
    scan = make_scan(**change)
    for name in ("scan.cxi", "scan.npz"):
        save_scan(scan, tmp_path / name)
        assert_same_scan(load_scan(tmp_path / name), scan)


def test_the_same_scan_is_the_same_bytes(tmp_path: Path) -> None:
    for name in ("scan.cxi", "scan.npz"):
        contents = []
        for folder in ("first", "second"):
            save_scan(make_scan(), tmp_path / folder / name)
            contents.append((tmp_path / folder / name).read_bytes())
        assert contents[0] == contents[1]


def test_a_scan_without_geometry_is_written_as_npz_and_refused_as_cxi(tmp_path: Path) -> None:
    scan = make_scan(geometry=None)
    save_scan(scan, tmp_path / "scan.npz")
    assert_same_scan(load_scan(tmp_path / "scan.npz"), scan)
    with pytest.raises(ScanError, match="'geometry': Expected to be in the file"):
        save_scan(scan, tmp_path / "scan.cxi")
    assert [path.name for path in tmp_path.iterdir()] == ["scan.npz"]


def test_a_suffix_that_no_format_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match=r"ends in one of \.npz, \.cxi, .* got '\.png'"):
        save_scan(make_scan(), tmp_path / "scan.png")


# --- frames ---------------------------------------------------------------------------------------------
def contents_of(scan: Scan, tmp_path: Path) -> Contents:
    save_scan(scan, tmp_path / "contents.cxi")
    return read_contents(tmp_path / "contents.cxi")


def test_without_object_and_frame_the_outermost_patches_start_at_zero(tmp_path: Path) -> None:
    save_scan(make_scan(object_guess=None, object_truth=None), tmp_path / "scan.cxi")
    with h5py.File(tmp_path / "scan.cxi", "r+") as file:
        del file["entry_1/ptycho_torch"]
        file["entry_1/sample_1/geometry_1/translation"][:, :2] += [5e-4, -3e-4]  # a stage far from its origin
    scan, read = make_scan(), load_scan(tmp_path / "scan.cxi")
    assert (read.xcoords.min(), read.ycoords.min()) == (N // 2, N // 2)
    np.testing.assert_allclose(np.diff(read.xcoords), np.diff(scan.xcoords), atol=1e-9)
    np.testing.assert_allclose(np.diff(read.ycoords), np.diff(scan.ycoords), atol=1e-9)


@pytest.mark.parametrize("name", ["scan.cxi", "scan.npz"])
def test_an_object_that_starts_elsewhere_lies_under_the_same_patches(tmp_path: Path, name: str) -> None:
    """A result counts from the coordinates of its scan; in a scan the object starts at (0, 0)."""
    scan = make_scan(object_truth=None)
    cut = replace(contents_of(scan, tmp_path), obj=scan.object_guess[3:, 4:].copy(), origin_rc=(3, 4))
    write_contents(tmp_path / name, cut)
    read = load_scan(tmp_path / name)
    np.testing.assert_array_equal(read.object_guess, scan.object_guess[3:, 4:])
    np.testing.assert_allclose(read.xcoords, scan.xcoords - 4, atol=1e-9)
    np.testing.assert_allclose(read.ycoords, scan.ycoords - 3, atol=1e-9)


def test_an_object_and_a_truth_of_different_frames_cannot_share_a_scan(tmp_path: Path) -> None:
    moved = replace(contents_of(make_scan(), tmp_path), origin_rc=(3, 4))
    with pytest.raises(ScanError, match=r"object and truth in one frame, got the object at .* \(3, 4\)"):
        write_contents(tmp_path / "scan.npz", moved)


def test_a_result_takes_positions_and_probe_from_the_scan_that_it_was_made_of(tmp_path: Path) -> None:
    scan = make_scan(object_truth=None)
    save_scan(scan, tmp_path / "scan.cxi")
    obj, weight = scan.object_guess[2:-1, 1:].copy(), np.ones((H - 3, W - 1), np.float32)
    np.savez(tmp_path / "reconstruction.npz", object=obj, weight=weight, origin=np.array([2, 1]))
    whole = completed(read_contents(tmp_path / "reconstruction.npz"), read_contents(tmp_path / "scan.cxi"))
    assert whole.origin_rc == (2, 1)
    np.testing.assert_array_equal(whole.obj, obj)
    np.testing.assert_array_equal(whole.probe, scan.probe)
    np.testing.assert_allclose(whole.xcoords, scan.xcoords, atol=1e-9)
    write_contents(tmp_path / "product.h5", whole, as_product=True)
    product = read_contents(tmp_path / "product.h5")
    np.testing.assert_allclose(product.xcoords, scan.xcoords - 1, atol=1e-9)
    np.testing.assert_allclose(product.ycoords, scan.ycoords - 2, atol=1e-9)


def test_a_scan_without_probe_keeps_its_own_positions_when_another_file_gives_the_probe(tmp_path: Path) -> None:
    scan = make_scan()
    save_scan(scan, tmp_path / "scan.cxi")
    other = make_scan(modes=1, seed=5)
    other = replace(
        other, **{name: getattr(other, name)[2:] for name in ("diffraction_amplitude", "xcoords", "ycoords")}
    )
    save_scan(other, tmp_path / "other.npz")
    lacking = replace(read_contents(tmp_path / "scan.cxi"), probe=None, obj=None, truth=None)
    whole = completed(lacking, read_contents(tmp_path / "other.npz"))
    np.testing.assert_array_equal(whole.probe, other.probe)
    np.testing.assert_allclose(whole.xcoords, scan.xcoords, atol=1e-9)
    assert whole.obj is None


# --- detectors ------------------------------------------------------------------------------------------
def test_bad_pixels_take_the_median_of_the_good_ones_around_them(tmp_path: Path) -> None:
    scan, bad = make_scan(counts=False), np.zeros((N, N), np.uint32)
    bad[4, 5], bad[0, 0], bad[9:14, 2:8] = 1, 0x10, 0x1004
    bad[7, 7] = 0x1000  # has signal: a good pixel
    save_scan(scan, tmp_path / "scan.cxi")
    with h5py.File(tmp_path / "scan.cxi", "r+") as file:
        file[f"{DETECTOR}/mask"] = bad
        file[f"{DETECTOR}/data"][...] = np.where(bad % 0x1000, np.nan, file[f"{DETECTOR}/data"])
    read = load_scan(tmp_path / "scan.cxi").diffraction_amplitude
    intensity = np.square(scan.diffraction_amplitude)
    good = bad % 0x1000 == 0
    np.testing.assert_array_equal(read[:, good], scan.diffraction_amplitude[:, good])
    for row, column in np.argwhere(~good):
        for reach in range(2, N):
            rows = slice(max(row - reach, 0), row + reach + 1)
            columns = slice(max(column - reach, 0), column + reach + 1)
            if good[rows, columns].any():
                break
        for pattern in range(S):
            around = intensity[pattern, rows, columns][good[rows, columns]]
            assert read[pattern, row, column] == pytest.approx(np.sqrt(np.median(around)), rel=1e-6)
    said = "32 bad pixels take the median of the good ones around them; reconstruction leaves them out"
    assert read_contents(tmp_path / "scan.cxi").notes == (said,)


@pytest.mark.parametrize("counts", [True, False], ids=["counts", "any amplitudes"])
@pytest.mark.parametrize("name", ["scan.cxi", "scan.npz"])
def test_bad_pixels_are_read_back_as_they_were(tmp_path: Path, name: str, counts: bool) -> None:
    bad = np.zeros((N, N), bool)
    bad[3:5, 2:9], bad[0, 1] = True, True
    scan = make_scan(counts=counts)
    spoilt = np.where(bad, np.float32(99.5), scan.diffraction_amplitude)
    save_scan(replace(scan, diffraction_amplitude=spoilt, bad_pixels=bad), tmp_path / name)
    read = load_scan(tmp_path / name)
    np.testing.assert_array_equal(read.bad_pixels, bad)
    np.testing.assert_array_equal(read.diffraction_amplitude[:, ~bad], scan.diffraction_amplitude[:, ~bad])
    assert read.diffraction_amplitude[:, bad].max() <= scan.diffraction_amplitude.max()
    save_scan(scan, tmp_path / name)
    assert load_scan(tmp_path / name).bad_pixels is None


def test_bad_pixels_come_along_in_conversions_and_take_the_same_values(tmp_path: Path) -> None:
    bad = np.zeros((N, N), bool)
    bad[3:5, 2:9] = True
    save_scan(make_scan(bad_pixels=bad), tmp_path / "first.npz")
    for before, after in (("first.npz", "second.cxi"), ("second.cxi", "third.npz")):
        write_contents(tmp_path / after, read_contents(tmp_path / before))
    first, second, third = (load_scan(tmp_path / name) for name in ("first.npz", "second.cxi", "third.npz"))
    with h5py.File(tmp_path / "second.cxi") as file:
        assert file[f"{DETECTOR}/data"].dtype == np.uint32
        np.testing.assert_array_equal(file[f"{DETECTOR}/mask"], bad)
    for scan in (second, third):
        np.testing.assert_array_equal(scan.bad_pixels, bad)
        np.testing.assert_allclose(scan.diffraction_amplitude, first.diffraction_amplitude, rtol=1e-6)
    assert read_contents(tmp_path / "third.npz").notes == read_contents(tmp_path / "second.cxi").notes != ()


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        (np.zeros((N + 1, N + 1), bool), r"key 'bad_pixels': .*\(16, 16\), one mask for all patterns, got bool"),
        (np.zeros((N, N), np.float32), r"key 'bad_pixels': .*whole numbers or booleans"),
        (np.ones((N, N), bool), r"key 'bad_pixels': Expected a good pixel"),
    ],
    ids=["size", "dtype", "all of them"],
)
def test_bad_pixels_that_do_not_fit_are_refused(tmp_path: Path, bad: np.ndarray, named: str) -> None:
    save_scan(make_scan(), tmp_path / "scan.npz")
    with np.load(tmp_path / "scan.npz") as file:
        arrays = dict(file)
    np.savez(tmp_path / "scan.npz", **arrays, bad_pixels=np.eye(N, dtype=np.uint8))
    np.testing.assert_array_equal(load_scan(tmp_path / "scan.npz").bad_pixels, np.eye(N, dtype=bool))
    np.savez(tmp_path / "scan.npz", **arrays, bad_pixels=bad)
    with pytest.raises(ScanError, match=named):
        load_scan(tmp_path / "scan.npz")


def test_what_is_not_read_is_said(tmp_path: Path) -> None:
    save_scan(make_scan(), tmp_path / "scan.npz", extra={"mask": np.ones((N, N), bool)})
    assert read_contents(tmp_path / "scan.npz").notes == ("not read: mask",)
    save_scan(make_scan(), tmp_path / "scan.cxi")
    assert read_contents(tmp_path / "scan.cxi").notes == ()
    with h5py.File(tmp_path / "scan.cxi", "r+") as file:
        file[f"{DETECTOR}/data_dark"] = np.ones((N, N))
        del file["entry_1/ptychodus"], file["entry_1/ptycho_torch"]
        del file["entry_1/instrument_1/source_1/illumination"]
    notes = read_contents(tmp_path / "scan.cxi").notes
    assert [note.partition(" is ")[0].rpartition("/")[2] for note in notes] == ["data_dark, a background,", "data"]


@pytest.mark.parametrize("dropped", ["distance", "basis_vectors", "corner_position", "y_pixel_size"])
def test_lengths_that_follow_from_others_may_be_missing(tmp_path: Path, dropped: str) -> None:
    scan = make_scan(geometry=Geometry(1.24e-10, 2.1, (75e-6, 75e-6)))
    save_scan(scan, tmp_path / "scan.cxi")
    with h5py.File(tmp_path / "scan.cxi", "r+") as file:
        del file[f"{DETECTOR}/{dropped}"], file["entry_1/instrument_1/source_1/wavelength"]
        if dropped == "y_pixel_size":
            del file[f"{DETECTOR}/basis_vectors"]
    read = load_scan(tmp_path / "scan.cxi")
    np.testing.assert_allclose(read.xcoords, scan.xcoords, rtol=0, atol=1e-6)
    assert read.geometry.wavelength_m == pytest.approx(1.24e-10)
    assert read.geometry.distance_m == pytest.approx(2.1)
    assert read.geometry.detector_pixel_xy_m == pytest.approx((75e-6, 75e-6))


# --- units are contracts --------------------------------------------------------------------------------
def test_an_object_pixel_is_lambda_z_over_n_p() -> None:
    assert GEOMETRY.object_pixel_xy_m(N) == pytest.approx(
        (1.24e-10 * 2.1 / (16 * 75e-6), 1.24e-10 * 2.1 / (16 * 60e-6))
    )
    assert photon_energy_j(1.24e-10) == pytest.approx(1.602e-15, rel=1e-4)
    assert wavelength_m(photon_energy_j(1.24e-10)) == pytest.approx(1.24e-10)
    same = Geometry.from_object_pixel(1.24e-10, 2.1, GEOMETRY.object_pixel_xy_m(N), N)
    assert same.detector_pixel_xy_m == pytest.approx(GEOMETRY.detector_pixel_xy_m)
    assert Geometry.from_energy(9998.7, 2.1, 75e-6).wavelength_m == pytest.approx(1.24e-10, rel=1e-5)


@pytest.mark.parametrize("wrong", [0.0, -1.0, np.nan, np.inf])
def test_a_length_that_is_none_is_refused_by_name(wrong: float) -> None:
    with pytest.raises(ValueError, match="Expected distance_m to be positive and finite"):
        Geometry(1e-10, wrong, (1e-5, 1e-5))
    with pytest.raises(ValueError, match="detector_pixel_xy_m"):
        Geometry(1e-10, 1.0, (1e-5, wrong))


def test_a_sample_that_moves_up_is_probed_further_down_and_its_image_goes_down() -> None:
    """By hand: the probe moves the opposite way, y is up and rows run down, so rows grow with the y of the sample."""
    translation = np.array([[0.0, 0.0, 0.0], [0.0, 3e-7, 0.0], [2e-7, 0.0, 0.0]])
    x, y = along_detector(probe_translation(translation), unturned_basis((1.0, 1.0)))
    columns, rows = to_object_pixels(x, y, (1e-7, 1e-7))
    np.testing.assert_allclose(columns, [0, 0, 2], atol=1e-12)
    np.testing.assert_allclose(rows, [0, 3, 0], atol=1e-12)
    np.testing.assert_allclose(sample_translation(columns, rows, (1e-7, 1e-7)), translation, atol=1e-20)


@pytest.mark.parametrize(
    ("object_side", "patch_side", "expected"), [(8, 8, 4.0), (9, 8, 4.5), (9, 7, 4.0), (8, 7, 3.5)]
)
def test_the_middle_of_an_object_in_our_coordinates(object_side: int, patch_side: int, expected: float) -> None:
    """An object as large as the patch has it at coordinate N // 2; one that is a pixel larger, half a pixel further."""
    assert centred_offset(object_side, patch_side) == expected


@pytest.mark.violation
def test_metres_are_refused_where_object_pixels_are_asked_for(tmp_path: Path) -> None:
    x, y = np.linspace(0, 1e-6, S), np.linspace(0, 2e-6, S)
    to_object_pixels(x, y, (1e-7, 1e-7))  # which declares them metres
    with pytest.raises(ContractError, match=r"Length\.METRES"):
        make_scan(xcoords=x)
    assert make_scan(xcoords=x / 1e-7 + N).n_positions == S


@pytest.mark.violation
def test_where_the_sample_is_cannot_be_taken_for_where_the_probe_is() -> None:
    moved = Moved.SAMPLE.declare(np.zeros((S, 3)))
    with pytest.raises(ContractError, match=r"Moved\.SAMPLE"):
        along_detector(moved, unturned_basis((1.0, 1.0)))
    x, _ = along_detector(probe_translation(moved), unturned_basis((1.0, 1.0)))
    with pytest.raises(ContractError, match="kind"):
        to_object_pixels(x, x, (1.0, 1.0))  # columns for rows
    assert Length.METRES.declare(x) is x


# --- results --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["result.npz", "result.h5"])
def test_a_result_is_read_back_as_it_was(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(3)
    weight = rng.uniform(0, 9, (H, W)).astype(np.float32)
    whole = replace(contents_of(make_scan(), tmp_path), patterns=None, weight=weight, origin_rc=(-3, 5))
    write_contents(tmp_path / name, whole)
    read = read_contents(tmp_path / name)
    for field in ("obj", "weight", "probe", "xcoords", "ycoords"):
        np.testing.assert_array_equal(getattr(read, field), getattr(whole, field))
    assert (read.origin_rc, read.geometry, read.patterns) == ((-3, 5), GEOMETRY, None)


def test_the_reconstruction_of_infer_is_a_result(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "r.npz", object=np.ones((3, 4), np.complex64), weight=np.ones((3, 4), np.float32), origin=[1, 2]
    )
    read = read_contents(tmp_path / "r.npz")
    assert (read.obj.shape, read.origin_rc, read.probe, read.geometry) == ((3, 4), (1, 2), None, None)
    write_contents(tmp_path / "r.h5", read)
    with h5py.File(tmp_path / "r.h5") as file:
        assert sorted(file) == ["object", "origin", "weight"]
        assert "transmission" in file["object"].attrs["meaning"]


def test_a_picture_has_amplitude_and_phase_as_numbers_and_says_what_its_pages_are(tmp_path: Path) -> None:
    contents = replace(contents_of(make_scan(), tmp_path), weight=np.full((H, W), 2, np.float32), origin_rc=(3, -4))
    write_contents(tmp_path / "result.tif", contents)
    with tifffile.TiffFile(tmp_path / "result.tif") as file:
        obj, probe = file.series
        pages, waves = obj.asarray(), probe.asarray()
        described = json.loads(file.pages[0].description)
        named = json.loads(probe.pages[0].description)["labels"]
    assert pages.dtype == np.float32
    np.testing.assert_allclose(pages[0] * np.exp(1j * pages[1]), contents.obj, atol=1e-6)
    np.testing.assert_array_equal(pages[2], contents.weight)
    np.testing.assert_allclose(waves[0::2] * np.exp(1j * waves[1::2]), contents.probe, atol=1e-6)
    assert described["labels"] == ["amplitude", "phase, rad", "weight, counts"]
    assert described["origin_row_column"] == [3, -4]
    assert described["object_pixel_xy_m"] == pytest.approx(GEOMETRY.object_pixel_xy_m(N))
    assert named[2:] == ["probe 1 amplitude, counts**0.5", "probe 1 phase, rad"]


def test_real_scans_survive_the_way_through_cxi(shared: Path, tmp_path: Path) -> None:
    for name in ("sim_natural_64", "siemens_velociprobe_64"):
        scan = replace(load_scan(shared / "data" / f"{name}.npz"), geometry=GEOMETRY)
        save_scan(scan, tmp_path / "scan.cxi")
        assert_same_scan(load_scan(tmp_path / "scan.cxi"), scan)
        assert open_scan(tmp_path / "scan.cxi").patterns.random_access
