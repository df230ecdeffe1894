"""Positions of contiguous datasets in HDF5 files, and reading and writing of their bytes by position.

h5py reads and writes only metadata: names, types, shapes and positions. The bytes of datasets never pass through it.
Advantages: a hostile file cannot use filters, links, variable-length data or sizes beyond the file; threads and
processes can share a reader; reading is as fast as the memory; a full disk is an ordinary error without buffered data.
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
"""Type in a schema: fixed-length, NUL-padded UTF-8. All other types are numpy's type strings."""

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_SUPERBLOCKS = (2, 3)
_MAX_ATTRIBUTE_BYTES = 65_536


@dataclass(frozen=True)
class Extent:
    """Position of a dataset in its file: first byte, element type and shape."""

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
        """The extent of the rows ``first`` to ``last`` (exclusive)."""
        row = Extent(0, self.dtype, self.shape[1:]).nbytes
        return Extent(self.start + first * row, self.dtype, (last - first, *self.shape[1:]))


@dataclass(frozen=True)
class VirtualSource:
    """A source of a virtual dataset: the complete dataset of the same name in another file.

    Attributes:
        first, last: rows of the virtual dataset that come from this source, ``last`` exclusive.
        file: name of the other file as the virtual dataset states it, unchecked.
    """

    first: int
    last: int
    file: str


@dataclass(frozen=True)
class VirtualExtent(Extent):
    """A virtual dataset of one dimension, whose bytes are in other files; ``start`` is 0."""

    sources: tuple[VirtualSource, ...] = ()


@contextmanager
def explain_read_errors(path: Path, what: str) -> Iterator[None]:
    """Raise a :class:`StoreError` in one line for every error of h5py or the operating system in the block.

    Args:
        path: the file, for the message.
        what: what failed, for the message.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise StoreError(f"{path}: no such file") from error
    except (OSError, LookupError, RuntimeError, ValueError, TypeError, ArithmeticError, MemoryError) as error:
        reason = str(error.args[0] if isinstance(error, KeyError) and error.args else error).partition("\n")[0]
        raise StoreError(f"{path}: {what} ({reason or type(error).__name__})") from error


class ByteReader:
    """Reads bytes of one file by position. Safe in threads and after a fork; pickled without the open file.

    Raises:
        StoreError: the file is missing, is not a regular file, or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None
        with explain_read_errors(path, "cannot be read"):
            self._open()

    def _open(self) -> int:
        # Opening a named pipe would block without O_NONBLOCK.
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
        """``count`` bytes from the position ``start``, writable.

        Raises:
            StoreError: the file is too short, cannot be read, or changed since it was opened first.
        """
        result = np.empty(count, np.uint8)
        done = 0
        with explain_read_errors(self.path, "cannot be read"):
            descriptor = self._open() if self._descriptor is None else self._descriptor
            while done < count:
                got = os.preadv(descriptor, [result.data[done:]], start + done)
                if not got:
                    raise StoreError(f"{self.path}: ends before byte {start + count}; the file is incomplete")
                done += got
        return result

    def array(self, extent: Extent) -> np.ndarray:
        """The array stored at ``extent``."""
        if extent.dtype == np.bool_:
            return (self.read(extent.start, extent.nbytes) != 0).reshape(extent.shape)
        return self.read(extent.start, extent.nbytes).view(extent.dtype).reshape(extent.shape)

    def unopened_copy(self) -> ByteReader:
        """A reader of the same file that is not open; one thread can use it and close it."""
        other = object.__new__(ByteReader)
        other.__dict__.update(self.__getstate__())
        return other

    def close(self) -> None:
        """Close the file. The next read opens it again."""
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
    optional: Mapping[str, tuple[str, str]] | None = None,
) -> tuple[dict[str, str | int], dict[str, Extent]]:
    """Read the root attributes and the positions of datasets; the datasets' bytes are not read.

    Args:
        path: the file.
        attributes: name and type (str or int) of the attributes.
        schema: type and shape of each dataset. Equal letters in shapes stand for equal lengths.
        size: length of the file in bytes.
        virtual: datasets that may be virtual; their position is a :class:`VirtualExtent`.
        optional: further datasets, all in one group; read like the others if the file has this group.

    Raises:
        StoreError: not an HDF5 file; or a dataset is missing, has another type or shape, is linked from another place,
            has a filter, is not contiguous, or is larger than the file. The message names the dataset.
    """
    with explain_read_errors(path, "not a readable HDF5 file"):
        with path.open("rb") as start:
            signature = start.read(9)
        # Damaged metadata without checksums can make the HDF5 library loop for ever.
        if signature[:8] == _SIGNATURE and signature[8:] and signature[8] not in _SUPERBLOCKS:
            raise StoreError(f"{path}: not a dagaug file (HDF5 superblock version {signature[8]}, not 2 or 3)")
        if signature[:8] != _SIGNATURE:
            raise StoreError(f"{path}: not a readable HDF5 file")
        file = _open(path)
    with file:
        values = {name: _attribute(path, file.id, name, kind) for name, kind in attributes.items()}
        extents: dict[str, Extent] = {}
        lengths: dict[str, int] = {}
        wanted = dict(schema)
        for name, described in (optional or {}).items():
            group = name.partition("/")[0]
            with explain_read_errors(path, f"/{group} cannot be read"):
                if file.id.links.exists(group.encode()):
                    wanted[name] = described
        for name, (kind, dims) in wanted.items():
            with explain_read_errors(path, f"/{name} cannot be read"):
                extents[name] = extent = _extent(path, file.id, name, kind, size, name in virtual)
            _bind(path, name, extent.shape, dims, lengths)
    return values, extents


