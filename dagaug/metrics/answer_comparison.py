"""Comparison of morphs with their true answers: the source's class in the reference's pose, rendered or photographed.

True answers are known for the built-in birds (:func:`dagaug.birds.dataset.true_morph`) and for tables of pairs. Three
measures must be read together, because plain grey alone has a small pixel error: the error inside the object, the
class that an oracle classifier assigns (identity), and the overlap with the true object's mask (pose). Baselines are
the source itself, the reference itself and plain grey; the true answer shows the best possible values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int64, UInt8

from dagaug.augment.morph_plan import variant_name
from dagaug.classifiers.classifier import Classifier
from dagaug.compute.devices import pick_device
from dagaug.data.dataset_records import Dataset, Sample, class_mismatch
from dagaug.data.grabcut_and_inpainting import fill_background
from dagaug.data.image_files import decode
from dagaug.data.layouts import read_dataset
from dagaug.data.object_patches import Framing, read_patches
from dagaug.data.square_crops import Region, cut, cut_mask, letterboxed, region_of
from dagaug.hdf5.reader import Store
from dagaug.metrics.inputs import check_fits, framing_of, train_judge
from dagaug.metrics.true_answers import TrueAnswerLookup, read_true_answers
from dagaug.runtime.errors import DataError, ImageError, UsageError
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.progress import Progress

__all__ = ["ANSWERS", "AnswerScore", "MeanWithError", "PairsEvaluation", "evaluate_pairs", "recovered_mask"]

ANSWERS = ("morph", "copy of the source", "copy of the reference", "plain grey", "truth")
"""Answers that are measured for each pair."""

_BATCH = 128


_CHANGED = 0.1  # share of the colour range that counts as a difference; JPEG of quality 95 stays below it


@dataclass(frozen=True)
class MeanWithError:
    """A mean over pairs and its standard error, with pairs taken as independent; NaN if not measured."""

    value: float
    error: float


@dataclass(frozen=True)
class AnswerScore:
    """Measures of one kind of answer.

    Attributes:
        answer: one of :data:`ANSWERS`.
        images: ``all`` pairs, pairs of ``training`` images, or pairs with a ``test`` image.
        pairs: number of pairs.
        error: mean absolute error in [0, 1] inside the union of the true masks of answer and reference; over the
            whole image without masks.
        identity: share that the oracle assigns to the source's class.
        overlap: intersection over union of the true mask and the answer's (:func:`recovered_mask`).
    """

    answer: str
    images: str
    pairs: int
    error: MeanWithError
    identity: MeanWithError
    overlap: MeanWithError


@dataclass(frozen=True)
class PairsEvaluation:
    """Measures of all answers to the pairs of an HDF5 file.

    Attributes:
        file: the HDF5 file.
        truth: folder or table of the true answers.
        scores: one row for each answer; for morphs also one for each split, if there are pairs of both.
        oracle: description of the oracle; "" without one.
        oracle_accuracy: its accuracy on real test images that it was not trained on; NaN if there are none.
        remarks: how to read the numbers, and what was not measured.
    """

    file: str
    truth: str
    scores: tuple[AnswerScore, ...]
    oracle: str
    oracle_accuracy: float
    remarks: tuple[str, ...]


# Answers


@dataclass(frozen=True)
class _AnsweredPair:
    """A pair with its answers, all in the frame of the stored morph.

    Attributes:
        answers: images in the order of :data:`ANSWERS`.
        union: where the error is measured.
        mask: mask of the true object; None without masks.
        background: the reference with its object inpainted; None without masks.
        label: class of the source.
        tested: whether source or reference is a test image.
    """

    answers: tuple[UInt8[np.ndarray, "H W 3"], ...]
    union: Bool[np.ndarray, "H W"]
    mask: Bool[np.ndarray, "H W"] | None
    background: UInt8[np.ndarray, "H W 3"] | None
    label: int
    tested: bool


class _PairReader:
    """Reads the pairs of an HDF5 file with all their answers.

    Raises:
        DataError: the file was made with other backgrounds than the references'.
    """

    def __init__(self, store: Store, dataset: Dataset, look_up: TrueAnswerLookup) -> None:
        self._store, self._look_up, self._dataset = store, look_up, dataset
        self._header, self._table = store.header, store.images
        self.framing = framing_of(self._header.provenance)
        self._cropped = self._header.provenance.frame == "crop"
        background = self._header.provenance.background
        if background != "reference":
            raise DataError(
                f"{store.path}: was made with the backgrounds {background!r}, but true answers have those of their "
                "references; make the file again with the background 'reference'"
            )
        self._samples = {sample.path.as_posix(): sample for sample in dataset.samples}
        self._image = lru_cache(256)(self._decode)

    def _decode(self, file: str) -> UInt8[np.ndarray, "H W 3"]:
        try:
            return decode(self._dataset.file(self._sample(file)))
        except ImageError as error:
            raise DataError(f"{error}; a pair needs this image") from error

    def _sample(self, file: str) -> Sample:
        if file not in self._samples:
            raise DataError(f"{self._store.path}: was made from {file}, which is not in {self._dataset.root}")
        return self._samples[file]

    def _region(self, file: str) -> Region:
        """The part of an image that a stored patch shows."""
        height, width = self._image(file).shape[:2]
        framing: Framing = self.framing
        box = self._sample(file).box if framing.crop == "box" else None
        return region_of(height, width, box=box, margin=framing.margin, fit=framing.fit)

    def pair(self, row: int) -> _AnsweredPair | None:
        """The pair of a synthetic image; None if it is not a morph or has no true answer."""
        table, header = self._table, self._header
        source, reference = int(table.source[row]), int(table.reference[row])
        kind = variant_name(header.variants[int(table.variant[row])])
        if reference < 0 or kind == "cutout":
            return None
        files = header.files[source], header.files[reference]
        truth = self._look_up(*files)
        if truth is None:
            return None
        morph, whole = self._store.image(row), self._image(files[1])
        if truth.image.shape != whole.shape:
            height, width = whole.shape[:2]
            raise DataError(f"the true answer of {files[0]} like {files[1]} must have {width} × {height} pixels")
        mirrored = kind == "mirror"
        true_image = self._in_frame(truth.image, files[1], morph, mirrored)
        grey = np.full_like(morph, 128)
        copies = self._source_in_frame(files[0], morph), self._in_frame(whole, files[1], morph, mirrored)
        masks = [
            None if mask is None else self._in_frame(mask.astype(np.float32), files[1], morph, mirrored)
            for mask in (truth.mask, truth.reference_mask)
        ]
        known = [mask > 0.5 for mask in masks if mask is not None]
        both = masks[0] is not None and masks[1] is not None
        return _AnsweredPair(
            answers=(morph, *copies, grey, true_image),
            union=np.logical_or.reduce(known) if known else np.ones(morph.shape[:2], bool),
            mask=known[0] if both else None,
            background=fill_background(copies[1], masks[1])[0] if both and masks[1] is not None else None,
            label=int(header.files_label[source]),
            tested=bool(header.files_split[source] or header.files_split[reference]),
        )

    def _in_frame(self, array: np.ndarray, reference: str, morph: np.ndarray, mirrored: bool) -> np.ndarray:
        """An image or mask of the whole reference's size, in the morph's frame."""
        if self._cropped:
            crop = cut if array.ndim == 3 else cut_mask
            array = crop(array, self._region(reference), len(morph))
        if array.shape[:2] != morph.shape[:2]:
            raise DataError(
                f"{self._store.path}: a morph and its reference {reference} differ in size; make the file again"
            )
        return np.ascontiguousarray(array[:, ::-1]) if mirrored else array

    def _source_in_frame(self, source: str, morph: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
        """The source in the morph's frame; resized if whole images differ in size."""
        image = self._image(source)
        if self._cropped:
            return cut(image, self._region(source), len(morph))
        if image.shape == morph.shape:
            return image
        return cv2.resize(image, morph.shape[1::-1], interpolation=cv2.INTER_AREA)


