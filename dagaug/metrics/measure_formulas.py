"""FID, KID, inception score, precision and recall, diversity and PCK, from features, probabilities and points.

Nothing here reads a file or runs a network. Features are N × D, one row for each image, from any network;
probabilities are N × K and each row sums to 1; points are (x, y) in any unit.

FID and KID compare whole distributions. Precision and density measure fidelity: how many fakes look real. Recall and
coverage measure diversity: how much of the real distribution the fakes cover.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Integer
from scipy.linalg import svdvals
from scipy.optimize import linear_sum_assignment
from scipy.special import rel_entr
from torchmetrics.image.kid import poly_mmd

__all__ = [
    "FID_IMAGES",
    "Coverage",
    "Fidelity",
    "MeanStd",
    "accuracy",
    "density_coverage",
    "diversity_within",
    "fid",
    "inception_score",
    "kid",
    "match_regions",
    "mean_of_groups",
    "missing_modes",
    "pairs_within",
    "pck",
    "precision_recall",
]

FID_IMAGES = 2048
"""With fewer images in either set FID is mostly bias of its covariances; KID has no bias."""

_CHUNK = 1024  # rows of a distance matrix in memory at a time


_ROUNDING = 1e-9  # relative difference below which two distances count as equal


@dataclass(frozen=True)
class MeanStd:
    """A mean and the standard deviation of the averaged values."""

    mean: float
    std: float


@dataclass(frozen=True)
class Fidelity:
    """Precision and recall of fakes against real images, both in [0, 1]."""

    precision: float
    recall: float


@dataclass(frozen=True)
class Coverage:
    """Density (0 or more, about 1 where the distributions are equal) and coverage (in [0, 1]) of fakes."""

    density: float
    coverage: float


# Class probabilities


def inception_score(probabilities: Float[np.ndarray, "N K"], *, splits: int = 10, seed: int = 0) -> MeanStd:
    """I = exp(E_x KL(p(y|x) ‖ p(y))) (paper, eq. 11; Salimans et al. 2016): from 1 to the number of classes.

    Args:
        probabilities: class probabilities of each image, by a classifier of the real images.
        splits: number of parts; the result is the mean and standard deviation of their scores. Parts with fewer
            images than a few times the number of classes score too low.
        seed: seed of the random assignment of images to parts; in a file the images are sorted by source.

    Raises:
        ValueError: there are no images.
    """
    _check_rows("an inception score", 1, probabilities)
    order = np.random.default_rng(seed).permutation(len(probabilities))
    scores = []
    for part in np.array_split(probabilities[order].astype(np.float64), min(splits, len(order))):
        divergence = rel_entr(part, part.mean(0, keepdims=True)).sum(1)
        scores.append(math.exp(float(divergence.mean())))
    return MeanStd(float(np.mean(scores)), float(np.std(scores)))


def missing_modes(predicted: Integer[np.ndarray, " N"], classes: int) -> int:
    """Number of classes that no image is assigned to: # miss of the paper's Table 1c."""
    return classes - len(np.unique(predicted))


def accuracy(predicted: Integer[np.ndarray, " N"], labels: Integer[np.ndarray, " N"]) -> float:
    """Share of images that are assigned to their class; NaN without images."""
    return float((predicted == labels).mean()) if len(labels) else math.nan


# Whole distributions


def fid(real: Float[np.ndarray, "N D"], fake: Float[np.ndarray, "M D"]) -> float:
    """Fréchet distance of two Gaussians fitted to the features (Heusel et al. 2017; Dowson, Landau 1982).

    It is |μ₁ − μ₂|² + tr Σ₁ + tr Σ₂ − 2 tr (Σ₁ Σ₂)^½. With centred features X₁, X₂ scaled so that Σ = XᵀX, the
    last trace is the sum of the singular values of X₁ X₂ᵀ, hence of R₁ R₂ᵀ from their QR decompositions. This avoids
    the square root of a nearly singular matrix, so the result is exact with fewer images than features, too.

    FID is symmetric, 0 for equal sets, and biased upwards for small sets: see :data:`FID_IMAGES`.

    Raises:
        ValueError: a set has fewer than 2 images.
    """
    _check_rows("a Fréchet distance", 2, real, fake)
    real, fake = real.astype(np.float64), fake.astype(np.float64)
    between = real.mean(0) - fake.mean(0)
    first, second = (np.asarray(np.linalg.qr((x - x.mean(0)) / math.sqrt(len(x) - 1), mode="r")) for x in (real, fake))
    within = float(np.square(first).sum() + np.square(second).sum())
    shared = float(svdvals(first @ second.T).sum())
    return max(float(between @ between) + within - 2 * shared, 0.0)


