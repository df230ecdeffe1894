"""Preparation of the classifiers that judge morphs: given, trained by cross-fitting, or those of a finished file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64
from scipy.optimize import linear_sum_assignment

from dagaug.augment.finished_file_reuse import PreviousFile
from dagaug.augment.judge_practice_images import practice_images
from dagaug.augment.prepared_augmentation import Job
from dagaug.classifiers.backbones import LITE0, network_for
from dagaug.classifiers.classifier import Classifier, untrained
from dagaug.classifiers.cross_fit import TRUSTED_ACCURACY, CrossFitted, SyntheticImages, cross_fit, judge_from_weights
from dagaug.classifiers.fit import FitOptions
from dagaug.classifiers.pretrained_networks import licence_of, names_weights
from dagaug.classifiers.recipes import Mode
from dagaug.data.mask_files import take_masks
from dagaug.runtime.errors import CheckpointError
from dagaug.runtime.execution_settings import Execution

__all__ = ["Judges", "licences_of_weights", "prepare_judges", "single_judge", "untrained_judge"]


_ENOUGH_TO_TELL = 12  # images; with fewer, a good judge may look as bad as chance
_HEAD_SIZE = 160  # side in pixels at which frozen networks judge; twice as fast as 224 on a CPU


@dataclass(frozen=True)
class Judges:
    """Classifiers that are ready to judge the morphs of a job.

    Attributes:
        classifiers: one for each cross-validation fold.
        rows: for each patch its row among the classifiers' images; -1 if no classifier was trained on it.
        sha256: hash of the classifiers, in hexadecimal.
        min_confidence: smallest confidence that the selection accepts, in [0, 1].
        accuracy_on_training: top-1 accuracy in [0, 1] of a given classifier on the real training images, from which it
            may have learned; None if the classifiers were trained here.
    """

    classifiers: CrossFitted
    rows: Int64[np.ndarray, " N"]
    sha256: str
    min_confidence: float
    accuracy_on_training: float | None = None


def prepare_judges(
    job: Job, cache: Path | None, *, previous: PreviousFile | None = None, execution: Execution = Execution()
) -> Judges:
    """Load or train the judges of a job.

    Args:
        job: gives patches, options and device.
        cache: file that keeps trained classifiers; None trains without it.
        previous: a finished file; the classifiers that selected its morphs are used, and no others.
        execution: that of the job; its progress receives the steps of the trainings.

    Raises:
        CheckpointError: those classifiers are no longer in the cache, the given weights do not fit, or their classifier
            is no better than chance on the real training images.
        TrainingError: the classifiers cannot be trained.
    """
    given, accuracy_on_training = _given_classifier(job), None
    if given is not None:
        accuracy_on_training = _check_given(job, given.to(job.device))
        execution.progress.say(
            f"{job.options.weights}: used as the judge without training; {accuracy_on_training:.1%} accuracy on the "
            "real training images, from which it may have learned"
        )
        classifiers, rows = single_judge(given), np.zeros(len(job.patches.samples), np.int64)
    else:
        rows = _training_order(job)
        if previous is not None and cache is not None and cache.exists():
            classifiers = CrossFitted.load(cache, job.device)
        else:
            classifiers = _trained(job, cache, execution)
    sha256 = classifiers.sha256()
    if previous is not None:
        if sha256 != previous.judges_sha256:
            raise CheckpointError(
                f"{job.options.weights or cache}: not the classifiers that selected the morphs of {previous.path}",
                remedies={"overwrite": True},
            )
        if given is None and cache is not None:
            classifiers = _with_new_images(job, classifiers, previous, cache)
    return Judges(classifiers, rows, sha256, _min_confidence(job, classifiers.accuracy), accuracy_on_training)


def licences_of_weights(job: Job, judges: Judges) -> dict[str, str]:
    """Licence of each pretrained network whose weights made or selected the morphs, for display."""
    features, weights = job.model.card.features, job.options.weights
    found = {} if features is None else {features.name: features.licence}
    network = judges.classifiers.classifiers[0].network
    if weights is not None:
        found[weights.name] = licence_of(network, weights)
    elif network.name == LITE0 or names_weights(network.name):
        found.setdefault(network.name, licence_of(network, None))
    return found


def _min_confidence(job: Job, accuracy: float) -> float:
    """The option or, by default, the chance level; 0 if the classifiers are unreliable or nothing would pass."""
    if job.options.min_confidence is not None:
        return job.options.min_confidence
    chance = 1 / len(job.dataset.classes)
    return 0.0 if accuracy < TRUSTED_ACCURACY or chance >= job.options.max_confidence else chance


def _network(job: Job) -> str:
    return network_for(job.options.classifier, job.model.card.framing.size)


def _given_classifier(job: Job) -> Classifier | None:
    """The classifier in the weights file; None without one, or if the weights are only a start for training."""
    if job.options.weights is None:
        return None
    size = job.model.card.framing.size
    return judge_from_weights(
        _network(job), job.dataset.classes, size=size, weights=job.options.weights, class_map=job.options.class_map
    )


def _check_given(job: Job, given: Classifier) -> float:
    """Accuracy of a given classifier on the real training images.

    Raises:
        CheckpointError: there are enough images to tell, and it is less than one standard error above that of always
            naming the most frequent class.
    """
    images, labels = job.patches.images.take(job.training_rows), job.patches.labels[job.training_rows]
    predicted = given.probabilities(images).argmax(axis=1)
    accuracy = float((predicted == labels).mean())
    guess = float(np.bincount(labels).max() / len(labels))
    if len(labels) < _ENOUGH_TO_TELL or accuracy > guess + np.sqrt(guess * (1 - guess) / len(labels)):
        return accuracy
    counts = np.zeros((len(given.classes), len(given.classes)), np.int64)
    np.add.at(counts, (predicted, labels), 1)
    best = float(counts[linear_sum_assignment(counts, maximize=True)].sum() / len(labels))
    cause = (
        f"in another order of classes it would have {best:.1%}, so its classes probably stand in another order than "
        f"{', '.join(given.classes[:3])}, …"
        if best > 0.5 and best > 2 * accuracy
        else "probably it learned from other classes or expects other pixels"
    )
    raise CheckpointError(
        f"right on only {accuracy:.1%} of the real training images, no better than chance; {cause}",
        option="weights",
        value=job.options.weights,
    )


def single_judge(classifier: Classifier) -> CrossFitted:
    """One classifier that judges all images; its accuracy is unknown (NaN)."""
    return CrossFitted([classifier], np.zeros(1, np.int64), np.zeros(1, bool), float("nan"))


def untrained_judge(job: Job) -> CrossFitted:
    """A classifier with random weights and the cost of the real one, for measurements."""
    fit = _fit_options(job)
    return single_judge(untrained(fit.name, job.dataset.classes, size=fit.size).to(job.device))


def _training_order(job: Job) -> Int64[np.ndarray, " N"]:
    rows = np.full(len(job.patches.samples), -1, np.int64)
    rows[job.training_rows] = np.arange(len(job.training_rows))
    return rows


def _fit_options(job: Job) -> FitOptions:
    """From scratch for trained networks; for a model without training, a head on the network that it rests on."""
    size, features = job.model.card.framing.size, job.model.card.features
    if features is None or job.options.classifier != "auto":
        name = _network(job)
        mode: Mode = "finetune" if names_weights(name) else "scratch"
        return FitOptions(name=name, size=size, weights=job.options.weights, mode=mode)
    weights = Path(features.weights) if features.weights else None
    return FitOptions(name=features.name, size=min(size, _HEAD_SIZE), weights=weights, head_only=True)


def _trained(job: Job, cache: Path | None, execution: Execution) -> CrossFitted:
    options = job.options
    fit = _fit_options(job)
    images, labels = job.patches.images.take(job.training_rows), job.patches.labels[job.training_rows]

    boxes = job.patches.boxes()

    def practice() -> SyntheticImages:
        return practice_images(
            job.translator, images, labels.astype(np.int64), seed=options.seed,
            boxes=[boxes[row] for row in job.training_rows],
            given=take_masks(job.patches.masks, job.training_rows), execution=execution,
        )  # fmt: skip

    return cross_fit(
        images, labels, job.dataset.classes, fit, folds=options.folds, seed=options.seed, cache=cache,
        synthetic=practice, synthetic_identity=job.model.sha256 + job.masks_sha256, execution=execution,
    )  # fmt: skip


def _with_new_images(job: Job, classifiers: CrossFitted, previous: PreviousFile, cache: Path) -> CrossFitted:
    """Extend trained classifiers to images that were unreadable when they were trained."""
    files = [str(job.dataset.file(job.patches.samples[row])) for row in job.training_rows]
    known = np.array([file not in previous.skipped for file in files], bool)
    if len(classifiers.fold_of) == len(known):  # done by an earlier call that was stopped
        return classifiers
    fold_of, held_out = np.zeros(len(known), np.int64), np.zeros(len(known), bool)
    try:
        fold_of[known], held_out[known] = classifiers.fold_of, classifiers.held_out
    except ValueError as error:
        raise CheckpointError(
            f"{cache}: the classifiers were trained on other images than those of {previous.path}",
            remedies={"overwrite": True},
        ) from error
    extended = CrossFitted(classifiers.classifiers, fold_of, held_out, classifiers.accuracy)
    extended.save(cache)
    return extended
