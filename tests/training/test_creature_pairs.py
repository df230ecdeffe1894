"""Pairs of procedural creatures: their answers are right."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from torch import Tensor

from dagaug.model.known_warps import sample
from dagaug.training.creature_pairs import CreaturePairs, creature_pairs

SIZE = 32


@pytest.fixture(scope="module")
def pairs() -> CreaturePairs:
    return creature_pairs(48, SIZE, generator=torch.Generator().manual_seed(3))


def inside(difference: Tensor, where: Tensor) -> Tensor:
    """Mean absolute difference of each image where something is."""
    return (difference.abs() * where).sum((1, 2, 3)) / (3 * where.sum((1, 2, 3)) + 1e-6)


def test_the_same_seed_gives_the_same_pairs(pairs: CreaturePairs) -> None:
    again = creature_pairs(48, SIZE, generator=torch.Generator().manual_seed(3))
    other = creature_pairs(48, SIZE, generator=torch.Generator().manual_seed(4))
    for field in fields(CreaturePairs):
        assert torch.equal(getattr(again, field.name), getattr(pairs, field.name))
        assert not torch.equal(getattr(other, field.name), getattr(pairs, field.name))


def test_values_keep_to_their_ranges_and_every_creature_is_seen(pairs: CreaturePairs) -> None:
    for name in ("source", "reference", "answer", "background"):
        assert getattr(pairs, name).abs().max() <= 1
    for name in ("source_mask", "reference_mask", "answer_mask"):
        mask = getattr(pairs, name)
        assert mask.min() >= 0
        assert mask.max() <= 1
        assert (mask.mean((1, 2, 3)) > 0.01).all()


def test_where_the_source_shows_a_place_its_colours_are_those_of_the_answer(pairs: CreaturePairs) -> None:
    """Up to light and noise: the grid leads to nearer colours than staying in place."""
    seen = pairs.seen
    moved = inside(sample(pairs.source, pairs.grid) - pairs.answer, seen).mean()
    stayed = inside(pairs.source - pairs.answer, seen).mean()
    assert moved < 0.6 * stayed
    assert seen.sum() > 0.5 * pairs.answer_mask.sum()


def test_the_answer_is_the_reference_where_both_show_one_species(pairs: CreaturePairs) -> None:
    alike = (pairs.answer_mask - pairs.reference_mask).abs().sum((1, 2, 3)) == 0
    assert 4 <= alike.sum() <= 24  # a quarter of 48
    assert (pairs.answer - pairs.reference)[alike].abs().max() < 0.3  # noise


def test_the_answer_stands_on_the_references_background(pairs: CreaturePairs) -> None:
    free = ((pairs.answer_mask == 0) & (pairs.reference_mask == 0)).float()
    assert inside(pairs.answer - pairs.reference, free).max() < 0.06