def _open(path: Path) -> h5py.File:
    """Open a file without a lock, or as this process has it open already: HDF5 refuses to mix both."""
    ways = (False, True, "best-effort")
    for locking in ways:
        try:
            return h5py.File(path, "r", locking=locking)
        except OSError as error:
            if "flag values don't match" not in str(error) or locking == ways[-1]:
                raise
    raise AssertionError("unreachable")


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
    """Position of one dataset, after all checks except the shape."""
    node: h5g.GroupID | h5d.DatasetID = root
    for part in name.encode().split(b"/"):
        if not isinstance(node, h5g.GroupID) or not node.links.exists(part):
            raise StoreError(f"{path}: /{name} is missing")
        if node.links.get_info(part).type != h5l.TYPE_HARD:
            raise StoreError(f"{path}: /{name} is a link; files with links are refused")
        node = h5o.open(node, part)
    if not isinstance(node, h5d.DatasetID):
        raise StoreError(f"{path}: /{name} is not a dataset")
    dtype = _dtype(node.get_type(), kind)
    if dtype is None:
        raise StoreError(f"{path}: /{name} is not of type {kind.strip('<|')}")
    how = node.get_create_plist()
    if how.get_nfilters():
        raise StoreError(f"{path}: /{name} has a filter; files with filters are refused")
    if may_be_virtual and how.get_layout() == h5d.VIRTUAL:
        return VirtualExtent(0, dtype, tuple(node.shape), _virtual_sources(path, name, how, node.shape))
    if how.get_layout() != h5d.CONTIGUOUS or how.get_external_count():
        raise StoreError(f"{path}: /{name} is not contiguous in this file")
    if node.get_space().get_simple_extent_type() not in (h5s.SCALAR, h5s.SIMPLE):
        raise StoreError(f"{path}: /{name} has no shape")
    extent = Extent(node.get_offset() or 0, dtype, tuple(int(length) for length in node.shape))
    if extent.nbytes > size or extent.start > size - extent.nbytes or (extent.nbytes and not extent.start):
        raise StoreError(f"{path}: /{name} declares {extent.nbytes:,} bytes, more than the file has")
    return extent


