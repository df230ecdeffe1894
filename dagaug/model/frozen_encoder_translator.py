"""F of ``reference`` mode on a frozen pretrained encoder: keys, f_loc and G are trained.

E of the paper (Sec. 3.1) is a frozen network. A small head turns its features into keys that identify places on the
object. It starts from their principal components, the keys of the model without training
(:mod:`dagaug.model.training_free`). The flow comes from the keys; G repairs what the flow carries over: outlines,
folds, and what the source hides. At the start of a training it changes little.

Letters as in :mod:`dagaug.model.networks`; g × g is the grid of the keys, whatever the size of the patches.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from dagaug.classifiers.frozen_feature_maps import FeatureExtractor
from dagaug.model.correspondence import enlarge_flow
from dagaug.model.known_warps import sample
from dagaug.model.mode_translators import Morph
from dagaug.model.networks import (
    Encoder,
    Generator,
    Localisation,
    attention_masks,
    resize,
    stacked,
)
from dagaug.model.task_presets import AttentionSettings
from dagaug.model.training_free import (
    FrozenAppearance,
    FrozenEncoder,
    FrozenStructure,
    FrozenTranslator,
    Reduction,
    match,
    spread_objects,
)

__all__ = [
    "FeatureAppearance",
    "FeatureEncoder",
    "FeatureMorpher",
    "FeatureTranslator",
    "KeyHead",
    "mirror_where",
]

_KEY_SCALE = 10.0  # of the keys before f_loc: unit vectors make the heat map too flat
_OWN_PIXELS_AT_START = 1.5  # log odds of the own pixels before the training; with more, colours learn slowly


@dataclass(frozen=True)
class FeatureAppearance(FrozenAppearance):
    """What things look like.

    Attributes:
        image, spread: as in :class:`dagaug.model.training_free.FrozenAppearance`.
        half, quarter: features of the stem, which keep detail that the frozen network loses.
        vectors: one vector for each attended region, pooled from the stem's features and the keys (eq. 3).
    """

    half: Float[Tensor, "B C1 H2 W2"]
    quarter: Float[Tensor, "B C2 h w"]
    vectors: Float[Tensor, "B N C3"]


def mirror_where(mirrored: Bool[Tensor, " B"], x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """The rows of ``x`` where ``mirrored`` is True flipped left to right."""
    return torch.where(mirrored[:, None, None, None], x.flip(-1), x)


class KeyHead(nn.Module):
    """From principal components of the frozen features to keys; at the start it drops all but the first components.

    Args:
        components: number of components that it reads.
        keys: length of a key.
        width: hidden channels.

    Attributes:
        scale: standard deviation of the components, set before the training.
    """

    def __init__(self, components: int, keys: int, width: int = 128) -> None:
        super().__init__()
        self.keys = keys
        self.register_buffer("scale", torch.ones(()))
        self.body = nn.Sequential(
            nn.Conv2d(components, width, 1),
            nn.GELU(),
            nn.Conv2d(width, width, 5, padding=2, groups=width),
            nn.GELU(),
            nn.Conv2d(width, keys, 1),
        )
        last = self.body[-1]
        assert isinstance(last, nn.Conv2d)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    scale: Tensor

    def forward(self, components: Float[Tensor, "B C g g"]) -> Float[Tensor, "B K g g"]:
        """Keys of unit length."""
        start = F.normalize(components[:, : self.keys].float(), dim=1)
        return F.normalize(start + self.body(components / self.scale).float(), dim=1)


class FeatureEncoder(FrozenEncoder):
    """DAE (Sec. 3.1) on a frozen E: learned keys, attended regions, and a small stem for detail.

    Args:
        extractor, reduction: E and its statistics.
        attention: number, half-size and sharpness k of the regions.
        keys: length of a key.
        width: channels of the stem at half the image's side.

    Attributes:
        channels: number of components, which d reads as instances.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        reduction: Reduction,
        attention: AttentionSettings,
        *,
        keys: int = 48,
        width: int = 32,
    ) -> None:
        super().__init__(extractor, reduction)
        self.attention = attention
        self.channels = reduction.projection.shape[1]
        self.head = KeyHead(self.channels, min(keys, self.channels))
        self.localise = Localisation(self.head.keys, attention.regions)
        self.stem = Encoder(width, 2 * width, blocks=1)

    def keys_of(self, components: Float[Tensor, "B C g g"]) -> Float[Tensor, "B K g g"]:
        """Unit vectors that the head reads from the principal components of E."""
        return self.head(components)

    def centres(self, keys: Float[Tensor, "B K g g"]) -> Float[Tensor, "B N 2"]:
        """Centres of the attended regions, f_loc of eq. 1."""
        return self.localise(_KEY_SCALE * keys)

    def find_centres(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B N 2"]:
        """Centres of the attended regions of images in [-1, 1]."""
        return self.centres(self.read(images)[0])

    def masks(self, centres: Float[Tensor, "B N 2"], size: int) -> Float[Tensor, "B N {size} {size}"]:
        """The regions' masks (eqs. 2 and 4) at a resolution."""
        half_size, sharpness = self.attention.half_size, self.attention.sharpness
        return attention_masks(centres, size, half_size=half_size, sharpness=sharpness)

    def appearance(self, images: Float[Tensor, "B 3 H W"], structure: FrozenStructure) -> FeatureAppearance:
        """What things look like, with one vector for each attended region."""
        spread = spread_objects(images, structure.object)
        keys = structure.keys.float()
        return self.read_appearance(images, spread, structure.object.float(), keys, self.centres(keys))

    def read_appearance(
        self,
        images: Float[Tensor, "B 3 H W"],
        spread: Float[Tensor, "B 3 H W"],
        object_: Float[Tensor, "B 1 H W"],
        keys: Float[Tensor, "B K g g"],
        centres: Float[Tensor, "B N 2"],
    ) -> FeatureAppearance:
        """The same from parts of a structure."""
        half, quarter = self.stem(spread)
        half, quarter = half.float(), quarter.float()
        side = keys.shape[-1]
        weight = self.masks(centres, side) * resize(object_, side)  # B N g g
        instances = torch.cat([resize(quarter, side), keys], 1)
        vectors = torch.einsum("bnhw,bchw->bnc", weight, instances) / (weight.sum((-1, -2)).unsqueeze(-1) + 1e-3)
        return FeatureAppearance(images, spread, half, quarter, vectors)


def _fold(flow: Float[Tensor, "B g g 2"]) -> Float[Tensor, "B 1 g g"]:
    """Log of the area that a cell's content had in the source, over the cell's; folds count as tiny."""
    side = flow.shape[1]
    padded = F.pad(flow.permute(0, 3, 1, 2), (1, 1, 1, 1), mode="replicate")
    across = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]) * side / 4
    down = (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]) * side / 4
    area = across[:, 0] * down[:, 1] - across[:, 1] * down[:, 0]
    return area.clamp(0.05, 20).log()[:, None] / 3


