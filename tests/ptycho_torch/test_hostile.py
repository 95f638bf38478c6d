"""Files that are broken, mistaken or malicious: each is refused as the documentation says, and does nothing else."""

import pickle
import random
import re
import signal
import subprocess
import sys
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from ptycho_torch import cli
from ptycho_torch.formats import Geometry, ScanError, read_contents, write_contents
from ptycho_torch.formats.patterns import Patterns
from ptycho_torch.scan import Scan, load_scan, open_scan, save_scan

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    import hostile_inputs

    return hostile_inputs


@pytest.fixture
def files(hostile: ModuleType) -> ModuleType:
    import hostile_files

    return hostile_files


def rows(page: str, table: str) -> dict[str, str]:
    text = page.partition(f"<!-- {table} -->")[2].partition("<!-- end -->")[0]
    return dict(re.findall(r"^\| (.*?) \| (.*) \|$", text, re.MULTILINE)[1:])


# --- what the documentation says ------------------------------------------------------------------------
@pytest.mark.parametrize("table", ["archives", "scans", "hdf5", "products", "bundles"])
def test_each_input_of_the_documentation_is_refused_with_the_message_that_stands_there(
    hostile: ModuleType, table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    documented = rows((REPOSITORY / "docs/formats.md").read_text(), table)
    assert documented.keys() == hostile.TABLES[table][2].keys()
    for number, title in enumerate(documented):
        folder = tmp_path / str(number)
        folder.mkdir()
        told = hostile.message(table, title, folder)
        assert told == documented[title]
        assert "Expected" in told
        assert "got" in told
        assert told.startswith(("diffraction.h5" if table == "products" else "", hostile.TABLES[table][0]))
    assert not (tmp_path / "sprung").exists()


def test_the_files_that_are_spoilt_are_accepted_as_they_were(files: ModuleType, tmp_path: Path) -> None:
    """The accepting twin of every row of the tables."""
    files.npz()(tmp_path / "scan.npz")
    files.cxi(lambda file: None)(tmp_path / "scan.cxi")
    for name in ("scan.npz", "scan.cxi"):
        assert load_scan(tmp_path / name).n_positions == files.S
    files.product(lambda file: None)(tmp_path / "product.h5")
    assert read_contents(tmp_path / "product.h5").obj is not None
    files.member("diffraction", files.npy("(5, 8, 8)", np.full(320, 1.5, "f4").tobytes()))(tmp_path / "member.npz")
    assert load_scan(tmp_path / "member.npz").diffraction_amplitude.max() == 1.5


def test_the_trap_of_these_files_is_live(files: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(files.Trap()))
    assert (tmp_path / "sprung").is_dir()


def test_members_with_paths_are_ignored_and_written_nowhere(files: ModuleType, tmp_path: Path) -> None:
    import zipfile

    (tmp_path / "inner").mkdir()
    path = tmp_path / "inner" / "scan.npz"
    files.npz()(path)
    with zipfile.ZipFile(path, "a") as archive:
        for name in ("../escaped.npy", "/tmp/escaped.npy", "..\\escaped.npy"):
            archive.writestr(name, b"x")
    before = sorted(tmp_path.rglob("*"))
    assert load_scan(path).n_positions == files.S
    assert sorted(tmp_path.rglob("*")) == before


# --- bounded memory -------------------------------------------------------------------------------------
def most_allocated(call: Callable[[], Any]) -> int:
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("table", "title"),
    [
        ("archives", "4 PiB declared, nothing there"),
        ("archives", "bomb: 64 MiB of zeros in 64 KiB"),
        ("archives", "more declared than deflation can do"),
        ("hdf5", "64 MiB declared, one pattern written"),
        ("hdf5", "chunks of 64 MiB"),
    ],
)
def test_a_refused_file_makes_nobody_allocate_what_it_declares(
    hostile: ModuleType, table: str, title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, read, inputs = hostile.TABLES[table]
    inputs[title](tmp_path / name)
    for module in ("entry", "hdf5"):
        monkeypatch.setattr(f"ptycho_torch.formats.{module}.memory_limit_bytes", lambda: hostile.MEMORY_BYTES)

    def refused() -> None:
        with pytest.raises(ScanError):
            read(tmp_path / name)

    assert most_allocated(refused) < 24 * 2**20  # the positions of so many patterns are 6 MiB and are read


def big_archive(path: Path, n_patterns: int) -> None:
    noise = np.random.default_rng(0).uniform(0.1, 5, (64, 64, 64)).astype(np.float32)
    amplitude = np.broadcast_to(noise[None], (n_patterns // 64, *noise.shape)).reshape(-1, 64, 64)
    positions = np.random.default_rng(1).uniform(40, 300, (2, n_patterns))
    geometry = {"wavelength_m": 1e-10, "distance_m": 2.0, "detector_pixel_xy_m": np.array([75e-6, 75e-6])}
    np.savez(
        path,
        diffraction=amplitude,
        xcoords=positions[0],
        ycoords=positions[1],
        probeGuess=np.ones((64, 64), np.complex64),
        **geometry,
    )


def test_converting_never_holds_more_than_a_few_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ptycho_torch.formats.limits.BLOCK_BYTES", 2**19)
    monkeypatch.setattr("ptycho_torch.formats.archive.BLOCK_BYTES", 2**19)
    big_archive(tmp_path / "scan.npz", 512)  # 8 MiB of patterns
    assert most_allocated(lambda: load_scan(tmp_path / "scan.npz")) > 8 * 2**20
    for target in ("scan.cxi", "again.npz"):
        contents = read_contents(tmp_path / "scan.npz")
        write = partial(write_contents, tmp_path / target, contents)
        assert most_allocated(write) < 6 * 2**20
        assert len(open_scan(tmp_path / target).patterns) == 512


# --- random damage --------------------------------------------------------------------------------------
def damaged(content: bytes, lots: random.Random) -> bytes:
    spoilt = bytearray(content)
    kind = lots.random()
    if kind < 0.6:
        for _ in range(lots.choice([1, 1, 2, 8])):
            spoilt[lots.randrange(len(spoilt))] ^= 1 << lots.randrange(8)
    elif kind < 0.8:
        del spoilt[lots.randrange(len(spoilt)) :]
    else:
        start = lots.randrange(len(spoilt))
        spoilt[start : start + 16] = lots.randbytes(16)
    return bytes(spoilt)


@pytest.mark.parametrize("name", ["scan.npz", "scan.cxi", "product.h5"])
def test_a_damaged_file_is_refused_as_such_or_means_something_else(
    files: ModuleType, tmp_path: Path, name: str
) -> None:
    """Bits that an archive's checksum guards are all missed; HDF5 has no checksums, and lengths may change."""
    path, lots = tmp_path / name, random.Random(5)
    refusals: list[ScanError] = []
    writers = {"scan.npz": files.npz(), "scan.cxi": files.cxi(lambda file: None)}
    writers.get(name, files.product(lambda file: None))(path)
    good, read = path.read_bytes(), read_contents if name == "product.h5" else load_scan
    for _ in range(80):
        path.write_bytes(damaged(good, lots))
        try:
            with warnings.catch_warnings(action="ignore"):  # of NumPy, about absurd lengths
                read(path)
        except ScanError as error:
            refusals.append(error)
    assert {error.path for error in refusals} == {path}
    assert len(refusals) > (70 if name == "scan.npz" else 10)


# --- nothing half-written -------------------------------------------------------------------------------
@pytest.fixture
def source(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    folder = tmp_path / "source"
    folder.mkdir()
    scan = Scan(
        diffraction_amplitude=rng.uniform(0.1, 5, (40, 16, 16)).astype(np.float32),
        xcoords=rng.uniform(9, 60, 40),
        ycoords=rng.uniform(9, 60, 40),
        probe=np.ones((1, 16, 16), np.complex64),
        object_guess=np.ones((80, 80), np.complex64),
        geometry=Geometry(1e-10, 2.0, (75e-6, 75e-6)),
    )
    save_scan(scan, folder / "scan.cxi")
    return folder / "scan.cxi"


def after_some_patterns(monkeypatch: pytest.MonkeyPatch, raised: BaseException, n_blocks: int) -> None:
    """Let reading fail after some blocks of five patterns."""
    monkeypatch.setattr("ptycho_torch.formats.limits.BLOCK_BYTES", 5 * 16 * 16 * 4)
    real = Patterns.stored_blocks

    def stored_blocks(self: Patterns) -> Iterator[tuple[int, np.ndarray]]:
        nonlocal n_blocks
        for block in real(self):
            if n_blocks == 0:
                raise raised
            n_blocks -= 1
            yield block

    monkeypatch.setattr(Patterns, "stored_blocks", stored_blocks)


@pytest.mark.parametrize("before", [None, b"what was there"], ids=["new", "existing"])
@pytest.mark.parametrize(("raised", "code"), [(KeyboardInterrupt(), 130), (OSError(28, "disk full"), 2)])
@pytest.mark.parametrize(("target", "n_blocks"), [("scan.npz", 3), ("out.cxi", 3), ("out.cxi", 11)])
def test_a_conversion_that_is_interrupted_leaves_what_was_there(
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    target: str,
    n_blocks: int,
    raised: BaseException,
    code: int,
    before: bytes | None,
) -> None:
    folder = source.parent / "out"
    folder.mkdir()
    if before is not None:
        (folder / target).write_bytes(before)
    after_some_patterns(monkeypatch, raised, n_blocks)
    assert cli.main(["convert", str(source), str(folder / target), "--quiet"]) == code
    assert [path.name for path in folder.iterdir()] == ([target] if before else [])
    if before is not None:
        assert (folder / target).read_bytes() == before
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("target", ["object.tif", "object.h5", "result.npz", "product.h5"])
def test_results_that_cannot_be_finished_leave_nothing(
    source: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    for name in ("h5py.Dataset.attrs", "tifffile.TiffWriter.write", "numpy.lib.format.write_array"):
        monkeypatch.setattr(name, property(fail) if name.endswith("attrs") else fail)
    contents = ["--ptychodus"] if target in {"product.h5", "result.npz"} else []
    out = source.parent / "out"
    assert cli.main(["convert", str(source), str(out / target), "--quiet", *contents]) == 130
    assert list(out.iterdir()) == []


SLOW = """
import sys, time
from ptycho_torch.formats.patterns import Patterns
real = Patterns.stored_blocks
def slowly(self):
    for block in real(self):
        print("reading", flush=True)
        yield block
        time.sleep(60)
Patterns.stored_blocks = slowly
from ptycho_torch.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["interrupt", "terminate"])
def test_a_conversion_that_is_stopped_from_outside_leaves_nothing(source: Path, number: int) -> None:
    out = source.parent / "out"
    command = [sys.executable, "-c", SLOW, "convert", str(source), str(out / "scan.npz"), "--quiet"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "reading\n"
        assert [path.name[:9] for path in out.iterdir()] == [".scan.npz"]  # hidden until it is whole
        process.send_signal(number)
        _, error = process.communicate(timeout=30)
    assert (process.returncode, error) == (130, "ptycho-torch: interrupted\n")
    assert list(out.iterdir()) == []
