"""`dagaug push`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dagaug.cli.shared_options import Json, Quiet
from dagaug.hub.names import HUB, as_repository

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dagaug.hub.upload import Pushed, Upload

__all__ = ["push"]

_LISTED = 20  # files in a dry run


def push(
    path: Annotated[
        Path,
        typer.Argument(metavar="PATH", help="HDF5 file or folder of dagaug export (a dataset), or a run (a model)."),
    ],
    repository: Annotated[str, typer.Argument(metavar="REPO", help="Repository on the Hugging Face hub: USER/NAME.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[
        str, typer.Option(metavar="BRANCH", help="Branch to upload to; created if it is missing.")
    ] = "main",
    licence: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="Licence for the card, as the hub names it: cc-by-4.0, apache-2.0, other (default: as on the hub, or "
            "unknown).",
        ),
    ] = None,
    replace_card: Annotated[
        bool,
        typer.Option("--replace-card", help="Replace a card on the hub even if it was written or changed by hand."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be uploaded and its size, then exit; needs no network.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Upload an HDF5 file, an export or a run to the Hugging Face hub (HF_TOKEN, HF_ENDPOINT), with a card."""
    repository = as_repository(repository.removeprefix(HUB), f"{repository}: not a repository; write USER/NAME")
    from dagaug.cli.terminal import Terminal
    from dagaug.hub.card_format import CARD_FILE
    from dagaug.hub.upload import plan_upload, push

    terminal = Terminal(as_json=as_json, quiet=quiet)
    upload = plan_upload(path, _card_of(path, repository), licence=licence)
    files = {**upload.files, CARD_FILE: len(upload.card().encode())}
    total = sum(files.values())
    if dry_run:
        terminal.result(
            {"repository": repository, "repository_type": upload.repository_type, "private": private,
             "revision": revision, "files": files, "size": total},
            _plan_lines(upload, files, repository, revision, private),
        )  # fmt: skip
        return
    terminal.say(f"Uploading {_files(len(files))}, {_size(total)}, to {repository}")
    done = push(upload, repository, private=private, revision=revision, replace_card=replace_card, progress=not quiet)
    terminal.result(asdict(done), _result_lines(done, upload), next_step=_next_step(done, upload))


def _card_of(path: Path, repository: str) -> "Callable[[str], str]":
    """What renders the card for a licence."""
    from dagaug.hub.dataset_card import export_card, file_card
    from dagaug.hub.upload import kind_of

    kind = kind_of(path)
    if kind == "file":
        return lambda licence: file_card(path, repository, licence)
    if kind == "export":
        return lambda licence: export_card(path, licence)
    from dagaug.training.run_card import render_run_card

    return lambda licence: render_run_card(path, licence=licence, where=f"{HUB}{repository}")


def _files(count: int) -> str:
    return f"{count:,} file{'s' * (count != 1)}"


def _size(count: int) -> str:
    if count < 1_000:
        return f"{count} bytes"
    return f"{count / 1e6:,.1f} MB" if count >= 100_000 else f"{count / 1e3:,.1f} kB"


def _plan_lines(
    upload: "Upload", files: "Mapping[str, int]", repository: str, revision: str, private: bool
) -> list[str]:
    *others, (card, card_size) = files.items()
    rest = len(others) - _LISTED
    return [
        f"Would upload to the {upload.repository_type} repository {repository}, branch {revision}"
        + (", private if it is new" if private else ""),
        *(f"  {name}: {_size(size)}" for name, size in others[:_LISTED]),
        *([f"  and {rest:,} more"] if rest > 0 else []),
        f"  {card}: {_size(card_size)}, the card" + (" of the folder" if upload.own_card is not None else ""),
        f"{_files(len(files))}, {_size(sum(files.values()))}",
    ]


def _result_lines(done: "Pushed", upload: "Upload") -> list[str]:
    lines = [
        f"{_files(done.files)}, {_size(done.size)}, at {done.url} (branch {done.revision}, commit {done.commit[:8]})"
    ]
    if done.card_kept:
        lines.append("The card there was written or changed by hand and is kept; --replace-card replaces it")
    if upload.own_card is not None and not done.card_kept:
        lines.append(f"The card is {upload.folder / 'README.md'}, which was written or changed by hand")
    return lines


def _next_step(done: "Pushed", upload: "Upload") -> str:
    at = "" if done.revision == "main" else f"@{done.revision}"
    if upload.kind == "run":
        return f"dagaug augment DATA --checkpoint {HUB}{done.repository}{at}"
    return f"dagaug score DATA {HUB}{done.repository}{at}" if upload.kind == "file" else ""
