"""The built-in data set: procedural birds in the layout of CUB-200-2011, and the true answers of morphs.

Species of one genus share a silhouette and base colours and differ in few markings, so the classes are fine-grained.
Training images of a species may show a narrow band of poses, while test images show all poses; then a classifier
gains from morphs that show each species in other poses. Since any species can be drawn in any pose, the true answer
of a morph is known (:func:`true_morph`).

Each image depends only on the seed, its species, its split and its number, so a larger data set contains the images of
a smaller one unchanged. :mod:`dagaug.birds.rendering` draws the birds, :mod:`dagaug.birds.species` makes the species.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from dagaug.birds.anatomy import WING_RAISED, Pose, Species
from dagaug.birds.poses import pose_band_of, random_pose, random_scene
from dagaug.birds.rendering import PART_NAMES, Rendering, Scene, render
from dagaug.birds.species import MAX_SPECIES, make_species, species_of, stream
from dagaug.data.dataset_records import Box
from dagaug.runtime.errors import DataError, OutputExistsError, UsageError
from dagaug.runtime.files import locked
from dagaug.runtime.progress import SILENT, Progress

__all__ = ["POSE_BANDS", "describe", "true_morph", "write_flock"]

POSE_BANDS = ("narrow", "mixed", "all")
"""Poses of the training images: one narrow band per species, 70% of the images in that band, or all poses."""

_FORMAT = 1
_MIXED_SHARE = 0.7
_SPLITS = ("train", "test")


def describe(species: Species, pose: Pose) -> tuple[str, ...]:
    """Two captions: one about the markings of the species, and one about the pose as well."""
    kind = species.genus.replace("_", " ").lower()
    listed = ", ".join(species.traits[:-1]) + f" and {species.traits[-1]}"
    raised = pose.wing / WING_RAISED
    wings = "folded" if raised < 0.2 else "half open" if raised < 0.65 else "raised high"
    where = "perched on a branch" if pose.perched else "in the air"
    side = "facing left" if pose.facing < 0 else "facing right"
    side += ", beak pointing up" if pose.tilt > 15 else ", leaning down" if pose.tilt < -15 else ""
    return (
        f"this {kind} is {species.above} above and {species.below} below, with {listed}.",
        f"a {species.above} {kind} with {species.traits[0]}, {where} with its wings {wings}, {side}.",
    )


@dataclass(frozen=True)
class _ImageRecord:
    """Everything that determines one image; a row of ``metadata.csv``."""

    path: str
    species: int
    seed: int
    split: str
    number: int
    pose: Pose
    scene: Scene


_POSE_FIELDS = tuple(field.name for field in fields(Pose))
_SCENE_FIELDS = tuple(field.name for field in fields(Scene))
_COLUMNS = ("path", "species", "seed", "split", "number", *_POSE_FIELDS, *_SCENE_FIELDS)


def _class_name(species: Species) -> str:
    return f"{species.index + 1:03d}.{species.name}"


def _random_record(species: Species, split: str, number: int, pose_band: str) -> _ImageRecord:
    seed = species.seed
    rng = stream(seed, "image", species.index, split, number)
    banded = split == "train" and (pose_band == "narrow" or (pose_band == "mixed" and rng.random() < _MIXED_SHARE))
    pose = random_pose(rng, pose_band_of(species.index, seed) if banded else None)
    path = f"{_class_name(species)}/{species.name}_{split}_{number:04d}.png"
    return _ImageRecord(path, species.index, seed, split, number, pose, random_scene(rng))


def _as_row(record: _ImageRecord) -> list[object]:
    row = {**asdict(record), **asdict(record.pose), **asdict(record.scene), "perched": int(record.pose.perched)}
    return [row[column] for column in _COLUMNS]


def _parse_record(row: dict[str, str]) -> _ImageRecord:
    pose = Pose(
        facing=int(row["facing"]),
        perched=row["perched"] == "1",
        **{name: float(row[name]) for name in _POSE_FIELDS if name not in ("facing", "perched")},
    )
    floats = {name: float(row[name]) for name in _SCENE_FIELDS if name != "background_seed"}
    scene = Scene(background_seed=int(row["background_seed"]), **floats)
    return _ImageRecord(
        row["path"], int(row["species"]), int(row["seed"]), row["split"], int(row["number"]), pose, scene
    )


def true_morph(
    folder: Path | str,
    source_path: Path | str,
    reference_path: Path | str,
    size: int | None = None,
    *,
    limbs_of: Literal["source", "reference"] = "reference",
    shape_of: Literal["source", "reference"] = "source",
) -> Rendering:
    """The true answer of a morph: the source's species in the pose, background and light of the reference.

    Args:
        folder: a data set that :func:`write_flock` wrote.
        source_path, reference_path: images, as named in ``images.txt``, or with ``images/`` or its path before.
        size: side of the result in pixels; None for that of the images.
        limbs_of: ``source`` makes the answer wrong: neck, wings and tail keep the pose of the source.
        shape_of: ``reference`` makes the answer wrong: the bird has the proportions of the reference.

    Raises:
        DataError: the folder is no data set of built-in birds, or does not have the image.
    """
    root = Path(folder)
    parameters = _read_parameters(root)
    if parameters is None:
        raise DataError(f"{root}: holds no built-in birds; write them with: dagaug sample-data DIR")
    source, reference = (_find_record(root, Path(path)) for path in (source_path, reference_path))
    species, pose = species_of(source.species, source.seed), reference.pose
    if limbs_of == "source":
        pose = replace(pose, neck=source.pose.neck, wing=source.pose.wing, tail=source.pose.tail)
    if shape_of == "reference":
        species = replace(species, shape=species_of(reference.species, reference.seed).shape)
    return render(species, pose, reference.scene, size=size or parameters.size)


def _find_record(root: Path, path: Path) -> _ImageRecord:
    """The record of an image, by its path in ``images.txt`` or in the folder."""
    name = path
    for start in (root / "images", Path("images")):
        if name.is_relative_to(start):
            name = name.relative_to(start)
    listed = root / "metadata.csv"
    try:
        row = _metadata(listed, listed.stat().st_mtime_ns).get(name.as_posix())
    except OSError as error:
        raise DataError(
            f"{listed}: cannot be read ({error.strerror}); write the birds again: dagaug sample-data"
        ) from error
    if row is None:
        raise DataError(f"{path}: not an image of {root}; its paths are in {root / 'images.txt'}")
    try:
        return _parse_record(row)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{listed}: the row of {name} is malformed; write the birds again: dagaug sample-data"
        ) from error


@lru_cache(maxsize=4)
def _metadata(path: Path, changed: int) -> dict[str, dict[str, str]]:
    """The rows of ``metadata.csv`` by path; ``changed`` is its modification time, so that the cache follows it."""
    del changed
    with path.open(newline="", encoding="utf-8") as file:
        return {row.get("path", ""): row for row in csv.DictReader(file)}


@dataclass(frozen=True)
class _Parameters:
    """The parameters of a data set, as in ``flock.json``; the names are the arguments of :func:`write_flock`."""

    species: int
    per_class: int
    test_per_class: int
    size: int
    pose_band: str
    seed: int
    format: int = _FORMAT


def _read_parameters(root: Path) -> _Parameters | None:
    """The parameters of the data set in a folder; None if the folder has no ``flock.json``."""
    try:
        return _Parameters(**json.loads((root / "flock.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def _check(parameters: _Parameters) -> None:
    limits = {
        "species": (2, MAX_SPECIES),
        "per_class": (1, 9999),
        "test_per_class": (0, 9999),
        "size": (16, 1024),
        "seed": (0, 2**63),
    }
    for name, (low, high) in limits.items():
        value = getattr(parameters, name)
        if not low <= value <= high:
            raise UsageError(f"give a number from {low} to {high}", option=name, value=value)
    if parameters.pose_band not in POSE_BANDS:
        raise UsageError(f"choose one of {', '.join(POSE_BANDS)}", option="pose_band", value=parameters.pose_band)


def write_flock(
    directory: Path | str,
    *,
    species: int = 20,
    per_class: int = 12,
    test_per_class: int = 50,
    size: int = 64,
    pose_band: str = "narrow",
    seed: int = 0,
    progress: Progress = SILENT,
) -> None:
    """Write a data set of built-in birds in the layout of CUB-200-2011.

    Beside the list files of CUB, it has ``metadata.csv`` (species, pose and scene of each image) and ``flock.json``
    (the parameters below). The folder appears only when it is complete. An existing data set with the same parameters
    is left as it is.

    Args:
        directory: the folder to write; it must be missing or empty.
        species: number of species (classes), 2 to :data:`dagaug.birds.species.MAX_SPECIES`.
        per_class: number of training images per species, 1 to 9999.
        test_per_class: number of test images per species, 0 to 9999.
        size: side of the images in pixels, 16 to 1024.
        pose_band: poses of the training images, one of :data:`POSE_BANDS`; test images show all poses.
        seed: random seed, 0 or more.
        progress: counts the images.

    Raises:
        UsageError: a parameter is out of its range.
        OutputExistsError: the folder holds something else.
        LockedError: another run is writing the folder.
        DataError: the folder cannot be written.
    """
    parameters = _Parameters(species, per_class, test_per_class, size, pose_band, seed)
    _check(parameters)
    target = Path(directory)
    whole = target.absolute()
    part = whole.with_name(f".{whole.name}.part")
    try:
        if _exists(target, parameters, progress):
            return
        with locked(whole.with_name(f".{whole.name}.lock"), target):
            shutil.rmtree(part, ignore_errors=True)  # the remains of a killed run
            try:
                part.mkdir()
                _write_images(part, parameters, progress)
                part.replace(whole)
            except BaseException:
                shutil.rmtree(part, ignore_errors=True)
                raise
    except OSError as error:
        raise DataError(f"{target}: cannot be written ({error.strerror}); choose another folder") from error


def _exists(target: Path, parameters: _Parameters, progress: Progress) -> bool:
    """Whether ``target`` is a data set with these parameters.

    Raises:
        OutputExistsError: it is a file, or a folder with other content.
    """
    if not target.exists():
        return False
    if not target.is_dir():
        raise OutputExistsError(f"{target}: is a file; name a folder for the sample data")
    if not any(target.iterdir()):
        return False
    found = _read_parameters(target)
    if found == parameters:
        progress.say(f"{target}: already holds these birds; nothing was written")
        return True
    if found is not None and found.format == parameters.format:
        name = next(name for name in asdict(parameters) if getattr(found, name) != getattr(parameters, name))
        had, asked = getattr(found, name), getattr(parameters, name)
        raise OutputExistsError(
            f"{target}: already holds built-in birds with {had}; choose another folder", option=name, value=asked
        )
    raise OutputExistsError(f"{target}: is not empty and holds no built-in birds; choose another folder")


def _all_records(parameters: _Parameters, kinds: Sequence[Species]) -> Iterator[_ImageRecord]:
    counts = {"train": parameters.per_class, "test": parameters.test_per_class}
    for species in kinds:
        for split in _SPLITS:
            for number in range(1, counts[split] + 1):
                yield _random_record(species, split, number, parameters.pose_band)


def _write_images(root: Path, parameters: _Parameters, progress: Progress) -> None:
    """Write images, captions and list files."""
    kinds = make_species(parameters.species, parameters.seed)
    for species in kinds:
        (root / "images" / _class_name(species)).mkdir(parents=True)
        (root / "text" / _class_name(species)).mkdir(parents=True)
    records = list(_all_records(parameters, kinds))
    renderings: list[tuple[Box, np.ndarray]] = []
    with progress.task("Drawing birds", len(records), "images") as task:
        for record in records:
            species = kinds[record.species]
            drawn = render(species, record.pose, record.scene, size=parameters.size)
            _, png = cv2.imencode(".png", cv2.cvtColor(drawn.image, cv2.COLOR_RGB2BGR))
            (root / "images" / record.path).write_bytes(png.tobytes())
            caption = "\n".join(describe(species, record.pose)) + "\n"
            (root / "text" / record.path).with_suffix(".txt").write_text(caption, encoding="utf-8")
            renderings.append((drawn.box, drawn.parts))
            task.advance()
    _write_lists(root, kinds, records, renderings)
    (root / "flock.json").write_text(json.dumps(asdict(parameters), indent=1) + "\n", encoding="utf-8")


def _write_lists(
    root: Path,
    kinds: Sequence[Species],
    records: Sequence[_ImageRecord],
    renderings: Sequence[tuple[Box, np.ndarray]],
) -> None:
    """Write the list files of CUB-200-2011, numbered from 1 as there, and ``metadata.csv``."""
    numbered = list(enumerate(records, 1))
    lists = {
        "classes.txt": [f"{species.index + 1} {_class_name(species)}" for species in kinds],
        "images.txt": [f"{number} {record.path}" for number, record in numbered],
        "image_class_labels.txt": [f"{number} {record.species + 1}" for number, record in numbered],
        "train_test_split.txt": [f"{number} {int(record.split == 'train')}" for number, record in numbered],
        "bounding_boxes.txt": [
            f"{number} " + " ".join(f"{value:.1f}" for value in box) for number, (box, _) in enumerate(renderings, 1)
        ],
        "parts/parts.txt": [f"{number} {name}" for number, name in enumerate(PART_NAMES, 1)],
        "parts/part_locs.txt": [
            f"{number} {part} {x:.2f} {y:.2f} {int(seen)}"
            for number, (_, parts) in enumerate(renderings, 1)
            for part, (x, y, seen) in enumerate(parts, 1)
        ],
    }
    (root / "parts").mkdir()
    for name, lines in lists.items():
        (root / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    with (root / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(_as_row(record) for record in records)
