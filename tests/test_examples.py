"""The selection rules of examples/selection.py, and a short run of examples/photos.py."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

SOURCES, EACH, CLASSES = 12, 8, 3


@pytest.fixture(scope="module")
def selection() -> ModuleType:
    path = Path(__file__).resolve().parents[1] / "examples" / "selection.py"
    spec = importlib.util.spec_from_file_location("selection_example", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pool(selection: ModuleType) -> object:
    """Two candidates of each of four references of each source; a fifth is taken for another class."""
    rng = np.random.default_rng(0)
    rows = np.arange(SOURCES * EACH)
    source = rows // EACH
    label = source % CLASSES
    predicted = np.where(rng.random(len(rows)) < 0.2, (label + 1) % CLASSES, label)
    return selection.Pool(
        source, rows // 2 % 4, label, predicted, rng.random(len(rows)), rng.random((len(rows), 12), np.float32)
    )


@pytest.mark.parametrize(
    "name",
    ["random", "recognised", "per-reference", "per-image", "sure", "middle", "unsure", "balanced", "diverse"],
)
def test_every_rule_takes_as_many_different_candidates(selection: ModuleType, pool: object, name: str) -> None:
    rows, again = (selection.POLICIES[name](pool, 15, np.random.default_rng(3)) for _ in range(2))
    assert len(set(rows.tolist())) == len(rows) == 15
    assert set(rows.tolist()) <= set(range(SOURCES * EACH))
    np.testing.assert_array_equal(rows, again)


def test_rules_take_what_they_say(selection: ModuleType, pool: object) -> None:
    chosen = {name: rule(pool, SOURCES, np.random.default_rng(1)) for name, rule in selection.POLICIES.items()}
    confidence, source = pool.confidence, pool.source  # type: ignore[attr-defined]
    label, predicted = pool.label, pool.predicted  # type: ignore[attr-defined]
    best = confidence.reshape(SOURCES, EACH).max(1)
    np.testing.assert_array_equal(np.sort(confidence[chosen["per-image"]]), np.sort(best))
    assert len(set(source[chosen["per-image"]])) == SOURCES
    pairs = confidence.reshape(SOURCES, 4, 2).max(2)
    assert set(confidence[chosen["per-reference"]]) <= set(pairs.ravel())
    assert confidence[chosen["unsure"]].max() < confidence[chosen["middle"]].min()
    assert confidence[chosen["middle"]].max() < confidence[chosen["sure"]].min()
    for name in ("recognised", "balanced", "diverse"):
        assert (predicted[chosen[name]] == label[chosen[name]]).all()
    for name in ("balanced", "diverse"):
        assert np.bincount(label[chosen[name]]).tolist() == [SOURCES // CLASSES] * CLASSES


def test_the_least_alike_come_first(selection: ModuleType, pool: object) -> None:
    looks = pool.looks.copy()  # type: ignore[attr-defined]
    looks[:] = 0
    looks[[5, 9]] = [[1], [2]]
    flat = selection.Pool(
        *(getattr(pool, name) for name in ("source", "reference", "label", "predicted", "confidence")), looks
    )
    taken = selection.farthest_first(flat, np.arange(20), 3, np.random.default_rng(0))
    assert {5, 9} <= set(taken.tolist())


@pytest.mark.slow
def test_photos_ends_in_both_tables_and_resumes_at_once(birds_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [
        sys.executable, Path(__file__).resolve().parents[1] / "examples" / "photos.py", birds_folder, "--out", out,
        "--checkpoint", "frozen", "--folds", "2", "--per-class", "2", "--refs", "2", "--seeds", "2", "--size", "32",
        "--score-steps", "2", "--classifier=--classifier test_resnet", "--augment=--size 64",
    ]  # fmt: skip
    printed, again = (
        subprocess.run([*map(str, command)], check=True, capture_output=True, text=True, cwd=tmp_path).stdout
        for _ in range(2)
    )
    assert printed == again
    assert printed.strip() == (out / "photos.md").read_text(encoding="utf-8").strip()
    rows = [line.split(" | ")[0] for line in printed.splitlines() if line.startswith("| ")]
    arms = ("real", "cutmix", "mixup", "real+dagaug", "cutout", "cutwarp")
    assert [row for row in rows if row[2:] in arms] == [f"| {arm}" for arm in arms]
    assert "| parts found (PCK@0.1)" in rows
    assert (out / "fold1" / "sheet.png").exists()
