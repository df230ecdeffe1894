"""`dagaug translate`."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from dagaug.cli.parameters import Checkpoint, Device, Encoding, Json, Overwrite, Quiet, Strict, Workers
from dagaug.cli.terminal import Terminal
from dagaug.runtime.errors import UsageError

__all__ = ["translate"]


def translate(
    source: Annotated[Path, typer.Argument(help="Folder of images of the source domain.")],
    out: Annotated[Path, typer.Option(help="Folder to write, with the same file names; or an HDF5 file, FILE.h5.")],
    checkpoint: Checkpoint = None,
    encoding: Annotated[
        Encoding | None, typer.Option(help="How an HDF5 file stores images, png by default; folders get PNG files.")
    ] = None,
    keep_size: Annotated[bool, typer.Option("--keep-size/--patch-size", help="Write images in their own size.")] = True,
    batch_size: Annotated[int, typer.Option(min=1, help="Images computed at a time.")] = 64,
    device: Device = "auto",
    workers: Workers = 2,
    overwrite: Overwrite = False,
    strict: Strict = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Translate a folder from one domain to another with a model trained on two folders (a preset of Table 4)."""
    from dagaug.model.checkpoint import newest_run
    from dagaug.model.trained_model import load_model
    from dagaug.translate.folder import translate
    from dagaug.translate.hdf5 import translate_to_file

    terminal = Terminal(as_json=as_json, quiet=quiet)
    to_file = out.suffix.lower() in (".h5", ".hdf5")
    if encoding not in (None, Encoding.png) and not to_file:
        raise UsageError(f"--encoding {encoding}: only for an HDF5 file (--out FILE.h5); folders get PNG files")
    run = partial(translate_to_file, encoding=(encoding or Encoding.png).value) if to_file else translate
    done = run(
        load_model(checkpoint or newest_run()),
        source,
        out,
        device=device,
        workers=workers,
        batch_size=batch_size,
        keep_size=keep_size,
        overwrite=overwrite,
        strict=strict,
        progress=terminal,
    )
    lines = [f"{done.images} images translated into {done.out}"]
    lines += [f"{done.found} were there from an earlier call"] if done.found else []
    lines += [f"{len(done.skipped)} files could not be read; they are listed in {done.out}"] if done.skipped else []
    terminal.result(asdict(done), lines)
