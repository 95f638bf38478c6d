"""The network: a few steps of an iterative engine, unrolled, with what each of them does to the object learned.

All of it works on canvases, not on patches: however many patterns overlap on a pixel, it is convolved once. A stage

1. compares some of the patterns with what the object predicts for them and asks, by the physics, for a change of the
   object (a step of PIE, averaged by light);
2. shows that change, and the object, to a small convolutional network, which says what else to change.

The stages take the patterns in turns, a quarter each, so that eight of them look at every pattern twice; before them
the long waves of the object are taken from the moments of the patterns. Nothing learned yet means plain steps of PIE.
The network sees no absolute phase, and only light relative to its brightest point: it knows no scan, probe or size, so
that what was learned on one scan serves for others.

Source:
    Learned iterative reconstruction: Adler & Oktem, IEEE TMI 37 (2018) 1322. PIE: Maiden, Johnson & Li, Optica 4 (2017)
    736. Ordered subsets: Hudson & Larkin, IEEE TMI 13 (1994) 601.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ptycho_torch._waves import added_modes, squared_modulus
from ptycho_torch.contracts import Canvases, CanvasLight
from ptycho_torch.exposures import CANVAS_DIMS, CanvasSizes, Exposures, exit_wave_changes, light_of
from ptycho_torch.helper import diffract
from ptycho_torch.moments import integrate_slopes, moments
from shapecheck import contract

__all__ = ["UnrolledNetwork", "light_on"]

_STAGES = 8
_MOST_PARTS = 4  # that the patterns are taken in
_LEAST_OF_A_PART = 4  # patterns on a canvas, or there are fewer parts
_WIDTH = 24  # channels, at half the resolution
_MEMORY = 2  # channels of the canvas that stages hand on for themselves
_INPUTS = 6 + _MEMORY
_CHUNK = 32  # patterns worked on at a time: few enough to stay in the cache of a processor
_GOLDEN = (math.sqrt(5) - 1) / 2

_REGULARISATION = 0.1  # of the brightest point of the probe; where the learning starts
_LEAST_LIGHT = 2e-3  # of the brightest point of the probe: less says nothing of a pixel
_DIM_LIGHT = 1e-2  # likewise: where the network has half a say
_DARK = 1e-2  # of a modulus of 1, squared: below it an object has no phase
_LARGEST_CORRECTION = 0.5  # of the object, per stage
_LARGEST_INPUT = 3.0


class UnrolledNetwork(nn.Module):
    """Canvases of objects from exposures."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(_Stage() for _ in range(_STAGES))

    @contract(dims=CANVAS_DIMS)
    def forward(self, exposures: Exposures) -> Canvases:
        """Reconstruct the object on every canvas.

        Args:
            exposures: Normalised: a probe without an object has about the energy of the patterns.

        Returns:
            Objects with a modulus of order 1 and a global phase of their own.
        """
        parts = [_batches(part) for part in _parts(exposures)]
        told = [torch.zeros(exposures.canvases, device=exposures.measured.device) for _ in range(3)]
        lights, points = zip(*(_first_look(part, exposures.canvases, told) for part in parts), strict=True)
        brightest = torch.stack(points).amax(dim=0)
        canvases = _long_waves(told, torch.stack(lights).sum(dim=0), brightest)
        memory = canvases.real.new_zeros(len(canvases), _MEMORY, *canvases.shape[1:])
        for turn, stage in enumerate(self.stages):
            which = turn % len(parts)
            asked = _asked(canvases, parts[which]) / brightest
            canvases, memory = stage(canvases, memory, asked, lights[which] / brightest)
        return canvases


class _Stage(nn.Module):
    """What to change of an object, from what the physics asks for. Starts as a step of PIE."""

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Parameter(torch.ones(()))
        self.log_regularisation = nn.Parameter(torch.tensor(math.log(_REGULARISATION)))
        # On 2 x 2 blocks of pixels as channels: four times fewer places to convolve, and nothing lost.
        self.first = nn.Conv2d(4 * _INPUTS, _WIDTH, 3, padding=1)
        self.second = nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1)
        self.out = nn.Conv2d(_WIDTH, 4 * (2 + _MEMORY), 3, padding=1)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, canvases: Tensor, memory: Tensor, asked: Tensor, light: Tensor) -> tuple[Tensor, Tensor]:
        step = asked / (light + self.log_regularisation.exp())
        answer = self._convolved(torch.cat((_features(canvases, step, light), memory), dim=1))
        # Where hardly any light fell nobody can tell whether the network is right.
        said = _LARGEST_CORRECTION * torch.tanh(answer[:, :2]) * (light / (light + _DIM_LIGHT)).unsqueeze(1)
        corrected = canvases + self.step * step + canvases * torch.complex(said[:, 0], said[:, 1])
        return corrected, memory + answer[:, 2:]

    def _convolved(self, features: Tensor) -> Tensor:
        rows, columns = features.shape[-2:]
        blocks = functional.pixel_unshuffle(functional.pad(features, (0, columns % 2, 0, rows % 2)), 2)
        hidden = functional.silu(self.first(blocks))
        hidden = hidden + functional.silu(self.second(hidden))
        return functional.pixel_shuffle(self.out(hidden), 2)[..., :rows, :columns]