def _virtual_sources(path: Path, name: str, how: h5p.PropDCID, shape: tuple[int, ...]) -> tuple[VirtualSource, ...]:
    """The sources of a virtual dataset. They must be complete datasets, one after the other."""
    sources = []
    for index in range(how.get_virtual_count()):
        here, there = how.get_virtual_vspace(index), how.get_virtual_srcspace(index)
        count = here.get_select_npoints()
        (first,), (last,) = here.get_select_bounds()
        file, dataset = how.get_virtual_filename(index), how.get_virtual_dsetname(index).lstrip("/")
        # The selection "all" has no stored length; the reader compares the length with the other file.
        whole = there.get_select_type() == h5s.SEL_ALL or there.get_select_bounds() == ((0,), (count - 1,))
        if dataset != name or last - first + 1 != count or not whole:
            raise StoreError(f"{path}: /{name} is virtual, but not in the way that dagaug writes; refused")
        sources.append(VirtualSource(int(first), int(last) + 1, file))
    sources.sort(key=lambda source: source.first)
    ends = [0, *(source.last for source in sources)]
    if len(shape) != 1 or [*(source.first for source in sources), shape[0]] != ends:
        raise StoreError(f"{path}: /{name} is virtual and has gaps; refused")
    return tuple(sources)


def _dtype(found: h5t.TypeID, kind: str) -> np.dtype | None:
    """The numpy type of a dataset; None if it is not the type ``kind``."""
    if kind != UTF8:
        expected = np.dtype(kind)
        return expected if found.equal(h5t.py_create(expected, logical=True)) else None
    if not isinstance(found, h5t.TypeStringID) or found.is_variable_str():
        return None
    return np.dtype(f"S{found.get_size()}")


def _bind(path: Path, name: str, shape: tuple[int, ...], dims: str, lengths: dict[str, int]) -> None:
    """Check a shape against the lengths of the same letters in earlier datasets."""
    expected = dims.split()
    if len(expected) != len(shape):
        raise StoreError(f"{path}: /{name} has {len(shape)} dimensions, not {len(expected)}")
    for letter, length in zip(expected, shape, strict=True):
        base, _, more = letter.partition("+")
        wanted = int(base) if base.isdigit() else lengths.setdefault(base, length - int(more or 0))
        if wanted + int(more or 0) != length:
            raise StoreError(f"{path}: /{name} has {length} rows instead of {wanted + int(more or 0)}")


def create_file(
    path: Path,
    attributes: Mapping[str, str | int],
    layout: Mapping[str, tuple[np.dtype, tuple[int, ...]]],
    virtual: Mapping[str, Sequence[VirtualSource]] | None = None,
) -> dict[str, Extent]:
    """Write an HDF5 file without the datasets' bytes.

    The file has format version 1.8, whose metadata have checksums, or 1.10 if a dataset is virtual. It holds no times.

    Args:
        path: the file; replaced if it exists.
        attributes: root attributes.
        layout: type and shape of each dataset.
        virtual: the sources of each dataset that is virtual.

    Returns:
        The position of each dataset, where its bytes must be written.
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


def _mapping(name: str, shape: tuple[int, ...], sources: Sequence[VirtualSource]) -> h5p.PropDCID:
    how = h5p.create(h5p.DATASET_CREATE)
    how.set_obj_track_times(False)
    how.set_layout(h5d.VIRTUAL)
    for source in sources:
        count = (source.last - source.first,)
        here = h5s.create_simple(shape)
        here.select_hyperslab((source.first,), count)
        how.set_virtual(here, source.file.encode(), f"/{name}".encode(), h5s.create_simple(count))
    return how


def _hdf5_type(dtype: np.dtype) -> h5t.TypeID:
    if dtype.kind == "S":
        dtype = h5py.string_dtype("utf-8", max(dtype.itemsize, 1))
    return h5t.py_create(dtype, logical=True)


class ByteWriter:
    """Writes bytes by position to an existing file; the end of the ``with`` block flushes them to the disk."""

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
        """Write the bytes of ``array`` at the position ``start``."""
        rest = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        while len(rest):
            done = os.pwrite(self._descriptor, rest, start)
            start, rest = start + done, rest[done:]
