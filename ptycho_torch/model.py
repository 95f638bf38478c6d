"""The network and the physics around it: measured patterns to object patches, and patches back to amplitudes.

Owns the architecture and what a trained model must know at inference (its `Calibration`). No Lightning, no files, no
whole objects. What the model does, in the order of the data:

1. *Back-projection.* A diffraction amplitude is a poor picture of an object: in the far field every detector pixel
   depends on every object pixel. So each pattern is first brought to real space by a few steps of the ptychographic
   engine (PIE) with the known probe, starting from a flat object.
2. *Network.* One encoder and two decoders see that estimate and the standardised pattern, and predict what is still
   wrong with the modulus and with the phase. Nothing learned yet means no correction.
3. *Sharing.* The patches of a group are merged on their common canvas and cut out again, so that each holds what its
   neighbours know about it: one pattern alone does not determine its patch.
4. *Refinement.* The same network, from the shared patches instead of a flat object; again shared.
5. *Physics.* Shared patches times probe, to the far field, are the predicted amplitudes: the only thing compared with
   data.

Each pattern goes through 1, 2 and 4 by itself: no result depends on who else is in a group, only on 3.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float32
from torch import Tensor, nn
from torch.nn import functional

from ptycho_torch.config_params import ModelConfig
from ptycho_torch.contracts import (
    Amplitude,
    GroupAmplitude,
    GroupScale,
    Modulus,
    NormalisedProbe,
    Offsets,
    Patches,
    Phase,
    ProbeBatch,
    ProbeModes,
)
from ptycho_torch.helper import (
    Translation,
    diffract,
    extract_channels_from_region,
    illuminate,
    padded_size,
    probe_weights,
    reassemble_patches_position_real,
)
from shapecheck import contract

__all__ = ["Calibration", "PtychoModel", "calibrate"]

DetectorImage = Float32[Tensor, "N N"]
Features = Float32[Tensor, "n 5 N N"]
Correction = Float32[Tensor, "n N N"]

_FIRST_STEPS = 3  # of back-projection from a flat object
_FURTHER_STEPS = 2  # of back-projection from a shared estimate
_REFINEMENTS = 2  # during training; inference may take more
_WIDTHS = (16, 32, 48)  # channels at 1/2, 1/4 and 1/8 of the side
_NORM_GROUPS = 8
_LEVELS = 8  # the side that the network works on is a multiple of this
_DARK = 1e-6  # of the energy scale of a normalised pattern: below it a far-field wave has no phase
_SMALLEST_MODULUS = 1e-2
_LARGEST_CORRECTION = 2.0  # of the logarithm of the modulus, per pass: a factor of 7
_LARGEST_TURN = 0.99  # of pi; tanh reaches pi only at infinity
_SUPPORT_FRACTION = 1e-3  # of the brightest point of the probe: where less light fell there is nothing to correct
_STD_FLOOR_FRACTION = 1e-2  # of the mean deviation; dead pixels do not vary at all
_EIGENVECTOR_STEPS = 10
_TINY = 1e-12


@contract
class Calibration(NamedTuple):
    """What a model must know of the experiment it was trained on, to work on patterns alone."""

    probe: NormalisedProbe
    input_mean: DetectorImage  # of the normalised amplitudes, per detector pixel
    input_std: DetectorImage  # likewise; positive

    @classmethod
    def blank(cls, config: ModelConfig) -> "Calibration":
        """Hold the places of tensors that are about to be loaded."""
        side = (config.N, config.N)
        return cls(torch.zeros(config.P, *side, dtype=torch.complex64), torch.zeros(side), torch.ones(side))


@contract
def calibrate(images: GroupAmplitude, input_scale: float, probe: ProbeModes) -> Calibration:
    """Take the statistics of a training set, and its probe.

    Args:
        images: sqrt(counts).
        input_scale: Brings the images to the mean energy (N/2)**2.
        probe: Any unit.

    Raises:
        ValueError: The probe or the images are zero throughout.
    """
    scaled = (images * input_scale).flatten(0, 1)
    energy = _intensity(probe).sum()
    if not (energy > 0 and scaled.any()):
        msg = "Expected a probe and diffraction amplitudes with energy, got only zeros."
        raise ValueError(msg)
    std, mean = torch.std_mean(scaled, dim=0, correction=0)
    floor = _STD_FLOOR_FRACTION * max(float(std.mean()), _TINY)
    return Calibration(probe * (probe.shape[-1] / 2 / energy.sqrt()), mean, std.clamp_min(floor))


@contract(dims={"C": "self.config.C", "N": "self.config.N", "P": "self.config.P"})
class PtychoModel(nn.Module):
    """Groups of diffraction amplitudes to object patches and to the amplitudes these predict.

    Args:
        config: Sizes of everything.
        calibration: Kept in buffers, so that it is saved with the weights and moves with the model.

    Attributes:
        config: Sizes of everything.
    """

    probe: NormalisedProbe
    input_mean: DetectorImage
    input_std: DetectorImage

    def __init__(self, config: ModelConfig, calibration: Calibration) -> None:
        super().__init__()
        self.config = config
        self.canvas_size = padded_size(config.N, config.gridsize, config.max_neighbor_distance)
        for name, value in calibration._asdict().items():
            self.register_buffer(name, value.clone())
        self.network = _Network()

    def forward(
        self,
        images: Amplitude,
        coords_relative: Offsets,
        probe: ProbeBatch,
        input_scale: GroupScale,
        output_scale: GroupScale,
    ) -> tuple[Amplitude, Modulus, Phase]:
        """Predict the amplitudes of a group from its own patterns, through the patches of a common object.

        Args:
            images: sqrt(counts).
            coords_relative: Pixels, (x, y), `-(position - mean of the group)`.
            probe: Any unit; `output_scale` undoes it.
            input_scale: Brings `images` to the mean energy (N/2)**2.
            output_scale: Brings amplitudes predicted with `probe` to the same scale.

        Returns:
            The predicted amplitudes, to be compared with `images * input_scale`; the modulus of each patch, positive
            and of order 1; and its phase in radians, within -pi..pi.
        """
        weights = probe_weights(probe)
        patches = self.forward_predict(images, input_scale)
        patches = patches * self._common_phase(patches, coords_relative, weights)
        shared = self._shared(patches, coords_relative, weights)
        for _ in range(_REFINEMENTS):
            patches = self.refine(images, shared, input_scale)
            shared = self._shared(patches, coords_relative, weights)
        predicted = diffract(illuminate(shared, probe)) * output_scale
        return predicted, patches.abs(), patches.angle()

    @contract(dims={"C": "self.config.C", "N": "self.config.N"})
    def forward_predict(self, images: Amplitude, input_scale: GroupScale) -> Patches:
        """Estimate each object patch from its pattern alone.

        Args:
            images: sqrt(counts).
            input_scale: Brings `images` to the mean energy (N/2)**2.

        Returns:
            Patches of modulus of order 1, each with a global phase of its own: a pattern does not tell it.
        """
        return self._improve(images, torch.ones_like(images, dtype=torch.complex64), input_scale, _FIRST_STEPS)

    @contract(dims={"C": "self.config.C", "N": "self.config.N"})
    def refine(self, images: Amplitude, patches: Patches, input_scale: GroupScale) -> Patches:
        """Improve patches that were cut out of a common object.

        Args:
            images: sqrt(counts).
            patches: The common object at each position; modulus of order 1.
            input_scale: Brings `images` to the mean energy (N/2)**2.

        Returns:
            Patches with about the global phases of those given.
        """
        return self._improve(images, patches, input_scale, _FURTHER_STEPS)

    def _improve(self, images: Tensor, start: Tensor, input_scale: Tensor, steps: int) -> Tensor:
        amplitudes, start = (images * input_scale).flatten(0, 1), start.flatten(0, 1)  # (B*C, N, N)
        estimate = _back_project(start, amplitudes, self.probe, steps)
        log_modulus = estimate.abs().clamp_min(_SMALLEST_MODULUS).log()
        turn = (estimate.angle() / math.pi).clamp(-_LARGEST_TURN, _LARGEST_TURN)
        standardised = (amplitudes - self.input_mean[None]) / self.input_std[None]
        change = estimate - start
        features = torch.stack((log_modulus, math.pi * turn, standardised, change.real, change.imag), dim=1)
        modulus_correction, phase_correction = (part * self._support()[None] for part in self.network(features))
        modulus = (log_modulus + _LARGEST_CORRECTION * torch.tanh(modulus_correction)).exp()
        phase = math.pi * torch.tanh(torch.atanh(turn) + phase_correction)
        return torch.polar(modulus, phase).unflatten(0, images.shape[:2])

    def _support(self) -> Tensor:
        """1 where the probe lit the patch, falling to 0 where it did not: corrections are confined to the light."""
        intensity = _intensity(self.probe).sum(dim=0)
        return (intensity / (_SUPPORT_FRACTION * intensity.max()).clamp_min(_TINY)).clamp_max(1.0)

    def _shared(self, patches: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
        """Give each patch what all patches of its group say, by merging them and cutting them out again.

        Weights are the probe's intensity: each patch is trusted where it was lit. With the default weights, the central
        square, the canvas would be 0 where the tails of the probe still carry light, and so would the prediction.
        Beyond the light of all probes nothing is known and nothing matters: 1, the flat start, avoids an edge there.
        """
        canvas, mask = reassemble_patches_position_real(patches, offsets, self.canvas_size, weights)
        region = torch.where(mask, canvas, 1.0).unsqueeze(1)
        return extract_channels_from_region(region, offsets, self.config.N)

    @torch.no_grad()
    def _common_phase(self, patches: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
        """Return one number of modulus 1 per patch, which turns the global phases of a group to agree.

        Patches with phases of their own would average to nothing. Two patches agree in phase by the inner product of
        what both lit; the phases that agree best with all at once are the leading eigenvector of these products.

        Source:
            Singer, Appl. Comput. Harmon. Anal. 30 (2011) 20, angular synchronisation by eigenvectors.
        """
        room = (self.canvas_size - self.config.N) // 2
        weighted = functional.pad(weights * patches, (room, room, room, room)).flatten(0, 1)
        placed = Translation(weighted, -offsets.flatten(0, 1)).view(*patches.shape[:2], -1)  # (B, C, M*M)
        agreement = placed @ placed.mH  # (B, C, C)
        phases = torch.ones_like(agreement[..., :1])
        for _ in range(_EIGENVECTOR_STEPS):
            product = agreement @ phases
            phases = torch.where(product == 0, 1.0, product.sgn())
        return phases.conj().unsqueeze(-1)


@contract
class _Network(nn.Module):
    """A small U-Net with one encoder and two decoders, at half the resolution and above.

    Works on 2 x 2 blocks of pixels as channels: four times fewer places to convolve, and nothing lost.
    """

    def __init__(self) -> None:
        super().__init__()
        fine, middle, coarse = _WIDTHS
        self.encode_fine = _Block(4 * 5, fine)
        self.encode_middle = _Block(fine, middle)
        self.encode_coarse = nn.Sequential(_Block(middle, coarse), _Block(coarse, coarse))
        self.decode_amplitude = _Decoder()
        self.decode_phase = _Decoder()

    def forward(self, features: Features) -> tuple[Correction, Correction]:
        """Return what to add to the log-modulus and to the (unsquashed) phase."""
        side = features.shape[-1]
        missing = -side % _LEVELS
        padded = functional.pad(features, (0, missing, 0, missing))
        fine = self.encode_fine(functional.pixel_unshuffle(padded, 2))
        middle = self.encode_middle(functional.avg_pool2d(fine, 2))
        coarse = self.encode_coarse(functional.avg_pool2d(middle, 2))
        decoded = (decode(fine, middle, coarse) for decode in (self.decode_amplitude, self.decode_phase))
        amplitude, phase = (image[:, 0, :side, :side] for image in decoded)
        return amplitude, phase


class _Decoder(nn.Module):
    """Back to full resolution; starts at zero, so that an untrained model corrects nothing."""

    def __init__(self) -> None:
        super().__init__()
        fine, middle, coarse = _WIDTHS
        self.to_middle = _Block(coarse + middle, middle)
        self.to_fine = _Block(middle + fine, fine)
        self.out = nn.Conv2d(fine, 4, 3, padding=1)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, fine: Tensor, middle: Tensor, coarse: Tensor) -> Tensor:
        hidden = self.to_middle(torch.cat((functional.interpolate(coarse, scale_factor=2), middle), dim=1))
        hidden = self.to_fine(torch.cat((functional.interpolate(hidden, scale_factor=2), fine), dim=1))
        return functional.pixel_shuffle(self.out(hidden), 2)


class _Block(nn.Module):
    """Two 3 x 3 convolutions around a shortcut. Group norm: nothing depends on the rest of the batch."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        self.first_norm = nn.GroupNorm(_NORM_GROUPS, channels_out)
        self.second = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.second_norm = nn.GroupNorm(_NORM_GROUPS, channels_out)
        same = channels_in == channels_out
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels_in, channels_out, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        hidden = functional.silu(self.first_norm(self.first(features)))
        return functional.silu(self.second_norm(self.second(hidden)) + self.shortcut(features))


