"""The ranks of a distributed run tell each other that a contract is broken, before one of them ends the run.

Nothing is exchanged while all is well, and nobody waits for a rank that may never come: a thread of each rank looks
into a store that the first rank keeps, beside the collectives of the run and never in their way.
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from ..errors import ContractError

_LOOK_EVERY_S = 0.2
_PATIENCE_S = 10.0  # how long a rank that ends the run waits until the others have heard why
_CONNECT_S = 60.0


class Ranks:
    """This rank's end of the line to the others.

    Args:
        rank: Number of this rank.
        world_size: How many ranks there are.
        broadcast: Hands a value of the first rank to every rank; all ranks call it at the same time.
    """

    def __init__(self, rank: int, world_size: int, broadcast: Callable[[Any], Any]) -> None:
        self.rank = rank
        self.world_size = world_size
        self._told = False
        self._heard: str | None = None
        self._closed = threading.Event()
        self._store = _store(rank, broadcast)
        self._listener = threading.Thread(target=self._listen, name="shapecheck-ranks", daemon=True)
        self._listener.start()

    def tell(self, error: ContractError) -> None:
        """Tell every rank about an error of this one; return when all have heard, or none is left to hear."""
        self._told = True
        try:
            self._store.compare_set("violation", "", f"{self.rank}\n{error}")  # the first one is told
            waiting = time.monotonic() + _PATIENCE_S
            while self._store.add("heard", 0) < self.world_size and time.monotonic() < waiting:
                time.sleep(_LOOK_EVERY_S / 10)
        except RuntimeError:  # the first rank is gone
            return

    def heard(self) -> ContractError | None:
        """Return the error that another rank ends the run with, if it told one."""
        if self._heard is None or self._told:
            return None
        rank, _, text = self._heard.partition("\n")
        return ContractError(f"{text}\n  raised in  rank {rank} of {self.world_size}")

    def close(self) -> None:
        """Stop listening."""
        self._closed.set()
        self._listener.join(_PATIENCE_S)

    def _listen(self) -> None:
        try:
            while not self._closed.wait(_LOOK_EVERY_S):
                if self._store.check(["violation"]):
                    self._heard = self._store.get("violation").decode()
                    self._announce()
                    self._store.add("heard", 1)
                    return
        except RuntimeError:  # the first rank is gone: the run is over
            return

    def _announce(self) -> None:
        """Write at once what was heard: this rank may be waiting for the other one, and be ended without a word."""
        error = self.heard()
        if error is not None:
            first, *_, last = str(error).splitlines()
            sys.stderr.write(f"[rank {self.rank}] {first}\n{last}\n")
            sys.stderr.flush()


def _store(rank: int, broadcast: Callable[[Any], Any]) -> Any:
    """Return a store of our own; that of the process group serves the collectives."""
    from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]  # documented there

    host, timeout = os.environ.get("MASTER_ADDR", "127.0.0.1"), timedelta(seconds=_CONNECT_S)
    if rank == 0:
        store = TCPStore(host, 0, is_master=True, timeout=timeout, wait_for_workers=False)
        broadcast(store.port)
        return store
    return TCPStore(host, broadcast(None), is_master=False, timeout=timeout)
