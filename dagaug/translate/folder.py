"""Translation of a folder of images into a folder of PNG files with the same names: F(s) = G(DAE(s)) of the paper.

Threads read and write files while the network computes. Only a few batches are in memory, however many images there
are. Each file appears when it is complete, so a run that was stopped continues with the missing files.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections import Counter
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
from dagaug.runtime.errors import ImageError, OutputExistsError, UsageError
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.files import explain_write_errors, locked, write_atomically
from dagaug.runtime.progress import Task
from dagaug.runtime.signals import Interrupted, Stop, stop_on_signals
from dagaug.translate.batched_translation import BatchTranslator, FolderReader, check_positive
from dagaug.translate.source_folder import SourceFolder, SourceImage, count_images, images_below

__all__ = ["MANIFEST", "Translated", "translate"]

MANIFEST = ".dagaug-translate.json"
"""File in the output folder: model, source, options, whether the run is finished, skipped files."""

_LOCK = ".dagaug-translate.lock"
_HASH_DIGITS = 16  # of a hash in a message
_KEPT = "translated images are kept"


@dataclass(frozen=True)
class Translated:
    """Summary of a translation.

    Attributes:
        out: the folder or file.
        images: images translated by this call.
        found: images that an earlier call had translated.
        skipped: files that could not be used, with reasons.
        seconds: duration of this call.
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
    batch_size: int = 64,
    keep_size: bool = True,
    overwrite: bool = False,
    execution: Execution = Execution(),
) -> Translated:
    """Translate every image below a folder, or continue a run that was stopped.

    ``a/b.jpg`` becomes ``a/b.png``. If a folder holds several files named ``b``, it becomes ``a/b.jpg.png``. Hidden
    files are left out and linked folders are not entered. An image with transparency keeps it; the network sees it over
    white. Files that an earlier call wrote with the same model, source and size are kept. Another batch size may change
    the last bit of a result.

    Args:
        model: a trained model of ``paper`` mode.
        source: the folder of images.
        out: folder for the PNG files; it must lie outside ``source``.
        batch_size: images computed at a time; halved when memory runs out.
        keep_size: restore the size of each image: a letterboxed patch fills the image, a cropped one is pasted into
            it. False writes patches of the model's size.
        overwrite: start again if ``out`` is finished, was made by another model, or holds other files.
        execution: where to compute, and how to read images.

    Raises:
        CheckpointError: the model morphs between poses.
        DataError: the folder does not exist or holds no readable image.
        ImageError: an image cannot be used, with ``execution.strict``.
        OutputExistsError, LockedError, StoreError: ``out`` cannot be written.
        UsageError: an option is out of range.
        Interrupted: stopped by a signal; finished files are kept.
    """
    started = time.monotonic()
    check_positive(batch_size=batch_size)
    job = _FolderTranslation(
        BatchTranslator(model, pick_device(execution.device), batch_size), source, out, keep_size=keep_size,
        execution=execution,
    )  # fmt: skip
    identity = {"model": model.sha256, "source": os.path.realpath(source), "keep_size": keep_size}
    with explain_write_errors(out, _KEPT):
        out.mkdir(parents=True, exist_ok=True)
        with locked(out / _LOCK, out):
            _prepare_folder(out, source, identity, overwrite)
            with stop_on_signals() as stop:
                job.run(stop)
            if stop.requested:
                raise Interrupted(
                    f"stopped; {job.done + job.found} images are kept in {out}; run the same command again to continue"
                )
            job.reader.check_any_read(job.done + job.found)
            _write_manifest(out, identity, finished=True, skipped=job.reader.skipped)
    return Translated(out, job.done, job.found, tuple(job.reader.skipped), time.monotonic() - started)


# names of the results


def _files(source: Path) -> Iterator[tuple[Path, Path]]:
    """Image files and their result files, both relative, sorted; one folder at a time is in memory."""
    for below, names, folders in images_below(source):
        for name, result in _results(names, folders):
            yield below / name, below / result


