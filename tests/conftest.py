"""What all tests share: run-time shape checks, the slow mark, quiet libraries."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import pytest
import torch
from jaxtyping import install_import_hook

if TYPE_CHECKING:
    from dagaug.data.dataset_records import Dataset

# Every module of the package imported after this line has its jaxtyping shapes checked at run time; but not where
# times are measured.
if "--benchmark-only" not in sys.argv:
    _hook = install_import_hook("dagaug", "beartype.beartype")

torch.set_num_threads(1)  # two threads on two busy cores wait for each other


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--runslow", action="store_true", help="also run trainings of a minute and more")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if "slow" in item.keywords and not config.getoption("--runslow"):
            item.add_marker(pytest.mark.skip(reason="needs --runslow"))
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))


@pytest.fixture(scope="session", autouse=True)
def _cache_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Commands keep masks and features in a folder of the session, not below the folder where the tests are started."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        for command in ("augment", "metrics", "score", "train"):
            patch.setattr(f"dagaug.cli.{command}.CACHE", folder)
        yield


# ---- the small world of training, augmenting and the commands (see making_runs.py)


@pytest.fixture(scope="session")
def birds_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built-in birds: 4 species, 4 training and 2 test images each, 64 px."""
    from making_runs import PER_CLASS, SPECIES, TEST_PER_CLASS

    from dagaug.birds.dataset import write_flock

    folder = tmp_path_factory.mktemp("data") / "birds"
    write_flock(folder, species=SPECIES, per_class=PER_CLASS, test_per_class=TEST_PER_CLASS, size=64)
    return folder


@pytest.fixture(scope="session")
def birds(birds_folder: Path) -> Dataset:
    """Those birds as a data set."""
    from dagaug.data.layouts import read_dataset

    return read_dataset(birds_folder)


@pytest.fixture(scope="session")
def birds_run(birds: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training of a few steps on them; nobody writes here."""
    from making_runs import quick, train_small

    run = tmp_path_factory.mktemp("trained") / "run"
    with quick():
        train_small(birds, run)
    return run


@pytest.fixture(scope="session")
def birds_judge(birds: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of a classifier of these birds that is ready to judge."""
    from making_runs import write_judge

    path = tmp_path_factory.mktemp("judge") / "judge.safetensors"
    write_judge(birds, path)
    return path


@pytest.fixture
def quickly() -> Iterator[None]:
    """The trainings of this test do without what only makes them better."""
    from making_runs import quick

    with quick():
        yield
