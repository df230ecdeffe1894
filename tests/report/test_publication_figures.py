"""Figures for a paper: list of figures, reproducible bytes, embedded fonts."""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from making_reports import a_cloud, write_run, write_store
from making_scores import SCORE, a_score

from dagaug.report.loss_curves import Metrics
from dagaug.report.publication_figures import (
    FIGURE_FORMATS,
    FigureFormat,
    cloud_figure,
    picture_figure,
    score_figures,
    training_figure,
)
from dagaug.report.scatter import scatter
from dagaug.report.write import write_figures
from dagaug.runtime.errors import DataError

HOSTILE = "$x^{2$ \\frac <b> \u202e" + "w" * 5000


def contents(pdf: bytes) -> str:
    """All streams of a PDF, unpacked."""
    found = []
    for packed in re.findall(rb"stream\r?\n(.*?)endstream", pdf, re.DOTALL):
        try:
            found.append(zlib.decompress(packed).decode("latin-1"))
        except zlib.error:
            found.append("")
    return "".join(found)


def test_pdfs_are_vectors_with_embedded_fonts_and_the_same_each_time() -> None:
    first, second = (dict(score_figures(a_score(), "pdf")) for _ in range(2))
    assert list(first) == ["accuracy", "differences", "classes", "fractions"]
    assert first == second
    for pdf in first.values():
        assert pdf.startswith(b"%PDF-")
        assert b"/FontFile2" in pdf  # TrueType, embedded
        assert b"/Type3" not in pdf
        assert b"/Subtype /Image" not in pdf
        assert b"/CreationDate" not in pdf
        assert len(re.findall(r" [lc]\n", contents(pdf))) > 20  # lines are drawn


def test_figures_are_those_that_there_are_numbers_for() -> None:
    ratio = {"share": 0.5, "accuracy": {"mean": 0.6, "low": 0.5, "high": 0.7},
             "difference": {"mean": 0.1, "low": 0.0, "high": 0.2}}  # fmt: skip
    assert "ratios" in dict(score_figures(a_score(ratios=[ratio, ratio | {"share": 0.7}]), "png"))
    assert list(dict(score_figures(a_score(comparisons=[], fractions=[]), "png"))) == ["accuracy"]
    assert training_figure(Metrics({}, 0), "pdf") is None


def test_names_may_be_anything() -> None:
    score = json.loads(json.dumps(SCORE))
    score["arms"].append(score["arms"][1] | {"arm": HOSTILE})
    for one in score["comparisons"]:
        one["classes"][0]["name"] = HOSTILE
    score["comparisons"].append(score["comparisons"][1] | {"arm": HOSTILE})
    metrics = Metrics({HOSTILE: (np.arange(1.0, 5.0), np.arange(4.0))}, 0)
    figures = dict(score_figures(a_score(**score), "png"))
    training = training_figure(metrics, "png")
    assert training is not None
    for png in (*figures.values(), training):
        picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        assert picture.shape[1] < 300 * 12  # long names are shortened
        assert (picture != 255).any()


def test_a_cloud_is_drawn_with_every_name_whatever_it_is() -> None:
    names = [HOSTILE, "Wren", "Finch", "Jay"]
    points, rows = np.random.default_rng(0).random((40, 2)), np.arange(40)
    drawn = scatter(points, rows % 3, rows % 4, ["synthetic", "real training", "real test"], names)
    first, second = (cloud_figure(drawn, "pdf") for _ in range(2))
    assert first == second
    assert b"/Subtype /Image" not in first  # vectors
    picture = cv2.imdecode(np.frombuffer(cloud_figure(drawn, "png"), np.uint8), cv2.IMREAD_COLOR)
    assert max(picture.shape) < 300 * 9
    without = scatter(points, rows % 2, rows % 4, ["synthetic", "real training", "real test"], names)
    assert cloud_figure(without, "png") != cloud_figure(drawn, "png")


@pytest.mark.parametrize("form", FIGURE_FORMATS)
def test_a_sheet_keeps_its_pixels(form: FigureFormat) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 70, 3), dtype=np.uint8)
    content = picture_figure(pixels, form)
    if form == "png":
        assert cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR).shape == (1200, 2100, 3)
    else:
        assert b"/Width 70" in content
        assert b"/Height 40" in content


def test_every_plot_goes_to_a_file_of_the_folder(tmp_path: Path) -> None:
    store, run = write_store(tmp_path / "birds.h5"), write_run(tmp_path / "run")
    (tmp_path / "score.json").write_text(json.dumps(SCORE))
    score, cloud = tmp_path / "score.json", a_cloud(store)
    files = write_figures(store, tmp_path / "a" / "figures", "png", run=run, score=score, cloud=cloud)
    names = [file.name for file in files]
    of_score = ["accuracy.png", "differences.png", "classes.png", "fractions.png"]
    assert names == [*of_score, "morphs.png", "cloud.png", "training.png"]
    assert sorted(path.name for path in (tmp_path / "a" / "figures").iterdir()) == sorted(names)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be created"):
        write_figures(store, tmp_path / "file" / "figures", "png")


def test_the_command_makes_figures_of_a_file_and_not_of_a_folder(tmp_path: Path) -> None:
    from making_runs import dagaug

    store = write_store(tmp_path / "birds.h5")
    (tmp_path / "birds-score.json").write_text(json.dumps(SCORE))
    done = dagaug("show", store, "--format", "pdf", "--json")
    assert done.code == 0, done.err
    assert {Path(name).name for name in done.json["figures"]} >= {"accuracy.pdf", "morphs.pdf"}
    assert all(Path(name).parent == tmp_path / "birds-figures" for name in done.json["figures"])
    refused = dagaug("show", write_run(tmp_path / "run"), "--format", "png")
    assert refused.code == 2
    assert "--format png" in refused.err
