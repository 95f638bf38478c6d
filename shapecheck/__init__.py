"""Tensor contracts: jaxtyping annotations, enforced at run time at every boundary a tensor crosses."""

from importlib.util import find_spec as _find_spec

if _find_spec("shapecheck._main") is not None:
    _msg = (
        "The distribution 'shapecheck' (a 2021 package of the same import name) is mixed into this one: "
        "run 'pip uninstall shapecheck', then 'pip install --force-reinstall shapecheck-torch'."
    )
    raise ImportError(_msg)

from ._contract import check as check
from ._contract import contract as contract
from ._settings import enabled as enabled
from ._settings import mode as mode
from .axes import Axes as Axes
from .errors import ContractDefinitionError as ContractDefinitionError
from .errors import ContractError as ContractError
from .errors import ContractWarning as ContractWarning
from .errors import Violation as Violation

__all__ = [
    "Axes",
    "ContractDefinitionError",
    "ContractError",
    "ContractWarning",
    "Violation",
    "check",
    "contract",
    "enabled",
    "mode",
]
