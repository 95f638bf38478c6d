"""What a package defines: its modules, and in the order of the source their functions, methods and records.

Imports the package and calls nothing.
"""

import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from .._boundaries.descriptors import functions_in
from .._boundaries.inheritance import contract_within
from .._boundaries.records import is_record


@dataclasses.dataclass(frozen=True)
class Member:
    """A function, a method or a record that a package defines.

    Attributes:
        name: Qualified name.
        value: The function as it is found there, under contract or not; the class of a record.
        is_record: Whether it is a record: a class whose fields are declared.
        has_owner: Whether its first parameter is ``self`` or ``cls``.
    """

    name: str
    value: Any
    is_record: bool
    has_owner: bool

    @property
    def contract(self) -> Any:
        """The contract of a function; None if it has none, and for records."""
        return None if self.is_record else contract_within(self.value)


def modules_of(package: str) -> Iterator[ModuleType]:
    """Import a package or module and yield it, then its submodules, except ``__main__``."""
    root = importlib.import_module(package)
    yield root
    for found in pkgutil.walk_packages(getattr(root, "__path__", []), f"{package}."):
        if not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


def members_of(package: str) -> Iterator[Member]:
    """Import a package or module and yield what is defined there; what it has imported from elsewhere is left out."""
    for module in modules_of(package):
        yield from _members(module, module.__name__)


def _members(holder: Any, module: str) -> Iterator[Member]:
    held: dict[str, Any] = {**vars(holder)}
    for name, member in held.items():
        if isinstance(member, type):
            if member.__module__ == module and name == member.__name__:
                yield from _members_of_class(member)
            continue
        for function in functions_in(member):
            code = getattr(inspect.unwrap(function), "__code__", None)
            if code is not None and function.__module__ == module and code.co_filename != "<string>":  # generated
                is_method = isinstance(holder, type) and not isinstance(member, staticmethod)
                yield Member(f"{module}.{function.__qualname__}", function, is_record=False, has_owner=is_method)


def _members_of_class(kind: type) -> Iterator[Member]:
    """Yield a record itself, then what is defined in the class; the constructor of a record is generated."""
    if is_record(kind):
        yield Member(f"{kind.__module__}.{kind.__qualname__}", kind, is_record=True, has_owner=False)
    yield from _members(kind, kind.__module__)
