from __future__ import annotations

import csv
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from making_stores import MORPHS, REAL, header, write

from dagaug.data.layouts import read_dataset
from dagaug.exchange.export import export
from dagaug.exchange.format_writers import TABLE_COLUMNS
from dagaug.exchange.non_image_content import MANIFEST, read_manifest
from dagaug.hdf5.reader import Store

TOTAL = REAL + 2 * MORPHS
CLASSES = ("wren", "robin")
HOSTILE = ("../x", '=1+1,"\r\n<script>')


def samples(out: Path) -> dict[str, dict[str, bytes]]:
    """Members of all tars by key and ending."""
    found: dict[str, dict[str, bytes]] = {}
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                assert member.isfile()
                stream = tar.extractfile(member)
                assert stream is not None
                key, ending = member.name.split(".")
                found.setdefault(key, {})[ending] = stream.read()
    return found


def table(out: Path) -> list[dict[str, str]]:
    with (out / "images.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("encoding", ["jpeg", "png"])
def test_tars_hold_each_image_with_its_label_and_where_it_comes_from(tmp_path: Path, encoding: str) -> None:
    write(tmp_path / "x.h5", encoding, classes=CLASSES)  # type: ignore[arg-type]
    export(tmp_path / "x.h5", tmp_path / "out", to="webdataset")
    found = samples(tmp_path / "out")
    files = header().files
    with Store(tmp_path / "x.h5") as store:
        assert sorted(found) == [f"{row:09d}" for row in range(TOTAL)]
        for row, images in enumerate([store.images] * TOTAL):
            sample = found[f"{row:09d}"]
            assert sample.pop("jpg" if encoding == "jpeg" else "png") == store.encoded(row)
            assert int(sample.pop("cls")) == images.label[row]
            about = json.loads(sample.pop("json"))
            assert sample == {}
            assert about["label"] == CLASSES[images.label[row]]
            assert about["split"] == ("train", "test")[images.split[row]]
            assert about["synthetic"] == images.synthetic[row]
            assert about["source"] == files[images.source[row]]
            if images.synthetic[row]:
                assert about["reference"] == files[images.reference[row]]
                assert about["variant"] == header().variants[images.variant[row]]
                assert np.float32(about["confidence"]) == images.confidence[row]
                assert about["predicted"] == CLASSES[images.predicted[row]]
            else:
                assert (about["reference"], about["variant"], about["predicted"]) == ("", "", "")
                assert about["confidence"] == -1


def test_every_sample_has_the_same_types_since_readers_guess_them_from_the_first(tmp_path: Path) -> None:
    write(tmp_path / "x.h5")
    export(tmp_path / "x.h5", tmp_path / "out", to="webdataset")
    abouts = [json.loads(sample["json"]) for sample in samples(tmp_path / "out").values()]
    assert {tuple((key, type(value).__name__) for key, value in about.items()) for about in abouts} == {
        (("label", "str"), ("split", "str"), ("synthetic", "bool"), ("source", "str"), ("reference", "str"),
         ("variant", "str"), ("confidence", "float"), ("predicted", "str"))
    }  # fmt: skip


def test_tars_are_cut_at_the_number_asked_for_and_counted_for_timm(tmp_path: Path) -> None:
    write(tmp_path / "x.h5")
    export(tmp_path / "x.h5", tmp_path / "out", to="webdataset", shard_images=5)
    splits = json.loads((tmp_path / "out" / "_info.json").read_text())["splits"]
    assert {name: (split["num_samples"], split["shard_lengths"]) for name, split in splits.items()} == {
        "train": (12, [5, 5, 2]),
        "test": (2, [2]),
    }
    names = [name for split in splits.values() for name in split["filenames"]]
    assert sorted(names) == sorted(path.name for path in (tmp_path / "out").glob("*.tar"))
    for split in splits.values():
        for name, length in zip(split["filenames"], split["shard_lengths"], strict=True):
            with tarfile.open(tmp_path / "out" / name) as tar:
                assert len(tar.getnames()) == 3 * length


def test_tars_mix_classes_and_are_the_same_bytes_each_time(tmp_path: Path) -> None:
    write(tmp_path / "x.h5")
    for name in ("one", "two"):
        export(tmp_path / "x.h5", tmp_path / name, to="webdataset")
    shard = "train-000000.tar"
    assert (tmp_path / "one" / shard).read_bytes() == (tmp_path / "two" / shard).read_bytes()
    with tarfile.open(tmp_path / "one" / shard) as tar:
        keys = [name.partition(".")[0] for name in tar.getnames()[::3]]
    assert keys != sorted(keys)


def test_the_table_is_read_by_dagaug_with_labels_and_splits(tmp_path: Path) -> None:
    write(tmp_path / "x.h5", classes=CLASSES)
    export(tmp_path / "x.h5", tmp_path / "out", to="csv")
    assert tuple(table(tmp_path / "out")[0]) == TABLE_COLUMNS
    data = read_dataset(tmp_path / "out")
    assert (data.layout, data.split_origin, data.classes) == ("csv", "given", ("robin", "wren"))
    assert (len(data.train), len(data.test)) == (12, 2)
    with Store(tmp_path / "x.h5") as store:
        for row, sample in enumerate(data.samples):
            assert data.file(sample).read_bytes() == store.encoded(row)
            assert data.classes[sample.label] == CLASSES[store.images.label[row]]
            assert store.boxes is not None
            assert sample.box == tuple(store.boxes[row].tolist())
            assert sample.mask is None  # none is written


def test_the_table_holds_the_records_of_the_file(tmp_path: Path) -> None:
    write(tmp_path / "x.h5", classes=CLASSES)
    export(tmp_path / "x.h5", tmp_path / "out", to="csv")
    with Store(tmp_path / "x.h5") as store:
        images, files = store.images, store.header.files
    for row, line in enumerate(table(tmp_path / "out")):
        assert line["source"] == files[images.source[row]]
        assert line["synthetic"] == ("yes" if images.synthetic[row] else "no")
        if images.synthetic[row]:
            assert line["reference"] == files[images.reference[row]]
            assert np.float32(line["confidence"]) == images.confidence[row]
            assert line["predicted"] == CLASSES[images.predicted[row]]
        else:
            assert line["reference"] == line["variant"] == line["confidence"] == line["predicted"] == ""


@pytest.mark.parametrize("form", ["csv", "webdataset"])
def test_hostile_names_stay_in_the_folder_and_in_their_cells(tmp_path: Path, form: str) -> None:
    files = ("../../a.jpg", "/etc/b", "..", "a\rb", "a" * 3000 + ".png", "\udcff.jpg")
    write(tmp_path / "x.h5", classes=HOSTILE, files=files)
    result = export(tmp_path / "x.h5", tmp_path / "out", to=form)  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "x.h5"]
    # "../x" can stand in a table; a name with a line break, which readers would not give back, cannot.
    assert result.renamed == ((HOSTILE[1], "=1+1,____script_"),)
    for name in read_manifest(tmp_path / "out").columns["images/path"].tolist():
        path = (tmp_path / "out" / name.decode()).resolve()
        assert path.is_relative_to((tmp_path / "out").resolve())
        assert path.is_file()
    if form == "csv":
        assert set(read_dataset(tmp_path / "out").classes) == {"../x", "=1+1,____script_"}
        assert {line["source"] for line in table(tmp_path / "out")} == {
            *files[:3], "a\\rb", files[4], "\\udcff.jpg"
        }  # fmt: skip
    else:
        assert sorted(samples(tmp_path / "out")) == [f"{row:09d}" for row in range(TOTAL)]


def test_two_classes_of_one_name_stay_two(tmp_path: Path) -> None:
    write(tmp_path / "x.h5", classes=("wren", "wren"))
    export(tmp_path / "x.h5", tmp_path / "out", to="csv")
    assert set(read_dataset(tmp_path / "out").classes) == {"wren", "wren--2"}


@pytest.mark.parametrize("form", ["imagefolder", "csv", "webdataset"])
def test_the_manifest_locates_each_image(tmp_path: Path, form: str) -> None:
    write(tmp_path / "x.h5")
    export(tmp_path / "x.h5", tmp_path / "out", to=form, synthetic_only=True)  # type: ignore[arg-type]
    manifest = read_manifest(tmp_path / "out")
    assert (tmp_path / "out" / MANIFEST).is_file()
    names = ("path", "start", "size")
    places = list(zip(*(manifest.columns[f"images/{name}"].tolist() for name in names), strict=True))
    with Store(tmp_path / "x.h5") as store:
        for row, (name, start, size) in enumerate(places, start=REAL):
            data = (tmp_path / "out" / name.decode()).read_bytes()
            assert data[start : start + size] == store.encoded(row)
