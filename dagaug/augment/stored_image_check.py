"""Check that a data folder holds the images that an HDF5 file was made from, and not others of the same names."""

from __future__ import annotations

import numpy as np

from dagaug.data.dataset_records import Dataset
from dagaug.data.image_files import decode
from dagaug.hdf5.reader import Store
from dagaug.runtime.errors import DataError, ImageError

__all__ = ["check_stored_images"]

_COMPARED = 16  # images, spread over the file
_LARGEST_ERROR = 24  # mean absolute difference of a value, of 255; JPEG of the lowest quality stays below


def check_stored_images(store: Store, dataset: Dataset) -> None:
    """Compare some of the real images that a file holds with the files of the same names in a data set.

    A file without real images cannot be checked. Files that are missing or unreadable are not reported here.

    Args:
        store: an HDF5 file of ``dagaug augment``.
        dataset: the data set that is taken to be the one that the file was made from.

    Raises:
        DataError: an image differs.
        StoreError: the HDF5 file cannot be read.
    """
    files, table = store.header.files, store.images
    real = np.flatnonzero(~table.synthetic & (table.source >= 0))
    rows = real[np.linspace(0, len(real) - 1, min(_COMPARED, len(real))).round().astype(int)] if len(real) else real
    for row, stored in zip(rows.tolist(), store.read(rows.tolist()), strict=True):
        path = dataset.root / files[int(table.source[row])]
        try:
            found = decode(path)
        except ImageError:
            continue
        if found.shape != stored.shape or np.abs(found.astype(int) - stored).mean() > _LARGEST_ERROR:
            raise DataError(
                f"{path}: shows another image than {store.path} holds under this name; give the data folder that the "
                "file was made from, or make the file again: dagaug augment"
            )