def _results(names: Sequence[str], folders: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Result name of each image of a folder: ``stem.png``, or ``name.png`` if several images have this stem."""
    counts = Counter(Path(name).stem.casefold() for name in names)
    taken = {folder.casefold() for folder in folders}
    for name in names:
        stem = Path(name).stem
        unique = counts[stem.casefold()] == 1 and f"{stem}.png".casefold() not in taken
        base, number = stem if unique else name, 1
        result = f"{base}.png"
        while result.casefold() in taken:
            number += 1
            result = f"{base}--{number}.png"
        taken.add(result.casefold())
        yield name, result


def _count(source: Path, out: Path) -> int:
    inner, outer = Path(os.path.realpath(source)), Path(os.path.realpath(out))
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise UsageError(
            f"must lie outside {source} and not contain it; choose a folder beside it", option="out", value=out
        )
    return count_images(source)


# manifest


def _prepare_folder(out: Path, source: Path, identity: dict[str, Any], overwrite: bool) -> None:
    """Check that ``out`` can be written or continued; with ``overwrite`` remove the results of another run."""
    before = _manifest(out / MANIFEST)
    if before is None:
        if not any(path.name != _LOCK for path in out.iterdir()):
            _write_manifest(out, identity)
            return
        problem = "contains other files"
    else:
        differs = next((name for name in identity if before.get(name) != identity[name]), None)
        if differs is None and not (overwrite and before.get("finished")):
            return
        problem = _describe_difference(differs, before, identity)
    if not overwrite:
        raise OutputExistsError(f"{out}: {problem}", remedies={"out": None, "overwrite": True})
    for _, result in _files(source):
        (out / result).unlink(missing_ok=True)
    # Last, so that after a kill no file of the old run is taken for one of the new run.
    _write_manifest(out, identity)


def _describe_difference(name: str | None, before: dict[str, Any], now: dict[str, Any]) -> str:
    if name == "model":
        hashes = [str(values.get("model"))[:_HASH_DIGITS] for values in (before, now)]
        return f"was made by the model with SHA-256 {hashes[0]}…, this one has {hashes[1]}…"
    if name == "source":
        return f"was made from {before.get('source')}, not from {now['source']}"
    size = "the images' own size" if before.get("keep_size") else "the model's patch size"
    return f"was made with images in {size}, unlike this run"


def _manifest(path: Path) -> dict[str, Any] | None:
    """Content of a manifest; {} if it is damaged, None if there is none."""
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


# the work


class _FolderTranslation:
    """Translates the missing files of an output folder.

    Attributes:
        done: images translated so far.
        found: images that were there.
    """

    def __init__(
        self,
        translator: BatchTranslator,
        source: Path,
        out: Path,
        *,
        keep_size: bool,
        execution: Execution,
    ) -> None:
        self._translator, self._source, self._out = translator, source, out
        self._keep_size, self._execution = keep_size, execution
        self.reader = FolderReader(
            SourceFolder(source, translator.framing), _count(source, out), batch_size=translator.batch_size,
            ahead=translator.batch_size + 2 * execution.threads, execution=execution,
        )  # fmt: skip
        self.done = self.found = 0

    def run(self, stop: Stop) -> None:
        """Translate the missing images; stop between two batches if ``stop.requested`` becomes True."""
        writes: list[Future[Skipped | None]] = []
        threads, progress = self._execution.threads, self._execution.progress
        with ThreadPoolExecutor(threads) as pool, progress.task("Translating", self.reader.total, "images") as task:
            batches = self.reader.batches(self._missing(task), lambda names: names[0], pool, task)
            try:
                for batch in batches:
                    if stop.requested:
                        break
                    patches = self._translator(np.stack([image.patch for _, image in batch]))
                    # The previous batch was written while this one was computed.
                    self._finish(writes, task)
                    writes = [
                        pool.submit(self._write, result, image, patch)
                        for ((_, result), image), patch in zip(batch, patches, strict=True)
                    ]
                self._finish(writes, task)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _missing(self, task: Task) -> Iterator[tuple[Path, Path]]:
        for name, result in _files(self._source):
            try:
                # A power cut may leave a name without content.
                exists = (self._out / result).stat().st_size > 0
            except FileNotFoundError:
                exists = False
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:
                    raise
                self.reader.skip(_name_too_long(self._source / name), task)
                continue
            if exists:
                self.found += 1
                task.advance()
            else:
                yield name, result

    def _finish(self, writes: Sequence[Future[Skipped | None]], task: Task) -> None:
        """Wait for the files of a batch."""
        for write in writes:
            skipped = write.result()
            if skipped is not None:
                self.reader.skip(skipped, task)
            else:
                self.done += 1
                task.advance()

    def _write(self, result: Path, image: SourceImage, patch: UInt8[np.ndarray, "S S 3"]) -> Skipped | None:
        path = self._out / result
        try:
            whole = self._finished(image, patch)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, encode(whole, "png"), durable=False)
        except ImageError as error:
            return Skipped(error.path, error.reason)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            return _name_too_long(self._source / image.name)
        return None

    def _finished(
        self, image: SourceImage, patch: UInt8[np.ndarray, "S S 3"]
    ) -> UInt8[np.ndarray, "H W 3"] | UInt8[np.ndarray, "H W 4"]:
        """The image to write: RGBA if the source has opacity."""
        if image.opacity is not None:
            return self.reader.folder.with_opacity(image, patch, keep_size=self._keep_size)
        return self.reader.folder.restore_size(image, patch) if self._keep_size else patch


def _name_too_long(path: Path) -> Skipped:
    return Skipped(path, "its name with .png is too long for this file system")
