"""Options of an augmentation."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from dagaug.augment.class_balance import DEFAULT_REFERENCES
from dagaug.augment.compositing import OutputFrame
from dagaug.augment.morph_plan import DEFAULT_VARIANTS, Background, References, Variant, variant_name
from dagaug.augment.selection import Keep

__all__ = ["AugmentOptions"]


class AugmentOptions(BaseModel):
    """Everything besides data and checkpoint that decides the result. It is stored in the HDF5 file.

    Attributes:
        refs: references of each source. None means 10; with ``balance`` twice as many as that needs.
        references: how they are chosen: at ``random``, or rather images whose ``missing-poses`` the source's class has
            not (:mod:`dagaug.augment.missing_poses`).
        balance: number of images, real and synthetic, up to which every class is filled
            (:mod:`dagaug.augment.class_balance`); None makes morphs of all sources.
        variants: candidates of each reference: ``morph`` (the source in its pose), ``mirror`` (in its mirrored pose),
            ``cutout`` (the source unchanged on its background).
        background: whose background candidates have: the ``reference``'s, the ``source``'s, or that of an ``other``
            training image (:func:`~dagaug.augment.morph_plan.background_rows`).
        keep: ``per-reference`` (best candidate of each reference), ``per-image`` (best candidate of each source, the
            paper's rule), ``all``.
        allow_mislabelled: keep candidates whose top-1 prediction is not the source's label.
        min_confidence, max_confidence: bounds of p(source's label), in [0, 1]. None as the lower bound means 1 / number
            of classes, or 0 if the classifier's accuracy on held-out images is below one half.
        min_correspondence: discard morphs whose share of mutual nearest neighbours, in [0, 1], is below this; only for
            models with frozen features.
        classifier: timm name of the judge; ``auto`` picks one for the patch size.
        weights: file of a trained classifier, or of weights to start its training from.
        class_map: text file with the class names of those weights, one line each in the order of the logits, as timm's
            ``--class-map`` takes it; None if they stand in the order of the data set's classes.
        folds: number of cross-validation folds for the judges; 1 disables cross-fitting.
        frame: ``whole`` blends a morph into the whole background image, ``crop`` stores the patch.
        encoding, quality: how images are stored; the quality is that of JPEG, 1 to 100.
        real: store the real images, too.
        per_class: use the first N training images of each class only.
        limit: use N sources only.
        pairs: CSV file of the pairs to morph; all of their morphs are kept.
        seed: of references, folds and trainings.
        batch_size: candidates computed at a time. It may change the last bits of a result, so it is stored. None picks
            a size for the device.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    refs: int | None = Field(None, ge=1)
    references: References = "random"
    balance: int | None = Field(None, ge=1)
    variants: tuple[Variant, ...] = Field(DEFAULT_VARIANTS, min_length=1)
    background: Background = "reference"
    keep: Keep = "per-reference"
    allow_mislabelled: bool = True
    min_confidence: float | None = Field(None, ge=0, le=1)
    max_confidence: float = Field(1.0, ge=0, le=1)
    min_correspondence: float = Field(0.0, ge=0, le=1)
    classifier: str = "auto"
    weights: Path | None = None
    class_map: Path | None = None
    folds: int = Field(3, ge=1, le=20)
    frame: OutputFrame = "whole"
    encoding: Literal["jpeg", "png", "raw"] = "jpeg"
    quality: int = Field(95, ge=1, le=100)
    real: bool = True
    per_class: int | None = Field(None, ge=1)
    limit: int | None = Field(None, ge=1)
    pairs: Path | None = None
    seed: int = Field(0, ge=0)
    batch_size: int | None = Field(None, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _default_references(cls, values: object) -> object:
        if isinstance(values, dict) and values.get("refs") is None and values.get("balance") is None:
            return {**values, "refs": DEFAULT_REFERENCES}
        return values

    @field_validator("variants", mode="before")
    @classmethod
    def _current_names(cls, value: object) -> object:
        return tuple(map(variant_name, value)) if isinstance(value, tuple | list) else value
