"""Measures against closed forms and reference implementations, and which way each of them points."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from dagaug.metrics import measure_formulas as measures
from dagaug.metrics.measure_formulas import Coverage, Fidelity

RNG = np.random.default_rng(0)
CLOUD = RNG.normal(size=(300, 6))
FAR = CLOUD + 1000.0
CLUSTERS = np.repeat([[0.0, 0.0], [50.0, 0.0]], 40, axis=0) + RNG.normal(size=(80, 2))
"""Two clusters of 40, far apart; the first half of the rows is the first cluster."""


def with_moments(count: int, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Points of exactly this mean and (unbiased) covariance."""
    points = RNG.normal(size=(count, len(mean)))
    points -= points.mean(0)
    whitened = points @ np.linalg.inv(np.linalg.cholesky(np.atleast_2d(np.cov(points.T)))).T
    return mean + whitened @ np.linalg.cholesky(covariance).T


# ---- inception score, missing modes, accuracy


@pytest.mark.parametrize("splits", [1, 10])
def test_the_inception_score_of_uniform_probabilities_is_1(splits: int) -> None:
    score = measures.inception_score(np.full((100, 7), 1 / 7), splits=splits)
    assert score.mean == pytest.approx(1, abs=1e-12)
    assert score.std == pytest.approx(0, abs=1e-12)


def test_the_inception_score_of_balanced_certain_probabilities_is_the_number_of_classes() -> None:
    score = measures.inception_score(np.tile(np.eye(7), (20, 1)), splits=1)
    assert score.mean == pytest.approx(7, abs=1e-12)


def test_the_inception_score_of_one_certain_class_is_1() -> None:
    assert measures.inception_score(np.tile(np.eye(7)[2], (50, 1))).mean == pytest.approx(1, abs=1e-12)


def test_the_inception_score_is_that_of_two_rows_by_hand() -> None:
    """p(y) is (1/2, 1/2), so KL of each row is ln 2 − H(0.9)."""
    entropy = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    score = measures.inception_score(np.array([[0.9, 0.1], [0.1, 0.9]]), splits=1)
    assert score.mean == pytest.approx(math.exp(math.log(2) - entropy), rel=1e-12)


def test_the_inception_score_is_that_of_torchmetrics() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchmetrics.image.inception import InceptionScore

        theirs = InceptionScore(feature=torch.nn.Identity(), splits=1)
    logits = torch.randn(200, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    theirs.update(logits)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the deviation of a single split
        expected = float(theirs.compute()[0])
    assert measures.inception_score(logits.softmax(1).numpy(), splits=1).mean == pytest.approx(expected, rel=1e-6)


def test_sorting_by_class_does_not_lower_the_inception_score() -> None:
    sorted_by_class = np.repeat(np.eye(5), 100, axis=0)
    assert measures.inception_score(sorted_by_class, splits=5).mean == pytest.approx(5, rel=0.05)


def test_an_inception_score_has_at_most_one_split_per_image() -> None:
    assert measures.inception_score(np.eye(3), splits=10).mean == pytest.approx(1)


def test_missing_modes_are_the_classes_that_no_image_is_taken_for() -> None:
    assert measures.missing_modes(np.array([0, 0, 3, 3]), 5) == 3
    assert measures.missing_modes(np.arange(5), 5) == 0


def test_accuracy_is_a_share() -> None:
    assert measures.accuracy(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2])) == 0.75
    assert math.isnan(measures.accuracy(np.zeros(0, int), np.zeros(0, int)))


# ---- FID


def test_fid_of_equal_sets_is_0() -> None:
    assert measures.fid(CLOUD, CLOUD) == pytest.approx(0, abs=1e-9)


def test_fid_of_shifted_sets_is_the_squared_shift() -> None:
    assert measures.fid(CLOUD, CLOUD + 2.0) == pytest.approx(6 * 2.0**2, rel=1e-9)


def test_fid_of_gaussians_with_diagonal_covariances_is_the_closed_form() -> None:
    """|μ₁ − μ₂|² + Σ (σ₁ − σ₂)²."""
    first = with_moments(50, np.zeros(4), np.diag([1.0, 4.0, 9.0, 0.25]))
    second = with_moments(90, np.array([1.0, 0.0, -2.0, 0.0]), np.diag([4.0, 4.0, 1.0, 0.25]))
    assert measures.fid(first, second) == pytest.approx((1 + 4) + (1 + 0 + 4 + 0), rel=1e-9)


