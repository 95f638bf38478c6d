"""Other programs read our files and we read theirs: the same values, the same places, the same patterns.

The references are cdtools and ptychodus themselves: their readers, their writers, their conversion of metres to
pixels, and the patterns that ptychodus simulates.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from ptycho_torch.formats import Geometry, completed, paired, read_contents, write_contents
from ptycho_torch.scan import Scan, save_scan, scan_of
from ptycho_torch.simulate import diffraction_intensity

# cdtools 0.3.2 passes the output of np.maximum by position, which NumPy has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Passing more than 2 positional arguments to np.maximum")

S, N, P, H, W = 7, 16, 2, 40, 53
GEOMETRY = Geometry(1.24e-10, 2.1, (75e-6, 60e-6))


def make_scan(seed: int = 0, modes: int = P) -> Scan:
    rng = np.random.default_rng(seed)
    wave, phase = rng.standard_normal((2, modes, N, N)), rng.uniform(-1, 1, (H, W))
    return Scan(
        diffraction_amplitude=np.sqrt(rng.poisson(9.0, (S, N, N))).astype(np.float32),
        xcoords=rng.uniform(9, W - 10, S),
        ycoords=rng.uniform(9, H - 10, S),
        probe=(wave[0] + 1j * wave[1]).astype(np.complex64),
        object_guess=np.exp(1j * phase).astype(np.complex64),
        geometry=GEOMETRY,
    )


@pytest.fixture
def scan() -> Scan:
    return make_scan()


@pytest.fixture
def cxi(scan: Scan, tmp_path: Path) -> Path:
    save_scan(scan, tmp_path / "scan.cxi")
    return tmp_path / "scan.cxi"


def counts(scan: Scan) -> np.ndarray:
    return np.rint(scan.diffraction_amplitude.astype(np.float64) ** 2)


def up_to_a_shift(coordinates: np.ndarray) -> np.ndarray:
    return coordinates - coordinates[0]


# --- h5py -------------------------------------------------------------------------------------------------
def test_h5py_finds_counts_metres_and_joules_where_cxi_has_them(cxi: Path, scan: Scan) -> None:
    with h5py.File(cxi) as file:
        entry = file["entry_1"]
        data, detector = entry["instrument_1/detector_1/data"], entry["instrument_1/detector_1"]
        np.testing.assert_array_equal(data, counts(scan))
        assert data.dtype == np.uint32
        assert file["cxi_version"][()] == 160
        assert detector["distance"][()] == 2.1
        assert (detector["x_pixel_size"][()], detector["y_pixel_size"][()]) == (75e-6, 60e-6)
        np.testing.assert_allclose(entry["instrument_1/source_1/energy"][()], 1.602e-15, rtol=1e-4)  # 10 keV
        translation = entry["sample_1/geometry_1/translation"][()]
        assert entry["data_1/translation"].id == entry["sample_1/geometry_1/translation"].id
        assert entry["data_1/data"].id == data.id
    # lambda * z / (N * pixel), by hand
    np.testing.assert_allclose(translation[:, 0], scan.xcoords * 1.24e-10 * 2.1 / (16 * 75e-6), rtol=1e-12)
    np.testing.assert_allclose(translation[:, 1], scan.ycoords * 1.24e-10 * 2.1 / (16 * 60e-6), rtol=1e-12)
    assert not translation[:, 2].any()


# --- cdtools ----------------------------------------------------------------------------------------------
def cdtools_pixels(dataset: Any) -> tuple[np.ndarray, np.ndarray]:
    """Positions (rows, columns) as cdtools computes them from what it read."""
    initializers = pytest.importorskip("cdtools.tools.initializers")
    interactions = pytest.importorskip("cdtools.tools.interactions")
    geometry = dataset.detector_geometry
    basis = initializers.exit_wave_geometry(
        torch.as_tensor(geometry["basis"], dtype=torch.float64),
        dataset.patterns.shape[-2:],
        float(dataset.wavelength),
        float(geometry["distance"]),
    )
    pixels = interactions.translations_to_pixel(basis, dataset.translations.to(torch.float64)).numpy()
    return pixels[:, 0], pixels[:, 1]


def test_cdtools_reads_our_counts_and_places_them_where_we_do(cxi: Path, scan: Scan) -> None:
    datasets = pytest.importorskip("cdtools.datasets")
    dataset = datasets.Ptycho2DDataset.from_cxi(cxi)
    np.testing.assert_array_equal(dataset.patterns.numpy(), counts(scan))
    assert float(dataset.wavelength) == pytest.approx(1.24e-10)
    rows, columns = cdtools_pixels(dataset)
    np.testing.assert_allclose(up_to_a_shift(rows), up_to_a_shift(scan.ycoords), atol=1e-4)  # cdtools has float32
    np.testing.assert_allclose(up_to_a_shift(columns), up_to_a_shift(scan.xcoords), atol=1e-4)


DETECTORS = {
    "rows down, columns right": [[0, -1, 0], [-1, 0, 0]],
    "rows up": [[0, 1, 0], [-1, 0, 0]],
    "columns left": [[0, -1, 0], [1, 0, 0]],
    "rows left, columns down": [[1, 0, 0], [0, -1, 0]],
    "turned by 30 degrees": [[-0.5, -(0.75**0.5), 0], [-(0.75**0.5), 0.5, 0]],
}


@pytest.mark.parametrize("steps", DETECTORS.values(), ids=DETECTORS.keys())
def test_we_place_what_cdtools_wrote_where_cdtools_does_however_the_detector_is_turned(
    tmp_path: Path, steps: list[list[float]]
) -> None:
    datasets = pytest.importorskip("cdtools.datasets")
    rng = np.random.default_rng(1)
    sizes = np.array([60e-6, 75e-6])  # of a row, of a column
    written = datasets.Ptycho2DDataset(
        np.concatenate([rng.uniform(-1e-6, 1e-6, (S, 2)), np.zeros((S, 1))], axis=1),
        rng.poisson(9.0, (S, N, N)).astype(np.float32),
        wavelength=1.24e-10,
        detector_geometry={"distance": 2.1, "basis": (np.array(steps) * sizes[:, None]).T, "corner": None},
    )
    written.to_cxi(tmp_path / "cdtools.cxi")
    contents = read_contents(tmp_path / "cdtools.cxi")
    rows, columns = cdtools_pixels(datasets.Ptycho2DDataset.from_cxi(tmp_path / "cdtools.cxi"))
    np.testing.assert_allclose(up_to_a_shift(contents.ycoords), up_to_a_shift(rows), atol=1e-4)
    np.testing.assert_allclose(up_to_a_shift(contents.xcoords), up_to_a_shift(columns), atol=1e-4)
    assert (min(contents.xcoords), min(contents.ycoords)) == (N // 2, N // 2)
    np.testing.assert_allclose(contents.patterns.load() ** 2, written.patterns.numpy(), rtol=1e-6)


def test_what_cdtools_wrote_is_a_scan_once_there_is_a_probe(tmp_path: Path, scan: Scan, cxi: Path) -> None:
    datasets = pytest.importorskip("cdtools.datasets")
    datasets.Ptycho2DDataset.from_cxi(cxi).to_cxi(tmp_path / "cdtools.cxi")
    whole = scan_of(completed(read_contents(tmp_path / "cdtools.cxi"), read_contents(cxi))).load()
    np.testing.assert_array_equal(whole.diffraction_amplitude, scan.diffraction_amplitude)
    np.testing.assert_array_equal(whole.probe, scan.probe)
    np.testing.assert_allclose(up_to_a_shift(whole.xcoords), up_to_a_shift(scan.xcoords), atol=1e-4)


# --- ptychodus --------------------------------------------------------------------------------------------
def expect_product(product: Any, scan: Scan) -> None:
    """What ptychodus read is the scan: its waves, and its places in ptychodus' own pixels."""
    np.testing.assert_array_equal(product.probes.get_array(), scan.probe[None])
    np.testing.assert_array_equal(product.object_.get_array(), scan.object_guess[None])
    geometry = product.object_.get_geometry()
    probe = product.probes.get_geometry()
    for position, x, y in zip(product.probe_positions, scan.xcoords, scan.ycoords, strict=True):
        place = geometry.map_coordinates_probe_to_object(position)
        bounds = probe.resolve_patch_bounds(place.x_px, place.y_px)
        assert bounds.x_slice.start + bounds.dx == pytest.approx(x - N // 2, abs=1e-6)
        assert bounds.y_slice.start + bounds.dy == pytest.approx(y - N // 2, abs=1e-6)
    assert product.metadata.photon_energy_eV == pytest.approx(9998.7, abs=0.1)  # 1.24 Angstrom
    assert product.metadata.detector_distance_m == pytest.approx(2.1)


def test_ptychodus_reads_patterns_and_product_from_our_cxi(cxi: Path, scan: Scan) -> None:
    plugin = pytest.importorskip("ptychodus.plugins.cxi_file")
    dataset = plugin.CXIDiffractionFileReader().read(cxi)
    np.testing.assert_array_equal(dataset[0].get_patterns(), counts(scan))
    metadata = dataset.get_metadata()
    assert metadata.detector_distance_m == 2.1
    assert (metadata.detector_pixel_geometry.width_m, metadata.detector_pixel_geometry.height_m) == (75e-6, 60e-6)
    expect_product(plugin.CXIProductFileIO().read(cxi), scan)


@pytest.mark.parametrize("suffix", [".h5", ".npz"])
def test_ptychodus_reads_the_products_that_we_write(tmp_path: Path, cxi: Path, scan: Scan, suffix: str) -> None:
    plugins = {".h5": ("h5_product_file", "H5ProductFileIO"), ".npz": ("npz_product_file", "NPZProductFileIO")}
    module, reader = plugins[suffix]
    plugin = pytest.importorskip(f"ptychodus.plugins.{module}")
    write_contents(tmp_path / f"product{suffix}", read_contents(cxi), as_product=True)
    expect_product(getattr(plugin, reader)().read(tmp_path / f"product{suffix}"), scan)


def test_an_object_that_starts_elsewhere_keeps_its_place_in_a_product(tmp_path: Path, cxi: Path, scan: Scan) -> None:
    plugin = pytest.importorskip("ptychodus.plugins.h5_product_file")
    cut = replace(read_contents(cxi), obj=scan.object_guess[1:-2, 1:].copy(), origin_rc=(1, 1))
    write_contents(tmp_path / "product.h5", cut, as_product=True)
    moved = replace(scan, object_guess=cut.obj, xcoords=scan.xcoords - 1, ycoords=scan.ycoords - 1)
    expect_product(plugin.H5ProductFileIO().read(tmp_path / "product.h5"), moved)


def simulated_product(side: int) -> Any:
    """A product of ptychodus of odd or even sides, with positions between pixels."""
    rng = np.random.default_rng(2)
    api = pytest.importorskip("ptychodus.api.product")
    objects, probes = pytest.importorskip("ptychodus.api.object"), pytest.importorskip("ptychodus.api.probe")
    positions = pytest.importorskip("ptychodus.api.probe_positions")
    pixels = pytest.importorskip("ptychodus.api.geometry").PixelGeometry(width_m=1.1e-8, height_m=1.4e-8)
    rows, columns = np.mgrid[:47, :52]
    obj = np.exp(1j * (np.cos(rows / 2) + np.sin(columns / 1.7))).astype(np.complex64)
    steps = np.arange(side) - side // 2
    disc = np.exp(-(steps[:, None] ** 2 + steps**2) / 8 + 0.3j * steps)
    modes = np.stack([disc, 0.5j * disc * steps[:, None]]).astype(np.complex64)
    return api.Product(
        metadata=api.ProductMetadata("p", "", 1.7, 9000.0, 1e5, 0.0, 0.0, 0.0),
        probe_positions=positions.ProbePositionSequence(
            [positions.ProbePosition(i, *rng.uniform(-1.2e-7, 1.2e-7, 2)) for i in range(S)]
        ),
        probes=probes.ProbeSequence(modes[None], None, pixels),
        object_=objects.Object(obj[None], pixels, objects.ObjectCenter(2e-8, -3e-8)),
        losses=[],
    )


@pytest.mark.parametrize("side", [20, 19])
@pytest.mark.parametrize("name", ["product.cxi", "product.h5", "product.npz"])
def test_patterns_that_ptychodus_simulates_are_those_of_its_product_in_our_frame(
    tmp_path: Path, side: int, name: str
) -> None:
    """Signs, order of the axes and the middle of the patch, judged by light: half a pixel off is far off."""
    simulate = pytest.importorskip("ptychodus.api.simulate.diffraction")
    io, plugin = pytest.importorskip("ptychodus.api.io"), pytest.importorskip("ptychodus.plugins.cxi_file")
    npz = pytest.importorskip("ptychodus.plugins.npz_product_file")
    product = simulated_product(side)
    data = simulate.generate_diffraction_data(product)
    io.save_diffraction_data(tmp_path / "diffraction.h5", data)
    writers = {".cxi": plugin.CXIProductFileIO(), ".npz": npz.NPZProductFileIO()}
    if name == "product.h5":
        io.save_product(tmp_path / name, product)
    else:
        writers[Path(name).suffix].write(tmp_path / name, product)
    contents = paired(completed(read_contents(tmp_path / "diffraction.h5"), read_contents(tmp_path / name)))
    scan = scan_of(contents).load()
    measured = scan.diffraction_amplitude / np.linalg.norm(scan.diffraction_amplitude)

    def misfit(dx: float, dy: float) -> float:
        intensity = diffraction_intensity(scan.object_guess, scan.probe, scan.xcoords + dx, scan.ycoords + dy)
        amplitude = np.sqrt(intensity)
        return float(np.abs(amplitude / np.linalg.norm(amplitude) - measured).sum() / measured.sum())

    assert misfit(0, 0) < 1e-4
    for shift in ((0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5)):
        assert misfit(*shift) > 0.03
    assert scan.geometry.object_pixel_xy_m(side) == pytest.approx((1.1e-8, 1.4e-8))


def test_patterns_and_positions_of_ptychodus_are_paired_by_their_numbers(tmp_path: Path, cxi: Path, scan: Scan) -> None:
    contents = replace(read_contents(cxi), patterns=None)
    write_contents(tmp_path / "product.h5", contents, as_product=True)
    chosen = np.array([5, 2, 3])
    with h5py.File(tmp_path / "diffraction.h5", "w") as file:
        file["patterns"], file["indexes"] = counts(scan)[chosen], chosen
    patterns, product = read_contents(tmp_path / "diffraction.h5"), read_contents(tmp_path / "product.h5")
    joined = paired(completed(patterns, product))
    np.testing.assert_allclose(joined.xcoords, scan.xcoords[chosen], atol=1e-9)
    np.testing.assert_array_equal(joined.patterns.load(), scan.diffraction_amplitude[chosen])
