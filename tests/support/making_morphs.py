"""HDF5 files of birds with synthetic images that a test chooses, and quick command lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from dagaug.augment.morph_plan import VARIANTS
from dagaug.data.dataset_records import Dataset, Sample
from dagaug.data.image_files import encode
from dagaug.hdf5.schema import Candidates, Header, Images
from dagaug.hdf5.shard_folder import open_shard_folder
from dagaug.hdf5.shards import ShardContent

Pair = tuple[Sample, Sample, str]
"""Source, reference and variant."""

Maker = Callable[[Sample, Sample, str], np.ndarray]
"""Draws a morph: RGB, uint8."""


def pairs_of(dataset: Dataset, count: int, *, split: str = "train", variant: str = "morph") -> list[Pair]:
    """So many pairs of images of different classes, spread over the classes."""
    samples = [sample for sample in dataset.samples if sample.split == split]
    found = [(one, other, variant) for one in samples for other in samples if one.label != other.label]
    chosen = np.random.default_rng(0).permutation(len(found))[:count]
    return [found[row] for row in chosen]


def write_morphs(target: Path, dataset: Dataset, pairs: Sequence[Pair], draw: Maker, **options: object) -> Path:
    """A file of nothing but these morphs."""
    images = [draw(*pair) for pair in pairs]
    row_of = {sample.path: row for row, sample in enumerate(dataset.samples)}
    rows = np.arange(len(pairs))
    source = np.array([row_of[one.path] for one, _, _ in pairs])
    reference = np.array([row_of[other.path] for _, other, _ in pairs])
    label = np.array([one.label for one, _, _ in pairs])
    variant = np.array([VARIANTS.index(name) for _, _, name in pairs])  # type: ignore[arg-type]
    confidence = np.full(len(pairs), 0.5, np.float32)
    content = ShardContent(
        [encode(image, "png") for image in images],
        Images(
            height=np.array([image.shape[0] for image in images]),
            width=np.array([image.shape[1] for image in images]),
            label=label,
            split=np.zeros(len(pairs), int),
            synthetic=np.ones(len(pairs), bool),
            source=source,
            reference=reference,
            variant=variant,
            confidence=confidence,
            predicted=label,
            candidate=rows,
        ),
        Candidates(source, reference, variant, label, label, confidence, np.zeros(len(pairs), int), rows),
    )
    header = Header(
        classes=dataset.classes,
        files=tuple(sample.path.as_posix() for sample in dataset.samples),
        files_label=np.array([sample.label for sample in dataset.samples], np.int32),
        files_split=np.array([sample.split == "test" for sample in dataset.samples], np.uint8),
        encoding="png",
        quality=0,
        variants=VARIANTS,
        verdicts=("kept",),
        options={"data": str(dataset.root), "frame": "whole", "framing": {"size": 32}} | options,
        checkpoint_sha256="",
        seed=0,
        created_by="dagaug",
    )
    with open_shard_folder(target, {"name": target.name}) as run:
        run.write(0, content)
        return run.merge(header, 1)
