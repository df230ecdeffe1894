"""`dagaug export` and `dagaug import`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dagaug.cli.command_inputs import find_input
from dagaug.cli.shared_options import ExportChoice, Json, Overwrite, Quiet, StoreFile

if TYPE_CHECKING:
    from dagaug.exchange.reimport import Imported

__all__ = ["export", "import_"]


def export(
    file: StoreFile,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder to write.")],
    to: Annotated[
        ExportChoice,
        typer.Option(
            metavar="FORMAT",
            help="Format: imagefolder (class folders), webdataset (tar shards), csv (a table with image files), coco "
            "(annotations with boxes and masks), or yolo (labels with boxes).",
        ),
    ] = "imagefolder",
    synthetic_only: Annotated[bool, typer.Option("--synthetic-only", help="Leave out the real images.")] = False,
    shard_images: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Number of images per tar file of a webdataset (default: 1,000)."),
    ] = None,
    masks: Annotated[
        bool,
        typer.Option(
            "--masks", help="Write the objects' masks (PNG) to the folder masks, too; for imagefolder and csv."
        ),
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write the images for other tools, byte for byte, with labels, splits and provenance."""
    from dagaug.cli.terminal import Terminal
    from dagaug.exchange.export import export

    terminal = Terminal(as_json=as_json, quiet=quiet)
    done = export(
        find_input(file, quiet=quiet).path,
        out,
        to=to,
        synthetic_only=synthetic_only,
        shard_images=shard_images,
        masks=masks,
        overwrite=overwrite,
        progress=terminal,
    )
    lines = [f"{done.images} images ({done.real} real, {done.synthetic} synthetic) in {done.out}"]
    if done.boxes or done.masks:
        counts = ((done.boxes, "boxes"), (done.masks, "masks"))
        lines.append(f"Objects: {', '.join(f'{count} {what}' for count, what in counts if count)}")
    if done.left_out:
        lines.append(f"{done.left_out} images are left out, because the box of their object is unknown")
    if masks and done.masks < done.images:
        lines.append(f"{done.images - done.masks} images have no mask, because it is unknown")
    lines += [f"Class {name!r} is written as {written!r}" for name, written in done.renamed]
    terminal.result(asdict(done), lines, next_step=f"read it with other tools; back: dagaug import {out} --out FILE.h5")


def import_(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder written by dagaug export, in any of its formats.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="HDF5 file to write.")],
    overwrite: Overwrite = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop if an exported image is missing, or a file cannot be taken in.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Rebuild the HDF5 file of an exported folder, with the images that were deleted, moved or added by hand."""
    from dagaug.cli.terminal import Terminal
    from dagaug.exchange.reimport import reimport

    terminal = Terminal(as_json=as_json, quiet=quiet)
    done = reimport(folder, out, overwrite=overwrite, strict=strict, progress=terminal)
    lines = [f"{done.images} images ({done.real} real, {done.synthetic} synthetic) in {done.out}"]
    terminal.result(asdict(done), [*lines, *_change_lines(done, folder)], next_step=f"dagaug score DATA {out}")


def _change_lines(done: "Imported", folder: Path) -> list[str]:
    """What was changed in the folder by hand, a line each."""
    told = [
        (done.removed, f"exported images are missing from {folder}; they are left out"),
        (done.relabelled, "images were moved to other classes and have their labels now"),
        (done.resplit, "images were moved to the other split"),
        (done.added, "images are new: taken in as real images of unknown origin"),
        (done.transparent, "of them have transparent pixels, which are laid over white"),
        (done.outdated, "synthetic images keep the class that their source had before it was moved"),
    ]
    lines = [f"{count} {text}" for count, text in told if count]
    if done.left_out:
        first = done.left_out[0]
        lines.append(f"{len(done.left_out)} files are left out; the first: {first.path}: {first.reason}")
    if done.changed_real or done.added:
        lines.append("dagaug score and metrics read real images and labels from DATA; make these changes there, too")
    return lines