def recovered_mask(
    image: UInt8[np.ndarray, "H W 3"], background: UInt8[np.ndarray, "H W 3"]
) -> Bool[np.ndarray, "H W"]:
    """Object mask of an image: where it differs from the background by more than a tenth of the colour range.

    The background is inpainted where the reference's object hid it, so the mask is an estimate.
    """
    difference = np.abs(image.astype(np.float32) - background.astype(np.float32)).max(-1)
    return difference > 255 * _CHANGED


def _overlap(first: Bool[np.ndarray, "H W"], second: Bool[np.ndarray, "H W"]) -> float:
    union = int((first | second).sum())
    return float((first & second).sum() / union) if union else 1.0


# Evaluating


def evaluate_pairs(
    store: Path | str,
    dataset: Dataset,
    truth: Path,
    *,
    oracle: Path | None = None,
    oracle_data: Path | None = None,
    steps: int | None = None,
    seed: int = 0,
    cache: Path | None = None,
    execution: Execution = Execution(),
) -> PairsEvaluation:
    """Compare the morphs of a file with their true answers.

    Args:
        store: HDF5 file of ``dagaug augment`` with a table of pairs, or any file of the built-in birds.
        dataset: the data set that it was made from.
        truth: a folder of the built-in birds; or a CSV of pairs with the columns
            :data:`dagaug.data.pairs_table.COLUMNS`, whose files are relative to it. A CSV without true answers
            selects pairs of the built-in birds.
        oracle: file of a classifier of the same classes, trained on many images.
        oracle_data: data folder of the same classes; the oracle is trained on all its images.
        steps: training steps of the oracle; None chooses by the number of images.
        seed: seed of that training.
        cache: file of the trained oracle.
        execution: where the oracle runs; its progress receives images read and training steps.

    Raises:
        DataError: the file, the data set and the table do not fit, or the file has no pair of the table.
        UsageError: both ``oracle`` and ``oracle_data`` are given.
        CheckpointError: the oracle cannot be read.
    """
    if oracle is not None and oracle_data is not None:
        raise UsageError("give either an oracle or the data to train one on", option="oracle", value=oracle)
    pick_device(execution.device)  # a wrong name is an error before anything is read
    with Store(store) as opened:
        check_fits(opened, dataset)
        look_up, listed = read_true_answers(truth, opened.header.files, dataset.root)
        pairs = _PairReader(opened, dataset, look_up)
        judge, description, accuracy = None, "", float("nan")
        if oracle is not None or oracle_data is not None:
            judge, description = _oracle(
                dataset, oracle, oracle_data, pairs.framing,
                steps=steps, seed=seed, cache=cache, execution=execution,
            )  # fmt: skip
            accuracy = _accuracy_on_unseen(judge, dataset, pairs.framing, execution)
        rows = np.flatnonzero(opened.images.synthetic)
        found = _measure_all(pairs, rows, judge, execution.progress)
    if not len(found.label):
        raise DataError(f"{store}: contains none of the pairs of {truth}; make them with dagaug augment")
    return PairsEvaluation(
        file=str(store),
        truth=str(truth),
        scores=tuple(_scores(found)),
        oracle=description,
        oracle_accuracy=accuracy,
        remarks=tuple(_remarks(found, listed, judge is not None)),
    )


