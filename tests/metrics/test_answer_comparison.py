"""Morphs compared with true answers: perfect, copied and missing ones, from built-in birds and from tables."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from making_morphs import Maker, Pair, pairs_of, write_morphs
from making_runs import FRAMING

from dagaug.birds.dataset import true_morph
from dagaug.birds.rendering import Rendering
from dagaug.classifiers.classifier import Classifier
from dagaug.data.dataset_records import Dataset, Sample
from dagaug.data.image_files import decode
from dagaug.data.square_crops import cut, region_of
from dagaug.metrics.answer_comparison import ANSWERS, AnswerScore, PairsEvaluation, evaluate_pairs, recovered_mask
from dagaug.runtime.errors import CheckpointError, DagaugError, DataError, UsageError

COUNT = 12


def drawn(dataset: Dataset, source: Sample, reference: Sample) -> Rendering:
    return true_morph(dataset.root, source.path, reference.path)


def truth_of(dataset: Dataset) -> Maker:
    """Perfect morphs."""

    def draw(source: Sample, reference: Sample, variant: str) -> np.ndarray:
        image = drawn(dataset, source, reference).image
        return image[:, ::-1].copy() if variant == "mirror" else image

    return draw


def of_reference(dataset: Dataset) -> Maker:
    return lambda source, reference, variant: decode(dataset.file(reference))


def answers(result: PairsEvaluation) -> dict[str, AnswerScore]:
    assert {one.answer for one in result.scores} == set(ANSWERS)
    return {one.answer: one for one in result.scores if one.images == "all"}


def values(score: AnswerScore) -> tuple[float, float]:
    return score.error.value, score.overlap.value


def write_table(
    folder: Path, dataset: Dataset, pairs: Sequence[Pair], names: Sequence[str], masks: bool = True
) -> Path:
    """A table of the true answers with these columns, and their files beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [list(names)]
    for number, (source, reference, _) in enumerate(pairs):
        true, shown = drawn(dataset, source, reference), drawn(dataset, reference, reference)
        files = {"truth": true.image[..., ::-1], "mask": true.mask * 255, "shown": shown.mask * 255}
        for name, image in files.items():
            cv2.imwrite(str(folder / f"{number}-{name}.png"), np.rint(image).astype(np.uint8))
        line = [source.path.as_posix(), reference.path.as_posix(), f"{number}-truth.png"]
        lines.append([*line, f"{number}-mask.png", f"{number}-shown.png"] if masks else line)
    table = folder / "pairs.csv"
    with table.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(lines)
    return table


@pytest.fixture(scope="module")
def pairs(birds: Dataset) -> list[Pair]:
    return pairs_of(birds, COUNT)


