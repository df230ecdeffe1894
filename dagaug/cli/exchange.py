"""`dagaug export` and `dagaug import`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from dagaug.cli.shared_options import ExportChoice, Json, Overwrite, Quiet, StoreFile

__all__ = ["export", "import_"]


def export(
    file: StoreFile,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder to write.")],
    to: Annotated[
        ExportChoice,
        typer.Option(
            metavar="FORMAT",
            help="Format: imagefolder (class folders), webdataset (tar shards), or csv (a table with image files).",
        ),
    ] = "imagefolder",
    synthetic_only: Annotated[bool, typer.Option("--synthetic-only", help="Leave out the real images.")] = False,
    shard_images: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Number of images per tar file of a webdataset (default: 1,000)."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write the images for other tools, byte for byte, with labels, splits and provenance."""
    from dagaug.cli.terminal import Terminal
    from dagaug.exchange.export import export

    terminal = Terminal(as_json=as_json, quiet=quiet)
    done = export(
        file,
        out,
        to=to,
        synthetic_only=synthetic_only,
        shard_images=shard_images,
        overwrite=overwrite,
        progress=terminal,
    )
    lines = [f"{done.images} images ({done.real} real, {done.synthetic} synthetic) in {done.out}"]
    lines += [f"Class {name!r} is written as {written!r}" for name, written in done.renamed]
    terminal.result(asdict(done), lines, next_step=f"read it with other tools; back: dagaug import {out} --out FILE.h5")


def import_(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder written by dagaug export, in any of its formats.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="HDF5 file to write.")],
    overwrite: Overwrite = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop if an exported image is missing.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Rebuild the HDF5 file of an exported folder, without the images deleted from the folder."""
    from dagaug.cli.terminal import Terminal
    from dagaug.exchange.reimport import reimport

    terminal = Terminal(as_json=as_json, quiet=quiet)
    done = reimport(folder, out, overwrite=overwrite, strict=strict, progress=terminal)
    lines = [f"{done.images} images ({done.real} real, {done.synthetic} synthetic) in {done.out}"]
    if done.removed:
        lines.append(f"{done.removed} exported images are missing from {folder}; they are left out")
    terminal.result(asdict(done), lines, next_step=f"dagaug score DATA {out}")
