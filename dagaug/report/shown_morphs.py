"""Selection of the morphs that a report shows: random ones, and those of highest and lowest confidence.

The best and worst are spread over all classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

from dagaug.hdf5.reader import Store
from dagaug.report.morph_images import (
    ImageRef,
    MorphTable,
    OriginalImages,
    RGBImage,
    encode_thumbnail,
    round_robin_by_class,
)

__all__ = ["TABS", "SelectedMorphs", "select_morphs"]


TABS = ("random", "best", "worst")


@dataclass(frozen=True)
class SelectedMorphs:
    """Morphs to show, with their images.

    Attributes:
        pictures: encoded images, each one once.
        shown: the image behind each of ``pictures``.
        items: morph (index into :class:`MorphTable`), and its source, reference and result as indices into
            ``pictures``, -1 for a missing one.
        tabs: for each of :data:`TABS` indices into ``items``, in display order.
        ranks: rank of each item by confidence in the whole file, 1 for the highest; 0 if the confidence is unknown.
        total: number of morphs in the file.
        ranked: number of morphs with a confidence.
    """

    pictures: tuple[bytes, ...]
    shown: tuple[ImageRef, ...]
    items: tuple[tuple[int, int, int, int], ...]
    tabs: dict[str, tuple[int, ...]]
    ranks: tuple[int, ...]
    total: int
    ranked: int


def select_morphs(
    store: Store, originals: OriginalImages, *, side: int, quality: int, most: int, budget: int, seed: int = 0
) -> SelectedMorphs:
    """Take morphs from the three tabs in turn, until none is left or a limit is reached.

    Args:
        store: the HDF5 file.
        originals: its sources and references.
        side: longest side of an image in pixels; larger images are shrunk.
        quality: JPEG quality.
        most: maximum number of morphs.
        budget: maximum size of all images together, in bytes of base64.
        seed: random seed of the random tab.
    """
    morphs = MorphTable.of(store)
    encoded = _EncodedImages(store, originals, side, quality)
    items: dict[int, tuple[int, int, int, int]] = {}
    taken: dict[str, list[int]] = {tab: [] for tab in TABS}
    for tab, morph in _in_turn(_orders(morphs, seed)):
        if morph not in items:
            if len(items) >= most or encoded.size >= budget:
                break
            source, reference = int(morphs.source[morph]), int(morphs.reference[morph])
            result = encoded.result(int(morphs.row[morph]))
            pose = encoded.original(reference, mirrored=bool(morphs.mirrored[morph]))
            items[morph] = (morph, encoded.original(source), pose, result)
        taken[tab].append(morph)
    places = {morph: place for place, morph in enumerate(items)}
    surest = np.nan_to_num(morphs.confidence, nan=-1.0)
    taken["best"].sort(key=lambda morph: -surest[morph])
    taken["worst"].sort(key=lambda morph: surest[morph])
    return SelectedMorphs(
        pictures=tuple(encoded.pictures),
        shown=tuple(encoded.shown),
        items=tuple(items.values()),
        tabs={tab: tuple(places[morph] for morph in taken[tab]) for tab in TABS},
        ranks=tuple(_ranks(morphs.confidence)[list(items)].tolist()),
        total=len(morphs),
        ranked=int(np.isfinite(morphs.confidence).sum()),
    )


def _ranks(confidence: Float[np.ndarray, " N"]) -> Int64[np.ndarray, " N"]:
    """Rank by falling confidence; equal values share a rank; 0 for unknown."""
    known = np.isfinite(confidence)
    falling = -np.sort(-confidence[known])
    ranks = np.zeros(len(confidence), np.int64)
    ranks[known] = 1 + np.searchsorted(-falling, -confidence[known])
    return ranks


def _orders(morphs: MorphTable, seed: int) -> dict[str, list[int]]:
    """Order of all morphs in each tab."""
    confidence = np.nan_to_num(morphs.confidence, nan=-1.0)
    best, worst = np.argsort(-confidence, kind="stable"), np.argsort(confidence, kind="stable")
    return {
        "random": np.random.default_rng(seed).permutation(len(morphs)).tolist(),
        "best": best[round_robin_by_class(morphs.label[best])].tolist(),
        "worst": worst[round_robin_by_class(morphs.label[worst])].tolist(),
    }


def _in_turn(orders: dict[str, list[int]]) -> Iterator[tuple[str, int]]:
    for place in range(max(map(len, orders.values()))):
        for tab, order in orders.items():
            yield tab, order[place]


class _EncodedImages:
    """Encodes every image once and counts the bytes."""

    def __init__(self, store: Store, originals: OriginalImages, side: int, quality: int) -> None:
        self._store, self._originals, self._side, self._quality = store, originals, side, quality
        self._known: dict[ImageRef, int] = {}
        self.pictures: list[bytes] = []
        self.shown: list[ImageRef] = []
        self.size = 0

    def result(self, row: int) -> int:
        """Index of a morph's image, by its row in the table of images."""
        return self._place(ImageRef("result", row))

    def original(self, file: int, *, mirrored: bool = False) -> int:
        """Index of a source or reference image; -1 if it is missing."""
        return self._place(ImageRef("mirrored" if mirrored else "original", file))

    def _place(self, one: ImageRef) -> int:
        if one not in self._known:
            if one.kind == "result":
                image: RGBImage | None = self._store.image(one.number)
            else:
                image = self._originals.picture(one.number, mirrored=one.kind == "mirrored")
            self._known[one] = -1 if image is None else len(self.pictures)
            if image is not None:
                self.shown.append(one)
                self.pictures.append(encode_thumbnail(image, self._side, self._quality))
                self.size += math.ceil(len(self.pictures[-1]) * 4 / 3)
        return self._known[one]
