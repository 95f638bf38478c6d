"""Annotations of every spelling are checked, or refused where the contract is defined: none turns into "anything"."""

import dataclasses
import importlib.util
import itertools
import subprocess
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, NewType, ParamSpec, Self, TypeAlias, TypedDict, TypeVar, Unpack

import pytest
import typing_extensions
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float, Float32, Float64, Int64

from shapecheck import ContractDefinitionError, ContractError, check, contract

torch = pytest.importorskip("torch")
Tensor = torch.Tensor

pytestmark = pytest.mark.violation

Image: TypeAlias = Float32[Tensor, "h w"]
GOOD, BAD = torch.zeros(5, 6), torch.zeros(5)
AGREES, DIFFERS = torch.ones(5, 6), torch.ones(6, 5)
MODULES = itertools.count()


@pytest.fixture(autouse=True)
def _engine(engine: str) -> None:
    """Every test here holds for both engines."""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import a piece of source as a module of its own, as users write it."""

    def define(source: str) -> ModuleType:
        name = f"annotated_{next(MODULES)}"
        path = tmp_path / f"{name}.py"
        path.write_text(textwrap.dedent(source))
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        loaded = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, loaded)
        spec.loader.exec_module(loaded)
        return loaded

    return define


def assert_holds(function: Callable[..., Any], good: tuple[Any, ...], bad: tuple[Any, ...]) -> None:
    """A good call passes and a bad one does not."""
    function(*good)
    with pytest.raises(ContractError):
        function(*bad)


# --- strings ---------------------------------------------------------------------------------------
HEADER = """
    from __future__ import annotations
    import dataclasses
    from typing import TYPE_CHECKING, NamedTuple, NotRequired, Optional, Required, Self, TypedDict
    from jaxtyping import Float32
    from torch import Tensor
    from shapecheck import contract
