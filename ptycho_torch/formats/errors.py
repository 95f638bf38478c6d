"""What is said about a file that cannot be used: which file, which entry, what was expected and found, and the cure."""

from pathlib import Path
from typing import NoReturn

__all__ = ["ScanError", "refuse"]


class ScanError(ValueError):
    """A scan file that cannot be used.

    Attributes:
        path: The file.
        key: The array at fault, empty where the file itself is.
    """

    def __init__(self, message: str, path: Path | None = None, key: str = "") -> None:
        super().__init__(message)
        self.path = path
        self.key = key


def refuse(
    path: Path,
    expected: str,
    got: str,
    fix: str = "",
    *,
    kind: str = "",
    key: str = "",
    cause: BaseException | None = None,
) -> NoReturn:
    """Raise the one form of error that files are refused with.

    Args:
        path: The file.
        expected: Completes "Expected".
        got: Completes "got".
        fix: A sentence of its own, where a cure is known.
        kind: What the format calls its entries ("key", "dataset").
        key: The entry at fault.
        cause: What a library raised.

    Raises:
        ScanError: Always.
    """
    where = f"{path}, {kind} '{key}'" if key else f"{path}"
    msg = f"{where}: Expected {expected}, got {got}. {fix}".rstrip()
    raise ScanError(msg, path, key) from cause
