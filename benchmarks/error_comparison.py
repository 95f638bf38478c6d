"""What checkers say about the same ten bugs, word for word: writes ``docs/comparison.md``.

Every checker gets the contract in its own best spelling, must accept a correct call and is then given the wrong one.
Checkers that are not installed, or cannot express a contract, are named with the reason; the page is written only
when none is missing: ``pip install dltype pydantic eincheck tensor-shape-assert "pandera[torch]" tensordict``.
"""

import argparse
import contextlib
import dataclasses
import random
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from checkers import CHECKERS, OURS, Checked, Checker
from torch import Tensor

from shapecheck import enabled

PAGE = Path(__file__).parents[1] / "docs/comparison.md"
LONGEST = 200  # characters of a line
TIMES = 500  # calls of the list, because some checkers look at an item chosen at random


# --- the bugs -------------------------------------------------------------------------------------
@dataclasses.dataclass(frozen=True)
class Bug:
    """A contract, in the words of jaxtyping, with a call that keeps it and one that breaks it."""

    key: str
    title: str
    contract: str
    good: Callable[[], tuple[Any, ...]]
    bad: Callable[[], tuple[Any, ...]]


def images(*shape: int) -> Tensor:
    return torch.zeros(*shape)


BUGS = [
    Bug(
        "merge",
        "Axes swapped at the boundary, C = 4",
        '`merge(images: Float32[Tensor, "B C N N"], offsets: Float32[Tensor, "B C 1 2"])`, given offsets (3, 1, 2, 4)',
        lambda: (images(3, 4, 16, 16), images(3, 4, 1, 2)),
        lambda: (images(3, 4, 16, 16), images(3, 1, 2, 4)),
    ),
    Bug(
        "merge",
        "The same with C = 2, where nothing crashes without a contract",
        "the same, given offsets (3, 1, 2, 2)",
        lambda: (images(3, 2, 16, 16), images(3, 2, 1, 2)),
        lambda: (images(3, 2, 16, 16), images(3, 1, 2, 2)),
    ),
    Bug(
        "scale",
        "Wrong dtype",
        '`scale(images: Float32[Tensor, "B N N"])`, given float64',
        lambda: (images(3, 16, 16),),
        lambda: (images(3, 16, 16).double(),),
    ),
    Bug(
        "scale",
        "The batch axis is missing",
        "the same, given (16, 16)",
        lambda: (images(3, 16, 16),),
        lambda: (images(16, 16),),
    ),
    Bug(
        "weigh",
        "Two arguments disagree about a dim",
        '`weigh(values: Float32[Tensor, "n d"], weights: Float32[Tensor, " n"])`, given (3, 5) and (5,)',
        lambda: (images(3, 5), images(3)),
        lambda: (images(3, 5), images(5)),
    ),
    Bug(
        "collate",
        "One wrong item in a list of 64",
        '`collate(samples: list[Float32[Tensor, "3 h w"]])`, item 37 is (16, 12, 3)',
        lambda: ([images(3, 16, 12) for _ in range(64)],),
        lambda: ([images(16, 12, 3) if index == 37 else images(3, 16, 12) for index in range(64)],),
    ),
    Bug(
        "train",
        "A key is missing in a batch",
        '`train(batch: Batch)`, a TypedDict of images "B C N N" and offsets "B C 1 2", given no offsets',
        lambda: ({"images": images(3, 4, 16, 16), "offsets": images(3, 4, 1, 2)},),
        lambda: ({"images": images(3, 4, 16, 16)},),
    ),
    Bug(
        "scale",
        "A NumPy array where a tensor is expected",
        "`scale` as above, given a float32 array of the right shape",
        lambda: (images(3, 16, 16),),
        lambda: (np.zeros((3, 16, 16), np.float32),),
    ),
    Bug(
        "reduce",
        "The result has the wrong shape",
        '`reduce(images: Float32[Tensor, "B N N"]) -> Float32[Tensor, " B"]`, which forgets one axis',
        lambda: (images(3, 16, 16), (1, 2)),
        lambda: (images(3, 16, 16), (1,)),
    ),
    Bug(
        "configured",
        "The batch does not fit the configuration: C is not gridsize ** 2",
        'a method of an object with `gridsize = 2`, `images` "B C N N" with C = gridsize ** 2, given C = 1',
        lambda: (images(3, 4, 16, 16),),
        lambda: (images(3, 1, 16, 16),),
    ),
]


# --- what they say --------------------------------------------------------------------------------
def answer(bug: Bug, checked: Checked) -> str:
    """Return what a checker says about a bug, in Markdown."""
    if isinstance(checked, str):
        return f"not expressible: {checked}"
    if (refusal := error_of(checked, bug.good())) is not None:
        return f"refuses the correct call too: {first_line(refusal)}"
    random.seed(0)
    errors = [error_of(checked, bug.bad()) for _ in range(TIMES if bug.key == "collate" else 1)]
    said = next((first_line(error) for error in errors if error is not None), "accepted, says nothing")
    accepted = errors.count(None)
    return f"accepted in {accepted} of {len(errors)} calls; else {said}" if 0 < accepted < len(errors) else said


