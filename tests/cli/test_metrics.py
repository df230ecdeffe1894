"""The command ``dagaug metrics``: table, sentences, JSON, wrong options."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from making_morphs import pairs_of, write_morphs
from making_runs import dagaug

from dagaug.birds.dataset import true_morph
from dagaug.data.dataset_records import Dataset, Sample
from dagaug.data.image_files import decode
from dagaug.metrics.answer_comparison import ANSWERS


@pytest.fixture(scope="module")
def copies(birds: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training images themselves, stored as synthetic ones."""
    pairs = [(one, birds.train[0], "morph") for one in birds.train]
    target = tmp_path_factory.mktemp("copies") / "copies.h5"
    return write_morphs(target, birds, pairs, lambda source, reference, variant: decode(birds.file(source)))


@pytest.fixture(scope="module")
def perfect(birds: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of perfect morphs."""

    def true_answer(source: Sample, reference: Sample, variant: str) -> np.ndarray:
        return true_morph(birds.root, source.path, reference.path).image

    return write_morphs(tmp_path_factory.mktemp("perfect") / "perfect.h5", birds, pairs_of(birds, 6), true_answer)


@pytest.mark.usefixtures("quickly")
def test_the_command_prints_a_table_and_plain_sentences(copies: Path) -> None:
    output = dagaug("metrics", copies, "--steps", 3, "--device", "cpu")
    assert output.code == 0, output.err
    for words in ("top-1 accuracy", "inception score", "missing classes", "FID against test", "coverage"):
        assert words in output.out
    assert "FID is biased upwards" in output.out


def test_the_command_prints_json_alone(copies: Path, birds_folder: Path) -> None:
    output = dagaug("metrics", copies, birds_folder, "--steps", 3, "--device", "cpu", "--json")
    assert output.code == 0, output.err
    assert output.json["classes"] == 4
    assert [one["images"] for one in output.json["judged"]] == ["synthetic", "test", "training"]
    assert output.json["judged"][0]["diversity"] is None
    assert output.json["attended"] is None


def test_an_oracle_without_pairs_is_a_usage_error(copies: Path) -> None:
    output = dagaug("metrics", copies, "--oracle", copies)
    assert (output.code, output.out) == (2, "")
    assert "used only with known pairs; try --pairs" in output.err


def test_the_command_stands_in_the_readme() -> None:
    readme = Path(__file__).resolve().parents[2] / "README.md"
    (row,) = [line for line in readme.read_text(encoding="utf-8").splitlines() if line.startswith("| `dagaug metrics")]
    for word in ("FILE.h5", "inception score", "FID", "KID", "precision", "recall", "density", "coverage", "--pairs"):
        assert word in row


def test_the_command_prints_a_row_for_each_answer(perfect: Path, birds_folder: Path, birds_judge: Path) -> None:
    output = dagaug("metrics", perfect, birds_folder, "--pairs", birds_folder, "--oracle", birds_judge)
    assert output.code == 0, output.err
    for answer in ANSWERS:
        assert answer in output.out
    assert "plain grey" in output.out
    assert "The file holds no masks" in output.out


def test_the_comparison_with_true_answers_is_json_alone(perfect: Path, birds_folder: Path) -> None:
    output = dagaug("metrics", perfect, birds_folder, "--pairs", birds_folder, "--json")
    assert output.code == 0, output.err
    scores = {one["answer"]: one for one in output.json["scores"]}
    assert scores["morph"]["error"] == {"value": 0.0, "error": 0.0}
    assert scores["morph"]["identity"]["value"] is None
    assert output.json["oracle_accuracy"] is None
