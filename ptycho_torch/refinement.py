"""An object that a network has seen, refined until it explains the patterns: a few epochs of an iterative engine.

Owns the engine. It starts where reassembly stops, on the canvas of the whole scan, and needs no network: from a flat
object it is an ordinary reconstruction, only slower to converge. It never sees a truth and touches no file.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ptycho_torch._waves import added_modes, squared_modulus
from ptycho_torch.contracts import PhysicalProbe
from ptycho_torch.exposures import exit_wave_changes, light_of, locate, shift_probe, shift_ramps
from ptycho_torch.helper import diffract
from ptycho_torch.moments import integrate_slopes, moments
from ptycho_torch.reassembly import Placement
from ptycho_torch.scan import Scan
from shapecheck import contract

__all__ = ["Refinement", "misfit_sums", "refine", "scan_misfit"]

_STEPS_PER_EPOCH = 16
_LARGEST_BATCH = 64  # patterns in a step; bounds the memory
_STEP = 0.5  # of a whole step of PIE; momentum makes it two and a half
_MOMENTUM = 0.8
_MOST_SETTLINGS = 6  # of the long waves
_LEAST_GAIN = 0.01  # of the misfit, for another one
_FALL = 0.6  # last part of the epochs, in which the step falls
_SMALLEST_STEP = 0.01  # of the first
_REGULARISATION = 0.1  # of the brightest point, in the denominators
_WORSE = 1.05  # a misfit so many times the best one: the steps were too large
_LEAST_LIGHT = 2e-3  # of the brightest point of the probe: less says nothing of a pixel


class Refinement(NamedTuple):
    """What an engine made of an object."""

    placement: Placement
    probe: PhysicalProbe  # as it was given, unless it was to be refined
    misfits: list[float]  # sum |predicted - measured| / sum measured, of each epoch as it went


@torch.no_grad()
def refine(
    placement: Placement,
    scan: Scan,
    epochs: int,
    *,
    refine_probe: bool = False,
    seed: int = 0,
    quiet: bool = True,
) -> Refinement:
    """Refine an object, and its probe, against every pattern of a scan.

    First the long waves of the object are settled by the moments of the patterns, as long as that explains them better;
    many epochs would go by before they were. Then each step takes a batch of patterns, gives their far-field waves the
    measured amplitudes, and brings the changes of the exit waves back to the object, each pixel weighted by the light
    it got: regularised PIE in mini-batches, with momentum. The step falls towards the end, so that the noise of the
    last batches averages out; where a step proves too large the engine slows down. Sub-pixel positions are shifts of
    the probe, by Fourier's theorem. At bad pixels of the detector nothing is asked for.

    Args:
        placement: The object to start from, in the units of the scan's probe, on a canvas that holds every patch.
        scan: All its patterns are used, but for bad pixels.
        epochs: How often each pattern is used; 0 changes nothing.
        refine_probe: Refine the probe, too.
        seed: Of the order of the patterns.
        quiet: No progress bar.

    Returns:
        The object of the epoch with the smallest misfit, with the weights and the anchor it had; the probe with it.

    Raises:
        ValueError: A patch reaches beyond the canvas, or `epochs` is negative.

    Source:
        Maiden, Johnson & Li, Optica 4 (2017) 736 (rPIE and mPIE); mini-batches: Odstrcil, Menzel & Guizar-Sicairos,
        Opt. Express 26 (2018) 3108.
    """
    if epochs < 0:
        msg = f"Expected epochs to be at least 0, got {epochs}."
        raise ValueError(msg)
    engine, order = _Engine(placement, scan, torch.from_numpy(scan.probe)), torch.Generator().manual_seed(seed)
    if epochs:
        engine.settle_long_waves()
    best, misfits = engine.snapshot(), list[float]()
    with tqdm(_steps(epochs), total=epochs, desc="Iterating", unit="epoch", disable=quiet or not epochs) as bar:
        for step in bar:
            misfit = engine.sweep(step, order, refine_probe=refine_probe)
            bar.set_postfix(misfit=f"{misfit:.4f}")
            if misfit <= min(misfits, default=misfit):
                best = engine.snapshot()
            elif misfit > _WORSE * min(misfits):
                engine.slow_down()
            misfits.append(misfit)
    obj, probe = best
    placed = torch.where(placement.obj == 0, placement.obj, obj)
    return Refinement(placement._replace(obj=placed), probe, misfits)


@contract
def scan_misfit(placement: Placement, scan: Scan, probe: PhysicalProbe) -> float:
    """Return sum |predicted - measured| / sum measured, over the amplitudes of all good pixels of a scan.

    Args:
        placement: The object in the units of the probe, on a canvas that holds every patch.
        scan: The patterns.
        probe: As it was for this object.
    """
    off, measured = misfit_sums(placement, scan, probe)
    return off / measured


@contract
@torch.no_grad()
def misfit_sums(placement: Placement, scan: Scan, probe: PhysicalProbe) -> tuple[float, float]:
    """Return sum |predicted - measured| and sum measured, of which `scan_misfit` is the ratio, for a part of a scan.

    Args:
        placement: As of `scan_misfit`, as are the others.
        scan: Possibly dark.
        probe: Likewise.
    """
    engine = _Engine(placement, scan, probe)
    return engine.off(), engine.measured


class _Engine:
    """An object and a probe on the way, with the momentum they have."""

    def __init__(self, placement: Placement, scan: Scan, probe: Tensor) -> None:
        self._patterns = scan.diffraction_amplitude
        self.measured = scan.total_amplitude
        self._shape = placement.obj.shape
        self._starts, self._fractions = _located(scan, placement)
        self._obj = torch.where(placement.obj == 0, _flat(placement), placement.obj).flatten()
        self._velocity = torch.zeros_like(self._obj)
        self._probe = probe.to(placement.obj.device, copy=True)
        self._brightest = squared_modulus(self._probe).sum(dim=0).max()
        self._bad = None if scan.bad_pixels is None else torch.from_numpy(scan.bad_pixels).to(placement.obj.device)
        self._speed = _STEP
        side = torch.arange(scan.N)
        self._window = (side[:, None] * self._shape[1] + side[None, :]).to(placement.obj.device)

    def snapshot(self) -> tuple[Tensor, Tensor]:
        """Return object and probe as they stand."""
        return self._obj.view(self._shape).clone(), self._probe.clone()

    def off(self) -> float:
        """Return how far from the patterns is what object and probe predict as they stand: sum |predicted - measured|."""
        return self._correction()[0]

    def settle_long_waves(self) -> None:
        """Correct what the moments of the patterns tell of the whole object, as long as they are explained better."""
        off, correction = self._correction()
        for _ in range(_MOST_SETTLINGS):
            before = self._obj
            self._obj = before * correction
            settled, correction = self._correction()
            if settled > off:
                self._obj = before
            if settled > off * (1 - _LEAST_GAIN):
                return
            off = settled

    def slow_down(self) -> None:
        """Stop, and go on with half the step."""
        self._velocity.zero_()
        self._speed /= 2

    def sweep(self, step: float, order: torch.Generator, *, refine_probe: bool) -> float:
        """Use every pattern once; return the misfit on the way."""
        off = 0.0
        n_patterns = len(self._patterns)
        batch = min(math.ceil(n_patterns / _STEPS_PER_EPOCH), _LARGEST_BATCH)
        for chosen in torch.randperm(n_patterns, generator=order).split(batch):
            off += self._improve(chosen, step * self._speed, refine_probe)
        return off / self.measured

    def _lit(self, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return for some patterns the pixels of their patches, the patches, their probes, and what was measured."""
        pixels = self._starts[chosen].view(-1, 1, 1) + self._window
        patches, probes = self._obj[pixels], shift_probe(self._probe, self._fractions[chosen])
        return pixels, patches, probes, torch.from_numpy(self._patterns[chosen.numpy()]).to(patches.device)

    def _correction(self) -> tuple[float, Tensor]:
        """Return how far off it is, and the factor that moments ask for: of energies the ratio, of centroids the rest."""
        off, sums = 0.0, torch.zeros(4, self._obj.numel(), device=self._obj.device)
        for chosen in torch.arange(len(self._patterns)).split(_LARGEST_BATCH):
            pixels, patches, probes, measured = self._lit(chosen)
            predicted = diffract((patches.unsqueeze(1) * probes).unsqueeze(1)).squeeze(1)
            if self._bad is not None:
                measured = torch.where(self._bad, predicted, measured)
            off += float((predicted - measured).abs().sum())
            (had, was), (has, lies) = moments(predicted), moments(measured)
            ratio = (has / had.clamp_min(torch.finfo(had.dtype).tiny)).sqrt()
            asked = torch.stack((torch.ones_like(ratio), ratio, *(lies - was).unbind(-1)))
            light = light_of(probes)
            sums.index_add_(1, pixels.flatten(), (asked[:, :, None, None] * light).flatten(1))
        lit = sums[0] > _LEAST_LIGHT * self._brightest
        ratio, *slopes = (
            torch.where(lit, total / sums[0], default) for total, default in zip(sums[1:], (1.0, 0.0, 0.0), strict=True)
        )
        phase = integrate_slopes(torch.stack(slopes).view(2, *self._shape)).flatten()
        return off, torch.polar(ratio, phase)

    def _improve(self, chosen: Tensor, step: float, refine_probe: bool) -> float:
        pixels, patches, probes, measured = self._lit(chosen)
        changes, off = exit_wave_changes(patches.unsqueeze(1) * probes, measured, self._bad)
        back, light = added_modes(probes.conj() * changes, 1), light_of(probes)
        self._move_object(pixels.flatten(), back.flatten(), light.flatten(), step)
        if refine_probe:
            self._move_probe(patches, changes, self._fractions[chosen], step)
        return float(off.sum())

    def _move_object(self, pixels: Tensor, back: Tensor, light: Tensor, step: float) -> None:
        change = torch.zeros_like(self._obj).index_add_(0, pixels, back)
        lit = torch.zeros_like(self._obj.real).index_add_(0, pixels, light)
        self._velocity.mul_(_MOMENTUM).add_(change / (lit + _REGULARISATION * self._brightest), alpha=step)
        self._obj += self._velocity

    def _move_probe(self, patches: Tensor, changes: Tensor, fractions: Tensor, step: float) -> None:
        """Move the probe without momentum: all patterns say the same of it."""
        back = torch.fft.fft2(patches.conj().unsqueeze(1) * changes) * shift_ramps(fractions, patches.shape[-1]).conj()
        seen = squared_modulus(patches).sum(dim=0)
        self._probe += step * torch.fft.ifft2(back.sum(dim=0)) / (seen + _REGULARISATION * seen.max())


def _steps(epochs: int) -> Iterator[float]:
    """Yield the size of the step in each epoch: 1, at the end falling by a cosine."""
    whole = epochs * (1 - _FALL)
    for epoch in range(epochs):
        fallen = min(max((epoch + 1 - whole) / (epochs - whole), 0.0), 1.0)
        yield _SMALLEST_STEP + (1 - _SMALLEST_STEP) * (1 + math.cos(math.pi * fallen)) / 2


def _flat(placement: Placement) -> Tensor:
    """What an object is taken for where no light fell: the mean modulus of the rest."""
    return placement.obj[placement.obj != 0].abs().mean().to(placement.obj.dtype)


def _located(scan: Scan, placement: Placement) -> tuple[Tensor, Tensor]:
    """Return the flat index of the first pixel of each patch, and what rounding down took off (x, y)."""
    height, width = placement.obj.shape
    starts, fractions = locate(scan.xcoords, scan.ycoords, scan.N, placement.anchor, (height, width))
    return starts.to(placement.obj.device), fractions.to(placement.obj.device)
