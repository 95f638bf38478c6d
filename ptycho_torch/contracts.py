"""The named annotations and dims of the package: every boundary is signed with names from here.

Owns the vocabulary and nothing else. A quantity that crosses a module boundary has exactly one name here;
what a name cannot say (unit, origin, sign) stands in its comment once, not at every use. Where two quantities of one
shape are easily confused their names carry kinds, so that one declared to be the other is refused.
The axis of size 2 is always (x, y) = (column, row), in object pixels.
"""

from typing import Annotated, NotRequired, TypedDict

import numpy as np
from jaxtyping import Bool, Complex64, Float32, Float64, Int64
from torch import Tensor

from shapecheck import Axes
from shapecheck.axes import Dim
from shapecheck.kinds import Kind
from shapecheck.values import Finite, NonNegative

MAX_MODES = 64

AXES = Axes(
    B="groups in a batch",
    C=Dim("patches (channels) in a group, gridsize**2", tied="gridsize**2"),
    G="groups in a data set",
    H="object rows",
    M="canvas side of one group, pixels",
    N="patch and detector side, pixels",
    P=Dim("incoherent probe modes", size=range(1, MAX_MODES + 1)),
    S="scan positions in a file",
    W="object columns",
    h="image rows",
    n="flat patch count, B*C, B-major",
    w="image columns",
).register("ptycho_torch")


# --- kinds: of one shape, not of one meaning --------------------------------------------------------
class Diffraction(Kind):
    """What a detector pixel holds."""

    AMPLITUDE = "square root of counts"
    INTENSITY = "counts"


class Frame(Kind):
    """Where positions are counted from."""

    ABSOLUTE = "patch centres, in the frame of the object"
    RELATIVE = "minus the position, from the mean of its group"


class AxisOrder(Kind):
    """What stands first on an axis of size 2."""

    XY = "(x, y) = (column, row)"
    ROW_COLUMN = "(row, column) = (y, x)"


class Coordinate(Kind):
    """Which coordinate a vector holds."""

    X = "columns"
    Y = "rows"


class Length(Kind):
    """The unit of positions."""

    METRES = "metres"
    OBJECT_PIXELS = "object pixels, wavelength * distance / (N * detector pixel)"


class Moved(Kind):
    """What was moved to a position of a scan; the other one seems to move the opposite way."""

    SAMPLE = "the sample"
    PROBE = "the probe"


class ProbeScale(Kind):
    """The unit of a probe."""

    PHYSICAL = "counts**0.5, as in a file"
    NORMALISED = "the energy of all modes together is (N/2)**2"


# --- scans as they stand in a file (NumPy) -------------------------------------------------------
# Zero frequency at [N//2, N//2].
ScanAmplitude = Annotated[Float32[np.ndarray, "S N N"], Diffraction.AMPLITUDE, Finite, NonNegative]
ScanIntensity = Annotated[Float64[np.ndarray, "S N N"], Diffraction.INTENSITY]  # expected, not drawn
ScanX = Annotated[Float64[np.ndarray, " S"], Coordinate.X, Length.OBJECT_PIXELS]  # column of each patch centre
ScanY = Annotated[Float64[np.ndarray, " S"], Coordinate.Y, Length.OBJECT_PIXELS]  # row of each patch centre
ProbeArray = Complex64[np.ndarray, "P N N"]  # centred at [N//2, N//2], any unit
ScanProbe = Annotated[ProbeArray, ProbeScale.PHYSICAL]
ObjectArray = Complex64[np.ndarray, "H W"]
ObjectWeightArray = Float32[np.ndarray, "H W"]  # light that the estimate of each pixel rests on, counts
BadPixels = Bool[np.ndarray, "N N"]  # of the detector, True where it holds nothing
PatternIndices = Int64[np.ndarray, " n"]  # which patterns of a file, in any order
PatternAmplitude = Annotated[Float32[np.ndarray, "n N N"], Diffraction.AMPLITUDE]  # those patterns
PatternEnergies = Float64[np.ndarray, " n"]  # counts of those patterns

# --- positions as other formats have them (NumPy), metres ------------------------------------------
# In the frame of the laboratory: x to the left and y up, seen along the beam z.
SampleTranslation = Annotated[Float64[np.ndarray, "S 3"], Length.METRES, Moved.SAMPLE]
ProbeTranslation = Annotated[Float64[np.ndarray, "S 3"], Length.METRES, Moved.PROBE]
DetectorBasis = Float64[np.ndarray, "2 3"]  # the step from a pixel to the next row, and to the next column
# Of the probe on the sample, along the columns and the rows of the detector.
MetresX = Annotated[Float64[np.ndarray, " S"], Coordinate.X, Length.METRES]
MetresY = Annotated[Float64[np.ndarray, " S"], Coordinate.Y, Length.METRES]

# --- groups as they stand in legacy containers: channel last (NumPy) -------------------------------
GroupedAmplitudeLast = Annotated[Float32[np.ndarray, "G N N C"], Diffraction.AMPLITUDE]
GroupedOffsetsLast = Annotated[Float32[np.ndarray, "G 1 2 C"], Frame.RELATIVE, AxisOrder.XY]
GroupedCentersLast = Annotated[Float64[np.ndarray, "G 1 2 1"], Frame.ABSOLUTE, AxisOrder.XY]  # mean of the group
GroupedIndices = Int64[np.ndarray, "G C"]  # scan position of each member
GroupedPatchesLast = Complex64[np.ndarray, "G N N C"]
GroupedLast = Float32[np.ndarray, "G N N C"] | Float32[np.ndarray, "G 1 2 C"] | Complex64[np.ndarray, "G N N C"]

