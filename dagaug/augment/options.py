"""Options of an augmentation."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from dagaug.augment.compositing import Frame
from dagaug.augment.plan import DEFAULT_VARIANTS, Background, Variant, variant_name
from dagaug.augment.selection import Keep

__all__ = ["AugmentOptions"]


class AugmentOptions(BaseModel):
    """Everything that decides what an augmentation gives, besides data and checkpoint.

    Attributes:
        refs: random references for each source.
        variants: candidates for each reference: ``morph`` (its own pose), ``mirror`` (its mirror image's), ``cutout``
            (the source as it is, on the background alone).
        background: what stands behind: the ``reference``'s background, the ``source``'s, or that of an ``other``
            training image (:func:`~dagaug.planning.backgrounds`).
        keep: ``per-reference`` (top-1 of each reference), ``per-image`` (top-1 of a source; the paper's rule), ``all``.
        allow_mislabelled: keep results whose top-1 prediction is not the source's label.
        min_confidence, max_confidence: bounds of p(source's label). None as the lower one is chance, one in the number
            of classes, or nothing where the classifiers are right on fewer than half of the images they did not see.
        classifier: timm name of the judge; ``auto`` suits the patches' size.
        weights: a classifier that is ready to judge, or weights that its training starts from.
        folds: of the cross-fitting; 1 lets the classifier judge morphs of images that it learned from.
        frame: ``whole`` puts a morph back into the whole image that gives its background, ``crop`` stores the patch.
        encoding, quality: how images are stored.
        real: whether the file holds the real images too.
        per_class: use only the first so many training images of each class.
        limit: only so many sources.
        pairs: a CSV of exactly the pairs to morph; all of them are kept.
        seed: of the references.
        batch_size: candidates computed at a time, on which the last bits of a result depend; None, which
            :meth:`Job.fix_batch_size` replaces, for what suits the device.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    refs: int = Field(10, ge=1)
    variants: tuple[Variant, ...] = Field(DEFAULT_VARIANTS, min_length=1)
    background: Background = "reference"
    keep: Keep = "per-reference"
    allow_mislabelled: bool = True
    min_confidence: float | None = Field(None, ge=0, le=1)
    max_confidence: float = Field(1.0, ge=0, le=1)
    classifier: str = "auto"
    weights: Path | None = None
    folds: int = Field(3, ge=1, le=20)
    frame: Frame = "whole"
    encoding: Literal["jpeg", "png", "raw"] = "jpeg"
    quality: int = Field(95, ge=1, le=100)
    real: bool = True
    per_class: int | None = Field(None, ge=1)
    limit: int | None = Field(None, ge=1)
    pairs: Path | None = None
    seed: int = Field(0, ge=0)
    batch_size: int | None = Field(None, ge=1)

    @field_validator("variants", mode="before")
    @classmethod
    def _by_their_names(cls, value: object) -> object:
        return tuple(map(variant_name, value)) if isinstance(value, tuple | list) else value
