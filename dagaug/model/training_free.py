"""Morphs without training: frozen features give the correspondence and the mask, the source's pixels the colours.

The frozen network is E of the paper (Sec. 3.1 lets E be any encoder). Only statistics are fitted to the training
images: the mean and deviation of each channel, a projection by principal components, and a linear classifier of
object and background (:mod:`dagaug.model.training_free_statistics`). There is no G: what the source hides stays
hidden. DA-GAN's training is compared with the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from dagaug.classifiers.frozen_feature_maps import FeatureExtractor, joined
from dagaug.compute.tensors import to_bytes
from dagaug.data.grabcut_and_inpainting import PatchBox
from dagaug.data.mask_refinement import refine_mask, spread_object
from dagaug.model.correspondence import enlarge_flow, mutual_share, refine_flow, similarities
from dagaug.model.known_warps import sample
from dagaug.model.mode_translators import Morph, ReferenceTranslator, as_sharp_as
from dagaug.model.networks import Appearance, Batched, Structure, resize

__all__ = [
    "FrozenAppearance",
    "FrozenEncoder",
    "FrozenStructure",
    "FrozenTranslator",
    "PoseAppearance",
    "PoseStructure",
    "PoseTranslator",
    "Reduction",
    "correspondence",
    "match",
    "spread_objects",
]

_EDGE = 42  # the outermost 1/42 of the side (3 px of 128) of an object is taken as mixed with background
_PAIRS = 8  # pairs whose correspondence is computed at a time: 4 MB each at a grid of 32 × 32


@dataclass(frozen=True)
class FrozenStructure(Batched):
    """Where things are.

    Attributes:
        object: probability that a pixel belongs to the object.
        keys: unit vectors, the reduced features of each cell.
        mirrored: the same of the image's mirror image.
        shows_mirror_image: True: the structure of the mirror image follows, with keys and mirrored swapped and the
            object flipped.
    """

    shows_mirror_image: ClassVar[bool] = True

    object: Float[Tensor, "B 1 H W"] = field(metadata={"stored": "uint8"})
    keys: Float[Tensor, "B K g g"] = field(metadata={"stored": "int8"})
    mirrored: Float[Tensor, "B K g g"] = field(metadata={"stored": "int8"})


@dataclass(frozen=True)
class FrozenAppearance(Batched):
    """What things look like: the pixels.

    Attributes:
        image: in [-1, 1].
        spread: the same, with the background painted over by the nearest pixels of the object.
    """

    image: Float[Tensor, "B 3 H W"]
    spread: Float[Tensor, "B 3 H W"]


class Reduction(nn.Module):
    """From the maps of a frozen network to a few unit features a cell, and to the probability of the object.

    Args:
        channels: of each layer.
        weights: of each layer in the similarity of two cells.
        dimensions: of the reduced features.
        grid: side of the result in cells.
    """

    def __init__(self, channels: tuple[int, ...], weights: tuple[float, ...], dimensions: int, grid: int) -> None:
        super().__init__()
        self.channels, self.weights, self.grid = channels, weights, grid
        total = sum(channels)
        self.register_buffer("mean", torch.zeros(total))
        self.register_buffer("deviation", torch.ones(total))
        self.register_buffer("centre", torch.zeros(total))
        self.register_buffer("projection", torch.zeros(total, dimensions))
        self.register_buffer("foreground", torch.zeros(total + 1))

    mean: Tensor
    deviation: Tensor
    centre: Tensor
    projection: Tensor
    foreground: Tensor

    def joined(self, maps: list[Tensor]) -> Float[Tensor, "B C g g"]:
        """The layers' maps, standardised and joined."""
        means, deviations = self.mean.split(self.channels), self.deviation.split(self.channels)
        return joined(maps, means, deviations, self.weights, self.grid)

    def components(self, features: Float[Tensor, "B C g g"]) -> Float[Tensor, "B K g g"]:
        """Principal components of joined features."""
        return torch.einsum("bcgh,ck->bkgh", features - self.centre[:, None, None], self.projection)

    def probability(self, features: Float[Tensor, "B C g g"]) -> Float[Tensor, "B g g"]:
        """Probability of each cell to show the object, from joined features."""
        odds = torch.einsum("bcgh,c->bgh", features, self.foreground[:-1]) + self.foreground[-1]
        return odds.sigmoid()

    def forward(self, maps: list[Tensor]) -> tuple[Float[Tensor, "B K g g"], Float[Tensor, "B g g"]]:
        """Principal components, and the probability of the object."""
        features = self.joined(maps)
        return self.components(features), self.probability(features)


