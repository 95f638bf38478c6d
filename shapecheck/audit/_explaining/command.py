"""The command ``shapecheck explain``: what a shape specification means, and whether shapes fit it."""

import sys
from collections.abc import Mapping, Sequence

from ...errors import ContractDefinitionError
from .explain import explain, explain_change

MISFIT, REFUSED = 1, 2  # exit statuses


def explain_text(spec: str, others: Sequence[str], *, dims: Mapping[str, int], is_diff: bool) -> int:
    """Print what a specification means, whether shapes fit it, or how it differs from another.

    Args:
        spec: A specification.
        others: Shapes, or the one other specification.
        dims: Sizes that some dims must have.
        is_diff: Whether to compare two specifications.

    Returns:
        The exit status.
    """
    try:
        if is_diff:
            (other,) = others
            explanation = explain_change(spec, other)
        else:
            explanation = explain(spec, *map(_shape, others), dims=dims)
    except (ImportError, ValueError, ContractDefinitionError) as error:
        reason = "expected two signatures to compare." if is_diff and len(others) != 1 else error
        sys.stderr.write(f"shapecheck explain: {reason}\n")
        return REFUSED
    sys.stdout.write(f"{explanation}\n")
    return 0 if explanation.fits else MISFIT


def _shape(text: str) -> tuple[int, ...]:
    """Read ``4,1,2,1``, with or without brackets."""
    sizes = [size for part in text.strip("()[]").split(",") if (size := part.strip())]
    if not all(size.isdecimal() for size in sizes):
        msg = f"expected a shape such as 4,1,2,1, got {text!r}."
        raise ValueError(msg)
    return tuple(map(int, sizes))
