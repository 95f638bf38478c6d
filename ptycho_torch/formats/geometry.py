"""Metres and object pixels: the geometry of a far-field experiment, and positions of other formats in ours.

Owns the signs and the order of axes. In the frame of the laboratory z points along the beam, y up, and x to the left
as seen along the beam, so that the three are right-handed. A detector image is seen along the beam as well: its
columns run to the right, along -x, and its rows down, along -y. A format that moves the sample moves the probe over
it the opposite way. Both together: on a detector that is not turned, columns grow with the x of the sample.
"""

import math
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from scipy import constants

from ptycho_torch.contracts import (
    DetectorBasis,
    MetresX,
    MetresY,
    ProbeTranslation,
    SampleTranslation,
    ScanX,
    ScanY,
)
from shapecheck import contract

__all__ = [
    "Geometry",
    "along_detector",
    "centred_offset",
    "photon_energy_j",
    "probe_translation",
    "sample_translation",
    "to_object_pixels",
    "unturned_basis",
    "wavelength_m",
]


@dataclass(frozen=True)
class Geometry:
    """What metres and object pixels have to do with each other.

    Attributes:
        wavelength_m: Of the light.
        distance_m: From the sample to the detector.
        detector_pixel_xy_m: Distance of neighbouring columns, and of neighbouring rows.

    Raises:
        ValueError: A length is not positive and finite.
    """

    wavelength_m: float
    distance_m: float
    detector_pixel_xy_m: tuple[float, float]

    def __post_init__(self) -> None:
        for name, value in ((field.name, getattr(self, field.name)) for field in fields(self)):
            if not all(math.isfinite(length) and length > 0 for length in np.atleast_1d(value)):
                msg = f"Expected {name} to be positive and finite, got {value}."
                raise ValueError(msg)

    def object_pixel_xy_m(self, side: int) -> tuple[float, float]:
        """Return the size of an object pixel, wavelength * distance / (N * detector pixel), along x and y.

        Args:
            side: N, pixels.
        """
        x, y = (self.wavelength_m * self.distance_m / (side * pixel) for pixel in self.detector_pixel_xy_m)
        return x, y

    @classmethod
    def from_energy(cls, energy_ev: float, distance_m: float, detector_pixel_m: float) -> Self:
        """Take the wavelength from the energy of the photons; pixels are square.

        Raises:
            ValueError: One of them is not positive and finite.
        """
        if not energy_ev > 0:
            msg = f"Expected energy_ev to be positive and finite, got {energy_ev}."
            raise ValueError(msg)
        return cls(wavelength_m(energy_ev * constants.e), distance_m, (detector_pixel_m, detector_pixel_m))

    @classmethod
    def from_object_pixel(
        cls, wavelength_m: float, distance_m: float, object_pixel_xy_m: tuple[float, float], side: int
    ) -> Self:
        """Take the detector's pixels from the object's.

        Args:
            wavelength_m: Of the light.
            distance_m: From the sample to the detector.
            object_pixel_xy_m: Size of an object pixel along x and y.
            side: N, pixels.
        """
        x, y = (wavelength_m * distance_m / (side * pixel) for pixel in object_pixel_xy_m)
        return cls(wavelength_m, distance_m, (x, y))


def wavelength_m(photon_energy_j: float) -> float:
    """Return the wavelength of photons of an energy in joules; the other way round as well."""
    return constants.h * constants.c / photon_energy_j


photon_energy_j = wavelength_m  # h * c / x is its own inverse


@contract
def probe_translation(translation: SampleTranslation) -> ProbeTranslation:
    """Return where the probe is on a sample that was moved."""
    return -translation


@contract
def along_detector(translation: ProbeTranslation, basis: DetectorBasis) -> tuple[MetresX, MetresY]:
    """Return positions along the columns and the rows of the detector.

    Args:
        translation: Of the probe, in the frame of the laboratory.
        basis: Steps to the next row and to the next column; their lengths do not matter.
    """
    down, right = basis / np.linalg.norm(basis, axis=1, keepdims=True)
    return translation @ right, translation @ down


@contract
def to_object_pixels(x: MetresX, y: MetresY, pixel_xy_m: tuple[float, float]) -> tuple[ScanX, ScanY]:
    """Return positions in object pixels.

    Args:
        x: Along the columns.
        y: Along the rows.
        pixel_xy_m: Size of an object pixel.
    """
    return x / pixel_xy_m[0], y / pixel_xy_m[1]


@contract
def sample_translation(xcoords: ScanX, ycoords: ScanY, pixel_xy_m: tuple[float, float]) -> SampleTranslation:
    """Return where the sample is moved to, for a detector that is not turned; z is 0.

    Args:
        xcoords: Column of each patch centre, object pixels.
        ycoords: Row of each patch centre, object pixels.
        pixel_xy_m: Size of an object pixel.
    """
    return np.stack([xcoords * pixel_xy_m[0], ycoords * pixel_xy_m[1], np.zeros_like(xcoords)], axis=1)


@contract
def unturned_basis(pixel_xy_m: tuple[float, float]) -> DetectorBasis:
    """Return the basis of a detector whose rows run down and whose columns run to the right, seen along the beam."""
    return np.array([[0.0, -pixel_xy_m[1], 0.0], [-pixel_xy_m[0], 0.0, 0.0]])


def centred_offset(object_side: int, patch_side: int) -> float:
    """Return our coordinate of a position that lies in the middle of an object, along one axis.

    Other formats count positions from the middle of the object, ``(side - 1) / 2``, to the middle of the patch,
    ``(N - 1) / 2``. Ours is the coordinate of the patch's index ``N // 2``, in a frame where the object starts at 0.

    Args:
        object_side: Pixels.
        patch_side: N, pixels.
    """
    return (object_side - 1) / 2 - (patch_side - 1) / 2 + patch_side // 2
