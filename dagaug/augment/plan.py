"""Which morphs are made: a plan that depends on the data's lists, options and seed alone (paper, Sec. 4.6)."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from dagaug.data.dataset import Sample
from dagaug.runtime.errors import DataError, UsageError

__all__ = [
    "BACKGROUNDS",
    "DEFAULT_VARIANTS",
    "UNMORPHED",
    "VARIANTS",
    "VIEWS",
    "VIEW_OF",
    "Background",
    "Plan",
    "Variant",
    "background_in",
    "backgrounds",
    "pairs_from_csv",
    "random_plan",
    "variant_name",
]

Variant = Literal["morph", "mirror", "cutout"]


VARIANTS: tuple[Variant, ...] = get_args(Variant)
"""Candidates for one reference: the source in its pose, in that of its mirror image, and unmorphed in its place."""


DEFAULT_VARIANTS: tuple[Variant, ...] = ("morph", "mirror")

VIEWS = ("plain", "mirrored")
"""How a variant sees its reference and what stands behind it."""


VIEW_OF: UInt8[np.ndarray, " V"] = np.array([int(variant == "mirror") for variant in VARIANTS], np.uint8)
"""The view, a row of :data:`VIEWS`, of each variant."""


UNMORPHED: Bool[np.ndarray, " V"] = np.array([variant == "cutout" for variant in VARIANTS])
"""Whether each variant is the source as it is."""

Background = Literal["reference", "source", "other"]


BACKGROUNDS: tuple[Background, ...] = get_args(Background)
"""What stands behind a candidate: its reference's background, its source's, or the source's next reference's."""


def background_in(options: Mapping[str, object]) -> Background:
    """What was asked for by a file's options; older ones do not tell."""
    found = [name for name in BACKGROUNDS if name == options.get("background")]
    return found[0] if found else "reference"


def variant_name(name: str) -> str:
    """The name of a variant by the name that a user or an older file gives it."""
    return "morph" if name == "reference" else name


@dataclass(frozen=True)
class Plan:
    """Candidates in order, grouped by source.

    Attributes:
        source, reference: rows in the samples that the plan was made for.
        variant: rows in :data:`VARIANTS`.
        starts: where each source's candidates begin, and the end of the last; a source may have none.
        background: rows of the images whose backgrounds stand behind; None for the references themselves.
    """

    source: Int64[np.ndarray, " M"]
    reference: Int64[np.ndarray, " M"]
    variant: UInt8[np.ndarray, " M"]
    starts: Int64[np.ndarray, " P"]
    background: Int64[np.ndarray, " M"] | None = None

    @property
    def behind(self) -> Int64[np.ndarray, " M"]:
        """Rows of the images whose backgrounds stand behind."""
        return self.reference if self.background is None else self.background

    def on(self, background: Background) -> Plan:
        """The same plan on other backgrounds; see :func:`backgrounds`."""
        return replace(self, background=backgrounds(background, self.source, self.reference))

    def take(self, rows: Int64[np.ndarray, " m"]) -> Plan:
        """Some of the candidates, as if they were of one source."""
        background = None if self.background is None else self.background[rows]
        starts = np.array([0, len(rows)], np.int64)
        return Plan(self.source[rows], self.reference[rows], self.variant[rows], starts, background)

    def __len__(self) -> int:
        return len(self.source)

    @property
    def sources(self) -> int:
        """Number of sources that have candidates."""
        return int(np.count_nonzero(np.diff(self.starts)))

    def shards(self, sources: int) -> list[slice]:
        """The candidates of ``sources`` sources at a time."""
        firsts = self.starts[:-1:sources]
        ends = [*firsts[1:], self.starts[-1]]
        return [slice(int(first), int(end)) for first, end in zip(firsts, ends, strict=True)]


