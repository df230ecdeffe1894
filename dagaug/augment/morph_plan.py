"""The plan of an augmentation: which source is morphed into the pose of which reference (paper, Sec. 4.6).

A plan depends on the list of images, the options and the seed only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from dagaug.data.dataset_records import Sample
from dagaug.data.pairs_table import FileIndex, PairRow, read_pairs_table
from dagaug.hdf5.provenance import Background
from dagaug.runtime.errors import DataError, UsageError

__all__ = [
    "BACKGROUNDS",
    "DEFAULT_VARIANTS",
    "IS_CUTOUT",
    "ORIENTATIONS",
    "ORIENTATION_OF",
    "VARIANTS",
    "Background",
    "Draw",
    "MorphPlan",
    "References",
    "Variant",
    "background_rows",
    "pairs_from_csv",
    "plan_of_references",
    "random_draw",
    "random_plan",
    "spread_sources",
    "variant_name",
]

Variant = Literal["morph", "mirror", "cutout"]

VARIANTS: tuple[Variant, ...] = get_args(Variant)
"""Candidates of one reference: the source in its pose, in its mirrored pose, and unchanged on its background."""

DEFAULT_VARIANTS: tuple[Variant, ...] = ("morph", "mirror")

ORIENTATIONS = ("original", "mirrored")
"""Orientations in which a reference and its background are encoded."""

ORIENTATION_OF: UInt8[np.ndarray, " V"] = np.array([int(variant == "mirror") for variant in VARIANTS], np.uint8)
"""The orientation of each variant, an index into :data:`ORIENTATIONS`."""

IS_CUTOUT: Bool[np.ndarray, " V"] = np.array([variant == "cutout" for variant in VARIANTS])
"""Whether each variant shows the source without morphing."""

References = Literal["random", "missing-poses"]
"""How references are chosen: at random, or rather those whose poses the source's class lacks."""

Draw = Callable[[int, int], Sequence[int]]
"""Chooses references: from the row of a source and their number to their rows."""

BACKGROUNDS: tuple[Background, ...] = get_args(Background)
"""Whose background a candidate has: its reference's, its source's, or that of the source's next reference."""


def variant_name(name: str) -> str:
    """The current name of a variant; older files say ``reference`` for ``morph``."""
    return "morph" if name == "reference" else name


@dataclass(frozen=True)
class MorphPlan:
    """Candidates in order, grouped by source.

    Attributes:
        source, reference: sample index of each candidate's source and reference.
        variant: index into :data:`VARIANTS`.
        starts: index of each source's first candidate, then the number of candidates; a source may have none.
        background: sample index of the image that gives the background; None means the reference.
        quota: largest number of images that are kept of each candidate's source; None without a limit.
    """

    source: Int64[np.ndarray, " M"]
    reference: Int64[np.ndarray, " M"]
    variant: UInt8[np.ndarray, " M"]
    starts: Int64[np.ndarray, " P"]
    background: Int64[np.ndarray, " M"] | None = None
    quota: Int64[np.ndarray, " M"] | None = None

    @property
    def background_rows(self) -> Int64[np.ndarray, " M"]:
        """Sample index of the image that gives each candidate's background."""
        return self.reference if self.background is None else self.background

    def with_background(self, background: Background) -> MorphPlan:
        """The same plan with other backgrounds; see :func:`background_rows`.

        Raises:
            UsageError: ``other`` is asked for and a source has only one reference.
        """
        return replace(self, background=background_rows(background, self.source, self.reference))

    def take(self, rows: Int64[np.ndarray, " m"]) -> MorphPlan:
        """A plan of some candidates, in one group."""
        background, quota = (None if one is None else one[rows] for one in (self.background, self.quota))
        starts = np.array([0, len(rows)], np.int64)
        return MorphPlan(self.source[rows], self.reference[rows], self.variant[rows], starts, background, quota)

    def __len__(self) -> int:
        return len(self.source)

    @property
    def sources(self) -> int:
        """Number of sources that have candidates."""
        return int(np.count_nonzero(np.diff(self.starts)))

    def shards(self, sources: int) -> list[slice]:
        """Split the candidates into slices of ``sources`` sources each; the last slice may have fewer."""
        firsts = self.starts[:-1:sources]
        ends = [*firsts[1:], self.starts[-1]]
        return [slice(int(first), int(end)) for first, end in zip(firsts, ends, strict=True)]


