"""Backgrounds of morphs: the image that gives the background of each stored morph."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64

from dagaug.augment.morph_plan import background_rows
from dagaug.hdf5.reader import Store
from dagaug.runtime.errors import StoreError, UsageError

__all__ = ["backgrounds_of"]


def backgrounds_of(store: Store) -> Int64[np.ndarray, " N"]:
    """For each image the file index of the image that gives its background; -1 for real images.

    Raises:
        StoreError: the file's candidates are incomplete.
    """
    images, background = store.images, store.header.provenance.background
    if background != "other":
        return (images.reference if background == "reference" else images.source).astype(np.int64)
    candidates = store.candidates
    found = np.full(len(images), -1, np.int64)
    made = np.flatnonzero(images.candidate >= 0)
    try:
        rows = background_rows(background, candidates.source.astype(np.int64), candidates.reference.astype(np.int64))
    except UsageError as error:
        raise StoreError(f"{store.path}: /candidates: incomplete, so the backgrounds are unknown") from error
    if rows is not None:
        found[made] = rows[images.candidate[made]]
    return found
