"""What the command ``shapecheck report`` does between its arguments and its exit status."""

import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from ..._packages.hook import install_import_hook
from ..._settings import enabled
from ...errors import ContractDefinitionError, ContractWarning
from .._accepted import Accepted, load_accepted
from .._recording import Recording
from .html import page
from .overview import Overview, counted, overview


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
    if not enabled():
        return _refuse("checking is off (SHAPECHECK=off or JAXTYPING_DISABLE=1), so that no function has a contract.")
    if not sys.flags.safe_path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        recording = Recording.merged(map(Recording.load, recordings)) if recordings else None
        known = _overview(package, recording, load_accepted(Path(accepted)) if accepted else [], hook)
        Path(output).write_text(page(known, written), encoding="utf-8")
        if json_file is not None:
            Path(json_file).write_text(json.dumps(known.as_json(), indent=1) + "\n", encoding="utf-8")
    except (ImportError, OSError, ValueError, ContractDefinitionError) as error:
        return _refuse(str(error))
    sys.stdout.write(f"{_summary(known)}\nwritten to {output}\n")
    return 0


def _overview(package: str, recording: Recording | None, accepted: Sequence[Accepted], hook: bool) -> Overview:
    if not hook:
        return overview(package, recording, accepted)
    with warnings.catch_warnings(), install_import_hook(package):
        warnings.simplefilter("ignore", ContractWarning)  # the page lists what they say
        return overview(package, recording, accepted)


def _summary(known: Overview) -> str:
    parts = [counted(len(known.entries), "boundary", "boundaries")]
    if known.total:
        parts.append(f"{known.caught:,} of {known.total:,} wrong calls caught")
    parts += [counted(len(known.of(kind)), kind) for kind in ("hole", "blind spot")]
    if known.is_recorded:
        parts.append(f"{len(known.of('not exercised'))} not exercised")
        parts.append(counted(len(known.of("coincidence")), "coincidence"))
    return f"{known.package}: {', '.join(parts)}"


def _refuse(text: str) -> int:
    sys.stderr.write(f"shapecheck report: {text}\n")
    return 2