def _plan(groups: Sequence[tuple[int, Sequence[int]]], variants: Sequence[Variant]) -> MorphPlan:
    codes = np.array([VARIANTS.index(variant) for variant in variants], np.uint8)
    source, reference, starts = [], [], [0]
    for row, references in groups:
        source += [row] * len(references) * len(codes)
        reference += [other for other in references for _ in codes]
        starts.append(len(source))
    variant = np.tile(codes, len(source) // len(codes))
    return MorphPlan(np.array(source, np.int64), np.array(reference, np.int64), variant, np.array(starts, np.int64))


def background_rows(
    background: Background, source: Int64[np.ndarray, " M"], reference: Int64[np.ndarray, " M"]
) -> Int64[np.ndarray, " M"] | None:
    """Choose the image that gives each candidate's background.

    For ``other`` it is the source's next reference (after the last one, the first). This is a random training image
    that is neither the source nor the reference, and it follows from the candidates without a further column.

    Args:
        background: one of :data:`BACKGROUNDS`.
        source, reference: of each candidate, any integer ids; all candidates of a source must be included.

    Returns:
        An id for each candidate; None if all backgrounds are the references'.

    Raises:
        UsageError: ``other`` is asked for and a source has only one reference.
    """
    if background == "reference":
        return None
    if background == "source":
        return source
    references_of: dict[int, dict[int, None]] = {}
    pairs = list(zip(source.tolist(), reference.tolist(), strict=True))
    for row, chosen in pairs:
        references_of.setdefault(row, {})[chosen] = None
    if any(len(references) < 2 for references in references_of.values()):
        raise UsageError(
            "the background comes from the source's next reference, so each source needs 2 references or more",
            option="background", value=background, remedies={"refs": 2},
        )  # fmt: skip
    following: dict[tuple[int, int], int] = {}
    for row, references in references_of.items():
        names = list(references)
        following |= {(row, name): after for name, after in zip(names, names[1:] + names[:1], strict=True)}
    return np.array([following[pair] for pair in pairs], np.int64)


def random_plan(
    count: int,
    *,
    refs: int,
    variants: Sequence[Variant],
    seed: int,
    limit: int | None = None,
    usable: Bool[np.ndarray, " N"] | None = None,
) -> MorphPlan:
    """Draw references for each source: all different, and never the source itself.

    Args:
        count: number of samples; each is a source and a possible reference.
        refs: references of each source.
        variants: candidates of each reference, names from :data:`VARIANTS`.
        seed: random seed; the references of a source do not depend on the other sources.
        limit: number of sources, spread evenly over the samples; None takes all.
        usable: False for samples that cannot be read. They get no candidates as sources. Where one is drawn as a
            reference, another sample is drawn instead; all other candidates stay the same.

    Raises:
        UsageError: there are fewer other images than ``refs``.
    """
    if refs < 1:
        raise UsageError("give at least 1", option="refs", value=refs)
    usable = np.ones(count, bool) if usable is None else usable
    references = dict.fromkeys(spread_sources(count, limit), refs)
    return plan_of_references(references, variants=variants, usable=usable, draw=random_draw(usable, seed))


def spread_sources(count: int, limit: int | None) -> list[int]:
    """Rows of the sources: ``limit`` of ``count`` samples, spread evenly; None takes all."""
    if limit is None or limit >= count:
        return list(range(count))
    return np.linspace(0, count - 1, limit).round().astype(int).tolist()


def plan_of_references(
    references: Mapping[int, int], *, variants: Sequence[Variant], usable: Bool[np.ndarray, " N"], draw: Draw
) -> MorphPlan:
    """Draw so many references for each source; see :func:`random_plan`.

    Args:
        references: row of each source and number of its references.
        variants: candidates of each reference.
        usable: False for samples that cannot be used.
        draw: chooses the references.

    Raises:
        UsageError: there are fewer other images than references.
    """
    others, most = int(usable.sum()) - 1, max(references.values(), default=0)
    if most > others:
        raise UsageError(
            f"there are only {others} other training images; give at most that many", option="refs", value=most
        )
    return _plan([(row, draw(row, refs) if usable[row] else []) for row, refs in references.items()], variants)


def random_draw(usable: Bool[np.ndarray, " N"], seed: int) -> Draw:
    """Random usable samples, all different, and never the source itself."""
    return lambda source, count: _references(source, usable, count, seed)


def _references(source: int, usable: Bool[np.ndarray, " N"], refs: int, seed: int) -> list[int]:
    random = np.random.default_rng([seed, source])
    drawn = random.choice(len(usable) - 1, refs, replace=False).tolist()
    found = [other + (other >= source) for other in drawn]
    taken = {source, *found}
    for place in range(refs):
        while not usable[found[place]]:
            other = int(random.integers(len(usable)))
            if other not in taken:
                found[place] = other
                taken.add(other)
    return found


def pairs_from_csv(path: Path, samples: Sequence[Sample]) -> MorphPlan:
    """Read a plan from a CSV file with the columns ``source`` and ``reference``.

    Paths are relative to the data folder. The end of a path is enough where it is unambiguous.

    Raises:
        DataError: the file is missing or malformed, or a path is unknown or ambiguous.
    """
    index = FileIndex([sample.path.as_posix() for sample in samples])

    def find(row: PairRow, column: str) -> int:
        rows = index.rows(row.values[column])
        if len(rows) != 1:
            reason = "is ambiguous" if rows else "is no usable image of the data set"
            raise DataError(f"{path}, line {row.line}: {row.values[column][:200]} {reason}")
        return rows[0]

    groups: dict[int, list[int]] = {}
    for row in read_pairs_table(path).rows:
        source, reference = find(row, "source"), find(row, "reference")
        groups.setdefault(source, []).append(reference)
    return _plan(list(groups.items()), ("morph",))
