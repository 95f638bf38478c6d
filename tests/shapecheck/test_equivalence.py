"""Random contracts and calls: the compiled contract, the reference engine and a matcher of our own agree.

``SHAPECHECK_FUZZ_CALLS`` is how many calls to compiled contracts are compared (``tox -e fuzz``: 200,000).
"""

import collections
import dataclasses
import itertools
import os
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from random import Random
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple, NewType, NotRequired, Required, TypedDict

import jaxtyping
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from shapecheck import ContractDefinitionError, ContractError, contract

torch = pytest.importorskip("torch")

CALLS = int(os.environ.get("SHAPECHECK_FUZZ_CALLS", "3000"))
CALLS_PER_CONTRACT = 10

pytestmark = [pytest.mark.violation, *([pytest.mark.slow] if CALLS > 10_000 else [])]

FAMILIES = {
    "Float32": {"float32"},
    "Float": {"float16", "bfloat16", "float32", "float64"},
    "Int64": {"int64"},
    "Int": {"int8", "int32", "int64"},
    "UInt8": {"uint8"},
    "Integer": {"int8", "int32", "int64", "uint8"},
    "Bool": {"bool"},
    "Complex64": {"complex64"},
    "Complex": {"complex64", "complex128"},
    "Inexact": {"float16", "bfloat16", "float32", "float64", "complex64", "complex128"},
    "Num": {"int8", "int32", "int64", "uint8", "float16", "bfloat16", "float32", "float64", "complex64", "complex128"},
}
DTYPES = sorted(FAMILIES["Num"] | {"bool"})
FAMILIES["Shaped"] = set(DTYPES)
NAMES = ("a", "b", "c", "d")
SYMBOLIC = (
    "a+1",
    "b-1",
    "2*a",
    "a*b",
    "a//2",
    "b%2",
    "a+b",
    "max(a,b)",
    "abs(a-b)",
    "min(a,3)",
    "4-a",
    "a/2",
    "a//b",
    "a**b",
)
IN_BRACES = ("{n}", "{n}+1", "a*{n}", "{config.k}", "{config.k+n}", "{len(text)}")


# --- annotations, described independently of the framework ------------------------------------------
@dataclasses.dataclass(frozen=True)
class Array:
    """One annotated array."""

    family: str
    library: str
    axes: tuple[str, ...]

    def hint(self) -> Any:
        kind = torch.Tensor if self.library == "torch" else np.ndarray
        return getattr(jaxtyping, self.family)[kind, " " + " ".join(self.axes)]


@dataclasses.dataclass(frozen=True)
class Plain:
    """A hint without arrays, values that satisfy it and values that do not."""

    plain: Any
    good: tuple[Any, ...]
    bad: tuple[Any, ...]

    def hint(self) -> Any:
        return self.plain


@dataclasses.dataclass(frozen=True)
class Group:
    """A container, a record or a union of other annotations."""

    kind: str
    items: tuple[Any, ...]
    built: Any

    def hint(self) -> Any:
        return self.built


PLAIN = (
    Plain(int, (0, 3, True), (1.5, "x", None)),
    Plain(float, (1.5, 2, True), ("x", None, 1j)),
    Plain(str, ("x", ""), (b"x", 3)),
    Plain(Literal["on", "off"], ("on", "off"), ("up", 3, [])),
    Plain(Literal[1, 2], (1, 2), (3, "1")),
    Plain(Callable[[int], int], (len, print), (3,)),
    Plain(list[int], ([], [1]), (["x"], (1,))),
    Plain(Any, (1, "x", None), ()),
)
NONE = Plain(None, (None,), (0, False))


def array(random: Random) -> Array:
    axes = [axis(random) for _ in range(random.choice((0, 1, 1, 2, 2, 3, 4)))]
    if random.random() < 0.25:
        variadic = random.choice(("...", "*s", "*s", "*s", "*s", "*#s", "*_", "*a"))
        axes.insert(random.randrange(len(axes) + 1), variadic)
    return Array(random.choice(list(FAMILIES)), random.choice(("torch", "torch", "torch", "numpy")), tuple(axes))


