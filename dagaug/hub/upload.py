"""Uploads: an HDF5 file or an export as a repository of data, a run as a repository of a model, each with a card.

Large files travel as the hub's library offers: in chunks that are not sent again after an interruption, or as parts of
Git LFS without ``hf_xet``. The same command again continues an upload, and changes nothing if nothing has changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from huggingface_hub import CommitOperationAdd, HfApi, get_token
from huggingface_hub.errors import EntryNotFoundError, HTTPError, RepositoryNotFoundError, RevisionNotFoundError

from dagaug.exchange.non_image_content import MANIFEST
from dagaug.hdf5.reader import Store
from dagaug.hub.card_format import CARD_FILE, UNKNOWN_LICENCE, licence_of
from dagaug.hub.download import MODEL, RUN_FILES
from dagaug.hub.hub_errors import explained, quiet_library
from dagaug.runtime.errors import CheckpointError, HubError, StoreError, UsageError
from dagaug.runtime.unedited_texts import is_unedited, stamped

__all__ = ["Kind", "Pushed", "Upload", "kind_of", "plan_upload", "push"]

Kind = Literal["file", "export", "run"]
"""What is uploaded: an HDF5 file, a folder of ``dagaug export``, or the folder of a training run."""

_PICTURES = ("attention.png", "flow.png", "sheets/*.png")
_TYPES: dict[Kind, str] = {"file": "dataset", "export": "dataset", "run": "model"}


@dataclass(frozen=True)
class Upload:
    """What an upload consists of.

    Attributes:
        kind: what it is.
        folder: the folder with the files.
        files: the files without the card: names relative to the folder, and sizes in bytes.
        render_card: gives the text of the card for a licence, the hub's identifier.
        licence: the licence; None for that of the card on the hub, if dagaug wrote it.
        own_card: text of the folder's README.md if a person wrote or changed it; then it is the card.
    """

    kind: Kind
    folder: Path
    files: dict[str, int]
    render_card: Callable[[str], str]
    licence: str | None = None
    own_card: str | None = None

    def card(self, there: str | None = None) -> str:
        """Text of the card, given the card that the hub has; None without one."""
        if self.own_card is not None:
            return self.own_card
        licence = self.licence or (licence_of(there) if there is not None else None) or UNKNOWN_LICENCE
        return stamped(self.render_card(licence))

    @property
    def repository_type(self) -> str:
        """``dataset`` or ``model``."""
        return _TYPES[self.kind]


@dataclass(frozen=True)
class Pushed:
    """A finished upload.

    Attributes:
        repository: ``USER/NAME``.
        repository_type: ``dataset`` or ``model``.
        url: address of the repository.
        revision: the branch.
        commit: hash of its newest commit.
        files: number of files, with the card.
        size: their bytes.
        card_kept: whether the repository kept a card that a person wrote or changed.
    """

    repository: str
    repository_type: str
    url: str
    revision: str
    commit: str
    files: int
    size: int
    card_kept: bool


def kind_of(path: Path) -> Kind:
    """What a path holds.

    Raises:
        UsageError: nothing that can be uploaded.
        CheckpointError: the folder of a training that is not finished.
    """
    if path.is_file():
        return "file"
    if (path / MANIFEST).is_file():
        return "export"
    if (path / MODEL).is_file():
        return "run"
    if (path / "state.safetensors").is_file():
        raise CheckpointError(f"{path}: the training is not finished; run the same dagaug train command again")
    what = "holds neither a finished run nor an export" if path.is_dir() else "no such file or folder"
    raise UsageError(f"{path}: {what}; give an HDF5 file, a run folder, or a folder of dagaug export")


def plan_upload(path: Path, render_card: Callable[[str], str], *, licence: str | None = None) -> Upload:
    """List what is uploaded.

    Args:
        path: HDF5 file, export or run folder.
        render_card: gives the text of the card for a licence.
        licence: the hub's identifier of a licence; None for that of the card on the hub, else unknown.

    Raises:
        StoreError: the HDF5 file cannot be read, or is virtual: its images are in other files.
        UsageError: a licence for a card of the folder that a person wrote or changed.
    """
    kind = kind_of(path)
    if kind == "file":
        with Store(path) as store:
            if store.is_virtual:
                raise StoreError(f"{path}: its images are in a folder of shards; push an export of it: dagaug export")
        return Upload(kind, path.parent, {path.name: path.stat().st_size}, render_card, licence)
    if kind == "run":
        found = [path / name for name in RUN_FILES] + [file for part in _PICTURES for file in sorted(path.glob(part))]
    else:
        found = sorted(path.rglob("*"))
    names = {file.relative_to(path).as_posix(): file for file in found if file.is_file()}
    names.pop(CARD_FILE, None)
    own = _text_of(path / CARD_FILE)
    own = None if own is not None and is_unedited(own) else own
    if own is not None and licence is not None:
        message = f"{path / CARD_FILE} was written or changed by hand; state the licence there"
        raise UsageError(message, option="licence", value=licence)
    return Upload(kind, path, {name: file.stat().st_size for name, file in names.items()}, render_card, licence, own)


def _text_of(card: Path) -> str | None:
    return card.read_text(encoding="utf-8", errors="replace") if card.is_file() else None


def push(
    upload: Upload,
    repository: str,
    *,
    private: bool = False,
    revision: str = "main",
    replace_card: bool = False,
    progress: bool = False,
) -> Pushed:
    """Upload to the hub; a missing repository and a missing branch are created.

    Token and address of the hub are those of its library: ``HF_TOKEN`` or a saved login, and ``HF_ENDPOINT``.

    Args:
        upload: what to upload.
        repository: ``USER/NAME``.
        private: make a new repository private.
        revision: the branch.
        replace_card: replace also a card in the repository that a person wrote or changed.
        progress: whether to show progress bars if stderr is a terminal.

    Raises:
        HubError: there is no token, the hub cannot be reached or refuses, or the repository is of another type.
        UsageError: ``private`` for a repository that is public.
    """
    if get_token() is None:
        raise HubError("no token of the hub was found; set HF_TOKEN, or log in once: hf auth login")
    api, kind = HfApi(), upload.repository_type
    with explained(repository, uploading=True), quiet_library(progress=progress):
        _make_repository(api, repository, kind, private)
        if revision != "main":
            api.create_branch(repository, branch=revision, repo_type=kind, exist_ok=True)
        there = _card_there(api, repository, kind, revision)
        card = upload.card(there)
        kept = there is not None and there != card and not is_unedited(there) and not replace_card
        try:
            commit = _commit(api, upload, None if kept else card.encode(), repository, revision)
        except (RuntimeError, ValueError) as error:  # of hf_xet and Git LFS, and of a card that the hub refuses
            if isinstance(error, HTTPError):
                raise
            raise HubError(f"{repository}: {' '.join(str(error).split())}") from error
    return Pushed(
        repository=repository,
        repository_type=kind,
        url=f"{api.endpoint}/{'datasets/' if kind == 'dataset' else ''}{repository}",
        revision=revision,
        commit=commit,
        files=len(upload.files) + (not kept),
        size=sum(upload.files.values()) + (0 if kept else len(card.encode())),
        card_kept=kept,
    )


def _make_repository(api: HfApi, repository: str, kind: str, private: bool) -> None:
    """Create the repository, or check that an existing one is of this type and as private as is wanted."""
    other, held = ("model", "a model") if kind == "dataset" else ("dataset", "data")
    if api.repo_exists(repository, repo_type=other):
        raise HubError(f"{repository}: is a repository of {held} already; give another name")
    try:
        known = api.repo_info(repository, repo_type=kind)
    except RepositoryNotFoundError:
        api.create_repo(repository, repo_type=kind, private=private)
        return
    if private and not known.private:
        raise UsageError(
            f"{repository} exists and is public; make it private in its settings on the hub, or give another name",
            option="private", value=True,
        )  # fmt: skip


def _card_there(api: HfApi, repository: str, kind: str, revision: str) -> str | None:
    """The card that the branch has; None without one."""
    try:
        return _text_of(Path(api.hf_hub_download(repository, CARD_FILE, repo_type=kind, revision=revision)))
    except (EntryNotFoundError, RevisionNotFoundError):  # a new repository has no revision yet
        return None


def _commit(api: HfApi, upload: Upload, text: bytes | None, repository: str, revision: str) -> str:
    """Upload the files, then the card, so that a card stands only beside complete data; the newest commit."""
    kind, message = upload.repository_type, f"Upload {upload.kind} with dagaug"
    card = [] if text is None else [CommitOperationAdd(CARD_FILE, text)]
    if upload.kind == "export":  # may have very many files: the library sends these in several commits
        commit = api.upload_folder(
            repo_id=repository, folder_path=upload.folder, repo_type=kind, revision=revision, commit_message=message,
            ignore_patterns=[CARD_FILE],
        )  # fmt: skip
        if not card:
            return str(commit.oid)
        operations = card
    else:
        operations = [CommitOperationAdd(name, upload.folder / name) for name in upload.files] + card
    commit = api.create_commit(repository, operations, commit_message=message, repo_type=kind, revision=revision)
    return str(commit.oid)
