"""Provenance: what /options of a file says, with defaults for what it does not say."""

from __future__ import annotations

from pathlib import Path

import pytest
from old_files import EXPECTED, old_file

from dagaug.hdf5.provenance import Provenance
from dagaug.hdf5.reader import Store


def test_empty_options_give_the_defaults() -> None:
    assert Provenance.read({}) == Provenance()


def test_the_split_is_drawn_with_the_run_s_seed_by_default() -> None:
    assert Provenance.read({}, seed=5).split_seed == 5
    assert Provenance.read({"split_seed": None}, seed=5).split_seed == 5
    assert Provenance.read({"split_seed": 0}, seed=5).split_seed == 0


@pytest.mark.parametrize(
    "options",
    [
        {"data": 3, "layout": [], "checkpoint": None, "judges": {}},
        {"per_class": "3", "batch_size": True, "split_seed": 1.5},
        {"background": "moon", "frame": 3},
        {"background": ["other"], "frame": None},
        {"batch_size": 0},
    ],
)
def test_values_of_another_type_give_the_defaults(options: dict[str, object]) -> None:
    assert Provenance.read(options) == Provenance()


def test_unknown_entries_are_kept() -> None:
    found = Provenance.read({"refs": 10, "data": "birds", "größe": None})
    assert found == Provenance(data="birds", others={"refs": 10, "größe": None})


def test_the_patch_size_stands_in_the_framing() -> None:
    assert Provenance.read({"framing": {"size": 96}}).size == 96
    assert [Provenance.read({"framing": other}).size for other in (None, [], {}, {"size": "large"})] == [None] * 4


def test_a_checkpoint_is_looked_for_where_it_was_then_beside_the_file_and_last_in_the_current_folder() -> None:
    file = Path("/there/out/birds.h5")
    assert Provenance().checkpoint_places(file) == ()
    known = Provenance(checkpoint="/here/runs/x/model.safetensors", checkpoint_given="runs/x/model.safetensors")
    assert list(map(str, known.checkpoint_places(file))) == [
        "/here/runs/x/model.safetensors", "/there/out/runs/x/model.safetensors", "/there/out/model.safetensors",
        "runs/x/model.safetensors",
    ]  # fmt: skip
    old = Provenance(checkpoint="runs/x/model.safetensors")
    assert old.checkpoint_places(file) == known.checkpoint_places(file)[1:]
    masked = Provenance(masks="/here/masks", masks_given="masks")
    assert list(map(str, masked.mask_places(file))) == ["/here/masks", "/there/out/masks", "masks"]


@pytest.mark.parametrize("name", EXPECTED)
def test_the_options_of_an_old_file_are_known(name: str) -> None:
    with Store(old_file(name)) as store:
        header = store.header
    found = header.provenance
    assert (found.data, found.layout, found.batch_size, found.size) == ("birds", "imagefolder", 8, 64)
    assert (found.background, found.frame) == (("other", "crop") if name == "virtual" else ("reference", "whole"))
    assert found.split_seed == header.seed
    assert len(found.judges) == 64
    assert found.others["refs"] == 2
