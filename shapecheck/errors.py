"""What a failed check is (`Violation`: data) and how it reaches the user (`ContractError`: text built elsewhere).

A `Violation` holds no tensor and no tensor value, only names, sizes and places, so that it can be kept, pickled,
compared and written as JSON. The wording lives in `_report`.
"""

import dataclasses
from typing import Any, Literal

MismatchKind = Literal[
    "axis",
    "ndim",
    "dtype",
    "array-kind",
    "type",
    "length",
    "missing-key",
    "extra-key",
    "no-alternative",
    "unbound",
    "reference",
]


@dataclasses.dataclass(frozen=True)
class Location:
    """A line of source; `file` is relative to the folder its top-level package stands in."""

    file: str
    line: int


@dataclasses.dataclass(frozen=True)
class Binding:
    """A dim, the size it stands for in one call, and who said so.

    Attributes:
        dim: Name as written in the annotation.
        size: Size, or several sizes for a variadic dim such as ``*batch``.
        source: Parameter path of the tensor that bound the dim, or the expression it is tied to.
        axis: Position in that tensor; None when the dim is tied to an expression.
    """

    dim: str
    size: int | tuple[int, ...]
    source: str
    axis: int | None


@dataclasses.dataclass(frozen=True)
class Mismatch:
    """One fact that contradicts the contract.

    Attributes:
        kind: What is compared.
        got: What the value has.
        expected: What the contract says.
        axis: Position of the axis that differs, for kind ``axis``.
        binding: Why the contract says so, when the expected size is that of a dim.
    """

    kind: MismatchKind
    got: str
    expected: str
    axis: int | None = None
    binding: Binding | None = None


@dataclasses.dataclass(frozen=True)
class Hint:
    """A change that was applied to the failing value and then satisfied the whole contract.

    Attributes:
        kind: Stable name of the kind of change.
        code: Python expressions, one for each change that would do.
    """

    kind: Literal["permute"]
    code: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Violation:
    """One value that breaks a contract.

    Attributes:
        id: Stable identifier of the diagnosis, such as ``axis-order``.
        boundary: Qualified name of the function, class or check.
        parameter: Path to the value, such as ``batch[0]['coords_relative']``.
        expected: The annotation.
        got: Dtype, shape and device of the value, or its type.
        mismatches: What differs.
        bindings: The dims of the annotation, bound by other values of the same call.
        hint: A verified cure, if one is known.
        defined: Where the boundary is defined; None where there is no source.
        called: Where it was called.
    """

    id: str
    boundary: str
    parameter: str
    expected: str
    got: str
    mismatches: tuple[Mismatch, ...]
    bindings: tuple[Binding, ...]
    hint: Hint | None
    defined: Location | None
    called: Location

    def to_dict(self) -> dict[str, Any]:
        """Return the violation as plain dictionaries, lists and strings, ready for JSON."""
        return dataclasses.asdict(self)


class ContractError(TypeError):
    """A value broke the contract of the boundary it crossed.

    Can be built from its text alone, so that it survives pickling and the re-raise of DataLoader workers.

    Attributes:
        violations: Everything that is wrong with the call, in parameter order; empty after a re-raise from text.
    """

    def __init__(self, text: str = "", violations: tuple[Violation, ...] = ()) -> None:
        super().__init__(text)
        self.violations = violations


class ContractDefinitionError(TypeError):
    """A contract cannot mean anything: malformed, unresolvable or misplaced. Raised where it is defined."""


class ContractWarning(UserWarning):
    """The text of a `ContractError`, given once per call site in mode ``warn``."""


for _public in (Violation, ContractError, ContractDefinitionError, ContractWarning):
    _public.__module__ = "shapecheck"
