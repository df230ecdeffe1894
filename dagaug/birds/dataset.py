"""The built-in sample data: procedural birds in the layout of CUB-200-2011.

Species of one genus share a silhouette and base colours and differ in few markings: a fine-grained
problem. Where a species' training images show only one narrow band of poses while test images show all, a
classifier gains from seeing each bird in other poses; and since any species can be drawn in any pose, the
true answer of a morph is known (:func:`true_morph`).

Each image depends on the seed, its species, its split and its number alone, so a larger flock holds the
images of a smaller one unchanged. How birds are drawn is the business of :mod:`dagaug.plumage`, and what
species there are that of :mod:`dagaug.species`.
"""

from __future__ import annotations

import csv
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from dagaug.birds.anatomy import WING_RAISED, Frame, Pose, Shape, Species
from dagaug.birds.rendering import PARTS, Rendering, Scene, render
from dagaug.birds.species import MAX_SPECIES, make_species, species_of, stream
from dagaug.runtime.errors import DataError, LockedError, OutputExistsError, UsageError
from dagaug.runtime.progress import SILENT, Progress

__all__ = [
    "POSE_BANDS",
    "PoseBand",
    "Range",
    "describe",
    "pose_band_of",
    "random_pose",
    "random_scene",
    "true_morph",
    "write_flock",
]

POSE_BANDS = ("narrow", "mixed", "all")
"""What training images show: one band of poses a species, seven tenths of them from it, or all poses."""

_FORMAT = 1


_MIXED_SHARE = 0.7


_SPLITS = ("train", "test")

Range = tuple[float, float]


@dataclass(frozen=True)
class PoseBand:
    """Ranges (degrees) that poses are drawn from; facing is -1, 1, or 0 for both.

    Where the bird is, its size, and whether it perches are free within every band.
    """

    facing: int = 0
    tilt: Range = (-35.0, 35.0)
    neck: Range = (-22.0, 26.0)
    wing: Range = (0.0, WING_RAISED)
    tail: Range = (-24.0, 30.0)


_ALL_POSES = PoseBand()


_BAND_WIDTHS = {"tilt": 9.0, "neck": 8.0, "wing": 16.0, "tail": 8.0}


def pose_band_of(index: int, seed: int = 0) -> PoseBand:
    """The one narrow band of poses, with one facing, that species number ``index`` shows in training."""
    rng = stream(seed, "band", index)
    facing = 1 if rng.random() < 0.5 else -1
    ranges: dict[str, Range] = {}
    for name, width in _BAND_WIDTHS.items():
        low, high = getattr(_ALL_POSES, name)
        start = float(rng.uniform(low, high - width))
        ranges[name] = (start, start + width)
    return PoseBand(facing, **ranges)


# As large as any silhouette: a pose that keeps this bird within the picture keeps all.
_LARGEST = Shape(posture=18.0, head=0.094, beak=0.10, wing=0.355, tail=0.285)


_MARGIN = 0.05


def random_pose(rng: np.random.Generator, band: PoseBand | None = None) -> Pose:
    """A pose, uniform over ``band`` (default: all poses), its bird within the picture.

    Scale is 0.75 to 1.1, less where it would not fit; the bird's middle is up to 0.06 from the picture's.
    """
    band = band or _ALL_POSES
    facing = band.facing or (1 if rng.random() < 0.5 else -1)
    tilt, neck, wing, tail = (float(rng.uniform(*limits)) for limits in (band.tilt, band.neck, band.wing, band.tail))
    perched = bool(rng.random() < 0.9 - 0.7 * wing / WING_RAISED)
    wanted, jitter = float(rng.uniform(0.75, 1.1)), rng.uniform(-0.5, 0.5, 2)
    low, high = Frame(_LARGEST, Pose(facing, tilt, 1.0, 0.0, 0.0, neck, wing, tail, perched)).extent()
    scale = min(wanted, float((1 - 2 * _MARGIN) / (high - low).max()))
    room = 1 - 2 * _MARGIN - (high - low) * scale
    dx, dy = (0.5 - (low + high) / 2) * scale + jitter * np.minimum(room, 0.12)
    return Pose(facing, tilt, scale, float(dx), float(dy), neck, wing, tail, perched)


def random_scene(rng: np.random.Generator) -> Scene:
    """A background and a light."""
    return Scene(
        background_seed=int(rng.integers(2**31)),
        light_angle=float(rng.uniform(-50, 50)),
        light=float(rng.uniform(0.55, 1.0)),
        warmth=float(rng.uniform(-1, 1)),
        exposure=float(rng.uniform(0.86, 1.1)),
    )


def describe(species: Species, pose: Pose) -> tuple[str, ...]:
    """Two captions: one of the species' markings, one that also tells the pose."""
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
class _Shot:
    """One image to be drawn: all that decides it."""

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


