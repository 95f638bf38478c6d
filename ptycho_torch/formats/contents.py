"""What a file holds of a scan and its reconstruction, in our units and our frame, whatever the format."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ptycho_torch.config_params import closest
from ptycho_torch.contracts import ObjectArray, ObjectWeightArray, ScanProbe, ScanX, ScanY
from ptycho_torch.formats.errors import refuse
from ptycho_torch.formats.geometry import Geometry
from ptycho_torch.formats.patterns import Patterns
from shapecheck import check, contract

__all__ = ["Contents", "completed", "paired"]

_MEANING = {
    "patterns": "the diffraction patterns",
    "xcoords": "the positions",
    "ycoords": "the positions",
    "probe": "the probe",
    "obj": "the object",
    "geometry": "wavelength, distance and detector pixel",
}


@contract
@dataclass(frozen=True)
class Contents:
    """What a file holds; None where it holds nothing of the kind.

    Attributes:
        path: The file.
        patterns: Still in the file.
        xcoords: Column of each patch centre, object pixels.
        ycoords: Row of each patch centre, object pixels.
        probe: Centred at ``[N//2, N//2]``, counts**0.5.
        obj: A starting object or a reconstruction.
        origin_rc: Coordinates (row, column) of the object's index [0, 0].
        weight: Of each pixel of the object.
        truth: The true object, whose index [0, 0] has the coordinates (0, 0).
        geometry: What metres are in object pixels.
        pattern_numbers: By which a format pairs patterns with positions; None where their order does.
        position_numbers: Likewise.
        kind: What the format calls its entries.
        names: The entry of each of the above, for errors.
        present: The entries that the file has, for errors.
        notes: What a person should know of how the file was understood.
    """

    path: Path
    patterns: Patterns | None = None
    xcoords: ScanX | None = None
    ycoords: ScanY | None = None
    probe: ScanProbe | None = None
    obj: np.ndarray | None = None
    origin_rc: tuple[int, int] = (0, 0)
    weight: np.ndarray | None = None
    truth: np.ndarray | None = None
    geometry: Geometry | None = None
    pattern_numbers: np.ndarray | None = None
    position_numbers: np.ndarray | None = None
    kind: str = "key"
    names: Mapping[str, str] = field(default_factory=dict)
    present: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # Not part of the record's own contract: an object and the truth share the frame, not the extent.
        check(self.truth, ObjectArray | None, name="truth")
        check((self.obj, self.weight), tuple[ObjectArray | None, ObjectWeightArray | None], name="obj, weight")

    def required(self, name: str) -> Any:
        """Return a field, which must not be None.

        Raises:
            ScanError: The file does not hold it; names the entry, those that there are, and the cure.
        """
        value = getattr(self, name)
        if value is None:
            key = self.names[name]
            cure = f"Take {_MEANING[name]} from another file: ptycho-torch convert {self.path.name} OUT --with FILE."
            if name == "geometry":
                cure = f"{cure.removesuffix('.')}, or give --energy_ev, --distance_m and --detector_pixel_m."
            fix = closest(key, self.present).strip() if self.kind == "key" else ""
            got = f"only {', '.join(sorted(self.present)) or 'nothing'}"
            refuse(self.path, "to be in the file", got, fix or cure, kind=self.kind, key=key)
        return value

    def in_frame_of_object(self) -> tuple[ScanX, ScanY]:
        """Return the positions in a frame where the object starts at (0, 0), as scans have it.

        Raises:
            ScanError: There are no positions, or the truth starts elsewhere than the object.
        """
        row, column = self.origin_rc
        if self.truth is not None and self.origin_rc != (0, 0):
            got = f"the object at (row, column) = {self.origin_rc} and the truth at (0, 0)"
            refuse(self.path, "object and truth in one frame", got, "Leave one of them out.")
        return self.required("xcoords") - column, self.required("ycoords") - row


# Without contracts: what two files hold need not agree in size.
def completed(contents: Contents, other: Contents) -> Contents:
    """Take from another file what one lacks.

    Positions and the truth come together, since they share a frame; so does the object, unless the one is a
    reconstruction without positions, which counts from the positions that it was made of.

    Args:
        contents: Nothing that it holds is replaced.
        other: Of the same experiment.
    """
    lacking = {"patterns", "pattern_numbers", "probe", "geometry"}
    if contents.xcoords is None:
        lacking |= {"xcoords", "ycoords", "position_numbers", "truth"}
        if contents.obj is None:
            lacking |= {"obj", "origin_rc", "weight"}
    # An origin is never lacking: that of nothing is (0, 0).
    taken = {name for name in lacking if getattr(contents, name) is None or name == "origin_rc"}
    changes = {name: getattr(other, name) for name in taken}
    return replace(contents, **changes, notes=contents.notes + other.notes)


def paired(contents: Contents) -> Contents:
    """Bring the positions into the order of the patterns, where the format numbers both.

    Raises:
        ScanError: A pattern has no position, or more than one.
    """
    if contents.pattern_numbers is None or contents.position_numbers is None:
        return contents
    patterns, positions = contents.pattern_numbers.tolist(), contents.position_numbers.tolist()
    place = {number: index for index, number in enumerate(positions)}
    lost = [number for number in patterns if number not in place]
    if lost or len(place) != len(positions):
        got = f"no position for pattern {lost[0]}" if lost else "a number twice"
        refuse(contents.path, "positions with the numbers of the patterns, each once", got)
    order = [place[number] for number in patterns]
    x, y = contents.required("xcoords"), contents.required("ycoords")
    return replace(contents, xcoords=x[order], ycoords=y[order], pattern_numbers=None, position_numbers=None)
