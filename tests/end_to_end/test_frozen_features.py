"""Training on frozen features from the command line, and augmenting with the result."""

from __future__ import annotations

import json
from functools import partialmethod
from pathlib import Path

import numpy as np
import pytest
import torch
from making_runs import dagaug

from dagaug.classifiers.pretrained_networks import build_pretrained
from dagaug.cli.shared_options import CACHE
from dagaug.data.layouts import read_dataset
from dagaug.hdf5.reader import Store
from dagaug.training.trainer import Trainer


@pytest.mark.slow
def test_a_model_trained_on_frozen_features_augments(
    birds_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in ("augment", "train"):
        monkeypatch.setattr(f"dagaug.cli.{command}.CACHE", CACHE)
    monkeypatch.setattr(Trainer, "recalibrate", partialmethod(Trainer.recalibrate, batches=1))
    weights, run, out = tmp_path / "weights.pth", tmp_path / "run", tmp_path / "out.h5"
    torch.manual_seed(0)
    network = build_pretrained("test_resnet", input_size=64, pretrained=False)
    torch.save(network.model.state_dict(), weights)
    trained = dagaug(
        "train", birds_folder, "--features", "test_resnet", "--feature-weights", weights, "--size", 64, "--steps", 2,
        "--batch-size", 4, "--device", "cpu", "--out", run,
    )  # fmt: skip
    assert trained.code == 0, trained.err
    assert "Preset photos (frozen test_resnet), patches of 64 px" in trained.err
    assert len(list((run / "sheets").glob("*.png"))) >= 1
    entries = set(CACHE.glob("??/*"))
    assert len(entries) >= len(read_dataset(birds_folder).train)
    made = dagaug(
        "augment", birds_folder, "--checkpoint", run, "--refs", 2, "--limit", 4, "--min-confidence", 0, "--frame",
        "crop", "--folds", 2, "--device", "cpu", "--out", out, "--json",
    )  # fmt: skip
    assert made.code == 0, made.err
    assert set(CACHE.glob("??/*")) == entries  # the masks and features are those of the training
    with Store(out) as store:
        synthetic = np.flatnonzero(store.images.synthetic)
        assert len(synthetic) == json.loads(made.out)["kept"] == 4 * 2
        images = store.read(synthetic.tolist())
    assert all(image.shape == (64, 64, 3) and image.std() > 10 for image in images)
