"""The page in a headless browser: filters, keyboard, small screens, dark mode, hostile names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browsing import CHROMIUM, DESKTOP, PHONE, Browser
from making_reports import HOSTILE, a_cloud, write_run, write_store
from making_scores import SCORE
from making_stores import header

from dagaug.hdf5.shard_folder import open_shard_folder
from dagaug.report.morph_images import AttendedRegions, ImageRef
from dagaug.report.write import write_report, write_run_report

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")

LONG, RIGHT_TO_LEFT = "w" * 5000, "\u202eטווס <b>كناري</b>\u2067"
WORSE = (f"<script>alert(1)</script>{LONG}", RIGHT_TO_LEFT, "\"'><svg onload=alert(2)>{{ 7 * 7 }}${alert(3)}\u2028")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as opened:
        yield opened


def write_page(folder: Path, classes: tuple[str, ...]) -> Path:
    """A page with everything that a page can have."""
    score = json.loads(json.dumps(SCORE))
    for comparison in score["comparisons"]:
        for one, name in zip(comparison["classes"], classes, strict=True):
            one["name"] = name
        comparison["better"][0] |= {"truth": classes[0], "taken_for": classes[1]}
    score["arms"].append(score["arms"][2] | {"arm": classes[0]})
    score["notes"] = [classes[2]]
    (folder / "score.json").write_text(json.dumps(score))
    page = folder / "page.html"
    store = write_store(folder / "store.h5", classes=classes)
    write_report(store, page, run=write_run(folder / "run"), score=folder / "score.json", cloud=a_cloud(store))
    return page


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(tmp_path_factory.mktemp("page"), HOSTILE)


@pytest.fixture(scope="module")
def worse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(tmp_path_factory.mktemp("worse"), WORSE)


CARDS = "[...document.querySelectorAll('#cards .card')]"


def test_the_page_is_quiet_and_asks_nobody(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.complaints == []
    assert {address.split(":")[0] for address in browser.requests} == {"file", "data", "about"} - (
        {"about"} if not any(address.startswith("about") for address in browser.requests) else set()
    )
    assert sum(address.startswith("file") for address in browser.requests) == 1


def test_filters_of_the_address_choose_what_is_shown(browser: Browser, page: Path) -> None:
    browser.open(page, "show=worst&class=1&verdict=0")
    assert "Showing 5 morphs." in browser.evaluate("document.body.innerText")
    shown = browser.evaluate(CARDS + ".map((card) => Number(card.querySelector('.number').textContent))")
    assert len(shown) == 5
    assert shown == sorted(shown)
    browser.open(page, "show=best&verdict=1&class=2")
    (card,) = browser.evaluate(CARDS + ".map((card) => card.innerText)")
    assert "rejected, mislabelled: the classifier predicts another class" in card
    assert "high confidence" in card
    browser.open(page, "show=nonsense&class=99")
    assert browser.evaluate(CARDS + ".length") == 18


def test_every_card_shows_its_selection_and_rank(browser: Browser, page: Path) -> None:
    marks = {}
    for tab in ("random", "best", "worst"):
        browser.open(page, f"show={tab}")
        marks[tab] = browser.evaluate(CARDS + ".map((card) => card.querySelector('.mark').textContent)")
        notes = browser.evaluate(
            "[...document.querySelectorAll('[data-tab]:not([hidden])')].map((note) => note.dataset.tab)"
        )
        assert notes == [tab]
    assert marks["best"][0] == "high confidence: no. 1 of 18 by confidence"
    assert marks["worst"][0].startswith("low confidence: no. 1")
    assert all(mark.startswith("random sample: no. ") for mark in marks["random"])


def test_filters_work_by_keyboard_alone_and_focus_is_seen(browser: Browser, page: Path) -> None:
    browser.open(page)
    reached: list[str] = []
    outlined = (
        "(() => { const at = document.activeElement, seen = at.type === 'radio' ? at.nextElementSibling : at;"
        " return [at.name || at.tagName, getComputedStyle(seen).outlineStyle] })()"
    )
    for _ in range(80):
        browser.press("Tab")
        name, outline = browser.evaluate(outlined)
        reached.append(name)
        assert outline not in ("none", ""), f"focus on {name} is not seen"
        if name == "show":
            browser.press("ArrowRight")
            assert browser.evaluate("document.activeElement.value") == "best"
        elif name == "class":
            browser.press("ArrowDown")
        elif name == "verdict":
            break
    assert {"show", "class", "verdict", "A", "SUMMARY"} <= set(reached)
    assert browser.evaluate("location.hash") == "#show=best&class=0"
    assert browser.evaluate(CARDS + ".length") == 6


def test_more_is_shown_on_request_and_focus_goes_there(browser: Browser, page: Path) -> None:
    browser.open(page, size=PHONE)
    assert browser.evaluate(CARDS + ".length") == 16
    browser.evaluate("document.getElementById('more').focus()")
    browser.press("Enter")
    assert browser.evaluate(CARDS + ".length") == 18
    assert browser.evaluate("[...document.getElementById('cards').children].indexOf(document.activeElement)") == 16
    assert browser.evaluate("document.getElementById('more').hidden")


def test_links_to_sections_leave_the_filters_alone(browser: Browser, page: Path) -> None:
    browser.open(page, "show=worst")
    browser.evaluate("document.querySelector('nav a[href=\"#h-provenance\"]').click()")
    assert browser.evaluate("document.getElementById('filters').elements.show.value") == "worst"
    targets = browser.evaluate(
        "[...document.querySelectorAll('nav a')].map((link) => document.querySelector(link.hash) !== null)"
    )
    assert len(targets) >= 5
    assert all(targets)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("size", [PHONE, DESKTOP])
@pytest.mark.parametrize("which", ["page", "worse"])
def test_nothing_is_wider_than_the_window(
    browser: Browser, request: pytest.FixtureRequest, which: str, size: tuple[int, int], dark: bool
) -> None:
    browser.open(request.getfixturevalue(which), size=size, dark=dark)
    browser.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert browser.evaluate("document.documentElement.scrollWidth") == size[0]
    assert browser.complaints == []
    ground = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(23, 23, 22)") is dark


def test_no_label_of_an_axis_is_cut(browser: Browser, tmp_path: Path) -> None:
    score = json.loads(json.dumps(SCORE))
    for arm in score["arms"]:  # the axis ends at 100%, where a label stands
        arm["accuracy"] |= {"high": 1.0}
    (tmp_path / "score.json").write_text(json.dumps(score))
    write_report(write_store(tmp_path / "store.h5"), tmp_path / "page.html", score=tmp_path / "score.json")
    for size in (PHONE, DESKTOP):
        browser.open(tmp_path / "page.html", size=size)
        beyond = """[...document.querySelectorAll('.tick, .x-tick, .y-tick')].filter((tick) => {
          const own = tick.getBoundingClientRect(), box = (tick.closest('.scroll') ?? document.body)
            .getBoundingClientRect();
          return own.width && (own.left < box.left || own.right > box.right);
        }).map((tick) => tick.textContent)"""
        assert browser.evaluate("document.querySelector('.axis.phone .tick:last-child').textContent") == "100%"
        assert browser.evaluate(beyond) == []


@pytest.mark.parametrize("which", ["page", "worse"])
def test_hostile_names_stay_names(browser: Browser, request: pytest.FixtureRequest, which: str) -> None:
    browser.open(request.getfixturevalue(which), "show=worst")
    assert browser.complaints == []
    assert browser.evaluate("document.scripts.length") == 3
    strangers = "'[onload], [onerror], [onclick], iframe, b b, svg[onload], u, embed, object'"
    assert browser.evaluate(f"document.querySelectorAll({strangers}).length") == 0
    text = browser.evaluate("document.body.innerText")
    for name in HOSTILE if which == "page" else WORSE:
        assert name[:20].split("\u2028")[0].strip() in text
    assert "49" not in browser.evaluate("document.querySelector('#cards').innerText.replace(/no. .*/g, '')")


def test_text_stands_out_from_its_ground(browser: Browser, page: Path) -> None:
    """WCAG AA: 4.5 to 1 for all text of the colours that the page has."""
    contrast = """(() => {
      const rgb = (text) => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
      const light = (colour) => rgb(colour).map((v) => v / 255)
        .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, place) => sum + v * [0.2126, 0.7152, 0.0722][place], 0);
      const ground = light(getComputedStyle(document.body).backgroundColor);
      return Math.min(...[...document.querySelectorAll('main *, header *')]
        .filter((node) => [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim()))
        .map((node) => light(getComputedStyle(node).color))
        .map((ink) => (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05)));
    })()"""
    for dark in (False, True):
        browser.open(page, dark=dark)
        assert browser.evaluate(contrast) >= 4.5


def test_a_run_and_an_empty_file_make_quiet_pages(browser: Browser, tmp_path: Path) -> None:
    write_run_report(write_run(tmp_path / "run"), tmp_path / "run.html")
    with open_shard_folder(tmp_path / "empty.h5", {}) as run:
        empty = run.merge(replace(header("jpeg"), classes=HOSTILE), 0)
    write_report(empty, tmp_path / "empty.html")
    for name in ("run.html", "empty.html"):
        browser.open(tmp_path / name, size=PHONE)
        assert browser.complaints == []
        assert browser.evaluate("document.documentElement.scrollWidth") == PHONE[0]


def test_attended_regions_are_drawn_on_request_where_they_are(browser: Browser, tmp_path: Path) -> None:
    def attention(shown: Sequence[ImageRef]) -> list[AttendedRegions | None]:
        there = AttendedRegions((14, 12), np.array([[6.0, 7.0], [3.0, 4.0]]), 2.0)
        return [None if one.kind == "original" else there for one in shown]

    store = write_store(tmp_path / "store.h5")
    write_report(store, tmp_path / "page.html", attention=attention)
    browser.open(tmp_path / "page.html")
    assert browser.evaluate("document.querySelectorAll('.regions').length") == 0
    browser.evaluate("document.getElementById('filters').elements.regions.click()")
    assert browser.evaluate("location.hash") == "#regions=on"
    assert browser.evaluate("document.querySelectorAll('.regions').length") == 18  # the results alone
    box = "[...document.querySelectorAll('.regions')[0].querySelectorAll('rect.over')].map((one) => "
    assert browser.evaluate(box + "['x', 'y', 'width'].map((name) => Number(one.getAttribute(name))))") == [
        [4, 5, 4], [1, 2, 4]
    ]  # fmt: skip
    assert browser.evaluate("document.querySelector('.regions').getAttribute('viewBox')") == "0 0 12 14"
    assert browser.complaints == []
    write_report(store, tmp_path / "page.html", attention_missing="x.safetensors: no such checkpoint")
    browser.open(tmp_path / "page.html", "regions=on")
    assert browser.evaluate("document.querySelectorAll('.regions').length") == 0
    assert "not available: x.safetensors: no such checkpoint." in browser.evaluate("document.body.innerText")


POINTED = "document.getElementById('pointed').innerText"
POINT = "(() => {{ const box = document.querySelectorAll('#cloud g')[{}].getBoundingClientRect(); return [(box.left + box.right) / 2, (box.top + box.bottom) / 2] }})()"  # noqa: E501


def test_the_cloud_names_what_the_pointer_is_at(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.evaluate("document.getElementById('cloud').scrollIntoView()")
    for number in (0, 20):
        x, y = browser.evaluate(POINT.format(number))
        browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        shown = browser.evaluate(POINTED)
        kind = ("synthetic", "real training", "real test")[0 if number < 18 else 1 + (number - 18) // 3]
        assert shown.startswith(kind)
        assert ("in the pose of" in shown) == (number < 18)
    assert HOSTILE[2].replace("\\u2028", "") in shown or HOSTILE[2] in shown
    assert browser.evaluate("document.querySelector('.tile img').style.transform") == "translate(-2400px, 0px)"
    assert browser.complaints == []


def test_the_cloud_is_walked_by_arrow_keys_and_filtered(browser: Browser, page: Path) -> None:
    browser.open(page, size=PHONE)
    browser.evaluate("document.querySelector('#cloud-filters input:last-of-type').focus()")
    for _ in range(4):
        if browser.evaluate("document.activeElement.id") == "cloud":
            break
        browser.press("Tab")
    assert browser.evaluate("document.activeElement.id") == "cloud"
    centre = "['cx', 'cy'].map((name) => Number(document.querySelector('.ring').getAttribute(name)))"
    before = browser.evaluate(centre)  # focus alone has chosen one
    assert "synthetic" in browser.evaluate(POINTED)
    moved = []
    for key, axis, sign in (("ArrowRight", 0, 1), ("ArrowLeft", 0, -1), ("ArrowDown", 1, 1), ("ArrowUp", 1, -1)):
        browser.press(key)
        after = browser.evaluate(centre)
        moved.append(after != before)
        assert sign * (after[axis] - before[axis]) >= 0
        before = after
    assert sum(moved) >= 3
    browser.evaluate(
        "document.querySelectorAll('#cloud-filters input').forEach((one) => { if (one.value !== '2') one.click(); })"
    )
    assert browser.evaluate("[...document.querySelectorAll('#cloud g:not([hidden])')].length") == 3
    browser.evaluate("(() => { const field = document.querySelector('#cloud-filters select'); field.value = '1';"
                     " field.dispatchEvent(new Event('change', { bubbles: true })); })()")  # fmt: skip
    assert browser.evaluate("[...document.querySelectorAll('#cloud g:not([hidden]):not(.pale)')].length") == 1
    assert browser.evaluate("location.hash") == ""
    assert browser.complaints == []
