"""Values that satisfy annotations, without data: tensors are torch's fakes, with sizes that are pairwise distinct.

Owns the choice of sizes and how a value is made for each kind of annotation. Whoever asks enters a `FakeTensorMode`
before; what no value can be made for is refused with the reason (`UnmakeableError`), never guessed.
"""

import collections.abc
import enum
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from ..._annotations.declared import declared, mentions_tensor
from ..._annotations.deferred import CallableNode
from ..._annotations.nodes import (
    AttributesNode,
    CollectionNode,
    EnclosingNode,
    MappingNode,
    Node,
    PlainNode,
    SequenceNode,
    TensorNode,
    TupleNode,
    TypedDictNode,
    UnionNode,
    UnpackedNode,
)
from ..._annotations.refined import RefinedNode
from ..._annotations.resolve import resolve_hints
from ..._annotations.spec import Dim, expression_names, symbolic_size
from ..._annotations.structure import Builder
from ..._boundaries.records import is_record
from ..._render import describe_annotation, kind_name
from ...axes import Axes
from ...errors import ContractDefinitionError
from .._made_up import UnmakeableError
from .fake_tensors import fake_tensor, no_value, torch_value
from .sizes import RunSizes

_NUMBERS = {"primes": (2, 0.5), "falling primes": (1, 1.0), "multiples of 32": (3, 2.0)}  # an int and a float
_ITEMS = 2  # in a container of any length
_DEEPEST = 6  # of values inside values
_PATHS = ("io.", "pathlib.", "os.", "typing.IO", "typing.TextIO", "typing.BinaryIO")


