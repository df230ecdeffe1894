"""The JSON of a score, as `dagaug score` writes it, made by hand."""

from __future__ import annotations

import json

from dagaug.score.results import ScoreResult


def about(mean: float, reach: float = 0.1) -> dict[str, float]:
    return {"mean": mean, "low": mean - reach, "high": mean + reach}


def compared(arm: str, baseline: str, gain: float, verdict: str) -> dict[str, object]:
    return {
        "arm": arm, "baseline": baseline, "difference": about(gain), "p": 0.01, "p_images": 0.002, "verdict": verdict,
        "classes": [
            {"name": "<i>a", "difference": about(-0.1, 0.05), "sure": False},
            {"name": "b", "difference": about(0.3, 0.1), "sure": True},
            {"name": "c", "difference": about(-1e-9, 0.0), "sure": False},
        ],
        "better": [{"truth": "b", "taken_for": "<i>a", "before": 0.5, "after": 0.25}],
        "worse": [],
    }  # fmt: skip


SCORE = {
    "arms": [
        {"arm": "real", "images": 0, "accuracies": [0.6], "accuracy": about(0.6), "calibration_error": about(0.1)},
        {"arm": "real+dagaug", "images": 1234, "accuracies": [0.7], "accuracy": about(0.7)},
        {"arm": "cutout", "images": 1234, "accuracies": [0.7], "accuracy": about(0.7)},
    ],
    "comparisons": [
        compared("real+dagaug", "real", 0.2, "helps"),
        compared("cutout", "real", 0.1, "no measurable effect"),
        compared("real+dagaug", "cutout", -0.3, "harms"),
    ],
    "sentences": ["one", "two", "three"],
    "classes": 3, "real": 200, "synthetic": 1234, "test": 30, "steps": 9, "synthetic_share": 0.25, "options": {},
    "fractions": [
        {
            "fraction": 0.5, "real": 100, "synthetic": 300, "without": about(0.4), "with_synthetic": about(0.5),
            "worth": 150.0,
        },
        {
            "fraction": 1.0, "real": 200, "synthetic": 1234, "without": about(0.6), "with_synthetic": about(0.8),
            "worth": None,
        },
    ],
    "ratios": [{"share": 0.5, "accuracy": about(0.65), "difference": about(0.05)}],
    "notes": ["beware"],
}  # fmt: skip


def a_score(**changes: object) -> ScoreResult:
    """The score of :data:`SCORE` with other values for some keys."""
    return ScoreResult.from_json(json.dumps(SCORE | changes))
