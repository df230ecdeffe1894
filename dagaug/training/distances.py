"""The distances d of the consistency loss (paper, Table 4)."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from dagaug.classifiers.backbones import build
from dagaug.model.networks import ResidualClassifier
from dagaug.runtime.errors import UsageError
from dagaug.training import losses

__all__ = ["BackboneDistance", "Distance", "ResidualDistance", "SquaredDistance", "make_distance"]


# ---- the distance d (Sec. 3.1, Table 4)


class Distance(nn.Module):
    """d: a label loss d(Y, DAE(X)), and features for d(DAE(s), DAE(F(s))).

    ``forward`` takes the instances (B C h w) and the attended part of the image (B 3 H W) and returns features (B F)
    and label scores (B Y).

    Attributes:
        reads_image: whether the attended part of the image is looked at.
    """

    reads_image = False

    def label_loss(self, scores: Float[Tensor, "B Y"], labels: Int[Tensor, " B"]) -> Float[Tensor, ""]:
        """d(Y, ·): cross-entropy unless the distance has another."""
        return losses.label_loss(scores, labels)


class ResidualDistance(Distance):
    """Table 4, "ResBlock": a small classifier of 9 residual blocks trained jointly from scratch."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.classifier = ResidualClassifier(channels, classes)

    def forward(
        self, instances: Float[Tensor, "B C h w"], attended: Float[Tensor, "B 3 H W"]
    ) -> tuple[Float[Tensor, "B F"], Float[Tensor, "B Y"]]:
        """Features and label scores."""
        del attended
        return self.classifier(instances)


class SquaredDistance(Distance):
    """Table 4, "L2": squared distance of instances, and of a linear reading of them to the one-hot label."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.scores = nn.Linear(channels, classes)

    def forward(
        self, instances: Float[Tensor, "B C h w"], attended: Float[Tensor, "B 3 H W"]
    ) -> tuple[Float[Tensor, "B F"], Float[Tensor, "B Y"]]:
        """Features and label scores."""
        del attended
        return instances.flatten(1), self.scores(instances.mean((-1, -2)))

    def label_loss(self, scores: Float[Tensor, "B Y"], labels: Int[Tensor, " B"]) -> Float[Tensor, ""]:
        """d(Y, ·): squared distance to the one-hot label."""
        return (scores - F.one_hot(labels, scores.shape[1])).square().sum(1).mean()


class BackboneDistance(Distance):
    """Table 4, "VGG" and "Inception": the features of any image network, read on the attended part of the image.

    Args:
        backbone: from images in [-1, 1] to pooled features (B, ``features``).
        features: their number.
        classes: number of labels, read off by one linear layer.
    """

    reads_image = True

    def __init__(self, backbone: nn.Module, features: int, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.scores = nn.Linear(features, classes)

    def forward(
        self, instances: Float[Tensor, "B C h w"], attended: Float[Tensor, "B 3 H W"]
    ) -> tuple[Float[Tensor, "B F"], Float[Tensor, "B Y"]]:
        """Features and label scores."""
        del instances
        features = self.backbone(attended).float()
        return features, self.scores(features).float()


def make_distance(name: str, channels: int, classes: int, *, size: int, weights: Path | None) -> Distance:
    """d of Table 4 by name; all are trained jointly with DA-GAN, as the paper does.

    Args:
        name: ``resblock``, ``l2`` or ``timm:NAME``.
        channels: of the instances.
        classes: number of labels.
        size: side of the images in pixels.
        weights: file of weights that a timm network starts from.

    Raises:
        UsageError: an unknown name, or weights for what is no timm network.
    """
    if weights is not None and not name.startswith("timm:"):
        raise UsageError(f"--weights {weights}: are those of a timm network; give --distance timm:NAME, too")
    if name == "resblock":
        return ResidualDistance(channels, classes)
    if name == "l2":
        return SquaredDistance(channels, classes)
    if name.startswith("timm:"):
        try:
            backbone = build(name.removeprefix("timm:"), 0, size=size, weights=weights)
        except UsageError as error:
            raise UsageError(str(error).replace("--classifier ", "--distance timm:", 1)) from error
        try:
            with torch.no_grad():
                features = backbone(torch.zeros(1, 3, size, size)).shape[1]
        except RuntimeError as error:
            raise UsageError(f"--distance {name}: cannot see images of {size} px; give a larger --size") from error
        return BackboneDistance(backbone, features, classes)
    raise UsageError(f"--distance {name}: choose resblock, l2 or timm:NAME")
