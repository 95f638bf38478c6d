"""What the command `convert` does; apart from the other commands, since it needs no network."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tqdm.auto import tqdm

from ptycho_torch.config_params import ConfigError
from ptycho_torch.formats import Contents, Geometry, completed, paired, read_contents, writable_suffix, write_contents
from ptycho_torch.scan import scan_of

__all__ = ["convert"]


def convert(
    source: Path,
    target: Path,
    *,
    supplement: Path | None = None,
    as_product: bool = False,
    energy_ev: float | None = None,
    distance_m: float | None = None,
    detector_pixel_m: float | None = None,
    quiet: bool = False,
) -> None:
    """Convert a scan or a result to another format.

    Args:
        source: Its content tells the format.
        target: Its suffix tells the format.
        supplement: Where to take from what the source does not hold.
        as_product: Write a product of ptychodus.
        energy_ev: Photon energy, where no file knows it.
        distance_m: Sample to detector, likewise.
        detector_pixel_m: Side of a detector pixel, likewise.
        quiet: Print nothing, no progress bar.

    Raises:
        ScanError: A file is not usable, or something that the format needs is missing.
        ConfigError: The lengths are incomplete, or a file knows them already.
    """
    say = _silent if quiet else print
    if target.exists() and target.samefile(source):
        msg = f"Expected OUT to be another file than IN, got {target} for both."
        raise ConfigError(msg, "target")
    suffix = writable_suffix(target, as_product=as_product)
    contents = read_contents(source)
    if supplement is not None:
        contents = completed(contents, read_contents(supplement))
    contents = _with_lengths(paired(contents), energy_ev, distance_m, detector_pixel_m)
    _say_contents(contents, say)
    n_reads = 0
    if contents.patterns is not None and suffix in {".npz", ".cxi"} and not as_product:
        scan_of(contents)  # which refuses what is no scan before anything is written
        # To tell counts from other amplitudes, CXI reads them twice.
        n_reads = len(contents.patterns) * (2 if suffix == ".cxi" else 1)
    with tqdm(total=n_reads, desc="Converting", unit="pattern", delay=1, disable=quiet) as bar:
        write_contents(target, contents, as_product=as_product, tick=bar.update)
    say(f"written     {target}")


def _with_lengths(
    contents: Contents, energy_ev: float | None, distance_m: float | None, detector_pixel_m: float | None
) -> Contents:
    """Add a geometry that the user knows and the files do not."""
    lengths = {"--energy_ev": energy_ev, "--distance_m": distance_m, "--detector_pixel_m": detector_pixel_m}
    given = [name for name, value in lengths.items() if value is not None]
    if not given:
        return contents
    if contents.geometry is not None:
        msg = f"Expected {given[0]} only where no file knows it, got {contents.geometry} from the file. Leave it out."
        raise ConfigError(msg, given[0])
    if energy_ev is None or distance_m is None or detector_pixel_m is None:
        msg = f"Expected {', '.join(lengths)} together, got {', '.join(given)}."
        raise ConfigError(msg, given[0])
    return replace(contents, geometry=Geometry.from_energy(energy_ev, distance_m, detector_pixel_m))


def _say_contents(contents: Contents, say: Callable[[str], None]) -> None:
    patterns, probe, obj = contents.patterns, contents.probe, contents.obj
    if patterns is not None:
        say(f"patterns    {len(patterns)} of {patterns.side} x {patterns.side} pixels")
    if contents.xcoords is not None:
        say(f"positions   {len(contents.xcoords)}")
    if probe is not None:
        say(f"probe       {len(probe)} modes of {probe.shape[-1]} x {probe.shape[-1]} pixels")
    if obj is not None:
        say(f"object      {obj.shape[0]} x {obj.shape[1]} pixels, index [0, 0] at (row, col) = {contents.origin_rc}")
    for note in contents.notes:
        say(f"note        {note}")


def _silent(text: str) -> None:
    """Print nothing."""
