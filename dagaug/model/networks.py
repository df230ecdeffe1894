"""The networks of DA-GAN: deep attention encoder, generator, discriminators, label distance d (paper, Sec. 3, Fig. 2).

Two modes share them:

* ``paper``: :math:`s' = G(DAE(s))`. Each masked image is encoded separately (eq. 3) and the results are concatenated.
* ``reference``: identity from s, pose from t. An image is encoded in two ways. *Structure* says where things are. It
  comes from a colour-jittered image in training, so that it cannot carry appearance. *Appearance* says what things are.
  It comes from the image itself. The source's instances, features and pixels move to where the reference's structure
  has them.

Letters: B batch, N instances (attended regions), C channels, H × W pixels, h × w = H/4 × W/4. Images are float NCHW
in [-1, 1]; points are x, y in [-1, 1]; masks are in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import ClassVar, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dagaug.model.known_warps import identity_grid
from dagaug.model.task_presets import AttentionSettings

__all__ = [
    "Appearance",
    "Batched",
    "DeepAttentionEncoder",
    "Discriminator",
    "Encoder",
    "Generator",
    "Localisation",
    "Residual",
    "ResidualClassifier",
    "Structure",
    "StructureEncoder",
    "attention_masks",
    "conv_block",
    "join_batches",
    "resize",
    "stacked",
    "upsample",
]


# ---- small parts


def conv_block(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU (paper, Sec. 3.4)."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class Residual(nn.Module):
    """Two 3 × 3 convolutions with batch norm and ReLU, added to the input (paper, Sec. 3.4)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv_block(channels, channels),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Same shape in and out."""
        return F.relu(x + self.body(x))


def upsample(x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H2 W2"]:
    """Nearest-neighbour up-sampling by two (paper, Sec. 3.4)."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def resize(x: Float[Tensor, "B C H W"], size: int) -> Float[Tensor, "B C {size} {size}"]:
    """Bilinear resizing to a square of ``size`` pixels."""
    return F.interpolate(x, (size, size), mode="bilinear", align_corners=False)


def stacked(*pieces: Float[Tensor, "B _ H W"]) -> Float[Tensor, "B C H W"]:
    """Concatenate channels, in the memory layout and dtype that the next convolution reads.

    ``torch.cat`` on mixed layouts or dtypes picks one of them, and the convolution then copies the result.
    """
    kind = pieces[0].device.type
    if torch.is_autocast_enabled(kind):
        pieces = tuple(piece.to(torch.get_autocast_dtype(kind)) for piece in pieces)
    if any(_channels_last(piece) for piece in pieces):
        return torch.cat([piece.permute(0, 2, 3, 1).contiguous() for piece in pieces], -1).permute(0, 3, 1, 2)
    return torch.cat(pieces, 1)


def _channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


_Some = TypeVar("_Some", bound="Batched")  # typing.Self cannot be checked at run time


class Batched:
    """Base of records of tensors whose first axis is the batch."""

    def __getitem__(self: _Some, index: Tensor | slice) -> _Some:
        return self._map(lambda tensor: tensor[index])

    def float(self: _Some) -> _Some:
        """All tensors as float32."""
        return self._map(lambda tensor: tensor.float())

    def detach(self: _Some) -> _Some:
        """All tensors without gradient."""
        return self._map(lambda tensor: tensor.detach())

    @classmethod
    def joined(cls: type[_Some], pieces: Sequence[_Some]) -> _Some:
        """Concatenate batches."""
        if len(pieces) == 1:
            return pieces[0]
        names = [field.name for field in fields(cls)]  # type: ignore[arg-type]
        return cls(**{name: torch.cat([getattr(piece, name) for piece in pieces]) for name in names})

    def _map(self: _Some, change) -> _Some:  # type: ignore[no-untyped-def]
        return type(self)(*(change(getattr(self, field.name)) for field in fields(self)))  # type: ignore[arg-type]


def join_batches(pieces: Sequence[_Some]) -> _Some:
    """One batch of several of the same kind, one after another."""
    return type(pieces[0]).joined(pieces)


# ---- the deep attention encoder (Sec. 3.1)


