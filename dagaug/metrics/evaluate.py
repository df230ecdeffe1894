"""How real, how varied and how recognisable the images of an HDF5 file are (paper, Secs. 4.2 and 4.4, Table 1c).

The synthetic images are compared with the real ones of the test split and of the training split, and test with
training images beside them: what real images themselves reach is the only yardstick that such numbers have.
A classifier trained on the real training split judges (the paper fine-tunes one, too) and, unless another network is
named, gives the features. The measures themselves are in :mod:`dagaug.metrics`.
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
from dagaug.compute.tensors import to_tensor
from dagaug.data.dataset import Dataset
from dagaug.data.patches import read_patches
from dagaug.hdf5.reader import Store
from dagaug.metrics import measures as metrics
from dagaug.metrics.inputs import BATCH, check_fits, framing_of, held_images, stored_images, train_judge
from dagaug.metrics.keypoints import Attended, attended, model_of
from dagaug.metrics.lpips import FILES, Lpips, find_weights
from dagaug.metrics.measures import Spread
from dagaug.runtime.errors import DataError, UsageError
from dagaug.runtime.progress import SILENT, Progress

__all__ = ["Compared", "EvaluateOptions", "Evaluation", "Judged", "evaluate"]


_PAIRS = 10  # of a group whose LPIPS is measured


_LEAST = 6  # images in a set: more than the neighbours of density and coverage


_SYNTHETIC, _TEST, _TRAINING = "synthetic", "test", "training"


@dataclass(frozen=True)
class EvaluateOptions:
    """What an evaluation depends on besides data and file.

    Attributes:
        features: timm name or ``lite0`` of the network that gives features; None for the classifier that judges.
        weights: file of weights of that network; without one it is random but for ``lite0``.
        classifier: timm name of the judge; ``auto`` suits the size.
        steps: of the judge's training; None for what suits the number of images.
        size: side of the images in pixels; None for that of the training's patches.
        per_class: use only the first so many training images of each class; None for what the file was made with.
        lpips: torchvision's weights of the network under LPIPS; None for a file that torch once downloaded, if there
            is one.
        alpha: tolerance of PCK as a share of the larger side of an image's box.
        seed: of the judge's training, of splits and of subsets.
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
            raise UsageError(f"--size {self.size}: a multiple of 16 from 32 to 1024")
        if self.weights is not None and self.features is None:
            raise UsageError("--weights: name the network that they are for with --features")


@dataclass(frozen=True)
class Judged:
    """What the classifier says of one set of images, and how much they vary.

    Attributes:
        images: which set.
        count: how many.
        accuracy: share whose top-1 class is their label.
        inception: eq. 11, mean and standard deviation over ten parts.
        missing: number of classes that none is taken for.
        diversity: mean feature distance of two morphs of one source; of two images of one class where they are real.
        lpips: mean LPIPS of the same, None where its weights are not at hand.
    """

    images: str
    count: int
    accuracy: float
    inception: Spread
    missing: int
    diversity: float
    lpips: float | None


@dataclass(frozen=True)
class Compared:
    """One set of images (as fakes) against another (as the real ones), by their features.

    Attributes:
        images, against: which sets.
        fid: Fréchet distance.
        kid: kernel distance, mean and standard deviation over subsets.
        precision, recall: of 3 neighbours.
        density, coverage: of 5 neighbours.
    """

    images: str
    against: str
    fid: float
    kid: Spread
    precision: float
    recall: float
    density: float
    coverage: float


@dataclass(frozen=True)
class Evaluation:
    """All measures of a file.

    Attributes:
        file: the HDF5 file.
        classes: how many.
        classifier: the judge's network; trained on the real training images.
        features: the network that gave the features.
        lpips: the network under LPIPS; empty where its weights are not at hand.
        judged: synthetic, test and training images.
        compared: synthetic against test, synthetic against training, training against test images.
        attended: None where the data have no parts or the checkpoint is not at hand; ``remarks`` says which.
        remarks: what must be known to read the numbers.
        skipped: real images that could not be read, with the reason.
        options: everything that was asked for.
    """

    file: str
    classes: int
    classifier: str
    features: str
    lpips: str
    judged: tuple[Judged, ...]
    compared: tuple[Compared, ...]
    attended: Attended | None
    remarks: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    options: dict[str, object]


