"""HDF5 files, read without trusting them.

A dataset can lie in another file, be assembled from other files, have been declared and never written, or need a
decoder that is not installed. All of that is found out, and refused, before anything is read. Sizes are compared with
the memory of this machine.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import h5py
import numpy as np

from ptycho_torch.contracts import BadPixels
from ptycho_torch.formats.entry import Entry
from ptycho_torch.formats.errors import ScanError, refuse
from ptycho_torch.formats.limits import memory_limit_bytes, readable_size
from ptycho_torch.formats.patterns import Patterns
from shapecheck import contract

__all__ = ["Hdf5Counts", "Hdf5File", "open_hdf5"]

with suppress(ImportError):
    import_module("hdf5plugin")  # decoders of many detectors, where it is installed

_DAMAGED = (OSError, RuntimeError, KeyError, ValueError)
_MOST_LINKS = 8  # one after the other: more are a circle
_NUMBERS, _LARGEST_NUMBER_BYTES = "biufc", 16


class Hdf5File:
    """An open file.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path, file: h5py.File) -> None:
        self.path = path
        self._file: Any = file

    @property
    def keys(self) -> tuple[str, ...]:
        """The names at the top of the file."""
        return self.names("/")

    def names(self, group: str) -> tuple[str, ...]:
        """Return the names in a group; none where there is no such group."""
        found = self._found(group)
        # A name that is no text comes as bytes.
        return tuple(sorted(str(name) for name in found)) if isinstance(found, h5py.Group) else ()

    def __contains__(self, name: str) -> bool:
        return self._found(name) is not None

    def entry(self, key: str) -> Entry:
        """Return what a dataset declares.

        Raises:
            ScanError: It is missing, no dataset of numbers, or its data are not in this file.
        """
        dataset = self.dataset(key)
        return Entry(self.path, "dataset", key, dataset.shape, dataset.dtype, lambda: self._array(key))

    def dataset(self, name: str) -> Any:
        """Return a dataset whose data are numbers, in this file and readable.

        Raises:
            ScanError: Says which of it is not so.
        """
        found = self._found(name)
        if found is None:
            self.fail(name, "to be in the file", self._instead_of(name))
        if not isinstance(found, h5py.Dataset):
            self.fail(name, "a dataset", "a group")
        _refuse_elsewhere(self, name, found)
        _refuse_unreadable(self, name, found)
        return found

    def number(self, name: str) -> float:
        """Read a single finite number.

        Raises:
            ScanError: It is anything else.
        """
        entry = self.entry(name)
        if entry.size != 1 or entry.dtype.kind not in "iuf":
            entry.fail("one real number", str(entry))
        return float(entry.finite_array().reshape(()))

    def attribute(self, name: str, attribute: str) -> float | None:
        """Read an attribute that is a single finite number; None where there is none of that name.

        Args:
            name: Of a dataset, or "/" for the file.
            attribute: Of the attribute.

        Raises:
            ScanError: It is anything else.
        """
        holder = self._file if name == "/" else self.dataset(name)
        if attribute not in holder.attrs:
            return None
        at = f"{name} {attribute}".removeprefix("/ ")
        declared = h5py.h5a.open(holder.id, attribute.encode())
        dtype = _dtype_or_none(declared)
        if math.prod(declared.shape or ()) != 1 or dtype is None or dtype.kind not in "biuf":
            refuse(self.path, "one real number", f"{dtype or 'no number'} {declared.shape}", kind="attribute", key=at)
        value = float(np.asarray(holder.attrs[attribute]).reshape(()))
        if not math.isfinite(value):
            refuse(self.path, "a finite number", str(value), kind="attribute", key=at)
        return value

    def fail(self, name: str, expected: str, got: str, fix: str = "", cause: BaseException | None = None) -> NoReturn:
        """Refuse something of the file.

        Raises:
            ScanError: Always.
        """
        refuse(self.path, expected, got, fix, kind="dataset", key=name, cause=cause)

    def _instead_of(self, name: str) -> str:
        """Say what there is in the group that would hold something, or in the nearest one around it."""
        around = name.rpartition("/")[0]
        while around and not isinstance(self._found(around), h5py.Group):
            around = around.rpartition("/")[0]
        names = self.names(around) if around else self.keys
        return f"only {', '.join(names) or 'nothing'} in {around or '/'}"

    def _found(self, name: str) -> Any:
        """Follow a path within this file, link by link."""
        node: Any = self._file
        left, followed = [part for part in name.split("/") if part], 0
        while left:
            part = left.pop(0)
            link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
            if link is None:
                return None
            if isinstance(link, h5py.ExternalLink):
                fix = "Copy what it refers to into one file, for instance with h5copy -f ext."
                self.fail(name, "data in this file", f"a link to the file '{link.filename}'", fix)
            if isinstance(link, h5py.SoftLink):
                followed += 1
                if followed > _MOST_LINKS:
                    self.fail(name, f"at most {_MOST_LINKS} links one after the other", "more, or a circle")
                node = self._file if link.path.startswith("/") else node
                left = [part for part in link.path.split("/") if part and part != "."] + left
            else:
                node = node[part]
        return node

    def _array(self, name: str) -> np.ndarray:
        try:
            return np.asarray(self.dataset(name)[()])
        except _DAMAGED as damage:
            self.fail(name, "a readable array", f"an error: {damage}", "Copy the file again.", damage)


