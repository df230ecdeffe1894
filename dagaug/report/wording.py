"""How names and numbers read to people: class names, arms, points, intervals."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

__all__ = ["arm_words", "interval", "names_of", "p_value", "percent", "reason", "short_name", "signed", "term_words"]

_ARMS = {
    "real": "real images; flip and shift",
    "strong": "real images; harder augmentation (RandAugment, MixUp, CutMix)",
    "real+dagaug": "real images and the file’s synthetic ones",
    "strong+dagaug": "the same, with the harder augmentation",
    "cutout": "control: the same sources, unmorphed, on the same backgrounds",
    "cutwarp": "control: the cut-outs warped at random, without a reference",
    "cutout+dagaug": "real images and the file’s, half of them as cut-outs",
    "random": "control: morphs drawn without the classifier’s selection",
}

_TERMS = {
    "object": "mask of the object against its first guess",
    "equivariance": "regions and place names follow a known warp",
    "separation": "attended regions keep apart",
    "inside": "attended regions lie on the object",
    "label": "class told from the attended instances",
    "flow": "error of the flow where the warp is known",
    "match": "source places found again (cross-entropy)",
    "mask": "mask of the result where it is known",
    "symmetry": "one image of a class in the pose of another (eq. 6)",
    "detail": "fine detail that it lacks or has too much of, cell by cell",
    "identity": "result is still of the source’s class",
    "consistency": "instances of result and source agree (eq. 5)",
    "pose": "result has the reference’s pose",
    "cycle": "there and back gives the source",
    "silhouette": "outline of the result against the reference’s",
    "adversarial": "the discriminators find out the results (eqs. 7, 8)",
    "discriminators": "the discriminators’ own loss",
}

_REASONS = {
    "kept": "in the file, to be trained on",
    "not the best of its reference": "another variant in the pose of the same reference was surer",
    "not the best of its source": "another result of the same source was surer",
    "mislabelled": "the classifier takes it for another class than the source’s",
    "below --min-confidence": "the classifier is not sure enough",
    "above --max-confidence": "too easy: the classifier is too sure",
}

_MINUS = "−"


def arm_words(name: str) -> str:
    """What an arm of a score was trained on; other names are those that ``--arm`` gave."""
    return _ARMS.get(name, "real images and those of another file or folder")


def reason(verdict: str) -> str:
    """What a verdict of the selection means; empty for a verdict of another program."""
    return _REASONS.get(verdict, "")


def term_words(name: str) -> str:
    """What a term of the training's loss measures; empty for one that is not known."""
    return _TERMS.get(name, "")


def short_name(name: str) -> str:
    """A class name for people: no leading number as in CUB-200-2011, spaces for underscores."""
    return re.sub(r"^\d+\.(?=.)", "", name).replace("_", " ").strip() or name


def names_of(classes: Sequence[str]) -> list[str]:
    """Short names, left long where two would be the same."""
    short = [short_name(name) for name in classes]
    count = Counter(short)
    return [name if count[name] == 1 else long for name, long in zip(short, classes, strict=True)]


def percent(share: float | int, digits: int = 1) -> str:
    """A share in [0, 1] as per cent."""
    return f"{100 * share:.{digits}f}%"


def signed(share: float | int, digits: int = 1) -> str:
    """A difference of shares as points with their sign; what rounds to nothing has none that is negative."""
    return f"{round(100 * share, digits) + 0.0:+.{digits}f}".replace("-", _MINUS)


def interval(low: float | int, high: float | int, *, sign: bool = False) -> str:
    """Both ends of an interval of shares, in per cent or points."""
    if sign:
        return f"{signed(low)} to {signed(high)}"
    return f"{100 * low:.1f} to {100 * high:.1f}".replace("-", _MINUS)


def p_value(p: float | int) -> str:
    """A p value with two digits that matter, or that it is very small."""
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"
