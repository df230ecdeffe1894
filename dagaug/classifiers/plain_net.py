"""The default classifier of small images: four plain convolutions that keep a fine grid.

Networks made for ImageNet shrink an image to a quarter of its side before they look closely. At 64 px and ten images a
class that throws away what tells fine-grained classes apart (examples/experiments.md, "The classifier").
"""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["NAME", "PlainNet"]

NAME = "plain"
"""What stands for it where timm names stand for timm's networks."""

_WIDTH = 32  # channels of the first map; each later one has twice as many


class PlainNet(nn.Module):
    """Convolutions at 1, 1/2, 1/4 and 1/8 of the side, with batch norm and max pooling, then their mean.

    Attributes:
        num_features: length of the pooled features.
        pretrained_cfg: timm's record, as far as :class:`dagaug.backbones.Network` reads it.
        head: logits of the pooled features.
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
        """Put another head on; with 0 classes the network gives its pooled features."""
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B K"]:
        """Logits of normalised images of at least 8 pixels a side."""
        x = images
        for number, stage in enumerate(self.stages):
            x = stage(F.max_pool2d(x, 2) if number else x)  # B C H/2ⁿ W/2ⁿ
        return self.head(x.mean((2, 3)))
