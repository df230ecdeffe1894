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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np

from dagaug import gallery
from dagaug import images as imaging
from dagaug.curves import HEIGHT, WIDTH, Curve, draw, read_metrics
from dagaug.errors import DataError, ImageError, StoreError
from dagaug.gallery import Morphs, Originals
from dagaug.scoretable import HEIGHT as SCORE_HEIGHT
from dagaug.scoretable import WIDTH as SCORE_WIDTH
from dagaug.scoretable import ScoreTable, read_score
from dagaug.sheets import Triple, attention_overlay, contact_sheet, triple_sheet
from dagaug.store import Store

__all__ = [
    "Page",
    "Training",
    "attention_overlay",
    "contact_sheet",
    "sheet_of_store",
    "write_report",
    "write_run_report",
]

_THUMBNAIL_SIDE = 128
_THUMBNAIL_QUALITY = 85
_MOST_MORPHS = 1000
_GALLERY_BYTES = 3_000_000  # base64; with sheets, attention and text a page stays under 5 MB
_SHEETS = 4
_SHEETS_BYTES = 1_300_000
_SHEET_SIDES = (1400, 1000, 700, 350)
_QUALITIES = (88, 75, 60)
_SKIPPED_ROWS = 200
_LONGEST_VALUE = 600


@dataclass(frozen=True)
class _VerdictRow:
    name: str
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
    tabs: tuple[tuple[str, str], ...]
    classes: tuple[tuple[int, str], ...]
    verdicts: tuple[tuple[int, str], ...]
    data: dict[str, object]


@dataclass(frozen=True)
class _Picture:
    caption: str
    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Training:
    """What a run's folder shows of its training."""

    curves: tuple[Curve, ...] = ()
    explained: str = ""
    newest: _Picture | None = None
    earlier: tuple[_Picture, ...] = ()
    sheets_total: int = 0
    attention: _Picture | None = None


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
    training: Training = Training()


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
    with Store(path) as store:
        morphs, names = Morphs.of(store), gallery.names_of(store.classes)
        among = np.flatnonzero(morphs.kept) if kept_only else np.arange(len(morphs))
        if not len(among):
            raise StoreError(f"{path}: no synthetic images to show; make some: dagaug augment DATA")
        originals = Originals(store, data)
        triples = [
            _triple(store, originals, morphs, names, morph)
            for morph in gallery.random_of_each_class(morphs, among, max(1, rows), seed)
        ]
    _write(Path(out), imaging.encode(triple_sheet(triples), "png"))


def _triple(store: Store, originals: Originals, morphs: Morphs, names: Sequence[str], morph: int) -> Triple:
    reference_label = int(morphs.reference_label[morph])
    confidence = morphs.confidence[morph]
    parts = [f"{confidence:.2f}" if np.isfinite(confidence) else "–"]
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
) -> None:
    """Write the report of an HDF5 file: one HTML file that needs nothing else.

    Args:
        store: HDF5 file of ``dagaug augment``.
        out: HTML file to write; replaced if it is there.
        run: folder of the training run, for curves, sheets and attention.
        score: JSON of ``dagaug score``.
        data: the data folder, for sources and references where the file has no real images.

    Raises:
        StoreError: the HDF5 file is missing or does not read.
        DataError: the run or the score is missing or no such thing, or ``out`` cannot be written.
    """
    store = Path(store)
    scored = None if score is None else read_score(score)
    training = Training() if run is None else _training(run)
    with Store(store) as opened:
        header, morphs = opened.header, Morphs.of(opened)
        names = gallery.names_of(header.classes)
        made = f"{len(morphs):,} synthetic images of {len(names)} classes"
        options = [("Options of dagaug augment", _flat(header.options))]
        if run is not None:
            options.append(("Options of dagaug train", _run_options(run)))
        page = Page(
            kind="Augmented data set",
            title=store.name,
            about=made + (f", made by {header.created_by}" if header.created_by else ""),
            version=_version(),
            score=scored,
            counts=_counts(opened, morphs, names),
            gallery=_gallery(opened, morphs, names, data),
            provenance=_store_provenance(opened, run, score),
            options=tuple((title, rows) for title, rows in options if rows),
            skipped=header.skipped[:_SKIPPED_ROWS],
            skipped_total=len(header.skipped),
            training=training,
        )
    _write(Path(out), _rendered(page))


def write_run_report(run: Path | str, out: Path | str) -> None:
    """Write the report of a training run without an HDF5 file: curves, sheets, attention, options.

    Raises:
        DataError: no such run, or ``out`` cannot be written.
    """
    run = Path(run)
    training, options = _training(run), _run_options(run)
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
            number=f"{number:,}",
            percent=f"{number / whole:.1%}",
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


