"""Real values for the stand-ins of a valid call that was made up, so that it can be made."""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from shapecheck import Kind, mode
from shapecheck._stand_in import StandIn
from shapecheck.audit._mutation.shells import Shell, attributes_of, plain_value


class Realiser:
    """Makes tensors of zeros, each declared what it was made for; one stand-in is one tensor.

    Args:
        kinds: What stand-ins are declared to be, by their ids.
    """

    def __init__(self, kinds: Mapping[int, Sequence[Kind]]) -> None:
        self._kinds = kinds
        self._made: dict[int, Any] = {}

    def value(self, value: Any) -> Any:
        if type(value) is StandIn:
            if id(value) not in self._made:
                self._made[id(value)] = self._tensor(value)
            return self._made[id(value)]
        if type(value) is Shell:
            return _object(value.__class__, {name: self.value(item) for name, item in attributes_of(value).items()})
        if isinstance(value, Mapping):
            return type(value)({key: self.value(item) for key, item in value.items()})
        if isinstance(value, Collection) and not isinstance(value, (str, bytes)):
            return type(value)([self.value(item) for item in value])
        return value

    def _tensor(self, value: StandIn) -> Any:
        if issubclass(value.__class__, Tensor):
            array = torch.zeros(value.shape, dtype=getattr(torch, value.dtype))
            if value.__class__ is nn.Parameter:
                array = nn.Parameter(array, requires_grad=False)
        else:
            array = np.zeros(value.shape, value.dtype)
        for kind in self._kinds.get(id(value), ()):
            kind.declare(array)
        return array


def _object(kind: type, attributes: dict[str, Any]) -> Any:
    if kind is object:
        return SimpleNamespace(**attributes)
    if issubclass(kind, tuple):
        with mode("off"):
            return kind(**attributes)
    made = kind.__new__(kind)
    for name, value in attributes.items():
        object.__setattr__(made, name, value)
    return made


def call_with(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Call a function with arguments by name; those that only say how, and are missing, are made up."""
    signature = inspect.signature(function)
    bound = inspect.BoundArguments(signature, {})
    for name, parameter in signature.parameters.items():
        if name in arguments:
            bound.arguments[name] = arguments[name]
        elif parameter.default is parameter.empty:
            bound.arguments[name] = plain_value(parameter.annotation)
    return function(*bound.args, **bound.kwargs)
