"""Files that could not be read at first: what a finished file lacks is made later, and nothing else is made again."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from making_runs import SPECIES, TEST_PER_CLASS, TRAINING_IMAGES, Killed, Listener, dagaug

from dagaug.augment import job as morphing
from dagaug.augment.engine import Engine
from dagaug.augment.local_executor import Local
from dagaug.augment.options import AugmentOptions
from dagaug.augment.run import Augmented, augment, skipped_log
from dagaug.classifiers import fit
from dagaug.compute import devices
from dagaug.data.dataset import Dataset
from dagaug.data.layouts import read_dataset
from dagaug.hdf5.reader import Store
from dagaug.hdf5.run import Run
from dagaug.hdf5.shards import parts_of
from dagaug.hdf5.verify import verify
from dagaug.model.trained_model import TrainedModel, load_model
from dagaug.runtime.errors import CheckpointError, DataError, OutputExistsError

BAD = (6, 13)
"""Training images that cannot be read, beside one test image."""


@pytest.fixture(scope="module")
def model(birds_run: Path) -> TrainedModel:
    return load_model(birds_run)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(morphing, "_SOURCES_PER_SHARD", 2)
    monkeypatch.setattr(morphing, "_REAL_PER_SHARD", 6)


@pytest.fixture
def options(birds_judge: Path) -> AugmentOptions:
    return AugmentOptions(refs=1, weights=birds_judge, classifier="test_resnet", batch_size=8, min_confidence=0.0)


class Patient:
    """A copy of the birds of which some files are broken until they are healed."""

    def __init__(self, birds: Path, root: Path) -> None:
        shutil.copytree(birds, root)
        self.data: Dataset = read_dataset(root)
        self.files = [*(self.data.file(self.data.train[row]) for row in BAD), self.data.file(self.data.test[3])]
        self.content = [file.read_bytes() for file in self.files]
        for file, content in zip(self.files, self.content, strict=True):
            file.write_bytes(content[:100])

    def heal(self, *rows: int) -> None:
        for row in rows or range(len(self.files)):
            self.files[row].write_bytes(self.content[row])


@pytest.fixture
def patient(birds_folder: Path, tmp_path: Path) -> Patient:
    return Patient(birds_folder, tmp_path / "patient")


def run(model: TrainedModel, data: Dataset, options: AugmentOptions, out: Path, **more: Any) -> Augmented:
    return augment(model, data, options, out, device="cpu", workers=1, **more)


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


def test_a_file_that_can_be_read_later_gives_the_bytes_of_a_run_that_could_read_it_at_once(
    model: TrainedModel, patient: Patient, options: AugmentOptions, tmp_path: Path, morphed: list[int]
) -> None:
    out = tmp_path / "a.h5"
    first = run(model, patient.data, options, out)
    assert len(first.skipped) == 3
    patient.heal()
    morphed.clear()
    again = run(model, patient.data, options, out, retry_failed=True)
    made = sum(morphed)
    run(model, patient.data, options, tmp_path / "straight.h5")
    assert out.read_bytes() == (tmp_path / "straight.h5").read_bytes()
    assert again.skipped == ()
    assert again.sources == TRAINING_IMAGES
    assert again.real == TRAINING_IMAGES + SPECIES * TEST_PER_CLASS
    assert 2 * len(BAD) <= made < 2 * TRAINING_IMAGES  # two variants of one reference each
    assert not parts_of(out).exists()


def test_the_log_beside_the_file_names_what_the_file_names(
    model: TrainedModel, patient: Patient, options: AugmentOptions, tmp_path: Path
) -> None:
    out = tmp_path / "a.h5"
    run(model, patient.data, options, out)
    log = skipped_log(out)
    assert log.name == "a.h5.skipped.csv"
    with log.open(newline="") as stream, Store(out) as store:
        rows = [tuple(row.values()) for row in csv.DictReader(stream)]
        assert tuple(rows) == store.header.skipped
    assert {path for path, _ in rows} == {str(file) for file in patient.files}
    patient.heal(0)
    assert len(run(model, patient.data, options, out, retry_failed=True).skipped) == 2
    assert len(log.read_text().splitlines()) == 3
    patient.heal()
    run(model, patient.data, options, out, retry_failed=True)
    assert not log.exists()


def test_what_still_cannot_be_read_changes_nothing(
    model: TrainedModel, patient: Patient, options: AugmentOptions, tmp_path: Path, morphed: list[int]
) -> None:
    out, listener = tmp_path / "a.h5", Listener()
    run(model, patient.data, options, out)
    before, count = out.stat(), len(morphed)
    done = run(model, patient.data, options, out, retry_failed=True, progress=listener)
    assert (out.stat().st_mtime_ns, out.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert len(morphed) == count
    assert listener.lines == [f"{out}: none of the 3 files that were skipped can be read now; it stays as it is"]
    assert len(done.skipped) == 3


def test_without_a_finished_file_it_is_the_same_command(
    model: TrainedModel, birds: Dataset, options: AugmentOptions, tmp_path: Path
) -> None:
    run(model, birds, options, tmp_path / "a.h5", retry_failed=True)
    run(model, birds, options, tmp_path / "b.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    listener = Listener()
    run(model, birds, options, tmp_path / "a.h5", retry_failed=True, progress=listener)
    assert listener.lines == [f"{tmp_path / 'a.h5'}: no file was skipped; it stays as it is"]


def test_other_options_are_refused_with_both_values_and_the_file_stays(
    model: TrainedModel, patient: Patient, options: AugmentOptions, tmp_path: Path
) -> None:
    out = tmp_path / "a.h5"
    run(model, patient.data, options, out)
    patient.heal()
    before = out.read_bytes()
    other = options.model_copy(update={"quality": 90})
    with pytest.raises(OutputExistsError, match=r"quality = 95, while this one has (options\.)?quality = 90"):
        run(model, patient.data, other, out, retry_failed=True)
    assert out.read_bytes() == before
    assert not parts_of(out).exists()


@pytest.mark.slow
def test_a_retry_that_was_killed_goes_on_and_the_file_stays_until_then(
    model: TrainedModel,
    patient: Patient,
    options: AugmentOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "a.h5"
    run(model, patient.data, options, out)
    patient.heal()
    before, count = out.read_bytes(), 0
    write = Run.write

    def until(self: Run, index: int, content: Any) -> None:
        nonlocal count
        count += 1
        if count == 5:
            raise Killed
        write(self, index, content)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "write", until)
        with pytest.raises(Killed):
            run(model, patient.data, options, out, retry_failed=True)
    assert out.read_bytes() == before
    run(model, patient.data, options, out, retry_failed=True)
    run(model, patient.data, options, tmp_path / "straight.h5")
    assert out.read_bytes() == (tmp_path / "straight.h5").read_bytes()


@pytest.mark.slow
def test_judges_that_were_trained_go_on_judging_and_others_are_refused(
    model: TrainedModel, patient: Patient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = fit.FitOptions.resolved
    monkeypatch.setattr(fit.FitOptions, "resolved", lambda self, images: quick(morphing.replace(self, steps=2), images))
    out, cache = tmp_path / "a.h5", tmp_path / "judges.safetensors"
    options = AugmentOptions(refs=1, folds=2, batch_size=8)
    run(model, patient.data, options, out, cache=cache)
    with Store(out) as store:
        judges, candidates = store.header.options["judges"], store.candidates
    patient.heal(0, 1)
    stranger = cache.read_bytes()
    run(model, patient.data, options, tmp_path / "other.h5", cache=tmp_path / "others.safetensors")
    with pytest.raises(CheckpointError, match="not the classifiers that selected"):
        run(model, patient.data, options, out, cache=tmp_path / "others.safetensors", retry_failed=True)
    assert cache.read_bytes() == stranger
    run(model, patient.data, options, out, cache=cache, retry_failed=True)
    verify(out)
    with Store(out) as store:
        assert store.header.options["judges"] == judges
        assert len(store.candidates) == 2 * TRAINING_IMAGES > len(candidates)
        assert len(store.header.skipped) == 1


def test_without_a_batch_size_a_run_keeps_the_one_that_it_began_with(
    model: TrainedModel,
    patient: Patient,
    options: AugmentOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, automatic = tmp_path / "a.h5", options.model_copy(update={"batch_size": None})
    monkeypatch.setattr(devices, "_CPU_BATCH", 8)
    with monkeypatch.context() as patch:
        stop_before(patch, 5)
        with pytest.raises(Killed):
            run(model, patient.data, automatic, out)
    monkeypatch.setattr(devices, "_CPU_BATCH", 4)
    run(model, patient.data, automatic, out)
    patient.heal()
    run(model, patient.data, automatic, out, retry_failed=True)
    run(model, patient.data, options, tmp_path / "straight.h5")
    assert out.read_bytes() == (tmp_path / "straight.h5").read_bytes()


def test_what_was_left_in_shards_is_taken_over_too_and_only_the_rest_is_made(
    model: TrainedModel, patient: Patient, options: AugmentOptions, tmp_path: Path, morphed: list[int]
) -> None:
    out, made = tmp_path / "a.h5", []
    run(model, patient.data, options, out, merge="virtual")
    patient.heal()
    morphed.clear()

    class Counting(Local):
        def make(self, job: Any, judges: Any, judged_by: Any, run: Run, stop: Any, progress: Any) -> None:
            made.append(len(job.shards) - len(run.finished))
            super().make(job, judges, judged_by, run, stop, progress)

    run(model, patient.data, options, out, retry_failed=True, merge="virtual", executor=Counting())
    assert 0 < made[0] < 2 * TRAINING_IMAGES
    assert 0 < sum(morphed) < 2 * TRAINING_IMAGES
    run(model, patient.data, options, tmp_path / "straight.h5")
    assert verify(out).content_sha256 == verify(tmp_path / "straight.h5").content_sha256
    assert len(list(tmp_path.glob("a.h5.shards-*"))) == 1


# ---- files that come and go while a run is stopped


def stop_before(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    write = Run.write

    def until(self: Run, index: int, content: Any) -> None:
        if index == number:
            raise Killed
        write(self, index, content)

    monkeypatch.setattr(Run, "write", until)


@pytest.mark.parametrize("number", [pytest.param(1, marks=pytest.mark.slow), 7])
@pytest.mark.parametrize("comes", [True, False], ids=["comes", "goes"])
def test_a_run_that_goes_on_makes_the_file_of_the_images_that_are_there_then(
    model: TrainedModel,
    patient: Patient,
    options: AugmentOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    comes: bool,
) -> None:
    victim = patient.files[0]
    if not comes:
        patient.heal()
    with monkeypatch.context() as patch:
        stop_before(patch, number)
        with pytest.raises(Killed):
            run(model, patient.data, options, tmp_path / "a.h5")
    if comes:
        patient.heal(0)
    else:
        victim.unlink()
    run(model, patient.data, options, tmp_path / "a.h5")
    run(model, patient.data, options, tmp_path / "straight.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "straight.h5").read_bytes()


def test_a_training_image_that_vanishes_before_it_is_stored_is_told(
    model: TrainedModel, patient: Patient, options: AugmentOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient.heal()
    store_real = morphing.Job.store_real

    def vanishing(self: morphing.Job, shard: morphing.Shard) -> morphing.Made:
        patient.files[1].unlink(missing_ok=True)
        return store_real(self, shard)

    with monkeypatch.context() as patch:
        patch.setattr(morphing.Job, "store_real", vanishing)
        with pytest.raises(DataError, match=r"it was readable when this run began; restore it, or go on without it"):
            run(model, patient.data, options, tmp_path / "a.h5")
    done = run(model, patient.data, options, tmp_path / "a.h5")
    assert [skip.path for skip in done.skipped] == [patient.files[1]]


def test_a_folder_that_lost_a_file_is_refused_naming_it(
    model: TrainedModel, birds: Dataset, options: AugmentOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_before(patch, 5)
        with pytest.raises(Killed):
            run(model, birds, options, tmp_path / "a.h5")
    fewer = morphing.replace(birds, samples=birds.samples[1:])
    name = birds.samples[0].path.as_posix()
    with pytest.raises(OutputExistsError, match=f'"{name}" among its files, which is not there now'):
        run(model, fewer, options, tmp_path / "a.h5")


def test_the_command_tells_how_to_go_on(patient: Patient, birds_run: Path, birds_judge: Path, tmp_path: Path) -> None:
    command = (
        "augment", patient.data.root, "--refs", 1, "--checkpoint", birds_run, "--classifier", "test_resnet",
        "--weights", birds_judge, "--out", tmp_path / "a.h5", "--device", "cpu",
    )  # fmt: skip
    done = dagaug(*command)
    assert done.code == 0, done.err
    assert "3 files skipped, listed in the file and in a.h5.skipped.csv" in done.out
    assert "the same command with --retry-failed" in done.out
    patient.heal()
    again = dagaug(*command, "--retry-failed", "--json")
    assert (again.code, again.json["skipped"]) == (0, [])
