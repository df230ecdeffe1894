"""Measures of realism, diversity and attention: from features, probabilities and points to numbers.

Nothing here reads a file or runs a network. Features are N × D, one row for each image, of whatever network the
caller trusts; probabilities are N × K, each row summing to 1; points are x, y in any unit.

How similar sets of images are is told in three ways, each blind where another sees. FID and KID compare the whole
distributions; precision and density tell how many of the fakes look real (fidelity), recall and coverage how much of
the real the fakes reach (diversity).
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
    "Spread",
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
"""With fewer images in either set FID is mostly the bias of its covariances; KID has none."""

_ROWS = 1024  # of a matrix of distances that are held at a time


_EVEN = 1e-9  # distances that differ by less than this share are equal but for rounding


@dataclass(frozen=True)
class Spread:
    """A mean and the standard deviation of what it is the mean of."""

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


# What a classifier says


def inception_score(probabilities: Float[np.ndarray, "N K"], *, splits: int = 10, seed: int = 0) -> Spread:
    """I = exp(E_x KL(p(y|x) ‖ p(y))) (paper, eq. 11; Salimans et al. 2016): from 1 to the number of classes.

    Args:
        probabilities: of the classes, by a classifier of the real images.
        splits: parts whose scores are averaged, so that chance can be told; fewer where there are fewer images. A
            part of fewer images than a few times the number of classes scores too low.
        seed: of the order in which images are dealt to the parts; in a file they stand sorted by source.
    """
    _check_rows("an inception score", 1, probabilities)
    order = np.random.default_rng(seed).permutation(len(probabilities))
    scores = []
    for part in np.array_split(probabilities[order].astype(np.float64), min(splits, len(order))):
        divergence = rel_entr(part, part.mean(0, keepdims=True)).sum(1)
        scores.append(math.exp(float(divergence.mean())))
    return Spread(float(np.mean(scores)), float(np.std(scores)))


def missing_modes(predicted: Integer[np.ndarray, " N"], classes: int) -> int:
    """How many of the classes no image is taken for: # miss of the paper's Table 1c."""
    return classes - len(np.unique(predicted))


def accuracy(predicted: Integer[np.ndarray, " N"], labels: Integer[np.ndarray, " N"]) -> float:
    """Share of images that are taken for their label; NaN without images."""
    return float((predicted == labels).mean()) if len(labels) else math.nan


# Whole distributions


