"""All measurements of one data set in examples/results.md: morphs against true answers, and the score.

    python examples/reach.py narrow               # built-in birds of one narrow band of poses
    python examples/reach.py mixed --gans 1       # those of mixed poses
    python examples/reach.py AIRCRAFT --per-class 10 --own-pixels 0.9 --steps 900 --pairs AIRCRAFT/pairs.csv
    python examples/reach.py narrow --gans 1 --steps 3 --refs 2 --seeds 2 --score-steps 5 --judge-steps 5  # a test

--gans networks are trained one after another; each makes morphs, which examples/quality.py measures. Then dagaug score
compares real images, the morphs of all networks and the controls; for the built-in
birds also true answers. If stopped, the same command resumes. A data set takes about two hours on one core, mostly for
the score.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from dagaug.score.statistics import paired_difference

DAGAUG = (sys.executable, "-m", "dagaug")
EXAMPLES = Path(__file__).parent
SEED_OF = {"narrow": 0, "mixed": 7}  # of the birds in examples/results.md
SCORE_ARMS = "real,real+dagaug,cutout,cutwarp,cutout+dagaug"
BASELINES = ("real", "cutout", "cutwarp")
MEASURES = {
    "identity": "identity", "error": "error", "overlap": "mask IoU", "facing": "faces right", "tilt": "tilt °",
    "wing": "wing °",
}  # fmt: skip
ANSWERS = ("copy of the source", "copy of the reference", "truth")


def run(*command: object) -> str:
    """Run a command, show its messages, return its output."""
    words = [str(word) for word in command]
    Console(stderr=True).print("+ " + " ".join(words))
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout


def birds(band: str, out: Path) -> tuple[Path, Path]:
    """Create a folder of built-in birds, and one with many more birds of the same species in all poses."""
    data, plenty = out / "birds", out / "plenty"
    seed = SEED_OF[band]
    run(*DAGAUG, "sample-data", data, "--pose-band", band, "--seed", seed)
    run(*DAGAUG, "sample-data", plenty, "--pose-band", "all", "--per-class", 150, "--test-per-class", 1, "--seed", seed)
    return data, plenty


def show_quality(found: list[dict[str, dict[str, float]]]) -> None:
    """Print the measures against true answers: of the copies, of each GAN's morphs, and of the truth."""
    table = Table("answer", *MEASURES.values(), title="Against true answers")

    def add(name: str, measures: dict[str, float]) -> None:
        table.add_row(name, *(f"{measures[key]:.3g}" if key in measures else "" for key in MEASURES))

    for name in ANSWERS[:2]:
        add(name, found[0][name])
    for number, one in enumerate(found):
        add(f"morphs of GAN {number}", one["morph"])
    add(ANSWERS[2], found[0][ANSWERS[2]])
    Console(width=110).print(table)


def show_score(result: dict[str, Any], gans: list[str]) -> None:
    """Print the accuracy of each arm and of the mean over the GANs, and the paired differences from the baselines."""
    accuracies = {str(arm["arm"]): np.array(arm["accuracies"]) for arm in result["arms"]}
    if len(gans) > 1:
        accuracies["mean of the GANs"] = np.mean([accuracies[name] for name in gans], axis=0)
    seeds = len(accuracies["real"])
    table = Table("arm", "accuracy", *(f"against {name}" for name in BASELINES), title=f"{seeds} seeds, 95% intervals")
    for name, values in accuracies.items():
        cells = []
        for baseline in BASELINES:
            found, _ = paired_difference(values.tolist(), accuracies[baseline].tolist(), resolution=1 / result["test"])
            difference = f"{100 * found.mean:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"
            cells.append("" if name == baseline else difference)
        table.add_row(name, f"{values.mean():.1%}", *cells)
    Console(width=110).print(table)


def main(
    data: Annotated[str, typer.Argument(help="narrow or mixed (built-in birds), or a data folder.")],
    pairs: Annotated[
        Path | None, typer.Option(help="CSV of pairs with true answers; needed for a data folder.")
    ] = None,
    gans: Annotated[int, typer.Option(min=1, help="Number of DA-GAN trainings, with the seeds 0, 1, …")] = 3,
    steps: Annotated[int, typer.Option(help="Steps of each DA-GAN training.")] = 960,
    per_class: Annotated[int | None, typer.Option(help="Use only the first N training images of each class.")] = None,
    own_pixels: Annotated[float, typer.Option(help="Option of dagaug train.")] = 0.0,
    refs: Annotated[int, typer.Option(help="References for each source.")] = 10,
    seeds: Annotated[int, typer.Option(min=2, help="Trainings of each arm in dagaug score.")] = 5,
    score_steps: Annotated[int | None, typer.Option(help="Steps of each (default: that of dagaug score).")] = None,
    judge_steps: Annotated[
        int | None, typer.Option(help="Training steps of the judges (default: that of quality.py).")
    ] = None,
    out: Annotated[Path, typer.Option(help="Output folder, with a sub-folder for each data set.")] = Path("reach"),
) -> None:
    """Measure one data set."""
    built_in = data in SEED_OF
    if not built_in and pairs is None:
        raise typer.BadParameter(f"{data} is neither narrow nor mixed: a data folder needs --pairs")
    out = out / Path(data).name
    out.mkdir(parents=True, exist_ok=True)
    folder, plenty = birds(data, out) if built_in else (Path(data), Path(data))
    only = [] if per_class is None else ["--per-class", per_class]
    pixels = ["--own-pixels", own_pixels] if own_pixels else []
    files, found = [], []
    for seed in range(gans):
        made, file = out / f"run{seed}", out / f"gan{seed}.h5"
        run(*DAGAUG, "train", folder, "--out", made, "--steps", steps, "--seed", seed, *only, *pixels, "--quiet")
        if not file.exists():
            run(*DAGAUG, "augment", folder, "--refs", refs, "--checkpoint", made, "--out", file, "--quiet")
        files.append(file)
        asked = [] if pairs is None else ["--pairs", pairs]
        more = [] if judge_steps is None else ["--steps", judge_steps]
        printed = run(
            sys.executable, EXAMPLES / "quality.py", made, folder, "--plenty", plenty, "--cache", out / "judges",
            "--sheet", out / f"gan{seed}.png", *asked, *more,
        )  # fmt: skip
        found.append(json.loads(printed.splitlines()[-1]))
        show_quality(found)
    others = {f"gan{seed}": file for seed, file in enumerate(files) if seed}
    names = ["real+dagaug", *others]
    if built_in:
        others["truth"] = truth = out / "truth"
        if not truth.exists():
            unfinished = out / "truth.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            run(sys.executable, EXAMPLES / "true_answers.py", files[0], folder, unfinished)
            unfinished.rename(truth)
    arms = [word for name, path in others.items() for word in ("--arm", f"{name}={path}")]
    more = [] if score_steps is None else ["--steps", score_steps]
    printed = run(
        *DAGAUG, "score", folder, files[0], "--arms", SCORE_ARMS, *arms, "--seeds", seeds, *more,
        "--out", out / "score.json", "--json",
    )  # fmt: skip
    show_score(json.loads(printed), names)


if __name__ == "__main__":
    typer.run(main)
