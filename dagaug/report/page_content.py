"""Sections of the HTML page as plain records: counts, morphs, data cloud.

No record holds a time stamp: equal inputs give equal pages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dagaug.hdf5.reader import Store
from dagaug.report.contact_sheets import region_colours
from dagaug.report.data_cloud import KINDS, Cloud
from dagaug.report.morph_images import KEPT, AttendedRegions, ImageRef, MorphTable, OriginalImages
from dagaug.report.scatter import COLUMNS, Group, Scatter, scatter, tile_sheet
from dagaug.report.shown_morphs import SelectedMorphs, select_morphs
from dagaug.report.training_run import data_uri
from dagaug.report.wording import percent, reason

__all__ = [
    "MORPHS_BYTES",
    "CandidateCounts",
    "CloudSection",
    "FindRegions",
    "MorphSection",
    "candidate_counts",
    "cloud_scatter",
    "cloud_section",
    "morph_section",
]

FindRegions = Callable[[Sequence[ImageRef]], list[AttendedRegions | None]]
"""Function that returns the attended regions of images; None for an image that is not available."""

_THUMBNAIL_SIDE = 128
_THUMBNAIL_QUALITY = 85
_MOST_MORPHS = 1000

MORPHS_BYTES = 2_300_000
"""Bytes of all morphs' images on a page, at most; the whole page stays under 5 MB."""

_CLOUD_BYTES = 500_000


@dataclass(frozen=True)
class _VerdictRow:
    name: str
    reason: str
    number: str
    percent: str
    pictures: str
    share: float
    kept: bool


@dataclass(frozen=True)
class _ClassRow:
    name: str
    real: str
    candidates: str
    synthetic: str
    confidence: str
    share: float


@dataclass(frozen=True)
class CandidateCounts:
    """Numbers of images and candidates: in total, by verdict, and by class."""

    facts: tuple[tuple[str, str], ...]
    verdicts: tuple[_VerdictRow, ...]
    classes: tuple[_ClassRow, ...]


@dataclass(frozen=True)
class MorphSection:
    """Content of the section on morphs; ``data`` becomes JSON for the script of the page."""

    total: int
    explained: str
    tabs: tuple[tuple[str, str, str], ...]
    classes: tuple[tuple[int, str], ...]
    verdicts: tuple[tuple[int, str], ...]
    attended: bool
    attention: str
    data: dict[str, object]


@dataclass(frozen=True)
class _Dot:
    """A point of the cloud, in per mille from the left and the top."""

    x: int
    y: int
    kind: int
    group: int
    colour: int


@dataclass(frozen=True)
class CloudSection:
    """Content of the section on the data cloud; ``data`` becomes JSON for the script of the page."""

    explained: str
    measured: str
    kinds: tuple[tuple[int, str], ...]
    groups: tuple[Group, ...]
    dots: tuple[_Dot, ...]
    data: dict[str, object]


def candidate_counts(store: Store, morphs: MorphTable, names: Sequence[str]) -> CandidateCounts:
    """Count images and candidates of a file; ``names`` are the class names to show."""
    header, candidates = store.header, store.candidates
    real = ~store.images.synthetic
    train = store.images.split == 0
    facts = [("real training images", int((real & train).sum())), ("real test images", int((real & ~train).sum()))]
    if len(candidates):
        facts.append(("candidates", len(candidates)))
    facts.append(("synthetic images", len(morphs)))
    kinds = Counter(morphs.kind)
    facts += [(f"of the kind {kind}", kinds[kind]) for kind in sorted(kinds) if len(kinds) > 1]
    if header.skipped:
        facts.append(("files skipped", len(header.skipped)))
    return CandidateCounts(
        facts=tuple((name, f"{number:,}") for name, number in facts),
        verdicts=_verdict_rows(store),
        classes=_class_rows(store, morphs, names),
    )