def test_fid_is_the_formula_of_its_paper_for_any_covariances() -> None:
    factors = RNG.normal(size=(2, 5, 5))
    first, second = (factor @ factor.T + np.eye(5) for factor in factors)
    mean = RNG.normal(size=5)
    ours = measures.fid(with_moments(60, np.zeros(5), first), with_moments(70, mean, second))
    expected = mean @ mean + np.trace(first + second - 2 * np.real(sqrtm(first @ second)))
    assert ours == pytest.approx(float(expected), rel=1e-9)


def test_fid_is_that_of_torchmetrics() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchmetrics.image.fid import FrechetInceptionDistance

        features = torch.nn.Identity()
        features.num_features = 6  # type: ignore[assignment]
        theirs = FrechetInceptionDistance(feature=features).set_dtype(torch.float64)
    other = RNG.normal(0.5, 2.0, size=(200, 6))
    theirs.update(torch.from_numpy(CLOUD), real=True)
    theirs.update(torch.from_numpy(other), real=False)
    assert measures.fid(CLOUD, other) == pytest.approx(float(theirs.compute()), rel=1e-6)


def test_fid_precision_and_recall_are_those_of_torch_fidelity() -> None:
    pytest.importorskip("torch_fidelity")
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

    rng = np.random.default_rng(1)
    real, fake = rng.normal(size=(150, 4)), rng.normal(0.6, 0.8, size=(120, 4))
    first, second = (torch.from_numpy(x) for x in (real, fake))
    statistics = (fid_features_to_statistics(x) for x in (first, second))
    theirs = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert measures.fid(real, fake) == pytest.approx(theirs, rel=1e-6)
    expected = prc_features_to_metric(second, first, verbose=False)
    ours = measures.precision_recall(real, fake)
    assert (ours.precision, ours.recall) == pytest.approx((expected["precision"], expected["recall"]), abs=1e-6)
    assert 0.2 < ours.recall < ours.precision < 1


def test_fid_is_exact_with_fewer_images_than_features() -> None:
    """Two sets along one axis of many: the closed form in one dimension."""
    first, second = np.zeros((10, 40)), np.zeros((8, 40))
    first[:, 3] = with_moments(10, np.zeros(1), np.eye(1))[:, 0]
    second[:, 3] = with_moments(8, np.zeros(1), 9 * np.eye(1))[:, 0]
    assert measures.fid(first, second) == pytest.approx((3 - 1) ** 2, rel=1e-9)
    assert measures.fid(first, first) == pytest.approx(0, abs=1e-12)


def test_fid_and_kid_take_features_of_32_bits() -> None:
    assert measures.fid(CLOUD.astype(np.float32), CLOUD.astype(np.float32)) == pytest.approx(0, abs=1e-9)
    assert abs(measures.kid(CLOUD.astype(np.float32), CLOUD.astype(np.float32)).mean) < 0.1


# ---- KID


def test_kid_is_the_unbiased_estimate_by_hand() -> None:
    """The mean of k over pairs of different images, less twice that across; the mean over subsets is that of all."""
    real, fake = CLOUD[:8], CLOUD[8:16] + 0.5

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / 6 + 1) ** 3)

    def among(x: np.ndarray) -> float:
        return float(np.mean([kernel(x[i], x[j]) for i in range(8) for j in range(8) if i != j]))

    across = float(np.mean([kernel(x, y) for x in real for y in fake]))
    expected = among(real) + among(fake) - 2 * across
    drawn = measures.kid(real, fake, subsets=2000, subset_size=4)
    assert drawn.mean == pytest.approx(expected, abs=4 * drawn.std / math.sqrt(2000))


def test_kid_has_no_bias() -> None:
    """Where FID of two small sets of one distribution is far above 0, KID is 0 within its error."""
    values = [measures.kid(*RNG.normal(size=(2, 40, 6)), subsets=10, seed=seed).mean for seed in range(60)]
    error = np.std(values) / math.sqrt(60)
    assert abs(np.mean(values)) < 3 * error
    assert min(values) < 0


