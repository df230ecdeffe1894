"""A small demo: it runs all steps, prints the table, writes the report, and resumes after a stop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from making_runs import PER_CLASS, SPECIES, TEST_PER_CLASS, Output, dagaug, interrupt_at_step, quick

from dagaug import demo
from dagaug.birds import dataset
from dagaug.hdf5.reader import Store
from dagaug.hdf5.verify import verify
from dagaug.model.trained_model import load_model
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.progress import SILENT
from dagaug.runtime.signals import Interrupted
from dagaug.training.options import TrainOptions

MADE = {".dagaug-demo", "birds", "run", "augmented.h5", "score.json", "score.jsonl", "morphs.png", "report.html"}


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    """Few birds, small patches, few pairs a step; the steps are the demo's own option."""

    def write_flock(folder: Path, *, seed: int, progress: Any = SILENT) -> None:
        dataset.write_flock(
            folder, species=SPECIES, per_class=PER_CLASS, test_per_class=TEST_PER_CLASS, size=32, seed=seed,
            progress=progress,
        )  # fmt: skip

    def small_options(**changes: Any) -> TrainOptions:
        return TrainOptions(framing={"size": 32}, batch_size=4, **changes)

    with quick() as patch:
        patch.setattr(demo, "write_flock", write_flock)
        patch.setattr(demo, "TrainOptions", small_options)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "out"


@pytest.fixture(scope="module")
def shown(folder: Path) -> Output:
    return dagaug("demo", "--out", folder, "--steps", 3, "--refs", 4, "--seeds", 2, "--device", "cpu")


def test_the_demo_ends_with_the_gain_it_measured_and_where_to_look(shown: Output, folder: Path) -> None:
    assert shown.code == 0, shown.err
    for word in (*demo.SCORE_ARMS, "95% interval", "p = ", "candidates kept", "8 test images, 4 classes"):
        assert word in shown.out
    assert f"Report: {folder / 'report.html'}" in shown.out
    assert f"Next: open {folder / 'report.html'}" in shown.out


def test_it_leaves_data_run_file_score_sheet_and_report(shown: Output, folder: Path) -> None:
    assert shown.code == 0
    assert {path.name for path in folder.iterdir()} == MADE
    verify(folder / "augmented.h5")
    assert load_model(folder / "run").card.steps == 3
    assert (folder / "morphs.png").read_bytes().startswith(b"\x89PNG")
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "real+dagaug" in page
    with Store(folder / "augmented.h5") as store:
        assert len(store.candidates) == SPECIES * PER_CLASS * 4 * 2


def test_the_same_demo_again_trains_nothing_twice_and_gives_the_same(shown: Output, folder: Path) -> None:
    del shown
    before = (folder / "augmented.h5").read_bytes()
    model = (folder / "run" / "model.safetensors").stat()
    again = dagaug("demo", "--out", folder, "--steps", 3, "--refs", 4, "--seeds", 2, "--device", "cpu", "--json")
    assert again.code == 0, again.err
    assert again.json["report"] == str(folder / "report.html")
    assert [arm["arm"] for arm in again.json["score"]["arms"]] == list(demo.SCORE_ARMS)
    assert (folder / "augmented.h5").read_bytes() == before
    assert (folder / "run" / "model.safetensors").stat() == model


@pytest.mark.slow
def test_a_stopped_demo_resumes(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        demo.run_demo(
            tmp_path / "d", steps=2, refs=1, seeds=2, execution=Execution("cpu", progress=interrupt_at_step(1))
        )
    done = demo.run_demo(tmp_path / "d", steps=2, refs=1, seeds=2, execution=Execution("cpu"))
    assert done.trained.resumed_at == 1
    assert {path.name for path in (tmp_path / "d").iterdir()} == MADE
