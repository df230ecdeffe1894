"""A folder of images, translated into one HDF5 file: s' = G(DAE(s)) of every image, with its label and its origin.

The label is the class folder that an image lies in (``CLASS/…``, or ``train/CLASS/…`` and ``test/CLASS/…``, which
also give the split); images that lie in no folder have the label of the whole. So a labelled source domain becomes a
labelled set in the style of the target domain. The file is made of shards like that of ``dagaug augment``: a run that
was stopped goes on with those that are missing, and straight and resumed runs give the same bytes.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from dagaug.compute.devices import pick_device
from dagaug.data.image_files import Skipped, encode
from dagaug.data.layouts import class_of
from dagaug.hdf5.reader import Store
from dagaug.hdf5.run import Run, difference, open_run, settle
from dagaug.hdf5.schema import Header, Images
from dagaug.hdf5.shards import ShardContent
from dagaug.model.trained_model import TrainedModel
from dagaug.runtime.errors import DataError, ImageError, UsageError
from dagaug.runtime.progress import SILENT, Progress, Task
from dagaug.runtime.signals import Interrupted, Stop, stop_on_signals
from dagaug.translate.batches import Cut, Drawer, Originals, count_images, images_below
from dagaug.translate.folder import Translated

__all__ = ["translate_to_file"]

_PER_SHARD = 512


_QUALITY = 95  # of JPEG


_SPLITS = ("train", "test")


_Encoded = tuple[bytes, tuple[int, int]]


_NAMED_SKIPS = 10


def translate_to_file(
    model: TrainedModel,
    source: Path,
    out: Path,
    *,
    encoding: str = "png",
    device: str = "auto",
    workers: int = 2,
    batch_size: int = 64,
    keep_size: bool = True,
    overwrite: bool = False,
    strict: bool = False,
    progress: Progress = SILENT,
) -> Translated:
    """Translate every image below a folder into one HDF5 file, or go on with a run that was stopped.

    Args:
        model: a trained model of ``paper`` mode.
        source: the folder of images.
        out: the HDF5 file to write.
        encoding: ``png``, ``jpeg`` or ``raw``.
        device: auto, cpu or cuda.
        workers: threads that decode and encode.
        batch_size: images computed at a time; halved when memory runs out.
        keep_size: as in :func:`dagaug.translate.translate`.
        overwrite: replace a finished file, or a run of another model or other options.
        strict: an unreadable image is an error.
        progress: is told of images and of what is skipped.

    Raises:
        CheckpointError: the model is one of pose morphing.
        DataError: the folder is missing, or holds no readable image.
        ImageError: an image cannot be read, with ``strict``.
        OutputExistsError, LockedError, StoreError: ``out`` cannot be written.
        UsageError: an option is out of its range.
        Interrupted: stopped by a signal; finished shards are kept.
    """
    started = time.monotonic()
    for name, value in (("--workers", workers), ("--batch-size", batch_size)):
        if value < 1:
            raise UsageError(f"{name} {value}: give at least 1")
    count_images(source)
    drawer = Drawer(model, pick_device(device), batch_size)
    job = _Job(drawer, source, encoding, workers=workers, keep_size=keep_size, strict=strict, progress=progress)
    # The size of batches may change the last bit of a result.
    files = hashlib.sha256(b"\0".join(map(os.fsencode, job.names))).hexdigest()
    identity = {"model": model.sha256, **job.options, "files": files, "batch_size": batch_size}
    parts = [slice(first, first + _PER_SHARD) for first in range(0, len(job.names), _PER_SHARD)]
    left = settle(out)
    if left is not None and difference(left, identity) is None:  # killed when the file was whole
        with Store(out) as store:
            skipped = tuple(Skipped(Path(path), reason) for path, reason in store.header.skipped)
            return Translated(out, 0, len(store), skipped, time.monotonic() - started)
    found = 0
    with open_run(out, identity, overwrite=overwrite) as run:
        with stop_on_signals() as stop, progress.task("Translating", len(job.names), "images") as task:
            for index, part in enumerate(parts):
                # A shard that lacks images is made again, so that the reasons are known of those that it lacks.
                if index in run.finished and run.count(index) == len(job.names[part]):
                    found += run.count(index)
                    task.advance(run.count(index))
                    continue
                run.write(index, job.shard(part, stop, run, task))
                _stop_if_asked(stop, run)
        done = sum(run.count(index) for index in range(len(parts))) - found
        if not done + found:
            first = job.skipped[0]
            raise DataError(f"none of {len(job.names)} images can be read; the first: {first.path}: {first.reason}")
        run.merge(job.header(model), len(parts), progress=progress)
    return Translated(out, done, found, tuple(job.skipped), time.monotonic() - started)


def _stop_if_asked(stop: Stop, run: Run) -> None:
    if stop.requested:
        kept = sum(run.count(index) for index in run.finished)
        raise Interrupted(f"stopped; {kept} images are kept in {run.parts}; the same command goes on")


class _Job:
    """Reads, draws and encodes, shard by shard."""

    def __init__(
        self,
        drawer: Drawer,
        source: Path,
        encoding: str,
        *,
        workers: int,
        keep_size: bool,
        strict: bool,
        progress: Progress,
    ) -> None:
        self.drawer, self.originals, self.source = drawer, Originals(source, drawer.framing), source
        self.encoding, self.workers, self.keep_size = encoding, workers, keep_size
        self.strict, self.progress = strict, progress
        self.names = [(below / name).as_posix() for below, names, _ in images_below(source) for name in names]
        whole = Path(os.path.realpath(source)).name or "images"
        found = [class_of(name, whole) for name in self.names]
        self.classes = sorted({label for label, _ in found})
        number = {name: label for label, name in enumerate(self.classes)}
        self.labels = np.array([number[label] for label, _ in found], np.int32)
        self.splits = np.array([_SPLITS.index(split) for _, split in found], np.uint8)
        self.options = {"source": os.path.realpath(source), "keep_size": keep_size, "encoding": encoding}
        self.skipped: list[Skipped] = []

    def shard(self, part: slice, stop: Stop, run: Run, task: Task) -> ShardContent:
        """Translate the files of one shard; decoding and encoding go on in threads meanwhile."""
        rows = range(len(self.names))[part]
        images: list[tuple[int, bytes, tuple[int, int]]] = []
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                reads = [pool.submit(self.originals.read, Path(self.names[row])) for row in rows]
                writes: list[tuple[int, Future[_Encoded | Skipped]]] = []
                for batch in self._batches(rows, reads, task):
                    _stop_if_asked(stop, run)
                    drawn = self.drawer(np.stack([item.patch for _, item in batch]))
                    pairs = zip(batch, drawn, strict=True)
                    writes += [(row, pool.submit(self._encode, item, image)) for (row, item), image in pairs]
                for row, write in writes:
                    encoded = write.result()
                    if isinstance(encoded, Skipped):
                        self._skip(encoded, task)
                    else:
                        images.append((row, *encoded))
                        task.advance()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
        return self._content(images)

    def _batches(
        self, rows: Sequence[int], reads: Sequence[Future[Cut | Skipped]], task: Task
    ) -> Iterator[list[tuple[int, Cut]]]:
        batch: list[tuple[int, Cut]] = []
        for row, read in zip(rows, reads, strict=True):
            item = read.result()
            if isinstance(item, Skipped):
                self._skip(item, task)
                continue
            batch.append((row, item))
            if len(batch) == self.drawer.batch_size:
                yield batch
                batch = []
        if batch:
            yield batch

    def _encode(self, item: Cut, image: UInt8[np.ndarray, "S S 3"]) -> _Encoded | Skipped:
        try:
            whole = self.originals.put_back(item, image) if self.keep_size else image
        except ImageError as error:
            return Skipped(error.path, error.reason)
        data = whole.tobytes() if self.encoding == "raw" else encode(whole, self.encoding, _QUALITY)
        return data, (whole.shape[0], whole.shape[1])

    def _content(self, images: Sequence[tuple[int, bytes, tuple[int, int]]]) -> ShardContent:
        rows = np.array([row for row, _, _ in images], np.int64)
        size = np.array([size for _, _, size in images], np.int32).reshape(-1, 2)
        as_real = Images.real(size[:, 0], size[:, 1], self.labels[rows], self.splits[rows], rows)
        made = replace(as_real, synthetic=np.ones(len(rows), bool))
        return ShardContent([data for _, data, _ in images], made)

    def _skip(self, skip: Skipped, task: Task) -> None:
        if self.strict:
            raise ImageError(skip.path, skip.reason)
        self.skipped.append(skip)
        if len(self.skipped) <= _NAMED_SKIPS:
            count = f"{len(self.skipped)} of {len(self.names)} so far"
            self.progress.say(f"{skip.path}: {skip.reason}; skipped, {count}")
        task.advance()

    def header(self, model: TrainedModel) -> Header:
        """Everything in the file that is not about one image."""
        framing = model.card.framing.model_dump(mode="json")
        return Header(
            classes=tuple(self.classes),
            files=tuple(self.names),
            files_label=self.labels,
            files_split=self.splits,
            encoding="jpeg" if self.encoding == "jpeg" else "png" if self.encoding == "png" else "raw",
            quality=_QUALITY if self.encoding == "jpeg" else 0,
            variants=(),
            verdicts=(),
            options={**self.options, "framing": framing, "checkpoint": str(model.path)},
            checkpoint_sha256=model.sha256,
            seed=0,
            created_by=f"dagaug {version('dagaug')}",
            skipped=tuple((str(skip.path), skip.reason) for skip in self.skipped),
        )
