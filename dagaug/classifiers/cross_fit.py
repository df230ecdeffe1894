"""Judges of morphs: classifiers of which each judges what it did not learn from (selection, paper Sec. 4.6)."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64, Integer, UInt8
from torch import Tensor

from dagaug.classifiers.backbones import create, first_line, input_size_for, load_weights, read_weights
from dagaug.classifiers.classifier import Classifier, hash_images, read_classifiers, write_classifiers
from dagaug.classifiers.fit import FitOptions, fit, identity_of
from dagaug.runtime.errors import CheckpointError, UsageError
from dagaug.runtime.progress import SILENT, Progress

__all__ = ["TRUSTED", "CrossFitted", "Practice", "cross_fit", "folds_of", "ready_judge"]

TRUSTED = 0.5
"""Judges that are right on fewer of the images that they did not see drop nothing: their doubts are mostly noise."""


class Practice(NamedTuple):
    """Made images from which cross-fitted classifiers learn beside the real ones.

    Attributes:
        images: RGB, of the size of the real ones.
        labels: their classes.
        made_from: rows of the real images that each was made from.
    """

    images: UInt8[np.ndarray, "M H W 3"]
    labels: Int64[np.ndarray, " M"]
    made_from: Int64[np.ndarray, "M K"]

    def only(self, allowed: Bool[np.ndarray, " N"]) -> tuple[UInt8[np.ndarray, "m H W 3"], Int64[np.ndarray, " m"]]:
        """Images and labels of those that were made from allowed real images alone."""
        rows = np.flatnonzero(allowed[self.made_from].all(1))
        return self.images[rows], self.labels[rows]


class CrossFitted:
    """Classifiers of which each judges the images that it did not learn from.

    Attributes:
        classifiers: one for each fold.
        fold_of: for each image the classifier that judges it and its morphs.
        held_out: whether that classifier really did not learn from the image; False for the only image of a
            class, which must always train, and everywhere if there is but one classifier.
        accuracy: top-1 accuracy on the held-out images, each judged by its own classifier; NaN if there are
            none.
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
        """Names of the classifiers' outputs."""
        return self.classifiers[0].classes

    def to(self, device: torch.device | str) -> CrossFitted:
        """Move all classifiers to a device, in place."""
        for classifier in self.classifiers:
            classifier.to(device)
        return self

    def probabilities_of_tensor(
        self, images: Float[Tensor, "B 3 H W"], rows: Integer[np.ndarray, " B"]
    ) -> Float32[Tensor, "B K"]:
        """Judge images in [-1, 1], on the classifiers' device, made from the real images ``rows``."""
        folds = self.fold_of[rows]
        out = images.new_zeros((len(images), len(self.classes)), dtype=torch.float32)
        for fold in np.unique(folds):
            chosen = torch.from_numpy(np.flatnonzero(folds == fold)).to(images.device)
            out[chosen] = self.classifiers[fold].probabilities_of_tensor(images[chosen])
        return out

    def probabilities(
        self, images: UInt8[np.ndarray, "B H W 3"], rows: Integer[np.ndarray, " B"]
    ) -> Float32[np.ndarray, "B K"]:
        """Judge uint8 images that were made from the real images ``rows``."""
        return _judge(self.classifiers, images, self.fold_of[rows])

    def sha256(self) -> str:
        """Hash (in hexadecimal) of the classifiers' weights and classes, whichever images they judge."""
        digest = hashlib.sha256(json.dumps(self.classes).encode())
        for classifier in self.classifiers:
            for name, tensor in sorted(classifier.network.state_dict().items()):
                digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def save(self, path: Path, identity: str = "") -> None:
        """Write one safetensors file with all classifiers; ``identity`` says what they were made from."""
        tensors = {"fold_of": torch.from_numpy(self.fold_of), "held_out": torch.from_numpy(self.held_out)}
        accuracy = None if math.isnan(self.accuracy) else self.accuracy
        write_classifiers(path, self.classifiers, tensors, {"identity": identity, "accuracy": accuracy})

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu", *, identity: str | None = None) -> CrossFitted:
        """Read what :meth:`save` wrote.

        Raises:
            CheckpointError: missing, corrupt, of another version, or made from something else than
                ``identity``.
        """
        classifiers, tensors, header = read_classifiers(path)
        if identity is not None and header.get("identity") != identity:
            raise CheckpointError(f"{path}: classifiers of other images or options; delete it to train anew")
        try:
            fold_of, held_out = tensors["fold_of"].numpy(), tensors["held_out"].numpy()
            accuracy = math.nan if header["accuracy"] is None else float(header["accuracy"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{path}: a damaged classifier ({first_line(error)}); delete it to train anew"
            ) from error
        return cls(classifiers, fold_of, held_out, accuracy).to(device)


def folds_of(
    hashes: Int64[np.ndarray, " N"], labels: Integer[np.ndarray, " N"], folds: int, *, seed: int
) -> tuple[Int64[np.ndarray, " N"], Bool[np.ndarray, " N"]]:
    """Deal images to folds, stratified by class; copies of one image (equal hashes) stay together.

    There are never more folds than different images in the smallest class, classes with a single one left
    aside: those are dealt to fold 0 but not held out. Fewer than two possible folds give fold 0 and nothing
    held out.

    Returns:
        the fold of each image, and whether it may be held out.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, 17]))
    kinds = {int(c): list(dict.fromkeys(hashes[labels == c].tolist())) for c in np.unique(labels)}
    several = [len(kind) for kind in kinds.values() if len(kind) > 1]
    folds = min([folds, *several]) if several else 1
    dealt: dict[int, tuple[int, bool]] = {}
    turn = 0
    for kind in kinds.values():
        kind = [image for image in kind if image not in dealt]  # a copy under another label keeps its first fold
        for image in (kind[i] for i in rng.permutation(len(kind))):
            dealt[image] = (turn % folds, True)
            turn += 1
    for kind in kinds.values():
        if len(kind) == 1:
            dealt[kind[0]] = (0, False)
    fold_of = np.array([dealt[image][0] for image in hashes.tolist()], dtype=np.int64)
    held_out = np.array([dealt[image][1] and folds > 1 for image in hashes.tolist()], dtype=bool)
    return fold_of, held_out


def cross_fit(
    images: UInt8[np.ndarray, "N H W 3"],
    labels: Integer[np.ndarray, " N"],
    classes: Sequence[str],
    options: FitOptions,
    *,
    folds: int = 3,
    seed: int,
    device: torch.device | str = "cpu",
    cache: Path | None = None,
    practice: Callable[[], Practice] | None = None,
    practice_of: str = "",
    progress: Progress = SILENT,
) -> CrossFitted:
    """Train one classifier for each fold on the images of the other folds.

    Args:
        images: real training images, RGB.
        labels: their classes, indices into ``classes``.
        classes: class names.
        options: see :class:`FitOptions`.
        folds: how many; fewer where a class has fewer images; 1 trains a single classifier on everything.
        seed: of the folds and of each training.
        device: where to train; the classifiers stay there.
        cache: file to reuse if it was made from the same images, options, folds and seed; else written.
        practice: makes images that have a share of each batch (``options.synthetic_share``); a classifier sees those
            alone of which it may see all that they were made from.
        practice_of: names what else those depend on, for the cache.
        progress: told of each step of each training, and of judges that are wrong more often than right.

    Raises:
        TrainingError: no images, or a loss that is not finite.
        CheckpointError: a cache that is there but damaged.
    """
    if folds < 1:
        raise UsageError(f"--folds {folds}: at least 1")
    hashes = hash_images(images)
    identity = identity_of(hashes, labels, classes, options, folds, seed, practice_of)
    if cache is not None and cache.exists():
        try:
            fitted = CrossFitted.load(cache, device, identity=identity)
        except CheckpointError as error:
            progress.say(f"{error}; training them anew")
        else:
            progress.say(f"{cache}: the classifiers are there already; not trained again")
            _warn(fitted, progress)
            return fitted
    fold_of, held_out = folds_of(hashes, labels, folds, seed=seed)
    count = int(fold_of.max(initial=0)) + 1
    made = None if practice is None else practice()
    classifiers = []
    for fold in range(count):
        train = (fold_of != fold) | ~held_out
        title = f"training the classifier, fold {fold + 1} of {count}" if count > 1 else "training the classifier"
        classifiers.append(
            fit(
                images[train], labels[train], classes, options, seed=seed, device=device,
                synthetic=None if made is None else made.only(train), progress=progress, title=title,
            )
        )  # fmt: skip
    probabilities = _judge(classifiers, images[held_out], fold_of[held_out])
    right = probabilities.argmax(axis=1) == labels[held_out]
    fitted = CrossFitted(classifiers, fold_of, held_out, float(right.mean()) if len(right) else math.nan)
    if cache is not None:
        fitted.save(cache, identity)
    _warn(fitted, progress)
    return fitted


def _warn(fitted: CrossFitted, progress: Progress) -> None:
    """Say so where selection by these classifiers is worth little."""
    if fitted.accuracy < TRUSTED:
        progress.say(
            f"The classifiers are right on only {fitted.accuracy:.0%} of the real images that they did not see: what "
            "they are unsure of is kept (--min-confidence, --reject-mislabelled drop it); better ones can be named "
            "with --classifier and --weights"
        )


def _judge(
    classifiers: Sequence[Classifier], images: UInt8[np.ndarray, "N H W 3"], folds: Int64[np.ndarray, " N"]
) -> Float32[np.ndarray, "N K"]:
    out = np.zeros((len(images), len(classifiers[0].classes)), dtype=np.float32)
    for fold in np.unique(folds):
        out[folds == fold] = classifiers[fold].probabilities(images[folds == fold])
    return out


def ready_judge(name: str, classes: Sequence[str], *, size: int, weights: Path) -> Classifier | None:
    """A classifier that needs no training: one that :meth:`Classifier.save` wrote, or weights with a fitting head.

    Args:
        name: timm name of the network that the weights are for.
        classes: names of its outputs.
        size: side of the images in pixels.
        weights: see :func:`dagaug.backbones.build`.

    Returns:
        None if the weights have no head for so many classes, so that they can only be where a training starts.

    Raises:
        CheckpointError: the file is missing, corrupt, for another network, or for other classes.
    """
    tensors = read_weights(weights)
    if any(key.startswith("0.") for key in tensors):
        classifier = Classifier.load(weights)
        if classifier.classes != tuple(classes):
            raise CheckpointError(f"--weights {weights}: judges other classes than the data set's")
        return classifier
    network = create(name, len(classes), input_size_for(name, size))
    load_weights(network.model, tensors, str(weights))
    own = network.model.state_dict()
    head = [key for key, tensor in own.items() if tensor.ndim and tensor.shape[0] == len(classes)]
    fits = bool(head) and all(key in tensors and tensors[key].shape == own[key].shape for key in head[-2:])
    return Classifier(network, classes, size) if fits else None
