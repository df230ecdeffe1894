"""The data cloud (paper, Fig. 3): real training, real test and synthetic images as one of the judges sees them.

A network that learned from images has pulled them apart by class; beside them all others look worse than they are. So
one of the cross-fitted classifiers that selected shows only images that it did not learn from, and morphs of such
images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8
from pydantic import ValidationError
from scipy.spatial.distance import cdist

from dagaug.classifiers.classifier import Classifier
from dagaug.classifiers.cross_fit import CrossFitted
from dagaug.compute.tensors import to_tensor
from dagaug.data.dataset import Dataset, Sample
from dagaug.data.patches import Framing, Patches, read_patches
from dagaug.hdf5.reader import Store
from dagaug.model.trained_model import find_judges
from dagaug.report.network_views import Squares
from dagaug.report.pictures import Morphs, Originals, Shown, evenly
from dagaug.report.tsne import project
from dagaug.runtime.errors import CheckpointError, DataError

__all__ = ["KINDS", "Cloud", "cloud_of"]

KINDS = ("synthetic", "real training", "real test")
"""Of images in a cloud, in the order in which they are drawn."""

_MOST = {"synthetic": 400, "real training": 200, "real test": 400}


_MOST_CLASSES = 20


_FOLDS = 3  # images are drawn for so many judges, of which each has not learned from a part


_TILE = (40, 40)


_BATCH = 256


@dataclass(frozen=True)
class Cloud:
    """Images as points.

    Attributes:
        points: x and y in [0, 1], y downward.
        kind: of each, an index into :data:`KINDS`.
        label: class of each.
        shown: what each is.
        tiles: what the network saw of it, small.
        nearest: for each kind that there is, the share of its images whose nearest test image (by the features, itself
            left aside) is of their class.
        learned: whether the network learned from the training images that are shown, since there are no others.
        classes: of how many classes these are.
        all_classes: of how many there are images.
        method: how points were made of features, in words.
    """

    points: Float64[np.ndarray, "N 2"]
    kind: Int64[np.ndarray, " N"]
    label: Int64[np.ndarray, " N"]
    shown: tuple[Shown, ...]
    tiles: UInt8[np.ndarray, "N T T 3"]
    nearest: dict[str, float]
    learned: bool
    classes: int
    all_classes: int
    method: str

    @property
    def explained(self) -> str:
        """What is seen, and what to beware of, in sentences."""
        count = np.bincount(self.kind, minlength=len(KINDS)).tolist()
        synthetic, training, test = (f"{number:,}" for number in count)
        unseen = "all of which it learned from" if self.learned else "that it did not learn from"
        some = f" of {self.classes} of the {self.all_classes} classes" if self.classes < self.all_classes else ""
        return (
            f"Images as one of the classifiers that selected sees them: {test} test and {training} training images "
            f"{unseen}, and {synthetic} morphs of such training images, drawn at random{some}. Its features are laid "
            f"out by the {self.method}: like lies near like, but how far apart or how large groups are means nothing."
        )

    @property
    def measured(self) -> str:
        """What the picture can only hint at, as a sentence; empty without test images."""
        if not self.nearest:
            return ""
        shares = [f"{share:.0%} of the {name} images" for name, share in self.nearest.items()]
        listed = ", ".join(shares[:-1]) + (" and " if shares[:-1] else "") + shares[-1]
        return f"The nearest test image (by the features) is of the same class for {listed}."


def cloud_of(
    store: Path, dataset: Dataset | None, *, seed: int = 0, device: torch.device | str = "cpu"
) -> tuple[Cloud | None, str]:
    """The cloud of an HDF5 file; or None, and why it is not to be had.

    Args:
        store: HDF5 file of ``dagaug augment``.
        dataset: the data that it was made from.
        seed: of the images that are shown.
        device: where the network runs.
    """
    if dataset is None:
        return None, "the data folder is not at hand; give it with --data"
    with Store(store) as opened:
        provenance = opened.header.provenance
        judges, why = _judges_of(store, opened, dataset)
        if judges is None:
            return None, why
        judge = judges.classifiers[0].to(device)
        framing = Framing.model_validate(provenance.framing)
        dataset = dataset.subset(provenance.per_class)
        there = np.unique(Morphs.of(opened).label)
        if not len(there):
            return None, "the file holds no synthetic images"
        classes = np.random.default_rng(seed).permutation(there)[:_MOST_CLASSES]
        try:
            parts, learned = _gathered(opened, dataset, framing, judge, classes, seed)
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
    """The classifiers that selected for a file; or None, and why not."""
    provenance = store.header.provenance
    file = find_judges(path, provenance.checkpoint)
    if file is None:
        return None, "the classifiers that selected are not beside the file or its checkpoint"
    try:
        judges = CrossFitted.load(file)
        Framing.model_validate(provenance.framing)
    except CheckpointError as error:
        return None, str(error)
    except ValidationError:
        return None, "the file does not say how its images were cut"
    if judges.sha256() != provenance.judges:
        return None, f"{file} are not the classifiers that selected for this file"
    if judges.classes != dataset.classes:
        return None, f"the classes of {dataset.root} are not those of the file"
    return judges, ""


@dataclass(frozen=True)
class _Part:
    """The images of a kind."""

    images: UInt8[np.ndarray, "N S S 3"]
    labels: Int64[np.ndarray, " N"]
    shown: tuple[Shown, ...]


def _gathered(
    store: Store, dataset: Dataset, framing: Framing, judge: Classifier, classes: Int64[np.ndarray, " K"], seed: int
) -> tuple[tuple[_Part, ...], bool]:
    """Draw images of each kind, evenly over these classes, and cut them as the judge was trained to see them.

    Returns:
        a part for each of :data:`KINDS`, and whether the judge learned from the training images in it.
    """
    number = {name: row for row, name in enumerate(store.header.files)}
    wanted = set(classes.tolist())

    def drawn(samples: Sequence[Sample], count: int) -> Patches:
        known = [one for one in samples if one.label in wanted and one.path.as_posix() in number]
        rows = evenly(np.array([one.label for one in known], np.int64), count, seed)
        return read_patches(dataset, [known[row] for row in rows.tolist()], framing)

    def part(patches: Patches, rows: Int64[np.ndarray, " N"]) -> _Part:
        files = [number[patches.samples[row].path.as_posix()] for row in rows.tolist()]
        return _Part(patches.images[rows], patches.labels[rows], tuple(Shown("original", file) for file in files))

    train = drawn(dataset.train, _MOST["real training"] * _FOLDS)
    unseen = ~judge.saw(train.images)
    learned = not unseen.any()
    rows = np.flatnonzero(unseen | learned)
    training = part(train, rows[evenly(train.labels[rows], _MOST["real training"], seed)])
    test = drawn(dataset.test, _MOST["real test"])

    morphs = Morphs.of(store)
    sources = [number[train.samples[row].path.as_posix()] for row in rows.tolist()]
    made = np.flatnonzero(morphs.kept & np.isin(morphs.source, sources))
    made = made[evenly(morphs.label[made], _MOST["synthetic"], seed)]
    squares = Squares(store, Originals(store, dataset.root), framing, dataset)
    shown = tuple(Shown("result", row) for row in morphs.row[made].tolist())
    cut = [square.pixels for one in shown if (square := squares.of(one)) is not None]
    synthetic = _Part(np.stack(cut) if cut else test.images[:0], morphs.label[made], shown)
    return (synthetic, training, part(test, np.arange(len(test.labels)))), learned


@torch.inference_mode()
def _features(judge: Classifier, images: UInt8[np.ndarray, "N S S 3"]) -> Float64[np.ndarray, "N D"]:
    """Pooled features, those that the classifier's last layer sees."""
    network = judge.network.without_head()
    found = [np.zeros((0, 0))]
    for start in range(0, len(images), _BATCH):
        found.append(network(to_tensor(images[start : start + _BATCH], judge.device)).double().cpu().numpy())
    return np.concatenate(found[1:] or found)


def _nearest(
    features: Float64[np.ndarray, "N D"], kind: Int64[np.ndarray, " N"], label: Int64[np.ndarray, " N"]
) -> dict[str, float]:
    """For each kind the share of images whose nearest test image, but themselves, is of their class."""
    test = np.flatnonzero(kind == KINDS.index("real test"))
    if len(test) < 2:
        return {}
    apart = cdist(features, features[test])
    apart[test, np.arange(len(test))] = np.inf
    same = label[test[apart.argmin(1)]] == label
    return {name: float(same[kind == place].mean()) for place, name in enumerate(KINDS) if (kind == place).any()}
