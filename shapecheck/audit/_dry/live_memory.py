"""How many bytes of fake tensors are alive: what real ones would need. Nothing is allocated for counting them.

Torch's own tracker (`torch.distributed._tools.mem_tracker`) refuses modules that are called twice in a step.
"""

import contextlib
import weakref
from collections.abc import Generator, Iterable
from typing import Any

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


class LiveMemory:
    """Counts the storages of tensors for as long as they live.

    Attributes:
        bytes: What is alive now.
        peak: The most that was alive at one time.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self.peak = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def see(self, tensors: Iterable[Any]) -> None:
        """Count tensors, each storage once."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key = storage._cdata  # noqa: SLF001  # the address of what Python objects of a storage share
            if key in self._known:
                continue
            size = storage.nbytes()

            def gone(_: Any, key: int = key, size: int = size) -> None:
                self.bytes -= size
                self._known.pop(key, None)

            self._known[key] = weakref.ref(storage, gone)
            self.bytes += size
            self.peak = max(self.peak, self.bytes)


@contextlib.contextmanager
def live_memory() -> Generator[LiveMemory]:
    """Count every tensor that an operation makes."""
    from torch import Tensor
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    memory = LiveMemory()

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            memory.see(leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
            return result

    with Counting():
        yield memory


def nbytes(tensors: Iterable[Any]) -> int:
    """Return the bytes of some tensors, each storage once."""
    memory = LiveMemory()
    memory.see(tensors)
    return memory.bytes


def describe_bytes(count: float) -> str:
    """Return a number of bytes in a unit that suits it."""
    unit = 0
    while count >= 1024 and unit < len(_UNITS) - 1:
        count, unit = count / 1024, unit + 1
    return f"{count:.3g} {_UNITS[unit]}" if unit else f"{count:.0f} B"
