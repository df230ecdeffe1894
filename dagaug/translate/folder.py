"""A folder of images, translated: s' = G(DAE(s)) of the paper for every image, under the same names.

Decoding and writing go on in threads while the network computes; only a few batches are in memory at a time, however
many images there are. Each file appears when it is whole, so a run that was stopped goes on with what is missing.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from dagaug.compute.devices import pick_device
from dagaug.data.image_files import Skipped, encode
from dagaug.model.trained_model import TrainedModel
from dagaug.runtime.errors import DataError, ImageError, OutputExistsError, UsageError
from dagaug.runtime.files import explain_write_errors, locked, write_atomically
from dagaug.runtime.progress import SILENT, Progress, Task
from dagaug.runtime.signals import Interrupted, Stop, stop_on_signals
from dagaug.translate.batches import Cut, Drawer, Originals, count_images, images_below

__all__ = ["MANIFEST", "Translated", "translate"]

MANIFEST = ".dagaug-translate.json"
"""In the output folder: what made it, whether it is finished, and what was skipped."""

_LOCK = ".dagaug-translate.lock"


_NAMED_SKIPS = 10


_HASH_SHOWN = 16  # hexadecimal digits in a message


@dataclass(frozen=True)
class Translated:
    """A folder that was translated.

    Attributes:
        out: the folder.
        images: how many were translated by this call.
        found: how many were there already, from an earlier call.
        skipped: files that could not be read, with their folder before them, and why.
        seconds: time this call took.
    """

    out: Path
    images: int
    found: int
    skipped: tuple[Skipped, ...]
    seconds: float


def translate(
    model: TrainedModel,
    source: Path,
    out: Path,
    *,
    device: str = "auto",
    workers: int = 2,
    batch_size: int = 64,
    keep_size: bool = True,
    overwrite: bool = False,
    strict: bool = False,
    progress: Progress = SILENT,
) -> Translated:
    """Translate every image below a folder, or go on with a run that was stopped.

    ``a/b.jpg`` becomes ``a/b.png``; where a folder holds several ``b`` of different types, ``a/b.jpg.png`` and so on.
    Hidden files are left out, linked folders not entered. What an earlier call of the same model, source and size
    wrote is kept and not computed again; results of one image may differ in the last bit of the computation if the
    size of its batch does.

    Args:
        model: a trained model of ``paper`` mode.
        source: the folder of images.
        out: folder to write PNG files to; it must lie outside ``source``.
        device: auto, cpu or cuda.
        workers: threads that decode, encode and write.
        batch_size: images computed at a time; halved when memory runs out.
        keep_size: put the result back into the original's size and shape: what was letterboxed fills the image, what
            was cropped goes back to the middle of the original. Otherwise squares of the model's size are written.
        overwrite: begin anew where ``out`` was finished, or made by another model, or holds other files.
        strict: an unreadable image is an error.
        progress: is told of images and of what is skipped.

    Raises:
        CheckpointError: the model is one of pose morphing.
        DataError: the folder is missing, or holds no readable image.
        ImageError: an image cannot be read, with ``strict``.
        OutputExistsError, LockedError, StoreError: ``out`` cannot be written.
        UsageError: an option is out of its range.
        Interrupted: stopped by a signal; whole files are kept.
    """
    started = time.monotonic()
    if workers < 1 or batch_size < 1:
        name, value = ("--workers", workers) if workers < 1 else ("--batch-size", batch_size)
        raise UsageError(f"{name} {value}: give at least 1")
    job = _Job(
        Drawer(model, pick_device(device), batch_size), source, out, workers=workers, keep_size=keep_size,
        strict=strict, progress=progress,
    )  # fmt: skip
    identity = {"model": model.sha256, "source": os.path.realpath(source), "keep_size": keep_size}
    with explain_write_errors(out, job.kept):
        out.mkdir(parents=True, exist_ok=True)
        with locked(out / _LOCK, out):
            _claim(out, source, identity, overwrite)
            with stop_on_signals() as stop:
                job.run(stop)
            if stop.requested:
                raise Interrupted(f"stopped; {job.done + job.found} images are kept in {out}; the same command goes on")
            if job.skipped and not job.done + job.found:
                first = job.skipped[0]
                raise DataError(f"none of {job.total} images can be read; the first: {first.path}: {first.reason}")
            _write_manifest(out, identity, finished=True, skipped=job.skipped)
    return Translated(out, job.done, job.found, tuple(job.skipped), time.monotonic() - started)


# Which images, and what of them is there


def _files(source: Path) -> Iterator[tuple[Path, Path]]:
    """Image files and the files they become, both relative; in a stable order, one folder in memory at a time."""
    for below, names, folders in images_below(source):
        for name, result in _results(names, folders):
            yield below / name, below / result


def _results(names: Sequence[str], folders: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What each image of a folder becomes: ``stem.png``, but ``name.png`` for those that have the same stem."""
    wanted = Counter(Path(name).stem.casefold() for name in names)
    taken = {folder.casefold() for folder in folders}
    for name in names:
        stem = Path(name).stem
        alone = wanted[stem.casefold()] == 1 and f"{stem}.png".casefold() not in taken
        base, number = stem if alone else name, 1
        result = f"{base}.png"
        while result.casefold() in taken:
            number += 1
            result = f"{base}--{number}.png"
        taken.add(result.casefold())
        yield name, result


