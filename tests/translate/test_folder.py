"""Translating a folder into a folder: names, sizes, skipped files, resumed runs, what is refused."""

from __future__ import annotations

import errno
import json
import os
import signal
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from making_translators import SIZE, Copier, Watching, made, picture, put
from torch import Tensor

from dagaug.compute.tensors import to_pixels, to_tensor
from dagaug.data.image_files import decode, decode_rgba, decode_with_alpha, encode
from dagaug.data.object_patches import Framing
from dagaug.data.square_crops import cut, region_of
from dagaug.model.trained_model import TrainedModel
from dagaug.runtime.errors import (
    CheckpointError,
    DataError,
    ImageError,
    LockedError,
    OutputExistsError,
    StoreError,
    UsageError,
)
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.files import locked
from dagaug.runtime.signals import Interrupted
from dagaug.translate.folder import MANIFEST, translate


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    return made(tmp_path_factory.mktemp("model") / "model.safetensors")


@pytest.fixture(scope="module")
def copier(model: TrainedModel) -> TrainedModel:
    return replace(model, translator=Copier().eval())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    put(folder / "wide.png", 1, 20, 50)
    put(folder / "Zaunkönig" / "tall.jpg", 2, 61, 33)
    put(folder / "Zaunkönig" / "deep" / "square.bmp", 3)
    put(folder / "b" / "big.webp", 4, 100, 120)
    return folder


RESULTS = ("Zaunkönig/deep/square.png", "Zaunkönig/tall.png", "b/big.png", "wide.png")


def pictures_in(out: Path) -> dict[str, bytes]:
    found = sorted(path for path in out.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in found}


def test_names_folders_and_sizes_are_kept(model: TrainedModel, source: Path, tmp_path: Path) -> None:
    watching = Watching()
    result = translate(model, source, tmp_path / "out", execution=Execution(progress=watching))
    assert tuple(pictures_in(tmp_path / "out")) == RESULTS
    assert (result.images, result.found, result.skipped) == (4, 0, ())
    assert (watching.done, watching.total) == (4, 4)
    sizes = {name: decode(tmp_path / "out" / name).shape[:2] for name in RESULTS}
    assert sizes == dict(zip(RESULTS, ((32, 32), (61, 33), (100, 120), (20, 50)), strict=True))


def test_patches_of_the_models_size_are_the_networks_output(model: TrainedModel, source: Path, tmp_path: Path) -> None:
    translate(model, source, tmp_path / "out", keep_size=False)
    for name, origin in zip(
        RESULTS, ("Zaunkönig/deep/square.bmp", "Zaunkönig/tall.jpg", "b/big.webp", "wide.png"), strict=True
    ):
        image = decode(source / origin)
        patch = cut(image, region_of(*image.shape[:2]), SIZE)
        with torch.inference_mode():
            expected = to_pixels(model.translator(to_tensor(patch[None], torch.device("cpu"))))[0]
        difference = np.abs(decode(tmp_path / "out" / name).astype(int) - expected)
        assert difference.max() <= 1  # a batch's size may change the last bit


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 50), (61, 33), (100, 40)])
@pytest.mark.parametrize("fit", ["letterbox", "crop"])
def test_an_unchanged_patch_restores_the_source_image(
    copier: TrainedModel, tmp_path: Path, height: int, width: int, fit: str
) -> None:
    card = copier.card.model_copy(update={"framing": Framing(size=SIZE, fit=fit)})  # type: ignore[arg-type]
    put(tmp_path / "in" / "x.png", 5, height, width)
    translate(replace(copier, card=card), tmp_path / "in", tmp_path / "out")
    before, after = picture(5, height, width)[..., ::-1].astype(int), decode(tmp_path / "out" / "x.png")
    assert np.abs(before - after).mean() < 2  # smooth pictures survive being shrunk
    if (height, width) == (SIZE, SIZE):
        np.testing.assert_array_equal(before, after)


def test_outside_a_cropped_square_the_source_image_is_unchanged(model: TrainedModel, tmp_path: Path) -> None:
    card = model.card.model_copy(update={"framing": Framing(size=SIZE, fit="crop")})
    path = put(tmp_path / "in" / "x.png", 6, 20, 50)
    translate(replace(model, card=card), tmp_path / "in", tmp_path / "out")
    before, after = decode(path), decode(tmp_path / "out" / "x.png")
    np.testing.assert_array_equal(before[:, :15], after[:, :15])
    np.testing.assert_array_equal(before[:, 35:], after[:, 35:])
    assert (before[:, 15:35] != after[:, 15:35]).any()


def put_rgba(path: Path, height: int, width: int) -> np.ndarray:
    """A picture whose opacity grows from left to right."""
    opacity = np.broadcast_to(np.linspace(0, 255, width).round().astype(np.uint8), (height, width))
    rgba = np.dstack([picture(4, height, width), opacity])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(rgba, "png"))
    return rgba