def kid(
    real: Float[np.ndarray, "N D"],
    fake: Float[np.ndarray, "M D"],
    *,
    subsets: int = 50,
    subset_size: int = 1000,
    seed: int = 0,
) -> MeanStd:
    """Squared maximum mean discrepancy under the kernel (xᵀy / D + 1)³ (Bińkowski et al. 2018).

    The estimate is unbiased: for two sets of one distribution its mean is 0, and it is often slightly negative. It is
    the mean over random subsets; torchmetrics computes each.

    Args:
        real, fake: features.
        subsets: number of subsets.
        subset_size: images of each set in a subset; reduced to half of the smaller set, so that subsets differ.
        seed: seed of the draw.

    Raises:
        ValueError: a set has fewer than 4 images.
    """
    _check_rows("a kernel distance", 4, real, fake)
    size = min(subset_size, len(real) // 2, len(fake) // 2)
    rng = np.random.default_rng(seed)
    scores = []
    for _ in range(subsets):
        first, second = (torch.from_numpy(x[rng.choice(len(x), size, replace=False)]).double() for x in (real, fake))
        scores.append(float(poly_mmd(first, second)))
    return MeanStd(float(np.mean(scores)), float(np.std(scores)))


# Neighbourhoods


def precision_recall(
    real: Float[np.ndarray, "N D"], fake: Float[np.ndarray, "M D"], *, neighbours: int = 3, chunk: int = _CHUNK
) -> Fidelity:
    """Improved precision and recall (Kynkäänniemi et al. 2019).

    A set's manifold is the union of balls around its features; the radius of each is the distance to its k-th nearest
    neighbour in the set. Precision is the share of fakes on the real manifold, recall the share of real images on the
    fake manifold.

    Args:
        real, fake: features.
        neighbours: k.
        chunk: rows of a distance matrix in memory at a time.

    Raises:
        ValueError: a set has no more images than ``neighbours``.
    """
    real, fake = _centred(real, fake, neighbours)
    return Fidelity(
        precision=_on_manifold(fake, real, neighbours, chunk),
        recall=_on_manifold(real, fake, neighbours, chunk),
    )


def _on_manifold(points: np.ndarray, of: np.ndarray, neighbours: int, chunk: int) -> float:
    """Share of the points inside or on the edge of a ball around ``of``."""
    radii = _radii(of, neighbours, chunk) * (1 + _ROUNDING)
    return float(np.mean(np.concatenate([(part <= radii).any(1) for part in _distances(points, of, chunk)])))


def density_coverage(
    real: Float[np.ndarray, "N D"], fake: Float[np.ndarray, "M D"], *, neighbours: int = 5, chunk: int = _CHUNK
) -> Coverage:
    """Density and coverage (Naeem et al. 2020); single outliers affect them less than precision and recall.

    Both use balls as in :func:`precision_recall`, around the real features only. Density is the mean number of balls
    that contain a fake, divided by k. Coverage is the share of balls that contain a fake.

    Args:
        real, fake: features.
        neighbours: k.
        chunk: rows of a distance matrix in memory at a time.

    Raises:
        ValueError: a set has no more images than ``neighbours``.
    """
    real, fake = _centred(real, fake, neighbours)
    # A ball excludes its edge; otherwise the density of equal sets would be (k + 1) / k.
    radii = _radii(real, neighbours, chunk) * (1 - _ROUNDING)
    inside, covered = 0, np.zeros(len(real), bool)
    for part in _distances(fake, real, chunk):
        within = part < radii
        inside += int(within.sum())
        covered |= within.any(0)
    return Coverage(inside / (neighbours * len(fake)), float(covered.mean()))


def _centred(real: np.ndarray, fake: np.ndarray, neighbours: int) -> tuple[np.ndarray, np.ndarray]:
    """Both sets in 64 bits, centred on their common mean, where differences of squares are most accurate."""
    _check_rows(f"a measure of {neighbours} neighbours", neighbours + 1, real, fake)
    mean = (real.mean(0, dtype=np.float64) + fake.mean(0, dtype=np.float64)) / 2
    return real - mean, fake - mean


def _radii(points: np.ndarray, neighbours: int, chunk: int) -> np.ndarray:
    """Distance of each point to its k-th nearest other point."""
    return np.concatenate(
        [np.partition(part, neighbours, axis=1)[:, neighbours] for part in _distances(points, points, chunk)]
    )


def _distances(points: np.ndarray, others: np.ndarray, chunk: int = _CHUNK) -> Iterator[np.ndarray]:
    """Euclidean distances of the points (rows) to the others (columns), ``chunk`` rows at a time."""
    lengths = np.square(others).sum(1)
    for start in range(0, len(points), chunk):
        part = points[start : start + chunk]
        squares = np.square(part).sum(1)[:, None] + lengths - 2 * part @ others.T
        floor = 1e-13 * (np.square(part).sum(1)[:, None] + lengths)  # rounding error of equal points
        yield np.sqrt(np.where(squares > floor, squares, 0.0))


def diversity_within(features: Float[np.ndarray, "N D"], groups: Integer[np.ndarray, " N"]) -> float:
    """Mean distance between the features of two images of one group, e.g. all morphs of a source.

    All groups with at least two images have equal weight; NaN if there is none. The unit is that of the features, so
    compare it only with the same measure of real images. It is not LPIPS, which compares feature maps: see
    :mod:`dagaug.metrics.lpips`.
    """
    means = []
    for group in np.unique(groups):
        members = features[groups == group].astype(np.float64)
        if (count := len(members)) > 1:
            members = members - members.mean(0)
            means.append(sum(float(part.sum()) for part in _distances(members, members)) / (count * (count - 1)))
    return float(np.mean(means)) if means else math.nan


def pairs_within(groups: Integer[np.ndarray, " N"], *, most: int, seed: int = 0) -> Int64[np.ndarray, "P 2"]:
    """Pairs of different rows within each group, in the order of the groups; at most ``most`` random ones of each."""
    rng = np.random.default_rng(seed)
    found = [np.zeros((0, 2), np.int64)]
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        pairs = np.stack(np.triu_indices(len(members), 1), 1)
        chosen = np.sort(rng.permutation(len(pairs))[:most])
        found.append(members[pairs[chosen]].astype(np.int64))
    return np.concatenate(found)


def mean_of_groups(values: Float[np.ndarray, " P"], groups: Integer[np.ndarray, " P"]) -> float:
    """Mean of the groups' means, so that all groups have equal weight; NaN without groups."""
    means = [float(values[groups == group].mean()) for group in np.unique(groups)]
    return float(np.mean(means)) if means else math.nan


# Attention


def match_regions(
    centres: Float[np.ndarray, "N R 2"],
    parts: Float[np.ndarray, "N P 2"],
    visible: Bool[np.ndarray, "N P"],
    scale: Float[np.ndarray, " N"],
) -> tuple[Int64[np.ndarray, " Q"], Int64[np.ndarray, " Q"]]:
    """Match attended regions with parts: the assignment with the smallest mean distance (Hungarian method).

    Regions are learned without part labels, so match them on training images and measure :func:`pck` on others. Each
    region is matched with at most one part, and each part with at most one region.

    Args:
        centres: centres of the regions.
        parts: key points; values of invisible ones are ignored.
        visible: which key points are visible.
        scale: length that an image's distances are divided by, such as the larger side of its box.

    Returns:
        indices of the matched regions and of their parts; parts that are never visible are left out.
    """
    seen = np.flatnonzero(visible.any(0))
    distance = np.linalg.norm(centres[:, :, None] - parts[:, None, seen], axis=-1) / scale[:, None, None]  # N R P
    weight = visible[:, None, seen].astype(np.float64)
    cost = np.where(weight > 0, distance, 0.0).sum(0) / np.maximum(weight.sum(0), 1)
    regions, columns = linear_sum_assignment(cost)
    return regions.astype(np.int64), seen[columns].astype(np.int64)


def pck(
    points: Float[np.ndarray, "N Q 2"],
    parts: Float[np.ndarray, "N Q 2"],
    visible: Bool[np.ndarray, "N Q"],
    scale: Float[np.ndarray, " N"],
    *,
    alpha: float = 0.1,
) -> float:
    """Percentage of correct key points (Yang, Ramanan 2013): predictions within alpha × scale of their part.

    Args:
        points: predicted positions.
        parts: true positions.
        visible: which parts count.
        scale: length for each image, such as the larger side of its bounding box.
        alpha: tolerance as a share of the scale.

    Returns:
        a share of all visible parts of all images, in [0, 1]; NaN if none is visible.
    """
    near = np.linalg.norm(points - parts, axis=-1) <= alpha * scale[:, None] * (1 + _ROUNDING)
    return float(near[visible].mean()) if visible.any() else math.nan


def _check_rows(what: str, least: int, *sets: np.ndarray) -> None:
    for rows in sets:
        if len(rows) < least:
            raise ValueError(f"{what} needs at least {least} images in each set, not {len(rows)}")
