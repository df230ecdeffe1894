"""Options of a training run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from dagaug.data.object_patches import Framing
from dagaug.model.task_presets import GENERAL, PRESETS, SCRATCH, Ablation, AttentionSettings, Mode
from dagaug.runtime.errors import UsageError

__all__ = ["TrainOptions", "check_distance", "check_precision"]

# Weights of the terms that the paper does not have (examples/method.md, "How the networks learn").
_EXACT_WEIGHTS = {
    "object": 1.0,
    "equivariance": 0.3,
    "separation": 0.5,
    "inside": 0.7,
    "flow": 2.0,
    "match": 0.3,
    "mask": 0.5,
    "label": 0.3,
    "cycle": 1.0,
    "silhouette": 0.25,
    "detail": 2.0,
    "taught": 0.3,
}


def check_distance(name: str, weights: Path | None) -> None:
    """Check the name of d of Table 4, and whether it takes weights.

    Raises:
        UsageError: the name is unknown, or weights are given without a timm network.
    """
    if weights is not None and not name.startswith("timm:"):
        raise UsageError(
            "only a timm network takes weights", option="weights", value=weights, remedies={"distance": "timm:NAME"}
        )
    if name not in ("resblock", "l2") and not name.startswith("timm:"):
        raise UsageError("choose resblock, l2 or timm:NAME", option="distance", value=name)


def check_precision(name: str) -> None:
    """Check the name of the precision of a training.

    Raises:
        UsageError: the name is unknown.
    """
    if name not in ("auto", "32-true", "bf16-mixed", "16-mixed"):
        raise UsageError("choose auto, 32-true, bf16-mixed or 16-mixed", option="precision", value=name)


class TrainOptions(BaseModel):
    """Options of a training that change its result.

    ``None`` stands for the preset's value; :meth:`resolved` fills it in.

    Attributes:
        preset: name of a task preset.
        features: frozen network E of the preset ``photos``: any timm name, or ``lite0``.
        feature_weights: file of its weights.
        framing: how patches are cut from images.
        per_class: largest number of training images of each class.
        steps: number of optimiser steps.
        minutes: approximate training time on this machine, from which the steps follow; ``steps`` is then the maximum.
        start: initial weights: ``general`` (the networks that come with the package, only for ``pose``), ``scratch``
            (random), a run folder or model file with the same networks, or its name on the hub,
            ``hf-hub:USER/NAME[@REVISION]``; the training records the commit.
        batch_size: images (in ``reference`` mode pairs) a step, at least 4.
        learning_rate: peak learning rate of Adam.
        seed: seed of all random numbers.
        without: parts that are switched off (Table 1a).
        regions, half_size, sharpness: the attended regions, see :class:`dagaug.model.task_presets.AttentionSettings`.
        distance: d of Table 4: ``resblock``, ``l2`` or ``timm:NAME``.
        weights: file of weights for the timm network of d.
        consistency, symmetry: α and β of eq. 9.
        adversarial, label: weights of the GAN losses and of d(Y, s′).
        own_pixels: least share of the source's own pixels in a morph (only for ``pose``), in [0, 1]. At 0 the generator
            may draw all pixels; 0.9 suits objects whose markings matter more than hidden parts, for example aircraft.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: str = "pose"
    features: str | None = None
    feature_weights: Path | None = None
    framing: Framing = Field(default_factory=Framing)
    per_class: int | None = Field(None, ge=1)
    steps: int | None = Field(None, ge=1)
    minutes: float | None = Field(None, gt=0)
    start: str | None = None
    batch_size: int | None = Field(None, ge=4)
    learning_rate: float | None = Field(None, gt=0)
    seed: int = Field(0, ge=0)
    without: tuple[Ablation, ...] = ()
    regions: int | None = Field(None, ge=1, le=1024)
    half_size: float | None = Field(None, gt=0)
    sharpness: float | None = Field(None, gt=0)
    distance: str | None = None
    weights: Path | None = None
    consistency: float | None = Field(None, ge=0)
    symmetry: float | None = Field(None, ge=0)
    adversarial: float | None = Field(None, ge=0)
    label: float | None = Field(None, ge=0)
    own_pixels: float = Field(0.0, ge=0, le=1)

    @property
    def mode(self) -> Mode:
        """Mode of the preset."""
        return PRESETS[self.preset].mode

    def resolved(self) -> TrainOptions:
        """These options with the preset's values filled in.

        Raises:
            UsageError: the preset is unknown, or an option does not fit it.
        """
        if self.preset not in PRESETS:
            raise UsageError(f"choose one of {', '.join(PRESETS)}", option="preset", value=self.preset)
        preset = PRESETS[self.preset]
        if preset.mode == "paper" and self.start == GENERAL:
            raise UsageError(f"only for pose morphing, not for {self.preset}", option="start", value=GENERAL)
        if preset.mode == "paper" and self.own_pixels:
            raise UsageError(
                f"only for pose morphing, not for {self.preset}", option="own_pixels", value=self.own_pixels
            )
        if preset.features is None and (self.features or self.feature_weights):
            name = "features" if self.features else "feature_weights"
            raise UsageError(f"has no effect with {self.preset}", option=name, value=getattr(self, name))
        if preset.features is not None and self.start not in (None, SCRATCH):
            raise UsageError("a training on frozen features starts from them", option="start", value=self.start)
        check_distance(self.distance or preset.distance, self.weights)
        general = preset.mode == "reference" and preset.features is None
        start = self.start or (GENERAL if general else SCRATCH)
        defaults: dict[str, Any] = {
            "start": start,
            "features": preset.features,
            "batch_size": preset.batch_size,
            "learning_rate": preset.learning_rate,
            "regions": preset.attention.regions,
            "half_size": preset.attention.half_size,
            "sharpness": preset.attention.sharpness,
            "distance": preset.distance,
            "consistency": preset.consistency,
            "symmetry": preset.symmetry,
            "adversarial": preset.adversarial,
            "label": preset.label,
        }
        given = {name: value for name, value in self.model_dump().items() if value is not None}
        return TrainOptions.model_validate({**defaults, **given, "without": tuple(sorted(set(self.without)))})

    @property
    def attention(self) -> AttentionSettings:
        """The attended regions; without ``dae`` one region that covers the image."""
        if "dae" in self.without:
            return AttentionSettings(1, 4.0, 20.0)
        preset = PRESETS[self.preset].attention
        return AttentionSettings(
            self.regions or preset.regions,
            self.half_size or preset.half_size,
            self.sharpness or preset.sharpness,
        )

    def term_weights(self) -> dict[str, float]:
        """The weight of every loss term by name."""
        options = self.resolved()
        weights = dict(_EXACT_WEIGHTS)
        weights |= {
            "symmetry": options.symmetry or 0.0,
            "consistency": options.consistency or 0.0,
            "pose": options.consistency or 0.0,
            "identity": options.label or 0.0,
            "adversarial": options.adversarial or 0.0,
        }
        if options.mode == "paper":
            weights["label"] = 1.0
        return weights
