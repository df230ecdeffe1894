"""What each part is worth, as the paper's Table 1a asks: trainings without DAE, L_cst, L_sym or D2.

    dagaug sample-data ./cub
    dagaug sample-data ./plenty --pose-band all --per-class 150 --test-per-class 1
    python examples/ablation.py ./cub ./plenty --steps 600

Each row is one training; examples/quality.py measures it by true answers. With --score, dagaug augment and dagaug score
follow, and the gain of the morphs over real images stands beside.
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


def run(*command: object) -> str:
    """Run a command, show what it says, return what it prints."""
    words = [str(word) for word in command]
    Console(stderr=True).print("+ " + " ".join(words))
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout


def gain(run_folder: Path, data: Path) -> str:
    """Points of accuracy that the morphs of a run add, with their 95% interval."""
    file = run_folder / "ablation.h5"
    dagaug = (sys.executable, "-m", "dagaug")
    if not file.exists():
        run(*dagaug, "augment", data, "--refs", 10, "--checkpoint", run_folder, "--out", file, "--quiet")
    result = json.loads(run(*dagaug, "score", data, file, "--arms", "real,real+dagaug", "--seeds", 3, "--json"))
    found = next(one for one in result["comparisons"] if one["arm"] == "real+dagaug")
    mean, low, high = (100 * found["difference"][key] for key in ("mean", "low", "high"))
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"


def main(
    data: Path,
    plenty: Path,
    steps: Annotated[int, typer.Option(help="Of each training.")] = 600,
    out: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("ablation"),
    score: Annotated[bool, typer.Option(help="Also measure the gain.")] = False,
) -> None:
    """Train and measure five times."""
    table = Table("without", "identity", "error", "mask IoU", "faces right", "tilt °", "wing °", "gain")
    for part in PARTS:
        folder = out / (part or "whole")
        switched = ["--without", part] if part else []
        run(sys.executable, "-m", "dagaug", "train", data, "--out", folder, "--steps", steps, *switched, "--quiet")
        printed = run(
            sys.executable, Path(__file__).with_name("quality.py"), folder, data, "--plenty", plenty,
            "--cache", out / "judges", "--sheet", folder / "quality.png",
        )  # fmt: skip
        morph = json.loads(printed.splitlines()[-1])["morph"]
        keys = ("identity", "error", "overlap", "facing", "tilt", "wing")
        table.add_row(part or "–", *(f"{morph[key]:.3g}" for key in keys), gain(folder, data) if score else "")
    Console(width=110).print(table)


if __name__ == "__main__":
    typer.run(main)