@dataclass(frozen=True)
class _Measurements:
    """Measures of each answer (columns) to each pair (rows); NaN if not measured.

    Attributes:
        error, identity, overlap: as in :class:`AnswerScore`.
        label: class of the source.
        tested: whether the pair has a test image.
        masked: whether the pair has masks.
    """

    error: Float[np.ndarray, "P A"]
    identity: Float[np.ndarray, "P A"]
    overlap: Float[np.ndarray, "P A"]
    label: Int64[np.ndarray, " P"]
    tested: Bool[np.ndarray, " P"]
    masked: Bool[np.ndarray, " P"]


def _measure_all(
    pairs: _PairReader, rows: Int64[np.ndarray, " N"], judge: Classifier | None, progress: Progress
) -> _Measurements:
    parts = []
    with progress.task("Comparing with true answers", len(rows), "morphs") as task:
        for start in range(0, len(rows), _BATCH):
            batch = rows[start : start + _BATCH]
            read = [pair for row in batch if (pair := pairs.pair(int(row))) is not None]
            parts.append(_measure(read, judge))
            task.advance(len(batch))
    columns = ("error", "identity", "overlap", "label", "tested", "masked")
    return _Measurements(*(np.concatenate([getattr(part, name) for part in parts]) for name in columns))


def _measure(pairs: Sequence[_AnsweredPair], judge: Classifier | None) -> _Measurements:
    shape = (len(pairs), len(ANSWERS))
    error, identity, overlap = np.full(shape, np.nan), np.full(shape, np.nan), np.full(shape, np.nan)
    label = np.array([pair.label for pair in pairs], np.int64)
    for row, pair in enumerate(pairs):
        true = pair.answers[ANSWERS.index("truth")].astype(np.float32)
        for column, answer in enumerate(pair.answers):
            if pair.union.any():
                error[row, column] = np.abs(answer - true)[pair.union].mean() / 255
            if pair.mask is not None and pair.background is not None:
                overlap[row, column] = _overlap(recovered_mask(answer, pair.background), pair.mask)
    if judge is not None and pairs:
        for column in range(len(ANSWERS)):
            images = np.stack([letterboxed(pair.answers[column], judge.size) for pair in pairs])
            identity[:, column] = judge.probabilities(images).argmax(1) == label
    return _Measurements(
        error,
        identity,
        overlap,
        label,
        tested=np.array([pair.tested for pair in pairs], bool),
        masked=np.array([pair.mask is not None for pair in pairs], bool),
    )


