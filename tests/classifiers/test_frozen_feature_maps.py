"""Frozen features: maps of convolutional networks and vision transformers, from any input size."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from dagaug.classifiers.frozen_feature_maps import build_extractor, joined
from dagaug.runtime.errors import UsageError


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_vit", "test_efficientnet"])
def test_every_kind_of_network_gives_maps_of_its_channels(name: str) -> None:
    extractor = build_extractor(name, input_size=96, pretrained=False)
    maps = extractor(torch.rand(2, 3, 40, 40) * 2 - 1)
    assert len(maps) == len(extractor.layers) >= 1
    assert tuple(found.shape[1] for found in maps) == extractor.channels
    assert all(found.shape[0] == 2 and found.shape[2] == found.shape[3] <= 96 // 8 for found in maps)


def test_features_are_frozen() -> None:
    extractor = build_extractor("test_resnet", input_size=64, pretrained=False).train()
    assert not any(parameter.requires_grad for parameter in extractor.parameters())


def test_a_copied_and_a_pickled_extractor_read_the_same_maps() -> None:
    extractor = build_extractor("test_resnet", input_size=64, pretrained=False)
    images = torch.rand(1, 3, 64, 64)
    expected = extractor(images)
    for other in (copy.deepcopy(extractor), pickle.loads(pickle.dumps(extractor))):
        assert all(torch.equal(a, b) for a, b in zip(expected, other(images), strict=True))


def test_joined_maps_are_unit_vectors_whose_similarity_is_the_weighted_mean_of_the_layers() -> None:
    torch.manual_seed(0)
    maps = [torch.randn(2, 3, 4, 4), torch.randn(2, 5, 4, 4)]
    means, deviations = [torch.zeros(3), torch.zeros(5)], [torch.ones(3), torch.ones(5)]
    both = joined(maps, means, deviations, (1.0, 3.0), 4)
    assert torch.allclose(both.square().sum(1), torch.ones(2, 4, 4), atol=1e-5)
    one, other = (torch.nn.functional.normalize(found, dim=1) for found in maps)
    expected = (1 * (one[0] * one[1]).sum(0) + 3 * (other[0] * other[1]).sum(0)) / 4
    assert torch.allclose((both[0] * both[1]).sum(0), expected, atol=1e-5)


def test_a_network_without_maps_is_refused() -> None:
    with pytest.raises(UsageError, match="features=plain: has no feature maps"):
        build_extractor("plain", input_size=64)
