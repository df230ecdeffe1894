"""Reports: one HTML file, or one picture, that shows what came out. The only user of Jinja.

A page is gathered as plain records (:class:`Page`) and laid out by ``report.html``, which escapes everything.
Its policy (CSP) allows no network and no script but its own, so that a hostile class name stays a name. Nothing on
it is a time: equal inputs give equal pages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dagaug.hdf5.reader import Store
from dagaug.report import gallery
from dagaug.report.contact_sheets import region_colours
from dagaug.report.data_cloud import KINDS, Cloud
from dagaug.report.pictures import KEPT, Attended, Morphs, Originals, Shown
from dagaug.report.scatter import COLUMNS, Group, Scatter, scatter, tiled
from dagaug.report.training_run import data_uri
from dagaug.report.wording import percent, reason

__all__ = [
    "CloudPlot",
    "Counts",
    "GallerySection",
    "Look",
    "cloud_plot",
    "count_candidates",
    "gallery_section",
    "scatter_groups",
]

Look = Callable[[Sequence[Shown]], list[Attended | None]]
"""Finds the attended regions of pictures."""

_THUMBNAIL_SIDE = 128


_THUMBNAIL_QUALITY = 85


_MOST_MORPHS = 1000


_GALLERY_BYTES = 2_300_000  # base64; with the cloud, sheets, attention and text a page stays under 5 MB


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
class Counts:
    facts: tuple[tuple[str, str], ...]
    verdicts: tuple[_VerdictRow, ...]
    classes: tuple[_ClassRow, ...]


@dataclass(frozen=True)
class GallerySection:
    """What the page's script and its filters need; ``data`` becomes JSON."""

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
    """A point of the cloud in per mille from the left and the top."""

    x: int
    y: int
    kind: int
    group: int
    colour: int


@dataclass(frozen=True)
class CloudPlot:
    """The data cloud; ``data`` becomes JSON."""

    explained: str
    measured: str
    kinds: tuple[tuple[int, str], ...]
    groups: tuple[Group, ...]
    dots: tuple[_Dot, ...]
    data: dict[str, object]


# What is in the file


def count_candidates(store: Store, morphs: Morphs, names: Sequence[str]) -> Counts:
    header, candidates = store.header, store.candidates
    train = header.files_split == 0
    facts = [("real training images", int(train.sum())), ("real test images", int((~train).sum()))]
    if len(candidates):
        facts.append(("candidates", len(candidates)))
    facts.append(("synthetic images", len(morphs)))
    kinds = Counter(morphs.kind)
    facts += [(f"of the kind {kind}", kinds[kind]) for kind in sorted(kinds) if len(kinds) > 1]
    if header.skipped:
        facts.append(("files skipped", len(header.skipped)))
    return Counts(
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


def _class_rows(store: Store, morphs: Morphs, names: Sequence[str]) -> tuple[_ClassRow, ...]:
    header, candidates, classes = store.header, store.candidates, len(names)
    kept_verdict = header.verdicts.index(KEPT) if KEPT in header.verdicts else -1
    real = np.bincount(header.files_label[header.files_split == 0], minlength=classes)
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


def gallery_section(
    store: Store, morphs: Morphs, names: Sequence[str], data: Path | None, attention: Look | None, unattended: str
) -> GallerySection:
    chosen = gallery.choose(
        store,
        Originals(store, data),
        side=_THUMBNAIL_SIDE,
        quality=_THUMBNAIL_QUALITY,
        most=_MOST_MORPHS,
        budget=_GALLERY_BYTES,
    )
    files = store.header.files
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
    regions, count = _regions(attention, chosen.shown)
    in_file = np.bincount(morphs.verdict, minlength=len(morphs.verdicts))
    judged = np.bincount(store.candidates.verdict, minlength=len(morphs.verdicts))
    return GallerySection(
        total=chosen.total,
        explained=_gallery_explained(len(items), chosen.total),
        tabs=(
            ("random", "Random", "Drawn at random from all: what the file is like."),
            ("best", "Best", "The surest of each class, by the classifier. Chosen: most are not like these."),
            ("worst", "Worst", "The least sure of each class, by the classifier. Chosen: most are not like these."),
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
        attention=_attention_explained(count, unattended),
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


def _regions(attention: Look | None, shown: Sequence[Shown]) -> tuple[list[list[float] | None], int]:
    """For each picture its width, its height, half the side of a box, then x and y of each centre; and how many."""
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


def _attention_explained(count: int, unattended: str) -> str:
    if count:
        return (
            f"Attended regions: the network’s {count} boxes and their centres, one colour for each in every picture; "
            "in a result they are found anew."
        )
    return f"The attended regions are not at hand: {unattended}." if unattended else ""


def _gallery_explained(shown: int, total: int) -> str:
    if shown == total:
        return f"All {total:,} of the file are here."
    return (
        f"{shown:,} of the {total:,} in the file are here: some drawn at random, the surest of each class and the "
        "least sure of each class. Only the random ones show what the file is like."
    )


# The data cloud


def scatter_groups(cloud: Cloud, names: Sequence[str]) -> Scatter:
    return scatter(cloud.points, cloud.kind, cloud.label, KINDS, names)


def cloud_plot(store: Store, names: Sequence[str], cloud: Cloud) -> CloudPlot:
    drawn, table, files = scatter_groups(cloud, names), store.images, store.header.files
    sheet = tiled(cloud.tiles, _CLOUD_BYTES * 3 // 4)
    dots, told = [], []
    for point, kind, group, shown in zip(
        drawn.points, drawn.kind.tolist(), drawn.group.tolist(), cloud.shown, strict=True
    ):
        x, y = np.rint(1000 * point).astype(int).tolist()
        dots.append(_Dot(x, y, kind, group, drawn.groups[group].colour))
        if shown.kind == "result":
            pair = (int(table.source[shown.number]), int(table.reference[shown.number]))
            told.append([files[row] if row >= 0 else "" for row in pair])
        else:
            told.append([files[shown.number]])
    return CloudPlot(
        explained=cloud.explained,
        measured=cloud.measured,
        kinds=tuple((place, name) for place, name in enumerate(KINDS) if (cloud.kind == place).any()),
        groups=drawn.groups,
        dots=tuple(dots),
        data={
            "kinds": KINDS,
            "names": [group.name for group in drawn.groups],
            "files": told,
            "sheet": None if sheet is None else data_uri(sheet),
            "columns": COLUMNS,
        },
    )
