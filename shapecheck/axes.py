"""The dim names a project uses: one registry, so that a misspelt dim is an error and not a new dim.

A registry is written in code (`Axes.register`) or in the ``pyproject.toml`` above the package, which is looked for when
the first contract of a package is defined and not before.
"""

import dataclasses
import functools
import sys
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, cast

from ._render import did_you_mean
from .errors import ContractDefinitionError

Sizes = range | frozenset[int]

_TYPES: dict[str, tuple[type, ...]] = {  # of what a table in pyproject.toml may say of a dim
    "description": (str,),
    "size": (int, list),
    "min": (int,),
    "max": (int,),
    "step": (int,),
    "tied": (str,),
}
_INSTALLED = {"site-packages", "dist-packages"}

_registered: dict[str, "Axes"] = {}


@dataclasses.dataclass(frozen=True)
class Dim:
    """What a registry says of one dim besides its name.

    Attributes:
        description: What it counts.
        size: The sizes it may have: a number, a `range` or a set of numbers; any, if None.
        tied: Its size as a Python expression over the arguments of a call, for every contract that has the dim and
            these arguments.
    """

    description: str = ""
    size: int | range | AbstractSet[int] | None = None
    tied: str | None = None


class Axes(Mapping[str, str]):
    """A registry of dim names with a description of each.

    A registered package can use no other names in its contracts::

        AXES = Axes(B="groups in a batch", C=Dim("patches in a group", size={1, 4, 9}), N=64).register("ptycho_torch")

    Attributes:
        sizes: The sizes that dims may have, for those that are limited.
        ties: Expressions over the arguments of a call, for those that are tied.

    Args:
        **dims: What each dim counts, by name; or the size or sizes it may have; or a `Dim` that says both.

    Raises:
        ContractDefinitionError: A dim is none of these.
    """

    def __init__(self, **dims: str | int | range | Dim) -> None:
        described = {name: _as_dim(name, dim) for name, dim in dims.items()}
        self._descriptions = {name: dim.description for name, dim in described.items()}
        self.sizes: Mapping[str, Sizes] = {
            name: _as_sizes(name, dim.size) for name, dim in described.items() if dim.size is not None
        }
        self.ties: Mapping[str, str] = {name: dim.tied for name, dim in described.items() if dim.tied is not None}

    def __getitem__(self, dim: str) -> str:
        """Return the description of a dim."""
        return self._descriptions[dim]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._descriptions)

    def __len__(self) -> int:
        """Return the number of names."""
        return len(self._descriptions)

    def __repr__(self) -> str:
        """Return the names and descriptions as they would be written."""
        return f"Axes({', '.join(f'{dim}={text!r}' for dim, text in self._descriptions.items())})"

    def register(self, package: str) -> "Axes":
        """Hold every contract defined in `package`, from now on, to these names.

        Args:
            package: Dotted name of a package or module; everything below it is included.

        Returns:
            The registry itself.
        """
        _registered[package] = self
        return self

    def require(self, dim: str, where: str) -> None:
        """Refuse a dim that is not registered.

        Args:
            dim: Name to look up.
            where: What uses it, for the message.

        Raises:
            ContractDefinitionError: The name is unknown; close matches are named.
        """
        if dim in self._descriptions:
            return
        cure = did_you_mean(dim, self._descriptions) or f"known: {', '.join(self._descriptions)}."
        msg = f"Unknown dim {dim!r} in {where}: {cure}"
        raise ContractDefinitionError(msg)


def axes_of(module: str | None) -> Axes | None:
    """Return the registry that governs a module.

    That of the innermost registered package, else what the nearest ``pyproject.toml`` above the module's file says.

    Raises:
        ContractDefinitionError: The file makes no sense.
    """
    parts = (module or "").split(".")
    candidates = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
    for name in candidates:
        if name in _registered:
            return _registered[name]
    return _axes_above(getattr(sys.modules.get(module or ""), "__file__", None))


