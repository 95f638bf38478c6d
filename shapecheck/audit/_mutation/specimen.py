"""A valid call that is never made: a stand-in for every tensor that a contract speaks of, with sizes that all differ.

What a call consists of is cut into stages, in the order in which a contract judges them: the arguments, what callables
among them are called with and return, and the result, or what a generator yields.
"""

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from ..._annotations.deferred import CallableNode, GeneratorNode, argument_visits, held_callable
from ..._annotations.nodes import (
    AttributesNode,
    CollectionNode,
    MappingNode,
    Node,
    PlainNode,
    SequenceNode,
    TensorNode,
    TupleNode,
    TypedDictNode,
    UnionNode,
    UnpackedNode,
    Visit,
    tensor_specs,
)
from ..._annotations.refined import RefinedNode
from ..._annotations.scope import Scope, align
from ..._annotations.spec import TensorSpec
from ..._boundaries.boundary import Boundary
from ..._diagnosis.engine import distinct, solve
from ..._render import describe_annotation
from ..._stand_in import StandIn, array_class
from .._made_up import UnmakeableError
from .leaves import leaves_of
from .shells import Shell, attributes_of, plain_value
from .sizes import ATTEMPTS, SizeTable

_DTYPES = ("float32", "complex64", "int64", "bool", "float64", "int32", "uint8", "float16", "complex128")
_PASSES = 3  # until sizes that depend on tensors agree with them
_ITEMS = 2  # of a container: one alone would agree with itself


