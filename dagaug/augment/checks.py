"""Checks that a model, a classifier and a data set fit each other."""

from __future__ import annotations

from dagaug.data.dataset import Dataset
from dagaug.model.trained_model import TrainedModel
from dagaug.runtime.errors import CheckpointError

__all__ = ["check_classes"]


def check_classes(model: TrainedModel, dataset: Dataset) -> None:
    """See that a checkpoint is for these classes, and that it learned from none of the test images.

    Raises:
        CheckpointError: it is not, it did, or it is no checkpoint of pose morphing.
    """
    if model.card.mode != "reference":
        raise CheckpointError(f"{model.path}: was trained to translate between two folders; use dagaug translate")
    ours, theirs = dataset.classes, model.card.classes
    if ours != theirs:
        name = next((name for name in theirs if name not in ours), None) or next(
            (name for name in ours if name not in theirs), "their order"
        )
        raise CheckpointError(
            f"{model.path}: was trained on the {len(theirs)} classes of {model.card.data}, "
            f"{dataset.root} has {len(ours)} (first difference: {name}); train one on it: dagaug train {dataset.root}"
        )
    drawn = model.card.split_seed
    if drawn is not None and dataset.split_seed != drawn:
        raise CheckpointError(
            f"{model.path}: was trained on the split that seed {drawn} draws, so it has seen test images of this one; "
            f"read the data with that seed, or train on this split: dagaug train {dataset.root}"
        )
