"""Images that were moved, added, deleted or listed otherwise by hand in the folder of an export."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from making_images import make_transparent
from making_stores import MORPHS, REAL, Encoding, picture, write

from dagaug.data.image_files import decode
from dagaug.exchange.changed_content import REMOVED
from dagaug.exchange.export import Format, SplitChoice, export
from dagaug.exchange.folder_changes import find_changes
from dagaug.exchange.non_image_content import read_manifest
from dagaug.exchange.reimport import Imported, reimport
from dagaug.hdf5.reader import Store
from dagaug.hdf5.verify import verify
from dagaug.runtime.errors import DataError

TOTAL = REAL + 2 * MORPHS
NAMES = ("wren", "owl")


class Export:
    """An export of a file with two classes, to change by hand."""

    def __init__(
        self,
        root: Path,
        form: Format = "imagefolder",
        encoding: Encoding = "png",
        split: SplitChoice = "all",
        *,
        masks: bool = False,
    ) -> None:
        self.root, self.out = root, root / "out"
        write(root / "x.h5", encoding, classes=NAMES)
        export(root / "x.h5", self.out, to=form, split=split, masks=masks)
        self.files = [name.decode() for name in read_manifest(self.out).columns["images/path"].tolist()]

    def move(self, row: int, *, to: str) -> str:
        """Put an image into another class folder of its split."""
        name = self.files[row]
        target = name.replace("/wren/", f"/{to}/").replace("/owl/", f"/{to}/")
        (self.out / name).rename(self.out / target)
        return target

    def rewrite_table(self, change: Callable[[list[dict[str, str]]], list[dict[str, str]]]) -> None:
        table = self.out / "images.csv"
        with table.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        with table.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, rows[0].keys())
            writer.writeheader()
            writer.writerows(change(rows))

    def back(self, **options: bool) -> Imported:
        done = reimport(self.out, self.root / "back.h5", overwrite=True, **options)
        verify(self.root / "back.h5")
        return done

    def stores(self) -> tuple[Store, Store]:
        return Store(self.root / "x.h5"), Store(self.root / "back.h5")


def put(path: Path, seed: int, size: int = 20) -> np.ndarray:
    image = picture(seed, size)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image[..., ::-1])
    return image


# ---- moved images


@pytest.mark.parametrize("form", ["imagefolder", "csv"])
@pytest.mark.parametrize("encoding", ["jpeg", "png", "raw"])
def test_a_moved_image_has_the_label_of_its_new_folder(tmp_path: Path, form: Format, encoding: Encoding) -> None:
    made = Export(tmp_path, form, encoding)
    real, morph = 0, REAL + 1  # of the class wren, and owl
    made.move(real, to="owl")
    made.move(morph, to="wren")
    done = made.back()
    assert (done.images, done.removed, done.relabelled, done.added, done.left_out) == (TOTAL, 0, 2, 0, ())
    before, after = made.stores()
    expected = before.images.label.copy()
    expected[[real, morph]] = 1, 0
    np.testing.assert_array_equal(after.images.label, expected)
    assert [after.encoded(row) for row in range(TOTAL)] == [before.encoded(row) for row in range(TOTAL)]
    np.testing.assert_array_equal(after.header.files_label != before.header.files_label, np.arange(REAL) == real)


def test_a_relabelled_morph_has_no_confidence_any_more_and_its_candidate_the_same_label(tmp_path: Path) -> None:
    made = Export(tmp_path)
    morph = REAL + 1
    made.move(morph, to="wren")
    made.back()
    before, after = made.stores()
    candidate = int(before.images.candidate[morph])
    assert after.images.candidate[morph] == candidate
    assert np.isnan(after.images.confidence[morph])
    assert np.isnan(after.candidates.confidence[candidate])
    assert after.candidates.label[candidate] == 0
    others = np.arange(TOTAL) != morph
    np.testing.assert_array_equal(after.images.confidence[others], before.images.confidence[others])
    assert after.header.options["imported"] == {"relabelled": 1, "resplit": 0, "added": 0}


def test_morphs_that_keep_the_class_of_a_relabelled_source_are_counted(tmp_path: Path) -> None:
    made = Export(tmp_path)
    with Store(tmp_path / "x.h5") as store:
        morphs = np.flatnonzero(store.images.synthetic & (store.images.source == 1)).tolist()
    made.move(1, to="wren")
    made.move(morphs[0], to="wren")
    assert made.back().outdated == len(morphs) - 1


def test_a_renamed_image_stays_as_it_is(tmp_path: Path) -> None:
    made = Export(tmp_path)
    path = made.out / made.files[2]
    path.rename(path.with_name("favourite.png"))
    done = made.back()
    assert (done.removed, done.relabelled, done.added) == (0, 0, 0)
    assert (tmp_path / "back.h5").read_bytes() == (tmp_path / "x.h5").read_bytes()


def test_a_real_image_can_change_its_split_and_a_morph_cannot(tmp_path: Path) -> None:
    made = Export(tmp_path)
    for row in (0, REAL):
        target = made.out / made.files[row].replace("train/", "test/")
        target.parent.mkdir(parents=True, exist_ok=True)
        (made.out / made.files[row]).rename(target)
    with pytest.raises(DataError, match="is synthetic and cannot be a test image; try strict=False"):
        made.back(strict=True)
    done = made.back()
    assert (done.images, done.resplit, done.removed, len(done.left_out)) == (TOTAL - 1, 1, 0, 1)
    _, after = made.stores()
    assert (after.images.split[0], after.header.files_split[0]) == (1, 1)
    assert not after.images.split[after.images.synthetic].any()


@pytest.mark.parametrize("folder", ["rejected", "train/rejected", "train", ""])
def test_an_image_outside_the_class_folders_is_left_out_and_listed(tmp_path: Path, folder: str) -> None:
    made = Export(tmp_path)
    target = made.out / folder / "moved.png"
    target.parent.mkdir(exist_ok=True)
    (made.out / made.files[REAL]).rename(target)
    put(target.with_name("new.png"), 7)
    done = made.back()
    assert (done.images, done.removed, done.added) == (TOTAL - 1, 0, 0)
    assert [skip.path.name for skip in done.left_out] == ["moved.png", "new.png"]
    before, after = made.stores()
    assert after.header.verdicts[after.candidates.verdict[before.images.candidate[REAL]]] == REMOVED


def test_equal_images_are_told_apart_by_their_names(tmp_path: Path) -> None:
    made = Export(tmp_path)
    moved = made.move(3, to="wren")
    shutil.copy(made.out / moved, made.out / "train" / "wren" / "copy.png")
    done = made.back()
    assert (done.relabelled, done.added) == (1, 0)
    assert [(skip.path.name, skip.reason) for skip in done.left_out] == [("copy.png", f"is a copy of {moved}")]


# ---- new images


@pytest.mark.parametrize("form", ["imagefolder", "csv"])
@pytest.mark.parametrize("encoding", ["jpeg", "png", "raw"])
def test_a_new_image_becomes_a_real_one_of_its_class(tmp_path: Path, form: Format, encoding: Encoding) -> None:
    made = Export(tmp_path, form, encoding)
    folder = made.out / ("images/owl" if form == "csv" else "train/owl")
    drawn = {name: put(folder / name, seed, 20 + seed) for seed, name in enumerate(("a.png", "b.jpg", "c.webp"))}
    done = made.back()
    assert (done.real, done.synthetic, done.added, done.left_out) == (REAL + 3, 2 * MORPHS, 3, ())
    _, after = made.stores()
    images = after.images
    for row, (name, image) in enumerate(drawn.items(), TOTAL):
        assert (images.label[row], images.split[row], images.synthetic[row]) == (1, 0, False)
        assert after.header.files[images.source[row]] == (folder / name).relative_to(made.out).as_posix()
        assert after.image(row).shape == image.shape
        assert np.abs(after.image(row).astype(int) - image).mean() < 8
    assert after.header.files_label[REAL:].tolist() == [1, 1, 1]
    assert (after.encoded(TOTAL + 1) == (folder / "b.jpg").read_bytes()) == (encoding == "jpeg")


def test_transparent_pixels_of_a_new_image_are_laid_over_white_and_counted(tmp_path: Path) -> None:
    made = Export(tmp_path)
    put(made.out / "train" / "owl" / "plain.png", 1)
    path = made.out / "train" / "owl" / "seen-through.png"
    put(path, 2)
    make_transparent(path)
    assert (made.back().added, made.back().transparent) == (2, 1)
    np.testing.assert_array_equal(made.stores()[1].image(TOTAL + 1), decode(path))


def test_a_new_image_takes_the_split_of_its_folder_or_of_the_export(tmp_path: Path) -> None:
    made = Export(tmp_path)
    put(made.out / "test" / "owl" / "new.png", 1)
    made.back()
    assert made.stores()[1].images.split[-1] == 1
    only = Export(tmp_path / "only", split="test")
    put(only.out / "owl" / "new.png", 1)
    only.back()
    assert only.stores()[1].images.split.tolist() == [1, 1, 1]


def test_a_new_image_never_takes_the_name_of_a_file_of_the_data(tmp_path: Path) -> None:
    write(tmp_path / "x.h5", classes=NAMES, files=("train/owl/new.png", *(f"{row}.jpg" for row in range(1, REAL))))
    export(tmp_path / "x.h5", tmp_path / "out")
    put(tmp_path / "out" / "train" / "owl" / "new.png", 1)
    reimport(tmp_path / "out", tmp_path / "back.h5")
    with Store(tmp_path / "back.h5") as store:
        assert store.header.files[-1] == "added-2/train/owl/new.png"


def test_new_files_that_cannot_be_read_are_listed(tmp_path: Path) -> None:
    made = Export(tmp_path)
    folder = made.out / "train" / "owl"
    (folder / "broken.png").write_bytes(b"no image")
    (folder / "moving.gif").write_bytes(b"GIF89a")
    secret = put(tmp_path / "secret.png", 3)
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    done = made.back()
    assert secret.size
    assert (done.images, done.added) == (TOTAL, 0)
    told = {skip.path.name: skip.reason for skip in done.left_out}
    assert told["out"] == "1 files ending in .gif"
    assert "not a readable image" in told["broken.png"]
    assert "link to a file outside" in told["link.png"]
    assert (tmp_path / "back.h5").read_bytes() == (tmp_path / "x.h5").read_bytes()


def test_single_images_beside_tar_files_are_listed(tmp_path: Path) -> None:
    made = Export(tmp_path, "webdataset")
    put(made.out / "owl" / "new.png", 1)
    shutil.copy(made.out / "train-000000.tar", made.out / "train-000001.tar")
    done = made.back()
    assert (done.images, [skip.path.name for skip in done.left_out]) == (TOTAL, ["train-000001.tar", "new.png"])


def test_a_second_import_keeps_what_the_first_took_in(tmp_path: Path) -> None:
    made = Export(tmp_path)
    put(made.out / "train" / "owl" / "new.png", 1)
    made.move(0, to="owl")
    made.back()
    export(tmp_path / "back.h5", tmp_path / "again")
    put(tmp_path / "again" / "train" / "owl" / "newer.png", 2)
    done = reimport(tmp_path / "again", tmp_path / "third.h5")
    assert (done.real, done.added, done.relabelled) == (REAL + 2, 1, 0)
    with Store(tmp_path / "third.h5") as store:
        assert store.header.options["imported"] == {"relabelled": 1, "resplit": 0, "added": 2}


# ---- the table of a csv


def test_labels_and_splits_are_those_of_the_table(tmp_path: Path) -> None:
    made = Export(tmp_path, "csv")

    def change(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        rows[0]["label"], rows[1]["split"], rows[REAL]["label"] = "owl", "test", "raven"
        return [row for number, row in enumerate(rows) if number != 2]

    made.rewrite_table(change)
    done = made.back()
    assert (done.images, done.removed, done.relabelled, done.resplit) == (TOTAL - 2, 1, 1, 1)
    (skip,) = done.left_out
    assert (skip.path.name, skip.reason) == (Path(made.files[REAL]).name, "has no class of the export in images.csv")
    _, after = made.stores()
    assert (after.images.label[0], after.images.split[1]) == (1, 1)


def test_a_line_of_a_new_image_gives_its_label_and_one_without_a_file_is_listed(tmp_path: Path) -> None:
    made = Export(tmp_path, "csv")
    put(made.out / "mine" / "new.png", 1)
    line = dict.fromkeys(("synthetic", "source", "reference", "variant", "confidence", "predicted"), "")
    made.rewrite_table(
        lambda rows: [
            *rows,
            {"path": "mine/new.png", "label": "owl", "split": "test", **line},
            {"path": "mine/lost.png", "label": "owl", "split": "test", **line},
        ]
    )
    done = made.back()
    assert (done.added, [skip.path.name for skip in done.left_out]) == (1, ["lost.png"])
    _, after = made.stores()
    assert (after.images.label[-1], after.images.split[-1]) == (1, 1)


def test_a_malformed_table_is_an_error(tmp_path: Path) -> None:
    made = Export(tmp_path, "csv")
    (made.out / "images.csv").write_text("name\nx\n")
    with pytest.raises(DataError, match=r"images\.csv, line 1"):
        find_changes(made.out, read_manifest(made.out))
    (made.out / "images.csv").unlink()
    made.back()
    assert (tmp_path / "back.h5").read_bytes() == (tmp_path / "x.h5").read_bytes()


# ---- masks, boxes, annotations


@pytest.mark.parametrize("form", ["imagefolder", "csv"])
@pytest.mark.parametrize("split", ["all", "train"])
def test_exported_masks_are_no_new_images(tmp_path: Path, form: Format, split: SplitChoice) -> None:
    made = Export(tmp_path, form, split=split, masks=True)
    assert list((made.out / "masks").rglob("*.png"))
    done = made.back()
    assert (done.removed, done.relabelled, done.added, done.left_out) == (0, 0, 0, ())
    if split == "all":
        assert (tmp_path / "back.h5").read_bytes() == (tmp_path / "x.h5").read_bytes()


def test_a_moved_image_is_relabelled_where_one_split_has_a_folder_because_of_masks(tmp_path: Path) -> None:
    made = Export(tmp_path, split="train", masks=True)
    made.move(0, to="owl")
    put(made.out / "train" / "owl" / "new.png", 900)
    done = made.back()
    assert (done.relabelled, done.added, done.left_out) == (1, 1, ())


def test_the_objects_of_new_images_are_unknown_and_the_others_stay(tmp_path: Path) -> None:
    made = Export(tmp_path)
    (made.out / made.files[2]).unlink()
    put(made.out / "train" / "owl" / "new.png", 900)
    assert made.back().added == 1
    before, after = made.stores()
    kept = [row for row in range(TOTAL) if row != 2]
    assert before.boxes is not None
    assert after.boxes is not None
    np.testing.assert_array_equal(after.boxes[:-1], before.boxes[kept])
    assert np.isnan(after.boxes[-1]).all()
    assert after.mask(len(kept)) is None
    for row, old in enumerate(kept):
        np.testing.assert_array_equal(after.mask(row), before.mask(old))


@pytest.mark.parametrize("form", ["coco", "yolo"])
def test_of_annotated_forms_only_deletions_and_new_names_are_taken_in(tmp_path: Path, form: Format) -> None:
    made = Export(tmp_path, form)
    (made.out / made.files[2]).unlink()
    renamed = made.out / made.files[3]
    renamed.rename(renamed.with_name("renamed.png"))
    put(renamed.with_name("new.png"), 900)
    done = made.back()
    assert (done.images, done.removed, done.relabelled, done.added) == (TOTAL - 1, 1, 0, 0)
    assert [(skip.path.name, skip.reason) for skip in done.left_out] == [
        ("new.png", "is new, and annotations are not read")
    ]