class FrozenEncoder(nn.Module):
    """The frozen network with its reduction, in the role of the DAE."""

    def __init__(self, extractor: FeatureExtractor, reduction: Reduction) -> None:
        super().__init__()
        self.extractor = extractor
        self.reduction = reduction

    def components(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B C g g"], Float[Tensor, "B g g"]]:
        """Principal components of E of images in [-1, 1], and each cell's probability to show the object."""
        with torch.autocast(images.device.type, enabled=False):
            return self.reduction(self.extractor(images.float()))

    def keys_of(self, components: Float[Tensor, "B C g g"]) -> Float[Tensor, "B K g g"]:
        """Unit vectors that identify places on the object."""
        return F.normalize(components, dim=1)

    def read(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B K g g"], Float[Tensor, "B g g"]]:
        """Keys of images in [-1, 1], and each cell's probability to show the object."""
        components, coarse = self.components(images)
        return self.keys_of(components), coarse

    def structure(
        self, images: Float[Tensor, "B 3 H W"], boxes: Sequence[PatchBox | None] | None = None
    ) -> tuple[FrozenStructure, Float[Tensor, "B g g"]]:
        """Where things are, and the coarse probability of the object that its mask was refined from.

        Args:
            images: in [-1, 1].
            boxes: of the objects, which end there; None where unknown.
        """
        keys, coarse = self.read(images)
        masks = self.refined(images, coarse, boxes)
        return FrozenStructure(masks, keys, self.read(images.flip(-1))[0]), coarse

    @staticmethod
    def refined(
        images: Float[Tensor, "B 3 H W"],
        coarse: Float[Tensor, "B g g"],
        boxes: Sequence[PatchBox | None] | None = None,
    ) -> Float[Tensor, "B 1 H W"]:
        """Masks at the images' resolution, from each cell's probability to show the object."""
        return _refined(to_bytes(images), coarse, boxes or [None] * len(images)).to(images.device)

    def appearance(self, images: Float[Tensor, "B 3 H W"], structure: FrozenStructure) -> FrozenAppearance:
        """What things look like."""
        return FrozenAppearance(images, spread_objects(images, structure.object))


def _refined(
    images: UInt8[Tensor, "B H W 3"], coarse: Float[Tensor, "B g g"], boxes: Sequence[PatchBox | None]
) -> Float[Tensor, "B 1 H W"]:
    pixels, probability = images.cpu().numpy(), coarse.float().cpu().numpy()
    masks = [
        refine_mask(np.ascontiguousarray(one), where, box)
        for one, where, box in zip(pixels, probability, boxes, strict=True)
    ]
    return torch.from_numpy(np.stack(masks))[:, None]


def spread_objects(images: Float[Tensor, "B 3 H W"], masks: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B 3 H W"]:
    """Images with their backgrounds painted over by the nearest pixels of their objects; gradients stop here."""
    pixels: Float32[np.ndarray, "B H W 3"] = images.detach().permute(0, 2, 3, 1).float().cpu().numpy()
    where = masks[:, 0].detach().float().cpu().numpy()
    inset = max(1, images.shape[-1] // _EDGE)
    painted = np.stack([spread_object(one, mask, inset=inset) for one, mask in zip(pixels, where, strict=True)])
    return torch.from_numpy(painted).permute(0, 3, 1, 2).to(images.device)


class FrozenTranslator(nn.Module):
    """F of ``reference`` mode without anything learned by gradient descent.

    Attributes:
        structure_type, stores_backgrounds, takes_given_masks: as in
            :class:`dagaug.model.mode_translators.ReferenceTranslator`.
    """

    structure_type = FrozenStructure
    stores_backgrounds = False
    takes_given_masks = True

    def __init__(self, extractor: FeatureExtractor, reduction: Reduction) -> None:
        super().__init__()
        self.dae = FrozenEncoder(extractor, reduction)

    def structure(
        self, images: Float[Tensor, "B 3 H W"], boxes: Sequence[PatchBox | None] | None = None
    ) -> FrozenStructure:
        """Where things are; an object ends at its box (x, y, width, height as fractions of the side)."""
        return self.dae.structure(images, boxes)[0]

    def structure_of(
        self,
        components: Float[Tensor, "B C g g"],
        mirrored: Float[Tensor, "B C g g"],
        object_: Float[Tensor, "B 1 H W"],
    ) -> FrozenStructure:
        """The same from the principal components of images and of their mirror images, and from masks in [0, 1]."""
        return FrozenStructure(object_, self.dae.keys_of(components), self.dae.keys_of(mirrored))

    def appearance(self, images: Float[Tensor, "B 3 H W"], structure: FrozenStructure) -> FrozenAppearance:
        """What things look like."""
        return self.dae.appearance(images, structure)

    def read(self, images: Float[Tensor, "B 3 H W"]) -> tuple[FrozenStructure, FrozenAppearance]:
        """Encode images once, for use as references (structure) and as sources (both)."""
        structure, _ = self.dae.structure(images)
        return structure, self.dae.appearance(images, structure)

    def forward(self, appearance: FrozenAppearance, source: FrozenStructure, reference: FrozenStructure) -> Morph:
        """F(s; t): the source's pixels, or those of its mirror image, carried along the flow to the reference."""
        pieces = [
            self._carried(appearance[rows], source[rows], reference[rows])
            for rows in torch.arange(len(appearance.image), device=appearance.image.device).split(_PAIRS)
        ]
        return Morph.joined(pieces)

    def finished(self, appearance: FrozenAppearance, source: FrozenStructure, reference: FrozenStructure) -> Morph:
        """F(s; t) as it is shown and kept: as sharp as the sources."""
        morph = self(appearance, source, reference)
        sharp = as_sharp_as(appearance.image, source.object, morph.object, morph.mask)
        return Morph(sharp, morph.mask, morph.flow, morph.log_match, morph.blend)

    def _carried(self, appearance: FrozenAppearance, source: FrozenStructure, reference: FrozenStructure) -> Morph:
        flow, mirrored, scores = match(source, reference)
        size = appearance.image.shape[-1]
        grid = enlarge_flow(flow, size)
        image = torch.where(mirrored[:, None, None, None], appearance.spread.flip(-1), appearance.spread)
        pixels = sample(image, grid, padding="reflection", mode="bicubic").clamp(-1, 1)
        half = resize(grid.permute(0, 3, 1, 2), size // 2).permute(0, 2, 3, 1)
        signed = torch.stack([torch.where(mirrored[:, None, None], -half[..., 0], half[..., 0]), half[..., 1]], -1)
        log_match = (scores / 0.05).log_softmax(-1)
        return Morph(pixels, reference.object, signed, log_match, torch.ones_like(reference.object))


def correspondence(source: FrozenStructure, reference: FrozenStructure) -> Float[Tensor, " B"]:
    """Share of the references' cells on the object that are the best match of their best match, in [0, 1].

    The source or its mirror image counts, whichever has more.
    """
    shares = [
        torch.maximum(mutual_share(plain, weight), mutual_share(mirrored, weight))
        for rows in torch.arange(len(source.keys), device=source.keys.device).split(_PAIRS)
        for plain, mirrored, weight in [_similarities(source[rows], reference[rows])]
    ]
    return torch.cat(shares)


def _similarities(
    source: FrozenStructure, reference: FrozenStructure
) -> tuple[Float[Tensor, "B n m"], Float[Tensor, "B n m"], Float[Tensor, "B n"]]:
    """Cosines with the source's and with its mirror image's cells, and the weights of the references' cells."""
    weight = resize(reference.object.float(), reference.keys.shape[-1]).flatten(1)  # B n
    plain, mirrored = (similarities(reference.keys, keys) for keys in (source.keys, source.mirrored))
    return plain, mirrored, weight


def match(
    source: FrozenStructure, reference: FrozenStructure
) -> tuple[Float[Tensor, "B n 2"], Bool[Tensor, " B"], Float[Tensor, "B n m"]]:
    """Where each cell of the references is found in the sources, or in their mirror images where these fit better.

    Returns:
        The flow into the image that was chosen; True where this is the mirror image; its cosine similarities.
    """
    plain, mirrored, weight = _similarities(source, reference)
    better = mutual_share(mirrored, weight) > mutual_share(plain, weight)
    scores = torch.where(better[:, None, None], mirrored, plain)
    return refine_flow(scores, weight), better, scores


PoseStructure = Structure | FrozenStructure
"""Where things are, in either kind of pose model."""

PoseAppearance = Appearance | FrozenAppearance
"""What things look like, in either kind of pose model."""

PoseTranslator = ReferenceTranslator | FrozenTranslator
"""A model that redraws a source in the pose of a reference."""
