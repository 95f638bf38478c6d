"""Objects too large to be reconstructed at once: in tiles, whose results are turned to agree and blended.

Owns how a scan is cut and put together again; a tile by itself is `reconstruction` and `refinement`, and how phases are
made to agree is `phases`. The tiles follow from the scan and
a bound on memory alone. Several processes may share them, and add up to the same object, bit for bit; each works with
one thread, as sums depend on how many there are.

A tile *owns* the positions in a rectangle of the object. It is reconstructed from these and from those in a halo around
them, so that what is owned has neighbours on all sides. Beyond the rectangle its say in the object falls, to nothing at
the end of the halo. Tiles have global phases of their own, like any reconstruction; those of neighbours are compared
where both have a say.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Complex64, Float32, Float64
from tqdm.auto import tqdm

from ptycho_torch.contracts import ScanX, ScanY
from ptycho_torch.exposures import scan_frame
from ptycho_torch.phases import phases_that_agree
from ptycho_torch.ranks import Ranks, ranks, run_on_ranks
from ptycho_torch.reassembly import Placement
from ptycho_torch.reconstruction import ObjectPredictor, flat_placement, reconstruct
from ptycho_torch.refinement import Refinement, misfit_sums, refine
from ptycho_torch.scan import Scan, ScanOnDisk
from shapecheck import contract

__all__ = [
    "TILE_BYTES",
    "Tile",
    "cut_tiles",
    "pattern_bytes",
    "reconstruct_tiles",
    "scan_tiles",
    "tiled_misfit",
]

TILE_BYTES = 2**30  # that the reconstruction of a tile may take
_HALO_SIDES = 0.5  # of a patch; wider ones explain the patterns no better
_BYTES_PER_PIXEL = (32, 14)  # of a pattern, and of each probe mode, on their way through the network; measured


@dataclass(frozen=True)
class Tile:
    """A part of a scan that is reconstructed by itself.

    Attributes:
        left: Object pixels, as are the next three; infinite where the tile has no neighbour.
        right: Beyond the last position that is owned.
        top: Rows grow downwards.
        bottom: Likewise.
        owned: Which positions lie in the rectangle.
        used: Those, and the positions in the halo around it.
    """

    left: float
    right: float
    top: float
    bottom: float
    owned: np.ndarray
    used: np.ndarray


class _Reconstructed(NamedTuple):
    """What is kept of a tile until all are there."""

    obj: Complex64[np.ndarray, "H W"]
    say: Float32[np.ndarray, "H W"]  # in the object, counts
    light: Float32[np.ndarray, "H W"]  # of the owned positions, counts
    anchor: tuple[int, int]  # of all three
    misfits: Float64[np.ndarray, " epochs"]  # of its refinement
    measured: float  # sum of the amplitudes that these are relative to


def scan_tiles(scan: ScanOnDisk, tile_bytes: int = TILE_BYTES) -> list[Tile]:
    """Cut a scan into tiles, each of which can be reconstructed in so much memory.

    Args:
        scan: Of its patterns only number and size matter.
        tile_bytes: For patterns and probes of a tile on their way through the network.

    Raises:
        ValueError: The halo around a single position holds more than that.
    """
    most = tile_bytes // pattern_bytes(scan)
    return cut_tiles(scan.xcoords, scan.ycoords, _HALO_SIDES * scan.patterns.side, most)


def pattern_bytes(scan: ScanOnDisk) -> int:
    """Return what a pattern of a scan and its probe take on their way through the network."""
    of_pattern, of_mode = _BYTES_PER_PIXEL
    return scan.patterns.side**2 * (of_pattern + of_mode * len(scan.probe))


@contract
def cut_tiles(xcoords: ScanX, ycoords: ScanY, halo: float, most: int) -> list[Tile]:
    """Halve a scan, across its longer side, until each tile uses few enough positions.

    Args:
        xcoords: Column of each patch centre, object pixels.
        ycoords: Row of each patch centre, object pixels.
        halo: Object pixels around a tile, from which it uses positions without owning them.
        most: Positions that a tile may use.

    Returns:
        Tiles that own every position once.

    Raises:
        ValueError: The halo around what cannot be halved holds more positions.
    """
    everything = np.arange(len(xcoords))
    whole = Tile(-math.inf, math.inf, -math.inf, math.inf, everything, everything)
    return list(_halved(whole, xcoords, ycoords, halo, most))


def _halved(tile: Tile, x: np.ndarray, y: np.ndarray, halo: float, most: int) -> Iterator[Tile]:
    if len(tile.used) <= most:
        yield tile
        return
    spans = [float(np.ptp(coordinates[tile.owned])) for coordinates in (x, y)]
    across = int(spans[1] > spans[0])
    along = (x, y)[across]
    middle = float(np.median(along[tile.owned]))
    low, high = (("left", "right"), ("top", "bottom"))[across]
    halves = (
        _part(replace(tile, **{high: middle}), tile, x, y, halo),
        _part(replace(tile, **{low: middle}), tile, x, y, halo),
    )
    if any(len(half.used) == len(tile.used) or not len(half.owned) for half in halves):
        msg = (
            f"Expected a tile to hold at least the positions around one of its own, {len(tile.used)} within "
            f"{halo:g} pixels, got room for {most}. Allow more memory for a tile."
        )
        raise ValueError(msg)
    for half in halves:
        yield from _halved(half, x, y, halo, most)


def _part(bounds: Tile, whole: Tile, x: np.ndarray, y: np.ndarray, halo: float) -> Tile:
    """Return a tile with new bounds; all of its positions are among those of the whole one."""

    def inside(chosen: np.ndarray, more: float) -> np.ndarray:
        columns, rows = x[chosen], y[chosen]
        within_columns = (columns >= bounds.left - more) & (columns < bounds.right + more)
        return chosen[within_columns & (rows >= bounds.top - more) & (rows < bounds.bottom + more)]

    return replace(bounds, owned=inside(whole.owned, 0.0), used=inside(whole.used, halo))


def reconstruct_tiles(
    model: ObjectPredictor,
    scan: ScanOnDisk,
    tiles: Sequence[Tile],
    output_dir: Path,
    *,
    refine_epochs: int = 0,
    processes: int = 1,
    quiet: bool = True,
) -> Refinement:
    """Reconstruct the object of a scan, and refine it, tile by tile.

    What is in memory is one tile in each process; tiles that are done, and the object, are in files. Each tile is
    refined by itself, before it is blended with the others.

    Args:
        model: As for `reconstruction.reconstruct`.
        scan: Its patterns are read when their tile needs them.
        tiles: From `scan_tiles`.
        output_dir: Where these files are, without a name that outlives them; created where it does not exist.
        refine_epochs: How often each tile uses its patterns to be refined (`refinement.refine`).
        processes: That share the tiles, with a thread each; changes nothing in the result.
        quiet: No progress bar.

    Returns:
        The object as of `reconstruction.reconstruct`, memory-mapped; the scan's own probe; and the misfits of all
        tiles together, in which patterns in halos count more than once.

    Raises:
        ScanError: The file has become unreadable.
    """
    mean_counts = float(scan.energies().mean())
    blind = replace(scan, object_guess=None, object_truth=None)
    output_dir.mkdir(parents=True, exist_ok=True)
    # What is mapped into memory lives on when its file has lost its name; where names cannot be taken, they stay.
    with TemporaryDirectory(prefix=".tiles-", dir=output_dir, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if processes == 1:
            _work(model, blind, tiles, folder, mean_counts, refine_epochs, quiet)
        else:
            run_on_ranks(processes, _work, model, blind, tiles, folder, mean_counts, refine_epochs, quiet)
        misfits = _misfits(folder, len(tiles))
        return Refinement(_blended(folder, len(tiles)), torch.from_numpy(scan.probe), misfits)


def tiled_misfit(placement: Placement, scan: ScanOnDisk, tiles: Sequence[Tile]) -> float:
    """Return what `refinement.scan_misfit` does, with the patterns of one tile in memory at a time."""
    off = measured = 0.0
    for tile in tiles:
        part = _part_of(scan, tile.owned)
        anchor, shape = scan_frame(part.xcoords, part.ycoords, part.N)
        window = _window(shape, anchor, placement.anchor)
        cut = Placement(placement.obj[window], placement.weight[window], anchor, 0)
        sums = misfit_sums(cut, part, torch.from_numpy(part.probe))
        off, measured = off + sums[0], measured + sums[1]
    return off / measured


def _work(
    model: ObjectPredictor,
    scan: ScanOnDisk,
    tiles: Sequence[Tile],
    folder: Path,
    mean_counts: float,
    refine_epochs: int,
    quiet: bool,
) -> None:
    """Reconstruct this process's share of the tiles, and write each to its file."""
    own = ranks() or Ranks()
    if not scan.patterns.random_access:
        scan = replace(scan, patterns=scan.patterns.held())
    mine = range(own.rank, len(tiles), own.n_ranks)
    with _one_thread(), tqdm(mine, desc="Reconstructing", unit="tile", disable=quiet or own.rank > 0) as bar:
        for index in bar:
            done = _reconstructed(model, scan, tiles[index], mean_counts, refine_epochs)
            np.savez(_path(folder, index), **done._asdict(), shape=done.obj.shape)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _reconstructed(
    model: ObjectPredictor, scan: ScanOnDisk, tile: Tile, mean_counts: float, refine_epochs: int
) -> _Reconstructed:
    part = _part_of(scan, tile.used)
    seen = reconstruct(model, part, mean_counts=mean_counts)
    measured = part.total_amplitude
    if measured:
        refined = refine(seen, part, refine_epochs)
    else:  # dark, and nothing can be learned from it
        refined = Refinement(seen, torch.from_numpy(part.probe), [0.0] * refine_epochs)
    shape = (seen.obj.shape[0], seen.obj.shape[1])
    owned = flat_placement(_part_of(scan, tile.owned), mean_counts=mean_counts)
    light = np.zeros(shape, np.float32)
    light[_window(owned.weight.shape, owned.anchor, seen.anchor)] = owned.weight.numpy()
    return _Reconstructed(
        obj=refined.placement.obj.numpy(),
        say=seen.weight.numpy() * _trust(tile, shape, seen.anchor, _HALO_SIDES * scan.patterns.side),
        light=light,
        anchor=seen.anchor,
        misfits=np.array(refined.misfits, np.float64),
        measured=measured,
    )


