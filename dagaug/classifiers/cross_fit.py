"""Cross-fitted judges: each real image and its morphs are judged by a classifier that did not train on that image.

The judges select morphs (paper, Sec. 4.6).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64, Integer, UInt8
from torch import Tensor

from dagaug.classifiers.backbones import create_network, first_line, input_size_for, load_weights, read_weights
from dagaug.classifiers.classifier import Classifier, hash_images, read_classifiers, write_classifiers
from dagaug.classifiers.fit import FitOptions, fit, fit_identity
from dagaug.classifiers.frozen_head import fit_head, pooled_features
from dagaug.classifiers.pretrained_networks import build_pretrained
from dagaug.compute.devices import pick_device
from dagaug.runtime.errors import CheckpointError, UsageError
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.progress import Progress
from dagaug.runtime.streamed_array import ImageArray, select

__all__ = ["TRUSTED_ACCURACY", "CrossFitted", "SyntheticImages", "assign_folds", "cross_fit", "judge_from_weights"]

TRUSTED_ACCURACY = 0.5
"""Least held-out accuracy of judges that may reject morphs by default; doubts of weaker judges are mostly noise."""


class SyntheticImages(NamedTuple):
    """Synthetic images for training judges beside the real ones.

    Attributes:
        images: RGB, M of the size of the real images.
        labels: their classes.
        made_from: for each image the rows of the K real images that it was made from.
    """

    images: ImageArray
    labels: Int64[np.ndarray, " M"]
    made_from: Int64[np.ndarray, "M K"]

    def only(self, allowed: Bool[np.ndarray, " N"]) -> tuple[ImageArray, Int64[np.ndarray, " m"]]:
        """Images and labels of those that were made from allowed real images only."""
        rows = self.rows_from(allowed)
        return select(self.images, rows), self.labels[rows]

    def rows_from(self, allowed: Bool[np.ndarray, " N"]) -> Int64[np.ndarray, " m"]:
        """Rows of those that were made from allowed real images only."""
        return np.flatnonzero(allowed[self.made_from].all(1))


class CrossFitted:
    """One classifier for each fold of the real images; it judges the images of its fold and their morphs.

    Attributes:
        classifiers: one for each fold, trained on the other folds.
        fold_of: fold of each real image.
        held_out: for each real image, whether its classifier did not train on it. False for the only image of a class,
            which is always trained on, and for all images if there is only one classifier.
        accuracy: top-1 accuracy on the held-out images in [0, 1], each judged by its own classifier; NaN if no image
            is held out.
    """

    def __init__(
        self,
        classifiers: Sequence[Classifier],
        fold_of: Int64[np.ndarray, " N"],
        held_out: Bool[np.ndarray, " N"],
        accuracy: float,
    ) -> None:
        self.classifiers = tuple(classifiers)
        self.fold_of = fold_of
        self.held_out = held_out
        self.accuracy = accuracy

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the probabilities."""
        return self.classifiers[0].classes

    def to(self, device: torch.device | str) -> CrossFitted:
        """Move all classifiers to a device, in place."""
        for classifier in self.classifiers:
            classifier.to(device)
        return self

    def probabilities_of_tensor(
        self, images: Float[Tensor, "B 3 H W"], rows: Integer[np.ndarray, " B"]
    ) -> Float32[Tensor, "B K"]:
        """Class probabilities of morphs.

        Args:
            images: morphs in [-1, 1], on the classifiers' device.
            rows: the real image that each morph was made from.
        """
        folds = self.fold_of[rows]
        out = images.new_zeros((len(images), len(self.classes)), dtype=torch.float32)
        for fold in np.unique(folds):
            chosen = torch.from_numpy(np.flatnonzero(folds == fold)).to(images.device)
            out[chosen] = self.classifiers[fold].probabilities_of_tensor(images[chosen])
        return out

    def probabilities(
        self, images: UInt8[np.ndarray, "B H W 3"], rows: Integer[np.ndarray, " B"]
    ) -> Float32[np.ndarray, "B K"]:
        """The same for uint8 RGB images."""
        return _judge_by_fold(self.classifiers, images, self.fold_of[rows])

    def sha256(self) -> str:
        """Hash (hexadecimal) of the classifiers' weights and class names."""
        digest = hashlib.sha256(json.dumps(self.classes).encode())
        for classifier in self.classifiers:
            for name, tensor in sorted(classifier.network.state_dict().items()):
                digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def save(self, path: Path, identity: str = "") -> None:
        """Write one safetensors file; ``identity`` is a hash of what the classifiers were trained from."""
        tensors = {"fold_of": torch.from_numpy(self.fold_of), "held_out": torch.from_numpy(self.held_out)}
        accuracy = None if math.isnan(self.accuracy) else self.accuracy
        write_classifiers(path, self.classifiers, tensors, {"identity": identity, "accuracy": accuracy})

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu", *, identity: str | None = None) -> CrossFitted:
        """Read what :meth:`save` wrote.

        Raises:
            CheckpointError: the file is missing, corrupt, of another version, or not of ``identity``.
        """
        classifiers, tensors, header = read_classifiers(path)
        if identity is not None and header.get("identity") != identity:
            raise CheckpointError(f"{path}: judges of other images, options or library versions")
        try:
            fold_of, held_out = tensors["fold_of"].numpy(), tensors["held_out"].numpy()
            accuracy = math.nan if header["accuracy"] is None else float(header["accuracy"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: holds no complete set of judges ({first_line(error)})") from error
        return cls(classifiers, fold_of, held_out, accuracy).to(device)


def assign_folds(
    hashes: Int64[np.ndarray, " N"], labels: Integer[np.ndarray, " N"], folds: int, *, seed: int
) -> tuple[Int64[np.ndarray, " N"], Bool[np.ndarray, " N"]]:
    """Assign images to folds, stratified by class; copies of one image (equal hashes) stay in one fold.

    The number of folds is at most the number of different images in the smallest class, classes of a single image not
    counted. A single image goes to fold 0 and is not held out. If fewer than two folds are possible, all images go to
    fold 0 and none is held out.

    Returns:
        the fold of each image, and whether the image may be held out.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, 17]))
    distinct = {int(c): list(dict.fromkeys(hashes[labels == c].tolist())) for c in np.unique(labels)}
    counts = [len(images) for images in distinct.values() if len(images) > 1]
    folds = min([folds, *counts]) if counts else 1
    assigned: dict[int, tuple[int, bool]] = {}
    turn = 0
    for images in distinct.values():
        new = [image for image in images if image not in assigned]  # a copy under another label keeps its first fold
        for image in (new[i] for i in rng.permutation(len(new))):
            assigned[image] = (turn % folds, True)
            turn += 1
    for images in distinct.values():
        if len(images) == 1:
            assigned[images[0]] = (0, False)
    fold_of = np.array([assigned[image][0] for image in hashes.tolist()], dtype=np.int64)
    held_out = np.array([assigned[image][1] and folds > 1 for image in hashes.tolist()], dtype=bool)
    return fold_of, held_out


def cross_fit(
    images: ImageArray,
    labels: Integer[np.ndarray, " N"],
    classes: Sequence[str],
    options: FitOptions,
    *,
    folds: int = 3,
    seed: int,
    cache: Path | None = None,
    synthetic: Callable[[], SyntheticImages] | None = None,
    synthetic_identity: str = "",
    execution: Execution = Execution(),
) -> CrossFitted:
    """Train one classifier for each fold, on the images of the other folds.

    Args:
        images: real training images, RGB.
        labels: their classes, indices into ``classes``.
        classes: class names.
        options: see :class:`FitOptions`.
        folds: number of folds; fewer where a class has fewer images; 1 trains a single classifier on all images.
        seed: of the folds and of each training.
        cache: file of judges. It is reused if images, options, folds, seed and library versions are the same, and
            written otherwise.
        synthetic: makes synthetic images, which take a share of each batch (``options.synthetic_share``). A classifier
            gets only those whose real images it may train on.
        synthetic_identity: hash of what the synthetic images depend on, for the cache.
        execution: where to train; the classifiers stay there. Its progress receives each step of each training, and a
            warning if the judges' accuracy is low.

    Raises:
        UsageError: ``folds`` is below 1, or timm refuses the network.
        TrainingError: there are no images, or the loss is not finite.
    """
    if folds < 1:
        raise UsageError("give at least 1", option="folds", value=folds)
    progress = execution.progress
    hashes = hash_images(images)
    identity = fit_identity(hashes, labels, classes, options, folds, seed, synthetic_identity)
    if cache is not None and cache.exists():
        try:
            fitted = CrossFitted.load(cache, pick_device(execution.device), identity=identity)
        except CheckpointError as error:
            progress.say(f"{error}; training new judges")
        else:
            progress.say(f"{cache}: using these judges, trained before")
            _warn_if_weak(fitted, progress)
            return fitted
    fold_of, held_out = assign_folds(hashes, labels, folds, seed=seed)
    count = int(fold_of.max(initial=0)) + 1
    extra = None if synthetic is None else synthetic()
    classifiers = []
    if options.head_only:
        classifiers = _fit_heads(images, labels, classes, options, fold_of, held_out, extra, execution)
    for fold in range(len(classifiers), count):
        train = (fold_of != fold) | ~held_out
        title = f"training the classifier, fold {fold + 1} of {count}" if count > 1 else "training the classifier"
        classifiers.append(
            fit(
                select(images, train), labels[train], classes, options, seed=seed, title=title,
                synthetic=None if extra is None else extra.only(train), execution=execution,
            )
        )  # fmt: skip
    probabilities = _judge_by_fold(classifiers, select(images, held_out), fold_of[held_out])
    right = probabilities.argmax(axis=1) == labels[held_out]
    fitted = CrossFitted(classifiers, fold_of, held_out, float(right.mean()) if len(right) else math.nan)
    if cache is not None:
        fitted.save(cache, identity)
    _warn_if_weak(fitted, progress)
    return fitted


def _fit_heads(
    images: ImageArray,
    labels: Integer[np.ndarray, " N"],
    classes: Sequence[str],
    options: FitOptions,
    fold_of: Int64[np.ndarray, " N"],
    held_out: Bool[np.ndarray, " N"],
    synthetic: SyntheticImages | None,
    execution: Execution,
) -> list[Classifier]:
    """The classifiers of all folds, from features that are read once."""
    device, progress = pick_device(execution.device), execution.progress
    network = build_pretrained(options.name, input_size=options.size, weights=options.weights).to(device)
    features = pooled_features(network, images, progress=progress)
    made = None if synthetic is None else pooled_features(network, synthetic.images, progress=progress)
    classifiers = []
    for fold in range(int(fold_of.max(initial=0)) + 1):
        train = (fold_of != fold) | ~held_out
        extra = None
        if synthetic is not None and made is not None:
            rows = synthetic.rows_from(train)
            extra = (made[rows], synthetic.labels[rows])
        fitted = fit_head(options, classes, select(images, train), features[train], labels[train], extra)
        classifiers.append(fitted.to(device))
    return classifiers


def _warn_if_weak(fitted: CrossFitted, progress: Progress) -> None:
    if fitted.accuracy < TRUSTED_ACCURACY:
        progress.say(
            f"The judges reach only {fitted.accuracy:.0%} accuracy on held-out real images, so by default they reject "
            "no morphs. Set a minimum confidence or reject mislabelled morphs to change this; another classifier or "
            "pretrained weights may judge better."
        )


def _judge_by_fold(
    classifiers: Sequence[Classifier], images: ImageArray, folds: Int64[np.ndarray, " N"]
) -> Float32[np.ndarray, "N K"]:
    """Class probabilities of images, each by the classifier of its fold."""
    out = np.zeros((len(images), len(classifiers[0].classes)), dtype=np.float32)
    for fold in np.unique(folds):
        out[folds == fold] = classifiers[fold].probabilities(select(images, folds == fold))
    return out


def judge_from_weights(
    name: str, classes: Sequence[str], *, size: int, weights: Path, class_map: Path | None = None
) -> Classifier | None:
    """A judge that needs no training: a classifier that dagaug saved, or weights with a head for these classes.

    Args:
        name: timm name of the network of the weights.
        classes: class names of the data.
        size: side of the images in pixels.
        weights: see :func:`dagaug.classifiers.backbones.build`.
        class_map: text file with a class name for each logit; None if the logits are those of ``classes``, in order.

    Returns:
        the judge; None if the weights have no head for so many classes and can only start a training.

    Raises:
        CheckpointError: the file is missing, corrupt, for another network, or for other classes.
        UsageError: the class map is not readable, lacks a class, or belongs to no such weights.
    """
    tensors = read_weights(weights)
    if any(key.startswith("0.") for key in tensors):
        if class_map is not None:
            raise UsageError(f"{weights} names its classes itself", option="class_map", value=class_map)
        classifier = Classifier.load(weights)
        if classifier.classes != tuple(classes):
            raise CheckpointError("judges other classes than the data set's", option="weights", value=weights)
        return classifier
    names = list(classes) if class_map is None else _read_class_map(class_map, classes)
    network = create_network(name, len(names), input_size_for(name, size))
    load_weights(network.model, tensors, weights)
    own = network.model.state_dict()
    head = [key for key, tensor in own.items() if tensor.ndim and tensor.shape[0] == len(names)]
    fits = bool(head) and all(key in tensors and tensors[key].shape == own[key].shape for key in head[-2:])
    if not fits and class_map is not None:
        raise UsageError(f"{weights} has no last layer of {len(names)} classes", option="class_map", value=class_map)
    if not fits:
        return None
    if class_map is not None:
        rows = torch.tensor([names.index(one) for one in classes])
        cast(Any, network.model).reset_classifier(len(classes))
        network.model.load_state_dict({key: tensors[key][rows] for key in head[-2:]}, strict=False)
    return Classifier(network, classes, size)


def _read_class_map(path: Path, classes: Sequence[str]) -> list[str]:
    """The class names of a text file, one a line.

    Raises:
        UsageError: the file cannot be read, or lacks one of ``classes``.
    """
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot be read as text ({error})", option="class_map", value=path) from error
    missing = next((one for one in classes if one not in names), None)
    if missing is not None:
        raise UsageError(f"has no line for the class {missing}", option="class_map", value=path)
    return names
