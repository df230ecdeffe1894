"""The folder of a training run: name, identity, lock, options file, metrics log."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dagaug.data.dataset_records import Dataset, Domains
from dagaug.data.mask_files import hash_masks
from dagaug.model import checkpoint
from dagaug.runtime.errors import OutputExistsError
from dagaug.runtime.files import locked, write_atomically
from dagaug.runtime.output_marks import mark_output
from dagaug.runtime.progress import SILENT, Progress
from dagaug.runtime.versions import library_versions
from dagaug.training.options import TrainOptions

__all__ = [
    "LIBRARIES",
    "METRICS_FILE",
    "OPTIONS_FILE",
    "RunOfOtherLength",
    "append_metrics",
    "claim_run",
    "find_run_of_other_length",
    "lock_run",
    "remove_if_empty",
    "run_folder",
    "run_identity",
    "truncate_metrics",
    "write_options",
]

LIBRARIES = ("torch", "opencv-python", "numpy")
"""Libraries besides dagaug whose versions can change the result of a training; and timm, if E or d is its network."""

OPTIONS_FILE = "options.json"
"""Name of the file with identity, number of steps, classes, number of training images and name of the data."""

METRICS_FILE = "metrics.jsonl"
"""Name of the file with the mean loss terms of every few steps, one JSON object a line."""

_LENGTH = frozenset(("steps", "minutes"))


def run_identity(options: TrainOptions, data: Dataset | Domains) -> dict[str, Any]:
    """What decides the result of a run: resolved options, hashes of the data's lists and masks, library versions.

    Runs with equal identities are the same run.
    """
    identity = _options_and_data(options, data)
    options = options.resolved()
    libraries = (*LIBRARIES, "timm") if identity["distance"].startswith("timm:") or options.features else LIBRARIES
    return {**identity, "versions": library_versions(*libraries)}


def _options_and_data(options: TrainOptions, data: Dataset | Domains) -> dict[str, Any]:
    if isinstance(data, Dataset):
        lists: Any = [[str(s.path), s.label, s.split] for s in data.samples] + [list(data.classes)]
    else:
        lists = [[str(path.name) for path in paths] for paths in (data.source, data.target)]
    digest = hashlib.sha256(json.dumps(lists).encode()).hexdigest()[:16]
    values = options.resolved().model_dump(mode="json")
    # runs from before these options lack the entries
    absent = [name for name in ("own_pixels", "features", "feature_weights") if not values[name]]
    for name in absent:
        del values[name]
    masks = hash_masks(data.subset(options.per_class).train) if isinstance(data, Dataset) else ""
    return {**values, "data": digest, **({"masks": masks[:16]} if masks else {})}


def run_folder(options: TrainOptions, data: Dataset | Domains, name: str, root: Path = Path("runs")) -> Path:
    """The default folder of a run: ``NAME-PRESET-HASH``, with a hash of options and data but not of versions."""
    identity = json.dumps(_options_and_data(options, data), sort_keys=True)
    return root / f"{name}-{options.preset}-{hashlib.sha256(identity.encode()).hexdigest()[:6]}"


@dataclass(frozen=True)
class RunOfOtherLength:
    """A run that differs from another one in its length only.

    Attributes:
        run: its folder.
        steps: number of its optimiser steps.
        finished: whether it has a model.
    """

    run: Path
    steps: int
    finished: bool


def find_run_of_other_length(
    options: TrainOptions, data: Dataset | Domains, name: str, root: Path = Path("runs")
) -> RunOfOtherLength | None:
    """The newest run in ``root`` with these options and data but another length; a finished one comes first.

    None if there is none, or if the run with exactly these options was begun.
    """
    own = run_folder(options, data, name, root)
    if (own / OPTIONS_FILE).exists():
        return None
    now = _without_length(_options_and_data(options, data))
    found = []
    for path in root.glob(f"*/{OPTIONS_FILE}"):
        if not path.parent.name.startswith(f"{name}-{options.preset}-"):
            continue
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):  # not a readable options file
            known = json.loads(path.read_text(encoding="utf-8"))
            before = {key: value for key, value in known["identity"].items() if key != "versions"}
            if _without_length(before) == now:
                finished = (path.parent / checkpoint.MODEL_FILE).exists()
                run = RunOfOtherLength(path.parent, int(known["steps"]), finished)
                found.append((finished, path.stat().st_mtime, run))
    return max(found, key=lambda one: one[:2])[2] if found else None


def _without_length(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in identity.items() if name not in _LENGTH}


def claim_run(run: Path, identity: dict[str, Any], overwrite: bool, progress: Progress = SILENT) -> dict[str, Any]:
    """Create the run's folder, or check that it belongs to the same run.

    Args:
        run: the folder.
        identity: of this run, by :func:`run_identity`.
        overwrite: whether another run in the folder may be replaced.
        progress: receives a line if the run in the folder names no library versions.

    Returns:
        the content of the options file of an earlier call; only ``identity`` for a new run.

    Raises:
        OutputExistsError: the folder belongs to another run, or cannot be written.
    """
    options = run / OPTIONS_FILE
    if options.exists() and not overwrite:
        try:
            known = json.loads(options.read_text(encoding="utf-8"))
            before = dict(known["identity"])
            versions = dict(before.pop("versions", {}))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise OutputExistsError(
                f"{options}: not a readable options file of a run", remedies={"overwrite": True, "out": None}
            ) from error
        now = {name: value for name, value in identity.items() if name != "versions"}
        _refuse_difference(run, _without_length(before), _without_length(now))
        _refuse_other_length(run, before, now)
        if versions:
            _refuse_difference(run, versions, identity["versions"])
        else:
            progress.say(f"{run}: was started by a dagaug that recorded no library versions; they may differ now")
        return known
    if (run / checkpoint.MODEL_FILE).exists() and not overwrite:
        raise OutputExistsError(f"{run}: holds a model that is not from a training run", remedies={"out": None})
    with _explained(run):
        run.mkdir(parents=True, exist_ok=True)
    return {"identity": identity}


def _refuse_difference(run: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for name in sorted(set(before) | set(now)):
        if before.get(name) != now.get(name):
            raise OutputExistsError(
                f"{run}: holds a run with {name} {before.get(name)}, but now it is {now.get(name)}",
                remedies={"overwrite": True, "out": None},
            )


def _refuse_other_length(run: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse another number of steps: phases and learning rate of a training follow from it."""
    if all(before.get(name) == now.get(name) for name in _LENGTH):
        return
    message = f"{run}: holds a run of {_describe_length(before)}, but now it is {_describe_length(now)}"
    remedies: dict[str, object] = {"overwrite": True, "out": None}
    if (run / checkpoint.MODEL_FILE).exists():
        message += "; the learning rate follows from the number of steps, so a finished run cannot be lengthened"
        if not now.get("features"):
            message += ", but a run in another folder can start from its weights"
            remedies = {"start": run, "overwrite": True}
    raise OutputExistsError(message, remedies=remedies)


