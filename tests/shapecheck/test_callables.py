"""Whatever can be called is under its contract, or refused with what to do instead; on both engines."""

import asyncio
import contextlib
import copy
import functools
import inspect
import operator
import pickle
import pydoc
import typing
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any, Protocol

import pytest
import torch
from jaxtyping import Float32
from outcomes import violation_of, zeros
from torch import Tensor, nn

import shapecheck
from shapecheck import ContractDefinitionError, contract

pytestmark = pytest.mark.violation

Row = Float32[Tensor, " n"]
Image = Float32[Tensor, "h w"]


@pytest.fixture(autouse=True)
def _engine(engine: str) -> None:
    """Every test here holds for both engines."""


def refusal_of(target: Callable[[], object]) -> str:
    with pytest.raises(ContractDefinitionError) as caught:
        target()
    return str(caught.value)


# --- kinds of functions and parameters ---------------------------------------------------------------
def test_every_kind_of_parameter_is_checked() -> None:
    @contract
    def stack(a: Row, /, b: Row, *rest: Row, c: Row, **named: Row) -> Float32[Tensor, "k n"]:
        return torch.stack([a, b, *rest, c, *named.values()])

    good, bad = zeros(3), zeros(4)
    assert stack(good, good, good, c=good, d=good).shape == (5, 3)
    assert violation_of(lambda: stack(bad, good, good, c=good)).parameter == "a"
    assert violation_of(lambda: stack(good, good, bad, c=good)).parameter == "rest[0]"
    assert violation_of(lambda: stack(good, b=good, c=bad, d=good)).parameter == "c"
    assert violation_of(lambda: stack(good, good, c=good, d=bad)).parameter == "named['d']"


def test_a_lambda_has_a_contract_when_it_was_given_annotations() -> None:
    double = lambda x: 2 * x
    assert "Write a def, or set its __annotations__ before" in refusal_of(lambda: contract(double))
    double.__annotations__ = {"x": Row, "return": Row}
    checked = contract(double)
    assert checked(zeros(3)).shape == (3,)
    assert violation_of(lambda: checked(zeros(3, 3))).parameter == "x"


def test_a_default_that_breaks_its_annotation_is_an_error_at_definition() -> None:
    def shift(image: Image, by: Float32[Tensor, " 2"] = torch.zeros(3)) -> None: ...  # noqa: B008
    def scale(image: Image, by: float = None) -> None: ...  # noqa: RUF013
    def good(image: Image, by: Float32[Tensor, " 2"] = torch.zeros(2), to: float | None = None) -> None: ...  # noqa: B008
    def declared(image: Image, by: float = ...) -> None: ...

    assert "default of 'by' of" in refusal_of(lambda: contract(shift))
    assert "to be float, got None: annotate it as float | None" in refusal_of(lambda: contract(scale))
    contract(good)(zeros(3, 4))
    contract(declared)(zeros(3, 4), 1.0)


def test_a_default_that_only_some_calls_make_wrong_is_judged_by_the_call() -> None:
    @contract
    def shift(row: Row, by: Row = torch.zeros(3)) -> None:  # noqa: B008
        del row, by

    shift(zeros(3))
    assert violation_of(lambda: shift(zeros(4))).parameter == "by"


# --- methods of every kind ---------------------------------------------------------------------------
class Frame:
    def __init__(self) -> None:
        self.rows = zeros(3, 4)


