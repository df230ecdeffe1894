"""`dagaug sample-data`."""

from pathlib import Path
from typing import Annotated

import typer

from dagaug.cli.shared_options import Json, PoseBandChoice, Quiet, Seed

__all__ = ["sample_data"]


def sample_data(
    directory: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder to write; new or empty.")],
    species: Annotated[int, typer.Option(min=2, max=200, metavar="N", help="Number of species.")] = 20,
    per_class: Annotated[int, typer.Option(min=1, metavar="N", help="Number of training images per species.")] = 12,
    test_per_class: Annotated[int, typer.Option(min=1, metavar="N", help="Number of test images per species.")] = 50,
    size: Annotated[int, typer.Option(min=32, max=512, metavar="N", help="Side of the images, in pixels.")] = 64,
    pose_band: Annotated[
        PoseBandChoice,
        typer.Option(
            metavar="RANGE",
            help="Poses in the training images: narrow (one small range per species), mixed (70% in that range), or "
            "all. Test images always show all poses.",
        ),
    ] = "narrow",
    as_json: Json = False,
    quiet: Quiet = False,
    seed: Seed = 0,
) -> None:
    """Write the built-in birds: procedural species in known poses, in the CUB-200-2011 layout."""
    from dagaug.birds.dataset import write_flock
    from dagaug.cli.terminal import Terminal

    terminal = Terminal(as_json=as_json, quiet=quiet)
    write_flock(
        directory,
        species=species,
        per_class=per_class,
        test_per_class=test_per_class,
        size=size,
        pose_band=pose_band,
        seed=seed,
        progress=terminal,
    )
    terminal.result(
        {"data": directory, "species": species, "train": species * per_class, "test": species * test_per_class},
        [f"{species} species: {species * per_class} training, {species * test_per_class} test images in {directory}"],
        next_step=f"dagaug train {directory}",
    )
