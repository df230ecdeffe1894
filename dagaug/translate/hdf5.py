"""Translation of a folder of images into one HDF5 file, with labels and provenance: F(s) = G(DAE(s)) of the paper.

The label of an image is its class folder (``CLASS/…``, or ``train/CLASS/…`` and ``test/CLASS/…``, which also give the
split). Images in no class folder get the name of the source folder as label. So a labelled source domain becomes a
labelled data set in the style of the target domain. The file is made of shards like that of ``dagaug augment``: a run
that was stopped continues with the missing shards and ends with the same bytes.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from dagaug.compute.devices import pick_device
from dagaug.data.folder_layout import class_of
from dagaug.data.image_files import Skipped, encode
from dagaug.data.patch_loading import say_transparent
from dagaug.hdf5.reader import Store
from dagaug.hdf5.schema import Header, Images
from dagaug.hdf5.shard_folder import ShardFolder, first_difference, open_shard_folder, remove_leftovers
from dagaug.hdf5.shards import ShardContent
from dagaug.model.trained_model import TrainedModel
from dagaug.runtime.errors import ImageError
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.progress import Task
from dagaug.runtime.signals import Interrupted, Stop, stop_on_signals
from dagaug.runtime.versions import library_versions
from dagaug.translate.batched_translation import BatchTranslator, FolderReader, check_positive
from dagaug.translate.folder import Translated
from dagaug.translate.source_folder import SourceFolder, SourceImage, count_images, images_below

__all__ = ["translate_to_file"]

_JPEG_QUALITY = 95
_SPLITS = ("train", "test")

_Encoded = tuple[bytes, tuple[int, int]]
"""Bytes, height and width of an image."""


def translate_to_file(
    model: TrainedModel,
    source: Path,
    out: Path,
    *,
    encoding: str = "png",
    batch_size: int = 64,
    keep_size: bool = True,
    overwrite: bool = False,
    images_per_shard: int = 512,
    execution: Execution = Execution(),
) -> Translated:
    """Translate every image below a folder into one HDF5 file, or continue a run that was stopped.

    The file has no transparency: images are laid over white.

    Args:
        model: a trained model of ``paper`` mode.
        source: the folder of images.
        out: the HDF5 file to write.
        encoding: ``png``, ``jpeg`` or ``raw``.
        batch_size: images computed at a time; halved when memory runs out.
        keep_size: as in :func:`dagaug.translate.folder.translate`.
        overwrite: replace a finished file, or an unfinished run of another model or with other options.
        images_per_shard: images of a shard.
        execution: where to compute, and how to read images.

    Raises:
        CheckpointError: the model morphs between poses.
        DataError: the folder does not exist or holds no readable image.
        ImageError: an image cannot be used, with ``execution.strict``.
        OutputExistsError, LockedError, StoreError: ``out`` cannot be written.
        UsageError: an option is out of range.
        Interrupted: stopped by a signal; finished shards are kept.
    """
    started, progress = time.monotonic(), execution.progress
    check_positive(batch_size=batch_size)
    count_images(source)
    translator = BatchTranslator(model, pick_device(execution.device), batch_size)
    job = _FileTranslation(translator, source, encoding, keep_size=keep_size, execution=execution)
    # The batch size may change the last bit of a result.
    files = hashlib.sha256(b"\0".join(map(os.fsencode, job.names))).hexdigest()
    identity = {
        "model": model.sha256,
        **job.options,
        "files": files,
        "batch_size": batch_size,
        "versions": library_versions("numpy", "opencv-python", "torch"),
    }
    parts = [slice(first, first + images_per_shard) for first in range(0, len(job.names), images_per_shard)]
    completed = remove_leftovers(out)
    if completed is not None and first_difference(completed, identity) is None:  # killed after writing the file
        with Store(out) as store:
            skipped = tuple(Skipped(Path(path), reason) for path, reason in store.header.skipped)
            return Translated(out, 0, len(store), skipped, time.monotonic() - started)
    found = 0
    with open_shard_folder(out, identity, overwrite=overwrite) as folder:
        with stop_on_signals() as stop, progress.task("Translating", len(job.names), "images") as task:
            for index, part in enumerate(parts):
                # A shard with skipped images is made again, so that the reasons become known.
                if index in folder.finished and folder.image_count(index) == len(job.names[part]):
                    found += folder.image_count(index)
                    task.advance(folder.image_count(index))
                    continue
                folder.write(index, job.shard(part, stop, folder, task))
                _raise_if_stopped(stop, folder)
        done = sum(folder.image_count(index) for index in range(len(parts))) - found
        job.reader.check_any_read(done + found)
        say_transparent(job.reader.transparent, done, progress)
        folder.merge(job.header(model), len(parts), progress=progress)
    return Translated(out, done, found, tuple(job.reader.skipped), time.monotonic() - started)


def _raise_if_stopped(stop: Stop, folder: ShardFolder) -> None:
    if stop.requested:
        kept = sum(folder.image_count(index) for index in folder.finished)
        raise Interrupted(f"stopped; {kept} images are kept in {folder.parts}; run the same command again to continue")


class _FileTranslation:
    """Reads, translates and encodes the images of a folder, shard by shard.

    Attributes:
        names: image files, relative to the source folder.
        options: options to store in the file.
    """

    def __init__(
        self,
        translator: BatchTranslator,
        source: Path,
        encoding: str,
        *,
        keep_size: bool,
        execution: Execution,
    ) -> None:
        self._translator, self._encoding = translator, encoding
        self._threads, self._keep_size = execution.threads, keep_size
        self.names = [(below / name).as_posix() for below, names, _ in images_below(source) for name in names]
        self.reader = FolderReader(
            SourceFolder(source, translator.framing), len(self.names), batch_size=translator.batch_size,
            ahead=translator.batch_size + 2 * execution.threads, execution=execution,
        )  # fmt: skip
        default_class = Path(os.path.realpath(source)).name or "images"
        found = [class_of(name, default_class) for name in self.names]
        self.classes = sorted({label for label, _ in found})
        number = {name: label for label, name in enumerate(self.classes)}
        self.labels = np.array([number[label] for label, _ in found], np.int32)
        self.splits = np.array([_SPLITS.index(split) for _, split in found], np.uint8)
        self.options = {"source": os.path.realpath(source), "keep_size": keep_size, "encoding": encoding}

    def shard(self, part: slice, stop: Stop, folder: ShardFolder, task: Task) -> ShardContent:
        """Translate the files of one shard.

        Raises:
            Interrupted: ``stop.requested`` became True before the last batch.
        """
        rows = range(len(self.names))[part]
        images: list[tuple[int, bytes, tuple[int, int]]] = []
        with ThreadPoolExecutor(self._threads) as pool:
            try:
                writes: list[tuple[int, Future[_Encoded | Skipped]]] = []
                for batch in self.reader.batches(rows, lambda row: Path(self.names[row]), pool, task):
                    _raise_if_stopped(stop, folder)
                    patches = self._translator(np.stack([image.patch for _, image in batch]))
                    pairs = zip(batch, patches, strict=True)
                    writes += [(row, pool.submit(self._encode, image, patch)) for (row, image), patch in pairs]
                for row, write in writes:
                    encoded = write.result()
                    if isinstance(encoded, Skipped):
                        self.reader.skip(encoded, task)
                    else:
                        images.append((row, *encoded))
                        task.advance()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
        return self._content(images)

    def _encode(self, image: SourceImage, patch: UInt8[np.ndarray, "S S 3"]) -> _Encoded | Skipped:
        try:
            whole = self.reader.folder.restore_size(image, patch) if self._keep_size else patch
        except ImageError as error:
            return Skipped(error.path, error.reason)
        data = whole.tobytes() if self._encoding == "raw" else encode(whole, self._encoding, _JPEG_QUALITY)
        return data, (whole.shape[0], whole.shape[1])

    def _content(self, images: Sequence[tuple[int, bytes, tuple[int, int]]]) -> ShardContent:
        rows = np.array([row for row, _, _ in images], np.int64)
        size = np.array([size for _, _, size in images], np.int32).reshape(-1, 2)
        as_real = Images.real(size[:, 0], size[:, 1], self.labels[rows], self.splits[rows], rows)
        made = replace(as_real, synthetic=np.ones(len(rows), bool))
        return ShardContent([data for _, data, _ in images], made)

    def header(self, model: TrainedModel) -> Header:
        """Everything in the file that is not about a single image."""
        framing = model.card.framing.model_dump(mode="json")
        return Header(
            classes=tuple(self.classes),
            files=tuple(self.names),
            files_label=self.labels,
            files_split=self.splits,
            encoding="jpeg" if self._encoding == "jpeg" else "png" if self._encoding == "png" else "raw",
            quality=_JPEG_QUALITY if self._encoding == "jpeg" else 0,
            variants=(),
            verdicts=(),
            options={
                **self.options,
                "framing": framing,
                "checkpoint": str(model.path.absolute()),
                "checkpoint_given": str(model.path),
            },
            checkpoint_sha256=model.sha256,
            seed=0,
            created_by=f"dagaug {version('dagaug')}",
            skipped=tuple((str(skip.path), skip.reason) for skip in self.reader.skipped),
        )