def axis(random: Random) -> str:
    chance = random.random()
    if chance < 0.6:
        return random.choice(NAMES)
    if chance < 0.72:
        return random.choice(("1", "2", "3", "#2", "rows=3"))
    if chance < 0.78:
        return random.choice(("_", "_any"))
    if chance < 0.82:
        return "#" + random.choice(NAMES)
    return random.choice(SYMBOLIC if chance < 0.93 else IN_BRACES)


def annotation(random: Random, depth: int = 2) -> Any:
    chance = random.random()
    if depth == 0 or chance < 0.55:
        return array(random)
    if chance < 0.62:
        return random.choice(PLAIN)
    return GROUPS[random.choice(list(GROUPS))](random, depth - 1)


def union(random: Random, depth: int) -> Group:
    first = annotation(random, depth)
    if random.random() < 0.4:
        items: tuple[Any, ...] = (first, NONE)
    elif isinstance(first, Array) and random.random() < 0.6:
        items = (first, dataclasses.replace(first, family=random.choice(list(FAMILIES))))
    else:
        items = tuple(first if index == 0 else annotation(random, depth) for index in range(random.choice((2, 3))))
    return Group("union", items, typing.Union[tuple(item.hint() for item in items)])  # noqa: UP007  # of a tuple


def container(kind: str, make: Callable[[Any], Any]) -> Callable[[Random, int], Group]:
    def build(random: Random, depth: int) -> Group:
        item = annotation(random, depth)
        return Group(kind, (item,), make(item.hint()))

    return build


def record(kind: str, make: Callable[[dict[str, Any]], Any]) -> Callable[[Random, int], Group]:
    def build(random: Random, depth: int) -> Group:
        items = tuple(annotation(random, depth) for _ in range(random.choice((1, 2, 3))))
        return Group(kind, items, make({f"f{index}": item.hint() for index, item in enumerate(items)}))

    return build


def torch_set(random: Random, depth: int) -> Group:
    del depth
    item = dataclasses.replace(array(random), library="torch")  # NumPy arrays cannot be in a set
    return Group("set", (item,), set[item.hint()])


def attributes(fields: dict[str, Any]) -> type:
    """A class that is no record: only what it says of arrays is a promise."""

    def init(self: Any, *values: Any) -> None:
        for name, value in zip(fields, values, strict=True):
            setattr(self, name, value)

    return type("Attributes", (), {"__annotations__": fields, "__init__": init})


GROUPS: dict[str, Callable[[Random, int], Group]] = {
    "set": torch_set,
    "deque": container("deque", lambda item: collections.deque[item]),
    "iterable": container("iterable", lambda item: Iterable[item]),
    "alias": container("alias", lambda item: NewType("Alias", item)),
    "attributes": record("attributes", attributes),
    "union": union,
    "list": container("list", lambda item: list[item]),
    "sequence": container("sequence", lambda item: Sequence[item]),
    "tuples": container("tuples", lambda item: tuple[item, ...]),
    "dict": container("dict", lambda item: dict[str, item]),
    "mapping": container("mapping", lambda item: Mapping[str, item]),
    "tuple": record("tuple", lambda fields: tuple[tuple(fields.values())]),
    "typeddict": record("typeddict", lambda fields: TypedDict("Fields", fields)),
    "partial": record("partial", lambda fields: TypedDict("Fields", {k: NotRequired[v] for k, v in fields.items()})),
    "required": record(
        "typeddict", lambda fields: TypedDict("F", {k: Required[v] for k, v in fields.items()}, total=False)
    ),
    "namedtuple": record("namedtuple", lambda fields: NamedTuple("Row", list(fields.items()))),
    "dataclass": record("dataclass", lambda fields: dataclasses.make_dataclass("Record", list(fields.items()))),
}


# --- values ------------------------------------------------------------------------------------------
class World(NamedTuple):
    """Sizes that a call is made from, and how likely each array is to be made wrong."""

    sizes: dict[str, int]
    run: tuple[int, ...]
    arguments: dict[str, Any]
    spoil: float


