"""The HTML page as the tests of the report read it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any


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
