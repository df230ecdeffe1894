"""`dagaug export` and `dagaug import`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from dagaug.cli.parameters import ExportForm, Json, Overwrite, Quiet
from dagaug.cli.terminal import Terminal

__all__ = ["export", "import_"]


def export(
    file: Annotated[Path, typer.Argument(help="HDF5 file of dagaug augment.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    to: Annotated[
        ExportForm, typer.Option(help="Class folders, tar shards of WebDataset, or a table with image files.")
    ] = ExportForm.imagefolder,
    synthetic_only: Annotated[bool, typer.Option("--synthetic-only", help="Leave the real images out.")] = False,
    shard_images: Annotated[
        int | None, typer.Option(min=1, help="Images in one tar of a webdataset; 1,000 by default.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write the images for other tools, byte for byte, with labels, splits and where each comes from."""
    from dagaug.exchange.export import export

    terminal = Terminal(as_json=as_json, quiet=quiet)
    done = export(
        file,
        out,
        to=to.value,
        synthetic_only=synthetic_only,
        shard_images=shard_images,
        overwrite=overwrite,
        progress=terminal,
    )
    lines = [f"{done.images} images ({done.real} real, {done.synthetic} synthetic) in {done.out}"]
    lines += [f"The class {name!r} is written as {written!r}" for name, written in done.renamed]
    terminal.result(asdict(done), lines, next_step=f"read it with other tools; back: dagaug import {out} --out FILE.h5")


def import_(
    folder: Annotated[Path, typer.Argument(help="Folder of dagaug export, of any form.")],
    out: Annotated[Path, typer.Option(help="HDF5 file to write.")],
    overwrite: Overwrite = False,
    strict: Annotated[bool, typer.Option("--strict", help="An image that was deleted is an error.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make the HDF5 file again that a folder was exported from, without the images that were deleted from it."""
    from dagaug.exchange.reimport import reimport

    terminal = Terminal(as_json=as_json, quiet=quiet)
    done = reimport(folder, out, overwrite=overwrite, strict=strict, progress=terminal)
    lines = [f"{done.images} images ({done.real} real, {done.synthetic} synthetic) in {done.out}"]
    if done.removed:
        lines.append(f"{done.removed} images were exported and are no longer in {folder}; they are left out")
    terminal.result(asdict(done), lines, next_step=f"dagaug score DATA {out}")
