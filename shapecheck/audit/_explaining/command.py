"""The command ``shapecheck explain``: what a shape specification means, and whether shapes fit it."""

import sys
from collections.abc import Mapping, Sequence

from .._command import FOUND, command


@command("explain")
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
    from .explain import explain, explain_change  # here, so that it is said in one line where torch is not installed

    if is_diff and len(others) != 1:
        msg = f"Expected two signatures to compare, got {1 + len(others)}."
        raise ValueError(msg)
    explanation = explain_change(spec, *others) if is_diff else explain(spec, *map(_shape, others), dims=dims)
    sys.stdout.write(f"{explanation}\n")
    return 0 if explanation.fits else FOUND


def _shape(text: str) -> tuple[int, ...]:
    """Read ``4,1,2,1``, with or without brackets."""
    sizes = [size for part in text.strip("()[]").split(",") if (size := part.strip())]
    if not all(size.isdecimal() for size in sizes):
        msg = f"expected a shape such as 4,1,2,1, got {text!r}."
        raise ValueError(msg)
    return tuple(map(int, sizes))
