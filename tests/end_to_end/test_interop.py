"""Other tools read the exports: torchvision, timm, webdataset, Hugging Face datasets; skipped if not installed."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from making_stores import MORPHS, REAL, write
from timm.data import create_dataset
from timm.data.readers.class_map import load_class_map
from torchvision.datasets import ImageFolder

from dagaug.data.layouts import read_dataset
from dagaug.exchange.export import export
from dagaug.exchange.format_writers import FORMAT_WRITERS
from dagaug.hdf5.reader import Store

TOTAL = REAL + 2 * MORPHS
CLASSES = ("wren", "robin")


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file, ``x.h5``, and its export of every form in a folder of that name; tars of 5 images."""
    folder = tmp_path_factory.mktemp("exports")
    write(folder / "x.h5", "jpeg", classes=CLASSES)
    for form in FORMAT_WRITERS:
        more = {"shard_images": 5} if form == "webdataset" else {}
        export(folder / "x.h5", folder / form, to=form, **more)  # type: ignore[arg-type]
    return folder


def expected(exports: Path, split: str) -> list[tuple[bytes, int]]:
    """Bytes and label of each image of a split."""
    with Store(exports / "x.h5") as store:
        rows = np.flatnonzero(store.images.split == ("train", "test").index(split)).tolist()
        return sorted((store.encoded(row), int(store.images.label[row])) for row in rows)


def test_torchvision_timm_and_dagaug_read_class_folders(exports: Path) -> None:
    out = exports / "imagefolder"
    assert len(ImageFolder(str(out / "train"))) == 12
    assert ImageFolder(str(out / "test")).classes == ["robin", "wren"]
    assert list(load_class_map(str(out / "classes.txt"))) == list(CLASSES)
    for split in ("train", "test"):
        images = create_dataset("", root=str(out), split=split, class_map=str(out / "classes.txt"))
        found = sorted((Path(path).read_bytes(), label) for path, label in images.reader.samples)
        assert found == expected(exports, split)
    dataset = read_dataset(out)
    assert (dataset.layout, len(dataset.train), len(dataset.test)) == ("huggingface", 12, 2)  # by its metadata.csv
    assert dataset.classes == ("robin", "wren")
    folders = read_dataset(out, layout="imagefolder")
    assert {(one.path, one.label, one.split) for one in folders.samples} == {
        (one.path, one.label, one.split) for one in dataset.samples
    }


@pytest.mark.parametrize("options", [{"synthetic_only": True}, {"split": "train"}])
def test_class_folders_of_one_split_are_read_without_a_split(
    tmp_path: Path, exports: Path, options: dict[str, object]
) -> None:
    done = export(exports / "x.h5", tmp_path / "out", **options)  # type: ignore[arg-type]
    images = ImageFolder(str(tmp_path / "out"))
    assert images.classes == ["robin", "wren"]
    assert len(images) == len(create_dataset("", root=str(tmp_path / "out"), split="train")) == done.images


@pytest.mark.filterwarnings("ignore")
def test_webdataset_and_timm_read_the_tars(exports: Path) -> None:
    wds = pytest.importorskip("webdataset")
    for split in ("train", "test"):
        tars = sorted(map(str, (exports / "webdataset").glob(f"{split}-*.tar")))
        found = [(sample["jpg"], int(sample["cls"])) for sample in wds.WebDataset(tars, shardshuffle=False)]
        assert sorted(found) == expected(exports, split)
        images = create_dataset("wds/", root=str(exports / "webdataset"), split=split, batch_size=2)
        assert len(images) == len(found)
        labels = [label for _, label in images]
        assert sorted(labels) == sorted(label for _, label in expected(exports, split))


TRAIN = os.environ.get("TIMM_TRAIN", "")
README = Path(__file__).resolve().parents[2] / "README.md"
FEW = "--model test_resnet --epochs 1 --batch-size 4 --workers 1 --img-size 64 --device cpu --output out"


@pytest.mark.slow
@pytest.mark.skipif(not TRAIN, reason="needs TIMM_TRAIN=FILE, the train.py of timm's repository: its package lacks it")
@pytest.mark.parametrize(("form", "folder"), [("imagefolder", "folders"), ("webdataset", "shards")])
def test_timms_training_script_trains_on_the_exports_as_documented(
    exports: Path, tmp_path: Path, form: str, folder: str
) -> None:
    (tmp_path / folder).symlink_to(exports / form)
    (line,) = (
        line for line in README.read_text().splitlines() if line.startswith("python train.py") and folder in line
    )
    words = line.replace("--num-classes 200", f"--num-classes {len(CLASSES)}").split()[2:]
    command = [sys.executable, "-W", "ignore", TRAIN, *words, *FEW.split()]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    (summary,) = (tmp_path / "out").glob("*/summary.csv")
    with summary.open(newline="") as file:
        (epoch,) = csv.DictReader(file)
    assert 0 < float(epoch["train_loss"]) < 5
    assert 0 <= float(epoch["eval_top1"]) <= 100


READ = """
import json, sys
from datasets import ClassLabel, Image, load_dataset

exports, cache = sys.argv[1:]
found = {}
for form in ("imagefolder", "webdataset"):
    read = load_dataset(form, data_dir=f"{exports}/{form}", cache_dir=cache)
    if form == "imagefolder":
        found["metadata"] = read["train"].remove_columns("image").to_list()
        read = read.cast_column("class_id", ClassLabel(names_file=f"{exports}/{form}/classes.txt"))
    picture, label = ("image", "class_id") if form == "imagefolder" else ("jpg", "cls")
    found[form] = {split: [[row[picture].size, row[label]] for row in rows] for split, rows in read.items()}
    if form == "imagefolder":
        found["names"] = read["train"].features["class_id"].names
    else:
        found["json"] = [row["json"] for row in read["train"]]
table = load_dataset("csv", data_files=f"{exports}/csv/images.csv", cache_dir=cache)["train"]
pictures = table.map(lambda row: {"image": f"{exports}/csv/{row['path']}"}).cast_column("image", Image())
found["csv"] = [[row["image"].size, row["label"], row["split"], row["source"]] for row in pictures]
print(json.dumps(found))
"""


@pytest.mark.skipif(importlib.util.find_spec("datasets") is None, reason="needs datasets")
def test_hugging_face_reads_every_form(exports: Path, tmp_path: Path) -> None:
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    command = [sys.executable, "-W", "ignore", "-c", READ, str(exports), str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    with Store(exports / "x.h5") as store:
        images, files = store.images, store.header.files
    size = [int(images.width[0]), int(images.height[0])]
    for split in ("train", "test"):
        labels = [label for _, label in expected(exports, split)]
        assert sorted(found["webdataset"][split]) == sorted([size, label] for label in labels)
        names = sorted(CLASSES[label] for label in labels)
        assert sorted(found["names"][label] for _, label in found["imagefolder"][split]) == names
        counted = sorted(label for _, label in found["imagefolder"][split])
        assert counted == sorted(labels)
    train = np.flatnonzero(images.split == 0)
    assert [about["synthetic"] for about in found["metadata"]] == images.synthetic[train].tolist()
    assert [about["source"] for about in found["metadata"]] == [files[row] for row in images.source[train]]
    assert [about["label"] for about in found["metadata"]] == [CLASSES[label] for label in images.label[train]]
    assert {about["split"] for about in found["json"]} == {"train"}
    assert [line[1:] for line in found["csv"]] == [
        [CLASSES[images.label[row]], ("train", "test")[images.split[row]], files[images.source[row]]]
        for row in range(TOTAL)
    ]
