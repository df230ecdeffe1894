from __future__ import annotations

import csv
from dataclasses import astuple, fields
from pathlib import Path

import cv2
import numpy as np
import pytest

from dagaug.birds import dataset
from dagaug.birds.anatomy import Pose
from dagaug.birds.dataset import true_morph, write_flock
from dagaug.birds.poses import pose_band_of
from dagaug.birds.rendering import PART_NAMES, Rendering, Scene, render
from dagaug.birds.species import species_of
from dagaug.runtime.errors import DataError, LockedError, OutputExistsError, UsageError
from dagaug.runtime.files import locked

COUNTS = {"species": 5, "per_class": 2, "test_per_class": 2}


def read_image(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1]


def read_list(path: Path) -> list[list[str]]:
    return [line.split(" ") for line in path.read_text(encoding="utf-8").splitlines()]


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("birds") / "cub"
    write_flock(directory, **COUNTS, size=48, seed=3)
    return directory


def test_the_same_seed_writes_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    write_flock(tmp_path / "again", **COUNTS, size=48, seed=3)
    write_flock(tmp_path / "other", species=2, per_class=1, test_per_class=1, size=48, seed=4)
    assert tree(tmp_path / "again") == tree(folder)
    assert not tree(tmp_path / "other" / "images").items() & tree(folder / "images").items()


def test_a_larger_data_set_contains_the_smaller_one(folder: Path, tmp_path: Path) -> None:
    write_flock(tmp_path / "more", species=6, per_class=3, test_per_class=3, size=48, seed=3)
    small, large = tree(folder / "images"), tree(tmp_path / "more" / "images")
    assert small.items() <= large.items()
    assert len(large) == 6 * 6


def test_lists_agree_with_each_other_and_with_the_images(folder: Path) -> None:
    images = read_list(folder / "images.txt")
    assert [int(number) for number, _ in images] == list(range(1, 5 * 4 + 1))
    assert {path for _, path in images} == {
        path.relative_to(folder / "images").as_posix() for path in (folder / "images").rglob("*.png")
    }
    classes = dict(read_list(folder / "classes.txt"))
    labels = dict(read_list(folder / "image_class_labels.txt"))
    training = dict(read_list(folder / "train_test_split.txt"))
    boxes = {row[0]: [float(value) for value in row[1:]] for row in read_list(folder / "bounding_boxes.txt")}
    for number, path in images:
        assert classes[labels[number]] == path.split("/")[0]
        assert (training[number] == "1") == ("_train_" in path)
        x, y, width, height = boxes[number]
        assert 0 <= x < x + width <= 48
        assert 0 <= y < y + height <= 48
        captions = (folder / "text" / path).with_suffix(".txt").read_text(encoding="utf-8").splitlines()
        assert all(caption.endswith(".") for caption in captions)
        assert len(captions) == 2
        assert read_image(folder / "images" / path).shape == (48, 48, 3)
    assert labels.keys() == training.keys() == boxes.keys() == dict(images).keys()
    assert [" ".join(row[1:]) for row in read_list(folder / "parts" / "parts.txt")] == list(PART_NAMES)
    locations = read_list(folder / "parts" / "part_locs.txt")
    assert len(locations) == len(images) * len(PART_NAMES)
    with (folder / "metadata.csv").open(newline="", encoding="utf-8") as file:
        assert [row["path"] for row in csv.DictReader(file)] == [path for _, path in images]