@pytest.mark.parametrize("fit", ["letterbox", "crop"])
@pytest.mark.parametrize("keep_size", [True, False])
def test_transparency_is_kept(copier: TrainedModel, tmp_path: Path, fit: str, keep_size: bool) -> None:
    card = copier.card.model_copy(update={"framing": Framing(size=SIZE, fit=fit)})  # type: ignore[arg-type]
    rgba = put_rgba(tmp_path / "in" / "x.png", SIZE, 50)
    put(tmp_path / "in" / "plain.png")
    translate(replace(copier, card=card), tmp_path / "in", tmp_path / "out", keep_size=keep_size)
    assert decode_with_alpha(tmp_path / "out" / "plain.png")[1] is None
    result = decode_rgba(tmp_path / "out" / "x.png")
    region = region_of(SIZE, 50, fit=fit)  # type: ignore[arg-type]
    over_white = cut(decode(tmp_path / "in" / "x.png"), region, SIZE)
    if not keep_size:
        np.testing.assert_array_equal(result[..., :3], over_white)
        np.testing.assert_array_equal(result[..., 3], cut(np.dstack([rgba[..., 3]] * 3), region, SIZE)[..., 0])
        return
    np.testing.assert_array_equal(result[..., 3], rgba[..., 3])
    if fit == "crop":  # the square in the middle is translated, as it looks over white
        np.testing.assert_array_equal(result[:, :9], rgba[:, :9])
        np.testing.assert_array_equal(result[:, 9:41, :3], over_white)


def test_equal_stems_get_different_names(copier: TrainedModel, tmp_path: Path) -> None:
    for seed, name in enumerate(("x.jpg", "x.png", "X.bmp", "x.jpg.png", "y.png/z.png", "y.jpg", "w.png")):
        put(tmp_path / "in" / name, seed)
    put(tmp_path / "in" / ".hidden.png")
    assert translate(copier, tmp_path / "in", tmp_path / "out").images == 7
    names = list(pictures_in(tmp_path / "out"))
    assert names == ["X.bmp.png", "w.png", "x.jpg.png", "x.jpg.png.png", "x.png.png", "y.jpg.png", "y.png/z.png"]
    np.testing.assert_array_equal(decode(tmp_path / "out" / "x.png.png"), decode(tmp_path / "in" / "x.png"))
    np.testing.assert_array_equal(decode(tmp_path / "out" / "x.jpg.png.png"), decode(tmp_path / "in" / "x.jpg.png"))


# Bad images


