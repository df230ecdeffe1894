"""`dagaug show`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from dagaug.cli.parameters import Json, Seed, ShowForm
from dagaug.cli.shared import newest_store, seed_of_split
from dagaug.cli.terminal import Terminal
from dagaug.runtime.errors import DataError, UsageError

__all__ = ["show"]


def show(
    what: Annotated[
        Path | None, typer.Argument(help="HDF5 file of dagaug augment, or a run folder; the newest file by default.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="HTML page, or folder of figures, to write; beside what is shown by default.")
    ] = None,
    form: Annotated[
        ShowForm,
        typer.Option("--format", help="A page and a contact sheet; or each plot as a figure fit for a paper."),
    ] = ShowForm.page,
    data: Annotated[
        Path | None, typer.Option(help="Data folder, if it is not where the file says: for boxes and real images.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, max=200, help="Morphs on the contact sheet.")] = 24,
    verify: Annotated[
        bool, typer.Option("--verify", help="Write nothing: check schema, counts, indices, hashes and every image.")
    ] = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Write a contact sheet (PNG) and a page (one HTML file, no network) of a result or a training."""
    terminal = Terminal(as_json=as_json)
    what = what or newest_store()
    if verify:
        _verify(what, terminal)
        return
    from dagaug.compute.devices import pick_device
    from dagaug.data.layouts import read_dataset
    from dagaug.hdf5.reader import Store
    from dagaug.report.attention import attention_of
    from dagaug.report.data_cloud import cloud_of
    from dagaug.report.write import sheet_of_store, write_figures, write_report, write_run_report

    if what.is_dir():
        if form != ShowForm.page:
            raise UsageError(f"--format {form.value}: figures are made of an HDF5 file, and {what} is a folder")
        page = out or what / "report.html"
        write_run_report(what, page)
        terminal.result({"report": page}, [f"Page: {page}"])
        return
    with Store(what) as store:
        known = store.header.options
        layout, split_seed = str(known.get("layout", "auto")), seed_of_split(store.header)
    root = data or (Path(str(known["data"])) if known.get("data") else None)
    run = Path(str(known.get("checkpoint", ""))).parent
    table = what.with_name(what.stem + "-score.json")
    trained = run if (run / "metrics.jsonl").is_file() else None
    score = table if table.is_file() else None
    folder = root if root is not None and root.is_dir() else None
    on = pick_device("auto")
    try:
        dataset = read_dataset(folder, layout=layout, seed=split_seed) if folder is not None else None
    except DataError as error:
        if data is not None:
            raise
        terminal.say(f"{error}; the page does without it")
        dataset = None
    cloud, unclouded = cloud_of(what, dataset, seed=seed, device=on)
    if form != ShowForm.page:
        figures = out or what.with_name(what.stem + "-figures")
        kind: Literal["png", "pdf"] = "png" if form == ShowForm.png else "pdf"
        files = write_figures(
            what, figures, kind, run=trained, score=score, data=folder, cloud=cloud, rows=rows, seed=seed
        )
        if cloud is None:
            terminal.say(f"No figure of the data cloud: {unclouded}")
        terminal.result({"figures": files}, [f"Figures in {figures}: {', '.join(file.name for file in files)}"])
        return
    page = out or what.with_suffix(".html")
    sheet = page.with_suffix(".png")
    sheet_of_store(what, sheet, rows=rows, seed=seed, data=folder)
    attention, unattended = attention_of(what, dataset, device=on)
    write_report(
        what, page, run=trained, score=score, data=folder,
        attention=attention, unattended=unattended, cloud=cloud, unclouded=unclouded,
    )  # fmt: skip
    terminal.result({"report": page, "sheet": sheet}, [f"Page: {page}", f"Contact sheet: {sheet}"])


def _verify(file: Path, terminal: Terminal) -> None:
    from dagaug.hdf5.verify import verify

    if file.is_dir():
        raise UsageError(f"--verify {file}: a folder; give the HDF5 file of dagaug augment")
    found = verify(file, progress=terminal)
    lines = [
        f"{file} is whole: {found.images:,} images ({found.real:,} real, {found.synthetic:,} synthetic), "
        f"{found.candidates:,} candidates, {found.classes:,} classes, {found.files:,} files, {found.skipped:,} skipped",
        f"Checked: type, shape and place of {found.datasets} datasets; the range of every index; SHA-256 of "
        f"{found.images:,} images, {found.data_bytes:,} bytes; {found.decoded:,} images decoded to their sizes; every "
        "morph against its candidate; SHA-256 of everything else",
        f"Content: {found.content_sha256}",
    ]
    terminal.result({"file": file, **asdict(found)}, lines)
