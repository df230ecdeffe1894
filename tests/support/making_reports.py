"""HDF5 files, clouds and run folders for the tests of the report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from making_stores import SIZE, encode, header, picture

from dagaug.hdf5.reader import Store
from dagaug.hdf5.schema import Candidates, Images
from dagaug.hdf5.shard_folder import open_shard_folder
from dagaug.hdf5.shards import ShardContent
from dagaug.report.data_cloud import Cloud
from dagaug.report.morph_images import ImageRef

HOSTILE = ("<script>alert(1)</script>", "</script><img src=x onerror=alert(1)>", "\"'&<b>bold $x$ \\u2028")


def write_store(
    target: Path,
    *,
    per_class: int = 5,
    real: bool = True,
    size: int = SIZE,
    rejected: int = 1,
    files: int = 6,
    classes: tuple[str, ...] = HOSTILE,
    kinds: tuple[str, ...] = ("morph",),
) -> Path:
    """Real images of three classes and, of each class, kept morphs of rising confidence and rejected ones."""
    labels = np.arange(files) % 3
    splits = (np.arange(files) >= 3).astype(np.uint8) if files > 3 else np.zeros(files, np.uint8)
    shards = []
    if real:
        table = Images.real(np.full(files, size + 2), np.full(files, size), labels, splits, np.arange(files))
        shards.append(ShardContent([encode(picture(row, size), "jpeg") for row in range(files)], table))
    each = per_class + rejected + 2  # the last two of a class are candidates without an image
    number = np.arange(3 * each)
    label, place = number // each, number % each
    verdict = np.where(place < per_class, 0, 1)
    pictured = place < per_class + rejected
    image = np.where(pictured, np.cumsum(pictured) - 1, -1)
    candidates = Candidates(
        source=label,
        reference=(label + 1) % 3,
        variant=place % len(kinds),
        label=label,
        predicted=np.where(verdict == 0, label, (label + 1) % 3),
        confidence=((place + 1) / (each + 1)).astype(np.float32),
        verdict=verdict,
        image=image,
    )
    made = np.flatnonzero(pictured)
    count = len(made)
    morphs = Images(
        height=np.full(count, size + 2),
        width=np.full(count, size),
        label=label[made],
        split=np.zeros(count, np.uint8),
        synthetic=np.ones(count, bool),
        source=candidates.source[made],
        reference=candidates.reference[made],
        variant=candidates.variant[made],
        confidence=candidates.confidence[made],
        predicted=candidates.predicted[made],
        candidate=made,
    )
    shards.append(ShardContent([encode(picture(900 + row, size), "jpeg") for row in range(count)], morphs, candidates))
    with open_shard_folder(target, {"per_class": per_class}) as run:
        for index, shard in enumerate(shards):
            run.write(index, shard)
        return run.merge(
            replace(
                header("jpeg"),
                classes=classes,
                variants=kinds,
                files=tuple(f"<i>{row}</i>.png" for row in range(files)),
                files_label=labels.astype(np.int32),
                files_split=splits,
                skipped=(("<u>x</u>/\udce9.jpg", "truncated JPEG"),),
            ),
            len(shards),
        )


def a_cloud(store: Path, seed: int = 0) -> Cloud:
    """A cloud of all images of a file, here and there."""
    with Store(store) as opened:
        table, labels = opened.images, opened.header.files_label
        results = np.flatnonzero(table.synthetic)
        files, split = len(labels), opened.header.files_split
    rng = np.random.default_rng(seed)
    count = len(results) + files
    shown = [ImageRef("result", row) for row in results.tolist()] + [ImageRef("original", row) for row in range(files)]
    return Cloud(
        points=rng.random((count, 2)),
        kind=np.concatenate([np.zeros(len(results), int), 1 + split.astype(int)]),
        label=np.concatenate([table.label[results], labels]).astype(int),
        shown=tuple(shown),
        tiles=rng.integers(0, 256, (count, 40, 40, 3), dtype=np.uint8),
        nearest={"synthetic": 0.5, "real test": 0.25},
        learned=False,
        classes=3,
        all_classes=3,
        method="<b>t-SNE</b>",
    )


def write_run(folder: Path) -> Path:
    (folder / "sheets").mkdir(parents=True)
    (folder / "options.json").write_text(json.dumps({"steps": 700, "networks": {"instances": 8}, "name": "<b>"}))
    lines = [json.dumps({"step": step, "<total>": 1 / step, "flow": 2.0}) for step in range(1, 40)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 40, "to')
    for step in range(500, 4000, 500):
        cv2.imwrite(str(folder / "sheets" / f"step-{step:06d}.png"), picture(step, 60))
    cv2.imwrite(str(folder / "attention.png"), picture(1, 40))
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def write_score(path: Path, verdict: str = "harms") -> Path:
    """The JSON of a score with two arms."""

    def about(mean: float, reach: float) -> dict[str, float]:
        return {"mean": mean, "low": mean - reach, "high": mean + reach}

    score = {
        "arms": [
            {"arm": "real", "accuracies": [0.6, 0.7], "accuracy": about(0.65, 0.05)},
            {"arm": "real+dagaug", "accuracies": [0.5, 0.6], "accuracy": about(0.55, 0.05)},
        ],
        "comparisons": [{"arm": "real+dagaug", "difference": about(-0.1, 0.02), "p": 0.01, "verdict": verdict}],
        "sentences": ["real+dagaug harms <b>badly</b>"],
        "classes": 3,
        "real": 3,
        "synthetic": 15,
        "test": 3,
        "steps": 1200,
        "synthetic_share": 0.25,
        "options": {"fit": {"name": "resnet18"}},
        "a later version's key": 1,
    }
    path.write_text(json.dumps(score))
    return path
