"""What the command ``shapecheck report`` does between its arguments and its exit status."""

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from ...errors import ContractWarning
from .._accepted import load_accepted
from .._command import added_up, command, under_contract, write_json
from .html import page
from .overview import Overview, counted, overview


@command("report")
def report_package(
    package: str,
    *,
    recordings: Sequence[str],
    accepted: str | None,
    output: str,
    json_file: str | None,
    hook: bool,
    written: str,
) -> int:
    """Write the page of a package, and say in a line what stands on it.

    Args:
        package: Name of a package or module that can be imported from here.
        recordings: Files of recorded runs.
        accepted: File of the holes that are left open on purpose.
        output: Where to write the page.
        json_file: Where to write its data as JSON.
        hook: Put contracts on the annotated functions of the package first.
        written: What the page says of when it was written.

    Returns:
        0 if the page was written, 2 if it could not be.
    """
    recording = added_up(recordings) if recordings else None
    left_open = load_accepted(Path(accepted)) if accepted else []
    with warnings.catch_warnings(), under_contract(package, hook=hook):
        if hook:
            warnings.simplefilter("ignore", ContractWarning)  # the page lists what it says
        known = overview(package, recording, left_open)
    Path(output).write_text(page(known, written), encoding="utf-8")
    write_json(known.as_json(), json_file)
    sys.stdout.write(f"{_summary(known)}\nwritten to {output}\n")
    return 0


def _summary(known: Overview) -> str:
    parts = [counted(len(known.entries), "boundary", "boundaries")]
    if known.total:
        parts.append(f"{known.caught:,} of {known.total:,} wrong calls caught")
    parts += [counted(len(known.of(kind)), kind) for kind in ("hole", "blind spot")]
    if known.is_recorded:
        parts.append(f"{len(known.of('not exercised'))} not exercised")
        parts.append(counted(len(known.of("coincidence")), "coincidence"))
    return f"{known.package}: {', '.join(parts)}"
