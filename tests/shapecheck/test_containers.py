"""Containers of every kind: every item is looked at, every time, and what cannot be looked at is refused."""

import collections
import types
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Mapping,
    MutableMapping,
    MutableSequence,
    MutableSet,
    Sequence,
)
from collections.abc import Set as AbstractSet
from random import Random
from typing import Any, NamedTuple, NotRequired, Optional, TypedDict

import pytest
from jaxtyping import Float32, Int64

from shapecheck import ContractError, check, contract

torch = pytest.importorskip("torch")
Tensor = torch.Tensor

pytestmark = pytest.mark.violation

Image = Float32[Tensor, "h w"]
H, W, MANY = 5, 6, 64


@pytest.fixture(params=["compiled", "reference"], autouse=True)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SHAPECHECK_ENGINE", request.param)
    return request.param


def images(number: int) -> list[Any]:
    return [torch.zeros(H, W) for _ in range(number)]


def keyed(items: list[Any]) -> dict[str, Any]:
    return {f"k{index}": item for index, item in enumerate(items)}


def chained(items: list[Any]) -> collections.ChainMap[str, Any]:
    fields = keyed(items)
    return collections.ChainMap({"k0": fields.pop("k0")}, fields)


class Pages(Sequence[Any]):
    """A sequence that is no list."""

    def __init__(self, items: list[Any]) -> None:
        self._items = items

    def __getitem__(self, index: Any) -> Any:
        return self._items[index]

    def __len__(self) -> int:
        return len(self._items)


CONTAINERS: list[tuple[Any, Callable[[list[Any]], Any]]] = [
    (list[Image], list),
    (tuple[Image, ...], tuple),
    (Sequence[Image], list),
    (Sequence[Image], Pages),
    (MutableSequence[Image], collections.deque),
    (collections.deque[Image], collections.deque),
    (collections.UserList[Image], collections.UserList),
    (set[Image], set),
    (frozenset[Image], frozenset),
    (AbstractSet[Image], set),
    (AbstractSet[Image], lambda items: dict.fromkeys(items).keys()),
    (MutableSet[Image], set),
    (Collection[Image], tuple),
    (Iterable[Image], list),
    (Iterable[Image], lambda items: keyed(items).values()),
    (Iterable[Image], dict.fromkeys),
    (collections.abc.ValuesView[Image], lambda items: keyed(items).values()),
    (dict[str, Image], keyed),
    (dict[Image, int], lambda items: dict.fromkeys(items, 1)),
    (Mapping[str, Image], keyed),
    (Mapping[str, Image], lambda items: types.MappingProxyType(keyed(items))),
    (MutableMapping[str, Image], lambda items: collections.UserDict(keyed(items))),
    (collections.OrderedDict[str, Image], lambda items: collections.OrderedDict(keyed(items))),
    (collections.defaultdict[str, Image], lambda items: collections.defaultdict(list, keyed(items))),
    (collections.ChainMap[str, Image], chained),
    (Optional[list[Image]], list),  # noqa: UP045  # the older spelling must work as well
    (list[Image | None], list),
    (list[Image] | tuple[Image, ...], tuple),
    (
        dict[str, list[tuple[Image, Int64[Tensor, ""]]]],
        lambda items: {"a": [(item, torch.tensor(1)) for item in items]},
    ),
]
NAMES = [f"{number} {row[0]}" for number, row in enumerate(CONTAINERS)]


@pytest.mark.parametrize(("hint", "make"), CONTAINERS, ids=NAMES)
def test_every_item_of_every_container_is_checked(hint: Any, make: Callable[[list[Any]], Any]) -> None:
    def use(x: Any, like: Image) -> None: ...

    use.__annotations__["x"] = hint
    use = contract(use)
    items, like = images(MANY), torch.zeros(H, W)
    use(make(items), like)
    for position in (0, 1, 31, MANY - 1):
        wrong = [*items[:position], torch.zeros(W, H), *items[position + 1 :]]
        with pytest.raises(ContractError) as caught:
            use(make(wrong), like)
        assert {mismatch.kind for violation in caught.value.violations for mismatch in violation.mismatches} <= {
            "axis",
            "no-alternative",
        }


@pytest.mark.parametrize(("hint", "make"), CONTAINERS, ids=NAMES)
def test_the_items_bind_what_nothing_else_does(hint: Any, make: Callable[[list[Any]], Any]) -> None:
    check(make(images(3)), hint)
    with pytest.raises(ContractError):
        check(make([*images(3), torch.zeros(H, W + 1)]), hint)
    with pytest.raises(ContractError):
        check(3, hint)


# --- always, and not most of the time --------------------------------------------------------------
class Fields(TypedDict):
    first: Image
    second: NotRequired[Image]


class Row(NamedTuple):
    first: Image
    second: Image


def of_list(items: list[Image]) -> None: ...
def of_dict(items: dict[str, Image]) -> None: ...
def of_fields(items: list[Fields]) -> None: ...
def of_rows(items: list[Row]) -> None: ...
def returned(items: Any) -> dict[str, tuple[list[Image], int]]:
    return {"a": (items, 1)}


