"""The generated function: what it looks like, what it leaves to the reference engine, and how calls reach it."""

import ast
import enum
import inspect
import linecache
import re
import traceback
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, NotRequired, Protocol, Self, TypedDict, runtime_checkable

import numpy as np
import pytest
from jaxtyping import Float, Float32, Int, Int64, Num, Shaped

import shapecheck
from shapecheck import ContractError, contract

pytestmark = pytest.mark.violation

Array = np.ndarray
Image = Float32[Array, "h w"]


@pytest.fixture(autouse=True)
def _compiled_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHAPECHECK_ENGINE", "compiled")


def zeros(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.zeros(shape, dtype)


def blend(x: Float[Array, "b c 1 2"], y: Float[Array, "b c h w"], *, gain: float = 1.0) -> Float[Array, "b c h w"]:
    return y * gain


def count_doubts(checked: Callable[..., Any]) -> list[str]:
    """Return a list that grows whenever a compiled contract turns to the reference engine."""
    doubts: list[str] = []
    names = checked.__globals__
    for name in ("_sc_slow", "_sc_leave"):

        def counted(*args: Any, _name: str = name, _judge: Callable[..., Any] = names[name], **kwargs: Any) -> Any:
            doubts.append(_name)
            return _judge(*args, **kwargs)

        names[name] = counted
    return doubts


def is_compiled(function: Callable[..., Any]) -> bool:
    return hasattr(contract(function), "__contract_source__")


@contract
@dataclass(frozen=True)
class Stack:
    """A record with methods that give another one of its kind."""

    images: Float32[Array, "n h w"]

    def first(self, count: int) -> Self:
        return type(self)(self.images[:count])

    def last(self, count: int) -> "Stack":
        return Stack(self.images[-count:])

    def squeezed(self) -> "Stack":
        return types.SimpleNamespace(images=self.images[0])  # pyright: ignore[reportReturnType]


@contract
class Pile:
    """No record: what it holds is not declared before its first call."""

    def __init__(self, images: Float32[Array, "n h w"]) -> None:
        self.images = images

    def all(self) -> Self:
        return self


def test_methods_of_a_record_that_return_their_own_kind_are_compiled() -> None:
    stack = Stack(zeros(3, 4, 5))
    doubts = [count_doubts(method) for method in (Stack.first, Stack.last)]
    assert stack.first(2).last(1).images.shape == (1, 4, 5)
    assert doubts == [[], []]
    with pytest.raises(ContractError, match="Stack"):
        stack.squeezed()


def test_methods_of_a_class_without_declared_fields_may_return_their_own_kind() -> None:
    pile = Pile(zeros(3, 4, 5))
    assert pile.all() is pile


# --- cost, as far as it can be read off the source --------------------------------------------------
def test_each_array_has_its_shape_and_dtype_read_once() -> None:
    tree = ast.parse(contract(blend).__contract_source__)
    reads = [f"{ast.unparse(node)}" for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    for value in ("x", "y", "_sc_result"):
        assert reads.count(f"{value}.shape") == 1
        assert reads.count(f"{value}.dtype") == 1


def test_a_good_call_never_reaches_the_reference_engine() -> None:
    checked = contract(blend)
    doubts = count_doubts(checked)
    for dtype in ("float32", "float64", "float16"):
        checked(zeros(3, 4, 1, 2, dtype=dtype), zeros(3, 4, 5, 6, dtype=dtype))
    assert doubts == []


def test_every_bad_call_does() -> None:
    checked = contract(blend)
    doubts = count_doubts(checked)
    good = zeros(3, 4, 1, 2), zeros(3, 4, 5, 6)
    for bad in (
        (zeros(3, 4, 2, 2), good[1]),
        (zeros(3, 4, 1), good[1]),
        (good[0], zeros(3, 5, 5, 6)),
        (good[0], zeros(3, 4, 5, 6, dtype="int64")),
        (good[0], [1.0]),
    ):
        with pytest.raises(ContractError):
            checked(*bad)
    assert doubts == ["_sc_slow"] * 5
    with pytest.raises(ContractError):
        checked(*good, gain="2")
    assert doubts == ["_sc_slow"] * 6


def test_a_bad_result_is_judged_without_running_the_body_again() -> None:
    calls = []

    @contract
    def transpose(x: Image) -> Image:
        calls.append(x)
        return x.T

    doubts = count_doubts(transpose)
    with pytest.raises(ContractError) as caught:
        transpose(zeros(3, 4))
    assert (doubts, len(calls)) == (["_sc_leave"], 1)
    assert caught.value.violations[0].parameter == "return"


def test_a_doubt_that_the_reference_engine_does_not_share_is_no_violation() -> None:
    @contract
    def use(x: Float32[Array, " n"], like: Mapping[str, Float32[Array, " n"]]) -> None:
        del x, like

    doubts = count_doubts(use)
    use(zeros(3), types.MappingProxyType({"a": zeros(3)}))
    use(zeros(3), {})
    with pytest.raises(ContractError):
        use(zeros(3), {"a": zeros(4)})
    assert doubts[-1:] == ["_sc_slow"]


# --- what users see of it ---------------------------------------------------------------------------
def test_tracebacks_and_profilers_name_the_contract_and_show_its_source() -> None:
    def fail(x: Image) -> Image:
        raise RuntimeError

    checked = contract(fail)
    filename = checked.__code__.co_filename
    assert re.fullmatch(r"<contract .*test_compile\..*fail #\d+>", filename)
    with pytest.raises(RuntimeError) as caught:
        checked(zeros(3, 4))
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert [(frame.filename, frame.line) for frame in frames][1] == (filename, "_sc_result = _sc_function(x)")
    assert "".join(linecache.getlines(filename)) == checked.__contract_source__
    assert "def _sc_checked(x):" in "".join(inspect.findsource(checked.__code__)[0])


def test_every_contract_has_a_code_object_of_its_own() -> None:
    first, second = contract(blend), contract(blend)
    assert first.__code__ is not second.__code__
    assert first.__code__.co_filename != second.__code__.co_filename


def test_the_decorated_function_looks_like_the_original() -> None:
    checked = contract(blend)
    assert inspect.signature(checked) == inspect.signature(blend)
    assert checked.__wrapped__ is blend
    assert (checked.__name__, checked.__qualname__, checked.__module__) == ("blend", "blend", blend.__module__)
    assert checked.__annotations__ == blend.__annotations__


def test_the_reference_engine_can_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHAPECHECK_ENGINE", "reference")
    assert not is_compiled(blend)
    monkeypatch.setenv("SHAPECHECK_ENGINE", "fast")
    with pytest.raises(ValueError, match="SHAPECHECK_ENGINE to be one of compiled, reference, got 'fast'"):
        contract(blend)


# --- signatures -----------------------------------------------------------------------------------
def test_arguments_are_passed_on_as_python_would() -> None:
    default = object()

    def plain(
        a: Image, b: int = 2, /, c: object = default, *rest: Image, d: int, e: Any = default, **others: int
    ) -> tuple[Any, ...]:
        return a, b, c, rest, d, e, others

    checked = contract(plain)
    image = zeros(3, 4)
    for args, kwargs in [
        ((image,), {"d": 1}),
        ((image, 5, image), {"d": 1}),
        ((image, 5, image, image, image), {"d": 1, "e": None, "f": 3, "a": 4}),
        ((image,), {"c": 3, "d": 1}),
    ]:
        assert checked(*args, **kwargs) == plain(*args, **kwargs)


@pytest.mark.parametrize(
    ("args", "kwargs"), [((), {}), ((1, 2, 3), {}), ((1,), {"x": 1}), ((1, 2), {"gian": 2.0})], ids=str
)
def test_a_call_that_does_not_fit_the_signature_is_pythons_own_error(args: Any, kwargs: Any) -> None:
    def expect(function: Callable[..., Any]) -> str:
        with pytest.raises(TypeError) as caught:
            function(*args, **kwargs)
        assert not isinstance(caught.value, ContractError)
        return re.sub(r"^.*?\(\) ", "", str(caught.value))

    assert expect(contract(blend)) == expect(blend)


def test_defaults_are_the_very_objects() -> None:
    bag: list[int] = []

    @contract
    def collect(x: Image, into: list[int] = bag) -> list[int]:
        into.append(len(x))
        return into

    assert collect(zeros(3, 4)) is bag
    assert collect(zeros(5, 4)) == [3, 5]


# --- the language -----------------------------------------------------------------------------------
class Fields(TypedDict):
    image: Image
    offset: Float32[Array, " 2"]


class Partial(TypedDict):
    image: NotRequired[Image]


class Row(NamedTuple):
    image: Image
    name: str


class Plain(TypedDict):
    name: str


class Colour(enum.Enum):
    RED = 1


@runtime_checkable
class Sized(Protocol):
    def __len__(self) -> int: ...


def f_fixed(x: Float32[Array, "3 4"]) -> None: ...
def f_variadic(x: Float32[Array, "*batch h w"], y: Float32[Array, "*batch"]) -> None: ...
def f_before_bound(x: Float32[Array, "... n-1 n"]) -> None: ...
def f_broadcast(x: Float32[Array, "h w"], y: Float32[Array, "#h #w"]) -> None: ...
def f_symbolic(x: Float32[Array, "n//2 m+1"], y: Float32[Array, "n m"]) -> None: ...
def f_braces(x: Float32[Array, "n {size}"], size: int) -> None: ...
def f_dtypes(x: Float32[Array, " n"] | Int[Array, " n"]) -> None: ...
def f_optional(x: Image, y: Image | None = None) -> None: ...
def f_perhaps(x: Image | None, y: Float32[Array, "w c"] | None = None, z: Image | None = None) -> None: ...
def f_run_perhaps(x: Float32[Array, "*s h"] | None, y: Float32[Array, "h 2*h"] | None) -> None: ...
def f_inside_perhaps(x: tuple[Image | None, int] | list[int], y: Image | None) -> None: ...
def f_list(x: list[Image]) -> None: ...
def f_list_perhaps(x: list[Image | None], y: Image | None) -> None: ...
def f_record(x: Fields) -> None: ...
def f_row(x: Row, y: tuple[Image, int]) -> None: ...
def f_partial(x: Partial) -> None: ...
def f_any_dtype(x: Shaped[Array, " n"], y: Num[Array, " n"]) -> None: ...
def f_plain(x: Image, a: Plain, b: Colour, c: Sized, d: Literal["on"], e: Callable[[], int], f: type) -> None: ...


def f_kinds(
    x: Float32[Array, "h w"] | Int64[Array, "c h w"] | float | None, y: Float32[Array, " k"] | None
) -> None: ...
def f_either(x: Float32[Array, "h w"] | Float32[Array, "c h w"], y: Float32[Array, "h w"]) -> None: ...


PLAIN = ({"name": "a"}, Colour.RED, [], "on", len, int)
LANGUAGE: list[tuple[Callable[..., Any], tuple[Any, ...], tuple[Any, ...]]] = [
    (f_fixed, (zeros(3, 4),), (zeros(4, 3),)),
    (f_variadic, (zeros(2, 5, 3, 4), zeros(2, 5)), (zeros(2, 5, 3, 4), zeros(5, 2))),
    (f_variadic, (zeros(3, 4), zeros()), (zeros(3), zeros())),
    (f_before_bound, (zeros(2, 3, 4),), (zeros(2, 4, 4),)),
    (f_broadcast, (zeros(3, 4), zeros(1, 4)), (zeros(3, 4), zeros(2, 4))),
    (f_symbolic, (zeros(3, 5), zeros(6, 4)), (zeros(3, 5), zeros(8, 4))),
    (f_braces, (zeros(3, 5), 5), (zeros(3, 5), 4)),
    (f_dtypes, (zeros(3, dtype="int64"),), (zeros(3, dtype="bool"),)),
    (f_optional, (zeros(3, 4), None), (zeros(3, 4), zeros(4, 3))),
    (f_perhaps, (zeros(3, 4), zeros(4, 5), zeros(3, 4)), (zeros(3, 4), zeros(3, 5), zeros(3, 4))),
    (f_perhaps, (None, zeros(4, 5), zeros(3, 4)), (None, zeros(4, 5), zeros(3, 5))),
    (f_perhaps, (None, None, zeros(3, 4)), (zeros(3, 4), None, zeros(4, 3))),
    (f_perhaps, (None, None, None), (zeros(3, 4, 5), None, None)),
    (f_run_perhaps, (zeros(5, 2, 3), zeros(3, 6)), (zeros(5, 2, 3), zeros(4, 8))),
    (f_run_perhaps, (None, zeros(4, 8)), (None, zeros(4, 6))),
    (f_inside_perhaps, ((zeros(3, 4), 1), zeros(3, 4)), ((zeros(3, 4), 1), zeros(3, 5))),
    (f_inside_perhaps, ([1], zeros(3, 4)), ([1], zeros(3))),
    (f_list_perhaps, ([None, zeros(3, 4), zeros(3, 4)], zeros(3, 4)), ([None, zeros(3, 4)], zeros(3, 5))),
    (f_list_perhaps, ([None, zeros(3, 4)], None), ([zeros(3, 4), None, zeros(4, 3)], None)),
    (f_list_perhaps, ([], zeros(3, 4)), ([], zeros(3))),
    (f_list, ([zeros(3, 4)] * 9,), ([*[zeros(3, 4)] * 9, zeros(3, 5)],)),
    (f_record, ({"image": zeros(3, 4), "offset": zeros(2)},), ({"image": zeros(3, 4)},)),
    (f_record, ({"offset": zeros(2), "image": zeros(3, 4)},), ({"image": zeros(3, 4), "ofset": zeros(2)},)),
    (f_partial, ({},), ({"image": zeros(3)},)),
    (f_partial, ({"image": zeros(3, 4)},), ({"image": zeros(3, 4), "offset": zeros(3)},)),
    (f_row, (Row(zeros(3, 4), "a"), (zeros(3, 4), 1)), (Row(zeros(3, 4), "a"), (zeros(3, 4), "1"))),
    (f_kinds, (zeros(3, 4), None), (zeros(3, 4, 5), None)),
    (f_kinds, (zeros(2, 3, 4, dtype="int64"), None), (zeros(3, 4, dtype="int64"), None)),
    (f_kinds, (2, None), ("2", None)),
    (f_either, (zeros(2, 3, 4), zeros(3, 4)), (zeros(2, 3, 4), zeros(2, 3))),
    (f_either, (zeros(3, 4), zeros(3, 4)), (zeros(3), zeros(3, 4))),
    (f_any_dtype, (zeros(3, dtype="bool"), zeros(3)), (zeros(3), zeros(3, dtype="bool"))),
    (f_plain, (zeros(3, 4), *PLAIN), (zeros(3, 4), *PLAIN[:-1], 3)),
    (f_plain, (zeros(3, 4), *PLAIN), (zeros(3, 4), *PLAIN[:2], 3, *PLAIN[3:])),
]


def names(rows: list[tuple[Any, ...]]) -> list[str]:
    return [f"{row[0].__name__} {number}" for number, row in enumerate(rows)]


@pytest.mark.parametrize(("function", "good", "bad"), LANGUAGE, ids=names(LANGUAGE))
def test_the_language_is_compiled(function: Callable[..., Any], good: tuple[Any, ...], bad: tuple[Any, ...]) -> None:
    checked = contract(function)
    doubts = count_doubts(checked)
    checked(*good)
    assert doubts == []
    with pytest.raises(ContractError):
        checked(*bad)


def test_a_dim_that_an_argument_may_bind_holds_for_the_result() -> None:
    @contract
    def widen(x: Image | None, width: int) -> Float32[Array, "h 5"]:
        return zeros(3, width)

    assert hasattr(widen, "__contract_source__")
    for x in (zeros(3, 4), None):
        assert widen(x, 5).shape == (3, 5)
    with pytest.raises(ContractError, match=r"axis 0 is 3, the contract says h=2 \(from 'x', axis 0\)"):
        widen(zeros(2, 4), 5)


def test_an_error_of_the_body_tells_the_dims_that_were_bound() -> None:
    @contract
    def fail(x: Float32[Array, "k k"] | None, y: Float32[Array, "m m"] | None) -> None:
        raise ValueError

    for arguments, told, untold in (((zeros(3, 3), None), "k=3", "m="), ((None, zeros(4, 4)), "m=4", "k=")):
        with pytest.raises(ValueError) as caught:  # noqa: PT011  # without a message
            fail(*arguments)
        notes = "\n".join(caught.value.__notes__)
        assert told in notes
        assert untold not in notes


def f_two_layouts(x: Float32[Array, "b c"] | Float32[Array, "c b"], y: Float32[Array, "b c"]) -> None: ...
def f_broadcast_run(x: Float32[Array, "*#s"], y: Float32[Array, "*#s"]) -> None: ...
def f_division(x: Float32[Array, "a b a//b"]) -> None: ...


LEFT: list[tuple[Callable[..., Any], tuple[Any, ...], tuple[Any, ...]]] = [
    (f_two_layouts, (zeros(3, 4), zeros(4, 3)), (zeros(3, 4), zeros(4, 4))),
    (f_broadcast_run, (zeros(1, 4), zeros(3, 1)), (zeros(2, 4), zeros(3, 1))),
    (f_division, (zeros(6, 2, 3),), (zeros(6, 2, 2),)),
]


@pytest.mark.parametrize(("function", "good", "bad"), LEFT, ids=names(LEFT))
def test_what_is_not_compiled_is_checked_by_the_reference_engine(
    function: Callable[..., Any], good: tuple[Any, ...], bad: tuple[Any, ...]
) -> None:
    checked = contract(function)
    assert not hasattr(checked, "__contract_source__")
    checked(*good)
    with pytest.raises(ContractError):
        checked(*bad)


# --- traps ------------------------------------------------------------------------------------------
def test_an_object_that_only_looks_like_an_array_is_no_array() -> None:
    checked = contract(blend)
    fake = types.SimpleNamespace(shape=(3, 4, 1, 2), dtype=np.dtype("float32"), ndim=4)
    with pytest.raises(ContractError):
        checked(fake, zeros(3, 4, 5, 6))


def test_a_subclass_of_an_array_is_an_array() -> None:
    checked = contract(f_fixed)
    doubts = count_doubts(checked)
    checked(zeros(3, 4).view(np.matrix))
    assert doubts == []


def test_byte_order_and_other_unusual_dtypes_get_the_verdict_of_the_reference_engine() -> None:
    @contract
    def use(x: Float32[Array, " n"]) -> None:
        del x

    use(np.zeros(3, np.dtype("float32").newbyteorder("=")))
    with pytest.raises(ContractError):
        use(np.zeros(3, [("a", "f4")]))


def test_a_str_is_no_sequence_of_anything() -> None:
    @contract
    def use(x: Image, names: Sequence[str]) -> None:
        del x, names

    use(zeros(3, 4), ["a"])

    @contract
    def stack(x: Sequence[Image]) -> None:
        del x

    with pytest.raises(ContractError):
        stack("ab")


def test_names_that_the_generated_code_uses_itself_cannot_collide() -> None:
    @contract
    def use(_sc_result: Image, other: Image) -> Image:
        return _sc_result + other

    assert use(zeros(3, 4), zeros(3, 4)).shape == (3, 4)
    with pytest.raises(ContractError):
        use(zeros(3, 4), zeros(4, 3))


def test_a_dim_may_have_the_name_of_a_parameter() -> None:
    @contract
    def use(h: Image, w: Float32[Array, " w"]) -> Float32[Array, " h"]:
        return h @ w

    assert use(zeros(3, 4), zeros(4)).shape == (3,)


def test_a_mode_block_reaches_a_compiled_contract() -> None:
    checked = contract(f_fixed)
    with shapecheck.mode("off"):
        checked(zeros(4, 3))
    with pytest.raises(ContractError):
        checked(zeros(4, 3))
    with shapecheck.mode("warn"), pytest.warns(shapecheck.ContractWarning, match="f_fixed"):
        checked(zeros(4, 3))