class Maker:
    """Makes the values of one call, with one set of sizes.

    Attributes:
        sizes: The sizes, those that were chosen included.
        arguments: The arguments made so far, by name, to which axes and ties may refer.
        invented: The paths of the numbers that nothing speaks for.

    Args:
        sizes: Chooses sizes.
        packages: Top-level packages whose classes may be instantiated.
        given: Instances by class, taken in place of new ones.
        variant: Which alternative of unions is taken.
        axes: The registry of the project: a whole number that is called like a dim is its size.
    """

    def __init__(
        self,
        sizes: RunSizes,
        packages: Iterable[str] = (),
        given: Mapping[type, Any] | None = None,
        variant: int = 0,
        axes: Axes | None = None,
    ) -> None:
        self.sizes = sizes
        self.arguments: dict[str, Any] = {}
        self.invented: list[str] = []
        self._packages = frozenset(packages)
        self._given = given or {}
        self._variant = variant
        self._axes: Axes = axes if axes is not None else Axes()
        self._depth = 0

    # --- values of nodes --------------------------------------------------------------------------
    def value(self, node: Node, path: str) -> Any:
        """Return a value that satisfies a node.

        Args:
            node: What it must be.
            path: What it is called, for reasons.

        Raises:
            UnmakeableError: There is no way to make one.
        """
        make = _MAKERS.get(type(node))
        if make is None or self._depth > _DEEPEST:
            raise no_value(path, node.text)
        self._depth += 1
        try:
            return make(self, node, path)
        finally:
            self._depth -= 1

    def tensor(self, node: TensorNode, path: str) -> Any:
        """Make an uninitialised tensor."""
        spec = node.spec
        if (found := self._found(spec.annotation.array_type)) is not None:
            return found
        shape = [size for dim in spec.dims for size in self._axes_of(dim, path)]
        if min(shape, default=0) < 0:
            msg = f"{path}: an axis of {node.text} would be negative"
            raise UnmakeableError(msg)
        return fake_tensor(spec, shape, path)

    def _axes_of(self, dim: Dim, path: str) -> list[int]:
        if dim.kind == "fixed":
            return [dim.size]
        if dim.kind == "variadic":
            return list(self.sizes.run_of(dim.text))
        if dim.kind == "anonymous":
            return [self.sizes.fresh()]
        if dim.kind == "named":
            return [self.sizes.of(dim.text)]
        for name in sorted(dim.names):
            self.sizes.of(name)
        size = symbolic_size(dim, self.sizes.single, self.arguments)
        if size is None or size != int(size):
            msg = f"{path}: {dim.text} is no whole number"
            raise UnmakeableError(msg)
        return [int(size)]

    def union(self, node: UnionNode, path: str) -> Any:
        """Make the alternative whose turn it is; the next one if that cannot be made."""
        turn = self._variant % max(len(node.alternatives), 1)
        reasons: list[str] = []
        for alternative in node.alternatives[turn:] + node.alternatives[:turn]:
            try:
                return self.value(alternative, path)
            except UnmakeableError as reason:
                reasons.append(str(reason))
        raise UnmakeableError(reasons[0] if reasons else f"{path}: {node.text} has no alternatives")

    def refined(self, node: RefinedNode, path: str) -> Any:
        """Make what stands in front of validators, which have nothing to look at."""
        return self.value(node.inner, path)

    def sequence(self, node: SequenceNode, path: str) -> Any:
        """Make a container of several items."""
        kind: Any = list if inspect.isabstract(node.kind) else node.kind
        return kind([self.value(node.item, f"{path}[{index}]") for index in range(_ITEMS)])

    def collection(self, node: CollectionNode, path: str) -> Any:
        """Make a list of several items."""
        return [self.value(node.item, f"{path}[{index}]") for index in range(_ITEMS)]

    def tuple_(self, node: TupleNode, path: str) -> Any:
        """Make a tuple."""
        return tuple(self.value(item, f"{path}[{index}]") for index, item in enumerate(node.items))

    def mapping(self, node: MappingNode, path: str) -> Any:
        """Make a dict of several items."""
        is_text = isinstance(node.key, PlainNode) and node.key.hint is str
        keys = ["first", "second"] if is_text else [self.value(node.key, f"a key of {path}")]
        return {key: self.value(node.value, f"{path}[{key!r}]") for key in keys}

    def typed_dict(self, node: TypedDictNode, path: str) -> Any:
        """Make a dict with every declared key."""
        return {key: self.value(inner, f"{path}[{key!r}]") for key, inner in node.fields.items()}

    def attributes(self, node: AttributesNode, path: str) -> Any:
        """Make an instance of a record or of another class with tensors inside."""
        return self.instance(node.kind, path)

    def enclosing(self, node: EnclosingNode, path: str) -> Any:
        """Make an instance of the class that a method stands in, which ``self`` is one of."""
        owner = cast("type[Any]", type(self.arguments.get("self")))
        if owner.__qualname__ != node.text:
            raise no_value(path, node.text)
        return self.instance(owner, path)

    def unpacked(self, node: UnpackedNode, path: str) -> Any:
        """Make all that a starred parameter takes."""
        return self.value(node.whole, path)

    def function(self, node: CallableNode, path: str) -> Any:
        """Refuse: nobody knows what a function should do.

        Raises:
            UnmakeableError: Always.
        """
        msg = f"{path}: no function is made up for {node.text}"
        raise UnmakeableError(msg)

    def plain(self, node: PlainNode, path: str) -> Any:
        """Make a value without tensors inside."""
        return self.of_hint(node.hint, path)

    # --- values without tensors -------------------------------------------------------------------
    def of_hint(self, hint: Any, path: str) -> Any:
        """Return a value that satisfies a hint without annotated tensors."""
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if hint in (None, types.NoneType):
            return None
        if hint is Any or hint is object:
            msg = f"{path}: its annotation accepts anything"
            raise UnmakeableError(msg)
        if origin is typing.Annotated:
            return self.of_hint(arguments[0], path)
        if origin is typing.Literal:
            return arguments[self._variant % len(arguments)]
        if origin in {typing.Union, types.UnionType}:
            return self.union(UnionNode(str(hint), [PlainNode(one, path) for one in arguments]), path)
        if hint in (int, float, bool, complex):
            return self._number(hint, path)
        if is_path(hint):
            msg = f"{path}: it takes text or a file ({describe_annotation(hint)}), which nothing says how to choose"
            raise UnmakeableError(msg)
        if isinstance(origin or hint, type):
            return self._of_class(origin or hint, arguments, path)
        raise no_value(path, describe_annotation(hint))

    def _number(self, kind: Any, path: str) -> Any:
        name = path.rpartition(".")[2]
        whole, broken = _NUMBERS[self.sizes.series]
        if kind is int and (name in self._axes or name in self.sizes.single):
            return self.sizes.of(name)
        self.invented.append(path)
        return {int: whole, float: broken, bool: whole % 2 == 1, complex: complex(broken)}[kind]

    def _of_class(self, kind: Any, arguments: tuple[Any, ...], path: str) -> Any:
        if kind is tuple and arguments and Ellipsis not in arguments:
            return tuple(self.of_hint(item, f"{path}[{index}]") for index, item in enumerate(arguments))
        if kind in cast("set[Any]", _SEQUENCES):
            make: Any = list if inspect.isabstract(kind) else kind
            return make(self.of_hint(item, f"{path}[0]") for item in arguments[:1])
        if kind in cast("set[Any]", _MAPPINGS):
            return {}
        if issubclass(kind, enum.Enum):
            return next(iter(cast("Iterable[Any]", kind)))
        if kind is type and arguments:
            return arguments[0]
        if kind_name(kind) in {"torch.device", "torch.dtype"}:
            return torch_value(kind)
        return self.instance(cast("type[Any]", kind), path)

    # --- instances --------------------------------------------------------------------------------
    def instance(self, kind: type, path: str) -> Any:
        """Return an instance of a class: one that was given, else one whose constructor takes what can be made.

        Raises:
            UnmakeableError: The class belongs to somebody else, or its constructor refuses or needs what cannot be made.
        """
        if (found := self._found(kind)) is not None:
            return found
        if kind.__module__.partition(".")[0] not in self._packages:
            raise no_value(path, kind_name(kind))
        if inspect.isabstract(kind) or getattr(kind, "_is_protocol", False):
            msg = f"{path}: {kind.__qualname__} is abstract, and no instance of it is given"
            raise UnmakeableError(msg)
        try:
            return kind(**self._constructor_arguments(kind, path))
        except UnmakeableError:
            raise
        except Exception as error:  # what a constructor may raise is anybody's guess
            reason = next(iter(str(error).splitlines()), "")
            msg = f"{path}: {kind.__qualname__} cannot be constructed: {type(error).__name__}: {reason}"
            raise UnmakeableError(msg) from error

    def _found(self, kind: Any) -> Any:
        """Return a given instance of a class; None if there is none."""
        is_class = isinstance(kind, type)
        return next((one for known, one in self._given.items() if is_class and issubclass(known, kind)), None)

    def _constructor_arguments(self, kind: Any, path: str) -> dict[str, Any]:
        hints = _hints_of(kind, path)
        made: dict[str, Any] = {}
        later: list[str] = []
        for name, parameter in inspect.signature(kind).parameters.items():
            if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
                _require_known(parameter, kind, path)
                continue
            hint = hints.get(name, parameter.empty)
            if parameter.default is not parameter.empty and not mentions_tensor(hint):
                continue
            if hint is parameter.empty:
                msg = f"{path}: {name!r} of the constructor of {kind.__qualname__} is not annotated"
                raise UnmakeableError(msg)
            if name in self._axes.ties:
                later.append(name)  # a dim that is tied to other arguments
            else:
                made[name] = self.value(Builder().node(hint, name), f"{path}.{name}")
        for name in later:
            made[name] = self._tied(name, made) or self.of_hint(hints[name], f"{path}.{name}")
        return made

    def _tied(self, dim: str, made: Mapping[str, Any]) -> int | None:
        """Return the size that the registry ties a dim to, if the arguments for it are there."""
        expression = self._axes.ties[dim]
        if not expression_names(expression, dim) <= made.keys():
            return None
        size = eval(expression, dict(made))  # the project's own registry
        self.sizes.tie(dim, size, expression)
        return size


