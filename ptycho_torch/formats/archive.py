"""NPZ archives, read without trusting them and written as a stream.

An archive declares the size of each array twice, in its table of contents and in front of the data. Both are compared
with each other, with what deflation can do and with the memory of this machine before anything is inflated. Nothing
pickled is ever loaded, and no member is ever written to disk, whatever its name.
"""

import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple, NoReturn

import numpy as np

from ptycho_torch.config_params import closest
from ptycho_torch.files import written_atomically
from ptycho_torch.formats.entry import Entry
from ptycho_torch.formats.errors import ScanError, refuse
from ptycho_torch.formats.limits import BLOCK_BYTES, readable_size

__all__ = ["Layout", "NpzArchive", "Stream", "open_npz", "read_exactly", "write_npz"]

_DAMAGED = (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, struct.error)
# What NumPy and Python's own parser raise for a header that is no dictionary of what it should be.
_NO_HEADER = (ValueError, TypeError, OverflowError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError)
_LARGEST_INFLATION = 1032  # what a byte of deflated data can become at most
_METHODS = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: _LARGEST_INFLATION}
_ENCRYPTED = 0x1
_LOCAL_HEADER_BYTES, _LOCAL_LENGTHS_AT = 30, 26
_COMPRESSION_LEVEL = 3  # of 9: patterns 7 % larger than at the usual 6, in less than half of the time


class Layout(NamedTuple):
    """What stands in front of an array.

    Attributes:
        shape: As declared.
        dtype: As declared.
        fortran: Whether the first axis varies fastest.
        offset: Bytes before the data.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    offset: int


class Stream(NamedTuple):
    """An array that is written as it comes.

    Attributes:
        shape: Of the whole.
        dtype: Of the parts.
        parts: Along the first axis, in order.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    parts: Iterable[np.ndarray]


class NpzArchive:
    """An open archive.

    Attributes:
        path: The file.
        keys: Of its arrays.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path = path
        self._archive = archive
        self._members = self._by_key()
        self.keys = tuple(sorted(self._members))

    def entry(self, key: str) -> Entry:
        """Return what an array declares.

        Raises:
            ScanError: It is missing, damaged, pickled, or not as large as the archive says.
        """
        layout = self.layout(key)
        return Entry(self.path, "key", key, layout.shape, layout.dtype, lambda: self._array(key))

    def layout(self, key: str) -> Layout:
        """Return what stands in front of an array.

        Raises:
            ScanError: It is missing, damaged, pickled, or not as large as the archive says.
        """
        member = self._member(key)
        with self._opened(key) as stream:
            try:
                shape, fortran, dtype = _read_header(stream)
            except _NO_HEADER as damage:
                self._fail(key, "an array in NPY format", "other bytes", damage)
            layout = Layout(shape, dtype, fortran, stream.tell())
        if dtype.hasobject:
            self._fail(key, "numbers", "pickled Python objects, which are never loaded")
        declared, there = math.prod(shape) * dtype.itemsize, member.file_size - layout.offset
        if declared != there or min(shape, default=0) < 0:
            got = f"{readable_size(there)} for {dtype.name} {shape}, which takes {readable_size(declared)}"
            self._fail(key, "as many bytes as the array declares", got)
        return layout

    @contextmanager
    def data(self, key: str) -> Iterator[IO[bytes]]:
        """Open an array at the first byte of its data.

        Raises:
            ScanError: It turns out to be damaged in the block.
        """
        offset = self.layout(key).offset
        with self._opened(key) as stream:
            stream.read(offset)
            yield stream

    def data_at(self, key: str) -> int | None:
        """Return where the data of an array begin in the file; None where they are compressed."""
        member, layout = self._member(key), self.layout(key)
        if member.compress_type != zipfile.ZIP_STORED:
            return None
        with self.path.open("rb") as file:
            file.seek(member.header_offset + _LOCAL_LENGTHS_AT)
            name, extra = (int.from_bytes(file.read(2), "little") for _ in range(2))
        return member.header_offset + _LOCAL_HEADER_BYTES + name + extra + layout.offset

    def _array(self, key: str) -> np.ndarray:
        layout = self.layout(key)
        flat = np.empty(math.prod(layout.shape), layout.dtype)
        with self.data(key) as stream:
            read_exactly(stream, flat)
        return flat.reshape(layout.shape, order="F" if layout.fortran else "C")

    def _by_key(self) -> Mapping[str, zipfile.ZipInfo]:
        members: dict[str, zipfile.ZipInfo] = {}
        for member in self._archive.infolist():
            key = member.filename.removesuffix(".npy")
            if key in members:
                self._fail(key, "each key once", "two members of that name")
            members[key] = member
        return members

    def _member(self, key: str) -> zipfile.ZipInfo:
        """Return the table's line for an array, refusing what it says before any of the content is looked at."""
        if key not in self._members:
            got = f"only {', '.join(self.keys) or 'nothing'}"
            refuse(self.path, "to be in the file", got, closest(key, self.keys).strip(), kind="key", key=key)
        member = self._members[key]
        if member.flag_bits & _ENCRYPTED or member.compress_type not in _METHODS:
            self._fail(key, "a stored or deflated member", "one that is encrypted or compressed in another way")
        most = _METHODS[member.compress_type] * member.compress_size
        if member.file_size > most:
            got = f"{readable_size(member.file_size)} from {readable_size(member.compress_size)}"
            self._fail(key, "a member that can hold what it declares", got)
        return member

    @contextmanager
    def _opened(self, key: str) -> Iterator[IO[bytes]]:
        try:
            with self._archive.open(self._member(key)) as stream:
                yield stream
        except ScanError:
            raise
        except _DAMAGED as damage:
            self._fail(key, "a readable array", f"an error: {damage}. Copy the file again", damage)

    def _fail(self, key: str, expected: str, got: str, cause: BaseException | None = None) -> NoReturn:
        refuse(self.path, expected, got, kind="key", key=key, cause=cause)


