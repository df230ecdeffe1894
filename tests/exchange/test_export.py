from __future__ import annotations

import csv
import errno
import os
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
from making_stores import MORPHS, REAL, Encoding, encode, header, picture, write
from torchvision.datasets import ImageFolder

from dagaug.data.image_files import decode_mask
from dagaug.data.layouts import read_dataset
from dagaug.data.mask_files import find_masks
from dagaug.exchange.export import Exported, Format, export
from dagaug.exchange.format_writers import FORMAT_WRITERS, METADATA_COLUMNS, PROVENANCE_COLUMNS
from dagaug.exchange.non_image_content import MANIFEST
from dagaug.exchange.reimport import reimport
from dagaug.hdf5.reader import Store
from dagaug.runtime.errors import DataError, LockedError, OutputExistsError, StoreError, UsageError
from dagaug.runtime.files import locked
from dagaug.runtime.safe_names import safe_names
from dagaug.runtime.signals import Interrupted

TOTAL = REAL + 2 * MORPHS
CLASSES = ("wren", "robin")
TABLES = {"train/metadata.csv", "test/metadata.csv"}
BESIDE = {"provenance.csv", "classes.txt", "README.md", MANIFEST}


def table(out: Path) -> list[dict[str, str]]:
    with (out / "provenance.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        return list(csv.DictReader(stream))


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def exported(tmp_path: Path, encoding: Encoding = "png", **changes: object) -> tuple[Path, Exported]:
    write(tmp_path / "x.h5", encoding, **({"classes": CLASSES} | changes))
    return tmp_path / "out", export(tmp_path / "x.h5", tmp_path / "out")


@pytest.mark.parametrize("encoding", ["jpeg", "png"])
def test_stored_bytes_are_written_unchanged(tmp_path: Path, encoding: Encoding) -> None:
    out, result = exported(tmp_path, encoding)
    rows = table(out)
    with Store(tmp_path / "x.h5") as store:
        assert [(out / row["path"]).read_bytes() for row in rows] == [store.encoded(row) for row in range(TOTAL)]
    assert {Path(row["path"]).suffix for row in rows} == {".jpg" if encoding == "jpeg" else ".png"}
    assert (result.images, result.real, result.synthetic, result.train, result.test) == (14, 6, 8, 12, 2)


def test_raw_images_become_png_of_the_same_pixels(tmp_path: Path) -> None:
    out, _ = exported(tmp_path, "raw")
    for row, seed in zip(table(out), range(REAL), strict=False):
        np.testing.assert_array_equal(cv2.imread(str(out / row["path"]))[..., ::-1], picture(seed))


def test_provenance_csv_lists_every_file_as_the_store_describes_it(tmp_path: Path) -> None:
    out, _ = exported(tmp_path)
    rows = table(out)
    assert tuple(rows[0]) == PROVENANCE_COLUMNS
    assert PROVENANCE_COLUMNS == ("path", "label", "source", "reference", "variant", "confidence", "kept")
    assert sorted(row["path"] for row in rows) == sorted(set(files_below(out)) - BESIDE - TABLES)
    names = header().files
    with Store(tmp_path / "x.h5") as store:
        images = store.images
    for number, row in enumerate(rows):
        assert row["label"] == CLASSES[images.label[number]]
        assert row["source"] == names[images.source[number]]
        assert row["kept"] == "yes"
        if images.synthetic[number]:
            assert row["reference"] == names[images.reference[number]]
            assert row["variant"] == ("reference", "mirrored")[images.variant[number]]
            assert np.float32(row["confidence"]) == images.confidence[number]
        else:
            assert row["reference"] == row["variant"] == row["confidence"] == ""


def test_names_say_source_reference_and_variant(tmp_path: Path) -> None:
    out, _ = exported(tmp_path)
    # Shard 1: candidates 0, 2, 4, 5 of source 1 with references 0, 2, 0, 1 and variants 0, 0, 0, 1.
    expected = {"1", "3", "1--0--reference", "1--0--reference--2", "1--1--mirrored", "1--2--reference"}
    assert {path.stem for path in (out / "train" / "robin").iterdir()} == expected
    assert {path.stem for path in (out / "test" / "robin").iterdir()} == {"5"}


@pytest.mark.parametrize(("options", "count"), [({"synthetic_only": True}, 8), ({"split": "train"}, 12)])
def test_images_of_one_split_need_no_split_folders(tmp_path: Path, options: dict[str, object], count: int) -> None:
    write(tmp_path / "x.h5", classes=CLASSES)
    result = export(tmp_path / "x.h5", tmp_path / "out", **options)  # type: ignore[arg-type]
    assert {row["path"].partition("/")[0] for row in table(tmp_path / "out")} == {"robin", "wren"}
    assert result.images == len(table(tmp_path / "out")) == count


def test_nothing_to_export_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    write(tmp_path / "x.h5")
    with pytest.raises(DataError, match="no synthetic images in the split test to export"):
        export(tmp_path / "x.h5", tmp_path / "out", synthetic_only=True, split="test")
    assert [path.name for path in tmp_path.iterdir()] == ["x.h5"]


# Names of strangers


def test_hostile_names_stay_in_the_folder_and_true_names_in_the_table(tmp_path: Path) -> None:
    names = ("../x", '/tmp/evil\r\n,"')
    files = ("../../a.jpg", "/etc/b", "..", "", "a" * 3000 + ".png", "\udcff.jpg")
    write(tmp_path / "x.h5", classes=names, files=files)
    before = set(tmp_path.iterdir())
    result = export(tmp_path / "x.h5", tmp_path / "out")
    assert set(tmp_path.iterdir()) - before == {tmp_path / "out"}
    rows = table(tmp_path / "out")
    assert {row["label"] for row in rows} == set(names)
    assert {row["source"] for row in rows} == set(files)
    for row in rows:
        path = tmp_path / "out" / row["path"]
        assert path.resolve().is_relative_to((tmp_path / "out").resolve())
        assert path.is_file()
    assert len(files_below(tmp_path / "out")) == TOTAL + len(BESIDE | TABLES)
    assert result.renamed == tuple(zip(names, safe_names(names), strict=True))
    assert (tmp_path / "out" / "classes.txt").read_text().splitlines() == safe_names(names)


def test_many_images_of_one_name_are_numbered(tmp_path: Path) -> None:
    out, _ = exported(tmp_path, files=tuple(f"{row}/same.jpg" for row in range(REAL)))
    assert sorted(path.stem for path in (out / "train" / "wren").glob("same*") if "--r" not in path.stem)[:2] == [
        "same",
        "same--2",
    ]
    assert len(table(out)) == TOTAL


# What is there already


def test_an_existing_export_is_replaced_only_with_overwrite(tmp_path: Path) -> None:
    out, _ = exported(tmp_path)
    before = files_below(out)
    (out / "stale").write_text("x")
    with pytest.raises(OutputExistsError, match="try overwrite=True or another out"):
        export(tmp_path / "x.h5", out)
    assert (out / "stale").exists()
    export(tmp_path / "x.h5", out, overwrite=True)
    assert files_below(out) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "x.h5"]


