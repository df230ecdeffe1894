from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from making_reports import HOSTILE, a_cloud, write_run, write_store
from making_stores import encode, header

from dagaug.hdf5.reader import Store
from dagaug.hdf5.schema import Images
from dagaug.hdf5.shard_folder import open_shard_folder
from dagaug.hdf5.shards import ShardContent
from dagaug.report import page_content
from dagaug.report.contact_sheets import GROUND, Triple, attention_overlay, contact_sheet, region_colours, triple_sheet
from dagaug.report.loss_curves import HEIGHT, WIDTH, Metrics, loss_curves, read_metrics
from dagaug.report.morph_images import MorphTable, OriginalImages, sample_of_each_class
from dagaug.report.wording import display_names
from dagaug.report.write import sheet_of_store, write_report, write_run_report
from dagaug.runtime.errors import DataError, StoreError


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("store") / "birds.h5")


def write_score(path: Path, verdict: str = "harms") -> Path:
    def about(mean: float, reach: float) -> dict[str, float]:
        return {"mean": mean, "low": mean - reach, "high": mean + reach}

    score = {
        "arms": [
            {"arm": "real", "accuracies": [0.6, 0.7], "accuracy": about(0.65, 0.05)},
            {"arm": "real+dagaug", "accuracies": [0.5, 0.6], "accuracy": about(0.55, 0.05)},
        ],
        "comparisons": [{"arm": "real+dagaug", "difference": about(-0.1, 0.02), "p": 0.01, "verdict": verdict}],
        "sentences": ["real+dagaug harms <b>badly</b>"],
        "classes": 3,
        "real": 3,
        "synthetic": 15,
        "test": 3,
        "steps": 1200,
        "synthetic_share": 0.25,
        "options": {"fit": {"name": "resnet18"}},
        "a later version's key": 1,
    }
    path.write_text(json.dumps(score))
    return path


