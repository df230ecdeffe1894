"""What the folder of a training run shows: its curves, sample sheets, attended regions and options."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dagaug.data import image_files as imaging
from dagaug.report import pictures
from dagaug.report.svg_plots import Curve, draw, read_metrics
from dagaug.runtime.errors import DataError, ImageError

__all__ = ["Picture", "Training", "data_uri", "read_training", "run_options"]

_SHEETS = 4


_SHEETS_BYTES = 1_300_000


_SHEET_SIDES = (1400, 1000, 700, 350)


_QUALITIES = (88, 75, 60)


@dataclass(frozen=True)
class Picture:
    """A picture to embed, with its size in pixels."""

    caption: str
    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Training:
    """What a run's folder shows of its training."""

    curves: tuple[Curve, ...] = ()
    explained: str = ""
    newest: Picture | None = None
    earlier: tuple[Picture, ...] = ()
    sheets_total: int = 0
    attention: Picture | None = None


def read_training(run: Path) -> Training:
    """Read what there is; a young run may have little of it.

    Raises:
        DataError: no such folder, or a file in it cannot be read.
    """
    if not run.is_dir():
        raise DataError(f"{run}: no such run; train one first: dagaug train DATA")
    sheets = sorted((run / "sheets").glob("*.png"))
    shown = [sheets[place] for place in _evenly(len(sheets), _SHEETS)]
    attention = run / "attention.png"
    try:
        pictures = [_picture(path, _step_of(path), _SHEETS_BYTES // _SHEETS) for path in shown]
        drawn, explained = _curves(run / "metrics.jsonl")
        return Training(
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


def _curves(path: Path) -> tuple[tuple[Curve, ...], str]:
    if not path.is_file():
        return (), ""
    metrics = read_metrics(path)
    explained = "Each line is the mean over short stretches of steps, the band their smallest and largest values."
    if metrics.unreadable:
        explained += f" Lines of metrics.jsonl that could not be read: {metrics.unreadable:,}."
    return tuple(draw(metrics)), explained


def _evenly(count: int, most: int) -> list[int]:
    """Up to ``most`` places among ``count``, the first and the last with them."""
    if count <= most:
        return list(range(count))
    return sorted({round(place) for place in np.linspace(0, count - 1, most).tolist()})


def _step_of(path: Path) -> str:
    """``step-000500`` as people write it; another name as it is."""
    name, _, digits = path.stem.partition("-")
    return f"step {int(digits):,}" if name == "step" and digits.isdecimal() else path.stem


def _picture(path: Path, caption: str, budget: int) -> Picture:
    """Embed a picture; as good as the budget of bytes allows."""
    image = imaging.decode(path)
    attempts = [(side, quality) for side in _SHEET_SIDES for quality in _QUALITIES]
    for side, quality in attempts:  # the last stands where none fits
        data = pictures.encoded_small(image, side, quality)
        if len(data) * 4 / 3 <= budget:
            break
    scale = min(1.0, side / max(image.shape[:2]))
    height, width = (max(1, round(length * scale)) for length in image.shape[:2])
    return Picture(caption, data_uri(data), width, height)


def run_options(run: Path) -> Mapping[str, object]:
    """The resolved options of the training; empty where there are none.

    Raises:
        DataError: their file cannot be read.
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
    """A picture as an address that needs no file."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
