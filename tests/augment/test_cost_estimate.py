"""The estimate of counts, time and size."""

from __future__ import annotations

from pathlib import Path

from making_augmentations import (
    CANDIDATES,
)
from making_runs import TRAINING_IMAGES

from dagaug.augment.cost_estimate import estimate
from dagaug.augment.options import AugmentOptions
from dagaug.augment.run import Augmented
from dagaug.data.dataset_records import Dataset
from dagaug.model.trained_model import TrainedModel
from dagaug.runtime.execution_settings import Execution


def test_the_estimate_counts_what_would_be_made_and_writes_nothing(
    model: TrainedModel, birds: Dataset, judged: AugmentOptions, made: Augmented, tmp_path: Path
) -> None:
    guess = estimate(
        model, birds, judged.model_copy(update={"encoding": "png"}), tmp_path / "a.h5", execution=Execution("cpu")
    )
    assert (guess.sources, guess.candidates) == (TRAINING_IMAGES, CANDIDATES)
    assert guess.seconds > 0
    assert guess.free > 0
    assert guess.size > 0.8 * made.out.stat().st_size  # if all were kept that can be
    assert list(tmp_path.iterdir()) == []