@pytest.mark.parametrize(("pose_band", "least", "most"), [("narrow", 1, 1), ("mixed", 0.4, 0.95), ("all", 0, 0.1)])
def test_training_images_keep_to_their_band(tmp_path: Path, pose_band: str, least: float, most: float) -> None:
    write_flock(tmp_path / "d", species=2, per_class=12, test_per_class=6, size=16, pose_band=pose_band)
    with (tmp_path / "d" / "metadata.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))

    def share_in_band(split: str) -> float:
        chosen = [row for row in rows if row["split"] == split]
        return float(np.mean([in_band(row) for row in chosen]))

    def in_band(row: dict[str, str]) -> bool:
        band = pose_band_of(int(row["species"]))
        limits = {name: getattr(band, name) for name in ("tilt", "neck", "wing", "tail")}
        inside = all(low <= float(row[name]) <= high for name, (low, high) in limits.items())
        return inside and int(row["facing"]) == band.facing

    assert least <= share_in_band("train") <= most
    assert share_in_band("test") < 0.1


def test_true_morph_of_an_image_onto_itself_is_the_image(folder: Path) -> None:
    for _, path in read_list(folder / "images.txt")[::5]:
        drawn = true_morph(folder, path, folder / "images" / path)
        np.testing.assert_array_equal(drawn.image, read_image(folder / "images" / path))


def test_true_morph_has_the_sources_species_in_the_references_pose(folder: Path) -> None:
    paths = [path for _, path in read_list(folder / "images.txt")]
    source, sister, stranger = paths[0], paths[4 * 2 + 3], paths[4 * 4 + 2]
    onto_sister = true_morph(folder, source, sister)
    sister_itself = true_morph(folder, sister, sister)
    both = np.minimum(onto_sister.mask, sister_itself.mask).sum()
    assert both / np.maximum(onto_sister.mask, sister_itself.mask).sum() > 0.97
    assert np.abs(onto_sister.image.astype(int) - sister_itself.image)[sister_itself.mask > 0.9].mean() > 3
    onto_stranger = true_morph(folder, source, stranger, size=96)
    with (folder / "metadata.csv").open(newline="", encoding="utf-8") as file:
        row = {row["path"]: row for row in csv.DictReader(file)}[stranger]
    names = [field.name for field in fields(Pose)]
    kinds = [int if name == "facing" else float for name in names]
    values = [kind(row[name]) for kind, name in zip(kinds, names, strict=True)]
    pose = Pose(*values[:-1], perched=row["perched"] == "1")
    scene = Scene(int(row["background_seed"]), *(float(row[f.name]) for f in fields(Scene)[1:]))
    expected = render(species_of(0, seed=3), pose, scene, size=96)
    np.testing.assert_array_equal(onto_stranger.image, expected.image)
    assert astuple(pose)[0] in (-1, 1)


def test_a_true_morph_can_be_wrong_in_its_limbs_or_its_shape_alone(folder: Path) -> None:
    paths = [path for _, path in read_list(folder / "images.txt")]
    source, stranger = paths[0], paths[4 * 4 + 2]
    true, limbs, shape = (
        true_morph(folder, source, stranger, limbs_of=limbs_of, shape_of=shape_of).image.astype(int)
        for limbs_of, shape_of in (("reference", "source"), ("source", "source"), ("reference", "reference"))
    )
    for one, other in ((true, limbs), (true, shape), (limbs, shape)):
        assert np.count_nonzero(np.abs(one - other).max(-1) > 30) >= 12
    own = read_image(folder / "images" / source)
    np.testing.assert_array_equal(true_morph(folder, source, source, limbs_of="source").image, own)
    np.testing.assert_array_equal(true_morph(folder, source, source, shape_of="reference").image, own)


def test_true_morph_of_other_images_or_folders_is_refused(folder: Path, tmp_path: Path) -> None:
    path = read_list(folder / "images.txt")[0][1]
    with pytest.raises(DataError, match=r"nobody\.png: not an image of"):
        true_morph(folder, path, "nobody.png")
    with pytest.raises(DataError, match="holds no built-in birds"):
        true_morph(tmp_path, path, path)


def test_an_existing_data_set_is_left_and_other_parameters_are_refused(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    write_flock(folder, **COUNTS, size=48, seed=3)
    with pytest.raises(OutputExistsError, match=r"size=64: .* with 48; choose another folder"):
        write_flock(folder, **COUNTS, size=64, seed=3)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_foreign_folder_is_refused_and_an_empty_one_filled(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    (tmp_path / "file").write_text("")
    for name in ("mine", "file"):
        with pytest.raises(OutputExistsError, match=name):
            write_flock(tmp_path / name)
    assert tree(tmp_path / "mine") == {"thesis.tex": b"years of work"}
    (tmp_path / "empty").mkdir()
    write_flock(tmp_path / "empty", species=2, per_class=1, test_per_class=0, size=16)
    assert (tmp_path / "empty" / "images.txt").exists()


def test_a_run_that_dies_leaves_nothing_half_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def dying_render(*arguments: object, **options: object) -> Rendering:
        drawn.append(arguments)
        if len(drawn) > 3:
            raise KeyboardInterrupt
        return render(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(dataset, "render", dying_render)
    with pytest.raises(KeyboardInterrupt):
        write_flock(tmp_path / "d", species=2, size=16)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(dataset, "render", render)
    (tmp_path / ".d.part").mkdir()
    (tmp_path / ".d.part" / "left by a killed run").write_text("")
    write_flock(tmp_path / "d", species=2, per_class=1, test_per_class=0, size=16)
    assert [path.name for path in tmp_path.iterdir()] == ["d"]
    assert not (tmp_path / "d" / "left by a killed run").exists()


def test_two_runs_do_not_write_one_folder(tmp_path: Path) -> None:
    with locked(tmp_path / ".d.lock", tmp_path / "d"), pytest.raises(LockedError, match="another run"):
        write_flock(tmp_path / "d")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "value"),
    [("species", 1), ("species", 201), ("per_class", 0), ("test_per_class", -1), ("size", 8), ("seed", -1)],
)
def test_numbers_out_of_range_are_named(tmp_path: Path, option: str, value: int) -> None:
    with pytest.raises(UsageError, match=f"{option}={value}: give a number from"):
        write_flock(tmp_path / "d", **{option: value})  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_pose_band_is_named_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="pose_band=wide: choose one of narrow, mixed, all"):
        write_flock(tmp_path / "d", pose_band="wide")