def test_properties_are_checked_with_contract_above_and_below() -> None:
    class Above(Frame):
        @contract
        @property
        def image(self) -> Float32[Tensor, "3 w"]:
            """The image."""
            return self.rows

        @contract
        @image.setter
        def image(self, value: Float32[Tensor, "_ w"]) -> None:
            self.rows = value

        @contract
        @image.deleter
        def image(self) -> None:
            self.rows = zeros(3, 1)

    class Below(Frame):
        @property
        @contract
        def image(self) -> Float32[Tensor, "3 w"]:
            """The image."""
            return self.rows

        @image.setter
        @contract
        def image(self, value: Float32[Tensor, "_ w"]) -> None:
            self.rows = value

    for kind in (Above, Below):
        frame = kind()
        frame.image = zeros(2, 4)
        assert kind.image.__doc__ == "The image."
        assert violation_of(lambda frame=frame: frame.image).parameter == "return"
        assert violation_of(lambda frame=frame: setattr(frame, "image", zeros(4))).parameter == "value"
        frame.image = zeros(3, 5)
        assert frame.image.shape == (3, 5)
    del (frame := Above()).image
    assert frame.image.shape == (3, 1)


def test_a_property_without_annotations_is_refused() -> None:
    class Frames:
        def first(self): ...

        def second(self, value): ...

    assert "nothing to check" in refusal_of(lambda: contract(property(Frames.first)))
    assert "No accessor of the property" in refusal_of(lambda: contract(property(Frames.first, Frames.second)))


def test_cached_properties_are_checked_when_they_are_computed() -> None:
    class Lazy(Frame):
        calls = 0

        @contract
        @functools.cached_property
        def sums(self) -> Float32[Tensor, " 3"]:
            self.calls += 1
            return self.rows.sum(1)

    lazy = Lazy()
    assert lazy.sums is lazy.sums
    assert lazy.calls == 1
    lazy = Lazy()
    lazy.rows = zeros(2, 4)
    assert violation_of(lambda: lazy.sums).parameter == "return"


def test_operators_call_new_and_init_are_checked() -> None:
    class Vector:
        @contract
        def __new__(cls, data: Row) -> typing.Self:
            return super().__new__(cls)

        @contract
        def __init__(self, data: Row) -> None:
            self.data = data

        @contract
        def __call__(self, x: Row) -> Row:
            return x

        @contract
        def __matmul__(self, other: Row) -> Float32[Tensor, ""]:
            return self.data @ other

        @contract
        def __getitem__(self, index: int) -> Float32[Tensor, ""]:
            return self.data[index]

    vector = Vector(zeros(3))
    assert vector(zeros(4)).shape == (4,)
    assert (vector @ zeros(3)).shape == ()
    assert vector[0].shape == ()
    for call in (
        lambda: Vector(zeros(3, 3)),
        lambda: vector(zeros(3, 3)),
        lambda: vector @ zeros(3, 3),
        lambda: vector["a"],
    ):
        violation_of(call)


def test_partials_check_all_arguments_also_those_that_were_given_before() -> None:
    def add(x: Row, y: Row, *, scale: float = 1.0) -> Row:
        return x + scale * y

    checked = contract(functools.partial(add, zeros(3), scale=2.0))
    assert isinstance(checked, functools.partial)
    assert checked(zeros(3)).shape == (3,)
    assert violation_of(lambda: checked(zeros(4))).parameter == "y"
    of_contract = functools.partial(contract(add), zeros(3))
    assert of_contract(zeros(3)).shape == (3,)
    assert violation_of(lambda: of_contract(zeros(4))).parameter == "y"


def test_partial_methods_and_bound_methods_are_checked() -> None:
    class Scaler:
        factor = 2.0

        def scaled(self, x: Row, by: float) -> Row:
            return self.factor * by * x

        doubled = contract(functools.partialmethod(scaled, by=2.0))

    scaler = Scaler()
    bound = contract(scaler.scaled)
    assert bound.__self__ is scaler
    for method in (scaler.doubled, functools.partial(bound, by=1.0)):
        assert method(zeros(3)).shape == (3,)
        violation_of(lambda method=method: method(zeros(3, 3)))


