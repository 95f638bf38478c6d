"""The annotations that are proposed for one function, and what could not be known of it."""

import ast
import dataclasses
from collections.abc import Iterable, Iterator

from ..._watching.calls import Call, Function
from ..._watching.forms import Form, MappingForm, PlainForm, SequenceForm, form_of
from ..._watching.instrument import FunctionNode, is_generator, own_nodes, parameters_of
from .annotate import Writer
from .diff import Edit
from .dims import RESULT, Unification
from .imports import Imports
from .names import Naming, Surroundings
from .remarks import Remarks
from .seen import Seen, Shapes, seen
from .signatures import signature_at

Forms = list[tuple[int, Form]]


@dataclasses.dataclass
class Calls:
    """What was seen of one function, in all runs.

    Attributes:
        distinct: The calls, and in which runs each was seen.
        total: How many calls there were.
        runs: How many runs had one.
    """

    distinct: list[Call]
    total: int
    runs: int


@dataclasses.dataclass
class Proposal:
    """What is proposed for one function.

    Attributes:
        function: Which one.
        line: The line of its ``def``.
        calls: How many calls were seen.
        runs: In how many runs.
        annotations: What is proposed, by parameter, with ``return`` for the result.
        notes: What could not be known, and what to do about it.
        edits: What changes in the file.
    """

    function: Function
    line: int
    calls: int
    runs: int
    annotations: dict[str, str] = dataclasses.field(default_factory=dict[str, str])
    notes: list[str] = dataclasses.field(default_factory=list[str])
    edits: list[Edit] = dataclasses.field(default_factory=list[Edit])


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The words of a package, as `Run` has them."""

    names: dict[str, list[str]]
    annotated: dict[str, dict[str, list[str]]]
    registries: dict[str, dict[str, object]]


class Proposer:
    """Makes the proposal for one function.

    Args:
        function: Which one.
        node: Its definition.
        calls: What was seen of it.
        vocabulary: The words of the package.
        source: The file.
        imports: Its imports.
    """

    def __init__(
        self,
        function: Function,
        node: FunctionNode,
        calls: Calls,
        vocabulary: Vocabulary,
        source: str,
        imports: Imports,
    ) -> None:
        self._node = node
        self._source = source
        self._calls = calls
        self._parameters = _own_parameters(function, node)
        shapes: Shapes = {}
        self._seen = {name: seen(path, forms, shapes) for name, path, forms in self._forms()}
        self._unification = Unification(shapes)
        self._naming = Naming(self._unification, self._surroundings(function, vocabulary))
        self._writer = Writer(imports, self._unification.layouts)
        self._proposal = Proposal(function, node.lineno, calls.total, calls.runs)

    def proposal(self) -> Proposal | None:
        """Return the proposal, which may have no annotations; None if the function was never seen with an array."""
        if not any(what.has_arrays for what in self._seen.values()):
            return None
        for parameter in self._parameters:
            self._annotate(parameter)
        self._annotate_result()
        if self._proposal.annotations:
            self._check_for_none()
            remarks = Remarks(self._unification, self._naming, self._calls.total, self._calls.runs)
            self._proposal.notes += remarks.of_all(self._seen.values())
        return self._proposal

    # --- what was seen ---------------------------------------------------------------------------
    def _forms(self) -> Iterator[tuple[str, str, Forms]]:
        """Yield the parameters and the result, each with its path and what it was in every call."""
        for parameter in self._parameters:
            forms = [(number, dict(call.arguments)[parameter.arg]) for number, call in enumerate(self._calls.distinct)]
            if parameter in (self._node.args.vararg, self._node.args.kwarg):
                yield parameter.arg, f"{parameter.arg}[*]", list(_items(forms))
            else:
                yield parameter.arg, parameter.arg, [*forms, *self._default(parameter)]
        yield RESULT, RESULT, [(number, call.result) for number, call in enumerate(self._calls.distinct)]

    def _default(self, parameter: ast.arg) -> Forms:
        """Return the form of a default, which is a value as good as any that was given."""
        default = _default_of(self._node, parameter)
        try:
            return [] if default is None else [(-1, form_of(ast.literal_eval(default), with_value=False))]
        except ValueError:
            return [(-1, PlainForm("object"))] if parameter.annotation is None else []

    def _surroundings(self, function: Function, vocabulary: Vocabulary) -> Surroundings:
        written = vocabulary.annotated.get(f"{function.module}.{function.name}", {})
        values: dict[str, dict[int, int]] = {}
        for number, call in enumerate(self._calls.distinct):
            for name, form in call.arguments:
                if isinstance(form, PlainForm) and form.value is not None:
                    values.setdefault(name, {})[number] = form.value
        return Surroundings(
            parameters=frozenset(parameter.arg for parameter in parameters_of(self._node)),
            written=written,
            words={name: texts for name, texts in vocabulary.names.items() if name not in written},
            registry=vocabulary.registries.get(function.module),
            values=values,
            is_repeated=self._calls.runs > 1,
        )

    # --- what is written -------------------------------------------------------------------------
    def _annotate(self, parameter: ast.arg) -> None:
        what = self._seen[parameter.arg]
        if parameter.annotation is not None:
            self._refine(parameter.arg, parameter.annotation, what)
            return
        text = self._writer.annotation(what)
        if text is None:
            self._proposal.notes += _unknown(parameter.arg, what)
            return
        place = (parameter.end_lineno or 0, parameter.end_col_offset or 0)
        default = _default_of(self._node, parameter)
        spaces = 0 if default is None else self._spaces_around_equals(place)
        self._proposal.annotations[parameter.arg] = text
        end = (place[0], place[1] + spaces)
        self._proposal.edits.append(Edit(place, end, f": {text}{' = ' if spaces else ''}"))

    def _spaces_around_equals(self, place: tuple[int, int]) -> int:
        """Return how many bytes the equals sign behind a parameter takes; 0 if it stands elsewhere."""
        rest = self._source.split("\n")[place[0] - 1].encode()[place[1] :]
        behind = rest.lstrip(b" ")
        return len(rest) - len(behind[1:].lstrip(b" ")) if behind.startswith(b"=") else 0

    def _annotate_result(self) -> None:
        node, what = self._node, self._seen[RESULT]
        if node.returns is not None:
            self._refine(RESULT, node.returns, what)
            return
        text = self._result_text(what)
        if text is None:
            self._proposal.notes += _unknown(RESULT, what)
            return
        arrow = signature_at(self._source.splitlines(keepends=True), node.lineno).arrow
        self._proposal.annotations[RESULT] = text
        self._proposal.edits.append(Edit(arrow, arrow, f" -> {text}"))

    def _result_text(self, what: Seen) -> str | None:
        text = "None" if what.is_nothing else self._writer.annotation(what)
        if text is None or not is_generator(self._node):
            return text
        inner = list(own_nodes(self._node))
        if any(isinstance(part, ast.YieldFrom) or (isinstance(part, ast.Return) and part.value) for part in inner):
            return None
        return self._writer.iterator(text, is_async=isinstance(self._node, ast.AsyncFunctionDef))

    def _check_for_none(self) -> None:
        """Note that the source says ``return None`` where no run has shown it."""
        returns = [part for part in own_nodes(self._node) if isinstance(part, ast.Return)]
        is_silent = any(part.value is None or ast.unparse(part.value) == "None" for part in returns)
        if is_silent and not self._seen[RESULT].is_optional and not is_generator(self._node):
            self._proposal.notes.append("return: the source can return None, which no call did")

    def _refine(self, name: str, annotation: ast.expr, what: Seen) -> None:
        edits = self._writer.refined(annotation, what)
        if edits:
            self._proposal.edits += edits
            self._proposal.annotations[name] = " | ".join(edit.text for edit in edits)


def _own_parameters(function: Function, node: FunctionNode) -> list[ast.arg]:
    """Return the parameters without ``self`` or ``cls``."""
    parameters = parameters_of(node)
    is_static = any(ast.unparse(decorator) == "staticmethod" for decorator in node.decorator_list)
    return parameters[1:] if "." in function.name and not is_static else parameters


def _default_of(node: FunctionNode, parameter: ast.arg) -> ast.expr | None:
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults: list[ast.expr | None] = [*[None] * (len(positional) - len(arguments.defaults)), *arguments.defaults]
    pairs = [*zip(positional, defaults, strict=True), *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    return next((default for other, default in pairs if other is parameter), None)


def _items(forms: Iterable[tuple[int, Form]]) -> Iterator[tuple[int, Form]]:
    """Yield what stands in ``*args`` or ``**kwargs``."""
    for number, form in forms:
        if isinstance(form, SequenceForm | MappingForm):
            yield from ((number, item) for item in form.items)


def _unknown(name: str, what: Seen) -> list[str]:
    """Return why nothing is proposed."""
    if what.has_arrays:
        return [f"{name}: arrays were seen there, but other objects too, which shapes say nothing of"]
    if "object" in what.plain:
        return [f"{name}: an object of a class, left alone"]
    return [f"{name}: nothing but None was seen"] if what.is_nothing else []