# --- a whole data set, torch layout --------------------------------------------------------------
GroupAmplitude = Annotated[Float32[Tensor, "G C N N"], Diffraction.AMPLITUDE]
GroupOffsets = Annotated[Float32[Tensor, "G C 1 2"], Frame.RELATIVE, AxisOrder.XY]
GroupCenters = Annotated[Float32[Tensor, "G 1 1 2"], Frame.ABSOLUTE, AxisOrder.XY]
GroupPositions = Annotated[Float32[Tensor, "G C 1 2"], Frame.ABSOLUTE, AxisOrder.XY]
GroupMembers = Int64[Tensor, "G C"]
GroupPatches = Complex64[Tensor, "G C N N"]
GroupTensor = Float32[Tensor, "G C N N"] | Float32[Tensor, "G C 1 2"] | Complex64[Tensor, "G C N N"]
ProbeModes = Complex64[Tensor, "P N N"]  # any unit
PhysicalProbe = Annotated[ProbeModes, ProbeScale.PHYSICAL]
NormalisedProbe = Annotated[ProbeModes, ProbeScale.NORMALISED]

# --- a batch, torch layout -----------------------------------------------------------------------
Amplitude = Annotated[Float32[Tensor, "B C N N"], Diffraction.AMPLITUDE]  # or normalised, where a docstring says so
Modulus = Float32[Tensor, "B C N N"]  # of patches
Phase = Float32[Tensor, "B C N N"]  # of patches, radians
Offsets = Annotated[Float32[Tensor, "B C 1 2"], Frame.RELATIVE, AxisOrder.XY]
PatchWeights = Float32[Tensor, "B C N N"]
Patches = Complex64[Tensor, "B C N N"]  # object patches, the scan position at index N//2
Canvas = Complex64[Tensor, "B M M"]
CanvasMask = Bool[Tensor, "B M M"]
Region = Complex64[Tensor, "B 1 M M"]
ProbeBatch = Complex64[Tensor, "B C P N N"]
ExitWaves = Complex64[Tensor, "B C P N N"]
GroupScale = Float32[Tensor, "B 1 1 1"]
Scalar = Float32[Tensor, ""]

MEAN_OFFSET_TOLERANCE = 1e-5  # of the largest offset, at least of a pixel: what rounding to float32 leaves

# --- flat stacks ---------------------------------------------------------------------------------
ImageStack = Float32[Tensor, "n h w"] | Complex64[Tensor, "n h w"]
ShiftedStack = Float32[Tensor, "n 1 h w"] | Complex64[Tensor, "n 1 h w"]
FlatOffsets = Annotated[Float32[Tensor, "n 1 2"], Frame.RELATIVE, AxisOrder.XY]
FlatPatches = Complex64[Tensor, "n N N"]
FlatExitWaves = Complex64[Tensor, "n P N N"]
FlatAmplitude = Annotated[Float32[Tensor, "n N N"], Diffraction.AMPLITUDE]
BadPixelMask = Bool[Tensor, "N N"]  # `BadPixels`, for patterns that are tensors
FlatFractions = Annotated[Float32[Tensor, "n 2"], AxisOrder.XY]  # of a pixel, what rounding a position down took off
FlatStarts = Int64[Tensor, " n"]  # the first pixel of each patch on a canvas, counted row by row
FlatIndices = Int64[Tensor, " n"]  # of exposures, in any order
FlatLight = Float32[Tensor, "n N N"]  # intensities, the square of the probe's unit
FlatMisfits = Float32[Tensor, " n"]  # sum of |predicted - measured| over the pixels of a pattern
FlatPositions = Annotated[Float32[Tensor, "n 1 2"], Frame.ABSOLUTE, AxisOrder.XY]
PlacementWeights = Float32[Tensor, "N N"]
FlatEnergies = Float32[Tensor, " n"]  # counts
FlatCentroids = Annotated[Float32[Tensor, "n 2"], AxisOrder.XY]  # radians per object pixel
Canvases = Complex64[Tensor, "B H W"]  # objects
CanvasLight = Float32[Tensor, "B H W"]  # intensities, the square of the probe's unit
ObjectSlopes = Annotated[Float32[Tensor, "2 H W"], AxisOrder.XY]
ObjectMap = Float32[Tensor, "H W"]
ObjectImage = Complex64[Tensor, "H W"]
ObjectWeight = Float32[Tensor, "H W"]


def centred(offsets: Tensor) -> str | None:
    """Refuse offsets that are not relative to the mean of their group, such as positions in another frame."""
    mean = offsets.mean(dim=1).abs().max()
    allowed = MEAN_OFFSET_TOLERANCE * offsets.abs().max().clamp_min(1.0)
    return None if bool(mean <= allowed) else "its mean over a group is not 0"


class BatchFields(TypedDict):
    """The tensors of a batch, all but the last with an axis of groups."""

    images: Amplitude
    coords_relative: Annotated[Offsets, centred]
    rms_scaling_constant: GroupScale
    physics_scaling_constant: GroupScale
    nn_indices: Int64[Tensor, "B C"]
    experiment_id: Int64[Tensor, " B"]
    bad_pixels: NotRequired[BadPixelMask]  # one detector for all groups; left out where every pixel is good


Batch = tuple[BatchFields, ProbeBatch, GroupScale]  # (fields, probe, scaling)
