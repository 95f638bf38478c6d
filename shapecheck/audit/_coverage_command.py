"""The command ``shapecheck coverage``: reads recordings, says what they have shown, and whether that is enough."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from .._packages.hook import install_import_hook
from ._coincidence import coincidences, heading
from ._coverage import coverage, shortfall
from ._recording import Recording


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
    if packages and not sys.flags.safe_path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        recording = Recording.merged(map(Recording.load, files))
        if hook and packages:
            install_import_hook(*packages)
        covered = coverage(recording, *packages)
    except (OSError, ValueError, ImportError) as error:
        sys.stderr.write(f"shapecheck: {error}\n")
        return 2
    alike = [found for found in coincidences(recording) if any(found.boundary == one.name for one in covered.contracts)]
    if json_file is not None:
        data = {**covered.as_json(), "coincidences": [vars(found) for found in alike]}
        Path(json_file).write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    lines = [str(covered)]
    if alike:
        lines += [heading(alike), *(f"  {found.line()}" for found in alike)]
    too_few = shortfall(covered, at_least)
    sys.stdout.write("\n".join([*lines, *([too_few] if too_few else [])]) + "\n")
    return 1 if too_few or (distinct and alike) else 0