def test_an_empty_folder_is_used_and_a_folder_of_other_files_is_never_replaced(tmp_path: Path) -> None:
    write(tmp_path / "x.h5")
    (tmp_path / "empty").mkdir()
    assert export(tmp_path / "x.h5", tmp_path / "empty").images == TOTAL
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputExistsError, match="is not an export"):
        export(tmp_path / "x.h5", home, overwrite=True)
    assert (home / "thesis.tex").read_text() == "years of work"
    with pytest.raises(OutputExistsError, match="is a file"):
        export(tmp_path / "x.h5", tmp_path / "x.h5", overwrite=True)


def test_an_export_that_holds_the_store_is_not_replaced(tmp_path: Path) -> None:
    out, _ = exported(tmp_path)
    (tmp_path / "x.h5").rename(out / "x.h5")
    with pytest.raises(UsageError, match="contains"):
        export(out / "x.h5", out, overwrite=True)
    assert (out / "x.h5").exists()


def test_leftovers_of_a_killed_export_are_removed(tmp_path: Path) -> None:
    left = tmp_path / ".out.dagaug-export"
    left.mkdir()
    (left / "half").write_text("x")
    exported(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "x.h5"]


def test_two_exports_to_one_folder_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "x.h5")
    with locked(tmp_path / ".out.dagaug-lock", tmp_path / "out"), pytest.raises(LockedError, match="another run"):
        export(tmp_path / "x.h5", tmp_path / "out")
    export(tmp_path / "x.h5", tmp_path / "out")


