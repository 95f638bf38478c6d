"""The dim names a project uses: one registry, so that a misspelt dim is an error and not a new dim."""

import difflib
from collections.abc import Iterator, Mapping

from .errors import ContractDefinitionError

_registered: dict[str, "Axes"] = {}


class Axes(Mapping[str, str]):
    """A registry of dim names with a description of each.

    A registered package can use no other names in its contracts::

        AXES = Axes(B="groups in a batch", C="patches in a group").register("ptycho_torch")

    Args:
        **descriptions: What each dim counts, by name.
    """

    def __init__(self, **descriptions: str) -> None:
        self._descriptions = descriptions

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
        """Return the registry as it would be written."""
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
        close = difflib.get_close_matches(dim, self._descriptions, n=3, cutoff=0.5)
        close += [name for name in self._descriptions if name.lower() == dim.lower() and name not in close]
        cure = f"did you mean {' or '.join(map(repr, close))}?" if close else f"known: {', '.join(self._descriptions)}."
        msg = f"Unknown dim {dim!r} in {where}: {cure}"
        raise ContractDefinitionError(msg)


def axes_of(module: str | None) -> Axes | None:
    """Return the registry that governs a module: that of the innermost registered package."""
    parts = (module or "").split(".")
    candidates = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
    return next((_registered[name] for name in candidates if name in _registered), None)