class _Eyes:
    """A judge and a network that gives features, which look at images together."""

    def __init__(self, judge: Classifier, features: Network | None) -> None:
        self.judge = judge
        self.features = (features or judge.network.without_head()).eval().to(judge.device)

    @torch.inference_mode()
    def look(
        self, batches: Iterable[UInt8[np.ndarray, "B S S 3"]], title: str, total: int, progress: Progress
    ) -> tuple[Float64[np.ndarray, "N D"], Float[np.ndarray, "N K"]]:
        """Features and class probabilities."""
        features, probabilities = [], []
        with progress.task(title, total, "images") as task:
            for batch in batches:
                features.append(self.features(to_tensor(batch, self.judge.device)).double().cpu().numpy())
                probabilities.append(self.judge.probabilities(batch))
                task.advance(len(batch))
        return np.concatenate(features), np.concatenate(probabilities)


def _feature_network(options: EvaluateOptions, size: int) -> Network | None:
    """The network that was asked for; None for the judge's own features."""
    if options.features is None:
        return None
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            return build(options.features, 0, size=size, weights=options.weights)
    except UsageError as error:
        raise UsageError(str(error).replace("--classifier", "--features", 1)) from error


# Evaluating


@dataclass(frozen=True)
class _Set:
    """One set of images as the networks see it."""

    name: str
    features: Float64[np.ndarray, "N D"]
    probabilities: Float[np.ndarray, "N K"]
    labels: Integer[np.ndarray, " N"]
    groups: Integer[np.ndarray, " N"]
    lpips: float | None

    def judged(self, seed: int) -> Judged:
        predicted = self.probabilities.argmax(1)
        return Judged(
            images=self.name,
            count=len(self.labels),
            accuracy=metrics.accuracy(predicted, self.labels),
            inception=metrics.inception_score(self.probabilities, seed=seed),
            missing=metrics.missing_modes(predicted, self.probabilities.shape[1]),
            diversity=metrics.diversity_within(self.features, self.groups),
            lpips=self.lpips,
        )


def _compare(fake: _Set, real: _Set, seed: int) -> Compared:
    fidelity = metrics.precision_recall(real.features, fake.features)
    reached = metrics.density_coverage(real.features, fake.features)
    return Compared(
        images=fake.name,
        against=real.name,
        fid=metrics.fid(real.features, fake.features),
        kid=metrics.kid(real.features, fake.features, seed=seed),
        precision=fidelity.precision,
        recall=fidelity.recall,
        density=reached.density,
        coverage=reached.coverage,
    )