@contextmanager
def open_npz(path: Path) -> Iterator[NpzArchive]:
    """Open an archive; what is wrong with the file itself, not with an array, is said here.

    Raises:
        ScanError: The file is no complete archive, or holds a key twice.
    """
    try:
        archive = zipfile.ZipFile(path)
    except _DAMAGED as damage:
        got = f"a truncated or damaged one ({damage})"
        refuse(path, "a complete zip archive", got, "Copy it again.", cause=damage)
    with archive:
        yield NpzArchive(path, archive)


def read_exactly(stream: IO[bytes], array: np.ndarray) -> None:
    """Fill a contiguous array with the next bytes of a stream.

    Raises:
        EOFError: There are not enough.
    """
    content = array.reshape(-1).view(np.uint8).data if array.size else memoryview(b"")
    for start in range(0, len(content), BLOCK_BYTES):
        part = content[start : start + BLOCK_BYTES]
        if stream.readinto(part) != len(part):  # type: ignore[attr-defined]  # every stream of an archive has it
            msg = "it ends early"
            raise EOFError(msg)


def write_npz(path: Path, arrays: Mapping[str, np.ndarray | Stream]) -> None:
    """Write arrays to a compressed archive, which appears complete or not at all.

    Args:
        path: The file, replaced where it exists.
        arrays: By key; a stream is never held in memory.
    """
    with (
        written_atomically(path) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=_COMPRESSION_LEVEL) as archive,
    ):
        for key, array in arrays.items():
            # Members written as streams are dated 1980: the same arrays are the same bytes.
            with archive.open(f"{key}.npy", "w", force_zip64=True) as stream:
                if isinstance(array, Stream):
                    _write_parts(stream, array)
                else:
                    np.lib.format.write_array(stream, np.asanyarray(array), allow_pickle=False)


def _write_parts(stream: IO[bytes], array: Stream) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape}
    np.lib.format.write_array_header_2_0(stream, header)
    for part in array.parts:
        stream.write(np.ascontiguousarray(part, array.dtype).data)


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(stream)
    msg = f"version {version} of the format, which arrays of numbers never need"
    raise ValueError(msg)
