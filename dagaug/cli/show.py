"""`dagaug show`."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dagaug.cli.command_inputs import Input, check_early, find_input, newest_store, read_stored_dataset
from dagaug.cli.shared_options import Json, Seed, ShowChoice
from dagaug.runtime.errors import DataError, StoreError, UsageError

if TYPE_CHECKING:
    from dagaug.cli.terminal import Terminal
    from dagaug.data.dataset_records import Dataset

__all__ = ["show"]


def show(
    what: Annotated[
        Path | None,
        typer.Argument(
            metavar="PATH",
            help="HDF5 file written by dagaug augment, or a run folder; also hf-hub:USER/NAME[@REVISION] (default: the "
            "newest HDF5 file).",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="HTML page, or folder of figures, to write (default: beside the input)."),
    ] = None,
    form: Annotated[
        ShowChoice,
        typer.Option(
            "--format", help="Output: an HTML page with a contact sheet, or each plot as a figure for a paper."
        ),
    ] = "page",
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DATA",
            help="Data folder, for bounding boxes and real images (default: the one that the HDF5 file names).",
        ),
    ] = None,
    rows: Annotated[int, typer.Option(min=1, max=200, metavar="N", help="Number of morphs on the contact sheet.")] = 24,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Check schema, counts, indices, hashes and every image; write nothing."),
    ] = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Write a page (one HTML file, no network) and a contact sheet (PNG) of a result or a training run."""
    from dagaug.cli.terminal import Terminal

    terminal = Terminal(as_json=as_json)
    check_early(data=data)
    source = find_input(what or newest_store(), runs=True)
    if not source.path.exists():
        raise StoreError(f"{source.path}: no such file")
    if verify:
        _verify(source.path, terminal)
    elif source.path.is_dir():
        _show_run(source, out, form, terminal)
    elif form == "page":
        _show_page(source, out, data, rows, seed, terminal)
    else:
        _show_figures(source, out, form, data, rows, seed, terminal)


def _show_run(run: Input, out: Path | None, form: ShowChoice, terminal: "Terminal") -> None:
    from dagaug.report.write import write_run_report

    if form != "page":
        raise UsageError(f"figures need an HDF5 file, and {run.name} is a run", option="form", value=form)
    page = out or run.beside() / "report.html"
    write_run_report(run.path, page)
    terminal.result({"report": page}, [f"Page: {page}"])


@dataclass(frozen=True)
class _Inputs:
    """What lies around an HDF5 file; None where it was not found.

    Attributes:
        run: run folder of the training.
        score: JSON file of ``dagaug score``.
        shots: JSON file of ``dagaug score --shots``.
        data: the data folder.
        dataset: its content.
    """

    run: Path | None
    score: Path | None
    shots: Path | None
    data: Path | None
    dataset: "Dataset | None"


def _inputs_of(source: Input, data: Path | None, terminal: "Terminal") -> _Inputs:
    from dagaug.augment.stored_image_check import check_stored_images
    from dagaug.hdf5.reader import Store

    dataset, store = None, source.path
    with Store(store) as opened:
        header = opened.header
        score, shots = (source.beside().with_name(f"{store.stem}-{kind}.json") for kind in ("score", "shots"))
        root = data or header.provenance.data_folder(store)
        folder = root if root is not None and root.is_dir() else None
        try:
            if folder is not None:
                dataset = read_stored_dataset(folder, header)
                check_stored_images(opened, dataset)
        except DataError as error:
            if data is not None:
                raise
            terminal.say(f"{error}; continuing without the data folder")
            dataset = None
    from dagaug.model.checkpoint import find_by_hash

    checkpoint, _ = find_by_hash(header.provenance.checkpoint_places(store), header.checkpoint_sha256)
    run = checkpoint.parent if checkpoint is not None and (checkpoint.parent / "metrics.jsonl").is_file() else None
    return _Inputs(
        run=run,
        score=score if score.is_file() else None,
        shots=shots if shots.is_file() else None,
        data=folder if dataset is not None else None,
        dataset=dataset,
    )


def _show_page(source: Input, out: Path | None, data: Path | None, rows: int, seed: int, terminal: "Terminal") -> None:
    store, inputs = source.path, _inputs_of(source, data, terminal)
    from dagaug.compute.devices import pick_device
    from dagaug.report.data_cloud import make_data_cloud
    from dagaug.report.regions_in_pixels import find_attention
    from dagaug.report.write import sheet_of_store, write_report

    device = pick_device("auto")
    cloud, cloud_missing = make_data_cloud(store, inputs.dataset, seed=seed, device=device)
    page = out or source.beside().with_suffix(".html")
    sheet = page.with_suffix(".png")
    sheet_of_store(store, sheet, rows=rows, seed=seed, data=inputs.data)
    attention, attention_missing = find_attention(store, inputs.dataset, device=device)
    write_report(
        store, page, run=inputs.run, score=inputs.score, shots=inputs.shots, data=inputs.data,
        attention=attention, attention_missing=attention_missing, cloud=cloud, cloud_missing=cloud_missing,
    )  # fmt: skip
    terminal.result({"report": page, "sheet": sheet}, [f"Page: {page}", f"Contact sheet: {sheet}"])


def _show_figures(
    source: Input, out: Path | None, form: ShowChoice, data: Path | None, rows: int, seed: int, terminal: "Terminal"
) -> None:
    store, inputs = source.path, _inputs_of(source, data, terminal)
    from dagaug.compute.devices import pick_device
    from dagaug.report.data_cloud import make_data_cloud
    from dagaug.report.write import write_figures

    cloud, cloud_missing = make_data_cloud(store, inputs.dataset, seed=seed, device=pick_device("auto"))
    folder = out or source.beside().with_name(store.stem + "-figures")
    files = write_figures(
        store, folder, "png" if form == "png" else "pdf",
        run=inputs.run, score=inputs.score, shots=inputs.shots, data=inputs.data, cloud=cloud, rows=rows, seed=seed,
    )  # fmt: skip
    if cloud is None:
        terminal.say(f"No figure of the data cloud: {cloud_missing}")
    terminal.result({"figures": files}, [f"Figures in {folder}: {', '.join(file.name for file in files)}"])


def _verify(file: Path, terminal: "Terminal") -> None:
    from dagaug.hdf5.verify import verify

    if file.is_dir():
        raise UsageError(
            f"{file} is a folder; give the HDF5 file written by dagaug augment", option="verify", value=True
        )
    found = verify(file, progress=terminal)
    lines = [
        f"{file} is intact: {found.images:,} images ({found.real:,} real, {found.synthetic:,} synthetic), "
        f"{found.candidates:,} candidates, {found.classes:,} classes, {found.files:,} files, {found.skipped:,} skipped",
        f"Checked: type, shape and location of {found.datasets} datasets; the range of every index; SHA-256 of "
        f"{found.images:,} images, {found.data_bytes:,} bytes; {found.decoded:,} images decoded to their sizes; every "
        "morph against its candidate; SHA-256 of everything else",
        f"Objects: {found.boxes:,} boxes, {found.masks:,} masks of {found.mask_bytes:,} bytes; every mask against its "
        "image's size, every morph's box against its mask",
        f"Content: {found.content_sha256}",
    ]
    terminal.result({"file": file, **asdict(found)}, lines)
