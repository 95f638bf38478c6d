"""What a run has shown of its contracts: data that can be written, read and added up. Recorded by `_recorder`.

Holds names, shapes and numbers, no tensors and no values of tensors.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self, cast

_FORMAT, _VERSION = "shapecheck-recording", 1
_MOST_SHAPES = 8
_MOST_SIZES = 32
OTHER_SHAPES = "..."

Pair = tuple[str, str]  # two dims, or a dim and the number that stands as a literal beside it


@dataclasses.dataclass
class BoundaryRecord:
    """What crossed one boundary.

    Attributes:
        name: Qualified name; for what is no function or record with what is checked there, as in ``data.Batch (batch)``.
        place: Where it is defined, as ``package/module.py:12``; empty if nobody knows.
        calls: How often it was called, whatever came of it.
        rejected: How many of these calls broke the contract.
        annotations: What each parameter must be, as it would be written; ``return`` is the result.
        shapes: Shapes that were accepted of each tensor, such as ``f32[3,4,16]``, and how often each was; of more
            than eight the most frequent, the others together as ``...``.
        sizes: The different sizes of each dim, 32 of them at most.
        bound: In how many calls each dim had a size.
        always_equal: The pairs of dims that had the same size as often as both had one. The second may be a number:
            that of an axis of the same tensor which always has this size.
        told_apart: The pairs that had different sizes at least once.
    """

    name: str
    place: str = ""
    calls: int = 0
    rejected: int = 0
    annotations: dict[str, str] = dataclasses.field(default_factory=dict[str, str])
    shapes: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict[str, dict[str, int]])
    sizes: dict[str, list[int]] = dataclasses.field(default_factory=dict[str, list[int]])
    bound: dict[str, int] = dataclasses.field(default_factory=dict[str, int])
    always_equal: list[Pair] = dataclasses.field(default_factory=list[Pair])
    told_apart: list[Pair] = dataclasses.field(default_factory=list[Pair])

    @property
    def accepted(self) -> int:
        """How many calls kept the contract."""
        return self.calls - self.rejected


@dataclasses.dataclass(frozen=True, order=True)
class Flow:
    """Tensors that came out of one boundary and went into another, known by their memory.

    Attributes:
        source: Name of the boundary that had handed them out last.
        target: Name of the boundary that they went into; where the parameter is ``return``, the one that passed them on
            as its own result.
        parameter: Which parameter of the target.
        shape: Their shape.
        calls: How often.
    """

    source: str
    target: str
    parameter: str
    shape: str
    calls: int


@dataclasses.dataclass
class Recording:
    """What a run, or several, have shown.

    Attributes:
        boundaries: By name, also those that were defined and never called.
        flows: Which result went where.
        skipped: Boundaries of which not everything was seen, and why.
    """

    boundaries: dict[str, BoundaryRecord] = dataclasses.field(default_factory=dict[str, BoundaryRecord])
    flows: list[Flow] = dataclasses.field(default_factory=list[Flow])
    skipped: dict[str, str] = dataclasses.field(default_factory=dict[str, str])

    @classmethod
    def merged(cls, recordings: Iterable["Recording"]) -> Self:
        """Return what several recordings have shown together: numbers are added up.

        Two dims were always equal if no recording has told them apart.
        """
        known = [*recordings]
        records: dict[str, list[BoundaryRecord]] = {}
        for recording in known:
            for name, record in recording.boundaries.items():
                records.setdefault(name, []).append(record)
        flows = Counter[tuple[str, str, str, str]]()
        for flow in (flow for recording in known for flow in recording.flows):
            flows[flow.source, flow.target, flow.parameter, flow.shape] += flow.calls
        return cls(
            {name: _merged(same) for name, same in sorted(records.items())},
            [Flow(*flow, calls) for flow, calls in sorted(flows.items())],
            {name: reason for recording in known for name, reason in recording.skipped.items()},
        )

    def without(self, names: Iterable[str]) -> "Recording":
        """Return the recording as if some boundaries had not been there."""
        dropped = set(names)
        return Recording(
            {name: record for name, record in self.boundaries.items() if name not in dropped},
            [flow for flow in self.flows if dropped.isdisjoint((flow.source, flow.target))],
            {name: reason for name, reason in self.skipped.items() if name not in dropped},
        )

    # --- files ---------------------------------------------------------------------------------
    def as_json(self) -> dict[str, Any]:
        """Return it as what JSON can hold, in the same order every time."""
        whole = dataclasses.asdict(dataclasses.replace(self, boundaries=dict(sorted(self.boundaries.items()))))
        return {"format": _FORMAT, "version": _VERSION, **whole}

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Return the recording that `as_json` gave.

        Raises:
            ValueError: It is something else.
        """
        kind: Any = _format_of(data)
        if kind != _FORMAT or data["version"] != _VERSION:
            got = f"{kind!r}, version {data['version']!r}" if kind == _FORMAT else repr(kind)
            msg = (
                f"Expected a recording in the format {_FORMAT!r}, version {_VERSION}, got {got}. Record the run again."
            )
            raise ValueError(msg)
        boundaries = {name: BoundaryRecord(**record) for name, record in data["boundaries"].items()}
        for record in boundaries.values():
            record.always_equal = [(first, second) for first, second in record.always_equal]
            record.told_apart = [(first, second) for first, second in record.told_apart]
        return cls(boundaries, [Flow(**flow) for flow in data["flows"]], dict(data["skipped"]))

    def save(self, path: str | Path) -> None:
        """Write it to a file, as JSON."""
        Path(path).write_text(json.dumps(self.as_json(), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what was written to a file, and what processes have written beside it.

        Raises:
            FileNotFoundError: There is no such file, and none beside it.
            ValueError: A file is no recording.
        """
        files = files_of(Path(path))
        if not files:
            msg = f"Expected {str(path)!r} to be a recording, got no such file, and none beside it."
            raise FileNotFoundError(msg)
        return cls.merged(map(cls._load_one, files))

    @classmethod
    def _load_one(cls, path: Path) -> "Recording":
        try:
            return cls.from_json(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            msg = f"Expected {str(path)!r} to be a recording, got: {error}"
            raise ValueError(msg) from None


def _format_of(data: object) -> Any:
    return cast("Mapping[str, Any]", data).get("format") if isinstance(data, Mapping) else type(data).__name__


def files_of(path: Path) -> list[Path]:
    """Return the files of a recording: the one of this name and, for each process that wrote its own, another."""
    beside = sorted(path.parent.glob(f"{_escaped(path.name)}.[0-9]*-[0-9]*"))
    return [path, *beside] if path.is_file() else beside


def runs_of(path: Path) -> list[int]:
    """Return when each run began whose processes wrote files of a recording, in ns since the epoch.

    A process that begins when all before it have ended belongs to another run, as far as anybody can tell.
    """
    began: list[int] = []
    ended = 0
    starts = [(file.name.rpartition("-")[2], file) for file in files_of(path) if file != path]
    for start, file in sorted((int(start), file) for start, file in starts if start.isdecimal()):
        if start > ended:
            began.append(start)
        ended = max(ended, file.stat().st_mtime_ns)
    return began


def _escaped(name: str) -> str:
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)


# --- adding up ----------------------------------------------------------------------------------------
def _merged(records: list[BoundaryRecord]) -> BoundaryRecord:
    apart = {pair for record in records for pair in record.told_apart}
    equal = {pair for record in records for pair in record.always_equal}
    return BoundaryRecord(
        records[0].name,
        next((record.place for record in records if record.place), ""),
        sum(record.calls for record in records),
        sum(record.rejected for record in records),
        {name: text for record in reversed(records) for name, text in record.annotations.items()},
        _counted_together(record.shapes for record in records),
        _united(record.sizes for record in records),
        dict(sum((Counter(record.bound) for record in records), Counter[str]())),
        sorted(equal - apart),
        sorted(apart),
    )


def _counted_together(several: Iterable[Mapping[str, Mapping[str, int]]]) -> dict[str, dict[str, int]]:
    together: dict[str, Counter[str]] = {}
    for shapes in several:
        for parameter, counts in shapes.items():
            together.setdefault(parameter, Counter()).update(counts)
    return {parameter: most_frequent(counts) for parameter, counts in together.items()}


def most_frequent(counts: Mapping[str, int]) -> dict[str, int]:
    """Return the most frequent shapes with their numbers, and the number of all others."""
    ordered = sorted(counts.items(), key=lambda item: (item[0] == OTHER_SHAPES, -item[1], item[0]))
    kept = dict(ordered[:_MOST_SHAPES])
    rest = sum(number for _, number in ordered[_MOST_SHAPES:])
    return {**kept, OTHER_SHAPES: kept.get(OTHER_SHAPES, 0) + rest} if rest else kept


def _united(several: Iterable[Mapping[str, Iterable[int]]]) -> dict[str, list[int]]:
    together: dict[str, set[int]] = {}
    for sizes in several:
        for dim, found in sizes.items():
            together.setdefault(dim, set()).update(found)
    return {dim: sorted(found)[:_MOST_SIZES] for dim, found in together.items()}
