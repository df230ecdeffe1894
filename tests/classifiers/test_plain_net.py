"""The default classifier of small images."""

from __future__ import annotations

import pytest
import torch

from dagaug.classifiers.plain_net import PlainNet


@pytest.mark.parametrize("side", [8, 28, 64])
def test_any_side_of_8_pixels_and_more_gives_one_logit_a_class(side: int) -> None:
    assert PlainNet(5)(torch.zeros(2, 3, side, side)).shape == (2, 5)


def test_the_first_map_is_as_fine_as_the_image() -> None:
    """A single pixel is seen: nothing shrinks the image before the first convolution has looked at it."""
    network = PlainNet(2)
    seen: list[torch.Size] = []
    network.stages[0].register_forward_hook(lambda module, given, made: seen.append(made.shape[-2:]))
    network(torch.zeros(2, 3, 48, 40))
    assert seen == [(48, 40)]


def test_without_a_head_the_features_are_what_a_new_head_would_see() -> None:
    torch.manual_seed(0)
    network, images = PlainNet(3).eval(), torch.randn(2, 3, 32, 32)
    logits, head = network(images), network.head
    network.reset_classifier(0)
    features = network(images)
    assert features.shape == (2, network.num_features)
    torch.testing.assert_close(head(features), logits)
    network.reset_classifier(7)
    assert network(images).shape == (2, 7)


def test_timm_knows_the_network_once_dagaug_is_imported() -> None:
    import timm

    from dagaug.classifiers.backbones import build

    assert isinstance(timm.create_model("plain", num_classes=3), PlainNet)
    assert isinstance(build("plain", 3).model, PlainNet)
    with pytest.raises(ValueError, match="no pretrained weights"):
        timm.create_model("plain", pretrained=True)
