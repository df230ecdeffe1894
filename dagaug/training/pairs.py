"""Pairs of sources and references for each training step of pose morphing, and the training images.

All random numbers of a step come from the seed and the step's number, so a resumed training sees the same pairs as an
uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from dagaug.compute.tensors import scale_pixels
from dagaug.model.known_warps import identity_grid, random_limb, random_warp, sample
from dagaug.runtime.streamed_array import ImageArray, StreamedArray

__all__ = [
    "ExactPairs",
    "PairBatch",
    "PairSampler",
    "PixelRows",
    "StepReader",
    "TrainingData",
    "channels_first",
    "folded_pairs",
    "step_generator",
    "warped_pairs",
]

_Read = TypeVar("_Read")
_CPU = torch.device("cpu")

_VIEW_STRENGTH = 0.35  # of random_warp: 12° of rotation, 10% of scale, 9% of shift
_FOLDED_SHARE = 0.5  # share of exact pairs with a turned limb; the others have a smooth warp


def step_generator(seed: int, step: int, stream: int = 0) -> torch.Generator:
    """Generator of the random numbers of one step; the streams of a step are independent."""
    state = np.random.SeedSequence([seed, step, stream]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


@dataclass(frozen=True)
class TrainingData:
    """All M training images of a data set, at the networks' size.

    Attributes:
        images, backgrounds: images with and without their objects, uint8 RGB, M × S × S × 3.
        masks: 255 on the object, else 0.
        labels: class indices.
        device: where rows go.
    """

    images: ImageArray
    backgrounds: ImageArray
    masks: UInt8[np.ndarray, "M S S"] | StreamedArray
    labels: Int[Tensor, " M"]
    device: torch.device = _CPU

    @classmethod
    def of(
        cls,
        images: ImageArray,
        backgrounds: ImageArray,
        masks: UInt8[np.ndarray, "M S S"] | StreamedArray,
        labels: Int[np.ndarray, " M"],
    ) -> TrainingData:
        """The same with labels from NumPy."""
        return cls(images, backgrounds, masks, torch.from_numpy(labels.astype(np.int64)))

    def to(self, device: torch.device) -> TrainingData:
        """The same data, whose rows go to another device."""
        return replace(self, labels=self.labels.to(device), device=device)

    def rows(self, index: Int[Tensor, " B"]) -> PixelRows:
        """Some images, on the CPU."""
        chosen = index.cpu().numpy()
        masks = torch.from_numpy(np.ascontiguousarray(self.masks[chosen]))[:, None]
        return PixelRows(channels_first(self.images[chosen]), channels_first(self.backgrounds[chosen]), masks)


class PixelRows(NamedTuple):
    """Some rows of :class:`TrainingData`, channels first."""

    images: UInt8[Tensor, "B 3 S S"]
    backgrounds: UInt8[Tensor, "B 3 S S"]
    masks: UInt8[Tensor, "B 1 S S"]


def channels_first(images: UInt8[np.ndarray, "B S S 3"]) -> UInt8[Tensor, "B 3 S S"]:
    """Pixels as a tensor on the CPU with channels first, also in memory."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


