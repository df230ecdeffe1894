"""A GPU gives the results of the CPU, up to rounding; skipped without a GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from making_runs import STEPS, options, tensors_of

from dagaug.augment.options import AugmentOptions
from dagaug.augment.run import augment
from dagaug.data.dataset_records import Dataset
from dagaug.hdf5.reader import Store
from dagaug.model.checkpoint import MODEL_FILE
from dagaug.model.known_warps import jitter_colours
from dagaug.model.trained_model import load_model
from dagaug.runtime.execution_settings import Execution
from dagaug.training.train import train

pytestmark = pytest.mark.gpu


def test_colours_are_mixed_alike_and_only_their_noise_is_of_the_device() -> None:
    images = 2 * torch.rand(4, 3, 16, 16) - 1
    there = jitter_colours(images.cuda(), generator=torch.Generator().manual_seed(0)).cpu()
    here = jitter_colours(images, generator=torch.Generator().manual_seed(0))
    assert 0 < (there - here).abs().mean() < 0.1  # noise of 0.04 on either side


@pytest.mark.usefixtures("quickly")
def test_a_training_ends_with_finite_weights(birds: Dataset, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = train(options(), birds, name="birds", out=run)
    assert done.steps == STEPS
    assert all(
        tensor.isfinite().all() for tensor in tensors_of(run / MODEL_FILE).values() if tensor.is_floating_point()
    )


def test_morphs_of_a_gpu_are_those_of_a_cpu_within_a_few_grey_levels(
    birds: Dataset, birds_run: Path, birds_judge: Path, tmp_path: Path
) -> None:
    images = []
    for device in ("cuda", "cpu"):
        chosen = AugmentOptions(refs=2, keep="all", min_confidence=0.0, weights=birds_judge, encoding="raw")
        execution = Execution(device)
        out = augment(load_model(birds_run), birds, chosen, tmp_path / f"{device}.h5", execution=execution).out
        with Store(out) as file:
            rows = np.flatnonzero(file.images.synthetic)
            images.append(np.stack([file.image(int(row)) for row in rows]).astype(float))
    assert np.abs(images[0] - images[1]).mean() < 2
