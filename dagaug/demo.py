"""Everything in one call, on the built-in birds: sample data, train, augment, score, report."""

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
from dagaug.report.attention import attention_of
from dagaug.report.data_cloud import cloud_of
from dagaug.report.write import sheet_of_store, write_report
from dagaug.runtime.progress import SILENT, Progress
from dagaug.score.experiment import score
from dagaug.score.options import ScoreOptions
from dagaug.score.results import ScoreResult
from dagaug.training.modes import Snapshot
from dagaug.training.options import TrainOptions
from dagaug.training.train import Trained, train

__all__ = ["SCORE_ARMS", "Demo", "run_demo"]

SCORE_ARMS = ("real", "real+dagaug", "cutout")
"""What the demo compares: those of the score that answer the question and fit its time."""

_TRAINING_STEPS = 480  # of the GAN, unless asked otherwise; `dagaug train` takes more for as many images

_SCORE_STEPS = 1 / 2  # of the usual ones: so that the demo takes eleven minutes on two cores


@dataclass(frozen=True)
class Demo:
    """What the demo made.

    Attributes:
        data: the sample birds.
        trained, augmented, scored: results of the three commands.
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
    device: str = "auto",
    watch: Callable[[Path, int, Snapshot], None] | None = None,
    progress: Progress = SILENT,
) -> Demo:
    """Run the whole way in ``folder``; run again, it goes on where it stopped.

    Args:
        folder: holds everything that is made.
        steps: of training, 480 by default.
        refs: references for each source.
        seeds: trainings of each arm of the score.
        seed: of everything.
        device: auto, cpu or cuda.
        watch: is given pictures of the training.
        progress: is told of everything.
    """
    data, run = folder / "birds", folder / "run"
    write_flock(data, seed=seed, progress=progress)
    dataset = read_dataset(data)
    trained = train(
        TrainOptions(steps=steps or _TRAINING_STEPS, seed=seed),
        dataset,
        name="birds",
        out=run,
        device=device,
        watch=watch,
        progress=progress,
    )
    model = load_model(run)
    out = folder / "augmented.h5"
    augmented = augment(
        model,
        dataset,
        AugmentOptions(refs=refs, seed=seed),
        out,
        device=device,
        overwrite=True,
        cache=run / JUDGES_FILE,
        progress=progress,
    )
    usual = FitOptions().resolved(len(dataset.train))
    steps_of_score = max(1, round(_SCORE_STEPS * (usual.steps or 0)))
    scored = score(
        dataset,
        out,
        ScoreOptions(FitOptions(steps=steps_of_score), seeds=seeds, seed=seed, arms=SCORE_ARMS),
        device=pick_device(device),
        resume=folder / "score.jsonl",
        progress=progress,
    )
    table, sheet, page = folder / "score.json", folder / "morphs.png", folder / "report.html"
    table.write_text(scored.to_json() + "\n", encoding="utf-8")
    sheet_of_store(out, sheet, data=data)
    attention, unattended = attention_of(out, dataset, device=pick_device(device))
    cloud, unclouded = cloud_of(out, dataset, device=pick_device(device))
    write_report(
        out, page, run=run, score=table, data=data,
        attention=attention, unattended=unattended, cloud=cloud, unclouded=unclouded,
    )  # fmt: skip
    return Demo(data, trained, augmented, scored, sheet, page)