def test_kid_grows_with_the_distance() -> None:
    near, far = measures.kid(CLOUD, CLOUD + 0.5).mean, measures.kid(CLOUD, CLOUD + 2.0).mean
    assert 0 < near < far


def test_kid_is_the_same_for_the_same_seed() -> None:
    assert measures.kid(CLOUD, FAR, seed=1) == measures.kid(CLOUD, FAR, seed=1)
    assert measures.kid(CLOUD, FAR, seed=1) != measures.kid(CLOUD, FAR, seed=2)


# ---- neighbourhoods


def test_of_equal_sets_precision_recall_density_and_coverage_are_1() -> None:
    assert measures.precision_recall(CLOUD, CLOUD) == Fidelity(1.0, 1.0)
    assert measures.density_coverage(CLOUD, CLOUD) == Coverage(1.0, 1.0)


def test_of_disjoint_sets_precision_recall_density_and_coverage_are_0() -> None:
    assert measures.precision_recall(CLOUD, FAR) == Fidelity(0.0, 0.0)
    assert measures.density_coverage(CLOUD, FAR) == Coverage(0.0, 0.0)


def test_of_one_distribution_density_is_about_1() -> None:
    other = np.random.default_rng(5).normal(size=CLOUD.shape)
    assert measures.density_coverage(CLOUD, other).density == pytest.approx(1, abs=0.15)


def test_fakes_that_miss_a_mode_have_precision_without_recall() -> None:
    found = measures.precision_recall(CLUSTERS, CLUSTERS[:40])
    assert found.precision == 1.0
    assert found.recall == 0.5
    assert measures.density_coverage(CLUSTERS, CLUSTERS[:40]).coverage == 0.5


def test_fakes_with_a_mode_that_is_not_real_have_recall_without_precision() -> None:
    found = measures.precision_recall(CLUSTERS[:40], CLUSTERS)
    assert found.precision == 0.5
    assert found.recall == 1.0
    assert measures.density_coverage(CLUSTERS[:40], CLUSTERS) == Coverage(0.5, 1.0)


def test_balls_reach_to_the_kth_neighbour() -> None:
    """Real at 0, 1, 2 and 10: with one neighbour the balls have the radii 1, 1, 1 and 8."""
    real = np.array([[0.0], [1.0], [2.0], [10.0]])
    fake = np.array([[-0.9], [-1.1], [2.5], [17.0]])
    assert measures.precision_recall(real, fake, neighbours=1).precision == 0.75
    # the fakes lie in the balls of 0; of none; of 2 and of 10; of 10
    found = measures.density_coverage(real, fake, neighbours=1)
    assert found == Coverage(density=4 / 4, coverage=3 / 4)


def test_neighbourhoods_do_not_depend_on_where_the_features_lie() -> None:
    other = np.random.default_rng(6).normal(0.3, 1.2, size=(200, 6))
    assert measures.precision_recall(CLOUD, other) == measures.precision_recall(CLOUD + 1e6, other + 1e6)
    assert measures.density_coverage(CLOUD, other) == measures.density_coverage(CLOUD + 1e6, other + 1e6)


def test_the_chunk_size_does_not_matter() -> None:
    other = np.random.default_rng(7).normal(0.3, 1.2, size=(200, 6))
    at_once = measures.precision_recall(CLOUD, other), measures.density_coverage(CLOUD, other)
    in_chunks = measures.precision_recall(CLOUD, other, chunk=7), measures.density_coverage(CLOUD, other, chunk=7)
    assert in_chunks == at_once


@pytest.mark.parametrize("few", [0, 3])
def test_too_few_images_are_named(few: int) -> None:
    for measure in (measures.precision_recall, measures.density_coverage, measures.kid):
        with pytest.raises(ValueError, match="needs at least"):
            measure(CLOUD, CLOUD[:few])
    with pytest.raises(ValueError, match="at least 2 images"):
        measures.fid(CLOUD[:1], CLOUD)


# ---- diversity


