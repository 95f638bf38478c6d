"""Records what crosses the boundaries of a program, in this process and in those that it starts.

A process that is started anew finds the environment variable SHAPECHECK_RECORD and records from its first contract on;
one that is forked goes on from nothing. Each writes a file of its own when it ends.
"""

import atexit
import contextlib
import gc
import multiprocessing.util
import os
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

from .._boundaries.inheritance import known_contracts
from .._boundaries.records import constructions
from .._location import location_of
from .._observers import RECORD, definitions, traces
from .._provenance import MemoryNotes
from .._render import describe
from ._crossings import TRACED, Crossing, Tensor, observe, unobserve
from ._recording import Flow, Recording, files_of
from ._refused import refused
from ._tally import Tally

_recorders: list["Recorder"] = []  # that are active, the innermost last


@contextlib.contextmanager
def record() -> Generator[Recording]:
    """Record what crosses the boundaries of a program during a block, in all threads.

    Workers that are started and end during the block are included, forked or not. Every call is judged by the reference
    engine meanwhile, which takes longer; graphs are traced as they always are.

    Yields:
        The recording, which is empty until the block is over.
    """
    recording, recorder = Recording(), Recorder()
    recorder.start()
    try:
        yield recording
    finally:
        vars(recording).update(vars(recorder.stop()))