def fid(real: Float[np.ndarray, "N D"], fake: Float[np.ndarray, "M D"]) -> float:
    """Fréchet distance of two Gaussians fitted to the features (Heusel et al. 2017; Dowson, Landau 1982).

    It is |μ₁ − μ₂|² + tr Σ₁ + tr Σ₂ − 2 tr (Σ₁ Σ₂)^½. With centred features X₁, X₂ scaled so that Σ = XᵀX, the
    last trace is the sum of the singular values of X₁ X₂ᵀ, hence of R₁ R₂ᵀ from their QR decompositions. No root of
    a nearly singular product is taken, so that the result is exact with fewer images than features, too.

    Symmetric, 0 for equal sets, and too high for small ones: see :data:`FID_IMAGES`.
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
) -> Spread:
    """Squared maximum mean discrepancy under the kernel (xᵀy / D + 1)³ (Bińkowski et al. 2018).

    The estimate has no bias: it is 0 in the mean, and often a little below it, for two sets of one distribution. It
    is the mean over random subsets; torchmetrics computes each.

    Args:
        real, fake: features.
        subsets: how many are drawn.
        subset_size: images of each set in a subset; at most half of the smaller set, so that subsets differ.
        seed: of the draw.
    """
    _check_rows("a kernel distance", 4, real, fake)
    size = min(subset_size, len(real) // 2, len(fake) // 2)
    rng = np.random.default_rng(seed)
    scores = []
    for _ in range(subsets):
        first, second = (torch.from_numpy(x[rng.choice(len(x), size, replace=False)]).double() for x in (real, fake))
        scores.append(float(poly_mmd(first, second)))
    return Spread(float(np.mean(scores)), float(np.std(scores)))


# Neighbourhoods


def precision_recall(
    real: Float[np.ndarray, "N D"], fake: Float[np.ndarray, "M D"], *, neighbours: int = 3
) -> Fidelity:
    """Improved precision and recall (Kynkäänniemi et al. 2019).

    A set's manifold is the union of balls round its features, each as wide as the distance to its k-th nearest
    neighbour in the set. Precision is the share of fakes on the manifold of the real, recall the share of real
    images on that of the fakes.
    """
    real, fake = _centred(real, fake, neighbours)
    return Fidelity(
        precision=_on_manifold(fake, real, neighbours),
        recall=_on_manifold(real, fake, neighbours),
    )


def _on_manifold(points: np.ndarray, of: np.ndarray, neighbours: int) -> float:
    """Share of the points that lie within one of the balls round ``of``, or on its edge."""
    radii = _radii(of, neighbours) * (1 + _EVEN)
    return float(np.mean(np.concatenate([(part <= radii).any(1) for part in _distances(points, of)])))


def density_coverage(
    real: Float[np.ndarray, "N D"], fake: Float[np.ndarray, "M D"], *, neighbours: int = 5
) -> Coverage:
    """Density and coverage (Naeem et al. 2020), which single odd images do not sway as they do precision and recall.

    With the same balls, round the real features alone: density counts how many of them a fake lies in, as a share of
    the k that a real one is expected to; coverage is the share of balls that hold a fake.
    """
    real, fake = _centred(real, fake, neighbours)
    radii = _radii(real, neighbours) * (1 - _EVEN)  # a ball's edge is not in it, else density would be (k + 1) / k
    inside, covered = 0, np.zeros(len(real), bool)
    for part in _distances(fake, real):
        within = part < radii
        inside += int(within.sum())
        covered |= within.any(0)
    return Coverage(inside / (neighbours * len(fake)), float(covered.mean()))


def _centred(real: np.ndarray, fake: np.ndarray, neighbours: int) -> tuple[np.ndarray, np.ndarray]:
    """Both in 64 bits about their common mean, where differences of squares lose least."""
    _check_rows(f"a measure of {neighbours} neighbours", neighbours + 1, real, fake)
    middle = (real.mean(0, dtype=np.float64) + fake.mean(0, dtype=np.float64)) / 2
    return real - middle, fake - middle


def _radii(points: np.ndarray, neighbours: int) -> np.ndarray:
    """Distance of each point to its k-th nearest neighbour but itself."""
    return np.concatenate(
        [np.partition(part, neighbours, axis=1)[:, neighbours] for part in _distances(points, points)]
    )


def _distances(points: np.ndarray, others: np.ndarray) -> Iterator[np.ndarray]:
    """Euclidean distances of the points (rows) to the others (columns), some rows at a time."""
    lengths = np.square(others).sum(1)
    for start in range(0, len(points), _ROWS):
        part = points[start : start + _ROWS]
        squares = np.square(part).sum(1)[:, None] + lengths - 2 * part @ others.T
        floor = 1e-13 * (np.square(part).sum(1)[:, None] + lengths)  # what rounding leaves of equal points
        yield np.sqrt(np.where(squares > floor, squares, 0.0))


def diversity_within(features: Float[np.ndarray, "N D"], groups: Integer[np.ndarray, " N"]) -> float:
    """Mean distance between the features of two images of one group, such as all morphs of a source.

    Every group with at least two images weighs the same; NaN if there is none. Its unit is that of the features, so
    it says something beside the same measure of real images alone. It is no LPIPS, which compares whole maps of
    features: see :mod:`dagaug.perceptual`.
    """
    means = []
    for group in np.unique(groups):
        members = features[groups == group].astype(np.float64)
        if (count := len(members)) > 1:
            members = members - members.mean(0)
            means.append(sum(float(part.sum()) for part in _distances(members, members)) / (count * (count - 1)))
    return float(np.mean(means)) if means else math.nan


def pairs_within(groups: Integer[np.ndarray, " N"], *, most: int, seed: int = 0) -> Int64[np.ndarray, "P 2"]:
    """Different pairs of rows of one group each, in the order of the groups; of large groups a random ``most``."""
    rng = np.random.default_rng(seed)
    found = [np.zeros((0, 2), np.int64)]
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        pairs = np.stack(np.triu_indices(len(members), 1), 1)
        chosen = np.sort(rng.permutation(len(pairs))[:most])
        found.append(members[pairs[chosen]].astype(np.int64))
    return np.concatenate(found)


def mean_of_groups(values: Float[np.ndarray, " P"], groups: Integer[np.ndarray, " P"]) -> float:
    """Mean of the groups' means, so that every group weighs the same; NaN without any."""
    means = [float(values[groups == group].mean()) for group in np.unique(groups)]
    return float(np.mean(means)) if means else math.nan


# Attention


def match_regions(
    centres: Float[np.ndarray, "N R 2"],
    parts: Float[np.ndarray, "N P 2"],
    visible: Bool[np.ndarray, "N P"],
    scale: Float[np.ndarray, " N"],
) -> tuple[Int64[np.ndarray, " Q"], Int64[np.ndarray, " Q"]]:
    """Say which attended region stands for which part: the assignment of least mean distance (Hungarian method).

    Nothing tells a region what to attend to, so this is found on training images, and judged on others by
    :func:`pck`. Each region stands for at most one part and each part for one region.

    Args:
        centres: of the regions.
        parts: key points; what stands in those that are not visible does not matter.
        visible: which key points are seen.
        scale: length by which an image's distances are divided, such as the larger side of its box.

    Returns:
        regions and parts, pair by pair; as many as the smaller of their numbers, parts that are never seen left out.
    """
    seen = np.flatnonzero(visible.any(0))
    apart = np.linalg.norm(centres[:, :, None] - parts[:, None, seen], axis=-1) / scale[:, None, None]  # N R P
    weight = visible[:, None, seen].astype(np.float64)
    cost = np.where(weight > 0, apart, 0.0).sum(0) / np.maximum(weight.sum(0), 1)
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
    """Percentage of correct key points, as a share (Yang, Ramanan 2013): those within alpha × scale of their part.

    Args:
        points: where each part is said to be.
        parts: where it is.
        visible: which parts count.
        scale: of each image, such as the larger side of its bounding box.
        alpha: tolerance as a share of the scale.

    Returns:
        A share of all visible parts of all images; NaN if none is visible.
    """
    near = np.linalg.norm(points - parts, axis=-1) <= alpha * scale[:, None] * (1 + _EVEN)
    return float(near[visible].mean()) if visible.any() else math.nan


def _check_rows(what: str, least: int, *sets: np.ndarray) -> None:
    for rows in sets:
        if len(rows) < least:
            raise ValueError(f"{what} needs at least {least} images in each set, not {len(rows)}")
