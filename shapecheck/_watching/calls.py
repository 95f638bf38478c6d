"""What was seen of the calls of functions that need no contract for it: data, and the file that holds it."""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from .forms import Form, decoded, encoded

_FORMAT = "shapecheck calls"
_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Function:
    """A function in a file; its line may change between the run and the reading of it.

    Attributes:
        file: Path of the source.
        module: Name of the module.
        name: Qualified name inside the module.
        occurrence: How many functions of this name stand before it in the file, as the getter before the setter.
    """

    file: str
    module: str
    name: str
    occurrence: int = 0


@dataclasses.dataclass(frozen=True)
class Call:
    """One call that returned, or one item that a generator gave.

    Attributes:
        arguments: Forms of the parameters, by name, as they were when the call began.
        result: Form of what came back.
    """

    arguments: tuple[tuple[str, Form], ...]
    result: Form


@dataclasses.dataclass
class Run:
    """What one command showed, all its processes together.

    Attributes:
        calls: How often each distinct call was seen, for every function that was defined.
        names: The dims that the packages themselves write for parameters and quantities of a name.
        annotated: The dims that stand at the parameters of a function already, by its module and name.
        registries: The dims that a module may use, with their sizes and what they are tied to; by name of the module.
        skipped: What was not watched, and why.
        dropped: How many calls were too many to be kept.
    """

    calls: dict[Function, Counter[Call]] = dataclasses.field(default_factory=dict[Function, Counter[Call]])
    names: dict[str, list[str]] = dataclasses.field(default_factory=dict[str, list[str]])
    annotated: dict[str, dict[str, list[str]]] = dataclasses.field(default_factory=dict[str, dict[str, list[str]]])
    registries: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict[str, dict[str, Any]])
    skipped: dict[str, str] = dataclasses.field(default_factory=dict[str, str])
    dropped: int = 0

    @property
    def count(self) -> int:
        """How many calls were seen."""
        return sum(counter.total() for counter in self.calls.values())

    def add(self, other: "Run") -> None:
        """Take in what another process of the same command has seen."""
        for function, counter in other.calls.items():
            self.calls.setdefault(function, Counter()).update(counter)
        for name, dims in other.names.items():
            self.names[name] = sorted({*self.names.get(name, []), *dims})
        self.annotated.update(other.annotated)
        self.registries.update(other.registries)
        self.skipped.update(other.skipped)
        self.dropped += other.dropped

    def as_json(self) -> dict[str, Any]:
        """Return it as what a JSON file holds."""
        functions = [
            {**dataclasses.asdict(function), "calls": [_encoded(call, number) for call, number in counter.items()]}
            for function, counter in self.calls.items()
        ]
        rest = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "calls"}
        return {"functions": functions, **rest}


def run_from_json(data: dict[str, Any]) -> Run:
    """Return the run that `Run.as_json` was called of."""
    rest = {key: value for key, value in data.items() if key != "functions"}
    return Run({_function(item): Counter(dict(map(_decoded, item["calls"]))) for item in data["functions"]}, **rest)


def _function(item: dict[str, Any]) -> Function:
    return Function(**{key: value for key, value in item.items() if key != "calls"})


def _encoded(call: Call, number: int) -> list[Any]:
    return [[[name, encoded(form)] for name, form in call.arguments], encoded(call.result), number]


def _decoded(data: list[Any]) -> tuple[Call, int]:
    arguments, result, number = data
    return Call(tuple((name, decoded(form)) for name, form in arguments), decoded(result)), number


def save_runs(runs: Iterable[Run], file: Path) -> None:
    """Write runs to a file, in place of what it holds."""
    data = {"format": _FORMAT, "version": _VERSION, "runs": [run.as_json() for run in runs]}
    file.write_text(json.dumps(data), encoding="utf-8")


def load_runs(file: Path) -> list[Run]:
    """Read the runs of a file.

    Raises:
        OSError: It cannot be read.
        ValueError: It was not written by `save_runs`, or by another version of it.
    """
    data = _parsed(file)
    if data.get("format") != _FORMAT or data.get("version") != _VERSION:
        msg = f"Expected {file} to be a recording that shapecheck infer has written in version {_VERSION}, got another file."
        raise ValueError(msg)
    return [run_from_json(run) for run in data["runs"]]


def _parsed(file: Path) -> dict[str, Any]:
    try:
        data: Any = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:  # also where it is no text
        return {}
    return cast("dict[str, Any]", data) if isinstance(data, dict) else {}
