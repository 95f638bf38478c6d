"""What a failed check is (`Violation`: data) and how it reaches the user (`ContractError`: text built elsewhere).

A `Violation` holds no tensor and no tensor value, only names, sizes and places, so that it can be kept, pickled,
compared and written as JSON. The wording lives in `_report`.
"""

import dataclasses
import re
from typing import Any, Literal

_WRAPPING = re.compile(
    r"Caught \w+ (?:in )?(?P<where>[^\n]+)\.\nOriginal .*^[\w.<>]+: (?P<text>ContractError \[.*)",
    re.DOTALL | re.MULTILINE,
)

MismatchKind = Literal[
    "axis",
    "repeated-dim",
    "ndim",
    "missing-axis",
    "missing-batch",
    "extra-axis",
    "dtype",
    "complex-for-real",
    "real-for-complex",
    "array-kind",
    "library",
    "not-stacked",
    "number-for-tensor",
    "tensor-for-number",
    "none",
    "type",
    "sequence-type",
    "length",
    "missing-key",
    "missing-attribute",
    "extra-key",
    "no-alternative",
    "unbound",
    "axis-range",
    "value",
    "kind",
    "reference",
]
HintKind = Literal[
    "permute",
    "channels-last",
    "batch",
    "unsqueeze",
    "squeeze",
    "unflatten",
    "flatten",
    "cast",
    "complex-to-real",
    "from-numpy",
    "to-numpy",
    "stack",
    "tensor",
    "item",
    "sequence",
    "rename-key",
]

DIAGNOSES = {
    "axis-order": "The sizes are right, only the order of the axes is not: permuted, or channel-last.",
    "axis-size": "An axis does not have the size that the annotation or another value says.",
    "tied-dim": "An axis does not have the size that its dim is tied to.",
    "axis-range": "An axis does not have a size that the registry of dims allows.",
    "empty": "An axis has size 0.",
    "merged-axes": "One axis is given where two are expected, and their sizes divide it.",
    "split-axes": "Two axes are given where one is expected, and its size is their product.",
    "missing-batch": "One sample is given where a batch is expected.",
    "missing-axis": "An axis is missing.",
    "extra-axis": "An axis is one too many.",
    "ndim": "The number of axes differs, and it is not clear which of them.",
    "dtype": "The dtype is not one of the annotation's.",
    "complex-for-real": "A complex tensor is given where a real one is expected.",
    "real-for-complex": "A real tensor is given where a complex one is expected.",
    "library": "A NumPy array is given where a tensor is expected, or a tensor where an array is.",
    "not-stacked": "Several tensors are given where one is expected.",
    "number-for-tensor": "A Python number is given where a tensor is expected.",
    "tensor-for-number": "A tensor is given where a Python number is expected.",
    "none": "`None` is given where the annotation does not allow it.",
    "type": "The value is of another type.",
    "sequence-type": "A list is given where a tuple is expected, or a tuple where a list is.",
    "length": "A tuple has the wrong number of items.",
    "misspelt-key": "A key of a dict is spelt in another way than the one that is declared.",
    "missing-key": "A declared key of a dict is missing.",
    "missing-attribute": "A declared attribute is not set.",
    "extra-key": "A key of a dict is not declared.",
    "no-alternative": "No alternative of a union fits.",
    "unbound": "An axis refers to a dim that nothing in the call binds.",
    "value": "What the tensor holds breaks a value contract.",
    "kind": "A tensor that was declared to be one quantity is given where another of that shape is expected.",
    "reference": "The reference engine rejects the value for a reason of its own.",
}  # every `Violation.id`, and what it says about the value


@dataclasses.dataclass(frozen=True)
class Location:
    """A line of source; `file` is relative to the folder its top-level package stands in."""

    file: str
    line: int

    def __str__(self) -> str:
        """Return it as editors and terminals understand it."""
        return f"{self.file}:{self.line}"