"""


def test_annotations_whose_evaluation_is_postponed_are_checked(module: Callable[[str], ModuleType]) -> None:
    loaded = module(
        HEADER
        + """
    Image = Float32[Tensor, "h w"]

    @contract
    def add(x: Image, y: Optional[Float32[Tensor, "h w"]], *rest: list[Image]) -> Image:
        return x
    """
    )
    assert_holds(loaded.add, (GOOD, AGREES, [GOOD]), (GOOD, DIFFERS))
    assert_holds(loaded.add, (GOOD, None), (GOOD, None, [DIFFERS]))


def test_records_whose_annotations_are_postponed_are_checked(module: Callable[[str], ModuleType]) -> None:
    loaded = module(
        HEADER
        + """
    class Fields(TypedDict):
        image: Float32[Tensor, "h w"]
        mask: NotRequired[Float32[Tensor, "h w"]]

    class Loose(TypedDict, total=False):
        image: Required[Float32[Tensor, "h w"]]
        mask: Float32[Tensor, "h w"]

    class Row(NamedTuple):
        image: Float32[Tensor, "h w"]
        mask: Float32[Tensor, "h w"]

    @contract
    @dataclasses.dataclass
    class Sample:
        image: Float32[Tensor, "h w"]
        before: Sample | None = None

        @contract
        def join(self, other: Sample) -> Self:
            return self
    """
    )
    for fields in (loaded.Fields, loaded.Loose):
        assert_holds(check, ({"image": GOOD}, fields), ({"mask": GOOD}, fields))
        assert_holds(check, ({"image": GOOD, "mask": AGREES}, fields), ({"image": GOOD, "mask": DIFFERS}, fields))
    assert_holds(check, (loaded.Row(GOOD, AGREES), loaded.Row), (loaded.Row(GOOD, DIFFERS), loaded.Row))
    sample = loaded.Sample(GOOD)
    assert_holds(loaded.Sample, (AGREES, sample), (AGREES, GOOD))
    assert_holds(sample.join, (loaded.Sample(AGREES),), (AGREES,))
    changed = loaded.Sample(GOOD)
    changed.image = BAD
    assert_holds(sample.join, (loaded.Sample(AGREES),), (changed,))


def test_a_record_is_resolved_where_each_of_its_bases_stands(module: Callable[[str], ModuleType]) -> None:
    base = module(
        HEADER
        + """
    Hidden = Float32[Tensor, "h w"]

    @dataclasses.dataclass
    class Base:
        image: Hidden
    """
    )

    @dataclasses.dataclass
    class Child(base.Base):
        mask: "Image"

    assert_holds(check, (Child(GOOD, AGREES), Child), (Child(GOOD, DIFFERS), Child))


def test_a_name_under_type_checking_is_refused_with_the_cure(module: Callable[[str], ModuleType]) -> None:
    source = """
    if TYPE_CHECKING:
        from elsewhere import Image

    @contract
    def use(x: Image) -> None: ...
    """
    with pytest.raises(ContractDefinitionError) as caught:
        module(HEADER + source)
    text = str(caught.value)
    assert text.startswith("The annotation 'Image' of 'x' of use cannot be resolved: name 'Image' is not defined.")
    assert "outside `if TYPE_CHECKING:`" in text
    right = source.replace("if TYPE_CHECKING:", "if True:").replace("from elsewhere import Image", "Image = Tensor")
    module(HEADER + right).use(GOOD)


def test_local_names_of_enclosing_functions_and_classes_are_in_reach() -> None:
    Local = Float32[Tensor, "h w"]  # named below

    class Outer:
        Inner = Float32[Tensor, "h w"]

        @contract
        def use(self, x: "Local", y: "Inner") -> None: ...  # of the class

    assert_holds(Outer().use, (GOOD, AGREES), (GOOD, DIFFERS))

    def other() -> Any:
        Local = Int64[Tensor, " n"]  # named below

        @contract
        def use(x: "Local") -> None: ...

        return use

    assert_holds(other(), (torch.arange(3),), (GOOD,))


def test_names_of_a_caller_that_is_not_around_the_function_are_not_in_reach() -> None:
    def inner() -> None:
        def use(x: "Elsewhere") -> None: ...  # noqa: F821

        contract(use)

    def around() -> None:
        Elsewhere = Image  # noqa: F841
        inner()

    with pytest.raises(ContractDefinitionError, match="name 'Elsewhere' is not defined"):
        around()


class Chain:
    """A class whose methods name it while its body is being executed."""

    link = 0

    @contract
    def follow(self, others: "list[Chain] | None", x: Image) -> "Chain":
        return others[0] if others else self  # pyright: ignore

    @contract
    def itself(self, wrong: bool) -> Self:
        return None if wrong else self  # pyright: ignore


def test_a_method_may_name_its_own_class() -> None:
    chain = Chain()
    assert chain.follow([Chain()], GOOD).link == 0
    assert_holds(chain.follow, (None, GOOD), ([3], GOOD))
    assert_holds(chain.follow, ([chain], GOOD), ([chain], BAD))
    assert_holds(chain.itself, (False,), (True,))


@pytest.mark.parametrize("hint", ["Missing", "list[Missing]", "Float32[Tensor, '*a *b']", "1 +", "Image.nothing"])
def test_a_string_that_cannot_be_evaluated_is_refused_by_name(hint: str) -> None:
    def use(x: Any) -> None: ...

    use.__annotations__["x"] = hint
    with pytest.raises(ContractDefinitionError, match=r"of 'x' of .*use cannot be resolved"):
        contract(use)
    use.__annotations__["x"] = "list[Image]"
    assert_holds(contract(use), ([GOOD, AGREES],), ([GOOD, DIFFERS],))


def test_a_name_is_no_annotation_of_check() -> None:
    check(GOOD, Image)
    with pytest.raises(ContractDefinitionError, match="is a name that was not resolved"):
        check(GOOD, "Image")


# --- other names for an annotation -----------------------------------------------------------------
AliasOfImage = typing_extensions.TypeAliasType("AliasOfImage", Float32[Tensor, "h w"])
T = TypeVar("T")
Stack = typing_extensions.TypeAliasType("Stack", list[T], type_params=(T,))
Tree = typing_extensions.TypeAliasType("Tree", "Image | list[Tree]")
Tagged = NewType("Tagged", Float32[Tensor, "h w"])
Bound = TypeVar("Bound", bound=Float32[Tensor, "h w"])
Either = TypeVar("Either", Float32[Tensor, "h w"], Float64[Tensor, "h w"])
P = ParamSpec("P")


@pytest.mark.parametrize("hint", [Image, AliasOfImage, Tagged, Bound, Either, "AliasOfImage"], ids=repr)
def test_aliases_new_types_and_bounds_mean_what_they_stand_for(hint: Any) -> None:
    def use(x: Any, y: Image) -> None: ...

    use.__annotations__["x"] = hint
    assert_holds(contract(use), (AGREES, GOOD), (BAD, GOOD))
    assert_holds(contract(use), (AGREES, GOOD), (AGREES, DIFFERS))


def test_generic_aliases_are_filled_in() -> None:
    def use(x: Stack[Image]) -> None: ...

    assert_holds(contract(use), ([GOOD, AGREES],), ([GOOD, DIFFERS],))


def test_an_alias_that_refers_to_itself_is_checked_at_every_depth() -> None:
    def use(x: Tree) -> None: ...

    assert_holds(contract(use), ([GOOD, [AGREES, [GOOD]]],), ([GOOD, [AGREES, [DIFFERS]]],))
    endless = typing_extensions.TypeAliasType("endless", "Image | endless")
    with pytest.raises(ContractDefinitionError, match=r"endless .* is one of its own alternatives"):
        check(GOOD, endless)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the statement is new in Python 3.12")
def test_the_type_statement_is_understood(module: Callable[[str], ModuleType]) -> None:
    loaded = module(
        HEADER
        + """
    type Image = Float32[Tensor, "h w"]
    type Stack[T] = list[T | Stack[T]]

    @contract
    def use[S: Image](x: Stack[Image], y: S) -> None: ...

    @contract
    @dataclasses.dataclass
    class Box[T]:
        item: T
        image: Image
        next: Box[T] | None = None
    """
    )
    assert_holds(loaded.Box, (3, GOOD, loaded.Box(4, AGREES)), (3, GOOD, loaded.Box(4, DIFFERS)))
    assert_holds(check, (loaded.Box(AGREES, GOOD), loaded.Box[Image]), (loaded.Box(DIFFERS, GOOD), loaded.Box[Image]))
    assert_holds(loaded.use, ([GOOD, [AGREES]], GOOD), ([GOOD, [DIFFERS]], GOOD))
    assert_holds(loaded.use, ([GOOD, [AGREES]], GOOD), ([GOOD], DIFFERS))


def test_a_type_variable_without_a_bound_and_the_arguments_of_a_param_spec_say_nothing() -> None:
    @contract
    def use(x: Image, other: T, *args: P.args, **kwargs: P.kwargs) -> T:
        return other

    assert_holds(use, (GOOD, "anything", 3), (BAD, "anything", 3))


def test_unpacked_keywords_and_arguments_are_checked() -> None:
    class Options(TypedDict, total=False):
        mask: typing.Required[Image]
        scale: float

    @contract
    def use(x: Image, **options: Unpack[Options]) -> None: ...

    use(GOOD, mask=AGREES, scale=2.0)
    for options in ({}, {"mask": DIFFERS}, {"mask": AGREES, "scale": "2"}, {"mask": AGREES, "other": 3}):
        with pytest.raises(ContractError):
            use(GOOD, **options)

    @contract
    def rows(*args: *tuple[Image, Int64[Tensor, " h"]]) -> None: ...

    assert_holds(rows, (GOOD, torch.arange(5)), (GOOD, torch.arange(6)))
    assert_holds(rows, (GOOD, torch.arange(5)), (GOOD,))


def test_final_and_class_variables_are_checked_in_a_class() -> None:
    @dataclasses.dataclass
    class Sample:
        image: typing.Final[Image]
        shared: typing.ClassVar[Image] = GOOD

    assert_holds(check, (Sample(AGREES), Sample), (Sample(DIFFERS), Sample))


# --- generic classes -------------------------------------------------------------------------------
@dataclasses.dataclass
class Box(typing.Generic[T]):
    item: T
    next: "Box[T] | None" = None


class Pair(NamedTuple, typing.Generic[T]):
    first: T
    second: T


class Entry(TypedDict, typing.Generic[T]):
    item: T


class ImageEntry(Entry[Image]):
    mask: Image


class ImageBox(Box[Image]):
    pass


class Images(list[Image]):
    pass


class Bag(dict[str, T], typing.Generic[T]):
    pass


class Opaque(typing.Generic[T]):
    pass


@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [
        (Box[Image], Box(GOOD, Box(AGREES)), Box(GOOD, Box(DIFFERS))),
        (ImageBox, ImageBox(GOOD), ImageBox(BAD)),
        (Pair[Image], Pair(GOOD, AGREES), Pair(GOOD, DIFFERS)),
        (Entry[Image], {"item": GOOD}, {"item": BAD}),
        (ImageEntry, {"item": GOOD, "mask": AGREES}, {"item": GOOD, "mask": DIFFERS}),
        (Images, Images([GOOD, AGREES]), Images([GOOD, DIFFERS])),
        (Bag[Image], Bag(a=GOOD, b=AGREES), Bag(a=GOOD, b=DIFFERS)),
        (Box[int], Box(3), 3),
    ],
    ids=str,
)
def test_generic_classes_are_checked_with_their_arguments_filled_in(hint: Any, good: Any, bad: Any) -> None:
    assert_holds(check, (good, hint), (bad, hint))


@pytest.mark.parametrize(
    ("hint", "message"),
    [
        (Opaque[Image], "cannot be checked in full"),
        (Iterator[Image], "consumed by looking at it: take a list or a Sequence"),
        (typing.AsyncIterator[list[Image]], "consumed by looking at it"),
        (type[Image], "cannot be checked in full"),
        (Iterator[ImageEntry], "cannot be checked in full"),
        (types.new_class("Stream", (torch.utils.data.IterableDataset[Image],)), "cannot be checked in full"),
        (torch.utils.data.Dataset[Image], "cannot be checked in full"),
        (type("PyTree", (), {"__module__": "jaxtyping"}), "does not say how it is nested"),  # the real one needs JAX
        (Float, r"says nothing about a shape that can be checked. Write Float\[Tensor, \"...\"\]"),
        (list[Float], "says nothing about a shape"),
    ],
    ids=str,
)
def test_what_cannot_be_checked_in_full_is_refused(hint: Any, message: str) -> None:
    def use(x: Any) -> None: ...

    use.__annotations__["x"] = hint
    with pytest.raises(ContractDefinitionError, match=message):
        contract(use)


def test_the_refusal_of_an_annotation_names_no_address() -> None:
    def use(x: Any, image: Image) -> None: ...

    use.__annotations__["x"] = use
    with pytest.raises(ContractDefinitionError, match=r"annotation of 'x' of .* cannot be checked") as caught:
        contract(use)
    assert "0x" not in str(caught.value)


def test_the_parameters_of_a_callable_are_shown_as_they_are_written() -> None:
    @contract
    def use(image: Image, f: Callable[[int, list[int]], str]) -> None:
        del image, f

    use(GOOD, chr)
    with pytest.raises(ContractError) as caught:
        use(GOOD, 3)
    assert caught.value.violations[0].expected == "Callable[[int, list[int]], str]"


class Photographs(torch.utils.data.Dataset[Image]):
    """A plain class: its base says what its items are, which nobody looks at when it is handed over."""

    def __getitem__(self, index: int) -> Image:
        return GOOD


@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [
        (Photographs, Photographs(), 3),
        (Opaque[int], Opaque(), 3),
        (Iterator[int], iter([1]), 3),
        (type[int], bool, str),
        (Float[Tensor, "..."], GOOD, torch.arange(3)),
        (dict[str, Image], {"a": GOOD}, {"a": BAD}),
    ],
    ids=["dataset", "class", "iterator", "type", "tensor", "dict"],
)
def test_the_likes_that_can_be_checked_are(hint: Any, good: Any, bad: Any) -> None:
    def use(x: Any) -> None: ...

    use.__annotations__["x"] = hint
    assert_holds(contract(use), (good,), (bad,))


# --- unions, order, expressions ----------------------------------------------------------------------
HINTS = {
    "x": Float32[Tensor, "b c"] | Float32[Tensor, "c b"],
    "y": Float32[Tensor, " b"],
    "z": Float32[Tensor, " c//2 2*b"],
    "rest": list[Float32[Tensor, " b"] | Int64[Tensor, " c"]],
}


@settings(max_examples=60, deadline=None)
@given(
    st.permutations(list(HINTS)),
    st.tuples(*[st.integers(2, 5)] * 6),
    st.randoms(use_true_random=False),
)
def test_the_verdict_does_not_depend_on_the_order_of_arguments(order: list[str], sizes: Any, random: Any) -> None:
    b, c, other, p, q, r = sizes
    shapes = {
        "x": (b, c),
        "y": (random.choice((b, c, other)),),
        "z": (random.choice((c // 2, p)), random.choice((2 * b, q))),
    }
    values: dict[str, Any] = {name: torch.zeros(shape) for name, shape in shapes.items()}
    values["rest"] = [torch.zeros(random.choice((b, r))), torch.zeros(random.choice((c, r))).long()]
    verdicts = set()
    for names in ([*HINTS], order):
        holder = f"def use(*, {', '.join(names)}): ..."
        scope: dict[str, Any] = {"__name__": __name__}
        exec(holder, scope)  # noqa: S102  # written above
        scope["use"].__annotations__ = {name: HINTS[name] for name in names}
        use = contract(scope["use"])
        for call in (names, order):
            try:
                use(**{name: values[name] for name in call})
                verdicts.add("accepted")
            except ContractError:
                verdicts.add("rejected")
    assert len(verdicts) == 1


def test_an_alternative_that_waits_for_a_dim_does_not_stop_one_that_binds_it() -> None:
    @contract
    def use(
        x: Float32[Tensor, "b-1 d"] | Int64[Tensor, "2 d"],
        y: Float32[Tensor, "b d"] | Int64[Tensor, " c-1"],
        z: Float32[Tensor, " c"] | None,
    ) -> None: ...

    assert_holds(use, (torch.zeros(2, 4), torch.zeros(3, 4), None), (torch.zeros(3, 4), torch.zeros(3, 4), None))
    assert_holds(use, (torch.zeros(2, 4).long(), torch.zeros(2).long(), torch.zeros(3)), (3, torch.zeros(3, 4), None))


# --- python -O -----------------------------------------------------------------------------------------
OPTIMISED = """
import dataclasses, sys
import numpy as np
from jaxtyping import Float32
from shapecheck import ContractError, check, contract

@contract
def use(x: list[Float32[np.ndarray, "n 2"]], mode: int) -> Float32[np.ndarray, " n"]:
    return x[0][:, 0] if mode else x[0]

@contract
@dataclasses.dataclass
class Record:
    x: Float32[np.ndarray, "n 2"]

good, bad = np.zeros((3, 2), np.float32), np.zeros((2, 3), np.float32)
use([good, good], 1), Record(good)
for call in (lambda: use([good, bad], 1), lambda: use([good], "1"), lambda: use([good], 0), lambda: Record(bad),
             lambda: check(bad, Float32[np.ndarray, "n 2"])):
    try:
        call()
    except ContractError:
        continue
    sys.exit("accepted a bad value")
print(sys.flags.optimize, hasattr(use, "__contract_source__"))
"""


@pytest.mark.parametrize("level", ["-O", "-OO"])
def test_optimised_python_checks_all_the_same(level: str, engine: str) -> None:
    command = [sys.executable, level, "-W", "error", "-c", OPTIMISED]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.split() == [str(len(level) - 1), str(engine == "compiled")]