def _verdict_rows(store: Store) -> tuple[_VerdictRow, ...]:
    verdicts, candidates = store.header.verdicts, store.candidates
    numbers = np.bincount(candidates.verdict, minlength=len(verdicts))
    pictured = np.bincount(candidates.verdict[candidates.image >= 0], minlength=len(verdicts))
    whole = max(1, len(candidates))
    return tuple(
        _VerdictRow(
            name=name,
            reason=reason(name),
            number=f"{number:,}",
            percent=percent(number / whole),
            pictures=f"{pictures:,}",
            share=round(100 * float(number) / whole, 2),
            kept=name == KEPT,
        )
        for name, number, pictures in zip(verdicts, numbers, pictured, strict=True)
        if number
    )


def _class_rows(store: Store, morphs: MorphTable, names: Sequence[str]) -> tuple[_ClassRow, ...]:
    header, candidates, classes = store.header, store.candidates, len(names)
    kept_verdict = header.verdicts.index(KEPT) if KEPT in header.verdicts else -1
    images = store.images
    real = np.bincount(images.label[~images.synthetic & (images.split == 0)], minlength=classes)
    asked = np.bincount(candidates.label, minlength=classes)
    kept = np.bincount(candidates.label[candidates.verdict == kept_verdict], minlength=classes)
    made = np.bincount(morphs.label, minlength=classes)
    judged = np.isfinite(morphs.confidence)
    known = np.bincount(morphs.label[judged], minlength=classes)
    total = np.bincount(morphs.label[judged], weights=morphs.confidence[judged], minlength=classes)
    return tuple(
        _ClassRow(
            name=name,
            real=f"{real[label]:,}",
            candidates=f"{asked[label]:,}",
            synthetic=f"{made[label]:,}",
            confidence=f"{total[label] / known[label]:.2f}" if known[label] else "–",
            share=round(100 * float(kept[label]) / max(1, int(asked[label])), 2),
        )
        for label, name in enumerate(names)
    )


def morph_section(
    store: Store,
    morphs: MorphTable,
    names: Sequence[str],
    data: Path | None,
    attention: FindRegions | None,
    attention_missing: str,
    *,
    morphs_bytes: int = MORPHS_BYTES,
) -> MorphSection:
    """Select morphs and describe them for the page.

    Args:
        store: the HDF5 file.
        morphs: its morphs.
        names: class names to show.
        data: data folder, for sources and references that the file does not hold.
        attention: returns attended regions; None to show none.
        attention_missing: reason if there is no ``attention``.
        morphs_bytes: bytes of all images (base64), at most; fewer morphs are shown if they need more.
    """
    chosen = select_morphs(
        store,
        OriginalImages(store, data),
        side=_THUMBNAIL_SIDE,
        quality=_THUMBNAIL_QUALITY,
        most=_MOST_MORPHS,
        budget=morphs_bytes,
    )
    items = _morph_items(chosen, morphs, store.header.files)
    regions, count = _regions(attention, chosen.shown)
    in_file = np.bincount(morphs.verdict, minlength=len(morphs.verdicts))
    judged = np.bincount(store.candidates.verdict, minlength=len(morphs.verdicts))
    return MorphSection(
        total=chosen.total,
        explained=_selection_explained(len(items), chosen.total),
        tabs=(
            ("random", "Random", "A random sample of all morphs in the file."),
            ("best", "Best", "Highest classifier confidence in each class; not representative of the file."),
            ("worst", "Worst", "Lowest classifier confidence in each class; not representative of the file."),
        ),
        classes=tuple(
            (label, f"{names[label]} ({number:,})")
            for label, number in enumerate(np.bincount(morphs.label, minlength=len(names)))
            if number
        ),
        verdicts=tuple(
            (verdict, f"{name} ({in_file[verdict]:,})")
            for verdict, name in enumerate(morphs.verdicts)
            if in_file[verdict] or judged[verdict]
        ),
        attended=count > 0,
        attention=_attention_explained(count, attention_missing),
        data={
            "pictures": [data_uri(picture) for picture in chosen.pictures],
            "items": items,
            "tabs": chosen.tabs,
            "classes": names,
            "full_names": store.classes,
            "verdicts": morphs.verdicts,
            "reasons": [reason(verdict) for verdict in morphs.verdicts],
            "ranked": chosen.ranked,
            "regions": regions,
            "region_colours": [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in region_colours(count)],
            "kept": morphs.verdicts.index(KEPT),
        },
    )