def spoil(source: Path) -> list[Path]:
    (source / "empty.jpg").write_bytes(b"")
    whole = (source / "wide.png").read_bytes()
    (source / "b" / "truncated.png").write_bytes(whole[: len(whole) // 2])
    (source / "page.jpg").write_text("<html>")
    return [source / "empty.jpg", source / "page.jpg", source / "b" / "truncated.png"]


def test_unreadable_images_are_skipped_and_listed(model: TrainedModel, source: Path, tmp_path: Path) -> None:
    bad = spoil(source)
    watching = Watching()
    result = translate(model, source, tmp_path / "out", batch_size=2, execution=Execution(progress=watching))
    assert sorted(skip.path for skip in result.skipped) == sorted(bad)
    assert tuple(pictures_in(tmp_path / "out")) == RESULTS
    assert watching.done == watching.total == 7
    assert any(line.endswith("(truncated PNG); skipped, 3 of 7 so far") for line in watching.said)
    listed = json.loads((tmp_path / "out" / MANIFEST).read_text())["skipped"]
    assert sorted(Path(path) for path, _ in listed) == sorted(bad)


def test_a_repaired_image_is_translated_by_the_next_call(model: TrainedModel, source: Path, tmp_path: Path) -> None:
    put(source / "new.png").write_bytes(b"")
    assert len(translate(model, source, tmp_path / "out").skipped) == 1
    put(source / "new.png")
    again = translate(model, source, tmp_path / "out")
    assert (again.images, again.found, again.skipped) == (1, 4, ())


def test_strict_raises_the_first(model: TrainedModel, source: Path, tmp_path: Path) -> None:
    spoil(source)
    with pytest.raises(ImageError, match=r"empty\.jpg: not a readable image"):
        translate(model, source, tmp_path / "out", execution=Execution(strict=True))


def test_no_readable_image_is_an_error(model: TrainedModel, tmp_path: Path) -> None:
    put(tmp_path / "in" / "x.png").write_bytes(b"")
    with pytest.raises(DataError, match="none of 1 images can be read"):
        translate(model, tmp_path / "in", tmp_path / "out")


def test_an_image_that_is_removed_or_replaced_during_the_run_is_skipped(copier: TrainedModel, tmp_path: Path) -> None:
    card = copier.card.model_copy(update={"framing": Framing(size=SIZE, fit="crop")})

    class Spoiler(Copier):
        def forward(self, images: Tensor) -> Tensor:
            (tmp_path / "in" / "a.png").unlink()
            put(tmp_path / "in" / "b.png", 0, 40, 41)
            return images

    for name in "abc":
        put(tmp_path / "in" / f"{name}.png", 0, 40, 50)
    spoiling = replace(copier, card=card, translator=Spoiler())
    result = translate(spoiling, tmp_path / "in", tmp_path / "out")
    assert [(skip.path.name, skip.reason) for skip in result.skipped] == [
        ("a.png", "no such file"),
        ("b.png", "was replaced while it was translated"),
    ]
    assert result.images == 1


# Going on


def many(folder: Path, count: int = 12) -> Path:
    for number in range(count):
        put(folder / f"{number:03d}.png", number, 24, 40)
    return folder


@pytest.fixture
def straight(copier: TrainedModel, tmp_path: Path) -> dict[str, bytes]:
    translate(copier, many(tmp_path / "in"), tmp_path / "straight")
    return pictures_in(tmp_path / "straight")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_batch_and_the_same_call_resumes(
    copier: TrainedModel, tmp_path: Path, straight: dict[str, bytes], number: signal.Signals
) -> None:
    out = tmp_path / "out"
    stopping = Watching(lambda done: signal.raise_signal(number) if done == 3 else None)
    with pytest.raises(Interrupted, match=f"are kept in {out}; run the same command again"):
        translate(copier, tmp_path / "in", out, batch_size=2, execution=Execution(progress=stopping))
    kept = pictures_in(out)
    assert 3 <= len(kept) < 12
    assert kept.items() <= straight.items()
    result = translate(copier, tmp_path / "in", out, batch_size=2)
    assert (result.images, result.found) == (12 - len(kept), len(kept))
    assert pictures_in(out) == straight
    assert translate(copier, tmp_path / "in", out).images == 0


def test_empty_and_missing_files_of_a_killed_run_are_made_again(
    copier: TrainedModel, tmp_path: Path, straight: dict[str, bytes]
) -> None:
    out, (first, second, *_) = tmp_path / "out", straight
    translate(copier, tmp_path / "in", out)
    (out / first).write_bytes(b"")
    (out / second).unlink()
    result = translate(copier, tmp_path / "in", out)
    assert (result.images, result.found) == (2, 10)
    assert pictures_in(out) == straight


def test_another_model_is_refused_with_both_hashes_unless_overwriting(
    model: TrainedModel, source: Path, tmp_path: Path
) -> None:
    other = made(tmp_path / "other.safetensors", seed=1)
    translate(model, source, tmp_path / "out")
    before = pictures_in(tmp_path / "out")
    with pytest.raises(
        OutputExistsError, match=f"{model.sha256[:16]}.*{other.sha256[:16]}.*another out or overwrite=True"
    ):
        translate(other, source, tmp_path / "out")
    assert pictures_in(tmp_path / "out") == before
    assert translate(other, source, tmp_path / "out", overwrite=True).images == 4
    after = pictures_in(tmp_path / "out")
    assert after.keys() == before.keys()
    assert all(after[name] != before[name] for name in before)


def test_other_sizes_and_other_sources_are_refused(model: TrainedModel, source: Path, tmp_path: Path) -> None:
    translate(model, source, tmp_path / "out")
    with pytest.raises(OutputExistsError, match="was made with images in the images' own size, unlike this run"):
        translate(model, source, tmp_path / "out", keep_size=False)
    source.rename(tmp_path / "moved")
    with pytest.raises(OutputExistsError, match="was made from"):
        translate(model, tmp_path / "moved", tmp_path / "out")


def test_overwrite_redoes_finished_outputs_and_resumes_unfinished_ones(copier: TrainedModel, tmp_path: Path) -> None:
    folder, out = many(tmp_path / "in"), tmp_path / "out"
    translate(copier, folder, out)
    stopping = Watching(lambda done: signal.raise_signal(signal.SIGINT) if done == 3 else None)
    with pytest.raises(Interrupted):
        translate(copier, folder, out, overwrite=True, batch_size=2, execution=Execution(progress=stopping))
    assert len(pictures_in(out)) < 12
    assert translate(copier, folder, out, overwrite=True).found >= 3


def test_a_folder_with_other_files_is_refused(copier: TrainedModel, tmp_path: Path) -> None:
    many(tmp_path / "in", 2)
    mine = put(tmp_path / "out" / "mine.png").read_bytes()
    with pytest.raises(OutputExistsError, match="contains other files"):
        translate(copier, tmp_path / "in", tmp_path / "out")
    translate(copier, tmp_path / "in", tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "mine.png").read_bytes() == mine


def test_two_runs_on_one_folder_are_refused(copier: TrainedModel, tmp_path: Path) -> None:
    many(tmp_path / "in", 2)
    out = tmp_path / "out"
    out.mkdir()
    with locked(out / ".dagaug-translate.lock", out), pytest.raises(LockedError, match="another run"):
        translate(copier, tmp_path / "in", out)
    assert translate(copier, tmp_path / "in", out).images == 2
    assert sorted(path.name for path in out.iterdir()) == [MANIFEST, "000.png", "001.png"]


# Limits


def test_memory_does_not_grow_with_the_number_of_images(copier: TrainedModel, tmp_path: Path) -> None:
    peaks = []
    for count in (20, 20, 160):  # the first warms up
        folder = many(tmp_path / f"in{len(peaks)}", count)
        tracemalloc.start()
        translate(copier, folder, tmp_path / f"out{len(peaks)}", batch_size=4)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    patch = SIZE * SIZE * 3
    assert peaks[2] - peaks[1] < 70 * patch  # of 140 more; threads are a few images ahead or behind


def test_a_batch_that_does_not_fit_into_memory_is_halved(
    copier: TrainedModel, tmp_path: Path, straight: dict[str, bytes]
) -> None:
    sizes = []

    class Small(Copier):
        def forward(self, images: Tensor) -> Tensor:
            sizes.append(len(images))
            if len(images) > 3:
                raise torch.OutOfMemoryError("too large")
            return images

    translate(replace(copier, translator=Small()), tmp_path / "in", tmp_path / "out", batch_size=8)
    assert max(sizes) == 8
    assert pictures_in(tmp_path / "out") == straight


# What goes wrong


def test_a_model_of_pose_morphing_is_refused(tmp_path: Path, source: Path) -> None:
    reference = made(tmp_path / "model.safetensors", "reference")
    with pytest.raises(CheckpointError, match="use dagaug augment"):
        translate(reference, source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_one_line_and_finished_files_stay(
    copier: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, straight: dict[str, bytes]
) -> None:
    left = [5]

    def write_bytes(self: Path, data: bytes) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        with self.open("wb") as stream:
            return stream.write(data)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", write_bytes)
        with pytest.raises(StoreError, match="disk is full; translated images are kept"):
            translate(copier, tmp_path / "in", tmp_path / "out", batch_size=2)
    kept = pictures_in(tmp_path / "out")
    assert len(kept) == 4  # and the manifest
    assert translate(copier, tmp_path / "in", tmp_path / "out").found == 4
    assert pictures_in(tmp_path / "out") == straight


def test_a_place_that_cannot_be_written_is_one_line(copier: TrainedModel, source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="cannot be written"):
        translate(copier, source, tmp_path / "file" / "out")


def test_a_name_that_becomes_too_long_is_skipped(copier: TrainedModel, tmp_path: Path) -> None:
    put(tmp_path / "in" / ("a" * 251 + ".png"))
    (tmp_path / "in" / ("a" * 251 + ".jpg")).write_bytes((tmp_path / "in" / ("a" * 251 + ".png")).read_bytes())
    put(tmp_path / "in" / ("b" * 251 + ".png"))
    result = translate(copier, tmp_path / "in", tmp_path / "out")
    assert (result.images, len(result.skipped)) == (1, 2)
    assert "too long" in result.skipped[0].reason


def test_an_image_far_from_square_is_skipped(copier: TrainedModel, tmp_path: Path) -> None:
    put(tmp_path / "in" / "line.png", 0, 1, 30_000)
    put(tmp_path / "in" / "x.png")
    assert "too far from a square" in translate(copier, tmp_path / "in", tmp_path / "out").skipped[0].reason


@pytest.mark.parametrize("out", ["in", "in/out", "."])
def test_output_within_or_around_the_source_is_refused(copier: TrainedModel, tmp_path: Path, out: str) -> None:
    before = put(tmp_path / "in" / "x.png").read_bytes()
    with pytest.raises(UsageError, match="choose a folder beside it"):
        translate(copier, tmp_path / "in", tmp_path / out, overwrite=True)
    assert (tmp_path / "in" / "x.png").read_bytes() == before


def test_missing_and_empty_folders_and_options_out_of_range_are_refused(copier: TrainedModel, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        translate(copier, tmp_path / "in", tmp_path / "out")
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match="no images found"):
        translate(copier, tmp_path / "in", tmp_path / "out")
    with pytest.raises(UsageError, match="batch_size=0: give at least 1"):
        translate(copier, tmp_path / "in", tmp_path / "out", batch_size=0)
    assert not (tmp_path / "out").exists()