def _part_of(scan: ScanOnDisk, chosen: np.ndarray) -> Scan:
    patterns = scan.patterns.read(chosen)
    return Scan(patterns, scan.xcoords[chosen], scan.ycoords[chosen], scan.probe, bad_pixels=scan.patterns.bad)


def _trust(tile: Tile, shape: tuple[int, int], anchor: tuple[int, int], halo: float) -> np.ndarray:
    """Return 1 on what a tile owns, falling to 0 at the end of the halo."""
    rows, columns = (first + np.arange(count) for first, count in zip(anchor, shape, strict=True))
    beyond_rows, beyond_columns = (
        np.maximum(np.maximum(low - pixels, pixels - high), 0.0)
        for pixels, low, high in ((rows, tile.top, tile.bottom), (columns, tile.left, tile.right))
    )
    beyond = np.maximum(beyond_rows[:, None], beyond_columns[None, :])
    return np.clip(1 - beyond / halo, 0, 1).astype(np.float32)


# --- putting together ------------------------------------------------------------------------------
def _blended(folder: Path, n_tiles: int) -> Placement:
    """Turn the tiles to agree, and average them by what each has to say."""
    anchors, shapes = _frames(folder, n_tiles)
    anchor = anchors.min(axis=0)
    extent = tuple(int(size) for size in (anchors + shapes).max(axis=0) - anchor)
    turns = phases_that_agree(*_products(folder, anchors, shapes), n_tiles)
    obj, said, light = (
        np.lib.format.open_memmap(folder / f"{name}.npy", "w+", kind, extent)
        for name, kind in (("obj", np.complex64), ("said", np.float32), ("light", np.float32))
    )
    for index in range(n_tiles):
        tile = _load(folder, index)
        window = _window(tile.obj.shape, tile.anchor, (int(anchor[0]), int(anchor[1])))
        obj[window] += tile.obj * tile.say * turns[index]
        said[window] += tile.say
        light[window] += tile.light
    for row in range(extent[0]):  # a few at a time, so that nothing as large as the object is in memory
        np.divide(obj[row], said[row], out=obj[row], where=said[row] > 0)
    return Placement(torch.from_numpy(obj), torch.from_numpy(light), (int(anchor[0]), int(anchor[1])), 0)