def value_of(node: Any, world: World, random: Random) -> Any:
    if isinstance(node, Array):
        return array_value(node, world, random)
    if isinstance(node, Plain):
        spoiled = node.bad and random.random() < world.spoil / 2
        return random.choice(node.bad if spoiled else node.good)
    if random.random() < world.spoil / 8:
        return random.choice((None, 3, "text", [], {}, (), [None], torch.zeros(2)))
    if node.kind == "union":
        return value_of(random.choice(node.items), world, random)
    if node.kind in {"list", "sequence", "tuples"}:
        values = [value_of(node.items[0], world, random) for _ in range(random.choice((0, 1, 2, 3)))]
        return tuple(values) if node.kind == "tuples" or (node.kind == "sequence" and random.random() < 0.5) else values
    if node.kind == "alias":
        return value_of(node.items[0], world, random)
    if node.kind in {"set", "deque", "iterable"}:
        values = [value_of(node.items[0], world, random) for _ in range(random.choice((0, 1, 2, 3)))]
        if node.kind == "set":
            return {value for value in values if isinstance(value, torch.Tensor)}
        kinds = (iter, list) if random.random() < world.spoil / 4 else (list, tuple, collections.deque)
        return collections.deque(values) if node.kind == "deque" else random.choice(kinds)(values)
    if node.kind in {"dict", "mapping"}:
        values = {f"k{index}": value_of(node.items[0], world, random) for index in range(random.choice((0, 1, 2)))}
        return {3: 3} if random.random() < world.spoil / 8 else values
    values = [value_of(item, world, random) for item in node.items]
    if node.kind in {"typeddict", "partial"}:
        fields = {f"f{index}": value for index, value in enumerate(values)}
        if random.random() < (0.4 if node.kind == "partial" else world.spoil / 8):
            fields.pop("f0")
        if random.random() < world.spoil / 8:
            fields["extra"] = 3
        return collections.OrderedDict(fields) if random.random() < 0.1 else fields
    if node.kind == "tuple":
        return tuple(values[: -1 if random.random() < world.spoil / 8 else None])
    return node.built(*values)


def array_value(node: Array, world: World, random: Random) -> Any:
    shape: list[int] = []
    for text in node.axes:
        if text == "...":
            shape += random.choice(((), (2,), (1, 3)))
        elif text.startswith("*"):
            shape += list(world.run) if not text.startswith("*#") or random.random() < 0.5 else [1] * len(world.run)
        elif text.startswith("#") and random.random() < 0.4:
            shape.append(1)
        else:
            size = size_of(text, world)
            shape.append(max(0, size if size is not None else random.choice((0, 1, 2, 3))))
    dtype = random.choice(sorted(FAMILIES[node.family]))
    library = node.library
    if random.random() < world.spoil:
        change = random.choice(("size", "size", "drop", "add", "swap", "dtype", "library", "one"))
        if change in {"size", "one"} and shape:
            shape[random.randrange(len(shape))] = 1 if change == "one" else random.randrange(4)
        elif change == "drop" and shape:
            del shape[random.randrange(len(shape))]
        elif change == "add":
            shape.insert(random.randrange(len(shape) + 1), random.choice((1, 2)))
        elif change == "swap":
            random.shuffle(shape)
        elif change == "dtype":
            dtype = random.choice(DTYPES)
        elif change == "library":
            library = "numpy" if library == "torch" else "torch"
    if library == "numpy":
        return np.empty(shape, "float32" if dtype == "bfloat16" else dtype)
    return torch.empty(shape, dtype=getattr(torch, dtype))


def size_of(text: str, world: World) -> int | None:
    """The size that an axis has in a world; None for an anonymous axis or one without meaning there."""
    body = text.rpartition("=")[2].lstrip("#")
    if body.startswith("_"):
        return None
    names = {**world.sizes, "max": max, "min": min, "abs": abs, "len": len}
    try:
        size = eval(body.replace("{", "(").replace("}", ")"), {}, {**names, **world.arguments})
    except ZeroDivisionError:
        return None
    return int(size)


# --- the matcher -------------------------------------------------------------------------------------
class Undecided(Exception):  # noqa: N818
    """The matcher does not know the feature."""


