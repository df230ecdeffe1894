"""Downloads of runs and HDF5 files from the hub, through its cache on this machine.

Only safetensors, JSON and HDF5 files, tables and pictures are fetched; nothing is unpickled. Every download names the
commit that it came from. With a commit in the name, a cached download needs no network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

from dagaug.hub.hub_errors import explained, is_unreachable, quiet_library
from dagaug.hub.names import HubName, is_hub_name, parse_hub_name
from dagaug.runtime.errors import HubError

__all__ = ["MODEL", "RUN_FILES", "Fetched", "fetch_any", "fetch_file", "fetch_run", "local_file", "with_commit"]

MODEL = "model.safetensors"
"""The file that makes a repository a run."""

RUN_FILES = (MODEL, "model.json", "options.json", "measures.json", "metrics.jsonl", "split.csv")
"""Files of a run folder that commands read; pictures and the card are uploaded besides."""

_SUFFIXES = (".h5", ".hdf5")


@dataclass(frozen=True)
class Fetched:
    """A download.

    Attributes:
        path: the HDF5 file, or the folder of the run, in the hub's cache; nothing may be written there.
        name: its name with the commit.
    """

    path: Path
    name: HubName


def fetch_run(name: HubName) -> Fetched:
    """Download a run.

    Raises:
        HubError: the hub cannot be reached, refuses, or has no run of this name.
    """
    if name.file:
        raise HubError(f"{name}: names a file, but a run is wanted")
    with explained(str(name)), quiet_library():
        try:
            folder = _snapshot(name, "model", allow_patterns=RUN_FILES)
        except RepositoryNotFoundError:
            if HfApi().repo_exists(name.repository, repo_type="dataset"):
                raise HubError(f"{name}: is a repository of data, but a run (a model) is wanted") from None
            raise
    if not (folder / MODEL).is_file():
        raise HubError(f"{name}: is no run of dagaug (no {MODEL} in it)")
    return Fetched(folder, replace(name, revision=folder.name))


def fetch_file(name: HubName, *, progress: bool = False) -> Fetched:
    """Download an HDF5 file: the one that is named, or the only one of the repository.

    Args:
        name: the file's name.
        progress: whether to show a progress bar if stderr is a terminal.

    Raises:
        HubError: the hub cannot be reached, refuses, or has no such file, or several.
    """
    with explained(str(name)), quiet_library(progress=progress):
        try:
            found = name if name.file else replace(name, file=_only_file(name))
            path = HfApi().hf_hub_download(
                found.repository, found.file, repo_type="dataset", revision=found.revision or None
            )
        except RepositoryNotFoundError:
            if HfApi().repo_exists(name.repository, repo_type="model"):
                raise HubError(f"{name}: is a repository of a model, but an HDF5 file is wanted") from None
            raise
    folder = Path(path).parents[found.file.count("/")]
    return Fetched(Path(path), replace(found, revision=folder.name))


def fetch_any(name: HubName, *, progress: bool = False) -> Fetched:
    """Download what has this name: an HDF5 file if there is a repository of data, else a run.

    Arguments as those of :func:`fetch_file`.

    Raises:
        HubError: see :func:`fetch_file` and :func:`fetch_run`.
    """
    with explained(str(name)), quiet_library():
        try:
            is_data = bool(name.file) or HfApi().repo_exists(name.repository, repo_type="dataset")
        except Exception as error:
            if not is_unreachable(error):
                raise
            is_data = _cached(name, "dataset") is not None
    return fetch_file(name, progress=progress) if is_data else fetch_run(name)


def _only_file(name: HubName) -> str:
    """The only HDF5 file of a repository; of the cached ones if there is no network."""
    try:
        info = HfApi().dataset_info(name.repository, revision=name.revision or None)
        files = [one.rfilename for one in info.siblings or ()]
    except Exception as error:
        folder = _cached(name, "dataset") if is_unreachable(error) else None
        if folder is None:
            raise
        files = [path.relative_to(folder).as_posix() for path in folder.rglob("*")]
    found = sorted(file for file in files if file.lower().endswith(_SUFFIXES))
    if not found:
        raise HubError(f"{name}: holds no HDF5 file; examples/interop.md shows how to import an export")
    if len(found) > 1:
        raise HubError(f"{name}: holds {len(found)} HDF5 files; name one: {replace(name, file=found[0])}")
    return found[0]


def _snapshot(name: HubName, kind: str, *, allow_patterns: Sequence[str], cached: bool = False) -> Path:
    return Path(
        HfApi().snapshot_download(
            name.repository, repo_type=kind, revision=name.revision or None, allow_patterns=list(allow_patterns),
            local_files_only=cached,
        )
    )  # fmt: skip


def _cached(name: HubName, kind: str) -> Path | None:
    """Folder of a revision in the hub's cache, whatever it holds; None if there is none."""
    try:
        return _snapshot(name, kind, allow_patterns=(), cached=True)
    except LocalEntryNotFoundError:
        return None


def local_file(path: Path | str) -> Path:
    """The path itself; for a name on the hub, the downloaded HDF5 file.

    Raises:
        UsageError, HubError: see :func:`dagaug.hub.names.parse_hub_name` and :func:`fetch_file`.
    """
    return fetch_file(parse_hub_name(path)).path if is_hub_name(path) else Path(path)


def with_commit(path: Path | str) -> Path:
    """The path itself; for a name on the hub, the name of the downloaded HDF5 file with its commit.

    Raises:
        UsageError, HubError: see :func:`local_file`.
    """
    return Path(str(fetch_file(parse_hub_name(path)).name)) if is_hub_name(path) else Path(path)
