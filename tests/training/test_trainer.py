"""The trainer: its steps lower the losses, change the right weights, and survive bad values."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from making_runs import Killed, quick, tensors_of, train_small
from making_trainers import new_trainer
from torch import Tensor

from dagaug.data.dataset_records import Dataset
from dagaug.model.task_presets import PRESETS
from dagaug.training import losses
from dagaug.training.modes import ReferenceMode
from dagaug.training.pairs import step_generator
from dagaug.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("quickly")

PARTS = ("dae", "cst", "sym", "d2")


# ---- learning


@dataclass(frozen=True)
class Learned:
    """A trainer after 24 steps, with its weights and losses before."""

    trainer: Trainer
    objective: dict[str, Tensor]
    discriminators: dict[str, Tensor]
    before: dict[str, float]
    after: dict[str, float]


@pytest.fixture(scope="module")
def learned(birds: Dataset) -> Learned:
    """24 steps; the losses are of one batch of known warps, the same before and after."""
    trainer = new_trainer(birds)
    mode = cast(ReferenceMode, trainer.mode)
    fixed = mode.sampler.batch(10**6, 16, only_exact=True)

    def exact_losses() -> dict[str, float]:
        with torch.no_grad():
            terms, _ = mode.objective(fixed, "structure", step_generator(0, 10**6, 1))
        return {name: float(term) for name, term in terms.items()}

    objective = {name: value.clone() for name, value in mode.objective.named_parameters()}
    discriminators = {name: value.clone() for name, value in trainer.discriminators.named_parameters()}
    before = exact_losses()
    for _ in range(24):
        trainer.step(24)
    return Learned(trainer, objective, discriminators, before, exact_losses())


@pytest.mark.parametrize("term", ["flow", "match", "object"])
def test_training_lowers_each_loss_that_has_an_exact_answer(learned: Learned, term: str) -> None:
    assert learned.after[term] < 0.9 * learned.before[term]


@pytest.mark.parametrize(
    "network",
    [
        "translator.dae.encoder.",
        "translator.dae.structure_encoder.",
        "translator.dae.localise.",
        "translator.morpher.transport.",
        "translator.morpher.instance.",
        "translator.morpher.generator.",
        "distance.",
    ],
)
def test_training_moves_every_weight_of_the_network(learned: Learned, network: str) -> None:
    now = dict(learned.trainer.mode.objective.named_parameters())
    names = [name for name in now if name.startswith(network)]
    assert names
    assert [name for name in names if torch.equal(now[name], learned.objective[name])] == []


@pytest.mark.parametrize("discriminator", ["d1", "d2"])
def test_training_moves_every_weight_of_both_discriminators(learned: Learned, discriminator: str) -> None:
    now = dict(learned.trainer.discriminators.named_parameters())
    names = [name for name in now if name.startswith(discriminator + ".")]
    assert names
    assert [name for name in names if torch.equal(now[name], learned.discriminators[name])] == []


def test_the_averaged_weights_lie_between_the_first_and_the_last(learned: Learned) -> None:
    name = "dae.encoder.to_half.0.weight"
    first = learned.objective["translator." + name]
    last = learned.trainer.translator.state_dict()[name]
    mean = learned.trainer.averaged.state_dict()[name]
    assert not torch.equal(mean, last)
    assert (mean - last).norm() < (first - last).norm()
    assert not any(parameter.requires_grad for parameter in learned.trainer.averaged.parameters())


def test_a_training_goes_through_structure_pairs_and_full_in_this_order(birds: Dataset) -> None:
    trainer = new_trainer(birds)
    phases = [trainer.phase(step, 100) for step in range(100)]
    runs = [(phase, len(list(group))) for phase, group in itertools.groupby(phases)]
    assert [phase for phase, _ in runs] == ["structure", "pairs", "full"]
    assert all(length >= 10 for _, length in runs)


def test_the_learning_rate_falls_and_never_rises(birds: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = new_trainer(birds)
    monkeypatch.setattr(trainer.mode, "forward", lambda *arguments: (_ for _ in ()).throw(Killed))
    rates = []
    for step in range(100):
        trainer.done = step
        with pytest.raises(Killed):
            trainer.step(100)
        rates.append(trainer.optimizers["generator_optimizer"].param_groups[0]["lr"])
    assert rates[0] == PRESETS["pose"].learning_rate
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates))
    assert 0 < rates[-1] < 0.1 * rates[0]


# ---- parts that are switched off (Table 1a)

DROPPED = {
    "dae": {"equivariance", "separation", "inside"},
    "cst": {"consistency", "pose"},
    "sym": {"symmetry"},
    "d2": set[str](),
}


def terms_of_all_phases(trainer: Trainer) -> set[str]:
    terms: set[str] = set()
    for step in (0, 40, 80):
        trainer.done = step
        done = trainer.step(100)
        assert all(np.isfinite(value) for value in done.values())
        terms |= done.keys()
    return terms


@pytest.fixture(scope="module")
def all_terms(birds: Dataset) -> set[str]:
    """The terms of a training with nothing switched off."""
    with quick():
        return terms_of_all_phases(new_trainer(birds))


@pytest.mark.parametrize("part", PARTS)
def test_switching_off_a_part_removes_its_terms_and_no_others(birds: Dataset, all_terms: set[str], part: str) -> None:
    trainer = new_trainer(birds, without=(part,))
    terms = terms_of_all_phases(trainer)
    assert terms < all_terms or (part == "d2" and terms == all_terms)
    assert set.union(*DROPPED.values()) & terms == set.union(*DROPPED.values()) - DROPPED[part]
    assert {"adversarial", "discriminators", "flow", "match", "object", "label", "identity"} <= terms
    assert set(trainer.discriminators.keys()) == ({"d1"} if part == "d2" else {"d1", "d2"})
    if part == "dae":  # one region that covers the image
        masks = trainer.translator.dae.masks(torch.zeros(1, 1, 2), 8)
        torch.testing.assert_close(masks, torch.ones(1, 1, 8, 8))


# ---- losses that are not finite


def test_a_step_that_is_not_finite_changes_no_weights(
    birds: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = losses.full_objective
    calls = itertools.count()
    monkeypatch.setattr(
        losses,
        "full_objective",
        lambda terms, weights: whole(terms, weights) * (float("inf") if next(calls) == 2 else 1.0),
    )
    train_small(birds, tmp_path / "run")
    tensors = tensors_of(tmp_path / "run" / "model.safetensors")
    assert all(bool(tensor.isfinite().all()) for tensor in tensors.values())
