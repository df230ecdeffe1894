"""Morphs without training: correspondence by frozen features, saved and loaded without the network's weights."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from dagaug.classifiers.backbones import LITE0
from dagaug.classifiers.frozen_feature_maps import build_extractor
from dagaug.classifiers.pretrained_networks import build_pretrained
from dagaug.compute.tensors import to_tensor
from dagaug.data.dataset_records import Dataset, Sample
from dagaug.data.object_patches import Framing, Patches, read_patches
from dagaug.model.trained_model import FeatureCard, load_model
from dagaug.model.training_free import FrozenTranslator, correspondence, match
from dagaug.model.training_free_checkpoint import fit_training_free, suitable_size
from dagaug.model.training_free_statistics import fit_frozen
from dagaug.runtime.errors import CheckpointError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def patches(birds: Dataset) -> Patches:
    return read_patches(birds, birds.train, Framing(size=64))


@pytest.fixture(scope="module")
def translator(patches: Patches) -> FrozenTranslator:
    """EfficientNet-Lite0 at a small input size."""
    return fit_frozen(patches.images, patches.boxes(), build_extractor(LITE0, input_size=192))


def test_an_image_in_its_own_pose_is_itself(translator: FrozenTranslator, patches: Patches) -> None:
    images = to_tensor(patches.images[:3], CPU)
    structure, appearance = translator.read(images)
    morph = translator(appearance, structure, structure)
    inside = (structure.object > 0.9).expand_as(images)
    assert (morph.object - images)[inside].abs().mean() < 0.1
    assert torch.equal(morph.mask, structure.object)


def test_most_mirrored_references_take_the_mirrored_source(translator: FrozenTranslator, patches: Patches) -> None:
    source = translator.structure(to_tensor(patches.images[:3], CPU))
    reference = translator.structure(to_tensor(patches.images[:3, :, ::-1], CPU))
    _, mirrored, scores = match(source, reference)
    assert mirrored.float().mean() > 0.5  # a bird seen from the front may look the same mirrored
    assert scores.shape == (3, 32 * 32, 32 * 32)


def test_an_image_corresponds_to_itself_and_its_mirror_image_best(
    translator: FrozenTranslator, patches: Patches
) -> None:
    first, mirrored, other = (
        translator.structure(to_tensor(images, CPU))
        for images in (patches.images[:3], patches.images[:3, :, ::-1], patches.images[3:6])
    )
    assert torch.equal(correspondence(first, first), torch.ones(3))
    torch.testing.assert_close(correspondence(first, mirrored), torch.ones(3))
    shares = correspondence(first, other)
    assert ((shares >= 0) & (shares < 0.95)).all()


def test_keys_are_unit_vectors_and_masks_lie_in_their_boxes(translator: FrozenTranslator, patches: Patches) -> None:
    boxes = [(0.25, 0.25, 0.5, 0.5)] * 2
    structure = translator.structure(to_tensor(patches.images[:2], CPU), boxes)
    assert torch.allclose(structure.keys.square().sum(1), torch.ones(2, 32, 32), atol=1e-4)
    assert not structure.object[:, :, :14].any()


def test_the_model_is_made_once_and_rests_on_its_weights(
    birds: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "weights.pth"
    torch.manual_seed(1)
    torch.save(build_pretrained("test_resnet", input_size=64, pretrained=False).model.state_dict(), weights)
    made = fit_training_free(birds, tmp_path / "runs", name="birds", features="test_resnet", weights=weights, size=64)
    again = fit_training_free(birds, tmp_path / "runs", name="birds", features="test_resnet", weights=weights, size=64)
    assert made.sha256 == again.sha256
    assert made.path.stat().st_size < 1_000_000  # statistics, no weights of the network
    images = torch.rand(1, 3, 64, 64)
    first, second = (model.translator for model in (made, load_model(made.path)))
    assert isinstance(first, FrozenTranslator)
    assert isinstance(second, FrozenTranslator)
    assert torch.equal(first.structure(images).keys, second.structure(images).keys)
    torch.save(build_pretrained("test_resnet", input_size=64, pretrained=False).model.state_dict(), weights)
    with pytest.raises(CheckpointError, match="other weights"):
        load_model(made.path)


def test_a_card_names_the_licence(birds: Dataset, tmp_path: Path) -> None:
    model = fit_training_free(birds, tmp_path, name="birds", size=64)
    assert isinstance(model.card.features, FeatureCard)
    assert "Apache-2.0" in model.card.features.licence


@pytest.mark.parametrize(("side", "expected"), [(20, 64), (100, 128), (190, 224), (500, 224)])
def test_the_size_of_patches_follows_from_the_boxes(birds: Dataset, side: int, expected: int) -> None:
    samples = [Sample(Path(f"{number}.jpg"), 0, "train", (0.0, 0.0, float(side), 10.0)) for number in range(3)]
    assert suitable_size(birds, samples, Framing(), 224) == expected


def test_without_boxes_the_size_of_patches_follows_from_the_images(tmp_path: Path) -> None:
    samples = [Sample(Path(f"{number}.png"), 0, "train") for number in range(3)]
    for sample, shape in zip(samples, [(100, 300, 3), (170, 90, 3), (1000, 2000, 3)], strict=True):
        cv2.imwrite(str(tmp_path / sample.path), np.zeros(shape, np.uint8))
    dataset = Dataset(tmp_path, "folders", ("a",), tuple(samples), "given")
    assert suitable_size(dataset, samples, Framing(), 512) == 288  # the longer sides are 300, 170 and 2,000 px
    assert suitable_size(dataset, samples, Framing(fit="crop"), 512) == 96
    unreadable = [Sample(Path("missing.png"), 0, "train")]
    assert suitable_size(dataset, unreadable, Framing(), 224) == 224


def test_a_stored_structure_is_close_to_the_original(
    translator: FrozenTranslator, patches: Patches, tmp_path: Path
) -> None:
    from dagaug.augment.encoding_table import Encodings, record_type

    structure = translator.structure(to_tensor(patches.images[:2], CPU), patches.boxes()[:2])
    record = record_type(structure, 64, backgrounds=False)
    assert record.itemsize == 64 * 64 + 2 * 32 * 32 * structure.keys.shape[1]
    table = Encodings(record, 2, tmp_path)
    table.write(0, structure)
    read = Encodings.structure(table.read(np.arange(2)), CPU, translator.structure_type)
    assert (read.object - structure.object).abs().max() < 1 / 255
    assert (read.keys - structure.keys).abs().max() < 1 / 127