def error_of(checked: Callable[..., Any], arguments: tuple[Any, ...]) -> Exception | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            checked(*arguments)
    except Exception as error:  # noqa: BLE001  # every checker has errors of its own
        return error
    return None


def first_line(error: Exception) -> str:
    """Return the line that Python prints first, and how many more there are."""
    line, *others = "".join(traceback.format_exception_only(error)).rstrip().splitlines()
    shown = line if len(line) <= LONGEST else f"{line[:LONGEST]}…"
    more = f" (and {len(others)} more {'line' if len(others) == 1 else 'lines'})" if others else ""
    return f"`` {shown.replace('|', chr(92) + '|')} ``{more}"


def answers(checker: Checker) -> dict[str, str] | str:
    """Return what a checker says about each bug, by title; or why it cannot be asked."""
    try:
        contracts = checker.contracts()
    except ImportError as error:
        return f"not installed: {error}"
    return {bug.title: answer(bug, contracts[bug.key]) for bug in BUGS}


# --- the page -------------------------------------------------------------------------------------
HEAD = f"""# What checkers say about the same bugs

Ten bugs, and the line that Python prints first for each checker's error, word for word and cut at {LONGEST} characters.
Every checker has the contract in its own best spelling, and must accept a correct call first.
This page is written by `python benchmarks/error_comparison.py`, and `benchmarks/checkers.py` holds the spellings.
"""
READING = """## How to read this

- In one line eincheck, dltype, pandera and tensor-shape-assert name the argument and the number that differs; for that
  they need fewer words than shapecheck.
  jaxtyping's first line names only the function; argument, annotation and bindings follow in its whole message.
- eincheck, tensor-shape-assert and jaxtyping print the sizes of the dims.
  None of them says which argument a size comes from, and jaxtyping's may come from the failing tensor itself.
- Only shapecheck says what would cure the call, after trying it on the whole contract; where it finds nothing it says so
  by saying nothing.
- eincheck checks shapes only: a float64 tensor or a NumPy array is none of its business.
  dltype and tensor-shape-assert mean any array library by their annotations, so accepting NumPy is their choice.
  A TensorDict, which is what pandera checks, turns arrays into tensors before pandera sees them.
- pandera's schemas have no named dims: in bug 5 it is TensorDict itself that refuses.
- beartype looks at one item of a list, chosen at random, under its strategy `On` too.
  It does not look inside a TypedDict.
- The contracts of pandera, and three of eincheck's, are statements in a body; the others are annotations or decorators.
- On Python 3.11 a class that tensor-shape-assert imports for static checkers alone was replaced by `object`, because the
  package that holds it can be imported only from Python 3.12 on.
"""


def page(said: Mapping[str, Mapping[str, str] | str]) -> str:
    """Return the page for what every checker said."""
    parts = [HEAD, f"Versions: {', '.join(map(version_of, CHECKERS))}; torch {torch.__version__}.\n"]
    for number, bug in enumerate(BUGS, 1):
        rows = [f"| {name} | {text if isinstance(text, str) else text[bug.title]} |" for name, text in said.items()]
        table = "\n".join(["| checker | first line |", "|---|---|", *rows])
        parts += [f"## {number}. {bug.title}\n", f"{bug.contract}.\n", f"{table}\n"]
    parts += [READING, "## The whole messages for the first bug\n"]
    for checker in CHECKERS:
        if not isinstance(said[checker.name], str):
            parts.append(f"{checker.name}:\n\n```text\n{whole_message(checker)}\n```\n")
    return "\n".join(parts)


def version_of(checker: Checker) -> str:
    if checker.name == OURS:
        return f"{OURS} (this)"
    with contextlib.suppress(PackageNotFoundError):
        return " + ".join(f"{distribution} {version(distribution)}" for distribution in checker.distributions)
    return f"{checker.name} (not installed)"


def whole_message(checker: Checker) -> str:
    checked = checker.contracts()[BUGS[0].key]
    error = None if isinstance(checked, str) else error_of(checked, BUGS[0].bad())
    return str(error).replace(str(Path(__file__).parents[1]), ".")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--print", action="store_true", help="print the page instead of writing it")
    options = parser.parse_args()
    if not enabled():
        sys.exit("Checking is off: shapecheck has nothing to say.")
    said = {checker.name: answers(checker) for checker in CHECKERS}
    absent = [f"{name} {text}" for name, text in said.items() if isinstance(text, str)]
    if options.print or absent:
        print(page(said))
    else:
        PAGE.write_text(page(said))
    if absent:
        sys.exit(f"{PAGE.name} is left as it was: {'; '.join(absent)}.")


def missing_rows(text: str) -> list[str]:
    """Return what shapecheck says now and does not say on the page."""
    said = answers(CHECKERS[0])
    return [row for row in said.values() if f"| {OURS} | {row} |" not in text] if isinstance(said, dict) else [said]


if __name__ == "__main__":
    main()
