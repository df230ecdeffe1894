"""The JSON of ``dagaug score`` as rows of a table, with places on a common axis for a plot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError
from pydantic.types import JsonValue

from dagaug.errors import DataError

__all__ = ["ScoreRow", "ScoreTable", "read_score"]


class _Estimate(BaseModel):
    mean: float
    low: float
    high: float


class _Arm(BaseModel):
    arm: str
    accuracies: list[float]
    accuracy: _Estimate


class _Comparison(BaseModel):
    arm: str
    difference: _Estimate
    p: float
    verdict: Literal["helps", "no measurable effect", "harms"]


class _Score(BaseModel):
    """What the table needs of the JSON; shares are in [0, 1], other keys are ignored."""

    arms: list[_Arm]
    comparisons: list[_Comparison]
    sentences: list[str]
    classes: int
    real: int
    synthetic: int
    test: int
    steps: int
    synthetic_share: float
    options: dict[str, JsonValue]


@dataclass(frozen=True)
class ScoreRow:
    """An arm. Numbers are texts; ``low``, ``width``, ``mean`` and ``dots`` are per cent of the axis."""

    arm: str
    accuracy: str
    interval: str
    low: float
    width: float
    mean: float
    dots: tuple[float, ...]
    difference: str
    difference_interval: str
    p: str


@dataclass(frozen=True)
class ScoreTable:
    """Attributes as they stand on the page.

    Attributes:
        sentences: (verdict, sentence) of each comparison.
        rows: one for each arm.
        axis: the accuracies at both ends of the axis.
        setting: what was trained on what, in a sentence.
    """

    sentences: tuple[tuple[str, str], ...]
    rows: tuple[ScoreRow, ...]
    axis: tuple[str, str]
    setting: str


def read_score(path: Path) -> ScoreTable:
    """Read the file.

    Raises:
        DataError: it is missing or no score.
    """
    try:
        score = _Score.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); make it first: dagaug score") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        reason = f"{where}: {first['msg']}" if where else first["msg"]
        raise DataError(f"{path}: not a score ({reason}); make it anew: dagaug score") from error
    return _table(score)


def _table(score: _Score) -> ScoreTable:
    low, high = _axis(score)

    def place(share: float) -> float:
        return round(100 * min(1.0, max(0.0, (share - low) / (high - low))), 2)

    compared = {comparison.arm: comparison for comparison in score.comparisons}
    return ScoreTable(
        # A sentence without a comparison has no verdict to colour it.
        sentences=tuple(
            (score.comparisons[index].verdict if index < len(score.comparisons) else "", sentence)
            for index, sentence in enumerate(score.sentences)
        ),
        rows=tuple(
            ScoreRow(
                arm=arm.arm,
                accuracy=f"{100 * arm.accuracy.mean:.1f}%",
                interval=_interval(arm.accuracy, ".1f"),
                low=place(arm.accuracy.low),
                width=round(place(arm.accuracy.high) - place(arm.accuracy.low), 2),
                mean=place(arm.accuracy.mean),
                dots=tuple(map(place, arm.accuracies)),
                difference=f"{100 * compared[arm.arm].difference.mean:+.1f}" if arm.arm in compared else "",
                difference_interval=(_interval(compared[arm.arm].difference, "+.1f") if arm.arm in compared else ""),
                p=f"{compared[arm.arm].p:.2g}" if arm.arm in compared else "",
            )
            for arm in score.arms
        ),
        axis=(f"{100 * low:.0f}%", f"{100 * high:.0f}%"),
        setting=_setting(score),
    )


def _axis(score: _Score) -> tuple[float, float]:
    """Whole per cents round everything that is drawn, within 0 to 100%."""
    drawn = [value for arm in score.arms for value in arm.accuracies]
    drawn += [value for arm in score.arms for value in (arm.accuracy.low, arm.accuracy.high)]
    low, high = min(drawn, default=0.0), max(drawn, default=1.0)
    low, high = max(0.0, 100 * low // 1 / 100 - 0.01), min(1.0, -(-100 * high // 1) / 100 + 0.01)
    return (low, high) if high > low else (0.0, 1.0)


def _interval(estimate: _Estimate, style: str) -> str:
    return f"{100 * estimate.low:{style}} to {100 * estimate.high:{style}}"


def _setting(score: _Score) -> str:
    fit = score.options.get("fit")
    network = fit.get("name") if isinstance(fit, dict) else None
    seeds = max((len(arm.accuracies) for arm in score.arms), default=0)
    return (
        f"{network or 'The same classifier'} from {seeds} seeds, {score.steps:,} steps in every arm; "
        f"{score.real:,} real and {score.synthetic:,} synthetic training images, {score.synthetic_share:.0%} of a "
        f"batch synthetic where there are any; {score.test:,} test images of {score.classes:,} classes."
    )