def _count(source: Path, out: Path) -> int:
    inner, outer = Path(os.path.realpath(source)), Path(os.path.realpath(out))
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise UsageError(f"--out {out}: must not lie in {source}, nor hold it; choose a folder beside it")
    return count_images(source)


def _claim(out: Path, source: Path, identity: dict[str, Any], overwrite: bool) -> None:
    """See that what lies in ``out`` is ours to go on with, or begin anew."""
    before = _manifest(out / MANIFEST)
    if before is None:
        if not any(path.name != _LOCK for path in out.iterdir()):
            _write_manifest(out, identity)
            return
        problem = f"{out}: holds other files; choose another --out, or --overwrite writes among them"
    else:
        difference = next((name for name in identity if before.get(name) != identity[name]), None)
        if difference is None and not (overwrite and before.get("finished")):
            return
        problem = f"{out}: {_told(difference, before, identity)}; choose another --out, or --overwrite begins anew"
    if not overwrite:
        raise OutputExistsError(problem)
    for _, result in _files(source):
        (out / result).unlink(missing_ok=True)
    # Last, so that what a kill leaves of the old run is never taken for the new one's.
    _write_manifest(out, identity)


def _told(difference: str | None, before: dict[str, Any], now: dict[str, Any]) -> str:
    if difference == "model":
        hashes = [str(values.get("model"))[:_HASH_SHOWN] for values in (before, now)]
        return f"was made by the model with SHA-256 {hashes[0]}…, this one has {hashes[1]}…"
    if difference == "source":
        return f"was made from {before.get('source')}, not from {now['source']}"
    sizes = ["--keep-size" if values.get("keep_size") else "--no-keep-size" for values in (before, now)]
    return f"was made with {sizes[0]}, not with {sizes[1]}"


