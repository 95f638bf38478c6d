"""Arrays of other programs with axes that ours do not have: layers of an object, coherent modes of a probe."""

from dataclasses import replace

from ptycho_torch.formats.entry import Entry

__all__ = ["single_layer", "single_probe"]


def single_layer(entry: Entry) -> Entry:
    """Drop the axis of layers of an object that has one.

    Raises:
        ScanError: There are several.
    """
    entry.expect_kind("c", "a complex object")
    if len(entry.shape) == 3 and entry.shape[0] != 1:
        entry.fail("an object of one layer", str(entry))
    return _without_first_axis(entry) if len(entry.shape) == 3 else entry


def single_probe(entry: Entry) -> Entry:
    """Drop the axis of coherent modes of a probe that is the same at every position.

    Raises:
        ScanError: There are several coherent modes, whose mixture changes from position to position.
    """
    entry.expect_kind("c", "a complex probe")
    if len(entry.shape) == 4 and entry.shape[0] != 1:
        fix = "Save it without orthogonal probe relaxation."
        entry.fail("a probe that is the same at every position, (1, modes, N, N)", str(entry), fix)
    return _without_first_axis(entry) if len(entry.shape) == 4 else entry


def _without_first_axis(entry: Entry) -> Entry:
    return replace(entry, shape=entry.shape[1:], fetch=lambda: entry.fetch()[0])