def test_a_contract_above_a_cache_sees_every_call_and_one_below_only_those_that_are_computed() -> None:
    def take(x: Row, count: int) -> Row:
        return x[:count] if count < 3 else x

    above, below = contract(functools.lru_cache(take)), functools.lru_cache(contract(take))
    row = zeros(3)
    for cached in (above, below):
        assert cached(row, 3) is row
        assert cached(row, 3) is row
        assert cached.cache_info().hits == 1
    assert violation_of(lambda: above(row, 2)).parameter == "return"
    assert violation_of(lambda: above(row, 3.0)).parameter == "count"
    assert below(row, 3.0) is row, "a hit: 3.0 equals 3"
    above.cache_clear()
    assert above.cache_info().currsize == 0


def test_a_decorator_that_keeps_calls_as_they_are_may_stand_on_either_side() -> None:
    def twice(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def again(*args: Any, **kwargs: Any) -> Any:
            function(*args, **kwargs)
            return function(*args, **kwargs)

        return again

    def keep(x: Row, good: bool) -> Row:
        return x if good else x[1:]

    for checked in (contract(twice(keep)), twice(contract(keep)), contract(torch.no_grad()(keep))):
        assert checked(zeros(3), True).shape == (3,)
        assert violation_of(lambda checked=checked: checked(zeros(3), False)).parameter == "return"


def test_a_decorator_that_changes_what_a_call_gives_is_refused() -> None:
    async def echo(x: Row) -> Row:
        return x

    def rows(x: Image) -> Iterator[Row]:
        yield from x

    @functools.wraps(echo)
    def run(x: Row) -> Row:
        return asyncio.run(echo(x))

    @functools.wraps(rows)
    def listed(x: Image) -> list[Tensor]:
        return list(rows(x))

    for target in (run, listed):
        assert "put @contract below it, on the function itself" in refusal_of(lambda target=target: contract(target))
    assert asyncio.run(contract(echo)(zeros(3))).shape == (3,)


def test_a_decorator_that_changes_the_parameters_is_not_left_unchecked() -> None:
    def with_zero(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def given(y: Tensor) -> Any:
            return function(zeros(3), y)

        return given

    def add(x: Row, y: Row) -> Row:
        return x + y

    with pytest.raises(TypeError, match="missing"):
        contract(with_zero(add))(zeros(3))
    assert with_zero(contract(add))(zeros(3)).shape == (3,)


def test_single_dispatch_has_contracts_on_its_implementations() -> None:
    @functools.singledispatch
    def size(x: object) -> int:
        return 0

    @size.register(Tensor)
    @contract
    def _(x: Row) -> int:
        return len(x)

    assert size(zeros(3)) == 3
    assert size("text") == 0
    violation_of(lambda: size(zeros(3, 3)))
    for target in (size, functools.singledispatchmethod(lambda self, x: x)):
        assert "put @contract on each, below @register" in refusal_of(lambda target=target: contract(target))


# --- context managers ----------------------------------------------------------------------------------
def test_context_managers_are_checked_with_contract_above_and_below() -> None:
    closed = []

    def opened(x: Row, good: bool = True) -> Iterator[Row]:
        try:
            yield x if good else x[1:]
        finally:
            closed.append(good)

    manager = contextlib.contextmanager
    for make in (contract(manager(opened)), manager(contract(opened))):
        with make(zeros(3)) as row:
            assert row.shape == (3,)
        assert violation_of(lambda make=make: make(zeros(3), False).__enter__()).parameter == "yield[0]"
        assert closed == [True, False]
        with pytest.raises(KeyError), make(zeros(3)):
            raise KeyError
        closed.clear()


def test_asynchronous_context_managers_are_checked_with_contract_above_and_below() -> None:
    async def opened(x: Row, good: bool = True) -> AsyncIterator[Row]:
        yield x if good else x[1:]

    async def use(make: Callable[..., Any], good: bool) -> Tensor:
        async with make(zeros(3), good) as row:
            return row

    manager = contextlib.asynccontextmanager
    for make in (contract(manager(opened)), manager(contract(opened))):
        assert asyncio.run(use(make, True)).shape == (3,)
        assert violation_of(lambda make=make: asyncio.run(use(make, False))).parameter == "yield[0]"


# --- callables as arguments and results ------------------------------------------------------------------
@pytest.mark.parametrize("optional", [False, True], ids=["required", "optional"])
def test_a_callable_argument_is_held_to_its_annotation_in_the_scope_of_the_call(optional: bool) -> None:
    declared = Callable[[Image, int], Row]

    @contract
    def reduce(image: Float32[Tensor, "h n"], by: declared | None if optional else declared) -> Row:
        return by(image, 0) if by else image[0]

    assert reduce(zeros(3, 4), lambda image, axis: image.sum(axis)).shape == (4,)
    violation = violation_of(lambda: reduce(zeros(3, 4), by=lambda image, axis: image.sum(1 - axis)))
    assert violation.parameter == "result of by"
    assert {binding.dim: binding.source for binding in violation.bindings} == {"n": "image"}
    assert violation_of(lambda: reduce(zeros(3, 4), 3)).parameter == "by"
    if optional:
        assert reduce(zeros(3, 4), None).shape == (4,)


def test_what_a_callable_argument_is_called_with_is_checked() -> None:
    @contract
    def reduce(image: Float32[Tensor, "h n"], by: Callable[[Float32[Tensor, "n m"]], Row], good: bool) -> Row:
        return by(image.T) if good else by(image)

    assert reduce(zeros(3, 4), lambda x: x.sum(1), True).shape == (4,)
    assert violation_of(lambda: reduce(zeros(3, 4), lambda x: x.sum(0), False)).parameter == "argument 0 of by"

    @contract
    def call(by: Callable[[Row], Row], *args: Tensor) -> Row:
        return by(*args)

    assert call(operator.neg, zeros(3)).shape == (3,)
    assert "too many positional arguments" in str(violation_of(lambda: call(operator.add, zeros(3), zeros(3))))


def test_a_dim_that_only_a_callable_has_may_differ_from_call_to_call() -> None:
    @contract
    def each(xs: list[Tensor], f: Callable[[Row], Row]) -> list[Tensor]:
        return [f(x) for x in xs]

    assert [len(x) for x in each([zeros(3), zeros(4)], operator.neg)] == [3, 4]
    assert violation_of(lambda: each([zeros(3)], lambda x: x[1:])).parameter == "result of f"


Points = Float32[Tensor, "m d"]


def test_a_callable_that_is_kept_is_judged_by_itself_when_the_call_is_over() -> None:
    class Kernel:
        @contract
        def __init__(self, x: Points, f: Callable[[Points], Float32[Tensor, " m"]]) -> None:
            self.f = f
            f(x)

    keeper = Kernel(zeros(3, 2), lambda x: x[:, 0] if len(x) < 9 else x[0])
    assert keeper.f(zeros(3, 2)).shape == (3,)
    assert keeper.f(zeros(4, 5)).shape == (4,)  # other sizes than those of the finished call
    assert keeper.f(zeros(7, 7)).shape == (7,)
    violation = violation_of(lambda: keeper.f(zeros(9, 5)))
    assert (violation.parameter, violation.got) == ("result of f", "f32[5]")
    assert {binding.dim: binding.size for binding in violation.bindings} == {"m": 9}
    assert violation_of(lambda: keeper.f(zeros(9))).parameter == "argument 0 of f"


def test_a_callable_is_held_to_the_dims_of_the_call_as_long_as_that_lasts() -> None:
    @contract
    def use(x: Points, f: Callable[[Points], Points], y: Tensor) -> None:
        f(y)

    @contract
    def each(x: Points, f: Callable[[Points], Points]) -> Iterator[Row]:
        f(x)
        yield x[0]
        f(x if len(x) == 3 else x.T)

    use(zeros(3, 2), operator.neg, zeros(3, 2))
    assert violation_of(lambda: use(zeros(3, 2), operator.neg, zeros(4, 2))).parameter == "argument 0 of f"
    list(each(zeros(3, 2), operator.neg))
    assert violation_of(lambda: list(each(zeros(4, 2), operator.neg))).parameter == "argument 0 of f"


@pytest.mark.parametrize("kind", ["function that raises", "coroutine", "generator", "asynchronous generator"])
def test_a_call_of_any_kind_is_over_when_it_has_ended(kind: str) -> None:
    kept: list[Callable[[Tensor], Tensor]] = []

    @contract
    def fail(x: Points, f: Callable[[Points], Points]) -> None:
        kept.append(f)
        raise KeyError

    @contract
    async def await_(x: Points, f: Callable[[Points], Points]) -> None:
        kept.append(f)

    @contract
    def generate(x: Points, f: Callable[[Points], Points]) -> Iterator[Points]:
        kept.append(f)
        yield x

    @contract
    async def generate_later(x: Points, f: Callable[[Points], Points]) -> AsyncIterator[Points]:
        kept.append(f)
        yield x

    async def exhaust() -> None:
        async for _ in generate_later(zeros(3, 2), operator.neg):
            assert violation_of(lambda: kept[0](zeros(4, 5))).parameter == "argument 0 of f"

    if kind == "function that raises":
        with pytest.raises(KeyError):
            fail(zeros(3, 2), operator.neg)
    elif kind == "generator":
        for _ in generate(zeros(3, 2), operator.neg):
            assert violation_of(lambda: kept[0](zeros(4, 5))).parameter == "argument 0 of f"
    else:
        asyncio.run(exhaust() if kind.startswith("async") else await_(zeros(3, 2), operator.neg))
    assert kept[0](zeros(4, 5)).shape == (4, 5)
    assert violation_of(lambda: kept[0](zeros(4))).parameter == "argument 0 of f"


def test_a_dim_that_a_kept_callable_only_refers_to_is_that_of_the_call_it_was_given_to() -> None:
    kept: list[Callable[[Tensor], Tensor]] = []

    @contract
    def keep(row: Row, f: Callable[[Float32[Tensor, "m n+1"]], Float32[Tensor, " m"]]) -> None:
        kept.append(f)

    keep(zeros(3), lambda x: x[:, 0])
    assert kept[0](zeros(5, 4)).shape == (5,)
    assert kept[0](zeros(6, 4)).shape == (6,)
    assert violation_of(lambda: kept[0](zeros(5, 5))).parameter == "argument 0 of f"


class Loss(Protocol):
    def __call__(self, prediction: Image, *, target: Image) -> Float32[Tensor, ""]: ...


def test_a_protocol_with_a_call_is_held_like_a_callable() -> None:
    @contract
    def train(image: Image, loss: Loss, good: bool = True) -> Float32[Tensor, ""]:
        return loss(image, target=image if good else image.T)

    class Mean(nn.Module):
        def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
            return (prediction - target.reshape(prediction.shape)).mean()

    assert train(zeros(3, 4), Mean()).shape == ()
    assert violation_of(lambda: train(zeros(3, 4), Mean(), False)).parameter == "argument target of loss"
    assert violation_of(lambda: train(zeros(3, 4), lambda prediction, target: target)).parameter == "result of loss"


def test_a_returned_callable_is_held_to_its_annotation() -> None:
    @contract
    def make(x: Row) -> Callable[[Row], Row]:
        return lambda y: x + y if y.sum() == 0 else y[1:]

    add = make(zeros(3))
    assert add(zeros(3)).shape == (3,)
    assert violation_of(lambda: add(zeros(4))).parameter == "argument 0 of the result"
    assert violation_of(lambda: add(torch.ones(3))).parameter == "result of the result"


def test_a_callable_without_tensors_stays_the_object_that_was_given() -> None:
    @contract
    def same(x: Row, f: Callable[[int], int]) -> Callable[..., Any]:
        del x
        return f

    assert same(zeros(3), abs) is abs


def test_a_callable_argument_of_a_coroutine_is_held_too() -> None:
    @contract
    async def apply(x: Row, f: Callable[[Row], Row] = operator.neg) -> Row:
        return f(x)

    assert asyncio.run(apply(zeros(3))).shape == (3,)
    assert violation_of(lambda: asyncio.run(apply(zeros(3), lambda x: x[1:]))).parameter == "result of f"


def in_a_list(x: Row, fs: list[Callable[[Row], Row]]) -> None: ...
def starred(x: Row, *fs: Callable[[Row], Row]) -> None: ...
def ambiguous(x: Row, f: Callable[[Row], Row] | Row) -> None: ...
def later(x: Row) -> Awaitable[Row]: ...
def routine(x: Row) -> Coroutine[Any, Any, Row]: ...
def iterator(x: Image) -> Iterator[Row]: ...
def async_iterator(x: Image) -> AsyncIterator[Row]: ...
def manager(x: Row) -> contextlib.AbstractContextManager[Row]: ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (in_a_list, "cannot be checked in full"),
        (starred, "cannot be checked in full"),
        (ambiguous, "a callable has no alternative but None"),
        (later, "write async def"),
        (routine, "write async def"),
        (iterator, "make it a generator function"),
        (async_iterator, "make it an asynchronous generator function"),
        (manager, "put @contract below @contextmanager"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_tensors_that_come_later_in_an_object_that_is_not_ours_are_refused(
    function: Callable[..., Any], message: str
) -> None:
    assert message in refusal_of(lambda: contract(function))


# --- what is refused ---------------------------------------------------------------------------------
class Instance:
    def __call__(self, x: Row) -> Row:
        return x


@typing.overload
def overload_only(x: Row) -> Row: ...
@typing.overload
def overload_only(x: int) -> int: ...
def overload_only(x: Any) -> Any:
    return x


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (len, "Put @contract on an annotated function that calls it"),
        (torch.add, "Put @contract on an annotated function that calls it"),
        (Instance(), "Put @contract on its class, or on its __call__"),
        (functools.partial(Instance), "Put @contract on the class"),
        (torch.compile(in_a_list), "put @contract below @torch.compile"),
        (typing.overload(in_a_list), "put @contract on the implementation"),
        (3, "Expected a function, a method or a class, got 3"),
    ],
    ids=["builtin", "builtin of torch", "instance", "partial of a class", "compiled", "overload", "number"],
)
def test_what_has_no_annotations_of_its_own_is_refused_with_a_cure(target: Any, message: str) -> None:
    text = refusal_of(lambda: contract(target))
    assert message in text
    assert " at 0x" not in text


def test_a_second_contract_is_refused() -> None:
    def keep(x: Row) -> Row:
        return x

    class Keeper:
        @contract
        def keep(self, x: Row) -> Row:
            return x

    checked = contract(keep)
    for target in (checked, functools.partial(checked), Keeper.keep):
        assert "has a contract already: remove one @contract" in refusal_of(lambda target=target: contract(target))
    assert "Keeper has a contract already" in refusal_of(lambda: contract(contract(Keeper)))
    assert checked(zeros(3)).shape == (3,)


# --- introspection -------------------------------------------------------------------------------------
def doubled(x: Row, *, by: float = 2.0) -> Row:
    """Double a row."""
    return by * x


def test_introspection_of_every_kind_stays_right() -> None:
    async def coroutine(x: Row) -> Row:
        return x

    def generator(x: Row) -> Iterator[Row]:
        yield x

    async def async_generator(x: Row) -> AsyncIterator[Row]:
        yield x

    questions = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    for function in (doubled, coroutine, generator, async_generator):
        checked = contract(function)
        assert [ask(checked) for ask in questions] == [ask(function) for ask in questions]
        assert inspect.isfunction(checked)
        assert inspect.signature(checked) == inspect.signature(function)
        assert typing.get_type_hints(checked) == typing.get_type_hints(function)
        assert checked.__wrapped__ is function
        assert checked.__doc__ == function.__doc__
        assert checked.__qualname__ == function.__qualname__
        assert pydoc.plain(pydoc.render_doc(checked)) == pydoc.plain(pydoc.render_doc(function))
        assert copy.deepcopy(checked) is checked
        assert weakref.ref(checked)() is checked


@contract
def module_level(x: Row) -> Row:
    return x


def test_a_decorated_function_is_pickled_by_its_name() -> None:
    assert pickle.loads(pickle.dumps(module_level)) is module_level


def test_cloudpickle_takes_the_contract_along() -> None:
    cloudpickle = pytest.importorskip("cloudpickle")

    @contract
    def keep(x: Row) -> Row:
        return x

    copied = pickle.loads(cloudpickle.dumps(keep))
    assert copied(zeros(3)).shape == (3,)
    violation_of(lambda: copied(zeros(3, 3)))


def test_objects_with_checked_methods_are_copied_and_pickled() -> None:
    keeper = Keeper(zeros(3))
    for copied in (copy.copy(keeper), copy.deepcopy(keeper), pickle.loads(pickle.dumps(keeper))):
        assert copied.add(zeros(3)).shape == (3,)
        violation_of(lambda copied=copied: copied.add(zeros(3, 3)))


class Keeper:
    def __init__(self, row: Tensor) -> None:
        self.row = row

    @contract
    def add(self, x: Row) -> Row:
        return self.row + x


def test_torch_compile_traces_checked_methods_and_held_callables() -> None:
    keeper = Keeper(zeros(3))

    @contract
    def apply(f: Callable[[Row], Row], x: Row) -> Row:
        return f(x)

    def work(x: Tensor) -> Tensor:
        return apply(lambda y: keeper.add(y), x)

    def wrong(x: Tensor) -> Tensor:
        return apply(lambda y: keeper.add(y)[1:], x)

    assert torch.compile(work, fullgraph=True, backend="eager")(zeros(3)).shape == (3,)
    violation_of(lambda: torch.compile(wrong, fullgraph=True, backend="eager")(zeros(3)))

    @contract
    def make(x: Row) -> Callable[[Row], Row]:
        return lambda y: x + y

    assert torch.compile(lambda x: make(x)(x), fullgraph=True, backend="eager")(zeros(3)).shape == (3,)
    violation_of(lambda: torch.compile(lambda x: make(x)(x[1:]), fullgraph=True, backend="eager")(zeros(3)))
    torch.compiler.reset()


# --- off -----------------------------------------------------------------------------------------------
def test_off_returns_the_same_object_for_every_kind() -> None:
    async def coroutine(x: Row) -> Row: ...
    def generator(x: Row) -> Iterator[Row]: ...
    async def async_generator(x: Row) -> AsyncIterator[Row]: ...
    def callback(f: Callable[[Row], Row]) -> None: ...

    kinds: list[Any] = [
        doubled,
        coroutine,
        generator,
        async_generator,
        callback,
        lambda x: x,
        property(doubled),
        functools.cached_property(doubled),
        staticmethod(doubled),
        classmethod(doubled),
        functools.partial(doubled),
        functools.partialmethod(doubled),
        functools.lru_cache(doubled),
        contextlib.contextmanager(generator),
        contextlib.asynccontextmanager(async_generator),
        Keeper(zeros(3)).add,
        Keeper,
        Loss,
        overload_only,
        len,
        3,
    ]
    with shapecheck.mode("off"):
        assert all(contract(kind) is kind for kind in kinds)

        class Store:
            @contract
            def keep(self, x: Row) -> Row: ...

    assert vars(Store).keys().isdisjoint({"__init_subclass__", "__shapecheck_watch__"})
