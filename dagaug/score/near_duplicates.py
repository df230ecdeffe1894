"""Which training images look like a test image: by perceptual hash, and by the features of a network.

A hash finds copies, whatever a network thinks; features find what is the same picture to a network though brightness,
sharpness or place differ. How near is near is measured, not chosen: an image is alike if it lies as near to a test
image as nine of ten test images lie to a faded, blurred and shifted copy of themselves. Where pictures of a class are
alike by nature (small objects on plain grounds), many are by that measure; so it is measured, too, how many test
images look like another test image, and only more than that is suspicious.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, Int64, UInt8
from scipy.stats import binomtest
from torch import Tensor

from dagaug.classifiers.backbones import LITE0, Network, build
from dagaug.runtime.errors import MissingExtraError
from dagaug.runtime.progress import SILENT, Progress

__all__ = ["Alike", "find_alike", "near_duplicates"]

_BATCH = 128


_COPIES = 0.9  # share of altered copies that are to be found


_SURE = 0.01  # chance at which more look-alikes than usual are no accident


@dataclass(frozen=True)
class Alike:
    """Training images that look like a test image.

    Attributes:
        images: how many there are of these training images.
        by_hash: how many of them have a test image's perceptual hash and thumbnail.
        by_features: how many lie as near to a test image as its altered copies do; None without a network that knows
            pictures.
        nearest: the least distance of features to a test image, in units of that of the altered copies; None likewise.
        usual: share of the test images that lie as near to another test image; None likewise.
        suspicious: whether any has a test image's hash, or more look like one by their features than is usual.
    """

    images: int
    by_hash: int
    by_features: int | None
    nearest: float | None
    usual: float | None
    suspicious: bool


def find_alike(
    sets: Mapping[str, UInt8[np.ndarray, "N S S 3"]],
    test: UInt8[np.ndarray, "M S S 3"],
    *,
    device: torch.device | str = "cpu",
    progress: Progress = SILENT,
) -> tuple[dict[str, Alike], str]:
    """Count look-alikes of the test images in sets of training images; no set may be empty.

    Returns:
        what was found in each set, and the network whose features were used: EfficientNet-Lite0 with ImageNet weights,
        or nothing where its package is not installed (random weights take unlike pictures for alike).
    """
    hashed = {which: len(np.unique(near_duplicates(np.asarray(images), test)[:, 0])) for which, images in sets.items()}
    try:
        network = _network(test.shape[1]).to(device)
    except MissingExtraError:
        unknown = (None, None, None)
        return {
            which: Alike(len(images), hashed[which], *unknown, hashed[which] > 0) for which, images in sets.items()
        }, ""
    total = 2 * len(test) + sum(map(len, sets.values()))
    with progress.task("Looking for near-duplicates", total, "images") as task:
        seen, copies = [], []
        for part in _parts(test):
            seen.append(_features(network, part))
            copies.append(_features(network, _altered(part)))
            task.advance(2 * len(part))
        middle = torch.cat(seen).mean(0)
        known = F.normalize(torch.cat(seen) - middle)
        apart = 1 - (known * F.normalize(torch.cat(copies) - middle)).sum(1)
        limit = max(float(apart.quantile(_COPIES)), 1e-6)
        each_other = (1 - known @ known.T).fill_diagonal_(torch.inf).amin(1)
        usual = float((each_other <= limit).float().mean())
        found = {}
        for which, images in sets.items():
            nearest = []
            for part in _parts(images):
                own = F.normalize(_features(network, part) - middle)
                nearest.append((1 - own @ known.T).amin(1))
                task.advance(len(part))
            distance = torch.cat(nearest).clamp(min=0) / limit
            near = int((distance <= 1).sum())
            more = binomtest(near, len(images), usual, alternative="greater").pvalue < _SURE
            found[which] = Alike(
                len(images), hashed[which], near, float(distance.min()), usual, hashed[which] > 0 or bool(more)
            )
    return found, LITE0


@cache
def _network(size: int) -> Network:
    return build(LITE0, 0, size=size).eval()


@torch.inference_mode()
def _features(network: Network, images: UInt8[np.ndarray, "B S S 3"]) -> Float32[Tensor, "B D"]:
    x = torch.from_numpy(np.ascontiguousarray(images)).to(network.mean.device)
    return network(x.permute(0, 3, 1, 2).float() / 127.5 - 1).float().cpu()


def _parts(images: UInt8[np.ndarray, "N S S 3"]) -> Iterator[UInt8[np.ndarray, "B S S 3"]]:
    for start in range(0, len(images), _BATCH):
        yield np.asarray(images[start : start + _BATCH])


def _altered(images: UInt8[np.ndarray, "B S S 3"]) -> UInt8[np.ndarray, "B S S 3"]:
    """The same pictures a little faded, blurred, and shifted by a thirty-second of the side."""
    size = images.shape[1]
    off = max(1, size // 32)
    moved = np.array([[1, 0, off], [0, 1, off]], np.float32)
    out = np.empty_like(images)
    for row, image in enumerate(images):
        soft = cv2.GaussianBlur(image, (0, 0), size / 100)
        shifted = cv2.warpAffine(soft, moved, (size, size), borderMode=cv2.BORDER_REPLICATE)
        out[row] = np.rint(0.9 * shifted.astype(np.float32) + 12)
    return out


def near_duplicates(
    first: UInt8[np.ndarray, "N S S 3"], second: UInt8[np.ndarray, "M S S 3"], *, threshold: int = 8
) -> Int64[np.ndarray, "P 2"]:
    """Pairs (row in ``first``, row in ``second``) of images that look the same.

    Candidates are those whose 64-bit difference hashes (which of two neighbours in a 9 × 8 grey thumbnail is
    the brighter) differ in at most ``threshold`` bits. Unlike images with plain backgrounds may have the same
    hash, so thumbnails of 16 × 16 must then agree to 8 of 255 levels in the mean.
    """
    ours, theirs = _hashes(first), _hashes(second)
    pairs = []
    for start in range(0, len(ours), 1024):
        distance = (64 - ours[start : start + 1024] @ theirs.T) / 2
        for row, other in np.argwhere(distance <= threshold):
            difference = _thumbnail(first[start + row], 16, 16) - _thumbnail(second[other], 16, 16)
            if np.abs(difference).mean() <= 8:
                pairs.append((start + row, other))
    return np.array(pairs, np.int64).reshape(-1, 2)


def _hashes(images: UInt8[np.ndarray, "N S S 3"]) -> Float32[np.ndarray, "N 64"]:
    """Difference hashes as signs, so that 64 minus a scalar product is twice the Hamming distance."""
    signs = np.empty((len(images), 64), np.float32)
    for row, image in enumerate(images):
        grey = _thumbnail(image, 9, 8) @ np.array((0.299, 0.587, 0.114), np.float32)
        signs[row] = np.where(grey[:, 1:] > grey[:, :-1], 1, -1).reshape(64)
    return signs


def _thumbnail(image: UInt8[np.ndarray, "S S 3"], width: int, height: int) -> Float32[np.ndarray, "H W 3"]:
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
