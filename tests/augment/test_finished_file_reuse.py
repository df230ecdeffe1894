"""Adding skipped files to a finished file: only the shards that need them are made again."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import making_augmentations
import numpy as np
import pytest
from making_augmentations import kill_at_shard
from making_masks import write_mask, write_masks
from making_runs import SPECIES, TEST_PER_CLASS, TRAINING_IMAGES, Killed, Listener, dagaug

from dagaug.augment import shard_content
from dagaug.augment.engine import Engine
from dagaug.augment.in_process_executor import LocalExecutor
from dagaug.augment.options import AugmentOptions
from dagaug.augment.prepared_augmentation import Shard, ShardSizes
from dagaug.augment.run import skipped_log
from dagaug.augment.shard_content import ShardMaker, ShardResult
from dagaug.classifiers import fit
from dagaug.data.dataset_records import Dataset
from dagaug.data.layouts import read_dataset
from dagaug.data.mask_files import find_masks
from dagaug.hdf5.reader import Store
from dagaug.hdf5.schema import SCHEMA
from dagaug.hdf5.shard_folder import ShardFolder
from dagaug.hdf5.shards import parts_folder
from dagaug.hdf5.verify import verify
from dagaug.model.trained_model import TrainedModel
from dagaug.runtime.errors import CheckpointError, DataError, OutputExistsError

BAD = (6, 13)
"""Training images that cannot be read, beside one test image."""


@pytest.fixture
def options(birds_judge: Path) -> AugmentOptions:
    return AugmentOptions(refs=1, weights=birds_judge, classifier="test_resnet", batch_size=8, min_confidence=0.0)


class DamagedCopy:
    """A copy of the birds in which some files are broken until they are repaired."""

    def __init__(self, birds: Path, root: Path) -> None:
        shutil.copytree(birds, root)
        self.data: Dataset = read_dataset(root)
        self.files = [*(self.data.file(self.data.train[row]) for row in BAD), self.data.file(self.data.test[3])]
        self.content = [file.read_bytes() for file in self.files]
        for file, content in zip(self.files, self.content, strict=True):
            file.write_bytes(content[:100])

    def repair(self, *rows: int) -> None:
        for row in rows or range(len(self.files)):
            self.files[row].write_bytes(self.content[row])


@pytest.fixture
def damaged(birds_folder: Path, tmp_path: Path) -> DamagedCopy:
    return DamagedCopy(birds_folder, tmp_path / "damaged")


run = partial(making_augmentations.run, shard_sizes=ShardSizes(sources=2, real=6))


@pytest.fixture
def morphed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many candidates each call of the networks is asked for."""
    counts: list[int] = []
    whole = Engine.morph

    def counted(self: Engine, plan: Any, part: slice) -> Any:
        counts.append(part.stop - part.start)
        return whole(self, plan, part)

    monkeypatch.setattr(Engine, "morph", counted)
    return counts


def test_adding_skipped_files_gives_the_bytes_of_a_run_that_could_read_them_at_once(
    model: TrainedModel, damaged: DamagedCopy, options: AugmentOptions, tmp_path: Path, morphed: list[int]
) -> None:
    out = tmp_path / "a.h5"
    first = run(model, damaged.data, options, out)
    assert len(first.skipped) == 3
    damaged.repair()
    morphed.clear()
    again = run(model, damaged.data, options, out, retry_failed=True)
    made = sum(morphed)
    run(model, damaged.data, options, tmp_path / "straight.h5")
    assert out.read_bytes() == (tmp_path / "straight.h5").read_bytes()
    assert again.skipped == ()
    assert again.sources == TRAINING_IMAGES
    assert again.real == TRAINING_IMAGES + SPECIES * TEST_PER_CLASS
    assert 2 * len(BAD) <= made < 2 * TRAINING_IMAGES  # two variants of one reference each
    assert not parts_folder(out).exists()


def test_images_with_unusable_masks_are_no_files_to_read_again(
    model: TrainedModel, birds: Dataset, options: AugmentOptions, tmp_path: Path
) -> None:
    folder = write_masks(birds, tmp_path / "masks")
    write_mask(birds, birds.train[3], folder, np.zeros((64, 64), np.uint8))
    masked, out, said = find_masks(birds, folder), tmp_path / "a.h5", Listener()
    run(model, masked, options, out)
    before = out.read_bytes()
    run(model, masked, options, out, retry_failed=True, progress=said)
    assert out.read_bytes() == before
    assert any("the file is unchanged" in line for line in said.lines)


def test_the_log_beside_the_file_names_what_the_file_names(
    model: TrainedModel, damaged: DamagedCopy, options: AugmentOptions, tmp_path: Path
) -> None:
    out = tmp_path / "a.h5"
    run(model, damaged.data, options, out)
    log = skipped_log(out)
    assert log.name == "a.h5.skipped.csv"
    with log.open(newline="") as stream, Store(out) as store:
        rows = [tuple(row.values()) for row in csv.DictReader(stream)]
        assert tuple(rows) == store.header.skipped
    assert {path for path, _ in rows} == {str(file) for file in damaged.files}
    damaged.repair(0)
    assert len(run(model, damaged.data, options, out, retry_failed=True).skipped) == 2
    assert len(log.read_text().splitlines()) == 3
    damaged.repair()
    run(model, damaged.data, options, out, retry_failed=True)
    assert not log.exists()


