"""The built-in birds: drawn truthfully, written whole, the same every time."""

from __future__ import annotations

import csv
import fcntl
import os
from dataclasses import astuple, fields, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from dagaug.birds import dataset as flock
from dagaug.birds.anatomy import Species
from dagaug.birds.dataset import PoseBand, random_pose, random_scene
from dagaug.birds.rendering import PARTS, render
from dagaug.birds.species import species_of
from dagaug.runtime.errors import DataError, LockedError, OutputExistsError, UsageError

COUNTS = {"species": 5, "per_class": 2, "test_per_class": 2}


def read_image(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1]


def read_list(path: Path) -> list[list[str]]:
    return [line.split(" ") for line in path.read_text(encoding="utf-8").splitlines()]


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def markings_of(species: Species) -> tuple[object, ...]:
    ignored = {"index", "seed", "name", "genus", "shape", "above", "below", "traits"}
    return tuple(getattr(species, field.name) for field in fields(species) if field.name not in ignored)


def examples(count: int) -> list[tuple[Species, flock.Pose, flock.Scene]]:
    rngs = (np.random.default_rng(number) for number in range(count))
    return [(species_of(number % 40), random_pose(rng), random_scene(rng)) for number, rng in enumerate(rngs)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("birds") / "cub"
    flock.write_flock(directory, **COUNTS, size=48, seed=3)
    return directory


def test_the_same_seed_writes_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    flock.write_flock(tmp_path / "again", **COUNTS, size=48, seed=3)
    flock.write_flock(tmp_path / "other", species=2, per_class=1, test_per_class=1, size=48, seed=4)
    assert tree(tmp_path / "again") == tree(folder)
    assert not tree(tmp_path / "other" / "images").items() & tree(folder / "images").items()


def test_a_larger_flock_holds_the_smaller_one(folder: Path, tmp_path: Path) -> None:
    flock.write_flock(tmp_path / "more", species=6, per_class=3, test_per_class=3, size=48, seed=3)
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
    assert [" ".join(row[1:]) for row in read_list(folder / "parts" / "parts.txt")] == list(PARTS)
    locations = read_list(folder / "parts" / "part_locs.txt")
    assert len(locations) == len(images) * len(PARTS)
    with (folder / "metadata.csv").open(newline="", encoding="utf-8") as file:
        assert [row["path"] for row in csv.DictReader(file)] == [path for _, path in images]


def test_mask_is_where_the_bird_differs_from_the_bare_scene() -> None:
    for species, pose, scene in examples(10):
        drawn = render(species, pose, scene)
        bare = render(species, pose, scene, bird=False)
        assert not bare.mask.any()
        difference = np.abs(drawn.image.astype(int) - bare.image.astype(int)).max(-1)
        assert difference[drawn.mask == 0].max() <= 2
        inside = drawn.mask > 0.9
        assert inside.sum() > 150
        # a bird may by chance have the colours of what is behind it, but not everywhere
        assert np.mean(difference[inside] > 4) > 0.75


def test_bird_is_whole_within_the_picture() -> None:
    for species, pose, scene in examples(20):
        mask = render(species, pose, scene).mask
        border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
        assert border.max() < 0.05, (species.name, pose)


def test_box_is_tight() -> None:
    for species, pose, scene in examples(6):
        drawn = render(species, pose, scene)
        x, y, width, height = (int(value) for value in drawn.box)
        covered = drawn.mask > 0.25
        assert covered[y : y + height, x : x + width].sum() == covered.sum()
        for edge in (covered[y], covered[y + height - 1], covered[:, x], covered[:, x + width - 1]):
            assert edge.any()


def test_visible_parts_lie_on_the_bird_and_the_far_eye_is_hidden() -> None:
    for species, pose, scene in examples(16):
        drawn = render(species, pose, scene)
        near = cv2.dilate(drawn.mask, np.ones((5, 5)))
        for name, (x, y, visible) in zip(PARTS, drawn.parts, strict=True):
            if visible:
                assert near[int(y), int(x)] > 0.3, (name, species.name, pose)
            else:
                assert (x, y) == (0, 0)
        hidden = "right eye" if pose.facing < 0 else "left eye"
        assert drawn.parts[PARTS.index(hidden), 2] == 0
        beak, tail = (drawn.parts[PARTS.index(name)] for name in ("beak", "tail"))
        if beak[2] and tail[2]:
            assert np.sign(beak[0] - tail[0]) == pose.facing


def test_picture_is_the_same_at_every_size() -> None:
    species, pose, scene = examples(3)[2]
    small, large = render(species, pose, scene, size=64), render(species, pose, scene, size=256)
    shrunk = cv2.resize(large.image, (64, 64), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(shrunk - small.image).mean() < 4
    assert np.abs(cv2.resize(large.mask, (64, 64), interpolation=cv2.INTER_AREA) - small.mask).mean() < 0.01
    # whether a part at the wing's very edge is hidden may depend on the pixels
    seen = (large.parts[:, 2] == 1) & (small.parts[:, 2] == 1)
    assert seen.sum() >= max(large.parts[:, 2].sum(), small.parts[:, 2].sum()) - 1
    assert large.parts[seen] == pytest.approx(small.parts[seen] * (4, 4, 1))


def test_narrow_bands_are_narrow_and_test_poses_cover_the_range() -> None:
    everything = PoseBand()
    poses = [random_pose(np.random.default_rng(number)) for number in range(200)]
    assert {pose.facing for pose in poses} == {-1, 1}
    for name in ("tilt", "neck", "wing", "tail"):
        low, high = getattr(everything, name)
        seen = np.array([getattr(pose, name) for pose in poses])
        counts, _ = np.histogram(seen, bins=5, range=(low, high))
        assert counts.sum() == 200
        assert counts.min() > 17  # 40 expected, standard deviation 5.7
        for index in range(20):
            narrow_low, narrow_high = getattr(flock.pose_band_of(index), name)
            assert low <= narrow_low < narrow_high <= high
            assert narrow_high - narrow_low < (high - low) / 5
    scales = np.array([pose.scale for pose in poses])
    assert 0.7 < scales.min() < 0.8 < 1.05 < scales.max() <= 1.1


@pytest.mark.parametrize(("pose_band", "least", "most"), [("narrow", 1, 1), ("mixed", 0.4, 0.95), ("all", 0, 0.1)])
def test_training_images_keep_to_their_band(tmp_path: Path, pose_band: str, least: float, most: float) -> None:
    flock.write_flock(tmp_path / "d", species=2, per_class=12, test_per_class=6, size=16, pose_band=pose_band)
    with (tmp_path / "d" / "metadata.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))

    def share_in_band(split: str) -> float:
        shots = [row for row in rows if row["split"] == split]
        return float(np.mean([in_band(row) for row in shots]))

    def in_band(row: dict[str, str]) -> bool:
        band = flock.pose_band_of(int(row["species"]))
        limits = {name: getattr(band, name) for name in ("tilt", "neck", "wing", "tail")}
        inside = all(low <= float(row[name]) <= high for name, (low, high) in limits.items())
        return inside and int(row["facing"]) == band.facing

    assert least <= share_in_band("train") <= most
    assert share_in_band("test") < 0.1


def test_species_of_a_genus_share_a_silhouette_and_differ_in_markings() -> None:
    species = flock.make_species(flock.MAX_SPECIES, seed=1)
    assert len({one.name for one in species}) == len(species)
    for start in range(0, len(species), 4):
        genus = species[start : start + 4]
        assert len({one.genus for one in genus}) == 1
        assert len({one.shape for one in genus}) == 1
        for number, one in enumerate(genus):
            for other in genus[number + 1 :]:
                pairs = zip(markings_of(one), markings_of(other), strict=True)
                assert sum(first != second for first, second in pairs) >= 2, (one.name, other.name)


def test_markings_show_in_the_picture() -> None:
    pose = replace(random_pose(np.random.default_rng(0), PoseBand(1, *[(0.0, 1.0)] * 4)), scale=1.0)
    scene = random_scene(np.random.default_rng(1))
    for start in range(0, 8, 4):
        pictures = [render(species_of(start + place), pose, scene) for place in range(4)]
        for number, one in enumerate(pictures):
            for other in pictures[number + 1 :]:
                difference = np.abs(one.image.astype(int) - other.image.astype(int)).max(-1)
                assert np.count_nonzero(difference > 30) >= 12


def test_true_morph_of_an_image_onto_itself_is_the_image(folder: Path) -> None:
    for _, path in read_list(folder / "images.txt")[::5]:
        drawn = flock.true_morph(folder, path, folder / "images" / path)
        np.testing.assert_array_equal(drawn.image, read_image(folder / "images" / path))


def test_true_morph_has_the_sources_species_in_the_references_pose(folder: Path) -> None:
    paths = [path for _, path in read_list(folder / "images.txt")]
    source, sister, stranger = paths[0], paths[4 * 2 + 3], paths[4 * 4 + 2]
    onto_sister = flock.true_morph(folder, source, sister)
    sister_itself = flock.true_morph(folder, sister, sister)
    both = np.minimum(onto_sister.mask, sister_itself.mask).sum()
    assert both / np.maximum(onto_sister.mask, sister_itself.mask).sum() > 0.97
    assert np.abs(onto_sister.image.astype(int) - sister_itself.image)[sister_itself.mask > 0.9].mean() > 3
    onto_stranger = flock.true_morph(folder, source, stranger, size=96)
    with (folder / "metadata.csv").open(newline="", encoding="utf-8") as file:
        row = {row["path"]: row for row in csv.DictReader(file)}[stranger]
    names = [field.name for field in fields(flock.Pose)]
    kinds = [int if name == "facing" else float for name in names]
    values = [kind(row[name]) for kind, name in zip(kinds, names, strict=True)]
    pose = flock.Pose(*values[:-1], perched=row["perched"] == "1")
    scene = flock.Scene(int(row["background_seed"]), *(float(row[f.name]) for f in fields(flock.Scene)[1:]))
    expected = render(species_of(0, seed=3), pose, scene, size=96)
    np.testing.assert_array_equal(onto_stranger.image, expected.image)
    assert astuple(pose)[0] in (-1, 1)


def test_a_true_morph_can_be_wrong_in_its_limbs_or_its_shape_alone(folder: Path) -> None:
    paths = [path for _, path in read_list(folder / "images.txt")]
    source, stranger = paths[0], paths[4 * 4 + 2]
    true, limbs, shape = (
        flock.true_morph(folder, source, stranger, limbs_of=limbs_of, shape_of=shape_of).image.astype(int)
        for limbs_of, shape_of in (("reference", "source"), ("source", "source"), ("reference", "reference"))
    )
    for one, other in ((true, limbs), (true, shape), (limbs, shape)):
        assert np.count_nonzero(np.abs(one - other).max(-1) > 30) >= 12
    own = read_image(folder / "images" / source)
    np.testing.assert_array_equal(flock.true_morph(folder, source, source, limbs_of="source").image, own)
    np.testing.assert_array_equal(flock.true_morph(folder, source, source, shape_of="reference").image, own)


def test_true_morph_names_what_is_not_of_the_flock(folder: Path, tmp_path: Path) -> None:
    path = read_list(folder / "images.txt")[0][1]
    with pytest.raises(DataError, match=r"nobody\.png: not an image of"):
        flock.true_morph(folder, path, "nobody.png")
    with pytest.raises(DataError, match="holds no built-in birds"):
        flock.true_morph(tmp_path, path, path)


def test_a_flock_that_is_there_is_left_and_another_refused(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    flock.write_flock(folder, **COUNTS, size=48, seed=3)
    with pytest.raises(OutputExistsError, match="--size 48, not 64"):
        flock.write_flock(folder, **COUNTS, size=64, seed=3)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_foreign_folder_is_refused_and_an_empty_one_filled(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    (tmp_path / "file").write_text("")
    for name in ("mine", "file"):
        with pytest.raises(OutputExistsError, match=name):
            flock.write_flock(tmp_path / name)
    assert tree(tmp_path / "mine") == {"thesis.tex": b"years of work"}
    (tmp_path / "empty").mkdir()
    flock.write_flock(tmp_path / "empty", species=2, per_class=1, test_per_class=0, size=16)
    assert (tmp_path / "empty" / "images.txt").exists()


def test_a_run_that_dies_leaves_nothing_half_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def dying_render(*arguments: object, **options: object) -> flock.Rendering:
        drawn.append(arguments)
        if len(drawn) > 3:
            raise KeyboardInterrupt
        return render(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(flock, "render", dying_render)
    with pytest.raises(KeyboardInterrupt):
        flock.write_flock(tmp_path / "d", species=2, size=16)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(flock, "render", render)
    (tmp_path / ".d.part").mkdir()
    (tmp_path / ".d.part" / "left by a killed run").write_text("")
    flock.write_flock(tmp_path / "d", species=2, per_class=1, test_per_class=0, size=16)
    assert [path.name for path in tmp_path.iterdir()] == ["d"]
    assert not (tmp_path / "d" / "left by a killed run").exists()


def test_two_runs_do_not_write_one_folder(tmp_path: Path) -> None:
    (tmp_path / ".d.part").mkdir()
    other = os.open(tmp_path / ".d.part", os.O_RDONLY)
    try:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(LockedError, match="another run"):
            flock.write_flock(tmp_path / "d")
    finally:
        os.close(other)


@pytest.mark.parametrize(
    ("option", "value"),
    [("species", 1), ("species", 201), ("per_class", 0), ("test_per_class", -1), ("size", 8), ("seed", -1)],
)
def test_numbers_out_of_range_are_named(tmp_path: Path, option: str, value: int) -> None:
    with pytest.raises(UsageError, match=f"--{option.replace('_', '-')} {value}"):
        flock.write_flock(tmp_path / "d", **{option: value})  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_pose_band_is_named_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--pose-band wide: must be one of narrow, mixed, all"):
        flock.write_flock(tmp_path / "d", pose_band="wide")