def _gallery(store: Store, morphs: Morphs, names: Sequence[str], data: Path | None) -> _Gallery:
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
    for morph, *pictures in chosen.items:
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
                "files": [files[source], files[reference] if reference >= 0 else ""],
            }
        )
    in_file = np.bincount(morphs.verdict, minlength=len(morphs.verdicts))
    judged = np.bincount(store.candidates.verdict, minlength=len(morphs.verdicts))
    return _Gallery(
        total=chosen.total,
        explained=_gallery_explained(len(items), chosen.total),
        tabs=(("random", "Random"), ("best", "Best"), ("worst", "Worst")),
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
        data={
            "pictures": [_data_uri(picture) for picture in chosen.pictures],
            "items": items,
            "tabs": chosen.tabs,
            "classes": names,
            "full_names": store.classes,
            "verdicts": morphs.verdicts,
            "kept": morphs.verdicts.index(gallery.KEPT),
        },
    )


def _gallery_explained(shown: int, total: int) -> str:
    if shown == total:
        return f"All {total:,} of the file, in random order, the surest first, or the least sure first."
    return (
        f"{shown:,} of the {total:,} in the file: some drawn at random, the surest of each class, "
        "and the least sure of each class. Random shows what they are like; best and worst show the ends."
    )


# What is in the run


def _training(run: Path) -> Training:
    """Read what there is; a young run may have little of it.

    Raises:
        DataError: no such folder, or a file in it cannot be read.
    """
    if not run.is_dir():
        raise DataError(f"{run}: no such run; train one first: dagaug train DATA")
    sheets = sorted((run / "sheets").glob("*.png"))
    shown = [sheets[place] for place in _evenly(len(sheets), _SHEETS)]
    attention = run / "attention.png"
    try:
        pictures = [_picture(path, _step_of(path), _SHEETS_BYTES // _SHEETS) for path in shown]
        drawn, explained = _curves(run / "metrics.jsonl")
        return Training(
            curves=drawn,
            explained=explained,
            newest=pictures[-1] if pictures else None,
            earlier=tuple(pictures[:-1]),
            sheets_total=len(sheets),
            attention=_picture(attention, "", _SHEETS_BYTES // _SHEETS) if attention.is_file() else None,
        )
    except OSError as error:
        raise DataError(f"{error.filename or run}: cannot be read ({error.strerror})") from error
    except ImageError as error:
        raise DataError(f"{error}; delete it, or train again") from error


def _curves(path: Path) -> tuple[tuple[Curve, ...], str]:
    if not path.is_file():
        return (), ""
    metrics = read_metrics(path)
    explained = "Each line is the mean over short stretches of steps, the band their smallest and largest values."
    if metrics.unreadable:
        explained += f" Lines of metrics.jsonl that could not be read: {metrics.unreadable:,}."
    return tuple(draw(metrics)), explained


def _evenly(count: int, most: int) -> list[int]:
    """Up to ``most`` places among ``count``, the first and the last with them."""
    if count <= most:
        return list(range(count))
    return sorted({round(place) for place in np.linspace(0, count - 1, most).tolist()})


def _step_of(path: Path) -> str:
    """``step-000500`` as people write it; another name as it is."""
    name, _, digits = path.stem.partition("-")
    return f"step {int(digits):,}" if name == "step" and digits.isdecimal() else path.stem


def _picture(path: Path, caption: str, budget: int) -> _Picture:
    """Embed a picture; as good as the budget of bytes allows."""
    image = imaging.decode(path)
    attempts = [(side, quality) for side in _SHEET_SIDES for quality in _QUALITIES]
    for side, quality in attempts:  # the last stands where none fits
        data = gallery.encoded_small(image, side, quality)
        if len(data) * 4 / 3 <= budget:
            break
    scale = min(1.0, side / max(image.shape[:2]))
    height, width = (max(1, round(length * scale)) for length in image.shape[:2])
    return _Picture(caption, _data_uri(data), width, height)


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


def _run_options(run: Path) -> tuple[tuple[str, str], ...]:
    path = run / "options.json"
    if not path.is_file():
        return ()
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); train again or restore it") from error
    return tuple(_flat(found)) if isinstance(found, dict) else ()


def _flat(options: Mapping[str, object], before: str = "") -> tuple[tuple[str, str], ...]:
    """Nested options as (dotted name, value)."""
    return tuple(_flattened(options, before))


def _flattened(options: Mapping[str, object], before: str) -> Iterator[tuple[str, str]]:
    for name, value in options.items():
        if isinstance(value, Mapping) and value:
            yield from _flattened(value, f"{before}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
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
    template = Path(__file__).with_name("report.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["integrity"] = _integrity
    environment.filters["number"] = _number
    html = environment.from_string(template).render(
        page=page, curve_size=(WIDTH, HEIGHT), score_size=(SCORE_WIDTH, SCORE_HEIGHT)
    )
    return _printable(html).encode()


def _printable(text: str) -> str:
    """The same text with a replacement character for what is not UTF-8 in names from the disk."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _integrity(script: str) -> str:
    """What the page's policy asks for, so that only its own script runs."""
    return "sha256-" + base64.b64encode(hashlib.sha256(str(script).encode()).digest()).decode()


def _number(value: float) -> str:
    """Three digits that matter."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _data_uri(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


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
