"""Reports: one HTML file, or one picture, that shows what came out. The only user of Jinja.

A page is gathered as plain records (:class:`Page`) and laid out by ``report.html``, which escapes everything.
Its policy (CSP) allows no network and no script but its own, so that a hostile class name stays a name. Nothing on
it is a time: equal inputs give equal pages.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
import numpy as np
from jaxtyping import UInt8
from markupsafe import Markup

from dagaug import figures as figuring
from dagaug import gallery
from dagaug import images as imaging
from dagaug.cloud import KINDS, Cloud
from dagaug.curves import HEIGHT, WIDTH, read_metrics
from dagaug.errors import DataError, StoreError
from dagaug.figures import Form
from dagaug.gallery import Attended, Morphs, Originals, Shown
from dagaug.palette import PALETTE
from dagaug.runfolder import Training, data_uri, read_training, run_options
from dagaug.scatter import COLUMNS, Group, Scatter, scatter, tiled
from dagaug.scoretable import ScoreTable, read_score, score_table
from dagaug.sheets import Triple, attention_overlay, contact_sheet, region_colours, triple_sheet
from dagaug.store import Store
from dagaug.wording import names_of, percent, reason, term_words

__all__ = [
    "Look",
    "Page",
    "Training",
    "attention_overlay",
    "contact_sheet",
    "sheet_of_store",
    "write_figures",
    "write_report",
    "write_run_report",
]

Look = Callable[[Sequence[Shown]], list[Attended | None]]
"""Finds the attended regions of pictures."""

_THUMBNAIL_SIDE = 128
_THUMBNAIL_QUALITY = 85
_MOST_MORPHS = 1000
_GALLERY_BYTES = 2_300_000  # base64; with the cloud, sheets, attention and text a page stays under 5 MB
_CLOUD_BYTES = 500_000
_SKIPPED_ROWS = 200
_LONGEST_VALUE = 600


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
class _Counts:
    facts: tuple[tuple[str, str], ...]
    verdicts: tuple[_VerdictRow, ...]
    classes: tuple[_ClassRow, ...]


@dataclass(frozen=True)
class _Gallery:
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
class _CloudPlot:
    """The data cloud; ``data`` becomes JSON."""

    explained: str
    measured: str
    kinds: tuple[tuple[int, str], ...]
    groups: tuple[Group, ...]
    dots: tuple[_Dot, ...]
    data: dict[str, object]


@dataclass(frozen=True)
class Page:
    """Everything on a page; what is None or empty has no section."""

    kind: str
    title: str
    about: str
    version: str
    provenance: tuple[tuple[str, str], ...]
    options: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    skipped_total: int = 0
    score: ScoreTable | None = None
    counts: _Counts | None = None
    gallery: _Gallery | None = None
    cloud: _CloudPlot | None = None
    unclouded: str = ""
    training: Training = field(default_factory=Training)


def sheet_of_store(
    path: Path | str,
    out: Path | str,
    *,
    rows: int = 24,
    seed: int = 0,
    kept_only: bool = True,
    data: Path | None = None,
) -> None:
    """Write a PNG of random morphs, evenly over the classes: source, reference, result with its confidence.

    Args:
        path: HDF5 file of ``dagaug augment``.
        out: PNG to write; replaced if it is there.
        rows: how many morphs.
        seed: which ones.
        kept_only: only what the selection kept.
        data: the data folder, for sources and references where the file has no real images.

    Raises:
        StoreError: the file is missing, does not read, or holds no such morph.
        DataError: ``out`` cannot be written.
    """
    sheet = _sheet(Path(path), rows=rows, seed=seed, kept_only=kept_only, data=data)
    _write(Path(out), imaging.encode(sheet, "png"))


def _sheet(
    path: Path, *, rows: int, seed: int, kept_only: bool = True, data: Path | None
) -> UInt8[np.ndarray, "H W 3"]:
    with Store(path) as store:
        morphs, names = Morphs.of(store), names_of(store.classes)
        among = np.flatnonzero(morphs.kept) if kept_only else np.arange(len(morphs))
        if not len(among):
            raise StoreError(f"{path}: no synthetic images to show; make some: dagaug augment DATA")
        originals = Originals(store, data)
        chosen = gallery.random_of_each_class(morphs, among, max(1, rows), seed)
        triples = [_triple(store, originals, morphs, names, morph) for morph in chosen]
        return triple_sheet(triples)


def _triple(store: Store, originals: Originals, morphs: Morphs, names: Sequence[str], morph: int) -> Triple:
    reference_label = int(morphs.reference_label[morph])
    confidence = morphs.confidence[morph]
    parts = [f"{confidence:.2f}" if np.isfinite(confidence) else "–"]
    parts += [kind] if (kind := morphs.kind[morph]) != "morph" else []
    if not morphs.kept[morph]:
        parts.append(morphs.verdicts[morphs.verdict[morph]])
    return Triple(
        source=originals.picture(int(morphs.source[morph])),
        reference=originals.picture(int(morphs.reference[morph]), mirrored=bool(morphs.mirrored[morph])),
        result=store.image(int(morphs.row[morph])),
        source_name=_printable(names[morphs.label[morph]]),
        reference_name=_printable(names[reference_label]) if reference_label >= 0 else "",
        note=_printable("  ".join(parts)),
    )


def write_report(
    store: Path | str,
    out: Path | str,
    *,
    run: Path | None = None,
    score: Path | None = None,
    data: Path | None = None,
    attention: Look | None = None,
    unattended: str = "",
    cloud: Cloud | None = None,
    unclouded: str = "",
) -> None:
    """Write the report of an HDF5 file: one HTML file that needs nothing else.

    Args:
        store: HDF5 file of ``dagaug augment``.
        out: HTML file to write; replaced if it is there.
        run: folder of the training run, for curves, sheets and attention.
        score: JSON of ``dagaug score``.
        data: the data folder, for sources and references where the file has no real images.
        attention: finds the attended regions of pictures (:class:`dagaug.attention.Attention`).
        unattended: why there is no ``attention``.
        cloud: the data cloud (:func:`dagaug.cloud.cloud_of`).
        unclouded: why there is none.

    Raises:
        StoreError: the HDF5 file is missing or does not read.
        DataError: the run or the score is missing or no such thing, or ``out`` cannot be written.
    """
    store = Path(store)
    scored = None if score is None else read_score(score)
    training = Training() if run is None else read_training(run)
    with Store(store) as opened:
        header, morphs = opened.header, Morphs.of(opened)
        names = names_of(header.classes)
        made = f"{len(morphs):,} synthetic images of {len(names)} classes"
        options = [("Options of dagaug augment", _flat(header.options))]
        if run is not None:
            options.append(("Options of dagaug train", _flat(run_options(run))))
        if scored is not None:
            options.append(("Options of dagaug score", _flat(scored.options)))
        page = Page(
            kind="Augmented data set",
            title=store.name,
            about=made + (f", made by {header.created_by}" if header.created_by else ""),
            version=_version(),
            score=None if scored is None else score_table(scored),
            counts=_counts(opened, morphs, names),
            gallery=_gallery(opened, morphs, names, data, attention, unattended),
            cloud=None if cloud is None else _cloud_plot(opened, names, cloud),
            unclouded=unclouded,
            provenance=_store_provenance(opened, run, score),
            options=tuple((title, rows) for title, rows in options if rows),
            skipped=header.skipped[:_SKIPPED_ROWS],
            skipped_total=len(header.skipped),
            training=training,
        )
    _write(Path(out), _rendered(page))


def write_figures(
    store: Path | str,
    folder: Path,
    form: Form,
    *,
    run: Path | None = None,
    score: Path | None = None,
    data: Path | None = None,
    cloud: Cloud | None = None,
    rows: int = 24,
    seed: int = 0,
) -> tuple[Path, ...]:
    """Write each plot, and a contact sheet, to a file of its own, fit for a paper.

    Args:
        store: HDF5 file of ``dagaug augment``.
        folder: for the figures; made if it is not there, files of the same names are replaced.
        form: ``png`` or ``pdf``.
        run: folder of the training run, for its curves.
        score: JSON of ``dagaug score``, for its plots.
        data: the data folder, for sources and references where the file has no real images.
        cloud: the data cloud (:func:`dagaug.cloud.cloud_of`).
        rows: morphs on the contact sheet.
        seed: which ones.

    Returns:
        The files.

    Raises:
        StoreError: the HDF5 file is missing, does not read, or has no synthetic images.
        DataError: the score is missing or no such thing, or the folder cannot be written.
    """
    figures = [] if score is None else list(figuring.score_figures(read_score(score), form))
    sheet = _sheet(Path(store), rows=rows, seed=seed, data=data)
    figures.append(("morphs", imaging.encode(sheet, "png") if form == "png" else figuring.picture_figure(sheet, form)))
    if cloud is not None:
        with Store(store) as opened:
            figures.append(("cloud", figuring.cloud_figure(_scattered(cloud, names_of(opened.classes)), form)))
    curves = figuring.training_figure(read_metrics(run / "metrics.jsonl"), form) if run is not None else None
    if curves is not None:
        figures.append(("training", curves))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made ({error.strerror}); choose another --out") from error
    files = tuple(folder / f"{name}.{form}" for name, _ in figures)
    for file, (_, content) in zip(files, figures, strict=True):
        _write(file, content)
    return files


def write_run_report(run: Path | str, out: Path | str) -> None:
    """Write the report of a training run without an HDF5 file: curves, sheets, attention, options.

    Raises:
        DataError: no such run, or ``out`` cannot be written.
    """
    run = Path(run)
    training, options = read_training(run), _flat(run_options(run))
    provenance = [("Run", str(run))]
    model = run / "model.safetensors"
    if model.is_file():
        provenance.append(("Checkpoint, SHA-256", _sha256(model)))
    page = Page(
        kind="Training run",
        title=run.resolve().name,
        about="" if model.is_file() else "Not finished: no model.safetensors yet.",
        version=_version(),
        provenance=tuple(provenance),
        options=(("Options of dagaug train", options),) if options else (),
        training=training,
    )
    _write(Path(out), _rendered(page))


# What is in the file


def _counts(store: Store, morphs: Morphs, names: Sequence[str]) -> _Counts:
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
    return _Counts(
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
            kept=name == gallery.KEPT,
        )
        for name, number, pictures in zip(verdicts, numbers, pictured, strict=True)
        if number
    )


def _class_rows(store: Store, morphs: Morphs, names: Sequence[str]) -> tuple[_ClassRow, ...]:
    header, candidates, classes = store.header, store.candidates, len(names)
    kept_verdict = header.verdicts.index(gallery.KEPT) if gallery.KEPT in header.verdicts else -1
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


def _gallery(
    store: Store, morphs: Morphs, names: Sequence[str], data: Path | None, attention: Look | None, unattended: str
) -> _Gallery:
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
    for (morph, *pictures), rank in zip(chosen.items, chosen.ranks, strict=True):
        source, reference = int(morphs.source[morph]), int(morphs.reference[morph])
        confidence = float(morphs.confidence[morph])
        items.append(
            {
                "pictures": pictures,
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
    return _Gallery(
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
            "kept": morphs.verdicts.index(gallery.KEPT),
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


def _scattered(cloud: Cloud, names: Sequence[str]) -> Scatter:
    return scatter(cloud.points, cloud.kind, cloud.label, KINDS, names)


def _cloud_plot(store: Store, names: Sequence[str], cloud: Cloud) -> _CloudPlot:
    drawn, table, files = _scattered(cloud, names), store.images, store.header.files
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
    return _CloudPlot(
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


# Provenance


def _store_provenance(store: Store, run: Path | None, score: Path | None) -> tuple[tuple[str, str], ...]:
    header = store.header
    encoding = f"jpeg, quality {header.quality}" if header.encoding == "jpeg" else header.encoding
    rows = [
        ("File", str(store.path)),
        ("Written by", header.created_by),
        ("Content, SHA-256", store.column("content_sha256").tobytes().hex()),
        ("Checkpoint, SHA-256", header.checkpoint_sha256),
        ("Seed", str(header.seed)),
        ("Images stored as", encoding),
        ("Run", "" if run is None else str(run)),
        ("Score", "" if score is None else str(score)),
    ]
    return tuple((name, value) for name, value in rows if value)


def _flat(options: Mapping[str, object], before: str = "") -> tuple[tuple[str, str], ...]:
    """Nested options as (dotted name, value)."""
    return tuple(_flattened(options, before))


def _flattened(options: Mapping[str, object], before: str) -> Iterator[tuple[str, str]]:
    for name, value in options.items():
        if isinstance(value, Mapping) and value:
            yield from _flattened(value, f"{before}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
            yield f"{before}{name}", text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "…"


def _version() -> str:
    try:
        return f"dagaug {importlib.metadata.version('dagaug')}"
    except importlib.metadata.PackageNotFoundError:
        return "dagaug"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# The page


def _rendered(page: Page) -> bytes:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = _number
    environment.filters["words"] = term_words
    script = _resource("report.js")
    html = environment.from_string(_resource("report.html")).render(
        page=page,
        script=Markup(script),
        integrity=_integrity(script),
        style=Markup(_resource("report.css")),
        palette=PALETTE,
        curve_size=(WIDTH, HEIGHT),
    )
    return _printable(html).encode()


def _resource(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8").strip()


def _printable(text: str) -> str:
    """The same text with a replacement character for what is not UTF-8 in names from the disk."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _integrity(script: str) -> str:
    """What the page's policy asks for, so that only its own script runs."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _number(value: float) -> str:
    """Three digits that matter."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _write(out: Path, content: bytes) -> None:
    """Write a file that appears under its name only when it is whole."""
    temporary = out.with_name(out.name + ".tmp")
    try:
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(out)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror}); choose another --out") from error
