"""Scan files: what is read, and what is said about each way in which a file can be wrong."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptycho_torch.scan import Scan, ScanError, load_scan, patch_starts, save_scan
from shapecheck import ContractError

S, N, P, H, W = 5, 8, 2, 20, 23


def make_arrays(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    wave = rng.standard_normal((2, N, N))
    return {
        "diffraction": np.sqrt(rng.poisson(9.0, (S, N, N))).astype(np.float32),
        "xcoords": rng.uniform(5, 15, S),
        "ycoords": rng.uniform(5, 12, S),
        "probeGuess": (wave[0] + 1j * wave[1]).astype(np.complex64),
        "objectTruth": np.exp(1j * rng.uniform(-1, 1, (H, W))).astype(np.complex64),
    }


def write(folder: Path, changes: dict[str, Any] | None = None, name: str = "scan.npz") -> Path:
    """Write the arrays with changes; None removes a key, a function maps the good array."""
    arrays = make_arrays()
    for key, change in (changes or {}).items():
        if change is None:
            del arrays[key]
        else:
            arrays[key] = change(arrays[key]) if callable(change) else change
    path = folder / name
    np.savez(path, **arrays)
    return path


def refusal(path: Path) -> ScanError:
    with pytest.raises(ScanError) as caught:
        load_scan(path)
    assert str(path) in str(caught.value)
    assert caught.value.path == path
    return caught.value


def test_a_scan_is_read_as_it_stands_in_the_file(tmp_path: Path) -> None:
    arrays = make_arrays()
    scan = load_scan(write(tmp_path))
    np.testing.assert_array_equal(scan.diffraction_amplitude, arrays["diffraction"])
    np.testing.assert_array_equal(scan.xcoords, arrays["xcoords"])
    np.testing.assert_array_equal(scan.ycoords, arrays["ycoords"])
    np.testing.assert_array_equal(scan.probe, arrays["probeGuess"][None])
    np.testing.assert_array_equal(scan.object_truth, arrays["objectTruth"])
    assert scan.object_guess is None
    assert (scan.N, scan.n_positions, scan.path) == (N, S, tmp_path / "scan.npz")


def test_mean_counts_is_the_mean_over_patterns_of_the_sum_of_squares(tmp_path: Path) -> None:
    total = 0.0
    for value in make_arrays()["diffraction"].astype(np.float64).ravel():
        total += value**2
    assert load_scan(write(tmp_path)).mean_counts == pytest.approx(total / S)


def test_a_path_may_be_a_string(tmp_path: Path) -> None:
    assert load_scan(str(write(tmp_path))).n_positions == S


def test_the_old_name_of_the_patterns_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, {"diff3d": make_arrays()["diffraction"], "diffraction": None})
    assert load_scan(path).n_positions == S


def test_the_new_name_of_the_patterns_wins_over_the_old_one(tmp_path: Path) -> None:
    path = write(tmp_path, {"diff3d": np.zeros((1, 2), np.int8)})
    np.testing.assert_array_equal(load_scan(path).diffraction_amplitude, make_arrays()["diffraction"])


def test_keys_that_nobody_reads_may_hold_anything(tmp_path: Path) -> None:
    path = write(tmp_path, {"mask": np.ones((N, N), bool), "notes": np.array({"a": 1}, dtype=object)})
    assert load_scan(path).n_positions == S


def test_a_probe_with_modes_keeps_them(tmp_path: Path) -> None:
    modes = np.stack([make_arrays()["probeGuess"]] * P)
    assert load_scan(write(tmp_path, {"probeGuess": modes})).probe.shape == (P, N, N)


def test_guess_and_truth_may_differ_in_extent(tmp_path: Path) -> None:
    scan = load_scan(write(tmp_path, {"objectGuess": np.ones((H + 3, W - 1), np.complex64)}))
    assert scan.object_guess is not None
    assert scan.object_guess.shape == (H + 3, W - 1)


def test_a_scan_of_one_position_is_a_scan(tmp_path: Path) -> None:
    keys = ("diffraction", "xcoords", "ycoords")
    assert load_scan(write(tmp_path, dict.fromkeys(keys, lambda a: a[:1]))).n_positions == 1


def test_amplitudes_of_nothing_but_zero_and_one_are_believed(tmp_path: Path) -> None:
    faint = np.random.default_rng(1).integers(0, 2, (S, N, N)).astype(np.float32)
    assert load_scan(write(tmp_path, {"diffraction": faint})).diffraction_amplitude.max() == 1


def test_memory_is_contiguous_whatever_the_order_in_the_file(tmp_path: Path) -> None:
    scan = load_scan(write(tmp_path, {"diffraction": np.asfortranarray}))
    assert scan.diffraction_amplitude.flags.c_contiguous
    np.testing.assert_array_equal(scan.diffraction_amplitude, make_arrays()["diffraction"])


def _with(value: complex) -> Any:
    def put(array: np.ndarray) -> np.ndarray:
        array = array.copy()
        array.flat[3] = value
        return array

    return put


BAD_ARRAYS = {
    "missing patterns": ("diffraction", None, ["'diffraction'", "only objectTruth, probeGuess, xcoords, ycoords"]),
    "missing coordinate": ("xcoords", None, ["'xcoords'", "Did you mean 'ycoords'?"]),
    "missing probe": ("probeGuess", None, ["'probeGuess'", "to be in the file"]),
    "integer counts": (
        "diffraction",
        lambda a: np.rint(a**2).astype(np.uint16),
        ["amplitude, sqrt(counts)", "uint16 (5, 8, 8)", "np.sqrt(diffraction).astype(np.float32)"],
    ),
    "float counts": (
        "diffraction",
        lambda a: np.rint(a**2).astype(np.float32),
        ["only whole numbers", "np.sqrt(diffraction)"],
    ),
    "float64 counts": ("diffraction", lambda a: np.rint(a.astype(np.float64) ** 2), ["whole numbers", "float64"]),
    "float64 patterns": (
        "diffraction",
        lambda a: a.astype(np.float64),
        ["float32", "got float64", "diffraction.astype(np.float32)"],
    ),
    "complex patterns": (
        "diffraction",
        lambda a: a.astype(np.complex64),
        ["float32", "got complex64", "np.abs(diffraction).astype(np.float32)"],
    ),
    "object patterns": (
        "diffraction",
        lambda a: np.array([a, None], dtype=object),
        ["pickled Python objects, which are never loaded"],
    ),
    "text": ("diffraction", lambda a: a.astype(str), ["got str"]),
    "one pattern": ("diffraction", lambda a: a[0], ["three axes, (positions, N, N)", "(8, 8)"]),
    "oblong patterns": ("diffraction", lambda a: a[:, :, 1:], ["square patterns", "(5, 8, 7)"]),
    "positions last": (
        "diffraction",
        lambda a: np.moveaxis(a, 0, -1),
        ["square patterns", "(8, 8, 5)", "np.moveaxis(diffraction, -1, 0)"],
    ),
    "no pattern": ("diffraction", lambda a: a[:0], ["at least one pattern", "(0, 8, 8)"]),
    "NaN pattern": ("diffraction", _with(np.nan), ["finite values", "1 NaN or infinite of 320"]),
    "infinite pattern": ("diffraction", _with(np.inf), ["finite values", "1 NaN or infinite of 320"]),
    "negative amplitude": ("diffraction", _with(-0.5), ["amplitudes >= 0", "1 negative"]),
    "dark": ("diffraction", np.zeros_like, ["only zeros"]),
    "more positions than patterns": ("xcoords", lambda a: np.append(a, 7.5), ["5 positions", "got 6 positions"]),
    "fewer positions than patterns": ("ycoords", lambda a: a[1:], ["5 positions", "got 4 positions"]),
    "float32 coordinates": (
        "xcoords",
        lambda a: a.astype(np.float32),
        ["float64", "got float32", "astype(np.float64)"],
    ),
    "integer coordinates": ("ycoords", lambda a: a.astype(np.int64), ["float64", "got int64", "astype(np.float64)"]),
    "coordinates in a column": ("xcoords", lambda a: a[:, None], ["one axis", "(5, 1)"]),
    "NaN coordinate": ("ycoords", _with(np.nan), ["finite values"]),
    "real probe": ("probeGuess", lambda a: np.abs(a), ["complex64", "got float32", "astype(np.complex64)"]),
    "complex128 probe": ("probeGuess", lambda a: a.astype(np.complex128), ["complex64", "got complex128", "astype"]),
    "small probe": ("probeGuess", lambda a: a[1:, 1:], ["sides 8 x 8", "(7, 7)"]),
    "oblong probe": ("probeGuess", lambda a: a[1:], ["sides 8 x 8", "(7, 8)"]),
    "flat probe": ("probeGuess", lambda a: a[0], ["(N, N) or (modes, N, N)", "(8,)"]),
    "four axes of probe": ("probeGuess", lambda a: a[None, None], ["(N, N) or (modes, N, N)", "(1, 1, 8, 8)"]),
    "no mode": ("probeGuess", lambda a: a[None][:0], ["a probe with energy", "(0, 8, 8)"]),
    "dark probe": ("probeGuess", np.zeros_like, ["a probe with energy"]),
    "NaN probe": ("probeGuess", _with(complex(0, np.nan)), ["finite values"]),
    "real truth": ("objectTruth", lambda a: a.real, ["complex64", "got float32"]),
    "stack of truths": ("objectTruth", lambda a: a[None], ["two axes", "(1, 20, 23)"]),
    "NaN truth": ("objectTruth", _with(np.nan), ["finite values"]),
}


@pytest.mark.parametrize(("key", "change", "said"), BAD_ARRAYS.values(), ids=BAD_ARRAYS.keys())
def test_a_bad_array_is_refused_by_file_key_expected_and_found(
    tmp_path: Path, key: str, change: Any, said: list[str]
) -> None:
    error = refusal(write(tmp_path, {key: change}))
    assert error.key == key
    assert f"key '{key}'" in str(error)
    assert "Expected" in str(error)
    assert "got" in str(error)
    for fragment in said:
        assert fragment in str(error)


@pytest.mark.parametrize("key", ["float64 patterns", "complex128 probe", "float32 coordinates"])
def test_the_conversion_that_an_error_tells_makes_the_file_readable(tmp_path: Path, key: str) -> None:
    name, change, _ = BAD_ARRAYS[key]
    bad = dict(np.load(write(tmp_path, {name: change})))
    told = str(refusal(tmp_path / "scan.npz")).partition("Convert: ")[2].rstrip(".")
    bad[name] = eval(told, {"np": np, name: bad[name]})
    np.savez(tmp_path / "converted.npz", **bad)
    assert load_scan(tmp_path / "converted.npz").n_positions == S


def test_counts_converted_as_the_error_tells_are_read(tmp_path: Path) -> None:
    counts = np.random.default_rng(3).poisson(20.0, (S, N, N))
    refusal(write(tmp_path, {"diffraction": counts}))
    path = write(tmp_path, {"diffraction": np.sqrt(counts).astype(np.float32)})
    assert load_scan(path).n_positions == S


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    assert "got no such file" in str(refusal(tmp_path / "none.npz"))


def test_a_folder_is_not_a_scan(tmp_path: Path) -> None:
    assert "got a directory" in str(refusal(tmp_path))


@pytest.mark.parametrize(
    "content", [b"", b"\x93NUMPY\x01\x00", b"diffraction,x,y\n1,2,3\n"], ids=["empty", "npy", "text"]
)
def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "scan.npz"
    path.write_bytes(content)
    assert "Expected an NPZ file (a zip archive)" in str(refusal(path))


@pytest.mark.parametrize("share", [0.05, 0.5, 0.99])
def test_a_truncated_archive_is_refused(tmp_path: Path, share: float) -> None:
    path = write(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    assert "truncated or damaged" in str(refusal(path))


def test_a_flipped_byte_inside_an_array_is_refused_by_key(tmp_path: Path) -> None:
    path = write(tmp_path)
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("diffraction.npy").header_offset
    content = bytearray(path.read_bytes())
    content[start + 900] ^= 0xFF
    path.write_bytes(content)
    error = refusal(path)
    assert error.key == "diffraction"
    assert "readable" in str(error)


def test_a_member_that_is_no_array_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, {"probeGuess": None})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("probeGuess", b"not an array")
    assert "an array in NPY format" in str(refusal(path))


def test_nothing_pickled_is_ever_loaded(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return Path.touch, (tmp_path / "sprung",)  # type: ignore[return-value]

    path = write(tmp_path, {"xcoords": np.array([Trap()], dtype=object)})
    assert refusal(path).key == "xcoords"
    assert not (tmp_path / "sprung").exists()


def test_a_scan_error_survives_being_sent_between_processes() -> None:
    error = ScanError("scan.npz, key 'xcoords': Expected a, got b.", Path("scan.npz"), "xcoords")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.path, copy.key) == (str(error), error.path, error.key)


def test_an_extra_array_cannot_take_the_place_of_one_of_the_scan(tmp_path: Path) -> None:
    scan = load_scan(write(tmp_path))
    with pytest.raises(ValueError, match="got 'xcoords', which belongs to the scan"):
        save_scan(scan, tmp_path / "copy.npz", extra={"xcoords": np.arange(3.0)})
    assert not (tmp_path / "copy.npz").exists()


@pytest.mark.parametrize("modes", [1, P])
def test_a_saved_scan_is_read_back_unchanged(tmp_path: Path, modes: int) -> None:
    arrays = make_arrays()
    probe = np.stack([arrays["probeGuess"] * (p + 1) for p in range(modes)])
    guess = np.ones((H, W), np.complex64)
    scan = load_scan(write(tmp_path, {"probeGuess": probe, "objectGuess": guess}))
    save_scan(scan, tmp_path / "copy.npz")
    copy = load_scan(tmp_path / "copy.npz")
    for name in ("diffraction_amplitude", "xcoords", "ycoords", "probe", "object_guess", "object_truth"):
        np.testing.assert_array_equal(getattr(copy, name), getattr(scan, name))


def test_saving_replaces_a_file_and_leaves_nothing_else_behind(tmp_path: Path) -> None:
    scan = load_scan(write(tmp_path))
    save_scan(scan, tmp_path / "scan.npz", extra={"note": np.arange(3)})
    assert [path.name for path in tmp_path.iterdir()] == ["scan.npz"]
    np.testing.assert_array_equal(np.load(tmp_path / "scan.npz")["note"], np.arange(3))


def test_a_failed_save_leaves_the_old_file_as_it_was(tmp_path: Path) -> None:
    path = write(tmp_path)
    before = path.read_bytes()
    scan = load_scan(path)

    class Unwritable:
        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            msg = "disk full"
            raise RuntimeError(msg)

    with pytest.raises(RuntimeError, match="disk full"):
        save_scan(scan, path, extra={"note": Unwritable()})  # type: ignore[dict-item]
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["scan.npz"]


def test_patches_start_half_a_patch_before_their_centre() -> None:
    whole, part = patch_starts(np.array([4.0, 6.25, 15.0]), N, 19, "xcoords")
    assert whole.tolist() == [0, 2, 11]
    assert part.tolist() == [0.0, 0.25, 0.0]


def test_an_odd_patch_starts_so_that_its_index_n_half_sits_at_the_centre() -> None:
    whole, part = patch_starts(np.array([3.5]), 7, 20, "xcoords")
    assert (whole.tolist(), part.tolist()) == ([0], [0.5])


@pytest.mark.parametrize("outside", [3.99, 15.01])
def test_a_patch_that_leaves_the_object_is_an_error_naming_the_position(outside: float) -> None:
    with pytest.raises(ValueError, match=rf"ycoords\[1\] = {outside:.3f} \(1 such positions\)"):
        patch_starts(np.array([8.0, outside]), N, 19, "ycoords")


@pytest.mark.violation
def test_a_scan_cannot_be_made_with_fewer_positions_than_patterns() -> None:
    arrays = make_arrays()
    with pytest.raises(ContractError, match="xcoords"):
        Scan(arrays["diffraction"], arrays["xcoords"][1:], arrays["ycoords"], arrays["probeGuess"][None])


@pytest.mark.violation
def test_a_scan_cannot_be_made_with_bad_pixels_of_another_detector() -> None:
    arrays = make_arrays()
    fields = (arrays["diffraction"], arrays["xcoords"], arrays["ycoords"], arrays["probeGuess"][None])
    bad = np.zeros(arrays["diffraction"].shape[1:], bool)
    bad[0, :3] = True
    total = arrays["diffraction"].sum(dtype=np.float64) - arrays["diffraction"][:, 0, :3].sum(dtype=np.float64)
    assert Scan(*fields, bad_pixels=bad).total_amplitude == pytest.approx(total)
    with pytest.raises(ContractError, match="bad_pixels"):
        Scan(*fields, bad_pixels=bad[1:, 1:])


@pytest.mark.violation
def test_a_scan_cannot_be_made_with_a_flat_guess() -> None:
    arrays = make_arrays()
    with pytest.raises(ContractError, match="object_guess"):
        Scan(
            arrays["diffraction"],
            arrays["xcoords"],
            arrays["ycoords"],
            arrays["probeGuess"][None],
            object_guess=np.ones(3, np.complex64),
        )


@pytest.mark.parametrize(
    ("name", "expected"),
    [("sim_natural_64", (1024, 64)), ("siemens_velociprobe_64", (516, 64)), ("siemens_velociprobe_128", (516, 128))],
)
def test_real_scans_are_read(shared: Path, name: str, expected: tuple[int, int]) -> None:
    scan = load_scan(shared / "data" / f"{name}.npz")
    assert (scan.n_positions, scan.N) == expected
    assert (scan.object_truth is None) == name.startswith("siemens")
