"""The gain of each class as rows of a table, each with a photograph of the class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from dagaug.data.image_files import encode
from dagaug.hdf5.reader import Store
from dagaug.report.accuracy_plots import Tick, ticks
from dagaug.report.morph_images import OriginalImages, RGBImage
from dagaug.report.training_run import data_uri
from dagaug.report.wording import display_names, interval, signed
from dagaug.score.statistics import ClassGain

__all__ = ["ClassRow", "class_photographs", "class_rows", "count_significant"]

_SIDES = (72, 54, 40, 30)  # of a photograph in pixels; the first for which all of them fit on the page
_QUALITY = 75
_BYTES = 600_000  # of all photographs on a page
_TRIED = 3  # images of a class, should the first ones be missing


@dataclass(frozen=True)
class ClassRow:
    """Gain of a class, with its bar (``left``, ``width``) and interval (``low``, ``reach``) in per cent of the axis.

    ``photograph`` is an image of the class as a data URI; empty without one.
    """

    name: str
    photograph: str
    difference: str
    interval: str
    left: float
    width: float
    low: float
    reach: float
    sign: str
    sure: bool


def class_photographs(store: Store, originals: OriginalImages, *, budget: int = _BYTES) -> dict[str, bytes]:
    """A square JPEG of the first readable training image of each class, by class name.

    Args:
        store: the HDF5 file.
        originals: its real images.
        budget: bytes of all images. They are made smaller where they would need more, and left out where that is not
            enough.
    """
    header = store.header
    shown: dict[str, RGBImage] = {}
    for label, name in enumerate(header.classes):
        rows = np.flatnonzero((header.files_label == label) & (header.files_split == 0))
        found = (originals.picture(row) for row in rows[:_TRIED].tolist())
        image = next((one for one in found if one is not None), None)
        if image is not None:
            shown[name] = _square(image, max(_SIDES))
    for side in _SIDES:
        encoded = {name: encode(_square(image, side), "jpeg", _QUALITY) for name, image in shown.items()}
        if sum(map(len, encoded.values())) <= budget:
            return encoded
    return {}


def _square(image: RGBImage, side: int) -> RGBImage:
    """The middle of an image, as a square of at most ``side`` pixels."""
    height, width = image.shape[:2]
    own = min(height, width)
    top, left = (height - own) // 2, (width - own) // 2
    middle = image[top : top + own, left : left + own]
    return cv2.resize(middle, (side, side), interpolation=cv2.INTER_AREA) if own > side else middle


def count_significant(classes: Sequence[ClassGain]) -> tuple[int, int]:
    """Number of classes with a significant gain, and with a significant loss."""
    sure = [one.difference.mean for one in classes if one.sure]
    return sum(gain > 0 for gain in sure), sum(gain < 0 for gain in sure)


def class_rows(
    classes: Sequence[ClassGain], photographs: Mapping[str, bytes]
) -> tuple[tuple[ClassRow, ...], tuple[Tick, ...]]:
    """Rows, largest gain first, and ticks of the axis: symmetric, as wide as the widest interval, at most ±100 points.

    Args:
        classes: gain of each class.
        photographs: a JPEG file of an image of each class, by class name.
    """
    span = max((max(abs(one.difference.low), abs(one.difference.high)) for one in classes), default=0.0)
    span = min(1.0, span) or 1.0

    def place(gain: float | int) -> float:
        return round(50 + 50 * min(1.0, max(-1.0, gain / span)), 2)

    names = display_names([one.name for one in classes])
    rows = tuple(
        ClassRow(
            name=name,
            photograph=data_uri(photographs[one.name]) if one.name in photographs else "",
            difference=signed(one.difference.mean),
            interval=interval(one.difference.low, one.difference.high, sign=True),
            left=min(50.0, place(one.difference.mean)),
            width=round(abs(place(one.difference.mean) - 50), 2),
            low=place(one.difference.low),
            reach=round(place(one.difference.high) - place(one.difference.low), 2),
            sign="up" if one.difference.mean > 0 else "down",
            sure=one.sure,
        )
        for name, one in sorted(zip(names, classes, strict=True), key=lambda pair: -pair[1].difference.mean)
    )
    return rows, tuple(Tick(place(gain), signed(gain, 0).replace("+0", "0")) for gain in ticks(-span, span))