@dataclasses.dataclass(frozen=True)
class Binding:
    """A dim, the size it stands for in one call, and who said so.

    Attributes:
        dim: Name as written in the annotation.
        size: Size, or several sizes for a variadic dim such as ``*batch``; the name of one that is not known yet, as
            while a graph is traced.
        source: Parameter path of the tensor that bound the dim, or the expression it is tied to.
        axis: Position in that tensor; None when the dim is tied to an expression.
    """

    dim: str
    size: int | str | tuple[int | str, ...]
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
        alternative: The alternative of a union that the fact is about, when there are several.
    """

    kind: MismatchKind
    got: str
    expected: str
    axis: int | None = None
    binding: Binding | None = None
    alternative: str | None = None


@dataclasses.dataclass(frozen=True)
class Hint:
    """A change that was applied to the failing value and then satisfied the whole contract.

    Attributes:
        kind: Stable name of the kind of change.
        code: Python, one text for each change that would do; nothing for ``complex-to-real``, where each of several
            changes would do and mean something else.
        complete: Whether `code` holds every such change.
    """

    kind: HintKind
    code: tuple[str, ...]
    complete: bool = True


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where a tensor that now fails was accepted before.

    Attributes:
        boundary: Qualified name of the function, class or check.
        parameter: Path to the tensor there; ``return`` for a result.
        got: Dtype, shape and device that it had there.
        relation: ``same`` array, a ``view`` of the same elements, or one that shares ``part`` of the memory. What was
            done to get from one to the other is not known.
    """

    boundary: str
    parameter: str
    got: str
    relation: Literal["same", "view", "part"]


@dataclasses.dataclass(frozen=True)
class Violation:
    """One value that breaks a contract.

    Attributes:
        id: Stable identifier of the diagnosis: a key of `DIAGNOSES`.
        boundary: Qualified name of the function, class or check.
        parameter: Path to the value, such as ``batch[0]['coords_relative']``.
        expected: The annotation.
        got: Dtype, shape and device of the value, or its type.
        mismatches: What differs.
        bindings: The dims of the annotation, bound by other values of the same call.
        hint: A verified cure, if one is known; only the first violations of a call are searched for one.
        defined: Where the boundary is defined; None where there is no source.
        called: Where it was called.
        came_from: The boundary that accepted the same memory last; known in mode ``strict`` only.
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
    came_from: Origin | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the violation as plain dictionaries, lists and strings, ready for JSON."""
        return dataclasses.asdict(self)


class ContractError(TypeError):
    """A value broke the contract of the boundary it crossed.

    Can be built from its text alone, so that it survives pickling and the re-raise of DataLoader workers. What
    others wrap around the text or append to it is left out of ``str(error)``; where it was raised is said instead.

    Attributes:
        violations: Everything that is wrong with the call, in parameter order; empty after a re-raise from text.
    """

    def __init__(self, text: str = "", violations: tuple[Violation, ...] = ()) -> None:
        from ._traceback import install  # not needed as long as nothing is wrong

        install(ContractError)
        self._text = _without_wrapping(text)
        super().__init__(self._text)
        self.violations = violations

    def __str__(self) -> str:
        return self._text  # dynamo appends to `args`

    def __reduce__(self) -> tuple[Any, ...]:
        notes = {"__notes__": self.__notes__} if hasattr(self, "__notes__") else None
        return type(self), (self._text, self.violations), notes  # what dynamo hangs on errors cannot be pickled

    def _render_traceback_(self) -> list[str]:
        """Return what IPython and Jupyter print; they ask an error for it."""
        from ._traceback import describe_in_notebook

        return describe_in_notebook(self)


class ContractDefinitionError(TypeError):
    """A contract cannot mean anything: malformed, unresolvable or misplaced. Raised where it is defined."""


class ContractWarning(UserWarning):
    """The text of a `ContractError`, given once per call site in mode ``warn``."""


def _without_wrapping(text: str) -> str:
    """Take our text out of the one that torch re-raises errors of other processes and threads with.

    That one is ``Caught ContractError in DataLoader worker process 0.``, ``Original Traceback ...`` and then our text
    at the end; it may be nested, since our text says where it was raised in lines of its own.
    """
    wrapping = _WRAPPING.match(text)
    if wrapping is None:
        return text
    return f"{wrapping['text'].rstrip()}\n  raised in  {wrapping['where']}"


for _public in (Violation, ContractError, ContractDefinitionError, ContractWarning):
    _public.__module__ = "shapecheck"
