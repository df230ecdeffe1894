"""Pairs of sources and references for each step of a training on frozen features.

The features of all training images are computed once, in both orientations, and kept. Only exact
pairs, whose images are new in every step, pass through the frozen network again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from dagaug.compute.tensors import scale_pixels
from dagaug.model.correspondence import mutual_share, refine_flow, similarities
from dagaug.model.networks import resize
from dagaug.model.training_free import spread_objects
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.streamed_array import ImageArray, StreamedArray
from dagaug.training.pairs import (
    ExactPairs,
    PairSampler,
    PixelRows,
    StepReader,
    TrainingData,
    channels_first,
    folded_pairs,
    step_generator,
    warped_pairs,
)

__all__ = ["ComponentCache", "FeatureBatch", "FeaturePairSampler", "Teacher"]

_FOLDED_SHARE = 0.5  # of the exact pairs; the others have a smooth warp


class ComponentCache:
    """Principal components of the frozen features of M images and of their mirror images, streamed.

    Args:
        count: M.
        shape: of the components of an image: channels, g, g.
        execution: its cache holds components.
    """

    def __init__(self, count: int, shape: tuple[int, int, int], *, execution: Execution = Execution()) -> None:
        self._rows = StreamedArray(count, (2, *shape), dtype=np.float16, execution=execution)

    def write(self, row: int, components: Float16[np.ndarray, "C g g"], mirrored: Float16[np.ndarray, "C g g"]) -> None:
        """Store the components of an image and of its mirror image."""
        self._rows.write(row, np.stack([components, mirrored])[None])

    def keep(self, images: Int[np.ndarray, " L"]) -> None:
        """Leave out all but some images; rows are counted among these from now on."""
        self._rows = self._rows.take(images)

    def read(self, rows: Int[Tensor, " B"]) -> Float16[Tensor, "B 2 C g g"]:
        """Components of images and of their mirror images, on the CPU."""
        return torch.from_numpy(self._rows[rows.cpu().numpy()])


class Teacher(NamedTuple):
    """Correspondence by the frozen features alone, which serves as label where no exact one is known.

    Attributes:
        flow: where in the source each cell of the reference is found.
        share: share of mutual nearest neighbours on the reference's object, in [0, 1].
    """

    flow: Float[Tensor, "B n 2"]
    share: Float[Tensor, " B"]


class FeatureBatch(NamedTuple):
    """Sources and references of one step: first class pairs, then exact pairs, then cross pairs.

    Sources are mirrored where their mirror image fits the reference better.

    Attributes:
        source, reference: images in [-1, 1].
        spread: the sources with their backgrounds painted over by their objects.
        source_mask, reference_mask: masks of their objects, in [0, 1].
        source_components, reference_components: of the frozen features.
        background: the reference without its object.
        source_label, reference_label: class indices.
        exact_pairs: of the exact pairs, with the true grids.
        teacher: of the pairs that are not exact, in the order class pairs, cross pairs; None if not asked for.
        class_count, exact_count: number of class pairs and of exact pairs; the rest are cross pairs.
    """

    source: Float[Tensor, "B 3 H W"]
    reference: Float[Tensor, "B 3 H W"]
    spread: Float[Tensor, "B 3 H W"]
    source_mask: Float[Tensor, "B 1 H W"]
    reference_mask: Float[Tensor, "B 1 H W"]
    source_components: Float[Tensor, "B C g g"]
    reference_components: Float[Tensor, "B C g g"]
    background: Float[Tensor, "B 3 H W"]
    source_label: Int[Tensor, " B"]
    reference_label: Int[Tensor, " B"]
    exact_pairs: ExactPairs
    teacher: Teacher | None
    class_count: int
    exact_count: int

    @property
    def of_class(self) -> slice:
        """The class pairs."""
        return slice(0, self.class_count)

    @property
    def exact(self) -> slice:
        """The exact pairs."""
        return slice(self.class_count, self.class_count + self.exact_count)

    @property
    def known(self) -> slice:
        """The class and exact pairs, whose true result is known."""
        return slice(0, self.class_count + self.exact_count)

    @property
    def cross(self) -> slice:
        """The pairs of different classes, whose true result is unknown."""
        return slice(self.class_count + self.exact_count, len(self.source))


@dataclass(frozen=True)
class _Side:
    """Rows of one side of the pairs, on the CPU; the components of images and of their mirror images."""

    rows: Int[Tensor, " B"]
    pixels: PixelRows
    spread: UInt8[Tensor, "B 3 S S"]
    components: Float16[Tensor, "B 2 C g g"]


class _Drawn(NamedTuple):
    """Sources and references of a step; the generator of its further random numbers."""

    source: _Side
    reference: _Side
    generator: torch.Generator


@dataclass(frozen=True)
class _Views:
    """Images of one side of the pairs; attributes as in :class:`FeatureBatch`."""

    image: Tensor
    spread: Tensor
    background: Tensor
    mask: Tensor
    components: Tensor


class FeaturePairSampler:
    """Draws the pairs of each step.

    Args:
        data: the training images.
        spread: the images with their backgrounds painted over by their objects, uint8 RGB, M × S × S × 3.
        cache: their components.
        components_of: the components of new images in [-1, 1].
        keys: number of first components that are the keys of the model without training.
        seed: seed of all random numbers.
        shares: shares of class pairs and exact pairs in a batch; the rest are cross pairs.
    """

    def __init__(
        self,
        data: TrainingData,
        spread: ImageArray,
        cache: ComponentCache,
        components_of: Callable[[Tensor], Tensor],
        *,
        keys: int,
        seed: int,
        shares: tuple[float, float] = (0.375, 0.3125),
    ) -> None:
        self.data, self.spread, self.cache = data, spread, cache
        self.components_of, self.keys, self.seed = components_of, keys, seed
        self.rows = PairSampler(data, seed, shares)
        self._reader: StepReader[_Drawn] = StepReader()

    def to(self, device: torch.device) -> None:
        """Move batches to a device."""
        self.data = self.data.to(device)

    def batch(self, step: int, size: int, *, with_teacher: bool) -> FeatureBatch:
        """The pairs of a step; ``with_teacher`` adds the correspondence by frozen features."""
        class_count, exact_count = self.rows.counts(size)
        drawn = self._reader(self._read, step, size)
        generator, source_rows, reference_rows = drawn.generator, drawn.source.rows, drawn.reference.rows
        exact = slice(class_count, class_count + exact_count)
        others = torch.tensor([row for row in range(size) if not exact.start <= row < exact.stop], dtype=torch.long)
        reference_flip = torch.rand(size, generator=generator) < 0.5
        source_flip = torch.rand(size, generator=generator) < 0.5
        reference = self._views(drawn.reference, reference_flip)
        teacher = None
        if len(others):
            better, teacher = self._match(
                drawn.source.components[others], reference.components[others], reference.mask[others], with_teacher
            )
            source_flip[others] = better
        source = self._views(drawn.source, source_flip)
        made = self._exact(source, reference.background, exact, generator)
        labels = self.data.labels.to(source.image.device)
        source_label = labels[source_rows.to(labels.device)]
        reference_label = labels[reference_rows.to(labels.device)].clone()
        reference_label[exact] = source_label[exact]
        self._put_exact(source, reference, made, exact)
        return FeatureBatch(
            source.image, reference.image, source.spread, source.mask, reference.mask, source.components,
            reference.components, reference.background, source_label, reference_label, made, teacher,
            class_count, exact_count,
        )  # fmt: skip

    def _read(self, step: int, size: int, flag: bool) -> _Drawn:
        del flag  # all steps are alike
        generator = step_generator(self.seed, step)
        source, reference = self.rows.draw(*self.rows.counts(size), size, generator)
        return _Drawn(self._side(source), self._side(reference), generator)

    def _side(self, rows: Int[Tensor, " B"]) -> _Side:
        return _Side(rows, self.data.rows(rows), channels_first(self.spread[rows.numpy()]), self.cache.read(rows))

    def _views(self, side: _Side, mirrored: Bool[Tensor, " B"]) -> _Views:
        device = self.data.device
        flip = mirrored.to(device)[:, None, None, None]

        def oriented(images: Tensor) -> Tensor:
            found = images.to(device)
            return torch.where(flip, found.flip(-1), found)

        components = side.components[torch.arange(len(mirrored)), mirrored.long()]
        return _Views(
            scale_pixels(oriented(side.pixels.images)),
            scale_pixels(oriented(side.spread)),
            scale_pixels(oriented(side.pixels.backgrounds)),
            oriented(side.pixels.masks).float() / 255,
            components.float().to(device),
        )

    def _match(
        self, source: Float16[Tensor, "P 2 C g g"], reference: Tensor, mask: Tensor, with_teacher: bool
    ) -> tuple[Bool[Tensor, " P"], Teacher | None]:
        """Whether the mirror images of sources fit better, by the frozen keys; and the teacher's flow."""
        wanted = F.normalize(reference[:, : self.keys], dim=1)
        weight = resize(mask, reference.shape[-1]).flatten(1)
        both = []
        for orientation in (0, 1):
            found = source[:, orientation].contiguous().float().to(reference.device)
            both.append(similarities(wanted, F.normalize(found[:, : self.keys], dim=1)))
        shares = [mutual_share(scores, weight) for scores in both]
        better = shares[1] > shares[0]
        if not with_teacher:
            return better.cpu(), None
        scores = torch.where(better[:, None, None], both[1], both[0])
        return better.cpu(), Teacher(refine_flow(scores, weight), torch.maximum(*shares))

    def _exact(self, source: _Views, background: Tensor, exact: slice, generator: torch.Generator) -> ExactPairs:
        image, mask, own, behind = source.image[exact], source.mask[exact], source.background[exact], background[exact]
        folds = round(_FOLDED_SHARE * len(image))
        folded = folded_pairs(
            image[:folds], mask[:folds], own[:folds], behind[:folds], mirror=False, generator=generator
        )
        warped = warped_pairs(image[folds:], mask[folds:], behind[folds:], mirror=False, generator=generator)
        return ExactPairs(*(torch.cat(both) for both in zip(folded, warped, strict=True)))

    def _put_exact(self, source: _Views, reference: _Views, made: ExactPairs, exact: slice) -> None:
        """Put the exact pairs into their places among the views."""
        count = len(made.source)
        if not count:
            return
        found = self.components_of(torch.cat([made.source, made.reference]))
        source.image[exact], source.mask[exact] = made.source, made.source_mask
        source.components[exact], source.spread[exact] = found[:count], spread_objects(made.source, made.source_mask)
        reference.image[exact], reference.mask[exact] = made.reference, made.reference_mask
        reference.components[exact] = found[count:]
