"""Comparison of selection rules: sets of equal size, chosen by each rule from the same candidates, are scored.

    python examples/selection.py ./cub runs/cub
    python examples/selection.py ./cub runs/cub --seeds 2 --steps 5 --policies random,per-image   # a test

dagaug augment stores all candidates (--keep all --min-confidence 0). Each rule then chooses --count of them (default:
the number of sources, as the paper's rule does) and writes them to class folders. dagaug score trains on each set,
paired by seed. The rules:

    random         random candidates
    recognised     random among those that the classifier assigns to the source's class
    per-reference  random among the most confident candidates of each source and reference
    per-image      the most confident of each source (the paper's rule); with a larger --count the most confident few
    sure, middle, unsure   random among the third of all candidates with the highest, middle, lowest confidence
    balanced       recognised, in equal numbers for each class
    diverse        balanced, each chosen as the least similar to those of its class so far (8 x 8 pixels)

A table is printed after two seeds and after each further one. If stopped, the same command resumes.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from dagaug.augment.selection import KEPT, select
from dagaug.hdf5.reader import Store
from dagaug.score.statistics import paired_difference

DAGAUG = (sys.executable, "-m", "dagaug")
PREFIX = "by-"  # dagaug score already has an arm named random
SIDE = 8  # pixels of the thumbnails that similarity is measured on


@dataclass(frozen=True)
class Pool:
    """All candidates, as columns; ``looks`` has the thumbnail of each as a vector."""

    source: np.ndarray
    reference: np.ndarray
    label: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    looks: np.ndarray

    def best(self, keep: str) -> np.ndarray:
        """Rows that a selection rule of dagaug augment keeps, regardless of their predicted class."""
        columns = ("source", "reference", "label", "predicted", "confidence")
        verdict = select(**{name: getattr(self, name) for name in columns}, keep=keep)
        return np.flatnonzero(verdict == KEPT)

    @property
    def recognised(self) -> np.ndarray:
        """Rows that the classifier assigns to the source's class."""
        return np.flatnonzero(self.predicted == self.label)


