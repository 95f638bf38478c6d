"""Several processes that do the same work together: started on this machine, watched, and ended as one.

Owns how they find each other and what becomes of an error in one of them. Who shares what among them is `sharing`.
Processes that somebody else started (``torchrun``, a batch system) tell their number in the same variables.
"""

import atexit
import contextlib
import logging
import os
import pickle
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar, cast

import torch
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]  # documented there
from torch.multiprocessing.spawn import ProcessContext, ProcessException, ProcessExitedException, start_processes

__all__ = ["Ranks", "as_the_first_says", "is_first", "part_at_exit", "ranks", "run_on_ranks"]

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")

_HOST = "127.0.0.1"
_SUPERVISOR = "torch.multiprocessing.spawn"
_PATIENCE_S = 20.0  # how long processes that are asked to end may take to do so


class Ranks(NamedTuple):
    """This process among those that work together."""

    rank: int = 0
    n_ranks: int = 1
    n_local: int = 1  # on this machine


class _Outcome(NamedTuple):
    """What became of the work in one process."""

    ended: float  # seconds, of the clock that all processes of a machine share
    result: Any
    error: Exception | None


def ranks() -> Ranks | None:
    """Return which of several processes this is; None where nobody started it as one of several."""
    if "LOCAL_RANK" not in os.environ:
        return None
    return Ranks(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")))


def is_first() -> bool:
    """Return whether this process is the one that writes, and speaks."""
    return (ranks() or Ranks()).rank == 0


def as_the_first_says(work: Callable[[], _Result]) -> _Result:
    """Work in the first process only, and return what it returned in all; the others wait for it."""
    if ranks() is None:
        return work()
    told = [work() if is_first() else None]
    torch.distributed.broadcast_object_list(told)
    return cast("_Result", told[0])


def part_at_exit() -> None:
    """Have this process leave its group when it ends, while there still is an interpreter.

    A thread of the group may hold the last of a tensor; to let go of it once Python is being finalised aborts the
    process, now and then (pytorch/pytorch#190489).
    """
    atexit.register(_part)


def _part() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def run_on_ranks(
    n_ranks: int, work: Callable[_Given, _Result], /, *args: _Given.args, **kwargs: _Given.kwargs
) -> _Result:
    """Do the same work in several new processes on this machine, in which `ranks` tells them apart.

    When one fails the others are ended. A script that calls this needs ``if __name__ == "__main__":``, as the new
    processes import it.

    Args:
        n_ranks: How many processes.
        work: A function that can be imported, with its arguments and its result pickled.
        *args: Its arguments.
        **kwargs: Its arguments by name.

    Returns:
        What the work of the first process returned.

    Raises:
        Exception: The first error of any process, of the type it had there.
        RuntimeError: A process was ended from outside.
        KeyboardInterrupt: This process was interrupted, or the first of the new ones; all of them are ended then.
    """
    with tempfile.TemporaryDirectory() as folder, _without_warnings(_SUPERVISOR):
        # Bound here, before anybody is told of it: no other program can take the port in between.
        store = TCPStore(_HOST, 0, is_master=True, wait_for_workers=False)
        # Pickled by hand, to be imported only when the variables are set that Lightning looks at when it is imported.
        task = pickle.dumps((work, args, kwargs))
        started = start_processes(_work_as_rank, (n_ranks, store.port, folder, task), n_ranks, join=False)
        context = cast("ProcessContext", started)  # None only where it is joined
        try:
            while not context.join():
                pass
        except ProcessException as failure:
            raise _cause(Path(folder), n_ranks, failure) from failure
        finally:
            _end(context)
        outcomes = _outcomes(Path(folder))
    if 0 not in outcomes:
        raise KeyboardInterrupt  # of the first process, which torch takes for a good end
    return outcomes[0].result


@contextlib.contextmanager
def _without_warnings(name: str) -> Iterator[None]:
    """Keep what a logger says of the processes it ends off the terminal: why they are ended is said by the error."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _work_as_rank(rank: int, n_ranks: int, port: int, folder: str, task: bytes) -> None:
    # Also in a job that a shell put in the background, where it is ignored: torch sends it when the parent is gone.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(_variables(rank, n_ranks, port))
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // n_ranks))
    try:
        work, args, kwargs = pickle.loads(task)
        outcome = _Outcome(0.0, work(*args, **kwargs), None)
    except Exception as error:
        _write(Path(folder), rank, _Outcome(time.time(), None, error))
        raise
    _write(Path(folder), rank, outcome)


def _variables(rank: int, n_ranks: int, port: int) -> dict[str, str]:
    """Return what ``torchrun`` would set for a process of one machine."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
        "WORLD_SIZE": str(n_ranks),
        "LOCAL_WORLD_SIZE": str(n_ranks),
        "MASTER_ADDR": _HOST,
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # the store is in the process that started these
    }


def _write(folder: Path, rank: int, outcome: _Outcome) -> None:
    # A file and not a queue: nobody has to be there to receive it, however large it is.
    (folder / str(rank)).write_bytes(pickle.dumps(outcome))


def _outcomes(folder: Path) -> dict[int, _Outcome]:
    return {int(path.name): pickle.loads(path.read_bytes()) for path in folder.iterdir()}


def _cause(folder: Path, n_ranks: int, failure: ProcessException) -> Exception:
    """Return the earliest error: those after it are of processes that lost one they were waiting for."""
    errors = {outcome.ended: outcome.error for outcome in _outcomes(folder).values() if outcome.error is not None}
    if errors and not isinstance(failure, ProcessExitedException):
        return errors[min(errors)]
    msg = (
        f"Expected all {n_ranks} processes to finish, got: {failure.msg}. One that is killed has often taken more "
        "memory than there is."
    )
    return RuntimeError(msg)


def _end(context: ProcessContext) -> None:
    """End what is still running, as an interrupt from the keyboard would, and in the end by force."""
    running = [process for process in context.processes if process.is_alive()]
    for process in running:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGINT)
    deadline = time.monotonic() + _PATIENCE_S
    for process in running:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()
