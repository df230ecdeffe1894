"""Morphs of real photographs, measured: contact sheet, PCK of the flow, and gains over cheap ways to augment.

    python examples/photos.py CUB_200_2011 --per-class 10 --steps 900         # trains DA-GAN, then measures it
    python examples/photos.py CUB_200_2011 --per-class 10 --checkpoint frozen  # morphs without training
    python examples/photos.py cub20 --checkpoint frozen --folds 3              # decide on training images alone

CUB_FOLDER has the layout of CUB-200-2011: https://www.vision.caltech.edu/datasets/cub_200_2011/ or a part of it. By
default the official test split is looked at once, at the end; with --folds it is never read, and each fold of the
training images is the test split in turn. Classifiers are pretrained EfficientNet-Lite0, of which the last stages are
fine-tuned on crops to the boxes. Finished parts are not made again: the same command resumes.
"""

from __future__ import annotations

import csv
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from rich.console import Console

from dagaug.data.dataset_records import Dataset
from dagaug.data.layouts import read_dataset
from dagaug.data.object_patches import read_patches
from dagaug.hdf5.reader import Store
from dagaug.model.trained_model import load_model
from dagaug.report.contact_sheets import contact_sheet
from dagaug.score.statistics import mean_interval, paired_difference

DAGAUG = (sys.executable, "-m", "dagaug")
ARMS = "real,cutmix,mixup,trivialaugment,cutout,cutwarp,frozen,real+dagaug,dagaug+cutmix,cutout+dagaug"
BY_IMAGE = ("images.txt", "image_class_labels.txt", "bounding_boxes.txt", "parts/part_locs.txt")
FLOW = {"pck": "parts found (PCK@0.1)", "in_place": "the same if every part stays in place",
        "inside": "parts inside the masks", "area": "area of the masks"}  # fmt: skip
SHEET = 10


def run(*command: object) -> str:
    """Run a dagaug command, show its messages, return its output."""
    words = [str(word) for word in command]
    Console(stderr=True).print("+ dagaug " + shlex.join(words))
    return subprocess.run([*DAGAUG, *words], check=True, stdout=subprocess.PIPE, text=True).stdout


def once(file: Path, *command: object) -> Any:
    """The JSON that a command prints, kept in a file."""
    if not file.exists():
        unfinished = file.with_suffix(".unfinished")
        unfinished.write_text(run(*command, "--json"), encoding="utf-8")
        unfinished.rename(file)
    return json.loads(file.read_text(encoding="utf-8"))


def write_fold(data: Path, out: Path, fold: int, folds: int) -> Path:
    """Write a CUB folder of the training images alone, in which every ``folds``-th one of a class is a test image."""
    if out.exists():
        return out
    dataset, unfinished = read_dataset(data), out.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    (unfinished / "parts").mkdir(parents=True)
    number = {path: name for name, path in map(str.split, (data / "images.txt").read_text().splitlines())}
    seen, split = [0] * len(dataset.classes), {}
    for sample in dataset.train:
        split[number[sample.path.relative_to("images").as_posix()]] = int(seen[sample.label] % folds != fold)
        seen[sample.label] += 1
    for name in BY_IMAGE:
        if (data / name).exists():
            rows = (data / name).read_text(encoding="utf-8").splitlines(keepends=True)
            (unfinished / name).write_text("".join(row for row in rows if row.split()[0] in split), encoding="utf-8")
    lines = "".join(f"{name} {train}\n" for name, train in split.items())
    (unfinished / "train_test_split.txt").write_text(lines, encoding="utf-8")
    for name in ("classes.txt", "parts/parts.txt"):
        if (data / name).exists():
            shutil.copy(data / name, unfinished / name)
    (unfinished / "images").symlink_to((data / "images").resolve())
    unfinished.rename(out)
    return out


def write_sheet(dataset: Dataset, model: Path, out: Path) -> None:
    """Write a contact sheet: one training image of each of ten classes in the poses of others of these classes."""
    if out.with_suffix(".png").exists():
        return
    card = load_model(model).card
    train = dataset.subset(card.per_class).train
    of_class = [[one for one in train if one.label == label] for label in range(len(dataset.classes))]
    chosen = [several for several in of_class if len(several) > 1][:SHEET]
    sources, references = ([several[place] for several in chosen] for place in (0, -1))
    with out.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [("source", "reference"), *((s.path.as_posix(), r.path.as_posix()) for s in sources for r in references)]
        )
    file_of_morphs = out.with_suffix(".h5")
    run("augment", dataset.root, "--checkpoint", model, "--pairs", out.with_suffix(".csv"), "--variants", "morph",
        "--frame", "crop", "--no-real", "--folds", 1, "--overwrite", "--out", file_of_morphs, "--quiet")  # fmt: skip
    with Store(file_of_morphs) as store:
        table, files = store.images, store.header.files
        made = store.read(list(range(len(table.source))))
        pair = {(files[s], files[r]): image for s, r, image in zip(table.source, table.reference, made, strict=True)}
    rows, columns = (read_patches(dataset, several, card.framing).images[:] for several in (sources, references))
    morphs = [[pair[s.path.as_posix(), r.path.as_posix()] for r in references] for s in sources]
    sheet = contact_sheet(rows, columns, np.array(morphs), scale=1.0)
    cv2.imwrite(str(out.with_suffix(".png")), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))


