from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from making_stores import MORPHS, REAL, Encoding, write

from dagaug.exchange.changed_content import REMOVED
from dagaug.exchange.export import Format, export
from dagaug.exchange.format_writers import FORMAT_WRITERS
from dagaug.exchange.non_image_content import MANIFEST, read_manifest, select_images, write_manifest
from dagaug.exchange.reimport import reimport
from dagaug.hdf5 import raw_dataset_bytes as byte_positions
from dagaug.hdf5.reader import Store
from dagaug.hdf5.schema import Images
from dagaug.hdf5.verify import verify
from dagaug.runtime.errors import DataError, LockedError, OutputExistsError, StoreError
from dagaug.runtime.files import locked
from dagaug.runtime.signals import Interrupted

TOTAL = REAL + 2 * MORPHS
ALL = sorted(FORMAT_WRITERS)


def exported(tmp_path: Path, form: Format = "imagefolder", encoding: Encoding = "png", **options: object) -> Path:
    write(tmp_path / "x.h5", encoding)
    export(tmp_path / "x.h5", tmp_path / "out", to=form, **options)  # type: ignore[arg-type]
    return tmp_path / "out"


@pytest.mark.parametrize("form", ALL)
@pytest.mark.parametrize("encoding", ["jpeg", "png", "raw"])
def test_a_whole_export_becomes_the_same_file_byte_for_byte(tmp_path: Path, form: Format, encoding: Encoding) -> None:
    out = exported(tmp_path, form, encoding)
    result = reimport(out, tmp_path / "back.h5")
    assert (tmp_path / "back.h5").read_bytes() == (tmp_path / "x.h5").read_bytes()
    assert (result.real, result.synthetic, result.images, result.removed) == (REAL, 2 * MORPHS, TOTAL, 0)
    verify(tmp_path / "back.h5")


@pytest.mark.parametrize("form", ALL)
def test_hostile_names_come_back_as_they_were(tmp_path: Path, form: Format) -> None:
    names = ("../x", "")
    files = ("../../a.jpg", "/etc/b", "..", "", "a" * 3000 + ".png", "\udcff\r\n.jpg")
    write(tmp_path / "x.h5", classes=names, files=files)
    export(tmp_path / "x.h5", tmp_path / "out", to=form)
    reimport(tmp_path / "out", tmp_path / "back.h5")
    assert (tmp_path / "back.h5").read_bytes() == (tmp_path / "x.h5").read_bytes()


def rows_of(path: Path) -> tuple[list[bytes], Images, list[int]]:
    """ByteReader, table, and the candidate each image was."""
    with Store(path) as store:
        return [store.encoded(row) for row in range(len(store))], store.images, store.images.candidate.tolist()


@pytest.mark.parametrize("form", ALL)
@pytest.mark.parametrize(
    ("options", "first", "last"),
    [({"synthetic_only": True}, REAL, TOTAL), ({"split": "test"}, REAL - 2, REAL)],
)
def test_a_partial_export_comes_back_with_its_metadata(
    tmp_path: Path, form: Format, options: dict[str, object], first: int, last: int
) -> None:
    out = exported(tmp_path, form, **options)
    reimport(out, tmp_path / "back.h5")
    verify(tmp_path / "back.h5")
    before, after = rows_of(tmp_path / "x.h5"), rows_of(tmp_path / "back.h5")
    assert after[0] == before[0][first:last]
    assert after[2] == before[2][first:last]
    for name in ("label", "split", "synthetic", "source", "reference", "variant", "predicted", "height", "width"):
        np.testing.assert_array_equal(getattr(after[1], name), getattr(before[1], name)[first:last])
    np.testing.assert_array_equal(after[1].confidence, before[1].confidence[first:last])
    with Store(tmp_path / "x.h5") as old, Store(tmp_path / "back.h5") as new:
        assert new.classes == old.classes
        assert len(new.candidates) == len(old.candidates)
        assert new.header.files == old.header.files
        assert old.boxes is not None
        np.testing.assert_array_equal(new.boxes, old.boxes[first:last])
        for row in range(first, last):
            np.testing.assert_array_equal(new.mask(row - first), old.mask(row))


