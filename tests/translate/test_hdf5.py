"""Translating a folder into an HDF5 file: names, labels, splits, pixels, resumed runs."""

from __future__ import annotations

import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from making_translators import SIZE, Copier, Watching, made, put
from torch import Tensor

from dagaug.data.image_files import decode, encode
from dagaug.hdf5.reader import Store
from dagaug.hdf5.shard_folder import ShardFolder
from dagaug.hdf5.torch_dataset import AugmentedDataset
from dagaug.hdf5.verify import verify
from dagaug.model.trained_model import TrainedModel
from dagaug.runtime.errors import CheckpointError, DataError, ImageError, OutputExistsError, UsageError
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.signals import Interrupted
from dagaug.translate.folder import translate
from dagaug.translate.hdf5 import translate_to_file


@pytest.fixture(scope="module")
def copier(tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    """A model that gives back what it gets."""
    model = made(tmp_path_factory.mktemp("model") / "model.safetensors")
    return replace(model, translator=Copier().eval())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "digits"
    put(folder / "loose.png", 1, 20, 50)
    put(folder / "Zaunkönig" / "tall.jpg", 2, 61, 33)
    put(folder / "Zaunkönig" / "deep" / "square.bmp", 3)
    put(folder / "train" / "b" / "big.webp", 4, 100, 120)
    put(folder / "test" / "b" / "x.png", 5)
    return folder


NAMES = ("loose.png", "Zaunkönig/tall.jpg", "Zaunkönig/deep/square.bmp", "test/b/x.png", "train/b/big.webp")
MERGED = 1  # shard, which is counted too
SIZES = ((20, 50), (61, 33), (SIZE, SIZE), (SIZE, SIZE), (100, 120))


def many(folder: Path, count: int = 12) -> Path:
    for number in range(count):
        put(folder / f"{number:03d}.png", number, 24, 40)
    return folder


def test_every_image_is_there_with_its_name_size_class_and_split(
    copier: TrainedModel, source: Path, tmp_path: Path
) -> None:
    watching = Watching()
    result = translate_to_file(copier, source, tmp_path / "x.h5", execution=Execution(progress=watching))
    assert (result.images, result.found, result.skipped, watching.done) == (5, 0, (), 5 + MERGED)
    verify(tmp_path / "x.h5")
    with Store(tmp_path / "x.h5") as store:
        images, header = store.images, store.header
        assert header.classes == ("Zaunkönig", "b", "digits")
        names = [header.files[row] for row in images.source]
        assert sorted(names) == sorted(NAMES)
        sizes = dict(zip(names, zip(images.height.tolist(), images.width.tolist(), strict=True), strict=True))
        assert sizes == dict(zip(NAMES, SIZES, strict=True))
        labels = {name: header.classes[label] for name, label in zip(names, images.label, strict=True)}
        assert labels == dict(zip(NAMES, ("digits", "Zaunkönig", "Zaunkönig", "b", "b"), strict=True))
        assert [name for name, split in zip(names, images.split, strict=True) if split] == ["test/b/x.png"]
        assert images.synthetic.all()
        assert (images.reference == -1).all()
        assert header.checkpoint_sha256 == copier.sha256
    assert len(AugmentedDataset(tmp_path / "x.h5")) == 4


@pytest.mark.parametrize("keep_size", [True, False])
def test_file_and_folder_hold_the_same_pixels(
    copier: TrainedModel, source: Path, tmp_path: Path, keep_size: bool
) -> None:
    translate(copier, source, tmp_path / "out", keep_size=keep_size)
    translate_to_file(copier, source, tmp_path / "x.h5", keep_size=keep_size)
    with Store(tmp_path / "x.h5") as store:
        for row, file in enumerate(store.images.source):
            expected = decode((tmp_path / "out" / store.header.files[file]).with_suffix(".png"))
            np.testing.assert_array_equal(store.image(row), expected)


@pytest.mark.parametrize("encoding", ["jpeg", "raw"])
def test_images_are_stored_as_asked(copier: TrainedModel, source: Path, tmp_path: Path, encoding: str) -> None:
    translate_to_file(copier, source, tmp_path / "png.h5")
    translate_to_file(copier, source, tmp_path / "x.h5", encoding=encoding)
    with Store(tmp_path / "x.h5") as store, Store(tmp_path / "png.h5") as plain:
        assert store.attributes["encoding"] == encoding
        for row in range(len(store)):
            difference = np.abs(store.image(row).astype(int) - plain.image(row))
            assert difference.max() == 0 if encoding == "raw" else difference.mean() < 3


def test_unreadable_images_are_skipped_and_listed_in_the_file(
    copier: TrainedModel, source: Path, tmp_path: Path
) -> None:
    (source / "empty.jpg").write_bytes(b"")
    (source / "Zaunkönig" / "page.jpg").write_text("<html>")
    with pytest.raises(ImageError, match=r"empty\.jpg"):
        translate_to_file(copier, source, tmp_path / "x.h5", execution=Execution(strict=True))
    watching = Watching()
    result = translate_to_file(copier, source, tmp_path / "x.h5", execution=Execution(progress=watching))
    assert (result.images, len(result.skipped), watching.done) == (5, 2, 7 + MERGED)
    assert watching.said[-1].endswith("skipped, 2 of 7 so far")
    with Store(tmp_path / "x.h5") as store:
        listed = dict(store.header.skipped)
    assert sorted(listed) == sorted(str(skip.path) for skip in result.skipped)
    assert all(listed.values())


def test_a_signal_keeps_finished_shards_and_the_same_call_ends_with_the_same_bytes(
    copier: TrainedModel, tmp_path: Path
) -> None:
    small = partial(translate_to_file, images_per_shard=4)
    folder, out = many(tmp_path / "in"), tmp_path / "x.h5"
    small(copier, folder, tmp_path / "straight.h5", batch_size=2)
    stopping = Watching(lambda done: signal.raise_signal(signal.SIGINT) if done == 6 else None)
    with pytest.raises(Interrupted, match="8 images are kept"):
        small(copier, folder, out, batch_size=2, execution=Execution(progress=stopping))
    assert not out.exists()
    with pytest.raises(OutputExistsError, match="batch_size = 2, but this run has batch_size = 3"):
        small(copier, folder, out, batch_size=3)
    result = small(copier, folder, out, batch_size=2)
    assert (result.images, result.found) == (4, 8)
    assert out.read_bytes() == (tmp_path / "straight.h5").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "straight.h5", "x.h5"]