class StepReader(Generic[_Read]):
    """Reads what each step of a training needs while the step before it is computed."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._next: tuple[tuple[int, int, bool], Future[_Read]] | None = None

    def __call__(self, read: Callable[[int, int, bool], _Read], step: int, size: int, flag: bool = False) -> _Read:
        """What a step needs. The next step of the same size and flag is read from now on, in a thread.

        Args:
            read: called with the following arguments; what it returns depends on them alone.
            step: number of the step.
            size: its number of pairs.
            flag: what else the reading depends on.
        """
        wanted, following = (step, size, flag), (step + 1, size, flag)
        known, future = self._next or (None, None)
        found = future.result() if known == wanted and future is not None else read(*wanted)
        self._next = following, self._pool.submit(read, *following)
        return found


class PairBatch(NamedTuple):
    """Sources and references of one step: first class pairs, then exact pairs, then cross pairs.

    Attributes:
        source, reference: images in [-1, 1].
        source_mask, reference_mask: masks of their objects, in [0, 1].
        background: the reference without its object.
        source_label, reference_label: class indices.
        grid: for exact pairs, where each pixel of the reference comes from in the source.
        seen: for exact pairs, where in the reference ``grid`` is known, in [0, 1].
        class_pairs, exact_pairs: number of each; the rest are cross pairs.
    """

    source: Float[Tensor, "B 3 H W"]
    reference: Float[Tensor, "B 3 H W"]
    source_mask: Float[Tensor, "B 1 H W"]
    reference_mask: Float[Tensor, "B 1 H W"]
    background: Float[Tensor, "B 3 H W"]
    source_label: Int[Tensor, " B"]
    reference_label: Int[Tensor, " B"]
    grid: Float[Tensor, "E H W 2"]
    seen: Float[Tensor, "E 1 H W"]
    class_pairs: int
    exact_pairs: int

    @property
    def exact(self) -> slice:
        """The exact pairs."""
        return slice(self.class_pairs, self.class_pairs + self.exact_pairs)

    @property
    def known(self) -> slice:
        """The class and exact pairs, whose true result is known."""
        return slice(0, self.class_pairs + self.exact_pairs)

    @property
    def cross(self) -> slice:
        """The pairs of different classes, whose true result is unknown."""
        return slice(self.class_pairs + self.exact_pairs, len(self.source))


class ExactPairs(NamedTuple):
    """Pairs of a source and a known change of its object.

    Attributes:
        source, source_mask: the source in [-1, 1] and the mask of its object.
        reference, reference_mask: the changed object on another background, and its mask.
        grid: where each pixel of the reference comes from in the source.
        seen: where the reference shows what the source shows, too, in [0, 1].
    """

    source: Float[Tensor, "B 3 H W"]
    source_mask: Float[Tensor, "B 1 H W"]
    reference: Float[Tensor, "B 3 H W"]
    reference_mask: Float[Tensor, "B 1 H W"]
    grid: Float[Tensor, "B H W 2"]
    seen: Float[Tensor, "B 1 H W"]


def warped_pairs(
    source: Float[Tensor, "B 3 H W"],
    mask: Float[Tensor, "B 1 H W"],
    background: Float[Tensor, "B 3 H W"],
    *,
    mirror: bool = True,
    generator: torch.Generator | None = None,
) -> ExactPairs:
    """Cut out each source's object, warp it smoothly at random, and paste it on another background."""
    grid = random_warp(mask, mirror=mirror, generator=generator)
    warped_mask = sample(mask, grid, padding="zeros")
    image = warped_mask * sample(source, grid) + (1 - warped_mask) * background
    return ExactPairs(source, mask, image, warped_mask, grid, warped_mask)


def folded_pairs(
    source: Float[Tensor, "B 3 H W"],
    mask: Float[Tensor, "B 1 H W"],
    own_background: Float[Tensor, "B 3 H W"],
    background: Float[Tensor, "B 3 H W"],
    *,
    mirror: bool = True,
    generator: torch.Generator | None = None,
) -> ExactPairs:
    """Turn a limb of each source, then apply a random affine warp to the object; every second pair is reversed.

    In a reversed pair the source has the turned limb and the reference is the original. What the limb hides in the
    source is then not ``seen``.
    """
    limb = random_limb(mask, generator=generator)
    here = identity_grid(mask.shape[-1], mask.device).expand(len(mask), -1, -1, 2)
    body = mask * (1 - limb.part)
    over = sample(limb.part, limb.unturned(here), padding="zeros") * torch.where(limb.behind, 1 - body, 1.0)
    folded_mask = over + (1 - over) * body
    empty = (1 - limb.part) * source + limb.part * own_background
    folded = over * sample(source, limb.unturned(here)) + (1 - over) * empty
    hidden = torch.where(limb.part > 0.5, 1 - sample(over, limb.turned(here), padding="zeros"), over)

    back = (torch.arange(len(mask), device=mask.device) % 2 == 1)[:, None, None, None]
    before, before_mask = torch.where(back, folded, source), torch.where(back, folded_mask, mask)
    after, after_mask = torch.where(back, source, folded), torch.where(back, mask, folded_mask)
    seen = after_mask * torch.where(back, 1 - hidden, 1.0)

    grid = random_warp(after_mask, articulated=False, mirror=mirror, generator=generator)
    image_mask = sample(after_mask, grid, padding="zeros")
    image = image_mask * sample(after, grid) + (1 - image_mask) * background
    on_limb = sample(torch.where(back, limb.part, over), grid, padding="zeros").permute(0, 2, 3, 1) > 0.5
    total = torch.where(on_limb, torch.where(back, limb.turned(grid), limb.unturned(grid)), grid)
    return ExactPairs(before, before_mask, image, image_mask, total, sample(seen, grid, padding="zeros"))


class _Drawn(NamedTuple):
    """Rows and pixels of a step's sources and references; the generator of its further random numbers."""

    source: Int[Tensor, " B"]
    reference: Int[Tensor, " B"]
    source_pixels: PixelRows
    reference_pixels: PixelRows
    generator: torch.Generator


