"""Scores at several numbers of training images a class: everything is made anew, finished steps are kept."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from making_networks import saved
from making_runs import BATCH, SPECIES, STEPS, TEST_PER_CLASS, Killed, Listener, dagaug

from dagaug.augment.options import AugmentOptions
from dagaug.augment.run import augment
from dagaug.classifiers.fit import FitOptions
from dagaug.data.dataset_records import Dataset
from dagaug.hdf5.reader import Store
from dagaug.model.trained_model import TrainedModel, load_model
from dagaug.model.training_free_checkpoint import fit_training_free
from dagaug.runtime.errors import CheckpointError, UsageError
from dagaug.runtime.execution_settings import Execution
from dagaug.score.file_recipe import FrozenRecipe
from dagaug.score.options import ScoreOptions
from dagaug.score.shot_results import ShotsResult, read_shots
from dagaug.score.shot_sweep import plan_shots, score_shots

OPTIONS = ScoreOptions(FitOptions("test_resnet", 32, steps=2, batch_size=8), seeds=2, arms=("real", "real+dagaug"))


def file_of(model: TrainedModel, birds: Dataset, judge: Path, out: Path, **changes: object) -> Path:
    options = {"refs": 2, "weights": judge, "classifier": "test_resnet", "batch_size": 16, "min_confidence": 0.0}
    augment(model, birds, AugmentOptions(**(options | changes)), out, execution=Execution("cpu", 1))  # type: ignore[arg-type]
    return out


@pytest.fixture(scope="module")
def template(birds: Dataset, birds_run: Path, birds_judge: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An HDF5 file of all birds, by a GAN of six steps."""
    return file_of(load_model(birds_run), birds, birds_judge, tmp_path_factory.mktemp("template") / "birds.h5")


def scored(
    birds: Dataset, store: Path, shots: list[tuple[int, Path | None]], folder: Path, **more: object
) -> tuple[ShotsResult, Listener]:
    listener = more.pop("progress", Listener())
    result = score_shots(
        birds,
        store,
        shots,
        OPTIONS,
        folder,
        execution=Execution("cpu", 1, progress=listener),
        **more,  # type: ignore[arg-type]
    )
    return result, listener  # type: ignore[return-value]


@pytest.fixture(scope="module")
def done(
    birds: Dataset, template: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ShotsResult, list[str], Path]:
    """Scores with one and with three images a class, what was told, and their folder."""
    from making_runs import quick

    folder = tmp_path_factory.mktemp("shots") / "runs"
    with quick():
        result, listener = scored(birds, template, [(3, None), (1, None)], folder)
    return result, listener.lines, folder


def test_each_number_has_its_own_gan_and_morphs_of_its_images_alone(
    birds: Dataset, done: tuple[ShotsResult, list[str], Path]
) -> None:
    result, _, _ = done
    assert [point.per_class for point in result.shots] == [1, 3]
    assert [point.real for point in result.shots] == [SPECIES, 3 * SPECIES]
    assert (result.classes, result.test) == (SPECIES, SPECIES * TEST_PER_CLASS)
    checkpoints = set()
    for point in result.shots:
        with Store(point.file) as store:
            header, candidates = store.header, store.candidates
        allowed = {sample.path.as_posix() for sample in birds.subset(point.per_class).train}
        assert {header.files[row] for row in {*candidates.source, *candidates.reference}} <= allowed
        assert (header.options["per_class"], header.options["refs"]) == (point.per_class, 2)
        checkpoints.add(header.checkpoint_sha256)
        trained = json.loads((Path(point.file).parent / "run" / "options.json").read_text())
        assert (trained["identity"]["per_class"], trained["steps"]) == (point.per_class, STEPS)
        assert trained["identity"]["batch_size"] == BATCH
        assert [arm.arm for arm in point.arms] == list(OPTIONS.arms)
        assert point.synthetic > 0
    assert len(checkpoints) == 2