@pytest.fixture(scope="module")
def perfect(birds: Dataset, pairs: list[Pair], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of perfect morphs."""
    return write_morphs(tmp_path_factory.mktemp("perfect") / "perfect.h5", birds, pairs, truth_of(birds))


# ---- built-in birds


def test_perfect_morphs_have_the_measures_of_the_truth(birds: Dataset, perfect: Path, birds_judge: Path) -> None:
    found = answers(evaluate_pairs(perfect, birds, birds.root, oracle=birds_judge))
    assert found["morph"].error.value == 0
    assert replace(found["morph"], answer="truth") == found["truth"]
    assert found["truth"].pairs == COUNT
    assert found["truth"].overlap.value > 0.6


def test_copied_references_have_the_measures_of_copies(birds: Dataset, pairs: list[Pair], tmp_path: Path) -> None:
    path = write_morphs(tmp_path / "copies.h5", birds, pairs, of_reference(birds))
    found = answers(evaluate_pairs(path, birds, birds.root))
    assert values(found["morph"]) == values(found["copy of the reference"])
    assert found["morph"].error.value > 0
    assert found["morph"].overlap.value < found["truth"].overlap.value


def test_the_error_is_that_inside_the_union_of_both_masks(birds: Dataset, pairs: list[Pair], tmp_path: Path) -> None:
    """An answer that is wrong by 51 of 255 where the bird is, and by more beyond it."""
    source, reference, _ = pairs[0]
    true, shown = drawn(birds, source, reference), drawn(birds, reference, reference)
    union = (true.mask > 0.5) | (shown.mask > 0.5)
    shift = np.where(true.image > 127, -51, 51)
    wrong = np.where(union[..., None], true.image + shift, 255 - true.image).astype(np.uint8)
    path = write_morphs(tmp_path / "wrong.h5", birds, pairs[:1], lambda *pair: wrong)
    found = answers(evaluate_pairs(path, birds, birds.root))
    assert found["morph"].error.value == pytest.approx(0.2, abs=1e-6)
    assert math.isnan(found["morph"].error.error)
    grey = np.abs(true.image.astype(float) - 128)[union].mean() / 255
    assert found["plain grey"].error.value == pytest.approx(grey, abs=1e-6)
    copied = np.abs(true.image.astype(float) - decode(birds.file(source)))[union].mean() / 255
    assert found["copy of the source"].error.value == pytest.approx(copied, abs=1e-6)


def test_identity_is_the_oracle_s_accuracy_on_each_answer(birds: Dataset, perfect: Path, birds_judge: Path) -> None:
    result = evaluate_pairs(perfect, birds, birds.root, oracle=birds_judge)
    judge = Classifier.load(birds_judge)
    pairs = pairs_of(birds, COUNT)
    labels = np.array([source.label for source, _, _ in pairs])

    def recognised(images: list[np.ndarray]) -> float:
        small = np.stack([cut(i, region_of(*i.shape[:2], box=None, fit="letterbox"), judge.size) for i in images])
        return judge.accuracy(small, labels)

    found = answers(result)
    assert found["truth"].identity.value == recognised([drawn(birds, s, t).image for s, t, _ in pairs])
    assert found["copy of the source"].identity.value == recognised([decode(birds.file(s)) for s, _, _ in pairs])
    assert result.oracle == str(birds_judge)
    assert 0 <= result.oracle_accuracy <= 1


def test_a_mirrored_reference_has_a_mirrored_answer(birds: Dataset, tmp_path: Path) -> None:
    pairs = pairs_of(birds, 4, variant="mirror")
    path = write_morphs(tmp_path / "mirror.h5", birds, pairs, truth_of(birds))
    found = answers(evaluate_pairs(path, birds, birds.root))
    assert found["morph"].error.value == 0
    assert found["copy of the source"].error.value > 0


def test_a_stored_patch_is_compared_with_the_same_part_of_the_truth(birds: Dataset, tmp_path: Path) -> None:
    """The patch lies where the reference's did, by its box."""

    def patch(source: Sample, reference: Sample, variant: str) -> np.ndarray:
        image = drawn(birds, source, reference).image
        return cut(image, region_of(*image.shape[:2], box=reference.box, margin=FRAMING.margin, fit="letterbox"), 32)

    framing = FRAMING.model_dump(mode="json")
    path = write_morphs(tmp_path / "p.h5", birds, pairs_of(birds, 5), patch, frame="crop", framing=framing)
    found = answers(evaluate_pairs(path, birds, birds.root))
    assert found["morph"].error.value == 0
    assert found["copy of the reference"].error.value > 0


def test_pairs_with_a_test_image_have_a_row_of_their_own(birds: Dataset, tmp_path: Path) -> None:
    pairs = [*pairs_of(birds, 5), *pairs_of(birds, 3, split="test")]
    path = write_morphs(tmp_path / "both.h5", birds, pairs, truth_of(birds))
    scores = evaluate_pairs(path, birds, birds.root).scores
    assert {one.images: one.pairs for one in scores if one.answer == "morph"} == {"all": 8, "training": 5, "test": 3}


def test_a_table_without_answers_selects_pairs_of_birds(birds: Dataset, perfect: Path, tmp_path: Path) -> None:
    (one, other, _), *_ = pairs_of(birds, COUNT)
    table = tmp_path / "some.csv"
    table.write_text(f"source,reference\n{one.path.name},{other.path.as_posix()}\n", encoding="utf-8")
    result = evaluate_pairs(perfect, birds, table)
    assert answers(result)["morph"].pairs == 1
    assert answers(result)["morph"].error.value == 0


# ---- tables


NAMES = ("source", "reference", "truth", "truth_mask", "reference_mask")
SHORT = ("s", "t", "gt", "gt_mask", "t_mask")


@pytest.mark.parametrize("names", [NAMES, SHORT])
def test_a_table_gives_the_same_measures_as_the_birds(
    birds: Dataset, pairs: list[Pair], perfect: Path, tmp_path: Path, names: tuple[str, ...]
) -> None:
    table = write_table(tmp_path, birds, pairs, names)
    by_table, by_birds = (answers(evaluate_pairs(perfect, birds, truth)) for truth in (table, birds.root))
    for answer in ANSWERS:
        assert values(by_table[answer]) == pytest.approx(values(by_birds[answer]), abs=0.01)


def test_without_masks_whole_images_are_compared_and_overlap_is_not_measured(
    birds: Dataset, pairs: list[Pair], perfect: Path, tmp_path: Path
) -> None:
    result = evaluate_pairs(perfect, birds, write_table(tmp_path, birds, pairs, NAMES[:3], masks=False))
    found = answers(result)
    assert math.isnan(found["truth"].overlap.value)
    expected = [np.abs(drawn(birds, s, t).image - 128.0).mean() / 255 for s, t, _ in pairs]
    assert found["plain grey"].error.value == pytest.approx(np.mean(expected), abs=1e-6)
    assert any("lack a mask" in remark for remark in result.remarks)


def test_pairs_missing_in_the_file_are_reported(birds: Dataset, perfect: Path, tmp_path: Path) -> None:
    more = pairs_of(birds, COUNT + 3)
    result = evaluate_pairs(perfect, birds, write_table(tmp_path, birds, more, NAMES))
    assert f"The table has {COUNT + 3} pairs; the file has morphs of {COUNT} of them." in result.remarks
    assert answers(result)["morph"].pairs == COUNT


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "must contain the columns source and reference"),
        ("source,reference\n", "contains no pairs"),
        ("source,reference,truth\nx.png,y.png,z.png\n", "contains none of the pairs"),
        ("source,reference,truth\n{source},{reference},\n", "line 2: has no true answer"),
        ("source,reference,truth\n{source},{reference},../out.png\n", "is outside the table's folder"),
        ("source,reference,truth\n{source},{reference},none.png\n", "no such file"),
        ("source,reference,truth\n{source},{reference},small.png\n", "must have 64 × 64 pixels"),
    ],
)
def test_errors_of_a_table_are_one_line(birds: Dataset, perfect: Path, tmp_path: Path, text: str, message: str) -> None:
    (source, reference, _), *_ = pairs_of(birds, COUNT)
    cv2.imwrite(str(tmp_path / "small.png"), np.zeros((9, 9, 3), np.uint8))
    table = tmp_path / "pairs.csv"
    table.write_text(text.format(source=source.path.as_posix(), reference=reference.path.as_posix()), encoding="utf-8")
    with pytest.raises(DagaugError, match=message) as caught:
        evaluate_pairs(perfect, birds, table)
    assert "\n" not in str(caught.value)