def describe_sizes(sizes: Sizes) -> str:
    """Return sizes in words: ``64``, ``1, 4 or 9``, ``1 to 16``, ``8 to 1024 in steps of 8``."""
    if isinstance(sizes, range) and len(sizes) > 1:
        steps = f" in steps of {sizes.step}" if sizes.step > 1 else ""
        return f"{sizes[0]} to {sizes[-1]}{steps}"
    *most, last = map(str, sorted(sizes))
    return f"{', '.join(most)} or {last}" if most else last


def _as_dim(name: str, dim: object) -> Dim:
    if isinstance(dim, Dim):
        return dim
    if isinstance(dim, str):
        return Dim(dim)
    if isinstance(dim, range) or type(dim) is int:
        return Dim(size=dim)
    msg = f"Expected dim {name!r} of a registry to be a description, a size, a range or a Dim, got {dim!r}."
    raise ContractDefinitionError(msg)


def _as_sizes(name: str, size: object) -> Sizes:
    sizes: Sizes | None = None
    if isinstance(size, range):
        sizes = size if size.step > 0 else size[::-1]
    elif type(size) is int:
        sizes = frozenset({size})
    elif isinstance(size, AbstractSet):
        sizes = frozenset(cast("AbstractSet[int]", size))
    if not sizes or any(type(one) is not int or one < 0 for one in sizes):
        msg = f"Expected the size of dim {name!r} to be a number, a range or a set of numbers >= 0, got {size!r}."
        raise ContractDefinitionError(msg)
    return sizes


# --- pyproject.toml --------------------------------------------------------------------------------------
@functools.cache
def _axes_above(file: str | None) -> Axes | None:
    """Return the registry in the nearest ``pyproject.toml`` above a file, unless the file is installed."""
    path = Path(file or "").absolute()
    if file is None or _INSTALLED.intersection(path.parts):
        return None
    project = next((found for folder in path.parents if (found := folder / "pyproject.toml").is_file()), None)
    return None if project is None else _axes_in(project)


@functools.cache
def _axes_in(project: Path) -> Axes | None:
    import tomllib  # only where a project file was found

    try:
        tables: Any = tomllib.loads(project.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        msg = f"Expected {project} to be a readable TOML file, got: {error}."
        raise ContractDefinitionError(msg) from None
    dims = tables.get("tool", {}).get("shapecheck", {}).get("axes")
    try:
        return None if dims is None else _from_table(dims)
    except ContractDefinitionError as error:
        msg = f"{project}, [tool.shapecheck.axes]: {error}"
        raise ContractDefinitionError(msg) from None


def _from_table(dims: Any) -> Axes:
    if not isinstance(dims, dict):
        msg = f"Expected a table of dims, got {dims!r}."
        raise ContractDefinitionError(msg)
    return Axes(**{name: _from_toml(name, dim) for name, dim in cast("dict[str, Any]", dims).items()})


def _from_toml(name: str, dim: Any) -> Any:
    """Read one dim: a description, a size, or a table of both."""
    if not isinstance(dim, dict):
        return dim
    table = cast("dict[str, Any]", dim)
    _require_keys(name, table)
    size: Any = table.get("size")
    if isinstance(size, list):
        size = frozenset(cast("list[Any]", size))
    elif "max" in table:
        size = range(table.get("min", 0), table["max"] + 1, table.get("step", 1))
    return Dim(table.get("description", ""), size, table.get("tied"))


def _require_keys(name: str, table: dict[str, Any]) -> None:
    """Refuse keys that mean nothing, alone or together."""
    if unknown := sorted(table.keys() - _TYPES.keys()):
        msg = f"Expected the keys of dim {name!r} to be among {', '.join(_TYPES)}, got {', '.join(unknown)}."
        raise ContractDefinitionError(msg)
    for key, value in table.items():
        if type(value) not in _TYPES[key]:
            kinds = " or ".join(kind.__name__ for kind in _TYPES[key])
            msg = f"Expected {key!r} of dim {name!r} to be {kinds}, got {value!r}."
            raise ContractDefinitionError(msg)
    if (table.keys() & {"min", "step"} and "max" not in table) or table.keys() >= {"size", "max"}:
        msg = (
            f"Expected dim {name!r} to have either a size, or max with min and step if wanted, got {', '.join(table)}."
        )
        raise ContractDefinitionError(msg)
