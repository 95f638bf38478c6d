"""The command ``shapecheck coverage``: reads recordings, says what they have shown, and whether that is enough."""

import contextlib
import sys
from collections.abc import Sequence

from ._coincidence import coincidences, heading
from ._command import FOUND, added_up, command, under_contract, write_json
from ._coverage import coverage, shortfall


@command("coverage")
def report_coverage(
    files: Sequence[str],
    *,
    packages: Sequence[str],
    hook: bool,
    at_least: float,
    distinct: bool,
    json_file: str | None,
) -> int:
    """Print what recordings have shown.

    Args:
        files: The recordings, which are added up.
        packages: What to report on; everything that was recorded, if none is named.
        hook: Put contracts on the annotated functions of the packages first.
        at_least: How many of a hundred contracts must have been asked.
        distinct: Whether dims must have been told apart.
        json_file: Where to write the same as JSON.

    Returns:
        0 if that is enough, 1 if not, 2 if it could not be found out.
    """
    recording = added_up(files)
    with under_contract(*packages, hook=hook) if packages else contextlib.nullcontext():
        covered = coverage(recording, *packages)
    alike = [found for found in coincidences(recording) if any(found.boundary == one.name for one in covered.contracts)]
    write_json({**covered.as_json(), "coincidences": [vars(found) for found in alike]}, json_file)
    lines = [str(covered)]
    if alike:
        lines += [heading(alike), *(f"  {found.line()}" for found in alike)]
    too_few = shortfall(covered, at_least)
    sys.stdout.write("\n".join([*lines, *([too_few] if too_few else [])]) + "\n")
    return FOUND if too_few or (distinct and alike) else 0
