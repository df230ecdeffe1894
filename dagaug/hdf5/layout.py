"""HDF5 files whose datasets each lie in one piece, read strictly and written by position.

HDF5 itself reads and writes only the description of where things lie; the bytes of datasets never go
through it. So a hostile file has little to work with (no filters, no links, no variable-length data,
nothing larger than the file), readers may be shared by threads and processes and run at the speed of
memory, and a full disk is an ordinary error with nothing half-buffered.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from h5py import h5a, h5d, h5f, h5g, h5l, h5o, h5p, h5s, h5t
from jaxtyping import UInt8

from dagaug.runtime.errors import StoreError

__all__ = [
    "UTF8",
    "ByteReader",
    "ByteWriter",
    "Extent",
    "VirtualExtent",
    "VirtualSource",
    "create_file",
    "explain_read_errors",
    "read_layout",
]

UTF8 = "utf8"
"""In a schema: fixed-length, NUL-padded UTF-8; other types are numpy's type strings."""

_SIGNATURE = b"\x89HDF\r\n\x1a\n"


_SUPERBLOCKS = (2, 3)


_MAX_ATTRIBUTE_BYTES = 65_536


@dataclass(frozen=True)
class Extent:
    """Where a dataset lies in its file: first byte, element type and shape."""

    start: int
    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Length in bytes."""
        count = 1
        for length in self.shape:
            count *= length
        return count * self.dtype.itemsize

    def rows(self, first: int, last: int) -> Extent:
        """The part that holds rows ``first`` to ``last`` (exclusive)."""
        row = Extent(0, self.dtype, self.shape[1:]).nbytes
        return Extent(self.start + first * row, self.dtype, (last - first, *self.shape[1:]))


@dataclass(frozen=True)
class VirtualSource:
    """A part of a virtual dataset: a whole dataset of the same name in another file.

    Attributes:
        first, last: the rows that it gives, ``last`` exclusive.
        file: the other file's name, as it stands in this one. Nothing has checked it.
    """

    first: int
    last: int
    file: str


@dataclass(frozen=True)
class VirtualExtent(Extent):
    """A dataset of one dimension that lies in pieces in other files; ``start`` is 0."""

    pieces: tuple[VirtualSource, ...] = ()


@contextmanager
def explain_read_errors(path: Path, what: str) -> Iterator[None]:
    """Turn what h5py and the operating system raise into one line that names the file."""
    try:
        yield
    except FileNotFoundError as error:
        raise StoreError(f"{path}: no such file") from error
    except (OSError, LookupError, RuntimeError, ValueError, TypeError, ArithmeticError, MemoryError) as error:
        reason = str(error.args[0] if isinstance(error, KeyError) and error.args else error).partition("\n")[0]
        raise StoreError(f"{path}: {what} ({reason or type(error).__name__})") from error


class ByteReader:
    """Reads bytes of one file by position; safe in threads and after a fork, pickled without its handle."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None
        with explain_read_errors(path, "cannot be read"):
            self._open()

    def _open(self) -> int:
        # Not blocking, so that a named pipe is refused below rather than waited for.
        descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise StoreError(f"{self.path}: not a file")
            if not hasattr(self, "size"):
                self.size, self._changed = status.st_size, status.st_mtime_ns
            elif (self.size, self._changed) != (status.st_size, status.st_mtime_ns):
                raise StoreError(f"{self.path}: changed since it was opened; open it again")
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return descriptor

    def read(self, start: int, count: int) -> UInt8[np.ndarray, " count"]:
        """``count`` bytes from ``start`` on, writable."""
        result = np.empty(count, np.uint8)
        done = 0
        with explain_read_errors(self.path, "cannot be read"):
            descriptor = self._open() if self._descriptor is None else self._descriptor
            while done < count:
                got = os.preadv(descriptor, [result.data[done:]], start + done)
                if not got:
                    raise StoreError(f"{self.path}: ends before byte {start + count}; it was cut off")
                done += got
        return result

    def array(self, extent: Extent) -> np.ndarray:
        """The array stored at ``extent``."""
        if extent.dtype == np.bool_:
            return (self.read(extent.start, extent.nbytes) != 0).reshape(extent.shape)
        return self.read(extent.start, extent.nbytes).view(extent.dtype).reshape(extent.shape)

    def twin(self) -> ByteReader:
        """The same file, not opened yet: for one thread, which then closes it."""
        other = object.__new__(ByteReader)
        other.__dict__.update(self.__getstate__())
        return other

    def close(self) -> None:
        """Give the file back; the next read opens it anew."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_descriptor": None}

    def __del__(self) -> None:
        if getattr(self, "_descriptor", None) is not None:
            self.close()


def read_layout(
    path: Path,
    attributes: Mapping[str, type],
    schema: Mapping[str, tuple[str, str]],
    size: int,
    *,
    virtual: frozenset[str] = frozenset(),
) -> tuple[dict[str, str | int], dict[str, Extent]]:
    """Attributes, and where each dataset of ``schema`` lies, in a file of ``size`` bytes. Reads no dataset.

    Those named in ``virtual`` may be virtual, in which case :class:`VirtualExtent` says of what they consist.

    Raises:
        StoreError: naming the dataset that is missing, of another type or shape, linked from elsewhere,
            filtered, not contiguous, or declared larger than the file.
    """
    with explain_read_errors(path, "not a readable HDF5 file"):
        with path.open("rb") as start:
            signature = start.read(9)
        # Descriptions without checksums, damaged, can make the HDF5 library loop for ever.
        if signature[:8] == _SIGNATURE and signature[8:] and signature[8] not in _SUPERBLOCKS:
            raise StoreError(f"{path}: not a dagaug file (HDF5 superblock version {signature[8]}, not 2 or 3)")
        if signature[:8] != _SIGNATURE:
            raise StoreError(f"{path}: not a readable HDF5 file")
        file = h5py.File(path, "r", locking=False)
    with file:
        values = {name: _attribute(path, file.id, name, kind) for name, kind in attributes.items()}
        extents: dict[str, Extent] = {}
        lengths: dict[str, int] = {}
        for name, (kind, dims) in schema.items():
            with explain_read_errors(path, f"/{name} cannot be read"):
                extents[name] = extent = _extent(path, file.id, name, kind, size, name in virtual)
            _bind(path, name, extent.shape, dims, lengths)
    return values, extents


def _attribute(path: Path, root: h5g.GroupID, name: str, kind: type) -> str | int:
    with explain_read_errors(path, f"attribute {name} cannot be read"):
        if not h5a.exists(root, name.encode()):
            raise StoreError(f"{path}: attribute {name} is missing; not a dagaug file")
        attribute = h5a.open(root, name.encode())
        found = attribute.get_type()
        is_kind = (
            isinstance(found, h5t.TypeStringID) and not found.is_variable_str()
            if kind is str
            else found.equal(h5t.STD_I64LE)
        )
        if not is_kind or attribute.shape != () or found.get_size() > _MAX_ATTRIBUTE_BYTES:
            raise StoreError(f"{path}: attribute {name} is not {'utf8' if kind is str else 'an int64'}")
        if kind is int:
            number = np.empty((), np.int64)
            attribute.read(number)
            return int(number)
        text = np.empty((), f"S{found.get_size()}")
        attribute.read(text, mtype=found)
        return text.item().decode("utf-8", "surrogateescape")


def _extent(path: Path, root: h5g.GroupID, name: str, kind: str, size: int, may_be_virtual: bool) -> Extent:
    node: h5g.GroupID | h5d.DatasetID = root
    for part in name.encode().split(b"/"):
        if not isinstance(node, h5g.GroupID) or not node.links.exists(part):
            raise StoreError(f"{path}: /{name} is missing")
        if node.links.get_info(part).type != h5l.TYPE_HARD:
            raise StoreError(f"{path}: /{name} is a link to elsewhere; such files are refused")
        node = h5o.open(node, part)
    if not isinstance(node, h5d.DatasetID):
        raise StoreError(f"{path}: /{name} is not a dataset")
    dtype = _dtype(node.get_type(), kind)
    if dtype is None:
        raise StoreError(f"{path}: /{name} is not of type {kind.strip('<|')}")
    how = node.get_create_plist()
    if how.get_nfilters():
        raise StoreError(f"{path}: /{name} has a filter; such files are refused")
    if may_be_virtual and how.get_layout() == h5d.VIRTUAL:
        return VirtualExtent(0, dtype, tuple(node.shape), _pieces(path, name, how, node.shape))
    if how.get_layout() != h5d.CONTIGUOUS or how.get_external_count():
        raise StoreError(f"{path}: /{name} is not stored in one piece in this file")
    if node.get_space().get_simple_extent_type() not in (h5s.SCALAR, h5s.SIMPLE):
        raise StoreError(f"{path}: /{name} has no shape")
    extent = Extent(node.get_offset() or 0, dtype, tuple(int(length) for length in node.shape))
    if extent.nbytes > size or extent.start > size - extent.nbytes or (extent.nbytes and not extent.start):
        raise StoreError(f"{path}: /{name} declares {extent.nbytes:,} bytes that the file does not hold")
    return extent


def _pieces(path: Path, name: str, how: h5p.PropDCID, shape: tuple[int, ...]) -> tuple[VirtualSource, ...]:
    """The pieces of a virtual dataset, if they are whole datasets that lie one behind the other."""
    pieces = []
    for index in range(how.get_virtual_count()):
        here, there = how.get_virtual_vspace(index), how.get_virtual_srcspace(index)
        count = here.get_select_npoints()
        (first,), (last,) = here.get_select_bounds()
        file, dataset = how.get_virtual_filename(index), how.get_virtual_dsetname(index).lstrip("/")
        # Of "all", the file does not keep of how much; the reader compares that with the other file.
        whole = there.get_select_type() == h5s.SEL_ALL or there.get_select_bounds() == ((0,), (count - 1,))
        if dataset != name or last - first + 1 != count or not whole:
            raise StoreError(f"{path}: /{name} is virtual in another way than dagaug writes; such files are refused")
        pieces.append(VirtualSource(int(first), int(last) + 1, file))
    pieces.sort(key=lambda piece: piece.first)
    ends = [0, *(piece.last for piece in pieces)]
    if len(shape) != 1 or [*(piece.first for piece in pieces), shape[0]] != ends:
        raise StoreError(f"{path}: /{name} is virtual and has gaps; such files are refused")
    return tuple(pieces)


def _dtype(found: h5t.TypeID, kind: str) -> np.dtype | None:
    """The numpy type of what is stored, or None if it is not what ``kind`` asks for."""
    if kind != UTF8:
        expected = np.dtype(kind)
        return expected if found.equal(h5t.py_create(expected, logical=True)) else None
    if not isinstance(found, h5t.TypeStringID) or found.is_variable_str():
        return None
    return np.dtype(f"S{found.get_size()}")


def _bind(path: Path, name: str, shape: tuple[int, ...], dims: str, lengths: dict[str, int]) -> None:
    """Check a shape against letters that the datasets before it have bound."""
    expected = dims.split()
    if len(expected) != len(shape):
        raise StoreError(f"{path}: /{name} has {len(shape)} dimensions, not {len(expected)}")
    for letter, length in zip(expected, shape, strict=True):
        base, _, more = letter.partition("+")
        wanted = int(base) if base.isdigit() else lengths.setdefault(base, length - int(more or 0))
        if wanted + int(more or 0) != length:
            raise StoreError(f"{path}: /{name} has {length} rows where {wanted + int(more or 0)} belong")


def create_file(
    path: Path,
    attributes: Mapping[str, str | int],
    layout: Mapping[str, tuple[np.dtype, tuple[int, ...]]],
    virtual: Mapping[str, Sequence[VirtualSource]] | None = None,
) -> dict[str, Extent]:
    """Write an HDF5 file whose datasets hold nothing yet, and say where each is to be written.

    Version 1.8 of the file format gives everything that describes the file a checksum; no times are kept. VirtualExtent
    datasets, which ``virtual`` names with their pieces, need version 1.10.
    """
    virtual = virtual or {}
    bound = h5f.LIBVER_V110 if virtual else h5f.LIBVER_V18
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_libver_bounds(bound, bound)
    creation, groups = h5p.create(h5p.FILE_CREATE), h5p.create(h5p.GROUP_CREATE)
    how = h5p.create(h5p.DATASET_CREATE)
    for properties in (creation, groups, how):
        properties.set_obj_track_times(False)
    how.set_layout(h5d.CONTIGUOUS)
    how.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    how.set_fill_time(h5d.FILL_TIME_NEVER)
    extents: dict[str, Extent] = {}
    file = h5f.create(os.fsencode(path), h5f.ACC_TRUNC, creation, access)
    with h5py.File(file):
        for name, value in attributes.items():
            stored = np.array(value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value)
            kind = _hdf5_type(np.dtype("<i8") if isinstance(value, int) else stored.dtype)
            h5a.create(file, name.encode(), kind, h5s.create(h5s.SCALAR)).write(stored, mtype=kind)
        for name, (dtype, shape) in layout.items():
            group, _, leaf = name.rpartition("/")
            parent: h5g.GroupID = h5g.open(file, b"/")
            if group:
                exists = parent.links.exists(group.encode())
                parent = h5g.open(file, group.encode()) if exists else h5g.create(file, group.encode(), gcpl=groups)
            space = h5s.create_simple(shape) if shape else h5s.create(h5s.SCALAR)
            if name in virtual:
                h5d.create(parent, leaf.encode(), _hdf5_type(dtype), space, _mapping(name, shape, virtual[name]))
                extents[name] = VirtualExtent(0, dtype, shape, tuple(virtual[name]))
                continue
            dataset = h5d.create(parent, leaf.encode(), _hdf5_type(dtype), space, how)
            extents[name] = Extent(dataset.get_offset() or 0, dtype, shape)
    return extents


def _mapping(name: str, shape: tuple[int, ...], pieces: Sequence[VirtualSource]) -> h5p.PropDCID:
    how = h5p.create(h5p.DATASET_CREATE)
    how.set_obj_track_times(False)
    how.set_layout(h5d.VIRTUAL)
    for piece in pieces:
        count = (piece.last - piece.first,)
        here = h5s.create_simple(shape)
        here.select_hyperslab((piece.first,), count)
        how.set_virtual(here, piece.file.encode(), f"/{name}".encode(), h5s.create_simple(count))
    return how


def _hdf5_type(dtype: np.dtype) -> h5t.TypeID:
    if dtype.kind == "S":
        dtype = h5py.string_dtype("utf-8", max(dtype.itemsize, 1))
    return h5t.py_create(dtype, logical=True)


class ByteWriter:
    """Writes bytes by position into a file that is there; leaving the block puts them on the disk."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR)

    def __enter__(self) -> ByteWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        try:
            if kind is None:
                os.fsync(self._descriptor)
        finally:
            os.close(self._descriptor)

    def write(self, start: int, array: np.ndarray) -> None:
        """Put the bytes of ``array`` at byte ``start``."""
        rest = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        while len(rest):
            done = os.pwrite(self._descriptor, rest, start)
            start, rest = start + done, rest[done:]
