"""Writes reports, contact sheets and figures to files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from dagaug.data.image_files import encode
from dagaug.hdf5.reader import Store
from dagaug.report.class_gains import class_photographs
from dagaug.report.contact_sheets import Triple, triple_sheet
from dagaug.report.data_cloud import Cloud
from dagaug.report.loss_curves import read_metrics
from dagaug.report.morph_images import MorphTable, OriginalImages, sample_of_each_class
from dagaug.report.page import Page, installed_version, printable, render_page
from dagaug.report.page_content import (
    MORPHS_BYTES,
    FindRegions,
    candidate_counts,
    cloud_scatter,
    cloud_section,
    morph_section,
)
from dagaug.report.publication_figures import (
    FigureFormat,
    cloud_figure,
    picture_figure,
    score_figures,
    shots_figures,
    training_figure,
)
from dagaug.report.score_view import score_view
from dagaug.report.shots_view import shots_view
from dagaug.report.training_run import TrainingView, read_training, run_options
from dagaug.report.wording import display_names
from dagaug.runtime.errors import DataError, StoreError
from dagaug.runtime.files import write_atomically
from dagaug.score.results import read_score
from dagaug.score.shot_results import read_shots

__all__ = ["sheet_of_store", "write_figures", "write_report", "write_run_report"]


_SKIPPED_ROWS = 200
_LONGEST_VALUE = 600


def sheet_of_store(
    path: Path | str,
    out: Path | str,
    *,
    rows: int = 24,
    seed: int = 0,
    data: Path | None = None,
) -> None:
    """Write a PNG contact sheet of random kept morphs, balanced over classes: source, reference, result, confidence.

    Args:
        path: HDF5 file of ``dagaug augment``.
        out: PNG file to write; an existing one is replaced.
        rows: number of morphs.
        seed: random seed of the sample.
        data: the data folder, for sources and references if the file has no real images.

    Raises:
        StoreError: the file is missing, unreadable, or has no morphs of this kind.
        DataError: ``out`` cannot be written.
    """
    sheet = _sheet(Path(path), rows=rows, seed=seed, data=data)
    _write(Path(out), encode(sheet, "png"))


def _sheet(path: Path, *, rows: int, seed: int, data: Path | None) -> UInt8[np.ndarray, "H W 3"]:
    with Store(path) as store:
        morphs, names = MorphTable.of(store), display_names(store.classes)
        among = np.flatnonzero(morphs.kept)
        if not len(among):
            raise StoreError(f"{path}: no synthetic images to show; make some: dagaug augment DATA")
        originals = OriginalImages(store, data)
        chosen = sample_of_each_class(morphs, among, max(1, rows), seed)
        triples = [_triple(store, originals, morphs, names, morph) for morph in chosen]
        return triple_sheet(triples)


def _triple(store: Store, originals: OriginalImages, morphs: MorphTable, names: Sequence[str], morph: int) -> Triple:
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
        source_name=printable(names[morphs.label[morph]]),
        reference_name=printable(names[reference_label]) if reference_label >= 0 else "",
        note=printable("  ".join(parts)),
    )


def write_report(
    store: Path | str,
    out: Path | str,
    *,
    run: Path | None = None,
    score: Path | None = None,
    shots: Path | None = None,
    data: Path | None = None,
    attention: FindRegions | None = None,
    attention_missing: str = "",
    cloud: Cloud | None = None,
    cloud_missing: str = "",
    morphs_bytes: int = MORPHS_BYTES,
) -> None:
    """Write the report of an HDF5 file: one self-contained HTML file.

    Args:
        store: HDF5 file of ``dagaug augment``.
        out: HTML file to write; an existing one is replaced.
        run: run folder of the training, for curves, sample sheets and attended regions.
        score: JSON file of ``dagaug score``.
        shots: JSON file of ``dagaug score --shots``.
        data: the data folder, for sources and references if the file has no real images.
        attention: returns attended regions, e.g. a :class:`~dagaug.report.regions_in_pixels.RegionFinder`.
        attention_missing: reason if there is no ``attention``.
        cloud: the data cloud (:func:`~dagaug.report.data_cloud.make_data_cloud`).
        cloud_missing: reason if there is no ``cloud``.
        morphs_bytes: bytes of all images of morphs, at most; fewer morphs are shown if they need more.

    Raises:
        StoreError: the HDF5 file is missing or unreadable.
        DataError: the run or the score is missing or invalid, or ``out`` cannot be written.
    """
    store = Path(store)
    scored = None if score is None else read_score(score)
    repeated = None if shots is None else read_shots(shots)
    training = TrainingView() if run is None else read_training(run)
    with Store(store) as opened:
        header, morphs = opened.header, MorphTable.of(opened)
        names = display_names(header.classes)
        made = f"{len(morphs):,} synthetic images of {len(names)} classes"
        options = [("Options of dagaug augment", _flat(header.options))]
        if run is not None:
            options.append(("Options of dagaug train", _flat(run_options(run))))
        if scored is not None:
            options.append(("Options of dagaug score", _flat(scored.options)))
        if repeated is not None:
            options.append(("Options of dagaug score --shots", _flat(repeated.options)))
        photographs = {} if scored is None else class_photographs(opened, OriginalImages(opened, data))
        page = Page(
            kind="Augmented data set",
            title=store.name,
            about=made + (f", made by {header.created_by}" if header.created_by else ""),
            version=installed_version(),
            score=None if scored is None else score_view(scored, photographs),
            shots=None if repeated is None else shots_view(repeated),
            counts=candidate_counts(opened, morphs, names),
            morphs=morph_section(opened, morphs, names, data, attention, attention_missing, morphs_bytes=morphs_bytes),
            cloud=None if cloud is None else cloud_section(opened, names, cloud),
            cloud_missing=cloud_missing,
            provenance=_store_provenance(opened, run, score),
            options=tuple((title, rows) for title, rows in options if rows),
            skipped=header.skipped[:_SKIPPED_ROWS],
            skipped_total=len(header.skipped),
            training=training,
        )
    _write(Path(out), render_page(page))


def write_figures(
    store: Path | str,
    folder: Path,
    form: FigureFormat,
    *,
    run: Path | None = None,
    score: Path | None = None,
    shots: Path | None = None,
    data: Path | None = None,
    cloud: Cloud | None = None,
    rows: int = 24,
    seed: int = 0,
) -> tuple[Path, ...]:
    """Write each plot and a contact sheet as a figure for a paper, one file each.

    Args:
        store: HDF5 file of ``dagaug augment``.
        folder: folder for the figures; created if missing; files of the same names are replaced.
        form: ``png`` or ``pdf``.
        run: run folder of the training, for its loss curves.
        score: JSON of ``dagaug score``, for its plots.
        shots: JSON of ``dagaug score --shots``, for its curve.
        data: the data folder, for sources and references if the file has no real images.
        cloud: the data cloud (:func:`~dagaug.report.data_cloud.make_data_cloud`).
        rows: number of morphs on the contact sheet.
        seed: random seed of the sample.

    Returns:
        the files.

    Raises:
        StoreError: the HDF5 file is missing, unreadable, or has no synthetic images.
        DataError: the score is missing or invalid, or the folder cannot be written.
    """
    figures = [] if score is None else list(score_figures(read_score(score), form))
    figures += [] if shots is None else list(shots_figures(read_shots(shots), form))
    sheet = _sheet(Path(store), rows=rows, seed=seed, data=data)
    figures.append(("morphs", encode(sheet, "png") if form == "png" else picture_figure(sheet, form)))
    if cloud is not None:
        with Store(store) as opened:
            figures.append(("cloud", cloud_figure(cloud_scatter(cloud, display_names(opened.classes)), form)))
    curves = training_figure(read_metrics(run / "metrics.jsonl"), form) if run is not None else None
    if curves is not None:
        figures.append(("training", curves))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be created ({error.strerror})", remedies={"out": None}) from error
    files = tuple(folder / f"{name}.{form}" for name, _ in figures)
    for file, (_, content) in zip(files, figures, strict=True):
        _write(file, content)
    return files


def write_run_report(run: Path | str, out: Path | str) -> None:
    """Write the report of a training run without an HDF5 file: curves, sheets, attention, options.

    Raises:
        DataError: the run does not exist, or ``out`` cannot be written.
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
        about="" if model.is_file() else "Unfinished: no model.safetensors yet.",
        version=installed_version(),
        provenance=tuple(provenance),
        options=(("Options of dagaug train", options),) if options else (),
        training=training,
    )
    _write(Path(out), render_page(page))


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
    """Nested options as pairs (dotted name, value)."""
    return tuple(_flattened(options, before))


def _flattened(options: Mapping[str, object], before: str) -> Iterator[tuple[str, str]]:
    for name, value in options.items():
        if isinstance(value, Mapping) and value:
            yield from _flattened(value, f"{before}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
            yield f"{before}{name}", text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "…"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(out: Path, content: bytes) -> None:
    try:
        write_atomically(out, content)
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror})", remedies={"out": None}) from error