def test_a_run_killed_after_writing_its_file_is_finished_by_the_same_call(
    copier: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = many(tmp_path / "in", 3), tmp_path / "x.h5"
    with monkeypatch.context() as patch:
        patch.setattr(ShardFolder, "_remove", lambda run: None)
        translate_to_file(copier, folder, out, batch_size=2)
    content = out.read_bytes()
    result = translate_to_file(copier, folder, out, batch_size=2)
    assert (result.images, result.found, result.skipped) == (0, 3, ())
    assert out.read_bytes() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "x.h5"]


def test_a_finished_file_is_replaced_only_with_overwrite(copier: TrainedModel, tmp_path: Path) -> None:
    folder = many(tmp_path / "in", 3)
    translate_to_file(copier, folder, tmp_path / "x.h5")
    with pytest.raises(OutputExistsError, match="overwrite"):
        translate_to_file(copier, folder, tmp_path / "x.h5")
    assert translate_to_file(copier, folder, tmp_path / "x.h5", overwrite=True).images == 3


def test_a_batch_that_does_not_fit_into_memory_is_halved(copier: TrainedModel, tmp_path: Path) -> None:
    class Small(Copier):
        def forward(self, images: Tensor) -> Tensor:
            if len(images) > 3:
                raise torch.OutOfMemoryError("too large")
            return images

    folder = many(tmp_path / "in", 5)
    translate_to_file(copier, folder, tmp_path / "whole.h5")
    translate_to_file(replace(copier, translator=Small()), folder, tmp_path / "x.h5")
    assert (tmp_path / "x.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()


def test_unusable_input_is_one_line_and_leaves_no_file(copier: TrainedModel, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        translate_to_file(copier, tmp_path / "in", tmp_path / "x.h5")
    many(tmp_path / "in", 1)
    with pytest.raises(UsageError, match="batch_size=0: give at least 1"):
        translate_to_file(copier, tmp_path / "in", tmp_path / "x.h5", batch_size=0)
    reference = made(tmp_path / "model.safetensors", "reference")
    with pytest.raises(CheckpointError, match="use dagaug augment"):
        translate_to_file(reference, tmp_path / "in", tmp_path / "x.h5")
    (tmp_path / "in" / "000.png").write_bytes(b"")
    with pytest.raises(DataError, match="none of 1 images can be read"):
        translate_to_file(copier, tmp_path / "in", tmp_path / "x.h5")
    assert not (tmp_path / "x.h5").exists()


def test_transparency_is_laid_over_white_and_told_once(copier: TrainedModel, tmp_path: Path) -> None:
    path = put(tmp_path / "in" / "a" / "x.png")
    put(tmp_path / "in" / "b" / "y.png")
    rgba = np.dstack([decode(path), np.full((SIZE, SIZE), 9, np.uint8)])
    path.write_bytes(encode(rgba, "png"))
    watching = Watching()
    translate_to_file(copier, tmp_path / "in", tmp_path / "x.h5", execution=Execution(progress=watching))
    assert [line for line in watching.said if "transparent" in line] == [
        "1 of 2 images have transparent pixels, which are laid over white"
    ]
    with Store(tmp_path / "x.h5") as store:
        np.testing.assert_array_equal(store.image(0), decode(path))
