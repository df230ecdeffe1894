"""Realism, diversity and recognisability of the synthetic images of an HDF5 file (paper, Secs. 4.2, 4.4, Table 1c).

Synthetic images are compared with the real test images and with the real training images. The real training images are
also compared with the test images: what real images reach is the reference for all numbers. A classifier trained on the
real training images judges recognisability, as in the paper, where one is fine-tuned. Its features are used unless
another network is named. The measures are in :mod:`dagaug.metrics.measure_formulas`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, Integer, UInt8

from dagaug.classifiers.backbones import LITE0, Network, build
from dagaug.classifiers.classifier import Classifier
from dagaug.compute.devices import pick_device
from dagaug.compute.tensors import to_tensor
from dagaug.data.dataset_records import Dataset
from dagaug.data.object_patches import Patches, read_patches
from dagaug.data.patch_loading import say_transparent
from dagaug.hdf5.reader import Store
from dagaug.metrics import measure_formulas as measures
from dagaug.metrics.attended_region_pck import KeypointAccuracy, keypoint_accuracy, model_of_file
from dagaug.metrics.inputs import BATCH, check_fits, framing_of, stored_images, train_judge
from dagaug.metrics.lpips import FILES, Lpips, find_weights
from dagaug.metrics.measure_formulas import MeanStd
from dagaug.runtime.errors import DataError, MissingExtraError, UsageError
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.progress import Progress
from dagaug.runtime.streamed_array import batches

__all__ = ["EvaluateOptions", "Evaluation", "SetComparison", "SetMeasures", "evaluate"]

_LPIPS_PAIRS = 10  # of each group

_MIN_IMAGES = 6  # in each set: more than the neighbours of density and coverage

_SYNTHETIC, _TEST, _TRAINING = "synthetic", "test", "training"


@dataclass(frozen=True)
class EvaluateOptions:
    """Everything that an evaluation depends on besides the data set and the HDF5 file.

    Attributes:
        features: timm name or ``lite0`` of the network of the features; None for the judge.
        weights: weights file of that network; without one its weights are random, except for ``lite0``.
        classifier: timm name of the judge; ``auto`` chooses by the image size.
        steps: training steps of the judge; None chooses by the number of images.
        size: side of the images in pixels, a multiple of 16 from 32 to 1024; None for the training's patch size.
        per_class: use only the first N training images of each class; None for the number that made the file.
        lpips: torchvision's weights file of the LPIPS network; None for a file in torch's download folder, if any.
        alpha: tolerance of PCK as a share of the larger side of an image's box.
        seed: seed of the judge's training, of splits and of subsets.

    Raises:
        UsageError: an option is out of range, or ``weights`` is given without ``features``.
    """

    features: str | None = None
    weights: Path | None = None
    classifier: str = "auto"
    steps: int | None = None
    size: int | None = None
    per_class: int | None = None
    lpips: Path | None = None
    alpha: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size is not None and (self.size % 16 or not 32 <= self.size <= 1024):
            raise UsageError("give a multiple of 16 from 32 to 1024", option="size", value=self.size)
        if self.weights is not None and self.features is None:
            raise UsageError(
                "name the network of these weights",
                option="weights",
                value=self.weights,
                remedies={"features": LITE0},
            )


@dataclass(frozen=True)
class SetMeasures:
    """Recognisability and diversity of one set of images.

    Attributes:
        images: name of the set.
        count: number of images.
        accuracy: share of the images that the judge assigns to their class.
        inception: inception score (eq. 11), mean and standard deviation over ten parts.
        missing: number of classes that the judge assigns no image to.
        diversity: mean feature distance of two morphs of one source, or of two real images of one class.
        lpips: mean LPIPS of the same pairs; None without weights.
    """

    images: str
    count: int
    accuracy: float
    inception: MeanStd
    missing: int
    diversity: float
    lpips: float | None


@dataclass(frozen=True)
class SetComparison:
    """One set of images (as fakes) compared with another (as the real ones), by their features.

    Attributes:
        images, against: names of the sets.
        fid: Fréchet distance.
        kid: kernel distance, mean and standard deviation over subsets.
        precision, recall: with 3 neighbours.
        density, coverage: with 5 neighbours.
    """

    images: str
    against: str
    fid: float
    kid: MeanStd
    precision: float
    recall: float
    density: float
    coverage: float


@dataclass(frozen=True)
class Evaluation:
    """All measures of an HDF5 file.

    Attributes:
        file: the HDF5 file.
        classes: number of classes.
        classifier: network of the judge, which is trained on the real training images.
        features: network of the features.
        lpips: network of LPIPS; "" without weights.
        judged: measures of the synthetic, test and training images.
        compared: synthetic with test, synthetic with training, training with test images.
        attended: PCK of the attended regions; None if the data have no key points or the checkpoint is not found.
        remarks: how to read the numbers, and what was not measured.
        skipped: path and reason of each real image that could not be read.
        options: all options.
    """

    file: str
    classes: int
    classifier: str
    features: str
    lpips: str
    judged: tuple[SetMeasures, ...]
    compared: tuple[SetComparison, ...]
    attended: KeypointAccuracy | None
    remarks: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    options: dict[str, object]


def evaluate(
    store: Path | str,
    dataset: Dataset,
    options: EvaluateOptions | None = None,
    *,
    checkpoint: Path | None = None,
    cache: Path | None = None,
    execution: Execution = Execution(),
) -> Evaluation:
    """Measure the synthetic images of a file against the real ones of a data set.

    Args:
        store: HDF5 file of ``dagaug augment``.
        dataset: the data set that it was made from.
        options: see :class:`EvaluateOptions`.
        checkpoint: model whose attended regions are measured; the one that made the file by default.
        cache: file that keeps the trained judge.
        execution: where the networks run; its progress receives images read and training steps.

    Raises:
        DataError: the file was not made from the data set, or a set has too few images.
        StoreError: the file cannot be read.
        UsageError, MissingExtraError, CheckpointError: the network of the features cannot be built.
    """
    options, device = options or EvaluateOptions(), pick_device(execution.device)
    with Store(store) as opened:
        check_fits(opened, dataset)
        header = opened.header
        dataset = dataset.subset(options.per_class or header.provenance.per_class)
        framing = framing_of(header.provenance, options.size)
        rows = np.flatnonzero(opened.images.synthetic)
        train, test = (
            read_patches(dataset, samples, framing, execution=execution) for samples in (dataset.train, dataset.test)
        )
        say_transparent(train.transparent + test.transparent, len(dataset.samples), execution.progress)
        _check_counts(opened.path, {_SYNTHETIC: len(rows), _TEST: len(test.images), _TRAINING: len(train.images)})
        network = _feature_network(options, framing.size)
        weights = options.lpips or find_weights()
        lpips = None if weights is None else Lpips(weights, device)
        judge = train_judge(
            train, dataset.classes, options.classifier,
            steps=options.steps, seed=options.seed, cache=cache, execution=execution,
        )  # fmt: skip
        reader = _SetReader(judge, network, lpips, options.seed, execution.progress)
        synthetic = reader.stored(opened, rows, framing.size)
        from_test = int((header.files_split[synthetic.groups] != 0).sum())
    real_test, real_training = reader.real(_TEST, test), reader.real(_TRAINING, train)
    sets = (synthetic, real_test, real_training)
    pairs = ((synthetic, real_test), (synthetic, real_training), (real_training, real_test))
    made = header.provenance
    model, reason = model_of_file(
        checkpoint, made.checkpoint_places(Path(store)), header.checkpoint_sha256, made.checkpoint_hub
    )
    pck = None
    if model is not None:
        pck, reason = keypoint_accuracy(model, dataset, alpha=options.alpha, execution=execution)
    return Evaluation(
        file=str(store),
        classes=len(dataset.classes),
        classifier=judge.network.name,
        features=options.features or f"{judge.network.name}, trained on the real training images",
        lpips="" if lpips is None else lpips.name,
        judged=tuple(one.measures(options.seed) for one in sets),
        compared=tuple(_compare(fake, real, options.seed) for fake, real in pairs),
        attended=pck,
        remarks=tuple(_remarks(options, sets, from_test, lpips is not None, reason)),
        skipped=tuple((str(one.path), one.reason) for one in (*train.skipped, *test.skipped)),
        options=asdict(options),
    )


def _check_counts(path: Path, counts: dict[str, int]) -> None:
    for name, count in counts.items():
        if count < _MIN_IMAGES:
            raise DataError(f"{path}: only {count} {name} images; these measures need at least {_MIN_IMAGES}")


def _feature_network(options: EvaluateOptions, size: int) -> Network | None:
    """The network that was asked for; None for the judge's own features."""
    if options.features is None:
        return None
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            return build(options.features, 0, size=size, weights=options.weights)
    except (UsageError, MissingExtraError) as error:
        option = "features" if error.option == "classifier" else error.option
        raise type(error)(error.message, option=option, value=error.value, remedies=error.remedies) from error


