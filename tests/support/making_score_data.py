"""Two classes of noise, an HDF5 file of their morphs, and a folder of another method's images."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from dagaug.classifiers.fit import FitOptions
from dagaug.data.dataset_records import Dataset
from dagaug.data.layouts import read_dataset
from dagaug.hdf5.schema import Candidates, Header, Images
from dagaug.hdf5.shard_folder import open_shard_folder
from dagaug.hdf5.shards import ShardContent
from dagaug.score.options import ScoreOptions

OPTIONS = ScoreOptions(FitOptions("test_resnet", 32, steps=4, batch_size=8), seeds=2, arms=("real", "real+dagaug"))


def picture(label: int, seed: int) -> np.ndarray:
    """BGR noise, brighter in one channel."""
    image = np.random.default_rng(seed).integers(0, 120, (24, 24, 3), dtype=np.uint8)
    image[..., label] += 120
    return image


def write_data(root: Path) -> Dataset:
    """Two classes with 4 training and 3 test images each."""
    for split, count in (("train", 4), ("test", 3)):
        for label, name in enumerate(("blue", "green")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                seed = 100 * label + number + (50 if split == "test" else 0)
                cv2.imwrite(str(folder / f"{number}.png"), picture(label, seed))
    return read_dataset(root)


def write_impostors(root: Path) -> Dataset:
    """The same names with other images."""
    other = write_data(root)
    for sample in other.samples:
        image = cv2.imread(str(other.file(sample)))
        cv2.imwrite(str(other.file(sample)), 255 - image)
    return other


def write_store(
    path: Path,
    dataset: Dataset,
    *,
    classes: tuple[str, ...] | None = None,
    source: int = 0,
    synthetic: bool = True,
    split: int = 0,
    stray: str | None = None,
    **options: object,
) -> Path:
    """A store of four morphs, or with ``synthetic=False`` of four real images.

    ``source`` is the row (training images first) that the first one was made from.

    ``options`` are recorded in the file.
    """
    samples = (*dataset.train, *dataset.test)
    files = [sample.path.as_posix() for sample in samples]
    if stray is not None:
        files[source] = stray
    rows = np.array([source, 1, 5, 6])
    labels = np.array([samples[row].label for row in rows])
    images = [picture(int(label), 900 + number)[..., ::-1] for number, label in enumerate(labels)]
    reference = np.array([2, 3, 6, 7])
    confidence = np.full(4, 0.8, np.float32)
    variant = np.zeros(4, np.uint8)
    count = np.arange(4)
    table = Images(
        height=np.full(4, 24),
        width=np.full(4, 24),
        label=labels,
        split=np.full(4, split),
        synthetic=np.ones(4, bool),
        source=rows,
        reference=reference,
        variant=variant,
        confidence=confidence,
        predicted=labels,
        candidate=count,
    )
    candidates = Candidates(rows, reference, variant, labels, labels, confidence, np.zeros(4, np.uint8), count)
    if not synthetic:
        images = [cv2.imread(str(dataset.file(samples[row])))[..., ::-1] for row in rows]
        table = Images.real(table.height, table.width, labels, table.split, rows)
        candidates = Candidates.none()
    header = Header(
        classes=classes or dataset.classes,
        files=tuple(files),
        files_label=np.array([sample.label for sample in samples]),
        files_split=np.array([int(sample.split == "test") for sample in samples]),
        encoding="raw",
        quality=0,
        variants=("as it is",),
        verdicts=("kept",),
        options=options,
        checkpoint_sha256="",
        seed=0,
        created_by="test",
    )
    with open_shard_folder(path, {}) as run:
        run.write(0, ShardContent([image.tobytes() for image in images], table, candidates))
        run.merge(header, 1)
    return path


def folder_of(root: Path, names: tuple[str, ...] = ("blue", "green"), count: int = 3) -> Path:
    for label, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for number in range(count):
            cv2.imwrite(str(root / name / f"{number}.png"), picture(label % 2, 700 + 10 * label + number))
    return root
