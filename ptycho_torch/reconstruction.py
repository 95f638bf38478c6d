"""A trained model and a whole scan to an object.

Owns the path from patterns to an object in the units of the scan. What comes after is `refinement`. It never sees a
truth and touches no file.
"""

from typing import Protocol

import torch

from ptycho_torch.contracts import Canvases, ScanProbe
from ptycho_torch.exposures import CANVAS_DIMS, Exposures, locate, scan_exposures, scan_frame
from ptycho_torch.model import normalise_probe
from ptycho_torch.reassembly import Placement
from ptycho_torch.scaling import probe_scaling
from ptycho_torch.scan import Scan
from ptycho_torch.unrolled import light_on
from shapecheck import contract

__all__ = ["ObjectPredictor", "flat_placement", "reconstruct"]

_LEAST_LIGHT = 1e-6  # of the brightest pixel of an object: less, and nothing was seen there


class ObjectPredictor(Protocol):
    """Anything that sees an object in exposures."""

    def reconstruct(self, exposures: Exposures) -> Canvases:
        """Estimate the object on each canvas; its global phase is free."""
        ...


@torch.no_grad()
def reconstruct(
    model: ObjectPredictor, scan: Scan, device: torch.device | None = None, *, mean_counts: float | None = None
) -> Placement:
    """Reconstruct the object of a scan from all its patterns at once.

    Args:
        model: Works on the normalised scale: patterns and probe of mean energy (N/2)**2, objects of order 1.
        scan: With the probe that it was taken with, which need not be the one that the model was trained with.
        device: Where the model is; by default the processor's memory.
        mean_counts: Per pattern, of what the scan is a part of; by default its own.

    Returns:
        The object in the units of the scan's probe, 0 where no light fell; the light on each pixel, counts; and the
        anchor. Nothing is dropped.
    """
    mean_counts = mean_counts or scan.mean_counts
    exposures, anchor = _exposed(scan, mean_counts)
    exposures = exposures.to(device)
    return _placement(model.reconstruct(exposures), exposures, anchor, scan.probe, mean_counts)


@torch.no_grad()
def flat_placement(scan: Scan, *, mean_counts: float | None = None) -> Placement:
    """Return an object that is the same everywhere, with the mean transmission of the scan, for want of a better one.

    Args:
        scan: Where it was lit.
        mean_counts: As of `reconstruct`.
    """
    mean_counts = mean_counts or scan.mean_counts
    exposures, anchor = _exposed(scan, mean_counts)
    flat = torch.ones(exposures.canvases, dtype=torch.complex64)
    return _placement(flat, exposures, anchor, scan.probe, mean_counts)


def _exposed(scan: Scan, mean_counts: float) -> tuple[Exposures, tuple[int, int]]:
    """Return the patterns of a scan, normalised, and the anchor of their canvas."""
    anchor, shape = scan_frame(scan.xcoords, scan.ycoords, scan.N)
    starts, fractions = locate(scan.xcoords, scan.ycoords, scan.N, anchor, shape)
    measured = torch.from_numpy(scan.diffraction_amplitude) * _normalising(scan.N, mean_counts)
    bad = None if scan.bad_pixels is None else torch.from_numpy(scan.bad_pixels)
    return scan_exposures(
        measured, normalise_probe(torch.from_numpy(scan.probe)), starts, fractions, shape, bad
    ), anchor


def _normalising(patch_size: int, mean_counts: float) -> float:
    """What brings patterns to the mean energy (N/2)**2."""
    return patch_size / 2 / mean_counts**0.5


@contract(dims=CANVAS_DIMS)  # a predictor may be anything, with or without a contract
def _placement(
    canvases: Canvases, exposures: Exposures, anchor: tuple[int, int], probe: ScanProbe, mean_counts: float
) -> Placement:
    scale = probe_scaling(probe)
    light = light_on(exposures)[0] / scale**2
    seen = light > _LEAST_LIGHT * light.max()
    return Placement(
        torch.where(seen, canvases[0] * (scale / _normalising(probe.shape[-1], mean_counts)), 0), light, anchor, 0
    )