_MAKERS: dict[type[Node], Callable[[Maker, Any, str], Any]] = {
    TensorNode: Maker.tensor,
    UnionNode: Maker.union,
    RefinedNode: Maker.refined,
    SequenceNode: Maker.sequence,
    CollectionNode: Maker.collection,
    TupleNode: Maker.tuple_,
    MappingNode: Maker.mapping,
    TypedDictNode: Maker.typed_dict,
    AttributesNode: Maker.attributes,
    EnclosingNode: Maker.enclosing,
    UnpackedNode: Maker.unpacked,
    CallableNode: Maker.function,
    PlainNode: Maker.plain,
}
_SEQUENCES = {
    list,
    set,
    frozenset,
    tuple,
    collections.abc.Sequence,
    collections.abc.Iterable,
    collections.abc.Collection,
}
_MAPPINGS = {dict, collections.abc.Mapping, collections.abc.MutableMapping}


def _require_known(parameter: inspect.Parameter, kind: type, path: str) -> None:
    """Refuse a constructor that takes any number of arguments: an object without them might be none at all."""
    if parameter.kind is parameter.VAR_POSITIONAL:
        msg = f"{path}: nothing says what {kind.__qualname__}(*{parameter.name}) takes"
        raise UnmakeableError(msg)


def is_path(hint: Any) -> bool:
    """Tell whether a hint is that of text, a path or an open file: values that name things outside the program."""
    hints = [hint, *typing.get_args(hint)] if typing.get_origin(hint) in {typing.Union, types.UnionType} else [hint]
    names = [f"{getattr(one, '__module__', '')}.{getattr(one, '__qualname__', one)}" for one in hints]
    return any(one in (str, bytes) for one in hints) or any(name.startswith(_PATHS) for name in names)


def _hints_of(kind: Any, path: str) -> dict[str, Any]:
    """Return what a constructor takes: the fields of a record, the annotations of another class's ``__init__``."""
    try:
        if is_record(kind):
            return {name: item.hint for name, item in declared(kind).items()}
        constructor = inspect.unwrap(kind.__init__)
        return resolve_hints(constructor, getattr(constructor, "__annotations__", {}))
    except ContractDefinitionError as error:
        msg = f"{path}: {error}"
        raise UnmakeableError(msg) from None
