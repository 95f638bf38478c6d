"""Annotations proposed from what was seen in runs: a unified diff to read, with what could not be known above it.

Applies nothing and imports nothing of the package: it reads recordings and source.
"""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..._syntax import parse_module
from ..._watching.calls import Call, Function, Run, load_runs
from ..._watching.instrument import FunctionNode, functions_of, parameters_of
from .diff import edited, line_limit, read_source, unified
from .imports import Imports
from .proposal import Calls, Proposal, Proposer, Vocabulary
from .remarks import counted
from .signatures import laid_out

_MOST_NAMED = 5
_UNSEEN = (
    "An annotation is as narrow as what was seen. Shapes show neither kinds, units and values nor which axis means what: "
    "names of dims are placeholders."
)


@dataclasses.dataclass
class Inference:
    """What is proposed.

    Attributes:
        proposals: For each function that gets annotations, in the order of the source.
        patches: The diff of each file, by its path from where it is to be applied.
        never_called: Functions that no run has called.
        skipped: What could not be looked at, and why.
        summary: One line of numbers.
    """

    proposals: list[Proposal]
    patches: dict[str, str]
    never_called: list[str]
    skipped: dict[str, str]
    summary: str

    @property
    def patch(self) -> str:
        """The diff alone, as ``git apply`` takes it."""
        return "".join(self.patches.values())

    def __str__(self) -> str:
        """Return the diff, with what is to be read before it in comments, which ``git apply`` passes over."""
        lines = [self.summary, *([_UNSEEN] if self.proposals else []), *self._left()]
        texts = [_commented(lines)]
        for path, patch in self.patches.items():
            texts += [_commented(self._notes(path)), patch]
        return "\n".join(filter(None, texts))

    def _left(self) -> Iterator[str]:
        if self.never_called:
            shown = ", ".join(self.never_called[:_MOST_NAMED])
            more = len(self.never_called) - _MOST_NAMED
            yield f"Never called: {shown}{f' and {more} more' if more > 0 else ''}."
        for name, reason in sorted(self.skipped.items()):
            yield f"Not looked at: {name}: {reason}."

    def _notes(self, path: str) -> list[str]:
        lines: list[str] = []
        for proposal in self.proposals:
            if _shown_path(proposal.function.file) == path and proposal.notes:
                lines.append(f"{path}:{proposal.line} {proposal.function.name}")
                lines += [f"  {note}" for note in proposal.notes]
        return lines


def _commented(lines: Sequence[str]) -> str:
    return "".join(f"# {line}\n" for line in lines)


def infer(*recordings: Run | str | os.PathLike[str]) -> Inference:
    """Propose annotations for the functions whose calls were recorded.

    Parameters that are annotated are left as they are, except for plain `Tensor` and `ndarray` in their annotations.
    Functions that no array went into or came out of are left alone, and so are functions inside functions.

    Args:
        *recordings: Runs, or files that ``shapecheck infer --record`` has written. Each run should have other sizes.

    Returns:
        The proposal, which is applied by nobody but its reader.

    Raises:
        OSError: A file cannot be read.
        ValueError: A file is no recording.
    """
    runs = [run for recording in recordings for run in _runs(recording)]
    vocabulary, inference = Vocabulary({}, {}, {}), Inference([], {}, [], {}, "")
    for run in runs:
        _learn(vocabulary, run)
        inference.skipped.update(run.skipped)
        if run.dropped:
            inference.skipped[f"{run.dropped} calls"] = (
                "there were too many that differ; some may not satisfy the proposal"
            )
    functions = list(dict.fromkeys(function for run in runs for function in run.calls))
    for file in dict.fromkeys(function.file for function in functions):
        _infer_file(file, [function for function in functions if function.file == file], runs, vocabulary, inference)
    number = len(inference.proposals)
    inference.summary = (
        f"{counted(number, 'function')} of {len(functions)} {'gets' if number == 1 else 'get'} annotations, "
        f"from {counted(sum(run.count for run in runs), 'call')} in {counted(len(runs), 'run')}."
    )
    return inference


def _runs(recording: Run | str | os.PathLike[str]) -> list[Run]:
    return [recording] if isinstance(recording, Run) else load_runs(Path(recording))


def _learn(vocabulary: Vocabulary, run: Run) -> None:
    for name, texts in run.names.items():
        vocabulary.names[name] = sorted({*vocabulary.names.get(name, []), *texts})
    vocabulary.annotated.update(run.annotated)
    vocabulary.registries.update(run.registries)


def _infer_file(
    file: str, functions: Sequence[Function], runs: Sequence[Run], vocabulary: Vocabulary, inference: Inference
) -> None:
    try:
        source = read_source(Path(file))
        tree = parse_module(source, file)
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        inference.skipped[_shown_path(file)] = str(error)
        return
    nodes = {(name, occurrence): node for name, occurrence, node in functions_of(tree)}
    imports = Imports(tree, line_limit(Path(file).parent), _root_of(file, functions[0].module))
    found: list[Proposal] = []
    for function in functions:
        name, calls = f"{function.module}.{function.name}", _calls(function, runs)
        node = nodes.get((function.name, function.occurrence))
        if node is None or not _is_unchanged(node, calls.distinct):
            inference.skipped[name] = "the source has changed since it was recorded"
        elif not calls.distinct:
            inference.never_called.append(name)
        elif proposal := Proposer(function, node, calls, vocabulary, source, imports).proposal():
            if proposal.annotations:
                found.append(proposal)
            elif proposal.notes:
                inference.skipped[name] = "; ".join(proposal.notes)
    if found:
        inference.proposals += sorted(found, key=lambda proposal: proposal.line)
        path = _shown_path(file)
        inference.patches[path] = unified(path, source, _changed(source, found, imports))


def _root_of(file: str, module: str) -> Path:
    """Return the folder in which the package of a file lies."""
    path = Path(file)
    depth = module.count(".") + (path.name == "__init__.py")
    return path.parents[0 if module == "__main__" else depth]


def _is_unchanged(node: FunctionNode, calls: Sequence[Call]) -> bool:
    names = tuple(parameter.arg for parameter in parameters_of(node))
    return all(tuple(name for name, _ in call.arguments) == names for call in calls)


def _calls(function: Function, runs: Sequence[Run]) -> Calls:
    counters = [run.calls[function] for run in runs if run.calls.get(function)]
    distinct = list(dict.fromkeys(call for counter in counters for call in counter))
    return Calls(distinct, sum(counter.total() for counter in counters), len(counters))


def _changed(source: str, proposals: Iterable[Proposal], imports: Imports) -> str:
    """Return the source with annotations, its signatures broken into lines where they became too long, and imports."""
    edits = [edit for proposal in proposals for edit in proposal.edits]
    annotated = edited(source, edits)  # every line is where it was
    lines = annotated.splitlines(keepends=True)
    broken = [laid_out(lines, proposal.line, imports.limit) for proposal in proposals]
    return edited(annotated, [*filter(None, broken), *imports.edits()])


def _shown_path(file: str) -> str:
    """Return a path from the current folder, where it is to be applied; as it is, if it lies elsewhere."""
    path, here = Path(file), Path.cwd()
    return path.relative_to(here).as_posix() if path.is_relative_to(here) else path.as_posix().lstrip("/")
