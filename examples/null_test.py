"""Does ``dagaug score`` find what is not there, and does it miss harm?

In each repetition, on images of its own (discs of four colours), a classifier is trained on real images alone, with
copies of real images in place of synthetic ones, and with copies under shuffled labels. The copies must have no
measurable effect in at least 18 of 20 repetitions (a verdict at 95% errs once in 20), and the shuffled labels must
harm in as many.

    python examples/null_test.py

With the default classifier (``plain``) and options: no measurable effect in 19 of 20 repetitions, harm in 20 of 20, in
five minutes of one core's time. The copies are not quite nothing: they were below real in 18 of the 20, by 1.6 points
in the mean. A batch of 16 of only 32 images that draws copies apart from real ones repeats about 1.5 of them, and is
the less varied for it, which is the likely cause; four seeds rarely show so small a harm (once here).
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from dagaug.classifiers.fit import FitOptions
from dagaug.data.dataset import Dataset
from dagaug.data.layouts import read_dataset
from dagaug.score.experiment import score
from dagaug.score.options import ScoreOptions

CLASSES = ("red", "green", "cyan", "violet")
PER_CLASS, TEST_PER_CLASS = 8, 40


def write_discs(root: Path, seed: int) -> None:
    """Class folders of a training and a test split; colours of neighbouring classes overlap a little."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", PER_CLASS), ("test", TEST_PER_CLASS)):
        for label, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                hue = (45 * label + rng.normal(0, 13)) % 180
                image = np.full((32, 32, 3), (rng.uniform(0, 180), 90, rng.uniform(60, 200)), np.uint8)
                centre = tuple(rng.integers(11, 21, 2).tolist())
                cv2.circle(image, centre, int(rng.integers(6, 11)), (hue, 130, rng.uniform(120, 255)), -1)
                noisy = cv2.cvtColor(image, cv2.COLOR_HSV2BGR) + rng.normal(0, 25, image.shape)
                cv2.imwrite(str(folder / f"{number}.png"), noisy.clip(0, 255).astype(np.uint8))


def copies(dataset: Dataset, folder: Path, labels: list[int]) -> Path:
    """Class folders with copies of the training images under these labels."""
    for row, (sample, label) in enumerate(zip(dataset.train, labels, strict=True)):
        target = folder / dataset.classes[label]
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(dataset.file(sample), target / f"{row}{sample.path.suffix}")
    return folder


def repetition(number: int, folder: Path, steps: int, seeds: int) -> dict[str, str]:
    """The verdicts on both arms."""
    data = folder / "discs"
    write_discs(data, number)
    dataset = read_dataset(data)
    labels = [sample.label for sample in dataset.train]
    shuffled = np.random.default_rng(number).permutation(labels).tolist()
    options = ScoreOptions(
        FitOptions(size=32, steps=steps, batch_size=16, synthetic_share=0.75),
        seeds=seeds,
        seed=1000 * number,
        arms=("real",),
        others=(
            ("copies", copies(dataset, folder / "copies", labels)),
            ("shuffled", copies(dataset, folder / "shuffled", shuffled)),
        ),
    )
    result = score(dataset, None, options)
    print(number, *(f"{arm.arm} {arm.accuracy.mean:.1%}" for arm in result.arms), sep="  ", flush=True)
    for sentence in result.sentences:
        print("  ", sentence, flush=True)
    return {comparison.arm: comparison.verdict for comparison in result.comparisons}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=4)
    asked = parser.parse_args()
    verdicts = []
    for number in range(asked.repetitions):
        with tempfile.TemporaryDirectory() as folder:
            verdicts.append(repetition(number, Path(folder), asked.steps, asked.seeds))
    wanted = math.floor(0.9 * asked.repetitions)
    good = True
    for arm, right in (("copies", "no measurable effect"), ("shuffled", "harms")):
        count = sum(verdict[arm] == right for verdict in verdicts)
        good &= count >= wanted
        print(f"{arm}: {right!r} in {count} of {len(verdicts)} repetitions; {wanted} are wanted")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