def measure(
    data: Path, out: Path, checkpoint: str | None, train: list[str], augment: list[str], score: list[str]
) -> tuple[Any, Any]:
    """Train, augment, draw, measure one split; returns the results of ``metrics --parts`` (if any) and ``score``."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / "morphs.h5"
    if checkpoint is None:
        checkpoint = str(out / "run")
        run("train", data, "--out", checkpoint, *train, "--quiet")
    if not file.exists():
        run("augment", data, "--checkpoint", checkpoint, *augment, "--frame", "crop", "--out", file, "--quiet")
    with Store(file) as store:
        model = Path(store.header.provenance.checkpoint)
    write_sheet(read_dataset(data), model, out / "sheet")
    parts = (data / "parts" / "part_locs.txt").exists()
    flow = once(out / "parts.json", "metrics", model, data, "--parts") if parts else None
    return flow, once(out / "result.json", "score", data, file, *score, "--out", out / "score.json")


def written(flows: list[Any], scores: list[Any], title: str) -> str:
    """Both tables as markdown; a difference is paired by fold and seed."""
    lines = [f"# {title}", ""]
    if flows[0] is not None:
        lines += ["| flow | % |", "|---|---|"]
        lines += [f"| {FLOW[name]} | {100 * np.mean([flow[name] for flow in flows]):.1f} |" for name in FLOW] + [""]
    lines += ["| arm | accuracy | over real | real+dagaug over it |", "|---|---|---|---|"]
    runs: dict[str, list[float]] = {}
    for score in scores:
        for arm in score["arms"]:
            runs.setdefault(arm["arm"], []).extend(arm["accuracies"])
    resolution = 1 / sum(score["test"] for score in scores)

    def difference(arm: str, baseline: str) -> str:
        if arm == baseline:
            return ""
        found, _ = paired_difference(runs[arm], runs[baseline], resolution=resolution)
        return f"{100 * found.mean:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"

    for arm, values in runs.items():
        accuracy = f"{100 * mean_interval(values, resolution=resolution).mean:.1f}"
        lines.append(f"| {arm} | {accuracy} | {difference(arm, 'real')} | {difference('real+dagaug', arm)} |")
    return "\n".join(lines) + "\n"


def main(
    data: Annotated[Path, typer.Argument(metavar="CUB_FOLDER", help="CUB-200-2011 or a part of it.")],
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("photos"),
    per_class: Annotated[int, typer.Option(min=2, help="Training images of each class.")] = 10,
    checkpoint: Annotated[str | None, typer.Option(help="frozen, or a finished run (default: train one).")] = None,
    steps: Annotated[int, typer.Option(help="Steps of the DA-GAN training.")] = 900,
    folds: Annotated[int, typer.Option(help="Measure by cross-validation on the training images; 0: test split.")] = 0,
    refs: Annotated[int, typer.Option(help="References for each source.")] = 10,
    seeds: Annotated[int, typer.Option(min=2, help="Trainings of each arm.")] = 5,
    size: Annotated[int, typer.Option(help="Side of the classifier's images in pixels.")] = 128,
    score_steps: Annotated[int, typer.Option(help="Steps of each classifier.")] = 300,
    classifier: Annotated[str, typer.Option(help="Options that choose the classifier and its training.")] = (
        "--mode finetune --frozen-stages 6"
    ),
    train: Annotated[str, typer.Option(help="Further options of dagaug train.")] = "",
    augment: Annotated[str, typer.Option(help="Further options of dagaug augment.")] = "",
    arms: Annotated[str, typer.Option(help="Arms of dagaug score.")] = ARMS,
) -> None:
    """Measure one data set, and write the tables to OUT/photos.md."""
    if folds == 1 or (folds and checkpoint not in (None, "frozen")):
        raise typer.BadParameter("--folds needs two folds, and a model for each: without --checkpoint RUN")
    kept, settings = out / "settings.json", json.dumps({name: str(value) for name, value in locals().items()})
    out.mkdir(parents=True, exist_ok=True)
    if kept.exists() and kept.read_text() != settings:
        raise typer.BadParameter(f"{out} was made with other options; choose another --out")
    kept.write_text(settings)
    few = ["--per-class", str(per_class)]
    training = [*few, "--steps", str(steps), *shlex.split(train)]
    augmenting = [*few, "--refs", str(refs), *shlex.split(augment)]
    scoring = [*few, "--arms", arms, "--seeds", str(seeds), "--size", str(size), "--steps", str(score_steps),
               *shlex.split(classifier)]  # fmt: skip
    splits = [write_fold(data, out / f"data{fold}", fold, folds) for fold in range(folds)] or [data]
    results = [
        measure(split, out / (f"fold{number}" if folds else "test"), checkpoint, training, augmenting, scoring)
        for number, split in enumerate(splits)
    ]
    title = f"{data.name}, {per_class} images a class, {f'{folds} folds' if folds else 'test split'}, {seeds} seeds"
    text = written([flow for flow, _ in results], [score for _, score in results], title)
    (out / "photos.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    typer.run(main)
