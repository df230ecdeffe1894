"""Framing of the real images that stored morphs are compared with, and whether they are the right ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from making_score_data import write_data, write_impostors, write_store

from dagaug.data.object_patches import Framing
from dagaug.hdf5.provenance import Provenance
from dagaug.hdf5.reader import Store
from dagaug.metrics.inputs import check_fits, framing_of
from dagaug.runtime.errors import DataError, StoreError


def test_morphs_stored_as_patches_are_compared_with_patches() -> None:
    stored = {"frame": "crop", "framing": {"size": 64, "margin": 0.3}}
    assert framing_of(Provenance.read(stored)) == Framing(size=64, margin=0.3)
    assert framing_of(Provenance.read(stored | {"frame": "whole"})) == Framing(size=64, crop="none", fit="letterbox")
    assert framing_of(Provenance(), 96).size == 96


def test_an_invalid_framing_is_an_error() -> None:
    with pytest.raises(StoreError, match="framing"):
        framing_of(Provenance(framing={"size": "large"}))


def test_a_file_fits_only_the_images_that_it_was_made_from(tmp_path: Path) -> None:
    data, other = write_data(tmp_path / "data"), write_impostors(tmp_path / "other")
    with Store(write_store(tmp_path / "morphs.h5", data)) as morphs:
        check_fits(morphs, data)
        check_fits(morphs, other)  # without real images nothing can be compared
    with Store(write_store(tmp_path / "real.h5", data, synthetic=False)) as real:
        with pytest.raises(DataError, match="no synthetic images"):
            check_fits(real, data)
        with pytest.raises(DataError, match="shows another image than"):
            check_fits(real, other)
