"""Inputs of the measures: stored images, framing of real images, and the judge."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8
from pydantic import ValidationError

from dagaug.augment.stored_image_check import check_stored_images
from dagaug.classifiers.backbones import network_for
from dagaug.classifiers.classifier import Classifier
from dagaug.classifiers.cross_fit import cross_fit
from dagaug.classifiers.fit import FitOptions
from dagaug.data.dataset_records import Dataset, class_mismatch
from dagaug.data.object_patches import Framing, Patches
from dagaug.data.square_crops import letterboxed
from dagaug.hdf5.provenance import Provenance
from dagaug.hdf5.reader import Store
from dagaug.runtime.errors import DataError, StoreError
from dagaug.runtime.execution_settings import Execution

__all__ = ["BATCH", "check_fits", "framing_of", "stored_images", "train_judge"]

BATCH = 256
"""Images in the networks at a time."""


# Images


def framing_of(provenance: Provenance, size: int | None = None) -> Framing:
    """Framing of real images to compare with the images of a file: whole images, or patches if it stores patches.

    Args:
        provenance: how the HDF5 file was made.
        size: side of the images in pixels; None for the file's patch size.

    Raises:
        StoreError: the options have no valid framing.
        UsageError: the size is out of range or no multiple of 16.
    """
    try:
        framing = Framing.model_validate({} if provenance.framing is None else provenance.framing)
    except ValidationError as error:
        raise StoreError("/options: the framing is not valid in this version; make the file again") from error
    size = size or framing.size
    if provenance.frame == "crop":
        return framing.with_size(size)
    return Framing(crop="none", fit="letterbox").with_size(size)


def check_fits(store: Store, dataset: Dataset) -> None:
    """Check that an HDF5 file was made from a data set.

    Raises:
        DataError: the file has other classes, other images of the same names, or no synthetic images.
    """
    if mismatch := class_mismatch(store.path, store.classes, dataset):
        raise DataError(f"{mismatch}; give the data folder that it was made from")
    check_stored_images(store, dataset)
    if not store.images.synthetic.any():
        raise DataError(f"{store.path}: no synthetic images in it; make some: dagaug augment {dataset.root}")


def stored_images(store: Store, rows: Int64[np.ndarray, " N"], size: int) -> Iterator[UInt8[np.ndarray, "B S S 3"]]:
    """Images of an HDF5 file in batches, letterboxed to ``size`` pixels."""
    for start in range(0, len(rows), BATCH):
        images = store.read(rows[start : start + BATCH].tolist())
        yield np.stack([letterboxed(image, size) for image in images])


# Networks


def train_judge(
    patches: Patches,
    classes: tuple[str, ...],
    name: str,
    *,
    steps: int | None = None,
    seed: int,
    cache: Path | None,
    execution: Execution = Execution(),
) -> Classifier:
    """Train one classifier on all these images, or load it from the cache if the same training is there.

    Args:
        patches: real images with their labels.
        classes: names of the classes.
        name: timm name of the network; ``auto`` chooses by the image size.
        steps: training steps; None chooses by the number of images.
        seed: seed of the training.
        cache: file of the trained classifier; None keeps nothing.
        execution: where to train; its progress receives each training step.
    """
    size = patches.images.shape[1]
    options = FitOptions(name=network_for(name, size), size=size, steps=steps)
    fitted = cross_fit(
        patches.images, patches.labels, classes, options,
        folds=1, seed=seed, cache=cache, execution=execution,
    )  # fmt: skip
    return fitted.classifiers[0]
