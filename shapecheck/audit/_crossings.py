"""Tells of everything that crosses a boundary, while somebody wants to know, and costs nothing otherwise.

While it does, every contract is judged by the reference engine, where all values pass by: nothing that is compiled
has to be changed, and what was defined before is seen as well.
"""

import contextlib
import re
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from .._annotations.deferred import ARGUMENTS
from .._annotations.nodes import CollectionNode, MappingNode, SequenceNode, TensorNode, UnionNode, Visit
from .._boundaries.boundary import Boundary, Verdict
from .._diagnosis.engine import solve
from .._settings import Mode, doubt
from .._stand_in import StandIn

_NUMBERED = re.compile(r"^(yield|sent)\[\d+\]")  # what a generator hands out and is sent
_RESULTS = ("return", "yield")

_enter, _leave = Boundary.enter, Boundary.leave
_lock = threading.Lock()


class Tensor(NamedTuple):
    """A tensor that crossed: where it stood, without the positions in containers of any length, and itself."""

    label: str
    value: Any

    @property
    def is_result(self) -> bool:
        """Whether the boundary hands it out."""
        return self.label.startswith(_RESULTS)


class Crossing(NamedTuple):
    """Values that crossed a boundary together.

    Attributes:
        boundary: The boundary.
        name: Its name; for what is no function or record with the name of the value that is checked there.
        begins: Whether a call begins with it.
        hands_on: Whether the boundary hands the same values out again, as a record and a loader do.
        before: What was known of the call before.
        verdict: What is known now.
        is_rejected: Whether the contract is broken.
        tensors: The tensors among them.
    """

    boundary: Boundary
    name: str
    begins: bool
    hands_on: bool
    before: Verdict
    verdict: Verdict
    is_rejected: bool
    tensors: list[Tensor]

    @property
    def unseen(self) -> str | None:
        """Why it says nothing about real tensors, if it does not."""
        torch: Any = sys.modules.get("torch")
        if torch is None:
            return None if not any(type(tensor.value) is StandIn for tensor in self.tensors) else _NO_DATA
        if torch.compiler.is_compiling():
            return TRACED
        fake = torch._subclasses.FakeTensor  # noqa: SLF001
        kinds = (tensor.value for tensor in self.tensors)
        return _NO_DATA if any(type(value) in {StandIn, fake} or _is_meta(value) for value in kinds) else None


TRACED = "torch traced it for a compiled or exported graph, whose calls are not seen"
_NO_DATA = "it was called with tensors without data (meta or fake ones), as in a dry run"


def _is_meta(value: Any) -> bool:
    return getattr(getattr(value, "device", None), "type", None) == "meta"


class Observer(Protocol):
    """Somebody who wants to know."""

    def crossed(self, crossing: Crossing) -> None:
        """Take note."""
        ...


observers: list[Observer] = []
_doubt = contextlib.ExitStack()


def observe(observer: Observer) -> None:
    """Tell somebody of every crossing, from now on, in all threads."""
    with _lock:
        observers.append(observer)
        if len(observers) == 1:
            Boundary.enter, Boundary.leave = _observed_enter, _observed_leave
            _doubt.enter_context(doubt())


def unobserve(observer: Observer) -> None:
    """End that."""
    with _lock:
        observers.remove(observer)
        if not observers:
            _doubt.close()
            Boundary.enter, Boundary.leave = _enter, _leave


# --- in place of the methods of a boundary --------------------------------------------------------------
def _observed_enter(self: Boundary, arguments: Mapping[str, Any], visits: Iterable[Visit], mode: Mode) -> Verdict:
    __tracebackhide__ = True
    listed = [*visits]
    verdict = _enter(self, arguments, listed, mode)
    is_checked = [*arguments] == ["dims"] and "dims" not in self.nodes and len(listed) == 1  # batches, and `check`
    name = f"{self.place.name} ({listed[0][0]})" if is_checked else self.place.name
    begins = not any(path == ARGUMENTS for path, _, _ in listed)  # an overload is an alternative, and no call
    hands_on = is_checked or ("self" in self.nodes and any(path == "" for path, _, _ in listed))
    _tell(Crossing(self, name, begins, hands_on, Verdict([], None), verdict, *_seen(listed, verdict, mode)))
    return verdict


def _observed_leave(self: Boundary, entered: Verdict, visits: Iterable[Visit], mode: Mode) -> Verdict:
    __tracebackhide__ = True
    listed = [*visits]
    verdict = _leave(self, entered, listed, mode)
    _tell(Crossing(self, self.place.name, False, False, entered, verdict, *_seen(listed, verdict, mode)))
    return verdict


def _tell(crossing: Crossing) -> None:
    for observer in [*observers]:
        observer.crossed(crossing)


def _seen(visits: list[Visit], verdict: Verdict, mode: Mode) -> tuple[bool, list[Tensor]]:
    """Return whether values broke the contract, and the tensors among them; in mode ``warn`` nobody says so."""
    broken = verdict.error is not None
    if mode == "warn":
        broken = not verdict.scopes or next(solve(visits, verdict.scopes[0], asking=False), None) is None
    return broken, [] if broken else list(_tensors(visits))


def _tensors(visits: Iterable[Visit]) -> Iterator[Tensor]:
    """Yield every tensor in accepted values, in order."""
    pending = [(_NUMBERED.sub(r"\1", path), value, node) for path, value, node in visits][::-1]
    while pending:
        label, value, node = pending.pop()
        if isinstance(node, TensorNode):
            yield Tensor(label, value)
        elif isinstance(node, UnionNode):
            pending += [(label, value, one) for one in node.alternatives if one.accepts_kind(value)][:1]
        else:
            has_any_length = isinstance(node, (SequenceNode, CollectionNode, MappingNode))
            inner = [
                (f"{label}[...]" if has_any_length else path, *rest) for path, *rest in node.visit(value, label)[1]
            ]
            pending += inner[::-1]
