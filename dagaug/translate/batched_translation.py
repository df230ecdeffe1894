"""Batched translation of a folder's images: reading ahead, the network, and the list of skipped files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import UInt8

from dagaug.compute.devices import split_to_fit
from dagaug.compute.tensors import to_pixels, to_tensor
from dagaug.data.image_files import Skipped
from dagaug.model.mode_translators import PaperTranslator
from dagaug.model.trained_model import TrainedModel
from dagaug.runtime.errors import CheckpointError, DataError, ImageError, UsageError
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.prefetch import map_ahead
from dagaug.runtime.progress import Task
from dagaug.translate.source_folder import SourceFolder, SourceImage

__all__ = ["BatchTranslator", "FolderReader", "check_positive"]

_NAMED_SKIPS = 10

_Item = TypeVar("_Item")


def check_positive(**options: int) -> None:
    """Check that options are at least 1.

    Raises:
        UsageError: one is not.
    """
    for name, value in options.items():
        if value < 1:
            raise UsageError("give at least 1", option=name, value=value)


class BatchTranslator:
    """F(s) = G(DAE(s)) for batches of patches.

    Args:
        model: a trained model of ``paper`` mode.
        device: where to compute.
        batch_size: patches computed at a time.

    Raises:
        CheckpointError: the model has another mode.
    """

    def __init__(self, model: TrainedModel, device: torch.device, batch_size: int) -> None:
        if not isinstance(model.translator, PaperTranslator):
            raise CheckpointError(f"{model.path}: was trained to morph between poses; use dagaug augment")
        self.framing = model.card.framing
        self.translator, self.device, self.batch_size = model.translator.to(device), device, batch_size

    def __call__(self, patches: UInt8[np.ndarray, "B S S 3"]) -> UInt8[np.ndarray, "B S S 3"]:
        """Translate a batch of RGB patches; if memory runs out, in parts."""
        parts = split_to_fit(lambda start, stop: self._translate(patches[start:stop]), 0, len(patches), self.device)
        return np.concatenate(parts)

    @torch.inference_mode()
    def _translate(self, patches: UInt8[np.ndarray, "P S S 3"]) -> UInt8[np.ndarray, "P S S 3"]:
        return to_pixels(self.translator(to_tensor(patches, self.device)))


class FolderReader:
    """Reads the images of a folder in threads and groups them into batches.

    Args:
        folder: the images.
        total: number of images, for messages.
        batch_size: images in a batch.
        ahead: images that may be read before they are needed.
        execution: says whether an image that cannot be used is an error; its progress receives messages about
            skipped files.

    Attributes:
        skipped: files that could not be used.
        transparent: number of images so far with pixels that are not opaque.
    """

    def __init__(
        self, folder: SourceFolder, total: int, *, batch_size: int, ahead: int, execution: Execution = Execution()
    ) -> None:
        self.folder, self.total = folder, total
        self.skipped: list[Skipped] = []
        self.transparent = 0
        self._batch_size, self._ahead, self._execution = batch_size, ahead, execution

    def batches(
        self, items: Iterable[_Item], name_of: Callable[[_Item], Path], pool: ThreadPoolExecutor, task: Task
    ) -> Iterator[list[tuple[_Item, SourceImage]]]:
        """Yield items with their images, in order, without the unreadable ones.

        Raises:
            ImageError: an image cannot be used, with ``execution.strict``.
        """

        def read(item: _Item) -> tuple[_Item, SourceImage | Skipped]:
            return item, self.folder.read(name_of(item))

        batch: list[tuple[_Item, SourceImage]] = []
        for item, image in map_ahead(read, items, pool, self._ahead):
            if isinstance(image, Skipped):
                self.skip(image, task)
                continue
            self.transparent += image.transparent
            batch.append((item, image))
            if len(batch) == self._batch_size:
                yield batch
                batch = []
        if batch:
            yield batch

    def skip(self, skip: Skipped, task: Task) -> None:
        """Count a file as done and skipped.

        Raises:
            ImageError: with ``execution.strict``.
        """
        if self._execution.strict:
            raise ImageError(skip.path, skip.reason)
        self.skipped.append(skip)
        if len(self.skipped) <= _NAMED_SKIPS:
            count = f"{len(self.skipped)} of {self.total} so far"
            self._execution.progress.say(f"{skip.path}: {skip.reason}; skipped, {count}")
        task.advance()

    def check_any_read(self, done: int) -> None:
        """Check that not all images were skipped; ``done`` is the number of results.

        Raises:
            DataError: there are no results.
        """
        if self.skipped and not done:
            first = self.skipped[0]
            raise DataError(f"none of {self.total} images can be read; the first: {first.path}: {first.reason}")
