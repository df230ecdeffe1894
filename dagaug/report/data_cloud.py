"""Data cloud (paper, Fig. 3): 2-D plot of the features of real training, real test and synthetic images.

The features come from one of the cross-fitted judges. A network separates its own training images better than others.
For a fair comparison, only images that this judge was not trained on, and morphs of them, are shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import cv2
import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8
from pydantic import ValidationError
from scipy.spatial.distance import cdist

from dagaug.classifiers.classifier import Classifier
from dagaug.classifiers.cross_fit import CrossFitted
from dagaug.compute.tensors import to_tensor
from dagaug.data.dataset_records import Dataset, Sample
from dagaug.data.object_patches import Framing, Patches, read_patches
from dagaug.hdf5.reader import Store
from dagaug.model.trained_model import find_judges
from dagaug.report.morph_images import ImageRef, MorphTable, OriginalImages, class_balanced_sample
from dagaug.report.network_crops import NetworkInputs
from dagaug.report.tsne import project
from dagaug.runtime.errors import CheckpointError, DataError

__all__ = ["KINDS", "MAX_IMAGES", "Cloud", "make_data_cloud"]

KINDS = ("synthetic", "real training", "real test")
"""Kinds of images in a cloud, in drawing order."""

MAX_IMAGES = MappingProxyType({"synthetic": 400, "real training": 200, "real test": 400})
"""Number of images in a cloud, at most, of each of :data:`KINDS`."""

_FOLDS = 3  # number of judges; each one was not trained on one part of the images
_TILE = (40, 40)
_BATCH = 256


@dataclass(frozen=True)
class Cloud:
    """Images as points of a plane.

    Attributes:
        points: x and y in [0, 1], y downward.
        kind: index into :data:`KINDS` of each point.
        label: class of each point.
        shown: the image of each point.
        tiles: thumbnail of the network input of each point.
        nearest: for each kind present, the fraction of its images whose nearest test image in feature space, itself
            excluded, has the same class.
        learned: whether the judge was trained on the training images shown, because there are no others.
        classes: number of classes shown.
        all_classes: number of classes with synthetic images.
        method: description of the projection.
    """

    points: Float64[np.ndarray, "N 2"]
    kind: Int64[np.ndarray, " N"]
    label: Int64[np.ndarray, " N"]
    shown: tuple[ImageRef, ...]
    tiles: UInt8[np.ndarray, "N T T 3"]
    nearest: dict[str, float]
    learned: bool
    classes: int
    all_classes: int
    method: str

    @property
    def explained(self) -> str:
        """Description of the plot and how to read it, in sentences."""
        count = np.bincount(self.kind, minlength=len(KINDS)).tolist()
        synthetic, training, test = (f"{number:,}" for number in count)
        unseen = "that it was trained on" if self.learned else "that it was not trained on"
        some = f" of {self.classes} of the {self.all_classes} classes" if self.classes < self.all_classes else ""
        return (
            f"Features of one of the judges: {test} test and {training} training images {unseen}, and {synthetic} "
            f"morphs of these training images, sampled at random{some}. Projection: {self.method}. Similar images lie "
            "close together; the distances between groups and the sizes of groups have no meaning."
        )

    @property
    def measured(self) -> str:
        """Nearest-neighbour accuracy in feature space, as a sentence; empty without test images."""
        if not self.nearest:
            return ""
        shares = [f"{share:.0%} of the {name} images" for name, share in self.nearest.items()]
        listed = ", ".join(shares[:-1]) + (" and " if shares[:-1] else "") + shares[-1]
        return f"The nearest test image in feature space has the same class for {listed}."


def make_data_cloud(
    store: Path,
    dataset: Dataset | None,
    *,
    max_images: Mapping[str, int] = MAX_IMAGES,
    max_classes: int = 20,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> tuple[Cloud | None, str]:
    """Make the data cloud of an HDF5 file.

    Args:
        store: HDF5 file of ``dagaug augment``.
        dataset: the data that it was made from.
        max_images: number of images of each kind, at most.
        max_classes: number of classes, at most; more are sampled.
        seed: random seed of the sample.
        device: device of the judge.

    Returns:
        the cloud, or None; and the reason if there is none.
    """
    if dataset is None:
        return None, "the data folder was not found"
    with Store(store) as opened:
        provenance = opened.header.provenance
        judges, why = _judges_of(store, opened, dataset)
        if judges is None:
            return None, why
        judge = judges.classifiers[0].to(device)
        framing = Framing.model_validate(provenance.framing)
        dataset = dataset.subset(provenance.per_class)
        there = np.unique(MorphTable.of(opened).label)
        if not len(there):
            return None, "the file holds no synthetic images"
        classes = np.random.default_rng(seed).permutation(there)[:max_classes]
        try:
            parts, learned = _gathered(opened, dataset, framing, judge, classes, max_images, seed)
        except DataError as error:
            return None, str(error)
    features = np.concatenate([_features(judge, part.images) for part in parts])
    kind = np.repeat(np.arange(len(KINDS)), [len(part.labels) for part in parts])
    label = np.concatenate([part.labels for part in parts])
    points, method = project(features, seed=seed)
    return Cloud(
        points=points,
        kind=kind,
        label=label,
        shown=tuple(one for part in parts for one in part.shown),
        tiles=np.stack([cv2.resize(one, _TILE, interpolation=cv2.INTER_AREA) for part in parts for one in part.images]),
        nearest=_nearest(features, kind, label),
        learned=learned,
        classes=len(classes),
        all_classes=len(there),
        method=method,
    ), ""


def _judges_of(path: Path, store: Store, dataset: Dataset) -> tuple[CrossFitted | None, str]:
    """The judges of a file, or None; and the reason if there are none."""
    provenance = store.header.provenance
    file = find_judges(path, provenance.checkpoint_places(path))
    if file is None:
        return None, "the judges were not found beside the file or its checkpoint"
    try:
        judges = CrossFitted.load(file)
        Framing.model_validate(provenance.framing)
    except CheckpointError as error:
        return None, str(error)
    except ValidationError:
        return None, "the file does not record how its images were cropped"
    if judges.sha256() != provenance.judges:
        return None, f"{file} does not hold the judges of this file"
    if judges.classes != dataset.classes:
        return None, f"the classes of {dataset.root} are not those of the file"
    return judges, ""


@dataclass(frozen=True)
class _Part:
    """The images of one kind."""

    images: UInt8[np.ndarray, "N S S 3"]
    labels: Int64[np.ndarray, " N"]
    shown: tuple[ImageRef, ...]


def _gathered(
    store: Store,
    dataset: Dataset,
    framing: Framing,
    judge: Classifier,
    classes: Int64[np.ndarray, " K"],
    max_images: Mapping[str, int],
    seed: int,
) -> tuple[tuple[_Part, ...], bool]:
    """Sample images of each kind, balanced over these classes, and crop them as for the judge's training.

    Returns:
        one part per kind in :data:`KINDS`, and whether the judge was trained on the training images.
    """
    number = {name: row for row, name in enumerate(store.header.files)}
    wanted = set(classes.tolist())

    def drawn(samples: Sequence[Sample], count: int) -> Patches:
        known = [one for one in samples if one.label in wanted and one.path.as_posix() in number]
        rows = class_balanced_sample(np.array([one.label for one in known], np.int64), count, seed)
        return read_patches(dataset, [known[row] for row in rows.tolist()], framing)

    def part(patches: Patches, rows: Int64[np.ndarray, " N"]) -> _Part:
        files = [number[patches.samples[row].path.as_posix()] for row in rows.tolist()]
        return _Part(patches.images[rows], patches.labels[rows], tuple(ImageRef("original", file) for file in files))

    train = drawn(dataset.train, max_images["real training"] * _FOLDS)
    unseen = ~judge.saw(train.images)
    learned = not unseen.any()
    rows = np.flatnonzero(unseen | learned)
    training = part(train, rows[class_balanced_sample(train.labels[rows], max_images["real training"], seed)])
    test = drawn(dataset.test, max_images["real test"])

    morphs = MorphTable.of(store)
    sources = [number[train.samples[row].path.as_posix()] for row in rows.tolist()]
    made = np.flatnonzero(morphs.kept & np.isin(morphs.source, sources))
    made = made[class_balanced_sample(morphs.label[made], max_images["synthetic"], seed)]
    squares = NetworkInputs(store, OriginalImages(store, dataset.root), framing, dataset)
    shown = tuple(ImageRef("result", row) for row in morphs.row[made].tolist())
    cut = [square.pixels for one in shown if (square := squares.of(one)) is not None]
    synthetic = _Part(np.stack(cut) if cut else test.images[:0], morphs.label[made], shown)
    return (synthetic, training, part(test, np.arange(len(test.labels)))), learned


@torch.inference_mode()
def _features(judge: Classifier, images: UInt8[np.ndarray, "N S S 3"]) -> Float64[np.ndarray, "N D"]:
    """Pooled features: the input of the classifier's last layer."""
    network = judge.network.without_head()
    found = [np.zeros((0, 0))]
    for start in range(0, len(images), _BATCH):
        found.append(network(to_tensor(images[start : start + _BATCH], judge.device)).double().cpu().numpy())
    return np.concatenate(found[1:] or found)


def _nearest(
    features: Float64[np.ndarray, "N D"], kind: Int64[np.ndarray, " N"], label: Int64[np.ndarray, " N"]
) -> dict[str, float]:
    """For each kind, the fraction of images whose nearest other test image has the same class."""
    test = np.flatnonzero(kind == KINDS.index("real test"))
    if len(test) < 2:
        return {}
    distances = cdist(features, features[test])
    distances[test, np.arange(len(test))] = np.inf
    same = label[test[distances.argmin(1)]] == label
    return {name: float(same[kind == place].mean()) for place, name in enumerate(KINDS) if (kind == place).any()}
