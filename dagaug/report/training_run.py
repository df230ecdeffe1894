"""Content of a run folder for the report: loss curves, sample sheets, attended regions and options."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dagaug.data.image_files import decode
from dagaug.report.loss_curves import LossCurve, loss_curves, read_metrics
from dagaug.report.morph_images import encode_thumbnail
from dagaug.runtime.errors import DataError, ImageError

__all__ = ["EmbeddedImage", "TrainingView", "data_uri", "read_training", "run_options"]

_SHEETS = 4


_SHEETS_BYTES = 1_300_000


_SHEET_SIDES = (1400, 1000, 700, 350)


_QUALITIES = (88, 75, 60)


@dataclass(frozen=True)
class EmbeddedImage:
    """An image embedded in the page, with its size in pixels."""

    caption: str
    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class TrainingView:
    """Content of a run folder, ready for the page."""

    curves: tuple[LossCurve, ...] = ()
    explained: str = ""
    newest: EmbeddedImage | None = None
    earlier: tuple[EmbeddedImage, ...] = ()
    sheets_total: int = 0
    attention: EmbeddedImage | None = None


def read_training(run: Path) -> TrainingView:
    """Read a run folder; files that do not exist yet are left out.

    Raises:
        DataError: the folder does not exist, or a file in it cannot be read.
    """
    if not run.is_dir():
        raise DataError(f"{run}: no such run; train one first: dagaug train DATA")
    sheets = sorted((run / "sheets").glob("*.png"))
    shown = [sheets[place] for place in _evenly_spaced(len(sheets), _SHEETS)]
    attention = run / "attention.png"
    try:
        pictures = [_picture(path, _step_of(path), _SHEETS_BYTES // _SHEETS) for path in shown]
        drawn, explained = _curves(run / "metrics.jsonl")
        return TrainingView(
            curves=drawn,
            explained=explained,
            newest=pictures[-1] if pictures else None,
            earlier=tuple(pictures[:-1]),
            sheets_total=len(sheets),
            attention=_picture(attention, "", _SHEETS_BYTES // _SHEETS) if attention.is_file() else None,
        )
    except OSError as error:
        raise DataError(f"{error.filename or run}: cannot be read ({error.strerror})") from error
    except ImageError as error:
        raise DataError(f"{error}; delete it, or train again") from error


def _curves(path: Path) -> tuple[tuple[LossCurve, ...], str]:
    if not path.is_file():
        return (), ""
    metrics = read_metrics(path)
    explained = "Line: mean over bins of steps. Band: smallest and largest value of each bin."
    if metrics.unreadable:
        explained += f" Unreadable lines of metrics.jsonl: {metrics.unreadable:,}."
    return tuple(loss_curves(metrics)), explained


def _evenly_spaced(count: int, most: int) -> list[int]:
    """Up to ``most`` evenly spaced indices below ``count``, including the first and the last."""
    if count <= most:
        return list(range(count))
    return sorted({round(place) for place in np.linspace(0, count - 1, most).tolist()})


def _step_of(path: Path) -> str:
    """``step-000500`` as "step 500"; another name unchanged."""
    name, _, digits = path.stem.partition("-")
    return f"step {int(digits):,}" if name == "step" and digits.isdecimal() else path.stem


def _picture(path: Path, caption: str, budget: int) -> EmbeddedImage:
    """Embed an image at the best quality that fits ``budget`` bytes."""
    image = decode(path)
    attempts = [(side, quality) for side in _SHEET_SIDES for quality in _QUALITIES]
    for side, quality in attempts:  # if none fits, the last one is used
        data = encode_thumbnail(image, side, quality)
        if len(data) * 4 / 3 <= budget:
            break
    scale = min(1.0, side / max(image.shape[:2]))
    height, width = (max(1, round(length * scale)) for length in image.shape[:2])
    return EmbeddedImage(caption, data_uri(data), width, height)


def run_options(run: Path) -> Mapping[str, object]:
    """The resolved options of a training; empty if the run has none yet.

    Raises:
        DataError: the options file cannot be read.
    """
    path = run / "options.json"
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); train again or restore it") from error
    return found if isinstance(found, dict) else {}


def data_uri(jpeg: bytes) -> str:
    """A JPEG image as a data URI."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
