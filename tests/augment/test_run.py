"""Whole runs: summaries, the same bytes however often a run is stopped, unreadable images."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from making_augmentations import (
    CANDIDATES,
    REFS,
    SHARDS,
    TEST_IMAGES,
    kill_at_shard,
    morphs_of,
    run,
)
from making_runs import SPECIES, TRAINING_IMAGES, Killed, Listener, interrupt_at

from dagaug.augment import shard_content
from dagaug.augment.engine import Engine
from dagaug.augment.morph_plan import DEFAULT_VARIANTS, VARIANTS
from dagaug.augment.options import AugmentOptions
from dagaug.augment.run import Augmented
from dagaug.data.dataset_records import Dataset
from dagaug.data.layouts import read_dataset
from dagaug.hdf5.reader import Store
from dagaug.hdf5.shard_folder import ShardFolder
from dagaug.hdf5.shards import parts_folder
from dagaug.hdf5.torch_dataset import AugmentedDataset
from dagaug.hdf5.verify import verify
from dagaug.model.trained_model import TrainedModel
from dagaug.runtime.errors import ImageError, OutputExistsError, UsageError
from dagaug.runtime.image_cache import ImageCache
from dagaug.runtime.signals import Interrupted


def test_the_summary_counts_what_lies_in_the_file(made: Augmented, store: Store) -> None:
    kept = len(morphs_of(store))
    assert made.kept == kept == int((store.candidates.image >= 0).sum()) == made.verdicts["kept"]
    assert made.real == len(store) - kept == TRAINING_IMAGES + TEST_IMAGES
    assert sum(made.verdicts.values()) == CANDIDATES
    assert made.references == len(set(store.candidates.reference.tolist()))
    assert 0 < kept < TRAINING_IMAGES * REFS  # else the tests of the selection say nothing
    assert made.skipped == ()


def test_the_file_is_valid_and_nothing_else_is_left(made: Augmented) -> None:
    verify(made.out)
    assert [path.name for path in made.out.parent.iterdir()] == [made.out.name]


def test_a_torch_data_set_reads_training_images_real_and_synthetic(made: Augmented) -> None:
    data = AugmentedDataset(made.out)
    assert len(data) == TRAINING_IMAGES + made.kept
    image, label = data[len(data) - 1]
    assert isinstance(image, np.ndarray)
    assert image.shape == (64, 64, 3)
    assert 0 <= label < SPECIES


def test_the_same_options_give_the_same_bytes_in_another_place(
    made: Augmented, model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path
) -> None:
    run(model, birds, judged.model_copy(update={"encoding": "png"}), tmp_path / "elsewhere" / "again.h5")
    assert (tmp_path / "elsewhere" / "again.h5").read_bytes() == made.out.read_bytes()


def test_the_cache_does_not_change_the_bytes_and_what_it_does_not_hold_is_told_in_one_line(
    made: Augmented, model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path
) -> None:
    listener = Listener()
    options = judged.model_copy(update={"encoding": "png"})
    run(model, birds, options, tmp_path / "a.h5", images=ImageCache(30_000), progress=listener)
    assert (tmp_path / "a.h5").read_bytes() == made.out.read_bytes()
    assert len([line for line in listener.lines if "are kept in memory" in line]) == 1


def test_cutouts_on_other_backgrounds_are_the_same_bytes_when_their_run_was_killed(
    model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = judged.model_copy(update={"background": "other", "variants": VARIANTS})
    run(model, birds, options, tmp_path / "straight.h5")
    with monkeypatch.context() as patch:
        kill_at_shard(patch, SHARDS - 2)
        with pytest.raises(Killed):
            run(model, birds, options, tmp_path / "a.h5")
    with pytest.raises(OutputExistsError, match=r'options\.background = "?other"?, but this run has .*reference'):
        run(model, birds, options.model_copy(update={"background": "reference"}), tmp_path / "a.h5")
    run(model, birds, options, tmp_path / "a.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "straight.h5").read_bytes()


@pytest.mark.parametrize("number", [0, 1, SHARDS - 2])
def test_a_run_killed_between_shards_resumes_to_the_same_bytes(
    made: Augmented,
    model: TrainedModel,
    birds: Dataset,
    judged: AugmentOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    options, out = judged.model_copy(update={"encoding": "png"}), tmp_path / "a.h5"
    with monkeypatch.context() as patch:
        kill_at_shard(patch, number)
        with pytest.raises(Killed):
            run(model, birds, options, out)
    assert not out.exists()
    encoded = Listener()
    run(model, birds, options, out, progress=encoded)
    assert out.read_bytes() == made.out.read_bytes()
    assert not parts_folder(out).exists()


def test_shards_of_an_older_version_without_objects_are_made_again(
    made: Augmented,
    model: TrainedModel,
    birds: Dataset,
    judged: AugmentOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options, out = judged.model_copy(update={"encoding": "png"}), tmp_path / "a.h5"
    with monkeypatch.context() as patch:
        patch.setattr(shard_content, "_joined", lambda objects: None)
        kill_at_shard(patch, SHARDS - 2)
        with pytest.raises(Killed):
            run(model, birds, options, out)
    run(model, birds, options, out)
    assert out.read_bytes() == made.out.read_bytes()


@pytest.mark.parametrize("retry", [False, True])
def test_a_run_killed_after_writing_its_file_is_finished_by_the_same_call(
    model: TrainedModel,
    birds: Dataset,
    judged: AugmentOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    retry: bool,
) -> None:
    out, listener = tmp_path / "a.h5", Listener()
    options = judged.model_copy(update={"limit": 2})

    def killed(self: ShardFolder) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(ShardFolder, "_remove", killed)
        with pytest.raises(Killed):
            run(model, birds, options, out)
    content = out.read_bytes()
    assert parts_folder(out).exists()
    done = run(model, birds, options, out, retry_failed=retry, progress=listener)
    assert out.read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]
    assert done.candidates == 2 * REFS * len(DEFAULT_VARIANTS)
    assert listener.lines == [
        f"{out}: no file was skipped; the file is unchanged"
        if retry
        else f"{out}: already complete; an earlier call was killed after writing it"
    ]
    with pytest.raises(OutputExistsError, match=r"a\.h5 exists; try overwrite=True"):
        run(model, birds, options, out)


def test_an_interrupted_run_keeps_its_shards_and_resumes_to_the_same_bytes(
    made: Augmented, model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path
) -> None:
    options, out = judged.model_copy(update={"encoding": "png"}), tmp_path / "a.h5"
    shard = 5 * REFS * len(DEFAULT_VARIANTS)
    with pytest.raises(Interrupted, match="finished shards are kept"):
        run(model, birds, options, out, progress=interrupt_at("Morphing", shard))
    kept = sorted(path.name for path in parts_folder(out).glob("index-*.h5"))
    assert 3 < len(kept) < SHARDS
    times = {name: (parts_folder(out) / name).stat().st_mtime_ns for name in kept}
    with pytest.raises(Interrupted):
        run(model, birds, options, out, progress=interrupt_at("Morphing", 2 * shard))
    assert {name: (parts_folder(out) / name).stat().st_mtime_ns for name in kept} == times  # not made again
    run(model, birds, options, out)
    assert out.read_bytes() == made.out.read_bytes()


def test_an_unfinished_run_with_other_options_is_refused_with_the_option_and_both_values(
    model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        kill_at_shard(patch, 2)
        with pytest.raises(Killed):
            run(model, birds, judged, tmp_path / "a.h5")
    with pytest.raises(OutputExistsError, match=r"refs = 2, but this run has options\.refs = 3"):
        run(model, birds, judged.model_copy(update={"refs": 3}), tmp_path / "a.h5")
    done = run(model, birds, judged.model_copy(update={"refs": 1}), tmp_path / "a.h5", overwrite=True)
    assert done.candidates == TRAINING_IMAGES * len(DEFAULT_VARIANTS)


def test_a_finished_file_is_replaced_only_with_overwrite(
    made: Augmented, model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path
) -> None:
    out = shutil.copy(made.out, tmp_path / "a.h5")
    before = out.read_bytes()
    with pytest.raises(OutputExistsError, match=r"a\.h5 exists; try overwrite=True"):
        run(model, birds, judged, out)
    assert out.read_bytes() == before
    run(model, birds, judged.model_copy(update={"limit": 2}), out, overwrite=True)
    with Store(out) as store:
        assert len(store.candidates) == 2 * REFS * len(DEFAULT_VARIANTS)


def test_an_error_before_the_first_shard_leaves_no_files(
    model: TrainedModel, birds: Dataset, tmp_path: Path, judged: AugmentOptions
) -> None:
    wrong = AugmentOptions(refs=REFS, classifier="resnet1")
    with pytest.raises(UsageError, match=r"resnet1.*resnet"):
        run(model, birds, wrong, tmp_path / "a.h5")
    assert list(tmp_path.iterdir()) == []
    run(model, birds, judged.model_copy(update={"limit": 1}), tmp_path / "a.h5")


def test_too_little_memory_changes_nothing_but_the_batches(
    made: Augmented,
    model: TrainedModel,
    birds: Dataset,
    judged: AugmentOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, sizes = Engine._generate, []

    def limited(self: Engine, sources: Any, index: np.ndarray, *more: Any) -> Any:
        if len(index) > 6:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(index))
        return whole(self, sources, index, *more)

    monkeypatch.setattr(Engine, "_generate", limited)
    done = run(model, birds, judged.model_copy(update={"encoding": "png"}), tmp_path / "a.h5")
    assert max(sizes) <= 6
    assert sum(sizes) == CANDIDATES
    assert (done.candidates, done.verdicts, done.kept) == (made.candidates, made.verdicts, made.kept)


@pytest.fixture
def damaged(birds_folder: Path, tmp_path: Path) -> tuple[Dataset, set[str]]:
    """The birds with a training image cut off and a test image that is none; their names."""
    root = tmp_path / "damaged"
    shutil.copytree(birds_folder, root)
    data = read_dataset(root)
    cut_off, none = data.train[6], data.test[3]
    data.file(cut_off).write_bytes(data.file(cut_off).read_bytes()[:200])
    data.file(none).write_bytes(b"<html>not found</html>")
    return data, {cut_off.path.as_posix(), none.path.as_posix()}


def test_unreadable_images_are_skipped_and_listed_in_the_file(
    model: TrainedModel, damaged: tuple[Dataset, set[str]], judged: AugmentOptions, tmp_path: Path
) -> None:
    data, bad = damaged
    listener = Listener()
    done = run(model, data, judged, tmp_path / "a.h5", progress=listener)
    assert {skip.path.relative_to(data.root).as_posix() for skip in done.skipped} == bad
    assert len(done.skipped) == 2
    assert (done.sources, done.real) == (TRAINING_IMAGES - 1, TRAINING_IMAGES + TEST_IMAGES - 2)
    assert any("skipped" in line for line in listener.lines)
    with Store(tmp_path / "a.h5") as store:
        listed = {Path(path).relative_to(data.root).as_posix(): reason for path, reason in store.header.skipped}
        assert listed.keys() == bad
        assert all(listed.values())
        used = {store.header.files[row] for row in (*store.images.source, *store.candidates.reference)}
        assert not used & bad


def test_a_resumed_run_lists_the_unreadable_images_of_finished_shards_too(
    model: TrainedModel,
    damaged: tuple[Dataset, set[str]],
    judged: AugmentOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, _ = damaged
    straight = run(model, data, judged, tmp_path / "straight.h5")
    with monkeypatch.context() as patch:
        kill_at_shard(patch, 4)  # all real images are written
        with pytest.raises(Killed):
            run(model, data, judged, tmp_path / "stopped.h5")
    resumed = run(model, data, judged, tmp_path / "stopped.h5")
    assert resumed.skipped == straight.skipped
    assert (tmp_path / "stopped.h5").read_bytes() == (tmp_path / "straight.h5").read_bytes()


def test_with_strict_the_first_unreadable_image_is_an_error(
    model: TrainedModel, damaged: tuple[Dataset, set[str]], judged: AugmentOptions, tmp_path: Path
) -> None:
    with pytest.raises(ImageError, match="not a readable image"):
        run(model, damaged[0], judged, tmp_path / "a.h5", strict=True)
    assert not (tmp_path / "a.h5").exists()
