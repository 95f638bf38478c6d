"""Tensor contracts: jaxtyping annotations, enforced at run time at every boundary a tensor crosses."""

from importlib.util import find_spec as _find_spec

if _find_spec("shapecheck._main") is not None:
    _msg = (
        "The distribution 'shapecheck' (a 2021 package of the same import name) is mixed into this one: "
        "run 'pip uninstall shapecheck', then 'pip install --force-reinstall shapecheck-torch'."
    )
    raise ImportError(_msg)

from ._boundaries.contract import check as check
from ._boundaries.contract import contract as contract
from ._packages.hook import hook_report as hook_report
from ._packages.hook import install_import_hook as install_import_hook
from ._packages.ipython import load_ipython_extension as load_ipython_extension
from ._settings import enabled as enabled
from ._settings import mode as mode
from .axes import Axes as Axes
from .axes import Dim as Dim
from .errors import ContractDefinitionError as ContractDefinitionError
from .errors import ContractError as ContractError
from .errors import ContractWarning as ContractWarning
from .errors import Violation as Violation
from .kinds import Kind as Kind

# no assert of ours is of interest to pytest, which warns of a plugin that was imported before pytest could rewrite it
__doc__ = f"{__doc__}\n\nPYTEST_DONT_REWRITE"

__all__ = [
    "Axes",
    "ContractDefinitionError",
    "ContractError",
    "ContractWarning",
    "Dim",
    "Kind",
    "Violation",
    "check",
    "contract",
    "enabled",
    "hook_report",
    "install_import_hook",
    "mode",
]
