"""Class balance: every class is filled up to the same number of images, real and synthetic (``augment --balance``).

A class that lacks images gets them from all of its sources in equal parts. Each source has a quota of its own, so the
content of a shard depends on no other shard. Counts are those of the data set's lists; whether a file can be read does
not change the quotas of the other sources.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Int64, Integer

from dagaug.augment.morph_plan import Draw, MorphPlan, Variant, plan_of_references, random_draw, spread_sources
from dagaug.augment.selection import Keep
from dagaug.hdf5.reader import Store
from dagaug.runtime.errors import UsageError

__all__ = [
    "DEFAULT_REFERENCES",
    "balanced_plan",
    "below_balance",
    "class_counts",
    "images_per_reference",
    "source_quotas",
]

DEFAULT_REFERENCES = 10
"""References of each source where the best of them is kept and no number is given."""

_RESERVE = 2  # times as many references as are needed: judges reject some, and of rare classes more than of others


def source_quotas(labels: Integer[np.ndarray, " N"], sources: Sequence[int], balance: int) -> dict[int, int]:
    """Number of synthetic images that each source must give; sources that give none are left out.

    Args:
        labels: class of each real training image.
        sources: rows of the sources.
        balance: number of images, real and synthetic, that each class shall have.
    """
    rows = np.array(sorted(sources), np.int64)
    counts = np.bincount(labels)
    quotas: dict[int, int] = {}
    for label, count in enumerate(counts.tolist()):
        own = rows[labels[rows] == label]
        if count >= balance or not len(own):
            continue
        each, rest = divmod(balance - count, len(own))
        more = np.zeros(len(own), np.int64)
        more[np.linspace(0, len(own) - 1, rest).round().astype(int)] = 1
        quotas |= {int(row): each + int(one) for row, one in zip(own, more, strict=True) if each + one}
    return dict(sorted(quotas.items()))


def images_per_reference(variants: Sequence[Variant], keep: Keep) -> int:
    """Largest number of images that the selection keeps of one reference; with ``per-image`` of one source."""
    return len(variants) if keep == "all" else len({variant == "cutout" for variant in variants})


def balanced_plan(
    labels: Integer[np.ndarray, " N"],
    *,
    balance: int,
    refs: int | None,
    variants: Sequence[Variant],
    keep: Keep,
    seed: int,
    limit: int | None = None,
    usable: Bool[np.ndarray, " N"] | None = None,
    draw: Draw | None = None,
) -> MorphPlan:
    """Draw references so that every class can be filled up to ``balance`` images.

    Args:
        labels: class of each sample; each is a source and a possible reference.
        balance: number of images, real and synthetic, that each class shall have.
        refs: references of each source; None takes twice as many as its quota needs, so that some may be rejected.
        variants: candidates of each reference.
        keep: rule of the selection.
        seed, limit, usable: see :func:`~dagaug.augment.morph_plan.random_plan`.
        draw: chooses the references; None draws them at random.

    Returns:
        a plan with quotas; sources of full classes are not in it.

    Raises:
        UsageError: every class is full, or there are fewer other images than ``refs``.
    """
    quotas = source_quotas(labels, spread_sources(len(labels), limit), balance)
    if not quotas:
        raise UsageError(
            "no class with sources has fewer training images than this; give more", option="balance", value=balance
        )
    usable = np.ones(len(labels), bool) if usable is None else usable
    others = int(usable.sum()) - 1
    each = images_per_reference(variants, keep)

    def references(quota: int) -> int:
        if refs is not None:
            return refs
        if keep == "per-image":
            return min(DEFAULT_REFERENCES, others)
        return min(_RESERVE * math.ceil(quota / each), others)

    plan = plan_of_references(
        {row: references(quota) for row, quota in quotas.items()}, variants=variants, usable=usable,
        draw=draw or random_draw(usable, seed),
    )  # fmt: skip
    of_row = np.zeros(len(labels), np.int64)
    of_row[list(quotas)] = list(quotas.values())
    return replace(plan, quota=of_row[plan.source])


def class_counts(store: Store) -> Int64[np.ndarray, " C"]:
    """Training images of each class in an HDF5 file, real and synthetic; those of its list if it holds no real ones."""
    table, header = store.images, store.header
    training, classes = table.split == 0, len(header.classes)
    counts = np.bincount(table.label[training], minlength=classes)
    if header.options.get("real") is False:
        counts = counts + np.bincount(header.files_label[header.files_split == 0], minlength=classes)
    return counts.astype(np.int64)


def below_balance(classes: Sequence[str], counts: Integer[np.ndarray, " C"], balance: int) -> dict[str, int]:
    """The classes with fewer than ``balance`` images, and how many they have."""
    return {name: int(count) for name, count in zip(classes, counts, strict=True) if count < balance}
