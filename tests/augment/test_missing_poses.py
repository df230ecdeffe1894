"""References for missing poses: what a pose is, what is drawn, and that a run's plan is always the same."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from making_augmentations import REFS, kill_at_shard, run
from making_runs import TRAINING_IMAGES, Killed, Listener

from dagaug.augment.cost_estimate import estimate
from dagaug.augment.missing_poses import KeyGrids, MissingPoses, find_poses
from dagaug.augment.options import AugmentOptions
from dagaug.augment.prepared_augmentation import Job
from dagaug.data.dataset_records import Dataset
from dagaug.hdf5.reader import Store
from dagaug.model.trained_model import TrainedModel
from dagaug.runtime.errors import UsageError
from dagaug.runtime.execution_settings import Execution

GRID = 16
LEFT, MIDDLE, RIGHT = ((8, 2), (8, 5)), ((8, 6), (8, 9)), ((8, 10), (8, 13))
"""Cells (row, column) of head and tail of an animal that looks to the left."""


def animals(*places: tuple[tuple[int, int], tuple[int, int]]) -> KeyGrids:
    """Images of animals with a head and a tail of three by three cells each."""
    keys = np.zeros((len(places), 2, 3, GRID, GRID), np.int8)
    weight = np.zeros((len(places), 2, GRID, GRID), np.uint8)
    keys[:, :, 2] = 127
    for image, parts in enumerate(places):
        for part, (y, x) in enumerate(parts):
            for orientation, column in enumerate((x, GRID - 1 - x)):
                cells = image, orientation, ..., slice(y - 1, y + 2), slice(column - 1, column + 2)
                keys[cells] = 0
                keys[image, orientation, part, y - 1 : y + 2, column - 1 : column + 2] = 127
                weight[image, orientation, y - 1 : y + 2, column - 1 : column + 2] = 255
    return KeyGrids(keys, weight)


def test_a_pose_is_how_far_its_parts_are_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dagaug.augment.missing_poses._PARTS", 2)
    poses = find_poses(animals(LEFT, MIDDLE, ((8, 6), (12, 9))))
    np.testing.assert_allclose(poses.area, 0.5)
    found = poses.distances(np.array([0]))
    # four cells of sixteen to the right; one part of two also four cells down
    np.testing.assert_allclose(found, [0, 4 / 16, np.sqrt((16 + 32) / 2) / 16], atol=1e-6)
    assert poses.distances(np.array([0, 1])).tolist() == pytest.approx([0, 0, np.sqrt(16 / 2) / 16])


def test_a_class_has_the_mirrored_poses_of_its_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dagaug.augment.missing_poses._PARTS", 2)
    mirrored = tuple((y, GRID - 1 - x) for y, x in LEFT)
    assert find_poses(animals(LEFT, mirrored)).distances(np.array([0])).tolist() == [0, 0]  # type: ignore[arg-type]


def test_images_without_an_object_are_no_error() -> None:
    grids = animals(LEFT, RIGHT)
    nothing = KeyGrids(grids.keys, np.zeros_like(grids.weight))
    assert find_poses(nothing).distances(np.array([0])).tolist() == [0, 0]


def test_far_poses_are_drawn_more_often_and_the_own_class_last() -> None:
    near = ((8, 3), (8, 6))
    grids = animals(LEFT, LEFT, LEFT, near, near, near, RIGHT, MIDDLE)
    poses = MissingPoses(grids, np.array([0, 0, 0, 1, 1, 1, 1, 1]))
    random = np.random.default_rng(0)
    drawn = [poses.draw(0, 2, random.random(8)) for _ in range(100)]
    assert all(len(set(found)) == 2 and 0 not in found for found in drawn)
    counts = Counter(row for found in drawn for row in found)
    assert counts[1] == counts[2] == 0
    assert min(counts[6], counts[7]) > max(counts[3], counts[4], counts[5])
    assert sorted(poses.draw(0, 7, random.random(8))) == [1, 2, 3, 4, 5, 6, 7]  # where nothing else is left


def test_of_those_drawn_the_ones_that_correspond_best_are_taken() -> None:
    grids = animals(LEFT, MIDDLE, RIGHT)
    grids.keys[1, 0] = np.roll(grids.keys[1, 0], 1, 0)  # its parts are none of the source's
    poses = MissingPoses(grids, np.array([0, 1, 1]))
    assert all(poses.draw(0, 1, luck) == [2] for luck in np.random.default_rng(1).random((20, 3)))


@pytest.fixture
def missing(judged: AugmentOptions) -> AugmentOptions:
    return judged.model_copy(update={"references": "missing-poses", "min_confidence": 0.0, "frame": "crop"})


def pairs(job: Job) -> list[tuple[int, int]]:
    return list(zip(job.plan.source.tolist(), job.plan.reference.tolist(), strict=True))


@pytest.mark.parametrize("kind", ["frozen", "model"])
def test_the_plan_follows_from_data_and_seed(
    kind: str, birds: Dataset, missing: AugmentOptions, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    model: TrainedModel = request.getfixturevalue(kind)
    said = Listener()
    first = Job(model, birds, missing, execution=Execution("cpu", 1, progress=said, cache=tmp_path / "cache"))
    second = Job(model, birds, missing, execution=Execution("cpu", 4, cache=tmp_path / "cache"))
    assert pairs(first) == pairs(second)
    assert len(set(pairs(first))) == TRAINING_IMAGES * REFS
    assert all(source != reference for source, reference in pairs(first))
    labels = first.patches.labels
    assert (labels[first.plan.source] != labels[first.plan.reference]).all()
    other = missing.model_copy(update={"seed": 1})
    assert pairs(Job(model, birds, other, execution=Execution("cpu", cache=tmp_path / "cache"))) != pairs(first)
    few = missing.model_copy(update={"limit": 3})
    some = pairs(Job(model, birds, few, execution=Execution("cpu", cache=tmp_path / "cache")))
    assert set(some) < set(pairs(first))
    (line,) = [line for line in said.lines if line.startswith("References with missing poses: parts are ")]
    chosen, random = (float(part.split("%")[0].split()[-1]) for part in line.split(";"))
    assert chosen > random


def test_a_killed_run_ends_with_the_bytes_of_an_undisturbed_one(
    model: TrainedModel, birds: Dataset, missing: AugmentOptions, tmp_path: Path
) -> None:
    straight, killed = tmp_path / "straight.h5", tmp_path / "killed.h5"
    options = missing.model_copy(update={"limit": 6, "refs": 1, "variants": ("morph",), "real": False})
    run(model, birds, options, straight)
    with pytest.MonkeyPatch.context() as patch:
        kill_at_shard(patch, 1)
        with pytest.raises(Killed):
            run(model, birds, options, killed)
    done = run(model, birds, options, killed)
    assert killed.read_bytes() == straight.read_bytes()
    assert done.candidates == 6
    with Store(straight) as store:
        assert store.header.options["references"] == "missing-poses"


def test_an_estimate_reads_no_poses(
    model: TrainedModel, birds: Dataset, missing: AugmentOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dagaug.augment.prepared_augmentation.read_key_grids", None)
    assert estimate(model, birds, missing, tmp_path / "a.h5", execution=Execution("cpu")).sources == TRAINING_IMAGES


def test_pairs_leave_no_choice(birds: Dataset, model: TrainedModel, missing: AugmentOptions, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"references=missing-poses: has no effect on a file of pairs"):
        Job(model, birds, missing.model_copy(update={"pairs": tmp_path / "pairs.csv"}))
    with pytest.raises(UsageError, match=f"only {TRAINING_IMAGES - 1} other training images"):
        Job(model, birds, missing.model_copy(update={"refs": TRAINING_IMAGES}))
