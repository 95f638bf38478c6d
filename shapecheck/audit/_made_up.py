"""What is common to all who make values up for a contract: sizes to choose from, and how they say that there is none.

Who makes stand-ins (`_mutation`) and who makes tensors that are computed with (`_dry`) choose sizes differently.
"""

from collections.abc import Iterable

from .._annotations.spec import TensorSpec

PRIMES = (
    *(3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71),
    *(73, 79, 83, 89, 97, 101, 103, 107, 109, 113),
)


class UnmakeableError(Exception):
    """No value can be made, or not one that a contract accepts; the text says for what, and why."""


def fixed_sizes(specs: Iterable[TensorSpec]) -> set[int]:
    """Return the sizes that stand in annotations as numbers, which no free dim should have."""
    return {dim.size for spec in specs for dim in spec.dims if dim.kind == "fixed"}
