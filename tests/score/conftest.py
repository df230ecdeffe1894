"""A small data set, an HDF5 file and a finished score that the tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from making_score_data import OPTIONS, write_data, write_store

from dagaug.data.dataset_records import Dataset
from dagaug.score.experiment import score
from dagaug.score.results import ScoreResult


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def small(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, ScoreResult]:
    """An HDF5 file, the run log of its score, and the result."""
    folder = tmp_path_factory.mktemp("score")
    path = write_store(folder / "s.h5", data)
    torch.set_num_threads(1)
    return path, folder / "runs.jsonl", score(data, path, OPTIONS, resume=folder / "runs.jsonl")
