"""Options of a classifier's training that suit the images at hand, where the user names none."""

from __future__ import annotations

from typing import Any, Literal

from dagaug.classifiers.fit import FitOptions
from dagaug.classifiers.frozen_stages import suitable_frozen_stages
from dagaug.classifiers.recipes import MODE_WORDS, Mode, suit_images, suitable_size

__all__ = ["describe_fit", "suitable_fit"]


def suitable_fit(
    patch: int,
    device: str,
    *,
    mode: Mode | Literal["auto"] = "auto",
    classifier: str = "auto",
    size: int | None = None,
    frozen_stages: int | None = None,
    **others: Any,
) -> FitOptions:
    """Choose network, mode, image size and frozen stages for patches of ``patch`` pixels.

    Args:
        patch: side of the morphs' patches in pixels.
        device: type of the device, for example ``cpu``.
        mode: how the classifier is trained; ``auto`` chooses by the patches' size.
        classifier: name of a network; ``auto`` chooses by mode and size.
        size: side of the images in pixels; None chooses by network and device.
        frozen_stages: number of first stages that stay as they are; None chooses by device.
        others: further fields of :class:`FitOptions`.
    """
    chosen, name = suit_images(mode, classifier, patch)
    return FitOptions(
        name=name,
        size=size or suitable_size(chosen, name, patch, device),
        mode=chosen,
        frozen_stages=suitable_frozen_stages(chosen, name, device) if frozen_stages is None else frozen_stages,
        **others,
    )


def describe_fit(fit: FitOptions) -> str:
    """Network, image size and mode, in a line."""
    kept = f", the first {fit.frozen_stages} stages left as they are" if fit.frozen_stages else ""
    return f"Classifier {fit.name}, images of {fit.size} px, {MODE_WORDS[fit.mode]}{kept}"
