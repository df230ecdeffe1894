from __future__ import annotations

import pickle
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from making_images import RGB, RGBA, encoded

from dagaug.data.patch_loading import load, say_transparent
from dagaug.data.square_crops import Region, cut
from dagaug.runtime.errors import DataError, ImageError
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.image_cache import ImageCache


class Listener:
    """Records lines and counted images."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.advanced = 0

    @contextmanager
    def task(self, name: str, total: int, unit: str):
        yield self

    def advance(self, count: int = 1, note: str = "") -> None:
        self.advanced += count

    def say(self, text: str) -> None:
        self.lines.append(text)


def folder_of(tmp_path: Path, count: int) -> list[Path]:
    paths = [tmp_path / f"{number:03}.png" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(encoded(np.full((9 + number % 3, 8, 3), number, np.uint8), "PNG"))
    return paths


@pytest.mark.parametrize("workers", [1, 3, None])
def test_load_keeps_the_order_and_skips_what_cannot_be_read(tmp_path: Path, workers: int | None) -> None:
    paths = folder_of(tmp_path, 40)
    paths[7].write_bytes(encoded(RGB, "JPEG")[:-50])
    paths[20].unlink()
    listener = Listener()
    loaded = load(paths, size=6, execution=Execution(workers=workers, progress=listener))
    assert loaded.kept.tolist() == [row for row in range(40) if row not in (7, 20)]
    assert (loaded.images[:, 2, 2, 0] == loaded.kept).all()
    assert loaded.images.shape == (38, 6, 6, 3)
    assert [skip.path for skip in loaded.skipped] == [paths[7], paths[20]]
    assert listener.lines == [
        f"{paths[7]}: not a readable image (truncated JPEG); skipped, 1 of 40 so far",
        f"{paths[20]}: no such file; skipped, 2 of 40 so far",
    ]
    assert listener.advanced == 40


def test_load_cuts_to_boxes(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(encoded(RGB, "PNG"))
    loaded = load([path, path], size=10, boxes=[(4.0, 6.0, 10.0, 10.0), None], margin=0.0, fit="crop")
    assert (loaded.images[0] == RGB[6:16, 4:14]).all()
    assert (loaded.images[1] == cut(RGB, Region(5.0, 0.0, 30.0), 10)).all()


def test_patches_beyond_the_cache_are_those_of_the_files_and_a_file_that_changed_is_named(tmp_path: Path) -> None:
    paths = folder_of(tmp_path, 8)
    paths[3].write_bytes(b"no image")
    all_in_memory, none = load(paths, size=6), load(paths, size=6, execution=Execution(memory=ImageCache(0)))
    assert np.array_equal(none.images[:], all_in_memory.images[:])
    elsewhere = pickle.loads(pickle.dumps(none.images))
    assert np.array_equal(elsewhere[2:4], all_in_memory.images[2:4])
    paths[6].unlink()
    with pytest.raises(DataError, match=r"006\.png: no such file; it was readable when this run began"):
        elsewhere[5]


def test_strict_load_raises_the_first_unreadable_file(tmp_path: Path) -> None:
    paths = folder_of(tmp_path, 30)
    for row in (12, 5):
        paths[row].write_bytes(b"")
    with pytest.raises(ImageError, match=r"005\.png"):
        load(paths, size=4, execution=Execution(strict=True))


def test_load_of_only_unreadable_files_is_an_error_and_names_ten(tmp_path: Path) -> None:
    listener = Listener()
    with pytest.raises(DataError, match=r"none of 12 images can be read.*0\.png: no such file"):
        load([tmp_path / f"{row}.png" for row in range(12)], size=4, execution=Execution(progress=listener))
    assert len(listener.lines) == 11


def test_load_of_nothing_is_empty() -> None:
    assert load([], size=4).images.shape == (0, 4, 4, 3)


def test_images_with_transparent_pixels_are_counted_and_told_in_one_line(tmp_path: Path) -> None:
    paths = folder_of(tmp_path, 3)
    opaque = RGBA.copy()
    opaque[..., 3] = 255
    paths[0].write_bytes(encoded(RGBA, "PNG"))
    paths[1].write_bytes(encoded(opaque, "PNG"))
    loaded, listener = load(paths, size=8), Listener()
    assert loaded.transparent == 1
    say_transparent(loaded.transparent, len(paths), listener)
    say_transparent(0, len(paths), listener)
    assert listener.lines == ["1 of 3 images have transparent pixels, which are laid over white"]