# Sets of images


@dataclass(frozen=True)
class _ReadSet:
    """One set of images, read by the networks.

    Attributes:
        name: name of the set.
        features, probabilities: outputs of the networks.
        labels: classes of the images.
        groups: source of each morph, or class of each real image.
        lpips: mean LPIPS of two images of a group.
    """

    name: str
    features: Float64[np.ndarray, "N D"]
    probabilities: Float[np.ndarray, "N K"]
    labels: Integer[np.ndarray, " N"]
    groups: Integer[np.ndarray, " N"]
    lpips: float | None

    def measures(self, seed: int) -> SetMeasures:
        predicted = self.probabilities.argmax(1)
        return SetMeasures(
            images=self.name,
            count=len(self.labels),
            accuracy=measures.accuracy(predicted, self.labels),
            inception=measures.inception_score(self.probabilities, seed=seed),
            missing=measures.missing_modes(predicted, self.probabilities.shape[1]),
            diversity=measures.diversity_within(self.features, self.groups),
            lpips=self.lpips,
        )


class _SetReader:
    """Reads sets of images with the judge, the network of the features, and LPIPS.

    Args:
        judge: gives class probabilities.
        features: gives features; None for the judge.
        lpips: None to leave LPIPS out.
        seed: seed of the pairs whose LPIPS is measured.
        progress: receives the number of images read.
    """

    def __init__(
        self, judge: Classifier, features: Network | None, lpips: Lpips | None, seed: int, progress: Progress
    ) -> None:
        self._judge, self._lpips, self._seed, self._progress = judge, lpips, seed, progress
        self._features = (features or judge.network.without_head()).eval().to(judge.device)

    def stored(self, store: Store, rows: Int64[np.ndarray, " N"], size: int) -> _ReadSet:
        """The synthetic images of a file, grouped by source."""
        groups = store.images.source[rows]

        def read(chosen: Int64[np.ndarray, " B"]) -> UInt8[np.ndarray, "B S S 3"]:
            return next(stored_images(store, rows[chosen], size))

        outputs = self._outputs(stored_images(store, rows, size), _SYNTHETIC, len(rows))
        return _ReadSet(
            _SYNTHETIC, *outputs, store.images.label[rows], groups, self._lpips_within(read, groups, _SYNTHETIC)
        )

    def real(self, name: str, patches: Patches) -> _ReadSet:
        """Real images, grouped by class."""
        outputs = self._outputs(batches(patches.images, BATCH), name, len(patches.images))
        lpips = self._lpips_within(patches.images.__getitem__, patches.labels, name)
        return _ReadSet(name, *outputs, patches.labels, patches.labels, lpips)

    @torch.inference_mode()
    def _outputs(
        self, batches: Iterable[UInt8[np.ndarray, "B S S 3"]], name: str, total: int
    ) -> tuple[Float64[np.ndarray, "N D"], Float[np.ndarray, "N K"]]:
        """Features and class probabilities."""
        features, probabilities = [], []
        with self._progress.task(f"Reading the {name}", total, "images") as task:
            for batch in batches:
                features.append(self._features(to_tensor(batch, self._judge.device)).double().cpu().numpy())
                probabilities.append(self._judge.probabilities(batch))
                task.advance(len(batch))
        return np.concatenate(features), np.concatenate(probabilities)

    def _lpips_within(
        self,
        read: Callable[[Int64[np.ndarray, " B"]], UInt8[np.ndarray, "B S S 3"]],
        groups: Integer[np.ndarray, " N"],
        name: str,
    ) -> float | None:
        """Mean LPIPS of two images of a group; all groups have equal weight and at most :data:`_LPIPS_PAIRS` pairs."""
        if self._lpips is None:
            return None
        pairs = measures.pairs_within(groups, most=_LPIPS_PAIRS, seed=self._seed)
        found = [np.zeros(0)]
        with self._progress.task(f"LPIPS of the {name}", len(pairs), "pairs") as task:
            for start in range(0, len(pairs), BATCH):
                part = pairs[start : start + BATCH]
                found.append(self._lpips.distances(read(part[:, 0]), read(part[:, 1])))
                task.advance(len(part))
        return measures.mean_of_groups(np.concatenate(found), groups[pairs[:, 0]])


