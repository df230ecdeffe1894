"""NetworkInputs lie where the training's framing and the boxes say, also in mirror images and in morphs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from making_reports import write_store

from dagaug.data.dataset_records import Dataset, Sample
from dagaug.data.object_patches import Framing
from dagaug.data.square_crops import cut, region_of
from dagaug.hdf5.reader import Store
from dagaug.report.morph_images import ImageRef, OriginalImages
from dagaug.report.network_crops import NetworkInputs

BOX = (2.0, 3.0, 5.0, 4.0)
FRAMING = Framing(size=32)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return write_store(tmp_path / "birds.h5")


def dataset(store: Store) -> Dataset:
    """The file's data, with a box in the second image alone."""
    samples = tuple(
        Sample(Path(file), 0, "train", box=BOX if place == 1 else None)
        for place, file in enumerate(store.header.files)
    )  # fmt: skip
    return Dataset(Path(), "cub", store.classes, samples, "given")


def test_squares_are_cut_round_the_boxes_that_the_data_have(store: Path) -> None:
    with Store(store) as opened:
        originals = OriginalImages(opened)
        squares = NetworkInputs(opened, originals, FRAMING, dataset(opened))
        for file, box in ((0, None), (1, BOX)):
            image = originals.picture(file)
            assert image is not None
            height, width = image.shape[:2]
            square, mirrored = squares.of(ImageRef("original", file)), squares.of(ImageRef("mirrored", file))
            assert square is not None
            assert mirrored is not None
            assert square.region == region_of(height, width, box=box, margin=FRAMING.margin, fit=FRAMING.fit)
            assert np.array_equal(square.pixels, cut(image, square.region, 32))
            assert square.size == (height, width)
            left, top, side = square.region.pixels()
            assert mirrored.region.pixels() == (width - left - side, top, side)
        assert squares.of(ImageRef("original", 5)) is not None
        assert squares.of(ImageRef("original", -1)) is None


def test_a_morph_is_where_its_reference_was(store: Path) -> None:
    with Store(store) as opened:
        squares = NetworkInputs(opened, OriginalImages(opened), FRAMING, dataset(opened))
        rows = np.flatnonzero(opened.images.synthetic & (opened.images.reference == 1))
        reference, morph = squares.of(ImageRef("original", 1)), squares.of(ImageRef("result", int(rows[0])))
        assert reference is not None
        assert morph is not None
        assert morph.region == reference.region
        assert np.array_equal(morph.pixels, cut(opened.image(int(rows[0])), morph.region, 32))
