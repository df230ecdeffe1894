"""The arms of a score, and checks of what a user can mistype about them. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dagaug.runtime.errors import UsageError

__all__ = [
    "CONTROLS",
    "DEFAULT_ARMS",
    "MIXED",
    "PROTOCOL_ARMS",
    "QUICK",
    "QUICK_SEEDS",
    "Arm",
    "Control",
    "arm_names",
    "check_arms",
    "check_choices",
    "check_shares",
]

Control = Literal["cutout", "cutwarp", "random", "frozen"]
"""A control: synthetic images that lack one ingredient of the morphs (:mod:`dagaug.score.control_images`)."""

CONTROLS: tuple[Control, ...] = ("cutout", "cutwarp", "random", "frozen")

MIXED = "cutout+dagaug"
"""The synthetic images of the HDF5 file, a random half of them replaced by cut-outs."""


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        name: name in the table.
        images: its synthetic images: those of the HDF5 file (``dagaug``), of a control, half of each (:data:`MIXED`),
            or of another file or folder by the arm's name; "" for none.
        against: names of its baselines.
        mixing: how the images of a batch are mixed.
        trivialaugment: whether TrivialAugment follows the usual augmentation.
    """

    name: str
    images: str = ""
    against: tuple[str, ...] = ("real",)
    mixing: Literal["none", "cutmix", "mixup"] = "none"
    trivialaugment: bool = False


PROTOCOL_ARMS: tuple[Arm, ...] = (
    Arm("real", against=()),
    Arm("cutmix", mixing="cutmix"),
    Arm("mixup", mixing="mixup"),
    Arm("trivialaugment", trivialaugment=True),
    Arm("real+dagaug", "dagaug", against=("real", "cutmix", "mixup", "trivialaugment", *CONTROLS)),
    Arm("dagaug+cutmix", "dagaug", against=("real", "cutmix", "real+dagaug"), mixing="cutmix"),
    Arm("cutout", "cutout"),
    Arm("cutwarp", "cutwarp"),
    Arm("random", "random"),
    Arm("frozen", "frozen"),
    Arm(MIXED, MIXED, against=("real", "real+dagaug", "cutout")),
)
"""All arms of the protocol, in the order of the table."""

DEFAULT_ARMS = ("real", "cutmix", "real+dagaug", "cutout", "cutwarp", "frozen")
"""Arms of a score where none are named: the question, its strongest rivals, and what the GAN's training adds."""

QUICK = ("real", "real+dagaug", "cutout")
"""Arms of a quick score."""

QUICK_SEEDS = 3
"""Trainings of each arm of a quick score; two would give intervals too wide to be useful."""


def arm_names(*, controls: bool = True) -> tuple[str, ...]:
    """Names of all arms; with ``controls=False`` of those that need no checkpoint."""
    return tuple(arm.name for arm in PROTOCOL_ARMS if controls or arm.images not in (*CONTROLS, MIXED))


def check_arms(arms: Sequence[str], others: Sequence[str] = ()) -> None:
    """Check the names of the arms of a score.

    Args:
        arms: of the protocol.
        others: of further arms.

    Raises:
        UsageError: a name is unknown or given twice, or ``real`` is not among the arms.
    """
    known = arm_names()
    for name in arms:
        if name not in known:
            raise UsageError(f"no such arm; choose among {', '.join(known)}", option="arms", value=name)
    if "real" not in arms:
        raise UsageError("add real; all arms are compared with it", option="arms", value=",".join(arms))
    for name in others:
        if not name or name in known or list(others).count(name) > 1:
            raise UsageError("give each arm a different name", option="others", value=name)


def check_shares(fractions: Sequence[float], ratios: Sequence[float], validation: float | None) -> None:
    """Check the shares of a score; arguments as in :class:`dagaug.score.options.ScoreOptions`.

    Raises:
        UsageError: one is out of range.
    """
    for share in fractions:
        if not 0 < share <= 1:
            raise UsageError("give shares above 0 and up to 1", option="fractions", value=f"{share:g}")
    for share in ratios:
        if not 0 < share < 1:
            raise UsageError("give shares between 0 and 1", option="ratios", value=f"{share:g}")
    if validation is not None and not 0 < validation <= 0.5:
        value = f"{validation:g}"
        raise UsageError("give a share above 0 and up to 0.5, such as 0.25", option="validation", value=value)


def check_choices(
    step_choices: Sequence[int], share_choices: Sequence[float], validation: float | None, steps: int | None
) -> None:
    """Check what an arm may choose from.

    Args:
        step_choices, share_choices, validation: as in :class:`dagaug.score.options.ScoreOptions`.
        steps: number of steps that the user named, if any.

    Raises:
        UsageError: a number is out of range, there is nothing to choose, or no images are held out to choose by.
    """
    for count in step_choices:
        if count < 1:
            raise UsageError("give at least 1", option="step_choices", value=count)
    for share in share_choices:
        if not 0 < share < 1:
            raise UsageError("give shares between 0 and 1", option="share_choices", value=f"{share:g}")
    given = {
        "step_choices": ",".join(map(str, step_choices)),
        "share_choices": ",".join(f"{share:g}" for share in share_choices),
    }
    for option, value in given.items():
        if value and validation is None:
            message = "choosing needs training images to hold out"
            raise UsageError(message, option=option, value=value, remedies={"validation": 0.25})
        if value and max(len(set(step_choices)), len(set(share_choices))) < 2:
            raise UsageError("give several to choose from", option=option, value=value)
    if step_choices and steps is not None:
        raise UsageError("give either this or numbers to choose from", option="steps", value=steps)