def _products(folder: Path, anchors: np.ndarray, shapes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for tiles that overlap how they are turned to each other, weighted by what both have to say."""
    ends, products = [], []
    for first in range(len(anchors)):
        one = _load(folder, first)
        meet = (anchors < anchors[first] + shapes[first]) & (anchors + shapes > anchors[first])
        for second in np.flatnonzero(meet.all(axis=1)):
            if second > first:
                other = _load(folder, int(second))
                ends.append((first, second))
                products.append(_product(one, other))
    return np.array(products, np.complex128), np.array(ends, np.int64).reshape(-1, 2)


def _product(one: _Reconstructed, other: _Reconstructed) -> complex:
    top, left = np.maximum(one.anchor, other.anchor)
    bottom, right = np.minimum(np.add(one.anchor, one.obj.shape), np.add(other.anchor, other.obj.shape))
    shape = (int(bottom - top), int(right - left))
    here, there = (_window(shape, (int(top), int(left)), tile.anchor) for tile in (one, other))
    both = np.minimum(one.say[here], other.say[there]).astype(np.float64)
    return complex(np.sum(both * one.obj[here].conj() * other.obj[there]))


def _window(shape: tuple[int, ...], anchor: tuple[int, int], frame: tuple[int, int]) -> tuple[slice, slice]:
    """Return where an image lies in another one."""
    top, left = anchor[0] - frame[0], anchor[1] - frame[1]
    return slice(top, top + shape[0]), slice(left, left + shape[1])


def _path(folder: Path, index: int) -> Path:
    return folder / f"tile_{index}.npz"


def _load(folder: Path, index: int) -> _Reconstructed:
    with np.load(_path(folder, index)) as file:
        top, left = file["anchor"]
        anchor, measured = (int(top), int(left)), float(file["measured"])
        return _Reconstructed(file["obj"], file["say"], file["light"], anchor, file["misfits"], measured)


def _misfits(folder: Path, n_tiles: int) -> list[float]:
    """Return the misfit of each epoch, in all tiles together."""
    off, measured = [], []
    for index in range(n_tiles):
        with np.load(_path(folder, index)) as file:
            measured.append(float(file["measured"]))
            off.append(file["misfits"] * measured[-1])
    return (np.sum(off, axis=0) / sum(measured)).tolist()


def _frames(folder: Path, n_tiles: int) -> tuple[np.ndarray, np.ndarray]:
    """Return anchor and shape of every tile."""
    frames = np.empty((2, n_tiles, 2), np.int64)
    for index in range(n_tiles):
        with np.load(_path(folder, index)) as file:  # which reads nothing but what it is asked for
            frames[:, index] = file["anchor"], file["shape"]
    return frames[0], frames[1]