# What goes wrong


def full_disk(path: Path, data: bytes) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def test_a_full_disk_is_one_line_and_keeps_the_earlier_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, _ = exported(tmp_path)
    before = files_below(out)
    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(StoreError, match="disk is full; nothing was exported") as caught:
        export(tmp_path / "x.h5", out, overwrite=True)
    assert "\n" not in str(caught.value)
    assert files_below(out) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "x.h5"]


def test_a_failing_last_rename_gives_the_earlier_export_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, _ = exported(tmp_path)
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.name.endswith("dagaug-export"):
            raise PermissionError(errno.EACCES, "Permission denied", str(target))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(StoreError, match="cannot be written"):
        export(tmp_path / "x.h5", out, overwrite=True)
    assert len(table(out)) == TOTAL
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "x.h5"]


def test_a_folder_without_write_permission_is_reported_in_one_line(tmp_path: Path) -> None:
    write(tmp_path / "x.h5")
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="cannot be written"):
        export(tmp_path / "x.h5", tmp_path / "file" / "out")


def test_a_damaged_image_is_not_exported(tmp_path: Path) -> None:
    write(tmp_path / "x.h5", classes=CLASSES)
    content = bytearray((tmp_path / "x.h5").read_bytes())
    at = content.index(encode(picture(3), "png"))
    content[at + 60] ^= 1
    (tmp_path / "x.h5").write_bytes(content)
    with pytest.raises(StoreError, match="image 3 is damaged"):
        export(tmp_path / "x.h5", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["x.h5"]


class InterruptingTask:
    def __enter__(self) -> InterruptingTask:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def advance(self, count: int = 1, note: str = "") -> None:
        signal.raise_signal(signal.SIGINT)


class Interrupting:
    """Sends SIGINT when the first image is done."""

    def task(self, name: str, total: int, unit: str) -> InterruptingTask:
        return InterruptingTask()

    def say(self, text: str) -> None:
        raise AssertionError(text)


@pytest.mark.parametrize("form", sorted(FORMAT_WRITERS))
def test_an_interrupted_export_leaves_nothing(tmp_path: Path, form: Format) -> None:
    write(tmp_path / "x.h5")
    with pytest.raises(Interrupted, match="nothing was exported"):
        export(tmp_path / "x.h5", tmp_path / "out", to=form, progress=Interrupting())
    assert [path.name for path in tmp_path.iterdir()] == ["x.h5"]


def test_unknown_choices_are_usage_errors(tmp_path: Path) -> None:
    write(tmp_path / "x.h5")
    for odd in ({"shard_images": 5}, {"to": "webdataset", "shard_images": 0}):
        with pytest.raises(UsageError, match="shard_images="):
            export(tmp_path / "x.h5", tmp_path / "out", **odd)  # type: ignore[arg-type]
    for odd in ({"to": "zip"}, {"split": "val"}):
        with pytest.raises((UsageError, TypeError)):  # the latter where types are checked
            export(tmp_path / "x.h5", tmp_path / "out", **odd)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["x.h5"]


# Masks and Hugging Face's metadata


@pytest.mark.parametrize("to", ["imagefolder", "csv"])
def test_masks_lie_beside_the_images_under_their_names(tmp_path: Path, to: Format) -> None:
    files = tuple(f"{row}/same.jpg" for row in range(REAL))  # equal names in both splits
    write(tmp_path / "x.h5", classes=CLASSES, files=files)
    done = export(tmp_path / "x.h5", tmp_path / "out", to=to, masks=True)
    assert done.masks == 2 * MORPHS + 1
    data = read_dataset(tmp_path / "out")
    assert (to == "csv") == any(sample.mask is not None for sample in data.samples)  # the table names them
    data = data if to == "csv" else find_masks(data, tmp_path / "out" / "masks")
    assert len(data.samples) == TOTAL
    masks = [sample.mask for sample in data.samples if sample.mask is not None]
    assert len(set(masks)) == done.masks == len([*(tmp_path / "out" / "masks").rglob("*.png")])
    with Store(tmp_path / "x.h5") as store:
        row_of = {store.encoded(row): row for row in range(TOTAL)}
        for sample in data.samples:
            expected = store.mask(row_of[data.file(sample).read_bytes()])
            if expected is None:
                assert sample.mask is None
            else:
                assert sample.mask is not None
                np.testing.assert_array_equal(decode_mask(sample.mask), expected)


def test_masks_do_not_look_like_a_class_even_if_one_split_is_exported(tmp_path: Path) -> None:
    write(tmp_path / "x.h5", classes=CLASSES)
    export(tmp_path / "x.h5", tmp_path / "out", synthetic_only=True, masks=True)
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir()) == ["masks", "train"]
    assert ImageFolder(str(tmp_path / "out" / "train")).classes == sorted(CLASSES)


