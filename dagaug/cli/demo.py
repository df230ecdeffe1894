"""`dagaug demo`."""

from pathlib import Path
from typing import Annotated

import typer

from dagaug.cli.command_inputs import check_early
from dagaug.cli.shared_options import Device, Json, Quiet, Seed
from dagaug.cli.train import write_snapshot
from dagaug.runtime.errors import OutputExistsError
from dagaug.runtime.execution_settings import Execution

__all__ = ["demo"]


def demo(
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Output folder; the same command again continues a stopped run.")
    ] = Path("dagaug-demo"),
    as_json: Json = False,
    quiet: Quiet = False,
    steps: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Number of training steps (default: 480)."),
    ] = None,
    refs: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Number of random references per source."),
    ] = 10,
    seeds: Annotated[
        int,
        typer.Option(min=2, metavar="N", help="Number of trainings per score arm."),
    ] = 3,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Run everything on the built-in birds: data, train, augment, score, report. About 11 minutes on two cores."""
    check_early(device=device)
    if out.exists() and not out.is_dir():
        raise OutputExistsError(f"{out} is a file, but the demo writes a folder", remedies={"out": None})
    import json

    from dagaug.cli.result_text import score_lines, score_table
    from dagaug.cli.terminal import Terminal
    from dagaug.demo import run_demo

    terminal = Terminal(as_json=as_json, quiet=quiet)
    done = run_demo(
        out, steps=steps, refs=refs, seeds=seeds, seed=seed, watch=write_snapshot,
        execution=Execution(device, progress=terminal),
    )  # fmt: skip
    terminal.result(
        {"report": done.report, "sheet": done.sheet, "score": json.loads(done.scored.to_json())},
        [
            *score_lines(done.scored),
            f"{done.augmented.kept} of {done.augmented.candidates} candidates kept: {done.augmented.out}",
            f"Contact sheet of morphs: {done.sheet}",
            f"Report: {done.report}",
        ],
        table=score_table(done.scored),
        next_step=f"open {done.report}, then use your own images: dagaug train DATA",
    )
