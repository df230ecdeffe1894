"""`dagaug sample-data`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dagaug.cli.parameters import Band, Json, Quiet, Seed
from dagaug.cli.terminal import Terminal

__all__ = ["sample_data"]


# ---- commands


def sample_data(
    directory: Annotated[Path, typer.Argument(help="Where to write; a new or empty folder.")],
    species: Annotated[int, typer.Option(min=2, max=200, help="Number of species.")] = 20,
    per_class: Annotated[int, typer.Option(min=1, help="Training images of each species.")] = 12,
    test_per_class: Annotated[int, typer.Option(min=1, help="Test images of each species.")] = 50,
    size: Annotated[int, typer.Option(min=32, max=512, help="Side of the images in pixels.")] = 64,
    pose_band: Annotated[
        Band, typer.Option(help="Training poses: one narrow band for each species, 70% in it, or all. Tests show all.")
    ] = Band.narrow,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write the built-in birds: procedural species in known poses, in the CUB-200-2011 layout."""
    from dagaug.birds.dataset import write_flock

    terminal = Terminal(as_json=as_json, quiet=quiet)
    write_flock(
        directory,
        species=species,
        per_class=per_class,
        test_per_class=test_per_class,
        size=size,
        pose_band=pose_band.value,
        seed=seed,
        progress=terminal,
    )
    terminal.result(
        {"data": directory, "species": species, "train": species * per_class, "test": species * test_per_class},
        [f"{species} species: {species * per_class} training, {species * test_per_class} test images in {directory}"],
        next_step=f"dagaug train {directory}",
    )
