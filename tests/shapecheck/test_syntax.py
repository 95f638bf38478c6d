"""Text is parsed also while another thread, or a finalizer, parses."""

import ast
import gc
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from jaxtyping import Float32
from torch import Tensor

from shapecheck import ContractError, contract
from shapecheck._syntax import parse_expression, parse_module


@contextmanager
def another_parser(times: int) -> Iterator[list[int]]:
    """Parse something else, deeper in the stack, where objects are collected during the first few parses."""
    parsed: list[int] = []

    def interfere(*_: Any) -> None:
        frame = inspect.currentframe()
        interrupted = frame and frame.f_back
        if len(parsed) < times and interrupted and interrupted.f_code is ast.parse.__code__:
            parsed.append(1)
            ast.parse("a + b")

    threshold = gc.get_threshold()
    gc.callbacks.append(interfere)
    gc.set_threshold(1)
    try:
        yield parsed
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(interfere)


def long_sum() -> str:
    return " + ".join(f"x{number}" for number in range(50))


@pytest.mark.parametrize(
    "parse", [parse_expression, lambda text: parse_module(text, "script.py")], ids=["expression", "module"]
)
def test_a_tree_is_sound_though_another_text_is_parsed_meanwhile(parse: Callable[[str], ast.AST]) -> None:
    with another_parser(times=20) as interfered:
        tree = parse(long_sum())
    assert interfered
    assert ast.unparse(tree) == long_sum()


@pytest.mark.parametrize(
    "parse", [parse_expression, lambda text: parse_module(text, "script.py")], ids=["expression", "module"]
)
def test_what_is_not_python_is_refused(parse: Callable[[str], ast.AST]) -> None:
    parse("a + b")
    with pytest.raises(SyntaxError):
        parse("a +")


@pytest.mark.violation
def test_a_violation_is_reported_though_another_text_is_parsed_meanwhile() -> None:
    @contract
    def stack(images: dict[str, dict[str, list[tuple[Float32[Tensor, "b 4"], int]]]]) -> int:
        return len(images)

    stack({"left": {"dark": [(torch.zeros(3, 4), 0)]}})
    with (
        another_parser(times=20) as interfered,
        pytest.raises(ContractError, match=r"hint .*\[0\]\[0\]\.permute\(1, 0\)"),
    ):
        stack({"left": {"dark": [(torch.zeros(4, 3), 0)]}})
    assert interfered