def test_files_that_are_still_unreadable_change_nothing(
    model: TrainedModel, damaged: DamagedCopy, options: AugmentOptions, tmp_path: Path, morphed: list[int]
) -> None:
    out, listener = tmp_path / "a.h5", Listener()
    run(model, damaged.data, options, out)
    before, count = out.stat(), len(morphed)
    done = run(model, damaged.data, options, out, retry_failed=True, progress=listener)
    assert (out.stat().st_mtime_ns, out.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert len(morphed) == count
    assert listener.lines == [f"{out}: none of the 3 skipped files can be read now; the file is unchanged"]
    assert len(done.skipped) == 3


def test_without_a_finished_file_it_is_the_same_command(
    model: TrainedModel, birds: Dataset, options: AugmentOptions, tmp_path: Path
) -> None:
    run(model, birds, options, tmp_path / "a.h5", retry_failed=True)
    run(model, birds, options, tmp_path / "b.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    listener = Listener()
    run(model, birds, options, tmp_path / "a.h5", retry_failed=True, progress=listener)
    assert listener.lines == [f"{tmp_path / 'a.h5'}: no file was skipped; the file is unchanged"]


def test_other_options_are_refused_with_both_values_and_the_file_stays(
    model: TrainedModel, damaged: DamagedCopy, options: AugmentOptions, tmp_path: Path
) -> None:
    out = tmp_path / "a.h5"
    run(model, damaged.data, options, out)
    damaged.repair()
    before = out.read_bytes()
    other = options.model_copy(update={"quality": 90})
    with pytest.raises(OutputExistsError, match=r"quality = 95, but this run has (options\.)?quality = 90"):
        run(model, damaged.data, other, out, retry_failed=True)
    assert out.read_bytes() == before
    assert not parts_folder(out).exists()


@pytest.mark.slow
def test_a_killed_retry_can_be_continued_and_keeps_the_file_until_then(
    model: TrainedModel,
    damaged: DamagedCopy,
    options: AugmentOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "a.h5"
    run(model, damaged.data, options, out)
    damaged.repair()
    before, count = out.read_bytes(), 0
    write = ShardFolder.write

    def until(self: ShardFolder, index: int, content: Any) -> None:
        nonlocal count
        count += 1
        if count == 5:
            raise Killed
        write(self, index, content)

    with monkeypatch.context() as patch:
        patch.setattr(ShardFolder, "write", until)
        with pytest.raises(Killed):
            run(model, damaged.data, options, out, retry_failed=True)
    assert out.read_bytes() == before
    run(model, damaged.data, options, out, retry_failed=True)
    run(model, damaged.data, options, tmp_path / "straight.h5")
    assert out.read_bytes() == (tmp_path / "straight.h5").read_bytes()


@pytest.mark.slow
def test_trained_judges_are_reused_and_others_are_refused(
    model: TrainedModel, damaged: DamagedCopy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = fit.FitOptions.resolved
    monkeypatch.setattr(fit.FitOptions, "resolved", lambda self, images: quick(replace(self, steps=2), images))
    out, cache = tmp_path / "a.h5", tmp_path / "judges.safetensors"
    options = AugmentOptions(refs=1, folds=2, batch_size=8)
    run(model, damaged.data, options, out, cache=cache)
    with Store(out) as store:
        judges, candidates = store.header.options["judges"], store.candidates
    damaged.repair(0, 1)
    stranger = cache.read_bytes()
    run(model, damaged.data, options, tmp_path / "other.h5", cache=tmp_path / "others.safetensors")
    with pytest.raises(CheckpointError, match="not the classifiers that selected"):
        run(model, damaged.data, options, out, cache=tmp_path / "others.safetensors", retry_failed=True)
    assert cache.read_bytes() == stranger
    run(model, damaged.data, options, out, cache=cache, retry_failed=True)
    verify(out)
    with Store(out) as store:
        assert store.header.options["judges"] == judges
        assert len(store.candidates) == 2 * TRAINING_IMAGES > len(candidates)
        assert len(store.header.skipped) == 1


def test_without_a_batch_size_a_run_keeps_the_one_that_it_began_with(
    model: TrainedModel,
    damaged: DamagedCopy,
    options: AugmentOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, automatic = tmp_path / "a.h5", options.model_copy(update={"batch_size": None})
    monkeypatch.setattr("dagaug.augment.run.suitable_batch_size", lambda job: 8)
    with monkeypatch.context() as patch:
        kill_at_shard(patch, 5)
        with pytest.raises(Killed):
            run(model, damaged.data, automatic, out)
    monkeypatch.setattr("dagaug.augment.run.suitable_batch_size", lambda job: 4)
    run(model, damaged.data, automatic, out)
    damaged.repair()
    run(model, damaged.data, automatic, out, retry_failed=True)
    run(model, damaged.data, options, tmp_path / "straight.h5")
    assert out.read_bytes() == (tmp_path / "straight.h5").read_bytes()


def test_shards_of_a_virtual_file_are_reused_too(
    model: TrainedModel, damaged: DamagedCopy, options: AugmentOptions, tmp_path: Path, morphed: list[int]
) -> None:
    out, made = tmp_path / "a.h5", []
    run(model, damaged.data, options, out, merge="virtual")
    damaged.repair()
    morphed.clear()

    class Counting(LocalExecutor):
        def make(self, job: Any, judges: Any, run: ShardFolder, stop: Any, progress: Any) -> None:
            made.append(len(job.shards) - len(run.finished))
            super().make(job, judges, run, stop, progress)

    run(model, damaged.data, options, out, retry_failed=True, merge="virtual", executor=Counting())
    assert 0 < made[0] < 2 * TRAINING_IMAGES
    assert 0 < sum(morphed) < 2 * TRAINING_IMAGES
    run(model, damaged.data, options, tmp_path / "straight.h5")
    assert verify(out).content_sha256 == verify(tmp_path / "straight.h5").content_sha256
    assert len(list(tmp_path.glob("a.h5.shards-*"))) == 1


# ---- files that come and go while a run is stopped


@pytest.mark.parametrize("number", [pytest.param(1, marks=pytest.mark.slow), 7])
@pytest.mark.parametrize("comes", [True, False], ids=["comes", "goes"])
def test_a_resumed_run_uses_the_images_that_exist_then(
    model: TrainedModel,
    damaged: DamagedCopy,
    options: AugmentOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    comes: bool,
) -> None:
    victim = damaged.files[0]
    if not comes:
        damaged.repair()
    with monkeypatch.context() as patch:
        kill_at_shard(patch, number)
        with pytest.raises(Killed):
            run(model, damaged.data, options, tmp_path / "a.h5")
    if comes:
        damaged.repair(0)
    else:
        victim.unlink()
    run(model, damaged.data, options, tmp_path / "a.h5")
    run(model, damaged.data, options, tmp_path / "straight.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "straight.h5").read_bytes()


def test_a_training_image_lost_before_it_is_stored_is_an_error(
    model: TrainedModel, damaged: DamagedCopy, options: AugmentOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged.repair()
    make = ShardMaker.real

    def vanishing(self: ShardMaker, shard: Shard) -> ShardResult:
        damaged.files[1].unlink(missing_ok=True)
        return make(self, shard)

    with monkeypatch.context() as patch:
        patch.setattr(ShardMaker, "real", vanishing)
        with pytest.raises(DataError, match="it was readable when this run began; restore it and run again"):
            run(model, damaged.data, options, tmp_path / "a.h5")
    done = run(model, damaged.data, options, tmp_path / "a.h5")
    assert [skip.path for skip in done.skipped] == [damaged.files[1]]


def test_a_folder_that_lost_a_file_is_refused_naming_it(
    model: TrainedModel, birds: Dataset, options: AugmentOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        kill_at_shard(patch, 5)
        with pytest.raises(Killed):
            run(model, birds, options, tmp_path / "a.h5")
    fewer = replace(birds, samples=birds.samples[1:])
    name = birds.samples[0].path.as_posix()
    with pytest.raises(OutputExistsError, match=f'"{name}" in its files, which this run does not have'):
        run(model, fewer, options, tmp_path / "a.h5")


def test_the_command_prints_how_to_add_skipped_files(
    damaged: DamagedCopy, birds_run: Path, birds_judge: Path, tmp_path: Path
) -> None:
    command = (
        "augment", damaged.data.root, "--refs", 1, "--checkpoint", birds_run, "--classifier", "test_resnet",
        "--weights", birds_judge, "--out", tmp_path / "a.h5", "--device", "cpu",
    )  # fmt: skip
    done = dagaug(*command)
    assert done.code == 0, done.err
    assert "3 files skipped, listed in the file and in a.h5.skipped.csv" in done.out
    assert "the same command with --retry-failed" in done.out
    damaged.repair()
    again = dagaug(*command, "--retry-failed", "--json")
    assert (again.code, again.json["skipped"]) == (0, [])


def test_the_objects_of_reused_shards_stay_unknown_if_the_finished_file_lacks_them(
    model: TrainedModel,
    damaged: DamagedCopy,
    options: AugmentOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "a.h5"
    with monkeypatch.context() as patch:
        patch.setattr(shard_content, "_joined", lambda objects: None)
        run(model, damaged.data, options, out)
    assert verify(out).datasets == len(SCHEMA)
    damaged.repair()
    run(model, damaged.data, options, out, retry_failed=True)
    found = verify(out)
    assert 0 < found.masks < found.synthetic
