"""Near-duplicates of test images among training images, by perceptual hash and by network features.

A perceptual hash finds copies. Features also find copies with another brightness, sharpness or position. The feature
threshold is calibrated, not chosen: it is the distance within which 90% of the test images find an altered copy of
themselves (faded, blurred, shifted). Data sets with similar images (small objects on plain backgrounds) have many
pairs within it, so the share of test images with another test image within the threshold is measured too; only a
significantly larger share of training images is suspicious.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, Int64, UInt8
from scipy.stats import binomtest
from torch import Tensor

from dagaug.classifiers.backbones import LITE0, Network, build
from dagaug.compute.devices import pick_device
from dagaug.compute.tensors import to_tensor
from dagaug.runtime.errors import MissingExtraError
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.streamed_array import ImageArray, batches
from dagaug.score.results import NearDuplicates

__all__ = ["count_near_duplicates", "near_duplicates", "pretrained_network"]

_BATCH = 128

_COPIES = 0.9  # share of altered copies within the feature threshold

_SIGNIFICANCE = 0.01  # level of the test for more near-duplicates than usual


def count_near_duplicates(
    sets: Mapping[str, ImageArray],
    test: ImageArray,
    *,
    batch_size: int = _BATCH,
    execution: Execution = Execution(),
) -> tuple[dict[str, NearDuplicates], str]:
    """Count near-duplicates of the test images in each set of training images; no set may be empty.

    Args:
        sets: training images, RGB, by name of the set.
        test: test images, RGB, of the same size.
        batch_size: images in the network at a time.
        execution: where the network runs; its progress receives the number of images read.

    Returns:
        the counts of each set, and the network of the features: EfficientNet-Lite0 with ImageNet weights, or "" if
        its package is not installed. Features of random weights do not separate different images, so they are not used.
    """
    hashed = {name: len(np.unique(near_duplicates(images, test)[:, 0])) for name, images in sets.items()}
    try:
        network = pretrained_network(test.shape[1]).to(pick_device(execution.device))
    except MissingExtraError:
        return {
            name: NearDuplicates(images=len(images), by_hash=hashed[name], suspicious=hashed[name] > 0)
            for name, images in sets.items()
        }, ""
    total = 2 * len(test) + sum(map(len, sets.values()))
    with execution.progress.task("Looking for near-duplicates", total, "images") as task:
        features, altered = [], []
        for part in batches(test, batch_size):
            features.append(_features(network, part))
            altered.append(_features(network, _altered(part)))
            task.advance(2 * len(part))
        mean = torch.cat(features).mean(0)
        known = F.normalize(torch.cat(features) - mean)  # M D
        to_copies = 1 - (known * F.normalize(torch.cat(altered) - mean)).sum(1)
        threshold = max(float(to_copies.quantile(_COPIES)), 1e-6)
        to_each_other = (1 - known @ known.T).fill_diagonal_(torch.inf).amin(1)
        usual = float((to_each_other <= threshold).float().mean())
        found = {}
        for name, images in sets.items():
            nearest = []
            for part in batches(images, batch_size):
                own = F.normalize(_features(network, part) - mean)
                nearest.append((1 - own @ known.T).amin(1))
                task.advance(len(part))
            distance = torch.cat(nearest).clamp(min=0) / threshold
            near = int((distance <= 1).sum())
            unusual = binomtest(near, len(images), usual, alternative="greater").pvalue < _SIGNIFICANCE
            found[name] = NearDuplicates(
                images=len(images),
                by_hash=hashed[name],
                by_features=near,
                nearest=float(distance.min()),
                usual=usual,
                suspicious=hashed[name] > 0 or bool(unusual),
            )
    return found, LITE0


@cache
def pretrained_network(size: int) -> Network:
    """EfficientNet-Lite0 with ImageNet weights, without its head.

    Raises:
        MissingExtraError: its package is not installed.
    """
    return build(LITE0, 0, size=size).eval()


@torch.inference_mode()
def _features(network: Network, images: UInt8[np.ndarray, "B S S 3"]) -> Float32[Tensor, "B D"]:
    return network(to_tensor(images, network.mean.device)).float().cpu()


def _altered(images: UInt8[np.ndarray, "B S S 3"]) -> UInt8[np.ndarray, "B S S 3"]:
    """The same images slightly faded, blurred, and shifted by 1/32 of the side."""
    size = images.shape[1]
    offset = max(1, size // 32)
    shift = np.array([[1, 0, offset], [0, 1, offset]], np.float32)
    out = np.empty_like(images)
    for row, image in enumerate(images):
        soft = cv2.GaussianBlur(image, (0, 0), size / 100)
        shifted = cv2.warpAffine(soft, shift, (size, size), borderMode=cv2.BORDER_REPLICATE)
        out[row] = np.rint(0.9 * shifted.astype(np.float32) + 12)
    return out


def near_duplicates(first: ImageArray, second: ImageArray, *, threshold: int = 8) -> Int64[np.ndarray, "P 2"]:
    """Pairs (row in ``first``, row in ``second``) of images that look the same.

    The 64-bit difference hashes (which of two neighbours in a 9 × 8 grey thumbnail is brighter) must differ in at most
    ``threshold`` bits. Different images with plain backgrounds can share a hash, so the mean absolute difference of
    the 16 × 16 thumbnails must also be at most 8 of 255 levels.
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


def _hashes(images: ImageArray) -> Float32[np.ndarray, "N 64"]:
    """Difference hashes as ±1; 64 minus a scalar product is twice the Hamming distance."""
    signs = np.empty((len(images), 64), np.float32)
    for row, image in enumerate(image for part in batches(images, _BATCH) for image in part):
        grey = _thumbnail(image, 9, 8) @ np.array((0.299, 0.587, 0.114), np.float32)
        signs[row] = np.where(grey[:, 1:] > grey[:, :-1], 1, -1).reshape(64)
    return signs


def _thumbnail(image: UInt8[np.ndarray, "S S 3"], width: int, height: int) -> Float32[np.ndarray, "H W 3"]:
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