def _plan(groups: Sequence[tuple[int, Sequence[int]]], variants: Sequence[Variant]) -> Plan:
    codes = np.array([VARIANTS.index(variant) for variant in variants], np.uint8)
    source, reference, starts = [], [], [0]
    for row, references in groups:
        source += [row] * len(references) * len(codes)
        reference += [other for other in references for _ in codes]
        starts.append(len(source))
    variant = np.tile(codes, len(source) // len(codes))
    return Plan(np.array(source, np.int64), np.array(reference, np.int64), variant, np.array(starts, np.int64))


def backgrounds(
    background: Background, source: Int64[np.ndarray, " M"], reference: Int64[np.ndarray, " M"]
) -> Int64[np.ndarray, " M"] | None:
    """Which images' backgrounds stand behind candidates.

    ``other`` is the next of the source's references, the first after the last: a random training image, as each
    reference is, that is neither of the two, and that all of a source's candidates tell without a further column.

    Args:
        background: one of :data:`BACKGROUNDS`.
        source, reference: of each candidate, any integer ids; all candidates of a source must be among them.

    Returns:
        Ids; None for the references'.

    Raises:
        UsageError: ``other``, and a source has but one reference.
    """
    if background == "reference":
        return None
    if background == "source":
        return source
    own: dict[int, dict[int, None]] = {}
    pairs = list(zip(source.tolist(), reference.tolist(), strict=True))
    for one, wanted in pairs:
        own.setdefault(one, {})[wanted] = None
    if any(len(references) < 2 for references in own.values()):
        raise UsageError(
            "--background other: is that of the source's next reference, so that each needs 2; ask for --refs 2 or more"
        )
    following: dict[tuple[int, int], int] = {}
    for one, references in own.items():
        names = list(references)
        following |= {(one, name): after for name, after in zip(names, names[1:] + names[:1], strict=True)}
    return np.array([following[pair] for pair in pairs], np.int64)


def random_plan(
    count: int,
    *,
    refs: int,
    variants: Sequence[Variant],
    seed: int,
    limit: int | None = None,
    usable: Bool[np.ndarray, " N"] | None = None,
) -> Plan:
    """Random references for each source, all different and none the source itself.

    Args:
        count: how many samples there are; each is a source and may be a reference.
        refs: references for each source.
        variants: candidates for each reference, of :data:`VARIANTS`.
        seed: of the draw; a source's references do not depend on the other sources.
        limit: only so many sources, spread evenly over the samples.
        usable: the samples that can be read. The others are sources without candidates, and each time that one is
            drawn as a reference another is drawn in its place, so that all other candidates stay as they were.

    Raises:
        UsageError: there are not as many other images as references are asked for.
    """
    if refs < 1:
        raise UsageError(f"--refs {refs}: ask for at least 1")
    usable = np.ones(count, bool) if usable is None else usable
    others = int(usable.sum()) - 1
    if refs > others:
        raise UsageError(f"--refs {refs}: there are only {others} other training images; ask for at most that many")
    sources = range(count) if limit is None or limit >= count else np.linspace(0, count - 1, limit).round().astype(int)
    groups = [(int(row), _references(int(row), usable, refs, seed)) for row in sources]
    return _plan(groups, variants)


def _references(source: int, usable: Bool[np.ndarray, " N"], refs: int, seed: int) -> list[int]:
    if not usable[source]:
        return []
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


def pairs_from_csv(path: Path, samples: Sequence[Sample]) -> Plan:
    """Exactly the pairs of a CSV file with the columns source and reference.

    Paths are those of the samples, relative to the data folder; an unambiguous end of one will do.

    Raises:
        DataError: the file is not there or not such a table, or a path is unknown or ambiguous.
    """
    known: dict[str, list[int]] = {}
    for row, sample in enumerate(samples):
        parts = sample.path.as_posix().split("/")
        for first in range(len(parts)):
            known.setdefault("/".join(parts[first:]), []).append(row)

    def find(text: str, line: int) -> int:
        rows = known.get(text, [])
        if len(rows) != 1:
            what = "is ambiguous" if rows else "is no readable image of the data set"
            raise DataError(f"{path}, line {line}: {text[:200]} {what}")
        return rows[0]

    groups: dict[int, list[int]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            table = csv.DictReader(stream)
            if not {"source", "reference"} <= set(table.fieldnames or ()):
                raise DataError(f"{path}: its header must name the columns source and reference")
            for line, record in enumerate(table, 2):
                source, reference = find(record["source"] or "", line), find(record["reference"] or "", line)
                groups.setdefault(source, []).append(reference)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable table ({error})") from error
    if not groups:
        raise DataError(f"{path}: names no pairs")
    return _plan(list(groups.items()), ("morph",))
