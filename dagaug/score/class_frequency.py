"""Groups of classes by their number of training images, so that a score tells frequent and rare classes apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Integer

__all__ = ["ClassGroup", "frequency_groups"]

_UNEQUAL = 2.0  # ratio of the mean number of images in the groups "many" and "few" from which they are told apart


@dataclass(frozen=True)
class ClassGroup:
    """Classes with similar numbers of training images.

    Attributes:
        name: ``many``, ``medium`` or ``few``.
        labels: the classes, as indices.
        fewest, most: smallest and largest number of training images of one of them.
    """

    name: str
    labels: tuple[int, ...]
    fewest: int
    most: int


def frequency_groups(
    train: Integer[np.ndarray, " N"], test: Integer[np.ndarray, " T"], classes: int
) -> tuple[ClassGroup, ...]:
    """Split the classes into thirds by their number of training images; equal numbers stay together.

    Args:
        train: class of each training image.
        test: class of each test image; a class without any is in no group.
        classes: number of classes.

    Returns:
        the groups that are not empty, from many to few images. None if upper and lower third meet at one number,
        or if the classes of ``many`` have, on average, fewer than twice as many images as those of ``few``.
    """
    counts = np.bincount(train, minlength=classes)
    tested = np.flatnonzero(np.bincount(test, minlength=classes))
    if not len(tested):
        return ()
    ordered, third = np.sort(counts[tested]), -(-len(tested) // 3)
    low, high = ordered[third - 1], ordered[-third]
    if low == high:  # most classes have equally many images
        return ()
    of_group = {
        "many": tested[counts[tested] >= high],
        "medium": tested[(counts[tested] > low) & (counts[tested] < high)],
        "few": tested[counts[tested] <= low],
    }
    if counts[of_group["many"]].mean() < _UNEQUAL * counts[of_group["few"]].mean():
        return ()
    return tuple(
        ClassGroup(name, tuple(rows.tolist()), int(counts[rows].min()), int(counts[rows].max()))
        for name, rows in of_group.items()
        if len(rows)
    )
