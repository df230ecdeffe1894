"""The arms of a score: which ways to train are compared with which, and what else a score depends on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from dagaug.classifiers.augmentation import Augment
from dagaug.classifiers.backbones import LITE0
from dagaug.classifiers.fit import FitOptions
from dagaug.runtime.errors import UsageError
from dagaug.score.controls import CONTROLS

__all__ = ["ARMS", "MIXED", "QUICK", "QUICK_SEEDS", "Arm", "Mode", "ScoreOptions", "arm_names"]

Mode = Literal["scratch", "finetune", "linear-probe"]


MIXED = "cutout+dagaug"
"""Cut-outs in the place of a random half of the file's images."""


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        name: as it stands in the table.
        augment: the augmentation of all its images.
        images: which synthetic images have a share of each batch: those of the HDF5 file (``dagaug``), a control's,
            half and half (:data:`MIXED`), another's (``--arm``); none if empty.
        against: names of the arms that it is compared with.
    """

    name: str
    augment: Augment
    images: str = ""
    against: tuple[str, ...] = ("real",)


ARMS: tuple[Arm, ...] = (
    Arm("real", "standard", against=()),
    Arm("strong", "strong"),
    Arm("real+dagaug", "standard", "dagaug", against=("real", "strong", "cutout", "cutwarp", "random")),
    Arm("strong+dagaug", "strong", "dagaug", against=("real", "strong")),
    Arm("cutout", "standard", "cutout"),
    Arm("cutwarp", "standard", "cutwarp"),
    Arm("random", "standard", "random"),
    Arm(MIXED, "standard", MIXED, against=("real", "real+dagaug", "cutout")),
)
"""The arms, in the order of the table."""

QUICK = ("real", "real+dagaug", "cutout")
"""The arms of a first look."""

QUICK_SEEDS = 3
"""Its trainings of each arm; two would give no interval to speak of."""


def arm_names(*, controls: bool = True) -> tuple[str, ...]:
    """Names of all arms, or of those that need no checkpoint."""
    return tuple(arm.name for arm in ARMS if controls or arm.images not in (*CONTROLS, MIXED))


@dataclass(frozen=True)
class ScoreOptions:
    """What a score depends on besides data and images.

    Attributes:
        fit: network and training, the same for every arm but for the augmentation, which the arm chooses.
        seeds: how many trainings of each arm.
        seed: the first one; the others follow it. It also draws the controls.
        per_class: use only the first so many real training images of each class.
        arms: names of the arms, of :data:`ARMS`; ``real`` must be among them.
        others: further arms, a name and an HDF5 file or a folder of class folders each.
        fractions: shares of the real training images to train on with and without synthetic ones.
        ratios: further synthetic shares of a batch to train with.
        mode: train all weights from scratch, all from pretrained ones, or a linear classifier on frozen features.
        validation: share of the real training images that is held out, fold by fold, to choose each arm's number of
            steps (:mod:`dagaug.validation`); None for the same number in all arms, chosen by the number of images.
    """

    fit: FitOptions = field(default_factory=FitOptions)
    seeds: int = 5
    seed: int = 0
    per_class: int | None = None
    arms: tuple[str, ...] = arm_names()
    others: tuple[tuple[str, Path], ...] = ()
    fractions: tuple[float, ...] = ()
    ratios: tuple[float, ...] = ()
    mode: Mode = "scratch"
    validation: float | None = None

    def __post_init__(self) -> None:
        if self.seeds < 2:
            raise UsageError(f"--seeds {self.seeds}: at least 2, since one training says nothing of chance")
        if self.seed < 0:
            raise UsageError(f"--seed {self.seed}: at least 0")
        known = arm_names()
        for name in self.arms:
            if name not in known:
                raise UsageError(f"--arms {name}: no such arm; choose among {', '.join(known)}")
        if "real" not in self.arms:
            raise UsageError(f"--arms {','.join(self.arms)}: real must be among them; all are compared with it")
        names = [name for name, _ in self.others]
        for name in names:
            if not name or name in known or names.count(name) > 1:
                raise UsageError(f"--arm {name}=…: give every arm a name of its own")
        for option, values in (("fractions", self.fractions), ("ratio", self.ratios)):
            for value in values:
                if not 0 < value <= 1 or (option == "ratio" and value == 1):
                    raise UsageError(f"--{option} {value:g}: a share between 0 and 1")
        if self.validation is not None and not 0 < self.validation <= 0.5:
            raise UsageError(f"--validation {self.validation:g}: a share between 0 and 0.5, such as 0.25")
        if self.mode != "scratch" and self.fit.name != LITE0 and self.fit.weights is None:
            raise UsageError(
                f"--{self.mode}: {self.fit.name} has no pretrained weights here; give --weights FILE, "
                f"or --classifier {LITE0}"
            )

    def table(self) -> tuple[Arm, ...]:
        """The chosen arms, compared with those among them that they are to be compared with."""
        chosen = [arm for arm in ARMS if arm.name in self.arms]
        chosen += [Arm(name, "standard", name) for name, _ in self.others]
        there = {arm.name for arm in chosen}
        more = {"real+dagaug": tuple(name for name, _ in self.others)}
        return tuple(
            replace(arm, against=tuple(name for name in arm.against + more.get(arm.name, ()) if name in there))
            for arm in chosen
        )

    @property
    def left_out(self) -> tuple[str, ...]:
        """Names of the arms of the protocol that were not chosen."""
        return tuple(name for name in arm_names() if name not in self.arms)

    @property
    def needs_store(self) -> bool:
        """Whether an HDF5 file must be given."""
        own = {name for name, _ in self.others}
        return any(arm.images and arm.images not in own for arm in self.table())
