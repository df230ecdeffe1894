"""Masks of the objects of small data sets, written as image files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from dagaug.data.dataset_records import Dataset, Sample
from dagaug.data.image_files import decode


def ellipse_of(dataset: Dataset, sample: Sample) -> np.ndarray:
    """A mask of the image's size, 255 in the ellipse that the box holds."""
    height, width = decode(dataset.file(sample)).shape[:2]
    mask = np.zeros((height, width), np.uint8)
    assert sample.box is not None
    x, y, w, h = sample.box
    cv2.ellipse(
        mask, (round(x + w / 2), round(y + h / 2)), (max(int(w / 2), 1), max(int(h / 2), 1)), 0, 0, 360, 255, -1
    )
    return mask


def write_mask(dataset: Dataset, sample: Sample, folder: Path, mask: np.ndarray) -> Path:
    """Write a mask under its image's relative path."""
    path = folder / sample.path.with_suffix(".png")
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), mask)
    return path


def write_masks(dataset: Dataset, folder: Path) -> Path:
    """The ellipses of all images."""
    for sample in dataset.samples:
        write_mask(dataset, sample, folder, ellipse_of(dataset, sample))
    return folder