def attention_masks(
    centres: Float[Tensor, "B N 2"], size: int, *, half_size: float, sharpness: float
) -> Float[Tensor, "B N {size} {size}"]:
    """Differentiable boxes around the centres (eqs. 2 and 4).

    With σ(x) = 1 / (1 + exp(-k x)), the mask of a region is the product of σ(x - left) - σ(x - right) and
    σ(y - top) - σ(y - bottom).

    Args:
        centres: x, y in [-1, 1].
        size: side of the masks in pixels.
        half_size: w = h of eq. 2, in the units of the centres (1 is half the image).
        sharpness: k of eq. 4, per unit of the centres.

    Returns:
        Masks in [0, 1]: about 1 inside, about 0 outside; with growing ``sharpness`` they approach boxes.
    """
    steps = identity_grid(size, centres.device)[0, :, 0]

    def window(middle: Tensor) -> Tensor:
        left = torch.sigmoid(sharpness * (steps - (middle - half_size)[..., None]))
        right = torch.sigmoid(sharpness * (steps - (middle + half_size)[..., None]))
        return left - right  # B N size

    return window(centres[..., 1])[..., :, None] * window(centres[..., 0])[..., None, :]


class Localisation(nn.Module):
    """f_loc of eq. 1: from a feature map to the centres of N attended regions.

    Each centre is the mean position under a softmax heat map. It therefore lies in the image and moves smoothly with
    the features.
    """

    def __init__(self, channels: int, regions: int) -> None:
        super().__init__()
        self.heat = nn.Conv2d(channels, regions, 1)

    def forward(self, features: Float[Tensor, "B C h w"]) -> Float[Tensor, "B N 2"]:
        """Centres, x and y in [-1, 1]."""
        heat = self.heat(features).float()
        weight = heat.flatten(2).softmax(-1)  # B N hw
        return weight @ identity_grid(heat.shape[-1], heat.device).flatten(0, 1)


class Encoder(nn.Module):
    """E: features at a half and a quarter of the image's side."""

    def __init__(self, half: int = 32, quarter: int = 64, blocks: int = 2) -> None:
        super().__init__()
        self.to_half = conv_block(3, half, kernel=5, stride=2)
        self.to_quarter = nn.Sequential(
            conv_block(half, quarter, stride=2), *(Residual(quarter) for _ in range(blocks))
        )

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B C1 H2 W2"], Float[Tensor, "B C2 h w"]]:
        """Features at H/2 × W/2 and at H/4 × W/4."""
        half = self.to_half(x)
        return half, self.to_quarter(half)


@dataclass(frozen=True)
class Structure(Batched):
    """Where things are; a morph takes it from its reference.

    Attributes:
        centres: centres of the attended regions (eq. 1), in [-1, 1].
        masks: masks of the attended regions (eq. 4), in [0, 1].
        object: probability that a pixel belongs to the object.
        keys: at each cell a unit vector that identifies the place on the object, equal for all poses and species.
        features: further information on the shape, for the generator.
        shows_mirror_image: False: the structure of the mirror image must be computed from its pixels.
    """

    shows_mirror_image: ClassVar[bool] = False
    centres: Float[Tensor, "B N 2"]
    masks: Float[Tensor, "B N h w"]
    object: Float[Tensor, "B 1 H W"]
    keys: Float[Tensor, "B K h w"]
    features: Float[Tensor, "B C h w"]


@dataclass(frozen=True)
class Appearance(Batched):
    """What things are; a morph takes it from its source.

    Attributes:
        image: the pixels, in [-1, 1].
        half, quarter: features E(X).
        vectors: one vector per instance, E(X) pooled in its region (eq. 3).
    """

    image: Float[Tensor, "B 3 H W"]
    half: Float[Tensor, "B C1 H2 W2"]
    quarter: Float[Tensor, "B C2 h w"]
    vectors: Float[Tensor, "B N C2"]