def _features(canvases: Tensor, step: Tensor, light: Tensor) -> Tensor:
    """Return what a stage may see: nothing that a global phase would change."""
    energy = squared_modulus(canvases) + _DARK
    padded = functional.pad(torch.view_as_real(canvases).movedim(-1, 1), (0, 1, 0, 1), mode="replicate")
    turned = torch.complex(padded[:, 0], padded[:, 1]), canvases.conj()
    slopes = ((turned[0][:, rows, columns] * turned[1]).imag / energy for rows, columns in _NEXT)
    relative = step * canvases.conj() / energy
    told = torch.stack((relative.real, relative.imag, 0.5 * energy.log(), 0.3 * (light + _DARK**2).sqrt(), *slopes), 1)
    return told.clamp(-_LARGEST_INPUT, _LARGEST_INPUT)


_NEXT = ((slice(None, -1), slice(1, None)), (slice(1, None), slice(None, -1)))  # the next column, the next row


@contract(dims=CANVAS_DIMS)
def light_on(exposures: Exposures) -> CanvasLight:
    """Return the light that fell on every pixel: the intensities of all probes, in their unit squared."""
    light = exposures.probes.real.new_zeros(exposures.canvases)
    for few in _batches(exposures):
        few.add(light, light_of(few.probes))
    return light


def _batches(exposures: Exposures) -> list[Exposures]:
    return [exposures.batch(start, _CHUNK) for start in range(0, len(exposures), _CHUNK)]


def _parts(exposures: Exposures) -> Sequence[Exposures]:
    """Deal the patterns of every canvas out, neighbours to different parts, whatever order they came in.

    Row by row, each takes the part that the golden ratio sends it to: even along a row, and across rows, too.
    """
    each = len(exposures) // exposures.canvases.number
    count = max(1, min(_MOST_PARTS, each // _LEAST_OF_A_PART))
    if count == 1:
        return [exposures]
    ranked = torch.argsort(exposures.starts, stable=True).view(-1, each)
    dealt = [[rank for rank in range(each) if int(count * (rank * _GOLDEN % 1)) == part] for part in range(count)]
    return [exposures.choose(ranked[:, ranks].flatten()) for ranks in dealt]


def _first_look(batches: Sequence[Exposures], canvases: CanvasSizes, told: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the light on each pixel, and the brightest point of the probes of each canvas.

    Args:
        batches: Some of the patterns on every canvas.
        canvases: Their sizes.
        told: Sums, to which is added what the patterns tell of modulus and slopes, each where its light fell.
    """
    light = batches[0].probes.real.new_zeros(canvases)
    points: list[Tensor] = []  # dynamo cannot trace list[Tensor]()
    for few in batches:
        fell = light_of(few.probes)
        few.add(light, fell)
        points.append(fell.amax(dim=(-2, -1)))
        _tell(few, fell, told)
    return light, torch.cat(points).view(canvases.number, -1).amax(dim=1).view(-1, 1, 1)


@torch.no_grad()
def _tell(few: Exposures, fell: Tensor, told: Sequence[Tensor]) -> None:
    """Add what the energies and the centroids of the patterns tell, weighted by light."""
    energies, centroids = moments(few.measured if few.bad is None else _filled(few.measured, few.probes, few.bad))
    passed = (energies / fell.sum(dim=(-2, -1))).nan_to_num(0, posinf=0).sqrt()  # no light tells nothing
    for total, values in zip(told, (passed, *(centroids - few.slopes).unbind(-1)), strict=True):
        few.add(total, values.view(-1, 1, 1) * fell)


def _filled(measured: Tensor, probes: Tensor, bad: Tensor) -> Tensor:
    """Return amplitudes that are, at bad pixels, those of the probes without an object, as bright as the good ones ask.

    An object moves a pattern and spreads it little; what stands in a gap beside the beam would move its centroid far.
    """
    alone = diffract(probes.unsqueeze(1)).squeeze(1)
    seen, expected = (amplitude.masked_fill(bad, 0).square().sum(dim=(-2, -1)) for amplitude in (measured, alone))
    brightness = (seen / expected).nan_to_num(0, posinf=0).sqrt()
    return torch.where(bad, alone * brightness.view(-1, 1, 1), measured)


@torch.no_grad()
def _long_waves(told: Sequence[Tensor], light: Tensor, brightest: Tensor) -> Tensor:
    """Return the objects whose moduli and slopes are what the patterns told."""
    lit = light > _LEAST_LIGHT * brightest
    modulus, *slopes = (
        torch.where(lit, total / light, default) for total, default in zip(told, (1.0, 0.0, 0.0), strict=True)
    )
    phases = [integrate_slopes(torch.stack(pair)) for pair in zip(*slopes, strict=True)]
    return torch.polar(modulus, torch.stack(phases))


def _asked(canvases: Tensor, batches: Sequence[Exposures]) -> Tensor:
    """Return the change of each pixel that the patterns ask for, times the light that it got."""
    sums = torch.zeros_like(canvases)
    for few in batches:
        changes, _ = exit_wave_changes(few.cut(canvases).unsqueeze(1) * few.probes, few.measured, few.bad)
        few.add(sums, added_modes(few.probes.conj() * changes, 1))
    return sums
