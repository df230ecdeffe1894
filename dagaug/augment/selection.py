"""Selection of candidates by the classifier's confidence, with a verdict for each candidate (paper, Sec. 4.6).

The paper keeps the best candidate of each source. The default here keeps the best of each pair of source and
reference, because one image per source costs number and diversity.

Cut-outs compete with cut-outs only. They show the source's own pixels, so classifiers are much more confident about
them, and almost no morph would win.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Integer, UInt8

from dagaug.runtime.errors import UsageError

__all__ = [
    "KEPT",
    "MISLABELLED",
    "NOT_BEST_OF_REFERENCE",
    "NOT_BEST_OF_SOURCE",
    "POOR_CORRESPONDENCE",
    "SURPLUS",
    "TOO_HIGH",
    "TOO_LOW",
    "VERDICTS",
    "Keep",
    "check_bounds",
    "select",
    "verdict_counts",
]

Keep = Literal["per-reference", "per-image", "all"]

VERDICTS: tuple[str, ...] = (
    "kept",
    "not the best of its reference",
    "not the best of its source",
    "mislabelled",
    "below --min-confidence",
    "above --max-confidence",
    "poor correspondence",
    "surplus for --balance",
)
"""Names of the verdicts; a verdict is an index into this table. The names are part of the stored file."""

(
    KEPT, NOT_BEST_OF_REFERENCE, NOT_BEST_OF_SOURCE, MISLABELLED, TOO_LOW, TOO_HIGH, POOR_CORRESPONDENCE, SURPLUS
) = range(len(VERDICTS))  # fmt: skip


def check_bounds(min_confidence: float | int, max_confidence: float | int) -> None:
    """Check that 0 <= min_confidence <= max_confidence <= 1.

    Raises:
        UsageError: they are not.
    """
    if not 0.0 <= max_confidence <= 1.0:
        raise UsageError("give a number from 0 to 1", option="max_confidence", value=max_confidence)
    if not 0.0 <= min_confidence <= max_confidence:
        raise UsageError(
            f"give a number from 0 to the largest confidence, {max_confidence:g}",
            option="min_confidence", value=min_confidence,
        )  # fmt: skip


def select(
    *,
    source: Integer[np.ndarray, " N"],
    reference: Integer[np.ndarray, " N"],
    label: Integer[np.ndarray, " N"],
    predicted: Integer[np.ndarray, " N"],
    confidence: Float[np.ndarray, " N"],
    group: Integer[np.ndarray, " N"] | None = None,
    keep: str = "per-reference",
    allow_mislabelled: bool = True,
    min_confidence: float = 0.0,
    max_confidence: float = 1.0,
    correspondence: Float[np.ndarray, " N"] | None = None,
    min_correspondence: float = 0.0,
    quota: Integer[np.ndarray, " N"] | None = None,
) -> UInt8[np.ndarray, " N"]:
    """Give each candidate a verdict, an index into :data:`VERDICTS`.

    First, each candidate is checked alone. It is rejected if too few places of its reference were found in its source,
    if it is predicted as another class than ``label`` (unless that is allowed), or if its confidence lies outside
    ``[min_confidence, max_confidence]``; the verdict is the first of these reasons. Then the remaining candidates of a
    group compete by confidence. Groups are (source, reference, group) for ``per-reference`` and (source, group) for
    ``per-image``. Ties go to the earlier candidate. A group may end without a winner. Of each source, the first
    ``quota`` winners in the given order are kept.

    Args:
        source: source of each candidate, any integer id.
        reference: reference of each candidate, any integer id.
        label: class of the source.
        predicted: top-1 class of the classifier.
        confidence: p(label), in [0, 1]; NaN is rejected as too low.
        group: candidates with different integers do not compete; None puts all into one group.
        keep: one of :data:`Keep`; ``all`` skips the competition.
        allow_mislabelled: accept candidates whose top-1 prediction is another class.
        min_confidence: smallest accepted confidence.
        max_confidence: largest accepted confidence; discards morphs that are too easy.
        correspondence: share of mutual nearest neighbours of each candidate, in [0, 1]; None if it was not measured.
        min_correspondence: smallest accepted share.
        quota: largest number of candidates that are kept of each candidate's source; None without a limit.

    Raises:
        UsageError: an unknown rule, or bounds outside [0, 1] or in the wrong order.
    """
    if keep not in get_args(Keep):
        raise UsageError(f"unknown rule; choose one of {', '.join(get_args(Keep))}", option="keep", value=keep)
    check_bounds(min_confidence, max_confidence)
    verdicts = np.full(len(source), KEPT, dtype=np.uint8)
    verdicts[confidence > max_confidence] = TOO_HIGH
    verdicts[~(confidence >= min_confidence)] = TOO_LOW  # the negation catches NaN
    if not allow_mislabelled:
        verdicts[predicted != label] = MISLABELLED
    if correspondence is not None:
        verdicts[correspondence < min_correspondence] = POOR_CORRESPONDENCE
    group = np.zeros(len(source), np.uint8) if group is None else group
    if keep == "per-reference":
        _keep_best(verdicts, confidence, (group, reference, source), NOT_BEST_OF_REFERENCE)
    elif keep == "per-image":
        _keep_best(verdicts, confidence, (group, source), NOT_BEST_OF_SOURCE)
    if quota is not None:
        _keep_first(verdicts, source, quota)
    return verdicts


def _keep_best(
    verdicts: UInt8[np.ndarray, " N"],
    confidence: Float[np.ndarray, " N"],
    keys: tuple[np.ndarray, ...],
    losers_verdict: int,
) -> None:
    """Keep the most confident candidate of each group (equal in all ``keys``); changes ``verdicts`` in place."""
    rows = np.flatnonzero(verdicts == KEPT)
    # Sorted by group, then by falling confidence. lexsort is stable, so ties keep the given order.
    order = rows[np.lexsort((-confidence[rows], *(key[rows] for key in keys)))]
    same_as_previous = np.zeros(len(order), dtype=bool)
    if len(order):
        same_as_previous[1:] = np.logical_and.reduce([key[order][1:] == key[order][:-1] for key in keys])
    verdicts[order[same_as_previous]] = losers_verdict


def _keep_first(
    verdicts: UInt8[np.ndarray, " N"], source: Integer[np.ndarray, " N"], quota: Integer[np.ndarray, " N"]
) -> None:
    """Keep the first ``quota`` candidates of each source; changes ``verdicts`` in place."""
    rows = np.flatnonzero(verdicts == KEPT)
    order = rows[np.argsort(source[rows], kind="stable")]
    of_source = source[order]
    place = np.arange(len(order)) - np.searchsorted(of_source, of_source)
    verdicts[order[place >= quota[order]]] = SURPLUS


def verdict_counts(verdicts: UInt8[np.ndarray, " N"]) -> dict[str, int]:
    """Number of candidates by verdict name, in the order of :data:`VERDICTS`, without zeros."""
    counts = np.bincount(verdicts, minlength=len(VERDICTS))
    return {name: int(count) for name, count in zip(VERDICTS, counts, strict=True) if count}
