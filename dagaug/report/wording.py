"""Texts for readers: class names, descriptions of arms, verdicts and loss terms, percentages, intervals."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

__all__ = [
    "arm_description",
    "display_names",
    "interval",
    "p_value",
    "percent",
    "reason",
    "short_name",
    "signed",
    "term_description",
]

_ARMS = {
    "real": "real images alone",
    "cutmix": "real images with CutMix",
    "mixup": "real images with MixUp",
    "trivialaugment": "real images with TrivialAugment",
    "real+dagaug": "real images and the synthetic images of the file",
    "dagaug+cutmix": "real and synthetic images with CutMix",
    "cutout": "control: the unchanged sources on the same backgrounds",
    "cutwarp": "control: cut-outs with random warps, without a reference",
    "frozen": "control: the same morphs by frozen pretrained features, without training",
    "cutout+dagaug": "real and synthetic images, half of the latter replaced by cut-outs",
    "random": "control: morphs chosen at random, without selection by the classifier",
}

_TERMS = {
    "object": "object mask against its initial estimate",
    "equivariance": "regions and location features follow a known warp",
    "separation": "attended regions do not overlap",
    "inside": "attended regions lie on the object",
    "label": "class predicted from the attended instances",
    "flow": "error of the flow where the warp is known",
    "match": "matching of source locations (cross-entropy)",
    "mask": "mask of the result, where the true one is known",
    "symmetry": "one image of a class in the pose of another (eq. 6)",
    "detail": "missing or excess fine detail, per cell",
    "identity": "result keeps the source’s class",
    "consistency": "instances of result and source agree (eq. 5)",
    "pose": "result has the reference’s pose",
    "cycle": "reconstruction of the source (cycle consistency)",
    "silhouette": "outline of the result against that of the reference",
    "adversarial": "generator’s adversarial loss (eqs. 7, 8)",
    "discriminators": "loss of the discriminators",
}

_REASONS = {
    "kept": "used as training images",
    "not the best of its reference": "another variant for the same reference had a higher confidence",
    "not the best of its source": "another result of the same source had a higher confidence",
    "mislabelled": "the classifier predicts another class than the source’s",
    "below --min-confidence": "confidence too low",
    "above --max-confidence": "confidence too high: too easy",
    "poor correspondence": "too few places of the reference were found in the source",
    "unusable mask": "the mask of the source or of the reference is surely wrong",
    "surplus for --balance": "a reserve that was not needed: its source had given its share",
}

_MINUS = "−"


def arm_description(name: str) -> str:
    """Training images of an arm of a score; unknown names are arms that the user added."""
    return _ARMS.get(name, "real images and the images of another file or folder")


def reason(verdict: str) -> str:
    """Meaning of a verdict of the selection; empty for an unknown verdict."""
    return _REASONS.get(verdict, "")


def term_description(name: str) -> str:
    """Meaning of a loss term; empty for an unknown term."""
    return _TERMS.get(name, "")


def short_name(name: str) -> str:
    """A class name without the leading number of CUB-200-2011, with spaces for underscores."""
    return re.sub(r"^\d+\.(?=.)", "", name).replace("_", " ").strip() or name


def display_names(classes: Sequence[str]) -> list[str]:
    """Short class names; the full names where two short ones would be equal."""
    short = [short_name(name) for name in classes]
    count = Counter(short)
    return [name if count[name] == 1 else long for name, long in zip(short, classes, strict=True)]


def percent(share: float | int, digits: int = 1) -> str:
    """A fraction in [0, 1] as a percentage."""
    return f"{100 * share:.{digits}f}%"


def signed(share: float | int, digits: int = 1) -> str:
    """A difference of fractions in percentage points, with sign; a rounded zero is +0."""
    return f"{round(100 * share, digits) + 0.0:+.{digits}f}".replace("-", _MINUS)


def interval(low: float | int, high: float | int, *, sign: bool = False) -> str:
    """Both ends of an interval of fractions, in per cent; with ``sign`` in signed points."""
    if sign:
        return f"{signed(low)} to {signed(high)}"
    return f"{100 * low:.1f} to {100 * high:.1f}".replace("-", _MINUS)


def p_value(p: float | int) -> str:
    """A p-value with two significant digits, or "< 0.0001"."""
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"
