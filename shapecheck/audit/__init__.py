"""What a contract is worth: what it checks, what it would notice, what a run has shown of it.

Nothing here is needed to check a call; each tool is a module of its own, re-exported here.
"""

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
