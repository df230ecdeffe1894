"""Check that a checkpoint fits a data set."""

from __future__ import annotations

from dagaug.data.dataset_records import Dataset, class_mismatch
from dagaug.model.trained_model import TrainedModel
from dagaug.runtime.errors import CheckpointError

__all__ = ["check_classes"]


def check_classes(model: TrainedModel, dataset: Dataset) -> None:
    """Check that a pose-morphing checkpoint has the data set's classes and was not trained on its test images.

    Raises:
        CheckpointError: the mode, the classes or the split differ.
    """
    if model.card.mode != "reference":
        raise CheckpointError(f"{model.path}: was trained to translate between two folders; use dagaug translate")
    if mismatch := class_mismatch(model.path, model.card.classes, dataset):
        raise CheckpointError(f"{mismatch}; train a model on this data: dagaug train {dataset.root}")
    drawn = model.card.split_seed
    if drawn is not None and dataset.split_seed != drawn:
        raise CheckpointError(
            f"{model.path}: was trained on the split drawn with seed {drawn}, so it has seen test images of this "
            f"split; read the data with that seed, or train on this split: dagaug train {dataset.root}"
        )