def _morph_items(chosen: SelectedMorphs, morphs: MorphTable, files: Sequence[str]) -> list[dict[str, object]]:
    """One record per selected morph, for the script of the page."""
    items: list[dict[str, object]] = []
    for (morph, *shown), rank in zip(chosen.items, chosen.ranks, strict=True):
        source, reference = int(morphs.source[morph]), int(morphs.reference[morph])
        confidence = float(morphs.confidence[morph])
        items.append(
            {
                "pictures": shown,
                "label": int(morphs.label[morph]),
                "reference_label": int(morphs.reference_label[morph]),
                "predicted": int(morphs.predicted[morph]),
                "confidence": round(confidence, 4) if np.isfinite(confidence) else None,
                "verdict": int(morphs.verdict[morph]),
                "kind": morphs.kind[morph],
                "rank": rank,
                "files": [files[source], files[reference] if reference >= 0 else ""],
            }
        )
    return items


def _regions(attention: FindRegions | None, shown: Sequence[ImageRef]) -> tuple[list[list[float] | None], int]:
    """Per image: width, height, half the side of a box, then x and y of each centre. And the number of regions."""
    if attention is None:
        return [], 0
    regions: list[list[float] | None] = []
    count = 0
    for one in attention(shown):
        if one is None or not np.isfinite(one.centres).all():
            regions.append(None)
            continue
        height, width = one.size
        scale = min(1.0, _THUMBNAIL_SIDE / max(height, width))
        numbers = [width, height, one.half, *one.centres.ravel().tolist()]
        regions.append([round(scale * number, 1) for number in numbers])
        count = max(count, len(one.centres))
    return regions, count


def _attention_explained(count: int, attention_missing: str) -> str:
    if count:
        return (
            f"Attended regions: {count} boxes with their centres; a region has the same colour in every image. In "
            "results they are computed from the result itself."
        )
    return f"Attended regions are not available: {attention_missing}." if attention_missing else ""


def _selection_explained(shown: int, total: int) -> str:
    if shown == total:
        return f"All {total:,} morphs of the file are shown."
    return (
        f"{shown:,} of the {total:,} morphs in the file are shown: a random sample, and those of highest and lowest "
        "confidence in each class. Only the random sample is representative."
    )


def cloud_scatter(cloud: Cloud, names: Sequence[str]) -> Scatter:
    """Points of a data cloud, grouped by class."""
    return scatter(cloud.points, cloud.kind, cloud.label, KINDS, names)


def cloud_section(store: Store, names: Sequence[str], cloud: Cloud) -> CloudSection:
    """Describe a data cloud for the page; ``names`` are the class names to show."""
    drawn, table, files = cloud_scatter(cloud, names), store.images, store.header.files
    sheet = tile_sheet(cloud.tiles, _CLOUD_BYTES * 3 // 4)
    dots, file_names = [], []
    for point, kind, group, shown in zip(
        drawn.points, drawn.kind.tolist(), drawn.group.tolist(), cloud.shown, strict=True
    ):
        x, y = np.rint(1000 * point).astype(int).tolist()
        dots.append(_Dot(x, y, kind, group, drawn.groups[group].colour))
        if shown.kind == "result":
            pair = (int(table.source[shown.number]), int(table.reference[shown.number]))
            file_names.append([files[row] if row >= 0 else "" for row in pair])
        else:
            file_names.append([files[shown.number]])
    return CloudSection(
        explained=cloud.explained,
        measured=cloud.measured,
        kinds=tuple((place, name) for place, name in enumerate(KINDS) if (cloud.kind == place).any()),
        groups=drawn.groups,
        dots=tuple(dots),
        data={
            "kinds": KINDS,
            "names": [group.name for group in drawn.groups],
            "files": file_names,
            "sheet": None if sheet is None else data_uri(sheet),
            "columns": COLUMNS,
        },
    )
