"""Checks that no test image leaked: near-duplicates among training images, and what the selecting classifiers saw."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from dagaug.classifiers.cross_fit import CrossFitted
from dagaug.data.dataset_records import Dataset
from dagaug.data.object_patches import Framing, read_patches
from dagaug.hdf5.reader import Store
from dagaug.model.trained_model import find_judges
from dagaug.runtime.errors import CheckpointError
from dagaug.runtime.execution_settings import Execution
from dagaug.score.image_set_loading import ImageSet
from dagaug.score.near_duplicates import count_near_duplicates
from dagaug.score.results import LeakChecks, SelectorCheck

__all__ = ["check_leaks", "check_selector"]


def check_leaks(
    store: Path | str | None,
    dataset: Dataset,
    sets: Mapping[str, ImageSet],
    test: ImageSet,
    *,
    execution: Execution = Execution(),
) -> LeakChecks:
    """Look for near-duplicates of test images, and for test images that the selecting classifiers were trained on.

    Args:
        store: HDF5 file whose classifiers are checked, if there is one.
        dataset: the real images.
        sets: training images, real and synthetic, by name.
        test: the test images.
        execution: where the network of the features runs; its progress receives the number of images read.
    """
    alike, features = count_near_duplicates(
        {name: one.images for name, one in sets.items()}, test.images, execution=execution
    )
    selector = None if store is None else check_selector(Path(store), dataset, execution=execution)
    return LeakChecks(alike=alike, features=features, selector=selector)


def check_selector(path: Path, dataset: Dataset, *, execution: Execution = Execution()) -> SelectorCheck | None:
    """Look for test images among the training images of the classifiers that selected the synthetic images.

    The classifiers' file holds a hash of each image that they were trained on.

    Args:
        path: the HDF5 file that they selected for.
        dataset: the real images.
        execution: how to read the test images; its progress receives the reason if the check is not possible.

    Returns:
        None if the classifiers' file is neither beside the HDF5 file nor beside its checkpoint, or is another one.
    """
    with Store(path) as store:
        provenance = store.header.provenance
    file = find_judges(path, provenance.checkpoint_places(path))
    if file is None:
        return None
    try:
        framing = Framing.model_validate(provenance.framing)
        judges = CrossFitted.load(file)
    except (CheckpointError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        execution.progress.say(f"{file}: cannot check whether the selecting classifiers saw test images ({reason})")
        return None
    if judges.sha256() != provenance.judges:
        execution.progress.say(f"{file}: not the classifiers that selected; cannot check whether those saw test images")
        return None
    if judges.classes != dataset.classes:
        return None
    patches = read_patches(dataset, dataset.test, framing, execution=execution)
    learned = np.unique(np.concatenate([one.trained_on for one in judges.classifiers]))
    seen = np.zeros(len(patches.images), bool)
    for one in judges.classifiers:
        seen |= one.saw(patches.images)
    return SelectorCheck(file=str(file), learned=len(learned), test=len(seen), seen=int(seen.sum()))
