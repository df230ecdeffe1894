"""`dagaug demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dagaug.cli.parameters import Device, Json, Quiet, Seed
from dagaug.cli.tables import score_lines, score_table
from dagaug.cli.terminal import Terminal
from dagaug.cli.train import write_snapshot

__all__ = ["demo"]


def demo(
    out: Annotated[Path, typer.Option(help="Folder to write; the same command again goes on.")] = Path("dagaug-demo"),
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps, 480 by default.")] = None,
    refs: Annotated[int, typer.Option(min=1, help="References for each source.")] = 10,
    seeds: Annotated[int, typer.Option(min=2, help="Trainings of each arm of the score.")] = 3,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """The whole way on the built-in birds: data, train, augment, score, report. About eleven minutes on two cores."""
    import json

    from dagaug.demo import run_demo

    terminal = Terminal(as_json=as_json, quiet=quiet)
    done = run_demo(
        out, steps=steps, refs=refs, seeds=seeds, seed=seed, device=device, watch=write_snapshot, progress=terminal
    )
    terminal.result(
        {"report": done.report, "sheet": done.sheet, "score": json.loads(done.scored.to_json())},
        [
            *score_lines(done.scored),
            f"{done.augmented.kept} of {done.augmented.candidates} candidates kept: {done.augmented.out}",
            f"Pictures of morphs: {done.sheet}",
            f"Report: {done.report}",
        ],
        table=score_table(done.scored),
        next_step=f"open {done.report}, then your own images: dagaug train DATA",
    )
