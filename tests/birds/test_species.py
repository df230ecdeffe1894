from __future__ import annotations

from dataclasses import fields

import pytest

from dagaug.birds.anatomy import Species
from dagaug.birds.species import MAX_SPECIES, make_species, species_of
from dagaug.runtime.errors import UsageError


def markings_of(species: Species) -> tuple[object, ...]:
    ignored = {"index", "seed", "name", "genus", "shape", "above", "below", "traits"}
    return tuple(getattr(species, field.name) for field in fields(species) if field.name not in ignored)


def test_species_of_a_genus_share_a_silhouette_and_differ_in_markings() -> None:
    species = make_species(MAX_SPECIES, seed=1)
    assert len({one.name for one in species}) == len(species)
    for start in range(0, len(species), 4):
        genus = species[start : start + 4]
        assert len({one.genus for one in genus}) == 1
        assert len({one.shape for one in genus}) == 1
        for number, one in enumerate(genus):
            for other in genus[number + 1 :]:
                pairs = zip(markings_of(one), markings_of(other), strict=True)
                assert sum(first != second for first, second in pairs) >= 2, (one.name, other.name)


@pytest.mark.parametrize("index", [-1, MAX_SPECIES])
def test_species_out_of_range_are_refused(index: int) -> None:
    with pytest.raises(UsageError, match=f"index={index}: the built-in birds have species 0 to 199"):
        species_of(index)
