"""A model, options and one augmentation that the tests of this package share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from making_augmentations import REFS, run
from making_engines import COUNT
from making_networks import saved
from making_runs import FRAMING, SIZE

from dagaug.augment.options import AugmentOptions
from dagaug.augment.run import Augmented
from dagaug.classifiers.classifier import untrained
from dagaug.classifiers.cross_fit import CrossFitted
from dagaug.data.dataset_records import Dataset
from dagaug.data.object_patches import read_patches
from dagaug.hdf5.reader import Store
from dagaug.model.trained_model import TrainedModel, load_model
from dagaug.model.training_free_checkpoint import fit_training_free


@pytest.fixture(scope="session")
def model(birds_run: Path) -> TrainedModel:
    return load_model(birds_run)


@pytest.fixture(scope="session")
def frozen(birds: Dataset, tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    """A model without training on a tiny vision transformer with random weights, from a folder."""
    folder = tmp_path_factory.mktemp("frozen")
    saved(folder / "network", "test_vit", patch_size=14, img_size=112, dynamic_img_size=False)
    return fit_training_free(birds, folder, name="birds", features=f"local-dir:{folder / 'network'}", size=64)


@pytest.fixture(scope="session")
def judged(birds_judge: Path) -> AugmentOptions:
    """Options with a judge that needs no training."""
    return AugmentOptions(refs=REFS, weights=birds_judge, classifier="test_resnet", batch_size=16)


@pytest.fixture(scope="session")
def made(
    model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path_factory: pytest.TempPathFactory
) -> Augmented:
    """One augmentation with the default rules, as PNG; nobody writes here."""
    out = tmp_path_factory.mktemp("made") / "birds.h5"
    return run(model, birds, judged.model_copy(update={"encoding": "png"}), out)


@pytest.fixture(scope="session")
def store(made: Augmented) -> Store:
    return Store(made.out)


@pytest.fixture(scope="session")
def patches(birds: Dataset) -> np.ndarray:
    return read_patches(birds, birds.train[::3][:COUNT], FRAMING).images


@pytest.fixture(scope="session")
def judges(birds: Dataset) -> CrossFitted:
    """Two classifiers that differ; the first judges even images, the second odd ones."""
    both = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        both.append(untrained("test_resnet", birds.classes, size=SIZE))
        both[-1].network.eval()
    return CrossFitted(both, np.arange(COUNT) % 2, np.ones(COUNT, bool), 0.5)
