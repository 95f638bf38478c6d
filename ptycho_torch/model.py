"""The model: groups of measured patterns to object patches, and these back to amplitudes.

Owns what is trained and what it is trained by. No Lightning, no files; the network itself is `unrolled`, whole scans are
`reconstruction`. A group is reconstructed on a canvas of its own by the network that reconstructs whole scans, and the
object there times the probe, to the far field, are the predicted amplitudes: the only thing compared with data.
"""

from torch import nn

from ptycho_torch._waves import squared_modulus
from ptycho_torch.config_params import ModelConfig
from ptycho_torch.contracts import (
    Amplitude,
    BadPixelMask,
    Canvases,
    GroupScale,
    Modulus,
    NormalisedProbe,
    Offsets,
    Patches,
    Phase,
    ProbeBatch,
    ProbeModes,
)
from ptycho_torch.exposures import CANVAS_DIMS, Exposures, group_exposures, single_exposures
from ptycho_torch.helper import diffract, extract_channels_from_region, illuminate, padded_size
from ptycho_torch.unrolled import UnrolledNetwork
from shapecheck import contract

__all__ = ["PtychoModel", "normalise_probe"]


@contract
def normalise_probe(probe: ProbeModes) -> NormalisedProbe:
    """Scale a probe to the energy (N/2)**2, that of normalised patterns.

    Args:
        probe: Any unit.

    Raises:
        ValueError: The probe is zero throughout.
    """
    energy = squared_modulus(probe).sum()
    if not energy > 0:
        msg = "Expected a probe with energy, got only zeros."
        raise ValueError(msg)
    return probe * (probe.shape[-1] / 2 / energy.sqrt())


@contract(dims={"C": "self.config.C", "N": "self.config.N", "P": "self.config.P"})
class PtychoModel(nn.Module):
    """Groups of diffraction amplitudes to object patches and to the amplitudes these predict.

    Args:
        config: Sizes of everything.
        probe: The one it is trained with; kept in a buffer, so that it is saved with the weights and moves with them.

    Attributes:
        config: Sizes of everything.
        network: Knows none of the sizes: its weights serve for any scan.
    """

    probe: NormalisedProbe

    def __init__(self, config: ModelConfig, probe: NormalisedProbe) -> None:
        super().__init__()
        self.config = config
        self.canvas_size = padded_size(config.N, config.gridsize, config.max_neighbor_distance)
        self.register_buffer("probe", probe.clone())
        self.network = UnrolledNetwork()

    def forward(
        self,
        images: Amplitude,
        coords_relative: Offsets,
        probe: ProbeBatch,
        input_scale: GroupScale,
        output_scale: GroupScale,
        bad_pixels: BadPixelMask | None = None,
    ) -> tuple[Amplitude, Modulus, Phase]:
        """Reconstruct the object under each group, and predict the group's amplitudes from it.

        Args:
            images: sqrt(counts).
            coords_relative: Pixels, (x, y), `-(position - mean of the group)`.
            probe: Any unit; `output_scale` undoes it.
            input_scale: Brings `images` to the mean energy (N/2)**2.
            output_scale: Brings amplitudes predicted with `probe` to the same scale.
            bad_pixels: Of the detector; what `images` holds there changes nothing.

        Returns:
            The predicted amplitudes, to be compared with `images * input_scale`; the modulus of each patch, of order 1;
            and its phase in radians, within -pi..pi.
        """
        normalised = probe * output_scale.unsqueeze(-1)
        exposures = group_exposures(images * input_scale, coords_relative, normalised, self.canvas_size, bad_pixels)
        canvases = self.network(exposures)
        exit_waves = illuminate(exposures.cut(canvases).unsqueeze(1), exposures.probes.unsqueeze(1))
        predicted = diffract(exit_waves).view(images.shape)
        patches = extract_channels_from_region(canvases.unsqueeze(1), coords_relative, self.config.N)
        return predicted, patches.abs(), patches.angle()

    @contract(dims={"C": "self.config.C", "N": "self.config.N"})
    def forward_predict(self, images: Amplitude, input_scale: GroupScale) -> Patches:
        """Estimate each object patch from its pattern alone, with the probe of the training.

        Args:
            images: sqrt(counts).
            input_scale: Brings `images` to the mean energy (N/2)**2.

        Returns:
            Patches of modulus of order 1, each with a global phase of its own: a pattern does not tell it.
        """
        exposures = single_exposures((images * input_scale).flatten(0, 1), self.probe)
        return self.network(exposures).view(images.shape)

    @contract(dims=CANVAS_DIMS)
    def reconstruct(self, exposures: Exposures) -> Canvases:
        """Reconstruct objects from any number of patterns each, of any scan.

        Args:
            exposures: Normalised: patterns and probes have the mean energy (N/2)**2.

        Returns:
            Objects of modulus of order 1, each with a global phase of its own.
        """
        return self.network(exposures)