def fields(items: list[Any]) -> list[Any]:
    return [{"first": first, "second": second} for first, second in zip(items[::2], items[1::2], strict=True)]


def rows(items: list[Any]) -> list[Any]:
    return [Row(first, second) for first, second in zip(items[::2], items[1::2], strict=True)]


@pytest.mark.parametrize(
    ("function", "make"),
    [(of_list, list), (of_dict, keyed), (of_fields, fields), (of_rows, rows), (returned, list)],
    ids=["list", "dict values", "TypedDict", "NamedTuple", "nested return"],
)
def test_one_wrong_item_of_64_is_rejected_1000_times_of_1000(
    function: Callable[..., Any], make: Callable[[list[Any]], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # to describe a violation takes milliseconds; here only the verdict counts
    for describing, nothing in (("failures", None), ("diagnose", ()), ("render", "rejected")):
        monkeypatch.setattr(f"shapecheck._boundaries.boundary.{describing}", lambda *_, nothing=nothing: nothing)
    checked, random, items = contract(function), Random(0), images(MANY)
    wrong = torch.zeros(W, H)
    rejected = 0
    for attempt in range(1000):
        if attempt % 10 == 0:
            checked(make(items))
        position = random.randrange(MANY)
        try:
            checked(make([*items[:position], wrong, *items[position + 1 :]]))
        except ContractError:
            rejected += 1
    assert rejected == 1000


# --- what cannot be looked at ------------------------------------------------------------------------
@pytest.mark.parametrize("hint", [Iterable[Image], Collection[Image], Sequence[Image], list[Image]], ids=str)
def test_an_iterator_is_refused_and_not_consumed(hint: Any) -> None:
    def use(x: Any) -> None: ...

    use.__annotations__["x"] = hint
    use, items = contract(use), images(3)
    use(items)
    for lazy in (iter(items), (item for item in items), map(torch.relu, items)):
        with pytest.raises(ContractError):
            use(lazy)
        assert len(list(lazy)) == 3


def test_the_refusal_of_an_iterator_says_what_to_give() -> None:
    with pytest.raises(ContractError, match="whose items do not exist until they are asked for"):
        check(iter(images(3)), Iterable[Image])
    check(images(3), Iterable[Image])


def test_a_data_loader_is_not_started_to_look_at_its_batches() -> None:
    class Watched(torch.utils.data.Dataset[Any]):
        seen = 0

        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Any:
            Watched.seen += 1
            return torch.zeros(H, W)

    loader = torch.utils.data.DataLoader(Watched(), batch_size=None)
    before = torch.get_rng_state()
    with pytest.raises(ContractError):
        check(loader, Iterable[Image])
    assert Watched.seen == 0
    assert torch.equal(torch.get_rng_state(), before)


def test_the_rows_of_an_array_are_items_like_any_others() -> None:
    check(torch.zeros(3, H, W), Iterable[Image])
    for wrong in (torch.zeros(3, H), torch.tensor(1.0), torch.zeros(3, H, W).double()):
        with pytest.raises(ContractError):
            check(wrong, Iterable[Image])


def test_text_is_no_container_of_what_it_is_made_of() -> None:
    for hint in (Sequence[str | Image], Iterable[str | Image], Collection[str | Image]):
        check(["a", torch.zeros(H, W)], hint)
        for text in ("a", b"a"):
            with pytest.raises(ContractError):
                check(text, hint)


@pytest.mark.parametrize("hint", [list[Image], dict[str, Image], set[Image], Iterable[Image]], ids=str)
def test_an_empty_container_holds_nothing_wrong(hint: Any) -> None:
    def use(x: Any, y: Image) -> None: ...

    use.__annotations__["x"] = hint
    empty = {} if hint == dict[str, Image] else set() if hint == set[Image] else []
    contract(use)(empty, torch.zeros(H, W))


def test_items_of_a_set_are_numbered_by_what_they_look_like() -> None:
    for _ in range(5):  # the order of a set of tensors differs from run to run, and that of the report must not
        items = {torch.zeros(H, W), torch.zeros(H, W), torch.zeros(W + 1, H, 1)}
        with pytest.raises(ContractError) as caught:
            check(items, set[Image])
        assert [violation.parameter for violation in caught.value.violations] == ["value{2}"]


def test_a_default_of_a_defaultdict_is_not_made() -> None:
    class Loose(TypedDict, total=False):
        image: Image

    value: Any = collections.defaultdict(lambda: torch.zeros(H, W))
    check(value, Loose)
    assert not value


def test_a_mapping_may_hide_its_keys_only_by_its_own_rules() -> None:
    tensordict = pytest.importorskip("tensordict", reason="the dependency group `integrations` has it")

    class Two(TypedDict):
        image: Float32[Tensor, "b h w"]
        weight: Float32[Tensor, " b"]

    good = tensordict.TensorDict({"image": torch.zeros(3, H, W), "weight": torch.zeros(3)}, batch_size=[3])
    check(good, Two)
    check(good, Mapping[str, Float32[Tensor, "b ..."]])
    for change in ({"weight": torch.zeros(3, 1)}, {"extra": torch.zeros(3)}):
        with pytest.raises(ContractError):
            check(good.clone().update(change), Two)
