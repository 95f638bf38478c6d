"""The named annotations and dims of the package: every boundary is signed with names from here.

Owns the vocabulary and nothing else. A quantity that crosses a module boundary has exactly one name here;
what a name cannot say (unit, origin, sign) stands in its comment once, not at every use.
The axis of size 2 is always (x, y) = (column, row), in object pixels.
"""

from typing import TypedDict

import numpy as np
from jaxtyping import Bool, Complex64, Float32, Float64, Int64
from torch import Tensor

from shapecheck import Axes

AXES = Axes(
    B="groups in a batch",
    C="patches (channels) in a group, gridsize**2",
    G="groups in a data set",
    H="object rows",
    M="canvas side of one group, pixels",
    N="patch and detector side, pixels",
    P="incoherent probe modes",
    S="scan positions in a file",
    W="object columns",
    h="image rows",
    n="flat patch count, B*C, B-major",
    w="image columns",
).register("ptycho_torch")

# --- scans as they stand in a file (NumPy) -------------------------------------------------------
ScanAmplitude = Float32[np.ndarray, "S N N"]  # sqrt(counts), zero frequency at [N//2, N//2]
ScanCoordinates = Float64[np.ndarray, " S"]  # patch centres, object pixels
ScanProbe = Complex64[np.ndarray, "P N N"]  # centred at [N//2, N//2], counts**0.5
ObjectArray = Complex64[np.ndarray, "H W"]

# --- groups as they stand in legacy containers: channel last (NumPy) -------------------------------
GroupedAmplitudeLast = Float32[np.ndarray, "G N N C"]
GroupedOffsetsLast = Float32[np.ndarray, "G 1 2 C"]  # -(position - mean position of the group)
GroupedCentersLast = Float64[np.ndarray, "G 1 2 1"]  # mean position of the group
GroupedIndices = Int64[np.ndarray, "G C"]  # scan position of each member
GroupedPatchesLast = Complex64[np.ndarray, "G N N C"]

# --- a whole data set, torch layout --------------------------------------------------------------
GroupAmplitude = Float32[Tensor, "G C N N"]
GroupOffsets = Float32[Tensor, "G C 1 2"]
GroupCenters = Float32[Tensor, "G 1 1 2"]
GroupMembers = Int64[Tensor, "G C"]
GroupPatches = Complex64[Tensor, "G C N N"]
ProbeModes = Complex64[Tensor, "P N N"]

# --- a batch, torch layout -----------------------------------------------------------------------
Amplitude = Float32[Tensor, "B C N N"]  # sqrt(counts), or normalised where the docstring says so
Phase = Float32[Tensor, "B C N N"]  # radians
Offsets = Float32[Tensor, "B C 1 2"]  # -(position - mean position of the group)
PatchWeights = Float32[Tensor, "B C N N"]
Patches = Complex64[Tensor, "B C N N"]  # object patches, the scan position at index N//2
Canvas = Complex64[Tensor, "B M M"]
CanvasMask = Bool[Tensor, "B M M"]
Region = Complex64[Tensor, "B 1 M M"]
ProbeBatch = Complex64[Tensor, "B C P N N"]
ExitWaves = Complex64[Tensor, "B C P N N"]
GroupScale = Float32[Tensor, "B 1 1 1"]
Scalar = Float32[Tensor, ""]

# --- flat stacks ---------------------------------------------------------------------------------
ImageStack = Float32[Tensor, "n h w"] | Complex64[Tensor, "n h w"]
ShiftedStack = Float32[Tensor, "n 1 h w"] | Complex64[Tensor, "n 1 h w"]
FlatOffsets = Float32[Tensor, "n 1 2"]
FlatPatches = Complex64[Tensor, "n N N"]
FlatPositions = Float32[Tensor, "n 1 2"]  # absolute patch centres
PlacementWeights = Float32[Tensor, "N N"]
ObjectImage = Complex64[Tensor, "H W"]
ObjectWeight = Float32[Tensor, "H W"]


class BatchFields(TypedDict):
    """The per-group tensors of a batch."""

    images: Amplitude
    coords_relative: Offsets
    rms_scaling_constant: GroupScale
    physics_scaling_constant: GroupScale
    nn_indices: Int64[Tensor, "B C"]
    experiment_id: Int64[Tensor, " B"]


Batch = tuple[BatchFields, ProbeBatch, GroupScale]  # (fields, probe, scaling)
