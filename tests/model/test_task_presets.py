"""The presets against what the paper fixes."""

from __future__ import annotations

import pytest

from dagaug.model.task_presets import PRESETS

PAPER = sorted(name for name, preset in PRESETS.items() if preset.mode == "paper")


@pytest.mark.parametrize("name", PAPER)
def test_presets_of_the_paper_have_its_optimiser_and_batch(name: str) -> None:
    """Sec. 3.4: Adam, batch size 64, learning rate 0.0002."""
    assert (PRESETS[name].batch_size, PRESETS[name].learning_rate) == (64, 2e-4)


@pytest.mark.parametrize(
    ("name", "regions", "distance"),
    [
        ("digits", 1, "resblock"),
        ("birds", 4, "vgg"),
        ("faces", 4, "inception"),
        ("skeletons", 4, "vgg"),
        ("facades", 4, "l2"),
        ("colorization", 1, "resblock"),
    ],
)
def test_table_4_s_tasks_have_its_number_of_regions_and_its_distance(name: str, regions: int, distance: str) -> None:
    assert PRESETS[name].attention.regions == regions
    assert PRESETS[name].distance.removeprefix("timm:").startswith(distance)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_s_regions_reach_into_the_image(name: str) -> None:
    attention = PRESETS[name].attention
    assert attention.regions >= 1
    assert 0 < attention.half_size <= 1
    assert attention.sharpness * attention.half_size > 4  # the middle of a region is nearly 1: tanh(2)² > 0.9


def test_pose_morphing_is_the_task_with_references() -> None:
    assert {name for name, preset in PRESETS.items() if preset.mode == "reference"} == {"pose", "photos"}