@contextmanager
def open_hdf5(path: Path) -> Iterator[Hdf5File]:
    """Open a file; what is wrong with the file itself, not with a dataset, is said here.

    Raises:
        ScanError: The file is no complete HDF5 file.
    """
    try:
        file = h5py.File(path, "r")
    except _DAMAGED as damage:
        refuse(path, "a complete HDF5 file", f"a truncated or damaged one ({damage})", "Copy it again.", cause=damage)
    with file:
        try:
            yield Hdf5File(path, file)
        except ScanError:
            raise
        except _DAMAGED as damage:
            refuse(path, "a readable HDF5 file", f"an error: {damage}", "Copy it again.", cause=damage)


def _refuse_elsewhere(file: Hdf5File, name: str, dataset: h5py.Dataset) -> None:
    """Refuse a dataset whose data are in other files, which it could choose freely, or nowhere."""
    if dataset.is_virtual:
        fix = "Copy them into this one, for instance with h5repack -l CONTI."
        file.fail(name, "data in this file", "a virtual dataset, which is assembled from other files", fix)
    if dataset.external:
        file.fail(name, "data in this file", f"data in the file '{dataset.external[0][0]}'")
    if dataset.shape is None:
        file.fail(name, "an array", "an empty dataset")
    if dataset.size and not dataset.id.get_storage_size():
        file.fail(name, "data", f"{dataset.shape} declared and nothing written")


def _refuse_unreadable(file: Hdf5File, name: str, dataset: h5py.Dataset) -> None:
    """Refuse what cannot be decoded into numbers, or only by taking more memory than there is."""
    dtype = _dtype_or_none(dataset)
    if dtype is None or dtype.kind not in _NUMBERS or dtype.itemsize > _LARGEST_NUMBER_BYTES:
        file.fail(name, "numbers", f"{dtype or 'no numbers'} {dataset.shape}")
    plan = dataset.id.get_create_plist()
    for number in range(plan.get_nfilters()):
        code, _, _, label = plan.get_filter(number)
        if not h5py.h5z.filter_avail(code):
            decoder = f"{label.decode(errors='replace') or 'unnamed'} ({code})"
            file.fail(name, "a known compression", decoder, "Many decoders come with: pip install hdf5plugin.")
    chunk_bytes = math.prod(dataset.chunks or ()) * dataset.dtype.itemsize
    if dataset.chunks and chunk_bytes > memory_limit_bytes():
        file.fail(name, f"chunks of at most {readable_size(memory_limit_bytes())}", readable_size(chunk_bytes))


def _dtype_or_none(holder: Any) -> np.dtype | None:
    """Return the dtype of a dataset or attribute; None where NumPy has none for it."""
    try:
        return holder.dtype
    except TypeError:
        return None


class Hdf5Counts(Patterns):
    """Counts in a dataset.

    Each process opens the file for itself, when it first reads: an open HDF5 file cannot be shared with a fork.

    Args:
        file: Open while this is made; later it is opened again.
        name: Of the dataset.
        bad: Detector pixels that hold nothing.
    """

    holds_counts: ClassVar[bool] = True

    @contract
    def __init__(self, file: Hdf5File, name: str, bad: BadPixels | None = None) -> None:
        entry = file.entry(name)
        if entry.dtype.kind not in "iuf":
            entry.fail("counts", str(entry))
        super().__init__(entry, bad)
        self._open: tuple[int, h5py.File, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_open": None}

    def stored(self, start: int, stop: int) -> np.ndarray:
        """Read consecutive patterns."""
        try:
            return self._dataset()[start:stop]
        except ScanError:
            raise
        except _DAMAGED as damage:
            self.entry.fail("readable patterns", f"an error: {damage}", "Copy the file again.", damage)

    def close(self) -> None:
        """Close the file; it is opened again when something is read."""
        if self._open is not None and self._open[0] == os.getpid():
            self._open[1].close()
        self._open = None

    def _dataset(self) -> Any:
        if self._open is None or self._open[0] != os.getpid():
            file = h5py.File(self.entry.path, "r")
            self._open = (os.getpid(), file, Hdf5File(self.entry.path, file).dataset(self.entry.name))
        return self._open[2]
