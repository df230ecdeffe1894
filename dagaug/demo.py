"""The demo: sample data, train, augment, score and report on the built-in birds, in one call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dagaug.augment.options import AugmentOptions
from dagaug.augment.run import Augmented, augment
from dagaug.birds.dataset import write_flock
from dagaug.classifiers.fit import FitOptions
from dagaug.compute.devices import pick_device
from dagaug.data.layouts import read_dataset
from dagaug.model.trained_model import JUDGES_FILE, load_model
from dagaug.report.data_cloud import make_data_cloud
from dagaug.report.regions_in_pixels import find_attention
from dagaug.report.write import sheet_of_store, write_report
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.output_marks import mark_output
from dagaug.score.experiment import score
from dagaug.score.options import ScoreOptions
from dagaug.score.results import ScoreResult
from dagaug.training.modes import Snapshot
from dagaug.training.options import TrainOptions
from dagaug.training.train import Trained, train

__all__ = ["SCORE_ARMS", "Demo", "run_demo"]

SCORE_ARMS = ("real", "real+dagaug", "cutout")
"""Arms that the demo compares; the others would take too long."""

_TRAINING_STEPS = 480  # default number of GAN training steps; fewer than `dagaug train` takes

_SCORE_STEPS = 1 / 2  # fraction of the usual steps; keeps the demo at eleven minutes on two cores


@dataclass(frozen=True)
class Demo:
    """Results of the demo.

    Attributes:
        data: folder of the sample birds.
        trained, augmented, scored: results of train, augment and score.
        sheet: contact sheet of morphs.
        report: the HTML page.
    """

    data: Path
    trained: Trained
    augmented: Augmented
    scored: ScoreResult
    sheet: Path
    report: Path


def run_demo(
    folder: Path,
    *,
    steps: int | None = None,
    refs: int = 10,
    seeds: int = 3,
    seed: int = 0,
    watch: Callable[[Path, int, Snapshot], None] | None = None,
    execution: Execution = Execution(),
) -> Demo:
    """Run all steps in ``folder``. A second call continues a stopped one.

    Args:
        folder: output folder.
        steps: number of training steps; None for 480.
        refs: number of random references per source.
        seeds: number of trainings per arm of the score.
        seed: random seed of all steps.
        watch: receives sample images of the training.
        execution: where to compute, and how to read images; its progress receives counts and notes.
    """
    data, run = folder / "birds", folder / "run"
    write_flock(data, seed=seed, progress=execution.progress)
    mark_output(folder, "demo")
    dataset = read_dataset(data)
    trained = train(
        TrainOptions(steps=steps or _TRAINING_STEPS, seed=seed),
        dataset,
        name="birds",
        out=run,
        watch=watch,
        execution=execution,
    )
    model = load_model(run)
    out = folder / "augmented.h5"
    augmented = augment(
        model,
        dataset,
        AugmentOptions(refs=refs, seed=seed),
        out,
        overwrite=True,
        cache=run / JUDGES_FILE,
        execution=execution,
    )
    default = FitOptions().resolved(len(dataset.train))
    steps_of_score = max(1, round(_SCORE_STEPS * (default.steps or 0)))
    scored = score(
        dataset,
        out,
        ScoreOptions(FitOptions(steps=steps_of_score), seeds=seeds, seed=seed, arms=SCORE_ARMS),
        resume=folder / "score.jsonl",
        execution=execution,
    )
    table, sheet, page = folder / "score.json", folder / "morphs.png", folder / "report.html"
    table.write_text(scored.to_json() + "\n", encoding="utf-8")
    sheet_of_store(out, sheet, data=data)
    device = pick_device(execution.device)
    attention, attention_missing = find_attention(out, dataset, device=device)
    cloud, cloud_missing = make_data_cloud(out, dataset, device=device)
    write_report(
        out, page, run=run, score=table, data=data,
        attention=attention, attention_missing=attention_missing, cloud=cloud, cloud_missing=cloud_missing,
    )  # fmt: skip
    return Demo(data, trained, augmented, scored, sheet, page)