def _shot(species: Species, split: str, number: int, pose_band: str) -> _Shot:
    seed = species.seed
    rng = stream(seed, "image", species.index, split, number)
    banded = split == "train" and (pose_band == "narrow" or (pose_band == "mixed" and rng.random() < _MIXED_SHARE))
    pose = random_pose(rng, pose_band_of(species.index, seed) if banded else None)
    path = f"{_class_name(species)}/{species.name}_{split}_{number:04d}.png"
    return _Shot(path, species.index, seed, split, number, pose, random_scene(rng))


def _record(shot: _Shot) -> list[object]:
    row = {**asdict(shot), **asdict(shot.pose), **asdict(shot.scene), "perched": int(shot.pose.perched)}
    return [row[column] for column in _COLUMNS]


def _shot_of(row: dict[str, str]) -> _Shot:
    pose = Pose(
        facing=int(row["facing"]),
        perched=row["perched"] == "1",
        **{name: float(row[name]) for name in _POSE_FIELDS if name not in ("facing", "perched")},
    )
    floats = {name: float(row[name]) for name in _SCENE_FIELDS if name != "background_seed"}
    scene = Scene(background_seed=int(row["background_seed"]), **floats)
    return _Shot(row["path"], int(row["species"]), int(row["seed"]), row["split"], int(row["number"]), pose, scene)


def true_morph(
    folder: Path | str,
    source_path: Path | str,
    reference_path: Path | str,
    size: int | None = None,
    *,
    limbs_of: Literal["source", "reference"] = "reference",
    shape_of: Literal["source", "reference"] = "source",
) -> Rendering:
    """The true answer of a morph: the source's species in the reference's pose, background and light.

    ``folder`` was written by :func:`write_flock`; the paths are as in its ``images.txt``, or the same with
    the folder's ``images/`` before them. ``size`` is by default that of the folder's images. ``limbs_of`` and
    ``shape_of`` make the answer wrong in one way: by the source's own neck, wings and tail, or by the reference's
    proportions. Raises DataError for a folder or paths that are not of a flock.
    """
    root = Path(folder)
    parameters = _parameters(root)
    if parameters is None:
        raise DataError(f"{root}: holds no built-in birds; write them with: dagaug sample-data DIR")
    source, reference = (_shot_at(root, Path(path)) for path in (source_path, reference_path))
    species, pose = species_of(source.species, source.seed), reference.pose
    if limbs_of == "source":
        pose = replace(pose, neck=source.pose.neck, wing=source.pose.wing, tail=source.pose.tail)
    if shape_of == "reference":
        species = replace(species, shape=species_of(reference.species, reference.seed).shape)
    return render(species, pose, reference.scene, size=size or parameters.size)


def _shot_at(root: Path, path: Path) -> _Shot:
    """The shot of an image, found by its path in images.txt or in the folder."""
    name = path
    for start in (root / "images", Path("images")):
        if name.is_relative_to(start):
            name = name.relative_to(start)
    listed = root / "metadata.csv"
    try:
        row = _metadata(listed, listed.stat().st_mtime_ns).get(name.as_posix())
    except OSError as error:
        raise DataError(f"{listed}: cannot be read ({error.strerror}); write the birds anew") from error
    if row is None:
        raise DataError(f"{path}: not an image of {root}; its paths are in {root / 'images.txt'}")
    try:
        return _shot_of(row)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{listed}: the row of {name} is malformed; write the birds anew") from error


@lru_cache(maxsize=4)
def _metadata(path: Path, changed: int) -> dict[str, dict[str, str]]:
    """The rows of a list by image; ``changed``, its time stamp, keeps the cache from growing stale."""
    del changed
    with path.open(newline="", encoding="utf-8") as file:
        return {row.get("path", ""): row for row in csv.DictReader(file)}


@dataclass(frozen=True)
class _Parameters:
    """What a flock is written from; its fields are the options of ``dagaug sample-data``."""

    species: int
    per_class: int
    test_per_class: int
    size: int
    pose_band: str
    seed: int
    format: int = _FORMAT