def test_folders_without_birds_and_missing_tables_are_errors(birds: Dataset, perfect: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no built-in birds"):
        evaluate_pairs(perfect, birds, tmp_path)
    with pytest.raises(DataError, match="not a readable table"):
        evaluate_pairs(perfect, birds, tmp_path / "none.csv")


# ---- oracles


def test_an_oracle_is_trained_on_a_folder_of_the_same_classes(birds: Dataset, perfect: Path, tmp_path: Path) -> None:
    cache = tmp_path / "oracle.safetensors"
    result = evaluate_pairs(perfect, birds, birds.root, oracle_data=birds.root, steps=3, cache=cache)
    assert result.oracle.startswith("plain trained on the 24 images of ")
    assert math.isnan(result.oracle_accuracy)  # it has seen every test image
    assert 0 <= answers(result)["truth"].identity.value <= 1
    assert cache.is_file()


def test_unusable_oracles_are_refused(birds: Dataset, perfect: Path, birds_judge: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"oracle=.*: give either an oracle or the data"):
        evaluate_pairs(perfect, birds, birds.root, oracle=birds_judge, oracle_data=birds.root)
    with pytest.raises(CheckpointError):
        evaluate_pairs(perfect, birds, birds.root, oracle=tmp_path / "none.safetensors")
    other = Classifier.load(birds_judge)
    Classifier(other.network, ["a", "b", "c", "d"], other.size).save(tmp_path / "other.safetensors")
    with pytest.raises(DataError, match="an oracle must have the same classes"):
        evaluate_pairs(perfect, birds, birds.root, oracle=tmp_path / "other.safetensors")


# ---- masks


def test_a_mask_is_where_an_image_differs_from_the_background() -> None:
    background = np.full((10, 10, 3), 100, np.uint8)
    image = background.copy()
    image[2:5, 3:7, 1] += 40
    image[6, 6] += 20  # less than a tenth of the range
    expected = np.zeros((10, 10), bool)
    expected[2:5, 3:7] = True
    assert (recovered_mask(image, background) == expected).all()
