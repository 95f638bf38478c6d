"""The import hook: contracts for every annotated function and class of whole packages, whose source stays untouched.

Imports nothing of the engine: that comes with the first module that is hooked, and never when checking is off.
"""

import importlib.abc
import importlib.machinery
import sys
import types
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self

from .._settings import enabled
from ..errors import ContractWarning

if TYPE_CHECKING:
    from .listing import HookReport, Outcome

_OTHER_FILES = "it has no Python source (an extension module, or compiled code only)"


def install_import_hook(*packages: str) -> "ImportHook":
    """Put contracts on every annotated function and record of some packages, from now on, as they are imported.

    Every function, method and nested function with an annotated tensor becomes what `contract` makes of it, and so
    does every dataclass and NamedTuple. What cannot have a contract stays as it is and is listed by `hook_report`
    with the reason; what has tensors in its annotations, or may have, and is not checked is also warned of.

    Call this before the packages are imported. When checking is off nothing is installed.

    Args:
        *packages: Names of packages or modules; everything below them is included.

    Returns:
        The hook, which can be removed again; as a context manager it is removed at the end of the block.

    Raises:
        ModuleNotFoundError: A name matches nothing.
    """
    hook = ImportHook(packages)
    if enabled():
        hook.install()
    return hook


def hook_report(*packages: str) -> "HookReport":
    """Return what import hooks did, in this process, with every function, class and module that they met.

    Args:
        *packages: Names of packages or modules to report on, with everything below them; all, if none is named.
    """
    from .listing import HookReport, listing

    report = listing.report()
    return HookReport(item for item in report if _is_within(item.module, packages)) if packages else report


class ImportHook(importlib.abc.MetaPathFinder):
    """Finds modules as others do, and loads those of some packages with contracts.

    Args:
        packages: Names of packages or modules; everything below them is included.
    """

    def __init__(self, packages: Iterable[str]) -> None:
        self.packages = tuple(packages)

    def install(self) -> None:
        """Begin with the next import.

        Raises:
            ModuleNotFoundError: A name matches nothing.
        """
        if not self.packages:
            msg = "Expected the names of packages, got none."
            raise ValueError(msg)
        for package in self.packages:
            _require_package(package)
        self._list_imported()
        sys.meta_path.insert(0, self)

    def uninstall(self) -> None:
        """Hook no further module; what has a contract keeps it."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.uninstall()

    def _matches(self, module: str) -> bool:
        return _is_within(module, self.packages)

    def _list_imported(self) -> None:
        """List what is imported already and warn of it: it is too late for that."""
        late = sorted(name for name in sys.modules if self._matches(name))
        for name in late:
            _list(name, "refused", "it was imported before the hook was installed")
        if late:
            text = (
                f"{len(late)} modules were imported before the import hook was installed and are not checked, "
                f"the first being {late[0]}: install the hook before anything imports them."
            )
            warnings.warn(text, ContractWarning, stacklevel=4)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find a module by means of the other finders, and choose the loader."""
        if not self._matches(fullname):
            return None
        spec = _find(fullname, path, target)
        if spec is not None:
            spec.loader = _hooked(spec, fullname)
        return spec


def _is_within(module: str, packages: Iterable[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def _find(
    fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
) -> importlib.machinery.ModuleSpec | None:
    """Ask the finders that are no hooks of ours."""
    for finder in sys.meta_path:
        if not isinstance(finder, ImportHook):
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                return spec
    return None


def _require_package(package: str) -> None:
    """Refuse a name that nothing answers to, without importing anything.

    Raises:
        ModuleNotFoundError: Nothing has this name.
    """
    path: Sequence[str] | None = None
    parts = package.split(".")
    for end in range(1, len(parts) + 1):
        spec = _find(".".join(parts[:end]), path) if all(parts) else None
        if spec is None or (end < len(parts) and spec.submodule_search_locations is None):
            msg = (
                f"Expected {package!r} to be a package or module that can be imported, got a name that matches nothing."
            )
            raise ModuleNotFoundError(msg, name=package)
        path = spec.submodule_search_locations


def _list(module: str, outcome: "Outcome", reason: str) -> None:
    from .listing import Listed, listing

    listing.add(Listed(module, "", 0, outcome, reason))


# --- loading -------------------------------------------------------------------------------------
class _Loader(importlib.machinery.SourceFileLoader):
    """Loads a module from its source, rewritten; bytecode is neither read nor written, so that none is mixed up."""

    is_rewritten = False

    def path_stats(self, path: str) -> Any:
        """Say that no bytecode can be up to date."""
        msg = f"No bytecode of {path} has contracts."
        raise OSError(msg)

    def source_to_code(self, data: Any, path: Any, *arguments: Any, **named: Any) -> types.CodeType:
        """Compile the rewritten source."""
        import ast

        from .._syntax import parse_module
        from .rewrite import rewrite

        self.is_rewritten = True
        tree = data if isinstance(data, ast.Module) else parse_module(data, path)
        return super().source_to_code(rewrite(tree), path, *arguments, **named)  # pyright: ignore[reportArgumentType]

    def get_code(self, fullname: str) -> types.CodeType | None:
        """Compile the module; where another hook did that by itself, say so."""
        code = super().get_code(fullname)
        if not self.is_rewritten:
            others = [kind.__qualname__ for kind in type(self).__mro__ if "source_to_code" in vars(kind)]
            _refuse(fullname, f"another import hook compiles it ({others[0]})")
        return code


def _hooked(spec: importlib.machinery.ModuleSpec, fullname: str) -> Any:
    """Return a loader that does what the loader of a module does, and puts contracts on it as well."""
    loader, kind = spec.loader, type(spec.loader)
    if loader is None or isinstance(loader, importlib.machinery.NamespaceLoader):
        return loader
    if not isinstance(loader, importlib.machinery.SourceFileLoader):
        is_extension = isinstance(
            loader, importlib.machinery.ExtensionFileLoader | importlib.machinery.SourcelessFileLoader
        )
        _refuse(fullname, _OTHER_FILES if is_extension else f"its loader is not Python's own ({kind.__qualname__})")
        return loader
    if kind is importlib.machinery.SourceFileLoader:
        return _Loader(fullname, loader.path)
    return type(kind.__name__, (kind, _Loader), {})(fullname, loader.path)


def _refuse(module: str, reason: str) -> None:
    _list(module, "refused", reason)
    warnings.warn(f"The module {module} is not checked: {reason}.", ContractWarning, stacklevel=2)
