"""Options of a score: the arms to compare, the number of trainings, the sweeps."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from dagaug.classifiers.backbones import LITE0
from dagaug.classifiers.fit import FitOptions
from dagaug.classifiers.plain_net import PLAIN
from dagaug.classifiers.pretrained_networks import check_name
from dagaug.runtime.errors import UsageError
from dagaug.score.arms import (
    CONTROLS,
    DEFAULT_ARMS,
    MIXED,
    PROTOCOL_ARMS,
    QUICK,
    QUICK_SEEDS,
    Arm,
    Control,
    arm_names,
    check_arms,
    check_choices,
    check_shares,
)

__all__ = [
    "CONTROLS",
    "DEFAULT_ARMS",
    "MIXED",
    "PROTOCOL_ARMS",
    "QUICK",
    "QUICK_SEEDS",
    "Arm",
    "Control",
    "ScoreOptions",
    "arm_names",
]


@dataclass(frozen=True)
class ScoreOptions:
    """Everything that a score depends on besides the data and the synthetic images.

    Attributes:
        fit: network and training, the same for all arms; each arm sets its own augmentation.
        seeds: number of trainings of each arm.
        seed: first seed; the others follow it. It also seeds the controls.
        per_class: use only the first N real training images of each class.
        arms: names of the arms, from :data:`PROTOCOL_ARMS`; ``real`` must be among them.
        others: further arms: a name, and an HDF5 file or a folder of class folders.
        fractions: shares of the real training images to train on, with and without synthetic images.
        ratios: further synthetic shares of a batch to train with.
        validation: share of the real training images that each fold holds out, to choose each arm's settings by
            cross-validation (:mod:`dagaug.score.settings_search`); None for the same settings in all arms.
        step_choices: numbers of steps to choose from; empty for half, once and twice the usual number, or for the usual
            number alone if ``share_choices`` are given.
        share_choices: synthetic shares of a batch to choose from; empty for ``fit.synthetic_share`` in all arms.

    Raises:
        UsageError: an option is out of range, or the options contradict each other.
    """

    fit: FitOptions = field(default_factory=FitOptions)
    seeds: int = 5
    seed: int = 0
    per_class: int | None = None
    arms: tuple[str, ...] = DEFAULT_ARMS
    others: tuple[tuple[str, Path], ...] = ()
    fractions: tuple[float, ...] = ()
    ratios: tuple[float, ...] = ()
    validation: float | None = None
    step_choices: tuple[int, ...] = ()
    share_choices: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.seeds < 2:
            raise UsageError("give at least 2; one training has no interval", option="seeds", value=self.seeds)
        if self.seed < 0:
            raise UsageError("give at least 0", option="seed", value=self.seed)
        check_arms(self.arms, [name for name, _ in self.others])
        check_shares(self.fractions, self.ratios, self.validation)
        check_choices(self.step_choices, self.share_choices, self.validation, self.fit.steps)
        self._check_share_choices()
        check_name(self.fit.name, for_features=False)
        mode = self.fit.mode
        if self.fit.frozen_stages and mode != "finetune":
            raise UsageError(
                "for fine-tuning only",
                option="frozen_stages",
                value=self.fit.frozen_stages,
                remedies={"mode": "finetune"},
            )
        if self.fit.layer_decay is not None and mode == "linear-probe":
            value = f"{self.fit.layer_decay:g}"
            raise UsageError("a linear probe trains one layer", option="layer_decay", value=value)
        if mode != "scratch" and self.fit.name == PLAIN and self.fit.weights is None:
            raise UsageError(
                f"{PLAIN} has no pretrained weights",
                option="mode",
                value=mode,
                remedies={"weights": None, "classifier": LITE0},
            )

    def _check_share_choices(self) -> None:
        if not self.share_choices:
            return
        if not any(arm.images for arm in self.table()):
            message = "no arm has synthetic images; add real+dagaug"
            raise UsageError(message, option="arms", value=",".join(self.arms))
        shares = set(self.share_choices)
        if len({replace(self.fit, synthetic_share=share).synthetic_count() for share in shares}) < len(shares):
            raise UsageError(
                f"two of them are the same number of images in a batch of {self.fit.batch_size}",
                option="share_choices",
                value=",".join(f"{share:g}" for share in self.share_choices),
            )

    def table(self) -> tuple[Arm, ...]:
        """The arms to train, each with those of its baselines that are trained too."""
        chosen = [arm for arm in PROTOCOL_ARMS if arm.name in self.arms and self._can_train(arm)]
        chosen += [Arm(name, name) for name, _ in self.others]
        there = {arm.name for arm in chosen}
        more = {"real+dagaug": tuple(name for name, _ in self.others)}
        return tuple(
            replace(arm, against=tuple(name for name in arm.against + more.get(arm.name, ()) if name in there))
            for arm in chosen
        )

    def _can_train(self, arm: Arm) -> bool:
        """Whether this mode has the arm: a linear probe reads images one by one and cannot mix them."""
        return self.fit.mode != "linear-probe" or arm.mixing == "none"

    @property
    def left_out(self) -> tuple[str, ...]:
        """Names of the protocol's arms that are not trained."""
        trained = {arm.name for arm in self.table()}
        return tuple(name for name in arm_names() if name not in trained)

    @property
    def needs_store(self) -> bool:
        """Whether an HDF5 file must be given."""
        own = {name for name, _ in self.others}
        return any(arm.images and arm.images not in own for arm in self.table())