class StructureEncoder(nn.Module):
    """An hourglass network from the (colour-jittered) image to keys, object mask and features."""

    def __init__(self, width: int = 32, keys: int = 32) -> None:
        super().__init__()
        self.to_half = nn.Sequential(conv_block(3, width, kernel=5, stride=2), Residual(width))
        self.to_quarter = nn.Sequential(conv_block(width, 2 * width, stride=2), Residual(2 * width))
        self.to_eighth = nn.Sequential(conv_block(2 * width, 3 * width, stride=2), Residual(3 * width))
        self.to_sixteenth = nn.Sequential(
            conv_block(3 * width, 4 * width, stride=2), *(Residual(4 * width) for _ in "12")
        )
        self.back_to_eighth = nn.Sequential(conv_block(7 * width, 3 * width), Residual(3 * width))
        self.back_to_quarter = nn.Sequential(conv_block(5 * width, 2 * width), Residual(2 * width))
        self.back_to_half = conv_block(3 * width, width)
        self.keys = nn.Conv2d(2 * width, keys, 1)
        self.object = nn.Sequential(conv_block(width, width // 2), nn.Conv2d(width // 2, 1, 3, padding=1))

    def forward(
        self, x: Float[Tensor, "B 3 H W"]
    ) -> tuple[Float[Tensor, "B C h w"], Float[Tensor, "B K h w"], Float[Tensor, "B 1 H W"]]:
        """Features, keys of unit length, and logits of the object's mask."""
        half = self.to_half(x)
        quarter = self.to_quarter(half)
        eighth = self.to_eighth(quarter)
        deep = self.to_sixteenth(eighth)
        eighth = self.back_to_eighth(stacked(upsample(deep), eighth))
        features = self.back_to_quarter(stacked(upsample(eighth), quarter))
        half = self.back_to_half(stacked(upsample(features), half))
        keys = F.normalize(self.keys(features).float(), dim=1)
        return features, keys, self.object(resize(half, x.shape[-1])).float()


_KEY_SCALE = 10.0  # keys have unit length, which makes the heat map too flat


class DeepAttentionEncoder(nn.Module):
    """DAE (Sec. 3.1): attended regions and their instance representations.

    Args:
        attention: number, half-size and sharpness k of the regions.
        width: channels at half the image's side.
        keys: length of the vectors that identify places on the object.
    """

    def __init__(self, attention: AttentionSettings, *, width: int = 32, keys: int = 32) -> None:
        super().__init__()
        self.attention = attention
        self.channels = 2 * width
        self.encoder = Encoder(width, 2 * width)
        self.structure_encoder = StructureEncoder(width, keys)
        self.localise = Localisation(keys, attention.regions)

    def masks(self, centres: Float[Tensor, "B N 2"], size: int) -> Float[Tensor, "B N {size} {size}"]:
        """The regions' masks (eqs. 2 and 4) at a resolution."""
        half_size, sharpness = self.attention.half_size, self.attention.sharpness
        return attention_masks(centres, size, half_size=half_size, sharpness=sharpness)

    def structure(self, x: Float[Tensor, "B 3 H W"]) -> tuple[Structure, Float[Tensor, "B 1 H W"]]:
        """Structure of images in [-1, 1], and logits of the object's mask for its loss."""
        features, keys, logits = self.structure_encoder(x)
        centres = self.localise(_KEY_SCALE * keys)  # eq. 1; keys already identify places on the object
        masks = self.masks(centres, features.shape[-1])  # eqs. 2, 4
        return Structure(centres, masks, logits.sigmoid(), keys, features.float()), logits

    def find_centres(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B N 2"]:
        """Centres of the attended regions of images in [-1, 1]."""
        return self.structure(x)[0].centres

    def appearance(self, x: Float[Tensor, "B 3 H W"], structure: Structure) -> Appearance:
        """Appearance of images in [-1, 1], with one vector for each region of ``structure``.

        Eq. 3 encodes every masked image separately. Here E encodes the image once and E(X) is pooled under each mask.
        The only difference: the receptive field of E reaches a few pixels beyond a region's edge.
        """
        half, quarter = self.encoder(x)
        half, quarter = half.float(), quarter.float()
        weight = structure.masks * resize(structure.object, quarter.shape[-1])  # B N h w
        total = weight.sum((-1, -2)).unsqueeze(-1)
        vectors = torch.einsum("bnhw,bchw->bnc", weight, quarter) / (total + 1e-3)  # eq. 3
        return Appearance(x, half, quarter, vectors)

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """The instances {E(X ∘ M_i)}, concatenated along the channels (eq. 3; Sec. 3.4), for ``paper`` mode."""
        batch = x.shape[0]
        structure, _ = self.structure(x)
        masks = self.masks(structure.centres, x.shape[-1])
        regions = (x[:, None] * masks[:, :, None]).flatten(0, 1)  # B·N 3 H W
        _, instances = self.encoder(regions)
        return instances.unflatten(0, (batch, -1)).flatten(1, 2).float()


# ---- generator (Sec. 3.4)


class Generator(nn.Module):
    """G (Sec. 3.4): residual blocks on concatenated instances, then nearest up-sampling with 3 × 3 convolutions.

    Args:
        channels: channels of the concatenated instances, at a quarter of the image's side.
        width: channels of the residual blocks.
        blocks: number of residual blocks.
        half_skip, full_skip: channels added at half and at full resolution (0 in ``paper`` mode).
        outputs: channels of the result; batch norm and ReLU follow every convolution but the last.
    """

    def __init__(
        self,
        channels: int,
        *,
        width: int = 96,
        blocks: int = 3,
        half_skip: int = 0,
        full_skip: int = 0,
        outputs: int = 3,
    ) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_block(channels, width), *(Residual(width) for _ in range(blocks)))
        self.to_half = nn.Sequential(conv_block(width + half_skip, width // 2), Residual(width // 2))
        self.to_full = conv_block(width // 2 + full_skip, width // 3)
        self.last = nn.Conv2d(width // 3, outputs, 3, padding=1)

    def forward(
        self,
        instances: Float[Tensor, "B C h w"],
        half: Float[Tensor, "B C1 H2 W2"] | None = None,
        full: Float[Tensor, "B C0 H W"] | None = None,
    ) -> Float[Tensor, "B Co H W"]:
        """Unbounded outputs; ``half`` and ``full`` are the channels added at half and full resolution."""
        x = upsample(self.body(instances))
        x = self.to_half(x if half is None else stacked(x, half))
        x = upsample(x)
        return self.last(self.to_full(x if full is None else stacked(x, full))).float()


# ---- discriminators and the label distance


class Discriminator(nn.Module):
    """D1 or D2 (Sec. 3.4): down-sampling blocks, then one logit.

    Spectral norm and the class projection (Miyato and Koyama, "cGANs with projection discriminator", ICLR 2018) are not
    in the paper. Without them the discriminators memorise data sets of few images per class within minutes.

    Args:
        classes: number of labels for the class projection; 0 for none.
        width: channels of the first block.
        channels: channels of the images.
    """

    def __init__(self, classes: int, width: int = 32, channels: int = 3) -> None:
        super().__init__()
        norm = nn.utils.parametrizations.spectral_norm
        layers: list[nn.Module] = []
        for inputs, outputs in [
            (channels, width),
            (width, 2 * width),
            (2 * width, 4 * width),
            (4 * width, 4 * width),
        ]:
            layers += [norm(nn.Conv2d(inputs, outputs, 4, 2, 1)), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers)
        self.score = norm(nn.Linear(4 * width, 1))
        self.project = norm(nn.Embedding(classes, 4 * width)) if classes else None

    def forward(self, x: Float[Tensor, "B C H W"], labels: Tensor | None = None) -> Float[Tensor, " B"]:
        """Logits; positive for images that look real and, with labels, like their class."""
        features = self.body(x).float().mean((-1, -2))
        score = self.score(features)[:, 0]
        if self.project is not None and labels is not None:
            score = score + (self.project(labels) * features).sum(-1)
        return score.float()


class ResidualClassifier(nn.Module):
    """d of Table 4, "ResBlock": a classifier of 9 residual blocks on the instances E(X), trained jointly."""

    def __init__(self, channels: int, classes: int, width: int = 48) -> None:
        super().__init__()
        blocks: list[nn.Module] = [conv_block(channels, width)]
        for stage in range(3):
            blocks += [Residual(width) for _ in range(3)]
            if stage < 2:
                blocks.append(nn.MaxPool2d(2))
        self.body = nn.Sequential(*blocks)
        self.logits = nn.Linear(width, classes)

    def forward(self, instances: Float[Tensor, "B C h w"]) -> tuple[Float[Tensor, "B F"], Float[Tensor, "B Y"]]:
        """Features (for eqs. 5 and 6) and logits (for the label loss)."""
        features = self.body(instances).float().mean((-1, -2))
        return features, self.logits(features).float()