class Recorder:
    """Keeps book of all boundaries from `start` to `stop`.

    Args:
        file: Beside which the processes that this one starts leave what they have recorded; a temporary one, which
            they are told of, by default.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._is_temporary = file is None
        self._before: str | None = None
        self._others: list[Recording] = []
        self.forget()

    def forget(self) -> None:
        """Begin with nothing, as a forked process does."""
        self._lock = threading.Lock()
        self._tallies: dict[str, Tally] = {}
        self._flows = Counter[tuple[str, str, str, str]]()
        self._entered = set[tuple[str, str]]()
        self._skipped: dict[str, str] = {}
        self._sources = MemoryNotes[str]()
        self._others.clear()

    def start(self) -> None:
        """Begin."""
        _prepare_for_forks()
        if self._is_temporary:
            self._file = Path(tempfile.mkdtemp(prefix="shapecheck-")) / "recording.json"
            self._before = os.environ.get(RECORD)
            os.environ[RECORD] = str(self._file)
        _recorders.append(self)
        definitions.append(self._defined)
        traces.append(self._traced)
        observe(self)

    def stop(self) -> Recording:
        """End, and return what was recorded, also by the processes that have ended meanwhile."""
        unobserve(self)
        definitions.remove(self._defined)
        traces.remove(self._traced)
        _recorders.remove(self)
        if self._is_temporary and self._file is not None:
            theirs = [Recording.load(file) for file in files_of(self._file)]
            shutil.rmtree(self._file.parent, ignore_errors=True)
            if self._before is None:
                os.environ.pop(RECORD, None)
            else:
                os.environ[RECORD] = self._before
            for recorder in [self, *_recorders]:
                recorder.add(theirs)
        return self.recording()

    def recording(self) -> Recording:
        """Return what is recorded by now."""
        self._list_defined()
        with self._lock:
            boundaries = {name: tally.record() for name, tally in self._tallies.items()}
            flows = [Flow(*flow, calls) for flow, calls in self._flows.items()]
            skipped = {name: reason for name, reason in self._skipped.items() if name in boundaries}
            mine = Recording(boundaries, flows, {**refused(), **skipped})
        return Recording.merged([mine, *self._others])

    def add(self, recordings: Iterable[Recording]) -> None:
        """Add what others have recorded."""
        self._others += recordings

    def save_own(self) -> None:
        """Write what is recorded by now to a file of this process."""
        if self._file is not None and self._file.parent.is_dir():  # which a temporary one may not be any more
            self.recording().save(self._file.with_name(f"{self._file.name}.{_process_id()}"))

    # --- what is defined -------------------------------------------------------------------------
    def _defined(self, checked: Any, contract: Any) -> None:
        del checked
        place = contract.boundary.place
        with self._lock:
            self._tally(place.name, place.defined).declare(contract.boundary.nodes)

    def _traced(self, name: str) -> None:
        self._skipped[_of_program(name)] = TRACED

    def _list_defined(self) -> None:
        """Note the contracts that exist, whenever they were made."""
        for contract in known_contracts():
            self._defined(None, contract)
        with self._lock:
            for kind, construction in list(constructions.items()):
                self._tally(f"{kind.__module__}.{kind.__qualname__}", location_of(kind)).declare(construction.fields)
            for contract in _batch_contracts():
                self._tally(f"{contract.boundary} ({contract.name})", contract.defined)

    def _tally(self, name: str, place: Any) -> Tally:
        name = _of_program(name)
        tally = self._tallies.get(name)
        if tally is None:
            tally = self._tallies[name] = Tally(name, str(place or ""))
        return tally

    # --- what crosses ----------------------------------------------------------------------------
    def crossed(self, crossing: Crossing) -> None:
        """Note what crossed a boundary."""
        boundary, unseen = crossing.boundary, crossing.unseen
        with self._lock:
            tally = self._tally(crossing.name, boundary.place.defined)
            if unseen is not None:
                self._skipped[_of_program(crossing.name)] = unseen
                return
            tally.calls += crossing.begins
            if crossing.is_rejected:
                tally.rejected += 1
                return
            tally.declare(boundary.nodes)
            before = [dim for scope in crossing.before.scopes for dim in scope.sizes]
            tally.saw_dims(before, crossing.verdict.scopes, boundary.nodes.values())
            for tensor in crossing.tensors:
                shape = describe(tensor.value)
                tally.saw_shape(tensor.label, shape)
                self._follow(crossing, tensor, shape)

    def _follow(self, crossing: Crossing, tensor: Tensor, shape: str) -> None:
        """Note where a tensor came from, and that it comes from here if it is handed out."""
        name = _of_program(crossing.name)
        source = self._sources.nearest(tensor.value)
        if source is not None and source != name:
            passed_on = tensor.is_result and (source, name) in self._entered  # a view of an argument
            if not passed_on:
                self._flows[source, name, tensor.label, shape] += 1
            if not tensor.is_result:
                self._entered.add((source, name))
        if tensor.is_result or crossing.hands_on:
            self._sources.put(tensor.value, name)


def _of_program(name: str) -> str:
    """Return a name as the program has it that started this process, which knows itself by another."""
    return name.replace("__mp_main__", "__main__", 1) if name.startswith("__mp_main__.") else name


def _batch_contracts() -> list[Any]:
    """Return the batch contracts that exist; nobody lists them, because nothing needs such a list but this."""
    data = sys.modules.get("shapecheck.data")
    contracts = [] if data is None else [found for found in gc.get_objects() if type(found) is data.BatchContract]
    return [contract for contract in contracts if not contract.is_off]


# --- processes ----------------------------------------------------------------------------------------
_started_ns = time.time_ns()
_is_prepared = threading.Lock()  # held for ever by who has prepared


def record_process() -> None:
    """Record this process until it ends, as SHAPECHECK_RECORD asks for."""
    file = Path(os.environ[RECORD]).absolute()
    file.parent.mkdir(parents=True, exist_ok=True)
    recorder = Recorder(file)
    recorder.start()
    atexit.register(recorder.save_own)
    multiprocessing.util.Finalize(None, recorder.save_own, exitpriority=0)


def _process_id() -> str:
    return f"{os.getpid()}-{_started_ns}"


def _prepare_for_forks() -> None:
    if not _is_prepared.acquire(blocking=False):
        return
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_begin_in_child)
        multiprocessing.util.register_after_fork(_save_at_the_end, _save_at_the_end)


def _begin_in_child() -> None:
    global _started_ns
    _started_ns = time.time_ns()
    for recorder in _recorders:
        recorder.forget()


def _save_at_the_end(_: object) -> None:
    """Let a forked worker write what it has recorded; the other recorders are told by the innermost."""
    for recorder in _recorders[-1:]:
        multiprocessing.util.Finalize(None, recorder.save_own, exitpriority=0)
