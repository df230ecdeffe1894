"""The page: self-contained, safe against hostile names, complete."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from making_reports import HOSTILE
from reading_pages import Document, assert_self_contained

from dagaug.report.write import write_report


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


def test_the_page_says_why_it_has_no_cloud(store: Path, tmp_path: Path) -> None:
    write_report(store, tmp_path / "page.html", cloud_missing="no <judges> are there")
    assert "Not available: no <judges> are there." in Document(tmp_path / "page.html").text
