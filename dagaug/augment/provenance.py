"""Where the background of a stored morph comes from."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64

from dagaug.augment.plan import background_in, backgrounds
from dagaug.hdf5.reader import Store
from dagaug.runtime.errors import StoreError, UsageError

__all__ = ["backgrounds_of"]


def backgrounds_of(store: Store) -> Int64[np.ndarray, " N"]:
    """For each image the row in the table of files of the one that gave its background; -1 if there is none.

    Raises:
        StoreError: the file's candidates do not tell.
    """
    images, background = store.images, background_in(store.header.options)
    if background != "other":
        return (images.reference if background == "reference" else images.source).astype(np.int64)
    candidates = store.candidates
    found = np.full(len(images), -1, np.int64)
    made = np.flatnonzero(images.candidate >= 0)
    try:
        behind = backgrounds(background, candidates.source.astype(np.int64), candidates.reference.astype(np.int64))
    except UsageError as error:
        raise StoreError(f"{store.path}: /candidates: too few of them to tell the backgrounds") from error
    if behind is not None:
        found[made] = behind[images.candidate[made]]
    return found