def test_the_cost_is_told_before_anything_is_made(done: tuple[ShotsResult, list[str], Path]) -> None:
    lines = done[1]
    assert lines[0] == (
        f"1 image a class: 4 training images; a GAN of {STEPS} steps, 16 candidates; 4 trainings of a classifier of 2 "
        "steps"
    )
    assert lines[1].startswith(f"3 images a class: 12 training images; a GAN of {STEPS} steps, 48 candidates")
    assert lines[2].startswith("The trainings of the classifiers take about ")
    assert "in all on this machine, besides GANs and morphs. Finished steps are kept in " in lines[2]


def test_each_number_is_told_with_its_uncertainty(done: tuple[ShotsResult, list[str], Path], tmp_path: Path) -> None:
    result = done[0]
    assert [sentence[:16] for sentence in result.sentences] == ["1 image a class:", "3 images a class"]
    assert "real+dagaug against real " in result.sentences[0]
    (tmp_path / "s.json").write_text(result.to_json())
    assert read_shots(tmp_path / "s.json") == result
    assert any("judge" in note for note in result.notes)  # the template's judge had learned from all images


def test_a_second_call_makes_nothing_again(
    birds: Dataset, template: Path, done: tuple[ShotsResult, list[str], Path], quickly: None
) -> None:
    result, _, folder = done
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.h5")} | {
        path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")
    }
    again, listener = scored(birds, template, [(1, None), (3, None)], folder)
    assert again == result
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert sum("from" in line and "score.jsonl" in line for line in listener.lines) == 2 * 4
    assert not any(name.startswith("Training,") for name in listener.done)


def test_a_killed_sweep_continues_where_it_was(
    birds: Dataset, template: Path, done: tuple[ShotsResult, list[str], Path], tmp_path: Path, quickly: None
) -> None:
    folder = tmp_path / "runs"
    shutil.copytree(done[2], folder)
    (place,) = folder.glob("3-*")
    shutil.rmtree(place)

    def kill(name: str, count: int) -> None:
        if name == "Morphing" and count:
            raise Killed

    with pytest.raises(Killed):
        scored(birds, template, [(1, None), (3, None)], folder, progress=Listener(kill))
    trained = (place / "run" / "model.safetensors").stat().st_mtime_ns
    again, _ = scored(birds, template, [(1, None), (3, None)], folder)
    assert (place / "run" / "model.safetensors").stat().st_mtime_ns == trained
    assert [point.arms for point in again.shots] == [point.arms for point in done[0].shots]


def test_given_files_and_the_template_itself_are_not_made_again(
    birds: Dataset, birds_run: Path, birds_judge: Path, template: Path, tmp_path: Path
) -> None:
    model = load_model(birds_run)
    two = file_of(model, birds, birds_judge, tmp_path / "two.h5", per_class=2)
    plans = plan_shots(birds, two, [(2, None), (3, None)], OPTIONS, tmp_path / "runs")
    assert [plan.given for plan in plans] == [two, None]
    plans = plan_shots(birds, template, [(2, two)], OPTIONS, tmp_path / "runs")
    assert [(plan.given, plan.candidates, plan.gan_steps) for plan in plans] == [(two, 0, 0)]
    with pytest.raises(Exception, match="not among the 4 training images"):
        plan_shots(birds, template, [(1, two)], OPTIONS, tmp_path / "runs")


def test_morphs_without_training_need_no_gan(birds: Dataset, template: Path, tmp_path: Path) -> None:
    (plan,) = plan_shots(birds, template, [(2, None)], OPTIONS, tmp_path, checkpoint=Path("frozen"))
    assert plan.gan_steps == 0
    assert isinstance(plan.recipe.model, FrozenRecipe)
    with Store(template) as store:
        assert plan.recipe.model.as_dict()["framing"] == store.header.provenance.framing


@pytest.mark.slow
def test_morphs_without_training_are_repeated_without_training(
    birds: Dataset, birds_judge: Path, tmp_path: Path, quickly: None
) -> None:
    saved(tmp_path / "network", "test_vit", patch_size=14, img_size=112, dynamic_img_size=False)
    frozen = fit_training_free(birds, tmp_path, name="b", features=f"local-dir:{tmp_path / 'network'}", size=64)
    store = file_of(frozen, birds, birds_judge, tmp_path / "frozen.h5")
    result, listener = scored(birds, store, [(2, None)], tmp_path / "runs")
    assert "no GAN is trained" in listener.lines[0]
    assert list((tmp_path / "runs").rglob("metrics.jsonl")) == []
    with Store(result.shots[0].file) as made, Store(store) as given:
        assert made.header.checkpoint_sha256 != given.header.checkpoint_sha256
        assert made.header.provenance.framing == given.header.provenance.framing
    (tmp_path / "s.json").write_text(result.to_json())
    assert read_shots(tmp_path / "s.json") == result