@pytest.mark.parametrize("form", ["imagefolder", "csv"])
def test_deleted_images_are_left_out_and_their_candidates_get_a_verdict(tmp_path: Path, form: Format) -> None:
    out = exported(tmp_path, form)
    names = [name.decode() for name in read_manifest(out).columns["images/path"].tolist()]
    gone = [1, REAL, REAL + 2, TOTAL - 1]
    for row in gone:
        (out / names[row]).unlink()
    with pytest.raises(DataError, match=r"exported image not found.*; try strict=False"):
        reimport(out, tmp_path / "back.h5", strict=True)
    result = reimport(out, tmp_path / "back.h5")
    verify(tmp_path / "back.h5")
    assert (result.images, result.removed) == (TOTAL - 4, 4)
    kept = [row for row in range(TOTAL) if row not in gone]
    before, after = rows_of(tmp_path / "x.h5"), rows_of(tmp_path / "back.h5")
    assert after[0] == [before[0][row] for row in kept]
    np.testing.assert_array_equal(after[1].label, before[1].label[kept])
    with Store(tmp_path / "x.h5") as old, Store(tmp_path / "back.h5") as new:
        verdicts = np.array(new.header.verdicts)[new.candidates.verdict]
        expected = np.array(old.header.verdicts, object)[old.candidates.verdict]
        expected[old.images.candidate[gone[1:]]] = REMOVED
        assert verdicts.tolist() == expected.tolist()
        assert new.header.verdicts == (*old.header.verdicts, REMOVED)


def test_a_selection_by_hand_can_be_exported_and_reduced_again(tmp_path: Path) -> None:
    folder = exported(tmp_path)
    for number in range(2):
        names = [name.decode() for name in read_manifest(folder).columns["images/path"].tolist()]
        (folder / names[-1]).unlink()
        reimport(folder, tmp_path / f"{number}.h5")
        folder = tmp_path / f"out{number}"
        export(tmp_path / f"{number}.h5", folder)
    with Store(tmp_path / "1.h5") as store:
        assert len(store) == TOTAL - 2
        assert store.header.verdicts.count(REMOVED) == 1
        assert int((store.candidates.verdict == store.header.verdicts.index(REMOVED)).sum()) == 2


def test_an_export_without_images_is_an_error(tmp_path: Path) -> None:
    out = exported(tmp_path, "webdataset")
    for path in out.glob("*.tar"):
        path.unlink()
    with pytest.raises(DataError, match="all 14 exported images are missing"):
        reimport(out, tmp_path / "back.h5")
    assert not (tmp_path / "back.h5").exists()


# What is not an export, or no longer the same


@pytest.mark.parametrize(("form", "encoding"), [("imagefolder", "jpeg"), ("csv", "raw"), ("webdataset", "png")])
def test_a_changed_image_is_refused_by_name(tmp_path: Path, form: Format, encoding: Encoding) -> None:
    out = exported(tmp_path, form, encoding)
    columns = read_manifest(out).columns
    path = out / columns["images/path"][3].decode()
    data = bytearray(path.read_bytes())
    data[int(columns["images/start"][3] + columns["images/size"][3] // 2)] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="was changed since the export") as caught:
        reimport(out, tmp_path / "back.h5")
    assert str(path) in str(caught.value)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="was changed since the export"):
        reimport(out, tmp_path / "back.h5")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "x.h5"]


def test_a_folder_without_a_manifest_is_not_an_export(tmp_path: Path) -> None:
    out = exported(tmp_path)
    (out / MANIFEST).unlink()
    with pytest.raises(StoreError, match="not an export"):
        reimport(out, tmp_path / "back.h5")
    with pytest.raises(StoreError, match="not an export"):
        reimport(tmp_path / "nothing", tmp_path / "back.h5")