class FeatureMorpher(nn.Module):
    """G on the carried pixels and features of the source, with its instances placed at the reference's centres.

    Args:
        keys: length of a key.
        width: channels of the stem at half the image's side.
        instance_channels: channels of each instance that is painted into its region.
        own_pixels: least share of the source's own pixels in a result, in [0, 1].
    """

    def __init__(self, keys: int, *, width: int = 32, instance_channels: int = 32, own_pixels: float = 0.0) -> None:
        super().__init__()
        self.own_pixels = own_pixels
        self.instance = nn.Linear(2 * width + keys, instance_channels)
        self.generator = Generator(
            2 * width + keys + instance_channels + 4, half_skip=width + 1, full_skip=3 + 2, outputs=4
        )
        last = self.generator.last
        assert last.bias is not None
        with torch.no_grad():  # mostly the carried pixels at the start
            last.weight[3:].zero_()
            last.bias.copy_(torch.tensor([0.0, 0.0, 0.0, _OWN_PIXELS_AT_START]))

    def forward(
        self,
        appearance: FeatureAppearance,
        flow: Float[Tensor, "B n 2"],
        similarity: Float[Tensor, "B n"],
        source_object: Float[Tensor, "B 1 H W"],
        reference_keys: Float[Tensor, "B K g g"],
        reference_object: Float[Tensor, "B 1 H W"],
        reference_masks: Float[Tensor, "B N g g"],
    ) -> Morph:
        """Redraw sources, which are mirrored already where that fits better, along a flow.

        Args:
            appearance: of the sources.
            flow: where in the source each cell of the reference is found.
            similarity: of each cell with its best match, a cosine.
            source_object, reference_keys, reference_object: parts of the structures.
            reference_masks: masks of the reference's attended regions.
        """
        size, cells = appearance.image.shape[-1], reference_keys.shape[-1]
        coarse = flow.unflatten(1, (cells, cells))
        trust = torch.cat(
            [_fold(coarse), similarity.view(-1, 1, cells, cells), sample(resize(source_object, cells), coarse)], 1
        )
        grids = {side: enlarge_flow(flow, side) for side in (size, size // 2, size // 4)}
        pixels = sample(appearance.spread, grids[size], mode="bicubic").clamp(-1, 1)
        place = reference_masks / (reference_masks.sum(1, keepdim=True) + 0.1)
        painted = torch.einsum("bnhw,bnc->bchw", place, self.instance(appearance.vectors).float())
        quarter = resize(reference_object, size // 4)
        drawn = self.generator(
            stacked(
                sample(appearance.quarter, grids[size // 4]),
                resize(torch.cat([reference_keys, painted, trust], 1), size // 4) * quarter,
                quarter,
            ),
            stacked(sample(appearance.half, grids[size // 2]), resize(reference_object, size // 2)),
            stacked(pixels, sample(source_object, grids[size]), reference_object),
        )
        blend = self.own_pixels + (1 - self.own_pixels) * drawn[:, 3:4].sigmoid()
        colour = blend * pixels + (1 - blend) * drawn[:, :3].tanh()
        nothing = flow.new_zeros(len(flow), 1, 1)
        return Morph(colour, reference_object, grids[size // 2], nothing, blend)


class FeatureTranslator(FrozenTranslator):
    """F of ``reference`` mode on a frozen E.

    Args:
        extractor, reduction: E and its statistics.
        attention: the attended regions.
        own_pixels: as in :class:`FeatureMorpher`.
    """

    dae: FeatureEncoder

    def __init__(
        self,
        extractor: FeatureExtractor,
        reduction: Reduction,
        attention: AttentionSettings,
        own_pixels: float = 0.0,
    ) -> None:
        super().__init__(extractor, reduction)
        self.dae = FeatureEncoder(extractor, reduction, attention)
        self.morpher = FeatureMorpher(self.dae.head.keys, own_pixels=own_pixels)

    def _carried(  # type: ignore[override]
        self, appearance: FeatureAppearance, source: FrozenStructure, reference: FrozenStructure
    ) -> Morph:
        flow, mirrored, scores = match(source, reference)
        oriented = FeatureAppearance(
            mirror_where(mirrored, appearance.image),
            mirror_where(mirrored, appearance.spread),
            mirror_where(mirrored, appearance.half),
            mirror_where(mirrored, appearance.quarter),
            appearance.vectors,
        )
        masks = self.dae.masks(self.dae.centres(reference.keys.float()), reference.keys.shape[-1])
        morph = self.morpher(
            oriented,
            flow,
            scores.amax(2),
            mirror_where(mirrored, source.object.float()),
            reference.keys.float(),
            reference.object.float(),
            masks,
        )
        signed = torch.where(mirrored[:, None, None], -morph.flow[..., 0], morph.flow[..., 0])
        return replace(morph, flow=torch.stack([signed, morph.flow[..., 1]], -1))
