"""Which candidates become training images: scores in, verdicts with reasons out (paper, Sec. 4.6).

A candidate is one morph of a source into the pose of a reference (one *variant* of it). The classifier gave
its top-1 prediction and p(label of the source). The paper keeps the best candidate of a source; the default
here keeps the best of each (source, reference), because one image per source costs count and diversity.

All candidates are judged by the same rules, but cut-outs compete with cut-outs alone: the source's own pixels are
recognised far more surely than any morph, of which next to nothing would be left.
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
)
"""A verdict is an index into this table."""

KEPT, NOT_BEST_OF_REFERENCE, NOT_BEST_OF_SOURCE, MISLABELLED, TOO_LOW, TOO_HIGH = range(len(VERDICTS))


def check_bounds(min_confidence: float | int, max_confidence: float | int) -> None:
    """Raise UsageError unless the bounds of the confidence are in order within [0, 1]."""
    if not 0.0 <= min_confidence <= max_confidence <= 1.0:
        raise UsageError(
            f"--min-confidence {min_confidence:g} and --max-confidence {max_confidence:g}: "
            "both lie in [0, 1], the first not above the second"
        )


def select(
    *,
    source: Integer[np.ndarray, " N"],
    reference: Integer[np.ndarray, " N"],
    label: Integer[np.ndarray, " N"],
    predicted: Integer[np.ndarray, " N"],
    confidence: Float[np.ndarray, " N"],
    kind: Integer[np.ndarray, " N"] | None = None,
    keep: str = "per-reference",
    allow_mislabelled: bool = True,
    min_confidence: float = 0.0,
    max_confidence: float = 1.0,
) -> UInt8[np.ndarray, " N"]:
    """Give each candidate its verdict, an index into :data:`VERDICTS`.

    A candidate is first judged alone: predicted as another class than ``label`` (unless that is allowed), or with a
    confidence outside ``[min_confidence, max_confidence]``, it is rejected for the first of these reasons. Those that
    are left compete by confidence within their group: (source, reference) for ``per-reference``, source for
    ``per-image``, and of one ``kind``. Equal confidences are decided for the earlier candidate, so the verdicts
    depend on the arguments alone. A group may end without a winner.

    Args:
        source: each candidate's source, any integer id.
        reference: each candidate's reference, any integer id.
        label: class of the source.
        predicted: the classifier's top-1 class.
        confidence: p(label), in [0, 1]; NaN is rejected as below ``--min-confidence``.
        kind: what competes with its like alone, any integer id; all are of one kind by default.
        keep: the rule, one of :data:`Keep`; ``all`` lets every candidate pass that stands alone.
        allow_mislabelled: keep candidates whose top-1 prediction is another class.
        min_confidence: smallest confidence that is kept.
        max_confidence: largest confidence that is kept (drops the too easy).

    Raises:
        UsageError: an unknown rule, or bounds outside [0, 1] or in the wrong order.
    """
    if keep not in get_args(Keep):
        raise UsageError(f"--keep {keep}: unknown rule; choose one of {', '.join(get_args(Keep))}")
    check_bounds(min_confidence, max_confidence)
    verdicts = np.full(len(source), KEPT, dtype=np.uint8)
    verdicts[confidence > max_confidence] = TOO_HIGH
    verdicts[~(confidence >= min_confidence)] = TOO_LOW  # the negation catches NaN
    if not allow_mislabelled:
        verdicts[predicted != label] = MISLABELLED
    alike = np.zeros(len(source), np.uint8) if kind is None else kind
    if keep == "per-reference":
        _keep_best(verdicts, confidence, (alike, reference, source), NOT_BEST_OF_REFERENCE)
    elif keep == "per-image":
        _keep_best(verdicts, confidence, (alike, source), NOT_BEST_OF_SOURCE)
    return verdicts


def _keep_best(
    verdicts: UInt8[np.ndarray, " N"],
    confidence: Float[np.ndarray, " N"],
    keys: tuple[np.ndarray, ...],
    losers_verdict: int,
) -> None:
    """Among the kept of each group (equal in all ``keys``) leave the most confident, in place."""
    rows = np.flatnonzero(verdicts == KEPT)
    # Sorted by group, then by falling confidence; lexsort is stable, so that ties stay in the given order.
    order = rows[np.lexsort((-confidence[rows], *(key[rows] for key in keys)))]
    same_as_previous = np.zeros(len(order), dtype=bool)
    if len(order):
        same_as_previous[1:] = np.logical_and.reduce([key[order][1:] == key[order][:-1] for key in keys])
    verdicts[order[same_as_previous]] = losers_verdict


def verdict_counts(verdicts: UInt8[np.ndarray, " N"]) -> dict[str, int]:
    """Count the candidates of each verdict, in the order of :data:`VERDICTS`, leaving out empty ones."""
    counts = np.bincount(verdicts, minlength=len(VERDICTS))
    return {name: int(count) for name, count in zip(VERDICTS, counts, strict=True) if count}