def _manifest(path: Path) -> dict[str, Any] | None:
    """What made the folder; empty if that cannot be told, None if nothing of ours did."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) and content.get("version") == 1 else {}


def _write_manifest(
    out: Path, identity: dict[str, Any], *, finished: bool = False, skipped: Sequence[Skipped] = ()
) -> None:
    listed = [[str(skip.path), skip.reason] for skip in skipped]
    content = {"version": 1, **identity, "finished": finished, "skipped": listed}
    write_atomically(out / MANIFEST, json.dumps(content, indent=1).encode())


# The work


class _Job:
    """Reads, draws and writes, and counts."""

    def __init__(
        self,
        drawer: Drawer,
        source: Path,
        out: Path,
        *,
        workers: int,
        keep_size: bool,
        strict: bool,
        progress: Progress,
    ) -> None:
        self.drawer, self.originals = drawer, Originals(source, drawer.framing)
        self.source, self.out = source, out
        self.workers, self.keep_size, self.strict, self.progress = workers, keep_size, strict, progress
        self.total = _count(source, out)
        self.done = self.found = 0
        self.skipped: list[Skipped] = []
        self.kept = "translated images are kept"

    def run(self, stop: Stop) -> None:
        """Translate what is missing, until done or asked to stop between two batches."""
        reads: deque[Future[tuple[Path, Cut] | Skipped]] = deque()
        writes: deque[Future[Skipped | None]] = deque()
        with ThreadPoolExecutor(self.workers) as pool, self.progress.task("Translating", self.total, "images") as task:
            missing = self._missing(task)
            try:
                while batch := self._next_batch(reads, missing, pool, task, stop):
                    drawn = self.drawer(np.stack([item.patch for _, item in batch]))
                    # The batch before was written meanwhile; two are never waited for.
                    self._settle(writes, task)
                    pairs = zip(batch, drawn, strict=True)
                    writes.extend(pool.submit(self._write, *read, image) for read, image in pairs)
                self._settle(writes, task)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _missing(self, task: Task) -> Iterator[tuple[Path, Path]]:
        for name, result in _files(self.source):
            try:
                # A power cut may leave a name without content.
                there = (self.out / result).stat().st_size > 0
            except FileNotFoundError:
                there = False
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:
                    raise
                self._skip(_too_long(self.source / name), task)
                continue
            if there:
                self.found += 1
                task.advance()
            else:
                yield name, result

    def _next_batch(
        self,
        reads: deque[Future[tuple[Path, Cut] | Skipped]],
        missing: Iterator[tuple[Path, Path]],
        pool: ThreadPoolExecutor,
        task: Task,
        stop: Stop,
    ) -> list[tuple[Path, Cut]]:
        """The next images that can be read; empty at the end, and when asked to stop."""
        batch: list[tuple[Path, Cut]] = []
        ahead = self.drawer.batch_size + 2 * self.workers
        while len(batch) < self.drawer.batch_size:
            while len(reads) < ahead and (following := next(missing, None)) is not None:
                reads.append(pool.submit(self._read, *following))
            if stop.requested:
                return []
            if not reads:
                break
            read = reads.popleft().result()
            if isinstance(read, Skipped):
                self._skip(read, task)
            else:
                batch.append(read)
        return batch

    def _settle(self, writes: deque[Future[Skipped | None]], task: Task) -> None:
        while writes:
            skipped = writes.popleft().result()
            if skipped is not None:
                self._skip(skipped, task)
            else:
                self.done += 1
                task.advance()

    def _skip(self, skip: Skipped, task: Task) -> None:
        if self.strict:
            raise ImageError(skip.path, skip.reason)
        self.skipped.append(skip)
        if len(self.skipped) <= _NAMED_SKIPS:
            count = f"{len(self.skipped)} of {self.total} so far"
            self.progress.say(f"{skip.path}: {skip.reason}; skipped, {count}")
        task.advance()

    def _read(self, name: Path, result: Path) -> tuple[Path, Cut] | Skipped:
        read = self.originals.read(name)
        return read if isinstance(read, Skipped) else (result, read)

    def _write(self, result: Path, item: Cut, image: UInt8[np.ndarray, "S S 3"]) -> Skipped | None:
        path = self.out / result
        try:
            whole = self.originals.put_back(item, image) if self.keep_size else image
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, encode(whole, "png"), durable=False)
        except ImageError as error:
            return Skipped(error.path, error.reason)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            return _too_long(self.source / item.name)
        return None


def _too_long(path: Path) -> Skipped:
    return Skipped(path, "its name with .png is too long for this file system")
