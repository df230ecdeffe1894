"""Task presets: the tasks of the paper's Table 4, and ``pose`` for pose morphing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["GENERAL", "PRESETS", "SCRATCH", "Ablation", "AttentionSettings", "Mode", "TaskPreset"]

Mode = Literal["reference", "paper"]
"""``reference``: identity from the source s, pose from the reference t; ``paper``: s′ = G(DAE(s))."""

Ablation = Literal["dae", "cst", "sym", "d2"]
"""Parts that can be switched off (Table 1a)."""

GENERAL = "general"
"""Start of a training: the networks that come with the package."""

SCRATCH = "scratch"
"""Start of a training: random weights."""


@dataclass(frozen=True)
class AttentionSettings:
    """Settings of the attended regions (paper, Sec. 3.1).

    Attributes:
        regions: N, their number ("#" in Table 4).
        half_size: half of a region's side (w = h of eq. 2); the image is 2 wide.
        sharpness: k of eq. 4, in the same units.
    """

    regions: int
    half_size: float
    sharpness: float = 20.0


@dataclass(frozen=True)
class TaskPreset:
    """Default options of a task.

    Attributes:
        mode: see :data:`Mode`.
        attention: the attended regions.
        distance: d of Table 4: ``resblock``, ``l2``, or ``timm:NAME``.
        batch_size: images (in ``reference`` mode pairs) a step.
        learning_rate, betas: of Adam.
        consistency, symmetry: α and β of eq. 9.
        adversarial, label: weights of the GAN losses and of d(Y, ·) for the generator.
        features: frozen network E; None for an encoder that is trained, too.
    """

    mode: Mode
    attention: AttentionSettings
    distance: str
    batch_size: int
    learning_rate: float
    betas: tuple[float, float]
    consistency: float
    symmetry: float
    adversarial: float
    label: float
    features: str | None = None


_ONE_REGION = AttentionSettings(1, 0.9)
_FOUR_REGIONS = AttentionSettings(4, 0.5)

PRESETS: dict[str, TaskPreset] = {
    "pose": TaskPreset(
        "reference", AttentionSettings(8, 0.28), "resblock", 16, 1.2e-3, (0.5, 0.99), 0.15, 2.0, 0.06, 0.15
    ),
    # Pose morphing of photographs, on frozen features.
    "photos": TaskPreset(
        "reference", AttentionSettings(8, 0.28), "resblock", 8, 1e-3, (0.5, 0.99), 0.15, 2.0, 0.06, 0.15, "lite0"
    ),
    # Table 4, with Adam at 2e-4 and batches of 64 (Sec. 3.4); the paper gives no α and β.
    "digits": TaskPreset("paper", _ONE_REGION, "resblock", 64, 2e-4, (0.5, 0.999), 1.0, 10.0, 1.0, 1.0),
    "birds": TaskPreset("paper", _FOUR_REGIONS, "timm:vgg11", 64, 2e-4, (0.5, 0.999), 1.0, 10.0, 1.0, 1.0),
    "faces": TaskPreset("paper", _FOUR_REGIONS, "timm:inception_v3", 64, 2e-4, (0.5, 0.999), 1.0, 10.0, 1.0, 1.0),
    "skeletons": TaskPreset("paper", _FOUR_REGIONS, "timm:vgg11", 64, 2e-4, (0.5, 0.999), 1.0, 10.0, 1.0, 1.0),
    "facades": TaskPreset("paper", _FOUR_REGIONS, "l2", 64, 2e-4, (0.5, 0.999), 1.0, 10.0, 1.0, 0.0),
    "colorization": TaskPreset("paper", _ONE_REGION, "resblock", 64, 2e-4, (0.5, 0.999), 1.0, 10.0, 1.0, 1.0),
}
"""Presets by name."""
