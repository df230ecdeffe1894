"""Number of steps: by the images, or by a time."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
from making_runs import assert_same_bits
from making_trainers import new_trainer
from torch import Tensor

from dagaug.data.dataset_records import Dataset
from dagaug.model import checkpoint
from dagaug.training import step_count
from dagaug.training.step_count import default_steps, steps_in
from dagaug.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("quickly")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_default_number_of_steps_grows_with_the_images_within_bounds(device: str) -> None:
    counts = [default_steps(images, device) for images in (2, 100, 300, 1_000, 10_000, 10**6)]
    assert counts == sorted(counts)
    assert counts[0] > 100
    assert counts[-1] == default_steps(10**7, device)
    assert default_steps(100, "cuda") > default_steps(100, "cpu")


def all_tensors(trainer: Trainer) -> dict[str, Tensor]:
    """Everything that a step changes."""
    modules = {
        "objective": trainer.mode.objective,
        "averaged": trainer.averaged,
        "discriminators": trainer.discriminators,
    }
    tensors = {f"{name}.{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}
    for name, optimizer in trainer.optimizers.items():
        tensors |= {f"{name}.{key}": value for key, value in checkpoint.optimizer_tensors(optimizer).items()}
    return {name: value.clone() for name, value in tensors.items()}


def test_measuring_leaves_the_trainer_as_it_was(birds: Dataset) -> None:
    fresh, measured = new_trainer(birds), new_trainer(birds)
    assert steps_in(1e-6, measured) == 10  # the least
    assert (measured.done, measured.rate) == (0, fresh.rate)
    assert_same_bits(all_tensors(fresh), all_tensors(measured))
    fresh.step(1)
    measured.step(1)
    assert_same_bits(all_tensors(fresh), all_tensors(measured))


def test_steps_are_the_minutes_over_the_time_that_a_step_takes(birds: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = new_trainer(birds)
    readings = itertools.count()  # two a step: each takes a second by this clock
    monkeypatch.setattr(step_count, "time", SimpleNamespace(monotonic=lambda: float(next(readings))))
    monkeypatch.setattr(trainer, "step", lambda total: {})
    assert steps_in(2.0, trainer) == 120
    assert steps_in(0.5, trainer) == 30