def _compare(fake: _ReadSet, real: _ReadSet, seed: int) -> SetComparison:
    fidelity = measures.precision_recall(real.features, fake.features)
    coverage = measures.density_coverage(real.features, fake.features)
    return SetComparison(
        images=fake.name,
        against=real.name,
        fid=measures.fid(real.features, fake.features),
        kid=measures.kid(real.features, fake.features, seed=seed),
        precision=fidelity.precision,
        recall=fidelity.recall,
        density=coverage.density,
        coverage=coverage.coverage,
    )


def _remarks(
    options: EvaluateOptions, sets: tuple[_ReadSet, ...], from_test: int, lpips: bool, no_pck: str
) -> Iterator[str]:
    smallest = min(sets, key=lambda one: len(one.labels))
    if len(smallest.labels) < measures.FID_IMAGES:
        yield (
            f"FID is biased upwards: there are only {len(smallest.labels)} {smallest.name} images, and it needs "
            f"{measures.FID_IMAGES} in each set; compare it only at equal numbers, or use KID."
        )
    judge = "The judge, which also gives the features," if options.features is None else "The judge"
    yield f"{judge} learned from the training images, which the synthetic images were made from."
    if options.features not in (None, LITE0) and options.weights is None:
        yield f"{options.features} has random weights; give a weights file, or use the features of {LITE0}."
    if not lpips:
        yield (
            f"LPIPS was not measured: it needs a file of torchvision's weights ({FILES[0]}). The feature diversity is "
            "a distance of the features above; compare it only with that of the real images."
        )
    if from_test:
        yield f"{from_test} of {len(sets[0].labels)} synthetic images were made from test images."
    if no_pck:
        yield no_pck
