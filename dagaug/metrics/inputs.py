"""What the measures read: stored images, framing, and the judge that is trained for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from pydantic import ValidationError

from dagaug.classifiers.backbones import network_for
from dagaug.classifiers.classifier import Classifier
from dagaug.classifiers.cross_fit import cross_fit
from dagaug.classifiers.fit import FitOptions
from dagaug.data.dataset import Dataset
from dagaug.data.patches import Framing, Patches
from dagaug.data.regions import cut, region_of
from dagaug.hdf5.reader import Store
from dagaug.runtime.errors import DataError, StoreError
from dagaug.runtime.progress import Progress

__all__ = ["BATCH", "check_fits", "framing_of", "held_images", "stored_images", "train_judge"]

BATCH = 256


# Images


def framing_of(options: Mapping[str, object], size: int | None = None) -> Framing:
    """How real images must be cut to look like those of a file with these options: whole, or to their boxes.

    Raises:
        StoreError: the options hold no framing that this version knows.
    """
    try:
        framing = Framing.model_validate(options.get("framing", {}))
    except ValidationError as error:
        raise StoreError("/options: framing is not as this dagaug writes it; make the file anew") from error
    size = size or framing.size
    if options.get("frame") == "crop":
        return framing.model_copy(update={"size": size})
    return Framing(size=size, crop="none", fit="letterbox")


def check_fits(store: Store, dataset: Dataset) -> None:
    """See that a file was made from a data set.

    Raises:
        DataError: its classes are others, or it holds no synthetic images.
    """
    if store.classes != dataset.classes:
        raise DataError(
            f"{store.path}: its {len(store.classes)} classes are not the {len(dataset.classes)} of {dataset.root}; "
            "give the data that it was made from"
        )
    if not store.images.synthetic.any():
        raise DataError(f"{store.path}: no synthetic images in it; make some: dagaug augment {dataset.root}")


def stored_images(store: Store, rows: Int64[np.ndarray, " N"], size: int) -> Iterator[UInt8[np.ndarray, "B S S 3"]]:
    """Images of a file, letterboxed, some at a time."""
    for start in range(0, len(rows), BATCH):
        images = store.read(rows[start : start + BATCH].tolist())
        yield np.stack([cut(image, region_of(*image.shape[:2], box=None, fit="letterbox"), size) for image in images])


def held_images(images: UInt8[np.ndarray, "N S S 3"]) -> Iterator[UInt8[np.ndarray, "B S S 3"]]:
    for start in range(0, len(images), BATCH):
        yield images[start : start + BATCH]


# Networks


def train_judge(
    patches: Patches,
    classes: tuple[str, ...],
    name: str,
    *,
    steps: int | None = None,
    seed: int,
    device: torch.device | str,
    cache: Path | None,
    progress: Progress,
) -> Classifier:
    """Train one classifier on all of these images, or take it from the cache where it was made from the same ones."""
    size = patches.images.shape[1]
    options = FitOptions(name=network_for(name, size), size=size, steps=steps)
    fitted = cross_fit(
        patches.images, patches.labels, classes, options,
        folds=1, seed=seed, device=device, cache=cache, progress=progress,
    )  # fmt: skip
    return fitted.classifiers[0]
