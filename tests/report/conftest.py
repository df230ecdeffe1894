"""One HDF5 file and its page, shared by the tests of the report."""

from __future__ import annotations

from pathlib import Path

import pytest
from making_reports import a_cloud, write_run, write_score, write_store
from reading_pages import Document

from dagaug.report.write import write_report


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("store") / "birds.h5")


@pytest.fixture(scope="session")
def document(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Document:
    folder = tmp_path_factory.mktemp("report")
    out = folder / "report.html"
    run, score = write_run(folder / "run"), write_score(folder / "score.json")
    write_report(store, out, run=run, score=score, cloud=a_cloud(store))
    assert not list(folder.glob("*.tmp"))
    return Document(out)
