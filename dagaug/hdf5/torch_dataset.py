"""A torch `Dataset` over the HDF5 file."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64

from dagaug.hdf5.reader import Store, checked_row

__all__ = ["AugmentedDataset"]


class AugmentedDataset:
    """Images of an HDF5 file and their labels, as a map-style data set for ``torch.utils.data.DataLoader``.

    Items are ``(image, label)``: the image RGB uint8 [H, W, 3], or what ``transform`` makes of it. Opened
    lazily in every process, so it pickles and works with any number of workers; batches are read at once.

    Args:
        path: the file.
        split: "train", "test" or "all".
        real: images of the data set itself.
        synthetic: morphs.
        transform: called with each image.
        decode: turns an image's stored bytes into RGB; by default OpenCV does.
        synthetic_share: the share of morphs that :attr:`weights` aim at; by default all weigh the same.

    Raises:
        StoreError: the file breaks its specification, or an image cannot be decoded.
        ValueError: an unknown split, or a share outside 0 to 1.
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
            raise ValueError(f"split is {split!r}, not train, test or all")
        if synthetic_share is not None and not 0 <= synthetic_share <= 1:
            raise ValueError(f"synthetic_share is {synthetic_share}, not between 0 and 1")
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
            self._pictures = store.image_reader

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[object, int]:
        return self.__getitems__([checked_row(index, len(self))])[0]

    def __getitems__(self, indices: Iterable[int]) -> list[tuple[object, int]]:
        """A batch, in the order of ``indices``."""
        places = [checked_row(index, len(self)) for index in indices]
        images = self._pictures.decoded(self.rows[places].tolist(), self._decode)
        labels = self.labels[places].tolist()
        if self.transform is None:
            return list(zip(images, labels, strict=True))
        return [(self.transform(image), label) for image, label in zip(images, labels, strict=True)]

    @property
    def weights(self) -> Float64[np.ndarray, " n"]:
        """For ``WeightedRandomSampler``: sum 1, morphs together ``synthetic_share`` of it."""
        count, morphs = len(self), int(self.synthetic.sum())
        if self._share is None or morphs in (0, count):
            return np.full(count, 1 / max(count, 1))
        return np.where(self.synthetic, self._share / morphs, (1 - self._share) / (count - morphs))
