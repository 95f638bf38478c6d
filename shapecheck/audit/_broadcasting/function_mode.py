"""Watches the calls of torch's functions for elementwise operations that broadcast; needs torch, so is imported late.

A mode of torch's functions, not of its dispatcher: it sees what a line of Python calls, with the frame that calls it,
and neither what C++ makes of it nor backward passes. What is being compiled, exported or traced passes unseen.
"""

import functools
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.jit import is_tracing  # pyright: ignore[reportPrivateImportUsage]
from torch.overrides import TorchFunctionMode

from .intentions import Intentions, Role, is_plain, role_of
from .rules import Judgement, is_elementwise, judge

Report = Callable[[str, Judgement, Sequence[Tensor], FrameType], None]


class BroadcastMode(TorchFunctionMode):
    """Tells of elementwise operations whose broadcast nobody meant.

    Args:
        report: Is told the name of the function, what is wrong, the operands, and the frame of the call.
    """

    def __init__(self, report: Report) -> None:
        super().__init__()
        self._report = report
        self.intentions = Intentions()

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call the function, and look at what it was called with."""
        del types
        named: Mapping[str, Any] = {} if kwargs is None else kwargs
        if torch.compiler.is_compiling():  # dynamo goes through this too
            if getattr(func, "__module__", None) == "torch._tensor":  # it traces these as methods, not all as functions
                return getattr(args[0], func.__name__)(*args[1:], **named)
            return func(*args, **named)
        result = func(*args, **named)
        if not is_tracing():
            name, elementwise, role = _known(func)
            if not (elementwise and self._look(name, args, named, result)) and role is not None:
                self.intentions.follow(func, role, args, named, result)
        return result

    def _look(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> bool:
        """Look at the operands of an elementwise operation, and tell whether there are several tensors among them."""
        given = [*args, *(value for key, value in kwargs.items() if key != "out")] if kwargs else args
        tensors = [value for value in given if isinstance(value, Tensor)]
        if len(tensors) < 2:
            return False
        if all(map(is_plain, tensors)):
            shapes = tuple([tensor.shape for tensor in tensors])
            if shapes.count(shapes[0]) < len(shapes) and judge(shapes) is not None:
                judgement = judge(shapes, tuple(map(self.intentions.of, tensors)))
                if judgement is not None:
                    self._report(name, judgement, tensors, sys._getframe(2))  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # inspect.stack reads source files
            self.intentions.follow_elementwise(tensors, result)
        return True


@functools.lru_cache(maxsize=4096)
def _known(func: Any) -> tuple[str, bool, Role | None]:
    """Return the name of a function of torch, or of the attribute that it gets, whether it is elementwise, and its role."""
    name: str = getattr(func, "__name__", "")
    if name != "__get__":
        return name, is_elementwise(name), role_of(name)
    attribute: str = func.__self__.__name__
    return attribute, False, role if (role := role_of(attribute)) == "transposes" else None
