"""The downstream experiment: statistics against scipy, guards against leaks, resuming."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy import stats

from dagaug import score as score_module
from dagaug.classifier import FitOptions
from dagaug.datasets import Dataset, read_dataset
from dagaug.errors import DataError, UsageError
from dagaug.score import ARMS, ScoreOptions, ScoreResult, estimate, paired_difference, score
from dagaug.shards import ShardContent, open_run
from dagaug.store import Candidates, Header, Images

OPTIONS = ScoreOptions(FitOptions("test_resnet", 32, steps=4, batch_size=8), seeds=2)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Listener:
    """A progress that remembers lines and counts steps."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.steps = 0
        self.unit = ""

    def task(self, name: str, total: int, unit: str) -> Listener:
        del name, total
        self.unit = unit
        return self

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def advance(self, count: int = 1, note: str = "") -> None:
        if self.unit == "steps" and (not note or note.startswith("loss")):
            self.steps += count

    def say(self, text: str) -> None:
        self.lines.append(text)


def picture(label: int, seed: int) -> np.ndarray:
    """BGR noise, brighter in one channel."""
    image = np.random.default_rng(seed).integers(0, 120, (24, 24, 3), dtype=np.uint8)
    image[..., label] += 120
    return image


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Two classes, 4 training and 3 test images each."""
    root = tmp_path_factory.mktemp("data")
    for split, count in (("train", 4), ("test", 3)):
        for label, name in enumerate(("blue", "green")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                seed = 100 * label + number + (50 if split == "test" else 0)
                cv2.imwrite(str(folder / f"{number}.png"), picture(label, seed))
    return read_dataset(root)


def write_store(
    path: Path,
    dataset: Dataset,
    *,
    classes: tuple[str, ...] | None = None,
    source: int = 0,
    synthetic: bool = True,
    split: int = 0,
    stray: str | None = None,
) -> Path:
    """A store of four morphs; ``source`` is the row (training images first) that the first one was made from."""
    samples = (*dataset.train, *dataset.test)
    files = [sample.path.as_posix() for sample in samples]
    if stray is not None:
        files[source] = stray
    rows = np.array([source, 1, 5, 6])
    labels = np.array([samples[row].label for row in rows])
    images = [picture(int(label), 900 + number)[..., ::-1] for number, label in enumerate(labels)]
    reference = np.array([2, 3, 6, 7])
    confidence = np.full(4, 0.8, np.float32)
    variant = np.zeros(4, np.uint8)
    count = np.arange(4)
    table = Images(
        height=np.full(4, 24),
        width=np.full(4, 24),
        label=labels,
        split=np.full(4, split),
        synthetic=np.ones(4, bool),
        source=rows,
        reference=reference,
        variant=variant,
        confidence=confidence,
        predicted=labels,
        candidate=count,
    )
    candidates = Candidates(rows, reference, variant, labels, labels, confidence, np.zeros(4, np.uint8), count)
    if not synthetic:
        table = Images.real(table.height, table.width, labels, table.split, rows)
        candidates = Candidates.none()
    header = Header(
        classes=classes or dataset.classes,
        files=tuple(files),
        files_label=np.array([sample.label for sample in samples]),
        files_split=np.array([int(sample.split == "test") for sample in samples]),
        encoding="raw",
        quality=0,
        variants=("as it is",),
        verdicts=("kept",),
        options={},
        checkpoint_sha256="",
        seed=0,
        created_by="test",
    )
    with open_run(path, {}) as run:
        run.write(0, ShardContent([image.tobytes() for image in images], table, candidates))
        run.merge(header, 1)
    return path


# Statistics


def test_the_interval_is_scipys() -> None:
    values = [0.61, 0.64, 0.58, 0.66, 0.63]
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    found = estimate(values)
    assert (found.mean, found.low, found.high) == pytest.approx((np.mean(values), low, high), rel=1e-12)


def test_three_values_reach_as_far_as_the_printed_table_of_t_says() -> None:
    found = estimate([-1.0, 0.0, 1.0])
    assert found.high == pytest.approx(4.303 / math.sqrt(3), abs=1e-3)


def test_the_paired_test_is_scipys() -> None:
    arm, baseline = [0.61, 0.64, 0.58, 0.66], [0.60, 0.60, 0.59, 0.61]
    expected = stats.ttest_rel(arm, baseline)
    difference, p = paired_difference(arm, baseline)
    assert p == pytest.approx(expected.pvalue, rel=1e-9)
    assert (difference.low, difference.high) == pytest.approx(tuple(expected.confidence_interval(0.95)), rel=1e-9)


def test_a_constant_shift_is_certain_but_for_rounding() -> None:
    arm, baseline = [0.5, 0.6, 0.7], [0.25, 0.35, 0.45]
    certain, _ = paired_difference([0.5, 0.5], [0.25, 0.25])
    assert certain.low == certain.high == 0.25
    rounded, p = paired_difference(arm, baseline, resolution=0.01)
    assert rounded.high - rounded.low == pytest.approx(2 * 4.303 * 0.01 / math.sqrt(12) / math.sqrt(3), rel=1e-3)
    assert 0 < p < 0.001


def test_no_difference_at_all_has_p_one() -> None:
    assert paired_difference([0.5, 0.6], [0.5, 0.6])[1] == 1.0


def test_one_value_has_no_interval() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        estimate([0.5])
    with pytest.raises(UsageError, match="--seeds 1"):
        ScoreOptions(seeds=1)


def fake_runs(monkeypatch: pytest.MonkeyPatch, gain: float) -> None:
    """Let every training end at once with an accuracy near 0.5, and near 0.5 + gain for the second arm."""

    def run(material: object, arm: score_module.Arm, options: object, seed: int, *rest: object) -> score_module.Run:
        accuracy = 0.5 + 0.01 * seed + (gain + 0.002 * (-1) ** seed if arm.synthetic else 0.0)
        return score_module.Run(arm.name, seed, accuracy, 0.0)

    monkeypatch.setattr(score_module, "_run", run)
    monkeypatch.setattr(score_module, "_arm_result", exactly(score_module._arm_result))
    monkeypatch.setattr(score_module, "_compare", exactly(score_module._compare))


def exactly(function):  # type: ignore[no-untyped-def]
    """The function without the floor for the rounding of the tiny test set."""
    return lambda first, second, resolution: function(first, second, 0.0)


@pytest.mark.parametrize(
    ("gain", "verdict", "words"),
    [
        (0.05, "helps", "real+dagaug helps against real: +5.0 points"),
        (0.0, "no measurable effect", "real+dagaug has no measurable effect against real: +0.0 points"),
        (-0.05, "harms", "real+dagaug harms against real: -5.0 points"),
    ],
)
def test_the_verdict_follows_the_interval(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gain: float, verdict: str, words: str
) -> None:
    fake_runs(monkeypatch, gain)
    result = score(data, write_store(tmp_path / "s.h5", data), replace(OPTIONS, seeds=4))
    assert result.comparisons[0].verdict == verdict
    assert result.sentences[0].startswith(words)
    assert "4 paired seeds" in result.sentences[0]


# The experiment


@pytest.fixture(scope="module")
def small(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, ScoreResult]:
    """A store, a file of finished runs, and the result they gave."""
    folder = tmp_path_factory.mktemp("score")
    path = write_store(folder / "s.h5", data)
    torch.set_num_threads(1)
    return path, folder / "runs.jsonl", score(data, path, OPTIONS, resume=folder / "runs.jsonl")


def test_every_arm_is_trained_with_every_seed_on_counted_images(small: tuple[Path, Path, ScoreResult]) -> None:
    result = small[2]
    assert [(run.arm, run.seed) for run in result.runs] == [(arm.name, seed) for seed in (0, 1) for arm in ARMS]
    assert (result.classes, result.real, result.synthetic, result.test, result.steps) == (2, 8, 4, 6, 4)
    assert all(round(run.accuracy * 6) == pytest.approx(run.accuracy * 6) for run in result.runs)
    first = result.arms[0]
    assert first.accuracy.mean == pytest.approx(np.mean(first.accuracies))


def test_the_result_is_plain_json(small: tuple[Path, Path, ScoreResult]) -> None:
    read = json.loads(small[2].to_json())
    assert read["arms"][1]["arm"] == "real+dagaug"
    assert read["comparisons"][0]["difference"]["low"] <= read["comparisons"][0]["difference"]["high"]
    assert read["options"]["fit"]["name"] == "test_resnet"
    assert read["sentences"] == list(small[2].sentences)


def test_finished_runs_are_not_trained_again(data: Dataset, small: tuple[Path, Path, ScoreResult]) -> None:
    path, resume, before = small
    listener = Listener()
    again = score(data, path, OPTIONS, resume=resume, progress=listener)
    assert again == before
    assert listener.steps == 0


def test_a_killed_score_goes_on_where_it_was_and_ends_alike(
    data: Dataset, small: tuple[Path, Path, ScoreResult], tmp_path: Path
) -> None:
    path, resume, before = small
    lines = resume.read_text().splitlines(keepends=True)
    torn = tmp_path / "torn.jsonl"
    torn.write_text("".join(lines[:2]) + lines[2][:40])
    listener = Listener()
    again = score(data, path, OPTIONS, resume=torn, progress=listener)
    assert listener.steps == 2 * 4
    assert [run.accuracy for run in again.runs] == [run.accuracy for run in before.runs]
    assert score(data, path, OPTIONS, resume=torn) == again


def test_other_options_take_nothing_from_the_finished_runs(
    data: Dataset, small: tuple[Path, Path, ScoreResult], tmp_path: Path
) -> None:
    copy = tmp_path / "runs.jsonl"
    copy.write_bytes(small[1].read_bytes())
    listener = Listener()
    longer = replace(OPTIONS, fit=replace(OPTIONS.fit, steps=5))
    score(data, small[0], longer, resume=copy, progress=listener)
    assert listener.steps == 4 * 5


def test_runs_without_synthetic_images_serve_another_store_too(
    data: Dataset, small: tuple[Path, Path, ScoreResult], tmp_path: Path
) -> None:
    copy = tmp_path / "runs.jsonl"
    copy.write_bytes(small[1].read_bytes())
    listener = Listener()
    score(data, write_store(tmp_path / "other.h5", data, source=7), OPTIONS, resume=copy, progress=listener)
    assert listener.steps == 2 * 4


# Guards


def test_a_morph_of_a_test_image_is_refused_by_name(data: Dataset, tmp_path: Path) -> None:
    path = write_store(tmp_path / "leak.h5", data, source=9)
    with pytest.raises(DataError, match=r"leak\.h5: made from the test image test/blue/1\.png"):
        score(data, path, OPTIONS)


def test_a_morph_of_a_training_image_that_is_not_in_use_is_refused(data: Dataset, tmp_path: Path) -> None:
    path = write_store(tmp_path / "more.h5", data)
    with pytest.raises(DataError, match=r"train/blue/2\.png, which is not among the 4 training images"):
        score(data, path, replace(OPTIONS, per_class=2))


def test_a_morph_of_an_unknown_image_is_refused(data: Dataset, tmp_path: Path) -> None:
    path = write_store(tmp_path / "alien.h5", data, stray="elsewhere/x.png")
    with pytest.raises(DataError, match=r"made from elsewhere/x\.png"):
        score(data, path, OPTIONS)


def test_synthetic_test_images_are_refused(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="test split"):
        score(data, write_store(tmp_path / "s.h5", data, split=1), OPTIONS)


def test_other_classes_are_refused_naming_both(data: Dataset, tmp_path: Path) -> None:
    path = write_store(tmp_path / "s.h5", data, classes=("blue", "violet"))
    with pytest.raises(DataError, match=r"'violet' only there.*'green' only there"):
        score(data, path, OPTIONS)


def test_classes_in_another_order_are_refused(data: Dataset, tmp_path: Path) -> None:
    path = write_store(tmp_path / "s.h5", data, classes=("green", "blue"))
    with pytest.raises(DataError, match="another order"):
        score(data, path, OPTIONS)


def test_a_store_without_synthetic_images_is_refused(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no synthetic images"):
        score(data, write_store(tmp_path / "s.h5", data, synthetic=False), OPTIONS)


def test_a_data_set_without_test_images_is_refused(data: Dataset, tmp_path: Path) -> None:
    path = write_store(tmp_path / "s.h5", data)
    with pytest.raises(DataError, match="no test images"):
        score(replace(data, samples=data.train), path, OPTIONS)
