"""Options of a training."""

from __future__ import annotations

import pytest
from making_runs import options

from dagaug.model.task_presets import PRESETS
from dagaug.model.trained_model import GENERAL, SCRATCH
from dagaug.runtime.errors import UsageError
from dagaug.training.options import TrainOptions


def test_options_take_the_presets_values_where_none_are_given() -> None:
    for name, preset in PRESETS.items():
        resolved = TrainOptions(preset=name, start=SCRATCH).resolved()
        assert (resolved.batch_size, resolved.learning_rate) == (preset.batch_size, preset.learning_rate)
        assert (resolved.consistency, resolved.symmetry) == (preset.consistency, preset.symmetry)
        assert resolved.mode == preset.mode
        assert resolved == resolved.resolved()
    assert options(symmetry=0.0, regions=3).resolved().symmetry == 0.0
    assert options(regions=3).attention.regions == 3


def test_the_error_for_an_unknown_preset_lists_the_presets() -> None:
    with pytest.raises(UsageError, match=r"preset=cats: choose one of pose, photos, digits"):
        options(preset="cats").resolved()


def test_own_pixels_are_refused_by_the_presets_of_the_paper() -> None:
    with pytest.raises(UsageError, match=r"own_pixels=0\.5: only for pose"):
        TrainOptions(preset="digits", own_pixels=0.5).resolved()


def test_the_general_networks_start_trainings_of_pose_only() -> None:
    assert TrainOptions().resolved().start == GENERAL
    assert TrainOptions(preset="digits").resolved().start == SCRATCH
    with pytest.raises(UsageError, match="start=general"):
        TrainOptions(preset="digits", start=GENERAL).resolved()