def test_a_damaged_manifest_is_refused(tmp_path: Path) -> None:
    out = exported(tmp_path)
    whole = (out / MANIFEST).read_bytes()
    before = read_manifest(out).columns
    refused = 0
    for at in range(0, len(whole), max(1, len(whole) // 60)):
        damaged = bytearray(whole)
        damaged[at] ^= 0x10
        (out / MANIFEST).write_bytes(damaged)
        try:
            after = read_manifest(out).columns
        except StoreError:
            refused += 1
        else:  # a byte between what is stored
            assert {name: array.tobytes() for name, array in after.items()} == {
                name: array.tobytes() for name, array in before.items()
            }
    assert refused > 20
    (out / MANIFEST).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StoreError):
        read_manifest(out)


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("images/path", b"../secret.png", "leaves the data folder"),
        ("images/path", b"/etc/passwd", "leaves the data folder"),
        ("images/path", b"link.png", "leaves the data folder through a link"),
        ("images/start", 1 << 40, "was changed"),
        ("images/start", -5, "was changed"),
        ("images/size", 1 << 40, "was changed"),
        ("images/size", 0, "out of range"),
        ("images/height", 1 << 30, "out of range"),
        ("images/candidate", 1 << 40, "outside"),
        ("candidates/image", TOTAL, "outside"),
        ("images/label", 7, "/images/label has values outside"),
        ("images/source", -9, "/images/source has values outside"),
    ],
)
def test_a_hostile_manifest_reads_no_other_files_and_writes_none(
    tmp_path: Path, name: str, value: object, match: str
) -> None:
    out = exported(tmp_path)
    (tmp_path / "secret.png").write_bytes(b"secret")
    (out / "link.png").symlink_to(tmp_path / "secret.png")
    manifest = read_manifest(out)
    column = manifest.columns[name]
    column = column.astype("S40") if column.dtype.kind == "S" else column.copy()
    column[0] = value
    attributes = dict(manifest.attributes)
    (out / MANIFEST).unlink()
    write_manifest(out, attributes, manifest.columns | {name: column})
    with pytest.raises((StoreError, DataError), match=match) as caught:
        reimport(out, tmp_path / "back.h5")
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "secret.png", "x.h5"]


# What is there already, and what goes wrong


def test_an_existing_file_is_replaced_only_with_overwrite(tmp_path: Path) -> None:
    out = exported(tmp_path)
    (tmp_path / "back.h5").write_text("mine")
    with pytest.raises(OutputExistsError, match="try overwrite=True or another out"):
        reimport(out, tmp_path / "back.h5")
    assert (tmp_path / "back.h5").read_text() == "mine"
    reimport(out, tmp_path / "back.h5", overwrite=True)
    assert (tmp_path / "back.h5").read_bytes() == (tmp_path / "x.h5").read_bytes()
    with pytest.raises(OutputExistsError, match="is a folder"):
        reimport(out, out, overwrite=True)


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


def test_an_interrupted_import_leaves_nothing(tmp_path: Path) -> None:
    out = exported(tmp_path)
    with pytest.raises(Interrupted, match="nothing was imported"):
        reimport(out, tmp_path / "back.h5", progress=Interrupting())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "x.h5"]


def test_a_full_disk_is_one_line_and_leaves_the_file_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = exported(tmp_path)
    (tmp_path / "back.h5").write_text("mine")

    def full(self: byte_positions.ByteWriter, start: int, array: np.ndarray) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(byte_positions.ByteWriter, "write", full)
    with pytest.raises(StoreError, match="disk is full; nothing was imported") as caught:
        reimport(out, tmp_path / "back.h5", overwrite=True)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "back.h5").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back.h5", "out", "x.h5"]


def test_two_imports_to_one_file_are_refused(tmp_path: Path) -> None:
    out = exported(tmp_path)
    with (
        locked(tmp_path / ".back.h5.dagaug-lock", tmp_path / "back.h5"),
        pytest.raises(LockedError, match="another run"),
    ):
        reimport(out, tmp_path / "back.h5")
    reimport(out, tmp_path / "back.h5")


def test_leaving_out_images_keeps_the_links_to_candidates(tmp_path: Path) -> None:
    columns = read_manifest(exported(tmp_path)).columns
    for seed in range(5):
        chosen = np.random.default_rng(seed).random(TOTAL) < 0.5
        left = select_images(columns, chosen)
        made = np.flatnonzero(left["images/candidate"] >= 0)
        assert (left["candidates/image"][left["images/candidate"][made]] == made).all()
        assert int((left["candidates/image"] >= 0).sum()) == len(made)
