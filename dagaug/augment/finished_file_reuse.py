"""A finished file whose shards are reused by a run that adds images which were unreadable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import cached_property
from pathlib import Path

import numpy as np

from dagaug.augment.prepared_augmentation import JUDGE_ACCURACY
from dagaug.data.image_files import Skipped, decode
from dagaug.hdf5.object_masks import Objects
from dagaug.hdf5.reader import Store
from dagaug.hdf5.schema import Candidates, Header, Images
from dagaug.hdf5.shard_folder import first_difference
from dagaug.hdf5.shards import ShardContent
from dagaug.runtime.errors import ImageError, OutputExistsError

__all__ = ["PreviousFile"]

_NOT_COMPARED = (
    "checkpoint", "checkpoint_given", "checkpoint_hub", "judges", "masks", "masks_given", "data_given", "licences",
    JUDGE_ACCURACY,
)  # fmt: skip


class PreviousFile:
    """Content of a finished file, by the shards it was made of.

    Attributes:
        path: the file.
        skipped: files that could not be read, as named in the file.
        judges_sha256: hash of the classifiers that selected the morphs.
        batch_size: candidates that were computed at a time; None if the file does not record it.

    Raises:
        StoreError: not a dagaug file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._store = Store(path)
        header = self._store.header
        self.skipped = frozenset(
            name for name, reason in header.skipped if not Skipped(Path(name), reason).for_its_mask
        )
        self.judges_sha256 = header.provenance.judges
        self.batch_size = header.provenance.batch_size

    def readable(self) -> list[str]:
        """Skipped files that are readable now."""
        found = []
        for name in sorted(self.skipped):
            try:
                decode(name)
            except ImageError:
                continue
            found.append(name)
        return found

    def check(self, header: Header) -> None:
        """Check that a run with this header has the options and files of this file.

        Raises:
            OutputExistsError: an option differs; the message gives both values.
        """
        differs = first_difference(_identity(self._store.header), _identity(header))
        if differs is not None:
            raise OutputExistsError(
                f"{self.path} was made with {differs}; to add its skipped files, give the same options and files",
                remedies={"overwrite": True},
            )

    def shard(self, expected: Mapping[str, np.ndarray]) -> ShardContent | None:
        """The shard with these columns; None if the file does not contain it.

        Args:
            expected: see :meth:`Job.expected_columns <dagaug.augment.prepared_augmentation.Job.expected_columns>`.
        """
        if "images/source" in expected:
            return self._real(expected["images/source"])
        return self._synthetic(*(expected[f"candidates/{name}"] for name in ("source", "reference", "variant")))

    def _real(self, source: np.ndarray) -> ShardContent | None:
        found = [self._image_of.get(int(row), -1) for row in source]
        if -1 in found:
            return None
        rows = np.array(found, np.int64)
        return ShardContent(self._encoded(rows), self._images(rows), objects=self._objects(rows))

    def _synthetic(self, source: np.ndarray, reference: np.ndarray, variant: np.ndarray) -> ShardContent | None:
        if not len(source):
            return ShardContent([], self._images(np.zeros(0, np.int64)), objects=Objects.unknown(0))
        first = self._first_of.get(int(source[0]), -1)
        part = slice(first, first + len(source))
        stored = self._store.candidates
        if first < 0 or not all(
            np.array_equal(ours[part], theirs)
            for ours, theirs in ((stored.source, source), (stored.reference, reference), (stored.variant, variant))
        ):
            return None
        columns = {field.name: getattr(stored, field.name)[part] for field in fields(Candidates)}
        rows = columns["image"][columns["image"] >= 0]
        columns["image"] = np.where(columns["image"] >= 0, columns["image"] - (rows[0] if len(rows) else 0), -1)
        return ShardContent(self._encoded(rows), self._images(rows, first), Candidates(**columns), self._objects(rows))

    def _encoded(self, rows: np.ndarray) -> list[bytes]:
        return [data.tobytes() for data in self._store.image_reader.encoded(rows.tolist())]

    def _objects(self, rows: np.ndarray) -> Objects:
        """The objects of images; unknown if an older version wrote the file."""
        boxes, masks = self._store.boxes, self._store.mask_reader
        if boxes is None or masks is None:
            return Objects.unknown(len(rows))
        return Objects(boxes[rows], [masks.encoded(row) for row in rows.tolist()])

    def _images(self, rows: np.ndarray, first_candidate: int = 0) -> Images:
        columns = {field.name: getattr(self._store.images, field.name)[rows] for field in fields(Images)}
        candidate = columns["candidate"]
        columns["candidate"] = np.where(candidate >= 0, candidate - first_candidate, -1)
        return Images(**columns)

    @cached_property
    def _image_of(self) -> dict[int, int]:
        """Image index of each file's real image."""
        real = np.flatnonzero(~self._store.images.synthetic)
        return {int(self._store.images.source[row]): int(row) for row in real}

    @cached_property
    def _first_of(self) -> dict[int, int]:
        """Index of each source's first candidate."""
        sources, first = np.unique(self._store.candidates.source, return_index=True)
        return dict(zip(sources.tolist(), first.tolist(), strict=True))


def _identity(header: Header) -> dict[str, object]:
    """The part of a header that must not differ, as JSON values."""
    found = {name: value for name, value in asdict(header).items() if name not in ("skipped", "created_by", "options")}
    plain = {
        name: value.tolist() if isinstance(value, np.ndarray) else list(value) if isinstance(value, tuple) else value
        for name, value in found.items()
    }
    return plain | {"options": {name: value for name, value in header.options.items() if name not in _NOT_COMPARED}}
