"""Runs the contracted functions of a package on fake tensors: no data, no accelerator, no memory.

A function that ends without a violation has passed for the sizes it was given, and for no others; one that could not
be run has not passed, and is listed with the reason.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from ..._annotations.nodes import tensor_specs
from ..._boundaries.function import FunctionContract
from ...axes import Axes, axes_of
from .._made_up import fixed_sizes
from .._package import Member, members_of
from .calls import finish, make_call, owner_of, variants_of
from .fake_run import Outcome, Verdict, outcome_of_run
from .fakes import Maker
from .sizes import SERIES, RunSizes
from .verified import ORDER, Verification, Verified

_AGAIN: tuple[Verdict, ...] = ("shape error", "error in the body", "refused its arguments")


@dataclasses.dataclass(frozen=True)
class Terms:
    """What the user says of how functions are to be run.

    Attributes:
        sizes: Sizes of dims.
        factories: Each makes an instance of a class that functions need; called anew for every run.
        limit_s: Seconds for one run.
    """

    sizes: Mapping[str, int] = dataclasses.field(default_factory=dict[str, int])
    factories: Sequence[Callable[[], Any]] = ()
    limit_s: float = 10.0


def verify(
    package: str,
    *,
    only: Collection[str] = (),
    skip: Collection[str] = (),
    terms: Terms | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Verification:
    """Run every contracted function of a package that can be run on fake tensors, and tell how each ended.

    Each alternative of a union among the parameters gets a run of its own; a run that fails for another reason than a
    contract is repeated with other sizes, to tell whether it is the sizes.

    Args:
        package: Name of a package or module; its submodules are imported, except ``__main__``.
        only: Names, or ends of names, of the functions to run; all, if none is given.
        skip: Names, or ends of names, of functions not to run.
        terms: Sizes, factories and the limit of time.
        progress: Called before each function with its number, how many there are, and its name; and at the end.

    Raises:
        ValueError: A name in `only` or `skip` is that of no function.
    """
    terms = terms or Terms()
    members = [member for member in members_of(package) if not member.is_record]
    contracted = [member for member in members if member.contract is not None]
    wanted = [member for member in contracted if tensor_specs(member.contract.boundary.nodes.values())]
    for text in (*only, *skip):
        if not any(_is_meant(member.name, text) for member in wanted):
            msg = f"Expected a function of {package} with tensors in its contract, got {text!r}, which none is called."
            raise ValueError(msg)
    chosen = [member for member in wanted if _is_chosen(member.name, only, skip)]
    verified: list[Verified] = []
    for index, member in enumerate(chosen):
        if progress is not None:
            progress(index, len(chosen), member.name)
        verified.append(_verified(member, terms))
    if progress is not None:
        progress(len(chosen), len(chosen), "")
    others = len(contracted) - len(wanted)
    return Verification(package, tuple(verified), others, len(members) - len(contracted))


def _is_chosen(name: str, only: Collection[str], skip: Collection[str]) -> bool:
    is_wanted = not only or any(_is_meant(name, text) for text in only)
    return is_wanted and not any(_is_meant(name, text) for text in skip)


def _is_meant(name: str, text: str) -> bool:
    """Tell whether a text is the name of a function, or of the module or class that it stands in, or the end of one."""
    return f".{text}." in f".{name}."


@dataclasses.dataclass
class _Run:
    """One call of one function; what was called is known when it ends."""

    outcome: Outcome
    series: str
    call: str
    sizes: dict[str, int]


def _verified(member: Member, terms: Terms) -> Verified:
    contract: FunctionContract = member.contract
    runs = [run for variant in range(variants_of(contract)) for run in _runs(member, contract, terms, variant)]
    worst = min(_telling(runs), key=lambda run: ORDER.index(run.outcome.verdict))
    if worst.outcome.verdict == "not run" and any(run.outcome.verdict == "passed" for run in runs):
        worst, *_ = [run for run in runs if run.outcome.verdict == "passed"]
    outcome = worst.outcome
    place = str(contract.boundary.place.defined or "")
    note = _note(worst, runs)
    return Verified(member.name, place, outcome.verdict, outcome.reason, outcome.line, worst.call, worst.sizes, note)


def _runs(member: Member, contract: FunctionContract, terms: Terms, variant: int) -> Iterator[_Run]:
    """Run a function, and again with other sizes where these may be to blame."""
    for series in SERIES:
        run = _run(member, contract, terms, variant, series)
        yield run
        if run.outcome.verdict not in _AGAIN:
            return


def _telling(runs: Sequence[_Run]) -> list[_Run]:
    """Return the runs that count: a function may refuse sizes, if it takes others."""
    passed = any(run.outcome.verdict == "passed" for run in runs)
    excused: tuple[Verdict, ...] = ("refused its arguments", "error in the body") if passed else ()
    return [run for run in runs if run.outcome.verdict not in excused]


def _note(worst: _Run, runs: Sequence[_Run]) -> str:
    passed = next((run for run in runs if run.outcome.verdict == "passed"), None)
    failed = next((run for run in runs if run.outcome.verdict not in {"passed", worst.outcome.verdict}), None)
    if worst.outcome.verdict == "shape error" and passed is not None:
        return f"it takes {passed.call}: the contract allows sizes that the body cannot take"
    if worst.outcome.verdict == "passed" and failed is not None:
        return f"{failed.outcome.verdict} with {failed.call or 'another alternative'}: {failed.outcome.reason}"
    return ""


def _run(member: Member, contract: FunctionContract, terms: Terms, variant: int, series: str) -> _Run:
    axes = contract.terms.axes if contract.terms.axes is not None else axes_of(member.value.__module__)
    root = member.value.__module__.partition(".")[0]
    taken = fixed_sizes(tensor_specs(contract.boundary.nodes.values()))
    sizes = RunSizes(series, terms.sizes, contract.boundary.limits, taken)
    told: list[str] = []
    invented: list[str] = []

    def run() -> None:
        maker = _maker(sizes, root, terms, variant, axes)
        maker.invented = invented
        call = make_call(contract, maker, owner_of(member) if member.has_owner else None)
        told.append(call.text)
        finish(member.value(*call.args, **call.kwargs))

    outcome = outcome_of_run(run, root, terms.limit_s)
    if outcome.verdict == "shape error" and invented:  # which may be to blame as well as the contract
        reason = f"{outcome.reason} (the numbers {', '.join(invented)} were made up)"
        outcome = dataclasses.replace(outcome, verdict="error in the body", reason=reason)
    return _Run(outcome, series, "".join(told), dict(sizes.single))


def _maker(sizes: RunSizes, root: str, terms: Terms, variant: int, axes: Axes | None) -> Maker:
    given = [_called(factory, sizes) for factory in terms.factories]
    return Maker(sizes, {root}, {type(one): one for one in given}, variant, axes)


def _called(factory: Callable[..., Any], sizes: RunSizes) -> Any:
    """Call a factory; parameters that it has without defaults are dims, and get their sizes."""
    parameters = inspect.signature(factory).parameters.values()
    dims = [parameter.name for parameter in parameters if parameter.default is parameter.empty]
    return functools.partial(factory, **{dim: sizes.of(dim) for dim in dims})()