def flatten(node: Any, value: Any) -> Iterator[list[tuple[Array, Any]]]:
    """Yield, for every choice of union alternatives, the arrays that must fit together; nothing if none can."""
    if isinstance(node, Group) and node.kind in RECORDS and not holds_arrays(node):
        raise Undecided  # beartype's, as a whole
    if isinstance(node, Array):
        kind = torch.Tensor if node.library == "torch" else np.ndarray
        if isinstance(value, kind) and str(value.dtype).rpartition(".")[2] in FAMILIES[node.family]:
            yield [(node, tuple(value.shape))]
    elif isinstance(node, Plain):
        if any(value is good for good in node.good):
            yield []
        elif not any(value is bad for bad in node.bad):
            raise Undecided
    elif node.kind in {"union", "alias"}:
        for item in node.items:
            yield from flatten(item, value)
    else:
        parts = inside(node, value)
        if parts is not None:
            for choice in itertools.product(*(list(flatten(item, part)) for item, part in parts)):
                yield list(itertools.chain(*choice))


RECORDS = {"typeddict", "partial", "namedtuple", "dataclass"}


def holds_arrays(node: Any) -> bool:
    return isinstance(node, Array) or (isinstance(node, Group) and any(map(holds_arrays, node.items)))


def inside(node: Group, value: Any) -> list[tuple[Any, Any]] | None:
    """What a container or record holds, or None when it is of the wrong kind."""
    item, fields = (*node.items, None)[0], [f"f{index}" for index in range(len(node.items))]
    if node.kind in {"list", "sequence", "tuples"}:
        kinds = {"list": list, "tuples": tuple, "sequence": (list, tuple)}[node.kind]
        return [(item, part) for part in value] if isinstance(value, kinds) else None
    if node.kind in {"set", "deque", "iterable"}:
        kinds = {"set": set, "deque": collections.deque, "iterable": Collection}[node.kind]
        good = isinstance(value, kinds) and not isinstance(value, str) and getattr(value, "ndim", 1) > 0
        return [(item, part) for part in value] if good else None
    if node.kind == "attributes":
        pairs = zip(node.items, fields, strict=True)
        good = isinstance(value, node.built)
        return [(item, getattr(value, name)) for item, name in pairs if holds_arrays(item)] if good else None
    if node.kind in {"dict", "mapping"}:
        good = isinstance(value, dict) and all(isinstance(key, str) for key in value)
        return [(item, part) for part in value.values()] if good else None
    if node.kind in {"typeddict", "partial"}:
        needed = set(fields) if node.kind == "typeddict" else set()
        good = isinstance(value, dict) and needed <= set(value) <= set(fields)
        return [(node.items[fields.index(key)], part) for key, part in value.items()] if good else None
    if node.kind == "tuple":
        good = isinstance(value, tuple) and len(value) == len(node.items)
        return list(zip(node.items, value, strict=True)) if good else None
    good = isinstance(value, node.built)
    return [(item, getattr(value, name)) for item, name in zip(node.items, fields, strict=True)] if good else None


def fits(arrays: list[tuple[Array, tuple[int, ...]]], ties: dict[str, int], arguments: dict[str, Any]) -> bool:
    """The ten lines: collect what must be equal, then compare."""
    sizes, runs, rest = {name: {size} for name, size in ties.items()}, collections.defaultdict(set), []
    for node, shape in arrays:
        texts = [text.rpartition("=")[2] for text in node.axes]
        star = next((index for index, text in enumerate(texts) if text[0] in "*." or text == "*_"), None)
        if star is not None:
            if len(shape) < len(texts) - 1:
                return False
            end = len(shape) - (len(texts) - star - 1)
            if texts[star] == "*#s":
                raise Undecided
            runs[texts[star]].add(shape[star:end])
            shape, texts = shape[:star] + shape[end:], texts[:star] + texts[star + 1 :]
        if len(shape) != len(texts):
            return False
        rest += zip(texts, shape, strict=True)
    for text, size in rest:
        if text in NAMES:
            sizes.setdefault(text, set()).add(size)
    for text, size in rest:  # a broadcastable dim binds when its size is not 1
        if text[0] == "#" and text[1:] in NAMES and size != 1:
            sizes.setdefault(text[1:], set()).add(size)
    if any(len(found) > 1 for found in (*sizes.values(), runs["*s"], runs["*a"])):
        return False
    require_order(arrays, set(ties))
    names = {name: min(found) for name, found in sizes.items()}
    return all(holds(text, size, names, arguments) for text, size in rest)


