"""The HTML page: its content as one record, and the rendering of the template."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
from markupsafe import Markup

from dagaug.report.loss_curves import HEIGHT, WIDTH
from dagaug.report.page_content import CandidateCounts, CloudSection, MorphSection
from dagaug.report.palette import PALETTE
from dagaug.report.score_view import ScoreView
from dagaug.report.shots_view import ShotsView
from dagaug.report.training_run import TrainingView
from dagaug.report.wording import term_description

__all__ = ["Page", "installed_version", "printable", "render_page"]


@dataclass(frozen=True)
class Page:
    """Content of a page. Parts that are None or empty have no section."""

    kind: str
    title: str
    about: str
    version: str
    provenance: tuple[tuple[str, str], ...]
    options: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    skipped_total: int = 0
    score: ScoreView | None = None
    shots: ShotsView | None = None
    counts: CandidateCounts | None = None
    morphs: MorphSection | None = None
    cloud: CloudSection | None = None
    cloud_missing: str = ""
    training: TrainingView = field(default_factory=TrainingView)


def installed_version() -> str:
    """Name and version of the installed package."""
    try:
        return f"dagaug {importlib.metadata.version('dagaug')}"
    except importlib.metadata.PackageNotFoundError:
        return "dagaug"


def render_page(page: Page) -> bytes:
    """The page as HTML. Everything is escaped; equal pages give equal bytes."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = _number
    environment.filters["words"] = term_description
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
    """The text with a replacement character for each byte of a file name that is not UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _integrity(script: str) -> str:
    """Hash of the script for the content security policy: the page runs no other script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _number(value: float) -> str:
    """A number with three significant digits."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
