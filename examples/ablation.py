"""Ablation as in the paper's Table 1a: trainings without DAE, L_cst, L_sym or D2.

    dagaug sample-data ./cub
    dagaug sample-data ./plenty --pose-band all --per-class 150 --test-per-class 1
    python examples/ablation.py ./cub ./plenty --steps 600

Each row is one training, measured by examples/quality.py against true answers. With --score, dagaug augment and dagaug
score also measure the gain of the morphs over real images, with --score-seeds trainings of --score-steps steps. The
table is printed after every row. If stopped, the same command resumes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

PARTS = ("", "dae", "cst", "sym", "d2")
MEASURES = {
    "identity": "identity", "error": "error", "overlap": "mask IoU", "facing": "faces right", "tilt": "tilt °",
    "wing": "wing °",
}  # fmt: skip
DAGAUG = (sys.executable, "-m", "dagaug")


def run(*command: object) -> str:
    """Run a command, show its messages, return its output."""
    words = [str(word) for word in command]
    Console(stderr=True).print("+ " + " ".join(words))
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout


def current(made: Path, folder: Path) -> bool:
    """Whether a file exists and is newer than the run's networks."""
    return made.exists() and made.stat().st_mtime >= (folder / "model.safetensors").stat().st_mtime


def quality_of(folder: Path, data: Path, plenty: Path, judges: Path, steps: int | None) -> dict[str, float]:
    """Measures of a finished run's morphs, by examples/quality.py."""
    kept = folder / "quality.json"
    if not current(kept, folder):
        more = [] if steps is None else ["--steps", steps]
        printed = run(
            sys.executable, Path(__file__).with_name("quality.py"), folder, data, "--plenty", plenty,
            "--cache", judges, "--sheet", folder / "quality.png", *more,
        )  # fmt: skip
        kept.write_text(json.dumps(json.loads(printed.splitlines()[-1])["morph"]))
    found: dict[str, float] = json.loads(kept.read_text())
    return found


def gain(folder: Path, data: Path, seeds: int, steps: int | None) -> str:
    """Gain in accuracy (points) by the morphs of a run, with its 95% interval."""
    file = folder / "ablation.h5"
    if not current(file, folder):
        replaced = ["--overwrite"] if file.exists() else []
        run(*DAGAUG, "augment", data, "--refs", 10, "--checkpoint", folder, "--out", file, *replaced, "--quiet")
    more = [] if steps is None else ["--steps", steps]
    printed = run(*DAGAUG, "score", data, file, "--arms", "real,real+dagaug", "--seeds", seeds, *more, "--json")
    found = next(one for one in json.loads(printed)["comparisons"] if one["arm"] == "real+dagaug")
    mean, low, high = (100 * found["difference"][key] for key in ("mean", "low", "high"))
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"


def main(
    data: Path,
    plenty: Path,
    steps: Annotated[int, typer.Option(help="Steps of each training.")] = 600,
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("ablation"),
    score: Annotated[bool, typer.Option(help="Also measure the gain.")] = False,
    score_seeds: Annotated[int, typer.Option(min=2, help="Trainings of each arm in dagaug score.")] = 3,
    score_steps: Annotated[int | None, typer.Option(help="Steps of each (default: that of dagaug score).")] = None,
    judge_steps: Annotated[
        int | None, typer.Option(help="Training steps of the judges (default: that of quality.py).")
    ] = None,
) -> None:
    """Train and measure the whole method and four ablations."""
    rows: list[tuple[str, ...]] = []
    for part in PARTS:
        folder = out / (part or "whole")
        switched = ["--without", part] if part else []
        run(*DAGAUG, "train", data, "--out", folder, "--steps", steps, *switched, "--quiet")
        found = quality_of(folder, data, plenty, out / "judges", judge_steps)
        gained = gain(folder, data, score_seeds, score_steps) if score else ""
        rows.append((part or "–", *(f"{found[name]:.3g}" for name in MEASURES), gained))
        table = Table("without", *MEASURES.values(), "gain", title=f"{len(rows)} of {len(PARTS)} trainings")
        for row in rows:
            table.add_row(*row)
        Console(width=110).print(table)


if __name__ == "__main__":
    typer.run(main)
