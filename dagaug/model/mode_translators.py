"""Translators F = DAE ∘ G of the modes ``paper`` and ``reference``; a checkpoint holds one.

In ``paper`` mode, :math:`s' = G(DAE(s))` as in the paper. In ``reference`` mode, F redraws the source s in the pose
of the reference t: the source's instances are placed at the reference's centres, and its features and pixels move
along a learned correspondence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dagaug.data.grabcut_and_inpainting import PatchBox
from dagaug.model.known_warps import identity_grid, sample
from dagaug.model.networks import (
    Appearance,
    Batched,
    DeepAttentionEncoder,
    Generator,
    Residual,
    Structure,
    conv_block,
    resize,
    stacked,
    upsample,
)
from dagaug.model.task_presets import AttentionSettings

__all__ = [
    "Morph",
    "Morpher",
    "PaperTranslator",
    "ReferenceTranslator",
    "Transport",
    "as_sharp_as",
    "composite",
    "fineness",
]


class Transport(nn.Module):
    """Flow: where in the source each pixel of the result comes from.

    A softmax of the reference's keys against the source's, restricted to the source's object, gives a coarse flow as
    its mean position. A small network adds up to ±``reach`` to it.
    """

    def __init__(self, features: int, width: int = 64, reach: float = 0.25) -> None:
        super().__init__()
        self.reach = reach
        self.log_temperature = nn.Parameter(torch.tensor(2.5))
        self.refine = nn.Sequential(conv_block(2 * features + 5, width), Residual(width))
        last = nn.Conv2d(width // 2, 2, 3, padding=1)
        nn.init.zeros_(last.weight)  # the refinement starts at zero
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.to_half = nn.Sequential(conv_block(width, width // 2), last)

    def correspondence(self, source: Structure, reference: Structure) -> Float[Tensor, "B hw hw"]:
        """Log-probability that a cell of the reference (row) corresponds to a cell of the source (column)."""
        query, key = reference.keys.flatten(2), source.keys.flatten(2)  # B K hw
        logits = self.log_temperature.exp() * torch.einsum("bkq,bks->bqs", query, key)
        inside = resize(source.object, source.keys.shape[-1]).flatten(1)  # B hw
        return (logits + torch.log(inside + 1e-4)[:, None]).log_softmax(-1)

    def forward(
        self, source: Structure, reference: Structure
    ) -> tuple[Float[Tensor, "B H2 W2 2"], Float[Tensor, "B hw hw"]]:
        """The flow as a sampling grid at half the image's side, and the log-probabilities of the correspondence."""
        side = source.keys.shape[-1]
        log_match = self.correspondence(source, reference)
        here = identity_grid(side, log_match.device)
        coarse = (log_match.exp() @ here.flatten(0, 1)).unflatten(1, (side, side))  # B h w 2
        inputs = stacked(
            (coarse - here).permute(0, 3, 1, 2),
            sample(source.features, coarse),
            reference.features,
            sample(resize(source.object, side), coarse),
            resize(reference.object, side),
            log_match.amax(-1).exp().view(-1, 1, side, side),
        )
        delta = self.reach * torch.tanh(self.to_half(upsample(self.refine(inputs))).float())
        flow = resize(coarse.permute(0, 3, 1, 2), 2 * side) + delta
        return flow.permute(0, 2, 3, 1), log_match


@dataclass(frozen=True)
class Morph(Batched):
    """A source redrawn in a reference's pose.

    Attributes:
        object: the redrawn object in [-1, 1]; only meaningful inside the mask.
        mask: where the result shows the object, in [0, 1].
        flow: where in the source each pixel of the result comes from (a sampling grid at half the image's side).
        log_match: log-probabilities of the correspondence, reference cells × source cells.
        blend: share of the source's own pixels at each pixel of the result.
    """

    object: Float[Tensor, "B 3 H W"]
    mask: Float[Tensor, "B 1 H W"]
    flow: Float[Tensor, "B H2 W2 2"]
    log_match: Float[Tensor, "B hw hw"]
    blend: Float[Tensor, "B 1 H W"]


