"""Projection to the plane: neighbours stay neighbours, reproducible, any number of images."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from dagaug.report.tsne import project


def test_groups_of_features_stay_groups_and_the_picture_is_the_same_each_time() -> None:
    rng = np.random.default_rng(0)
    label = np.arange(90) % 3
    features = rng.normal(size=(90, 20)) + 10 * np.eye(3, 20)[label]
    points, method = project(features)
    assert "t-SNE" in method
    assert "perplexity 30" in method
    apart = cdist(points, points) + 9 * np.eye(90)
    assert (label[apart.argmin(1)] == label).all()
    assert (points.min(), points.max()) == (0, 1)
    assert np.ptp(points, axis=0).max() == 1
    np.testing.assert_array_equal(points, project(features)[0])


@pytest.mark.parametrize(("count", "width"), [(1, 8), (2, 8), (9, 1), (30, 1), (30, 8)])
def test_few_or_equal_images_have_places_too(count: int, width: int) -> None:
    for features in (np.ones((count, width)), np.arange(count * width, dtype=float).reshape(count, width) ** 1.5):
        points, method = project(features)
        assert points.shape == (count, 2)
        assert ((points >= 0) & (points <= 1)).all()
        assert ("t-SNE" in method) == (count >= 10 and features.std() > 0)