def test_masks_that_a_format_or_the_file_lacks_are_an_error(tmp_path: Path) -> None:
    write(tmp_path / "x.h5")
    for to in ("webdataset", "coco", "yolo"):
        with pytest.raises(UsageError, match=f"the format {to} has"):
            export(tmp_path / "x.h5", tmp_path / "out", to=to, masks=True)  # type: ignore[arg-type]
    write(tmp_path / "none.h5", objects=False)
    with pytest.raises(DataError, match=r"none\.h5: holds no masks of these images' objects; make the file again"):
        export(tmp_path / "none.h5", tmp_path / "out", masks=True)


@pytest.mark.parametrize("both", [True, False])
def test_metadata_lies_beside_the_class_folders_and_names_every_image(tmp_path: Path, both: bool) -> None:
    write(tmp_path / "x.h5", classes=CLASSES)
    export(tmp_path / "x.h5", tmp_path / "out", split="all" if both else "train")
    classes = (tmp_path / "out" / "classes.txt").read_text().splitlines()
    for top in ("train", "test") if both else (".",):
        folder = tmp_path / "out" / top
        with (folder / "metadata.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert tuple(rows[0]) == METADATA_COLUMNS
        assert sorted(row["file_name"] for row in rows) == sorted(
            path.relative_to(folder).as_posix() for path in folder.rglob("*.png")
        )
        for row in rows:
            assert classes[int(row["class_id"])] == row["label"] == Path(row["file_name"]).parent.name
            # An empty cell would make pandas guess another type, and differ between the splits.
            assert "" not in row.values()
            assert (row["synthetic"] == "True") == (row["reference"] != "none") == (float(row["confidence"]) >= 0)


def test_an_export_with_masks_is_imported_as_it_was(tmp_path: Path) -> None:
    write(tmp_path / "x.h5", classes=CLASSES)
    export(tmp_path / "x.h5", tmp_path / "out", masks=True)
    reimport(tmp_path / "out", tmp_path / "back.h5")
    assert (tmp_path / "back.h5").read_bytes() == (tmp_path / "x.h5").read_bytes()