def require_order(arrays: list[tuple[Array, tuple[int, ...]]], known: set[str]) -> None:
    """Refuse arrays whose expressions cannot be evaluated one array at a time, each after those that bind its dims."""
    waiting = [node.axes for node, _ in arrays]
    while waiting:
        ready = next((axes for axes in waiting if used(axes) <= known | {*NAMES} & {*axes}), None)
        if ready is None:
            raise Undecided
        known |= {*NAMES} & {*ready}
        waiting.remove(ready)


def used(axes: tuple[str, ...]) -> set[str]:
    return {name for text in axes for name in NAMES if text in SYMBOLIC + IN_BRACES and name in text.split("{")[0]}


def holds(text: str, size: int, names: dict[str, int], arguments: dict[str, Any]) -> bool:
    if text[0] == "_" or text.lstrip("#") in NAMES or (text[0] == "#" and size == 1):
        return True
    scope = {**names, **arguments, "max": max, "min": min, "abs": abs, "len": len}
    try:
        return size == eval(text.lstrip("#").replace("{", "(").replace("}", ")"), {}, scope)
    except (NameError, ZeroDivisionError):
        return False


# --- contracts and calls -----------------------------------------------------------------------------
class Signature(NamedTuple):
    """A random contract."""

    header: str
    nodes: dict[str, Any]
    ties: dict[str, str]
    keyword_only: frozenset[str]
    starred: str


FIXED = {"n": Plain(int, (0, 1, 2, 3), ()), "config": Plain(SimpleNamespace, (), ()), "text": Plain(str, (), ())}


def random_signature(random: Random) -> Signature:
    nodes: dict[str, Any] = {f"p{index}": annotation(random) for index in range(random.choice((1, 2, 2, 3, 4)))}
    names = list(nodes)
    nodes |= FIXED
    first = random.randrange(len(names) + 1)
    starred = random.choice(("", "", "", "", "args", "kwargs"))
    keyword_only = frozenset(names[first:]) | FIXED.keys()
    parts = names[:first] + (["/"] if first and random.random() < 0.3 else [])
    parts += ["*args" if starred == "args" else "*", *names[first:], *FIXED]
    if starred:
        nodes[starred] = annotation(random, 1)
        parts += ["**kwargs"] if starred == "kwargs" else []
    if random.random() < 0.6:
        nodes["return"] = annotation(random)
    ties = {random.choice(NAMES): random.choice(("n", "config.k", "len(text)", "n+1"))} if random.random() < 0.2 else {}
    return Signature(", ".join(parts), nodes, ties, keyword_only, starred)


