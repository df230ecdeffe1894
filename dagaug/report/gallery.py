"""Which morphs of an HDF5 file to look at, and their pictures.

Nobody should be fooled by a chosen few: a gallery has the surest morphs, the least sure and random ones, the
first two spread over all classes, and says of how many.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

from dagaug.hdf5.reader import Store
from dagaug.report.pictures import Morphs, Originals, Picture, Shown, encoded_small, spread

__all__ = ["TABS", "Gallery", "choose"]


TABS = ("random", "best", "worst")


@dataclass(frozen=True)
class Gallery:
    """What a page shows.

    Attributes:
        pictures: encoded images, each once.
        shown: what each of them is.
        items: morph (index into :class:`Morphs`), and its source, reference and result as indices into
            ``pictures``, -1 where there is none.
        tabs: for each of :data:`TABS` indices into ``items``, in the order in which they are shown.
        ranks: for each item how many morphs of the file are surer, plus one; 0 where the confidence is unknown.
        total: morphs with a picture in the file.
        ranked: how many of them have a confidence.
    """

    pictures: tuple[bytes, ...]
    shown: tuple[Shown, ...]
    items: tuple[tuple[int, int, int, int], ...]
    tabs: dict[str, tuple[int, ...]]
    ranks: tuple[int, ...]
    total: int
    ranked: int


def choose(
    store: Store, originals: Originals, *, side: int, quality: int, most: int, budget: int, seed: int = 0
) -> Gallery:
    """Take from the three tabs in turn until everything is taken or the page is full.

    Args:
        store: the file.
        originals: its sources and references.
        side: longest side of a picture in pixels; larger ones are shrunk.
        quality: of JPEG.
        most: morphs.
        budget: bytes of all pictures together.
        seed: of the random ones.
    """
    morphs = Morphs.of(store)
    album = _Album(store, originals, side, quality)
    items: dict[int, tuple[int, int, int, int]] = {}
    taken: dict[str, list[int]] = {tab: [] for tab in TABS}
    for tab, morph in _in_turn(_orders(morphs, seed)):
        if morph not in items:
            if len(items) >= most or album.size >= budget:
                break
            source, reference = int(morphs.source[morph]), int(morphs.reference[morph])
            result = album.result(int(morphs.row[morph]))
            pose = album.original(reference, mirrored=bool(morphs.mirrored[morph]))
            items[morph] = (morph, album.original(source), pose, result)
        taken[tab].append(morph)
    places = {morph: place for place, morph in enumerate(items)}
    surest = np.nan_to_num(morphs.confidence, nan=-1.0)
    taken["best"].sort(key=lambda morph: -surest[morph])
    taken["worst"].sort(key=lambda morph: surest[morph])
    return Gallery(
        pictures=tuple(album.pictures),
        shown=tuple(album.shown),
        items=tuple(items.values()),
        tabs={tab: tuple(places[morph] for morph in taken[tab]) for tab in TABS},
        ranks=tuple(_ranks(morphs.confidence)[list(items)].tolist()),
        total=len(morphs),
        ranked=int(np.isfinite(morphs.confidence).sum()),
    )


def _ranks(confidence: Float[np.ndarray, " N"]) -> Int64[np.ndarray, " N"]:
    """Place of each by falling confidence, equal ones alike; 0 where there is none."""
    known = np.isfinite(confidence)
    falling = -np.sort(-confidence[known])
    ranks = np.zeros(len(confidence), np.int64)
    ranks[known] = 1 + np.searchsorted(-falling, -confidence[known])
    return ranks


def _orders(morphs: Morphs, seed: int) -> dict[str, list[int]]:
    """All morphs in the order in which each tab takes them."""
    confidence = np.nan_to_num(morphs.confidence, nan=-1.0)
    best, worst = np.argsort(-confidence, kind="stable"), np.argsort(confidence, kind="stable")
    return {
        "random": np.random.default_rng(seed).permutation(len(morphs)).tolist(),
        "best": best[spread(morphs.label[best])].tolist(),
        "worst": worst[spread(morphs.label[worst])].tolist(),
    }


def _in_turn(orders: dict[str, list[int]]) -> Iterator[tuple[str, int]]:
    for place in range(max(map(len, orders.values()))):
        for tab, order in orders.items():
            yield tab, order[place]


class _Album:
    """Encodes each picture once and counts the bytes."""

    def __init__(self, store: Store, originals: Originals, side: int, quality: int) -> None:
        self._store, self._originals, self._side, self._quality = store, originals, side, quality
        self._known: dict[Shown, int] = {}
        self.pictures: list[bytes] = []
        self.shown: list[Shown] = []
        self.size = 0

    def result(self, row: int) -> int:
        """Place of a morph by its row in the table of images."""
        return self._place(Shown("result", row))

    def original(self, file: int, *, mirrored: bool = False) -> int:
        """Place of a source or reference, -1 where there is no picture."""
        return self._place(Shown("mirrored" if mirrored else "original", file))

    def _place(self, one: Shown) -> int:
        if one not in self._known:
            if one.kind == "result":
                image: Picture | None = self._store.image(one.number)
            else:
                image = self._originals.picture(one.number, mirrored=one.kind == "mirrored")
            self._known[one] = -1 if image is None else len(self.pictures)
            if image is not None:
                self.shown.append(one)
                self.pictures.append(encoded_small(image, self._side, self._quality))
                self.size += math.ceil(len(self.pictures[-1]) * 4 / 3)
        return self._known[one]
