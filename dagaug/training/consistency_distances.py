"""The label distances d of the consistency loss (paper, Sec. 3.1 and Table 4)."""

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
from dagaug.training.options import check_distance

__all__ = ["BackboneDistance", "Distance", "ResidualDistance", "SquaredDistance", "make_distance"]


class Distance(nn.Module):
    """Base of the distances: a label loss d(Y, DAE(X)), and features for d(DAE(s), DAE(F(s))).

    ``forward`` takes the instances (B C h w) and the attended part of the image (B 3 H W, in [-1, 1]) and returns
    features (B F) and label scores (B Y).

    Attributes:
        reads_image: whether the distance uses the attended part of the image.
    """

    reads_image = False

    def label_loss(self, scores: Float[Tensor, "B Y"], labels: Int[Tensor, " B"]) -> Float[Tensor, ""]:
        """d(Y, ·): cross-entropy, unless a subclass has another loss."""
        return losses.label_loss(scores, labels)


class ResidualDistance(Distance):
    """Table 4, "ResBlock": a classifier of 9 residual blocks, trained jointly from scratch."""

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
    """Table 4, "L2": squared distance of instances, and of their linear projection to the one-hot label."""

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
    """Table 4, "VGG" and "Inception": features of an image network on the attended part of the image.

    Args:
        backbone: maps images in [-1, 1] to pooled features (B, ``features``).
        features: number of features.
        classes: number of labels; one linear layer predicts them.
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
    """d of Table 4 by name; as in the paper, it is trained jointly with DA-GAN.

    Args:
        name: ``resblock``, ``l2`` or ``timm:NAME``.
        channels: channels of the instances.
        classes: number of labels.
        size: side of the images in pixels.
        weights: file of initial weights of a timm network.

    Raises:
        UsageError: the name is unknown, weights are given without a timm network, or the network cannot take this size.
    """
    check_distance(name, weights)
    if name == "resblock":
        return ResidualDistance(channels, classes)
    if name == "l2":
        return SquaredDistance(channels, classes)
    try:
        backbone = build(name.removeprefix("timm:"), 0, size=size, weights=weights)
    except UsageError as error:
        raise UsageError(error.message, option="distance", value=name) from error
    try:
        with torch.no_grad():
            features = backbone(torch.zeros(1, 3, size, size)).shape[1]
    except RuntimeError as error:
        raise UsageError(
            f"cannot take images of {size} px", option="distance", value=name, remedies={"size": None}
        ) from error
    return BackboneDistance(backbone, features, classes)