def define(signature: Signature, engine: str, results: list[Any]) -> Callable[..., Any]:
    names = {"results": results, "__name__": __name__}
    exec(f"def f({signature.header}):\n    return results[0]", names)  # noqa: S102  # written above
    function: Any = names["f"]
    function.__annotations__ = {name: node.hint() for name, node in signature.nodes.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHAPECHECK_ENGINE", engine)
        return contract(dims=signature.ties)(function)


class Call(NamedTuple):
    """A random call, and its values with what each must be."""

    positional: list[Any]
    keywords: dict[str, Any]
    result: Any
    values: list[tuple[Any, Any]]
    arguments: dict[str, Any]


def random_call(signature: Signature, random: Random) -> Call:
    arguments = {
        "n": random.randrange(4),
        "config": SimpleNamespace(k=random.randrange(4)),
        "text": "abc"[: random.randrange(4)],
    }
    sizes = {name: random.choice((0, 1, 2, 2, 3, 4)) for name in NAMES}
    sizes |= {dim: eval(text, {"len": len}, arguments) for dim, text in signature.ties.items()}
    world = World(sizes, random.choice(((), (2,), (2, 3), (1, 2))), arguments, random.choice((0.0, 0.0, 0.1, 0.3)))
    positional, keywords, values = [], dict(arguments), []
    for name, node in signature.nodes.items():
        if name in FIXED:
            continue
        copies = random.randrange(3) if name == signature.starred else 1
        made = [value_of(node, world, random) for _ in range(copies)]
        values += [(node, value) for value in made]
        if name == "return":
            result = made[0]
        elif name == "kwargs":
            keywords |= {f"extra{index}": value for index, value in enumerate(made)}
        elif name in signature.keyword_only:
            keywords[name] = made[0]
        else:
            positional += made
    return Call(positional, keywords, result if "return" in signature.nodes else None, values, arguments)


def verdict(function: Callable[..., Any], call: Call, results: list[Any]) -> str:
    results[:] = [call.result]
    try:
        returned = function(*call.positional, **call.keywords)
    except (ContractError, ContractDefinitionError) as error:
        return type(error).__name__
    assert returned is call.result
    return "accepted"


def matcher_verdict(signature: Signature, call: Call) -> str:
    """What the matcher says. The result must fit arguments that fit by themselves."""
    ties = {dim: eval(text, {"len": len}, call.arguments) for dim, text in signature.ties.items()}
    end = len(call.values) - ("return" in signature.nodes)
    entering, leaving = (
        list(flatten(Group("tuple", tuple(node for node, _ in part), None), tuple(value for _, value in part)))
        for part in (call.values[:end], call.values[end:])
    )
    good = [choice for choice in entering if fits(choice, ties, call.arguments)]
    accepted = any(fits(choice + result, ties, call.arguments) for choice in good for result in leaving)
    return "accepted" if accepted else "ContractError"


tally: "collections.Counter[str]" = collections.Counter()


def compare(random: Random) -> None:
    """Define one random contract in both engines, and compare their verdicts on random calls."""
    signature = random_signature(random)
    results: list[Any] = []
    try:
        reference = define(signature, "reference", results)
    except ContractDefinitionError:
        with pytest.raises(ContractDefinitionError):
            define(signature, "compiled", results)
        tally["contracts refused by both"] += 1
        return
    compiled = define(signature, "compiled", results)
    is_compiled = hasattr(compiled, "__contract_source__")
    tally["contracts compiled" if is_compiled else "contracts left to the reference engine"] += 1
    doubts = count_doubts(compiled) if is_compiled else []
    for _ in range(CALLS_PER_CONTRACT):
        call = random_call(signature, random)
        expected = verdict(reference, call, results)
        doubts.clear()
        got = verdict(compiled, call, results)
        tally[f"calls {expected}"] += 1
        if is_compiled:
            tally["calls to compiled contracts"] += 1
            tally["calls to compiled contracts that they accepted by themselves"] += not doubts
        if got != expected:
            pytest.fail(f"compiled: {got}, reference: {expected}\n{explain(signature, call, compiled)}")
        try:
            matched = matcher_verdict(signature, call)
        except Undecided:
            continue
        if matched != expected:
            pytest.fail(f"matcher: {matched}, reference: {expected}\n{explain(signature, call, compiled)}")
        tally["calls decided by the matcher too"] += 1


def count_doubts(compiled: Callable[..., Any]) -> list[None]:
    """Return a list that grows by one whenever a compiled contract turns to the reference engine."""
    doubts: list[None] = []
    names = compiled.__globals__
    for name in ("_sc_slow", "_sc_leave"):

        def counted(*args: Any, _judge: Callable[..., Any] = names[name], **kwargs: Any) -> Any:
            doubts.append(None)
            return _judge(*args, **kwargs)

        names[name] = counted
    return doubts


def explain(signature: Signature, call: Call, compiled: Callable[..., Any]) -> str:
    return f"{signature}\n{call}\n{getattr(compiled, '__contract_source__', '')}"


@settings(
    max_examples=CALLS,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],  # a seed cannot be made simpler
    suppress_health_check=list(HealthCheck),
)
@given(st.integers(0, 2**64 - 1))
def test_compiled_contracts_the_reference_engine_and_a_matcher_agree(seed: int) -> None:
    if tally["calls to compiled contracts"] < CALLS:
        compare(Random(seed))


@pytest.fixture(scope="module", autouse=True)
def _print_tally() -> Iterator[None]:
    yield
    for what, number in sorted(tally.items()):
        print(f"{number:>9,} {what}")
    assert tally["calls to compiled contracts"] >= CALLS
    assert tally["calls to compiled contracts that they accepted by themselves"] > CALLS / 2
