"""Files that dagaug 0.1.0 wrote are still read."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from old_files import EXPECTED, old_file

from dagaug.hdf5.reader import Store
from dagaug.hdf5.verify import verify


@pytest.mark.parametrize("name", EXPECTED)
def test_an_old_file_passes_verification(name: str) -> None:
    found, expected = verify(old_file(name)), EXPECTED[name]
    for field in ("content_sha256", "images", "synthetic", "candidates", "files", "skipped"):
        assert getattr(found, field) == expected[field]


@pytest.mark.parametrize("name", EXPECTED)
def test_an_old_file_has_the_same_labels_variants_and_verdicts(name: str) -> None:
    with Store(old_file(name)) as store:
        header, images = store.header, store.images
        counts = np.bincount(store.candidates.verdict, minlength=len(header.verdicts)).tolist()
    assert images.label.tolist() == EXPECTED[name]["labels"]
    assert [header.variants[row] for row in images.variant[images.synthetic]] == EXPECTED[name]["variants"]
    assert dict(zip(header.verdicts, counts, strict=True)) == EXPECTED[name]["verdicts"]
    assert header.created_by == EXPECTED[name]["created_by"]


@pytest.mark.parametrize("name", ["png", "raw"])
def test_a_lossless_old_file_has_the_same_pixels(name: str) -> None:
    with Store(old_file(name)) as store:
        pixels = b"".join(image.tobytes() for image in store.read(range(len(store))))
    assert hashlib.sha256(pixels).hexdigest() == EXPECTED[name]["pixels_sha256"]


def test_an_old_file_names_the_skipped_image_and_the_reason() -> None:
    with Store(old_file("png")) as store:
        ((path, reason),) = store.header.skipped
    assert path.endswith("broken.jpg")
    assert reason.startswith("not a readable image")
