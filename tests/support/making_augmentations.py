"""Small augmentations that the tests of augmenting share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from making_runs import SPECIES, TEST_PER_CLASS, TRAINING_IMAGES, Killed

from dagaug.augment.morph_plan import DEFAULT_VARIANTS
from dagaug.augment.options import AugmentOptions
from dagaug.augment.prepared_augmentation import ShardSizes
from dagaug.augment.run import Augmented, augment
from dagaug.augment.selection import VERDICTS
from dagaug.data.dataset_records import Dataset
from dagaug.hdf5.reader import Store
from dagaug.hdf5.shard_folder import ShardFolder
from dagaug.model.trained_model import TrainedModel
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.image_cache import ImageCache
from dagaug.runtime.progress import SILENT, Progress

REFS = 2
CANDIDATES = TRAINING_IMAGES * REFS * len(DEFAULT_VARIANTS)
TEST_IMAGES = SPECIES * TEST_PER_CLASS

SHARD_SIZES = ShardSizes(sources=5, real=9)
SHARDS = 3 + 4
"""Shards of that size: of 24 real images and of 16 sources."""


def run(
    model: TrainedModel,
    data: Dataset,
    options: AugmentOptions,
    out: Path,
    *,
    shard_sizes: ShardSizes = SHARD_SIZES,
    strict: bool = False,
    progress: Progress = SILENT,
    images: ImageCache | None = None,
    **more: Any,
) -> Augmented:
    """Augment in one thread on the CPU."""
    execution = Execution("cpu", 1, strict, progress, memory=images or ImageCache())
    return augment(model, data, options, out, shard_sizes=shard_sizes, execution=execution, **more)


def morphs_of(store: Store) -> np.ndarray:
    """Indices of the synthetic images."""
    return np.flatnonzero(store.images.synthetic)


def verdict_names(store: Store) -> list[str]:
    """The verdict of each candidate."""
    return [VERDICTS[code] for code in store.candidates.verdict]


def kill_at_shard(patch: pytest.MonkeyPatch, number: int) -> None:
    """End a run as SIGKILL would when it is about to write its shard of this number."""
    write = ShardFolder.write

    def until(self: ShardFolder, index: int, content: Any) -> None:
        if index == number:
            raise Killed
        write(self, index, content)

    patch.setattr(ShardFolder, "write", until)