def test_diversity_is_the_mean_distance_of_two_images_of_a_group() -> None:
    """Distances 3, 4 and 5 in one group, 10 in the other; a single image has none."""
    features = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0], [0.0, 0.0], [0.0, 10.0], [9.0, 9.0]])
    groups = np.array([7, 7, 7, 2, 2, 5])
    assert measures.diversity_within(features, groups) == pytest.approx((4 + 10) / 2, rel=1e-12)


def test_copies_have_no_diversity_and_single_images_have_nan() -> None:
    assert measures.diversity_within(np.ones((4, 3)), np.zeros(4, int)) == 0
    assert math.isnan(measures.diversity_within(np.ones((4, 3)), np.arange(4)))


def test_pairs_are_different_rows_of_one_group_up_to_the_limit() -> None:
    groups = np.array([3, 1, 3, 3, 1, 7])
    assert measures.pairs_within(groups, most=10).tolist() == [[1, 4], [0, 2], [0, 3], [2, 3]]
    few = measures.pairs_within(np.repeat([0, 1], 20), most=6, seed=1)
    assert len(few) == 12
    assert len({tuple(pair) for pair in few.tolist()}) == 12
    assert (few[:, 0] < few[:, 1]).all()
    assert ((few < 20).all(1) | (few >= 20).all(1)).all()
    assert measures.pairs_within(np.arange(4), most=5).shape == (0, 2)


def test_every_group_weighs_the_same_in_a_mean_of_groups() -> None:
    assert measures.mean_of_groups(np.array([1.0, 3.0, 10.0]), np.array([0, 0, 1])) == 6
    assert math.isnan(measures.mean_of_groups(np.zeros(0), np.zeros(0, int)))


# ---- attention


def test_regions_are_matched_to_the_parts_that_they_follow() -> None:
    parts = RNG.uniform(0, 100, (20, 4, 2))
    centres = parts[:, [2, 0, 3]] + RNG.normal(size=(20, 3, 2))
    regions, matched = measures.match_regions(centres, parts, np.ones((20, 4), bool), np.full(20, 100.0))
    assert dict(zip(regions.tolist(), matched.tolist(), strict=True)) == {0: 2, 1: 0, 2: 3}


def test_the_match_is_globally_optimal_not_greedy() -> None:
    """The first region is nearer to part 0 than the second, but the second has no other."""
    parts = np.array([[[0.0, 0.0], [3.0, 0.0]]])
    centres = np.array([[[1.0, 0.0], [-2.0, 0.0]]])
    regions, matched = measures.match_regions(centres, parts, np.ones((1, 2), bool), np.ones(1))
    assert dict(zip(regions.tolist(), matched.tolist(), strict=True)) == {0: 1, 1: 0}


def test_values_of_invisible_parts_are_ignored() -> None:
    parts = np.array([[[0.0, 0.0], [np.nan, np.nan], [9.0, 9.0]], [[np.nan, np.nan], [np.nan, np.nan], [9.0, 9.0]]])
    visible = ~np.isnan(parts).any(-1)
    centres = np.array([[[9.0, 9.0], [0.0, 0.0]], [[9.0, 9.0], [5.0, 5.0]]])
    regions, matched = measures.match_regions(centres, parts, visible, np.ones(2))
    assert dict(zip(regions.tolist(), matched.tolist(), strict=True)) == {0: 2, 1: 0}
    assert measures.pck(centres[:, [1, 0]], parts[:, [0, 2]], visible[:, [0, 2]], np.ones(2)) == 1.0


def test_pck_counts_what_lies_within_alpha_of_the_scale() -> None:
    """Boxes of 100 and 50 pixels: 10 and 5 are near enough. Of four visible parts three are."""
    parts = np.zeros((2, 3, 2))
    points = np.array([[[10.0, 0.0], [6.0, 8.0], [0.0, 0.0]], [[0.0, 5.1], [4.9, 0.0], [0.0, 0.0]]])
    visible = np.array([[True, True, False], [True, True, False]])
    assert measures.pck(points, parts, visible, np.array([100.0, 50.0]), alpha=0.1) == 0.75
    assert measures.pck(points, parts, visible, np.array([100.0, 50.0]), alpha=0.05) == 0.0
    assert math.isnan(measures.pck(points, parts, np.zeros((2, 3), bool), np.ones(2)))
