"""`dagaug translate`."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from dagaug.cli.command_inputs import check_early
from dagaug.cli.shared_options import (
    MACHINE,
    STORAGE,
    Checkpoint,
    Device,
    EncodingChoice,
    Json,
    Overwrite,
    Quiet,
    Strict,
    Workers,
)
from dagaug.runtime.errors import DataError, UsageError
from dagaug.runtime.execution_settings import Execution

__all__ = ["translate"]


def translate(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Folder of images of the source domain.")],
    out: Annotated[
        Path, typer.Option(metavar="PATH", help="Folder to write, with the same file names; or an HDF5 file, FILE.h5.")
    ],
    overwrite: Overwrite = False,
    strict: Strict = False,
    as_json: Json = False,
    quiet: Quiet = False,
    checkpoint: Checkpoint = None,
    encoding: Annotated[
        EncodingChoice | None,
        typer.Option(
            help="Encoding of images in an HDF5 file (default: png). Folders always get PNG files.",
            rich_help_panel=STORAGE,
        ),
    ] = None,
    keep_size: Annotated[
        bool,
        typer.Option(
            "--keep-size/--patch-size",
            help="Write images at their original size, or at the patch size.",
            rich_help_panel=STORAGE,
        ),
    ] = True,
    batch_size: Annotated[
        int, typer.Option(min=1, metavar="N", help="Images per batch.", rich_help_panel=MACHINE)
    ] = 64,
    device: Device = "auto",
    workers: Workers = 2,
) -> None:
    """Translate a folder from one domain to another with a model trained on two folders (a preset of Table 4)."""
    check_early(device=device, checkpoint=checkpoint)
    if not source.is_dir():
        raise DataError(f"{source}: no such folder; give a folder of images")
    to_file = out.suffix.lower() in (".h5", ".hdf5")
    if encoding not in (None, "png") and not to_file:
        raise UsageError(
            "only for an HDF5 file; folders get PNG files",
            option="encoding", value=encoding, remedies={"out": "FILE.h5"},
        )  # fmt: skip
    from dagaug.model.run_folders import newest_run

    named = checkpoint or newest_run()
    from dagaug.cli.terminal import Terminal
    from dagaug.model.trained_model import load_model
    from dagaug.translate.folder import translate
    from dagaug.translate.hdf5 import translate_to_file

    terminal = Terminal(as_json=as_json, quiet=quiet)
    run = partial(translate_to_file, encoding=encoding or "png") if to_file else translate
    done = run(
        load_model(named),
        source,
        out,
        batch_size=batch_size,
        keep_size=keep_size,
        overwrite=overwrite,
        execution=Execution(device, workers, strict, terminal),
    )
    lines = [f"{done.images} images translated into {done.out}"]
    lines += [f"{done.found} were already there from an earlier call"] if done.found else []
    lines += [f"{len(done.skipped)} files could not be read; they are listed in {done.out}"] if done.skipped else []
    terminal.result(asdict(done), lines)