def _oracle(
    dataset: Dataset,
    file: Path | None,
    folder: Path | None,
    framing: Framing,
    *,
    steps: int | None,
    seed: int,
    cache: Path | None,
    execution: Execution,
) -> tuple[Classifier, str]:
    """The classifier that recognises the class of an answer, and its description."""
    if file is not None:
        judge, where, description = Classifier.load(file, pick_device(execution.device)), file, f"{file}"
    else:
        assert folder is not None
        plenty = read_dataset(folder)
        _check_classes(plenty.classes, dataset, folder)
        patches = read_patches(plenty, plenty.samples, framing, execution=execution)
        judge = train_judge(patches, plenty.classes, "auto", steps=steps, seed=seed, cache=cache, execution=execution)
        where, description = folder, f"{judge.network.name} trained on the {len(patches.images)} images of {folder}"
    _check_classes(judge.classes, dataset, where)
    return judge, description


def _check_classes(classes: Sequence[str], dataset: Dataset, where: Path) -> None:
    if mismatch := class_mismatch(where, classes, dataset):
        raise DataError(f"{mismatch}; an oracle must have the same classes")


def _accuracy_on_unseen(judge: Classifier, dataset: Dataset, framing: Framing, execution: Execution) -> float:
    """The oracle's accuracy on the test images that it was not trained on."""
    if not dataset.test:
        return float("nan")
    framing = framing.model_copy(update={"size": judge.size})
    patches = read_patches(dataset, dataset.test, framing, execution=execution)
    unseen = ~judge.saw(patches.images)
    return judge.accuracy(patches.images.take(unseen), patches.labels[unseen])


def _scores(found: _Measurements) -> Iterator[AnswerScore]:
    everything = np.ones(len(found.label), bool)
    for column, answer in enumerate(ANSWERS):
        groups = {"all": everything}
        if answer == "morph" and found.tested.any() and not found.tested.all():
            groups |= {"training": ~found.tested, "test": found.tested}
        for name, chosen in groups.items():
            yield AnswerScore(
                answer=answer,
                images=name,
                pairs=int(chosen.sum()),
                error=_mean(found.error[chosen, column]),
                identity=_mean(found.identity[chosen, column]),
                overlap=_mean(found.overlap[chosen, column]),
            )


def _mean(values: Float[np.ndarray, " P"]) -> MeanWithError:
    values = values[~np.isnan(values)]
    if not len(values):
        return MeanWithError(float("nan"), float("nan"))
    error = float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return MeanWithError(float(values.mean()), error)


def _remarks(found: _Measurements, listed: int | None, judged: bool) -> Iterator[str]:
    masked = int(found.masked.sum())
    if masked:
        yield (
            "The file holds no masks: an answer's mask is where it differs from the reference's inpainted background. "
            "The overlap of the truth is the highest value that this can reach."
        )
    if masked < len(found.label):
        yield (
            f"{len(found.label) - masked} of {len(found.label)} true answers lack a mask: their overlap is not "
            "measured, and without any mask their error is over the whole image."
        )
    if listed is not None and listed != len(found.label):
        yield f"The table has {listed} pairs; the file has morphs of {len(found.label)} of them."
    if not judged:
        yield "Identity was not measured: it needs an oracle, or a data folder to train one on."
