"""What a contract is worth: what it checks, what it would notice, what a run has shown of it.

Nothing here is needed to check a call; each tool is a module of its own, and imported when it is first asked for: some
need torch, the others work on NumPy alone.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .._watching.watch import watch_calls
    from ._axis_map.assertion import AxisFault, AxisMapError, assert_axis_map
    from ._axis_map.notation import AxisMap
    from ._broadcasting.watch import Broadcast, BroadcastCase, allow_broadcasts, watch_broadcasts
    from ._coincidence import Coincidence, coincidences
    from ._coverage import Coverage, Covered, coverage
    from ._dry.dry_run import DryRun, StepMemory, dry_run
    from ._dry.verified import Verification, Verified
    from ._dry.verify import verify
    from ._enforcement import Enforcement, enforcement
    from ._explaining.explain import Explanation, explain, explain_change
    from ._exporting.guard import GuardedProgram, guarded, load_guarded
    from ._exporting.shapes import dynamic_shapes
    from ._inference.infer import Inference, infer
    from ._inference.proposal import Proposal
    from ._page.html import page
    from ._page.overview import Entry, Finding, Overview, overview
    from ._recorder import record
    from ._recording import BoundaryRecord, Flow, Recording
    from ._strength import Hole, Mutant, Strength, strength, strengths

__all__ = [
    "AxisFault",
    "AxisMap",
    "AxisMapError",
    "BoundaryRecord",
    "Broadcast",
    "BroadcastCase",
    "Coincidence",
    "Coverage",
    "Covered",
    "DryRun",
    "Enforcement",
    "Entry",
    "Explanation",
    "Finding",
    "Flow",
    "GuardedProgram",
    "Hole",
    "Inference",
    "Mutant",
    "Overview",
    "Proposal",
    "Recording",
    "StepMemory",
    "Strength",
    "Verification",
    "Verified",
    "allow_broadcasts",
    "assert_axis_map",
    "coincidences",
    "coverage",
    "dry_run",
    "dynamic_shapes",
    "enforcement",
    "explain",
    "explain_change",
    "guarded",
    "infer",
    "load_guarded",
    "overview",
    "page",
    "record",
    "strength",
    "strengths",
    "verify",
    "watch_broadcasts",
    "watch_calls",
]

_MODULES = {  # by tool
    name: module
    for module, names in {
        ".._watching.watch": "watch_calls",
        "._axis_map.assertion": "AxisFault AxisMapError assert_axis_map",
        "._axis_map.notation": "AxisMap",
        "._broadcasting.watch": "Broadcast BroadcastCase allow_broadcasts watch_broadcasts",
        "._coincidence": "Coincidence coincidences",
        "._coverage": "Coverage Covered coverage",
        "._dry.dry_run": "DryRun StepMemory dry_run",
        "._dry.verified": "Verification Verified",
        "._dry.verify": "verify",
        "._enforcement": "Enforcement enforcement",
        "._explaining.explain": "Explanation explain explain_change",
        "._exporting.guard": "GuardedProgram guarded load_guarded",
        "._exporting.shapes": "dynamic_shapes",
        "._inference.infer": "Inference infer",
        "._inference.proposal": "Proposal",
        "._page.html": "page",
        "._page.overview": "Entry Finding Overview overview",
        "._recorder": "record",
        "._recording": "BoundaryRecord Flow Recording",
        "._strength": "Hole Mutant Strength strength strengths",
    }.items()
    for name in names.split()
}

if not TYPE_CHECKING:  # a type checker takes every name for one of a module that has this

    def __getattr__(name: str) -> Any:
        """Import a tool."""
        if name not in _MODULES:
            msg = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(msg)
        globals()[name] = getattr(importlib.import_module(_MODULES[name], __name__), name)
        return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
