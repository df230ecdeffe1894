"""Task presets: the paper's Table 4 and ours, one literal table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["PRESETS", "Attention", "Mode", "TaskPreset"]

Mode = Literal["reference", "paper"]


@dataclass(frozen=True)
class Attention:
    """The attended regions of Sec. 3.1.

    Attributes:
        regions: N, their number ("#" in Table 4).
        half_size: half of a region's side (w = h of eq. 2), in units where the image is 2 wide.
        sharpness: k of eq. 4, in the same units.
    """

    regions: int
    half_size: float
    sharpness: float = 20.0


@dataclass(frozen=True)
class TaskPreset:
    """What a task fixes unless an option says otherwise.

    Attributes:
        mode: ``reference`` (identity from s, pose from t) or ``paper`` (s′ = G(DAE(s))).
        attention: the attended regions.
        distance: d: ``resblock``, ``l2``, or ``timm:NAME``.
        batch_size: images (pairs) a step.
        learning_rate, betas: of Adam.
        consistency, symmetry: α and β of eq. 9.
        adversarial, label: weights of the GAN losses and of d(Y, ·) for the generator.
    """

    mode: Mode
    attention: Attention
    distance: str
    batch_size: int
    learning_rate: float
    betas: tuple[float, float]
    consistency: float
    symmetry: float
    adversarial: float
    label: float


PRESETS: dict[str, TaskPreset] = {
    "pose": TaskPreset("reference", Attention(8, 0.28), "resblock", 16, 1.2e-3, (0.5, 0.99), 0.15, 2.0, 0.06, 0.15),
    # Table 4, with the paper's Adam at 2e-4 and batch of 64 (Sec. 3.4); α and β are not given there.
    "digits": TaskPreset("paper", Attention(1, 0.9), "resblock", 64, 2e-4, (0.5, 0.999), 1.0, 10.0, 1.0, 1.0),
    "birds": TaskPreset("paper", Attention(4, 0.5), "timm:vgg11", 64, 2e-4, (0.5, 0.999), 1.0, 10.0, 1.0, 1.0),
    "faces": TaskPreset("paper", Attention(4, 0.5), "timm:inception_v3", 64, 2e-4, (0.5, 0.999), 1.0, 10.0, 1.0, 1.0),
    "skeletons": TaskPreset("paper", Attention(4, 0.5), "timm:vgg11", 64, 2e-4, (0.5, 0.999), 1.0, 10.0, 1.0, 1.0),
    "facades": TaskPreset("paper", Attention(4, 0.5), "l2", 64, 2e-4, (0.5, 0.999), 1.0, 10.0, 1.0, 0.0),
    "colorization": TaskPreset("paper", Attention(1, 0.9), "resblock", 64, 2e-4, (0.5, 0.999), 1.0, 10.0, 1.0, 1.0),
}
"""Presets by name."""