def _back_project(start: Tensor, amplitudes: Tensor, probe: Tensor, steps: int) -> Tensor:
    """Take PIE steps: give the far-field wave the measured amplitude, and the difference back to the object.

    All modes of a pattern share one ratio of amplitudes, as they add in intensity.

    Source:
        Rodenburg & Faulkner, Appl. Phys. Lett. 85 (2004) 4795; modes: Thibault & Menzel, Nature 494 (2013) 68.
    """
    # Only moduli are replaced, so centring the object makes no difference; the amplitudes are brought to the FFT's order.
    measured = torch.fft.ifftshift(amplitudes, dim=(-2, -1)).unsqueeze(1)
    brightest = _intensity(probe).sum(dim=0).max().clamp_min(_TINY)
    patches = start
    for _ in range(steps):
        exit_waves = patches.unsqueeze(1) * probe  # (n, P, N, N)
        far = torch.fft.fft2(exit_waves, norm="ortho")
        predicted = (_intensity(far).sum(dim=1, keepdim=True) + _DARK).sqrt()
        corrected = torch.fft.ifft2(far * (measured / predicted), norm="ortho")
        patches = patches + (probe.conj() * (corrected - exit_waves)).sum(dim=1) / brightest
    return patches


def _intensity(wave: Tensor) -> Tensor:
    return wave.real.square() + wave.imag.square()
