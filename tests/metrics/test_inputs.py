"""Framing of the real images that stored morphs are compared with."""

from __future__ import annotations

import pytest

from dagaug.data.object_patches import Framing
from dagaug.hdf5.provenance import Provenance
from dagaug.metrics.inputs import framing_of
from dagaug.runtime.errors import StoreError


def test_morphs_stored_as_patches_are_compared_with_patches() -> None:
    stored = {"frame": "crop", "framing": {"size": 64, "margin": 0.3}}
    assert framing_of(Provenance.read(stored)) == Framing(size=64, margin=0.3)
    assert framing_of(Provenance.read(stored | {"frame": "whole"})) == Framing(size=64, crop="none", fit="letterbox")
    assert framing_of(Provenance(), 96).size == 96


def test_an_invalid_framing_is_an_error() -> None:
    with pytest.raises(StoreError, match="framing"):
        framing_of(Provenance(framing={"size": "large"}))
