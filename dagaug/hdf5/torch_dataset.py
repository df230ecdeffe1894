"""Map-style data set for torch over an HDF5 file. The module itself does not import torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64

from dagaug.hdf5.reader import Store, checked_row

__all__ = ["AugmentedDataset"]


class AugmentedDataset:
    """Images and labels of an HDF5 file, as a map-style data set for ``torch.utils.data.DataLoader``.

    Items are ``(image, label)``. The image is uint8 RGB [H, W, 3], or the result of ``transform``. Each process opens
    the file by itself, so the data set can be pickled and works with any number of workers. Batches are read at once.

    Args:
        path: the file.
        split: "train", "test" or "all".
        real: include the real images.
        synthetic: include the morphs.
        transform: called with each image.
        decode: makes an RGB image of an image's stored bytes; by default OpenCV decodes them.
        synthetic_share: share of morphs, in [0, 1], that :attr:`weights` produce; by default all weights are equal.

    Raises:
        StoreError: the file breaks its specification, or an image cannot be decoded.
        ValueError: an unknown split, or a share outside [0, 1].
    """

    def __init__(
        self,
        path: Path | str,
        *,
        split: str = "train",
        real: bool = True,
        synthetic: bool = True,
        transform: Callable[[np.ndarray], object] | None = None,
        decode: Callable[[bytes], np.ndarray] | None = None,
        synthetic_share: float | None = None,
    ) -> None:
        if split not in ("train", "test", "all"):
            raise ValueError(f"split is {split!r}; choose train, test or all")
        if synthetic_share is not None and not 0 <= synthetic_share <= 1:
            raise ValueError(f"synthetic_share is {synthetic_share}; give a number from 0 to 1")
        self.transform, self._decode, self._share = transform, decode, synthetic_share
        with Store(path) as store:
            self.classes = store.classes
            is_synthetic = store.column("images/synthetic")
            chosen = np.where(is_synthetic, synthetic, real)
            if split != "all":
                chosen &= store.column("images/split") == ("train", "test").index(split)
            self.rows: Int64[np.ndarray, " n"] = np.flatnonzero(chosen)
            self.labels: Int64[np.ndarray, " n"] = store.column("images/label")[self.rows].astype(np.int64)
            self.synthetic: Bool[np.ndarray, " n"] = is_synthetic[self.rows]
            self._reader = store.image_reader

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[object, int]:
        return self.__getitems__([checked_row(index, len(self))])[0]

    def __getitems__(self, indices: Iterable[int]) -> list[tuple[object, int]]:
        """A batch of items, in the order of ``indices``. The DataLoader calls it."""
        places = [checked_row(index, len(self)) for index in indices]
        images = self._reader.decoded(self.rows[places].tolist(), self._decode)
        labels = self.labels[places].tolist()
        if self.transform is None:
            return list(zip(images, labels, strict=True))
        return [(self.transform(image), label) for image, label in zip(images, labels, strict=True)]

    @property
    def weights(self) -> Float64[np.ndarray, " n"]:
        """Weights for ``WeightedRandomSampler``; the sum is 1, that of the morphs ``synthetic_share``."""
        count, morphs = len(self), int(self.synthetic.sum())
        if self._share is None or morphs in (0, count):
            return np.full(count, 1 / max(count, 1))
        return np.where(self.synthetic, self._share / morphs, (1 - self._share) / (count - morphs))