@dataclasses.dataclass(frozen=True)
class Stage:
    """Values that are judged together.

    Attributes:
        name: What they are.
        roots: The values and what they must be.
        before: What is bound before they are judged.
    """

    name: str
    roots: list[Visit]
    before: list[Scope]


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is measured.

    Attributes:
        boundary: Who judges.
        ties: Expressions that dims are tied to.
        given: Sizes that are known.
        draft: Makes the arguments, by the table of sizes, and what is judged of them.
        later: What is judged after that, stage by stage: a name and a function that makes the values. A stage starts
            from what the arguments bind; one whose name begins with ``result of`` from what the stage before has bound.
    """

    boundary: Boundary
    ties: Mapping[str, str]
    given: Mapping[str, Any]
    draft: Callable[["Maker"], list[Visit]]
    later: list[tuple[str, Callable[["Maker"], list[Visit]]]]
    obstacle: str | None = None


@dataclasses.dataclass(frozen=True)
class Specimen:
    """A valid call.

    Attributes:
        subject: What it is a call of.
        arguments: What expressions may use.
        stages: The values.
        sizes: Size of every dim.
    """

    subject: Subject
    arguments: Mapping[str, Any]
    stages: list[Stage]
    sizes: Mapping[str, Any]


def specimen_of(subject: Subject) -> Specimen:
    """Return a valid call, of several the one with the fewest sizes that are equal by chance.

    Raises:
        UnmakeableError: There is none, or it cannot be found.
    """
    found: list[tuple[int, int, Specimen]] = []
    reason = UnmakeableError("there is no tensor in it whose shape or dtype is promised")
    for attempt in range(ATTEMPTS):
        try:
            specimen = _attempt(subject, attempt)
        except UnmakeableError as error:
            reason = error
            continue
        found.append((_coincidences(specimen), attempt, specimen))
        if not found[-1][0]:
            break
    if not found:
        raise reason
    return min(found, key=lambda item: item[:2])[2]


def _attempt(subject: Subject, attempt: int) -> Specimen:
    given = dict(subject.given)
    specs = tensor_specs(subject.boundary.nodes.values())
    for _ in range(_PASSES):
        maker = Maker(SizeTable(specs, given, subject.boundary.limits, attempt))
        roots = subject.draft(maker)
        for dim, expression in subject.ties.items():
            maker.sizes.prepare(expression, dim)
        tied = tied_scopes(subject.boundary, maker.arguments)
        sizes = {dim: _size_in(tied[0], dim) for dim in subject.ties}
        wrong = {dim: size for dim, size in sizes.items() if size != maker.sizes.of(dim)}
        if not wrong:
            return Specimen(subject, maker.arguments, _stages(subject, maker, roots, tied), maker.sizes.dims)
        given |= wrong
    msg = f"no sizes were found for which {', '.join(given)} agree with what they are tied to"
    raise UnmakeableError(msg)


def tied_scopes(boundary: Boundary, arguments: Mapping[str, Any]) -> list[Scope]:
    """Return what is bound before any value is judged.

    Raises:
        UnmakeableError: A tie cannot be evaluated.
    """
    try:
        return boundary.enter(arguments, [], "on").scopes
    except Exception as error:  # noqa: BLE001  # the author's expression, on stand-ins, can raise anything
        msg = f"what a dim is tied to cannot be evaluated without a real call: {error}"
        raise UnmakeableError(msg) from None


def _size_in(scope: Scope, dim: str) -> Any:
    return scope.shapes[dim][1] if dim in scope.shapes else scope.sizes[dim]


def _stages(subject: Subject, maker: "Maker", roots: list[Visit], tied: list[Scope]) -> list[Stage]:
    stages = [Stage("arguments", roots, tied)]
    entered = bound = bound_by(stages[0])
    for name, make in subject.later:
        stage = Stage(name, make(maker), bound if name.startswith("result of") else entered)
        bound = bound_by(stage)
        stages.append(stage)
    return stages


def bound_by(stage: Stage) -> list[Scope]:
    """Return what is bound after a stage.

    Raises:
        UnmakeableError: It is not valid.
    """
    scopes = distinct(wider for scope in stage.before for wider in solve(stage.roots, scope, asking=False))
    if not scopes:
        msg = f"no valid {stage.name} was found"
        raise UnmakeableError(msg)
    return scopes


def _coincidences(specimen: Specimen) -> int:
    """Count sizes that two dims, or a dim and a number, have in common."""
    roots = [root for stage in specimen.stages for root in stage.roots]
    sizes = {text: size for leaf in leaves_of(roots) for text, size in _written(leaf.node.spec, leaf.value.shape)}
    return len(sizes) - len({*sizes.values()})


def _written(spec: TensorSpec, shape: tuple[int, ...]) -> Iterator[tuple[str, int]]:
    """Yield the size of each dim of a tensor, by how it is written; nothing of what has no name."""
    yield from ((dim.text, shape[axes.start]) for axes, dim in align(spec, len(shape)) if dim.text)


# --- values ----------------------------------------------------------------------------------------
class Maker:
    """Makes values for nodes, with one table of sizes."""

    def __init__(self, sizes: SizeTable) -> None:
        self.sizes = sizes
        self._open: list[Node] = []  # nodes that are being made, to end what refers to itself

    @property
    def arguments(self) -> dict[str, Any]:
        """What expressions may use."""
        return self.sizes.arguments

    def place(self, name: str, value: Any) -> None:
        """Put a value among the arguments; what expressions had asked of it before stays answered."""
        before = self.arguments.get(name)
        if type(before) is Shell and type(value) is Shell:
            vars(value).update({**attributes_of(before), **attributes_of(value)})
        self.arguments[name] = value

    def value(self, node: Node) -> Any:
        """Make a value.

        Raises:
            UnmakeableError: None is known.
        """
        if isinstance(node, TensorNode):
            return self._tensor(node)
        if isinstance(node, PlainNode):
            return plain_value(node.hint)
        make = next((make for kind, make in _MAKES.items() if isinstance(node, kind)), None)
        if make is None or any(node is other for other in self._open):
            msg = f"no value is known for {node.text}"
            raise UnmakeableError(msg)
        self._open.append(node)
        try:
            return make(self, node)
        finally:
            self._open.pop()

    def _tensor(self, node: TensorNode) -> StandIn:
        spec = node.spec
        kind = spec.annotation.array_type
        dtype = next((name for name in _DTYPES if spec.accepts_dtype(name)), None)
        if kind is Any or not isinstance(kind, type):
            kind = next((known for known in map(array_class, ("torch", "numpy")) if known is not None), None)
        if dtype is None or kind is None or not spec.accepts_array(StandIn(kind, dtype, ())):
            msg = f"no dtype or class of arrays is known for {describe_annotation(spec.annotation)}"
            raise UnmakeableError(msg)
        return StandIn(kind, dtype, self.sizes.shape(spec))

    def union(self, node: UnionNode) -> Any:
        """Make the first alternative that can be made, of those with tensors if there is one."""
        alternatives = sorted(node.alternatives, key=lambda one: not tensor_specs([one]))
        reason = UnmakeableError(f"no value is known for {node.text}")
        for alternative in alternatives:
            try:
                return self.value(alternative)
            except UnmakeableError as error:
                reason = error
        raise reason

    def items(self, node: SequenceNode) -> Any:
        """Make a list, a tuple or a set."""
        items = [self.value(node.item) for _ in range(_ITEMS)]
        return items if inspect.isabstract(node.kind) else cast("Any", node.kind)(items)

    def mapping(self, node: MappingNode) -> Any:
        """Make a dict; of more than one entry only where keys can be told apart."""
        keys = ["a", "b"] if getattr(node.key, "hint", None) is str else [self.value(node.key)]
        made = {key: self.value(node.value) for key in keys}
        return made if inspect.isabstract(node.kind) or node.kind is dict else _as_mapping(node, made)

    def fields(self, node: TypedDictNode) -> Any:
        """Make a dict with every declared key."""
        return {key: self.value(inner) for key, inner in node.fields.items()}

    def attributes(self, node: AttributesNode) -> Any:
        """Make a shell with every declared attribute."""
        return Shell(node.kind, {name: self.value(inner) for name, inner in node.fields.items()})


def _as_mapping(node: MappingNode, made: dict[Any, Any]) -> Any:
    try:
        return cast("Any", node.kind)(made)
    except TypeError:  # a defaultdict is made from something else
        msg = f"no value is known for {node.text}"
        raise UnmakeableError(msg) from None


_MAKES: dict[Any, Callable[[Maker, Any], Any]] = {
    UnionNode: Maker.union,
    RefinedNode: lambda maker, node: maker.value(node.inner),
    SequenceNode: Maker.items,
    CollectionNode: lambda maker, node: [maker.value(node.item) for _ in range(_ITEMS)],
    TupleNode: lambda maker, node: tuple(maker.value(item) for item in node.items),
    MappingNode: Maker.mapping,
    TypedDictNode: Maker.fields,
    AttributesNode: Maker.attributes,
    UnpackedNode: lambda maker, node: maker.value(node.whole),
}


# --- subjects -----------------------------------------------------------------------------------------
def subject_of_function(contract: Any) -> Subject:
    """Return a function under contract as something to be measured."""
    nodes: Mapping[str, Node] = contract.boundary.nodes
    judged = {name: node for name, node in nodes.items() if name != "return" and _is_immediate(node)}
    signature: inspect.Signature = contract.signature

    def draft(maker: Maker) -> list[Visit]:
        for name, node in judged.items():
            maker.place(name, _argument(maker, node, signature.parameters[name].kind))
        return argument_visits(signature, judged, {name: maker.arguments[name] for name in judged})

    later = [stage for name, node in nodes.items() if (held := held_callable(node)) for stage in _calls(name, held)]
    returned = nodes.get("return")
    if returned is not None and held_callable(returned) is None:
        later += _results(returned)
    obstacle = None if tensor_specs(nodes.values()) else "no annotation in it speaks of a tensor"
    return Subject(contract.boundary, contract.ties, {}, draft, later, obstacle)


def _is_immediate(node: Node) -> bool:
    return held_callable(node) is None and bool(tensor_specs([node]))


def _argument(maker: Maker, node: Node, kind: Any) -> Any:
    """Make an argument; of a starred parameter, several."""
    if kind is inspect.Parameter.VAR_POSITIONAL and not isinstance(node, UnpackedNode):
        return tuple(maker.value(node) for _ in range(_ITEMS))
    if kind is inspect.Parameter.VAR_KEYWORD and not isinstance(node, UnpackedNode):
        return {name: maker.value(node) for name in ("a", "b")}
    return maker.value(node)


def _calls(name: str, node: CallableNode) -> Iterator[tuple[str, Callable[[Maker], list[Visit]]]]:
    """Yield the stages of a call of an argument, or of a callable that is returned."""
    name = "the result" if name == "return" else name

    def call(maker: Maker) -> list[Visit]:
        names, nodes = node.call.positional()
        values = {key: _or_none(maker, inner) for key, inner in nodes.items()}
        made: tuple[tuple[Any, ...], dict[str, Any]] = (
            (tuple(values.values()), {}) if names is not None else ((), values)
        )
        return [visit for visit in node.call.visit(made, name)[1] if tensor_specs([visit[2]])]

    def result(maker: Maker) -> list[Visit]:
        assert node.result is not None  # for the type checker: only then is there such a stage
        return [(f"result of {name}", maker.value(node.result), node.result)]

    if tensor_specs(node.call.children()):
        yield f"call of {name}", call
    if node.result is not None and tensor_specs([node.result]):
        yield f"result of {name}", result


def _or_none(maker: Maker, node: Node) -> Any:
    return maker.value(node) if tensor_specs([node]) else None


def _results(node: Node) -> Iterator[tuple[str, Callable[[Maker], list[Visit]]]]:
    """Yield the stages of a result: itself, or what a generator yields and returns."""
    parts = {"return": node}
    if isinstance(node, GeneratorNode):
        parts = {"yield[0]": node.yields, **({} if node.returns is None else {"return": node.returns})}
    for path, part in parts.items():
        if tensor_specs([part]):
            yield path, lambda maker, path=path, part=part: [(path, maker.value(part), part)]


def subject_of_value(
    boundary: Boundary, ties: Mapping[str, str], given: Mapping[str, int], paths: Mapping[str, str]
) -> Subject:
    """Return values that cross a boundary by themselves, such as a record or a batch, as something to be measured.

    Args:
        boundary: What they must be.
        ties: Expressions that dims are tied to.
        given: Sizes that are known.
        paths: What the values are called in errors, by name.
    """

    def draft(maker: Maker) -> list[Visit]:
        if given:
            maker.place("dims", dict(given))
        for name, node in boundary.nodes.items():
            maker.place(name, maker.value(node))
        return [(paths.get(name, name), maker.arguments[name], node) for name, node in boundary.nodes.items()]

    return Subject(boundary, ties, given, draft, [])
