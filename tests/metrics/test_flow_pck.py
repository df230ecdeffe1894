"""PCK of the flow on the built-in birds, whose parts are known exactly."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from making_masks import write_masks
from making_networks import saved
from making_runs import dagaug

from dagaug.data.dataset_records import Dataset
from dagaug.data.mask_files import find_masks
from dagaug.data.object_patches import Framing, read_patches
from dagaug.metrics.flow_pck import measure_flow, part_positions
from dagaug.model.frozen_readings import FrozenReader
from dagaug.model.trained_model import TrainedModel, load_model
from dagaug.model.training_free_checkpoint import fit_training_free
from dagaug.runtime.errors import DataError
from dagaug.runtime.execution_settings import Execution

CPU = Execution(device="cpu")


@pytest.fixture(scope="module")
def model(birds_run: Path) -> TrainedModel:
    return load_model(birds_run)


def test_parts_lie_in_the_patches_where_the_regions_say(birds: Dataset) -> None:
    patches = read_patches(birds, birds.train, Framing(size=64), execution=CPU)
    positions, visible = part_positions(patches)
    left, top, side = patches.regions[0].pixels()
    number, x, y = patches.samples[0].parts[0]
    numbers = sorted({part[0] for sample in patches.samples for part in sample.parts})
    assert positions[0, numbers.index(number)] == pytest.approx([(x - left) / side, (y - top) / side])
    assert visible.any(1).all()


def test_the_measure_counts_all_visible_parts_of_the_pairs(birds: Dataset, model: TrainedModel) -> None:
    found = measure_flow(model, birds, pairs=6, execution=CPU)
    assert found.pairs == 6
    assert found.parts >= 3 * 6
    assert found.images == len(birds.test)
    assert found.split == "test"
    assert 0 <= found.pck_fine <= found.pck <= 1
    assert 0 <= found.inside <= 1
    assert 0 < found.area < 1
    assert found == measure_flow(model, birds, pairs=6, execution=CPU)


def test_leaving_parts_in_place_is_measured_beside(birds: Dataset, model: TrainedModel) -> None:
    """Two copies of one image have all their parts in the same places."""
    one = next(sample for sample in birds.samples if len(sample.parts) >= 3)
    twice = (replace(one, split="test"), replace(one, split="test"))
    found = measure_flow(model, replace(birds, samples=twice), pairs=2, execution=CPU)
    assert found.in_place == 1


def test_given_masks_are_those_that_are_measured(birds: Dataset, model: TrainedModel, tmp_path: Path) -> None:
    masked = find_masks(birds, write_masks(birds, tmp_path))
    found = measure_flow(model, masked, pairs=6, execution=CPU)
    masks = read_patches(masked, masked.test, model.card.framing, masks=True, execution=CPU).masks
    assert found.area == pytest.approx(np.mean([mask > 127 for mask in masks if mask is not None]))
    assert found.area != measure_flow(model, birds, pairs=6, execution=CPU).area


def test_frozen_features_and_masks_of_each_image_are_read_once(
    birds: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path / "network", "test_vit", patch_size=14, img_size=112, dynamic_img_size=False)
    frozen = fit_training_free(birds, tmp_path, name="b", features=f"local-dir:{tmp_path / 'network'}", size=64)
    computed, read = FrozenReader._computed, list[np.ndarray]()

    def counted(self: FrozenReader, patch: np.ndarray, box: object) -> object:
        read.append(patch)
        return computed(self, patch, box)  # type: ignore[arg-type]

    monkeypatch.setattr(FrozenReader, "_computed", counted)
    plain = measure_flow(frozen, birds, pairs=6, execution=CPU)
    assert len(read) == len(birds.test)
    cached = replace(CPU, cache=tmp_path / "cache")
    assert measure_flow(frozen, birds, pairs=6, execution=cached) == plain
    assert len(read) == 2 * len(birds.test)
    assert measure_flow(frozen, birds, pairs=6, execution=cached) == plain
    assert len(read) == 2 * len(birds.test)


def test_data_without_parts_are_refused(birds: Dataset, model: TrainedModel) -> None:
    bare = replace(birds, samples=tuple(replace(sample, parts=()) for sample in birds.samples))
    with pytest.raises(DataError, match=r"has no part points \(parts/part_locs.txt\) in its test images"):
        measure_flow(model, bare, execution=CPU)


def test_the_command_prints_the_measure(birds_folder: Path, birds_run: Path) -> None:
    done = dagaug("metrics", birds_run, birds_folder, "--parts", "--device", "cpu", "--json")
    assert done.code == 0
    assert json.loads(done.out)["images"] == 8
    refused = dagaug("metrics", birds_run, "--parts")
    assert refused.code == 2
    assert "--parts: needs the data folder" in refused.err


def test_the_command_takes_masks_for_parts_only(
    birds: Dataset, birds_folder: Path, birds_run: Path, tmp_path: Path
) -> None:
    folder = write_masks(birds, tmp_path / "masks")
    done = dagaug("metrics", birds_run, birds_folder, "--parts", "--masks", folder, "--device", "cpu")
    assert done.code == 0
    assert f"Masks of 24 of 24 images: {folder}" in done.err
    refused = dagaug("metrics", birds_run, "--masks", folder)
    assert refused.code == 2
    assert refused.err.strip().endswith("used only for annotated parts; try --parts")


def test_a_training_ends_with_the_measure_of_its_flow_and_a_picture(birds_folder: Path, tmp_path: Path) -> None:
    few = ("--steps", 3, "--batch-size", 4, "--size", 32, "--device", "cpu")
    done = dagaug("train", birds_folder, *few, "--out", tmp_path / "run")
    assert done.code == 0
    assert "of the annotated parts are found within a tenth of the box" in " ".join(done.out.split())
    assert (tmp_path / "run" / "flow.png").stat().st_size > 1000
