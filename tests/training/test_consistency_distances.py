"""The label distances d of Table 4 by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from making_runs import SIZE

from dagaug.runtime.errors import UsageError
from dagaug.training.consistency_distances import BackboneDistance, ResidualDistance, SquaredDistance, make_distance


def test_each_name_of_table_4_makes_its_distance() -> None:
    kinds = {"resblock": ResidualDistance, "l2": SquaredDistance, "timm:test_resnet": BackboneDistance}
    for name, kind in kinds.items():
        distance = make_distance(name, 8, 5, size=SIZE, weights=None)
        assert isinstance(distance, kind)
        features, scores = distance(torch.zeros(2, 8, 8, 8), torch.zeros(2, 3, SIZE, SIZE))
        assert len(features) == 2
        assert scores.shape == (2, 5)


@pytest.mark.parametrize("name", ["cosine", "timm", ""])
def test_an_unknown_distance_is_an_error_with_the_choices(name: str) -> None:
    with pytest.raises(UsageError, match=f"distance={name}: choose resblock, l2 or timm:NAME"):
        make_distance(name, 8, 5, size=SIZE, weights=None)


def test_an_unknown_timm_network_is_an_error_with_close_matches() -> None:
    with pytest.raises(UsageError, match=r"distance=timm:resnet1: timm has no model.*resnet18"):
        make_distance("timm:resnet1", 8, 5, size=SIZE, weights=None)


def test_too_small_images_and_weights_without_a_timm_network_are_refused() -> None:
    with pytest.raises(UsageError, match="distance=timm:inception_v3: cannot take images of 64 px; try another size"):
        make_distance("timm:inception_v3", 8, 5, size=64, weights=None)
    with pytest.raises(UsageError, match=r"weights=w\.pth: only a timm network takes weights; try distance=timm:NAME"):
        make_distance("resblock", 8, 5, size=64, weights=Path("w.pth"))
