"""Which morphs of an HDF5 file to look at, and their pictures.

Nobody should be fooled by a chosen few: a gallery has the surest morphs, the least sure and random ones, the
first two spread over all classes, and says of how many.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int64, Integer, UInt8

from dagaug import images as imaging
from dagaug.errors import ImageError, StoreError, UsageError
from dagaug.planning import background_in, backgrounds, variant_name
from dagaug.store import Store

__all__ = [
    "KEPT",
    "MIRROR",
    "TABS",
    "Attended",
    "Gallery",
    "Morphs",
    "Originals",
    "Picture",
    "Shown",
    "backgrounds_of",
    "choose",
    "encoded_small",
    "evenly",
    "random_of_each_class",
]

KEPT = "kept"
TABS = ("random", "best", "worst")

Picture = UInt8[np.ndarray, "_ _ 3"]


MIRROR = "mirror"
"""The variant whose pose is that of the reference's mirror image."""


@dataclass(frozen=True)
class Morphs:
    """The synthetic images of a file as columns, in the file's order.

    Attributes:
        row: in the file's table of images.
        source, reference: rows in its table of files; reference -1 if there is none.
        label: class that the morph is to show.
        reference_label: class of the reference, -1 if there is none.
        predicted: the classifier's first choice, -1 if unknown.
        confidence: the classifier's p(label).
        background: row in the table of files of the image that gave the background, -1 if there is none.
        kind: name of the variant.
        mirrored: whether pose and background are those of mirror images.
        verdict: index into ``verdicts``.
        verdicts: their names.
    """

    row: Int64[np.ndarray, " N"]
    source: Int64[np.ndarray, " N"]
    reference: Int64[np.ndarray, " N"]
    label: Int64[np.ndarray, " N"]
    reference_label: Int64[np.ndarray, " N"]
    predicted: Int64[np.ndarray, " N"]
    confidence: Float[np.ndarray, " N"]
    background: Int64[np.ndarray, " N"]
    kind: tuple[str, ...]
    mirrored: Bool[np.ndarray, " N"]
    verdict: Int64[np.ndarray, " N"]
    verdicts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.row)

    @classmethod
    def of(cls, store: Store) -> Morphs:
        """Read the tables; a morph that stands for no candidate counts as kept."""
        table, header = store.images, store.header
        rows = np.flatnonzero(table.synthetic)
        verdicts = header.verdicts if KEPT in header.verdicts else (*header.verdicts, KEPT)
        verdict = np.full(len(rows), verdicts.index(KEPT), np.int64)
        judged = table.candidate[rows] >= 0
        verdict[judged] = store.candidates.verdict[table.candidate[rows][judged]]
        kinds = [variant_name(name) for name in header.variants] or ["morph"]
        reference = table.reference[rows].astype(np.int64)
        reference_label = np.full(len(rows), -1, np.int64)
        reference_label[reference >= 0] = header.files_label[reference[reference >= 0]]
        return cls(
            row=rows.astype(np.int64),
            source=table.source[rows].astype(np.int64),
            reference=reference,
            label=table.label[rows].astype(np.int64),
            reference_label=reference_label,
            predicted=table.predicted[rows].astype(np.int64),
            confidence=table.confidence[rows].astype(np.float64),
            background=backgrounds_of(store)[rows],
            kind=tuple(kinds[code] for code in table.variant[rows].tolist()),
            mirrored=np.array([kind == MIRROR for kind in kinds], bool)[table.variant[rows]],
            verdict=verdict,
            verdicts=verdicts,
        )

    @property
    def kept(self) -> Bool[np.ndarray, " N"]:
        """Which of them the selection kept."""
        return self.verdict == self.verdicts.index(KEPT)


def backgrounds_of(store: Store) -> Int64[np.ndarray, " N"]:
    """For each image the row in the table of files of the one that gave its background; -1 if there is none.

    Raises:
        StoreError: the file's candidates do not tell.
    """
    images, background = store.images, background_in(store.header.options)
    if background != "other":
        return (images.reference if background == "reference" else images.source).astype(np.int64)
    candidates = store.candidates
    found = np.full(len(images), -1, np.int64)
    made = np.flatnonzero(images.candidate >= 0)
    try:
        behind = backgrounds(background, candidates.source.astype(np.int64), candidates.reference.astype(np.int64))
    except UsageError as error:
        raise StoreError(f"{store.path}: /candidates: too few of them to tell the backgrounds") from error
    if behind is not None:
        found[made] = behind[images.candidate[made]]
    return found


class Originals:
    """Sources and references by their row in the table of files: from the file itself or the data folder."""

    def __init__(self, store: Store, data: Path | None = None) -> None:
        self._store, self._data = store, data
        real = np.flatnonzero(~store.images.synthetic)
        self._rows = dict(zip(store.images.source[real].tolist(), real.tolist(), strict=True))

    def picture(self, file: int, *, mirrored: bool = False) -> Picture | None:
        """The image (or its mirror image), or None where there is none or it cannot be read."""
        if mirrored:
            found = self.picture(file)
            return None if found is None else np.ascontiguousarray(found[:, ::-1])
        if file < 0:
            return None
        if file in self._rows:
            return self._store.image(self._rows[file])
        if self._data is None:
            return None
        path = self._data / self._store.header.files[file]
        try:
            # The file may be a stranger's: what lies outside the data folder is none of its business.
            if not path.resolve().is_relative_to(self._data.resolve()):
                return None
            return imaging.decode(path)
        except (ImageError, OSError, ValueError):
            return None


def random_of_each_class(morphs: Morphs, among: Integer[np.ndarray, " n"], count: int, seed: int) -> list[int]:
    """Draw up to ``count`` of the morphs ``among``, evenly over their classes, in the order of the classes."""
    chosen = among[evenly(morphs.label[among], count, seed)]
    return chosen[np.lexsort((chosen, morphs.label[chosen]))].tolist()


def evenly(labels: Integer[np.ndarray, " N"], count: int, seed: int) -> Int64[np.ndarray, " M"]:
    """Draw up to ``count`` rows at random, evenly over the classes."""
    drawn = np.random.default_rng(seed).permutation(len(labels))
    return drawn[_spread(labels[drawn])[:count]]


def _spread(labels: Integer[np.ndarray, " N"]) -> Int64[np.ndarray, " N"]:
    """An order that takes the first of every class, then the second of every class, and so on."""
    by_class = np.argsort(labels, kind="stable")
    grouped = labels[by_class]
    first = np.searchsorted(grouped, grouped)
    turn = np.empty(len(labels), np.int64)
    turn[by_class] = np.arange(len(labels)) - first
    return np.argsort(turn, kind="stable")


@dataclass(frozen=True)
class Shown:
    """A picture of a file: a ``result`` by its row in the table of images; an ``original`` or its ``mirrored`` image by
    its row in the table of files.
    """

    kind: Literal["result", "original", "mirrored"]
    number: int


@dataclass(frozen=True)
class Attended:
    """The attended regions (eqs. 1, 2) of a picture.

    Attributes:
        size: height and width of the picture.
        centres: x and y in its pixels.
        half: half the side of a region's box, in its pixels.
    """

    size: tuple[int, int]
    centres: Float[np.ndarray, "N 2"]
    half: float


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
        "best": best[_spread(morphs.label[best])].tolist(),
        "worst": worst[_spread(morphs.label[worst])].tolist(),
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


def encoded_small(image: Picture, side: int, quality: int) -> bytes:
    """JPEG of an image, shrunk so that its longer side has at most ``side`` pixels."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return imaging.encode(image, "jpeg", quality)
