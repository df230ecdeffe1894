"""Numbers of steps and synthetic shares of a score's arms, and what cross-validation tried, as texts."""

from __future__ import annotations

from dataclasses import dataclass

from dagaug.report.wording import percent
from dagaug.score.results import ArmResult, ScoreResult

__all__ = ["TriedRow", "arm_settings", "chosen_settings", "tried_rows"]


@dataclass(frozen=True)
class TriedRow:
    """Settings that cross-validation tried for an arm, as texts."""

    arm: str
    steps: str
    share: str
    trainings: str
    accuracy: str
    chosen: bool


def tried_rows(score: ScoreResult) -> tuple[TriedRow, ...]:
    """All settings that were tried, in the order of the arms; none if nothing was chosen."""
    return tuple(
        TriedRow(
            arm=one.arm,
            steps=f"{one.steps:,}",
            share="" if one.synthetic_share is None else percent(one.synthetic_share, 0),
            trainings=f"{one.trainings:,}" if one.trainings else "",
            accuracy=percent(one.accuracy),
            chosen=one.chosen,
        )
        for one in score.validated
    )


def arm_settings(arm: ArmResult) -> str:
    """Steps and synthetic share of an arm: ``400 steps, 30% of a batch synthetic``."""
    share = "" if arm.synthetic_share is None else f", {arm.synthetic_share:.0%} of a batch synthetic"
    return f"{arm.steps:,} steps{share}"


def chosen_settings(score: ScoreResult) -> str:
    """The settings that each arm chose: ``real 200 steps; real+dagaug 400 steps, 30% of a batch synthetic``."""
    chosen = {one.arm for one in score.validated if one.chosen}
    return "; ".join(f"{arm.arm} {arm_settings(arm)}" for arm in score.arms if arm.arm in chosen)
