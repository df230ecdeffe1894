"""Reports and sheets as files: reproducible, and not written at errors."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from making_reports import a_cloud, write_run
from reading_pages import Document, assert_self_contained

from dagaug.hdf5.reader import Store
from dagaug.report.morph_images import MorphTable, sample_of_each_class
from dagaug.report.write import sheet_of_store, write_report, write_run_report
from dagaug.runtime.errors import DataError, StoreError


def test_equal_inputs_give_equal_pages(store: Path, tmp_path: Path) -> None:
    write_report(store, tmp_path / "a.html", cloud=a_cloud(store))
    write_report(store, tmp_path / "b.html", cloud=a_cloud(store))
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert "Not measured yet" in (tmp_path / "a.html").read_text()


def test_run_report_shows_the_run_alone(tmp_path: Path) -> None:
    write_run_report(write_run(tmp_path / "my <run>"), tmp_path / "run.html")
    found = Document(tmp_path / "run.html")
    assert_self_contained(found)
    assert "my <run>" in found.text
    assert hashlib.sha256(b"weights").hexdigest() in found.text
    assert not found.named("form")
    assert not found.script


def test_empty_run_makes_a_page(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    write_run_report(tmp_path / "run", tmp_path / "run.html")
    assert "Unfinished" in (tmp_path / "run.html").read_text()


def test_missing_and_broken_inputs_are_errors_and_nothing_is_written(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    with pytest.raises(StoreError, match=r"missing\.h5"):
        write_report(tmp_path / "missing.h5", out)
    with pytest.raises(DataError, match="no such run"):
        write_report(store, out, run=tmp_path / "missing")
    with pytest.raises(DataError, match=r"missing\.json: cannot be read"):
        write_report(store, out, score=tmp_path / "missing.json")
    (tmp_path / "odd.json").write_text('{"arms": 3}')
    with pytest.raises(DataError, match=r"odd\.json: not a score \(arms"):
        write_report(store, out, score=tmp_path / "odd.json")
    run = write_run(tmp_path / "run")
    (run / "options.json").write_text("{")
    with pytest.raises(DataError, match=r"options\.json"):
        write_run_report(run, out)
    (run / "attention.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"attention\.png"):
        write_run_report(run, out)
    assert not out.exists()
    with pytest.raises(DataError, match="cannot be written"):
        write_report(store, tmp_path / "nowhere" / "report.html")
    with pytest.raises(DataError, match="cannot be written"):
        sheet_of_store(store, tmp_path / "nowhere" / "sheet.png")


def test_sheet_of_store_spreads_over_classes_and_is_reproducible(store: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        sheet_of_store(store, tmp_path / f"{name}.png", rows=6, seed=seed)
    contents = [(tmp_path / f"{name}.png").read_bytes() for name in "abc"]
    assert contents[0] == contents[1] != contents[2]
    with Store(store) as opened:
        morphs = MorphTable.of(opened)
    kept = np.flatnonzero(morphs.kept)
    assert len(kept) == 15
    drawn = sample_of_each_class(morphs, kept, 6, seed=0)
    assert np.bincount(morphs.label[drawn]).tolist() == [2, 2, 2]
    assert morphs.kept[drawn].all()