def composite(morph: Morph, background: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """The morph on a background."""
    return morph.mask * morph.object + (1 - morph.mask) * background


_MAX_SHARPENING = 2.0  # amount of unsharp masking; more would amplify noise


def as_sharp_as(
    image: Float[Tensor, "B 3 H W"],
    mask: Float[Tensor, "B 1 H W"],
    drawn: Float[Tensor, "B 3 H W"],
    drawn_mask: Float[Tensor, "B 1 H W"],
) -> Float[Tensor, "B 3 H W"]:
    """Sharpen ``drawn`` by unsharp masking until its object has as much fine detail as the object of ``image``.

    Interpolated pixels, and pixels where the network was uncertain, are blurrier than a photograph. A classifier that
    trains on blurry images learns fine marks less well (examples/experiments.md).

    Args:
        image, mask: a real image in [-1, 1] and the mask of its object.
        drawn, drawn_mask: the image to sharpen and the mask of its object.
    """
    high = drawn - F.avg_pool2d(drawn, 3, 1, 1, count_include_pad=False)
    lacking = _fineness(image, mask) - _fineness(drawn, drawn_mask)
    amount = (lacking / (_fineness(high, drawn_mask) + 1e-4)).clamp(0, _MAX_SHARPENING)
    return (drawn + amount * high).clamp(-1, 1)


def _fineness(image: Float[Tensor, "B 3 H W"], mask: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B 1 1 1"]:
    """Fine detail of the whole object without its outline."""
    return fineness(image, -F.max_pool2d(-mask, 3, 1, 1), image.shape[-1])


_MAX_MASK_CHANGE = 1.0  # log odds; with more, a folded wing keeps the outline of a raised one


class Morpher(nn.Module):
    """F of ``reference`` mode: G with the source's instances placed at the reference's centres.

    Args:
        width: channels at half the image's side.
        instance_channels: channels of each instance that is painted into its region.
        own_pixels: least share of the source's own pixels in a result, in [0, 1]. Generated pixels have a lower
            pixel-wise error, because they are blurred where the network is uncertain, but sometimes show the class less
            clearly (examples/experiments.md).
    """

    def __init__(self, *, width: int = 32, instance_channels: int = 32, own_pixels: float = 0.0) -> None:
        super().__init__()
        self.own_pixels = own_pixels
        features = 2 * width
        self.transport = Transport(features)
        self.instance = nn.Linear(features, instance_channels)
        self.generator = Generator(
            2 * features + instance_channels + 1, half_skip=width + 1, full_skip=3 + 2, outputs=5
        )

    def forward(self, appearance: Appearance, source: Structure, reference: Structure) -> Morph:
        """Redraw each source in the pose of the reference at its place in the batch."""
        flow, log_match = self.transport(source, reference)
        grid = flow.permute(0, 3, 1, 2)  # B 2 H/2 W/2
        size = appearance.image.shape[-1]
        full_grid = resize(grid, size).permute(0, 2, 3, 1)
        quarter_grid = resize(grid, size // 4).permute(0, 2, 3, 1)
        pixels = sample(appearance.image, full_grid, mode="bicubic").clamp(-1, 1)
        object_here = sample(source.object, full_grid)
        # paint the instances of the source into the regions of the reference
        place = reference.masks / (reference.masks.sum(1, keepdim=True) + 0.1)  # B N h w
        painted = torch.einsum("bnhw,bnc->bchw", place, self.instance(appearance.vectors).float())
        object_quarter = resize(reference.object, size // 4)
        drawn = self.generator(
            stacked(
                sample(appearance.quarter, quarter_grid), painted * object_quarter, reference.features, object_quarter
            ),
            stacked(sample(appearance.half, flow), resize(reference.object, size // 2)),
            stacked(pixels, object_here, reference.object),
        )
        blend = self.own_pixels + (1 - self.own_pixels) * drawn[:, 3:4].sigmoid()
        colour = blend * pixels + (1 - blend) * drawn[:, :3].tanh()
        # the outline is the reference's; the generator changes the mask only where it is uncertain
        prior = torch.logit(reference.object.clamp(0.02, 0.98))
        change = _MAX_MASK_CHANGE * torch.tanh(drawn[:, 4:5] / _MAX_MASK_CHANGE)
        return Morph(colour, (prior + change).sigmoid(), flow, log_match, blend)


class ReferenceTranslator(nn.Module):
    """F of ``reference`` mode: DAE and G; ``own_pixels`` as in :class:`Morpher`.

    Attributes:
        structure_type: class of the structures.
        stores_backgrounds: whether augmenting stores each image's inpainted background, or makes it when needed.
        takes_given_masks: whether given masks replace those of the structures. Trained networks morph better with their
            own, which they were trained with: the error of ETH-80's morphs is .182, and .187 with given masks.
    """

    structure_type = Structure
    stores_backgrounds = True
    takes_given_masks = False

    def __init__(self, attention: AttentionSettings, own_pixels: float = 0.0) -> None:
        super().__init__()
        self.dae = DeepAttentionEncoder(attention)
        self.morpher = Morpher(own_pixels=own_pixels)

    def structure(self, images: Float[Tensor, "B 3 H W"], boxes: Sequence[PatchBox | None] | None = None) -> Structure:
        """Where things are; the networks find the objects without their ``boxes``."""
        del boxes
        return self.dae.structure(images)[0]

    def appearance(self, images: Float[Tensor, "B 3 H W"], structure: Structure) -> Appearance:
        """What things look like."""
        return self.dae.appearance(images, structure)

    def read(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Structure, Appearance]:
        """Structure and appearance of images in [-1, 1]; sources need both, references the structure."""
        structure, _ = self.dae.structure(images)
        return structure, self.dae.appearance(images, structure)

    def forward(self, appearance: Appearance, source: Structure, reference: Structure) -> Morph:
        """F(s; t): redraw encoded sources in the poses of encoded references."""
        return self.morpher(appearance, source, reference)

    def finished(self, appearance: Appearance, source: Structure, reference: Structure) -> Morph:
        """F(s; t), sharpened as for output: with as much fine detail as the sources."""
        morph = self(appearance, source, reference)
        return replace(morph, object=as_sharp_as(appearance.image, source.object, morph.object, morph.mask))


class PaperTranslator(nn.Module):
    """F of ``paper`` mode: DAE and G."""

    def __init__(self, attention: AttentionSettings) -> None:
        super().__init__()
        self.dae = DeepAttentionEncoder(attention)
        self.generator = Generator(attention.regions * self.dae.channels)

    def draw(self, instances: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        """G: from concatenated instances to an image in [-1, 1]."""
        return self.generator(instances).tanh()

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """F = DAE ∘ G."""
        return self.draw(self.dae(images))


def fineness(images: Float[Tensor, "B C H W"], mask: Float[Tensor, "B 1 H W"], cell: int) -> Float[Tensor, "B 1 h w"]:
    """Amount of fine detail in each cell: mean absolute difference of its pixels from the mean of their neighbours.

    Args:
        images: in [-1, 1].
        mask: weight of each pixel.
        cell: side of the cells in pixels; it divides H and W.
    """
    fine = (images - F.avg_pool2d(images, 3, 1, 1, count_include_pad=False)).abs().mean(1, keepdim=True)
    return F.avg_pool2d(fine * mask, cell) / (F.avg_pool2d(mask, cell) + 1e-3)