class Document(HTMLParser):
    """Tags with their attributes, text outside scripts and styles, and the data of the gallery and the cloud."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.data: dict[str, object] = {}
        self.cloud: dict[str, Any] = {}
        self.script = ""
        self._within: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._within.append({"morph-data": "data", "cloud-data": "cloud"}.get(dict(attrs).get("id") or "", tag))

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._within.pop()

    def handle_data(self, data: str) -> None:
        if self._within == ["data"]:
            self.data = json.loads(data)
        elif self._within == ["cloud"]:
            self.cloud = json.loads(data)
        elif self._within == ["script"]:
            self.script += data
        elif not self._within:
            self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def assert_self_contained(document: Document) -> None:
    for tag, attributes in document.tags:
        for name in ("src", "href", "srcset", "action", "poster", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, name, value)
    without_names = document.source.replace("http://www.w3.org/2000/svg", "")  # a name, never fetched
    assert not re.search(r"url\(|@import|https?://", without_names)
    assert not {"iframe", "object", "embed", "base"} & {tag for tag, _ in document.tags}


@pytest.fixture(scope="module")
def document(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Document:
    folder = tmp_path_factory.mktemp("report")
    out = folder / "report.html"
    run, score = write_run(folder / "run"), write_score(folder / "score.json")
    write_report(store, out, run=run, score=score, cloud=a_cloud(store))
    assert not list(folder.glob("*.tmp"))
    return Document(out)


def test_page_needs_nothing_else_and_runs_only_its_own_script(document: Document) -> None:
    assert_self_contained(document)
    policy = next(meta["content"] for meta in document.named("meta") if meta.get("http-equiv"))
    digest = base64.b64encode(hashlib.sha256(document.script.encode()).digest()).decode()
    assert policy is not None
    assert f"script-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")


def test_hostile_names_stay_text(document: Document) -> None:
    assert len(document.named("script")) == 3  # data of gallery and cloud, and the page's own
    assert not any("onerror" in attributes for _, attributes in document.tags)
    for markup in ("<u>x", "<i>0", "<b>bold", "<b>badly", "<total>"):
        assert markup not in document.source
    for name in HOSTILE:
        assert name in document.text
    assert document.data["full_names"] == list(HOSTILE)
    assert "<u>x</u>/" in document.text
    assert "harms <b>badly</b>" in document.text
    assert "<total>" in document.text


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


def test_kinds_are_told_where_there_are_several(tmp_path: Path) -> None:
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


def test_score_comes_first_and_its_numbers_are_on_the_page(document: Document) -> None:
    assert document.source.index('id="h-score"') < document.source.index('id="h-counts"')
    assert 'class="verdict harms"' in document.source
    for text in ("65.0%", "60.0 to 70.0", "55.0%", "−10.0", "−12.0 to −8.0", "0.01", "1,200 steps", "resnet18"):
        assert text in document.text


def test_run_is_shown(document: Document) -> None:
    shown = [image["alt"] for image in document.named("img")]
    assert shown[0] == "Sample sheet, step 3,500"  # the newest first
    assert shown[1] == "Sample sheet, step 500"
    assert len(shown) == 4 + 1  # with the attention
    assert "4 of 7 sheets of the run" in document.text
    assert len(document.named("svg")) == 2 + 4  # with the cloud and the signs of its three kinds
    assert "Unreadable lines of metrics.jsonl: 1" in document.text
    assert "networks.instances" in document.text


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


def test_a_cloud_that_is_not_at_hand_is_explained(store: Path, tmp_path: Path) -> None:
    write_report(store, tmp_path / "page.html", cloud_missing="no <judges> are there")
    assert "Not available: no <judges> are there." in Document(tmp_path / "page.html").text


def test_equal_inputs_give_equal_pages(store: Path, tmp_path: Path) -> None:
    write_report(store, tmp_path / "a.html", cloud=a_cloud(store))
    write_report(store, tmp_path / "b.html", cloud=a_cloud(store))
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert "Not measured yet" in (tmp_path / "a.html").read_text()


def test_large_file_stays_small_and_says_how_many_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_store(tmp_path / "large.h5", per_class=40, size=64)
    whole = tmp_path / "whole.html"
    write_report(path, whole)
    assert "All 123 morphs of the file" in whole.read_text()
    monkeypatch.setattr(page_content, "_MORPHS_BYTES", whole.stat().st_size // 4)
    part = tmp_path / "part.html"
    write_report(path, part)
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


def test_originals_come_from_the_data_folder_and_never_from_outside(tmp_path: Path) -> None:
    path = write_store(tmp_path / "bare.h5", real=False)
    data = tmp_path / "data"
    (data / "<i>0<").mkdir(parents=True)
    red = np.full((20, 30, 3), (0, 0, 255), np.uint8)  # OpenCV's order
    (data / "<i>0<" / "i>.png").write_bytes(cv2.imencode(".png", red)[1].tobytes())
    (data / "<i>1<").mkdir()
    outside = tmp_path / "secret.png"
    outside.write_bytes(cv2.imencode(".png", red)[1].tobytes())
    (data / "<i>1<" / "i>.png").symlink_to(outside)
    with Store(path) as opened:
        originals = OriginalImages(opened, data)
        found = originals.picture(0)
        assert found is not None
        assert found.shape == (20, 30, 3)
        assert tuple(found[0, 0]) == (255, 0, 0)
        assert originals.picture(1) is None
        assert originals.picture(2) is None
        assert originals.picture(-1) is None
        assert OriginalImages(opened).picture(0) is None
    write_report(path, tmp_path / "report.html")
    sheet_of_store(path, tmp_path / "sheet.png")
    items = Document(tmp_path / "report.html").data["items"]
    assert isinstance(items, list)
    assert {tuple(item["pictures"][:2]) for item in items} == {(-1, -1)}


def test_run_report_shows_the_run_alone(tmp_path: Path) -> None:
    write_run_report(write_run(tmp_path / "my <run>"), tmp_path / "run.html")
    found = Document(tmp_path / "run.html")
    assert_self_contained(found)
    assert "my <run>" in found.text
    assert hashlib.sha256(b"weights").hexdigest() in found.text
    assert not found.named("form")
    assert not found.script


def test_empty_run_makes_a_page(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    write_run_report(tmp_path / "run", tmp_path / "run.html")
    assert "Unfinished" in (tmp_path / "run.html").read_text()


def test_missing_and_broken_inputs_are_told_and_nothing_is_written(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    with pytest.raises(StoreError, match=r"missing\.h5"):
        write_report(tmp_path / "missing.h5", out)
    with pytest.raises(DataError, match="no such run"):
        write_report(store, out, run=tmp_path / "missing")
    with pytest.raises(DataError, match=r"missing\.json: cannot be read"):
        write_report(store, out, score=tmp_path / "missing.json")
    (tmp_path / "odd.json").write_text('{"arms": 3}')
    with pytest.raises(DataError, match=r"odd\.json: not a score \(arms"):
        write_report(store, out, score=tmp_path / "odd.json")
    run = write_run(tmp_path / "run")
    (run / "options.json").write_text("{")
    with pytest.raises(DataError, match=r"options\.json"):
        write_run_report(run, out)
    (run / "attention.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"attention\.png"):
        write_run_report(run, out)
    assert not out.exists()
    with pytest.raises(DataError, match="cannot be written"):
        write_report(store, tmp_path / "nowhere" / "report.html")
    with pytest.raises(DataError, match="cannot be written"):
        sheet_of_store(store, tmp_path / "nowhere" / "sheet.png")


# Curves


def test_resumed_run_replaces_what_it_did_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    steps = [(1, 5.0), (2, 4.0), (3, 9.0), (2, 3.0), (3, 2.0)]
    lines = [json.dumps({"step": step, "a": value, "note": "text", "on": True}) for step, value in steps]
    path.write_text("\n".join([*lines, "[]", '{"step": 4, "a": NaN}', "{"]))
    metrics = read_metrics(path)
    assert metrics.terms.keys() == {"a"}
    assert metrics.terms["a"][0].tolist() == [1, 2, 3]
    assert metrics.terms["a"][1].tolist() == [5, 3, 2]
    assert metrics.unreadable == 2


def test_curve_spans_its_box(tmp_path: Path) -> None:
    steps = np.arange(1.0, 11.0)
    (curve,) = loss_curves(Metrics({"a": (steps, 20 - steps)}, 0))
    points = [tuple(map(float, point.split())) for point in curve.line[1:].split("L")]
    assert points[0] == (0, 0)
    assert points[-1] == (WIDTH, HEIGHT)
    assert (curve.low, curve.high, curve.first, curve.last, curve.latest) == (10, 19, 1, 10, 10)
    (spiked,) = loss_curves(Metrics({"a": (steps, np.array([1e4] + [1.0] * 9))}, 0))
    assert spiked.logarithmic
    (flat,) = loss_curves(Metrics({"a": (steps, np.zeros(10))}, 0))
    assert flat.low < 0 < flat.high


# Sheets


def plain(*colours: tuple[int, int, int], size: int = 16) -> np.ndarray:
    return np.stack([np.full((size, size, 3), colour, np.uint8) for colour in colours])


def test_contact_sheet_puts_each_image_where_it_belongs() -> None:
    sources, references = plain((200, 0, 0), (150, 0, 0)), plain((0, 200, 0), (0, 150, 0), (0, 100, 0))
    morphs = np.stack([plain(*[(0, row, 10 * column) for column in range(3)]) for row in range(2)])
    sheet = contact_sheet(sources, references, morphs, scale=3)
    side, gap, margin, apart = 48, 2, 12, 6
    assert sheet.shape == (2 * margin + 3 * side + 2 * gap + apart, 2 * margin + 4 * side + 3 * gap + apart, 3)
    starts = [margin] + [margin + apart + index * (side + gap) for index in range(1, 4)]
    for row in range(2):
        cell = sheet[starts[row + 1] : starts[row + 1] + side, starts[0] : starts[0] + side]
        assert (cell == sources[row, 0, 0]).all()
        for column in range(3):
            left = starts[column + 1]
            assert (sheet[starts[row + 1] :, left:][:side, :side] == morphs[row, column, 0, 0]).all()
            assert (sheet[starts[0] :, left:][:side, :side] == references[column, 0, 0]).all()
    assert tuple(sheet[0, 0]) == GROUND
    corner = sheet[margin : margin + side, margin : margin + side]
    assert (corner != GROUND).any()  # the labels


def test_attention_boxes_lie_where_the_centres_say() -> None:
    images = plain((128, 128, 128), (90, 90, 90), size=64)
    centres = np.zeros((2, 2, 2), np.float32)
    centres[:, 0] = (-0.5, -0.5)
    centres[:, 1] = (0.5, 0.0)
    sheet = attention_overlay(images, centres, 0.25)
    side, margin, gap = 208, 20, 10
    for index in range(2):
        left = margin + index * (side + gap)
        for (x, y), colour in zip(centres[index], region_colours(2), strict=True):
            column, row = left + round((x + 1) / 2 * side), margin + round((y + 1) / 2 * side)
            assert tuple(sheet[row, column]) == colour  # the dot
            edge = sheet[row + 15, column - 30 : column - 20]  # 0.25 of 104 pixels to the left
            assert (edge == colour).all(axis=-1).any()
    assert tuple(sheet[margin + side - 3, margin + 3]) == (128, 128, 128)


def test_attention_takes_stray_and_many_regions() -> None:
    centres = np.zeros((1, 14, 2), np.float32)
    centres[0, 0], centres[0, 1] = np.nan, 1e9
    assert attention_overlay(plain((1, 2, 3)), centres, 0.3).ndim == 3
    assert len(set(region_colours(14))) == 14
    assert len(set(region_colours(10))) == 10


def test_sheet_of_triples_takes_odd_images_and_names() -> None:
    wide, tall = np.zeros((10, 40, 3), np.uint8), np.zeros((500, 20, 3), np.uint8)
    names = ("$x^$ 鳥 \n" + 60 * "w", "", "0.98")
    for count in (1, 4, 10):
        sheet = triple_sheet([Triple(wide, None, tall, *names)] * count)
        columns = {1: 1, 4: 2, 10: 3}[count]
        assert sheet.shape[1] == 52 + columns * (3 * 128 + 12) + (columns - 1) * 34
        assert tuple(sheet[-1, -1]) == GROUND


def test_sheet_of_store_spreads_over_classes_and_is_reproducible(store: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        sheet_of_store(store, tmp_path / f"{name}.png", rows=6, seed=seed)
    contents = [(tmp_path / f"{name}.png").read_bytes() for name in "abc"]
    assert contents[0] == contents[1] != contents[2]
    with Store(store) as opened:
        morphs = MorphTable.of(opened)
    kept = np.flatnonzero(morphs.kept)
    assert len(kept) == 15
    drawn = sample_of_each_class(morphs, kept, 6, seed=0)
    assert np.bincount(morphs.label[drawn]).tolist() == [2, 2, 2]
    assert morphs.kept[drawn].all()


def test_class_names_are_shortened_only_where_they_stay_different() -> None:
    names = ["001.Black_footed_Albatross", "002.Gull", "003.Gull", "004."]
    assert display_names(names) == ["Black footed Albatross", "002.Gull", "003.Gull", "004."]
