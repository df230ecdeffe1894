"""Given masks in place of estimated ones, in structures, fits and models without training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from making_masks import write_mask, write_masks

from dagaug.classifiers.frozen_feature_maps import build_extractor
from dagaug.classifiers.pretrained_networks import build_pretrained
from dagaug.compute.tensors import to_tensor
from dagaug.data.dataset_records import Dataset
from dagaug.data.mask_files import find_masks
from dagaug.data.object_patches import Framing, read_patches
from dagaug.model.given_masks import with_given_masks, with_masks
from dagaug.model.trained_model import load_model
from dagaug.model.training_free_checkpoint import fit_training_free
from dagaug.model.training_free_statistics import fit_frozen

CPU = torch.device("cpu")


def test_given_masks_replace_estimated_ones() -> None:
    estimated = torch.full((3, 1, 4, 4), 0.3)
    given = np.full((4, 4), 51, np.uint8)
    found = with_given_masks(estimated, [None, given, None])
    assert torch.allclose(found[1], torch.tensor(0.2))
    assert torch.equal(found[[0, 2]], estimated[[0, 2]])
    assert (estimated == 0.3).all()
    assert with_given_masks(estimated, [None] * 3) is estimated


def test_a_structure_keeps_everything_but_its_object(birds: Dataset, birds_run: Path) -> None:
    images = read_patches(birds, birds.train[:2], Framing(size=64)).images[:]
    translator = load_model(birds_run).translator
    structure = translator.structure(to_tensor(images, CPU))  # type: ignore[operator, union-attr]
    given = np.zeros((64, 64), np.uint8)
    given[10:20] = 255
    found = with_masks(structure, [given, None])
    assert (found.object[0, 0].numpy() * 255 == given).all()
    assert torch.equal(found.object[1], structure.object[1])
    assert torch.equal(found.keys, structure.keys)


def test_the_foreground_is_fitted_to_given_masks(birds: Dataset) -> None:
    """What is told to be the object is found: the upper half of each patch, whatever it shows."""
    patches = read_patches(birds, birds.train, Framing(size=64))
    upper = np.zeros((64, 64), np.uint8)
    upper[:32] = 255
    extractor = build_extractor("test_resnet", input_size=64, pretrained=False)
    nowhere = [None] * len(patches.samples)
    given = fit_frozen(patches.images, nowhere, extractor, masks=[upper] * len(nowhere))
    found = fit_frozen(patches.images, nowhere, extractor)
    shown = to_tensor(patches.images[:], CPU)
    probability = given.dae.read(shown)[1]
    assert probability[:, :14].mean() > 0.6
    assert probability[:, 18:].mean() < 0.4
    assert not torch.equal(given.dae.reduction.foreground, found.dae.reduction.foreground)


def test_other_masks_make_another_model(birds: Dataset, tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    torch.save(build_pretrained("test_resnet", input_size=64, pretrained=False).model.state_dict(), weights)

    def fitted(data: Dataset) -> Path:
        runs = tmp_path / "runs"
        return fit_training_free(data, runs, name="birds", features="test_resnet", weights=weights, size=64).path

    folder = write_masks(birds, tmp_path / "masks")
    bare, masked = fitted(birds), fitted(find_masks(birds, folder))
    assert masked == fitted(find_masks(birds, folder))
    assert bare.read_bytes() != masked.read_bytes()
    write_mask(birds, birds.train[0], folder, np.zeros((64, 64), np.uint8))
    assert len({bare, masked, fitted(find_masks(birds, folder))}) == 3