def evaluate(
    store: Path | str,
    dataset: Dataset,
    options: EvaluateOptions | None = None,
    *,
    device: torch.device | str = "cpu",
    checkpoint: Path | None = None,
    cache: Path | None = None,
    workers: int | None = None,
    progress: Progress = SILENT,
) -> Evaluation:
    """Measure the synthetic images of a file against the real ones of a data set.

    Args:
        store: HDF5 file of ``dagaug augment``.
        dataset: the data that it was made from.
        options: see :class:`EvaluateOptions`.
        device: where networks run.
        checkpoint: model whose attended regions are measured; the one that made the file by default.
        cache: file that keeps the trained judge.
        workers: threads that read images.
        progress: told of what is read, trained and looked at.

    Raises:
        DataError: the file does not fit the data, or there are too few images.
        StoreError: the file cannot be read.
        UsageError, MissingExtraError, CheckpointError: the network of features cannot be made.
    """
    options = options or EvaluateOptions()
    with Store(store) as opened:
        check_fits(opened, dataset)
        header, table = opened.header, opened.images
        known = header.options.get("per_class")
        dataset = dataset.subset(options.per_class or (known if isinstance(known, int) else None))
        framing = framing_of(header.options, options.size)
        rows = np.flatnonzero(table.synthetic)
        train, test = (
            read_patches(dataset, samples, framing, workers=workers, progress=progress)
            for samples in (dataset.train, dataset.test)
        )
        for name, count in ((_SYNTHETIC, len(rows)), (_TEST, len(test.images)), (_TRAINING, len(train.images))):
            if count < _LEAST:
                raise DataError(f"{opened.path}: only {count} {name} images; these measures need at least {_LEAST}")
        given = _feature_network(options, framing.size)
        weights = options.lpips or find_weights()
        lpips = None if weights is None else Lpips(weights, device)
        judge = train_judge(
            train, dataset.classes, options.classifier,
            steps=options.steps, seed=options.seed, device=device, cache=cache, progress=progress,
        )  # fmt: skip
        eyes = _Eyes(judge, given)
        seen = eyes.look(stored_images(opened, rows, framing.size), "Looking at the synthetic", len(rows), progress)
        groups = table.source[rows]

        def stored(chosen: Int64[np.ndarray, " B"]) -> UInt8[np.ndarray, "B S S 3"]:
            return next(stored_images(opened, rows[chosen], framing.size))

        varied = _lpips_within(lpips, stored, groups, _SYNTHETIC, options.seed, progress)
        synthetic = _Set(_SYNTHETIC, *seen, table.label[rows], groups, varied)
        leaked = int((header.files_split[table.source[rows]] != 0).sum())
    real = {}
    for name, patches in ((_TEST, test), (_TRAINING, train)):
        seen = eyes.look(held_images(patches.images), f"Looking at the {name}", len(patches.images), progress)
        varied = _lpips_within(lpips, patches.images.__getitem__, patches.labels, name, options.seed, progress)
        real[name] = _Set(name, *seen, patches.labels, patches.labels, varied)
    sets = (synthetic, real[_TEST], real[_TRAINING])
    pairs = ((synthetic, real[_TEST]), (synthetic, real[_TRAINING]), (real[_TRAINING], real[_TEST]))
    model, why = model_of(checkpoint, header.options, header.checkpoint_sha256)
    found = None
    if model is not None:
        found, why = attended(model, dataset, alpha=options.alpha, device=device, workers=workers, progress=progress)
    return Evaluation(
        file=str(store),
        classes=len(dataset.classes),
        classifier=judge.network.name,
        features=options.features or f"{judge.network.name}, trained on the real training images",
        lpips="" if lpips is None else lpips.name,
        judged=tuple(one.judged(options.seed) for one in sets),
        compared=tuple(_compare(fake, against, options.seed) for fake, against in pairs),
        attended=found,
        remarks=tuple(_remarks(options, sets, leaked, lpips is not None, why)),
        skipped=tuple((str(one.path), one.reason) for one in (*train.skipped, *test.skipped)),
        options=asdict(options),
    )


def _lpips_within(
    lpips: Lpips | None,
    read: Callable[[Int64[np.ndarray, " B"]], UInt8[np.ndarray, "B S S 3"]],
    groups: Integer[np.ndarray, " N"],
    title: str,
    seed: int,
    progress: Progress,
) -> float | None:
    """Mean LPIPS of two images of one group; every group weighs the same, by at most :data:`_PAIRS` pairs."""
    if lpips is None:
        return None
    pairs = metrics.pairs_within(groups, most=_PAIRS, seed=seed)
    found = [np.zeros(0)]
    with progress.task(f"LPIPS of the {title}", len(pairs), "pairs") as task:
        for start in range(0, len(pairs), BATCH):
            part = pairs[start : start + BATCH]
            found.append(lpips.distances(read(part[:, 0]), read(part[:, 1])))
            task.advance(len(part))
    return metrics.mean_of_groups(np.concatenate(found), groups[pairs[:, 0]])


def _remarks(
    options: EvaluateOptions, sets: tuple[_Set, ...], leaked: int, lpips: bool, unmeasured: str
) -> Iterator[str]:
    fewest = min(sets, key=lambda one: len(one.labels))
    if len(fewest.labels) < metrics.FID_IMAGES:
        yield (
            f"FID is biased upwards: there are only {len(fewest.labels)} {fewest.name} images, it wants "
            f"{metrics.FID_IMAGES} in each set; compare it only at equal numbers, or go by KID."
        )
    judge = "The judge, which gives the features too," if options.features is None else "The judge"
    yield f"{judge} learned from the training images, of which the synthetic ones were made."
    if options.features not in (None, LITE0) and options.weights is None:
        yield f"{options.features} has random weights; give it some with --weights, or take --features {LITE0}."
    if not lpips:
        yield (
            f"LPIPS was not measured: name a file of torchvision's weights with --lpips ({FILES[0]}). The feature "
            "diversity is a distance in the features above, comparable only with that of the real images beside it."
        )
    if leaked:
        yield f"{leaked} of {len(sets[0].labels)} synthetic images were made from test images."
    if unmeasured:
        yield unmeasured