@pytest.mark.parametrize(
    ("shots", "changes", "words"),
    [
        ([(5, None)], {}, "shots=5: no class has more than 4"),
        ([(1, None), (1, None)], {}, "shots=1,1: give different numbers"),
        ([(1, None)], {"per_class": 2}, "per_class=2: cannot be combined"),
        ([(1, None)], {"fractions": (0.5,)}, "fractions=.* cannot be combined"),
        ([(1, None)], {"others": (("a", Path("b")),)}, "others=.* cannot be combined"),
        ([(1, None)], {"arms": ("real",)}, "arms=real: needs an arm with synthetic images"),
    ],
)
def test_impossible_numbers_and_options_are_refused_first(
    birds: Dataset, template: Path, tmp_path: Path, shots: list[tuple[int, Path | None]], changes: dict[str, object],
    words: str,
) -> None:  # fmt: skip
    with pytest.raises(UsageError, match=words):
        plan_shots(birds, template, shots, replace(OPTIONS, **changes), tmp_path)  # type: ignore[arg-type]


def test_a_number_at_which_balanced_classes_are_full_is_refused(
    birds: Dataset, birds_run: Path, birds_judge: Path, tmp_path: Path
) -> None:
    balanced = file_of(load_model(birds_run), birds, birds_judge, tmp_path / "b.h5", refs=None, balance=6, per_class=4)
    (plan,) = plan_shots(birds, balanced, [(2, None)], OPTIONS, tmp_path)
    assert (plan.recipe.augment.balance, plan.recipe.augment.refs) == (6, None)
    with Store(balanced) as store:
        filled = replace(store.header, options={**store.header.options, "balance": 2})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "header", filled)
        with pytest.raises(UsageError, match=r"shots=3: .*fills classes up to 2 images, but all have as many"):
            plan_shots(birds, balanced, [(3, None)], OPTIONS, tmp_path)


def test_a_model_without_the_options_of_its_training_cannot_be_repeated(
    birds: Dataset, template: Path, birds_run: Path, tmp_path: Path
) -> None:
    shutil.copy(birds_run / "model.safetensors", tmp_path)
    with pytest.raises(CheckpointError, match="no options of the training"):
        plan_shots(birds, template, [(1, None)], OPTIONS, tmp_path, checkpoint=tmp_path)


def test_the_command_writes_a_table_and_a_json_beside_the_file(
    birds_folder: Path, template: Path, done: tuple[ShotsResult, list[str], Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    store = Path(shutil.copy(template, tmp_path / "birds.h5"))
    asked: list[object] = []

    def found(*given: object, **named: object) -> ShotsResult:
        asked.extend([*given[1:3], given[4], named["checkpoint"]])
        return done[0]

    monkeypatch.setattr("dagaug.score.shot_sweep.score_shots", found)
    made = dagaug("score", birds_folder, store, "--shots", f"3, 1={store}", "--checkpoint", "frozen")
    assert made.code == 0, made.err
    assert asked == [store, [(3, None), (1, store)], tmp_path / "birds-shots-runs", Path("frozen")]
    assert re.search(r"1 a class +3 a class", made.out)
    assert all(sentence in made.out for sentence in done[0].sentences)
    assert read_shots(tmp_path / "birds-shots.json") == done[0]
    assert dagaug("score", birds_folder, store, "--shots", "1", "--fail-unless-helps").code == 3


@pytest.mark.parametrize("text", ["one", "1,,2", "1=", "-1", "1.5"])
def test_the_command_refuses_what_is_no_list_of_numbers(birds_folder: Path, template: Path, text: str) -> None:
    refused = dagaug("score", birds_folder, template, "--shots", text)
    assert refused.code == 2
    assert f"--shots {text}: write numbers separated by commas, or N=FILE" in refused.err