def _describe_length(identity: Mapping[str, Any]) -> str:
    steps, minutes = identity.get("steps"), identity.get("minutes")
    if minutes is None:
        return "the default number of steps" if steps is None else f"{steps} steps"
    return f"{minutes:g} minutes" if steps is None else f"{minutes:g} minutes, at most {steps} steps"


@contextmanager
def _explained(run: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputExistsError(f"{run}: cannot be written ({error.strerror})", remedies={"out": None}) from error


@contextmanager
def lock_run(run: Path) -> Iterator[None]:
    """Lock a run's folder against other trainings during the block.

    Raises:
        LockedError: another training holds the lock.
        OutputExistsError: the lock cannot be created.
    """
    with _explained(run):
        run.parent.mkdir(parents=True, exist_ok=True)
        with locked(run.with_name(f".{run.name}.lock"), run):
            yield


@contextmanager
def remove_if_empty(run: Path) -> Iterator[None]:
    """If the block raises, remove the run's folder, provided that it is empty."""
    try:
        yield
    except BaseException:
        with suppress(OSError):  # not empty
            run.rmdir()
        raise


def append_metrics(path: Path, line: Mapping[str, Any]) -> None:
    """Append one JSON object to the metrics log."""
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")


def truncate_metrics(path: Path, done: int) -> None:
    """Remove the entries after step ``done``, which a killed run logged after its last saved state."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= done:
                kept.append(line + "\n")
        except (ValueError, KeyError):  # a half-written line
            break
    path.write_text("".join(kept), encoding="utf-8")


def write_options(run: Path, known: Mapping[str, Any]) -> None:
    """Write the options file, atomically."""
    mark_output(run, "run")
    write_atomically(run / OPTIONS_FILE, (json.dumps(known, indent=2) + "\n").encode())
