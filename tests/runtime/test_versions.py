"""Versions of libraries."""

from __future__ import annotations

import numpy as np
import timm

from dagaug.runtime.versions import UNKNOWN, library_versions


def test_versions_are_those_of_the_imported_libraries() -> None:
    versions = library_versions("numpy", "timm")
    assert (versions["numpy"], versions["timm"]) == (np.__version__, timm.__version__)


def test_dagaug_is_always_among_them_and_first() -> None:
    assert list(library_versions("timm")) == ["dagaug", "timm"]
    assert list(library_versions()) == ["dagaug"]


def test_a_library_that_is_not_installed_has_no_known_version() -> None:
    assert library_versions("no-library-of-this-name")["no-library-of-this-name"] == UNKNOWN