def _parameters(root: Path) -> _Parameters | None:
    """What the flock in this folder was written from; None where there is no flock."""
    try:
        return _Parameters(**json.loads((root / "flock.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def _check(wanted: _Parameters) -> None:
    limits = {
        "species": (2, MAX_SPECIES),
        "per_class": (1, 9999),
        "test_per_class": (0, 9999),
        "size": (16, 1024),
        "seed": (0, 2**63),
    }
    for name, (low, high) in limits.items():
        value = getattr(wanted, name)
        if not low <= value <= high:
            raise UsageError(f"{_option(name)} {value}: must be {low} to {high}")
    if wanted.pose_band not in POSE_BANDS:
        raise UsageError(f"--pose-band {wanted.pose_band}: must be one of {', '.join(POSE_BANDS)}")


def _option(field: str) -> str:
    return "--" + field.replace("_", "-")


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
    """Write built-in birds to ``directory`` in the layout of CUB-200-2011.

    Beside CUB's lists there are ``metadata.csv`` (species, pose and scene of each image) and ``flock.json``
    (these parameters). The folder appears only when it is whole. A flock of the same parameters that is
    already there is left as it is. Raises UsageError for values out of range, OutputExistsError for a folder
    that holds anything else, LockedError while another run writes it, DataError where nothing can be written.
    """
    wanted = _Parameters(species, per_class, test_per_class, size, pose_band, seed)
    _check(wanted)
    target = Path(directory)
    try:
        if _already_there(target, wanted, progress):
            return
        target.absolute().parent.mkdir(parents=True, exist_ok=True)
        part = target.absolute().parent / f".{target.absolute().name}.part"
        part.mkdir(exist_ok=True)
        handle = os.open(part, os.O_RDONLY)
        try:
            _write_locked(part, handle, target, wanted, progress)
        finally:
            os.close(handle)
    except OSError as error:
        raise DataError(f"{target}: cannot be written ({error.strerror}); choose another folder") from error


def _write_locked(part: Path, handle: int, target: Path, wanted: _Parameters, progress: Progress) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LockedError(f"{target}: another run is writing it; wait for it to end") from None
    for left in part.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    done = False
    try:
        _fill(part, wanted, progress)
        part.replace(target.absolute())
        done = True
    finally:
        if not done:
            shutil.rmtree(part, ignore_errors=True)


def _already_there(target: Path, wanted: _Parameters, progress: Progress) -> bool:
    """Whether ``target`` is this very flock; raises where it is anything but absent or empty."""
    if not target.exists():
        return False
    if not target.is_dir():
        raise OutputExistsError(f"{target}: is a file; name a folder for the sample data")
    if not any(target.iterdir()):
        return False
    found = _parameters(target)
    if found == wanted:
        progress.say(f"{target}: these birds are already there; left as they are")
        return True
    if found is not None and found.format == wanted.format:
        name = next(name for name in asdict(wanted) if getattr(found, name) != getattr(wanted, name))
        had, asked = getattr(found, name), getattr(wanted, name)
        raise OutputExistsError(f"{target}: its birds have {_option(name)} {had}, not {asked}; choose another folder")
    raise OutputExistsError(f"{target}: is not empty and holds no built-in birds; choose another folder")


def _shots(wanted: _Parameters, kinds: Sequence[Species]) -> Iterator[_Shot]:
    counts = {"train": wanted.per_class, "test": wanted.test_per_class}
    for species in kinds:
        for split in _SPLITS:
            for number in range(1, counts[split] + 1):
                yield _shot(species, split, number, wanted.pose_band)


def _fill(root: Path, wanted: _Parameters, progress: Progress) -> None:
    """Draw the images into ``root`` and write the lists."""
    kinds = make_species(wanted.species, wanted.seed)
    for species in kinds:
        (root / "images" / _class_name(species)).mkdir(parents=True)
        (root / "text" / _class_name(species)).mkdir(parents=True)
    shots = list(_shots(wanted, kinds))
    renderings: list[tuple[tuple[float, float, float, float], np.ndarray]] = []
    with progress.task("drawing birds", len(shots), "images") as task:
        for shot in shots:
            species = kinds[shot.species]
            drawn = render(species, shot.pose, shot.scene, size=wanted.size)
            _, png = cv2.imencode(".png", cv2.cvtColor(drawn.image, cv2.COLOR_RGB2BGR))
            (root / "images" / shot.path).write_bytes(png.tobytes())
            caption = "\n".join(describe(species, shot.pose)) + "\n"
            (root / "text" / shot.path).with_suffix(".txt").write_text(caption, encoding="utf-8")
            renderings.append((drawn.box, drawn.parts))
            task.advance()
    _write_lists(root, kinds, shots, renderings)
    (root / "flock.json").write_text(json.dumps(asdict(wanted), indent=1) + "\n", encoding="utf-8")


def _write_lists(
    root: Path,
    kinds: Sequence[Species],
    shots: Sequence[_Shot],
    renderings: Sequence[tuple[tuple[float, float, float, float], np.ndarray]],
) -> None:
    """CUB-200-2011's lists, numbered from 1 as there, and ``metadata.csv``."""
    numbered = list(enumerate(shots, 1))
    lists = {
        "classes.txt": [f"{species.index + 1} {_class_name(species)}" for species in kinds],
        "images.txt": [f"{number} {shot.path}" for number, shot in numbered],
        "image_class_labels.txt": [f"{number} {shot.species + 1}" for number, shot in numbered],
        "train_test_split.txt": [f"{number} {int(shot.split == 'train')}" for number, shot in numbered],
        "bounding_boxes.txt": [
            f"{number} " + " ".join(f"{value:.1f}" for value in box) for number, (box, _) in enumerate(renderings, 1)
        ],
        "parts/parts.txt": [f"{number} {name}" for number, name in enumerate(PARTS, 1)],
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
        writer.writerows(_record(shot) for shot in shots)
