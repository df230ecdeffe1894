"""Morphs beside their true answers: the source's class, drawn or photographed in the reference's pose.

A true answer is known for the built-in birds (:func:`dagaug.flock.true_morph`), and where a table of pairs names files.
Pixels alone reward plain grey, so an answer is judged by three things together: its error where source or reference
show an object, whose class an oracle takes it for (identity), and how far its object covers the true one (pose). Beside
the morphs stand what costs nothing, the copies of source and reference and plain grey, and the truth itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8

from dagaug.augment.plan import background_in, variant_name
from dagaug.classifiers.classifier import Classifier
from dagaug.data.dataset import Dataset, Sample
from dagaug.data.foreground import fill_background
from dagaug.data.image_files import decode
from dagaug.data.layouts import read_dataset
from dagaug.data.patches import Framing, read_patches
from dagaug.data.regions import Region, cut, cut_mask, region_of
from dagaug.hdf5.reader import Store
from dagaug.metrics.answer_table import FindTruth, read_truths
from dagaug.metrics.inputs import check_fits, framing_of, train_judge
from dagaug.runtime.errors import DataError, ImageError, UsageError
from dagaug.runtime.progress import SILENT, Progress

__all__ = ["ANSWERS", "AnswerScore", "Mean", "PairsEvaluation", "evaluate_pairs", "recovered_mask"]

ANSWERS = ("morph", "copy of the source", "copy of the reference", "plain grey", "truth")
"""What is judged for each pair; the truth shows what the measures themselves can reach."""

_BATCH = 128


_CHANGED = 0.1  # of the range of a colour; JPEG of quality 95 stays below it


@dataclass(frozen=True)
class Mean:
    """A mean over pairs and its standard error, the pairs taken as independent; NaN where it was not measured."""

    value: float
    error: float


@dataclass(frozen=True)
class AnswerScore:
    """How right one kind of answer is.

    Attributes:
        answer: one of :data:`ANSWERS`.
        images: ``all``, or only pairs of ``training`` images, or those with a ``test`` image.
        pairs: how many.
        error: mean absolute error in [0, 1] inside the union of the true masks of answer and reference; of the whole
            image where there are no masks.
        identity: share that the oracle takes for the source's class.
        overlap: intersection over union of the true mask and the answer's (:func:`recovered_mask`).
    """

    answer: str
    images: str
    pairs: int
    error: Mean
    identity: Mean
    overlap: Mean


@dataclass(frozen=True)
class PairsEvaluation:
    """All answers to the pairs of a file.

    Attributes:
        file: the HDF5 file.
        truth: where the true answers are from.
        scores: a row for each answer; the morphs by split, too, where there are pairs of both.
        oracle: what the oracle is; empty without one.
        oracle_accuracy: on real test images that it did not learn from; NaN if there are none.
        remarks: what must be known to read the numbers.
    """

    file: str
    truth: str
    scores: tuple[AnswerScore, ...]
    oracle: str
    oracle_accuracy: float
    remarks: tuple[str, ...]


# Answers


@dataclass(frozen=True)
class _Case:
    """A pair with its answers, all in the frame in which the morph is stored.

    Attributes:
        answers: in the order of :data:`ANSWERS`.
        union: where the error counts.
        mask: of the true object; None without masks.
        background: the reference with its object painted over; None without masks.
        label: the source's class.
        tested: whether source or reference is a test image.
    """

    answers: tuple[UInt8[np.ndarray, "H W 3"], ...]
    union: Bool[np.ndarray, "H W"]
    mask: Bool[np.ndarray, "H W"] | None
    background: UInt8[np.ndarray, "H W 3"] | None
    label: int
    tested: bool


class _Pairs:
    """Makes cases of the synthetic images of a file."""

    def __init__(self, store: Store, dataset: Dataset, find: FindTruth) -> None:
        self._store, self._find, self._dataset = store, find, dataset
        self._header, self._table = store.header, store.images
        self.framing = framing_of(self._header.options)
        self._cropped = self._header.options.get("frame") == "crop"
        background = background_in(self._header.options)
        if background != "reference":
            raise DataError(
                f"{store.path}: was made with --background {background}, but true answers stand on their references' "
                "own; augment again without it"
            )
        self._samples = {sample.path.as_posix(): sample for sample in dataset.samples}
        self._image = lru_cache(256)(self._decode)

    def _decode(self, file: str) -> UInt8[np.ndarray, "H W 3"]:
        try:
            return decode(self._dataset.file(self._sample(file)))
        except ImageError as error:
            raise DataError(f"{error}; the pairs need it") from error

    def _sample(self, file: str) -> Sample:
        if file not in self._samples:
            raise DataError(f"{self._store.path}: made from {file}, which is not in {self._dataset.root}")
        return self._samples[file]

    def _region(self, file: str) -> Region:
        """What of an image the file's frame shows."""
        height, width = self._image(file).shape[:2]
        framing: Framing = self.framing
        box = self._sample(file).box if framing.crop == "box" else None
        return region_of(height, width, box=box, margin=framing.margin, fit=framing.fit)

    def case(self, row: int) -> _Case | None:
        """The case of a synthetic image; None if its pair is not asked for, or it is no morph."""
        table, header = self._table, self._header
        source, reference = int(table.source[row]), int(table.reference[row])
        kind = variant_name(header.variants[int(table.variant[row])])
        if reference < 0 or kind == "cutout":
            return None
        files = header.files[source], header.files[reference]
        truth = self._find(*files)
        if truth is None:
            return None
        morph, whole = self._store.image(row), self._image(files[1])
        if truth.image.shape != whole.shape:
            height, width = whole.shape[:2]
            raise DataError(f"the true answer of {files[0]} like {files[1]} must have {width} × {height} pixels")
        mirrored = kind == "mirror"
        shown = self._shown(truth.image, files[1], morph, mirrored)
        grey = np.full_like(morph, 128)
        copies = self._copy(files[0], morph), self._shown(whole, files[1], morph, mirrored)
        masks = [
            None if mask is None else self._shown(mask.astype(np.float32), files[1], morph, mirrored)
            for mask in (truth.mask, truth.reference_mask)
        ]
        seen = [mask > 0.5 for mask in masks if mask is not None]
        both = masks[0] is not None and masks[1] is not None
        return _Case(
            answers=(morph, *copies, grey, shown),
            union=np.logical_or.reduce(seen) if seen else np.ones(morph.shape[:2], bool),
            mask=seen[0] if both else None,
            background=fill_background(copies[1], masks[1])[0] if both and masks[1] is not None else None,
            label=int(header.files_label[source]),
            tested=bool(header.files_split[source] or header.files_split[reference]),
        )

    def _shown(self, array: np.ndarray, reference: str, morph: np.ndarray, mirrored: bool) -> np.ndarray:
        """An image or a mask as large as the whole reference, in the morph's frame."""
        if self._cropped:
            change = cut if array.ndim == 3 else cut_mask
            array = change(array, self._region(reference), len(morph))
        if array.shape[:2] != morph.shape[:2]:
            raise DataError(f"{self._store.path}: a morph is not as large as its reference {reference}; make it anew")
        return np.ascontiguousarray(array[:, ::-1]) if mirrored else array

    def _copy(self, source: str, morph: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
        """The source itself in the morph's frame; stretched where whole images differ in size."""
        image = self._image(source)
        if self._cropped:
            return cut(image, self._region(source), len(morph))
        if image.shape == morph.shape:
            return image
        return cv2.resize(image, morph.shape[1::-1], interpolation=cv2.INTER_AREA)


def recovered_mask(
    image: UInt8[np.ndarray, "H W 3"], background: UInt8[np.ndarray, "H W 3"]
) -> Bool[np.ndarray, "H W"]:
    """Where an image shows an object: where it differs from the background by a tenth of a colour's range.

    The background is a guess where the reference's own object hid it, so this mask is, too.
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
    device: torch.device | str = "cpu",
    cache: Path | None = None,
    workers: int | None = None,
    progress: Progress = SILENT,
) -> PairsEvaluation:
    """Judge the morphs of a file by their true answers.

    Args:
        store: HDF5 file of ``dagaug augment --pairs``, or any other of the built-in birds.
        dataset: the data that it was made from.
        truth: a folder of the built-in birds; or a CSV of pairs with the columns of :data:`COLUMNS`, whose files are
            relative to it. A CSV without true answers asks for some pairs of built-in birds.
        oracle: file of a classifier of the same classes, trained on plenty of images.
        oracle_data: data folder of the same classes, with all of whose images the oracle is trained instead.
        steps: of that training; None for what suits the number of images.
        seed: of that training.
        device: where the oracle runs.
        cache: file that keeps an oracle that was trained.
        workers: threads that read images.
        progress: told of what is read and judged.

    Raises:
        DataError: file, data and table do not fit, or no pair of the table is in the file.
        UsageError: two oracles.
        CheckpointError: the oracle cannot be read.
    """
    if oracle is not None and oracle_data is not None:
        raise UsageError("--oracle and --oracle-data: give one of them")
    with Store(store) as opened:
        check_fits(opened, dataset)
        find, asked = read_truths(truth, opened.header.files, dataset.root)
        pairs = _Pairs(opened, dataset, find)
        judge, what, accuracy = None, "", float("nan")
        if oracle is not None or oracle_data is not None:
            judge, what = _oracle(
                dataset, oracle, oracle_data, pairs.framing,
                steps=steps, seed=seed, device=device, cache=cache, workers=workers, progress=progress,
            )  # fmt: skip
            accuracy = _accuracy_of_unseen(judge, dataset, pairs.framing, workers, progress)
        rows = np.flatnonzero(opened.images.synthetic)
        found = _judge_all(pairs, rows, judge, progress)
    if not len(found.label):
        raise DataError(f"{store}: holds none of the pairs of {truth}; make them: dagaug augment DATA --pairs {truth}")
    return PairsEvaluation(
        file=str(store),
        truth=str(truth),
        scores=tuple(_scores(found)),
        oracle=what,
        oracle_accuracy=accuracy,
        remarks=tuple(_remarks(found, asked, judge is not None)),
    )


@dataclass(frozen=True)
class _Found:
    """Measures of each answer (columns) to each pair (rows); NaN where there is none."""

    error: Float[np.ndarray, "P A"]
    identity: Float[np.ndarray, "P A"]
    overlap: Float[np.ndarray, "P A"]
    label: Int64[np.ndarray, " P"]
    tested: Bool[np.ndarray, " P"]
    masked: Bool[np.ndarray, " P"]


def _judge_all(pairs: _Pairs, rows: Int64[np.ndarray, " N"], judge: Classifier | None, progress: Progress) -> _Found:
    parts = []
    with progress.task("Comparing with the truth", len(rows), "morphs") as task:
        for start in range(0, len(rows), _BATCH):
            batch = rows[start : start + _BATCH]
            cases = [case for row in batch if (case := pairs.case(int(row))) is not None]
            parts.append(_measured(cases, judge))
            task.advance(len(batch))
    columns = ("error", "identity", "overlap", "label", "tested", "masked")
    return _Found(*(np.concatenate([getattr(part, name) for part in parts]) for name in columns))


def _measured(cases: Sequence[_Case], judge: Classifier | None) -> _Found:
    shape = (len(cases), len(ANSWERS))
    error, identity, overlap = np.full(shape, np.nan), np.full(shape, np.nan), np.full(shape, np.nan)
    label = np.array([case.label for case in cases], np.int64)
    for row, case in enumerate(cases):
        true = case.answers[ANSWERS.index("truth")].astype(np.float32)
        for column, answer in enumerate(case.answers):
            if case.union.any():
                error[row, column] = np.abs(answer - true)[case.union].mean() / 255
            if case.mask is not None and case.background is not None:
                overlap[row, column] = _overlap(recovered_mask(answer, case.background), case.mask)
    if judge is not None and cases:
        for column in range(len(ANSWERS)):
            images = np.stack([_letterboxed(case.answers[column], judge.size) for case in cases])
            identity[:, column] = judge.probabilities(images).argmax(1) == label
    return _Found(
        error,
        identity,
        overlap,
        label,
        tested=np.array([case.tested for case in cases], bool),
        masked=np.array([case.mask is not None for case in cases], bool),
    )


def _letterboxed(image: UInt8[np.ndarray, "H W 3"], size: int) -> UInt8[np.ndarray, "S S 3"]:
    return cut(image, region_of(*image.shape[:2], box=None, fit="letterbox"), size)


def _oracle(
    dataset: Dataset,
    file: Path | None,
    folder: Path | None,
    framing: Framing,
    *,
    steps: int | None,
    seed: int,
    device: torch.device | str,
    cache: Path | None,
    workers: int | None,
    progress: Progress,
) -> tuple[Classifier, str]:
    """The classifier that tells identities, and what it is in words."""
    if file is not None:
        judge, where, what = Classifier.load(file, device), file, f"{file}"
    else:
        assert folder is not None
        plenty = read_dataset(folder)
        _check_classes(plenty.classes, dataset, folder)
        patches = read_patches(plenty, plenty.samples, framing, workers=workers, progress=progress)
        judge = train_judge(
            patches, plenty.classes, "auto", steps=steps, seed=seed, device=device, cache=cache, progress=progress
        )
        where, what = folder, f"{judge.network.name} trained on the {len(patches.images)} images of {folder}"
    _check_classes(judge.classes, dataset, where)
    return judge, what


def _check_classes(classes: Sequence[str], dataset: Dataset, where: Path) -> None:
    if tuple(classes) != dataset.classes:
        raise DataError(
            f"{where}: its {len(classes)} classes are not the {len(dataset.classes)} of {dataset.root}; "
            "an oracle must know the same ones"
        )


def _accuracy_of_unseen(
    judge: Classifier, dataset: Dataset, framing: Framing, workers: int | None, progress: Progress
) -> float:
    """The oracle's accuracy on the test images that it did not learn from."""
    if not dataset.test:
        return float("nan")
    framing = framing.model_copy(update={"size": judge.size})
    patches = read_patches(dataset, dataset.test, framing, workers=workers, progress=progress)
    unseen = ~judge.saw(patches.images)
    return judge.accuracy(patches.images[unseen], patches.labels[unseen])


def _scores(found: _Found) -> Iterator[AnswerScore]:
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


def _mean(values: Float[np.ndarray, " P"]) -> Mean:
    values = values[~np.isnan(values)]
    if not len(values):
        return Mean(float("nan"), float("nan"))
    error = float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return Mean(float(values.mean()), error)


def _remarks(found: _Found, asked: int | None, judged: bool) -> Iterator[str]:
    masked = int(found.masked.sum())
    if masked:
        yield (
            "The file holds no masks: an answer's is where it differs from the reference's background, which is "
            "painted over where the reference's object stood; the truth's own overlap is what this can reach."
        )
    if masked < len(found.label):
        yield (
            f"{len(found.label) - masked} of {len(found.label)} true answers have not both masks: their overlap is not "
            "measured, and without any mask their error is that of the whole image."
        )
    if asked is not None and asked != len(found.label):
        yield f"The table asks for {asked} pairs; {len(found.label)} morphs of the file are among them."
    if not judged:
        yield "Identity was not measured: name an oracle with --oracle FILE or --oracle-data FOLDER."
