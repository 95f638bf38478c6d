"""How much a file may make this process allocate, whatever the file declares."""

import os

__all__ = ["BLOCK_BYTES", "block_length", "memory_limit_bytes", "readable_size"]

BLOCK_BYTES = 2**24  # of amplitudes at a time: bounds the memory of everything that reads a scan once
_FALLBACK_BYTES = 2**32  # where the system does not tell how much memory it has


def memory_limit_bytes() -> int:
    """Return half of this machine's memory: more is never allocated for one entry of a file."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, OSError, ValueError):
        return _FALLBACK_BYTES


def block_length(patch_size: int) -> int:
    """Return how many patterns are read at a time."""
    return max(1, BLOCK_BYTES // (4 * patch_size**2))


def readable_size(n_bytes: int) -> str:
    """Return a size as people write it."""
    size, unit = float(n_bytes), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"):
        if size < 1024 or unit == "EiB":
            break
        size /= 1024
    return f"{size:.3g} {unit}"