class PairSampler:
    """Draws the pairs of each step of pose morphing.

    Args:
        data: the training images.
        seed: seed of all random numbers.
        shares: shares of class pairs and exact pairs in a batch; the rest are cross pairs.
    """

    def __init__(self, data: TrainingData, seed: int, shares: tuple[float, float] = (0.375, 0.3125)) -> None:
        self.data, self.seed, self.shares = data, seed, shares
        labels = data.labels.cpu()
        self._reader: StepReader[_Drawn] = StepReader()
        self.rows_of_class = [torch.nonzero(labels == label)[:, 0] for label in range(int(labels.max()) + 1)]
        self.classes_with_pairs = [label for label, rows in enumerate(self.rows_of_class) if len(rows) > 1]
        self.count = len(labels)
        self.labels = labels

    def batch(self, step: int, size: int, *, only_exact: bool = False) -> PairBatch:
        """The pairs of a step.

        Args:
            step: number of the step.
            size: number of pairs.
            only_exact: whether all pairs are exact pairs.
        """
        class_pairs, exact_pairs = (0, size) if only_exact else self.counts(size)
        drawn = self._reader(self._read, step, size, only_exact)
        source, reference, generator = drawn.source, drawn.reference, drawn.generator
        source_image, source_mask, own_background = self._views(drawn.source_pixels, generator)
        image, mask, background = self._views(drawn.reference_pixels, generator)
        exact = slice(class_pairs, class_pairs + exact_pairs)
        made = self._exact(source_image[exact], source_mask[exact], own_background[exact], background[exact], generator)
        source_image, source_mask = source_image.clone(), source_mask.clone()
        image, mask = image.clone(), mask.clone()
        source_image[exact], source_mask[exact] = made.source, made.source_mask
        image[exact], mask[exact] = made.reference, made.reference_mask
        labels = self.data.labels
        reference_label = labels[reference.to(labels.device)].clone()
        source_label = labels[source.to(labels.device)]
        reference_label[exact] = source_label[exact]
        return PairBatch(
            source_image, image, source_mask, mask, background, source_label, reference_label, made.grid, made.seen,
            class_pairs, exact_pairs,
        )  # fmt: skip

    def _read(self, step: int, size: int, only_exact: bool) -> _Drawn:
        generator = step_generator(self.seed, step)
        source, reference = self.draw(*((0, size) if only_exact else self.counts(size)), size, generator)
        return _Drawn(source, reference, self.data.rows(source), self.data.rows(reference), generator)

    def counts(self, size: int) -> tuple[int, int]:
        """Number of class pairs and of exact pairs in a batch."""
        return (round(self.shares[0] * size) if self.classes_with_pairs else 0), round(self.shares[1] * size)

    def draw(self, class_pairs: int, exact_pairs: int, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Rows of sources and of references."""
        sources, references = [], []
        for index in range(size):
            if index < class_pairs:
                label = self.classes_with_pairs[self._draw(len(self.classes_with_pairs), generator)]
                order = torch.randperm(len(self.rows_of_class[label]), generator=generator)
                first, second = (int(self.rows_of_class[label][order[k]]) for k in (0, 1))
            else:
                first = second = self._draw(self.count, generator)
                other_class = index >= class_pairs + exact_pairs
                while second == first or (other_class and self.labels[second] == self.labels[first]):
                    second = self._draw(self.count, generator)
            sources.append(first)
            references.append(second)
        return torch.tensor(sources), torch.tensor(references)

    @staticmethod
    def _exact(
        source: Tensor, mask: Tensor, own_background: Tensor, background: Tensor, generator: torch.Generator
    ) -> ExactPairs:
        """Exact pairs of both kinds."""
        folds = round(_FOLDED_SHARE * len(source))
        folded = folded_pairs(
            source[:folds], mask[:folds], own_background[:folds], background[:folds], generator=generator
        )
        warped = warped_pairs(source[folds:], mask[folds:], background[folds:], generator=generator)
        return ExactPairs(*(torch.cat(both) for both in zip(folded, warped, strict=True)))

    @staticmethod
    def _draw(count: int, generator: torch.Generator) -> int:
        return int(torch.randint(count, (1,), generator=generator))

    def _views(
        self, pixels: PixelRows, generator: torch.Generator
    ) -> tuple[Float[Tensor, "B 3 S S"], Float[Tensor, "B 1 S S"], Float[Tensor, "B 3 S S"]]:
        """Image, mask and background of each row, under a random flip and a weak affine warp."""
        on_device = [of_rows.to(self.data.device) for of_rows in pixels]
        image, background, mask = scale_pixels(on_device[0]), scale_pixels(on_device[1]), on_device[2].float() / 255
        grid = random_warp(mask, strength=_VIEW_STRENGTH, articulated=False, generator=generator)
        moved = sample(torch.cat([image, background], 1), grid)
        return moved[:, :3], sample(mask, grid, padding="zeros"), moved[:, 3:]
