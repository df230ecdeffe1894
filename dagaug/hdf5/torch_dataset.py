"""Map-style data set for torch over an HDF5 file. Only handing out objects imports torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8

from dagaug.hdf5.reader import Store, checked_row
from dagaug.runtime.errors import StoreError

__all__ = ["AugmentedDataset"]


class AugmentedDataset:
    """Images and labels of an HDF5 file, as a map-style data set for ``torch.utils.data.DataLoader``.

    Items are ``(image, label)``. The image is uint8 RGB [H, W, 3], or the result of ``transform``. Each process opens
    the file by itself, so the data set can be pickled and works with any number of workers. Batches are read at once.

    With ``objects``, items are ``(image, target)`` as torchvision's detection models and its transforms v2 take them.
    The image is a ``tv_tensors.Image``, uint8 RGB [3, H, W]; the target is a dictionary with one row for the object:
    ``boxes`` (``tv_tensors.BoundingBoxes``, float32 XYXY [1, 4]), ``labels`` (int64 [1], the label; add 1 for models
    that reserve 0 for the background) and, with ``mask``, ``masks`` (``tv_tensors.Mask``, bool [1, H, W]). The
    DataLoader then needs a ``collate_fn``, for example ``lambda items: tuple(zip(*items))``.

    Args:
        path: the file.
        split: "train", "test" or "all".
        real: include the real images.
        synthetic: include the morphs.
        transform: called with each image; with ``objects``, with image and target.
        decode: makes an RGB image of an image's stored bytes; by default OpenCV decodes them. With ``objects``, it must
            keep the size.
        synthetic_share: share of morphs, in [0, 1], that :attr:`weights` produce; by default all weights are equal.
        objects: hand out "box" or "mask" of each image's object. Images where it is unknown are left out, because
            without an object they would count as background; ``None`` hands out labels.

    Attributes:
        classes: class names; a label is an index.
        class_to_idx: the label of each class name.
        rows: row of each item in the file's table /images.
        labels: label of each item.
        synthetic: whether each item is a morph.
        left_out: number of images that are left out because their object is unknown.

    Raises:
        StoreError: the file breaks its specification, an image cannot be decoded, or (``objects``) the file does not
            say where any object is.
        ValueError: an unknown split or kind of objects, or a share outside [0, 1].
    """

    def __init__(
        self,
        path: Path | str,
        *,
        split: str = "train",
        real: bool = True,
        synthetic: bool = True,
        transform: Callable[..., object] | None = None,
        decode: Callable[[bytes], np.ndarray] | None = None,
        synthetic_share: float | None = None,
        objects: str | None = None,
    ) -> None:
        if split not in ("train", "test", "all"):
            raise ValueError(f"split is {split!r}; choose train, test or all")
        if synthetic_share is not None and not 0 <= synthetic_share <= 1:
            raise ValueError(f"synthetic_share is {synthetic_share}; give a number from 0 to 1")
        if objects is not None and objects not in ("box", "mask"):
            raise ValueError(f"objects is {objects!r}; choose box, mask or None")
        self.transform, self._decode, self._share, self._objects = transform, decode, synthetic_share, objects
        self._path = Path(path)
        with Store(path) as store:
            self.classes = list(store.classes)
            self.class_to_idx = {name: label for label, name in enumerate(self.classes)}
            is_synthetic = store.column("images/synthetic")
            chosen = np.where(is_synthetic, synthetic, real)
            if split != "all":
                chosen &= store.column("images/split") == ("train", "test").index(split)
            known = chosen if objects is None else chosen & _with_object(store, objects)
            self.left_out = int(chosen.sum() - known.sum())
            self.rows: Int64[np.ndarray, " n"] = np.flatnonzero(known)
            self.labels: Int64[np.ndarray, " n"] = store.column("images/label")[self.rows].astype(np.int64)
            self.synthetic: Bool[np.ndarray, " n"] = is_synthetic[self.rows]
            self._reader = store.image_reader
            self._boxes = None if objects is None else store.boxes
            self._masks = store.mask_reader if objects == "mask" else None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[object, object]:
        return self.__getitems__([checked_row(index, len(self))])[0]

    def __getitems__(self, indices: Iterable[int]) -> list[tuple[object, object]]:
        """A batch of items, in the order of ``indices``. The DataLoader calls it."""
        places = [checked_row(index, len(self)) for index in indices]
        images = self._reader.decoded(self.rows[places].tolist(), self._decode)
        if self._objects is not None:
            return [self._with_target(place, image) for place, image in zip(places, images, strict=True)]
        labels = self.labels[places].tolist()
        if self.transform is None:
            return list(zip(images, labels, strict=True))
        return [(self.transform(image), label) for image, label in zip(images, labels, strict=True)]

    def _with_target(self, place: int, image: UInt8[np.ndarray, "H W 3"]) -> tuple[object, object]:
        import torch
        from torchvision import tv_tensors

        row, size = int(self.rows[place]), image.shape[:2]
        assert self._boxes is not None
        x, y, width, height = self._boxes[row].tolist()
        target: dict[str, torch.Tensor] = {
            "boxes": tv_tensors.BoundingBoxes(
                [[x, y, x + width, y + height]], format="XYXY", canvas_size=size, dtype=torch.float32
            ),
            "labels": torch.tensor([self.labels[place]]),
        }
        if self._masks is not None:
            mask = self._masks.mask(row)
            assert mask is not None
            target["masks"] = tv_tensors.Mask(torch.from_numpy(np.ascontiguousarray(mask)[None]))
        item = tv_tensors.Image(torch.from_numpy(image).permute(2, 0, 1)), target
        if self.transform is None:
            return item
        changed = self.transform(*item)
        if not isinstance(changed, tuple) or len(changed) != 2:
            raise TypeError("with objects, transform is called with image and target and must return both")
        return changed

    @property
    def targets(self) -> list[int]:
        """Label of each item, as in torchvision's ``ImageFolder``."""
        return self.labels.tolist()

    @cached_property
    def samples(self) -> list[tuple[str, int]]:
        """Name and label of each item, as in torchvision's ``ImageFolder``.

        The images are no files on disk: a name is ``FILE.h5#ROW``, with the row in the file's table /images.
        """
        return [(f"{self._path}#{row}", label) for row, label in zip(self.rows.tolist(), self.targets, strict=True)]

    @property
    def weights(self) -> Float64[np.ndarray, " n"]:
        """Weights for ``WeightedRandomSampler``; the sum is 1, that of the morphs ``synthetic_share``."""
        count, morphs = len(self), int(self.synthetic.sum())
        if self._share is None or morphs in (0, count):
            return np.full(count, 1 / max(count, 1))
        return np.where(self.synthetic, self._share / morphs, (1 - self._share) / (count - morphs))


def _with_object(store: Store, objects: str) -> Bool[np.ndarray, " N"]:
    """The images whose box (and mask) is known.

    Raises:
        StoreError: none is.
    """
    known = np.zeros(len(store), bool)
    if store.boxes is not None and store.mask_reader is not None:
        known = ~np.isnan(store.boxes).all(1)
        if objects == "mask":
            known &= store.mask_reader.known
    if not known.any():
        what = "boxes" if objects == "box" else "masks"
        raise StoreError(f"{store.path}: holds no {what} of objects; make the file again with dagaug augment")
    return known