def draw(rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """``count`` random rows, or all if there are fewer."""
    return rng.choice(rows, min(count, len(rows)), replace=False)


def surest_of_sources(pool: Pool, count: int, rng: np.random.Generator) -> np.ndarray:
    """The most confident of each source, then the second of each, and so on; a random part of the last round."""
    order = np.lexsort((-pool.confidence, pool.source))
    first = np.searchsorted(pool.source[order], pool.source[order])
    round_of = np.empty(len(order), np.int64)
    round_of[order] = np.arange(len(order)) - first
    return np.lexsort((rng.random(len(order)), round_of))[:count]


def third(pool: Pool, number: int) -> np.ndarray:
    """The third of all candidates with the lowest (0) to the highest (2) confidence."""
    return np.array_split(np.argsort(pool.confidence, kind="stable"), 3)[number]


def by_class(pool: Pool, count: int, choose: Callable[[np.ndarray, int], np.ndarray]) -> np.ndarray:
    """Recognised candidates in equal numbers for each class, the remainder from the first classes."""
    labels, rows = np.unique(pool.label), pool.recognised
    shares = [len(part) for part in np.array_split(np.arange(count), len(labels))]
    return np.concatenate(
        [choose(rows[pool.label[rows] == label], share) for label, share in zip(labels, shares, strict=True)]
    )


def farthest_first(pool: Pool, rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """A random row, then repeatedly the row with the largest distance to its nearest chosen row."""
    if not len(rows):
        return rows
    taken = [int(rng.integers(len(rows)))]
    looks = pool.looks[rows]
    nearest = np.full(len(rows), np.inf)
    while len(taken) < min(count, len(rows)):
        nearest = np.minimum(nearest, np.square(looks - looks[taken[-1]]).sum(1))
        taken.append(int(nearest.argmax()))
    return rows[taken]


POLICIES: dict[str, Callable[[Pool, int, np.random.Generator], np.ndarray]] = {
    "random": lambda pool, count, rng: draw(np.arange(len(pool.label)), count, rng),
    "recognised": lambda pool, count, rng: draw(pool.recognised, count, rng),
    "per-reference": lambda pool, count, rng: draw(pool.best("per-reference"), count, rng),
    "per-image": surest_of_sources,
    "sure": lambda pool, count, rng: draw(third(pool, 2), count, rng),
    "middle": lambda pool, count, rng: draw(third(pool, 1), count, rng),
    "unsure": lambda pool, count, rng: draw(third(pool, 0), count, rng),
    "balanced": lambda pool, count, rng: by_class(pool, count, lambda rows, share: draw(rows, share, rng)),
    "diverse": lambda pool, count, rng: by_class(
        pool, count, lambda rows, share: farthest_first(pool, rows, share, rng)
    ),
}
DEFAULT = "random,per-reference,per-image,sure,unsure,balanced,diverse"


def run(*command: object) -> str:
    """Run a command, show its messages, return its output."""
    words = [str(word) for word in command]
    Console(stderr=True).print("+ " + " ".join(words))
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout


def read_pool(store: Store) -> tuple[np.ndarray, Pool]:
    """Rows of the synthetic images in the file, and the pool of them."""
    table = store.images
    rows = np.flatnonzero(table.synthetic)
    looks = [
        cv2.resize(store.image(row), (SIDE, SIDE), interpolation=cv2.INTER_AREA).ravel() / np.float32(255)
        for row in track(rows.tolist(), "Reading candidates")
    ]
    columns = ("source", "reference", "label", "predicted", "confidence")
    return rows, Pool(*(getattr(table, name)[rows] for name in columns), np.stack(looks))


def write_sets(file: Path, names: list[str], count: int | None, seed: int, folder: Path) -> dict[str, Path]:
    """Write a folder of class folders for each policy, with the stored bytes."""
    sets = {name: folder / name for name in names}
    with Store(file) as store:
        rows, pool = read_pool(store)
        suffix = ".jpg" if store.header.encoding == "jpeg" else ".png"
        wanted = count or len(np.unique(pool.source))
        for name, target in sets.items():
            chosen = POLICIES[name](pool, wanted, np.random.default_rng([seed, list(POLICIES).index(name)]))
            shutil.rmtree(target, ignore_errors=True)
            for place in np.sort(chosen).tolist():
                parent = target / store.classes[int(pool.label[place])]
                parent.mkdir(parents=True, exist_ok=True)
                (parent / f"{rows[place]:06d}{suffix}").write_bytes(store.encoded(int(rows[place])))
    return sets


def show(result: dict[str, Any], baseline: str) -> None:
    """Print a table of all policies."""
    accuracies = {
        str(arm["arm"]).removeprefix(PREFIX): (arm["images"], np.array(arm["accuracies"])) for arm in result["arms"]
    }
    seeds = len(accuracies["real"][1])
    table = Table("policy", "images", "accuracy", f"against {baseline} (95% interval)", title=f"{seeds} seeds")
    for name, (images, values) in accuracies.items():
        found, _ = paired_difference(values.tolist(), accuracies[baseline][1].tolist(), resolution=1 / result["test"])
        difference = f"{100 * found.mean:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"
        table.add_row(name, str(images), f"{values.mean():.1%}", "" if name == baseline else difference)
    Console(width=100).print(table)


def main(
    data: Path,
    checkpoint: Path,
    policies: Annotated[str, typer.Option(help=f"Any of {', '.join(POLICIES)}.")] = DEFAULT,
    seeds: Annotated[int, typer.Option(min=2, help="Trainings of each policy.")] = 5,
    steps: Annotated[int | None, typer.Option(help="Steps of each training (default: that of dagaug score).")] = None,
    refs: Annotated[int, typer.Option(help="References for each source.")] = 10,
    count: Annotated[
        int | None, typer.Option(min=1, help="Images in each set (default: the number of sources).")
    ] = None,
    seed: int = 0,
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("selection"),
) -> None:
    """Compare selection rules at equal counts."""
    names = policies.split(",")
    if unknown := [name for name in names if name not in POLICIES]:
        raise typer.BadParameter(f"no policy {unknown[0]}; choose among {', '.join(POLICIES)}")
    out.mkdir(parents=True, exist_ok=True)
    file = out / "all.h5"
    if not file.exists():
        run(
            *DAGAUG, "augment", data, "--checkpoint", checkpoint, "--refs", refs, "--keep", "all",
            "--min-confidence", "0", "--encoding", "png", "--seed", seed, "--out", file, "--quiet",
        )  # fmt: skip
    sets = write_sets(file, names, count, seed, out / "sets")
    arms = [word for name, folder in sets.items() for word in ("--arm", f"{PREFIX}{name}={folder}")]
    more = [] if steps is None else ["--steps", steps]
    for so_far in range(2, seeds + 1):
        printed = run(
            *DAGAUG, "score", data, file, "--arms", "real", *arms, *more, "--seeds", so_far, "--seed", seed,
            "--out", out / "score.json", "--json",
        )  # fmt: skip
        show(json.loads(printed), "random" if "random" in names else "real")


if __name__ == "__main__":
    typer.run(main)
