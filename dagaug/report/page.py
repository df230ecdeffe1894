"""The HTML page: template, context and rendering."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
from markupsafe import Markup

from dagaug.report.page_content import CloudPlot, Counts, GallerySection
from dagaug.report.palette import PALETTE
from dagaug.report.score_view import ScoreTable
from dagaug.report.svg_plots import HEIGHT, WIDTH
from dagaug.report.training_run import Training
from dagaug.report.wording import term_words

__all__ = ["Page", "installed_version", "printable", "render_page"]


@dataclass(frozen=True)
class Page:
    """Everything on a page; what is None or empty has no section."""

    kind: str
    title: str
    about: str
    version: str
    provenance: tuple[tuple[str, str], ...]
    options: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    skipped_total: int = 0
    score: ScoreTable | None = None
    counts: Counts | None = None
    gallery: GallerySection | None = None
    cloud: CloudPlot | None = None
    unclouded: str = ""
    training: Training = field(default_factory=Training)


def installed_version() -> str:
    try:
        return f"dagaug {importlib.metadata.version('dagaug')}"
    except importlib.metadata.PackageNotFoundError:
        return "dagaug"


# The page


def render_page(page: Page) -> bytes:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = _number
    environment.filters["words"] = term_words
    script = _resource("report.js")
    html = environment.from_string(_resource("report.html")).render(
        page=page,
        script=Markup(script),
        integrity=_integrity(script),
        style=Markup(_resource("report.css")),
        palette=PALETTE,
        curve_size=(WIDTH, HEIGHT),
    )
    return printable(html).encode()


def _resource(name: str) -> str:
    return (Path(__file__).parent / "template" / name).read_text(encoding="utf-8").strip()


def printable(text: str) -> str:
    """The same text with a replacement character for what is not UTF-8 in names from the disk."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _integrity(script: str) -> str:
    """What the page's policy asks for, so that only its own script runs."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _number(value: float) -> str:
    """Three digits that matter."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
