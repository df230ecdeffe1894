"""Projection of features to two dimensions with scikit-learn's t-SNE."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64

__all__ = ["project"]

_COMPONENTS = 50  # dimension before t-SNE, as its authors recommend; removes noise


_PERPLEXITY = 30.0


_FEWEST = 10  # minimum number of points for t-SNE


def project(features: Float[np.ndarray, "N D"], *, seed: int = 0) -> tuple[Float64[np.ndarray, "N 2"], str]:
    """Project features to the plane; equal features give equal points on the same machine.

    Args:
        features: at least one row.
        seed: random seed; it matters little, because t-SNE starts from the first two principal components.

    Returns:
        points in [0, 1], and a description of the method: t-SNE, or the first two principal components if there are
        fewer than ten points or all points are equal.
    """
    components, share = _components(features.astype(np.float64))
    if len(features) < _FEWEST or not components.any():
        return _in_box(components[:, :2]), f"first two principal components, {share:.0%} of the variance"
    from sklearn import __version__ as version
    from sklearn.manifold import TSNE

    perplexity = min(_PERPLEXITY, (len(features) - 1) / 3)
    found = TSNE(perplexity=perplexity, init=_start(components), random_state=seed).fit_transform(components)
    words = f"t-SNE of the first {components.shape[1]} principal components (perplexity {perplexity:.0f}, "
    return _in_box(found.astype(np.float64)), f"{words}scikit-learn {version})"


def _components(features: Float64[np.ndarray, "N D"]) -> tuple[Float64[np.ndarray, "N C"], float]:
    """Up to 50 (at least 2) principal components, signs fixed; and the variance explained by the first two."""
    centred = features - features.mean(0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    found = left[:, :_COMPONENTS] * sizes[:_COMPONENTS]
    largest = np.take_along_axis(found, np.abs(found).argmax(0)[None], 0)
    found = found * np.where(largest < 0, -1.0, 1.0)
    if found.shape[1] < 2:
        found = np.pad(found, ((0, 0), (0, 2 - found.shape[1])))
    whole = float((sizes**2).sum())
    return found, float((sizes[:2] ** 2).sum()) / whole if whole > 0 else 1.0


def _start(components: Float64[np.ndarray, "N C"]) -> Float[np.ndarray, "N 2"]:
    """Initial positions: the first two components, scaled down; random ones would shuffle the clusters."""
    first = components[:, :2]
    return (1e-4 * first / (first[:, 0].std() or 1.0)).astype(np.float32)


def _in_box(points: Float64[np.ndarray, "N 2"]) -> Float64[np.ndarray, "N 2"]:
    """Shift and scale points, equally in x and y, so that the longer side fills [0, 1]."""
    low, high = points.min(0), points.max(0)
    side = float((high - low).max()) or 1.0
    return 0.5 + (points - (low + high) / 2) / side
