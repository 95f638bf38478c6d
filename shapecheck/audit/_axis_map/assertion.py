"""`assert_axis_map`: an adapter is given coded tensors, and what it returns must have every element in its place."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, cast

from ..._render import describe, did_you_mean, is_array, kind_name
from .notation import Axis, AxisMap, flat

_PRIMES = (3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41)
_MOST_ELEMENTS = 2**24  # what float32 tells apart
_Path = tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class AxisFault:
    """One tensor that does not come out as its map says.

    Attributes:
        path: Where it is in the result; empty if it is the result.
        map: The map, as written.
        kinds: What is wrong: ``permuted``, ``reshaped``, ``flipped``, ``rolled``, ``reordered``, ``copied``, ``mixed``,
            ``shape``, ``constant``, ``scaled``, ``values``, ``missing`` or ``type``.
        expected: Dtype and shape that it was to have.
        got: Those that it has, or its type.
        reasons: A sentence for each kind.
        cure: What to write instead; empty where there was nothing to look at.
    """

    path: str
    map: str
    kinds: tuple[str, ...]
    expected: str
    got: str
    reasons: tuple[str, ...]
    cure: str


class AxisMapError(AssertionError):
    """An adapter puts axes elsewhere than its map says.

    An `AssertionError`, for it ends a test: no value has crossed a boundary, so that nothing that handles a
    `ContractError` may take it for one.

    Attributes:
        faults: All tensors that are wrong.
    """

    def __init__(self, text: str = "", faults: tuple[AxisFault, ...] = ()) -> None:
        super().__init__(text)
        self.faults = faults

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.faults)


def assert_axis_map(
    adapter: Callable[[Any], Any],
    maps: Any,
    *,
    sizes: Mapping[str, int] | None = None,
    dtype: Any = None,
    samples: str | None = None,
    make: Callable[[Any], Any] | None = None,
) -> None:
    """Require that an adapter moves axes as a map says, element by element.

    The adapter is called once, with tensors whose elements say where they come from, so that sizes that coincide
    hide nothing. It may cast, and return NumPy arrays.

    Args:
        adapter: What is to be tried: a function of one argument.
        maps: A map such as ``"B 1 2 C -> B C 1 2"``, or an `AxisMap` that has a dtype of its own; for an adapter of records, maps in
            the same dicts, tuples and lists. The result may be a record with attributes, and have more in it.
        sizes: Sizes of some dims; the others get odd primes, no two the same.
        dtype: Of the tensors that are given; float64 by default.
        samples: The dim along which what is given is taken apart into a list, for collate functions.
        make: Called with what is to be given, or with each sample, such as ``lambda fields: Sample(**fields)``.

    Raises:
        AxisMapError: Something does not come out as the maps say; the error names all of it.
        ValueError: A map, a size or a dtype means nothing.
    """
    import torch  # here, because the package does without

    leaves = {path: _axis_map(leaf, dtype or torch.float64) for path, leaf in _leaves(maps, ())}
    known = _sizes(leaves.values(), sizes or {})
    probes = {path: _probe(map_, known) for path, map_ in leaves.items()}
    given = _given(maps, {path: probe.given for path, probe in probes.items()}, leaves, samples, make)
    result = adapter(given)
    faults = [fault for path, probe in probes.items() if (fault := _fault(path, probe, result)) is not None]
    if faults:
        name = getattr(adapter, "__qualname__", None) or kind_name(cast("type[Any]", type(adapter)))
        raise AxisMapError(_report(name, faults), tuple(faults))


# --- what is given ------------------------------------------------------------------------------------
def _leaves(maps: Any, path: _Path) -> Iterator[tuple[_Path, str | AxisMap]]:
    if isinstance(maps, (str, AxisMap)):
        yield path, maps
        return
    if isinstance(maps, Mapping):
        items: Iterable[tuple[Any, Any]] = cast("Mapping[Any, Any]", maps).items()
    elif isinstance(maps, (tuple, list)):
        items = enumerate(cast("Sequence[Any]", maps))
    else:
        _refuse(f"Expected axis maps, in dicts, tuples or lists, got {describe(maps)}.")
    for key, inner in items:
        yield from _leaves(inner, (*path, key))


def _axis_map(leaf: str | AxisMap, dtype: Any) -> AxisMap:
    map_ = AxisMap(leaf) if isinstance(leaf, str) else leaf
    return map_ if map_.dtype is not None else dataclasses.replace(map_, dtype=dtype)


def _sizes(maps: Iterable[AxisMap], given: Mapping[str, int]) -> dict[str, int]:
    """Return a size for every name and number in the maps."""
    names = dict.fromkeys(axis.name for map_ in maps for axis in flat(map_.source))
    for name, size in given.items():
        if name not in names:
            close = did_you_mean(name, names)
            _refuse(f"Expected sizes of {', '.join(names)}, got one of {name!r}{f': {close}' if close else '.'}")
        if type(size) is not int or size < 1:
            _refuse(f"Expected the size of {name!r} to be a positive int, got {size!r}.")
    known = {**{name: int(name) for name in names if name.isdigit()}, **given}
    free = (prime for prime in _PRIMES if prime not in known.values())
    for name in names:
        if name not in known:
            known[name] = next(free, 0)
            if not known[name]:
                _refuse(
                    f"Expected at most {len(_PRIMES)} names without a size, got {len(names)}: give some in `sizes`."
                )
    return known


def _probe(map_: AxisMap, sizes: Mapping[str, int]) -> Any:
    from .findings import Probe, coded

    shape = map_.shape(map_.source, sizes)
    if math.prod(shape) > _MOST_ELEMENTS:
        _refuse(f"Expected a map of at most {_MOST_ELEMENTS} elements, got {math.prod(shape)}: give smaller `sizes`.")
    given = coded(map_, sizes, map_.dtype)
    return Probe(map_, sizes, given, map_.applied(given, sizes))


def _given(
    maps: Any,
    tensors: Mapping[_Path, Any],
    leaves: Mapping[_Path, AxisMap],
    samples: str | None,
    make: Callable[[Any], Any] | None,
) -> Any:
    """Return what the adapter is called with: copies, so that it may write to them."""
    made = make or _as_it_is
    if samples is None:
        return made(_filled(maps, (), {path: tensor.clone() for path, tensor in tensors.items()}))
    apart = {path: tensor.unbind(_position(leaves[path], samples)) for path, tensor in tensors.items()}
    count = len(next(iter(apart.values())))
    return [made(_filled(maps, (), {path: rows[k].clone() for path, rows in apart.items()})) for k in range(count)]


def _as_it_is(value: Any) -> Any:
    return value


def _position(map_: AxisMap, dim: str) -> int:
    groups = [group for group in map_.source if group == (Axis(dim),)]
    if not groups:
        _refuse(
            f"Expected every map to have {dim!r} on its left side, not merged, to be taken apart by, got {map_.text!r}."
        )
    return map_.source.index(groups[0])


def _filled(maps: Any, path: _Path, tensors: Mapping[_Path, Any]) -> Any:
    """Return the structure of the maps with a tensor in place of each."""
    if path in tensors:
        return tensors[path]
    if isinstance(maps, Mapping):
        fields = cast("Mapping[Any, Any]", maps)
        return {key: _filled(inner, (*path, key), tensors) for key, inner in fields.items()}
    items = [_filled(inner, (*path, place), tensors) for place, inner in enumerate(maps)]
    return tuple(items) if isinstance(maps, tuple) else items


# --- what comes back ----------------------------------------------------------------------------------
def _fault(path: _Path, probe: Any, result: Any) -> AxisFault | None:
    """Return what is wrong with one tensor of the result, if something is."""
    import torch

    from .findings import facts

    where, reached = "", result
    for key in path:
        where += f"[{key!r}]"
        found = _entry(reached, key)
        if found is None:
            return _absent(where, probe, "missing", f"there is no {key!r} in {describe(reached)}", "nothing")
        reached = found[0]
    if not is_array(reached):
        return _absent(where, probe, "type", f"it is {describe(reached)}, no tensor or array", describe(reached))
    found = facts(probe, reached if isinstance(reached, torch.Tensor) else torch.as_tensor(reached.copy()))
    if not found:
        return None
    kinds = tuple(dict.fromkeys(fact.kind for fact in found))
    code = probe.map.code(f"x{where}")
    cure = f"{code} does what the map says" if code != f"x{where}" else "the map leaves the axes as they are"
    return AxisFault(
        where,
        probe.map.text,
        kinds,
        describe(probe.expected),
        describe(reached),
        tuple(fact.text for fact in found),
        cure,
    )


def _absent(where: str, probe: Any, kind: str, reason: str, got: str) -> AxisFault:
    return AxisFault(where, probe.map.text, (kind,), describe(probe.expected), got, (reason,), "")


def _entry(value: Any, key: Any) -> tuple[Any] | None:
    """Return what stands under a key, or else is an attribute of that name; None if there is neither."""
    try:
        return (value[key],)
    except (KeyError, IndexError, TypeError):
        return (getattr(value, key),) if isinstance(key, str) and hasattr(value, key) else None


def _report(name: str, faults: Sequence[AxisFault]) -> str:
    lines = list[str]()
    for fault in faults:
        whose = f"{name}, result{fault.path}" if fault.path else name
        head = (
            f"AxisMapError [{', '.join(fault.kinds)}]: {whose}"
            if not lines
            else f"  also [{', '.join(fault.kinds)}]: result{fault.path}"
        )
        rows = [("expected", fault.expected), ("got", fault.got), ("because", "; ".join(fault.reasons))]
        rows += [("hint", fault.cure)] if fault.cure else []
        lines.append(f'{head}: "{fault.map}": {fault.reasons[0]}')
        lines += [f"  {row:<10} {text}" for row, text in rows]
    return "\n".join(lines)


def _refuse(message: str) -> NoReturn:
    raise ValueError(message)
