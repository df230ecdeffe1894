"""Sections of the page: counts, morphs, data cloud."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
from making_reports import HOSTILE, a_cloud, write_run, write_store
from making_stores import encode, header
from reading_pages import Document

from dagaug.augment.options import AugmentOptions
from dagaug.augment.run import augment
from dagaug.data.dataset_records import Dataset
from dagaug.hdf5.reader import Store
from dagaug.hdf5.schema import Images
from dagaug.hdf5.shard_folder import open_shard_folder
from dagaug.hdf5.shards import ShardContent
from dagaug.model.trained_model import load_model
from dagaug.report.write import write_report
from dagaug.runtime.execution_settings import Execution


def facts(document: Document) -> dict[str, str]:
    return dict(re.findall(r"<dt>([^<]*)</dt><dd>([^<]*)</dd>", document.source))


def test_counts_are_those_of_the_file(document: Document) -> None:
    # 3 classes of 5 kept, 1 rejected with a picture, 2 rejected without one
    rows = re.findall(r"<bdi>(kept|mislabelled)</bdi></b>(.*)</tr>", document.source)
    cells = {name: re.findall(r'data-name="[^"]*">([^<]*)<', row) for name, row in rows}
    assert cells == {"kept": ["15", "62.5%", "15"], "mislabelled": ["9", "37.5%", "3"]}
    assert facts(document) == {
        "real training images": "3",
        "real test images": "3",
        "candidates": "24",
        "synthetic images": "18",
        "files skipped": "1",
    }


def test_images_that_the_file_does_not_hold_are_not_counted(
    birds_run: Path, birds: Dataset, birds_judge: Path, tmp_path: Path
) -> None:
    """``--per-class`` leaves training images out; they stay in the table of files."""
    options = AugmentOptions(refs=1, per_class=2, limit=2, weights=birds_judge, classifier="test_resnet")
    options = options.model_copy(update={"min_confidence": 0.0})
    made = augment(load_model(birds_run), birds, options, tmp_path / "a.h5", execution=Execution("cpu"))
    write_report(made.out, tmp_path / "a.html")
    shown = facts(Document(tmp_path / "a.html"))
    with Store(made.out) as store:
        real = store.images.split[~store.images.synthetic]
        assert len(store.header.files) > len(real)
    assert int(shown["real training images"]) == (real == 0).sum() == 2 * len(birds.classes)
    assert int(shown["real test images"]) == (real == 1).sum()


def test_kinds_are_counted_if_there_are_several(tmp_path: Path) -> None:
    store = write_store(tmp_path / "kinds.h5", kinds=("reference", "cutout"))
    write_report(store, tmp_path / "kinds.html")
    document = Document(tmp_path / "kinds.html")
    with Store(store) as opened:
        counts = Counter(opened.images.variant[opened.images.synthetic].tolist())
    shown = facts(document)
    assert (shown["of the kind morph"], shown["of the kind cutout"]) == (str(counts[0]), str(counts[1]))
    items = document.data["items"]
    assert isinstance(items, list)
    assert Counter(item["kind"] for item in items) == {"morph": counts[0], "cutout": counts[1]}


def test_gallery_has_each_picture_once_and_every_tab_is_whole(document: Document) -> None:
    data = document.data
    pictures, items, tabs = data["pictures"], data["items"], data["tabs"]
    assert isinstance(pictures, list)
    assert isinstance(items, list)
    assert isinstance(tabs, dict)
    assert len(items) == 18
    assert len(pictures) == 18 + 3  # sources and references are the three training images
    assert all(uri.startswith("data:image/jpeg;base64,") for uri in pictures)
    assert {tuple(sorted(places)) for places in tabs.values()} == {tuple(range(18))}
    sure = {tab: [items[place]["confidence"] for place in places] for tab, places in tabs.items()}
    assert sure["best"] == sorted(sure["best"], reverse=True)
    assert sure["worst"] == sorted(sure["worst"])
    assert sure["random"] not in (sure["best"], sure["worst"])
    for item in items:
        assert item["reference_label"] == (item["label"] + 1) % 3
        assert item["files"] == [f"<i>{item['label']}</i>.png", f"<i>{item['reference_label']}</i>.png"]


def test_the_cloud_has_a_mark_and_a_line_for_each_image(document: Document) -> None:
    marks = [attributes for tag, attributes in document.tags if tag == "g" and "data-group" in attributes]
    assert len(marks) == 18 + 6
    cloud = document.cloud
    assert len(cloud["files"]) == 24
    assert cloud["files"][0] == ["<i>0</i>.png", "<i>1</i>.png"]
    assert cloud["files"][18:] == [[f"<i>{row}</i>.png"] for row in range(6)]
    assert cloud["sheet"].startswith("data:image/jpeg;base64,")
    assert "50% of the synthetic images and 25% of the real test images" in document.text
    assert "3 test and 3 training images that it was not trained on, and 18 morphs" in document.text


def test_the_page_of_a_large_file_stays_small_and_counts_the_shown_morphs(tmp_path: Path) -> None:
    path = write_store(tmp_path / "large.h5", per_class=40, size=64)
    whole = tmp_path / "whole.html"
    write_report(path, whole)
    assert "All 123 morphs of the file" in whole.read_text()
    part = tmp_path / "part.html"
    write_report(path, part, morphs_bytes=whole.stat().st_size // 4)
    assert part.stat().st_size < 0.6 * whole.stat().st_size
    found = Document(part)
    items, tabs = found.data["items"], found.data["tabs"]
    assert isinstance(items, list)
    assert isinstance(tabs, dict)
    assert f"{len(items)} of the 123 morphs in the file" in found.text
    best = [items[place] for place in tabs["best"]]
    assert {item["label"] for item in best} == {0, 1, 2}
    assert min(item["confidence"] for item in best) > max(items[place]["confidence"] for place in tabs["worst"])


def test_thousand_images_of_noise_stay_under_five_megabytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (96, 96, 3), dtype=np.uint8) for _ in range(40)]
    encoded = [encode(image, "jpeg") for image in noise]
    count = 1000
    size = np.full(count, 96)
    table = Images.real(size, size, np.arange(count) % 3, np.zeros(count, int), np.arange(count) % 6)
    table = replace(table, synthetic=np.ones(count, bool), confidence=rng.random(count).astype(np.float32))
    with open_shard_folder(tmp_path / "noise.h5", {}) as run:
        run.write(0, ShardContent([encoded[row % 40] for row in range(count)], table))
        path = run.merge(replace(header("jpeg"), classes=HOSTILE), 1)
    out = tmp_path / "noise.html"
    write_report(path, out, cloud=a_cloud(path), run=write_run(tmp_path / "run"))
    assert out.stat().st_size < 5_000_000
    assert re.search(r"\d+ of the 1,000 morphs in the file", out.read_text())
