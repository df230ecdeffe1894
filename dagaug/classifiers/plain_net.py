"""The default classifier of small images: four convolutions at 1, 1/2, 1/4 and 1/8 of the image's side.

Networks made for ImageNet shrink an image to a quarter of its side in their first layers. At 64 px and ten images a
class this loses the details that separate fine-grained classes (examples/experiments.md, "The classifier").
"""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["PLAIN", "PlainNet"]

PLAIN = "plain"
"""Name of this network where other classifiers have timm names."""

_WIDTH = 32  # channels of the first convolution; each later one has twice as many


class PlainNet(nn.Module):
    """Four convolutions with batch norm, ReLU and max pooling, then the mean over all positions and a linear head.

    Attributes:
        num_features: length of the pooled features.
        pretrained_cfg: the fields of timm's record that :class:`dagaug.classifiers.backbones.Network` reads.
        head: linear layer from pooled features to logits.
    """

    head: nn.Module

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        widths = [3, *(_WIDTH * 2**stage for stage in range(4))]
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)
            )
            for before, after in pairwise(widths)
        )
        self.num_features = widths[-1]
        self.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "classifier": "head"}
        self.reset_classifier(num_classes)

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the head; with 0 classes the network returns its pooled features."""
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B K"]:
        """Logits of normalised images; H and W are at least 8."""
        x = images
        for number, stage in enumerate(self.stages):
            x = stage(F.max_pool2d(x, 2) if number else x)  # B C H/2ⁿ W/2ⁿ
        return self.head(x.mean((2, 3)))
